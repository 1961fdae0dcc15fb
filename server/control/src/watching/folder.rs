//! The watch over one folder: looks, and decides which files are due and what is known of them.

use super::job::{Job, Outcome};
use super::look::{FILES_MAX, Folders, Found, look};
use super::spot::Stamp;
use super::{ADDS_MAX, Shared, seen};
use crate::config::WatchEntry;
use seedring_metrics::{ControlCounter, ControlGauge};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// How often it is looked whether something has changed.
const LOOK: Duration = Duration::from_secs(1);

/// How often all files are looked at whether or not their folders have changed: one may be written
/// anew in its place, and times of folders are coarse on some file systems.
const LOOK_AT_ALL: Duration = Duration::from_secs(60);

/// How long after a failure a file is tried again, at first and at most; it doubles in between.
const RETRY_MIN: Duration = Duration::from_secs(2);
/// See [`RETRY_MIN`].
const RETRY_MAX: Duration = Duration::from_secs(600);

/// What is known of a file.
struct File {
    stamp: Stamp,
    /// Since when it has been so.
    since: Instant,
    state: State,
    /// Whether it was read, and nothing could be made of it.
    is_incomplete: bool,
    /// Failures since it has been so.
    tries: u32,
    /// The last reason that was told.
    told: String,
}

#[derive(PartialEq)]
enum State {
    /// It is to be dealt with at this time.
    Due(Instant),
    /// It is being dealt with.
    Busy,
    /// It stays, and there is nothing to do as long as it is what it is.
    Done,
}

struct Folder {
    path: PathBuf,
    entry: Arc<WatchEntry>,
    shared: Arc<Shared>,
    files: BTreeMap<PathBuf, File>,
    /// Links and devices that were told of.
    ignored: BTreeSet<PathBuf>,
    folders: Option<Folders>,
    looked_at_all: Option<Instant>,
    /// Why it cannot be looked into, if so.
    absent: Option<String>,
    was_cut: bool,
    running: JoinSet<(PathBuf, Outcome)>,
}

/// Watches a folder until it is told to stop.
pub(super) async fn watch(
    path: PathBuf,
    entry: WatchEntry,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut folder = Folder {
        path,
        entry: Arc::new(entry),
        shared,
        files: BTreeMap::new(),
        ignored: BTreeSet::new(),
        folders: None,
        looked_at_all: None,
        absent: None,
        was_cut: false,
        running: JoinSet::new(),
    };
    let run = folder.run();
    tokio::select! {
        () = run => {}
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
    if folder.absent.is_some() {
        folder
            .shared
            .cells
            .lower(ControlGauge::WatchFoldersAbsent, 1);
    }
    // What is being added is added, and its file dealt with, or both at the next start.
    folder.running.shutdown().await;
}

impl Folder {
    async fn run(&mut self) {
        loop {
            let next = Instant::now() + LOOK;
            self.look().await;
            self.begin();
            loop {
                tokio::select! {
                    () = sleep_until(next) => break,
                    Some(ended) = self.running.join_next() => {
                        if let Ok((path, outcome)) = ended {
                            self.ended(&path, outcome);
                        }
                        self.begin();
                    }
                }
            }
        }
    }

    /// Looks into the folder, on a thread for blocking work: a disk that hangs holds up nobody
    /// else.
    async fn look(&mut self) {
        let at_all = self
            .looked_at_all
            .is_none_or(|at| at.elapsed() >= LOOK_AT_ALL);
        let before = self.folders.take().filter(|_| !at_all);
        let (root, recursive) = (self.path.clone(), self.entry.recursive);
        let looking = tokio::task::spawn_blocking(move || {
            let found = look(&root, recursive, before.as_ref());
            (found, before)
        });
        let Ok((found, before)) = looking.await else {
            return;
        };
        match found {
            Ok(found) => {
                self.is_there();
                match found {
                    None => self.folders = before,
                    Some(found) => self.found(found, at_all).await,
                }
            }
            Err(error) => self.is_absent(&error),
        }
    }

    fn is_there(&mut self) {
        if self.absent.take().is_some() {
            tracing::info!(folder = ?self.path, "the watch folder is there");
            self.shared.cells.lower(ControlGauge::WatchFoldersAbsent, 1);
        }
    }

    fn is_absent(&mut self, error: &io::Error) {
        let why = error.to_string();
        if self.absent.as_ref() != Some(&why) {
            tracing::warn!(folder = ?self.path, error = why,
                "a watch folder cannot be looked into; it is tried again until it can");
        }
        if self.absent.replace(why).is_none() {
            self.shared.cells.raise(ControlGauge::WatchFoldersAbsent, 1);
        }
        self.files.retain(|_, file| file.state == State::Busy);
        self.looked_at_all = None;
    }

    /// Takes over what a look has found.
    async fn found(&mut self, found: Found, at_all: bool) {
        let now = Instant::now();
        let Found {
            files,
            folders,
            is_cut,
        } = found;
        if is_cut && !self.was_cut {
            tracing::warn!(folder = ?self.path, "the watch folder holds more than {FILES_MAX} \
                files or too many folders: others are seen when there are fewer");
        }
        self.was_cut = is_cut;
        self.files
            .retain(|path, file| files.contains_key(path) || file.state == State::Busy);
        self.ignored.retain(|path| files.contains_key(path));
        let mut present = BTreeSet::new();
        for (path, stamp) in files {
            let Some(stamp) = stamp else {
                if self.ignored.insert(path.clone()) {
                    tracing::warn!(folder = ?self.path, file = ?path, "left alone: it is a link or \
                        no ordinary file; put the file itself there");
                }
                continue;
            };
            if at_all {
                present.insert(seen::key(&self.path, &path, stamp));
            }
            self.noted(path, stamp, now);
        }
        if at_all && !is_cut {
            self.shared.seen.retain(&self.path, &present).await;
        }
        // Of two changes within the grain of a file system's times the second does not show in
        // them: a change that was just seen is looked at once more.
        let is_quiet = self.folders_are_old(&folders);
        self.folders = is_quiet.then_some(folders);
        if at_all {
            self.looked_at_all = Some(now);
        }
    }

    /// Whether the last change of all folders is long enough ago for another to show.
    fn folders_are_old(&self, folders: &Folders) -> bool {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now_s = now.map_or(0, |now| now.as_secs());
        let newest_s = folders.values().map(|(_, changed_s, _)| *changed_s).max();
        // A clock of another host may be ahead: then what a minute shows has to do.
        let age_s = i64::try_from(now_s).unwrap_or(0) - newest_s.unwrap_or(0);
        !(0..=3).contains(&age_s)
    }

    /// Notes that a file is there, with this stamp.
    fn noted(&mut self, path: PathBuf, stamp: Stamp, now: Instant) {
        let fresh = || File {
            stamp,
            since: now,
            state: State::Due(now),
            is_incomplete: false,
            tries: 0,
            told: String::new(),
        };
        let file = self.files.entry(path).or_insert_with(fresh);
        if file.state != State::Busy && file.stamp != stamp {
            *file = fresh();
        }
    }

    /// Begins with files that are due, as many as may be under way.
    fn begin(&mut self) {
        let now = Instant::now();
        let is_due = |file: &File| matches!(file.state, State::Due(at) if at <= now);
        let mut due = self.files.iter_mut().filter(|(_, file)| is_due(file));
        while self.running.len() < ADDS_MAX {
            let Some((path, file)) = due.next() else {
                return;
            };
            file.state = State::Busy;
            let job = Job {
                root: self.path.clone(),
                path: path.clone(),
                entry: Arc::clone(&self.entry),
                shared: Arc::clone(&self.shared),
                stamp: file.stamp,
                quiet: file.since.elapsed(),
                is_incomplete: file.is_incomplete,
                tries: file.tries,
            };
            self.running.spawn(job.run());
        }
    }

    fn ended(&mut self, path: &Path, outcome: Outcome) {
        let Some(file) = self.files.get_mut(path) else {
            return;
        };
        let now = Instant::now();
        match outcome {
            Outcome::Gone => {
                self.files.remove(path);
            }
            Outcome::Stays => file.state = State::Done,
            Outcome::Wait(stamp) => {
                if stamp != file.stamp {
                    (file.stamp, file.since, file.tries) = (stamp, now, 0);
                    file.is_incomplete = false;
                }
                file.state = State::Due(now + LOOK);
            }
            Outcome::Incomplete => {
                file.is_incomplete = true;
                file.state = State::Due(now + LOOK);
            }
            Outcome::Later(why) => {
                self.shared.cells.add(ControlCounter::WatchedDeferred, 1);
                let pause = RETRY_MIN.saturating_mul(1 << file.tries.min(16));
                let pause = pause.min(RETRY_MAX);
                file.tries += 1;
                file.state = State::Due(now + pause);
                if file.told != why {
                    tracing::warn!(folder = ?self.path, file = ?path, error = ?why,
                        "a file in a watch folder is not added yet; it is tried again");
                    file.told = why;
                }
            }
        }
    }
}
