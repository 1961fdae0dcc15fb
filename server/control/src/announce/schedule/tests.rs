//! The scheduler in virtual time: a world of trackers that answer as each test says.

use proto::tracker::ScrapeFile;

use super::*;
use crate::announce::{RetryIn, ScrapeOutcome, TorrentTotals, TrackerReply, TrackerState};

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
fn whoever_completes_and_leaves_at_once_says_both_in_their_order() {
    use AnnounceEvent::{Completed, Started, Stopped};
    for completed_reaches_it in [true, false] {
        let mut world = World::new();
        let torrent = world.add(1, &[&[A]]);
        world.run(seconds(10), |_| (Duration::ZERO, reply(1800)));
        world.scheduler.completed(world.now, torrent);
        world.scheduler.remove(world.now, torrent);
        world.run(seconds(100), |job| match job.event {
            Completed if !completed_reaches_it => (Duration::ZERO, failed()),
            _ => (Duration::ZERO, reply(1800)),
        });
        assert_eq!(world.events(), [Started, Completed, Stopped]);
        assert!(world.scheduler.is_empty());
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
fn the_events_of_a_life() {
    let mut world = World::new();
    let torrent = world.add(1, &[&[A]]);
    let answer = |_: &Job| (Duration::ZERO, reply(1800));
    world.run(seconds(10), answer);
    world.scheduler.completed(world.now, torrent);
    world.run(seconds(2500), answer);
    world.scheduler.remove(world.now, torrent);
    world.run(seconds(2600), answer);
    use AnnounceEvent::{Completed, None, Started, Stopped};
    assert_eq!(world.events(), [Started, Completed, None, Stopped]);
    assert!(world.scheduler.is_empty());
    assert!(world.scheduler.status(world.now, torrent).is_none());
}

#[test]
fn what_happens_during_an_announce_is_said_after_it() {
    let mut world = World::new();
    let torrent = world.add(1, &[&[A]]);
    let answer = |_: &Job| (seconds(5), reply(1800));
    world.run(seconds(1), answer);
    world.scheduler.completed(world.now, torrent);
    world.run(seconds(6), answer);
    world.scheduler.remove(world.now, torrent);
    world.run(seconds(60), answer);
    use AnnounceEvent::{Completed, Started, Stopped};
    assert_eq!(world.events(), [Started, Completed, Stopped]);
    assert_eq!(world.times(), [0, 5, 10]);
}

#[test]
fn a_torrent_that_no_tracker_knows_leaves_without_a_word() {
    let mut world = World::new();
    let torrent = world.add(1, &[&[A]]);
    world.run(seconds(1), |_| (Duration::ZERO, refused(None)));
    assert_eq!(world.scheduler.gauges(world.now).failing, 1);
    world.scheduler.remove(world.now, torrent);
    world.run(seconds(2), |_| (Duration::ZERO, reply(60)));
    assert_eq!(world.seen.len(), 1);
    assert!(world.scheduler.is_empty());
    assert_eq!(world.scheduler.gauges(world.now).failing, 0);
}

#[test]
fn a_torrent_that_comes_back_while_it_leaves_starts_after_its_stopped() {
    let mut world = World::new();
    let torrent = world.add(1, &[&[A]]);
    let answer = |_: &Job| (seconds(1), reply(1800));
    world.run(seconds(10), answer);
    world.scheduler.remove(world.now, torrent);
    assert!(world.scheduler.poll(world.now).is_some_and(|job| {
        world.under_way.push((at(seconds(12)), job, reply(1800)));
        true
    }));
    world.add(1, &[&[A]]);
    world.run(seconds(100), answer);
    assert_eq!(
        world.events(),
        [AnnounceEvent::Started, AnnounceEvent::Started]
    );
    assert_eq!(world.times(), [0, 15]);
}

#[test]
fn the_next_tier_is_asked_only_when_the_whole_tier_fails() {
    let mut world = World::new();
    world.add(1, &[&[A, B], &[C]]);
    world.run(seconds(1), |job| {
        let good = job.target.host.starts_with("c.");
        (
            Duration::ZERO,
            if good { reply(1800) } else { refused(None) },
        )
    });
    let mut first_tier = world.hosts()[..2].to_vec();
    first_tier.sort_unstable();
    assert_eq!(first_tier, ["a.example:80", "b.example:80"]);
    assert_eq!(world.hosts()[2..], ["c.example:80"]);
    assert!(
        world
            .events()
            .iter()
            .all(|event| *event == AnnounceEvent::Started)
    );
}

#[test]
fn a_tracker_that_works_moves_to_the_front_of_its_tier() {
    let mut world = World::new();
    let torrent = world.add(1, &[&[A, B]]);
    // Whichever is asked first refuses, once.
    let mut asked = 0;
    world.run(seconds(4000), |_| {
        asked += 1;
        (
            Duration::ZERO,
            if asked == 1 {
                refused(None)
            } else {
                reply(1800)
            },
        )
    });
    let hosts = world.hosts();
    assert_ne!(hosts[0], hosts[1]);
    assert!(hosts[2..].iter().all(|host| *host == hosts[1]) && hosts.len() == 4);
    let status = world.scheduler.status(world.now, torrent).unwrap();
    assert_eq!(status.trackers[0].state, TrackerState::Working);
    assert_eq!(status.trackers[1].state, TrackerState::Failing);
}

#[test]
fn both_tiers_are_told_stopped_if_both_know_us() {
    let mut world = World::new();
    let torrent = world.add(1, &[&[A], &[B]]);
    // A fails in the second round only.
    let mut asked_a = 0;
    world.run(seconds(2000), |job| {
        let a = job.target.host.starts_with("a.");
        asked_a += usize::from(a);
        (
            Duration::ZERO,
            if a && asked_a == 2 {
                failed()
            } else {
                reply(1800)
            },
        )
    });
    assert_eq!(
        world.hosts(),
        ["a.example:80", "a.example:80", "b.example:80"]
    );
    world.scheduler.remove(world.now, torrent);
    world.run(seconds(2100), |_| (Duration::ZERO, reply(1800)));
    let stopped: Vec<&Seen> = world
        .seen
        .iter()
        .filter(|seen| seen.event == AnnounceEvent::Stopped)
        .collect();
    assert_eq!(stopped.len(), 2);
    assert!(world.scheduler.is_empty());
}

#[test]
fn failures_back_off_from_15_s_doubling_to_30_min() {
    let mut random = fastrand::Rng::with_seed(1);
    for (failures, least) in [(1, 15), (2, 30), (3, 60), (8, 1800), (u32::MAX, 1800)] {
        for _ in 0..100 {
            let wait = backoff(failures, BACKOFF_MIN, &mut random);
            assert!(
                (seconds(least)..=seconds(least) * 5 / 4).contains(&wait),
                "{failures}"
            );
        }
    }
    let mut world = World::new();
    world.add(1, &[&[A]]);
    world.run(seconds(4 * 3600), |_| (Duration::ZERO, failed()));
    let times = world.times();
    assert!((15..=22).contains(&times[1]), "{times:?}");
    assert!((12..=18).contains(&times.len()), "{times:?}");
}

#[test]
fn the_trackers_own_retry_is_kept() {
    let run = |retry| {
        let mut world = World::new();
        let torrent = world.add(1, &[&[A]]);
        world.run(seconds(7200), |_| (Duration::ZERO, refused(Some(retry))));
        (
            world.times(),
            world.scheduler.status(world.now, torrent).unwrap(),
        )
    };
    let (times, status) = run(RetryIn::Never);
    assert_eq!(times, [0]);
    assert_eq!(status.trackers[0].state, TrackerState::Disabled);
    assert_eq!(status.trackers[0].until_next, None);
    let (times, status) = run(RetryIn::After(seconds(3600)));
    assert!(
        times.len() == 2 && (3600..=4200).contains(&times[1]),
        "{times:?}"
    );
    assert_eq!(status.trackers[0].message.as_deref(), Some("no"));
}

#[test]
fn a_dead_host_costs_little_and_delays_nobody() {
    let mut world = World::new();
    for number in 0..5000 {
        world.add(number, &[&[A], &[B]]);
    }
    // A takes 10 s to fail each time.
    world.run(seconds(400), |job| {
        let dead = job.target.host.starts_with("a.");
        let fail = (seconds(10), failed());
        if dead {
            fail
        } else {
            (Duration::from_millis(10), reply(1800))
        }
    });
    let (to_a, to_b): (Vec<&Seen>, Vec<&Seen>) = world
        .seen
        .iter()
        .partition(|seen| seen.host.starts_with("a."));
    assert_eq!(to_b.len(), 5000);
    assert!(to_a.len() < 30, "{}", to_a.len());
    assert_eq!(
        world.scheduler.gauges(world.now).failing,
        world.count_failing()
    );
    // It is tried now and then, and used again when it answers.
    world.seen.clear();
    world.run(seconds(3 * 1800), |_| {
        (Duration::from_millis(10), reply(1800))
    });
    assert!(
        world.hosts()[4000..]
            .iter()
            .filter(|host| host.starts_with("a."))
            .count()
            > 3000
    );
}

#[test]
fn a_host_that_is_down_is_shown_as_such() {
    let mut world = World::new();
    for number in 0..4 {
        world.add(number, &[&[A]]);
    }
    world.run(seconds(1), |_| (Duration::from_millis(1), failed()));
    // The fourth was queued when the host went down, or failed itself.
    let status = world.scheduler.status(world.now, info_hash(3)).unwrap();
    assert_eq!(status.trackers[0].state, TrackerState::Failing);
    assert_eq!(
        status.trackers[0].message.as_deref(),
        Some("connection refused")
    );
    assert!(
        status.trackers[0]
            .until_next
            .is_some_and(|wait| wait > seconds(10))
    );
}

/// Those that a reload brings hold from then on, but not over those of the end.
#[test]
fn limits_may_change_until_the_end() {
    let mut world = World::new();
    for number in 0..1000 {
        world.add(number, &[&[A]]);
    }
    let answer = |_: &Job| (Duration::from_millis(1), reply(1800));
    world.run(seconds(10), answer);
    let slow = world.seen.len();
    assert!(slow <= 230, "{slow}");
    world.scheduler.set_limits(Limits {
        per_second_per_host: 200,
        scrape_interval: None,
        ..LIMITS
    });
    world.run(seconds(20), answer);
    assert_eq!(world.seen.len(), 1000);
    assert_eq!(
        world.scheduler.limits.scrape_interval,
        LIMITS.scrape_interval
    );
    world.scheduler.stop_all(world.now, LIMITS);
    let one = Limits {
        in_flight_max: 1,
        ..LIMITS
    };
    world.scheduler.set_limits(one);
    assert_eq!(world.scheduler.limits.in_flight_max, LIMITS.in_flight_max);
}

#[test]
fn all_are_told_stopped_at_the_end_without_spacing() {
    let mut world = World::new();
    for number in 0..1000 {
        world.add(number, &[&[A]]);
    }
    world.run(seconds(100), |_| (Duration::from_millis(1), reply(1800)));
    world.seen.clear();
    let limits = Limits {
        in_flight_max: 256,
        in_flight_per_host_max: 32,
        ..LIMITS
    };
    world.scheduler.stop_all(world.now, limits);
    world.run(seconds(102), |_| (Duration::from_millis(20), reply(1800)));
    assert_eq!(world.seen.len(), 1000);
    assert!(
        world
            .events()
            .iter()
            .all(|event| *event == AnnounceEvent::Stopped)
    );
    assert!(world.most_at_once <= 32);
    assert!(world.scheduler.is_empty());
    assert!(!world.scheduler.add(
        world.now,
        info_hash(1),
        &[],
        false,
        Arc::new(TorrentTotals::default())
    ));
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

#[test]
fn impatience_spares_the_tracker_that_works_beside_one_that_fails() {
    for (bad, good, tiers) in [
        ("b.", "a.", [[A], [B]]),
        ("a.", "b.", [[A], [B]]),
        ("a.", "b.", [[B], [A]]),
    ] {
        let mut world = World::new();
        let torrent = world.add_with(1, &[&tiers[0], &tiers[1]], 1000, false);
        impatient(&mut world, torrent, 700, slow_down(bad));
        let at = |host: &str| -> Vec<u64> {
            let seen = world.seen.iter().filter(|seen| seen.host.starts_with(host));
            seen.map(|seen| seen.at.since(Time(0)).as_secs()).collect()
        };
        let (good, bad) = (at(good), at(bad));
        let apart = good.windows(2).all(|two| two[1] - two[0] >= 300);
        assert!(apart && good.len() >= 2, "{tiers:?}: {good:?}");
        // 15 s, then twice as long each time.
        assert!(bad.len() <= 7, "{tiers:?}: {bad:?}");
    }
}

#[test]
fn what_an_event_says_does_not_wait_for_the_min_interval() {
    let mut world = World::new();
    let torrent = world.add_with(1, &[&[A], &[B]], 1000, false);
    impatient(&mut world, torrent, 10, slow_down("nobody"));
    world.scheduler.completed(world.now, torrent);
    impatient(&mut world, torrent, 100, slow_down("nobody"));
    use AnnounceEvent::{Completed, Started};
    assert_eq!(world.events(), [Started, Completed]);
    world.scheduler.remove(world.now, torrent);
    world.run(seconds(200), slow_down("nobody"));
    assert_eq!(world.events(), [Started, Completed, AnnounceEvent::Stopped]);
}

#[test]
fn unusable_trackers_are_passed_over() {
    let mut world = World::new();
    let torrent = world.add(1, &[&["wss://a.example:80", "nonsense"], &[A, A]]);
    world.run(seconds(1), |_| (Duration::ZERO, reply(1800)));
    assert_eq!(world.hosts(), ["a.example:80"]);
    let status = world.scheduler.status(world.now, torrent).unwrap();
    let states: Vec<TrackerState> = status.trackers.iter().map(|t| t.state).collect();
    use TrackerState::{Disabled, Working};
    assert_eq!(states, [Disabled, Disabled, Working]);
    let lonely = world.add(2, &[]);
    world.run(seconds(2), |_| (Duration::ZERO, reply(1800)));
    assert_eq!(
        world
            .scheduler
            .status(world.now, lonely)
            .unwrap()
            .trackers
            .len(),
        0
    );
}

#[test]
fn hosts_that_nobody_uses_are_forgotten() {
    let mut world = World::new();
    let torrent = world.add(1, &[&[A], &[B]]);
    world.run(seconds(60), |_| (Duration::ZERO, failed()));
    world.scheduler.remove(world.now, torrent);
    world.scheduler.tidy(world.now);
    assert!(!world.scheduler.hosts.is_empty());
    world.scheduler.tidy(at(seconds(2 * 3600)));
    assert!(world.scheduler.hosts.is_empty());
}

#[test]
fn random_lives_keep_the_invariants() {
    let mut world = World::new();
    let mut random = fastrand::Rng::with_seed(42);
    let mut clock = Duration::ZERO;
    for _ in 0..3000 {
        clock += Duration::from_millis(random.u64(0..20_000));
        let number = random.usize(0..40);
        match random.u32(0..6) {
            0 | 1 => {
                let totals = Arc::new(TorrentTotals::default());
                let tiers = [vec![A.to_owned(), B.to_owned()], vec![C.to_owned()]];
                world
                    .scheduler
                    .add(world.now, info_hash(number), &tiers, false, totals);
            }
            2 => drop(world.scheduler.remove(world.now, info_hash(number))),
            3 => drop(world.scheduler.completed(world.now, info_hash(number))),
            4 => drop(world.scheduler.reannounce(world.now, info_hash(number))),
            _ => world.scheduler.tidy(world.now),
        }
        let mut luck = fastrand::Rng::with_seed(random.u64(..));
        world.run(clock, |_| {
            let outcome = match luck.u32(0..5) {
                0 => failed(),
                1 => refused(None),
                _ => reply(luck.u64(0..4000)),
            };
            (Duration::from_millis(luck.u64(0..30_000)), outcome)
        });
        assert_eq!(
            world.scheduler.gauges(world.now).failing,
            world.count_failing()
        );
    }
    assert!(world.seen.len() > 1000);
    world.scheduler.stop_all(world.now, LIMITS);
    world.run(clock + seconds(600), |_| (seconds(1), reply(60)));
    assert!(world.scheduler.is_empty() && world.under_way.is_empty());
}
