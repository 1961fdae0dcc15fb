//! Clients that nobody here wrote download the whole folder from us alone, found through our tracker.
//!
//! Server and client stand on two hosts of a private network (`seedring_tests::lan`). When a test fails,
//! `client_setup` tells whether the client's set-up is to blame.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use seedring_tests::clients::{Client, libtorrent_python, script};
use seedring_tests::content::{MIB, large_bytes, main_job_folder};
use seedring_tests::lan::{self, Lan};
use seedring_tests::need;
use seedring_tests::process::run_ok;
use seedring_tests::server::{Seed, Server, seedring};
use seedring_tests::tracker::OpenTracker;
use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// Longest wait for one download.
const LIMIT: Duration = Duration::from_secs(100);

/// A seed of the main job's folder on the server's host.
struct Seeding {
    lan: Lan,
    server: Server,
    content: PathBuf,
    root: TempDir,
}

impl Seeding {
    fn start(large: u64, options: &[&str]) -> Self {
        let lan = Lan::build();
        let root = TempDir::new().unwrap();
        let content = root.path().join("content");
        main_job_folder(&content, large);
        let server = Seed::path(&content)
            .options(options.iter().map(OsString::from))
            .start();
        Self {
            lan,
            server,
            content,
            root,
        }
    }

    fn torrent(&self) -> OsString {
        self.server.ready.torrents[0].torrent.clone().into()
    }

    fn magnet(&self) -> OsString {
        self.server.ready.torrents[0].magnet.clone().into()
    }

    fn host(&self) -> impl Fn(&OsStr) -> std::process::Command {
        |program| self.lan.client_command(program)
    }
}

/// Downloads with `client` from the torrent or the magnet link, on the network of the test named `test`.
fn downloads(test: &str, client: Client, source: impl Fn(&Seeding) -> OsString) {
    if !need!(test, lan::inside(test)) {
        return;
    }
    let seeding = Seeding::start(large_bytes(), &[]);
    let folder = TempDir::new_in(seeding.root.path()).unwrap();
    let source = source(&seeding);
    let mut download = need!(
        test,
        client.download(&source, folder.path(), &seeding.host())
    );
    download.wait(LIMIT);
    client.assert_same_tree(&seeding.content, &folder.path().join("content"));
    drop(download);
    let uploaded = seeding.server.metrics();
    let uploaded = uploaded
        .iter()
        .filter(|(series, _)| series.starts_with("seedring_uploaded_bytes_total"))
        .map(|(_, value)| value)
        .sum::<f64>();
    let large = large_bytes();
    assert!(
        uploaded >= large as f64,
        "the metrics count {uploaded} bytes of {large}"
    );
}

#[test]
fn transmission_cli_downloads_by_torrent() {
    downloads(
        "transmission_cli_downloads_by_torrent",
        Client::Transmission,
        Seeding::torrent,
    );
}

#[test]
fn transmission_cli_downloads_by_magnet() {
    downloads(
        "transmission_cli_downloads_by_magnet",
        Client::Transmission,
        Seeding::magnet,
    );
}

#[test]
fn transmission_daemon_downloads_by_torrent() {
    let test = "transmission_daemon_downloads_by_torrent";
    downloads(test, Client::TransmissionDaemon, Seeding::torrent);
}

#[test]
fn aria2_downloads_by_torrent() {
    downloads(
        "aria2_downloads_by_torrent",
        Client::Aria2,
        Seeding::torrent,
    );
}

#[test]
fn aria2_downloads_by_magnet() {
    downloads("aria2_downloads_by_magnet", Client::Aria2, Seeding::magnet);
}

#[test]
fn libtorrent_downloads_by_torrent() {
    downloads(
        "libtorrent_downloads_by_torrent",
        Client::Libtorrent,
        Seeding::torrent,
    );
}

#[test]
fn libtorrent_downloads_by_magnet() {
    downloads(
        "libtorrent_downloads_by_magnet",
        Client::Libtorrent,
        Seeding::magnet,
    );
}

#[test]
fn rtorrent_downloads_by_torrent() {
    downloads(
        "rtorrent_downloads_by_torrent",
        Client::Rtorrent,
        Seeding::torrent,
    );
}

#[test]
fn rtorrent_downloads_by_magnet() {
    downloads(
        "rtorrent_downloads_by_magnet",
        Client::Rtorrent,
        Seeding::magnet,
    );
}

/// Over IPv6 alone, by a peer address that the client is told.
#[test]
fn libtorrent_downloads_over_ipv6() {
    let test = "libtorrent_downloads_over_ipv6";
    if !need!(test, lan::inside(test)) {
        return;
    }
    let python = need!(test, libtorrent_python());
    let seeding = Seeding::start(8 * MIB, &["--no-tracker"]);
    let folder = TempDir::new().unwrap();
    let mut command = seeding.lan.client_command(python);
    command
        .arg(script("libtorrent_download.py"))
        .arg(seeding.torrent())
        .arg(folder.path());
    let peer = format!("[{}]:{}", lan::SERVER_V6, seeding.server.ready.peer_port);
    command.args(["--bind", &format!("[{}]", lan::CLIENT_V6), "--peer", &peer]);
    run_ok("libtorrent over IPv6", &command, LIMIT);
    Client::Libtorrent.assert_same_tree(&seeding.content, &folder.path().join("content"));
}

/// Through our tracker's IPv6 side: the client reaches it, and us, by IPv6 only.
#[test]
fn aria2_downloads_over_ipv6() {
    let test = "aria2_downloads_over_ipv6";
    if !need!(test, lan::inside(test)) {
        return;
    }
    let host = format!("[{}]", lan::SERVER_V6);
    let seeding = Seeding::start(8 * MIB, &["--announce-host", &host]);
    let tracker = seeding.server.ready.tracker.clone().expect("a tracker");
    assert!(tracker.contains(&host), "{tracker}");
    let folder = TempDir::new().unwrap();
    let source = seeding.torrent();
    let mut download = need!(
        test,
        Client::Aria2.download(&source, folder.path(), &seeding.host())
    );
    download.wait(LIMIT);
    Client::Aria2.assert_same_tree(&seeding.content, &folder.path().join("content"));
}

/// Found through the real opentracker instead of ours.
#[test]
fn aria2_finds_us_through_opentracker() {
    let test = "aria2_finds_us_through_opentracker";
    if !need!(test, lan::inside(test)) {
        return;
    }
    // The tracker serves listed hashes only, and the hash is known once the torrent is made.
    let made = {
        let root = TempDir::new().unwrap();
        let content = root.path().join("content");
        main_job_folder(&content, 8 * MIB);
        let server = Seed::path(&content).options(["--no-tracker"]).start();
        server.ready.torrents[0].info_hash_v1.clone()
    };
    let lan_address = IpAddr::V4(lan::SERVER);
    let lan = Lan::build();
    let tracker = need!(test, OpenTracker::start(lan_address, &[made]));
    let root = TempDir::new().unwrap();
    let content = root.path().join("content");
    main_job_folder(&content, 8 * MIB);
    let server = Seed::path(&content)
        .options(["--no-tracker", "--tracker", tracker.url()])
        .start();
    let host = |program: &OsStr| lan.client_command(program);
    let source = server.ready.torrents[0].torrent.clone();
    let folder = TempDir::new().unwrap();
    let download = Client::Aria2.download(source.as_os_str(), folder.path(), &host);
    need!(test, download).wait(LIMIT);
    Client::Aria2.assert_same_tree(&content, &folder.path().join("content"));
}

/// Found through our tracker over UDP alone.
fn finds_us_over_udp(test: &str, client: Client) {
    if !need!(test, lan::inside(test)) {
        return;
    }
    let seeding = Seeding::start(8 * MIB, &[]);
    let tracker = seeding.server.ready.tracker.clone();
    let tracker = tracker.expect("a tracker of its own");
    let udp = tracker.replace("http://", "udp://");
    let torrent = seeding.root.path().join("udp.torrent");
    let arguments = [
        seeding.content.as_os_str(),
        "-o".as_ref(),
        torrent.as_os_str(),
    ];
    let more = ["--tracker", &udp, "--creation-date", "none"];
    let mut create = seedring(["create"]);
    run_ok("create", create.args(arguments).args(more), LIMIT);
    let folder = TempDir::new_in(seeding.root.path()).unwrap();
    let download = client.download(torrent.as_os_str(), folder.path(), &seeding.host());
    need!(test, download).wait(LIMIT);
    client.assert_same_tree(&seeding.content, &folder.path().join("content"));
}

#[test]
fn libtorrent_finds_us_over_udp() {
    finds_us_over_udp("libtorrent_finds_us_over_udp", Client::Libtorrent);
}

#[test]
fn transmission_finds_us_over_udp() {
    finds_us_over_udp("transmission_finds_us_over_udp", Client::Transmission);
}

#[test]
fn rtorrent_finds_us_over_udp() {
    finds_us_over_udp("rtorrent_finds_us_over_udp", Client::Rtorrent);
}

/// Five clients at a time, of four kinds, from us and from each other.
#[test]
fn a_mixed_swarm_completes() {
    let test = "a_mixed_swarm_completes";
    if !need!(test, lan::inside(test)) {
        return;
    }
    let seeding = Seeding::start(32 * MIB, &[]);
    let kinds = [
        Client::Aria2,
        Client::Libtorrent,
        Client::Libtorrent,
        Client::Rtorrent,
        Client::Transmission,
    ];
    let mut running = Vec::new();
    for client in kinds {
        let folder = TempDir::new_in(seeding.root.path()).unwrap();
        let source = seeding.torrent();
        let download = need!(
            test,
            client.download(&source, folder.path(), &seeding.host())
        );
        running.push((client, download, folder));
    }
    for (client, download, folder) in &mut running {
        download.wait(LIMIT);
        client.assert_same_tree(&seeding.content, &folder.path().join("content"));
    }
}
