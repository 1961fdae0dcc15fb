//! Which complete torrents there are, for all shards and the control plane: those that are
//! *awake*, whose metainfo is here, and those that are *dormant*, of which nothing is known but the
//! info-hash. A peer that shakes hands for a dormant one waits until the control plane has loaded
//! it (docs/adr/0017-dormant-torrents.md).
//!
//! A torrent falls asleep at one moment for all shards: when the number of its uses, which is zero,
//! is closed ([`Uses::close`]). Before that it has been entered among the dormant ones, so that a
//! shard which comes too late for the one finds the other. It is awake as soon as a shard has been
//! told of it, and leaves the dormant ones when all have.
//!
//! Limits: those of [`DormantSet`] and [`WakeLimits`]. Does not: know shards, or load anything.

mod awake;
mod dormant;
mod waking;

pub use dormant::DORMANT_MAX;
pub use waking::{WakeLimits, Wanted};

pub(crate) use awake::{TorrentUse, Uses};
pub(crate) use waking::Outcome;

use crate::plane::{Event, NotRetired};
use crate::torrent::SeededTorrent;
use awake::Awake;
use dormant::DormantSet;
use proto::ids::InfoHashV1;
use seedring_metrics::{ControlCells, ControlCounter, ControlGauge};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::mpsc;
use waking::{Answer, Waiter, Wakes};

/// See the module.
pub(crate) struct Roster {
    dormant: DormantSet,
    awake: Mutex<Awake>,
    wakes: Mutex<Wakes>,
    /// Must not keep the events from ending with the shards.
    events: mpsc::WeakUnboundedSender<Event>,
    cells: Arc<ControlCells>,
}

/// Locks; what is guarded here is whole at every moment, so a panic elsewhere has not spoilt it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Roster {
    /// One without torrents, whose wishes are told by `events`.
    pub(crate) fn new(
        limits: WakeLimits,
        events: mpsc::WeakUnboundedSender<Event>,
        cells: Arc<ControlCells>,
    ) -> Roster {
        Roster {
            dormant: DormantSet::default(),
            awake: Mutex::default(),
            wakes: Mutex::new(Wakes::new(limits)),
            events,
            cells,
        }
    }

    /// Whether a torrent is dormant. One that is awake on the asking shard may be so, too, for a
    /// moment.
    pub(crate) fn is_dormant(&self, info_hash: InfoHashV1) -> bool {
        self.dormant.contains(info_hash)
    }

    /// How many are dormant.
    pub(crate) fn dormant_count(&self) -> usize {
        self.dormant.len()
    }

    /// How many are awake.
    pub(crate) fn awake_count(&self) -> usize {
        lock(&self.awake).len()
    }

    /// Enters a torrent among the dormant ones. False if there is no room.
    pub(crate) fn add_dormant(&self, info_hash: InfoHashV1) -> bool {
        let has_room = self.dormant.insert(info_hash);
        self.publish_dormant();
        has_room
    }

    /// Forgets a dormant torrent; nobody waits for it any more.
    pub(crate) fn remove_dormant(self: &Arc<Self>, info_hash: InfoHashV1) {
        if self.dormant.remove(info_hash) {
            self.publish_dormant();
        }
        self.refuse(info_hash);
    }

    /// Every dormant torrent that is not `kept`.
    pub(crate) fn dormant_without(&self, kept: &HashSet<InfoHashV1>) -> Vec<InfoHashV1> {
        self.dormant.without(kept)
    }

    fn publish_dormant(&self) {
        let count = self.dormant.len() as u64;
        self.cells.set(ControlGauge::TorrentsDormant, count);
    }

    /// Uses a torrent; it does not fall asleep until the result is dropped. `None` if it has.
    pub(crate) fn claim(self: &Arc<Self>, torrent: &Arc<SeededTorrent>) -> Option<TorrentUse> {
        TorrentUse::new(self, torrent)
    }

    /// Notes that a torrent may have got its first use or lost its last one.
    fn look_at_uses(&self, torrent: &SeededTorrent) {
        lock(&self.awake).look(torrent, Instant::now());
    }

    /// Enters a torrent that is being given to the shards.
    pub(crate) fn enter(&self, torrent: &Arc<SeededTorrent>) {
        let mut awake = lock(&self.awake);
        awake.enter(torrent, Instant::now());
        let count = awake.len() as u64;
        self.cells.set(ControlGauge::TorrentsAwake, count);
    }

    /// Makes a torrent that nobody uses a dormant one, for all shards at once: none can use it from
    /// now on, and each finds it here.
    pub(crate) fn fall_asleep(
        self: &Arc<Self>,
        torrent: &Arc<SeededTorrent>,
    ) -> Result<(), NotRetired> {
        // First this: a shard that cannot use the torrent any more looks there.
        if !self.add_dormant(torrent.info_hash()) {
            return Err(NotRetired::Full);
        }
        if !torrent.uses().close() {
            self.remove_dormant(torrent.info_hash());
            return Err(NotRetired::Busy);
        }
        torrent.stop();
        self.leave(torrent);
        self.cells.increment(ControlCounter::TorrentsRetired);
        Ok(())
    }

    /// Forgets a torrent that is being taken from them.
    pub(crate) fn leave(&self, torrent: &SeededTorrent) {
        let mut awake = lock(&self.awake);
        awake.leave(torrent);
        let count = awake.len() as u64;
        self.cells.set(ControlGauge::TorrentsAwake, count);
    }

    /// A torrent that is awake.
    pub(crate) fn torrent(&self, info_hash: InfoHashV1) -> Option<Arc<SeededTorrent>> {
        lock(&self.awake).torrent(info_hash)
    }

    /// At most `count_max` torrents that nobody has used since `before`, the longest unused first.
    pub(crate) fn idle(&self, before: Instant, count_max: usize) -> Vec<InfoHashV1> {
        lock(&self.awake).idle(before, count_max)
    }

    /// All shards have got the torrent: it is not dormant any more, and who waits for it goes on.
    pub(crate) fn woken(self: &Arc<Self>, info_hash: InfoHashV1) {
        if self.dormant.remove(info_hash) {
            self.publish_dormant();
        }
        self.answer(info_hash, None, Answer::Awake);
    }

    /// Who waits for the torrent goes.
    pub(crate) fn refuse(self: &Arc<Self>, info_hash: InfoHashV1) {
        self.answer(info_hash, None, Answer::Refused);
    }

    /// Whether a wish has been answered.
    fn is_answered(&self, info_hash: InfoHashV1, number: u64) -> bool {
        !lock(&self.wakes).is_current(info_hash, number)
    }

    /// Answers those who wait for a torrent: in the wake-up of this `number`, or in any.
    fn answer(self: &Arc<Self>, info_hash: InfoHashV1, number: Option<u64>, answer: Answer) {
        if self.end(info_hash, number, answer) {
            self.tell_wishes();
        }
    }

    fn end(&self, info_hash: InfoHashV1, number: Option<u64>, answer: Answer) -> bool {
        let ended = lock(&self.wakes).end(info_hash, number, answer);
        if ended {
            self.cells.increment(match answer {
                Answer::Awake => ControlCounter::WakesDone,
                Answer::Refused => ControlCounter::WakesRefused,
            });
        }
        ended
    }

    /// A place among those who wait for a dormant torrent. `None` if too many do, or if the shards
    /// are stopping.
    pub(crate) fn wait(self: &Arc<Self>, info_hash: InfoHashV1) -> Option<Waiter> {
        let joined = lock(&self.wakes).join(info_hash)?;
        let waiter = Waiter::new(self, info_hash, joined);
        self.tell_wishes();
        Some(waiter)
    }

    fn left(&self, info_hash: InfoHashV1, number: u64) {
        let mut wakes = lock(&self.wakes);
        wakes.leave(info_hash, number);
        self.cells
            .set(ControlGauge::WakesPending, wakes.len() as u64);
    }

    /// Tells the control plane of as many wishes as it may have before it.
    fn tell_wishes(self: &Arc<Self>) {
        loop {
            let mut wakes = lock(&self.wakes);
            let told = wakes.tell_next();
            self.cells
                .set(ControlGauge::WakesPending, wakes.len() as u64);
            drop(wakes);
            let Some((number, info_hash)) = told else {
                return;
            };
            let events = self.events.upgrade();
            match events.filter(|events| !events.is_closed()) {
                Some(events) => {
                    let wanted = Wanted::new(self, info_hash, number);
                    let _ = events.send(Event::Wanted(wanted));
                }
                // Not by a wish that is dropped, which would come back here for the next one.
                None => {
                    self.end(info_hash, Some(number), Answer::Refused);
                }
            }
        }
    }

    /// Nobody waits any more, and nobody will.
    pub(crate) fn stop(&self) {
        lock(&self.wakes).stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, Data};
    use seedring_metrics::Registry;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    /// However many wait, and whether or not the control plane has been told of them.
    #[test]
    fn when_nobody_hears_of_wishes_any_more_all_are_refused() {
        let (events, received) = mpsc::unbounded_channel();
        let cells = Registry::new(0).control();
        let limits = WakeLimits::default();
        let roster = Arc::new(Roster::new(limits, events.downgrade(), Arc::clone(&cells)));
        let hash = |number: usize| {
            InfoHashV1(
                [(number % 256) as u8, (number / 256) as u8]
                    .repeat(10)
                    .try_into()
                    .unwrap(),
            )
        };
        let waiters: Vec<_> = (0..limits.waiting_max)
            .map(|number| roster.wait(hash(number)).unwrap())
            .collect();
        assert_eq!(received.len(), limits.wakes_max);
        drop(received);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let never = tokio::time::Instant::now() + std::time::Duration::from_secs(3600);
            for waiter in waiters {
                assert_eq!(waiter.outcome(never).await, Outcome::Refused);
            }
            let late = roster.wait(hash(0)).unwrap();
            assert_eq!(late.outcome(never).await, Outcome::Refused);
        });
        assert_eq!(cells.gauge(ControlGauge::WakesPending), 0);
        let refused = cells.counter(ControlCounter::WakesRefused);
        assert_eq!(refused, limits.waiting_max as u64 + 1);
    }

    /// A shard that cannot use a torrent any more finds it among the dormant ones, however soon it
    /// looks.
    #[test]
    fn no_torrent_is_neither_awake_nor_dormant_while_it_falls_asleep() {
        let (data, (roster, _events)) = (Data::new(&[("a", 10)]), testing::roster());
        for _ in 0..100 {
            let torrent = data.torrent();
            let info_hash = torrent.info_hash();
            roster.enter(&torrent);
            let looks = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    while roster.claim(&torrent).is_some() {
                        looks.store(true, Ordering::Release);
                    }
                    assert!(roster.is_dormant(info_hash));
                });
                while !looks.load(Ordering::Acquire) || roster.fall_asleep(&torrent).is_err() {
                    thread::yield_now();
                }
            });
            assert_eq!((roster.awake_count(), roster.dormant_count()), (0, 1));
            roster.remove_dormant(info_hash);
        }
    }
}
