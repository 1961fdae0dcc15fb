//! What `serve` keeps of its torrents: kill -9 at any moment, and data moved under a real client.
//!
//! The server is killed 20 times, and 32 MiB are moved; `SEEDRING_KILLS=200` and
//! `SEEDRING_MOVE_MIB=4096` do the whole rows.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use seedring_tests::acknowledged::Acknowledged;
use seedring_tests::content::{MIB, assert_same_tree};
use seedring_tests::need;
use seedring_tests::served::Served;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;
use tempfile::TempDir;

/// Longest wait for a download.
const LIMIT: Duration = Duration::from_secs(180);

/// Row "durability": what was acknowledged is there, what was removed is gone, and data that were being
/// moved are in one of the two folders, whole.
#[test]
fn what_was_acknowledged_survives_kill_9() {
    let rounds = std::env::var("SEEDRING_KILLS").map_or(20, |count| count.parse().unwrap());
    let mut server = Served::start();
    let other = TempDir::new_in("/dev/shm").unwrap();
    let folders = [server.path("data"), other.path().join("moved")];
    let mut acknowledged = Acknowledged::new(&server, folders);
    for round in 0..rounds {
        acknowledged.until_the_end(&mut server, || {});
        server.again();
        acknowledged.check(&server, round);
    }
    acknowledged.check_data(&server);
}

/// Row "move": a real client goes on downloading while the data go to another file system.
#[test]
fn data_are_moved_under_a_real_client() {
    let mib = std::env::var("SEEDRING_MOVE_MIB").map_or(32, |mib| mib.parse().unwrap());
    let length = mib * MIB;
    let other = TempDir::new_in("/dev/shm").unwrap();
    let room = rustix::fs::statvfs(other.path()).unwrap();
    // Containers have 64 MiB there.
    assert!(
        room.f_bavail * room.f_frsize > length,
        "no room in /dev/shm"
    );
    let server = Served::start();
    let torrent = server.make("big", length);
    let data = server.path("data");
    server.ok([
        "add",
        torrent.to_str().unwrap(),
        "-d",
        data.to_str().unwrap(),
    ]);
    server.wait_status("seeding");
    // It would take ten minutes: until the move is done.
    server.ok(["limit", "big", "--up", &format!("{}B/s", length / 600)]);
    let port = server.say(["stats", "--json"]).json()[0]["server"]["peer_port"].clone();
    let into = TempDir::new().unwrap();
    let peer = format!("127.0.0.1:{port}");
    let mut client = need!("kept", libtorrent_of(&torrent, into.path(), &peer));
    server.wait("peer", |torrents| {
        torrents[0]["upload_rate"].as_u64() > Some(0)
    });
    let before = accepted(&server);
    let moved = other.path().join("new");
    let begun_s = now_s();
    server.ok(["move", "big", "--to", moved.to_str().unwrap()]);
    server.wait("move", |torrents| {
        torrents[0]["save_path"] == *moved.to_str().unwrap() && torrents[0]["status"] == "seeding"
    });
    let moving_s = begun_s..now_s();
    assert!(
        client.try_wait().unwrap().is_none(),
        "it was to be under way still"
    );
    server.ok(["limit", "big", "--up", "default"]);
    let until = std::time::Instant::now() + LIMIT;
    while client.try_wait().unwrap().is_none() {
        assert!(std::time::Instant::now() < until, "it did not complete");
        std::thread::sleep(Duration::from_millis(100));
    }
    tell_gaps(into.path(), mib, moving_s);
    assert_same_tree(&moved.join("big"), &into.path().join("big"));
    assert!(!data.join("big").exists(), "the old file stays");
    // Nobody was sent away: it is the same connection from beginning to end.
    assert_eq!(accepted(&server), before, "it had to come again");
}

/// Says how long the client waited for its next block at most, while the data were moved and else.
/// It is no check: how long a disk takes is the machine's.
fn tell_gaps(into: &Path, mib: u64, moving_s: Range<f64>) {
    let lines = std::fs::read_to_string(into.join("gaps")).unwrap();
    let (mut while_moved, mut at_rest) = (0.0f64, 0.0f64);
    for line in lines.lines() {
        let (begun_s, gap_s) = line.split_once(' ').unwrap();
        let (begun_s, gap_s): (f64, f64) = (begun_s.parse().unwrap(), gap_s.parse().unwrap());
        // One that has begun before the move and ends in it is one of the move.
        let is_within = begun_s < moving_s.end && begun_s + gap_s > moving_s.start;
        let longest = if is_within {
            &mut while_moved
        } else {
            &mut at_rest
        };
        *longest = longest.max(gap_s);
    }
    let took_s = moving_s.end - moving_s.start;
    // It is sent in ten minutes while it is moved.
    let block_ms = 600_000.0 * 16.0 / (mib as f64 * 1024.0);
    println!(
        "{mib} MiB moved in {took_s:.1} s: longest gap between two blocks {:.0} ms meanwhile, \
         {:.0} ms else (0: less than 30); by its limit a block comes each {block_ms:.1} ms \
         meanwhile",
        while_moved * 1000.0,
        at_rest * 1000.0
    );
}

/// Seconds since 1970.
fn now_s() -> f64 {
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs_f64()
}

/// A real client goes on downloading while the file gets one name after another.
#[test]
fn a_file_is_renamed_under_a_real_client() {
    let length = 16 * MIB;
    let server = Served::start();
    let torrent = server.make("big", length);
    let data = server.path("data");
    let (file, folder) = (torrent.to_str().unwrap(), data.to_str().unwrap());
    server.ok(["add", file, "-d", folder]);
    server.wait_status("seeding");
    // It would take ten minutes: until the last rename is done.
    server.ok(["limit", "big", "--up", &format!("{}B/s", length / 600)]);
    let port = server.say(["stats", "--json"]).json()[0]["server"]["peer_port"].clone();
    let into = TempDir::new().unwrap();
    let peer = format!("127.0.0.1:{port}");
    let mut client = need!("kept", libtorrent_of(&torrent, into.path(), &peer));
    server.wait("peer", |torrents| {
        torrents[0]["upload_rate"].as_u64() > Some(0)
    });
    let before = accepted(&server);
    for name in ["a", "b", "in/some/folder/c", "d"] {
        server.ok(["rename", "big", "--file", "0", name]);
        assert!(data.join(name).is_file(), "what is acknowledged is done");
    }
    let left = std::fs::read_dir(&data).unwrap().count();
    assert_eq!(left, 1, "old names stay");
    assert!(
        client.try_wait().unwrap().is_none(),
        "it was to be under way still"
    );
    server.ok(["limit", "big", "--up", "default"]);
    let until = std::time::Instant::now() + LIMIT;
    while client.try_wait().unwrap().is_none() {
        assert!(std::time::Instant::now() < until, "it did not complete");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_same_tree(&data.join("d"), &into.path().join("big"));
    assert_eq!(accepted(&server), before, "it had to come again");
    let torrents = server.torrents();
    assert_eq!(torrents[0]["status"], "seeding", "{torrents:?}");
}

/// Connections that the server has accepted so far.
fn accepted(server: &Served) -> u64 {
    let metrics = seedring_tests::http::get(&format!("{}/metrics", server.api)).text();
    let lines = metrics
        .lines()
        .filter(|line| line.starts_with("seedring_connections_accepted_total"));
    lines
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

/// libtorrent, downloading from one peer. To `gaps` in the folder it writes each time of more
/// than 30 ms in which no block came: when it began, in seconds since 1970, and how long it was.
fn libtorrent_of(
    torrent: &Path,
    folder: &Path,
    peer: &str,
) -> Result<Child, seedring_tests::skip::Skip> {
    const SCRIPT: &str = "
import libtorrent as lt, sys, time
torrent, folder, peer = sys.argv[1:]
host, port = peer.rsplit(':', 1)
session = lt.session({'listen_interfaces': '127.0.0.1:0', 'enable_dht': False, 'enable_lsd': False,
    'enable_upnp': False, 'enable_natpmp': False, 'enable_outgoing_utp': False})
handle = session.add_torrent({'ti': lt.torrent_info(torrent), 'save_path': folder})
handle.connect_peer((host, int(port)))
done, since = 0, time.time()
while True:
    status, now = handle.status(), time.time()
    if status.total_done > done:
        if done and now - since > 0.03:
            print(since, now - since)
        done, since = status.total_done, now
    if status.is_seeding:
        break
    time.sleep(0.02)
";
    let python = seedring_tests::clients::libtorrent_python()?;
    let mut command = Command::new(python);
    command
        .args(["-c", SCRIPT])
        .arg(torrent)
        .arg(folder)
        .arg(peer)
        .stdout(File::create(folder.join("gaps")).unwrap());
    Ok(command.spawn().unwrap())
}
