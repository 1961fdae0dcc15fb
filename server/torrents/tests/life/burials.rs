//! Files of torrents that were removed with their data: what a stop or a crash has cut off, and what
//! was away.

use super::sharing::{other, remove, until_gone};
use super::*;
use state::{Intent, Write};
use std::time::{SystemTime, UNIX_EPOCH};

/// Removes a torrent from a store as a server does that is killed then; its files are to go.
fn removed(state: &Path, info_hash: InfoHashV1, folder: &Path, files: &[&str]) {
    let store = Store::open(state, Options::default()).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let folder = folder.to_str().unwrap();
    let head = format!("1\0{}\x001\0\0.part\x001\0{folder}\x000", now.as_secs());
    let kept = [&[head.as_str()], files].concat().join("\0").into_bytes();
    let writes = vec![
        Write::Remove(info_hash),
        Write::Intent(Intent::Delete, info_hash, Some(kept)),
    ];
    for write in writes {
        store.handle().write_blocking(write).unwrap();
    }
    store.close();
}

/// What is still to be deleted, as it is kept.
fn intents(state: &Path) -> usize {
    let store = Store::open(state, Options::default()).unwrap();
    let read = |view: &state::View| view.intents(Intent::Delete, None, 10);
    let intents = store.handle().read_blocking(read).unwrap().len();
    store.close();
    intents
}

const FILES: [&str; 3] = ["data/a", "data/b/c", "data/b/d"];

#[tokio::test(flavor = "multi_thread")]
async fn files_that_a_crash_has_left_are_deleted_by_the_next_start() {
    let one = TempDir::new().unwrap();
    let (data, state) = (data(one.path()), one.path().join("state"));
    let host = Host::start(0, one.path()).await;
    let first = made(&host, &data).await;
    host.stop().await;
    removed(&state, first, one.path(), &FILES);
    let host = Host::start(0, one.path()).await;
    until_gone(&data).await;
    host.stop().await;
    assert_eq!(intents(&state), 0, "it is done");
}

/// What another torrent has by then is left, and so is what was added again while the server was
/// down.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_a_crash_has_left_stay_if_they_are_somebodys_by_then() {
    let one = TempDir::new().unwrap();
    let (data, state) = (data(one.path()), one.path().join("state"));
    let host = Host::start(0, one.path()).await;
    let first = made(&host, &data).await;
    let (second, metainfo) = other(&data, &[data.join("b/d")]);
    let add = AddTorrent {
        save_path: Some(one.path().to_owned()),
        paused: true,
        ..AddTorrent::new(AddSource::Metainfo(metainfo.clone()))
    };
    host.add(add).await;
    host.stop().await;
    removed(&state, first, one.path(), &FILES);
    let host = Host::start(0, one.path()).await;
    until_gone(&data.join("b/d")).await;
    assert!(data.join("a").exists() && data.join("b/c").exists());
    host.stop().await;
    // This one is added by another program, such as an import.
    removed(&state, second, one.path(), &FILES[..2]);
    let store = Store::open(&state, Options::default()).unwrap();
    let new = state::NewTorrent {
        metainfo: Some(metainfo),
        ..state::NewTorrent::default()
    };
    let write = Write::Add(second, Box::new(new));
    store.handle().write_blocking(write).unwrap();
    store.close();
    let host = Host::start(0, one.path()).await;
    host.stop().await;
    assert_eq!(intents(&state), 0);
    assert!(data.join("a").exists() && data.join("b/c").exists());
}

/// A disk that is away when a torrent is removed with its data: they go when it is there again,
/// unless the torrent is added again before.
#[tokio::test(flavor = "multi_thread")]
async fn files_on_a_disk_that_is_away_are_deleted_when_it_is_back() {
    for is_added_again in [false, true] {
        let (one, disk) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let (mounted, away) = (disk.path().join("disk"), disk.path().join("away"));
        fs::create_dir(&mounted).unwrap();
        let (data, state) = (data(&mounted), one.path().join("state"));
        let host = Host::start(0, one.path()).await;
        let info_hash = made(&host, &data).await;
        let metainfo = host.metainfo(info_hash).await;
        fs::rename(&mounted, &away).unwrap();
        remove(&host, info_hash).await;
        if is_added_again {
            let add = AddTorrent {
                save_path: Some(mounted.clone()),
                paused: true,
                ..AddTorrent::new(AddSource::Metainfo(metainfo))
            };
            let begun = Instant::now();
            loop {
                let add = |reply| Command::Add(Box::new(add.clone()), reply);
                match host.server.ask(add).await {
                    Ok(added) => break assert!(!added.was_there),
                    // It is looked for its files just now.
                    Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        host.stop().await;
        assert_eq!(intents(&state), usize::from(!is_added_again));
        fs::rename(&away, &mounted).unwrap();
        let host = Host::start(0, one.path()).await;
        if !is_added_again {
            until_gone(&data).await;
        }
        host.stop().await;
        assert_eq!(intents(&state), 0);
        assert_eq!(data.join("b/c").exists(), is_added_again);
    }
}

/// More removals than files are deleted at a time, and a stop at once: nothing is left after the
/// next start.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_stop_has_left_of_many_removals_is_deleted_by_the_next_start() {
    let one = TempDir::new().unwrap();
    let mut host = Host::start(0, one.path()).await;
    let mut all = Vec::new();
    for number in 0..100 {
        let path = one.path().join(format!("file{number}"));
        fs::write(&path, vec![number; 20_000]).unwrap();
        all.push((made(&host, &path).await, path));
    }
    let remove = |info_hash| {
        let server = host.server.clone();
        let remove = Action::Remove { with_data: true };
        tokio::spawn(async move {
            let act = |reply| Command::Act(info_hash, remove, reply);
            server.ask(act).await
        })
    };
    let removals: Vec<_> = all
        .iter()
        .map(|(info_hash, _)| remove(*info_hash))
        .collect();
    let mut acknowledged = Vec::new();
    host = {
        tokio::time::sleep(Duration::from_millis(30)).await;
        host.stop().await;
        for (removal, (_, path)) in removals.into_iter().zip(&all) {
            if removal.await.unwrap().is_ok() {
                acknowledged.push(path);
            }
        }
        Host::start(0, one.path()).await
    };
    for path in acknowledged {
        until_gone(path).await;
    }
    for (info_hash, path) in &all {
        let is_kept = host.torrent(*info_hash).is_some();
        assert!(
            !is_kept || path.exists(),
            "{path:?} of a torrent that is there"
        );
    }
    host.stop().await;
}
