//! What a user is told while nobody is found, or of what cannot be: which source said what, and why.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use seedring_tests::content::{KIB, write_file};
use seedring_tests::get::{Get, Getting, last};
use seedring_tests::need;
use seedring_tests::process::{run, run_ok};
use seedring_tests::server::{SHORT, Seed, seedring};
use seedring_tests::tracker::{Behaviour, OpenTracker, RecordingTracker};
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::time::Duration;
use tempfile::TempDir;

/// Nobody has it.
const HASH: &str = "0123456789abcdef0123456789abcdef01234567";
/// Part of what is told of trackers that have not answered `stopped`.
const UNTOLD: &str = "in time that we stop";
/// Longest wait for a line; that the DHT is alone is told after 15 s.
const TOLD: Duration = Duration::from_secs(60);

fn magnet(parameters: &str) -> String {
    format!("magnet:?xt=urn:btih:{HASH}{parameters}")
}

/// Waits for a `waiting` list that `accept` likes.
fn waits(getting: &mut Getting, accept: impl Fn(&[String]) -> bool) {
    getting
        .process
        .wait_for("what sources say", TOLD, |process| {
            let progress = last(process, "progress")?;
            let waiting = progress["waiting"].as_array()?;
            let texts = waiting.iter().filter_map(Value::as_str);
            let texts: Vec<String> = texts.map(str::to_owned).collect();
            accept(&texts).then_some(())
        });
}

#[test]
fn a_dht_without_names_is_told_and_so_is_what_trackers_say() {
    let folder = TempDir::new().unwrap();
    let tracker = RecordingTracker::start(Behaviour::Answers);
    let mut getting = Get::new(magnet(""), folder.path())
        .options(["--tracker", &tracker.url()])
        .setting("dht", "enabled", "true")
        .setting("dht", "bootstrap", "nope.invalid:6881")
        .start();
    waits(&mut getting, |texts| {
        let is_told = |end: &str| texts.iter().any(|text| text.ends_with(end));
        is_told("/…: 0 peers") && is_told("DHT: no node known yet")
    });
    getting.process.wait_for("a warning", TOLD, |process| {
        let stderr = process.stderr();
        let warning = stderr.lines().find(|line| line.contains("dht.bootstrap"))?;
        assert!(warning.contains("nope.invalid:6881"), "{warning}");
        assert!(warning.contains("WARN"), "{warning}");
        Some(())
    });
    getting.interrupt(SHORT);
    let stderr = getting.process.stderr();
    assert_eq!(stderr.matches("dht.bootstrap").count(), 1, "{stderr}");
}

#[test]
fn a_dht_that_nobody_answers_is_told() {
    // It is there, and says nothing.
    let deaf = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let root = TempDir::new().unwrap();
    write_file(&root.path().join("one.bin"), 64 * KIB, 7);
    let mut server = Seed::path(&root.path().join("one.bin"))
        .setting("dht", "enabled", "true")
        .setting("peers", "bind_v4", "127.0.0.1")
        .setting("peers", "bind_v6", "")
        .setting("dht", "bootstrap", &deaf.local_addr().unwrap().to_string())
        .start();
    server.process.wait_for("a warning", TOLD, |process| {
        let stderr = process.stderr();
        stderr
            .contains("none of the nodes in dht.bootstrap answers")
            .then_some(())
    });
}

#[test]
fn a_tracker_that_hangs_is_told_and_does_not_hold_up_the_end() {
    let folder = TempDir::new().unwrap();
    let tracker = RecordingTracker::start(Behaviour::Silent);
    let mut getting = Get::new(magnet(""), folder.path())
        .options(["--tracker", &tracker.url()])
        .start();
    let told = getting.event("tracker-waiting", TOLD);
    assert!(
        tracker
            .url()
            .starts_with(told["tracker"].as_str().unwrap().trim_end_matches('…'))
    );
    getting.interrupt(SHORT);
    // Had it been waited for, it would be told.
    let stderr = getting.process.stderr();
    assert!(!stderr.contains(UNTOLD), "{stderr}");
}

/// One that knows us is, for as long as is configured; then it is named.
#[test]
fn a_tracker_that_hangs_when_we_go_is_waited_for_and_named() {
    let folder = TempDir::new().unwrap();
    let tracker = RecordingTracker::start(Behaviour::SilentToStops);
    let mut getting = Get::new(magnet(""), folder.path())
        .options(["--tracker", &tracker.url()])
        .setting("announce", "stop_timeout_s", "3")
        .start();
    waits(&mut getting, |texts| {
        texts.iter().any(|text| text.ends_with("/…: 0 peers"))
    });
    getting.interrupt(SHORT);
    tracker.wait_for("event=stopped", SHORT);
    let stderr = getting.process.stderr();
    let named = tracker.url().replace("announce", "…");
    let told = stderr.lines().find(|line| line.contains(UNTOLD));
    assert!(told.is_some_and(|line| line.contains(&named)), "{stderr}");
}

/// A seed's log says so, too, before the time for an answer is over.
#[test]
fn a_tracker_that_hangs_is_told_by_a_seed() {
    let root = TempDir::new().unwrap();
    write_file(&root.path().join("one.bin"), 64 * KIB, 7);
    let tracker = RecordingTracker::start(Behaviour::Silent);
    let mut server = Seed::path(&root.path().join("one.bin"))
        .options(["--tracker", &tracker.url()])
        .start();
    server.process.wait_for("a line", TOLD, |process| {
        let stderr = process.stderr();
        let line = stderr
            .lines()
            .find(|line| line.contains("an announce failed") || line.contains("no answer yet"))?;
        assert!(line.contains("no answer yet"), "{line}");
        Some(())
    });
}

#[test]
fn a_udp_tracker_behind_a_proxy_is_told_not_to_be_asked() {
    let folder = TempDir::new().unwrap();
    let mut getting = Get::new(magnet(""), folder.path())
        .options(["--tracker", "udp://127.0.0.1:9"])
        .setting("announce", "proxy", "socks5://127.0.0.1:9")
        .start();
    let status = getting.process.wait_exit(SHORT);
    assert_eq!(status.code(), Some(1));
    let told = last(&getting.process, "not-asked").unwrap();
    let reason = told["reason"].as_str().unwrap();
    assert!(reason.contains("announce.proxy") && reason.contains("udp://127.0.0.1:9"));
    let stderr = getting.process.stderr();
    assert!(stderr.contains("there is nobody to ask"), "{stderr}");
}

#[test]
fn a_dead_proxy_is_not_told_as_the_tracker_s_fault() {
    let folder = TempDir::new().unwrap();
    let gone = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut getting = Get::new(magnet(""), folder.path())
        .options(["--tracker", "http://127.0.0.1:9/announce"])
        .setting("announce", "proxy", &format!("http://{gone}"))
        .start();
    let told = getting.event("tracker-failed", TOLD);
    let reason = told["reason"].as_str().unwrap();
    let names_it = format!("the proxy http://{gone} (announce.proxy) cannot be reached");
    assert!(reason.starts_with(&names_it), "{reason}");
}

#[test]
fn what_of_a_link_cannot_be_read_is_left_out_and_told() {
    let folder = TempDir::new().unwrap();
    let link = magnet("&x.pe=1.2.3.4:99999&tr=%ff&so=abc");
    let mut getting = Get::new(&link, folder.path())
        .options(["--tracker", "http://127.0.0.1:9/announce"])
        .start();
    getting.event("tracker-failed", TOLD);
    let reasons = seedring_tests::server::events(&getting.process, "left-out");
    assert_eq!(reasons.len(), 3, "{reasons:?}");
    assert!(reasons[0]["reason"].as_str().unwrap().contains("x.pe="));
    let shown = run_ok("show", &seedring(["show", link.as_str()]), SHORT);
    assert_eq!(shown.matches("Warning:").count(), 3, "{shown}");
    let bad = "magnet:?xt=urn:btih:xyz&tr=http://127.0.0.1:9/announce";
    let (status, _) = run("show", &seedring(["show", bad]), SHORT);
    assert!(!status.success());
}

#[test]
fn opentracker_without_the_torrent_says_what_to_do() {
    let test = "opentracker_without_the_torrent_says_what_to_do";
    let other = "ff".repeat(20);
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let tracker = need!(test, OpenTracker::start(loopback, &[other]));
    let folder = TempDir::new().unwrap();
    let mut getting = Get::new(magnet(""), folder.path())
        .options(["--tracker", &tracker.udp_url()])
        .start();
    let told = getting.event("tracker-failed", TOLD);
    let reason = told["reason"].as_str().unwrap();
    assert!(reason.contains("not on its list"), "{reason}");
}

#[test]
fn a_private_torrent_without_a_tracker_is_told_of() {
    let root = TempDir::new().unwrap();
    write_file(&root.path().join("one.bin"), 64 * KIB, 7);
    let seed = |options: &[&str]| {
        let server = Seed::path(&root.path().join("one.bin"))
            .options(options.iter().copied())
            .start();
        server.process.stderr()
    };
    assert!(
        seed(&["--no-tracker", "--private"])
            .contains("a private torrent that no tracker is told of")
    );
    let with_tracker = seed(&["--private"]);
    assert!(
        !with_tracker.contains("no tracker is told"),
        "{with_tracker}"
    );
}
