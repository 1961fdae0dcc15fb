//! Announces to real trackers and to our own, and what our own answers.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use seedring_tests::bencode::{Value, decode};
use seedring_tests::content::{MIB, write_file};
use seedring_tests::http;
use seedring_tests::need;
use seedring_tests::server::{SHORT, Seed, Server};
use seedring_tests::single::Single;
use seedring_tests::torrent::unhex;
use seedring_tests::tracker::{Behaviour, OpenTracker, RecordingTracker};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn content() -> TempDir {
    let root = TempDir::new().unwrap();
    write_file(&root.path().join("file.bin"), MIB, 51);
    root
}

/// A seed with a tracker of its own on loopback.
fn own_tracker(root: &TempDir) -> Seed {
    Seed::path(&root.path().join("file.bin")).options(["--announce-host", "127.0.0.1"])
}

/// Every byte percent-encoded.
fn encoded(hash: &str) -> String {
    unhex(hash)
        .iter()
        .map(|byte| format!("%{byte:02X}"))
        .collect()
}

/// Announces as a leecher with this port; the parsed reply.
fn announce(tracker: &str, hash: &str, port: u16, more: &str) -> Value {
    let url = format!(
        "{tracker}?info_hash={}&peer_id=-ZZ0001-announc{port:05}&port={port}&uploaded=0\
         &downloaded=0&left=1000{more}",
        encoded(hash)
    );
    let reply = http::get(&url);
    assert_eq!(reply.status, 200, "{url}: {}", reply.text());
    decode(&reply.body).0
}

/// The ports in a reply, whichever form its peers have.
fn ports(reply: &Value) -> Vec<u16> {
    let compact = |key: &str, size: usize| -> Vec<u16> {
        match reply.get(key) {
            Some(Value::Bytes(bytes)) => {
                assert_eq!(bytes.len() % size, 0, "{key} has {} bytes", bytes.len());
                let peers = bytes.chunks_exact(size);
                peers
                    .map(|peer| u16::from_be_bytes([peer[size - 2], peer[size - 1]]))
                    .collect()
            }
            Some(Value::List(peers)) => peers
                .iter()
                .map(|peer| u16::try_from(peer.get("port").unwrap().integer()).unwrap())
                .collect(),
            _ => Vec::new(),
        }
    };
    [compact("peers", 6), compact("peers6", 18)].concat()
}

/// Announces until the server's port is among the peers.
fn finds(server: &Server, tracker: &str) {
    let hash = &server.ready.torrents[0].info_hash_v1;
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let reply = announce(tracker, hash, 9_999, "&compact=1");
        if ports(&reply).contains(&server.ready.peer_port) {
            return;
        }
        assert!(
            Instant::now() < until,
            "{tracker} never named us: {reply:?}"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// `--tracker` counts for a torrent that exists, too, before what that one names.
#[test]
fn a_named_tracker_is_told_of_an_existing_torrent() {
    let own = RecordingTracker::start(Behaviour::Answers);
    let content = Single::new(MIB, 52, &["--tracker", &own.url()]);
    let named = RecordingTracker::start(Behaviour::Answers);
    let seed = content.seed().options(["--tracker", &named.url()]);
    let server = seed.start();
    named.wait_for("event=started", SHORT);
    let magnet = &server.ready.torrents[0].magnet;
    let port = |tracker: &RecordingTracker| {
        let url = tracker.url();
        let address = url.split('/').nth(2).unwrap();
        address.split(':').nth(1).unwrap().to_owned()
    };
    let place = |tracker| magnet.find(&port(tracker)).unwrap_or(usize::MAX);
    assert!(place(&named) < place(&own), "{magnet}");
    assert!(own.announces().is_empty(), "{:?}", own.announces());
}

#[test]
fn opentracker_takes_our_announces() {
    let root = content();
    let file = root.path().join("file.bin");
    let hash = {
        let server = Seed::path(&file).options(["--no-tracker"]).start();
        server.ready.torrents[0].info_hash_v1.clone()
    };
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let tracker = OpenTracker::start(loopback, std::slice::from_ref(&hash));
    let tracker = need!("opentracker_takes_our_announces", tracker);
    let options = ["--no-tracker", "--tracker", tracker.url()];
    let mut server = Seed::path(&file).options(options).start();
    finds(&server, tracker.url());
    let scrape = tracker.url().replace("/announce", "/scrape");
    let scrape = format!("{scrape}?info_hash={}", encoded(&hash));
    let complete = || {
        let (reply, _) = decode(&http::get(&scrape).body);
        let Some(Value::Dictionary(files)) = reply.get("files") else {
            return 0;
        };
        files
            .values()
            .next()
            .map_or(0, |file| file.get("complete").unwrap().integer())
    };
    assert_eq!(complete(), 1, "one seed is known");
    assert!(server.stop(Duration::from_secs(15)).0.success());
    assert_eq!(complete(), 0, "the stopped announce took the seed away");
}

#[test]
fn our_tracker_names_us_and_others() {
    let root = content();
    let server = own_tracker(&root).start();
    let tracker = server.ready.tracker.clone().expect("a tracker of its own");
    finds(&server, &tracker);
    let hash = &server.ready.torrents[0].info_hash_v1;
    announce(&tracker, hash, 7_001, "&event=started&compact=1");
    let reply = announce(&tracker, hash, 7_002, "&event=started&compact=1");
    assert!(
        ports(&reply).contains(&7_001),
        "another leecher is named: {reply:?}"
    );
    assert!(
        !ports(&reply).contains(&7_002),
        "nobody is told of itself: {reply:?}"
    );
    assert!(reply.get("interval").unwrap().integer() >= 60, "{reply:?}");
    announce(&tracker, hash, 7_001, "&event=stopped&compact=1");
    let reply = announce(&tracker, hash, 7_002, "&compact=1");
    assert!(
        !ports(&reply).contains(&7_001),
        "who stopped is named no more: {reply:?}"
    );
}

#[test]
fn our_tracker_answers_scrapes() {
    let root = content();
    let server = own_tracker(&root).start();
    let tracker = server.ready.tracker.clone().expect("a tracker of its own");
    finds(&server, &tracker);
    let hash = &server.ready.torrents[0].info_hash_v1;
    announce(&tracker, hash, 7_003, "&event=started");
    let scrape = tracker.replace("/announce", "/scrape");
    let reply = http::get(&format!("{scrape}?info_hash={}", encoded(hash)));
    let (reply, _) = decode(&reply.body);
    let Some(Value::Dictionary(files)) = reply.get("files") else {
        panic!("{reply:?}")
    };
    let file = &files[&unhex(hash)];
    assert_eq!(file.get("complete").unwrap().integer(), 1, "{reply:?}");
    assert!(file.get("incomplete").unwrap().integer() >= 1, "{reply:?}");
}

#[test]
fn our_tracker_serves_its_own_torrents_only_and_bears_nonsense() {
    let root = content();
    let mut server = own_tracker(&root).start();
    let tracker = server.ready.tracker.clone().expect("a tracker of its own");
    finds(&server, &tracker);
    let unknown = announce(&tracker, &"ab".repeat(20), 7_004, "");
    assert!(unknown.get("failure reason").is_some(), "{unknown:?}");
    let (authority, path) = http::split_url(&tracker);
    let hash = encoded(&server.ready.torrents[0].info_hash_v1);
    let good = format!("info_hash={hash}&peer_id=-ZZ0001-announc00001");
    let nonsense = [
        format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET {path}?info_hash=short HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET {path}?info_hash=%zz%z HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET {path}?{good}&port=0&left=0 HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET {path}?{good}&port=99999&left=0 HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET {path}?{good}&port=1&left=-5 HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET {path}?{good}&port=1&left=0&numwant=-1 HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!(
            "GET {path}?{} HTTP/1.1\r\nHost: x\r\n\r\n",
            "a=b&".repeat(100_000)
        ),
        "POST /announce HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n".to_owned(),
        "\0\u{1}\u{2}garbage\r\n\r\n".to_owned(),
        "A".repeat(1_000_000),
    ];
    for request in nonsense {
        let mut stream = TcpStream::connect(authority).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        let _closed = stream.write_all(request.as_bytes());
        let mut reply = [0u8; 4096];
        let _any = stream.read(&mut reply);
    }
    finds(&server, &tracker);
    assert!(server.process.is_alive());
    let stderr = server.process.stderr();
    assert!(!stderr.contains("panicked"), "{stderr}");
}

/// Two tiers (BEP 12): the second is for when the first does not answer.
#[test]
fn the_next_tier_is_tried_when_the_first_is_gone() {
    let root = content();
    let gone = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let gone = format!("http://127.0.0.1:{gone}/announce");
    let second = RecordingTracker::start(Behaviour::Answers);
    let options = [
        "--no-tracker",
        "--tracker",
        &gone,
        "--tracker",
        &second.url(),
    ];
    let server = Seed::path(&root.path().join("file.bin"))
        .options(options)
        .start();
    let target = second.wait_for("event=started", Duration::from_secs(30));
    assert!(
        target.contains(&format!("port={}", server.ready.peer_port)),
        "{target}"
    );
    assert!(target.contains("compact=1"), "{target}");
    let torrent = std::fs::read(&server.ready.torrents[0].torrent).unwrap();
    for url in [gone, second.url()] {
        let named = torrent
            .windows(url.len())
            .any(|window| window == url.as_bytes());
        assert!(named, "the .torrent does not name {url}");
    }
}
