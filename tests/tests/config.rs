//! The configuration from outside: the reference is complete and valid, and a mistake stops the start with
//! exit code 2, the file and the line, before any port is bound.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use seedring_tests::process::{run, run_ok};
use seedring_tests::server::{SHORT, seedring};
use std::ffi::OsStr;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn write(folder: &TempDir, text: &str) -> PathBuf {
    let path = folder.path().join("seedring.toml");
    std::fs::write(&path, text).unwrap();
    path
}

fn check(path: &Path) -> (Option<i32>, String) {
    let arguments = [OsStr::new("config"), "check".as_ref(), path.as_os_str()];
    let (status, process) = run("config check", &seedring(arguments), SHORT);
    (status.code(), process.stderr())
}

#[test]
fn the_reference_is_the_file_in_the_repository_and_passes_its_own_check() {
    let folder = TempDir::new().unwrap();
    let printed = run_ok("config", &seedring(["config"]), SHORT);
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    let kept: Vec<_> = std::fs::read_dir(kept)
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().extension() == Some(OsStr::new("toml")))
        .map(|entry| std::fs::read_to_string(entry.path()).unwrap())
        .collect();
    assert!(
        kept.contains(&printed),
        "no file in config/ is what `seedring config` prints"
    );
    assert_eq!(check(&write(&folder, &printed)), (Some(0), String::new()));
    assert_eq!(check(&write(&folder, "")).0, Some(0));
}

/// What the documentation shows as a configuration is one.
#[test]
fn the_examples_of_the_documentation_pass_their_check() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let text = std::fs::read_to_string(docs.join("TRACKER.md")).unwrap();
    let examples: Vec<&str> = text
        .split("```toml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert!(!examples.is_empty(), "no example is found");
    let folder = TempDir::new().unwrap();
    for example in examples {
        let found = check(&write(&folder, example));
        assert_eq!(found, (Some(0), String::new()), "{example}");
    }
}

#[test]
fn mistakes_are_refused_with_file_and_line() {
    let folder = TempDir::new().unwrap();
    let mistakes = [
        ("[peers]\n\nprot = 6890\n", 3, "prot"),
        ("\n[piers]\nport = 1\n", 2, "piers"),
        ("[peers]\nport = \"6890\"\n", 2, "port"),
        ("[peers]\nport = 65536\n", 2, "port"),
        ("[peers]\nport = -1\n", 2, "port"),
        ("[peers]\nport = 1\nport = 2\n", 3, "duplicate"),
        ("[peers\nport = 1\n", 1, ""),
        ("[peers]\nport = \n", 2, ""),
        ("[peers]\n\n\n\n\"po\\u001brt\" = 1\n", 5, ""),
    ];
    for (text, line, names) in mistakes {
        let path = write(&folder, text);
        let (code, stderr) = check(&path);
        assert_eq!(code, Some(2), "{text:?}: {stderr}");
        let place = format!("{}:{line}", path.display());
        assert!(stderr.contains(&place), "{text:?}: no {place} in {stderr}");
        assert!(
            stderr.contains(names),
            "{text:?}: {names:?} is not named in {stderr}"
        );
        assert!(
            !stderr.contains('\u{1b}'),
            "{text:?}: an escape reaches the terminal"
        );
    }
}

#[test]
fn a_missing_file_is_named() {
    let (code, stderr) = check(Path::new("/nonexistent/seedring.toml"));
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("/nonexistent/seedring.toml"), "{stderr}");
}

#[test]
fn a_mistake_stops_the_server_before_any_port_is_bound() {
    let folder = TempDir::new().unwrap();
    // Were a port bound first, the error would be that this one is taken.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let text = format!("[peers]\nport = {port}\nunknown_key = 1\n");
    let path = write(&folder, &text);
    let state = folder.path().join("state");
    let arguments = [OsStr::new("serve"), "--config".as_ref(), path.as_os_str()];
    let mut command = seedring(arguments);
    command.arg("--state-dir").arg(&state);
    let (status, process) = run("serve", &command, SHORT);
    assert_eq!(status.code(), Some(2), "{}", process.transcript());
    assert!(
        process.stderr().contains(&format!("{}:3", path.display())),
        "{}",
        process.stderr()
    );
    assert!(
        !state.exists(),
        "state was made for a configuration that is refused"
    );
}

/// `seed` turns the tracker on, which the configuration need not say.
#[test]
fn a_tracker_that_a_seed_could_not_have_stops_its_start() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("one.bin"), "data").unwrap();
    let nowhere = "[tracker]\nlisten_v4 = \"\"\nlisten_v6 = \"\"\n";
    for (text, key) in [
        (nowhere, "tracker.listen_v6: "),
        ("dht.port = 6969\n", "dht.port: "),
    ] {
        let path = write(&folder, text);
        assert_eq!(check(&path), (Some(0), String::new()));
        let mut command = seedring(["seed"]);
        command.arg(folder.path().join("one.bin"));
        // Off in tests, unless they say so.
        command.env("SEEDRING_DHT__ENABLED", "true");
        command.arg("--config").arg(&path);
        command.arg("--state-dir").arg(folder.path());
        let (status, process) = run("seed", &command, SHORT);
        assert_eq!(status.code(), Some(2));
        assert!(process.stderr().contains(key), "{}", process.stderr());
    }
}

#[test]
fn a_mistake_in_the_environment_is_named() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "");
    let arguments = [OsStr::new("config"), "check".as_ref(), path.as_os_str()];
    let mut command = seedring(arguments);
    command.env("SEEDRING_PEERS__PORT", "many");
    let (status, process) = run("config check", &command, SHORT);
    assert_eq!(status.code(), Some(2), "{}", process.transcript());
    assert!(
        process.stderr().contains("SEEDRING_PEERS__PORT"),
        "{}",
        process.stderr()
    );
}

/// What the configuration file may not say, an option may not either.
#[test]
fn an_address_for_the_tracker_that_is_none_is_a_usage_error() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("data");
    std::fs::write(&file, "data").unwrap();
    for host in ["http://x/y", "host:6969", "a b"] {
        let mut command = seedring(["seed", "--announce-host", host]);
        command.arg(&file).arg("--state-dir").arg(folder.path());
        let (status, process) = run("seed", &command, SHORT);
        assert_eq!(status.code(), Some(2), "{}", process.transcript());
        let stderr = process.stderr();
        assert!(stderr.contains("--announce-host"), "{stderr}");
        assert!(
            stderr.contains("without \"http://\", port or path"),
            "{stderr}"
        );
    }
}

/// The start says what is wrong as the check does, and not that a port is.
#[test]
fn a_congestion_control_that_is_not_there_stops_the_start_with_those_that_are() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("data");
    std::fs::write(&file, "data").unwrap();
    let mut command = seedring(["seed"]);
    command.arg(&file).arg("--state-dir").arg(folder.path());
    command.env("SEEDRING_PEERS__CONGESTION_CONTROL", "nonesuch");
    let (status, process) = run("seed", &command, SHORT);
    assert_eq!(status.code(), Some(2), "{}", process.transcript());
    let own = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap();
    let stderr = process.stderr();
    assert!(
        stderr.contains("has no congestion control \"nonesuch\""),
        "{stderr}"
    );
    assert!(stderr.contains(own.trim()), "{stderr}");
}

#[test]
fn help_has_examples() {
    for command in ["seed", "serve", "create", "show", "verify", "config"] {
        let help = run_ok(command, &seedring([command, "--help"]), SHORT);
        assert!(
            help.contains("Examples:"),
            "{command} --help has no examples"
        );
        assert!(help.contains("--json"), "{command} --help has no --json");
    }
}
