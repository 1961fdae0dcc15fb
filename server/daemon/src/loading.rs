//! Gets the torrents of a start ready, one after another, beside the running server: it serves
//! those that are ready, minds faults and stops at once when told to, however long the rest takes
//! to hash.
//!
//! Limits: one torrent at a time is hashed, and one that is ready waits to be taken.
//! Does not: serve anything; see `torrents`.

use crate::disk::BACKGROUND;
use crate::progress::{Reporter, tell_respelled};
use anyhow::{Context, anyhow};
use control::config::Config;
use control::create::{CreateOptions, CreateProgress};
use control::library::{Library, Ready};
use control::state::State;
use proto::metainfo::with_trackers;
use seedring_metrics::ControlCells;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// The longest part of a torrent's name in the name of its file, in bytes; a file name has 255 at
/// most.
const NAME_BYTES_MAX: usize = 180;

/// A torrent to be served.
#[derive(Clone)]
pub enum Source {
    /// What is at this path; its torrent is made if it is not known.
    Path(PathBuf, CreateOptions),
    /// This `.torrent` file, with its data in this folder, and tiers of trackers that are asked before
    /// its own.
    Torrent(PathBuf, PathBuf, Vec<Vec<String>>),
}

/// What tells one source from another: what the operator named, and the folder of its data if that
/// is named, too.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SourceId {
    pub path: PathBuf,
    data: Option<PathBuf>,
}

impl SourceId {
    /// Where its data are: nothing of it is elsewhere.
    pub fn place(&self) -> &Path {
        self.data.as_deref().unwrap_or(&self.path)
    }
}

/// A torrent that can be served, and where its `.torrent` file is.
pub struct Loaded {
    pub source: SourceId,
    pub ready: Ready,
    pub torrent_file: PathBuf,
}

/// A torrent that can not be served.
#[derive(Debug)]
pub struct Refused {
    /// What was to be served: a `.torrent` file, or a file or folder.
    pub source: SourceId,
    pub error: anyhow::Error,
}

impl Source {
    /// Which one it is.
    pub fn id(&self) -> SourceId {
        let (path, data) = match self {
            Source::Path(path, _) => (path, None),
            Source::Torrent(path, data, _) => (path, Some(data.clone())),
        };
        SourceId {
            path: path.clone(),
            data,
        }
    }

    /// What a configuration names.
    pub fn named(config: &Config) -> Vec<Source> {
        let torrents = config.torrents.iter();
        let torrents = torrents
            .map(|entry| Source::Torrent(entry.torrent.clone(), entry.data.clone(), Vec::new()));
        let seeds = config.seeds.iter();
        let seeds = seeds.map(|entry| Source::Path(entry.path.clone(), CreateOptions::default()));
        torrents.chain(seeds).collect()
    }
}

/// What loading needs.
#[derive(Clone)]
pub struct Loader {
    pub state: Arc<State>,
    pub state_dir: PathBuf,
    pub cells: Arc<ControlCells>,
    /// The announce URL of our own tracker, which torrents that are made name first.
    pub own_tracker: Option<String>,
    /// Whether to hash what has not changed, too.
    pub always_hash: bool,
    /// Whether progress is told in JSON.
    pub json: bool,
}

/// The torrents on their way. Dropping it ends the work.
pub struct Loading {
    sources: mpsc::UnboundedSender<Source>,
    results: mpsc::Receiver<Result<Loaded, Refused>>,
    left: usize,
    _task: JoinSet<()>,
}

impl Loading {
    /// Begins to get `sources` ready, in their order.
    pub fn start(loader: Loader, sources: Vec<Source>) -> Loading {
        let (sender, results) = mpsc::channel(1);
        // Bounded by the configuration's lists.
        let (waiting, mut next) = mpsc::unbounded_channel::<Source>();
        let mut task = JoinSet::new();
        task.spawn(async move {
            while let Some(source) = next.recv().await {
                let loaded = loader.load(&source).await.map_err(|error| Refused {
                    source: source.id(),
                    error,
                });
                if sender.send(loaded).await.is_err() {
                    return;
                }
            }
        });
        let mut loading = Loading {
            sources: waiting,
            results,
            left: 0,
            _task: task,
        };
        loading.more(sources);
        loading
    }

    /// Gets these ready, too, after those that wait.
    pub fn more(&mut self, sources: Vec<Source>) {
        for source in sources {
            self.left += usize::from(self.sources.send(source).is_ok());
        }
    }

    /// The next source's torrent, or why it cannot be served; `None` after the last.
    pub async fn next(&mut self) -> Option<Result<Loaded, Refused>> {
        if self.left == 0 {
            return None;
        }
        let result = self.results.recv().await?;
        self.left -= 1;
        Some(result)
    }

    /// Sources whose result is still to come.
    pub fn left(&self) -> usize {
        self.left
    }
}

impl Loader {
    async fn load(&self, source: &Source) -> anyhow::Result<Loaded> {
        let mut ready = self.get_ready(source).await?;
        for skip in &ready.skips.shown {
            tracing::warn!("left out {:?}: {}", skip.path, skip.reason);
        }
        // Of a torrent that others made, its maker was to be told.
        if matches!(source, Source::Path(..)) {
            for told in tell_respelled(&ready.metainfo) {
                tracing::warn!("{told}");
            }
        }
        let torrent_file = match source {
            Source::Path(..) => write_torrent(&self.state_dir, &ready)?,
            Source::Torrent(file, ..) => file.clone(),
        };
        if let Source::Torrent(.., named) = source {
            // Of a torrent that others made, only the magnet link that we print names our tracker and
            // those that the operator named.
            let mut metainfo = (*ready.metainfo).clone();
            let own = self.own_tracker.iter().map(|own| vec![own.clone()]);
            metainfo.trackers.splice(0..0, named.iter().cloned());
            metainfo.trackers.extend(own);
            ready.metainfo = Arc::new(metainfo);
        }
        Ok(Loaded {
            source: source.id(),
            ready,
            torrent_file,
        })
    }

    /// Makes, verifies or remembers a torrent on a thread for blocking work; stops when this future
    /// is dropped.
    async fn get_ready(&self, source: &Source) -> anyhow::Result<Ready> {
        /// Tells the hashing to stop.
        struct Abandon(Arc<AtomicBool>);
        impl Drop for Abandon {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let abandoned = Arc::new(AtomicBool::new(false));
        let _abandon = Abandon(Arc::clone(&abandoned));
        let mut source = source.clone();
        if let (Source::Path(_, options), Some(own)) = (&mut source, &self.own_tracker) {
            // Our own tracker comes first; the operator's are tiers of their own behind it.
            options.trackers.insert(0, vec![own.clone()]);
        }
        let (state, cells) = (Arc::clone(&self.state), Arc::clone(&self.cells));
        let (always_hash, json) = (self.always_hash, self.json);
        let task = tokio::task::spawn_blocking(move || {
            let library = Library {
                state: &state,
                always_hash,
                cells: &cells,
                disk: BACKGROUND,
            };
            let mut reporter = Reporter::new("hashing", json);
            let mut progress = |step: &CreateProgress<'_>| {
                match step {
                    CreateProgress::Walking { files } => reporter.walking(*files),
                    CreateProgress::Hashing(done) => reporter.hashing(done),
                }
                if abandoned.load(Ordering::Relaxed) {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            };
            let ready = match &source {
                Source::Path(path, options) => library.of_path(path, options, &mut progress),
                Source::Torrent(file, data, _) => library.of_torrent(file, data, &mut progress),
            };
            reporter.finish();
            ready
        });
        Ok(task
            .await
            .map_err(|error| anyhow!("hashing ended early: {error}"))??)
    }
}

/// Writes the `.torrent` file of a torrent that we made into the state directory.
fn write_torrent(state_dir: &Path, ready: &Ready) -> anyhow::Result<PathBuf> {
    let folder = state_dir.join("torrents");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {folder:?}"))?;
    let hash = ready.info_hash.to_string();
    let file = folder.join(file_name(&ready.metainfo.name, &hash));
    let bytes = with_trackers(&ready.torrent, &ready.metainfo.trackers)?;
    let fresh = folder.join(format!(".{hash}.tmp"));
    std::fs::write(&fresh, bytes)
        .and_then(|()| std::fs::rename(&fresh, &file))
        .with_context(|| format!("cannot write {file:?}"))?;
    Ok(file)
}

/// What the `.torrent` file of a torrent is called: as much of its name as fits, and of its
/// info-hash what tells it from others of the same name. A name has been made one path component by
/// whoever parsed it.
fn file_name(name: &str, hash: &str) -> String {
    let mut end = name.len().min(NAME_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    // A leading dot would hide it.
    let name = name[..end].trim_start_matches('.');
    format!("{name}-{}.torrent", &hash[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn the_longest_name_makes_a_file_name_that_fits() {
        for name in ["a".repeat(255), "\u{1f600}".repeat(63), "é".repeat(127)] {
            let file = file_name(&name, HASH);
            assert!(file.len() <= 255, "{} bytes", file.len());
            assert!(file.ends_with("-01234567.torrent"));
            assert!(name.starts_with(file.split('-').next().unwrap()));
        }
    }

    #[test]
    fn a_short_name_is_kept_and_never_hidden() {
        assert_eq!(file_name("data", HASH), "data-01234567.torrent");
        assert_eq!(file_name(".cache", HASH), "cache-01234567.torrent");
        assert_eq!(file_name("...", HASH), "-01234567.torrent");
    }

    #[tokio::test]
    async fn results_come_in_order_and_a_bad_source_does_not_end_the_others() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("good"), b"some data").unwrap();
        let loader = Loader {
            state: Arc::new(State::open(&folder.path().join("state")).unwrap()),
            state_dir: folder.path().join("state"),
            cells: seedring_metrics::Registry::new(0).control(),
            own_tracker: Some("http://127.0.0.1:6969/announce".to_owned()),
            always_hash: false,
            json: false,
        };
        let source = |name| Source::Path(folder.path().join(name), CreateOptions::default());
        let mut loading = Loading::start(loader, vec![source("missing"), source("good")]);
        assert_eq!(loading.left(), 2);
        let error = loading.next().await.unwrap().err().unwrap();
        assert!(error.source.path.ends_with("missing"));
        assert!(format!("{:#}", error.error).contains("missing"));
        let loaded = loading.next().await.unwrap().unwrap();
        assert_eq!(loaded.ready.metainfo.name, "good");
        assert!(loaded.torrent_file.is_file());
        assert_eq!(loading.left(), 0);
        assert!(loading.next().await.is_none());
        // What a reload names comes after it.
        loading.more(vec![source("good"), source("missing")]);
        assert_eq!(loading.left(), 2);
        assert_eq!(
            loading.next().await.unwrap().unwrap().source,
            source("good").id()
        );
        assert!(loading.next().await.unwrap().is_err());
    }
}
