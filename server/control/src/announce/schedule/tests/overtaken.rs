//! Trackers that are silent or slow, and those behind them.

use super::*;

/// A tracker that never answers, one that takes 20 s, one that works.
fn dead_slow_working(job: &Job) -> (Duration, Outcome) {
    match &job.target.host[..2] {
        "a." => (seconds(30), failed()),
        "b." => (seconds(20), reply(1800)),
        _ => (Duration::from_millis(50), reply(1800)),
    }
}

#[test]
fn a_dead_first_tier_and_a_slow_second_delay_peers_by_seconds() {
    let mut world = World::new();
    let torrent = world.add_with(1, &[&[A], &[B], &[C]], 1, false);
    world.run(seconds(4), dead_slow_working);
    assert_eq!(
        world.hosts(),
        ["a.example:80", "b.example:80", "c.example:80"]
    );
    let status = world.scheduler.status(world.now, torrent).unwrap();
    let states: Vec<TrackerState> = status.trackers.iter().map(|t| t.state).collect();
    use TrackerState::{Announcing, Failing, Working};
    assert_eq!(states, [Announcing, Announcing, Working]);
    // The slow one answers and the dead one fails, and neither is a reason to ask anybody again.
    world.run(seconds(1799), dead_slow_working);
    let status = world.scheduler.status(world.now, torrent).unwrap();
    let states: Vec<TrackerState> = status.trackers.iter().map(|t| t.state).collect();
    assert_eq!(states, [Failing, Working, Working]);
    assert_eq!(world.seen.len(), 3);
    // The first has recovered: it is asked when it is time again, and stays the one that is.
    world.run(seconds(6000), |_| (Duration::from_millis(50), reply(1800)));
    assert!(world.seen.len() >= 5);
    assert!(
        world.hosts()[3..]
            .iter()
            .all(|host| *host == "a.example:80")
    );
    // All three have been told of us, and all are told that we go.
    world.seen.clear();
    world.scheduler.remove(world.now, torrent);
    world.run(seconds(6001), |_| (seconds(1), reply(1800)));
    assert_eq!(world.seen.len(), 3);
    let first = world.seen[0].at;
    assert!(world.seen.iter().all(|seen| seen.at == first));
}

#[test]
fn a_seed_waits_longer_and_a_private_torrent_asks_one_tracker_at_a_time() {
    for (left, private, due) in [(1, false, 1.5), (0, false, 5.0), (1, true, 30.0)] {
        let mut world = World::new();
        world.add_with(1, &[&[A], &[B]], left, private);
        world.run(seconds(40), |job| match &job.target.host[..2] {
            "a." => (seconds(30), failed()),
            _ => (Duration::ZERO, reply(1800)),
        });
        let second = world.seen[1].at.since(Time(0)).as_secs_f64();
        assert_eq!((world.seen.len(), second), (2, due));
    }
}

/// As a magnet link's, whose metadata come after the first announce.
#[test]
fn a_torrent_that_turns_out_to_be_private_asks_one_tracker_at_a_time_from_then_on() {
    let mut world = World::new();
    let torrent = world.add_with(1, &[&[A], &[B]], 1, false);
    let add = |world: &mut World, private| {
        let totals = Arc::new(TorrentTotals::default());
        let added = world
            .scheduler
            .add(world.now, torrent, &[], private, totals);
        assert!(!added, "it is there");
    };
    add(&mut world, true);
    // Once it is known, it is not forgotten.
    add(&mut world, false);
    world.run(seconds(40), |job| {
        assert!(job.private);
        match &job.target.host[..2] {
            "a." => (seconds(30), failed()),
            _ => (Duration::ZERO, reply(1800)),
        }
    });
    let second = world.seen[1].at.since(Time(0));
    assert_eq!((world.seen.len(), second), (2, seconds(30)));
}

#[test]
fn a_late_answer_spares_the_trackers_behind() {
    let mut world = World::new();
    world.add_with(1, &[&[A], &[B]], 1, false);
    // B's bucket is empty, so the torrent waits there; then A answers.
    world
        .scheduler
        .hosts
        .entry("b.example:80".into())
        .or_default()
        .next_even = at(seconds(60));
    world.run(seconds(1000), |_| (seconds(3), reply(1800)));
    assert_eq!(world.hosts(), ["a.example:80"]);
}

#[test]
fn a_late_failure_asks_nobody_who_was_not_due() {
    let mut world = World::new();
    let torrent = world.add_with(1, &[&[A], &[B], &[C]], 1, false);
    world.run(seconds(1000), |job| match &job.target.host[..2] {
        "a." => (seconds(30), refused(None)),
        "b." => (seconds(2), reply(1800)),
        _ => (seconds(25), failed()),
    });
    assert_eq!(world.seen.len(), 3, "{:?}", world.seen);
    // A is asked again when there is something to say; it has not been told of us yet.
    world.scheduler.completed(world.now, torrent);
    world.run(seconds(1100), |_| (Duration::ZERO, reply(1800)));
    use AnnounceEvent::{Completed, Started};
    assert_eq!(world.events()[3..], [Started, Completed]);
    assert!(
        world.hosts()[3..]
            .iter()
            .all(|host| *host == "a.example:80")
    );
}

#[test]
fn those_who_wait_for_a_silent_host_go_on_within_seconds() {
    let mut world = World::new();
    for number in 0..100 {
        world.add(number, &[&[A], &[B]]);
    }
    world.run(seconds(12), |job| match &job.target.host[..2] {
        "a." => (seconds(30), failed()),
        _ => (Duration::from_millis(10), reply(1800)),
    });
    let of_b: Vec<&Seen> = world
        .seen
        .iter()
        .filter(|s| s.host.starts_with("b."))
        .collect();
    assert_eq!(of_b.len(), 100);
    assert_eq!(world.seen.len() - of_b.len(), UNPROVEN_IN_FLIGHT_MAX);
}

#[test]
fn a_host_that_answers_slowly_but_steadily_is_not_silent() {
    let mut world = World::new();
    for number in 0..200 {
        world.add(number, &[&[A], &[B]]);
    }
    // 8 at once, 3 s each; nobody waits for 5 s without that somebody is answered.
    world.run(seconds(60), |_| (seconds(3), reply(1800)));
    assert!(world.hosts().iter().all(|host| *host == "a.example:80"));
    assert!(world.seen.len() > 100);
}

#[test]
fn one_torrent_with_many_dead_trackers_does_not_take_all_places() {
    let mut world = World::new();
    let urls: Vec<String> = (0..40)
        .map(|n| format!("http://dead{n}.example/announce"))
        .collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    world.add_with(1, &[&urls], 1, false);
    world.add(2, &[&[A]]);
    world.run(seconds(25), |job| {
        match job.target.host.starts_with("dead") {
            true => (seconds(30), failed()),
            false => (Duration::ZERO, reply(1800)),
        }
    });
    assert_eq!(world.seen.len(), TRACKERS_AT_ONCE_MAX + 1);
}

/// Who stops is not held up by a tracker that has not answered yet and will not, most likely; for one
/// that answers the rest is still said.
#[test]
fn the_end_does_not_wait_for_a_tracker_that_is_silent() {
    for (left, takes, ends) in [(1, 30_000, 1_500), (0, 30_000, 1_500), (0, 800, 850)] {
        let mut world = World::new();
        world.add_with(1, &[&[A]], left, false);
        let answer = |job: &Job| match job.event {
            AnnounceEvent::Started => (Duration::from_millis(takes), reply(1800)),
            _ => (Duration::from_millis(50), reply(1800)),
        };
        world.run(Duration::from_millis(200), answer);
        world.scheduler.stop_all(world.now, LIMITS);
        world.run(Duration::from_millis(ends - 1), answer);
        assert!(!world.scheduler.is_empty(), "{takes}");
        assert_eq!(world.scheduler.waited_for(5), ["http://a.example/…"]);
        world.run(Duration::from_millis(ends), answer);
        assert!(world.scheduler.is_empty(), "{takes}");
        assert!(world.scheduler.waited_for(5).is_empty());
        let stops = world
            .seen
            .iter()
            .filter(|one| one.event == AnnounceEvent::Stopped);
        assert_eq!(stops.count(), usize::from(takes < 1_500));
    }
}

/// A farewell is waited for, unlike a first announce: whoever hears it has answered before, and it
/// tells a private tracker the last bytes.
#[test]
fn the_end_waits_for_a_farewell_that_takes_long() {
    let mut world = World::new();
    world.add_with(1, &[&[A], &[B]], 1, false);
    // A has been asked for the first time, and is silent; B knows us.
    let answer = |job: &Job| match (job.event, &job.target.host[..2]) {
        (AnnounceEvent::Started, "a.") => (seconds(30), failed()),
        (AnnounceEvent::Started, _) => (Duration::from_millis(50), reply(1800)),
        _ => (seconds(3), reply(1800)),
    };
    world.run(seconds(2), answer);
    assert_eq!(world.hosts(), ["a.example:80", "b.example:80"]);
    world.scheduler.stop_all(world.now, LIMITS);
    world.run(Duration::from_millis(4_999), answer);
    assert!(!world.scheduler.is_empty());
    let waited_for = world.scheduler.waited_for(5);
    assert!(waited_for.contains(&"http://b.example/…".to_owned()));
    world.run(seconds(5), answer);
    assert!(world.scheduler.is_empty());
    assert!(world.scheduler.waited_for(5).is_empty());
    use AnnounceEvent::{Started, Stopped};
    assert_eq!(world.events(), [Started, Started, Stopped]);
}

#[test]
fn how_long_an_answer_is_waited_for_is_seen() {
    let mut world = World::new();
    let torrent = world.add_with(1, &[&[A]], 1, false);
    let answer = |_: &Job| (seconds(20), failed());
    world.run(seconds(7), answer);
    let status = world.scheduler.status(world.now, torrent).unwrap();
    assert_eq!(status.trackers[0].asking_for, Some(seconds(7)));
    assert_eq!(world.scheduler.failing(), 0);
    world.run(seconds(21), answer);
    let status = world.scheduler.status(world.now, torrent).unwrap();
    assert_eq!(status.trackers[0].asking_for, None);
    assert_eq!(world.scheduler.failing(), 1);
}

/// What differs in their URLs is not shown, since it may be a passkey.
#[test]
fn trackers_that_look_alike_are_numbered() {
    let mut world = World::new();
    let tiers: [&[&str]; 3] = [
        &["http://a.example/secret01/announce", B],
        &["http://a.example/secret02/announce"],
        &["udp://a.example:80/"],
    ];
    let torrent = world.add_with(1, &tiers, 1, false);
    let status = world.scheduler.status(world.now, torrent).unwrap();
    let mut shown: Vec<&str> = status.trackers.iter().map(|one| &*one.tracker).collect();
    shown.sort_unstable();
    let expected = [
        "http://a.example/… (1 of 2 there)",
        "http://a.example/… (2 of 2 there)",
        "http://b.example/…",
        "udp://a.example:80/…",
    ];
    assert_eq!(shown, expected);
}
