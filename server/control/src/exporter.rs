//! The text of `/metrics`: the catalogue's cells, and what `/proc` says of this process.
//!
//! Counters and gauges go through metrics-exporter-prometheus. Histograms do not: its recorder
//! keeps every sample, with a time stamp, until the next scrape, which at 600,000 blocks a second
//! is 200 MB; our cells hold the buckets already, so they are written as they are. Neither do
//! CPU seconds, because its counters are whole numbers.
//!
//! Limits: the number of series is fixed at the start; see [`seedring_metrics`].

mod process;
mod text;

#[cfg(test)]
mod tests;

use metrics::{Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use seedring_metrics::{
    BUCKETS, ControlCounter, ControlGauge, ControlHistogram, Counter, Family, Gauge, Histogram,
    HistogramSnapshot, Metric, Registry, Scope, Snapshot, bucket_bound_us,
};
use std::sync::Arc;

/// The content type of what [`Exporter::render`] returns.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What `seedring_build_info` says.
#[derive(Debug, Clone)]
pub struct BuildInfo {
    /// The version of the program.
    pub version: String,
    /// The commit that it was built from; "unknown" where the build did not say.
    pub commit: String,
}

/// Writes all metrics as text for Prometheus.
pub struct Exporter {
    registry: Arc<Registry>,
    handle: PrometheusHandle,
    counters: Vec<(metrics::Counter, Cell)>,
    gauges: Vec<(metrics::Gauge, Cell)>,
    process: ProcessGauges,
}

impl std::fmt::Debug for Exporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exporter")
            .field("registry", &self.registry)
            .finish_non_exhaustive()
    }
}

/// Where the value of a series is.
#[derive(Debug, Clone, Copy)]
enum Cell {
    /// One shard's.
    Shard { shard: usize, index: usize },
    /// The sum over shards.
    Sum { index: usize },
    /// The control plane's.
    Control { index: usize },
}

/// Gauges of the process, each in its unit.
struct ProcessGauges {
    resident_bytes: metrics::Gauge,
    virtual_bytes: metrics::Gauge,
    open_fds: metrics::Gauge,
    max_fds: metrics::Gauge,
    threads: metrics::Gauge,
}

const METADATA: Metadata<'static> = Metadata::new("seedring", Level::INFO, None);

impl Exporter {
    /// An exporter of these cells.
    ///
    /// # Errors
    ///
    /// If the recorder refuses our buckets, which would be a bug of ours.
    pub fn new(registry: Arc<Registry>, build: &BuildInfo) -> Result<Self, BuildError> {
        // Buckets for whatever else may record a histogram: without them it would be a summary.
        let bounds: Vec<f64> = (0..BUCKETS)
            .map(|bucket| text::seconds_of_us(bucket_bound_us(bucket)))
            .collect();
        let recorder = PrometheusBuilder::new()
            .set_buckets(&bounds)?
            .with_recommended_naming(true)
            .build_recorder();
        let gauge = |name: &'static str, help: &'static str| {
            recorder.describe_gauge(name.into(), None, help.into());
            recorder.register_gauge(&Key::from_name(name), &METADATA)
        };
        let process = ProcessGauges {
            resident_bytes: gauge("process_resident_memory_bytes", "Resident memory."),
            virtual_bytes: gauge("process_virtual_memory_bytes", "Virtual memory."),
            open_fds: gauge("process_open_fds", "File descriptors that are open."),
            max_fds: gauge("process_max_fds", "The soft limit of file descriptors."),
            threads: gauge("process_threads", "Threads."),
        };
        if let Some(start_seconds) = process::start_time_seconds() {
            gauge(
                "process_start_time_seconds",
                "Start of the process, seconds since 1970 (UTC).",
            )
            .set(start_seconds);
        }
        let labels = vec![
            Label::new("version", build.version.clone()),
            Label::new("commit", build.commit.clone()),
            Label::new("arch", std::env::consts::ARCH),
        ];
        let key = Key::from_parts("seedring_build_info", labels);
        let help = "Always 1; its labels say what is running.";
        recorder.describe_gauge("seedring_build_info".into(), None, help.into());
        recorder.register_gauge(&key, &METADATA).set(1.0);

        let shards = registry.shards();
        let mut counters = Vec::new();
        for family in Counter::FAMILIES.iter().chain(ControlCounter::FAMILIES) {
            recorder.describe_counter(family.name.into(), None, family.help.into());
        }
        for (key, cell) in series::<Counter, ControlCounter>(shards) {
            counters.push((recorder.register_counter(&key, &METADATA), cell));
        }
        let mut gauges = Vec::new();
        for family in Gauge::FAMILIES.iter().chain(ControlGauge::FAMILIES) {
            recorder.describe_gauge(family.name.into(), None, family.help.into());
        }
        for (key, cell) in series::<Gauge, ControlGauge>(shards) {
            gauges.push((recorder.register_gauge(&key, &METADATA), cell));
        }
        Ok(Self {
            handle: recorder.handle(),
            registry,
            counters,
            gauges,
            process,
        })
    }

    /// All metrics now, in Prometheus' text format.
    pub fn render(&self) -> String {
        let snapshot = self.registry.snapshot();
        for (counter, cell) in &self.counters {
            counter.absolute(cell.counter(&snapshot));
        }
        for (gauge, cell) in &self.gauges {
            // Beyond 2^53 a gauge is rounded; no gauge of ours comes near.
            gauge.set(cell.gauge(&snapshot) as f64);
        }
        let process = process::read();
        for (gauge, value) in [
            (&self.process.resident_bytes, process.resident_bytes),
            (&self.process.virtual_bytes, process.virtual_bytes),
            (&self.process.open_fds, process.open_fds),
            (&self.process.max_fds, process.max_fds),
            (&self.process.threads, process.threads),
        ] {
            if let Some(value) = value {
                gauge.set(value as f64);
            }
        }
        // The recorder asks for this once in a while: it publishes what was described.
        self.handle.run_upkeep();
        let mut text = self.handle.render();
        self.render_rest(&mut text, &snapshot, &process);
        text
    }

    /// What the recorder cannot hold: histograms and CPU seconds.
    fn render_rest(&self, text: &mut String, snapshot: &Snapshot, process: &process::Process) {
        for family in Histogram::FAMILIES {
            let mut merged = HistogramSnapshot::default();
            for series in family.series {
                for shard in &snapshot.shards {
                    merged.merge(&shard.histograms()[series.index]);
                }
            }
            text::histogram(text, family, &merged);
        }
        for family in ControlHistogram::FAMILIES {
            let mut merged = HistogramSnapshot::default();
            for series in family.series {
                merged.merge(&snapshot.control.histograms()[series.index]);
            }
            text::histogram(text, family, &merged);
        }
        if let Some(seconds) = process.cpu_seconds {
            text::head(
                text,
                "process_cpu_seconds_total",
                "counter",
                "User and system CPU time.",
            );
            text::sample(text, "process_cpu_seconds_total", None, seconds);
        }
        let name = "seedring_shard_cpu_seconds_total";
        let help = "CPU time of each shard's thread; a rate of 1 is a whole core.";
        text::head(text, name, "counter", help);
        for (shard, seconds) in process::shard_cpu_seconds(self.registry.shards()) {
            text::sample(text, name, Some(("shard", &shard.to_string())), seconds);
        }
    }
}

impl Cell {
    fn counter(self, snapshot: &Snapshot) -> u64 {
        match self {
            Cell::Shard { shard, index } => snapshot.shards[shard].counters()[index],
            Cell::Sum { index } => snapshot.shards.iter().map(|s| s.counters()[index]).sum(),
            Cell::Control { index } => snapshot.control.counters()[index],
        }
    }

    fn gauge(self, snapshot: &Snapshot) -> u64 {
        match self {
            Cell::Shard { shard, index } => snapshot.shards[shard].gauges()[index],
            Cell::Sum { index } => snapshot.shards.iter().map(|s| s.gauges()[index]).sum(),
            Cell::Control { index } => snapshot.control.gauges()[index],
        }
    }
}

/// The series of a kind: the shards' and the control plane's.
fn series<S: Metric, C: Metric>(shards: usize) -> Vec<(Key, Cell)> {
    let mut all = Vec::new();
    for family in S::FAMILIES {
        for series in family.series {
            let index = series.index;
            match family.scope {
                Scope::Summed => {
                    all.push((key(family, series.value, None), Cell::Sum { index }));
                }
                Scope::PerShard => {
                    for shard in 0..shards {
                        let cell = Cell::Shard { shard, index };
                        all.push((key(family, series.value, Some(shard)), cell));
                    }
                }
            }
        }
    }
    for family in C::FAMILIES {
        for series in family.series {
            let cell = Cell::Control {
                index: series.index,
            };
            all.push((key(family, series.value, None), cell));
        }
    }
    all
}

fn key(family: &Family, value: Option<&'static str>, shard: Option<usize>) -> Key {
    let mut labels = Vec::new();
    if let (Some(label), Some(value)) = (family.label, value) {
        labels.push(Label::from_static_parts(label, value));
    }
    if let Some(shard) = shard {
        labels.push(Label::new("shard", shard.to_string()));
    }
    Key::from_parts(family.name, labels)
}
