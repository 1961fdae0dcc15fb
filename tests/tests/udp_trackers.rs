//! UDP trackers (BEP 15): we announce to real ones, and real clients and ours find each other
//! through them.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use seedring_tests::clients::{Client, libtorrent_python, script};
use seedring_tests::content::{MIB, assert_same_tree, main_job_folder, write_file};
use seedring_tests::get::Get;
use seedring_tests::lan::{self, Lan};
use seedring_tests::need;
use seedring_tests::process::Process;
use seedring_tests::server::Seed;
use seedring_tests::torrent::unhex;
use seedring_tests::tracker::{Behaviour, OpenTracker, RecordingTracker};
use seedring_tests::udp_tracker::{UdpTracker, seeds};
use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest wait for one download.
const LIMIT: Duration = Duration::from_secs(120);
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LOOPBACK_6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

fn content() -> TempDir {
    let root = TempDir::new().unwrap();
    write_file(&root.path().join("data/file.bin"), 3 * MIB + 77, 52);
    root
}

/// The info-hash of a path, made once without a tracker: the hash does not depend on trackers.
fn hash_of(path: &Path) -> String {
    let server = Seed::path(path).options(["--no-tracker"]).start();
    server.ready.torrents[0].info_hash_v1.clone()
}

/// A seed of `path` that announces to these trackers, a tier each.
fn seed(path: &Path, trackers: &[&str]) -> Seed {
    let tiers = trackers.iter().flat_map(|url| ["--tracker", url]);
    let options: Vec<&str> = ["--no-tracker"].into_iter().chain(tiers).collect();
    Seed::path(path).options(options)
}

/// `seedring get` of a torrent completes, and what came is right.
fn ours_completes(torrent: &Path, file: &Path) {
    let folder = TempDir::new().unwrap();
    Get::new(torrent, folder.path()).start().complete(LIMIT);
    let got = folder.path().join("file.bin");
    assert_eq!(std::fs::read(got).unwrap(), std::fs::read(file).unwrap());
}

#[test]
fn opentracker_takes_our_announces_by_udp() {
    let root = content();
    let file = root.path().join("data/file.bin");
    let hash = hash_of(&file);
    let tracker = OpenTracker::start(LOOPBACK, std::slice::from_ref(&hash));
    let tracker = need!("opentracker_takes_our_announces_by_udp", tracker);
    let mut server = seed(&file, &[&tracker.udp_url()]).start();
    let until = Instant::now() + Duration::from_secs(30);
    while seeds(tracker.udp_address(), &unhex(&hash)) != 1 {
        assert!(Instant::now() < until, "the tracker never knew us");
        std::thread::sleep(Duration::from_millis(50));
    }
    // Ours finds it through the same tracker.
    ours_completes(&server.ready.torrents[0].torrent, &file);
    let metrics = server.metrics();
    let ok = metrics.get("seedring_announces_total{result=\"ok\"}");
    assert!(ok.is_some_and(|count| *count >= 1.0), "{metrics:?}");
    assert!(server.stop(Duration::from_secs(15)).0.success());
    let left = seeds(tracker.udp_address(), &unhex(&hash));
    assert_eq!(left, 0, "the stopped announce took the seed away");
}

/// A download with libtorrent that is bound to an address.
fn libtorrent(python: &Path, torrent: &Path, folder: &Path, bind: &str) -> Process {
    let mut command = Command::new(python);
    command.arg(script("libtorrent_download.py"));
    command.arg(torrent).arg(folder).args(["--bind", bind]);
    Process::spawn("libtorrent", &command)
}

#[test]
fn libtorrent_and_ours_find_us_by_udp_over_either_family() {
    let test = "libtorrent_and_ours_find_us_by_udp_over_either_family";
    let python = need!(test, libtorrent_python());
    let root = content();
    let file = root.path().join("data/file.bin");
    for (ip, bind) in [(LOOPBACK, "127.0.0.1"), (LOOPBACK_6, "[::1]")] {
        let tracker = UdpTracker::start(ip);
        let mut server = seed(&file, &[&tracker.url()]).start();
        let port = server.ready.peer_port;
        let started = tracker.wait_for(Duration::from_secs(30), |announced| announced.port == port);
        assert_eq!((started.event, started.from.ip()), (2, ip));
        assert_eq!(started.options, b"\x02\x09/announce", "BEP 41");
        let torrent = server.ready.torrents[0].torrent.clone();
        let folder = TempDir::new().unwrap();
        let mut client = libtorrent(&python, &torrent, folder.path(), bind);
        let status = client.wait_exit(LIMIT);
        assert!(status.success(), "{status}\n{}", client.transcript());
        let got = std::fs::read(folder.path().join("file.bin")).unwrap();
        assert_eq!(got, std::fs::read(&file).unwrap());
        ours_completes(&torrent, &file);
        let events = |port: u16| -> Vec<u32> {
            let all = tracker.announces().into_iter();
            let of_port = all.filter(|announced| announced.port == port);
            of_port.map(|announced| announced.event).collect()
        };
        assert!(server.stop(Duration::from_secs(15)).0.success());
        assert_eq!(events(port), [2, 3], "started and stopped");
    }
}

#[test]
fn clients_on_other_hosts_find_us_through_opentracker_by_udp() {
    let test = "clients_on_other_hosts_find_us_through_opentracker_by_udp";
    if !need!(test, lan::inside(test)) {
        return;
    }
    let root = TempDir::new().unwrap();
    let content = root.path().join("content");
    main_job_folder(&content, 8 * MIB);
    let hash = hash_of(&content);
    let lan = Lan::build();
    let tracker = need!(test, OpenTracker::start(IpAddr::V4(lan::SERVER), &[hash]));
    let server = seed(&content, &[&tracker.udp_url()]).start();
    let host = |program: &OsStr| lan.client_command(program);
    let source = server.ready.torrents[0].torrent.clone();
    let client = Client::Libtorrent;
    let folder = TempDir::new().unwrap();
    let download = client.download(source.as_os_str(), folder.path(), &host);
    need!(test, download).wait(LIMIT);
    client.assert_same_tree(&content, &folder.path().join("content"));
    let folder = TempDir::new().unwrap();
    let ours = Get::new(&source, folder.path()).start_on(&host);
    ours.complete(LIMIT);
    assert_same_tree(&content, &folder.path().join("content"));
}

/// The first tier never answers, the second takes the request and is silent, the third works.
#[test]
fn a_download_does_not_wait_for_dead_trackers() {
    let root = content();
    let file = root.path().join("data/file.bin");
    let dead = UdpSocket::bind("127.0.0.1:0").unwrap();
    let dead_url = format!("udp://{}/announce", dead.local_addr().unwrap());
    let silent = RecordingTracker::start(Behaviour::Silent);
    let working = UdpTracker::start(LOOPBACK);
    let server = seed(&file, &[&working.url()]).start();
    let port = server.ready.peer_port;
    working.wait_for(Duration::from_secs(30), |announced| announced.port == port);
    // The same torrent, whose trackers are in another order.
    let tiers = [dead_url.as_str(), &silent.url(), &working.url()];
    let other = TempDir::new().unwrap();
    let copy = other.path().join("file.bin");
    std::fs::copy(&file, &copy).unwrap();
    let mut made = seed(&copy, &tiers).start();
    let torrent = other.path().join("tiers.torrent");
    std::fs::copy(&made.ready.torrents[0].torrent, &torrent).unwrap();
    assert!(made.stop(Duration::from_secs(30)).0.success());

    let folder = TempDir::new().unwrap();
    let mut get = Get::new(&torrent, folder.path()).start();
    get.event("complete", LIMIT);
    // An announce takes 30 s to fail, so nobody waited for the two before the third; the generous
    // bound is for slow machines.
    let took = get.process.started().elapsed();
    assert!(took < Duration::from_secs(25), "{took:?}");
    silent.wait_for("left=", Duration::from_secs(1));
    let mut datagram = [0; 16];
    assert_eq!(dead.recv(&mut datagram).unwrap(), 16, "the first was asked");
}
