//! Files that are renamed: served meanwhile, whole after a crash at any moment, and never at the
//! cost of another file.

use super::moves::{limit_upload, try_move};
use super::*;
use control::command::Rename;

pub(super) async fn rename(
    host: &Host,
    info_hash: InfoHashV1,
    rename: Rename,
) -> Result<(), CommandError> {
    let rename = |reply| Command::Rename(info_hash, rename, reply);
    host.server.ask(rename).await
}

pub(super) async fn rename_path(
    host: &Host,
    hash: InfoHashV1,
    from: &str,
    to: &str,
) -> Result<(), CommandError> {
    let (from, to) = (from.into(), to.into());
    rename(host, hash, Rename::Path { from, to }).await
}

/// The paths that are told of the files.
pub(super) async fn paths(host: &Host, info_hash: InfoHashV1) -> Vec<String> {
    let files = |reply| Command::Files(info_hash, reply);
    let files = host.server.ask(files).await.unwrap();
    files
        .iter()
        .map(|file| file.path.display().to_string())
        .collect()
}

/// Somebody new gets all of it, as `data` has it.
pub(super) async fn is_served(seed: &Host, info_hash: InfoHashV1, data: &Path) {
    let two = TempDir::new().unwrap();
    let host = Host::start(2, two.path()).await;
    host.add(of_file(seed.metainfo(info_hash).await, seed.address()))
        .await;
    host.until_status(info_hash, Status::Seeding).await;
    assert_same(data, &two.path().join("downloads/data"));
    assert_eq!(seed.torrent(info_hash).unwrap().summary.last_error, None);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_and_a_file_are_renamed_while_they_are_served() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let data = data(one.path());
    fs::hard_link(data.join("a"), one.path().join("other")).unwrap();
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    let metainfo = seed.metainfo(info_hash).await;
    // It would take most of a minute: until all is renamed.
    limit_upload(&seed, info_hash, Some(20_000)).await;
    let host = Host::start(1, two.path()).await;
    host.add(of_file(metainfo, seed.address())).await;
    host.until(info_hash, |torrent| torrent.live.downloaded_session > 0)
        .await;
    rename_path(&seed, info_hash, "data", "sub/new")
        .await
        .unwrap();
    let (index, to) = (0, "sub/file".into());
    rename(&seed, info_hash, Rename::File { index, to })
        .await
        .unwrap();
    assert!(!data.exists(), "what is acknowledged is done");
    let now = one.path().join("sub");
    assert!(now.join("file").exists() && !now.join("new/a").exists());
    assert_eq!(
        paths(&seed, info_hash).await,
        ["sub/file", "sub/new/b/c", "sub/new/b/d"]
    );
    let torrent = seed.torrent(info_hash).unwrap();
    assert_eq!(
        (torrent.live.status, torrent.live.peers),
        (Status::Seeding, 1)
    );
    assert_eq!(
        host.torrent(info_hash).unwrap().live.status,
        Status::Downloading
    );
    limit_upload(&seed, info_hash, None).await;
    host.until_status(info_hash, Status::Seeding).await;
    let whole = two.path().join("downloads/data");
    assert_eq!(
        fs::read(now.join("file")).unwrap(),
        fs::read(whole.join("a")).unwrap()
    );
    assert_eq!(
        fs::metadata(one.path().join("other")).unwrap().len(),
        700_000
    );
    host.stop().await;
    seed.stop().await;
    assert_eq!(intents(one.path()), [], "it would go on at the next start");
    // So it is after a restart, with nothing hashed; it is moved, checked and removed so.
    let seed = Host::start(0, one.path()).await;
    let torrent = seed.torrent(info_hash).unwrap();
    assert_eq!(
        (torrent.live.status, torrent.is_complete()),
        (Status::Seeding, true)
    );
    is_served(&seed, info_hash, &whole).await;
    seed.act(info_hash, Action::Recheck).await.unwrap();
    let is_checked =
        |torrent: &Torrent| torrent.is_complete() && torrent.live.status == Status::Seeding;
    seed.until(info_hash, is_checked).await;
    let there = one.path().join("there");
    let to = Move {
        save_path: there.clone(),
        data_are_there: false,
    };
    seed.server
        .ask(|reply| Command::Move(info_hash, to, reply))
        .await
        .unwrap();
    seed.until(info_hash, |torrent| {
        torrent.summary.save_path == there && is_checked(torrent)
    })
    .await;
    assert!(there.join("sub/file").exists() && there.join("sub/new/b/c").exists());
    is_served(&seed, info_hash, &whole).await;
    let begun = Instant::now();
    seed.act(info_hash, Action::Remove { with_data: true })
        .await
        .unwrap();
    while there.join("sub").exists() {
        assert!(begun.elapsed() < PATIENCE, "its files stay");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    seed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_is_renamed_and_loses_nothing() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    limit_upload(&seed, info_hash, Some(100_000)).await;
    let host = Host::start(1, two.path()).await;
    host.add(of_file(seed.metainfo(info_hash).await, seed.address()))
        .await;
    let before = host
        .until(info_hash, |torrent| torrent.pieces_verified > 4)
        .await;
    rename_path(&host, info_hash, "data", "film").await.unwrap();
    let folder = two.path().join("downloads");
    assert!(!folder.join("data").exists());
    // Whoever is there calls nobody by himself: the seed is named anew.
    let peers = vec![seed.address()];
    let again = host
        .until(info_hash, |torrent| {
            torrent.live.status == Status::Downloading
        })
        .await;
    assert!(
        again.pieces_verified >= before.pieces_verified,
        "{before:#?} {again:#?}"
    );
    limit_upload(&seed, info_hash, None).await;
    let begun = Instant::now();
    while host
        .server
        .ask(|reply| Command::AddPeers(info_hash, peers.clone(), reply))
        .await
        .is_err()
    {
        assert!(begun.elapsed() < PATIENCE, "it does not go on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let whole = host.until_status(info_hash, Status::Seeding).await;
    assert_same(&data, &folder.join("film"));
    // No piece was fetched twice: 16 KiB of each are enough to tell.
    assert!(
        whole.live.downloaded_session < 790_301 + 20 * 16_384,
        "{whole:#?}"
    );
    // A paused one, too, before and after it is complete.
    host.act(info_hash, Action::Pause).await.unwrap();
    rename_path(&host, info_hash, "film/b", "film/c")
        .await
        .unwrap();
    assert!(folder.join("film/c/d").exists() && !folder.join("film/b").exists());
    assert_eq!(host.torrent(info_hash).unwrap().live.status, Status::Paused);
    host.act(info_hash, Action::Resume).await.unwrap();
    host.until_status(info_hash, Status::Seeding).await;
    is_served(&host, info_hash, &data).await;
    host.stop().await;
    seed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_way_stays_and_nothing_is_renamed() {
    let one = TempDir::new().unwrap();
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    fs::create_dir_all(one.path().join("new/b")).unwrap();
    fs::write(one.path().join("new/b/d"), b"another's").unwrap();
    fs::write(one.path().join("new/a.part"), b"another's").unwrap();
    std::os::unix::fs::symlink(one.path(), one.path().join("link")).unwrap();
    let file = |index, to: &str| Rename::File {
        index,
        to: to.into(),
    };
    let path = |to: &str| Rename::Path {
        from: "data".into(),
        to: to.into(),
    };
    for (refused, word) in [
        (path("new"), "there already"),
        (file(0, "new/a"), "there already"),
        (file(0, "new/b"), "there already"),
        (file(0, "new/b/d/x"), "new/b/d/x"),
        (path("link/x"), "link/x"),
        (file(0, "../x"), "below"),
        (file(0, "data/b/c"), "files 0 and 1"),
        (file(3, "x"), "3 files"),
        // Its old name and the suffix of what is not complete: the one would be taken for the other.
        (file(0, "data/a.part"), "ends with"),
    ] {
        let error = rename(&seed, info_hash, refused.clone())
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(word), "{refused:?}: {error}");
    }
    assert_eq!(fs::read(one.path().join("new/b/d")).unwrap(), b"another's");
    assert!(!one.path().join("new/a").exists() && !one.path().join("x").exists());
    assert_eq!(
        paths(&seed, info_hash).await,
        ["data/a", "data/b/c", "data/b/d"]
    );
    is_served(&seed, info_hash, &data).await;
    // What has changed since it was verified is not renamed as if it were right.
    let bytes = fs::read(data.join("a")).unwrap();
    fs::write(data.join("a"), &bytes[1..]).unwrap();
    let error = rename(&seed, info_hash, path("x"))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("has changed"), "{error}");
    assert!(data.join("a").exists() && !one.path().join("x").exists());
    seed.stop().await;
}

/// That files are being renamed, as it is kept: each is in `folder` under one of its paths.
fn intent(info_hash: InfoHashV1, folder: &Path, changes: &[(u32, &str, &str)]) -> state::Write {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = u32::MAX.to_le_bytes().to_vec();
    for (index, old, new) in changes {
        let found = fs::metadata(folder.join(old));
        let found = found.or_else(|_| fs::metadata(folder.join(new))).unwrap();
        bytes.extend(index.to_le_bytes());
        bytes.extend(found.len().to_le_bytes());
        let mtime_ns = found.mtime() * 1_000_000_000 + found.mtime_nsec();
        bytes.extend(mtime_ns.to_le_bytes());
        for part in [old, new, ""] {
            bytes.extend((part.len() as u32).to_le_bytes());
            bytes.extend(part.as_bytes());
        }
    }
    state::Write::Intent(state::Intent::Rename, info_hash, Some(bytes))
}

/// As it is when a crash came before the store said so, and behind that; and where the file system
/// knows no second names.
#[tokio::test(flavor = "multi_thread")]
async fn a_rename_that_was_cut_off_leaves_all_files_with_one_name() {
    let one = TempDir::new().unwrap();
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    seed.stop().await;
    let changes = [
        (0, "data/a", "new/a"),
        (1, "data/b/c", "new/b/c"),
        (2, "data/b/d", "new/b/d"),
    ];
    let new = one.path().join("new");
    for (is_kept, has_links) in [(false, true), (false, false), (true, true), (true, false)] {
        let is_new = paths_kept(one.path(), info_hash);
        let (from, to) = if is_new { (&new, &data) } else { (&data, &new) };
        let (root, next) = if is_new {
            ("new", "data")
        } else {
            ("data", "new")
        };
        fs::create_dir_all(to.join("b")).unwrap();
        for name in ["a", "b/c"] {
            match has_links {
                true => fs::hard_link(from.join(name), to.join(name)).unwrap(),
                false => fs::rename(from.join(name), to.join(name)).unwrap(),
            }
        }
        let store = Store::open(&one.path().join("state"), Options::default()).unwrap();
        let swapped = changes.map(|(index, old, new)| {
            if is_new {
                (index, new, old)
            } else {
                (index, old, new)
            }
        });
        store
            .handle()
            .write_blocking(intent(info_hash, one.path(), &swapped))
            .unwrap();
        if is_kept {
            let renames = swapped.map(|(index, _, new)| (index, PathBuf::from(new)));
            let update = state::Update::new().details(move |details| {
                details.renames = renames.into_iter().collect();
            });
            let write = state::Write::Update(info_hash, Box::new(update));
            store.handle().write_blocking(write).unwrap();
            if !has_links {
                fs::rename(from.join("b/d"), to.join("b/d")).unwrap();
            } else {
                fs::hard_link(from.join("b/d"), to.join("b/d")).unwrap();
            }
        }
        store.close();
        let seed = Host::start(0, one.path()).await;
        let (there, gone, root) = if is_kept {
            (to, from, next)
        } else {
            (from, to, root)
        };
        assert!(!gone.exists(), "{gone:?} stays");
        let expected = ["a", "b/c", "b/d"].map(|name| format!("{root}/{name}"));
        assert_eq!(paths(&seed, info_hash).await, expected);
        let torrent = seed.torrent(info_hash).unwrap();
        assert_eq!(
            (torrent.live.status, torrent.is_complete()),
            (Status::Seeding, true)
        );
        is_served(&seed, info_hash, there).await;
        seed.stop().await;
    }
}

/// A crash before the first name is made, and when all is done but for the end of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_rename_that_left_nothing_to_do_changes_nothing() {
    let one = TempDir::new().unwrap();
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    let changes = [
        (0, "data/a", "new/a"),
        (1, "data/b/c", "new/b/c"),
        (2, "data/b/d", "new/b/d"),
    ];
    seed.stop().await;
    for (root, there) in [("data", &data), ("new", &one.path().join("new"))] {
        let store = Store::open(&one.path().join("state"), Options::default()).unwrap();
        let handle = store.handle();
        let intent = intent(info_hash, one.path(), &changes);
        handle.write_blocking(intent).unwrap();
        store.close();
        let seed = Host::start(0, one.path()).await;
        let expected = ["a", "b/c", "b/d"].map(|name| format!("{root}/{name}"));
        assert_eq!(paths(&seed, info_hash).await, expected);
        is_served(&seed, info_hash, there).await;
        assert!(data.exists() != one.path().join("new").exists());
        if root == "data" {
            rename_path(&seed, info_hash, "data", "new").await.unwrap();
        }
        seed.stop().await;
        assert_eq!(intents(one.path()), []);
    }
}

/// Lengths of the files below a folder. What is deleted or renamed meanwhile counts as not there.
fn lengths(folder: &Path) -> Vec<u64> {
    let mut lengths = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => lengths.extend(self::lengths(&entry.path())),
            Ok(metadata) => lengths.push(metadata.len()),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{entry:?}"),
        }
    }
    lengths.sort_unstable();
    lengths
}

/// Whichever comes first: of each file there is one, or none if the data were to go.
#[tokio::test(flavor = "multi_thread")]
async fn a_torrent_that_is_removed_while_it_is_renamed_leaves_one_name_or_none() {
    let one = TempDir::new().unwrap();
    let seed = Host::start(0, one.path()).await;
    for round in 0..12 {
        let folder = one.path().join(round.to_string());
        fs::create_dir(&folder).unwrap();
        let data = data(&folder);
        let whole = lengths(&folder);
        // It is the torrent of the round before, whose files may be being deleted still.
        let begun = Instant::now();
        let info_hash = loop {
            let add = AddTorrent::new(AddSource::Path(data.clone()));
            let add = |reply| Command::Add(Box::new(add), reply);
            match seed.server.ask(add).await {
                Ok(added) => break added.info_hash,
                Err(error) => assert!(begun.elapsed() < PATIENCE, "round {round}: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        seed.until_status(info_hash, Status::Seeding).await;
        let with_data = round % 2 == 0;
        let remove = async {
            tokio::time::sleep(Duration::from_millis(round / 2 * 2)).await;
            seed.act(info_hash, Action::Remove { with_data }).await
        };
        let rename = rename_path(&seed, info_hash, "data", "new/data");
        let (_, removed) = tokio::join!(rename, remove);
        removed.unwrap();
        let expected = if with_data { Vec::new() } else { whole };
        let begun = Instant::now();
        while lengths(&folder) != expected {
            let found = lengths(&folder);
            assert!(begun.elapsed() < PATIENCE, "round {round}: {found:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    seed.stop().await;
}

/// A move and a rename at once: one is refused, or waits for the other.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_renamed_and_moved_at_once_stays_whole() {
    let one = TempDir::new().unwrap();
    let data = data(one.path());
    let whole = lengths(&data);
    let copy = TempDir::new().unwrap();
    for name in ["a", "b/c", "b/d"] {
        let path = copy.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(data.join(name), path).unwrap();
    }
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    for round in 0..10_u64 {
        let to = one.path().join(format!("place{round}"));
        let (old, new) = (root(&seed, info_hash).await, format!("name{round}"));
        let rename = async {
            tokio::time::sleep(Duration::from_millis(round % 3)).await;
            rename_path(&seed, info_hash, &old, &new).await
        };
        let (moved, renamed) = tokio::join!(try_move(&seed, info_hash, &to, false), rename);
        for refused in [moved, renamed].into_iter().filter_map(Result::err) {
            assert!(matches!(refused, CommandError::Conflict(_)), "{refused}");
        }
        seed.until_status(info_hash, Status::Seeding).await;
    }
    seed.stop().await;
    // A move that was acknowledged last may go on.
    let seed = Host::start(0, one.path()).await;
    seed.until_status(info_hash, Status::Seeding).await;
    is_served(&seed, info_hash, copy.path()).await;
    let folder = seed.torrent(info_hash).unwrap().summary.save_path;
    let there = folder.join(root(&seed, info_hash).await);
    assert_same(copy.path(), &there);
    seed.stop().await;
    assert_eq!(lengths(&there), whole);
    assert!(!data.exists());
}

/// On one thread: both commands wait before the first is taken, and a rename takes several events.
#[tokio::test]
async fn a_torrent_is_not_moved_before_its_rename_has_ended() {
    let one = TempDir::new().unwrap();
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    let to = one.path().join("to");
    let (renamed, moved) = tokio::join!(
        rename_path(&seed, info_hash, "data", "new"),
        try_move(&seed, info_hash, &to, false)
    );
    renamed.unwrap();
    assert!(matches!(moved, Err(CommandError::Conflict(_))), "{moved:?}");
    assert!(one.path().join("new/a").exists() && !to.exists());
    try_move(&seed, info_hash, &to, false).await.unwrap();
    seed.until(info_hash, |torrent| {
        torrent.summary.save_path == to && torrent.live.status == Status::Seeding
    })
    .await;
    assert!(to.join("new/a").exists() && !one.path().join("new").exists());
    seed.stop().await;
}

/// The first folder of the torrent's paths.
async fn root(host: &Host, info_hash: InfoHashV1) -> String {
    let paths = paths(host, info_hash).await;
    paths[0].split('/').next().unwrap().to_owned()
}

/// What the store says that is to be gone on with.
pub(super) fn intents(folder: &Path) -> Vec<InfoHashV1> {
    let store = Store::open(&folder.join("state"), Options::default()).unwrap();
    let read = |view: &state::View| {
        let mut intents = view.intents(state::Intent::Move, None, 10_000)?;
        intents.extend(view.intents(state::Intent::Rename, None, 10_000)?);
        Ok(intents)
    };
    let intents = store.handle().read_blocking(read).unwrap();
    store.close();
    intents.into_iter().map(|(torrent, _)| torrent).collect()
}

/// Whether the store says that the files are below `new`.
fn paths_kept(folder: &Path, info_hash: InfoHashV1) -> bool {
    let store = Store::open(&folder.join("state"), Options::default()).unwrap();
    let details = store
        .handle()
        .read_blocking(|view| view.details(&info_hash))
        .unwrap();
    store.close();
    details
        .renames
        .get(&0)
        .is_some_and(|path| path.starts_with("new"))
}

/// A file that can have no more names, as on file systems that know no second ones: it is served by
/// nobody for that moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_can_have_no_second_name_is_renamed_too() {
    let one = TempDir::new().unwrap();
    let data = data(one.path());
    // ext4 has 65,000 names for a file at most.
    let names = one.path().join("names");
    fs::create_dir(&names).unwrap();
    let more = |number: u32| fs::hard_link(data.join("b/d"), names.join(number.to_string()));
    if (0..66_000).all(|number| more(number).is_ok()) {
        return eprintln!("SKIP: a file may have any number of names on this file system");
    }
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    rename_path(&seed, info_hash, "data", "new/data")
        .await
        .unwrap();
    let new = one.path().join("new/data");
    assert!(!data.exists() && new.join("a").exists());
    let expected = ["new/data/a", "new/data/b/c", "new/data/b/d"];
    assert_eq!(paths(&seed, info_hash).await, expected);
    seed.until_status(info_hash, Status::Seeding).await;
    is_served(&seed, info_hash, &new).await;
    // One that is in the way is not written over by that either.
    fs::write(one.path().join("other"), b"another's").unwrap();
    let (index, to) = (2, "other".into());
    let refused = rename(&seed, info_hash, Rename::File { index, to }).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("there already"), "{refused}");
    seed.stop().await;
}
