//! Every key that the reference file calls live reaches whoever goes by it: a server is started with
//! one value, and is seen to go by another after the configuration was read again.
//!
//! A key that is live and has no row here fails `every_live_key_has_a_row`.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

mod rows;
mod scene;

use rows::{ANNOUNCING, API, FETCHING, LIBRARY, OTHER_NETWORKS, PEERS, SLOTS, UPLOADS};
use scene::{REMOTE, Scene};
use seedring_tests::lan;
use seedring_tests::need;
use seedring_tests::process::run_ok;
use seedring_tests::served::Served;
use seedring_tests::server::{SHORT, seedring};
use seedring_tests::skip::{Skip, program};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest wait until what a key allows is so; what is left to chance is tried every 30 s.
const LIMIT: Duration = Duration::from_secs(180);
/// How often it is looked at.
const POLL: Duration = Duration::from_millis(100);

/// A key, two values of it, and how the second is told from the first.
struct Row {
    key: &'static str,
    before: &'static str,
    after: &'static str,
    /// What else the configuration says.
    with: &'static str,
    /// Makes files that the configuration names, in the folder that `@` stands for.
    files: fn(&Path),
    /// Done with the server as it was started.
    prepare: fn(&mut Scene),
    /// Whether the second value holds: never while the first does.
    holds: fn(&mut Scene) -> bool,
}

/// What most rows have.
const PLAIN: Row = Row {
    key: "",
    before: "",
    after: "",
    with: "",
    files: |_| {},
    prepare: |_| {},
    holds: |_| false,
};

impl Row {
    fn text(&self, value: &str) -> String {
        format!("{} = {value}\n{}", self.key, self.with)
    }

    fn observe(&self) {
        eprintln!("{}: {} becomes {}", self.key, self.before, self.after);
        let server = Served::start_configured(&self.text(self.before), self.files);
        let mut scene = Scene::new(server);
        (self.prepare)(&mut scene);
        assert!(!(self.holds)(&mut scene), "{}: it holds before", self.key);
        scene.server.reload(&self.text(self.after));
        let until = Instant::now() + LIMIT;
        while !(self.holds)(&mut scene) {
            let transcript = scene.server.process.transcript();
            assert!(
                Instant::now() < until,
                "{} is not taken\n{transcript}",
                self.key
            );
            std::thread::sleep(POLL);
        }
    }
}

/// Observes each row; they are apart so that some can be looked at while others wait.
fn observe(rows: &[Row]) {
    for row in rows {
        row.observe();
    }
}

/// All tables.
const TABLES: [&[Row]; 8] = [
    PEERS,
    UPLOADS,
    OTHER_NETWORKS,
    SLOTS,
    FETCHING,
    API,
    ANNOUNCING,
    LIBRARY,
];

#[test]
fn every_live_key_has_a_row() {
    let reference = run_ok("config", &seedring(["config"]), SHORT);
    let (mut section, mut is_live, mut live) = ("", false, BTreeSet::new());
    for line in reference.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some(told) = line.strip_prefix("# Reload: ") {
            is_live = told.starts_with("yes");
        } else if let Some((key, _)) = line.trim_start_matches('#').split_once(" = ")
            && std::mem::take(&mut is_live)
        {
            live.insert(format!("{section}.{key}"));
        }
    }
    let rows = TABLES.iter().copied().flatten();
    let rows: BTreeSet<String> = rows.map(|row| row.key.to_owned()).collect();
    assert_eq!(rows, live, "left: keys with a row; right: live keys");
}

#[test]
fn what_peers_may_is_live() {
    observe(PEERS);
}

#[test]
fn upload_rates_are_live() {
    observe(UPLOADS);
}

#[test]
fn what_concerns_other_networks_is_live() {
    let test = "what_concerns_other_networks_is_live";
    if need!(test, lan::inside(test)) {
        lan::ip_here("link set lo up");
        lan::ip_here(&format!("addr add {REMOTE}/32 dev lo"));
        // All of these addresses are this host's.
        lan::ip_here("route add local 10.0.0.0/8 dev lo");
        observe(OTHER_NETWORKS);
    }
}

#[test]
fn slots_are_live() {
    observe(SLOTS);
}

#[test]
fn downloads_are_live() {
    let test = "downloads_are_live";
    need!(test, program("fincore", "util-linux"));
    need!(test, on_a_disk());
    observe(FETCHING);
}

/// Whether there is a page cache to be gone past.
fn on_a_disk() -> Result<(), Skip> {
    const TMPFS: i64 = 0x0102_1994;
    let kind = rustix::fs::statfs(std::env::temp_dir()).unwrap().f_type;
    match kind == TMPFS {
        true => Err(Skip::machine("temporary files are in memory alone")),
        false => Ok(()),
    }
}

#[test]
fn who_may_ask_the_api_is_live() {
    let test = "who_may_ask_the_api_is_live";
    need!(test, program("openssl", "openssl"));
    observe(API);
}

#[test]
fn announces_are_live() {
    observe(ANNOUNCING);
}

#[test]
fn the_library_is_live() {
    observe(LIBRARY);
}
