//! Files of a torrent get other names while it is served.
//!
//! Each file gets its new name beside the old one, the store says which counts, the torrent goes on
//! from there, and then the old names are taken away: at every moment the store names all files.
//! Who downloads it notices nothing. Where the file system knows no second names, the torrent is
//! stopped for that moment; one that is being downloaded or checked is stopped and begun again.
//!
//! What is to be renamed is kept before the first name is made, so the next start after a crash
//! takes the names away that the store does not say. The user is told when all is done and durable;
//! what was not acknowledged has happened or not, as a whole.
//!
//! Limits: one at a time of a torrent. Does not: move files to another file system, write over
//! anything, or change the name that is shown of the torrent.

pub(crate) mod intent;
mod names;
mod tidying;
mod work;

use crate::manager::{self, Inner, Manager};
use crate::moving::way::{Phase, Way};
use crate::moving::{MoveEvent, Moving, Waiter};
use crate::reading::Kept;
use control::catalog::Status;
use control::command::{CommandError, Rename, Reply};
use names::Names;
use proto::ids::InfoHashV1;
use state::{Handle, Intent, Write};
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

/// How long a start waits for what an earlier run did not end: a disk may hang.
const RECOVERY: Duration = Duration::from_secs(10);

/// Renames that are read of the store at once at the start. Each may be of all files.
const PAGE: usize = 64;

/// Keeps that files of this torrent are being renamed, or that they are not any more.
fn intended(info_hash: InfoHashV1, renamed: Option<Vec<u8>>) -> Write {
    Write::Intent(Intent::Rename, info_hash, renamed)
}

/// Renames that are under way.
#[derive(Default)]
pub(crate) struct Renames {
    /// Those that wait for a download to end.
    waiting: HashMap<InfoHashV1, Rename>,
    /// Which one it is of a torrent, and who is told when it is done.
    replies: HashMap<InfoHashV1, (u64, Reply<()>)>,
}

impl Renames {
    /// Whether files of the torrent are being renamed, or are to be.
    pub(crate) fn waits(&self, info_hash: &InfoHashV1) -> bool {
        self.replies.contains_key(info_hash)
    }

    /// The torrent is gone.
    pub(crate) fn forget(&mut self, info_hash: &InfoHashV1) {
        self.waiting.remove(info_hash);
        self.answer(info_hash, Err(CommandError::Unknown(*info_hash)));
    }

    fn answer(&mut self, info_hash: &InfoHashV1, result: Result<(), CommandError>) {
        if let Some((_, reply)) = self.replies.remove(info_hash) {
            let _ = reply.send(result);
        }
    }
}

/// What is found of a rename before anything is stopped for it.
pub(crate) struct Planned {
    info_hash: InfoHashV1,
    number: u64,
    rename: Rename,
    /// Whether there is anything to do.
    outcome: Result<bool, CommandError>,
}

impl Manager {
    /// Calls files of a torrent otherwise.
    pub(crate) async fn rename(&mut self, info_hash: InfoHashV1, rename: Rename, reply: Reply<()>) {
        let checked = self.kept(info_hash);
        if let Err(error) = checked.and_then(|()| self.is_at_rest(&info_hash)) {
            let _ = reply.send(Err(error));
            return;
        }
        let number = self.number();
        let replies = &mut self.moves.renames.replies;
        replies.insert(info_hash, (number, reply));
        let (store, inner) = (self.keeping.store.clone(), self.inner.clone());
        let suffix = self.settings.partial_suffix.clone();
        tokio::task::spawn_blocking(move || {
            let outcome = Kept::read(&store, info_hash)
                .map_err(|error| CommandError::Failed(error.to_string()))
                .and_then(|kept| Names::after(&kept, &rename, &suffix))
                .map(|names| !names.changes.is_empty());
            let planned = Planned {
                info_hash,
                number,
                rename,
                outcome,
            };
            let _ = inner.send(Inner::Rename(Box::new(planned)));
        });
    }

    /// Whether nothing is done at the names of a torrent's files.
    fn is_at_rest(&self, info_hash: &InfoHashV1) -> Result<(), CommandError> {
        if self.moves.concerns(info_hash) || self.moves.renames.waits(info_hash) {
            let why = "its files are being moved or renamed; wait until that has ended";
            return Err(CommandError::Conflict(why.to_owned()));
        }
        Ok(())
    }

    /// A rename can be done, or not.
    pub(crate) async fn planned(&mut self, planned: Planned) {
        let info_hash = planned.info_hash;
        // It was removed meanwhile, and may be another of the same info-hash.
        let waiting = self.moves.renames.replies.get(&info_hash);
        if waiting.is_none_or(|(number, _)| *number != planned.number) {
            return;
        }
        let is_complete = {
            let catalog = self.seat.catalog();
            catalog
                .get(&info_hash)
                .is_some_and(|torrent| torrent.is_complete())
        };
        match planned.outcome {
            Ok(true) if self.moves.concerns(&info_hash) => {
                let why = "its files are being moved; wait until that has ended".to_owned();
                let error = Err(CommandError::Conflict(why));
                self.moves.renames.answer(&info_hash, error);
            }
            Ok(true) => {
                let phase = self.phases.get(&info_hash);
                let served = is_complete && matches!(phase, None | Some(manager::Phase::Awake(_)));
                if served || self.halt(info_hash).await {
                    self.begin_rename(info_hash, planned.rename, served);
                } else {
                    // It goes on when its download has ended.
                    let waiting = &mut self.moves.renames.waiting;
                    waiting.insert(info_hash, planned.rename);
                }
            }
            Ok(false) => self.moves.renames.answer(&info_hash, Ok(())),
            Err(error) => self.moves.renames.answer(&info_hash, Err(error)),
        }
    }

    /// A torrent's download has ended: renames what waits for that.
    pub(crate) fn next_rename(&mut self, info_hash: InfoHashV1) {
        if let Some(rename) = self.moves.renames.waiting.remove(&info_hash) {
            self.begin_rename(info_hash, rename, false);
        }
    }

    fn begin_rename(&mut self, info_hash: InfoHashV1, rename: Rename, served: bool) {
        let folder = {
            let catalog = self.seat.catalog();
            let torrent = catalog.get(&info_hash);
            torrent.map_or_else(PathBuf::new, |it| it.summary.save_path.clone())
        };
        let way = Way {
            from: folder.clone(),
            to: folder,
            phase: Phase::Waiting,
        };
        let moving = Moving::new(self.number(), Waiter::new(way), None, served);
        let moving = self.moves.begin(info_hash, moving);
        if !served {
            self.set_status(info_hash, Status::Moving);
        }
        self.begin_work(info_hash, moving, move |work| {
            let renamed = work.map_err(CommandError::from);
            let renamed = renamed.and_then(|work| work::rename(&work, &rename));
            MoveEvent::Renamed(renamed)
        });
    }

    pub(crate) async fn rename_ended(
        &mut self,
        info_hash: InfoHashV1,
        result: Result<(), CommandError>,
    ) {
        if let Err(error) = &result {
            tracing::warn!(torrent = %info_hash, %error, "its files were not renamed");
        }
        let moving = self.end_move(info_hash);
        let served = moving.is_some_and(|moving| moving.is_served());
        self.moves.renames.answer(&info_hash, result);
        self.go_on(info_hash, served).await;
    }

    /// Takes the names away that renames of an earlier run have left, before anything is served.
    pub(crate) async fn resume_renames(&self) -> Result<(), state::ReadError> {
        let (mut after, mut begun) = (None, Vec::new());
        loop {
            let read = move |view: &state::View| view.intents(Intent::Rename, after, PAGE);
            let page = self.keeping.store.read(read).await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            // All are begun, then each is waited for.
            begun.extend(page.into_iter().map(|(info_hash, value)| {
                let store = self.keeping.store.clone();
                let suffix = self.settings.partial_suffix.clone();
                tokio::task::spawn_blocking(move || recover(&store, info_hash, &value, &suffix))
            }));
        }
        let until = tokio::time::Instant::now() + RECOVERY;
        for recover in begun {
            if tokio::time::timeout_at(until, recover).await.is_err() {
                tracing::warn!("a disk does not answer; a rename that was cut off is tidied later");
            }
        }
        Ok(())
    }
}

/// Takes the names away that one rename has left, as it is kept.
fn recover(store: &Handle, info_hash: InfoHashV1, value: &[u8], suffix: &str) {
    let recovered = match intent::decode(value) {
        Some(renamed) => tidying::recover(store, info_hash, &renamed, suffix),
        None => {
            tracing::warn!(torrent = %info_hash,
                "files may have two names: of a rename that an earlier version was at it is not \
                 known which");
            Ok(())
        }
    };
    match recovered {
        Ok(()) => drop(store.write_blocking(intended(info_hash, None))),
        Err(why) => tracing::error!(
            torrent = %info_hash,
            why,
            "files may have two names still: what a rename that was cut off has left is looked at \
             again at the next start"
        ),
    }
}
