//! Torrents that are not complete: looked at on the disk, then fetched by the data plane; what it
//! says is synced is kept.
//!
//! Limits: [`crate::Settings::downloads_max`] at a time ([`crate::turns`]).

use crate::completing::{Untold, lacks_wanted};
use crate::finding::Seeker;
use crate::keeping::{Change, Next};
use crate::manager::{Inner, Manager, Phase};
use crate::reading::{Kept, KeptError};
use crate::seeding::Awake;
use crate::unkept::Fields;
use control::catalog::Status;
use control::hooks::HookEvent;
use control::resume::{Claim, Resume, ResumeError, Resumed};
use control::roots::Outside;
use control::verify::PieceSet;
use engine::layout::{FileIndex, FileStamp};
use engine::peer_list::PeerSource;
use proto::ids::{InfoHashV1, PieceIndex};
use seedring_io::fetch::{Fetch, FetchEvent, FetchSpec};
use seedring_io::torrent::SeededTorrent;
use state::{Condition, Place, Progress, Update, Verified};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How long a download may take to sync what it has when it is stopped: a disk may hang.
const STOP: Duration = Duration::from_secs(10);

/// A download that is under way.
pub(crate) struct Download {
    pub number: u64,
    /// When it got something last, or was begun.
    pub gained: Instant,
    /// Whether all that is wanted of it is there.
    pub has_all_wanted: bool,
    pub untold: Untold,
    pub fetch: Arc<Fetch>,
    /// Those that are on stable storage.
    pub pieces: PieceSet,
    /// How much of what it has sent and received is in its totals.
    pub counted: (u64, u64, u64),
    /// How much each file is wanted; none if all as usual.
    pub priorities: Vec<engine::picker::Priority>,
}

/// What is known of a torrent before its download begins.
pub(crate) struct Prepared {
    info_hash: InfoHashV1,
    number: u64,
    result: Result<Box<Found>, PrepareError>,
}

struct Found {
    spec: FetchSpec,
    trackers: Vec<Vec<String>>,
    resumed: Resumed,
    /// Whether something that is wanted is missing.
    lacks: bool,
}

#[derive(Debug, thiserror::Error)]
enum PrepareError {
    #[error(transparent)]
    Kept(#[from] KeptError),
    #[error(transparent)]
    Resume(#[from] ResumeError),
    #[error("it was complete, and which of its pieces are right is not known")]
    Unhashed,
    #[error(transparent)]
    Outside(#[from] Outside),
    #[error("the folder {folder:?} cannot be made: {error}")]
    Folder {
        folder: std::path::PathBuf,
        error: std::io::Error,
    },
}

impl Manager {
    /// Begins a download, or has it wait for its turn.
    pub(crate) async fn download(&mut self, info_hash: InfoHashV1) {
        if !self.take_turn(info_hash) {
            return;
        }
        self.set_status(info_hash, Status::Downloading);
        let number = self.number();
        self.phases.insert(info_hash, Phase::Preparing(number));
        let (store, inner) = (self.keeping.store.clone(), self.inner.clone());
        let (settings, services) = (self.settings.clone(), Arc::clone(&self.services));
        let prepares = Arc::clone(&self.prepares);
        tokio::spawn(async move {
            let _turn = prepares.acquire_owned().await;
            // What an earlier download has synced last may be on its way to the disk; without it,
            // that would be fetched again.
            let _ = store.flush().await;
            let prepare = move || {
                let result = prepare(&store, info_hash, &settings, &services).map(Box::new);
                let prepared = Prepared {
                    info_hash,
                    number,
                    result,
                };
                let _ = inner.send(Inner::Prepared(Box::new(prepared)));
            };
            let _ = tokio::task::spawn_blocking(prepare).await;
        });
    }

    /// Begins a download whose data have been looked at.
    pub(crate) async fn begin(&mut self, prepared: Prepared) {
        let Prepared {
            info_hash,
            number,
            result,
        } = prepared;
        if !matches!(self.phases.get(&info_hash), Some(Phase::Preparing(mine)) if *mine == number) {
            return;
        }
        self.phases.remove(&info_hash);
        let found = match result {
            Ok(found) => *found,
            Err(PrepareError::Kept(error)) if error.is_passing() => {
                tracing::warn!(torrent = %info_hash, %error, "it cannot be read now");
                self.later(info_hash);
                return;
            }
            Err(PrepareError::Unhashed) => {
                self.recheck(info_hash).await;
                return;
            }
            Err(error) => {
                let condition = match &error {
                    PrepareError::Resume(ResumeError::Gone { .. })
                    | PrepareError::Outside(_)
                    | PrepareError::Folder { .. } => Condition::Offline,
                    _ => Condition::Failed,
                };
                tracing::error!(torrent = %info_hash, %error, "cannot be downloaded");
                self.condemn(info_hash, condition, error.to_string(), true)
                    .await;
                return;
            }
        };
        let Found {
            mut spec,
            trackers,
            resumed,
            lacks,
        } = found;
        spec.limits = self.limits_of(info_hash);
        let progress = Progress {
            verified: Some(Verified::Pieces(resumed.pieces.as_bitfield().to_vec())),
            stamps: (0..).zip(resumed.stamps.iter().copied()).collect(),
            totals: None,
        };
        self.keeping.note_progress(info_hash, progress).await;
        let count = resumed.pieces.len();
        self.show(info_hash, |torrent| torrent.pieces_verified = count);
        let untold = self.untold(info_hash, lacks).await;
        let private = spec.metainfo.private;
        let priorities = spec.priorities.clone();
        match self.services.plane.fetch(spec).await {
            Ok((fetch, events)) => {
                let fetch = Arc::new(fetch);
                self.forward(info_hash, number, events);
                if let Some(peers) = self.named.remove(&info_hash) {
                    fetch.add_peers(&peers);
                }
                let seeker = Seeker::Fetch(Arc::clone(&fetch));
                self.finding.fetch(info_hash, private, seeker);
                self.finding.announce(info_hash, &trackers, private, false);
                let download = Download {
                    number,
                    gained: Instant::now(),
                    has_all_wanted: false,
                    untold,
                    fetch,
                    pieces: resumed.pieces,
                    counted: (0, 0, 0),
                    priorities,
                };
                self.phases
                    .insert(info_hash, Phase::Downloading(Box::new(download)));
            }
            Err(error) => {
                let (failed, why) = (Condition::Failed, error.to_string());
                self.condemn(info_hash, failed, why, true).await;
            }
        }
    }

    /// Has the events of a download arrive here.
    fn forward(&self, info_hash: InfoHashV1, number: u64, mut events: mpsc::Receiver<FetchEvent>) {
        let inner = self.inner.clone();
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                let event = Inner::Fetch(info_hash, number, Box::new(event));
                if inner.send(event).is_err() {
                    return;
                }
            }
            let _ = inner.send(Inner::FetchEnded(info_hash, number));
        });
    }

    /// Ends a download; [`Inner::FetchEnded`] says when it has.
    pub(crate) fn end_download(&mut self, info_hash: InfoHashV1, download: Download) {
        self.count_fetched(info_hash, &download.fetch, download.counted);
        let fetch = download.fetch;
        tokio::spawn(async move {
            if !fetch.stop(STOP).await {
                tracing::warn!(torrent = %info_hash,
                    "the disk did not take all in time; what it did not is fetched again");
            }
        });
    }

    pub(crate) async fn fetch_ended(&mut self, info_hash: InfoHashV1, number: u64) {
        let is_mine = match self.phases.get(&info_hash) {
            Some(Phase::Stopping(mine)) => *mine == number,
            Some(Phase::Downloading(download)) => download.number == number,
            _ => false,
        };
        if !is_mine {
            return;
        }
        self.phases.remove(&info_hash);
        match self.leaving.remove(&info_hash) {
            Some(remains) => self.bury(info_hash, remains),
            None => {
                // It may have been stopped to be moved, or to have its files renamed.
                self.next_rename(info_hash);
                self.begin_halted(info_hash);
                self.next_move().await;
                self.start(info_hash).await;
            }
        }
        self.next_downloads().await;
    }

    pub(crate) async fn fetch_event(
        &mut self,
        info_hash: InfoHashV1,
        number: u64,
        event: FetchEvent,
    ) {
        match event {
            FetchEvent::Synced { pieces, stamps } => {
                self.synced(info_hash, number, &pieces, &stamps).await;
            }
            FetchEvent::Paused { reason, .. } => {
                tracing::warn!(torrent = %info_hash, %reason, "the download waits for its disk");
                self.tell_error(info_hash, Some(reason)).await;
            }
            FetchEvent::Resumed => {
                self.tell_error(info_hash, None).await;
            }
            FetchEvent::Banned { peer } => {
                tracing::info!(torrent = %info_hash, %peer, "sent wrong bytes and is kept away");
            }
            FetchEvent::SelectionDone => self.has_all_wanted(info_hash, number).await,
            FetchEvent::Complete(torrent) => self.complete(info_hash, number, torrent).await,
            FetchEvent::Failed(fault) => {
                tracing::error!(torrent = %info_hash, %fault, "the download has ended");
                // One that is being stopped goes on to be: its end is waited for.
                let Some(download) = self.take_download(info_hash, number) else {
                    return;
                };
                self.count_fetched(info_hash, &download.fetch, download.counted);
                self.finding.leave(info_hash);
                self.set_status(info_hash, Status::Failed);
                let (failed, why) = (Condition::Failed, fault.to_string());
                self.condemn(info_hash, failed, why, false).await;
            }
        }
    }

    /// The download of this number, if it is under way: its end is not waited for then, and nothing
    /// of it is to be begun again.
    fn take_download(&mut self, info_hash: InfoHashV1, number: u64) -> Option<Box<Download>> {
        match self.phases.get(&info_hash) {
            Some(Phase::Downloading(download)) if download.number == number => {}
            _ => return None,
        }
        match self.phases.remove(&info_hash) {
            Some(Phase::Downloading(download)) => Some(download),
            _ => None,
        }
    }

    /// These pieces are on stable storage, with these files as they are now.
    async fn synced(
        &mut self,
        info_hash: InfoHashV1,
        number: u64,
        pieces: &[PieceIndex],
        stamps: &[(FileIndex, FileStamp)],
    ) {
        let Some(Phase::Downloading(download)) = self.phases.get_mut(&info_hash) else {
            // One that ends tells its last pieces: they are added to what is kept.
            self.synced_late(info_hash, pieces, stamps).await;
            return;
        };
        if download.number != number {
            return;
        }
        for &piece in pieces {
            download.pieces.insert(piece);
        }
        let count = download.pieces.len();
        let verified = Verified::Pieces(download.pieces.as_bitfield().to_vec());
        self.show(info_hash, |torrent| torrent.pieces_verified = count);
        let progress = progress_of(verified, stamps);
        self.keeping.note_progress(info_hash, progress).await;
    }

    async fn synced_late(
        &mut self,
        info_hash: InfoHashV1,
        pieces: &[PieceIndex],
        stamps: &[(FileIndex, FileStamp)],
    ) {
        if self.leaving.contains_key(&info_hash) {
            return;
        }
        let read = move |view: &state::View| {
            let summary = view.summary(&info_hash)?;
            Ok((summary, view.verified(&info_hash)?))
        };
        // After what was handed over before.
        let _ = self.keeping.store.flush().await;
        let Ok((Some(summary), verified)) = self.keeping.store.read(read).await else {
            return;
        };
        let mut set = match verified {
            Verified::All => return,
            Verified::None => PieceSet::new(summary.pieces),
            Verified::Pieces(bits) => match PieceSet::from_bitfield(&bits, summary.pieces) {
                Some(set) => set,
                None => return,
            },
        };
        pieces.iter().for_each(|&piece| set.insert(piece));
        let count = set.len();
        let verified = Verified::Pieces(set.as_bitfield().to_vec());
        self.show(info_hash, |torrent| torrent.pieces_verified = count);
        let progress = progress_of(verified, stamps);
        self.keeping.note_progress(info_hash, progress).await;
    }

    /// All is there: it goes on as a torrent that is awake.
    async fn complete(&mut self, info_hash: InfoHashV1, number: u64, torrent: Arc<SeededTorrent>) {
        let now_s = self.clock.now_s();
        let private = torrent.metainfo().private;
        let change: Change = Arc::new(move |summary: &mut state::Summary| {
            summary.completed_at_s = Some(now_s);
            summary.completion_untold = false;
            summary.last_error = None;
        });
        let stamps = torrent.stamps().to_vec();
        let update = move || {
            let update = Update::new().verified(Verified::All);
            update.all_stamps(stamps.iter().copied())
        };
        let mine = match self.phases.get(&info_hash) {
            Some(Phase::Downloading(download)) if download.number == number => {
                Some((Arc::clone(&download.fetch), download.counted))
            }
            _ => None,
        };
        let pieces = torrent.metainfo().piece_count;
        self.show(info_hash, |torrent| torrent.pieces_verified = pieces);
        let told = Some((HookEvent::Completed, None));
        let next = Next::Completed(info_hash);
        let fields = Fields::NONE;
        self.settle_telling(info_hash, fields, update, change, next, told)
            .await;
        self.place(info_hash, Place::Out).await;
        let Some((fetch, counted)) = mine else {
            // It became complete while it was being stopped.
            self.services.plane.remove(&torrent).await;
            return;
        };
        tracing::info!(torrent = %info_hash, name = torrent.metainfo().name, "complete");
        self.count_fetched(info_hash, &fetch, counted);
        self.finding.completed(info_hash, private);
        if let Some(tracker) = &self.services.tracker {
            let services = &self.services;
            tracker.register_local(info_hash, services.peer_id, services.peer_port);
        }
        torrent.set_super_seeding(self.is_super_seeded(info_hash));
        let counted = torrent.uploaded_bytes();
        self.phases
            .insert(info_hash, Phase::Awake(Awake { torrent, counted }));
        self.next_downloads().await;
    }

    /// That it is complete is kept: it is shown.
    pub(crate) fn completed(&mut self, info_hash: InfoHashV1) {
        if matches!(self.phases.get(&info_hash), Some(Phase::Awake(_))) {
            self.set_status(info_hash, Status::Seeding);
        }
    }

    /// Names peers of a torrent.
    pub(crate) fn add_peers(
        &mut self,
        info_hash: InfoHashV1,
        peers: &[std::net::SocketAddr],
    ) -> Result<(), control::command::CommandError> {
        self.kept(info_hash)?;
        match self.phases.get(&info_hash) {
            Some(Phase::Downloading(download)) => download.fetch.add_peers(peers),
            Some(Phase::Metadata(metadata)) => metadata.fetch.add_peers(peers),
            Some(Phase::Awake(awake)) => {
                let plane = &self.services.plane;
                plane.found(&awake.torrent, peers, PeerSource::Given);
            }
            _ => {
                let list = self.named.entry(info_hash).or_default();
                list.extend(peers);
                list.truncate(NAMED_MAX);
            }
        }
        Ok(())
    }
}

/// What of a download has reached the disk.
fn progress_of(verified: Verified, stamps: &[(FileIndex, FileStamp)]) -> Progress {
    let stamps = stamps.iter().map(|(file, stamp)| (file.0, Some(*stamp)));
    Progress {
        verified: Some(verified),
        stamps: stamps.collect(),
        totals: None,
    }
}

/// Peers that are kept for a torrent that cannot ask them yet.
pub(crate) const NAMED_MAX: usize = 200;

/// Finds out what of a torrent is on the disk; blocks on it.
fn prepare(
    store: &state::Handle,
    info_hash: InfoHashV1,
    settings: &crate::Settings,
    services: &crate::Services,
) -> Result<Found, PrepareError> {
    let kept = Kept::read(store, info_hash)?;
    let metainfo = Arc::clone(kept.described()?);
    let folder = kept.summary.save_path.clone();
    settings.roots.check(&folder)?;
    let known = match &kept.verified {
        Verified::None => PieceSet::new(metainfo.piece_count),
        Verified::All => PieceSet::full(metainfo.piece_count),
        Verified::Pieces(bits) => PieceSet::from_bitfield(bits, metainfo.piece_count)
            .unwrap_or_else(|| PieceSet::new(metainfo.piece_count)),
    };
    // Nothing that was complete is fetched from nothing.
    if kept.summary.completed_at_s.is_some() && known.len() < metainfo.piece_count {
        return Err(PrepareError::Unhashed);
    }
    let resume = Resume {
        claim: Some(Claim {
            pieces: known,
            stamps: kept.stamps.clone(),
        }),
        always_hash: settings.always_hash,
        partial_suffix: kept.suffix(&settings.partial_suffix),
        renames: &kept.details.renames,
        cells: &services.cells,
        disk: services.disk,
    };
    let resumed = resume.look(&metainfo, &folder, &mut |_| ControlFlow::Continue(()))?;
    std::fs::create_dir_all(&folder).map_err(|error| PrepareError::Folder {
        folder: folder.clone(),
        error,
    })?;
    let mut spec = FetchSpec::new(Arc::clone(&metainfo), &folder);
    spec.verified = resumed.pieces.as_bitfield().to_vec();
    spec.stamps.clone_from(&resumed.stamps);
    spec.paths.clone_from(&kept.details.renames);
    spec.priorities = all_priorities(&kept, metainfo.files.len());
    spec.sequential = kept.summary.sequential;
    spec.allocation = settings.allocation;
    spec.past_cache = settings.past_cache;
    spec.set_suffix(&settings.partial_suffix);
    Ok(Found {
        spec,
        trackers: kept.trackers(),
        lacks: lacks_wanted(&metainfo, &kept.details.priorities, &resumed.pieces),
        resumed,
    })
}

/// How much each file is wanted: none if all as usual.
pub(crate) fn all_priorities(kept: &Kept, files: usize) -> Vec<engine::picker::Priority> {
    let mut priorities = kept.details.priorities.clone();
    if !priorities.is_empty() {
        priorities.resize(files, engine::picker::Priority::NORMAL);
    }
    priorities
}
