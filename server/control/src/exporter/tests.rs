//! Tests of the exporter: exact text, and Prometheus' own checker where it is installed.

use super::*;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

fn exporter(shards: usize) -> (Arc<Registry>, Exporter) {
    let registry = Arc::new(Registry::new(shards));
    let build = BuildInfo {
        version: "1.2.3".to_owned(),
        commit: "abc".to_owned(),
    };
    let exporter = Exporter::new(Arc::clone(&registry), &build).unwrap();
    (registry, exporter)
}

/// The value of the line that starts with this series.
fn value(text: &str, series: &str) -> Option<f64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    Some(line.parse().unwrap())
}

#[test]
fn what_is_counted_is_what_is_exported() {
    let (registry, exporter) = exporter(2);
    registry.shard(0).add(Counter::UploadedBytes, 1_000);
    registry.shard(1).add(Counter::UploadedBytes, 2);
    registry.shard(0).add(Counter::ClosedIdle, 3);
    registry.shard(1).add(Counter::ClosedIdle, 4);
    registry.shard(1).set(Gauge::PeersInterested, 5);
    registry.control().add(ControlCounter::AnnouncesOk, 6);
    registry.control().set(ControlGauge::TorrentsSeeding, 7);
    let text = exporter.render();
    for (series, expected) in [
        ("seedring_uploaded_bytes_total{shard=\"0\"}", 1_000.0),
        ("seedring_uploaded_bytes_total{shard=\"1\"}", 2.0),
        ("seedring_connections_closed_total{reason=\"idle\"}", 7.0),
        ("seedring_connections_closed_total{reason=\"peer\"}", 0.0),
        ("seedring_peers_interested", 5.0),
        ("seedring_announces_total{result=\"ok\"}", 6.0),
        ("seedring_torrents{state=\"seeding\"}", 7.0),
    ] {
        assert_eq!(value(&text, series), Some(expected), "{series}");
    }
    assert!(
        text.contains("seedring_build_info{version=\"1.2.3\",commit=\"abc\""),
        "{text}"
    );
    assert!(value(&text, "process_cpu_seconds_total").unwrap() >= 0.0);

    // The next scrape sees what was added since, and gauges that fell.
    registry.shard(0).add(Counter::UploadedBytes, 1);
    registry.shard(1).set(Gauge::PeersInterested, 0);
    let text = exporter.render();
    assert_eq!(
        value(&text, "seedring_uploaded_bytes_total{shard=\"0\"}"),
        Some(1_001.0)
    );
    assert_eq!(value(&text, "seedring_peers_interested"), Some(0.0));
}

#[test]
fn histograms_are_cumulative_and_their_sums_exact() {
    let (registry, exporter) = exporter(2);
    registry
        .shard(0)
        .record(Histogram::RequestDuration, Duration::from_micros(3));
    registry
        .shard(1)
        .record(Histogram::RequestDuration, Duration::from_millis(2));
    registry
        .shard(1)
        .record(Histogram::RequestDuration, Duration::from_secs(100));
    let text = exporter.render();
    let name = "seedring_request_duration_seconds";
    for (series, expected) in [
        ("_bucket{le=\"0.000001\"}", 0.0),
        ("_bucket{le=\"0.000003\"}", 1.0),
        ("_bucket{le=\"0.001536\"}", 1.0),
        ("_bucket{le=\"0.002048\"}", 2.0),
        ("_bucket{le=\"67.108864\"}", 2.0),
        ("_bucket{le=\"+Inf\"}", 3.0),
        ("_count", 3.0),
        ("_sum", 100.002003),
    ] {
        assert_eq!(
            value(&text, &format!("{name}{series}")),
            Some(expected),
            "{series}"
        );
    }
}

#[test]
fn every_family_is_described_and_has_a_series_before_anything_happens() {
    let (_registry, exporter) = exporter(1);
    let text = exporter.render();
    let families = [
        Counter::FAMILIES,
        ControlCounter::FAMILIES,
        Gauge::FAMILIES,
        ControlGauge::FAMILIES,
        Histogram::FAMILIES,
        ControlHistogram::FAMILIES,
    ];
    for family in families.into_iter().flatten() {
        assert!(
            text.contains(&format!("# HELP {} {}\n", family.name, family.help)),
            "{family:?}"
        );
        let samples = text.lines().filter(|line| line.starts_with(family.name));
        assert!(samples.count() >= family.series.len(), "{family:?}");
    }
}

#[test]
fn a_shard_more_adds_few_series() {
    let lines = |shards| {
        let text = exporter(shards).1.render();
        // Another test's thread may be taken for a shard.
        text.lines()
            .filter(|line| !line.starts_with("seedring_shard_cpu_seconds_total{"))
            .count()
    };
    let families = Counter::FAMILIES.iter().chain(Gauge::FAMILIES);
    let per_shard: usize = families
        .filter(|family| family.scope == Scope::PerShard)
        .map(|family| family.series.len())
        .sum();
    assert_eq!(lines(33) - lines(1), 32 * per_shard);
    assert!(lines(1) < 1_100);
}

#[test]
fn promtool_has_no_complaint() {
    if Command::new("promtool").arg("--version").output().is_err() {
        eprintln!("skipped: promtool is not installed (apt-get install prometheus)");
        return;
    }
    let (registry, exporter) = exporter(2);
    registry
        .shard(0)
        .record(Histogram::DiskReadDuration, Duration::from_millis(2));
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(exporter.render().as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success() && said.is_empty(),
        "{}",
        String::from_utf8_lossy(&said)
    );
}
