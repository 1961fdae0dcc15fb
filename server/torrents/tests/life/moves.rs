//! Data that are moved: served meanwhile, whatever crash comes between, and never believed or taken
//! away by mistake.

use super::*;
use control::hashing::DiskReader;
use std::os::unix::fs::MetadataExt;
use std::sync::{Condvar, Mutex};

/// Has a torrent be sent at so many bytes a second; as the server is if none.
pub(super) async fn limit_upload(host: &Host, info_hash: InfoHashV1, rate: Option<u64>) {
    let limits = command::LimitsEdit {
        upload_rate: Some(rate),
        ..Default::default()
    };
    let edit = Edit {
        limits,
        ..Edit::default()
    };
    let edit = |reply| Command::Edit(info_hash, Box::new(edit), reply);
    host.server.ask(edit).await.unwrap();
}

/// Has the data of a torrent be moved, or be where they were moved to.
pub(super) async fn try_move(
    host: &Host,
    info_hash: InfoHashV1,
    to: &Path,
    data_are_there: bool,
) -> Result<(), CommandError> {
    let there = Move {
        save_path: to.to_owned(),
        data_are_there,
    };
    let there = |reply| Command::Move(info_hash, there, reply);
    host.server.ask(there).await
}

pub(super) async fn move_to(host: &Host, info_hash: InfoHashV1, to: &Path) {
    try_move(host, info_hash, to, false).await.unwrap();
}

/// A disk that hangs while it is shut: whatever hashes waits.
#[derive(Debug, Default)]
pub(super) struct Gate {
    shut: Mutex<bool>,
    opened: Condvar,
}

/// Keeps a disk shut; one that a failed test leaves is opened, or the test would never end.
pub(super) struct Shut(&'static Gate);

impl Gate {
    pub(super) fn new() -> &'static Gate {
        Box::leak(Box::default())
    }

    pub(super) fn shut(&'static self) -> Shut {
        *self.shut.lock().unwrap() = true;
        Shut(self)
    }
}

impl Drop for Shut {
    fn drop(&mut self) {
        *self.0.shut.lock().unwrap() = false;
        self.0.opened.notify_all();
    }
}

impl Disk for Gate {
    fn reader(&self) -> Box<dyn DiskReader> {
        let shut = self.shut.lock().unwrap();
        drop(self.opened.wait_while(shut, |shut| *shut).unwrap());
        PageCache.reader()
    }
}

/// A folder on another file system than that of temporary files.
pub(super) fn elsewhere() -> Option<TempDir> {
    let Ok(other) = TempDir::new_in("/dev/shm") else {
        eprintln!("SKIP: there is no /dev/shm to move to");
        return None;
    };
    elsewhere_than(other.path()).map(|_| other)
}

/// A folder of temporary files, on another file system than `folder`.
pub(super) fn elsewhere_than(folder: &Path) -> Option<TempDir> {
    let one = TempDir::new().unwrap();
    let device = |path: &Path| fs::metadata(path).unwrap().dev();
    if device(one.path()) == device(folder) {
        eprintln!("SKIP: {folder:?} is on the file system of temporary files");
        return None;
    }
    Some(one)
}

/// Waits until a move has said what went wrong.
pub(super) async fn until_refused(host: &Host, info_hash: InfoHashV1) -> String {
    let torrent = host
        .until(info_hash, |torrent| {
            torrent.summary.last_error.is_some() && torrent.live.status != Status::Moving
        })
        .await;
    torrent.summary.last_error.unwrap().text
}

/// Moves the data of a torrent of `one` to `to` while it is being fetched.
async fn moved_while_it_is_fetched(one: &Path, to: &Path) {
    let two = TempDir::new().unwrap();
    let data = data(one);
    fs::hard_link(data.join("a"), one.join("other")).unwrap();
    let seed = Host::start(0, one).await;
    let info_hash = made(&seed, &data).await;
    let metainfo = seed.metainfo(info_hash).await;
    // It would take most of a minute: until the move is done.
    limit_upload(&seed, info_hash, Some(20_000)).await;
    let host = Host::start(1, two.path()).await;
    host.add(of_file(metainfo.clone(), seed.address())).await;
    host.until(info_hash, |torrent| torrent.live.downloaded_session > 0)
        .await;
    move_to(&seed, info_hash, to).await;
    let torrent = seed
        .until(info_hash, |torrent| {
            torrent.summary.save_path == to && torrent.live.status == Status::Seeding
        })
        .await;
    assert!(torrent.is_complete());
    assert_eq!(torrent.summary.last_error, None);
    assert_eq!(
        host.torrent(info_hash).unwrap().live.status,
        Status::Downloading
    );
    limit_upload(&seed, info_hash, None).await;
    host.until_status(info_hash, Status::Seeding).await;
    assert_same(&to.join("data"), &two.path().join("downloads/data"));
    let begun = Instant::now();
    while data.exists() {
        assert!(begun.elapsed() < PATIENCE, "the old files stay");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(fs::metadata(one.join("other")).unwrap().len(), 700_000);
    seed.stop().await;
    host.stop().await;
    // It is served from there after a restart, too, with nothing hashed.
    let (seed, three) = (Host::start(0, one).await, TempDir::new().unwrap());
    let torrent = seed.torrent(info_hash).unwrap();
    assert_eq!(
        (torrent.live.status, torrent.is_complete()),
        (Status::Seeding, true)
    );
    let host = Host::start(2, three.path()).await;
    host.add(of_file(metainfo, seed.address())).await;
    host.until_status(info_hash, Status::Seeding).await;
    assert_same(&to.join("data"), &three.path().join("downloads/data"));
    assert_eq!(seed.torrent(info_hash).unwrap().summary.last_error, None);
    host.stop().await;
    seed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_are_moved_within_a_file_system_while_they_are_served() {
    let one = TempDir::new().unwrap();
    let to = one.path().join("elsewhere/else");
    moved_while_it_is_fetched(one.path(), &to).await;
    let other = fs::metadata(one.path().join("other")).unwrap().ino();
    assert_eq!(
        fs::metadata(to.join("data/a")).unwrap().ino(),
        other,
        "no byte was copied"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn data_are_moved_to_another_file_system_while_they_are_served() {
    let one = TempDir::new().unwrap();
    let Some(other) = elsewhere() else { return };
    moved_while_it_is_fetched(one.path(), &other.path().join("new")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_into_what_is_there_already_is_taken_back() {
    let one = TempDir::new().unwrap();
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    let to = one.path().join("to");
    fs::create_dir_all(to.join("data/b")).unwrap();
    fs::write(to.join("data/b/c"), b"another's").unwrap();
    let there = Move {
        save_path: to.clone(),
        data_are_there: false,
    };
    let there = |reply| Command::Move(info_hash, there, reply);
    seed.server.ask(there).await.unwrap();
    let torrent = seed
        .until(info_hash, |torrent| {
            torrent.summary.last_error.is_some() && torrent.live.status == Status::Seeding
        })
        .await;
    assert!(
        torrent
            .summary
            .last_error
            .unwrap()
            .text
            .contains("data/b/c")
    );
    assert_eq!(
        torrent.summary.save_path,
        one.path().canonicalize().unwrap()
    );
    assert!(!to.join("data/a").exists(), "what was made is taken away");
    assert_eq!(fs::read(to.join("data/b/c")).unwrap(), b"another's");
    let two = TempDir::new().unwrap();
    let metainfo = seed.metainfo(info_hash).await;
    let host = Host::start(1, two.path()).await;
    host.add(of_file(metainfo, seed.address())).await;
    host.until_status(info_hash, Status::Seeding).await;
    host.stop().await;
    seed.stop().await;
}

/// How far a move is, as it is kept: as an earlier version kept it, if it says nothing.
const WAITING: u8 = 0;
const COPYING: u8 = 1;
const SWITCHED: u8 = 2;
const MARKED: u8 = 3;

/// That a torrent is to be moved, as it is kept.
pub(super) fn intent(info_hash: InfoHashV1, from: &Path, to: &Path, phase: u8) -> state::Write {
    let from = from.canonicalize().unwrap();
    let bytes = |path: &Path| path.as_os_str().as_encoded_bytes().to_vec();
    let mut value = [bytes(to), bytes(&from)].join(&0);
    if phase != WAITING {
        value.extend([0, phase]);
    }
    state::Write::Intent(state::Intent::Move, info_hash, Some(value))
}

/// A move that was acknowledged is done, whatever happens in between.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_goes_on_after_a_crash() {
    let one = TempDir::new().unwrap();
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    seed.stop().await;
    // As it is when a crash came in the middle of the links.
    let to = one.path().join("to");
    fs::create_dir_all(to.join("data")).unwrap();
    fs::hard_link(data.join("a"), to.join("data/a")).unwrap();
    let store = Store::open(&one.path().join("state"), Options::default()).unwrap();
    store
        .handle()
        .write_blocking(intent(info_hash, one.path(), &to, WAITING))
        .unwrap();
    store.close();
    let seed = Host::start(0, one.path()).await;
    seed.until(info_hash, |torrent| torrent.summary.save_path == to)
        .await;
    seed.until_status(info_hash, Status::Seeding).await;
    assert!(to.join("data/b/c").exists());
    seed.stop().await;
    assert!(!data.exists());
}

/// A crash behind the switch leaves the old names: they go, the data stay.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_was_done_but_for_its_end_keeps_the_data() {
    let one = TempDir::new().unwrap();
    let data = data(one.path());
    let to = one.path().join("to");
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    let there = Move {
        save_path: to.clone(),
        data_are_there: false,
    };
    let there = |reply| Command::Move(info_hash, there, reply);
    seed.server.ask(there).await.unwrap();
    let moved = |torrent: &Torrent| {
        torrent.summary.save_path == to && torrent.live.status == Status::Seeding
    };
    seed.until(info_hash, moved).await;
    seed.stop().await;
    // As if the intent had not been taken out, once with the old names and once without.
    for with_old in [true, false] {
        let store = Store::open(&one.path().join("state"), Options::default()).unwrap();
        let intent = intent(info_hash, one.path(), &to, SWITCHED);
        store.handle().write_blocking(intent).unwrap();
        store.close();
        if with_old {
            fs::create_dir(&data).unwrap();
            fs::hard_link(to.join("data/a"), data.join("a")).unwrap();
        }
        let seed = Host::start(0, one.path()).await;
        let begun = Instant::now();
        while data.exists() {
            assert!(begun.elapsed() < PATIENCE, "the old name stays");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        seed.until_status(info_hash, Status::Seeding).await;
        let two = TempDir::new().unwrap();
        let metainfo = seed.metainfo(info_hash).await;
        let host = Host::start(1, two.path()).await;
        host.add(of_file(metainfo, seed.address())).await;
        host.until_status(info_hash, Status::Seeding).await;
        assert_same(&to.join("data"), &two.path().join("downloads/data"));
        host.stop().await;
        seed.stop().await;
    }
}

/// A folder has many names, and a move between two of one would take the only files away.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_into_the_same_folder_by_another_name_takes_nothing_away() {
    let one = TempDir::new().unwrap();
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    let alias = one.path().join("alias");
    std::os::unix::fs::symlink(one.path(), &alias).unwrap();
    let there = Move {
        save_path: alias,
        data_are_there: false,
    };
    let there = |reply| Command::Move(info_hash, there, reply);
    seed.server.ask(there).await.unwrap();
    let torrent = seed
        .until(info_hash, |torrent| {
            torrent.summary.last_error.is_some() && torrent.live.status == Status::Seeding
        })
        .await;
    let error = torrent.summary.last_error.unwrap().text;
    assert!(error.contains("the same folder"), "{error}");
    assert!(data.join("a").exists() && data.join("b/c").exists());
    seed.stop().await;
}

/// A move is no proof that bytes are right.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_has_changed_is_not_moved_and_not_believed() {
    let one = TempDir::new().unwrap();
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    let metainfo = seed.metainfo(info_hash).await;
    let mut bytes = fs::read(data.join("a")).unwrap();
    bytes[9] ^= 1;
    fs::write(data.join("a"), bytes).unwrap();
    let there = Move {
        save_path: one.path().join("to"),
        data_are_there: false,
    };
    let there = |reply| Command::Move(info_hash, there, reply);
    seed.server.ask(there).await.unwrap();
    let refused = seed.until(info_hash, |torrent| {
        let error = torrent.summary.last_error.as_ref();
        error.is_some_and(|error| error.text.contains("has changed"))
    });
    refused.await;
    // Who asks for it gets nothing of it: it is found out and hashed.
    let two = TempDir::new().unwrap();
    let host = Host::start(1, two.path()).await;
    host.add(of_file(metainfo, seed.address())).await;
    seed.until(info_hash, |torrent| !torrent.is_complete())
        .await;
    host.stop().await;
    seed.stop().await;
}

/// Two views of one folder, which the numbers of device and inode do not tell to be one: an overlay
/// and its upper layer. Unmounted when it is dropped.
struct Views {
    _folder: TempDir,
    layer: PathBuf,
    merged: PathBuf,
}

impl Views {
    fn new() -> Option<Views> {
        // The disk of tests may be an overlay itself, which cannot be a layer.
        let folder = TempDir::new_in("/dev/shm").ok()?;
        let path = |name: &str| folder.path().join(name);
        for name in ["lower", "upper", "work", "merged"] {
            fs::create_dir(path(name)).unwrap();
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            path("lower").display(),
            path("upper").display(),
            path("work").display()
        );
        let (layer, merged) = (path("upper"), path("merged"));
        let mounted = std::process::Command::new("mount")
            .args(["-t", "overlay", "overlay", "-o", &options])
            .arg(&merged)
            .status();
        if !mounted.is_ok_and(|status| status.success()) {
            eprintln!("SKIP: an overlay cannot be mounted here");
            return None;
        }
        Some(Views {
            _folder: folder,
            layer,
            merged,
        })
    }
}

impl Drop for Views {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("--lazy")
            .arg(&self.merged)
            .status();
    }
}

/// Unions of disks, network file systems and overlays show one folder twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_between_two_views_of_one_folder_takes_nothing_away() {
    let Some(views) = Views::new() else { return };
    for (number, from, to) in [
        (0, &views.layer, &views.merged),
        (1, &views.merged, &views.layer),
    ] {
        let one = TempDir::new().unwrap();
        let folder = from.join(format!("{number}"));
        fs::create_dir(&folder).unwrap();
        let data = data(&folder);
        let seed = Host::start(number, one.path()).await;
        let info_hash = made(&seed, &data).await;
        let to = to.join(format!("{number}"));
        move_to(&seed, info_hash, &to).await;
        let error = until_refused(&seed, info_hash).await;
        assert!(error.contains("two views of one"), "{error}");
        seed.stop().await;
        for folder in [&folder, &to] {
            let names = || fs::read_dir(folder.join("data")).unwrap();
            let mut names: Vec<_> = names().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            assert_eq!(names, ["a", "b"]);
            assert_eq!(fs::metadata(folder.join("data/a")).unwrap().len(), 700_000);
        }
    }
}

/// A start finds the folder that it was to copy to mounted over what it had copied: as another view
/// of the old one, by an intent that says that copies are there, or that all is done.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_goes_on_between_two_views_of_one_folder_takes_nothing_away() {
    for phase in [WAITING, COPYING, SWITCHED, MARKED] {
        let Some(views) = Views::new() else { return };
        let one = TempDir::new().unwrap();
        let data = data(&views.layer);
        let seed = Host::start(0, one.path()).await;
        let info_hash = made(&seed, &data).await;
        seed.stop().await;
        let store = Store::open(&one.path().join("state"), Options::default()).unwrap();
        let intent = intent(info_hash, &views.layer, &views.merged, phase);
        store.handle().write_blocking(intent).unwrap();
        if phase == MARKED {
            let mark = format!(".{info_hash}.moving");
            fs::write(views.merged.join(mark), b"").unwrap();
        }
        if phase == SWITCHED {
            let metadata = |name: &str| fs::metadata(views.merged.join("data").join(name)).unwrap();
            let stamps = ["a", "b/c", "b/d"].map(|name| {
                let stamp = control::hashing::stamp_of(&metadata(name));
                Some(stamp)
            });
            let merged = views.merged.clone();
            let update = state::Update::new()
                .summary(move |summary| summary.save_path = merged)
                .all_stamps(stamps);
            let update = state::Write::Update(info_hash, Box::new(update));
            store.handle().write_blocking(update).unwrap();
        }
        store.close();
        let seed = Host::start(0, one.path()).await;
        let error = until_refused(&seed, info_hash).await;
        assert!(error.contains("two views of one"), "{phase}: {error}");
        // What was copied would be taken away now; that has ended when it may be moved again.
        let here = seed.torrent(info_hash).unwrap().summary.save_path;
        let begun = Instant::now();
        while try_move(&seed, info_hash, &here, false).await.is_err() {
            assert!(begun.elapsed() < PATIENCE, "it does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        seed.stop().await;
        for name in ["a", "b/c", "b/d"] {
            assert!(data.join(name).exists(), "{phase}: {name}");
            assert!(views.merged.join("data").join(name).exists());
        }
        assert_eq!(
            fs::read_dir(&data).unwrap().count(),
            2,
            "{phase}: none is added"
        );
    }
}

/// What lies there before is nobody's to believe, and nobody's to take away.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_were_there_before_a_move_are_not_taken_for_its_copies() {
    let one = TempDir::new().unwrap();
    let Some(other) = elsewhere() else { return };
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    let to = other.path().join("to");
    fs::create_dir_all(to.join("data/b")).unwrap();
    fs::copy(data.join("b/c"), to.join("data/b/c")).unwrap();
    move_to(&seed, info_hash, &to).await;
    let error = until_refused(&seed, info_hash).await;
    assert!(
        error.contains("data/b/c") && error.contains("another file"),
        "{error}"
    );
    assert!(data.join("a").exists() && data.join("b/c").exists());
    assert!(!to.join("data/a").exists() && to.join("data/b/c").exists());
    seed.stop().await;
}

/// As an earlier version left it: it believed that whatever is in the new folder is the torrent's.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_takes_no_old_file_away_by_the_name_of_the_new_folder_alone() {
    let one = TempDir::new().unwrap();
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    seed.stop().await;
    let to = one.path().join("to");
    fs::create_dir_all(to.join("data/b")).unwrap();
    for name in ["a", "b/c", "b/d"] {
        let length = fs::metadata(data.join(name)).unwrap().len();
        let file = fs::File::create(to.join("data").join(name)).unwrap();
        file.set_len(length).unwrap();
    }
    for phase in [WAITING, SWITCHED] {
        let store = Store::open(&one.path().join("state"), Options::default()).unwrap();
        let there = to.clone();
        let update = state::Update::new().summary(move |summary| summary.save_path = there);
        let update = state::Write::Update(info_hash, Box::new(update));
        store.handle().write_blocking(update).unwrap();
        let intent = intent(info_hash, one.path(), &to, phase);
        store.handle().write_blocking(intent).unwrap();
        store.close();
        let seed = Host::start(0, one.path()).await;
        seed.until(info_hash, |torrent| torrent.live.status != Status::Moving)
            .await;
        seed.stop().await;
        for name in ["a", "b/c", "b/d"] {
            assert!(data.join(name).exists(), "{phase}: {name}");
        }
    }
}

/// Tries to move a download to `to` while a name that it has there, or will have, is another's.
async fn another_stays_as_it_was(to: &Path) {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    let metainfo = seed.metainfo(info_hash).await;
    seed.stop().await;
    // Of one file there is a part; nothing is there yet of the others, and nobody has it.
    let downloads = two.path().join("downloads");
    fs::create_dir_all(downloads.join("data")).unwrap();
    let part = fs::read(data.join("a")).unwrap()[..300_000].to_vec();
    fs::write(downloads.join("data/a.part"), &part).unwrap();
    let host = Host::start(1, two.path()).await;
    host.add(AddTorrent::new(AddSource::Metainfo(metainfo)))
        .await;
    host.until_status(info_hash, Status::Downloading).await;
    for name in ["data/a", "data/a.part", "data/b/c", "data/b/c.part"] {
        let another = to.join(name);
        fs::create_dir_all(another.parent().unwrap()).unwrap();
        fs::write(&another, b"another's").unwrap();
        move_to(&host, info_hash, to).await;
        let torrent = host
            .until(info_hash, |torrent| {
                let error = torrent.summary.last_error.as_ref();
                let is_refused =
                    error.is_some_and(|error| error.text.contains(&format!("{name}\"")));
                let has_ended = torrent.live.status == Status::Downloading;
                torrent.summary.save_path == to || is_refused && has_ended
            })
            .await;
        assert_eq!(torrent.summary.save_path, downloads, "{name}");
        let error = torrent.summary.last_error.unwrap().text;
        assert!(error.contains("another file"), "{name}: {error}");
        assert_eq!(fs::read(&another).unwrap(), b"another's");
        assert!(fs::read(downloads.join("data/a.part")).unwrap() == part);
        fs::remove_dir_all(to.join("data")).unwrap();
    }
    move_to(&host, info_hash, to).await;
    host.until(info_hash, |torrent| torrent.summary.save_path == to)
        .await;
    host.until_status(info_hash, Status::Downloading).await;
    assert!(fs::read(to.join("data/a.part")).unwrap() == part);
    host.stop().await;
}

/// A download writes into what has the name of one of its files, so it does not come to where
/// another file has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_download_is_not_moved_to_where_another_file_has_one_of_its_names() {
    let folder = TempDir::new().unwrap();
    another_stays_as_it_was(&folder.path().join("to")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_is_not_copied_to_where_another_file_has_one_of_its_names() {
    let Some(other) = elsewhere() else { return };
    another_stays_as_it_was(&other.path().join("to")).await;
}

/// Where no hash says that a copy is right it has to be what it was copied of, or the old file, the
/// only right one, would go.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_nothing_verifies_is_compared_before_the_old_file_goes() {
    let one = TempDir::new().unwrap();
    let Some(other) = elsewhere() else { return };
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    seed.act(info_hash, Action::Pause).await.unwrap();
    seed.stop().await;
    super::doubts::forget_pieces(one.path(), info_hash, state::Condition::NeedsCheck);
    let before = one.path().join("before");
    fs::create_dir_all(before.join("b")).unwrap();
    for name in ["a", "b/c", "b/d"] {
        fs::copy(data.join(name), before.join(name)).unwrap();
    }
    // As if the disk had changed a byte of a copy that an earlier run has made.
    let to = other.path().join("to");
    fs::create_dir_all(to.join("data")).unwrap();
    let mut bytes = fs::read(data.join("a")).unwrap();
    bytes[650_000] ^= 1;
    let copy = to.join(format!("data/.{info_hash}-0.moving"));
    fs::write(&copy, bytes).unwrap();
    let modified = fs::metadata(data.join("a")).unwrap().modified().unwrap();
    let copy = fs::File::options().write(true).open(copy);
    copy.unwrap().set_modified(modified).unwrap();
    let store = Store::open(&one.path().join("state"), Options::default()).unwrap();
    let intent = intent(info_hash, one.path(), &to, COPYING);
    store.handle().write_blocking(intent).unwrap();
    store.close();
    let seed = Host::start(0, one.path()).await;
    let error = until_refused(&seed, info_hash).await;
    assert!(error.contains("differs"), "{error}");
    // It is copied again, and what is right is moved.
    seed.until(info_hash, |torrent| {
        torrent.summary.save_path == to && torrent.live.status != Status::Moving
    })
    .await;
    seed.stop().await;
    assert_same(&before, &to.join("data"));
    assert!(!data.exists());
}
