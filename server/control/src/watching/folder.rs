//! The watch over one folder: looks, begins with the files that are due (`files.rs`), and says what
//! cannot be done.

use super::files::Files;
use super::job::{Job, Outcome};
use super::look::{FILES_MAX, Folders, Found, look};
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

struct Folder {
    path: PathBuf,
    entry: Arc<WatchEntry>,
    shared: Arc<Shared>,
    files: Files,
    /// Links and devices that were told of.
    ignored: BTreeSet<PathBuf>,
    folders: Option<Folders>,
    looked_at_all: Option<Instant>,
    /// Why it cannot be looked into, if so.
    absent: Option<String>,
    /// What is below it and cannot be looked at.
    unknown: BTreeSet<PathBuf>,
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
    let mut folder = Folder::new(path, entry, shared);
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
    fn new(path: PathBuf, entry: WatchEntry, shared: Arc<Shared>) -> Folder {
        Folder {
            path,
            entry: Arc::new(entry),
            shared,
            files: Files::default(),
            ignored: BTreeSet::new(),
            folders: None,
            looked_at_all: None,
            absent: None,
            unknown: BTreeSet::new(),
            was_cut: false,
            running: JoinSet::new(),
        }
    }

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
                    Some(found) => self.found(found, at_all, Instant::now()).await,
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
        self.files.retain(|_| false);
        self.looked_at_all = None;
    }

    /// Takes over what a look has found.
    async fn found(&mut self, found: Found, at_all: bool, now: Instant) {
        let Found {
            files,
            folders,
            unknown,
            is_cut,
        } = found;
        if is_cut && !self.was_cut {
            tracing::warn!(folder = ?self.path, "the watch folder holds more than {FILES_MAX} \
                files or too many folders: others are seen when there are fewer");
        }
        self.was_cut = is_cut;
        let is_known = !is_cut && unknown.is_empty();
        self.tell_unknown(unknown);
        self.files.retain(|path| files.contains_key(path));
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
            self.files.noted(path, stamp, now);
        }
        if at_all {
            let seen = &self.shared.seen;
            seen.looked(&self.path, &present, is_known, now).await;
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

    /// Says once what cannot be looked at, as long as that lasts.
    fn tell_unknown(&mut self, unknown: BTreeMap<PathBuf, String>) {
        let mut fresh = unknown
            .iter()
            .filter(|(path, _)| !self.unknown.contains(*path));
        if let Some((path, error)) = fresh.next() {
            let others = fresh.count();
            tracing::warn!(folder = ?self.path, ?path, %error, others,
                "a part of a watch folder cannot be looked into: what is put there is not added, \
                 and no file of the watch is taken for gone as long as that lasts");
        }
        self.unknown = unknown.into_keys().collect();
    }

    /// Begins with files that are due, as many as may be under way.
    fn begin(&mut self) {
        let now = Instant::now();
        while self.running.len() < ADDS_MAX {
            let Some((path, file)) = self.files.take_due(now) else {
                return;
            };
            let job = Job {
                root: self.path.clone(),
                path,
                entry: Arc::clone(&self.entry),
                shared: Arc::clone(&self.shared),
                stamp: file.stamp,
                quiet: file.since.elapsed(),
                is_incomplete: file.is_incomplete,
                fetches_failed: file.fetches_failed,
            };
            self.running.spawn(job.run());
        }
    }

    fn ended(&mut self, path: &Path, outcome: Outcome) {
        if matches!(outcome, Outcome::Later { .. }) {
            self.shared.cells.add(ControlCounter::WatchedDeferred, 1);
        }
        if let Some(why) = self.files.ended(path, outcome, Instant::now()) {
            tracing::warn!(folder = ?self.path, file = ?path, error = ?why,
                "a file in a watch folder is not added yet; it is tried again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::pair;
    use crate::watching::seen::Seen;
    use crate::watching::spot::Stamp;
    use ::state::{Options, Store};
    use seedring_metrics::Registry;
    use tokio::sync::Semaphore;

    /// What stayed below a mount is not new when that answers again, however long it did not.
    #[tokio::test]
    async fn what_cannot_be_looked_into_has_not_gone() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path(), Options::default()).unwrap();
        let shared = Arc::new(Shared {
            server: pair().0,
            cells: Registry::new(1).control(),
            seen: Seen::read(store.handle()).await.unwrap(),
            room: Arc::new(Semaphore::new(1)),
        });
        let (root, stamp) = (Path::new("/watch"), |inode| Stamp {
            device: 1,
            inode,
            bytes: 1,
            changed_ns: 1,
        });
        let files = ["own.torrent", "nas/a.torrent"].map(PathBuf::from);
        for path in &files {
            shared.seen.insert(seen::key(root, path, stamp(1))).await;
        }
        let mut folder = Folder::new(root.into(), WatchEntry::default(), Arc::clone(&shared));
        let found = |nas: Option<&str>| Found {
            files: BTreeMap::from([(files[0].clone(), Some(stamp(1)))]),
            unknown: nas
                .map(|why| ("nas".into(), why.to_owned()))
                .into_iter()
                .collect(),
            ..Found::default()
        };
        let begin = Instant::now();
        let at = |hours: u32| begin + Duration::from_secs(3600) * hours;
        let key = seen::key(root, &files[1], stamp(1));
        for hours in [0, 30, 60] {
            folder
                .found(found(Some("Stale file handle")), true, at(hours))
                .await;
            assert!(shared.seen.has(&key).await);
        }
        assert_eq!(folder.unknown, BTreeSet::from(["nas".into()]));
        for (hours, is_known) in [(61, true), (80, true), (85, false)] {
            folder.found(found(None), true, at(hours)).await;
            assert_eq!(shared.seen.has(&key).await, is_known, "after {hours} h");
        }
        assert!(folder.unknown.is_empty());
    }
}
