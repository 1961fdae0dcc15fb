//! io_uring refused: one line with cause and cure, exit code 3 (RELIABILITY.md promise 11).
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use seedring_tests::clients::script;
use seedring_tests::content::write_file;
use seedring_tests::need;
use seedring_tests::process::Process;
use seedring_tests::server::{SHORT, Seed};
use seedring_tests::skip::{Skip, is_root, program};
use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const SYSCTL: &str = "/proc/sys/kernel/io_uring_disabled";

/// Starts a seed under `prefix` and waits for its end.
fn refused(prefix: &[OsString], root: &Path) -> (Option<i32>, Process) {
    let file = root.join("file.bin");
    write_file(&file, 100_000, 3);
    let state = root.join("state");
    let seed = Seed::path(&file)
        .options(["--no-tracker"])
        .state_dir(&state);
    let (mut process, _) = seed.under(prefix.to_vec()).launch();
    let status = process.wait_exit(SHORT);
    (status.code(), process)
}

fn one_line_with(process: &Process, words: &[&str]) {
    let stderr = process.stderr();
    let lines: Vec<&str> = stderr
        .lines()
        .filter(|line| line.contains("io_uring"))
        .collect();
    assert_eq!(lines.len(), 1, "one line names io_uring: {stderr}");
    for word in words {
        assert!(lines[0].contains(word), "{word:?} is not in {:?}", lines[0]);
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
    assert!(
        !process.stdout().contains("\"ready\""),
        "ready without a ring"
    );
}

fn seccomp(error: &str) -> Vec<OsString> {
    let python = program("python3", "python3").unwrap();
    vec![
        python.into(),
        script("refuse_io_uring.py").into(),
        error.into(),
    ]
}

#[test]
fn a_seccomp_filter_that_answers_eperm() {
    need!(
        "a_seccomp_filter_that_answers_eperm",
        program("python3", "python3")
    );
    let root = TempDir::new().unwrap();
    let (code, process) = refused(&seccomp("EPERM"), root.path());
    assert_eq!(code, Some(3), "{}", process.transcript());
    one_line_with(&process, &["seccomp"]);
}

#[test]
fn a_seccomp_filter_that_answers_enosys() {
    need!(
        "a_seccomp_filter_that_answers_enosys",
        program("python3", "python3")
    );
    let root = TempDir::new().unwrap();
    let (code, process) = refused(&seccomp("ENOSYS"), root.path());
    assert_eq!(code, Some(3), "{}", process.transcript());
    one_line_with(&process, &[]);
}

/// Puts the sysctl back, also when the test fails.
struct Restore(String);

impl Drop for Restore {
    fn drop(&mut self) {
        std::fs::write(SYSCTL, &self.0).unwrap();
    }
}

fn disabled_by_sysctl() -> Result<Restore, Skip> {
    if !is_root() {
        return Err(Skip::machine(
            "changing kernel.io_uring_disabled takes root",
        ));
    }
    let before = std::fs::read_to_string(SYSCTL)
        .map_err(|_| Skip::machine("this kernel has no kernel.io_uring_disabled (Linux 6.6)"))?;
    let restore = Restore(before);
    std::fs::write(SYSCTL, "2")
        .map_err(|error| Skip::machine(format!("kernel.io_uring_disabled: {error}")))?;
    Ok(restore)
}

#[test]
#[ignore = "turns io_uring off on the whole machine for a moment; ./test runs it alone"]
fn the_sysctl_that_disables_io_uring() {
    let root = TempDir::new().unwrap();
    let restore = need!("the_sysctl_that_disables_io_uring", disabled_by_sysctl());
    let (code, process) = refused(&[], root.path());
    drop(restore);
    assert_eq!(code, Some(3), "{}", process.transcript());
    one_line_with(&process, &["kernel.io_uring_disabled"]);
}

#[test]
fn a_small_descriptor_limit_is_kept_or_refused_in_one_line() {
    let prlimit = program("prlimit", "util-linux");
    let prlimit = need!(
        "a_small_descriptor_limit_is_kept_or_refused_in_one_line",
        prlimit
    );
    for limit in [8, 16, 32, 64, 256] {
        let root = TempDir::new().unwrap();
        let file = root.path().join("file.bin");
        write_file(&file, 100_000, 3);
        let prefix = [
            prlimit.clone().into(),
            OsString::from(format!("--nofile={limit}")),
        ];
        let seed = Seed::path(&file).options(["--no-tracker"]).under(prefix);
        let (mut process, _state) = seed.launch();
        let ready = ready_or_ended(&mut process);
        match ready {
            Some(ready) => {
                let promised = ready["descriptors_max"].as_u64().expect("descriptors_max");
                assert!(
                    promised <= limit,
                    "{promised} descriptors promised under {limit}"
                );
            }
            None => {
                let status = process.wait_exit(SHORT);
                assert!(matches!(status.code(), Some(1..=3)), "{limit}: {status}");
                assert!(
                    !process.stderr().is_empty(),
                    "{limit}: it ended without a word"
                );
            }
        }
        assert!(
            !process.stderr().contains("panicked"),
            "{limit}: {}",
            process.transcript()
        );
    }
}

/// The ready line, or `None` when the process has ended without one.
fn ready_or_ended(process: &mut Process) -> Option<serde_json::Value> {
    let until = Instant::now() + SHORT;
    loop {
        let alive = process.is_alive();
        let ready = seedring_tests::server::event(process, "ready");
        if ready.is_some() || !alive {
            return ready;
        }
        assert!(
            Instant::now() < until,
            "neither ready nor ended\n{}",
            process.transcript()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}
