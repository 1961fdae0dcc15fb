//! Moves whose disks hang, are full or away for a while, and moves that are given up: what was
//! acknowledged is done in the end, and nothing is made where it does not belong.

use super::moves::{Gate, elsewhere, intent, limit_upload, move_to, try_move};
use super::renames::intents;
use super::*;
use std::process::{Child, Stdio};

/// How far a move is, as it is kept.
const SWITCHED: u8 = 2;
pub(super) const COPYING: u8 = 3;

/// Runs a tool of the system; whether it did what it was to.
fn does(tool: &str, arguments: &[&str]) -> bool {
    let mut command = std::process::Command::new(tool);
    let command = command.args(arguments).stdout(Stdio::null());
    command
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|it| it.success())
}

/// A small disk of its own, in memory; unmounted when it is dropped.
pub(super) struct Disk {
    folder: TempDir,
    is_ext4: bool,
}

impl Disk {
    /// A disk in memory of so many KiB.
    pub(super) fn in_memory(kib: u32) -> Option<Disk> {
        let folder = TempDir::new().unwrap();
        let disk = Disk {
            folder,
            is_ext4: false,
        };
        fs::create_dir(disk.path()).unwrap();
        let (size, at) = (format!("size={kib}k"), disk.text());
        if !does("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", &at]) {
            eprintln!("SKIP: nothing can be mounted here");
            return None;
        }
        Some(disk)
    }

    /// An ext4 in a file, which keeps what it has when it is unmounted.
    fn ext4() -> Option<Disk> {
        let folder = TempDir::new().unwrap();
        let disk = Disk {
            folder,
            is_ext4: true,
        };
        fs::create_dir(disk.path()).unwrap();
        let image = fs::File::create(disk.image()).unwrap();
        image.set_len(32 << 20).unwrap();
        let image = disk.image();
        if !does("mkfs.ext4", &["-q", "-F", image.to_str().unwrap()]) || !disk.mount() {
            eprintln!("SKIP: no ext4 in a file can be mounted here");
            return None;
        }
        Some(disk)
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    fn text(&self) -> String {
        self.path().to_str().unwrap().to_owned()
    }

    fn mount(&self) -> bool {
        let (image, at) = (self.image(), self.text());
        does("mount", &["-o", "loop", image.to_str().unwrap(), &at])
    }

    fn unmount(&self) {
        assert!(does("umount", &[&self.text()]));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_ext4 {
            let _ = does("fsfreeze", &["-u", &self.text()]);
        }
        let _ = does("umount", &["--lazy", &self.text()]);
    }
}

/// A disk that takes no writes: who writes hangs. It is thawed when this is dropped, and by another
/// process should this one be killed.
struct Frozen<'a> {
    disk: &'a Disk,
    watchdog: Child,
}

impl Frozen<'_> {
    fn new(disk: &Disk) -> Option<Frozen<'_>> {
        // What it reads ends with this process.
        let thaw = format!("timeout 300 cat; fsfreeze -u '{}'", disk.text());
        let mut watchdog = std::process::Command::new("sh");
        let watchdog = watchdog.args(["-c", &thaw]).stderr(Stdio::null());
        let watchdog = watchdog.stdin(Stdio::piped()).stdout(Stdio::null());
        let watchdog = watchdog.spawn().unwrap();
        let frozen = Frozen { disk, watchdog };
        if !does("fsfreeze", &["-f", &disk.text()]) {
            eprintln!("SKIP: no file system can be frozen here");
            return None;
        }
        Some(frozen)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let _ = does("fsfreeze", &["-u", &self.disk.text()]);
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
    }
}

/// A torrent of one file of this name, which is on `host` then.
async fn made_of(host: &Host, folder: &Path, name: &str) -> InfoHashV1 {
    let file = folder.join(name);
    fs::write(&file, name.repeat(1000)).unwrap();
    made(host, &file).await
}

/// Waits until what went wrong with a torrent says so.
pub(super) async fn until_said(host: &Host, info_hash: InfoHashV1, words: &str) -> Torrent {
    let says = |torrent: &Torrent| {
        let last = torrent.summary.last_error.as_ref();
        last.is_some_and(|last| last.text.contains(words))
    };
    host.until(info_hash, says).await
}

/// Waits until a torrent is moved and nothing is wrong with it.
pub(super) async fn until_moved(host: &Host, info_hash: InfoHashV1, to: &Path) {
    host.until(info_hash, |torrent| {
        torrent.summary.save_path == to && torrent.summary.last_error.is_none()
    })
    .await;
}

/// A phase of a move of `info_hash`, as if a crash had come then.
pub(super) fn keep(one: &Path, info_hash: InfoHashV1, to: &Path, phase: u8) {
    let store = Store::open(&one.join("state"), Options::default()).unwrap();
    let handle = store.handle();
    handle
        .write_blocking(intent(info_hash, one, to, phase))
        .unwrap();
    if phase == SWITCHED {
        let to = to.to_owned();
        let update = state::Update::new().summary(move |summary| summary.save_path = to);
        let update = state::Write::Update(info_hash, Box::new(update));
        handle.write_blocking(update).unwrap();
    }
    store.close();
}

/// The name that the copy of the file with this number has until all are right.
pub(super) fn copy_name(info_hash: InfoHashV1, index: u32) -> String {
    format!(".{info_hash}-{index}.moving")
}

/// The names in a folder.
pub(super) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder)
        .map(|entries| entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()));
    entries.map_or_else(|_| Vec::new(), Iterator::collect)
}

/// What needs the disk waits for it in its order, the rest does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_hangs_holds_no_move_between_others() {
    let one = TempDir::new().unwrap();
    let Some(other) = elsewhere() else { return };
    let Some(disk) = Disk::ext4() else { return };
    let seed = Host::start(0, one.path()).await;
    let hung = made_of(&seed, one.path(), "hung").await;
    let behind = made_of(&seed, one.path(), "behind").await;
    let free = made_of(&seed, other.path(), "free").await;
    let Some(frozen) = Frozen::new(&disk) else {
        return;
    };
    let to = disk.path().join("to");
    move_to(&seed, hung, &to).await;
    seed.until_status(hung, Status::Moving).await;
    move_to(&seed, behind, &to).await;
    let within = other.path().join("within");
    move_to(&seed, free, &within).await;
    until_moved(&seed, free, &within).await;
    assert_eq!(seed.torrent(hung).unwrap().live.status, Status::Moving);
    let waits = seed.torrent(behind).unwrap();
    assert_eq!(waits.live.status, Status::Seeding, "it waits");
    drop(frozen);
    until_moved(&seed, hung, &to).await;
    until_moved(&seed, behind, &to).await;
    seed.until_status(behind, Status::Seeding).await;
    seed.stop().await;
    assert_eq!(intents(one.path()), []);
    assert!(to.join("hung").exists() && to.join("behind").exists());
    assert_eq!(names(&to).len(), 2, "{:?}", names(&to));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_to_a_disk_that_is_full_waits_for_room() {
    let one = TempDir::new().unwrap();
    let Some(disk) = Disk::in_memory(256) else {
        return;
    };
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    let to = disk.path().join("to");
    move_to(&seed, info_hash, &to).await;
    let torrent = until_said(&seed, info_hash, "bytes free").await;
    let text = torrent.summary.last_error.unwrap().text;
    assert!(text.contains("tried again in"), "{text}");
    let rests = |torrent: &Torrent| torrent.live.status == Status::Seeding;
    seed.until(info_hash, rests).await;
    assert!(does("mount", &["-o", "remount,size=8m", &disk.text()]));
    until_moved(&seed, info_hash, &to).await;
    seed.until_status(info_hash, Status::Seeding).await;
    seed.stop().await;
    assert!(!data.exists());
    assert_eq!(names(&to), ["data"], "the mark stays");
    assert_eq!(intents(one.path()), []);
}

/// Where the disk should be there is an empty folder of another one.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_made_where_the_disk_of_a_move_is_away() {
    for phase in [COPYING, SWITCHED] {
        let one = TempDir::new().unwrap();
        let Some(disk) = Disk::ext4() else { return };
        let data = data(one.path());
        let seed = Host::start(0, one.path()).await;
        let info_hash = made(&seed, &data).await;
        seed.stop().await;
        // A copy of a file is there, and none of the others.
        let to = disk.path().join("to");
        if phase == COPYING {
            fs::create_dir_all(to.join("data/b")).unwrap();
            fs::write(to.join(format!(".{info_hash}.moving")), b"").unwrap();
            assert!(does(
                "cp",
                &[
                    "-p",
                    data.join("b/c").to_str().unwrap(),
                    to.join("data/b")
                        .join(copy_name(info_hash, 1))
                        .to_str()
                        .unwrap()
                ]
            ));
        } else {
            assert!(does(
                "cp",
                &["-rp", data.to_str().unwrap(), disk.text().as_str()]
            ));
            fs::create_dir(&to).unwrap();
            fs::rename(disk.path().join("data"), to.join("data")).unwrap();
        }
        keep(one.path(), info_hash, &to, phase);
        for has_folder in [false, true] {
            disk.unmount();
            if has_folder {
                fs::create_dir(&to).unwrap();
            }
            let seed = Host::start(0, one.path()).await;
            until_said(&seed, info_hash, "tried again in").await;
            seed.stop().await;
            let expected = if has_folder { vec!["to"] } else { vec![] };
            assert_eq!(names(&disk.path()), expected, "{phase}");
            assert_eq!(names(&to), [""; 0], "{phase}");
            assert_eq!(intents(one.path()), [info_hash], "{phase}");
            assert!(data.join("a").exists());
            let _ = fs::remove_dir(&to);
            assert!(disk.mount());
        }
        if phase == COPYING {
            disk.unmount();
            let seed = Host::start(0, one.path()).await;
            until_said(&seed, info_hash, "tried again in").await;
            assert!(disk.mount());
            until_moved(&seed, info_hash, &to).await;
            seed.until_status(info_hash, Status::Seeding).await;
            seed.stop().await;
            assert!(!data.exists() && to.join("data/a").exists());
            assert_eq!(names(&to), ["data"]);
        }
    }
}

/// Data that are away for a while are moved when they are back.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_of_data_that_are_away_waits_for_them() {
    let one = TempDir::new().unwrap();
    let Some(other) = elsewhere() else { return };
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    let (hidden, to) = (one.path().join("hidden"), other.path().join("to"));
    fs::rename(&data, &hidden).unwrap();
    move_to(&seed, info_hash, &to).await;
    until_said(&seed, info_hash, "is missing").await;
    assert_eq!(
        seed.torrent(info_hash).unwrap().live.status,
        Status::Seeding
    );
    fs::rename(&hidden, &data).unwrap();
    // Who says it once more need not wait.
    move_to(&seed, info_hash, &to).await;
    until_moved(&seed, info_hash, &to).await;
    seed.stop().await;
    assert_eq!(intents(one.path()), []);
}

/// A download goes on between two tries: what was copied before is copied again.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_copied_of_a_download_that_went_on_is_copied_again() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let Some(other) = elsewhere() else { return };
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    let metainfo = seed.metainfo(info_hash).await;
    limit_upload(&seed, info_hash, Some(20_000)).await;
    let host = Host::start(1, two.path()).await;
    host.add(of_file(metainfo, seed.address())).await;
    host.until(info_hash, |torrent| torrent.live.downloaded_session > 0)
        .await;
    host.stop().await;
    // What a try has copied before any of it was there, and a file that has another name since.
    let (downloads, to) = (two.path().join("downloads"), other.path().join("to"));
    fs::create_dir_all(to.join("data/b")).unwrap();
    fs::write(to.join(format!(".{info_hash}.moving")), b"").unwrap();
    let mut stale = Vec::new();
    for (index, name) in (0..).zip(["data/a", "data/b/c", "data/b/d"]) {
        for name in [name.to_owned(), format!("{name}.part")] {
            if let Ok(found) = fs::metadata(downloads.join(&name)) {
                let copy = to.join(&name).with_file_name(copy_name(info_hash, index));
                fs::write(copy, vec![7; found.len() as usize]).unwrap();
                stale.push(name);
            }
        }
    }
    assert!(!stale.is_empty());
    let store = Store::open(&two.path().join("state"), Options::default()).unwrap();
    let write = intent(info_hash, &downloads, &to, COPYING);
    store.handle().write_blocking(write).unwrap();
    store.close();
    let host = Host::start(1, two.path()).await;
    until_moved(&host, info_hash, &to).await;
    limit_upload(&seed, info_hash, None).await;
    host.server
        .ask(|reply| Command::AddPeers(info_hash, vec![seed.address()], reply))
        .await
        .unwrap();
    host.until_status(info_hash, Status::Seeding).await;
    assert_same(&data, &to.join("data"));
    host.stop().await;
    seed.stop().await;
    assert_eq!(names(&to), ["data"]);
    assert_eq!(names(&to.join("data/b")).len(), 2);
}

/// Who says that the data are to be where they are gives the move up, whatever it is doing.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_is_given_up_leaves_nothing() {
    let (gate, one) = (Gate::new(), TempDir::new().unwrap());
    let Some(other) = elsewhere() else { return };
    let data = data(one.path());
    let seed = Host::start_on(0, one.path(), gate, |_| {}).await;
    let info_hash = made(&seed, &data).await;
    let from = seed.torrent(info_hash).unwrap().summary.save_path;
    let to = other.path().join("to");
    let shut = gate.shut();
    move_to(&seed, info_hash, &to).await;
    let begun = Instant::now();
    while !to.join("data/b").join(copy_name(info_hash, 2)).exists() {
        assert!(begun.elapsed() < PATIENCE, "it is not copied");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let elsewhere = try_move(&seed, info_hash, &other.path().join("x"), false).await;
    assert!(matches!(elsewhere, Err(CommandError::Conflict(_))));
    move_to(&seed, info_hash, &from).await;
    drop(shut);
    seed.until_status(info_hash, Status::Seeding).await;
    let begun = Instant::now();
    while !names(&to).is_empty() {
        assert!(begun.elapsed() < PATIENCE, "{:?} stay", names(&to));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let torrent = seed.torrent(info_hash).unwrap();
    assert_eq!(
        (torrent.summary.last_error, torrent.summary.save_path),
        (None, from)
    );
    seed.stop().await;
    assert_eq!(intents(one.path()), []);
    assert!(data.join("a").exists());
}

/// One that rests leaves nothing either, also of what an earlier try has copied.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_is_given_up_while_it_rests_leaves_nothing() {
    let one = TempDir::new().unwrap();
    let Some(disk) = Disk::in_memory(256) else {
        return;
    };
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    seed.stop().await;
    let to = disk.path().join("to");
    fs::create_dir_all(to.join("data/b")).unwrap();
    fs::write(to.join(format!(".{info_hash}.moving")), b"").unwrap();
    let copy = to.join("data/b").join(copy_name(info_hash, 1));
    fs::copy(data.join("b/c"), copy).unwrap();
    keep(one.path(), info_hash, &to, COPYING);
    let seed = Host::start(0, one.path()).await;
    let torrent = until_said(&seed, info_hash, "bytes free").await;
    move_to(&seed, info_hash, &torrent.summary.save_path).await;
    let begun = Instant::now();
    while !names(&to).is_empty() {
        assert!(begun.elapsed() < PATIENCE, "{:?} stay", names(&to));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let torrent = seed.until_status(info_hash, Status::Seeding).await;
    assert_eq!(torrent.summary.last_error, None);
    seed.stop().await;
    assert_eq!(intents(one.path()), []);
    assert!(data.join("a").exists() && data.join("b/c").exists());
}

/// The configuration names a torrent whose data are just being moved: they are served where they
/// are, and moved when it is named no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_torrent_that_is_named_while_it_is_moved_stays_until_it_is_not() {
    let (gate, one) = (Gate::new(), TempDir::new().unwrap());
    let Some(other) = elsewhere() else { return };
    let data = data(one.path());
    let seed = Host::start_on(0, one.path(), gate, |_| {}).await;
    let info_hash = made(&seed, &data).await;
    let metainfo = seed.metainfo(info_hash).await;
    let to = other.path().join("to");
    let shut = gate.shut();
    move_to(&seed, info_hash, &to).await;
    let begun = Instant::now();
    while !to.join("data/b").join(copy_name(info_hash, 2)).exists() {
        assert!(begun.elapsed() < PATIENCE, "it is not copied");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (declared, torrent) = named(info_hash, &metainfo, one.path());
    seed.manager.declare(declared).await;
    seed.plane.add(&torrent).await;
    drop(shut);
    // Another is moved meanwhile: this one has been left.
    let next = made_of(&seed, one.path(), "next").await;
    move_to(&seed, next, &to).await;
    until_moved(&seed, next, &to).await;
    let shown = seed.torrent(info_hash).unwrap();
    assert_eq!(
        (shown.live.status, shown.live.declared),
        (Status::Seeding, true)
    );
    assert_eq!(shown.summary.save_path, one.path());
    assert!(data.join("a").exists() && data.join("b/c").exists());
    seed.plane.remove(&torrent).await;
    seed.manager.undeclare(info_hash).await;
    until_moved(&seed, info_hash, &to).await;
    seed.until_status(info_hash, Status::Seeding).await;
    seed.stop().await;
    assert!(!data.exists() && to.join("data/a").exists());
    assert_eq!(intents(one.path()), []);
}
