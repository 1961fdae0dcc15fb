//! `seedring get` from real seeds: all that other clients serve arrives byte for byte.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use seedring_tests::clients::{Client, libtorrent_python, script};
use seedring_tests::content::{KIB, MIB, assert_same_tree, write_file};
use seedring_tests::get::Get;
use seedring_tests::lan::{self, Lan};
use seedring_tests::need;
use seedring_tests::process::run_ok;
use seedring_tests::seeds::{RealSeed, Seeding};
use seedring_tests::server::{SHORT, Seed, event, events, seedring};
use seedring_tests::torrent::Torrent;
use seedring_tests::tracker::{Behaviour, RecordingTracker};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// Longest wait for a small download; see [`Content::limit`].
const LIMIT: Duration = Duration::from_secs(100);

/// A folder of data and its torrent.
struct Content {
    root: TempDir,
    name: &'static str,
    torrent: PathBuf,
}

impl Content {
    /// One file that ends in the middle of a block; of 4 GiB if `SEEDRING_TESTS_HUGE` is set.
    fn single_file() -> Self {
        let root = TempDir::new().unwrap();
        let bytes = match std::env::var_os("SEEDRING_TESTS_HUGE") {
            Some(_) => 4096 * MIB,
            None if full() => 300 * MIB,
            None => 20 * MIB,
        };
        write_file(&root.path().join("data/one.bin"), bytes + 12_345, 1);
        Self::of(root, "one.bin", &[])
    }

    /// Files of all sizes, from none to many pieces, some in folders.
    fn many_files() -> Self {
        let root = TempDir::new().unwrap();
        let count = if full() { 5_000 } else { 300 };
        for number in 0..count {
            let path = format!("data/many/{}/file {number}.bin", number % 17);
            let length = match number % 50 {
                0 => 0,
                1 => MIB + 1,
                other => other * 577,
            };
            write_file(&root.path().join(path), length, number);
        }
        Self::of(root, "many", &[])
    }

    fn of(root: TempDir, name: &'static str, options: &[&str]) -> Self {
        let torrent = root.path().join("it.torrent");
        let mut create = seedring(["create"]);
        create
            .arg(root.path().join("data").join(name))
            .arg("-o")
            .arg(&torrent)
            .args(["--piece-size", "64K"])
            .args(options);
        run_ok("seedring create", &create, SHORT);
        Self {
            root,
            name,
            torrent,
        }
    }

    /// A seed of ours.
    fn seeded(&self) -> Seeding {
        let seed = RealSeed::Seedring.start(&self.torrent, &self.data_dir());
        seed.expect("ours is always there")
    }

    fn data_dir(&self) -> PathBuf {
        self.root.path().join("data")
    }

    /// Longest wait for a download of all of it, by the slowest client.
    fn limit(&self) -> Duration {
        LIMIT + Duration::from_secs(Torrent::read(&self.torrent).length() / (2 * MIB))
    }

    fn magnet(&self) -> String {
        format!(
            "magnet:?xt=urn:btih:{}",
            Torrent::read(&self.torrent).info_hash_hex()
        )
    }

    /// Panics unless `folder` holds the data, and nothing else.
    fn assert_copied(&self, folder: &Path) {
        assert_same_tree(&self.data_dir(), folder);
    }
}

/// Whether tests take the sizes that the project promises for.
fn full() -> bool {
    !cfg!(debug_assertions) || std::env::var_os("SEEDRING_TESTS_FULL").is_some()
}

/// Downloads one file and many from this kind of seed.
fn downloads_from(test: &str, kind: RealSeed) {
    for content in [Content::single_file(), Content::many_files()] {
        let seed = need!(test, kind.start(&content.torrent, &content.data_dir()));
        let folder = TempDir::new().unwrap();
        let get = Get::new(&content.torrent, folder.path()).peer(seed.address);
        let complete = get.start().complete(content.limit());
        content.assert_copied(folder.path());
        let bytes = Torrent::read(&content.torrent).length();
        assert_eq!(complete["bytes"], bytes, "{complete}");
        assert_eq!(complete["wasted"], 0, "{complete}");
    }
}

#[test]
fn all_of_it_arrives_from_transmission() {
    downloads_from(
        "all_of_it_arrives_from_transmission",
        RealSeed::Transmission,
    );
}

#[test]
fn all_of_it_arrives_from_libtorrent() {
    downloads_from("all_of_it_arrives_from_libtorrent", RealSeed::Libtorrent);
}

#[test]
fn all_of_it_arrives_from_qbittorrent() {
    downloads_from("all_of_it_arrives_from_qbittorrent", RealSeed::Qbittorrent);
}

#[test]
fn all_of_it_arrives_from_aria2() {
    downloads_from("all_of_it_arrives_from_aria2", RealSeed::Aria2);
}

#[test]
fn all_of_it_arrives_from_rtorrent() {
    downloads_from("all_of_it_arrives_from_rtorrent", RealSeed::Rtorrent);
}

#[test]
fn all_of_it_arrives_from_ourselves() {
    downloads_from("all_of_it_arrives_from_ourselves", RealSeed::Seedring);
}

/// One host fetches it again, or into another folder: who was complete there once is served anew. Transmission 3, once
/// it has been told that all is there, closes every further connection from that address.
#[test]
fn a_seed_serves_the_same_host_twice() {
    let test = "a_seed_serves_the_same_host_twice";
    let content = Content::many_files();
    let seed = need!(
        test,
        RealSeed::Transmission.start(&content.torrent, &content.data_dir())
    );
    for _ in 0..2 {
        let folder = TempDir::new().unwrap();
        let get = Get::new(&content.torrent, folder.path()).peer(seed.address);
        get.start().complete(LIMIT);
        content.assert_copied(folder.path());
    }
}

/// With nothing but the hash and an address.
#[test]
fn a_magnet_link_and_a_peer_are_enough() {
    let test = "a_magnet_link_and_a_peer_are_enough";
    let content = Content::many_files();
    for kind in RealSeed::ALL {
        let seed = need!(test, kind.start(&content.torrent, &content.data_dir()));
        let folder = TempDir::new().unwrap();
        let get = Get::new(content.magnet(), folder.path()).peer(seed.address);
        get.start().complete(LIMIT);
        content.assert_copied(folder.path());
    }
}

/// The version 2 part of a hybrid is not whole without piece layers, which no peer sends with its
/// metadata: what its version 1 part says is enough, now and from what is remembered.
#[test]
fn a_magnet_link_is_enough_for_a_hybrid() {
    let test = "a_magnet_link_is_enough_for_a_hybrid";
    let mut content = Content::many_files();
    content.torrent = content.root.path().join("hybrid.torrent");
    let mut create = Command::new(need!(test, libtorrent_python()));
    create.arg(script("libtorrent_create.py"));
    create.arg(content.data_dir().join(content.name));
    create
        .arg(&content.torrent)
        .args([&(64 * KIB).to_string(), "hybrid"]);
    run_ok("libtorrent_create.py", &create, SHORT);
    // Its padding is no file of anybody's.
    let about = |command: &str, more: &[&str]| {
        let mut about = seedring([command]);
        about.arg(&content.torrent).args(more);
        run_ok(command, &about, SHORT)
    };
    let shown = about("show", &[]);
    assert!(shown.contains("pad file"), "{shown}");
    let data_dir = content.data_dir();
    let verified = about("verify", &["--json", "-d", data_dir.to_str().unwrap()]);
    assert!(verified.contains("\"good\":true"), "{verified}");
    let mut files = verified
        .lines()
        .filter(|line| line.contains("\"event\":\"file\""));
    assert!(!files.any(|line| line.contains(".pad")), "{verified}");
    let seed = need!(
        test,
        RealSeed::Libtorrent.start(&content.torrent, &content.data_dir())
    );
    let server = Seed::torrent(&content.torrent, &content.data_dir())
        .options(["--no-tracker"])
        .start();
    let link = server.ready.torrents[0].magnet.clone();
    assert!(link.contains("urn:btmh:"), "not a hybrid: {link}");
    for (link, peer) in [(content.magnet(), seed.address), (link, server.address())] {
        let (folder, state) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let get = || Get::new(&link, folder.path()).state_dir(state.path());
        get().peer(peer).start().complete(LIMIT);
        content.assert_copied(folder.path());
        let again = get().start().complete(LIMIT);
        assert_eq!(again["downloaded"], 0, "{again}");
    }
}

/// Found through our own tracker, by the torrent and by the link that the seed prints.
#[test]
fn a_tracker_says_where_the_seed_is() {
    let content = Content::single_file();
    let server = Seed::path(&content.data_dir().join(content.name))
        .options(["--announce-host", "127.0.0.1"])
        .start();
    let seeded = &server.ready.torrents[0];
    for source in [seeded.torrent.as_os_str(), seeded.magnet.as_ref()] {
        let folder = TempDir::new().unwrap();
        Get::new(source, folder.path()).start().complete(LIMIT);
        content.assert_copied(folder.path());
    }
}

/// The same from another host of a network of private addresses, with nothing but what is printed.
#[test]
fn what_a_seed_prints_is_enough_for_a_host_beside_it() {
    let test = "what_a_seed_prints_is_enough_for_a_host_beside_it";
    if !need!(test, lan::inside(test)) {
        return;
    }
    let lan = Lan::build();
    let content = Content::single_file();
    let server = Seed::path(&content.data_dir().join(content.name)).start();
    let link = &server.ready.torrents[0].magnet;
    assert!(link.contains(&lan::SERVER.to_string()), "{link}");
    let folder = TempDir::new().unwrap();
    let host = |program: &OsStr| lan.client_command(program);
    let mut get = Get::new(link, folder.path()).start_on(&host);
    get.event("complete", LIMIT);
    content.assert_copied(folder.path());
}

/// What a tracker is told: how much is left, that all is there, and that we are gone, in this order.
#[test]
fn trackers_are_told_how_it_goes() {
    let content = Content::single_file();
    let tracker = RecordingTracker::start(Behaviour::Answers);
    let seed = content.seeded();
    let folder = TempDir::new().unwrap();
    let get = Get::new(&content.torrent, folder.path()).peer(seed.address);
    let get = get.options(["--tracker", &tracker.url()]);
    get.start().complete(LIMIT);
    let announces = tracker.announces();
    let events: Vec<&str> = announces
        .iter()
        .filter_map(|target| target.split("event=").nth(1)?.split('&').next())
        .collect();
    assert_eq!(events, ["started", "completed", "stopped"], "{announces:?}");
    let length = Torrent::read(&content.torrent).length();
    assert!(
        announces[0].contains(&format!("left={length}&")),
        "{announces:?}"
    );
    assert!(announces[1].contains("left=0&"), "{announces:?}");
    assert!(
        announces[1].contains(&format!("downloaded={length}&")),
        "{announces:?}"
    );
}

/// Only what was chosen is written; the rest comes when it is wanted.
#[test]
fn chosen_files_come_alone_and_the_rest_later() {
    let content = Content::many_files();
    let seed = content.seeded();
    let peer = seed.address;
    let (folder, state) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let get = || {
        Get::new(&content.torrent, folder.path())
            .peer(peer)
            .state_dir(state.path())
    };
    let some = get().options(["--select", "3/*", "--select", "3"]);
    let complete = some.start().complete(LIMIT);
    assert_eq!(complete["whole"], false);
    assert_same_tree(
        &content.data_dir().join("many/3"),
        &folder.path().join("many/3"),
    );
    let others = folder.path().join("many/4");
    assert!(!others.join("file 4.bin").exists(), "nobody wanted it");
    let rest = get().start().complete(LIMIT);
    assert_eq!(rest["whole"], true);
    let all = Torrent::read(&content.torrent).length();
    assert!(
        rest["downloaded"].as_u64().unwrap() < all,
        "what was there is used: {rest}"
    );
    content.assert_copied(folder.path());
}

/// What is there of another client's download is hashed, and only what is wrong is fetched.
#[test]
fn data_that_exist_are_used_and_mended() {
    let content = Content::single_file();
    let seed = content.seeded();
    let folder = TempDir::new().unwrap();
    let copy = folder.path().join("one.bin");
    let mut bytes = std::fs::read(content.data_dir().join("one.bin")).unwrap();
    bytes[1_000_000] ^= 1;
    std::fs::write(&copy, &bytes).unwrap();
    let get = Get::new(&content.torrent, folder.path()).peer(seed.address);
    let mut getting = get.start();
    let replacing = getting.event("replacing", LIMIT);
    assert_eq!(replacing["count"], 1, "{replacing}");
    assert_eq!(replacing["files"][0], copy.to_str().unwrap());
    let complete = getting.complete(LIMIT);
    assert_eq!(complete["downloaded"], 64 * KIB, "one piece: {complete}");
    content.assert_copied(folder.path());
}

/// A second run has nothing to do, asks nobody and hashes nothing.
#[test]
fn what_is_complete_is_complete_at_once() {
    let content = Content::single_file();
    let seed = content.seeded();
    let (folder, state) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let get = || Get::new(&content.torrent, folder.path()).state_dir(state.path());
    get().peer(seed.address).start().complete(LIMIT);
    let again = get().start().complete(LIMIT);
    assert_eq!(again["downloaded"], 0);
    content.assert_copied(folder.path());
    // The server knows it, too: it is ready without hashing.
    let server = Seed::torrent(&content.torrent, folder.path()).state_dir(state.path());
    let server = server.options(["--no-tracker"]).start();
    let hashed = server.metrics()["seedring_verified_bytes_total"];
    assert_eq!(hashed, 0.0, "what was downloaded is known to be right");
}

/// Three clients of three kinds fetch from one slow seed and from each other.
#[test]
fn a_swarm_shares_what_a_slow_seed_gives() {
    let test = "a_swarm_shares_what_a_slow_seed_gives";
    if !need!(test, lan::inside(test)) {
        return;
    }
    let lan = Lan::build();
    let content = Content::single_file();
    let bytes = Torrent::read(&content.torrent).length();
    // A quarter of a second for each mebibyte: slow beside what the three do among themselves.
    let seed = Seed::path(&content.data_dir().join(content.name))
        .setting("limits", "upload_rate", "4194304")
        .start();
    let torrent = seed.ready.torrents[0].torrent.clone();
    let host = |program: &OsStr| lan.client_command(program);
    let folders = [(); 3].map(|()| TempDir::new().unwrap());
    let ours = Get::new(&torrent, folders[0].path()).options(["--seed"]);
    let mut ours = ours.start_on(&host);
    ours.event("started", LIMIT);
    let clients = [Client::Libtorrent, Client::Transmission];
    let mut downloads = Vec::new();
    for ((client, folder), address) in clients.into_iter().zip(&folders[1..]).zip(lan::CLIENT_MORE)
    {
        let torrent = torrent.as_os_str();
        let download = client.download_as(torrent, folder.path(), Some(address.into()), &host);
        downloads.push(need!(test, download));
    }
    ours.event("complete", content.limit());
    for download in &mut downloads {
        download.wait(content.limit());
    }
    for folder in &folders {
        assert_same_tree(
            &content.data_dir().join("one.bin"),
            &folder.path().join("one.bin"),
        );
    }
    let uploaded = seed.metrics();
    let uploaded = uploaded
        .iter()
        .filter(|(series, _)| series.starts_with("seedring_uploaded_bytes_total"));
    let uploaded: f64 = uploaded.map(|(_, value)| value).sum();
    assert!(
        uploaded < 2.0 * bytes as f64,
        "the seed sent {uploaded} bytes of {bytes}"
    );
}

/// Whoever goes on as a seed serves others.
#[test]
fn a_download_goes_on_as_a_seed() {
    let content = Content::single_file();
    let seed = content.seeded();
    let (first, second) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let get = Get::new(&content.torrent, first.path()).peer(seed.address);
    let mut get = get.options(["--seed"]).start();
    let port = get.event("started", LIMIT)["peer_port"].as_u64().unwrap();
    get.event("complete", LIMIT);
    drop(seed);
    let peer = std::net::SocketAddr::from(([127, 0, 0, 1], port as u16));
    Get::new(&content.torrent, second.path())
        .peer(peer)
        .start()
        .complete(LIMIT);
    content.assert_copied(second.path());
    assert!(
        get.interrupt(SHORT).success(),
        "all was there: {}",
        get.process.transcript()
    );
}

/// A seed with an address of each family is two peers until it shows which one gives more, then one.
#[test]
fn a_seed_of_two_families_is_fetched_from_by_one() {
    let test = "a_seed_of_two_families_is_fetched_from_by_one";
    if !need!(test, lan::inside(test)) {
        return;
    }
    let lan = Lan::build();
    let content = Content::single_file();
    let server = Seed::path(&content.data_dir().join(content.name))
        .setting("limits", "upload_rate", "1048576")
        .start();
    let port = server.address().port();
    let folder = TempDir::new().unwrap();
    let get = Get::new(&server.ready.torrents[0].torrent, folder.path())
        .peer((lan::SERVER, port).into())
        .peer((lan::SERVER_V6, port).into());
    let mut get = get.start_on(&|program: &OsStr| lan.client_command(program));
    get.process
        .wait_for("two peers, then one", LIMIT, |process| {
            let lines = events(process, "progress");
            let mut peers = lines.iter().filter_map(|line| line["peers"].as_u64());
            (peers.any(|peers| peers == 2) && peers.any(|peers| peers == 1)).then_some(())
        });
    assert!(event(&get.process, "complete").is_none(), "too late");
    get.interrupt(SHORT);
}
