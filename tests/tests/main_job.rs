//! The main job: `seedring seed` on a folder, ready quickly, with a magnet link and a .torrent file.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use seedring_tests::content::{MIB, large_bytes, main_job_folder};
use seedring_tests::http;
use seedring_tests::oracle::assert_serves;
use seedring_tests::process::{run, run_ok};
use seedring_tests::server::{SHORT, Seed, Server, seedring};
use seedring_tests::torrent::Torrent;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// How soon the ready line comes when nothing is left to hash.
const READY_SOON: Duration = Duration::from_secs(3);

fn start(folder: &Path, state: &Path) -> Server {
    Seed::path(folder).state_dir(state).start()
}

#[test]
fn a_folder_is_seeded_and_seeded_again_without_hashing() {
    let root = TempDir::new().unwrap();
    let folder = root.path().join("My Töne");
    main_job_folder(&folder, large_bytes());
    let state = root.path().join("state");
    let (mut first, announced) = {
        let server = start(&folder, &state);
        let seeded = server.ready.torrents[0].clone();
        (server, seeded)
    };
    let torrent = first.torrent(0);
    check_announced(&first, &torrent);
    let last = u32::try_from(torrent.pieces.len()).unwrap() - 1;
    assert_serves(&first, &torrent, &[0, last / 3, last - 1, last]);
    let (status, took) = first.stop(Duration::from_secs(15));
    assert!(
        status.success(),
        "SIGTERM: {status}\n{}",
        first.process.transcript()
    );
    assert!(took <= Duration::from_secs(10), "SIGTERM took {took:?}");

    // The second time nothing has changed, so nothing is hashed.
    let second = start(&folder, &state);
    assert!(
        second.ready_after < READY_SOON,
        "ready after {:?}",
        second.ready_after
    );
    assert_eq!(
        second.ready.torrents[0].info_hash_v1,
        announced.info_hash_v1
    );
    assert_serves(&second, &second.torrent(0), &[0, last]);
}

fn check_announced(server: &Server, torrent: &Torrent) {
    let seeded = &server.ready.torrents[0];
    assert_eq!(seeded.name, "My Töne");
    assert_eq!(seeded.info_hash_v1, torrent.info_hash_hex());
    assert!(seeded.magnet.starts_with("magnet:?"), "{}", seeded.magnet);
    assert!(
        seeded.magnet.contains(&seeded.info_hash_v1),
        "{}",
        seeded.magnet
    );
    let tracker = server.ready.tracker.as_ref().expect("a tracker of its own");
    assert_eq!(
        torrent.announce.as_ref(),
        Some(tracker),
        "the .torrent names the tracker"
    );
    assert!(
        seeded.magnet.contains("&tr="),
        "the magnet link names the tracker"
    );
    let expected = [
        ("season one/disc/large.bin", large_bytes()),
        ("season one/empty.nfo", 0),
        ("Übergänge/naïve 日本語 – ✓.txt", 70_001),
    ];
    let expected: BTreeSet<_> = expected
        .map(|(path, size)| (PathBuf::from(path), size))
        .into();
    let files = torrent
        .files
        .iter()
        .map(|file| (file.path.clone(), file.length));
    assert_eq!(files.collect::<BTreeSet<_>>(), expected);
}

#[test]
fn health_readiness_and_metrics_answer() {
    let root = TempDir::new().unwrap();
    let folder = root.path().join("folder");
    main_job_folder(&folder, MIB);
    let server = Seed::path(&folder).start();
    let api = server.ready.api.trim_end_matches('/');
    for path in ["/healthz", "/readyz"] {
        assert_eq!(http::get(&format!("{api}{path}")).status, 200, "{path}");
    }
    let metrics = server.metrics();
    let seeding: f64 = metrics
        .iter()
        .filter(|(series, _)| series.starts_with("seedring_torrents{"))
        .map(|(_, value)| value)
        .sum();
    assert!(
        (seeding - 1.0).abs() < f64::EPSILON,
        "one torrent in one state: {metrics:?}"
    );
}

#[test]
fn a_single_file_and_an_existing_torrent_are_seeded() {
    let root = TempDir::new().unwrap();
    let file = root.path().join("größe.bin");
    seedring_tests::content::write_file(&file, 3 * MIB + 17, 5);
    let torrent = root.path().join("x.torrent");
    let create = [
        OsStr::new("create"),
        file.as_os_str(),
        "-o".as_ref(),
        torrent.as_os_str(),
    ];
    run_ok("create", &seedring(create), SHORT);
    let by_torrent = Seed::torrent(&torrent, root.path())
        .options(["--no-tracker"])
        .start();
    let by_path = Seed::path(&file).options(["--no-tracker"]).start();
    assert_eq!(by_torrent.ready.tracker, None);
    for server in [&by_torrent, &by_path] {
        assert_eq!(
            server.ready.torrents[0].info_hash_v1,
            Torrent::read(&torrent).info_hash_hex()
        );
        let parsed = server.torrent(0);
        let last = u32::try_from(parsed.pieces.len()).unwrap() - 1;
        assert_serves(server, &parsed, &[0, last]);
    }
}

#[test]
fn verify_finds_the_piece_that_differs() {
    let root = TempDir::new().unwrap();
    let folder = root.path().join("folder");
    main_job_folder(&folder, 2 * MIB);
    let torrent = root.path().join("folder.torrent");
    let create = [
        OsStr::new("create"),
        folder.as_os_str(),
        "-o".as_ref(),
        torrent.as_os_str(),
    ];
    run_ok("create", &seedring(create), SHORT);
    let verify = [
        "verify".as_ref(),
        torrent.as_os_str(),
        "-d".as_ref(),
        root.path().as_os_str(),
    ];
    run_ok("verify", &seedring(verify), SHORT);
    let large = folder.join("season one/disc/large.bin");
    let mut bytes = std::fs::read(&large).unwrap();
    bytes[MIB as usize] ^= 1;
    std::fs::write(&large, bytes).unwrap();
    let (status, process) = run("verify", &seedring(verify), SHORT);
    assert_eq!(status.code(), Some(1), "{}", process.transcript());
    let said = process.stdout() + &process.stderr();
    assert!(
        said.contains("large.bin"),
        "the damaged file is named: {said}"
    );
}

/// Linux tells these names apart, and so must a server that seeds what is there.
#[test]
fn names_that_differ_in_case_only_are_seeded() {
    let root = TempDir::new().unwrap();
    let folder = root.path().join("folder");
    for (seed, name) in (0..).zip(["README", "readme", "a/x", "A/x", "B"]) {
        seedring_tests::content::write_file(&folder.join(name), 50_000, seed);
    }
    let server = Seed::path(&folder)
        .options(["--no-tracker", "--piece-size", "16K"])
        .start();
    let torrent = server.torrent(0);
    let pieces: Vec<u32> = (0..u32::try_from(torrent.pieces.len()).unwrap()).collect();
    assert_serves(&server, &torrent, &pieces);
    let again = Seed::torrent(&server.ready.torrents[0].torrent, root.path());
    let again = again.options(["--no-tracker"]).start();
    assert_serves(&again, &torrent, &pieces);
}

#[test]
fn a_path_that_is_not_there_is_named() {
    let root = TempDir::new().unwrap();
    let missing = root.path().join("no such folder");
    let (mut process, _state) = Seed::path(&missing).launch();
    let status = process.wait_exit(SHORT);
    assert!(matches!(status.code(), Some(1 | 2)), "{status}");
    assert!(
        process.stderr().contains("no such folder"),
        "{}",
        process.stderr()
    );
}
