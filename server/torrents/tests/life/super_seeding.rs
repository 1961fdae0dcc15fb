//! Super-seeding (BEP 16): of a torrent that was added so, of one that was downloaded so, and by a
//! limit.

use super::moves::limit_upload;
use super::*;

async fn set(host: &Host, info_hash: InfoHashV1, on: bool) {
    let edit = Edit {
        super_seeding: Some(on),
        ..Edit::default()
    };
    let edit = |reply| Command::Edit(info_hash, Box::new(edit), reply);
    host.server.ask(edit).await.unwrap();
}

/// What it has sent, when it is known that all that was sent is counted.
async fn sent(host: &Host, info_hash: InfoHashV1, at_least: u64) -> u64 {
    let is_counted = |torrent: &Torrent| torrent.live.uploaded_session >= at_least;
    host.until(info_hash, is_counted)
        .await
        .live
        .uploaded_session
}

const LENGTH: u64 = 790_301;

#[tokio::test(flavor = "multi_thread")]
async fn two_that_know_each_other_get_little_more_than_a_copy() {
    let folders = [(); 3].map(|()| TempDir::new().unwrap());
    let data = data(folders[0].path());
    let seed = Host::start(0, folders[0].path()).await;
    let info_hash = made(&seed, &data).await;
    set(&seed, info_hash, true).await;
    limit_upload(&seed, info_hash, Some(20_000)).await;
    let metainfo = seed.metainfo(info_hash).await;
    let (one, two) = (
        Host::start(1, folders[1].path()).await,
        Host::start(2, folders[2].path()).await,
    );
    one.add(AddTorrent {
        super_seeding: true,
        ..of_file(metainfo.clone(), seed.address())
    })
    .await;
    two.add(AddTorrent {
        peers: vec![seed.address(), one.address()],
        ..AddTorrent::new(AddSource::Metainfo(metainfo.clone()))
    })
    .await;
    // Nobody is complete before they have met.
    for host in [&one, &two] {
        host.until(info_hash, |torrent| torrent.live.peers >= 2)
            .await;
    }
    limit_upload(&seed, info_hash, None).await;
    for host in [&one, &two] {
        host.until_status(info_hash, Status::Seeding).await;
        assert_same(&data, &host.folder.join("downloads/data"));
    }
    let copies = sent(&seed, info_hash, LENGTH).await as f64 / LENGTH as f64;
    println!("two were sent {copies:.2} copies");
    assert!(copies < 1.9, "{copies} copies");
    // One that was downloaded so super-seeds, too, for one who is alone.
    for host in [seed, two] {
        host.stop().await;
    }
    let three = TempDir::new().unwrap();
    let last = Host::start(3, three.path()).await;
    last.add(of_file(metainfo, one.address())).await;
    last.until_status(info_hash, Status::Seeding).await;
    assert_same(&data, &three.path().join("downloads/data"));
    last.stop().await;
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_has_given_enough_is_super_seeded() {
    let one = TempDir::new().unwrap();
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    let limits = command::LimitsEdit {
        seeding_time_s: Some(Some(1)),
        at_limit: Some(Some(state::LimitAction::SuperSeed)),
        ..Default::default()
    };
    let edit = Edit {
        limits,
        ..Edit::default()
    };
    let edit = |reply| Command::Edit(info_hash, Box::new(edit), reply);
    seed.server.ask(edit).await.unwrap();
    is_super_seeded(&seed, info_hash).await;
    assert_eq!(
        seed.torrent(info_hash).unwrap().live.status,
        Status::Seeding
    );
    seed.stop().await;
    let seed = Host::start(0, one.path()).await;
    is_super_seeded(&seed, info_hash).await;
    // Who ends it has it end, though what its limits say is given: for as long as that is looked
    // at some times.
    seed.until_status(info_hash, Status::Seeding).await;
    set(&seed, info_hash, false).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(!seed.torrent(info_hash).unwrap().summary.super_seeding);
    seed.stop().await;
}

async fn is_super_seeded(host: &Host, info_hash: InfoHashV1) {
    let is = |torrent: &Torrent| torrent.summary.super_seeding;
    host.until(info_hash, is).await;
}
