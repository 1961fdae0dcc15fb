//! `seedring state` from outside: exit codes, what is refused and why, copies. The store is the one
//! that the state crate keeps of its first schema.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use seedring_tests::process::run;
use seedring_tests::server::{SHORT, seedring};
use serde_json::Value;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A copy of a store with two torrents.
fn copy() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.join("../server/state/tests/data/schema-1.redb")
}

/// Runs `seedring state ARGUMENTS --state-dir DIRECTORY`: exit code, stdout, stderr.
fn state(directory: &Path, arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> (i32, String, String) {
    let mut line: Vec<OsString> = vec!["state".into()];
    line.extend(arguments.iter().map(|argument| argument.as_ref().into()));
    line.extend(["--state-dir".into(), directory.into()]);
    let (status, process) = run("state", &seedring(line), SHORT);
    let stderr = process.stderr();
    assert!(!stderr.contains("panicked"), "{stderr}");
    (status.code().unwrap(), process.stdout(), stderr)
}

/// A directory with the store of the copy.
fn restored() -> TempDir {
    let directory = TempDir::new().unwrap();
    let (code, stdout, stderr) = state(directory.path(), &[&"restore", &copy()]);
    assert_eq!(
        (code, stdout.as_str()),
        (0, "restored 2 torrents\n"),
        "{stderr}"
    );
    directory
}

/// What `state check --json` says of a store in which nothing is wrong.
fn checked(directory: &Path) -> Value {
    let (code, stdout, stderr) = state(directory, &[&"check", &"--json"]);
    assert_eq!(code, 0, "{stderr}");
    let line: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(line["event"], "checked");
    assert_eq!(line["good"], true);
    assert_eq!(line["problems_count"], 0);
    line
}

#[test]
fn a_store_is_checked_copied_and_restored() {
    let directory = restored();
    let report = checked(directory.path());
    assert_eq!(
        (&report["torrents"], &report["schema"]),
        (&2.into(), &1.into())
    );
    assert_eq!(report["uuid"].as_str().unwrap().len(), 36);
    let (code, stdout, _) = state(directory.path(), &[&"check"]);
    assert_eq!(code, 0);
    assert!(stdout.starts_with("2 torrents, "), "{stdout}");

    let target = directory.path().join("copy");
    let (code, stdout, _) = state(directory.path(), &[&"backup", &target, &"--json"]);
    let line: Value = serde_json::from_str(&stdout).unwrap();
    let length = std::fs::metadata(&target).unwrap().len();
    assert_eq!((code, &line["bytes"]), (0, &length.into()));
    let (code, _, stderr) = state(directory.path(), &[&"backup", &target]);
    assert_eq!(code, 1);
    assert!(
        stderr.contains("exists") && stderr.contains("--force"),
        "{stderr}"
    );
    assert_eq!(
        state(directory.path(), &[&"backup", &target, &"--force"]).0,
        0
    );

    let (code, _, stderr) = state(directory.path(), &[&"restore", &target]);
    assert_eq!(code, 1);
    assert!(stderr.contains("--force"), "{stderr}");
    let (code, stdout, _) = state(
        directory.path(),
        &[&"restore", &target, &"--force", &"--json"],
    );
    let line: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &line["torrents"]), (0, &2.into()));
    assert!(
        Path::new(line["kept"].as_str().unwrap()).is_file(),
        "{line}"
    );
    assert_eq!(checked(directory.path())["uuid"], report["uuid"]);
}

#[test]
fn what_cannot_be_used_is_refused_with_what_to_do() {
    let directory = TempDir::new().unwrap();
    for arguments in [&["check"][..], &["backup", "/nowhere/copy"]] {
        let arguments: Vec<_> = arguments.iter().map(|word| word as _).collect();
        let (code, _, stderr) = state(directory.path(), &arguments);
        assert_eq!(code, 1);
        assert!(stderr.contains("there is no state store"), "{stderr}");
    }
    let store = directory.path().join("store.redb");
    assert!(!store.exists(), "looking makes none");
    let whole = std::fs::read(copy()).unwrap();
    let half = whole[..whole.len() / 2].to_vec();
    for bytes in [Vec::new(), half, vec![0; 9999], b"something else".to_vec()] {
        std::fs::write(&store, &bytes).unwrap();
        let (code, _, stderr) = state(directory.path(), &[&"check"]);
        assert_eq!(code, 1);
        assert!(stderr.contains("damaged"), "{stderr}");
        assert!(stderr.contains("seedring state restore FILE"), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        // Nor is it a backup.
        let (code, _, stderr) = state(directory.path(), &[&"restore", &store, &"--force"]);
        assert_eq!(code, 1);
        assert!(stderr.contains("no backup"), "{stderr}");
        assert_eq!(std::fs::read(&store).unwrap(), bytes, "it is as it was");
    }
    let (code, _, stderr) = state(directory.path(), &[&"restore", &copy(), &"--force"]);
    assert_eq!(code, 0, "{stderr}");
    checked(directory.path());
}

/// The schema number is changed where it stands in the file.
#[test]
fn a_store_of_a_newer_version_is_refused_and_left_alone() {
    let directory = restored();
    let store = directory.path().join("store.redb");
    let mut bytes = std::fs::read(&store).unwrap();
    let keys = b"schematotalsuuid";
    let mut changed = 0;
    for at in 0..bytes.len() - keys.len() - 8 {
        let value = at + keys.len();
        if bytes[at..].starts_with(keys) && bytes[value..].starts_with(&[1, 0, 0, 0, 0, 0, 0, 0]) {
            bytes[value] = 99;
            changed += 1;
        }
    }
    assert!(changed > 0, "the schema stands elsewhere");
    std::fs::write(&store, &bytes).unwrap();
    for arguments in [&["check"][..], &["backup", "/nowhere/copy"]] {
        let arguments: Vec<_> = arguments.iter().map(|word| word as _).collect();
        let (code, _, stderr) = state(directory.path(), &arguments);
        assert_eq!(code, 1);
        assert!(stderr.contains("schema 99"), "{stderr}");
        assert!(stderr.contains("the version that wrote it"), "{stderr}");
    }
}

#[test]
fn a_store_that_somebody_has_is_refused_with_who_it_is() {
    let directory = restored();
    let lock = directory.path().join("store.lock");
    std::fs::write(&lock, "4242\n").unwrap();
    let lock = std::fs::File::open(&lock).unwrap();
    lock.lock().unwrap();
    let target = directory.path().join("copy");
    let lines: [&[&dyn AsRef<std::ffi::OsStr>]; 3] = [
        &[&"check"],
        &[&"backup", &target],
        &[&"restore", &copy(), &"--force"],
    ];
    for line in lines {
        let (code, _, stderr) = state(directory.path(), line);
        assert_eq!(code, 1);
        assert!(stderr.contains("process 4242"), "{stderr}");
        assert!(stderr.contains("store.redb"), "{stderr}");
    }
    lock.unlock().unwrap();
    checked(directory.path());
}

#[test]
fn a_wrong_command_line_or_configuration_is_exit_code_2() {
    let directory = restored();
    for arguments in [&[][..], &["mend"], &["backup"], &["check", "FILE"]] {
        let arguments: Vec<_> = arguments.iter().map(|word| word as _).collect();
        assert_eq!(state(directory.path(), &arguments).0, 2);
    }
    let config = directory.path().join("seedring.toml");
    std::fs::write(&config, "[storage]\nnothing = 1\n").unwrap();
    let line: [OsString; 4] = [
        "state".into(),
        "check".into(),
        "--config".into(),
        config.into(),
    ];
    let (status, process) = run("state", &seedring(line), SHORT);
    assert_eq!(status.code(), Some(2), "{}", process.stderr());
}
