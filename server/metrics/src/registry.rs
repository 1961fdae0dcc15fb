//! The cells of all shards and of the control plane in one place, and snapshots of them.
//!
//! A snapshot reads each cell once, relaxed: two counters of one snapshot may be one event apart.

use crate::catalogue::{
    ControlCounter, ControlGauge, ControlHistogram, Counter, Gauge, Histogram, Metric,
};
use crate::cells::{ControlCells, ShardCells};
use crate::histogram::HistogramSnapshot;
use std::marker::PhantomData;
use std::sync::Arc;

/// All cells of the process.
#[derive(Debug)]
pub struct Registry {
    shards: Vec<Arc<ShardCells>>,
    control: Arc<ControlCells>,
}

impl Registry {
    /// Cells for this many shards and for the control plane, all zero.
    pub fn new(shards: usize) -> Self {
        Self {
            shards: (0..shards).map(|_| Arc::new(ShardCells::new())).collect(),
            control: Arc::new(ControlCells::new()),
        }
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// The cells of one shard.
    ///
    /// # Panics
    ///
    /// If there is no such shard, which is a bug of ours.
    pub fn shard(&self, shard: usize) -> Arc<ShardCells> {
        Arc::clone(&self.shards[shard])
    }

    /// The cells of the control plane.
    pub fn control(&self) -> Arc<ControlCells> {
        Arc::clone(&self.control)
    }

    /// The value of every cell now.
    pub fn snapshot(&self) -> Snapshot {
        let shards = self.shards.iter().map(|cells| ShardSnapshot {
            counters: cells.counters(),
            gauges: cells.gauges(),
            histograms: (0..Histogram::COUNT)
                .map(|index| cells.histogram(index))
                .collect(),
            kinds: PhantomData,
        });
        let control = ControlSnapshot {
            counters: self.control.counters(),
            gauges: self.control.gauges(),
            histograms: (0..ControlHistogram::COUNT)
                .map(|index| self.control.histogram(index))
                .collect(),
            kinds: PhantomData,
        };
        Snapshot {
            shards: shards.collect(),
            control,
        }
    }
}

/// The values of one block of cells; the type parameters are its three enums.
#[derive(Debug, Clone)]
pub struct CellsSnapshot<C, G, H> {
    counters: Vec<u64>,
    gauges: Vec<u64>,
    histograms: Vec<HistogramSnapshot>,
    kinds: PhantomData<(C, G, H)>,
}

/// The values of one shard.
pub type ShardSnapshot = CellsSnapshot<Counter, Gauge, Histogram>;
/// The values of the control plane.
pub type ControlSnapshot = CellsSnapshot<ControlCounter, ControlGauge, ControlHistogram>;

impl<C: Metric, G: Metric, H: Metric> CellsSnapshot<C, G, H> {
    /// A counter.
    pub fn counter(&self, counter: C) -> u64 {
        self.counters[counter.index()]
    }

    /// A gauge.
    pub fn gauge(&self, gauge: G) -> u64 {
        self.gauges[gauge.index()]
    }

    /// A histogram.
    pub fn histogram(&self, histogram: H) -> &HistogramSnapshot {
        &self.histograms[histogram.index()]
    }

    /// All counters, indexed as [`crate::Series::index`] says.
    pub fn counters(&self) -> &[u64] {
        &self.counters
    }

    /// All gauges, indexed as [`crate::Series::index`] says.
    pub fn gauges(&self) -> &[u64] {
        &self.gauges
    }

    /// All histograms, indexed as [`crate::Series::index`] says.
    pub fn histograms(&self) -> &[HistogramSnapshot] {
        &self.histograms
    }
}

/// The values of all cells.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Each shard's.
    pub shards: Vec<ShardSnapshot>,
    /// The control plane's.
    pub control: ControlSnapshot,
}

impl Snapshot {
    /// A counter, summed over shards.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.shards.iter().map(|shard| shard.counter(counter)).sum()
    }

    /// A gauge, summed over shards.
    pub fn gauge(&self, gauge: Gauge) -> u64 {
        self.shards.iter().map(|shard| shard.gauge(gauge)).sum()
    }

    /// A histogram, merged over shards.
    pub fn histogram(&self, histogram: Histogram) -> HistogramSnapshot {
        let mut merged = HistogramSnapshot::default();
        for shard in &self.shards {
            merged.merge(shard.histogram(histogram));
        }
        merged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{Family, Scope};
    use std::collections::HashSet;
    use std::time::Duration;

    #[test]
    fn a_snapshot_holds_what_was_counted() {
        let registry = Registry::new(2);
        registry.shard(0).add(Counter::UploadedBytes, 10);
        registry.shard(1).add(Counter::UploadedBytes, 5);
        registry.shard(1).set(Gauge::PeersConnected, 4);
        registry
            .shard(0)
            .record(Histogram::RequestDuration, Duration::from_micros(3));
        registry
            .shard(1)
            .record(Histogram::RequestDuration, Duration::from_secs(100));
        registry.control().add(ControlCounter::AnnouncesOk, 2);
        let snapshot = registry.snapshot();
        assert_eq!(snapshot.counter(Counter::UploadedBytes), 15);
        assert_eq!(snapshot.shards[1].counter(Counter::UploadedBytes), 5);
        assert_eq!(snapshot.gauge(Gauge::PeersConnected), 4);
        assert_eq!(snapshot.control.counter(ControlCounter::AnnouncesOk), 2);
        let histogram = snapshot.histogram(Histogram::RequestDuration);
        assert_eq!(histogram.count(), 2);
        assert_eq!(histogram.counts[2], 1);
        assert_eq!(histogram.counts[crate::BUCKETS], 1);
        assert_eq!(histogram.sum_ns, 100_000_003_000);
    }

    #[test]
    fn the_catalogue_keeps_the_naming_rules() {
        let mut names = HashSet::new();
        check(&mut names, Counter::FAMILIES, Counter::COUNT, "_total");
        check(
            &mut names,
            ControlCounter::FAMILIES,
            ControlCounter::COUNT,
            "_total",
        );
        check(&mut names, Gauge::FAMILIES, Gauge::COUNT, "");
        check(&mut names, ControlGauge::FAMILIES, ControlGauge::COUNT, "");
        check(
            &mut names,
            Histogram::FAMILIES,
            Histogram::COUNT,
            "_seconds",
        );
        check(
            &mut names,
            ControlHistogram::FAMILIES,
            ControlHistogram::COUNT,
            "_seconds",
        );
        for family in ControlCounter::FAMILIES
            .iter()
            .chain(ControlGauge::FAMILIES)
        {
            assert_eq!(
                family.scope,
                Scope::Summed,
                "{}: no shards there",
                family.name
            );
        }
    }

    fn check(
        names: &mut HashSet<&'static str>,
        families: &[Family],
        count: usize,
        suffix: &'static str,
    ) {
        let mut cells = HashSet::new();
        for family in families {
            assert!(
                names.insert(family.name),
                "{} is declared twice",
                family.name
            );
            assert!(family.name.starts_with("seedring_"), "{}", family.name);
            assert!(family.name.ends_with(suffix), "{}", family.name);
            assert!(
                !suffix.is_empty() || !family.name.ends_with("_total"),
                "{}",
                family.name
            );
            assert!(
                family.help.ends_with('.'),
                "{}: {}",
                family.name,
                family.help
            );
            let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(family.name.chars().all(legal), "{}", family.name);
            let mut values = HashSet::new();
            for series in family.series {
                assert!(
                    cells.insert(series.index),
                    "{}: a cell counted twice",
                    family.name
                );
                assert_eq!(
                    series.value.is_some(),
                    family.label.is_some(),
                    "{}",
                    family.name
                );
                assert!(
                    values.insert(series.value),
                    "{}: a label value twice",
                    family.name
                );
            }
        }
        assert_eq!(cells.len(), count);
    }
}
