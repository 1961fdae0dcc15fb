//! Prometheus' text format, for what the recorder does not write.

use seedring_metrics::{BUCKETS, Family, HistogramSnapshot, bucket_bound_us};
use std::fmt::Write;

/// Microseconds as seconds.
pub(super) fn seconds_of_us(us: u64) -> f64 {
    us as f64 / 1e6
}

/// The help and type of a family. Names and helps are our own and hold nothing to escape.
pub(super) fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string cannot fail, here and below.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// One sample with at most one label, whose value is our own too.
pub(super) fn sample(text: &mut String, name: &str, label: Option<(&str, &str)>, value: f64) {
    let _ = match label {
        Some((label, of)) => writeln!(text, "{name}{{{label}=\"{of}\"}} {value}"),
        None => writeln!(text, "{name} {value}"),
    };
}

/// A histogram with its cumulative buckets.
pub(super) fn histogram(text: &mut String, family: &Family, histogram: &HistogramSnapshot) {
    let name = family.name;
    head(text, name, "histogram", family.help);
    let mut cumulative = 0;
    for (bucket, count) in histogram.counts.iter().enumerate() {
        cumulative += count;
        let _ = if bucket < BUCKETS {
            let bound = seconds_of_us(bucket_bound_us(bucket));
            writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {cumulative}")
        } else {
            writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {cumulative}")
        };
    }
    let sum_seconds = histogram.sum_ns as f64 / 1e9;
    let _ = writeln!(
        text,
        "{name}_sum {sum_seconds}\n{name}_count {cumulative}\n"
    );
}
