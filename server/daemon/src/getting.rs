//! One download from beginning to end: what there is of it, from whom the rest comes, what is kept
//! of it.
//!
//! Order: configuration → io_uring tried → the `.torrent` file, from disk, the web, or peers → what
//! is on disk is looked at → the rest is fetched → what was synced is remembered, each time it is
//! told → done, or seeding.
//!
//! Whenever it ends, by a signal or a crash, the same command goes on from what was synced last.
//! Does not: choose peers or pieces; that is the data plane's work.

mod display;
mod download;
mod existing;
mod peers;
mod plan;
mod selection;
mod store;
mod trackers;
mod waiting;

pub use plan::{Plan, Source};
pub use selection::{Choice, priorities};

use crate::budget::Budget;
use crate::control_plane::{self, PLANE_STOP};
use crate::dht;
use crate::disk::FOREGROUND;
use crate::failure::{Failure, INTERRUPTED};
use crate::keeping;
use crate::progress::Reporter;
use crate::settings;
use crate::signals::Signals;
use anyhow::{Context, anyhow};
use control::announce::Totals;
use control::dht::DhtHandle;
use control::lsd::{Lsd, LsdHandle};
use control::resume::{Claim, Resume, ResumeError, Resumed};
use control::state::{FetchRecord, Record, StateError};
use display::{BAR_PERIOD, Display, Share};
use download::{Download, bytes_of};
use engine::ip_filter::IpFilter;
use engine::peer_list::PeerSource;
use engine::picker::Priority;
use peers::{Finder, Found};
use plan::{Described, describe, link_only_v2};
use proto::ids::InfoHashV1;
use proto::metainfo::Metainfo;
use seedring_io::fetch::{DESCRIPTORS_MAX, Fetch, FetchEvent, FetchSpec, MetadataEvent, Needs};
use seedring_io::plane::{Event, Plane};
use seedring_io::system;
use seedring_metrics::{ControlCells, Gauge, Registry};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use store::Store;
use tokio::sync::mpsc;
use trackers::{Sorted, Trackers};
use waiting::Sources;

/// Peers that are kept from the time before the download began.
const KNOWN_MAX: usize = 1_000;

/// How long a download may take to sync what it has when it is stopped: a disk may hang.
const DOWNLOAD_STOP: Duration = Duration::from_secs(10);

/// What is logged: how the download goes is told beside the log.
const LOG: &str = "warn,seedring_io=error";

/// How it ended, if nothing failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// All that is wanted is there.
    Complete,
    /// The user has stopped it before.
    Interrupted,
}

/// Downloads until all is there, or until it is told to stop.
///
/// # Errors
///
/// What kept it from that; [`Failure::Interrupted`] if the user did.
pub fn run(plan: Plan) -> Result<(), Failure> {
    let config = plan.config.clone();
    let end = control_plane::run(&config, Some(LOG), |registry, _| {
        Getter::run(plan, registry)
    })?;
    match end {
        End::Complete => Ok(()),
        End::Interrupted => Err(Failure::Interrupted),
    }
}

/// What runs beside a download.
struct Getter {
    plan: Plan,
    registry: Arc<Registry>,
    cells: Arc<ControlCells>,
    plane: Plane,
    events: mpsc::UnboundedReceiver<Event>,
    trackers: Trackers,
    lsd: Option<LsdHandle>,
    dht: Option<DhtHandle>,
    finder: Arc<Finder>,
    found: mpsc::Receiver<Found>,
    /// Peers that were found before the download began.
    known: Vec<(SocketAddr, PeerSource)>,
    /// Peers that the user and the link name, and of those that give nothing what was told of them
    /// last.
    named: BTreeMap<SocketAddr, Option<String>>,
    /// Why peers that the user and the link name are not asked.
    refused: Vec<String>,
    /// Which reasons of the kind have been told.
    told: BTreeSet<String>,
    signals: Signals,
    display: Display,
    started: Instant,
}

impl Getter {
    async fn run(plan: Plan, registry: Arc<Registry>) -> Result<End, Failure> {
        let mut signals = Signals::new(INTERRUPTED.into())?;
        // What the torrent says may be wrong; that is to be known before any port is opened.
        let prepared = tokio::select! {
            prepared = plan.prepare() => Some(prepared?),
            () = signals.wait() => None,
        };
        let Some((described, peers)) = prepared else {
            Display::new(plan.json).stopped(None);
            return Ok(End::Interrupted);
        };
        let cells = registry.control();
        let ip_filter = settings::ip_filter(&plan.config.peers.ip_filter, &cells).await?;
        let mut getter = Getter::start(plan, registry, signals, ip_filter)?;
        getter.named = peers.addresses.iter().map(|&peer| (peer, None)).collect();
        getter.refused = peers.refused;
        getter.display.left_out(&getter.plan.left_out);
        let end = getter.get(described, &peers.addresses).await;
        getter.display.clear();
        getter.stop().await;
        end
    }

    fn start(
        plan: Plan,
        registry: Arc<Registry>,
        signals: Signals,
        ip_filter: Arc<IpFilter>,
    ) -> Result<Getter, Failure> {
        let config = &plan.config;
        let limit = system::raise_descriptor_limit().context("cannot read the descriptor limit")?;
        // The files of the download come first.
        let left = limit.saturating_sub(DESCRIPTORS_MAX);
        let budget = Budget::plan(config, registry.shards() as u64, left);
        let peer_id = settings::peer_id().context("no random bytes")?;
        let (plane, events) =
            control_plane::start_plane(config, &budget, peer_id, &registry, ip_filter)?;
        let cells = registry.control();
        let port = plane.addresses().first().map_or(0, SocketAddr::port);
        let trackers = Trackers::start(config, peer_id, port, &cells)?;
        let (finder, found) = Finder::new();
        let lsd = settings::lsd(config, port).map(|lsd| Lsd::start(&lsd, Arc::clone(&cells)));
        let dht = dht::start(config, &plan.state_dir, &plane, true, &cells);
        Ok(Getter {
            lsd,
            dht,
            display: Display::new(plan.json),
            plan,
            registry,
            cells,
            plane,
            events,
            trackers,
            finder: Arc::new(finder),
            found,
            known: Vec::new(),
            named: BTreeMap::new(),
            refused: Vec::new(),
            told: BTreeSet::new(),
            signals,
            started: Instant::now(),
        })
    }

    /// Tells the trackers and closes the connections, side by side.
    async fn stop(self) {
        let timeout = self.plan.config.announce.stop_timeout_s.duration();
        let announces = self.trackers.shutdown(timeout);
        let dht = async {
            if let Some(dht) = &self.dht {
                dht.shutdown().await;
            }
        };
        let ((), (), closed) = tokio::join!(announces, dht, self.plane.stop(PLANE_STOP));
        if !closed {
            tracing::warn!("a shard did not end in time; an operation on a disk may hang");
        }
    }

    async fn get(
        &mut self,
        described: Option<Described>,
        peers: &[SocketAddr],
    ) -> Result<End, Failure> {
        let info_hash = match (&described, &self.plan.source) {
            (Some(described), _) => described.info_hash,
            (None, Source::Magnet(magnet)) => magnet.info_hash_v1.ok_or_else(link_only_v2)?,
            (None, _) => return Err(anyhow!("the torrent is not described, which is a bug").into()),
        };
        let store = Store::open(&self.plan.state_dir, info_hash).map_err(|error| match error {
            StateError::InUse { .. } => anyhow!(
                "this torrent is being downloaded by another `seedring get` with the same state folder"
            ),
            other => other.into(),
        })?;
        let described = match described {
            Some(described) => described,
            None => match self.remembered(&store)? {
                Some(described) => described,
                None => match self.ask_peers(info_hash, peers).await {
                    Ok(Some(described)) => described,
                    ended => {
                        // Nothing came of it, so nothing of it is kept.
                        store.forget();
                        ended?;
                        self.display.stopped(None);
                        return Ok(End::Interrupted);
                    }
                },
            },
        };
        self.fetch(described, store, peers).await
    }

    /// The torrent that an earlier run with the same link got from peers.
    fn remembered(&self, store: &Store) -> Result<Option<Described>, Failure> {
        let record = store.record().map_err(anyhow::Error::from)?;
        let torrent = match record {
            Some(record) => Some(record.metainfo),
            None => {
                let complete = self.complete_record(store)?;
                complete.map(|record| record.metainfo)
            }
        };
        torrent
            .map(|torrent| {
                describe(
                    torrent,
                    &self.plan.magnet_trackers(),
                    "what an earlier run kept",
                )
            })
            .transpose()
    }

    fn complete_record(&self, store: &Store) -> Result<Option<Record>, Failure> {
        let Source::Magnet(magnet) = &self.plan.source else {
            return Ok(None);
        };
        let info_hash = magnet.info_hash_v1.ok_or_else(link_only_v2)?;
        Ok(store
            .state()
            .record(info_hash)
            .map_err(anyhow::Error::from)?)
    }

    /// Gets the `info` dictionary from peers (BEP 9); `None` if the user stops it.
    async fn ask_peers(
        &mut self,
        info_hash: InfoHashV1,
        peers: &[SocketAddr],
    ) -> Result<Option<Described>, Failure> {
        let trackers = self.plan.sorted(&self.plan.magnet_trackers());
        let others = !peers.is_empty() || self.dht.is_some() || self.lsd.is_some();
        // Before anybody is told of us, who may call at once.
        let fetching = self.plane.fetch_metadata(info_hash).await;
        let (fetch, mut told) = fetching.map_err(anyhow::Error::from)?;
        self.announce(info_hash, trackers, false, others)?;
        // It may be private: the DHT is asked for it, and told nothing. This network, whose the
        // user says that it is his own, cannot be asked but by telling it.
        if let Some(dht) = &self.dht {
            dht.look(info_hash, Arc::clone(&self.finder) as _);
        }
        if let Some(lsd) = &self.lsd {
            lsd.add(info_hash, Arc::clone(&self.finder) as _);
        }
        fetch.add_peers(peers);
        let mut ticks = tokio::time::interval(BAR_PERIOD);
        loop {
            tokio::select! {
                () = self.signals.wait() => return Ok(None),
                event = self.events.recv() => self.happened(event)?,
                Some(Found { peers, source }) = self.found.recv() => {
                    fetch.found(&peers, source);
                    self.known.extend(peers.into_iter().map(|peer| (peer, source)));
                    self.known.truncate(KNOWN_MAX);
                }
                event = told.recv() => match event {
                    Some(MetadataEvent::Complete(info)) => {
                        return self.plan.described_by_peers(info_hash, &info).map(Some);
                    }
                    None => return Err(anyhow!("the shard has ended, which is a bug").into()),
                },
                _ = ticks.tick() => {
                    self.tell_sources(info_hash, fetch.peers(), false);
                    self.display.metadata(fetch.peers());
                    self.tell_troubles(info_hash, fetch.troubles());
                    self.look_for_peers(info_hash, fetch.peers());
                }
            }
        }
    }

    /// Fetches what is not there, remembers what is, and seeds if that is wanted.
    async fn fetch(
        &mut self,
        described: Described,
        store: Store,
        peers: &[SocketAddr],
    ) -> Result<End, Failure> {
        let metainfo = Arc::clone(&described.metainfo);
        let priorities = self.priorities(&metainfo)?;
        self.refused.extend(self.plan.web_seeds(&metainfo));
        let data_dir = make_folder(&self.plan.data_dir)?;
        let mut spec = self.spec(&metainfo, &data_dir, &priorities);
        let (store, resumed) = self.look_at_disk(&spec, store).await?;
        let Some(resumed) = resumed else {
            self.display.stopped(None);
            return Ok(End::Interrupted);
        };
        let record = FetchRecord {
            metainfo: described.torrent.clone(),
            data_dir: data_dir.clone(),
            priorities,
            sequential: self.plan.sequential,
            pieces: resumed.pieces.as_bitfield().to_vec(),
            stamps: resumed.stamps.clone(),
        };
        let earlier = store.record().map_err(anyhow::Error::from)?;
        if earlier.is_none() {
            let (chosen, pieces) = (&record.priorities, &resumed.pieces);
            let replaced = existing::replaced(&metainfo, &data_dir, chosen, pieces);
            self.display.replacing(&replaced);
            self.display.respelled(&metainfo);
        }
        let files = selection::counts(&metainfo, &record.priorities);
        store.begin(&record).map_err(anyhow::Error::from)?;
        spec.verified = record.pieces;
        spec.stamps = resumed.stamps;
        let beginning = self.plane.fetch(spec).await;
        let (fetch, events) = beginning.map_err(anyhow::Error::from)?;
        let fetch = Arc::new(fetch);
        let trackers = self.plan.sorted(&metainfo.trackers);
        self.finder.follow(&fetch);
        let others = !peers.is_empty() || fetch.progress().pieces_wanted == 0;
        let finds_itself = self.lsd.is_some() || self.dht.is_some();
        let others = others || (finds_itself && !metainfo.private);
        self.announce(described.info_hash, trackers, metainfo.private, others)?;
        self.find_without_trackers(described.info_hash, &metainfo);
        fetch.add_peers(peers);
        // The tracker that named them for the metadata is not asked again before its time.
        for (source, known) in by_source(&std::mem::take(&mut self.known)) {
            fetch.found(&known, source);
        }
        let port = self.plane.addresses().first().map_or(0, SocketAddr::port);
        let share = Share::of(&fetch.progress());
        self.display
            .started(&metainfo, files, share, &data_dir, port);
        let bytes_recorded = bytes_of(&metainfo, &resumed.pieces);
        let mut download = Download {
            bytes_recorded,
            files,
            described,
            store: Some(store),
            data_dir,
            fetch: Arc::clone(&fetch),
            events,
            pieces: resumed.pieces,
            unstored: BTreeMap::new(),
        };
        let end = self.watch(&mut download).await?;
        self.conclude(download, end).await
    }

    /// How it is to be downloaded, nothing of it being there.
    fn spec(
        &self,
        metainfo: &Arc<Metainfo>,
        data_dir: &Path,
        priorities: &[Priority],
    ) -> FetchSpec {
        let mut spec = FetchSpec::new(Arc::clone(metainfo), data_dir);
        spec.priorities = priorities.to_vec();
        spec.sequential = self.plan.sequential;
        let settings = &self.plan.config.fetch;
        spec.set_suffix(&settings.partial_suffix);
        spec.allocation = keeping::allocation(settings.allocation);
        spec.past_cache = keeping::past_cache(settings.past_cache);
        spec
    }

    /// The priorities of the files: what the user chose, else what the link did.
    fn priorities(&self, metainfo: &Metainfo) -> Result<Vec<Priority>, Failure> {
        let mut choices = self.plan.choices.clone();
        if let Source::Magnet(magnet) = &self.plan.source
            && let Some(ranges) = &magnet.selection
            && choices.is_empty()
        {
            choices.push(Choice::Numbers(ranges.clone()));
        }
        let whose = match self.plan.choices.is_empty() {
            true => "the link's choice of files (so=), which --select replaces",
            false => "--select",
        };
        selection::priorities(metainfo, &choices)
            .map_err(|error| Failure::Usage(anyhow!("{whose}: {error}")))
    }

    /// Finds out what is there, on a thread for blocking work; nothing if the user stops it.
    async fn look_at_disk(
        &mut self,
        spec: &FetchSpec,
        store: Store,
    ) -> Result<(Store, Option<Resumed>), Failure> {
        let stopped = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stopped);
        let (metainfo, data_dir) = (Arc::clone(&spec.metainfo), spec.data_dir.clone());
        let (suffix, cells) = (spec.suffix.clone(), Arc::clone(&self.cells));
        let always_hash = settings::always_hash(&self.plan.config);
        let (anew, json) = (self.plan.anew, self.plan.json);
        let mut task = tokio::task::spawn_blocking(move || {
            let claim = match anew {
                true => None,
                false => match Claim::of(store.state(), &metainfo, &data_dir) {
                    Ok(claim) => claim,
                    Err(error) => return (store, Err(anyhow::Error::from(error))),
                },
            };
            let resume = Resume {
                claim,
                always_hash,
                partial_suffix: &suffix,
                renames: &BTreeMap::new(),
                cells: &cells,
                disk: FOREGROUND,
            };
            // Most runs have nothing to hash, and nothing to tell of it.
            let mut reporter = None;
            let resumed = resume.look(&metainfo, &data_dir, &mut |progress| {
                let reporter = reporter.get_or_insert_with(|| Reporter::new("hashing", json));
                reporter.hashing(progress);
                match told.load(Ordering::Relaxed) {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            });
            if let Some(reporter) = reporter {
                reporter.finish();
            }
            let resumed = resumed.map_err(|error| match error {
                error @ ResumeError::Gone { .. } => {
                    anyhow!("{error}; if they are to be fetched again, say --anew")
                }
                error => error.into(),
            });
            (store, resumed)
        });
        let (store, resumed) = tokio::select! {
            done = &mut task => done,
            () = self.signals.wait() => {
                stopped.store(true, Ordering::Relaxed);
                task.await
            }
        }
        .context("hashing ended early")?;
        match resumed {
            Ok(resumed) => Ok((store, Some(resumed))),
            Err(_) if stopped.load(Ordering::Relaxed) => Ok((store, None)),
            Err(error) => Err(error.into()),
        }
    }

    /// Follows a download until all that is wanted is there, or the user stops it.
    async fn watch(&mut self, download: &mut Download) -> Result<End, Failure> {
        let mut ticks = tokio::time::interval(BAR_PERIOD);
        loop {
            tokio::select! {
                () = self.signals.wait() => return self.interrupt(download).await,
                event = self.events.recv() => self.happened(event)?,
                Some(found) = self.found.recv() => download.fetch.found(&found.peers, found.source),
                event = download.events.recv() => {
                    let event = event.ok_or_else(|| anyhow!("the shard has ended, which is a bug"))?;
                    let refused = refusal(&event);
                    if let Some(refused) = refused {
                        // What is there is kept.
                        self.interrupt(download).await?;
                        return Err(refused.into());
                    }
                    if let ControlFlow::Break(end) = self.take(download, event).await? {
                        return Ok(end);
                    }
                }
                _ = ticks.tick() => {
                    let progress = download.fetch.progress();
                    let info_hash = download.described.info_hash;
                    let private = download.described.metainfo.private;
                    self.tell_sources(info_hash, progress.peers, private);
                    self.display.progress(&progress, download.bytes_recorded);
                    self.tell_troubles(info_hash, download.fetch.troubles());
                    self.look_for_peers(info_hash, progress.peers);
                }
            }
        }
    }

    /// Takes what the data plane tells of a download.
    async fn take(
        &mut self,
        download: &mut Download,
        event: FetchEvent,
    ) -> Result<ControlFlow<End>, Failure> {
        match event {
            FetchEvent::Synced { pieces, stamps } => download.synced(&pieces, &stamps),
            FetchEvent::Paused { reason, needs } => {
                let missing = download.fetch.progress().bytes_wanted;
                self.display.paused(&reason, needs, missing);
            }
            FetchEvent::Resumed => self.display.resumed(),
            FetchEvent::Banned { peer } => self.display.banned(peer),
            FetchEvent::SelectionDone => return Ok(ControlFlow::Break(End::Complete)),
            FetchEvent::Complete(torrent) => {
                download.complete(&torrent);
                let described = &download.described;
                self.trackers.completed(described.info_hash);
                if let Some(dht) = &self.dht {
                    let finder = Arc::clone(&self.finder) as _;
                    dht.announce(described.info_hash, described.metainfo.private, finder);
                }
                return Ok(ControlFlow::Break(End::Complete));
            }
            FetchEvent::Failed(fault) => return Err(anyhow!(
                "{fault}; put right what stands there, or choose another folder: the same command goes on"
            )
            .into()),
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Ends a download before it is complete; what is synced last is kept.
    async fn interrupt(&mut self, download: &mut Download) -> Result<End, Failure> {
        let mut end = End::Interrupted;
        let fetch = Arc::clone(&download.fetch);
        let mut stopping = Box::pin(async move { fetch.stop(DOWNLOAD_STOP).await });
        let mut stopped = false;
        loop {
            tokio::select! {
                ended = &mut stopping, if !stopped => {
                    stopped = true;
                    if !ended {
                        tracing::warn!(
                            "the disk did not take all in time; what it did not is fetched again"
                        );
                    }
                }
                event = download.events.recv() => match event {
                    Some(event) => {
                        if let ControlFlow::Break(other) = self.take(download, event).await? {
                            end = other;
                        }
                    }
                    None => return Ok(end),
                },
                else => return Ok(end),
            }
            if stopped && download.events.is_empty() {
                return Ok(end);
            }
        }
    }

    /// Says how it ended, and seeds if that is wanted.
    async fn conclude(&mut self, download: Download, end: End) -> Result<End, Failure> {
        let Download {
            described,
            data_dir,
            fetch,
            bytes_recorded,
            files,
            ..
        } = download;
        let progress = fetch.progress();
        if end == End::Interrupted {
            let share = Share {
                bytes_done: bytes_recorded,
                ..Share::of(&progress)
            };
            self.display.stopped(Some(share));
            return Ok(end);
        }
        let path = data_dir.join(&described.metainfo.name);
        let after = self.started.elapsed();
        self.display
            .complete(&described.metainfo, files, &path, &progress, after);
        if self.plan.seed {
            self.seed(&fetch).await?;
        }
        Ok(End::Complete)
    }

    /// Serves what is there until the user stops it.
    async fn seed(&mut self, fetch: &Fetch) -> Result<(), Failure> {
        let port = self.plane.addresses().first().map_or(0, SocketAddr::port);
        self.display.seeding_begins(port);
        let mut ticks = tokio::time::interval(BAR_PERIOD);
        loop {
            tokio::select! {
                () = self.signals.wait() => return Ok(()),
                event = self.events.recv() => self.happened(event)?,
                Some(found) = self.found.recv() => {
                    if fetch.torrent().is_complete() {
                        self.plane.found(fetch.torrent(), &found.peers, found.source);
                    }
                }
                _ = ticks.tick() => {
                    let peers = self.registry.snapshot().gauge(Gauge::PeersConnected);
                    self.display.seeding(fetch.torrent().uploaded_bytes(), Some(peers));
                }
            }
        }
    }

    /// Announces the torrent from now on, or anew with what is known of it now.
    fn announce(
        &mut self,
        info_hash: InfoHashV1,
        mut trackers: Sorted,
        private: bool,
        others: bool,
    ) -> Result<(), Failure> {
        let mut refused = self.refused.clone();
        refused.append(&mut trackers.refused);
        // Once, though a link's are sorted twice: before its torrent is known, and after.
        refused.retain(|reason| self.told.insert(reason.clone()));
        self.display.not_asked(&refused);
        let some = !trackers.trusted.is_empty() || !trackers.strangers.is_empty();
        if !(some && self.trackers.are_asked() || others) {
            return Err(anyhow!(
                "there is nobody to ask: no tracker is named that may be asked, and {}; name a tracker by --tracker, \
                 or a peer by --peer",
                match private {
                    true => "the DHT and local discovery are not for private torrents",
                    false => "the DHT and local discovery (lsd.enabled) are off",
                }
            )
            .into());
        }
        // It is there already if peers were asked for the torrent, by the same trackers.
        let totals: Arc<dyn Totals> = Arc::clone(&self.finder) as _;
        self.trackers.add(info_hash, &trackers, private, &totals);
        Ok(())
    }

    /// Looks for peers in this network and the DHT, and tells them of the torrent, unless it is
    /// private: then it is the trackers' alone (BEP 27), also who was found while only its hash was
    /// known. The DHT nodes that it names are asked for others (BEP 5).
    fn find_without_trackers(&mut self, info_hash: InfoHashV1, metainfo: &Metainfo) {
        if metainfo.private {
            if let Some(dht) = &self.dht {
                dht.remove(info_hash);
            }
            if let Some(lsd) = &self.lsd {
                lsd.remove(info_hash);
            }
            let strangers = [PeerSource::Dht, PeerSource::Local];
            self.known.retain(|(_, source)| !strangers.contains(source));
            return;
        }
        if let Some(lsd) = &self.lsd {
            lsd.add(info_hash, Arc::clone(&self.finder) as _);
        }
        if let Some(dht) = &self.dht {
            dht.find(info_hash, false, Arc::clone(&self.finder) as _);
            let is_own = matches!(self.plan.source, Source::File(_));
            let (dht, nodes) = (dht.clone(), peers::nodes_of(metainfo));
            tokio::spawn(async move {
                let (named, of_stranger) = match is_own {
                    true => (&nodes[..], &[][..]),
                    false => (&[][..], &nodes[..]),
                };
                let found = peers::resolve(named, of_stranger).await;
                found.addresses.into_iter().for_each(|at| dht.suggest(at));
            });
        }
    }

    /// Takes what the data plane tells of its own accord.
    fn happened(&self, event: Option<Event>) -> Result<(), Failure> {
        if let (Some(Event::DhtNode(node)), Some(dht)) = (&event, &self.dht) {
            dht.suggest(node.address);
        }
        lost(event)
    }

    /// Tells why those give nothing that were named, each time the reason is another one.
    fn tell_troubles(&mut self, info_hash: InfoHashV1, troubles: Vec<(SocketAddr, String)>) {
        for (peer, reason) in troubles {
            if let Some(told) = self.named.get_mut(&peer)
                && told.as_ref() != Some(&reason)
            {
                self.display.peer_failed(peer, &reason);
                *told = Some(reason);
            }
        }
        for (tracker, news) in self.trackers.news(info_hash) {
            self.display.tracker_news(&tracker, &news);
        }
    }

    /// Has what each source of peers has said shown, while there are none.
    fn tell_sources(&mut self, info_hash: InfoHashV1, peers: u32, private: bool) {
        if peers > 0 {
            return self.display.waiting(Vec::new());
        }
        let dht = self.dht.as_ref().filter(|_| !private);
        let lsd = self.lsd.as_ref();
        let sources = Sources {
            trackers: self.trackers.statuses(info_hash),
            dht: dht.map(|dht| dht.status(info_hash)),
            lsd: lsd.is_some_and(|lsd| lsd.is_announced(info_hash)),
            named: self.named.len(),
        };
        self.display.waiting(sources.texts());
    }

    /// Asks the trackers, as soon as they allow it, and the DHT again while there is nobody to
    /// fetch from.
    fn look_for_peers(&self, info_hash: InfoHashV1, peers: u32) {
        if peers > 0 {
            return;
        }
        self.trackers.reannounce(info_hash);
        if let Some(dht) = &self.dht {
            dht.hurry(info_hash);
        }
    }
}

/// What to tell the user if a download needs a permission, or a file system that takes writes:
/// waiting does not bring it.
fn refusal(event: &FetchEvent) -> Option<anyhow::Error> {
    match event {
        FetchEvent::Paused {
            reason,
            needs: Needs::Permission,
        } => Some(anyhow!(
            "{reason}; let this user write there, or choose another folder with -d, and run the same command again: it \
             goes on from what is there"
        )),
        _ => None,
    }
}

/// The folder, made if it is not there, without `..` and links on the way.
fn make_folder(folder: &Path) -> Result<PathBuf, Failure> {
    if folder.metadata().is_ok_and(|found| !found.is_dir()) {
        return Err(anyhow!("cannot download into {folder:?}: it is no folder").into());
    }
    let made = std::fs::create_dir_all(folder).and_then(|()| folder.canonicalize());
    Ok(made.with_context(|| format!("cannot make the folder {folder:?}"))?)
}

/// Peers by who named them.
fn by_source(known: &[(SocketAddr, PeerSource)]) -> Vec<(PeerSource, Vec<SocketAddr>)> {
    let of = |source| {
        let named = known.iter().filter(move |(_, by)| *by == source);
        named.map(|(peer, _)| *peer).collect()
    };
    let all = PeerSource::ALL.map(|source| (source, of(source)));
    all.into_iter()
        .filter(|(_, peers): &(_, Vec<_>)| !peers.is_empty())
        .collect()
}

/// What the data plane tells of its own accord is bad news, but for nodes that peers name.
fn lost(event: Option<Event>) -> Result<(), Failure> {
    match event {
        Some(Event::TorrentFault(fault)) => Err(anyhow!("{fault}").into()),
        Some(Event::ShardLost(shard)) => {
            Err(anyhow!("shard {shard} has ended, which is a bug; see the log").into())
        }
        // No torrent is dormant here; a wish that is dropped is refused.
        Some(Event::DhtNode(_) | Event::Wanted(_) | Event::Interface(_)) => Ok(()),
        None => Err(anyhow!("all shards have ended, which is a bug").into()),
    }
}
