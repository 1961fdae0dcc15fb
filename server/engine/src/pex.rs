//! Peer exchange (BEP 11): whom a torrent's peers are told of, and whom they are believed to know.
//!
//! A torrent's connections enter their peers into one [`Swarm`], which numbers what comes and goes.
//! What a connection has told is then two numbers ([`Teller`]), whatever the size of the swarm: the
//! first message has the newest peers, each further one what came and went since. What a peer tells
//! passes a [`Listener`].
//!
//! Limits: [`MESSAGE_PEERS_MAX`] peers that came and as many that went in a message, one in
//! [`PERIOD`]; [`SWARM_PEERS_MAX`] peers of a swarm, beyond which who comes is not told of;
//! [`DEPARTED_MAX`] of those that went, the oldest of whom is forgotten. Of what one peer names:
//! [`NAMED_MAX`] addresses in [`NAMED_PERIOD`], and [`NAMED_IN_NETWORK_MAX`] of them in one IPv4
//! /24 or IPv6 /64 of the public internet, so that nobody fills a list of peers with his own.
//! Nobody names addresses that are not his to see ([`may_name`]).
//!
//! Not here: whether anybody is told or heard at all, which of a private torrent nobody is
//! (BEP 27).

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use proto::address::{is_global, may_name};
use proto::pex::{PexFlags, PexMessage, PexPeer};

use crate::time::Time;

/// Peers that came, and peers that went, in one message (BEP 11).
pub const MESSAGE_PEERS_MAX: usize = 50;

/// The time between two messages on a connection (BEP 11).
pub const PERIOD: Duration = Duration::from_secs(60);

/// The time after which a further message is taken: peers' clocks, and the way, are not ours.
const PERIOD_TAKEN: Duration = Duration::from_secs(45);

/// Messages that come too soon, one after another, before the peer is closed.
pub const EARLY_MAX: u32 = 20;

/// Peers of one swarm that are told of.
pub const SWARM_PEERS_MAX: usize = 1_000;

/// Peers that went that are remembered for those who were told of them.
pub const DEPARTED_MAX: usize = 1_000;

/// Addresses that are taken from one peer in [`NAMED_PERIOD`].
pub const NAMED_MAX: usize = 500;

/// Addresses of them in one IPv4 /24 or IPv6 /64.
pub const NAMED_IN_NETWORK_MAX: usize = 8;

/// The time after which a peer may name as many again.
pub const NAMED_PERIOD: Duration = Duration::from_secs(3600);

/// How many messages a connection may be behind before it leaves out the oldest news.
const BACKLOG_MESSAGES_MAX: usize = 4;

/// A peer's place in its [`Swarm`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SwarmKey(u64);

#[derive(Clone, Copy, Debug)]
struct Departed {
    /// How many had gone before it.
    number: u64,
    key: SwarmKey,
    address: SocketAddr,
}

/// The peers that a torrent is connected to, and some that it was: see the module.
#[derive(Clone, Debug, Default)]
pub struct Swarm {
    present: BTreeMap<SwarmKey, PexPeer>,
    /// The key of the next peer that comes.
    next: u64,
    departed: VecDeque<Departed>,
    /// How many have gone in all.
    departures: u64,
}

impl Swarm {
    /// A peer has come. `None` if it is not to be told of, for want of room.
    pub fn join(&mut self, peer: PexPeer) -> Option<SwarmKey> {
        if self.present.len() >= SWARM_PEERS_MAX {
            return None;
        }
        let key = SwarmKey(self.next);
        self.next += 1;
        self.present.insert(key, peer);
        Some(key)
    }

    /// A peer has gone.
    pub fn leave(&mut self, key: SwarmKey) {
        let Some(PexPeer { address, .. }) = self.present.remove(&key) else {
            return;
        };
        if self.departed.len() >= DEPARTED_MAX {
            self.departed.pop_front();
        }
        let number = self.departures;
        self.departed.push_back(Departed {
            number,
            key,
            address,
        });
        self.departures += 1;
    }

    /// What is known of a peer has changed; who was told of it is not told again.
    pub fn set_flags(&mut self, key: SwarmKey, flags: PexFlags) {
        if let Some(peer) = self.present.get_mut(&key) {
            peer.flags = flags;
        }
    }

    /// A number that grows with all that comes and goes.
    pub fn version(&self) -> u64 {
        self.next + self.departures
    }

    /// Whether one of the peers is at `address`. It looks at each.
    pub fn has(&self, address: SocketAddr) -> bool {
        self.present.values().any(|peer| peer.address == address)
    }

    /// How many peers are told of.
    pub fn len(&self) -> usize {
        self.present.len()
    }

    /// Whether nobody is.
    pub fn is_empty(&self) -> bool {
        self.present.is_empty()
    }

    /// Those that have gone since so many had, the first to go first.
    fn departed_since(&self, departures: u64) -> impl Iterator<Item = &Departed> {
        let first = self.departed.front().map_or(0, |one| one.number);
        let skipped = usize::try_from(departures.saturating_sub(first)).unwrap_or(usize::MAX);
        self.departed.iter().skip(skipped)
    }
}

/// Who is told.
#[derive(Clone, Copy, Debug)]
pub struct Receiver {
    /// Its address.
    pub ip: IpAddr,
    /// Its own place in the swarm, if it has one.
    pub key: Option<SwarmKey>,
}

/// What one connection has told of its swarm.
#[derive(Clone, Copy, Debug, Default)]
pub struct Teller {
    /// Told were those from `first` to before `next` that the receiver may know.
    first: u64,
    next: u64,
    departures: u64,
    due_at: Time,
    has_begun: bool,
}

impl Teller {
    /// Whether a message may be sent.
    pub fn is_due(&self, now: Time) -> bool {
        now >= self.due_at
    }

    /// The next message, if one may be sent and there is anything to tell.
    pub fn next_message(
        &mut self,
        swarm: &Swarm,
        receiver: Receiver,
        now: Time,
    ) -> Option<PexMessage> {
        if !self.is_due(now) {
            return None;
        }
        let dropped = self.dropped(swarm, receiver);
        let added = match self.has_begun {
            true => self.news(swarm, receiver),
            false => self.newest(swarm, receiver),
        };
        let message = PexMessage { added, dropped };
        if message.is_empty() {
            return None;
        }
        self.has_begun = true;
        self.due_at = now + PERIOD;
        Some(message)
    }

    /// The newest peers: it is the first message.
    fn newest(&mut self, swarm: &Swarm, receiver: Receiver) -> Vec<PexPeer> {
        let known = swarm.present.iter().rev();
        let told = known.filter(|(key, peer)| receiver.may_know(**key, peer.address));
        let told: Vec<_> = told.take(MESSAGE_PEERS_MAX).collect();
        self.next = swarm.next;
        self.first = told.last().map_or(swarm.next, |(key, _)| key.0);
        told.into_iter().map(|(_, peer)| *peer).collect()
    }

    /// Those who came since the last message.
    fn news(&mut self, swarm: &Swarm, receiver: Receiver) -> Vec<PexPeer> {
        let backlog = swarm.present.range(SwarmKey(self.next)..).rev();
        let mut too_old = backlog.skip(BACKLOG_MESSAGES_MAX * MESSAGE_PEERS_MAX);
        // Who came so long before the newest is left out, for good.
        if let Some((key, _)) = too_old.next() {
            self.first = key.0 + 1;
            self.next = key.0 + 1;
        }
        let mut added = Vec::new();
        let mut next = swarm.next;
        for (&key, peer) in swarm.present.range(SwarmKey(self.next)..) {
            if added.len() == MESSAGE_PEERS_MAX {
                next = key.0;
                break;
            }
            if receiver.may_know(key, peer.address) {
                added.push(*peer);
            }
        }
        self.next = next;
        added
    }

    /// Those who were told of and have gone since.
    fn dropped(&mut self, swarm: &Swarm, receiver: Receiver) -> Vec<SocketAddr> {
        let mut dropped = Vec::new();
        let mut departures = swarm.departures;
        for one in swarm.departed_since(self.departures) {
            if dropped.len() == MESSAGE_PEERS_MAX {
                departures = one.number;
                break;
            }
            let was_told = (self.first..self.next).contains(&one.key.0);
            if was_told && receiver.may_know(one.key, one.address) {
                dropped.push(one.address);
            }
        }
        self.departures = departures;
        dropped
    }
}

impl Receiver {
    fn may_know(&self, key: SwarmKey, address: SocketAddr) -> bool {
        self.key != Some(key) && may_name(self.ip, address)
    }
}

/// A peer tells again and again before its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooOften {
    /// How many messages came too soon, one after another.
    pub count: u32,
}

/// What one peer has told, and what is taken of it: see the module.
#[derive(Clone, Debug, Default)]
pub struct Listener {
    /// A further message before this time is ignored.
    next_at: Time,
    early: u32,
    /// How many addresses were taken, the network of each public one, and until when that counts.
    /// Four bytes for each address: thousands of peers may fill this.
    named: usize,
    networks: Vec<u32>,
    period_ends: Time,
}

impl Listener {
    /// Whether a message that comes now is to be read at all. An error closes the peer.
    pub fn heed(&mut self, now: Time) -> Result<bool, TooOften> {
        if now < self.next_at {
            self.early += 1;
            let count = self.early;
            return match count > EARLY_MAX {
                true => Err(TooOften { count }),
                false => Ok(false),
            };
        }
        self.early = 0;
        self.next_at = now + PERIOD_TAKEN;
        Ok(true)
    }

    /// What is believed of a message from `source`, which is one of those that [`Self::heed`] let
    /// pass. `own` is our own address, as far as it is known.
    pub fn accept(
        &mut self,
        message: &PexMessage,
        source: IpAddr,
        own: Option<SocketAddr>,
        now: Time,
    ) -> Vec<PexPeer> {
        if now >= self.period_ends {
            self.period_ends = now + NAMED_PERIOD;
            self.named = 0;
            self.networks = Vec::new();
        }
        let named = message.added.iter().take(MESSAGE_PEERS_MAX);
        let is_ours = |address: SocketAddr| own.is_some_and(|own| own == address);
        let mut accepted = Vec::new();
        for peer in named {
            let address = SocketAddr::new(peer.address.ip().to_canonical(), peer.address.port());
            let is_right = may_name(source, address) && !is_ours(address);
            if is_right && self.named < NAMED_MAX && self.has_room_in_network(address.ip()) {
                self.named += 1;
                accepted.push(PexPeer { address, ..*peer });
            }
        }
        accepted
    }

    /// Counts one more address of its network, unless it has its share.
    fn has_room_in_network(&mut self, ip: IpAddr) -> bool {
        if !is_global(ip) {
            // Who names these is in the same network, where all hosts may well be in one /24.
            return true;
        }
        let network = network(ip);
        let named = self.networks.iter().filter(|&&known| known == network);
        let has_room = named.count() < NAMED_IN_NETWORK_MAX;
        if has_room {
            self.networks.push(network);
        }
        has_room
    }
}

/// The IPv4 /24 or IPv6 /64 of an address, as a number. Two networks may have the same, which only
/// leaves who names them less.
fn network(ip: IpAddr) -> u32 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits() >> 8,
        IpAddr::V6(ip) => {
            let [high, low] = [
                ip.to_bits() >> 96,
                ip.to_bits() >> 64 & u128::from(u32::MAX),
            ]
            .map(|half| u32::try_from(half).unwrap_or(0));
            high.rotate_left(16) ^ low
        }
    }
}

#[cfg(test)]
mod tests;
