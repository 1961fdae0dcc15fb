//! Trackers and hosts that fail: tiers, back-off, and who is spared.

use super::*;

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
