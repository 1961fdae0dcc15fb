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
//! Limits: one at a time of a torrent, and so many at work ([`turns`]); a crash leaves no more of them
//! than that, which the next start tidies as many at a time. Does not: move files to another file system, write over
//! anything, or change the name that is shown of the torrent.

pub(crate) mod intent;
mod names;
mod tidying;
mod turns;
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
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use turns::{Turn, Turns};

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
    waiting: HashMap<InfoHashV1, (Rename, Turn)>,
    /// Which one it is of a torrent, and who is told when it is done.
    replies: HashMap<InfoHashV1, (u64, Reply<()>)>,
    turns: Turns,
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
    /// Its turn; none if there is nothing to do.
    outcome: Result<Option<Turn>, CommandError>,
}

impl Manager {
    /// Calls files of a torrent otherwise.
    pub(crate) async fn rename(&mut self, info_hash: InfoHashV1, rename: Rename, reply: Reply<()>) {
        let checked = self.kept(info_hash);
        if let Err(error) = checked.and_then(|()| self.is_at_rest(&info_hash)) {
            let _ = reply.send(Err(error));
            return;
        }
        if self.moves.renames.replies.len() >= turns::RENAMES_MAX {
            let _ = reply.send(Err(CommandError::Busy));
            return;
        }
        let (number, folder) = (self.number(), self.save_path(info_hash));
        let renames = &mut self.moves.renames;
        renames.replies.insert(info_hash, (number, reply));
        let waiting = renames.turns.come(&folder);
        let (store, inner) = (self.keeping.store.clone(), self.inner.clone());
        let suffix = self.settings.partial_suffix.clone();
        tokio::spawn(async move {
            let meant = rename.clone();
            let plan = move || {
                let kept = Kept::read(&store, info_hash)
                    .map_err(|error| CommandError::Failed(error.to_string()))?;
                Ok(!Names::after(&kept, &meant, &suffix)?.changes.is_empty())
            };
            let outcome = match waiting.read(plan).await {
                Ok(true) => waiting.turn().await.map(Some),
                Ok(false) => Ok(None),
                Err(error) => Err(error),
            };
            let planned = Planned {
                info_hash,
                number,
                rename,
                outcome,
            };
            let _ = inner.send(Inner::Rename(Box::new(planned)));
        });
    }

    /// The folder that a torrent's files are in.
    fn save_path(&self, info_hash: InfoHashV1) -> PathBuf {
        let catalog = self.seat.catalog();
        let torrent = catalog.get(&info_hash);
        torrent.map_or_else(PathBuf::new, |it| it.summary.save_path.clone())
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
            Ok(Some(_)) if self.moves.concerns(&info_hash) => {
                let why = "its files are being moved; wait until that has ended".to_owned();
                let error = Err(CommandError::Conflict(why));
                self.moves.renames.answer(&info_hash, error);
            }
            Ok(Some(turn)) => {
                let phase = self.phases.get(&info_hash);
                let served = is_complete && matches!(phase, None | Some(manager::Phase::Awake(_)));
                if served || self.halt(info_hash).await {
                    self.begin_rename(info_hash, planned.rename, served, turn);
                } else {
                    // It goes on when its download has ended.
                    let waiting = &mut self.moves.renames.waiting;
                    waiting.insert(info_hash, (planned.rename, turn));
                }
            }
            Ok(None) => self.moves.renames.answer(&info_hash, Ok(())),
            Err(error) => self.moves.renames.answer(&info_hash, Err(error)),
        }
    }

    /// A torrent's download has ended: renames what waits for that.
    pub(crate) fn next_rename(&mut self, info_hash: InfoHashV1) {
        if let Some((rename, turn)) = self.moves.renames.waiting.remove(&info_hash) {
            self.begin_rename(info_hash, rename, false, turn);
        }
    }

    fn begin_rename(&mut self, info_hash: InfoHashV1, rename: Rename, served: bool, turn: Turn) {
        let folder = self.save_path(info_hash);
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
            // It is given back when the work has ended.
            let _turn = turn;
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
        let turns = Arc::new(Semaphore::new(turns::WORKS_MAX));
        loop {
            let read = move |view: &state::View| view.intents(Intent::Rename, after, PAGE);
            let page = self.keeping.store.read(read).await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            // Each is read again when it is its turn: all of them may be long.
            begun.extend(page.into_iter().map(|(info_hash, _)| {
                let (store, turns) = (self.keeping.store.clone(), Arc::clone(&turns));
                let suffix = self.settings.partial_suffix.clone();
                tokio::spawn(async move {
                    let Ok(_turn) = turns.acquire_owned().await else {
                        return;
                    };
                    let recover = move || recover(&store, info_hash, &suffix);
                    let _ = tokio::task::spawn_blocking(recover).await;
                })
            }));
        }
        let until = tokio::time::Instant::now() + RECOVERY;
        for recover in begun {
            if tokio::time::timeout_at(until, recover).await.is_err() {
                tracing::warn!("a disk does not answer; a rename that was cut off is tidied later");
            }
        }
        // What has not begun by then waits for the next start: the torrents are served from now on.
        turns.close();
        Ok(())
    }
}

/// Takes the names away that one rename has left, as it is kept.
fn recover(store: &Handle, info_hash: InfoHashV1, suffix: &str) {
    let value = match store.read_blocking(|view| view.intent(Intent::Rename, &info_hash)) {
        Ok(Some(value)) => value,
        Ok(None) => return,
        Err(error) => {
            tracing::error!(torrent = %info_hash, %error, "a rename that was cut off is not read");
            return;
        }
    };
    let recovered = match intent::decode(&value) {
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
