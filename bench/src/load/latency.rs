//! The time from a request to the last byte of its block, as a histogram.

use hdrhistogram::Histogram;

/// The longest time that is told apart, in ns: 1 hour. Longer ones count as this.
const LONGEST_NS: u64 = 3_600_000_000_000;

/// Times of the measured window. Nothing is recorded before [`Latency::start`].
#[derive(Debug)]
pub struct Latency {
    histogram: Histogram<u64>,
    started: bool,
}

impl Default for Latency {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(100, LONGEST_NS, 3)
            .expect("100 ns to 1 h with 3 digits are bounds that a histogram accepts");
        Self {
            histogram,
            started: false,
        }
    }
}

impl Latency {
    /// The measured window begins.
    pub fn start(&mut self) {
        self.started = true;
    }

    /// Counts one block.
    pub fn record_ns(&mut self, ns: u64) {
        if self.started {
            self.histogram.saturating_record(ns);
        }
    }

    /// Adds the times of `other`.
    pub fn add(&mut self, other: &Self) {
        self.histogram
            .add(&other.histogram)
            .expect("all histograms have the same bounds");
    }

    /// How many blocks were counted.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The time that `quantile` (0 to 1) of the blocks did not exceed, in µs, to 3 digits.
    pub fn quantile_us(&self, quantile: f64) -> f64 {
        self.histogram.value_at_quantile(quantile) as f64 / 1e3
    }

    /// The longest time, in µs, to 3 digits.
    pub fn max_us(&self) -> f64 {
        self.histogram.max() as f64 / 1e3
    }

    /// The mean time, in µs.
    pub fn mean_us(&self) -> f64 {
        self.histogram.mean() / 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_window_counts_and_threads_add_up() {
        let (mut one, mut two) = (Latency::default(), Latency::default());
        one.record_ns(5_000_000);
        one.start();
        two.start();
        (1..=99).for_each(|us| one.record_ns(us * 1_000));
        two.record_ns(LONGEST_NS * 2);
        one.add(&two);
        assert_eq!(one.count(), 100);
        assert!((one.quantile_us(0.5) - 50.0).abs() < 0.1);
        assert!((one.quantile_us(0.99) - 99.0).abs() < 0.1);
        assert!(one.max_us() >= 3.6e9);
    }
}
