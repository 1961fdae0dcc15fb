//! Each rule by example, the promises against random events, and whole links in virtual time.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proto::ids::PieceIndex;

use super::*;
use crate::random::Random;

mod link;
mod links;

const BLOCK: u64 = BLOCK_LENGTH as u64;

fn at_ms(ms: u64) -> Time {
    Time(ms * 1_000_000)
}

fn block(number: u32) -> BlockRequest {
    BlockRequest {
        piece: PieceIndex(number / 64),
        begin: number % 64 * BLOCK_LENGTH,
        length: BLOCK_LENGTH,
    }
}

/// A pipeline with its budget, and blocks that are never requested twice.
struct Fixture {
    pipeline: Pipeline,
    budget: RequestBudget,
    next: u32,
}

impl Fixture {
    fn new(fast: bool) -> Fixture {
        let mut fixture = Fixture {
            pipeline: Pipeline::new(PipelineConfig::default(), fast),
            budget: RequestBudget::new(u64::MAX),
            next: 0,
        };
        fixture.pipeline.unchoked(at_ms(0));
        fixture
    }

    fn room(&self, ms: u64) -> u32 {
        self.pipeline.room(&self.budget, at_ms(ms))
    }

    /// Requests all that there is room for.
    fn fill(&mut self, ms: u64) -> Vec<BlockRequest> {
        let blocks: Vec<_> = (0..self.room(ms))
            .map(|offset| block(self.next + offset))
            .collect();
        self.next += blocks.len() as u32;
        for &block in &blocks {
            assert!(self.pipeline.requested(block, &mut self.budget, at_ms(ms)));
        }
        self.pipeline.check_invariants();
        blocks
    }

    fn receive(&mut self, block: BlockRequest, ms: u64) -> Arrival {
        self.pipeline.received(&block, &mut self.budget, at_ms(ms))
    }

    fn reject(&mut self, block: BlockRequest, ms: u64) -> bool {
        self.pipeline.rejected(&block, &mut self.budget, at_ms(ms))
    }

    fn time_out(&mut self, ms: u64) -> Vec<BlockRequest> {
        let mut given_back = Vec::new();
        self.pipeline
            .handle_timeout(&mut self.budget, at_ms(ms), &mut given_back);
        self.pipeline.check_invariants();
        given_back
    }

    fn choke(&mut self) -> Vec<BlockRequest> {
        let mut given_back = Vec::new();
        self.pipeline.choked(&mut self.budget, &mut given_back);
        self.pipeline.check_invariants();
        given_back
    }
}

#[test]
fn a_choked_peer_is_asked_for_nothing_and_a_new_one_for_four() {
    let mut fixture = Fixture::new(true);
    assert_eq!(fixture.room(0), 4);
    assert_eq!(fixture.choke(), []);
    assert_eq!(fixture.room(0), 0);
    assert_eq!(
        fixture
            .pipeline
            .allowed_fast_room(&fixture.budget, at_ms(0)),
        4
    );
    let mut slow = Fixture::new(false);
    slow.choke();
    assert_eq!(slow.pipeline.allowed_fast_room(&slow.budget, at_ms(0)), 0);
}

#[test]
fn the_window_doubles_while_answers_come_after_one_round_trip() {
    let mut fixture = Fixture::new(true);
    fixture.pipeline.set_peer_queue(10_000);
    let mut windows = Vec::new();
    for round in 0..6 {
        let blocks = fixture.fill(round * 400);
        windows.push(fixture.pipeline.outstanding());
        blocks.into_iter().for_each(|block| {
            fixture.receive(block, (round + 1) * 400);
        });
    }
    // Four, then what 3 s of the first rate are; once that is more than 1 MiB the round trips
    // count.
    assert_eq!(windows[0], 4);
    assert!(
        windows.windows(2).all(|pair| pair[1] >= 2 * pair[0]),
        "{windows:?}"
    );
}

#[test]
fn a_slow_peer_holds_three_seconds_of_work() {
    let mut fixture = Fixture::new(true);
    // Ten blocks a second.
    let mut waiting: Vec<_> = fixture.fill(0);
    for tick in 1..200 {
        let first = waiting.remove(0);
        fixture.receive(first, tick * 100);
        waiting.extend(fixture.fill(tick * 100));
    }
    let held = waiting.len();
    assert!((28..=34).contains(&held), "{held}");
}

#[test]
fn a_very_slow_peer_holds_two_blocks() {
    let mut fixture = Fixture::new(true);
    let mut waiting: Vec<_> = fixture.fill(0);
    for tick in 1..20 {
        let first = waiting.remove(0);
        assert_eq!(fixture.receive(first, tick * 8_000), Arrival::Expected);
        assert_eq!(fixture.time_out(tick * 8_000), [], "slow, but it goes on");
        waiting.extend(fixture.fill(tick * 8_000));
    }
    assert_eq!(waiting.len(), 2);
}

#[test]
fn the_peers_queue_our_limit_and_the_budget_are_kept() {
    let mut fixture = Fixture::new(true);
    fixture.pipeline.set_peer_queue(3);
    assert_eq!(fixture.room(0), 3);
    fixture.pipeline.set_peer_queue(0);
    assert_eq!(
        fixture.room(0),
        1,
        "a peer that queues nothing can still answer"
    );
    fixture.pipeline.set_peer_queue(2_000);
    fixture.budget.set_bytes_max(2 * BLOCK + 1);
    assert_eq!(fixture.fill(0).len(), 2);
    assert_eq!((fixture.room(0), fixture.budget.used()), (0, 2 * BLOCK));
    // A peer with nothing outstanding gets one in any case.
    let other = Pipeline::new(PipelineConfig::default(), true);
    assert_eq!(other.room(&fixture.budget, at_ms(0)), 0, "choked");
    let mut other = other;
    other.unchoked(at_ms(0));
    assert_eq!(other.room(&fixture.budget, at_ms(0)), 1);
    let mut given_back = Vec::new();
    fixture.pipeline.close(&mut fixture.budget, &mut given_back);
    assert_eq!((given_back.len(), fixture.budget.used()), (2, 0));
    assert_eq!(
        PEER_QUEUE_DEFAULT,
        Pipeline::new(PipelineConfig::default(), true).requests_max()
    );
}

#[test]
fn a_block_counts_once_and_only_as_it_was_requested() {
    let mut fixture = Fixture::new(true);
    let blocks = fixture.fill(0);
    assert!(
        !fixture
            .pipeline
            .requested(blocks[0], &mut fixture.budget, at_ms(0))
    );
    let shorter = BlockRequest {
        length: 1,
        ..blocks[0]
    };
    assert_eq!(fixture.receive(shorter, 10), Arrival::Unrequested);
    assert_eq!(fixture.receive(blocks[0], 10), Arrival::Expected);
    assert_eq!(fixture.receive(blocks[0], 10), Arrival::Unrequested);
    assert!(fixture.pipeline.cancelled(&blocks[1], &mut fixture.budget));
    assert!(!fixture.pipeline.cancelled(&blocks[1], &mut fixture.budget));
    assert_eq!(fixture.receive(blocks[1], 20), Arrival::Late);
    assert_eq!(fixture.budget.used(), 2 * BLOCK);
    let counters = fixture.pipeline.counters();
    assert_eq!(
        (counters.blocks, counters.late, counters.unrequested),
        (1, 1, 2)
    );
}

#[test]
fn without_the_fast_extension_a_choke_voids_all() {
    let mut fixture = Fixture::new(false);
    let blocks = fixture.fill(0);
    assert_eq!(fixture.choke(), blocks);
    assert_eq!(
        (fixture.pipeline.outstanding(), fixture.budget.used()),
        (0, 0)
    );
    // A block that was already on its way is still good.
    assert_eq!(fixture.receive(blocks[0], 5), Arrival::Late);
    assert_eq!(fixture.pipeline.next_timeout(at_ms(5)), Time::NEVER);
    fixture.pipeline.unchoked(at_ms(10));
    assert_eq!(fixture.room(10), 4);
}

#[test]
fn with_the_fast_extension_requests_are_rejected_one_by_one() {
    let mut fixture = Fixture::new(true);
    let blocks = fixture.fill(0);
    assert_eq!(fixture.choke(), []);
    assert_eq!(fixture.pipeline.outstanding(), 4);
    assert_eq!(fixture.receive(blocks[0], 50), Arrival::Expected);
    assert!(blocks[1..].iter().all(|&block| fixture.reject(block, 60)));
    assert!(!fixture.reject(blocks[1], 60), "once only");
    assert_eq!(
        (fixture.pipeline.outstanding(), fixture.budget.used()),
        (0, 0)
    );
    fixture.pipeline.unchoked(at_ms(100));
    assert_eq!(
        fixture.pipeline.requests_max(),
        250,
        "rejects of a choke are no refusal"
    );
    // A peer that never answers them is not waited for.
    let mut silent = Fixture::new(true);
    silent.fill(0);
    silent.choke();
    assert_eq!(silent.pipeline.next_timeout(at_ms(0)), at_ms(15_000));
    assert_eq!(silent.time_out(15_000).len(), 4);
    assert!(!silent.pipeline.is_snubbed());
}

#[test]
fn a_peer_that_refuses_is_asked_for_fewer_and_later_for_more() {
    let mut fixture = Fixture::new(true);
    fixture.pipeline.set_peer_queue(2_000);
    let mut ms = 0;
    for _ in 0..4 {
        let blocks = fixture.fill(ms);
        ms += 10;
        for block in blocks {
            fixture.receive(block, ms);
        }
    }
    let blocks = fixture.fill(ms);
    assert!(blocks.len() > 100, "{}", blocks.len());
    for (place, &block) in (0..).zip(&blocks) {
        if place < 50 {
            fixture.receive(block, ms + 10);
        } else {
            assert!(fixture.reject(block, ms + 10));
        }
    }
    assert_eq!(fixture.pipeline.requests_max(), 50);
    ms += 2_000;
    for block in fixture.fill(ms) {
        fixture.receive(block, ms + 10);
    }
    assert_eq!(fixture.pipeline.requests_max(), 63);
    for _ in 0..40 {
        ms += 2_000;
        for block in fixture.fill(ms) {
            fixture.receive(block, ms + 10);
        }
    }
    assert_eq!(fixture.pipeline.requests_max(), 2_000);
}

#[test]
fn a_peer_that_refuses_everything_is_asked_once_a_second() {
    let mut fixture = Fixture::new(true);
    let mut requests = 0;
    for ms in 0..10_000 {
        for block in fixture.fill(ms) {
            requests += 1;
            fixture.reject(block, ms);
        }
    }
    assert!((40..60).contains(&requests), "{requests}");
    assert_eq!(fixture.room(9_999), 0);
    let next = fixture.pipeline.next_timeout(at_ms(9_999));
    assert_eq!(fixture.pipeline.room(&fixture.budget, next), 1);
}

#[test]
fn a_request_that_was_skipped_is_given_back_while_others_are_answered() {
    let mut fixture = Fixture::new(false);
    let skipped = fixture.fill(0)[0];
    let mut ms = 0;
    let mut given_back = Vec::new();
    let mut waiting: Vec<_> = (1..4).map(block).collect();
    while given_back.is_empty() {
        ms += 20;
        let first = waiting.remove(0);
        fixture.receive(first, ms);
        waiting.extend(fixture.fill(ms));
        given_back = fixture.time_out(ms);
        assert!(ms <= 15_000, "the first deadline");
    }
    assert_eq!(given_back, [skipped]);
    assert_eq!(ms, 15_000);
    assert_eq!(fixture.pipeline.counters().timed_out, 1);
    assert!(
        fixture.pipeline.rate().is_some(),
        "the others are not to blame"
    );
}

#[test]
fn a_peer_that_stops_is_given_up_in_seconds_and_starts_anew() {
    let mut fixture = Fixture::new(true);
    for round in 0..10 {
        for block in fixture.fill(round * 100) {
            fixture.receive(block, (round + 1) * 100);
        }
    }
    let blocks = fixture.fill(1_000);
    assert!(blocks.len() > 60);
    assert_eq!(fixture.time_out(5_900), []);
    assert_eq!(fixture.pipeline.next_timeout(at_ms(5_900)), at_ms(6_000));
    assert_eq!(fixture.time_out(6_000), blocks);
    assert_eq!(fixture.room(6_000), 4);
}

#[test]
fn a_peer_that_became_slow_holds_nothing_for_longer_than_a_minute() {
    let mut fixture = Fixture::new(true);
    for round in 0..10 {
        for block in fixture.fill(round * 100) {
            fixture.receive(block, (round + 1) * 100);
        }
    }
    let mut blocks = fixture.fill(1_000);
    for tick in 1..15 {
        let ms = 1_000 + tick * 4_000;
        fixture.receive(blocks.remove(0), ms);
        assert_eq!(fixture.time_out(ms), []);
    }
    assert_eq!(fixture.time_out(60_999), []);
    assert_eq!(fixture.time_out(61_000), blocks);
}

#[test]
fn a_peer_that_snubs_us_keeps_one_request_until_it_sends_a_block() {
    let mut fixture = Fixture::new(true);
    let first = fixture.fill(0);
    assert_eq!(fixture.time_out(15_000), first);
    for ms in [15_000, 30_000, 45_000] {
        assert!(!fixture.pipeline.is_snubbed());
        assert_eq!(fixture.fill(ms).len(), 4);
        assert_eq!(fixture.time_out(ms + 14_999), []);
        assert_eq!(fixture.pipeline.next_timeout(at_ms(ms)), at_ms(ms + 15_000));
        assert_eq!(fixture.time_out(ms + 15_000).len(), 4);
    }
    assert!(fixture.pipeline.is_snubbed());
    assert_eq!(fixture.fill(60_000).len(), 1);
    assert_eq!(fixture.time_out(75_000).len(), 1);
    assert_eq!(fixture.fill(75_000).len(), 1);
    // Also a late block is one.
    assert_eq!(fixture.receive(first[2], 80_000), Arrival::Late);
    assert!(!fixture.pipeline.is_snubbed());
    assert_eq!(fixture.room(80_000), 3);
    assert_eq!(fixture.pipeline.counters().snubs, 1);
}

#[test]
fn a_choked_or_cancelled_peer_does_not_snub() {
    let mut fixture = Fixture::new(true);
    let blocks = fixture.fill(0);
    for block in &blocks {
        fixture.pipeline.cancelled(block, &mut fixture.budget);
    }
    assert_eq!(fixture.pipeline.next_timeout(at_ms(1)), Time::NEVER);
    fixture.time_out(100_000);
    assert!(!fixture.pipeline.is_snubbed());
    fixture.fill(100_000);
    fixture.choke();
    fixture.time_out(200_000);
    assert!(!fixture.pipeline.is_snubbed());
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Fill,
    Receive(u8),
    Reject(u8),
    Cancel(u8),
    TimeOut,
    Choke,
    Unchoke,
    Queue(u32),
    Budget(u64),
    Stranger,
}

fn event() -> impl Strategy<Value = (u64, Event)> {
    let event = prop_oneof![
        6 => Just(Event::Fill),
        12 => any::<u8>().prop_map(Event::Receive),
        2 => any::<u8>().prop_map(Event::Reject),
        1 => any::<u8>().prop_map(Event::Cancel),
        3 => Just(Event::TimeOut),
        1 => Just(Event::Choke),
        2 => Just(Event::Unchoke),
        1 => (0_u32..300).prop_map(Event::Queue),
        1 => (0_u64..100 * BLOCK).prop_map(Event::Budget),
        1 => Just(Event::Stranger),
    ];
    (prop_oneof![4 => 0_u64..50, 1 => 0_u64..70_000], event)
}

proptest! {
    /// Whatever happens: each request is waited for until it is answered or given back, once;
    /// requests stay below every limit; the budget is the sum; and an unchoked peer with nothing
    /// outstanding is asked for something, unless it refused everything.
    #[test]
    fn requests_are_accounted_for(
        events in proptest::collection::vec(event(), 1..200),
        fast in any::<bool>(),
    ) {
        let mut fixture = Fixture::new(fast);
        let mut waiting = BTreeSet::new();
        let (mut ms, mut refused) = (0, 0);
        for (pause_ms, event) in events {
            ms += pause_ms;
            let pick = |waiting: &BTreeSet<BlockRequest>, number: u8| {
                waiting.iter().nth(usize::from(number) % waiting.len().max(1)).copied()
            };
            match event {
                Event::Fill => {
                    let filled = fixture.fill(ms);
                    let max = fixture.pipeline.requests_max();
                    prop_assert!(filled.is_empty() || fixture.pipeline.outstanding() <= max);
                    waiting.extend(filled);
                }
                Event::Receive(number) => if let Some(block) = pick(&waiting, number) {
                    prop_assert_eq!(fixture.receive(block, ms), Arrival::Expected);
                    waiting.remove(&block);
                    refused = 0;
                },
                Event::Reject(number) => if let Some(block) = pick(&waiting, number) {
                    prop_assert!(fixture.reject(block, ms));
                    waiting.remove(&block);
                    refused += u32::from(!fixture.pipeline.is_choked());
                },
                Event::Cancel(number) => if let Some(block) = pick(&waiting, number) {
                    prop_assert!(fixture.pipeline.cancelled(&block, &mut fixture.budget));
                    waiting.remove(&block);
                },
                Event::TimeOut => for block in fixture.time_out(ms) {
                    prop_assert!(waiting.remove(&block));
                },
                Event::Choke => for block in fixture.choke() {
                    prop_assert!(!fast && waiting.remove(&block));
                },
                Event::Unchoke => fixture.pipeline.unchoked(at_ms(ms)),
                Event::Queue(requests) => fixture.pipeline.set_peer_queue(requests),
                Event::Budget(bytes) => fixture.budget.set_bytes_max(bytes),
                Event::Stranger => {
                    prop_assert_eq!(fixture.receive(block(1 << 20), ms), Arrival::Unrequested);
                }
            }
            prop_assert_eq!(fixture.pipeline.outstanding() as usize, waiting.len());
            prop_assert_eq!(fixture.budget.used(), waiting.len() as u64 * BLOCK);
            prop_assert!(fixture.room(ms) == 0 || !fixture.pipeline.is_choked());
            let must_ask = waiting.is_empty() && !fixture.pipeline.is_choked();
            prop_assert!(!must_ask || refused >= REJECTS_IN_A_ROW_MAX || fixture.room(ms) > 0);
            // After a time-out nothing is due at once again.
            if matches!(event, Event::TimeOut) {
                prop_assert!(fixture.pipeline.next_timeout(at_ms(ms)) > at_ms(ms));
            }
        }
        let mut given_back = Vec::new();
        fixture.pipeline.close(&mut fixture.budget, &mut given_back);
        prop_assert_eq!(given_back.into_iter().collect::<BTreeSet<_>>(), waiting);
        prop_assert_eq!(fixture.budget.used(), 0);
    }
}
