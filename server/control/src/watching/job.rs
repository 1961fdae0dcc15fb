//! One file of a watch folder: read, added, and dealt with as its folder says. What blocks on the
//! disk is done on threads for that.

use super::content::{Kind, Wrong};
use super::spot::{Content, Spot, Stamp, There};
use super::{FILE_KIB_MIN, MEMORY_BYTES_MAX, Shared, seen};
use crate::command::{AddSource, AddTorrent, Added, Command, CommandError};
use crate::config::{After, WatchEntry};
use ::state::TorrentLimits;
use seedring_metrics::ControlCounter;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long a link without an end of line must have been quiet.
const LINK_QUIET: Duration = Duration::from_secs(2);

/// How often a URL may give nothing before its file counts as invalid: for over an hour. Failures
/// of other things, such as a state store on a full disk, say nothing of it.
const FETCHES_MAX: u32 = 14;

/// What came of a file.
pub(super) enum Outcome {
    /// It is dealt with, and gone from its name.
    Gone,
    /// It is dealt with and stays.
    Stays,
    /// It is being written: this is its stamp now.
    Wait(Stamp),
    /// It is not whole.
    Incomplete,
    /// It could not be done now.
    Later {
        why: String,
        /// Whether the web failed, where it was asked.
        is_of_web: bool,
    },
}

impl Outcome {
    fn later(why: String) -> Outcome {
        Outcome::Later {
            why,
            is_of_web: false,
        }
    }
}

/// One file, dealt with.
pub(super) struct Job {
    pub root: PathBuf,
    pub path: PathBuf,
    pub entry: Arc<WatchEntry>,
    pub shared: Arc<Shared>,
    pub stamp: Stamp,
    /// For how long it has had this stamp.
    pub quiet: Duration,
    pub is_incomplete: bool,
    /// How often the web has given nothing for it.
    pub fetches_failed: u32,
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
    pub(super) async fn run(self) -> (PathBuf, Outcome) {
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
            return Outcome::later("the server is stopping".to_owned());
        };
        let read = self.blocking(read).await;
        match read {
            Err(error) => Outcome::later(error.to_string()),
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
            Err(error @ CommandError::Fetch(_)) => match self.fetches_failed >= FETCHES_MAX {
                true => self.refuse(error.to_string()).await,
                false => Outcome::Later {
                    why: error.to_string(),
                    is_of_web: true,
                },
            },
            Err(error) => Outcome::later(error.to_string()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Seat, pair};
    use crate::watching::seen::Seen;
    use ::state::{Options, Store};
    use seedring_metrics::Registry;
    use std::fs;
    use std::path::Path;
    use tokio::sync::Semaphore;

    /// A job of a file with a URL, and who is asked by it.
    async fn job(root: &Path, store: &Store, fetches_failed: u32) -> (Job, Seat) {
        let path = PathBuf::from("a.url");
        fs::write(root.join(&path), "http://127.0.0.1:1/a.torrent\n").unwrap();
        let spot = Spot::open(root, &path).unwrap();
        let There::File(stamp) = spot.look().unwrap() else {
            panic!("no file");
        };
        let (server, seat) = pair();
        let job = Job {
            root: root.to_owned(),
            path,
            entry: Arc::new(WatchEntry::default()),
            shared: Arc::new(Shared {
                server,
                cells: Registry::new(1).control(),
                seen: Seen::read(store.handle()).await.unwrap(),
                room: Arc::new(Semaphore::new(MEMORY_BYTES_MAX as usize >> 10)),
            }),
            stamp,
            quiet: LINK_QUIET,
            is_incomplete: false,
            fetches_failed,
        };
        (job, seat)
    }

    /// A good link whose torrent cannot be kept is not called invalid, however long that lasts; one
    /// that gives nothing is, after a while.
    #[tokio::test]
    async fn a_url_is_invalid_by_what_the_web_says_alone() {
        let full = || CommandError::Failed("no space is left on the state disk".into());
        let absent = || CommandError::Fetch("404 Not Found".into());
        let cases = [
            (full(), FETCHES_MAX, Some(false)),
            (absent(), FETCHES_MAX - 1, Some(true)),
            (absent(), FETCHES_MAX, None),
        ];
        for (error, fetches_failed, expected) in cases {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path().join("in");
            fs::create_dir(&root).unwrap();
            let store = Store::open(folder.path(), Options::default()).unwrap();
            let (job, mut seat) = job(&root, &store, fetches_failed).await;
            let answer = async {
                match seat.commands.recv().await {
                    Some(Command::Add(_, reply)) => reply.send(Err(error.clone())).unwrap(),
                    other => panic!("{other:?}"),
                }
            };
            let ((_, outcome), ()) = tokio::join!(job.run(), answer);
            let is_of_web = match outcome {
                Outcome::Later { is_of_web, .. } => Some(is_of_web),
                Outcome::Gone => None,
                _ => panic!("{error}: it stays"),
            };
            assert_eq!(is_of_web, expected, "{error}");
            assert_eq!(root.join("a.url.invalid").exists(), expected.is_none());
        }
    }
}
