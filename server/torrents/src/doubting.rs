//! Torrents whose data are in doubt: withdrawn, looked at from time to time, and back when the data
//! are.
//!
//! Data that are not there (an unmounted file system) make a torrent *offline*: nothing of what is
//! known of its pieces is forgotten, and when the files are there again, with the stamps that they
//! had, it is served again with no byte hashed. Files that have changed are hashed, when they have
//! been quiet between two looks; so are those that are as they were and could not be read, because
//! a piece that lies in a bad place must not be promised again.
//!
//! Limits: one look at a torrent at a time, at intervals from [`LOOK_AFTER_MIN`] to
//! [`LOOK_AFTER_MAX`]; a torrent that has come back and is in doubt again waits for longer than the
//! time before, and of those that have come back [`RETURNED_MAX`] are remembered.

use crate::manager::{Inner, Manager, Phase};
use crate::reading::{Kept, KeptError};
use crate::unkept::Fields;
use control::catalog::Status;
use control::hashing::{Links, Root, stamp_of};
use control::roots::Roots;
use engine::layout::FileStamp;
use proto::ids::InfoHashV1;
use proto::metainfo::{File, Metainfo};
use seedring_io::torrent::{Fault, FaultCause};
use state::Condition;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long after a fault the data are looked at again, at first and at most; it doubles in
/// between.
const LOOK_AFTER_MIN: Duration = Duration::from_secs(5);
/// See [`LOOK_AFTER_MIN`].
const LOOK_AFTER_MAX: Duration = Duration::from_secs(600);

/// For how long a torrent that has come back goes on where it was, if it is in doubt again: what
/// fails whenever a peer asks for one piece would be withdrawn and announced every few seconds.
const RETURNED_FOR: Duration = Duration::from_secs(3600);

/// Torrents that have come back and are remembered. One more is not: it begins anew.
const RETURNED_MAX: usize = 10_000;

/// Those that have come back lately.
#[derive(Default)]
pub(crate) struct Returned {
    lately: HashMap<InfoHashV1, (Instant, Duration)>,
}

impl Returned {
    /// How long after a fault the data of a torrent are looked at.
    fn look_after(&mut self, info_hash: &InfoHashV1, now: Instant) -> Duration {
        let before = self.lately.remove(info_hash);
        let before = before.filter(|(at, _)| now.duration_since(*at) < RETURNED_FOR);
        before.map_or(LOOK_AFTER_MIN, |(_, after)| after)
    }

    /// A torrent is back, and would be looked at so long after the next fault.
    fn note(&mut self, info_hash: InfoHashV1, after: Duration, now: Instant) {
        if self.lately.len() >= RETURNED_MAX {
            self.lately
                .retain(|_, (at, _)| now.duration_since(*at) < RETURNED_FOR);
        }
        if self.lately.len() < RETURNED_MAX {
            self.lately.insert(info_hash, (now, after));
        }
    }

    /// A torrent is gone.
    pub(crate) fn forget(&mut self, info_hash: &InfoHashV1) {
        self.lately.remove(info_hash);
    }
}

/// A torrent whose data are in doubt.
pub(crate) struct Doubt {
    number: u64,
    look_after: Duration,
    /// The stamps at the last look.
    looked: Option<Vec<Option<FileStamp>>>,
    /// Whether reading has failed: the data are hashed even if the files are as they were.
    unreadable: bool,
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

impl Manager {
    /// A torrent's data are in doubt; the data plane has stopped it.
    pub(crate) async fn fault(&mut self, fault: Fault) {
        let info_hash = fault.info_hash;
        if !matches!(self.phases.get(&info_hash), Some(Phase::Awake(_))) {
            return;
        }
        tracing::error!(torrent = %info_hash, file = %fault.file.display(), cause = %fault.cause,
            "a torrent is not served any more; it comes back when its data are right again");
        self.halt(info_hash).await;
        let text = fault.to_string();
        self.doubt(info_hash, Some(text.clone()));
        if let Some(Phase::Doubtful(doubt)) = self.phases.get_mut(&info_hash) {
            doubt.unreadable = matches!(fault.cause, FaultCause::Io(_));
        }
        // What is only away is not forgotten; what has changed is looked at before it is hashed.
        let (condition, restart) = (Condition::Offline, false);
        self.condemn(info_hash, condition, text, restart).await;
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
            look_after: self.returned.look_after(&info_hash, Instant::now()),
            looked: None,
            unreadable: false,
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
        let roots = self.settings.roots.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            // A disk that hangs keeps looks waiting, and nothing else.
            let _turn = looks.acquire_owned().await;
            let look = move || look(&store, info_hash, &suffix, &roots);
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
            // There is no other way to find out which piece it was.
            Look::AsBefore if doubt.unreadable => Some(Condition::NeedsCheck),
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
        let Some(Phase::Doubtful(doubt)) = self.phases.get(&info_hash) else {
            return;
        };
        let Some(condition) = next else {
            self.look_later(info_hash, doubt);
            return;
        };
        tracing::info!(torrent = %info_hash, "{}", match condition {
            Condition::Ready => "its files are there again, and as they were",
            _ if doubt.unreadable => "its files are as they were, but could not be read: they are \
                hashed",
            _ => "its files are there, and others than before: they are hashed",
        });
        let after = doubt.look_after;
        self.returned.note(info_hash, after, Instant::now());
        let change = move |summary: &mut state::Summary| {
            summary.condition = condition;
            if condition == Condition::Ready {
                summary.last_error = None;
            }
        };
        let change: crate::keeping::Change = Arc::new(change);
        let next = crate::keeping::Next::Restart(info_hash);
        let fields = Fields::CONDITION;
        self.settle(info_hash, fields, state::Update::new, change, next)
            .await;
    }
}

/// Looks at the files of a torrent; blocks on the disk.
fn look(store: &state::Handle, info_hash: InfoHashV1, suffix: &str, roots: &Roots) -> Look {
    let kept = match Kept::read(store, info_hash) {
        Ok(kept) => kept,
        Err(error) => return Look::Missing(error.to_string()),
    };
    if let Err(outside) = roots.check(&kept.summary.save_path) {
        return Look::Missing(outside.to_string());
    }
    let metainfo = match kept.described() {
        Ok(metainfo) => metainfo,
        Err(KeptError::NoMetainfo) => return Look::AsBefore,
        Err(error) => return Look::Missing(error.to_string()),
    };
    let known = kept.stamps.iter().any(Option::is_some);
    let stamps = match known {
        true => stamps_now(metainfo, &kept, suffix),
        false => look_at_unknown(metainfo, &kept, suffix),
    };
    match stamps {
        Err(missing) => Look::Missing(missing),
        Ok(stamps) if stamps == kept.stamps => Look::AsBefore,
        Ok(stamps) => Look::Other(stamps),
    }
}

/// The stamps of the files of a torrent that has none; an error if none of its files is there, or
/// if its folder cannot be made, of one of which nothing was ever there.
fn look_at_unknown(
    metainfo: &Metainfo,
    kept: &Kept,
    suffix: &str,
) -> Result<Vec<Option<FileStamp>>, String> {
    let folder = &kept.summary.save_path;
    if kept.pieces_said() == 0 {
        let made = std::fs::create_dir_all(folder);
        made.map_err(|error| format!("the folder {folder:?} cannot be made: {error}"))?;
        return Ok(kept.stamps.clone());
    }
    let none = || format!("none of its files is in {folder:?}");
    let root = Root::open(folder, Links::Beneath).map_err(|_| none())?;
    let stamp = |(index, file): (u32, &File)| {
        let on_disk = !file.pad && file.symlink_target.is_none();
        on_disk.then(|| find(&root, kept, (index, file), suffix).ok())?
    };
    let stamps: Vec<_> = (0..).zip(&metainfo.files).map(stamp).collect();
    let mut found = metainfo.files.iter().zip(&stamps);
    match found.any(|(file, stamp)| file.length > 0 && stamp.is_some()) {
        true => Ok(stamps),
        false => Err(none()),
    }
}

/// The stamps that the files have now of which the store has stamps; an error if one is missing.
fn stamps_now(
    metainfo: &Metainfo,
    kept: &Kept,
    suffix: &str,
) -> Result<Vec<Option<FileStamp>>, String> {
    let folder = &kept.summary.save_path;
    let missing = |path: &Path| format!("{}: the file is missing", path.display());
    let root = Root::open(folder, Links::Beneath).map_err(|_| missing(folder))?;
    let stamp = |(index, (file, known)): (u32, (&File, &Option<FileStamp>))| {
        if known.is_none() {
            return Ok(None);
        }
        let found = find(&root, kept, (index, file), suffix);
        found.map(Some).map_err(|own| missing(&folder.join(own)))
    };
    let files = metainfo.files.iter().zip(&kept.stamps);
    (0..).zip(files).map(stamp).collect()
}

/// The stamp of a file, under the name that it has or had while it was fetched; its path, if it is
/// not there.
fn find(
    root: &Root,
    kept: &Kept,
    (index, file): (u32, &File),
    suffix: &str,
) -> Result<FileStamp, PathBuf> {
    let said = || file.path.iter().collect::<PathBuf>();
    let own = kept.details.renames.get(&index).cloned();
    let own = own.unwrap_or_else(said);
    let mut partial = own.clone().into_os_string();
    partial.push(suffix);
    let open = |path: &Path| root.open_file(path).ok();
    let found = open(&own).or_else(|| open(partial.as_ref()));
    found.map(|(_, metadata)| stamp_of(&metadata)).ok_or(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torrent_that_comes_back_and_fails_again_waits_for_longer_for_an_hour() {
        let mut returned = Returned::default();
        let (now, hash) = (Instant::now(), InfoHashV1([1; 20]));
        assert_eq!(returned.look_after(&hash, now), LOOK_AFTER_MIN);
        returned.note(hash, 4 * LOOK_AFTER_MIN, now);
        let later = now + RETURNED_FOR - Duration::from_secs(1);
        assert_eq!(returned.look_after(&hash, later), 4 * LOOK_AFTER_MIN);
        assert_eq!(
            returned.look_after(&hash, later),
            LOOK_AFTER_MIN,
            "it is taken"
        );
        returned.note(hash, LOOK_AFTER_MAX, now);
        assert_eq!(
            returned.look_after(&hash, now + RETURNED_FOR),
            LOOK_AFTER_MIN
        );
        // There is an end to what is remembered, and room again when it is old.
        let hash = |number: usize| {
            let mut hash = [2; 20];
            hash[..8].copy_from_slice(&number.to_le_bytes());
            InfoHashV1(hash)
        };
        for number in 0..=RETURNED_MAX {
            returned.note(hash(number), LOOK_AFTER_MAX, now);
        }
        assert_eq!(returned.lately.len(), RETURNED_MAX);
        assert_eq!(
            returned.look_after(&hash(RETURNED_MAX), now),
            LOOK_AFTER_MIN
        );
        returned.note(hash(0), LOOK_AFTER_MAX, now + RETURNED_FOR);
        assert_eq!(returned.lately.len(), 1);
    }
}
