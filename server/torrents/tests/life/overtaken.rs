//! Moves that are overtaken by what the user wants meanwhile: another place, another torrent, a
//! download that goes on.

use super::moves::{Gate, elsewhere, limit_upload, move_to, try_move};
use super::*;

/// While a move waits, the user brings the data himself and says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_waits_is_given_up_when_the_data_are_said_to_be_there() {
    let one = TempDir::new().unwrap();
    let Some(other) = elsewhere() else { return };
    let (folders, gate) = (["1", "2"].map(|name| one.path().join(name)), Gate::new());
    let seed = Host::start_on(0, one.path(), gate, |_| {}).await;
    let [first, second] = folders.each_ref().map(|folder| data(folder));
    // Another torrent, whose move hangs.
    fs::write(first.join("b/d"), b"other").unwrap();
    let (one_hash, info_hash) = (made(&seed, &first).await, made(&seed, &second).await);
    let shut = gate.shut();
    move_to(&seed, one_hash, &other.path().join("1")).await;
    let to = other.path().join("2");
    move_to(&seed, info_hash, &to).await;
    // What is copied has the right lengths before it has the right bytes.
    fs::create_dir_all(to.join("data/b")).unwrap();
    for name in ["a", "b/c", "b/d"] {
        let length = fs::metadata(second.join(name)).unwrap().len();
        let file = fs::File::create(to.join("data").join(name)).unwrap();
        file.set_len(length).unwrap();
    }
    try_move(&seed, info_hash, &to, true).await.unwrap();
    drop(shut);
    seed.until(one_hash, |torrent| torrent.live.status == Status::Seeding)
        .await;
    // It is found out that they are not right.
    seed.until(info_hash, |torrent| torrent.pieces_verified == 0)
        .await;
    seed.stop().await;
    assert_eq!(fs::metadata(second.join("a")).unwrap().len(), 700_000);
    let seed = Host::start(0, one.path()).await;
    let torrent = seed.torrent(info_hash).unwrap();
    assert_eq!(torrent.summary.save_path, to);
    seed.stop().await;
    for name in ["a", "b/c", "b/d"] {
        assert!(second.join(name).exists(), "{name}");
    }
}

/// What is removed while it is moved is where it was, or gone; and it is another torrent when it is
/// added again.
#[tokio::test(flavor = "multi_thread")]
async fn a_torrent_that_is_removed_while_it_is_moved_is_not_moved() {
    for with_data in [false, true] {
        let one = TempDir::new().unwrap();
        let Some(other) = elsewhere() else { return };
        let gate = Gate::new();
        let data = data(one.path());
        let seed = Host::start_on(0, one.path(), gate, |_| {}).await;
        let info_hash = made(&seed, &data).await;
        let metainfo = seed.metainfo(info_hash).await;
        let shut = gate.shut();
        let to = other.path().join("to");
        move_to(&seed, info_hash, &to).await;
        // All is copied, and about to be hashed.
        let begun = Instant::now();
        let copy = format!("data/b/.{info_hash}-2.moving");
        while !to.join(&copy).exists() {
            assert!(begun.elapsed() < PATIENCE, "it is not copied");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        seed.act(info_hash, Action::Remove { with_data })
            .await
            .unwrap();
        let again = || AddTorrent {
            save_path: Some(one.path().join("new")),
            paused: true,
            ..AddTorrent::new(AddSource::Metainfo(metainfo.clone()))
        };
        let add = |reply| Command::Add(Box::new(again()), reply);
        let refused = seed.server.ask(add).await;
        assert!(
            matches!(refused, Err(CommandError::Conflict(_))),
            "{refused:?}"
        );
        drop(shut);
        let begun = Instant::now();
        let add = |reply| Command::Add(Box::new(again()), reply);
        while let Err(error) = seed.server.ask(add).await {
            assert!(begun.elapsed() < PATIENCE, "{error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let torrent = seed.torrent(info_hash).unwrap();
        assert_eq!(torrent.summary.save_path, one.path().join("new"));
        assert_eq!(torrent.summary.last_error, None);
        assert!(!to.join("data").exists(), "what was copied is nobody's");
        assert_eq!(data.join("a").exists(), !with_data);
        seed.stop().await;
    }
}

/// Its last pieces are on their way to the disk when it is stopped to be moved. And it is moved
/// again and again, while names of the moves before are still in use.
#[tokio::test(flavor = "multi_thread")]
async fn a_download_is_moved_and_goes_on() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    limit_upload(&seed, info_hash, Some(100_000)).await;
    let host = Host::start(1, two.path()).await;
    let metainfo = seed.metainfo(info_hash).await;
    host.add(of_file(metainfo, seed.address())).await;
    let places = ["1", "2", "3"].map(|name| two.path().join(name));
    let mut received = 0;
    for to in &places {
        host.until(info_hash, |torrent| {
            torrent.live.downloaded_session > received
        })
        .await;
        move_to(&host, info_hash, to).await;
        let torrent = host
            .until(info_hash, |torrent| {
                let is_there = torrent.summary.save_path == *to;
                let is_refused = torrent.summary.last_error.is_some();
                (is_there || is_refused) && torrent.live.status == Status::Downloading
            })
            .await;
        assert_eq!(torrent.summary.last_error, None);
        assert_eq!(torrent.summary.save_path, *to);
        let peers = |reply| Command::AddPeers(info_hash, vec![seed.address()], reply);
        host.server.ask(peers).await.unwrap();
        received = torrent.live.downloaded_session;
    }
    limit_upload(&seed, info_hash, None).await;
    host.until_status(info_hash, Status::Seeding).await;
    assert_same(&data, &places[2].join("data"));
    assert!(!places[0].join("data").exists() && !places[1].join("data").exists());
    host.stop().await;
    seed.stop().await;
}

/// A seed is moved back and forth while it is fetched: names that come and go are no fault.
#[tokio::test(flavor = "multi_thread")]
async fn a_seed_is_moved_again_before_the_names_of_the_last_move_are_out_of_use() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    limit_upload(&seed, info_hash, Some(20_000)).await;
    let host = Host::start(1, two.path()).await;
    let metainfo = seed.metainfo(info_hash).await;
    host.add(of_file(metainfo, seed.address())).await;
    host.until(info_hash, |torrent| torrent.live.downloaded_session > 0)
        .await;
    let home = one.path().canonicalize().unwrap();
    for to in [home.join("1"), home.join("2"), home.clone(), home.join("3")] {
        move_to(&seed, info_hash, &to).await;
        let torrent = seed
            .until(info_hash, |torrent| {
                torrent.summary.last_error.is_some()
                    || torrent.summary.save_path == to && torrent.live.status == Status::Seeding
            })
            .await;
        assert_eq!(torrent.summary.last_error, None);
    }
    limit_upload(&seed, info_hash, None).await;
    host.until_status(info_hash, Status::Seeding).await;
    assert_same(&home.join("3/data"), &two.path().join("downloads/data"));
    assert!(!data.exists());
    host.stop().await;
    seed.stop().await;
}
