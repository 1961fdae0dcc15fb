//! The addresses at which peers of one torrent may be, and which of them to try next.
//!
//! An address waits for its turn, is being connected, is connected, or waits again: after a failure
//! twice as long each time, and after what was no fault of its own for a moment. Of those whose
//! turn it is, the one goes first that failed least often, and then the one of the greatest
//! canonical priority (BEP 40, [`canonical_priority`]): when all order their peers by it, the swarm
//! is a graph in which hosts find each other by few steps. Who lied is kept away, with its host, or
//! with the IPv6 network that one customer gets. All addresses are hearsay: none is tried more
//! often than its wait allows, however often it is named.
//!
//! Limits: [`PeerListConfig::addresses_max`], beyond which the one that failed most often is
//! forgotten for a new one, if one failed, or for one of a source that is trusted more; half of
//! them for each source that anybody can feed ([`PeerSource::is_hearsay`]), so that none drowns the
//! others; [`BANNED_MAX`] strangers that are kept away, the oldest of whom is let off. Every call
//! is O(log n), but for a full list, which looks through the addresses that wait, and a ban, which
//! looks through all.
//!
//! Not here: how many are tried at a time, which is the caller's.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::time::Time;

/// How many strangers are kept away at a time.
pub const BANNED_MAX: usize = 1_024;

/// How long an address waits that could not be tried for want of room on our side.
const POSTPONE: Duration = Duration::from_secs(1);

/// How long an address waits that has closed a connection as soon as it had it, the first time.
const SOON: Duration = Duration::from_secs(2);

/// How a list of peers works.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerListConfig {
    /// Addresses that are known at a time.
    pub addresses_max: usize,
    /// How long an address waits after its first failure; twice as long after the next.
    pub retry_min: Duration,
    /// How long it waits at most.
    pub retry_max: Duration,
    /// After so many failures in a row an address is forgotten.
    pub failures_max: u32,
    /// While so few addresses are known none is forgotten, and none waits longer than
    /// [`Self::retry_few`]: there is nobody else to ask, and the one that was busy, or started
    /// after us, may be the only seed.
    pub few: usize,
    /// How long an address waits at most while few are known.
    pub retry_few: Duration,
}

impl Default for PeerListConfig {
    fn default() -> PeerListConfig {
        PeerListConfig {
            addresses_max: 2_000,
            retry_min: Duration::from_secs(10),
            retry_max: Duration::from_secs(15 * 60),
            failures_max: 10,
            few: 16,
            retry_few: Duration::from_secs(20),
        }
    }
}

/// Who named an address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PeerSource {
    /// A tracker.
    Tracker,
    /// The distributed hash table (BEP 5).
    Dht,
    /// Another peer (BEP 11).
    Exchange,
    /// A host of this network (BEP 14).
    Local,
    /// The peer itself, by connecting to us.
    Incoming,
    /// The user, or the magnet link.
    Given,
}

impl PeerSource {
    /// All of them, in the order of their declaration.
    pub const ALL: [PeerSource; 6] = [
        PeerSource::Tracker,
        PeerSource::Dht,
        PeerSource::Exchange,
        PeerSource::Local,
        PeerSource::Incoming,
        PeerSource::Given,
    ];

    /// A short name for people, metrics and programs.
    pub const fn name(self) -> &'static str {
        match self {
            PeerSource::Tracker => "tracker",
            PeerSource::Dht => "dht",
            PeerSource::Exchange => "pex",
            PeerSource::Local => "lsd",
            PeerSource::Incoming => "incoming",
            PeerSource::Given => "given",
        }
    }

    /// Whether anybody can have it name whatever he likes: it may fill half of a list at most.
    pub const fn is_hearsay(self) -> bool {
        !matches!(self, PeerSource::Tracker | PeerSource::Given)
    }
}

/// A number for each source, in the order of [`PeerSource::ALL`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SourceCounts([u32; PeerSource::ALL.len()]);

impl SourceCounts {
    /// The number of one source.
    pub fn get(&self, source: PeerSource) -> u32 {
        self.0.get(source as usize).copied().unwrap_or(0)
    }

    /// Says how many there are of one source.
    pub fn set(&mut self, source: PeerSource, number: u32) {
        if let Some(count) = self.0.get_mut(source as usize) {
            *count = number;
        }
    }

    /// Counts one more.
    pub fn add(&mut self, source: PeerSource) {
        if let Some(count) = self.0.get_mut(source as usize) {
            *count += 1;
        }
    }

    /// Counts one less.
    pub fn remove(&mut self, source: PeerSource) {
        if let Some(count) = self.0.get_mut(source as usize) {
            *count = count.saturating_sub(1);
        }
    }
}

/// The priority that both ends give to their connection (BEP 40). IPv4 addresses are told apart by
/// the less of themselves the farther they are from each other, and so are those of IPv6 (of which
/// BEP 40 says nothing; this is what libtorrent does); between families there is none.
pub fn canonical_priority(one: SocketAddr, other: SocketAddr) -> u32 {
    let ports = |one: u16, other: u16| {
        let (low, high) = (one.min(other), one.max(other));
        crc32c(&[low.to_be_bytes(), high.to_be_bytes()].concat())
    };
    match (one.ip().to_canonical(), other.ip().to_canonical()) {
        (one_ip, other_ip) if one_ip == other_ip => ports(one.port(), other.port()),
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            let same_bits = (one.to_bits() ^ other.to_bits()).leading_zeros();
            let mask = match same_bits {
                24.. => 0xffff_ffff,
                16.. => 0xffff_ff55,
                _ => 0xffff_5555,
            };
            let masked = |ip: Ipv4Addr| (ip.to_bits() & mask).to_be_bytes();
            let (one, other) = (masked(one), masked(other));
            crc32c(&[one.min(other), one.max(other)].concat())
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => {
            let same_bytes = (one.to_bits() ^ other.to_bits()).leading_zeros() / 8;
            // Whole up to the first byte that differs, and at least 48 bits; every other bit of the
            // rest.
            let whole = same_bytes.max(5) + 1;
            let every_other = u128::MAX / 3;
            let mask = !u128::MAX.checked_shr(8 * whole).unwrap_or(0) | every_other;
            let masked = |ip: Ipv6Addr| (ip.to_bits() & mask).to_be_bytes();
            let (one, other) = (masked(one), masked(other));
            crc32c(&[one.min(other), one.max(other)].concat())
        }
        _ => 0,
    }
}

/// CRC-32C (Castagnoli), bit by bit: it is taken of a few bytes, once for each address.
fn crc32c(bytes: &[u8]) -> u32 {
    const REVERSED: u32 = 0x82f6_3b78;
    let crc = bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| match crc & 1 {
            1 => crc >> 1 ^ REVERSED,
            _ => crc >> 1,
        })
    });
    !crc
}

/// The order of those whose turn it is: failures, priority, then first come, first served.
type Rank = (u32, Reverse<u32>, u64);

/// Where an address stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// It may be tried from this time on; the number keeps those of one time in order.
    Waiting(Time, u64),
    /// It may be tried now.
    Ready(Rank),
    /// It is being connected, or is.
    Taken,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    state: State,
    /// In a row.
    failures: u32,
    source: PeerSource,
}

/// See the module.
#[derive(Debug)]
pub struct PeerList {
    config: PeerListConfig,
    known: HashMap<SocketAddr, Known>,
    waiting: BTreeSet<(Time, u64, SocketAddr)>,
    ready: BTreeSet<(Rank, SocketAddr)>,
    next_number: u64,
    sources: SourceCounts,
    /// Where we take connections ourselves, as others see it, of both families.
    own: Vec<SocketAddr>,
    banned: HashSet<Stranger>,
    banned_in_order: VecDeque<Stranger>,
}

/// Whom a ban keeps away: a whole host or v6 /64, but where many share one, the address alone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Stranger {
    /// Of an IPv6 host the first 64 bits: whoever has one such address has 2^64.
    Host(IpAddr),
    Address(SocketAddr),
}

impl Stranger {
    fn of(address: SocketAddr) -> Stranger {
        match address.ip().to_canonical() {
            ip if ip.is_loopback() => Stranger::Address(address),
            IpAddr::V6(ip) => {
                let network = ip.to_bits() & !u128::from(u64::MAX);
                Stranger::Host(IpAddr::V6(Ipv6Addr::from_bits(network)))
            }
            ip => Stranger::Host(ip),
        }
    }
}

impl PeerList {
    /// A list that knows nobody.
    pub fn new(config: PeerListConfig) -> PeerList {
        PeerList {
            config,
            known: HashMap::new(),
            waiting: BTreeSet::new(),
            ready: BTreeSet::new(),
            next_number: 0,
            sources: SourceCounts::default(),
            own: Vec::new(),
            banned: HashSet::new(),
            banned_in_order: VecDeque::new(),
        }
    }

    /// Takes an address that `source` named. False if it is known, can be nobody's, is kept away,
    /// or if there is no room.
    pub fn add(&mut self, address: SocketAddr, source: PeerSource, now: Time) -> bool {
        let ip = address.ip();
        let is_possible = address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast();
        if !is_possible || self.is_banned(address) || self.known.contains_key(&address) {
            return false;
        }
        let hearsay_max = self.config.addresses_max.div_ceil(2);
        if source.is_hearsay() && self.sources.get(source) as usize >= hearsay_max {
            return false;
        }
        if self.known.len() >= self.config.addresses_max && !self.forget_worst(source) {
            return false;
        }
        self.wait(address, source, now, 0);
        true
    }

    /// Notes where we take connections ourselves, as others see it: one address of a family at
    /// most. What waits already is put in order by it when its turn comes.
    pub fn set_own(&mut self, own: SocketAddr) {
        let is_v4 = |address: &SocketAddr| address.ip().to_canonical().is_ipv4();
        self.own.retain(|known| is_v4(known) != is_v4(&own));
        self.own.push(own);
    }

    /// Takes the address to try next, if one may be tried now. It is given back by [`Self::failed`]
    /// or [`Self::left`].
    pub fn take(&mut self, now: Time) -> Option<SocketAddr> {
        while let Some(&(time, number, address)) = self.waiting.first()
            && time <= now
        {
            self.waiting.pop_first();
            let priority = self.priority(address);
            if let Some(known) = self.known.get_mut(&address) {
                let rank = (known.failures, Reverse(priority), number);
                known.state = State::Ready(rank);
                self.ready.insert((rank, address));
            }
        }
        let (_, address) = self.ready.pop_first()?;
        if let Some(known) = self.known.get_mut(&address) {
            known.state = State::Taken;
        }
        Some(address)
    }

    /// Notes an address, which `source` has named, with which there is a connection already, as if
    /// it had been taken. False if it is being tried or kept away, or if there is no room.
    pub fn connected(&mut self, address: SocketAddr, source: PeerSource, now: Time) -> bool {
        let is_waiting = match self.known.get(&address) {
            Some(known) => known.state != State::Taken,
            None => self.add(address, source, now),
        };
        let Some(known) = is_waiting.then(|| self.forget(address)).flatten() else {
            return false;
        };
        let (state, failures) = (State::Taken, 0);
        let source = known.source;
        self.sources.add(source);
        self.known.insert(
            address,
            Known {
                state,
                failures,
                source,
            },
        );
        true
    }

    /// The priority of an address as seen from our own of its family; the same for all while we do
    /// not know that.
    fn priority(&self, address: SocketAddr) -> u32 {
        let is_v4 = address.ip().to_canonical().is_ipv4();
        let mut own = self.own.iter();
        let own = own.find(|own| own.ip().to_canonical().is_ipv4() == is_v4);
        own.map_or(0, |own| canonical_priority(*own, address))
    }

    /// When there will be an address to take.
    pub fn next_timeout(&self) -> Time {
        match (self.ready.is_empty(), self.waiting.first()) {
            (false, _) => Time::default(),
            (true, Some(&(time, _, _))) => time,
            (true, None) => Time::NEVER,
        }
    }

    /// No connection came about with an address that was taken, or it was of no use.
    pub fn failed(&mut self, address: SocketAddr, now: Time) {
        let Some(known) = self.forget(address) else {
            return;
        };
        let are_few = self.known.len() < self.config.few;
        let (failures, retry_max) = match known.failures.saturating_add(1) {
            failures if are_few => (
                failures.min(self.config.failures_max - 1),
                self.config.retry_few,
            ),
            failures if failures >= self.config.failures_max => return,
            failures => (failures, self.config.retry_max),
        };
        let factor = 1_u32.checked_shl(failures - 1).unwrap_or(u32::MAX);
        let pause = self.config.retry_min.saturating_mul(factor);
        self.wait(address, known.source, now + pause.min(retry_max), failures);
    }

    /// A connection that was of use has ended: the address may be tried again after a while.
    pub fn left(&mut self, address: SocketAddr, now: Time) {
        if let Some(known) = self.forget(address) {
            self.wait(address, known.source, now + self.config.retry_min, 0);
        }
    }

    /// The peer has closed a connection as soon as it had it. It may hold our last one to be alive
    /// still, as Transmission does for a moment when its metadata were fetched: so it is tried
    /// again soon. The next time it has failed.
    pub fn hung_up(&mut self, address: SocketAddr, now: Time) {
        match self.known.get(&address) {
            Some(&Known {
                failures: 0,
                source,
                ..
            }) => {
                self.forget(address);
                self.wait(address, source, now + SOON, 1);
            }
            _ => self.failed(address, now),
        }
    }

    /// An address that was taken could not be tried, or not be kept, because we had no room: it is
    /// none the worse.
    pub fn postponed(&mut self, address: SocketAddr, now: Time) {
        if let Some(known) = self.forget(address) {
            self.wait(address, known.source, now + POSTPONE, known.failures);
        }
    }

    /// Forgets an address and never tries it again: it is our own.
    pub fn exclude(&mut self, address: SocketAddr) {
        self.forget(address);
        self.keep_away(Stranger::Address(address));
    }

    /// Keeps a liar away: its host, or on a loopback address, which is everybody's here, that
    /// address alone.
    pub fn ban(&mut self, address: SocketAddr) {
        self.keep_away(Stranger::of(address));
        let known: Vec<SocketAddr> = self.known.keys().copied().collect();
        for other in known {
            if self.is_banned(other) {
                self.forget(other);
            }
        }
    }

    /// Whether the address is kept away.
    pub fn is_banned(&self, address: SocketAddr) -> bool {
        self.banned.contains(&Stranger::Address(address))
            || self.banned.contains(&Stranger::of(address))
    }

    /// How many addresses wait for their turn.
    pub fn waiting(&self) -> usize {
        self.waiting.len() + self.ready.len()
    }

    /// Who named the addresses that are known.
    pub fn sources(&self) -> SourceCounts {
        self.sources
    }

    /// Who named an address that has been taken. One that is not known any more, since its host was
    /// banned meanwhile, is nobody's word, which is believed no more than hearsay.
    pub fn source_of_taken(&self, address: SocketAddr) -> PeerSource {
        self.source_of(address).unwrap_or(PeerSource::Exchange)
    }

    /// Who named an address, if it is known.
    pub fn source_of(&self, address: SocketAddr) -> Option<PeerSource> {
        self.known.get(&address).map(|known| known.source)
    }

    /// How many addresses are known.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether nobody is known.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Forgets an address: it may be named anew.
    pub fn remove(&mut self, address: SocketAddr) {
        self.forget(address);
    }

    fn keep_away(&mut self, stranger: Stranger) {
        if !self.banned.insert(stranger) {
            return;
        }
        self.banned_in_order.push_back(stranger);
        if self.banned_in_order.len() > BANNED_MAX
            && let Some(oldest) = self.banned_in_order.pop_front()
        {
            self.banned.remove(&oldest);
        }
    }

    fn wait(&mut self, address: SocketAddr, source: PeerSource, until: Time, failures: u32) {
        let number = self.next_number;
        self.next_number += 1;
        self.waiting.insert((until, number, address));
        self.sources.add(source);
        let known = Known {
            state: State::Waiting(until, number),
            failures,
            source,
        };
        self.known.insert(address, known);
    }

    fn forget(&mut self, address: SocketAddr) -> Option<Known> {
        let known = self.known.remove(&address)?;
        self.sources.remove(known.source);
        match known.state {
            State::Waiting(time, number) => self.waiting.remove(&(time, number, address)),
            State::Ready(rank) => self.ready.remove(&(rank, address)),
            State::Taken => true,
        };
        Some(known)
    }

    /// Makes room for one that `source` names. False if of those that wait none ever failed, or is
    /// of a source that is trusted less.
    fn forget_worst(&mut self, source: PeerSource) -> bool {
        let waiting = self.waiting.iter().map(|&(_, _, address)| address);
        let waiting = waiting.chain(self.ready.iter().map(|&(_, address)| address));
        let badness = |address: SocketAddr| {
            let known = self.known.get(&address)?;
            let is_less = known.source.is_hearsay() && !source.is_hearsay();
            Some((known.failures, is_less, address))
        };
        let worst = waiting.filter_map(badness).max();
        match worst {
            Some((failures, is_less, address)) if failures > 0 || is_less => {
                self.forget(address);
                true
            }
            _ => false,
        }
    }

    /// Panics if the list contradicts itself. For tests.
    pub fn check_invariants(&self) {
        assert!(self.known.len() <= self.config.addresses_max.max(1));
        assert!(self.banned.len() <= BANNED_MAX);
        assert_eq!(self.banned.len(), self.banned_in_order.len());
        let (mut waiting, mut ready) = (0, 0);
        let mut sources = SourceCounts::default();
        for (&address, known) in &self.known {
            assert!(known.failures < self.config.failures_max);
            sources.add(known.source);
            match known.state {
                State::Waiting(time, number) => {
                    waiting += 1;
                    assert!(self.waiting.contains(&(time, number, address)));
                }
                State::Ready(rank) => {
                    ready += 1;
                    assert!(self.ready.contains(&(rank, address)));
                }
                State::Taken => {}
            }
        }
        assert_eq!((waiting, ready), (self.waiting.len(), self.ready.len()));
        assert_eq!(sources, self.sources);
    }
}

#[cfg(test)]
mod tests;
