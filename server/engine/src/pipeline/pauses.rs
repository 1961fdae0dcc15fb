//! How long a peer pauses between its bursts.
//!
//! Some peers serve in turns: Transmission looks at its queue twice a second, sends all of it, and
//! sends nothing until it looks again. To such a peer the round trip that counts is the pause, which
//! the least round trip seen ([`super::estimate`]) does not show: a request that comes just before a
//! turn is answered at once. With too few requests a turn empties the queue, and the rest of the
//! pause is lost.
//!
//! So a pause counts if the queue was empty in it: what came before it, since the pause before, was
//! no more than what the peer was owed in two turns, and the first block after it was requested
//! in that burst. A peer that stops in the middle of its queue is slow, or late, but not short of
//! requests. The estimate is the longest of the last ten to twenty seconds; twice the rate times
//! the pause doubles the window each turn, as it does each round trip on a long link.
//!
//! Not here: how many requests follow from it.

use std::time::Duration;

use crate::time::Time;

/// Shorter ones are covered by [`super::PipelineConfig::reserve_time`] and the least round trip.
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// How long the larger half of the window of pauses lasts.
const WINDOW_HALF: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pauses {
    /// The longest of the current half of the window and of the one before.
    longest: Duration,
    longest_before: Duration,
    half_started_at: Time,
    burst_started_at: Time,
    /// What came in the burst, and what was outstanding when it began, in bytes.
    burst: u64,
    owed: u64,
}

impl Pauses {
    /// Takes a block of `bytes` that was requested at `sent_at`, came `gap` after the one before it,
    /// and when `outstanding` bytes were waited for, its own among them.
    pub fn came(&mut self, bytes: u32, sent_at: Time, gap: Duration, outstanding: u64, now: Time) {
        self.age(now);
        if gap >= PAUSE_MIN.max(self.longest() / 2) {
            if sent_at >= self.burst_started_at && self.burst <= 2 * self.owed {
                self.longest = self.longest.max(gap);
            }
            (self.burst_started_at, self.burst, self.owed) = (now, 0, outstanding);
        }
        self.burst += u64::from(bytes);
    }

    /// The longest pause with an empty queue.
    pub fn longest(&self) -> Duration {
        self.longest.max(self.longest_before)
    }

    fn age(&mut self, now: Time) {
        let age = now.since(self.half_started_at);
        if age >= WINDOW_HALF {
            self.longest_before = if age >= 2 * WINDOW_HALF {
                Duration::ZERO
            } else {
                self.longest
            };
            (self.longest, self.half_started_at) = (Duration::ZERO, now);
        }
    }
}
