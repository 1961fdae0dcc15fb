//! The running server: starts the layers in order, gets torrents ready, tells what happens, stops
//! in order.
//!
//! Order of start: configuration → io_uring tried → limits → state → API up → ports of peers and
//! tracker → torrents that are kept → those that are named, one by one → ready. Nothing is hashed before everything that can be refused
//! has been accepted; from then on the server serves what is ready and minds faults and signals
//! while it hashes the rest. `reloading` has it go by a configuration that has been read again.

use crate::automation::Automation;
use crate::budget::Budget;
use crate::control_plane::{self, PLANE_STOP};
use crate::dht;
use crate::disk::BACKGROUND;
use crate::failure::Failure;
use crate::keeping::{self, Reading};
use crate::loading::{Loaded, Loader, Loading, Refused, Source};
use crate::named::{Fate, Named};
use crate::reload::{Origin, Readings};
use crate::settings;
use crate::signals::{Reloads, Signals};
use crate::telling::{Announcement, Teller};
use crate::torrents::{Look, Services, Torrents};
use anyhow::{Context, anyhow};
use control::announce::AnnounceHandle;
use control::api::{Api, Facts};
use control::command::Server;
use control::config::Config;
use control::dht::DhtHandle;
use control::exporter::{BuildInfo, Exporter};
use control::http::{self, Readiness};
use control::logging::LogHandle;
use control::lsd::Lsd;
use control::state::State;
use control::tracker::{Tracker, TrackerHandle};
use seedring_io::plane::{Event, Plane};
use seedring_io::system;
use seedring_metrics::{ControlCells, ControlGauge, Registry};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use torrents::{Manager, ManagerHandle};

/// How often the live line and the gauges are renewed.
const LINE_PERIOD: Duration = Duration::from_secs(1);

/// What conditions of readiness are called.
const INTERFACE: &str = "the interface of peers.bind_interface";
/// See [`INTERFACE`].
const TORRENTS_LOADED: &str = "the torrents to be loaded";
/// See [`TORRENTS_LOADED`].
const TORRENTS_READ: &str = "the kept torrents to be read";

mod reloading;

use reloading::Renewable;

/// What to run.
pub struct Plan {
    /// The file that the command line names, if it does; it is read again when that is asked for.
    pub config_file: Option<PathBuf>,
    pub config: Config,
    pub state_dir: PathBuf,
    pub sources: Vec<Source>,
    /// Whether one torrent that cannot be served ends the server (`seed`) or is only told
    /// (`serve`).
    pub all_or_nothing: bool,
    /// Whether torrents that are added while it runs are kept (`serve`).
    pub keeps: bool,
    /// Whether stdout is a log (`serve`), where no tracker's passkey may stand.
    pub stdout_is_log: bool,
    pub json: bool,
}

/// Runs the server until it is told to stop.
///
/// # Errors
///
/// What kept it from starting; after that it ends well or by [`Event::ShardLost`].
pub fn run(plan: Plan) -> Result<(), Failure> {
    let config = plan.config.clone();
    control_plane::run(&config, None, |registry, log| serve(plan, registry, log))
}

/// The parts of a running server, and how each is told to stop.
struct Running {
    plane: Arc<Plane>,
    events: mpsc::UnboundedReceiver<Event>,
    announcer: Option<AnnounceHandle>,
    dht: Option<DhtHandle>,
    readiness: Arc<Readiness>,
    stop: watch::Sender<bool>,
    tracker: Option<TrackerHandle>,
    registry: Arc<Registry>,
    stop_timeout: Duration,
}

async fn serve(plan: Plan, registry: Arc<Registry>, log: LogHandle) -> Result<(), Failure> {
    // Whoever cannot wait for the trackers to be told has no clean end.
    let signals = Signals::new(1)?;
    let reloads = Reloads::new(plan.stdout_is_log)?;
    let limit = system::raise_descriptor_limit().context("cannot read the descriptor limit")?;
    let budget = Budget::plan(&plan.config, registry.shards() as u64, limit).with_store();
    if budget.descriptors_max > limit {
        return Err(Failure::Failed(anyhow!(
            "the limit on open descriptors is {limit}, and at least {} are needed; raise it \
             (ulimit -n, LimitNOFILE= in the systemd unit)",
            budget.descriptors_max
        )));
    }
    let state = Arc::new(State::open(&plan.state_dir).map_err(anyhow::Error::from)?);
    let store = keeping::open(&plan.state_dir, plan.keeps)?;
    let automation = Automation::start(&plan, store.handle(), registry.control()).await?;
    let (server, seat) = control::command::pair();
    let asked = plan.keeps.then(|| server.clone());
    let started = start(&plan, &registry, &budget, asked, log).await?;
    let (running, announcement, renewable) = started;
    let lsd = settings::lsd(&plan.config, announcement.peer_port)
        .map(|lsd| Lsd::start(&lsd, registry.control()));
    let kept = torrents::Services {
        plane: Arc::clone(&running.plane),
        tracker: running.tracker.clone(),
        own_tracker: announcement.tracker.clone(),
        announcer: running.announcer.clone(),
        lsd: lsd.clone(),
        dht: running.dht.clone(),
        disk: BACKGROUND,
        cells: registry.control(),
        hooks: automation.hooks(),
        peer_id: announcement.peer_id,
        peer_port: announcement.peer_port,
    };
    let settings = keeping::settings(&plan.config, plan.keeps, &plan.state_dir)?;
    let (manager, kept) = Manager::new(settings, kept, (server.clone(), seat), store.handle());
    let reading = keeping::run(manager);
    let services = Services {
        plane: Arc::clone(&running.plane),
        tracker: running.tracker.clone(),
        own_tracker: announcement.tracker.clone(),
        announcer: running.announcer.clone(),
        lsd,
        dht: running.dht.clone(),
        kept: kept.clone(),
        state: Arc::clone(&state),
        cells: registry.control(),
        peer_id: announcement.peer_id,
        peer_port: announcement.peer_port,
    };
    let (torrents, looks) = Torrents::new(services);
    let mut teller = Teller::new(plan.json, plan.stdout_is_log);
    teller.costs(&budget);
    // A supervisor need not wait for the hashing, which may take hours; /readyz does.
    notify(sd_notify::NotifyState::Ready);
    let state_dir = plan.state_dir.clone();
    let loader = Loader {
        state,
        state_dir: plan.state_dir,
        cells: registry.control(),
        own_tracker: announcement.tracker.clone(),
        always_hash: settings::always_hash(&plan.config),
        json: plan.json,
    };
    let named = Named::new(&plan.sources);
    let readings = Readings::new(Origin {
        file: plan.config_file,
        state_dir: state_dir.clone(),
        keeps: plan.keeps,
        cells: registry.control(),
    });
    let mut watch = Watch {
        config: plan.config,
        renewable,
        named,
        readings,
        loader: loader.clone(),
        is_ready: false,
        running,
        kept,
        server,
        automation,
        reading: Some(reading),
        torrents,
        looks,
        signals,
        reloads,
        teller,
        announcement,
        budget,
        all_or_nothing: plan.all_or_nothing,
        keeps: plan.keeps,
        state_dir,
        refused: Vec::new(),
    };
    let mut loading = Some(Loading::start(loader, plan.sources));
    let ended = watch.run(&mut loading).await;
    // What is still to be loaded is given up before the rest stops.
    drop(loading);
    notify(sd_notify::NotifyState::Stopping);
    // Where nothing was served, nobody is told: why it ended is all there is to say.
    if ended.is_ok() || watch.torrents.iter().next().is_some() {
        watch.teller.stopping();
    }
    watch.automation.stop_watching().await;
    // Downloads end before the data plane does, so that what they have is synced and kept.
    watch.kept.stop().await;
    tokio::join!(watch.running.stop(), watch.automation.stop_hooks());
    keeping::close(store, &watch.state_dir, watch.keeps);
    ended
}

/// Tells systemd, if it has started us.
fn notify(state: sd_notify::NotifyState<'_>) {
    let _ = sd_notify::notify(&[state]);
}

/// Opens the ports and starts what runs beside the data plane.
async fn start(
    plan: &Plan,
    registry: &Arc<Registry>,
    budget: &Budget,
    server: Option<Server>,
    log: LogHandle,
) -> Result<(Running, Announcement, Renewable), Failure> {
    let config = &plan.config;
    let cells = registry.control();
    let build = BuildInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: env!("SEEDRING_COMMIT").to_owned(),
    };
    let exporter =
        Exporter::new(Arc::clone(registry), &build).context("cannot start the metrics")?;
    let readiness = Arc::new(Readiness::new(
        [TORRENTS_READ, TORRENTS_LOADED],
        Arc::clone(&cells),
    ));
    let (stop, stopped) = watch::channel(false);
    let facts = Arc::new(Facts::new(&build, log.kept()));
    let api = open_api(plan, server, &facts, &cells)?;
    let service = http::Service {
        exporter: Arc::new(exporter),
        status: Arc::clone(&readiness) as _,
        cells: Arc::clone(&cells),
        api: api.clone(),
    };
    let state_dir = api.is_some().then_some(plan.state_dir.as_path());
    let listener = http::listen(&config.api, state_dir)
        .await
        .map_err(anyhow::Error::from)?;
    let renewable = Renewable {
        api,
        http: listener.changeable(),
        log,
    };
    let api = listener.address;
    tokio::spawn(http::serve(listener, service, when(stopped.clone())));
    let ip_filter = settings::ip_filter(&config.peers.ip_filter, &cells).await?;
    let (handle, tracker) = start_tracker(config, &cells, stopped)?;
    let peer_id = settings::peer_id().context("no random bytes")?;
    let (plane, events) = control_plane::start_plane(config, budget, peer_id, registry, ip_filter)?;
    let peer_port = plane.addresses().first().map_or(0, SocketAddr::port);
    facts.peer_port.store(peer_port, Relaxed);
    let announcer = control_plane::start_announcer(config, peer_id, peer_port, &cells)?;
    let dht = dht::start(config, &plan.state_dir, &plane, false, &cells);
    cells.set(ControlGauge::Shards, plane.shards() as u64);
    cells.set(ControlGauge::ConnectionsMax, budget.connections_max);
    let announcement = Announcement {
        peer_id,
        peer_port,
        api,
        tracker,
        dht: dht.iter().flat_map(DhtHandle::addresses).copied().collect(),
    };
    let running = Running {
        plane: Arc::new(plane),
        events,
        announcer,
        dht,
        readiness,
        stop,
        tracker: handle,
        registry: Arc::clone(registry),
        stop_timeout: config.announce.stop_timeout_s.duration(),
    };
    Ok((running, announcement, renewable))
}

/// The API of a server that keeps torrents; a command that keeps none has none.
fn open_api(
    plan: &Plan,
    server: Option<Server>,
    facts: &Arc<Facts>,
    cells: &Arc<ControlCells>,
) -> Result<Option<Arc<Api>>, Failure> {
    let open = |server| {
        let (facts, cells) = (Arc::clone(facts), Arc::clone(cells));
        Api::open(&plan.config.api, &plan.state_dir, server, facts, cells)
    };
    let api = server.map(open).transpose();
    Ok(api.map_err(anyhow::Error::from)?)
}

/// Starts the tracker; returns it and the URL by which clients announce to it.
fn start_tracker(
    config: &Config,
    cells: &Arc<ControlCells>,
    stopped: watch::Receiver<bool>,
) -> Result<(Option<TrackerHandle>, Option<String>), Failure> {
    if !config.tracker.enabled {
        return Ok((None, None));
    }
    let host = tracker_host(config)?;
    let tracker = Tracker::bind(&settings::tracker(config), Arc::clone(cells))
        .map_err(anyhow::Error::from)?;
    let port = tracker.addresses().first().map(SocketAddr::port);
    let handle = tracker.handle();
    tokio::spawn(tracker.run(when(stopped)));
    let url = port.map(|port| format!("http://{host}:{port}/announce"));
    Ok((Some(handle), url))
}

/// The host of the tracker's URL, which goes into torrents and links. The address of the default
/// route is no answer where peers are to be met by another interface: everybody would read it.
fn tracker_host(config: &Config) -> Result<String, Failure> {
    if let Some(host) = config.tracker.announce_host.in_url() {
        return Ok(host.to_owned());
    }
    let own = settings::own_address(&config.peers);
    if let Some(own) = own.filter(IpAddr::is_loopback) {
        tracing::warn!(
            "torrents and links name the tracker at {own}, where nobody but this machine finds it: \
             no other address is up; name one by --announce-host (tracker.announce_host)"
        );
    }
    own.map(in_url).ok_or_else(|| {
        Failure::Failed(anyhow!(
            "no address can be written into torrents: the tracker is on, and the interface of \
             peers.bind_interface has none now; start again when it has, name a host by \
             tracker.announce_host, or turn the tracker off (--no-tracker, tracker.enabled)"
        ))
    })
}

/// An address as URLs have it.
fn in_url(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

/// Ready when the server stops.
async fn when(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// What runs, and what it is told by.
struct Watch {
    running: Running,
    kept: ManagerHandle,
    server: Server,
    automation: Automation,
    /// Says when the torrents that are kept have been read.
    reading: Option<Reading>,
    torrents: Torrents,
    looks: mpsc::UnboundedReceiver<Look>,
    signals: Signals,
    reloads: Reloads,
    /// What it runs by.
    config: Config,
    /// Reads it again.
    readings: Readings,
    renewable: Renewable,
    named: Named,
    /// Gets what is named later ready.
    loader: Loader,
    /// Whether it has been told that all is served.
    is_ready: bool,
    teller: Teller,
    announcement: Announcement,
    budget: Budget,
    all_or_nothing: bool,
    keeps: bool,
    state_dir: PathBuf,
    /// What was to be served and is not.
    refused: Vec<Refused>,
}

impl Watch {
    /// Serves until a signal, a lost shard, or a torrent that cannot be served where all must be.
    async fn run(&mut self, loading: &mut Option<Loading>) -> Result<(), Failure> {
        let mut ticks = tokio::time::interval(LINE_PERIOD);
        self.torrents
            .loading(loading.as_ref().map_or(0, Loading::left));
        loop {
            tokio::select! {
                () = self.signals.wait() => return Ok(()),
                () = self.reloads.next() => self.readings.begin(&self.config),
                read = self.readings.next() => self.reload(read, loading).await,
                event = self.running.events.recv() => self.happened(event).await?,
                Some(look) = self.looks.recv() => {
                    let info_hash = look.info_hash();
                    if self.torrents.looked(look).await {
                        self.teller.recovered(info_hash);
                    }
                }
                read = read(&mut self.reading) => {
                    read?;
                    self.reading = None;
                    self.running.readiness.met(TORRENTS_READ);
                    self.automation.watch(self.server.clone());
                    if loading.is_none() {
                        self.ready();
                    }
                }
                loaded = next(loading) => {
                    self.loaded(loaded).await?;
                    let left = loading.as_ref().map_or(0, Loading::left);
                    self.torrents.loading(left);
                    if left == 0 && loading.take().is_some() {
                        self.kept.settle(self.named.unserved());
                        self.running.readiness.met(TORRENTS_LOADED);
                        if self.reading.is_none() {
                            self.ready();
                        }
                    }
                }
                // Before it is ready, the terminal is the progress bar's.
                _ = ticks.tick(), if loading.is_none() => self.teller.line(&self.running.registry),
            }
        }
    }

    async fn happened(&mut self, event: Option<Event>) -> Result<(), Failure> {
        match event {
            Some(Event::TorrentFault(fault)) => {
                if !self.torrents.has(fault.info_hash) {
                    self.kept.fault(fault);
                } else if self.torrents.fault(fault.clone()).await {
                    self.teller.fault(&fault);
                }
                Ok(())
            }
            Some(Event::ShardLost(shard)) => {
                Err(anyhow!("shard {shard} has ended, which is a bug; see the log").into())
            }
            Some(Event::DhtNode(node)) => {
                if let Some(dht) = &self.running.dht {
                    dht.suggest(node.address);
                }
                Ok(())
            }
            Some(Event::Interface(is_there)) => {
                let readiness = &self.running.readiness;
                match is_there {
                    true => readiness.met(INTERFACE),
                    false => readiness.lost(INTERFACE),
                }
                Ok(())
            }
            Some(Event::Wanted(wanted)) => {
                self.kept.wanted(wanted);
                Ok(())
            }
            None => Err(anyhow!("all shards have ended, which is a bug").into()),
        }
    }

    async fn loaded(&mut self, loaded: Option<Result<Loaded, Refused>>) -> Result<(), Failure> {
        let refused = match loaded {
            None => return Ok(()),
            Some(Ok(loaded)) if !self.named.awaits(&loaded.source) => return Ok(()),
            Some(Err(refused)) if !self.named.awaits(&refused.source) => return Ok(()),
            Some(Ok(loaded)) => {
                let (source, info_hash) = (loaded.source, loaded.ready.info_hash);
                let added = self.torrents.add(loaded.ready, loaded.torrent_file);
                let fate = match added.await {
                    Ok(true) => Ok(Fate::Served(info_hash)),
                    Ok(false) => Ok(Fate::LeftOut(info_hash)),
                    Err(error) => Err(error.into()),
                };
                match fate {
                    Ok(fate) => {
                        self.named.settle(source, fate);
                        return Ok(());
                    }
                    Err(error) => Refused { source, error },
                }
            }
            Some(Err(refused)) => refused,
        };
        if self.all_or_nothing {
            return Err(Failure::Failed(refused.error));
        }
        self.torrents.not_loaded();
        self.named.settle(refused.source.clone(), Fate::Refused);
        tracing::error!("a torrent is not served: {:#}", refused.error);
        self.refused.push(refused);
        Ok(())
    }

    fn ready(&mut self) {
        // Once: what a reload has loaded is no start.
        if std::mem::replace(&mut self.is_ready, true) {
            return;
        }
        let torrents = self.torrents.iter();
        self.teller
            .ready(&self.announcement, &self.budget, torrents, &self.refused);
    }
}

/// Whether the kept torrents could be read; never, once that is said.
async fn read(reading: &mut Option<Reading>) -> Result<(), Failure> {
    match reading {
        Some(reading) => reading.done().await,
        None => std::future::pending().await,
    }
}

/// The next torrent that is loaded; never, once all are.
async fn next(loading: &mut Option<Loading>) -> Option<Result<Loaded, Refused>> {
    match loading {
        Some(loading) => loading.next().await,
        None => std::future::pending().await,
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
        let dht = async {
            if let Some(dht) = &self.dht {
                dht.shutdown().await;
            }
        };
        let ((), (), closed) = tokio::join!(announces, dht, self.plane.stop(PLANE_STOP));
        if !closed {
            tracing::warn!("a shard did not end in time; an operation on a disk may hang");
        }
        let _ = self.stop.send(true);
    }
}
