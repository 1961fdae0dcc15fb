//! Where metrics are counted: arrays of atomics, indexed by an enum, without hashing or allocation.
//!
//! A shard's cells have one writer, so an increment is a plain load and store and never a locked
//! instruction; readers may lag by one increment but never see a torn value.

use crate::catalogue::{
    ControlCounter, ControlGauge, ControlHistogram, Counter, Gauge, Histogram, Metric,
};
use crate::histogram::{HistogramCells, HistogramSnapshot};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The cells of one shard.
///
/// Only the shard's own thread may write: an increment from another thread could be lost. Debug
/// builds assert it. The whole block starts on a pair of cache lines of its own, so that two shards
/// never write to the same line; within it the cells are packed, because one core owns them all.
#[derive(Debug)]
#[repr(align(128))]
pub struct ShardCells {
    counters: [AtomicU64; Counter::COUNT],
    gauges: [AtomicU64; Gauge::COUNT],
    histograms: [HistogramCells; Histogram::COUNT],
    #[cfg(debug_assertions)]
    writer: std::sync::OnceLock<std::thread::ThreadId>,
}

impl ShardCells {
    pub(crate) fn new() -> Self {
        Self {
            counters: [const { AtomicU64::new(0) }; Counter::COUNT],
            gauges: [const { AtomicU64::new(0) }; Gauge::COUNT],
            histograms: std::array::from_fn(|_| HistogramCells::new()),
            #[cfg(debug_assertions)]
            writer: std::sync::OnceLock::new(),
        }
    }

    /// Adds to a counter.
    pub fn add(&self, counter: Counter, amount: u64) {
        self.assert_writer();
        add_alone(&self.counters[counter.index()], amount);
    }

    /// Adds one to a counter.
    pub fn increment(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Sets a gauge.
    pub fn set(&self, gauge: Gauge, value: u64) {
        self.assert_writer();
        self.gauges[gauge.index()].store(value, Relaxed);
    }

    /// Raises a gauge.
    pub fn raise(&self, gauge: Gauge, amount: u64) {
        self.assert_writer();
        add_alone(&self.gauges[gauge.index()], amount);
    }

    /// Lowers a gauge; one that would fall below zero stays at zero.
    pub fn lower(&self, gauge: Gauge, amount: u64) {
        self.assert_writer();
        let cell = &self.gauges[gauge.index()];
        let value = cell.load(Relaxed);
        debug_assert!(
            value >= amount,
            "{gauge:?} would fall below zero: {value} - {amount}"
        );
        cell.store(value.saturating_sub(amount), Relaxed);
    }

    /// Records a duration.
    pub fn record(&self, histogram: Histogram, duration: Duration) {
        self.assert_writer();
        let (count, sum, nanos) = self.histograms[histogram.index()].cells(duration);
        add_alone(count, 1);
        add_alone(sum, nanos);
    }

    /// A counter's value now.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters[counter.index()].load(Relaxed)
    }

    /// A gauge's value now.
    pub fn gauge(&self, gauge: Gauge) -> u64 {
        self.gauges[gauge.index()].load(Relaxed)
    }

    pub(crate) fn histogram(&self, index: usize) -> HistogramSnapshot {
        self.histograms[index].snapshot()
    }

    pub(crate) fn counters(&self) -> Vec<u64> {
        self.counters
            .iter()
            .map(|cell| cell.load(Relaxed))
            .collect()
    }

    pub(crate) fn gauges(&self) -> Vec<u64> {
        self.gauges.iter().map(|cell| cell.load(Relaxed)).collect()
    }

    #[cfg(debug_assertions)]
    fn assert_writer(&self) {
        let current = std::thread::current().id();
        let writer = *self.writer.get_or_init(|| current);
        assert_eq!(
            writer, current,
            "a shard's metrics are written by its own thread only"
        );
    }

    #[cfg(not(debug_assertions))]
    fn assert_writer(&self) {}
}

/// Adds to a cell that has no other writer.
fn add_alone(cell: &AtomicU64, amount: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(amount), Relaxed);
}

/// The cells of the control plane; any thread may write.
#[derive(Debug)]
pub struct ControlCells {
    counters: [AtomicU64; ControlCounter::COUNT],
    gauges: [AtomicU64; ControlGauge::COUNT],
    histograms: [HistogramCells; ControlHistogram::COUNT],
}

impl ControlCells {
    pub(crate) fn new() -> Self {
        Self {
            counters: [const { AtomicU64::new(0) }; ControlCounter::COUNT],
            gauges: [const { AtomicU64::new(0) }; ControlGauge::COUNT],
            histograms: std::array::from_fn(|_| HistogramCells::new()),
        }
    }

    /// Adds to a counter.
    pub fn add(&self, counter: ControlCounter, amount: u64) {
        self.counters[counter.index()].fetch_add(amount, Relaxed);
    }

    /// Adds one to a counter.
    pub fn increment(&self, counter: ControlCounter) {
        self.add(counter, 1);
    }

    /// Sets a gauge.
    pub fn set(&self, gauge: ControlGauge, value: u64) {
        self.gauges[gauge.index()].store(value, Relaxed);
    }

    /// Raises a gauge.
    pub fn raise(&self, gauge: ControlGauge, amount: u64) {
        self.gauges[gauge.index()].fetch_add(amount, Relaxed);
    }

    /// Lowers a gauge; one that would fall below zero stays at zero.
    pub fn lower(&self, gauge: ControlGauge, amount: u64) {
        let cell = &self.gauges[gauge.index()];
        let before =
            cell.fetch_update(Relaxed, Relaxed, |value| Some(value.saturating_sub(amount)));
        debug_assert!(
            before.is_ok_and(|value| value >= amount),
            "{gauge:?} would fall below zero"
        );
    }

    /// Records a duration.
    pub fn record(&self, histogram: ControlHistogram, duration: Duration) {
        let (count, sum, nanos) = self.histograms[histogram.index()].cells(duration);
        count.fetch_add(1, Relaxed);
        sum.fetch_add(nanos, Relaxed);
    }

    /// A counter's value now.
    pub fn counter(&self, counter: ControlCounter) -> u64 {
        self.counters[counter.index()].load(Relaxed)
    }

    /// A gauge's value now.
    pub fn gauge(&self, gauge: ControlGauge) -> u64 {
        self.gauges[gauge.index()].load(Relaxed)
    }

    pub(crate) fn histogram(&self, index: usize) -> HistogramSnapshot {
        self.histograms[index].snapshot()
    }

    pub(crate) fn counters(&self) -> Vec<u64> {
        self.counters
            .iter()
            .map(|cell| cell.load(Relaxed))
            .collect()
    }

    pub(crate) fn gauges(&self) -> Vec<u64> {
        self.gauges.iter().map(|cell| cell.load(Relaxed)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauges_rise_fall_and_are_set() {
        let cells = ShardCells::new();
        cells.raise(Gauge::PeersConnected, 3);
        cells.lower(Gauge::PeersConnected, 1);
        cells.set(Gauge::FilesOpen, 7);
        assert_eq!(cells.gauge(Gauge::PeersConnected), 2);
        assert_eq!(cells.gauge(Gauge::FilesOpen), 7);
        assert_eq!(cells.gauge(Gauge::PeersUnchoked), 0);
    }

    #[test]
    #[cfg(debug_assertions)]
    fn a_second_writer_is_a_bug_that_debug_builds_find() {
        let cells = std::sync::Arc::new(ShardCells::new());
        cells.increment(Counter::SendsRing);
        let other = std::sync::Arc::clone(&cells);
        let result = std::thread::spawn(move || other.increment(Counter::SendsRing)).join();
        assert!(result.is_err());
    }

    #[test]
    fn control_cells_take_every_thread_and_lose_nothing() {
        let cells = ControlCells::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        cells.increment(ControlCounter::AnnouncesOk);
                        cells.raise(ControlGauge::AnnouncesInFlight, 2);
                        cells.lower(ControlGauge::AnnouncesInFlight, 1);
                    }
                });
            }
        });
        assert_eq!(cells.counter(ControlCounter::AnnouncesOk), 4_000);
        assert_eq!(cells.gauge(ControlGauge::AnnouncesInFlight), 4_000);
    }
}
