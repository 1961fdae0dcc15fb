//! More moves than are made at a time: they wait, and none is forgotten.

use super::moves::{Gate, move_to};
use super::renames::intents;
use super::*;
use proto::metainfo::Metainfo;
use state::{NewTorrent, Summary, Verified, Write};

/// More than there are settings in a store.
const MANY: usize = 4200;

/// Keeps so many torrents of a file each, which is in `folder`, and returns them by their numbers.
fn keep_many(state: &Path, folder: &Path) -> Vec<InfoHashV1> {
    fs::create_dir_all(folder).unwrap();
    let store = Store::open(state, Options::default()).unwrap();
    let new = |number: usize| {
        let (name, piece) = (format!("{number:05}"), "p".repeat(20));
        fs::write(folder.join(&name), b"x").unwrap();
        let info = format!("d6:lengthi1e4:name5:{name}12:piece lengthi16384e6:pieces20:{piece}e");
        let bytes = format!("d4:info{info}e").into_bytes();
        let info_hash = Metainfo::parse(&bytes).unwrap().info_hash_v1.unwrap();
        let summary = Summary {
            name,
            total_bytes: 1,
            piece_bytes: 16_384,
            pieces: 1,
            files: 1,
            save_path: folder.to_owned(),
            ..Summary::default()
        };
        let torrent = NewTorrent {
            summary,
            metainfo: Some(bytes),
            verified: Verified::All,
            ..NewTorrent::default()
        };
        (info_hash, torrent)
    };
    let (hashes, writes): (Vec<_>, Vec<_>) = (0..MANY)
        .map(new)
        .map(|(hash, torrent)| (hash, Write::Add(hash, Box::new(torrent))))
        .unzip();
    let written = store.handle().submit_blocking(writes).unwrap().wait();
    assert!(written.iter().all(Result::is_ok));
    store.close();
    hashes
}

/// Waits until all are in a folder: as long as one after another comes there.
async fn until_there(host: &Host, torrents: &[InfoHashV1], folder: &Path) {
    let (mut left, mut since) = (torrents.len(), Instant::now());
    while left > 0 {
        let there = |hash: &&InfoHashV1| {
            host.torrent(**hash)
                .is_some_and(|torrent| torrent.summary.save_path == folder)
        };
        let now = torrents.len() - torrents.iter().filter(there).count();
        if now < left {
            (left, since) = (now, Instant::now());
        }
        assert!(since.elapsed() < 2 * PATIENCE, "{left} do not come");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// All are acknowledged while the first keeps its disk busy, and done after a stop and a start.
#[tokio::test(flavor = "multi_thread")]
async fn more_moves_wait_than_a_store_has_settings_and_go_on_after_a_restart() {
    // In memory: each waits for its disk some ten times.
    let Ok(folder) = TempDir::new_in("/dev/shm") else {
        return eprintln!("SKIP: there is no /dev/shm");
    };
    let Some(other) = super::moves::elsewhere_than(folder.path()) else {
        return;
    };
    let (gate, one) = (Gate::new(), folder.path());
    let (from, to) = (one.join("from"), one.join("to"));
    let many = keep_many(&one.join("state"), &from);
    let seed = Host::start_on(0, one, gate, |_| {}).await;
    let first = made(&seed, &data(one)).await;
    let shut = gate.shut();
    let away = other.path().join("away");
    move_to(&seed, first, &away).await;
    seed.until_status(first, Status::Moving).await;
    for info_hash in &many {
        move_to(&seed, *info_hash, &to).await;
    }
    assert_eq!(fs::read_dir(&to).map_or(0, Iterator::count), 0, "they wait");
    seed.manager.stop().await;
    drop(shut);
    seed.plane.stop(Duration::from_secs(10)).await;
    seed.store.close();
    assert_eq!(intents(one).len(), MANY + 1);

    let seed = Host::start(0, one).await;
    until_there(&seed, &many, &to).await;
    let is_there = |torrent: &Torrent| torrent.summary.save_path == away;
    seed.until(first, is_there).await;
    let is_at_rest = |torrent: &Torrent| torrent.live.status == Status::Seeding;
    for info_hash in many.iter().chain([&first]) {
        let torrent = seed.until(*info_hash, is_at_rest).await;
        assert_eq!(torrent.summary.last_error, None);
    }
    seed.stop().await;
    assert_eq!(fs::read_dir(&to).unwrap().count(), MANY);
    assert_eq!(fs::read_dir(&from).unwrap().count(), 0);
    assert_eq!(intents(one), [], "they would go on at the next start");
}
