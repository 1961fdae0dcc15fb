//! Renames of torrents that are not as most are: of very many files, and of names that end as those
//! of files that are not complete.

use super::renames::{intents, paths, rename, rename_path};
use super::*;
use control::command::Rename;

/// So many files that their paths do not fit into a setting of the store (1 MiB).
const MANY: usize = 6_000;

#[tokio::test(flavor = "multi_thread")]
async fn the_folder_of_some_thousand_files_is_renamed() {
    // In memory: each file is looked at some ten times.
    let Ok(folder) = TempDir::new_in("/dev/shm") else {
        return eprintln!("SKIP: there is no /dev/shm");
    };
    let one = folder.path();
    let (old, new) = ("o".repeat(90), "n".repeat(90));
    fs::create_dir(one.join(&old)).unwrap();
    for number in 0..MANY {
        fs::write(one.join(&old).join(format!("{number:05}")), b"x").unwrap();
    }
    let seed = Host::start(0, one).await;
    let info_hash = made(&seed, &one.join(&old)).await;
    rename_path(&seed, info_hash, &old, &new).await.unwrap();
    assert_eq!(fs::read_dir(one.join(&new)).unwrap().count(), MANY);
    assert!(!one.join(&old).exists());
    let paths = paths(&seed, info_hash).await;
    assert!(paths.len() == MANY && paths.iter().all(|path| path.starts_with(&new)));
    seed.stop().await;
    assert_eq!(intents(one), []);
}

/// Of a torrent with `x` and `x.part` the second is there alone: it is not the first, which is not
/// complete.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_not_taken_for_another_that_is_not_complete() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let data = data(one.path());
    fs::rename(data.join("a"), data.join("x")).unwrap();
    fs::rename(data.join("b/c"), data.join("x.part")).unwrap();
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    let there = two.path().join("downloads/data");
    fs::create_dir_all(there.join("b")).unwrap();
    for name in ["x.part", "b/d"] {
        fs::copy(data.join(name), there.join(name)).unwrap();
    }
    let host = Host::start(1, two.path()).await;
    let metainfo = seed.metainfo(info_hash).await;
    host.add(of_file(metainfo, "127.0.0.1:9".parse().unwrap()))
        .await;
    let has_some = |torrent: &Torrent| {
        torrent.pieces_verified > 0 && torrent.live.status == Status::Downloading
    };
    host.until(info_hash, has_some).await;
    let all = paths(&host, info_hash).await;
    let index = |name: &str| all.iter().position(|path| path == name).unwrap() as u32;
    let (index, to) = (index("data/x"), PathBuf::from("data/y"));
    rename(&host, info_hash, Rename::File { index, to })
        .await
        .unwrap();
    assert!(there.join("x.part").exists() && !there.join("y").exists());
    rename_path(&host, info_hash, "data", "new").await.unwrap();
    let new = two.path().join("downloads/new");
    let same = fs::read(new.join("x.part")).unwrap() == fs::read(data.join("x.part")).unwrap();
    assert!(same && new.join("b/d").exists() && !there.exists());
    // What is still to come goes where it belongs.
    host.until(info_hash, has_some).await;
    let begun = Instant::now();
    let peers = vec![seed.address()];
    while host
        .server
        .ask(|reply| Command::AddPeers(info_hash, peers.clone(), reply))
        .await
        .is_err()
    {
        assert!(begun.elapsed() < PATIENCE, "it does not go on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    host.until_status(info_hash, Status::Seeding).await;
    for (name, now) in [("x", "y"), ("x.part", "x.part"), ("b/d", "b/d")] {
        let bytes = fs::read(data.join(name)).unwrap();
        assert!(bytes == fs::read(new.join(now)).unwrap(), "{name}");
    }
    host.stop().await;
    seed.stop().await;
}
