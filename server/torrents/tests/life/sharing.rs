//! Torrents that name the same files: what one leaves when it is removed with its data.

use super::*;
use control::create::{CreateOptions, create};
use proto::metainfo::Metainfo;
use state::{Condition, Update, Write};
use std::ops::ControlFlow;

/// The metainfo of another torrent of `path`, but for the files in `without`.
pub(super) fn other(path: &Path, without: &[PathBuf]) -> (InfoHashV1, Vec<u8>) {
    let options = CreateOptions {
        source: Some("another".into()),
        exclude: without.to_vec(),
        ..CreateOptions::default()
    };
    let created = create(path, &options, &PageCache, &mut |_| {
        ControlFlow::Continue(())
    });
    let torrent = created.unwrap().torrent;
    let metainfo = Metainfo::parse(&torrent).unwrap();
    (metainfo.info_hash_v1.unwrap(), torrent)
}

pub(super) async fn remove(host: &Host, info_hash: InfoHashV1) {
    let remove = Action::Remove { with_data: true };
    host.act(info_hash, remove).await.unwrap();
}

pub(super) async fn until_gone(path: &Path) {
    let begun = Instant::now();
    while path.exists() {
        assert!(begun.elapsed() < PATIENCE, "{path:?} stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A folder with data, and a file in it that only the first torrent has: when it is gone, so is
/// whatever else was to go.
fn data_and_more(folder: &Path) -> (PathBuf, PathBuf) {
    let data = data(folder);
    // It is deleted last.
    fs::write(data.join("z"), b"only the first has this").unwrap();
    (data.clone(), data.join("z"))
}

/// One of two is removed: what both have stays, and the other is served on. Then it is removed,
/// too, and nothing is left.
async fn one_after_the_other(one: &Path, folder: &Path, set: impl FnOnce(&mut AddTorrent)) {
    let (data, only) = data_and_more(one);
    let host = Host::start(0, one).await;
    let first = made(&host, &data).await;
    let (second, metainfo) = other(&data, std::slice::from_ref(&only));
    let mut add = AddTorrent {
        save_path: Some(folder.to_owned()),
        ..AddTorrent::new(AddSource::Metainfo(metainfo))
    };
    set(&mut add);
    let is_paused = add.paused;
    host.add(add).await;
    let status = if is_paused {
        Status::Paused
    } else {
        Status::Seeding
    };
    host.until_status(second, status).await;
    remove(&host, first).await;
    until_gone(&only).await;
    for (name, length) in [("a", 700_000), ("b/c", 90_001), ("b/d", 300)] {
        assert_eq!(
            fs::metadata(data.join(name)).unwrap().len(),
            length,
            "{name}"
        );
    }
    assert!(host.torrent(first).is_none());
    if !is_paused {
        host.act(second, Action::Recheck).await.unwrap();
        let is_checked = |torrent: &Torrent| torrent.summary.condition == Condition::Ready;
        host.until(second, is_checked).await;
        let torrent = host.until_status(second, Status::Seeding).await;
        assert!(torrent.is_complete());
    }
    remove(&host, second).await;
    until_gone(&data).await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_another_torrent_has_stay_until_it_is_removed_too() {
    let one = TempDir::new().unwrap();
    one_after_the_other(one.path(), one.path(), |_| {}).await;
    // It was never hashed, so nothing is known of its files but their names.
    let one = TempDir::new().unwrap();
    one_after_the_other(one.path(), one.path(), |add| add.paused = true).await;
    // What it is called for the user says nothing.
    let one = TempDir::new().unwrap();
    let name = |add: &mut AddTorrent| add.name = Some("otherwise".into());
    one_after_the_other(one.path(), one.path(), name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_another_has_by_a_link_to_their_folder_stay() {
    let (one, links) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let link = links.path().join("link");
    std::os::unix::fs::symlink(one.path(), &link).unwrap();
    one_after_the_other(one.path(), &link, |_| {}).await;
}

/// A folder that is mounted in a second place, until this is dropped.
struct Bound(PathBuf);

impl Bound {
    fn new(folder: &Path, point: &Path) -> Option<Bound> {
        let mut mount = std::process::Command::new("mount");
        let mounted = mount.arg("--bind").args([folder, point]).status();
        if !mounted.is_ok_and(|status| status.success()) {
            eprintln!("SKIP: nothing can be mounted here");
            return None;
        }
        Some(Bound(point.to_owned()))
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let mut umount = std::process::Command::new("umount");
        let _ = umount.arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_another_has_by_a_mount_of_their_folder_stay() {
    let (one, points) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let Some(bound) = Bound::new(one.path(), points.path()) else {
        return;
    };
    one_after_the_other(one.path(), &bound.0, |_| {}).await;
}

/// The first torrent is that of a folder within the other's, which is mounted elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_folder_within_anothers_that_is_mounted_elsewhere_stay() {
    let (one, points) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let data = data(one.path());
    let point = points.path().join("other");
    fs::create_dir(&point).unwrap();
    let Some(bound) = Bound::new(&data.join("b"), &point) else {
        return;
    };
    let host = Host::start(0, one.path()).await;
    let outer = made(&host, &data).await;
    fs::write(data.join("b/z"), b"only the first has this").unwrap();
    let (inner, metainfo) = other(&bound.0, &[]);
    let add = AddTorrent {
        save_path: Some(points.path().to_owned()),
        ..AddTorrent::new(AddSource::Metainfo(metainfo))
    };
    host.add(add).await;
    host.until_status(inner, Status::Seeding).await;
    remove(&host, inner).await;
    until_gone(&data.join("b/z")).await;
    assert_eq!(fs::metadata(data.join("b/c")).unwrap().len(), 90_001);
    remove(&host, outer).await;
    until_gone(&data.join("b/c")).await;
    drop(bound);
    host.stop().await;
}

/// A torrent that lies within another's folder, and one around it: both ways.
#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_torrent_within_anothers_folder_stay() {
    for outer_first in [true, false] {
        let one = TempDir::new().unwrap();
        let data = data(one.path());
        // A folder of the name of one in it: only the place tells them apart.
        fs::create_dir(data.join("data")).unwrap();
        fs::write(data.join("data/a"), b"inner").unwrap();
        let host = Host::start(0, one.path()).await;
        let outer = made(&host, &data).await;
        let inner = made(&host, &data.join("b")).await;
        let innermost = made(&host, &data.join("data")).await;
        if outer_first {
            remove(&host, outer).await;
            until_gone(&data.join("a")).await;
            assert!(data.join("b/c").exists() && data.join("data/a").exists());
            remove(&host, innermost).await;
            until_gone(&data.join("data")).await;
            assert!(data.join("b/c").exists() && data.join("b/d").exists());
            remove(&host, inner).await;
            until_gone(&data.join("b")).await;
            // Their save folder is the user's.
            fs::remove_dir(&data).unwrap();
        } else {
            fs::write(data.join("b/e"), b"x").unwrap();
            let (more, metainfo) = other(&data.join("b"), &[]);
            let add = AddTorrent {
                save_path: Some(data.clone()),
                ..AddTorrent::new(AddSource::Metainfo(metainfo))
            };
            host.add(add).await;
            host.until_status(more, Status::Seeding).await;
            remove(&host, inner).await;
            remove(&host, more).await;
            until_gone(&data.join("b/e")).await;
            assert!(data.join("b/c").exists() && data.join("b/d").exists());
            remove(&host, innermost).await;
            remove(&host, outer).await;
        }
        until_gone(&data).await;
        host.stop().await;
    }
}

/// What it names by other names than its metainfo say, as it is kept, is its own as well; and what
/// its metainfo say then is not. After a restart both are known.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_another_has_by_new_names_stay() {
    let one = TempDir::new().unwrap();
    let (data, only) = data_and_more(one.path());
    let elsewhere = TempDir::new().unwrap();
    let twin = elsewhere.path().join("twin");
    fs::create_dir_all(twin.join("b")).unwrap();
    for name in ["a", "b/c", "b/d"] {
        fs::copy(data.join(name), twin.join(name)).unwrap();
    }
    let host = Host::start(0, one.path()).await;
    let first = made(&host, &data).await;
    let (second, metainfo) = other(&twin, &[]);
    let add = AddTorrent {
        save_path: Some(one.path().to_owned()),
        paused: true,
        ..AddTorrent::new(AddSource::Metainfo(metainfo))
    };
    host.add(add).await;
    host.stop().await;
    let store = Store::open(&one.path().join("state"), Options::default()).unwrap();
    let update = Update::new().details(|details| {
        let paths = ["data/a", "data/b/c"].map(PathBuf::from);
        details.renames = (0..).zip(paths).collect();
    });
    let write = Write::Update(second, Box::new(update));
    store.handle().write_blocking(write).unwrap();
    store.close();
    let host = Host::start(0, one.path()).await;
    remove(&host, first).await;
    until_gone(&only).await;
    assert!(data.join("a").exists() && data.join("b/c").exists());
    assert!(!data.join("b/d").exists(), "nobody has it by this name");
    remove(&host, second).await;
    until_gone(&data).await;
    host.stop().await;
}

/// Two that have the same files are removed at once: one of them is the last.
#[tokio::test(flavor = "multi_thread")]
async fn two_with_the_same_files_that_are_removed_at_once_leave_nothing() {
    let one = TempDir::new().unwrap();
    let host = Host::start(0, one.path()).await;
    for round in 0..20 {
        let folder = one.path().join(round.to_string());
        fs::create_dir(&folder).unwrap();
        let data = data(&folder);
        fs::write(data.join("round"), round.to_string()).unwrap();
        let first = made(&host, &data).await;
        let (second, metainfo) = other(&data, &[]);
        let add = AddTorrent {
            save_path: Some(folder.clone()),
            ..AddTorrent::new(AddSource::Metainfo(metainfo))
        };
        host.add(add).await;
        host.until_status(second, Status::Seeding).await;
        tokio::join!(remove(&host, first), remove(&host, second));
        until_gone(&data).await;
    }
    host.stop().await;
}

/// A second torrent of the same files comes while those of the first are being deleted: it has what
/// its check finds, and goes on to have it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_added_while_files_are_deleted_keeps_what_it_finds() {
    let one = TempDir::new().unwrap();
    let host = Host::start(0, one.path()).await;
    for round in 0..10_u64 {
        let folder = one.path().join(round.to_string());
        let data = folder.join("data");
        fs::create_dir_all(&data).unwrap();
        for file in 0..300 {
            let bytes = [round as u8; 16 << 10];
            fs::write(data.join(format!("{file:03}")), bytes).unwrap();
        }
        let first = made(&host, &data).await;
        let (second, metainfo) = other(&data, &[]);
        let add = AddTorrent {
            save_path: Some(folder.clone()),
            ..AddTorrent::new(AddSource::Metainfo(metainfo))
        };
        let add = async {
            tokio::time::sleep(Duration::from_millis(round)).await;
            host.add(add).await;
        };
        tokio::join!(remove(&host, first), add);
        let is_known = |torrent: &Torrent| {
            let status = torrent.live.status;
            torrent.summary.condition == Condition::Ready
                && matches!(status, Status::Seeding | Status::Downloading)
        };
        let torrent = host.until(second, is_known).await;
        // Whatever was being deleted would be by then.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let there = fs::read_dir(&data).map_or(0, |entries| {
            let whole = |entry: &fs::DirEntry| entry.metadata().is_ok_and(|it| it.len() > 0);
            entries
                .filter(|entry| whole(entry.as_ref().unwrap()))
                .count()
        });
        assert!(there as u32 >= torrent.pieces_verified, "round {round}");
        assert_eq!(
            host.torrent(second).unwrap().live.status,
            torrent.live.status
        );
        remove(&host, second).await;
        until_gone(&data).await;
    }
    host.stop().await;
}
