//! The micro-benchmarks by time: `cargo bench -p seedring-bench --bench micro [-- FILTER]`.
//!
//! Criterion keeps its samples under `target/criterion` and compares with the last run. With
//! `--test`, or under `cargo test --bench micro`, each runs once and nothing is timed. For figures
//! that do not drift with the machine see `counts`.
#![forbid(unsafe_code)]

mod workloads;

use criterion::{Criterion, Throughput};

use crate::workloads::Amount;

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(std::time::Duration::from_millis(500))
        .measurement_time(std::time::Duration::from_secs(2))
        .configure_from_args();
    for workload in workloads::all() {
        let (group, name) = workload.name.split_once('/').unwrap_or(("", workload.name));
        let mut group = criterion.benchmark_group(group);
        group.throughput(match workload.amount {
            Amount::Bytes(bytes) => Throughput::Bytes(bytes),
            Amount::Elements(elements) => Throughput::Elements(elements),
        });
        group.bench_function(name, |bencher| {
            // Only what the filter selects is prepared.
            let mut run = (workload.prepare)();
            workloads::check(&workload, &mut run);
            bencher.iter(&mut run);
        });
        group.finish();
    }
    criterion.final_summary();
}
