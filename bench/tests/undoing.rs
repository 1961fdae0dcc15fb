//! What `seedring-bench rivals` starts is gone when it is interrupted, and when it is killed.
//!
//! The server is a script that never serves, so nothing here waits for a measurement.

// A step of the test that fails is the report.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const BENCH: &str = env!("CARGO_BIN_EXE_seedring-bench");

/// A wait that is over long before, unless something is wrong.
const LIMIT: Duration = Duration::from_secs(60);

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "{what} within {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
    // A zombie is gone; only its parent does not know yet.
    state.is_some_and(|state| !state.starts_with('Z'))
}

/// Whether a process runs that was told of `directory`: the server, or what keeps the content in
/// memory.
fn anything_runs_in(directory: &Path) -> bool {
    let name = directory.as_os_str().as_encoded_bytes();
    let mut processes = fs::read_dir("/proc").unwrap().flatten();
    processes.any(|process| {
        let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
        command.windows(name.len()).any(|part| part == name)
    })
}

/// Ends the child however its test ends.
struct Bench(Child);

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a comparison of one server that leaves its process ids in `directory` and never serves.
fn start(directory: &Path, stderr: Stdio) -> (Bench, [u32; 2]) {
    let script = directory.join("server");
    let pids = directory.join("pids");
    let (temporary, content) = (directory.join("tmp"), directory.join("content"));
    fs::create_dir(&temporary).unwrap();
    let text = format!(
        "#!/bin/sh\nsleep 1000 &\necho $$ $! > {0}.new\nmv {0}.new {0}\nwait\n",
        pids.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let child = Command::new(BENCH)
        .args([
            "rivals", "--rivals", "none", "--rounds", "1", "--size", "1M",
        ])
        .args(["--congestion-control", "system", "--seedring"])
        .arg(&script)
        .arg("--directory")
        .arg(content)
        .env("TMPDIR", &temporary)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .unwrap();
    let bench = Bench(child);
    let text = wait_for("the server starts", || fs::read_to_string(&pids).ok());
    let found: Vec<u32> = text
        .split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect();
    assert!(runs(found[0]) && runs(found[1]));
    (bench, [found[0], found[1]])
}

fn has_two_cores() -> bool {
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let has = allowed.is_set(0) && allowed.is_set(1);
    if !has {
        eprintln!("skipped: servers and load need a core each, 0 and 1");
    }
    has
}

#[test]
fn an_interrupt_stops_servers_and_removes_directories() {
    interrupt(Stdio::inherit());
}

#[test]
fn an_interrupt_is_heard_when_nobody_reads_what_is_said() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    interrupt(writer.into());
}

fn interrupt(stderr: Stdio) {
    if !has_two_cores() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (mut bench, pids) = start(directory.path(), stderr);
    let temporary = directory.path().join("tmp");
    assert!(fs::read_dir(&temporary).unwrap().count() > 0);
    kill_process(Pid::from_child(&bench.0), Signal::INT).unwrap();
    let status = bench.0.wait().unwrap();
    assert_eq!(status.code(), Some(130), "{status}");
    for pid in pids {
        wait_for("the server and its child are gone", || {
            (!runs(pid)).then_some(())
        });
    }
    wait_for("all is gone", || {
        (!anything_runs_in(directory.path())).then_some(())
    });
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
}

#[test]
fn the_kernel_ends_a_server_whose_bench_was_killed() {
    if !has_two_cores() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (mut bench, [server, child]) = start(directory.path(), Stdio::inherit());
    kill_process(Pid::from_child(&bench.0), Signal::KILL).unwrap();
    let status = bench.0.wait().unwrap();
    assert_eq!(status.signal(), Some(9), "{status}");
    wait_for("the server is gone", || (!runs(server)).then_some(()));
    wait_for("all is gone", || {
        (!anything_runs_in(directory.path())).then_some(())
    });
    // A server's own child is its own to stop; this one's is a shell's, which stops none.
    if let Some(child) = Pid::from_raw(child.cast_signed()) {
        let _ = kill_process(child, Signal::KILL);
    }
}
