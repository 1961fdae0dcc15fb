//! The ways of payload from the disk to a socket: each serves right bytes, each is the one that was asked for, and
//! a program that writes to a file while its pages are on their way to peers spoils none of them.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use seedring_tests::content::{MIB, write_file};
use seedring_tests::oracle::assert_serves;
use seedring_tests::peer::{Answer, BLOCK, Peer, id, split_block};
use seedring_tests::server::{Seed, Server};
use seedring_tests::torrent::Torrent;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The piece length, in bytes.
const PIECE: usize = 256 << 10;

/// Long enough for any machine, and less than what the kernel waits before it takes a lease away.
const PATIENCE: Duration = Duration::from_secs(30);

struct Scene {
    server: Server,
    root: TempDir,
    torrent: Torrent,
}

/// A server of one torrent with the given send path.
fn serve(path: &str, files: &[(&str, u64)]) -> Scene {
    // Not in a folder that may be a tmpfs, whose pages cannot be dropped.
    let root = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for (at, (name, length)) in files.iter().enumerate() {
        write_file(
            &root.path().join("data").join(name),
            *length,
            40 + at as u64,
        );
    }
    let server = Seed::path(&root.path().join("data"))
        .options(["--no-tracker", "--piece-size", "256K", "--shards", "1"])
        .setting("storage", "send_path", path)
        .setting("storage", "mapped_bytes", "64MiB")
        .start();
    let torrent = server.torrent(0);
    Scene {
        server,
        root,
        torrent,
    }
}

/// How many batches went by `path`.
fn sends(server: &Server, path: &str) -> f64 {
    let label = format!("path=\"{path}\"");
    let metrics = server.metrics();
    let series = metrics.iter().filter(|(series, _)| {
        series.starts_with("seedring_sends_total") && series.contains(&label)
    });
    series.map(|(_, value)| value).sum()
}

/// All pieces of a torrent whose files end anywhere: in pages, between blocks, and many in one block.
fn all_pieces_by(path: &str) -> Scene {
    let tiny: Vec<String> = (0..300).map(|at| format!("tiny/{at:03}")).collect();
    let mut files = vec![("a", 3 * MIB + 77), ("b", 1), ("c", 2 * MIB - 1)];
    files.extend(tiny.iter().map(|name| (name.as_str(), 997)));
    files.push(("z", MIB + 4095));
    let scene = serve(path, &files);
    let pieces: Vec<u32> = (0..scene.torrent.pieces.len() as u32).collect();
    assert_serves(&scene.server, &scene.torrent, &pieces);
    scene
}

#[test]
fn pages_are_sent_as_they_are() {
    for path in ["auto", "splice"] {
        let scene = all_pieces_by(path);
        assert!(sends(&scene.server, "splice") > 10.0, "{path}");
        // Batches over hundreds of files take more references than a pipe holds.
        assert!(sends(&scene.server, "ring") > 0.0, "{path}");
    }
}

/// Batches that straddle the windows by which their pages are found, and more windows than may be mapped.
#[test]
fn windows_end_anywhere_and_are_replaced() {
    let scene = serve("splice", &[("a", 77), ("b", 100 * MIB)]);
    let count = scene.torrent.pieces.len() as u32;
    // A piece of each window's end; then the whole, and again what has been unmapped by then.
    let ends: Vec<u32> = (1..6)
        .map(|window| window * 16 * MIB as u32 / PIECE as u32)
        .collect();
    let all: Vec<u32> = (0..count).collect();
    for pieces in [&ends, &all, &ends] {
        assert_serves(&scene.server, &scene.torrent, pieces);
    }
    assert!(sends(&scene.server, "splice") > f64::from(count));
    assert!(sends(&scene.server, "ring") < 1.0);
    // Published once a second.
    let started = Instant::now();
    while mapped_bytes(&scene.server) < MIB as f64 {
        assert!(started.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::sleep(Duration::from_secs(2));
    assert!(mapped_bytes(&scene.server) <= 64.0 * MIB as f64);
}

/// Bytes of files that are mapped.
fn mapped_bytes(server: &Server) -> f64 {
    let metrics = server.metrics();
    let mapped = metrics
        .iter()
        .filter(|(series, _)| series.starts_with("seedring_mapped_bytes"));
    mapped.map(|(_, value)| value).sum()
}

#[test]
fn a_path_that_is_asked_for_is_the_only_one() {
    let scene = all_pieces_by("ring");
    assert!(sends(&scene.server, "ring") > 10.0);
    assert!(sends(&scene.server, "splice") < 1.0);
}

/// A file that a program holds open for writing is not sent without a copy.
#[test]
fn a_file_that_is_open_for_writing_is_copied() {
    let scene = serve("auto", &[("a", 4 * MIB)]);
    let file = scene.root.path().join("data/a");
    let writer = OpenOptions::new().write(true).open(&file).unwrap();
    assert_serves(&scene.server, &scene.torrent, &[0, 5, 15]);
    assert!(sends(&scene.server, "splice") < 1.0);
    drop(writer);
}

/// Puts the files on disk and out of the page cache.
fn forget_pages(root: &Path) {
    let drop = |file: &Path| {
        let mut dd = std::process::Command::new("dd");
        let input = format!("if={}", file.display());
        let status = dd
            .args([&input, "iflag=nocache", "count=0", "status=none"])
            .status();
        assert!(status.unwrap().success());
    };
    std::process::Command::new("sync").status().unwrap();
    for entry in std::fs::read_dir(root.join("data")).unwrap() {
        drop(&entry.unwrap().path());
    }
}

/// Bytes that the server has had read from disks, as the kernel counts them.
fn disk_read_bytes(server: &Server) -> f64 {
    let path = format!("/proc/{}/io", server.process.pid());
    let text = std::fs::read_to_string(path).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("read_bytes: "));
    line.unwrap().parse().unwrap()
}

/// What is not in memory is read once, however many peers ask for it, and then sent as pages.
#[test]
fn cold_data_are_read_once_for_all_who_ask() {
    let length = 24 * MIB;
    let scene = serve("auto", &[("a", length)]);
    let pieces: Vec<u32> = (0..scene.torrent.pieces.len() as u32).collect();
    // All files are open before, so that reading ahead has nothing to wait for.
    assert_serves(&scene.server, &scene.torrent, &[0]);
    forget_pages(scene.root.path());
    let before = disk_read_bytes(&scene.server);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_serves(&scene.server, &scene.torrent, &pieces));
        }
    });
    let read = disk_read_bytes(&scene.server) - before;
    let share = read / length as f64;
    // The file system may have kept some pages, and a page may go before it is sent.
    assert!(
        (0.5..=1.1).contains(&share),
        "{share} of the file were read"
    );
    assert!(sends(&scene.server, "splice") > 4.0 * 90.0);
}

/// Blocks here and there cost no more disk than they are.
#[test]
fn scattered_blocks_are_not_read_ahead() {
    let scene = serve("auto", &[("a", 24 * MIB)]);
    let mut peer = scene.server.peer(&scene.torrent);
    assert!(matches!(peer.block(0, 0, BLOCK), Ok(Answer::Block(_))));
    forget_pages(scene.root.path());
    let before = disk_read_bytes(&scene.server);
    for piece in 1..90 {
        let begin = piece * 7 % 16 * BLOCK;
        assert!(matches!(
            peer.block(piece, begin, BLOCK),
            Ok(Answer::Block(_))
        ));
    }
    let read = disk_read_bytes(&scene.server) - before;
    assert!(
        read <= 1.3 * 89.0 * f64::from(BLOCK),
        "{read} bytes were read"
    );
    assert!(read > 0.0, "nothing was cold");
}

/// Asks for blocks of pieces from the front and reads none of them, until the server's socket is full.
fn fill_socket(peer: &mut Peer, pieces: u32) {
    for piece in 0..pieces {
        for block in 0..16 {
            peer.request(piece, block * BLOCK, BLOCK).unwrap();
        }
    }
}

/// Overwrites all of the file in place.
fn overwrite(path: &Path, length: u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    let other = vec![0xa5; MIB as usize];
    for at in (0..length).step_by(MIB as usize) {
        file.write_all_at(&other, at).unwrap();
    }
}

/// Blocks that are not the torrent's among those of [`fill_socket`] that the peer still gets.
fn wrong_blocks(peer: &mut Peer, right: &[u8], pieces: u32) -> usize {
    let (mut wrong, mut left) = (0, pieces * 16);
    while left > 0
        && let Ok(message) = peer.read()
    {
        if message.id == Some(id::PIECE) {
            left -= 1;
            let (piece, begin, data) = split_block(&message.payload);
            let start = piece as usize * PIECE + begin as usize;
            wrong += usize::from(right[start..start + data.len()] != *data);
        }
    }
    wrong
}

/// A writer waits until what is on its way has arrived, or until its peer is cut off.
#[test]
fn a_writer_waits_for_pages_on_their_way_and_no_longer() {
    let length = 32 * MIB;
    let mut scene = serve("auto", &[("a", length)]);
    let path = scene.root.path().join("data/a");
    let right = std::fs::read(&path).unwrap();
    let mut stuck = scene.server.peer(&scene.torrent);
    fill_socket(&mut stuck, 100);
    let mut reading = scene.server.peer(&scene.torrent);
    fill_socket(&mut reading, 100);
    let reader = std::thread::spawn(move || wrong_blocks(&mut reading, &right, 100));
    while sends(&scene.server, "splice") < 20.0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let started = Instant::now();
    overwrite(&path, length);
    assert!(
        started.elapsed() < PATIENCE,
        "the kernel had to take the lease away"
    );
    assert_eq!(reader.join().unwrap(), 0, "wrong bytes were served");
    assert!(
        is_cut_off(&mut stuck),
        "what was on its way was sent after all"
    );
    // The server goes on, and the changed torrent is not served.
    assert!(scene.server.process.is_alive());
}

/// Whether the connection ends by a reset, which drops what was queued, and not by an orderly end behind it.
fn is_cut_off(peer: &mut Peer) -> bool {
    loop {
        if let Err(error) = peer.read() {
            return error.kind() == std::io::ErrorKind::ConnectionReset;
        }
    }
}

/// With the server its leases go: nothing that it had queued is sent after that.
#[test]
fn a_peer_that_does_not_read_is_cut_off_at_the_stop() {
    let mut scene = serve("auto", &[("a", 32 * MIB)]);
    let mut stuck = scene.server.peer(&scene.torrent);
    fill_socket(&mut stuck, 100);
    while sends(&scene.server, "splice") < 2.0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(scene.server.stop(PATIENCE).0.success());
    assert!(is_cut_off(&mut stuck));
}

/// What the lease prevents, shown where none is taken: the oracle of the test above can fail.
#[test]
fn without_a_lease_a_writer_spoils_pages_on_their_way() {
    let length = 8 * MIB;
    let scene = serve("splice", &[("a", length)]);
    let path = scene.root.path().join("data/a");
    let right = std::fs::read(&path).unwrap();
    let mut peer = scene.server.peer(&scene.torrent);
    fill_socket(&mut peer, 16);
    while sends(&scene.server, "splice") < 2.0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    overwrite(&path, length);
    assert!(wrong_blocks(&mut peer, &right, 16) > 0);
}
