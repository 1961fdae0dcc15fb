//! For tests: a manager that does nothing by itself. A test gives it what comes, one after another,
//! so that it can say what happens between a write and its acknowledgement.

use crate::declaring::Declared;
use crate::manager::{Inner, Manager, Services, Settings};
use control::announce::AnnounceConfig;
use control::catalog::{Status, Torrent};
use control::command::{self, CommandError, Server};
use control::create::{CreateOptions, CreateProgress};
use control::hashing::PageCache;
use control::library::Library;
use control::state::State;
use proto::ids::{InfoHashV1, PeerId};
use seedring_io::buffers::Registration;
use seedring_io::fetch::{Allocation, FetchConfig, PastCache};
use seedring_io::plane::{Plane, PlaneConfig, RateLimits, SendPath, SleepPolicy};
use seedring_io::roster::WakeLimits;
use seedring_io::sockets::SocketOptions;
use seedring_io::torrent::SeededTorrent;
use seedring_metrics::Registry;
use state::{Failure, NewTorrent, Options, Store, Summary, Write, WriteError};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// See the file.
pub(crate) struct Idle {
    pub manager: Manager,
    pub store: Store,
    pub server: Server,
    events: mpsc::UnboundedReceiver<Inner>,
}

impl Idle {
    pub(crate) fn new(folder: &Path) -> Idle {
        let registry = Registry::new(1);
        let config = plane_config();
        let peer_id = config.peer_id;
        let (plane, _) = Plane::start(config, &registry).unwrap();
        let store = Store::open(&folder.join("state"), Options::default()).unwrap();
        let services = Services {
            plane: Arc::new(plane),
            tracker: None,
            own_tracker: None,
            announcer: None,
            lsd: None,
            dht: None,
            disk: &PageCache,
            cells: registry.control(),
            hooks: None,
            peer_id,
            peer_port: 9,
        };
        let (server, seat) = command::pair();
        let ends = (server.clone(), seat);
        let (mut manager, _) = Manager::new(settings(folder), services, ends, store.handle());
        manager.is_loaded = true;
        manager.sharing.settle(Vec::new());
        Idle {
            events: manager.take_events().unwrap(),
            manager,
            store,
            server,
        }
    }

    /// A torrent that is kept, with this summary and all of its pieces.
    pub(crate) async fn keep(&self, summary: Summary, status: Status) -> InfoHashV1 {
        let info_hash = InfoHashV1([1; 20]);
        let new = NewTorrent {
            summary: summary.clone(),
            ..NewTorrent::default()
        };
        let write = Write::Add(info_hash, Box::new(new));
        self.store.handle().write(write).await.unwrap();
        let mut torrent = Torrent {
            info_hash,
            pieces_verified: summary.pieces,
            summary,
            totals: Default::default(),
            live: Default::default(),
        };
        torrent.live.status = status;
        self.manager.seat.change(|catalog| catalog.add(torrent));
        info_hash
    }

    /// What comes next.
    pub(crate) async fn next(&mut self) -> Inner {
        let next = tokio::time::timeout(PATIENCE, self.events.recv());
        next.await.unwrap().unwrap()
    }

    /// Has the manager take what comes next.
    pub(crate) async fn step(&mut self) {
        let event = self.next().await;
        self.manager.inner(event).await;
    }

    /// Has the manager end.
    pub(crate) async fn stop(&mut self) {
        self.manager.stop(&mut self.events).await;
    }

    /// What was answered, while the manager takes what comes.
    pub(crate) async fn answer<R>(
        &mut self,
        mut answer: oneshot::Receiver<Result<R, CommandError>>,
    ) -> Result<R, CommandError> {
        loop {
            match answer.try_recv() {
                Ok(answer) => return answer,
                Err(oneshot::error::TryRecvError::Empty) => self.step().await,
                Err(error) => panic!("nobody answers: {error}"),
            }
        }
    }
}

/// A torrent of a file in `folder` as others serve it.
pub(crate) fn declared(folder: &Path, name: &str) -> Declared {
    let state = folder.join("library");
    let library = Library {
        state: &State::open(&state).unwrap(),
        always_hash: true,
        cells: &Registry::new(1).control(),
        disk: &PageCache,
    };
    let path = folder.join(name);
    let mut go_on = |_: &CreateProgress<'_>| ControlFlow::Continue(());
    let ready = library.of_path(&path, &CreateOptions::default(), &mut go_on);
    let ready = ready.unwrap();
    let (stamps, paths) = (ready.stamps.clone(), ready.paths.clone());
    let metainfo = Arc::clone(&ready.metainfo);
    let torrent = SeededTorrent::new(metainfo, &ready.data_dir, stamps, paths).unwrap();
    Declared {
        torrent: Arc::new(torrent),
        ready,
    }
}

/// A state disk that is full.
pub(crate) fn full() -> WriteError {
    WriteError::Failed(Arc::new(Failure {
        path: "state".into(),
        text: "no space".into(),
        disk_full: true,
    }))
}

fn settings(folder: &Path) -> Settings {
    Settings {
        keeps: true,
        save_path: folder.join("downloads"),
        roots: Default::default(),
        category_paths: Default::default(),
        sleep: SleepPolicy {
            awake_max: 10,
            idle_min: PATIENCE,
        },
        downloads_max: 4,
        stalled_after: PATIENCE,
        enough: Default::default(),
        partial_suffix: ".part".into(),
        allocation: Allocation::Sparse,
        past_cache: PastCache::Never,
        always_hash: false,
        web: AnnounceConfig::default(),
        limits: Default::default(),
    }
}

fn plane_config() -> PlaneConfig {
    PlaneConfig {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        shards: 1,
        pin: false,
        sockets: SocketOptions {
            backlog: 16,
            congestion_control: String::new(),
            interface: None,
        },
        connections_max: 16,
        connections_per_stranger_max: 0,
        handshakes_max: 16,
        handshake_timeout: Duration::from_secs(10),
        buffer_bytes: 1 << 20,
        batch_bytes: 256 << 10,
        cache_bytes: 1 << 20,
        mapped_bytes: 0,
        registration: Registration::Auto,
        send_path: SendPath::Auto,
        pipes_per_shard: 4,
        open_files_max: 16,
        session: Default::default(),
        choker: Default::default(),
        upload_slots: 0,
        rates: RateLimits::default(),
        peer_id: PeerId(*b"-SR0100-testtesttest"),
        fetch: FetchConfig {
            buffer_bytes: 4 << 20,
            hash_threads: 1,
            ..FetchConfig::default()
        },
        waking: WakeLimits::default(),
        call_leechers: true,
        ip_filter: Arc::default(),
    }
}
