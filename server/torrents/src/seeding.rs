//! Complete torrents: loaded when peers want them, put to sleep when nobody has for a while,
//! withdrawn when their data are in doubt, and back when the data are.
//!
//! Data that are not there (an unmounted file system) make a torrent *offline*: nothing of what is
//! known of its pieces is forgotten, and when the files are there again, with the stamps that they
//! had, it is served again with no byte hashed. Files that have changed are hashed, when they have
//! been quiet between two looks.
//!
//! Limits: those of the roster of the data plane; one look at a torrent at a time, at intervals
//! from [`LOOK_AFTER_MIN`] to [`LOOK_AFTER_MAX`].

use crate::manager::{Inner, Manager, Phase};
use crate::reading::{Kept, KeptError};
use control::catalog::Status;
use control::hashing::{Links, Root, stamp_of};
use engine::layout::FileStamp;
use proto::ids::InfoHashV1;
use proto::metainfo::Metainfo;
use seedring_io::plane::{Keeper, Retired};
use seedring_io::roster::Wanted;
use seedring_io::torrent::{Fault, FaultCause, SeededTorrent};
use state::Condition;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long after a fault the data are looked at again, at first and at most; it doubles in
/// between.
const LOOK_AFTER_MIN: Duration = Duration::from_secs(5);
/// See [`LOOK_AFTER_MIN`].
const LOOK_AFTER_MAX: Duration = Duration::from_secs(600);

/// A torrent that is awake.
pub(crate) struct Awake {
    pub torrent: Arc<SeededTorrent>,
    /// How much of what it has sent is in its totals.
    pub counted: u64,
}

/// A torrent whose data are in doubt.
pub(crate) struct Doubt {
    number: u64,
    look_after: Duration,
    /// The stamps at the last look.
    looked: Option<Vec<Option<FileStamp>>>,
}

/// What came of reading a torrent that peers want.
pub(crate) struct Loaded {
    info_hash: InfoHashV1,
    wanted: Wanted,
    outcome: Result<Arc<SeededTorrent>, NotLoaded>,
}

enum NotLoaded {
    /// Its data were never hashed, or nothing is known of its files.
    Unhashed,
    Failed(String),
}

/// What came of a look at the files of a torrent in doubt.
pub(crate) struct Looked {
    info_hash: InfoHashV1,
    number: u64,
    outcome: Look,
}

enum Look {
    /// They are what they were when they were verified.
    AsBefore,
    /// They are there, and others; these are their stamps.
    Other(Vec<Option<FileStamp>>),
    /// One is missing, or the torrent cannot be read.
    Missing(String),
}

/// Hands one torrent, which is loaded, to the data plane, and hears which fall asleep for it.
#[derive(Default)]
struct Hand {
    torrent: Mutex<Option<Arc<SeededTorrent>>>,
    retired: Mutex<Vec<Retired>>,
}

impl Hand {
    fn into_retired(self) -> Vec<Retired> {
        self.retired
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keeper for Hand {
    async fn load(&self, _: InfoHashV1) -> Option<Arc<SeededTorrent>> {
        let torrent = self.torrent.lock();
        torrent.unwrap_or_else(PoisonError::into_inner).take()
    }

    fn retired(&self, retired: Retired) {
        let list = self.retired.lock();
        list.unwrap_or_else(PoisonError::into_inner).push(retired);
    }
}

impl Manager {
    /// Peers want a dormant torrent: reads it beside everything else.
    pub(crate) fn wanted(&mut self, wanted: Wanted) {
        let info_hash = wanted.info_hash();
        let sleeps = {
            let catalog = self.seat.catalog();
            catalog.get(&info_hash).is_some_and(crate::acting::sleeps)
        };
        // A wish that is dropped is refused.
        if !sleeps || !self.loading.insert(info_hash) {
            return;
        }
        let (store, inner) = (self.keeping.store.clone(), self.inner.clone());
        tokio::task::spawn_blocking(move || {
            let outcome = load(&store, info_hash);
            let loaded = Loaded {
                info_hash,
                wanted,
                outcome,
            };
            let _ = inner.send(Inner::Loaded(Box::new(loaded)));
        });
    }

    pub(crate) async fn loaded(&mut self, loaded: Loaded) {
        let Loaded {
            info_hash,
            wanted,
            outcome,
        } = loaded;
        // It was paused or removed meanwhile.
        if !self.loading.remove(&info_hash) {
            return;
        }
        let torrent = match outcome {
            Ok(torrent) => torrent,
            Err(NotLoaded::Unhashed) => {
                drop(wanted);
                self.services.plane.remove_dormant(&[info_hash]).await;
                self.check(info_hash);
                return;
            }
            Err(NotLoaded::Failed(error)) => {
                drop(wanted);
                tracing::error!(torrent = %info_hash, %error, "cannot be served");
                let failed = Condition::Failed;
                self.condemn(info_hash, failed, error, true).await;
                return;
            }
        };
        self.catch_up(&torrent);
        let limits = self.limits_of(info_hash);
        self.services.plane.set_torrent_limits(&torrent, limits);
        let hand = Hand {
            torrent: Mutex::new(Some(Arc::clone(&torrent))),
            ..Hand::default()
        };
        let plane = Arc::clone(&self.services.plane);
        if plane.wake(wanted, &hand, self.settings.sleep).await {
            let awake = Awake {
                torrent,
                counted: 0,
            };
            self.phases.insert(info_hash, Phase::Awake(awake));
        }
        self.retired(hand.into_retired());
    }

    /// Has those torrents fall asleep that nobody has used for a while.
    pub(crate) async fn rest(&mut self) {
        let hand = Hand::default();
        let plane = Arc::clone(&self.services.plane);
        plane.rest(&hand, self.settings.sleep).await;
        self.retired(hand.into_retired());
    }

    fn retired(&mut self, retired: Vec<Retired>) {
        for Retired { info_hash, .. } in retired {
            if let Some(Phase::Awake(awake)) = self.phases.remove(&info_hash) {
                self.count_uploaded(info_hash, &awake.torrent, awake.counted);
            }
            self.show(info_hash, |torrent| {
                torrent.live.upload_rate = 0;
                torrent.live.peers = 0;
                torrent.live.seeds = 0;
            });
        }
    }

    /// A torrent's data are in doubt; the data plane has stopped it.
    pub(crate) async fn fault(&mut self, fault: Fault) {
        let info_hash = fault.info_hash;
        if !matches!(self.phases.get(&info_hash), Some(Phase::Awake(_))) {
            return;
        }
        tracing::error!(torrent = %info_hash, file = %fault.file.display(), cause = %fault.cause,
            "a torrent is not served any more; it comes back when its data are right again");
        self.halt(info_hash).await;
        let is_missing = matches!(fault.cause, FaultCause::Missing | FaultCause::Io(_));
        self.doubt(info_hash, Some(fault.to_string()));
        let text = fault.to_string();
        // What is only away is not forgotten; what has changed is looked at before it is hashed.
        let condition = Condition::Offline;
        let restart = false;
        if is_missing {
            self.condemn(info_hash, condition, text, restart).await;
        } else {
            let at_s = self.clock.now_s();
            self.show(info_hash, |torrent| {
                torrent.summary.last_error = Some(state::LastError { at_s, text });
            });
        }
    }

    /// Begins to look at a torrent's files from time to time.
    pub(crate) fn doubt(&mut self, info_hash: InfoHashV1, why: Option<String>) {
        self.set_status(info_hash, Status::Offline);
        if let Some(text) = why {
            let at_s = self.clock.now_s();
            self.show(info_hash, |torrent| {
                torrent.summary.last_error = Some(state::LastError { at_s, text });
            });
        }
        let doubt = Doubt {
            number: self.number(),
            look_after: LOOK_AFTER_MIN,
            looked: None,
        };
        self.look_later(info_hash, &doubt);
        self.phases
            .insert(info_hash, Phase::Doubtful(Box::new(doubt)));
    }

    fn look_later(&self, info_hash: InfoHashV1, doubt: &Doubt) {
        let (store, inner) = (self.keeping.store.clone(), self.inner.clone());
        let (number, pause) = (doubt.number, doubt.look_after);
        let (suffix, looks) = (
            self.settings.partial_suffix.clone(),
            Arc::clone(&self.looks),
        );
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            // A disk that hangs keeps looks waiting, and nothing else.
            let _turn = looks.acquire_owned().await;
            let look = move || look(&store, info_hash, &suffix);
            let Ok(outcome) = tokio::task::spawn_blocking(look).await else {
                return;
            };
            let looked = Looked {
                info_hash,
                number,
                outcome,
            };
            let _ = inner.send(Inner::Looked(Box::new(looked)));
        });
    }

    pub(crate) async fn looked(&mut self, looked: Looked) {
        let Looked {
            info_hash,
            number,
            outcome,
        } = looked;
        let Some(Phase::Doubtful(doubt)) = self.phases.get_mut(&info_hash) else {
            return;
        };
        if doubt.number != number {
            return;
        }
        doubt.look_after = (doubt.look_after * 2).min(LOOK_AFTER_MAX);
        let next = match outcome {
            Look::AsBefore => Some(Condition::Ready),
            Look::Other(stamps) if doubt.looked.as_ref() == Some(&stamps) => {
                Some(Condition::NeedsCheck)
            }
            Look::Other(stamps) => {
                doubt.looked = Some(stamps);
                // It may be quiet already: the second look comes soon.
                doubt.look_after = LOOK_AFTER_MIN;
                None
            }
            Look::Missing(why) => {
                tracing::debug!(torrent = %info_hash, why, "still not served");
                doubt.looked = None;
                None
            }
        };
        let Some(condition) = next else {
            if let Some(Phase::Doubtful(doubt)) = self.phases.get(&info_hash) {
                self.look_later(info_hash, doubt);
            }
            return;
        };
        tracing::info!(torrent = %info_hash, "{}", match condition {
            Condition::Ready => "its files are there again, and as they were",
            _ => "its files are there, and others than before: they are hashed",
        });
        let change = move |summary: &mut state::Summary| {
            summary.condition = condition;
            if condition == Condition::Ready {
                summary.last_error = None;
            }
        };
        let change: crate::keeping::Change = Arc::new(change);
        let kept = Arc::clone(&change);
        let update = state::Update::new().summary(move |summary| kept(summary));
        self.update(info_hash, update, change, true, None).await;
    }
}

/// Reads a torrent for the data plane; blocks on the disk.
fn load(store: &state::Handle, info_hash: InfoHashV1) -> Result<Arc<SeededTorrent>, NotLoaded> {
    let failed = |error: String| NotLoaded::Failed(error);
    let kept = Kept::read(store, info_hash).map_err(|error| failed(error.to_string()))?;
    let metainfo = kept
        .described()
        .map_err(|error| failed(error.to_string()))?;
    // What was never hashed is not served: seed mode means that it is hashed now.
    if kept.summary.pieces != kept.verified.count(kept.summary.pieces) || !kept.is_stamped() {
        return Err(NotLoaded::Unhashed);
    }
    let torrent = SeededTorrent::new(
        Arc::clone(metainfo),
        &kept.summary.save_path,
        kept.stamps.clone(),
        kept.details.renames.clone(),
    );
    torrent
        .map(Arc::new)
        .map_err(|error| failed(error.to_string()))
}

/// Looks at the files of a torrent; blocks on the disk.
fn look(store: &state::Handle, info_hash: InfoHashV1, suffix: &str) -> Look {
    let kept = match Kept::read(store, info_hash) {
        Ok(kept) => kept,
        Err(error) => return Look::Missing(error.to_string()),
    };
    let metainfo = match kept.described() {
        Ok(metainfo) => metainfo,
        Err(KeptError::NoMetainfo) => return Look::AsBefore,
        Err(error) => return Look::Missing(error.to_string()),
    };
    match stamps_now(metainfo, &kept, suffix) {
        Err(missing) => Look::Missing(format!("{}: the file is missing", missing.display())),
        Ok(stamps) if stamps == kept.stamps => Look::AsBefore,
        Ok(stamps) => Look::Other(stamps),
    }
}

/// The stamps that the files have now of which the store has stamps; the first that is missing.
fn stamps_now(
    metainfo: &Metainfo,
    kept: &Kept,
    suffix: &str,
) -> Result<Vec<Option<FileStamp>>, PathBuf> {
    let folder = &kept.summary.save_path;
    let root = Root::open(folder, Links::Beneath).map_err(|_| folder.clone())?;
    let stamp = |(index, (file, known)): (u32, (&proto::metainfo::File, &Option<FileStamp>))| {
        if known.is_none() {
            return Ok(None);
        }
        let said = || file.path.iter().collect::<PathBuf>();
        let own = kept.details.renames.get(&index).cloned();
        let own = own.unwrap_or_else(said);
        let mut partial = own.clone().into_os_string();
        partial.push(suffix);
        let open = |path: &std::path::Path| root.open_file(path).ok();
        let found = open(&own).or_else(|| open(partial.as_ref()));
        let (_, metadata) = found.ok_or_else(|| folder.join(&own))?;
        Ok(Some(stamp_of(&metadata)))
    };
    let files = metainfo.files.iter().zip(&kept.stamps);
    (0..).zip(files).map(stamp).collect()
}
