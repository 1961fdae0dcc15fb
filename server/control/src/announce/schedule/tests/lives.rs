//! What is said in a torrent's life: its events, in their order, and its end.

use super::*;

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
