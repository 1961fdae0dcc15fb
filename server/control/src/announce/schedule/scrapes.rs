//! When which torrents are scraped (BEP 48, BEP 15): pure, in virtual time.
//!
//! Torrents that one URL has answered for are a group, asked about in batches in turn. The batches
//! of a group are spread evenly over the interval, so that each torrent comes once in it: one batch
//! in 6.7 s for 20,000 torrents and half an hour. A tracker that refuses or fails is asked ever
//! less often, down to once a day: scrapes are a courtesy, announces carry the same counts.
//!
//! Limits: a member per torrent and tracker that works; batches of [`UDP_SCRAPE_HASHES_MAX`] or
//! [`HTTP_BATCH_MAX`]; [`GAP_MIN`] between two of a group. Does not: know of buckets, or of
//! torrents that have left until their turn comes, when they are dropped.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use engine::time::Time;
use proto::ids::InfoHashV1;
use proto::limits::UDP_SCRAPE_HASHES_MAX;
use proto::tracker::scrape_url;

use super::{Job, Scheduler};
use crate::announce::ScrapeOutcome;
use crate::announce::tiers::{Target, TrackerIndex, Transport, random_part};

/// Torrents in one scrape by HTTP: a URL of less than 4 KiB, which every server takes.
const HTTP_BATCH_MAX: usize = 50;
/// The shortest time between two scrapes of a group.
const GAP_MIN: Duration = Duration::from_secs(1);
/// The first scrape comes so long after the first torrent at most: others may join it.
const FIRST_AFTER_MAX: Duration = Duration::from_secs(60);
/// How long a scrape waits when its host is busy with announces.
const POSTPONED: Duration = Duration::from_secs(10);
/// The longest wait after failures.
const BACKOFF_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A group's URL, and how it is asked.
type Key = (Transport, Arc<str>);

/// See the module's text.
pub(super) struct Scrapes {
    interval: Option<Duration>,
    groups: HashMap<Key, Group>,
    /// When each group's next batch is due. A group is here once, or its batch is under way.
    due: BinaryHeap<Reverse<(Time, u64, Key)>>,
    sequence: u64,
}

struct Group {
    target: Target,
    members: VecDeque<Member>,
    failures: u32,
}

/// A torrent at a tracker; stale if the tracker has another number now.
#[derive(Clone, Copy)]
pub(super) struct Member {
    pub info_hash: InfoHashV1,
    pub tracker: TrackerIndex,
    pub number: u64,
}

/// One scrape to make now.
#[derive(Clone)]
pub(in crate::announce) struct ScrapeJob {
    pub target: Target,
    pub info_hashes: Vec<InfoHashV1>,
    members: Vec<Member>,
    key: Key,
}

impl ScrapeJob {
    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }
}

impl Scrapes {
    pub fn new(interval: Option<Duration>) -> Scrapes {
        Scrapes {
            interval,
            groups: HashMap::new(),
            due: BinaryHeap::new(),
            sequence: 0,
        }
    }

    /// Takes a torrent in; false if its tracker has no scrape, or none is wanted.
    pub fn join(
        &mut self,
        now: Time,
        target: &Target,
        member: Member,
        random: &mut fastrand::Rng,
    ) -> bool {
        let Some(interval) = self.interval else {
            return false;
        };
        if target.transport == Transport::Http && scrape_url(target.url.as_str()).is_none() {
            return false;
        }
        let key: Key = (target.transport, target.url.as_str().into());
        if let Some(group) = self.groups.get_mut(&key) {
            group.members.push_back(member);
            return true;
        }
        let group = Group {
            target: target.clone(),
            members: VecDeque::from([member]),
            failures: 0,
        };
        self.groups.insert(key.clone(), group);
        let after = interval.min(FIRST_AFTER_MAX) / 2;
        self.wait_until(now + after + random_part(after, random), key);
        true
    }

    /// When the next batch is due.
    pub fn next_wake(&self) -> Time {
        self.due.peek().map_or(Time::NEVER, |Reverse((at, ..))| *at)
    }

    /// The next group whose batch is due.
    pub fn pop_due(&mut self, now: Time) -> Option<Key> {
        if self.next_wake() > now {
            return None;
        }
        let Reverse((_, _, key)) = self.due.pop()?;
        Some(key)
    }

    /// The host that a group asks.
    pub fn host(&self, key: &Key) -> Option<Arc<str>> {
        Some(self.groups.get(key)?.target.host.clone())
    }

    /// Tries a group again in a while.
    pub fn postpone(&mut self, now: Time, key: Key, random: &mut fastrand::Rng) {
        let interval = self.interval.unwrap_or(POSTPONED);
        let wait = POSTPONED.min(interval);
        self.wait_until(now + wait + random_part(wait / 2, random), key);
    }

    /// The next batch of a group, of those who are still `wanted`. A group in which nobody is left
    /// is forgotten.
    pub fn take(&mut self, key: Key, wanted: impl Fn(&Member) -> bool) -> Option<ScrapeJob> {
        let group = self.groups.get_mut(&key)?;
        let most = match group.target.transport {
            Transport::Udp => UDP_SCRAPE_HASHES_MAX,
            Transport::Http => HTTP_BATCH_MAX,
        };
        let mut members = Vec::new();
        while members.len() < most
            && let Some(member) = group.members.pop_front()
        {
            if wanted(&member) {
                members.push(member);
            }
        }
        if members.is_empty() {
            self.groups.remove(&key);
            return None;
        }
        Some(ScrapeJob {
            target: group.target.clone(),
            info_hashes: members.iter().map(|member| member.info_hash).collect(),
            members,
            key,
        })
    }

    /// A batch has ended; its torrents go to the end of the line.
    pub fn finished(&mut self, now: Time, job: &ScrapeJob, good: bool, random: &mut fastrand::Rng) {
        let Some(group) = self.groups.get_mut(&job.key) else {
            return;
        };
        let batch = u32::try_from(job.members.len()).unwrap_or(u32::MAX);
        group.members.extend(job.members.iter().copied());
        let all = u32::try_from(group.members.len())
            .unwrap_or(u32::MAX)
            .max(1);
        let interval = self.interval.unwrap_or(BACKOFF_MAX);
        let wait = if good {
            group.failures = 0;
            let share = interval.mul_f64(f64::from(batch) / f64::from(all));
            share.max(GAP_MIN.min(interval))
        } else {
            group.failures = group.failures.saturating_add(1);
            let doublings = group.failures.min(16);
            interval.saturating_mul(1 << doublings).min(BACKOFF_MAX)
        };
        self.wait_until(now + wait + random_part(wait / 10, random), job.key.clone());
    }

    fn wait_until(&mut self, at: Time, key: Key) {
        self.sequence += 1;
        self.due.push(Reverse((at, self.sequence, key)));
    }
}

/// How the scheduler runs them, beside its announces.
impl Scheduler {
    /// The next scrape that may go out now; call until it answers none, after the announces.
    pub fn poll_scrape(&mut self, now: Time) -> Option<ScrapeJob> {
        // Whatever is due is taken or put off, so that `next_wake` lies ahead.
        while let Some(group) = self.scrapes.pop_due(now) {
            let gap = self.gap();
            let Some(name) = self.scrapes.host(&group) else {
                continue;
            };
            let host = self.hosts.entry(name).or_default();
            let busy = self.in_flight >= self.limits.in_flight_max
                || host.failures > 0
                || !host.normal.is_empty()
                || host.in_flight >= host.in_flight_max(&self.limits)
                || host.too_early(now, gap) > Duration::ZERO;
            if busy {
                self.scrapes.postpone(now, group, &mut self.random);
                continue;
            }
            let torrents = &self.torrents;
            let job = self.scrapes.take(group, |member| {
                let torrent = torrents.get(&member.info_hash);
                torrent
                    .filter(|torrent| !torrent.leaving)
                    .is_some_and(|torrent| {
                        let tracker = torrent.tiers.get(member.tracker);
                        tracker.is_some_and(|tracker| tracker.scraped_as == Some(member.number))
                    })
            });
            if let Some(job) = job {
                host.hand_out(now, gap);
                self.in_flight += 1;
                return Some(job);
            }
        }
        None
    }

    /// Takes the outcome of a scrape.
    pub fn scraped(&mut self, now: Time, job: &ScrapeJob, outcome: &ScrapeOutcome) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let name = job.target.host.clone();
        if let Some(host) = self.hosts.get_mut(&name) {
            host.in_flight = host.in_flight.saturating_sub(1);
        }
        self.list(&name);
        if let ScrapeOutcome::Files(files) = outcome {
            let found: HashMap<InfoHashV1, _> = files.iter().copied().collect();
            for member in job.members() {
                let torrent = self.torrents.get_mut(&member.info_hash);
                let tracker = torrent.and_then(|torrent| torrent.tiers.get_mut(member.tracker));
                if let (Some(tracker), Some(file)) = (tracker, found.get(&member.info_hash)) {
                    tracker.scraped(*file);
                }
            }
        }
        let good = matches!(outcome, ScrapeOutcome::Files(_));
        self.scrapes.finished(now, job, good, &mut self.random);
    }

    /// A tracker that has answered for a torrent is asked about it from now on.
    pub(super) fn join_scrapes(&mut self, now: Time, job: &Job) {
        let number = self.ticket();
        let torrent = self.torrents.get_mut(&job.info_hash);
        let tracker = torrent.and_then(|torrent| torrent.tiers.get_mut(job.tracker));
        let member = Member {
            info_hash: job.info_hash,
            tracker: job.tracker,
            number,
        };
        if let Some(tracker) = tracker
            && self
                .scrapes
                .join(now, &job.target, member, &mut self.random)
        {
            tracker.scraped_as = Some(number);
        }
    }
}
