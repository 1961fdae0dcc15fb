//! The catalogue of metrics: what is measured, and the cells that it is counted in.
//!
//! A metric is declared once, in [`catalogue`], with its Prometheus name, type, help and labels. A
//! shard counts into [`ShardCells`] of its own, the control plane into one [`ControlCells`]; the
//! exporter reads a [`Snapshot`] of all of them.
//!
//! Limits: the set of series is fixed when the program is compiled, times the number of shards for
//! the few families marked `per_shard`. No peer, torrent, tracker or client can add a series, so
//! 100,000 torrents cost the monitoring nothing.
//!
//! Does not: format anything, know Prometheus' text format, or read clocks; callers pass durations.
#![forbid(unsafe_code)]

pub mod catalogue;
mod cells;
mod histogram;
mod registry;

pub use catalogue::{
    ControlCounter, ControlGauge, ControlHistogram, Counter, Family, Gauge, Histogram, Metric,
    Scope, Series,
};
pub use cells::{ControlCells, ShardCells};
pub use histogram::{BUCKETS, HistogramSnapshot, bucket_bound_us};
pub use registry::{CellsSnapshot, ControlSnapshot, Registry, ShardSnapshot, Snapshot};
