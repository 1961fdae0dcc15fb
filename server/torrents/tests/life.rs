//! Torrents from being added to being removed, on real data planes over loopback, with real files
//! and a real store. Waits end when what they wait for is there; their limit only ends a failed
//! test.

#![allow(clippy::unwrap_used, clippy::panic)]

use control::announce::{AnnounceConfig, AnnounceHandle};
use control::catalog::{Status, Torrent};
use control::command::{
    self, Action, AddSource, AddTorrent, Command, CommandError, Edit, Move, Server,
};
use control::hashing::{Disk, PageCache};
use control::hooks::{Hook, Hooks};
use engine::picker::Priority;
use proto::ids::{InfoHashV1, PeerId};
use proto::magnet::Magnet;
use seedring_io::buffers::Registration;
use seedring_io::fetch::{Allocation, FetchConfig, PastCache};
use seedring_io::plane::{Event, Plane, PlaneConfig, RateLimits, SendPath, SleepPolicy};
use seedring_io::roster::WakeLimits;
use seedring_io::sockets::SocketOptions;
use seedring_metrics::{ControlCells, Registry};
use state::{Options, Place, Store};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use torrents::{LimitRules, Manager, ManagerHandle, Services, Settings};

#[path = "life/burials.rs"]
mod burials;
#[path = "life/completing.rs"]
mod completing;
#[path = "life/declared.rs"]
mod declared;
#[path = "life/doubts.rs"]
mod doubts;
#[path = "life/edges.rs"]
mod edges;
#[path = "life/failing_moves.rs"]
mod failing_moves;
#[path = "life/kept_apart.rs"]
mod kept_apart;
#[path = "life/limits.rs"]
mod limits;
#[path = "life/many_moves.rs"]
mod many_moves;
#[path = "life/moves.rs"]
mod moves;
#[path = "life/overtaken.rs"]
mod overtaken;
#[path = "life/renames.rs"]
mod renames;
#[path = "life/renames_edges.rs"]
mod renames_edges;
#[path = "life/roots.rs"]
mod roots;
#[path = "life/sharing.rs"]
mod sharing;
#[path = "life/super_seeding.rs"]
mod super_seeding;
#[path = "life/turns.rs"]
mod turns;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

fn plane_config(number: u8) -> PlaneConfig {
    let mut peer_id = *b"-SR0100-testtesttest";
    peer_id[19] = b'a' + number;
    PlaneConfig {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        shards: 2,
        pin: false,
        sockets: SocketOptions {
            backlog: 16,
            congestion_control: String::new(),
            interface: None,
        },
        connections_max: 64,
        connections_per_stranger_max: 0,
        handshakes_max: 16,
        handshake_timeout: Duration::from_secs(10),
        buffer_bytes: 4 << 20,
        batch_bytes: 256 << 10,
        cache_bytes: 4 << 20,
        mapped_bytes: 0,
        registration: Registration::Auto,
        send_path: SendPath::Auto,
        pipes_per_shard: 4,
        open_files_max: 64,
        session: Default::default(),
        choker: Default::default(),
        upload_slots: 0,
        rates: RateLimits::default(),
        peer_id: PeerId(peer_id),
        fetch: FetchConfig {
            buffer_bytes: 16 << 20,
            hash_threads: 1,
            sync_period: Duration::from_secs(1),
            ..FetchConfig::default()
        },
        waking: WakeLimits::default(),
        call_leechers: true,
        ip_filter: Arc::default(),
    }
}

/// A server without its ports for people.
struct Host {
    server: Server,
    manager: ManagerHandle,
    plane: Arc<Plane>,
    store: Store,
    cells: Arc<ControlCells>,
    folder: PathBuf,
}

impl Host {
    async fn start(number: u8, folder: &Path) -> Host {
        Host::start_with(number, folder, |_| {}).await
    }

    async fn start_with(number: u8, folder: &Path, set: impl FnOnce(&mut Settings)) -> Host {
        Host::start_on(number, folder, &PageCache, set).await
    }

    /// One whose hashing reads by `disk`.
    async fn start_on(
        number: u8,
        folder: &Path,
        disk: &'static dyn Disk,
        set: impl FnOnce(&mut Settings),
    ) -> Host {
        Host::start_whole(number, folder, disk, set, |_| None, Vec::new()).await
    }

    /// One that asks trackers.
    async fn start_asking(
        number: u8,
        folder: &Path,
        announcer: fn(&Registry) -> AnnounceHandle,
    ) -> Host {
        let asking = |registry: &Registry| Some(announcer(registry));
        Host::start_whole(number, folder, &PageCache, |_| {}, asking, Vec::new()).await
    }

    /// One that tells these.
    async fn start_telling(number: u8, folder: &Path, hooks: Vec<Hook>) -> Host {
        Host::start_whole(number, folder, &PageCache, |_| {}, |_| None, hooks).await
    }

    async fn start_whole(
        number: u8,
        folder: &Path,
        disk: &'static dyn Disk,
        set: impl FnOnce(&mut Settings),
        announcer: impl FnOnce(&Registry) -> Option<AnnounceHandle>,
        hooks: Vec<Hook>,
    ) -> Host {
        let registry = Registry::new(2);
        let config = plane_config(number);
        let peer_id = config.peer_id;
        let (plane, mut events) = Plane::start(config, &registry).unwrap();
        let plane = Arc::new(plane);
        let store = Store::open(&folder.join("state"), Options::default()).unwrap();
        let hooks = Hooks::start(hooks, &[], store.handle(), registry.control()).await;
        let services = Services {
            plane: Arc::clone(&plane),
            tracker: None,
            own_tracker: None,
            announcer: announcer(&registry),
            lsd: None,
            dht: None,
            disk,
            cells: registry.control(),
            hooks: Some(hooks.unwrap()),
            peer_id,
            peer_port: plane.addresses()[0].port(),
        };
        let mut settings = Settings {
            keeps: true,
            save_path: folder.join("downloads"),
            category_paths: [("films".to_owned(), folder.join("films"))].into(),
            roots: Default::default(),
            sleep: SleepPolicy {
                awake_max: 100,
                idle_min: Duration::from_secs(300),
            },
            downloads_max: 4,
            stalled_after: Duration::from_secs(300),
            enough: Default::default(),
            partial_suffix: ".part".into(),
            allocation: Allocation::Sparse,
            past_cache: PastCache::Never,
            always_hash: false,
            web: AnnounceConfig::default(),
            limits: LimitRules::default(),
        };
        set(&mut settings);
        let (server, seat) = command::pair();
        let ends = (server.clone(), seat);
        let (mut manager, handle) = Manager::new(settings, services, ends, store.handle());
        manager.load().await.unwrap();
        tokio::spawn(manager.run());
        // Nobody else serves anything.
        handle.settle(Vec::new());
        let teller = handle.clone();
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                match event {
                    Event::TorrentFault(fault) => teller.fault(fault),
                    Event::Wanted(wanted) => teller.wanted(wanted),
                    _ => {}
                }
            }
        });
        Host {
            server,
            manager: handle,
            plane,
            store,
            cells: registry.control(),
            folder: folder.to_owned(),
        }
    }

    async fn stop(self) {
        self.manager.stop().await;
        self.plane.stop(Duration::from_secs(10)).await;
        self.store.close();
    }

    fn address(&self) -> SocketAddr {
        self.plane.addresses()[0]
    }

    async fn add(&self, add: AddTorrent) -> InfoHashV1 {
        let added = self.server.ask(|reply| Command::Add(Box::new(add), reply));
        added.await.unwrap().info_hash
    }

    async fn act(&self, info_hash: InfoHashV1, action: Action) -> Result<(), CommandError> {
        let act = |reply| Command::Act(info_hash, action, reply);
        self.server.ask(act).await
    }

    async fn metainfo(&self, info_hash: InfoHashV1) -> Vec<u8> {
        let metainfo = |reply| Command::Metainfo(info_hash, reply);
        self.server.ask(metainfo).await.unwrap()
    }

    fn torrent(&self, info_hash: InfoHashV1) -> Option<Torrent> {
        self.server.catalog().get(&info_hash).cloned()
    }

    /// Waits until the torrent is as `wanted` says.
    async fn until(&self, info_hash: InfoHashV1, wanted: impl Fn(&Torrent) -> bool) -> Torrent {
        let begun = Instant::now();
        loop {
            let torrent = self.torrent(info_hash);
            if let Some(torrent) = torrent.clone().filter(|torrent| wanted(torrent)) {
                return torrent;
            }
            assert!(begun.elapsed() < PATIENCE, "it is still {torrent:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn until_status(&self, info_hash: InfoHashV1, status: Status) -> Torrent {
        let is = |torrent: &Torrent| torrent.live.status == status;
        self.until(info_hash, is).await
    }
}

/// A folder with a torrent's worth of files, some of which share pieces.
fn data(folder: &Path) -> PathBuf {
    let data = folder.join("data");
    fs::create_dir_all(data.join("b")).unwrap();
    let bytes = |length: usize, seed: usize| -> Vec<u8> {
        (0..length)
            .map(|at| (at * 31 + at / 251 + seed) as u8)
            .collect()
    };
    fs::write(data.join("a"), bytes(700_000, 1)).unwrap();
    fs::write(data.join("b/c"), bytes(90_001, 2)).unwrap();
    fs::write(data.join("b/d"), bytes(300, 3)).unwrap();
    data
}

fn assert_same(one: &Path, other: &Path) {
    for name in ["a", "b/c", "b/d"] {
        let (one, other) = (fs::read(one.join(name)), fs::read(other.join(name)));
        assert!(one.unwrap() == other.unwrap(), "{name} differs");
    }
}

/// A torrent made of `data` on `host`.
async fn made(host: &Host, data: &Path) -> InfoHashV1 {
    let add = AddTorrent::new(AddSource::Path(data.to_owned()));
    let info_hash = host.add(add).await;
    host.until_status(info_hash, Status::Seeding).await;
    info_hash
}

fn of_file(metainfo: Vec<u8>, peer: SocketAddr) -> AddTorrent {
    AddTorrent {
        peers: vec![peer],
        ..AddTorrent::new(AddSource::Metainfo(metainfo))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torrent_goes_from_one_to_the_next_and_is_there_after_a_restart() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    assert_eq!(
        (seed.plane.awake_count(), seed.plane.dormant_count()),
        (0, 1)
    );
    let metainfo = seed.metainfo(info_hash).await;

    let host = Host::start(1, two.path()).await;
    let added = host.add(of_file(metainfo.clone(), seed.address())).await;
    assert_eq!(added, info_hash);
    let torrent = host.until_status(info_hash, Status::Seeding).await;
    assert!(torrent.is_complete());
    let is_kept = |torrent: &Torrent| torrent.summary.completed_at_s.is_some();
    host.until(info_hash, is_kept).await;
    assert_same(&data, &two.path().join("downloads/data"));
    // Who asked for it has woken it.
    assert_eq!(
        (seed.plane.awake_count(), seed.plane.dormant_count()),
        (1, 0)
    );
    let sent = seed.until(info_hash, |torrent| {
        torrent.totals.uploaded_bytes >= 790_301
    });
    sent.await;
    host.until(info_hash, |torrent| {
        torrent.totals.downloaded_bytes >= 790_301
    })
    .await;
    host.stop().await;

    // A third fetches it of the second, which has been started anew and hashes nothing.
    let host = Host::start(1, two.path()).await;
    assert!(host.server.catalog().totals().downloaded_bytes >= 790_301);
    assert_eq!(host.server.catalog().session(), (0, 0));
    let torrent = host.torrent(info_hash).unwrap();
    assert_eq!(torrent.live.status, Status::Seeding);
    assert!(torrent.totals.downloaded_bytes >= 790_301);
    seed.stop().await;
    let three = TempDir::new().unwrap();
    let third = Host::start(2, three.path()).await;
    third.add(of_file(metainfo, host.address())).await;
    third.until_status(info_hash, Status::Seeding).await;
    assert_same(&data, &three.path().join("downloads/data"));
    // What a server has sent and received stays when a torrent is removed.
    let remove = Action::Remove { with_data: false };
    third.act(info_hash, remove).await.unwrap();
    assert!(third.server.catalog().totals().downloaded_bytes >= 790_301);
    third.stop().await;
    let third = Host::start(2, three.path()).await;
    assert!(third.server.catalog().is_empty());
    assert!(third.server.catalog().totals().downloaded_bytes >= 790_301);
    third.stop().await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_becomes_a_torrent_and_selects_files() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    let host = Host::start(1, two.path()).await;
    let link = format!("magnet:?xt=urn:btih:{info_hash}&dn=other&so=1-2");
    let magnet = Box::new(Magnet::parse(&link).unwrap());
    let add = AddTorrent {
        peers: vec![seed.address()],
        ..AddTorrent::new(AddSource::Magnet(magnet))
    };
    host.add(add).await;
    let torrent = host.until_status(info_hash, Status::Seeding).await;
    assert_eq!(
        torrent.summary.name, "data",
        "its own name in place of the link's"
    );
    assert!(!torrent.is_complete(), "the first file is not wanted");
    let files = host.server.ask(|reply| Command::Files(info_hash, reply));
    let files = files.await.unwrap();
    assert_eq!(files[0].priority, Priority::SKIP);
    assert_eq!(files[1].bytes_verified, 90_001);
    let there = two.path().join("downloads/data/b");
    assert_eq!(
        fs::read(there.join("c")).unwrap(),
        fs::read(data.join("b/c")).unwrap()
    );
    // The rest is wanted after all.
    let edit = Edit {
        priorities: vec![(0, Priority::NORMAL)],
        ..Edit::default()
    };
    let edit = host
        .server
        .ask(|reply| Command::Edit(info_hash, Box::new(edit), reply));
    edit.await.unwrap();
    // When it says so its files have their own names; it was shown as seeding before.
    host.until(info_hash, |torrent| {
        torrent.summary.completed_at_s.is_some()
    })
    .await;
    assert_same(&data, &two.path().join("downloads/data"));
    host.stop().await;
    seed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_torrents_stay_so_and_go_on_when_they_are_resumed() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    let metainfo = seed.metainfo(info_hash).await;
    seed.act(info_hash, Action::Pause).await.unwrap();
    seed.until_status(info_hash, Status::Paused).await;
    assert_eq!(
        (seed.plane.awake_count(), seed.plane.dormant_count()),
        (0, 0)
    );
    seed.stop().await;
    let seed = Host::start(0, one.path()).await;
    let torrent = seed.torrent(info_hash).unwrap();
    assert_eq!(torrent.live.status, Status::Paused);
    seed.act(info_hash, Action::Resume).await.unwrap();
    seed.until_status(info_hash, Status::Seeding).await;

    let host = Host::start(1, two.path()).await;
    let add = AddTorrent {
        paused: true,
        ..of_file(metainfo, seed.address())
    };
    host.add(add.clone()).await;
    host.until_status(info_hash, Status::Paused).await;
    assert!(!two.path().join("downloads/data").exists());
    // Adding it again is no error, and changes nothing.
    let again = host.server.ask(|reply| Command::Add(Box::new(add), reply));
    assert!(again.await.unwrap().was_there);
    host.act(info_hash, Action::Resume).await.unwrap();
    host.until_status(info_hash, Status::Seeding).await;
    host.stop().await;
    seed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torrent_is_removed_with_its_data_or_without() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    let metainfo = seed.metainfo(info_hash).await;
    let host = Host::start(1, two.path()).await;
    for with_data in [false, true] {
        host.add(of_file(metainfo.clone(), seed.address())).await;
        host.until_status(info_hash, Status::Seeding).await;
        let remove = Action::Remove { with_data };
        host.act(info_hash, remove).await.unwrap();
        assert_eq!(host.torrent(info_hash), None);
        let folder = two.path().join("downloads/data");
        assert!(with_data || folder.exists());
        let begun = Instant::now();
        while with_data && folder.exists() {
            assert!(begun.elapsed() < PATIENCE, "its files are not deleted");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert!(two.path().join("downloads").exists());
    let gone = host.act(info_hash, Action::Pause).await;
    assert_eq!(gone, Err(CommandError::Unknown(info_hash)));
    // One that is being downloaded, by nobody, goes too.
    let lonely = of_file(metainfo, "127.0.0.1:9".parse().unwrap());
    host.add(lonely).await;
    host.until_status(info_hash, Status::Downloading).await;
    let remove = Action::Remove { with_data: true };
    host.act(info_hash, remove).await.unwrap();
    assert_eq!(host.torrent(info_hash), None);
    host.stop().await;
    let host = Host::start(1, two.path()).await;
    assert_eq!(host.torrent(info_hash), None);
    host.stop().await;
    seed.stop().await;
}

/// A mount that goes and comes back costs no hashing and no progress.
#[tokio::test(flavor = "multi_thread")]
async fn data_that_are_away_are_offline_and_come_back() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    let metainfo = seed.metainfo(info_hash).await;
    let away = one.path().join("away");
    fs::rename(&data, &away).unwrap();
    let host = Host::start(1, two.path()).await;
    host.add(of_file(metainfo, seed.address())).await;
    let torrent = seed.until_status(info_hash, Status::Offline).await;
    assert!(torrent.is_complete(), "what was verified stays so");
    assert!(torrent.summary.last_error.unwrap().text.contains("missing"));
    // A check does not make nothing of it either.
    seed.act(info_hash, Action::Recheck).await.unwrap();
    let torrent = seed
        .until(info_hash, |torrent| {
            let error = torrent.summary.last_error.as_ref();
            torrent.live.status == Status::Offline
                && error.is_some_and(|error| error.text.contains("none of their files"))
        })
        .await;
    assert!(torrent.is_complete());
    fs::rename(&away, &data).unwrap();
    seed.until_status(info_hash, Status::Seeding).await;
    let address = seed.address();
    let add = |reply| Command::AddPeers(info_hash, vec![address], reply);
    host.server.ask(add).await.unwrap();
    host.until_status(info_hash, Status::Seeding).await;
    host.stop().await;
    seed.stop().await;
}

/// Never a byte that was not hashed: seed mode means that it is hashed when a peer comes.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_to_be_complete_is_hashed_before_it_is_served() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    let metainfo = seed.metainfo(info_hash).await;
    let keep = Action::Remove { with_data: false };
    seed.act(info_hash, keep).await.unwrap();
    let trusting = AddTorrent {
        seed_mode: true,
        save_path: Some(one.path().to_owned()),
        ..AddTorrent::new(AddSource::Metainfo(metainfo.clone()))
    };
    seed.add(trusting).await;
    let torrent = seed.until_status(info_hash, Status::Seeding).await;
    assert_eq!(torrent.pieces_verified, 0);
    // One byte is wrong.
    let mut bytes = fs::read(data.join("a")).unwrap();
    bytes[5] ^= 1;
    fs::write(data.join("a"), &bytes).unwrap();
    let host = Host::start(1, two.path()).await;
    host.add(of_file(metainfo, seed.address())).await;
    let torrent = seed
        .until(info_hash, |torrent| {
            torrent.pieces_verified > 0 && !torrent.summary.seed_mode
        })
        .await;
    assert_eq!(torrent.pieces_verified + 1, torrent.summary.pieces);
    seed.until_status(info_hash, Status::Downloading).await;
    host.stop().await;
    seed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_wait_for_their_turn_in_the_order_of_the_queue() {
    let one = TempDir::new().unwrap();
    let host = Host::start_with(0, one.path(), |settings| settings.downloads_max = 1).await;
    let mut hashes = Vec::new();
    for number in 0..3u8 {
        let link = format!(
            "magnet:?xt=urn:btih:{}",
            "0123456789abcdef012345678901234567890abc".replace('a', &format!("{number}"))
        );
        let magnet = Box::new(Magnet::parse(&link).unwrap());
        hashes.push(host.add(AddTorrent::new(AddSource::Magnet(magnet))).await);
    }
    host.until_status(hashes[0], Status::Metadata).await;
    host.until_status(hashes[1], Status::Queued).await;
    host.until_status(hashes[2], Status::Queued).await;
    let first = Action::Queue(Place::Before(hashes[1]));
    host.act(hashes[2], first).await.unwrap();
    let remove = Action::Remove { with_data: false };
    host.act(hashes[0], remove).await.unwrap();
    host.until_status(hashes[2], Status::Metadata).await;
    assert_eq!(host.torrent(hashes[1]).unwrap().live.status, Status::Queued);
    host.stop().await;
    // The order is kept.
    let host = Host::start_with(0, one.path(), |settings| settings.downloads_max = 1).await;
    host.until_status(hashes[2], Status::Metadata).await;
    assert_eq!(host.torrent(hashes[1]).unwrap().live.status, Status::Queued);
    let described = host.server.ask(|reply| Command::Describe(hashes[1], reply));
    assert_eq!(described.await.unwrap().queue_position, Some(1));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_and_changes_nothing() {
    let one = TempDir::new().unwrap();
    let data = data(one.path());
    let host = Host::start(0, one.path()).await;
    let relative = AddTorrent {
        save_path: Some("down/loads".into()),
        ..AddTorrent::new(AddSource::Metainfo(b"d4:infode".to_vec()))
    };
    let dots = AddTorrent::new(AddSource::Path(data.join("../x")));
    let junk = AddTorrent::new(AddSource::Metainfo(b"junk".to_vec()));
    for (add, field) in [(relative, "save_path"), (dots, "path"), (junk, "metainfo")] {
        let refused = host.server.ask(|reply| Command::Add(Box::new(add), reply));
        match refused.await {
            Err(CommandError::Invalid { field: named, .. }) => assert_eq!(named, field),
            other => panic!("{other:?}"),
        }
    }
    // Nobody listens there any more. That it is the web's fault is told: a watch folder gives up
    // what the web does not give, and waits for a disk.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/a.torrent", listener.local_addr().unwrap());
    drop(listener);
    let add = Box::new(AddTorrent::new(AddSource::Url(url)));
    let refused = host.server.ask(|reply| Command::Add(add, reply)).await;
    assert!(
        matches!(refused, Err(CommandError::Fetch(_))),
        "{refused:?}"
    );
    assert!(host.server.catalog().is_empty());
    let info_hash = made(&host, &data).await;
    let edit = Edit {
        priorities: vec![(9, Priority::NORMAL)],
        labels: Some(vec!["x".into()]),
        ..Edit::default()
    };
    let edit = host
        .server
        .ask(|reply| Command::Edit(info_hash, Box::new(edit), reply));
    assert!(matches!(
        edit.await,
        Err(CommandError::Invalid { field: "files", .. })
    ));
    assert!(host.torrent(info_hash).unwrap().summary.labels.is_empty());
    let to = Move {
        save_path: "x".into(),
        data_are_there: true,
    };
    let moved = host.server.ask(|reply| Command::Move(info_hash, to, reply));
    assert!(matches!(moved.await, Err(CommandError::Invalid { .. })));
    assert!(host.folder.join("state").is_dir());
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torrent_that_has_given_enough_is_paused_or_removed() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    let metainfo = seed.metainfo(info_hash).await;
    let limit = |limits: command::LimitsEdit| Edit {
        limits,
        ..Edit::default()
    };
    let ratio = limit(command::LimitsEdit {
        ratio_permille: Some(Some(900)),
        ..Default::default()
    });
    let edit = |reply| Command::Edit(info_hash, Box::new(ratio), reply);
    seed.server.ask(edit).await.unwrap();
    let host = Host::start(1, two.path()).await;
    host.add(of_file(metainfo.clone(), seed.address())).await;
    host.until_status(info_hash, Status::Seeding).await;
    let torrent = seed.until_status(info_hash, Status::Paused).await;
    assert!(torrent.summary.paused && torrent.ratio_permille() >= 900);
    let why = torrent.summary.last_error.unwrap().text;
    assert!(why.contains("has given what its limits say"), "{why}");
    // Who resumes it means that it is to go on: another one gets all of it, in some seconds.
    let slow = limit(command::LimitsEdit {
        upload_rate: Some(Some(150_000)),
        ..Default::default()
    });
    let edit = |reply| Command::Edit(info_hash, Box::new(slow), reply);
    seed.server.ask(edit).await.unwrap();
    seed.act(info_hash, Action::Resume).await.unwrap();
    let torrent = seed.until_status(info_hash, Status::Seeding).await;
    assert_eq!(torrent.summary.last_error, None);
    let three = TempDir::new().unwrap();
    let third = Host::start(2, three.path()).await;
    third.add(of_file(metainfo.clone(), seed.address())).await;
    third.until_status(info_hash, Status::Seeding).await;
    third.stop().await;
    // A time that is over already.
    let time = limit(command::LimitsEdit {
        seeding_time_s: Some(Some(1)),
        at_limit: Some(Some(state::LimitAction::RemoveWithData)),
        ..Default::default()
    });
    let edit = |reply| Command::Edit(info_hash, Box::new(time), reply);
    host.server.ask(edit).await.unwrap();
    let begun = Instant::now();
    while host.torrent(info_hash).is_some() || two.path().join("downloads/data").exists() {
        assert!(begun.elapsed() < PATIENCE, "it is still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    host.stop().await;
    seed.stop().await;
}

/// What is served because it is named: the torrent of `data`.
fn named(
    info_hash: InfoHashV1,
    metainfo: &[u8],
    folder: &Path,
) -> (torrents::Declared, Arc<seedring_io::torrent::SeededTorrent>) {
    let parsed = Arc::new(proto::metainfo::Metainfo::parse(metainfo).unwrap());
    let stamp = |name: &str| {
        let found = fs::metadata(folder.join("data").join(name)).unwrap();
        Some(control::hashing::stamp_of(&found))
    };
    let ready = control::library::Ready {
        info_hash,
        metainfo: Arc::clone(&parsed),
        torrent: metainfo.to_vec(),
        data_dir: folder.to_owned(),
        stamps: ["a", "b/c", "b/d"].map(stamp).to_vec(),
        paths: Default::default(),
        proof: control::library::Proof::Hashed,
        skips: Default::default(),
    };
    let stamps = ready.stamps.clone();
    let torrent =
        seedring_io::torrent::SeededTorrent::new(parsed, folder, stamps, Default::default());
    let torrent = Arc::new(torrent.unwrap());
    let declared = torrents::Declared {
        ready,
        torrent: Arc::clone(&torrent),
    };
    (declared, torrent)
}

/// Knows no torrents.
struct Nobody;

impl seedring_io::plane::Keeper for Nobody {
    async fn load(&self, _: InfoHashV1) -> Option<Arc<seedring_io::torrent::SeededTorrent>> {
        None
    }

    fn retired(&self, _: seedring_io::plane::Retired) {}
}
