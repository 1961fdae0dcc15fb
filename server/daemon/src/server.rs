//! The running server: starts the layers in order, gets torrents ready, tells what happens, stops in order.
//!
//! Order of start: configuration → io_uring tried → limits → state → API up → ports of peers and tracker →
//! torrents one by one → ready. Nothing is hashed before everything that can be refused has been accepted.

use crate::budget::Budget;
use crate::failure::Failure;
use crate::settings;
use crate::telling::{Announcement, Teller};
use crate::torrents::{Services, Torrents};
use anyhow::{Context, anyhow};
use control::announce::{AnnounceHandle, Announcer, Identity};
use control::config::{Config, Environment};
use control::create::CreateOptions;
use control::exporter::{BuildInfo, Exporter};
use control::http::{self, Readiness};
use control::library::{Library, Ready};
use control::state::State;
use control::tracker::{Tracker, TrackerHandle};
use proto::metainfo::with_trackers;
use seedring_io::plane::{self, Event, Plane, StartError};
use seedring_io::{refusal, system};
use seedring_metrics::{ControlCells, ControlGauge, Registry};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

/// Threads of the control plane.
const CONTROL_THREADS: usize = 2;

/// How long the shards may take to close their connections when stopping.
const PLANE_STOP: Duration = Duration::from_secs(4);

/// How often the live line and the gauges are renewed.
const LINE_PERIOD: Duration = Duration::from_secs(1);

/// What a condition of readiness is called.
const TORRENTS_LOADED: &str = "the torrents to be loaded";

/// A torrent to be served.
pub enum Source {
    /// What is at this path; its torrent is made if it is not known.
    Path(PathBuf, CreateOptions),
    /// This `.torrent` file, with its data in this folder.
    Torrent(PathBuf, PathBuf),
}

/// What to run.
pub struct Plan {
    pub config: Config,
    pub state_dir: PathBuf,
    pub sources: Vec<Source>,
    /// Whether one torrent that cannot be served ends the server (`seed`) or is only told (`serve`).
    pub all_or_nothing: bool,
    pub json: bool,
}

/// Runs the server until it is told to stop.
///
/// # Errors
///
/// What kept it from starting; after that it ends well or by [`Event::ShardLost`].
pub fn run(plan: Plan) -> Result<(), Failure> {
    let registry = Arc::new(Registry::new(plane::shard_count(usize::from(
        plan.config.shards.count,
    ))));
    let environment = Environment::of_process();
    let _log = control::logging::init(&plan.config.log, &environment, &registry.control())
        .map_err(|error| Failure::Usage(error.into()))?;
    refusal::check().map_err(|error| Failure::RingRefused(error.into()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the threads of the control plane")?;
    let result = runtime.block_on(serve(plan, registry));
    // A hashing thread may still be at work; it has been told to stop, and nothing waits for it.
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}

/// The parts of a running server, and how each is told to stop.
struct Running {
    plane: Arc<Plane>,
    events: mpsc::UnboundedReceiver<Event>,
    announcer: Option<AnnounceHandle>,
    readiness: Arc<Readiness>,
    stop: watch::Sender<bool>,
    tracker: Option<TrackerHandle>,
    registry: Arc<Registry>,
    stop_timeout: Duration,
}

async fn serve(plan: Plan, registry: Arc<Registry>) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let limit = system::raise_descriptor_limit().context("cannot read the descriptor limit")?;
    let budget = Budget::plan(&plan.config, registry.shards() as u64, limit);
    let state = Arc::new(State::open(&plan.state_dir).map_err(anyhow::Error::from)?);
    let (running, announcement) = start(&plan, &registry, &budget).await?;
    let own_tracker = announcement.tracker.clone();
    let services = Services {
        plane: Arc::clone(&running.plane),
        tracker: running.tracker.clone(),
        own_tracker: own_tracker.clone(),
        announcer: running.announcer.clone(),
        state: Arc::clone(&state),
        cells: registry.control(),
        peer_id: announcement.peer_id,
        peer_port: announcement.peer_port,
    };
    let (mut torrents, mut looks) = Torrents::new(services);
    let mut teller = Teller::new(plan.json);
    teller.starting(&budget);
    let loaded = tokio::select! {
        loaded = load(&plan, &state, own_tracker, &mut torrents) => loaded,
        () = signals.wait() => {
            running.stop().await;
            return Ok(());
        }
    };
    if let Err(failure) = loaded {
        running.stop().await;
        return Err(failure);
    }
    running.readiness.met(TORRENTS_LOADED);
    teller.ready(&announcement, &budget, torrents.iter());
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let mut running = running;
    let ended = watch_over(
        &mut running,
        &mut torrents,
        &mut looks,
        &mut signals,
        &mut teller,
    )
    .await;
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    teller.stopping();
    running.stop().await;
    ended
}

/// Opens the ports and starts what runs beside the data plane.
async fn start(
    plan: &Plan,
    registry: &Arc<Registry>,
    budget: &Budget,
) -> Result<(Running, Announcement), Failure> {
    let config = &plan.config;
    let cells = registry.control();
    let build = BuildInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: option_env!("SEEDRING_COMMIT")
            .unwrap_or("unknown")
            .to_owned(),
    };
    let exporter =
        Exporter::new(Arc::clone(registry), &build).context("cannot start the metrics")?;
    let readiness = Arc::new(Readiness::new([TORRENTS_LOADED], Arc::clone(&cells)));
    let (stop, stopped) = watch::channel(false);
    let service = http::Service {
        exporter: Arc::new(exporter),
        status: Arc::clone(&readiness) as _,
        cells: Arc::clone(&cells),
    };
    let listener = http::listen(&config.api)
        .await
        .map_err(anyhow::Error::from)?;
    let api = listener.as_ref().map(|listener| listener.address);
    if let Some(listener) = listener {
        tokio::spawn(http::serve(listener, service, when(stopped.clone())));
    }
    let (tracker, tracker_port) = start_tracker(config, &cells, stopped)?;
    let peer_id = settings::peer_id().context("no random bytes")?;
    let (plane, events) = Plane::start(settings::plane(config, budget, peer_id), registry)
        .map_err(|error| match error {
            StartError::Refused(refusal) => Failure::RingRefused(refusal.into()),
            other => Failure::Failed(other.into()),
        })?;
    let peer_port = plane.addresses().first().map_or(0, SocketAddr::port);
    let announcer = if config.announce.enabled {
        let key = settings::announce_key().context("no random bytes")?;
        let identity = Identity {
            peer_id,
            key,
            port: peer_port,
        };
        let announcer = Announcer::start(&settings::announce(config), identity, Arc::clone(&cells));
        Some(announcer.context("cannot start the announces")?)
    } else {
        None
    };
    cells.set(ControlGauge::Shards, plane.shards() as u64);
    cells.set(ControlGauge::ConnectionsMax, budget.connections_max);
    cells.set(ControlGauge::UploadRateLimit, config.limits.upload_rate.0);
    let host = match config.tracker.announce_host.as_str() {
        "" => settings::own_address().to_string(),
        host => host.to_owned(),
    };
    let announcement = Announcement {
        peer_id,
        peer_port,
        api,
        tracker: tracker_port.map(|port| tracker_url(&host, port)),
    };
    let running = Running {
        plane: Arc::new(plane),
        events,
        announcer,
        readiness,
        stop,
        tracker,
        registry: Arc::clone(registry),
        stop_timeout: config.announce.stop_timeout_s.duration(),
    };
    Ok((running, announcement))
}

fn start_tracker(
    config: &Config,
    cells: &Arc<ControlCells>,
    stopped: watch::Receiver<bool>,
) -> Result<(Option<TrackerHandle>, Option<u16>), Failure> {
    if !config.tracker.enabled {
        return Ok((None, None));
    }
    let tracker = Tracker::bind(&settings::tracker(config), Arc::clone(cells))
        .map_err(anyhow::Error::from)?;
    let port = tracker.addresses().first().map(SocketAddr::port);
    let handle = tracker.handle();
    tokio::spawn(tracker.run(when(stopped)));
    Ok((Some(handle), port))
}

/// The announce URL of our own tracker.
fn tracker_url(host: &str, port: u16) -> String {
    match host.parse() {
        Ok(std::net::IpAddr::V6(v6)) => format!("http://[{v6}]:{port}/announce"),
        _ => format!("http://{host}:{port}/announce"),
    }
}

/// Ready when the server stops.
async fn when(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// Gets every source ready and serves it.
async fn load(
    plan: &Plan,
    state: &Arc<State>,
    own_tracker: Option<String>,
    torrents: &mut Torrents,
) -> Result<(), Failure> {
    let mut failed = 0;
    for (loaded, source) in plan.sources.iter().enumerate() {
        torrents.progress(plan.sources.len() - loaded, failed);
        let outcome = load_one(plan, state, own_tracker.as_deref(), source, torrents).await;
        match outcome {
            Ok(()) => {}
            Err(error) if plan.all_or_nothing => return Err(Failure::Failed(error)),
            Err(error) => {
                failed += 1;
                tracing::error!("a torrent is not served: {error:#}");
            }
        }
    }
    torrents.progress(0, failed);
    Ok(())
}

async fn load_one(
    plan: &Plan,
    state: &Arc<State>,
    own_tracker: Option<&str>,
    source: &Source,
    torrents: &mut Torrents,
) -> anyhow::Result<()> {
    let mut ready = get_ready(plan, state, torrents.cells(), own_tracker, source).await?;
    for skip in &ready.skips.shown {
        tracing::warn!("left out {:?}: {}", skip.path, skip.reason);
    }
    let file = match source {
        Source::Path(..) => write_torrent(&plan.state_dir, &ready)?,
        Source::Torrent(file, _) => file.clone(),
    };
    if let (Source::Torrent(..), Some(own)) = (source, own_tracker) {
        // Of a torrent that others made, only the magnet link that we print names our tracker.
        let mut tiers = ready.metainfo.trackers.clone();
        tiers.push(vec![own.to_owned()]);
        let mut metainfo = (*ready.metainfo).clone();
        metainfo.trackers = tiers;
        ready.metainfo = Arc::new(metainfo);
    }
    torrents.add(ready, file).await?;
    Ok(())
}

/// Makes, verifies or remembers a torrent on a thread for blocking work; stops when this future is dropped.
async fn get_ready(
    plan: &Plan,
    state: &Arc<State>,
    cells: Arc<ControlCells>,
    own_tracker: Option<&str>,
    source: &Source,
) -> anyhow::Result<Ready> {
    /// Tells the hashing to stop.
    struct Abandon(Arc<AtomicBool>);
    impl Drop for Abandon {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let abandoned = Arc::new(AtomicBool::new(false));
    let _abandon = Abandon(Arc::clone(&abandoned));
    let (state, json) = (Arc::clone(state), plan.json);
    let always_hash = settings::always_hash(&plan.config);
    let mut work = match source {
        Source::Path(path, options) => {
            let mut options = options.clone();
            // Our own tracker comes first; the operator's are tiers of their own behind it.
            if let Some(own) = own_tracker {
                options.trackers.insert(0, vec![own.to_owned()]);
            }
            Work::Path(path.clone(), options)
        }
        Source::Torrent(file, data) => Work::Torrent(file.clone(), data.clone()),
    };
    let task = tokio::task::spawn_blocking(move || {
        let library = Library {
            state: &state,
            always_hash,
            cells: &cells,
        };
        let mut reporter = crate::progress::Reporter::new("hashing", json);
        let mut progress = |step: &control::create::CreateProgress<'_>| {
            match step {
                control::create::CreateProgress::Walking { files } => reporter.walking(*files),
                control::create::CreateProgress::Hashing(done) => reporter.hashing(done),
            }
            if abandoned.load(Ordering::Relaxed) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let ready = match &mut work {
            Work::Path(path, options) => library.of_path(path, options, &mut progress),
            Work::Torrent(file, data) => library.of_torrent(file, data, &mut progress),
        };
        reporter.finish();
        ready
    });
    Ok(task
        .await
        .map_err(|error| anyhow!("hashing ended early: {error}"))??)
}

/// A source with everything that a thread needs to get it ready.
enum Work {
    Path(PathBuf, CreateOptions),
    Torrent(PathBuf, PathBuf),
}

/// Writes the `.torrent` file of a torrent that we made into the state directory.
fn write_torrent(state_dir: &Path, ready: &Ready) -> anyhow::Result<PathBuf> {
    let folder = state_dir.join("torrents");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {folder:?}"))?;
    let hash = ready.info_hash.to_string();
    let name: String = ready.metainfo.name.chars().take(60).collect();
    let file = folder.join(format!("{name}-{}.torrent", &hash[..8]));
    let bytes = with_trackers(&ready.torrent, &ready.metainfo.trackers)?;
    let fresh = folder.join(format!(".{hash}.tmp"));
    std::fs::write(&fresh, bytes)
        .and_then(|()| std::fs::rename(&fresh, &file))
        .with_context(|| format!("cannot write {file:?}"))?;
    Ok(file)
}

/// Serves until a signal or a lost shard.
async fn watch_over(
    running: &mut Running,
    torrents: &mut Torrents,
    looks: &mut mpsc::UnboundedReceiver<crate::torrents::Look>,
    signals: &mut Signals,
    teller: &mut Teller,
) -> Result<(), Failure> {
    let mut ticks = tokio::time::interval(LINE_PERIOD);
    loop {
        tokio::select! {
            () = signals.wait() => return Ok(()),
            event = running.events.recv() => match event {
                Some(Event::TorrentFault(fault)) => {
                    if torrents.fault(fault.clone()).await {
                        teller.fault(&fault);
                    }
                }
                Some(Event::ShardLost(shard)) => {
                    return Err(anyhow!("shard {shard} has ended, which is a bug; see the log").into());
                }
                None => return Err(anyhow!("all shards have ended, which is a bug").into()),
            },
            Some(look) = looks.recv() => {
                let info_hash = look.info_hash();
                if torrents.looked(look).await {
                    teller.recovered(info_hash);
                }
            }
            _ = ticks.tick() => {
                if let Some(tracker) = &running.tracker {
                    let (known, peers) = tracker.sizes();
                    let cells = running.registry.control();
                    cells.set(ControlGauge::TrackerTorrents, known as u64);
                    cells.set(ControlGauge::TrackerPeers, peers as u64);
                }
                teller.line(&running.registry);
            }
        }
    }
}

impl Running {
    /// Stops everything: not ready any more, trackers told and connections closed side by side.
    async fn stop(self) {
        self.readiness.stopping();
        let announces = async {
            if let Some(announcer) = &self.announcer {
                announcer.shutdown(self.stop_timeout).await;
            }
        };
        let ((), closed) = tokio::join!(announces, self.plane.stop(PLANE_STOP));
        if !closed {
            tracing::warn!("a shard did not end in time; an operation on a disk may hang");
        }
        let _ = self.stop.send(true);
    }
}

/// The signals that end the server. A second one ends the process at once.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        tokio::spawn(async {
            if let Ok(mut again) = signal(SignalKind::interrupt()) {
                again.recv().await;
                eprintln!("seedring: stopped at once");
                std::process::exit(1);
            }
        });
    }
}
