//! The bucket against rational arithmetic; the shared limit in virtual time, with many shards.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::*;
use crate::random::Random;

const SECOND: u64 = 1_000_000_000;
const BLOCK: u32 = 16 << 10;
const BATCH: Demand = Demand {
    bytes_min: BLOCK,
    bytes_max: 256 << 10,
};

/// Measures what a limit promises: over all windows, the most that was sent beyond `rate * t`.
/// Exact, in 10^-9 byte.
struct Meter {
    rate: u64,
    level: u128,
    peak: u128,
    at: Time,
    total: u64,
}

impl Meter {
    fn new(rate: u64, now: Time) -> Meter {
        Meter {
            rate,
            level: 0,
            peak: 0,
            at: now,
            total: 0,
        }
    }

    fn sent(&mut self, bytes: u64, now: Time) {
        let drained = u128::from(self.rate) * u128::from(now.0 - self.at.0);
        self.level = self.level.saturating_sub(drained) + u128::from(bytes) * u128::from(SECOND);
        self.peak = self.peak.max(self.level);
        self.at = now;
        self.total += bytes;
    }

    /// The burst that was seen, in bytes, rounded up.
    fn burst(&self) -> u64 {
        self.peak.div_ceil(u128::from(SECOND)) as u64
    }
}

/// The naive model: what is in the bucket as a fraction with the denominator 10^9.
struct Model {
    limit: RateLimit,
    nanobytes: u128,
    at: u64,
}

impl Model {
    fn full(&self) -> u128 {
        u128::from(self.limit.burst_bytes()) * u128::from(SECOND)
    }

    fn advance(&mut self, now: u64) {
        let came = u128::from(self.limit.bytes_per_second()) * u128::from(now - self.at);
        self.nanobytes = (self.nanobytes + came).min(self.full());
        self.at = now;
    }

    fn take(&mut self, bytes_min: u64, bytes_max: u64) -> Result<u64, u64> {
        let least = bytes_min.min(self.limit.burst_bytes());
        let whole = (self.nanobytes / u128::from(SECOND)) as u64;
        if whole < least {
            let missing = u128::from(least) * u128::from(SECOND) - self.nanobytes;
            let wait = missing.div_ceil(u128::from(self.limit.bytes_per_second()));
            return Err(self
                .at
                .saturating_add(u64::try_from(wait).unwrap_or(u64::MAX)));
        }
        let taken = whole.min(bytes_max.max(least));
        self.nanobytes -= u128::from(taken) * u128::from(SECOND);
        Ok(taken)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Take(u64, u64),
    GiveBack(u64),
    Limit(RateLimit),
}

fn limits() -> impl Strategy<Value = RateLimit> {
    let rate = prop_oneof![
        1_u64..100_000,
        1_000_000_u64..20_000_000_000,
        Just(RATE_MAX)
    ];
    (rate, 0_u64..2_000_000).prop_map(|(rate, burst)| RateLimit::with_burst(rate, burst))
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u64..50_000).prop_map(Step::Wait),
        4 => (0_u64..50_000_000).prop_map(Step::Wait),
        2 => (0_u64..20 * SECOND).prop_map(Step::Wait),
        1 => Just(Step::Wait(1 << 60)),
        10 => (1_u64..600_000, 0_u64..1_200_000).prop_map(|(min, max)| Step::Take(min, max)),
        4 => (0_u64..1_000_000).prop_map(Step::GiveBack),
        1 => limits().prop_map(Step::Limit),
    ]
}

proptest! {
    #[test]
    fn a_bucket_is_exact(limit in limits(), steps in proptest::collection::vec(steps(), 1..100)) {
        let mut now = 77_u64;
        let mut bucket = TokenBucket::new(limit, Time(now));
        let mut model = Model { limit, nanobytes: 0, at: now };
        model.nanobytes = model.full();
        let mut taken = 0;
        for step in steps {
            match step {
                Step::Wait(nanos) => now = now.saturating_add(nanos),
                Step::Take(min, max) => {
                    model.advance(now);
                    let expected = model.take(min, max);
                    let result = bucket.take(min, max, Time(now));
                    prop_assert_eq!(result, expected.map_err(Time));
                    taken = result.unwrap_or(taken);
                }
                Step::GiveBack(bytes) => {
                    let bytes = bytes.min(taken);
                    taken -= bytes;
                    bucket.give_back(bytes);
                    let given = u128::from(bytes) * u128::from(SECOND);
                    model.nanobytes = (model.nanobytes + given).min(model.full());
                }
                Step::Limit(limit) => {
                    model.advance(now);
                    bucket.set_limit(limit, Time(now));
                    model.limit = limit;
                    model.nanobytes = model.nanobytes.min(model.full());
                }
            }
        }
    }

    #[test]
    fn no_window_of_a_bucket_gets_more_than_rate_and_burst(
        limit in limits(),
        takes in proptest::collection::vec((0_u64..100_000_000, 1_u64..400_000), 1..100),
    ) {
        let mut bucket = TokenBucket::new(limit, Time(0));
        let mut now = Time(0);
        let mut grants: Vec<(u64, u64)> = Vec::new();
        for (wait, bytes) in takes {
            now = now + Duration::from_nanos(wait);
            let taken = bucket.take(bytes, bytes, now).unwrap_or(0);
            grants.push((now.0, taken));
        }
        for from in 0..grants.len() {
            let mut sum = 0_u128;
            for &(at, bytes) in &grants[from..] {
                sum += u128::from(bytes) * u128::from(SECOND);
                let window = u128::from(at - grants[from].0);
                let bound = u128::from(limit.bytes_per_second()) * window
                    + u128::from(limit.burst_bytes()) * u128::from(SECOND);
                prop_assert!(sum <= bound);
            }
        }
    }
}

#[test]
fn a_batch_fits_every_burst() {
    for rate in [0, 1, 10_000, 1_000_000, 10_000_000_000, RATE_MAX, u64::MAX] {
        for limit in [RateLimit::new(rate), RateLimit::with_burst(rate, 0)] {
            assert!(limit.bytes_per_second() >= 1 && limit.bytes_per_second() <= RATE_MAX);
            assert!(limit.for_slices().burst_bytes() >= BURST_BYTES_MIN);
            let mut bucket = TokenBucket::new(limit.for_slices(), Time(0));
            assert!(
                bucket
                    .take(BURST_BYTES_MIN, BURST_BYTES_MIN, Time(0))
                    .is_ok()
            );
        }
    }
}

#[test]
fn time_that_stands_or_goes_back_gives_nothing() {
    let limit = RateLimit::new(1_000_000);
    let mut bucket = TokenBucket::empty(limit, Time(5 * SECOND));
    assert_eq!(bucket.available(Time(5 * SECOND)), 0);
    assert_eq!(bucket.available(Time(0)), 0);
    assert_eq!(bucket.available(Time(5 * SECOND + SECOND / 10)), 100_000);
    assert_eq!(bucket.available(Time::NEVER), limit.burst_bytes());
}

/// A shard in the simulation: it sends as fast as it may, or not at all while it is idle.
struct Sender {
    local: ShardBucket,
    active: bool,
    /// How fast it could send, in bytes per second.
    speed: u64,
    sent: u64,
    exchanges: u64,
    refusals: u64,
}

/// One limit and its shards in virtual time.
struct Simulation {
    shared: SharedBucket,
    senders: Vec<Sender>,
    meter: Meter,
    now: Time,
    /// When each sender does something next.
    wakes: BinaryHeap<Reverse<(Time, usize)>>,
}

impl Simulation {
    fn new(limit: Option<RateLimit>, shards: u16, speed: u64) -> Simulation {
        let now = Time(1);
        let rate = limit.map_or(0, |limit| limit.bytes_per_second());
        let sender = |shard| Sender {
            local: ShardBucket::new(ShardIndex(shard)),
            active: true,
            speed,
            sent: 0,
            exchanges: 0,
            refusals: 0,
        };
        Simulation {
            shared: SharedBucket::new(limit, shards, now),
            senders: (0..shards).map(sender).collect(),
            meter: Meter::new(rate, now),
            now,
            wakes: (0..usize::from(shards))
                .map(|shard| Reverse((now, shard)))
                .collect(),
        }
    }

    /// Runs until `end`; `before` each wake-up may change who is active.
    fn run(&mut self, end: Time, mut before: impl FnMut(&mut Simulation, usize)) {
        while let Some(&Reverse((time, shard))) = self.wakes.peek()
            && time < end
        {
            self.wakes.pop();
            self.now = time;
            before(self, shard);
            let next = if self.senders[shard].active {
                self.send(shard)
            } else {
                self.rest(shard)
            };
            assert!(next > time, "a shard that spins");
            self.wakes.push(Reverse((next, shard)));
        }
        self.shared.check_invariants();
        self.now = end;
    }

    /// Sends one batch if the limit lets it; returns when to go on.
    fn send(&mut self, shard: usize) -> Time {
        let sender = &mut self.senders[shard];
        loop {
            match take(&mut [&mut sender.local], BATCH, self.now) {
                Ok(granted) => {
                    let bytes = u64::from(granted / BLOCK * BLOCK);
                    sender.local.give_back(u64::from(granted) - bytes);
                    sender.sent += bytes;
                    self.meter.sent(bytes, self.now);
                    return self.now + Duration::from_nanos((bytes * SECOND / sender.speed).max(1));
                }
                Err(_) => match self.shared.exchange(&mut sender.local, BATCH, self.now) {
                    Ok(()) => sender.exchanges += 1,
                    Err(time) => {
                        sender.refusals += 1;
                        return time;
                    }
                },
            }
        }
    }

    /// What an idle shard does: it gives back its slice when that expires.
    fn rest(&mut self, shard: usize) -> Time {
        let sender = &mut self.senders[shard];
        if self.now >= sender.local.next_timeout() {
            self.shared.release(&mut sender.local);
        }
        sender
            .local
            .next_timeout()
            .min(self.now + Duration::from_millis(50))
    }

    fn assert_bound(&self, limit: RateLimit) {
        assert!(
            self.meter.burst() <= limit.burst_bytes(),
            "a burst of {} bytes, the limit is {limit:?}",
            self.meter.burst()
        );
    }

    fn assert_used(&self, limit: RateLimit, from: Time) {
        let due = limit.bytes_in(self.now.since(from));
        assert!(
            self.meter.total >= due / 1_000 * 999,
            "sent {} of {due} bytes at {limit:?}",
            self.meter.total
        );
    }
}

/// Never more than rate and burst, and at least 99.9 % of the rate, from 10 KB/s to 10 GB/s, on any
/// number of shards; and no lock for every block where the rate is high.
#[test]
fn many_shards_use_the_whole_rate_and_no_more() {
    for (rate, seconds) in [
        (10_000, 600),
        (1_000_000, 60),
        (100_000_000, 5),
        (10_000_000_000, 1),
    ] {
        for shards in [1, 2, 7, 64] {
            let limit = RateLimit::new(rate);
            let mut simulation = Simulation::new(Some(limit), shards, 20_000_000_000);
            simulation.run(Time(seconds * SECOND), |_, _| {});
            simulation.assert_bound(limit);
            simulation.assert_used(limit, Time(1));
            let exchanges: u64 = simulation
                .senders
                .iter()
                .map(|sender| sender.exchanges)
                .sum();
            let blocks = simulation.meter.total / u64::from(BLOCK);
            assert!(
                rate < 10_000_000_000 || exchanges * 8 < blocks,
                "{exchanges} for {blocks}"
            );
            // In line, each gets its turn: none is left behind by more than a few batches.
            let sent = simulation.senders.iter().map(|sender| sender.sent);
            let (least, most) = (sent.clone().min().unwrap(), sent.max().unwrap());
            let even = simulation.meter.total / u64::from(shards);
            let slack = even / 5 + 4 * u64::from(BATCH.bytes_max);
            assert!(
                most - least <= slack,
                "{rate} B/s, {shards} shards: {least} to {most}"
            );
        }
    }
}

/// Shards that come and go: the bound holds, and while one shard always wants more than the rate,
/// idle ones keep nothing from it.
#[test]
fn idle_shards_hold_no_budget() {
    for rate in [10_000, 1_000_000, 10_000_000_000] {
        let seconds = if rate == 10_000 { 1_000 } else { 3 };
        let limit = RateLimit::new(rate);
        let mut simulation = Simulation::new(Some(limit), 16, 40_000_000_000);
        let mut random = Random::new(rate);
        simulation.run(Time(seconds * SECOND), |simulation, shard| {
            if shard > 0 && random.below(10) == 0 {
                simulation.senders[shard].active = random.below(4) == 0;
            }
        });
        simulation.assert_bound(limit);
        simulation.assert_used(limit, Time(1));
        // Everyone falls idle: within the life of a slice all is given back.
        let end = simulation.now;
        simulation
            .senders
            .iter_mut()
            .for_each(|sender| sender.active = false);
        simulation.run(end + Duration::from_secs(1), |_, _| {});
        assert!(
            simulation
                .senders
                .iter()
                .all(|sender| sender.local.bytes == 0)
        );
        let bucket = simulation.shared.bucket.as_mut().unwrap();
        assert!(bucket.available(end + Duration::from_secs(3_600)) >= BURST_BYTES_MIN);
    }
}

/// Demand in bursts, with pauses in between: what is saved up in a pause is the burst and no more.
#[test]
fn bursts_after_pauses_stay_within_the_bound() {
    for rate in [10_000, 3_000_000, 10_000_000_000] {
        let limit = RateLimit::new(rate);
        let mut simulation = Simulation::new(Some(limit), 8, 40_000_000_000);
        simulation.run(Time(20 * SECOND), |simulation, shard| {
            let phase = simulation.now.0 / (SECOND / 10) % 10;
            simulation.senders[shard].active = phase == 0;
        });
        simulation.assert_bound(limit);
        assert!(simulation.meter.total >= limit.bytes_in(Duration::from_millis(1_500)));
    }
}

/// A shard that is refused and never comes back (its peers are gone, or it hangs) holds up nobody
/// for long.
#[test]
fn a_shard_that_leaves_the_line_holds_up_nobody() {
    let limit = RateLimit::new(50_000);
    let mut simulation = Simulation::new(Some(limit), 8, 1_000_000_000);
    simulation.run(Time(200 * SECOND), |simulation, shard| {
        // Shards 1 to 7 vanish at different times, most of them while they stand in line.
        if shard > 0 && simulation.now.0 > SECOND * (shard as u64 + 3) {
            simulation.senders[shard].local = ShardBucket::new(ShardIndex(shard as u16));
            simulation.senders[shard].active = false;
        }
    });
    assert_eq!(simulation.shared.waiting_shards(), 1);
    simulation.assert_bound(limit);
    let due = limit.bytes_in(simulation.now.since(Time(0)));
    assert!(
        simulation.meter.total * 1_000 >= due * 995,
        "{} of {due}",
        simulation.meter.total
    );
}

/// A changed limit holds within 200 ms, in either direction, to none and back.
#[test]
fn a_limit_changes_while_bytes_flow() {
    let rates = [
        Some(1_000_000),
        Some(20_000),
        Some(500_000_000),
        None,
        Some(100_000),
        None,
    ];
    let limit = |rate: Option<u64>| rate.map(RateLimit::new);
    let mut simulation = Simulation::new(limit(rates[0]), 4, 1_000_000_000);
    let mut end = Time(0);
    for rate in rates {
        simulation.shared.set_limit(limit(rate), simulation.now);
        end = end + WAIT_MAX;
        simulation.run(end, |_, _| {});
        simulation.meter = Meter::new(rate.unwrap_or(0), end);
        let start = end;
        end = end + Duration::from_secs(20);
        simulation.run(end, |_, _| {});
        match limit(rate) {
            Some(limit) => {
                simulation.assert_bound(limit);
                let due = limit.bytes_in(end.since(start));
                // A block of each shard may have come just before the window.
                assert!(simulation.meter.total * 1_000 + 4_000 * u64::from(BLOCK) >= due * 999);
            }
            None => assert!(simulation.meter.total >= 79_000_000_000, "full speed"),
        }
    }
}

/// From all levels or from none.
#[test]
fn a_short_level_costs_the_others_nothing() {
    let now = Time(1);
    let mut shared = [
        SharedBucket::new(Some(RateLimit::new(10_000_000)), 1, now),
        SharedBucket::new(None, 1, now),
        SharedBucket::new(Some(RateLimit::new(100_000)), 1, now),
    ];
    let [mut global, mut torrent, mut class] = [(); 3].map(|()| ShardBucket::new(ShardIndex(0)));
    let mut asked = Vec::new();
    let mut refused = None;
    let mut granted = 0_u64;
    while refused.is_none() {
        match take(&mut [&mut global, &mut torrent, &mut class], BATCH, now) {
            Ok(bytes) => granted += u64::from(bytes),
            Err(level) => {
                asked.push(level);
                let local = [&mut global, &mut torrent, &mut class]
                    .into_iter()
                    .nth(level);
                refused = shared[level].exchange(local.unwrap(), BATCH, now).err();
            }
        }
    }
    assert_eq!(
        asked[..3],
        [0, 1, 2],
        "each level is asked for its slice once"
    );
    assert_eq!(asked.last(), Some(&2), "the narrowest one ends it");
    let burst = RateLimit::new(100_000).for_slices().burst_bytes();
    assert!(
        granted <= burst && granted + u64::from(BLOCK) > burst,
        "{granted} of {burst}"
    );
    let unspent = global.available(now);
    assert_eq!(
        take(&mut [&mut global, &mut torrent, &mut class], BATCH, now),
        Err(2)
    );
    assert_eq!(global.available(now), unspent, "a refusal costs nothing");
    assert_eq!(torrent.available(now), u64::MAX);
    assert_eq!(
        take(&mut [], BATCH, now),
        Ok(BATCH.bytes_max),
        "no level, no limit"
    );
}

#[test]
fn what_a_batch_leaves_is_given_back() {
    let now = Time(1);
    let mut shared = SharedBucket::new(Some(RateLimit::new(1_000_000)), 1, now);
    let mut local = ShardBucket::new(ShardIndex(0));
    shared.exchange(&mut local, BATCH, now).unwrap();
    let before = local.available(now);
    let granted = u64::from(take(&mut [&mut local], BATCH, now).unwrap());
    local.give_back(granted - 1_000);
    assert_eq!(local.available(now), before - 1_000);
    local.give_back(u64::MAX);
    assert_eq!(local.available(now), before, "no more than was taken");
    assert_eq!(local.next_timeout(), now + SLICE_LIFE);
    assert_eq!(local.available(now + SLICE_LIFE), 0, "a slice expires");
    shared.release(&mut local);
    assert_eq!(local.next_timeout(), Time::NEVER);
}

/// A slice of a limit that was lifted in between is not given back to the new one.
#[test]
fn a_slice_outlives_no_limit() {
    let now = Time(1);
    let limit = Some(RateLimit::new(1_000_000));
    let mut shared = SharedBucket::new(limit, 1, now);
    let mut local = ShardBucket::new(ShardIndex(0));
    shared.exchange(&mut local, BATCH, now).unwrap();
    shared.set_limit(None, now);
    shared.set_limit(limit, now);
    shared.release(&mut local);
    assert_eq!(shared.bucket.as_mut().unwrap().available(now), 0);
    assert!(shared.exchange(&mut local, BATCH, now).is_err());
}

/// A large block is not starved by small ones: it keeps its place in line.
#[test]
fn a_large_block_gets_its_turn() {
    let mut now = Time(1);
    let mut shared = SharedBucket::new(Some(RateLimit::new(100_000)), 2, now);
    let large = Demand {
        bytes_min: 128 << 10,
        bytes_max: 128 << 10,
    };
    let small = Demand {
        bytes_min: BLOCK,
        bytes_max: BLOCK,
    };
    let mut locals = [0, 1].map(|shard| ShardBucket::new(ShardIndex(shard)));
    // Empties the burst.
    while shared.exchange(&mut locals[1], small, now).is_ok() {
        take(&mut [&mut locals[1]], small, now).unwrap();
    }
    let mut granted = [0, 0];
    while now < Time(60 * SECOND) {
        for (shard, demand) in [(0, large), (1, small)] {
            if shared.exchange(&mut locals[shard], demand, now).is_ok() {
                granted[shard] += take(&mut [&mut locals[shard]], demand, now).unwrap();
            }
        }
        now = now + Duration::from_millis(1);
    }
    assert!(
        granted[0] >= 4_000_000 && granted[1] >= 500_000,
        "{granted:?}"
    );
}
