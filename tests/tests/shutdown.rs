//! SIGTERM: the stopped announce is sent, and the server ends in 10 seconds with exit code 0, whatever the
//! trackers and peers do.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use seedring_tests::content::{MIB, write_file};
use seedring_tests::peer::{BLOCK, id, message, range};
use seedring_tests::server::{Seed, Server};
use seedring_tests::tracker::{Behaviour, RecordingTracker};
use std::io::Write;
use std::net::TcpListener;
use std::time::Duration;
use tempfile::TempDir;

const PROMISE: Duration = Duration::from_secs(10);

fn seed(trackers: &[String]) -> (Server, TempDir) {
    let root = TempDir::new().unwrap();
    let file = root.path().join("file.bin");
    write_file(&file, 4 * MIB, 7);
    let mut seed = Seed::path(&file).options(["--no-tracker"]);
    for tracker in trackers {
        seed = seed.options(["--tracker", tracker]);
    }
    (seed.start(), root)
}

fn stops_in_time(server: &mut Server) {
    let (status, took) = server.stop(Duration::from_secs(20));
    assert_eq!(
        status.code(),
        Some(0),
        "{status}\n{}",
        server.process.transcript()
    );
    assert!(
        took <= PROMISE,
        "it took {took:?}\n{}",
        server.process.transcript()
    );
}

#[test]
fn the_tracker_is_told_of_start_and_stop() {
    let tracker = RecordingTracker::start(Behaviour::Answers);
    let (mut server, _root) = seed(&[tracker.url()]);
    let started = tracker.wait_for("event=started", Duration::from_secs(15));
    assert!(
        started.contains(&format!("port={}", server.ready.peer_port)),
        "{started}"
    );
    assert!(started.contains("left=0"), "{started}");
    assert!(started.contains("info_hash="), "{started}");
    stops_in_time(&mut server);
    let stopped = tracker.wait_for("event=stopped", Duration::from_secs(1));
    let key = |target: &str| {
        target
            .split(['?', '&'])
            .find(|part| part.starts_with("key="))
            .map(str::to_owned)
    };
    assert!(key(&started).is_some(), "no key in {started}");
    assert_eq!(key(&started), key(&stopped), "the key stays the same");
}

#[test]
fn a_tracker_that_never_answers_delays_nothing() {
    let silent = RecordingTracker::start(Behaviour::Silent);
    let (mut server, _root) = seed(&[silent.url()]);
    silent.wait_for("event=started", Duration::from_secs(15));
    stops_in_time(&mut server);
}

#[test]
fn a_tracker_that_is_gone_delays_nothing() {
    // A port that was free a moment ago: the connection is refused.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let (mut server, _root) = seed(&[format!("http://127.0.0.1:{port}/announce")]);
    stops_in_time(&mut server);
}

#[test]
fn a_tracker_that_dies_after_the_start_delays_nothing() {
    let answering = RecordingTracker::start(Behaviour::Answers);
    let silent = RecordingTracker::start(Behaviour::Silent);
    let (mut server, _root) = seed(&[answering.url(), silent.url()]);
    answering.wait_for("event=started", Duration::from_secs(15));
    stops_in_time(&mut server);
    answering.wait_for("event=stopped", Duration::from_secs(1));
}

#[test]
fn peers_that_read_and_peers_that_do_not_delay_nothing() {
    let (mut server, _root) = seed(&[]);
    let torrent = server.torrent(0);
    let mut peers: Vec<_> = (0..20).map(|_| server.peer(&torrent)).collect();
    let pieces = u32::try_from(torrent.pieces.len()).unwrap();
    for peer in &mut peers {
        // Asked for everything several times over and not read: the server has data on its way to all.
        let mut requests = Vec::new();
        for piece in (0..4 * pieces).map(|number| number % pieces) {
            let size = torrent.piece_size(piece);
            for at in (0..size).step_by(BLOCK as usize) {
                let request = range(piece, at, BLOCK.min(size - at));
                requests.extend(message(id::REQUEST, &request));
            }
        }
        peer.stream().write_all(&requests).unwrap();
    }
    stops_in_time(&mut server);
}
