//! Hashing what is on disk: one torrent at a time, the others wait in line. One that gets no byte any
//! more, because its disk hangs, does not keep those in other folders waiting.
//!
//! Limits: [`CHECKS_MAX`] at a time, which read at low priority, and [`HUNG_MAX`] that hang. Does not: delete or write anything
//! but what is known of the torrent.

use crate::keeping::Next;
use crate::manager::{Inner, Manager, Phase};
use crate::reading::{Kept, KeptError};
use crate::unkept::{Fields, Make};
use control::catalog::Status;
use control::hooks::HookEvent;
use control::resume::{Resume, ResumeError, Resumed};
use control::roots::Outside;
use control::verify::VerifyError;
use proto::ids::InfoHashV1;
use state::{Condition, Place, Update, Verified};
use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Torrents that are hashed at a time: more would only make a disk seek.
const CHECKS_MAX: usize = 1;

/// How long a check may get no byte until it counts as hanging.
const HUNG_AFTER: Duration = Duration::from_secs(60);

/// Checks that may hang, each of which has a thread, while others are begun.
const HUNG_MAX: usize = 8;

/// The checks that run and wait.
#[derive(Default)]
pub(crate) struct Checks {
    /// In their order; those that are not wanted any more are left out when it is their turn.
    waiting: VecDeque<InfoHashV1>,
    wanted: HashSet<InfoHashV1>,
    running: HashMap<InfoHashV1, Arc<Running>>,
    /// Whether none is begun for a while, because the store could not be read.
    is_resting: bool,
}

struct Running {
    cancelled: AtomicBool,
    done_permille: AtomicU16,
    done_bytes: AtomicU64,
    /// The folder that it reads in.
    folder: PathBuf,
    /// How many bytes were done when there were more than before, and when that was.
    moved: Mutex<(u64, Instant)>,
}

impl Running {
    fn new(folder: PathBuf, now: Instant) -> Running {
        Running {
            cancelled: AtomicBool::new(false),
            done_permille: AtomicU16::new(0),
            done_bytes: AtomicU64::new(0),
            folder,
            moved: Mutex::new((0, now)),
        }
    }

    /// Whether it has got no byte for a while.
    fn is_hung(&self, now: Instant) -> bool {
        let done = self.done_bytes.load(Ordering::Relaxed);
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        if moved.0 != done {
            *moved = (done, now);
        }
        now.duration_since(moved.1) >= HUNG_AFTER
    }
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
    #[error(transparent)]
    Outside(#[from] Outside),
}

impl Checks {
    /// Has a check wait, behind all others.
    fn wait(&mut self, info_hash: InfoHashV1) {
        if self.waiting.len() > 2 * self.wanted.len() + 1_000 {
            // Most of them are given up: without this who gives up and comes again makes it grow.
            let wanted = &self.wanted;
            self.waiting.retain(|waiting| wanted.contains(waiting));
        }
        if self.wanted.insert(info_hash) {
            self.waiting.push_back(info_hash);
        }
    }

    /// Whether one more may be begun, and the folders in which those read that hang.
    fn room(&self, now: Instant) -> (bool, Vec<PathBuf>) {
        let hung = self.running.values().filter(|running| running.is_hung(now));
        let hung: Vec<_> = hung.map(|running| running.folder.clone()).collect();
        let others = self.running.len() - hung.len();
        let has_room = !self.is_resting && others < CHECKS_MAX && hung.len() <= HUNG_MAX;
        (has_room, hung)
    }

    /// The next that can be begun, of those that `may` be.
    fn take(&mut self, may: impl Fn(&InfoHashV1) -> bool) -> Option<InfoHashV1> {
        let (wanted, running) = (&self.wanted, &self.running);
        while let Some(first) = self.waiting.front()
            && !wanted.contains(first)
        {
            self.waiting.pop_front();
        }
        // One that was cancelled and asked for again waits until it has ended.
        let free = |info_hash: &InfoHashV1| {
            wanted.contains(info_hash) && !running.contains_key(info_hash) && may(info_hash)
        };
        let at = self.waiting.iter().position(free)?;
        let info_hash = self.waiting.remove(at)?;
        self.wanted.remove(&info_hash);
        Some(info_hash)
    }

    /// Gives a check up, whether it runs or waits.
    pub(crate) fn cancel(&mut self, info_hash: InfoHashV1) {
        self.wanted.remove(&info_hash);
        if let Some(running) = self.running.get(&info_hash) {
            running.cancelled.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn cancel_all(&mut self) {
        self.waiting.clear();
        self.wanted.clear();
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
        self.checks.wait(info_hash);
        self.next_check();
    }

    /// Begins those checks whose turn it is.
    pub(crate) fn next_check(&mut self) {
        let now = Instant::now();
        loop {
            let (true, hung) = self.checks.room(now) else {
                return;
            };
            let catalog = self.seat.catalog();
            // What lies in the same folder would hang, too.
            let may = |info_hash: &InfoHashV1| {
                let torrent = catalog.get(info_hash).filter(|_| !hung.is_empty());
                torrent.is_none_or(|torrent| !hung.contains(&torrent.summary.save_path))
            };
            let next = self.checks.take(may);
            let folder = next.and_then(|next| catalog.get(&next));
            let folder = folder.map(|torrent| torrent.summary.save_path.clone());
            drop(catalog);
            let Some(info_hash) = next else { return };
            self.begin_check(info_hash, folder.unwrap_or_default());
        }
    }

    fn begin_check(&mut self, info_hash: InfoHashV1, folder: PathBuf) {
        let running = Arc::new(Running::new(folder, Instant::now()));
        self.checks.running.insert(info_hash, Arc::clone(&running));
        let (store, inner) = (self.keeping.store.clone(), self.inner.clone());
        let suffix = self.settings.partial_suffix.clone();
        let roots = self.settings.roots.clone();
        let services = Arc::clone(&self.services);
        tokio::task::spawn_blocking(move || {
            let check = || -> Result<Resumed, CheckError> {
                let kept = Kept::read(&store, info_hash)?;
                roots.check(&kept.summary.save_path)?;
                let resume = Resume {
                    claim: None,
                    always_hash: true,
                    partial_suffix: kept.suffix(&suffix),
                    renames: &kept.details.renames,
                    cells: &services.cells,
                    disk: services.disk,
                };
                let metainfo = kept.described()?;
                let folder = &kept.summary.save_path;
                let resumed = resume.look(metainfo, folder, &mut |progress| {
                    running
                        .done_bytes
                        .store(progress.bytes_done, Ordering::Relaxed);
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
        let is_cancelled = running.cancelled.load(Ordering::Relaxed);
        if let Err(CheckError::Kept(error)) = &result
            && error.is_passing()
        {
            tracing::warn!(torrent = %info_hash, %error, "it cannot be read now");
            if !is_cancelled {
                self.checks.wait(info_hash);
            }
            self.rest_checks();
            return;
        }
        self.next_check();
        if is_cancelled {
            return;
        }
        match result {
            Ok(resumed) => self.take_check(info_hash, resumed).await,
            Err(CheckError::Outside(outside)) => {
                let (offline, why) = (Condition::Offline, outside.to_string());
                tracing::warn!(torrent = %info_hash, "not checked: {why}");
                self.condemn(info_hash, offline, why, true).await;
            }
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

    /// Begins no check for a while: the store could not be read.
    fn rest_checks(&mut self) {
        self.checks.is_resting = true;
        let inner = self.inner.clone();
        tokio::spawn(async move {
            tokio::time::sleep(crate::acting::STORE_AGAIN).await;
            let _ = inner.send(Inner::ChecksAgain);
        });
    }

    pub(crate) fn checks_again(&mut self) {
        self.checks.is_resting = false;
        self.next_check();
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
        let verified = match complete {
            true => Verified::All,
            false => Verified::Pieces(resumed.pieces.as_bitfield().to_vec()),
        };
        let stamps = resumed.stamps;
        let update = move || {
            let update = Update::new().verified(verified.clone());
            update.all_stamps(stamps.iter().copied())
        };
        // What was there when it was added was not completed by us; the rest of a download that
        // the check has found was.
        let is_completed = {
            let catalog = self.seat.catalog();
            catalog.get(&info_hash).is_some_and(|torrent| {
                let is_new = torrent.summary.completed_at_s.is_none();
                complete && is_new && torrent.totals.downloaded_bytes > 0
            })
        };
        let told = is_completed.then_some((HookEvent::Completed, None));
        self.show(info_hash, |torrent| torrent.pieces_verified = found);
        // One that has a place keeps it.
        match complete {
            true => self.place(info_hash, Place::Out).await,
            false if !self.queue.has(&info_hash) => self.place(info_hash, Place::Last).await,
            false => {}
        }
        let next = Next::Restart(info_hash);
        let fields = Fields::CONDITION;
        self.settle_telling(info_hash, fields, update, change, next, told)
            .await;
    }

    /// Puts a torrent into the queue, or takes it out, without anybody having asked.
    pub(crate) async fn place(&mut self, info_hash: InfoHashV1, place: Place) {
        let after = move |manager: &mut Manager, written: Result<(), state::WriteError>| {
            match written {
                Ok(()) => manager.queue.place(info_hash, place),
                Err(error) => {
                    tracing::warn!(torrent = %info_hash, %error, "its place is not kept");
                }
            }
            crate::keeping::Next::Done
        };
        let make = move || state::Write::Queue(info_hash, place);
        let make: Make = Arc::new(make);
        self.insist(info_hash, (Fields::PLACE, make), None, Box::new(after))
            .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_up_is_left_out_and_does_not_pile_up() {
        let mut checks = Checks::default();
        let [a, b, c] = [1, 2, 3].map(|byte| InfoHashV1([byte; 20]));
        for info_hash in [a, b, c] {
            checks.wait(info_hash);
        }
        checks.cancel(a);
        assert_eq!(checks.take(|_| true), Some(b));
        for _ in 0..10_000 {
            checks.wait(a);
            checks.cancel(a);
        }
        assert!(checks.waiting.len() < 2_000, "{}", checks.waiting.len());
        checks.wait(a);
        assert_eq!(
            (checks.take(|_| true), checks.take(|_| true)),
            (Some(c), Some(a))
        );
        assert_eq!(checks.take(|_| true), None, "each once");
    }

    #[test]
    fn a_check_that_gets_no_byte_keeps_no_other_folder_waiting() {
        let mut checks = Checks::default();
        let now = Instant::now();
        let [a, b, c] = [1, 2, 3].map(|byte| InfoHashV1([byte; 20]));
        let running = Arc::new(Running::new("/hangs".into(), now));
        checks.running.insert(a, Arc::clone(&running));
        assert!(!checks.room(now).0, "one is running");
        // As long as bytes come it does not hang.
        running.done_bytes.store(5, Ordering::Relaxed);
        let later = now + HUNG_AFTER;
        assert!(!checks.room(later).0);
        let (has_room, hung) = checks.room(later + HUNG_AFTER);
        assert!(has_room);
        assert_eq!(hung, [PathBuf::from("/hangs")]);
        for info_hash in [b, c] {
            checks.wait(info_hash);
        }
        assert_eq!(checks.take(|next| *next != b), Some(c));
        assert_eq!(checks.take(|next| *next != b), None);
        assert_eq!(checks.take(|_| true), Some(b), "it keeps its place");
        running.done_bytes.store(6, Ordering::Relaxed);
        assert!(!checks.room(later + HUNG_AFTER).0, "it goes on");
    }
}
