//! Files that come under a torrent's names into the folder that it is being moved to: they are
//! another's, and a move neither believes nor takes nor writes over them, whatever becomes of it.

use super::failing_moves::{COPYING, Disk, copy_name, keep, names, until_moved, until_said};
use super::moves::{Gate, elsewhere, move_to};
use super::renames::intents;
use super::sharing::{other as another, remove, until_gone};
use super::*;

/// Waits until a folder has only these.
async fn until_only(folder: &Path, expected: &[&str]) {
    let begun = Instant::now();
    while names(folder) != expected {
        assert!(begun.elapsed() < PATIENCE, "{:?} are there", names(folder));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The copying has begun and rests; then somebody has files there under both names of some.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_came_after_the_copying_began_outlive_the_move_and_its_end() {
    for is_removed in [false, true] {
        let one = TempDir::new().unwrap();
        let Some(other) = elsewhere() else { return };
        let data = data(one.path());
        let seed = Host::start(0, one.path()).await;
        let info_hash = made(&seed, &data).await;
        seed.stop().await;
        let to = other.path().join("to");
        fs::create_dir_all(to.join("data/b")).unwrap();
        fs::write(to.join(format!(".{info_hash}.moving")), b"").unwrap();
        let copy = to.join("data/b").join(copy_name(info_hash, 1));
        fs::copy(data.join("b/c"), &copy).unwrap();
        let theirs = [to.join("data/a"), to.join("data/b/d.part")];
        for path in &theirs {
            fs::write(path, b"another's").unwrap();
        }
        keep(one.path(), info_hash, &to, COPYING);
        let seed = Host::start(0, one.path()).await;
        let torrent = until_said(&seed, info_hash, "another file is there").await;
        assert!(copy.exists(), "it goes on by this");
        if is_removed {
            remove(&seed, info_hash).await;
            until_gone(&data).await;
        } else {
            move_to(&seed, info_hash, &torrent.summary.save_path).await;
        }
        until_gone(&copy).await;
        until_only(&to, &["data"]).await;
        seed.stop().await;
        for path in &theirs {
            assert_eq!(fs::read(path).unwrap(), b"another's");
        }
        assert_eq!(data.join("b/c").exists(), !is_removed);
        assert_eq!(intents(one.path()), []);
    }
}

/// All is copied, and hashed just now; then a name is taken. The move waits until it is free.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_taken_at_the_last_moment_is_not_written_over() {
    let (gate, one) = (Gate::new(), TempDir::new().unwrap());
    let Some(other) = elsewhere() else { return };
    let data = data(one.path());
    let seed = Host::start_on(0, one.path(), gate, |_| {}).await;
    let info_hash = made(&seed, &data).await;
    let to = other.path().join("to");
    let shut = gate.shut();
    move_to(&seed, info_hash, &to).await;
    let begun = Instant::now();
    while !to.join("data/b").join(copy_name(info_hash, 2)).exists() {
        assert!(begun.elapsed() < PATIENCE, "it is not copied");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!to.join("data/a").exists(), "it is not known to be right");
    fs::write(to.join("data/b/d"), b"another's").unwrap();
    drop(shut);
    until_said(&seed, info_hash, "another file is there").await;
    assert_eq!(fs::read(to.join("data/b/d")).unwrap(), b"another's");
    assert!(!to.join("data/a").exists(), "it has its own name again");
    assert!(data.join("b/d").exists());
    fs::rename(to.join("data/b/d"), other.path().join("d")).unwrap();
    move_to(&seed, info_hash, &to).await;
    until_moved(&seed, info_hash, &to).await;
    seed.until_status(info_hash, Status::Seeding).await;
    seed.stop().await;
    assert!(!data.exists() && to.join("data/b/d").exists());
    assert_eq!(names(&to), ["data"]);
    assert_eq!(names(&to.join("data/b")).len(), 2);
    assert_eq!(intents(one.path()), []);
}

/// A crash came when copies had their names and that was not kept: they are hashed, and go on.
#[tokio::test(flavor = "multi_thread")]
async fn copies_that_a_crash_has_left_under_their_last_names_are_the_moves() {
    let one = TempDir::new().unwrap();
    let Some(disk) = Disk::in_memory(8192) else {
        return;
    };
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    seed.stop().await;
    let to = disk.path().join("to");
    fs::create_dir_all(to.join("data/b")).unwrap();
    fs::write(to.join(format!(".{info_hash}.moving")), b"").unwrap();
    for (name, copy) in [
        ("a", "a".to_owned()),
        ("b/c", format!("b/{}", copy_name(info_hash, 1))),
    ] {
        let copy = to.join("data").join(copy);
        fs::copy(data.join(name), &copy).unwrap();
        let modified = fs::metadata(data.join(name)).unwrap().modified().unwrap();
        let copy = fs::File::options().write(true).open(copy);
        copy.unwrap().set_modified(modified).unwrap();
    }
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    let first = inode(&to.join("data/a"));
    keep(one.path(), info_hash, &to, COPYING);
    let seed = Host::start(0, one.path()).await;
    until_moved(&seed, info_hash, &to).await;
    seed.until_status(info_hash, Status::Seeding).await;
    seed.stop().await;
    assert_eq!(inode(&to.join("data/a")), first, "it was copied already");
    assert!(!data.exists() && to.join("data/b/c").exists());
    assert_eq!(names(&to), ["data"]);
    assert_eq!(intents(one.path()), []);
}

/// Two torrents have the same files, and one of them is moved: the other has its files still.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_another_torrent_names_stay_when_one_is_moved() {
    for is_copied in [false, true] {
        let one = TempDir::new().unwrap();
        let Some(other) = elsewhere() else { return };
        let data = data(one.path());
        fs::write(data.join("z"), b"only the first has this").unwrap();
        let seed = Host::start(0, one.path()).await;
        let first = made(&seed, &data).await;
        let (second, metainfo) = another(&data, &[data.join("z")]);
        let add = AddTorrent {
            save_path: Some(one.path().to_owned()),
            ..AddTorrent::new(AddSource::Metainfo(metainfo))
        };
        seed.add(add).await;
        seed.until_status(second, Status::Seeding).await;
        let to = match is_copied {
            false => one.path().join("to"),
            true => other.path().join("to"),
        };
        move_to(&seed, first, &to).await;
        until_moved(&seed, first, &to).await;
        until_gone(&data.join("z")).await;
        seed.until_status(first, Status::Seeding).await;
        seed.act(second, Action::Recheck).await.unwrap();
        let is_checked = |it: &Torrent| it.summary.condition == state::Condition::Ready;
        seed.until(second, is_checked).await;
        let torrent = seed.until_status(second, Status::Seeding).await;
        assert!(torrent.is_complete() && data.join("b/c").exists());
        // What has been moved is its own, and goes without the other's.
        remove(&seed, first).await;
        until_gone(&to.join("data")).await;
        seed.stop().await;
        for name in ["a", "b/c", "b/d"] {
            assert!(data.join(name).exists(), "{name}");
        }
    }
}
