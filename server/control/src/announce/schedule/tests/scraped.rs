//! Twenty thousand torrents at once, and scrapes beside announces.

use super::*;

/// As [`LIMITS`], at 10 announces a second as the configuration has it.
const STORM: Limits = Limits {
    per_second_per_host: 10,
    scrape_interval: Some(Duration::from_secs(1800)),
    ..LIMITS
};

#[test]
fn a_storm_of_20_000_torrents_leaves_evenly_in_the_planned_time() {
    let mut world = World::with(STORM);
    for number in 0..20_000 {
        world.add(number, &[&["udp://a.example:6969/announce"]]);
    }
    world.run(seconds(2001), |_| (Duration::from_millis(100), reply(3600)));
    assert_eq!(world.seen.len(), 20_000, "all in 20,000 / 10 s");
    let mut per_second = vec![0; 2002];
    for second in world.times() {
        per_second[second as usize] += 1;
    }
    assert!(per_second[0] <= 10 + HOST_BURST as usize);
    assert!(per_second[1..].iter().all(|count| *count <= 11));
    assert!(per_second[1..1999].iter().all(|count| *count >= 9));
    assert_eq!(world.scheduler.gauges(world.now).overdue, 0);
    assert!(world.scrapes.is_empty(), "announces go before scrapes");
    // In quiet times each is scraped once in half an hour, and their requests stay below the cap
    // too.
    world.seen.clear();
    world.run(seconds(2001 + 2000), |_| {
        (Duration::from_millis(100), reply(3600))
    });
    let scraped: std::collections::HashSet<InfoHashV1> = world
        .scrapes
        .iter()
        .flat_map(|(_, all)| all)
        .copied()
        .collect();
    assert_eq!(scraped.len(), 20_000);
    let batches = world.scrapes.len();
    assert!((271..=320).contains(&batches), "{batches}");
    let most = world.scrapes.iter().map(|(_, all)| all.len()).max();
    assert_eq!(most, Some(74));
    let gaps = world.scrapes.windows(2).map(|two| two[1].0.since(two[0].0));
    assert!(gaps.max().unwrap() < seconds(60));
}

#[test]
fn a_scrape_tells_the_counts_and_forgets_who_left() {
    let mut world = World::with(STORM);
    let url: &[&str] = &["udp://a.example:6969"];
    for number in 0..100 {
        world.add(number, &[url]);
    }
    let answer = |_: &Job| (Duration::from_millis(10), reply(86_400));
    world.run(seconds(20), answer);
    for number in 0..90 {
        world.scheduler.remove(world.now, info_hash(number));
    }
    world.run(seconds(100), answer);
    let sizes: Vec<usize> = world.scrapes.iter().map(|(_, all)| all.len()).collect();
    assert_eq!(sizes, [10]);
    let status = world.scheduler.status(world.now, info_hash(95)).unwrap();
    let tracker = &status.trackers[0];
    let counts = (tracker.seeders, tracker.leechers, tracker.downloaded);
    assert_eq!(counts, (Some(3), Some(4), Some(5)));
    // Each half hour, until nobody is left.
    world.run(seconds(100 + 10 * 1980), answer);
    assert!(
        (10..=12).contains(&world.scrapes.len()),
        "{}",
        world.scrapes.len()
    );
    for number in 90..100 {
        world.scheduler.remove(world.now, info_hash(number));
    }
    world.scrapes.clear();
    world.run(seconds(30_000), answer);
    assert!(world.scrapes.is_empty());
    assert_eq!(world.scheduler.scrapes.next_wake(), Time::NEVER);
}

#[test]
fn scrapes_wait_while_all_places_are_taken_and_end_with_the_rest() {
    let limits = Limits {
        in_flight_max: 1,
        ..STORM
    };
    let mut world = World::with(limits);
    world.add(1, &[&[A]]);
    world.run(seconds(20), |_| (Duration::ZERO, reply(1800)));
    // One announce takes the only place for longer than the first scrape waits.
    world.add(2, &[&[B]]);
    world.run(seconds(119), |_| (seconds(100), reply(1800)));
    assert!(world.scrapes.is_empty());
    assert!(world.scheduler.next_wake() > world.now);
    world.run(seconds(140), |_| (Duration::ZERO, reply(1800)));
    assert_eq!(world.scrapes.len(), 1);
    // The scrapes of a scheduler that stops wake nobody.
    world.scheduler.stop_all(world.now, limits);
    world.run(seconds(200), |_| (Duration::ZERO, reply(1800)));
    assert!(world.scheduler.is_empty());
    assert_eq!(world.scheduler.scrapes.next_wake(), Time::NEVER);
}

#[test]
fn a_tracker_that_refuses_scrapes_is_asked_ever_less() {
    let mut world = World::with(STORM);
    world.scrape_answer = |_| ScrapeOutcome::Refused("no".to_owned());
    world.add(1, &[&[A]]);
    world.add(2, &[&["http://x.example/tracker"]]); // has no scrape
    world.run(seconds(7 * 86_400), |_| (Duration::ZERO, reply(86_400)));
    let times: Vec<u64> = world
        .scrapes
        .iter()
        .map(|(at, _)| at.since(Time(0)).as_secs())
        .collect();
    // An hour, 2, 4, 8, 16 h, then each day.
    assert!((8..=12).contains(&times.len()), "{times:?}");
    assert!(world.scrapes.iter().all(|(_, all)| all == &[info_hash(1)]));
    assert!(times[0] < 60 && times[1] - times[0] >= 3600, "{times:?}");
}
