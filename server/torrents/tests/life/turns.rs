//! Turns of downloads: nobody keeps one who gets nothing, or wants nothing more, and the order of
//! those that wait is the user's.

use super::*;

fn link(number: u8) -> AddTorrent {
    let hash = format!("{number:02x}").repeat(20);
    let link = format!("magnet:?xt=urn:btih:{hash}");
    AddTorrent::new(AddSource::Magnet(Box::new(Magnet::parse(&link).unwrap())))
}

async fn position(host: &Host, info_hash: InfoHashV1) -> Option<u64> {
    let described = host.server.ask(|reply| Command::Describe(info_hash, reply));
    described.await.unwrap().queue_position
}

/// Dead links at the front do not keep a download from its turn.
#[tokio::test(flavor = "multi_thread")]
async fn who_gets_nothing_does_not_keep_its_turn() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    let metainfo = seed.metainfo(info_hash).await;
    let host = Host::start_with(1, two.path(), |settings| {
        settings.downloads_max = 1;
        settings.stalled_after = Duration::from_secs(1);
    })
    .await;
    let dead = host.add(link(1)).await;
    host.until_status(dead, Status::Metadata).await;
    // Nobody has it either: a download of it gets nothing.
    let lonely = fs::read(one.path().join("data/b/d")).unwrap();
    fs::write(one.path().join("lonely"), lonely).unwrap();
    let lonely = AddTorrent::new(AddSource::Path(one.path().join("lonely")));
    let lonely = seed.add(lonely).await;
    let lonely_metainfo = seed.metainfo(lonely).await;
    host.add(AddTorrent::new(AddSource::Metainfo(lonely_metainfo)))
        .await;
    host.add(of_file(metainfo, seed.address())).await;
    host.until_status(info_hash, Status::Seeding).await;
    assert_same(&data, &two.path().join("downloads/data"));
    // The order that the user sees is what it was, and those that got nothing have turns again.
    assert_eq!(position(&host, dead).await, Some(0));
    assert_eq!(position(&host, lonely).await, Some(1));
    host.until_status(dead, Status::Metadata).await;
    host.until_status(lonely, Status::Downloading).await;
    host.until_status(dead, Status::Metadata).await;
    host.stop().await;
    seed.stop().await;
}

/// What has all that is wanted of it holds no turn, now and after a restart, and gives enough.
#[tokio::test(flavor = "multi_thread")]
async fn a_partial_seed_holds_no_turn_and_keeps_to_its_ratio() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    let metainfo = seed.metainfo(info_hash).await;
    let one_turn = |settings: &mut Settings| settings.downloads_max = 1;
    let host = Host::start_with(1, two.path(), one_turn).await;
    let partial = AddTorrent {
        priorities: vec![(0, Priority::SKIP)],
        ..of_file(metainfo.clone(), seed.address())
    };
    host.add(partial).await;
    host.until_status(info_hash, Status::Seeding).await;
    let dead = host.add(link(1)).await;
    host.until_status(dead, Status::Metadata).await;
    host.stop().await;
    let host = Host::start_with(1, two.path(), one_turn).await;
    host.until_status(info_hash, Status::Seeding).await;
    host.until_status(dead, Status::Metadata).await;
    assert!(!host.torrent(info_hash).unwrap().is_complete());
    // What another gets of it counts by what is there.
    let limits = command::LimitsEdit {
        ratio_permille: Some(Some(500)),
        ..Default::default()
    };
    let edit = Edit {
        limits,
        ..Edit::default()
    };
    let edit = |reply| Command::Edit(info_hash, Box::new(edit), reply);
    host.server.ask(edit).await.unwrap();
    seed.stop().await;
    let three = TempDir::new().unwrap();
    let third = Host::start(2, three.path()).await;
    third.add(of_file(metainfo, host.address())).await;
    let torrent = host.until_status(info_hash, Status::Paused).await;
    assert!(torrent.ratio_permille() < 500 && torrent.summary.paused);
    third.stop().await;
    host.stop().await;
}

/// A check does not change the order, nor does a restart change who comes first.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_keeps_the_place_and_what_has_none_comes_last() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    let metainfo = seed.metainfo(info_hash).await;
    seed.stop().await;
    let one_turn = |settings: &mut Settings| settings.downloads_max = 1;
    let host = Host::start_with(1, two.path(), one_turn).await;
    let first = host.add(link(1)).await;
    host.until_status(first, Status::Metadata).await;
    host.add(AddTorrent::new(AddSource::Metainfo(metainfo)))
        .await;
    let last = host.add(link(2)).await;
    host.until_status(info_hash, Status::Queued).await;
    host.act(info_hash, Action::Recheck).await.unwrap();
    host.until(info_hash, |torrent| {
        torrent.live.status == Status::Queued
            && torrent.summary.condition == state::Condition::Ready
    })
    .await;
    assert_eq!(position(&host, info_hash).await, Some(1));
    assert_eq!(position(&host, last).await, Some(2));
    // Out of the order it comes after all that are in it, at once and after a restart.
    host.act(info_hash, Action::Queue(Place::Out))
        .await
        .unwrap();
    let remove = Action::Remove { with_data: false };
    host.act(first, remove).await.unwrap();
    host.until_status(last, Status::Metadata).await;
    assert_eq!(host.torrent(info_hash).unwrap().live.status, Status::Queued);
    host.stop().await;
    let host = Host::start_with(1, two.path(), one_turn).await;
    host.until_status(last, Status::Metadata).await;
    assert_eq!(host.torrent(info_hash).unwrap().live.status, Status::Queued);
    host.stop().await;
}
