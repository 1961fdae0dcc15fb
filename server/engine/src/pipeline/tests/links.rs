//! Links from 1 Mbit/s to 100 Gbit/s and from 0.1 to 500 ms, steady, jittery, in bursts, read late.

use super::link::{Link, MILLISECOND, Run, SECOND, Simulation};
use super::*;

/// Bytes per second of so many Mbit/s.
const fn mbit(rate: u64) -> u64 {
    rate * 125_000
}

const RATES: [u64; 7] = [1, 10, 100, 500, 1_000, 10_000, 100_000];
const ROUND_TRIPS: [u64; 6] = [
    100_000,
    MILLISECOND,
    10 * MILLISECOND,
    50 * MILLISECOND,
    200 * MILLISECOND,
    500 * MILLISECOND,
];

/// What the link gives with as many requests as the peer takes, at best.
fn possible(link: &Link) -> u64 {
    let window = u128::from(link.queue.min(8_192)) * u128::from(BLOCK);
    let delay = link.round_trip
        + link.jitter
        + link.read_interval
        + link.burst_period * 3 / 4
        + link.turn_period;
    let by_window = window * u128::from(SECOND) / u128::from(delay.max(1));
    u64::try_from(by_window).unwrap_or(u64::MAX).min(link.rate)
}

/// Lets the window grow, then measures.
fn measure(link: Link) -> Run {
    let mut simulation = Simulation::new(link, PipelineConfig::default(), 7);
    // It doubles once a turn.
    let turns = 12 * link.turn_period;
    simulation.run(20_000, 6 * SECOND + turns);
    simulation.run(6_000 + 6 * turns / MILLISECOND, 20 * SECOND)
}

/// That every link of the table, changed by `change`, is filled to nine tenths, and nothing times
/// out.
fn check_table(change: impl Fn(&mut Link)) {
    let mut failures = Vec::new();
    let mut worst = (u64::MAX, 0, 0);
    for rate in RATES {
        for round_trip in ROUND_TRIPS {
            let mut link = Link {
                rate: mbit(rate),
                round_trip,
                ..Link::default()
            };
            change(&mut link);
            let run = measure(link);
            let possible = possible(&link);
            assert!(run.outstanding_max <= link.queue, "{link:?}: {run:?}");
            let percent = run.rate() * 100 / possible;
            worst = worst.min((percent, rate, round_trip / 1_000));
            if percent < 90 || run.counters.timed_out > 0 {
                failures.push(format!("{percent} % of {rate} Mbit/s: {link:?}: {run:?}"));
            }
        }
    }
    let (percent, rate, round_trip) = worst;
    println!("the worst: {percent} % of what is possible at {rate} Mbit/s, {round_trip} us");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn steady_links_are_filled() {
    check_table(|_| {});
}

#[test]
fn jittery_links_are_filled() {
    check_table(|link| link.jitter = link.round_trip / 2);
}

#[test]
fn short_links_with_much_jitter_are_filled() {
    check_table(|link| link.jitter = 20 * MILLISECOND);
}

#[test]
fn links_that_serve_in_bursts_are_filled() {
    check_table(|link| link.burst_period = 40 * MILLISECOND);
}

/// Transmission serves twice a second all that it has queued.
#[test]
fn peers_that_serve_in_turns_are_filled() {
    check_table(|link| link.turn_period = 500 * MILLISECOND);
}

#[test]
fn links_whose_socket_is_read_late_are_filled() {
    check_table(|link| link.read_interval = 2 * MILLISECOND);
}

/// As BEP 10 has it, a peer that says nothing queues 250: the window stays there, though the link
/// is longer.
#[test]
fn a_peer_that_tells_no_queue_gets_250_requests() {
    let link = Link {
        queue: 250,
        queue_told: false,
        ..Link::default()
    };
    let run = measure(link);
    assert_eq!(run.outstanding_max, PEER_QUEUE_DEFAULT);
    assert_eq!((run.dropped, run.counters.timed_out), (0, 0));
    assert!(run.rate() * 10 > possible(&link) * 9, "{run:?}");
}

/// The row of the plan: one connection, 100 ms, 500 Mbit/s.
#[test]
fn a_long_fast_link_is_full_after_two_seconds() {
    let mut simulation = Simulation::new(Link::default(), PipelineConfig::default(), 1);
    let mut shares = Vec::new();
    for _ in 0..10 {
        let run = simulation.run(u64::MAX / BLOCK, 500 * MILLISECOND);
        shares.push(run.bytes * 200 / mbit(500));
    }
    println!("500 Mbit/s, 100 ms, percent filled in each half second: {shares:?}");
    assert!(shares[3..].iter().all(|&share| share >= 90), "{shares:?}");
}

/// A slow peer holds no block for much longer than three seconds, nor a fast one.
#[test]
fn nobody_holds_a_block_for_long() {
    for rate in [mbit(1) / 4, mbit(1), mbit(2), mbit(10), mbit(500)] {
        let link = Link {
            rate,
            round_trip: 50 * MILLISECOND,
            jitter: 20 * MILLISECOND,
            ..Link::default()
        };
        let run = measure(link);
        let held_ms = run.held_max / MILLISECOND;
        println!(
            "{} kB/s: a block is held for {held_ms} ms at most",
            rate / 1_000
        );
        assert!(run.held_max < 4 * SECOND, "{run:?}");
    }
}

/// A path that becomes longer is filled again: the base is measured anew.
#[test]
fn a_link_that_becomes_longer_is_filled_again() {
    let link = Link {
        rate: mbit(1_000),
        round_trip: MILLISECOND,
        ..Link::default()
    };
    let mut simulation = Simulation::new(link, PipelineConfig::default(), 3);
    let short = simulation.run(u64::MAX / BLOCK, 5 * SECOND);
    assert!(short.rate() * 10 > link.rate * 9, "{short:?}");
    simulation.link().round_trip = 100 * MILLISECOND;
    simulation.run(u64::MAX / BLOCK, 20 * SECOND);
    let long = simulation.run(u64::MAX / BLOCK, 3 * SECOND);
    assert!(long.rate() * 10 > link.rate * 9, "{long:?}");
    assert_eq!(long.counters.timed_out, 0);
}

/// A full window hides the round trip; were it not measured apart, the window would grow to its
/// limit.
#[test]
fn the_window_stays_at_a_few_round_trips_for_minutes() {
    let link = Link {
        round_trip: 50 * MILLISECOND,
        ..Link::default()
    };
    let mut simulation = Simulation::new(link, PipelineConfig::default(), 3);
    simulation.run(u64::MAX / BLOCK, 2 * SECOND);
    let run = simulation.run(u64::MAX / BLOCK, 20 * SECOND);
    let on_the_way = link.rate * link.round_trip / SECOND / BLOCK;
    println!(
        "{on_the_way} requests fill the link, {} were outstanding at most",
        run.outstanding_max
    );
    assert!(u64::from(run.outstanding_max) < 4 * on_the_way, "{run:?}");
    assert!(run.rate() * 100 > link.rate * 97, "{run:?}");
}

/// A rate that falls to a hundredth leaves requests for minutes outstanding: they time out in time
/// or come, and then the window fits the new rate.
#[test]
fn a_link_that_becomes_slow_holds_little_in_the_end() {
    let mut simulation = Simulation::new(
        Link {
            queue: 400,
            ..Link::default()
        },
        PipelineConfig::default(),
        3,
    );
    simulation.run(u64::MAX / BLOCK, 16 * SECOND);
    simulation.link().rate /= 100;
    let change = simulation.run(u64::MAX / BLOCK, 30 * SECOND);
    assert_eq!(
        change.counters.timed_out, 0,
        "blocks come: it is slow, not gone"
    );
    let after = simulation.run(u64::MAX / BLOCK, 20 * SECOND);
    assert!(after.rate() * 10 > mbit(5) * 9, "{after:?}");
    assert!(after.held_max < 4 * SECOND, "{after:?}");
}

/// A peer that drops what it cannot queue, and promised more than it takes: the window finds its
/// limit.
#[test]
fn a_peer_that_drops_requests_is_found_out() {
    let link = Link {
        queue: 100,
        queue_told: false,
        round_trip: 200 * MILLISECOND,
        ..Link::default()
    };
    let mut simulation = Simulation::new(link, PipelineConfig::default(), 3);
    let first = simulation.run(u64::MAX / BLOCK, 60 * SECOND);
    let later = simulation.run(u64::MAX / BLOCK, 60 * SECOND);
    assert!(first.dropped > 0, "{first:?}");
    assert!(
        later.dropped * 50 < later.bytes / BLOCK,
        "one in fifty: {later:?}"
    );
    assert!(later.rate() * 10 > possible(&link) * 7, "{later:?}");
}
