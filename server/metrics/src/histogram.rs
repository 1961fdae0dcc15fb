//! Latency histograms with fixed buckets: two a power of two, from 1 µs to 67 s.
//!
//! The bounds are 1, 2, 3, 4, 6, 8, 12, 16 … 50,331,648 and 67,108,864 µs, so that a bucket is found
//! with shifts, and a quantile read from them is at most half too high. One more bucket takes what
//! is longer.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How many buckets have an upper bound.
pub const BUCKETS: usize = 52;

/// The upper bound (inclusive) of a bucket in microseconds.
pub const fn bucket_bound_us(bucket: usize) -> u64 {
    if bucket < 2 {
        bucket as u64 + 1
    } else {
        (bucket as u64 % 2 + 3) << (bucket / 2 - 1)
    }
}

/// The bucket of a duration; [`BUCKETS`] for what is longer than the last bound.
pub(crate) fn bucket_of(duration: Duration) -> usize {
    // Rounded up, because a bound is inclusive: 1,001 ns are more than 1 µs.
    let micros = duration.as_nanos().div_ceil(1_000);
    let below = u64::try_from(micros).unwrap_or(u64::MAX).saturating_sub(1);
    if below < 2 {
        return below as usize;
    }
    let power = below.ilog2() as usize;
    let half = (below >> (power - 1)) as usize & 1;
    (2 * power + half).min(BUCKETS)
}

/// The cells of one histogram.
#[derive(Debug)]
pub(crate) struct HistogramCells {
    counts: [AtomicU64; BUCKETS + 1],
    sum_ns: AtomicU64,
}

impl HistogramCells {
    pub(crate) fn new() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; BUCKETS + 1],
            sum_ns: AtomicU64::new(0),
        }
    }

    /// The two cells that a duration is added to, and what is added to the second.
    pub(crate) fn cells(&self, duration: Duration) -> (&AtomicU64, &AtomicU64, u64) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        (&self.counts[bucket_of(duration)], &self.sum_ns, nanos)
    }

    pub(crate) fn snapshot(&self) -> HistogramSnapshot {
        let mut snapshot = HistogramSnapshot::default();
        for (count, cell) in snapshot.counts.iter_mut().zip(&self.counts) {
            *count = cell.load(Relaxed);
        }
        snapshot.sum_ns = u128::from(self.sum_ns.load(Relaxed));
        snapshot
    }
}

/// A histogram at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistogramSnapshot {
    /// How many durations fell into each bucket (not cumulative); the last is beyond every bound.
    pub counts: [u64; BUCKETS + 1],
    /// The sum of all durations in nanoseconds.
    pub sum_ns: u128,
}

impl Default for HistogramSnapshot {
    fn default() -> Self {
        Self {
            counts: [0; BUCKETS + 1],
            sum_ns: 0,
        }
    }
}

impl HistogramSnapshot {
    /// How many durations were recorded.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Adds another shard's histogram.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.sum_ns += other.sum_ns;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, without shifts: the first bucket whose bound is not below the duration.
    fn bucket_by_search(nanos: u64) -> usize {
        (0..BUCKETS)
            .find(|bucket| nanos <= bucket_bound_us(*bucket) * 1_000)
            .unwrap_or(BUCKETS)
    }

    #[test]
    fn bounds_rise_by_at_most_half() {
        assert_eq!(bucket_bound_us(0), 1);
        assert_eq!(bucket_bound_us(BUCKETS - 1), 67_108_864);
        for bucket in 1..BUCKETS {
            let (low, high) = (bucket_bound_us(bucket - 1), bucket_bound_us(bucket));
            assert!(
                low < high && (bucket == 1 || 2 * high <= 3 * low),
                "{low} {high}"
            );
        }
    }

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        for bucket in 0..BUCKETS {
            for near in [0, 1, 2, 500] {
                for nanos in [
                    bucket_bound_us(bucket) * 1_000 - near,
                    bucket_bound_us(bucket) * 1_000 + near,
                ] {
                    assert_eq!(
                        bucket_of(Duration::from_nanos(nanos)),
                        bucket_by_search(nanos),
                        "{nanos} ns"
                    );
                }
            }
        }
        assert_eq!(bucket_of(Duration::ZERO), 0);
        assert_eq!(bucket_of(Duration::MAX), BUCKETS);
    }
}
