//! The set-up of the real clients, checked against another real client: libtorrent seeds, opentracker
//! tracks. When one of these fails, the matching failure in `real_clients` is not our server's.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use seedring_tests::clients::{Client, libtorrent_python, script};
use seedring_tests::content::{MIB, main_job_folder};
use seedring_tests::lan::{self, Lan};
use seedring_tests::need;
use seedring_tests::peer::{Answer, Peer};
use seedring_tests::process::{Process, run_ok};
use seedring_tests::seeds::RealSeed;
use seedring_tests::server::seedring;
use seedring_tests::skip::Skip;
use seedring_tests::torrent::Torrent;
use seedring_tests::tracker::OpenTracker;
use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// A folder seeded by libtorrent on the LAN.
struct Reference {
    lan: Lan,
    torrent: PathBuf,
    magnet: OsString,
    root: TempDir,
    _tracker: OpenTracker,
    _seed: Process,
}

fn reference() -> Result<Reference, Skip> {
    let python = libtorrent_python()?;
    let lan = Lan::build();
    let root = TempDir::new().unwrap();
    let content = root.path().join("content");
    main_job_folder(&content, 8 * MIB);
    let bare = root.path().join("bare.torrent");
    let mut create = Command::new(&python);
    create
        .arg(script("libtorrent_create.py"))
        .arg(&content)
        .arg(&bare)
        .arg("262144");
    run_ok("libtorrent create", &create, Duration::from_secs(60));
    let hash = Torrent::read(&bare).info_hash_hex();
    let tracker = OpenTracker::start(IpAddr::V4(lan::SERVER), std::slice::from_ref(&hash))?;
    let torrent = root.path().join("content.torrent");
    add_tracker(&bare, &torrent, tracker.url());
    let mut seed = Command::new(&python);
    seed.arg(script("libtorrent_seed.py"))
        .arg(&torrent)
        .arg(root.path());
    seed.arg(lan::SERVER.to_string()).arg("6881");
    let mut seed = Process::spawn("libtorrent seed", &seed);
    seed.wait_for("seeding", Duration::from_secs(60), |process| {
        process.stdout().contains("seeding").then_some(())
    });
    let url: String = tracker
        .url()
        .bytes()
        .map(|byte| format!("%{byte:02x}"))
        .collect();
    let magnet = format!("magnet:?xt=urn:btih:{hash}&tr={url}").into();
    Ok(Reference {
        lan,
        torrent,
        magnet,
        root,
        _tracker: tracker,
        _seed: seed,
    })
}

fn add_tracker(from: &Path, to: &Path, url: &str) {
    let bytes = std::fs::read(from).unwrap();
    let mut with = format!("d8:announce{}:{url}", url.len()).into_bytes();
    with.extend_from_slice(&bytes[1..]);
    std::fs::write(to, with).unwrap();
}

fn check(test: &str, client: Client) {
    if !need!(test, lan::inside(test)) {
        return;
    }
    let reference = need!(test, reference());
    let host = |program: &OsStr| reference.lan.client_command(program);
    for source in [reference.torrent.as_os_str(), reference.magnet.as_os_str()] {
        if source == reference.magnet && !client.takes_magnets() {
            continue;
        }
        let folder = TempDir::new().unwrap();
        let mut download = need!(test, client.download(source, folder.path(), &host));
        download.wait(Duration::from_secs(90));
        client.assert_same_tree(
            &reference.root.path().join("content"),
            &folder.path().join("content"),
        );
    }
}

/// Every real seed that `downloads` uses serves a raw peer the right bytes.
#[test]
#[ignore = "diagnoses the set-up of a seed; run it when downloads fails"]
fn real_seeds_serve_a_raw_peer() {
    let root = TempDir::new().unwrap();
    let data = root.path().join("data");
    main_job_folder(&data.join("content"), MIB);
    let torrent = root.path().join("it.torrent");
    let mut create = seedring(["create"]);
    create.arg(data.join("content")).arg("-o").arg(&torrent);
    run_ok("seedring create", &create, Duration::from_secs(60));
    let known = Torrent::read(&torrent);
    for kind in RealSeed::ALL {
        let seed = need!("real_seeds_serve_a_raw_peer", kind.start(&torrent, &data));
        let mut peer = Peer::connect(seed.address, &known.info_hash)
            .unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        peer.unchoked().unwrap();
        let Answer::Block(block) = peer.block(0, 0, 16_384).unwrap() else {
            panic!("{kind:?} serves nothing");
        };
        assert_eq!(block.len(), 16_384, "{kind:?}");
    }
}

#[test]
#[ignore = "diagnoses the set-up of a client; run it when real_clients fails"]
fn aria2_downloads_from_libtorrent() {
    check("aria2_downloads_from_libtorrent", Client::Aria2);
}

#[test]
#[ignore = "diagnoses the set-up of a client; run it when real_clients fails"]
fn libtorrent_downloads_from_libtorrent() {
    check("libtorrent_downloads_from_libtorrent", Client::Libtorrent);
}

#[test]
#[ignore = "diagnoses the set-up of a client; run it when real_clients fails"]
fn transmission_downloads_from_libtorrent() {
    check(
        "transmission_downloads_from_libtorrent",
        Client::Transmission,
    );
}

#[test]
#[ignore = "diagnoses the set-up of a client; run it when real_clients fails"]
fn transmission_daemon_downloads_from_libtorrent() {
    check(
        "transmission_daemon_downloads_from_libtorrent",
        Client::TransmissionDaemon,
    );
}

#[test]
#[ignore = "diagnoses the set-up of a client; run it when real_clients fails"]
fn rtorrent_downloads_from_libtorrent() {
    check("rtorrent_downloads_from_libtorrent", Client::Rtorrent);
}
