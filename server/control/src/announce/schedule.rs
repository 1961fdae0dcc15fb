//! When which torrent is announced where: pure, in virtual time.
//!
//! A torrent waits in one heap ordered by time. When it is due, the first tracker of its tiers
//! that is not backing off is chosen and the torrent joins that host's queue, from which
//! [`Scheduler::poll`] takes one announce after the other: evenly by a token bucket per host, at
//! most so many at once per host and overall. [`Scheduler::finished`] takes the outcome and puts
//! the torrent back into the heap.
//!
//! An announce that is not answered for a while ([`NEXT_TRACKER_AFTER`], or
//! [`NEXT_TRACKER_AFTER_WANTING`] for a torrent that wants peers) is *overtaken*: the next tracker
//! is asked beside it, and whatever comes of the first is taken when it comes. A host that has not
//! answered anybody for so long is *silent*: those who wait for it go on to another tracker if they
//! have one, until it answers. So a dead first tier costs seconds. A private torrent is not
//! overtaken, because its trackers add up what each announce reports.
//!
//! A host that fails [`HOST_FAILURES_MAX`] times in a row is *down*: those who wait for it go on
//! to their next tier, and a single announce tries it again after a back-off. So a dead tracker
//! with 10,000 torrents costs one connection per back-off, and delays nobody who has another
//! tracker.
//!
//! Scrapes (`scrapes`) leave by the same bucket when no announce waits for the host.
//!
//! Limits: one queue entry per torrent and [`TRACKERS_AT_ONCE_MAX`] announces under way;
//! [`Limits`]. Nothing here loops over all torrents but [`Scheduler::stop_all`], once, and over
//! those who wait for a host but when it fails. Does not: do I/O, read a clock, draw randomness of
//! its own (the generator is seeded by the caller).

use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use engine::time::Time;
use proto::ids::InfoHashV1;
use proto::tracker::AnnounceEvent;

use super::tiers::{
    BACKOFF_MIN, REFUSED_BACKOFF_MIN, Target, Tiers, Tracker, TrackerIndex, backoff, random_part,
};
use super::{AnnounceConfig, Outcome, Totals};

mod host;
mod scrapes;
mod seen;
#[cfg(test)]
mod tests;
mod timer;

use host::{Entry, Host, Listed};
pub(super) use scrapes::ScrapeJob;
use scrapes::Scrapes;
use timer::{Timer, Wakes};

/// Failures in a row after which a host counts as down.
pub const HOST_FAILURES_MAX: u32 = 3;
/// An announce that has waited this long beyond its time counts as overdue.
pub const OVERDUE_AFTER: Duration = Duration::from_secs(60);
/// How long a torrent that is added again while it leaves waits with its `started`.
const REJOIN_AFTER: Duration = Duration::from_secs(5);
/// How many announces may leave for one host back to back before the bucket's rate holds.
pub(super) const HOST_BURST: u32 = 4;
/// How many may be under way to a host that has not answered yet: the dead ones among many trackers
/// must not take all places.
const UNPROVEN_IN_FLIGHT_MAX: usize = 2;
/// How long an announce may be unanswered before the torrent's next tracker is asked beside it.
pub(super) const NEXT_TRACKER_AFTER: Duration = Duration::from_secs(5);
/// The same for a torrent that is not complete: peers should be there within seconds, even if the
/// first two trackers are dead.
pub(super) const NEXT_TRACKER_AFTER_WANTING: Duration = Duration::from_millis(1500);
/// Who has not answered a first announce for so long is not waited for at the end.
const SILENT_AFTER: Duration = NEXT_TRACKER_AFTER_WANTING;
/// Trackers of one torrent that are asked at a time.
const TRACKERS_AT_ONCE_MAX: usize = 8;

/// How fast and how parallel announces go out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub in_flight_max: usize,
    pub in_flight_per_host_max: usize,
    pub per_second_per_host: u32,
    /// How often each torrent is scraped at the trackers that know it; none for never.
    pub scrape_interval: Option<Duration>,
}

impl Limits {
    /// Those of a configuration.
    pub fn of(config: &AnnounceConfig) -> Limits {
        Limits {
            in_flight_max: config.in_flight_max.max(1),
            in_flight_per_host_max: config.in_flight_per_host_max.max(1),
            per_second_per_host: config.per_second_per_host.max(1),
            scrape_interval: config.scrape_interval,
        }
    }
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
    scrapes: Scrapes,
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
    /// When the next regular announce is due, by the last good answer: until then a failure at one
    /// tracker is no reason to ask another.
    satisfied_until: Time,
    /// Names the present `place`: an entry of a heap or queue with another ticket is stale.
    ticket: u64,
}

#[derive(Clone, Copy)]
enum Place {
    Until(Time),
    Queued(TrackerIndex),
    InFlight(TrackerIndex),
}

impl Scheduler {
    pub fn new(limits: Limits, seed: u64) -> Scheduler {
        Scheduler {
            limits,
            random: fastrand::Rng::with_seed(seed),
            torrents: HashMap::new(),
            hosts: HashMap::new(),
            timers: BinaryHeap::new(),
            scrapes: Scrapes::new(limits.scrape_interval),
            ready: VecDeque::new(),
            in_flight: 0,
            failing: 0,
            stopping: false,
            tickets: 0,
        }
    }

    /// Takes other limits, but for how often is scraped.
    pub fn set_limits(&mut self, limits: Limits) {
        // At the end those of the end hold.
        if !self.stopping {
            let scrape_interval = self.limits.scrape_interval;
            self.limits = Limits {
                scrape_interval,
                ..limits
            };
        }
    }

    /// Takes a torrent, due at once; false if it is there already. One that is still saying
    /// goodbye starts anew. Of one that is there, only that it is private is news: of a magnet link
    /// that shows when its metadata have come.
    pub fn add(
        &mut self,
        now: Time,
        info_hash: InfoHashV1,
        tiers: &[Vec<String>],
        private: bool,
        totals: Arc<dyn Totals>,
    ) -> bool {
        let mut first = now;
        if let Some(torrent) = self.torrents.get_mut(&info_hash) {
            if !torrent.leaving {
                torrent.private |= private;
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
        let torrent = Torrent {
            tiers,
            totals,
            private,
            completed,
            leaving,
            place: Place::Until(first),
            satisfied_until: first,
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
        torrent.satisfied_until = now;
        if matches!(torrent.place, Place::Until(_)) && !torrent.leaving {
            self.wait_until(now, info_hash);
        }
        true
    }

    /// Announces as soon as the tracker whose turn it is may be asked again: by its `min interval`,
    /// or by its back-off. However often it is called, it comes to no more than that.
    pub fn reannounce(&mut self, now: Time, info_hash: InfoHashV1) -> bool {
        let Some(torrent) = self.torrents.get(&info_hash) else {
            return false;
        };
        if let (Place::Until(due), false) = (torrent.place, torrent.leaving) {
            let at = self.first_free(now, torrent).err().unwrap_or(now);
            if at < due {
                if let Some(torrent) = self.torrents.get_mut(&info_hash) {
                    torrent.satisfied_until = at;
                }
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
        self.scrapes = Scrapes::new(None);
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
        let timer = self.timers.peek().map_or(Time::NEVER, |timer| timer.at);
        timer.min(self.scrapes.next_wake())
    }

    /// Takes the outcome of a job.
    pub fn finished(&mut self, now: Time, job: &Job, outcome: Outcome) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.host_finished(now, &job.target.host, &outcome);
        let Some(torrent) = self.torrents.get_mut(&job.info_hash) else {
            return;
        };
        let tracker = torrent.tiers.get_mut(job.tracker);
        let Some(tracker) = tracker.filter(|tracker| tracker.in_flight == Some(job.ticket)) else {
            return;
        };
        tracker.in_flight = None;
        self.failing -= usize::from(tracker.is_failing());
        self.failing += usize::from(!matches!(outcome, Outcome::Reply(_)));
        let answered = matches!(outcome, Outcome::Reply(_));
        let wait = take_outcome(now, tracker, job, outcome, &mut self.random);
        let unscraped = answered && tracker.scraped_as.is_none();
        if let Some(wait) = wait {
            torrent.tiers.promote(job.tracker);
            torrent.satisfied_until = now + wait;
            if job.event == AnnounceEvent::Completed {
                torrent.completed = false;
            } else if torrent.completed {
                torrent.satisfied_until = now;
            }
        }
        if unscraped && !torrent.leaving {
            self.join_scrapes(now, job);
        }
        self.go_on(now, job, answered);
    }

    /// Where a torrent goes when one of its announces has ended.
    fn go_on(&mut self, now: Time, job: &Job, answered: bool) {
        let Some(torrent) = self.torrents.get_mut(&job.info_hash) else {
            return;
        };
        let next = torrent.satisfied_until.max(now);
        let current = torrent.ticket == job.ticket;
        match torrent.place {
            Place::Queued(_) if torrent.leaving => {}
            _ if torrent.leaving => {
                torrent.place = Place::Until(Time::NEVER);
                self.leave(now, job.info_hash);
            }
            // It was overtaken, and another tracker is being asked.
            Place::InFlight(_) if !current => {}
            Place::Queued(_) if !answered => {}
            _ => self.wait_until(next, job.info_hash),
        }
    }

    /// Forgets hosts that nobody has asked for anything for a while; costs a look at each host.
    pub fn tidy(&mut self, now: Time) {
        self.hosts.retain(|_, host| !host.is_idle(now));
    }

    fn fire(&mut self, now: Time, timer: Timer) {
        match timer.wakes {
            Wakes::Torrent(info_hash) => {
                let torrent = self.torrents.get(&info_hash);
                let Some(torrent) = torrent.filter(|torrent| torrent.ticket == timer.sequence)
                else {
                    return;
                };
                match torrent.place {
                    Place::Until(_) if torrent.leaving => self.leave(now, info_hash),
                    Place::Until(_) => self.choose(now, info_hash),
                    Place::InFlight(tracker) => self.overtake(now, info_hash, tracker),
                    Place::Queued(_) => {}
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
        match self.first_free(now, torrent) {
            Ok((index, host)) => self.enqueue(now, info_hash, index, host, false),
            Err(mut earliest) => {
                if earliest != Time::NEVER {
                    // Spread, lest all who waited for one host come back in one instant.
                    let spread = earliest.since(now) / 8;
                    earliest = earliest + random_part(spread, &mut self.random);
                }
                self.wait_until(earliest, info_hash);
            }
        }
    }

    /// The first tracker that may be asked now, one at a silent host only if there is no other; or
    /// when there will be one. Who has answered and does not want to be asked again yet is waited
    /// for when there is no event to tell: he works, so it is nobody else's turn (BEP 12).
    fn first_free(&self, now: Time, torrent: &Torrent) -> Result<(TrackerIndex, Arc<str>), Time> {
        let (mut earliest, mut silent) = (Time::NEVER, None);
        for tracker in torrent.tiers.iter() {
            let (Some(target), None) = (&tracker.target, tracker.in_flight) else {
                continue;
            };
            let host = self.hosts.get(&target.host);
            let down = host.map_or(Time(0), |host| host.down_until);
            let at = tracker.retry_at.max(down);
            if at > now {
                earliest = earliest.min(at);
                continue;
            }
            let is_silent = host.is_some_and(|host| host.silent);
            let has_event = torrent.completed || !tracker.started;
            if !has_event && tracker.allowed_at > now {
                earliest = earliest.min(tracker.allowed_at);
                if is_silent {
                    continue;
                }
                break;
            }
            let free = (tracker.index, target.host.clone());
            if is_silent {
                silent.get_or_insert(free);
            } else {
                return Ok(free);
            }
        }
        silent.ok_or(earliest)
    }

    /// A torrent's announce has been unanswered for long enough that another tracker is asked too.
    fn overtake(&mut self, now: Time, info_hash: InfoHashV1, tracker: TrackerIndex) {
        let Some(torrent) = self.torrents.get(&info_hash) else {
            return;
        };
        let (private, wait) = (torrent.private, next_tracker_after(torrent));
        let target = torrent
            .tiers
            .get(tracker)
            .and_then(|tracker| tracker.target.as_ref());
        if let Some(name) = target.map(|target| target.host.clone())
            && let Some(host) = self.hosts.get_mut(&name)
            && !host.silent
            && host.answered.is_none_or(|at| now.since(at) >= wait)
        {
            host.silent = true;
            let waiting: Vec<Entry> = host.normal.drain(..).collect();
            self.reconsider(now, &name, waiting);
        }
        let Some(torrent) = self.torrents.get(&info_hash) else {
            return;
        };
        // One that was overtaken before may have answered meanwhile.
        let satisfied = torrent.satisfied_until > now;
        if private || satisfied || torrent.tiers.in_flight() >= TRACKERS_AT_ONCE_MAX {
            return;
        }
        if let Ok((index, host)) = self.first_free(now, torrent) {
            self.enqueue(now, info_hash, index, host, false);
        }
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
        let gap = self.gap();
        let host = self.hosts.get_mut(name)?;
        host.listed = Listed::No;
        if host.in_flight >= host.in_flight_max(&self.limits) {
            return None; // listed again when one of them finishes
        }
        let early = host.too_early(now, gap);
        if !stopping && early > Duration::ZERO {
            host.listed = Listed::Timer;
            let at = now + early;
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
            let Some(job) = self.job(now, entry) else {
                continue;
            };
            let host = self.hosts.get_mut(name)?;
            host.hand_out(now, gap);
            self.in_flight += 1;
            if host.listed == Listed::No {
                host.listed = Listed::Ready;
                self.ready.push_back(name.clone());
            }
            return Some(job);
        }
    }

    /// The announce that a queue entry stands for; none if the entry is stale.
    fn job(&mut self, now: Time, entry: Entry) -> Option<Job> {
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
            // Whoever leaves as soon as all is there has not said so yet: then both are said, in
            // their order.
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
        (tracker.in_flight, tracker.asked_at) = (Some(entry.ticket), now);
        tracker.asked = event;
        let tracker_id = tracker.tracker_id.clone();
        torrent.place = Place::InFlight(index);
        let job = Job {
            info_hash: entry.info_hash,
            tracker: index,
            target,
            event,
            tracker_id,
            totals: torrent.totals.clone(),
            private: torrent.private,
            ticket: entry.ticket,
        };
        if torrent.leaving {
            // All trackers are told side by side.
            torrent.place = Place::Until(Time::NEVER);
            self.leave(now, entry.info_hash);
        } else {
            let at = now + next_tracker_after(torrent);
            self.timers.push(Timer {
                at,
                sequence: entry.ticket,
                wakes: Wakes::Torrent(entry.info_hash),
            });
        }
        Some(job)
    }

    /// Queues the next `stopped` of a torrent that leaves, or forgets the torrent. A tracker that
    /// is being asked may register us by that: the end of that announce calls here again. At the
    /// end of all, one that is silent is not waited for: it is dead, most likely.
    fn leave(&mut self, now: Time, info_hash: InfoHashV1) {
        let (stopping, hosts) = (self.stopping, &self.hosts);
        let Some(torrent) = self.torrents.get_mut(&info_hash) else {
            return;
        };
        let is_first = |tracker: &Tracker| tracker.asked == AnnounceEvent::Started;
        let is_silent = |tracker: &Tracker| {
            let target = tracker.target.as_ref();
            let host = target.and_then(|target| hosts.get(&target.host));
            let has_answered = host.and_then(|host| host.answered) > Some(tracker.asked_at);
            let is_late = tracker.asked_at + SILENT_AFTER <= now;
            stopping && is_first(tracker) && !has_answered && is_late
        };
        let busy = |tracker: &&Tracker| tracker.in_flight.is_some() && !is_silent(tracker);
        let waited_for = torrent.tiers.iter().filter(busy);
        let is_busy = waited_for.clone().next().is_some();
        // Only a first announce may turn out to be silent.
        let first = waited_for.filter(|tracker| is_first(tracker));
        let look_again = first.map(|tracker| tracker.asked_at + SILENT_AFTER);
        let look_again = look_again.filter(|at| stopping && *at > now).min();
        let knows_us = |tracker: &&Tracker| tracker.started && tracker.in_flight.is_none();
        let knows_us = torrent.tiers.iter().filter(knows_us);
        let next = knows_us
            .filter_map(|tracker| Some((tracker.index, tracker.target.as_ref()?.host.clone())))
            .find(|(_, host)| !self.hosts.get(host).is_some_and(|host| host.is_down(now)));
        match next {
            Some((index, host)) => self.enqueue(now, info_hash, index, host, true),
            None if !is_busy => self.forget(info_hash),
            None => match look_again {
                Some(at) => self.wait_until(at, info_hash),
                None => {
                    torrent.place = Place::Until(Time::NEVER);
                    torrent.ticket = 0; // a queue entry or timer that there may be is stale
                }
            },
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
        if host.in_flight == 0 {
            host.silent = false;
        }
        if let Outcome::Failed { error, .. } = outcome {
            host.message.clone_from(error);
            host.failures = host.failures.saturating_add(1);
            if host.failures >= HOST_FAILURES_MAX && !host.is_down(now) {
                let rounds = host.failures - HOST_FAILURES_MAX + 1;
                host.down_until = now + backoff(rounds, BACKOFF_MIN, &mut self.random);
                let waiting: Vec<Entry> =
                    host.urgent.drain(..).chain(host.normal.drain(..)).collect();
                self.reconsider(now, name, waiting);
            }
        } else {
            host.failures = 0;
            host.down_until = Time(0);
            host.silent = false;
            host.answered = Some(now);
        }
        self.list(name);
    }

    /// Gives a host its turn.
    fn list(&mut self, name: &Arc<str>) {
        match self.hosts.get_mut(name) {
            Some(host) if host.listed == Listed::No => {
                host.listed = Listed::Ready;
                self.ready.push_back(name.clone());
            }
            _ => {}
        }
    }

    /// Those who waited for a host that went down or silent go on to another tracker; but for a
    /// host that is only silent those wait on who have no other.
    fn reconsider(&mut self, now: Time, name: &Arc<str>, waiting: Vec<Entry>) {
        let mut moving = waiting;
        if let Some(host) = self.hosts.get_mut(name).filter(|host| !host.is_down(now)) {
            let has_other = |entry: &Entry| {
                let torrent = self.torrents.get(&entry.info_hash);
                torrent.is_some_and(|torrent| torrent.tiers.count() > 1)
            };
            let (others, staying): (Vec<Entry>, Vec<Entry>) =
                moving.into_iter().partition(has_other);
            // First, because entries are in the order of their time.
            host.normal.extend(staying);
            moving = others;
        }
        for entry in moving {
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

    /// The time between two announces to one host.
    fn gap(&self) -> Duration {
        Duration::from_secs(1) / self.limits.per_second_per_host.max(1)
    }
}

/// Puts an outcome into a tracker; after a good one, how long to wait until the next announce.
fn take_outcome(
    now: Time,
    tracker: &mut Tracker,
    job: &Job,
    outcome: Outcome,
    random: &mut fastrand::Rng,
) -> Option<Duration> {
    match outcome {
        Outcome::Reply(reply) => {
            tracker.started = job.event != AnnounceEvent::Stopped;
            return Some(tracker.succeeded(now, reply, random));
        }
        Outcome::Refused { reason, retry } => {
            tracker.failed(now, reason, retry, REFUSED_BACKOFF_MIN, random);
        }
        Outcome::Failed { error, retry } => {
            tracker.failed(now, error, retry, BACKOFF_MIN, random);
        }
    }
    None
}

/// How long an announce of this torrent may be unanswered before another tracker is asked too.
fn next_tracker_after(torrent: &Torrent) -> Duration {
    if torrent.totals.now().left > 0 {
        NEXT_TRACKER_AFTER_WANTING
    } else {
        NEXT_TRACKER_AFTER
    }
}
