//! Data that change under a running server: no client ever gets a wrong byte, the torrent goes to an error
//! that names the file, and the other torrents go on.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use seedring_tests::content::{MIB, write_file};
use seedring_tests::oracle::assert_serves;
use seedring_tests::peer::Peer;
use seedring_tests::server::{Seed, Server};
use seedring_tests::torrent::Torrent;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// The file that is changed.
const LENGTH: u64 = 48 * MIB;

struct Scene {
    server: Server,
    root: TempDir,
    target: Torrent,
    other: Torrent,
}

impl Scene {
    fn start() -> Self {
        let root = TempDir::new().unwrap();
        write_file(&root.path().join("target/first.bin"), 5 * MIB + 3, 21);
        write_file(&root.path().join("target/changed.bin"), LENGTH, 22);
        write_file(&root.path().join("other.bin"), 4 * MIB, 23);
        let seed = Seed::path(&root.path().join("target")).and_path(&root.path().join("other.bin"));
        let server = seed
            .options(["--no-tracker", "--piece-size", "256K"])
            .start();
        let (target, other) = (server.torrent(0), server.torrent(1));
        Self {
            server,
            root,
            target,
            other,
        }
    }

    fn changed(&self) -> PathBuf {
        self.root.path().join("target/changed.bin")
    }
}

/// What a peer got until it was turned away.
#[derive(Debug, Default, PartialEq, Eq)]
struct Got {
    right: u32,
    wrong: u32,
    refused: bool,
}

/// Downloads pieces round and round until the server rejects one or closes, or `stop` is set.
fn download(mut peer: Peer, torrent: &Torrent, progress: &AtomicU32, stop: &AtomicBool) -> Got {
    let mut got = Got::default();
    let pieces = u32::try_from(torrent.pieces.len()).unwrap();
    for piece in (0..pieces).cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        match peer.piece(torrent, piece) {
            Ok(Some(data)) if torrent.is_piece(piece, &data) => got.right += 1,
            Ok(Some(_)) => got.wrong += 1,
            Ok(None) | Err(_) => {
                got.refused = true;
                break;
            }
        }
        progress.fetch_add(1, Ordering::Relaxed);
    }
    got
}

/// Changes the file while two peers download, and checks what everyone saw.
fn change(what: &str, change: impl FnOnce(&Path)) {
    let mut scene = Scene::start();
    let torrent = Arc::new(scene.target.clone());
    let stop = Arc::new(AtomicBool::new(false));
    let progress = Arc::new(AtomicU32::new(0));
    let downloads: Vec<_> = (0..2)
        .map(|_| {
            let peer = scene.server.peer(&scene.target);
            let (torrent, stop) = (Arc::clone(&torrent), Arc::clone(&stop));
            let progress = Arc::clone(&progress);
            std::thread::spawn(move || download(peer, &torrent, &progress, &stop))
        })
        .collect();
    while progress.load(Ordering::Relaxed) < 20 {
        std::thread::sleep(Duration::from_millis(1));
    }
    change(&scene.changed());
    let hash = scene.target.info_hash_hex();
    let event = scene
        .server
        .wait_event("torrent-error", Duration::from_secs(30), |event| {
            event["info_hash_v1"] == hash.as_str()
        });
    std::thread::sleep(Duration::from_millis(200));
    stop.store(true, Ordering::Relaxed);
    for download in downloads {
        let got = download.join().unwrap();
        assert_eq!(got.wrong, 0, "{what}: wrong bytes were served");
        assert!(got.right > 0, "{what}: nothing was served before");
        assert!(
            got.refused,
            "{what}: the damaged torrent is still served to old peers"
        );
    }
    let file = event["file"].as_str().unwrap_or_default();
    assert!(
        file.ends_with("changed.bin"),
        "{what}: the event names no file: {event}"
    );
    assert!(
        event["cause"]
            .as_str()
            .is_some_and(|cause| !cause.is_empty()),
        "{event}"
    );
    assert!(
        scene.server.process.stderr().contains("changed.bin"),
        "{what}: no log line"
    );
    assert!(
        state(&scene.server, "error") >= 1.0,
        "{what}: no torrent in the error state"
    );
    refused_to_new_peers(&scene, what);
    assert_serves(&scene.server, &scene.other, &[0, 7, 15]);
    assert!(scene.server.process.is_alive());
}

/// The number of torrents in a state, from the metrics.
fn state(server: &Server, state: &str) -> f64 {
    let label = format!("state=\"{state}\"");
    let metrics = server.metrics();
    let series = metrics
        .iter()
        .filter(|(series, _)| series.starts_with("seedring_torrents{") && series.contains(&label));
    series.map(|(_, value)| value).sum()
}

/// A new peer gets no piece of the changed file, or is not taken at all.
fn refused_to_new_peers(scene: &Scene, what: &str) {
    let address = scene.server.address();
    let Ok(mut peer) = Peer::connect(address, &scene.target.info_hash) else {
        return;
    };
    peer.stream()
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    if peer.unchoked().is_err() {
        return;
    }
    for piece in scene.target.pieces_of(Path::new("changed.bin")).take(5) {
        if let Ok(Some(data)) = peer.piece(&scene.target, piece) {
            assert!(
                scene.target.is_piece(piece, &data),
                "{what}: wrong bytes to a new peer"
            );
        }
    }
}

fn truncate(path: &Path, length: u64) {
    OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(length)
        .unwrap();
}

#[test]
fn truncated_to_nothing() {
    change("truncated", |path| truncate(path, 0));
}

#[test]
fn truncated_in_the_middle_of_a_block() {
    change("cut", |path| truncate(path, LENGTH / 2 + 777));
}

#[test]
fn replaced_by_rename() {
    change("renamed over", |path| {
        let new = path.with_extension("new");
        write_file(&new, LENGTH, 99);
        std::fs::rename(new, path).unwrap();
    });
}

#[test]
fn overwritten_in_place() {
    change("copied over", |path| {
        let new = path.with_extension("new");
        write_file(&new, LENGTH, 98);
        std::fs::copy(&new, path).unwrap();
        std::fs::remove_file(new).unwrap();
    });
}

#[test]
fn one_byte_flipped_in_place() {
    change("flipped", |path| {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        let mut byte = [0u8];
        file.read_exact_at(&mut byte, LENGTH / 3).unwrap();
        file.write_all_at(&[byte[0] ^ 1], LENGTH / 3).unwrap();
    });
}

#[test]
fn grown_at_its_end() {
    change("grown", |path| {
        use std::io::Write;
        OpenOptions::new()
            .append(true)
            .open(path)
            .unwrap()
            .write_all(b"more")
            .unwrap();
    });
}

#[test]
fn unlinked() {
    change("unlinked", |path| std::fs::remove_file(path).unwrap());
}

#[test]
fn changed_while_the_server_was_down() {
    let root = TempDir::new().unwrap();
    let state = root.path().join("state");
    let file = root.path().join("file.bin");
    write_file(&file, 2 * MIB, 31);
    let torrent = root.path().join("file.torrent");
    let seed = || {
        Seed::torrent(&torrent, root.path())
            .options(["--no-tracker"])
            .state_dir(&state)
    };
    let first = Seed::path(&file).options(["--no-tracker"]).start();
    std::fs::copy(&first.ready.torrents[0].torrent, &torrent).unwrap();
    drop(first);
    let mut server = seed().start();
    let parsed = server.torrent(0);
    assert_serves(&server, &parsed, &[0]);
    assert!(server.stop(Duration::from_secs(15)).0.success());
    // The same size and name, other bytes: what was verified before is believed no more.
    write_file(&file, 2 * MIB, 32);
    let (mut process, _) = seed().launch();
    let served = process.wait_for("ready line or end", Duration::from_secs(30), |process| {
        match seedring_tests::server::event(process, "ready") {
            Some(ready) => Some(Some(ready)),
            None => process.stderr().contains("file.bin").then_some(None),
        }
    });
    let Some(ready) = served else { return };
    let port = u16::try_from(ready["peer_port"].as_u64().unwrap()).unwrap();
    let Ok(mut peer) = Peer::connect(([127, 0, 0, 1], port).into(), &parsed.info_hash) else {
        return;
    };
    peer.stream()
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    if peer.unchoked().is_ok()
        && let Ok(Some(data)) = peer.piece(&parsed, 0)
    {
        assert!(parsed.is_piece(0, &data), "stale state: wrong bytes served");
    }
}
