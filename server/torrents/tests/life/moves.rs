//! Data that are moved: served meanwhile, whatever crash comes between, and never believed or taken
//! away by mistake.

use super::*;

/// Has a torrent be sent at so many bytes a second; as the server is if none.
async fn limit_upload(host: &Host, info_hash: InfoHashV1, rate: Option<u64>) {
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
    let there = Move {
        save_path: to.to_owned(),
        data_are_there: false,
    };
    let there = |reply| Command::Move(info_hash, there, reply);
    seed.server.ask(there).await.unwrap();
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
    use std::os::unix::fs::MetadataExt;
    let other = fs::metadata(one.path().join("other")).unwrap().ino();
    assert_eq!(
        fs::metadata(to.join("data/a")).unwrap().ino(),
        other,
        "no byte was copied"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn data_are_moved_to_another_file_system_while_they_are_served() {
    use std::os::unix::fs::MetadataExt;
    let one = TempDir::new().unwrap();
    let device = |path: &Path| fs::metadata(path).unwrap().dev();
    let Ok(other) = TempDir::new_in("/dev/shm") else {
        return eprintln!("SKIP: there is no /dev/shm to move to");
    };
    if device(one.path()) == device(other.path()) {
        return eprintln!("SKIP: /dev/shm is on the file system of temporary files");
    }
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

/// That a torrent is to be moved, as it is kept.
fn intent(info_hash: InfoHashV1, from: &Path, to: &Path) -> state::Write {
    let from = from.canonicalize().unwrap();
    let bytes = |path: &Path| path.as_os_str().as_encoded_bytes().to_vec();
    let value = [bytes(to), bytes(&from)].join(&0);
    state::Write::Setting(format!("move-{info_hash}"), Some(value))
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
        .write_blocking(intent(info_hash, one.path(), &to))
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
        let intent = intent(info_hash, one.path(), &to);
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
