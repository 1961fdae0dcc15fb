//! What `seedring-bench` says: a reader that has gone ends nothing, and a lost report is a failure.

// A step of the test that fails is the report.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::process::{Command, Stdio};

const BENCH: &str = env!("CARGO_BIN_EXE_seedring-bench");

/// A comparison that needs no other program and takes no time.
const SHORT: &str = "hash kernels --size 16K --piece-size 16K --duration 0 --rounds 1 --only sha1";

#[test]
fn a_reader_that_has_gone_ends_nothing() {
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer
    };
    for line in [SHORT.to_owned(), format!("{SHORT} --json")] {
        let mut bench = Command::new(BENCH);
        bench.args(line.split_whitespace()).stdin(Stdio::null());
        let output = bench.stdout(closed()).stderr(Stdio::piped()).output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        let progress = said
            .lines()
            .all(|line| line.starts_with("round 1 of 1: sha1"));
        assert!(progress, "{said}");
        // As `2>&1 | head` does.
        let status = bench.stdout(closed()).stderr(closed()).status().unwrap();
        assert_eq!(status.code(), Some(0));
    }
}

#[test]
fn a_report_that_is_lost_is_a_failure() {
    let mut bench = Command::new(BENCH);
    bench.args(SHORT.split_whitespace()).stdin(Stdio::null());
    let full = File::create("/dev/full").unwrap();
    let output = bench.stdout(full).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot write the report to stdout"), "{said}");
}
