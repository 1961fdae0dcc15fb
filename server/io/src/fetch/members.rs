//! Who is a peer of a download: who may join, who gives way when all places are taken, who is kept
//! away.
//!
//! What a peer says of itself decides nothing against others: a peer id is anybody's to copy, so
//! two connections with one id are one peer only where they come from one host, and the one that
//! was there first stays. (Where both sides called each other at the same moment, the one that the
//! greater id began, so that both keep the same.) All addresses of our own machine are one host: a
//! seed on it is named by its trackers by another one than by its user.
//!
//! Two hosts with one id are, as a rule, one peer with an address of each family; or a stranger
//! with a peer's name. Both stay for [`COMPARED_FOR`]; then the one goes that has given less. So
//! who drives out a seed by its name has to be the better seed, for as long as that lasts: the
//! other's address is tried again after a while.
//!
//! Limits: [`FetchConfig::peers_max`](crate::fetch::FetchConfig) or the torrent's own, of which peers that came by
//! themselves get three quarters at most, so that whoever fills our places cannot keep us from a
//! seed; when all are taken, who was of no use for
//! [`FetchConfig::patience`](crate::fetch::FetchConfig) gives way. [`DEPARTED_MAX`] peers are
//! remembered after they have gone, because what they sent may turn out wrong later.

use crate::closing::CloseReason;
use crate::connection::Connection;
use crate::fetch::FetchEvent;
use crate::fetch::home::ActiveFetch;
use crate::shard::Shard;
use crate::sockets;
use engine::choker::PeerKey;
use engine::peer_list::{PeerSource, SourceCounts};
use engine::picker::PeerPieces;
use engine::time::Time;
use proto::address::is_global;
use proto::ids::PeerId;
use seedring_metrics::Counter;
use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

/// Peers that sent blocks and have gone, of whom the address is remembered; the first to go is
/// forgotten first.
const DEPARTED_MAX: usize = 1_024;

/// For so long two connections to one peer count as begun at the same moment.
const SETTLED_AFTER: Duration = Duration::from_secs(5);

/// For so long peers of two hosts with one peer id are compared.
const COMPARED_FOR: Duration = Duration::from_secs(3);

/// Hosts that must see us at an address before we believe them.
const VOTERS_MIN: usize = 2;

/// How long after a peer that came by itself has gone it is called, if it said where it listens.
const CALL_BACK_AFTER: Duration = Duration::from_secs(30);

/// A peer that wants something, or has something, may exchange nothing for so many times the
/// patience.
const IDLE_FACTOR: u32 = 10;

/// A peer of a download.
pub(crate) struct Member {
    pub(crate) connection: Rc<Connection>,
    /// Where it listens, if we called it.
    pub(crate) called: Option<SocketAddr>,
    /// Who named it; itself, if it came.
    pub(crate) source: PeerSource,
    joined_at: Time,
    /// Payload that it gave and was given, as of the last look.
    exchanged_bytes: Cell<u64>,
    exchanged_at: Cell<Time>,
    /// When it last exchanged something, or one of us wanted something of the other.
    wanted_at: Cell<Time>,
    /// Since when it is compared with others of its id, and what it had given by then.
    compared: Cell<Option<(Time, u64)>>,
}

impl Member {
    /// By which it is kept away.
    fn address(&self) -> SocketAddr {
        self.called.unwrap_or(self.connection.peer)
    }

    fn is_closing(&self) -> bool {
        self.connection.closing().is_some()
    }

    /// Whether the connection goes on, as far as the kernel knows. One whose end has not been read
    /// yet is closed: whoever calls again at once, as after it has got a torrent's metadata, is not
    /// to wait for us.
    fn stays(&self) -> bool {
        let is_gone = sockets::has_hung_up(&*self.connection.socket);
        if is_gone {
            self.connection.close(CloseReason::PeerClosed);
        }
        !is_gone
    }

    /// Payload that it gave.
    fn given_bytes(&self) -> u64 {
        let fetching = self.connection.fetching.as_ref();
        fetching.map_or(0, |fetching| fetching.given_bytes.get())
    }

    /// Since when it is of no use, as far as `patience` does not cover that.
    fn useless_since(&self, now: Time, patience: Duration) -> Option<Time> {
        let unwanted = now.since(self.wanted_at.get()) >= patience;
        let idle = now.since(self.exchanged_at.get()) >= patience * IDLE_FACTOR;
        (unwanted || idle).then_some(self.exchanged_at.get())
    }
}

/// Who wants to become a peer.
pub(crate) struct Applicant {
    pub(crate) address: SocketAddr,
    /// What it calls itself.
    pub(crate) peer_id: PeerId,
    /// Whether we called it.
    pub(crate) is_called: bool,
    /// Whether it is on our own machine, whatever address that has for it.
    pub(crate) is_of_this_machine: bool,
}

impl Applicant {
    /// Whether it is a peer that is there already.
    fn is(&self, member: &Member) -> bool {
        let connection = &member.connection;
        let peer = connection.peer;
        let is_one_host = same_host(peer, self.address)
            || (self.is_of_this_machine
                && sockets::is_of_this_machine(&*connection.socket, peer.ip()));
        is_one_host && connection.session.borrow().peer().peer_id == self.peer_id
    }
}

/// Peers that have gone.
#[derive(Default)]
pub(crate) struct Departed(VecDeque<(PeerKey, SocketAddr)>);

impl Departed {
    fn remember(&mut self, peer: PeerKey, address: SocketAddr) {
        if self.0.len() >= DEPARTED_MAX {
            self.0.pop_front();
        }
        self.0.push_back((peer, address));
    }

    fn address_of(&self, peer: PeerKey) -> Option<SocketAddr> {
        let found = self.0.iter().find(|(key, _)| *key == peer);
        found.map(|(_, address)| *address)
    }
}

/// How many of `peers_max` may have come by themselves.
fn accepted_max(peers_max: usize) -> usize {
    peers_max - (peers_max / 4).max(1).min(peers_max.saturating_sub(1))
}

impl ActiveFetch {
    /// Whether another peer may not join, and why not. Who gives way to it is closed.
    pub(crate) fn refuses(&self, shard: &Shard, applicant: &Applicant) -> Option<CloseReason> {
        let &Applicant {
            address,
            peer_id,
            is_called,
            ..
        } = applicant;
        if self.is_ending() {
            return Some(CloseReason::TorrentStopped);
        }
        if self.list.borrow().is_banned(address) {
            return Some(CloseReason::Banned);
        }
        let now = shard.now();
        let members = self.members.borrow();
        let known = members
            .values()
            .find(|member| applicant.is(member) && !member.is_closing() && member.stays());
        if let Some(known) = known {
            let is_settled = now.since(known.joined_at) >= SETTLED_AFTER;
            let is_again = known.called.is_some() == is_called;
            // The one that the greater id began stays.
            let ours_is_greater = shard.config.peer_id > peer_id;
            if is_settled || is_again || ours_is_greater != is_called {
                return Some(CloseReason::Duplicate);
            }
            known.connection.close(CloseReason::Duplicate);
            return None;
        }
        drop(members);
        let has_place = self.finds_place(shard, is_called);
        (!has_place).then_some(CloseReason::Full)
    }

    /// Whether there is a place for one more peer, if need be that of another who is of no use.
    fn finds_place(&self, shard: &Shard, is_called: bool) -> bool {
        let config = &shard.config.fetch;
        let members = self.members.borrow();
        let staying = || members.values().filter(|member| !member.is_closing());
        let accepted = staying().filter(|member| member.called.is_none()).count();
        let peers_max = self.torrent.limits().peers_max_or(config.peers_max);
        let is_full = staying().count() >= peers_max;
        let have_theirs = !is_called && accepted >= accepted_max(peers_max);
        if !is_full && !have_theirs {
            return true;
        }
        let now = shard.now();
        let useless = staying()
            .filter(|member| !have_theirs || member.called.is_none())
            .filter_map(|member| Some((member.useless_since(now, config.patience)?, member)))
            .min_by_key(|(since, _)| *since);
        let Some((_, useless)) = useless else {
            return false;
        };
        useless.connection.close(CloseReason::Full);
        true
    }

    /// How many peers that we call would find a place.
    pub(crate) fn places_to_call(&self, shard: &Shard) -> usize {
        let config = &shard.config.fetch;
        let now = shard.now();
        let members = self.members.borrow();
        let is_of_use = |member: &&Member| {
            !member.is_closing() && member.useless_since(now, config.patience).is_none()
        };
        let of_use = members.values().filter(is_of_use).count();
        let peers_max = self.torrent.limits().peers_max_or(config.peers_max);
        peers_max.saturating_sub(of_use)
    }

    /// Notes who is of use. Once a second.
    pub(crate) fn look_at_members(&self, now: Time) {
        let download = self.download.borrow();
        for (&key, member) in self.members.borrow().iter() {
            let session = member.connection.session.borrow();
            let exchanged = member.given_bytes() + session.counters().uploaded_bytes;
            let has_exchanged = member.exchanged_bytes.replace(exchanged) != exchanged;
            if has_exchanged {
                member.exchanged_at.set(now);
            }
            if has_exchanged || session.is_interested() || download.is_interested(key) {
                member.wanted_at.set(now);
            }
        }
    }

    /// Closes whoever gives less than another with the same peer id. Once a second.
    pub(crate) fn compare_namesakes(&self, now: Time) {
        let members = self.members.borrow();
        let mut by_id: HashMap<PeerId, Vec<(PeerKey, &Member)>> = HashMap::new();
        for (&key, member) in members.iter().filter(|(_, member)| !member.is_closing()) {
            let peer_id = member.connection.session.borrow().peer().peer_id;
            by_id.entry(peer_id).or_default().push((key, member));
        }
        for namesakes in by_id.values().filter(|members| members.len() > 1) {
            let since = |(_, member): &(PeerKey, &Member)| member.compared.get();
            let given: Option<Vec<_>> = namesakes
                .iter()
                .map(|one| Some((one.0, one.1.given_bytes() - since(one)?.1)))
                .collect();
            let begun = namesakes.iter().filter_map(since).map(|(begun, _)| begun);
            let is_time = begun.max().is_some_and(|at| now.since(at) >= COMPARED_FOR);
            let outdone = match given {
                // Somebody has joined them.
                None => Vec::new(),
                Some(_) if !is_time => continue,
                Some(given) => outdone(&given),
            };
            for (key, member) in namesakes {
                member.compared.set(Some((now, member.given_bytes())));
                if outdone.contains(key) {
                    member.connection.close(CloseReason::Duplicate);
                }
            }
        }
    }

    /// Notes where we are, as the peers of two hosts at least and most of a family say: it orders
    /// whom we call (BEP 40).
    pub(crate) fn learn_own_address(&self, shard: &Shard) {
        let Some(port) = shard.session_config().listen_port else {
            return;
        };
        let mut votes: HashMap<IpAddr, HashSet<IpAddr>> = HashMap::new();
        for member in self.members.borrow().values() {
            let session = member.connection.session.borrow();
            if let Some(ip) = session.our_ip().filter(|&ip| is_global(ip)) {
                let voters = votes.entry(ip.to_canonical()).or_default();
                voters.insert(sockets::stranger(member.connection.peer.ip()));
            }
        }
        let mut heard: Vec<(usize, IpAddr)> = votes
            .into_iter()
            .map(|(ip, voters)| (voters.len(), ip))
            .filter(|(voters, _)| *voters >= VOTERS_MIN)
            .collect();
        // The last one of a family stays.
        heard.sort_unstable();
        for (_, ip) in heard {
            let own = SocketAddr::new(ip, port.get());
            self.list.borrow_mut().set_own(own);
        }
    }

    /// Takes a peer whose handshake is done.
    pub(crate) fn join(
        &self,
        connection: &Rc<Connection>,
        key: PeerKey,
        fast: bool,
        called: Option<SocketAddr>,
        now: Time,
    ) {
        let member = Member {
            connection: Rc::clone(connection),
            called,
            source: connection.source,
            joined_at: now,
            exchanged_bytes: Cell::new(0),
            exchanged_at: Cell::new(now),
            wanted_at: Cell::new(now),
            compared: Cell::new(None),
        };
        self.members.borrow_mut().insert(key, member);
        self.count_members();
        let mut download = self.download.borrow_mut();
        download.peer_joined(key, fast, PeerPieces::None);
    }

    /// A peer has gone.
    pub(crate) fn leave(&self, shard: &Shard, key: PeerKey) {
        let member = self.members.borrow_mut().remove(&key);
        if let Some(member) = member {
            self.remember_caller(shard, &member);
            let fetching = member.connection.fetching.as_ref();
            if fetching.is_some_and(|fetching| fetching.given_bytes.get() > 0) {
                let mut departed = self.departed.borrow_mut();
                departed.remember(key, member.address());
            }
        }
        self.count_members();
        self.download.borrow_mut().peer_left(key);
        self.drive(shard, shard.now());
    }

    /// A peer that came by itself has gone. It may have been of use, and it said where it listens.
    fn remember_caller(&self, shard: &Shard, member: &Member) {
        let connection = &member.connection;
        let is_liked = !matches!(
            connection.closing(),
            Some(
                CloseReason::Banned
                    | CloseReason::Duplicate
                    | CloseReason::Flood
                    | CloseReason::Misbehaved
                    | CloseReason::Pointless
                    | CloseReason::TorrentStopped
            )
        );
        let may_call = self.torrent.may_call(PeerSource::Incoming);
        if member.called.is_none() && is_liked && may_call {
            let session = connection.session.borrow();
            let address = connection.exchange.address(connection, &session);
            let Some(address) = address else { return };
            let from = shard.now() + CALL_BACK_AFTER;
            let mut list = self.list.borrow_mut();
            list.add(address, PeerSource::Incoming, from);
        }
    }

    /// Whether somebody who is connected wants something of us.
    pub(crate) fn is_asked(&self) -> bool {
        let members = self.members.borrow();
        members
            .values()
            .any(|member| member.connection.session.borrow().is_interested())
    }

    /// Publishes how many peers there are, and who named them: both at once, so that they agree.
    fn count_members(&self) {
        let members = self.members.borrow();
        let peers = u32::try_from(members.len()).unwrap_or(u32::MAX);
        let mut by_source = SourceCounts::default();
        for member in members.values() {
            by_source.add(member.source);
        }
        self.published.change(|progress| {
            progress.peers = peers;
            progress.peers_by_source = by_source;
        });
    }

    /// Keeps a liar away, and closes it and whoever else is kept away by that.
    pub(crate) fn ban(&self, shard: &Shard, peer: PeerKey) {
        let members = self.members.borrow();
        let address = match members.get(&peer) {
            Some(member) => Some(member.address()),
            None => self.departed.borrow().address_of(peer),
        };
        let mut list = self.list.borrow_mut();
        let Some(address) = address.filter(|&address| !list.is_banned(address)) else {
            return;
        };
        shard.cells.increment(Counter::PeersBanned);
        tracing::warn!(peer = %address, torrent = %self.torrent.info_hash(), "the peer sent wrong data and is banned");
        list.ban(address);
        for member in members.values() {
            if list.is_banned(member.address()) {
                member.connection.abort(CloseReason::Banned);
            }
        }
        let _ = self.events.try_send(FetchEvent::Banned { peer: address });
    }
}

/// Those that have given less than another of them; of two that gave the same, the one that came
/// later. Nobody where nobody gave anything, as while all choke us.
fn outdone(given: &[(PeerKey, u64)]) -> Vec<PeerKey> {
    let best = given
        .iter()
        .max_by_key(|(key, given)| (*given, Reverse(key.0)));
    let best = best.filter(|(_, given)| *given > 0);
    let others = |best: &PeerKey| {
        let keys = given.iter().map(|(key, _)| *key);
        keys.filter(|key| key != best).collect()
    };
    best.map(|(key, _)| others(key)).unwrap_or_default()
}

fn same_host(one: SocketAddr, other: SocketAddr) -> bool {
    one.ip().to_canonical() == other.ip().to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_the_places_is_kept_for_those_that_we_call() {
        let accepted = [1, 2, 3, 4, 8, 200].map(accepted_max);
        assert_eq!(accepted, [1, 1, 2, 3, 6, 150]);
        assert_eq!(accepted_max(0), 0);
    }

    #[test]
    fn of_namesakes_the_one_that_gives_most_stays() {
        let outdone = |given: &[u64]| {
            let keys = (1..).map(PeerKey);
            let given: Vec<_> = keys.zip(given.iter().copied()).collect();
            let keys = outdone(&given).into_iter().map(|key| key.0);
            keys.collect::<Vec<_>>()
        };
        assert_eq!(outdone(&[5, 0]), [2]);
        assert_eq!(outdone(&[0, 5]), [1]);
        assert_eq!(outdone(&[5, 6, 4]), [1, 3]);
        assert_eq!(outdone(&[5, 5]), [2]);
        assert!(outdone(&[0, 0]).is_empty());
    }

    #[test]
    fn of_those_who_have_gone_the_latest_are_remembered() {
        let mut departed = Departed::default();
        let address = |number: usize| SocketAddr::from(([127, 0, 0, 1], number as u16));
        for number in 0..=DEPARTED_MAX {
            departed.remember(PeerKey(number as u64), address(number));
        }
        assert_eq!(departed.0.len(), DEPARTED_MAX);
        assert_eq!(departed.address_of(PeerKey(0)), None);
        assert_eq!(departed.address_of(PeerKey(1)), Some(address(1)));
    }
}
