//! The watch over one folder: looks, decides which files are due, has them added, and deals with them
//! then.

use super::content::{Kind, Wrong};
use super::look::{FILES_MAX, Folders, Found, look};
use super::spot::{Content, Spot, Stamp, There};
use super::{ADDS_MAX, FILE_KIB_MIN, MEMORY_BYTES_MAX, Shared, seen};
use crate::command::{AddSource, AddTorrent, Added, Command, CommandError};
use crate::config::{After, WatchEntry};
use ::state::TorrentLimits;
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

/// How long a link without an end of line must have been quiet.
const LINK_QUIET: Duration = Duration::from_secs(2);

/// How long after a failure a file is tried again, at first and at most; it doubles in between.
const RETRY_MIN: Duration = Duration::from_secs(2);
/// See [`RETRY_MIN`].
const RETRY_MAX: Duration = Duration::from_secs(600);

/// How often a URL is asked before its file counts as invalid: over an hour and a half.
const URL_TRIES_MAX: u32 = 14;

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

/// What came of a file.
enum Outcome {
    /// It is dealt with, and gone from its name.
    Gone,
    /// It is dealt with and stays.
    Stays,
    /// It is being written: this is its stamp now.
    Wait(Stamp),
    /// It is not whole.
    Incomplete,
    /// It could not be done now.
    Later(String),
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

    /// Looks into the folder, on a thread for blocking work: a disk that hangs holds up nobody else.
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
            tracing::warn!(folder = ?self.path, "the watch folder holds more than {FILES_MAX} files \
                or too many folders: others are seen when there are fewer");
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

/// One file, dealt with.
struct Job {
    root: PathBuf,
    path: PathBuf,
    entry: Arc<WatchEntry>,
    shared: Arc<Shared>,
    stamp: Stamp,
    /// For how long it has had this stamp.
    quiet: Duration,
    is_incomplete: bool,
    tries: u32,
}

/// What reading a file came to.
enum Read {
    Source(AddSource),
    Wait(Stamp),
    Incomplete,
    Refused(String),
    Gone,
}

impl Job {
    async fn run(self) -> (PathBuf, Outcome) {
        let outcome = self.deal().await;
        (self.path, outcome)
    }

    async fn deal(&self) -> Outcome {
        let key = seen::key(&self.root, &self.path, self.stamp);
        if self.shared.seen.has(&key).await {
            return Outcome::Stays;
        }
        // What is read stays in memory until it is added.
        let kib_max = u32::try_from(MEMORY_BYTES_MAX >> 10).unwrap_or(u32::MAX);
        let kib = u32::try_from(self.stamp.bytes >> 10).unwrap_or(u32::MAX);
        let kib = kib.clamp(FILE_KIB_MIN, kib_max);
        let Ok(_room) = Arc::clone(&self.shared.room).acquire_many_owned(kib).await else {
            return Outcome::Later("the server is stopping".to_owned());
        };
        let read = self.blocking(read).await;
        match read {
            Err(error) => Outcome::Later(error.to_string()),
            Ok(Read::Gone) => Outcome::Gone,
            Ok(Read::Wait(stamp)) => Outcome::Wait(stamp),
            Ok(Read::Incomplete) => Outcome::Incomplete,
            Ok(Read::Refused(why)) => self.refuse(why).await,
            Ok(Read::Source(source)) => self.add(source).await,
        }
    }

    /// Does what blocks on the disk.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Spot, &Ask) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (root, path) = (self.root.clone(), self.path.clone());
        let ask = Ask {
            stamp: self.stamp,
            quiet: self.quiet,
            is_incomplete: self.is_incomplete,
            settle: self.entry.settle_s.duration(),
            after: self.entry.after.clone(),
        };
        let work = move || work(&Spot::open(&root, &path)?, &ask);
        let done = tokio::task::spawn_blocking(work).await;
        done.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    async fn add(&self, source: AddSource) -> Outcome {
        let is_url = matches!(source, AddSource::Url(_));
        let add = Box::new(self.request(source));
        let added = self
            .shared
            .server
            .ask(|reply| Command::Add(add, reply))
            .await;
        match added {
            Ok(added) => self.added(added).await,
            Err(error @ (CommandError::Invalid { .. } | CommandError::Unsupported(_))) => {
                self.refuse(error.to_string()).await
            }
            Err(error @ CommandError::Failed(_)) if is_url && self.tries >= URL_TRIES_MAX => {
                self.refuse(error.to_string()).await
            }
            Err(error) => Outcome::Later(error.to_string()),
        }
    }

    fn request(&self, source: AddSource) -> AddTorrent {
        let entry = &self.entry;
        AddTorrent {
            save_path: entry.save_path.0.clone(),
            category: entry.category.0.clone(),
            labels: entry.labels.0.clone(),
            paused: entry.paused,
            seed_mode: entry.seed_mode,
            sequential: entry.sequential,
            limits: TorrentLimits {
                upload_rate: entry.upload_rate.map(|rate| rate.0),
                download_rate: entry.download_rate.map(|rate| rate.0),
                ratio_permille: entry.ratio_permille.map(u64::from),
                seeding_time_s: entry.seeding_time_s.map(|time| time.duration().as_secs()),
                ..TorrentLimits::default()
            },
            ..AddTorrent::new(source)
        }
    }

    async fn added(&self, added: Added) -> Outcome {
        let (counter, what) = match added.was_there {
            true => (ControlCounter::WatchedPresent, "is there already"),
            false => (ControlCounter::WatchedAdded, "is added"),
        };
        self.shared.cells.add(counter, 1);
        tracing::info!(torrent = %added.info_hash, name = ?added.name, folder = ?self.root,
            file = ?self.path, "a torrent of a watch folder {what}");
        let settled = self.blocking(|spot, ask| match &ask.after {
            After::Rename => spot.rename(ask.stamp, ".added").map(drop),
            After::Delete => spot.delete(ask.stamp),
            After::Move(folder) => spot.move_into(ask.stamp, folder),
            After::Keep => Ok(()),
        });
        self.settled(settled.await).await
    }

    /// A file that is wrong for good.
    async fn refuse(&self, why: String) -> Outcome {
        self.shared.cells.add(ControlCounter::WatchedInvalid, 1);
        tracing::error!(folder = ?self.root, file = ?self.path, error = ?why,
            "a file in a watch folder cannot be added");
        let settled = self.blocking(|spot, ask| match &ask.after {
            After::Keep => Ok(()),
            _ => spot.rename(ask.stamp, ".invalid").map(drop),
        });
        self.settled(settled.await).await
    }

    /// A file was dealt with; if it stays it is remembered.
    async fn settled(&self, settled: io::Result<()>) -> Outcome {
        if let Err(error) = &settled {
            tracing::warn!(folder = ?self.root, file = ?self.path, %error,
                "the file stays in the watch folder, and is remembered: it cannot be dealt with as \
                 watch.after says");
        }
        if settled.is_ok() && self.entry.after != After::Keep {
            return Outcome::Gone;
        }
        let key = seen::key(&self.root, &self.path, self.stamp);
        self.shared.seen.insert(key).await;
        Outcome::Stays
    }
}

/// What is said of a file to who does what blocks.
struct Ask {
    stamp: Stamp,
    quiet: Duration,
    is_incomplete: bool,
    settle: Duration,
    after: After,
}

/// Reads a file and finds out what it is, or that it may still be written.
fn read(spot: &Spot, ask: &Ask) -> io::Result<Read> {
    let stamp = match spot.look() {
        Ok(There::File(stamp)) => stamp,
        // Something else has taken its name; the next look tells of it.
        Ok(There::Folder | There::Special) => return Ok(Read::Gone),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Read::Gone),
        Err(error) => return Err(error),
    };
    let kind = Kind::of(spot.name()).ok_or_else(|| io::Error::other("it has no known kind"))?;
    if stamp != ask.stamp {
        return Ok(Read::Wait(stamp));
    }
    let is_quiet = ask.quiet >= ask.settle;
    if ask.is_incomplete && !is_quiet {
        return Ok(Read::Incomplete);
    }
    let content = match spot.read(stamp, kind)? {
        Content::Whole(content) => content,
        Content::Changing => return Ok(Read::Wait(stamp)),
        Content::TooLong if !is_quiet => return Ok(Read::Incomplete),
        Content::TooLong => {
            let max = kind.bytes_max();
            let why = format!("it has {} bytes; at most {max} are read", stamp.bytes);
            return Ok(Read::Refused(why));
        }
    };
    if kind.may_go_on(&content) && ask.quiet < LINK_QUIET {
        return Ok(Read::Wait(stamp));
    }
    match kind.read(content) {
        Ok(source) => Ok(Read::Source(source)),
        Err(Wrong(_)) if !is_quiet => Ok(Read::Incomplete),
        Err(Wrong(why)) => Ok(Read::Refused(why)),
    }
}
