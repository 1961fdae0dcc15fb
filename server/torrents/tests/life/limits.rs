//! Limits of torrents and of the server, and what is told of peers meanwhile.

use super::*;
use control::command::{LimitsEdit, ServerLimits, ServerLimitsEdit};
use control::config::Moment;
use seedring_metrics::ControlGauge;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering::Relaxed;
use torrents::WallClock;

/// What a label says holds until something narrower says otherwise; meanwhile peers and who named
/// them are told.
#[tokio::test(flavor = "multi_thread")]
async fn limits_of_a_label_hold_and_give_way_to_the_torrents_own() {
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
    // More than the burst never comes.
    let some = |torrent: &Torrent| torrent.live.downloaded_session > 0;
    host.until(info_hash, some).await;
    let torrent = host.until(info_hash, |it| it.live.seeds == 1).await;
    assert!(torrent.live.downloaded_session <= 256 << 10);
    let told = |host: &Host| {
        let server = host.server.clone();
        async move {
            let peers = server.ask(|reply| Command::Peers(info_hash, reply));
            let peers = peers.await.unwrap();
            let described = server.ask(|reply| Command::Describe(info_hash, reply));
            let sources = described.await.unwrap().sources;
            let given = sources.iter().filter(|source| source.named > 0);
            let given = given.map(|source| (source.source, source.named, source.connected));
            (peers, given.collect::<Vec<_>>())
        }
    };
    let (peers, sources) = told(&host).await;
    assert_eq!(peers.len(), 1);
    assert_eq!(
        (peers[0].address, peers[0].source),
        (seed.address(), "given")
    );
    assert_eq!((peers[0].has_permille, peers[0].incoming), (1_000, false));
    assert!(peers[0].downloaded > 0 && peers[0].client.starts_with("Seedring"));
    assert_eq!(sources, [("given", 1, 1)]);
    let (peers, sources) = told(&seed).await;
    assert_eq!((peers.len(), peers[0].incoming), (1, true));
    assert!(peers[0].uploaded > 0);
    assert_eq!(sources, [("incoming", 1, 1)]);
    seed.until(info_hash, |torrent| torrent.live.peers == 1)
        .await;
    let edit = Edit {
        limits: LimitsEdit {
            download_rate: Some(Some(0)),
            ..LimitsEdit::default()
        },
        ..Edit::default()
    };
    let edit = |reply| Command::Edit(info_hash, Box::new(edit), reply);
    host.server.ask(edit).await.unwrap();
    host.until_status(info_hash, Status::Seeding).await;
    assert_same(&data, &two.path().join("downloads/data"));
    let unknown = InfoHashV1([9; 20]);
    let nobody = host.server.ask(|reply| Command::Peers(unknown, reply));
    assert_eq!(nobody.await, Err(CommandError::Unknown(unknown)));
    host.stop().await;
    seed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_the_server_are_kept_over_a_restart_before_the_configurations() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    let metainfo = seed.metainfo(info_hash).await;
    let configured = |settings: &mut Settings| {
        settings.limits.server = ServerLimits {
            upload_rate: Some(1 << 30),
            download_rate: Some(1 << 30),
        };
    };
    let host = Host::start_with(1, two.path(), configured).await;
    let limits = |upload_rate, download_rate| ServerLimits {
        upload_rate,
        download_rate,
    };
    let told = host.server.ask(Command::Limits).await;
    assert_eq!(told, Ok(limits(Some(1 << 30), Some(1 << 30))));
    let set = |limits| move |reply| Command::SetLimits(limits, reply);
    let as_set = limits(Some(1 << 30), Some(1));
    let change = |upload_rate, download_rate| ServerLimitsEdit {
        upload_rate,
        download_rate,
    };
    let told = host.server.ask(set(change(None, Some(Some(1))))).await;
    assert_eq!(told, Ok(as_set));
    host.stop().await;
    let host = Host::start_with(1, two.path(), configured).await;
    assert_eq!(host.server.ask(Command::Limits).await, Ok(as_set));
    host.add(of_file(metainfo, seed.address())).await;
    let torrent = host.until(info_hash, |it| it.live.seeds == 1).await;
    assert!(torrent.live.downloaded_session <= 256 << 10);
    // What is left to the configuration again is that of the configuration.
    let told = host.server.ask(set(change(None, Some(None)))).await;
    assert_eq!(told, Ok(limits(Some(1 << 30), Some(1 << 30))));
    let none = limits(Some(0), Some(0));
    let told = host.server.ask(set(change(Some(Some(0)), Some(Some(0)))));
    assert_eq!(told.await, Ok(none));
    host.until_status(info_hash, Status::Seeding).await;
    assert_same(&data, &two.path().join("downloads/data"));
    host.stop().await;
    seed.stop().await;
}

/// What is read again holds for what is under way, and changes nothing that was set.
#[tokio::test(flavor = "multi_thread")]
async fn settings_that_are_read_again_hold_at_once() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    let metainfo = seed.metainfo(info_hash).await;
    let mut settings = None;
    let host = Host::start_with(1, two.path(), |set| {
        set.limits.labels = vec!["slow: download=1".parse().unwrap()];
        set.downloads_max = 1;
        settings = Some(set.clone());
    })
    .await;
    let mut settings = settings.unwrap();
    let add = AddTorrent {
        labels: vec!["slow".into()],
        ..of_file(metainfo, seed.address())
    };
    host.add(add).await;
    host.until(info_hash, |it| it.live.downloaded_session > 0)
        .await;
    let magnet = |byte: u8| {
        let link = format!("magnet:?xt=urn:btih:{}", InfoHashV1([byte; 20]));
        let magnet = proto::magnet::Magnet::parse(&link).unwrap();
        AddTorrent::new(AddSource::Magnet(Box::new(magnet)))
    };
    let waits = host.add(magnet(7)).await;
    host.until_status(waits, Status::Queued).await;
    let set = ServerLimitsEdit {
        upload_rate: Some(Some(5 << 20)),
        download_rate: None,
    };
    let set = |reply| Command::SetLimits(set, reply);
    host.server.ask(set).await.unwrap();

    settings.downloads_max = 2;
    settings.limits.labels = Vec::new();
    settings.limits.server = ServerLimits {
        upload_rate: Some(1),
        download_rate: Some(1 << 30),
    };
    settings.save_path = two.path().join("elsewhere");
    settings.enough.seeding_time_s = 1;
    host.manager.reload(settings);
    host.until_status(waits, Status::Metadata).await;
    // It comes now, is seeded for as long as is said now, and no longer.
    let done = |torrent: &Torrent| torrent.is_complete() && torrent.live.status == Status::Paused;
    host.until(info_hash, done).await;
    let told = host.server.ask(Command::Limits).await;
    let expected = ServerLimits {
        upload_rate: Some(5 << 20),
        download_rate: Some(1 << 30),
    };
    assert_eq!(told, Ok(expected));
    let later = host.add(magnet(8)).await;
    let torrent = host.torrent(later).unwrap();
    assert_eq!(torrent.summary.save_path, two.path().join("elsewhere"));
    host.stop().await;
    seed.stop().await;
}

/// A label's time of seeding ends what gets it, before the category's and the server's.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_label_says_is_enough_ends_the_seeding_of_those_that_have_it() {
    let one = TempDir::new().unwrap();
    let data = data(one.path());
    let host = Host::start_with(0, one.path(), |set| {
        set.limits.labels = vec!["short: seeding_time=1s at_limit=remove".parse().unwrap()];
        set.limits.categories = vec!["kept: seeding_time=0".parse().unwrap()];
        set.enough.seeding_time_s = 1_000_000;
    })
    .await;
    let add = |category: Option<&str>| AddTorrent {
        category: category.map(str::to_owned),
        ..AddTorrent::new(AddSource::Path(data.clone()))
    };
    let info_hash = host.add(add(Some("kept"))).await;
    host.until_status(info_hash, Status::Seeding).await;
    let edit = Edit {
        labels: Some(vec!["short".to_owned()]),
        ..Edit::default()
    };
    let edit = |reply| Command::Edit(info_hash, Box::new(edit), reply);
    host.server.ask(edit).await.unwrap();
    let begun = Instant::now();
    while host.torrent(info_hash).is_some() {
        assert!(begun.elapsed() < PATIENCE, "it is still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(data.join("a").exists(), "its data stay");
    host.stop().await;
}

/// The minute of a Monday, for the one test that has it pass.
static MINUTE: AtomicU16 = AtomicU16::new(0);

#[tokio::test(flavor = "multi_thread")]
async fn the_schedule_holds_when_its_time_comes_and_no_longer() {
    let folder = TempDir::new().unwrap();
    let host = Host::start_with(0, folder.path(), |settings| {
        settings.limits.schedule = vec!["mon 08:00-09:00 upload=5MB/s".parse().unwrap()];
        settings.limits.clock = WallClock(|| {
            let minute = MINUTE.load(Relaxed);
            Some(Moment { day: 0, minute })
        });
    })
    .await;
    let rate = || host.cells.gauge(ControlGauge::UploadRateLimit);
    assert_eq!(rate(), 0);
    for (minute, due) in [(8 * 60, 5_000_000), (9 * 60, 0)] {
        MINUTE.store(minute, Relaxed);
        let until = Instant::now() + PATIENCE;
        while rate() != due {
            assert!(Instant::now() < until, "at minute {minute}: {}", rate());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    host.stop().await;
}
