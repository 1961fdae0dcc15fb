//! The torrents of the running server: added to the data plane, the tracker and the announcer alike,
//! withdrawn from all when their data are in doubt, brought back when the data are right again.
//!
//! Limits: one hashing at a time, so that re-checks never take more than what the first check took.

use control::announce::{AnnounceHandle, Totals, TotalsNow};
use control::library::{Library, LibraryError, Ready};
use control::state::State;
use control::tracker::TrackerHandle;
use engine::layout::FileStamp;
use proto::ids::{InfoHashV1, PeerId};
use seedring_io::plane::Plane;
use seedring_io::torrent::{AddError, Fault, SeededTorrent};
use seedring_metrics::{ControlCells, ControlGauge};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long after a fault the data are looked at again, at first and at most; it doubles in between.
const LOOK_AFTER_MIN: Duration = Duration::from_secs(5);
const LOOK_AFTER_MAX: Duration = Duration::from_secs(600);

/// What torrents are handed to.
pub struct Services {
    pub plane: Arc<Plane>,
    pub tracker: Option<TrackerHandle>,
    /// The announce URL of our own tracker: torrents are listed there directly, not announced.
    pub own_tracker: Option<String>,
    pub announcer: Option<AnnounceHandle>,
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
    /// How long after the last look, or the fault, the data are looked at again.
    look_after: Duration,
    /// The stamps at the last look; hashing waits until two looks find the same.
    looked: Option<Vec<Option<FileStamp>>>,
}

/// What came of looking at a faulty torrent's data again.
pub struct Look {
    info_hash: InfoHashV1,
    ready: Ready,
    outcome: LookOutcome,
}

enum LookOutcome {
    /// A file is missing, has another length or is still changing; these are the stamps now.
    NotYet(Option<Vec<Option<FileStamp>>>),
    /// All of it was hashed and is right.
    Right,
    /// It was hashed and is wrong.
    Wrong(LibraryError),
}

impl Look {
    /// The torrent that was looked at.
    pub fn info_hash(&self) -> InfoHashV1 {
        self.info_hash
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
    /// Sources that could not be loaded: there is no entry for them.
    failed: usize,
    looks: mpsc::UnboundedSender<Look>,
}

/// Reads a torrent's totals for its announces.
struct UploadTotals(Arc<SeededTorrent>);

impl Totals for UploadTotals {
    fn now(&self) -> TotalsNow {
        TotalsNow {
            uploaded: self.0.uploaded_bytes(),
            downloaded: 0,
            left: 0,
        }
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
            failed: 0,
            looks,
        };
        (torrents, received)
    }

    /// Where what happens to torrents is counted.
    pub fn cells(&self) -> Arc<ControlCells> {
        Arc::clone(&self.services.cells)
    }

    /// So many sources are still to be loaded, and so many could not be.
    pub fn progress(&mut self, loading: usize, failed: usize) {
        self.failed = failed;
        self.services
            .cells
            .set(ControlGauge::TorrentsLoading, loading as u64);
        if loading == 0 {
            self.publish();
        }
    }

    /// Serves a torrent. One that is served already is left as it is.
    pub async fn add(&mut self, ready: Ready, torrent_file: PathBuf) -> Result<(), AddError> {
        if self.entries.contains_key(&ready.info_hash) {
            return Ok(());
        }
        let seeded = Arc::new(seeded(&ready)?);
        let info_hash = ready.info_hash;
        self.serve(&ready, &seeded).await;
        let entry = Entry {
            ready,
            torrent_file,
            seeded,
            fault: None,
            look_after: LOOK_AFTER_MIN,
            looked: None,
        };
        self.entries.insert(info_hash, entry);
        self.order.push(info_hash);
        self.publish();
        Ok(())
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
        if entry.fault.replace(fault).is_some() {
            return false;
        }
        let info_hash = entry.ready.info_hash;
        entry.look_after = LOOK_AFTER_MIN;
        entry.looked = None;
        let seeded = Arc::clone(&entry.seeded);
        self.services.plane.remove(&seeded).await;
        if let Some(tracker) = &self.services.tracker {
            tracker.disallow(info_hash);
        }
        if let Some(announcer) = &self.services.announcer {
            announcer.remove(info_hash);
        }
        self.look_later(info_hash);
        self.publish();
        true
    }

    /// Takes a finished look. True if the torrent is served again.
    pub async fn looked(&mut self, look: Look) -> bool {
        let Some(entry) = self.entries.get_mut(&look.info_hash) else {
            return false;
        };
        entry.look_after = (entry.look_after * 2).min(LOOK_AFTER_MAX);
        entry.looked = match look.outcome {
            LookOutcome::Right => {
                return self.bring_back(look.ready).await;
            }
            LookOutcome::NotYet(stamps) => stamps,
            LookOutcome::Wrong(error) => {
                tracing::warn!(torrent = %look.info_hash, %error, "still not served");
                None
            }
        };
        self.look_later(look.info_hash);
        false
    }

    async fn bring_back(&mut self, ready: Ready) -> bool {
        let info_hash = ready.info_hash;
        let seeded = match seeded(&ready) {
            Ok(seeded) => Arc::new(seeded),
            Err(error) => {
                tracing::error!(torrent = %info_hash, %error, "cannot be served again");
                return false;
            }
        };
        self.serve(&ready, &seeded).await;
        if let Some(entry) = self.entries.get_mut(&info_hash) {
            entry.ready = ready;
            entry.seeded = seeded;
            entry.fault = None;
        }
        self.publish();
        true
    }

    /// Hands a torrent to the data plane, the tracker and the announcer.
    async fn serve(&self, ready: &Ready, seeded: &Arc<SeededTorrent>) {
        let services = &self.services;
        services.plane.add(seeded).await;
        if let Some(tracker) = &services.tracker {
            tracker.register_local(ready.info_hash, services.peer_id, services.peer_port);
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
            let totals = Arc::new(UploadTotals(Arc::clone(seeded)));
            announcer.add(ready.info_hash, &tiers, ready.metainfo.private, totals);
        }
    }

    /// Looks at a faulty torrent's data after its pause, on a thread for blocking work.
    fn look_later(&self, info_hash: InfoHashV1) {
        let Some(entry) = self.entries.get(&info_hash) else {
            return;
        };
        let (ready, before) = (entry.ready.clone(), entry.looked.clone());
        let (state, looks) = (Arc::clone(&self.services.state), self.looks.clone());
        let cells = Arc::clone(&self.services.cells);
        let pause = entry.look_after;
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let look = move || look(&state, &cells, ready, before.as_ref());
            if let Ok(look) = tokio::task::spawn_blocking(look).await {
                let _ = looks.send(look);
            }
        });
    }

    fn publish(&self) {
        let faulty = self
            .entries
            .values()
            .filter(|entry| entry.fault.is_some())
            .count();
        let bytes: u64 = self
            .entries
            .values()
            .map(|entry| entry.ready.metainfo.total_length)
            .sum();
        let cells = &self.services.cells;
        cells.set(ControlGauge::TorrentsError, (faulty + self.failed) as u64);
        cells.set(
            ControlGauge::TorrentsSeeding,
            (self.entries.len() - faulty) as u64,
        );
        cells.set(ControlGauge::TorrentBytes, bytes);
    }
}

fn seeded(ready: &Ready) -> Result<SeededTorrent, AddError> {
    let (stamps, paths) = (ready.stamps.clone(), ready.paths.clone());
    SeededTorrent::new(Arc::clone(&ready.metainfo), &ready.data_dir, stamps, paths)
}

/// Hashes the data again once they have been quiet for a while.
fn look(
    state: &State,
    cells: &ControlCells,
    mut ready: Ready,
    before: Option<&Vec<Option<FileStamp>>>,
) -> Look {
    let info_hash = ready.info_hash;
    let now = ready.stamps_now();
    let outcome = if now.is_none() || now.as_ref() != before {
        LookOutcome::NotYet(now)
    } else {
        let library = Library {
            state,
            always_hash: true,
            cells,
        };
        match library.hash(&mut ready, &mut |_| ControlFlow::Continue(())) {
            Ok(()) => LookOutcome::Right,
            Err(error) => LookOutcome::Wrong(error),
        }
    };
    Look {
        info_hash,
        ready,
        outcome,
    }
}
