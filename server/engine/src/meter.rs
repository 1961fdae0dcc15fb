//! A rate over the last seconds: what a peer gives or takes, as the choker compares it and as it is
//! shown.
//!
//! Bytes are counted in slots of a second. The rate is that of the last [`WINDOW_SECONDS`], of a
//! younger meter that of its life, so that a peer of ten seconds is not rated at half of what it
//! does. Adding is O(1), but for the slots that a pause has emptied, at most a window of them.

use std::time::Duration;

use crate::time::Time;

/// The window, in seconds: the "20 second rolling average" by which BEP 3's choker compares peers.
pub const WINDOW_SECONDS: u64 = 20;

/// A meter counts as at least so old: a burst at the start is no rate.
const AGE_MIN: Duration = Duration::from_secs(1);

const SLOTS: usize = WINDOW_SECONDS as usize;

/// Measures one rate: see the module.
#[derive(Clone, Debug)]
pub struct RateMeter {
    started_at: Time,
    /// The second that is counted now, since `started_at`.
    second: u64,
    /// The slot of a second is its number modulo the window; a slot of an older second is 0.
    slots: [u64; SLOTS],
    total: u64,
}

impl RateMeter {
    /// A meter that starts now.
    pub fn new(now: Time) -> RateMeter {
        RateMeter {
            started_at: now,
            second: 0,
            slots: [0; SLOTS],
            total: 0,
        }
    }

    /// Counts bytes.
    pub fn add(&mut self, bytes: u64, now: Time) {
        self.advance(now);
        self.slots[(self.second % WINDOW_SECONDS) as usize] += bytes;
        self.total += bytes;
    }

    /// The rate in bytes per second.
    pub fn rate(&mut self, now: Time) -> u64 {
        self.advance(now);
        let age = now.since(self.started_at);
        // The window is the slots: those that are full, and what has passed of the second that is
        // counted.
        let full = Duration::from_secs(WINDOW_SECONDS - 1);
        let span = age.min(full + (age - Duration::from_secs(self.second)));
        let rate = u128::from(self.total) * 1_000_000_000 / span.max(AGE_MIN).as_nanos();
        u64::try_from(rate).unwrap_or(u64::MAX)
    }

    fn advance(&mut self, now: Time) {
        let second = now.since(self.started_at).as_secs();
        let passed = second.saturating_sub(self.second).min(WINDOW_SECONDS);
        for offset in 1..=passed {
            let slot = &mut self.slots[((self.second + offset) % WINDOW_SECONDS) as usize];
            self.total -= *slot;
            *slot = 0;
        }
        self.second = self.second.max(second);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at_ms(ms: u64) -> Time {
        Time(ms * 1_000_000)
    }

    #[test]
    fn a_steady_rate_is_shown_from_the_second_second_on() {
        let start = at_ms(5_300);
        let mut meter = RateMeter::new(start);
        for tick in 1..600_u64 {
            let now = start + Duration::from_millis(100 * tick);
            meter.add(1_000, now);
            let rate = meter.rate(now);
            if tick >= 10 {
                assert!((9_400..=10_600).contains(&rate), "tick {tick}: {rate}");
            }
        }
    }

    #[test]
    fn a_burst_at_the_start_is_not_divided_by_nothing() {
        let mut meter = RateMeter::new(at_ms(0));
        meter.add(500, at_ms(0));
        assert_eq!(meter.rate(at_ms(0)), 500);
        assert_eq!(meter.rate(at_ms(10_000)), 50);
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let mut meter = RateMeter::new(at_ms(0));
        meter.add(20_000, at_ms(500));
        assert_eq!(meter.rate(at_ms(19_999)), 1_000);
        assert_eq!(meter.rate(at_ms(20_000)), 0);
        meter.add(190, at_ms(1_000_000_000));
        assert_eq!(meter.rate(at_ms(1_000_000_000)), 10);
        // A clock that goes back counts into the present.
        meter.add(190, at_ms(3));
        assert_eq!(meter.rate(at_ms(1_000_000_000)), 20);
    }

    proptest! {
        /// The sum is that of the naive model, which keeps everything.
        #[test]
        fn the_window_follows_the_naive_model(
            events in proptest::collection::vec((0_u64..9_000, 0_u64..100_000), 1..60),
        ) {
            let mut meter = RateMeter::new(at_ms(0));
            let (mut now_ms, mut seen) = (0, Vec::new());
            for (pause_ms, bytes) in events {
                now_ms += pause_ms;
                meter.add(bytes, at_ms(now_ms));
                seen.push((now_ms / 1_000, bytes));
                let oldest = (now_ms / 1_000).saturating_sub(WINDOW_SECONDS - 1);
                let recent = seen.iter().filter(|(second, _)| *second >= oldest);
                let sum: u64 = recent.map(|(_, bytes)| bytes).sum();
                let span_ms = (now_ms - oldest * 1_000).max(1_000);
                prop_assert_eq!(meter.rate(at_ms(now_ms)), sum * 1_000 / span_ms);
            }
        }
    }
}
