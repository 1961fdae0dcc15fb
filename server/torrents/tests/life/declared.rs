//! Torrents that the configuration or the command line names, beside those that are kept.

use super::*;

/// What the command line names is served however long nobody has asked for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_declared_torrent_does_not_fall_asleep() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    let metainfo = seed.metainfo(info_hash).await;
    seed.stop().await;
    let never = SleepPolicy {
        awake_max: 1,
        idle_min: Duration::ZERO,
    };
    let bare = one.path().join("bare");
    let seed = Host::start_with(0, &bare, |settings| settings.sleep = never).await;
    let (declared, torrent) = named(info_hash, &metainfo, one.path());
    seed.manager.declare(declared).await;
    torrent.keep_awake();
    seed.plane.add(&torrent).await;
    // Nobody has asked for it, and it is time.
    let hand = Nobody;
    assert_eq!(seed.plane.rest(&hand, never).await, 0);
    assert_eq!(seed.plane.awake_count(), 1);
    let paused = seed.act(info_hash, Action::Pause).await;
    assert!(matches!(paused, Err(CommandError::Conflict(_))));
    let host = Host::start(1, two.path()).await;
    host.add(of_file(metainfo, seed.address())).await;
    host.until_status(info_hash, Status::Seeding).await;
    host.stop().await;
    seed.stop().await;
}

/// What is named no more is gone; if it is kept, it is served as it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_torrent_that_is_named_no_more_goes_on_if_it_is_kept() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    let metainfo = seed.metainfo(info_hash).await;
    for keeps in [true, false] {
        if !keeps {
            seed.act(info_hash, Action::Remove { with_data: false })
                .await
                .unwrap();
        }
        let (declared, torrent) = named(info_hash, &metainfo, one.path());
        seed.manager.declare(declared).await;
        seed.plane.add(&torrent).await;
        assert!(seed.torrent(info_hash).unwrap().live.declared);
        seed.plane.remove(&torrent).await;
        seed.manager.undeclare(info_hash).await;
        let left = seed.torrent(info_hash);
        assert_eq!(left.is_some_and(|torrent| !torrent.live.declared), keeps);
        if keeps {
            let host = Host::start(1, two.path()).await;
            host.add(of_file(metainfo.clone(), seed.address())).await;
            host.until_status(info_hash, Status::Seeding).await;
            host.stop().await;
        }
    }
    let gone = seed.act(info_hash, Action::Pause).await;
    assert_eq!(gone, Err(CommandError::Unknown(info_hash)));
    seed.stop().await;
}
