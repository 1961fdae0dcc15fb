//! When which torrent is announced where: pure, in virtual time.
//!
//! A torrent waits in one heap ordered by time. When it is due, the first tracker of its tiers
//! that is not backing off is chosen and the torrent joins that host's queue, from which
//! [`Scheduler::poll`] takes one announce after the other: evenly by a token bucket per host, at
//! most so many at once per host and overall. [`Scheduler::finished`] takes the outcome and puts
//! the torrent back into the heap.
//!
//! A host that fails [`HOST_FAILURES_MAX`] times in a row is *down*: those who wait for it go on
//! to their next tier, and a single announce tries it again after a back-off. So a dead tracker
//! with 10,000 torrents costs one connection per back-off, and delays nobody who has another
//! tracker.
//!
//! Limits: one queue entry per torrent; [`Limits`]. Nothing here loops over all torrents but
//! [`Scheduler::stop_all`], once. Does not: do I/O, read a clock, draw randomness of its own (the
//! generator is seeded by the caller).

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use engine::time::Time;
use proto::ids::InfoHashV1;
use proto::tracker::AnnounceEvent;

use super::tiers::{
    BACKOFF_MAX, BACKOFF_MIN, REFUSED_BACKOFF_MIN, Target, Tiers, TrackerIndex, backoff,
    random_part,
};
use super::{Outcome, TorrentStatus, Totals};

/// Failures in a row after which a host counts as down.
pub const HOST_FAILURES_MAX: u32 = 3;
/// An announce that has waited this long beyond its time counts as overdue.
pub const OVERDUE_AFTER: Duration = Duration::from_secs(60);
/// How long a torrent that is added again while it leaves waits with its `started`.
const REJOIN_AFTER: Duration = Duration::from_secs(5);
/// How many announces may leave for one host back to back before the bucket's rate holds.
const HOST_BURST: u32 = 4;

/// How fast and how parallel announces go out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub in_flight_max: usize,
    pub in_flight_per_host_max: usize,
    pub per_second_per_host: u32,
}

/// What [`Scheduler::poll`] hands out: one announce to make now.
pub(super) struct Job {
    pub info_hash: InfoHashV1,
    pub tracker: TrackerIndex,
    pub target: Target,
    pub event: AnnounceEvent,
    pub tracker_id: Option<Arc<[u8]>>,
    pub totals: Arc<dyn Totals>,
    pub private: bool,
    ticket: u64,
}

/// The sums that the metrics show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Gauges {
    pub torrents: usize,
    /// Announces under way.
    pub in_flight: usize,
    /// Announces that have waited for more than [`OVERDUE_AFTER`] for their turn.
    pub overdue: usize,
    /// Pairs of torrent and tracker whose last announce failed.
    pub failing: usize,
}

/// See the module's text.
pub(super) struct Scheduler {
    limits: Limits,
    random: fastrand::Rng,
    torrents: HashMap<InfoHashV1, Torrent>,
    hosts: HashMap<Arc<str>, Host>,
    timers: BinaryHeap<Timer>,
    /// Hosts that may have an announce to hand out, in turn.
    ready: VecDeque<Arc<str>>,
    in_flight: usize,
    failing: usize,
    stopping: bool,
    tickets: u64,
}

struct Torrent {
    tiers: Tiers,
    totals: Arc<dyn Totals>,
    private: bool,
    completed: bool,
    leaving: bool,
    place: Place,
    /// Names the present `place`: an entry of a heap or queue with another ticket is stale.
    ticket: u64,
}

#[derive(Clone, Copy)]
enum Place {
    Until(Time),
    Queued(TrackerIndex),
    InFlight(TrackerIndex),
}

#[derive(Default)]
struct Host {
    urgent: VecDeque<Entry>,
    normal: VecDeque<Entry>,
    in_flight: usize,
    /// The bucket: when the next announce would be due if they went out evenly.
    next_even: Time,
    listed: Listed,
    failures: u32,
    down_until: Time,
    /// Why it is down.
    message: String,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Listed {
    #[default]
    No,
    Ready,
    Timer,
}

#[derive(Clone, Copy)]
struct Entry {
    info_hash: InfoHashV1,
    ticket: u64,
    since: Time,
}

struct Timer {
    at: Time,
    sequence: u64,
    wakes: Wakes,
}

enum Wakes {
    Torrent(InfoHashV1),
    Host(Arc<str>),
}

impl Scheduler {
    pub fn new(limits: Limits, seed: u64) -> Scheduler {
        Scheduler {
            limits,
            random: fastrand::Rng::with_seed(seed),
            torrents: HashMap::new(),
            hosts: HashMap::new(),
            timers: BinaryHeap::new(),
            ready: VecDeque::new(),
            in_flight: 0,
            failing: 0,
            stopping: false,
            tickets: 0,
        }
    }

    /// Takes a torrent, due at once; false if it is there already. One that is still saying
    /// goodbye starts anew.
    pub fn add(
        &mut self,
        now: Time,
        info_hash: InfoHashV1,
        tiers: &[Vec<String>],
        private: bool,
        totals: Arc<dyn Totals>,
    ) -> bool {
        let mut first = now;
        if let Some(torrent) = self.torrents.get(&info_hash) {
            if !torrent.leaving {
                return false;
            }
            // Its `stopped` may be on the way and must not overtake the new `started`.
            first = now + REJOIN_AFTER;
        }
        if self.stopping {
            return false;
        }
        self.forget(info_hash);
        let tiers = Tiers::new(tiers, &mut self.random);
        let (completed, leaving, ticket) = (false, false, 0);
        let place = Place::Until(first);
        let torrent = Torrent {
            tiers,
            totals,
            private,
            completed,
            leaving,
            place,
            ticket,
        };
        self.torrents.insert(info_hash, torrent);
        self.wait_until(first, info_hash);
        true
    }

    /// Tells every tracker that knows the torrent `stopped`, then forgets it.
    pub fn remove(&mut self, now: Time, info_hash: InfoHashV1) -> bool {
        match self.torrents.get_mut(&info_hash) {
            Some(torrent) if !torrent.leaving => torrent.leaving = true,
            _ => return false,
        }
        self.leave(now, info_hash);
        true
    }

    /// The torrent has just become complete: says so at once.
    pub fn completed(&mut self, now: Time, info_hash: InfoHashV1) -> bool {
        let Some(torrent) = self.torrents.get_mut(&info_hash) else {
            return false;
        };
        torrent.completed = true;
        if matches!(torrent.place, Place::Until(_)) && !torrent.leaving {
            self.wait_until(now, info_hash);
        }
        true
    }

    /// Announces as soon as the tracker's `min interval` allows it.
    pub fn reannounce(&mut self, now: Time, info_hash: InfoHashV1) -> bool {
        let Some(torrent) = self.torrents.get(&info_hash) else {
            return false;
        };
        if let (Place::Until(due), false) = (torrent.place, torrent.leaving) {
            let used = torrent
                .tiers
                .iter()
                .filter(|tracker| tracker.target.is_some());
            let allowed = used
                .map(|tracker| tracker.allowed_at.max(tracker.retry_at))
                .min();
            let at = allowed.unwrap_or(due).max(now);
            if at < due {
                self.wait_until(at, info_hash);
            }
        }
        true
    }

    /// Begins the end: `stopped` for every torrent, without the bucket's spacing. Loops over all
    /// torrents.
    pub fn stop_all(&mut self, now: Time, limits: Limits) {
        self.stopping = true;
        self.limits = limits;
        let all: Vec<InfoHashV1> = self.torrents.keys().copied().collect();
        for info_hash in all {
            self.remove(now, info_hash);
        }
    }

    /// Nothing is left to say for any torrent.
    pub fn is_empty(&self) -> bool {
        self.torrents.is_empty()
    }

    /// The next announce that may go out now; call until it answers none, then sleep until
    /// [`Scheduler::next_wake`].
    pub fn poll(&mut self, now: Time) -> Option<Job> {
        while self.timers.peek().is_some_and(|timer| timer.at <= now) {
            if let Some(timer) = self.timers.pop() {
                self.fire(now, timer);
            }
        }
        while self.in_flight < self.limits.in_flight_max {
            let host = self.ready.pop_front()?;
            if let Some(job) = self.take_from(now, &host) {
                return Some(job);
            }
        }
        None
    }

    /// When [`Scheduler::poll`] may have something again, unless something finishes or is added
    /// before.
    pub fn next_wake(&self) -> Time {
        self.timers.peek().map_or(Time::NEVER, |timer| timer.at)
    }

    /// Takes the outcome of a job.
    pub fn finished(&mut self, now: Time, job: &Job, outcome: Outcome) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.host_finished(now, &job.target.host, &outcome);
        let torrent = self.torrents.get_mut(&job.info_hash);
        let Some(torrent) = torrent.filter(|torrent| torrent.ticket == job.ticket) else {
            return;
        };
        let random = &mut self.random;
        let Some(tracker) = torrent.tiers.get_mut(job.tracker) else {
            return;
        };
        let mut next = now;
        self.failing -= usize::from(tracker.is_failing());
        self.failing += usize::from(!matches!(outcome, Outcome::Reply(_)));
        match outcome {
            Outcome::Reply(reply) => {
                next = now + tracker.succeeded(now, reply, random);
                tracker.started = job.event != AnnounceEvent::Stopped;
                torrent.tiers.promote(job.tracker);
                if job.event == AnnounceEvent::Completed {
                    torrent.completed = false;
                } else if torrent.completed {
                    next = now;
                }
            }
            Outcome::Refused { reason, retry } => {
                tracker.failed(now, reason, retry, REFUSED_BACKOFF_MIN, random);
            }
            Outcome::Failed { error, retry } => {
                tracker.failed(now, error, retry, BACKOFF_MIN, random);
            }
        }
        if torrent.leaving {
            torrent.place = Place::Until(now);
            self.leave(now, job.info_hash);
        } else {
            self.wait_until(next, job.info_hash);
        }
    }

    /// What the operator sees of one torrent.
    pub fn status(&self, now: Time, info_hash: InfoHashV1) -> Option<TorrentStatus> {
        let torrent = self.torrents.get(&info_hash)?;
        let (next, busy) = match torrent.place {
            Place::Until(at) => (at, None),
            Place::Queued(_) => (now, None),
            Place::InFlight(index) => (now, Some(index)),
        };
        let trackers = torrent.tiers.iter().map(|tracker| {
            let host = tracker
                .target
                .as_ref()
                .and_then(|target| self.hosts.get(&target.host));
            let down = host.filter(|host| host.is_down(now));
            let down = down.map(|host| (host.down_until, host.message.as_str()));
            tracker.status(now, busy == Some(tracker.index), next, down)
        });
        let trackers = trackers.collect();
        Some(TorrentStatus {
            trackers,
            leaving: torrent.leaving,
        })
    }

    /// Forgets hosts that nobody has asked for anything for a while; costs a look at each host.
    pub fn tidy(&mut self, now: Time) {
        self.hosts.retain(|_, host| !host.is_idle(now));
    }

    /// The sums; costs a search per host.
    pub fn gauges(&self, now: Time) -> Gauges {
        // Entries are in the order in which they came.
        let overdue = |entry: &Entry| now.since(entry.since) > OVERDUE_AFTER;
        let overdue = self
            .hosts
            .values()
            .map(|host| host.normal.partition_point(overdue))
            .sum();
        let torrents = self.torrents.len();
        Gauges {
            torrents,
            in_flight: self.in_flight,
            overdue,
            failing: self.failing,
        }
    }

    fn fire(&mut self, now: Time, timer: Timer) {
        match timer.wakes {
            Wakes::Torrent(info_hash) => {
                let torrent = self.torrents.get(&info_hash);
                if torrent.is_some_and(|torrent| torrent.ticket == timer.sequence) {
                    self.choose(now, info_hash);
                }
            }
            Wakes::Host(name) => {
                if let Some(host) = self.hosts.get_mut(&name) {
                    host.listed = Listed::Ready;
                    self.ready.push_back(name);
                }
            }
        }
    }

    /// A fresh ticket for the torrent's new place.
    fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    fn wait_until(&mut self, at: Time, info_hash: InfoHashV1) {
        let ticket = self.ticket();
        if let Some(torrent) = self.torrents.get_mut(&info_hash) {
            torrent.ticket = ticket;
            torrent.place = Place::Until(at);
            if at != Time::NEVER {
                let wakes = Wakes::Torrent(info_hash);
                self.timers.push(Timer {
                    at,
                    sequence: ticket,
                    wakes,
                });
            }
        }
    }

    /// Queues a due torrent at the first tracker that may be asked now, or waits for the earliest.
    fn choose(&mut self, now: Time, info_hash: InfoHashV1) {
        let Some(torrent) = self.torrents.get(&info_hash) else {
            return;
        };
        let mut earliest = Time::NEVER;
        for tracker in torrent.tiers.iter() {
            let Some(target) = &tracker.target else {
                continue;
            };
            let down = self
                .hosts
                .get(&target.host)
                .map_or(Time(0), |host| host.down_until);
            let at = tracker.retry_at.max(down);
            if at <= now {
                let (index, host) = (tracker.index, target.host.clone());
                self.enqueue(now, info_hash, index, host, false);
                return;
            }
            earliest = earliest.min(at);
        }
        if earliest != Time::NEVER {
            // Spread, lest all who waited for one host come back in one instant.
            earliest = earliest + random_part(earliest.since(now) / 8, &mut self.random);
        }
        self.wait_until(earliest, info_hash);
    }

    fn enqueue(
        &mut self,
        now: Time,
        info_hash: InfoHashV1,
        tracker: TrackerIndex,
        name: Arc<str>,
        urgent: bool,
    ) {
        let ticket = self.ticket();
        let Some(torrent) = self.torrents.get_mut(&info_hash) else {
            return;
        };
        torrent.ticket = ticket;
        torrent.place = Place::Queued(tracker);
        let host = self.hosts.entry(name.clone()).or_default();
        let entry = Entry {
            info_hash,
            ticket,
            since: now,
        };
        if urgent {
            host.urgent.push_back(entry);
        } else {
            host.normal.push_back(entry);
        }
        if host.listed == Listed::No {
            host.listed = Listed::Ready;
            self.ready.push_back(name);
        }
    }

    /// The next announce of a host whose turn it is, if its limits allow one; lists the host for
    /// its next turn.
    fn take_from(&mut self, now: Time, name: &Arc<str>) -> Option<Job> {
        let stopping = self.stopping;
        let gap = Duration::from_secs(1) / self.limits.per_second_per_host.max(1);
        let host = self.hosts.get_mut(name)?;
        host.listed = Listed::No;
        // A host that failed is probed by one announce at a time until it answers.
        let suspect = host.failures >= HOST_FAILURES_MAX;
        let in_flight_max = if suspect {
            1
        } else {
            self.limits.in_flight_per_host_max
        };
        if host.in_flight >= in_flight_max {
            return None; // listed again when one of them finishes
        }
        let burst = gap * (HOST_BURST - 1);
        let early = host.next_even.since(now);
        if !stopping && early > burst {
            host.listed = Listed::Timer;
            let at = now + (early - burst);
            let sequence = self.ticket();
            self.timers.push(Timer {
                at,
                sequence,
                wakes: Wakes::Host(name.clone()),
            });
            return None;
        }
        loop {
            let host = self.hosts.get_mut(name)?;
            let entry = host
                .urgent
                .pop_front()
                .or_else(|| host.normal.pop_front())?;
            let Some(job) = self.job(entry) else { continue };
            let host = self.hosts.get_mut(name)?;
            host.in_flight += 1;
            host.next_even = host.next_even.max(now) + gap;
            host.listed = Listed::Ready;
            self.in_flight += 1;
            self.ready.push_back(name.clone());
            return Some(job);
        }
    }

    /// The announce that a queue entry stands for; none if the entry is stale.
    fn job(&mut self, entry: Entry) -> Option<Job> {
        let torrent = self.torrents.get_mut(&entry.info_hash)?;
        let Place::Queued(index) = torrent.place else {
            return None;
        };
        if torrent.ticket != entry.ticket {
            return None;
        }
        let tracker = torrent.tiers.get_mut(index)?;
        let target = tracker.target.clone()?;
        let event = match () {
            // Whoever leaves as soon as all is there has not said so yet: then both are said, in their order.
            () if torrent.leaving && torrent.completed && tracker.started => {
                AnnounceEvent::Completed
            }
            () if torrent.leaving => AnnounceEvent::Stopped,
            () if !tracker.started => AnnounceEvent::Started,
            () if torrent.completed => AnnounceEvent::Completed,
            () => AnnounceEvent::None,
        };
        if torrent.leaving {
            // Each is said once, whatever becomes of it.
            torrent.completed = false;
            tracker.started = event == AnnounceEvent::Completed;
        }
        torrent.place = Place::InFlight(index);
        Some(Job {
            info_hash: entry.info_hash,
            tracker: index,
            target,
            event,
            tracker_id: tracker.tracker_id.clone(),
            totals: torrent.totals.clone(),
            private: torrent.private,
            ticket: entry.ticket,
        })
    }

    /// Queues the next `stopped` of a torrent that leaves, or forgets the torrent.
    fn leave(&mut self, now: Time, info_hash: InfoHashV1) {
        let Some(torrent) = self.torrents.get(&info_hash) else {
            return;
        };
        if matches!(torrent.place, Place::InFlight(_)) {
            return; // that announce may register us: its end calls here again
        }
        let knows_us = torrent.tiers.iter().filter(|tracker| tracker.started);
        let next = knows_us
            .filter_map(|tracker| Some((tracker.index, tracker.target.as_ref()?.host.clone())))
            .find(|(_, host)| !self.hosts.get(host).is_some_and(|host| host.is_down(now)));
        match next {
            Some((index, host)) => self.enqueue(now, info_hash, index, host, true),
            None => self.forget(info_hash),
        }
    }

    fn forget(&mut self, info_hash: InfoHashV1) {
        if let Some(torrent) = self.torrents.remove(&info_hash) {
            let failing = torrent.tiers.iter().filter(|tracker| tracker.is_failing());
            self.failing -= failing.count();
        }
    }

    fn host_finished(&mut self, now: Time, name: &Arc<str>, outcome: &Outcome) {
        let Some(host) = self.hosts.get_mut(name) else {
            return;
        };
        host.in_flight = host.in_flight.saturating_sub(1);
        if let Outcome::Failed { error, .. } = outcome {
            host.message.clone_from(error);
            host.failures = host.failures.saturating_add(1);
            if host.failures >= HOST_FAILURES_MAX && !host.is_down(now) {
                let rounds = host.failures - HOST_FAILURES_MAX + 1;
                host.down_until = now + backoff(rounds, BACKOFF_MIN, &mut self.random);
                let waiting: Vec<Entry> =
                    host.urgent.drain(..).chain(host.normal.drain(..)).collect();
                self.reconsider(now, waiting);
            }
        } else {
            host.failures = 0;
            host.down_until = Time(0);
        }
        match self.hosts.get_mut(name) {
            Some(host) if host.listed == Listed::No => {
                host.listed = Listed::Ready;
                self.ready.push_back(name.clone());
            }
            _ => {}
        }
    }

    /// Those who waited for a host that went down go on to their next tracker.
    fn reconsider(&mut self, now: Time, waiting: Vec<Entry>) {
        for entry in waiting {
            let Some(torrent) = self.torrents.get_mut(&entry.info_hash) else {
                continue;
            };
            if torrent.ticket != entry.ticket {
                continue;
            }
            torrent.place = Place::Until(now);
            if torrent.leaving {
                self.leave(now, entry.info_hash);
            } else {
                self.choose(now, entry.info_hash);
            }
        }
    }
}

impl Host {
    fn is_down(&self, now: Time) -> bool {
        self.down_until > now
    }

    /// Nothing would be lost by forgetting it.
    fn is_idle(&self, now: Time) -> bool {
        self.in_flight == 0
            && self.listed == Listed::No
            && self.urgent.is_empty()
            && self.normal.is_empty()
            && self.next_even <= now
            && (self.failures == 0 || now.since(self.down_until) > BACKOFF_MAX)
    }
}

impl PartialEq for Timer {
    fn eq(&self, other: &Timer) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Timer {}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Timer) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timer {
    /// Turned round, because `BinaryHeap` gives its greatest first.
    fn cmp(&self, other: &Timer) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

#[cfg(test)]
mod tests;
