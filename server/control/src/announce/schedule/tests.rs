//! The scheduler in virtual time: a world of trackers that answer as each test says.

use proto::tracker::ScrapeFile;

use super::*;
use crate::announce::{RetryIn, ScrapeOutcome, TorrentTotals, TrackerReply, TrackerState};

mod failures;
mod lives;
mod overtaken;
mod scraped;
mod storm;

const LIMITS: Limits = Limits {
    in_flight_max: 64,
    in_flight_per_host_max: 8,
    per_second_per_host: 20,
    scrape_interval: None,
};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn at(since_start: Duration) -> Time {
    Time(0) + since_start
}

fn info_hash(number: usize) -> InfoHashV1 {
    let mut hash = [0; 20];
    hash[..8].copy_from_slice(&(number as u64).to_be_bytes());
    InfoHashV1(hash)
}

fn reply(interval: u64) -> Outcome {
    Outcome::Reply(TrackerReply {
        interval: seconds(interval),
        ..TrackerReply::default()
    })
}

fn refused(retry: Option<RetryIn>) -> Outcome {
    Outcome::Refused {
        reason: "no".to_owned(),
        retry,
    }
}

fn failed() -> Outcome {
    Outcome::Failed {
        error: "connection refused".to_owned(),
        retry: None,
    }
}

/// One announce as the world saw it.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    at: Time,
    torrent: InfoHashV1,
    host: String,
    event: AnnounceEvent,
}

/// A scheduler, its clock, and what is under way.
struct World {
    scheduler: Scheduler,
    now: Time,
    under_way: Vec<(Time, Job, Outcome)>,
    seen: Vec<Seen>,
    most_at_once: usize,
    scrapes: Vec<(Time, Vec<InfoHashV1>)>,
    scrape_answer: fn(&ScrapeJob) -> ScrapeOutcome,
}

/// Every torrent has 3 seeds, 4 leechers and was completed 5 times.
fn good_scrape(job: &ScrapeJob) -> ScrapeOutcome {
    let file = ScrapeFile {
        complete: 3,
        incomplete: 4,
        downloaded: 5,
    };
    let files = job.info_hashes.iter().map(|hash| (*hash, file));
    ScrapeOutcome::Files(files.collect())
}

impl World {
    fn new() -> World {
        World::with(LIMITS)
    }

    fn with(limits: Limits) -> World {
        let scheduler = Scheduler::new(limits, 7);
        let (under_way, seen) = (Vec::new(), Vec::new());
        World {
            scheduler,
            now: Time(0),
            under_way,
            seen,
            most_at_once: 0,
            scrapes: Vec::new(),
            scrape_answer: good_scrape,
        }
    }

    fn add(&mut self, number: usize, tiers: &[&[&str]]) -> InfoHashV1 {
        self.add_with(number, tiers, 0, false)
    }

    /// Adds a torrent with so many bytes left.
    fn add_with(
        &mut self,
        number: usize,
        tiers: &[&[&str]],
        left: u64,
        private: bool,
    ) -> InfoHashV1 {
        let tiers: Vec<Vec<String>> = tiers
            .iter()
            .map(|tier| tier.iter().map(|url| (*url).to_owned()).collect())
            .collect();
        let totals = Arc::new(TorrentTotals {
            left: left.into(),
            ..TorrentTotals::default()
        });
        assert!(
            self.scheduler
                .add(self.now, info_hash(number), &tiers, private, totals)
        );
        info_hash(number)
    }

    /// Runs to a time; `answer` says how long each announce takes and what comes of it.
    fn run(&mut self, until: Duration, mut answer: impl FnMut(&Job) -> (Duration, Outcome)) {
        let until = at(until);
        loop {
            while let Some(job) = self.scheduler.poll(self.now) {
                let (takes, outcome) = answer(&job);
                let (torrent, event) = (job.info_hash, job.event);
                let host = job.target.host.to_string();
                self.seen.push(Seen {
                    at: self.now,
                    torrent,
                    host,
                    event,
                });
                self.under_way.push((self.now + takes, job, outcome));
                self.most_at_once = self.most_at_once.max(self.under_way.len());
            }
            while let Some(job) = self.scheduler.poll_scrape(self.now) {
                assert!(self.scheduler.in_flight <= self.scheduler.limits.in_flight_max);
                self.scrapes.push((self.now, job.info_hashes.clone()));
                let outcome = (self.scrape_answer)(&job);
                self.scheduler.scraped(self.now, &job, &outcome);
            }
            self.check();
            let next = self
                .under_way
                .iter()
                .enumerate()
                .min_by_key(|(_, (at, ..))| *at);
            let (index, end) = next.map_or((0, Time::NEVER), |(index, (at, ..))| (index, *at));
            let wake = self.scheduler.next_wake().min(end);
            if wake > until {
                self.now = until;
                return;
            }
            self.now = self.now.max(wake);
            if end <= self.now {
                let (_, job, outcome) = self.under_way.swap_remove(index);
                self.scheduler.finished(self.now, &job, outcome);
            }
        }
    }

    /// What must hold at any time.
    fn check(&self) {
        let scheduler = &self.scheduler;
        assert_eq!(scheduler.in_flight, self.under_way.len());
        let of_hosts: usize = scheduler.hosts.values().map(|host| host.in_flight).sum();
        assert_eq!(scheduler.in_flight, of_hosts);
        // A look at each torrent at each step is too much for the large worlds.
        for torrent in scheduler.torrents.values().take(50) {
            assert!(torrent.tiers.in_flight() <= TRACKERS_AT_ONCE_MAX);
        }
    }

    fn count_failing(&self) -> usize {
        let torrents = self.scheduler.torrents.values();
        torrents
            .flat_map(|t| t.tiers.iter())
            .filter(|t| t.is_failing())
            .count()
    }

    fn times(&self) -> Vec<u64> {
        self.seen
            .iter()
            .map(|seen| seen.at.since(Time(0)).as_secs())
            .collect()
    }

    fn hosts(&self) -> Vec<&str> {
        self.seen.iter().map(|seen| seen.host.as_str()).collect()
    }

    fn events(&self) -> Vec<AnnounceEvent> {
        self.seen.iter().map(|seen| seen.event).collect()
    }
}

const A: &str = "http://a.example/announce";

const B: &str = "http://b.example/announce";

const C: &str = "http://c.example/announce";

#[test]
fn ten_thousand_torrents_start_evenly_under_the_caps() {
    let mut world = World::new();
    for number in 0..10_000 {
        world.add(number, &[&[A]]);
    }
    world.run(seconds(600), |_| (Duration::from_millis(200), reply(1800)));
    assert_eq!(world.seen.len(), 10_000);
    assert!(
        world
            .seen
            .iter()
            .all(|seen| seen.event == AnnounceEvent::Started)
    );
    assert!(world.most_at_once <= 8);
    let mut per_second = [0; 601];
    world
        .times()
        .iter()
        .for_each(|second| per_second[*second as usize] += 1);
    // 20 a second from the first to the last: 500 s, with the burst of 4 at the start.
    assert!(per_second[0] <= 24 && per_second[1..].iter().all(|count| *count <= 21));
    assert!(per_second[1..499].iter().all(|count| *count >= 19));
    // The next round is spread too, and none comes before its interval.
    world.seen.clear();
    world.run(seconds(1800 + 180 + 520), |_| {
        (Duration::from_millis(200), reply(1800))
    });
    let mut per_second = vec![0; 3000];
    world
        .times()
        .iter()
        .for_each(|second| per_second[*second as usize] += 1);
    assert!(per_second.iter().all(|count| *count <= 24));
    assert_eq!(world.seen.len(), 10_000);
    assert_eq!(world.scheduler.gauges(world.now).overdue, 0);
}

#[test]
fn a_slow_tracker_holds_no_more_than_its_share() {
    let mut world = World::new();
    for number in 0..1000 {
        world.add(number, &[&[if number % 2 == 0 { A } else { B }]]);
    }
    // A answers after 29 s: 2 are asked until it has answered at all, then 8 at once, which make
    // one each 3.6 s; B is not held up by that.
    world.run(seconds(60), |job| {
        let slow = job.target.host.starts_with("a.");
        (
            if slow {
                seconds(29)
            } else {
                Duration::from_millis(10)
            },
            reply(1800),
        )
    });
    let of_b = world
        .seen
        .iter()
        .filter(|seen| seen.host == "b.example:80")
        .count();
    let of_a = world.seen.len() - of_b;
    assert_eq!(of_b, 500);
    assert_eq!(of_a, 2 + 8 + 8);
    let gauges = world.scheduler.gauges(at(seconds(120)));
    assert_eq!((gauges.overdue, gauges.in_flight), (500 - 18, 8));
}

#[test]
fn intervals_are_clamped_and_jitter_only_adds() {
    for (asked, least, most) in [
        (0, 60, 67),
        (1800, 1800, 1981),
        (u64::MAX / 4, 86400, 86401),
    ] {
        let mut world = World::new();
        world.add(1, &[&[A]]);
        world.run(seconds(90_000), |_| (Duration::ZERO, reply(asked)));
        let gap = world.times()[1] - world.times()[0];
        assert!((least..=most).contains(&gap), "{asked}: {gap}");
    }
}

#[test]
fn a_min_interval_above_the_interval_wins() {
    let mut world = World::new();
    world.add(1, &[&[A]]);
    world.run(seconds(2000), |_| {
        let (interval, interval_min) = (seconds(60), Some(seconds(900)));
        let reply = TrackerReply {
            interval,
            interval_min,
            ..TrackerReply::default()
        };
        (Duration::ZERO, Outcome::Reply(reply))
    });
    assert!((900..=991).contains(&world.times()[1]));
}

#[test]
fn a_reannounce_waits_for_the_min_interval() {
    let mut world = World::new();
    let torrent = world.add(1, &[&[A]]);
    let answer = |_: &Job| {
        let interval_min = Some(seconds(300));
        let reply = TrackerReply {
            interval: seconds(1800),
            interval_min,
            ..TrackerReply::default()
        };
        (Duration::ZERO, Outcome::Reply(reply))
    };
    world.run(seconds(10), answer);
    for _ in 0..100 {
        world.scheduler.reannounce(world.now, torrent);
    }
    world.run(seconds(1000), answer);
    assert_eq!(world.times(), [0, 300]);
    assert!(world.scheduler.timers.len() < 10);
}

/// Runs for so many seconds, and asks four times in each that the torrent is announced again.
fn impatient(
    world: &mut World,
    torrent: InfoHashV1,
    until: u64,
    answer: impl Fn(&Job) -> (Duration, Outcome),
) {
    for quarter in 0..until * 4 {
        world.run(Duration::from_millis(250 * quarter), &answer);
        world.scheduler.reannounce(world.now, torrent);
    }
}

/// Trackers that want to be asked once in 300 s at most; those at `bad` fail.
fn slow_down(bad: &'static str) -> impl Fn(&Job) -> (Duration, Outcome) {
    move |job| {
        let takes = Duration::from_millis(100);
        if job.target.host.starts_with(bad) {
            return (takes, failed());
        }
        let reply = TrackerReply {
            interval: seconds(1800),
            interval_min: Some(seconds(300)),
            ..TrackerReply::default()
        };
        (takes, Outcome::Reply(reply))
    }
}

#[test]
fn impatience_wears_out_no_tracker_that_answers() {
    for tiers in [&[&[A][..], &[B]][..], &[&[A, A, B]], &[&[A], &[B], &[C]]] {
        let mut world = World::new();
        let torrent = world.add_with(1, tiers, 1000, false);
        impatient(&mut world, torrent, 700, slow_down("nobody"));
        assert_eq!(world.times(), [0, 300, 600], "{tiers:?}");
        let hosts = world.hosts();
        assert!(hosts.iter().all(|host| *host == hosts[0]), "{hosts:?}");
        assert!(world.scheduler.timers.len() < 10);
    }
}
