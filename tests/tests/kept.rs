//! What `serve` keeps of its torrents: kill -9 at any moment, and data moved under a real client.
//!
//! The server is killed 20 times, and 32 MiB are moved; `SEEDRING_KILLS=200` and
//! `SEEDRING_MOVE_MIB=4096` do the whole rows.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use rustix::process::Signal;
use seedring_tests::content::{MIB, assert_same_tree};
use seedring_tests::need;
use seedring_tests::served::Served;
use seedring_tests::server::SHORT;
use seedring_tests::torrent::Torrent;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Longest wait for a download.
const LIMIT: Duration = Duration::from_secs(180);

/// Numbers that look random, from a seed that a failure names.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % end
    }
}

/// What a torrent is to be like, by what was acknowledged.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Wanted {
    is_there: bool,
    label: Option<String>,
    upload_rate: Option<u64>,
    folder: PathBuf,
}

/// A torrent of the kill test.
struct Subject {
    name: String,
    file: PathBuf,
    hash: String,
    /// All that it may be: more than one, while a command was under way at the kill.
    may_be: Vec<Wanted>,
}

/// A command about one torrent, and what it is like then.
fn command(dice: &mut Dice, subject: &Subject, folders: &[PathBuf]) -> (Vec<String>, Wanted) {
    let now = subject.may_be[0].clone();
    let text = |path: &Path| path.display().to_string();
    let hash = subject.hash.clone();
    if !now.is_there {
        // Its data stay where they were when it was removed.
        let has_it = |folder: &&PathBuf| folder.join(&subject.name).exists();
        let folder = folders.iter().find(has_it).unwrap().clone();
        let words = ["add", &text(&subject.file), "-d", &text(&folder)];
        let then = Wanted {
            is_there: true,
            folder,
            ..Wanted::default()
        };
        return (words.map(str::to_owned).to_vec(), then);
    }
    match dice.below(4) {
        0 => {
            let words = vec!["remove".to_owned(), hash];
            (words, Wanted::default())
        }
        1 => {
            let label = format!("label{}", dice.below(1000));
            let words = ["label", &hash, "--set", &label]
                .map(str::to_owned)
                .to_vec();
            let label = Some(label);
            (words, Wanted { label, ..now })
        }
        2 => {
            let rate = 1_000_000 + dice.below(1_000_000);
            let words = ["limit", &hash, "--up", &format!("{rate}B/s")];
            let upload_rate = Some(rate);
            let words = words.map(str::to_owned).to_vec();
            (words, Wanted { upload_rate, ..now })
        }
        _ => {
            let folder = folders[usize::from(now.folder == folders[0])].clone();
            let words = ["move", &hash, "--to", &text(&folder)]
                .map(str::to_owned)
                .to_vec();
            (words, Wanted { folder, ..now })
        }
    }
}

/// What the server says of a torrent; it may be on its way to its folder.
fn found(server: &Served, subject: &Subject) -> Wanted {
    let wanted = |torrents: &[serde_json::Value]| {
        let is_it = |torrent: &&serde_json::Value| torrent["info_hash"] == *subject.hash;
        match torrents.iter().find(is_it) {
            Some(torrent) => Wanted {
                is_there: true,
                label: torrent["labels"][0].as_str().map(str::to_owned),
                upload_rate: torrent["limits"]["upload_rate"].as_u64(),
                folder: torrent["save_path"].as_str().unwrap().into(),
            },
            None => Wanted::default(),
        }
    };
    let may_be = |torrents: &[serde_json::Value]| subject.may_be.contains(&wanted(torrents));
    // A move that was acknowledged goes on after the start.
    wanted(&server.wait("torrent as it was acknowledged", may_be))
}

/// Row "durability": what was acknowledged is there, what was removed is gone, and data that were being
/// moved are in one of the two folders, whole.
#[test]
fn what_was_acknowledged_survives_kill_9() {
    let rounds = std::env::var("SEEDRING_KILLS").map_or(20, |count| count.parse().unwrap());
    let mut server = Served::start();
    let other = TempDir::new_in("/dev/shm").unwrap();
    let folders = [server.path("data"), other.path().join("moved")];
    let subject = |number: u64| {
        let file = server.make(&format!("t{number}"), 300_000 + number);
        let hash = Torrent::read(&file).info_hash_hex();
        let may_be = vec![Wanted::default()];
        Subject {
            name: format!("t{number}"),
            file,
            hash,
            may_be,
        }
    };
    let mut subjects: Vec<Subject> = (0..6).map(subject).collect();
    let mut dice = Dice(7);
    for round in 0..rounds {
        // Several commands at a time, and the end at any moment of them.
        let mut running = Vec::new();
        for subject in &mut subjects {
            let (words, then) = command(&mut dice, subject, &folders);
            let mut command = server.command(&words);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            running.push((command.spawn().unwrap(), then));
        }
        std::thread::sleep(Duration::from_millis(dice.below(300)));
        server.process.signal(Signal::KILL);
        server.process.wait_exit(SHORT);
        for ((mut child, then), subject) in running.into_iter().zip(&mut subjects) {
            // Acknowledged: so it is. Else it is so, or as it was.
            match child.wait().unwrap().code() {
                Some(0) => subject.may_be = vec![then],
                Some(1) => subject.may_be.push(then),
                other => panic!("a command of this test ended with {other:?}"),
            }
        }
        server.again();
        for subject in &mut subjects {
            let found = found(&server, subject);
            assert!(
                subject.may_be.contains(&found),
                "round {round}, {}: {found:?} is none of {:?}",
                subject.hash,
                subject.may_be
            );
            subject.may_be = vec![found];
        }
    }
    // All that is there is whole where it is said to be.
    let there: BTreeMap<&str, &Wanted> = subjects
        .iter()
        .filter(|subject| subject.may_be[0].is_there)
        .map(|subject| (subject.hash.as_str(), &subject.may_be[0]))
        .collect();
    for hash in there.keys() {
        server.ok(["recheck", hash]);
    }
    server.wait("check without fault", |torrents| {
        torrents.iter().all(|torrent| {
            let is_whole = torrent["pieces_verified"] == torrent["pieces"];
            is_whole && torrent["status"] == "seeding"
        })
    });
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
    server.ok(["move", "big", "--to", moved.to_str().unwrap()]);
    server.wait("move", |torrents| {
        torrents[0]["save_path"] == *moved.to_str().unwrap() && torrents[0]["status"] == "seeding"
    });
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
    assert_same_tree(&moved.join("big"), &into.path().join("big"));
    assert!(!data.join("big").exists(), "the old file stays");
    // Nobody was sent away: it is the same connection from beginning to end.
    assert_eq!(accepted(&server), before, "it had to come again");
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

/// libtorrent, downloading from one peer.
fn libtorrent_of(
    torrent: &Path,
    folder: &Path,
    peer: &str,
) -> Result<std::process::Child, seedring_tests::skip::Skip> {
    const SCRIPT: &str = "
import libtorrent as lt, sys, time
torrent, folder, peer = sys.argv[1:]
host, port = peer.rsplit(':', 1)
session = lt.session({'listen_interfaces': '127.0.0.1:0', 'enable_dht': False, 'enable_lsd': False,
    'enable_upnp': False, 'enable_natpmp': False, 'enable_outgoing_utp': False})
handle = session.add_torrent({'ti': lt.torrent_info(torrent), 'save_path': folder})
handle.connect_peer((host, int(port)))
while not handle.status().is_seeding:
    time.sleep(0.1)
";
    let python = seedring_tests::clients::libtorrent_python()?;
    let mut command = Command::new(python);
    command
        .args(["-c", SCRIPT])
        .arg(torrent)
        .arg(folder)
        .arg(peer);
    Ok(command.spawn().unwrap())
}
