//! Numbers that hold for the whole server, and how shards use them without waiting for each other.
//!
//! Connections are counted once each, under a mutex. Rates, of uploads and downloads, are leased in
//! slices, so that the mutex of a parent bucket is taken every few milliseconds and never per block;
//! where nothing is limited it is not taken at all. Limits may change at any time, and be taken away
//! and set again: a shard sees that with its next batch, who waits within
//! [`engine::rate::WAIT_MAX`].

use crate::allowed_fast;
use crate::own_limits::{TorrentLimits, TorrentRates};
use crate::plane::{ConfiguredLimits, PlaneConfig, RateLimits};
use crate::shard::Shard;
use crate::sockets::{is_local, stranger};
use crate::super_seeding;
use crate::torrent::SeededTorrent;
use engine::choker::lease_slots;
use engine::rate::{Demand, RateLimit, ShardBucket, ShardIndex, SharedBucket, take};
use engine::time::Time;
use seedring_metrics::Counter;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A limit that all shards share, or will: there may be none now.
pub(crate) struct SharedLimit {
    is_limited: AtomicBool,
    bucket: Mutex<SharedBucket>,
}

impl SharedLimit {
    /// A limit of `rate` bytes per second for `shards` shards; 0 for none.
    pub(crate) fn new(rate: u64, shards: u16, now: Time) -> Arc<SharedLimit> {
        Arc::new(SharedLimit {
            is_limited: AtomicBool::new(rate != 0),
            bucket: Mutex::new(SharedBucket::new(limit_of(rate), shards, now)),
        })
    }

    /// Changes it.
    pub(crate) fn set(&self, rate: u64, now: Time) {
        let mut bucket = lock(&self.bucket);
        let limit = limit_of(rate);
        if bucket.limit() != limit {
            bucket.set_limit(limit, now);
        }
        self.is_limited.store(limit.is_some(), Ordering::Relaxed);
    }

    fn is_limited(&self) -> bool {
        self.is_limited.load(Ordering::Relaxed)
    }

    /// What it is now, in bytes per second.
    #[cfg(test)]
    pub(crate) fn rate(&self) -> Option<u64> {
        let limit = lock(&self.bucket).limit();
        limit.map(|limit| limit.bytes_per_second())
    }
}

fn limit_of(rate: u64) -> Option<RateLimit> {
    NonZeroU64::new(rate).map(|rate| RateLimit::new(rate.get()))
}

/// What all shards count together.
pub(crate) struct SharedLimits {
    started: Instant,
    shards: u16,
    connections_max: usize,
    connections_per_stranger_max: AtomicUsize,
    handshakes_max: AtomicUsize,
    handshakes: AtomicUsize,
    /// Connections that we began, and those of them that nobody has taken yet.
    called: Arc<AtomicUsize>,
    half_open: Arc<AtomicUsize>,
    connections: Mutex<Connections>,
    /// What choked peers were given.
    pub(crate) allowed_fast: allowed_fast::Given,
    /// Memory for super-seeding.
    pub(crate) super_seeding: Arc<super_seeding::Room>,
    /// What is configured: of each torrent, where nothing narrower is said.
    rates: Mutex<RateLimits>,
    global: Arc<SharedLimit>,
    local: Arc<SharedLimit>,
    remote: Arc<SharedLimit>,
    download: Arc<SharedLimit>,
    upload_slots: AtomicU32,
    /// Reads that bring data into the page cache, of all shards.
    reads: AtomicUsize,
    /// Interested peers of each shard.
    interested: Vec<AtomicU32>,
}

#[derive(Default)]
struct Connections {
    total: usize,
    by_stranger: HashMap<IpAddr, usize>,
}

/// Which limit a connection met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    /// Connections in all.
    Connections,
    /// Connections of one stranger.
    Stranger,
    /// Connections whose handshake is not done.
    Handshakes,
}

impl SharedLimits {
    /// Counts for `shards` shards, from zero.
    pub(crate) fn new(config: &PlaneConfig, shards: usize) -> Self {
        let shards = u16::try_from(shards).unwrap_or(u16::MAX);
        let bucket = |rate| SharedLimit::new(rate, shards, Time::default());
        SharedLimits {
            started: Instant::now(),
            shards,
            connections_max: config.connections_max,
            connections_per_stranger_max: AtomicUsize::new(none_at_zero(
                config.connections_per_stranger_max,
            )),
            handshakes_max: AtomicUsize::new(config.handshakes_max),
            handshakes: AtomicUsize::new(0),
            called: Arc::default(),
            half_open: Arc::default(),
            connections: Mutex::default(),
            allowed_fast: allowed_fast::Given::default(),
            super_seeding: Arc::default(),
            rates: Mutex::new(config.rates),
            global: bucket(config.rates.global),
            local: bucket(config.rates.local),
            remote: bucket(config.rates.remote),
            download: bucket(config.rates.download),
            upload_slots: AtomicU32::new(config.upload_slots),
            reads: AtomicUsize::new(0),
            interested: (0..shards).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// The start of time for the state machines of all shards.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Notes that a shard has begun to read from a disk.
    pub(crate) fn read_started(&self) {
        self.reads.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that it has ended.
    pub(crate) fn read_ended(&self) {
        self.reads.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many reads of all shards are under way, about.
    pub(crate) fn reads_under_way(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }

    /// Takes a place for a connection from `address`.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Admission, Refused> {
        let stranger = stranger(address);
        let handshakes_max = self.handshakes_max.load(Ordering::Relaxed);
        if self.handshakes.load(Ordering::Relaxed) >= handshakes_max {
            return Err(Refused::Handshakes);
        }
        let mut connections = lock(&self.connections);
        if connections.total >= self.connections_max {
            return Err(Refused::Connections);
        }
        let theirs = connections.by_stranger.entry(stranger).or_default();
        if *theirs >= self.connections_per_stranger_max.load(Ordering::Relaxed) {
            return Err(Refused::Stranger);
        }
        *theirs += 1;
        connections.total += 1;
        drop(connections);
        self.handshakes.fetch_add(1, Ordering::Relaxed);
        Ok(Admission {
            limits: Arc::clone(self),
            stranger,
            is_pending: true,
            greeted: false,
        })
    }

    /// Takes a place for a connection that we begin, of which there are `called_max`, and
    /// `half_open_max` that nobody has taken yet.
    pub(crate) fn call(&self, called_max: usize, half_open_max: usize) -> Option<CallPlace> {
        Some(CallPlace {
            _called: Counted::one_of(&self.called, called_max)?,
            half_open: Cell::new(Some(Counted::one_of(&self.half_open, half_open_max)?)),
        })
    }

    /// The upload slots of `shard`, which has `interested` peers now; `None` for no limit.
    pub(crate) fn lease_slots(&self, shard: usize, interested: u32) -> Option<u32> {
        self.interested
            .get(shard)?
            .store(interested, Ordering::Relaxed);
        let upload_slots = self.upload_slots.load(Ordering::Relaxed);
        if upload_slots == 0 {
            return None;
        }
        let demand: Vec<u32> = self
            .interested
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .collect();
        lease_slots(upload_slots, &demand).get(shard).copied()
    }

    /// The limits of one torrent.
    fn of_torrent(&self, torrent: &SeededTorrent, now: Time) -> TorrentRates {
        let configured = *lock(&self.rates);
        torrent.limits().rates(&configured, self.shards, now)
    }

    /// Changes the rates of the whole server, in bytes per second; 0 for no limit.
    pub(crate) fn set_rates(&self, upload: u64, download: u64) {
        let now = self.now();
        self.global.set(upload, now);
        self.download.set(download, now);
    }

    /// Changes the limits of a torrent.
    pub(crate) fn set_of_torrent(&self, torrent: &SeededTorrent, limits: TorrentLimits) {
        let configured = *lock(&self.rates);
        torrent.limits().set(limits, &configured, self.now());
    }

    /// Changes what was configured at the start. The rates of torrents that have peers stay until
    /// they are set anew.
    pub(crate) fn set_configured(&self, configured: &ConfiguredLimits) {
        let now = self.now();
        let ConfiguredLimits {
            rates,
            upload_slots,
            connections_per_stranger_max,
            handshakes_max,
            ..
        } = *configured;
        *lock(&self.rates) = rates;
        self.local.set(rates.local, now);
        self.remote.set(rates.remote, now);
        self.upload_slots.store(upload_slots, Ordering::Relaxed);
        let per_stranger = none_at_zero(connections_per_stranger_max);
        self.connections_per_stranger_max
            .store(per_stranger, Ordering::Relaxed);
        self.handshakes_max.store(handshakes_max, Ordering::Relaxed);
    }

    /// The time of the state machines.
    fn now(&self) -> Time {
        Time(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

fn none_at_zero(limit: usize) -> usize {
    match limit {
        0 => usize::MAX,
        limit => limit,
    }
}

/// Locks; what is guarded here is whole at every moment, so a panic elsewhere has not spoilt it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection's place, given back when it is dropped.
pub(crate) struct Admission {
    limits: Arc<SharedLimits>,
    stranger: IpAddr,
    /// Whether it counts among the handshakes that are not done.
    is_pending: bool,
    greeted: bool,
}

impl Admission {
    /// Notes that the peer's handshake has been read: what it waits for now is its torrent.
    pub(crate) fn handshake_read(&mut self) {
        if self.is_pending {
            self.is_pending = false;
            self.limits.handshakes.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Notes that the handshake is done.
    pub(crate) fn greeted(&mut self) {
        self.handshake_read();
        self.greeted = true;
    }

    /// Whether the handshake is done.
    pub(crate) fn is_greeted(&self) -> bool {
        self.greeted
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.handshake_read();
        let mut connections = lock(&self.limits.connections);
        connections.total -= 1;
        if let Some(count) = connections.by_stranger.get_mut(&self.stranger) {
            *count -= 1;
            if *count == 0 {
                connections.by_stranger.remove(&self.stranger);
            }
        }
    }
}

/// The place of a connection that we began, given back when it is dropped.
pub(crate) struct CallPlace {
    _called: Counted,
    half_open: Cell<Option<Counted>>,
}

impl CallPlace {
    /// Notes that the peer has taken the connection.
    pub(crate) fn connected(&self) {
        self.half_open.set(None);
    }
}

/// One of a limited number, given back when it is dropped.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn one_of(count: &Arc<AtomicUsize>, max: usize) -> Option<Counted> {
        let ordering = Ordering::Relaxed;
        let more = |count: usize| (count < max).then_some(count + 1);
        count.fetch_update(ordering, ordering, more).ok()?;
        Some(Counted(Arc::clone(count)))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One limit as one shard uses it.
pub(crate) struct Level {
    shared: Arc<SharedLimit>,
    bucket: RefCell<ShardBucket>,
    /// The line of this shard's peers that wait for this limit, first come first served.
    turn: tokio::sync::Mutex<()>,
    waits: Counter,
}

/// The limits that one peer or download is under, from the narrowest to the widest: those that there
/// are now and those that there may be.
pub(crate) type Levels = Vec<Rc<Level>>;

/// The rate limits of one shard.
pub(crate) struct ShardRates {
    limits: Arc<SharedLimits>,
    shard: ShardIndex,
    global: Rc<Level>,
    local: Rc<Level>,
    remote: Rc<Level>,
    download: Rc<Level>,
    /// Of uploads of torrents with peers here.
    torrents: RefCell<HashMap<u64, Rc<Level>>>,
}

impl ShardRates {
    /// The part of `shard` in the server's limits.
    pub(crate) fn new(limits: &Arc<SharedLimits>, shard: usize) -> Self {
        let shard = ShardIndex(u16::try_from(shard).unwrap_or(u16::MAX));
        let level = |limit: &Arc<SharedLimit>, waits| {
            let limit = Arc::clone(limit);
            Rc::new(Level::new(limit, shard, waits))
        };
        ShardRates {
            global: level(&limits.global, Counter::RateWaitsGlobal),
            local: level(&limits.local, Counter::RateWaitsClass),
            remote: level(&limits.remote, Counter::RateWaitsClass),
            download: level(&limits.download, Counter::RateWaitsDownload),
            torrents: RefCell::default(),
            limits: Arc::clone(limits),
            shard,
        }
    }

    /// The limits of what is sent to a peer of `torrent` at `address`.
    pub(crate) fn levels(&self, torrent: &SeededTorrent, address: IpAddr, now: Time) -> Levels {
        let mut torrents = self.torrents.borrow_mut();
        let of_torrent = torrents.entry(torrent.id()).or_insert_with(|| {
            let limit = self.limits.of_torrent(torrent, now).upload;
            let waits = Counter::RateWaitsTorrent;
            Rc::new(Level::new(limit, self.shard, waits))
        });
        let class = if is_local(address) {
            &self.local
        } else {
            &self.remote
        };
        vec![
            Rc::clone(of_torrent),
            Rc::clone(class),
            Rc::clone(&self.global),
        ]
    }

    /// The limits of what is fetched of `torrent`. They are its download's, which has its home on
    /// this shard.
    pub(crate) fn download_levels(&self, torrent: &SeededTorrent, now: Time) -> Levels {
        let limit = self.limits.of_torrent(torrent, now).download;
        let waits = Counter::RateWaitsTorrentDownload;
        let of_torrent = Level::new(limit, self.shard, waits);
        vec![Rc::new(of_torrent), Rc::clone(&self.download)]
    }

    /// Gives back slices that this shard does not use, and forgets torrents without peers.
    pub(crate) fn tick(&self, now: Time) {
        let widest = [&self.global, &self.local, &self.remote, &self.download];
        widest.into_iter().for_each(|level| level.expire(now));
        self.torrents.borrow_mut().retain(|_, level| {
            level.expire(now);
            Rc::strong_count(level) > 1
        });
    }
}

impl Level {
    fn new(shared: Arc<SharedLimit>, shard: ShardIndex, waits: Counter) -> Self {
        let bucket = RefCell::new(ShardBucket::new(shard));
        Level {
            shared,
            bucket,
            turn: tokio::sync::Mutex::new(()),
            waits,
        }
    }

    fn exchange(&self, demand: Demand, now: Time) -> Result<(), Time> {
        lock(&self.shared.bucket).exchange(&mut self.bucket.borrow_mut(), demand, now)
    }

    /// Gives back a slice that is not used.
    pub(crate) fn expire(&self, now: Time) {
        let mut bucket = self.bucket.borrow_mut();
        // Whoever waits in this shard's line keeps its place among the shards.
        if self.turn.try_lock().is_ok() && bucket.next_timeout() <= now {
            lock(&self.shared.bucket).release(&mut bucket);
        }
    }
}

/// Whether anything limits now.
pub(crate) fn are_limited(levels: &[Rc<Level>]) -> bool {
    levels.iter().any(|level| level.shared.is_limited())
}

/// Takes bytes from all `levels` now, if all have some and nobody waits for them.
pub(crate) fn try_grant(levels: &[Rc<Level>], demand: Demand, now: Time) -> Option<u32> {
    let mut turns = Vec::with_capacity(levels.len());
    for level in levels {
        turns.push(level.turn.try_lock().ok()?);
    }
    loop {
        match take_all(levels, demand, now) {
            Ok(bytes) => return Some(bytes),
            Err(short) => levels.get(short)?.exchange(demand, now).ok()?,
        }
    }
}

/// Takes bytes from all `levels`, waiting in each one's line. The narrowest comes first, so that
/// who waits for its torrent's limit holds up nobody else. May be dropped at any time.
pub(crate) async fn grant(shard: &Shard, levels: &[Rc<Level>], demand: Demand) -> u32 {
    let mut turns = Vec::with_capacity(levels.len());
    for level in levels {
        turns.push(level.turn.lock().await);
        while level.bucket.borrow().available(shard.now()) < u64::from(demand.bytes_min) {
            await_slice(shard, level, demand).await;
        }
    }
    loop {
        match take_all(levels, demand, shard.now()) {
            Ok(bytes) => return bytes,
            // Its slice expired while another level's line was waited in.
            Err(short) => match levels.get(short) {
                Some(level) => await_slice(shard, level, demand).await,
                None => return 0,
            },
        }
    }
}

/// Puts back what was granted and not used.
pub(crate) fn give_back(levels: &[Rc<Level>], bytes: u32) {
    for level in levels {
        level.bucket.borrow_mut().give_back(u64::from(bytes));
    }
}

async fn await_slice(shard: &Shard, level: &Level, demand: Demand) {
    let exchanged = level.exchange(demand, shard.now());
    if let Err(time) = exchanged {
        shard.cells.increment(level.waits);
        tokio::time::sleep(time.since(shard.now()).max(Duration::from_millis(1))).await;
    }
}

fn take_all(levels: &[Rc<Level>], demand: Demand, now: Time) -> Result<u32, usize> {
    let mut guards: Vec<_> = levels
        .iter()
        .map(|level| level.bucket.borrow_mut())
        .collect();
    let mut buckets: Vec<&mut ShardBucket> = guards.iter_mut().map(|guard| &mut **guard).collect();
    take(&mut buckets, demand, now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, Data};

    fn limits(change: impl FnOnce(&mut PlaneConfig)) -> Arc<SharedLimits> {
        let mut config = testing::config();
        change(&mut config);
        Arc::new(SharedLimits::new(&config, 2))
    }

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn refused(limits: &Arc<SharedLimits>, last: u8) -> Option<Refused> {
        limits.admit(address(last)).err()
    }

    #[test]
    fn places_are_counted_and_given_back() {
        let limits = limits(|config| {
            config.connections_max = 3;
            config.connections_per_stranger_max = 2;
        });
        let mut places: Vec<_> = (0..2)
            .map(|_| limits.admit(address(1)).ok().unwrap())
            .collect();
        assert_eq!(refused(&limits, 1), Some(Refused::Stranger));
        places.push(limits.admit(address(2)).ok().unwrap());
        assert_eq!(refused(&limits, 3), Some(Refused::Connections));
        places.remove(0);
        assert_eq!(refused(&limits, 1), None);
        drop(places);
        let connections = lock(&limits.connections);
        assert_eq!((connections.total, connections.by_stranger.len()), (0, 0));
    }

    #[test]
    fn a_handshake_that_is_done_makes_room_for_another() {
        let limits = limits(|config| config.handshakes_max = 1);
        let mut first = limits.admit(address(1)).ok().unwrap();
        assert_eq!(refused(&limits, 2), Some(Refused::Handshakes));
        first.greeted();
        first.greeted();
        let second = limits.admit(address(2)).ok().unwrap();
        assert_eq!(refused(&limits, 3), Some(Refused::Handshakes));
        drop((first, second));
        assert_eq!(limits.handshakes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn slots_go_where_peers_are_interested() {
        let limits = limits(|config| config.upload_slots = 4);
        assert_eq!(limits.lease_slots(0, 10), Some(4));
        assert_eq!(limits.lease_slots(1, 10), Some(2));
        assert_eq!(limits.lease_slots(0, 10), Some(2));
        assert_eq!(limits.lease_slots(2, 10), None, "there is no such shard");
    }

    #[test]
    fn a_peer_is_under_the_limits_of_its_torrent_its_class_and_the_server() {
        let (data, now) = (Data::new(&[("a", 10)]), Time::default());
        let torrent = data.torrent();
        let limits = limits(|config| {
            config.rates = RateLimits {
                global: 1_000,
                torrent: 2_000,
                remote: 3_000,
                ..RateLimits::default()
            }
        });
        let rates = ShardRates::new(&limits, 0);
        let local = rates.levels(&torrent, [10, 0, 0, 1].into(), now);
        let remote = rates.levels(&torrent, [8, 8, 8, 8].into(), now);
        let of = |levels: &Levels| {
            let rates = levels.iter().map(|level| level.shared.rate());
            rates.collect::<Vec<_>>()
        };
        assert_eq!(of(&local), [Some(2_000), None, Some(1_000)]);
        assert_eq!(of(&remote), [Some(2_000), Some(3_000), Some(1_000)]);
        assert!(Rc::ptr_eq(&local[0], &remote[0]) && Rc::ptr_eq(&local[2], &remote[2]));
        drop((local, remote));
        rates.tick(now);
        assert!(rates.torrents.borrow().is_empty());
    }

    /// Peers that are there see limits that are set, changed and taken away.
    #[test]
    fn limits_change_under_the_peers_that_are_there() {
        let (data, now) = (Data::new(&[("a", 10)]), Time::default());
        let (torrent, limits) = (data.torrent(), limits(|_| {}));
        let rates = ShardRates::new(&limits, 0);
        let upload = rates.levels(&torrent, address(1), now);
        let download = rates.download_levels(&torrent, now);
        assert!(!are_limited(&upload) && !are_limited(&download));
        let demand = Demand {
            bytes_min: 16_384,
            bytes_max: 16_384,
        };
        limits.set_rates(1_000, 0);
        assert!(are_limited(&upload) && !are_limited(&download));
        // What was sent just before was not counted.
        assert_eq!(try_grant(&upload, demand, now), None);
        limits.set_rates(0, 1_000);
        assert!(!are_limited(&upload) && are_limited(&download));
        assert_eq!(try_grant(&download, demand, now), None);
        limits.set_rates(0, 0);
        let own = TorrentLimits {
            download_rate: Some(1_000),
            ..TorrentLimits::default()
        };
        limits.set_of_torrent(&torrent, own);
        assert!(!are_limited(&upload) && are_limited(&download));
        limits.set_of_torrent(&torrent, TorrentLimits::default());
        assert!(!are_limited(&download));
        assert_eq!(try_grant(&download, demand, now), Some(16_384));
    }

    #[test]
    fn what_was_configured_can_be_changed() {
        let (data, now) = (Data::new(&[("a", 10)]), Time::default());
        let (torrent, limits) = (data.torrent(), limits(|_| {}));
        let rates = ShardRates::new(&limits, 0);
        let levels = rates.levels(&torrent, address(1), now);
        let of = |levels: &Levels| {
            let rates = levels.iter().map(|level| level.shared.rate());
            rates.collect::<Vec<_>>()
        };
        limits.set_configured(&ConfiguredLimits {
            rates: RateLimits {
                global: 7,
                torrent: 2_000,
                remote: 3_000,
                ..RateLimits::default()
            },
            upload_slots: 4,
            choker: Default::default(),
            connections_per_stranger_max: 1,
            handshakes_max: 2,
        });
        // The server's own rates are set by themselves.
        assert_eq!(of(&levels), [None, Some(3_000), None]);
        limits.set_of_torrent(&torrent, TorrentLimits::default());
        assert_eq!(of(&levels), [Some(2_000), Some(3_000), None]);
        assert_eq!(limits.lease_slots(0, 10), Some(4));
        let _first = limits.admit(address(1)).ok().unwrap();
        assert_eq!(refused(&limits, 1), Some(Refused::Stranger));
        let _second = limits.admit(address(2)).ok().unwrap();
        assert_eq!(refused(&limits, 3), Some(Refused::Handshakes));
    }

    #[test]
    fn nobody_passes_those_who_wait() {
        let (data, now) = (Data::new(&[("a", 10)]), Time::default());
        let limits = limits(|config| config.rates.global = 1_000_000);
        let rates = ShardRates::new(&limits, 0);
        let levels = rates.levels(&data.torrent(), address(1), now);
        let demand = Demand {
            bytes_min: 16_384,
            bytes_max: 32_768,
        };
        let first_in_line = levels[0].turn.try_lock().unwrap();
        assert_eq!(try_grant(&levels, demand, now), None);
        drop(first_in_line);
        assert_eq!(try_grant(&levels, demand, now), Some(32_768));
    }

    #[test]
    fn all_levels_together_let_no_more_through_than_the_narrowest() {
        let (data, now) = (Data::new(&[("a", 10)]), Time::default());
        let limits = limits(|config| {
            config.rates.global = 1_000_000_000;
            config.rates.torrent = 1_000;
        });
        let rates = ShardRates::new(&limits, 0);
        let levels = rates.levels(&data.torrent(), address(1), now);
        let demand = Demand {
            bytes_min: 16_384,
            bytes_max: 262_144,
        };
        // What is given back counts for nothing.
        let unused = try_grant(&levels, demand, now).unwrap();
        give_back(&levels, unused);
        let grants = std::iter::from_fn(|| try_grant(&levels, demand, now));
        let granted = u64::from(grants.sum::<u32>());
        let burst = RateLimit::new(1_000).burst_bytes();
        assert!(granted <= burst, "{granted} of {burst}");
        assert!(granted + 16_384 > burst - 1_000, "{granted} of {burst}");
    }
}
