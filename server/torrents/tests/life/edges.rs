//! What happens at the edges: trackers that are changed while a torrent is described, a removal just
//! before the end, a record that is damaged.

use super::*;
use control::announce::{Announcer, Identity};

const GOOD: &str = "http://127.0.0.1:9/announce";

fn announcer(registry: &Registry) -> AnnounceHandle {
    let identity = Identity {
        peer_id: PeerId(*b"-SR0100-testtesttest"),
        key: 1,
        port: 9,
    };
    Announcer::start(&AnnounceConfig::default(), identity, registry.control()).unwrap()
}

async fn trackers(host: &Host, info_hash: InfoHashV1) -> Vec<String> {
    let trackers = |reply| Command::Trackers(info_hash, reply);
    let trackers = host.server.ask(trackers).await.unwrap();
    trackers
        .into_iter()
        .map(|it| it.tracker.replace("/…", "/announce"))
        .collect()
}

async fn until_asked(host: &Host, info_hash: InfoHashV1, urls: &[&str]) {
    let begun = Instant::now();
    loop {
        let asked = trackers(host, info_hash).await;
        if asked == urls {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{asked:?} instead of {urls:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn set_trackers(host: &Host, info_hash: InfoHashV1, urls: &[&str]) {
    let tiers = urls.iter().map(|url| vec![(*url).to_owned()]).collect();
    let edit = Edit {
        trackers: Some(tiers),
        ..Edit::default()
    };
    let edit = |reply| Command::Edit(info_hash, Box::new(edit), reply);
    host.server.ask(edit).await.unwrap();
}

/// A link with dead trackers gets another one: that is asked, now and after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn trackers_of_a_link_can_be_changed_while_its_metadata_are_sought() {
    let one = TempDir::new().unwrap();
    let host = Host::start_asking(0, one.path(), announcer).await;
    let hash = "07".repeat(20);
    let dead = "http://127.0.0.1:8/announce";
    let link = format!("magnet:?xt=urn:btih:{hash}&tr={dead}");
    let magnet = Box::new(Magnet::parse(&link).unwrap());
    let info_hash = host.add(AddTorrent::new(AddSource::Magnet(magnet))).await;
    until_asked(&host, info_hash, &[dead]).await;
    // Who adds one is told those that it has.
    let described = host
        .server
        .ask(|reply| Command::Describe(info_hash, reply))
        .await;
    assert_eq!(described.unwrap().trackers, [[dead.to_owned()]]);
    set_trackers(&host, info_hash, &[dead, GOOD]).await;
    until_asked(&host, info_hash, &[dead, GOOD]).await;
    host.stop().await;
    let host = Host::start_asking(0, one.path(), announcer).await;
    until_asked(&host, info_hash, &[dead, GOOD]).await;
    // One that is paused is announced nowhere, whatever its trackers are.
    host.act(info_hash, Action::Pause).await.unwrap();
    host.until_status(info_hash, Status::Paused).await;
    // Who announces takes what it is told in its order, and not at once.
    until_asked(&host, info_hash, &[]).await;
    set_trackers(&host, info_hash, &[GOOD]).await;
    let magnet = format!("magnet:?xt=urn:btih:{}&tr={dead}", "08".repeat(20));
    let magnet = Box::new(Magnet::parse(&magnet).unwrap());
    let later = host.add(AddTorrent::new(AddSource::Magnet(magnet))).await;
    until_asked(&host, later, &[dead]).await;
    assert!(trackers(&host, info_hash).await.is_empty());
    let refused = host.act(info_hash, Action::Announce).await;
    assert!(matches!(refused, Err(CommandError::Conflict(_))));
    host.act(info_hash, Action::Resume).await.unwrap();
    until_asked(&host, info_hash, &[GOOD]).await;
    host.act(info_hash, Action::Announce).await.unwrap();
    host.stop().await;
}

/// Files of a download that was removed just before the end go, though it was still ending.
#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_is_removed_with_its_data_just_before_the_end_leaves_nothing() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    let metainfo = seed.metainfo(info_hash).await;
    let host = Host::start_with(1, two.path(), |settings| {
        settings.limits.labels = vec!["slow: download=1".parse().unwrap()];
    })
    .await;
    let add = AddTorrent {
        labels: vec!["slow".into()],
        ..of_file(metainfo, seed.address())
    };
    host.add(add).await;
    let some = |torrent: &Torrent| torrent.pieces_verified > 0;
    host.until(info_hash, some).await;
    assert!(two.path().join("downloads/data").exists());
    let remove = Action::Remove { with_data: true };
    host.act(info_hash, remove).await.unwrap();
    host.stop().await;
    assert!(!two.path().join("downloads/data").exists());
    seed.stop().await;
}

/// A torrent whose record is damaged is shown, and can be removed and added again.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_is_shown_and_can_be_removed_and_added_again() {
    let one = TempDir::new().unwrap();
    let data = data(one.path());
    let host = Host::start(0, one.path()).await;
    let info_hash = made(&host, &data).await;
    let metainfo = host.metainfo(info_hash).await;
    host.stop().await;
    let database = redb::Database::open(one.path().join("state").join(state::STORE_FILE)).unwrap();
    let transaction = database.begin_write().unwrap();
    let summaries: redb::TableDefinition<'_, &[u8], &[u8]> =
        redb::TableDefinition::new("summaries");
    let mut table = transaction.open_table(summaries).unwrap();
    table
        .insert(info_hash.0.as_slice(), b"junk".as_slice())
        .unwrap();
    drop(table);
    transaction.commit().unwrap();
    drop(database);
    let host = Host::start(0, one.path()).await;
    let torrent = host.until_status(info_hash, Status::Failed).await;
    let error = torrent.summary.last_error.unwrap().text;
    assert!(
        error.contains("damaged") && error.contains("add it again"),
        "{error}"
    );
    let add = AddTorrent {
        save_path: Some(one.path().to_owned()),
        ..AddTorrent::new(AddSource::Metainfo(metainfo))
    };
    let refused = host
        .server
        .ask(|reply| Command::Add(Box::new(add.clone()), reply))
        .await;
    assert!(
        matches!(refused, Err(CommandError::Conflict(_))),
        "{refused:?}"
    );
    let with_data = host
        .act(info_hash, Action::Remove { with_data: true })
        .await;
    assert!(with_data.is_err(), "which files they are is not known");
    let remove = Action::Remove { with_data: false };
    host.act(info_hash, remove).await.unwrap();
    host.add(add).await;
    let torrent = host.until_status(info_hash, Status::Seeding).await;
    assert!(torrent.is_complete());
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_of_a_category_come_into_its_folder_unless_another_is_named() {
    let folder = TempDir::new().unwrap();
    let host = Host::start(0, folder.path()).await;
    let named = folder.path().join("named");
    let cases = [
        (1, "films", None, "films"),
        (2, "tv", None, "downloads"),
        (3, "films", Some(named), "named"),
    ];
    for (number, category, save_path, due) in cases {
        let link = format!("magnet:?xt=urn:btih:{number:040}");
        let magnet = Box::new(Magnet::parse(&link).unwrap());
        let add = AddTorrent {
            category: Some(category.to_owned()),
            save_path,
            paused: true,
            ..AddTorrent::new(AddSource::Magnet(magnet))
        };
        let info_hash = host.add(add).await;
        let torrent = host.torrent(info_hash).unwrap();
        assert_eq!(torrent.summary.save_path, folder.path().join(due));
    }
    host.stop().await;
}
