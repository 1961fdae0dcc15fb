//! The torrents of the running server: added to the data plane, the tracker and the announcer alike,
//! withdrawn from all when their data are in doubt, brought back when the data are right again.
//!
//! Limits: one re-check hashes at a time, so that a disk that comes back with a thousand torrents is read
//! as gently as at a start.

use crate::disk::BACKGROUND;
use control::announce::{AnnounceHandle, Totals, TotalsNow};
use control::dht::DhtHandle;
use control::library::{Library, LibraryError, Ready};
use control::lsd::{LsdHandle, PeerSink};
use control::state::State;
use control::tracker::TrackerHandle;
use engine::layout::FileStamp;
use engine::peer_list::PeerSource;
use proto::ids::{InfoHashV1, PeerId};
use seedring_io::plane::Plane;
use seedring_io::torrent::{AddError, Fault, SeededTorrent};
use seedring_metrics::{ControlCells, ControlGauge};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use torrents::{Declared, ManagerHandle};

/// How long after a fault the data are looked at again, at first and at most; it doubles in between.
const LOOK_AFTER_MIN: Duration = Duration::from_secs(5);
const LOOK_AFTER_MAX: Duration = Duration::from_secs(600);

/// Torrents that are told to be found by nobody; further ones are not.
const UNFINDABLE_TOLD_MAX: usize = 10;

/// What torrents are handed to.
pub struct Services {
    pub plane: Arc<Plane>,
    pub tracker: Option<TrackerHandle>,
    /// The announce URL of our own tracker: torrents are listed there directly, not announced.
    pub own_tracker: Option<String>,
    pub announcer: Option<AnnounceHandle>,
    pub lsd: Option<LsdHandle>,
    pub dht: Option<DhtHandle>,
    /// Who shows them beside those that are kept.
    pub kept: ManagerHandle,
    pub state: Arc<State>,
    pub cells: Arc<ControlCells>,
    pub peer_id: PeerId,
    pub peer_port: u16,
}

/// A torrent of the server.
struct Entry {
    ready: Ready,
    /// Where its `.torrent` file was written or read.
    torrent_file: PathBuf,
    seeded: Arc<SeededTorrent>,
    fault: Option<Fault>,
    /// The look at its data that is awaited while it has a fault. One of an earlier fault may still
    /// be under way, perhaps at another folder: a reload can have it served from elsewhere.
    look: u64,
    /// How long after the last look, or the fault, the data are looked at again.
    look_after: Duration,
    /// The stamps at the last look; hashing waits until two looks find the same.
    looked: Option<Vec<Option<FileStamp>>>,
}

/// What came of looking at a faulty torrent's data again.
pub struct Look {
    number: u64,
    ready: Ready,
    outcome: LookOutcome,
}

enum LookOutcome {
    /// A file is missing, has another length or is still changing; these are the stamps now.
    NotYet(Option<Vec<Option<FileStamp>>>),
    /// Every file is there and nothing has changed since the last look: its data are to be hashed.
    Quiet,
    /// All of it was hashed and is right.
    Right,
    /// It was hashed and is wrong.
    Wrong(LibraryError),
}

impl Look {
    /// The torrent that was looked at.
    pub fn info_hash(&self) -> InfoHashV1 {
        self.ready.info_hash
    }

    /// Looks whether the files are there and have been quiet since the stamps `before`.
    fn at_stamps(number: u64, ready: Ready, before: Option<&Vec<Option<FileStamp>>>) -> Look {
        let now = ready.stamps_now();
        let outcome = if now.is_some() && now.as_ref() == before {
            LookOutcome::Quiet
        } else {
            LookOutcome::NotYet(now)
        };
        Look {
            number,
            ready,
            outcome,
        }
    }

    /// Hashes the data.
    fn at_data(mut self, state: &State, cells: &ControlCells) -> Look {
        let library = Library {
            state,
            always_hash: true,
            cells,
            disk: BACKGROUND,
        };
        self.outcome = match library.hash(&mut self.ready, &mut |_| ControlFlow::Continue(())) {
            Ok(()) => LookOutcome::Right,
            Err(error) => LookOutcome::Wrong(error),
        };
        self
    }
}

/// What is told of a torrent when it is served.
pub struct Served<'a> {
    pub ready: &'a Ready,
    pub torrent_file: &'a PathBuf,
}

/// All torrents of the server.
pub struct Torrents {
    services: Services,
    entries: HashMap<InfoHashV1, Entry>,
    order: Vec<InfoHashV1>,
    counts: Counts,
    /// Held by the one re-check that hashes.
    hashing: Arc<Semaphore>,
    looks: mpsc::UnboundedSender<Look>,
    /// Looks that have begun: the number of the last one.
    looks_begun: u64,
    /// Torrents that were told to be found by nobody.
    unfindable: usize,
}

/// What the gauges show, kept up to date so that no change costs a look at all torrents.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Counts {
    /// Torrents that are out of service.
    faulty: usize,
    /// Sources that could not be loaded: there is no entry for them.
    failed: usize,
    /// The length of all torrents.
    bytes: u64,
}

/// Reads a torrent's totals for its announces, and takes the peers that others name for it.
struct Seed {
    torrent: Arc<SeededTorrent>,
    plane: Arc<Plane>,
}

impl Totals for Seed {
    fn now(&self) -> TotalsNow {
        TotalsNow {
            uploaded: self.torrent.uploaded_bytes(),
            downloaded: 0,
            left: 0,
        }
    }

    fn found(&self, peers: &[SocketAddr]) {
        self.plane.found(&self.torrent, peers, PeerSource::Tracker);
    }
}

impl PeerSink for Seed {
    fn found(&self, peers: &[SocketAddr], source: PeerSource) {
        self.plane.found(&self.torrent, peers, source);
    }
}

impl Torrents {
    /// No torrents yet. Finished looks arrive at the receiver and go to [`Torrents::looked`].
    pub fn new(services: Services) -> (Torrents, mpsc::UnboundedReceiver<Look>) {
        // Bounded by the torrents: each has at most one look under way.
        let (looks, received) = mpsc::unbounded_channel();
        let torrents = Torrents {
            services,
            entries: HashMap::new(),
            order: Vec::new(),
            counts: Counts::default(),
            hashing: Arc::new(Semaphore::new(1)),
            looks,
            looks_begun: 0,
            unfindable: 0,
        };
        (torrents, received)
    }

    /// So many sources are still to be loaded.
    pub fn loading(&self, left: usize) {
        let cells = &self.services.cells;
        cells.set(ControlGauge::TorrentsLoading, left as u64);
    }

    /// Whether a torrent is one of these.
    pub fn has(&self, info_hash: InfoHashV1) -> bool {
        self.entries.contains_key(&info_hash)
    }

    /// A source could not be loaded.
    pub fn not_loaded(&mut self) {
        self.counts.failed += 1;
        self.publish();
    }

    /// So many of those that could not be loaded are tried again, or are named no more.
    pub fn forget_not_loaded(&mut self, count: usize) {
        self.counts.failed = self.counts.failed.saturating_sub(count);
        self.publish();
    }

    /// Serves a torrent. One that is served already is left as it is: false then.
    pub async fn add(&mut self, ready: Ready, torrent_file: PathBuf) -> Result<bool, AddError> {
        if let Some(entry) = self.entries.get(&ready.info_hash) {
            tracing::warn!(torrent = %ready.info_hash, served = ?entry.ready.data_dir,
                left_out = ?ready.data_dir, "the same torrent twice: served from one place only");
            return Ok(false);
        }
        let seeded = Arc::new(seeded(&ready)?);
        let info_hash = ready.info_hash;
        self.serve(&ready, &seeded).await;
        self.tell_if_nobody_finds(&ready);
        let entry = Entry {
            ready,
            torrent_file,
            seeded,
            fault: None,
            look: 0,
            look_after: LOOK_AFTER_MIN,
            looked: None,
        };
        self.counts.bytes += entry.ready.metainfo.total_length;
        self.entries.insert(info_hash, entry);
        self.order.push(info_hash);
        self.publish();
        Ok(true)
    }

    /// Serves a torrent no more, because it is named no more.
    pub async fn remove(&mut self, info_hash: InfoHashV1) {
        let Some(entry) = self.entries.remove(&info_hash) else {
            return;
        };
        self.order.retain(|other| *other != info_hash);
        self.counts.bytes -= entry.ready.metainfo.total_length;
        match entry.fault {
            Some(_) => self.counts.faulty -= 1,
            None => self.withdraw(info_hash, &entry.seeded).await,
        }
        self.services.kept.undeclare(info_hash).await;
        self.publish();
    }

    /// Warns of a torrent that nobody can find, the first few times.
    fn tell_if_nobody_finds(&mut self, ready: &Ready) {
        let Services {
            tracker,
            announcer,
            lsd,
            dht,
            ..
        } = &self.services;
        let private = ready.metainfo.private;
        let announced = announcer.is_some() && !ready.metainfo.trackers.is_empty();
        let others = !private && (lsd.is_some() || dht.is_some());
        if tracker.is_some() || announced || others || self.unfindable >= UNFINDABLE_TOLD_MAX {
            return;
        }
        self.unfindable += 1;
        tracing::warn!(torrent = %ready.info_hash, "{}: only peers who are given this address find it",
        match private {
            true => "a private torrent that no tracker is told of",
            false => "no tracker, DHT or local discovery tells of this torrent",
        });
    }

    /// The torrents in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = Served<'_>> {
        let entries = self
            .order
            .iter()
            .filter_map(|info_hash| self.entries.get(info_hash));
        entries.map(|entry| Served {
            ready: &entry.ready,
            torrent_file: &entry.torrent_file,
        })
    }

    /// Takes a fault of a torrent that the data plane has stopped: withdraws it everywhere and begins to
    /// look at its data. False if it is known or of a torrent that is gone.
    pub async fn fault(&mut self, fault: Fault) -> bool {
        let Some(entry) = self.entries.get_mut(&fault.info_hash) else {
            return false;
        };
        let why = fault.to_string();
        if entry.fault.replace(fault).is_some() {
            return false;
        }
        self.counts.faulty += 1;
        let info_hash = entry.ready.info_hash;
        entry.look_after = LOOK_AFTER_MIN;
        entry.looked = None;
        let seeded = Arc::clone(&entry.seeded);
        self.withdraw(info_hash, &seeded).await;
        self.services.kept.withdrawn(info_hash, why);
        self.look_later(info_hash);
        self.publish();
        true
    }

    /// Takes a torrent from all that have it.
    async fn withdraw(&self, info_hash: InfoHashV1, seeded: &Arc<SeededTorrent>) {
        self.services.plane.remove(seeded).await;
        if let Some(tracker) = &self.services.tracker {
            tracker.disallow(info_hash);
        }
        if let Some(announcer) = &self.services.announcer {
            announcer.remove(info_hash);
        }
        if let Some(lsd) = &self.services.lsd {
            lsd.remove(info_hash);
        }
        if let Some(dht) = &self.services.dht {
            dht.remove(info_hash);
        }
    }

    /// Takes a finished look. True if the torrent is served again.
    pub async fn looked(&mut self, look: Look) -> bool {
        let info_hash = look.info_hash();
        let Some(entry) = self.entries.get_mut(&info_hash) else {
            return false;
        };
        // It was withdrawn meanwhile, and is served anew, or was and has another fault.
        if entry.fault.is_none() || entry.look != look.number {
            return false;
        }
        entry.look_after = (entry.look_after * 2).min(LOOK_AFTER_MAX);
        entry.looked = match look.outcome {
            LookOutcome::Right => {
                return self.bring_back(look.ready).await;
            }
            LookOutcome::NotYet(stamps) => stamps,
            // Never sent: the data are hashed then.
            LookOutcome::Quiet => None,
            LookOutcome::Wrong(error) => {
                tracing::warn!(torrent = %info_hash, %error, "still not served");
                None
            }
        };
        self.look_later(info_hash);
        false
    }

    async fn bring_back(&mut self, ready: Ready) -> bool {
        let info_hash = ready.info_hash;
        let seeded = match seeded(&ready) {
            Ok(seeded) => Arc::new(seeded),
            Err(error) => {
                tracing::error!(torrent = %info_hash, %error, "cannot be served again");
                self.look_later(info_hash);
                return false;
            }
        };
        self.serve(&ready, &seeded).await;
        if let Some(entry) = self.entries.get_mut(&info_hash) {
            entry.ready = ready;
            entry.seeded = seeded;
            entry.fault = None;
            self.counts.faulty -= 1;
        }
        self.publish();
        true
    }

    /// Hands a torrent to the data plane, the tracker, the announcer and, if it is not private,
    /// local discovery and the DHT.
    async fn serve(&self, ready: &Ready, seeded: &Arc<SeededTorrent>) {
        let services = &self.services;
        let declared = Declared {
            ready: ready.clone(),
            torrent: Arc::clone(seeded),
        };
        services.kept.declare(declared).await;
        // Whoever named it wants it served at once, and nobody could load it again.
        seeded.keep_awake();
        services.plane.add(seeded).await;
        if let Some(tracker) = &services.tracker {
            tracker.register_local(ready.info_hash, services.peer_id, services.peer_port);
        }
        let seed = Arc::new(Seed {
            torrent: Arc::clone(seeded),
            plane: Arc::clone(&services.plane),
        });
        let private = ready.metainfo.private;
        if let Some(lsd) = services.lsd.as_ref().filter(|_| !private) {
            lsd.add(ready.info_hash, Arc::clone(&seed) as _);
        }
        if let Some(dht) = &services.dht {
            dht.announce(ready.info_hash, private, Arc::clone(&seed) as _);
        }
        let Some(announcer) = &services.announcer else {
            return;
        };
        let ours = |url: &String| Some(url) == services.own_tracker.as_ref();
        let tiers = ready.metainfo.trackers.iter().map(|tier| {
            tier.iter()
                .filter(|url| !ours(url))
                .cloned()
                .collect::<Vec<_>>()
        });
        let tiers: Vec<_> = tiers.filter(|tier| !tier.is_empty()).collect();
        if !tiers.is_empty() {
            announcer.add(ready.info_hash, &tiers, private, seed);
        }
    }

    /// Looks at a faulty torrent's data after its pause, on a thread for blocking work.
    fn look_later(&mut self, info_hash: InfoHashV1) {
        let Some(entry) = self.entries.get_mut(&info_hash) else {
            return;
        };
        self.looks_begun += 1;
        let number = self.looks_begun;
        entry.look = number;
        let (ready, before) = (entry.ready.clone(), entry.looked.clone());
        let (state, looks) = (Arc::clone(&self.services.state), self.looks.clone());
        let cells = Arc::clone(&self.services.cells);
        let (hashing, pause) = (Arc::clone(&self.hashing), entry.look_after);
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            // The stamps are looked at first, in parallel: a disk that hangs or is still away must not
            // keep the turn from others.
            let look = move || Look::at_stamps(number, ready, before.as_ref());
            let look = match tokio::task::spawn_blocking(look).await {
                Ok(look) if matches!(look.outcome, LookOutcome::Quiet) => {
                    let _turn = hashing.acquire_owned().await;
                    tokio::task::spawn_blocking(move || look.at_data(&state, &cells)).await
                }
                look => look,
            };
            match look {
                Ok(look) => {
                    let _ = looks.send(look);
                }
                Err(error) => {
                    tracing::error!(torrent = %info_hash, %error, "a re-check ended early");
                }
            }
        });
    }

    fn publish(&self) {
        let Counts {
            faulty,
            failed,
            bytes,
        } = self.counts;
        let cells = &self.services.cells;
        let seeding = self.entries.len() - faulty;
        cells.set(ControlGauge::TorrentsError, (faulty + failed) as u64);
        cells.set(ControlGauge::TorrentsSeeding, seeding as u64);
        cells.set(ControlGauge::TorrentBytes, bytes);
    }
}

fn seeded(ready: &Ready) -> Result<SeededTorrent, AddError> {
    let (stamps, paths) = (ready.stamps.clone(), ready.paths.clone());
    SeededTorrent::new(Arc::clone(&ready.metainfo), &ready.data_dir, stamps, paths)
}

#[cfg(test)]
mod tests;
