//! What a command line asks for and cannot be ends with exit code 2 before anything is made or
//! started, and a reader that has gone ends nothing.

// A step of the test that fails is the report.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::process::{Command, Stdio};

const BENCH: &str = env!("CARGO_BIN_EXE_seedring-bench");

/// A comparison that needs no other program and takes no time.
const SHORT: &str = "hash kernels --size 16K --piece-size 16K --duration 0 --rounds 1 --only sha1";

/// Runs a command line to its end: its exit code, and what it said on stderr.
fn run(line: &str) -> (Option<i32>, String) {
    let mut bench = Command::new(BENCH);
    bench.args(line.split_whitespace()).stdin(Stdio::null());
    // Where no folder can be made: who tries before it has looked at its options says so.
    bench.env("TMPDIR", "/no/such/folder/for/temporary/files");
    let output = bench.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

#[test]
fn what_cannot_be_is_told_before_anything_is_made() {
    let here = tempfile::tempdir().unwrap();
    let empty = here.path().join("empty");
    File::create(&empty).unwrap();
    let (here_path, empty) = (here.path().display(), empty.display());
    let magnet = "magnet:?xt=urn:btih:0123456789012345678901234567890123456789";
    let seed = format!("seed --torrent {magnet} --address 127.0.0.1:1");
    // Any program stands for the server where another option is wrong.
    let get = format!("get --seedring {BENCH}");
    let core = "no core 9999 for this process: choose among";
    let table = format!(
        "hash check --seedring /nope | \"/nope\" | no such program: build
        get --seedring /nope | \"/nope\" | no such program: build
        create --libtorrent-python /nope | \"/nope\" | no such program: give
        create --data /nope | \"/nope\" | No such file
        create --data {empty} | empty\" | it is empty: give a file
        create --data {here_path} | --data | no regular file: give a file
        create --directory /nope | \"/nope\" | make the folder first
        hash check --directory /nope | \"/nope\" | make the folder first
        torrents --directory /nope | \"/nope\" | make the folder first
        {get} --directory /nope | \"/nope\" | make the folder first
        create --directory {empty} | empty\" | it is no folder: make
        create --pin 9999 | --pin 9999 | {core}
        hash check --pin 9999 | --pin 9999 | {core}
        hash kernels --pin 9999 | --pin 9999 | {core}
        torrents --pin 9999 | --pin 9999 | {core}
        {get} --seed-pin 9999 | --seed-pin 9999 | {core}
        {seed} --pin 9999 | --pin 9999 | {core}
        rivals --server-cores 9999 | --server-cores 9999 | {core}
        rivals --directory /no/such | \"/no/such\" | make the folder first
        {get} --address 203.0.113.1 | 203.0.113.1 | an address that it has
        create --piece-size 16K --size 100G | --piece-size 16K | longer pieces
        create --directory {here_path} --size 900000G --piece-size 512M | --size | has room for
        hash kernels --size 900000G | --size | ask for at most
        {seed} --peers 10000000 | --peers 10000000 | ask for at most
        seed --torrent /nope --address 127.0.0.1:1 | \"/nope\" | No such file"
    );
    for row in table.lines() {
        let [line, object, why] = columns(row);
        let (code, said) = run(line);
        assert_eq!(code, Some(2), "{line}: {said}");
        assert!(said.starts_with("seedring-bench: --"), "{line}: {said}");
        assert!(said.contains(object), "{line}: {said}");
        assert!(said.contains(why), "{line}: {said}");
        assert_eq!(said.lines().count(), 1, "{line}: {said}");
    }
    let left: Vec<_> = fs::read_dir(here.path()).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

/// A command line, and two things that must be said of it.
fn columns(row: &str) -> [&str; 3] {
    let columns: Vec<&str> = row.split(" | ").map(str::trim).collect();
    columns.try_into().unwrap()
}

#[test]
fn what_is_no_quantity_is_refused_where_it_is_read() {
    let table = "create --size 0 | --size | must be at least 1 B
        torrents --size 0 | --size | must be at least 1 B
        torrents --count 1000001 | --count | must be at most 1000000
        create --threads 0 | --threads | must be at least 1
        hash check --threads 1,0 | --threads | must be at least 1
        rivals --size 1000 | --size | whole number of them, not 1000 B
        rivals --cold-with-hot --hot-size 1000 | --hot-size | not 1000 B
        get --round-trip 10001 --link-rate 1M | --round-trip | from 0 to 10000";
    for row in table.lines() {
        let [line, option, why] = columns(row);
        let (code, said) = run(line);
        assert_eq!(code, Some(2), "{line}: {said}");
        assert!(said.contains(option), "{line}: {said}");
        assert!(said.contains(why), "{line}: {said}");
    }
}

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
