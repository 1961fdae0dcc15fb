//! Hashing what is on disk: one torrent at a time, the others wait in line, each as long as its own
//! disk needs.
//!
//! Limits: [`CHECKS_MAX`] at a time, which read at low priority. Does not: delete or write anything
//! but what is known of the torrent.

use crate::manager::{Inner, Manager, Phase};
use crate::reading::{Kept, KeptError};
use control::catalog::Status;
use control::resume::{Resume, ResumeError, Resumed};
use control::verify::VerifyError;
use proto::ids::InfoHashV1;
use state::{Condition, Place, Update, Verified};
use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

/// Torrents that are hashed at a time: more would only make a disk seek.
const CHECKS_MAX: usize = 1;

/// The checks that run and wait.
#[derive(Default)]
pub(crate) struct Checks {
    waiting: VecDeque<InfoHashV1>,
    running: HashMap<InfoHashV1, Arc<Running>>,
}

struct Running {
    cancelled: AtomicBool,
    done_permille: AtomicU16,
}

/// A check that has ended.
pub(crate) struct Finished {
    info_hash: InfoHashV1,
    running: Arc<Running>,
    result: Result<Resumed, CheckError>,
}

#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error(transparent)]
    Kept(#[from] KeptError),
    #[error(transparent)]
    Resume(#[from] ResumeError),
}

impl Checks {
    /// Gives a check up, whether it runs or waits.
    pub(crate) fn cancel(&mut self, info_hash: InfoHashV1) {
        self.waiting.retain(|waiting| *waiting != info_hash);
        if let Some(running) = self.running.get(&info_hash) {
            running.cancelled.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn cancel_all(&mut self) {
        self.waiting.clear();
        for running in self.running.values() {
            running.cancelled.store(true, Ordering::Relaxed);
        }
    }

    /// How far those are that run.
    pub(crate) fn progress(&self) -> Vec<(InfoHashV1, u16)> {
        let permille = |running: &Running| running.done_permille.load(Ordering::Relaxed);
        let running = self.running.iter();
        running
            .filter(|(_, running)| !running.cancelled.load(Ordering::Relaxed))
            .map(|(info_hash, running)| (*info_hash, permille(running)))
            .collect()
    }
}

impl Manager {
    /// Has a torrent's data be hashed when it is its turn.
    pub(crate) fn check(&mut self, info_hash: InfoHashV1) {
        self.set_status(info_hash, Status::Checking);
        self.phases.insert(info_hash, Phase::Checking);
        self.checks.waiting.push_back(info_hash);
        self.next_check();
    }

    fn next_check(&mut self) {
        while self.checks.running.len() < CHECKS_MAX {
            // One that was cancelled and asked for again waits until it has ended.
            let running = &self.checks.running;
            let free = |info_hash: &InfoHashV1| !running.contains_key(info_hash);
            let Some(at) = self.checks.waiting.iter().position(free) else {
                return;
            };
            if let Some(info_hash) = self.checks.waiting.remove(at) {
                self.begin_check(info_hash);
            }
        }
    }

    fn begin_check(&mut self, info_hash: InfoHashV1) {
        let running = Arc::new(Running {
            cancelled: AtomicBool::new(false),
            done_permille: AtomicU16::new(0),
        });
        self.checks.running.insert(info_hash, Arc::clone(&running));
        let (store, inner) = (self.keeping.store.clone(), self.inner.clone());
        let suffix = self.settings.partial_suffix.clone();
        let services = Arc::clone(&self.services);
        tokio::task::spawn_blocking(move || {
            let check = || -> Result<Resumed, CheckError> {
                let kept = Kept::read(&store, info_hash)?;
                let resume = Resume {
                    claim: None,
                    always_hash: true,
                    partial_suffix: &suffix,
                    renames: &kept.details.renames,
                    cells: &services.cells,
                    disk: services.disk,
                };
                let metainfo = kept.described()?;
                let folder = &kept.summary.save_path;
                let resumed = resume.look(metainfo, folder, &mut |progress| {
                    let done = u128::from(progress.bytes_done) * 1000;
                    let done = done
                        .checked_div(u128::from(progress.bytes_total))
                        .unwrap_or(0);
                    let done = u16::try_from(done).unwrap_or(1000);
                    running.done_permille.store(done, Ordering::Relaxed);
                    match running.cancelled.load(Ordering::Relaxed) {
                        true => ControlFlow::Break(()),
                        false => ControlFlow::Continue(()),
                    }
                })?;
                let known = kept.pieces_said();
                let data_dir = folder.clone();
                // Nothing of what was there is there: more likely a mount is missing than all of it.
                match known > 0 && resumed.stamps.iter().all(Option::is_none) {
                    true => Err(ResumeError::Gone {
                        data_dir,
                        pieces: known,
                    }
                    .into()),
                    false => Ok(resumed),
                }
            };
            let result = check();
            let finished = Finished {
                info_hash,
                running,
                result,
            };
            let _ = inner.send(Inner::Checked(Box::new(finished)));
        });
    }

    pub(crate) async fn checked(&mut self, finished: Finished) {
        let Finished {
            info_hash,
            running,
            result,
        } = finished;
        self.checks.running.remove(&info_hash);
        self.next_check();
        if running.cancelled.load(Ordering::Relaxed) {
            return;
        }
        match result {
            Ok(resumed) => self.take_check(info_hash, resumed).await,
            Err(CheckError::Resume(
                error @ (ResumeError::Gone { .. }
                | ResumeError::Verify(VerifyError::Directory { .. })),
            )) => {
                let why = error.to_string();
                self.condemn(info_hash, Condition::Offline, why, true).await;
            }
            Err(error) => {
                let (failed, why) = (Condition::Failed, error.to_string());
                tracing::error!(torrent = %info_hash, %error, "its data cannot be checked");
                self.condemn(info_hash, failed, why, true).await;
            }
        }
    }

    async fn take_check(&mut self, info_hash: InfoHashV1, resumed: Resumed) {
        let now_s = self.clock.now_s();
        let complete = resumed.pieces.is_full();
        let found = resumed.pieces.len();
        let change: crate::keeping::Change = Arc::new(move |summary: &mut state::Summary| {
            summary.condition = Condition::Ready;
            summary.seed_mode = false;
            summary.last_error = None;
            summary.completed_at_s = match complete {
                true => summary.completed_at_s.or(Some(now_s)),
                false => None,
            };
        });
        let kept = Arc::clone(&change);
        let verified = match complete {
            true => Verified::All,
            false => Verified::Pieces(resumed.pieces.as_bitfield().to_vec()),
        };
        let update = Update::new()
            .summary(move |summary| kept(summary))
            .verified(verified)
            .all_stamps(resumed.stamps);
        self.show(info_hash, |torrent| torrent.pieces_verified = found);
        // One that has a place keeps it.
        match complete {
            true => self.place(info_hash, Place::Out).await,
            false if !self.queue.has(&info_hash) => self.place(info_hash, Place::Last).await,
            false => {}
        }
        self.update(info_hash, update, change, true, None).await;
    }

    /// Puts a torrent into the queue, or takes it out, without anybody having asked.
    pub(crate) async fn place(&self, info_hash: InfoHashV1, place: Place) {
        let after = move |manager: &mut Manager, written: Result<(), state::WriteError>| {
            match written {
                Ok(()) => manager.queue.place(info_hash, place),
                Err(error) => {
                    tracing::warn!(torrent = %info_hash, %error, "its place is not kept");
                }
            }
            crate::keeping::Next::Done
        };
        let write = state::Write::Queue(info_hash, place);
        self.keeping.write(write, Box::new(after)).await;
    }
}
