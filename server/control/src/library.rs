//! Gets a torrent ready to be served: its metainfo, where its files are, and the proof that they were
//! verified. Hashes only what is not known to be right already.
//!
//! Blocks for as long as hashing takes; call it on a thread for blocking work.

use crate::create::{self, CreateError, CreateOptions, CreateProgress, Created, Skips, walk};
use crate::hashing::{self, DataFile, Disk, Links, Root};
use crate::state::{Record, State, StateError};
use crate::verify::{self, FileState, VerifyError};
use engine::layout::FileStamp;
use proto::bencode::Limits;
use proto::ids::InfoHashV1;
use proto::limits::METAINFO_BYTES_MAX;
use proto::metainfo::{Metainfo, MetainfoError, with_trackers};
use seedring_metrics::{ControlCells, ControlCounter};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A torrent that can be served.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Its v1 info-hash.
    pub info_hash: InfoHashV1,
    /// Its metainfo.
    pub metainfo: Arc<Metainfo>,
    /// Its `.torrent` file.
    pub torrent: Vec<u8>,
    /// Where its data are.
    pub data_dir: PathBuf,
    /// What each file was when it was verified; `None` for pad files.
    pub stamps: Vec<Option<FileStamp>>,
    /// Paths of files that lie elsewhere than the metainfo says, by their index.
    pub paths: BTreeMap<u32, PathBuf>,
    /// How it is known to be right.
    pub proof: Proof,
    /// What a walk left out.
    pub skips: Skips,
}

/// How a torrent's data are known to be right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proof {
    /// The torrent was made from them now.
    Made,
    /// They were hashed now.
    Hashed,
    /// They were hashed by an earlier run and have not changed since.
    Remembered,
}

/// How torrents are got ready.
pub struct Library<'a> {
    /// What earlier runs verified.
    pub state: &'a State,
    /// Whether to hash what has not changed, too.
    pub always_hash: bool,
    /// Where hashing is counted.
    pub cells: &'a ControlCells,
    /// How what is not in memory is read.
    pub disk: &'a dyn Disk,
}

/// How far the work has come.
pub type OnProgress<'a> = &'a mut dyn FnMut(&CreateProgress<'_>) -> ControlFlow<()>;

/// A torrent can not be served.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// No torrent could be made.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// A file or folder can not be reached.
    #[error("cannot {operation} {path:?}: {error}")]
    Io {
        /// What was tried, in words.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system answered.
        error: io::Error,
    },
    /// The `.torrent` file is larger than any we read.
    #[error(
        "{path:?} is no torrent: it has more than {METAINFO_BYTES_MAX} bytes, the most that one has"
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The `.torrent` file is not one.
    #[error("{path:?}: {error}")]
    Metainfo {
        /// The file.
        path: PathBuf,
        /// What is wrong, with field and offset.
        error: MetainfoError,
    },
    /// The torrent has only v2 hashes.
    #[error("{path:?} has version 2 hashes only (BEP 52); seeding those comes later")]
    OnlyV2 {
        /// The file.
        path: PathBuf,
    },
    /// Verifying could not be done.
    #[error("{path:?}: {error}")]
    Verify {
        /// The torrent.
        path: PathBuf,
        /// Why.
        error: VerifyError,
    },
    /// The data are not the torrent's.
    #[error("{name:?} in {data_dir:?} is not what the torrent says: {faults}")]
    Wrong {
        /// The torrent's name.
        name: String,
        /// Where its data were looked for.
        data_dir: PathBuf,
        /// What is wrong, file by file.
        faults: String,
    },
    /// The state store failed.
    #[error(transparent)]
    State(#[from] StateError),
}

impl Library<'_> {
    /// Makes the torrent of `path`, or takes the one that was made of it before if nothing has changed.
    ///
    /// # Errors
    ///
    /// [`LibraryError`]; what was remembered stays.
    pub fn of_path(
        &self,
        path: &Path,
        options: &CreateOptions,
        progress: OnProgress<'_>,
    ) -> Result<Ready, LibraryError> {
        let path = path
            .canonicalize()
            .map_err(|error| io_error("find", path, error))?;
        let source = source_key(&path, options);
        if !self.always_hash
            && let Some(known) = self.made_before(&path, &source, options, progress)?
        {
            return Ok(known);
        }
        let mut bytes_counted = 0;
        let mut counting = |step: &CreateProgress<'_>| {
            if let CreateProgress::Hashing(done) = step {
                self.count_hashed(done, &mut bytes_counted);
            }
            progress(step)
        };
        let created = create::create(&path, options, self.disk, &mut counting)?;
        let ready = Ready::of_created(created).ok_or(LibraryError::OnlyV2 { path })?;
        self.state
            .remember(ready.info_hash, &ready.record(), Some(&source))?;
        Ok(ready)
    }

    /// Takes the torrent in the file `path`, whose data are in `data_dir`; hashes them unless that was done
    /// before and nothing has changed.
    ///
    /// # Errors
    ///
    /// [`LibraryError::Wrong`] names each file whose data are not the torrent's.
    pub fn of_torrent(
        &self,
        path: &Path,
        data_dir: &Path,
        progress: OnProgress<'_>,
    ) -> Result<Ready, LibraryError> {
        let torrent = read_torrent(path)?;
        let metainfo = Metainfo::parse(&torrent).map_err(|error| LibraryError::Metainfo {
            path: path.to_owned(),
            error,
        })?;
        let Some(info_hash) = metainfo.info_hash_v1 else {
            return Err(LibraryError::OnlyV2 {
                path: path.to_owned(),
            });
        };
        let data_dir = data_dir
            .canonicalize()
            .map_err(|error| io_error("find", data_dir, error))?;
        let mut ready = Ready {
            info_hash,
            metainfo: Arc::new(metainfo),
            torrent,
            data_dir,
            stamps: Vec::new(),
            paths: BTreeMap::new(),
            proof: Proof::Remembered,
            skips: Skips::default(),
        };
        if !self.always_hash
            && let Some(record) = self.state.record(info_hash)?
            && record.data_dir == ready.data_dir
            && record.stamps.len() == ready.metainfo.files.len()
        {
            ready.stamps = record.stamps;
            ready.paths = record.paths;
            if ready.is_unchanged() {
                return Ok(ready);
            }
        }
        self.hash(&mut ready, progress)?;
        Ok(ready)
    }

    /// Hashes the data of a torrent again, all of it, and takes new stamps.
    ///
    /// # Errors
    ///
    /// As [`Library::of_torrent`].
    pub fn hash(&self, ready: &mut Ready, progress: OnProgress<'_>) -> Result<(), LibraryError> {
        let mut bytes_counted = 0;
        let mut hashing = |done: &hashing::Progress<'_>| {
            self.count_hashed(done, &mut bytes_counted);
            progress(&CreateProgress::Hashing(*done))
        };
        let verified = verify::verify(
            &ready.metainfo,
            &ready.data_dir,
            None,
            self.disk,
            &mut hashing,
        )
        .map_err(|error| LibraryError::Verify {
            path: ready.data_dir.clone(),
            error,
        })?;
        let good = u64::from(verified.pieces.len());
        self.cells.add(ControlCounter::PiecesGood, good);
        self.cells.add(
            ControlCounter::PiecesBad,
            u64::from(verified.selected.len()) - good,
        );
        if !verified.is_good() {
            return Err(LibraryError::Wrong {
                name: ready.metainfo.name.clone(),
                data_dir: ready.data_dir.clone(),
                faults: faults(&verified.files),
            });
        }
        ready.stamps = verified.stamps();
        let files = verified.files.into_iter().map(|file| file.path);
        ready.paths = differing(&ready.metainfo, files);
        ready.proof = Proof::Hashed;
        self.state
            .remember(ready.info_hash, &ready.record(), None)?;
        Ok(())
    }

    /// Counts the bytes that were hashed since the last report.
    fn count_hashed(&self, done: &hashing::Progress<'_>, bytes_counted: &mut u64) {
        let bytes = done.bytes_done.saturating_sub(*bytes_counted);
        self.cells.add(ControlCounter::VerifiedBytes, bytes);
        *bytes_counted += bytes;
    }

    /// The torrent that was made of `path` before, if a walk finds the same files with the same stamps.
    fn made_before(
        &self,
        path: &Path,
        source: &[u8],
        options: &CreateOptions,
        progress: OnProgress<'_>,
    ) -> Result<Option<Ready>, LibraryError> {
        let Some(info_hash) = self.state.made_from(source)? else {
            return Ok(None);
        };
        let Some(record) = self.state.record(info_hash)? else {
            return Ok(None);
        };
        let Ok(metainfo) = Metainfo::parse_within(&record.metainfo, &Limits::METAINFO_OWN) else {
            return Ok(None);
        };
        let mut walking = |files| progress(&CreateProgress::Walking { files });
        let walked = walk(path, options.symlinks, &options.exclude, &mut walking)?;
        let data_dir = walked.data_dir();
        let stamps: Vec<_> = walked.files.iter().map(|file| file.stamp).collect();
        let paths = overrides(&metainfo, &walked.files, &walked.root, &data_dir);
        let same = data_dir.as_ref() == Some(&record.data_dir)
            && stamps == record.stamps
            && stamps.len() == metainfo.files.len()
            && paths == record.paths;
        // Trackers lie outside `info`: other ones need no hashing.
        let Ok(torrent) = with_trackers(&record.metainfo, &options.trackers) else {
            return Ok(None);
        };
        let Ok(metainfo) = Metainfo::parse_within(&torrent, &Limits::METAINFO_OWN) else {
            return Ok(None);
        };
        Ok(same.then(|| Ready {
            info_hash,
            metainfo: Arc::new(metainfo),
            torrent,
            data_dir: record.data_dir,
            stamps: record.stamps,
            paths: record.paths,
            proof: Proof::Remembered,
            skips: walked.skips,
        }))
    }
}

impl Ready {
    /// The torrent that was just made; `None` if it has version 2 hashes only, or data without a folder.
    pub fn of_created(created: Created) -> Option<Ready> {
        let stamps = created.stamps();
        let paths = overrides(
            &created.metainfo,
            &created.files,
            &created.root,
            &created.data_dir,
        );
        Some(Ready {
            info_hash: created.metainfo.info_hash_v1?,
            metainfo: Arc::new(created.metainfo),
            torrent: created.torrent,
            data_dir: created.data_dir?,
            stamps,
            paths,
            proof: Proof::Made,
            skips: created.skips,
        })
    }

    /// Whether every file still has the stamp that it had when it was verified.
    pub fn is_unchanged(&self) -> bool {
        self.stamps_now()
            .is_some_and(|stamps| stamps == self.stamps)
    }

    /// The stamps that the files have now; `None` if one is missing or has another length than in the torrent.
    pub fn stamps_now(&self) -> Option<Vec<Option<FileStamp>>> {
        let root = Root::open(&self.data_dir, Links::Beneath).ok()?;
        let stamp = |(index, file): (u32, &proto::metainfo::File)| {
            if file.pad || file.symlink_target.is_some() {
                return Some(None);
            }
            let path = match self.paths.get(&index) {
                Some(path) => path.clone(),
                None => file.path.iter().collect(),
            };
            let stamp = hashing::stamp_of(&root.open_file(&path).ok()?.1);
            (stamp.size == file.length).then_some(Some(stamp))
        };
        (0..).zip(&self.metainfo.files).map(stamp).collect()
    }

    /// What is to be remembered of it.
    fn record(&self) -> Record {
        Record {
            metainfo: self.torrent.clone(),
            data_dir: self.data_dir.clone(),
            stamps: self.stamps.clone(),
            paths: self.paths.clone(),
        }
    }
}

/// Reads a `.torrent` file within its limit.
///
/// # Errors
///
/// [`LibraryError::Io`] and [`LibraryError::TooLarge`].
pub fn read_torrent(path: &Path) -> Result<Vec<u8>, LibraryError> {
    let file = std::fs::File::open(path).map_err(|error| io_error("open", path, error))?;
    let mut bytes = Vec::new();
    let limit = METAINFO_BYTES_MAX as u64 + 1;
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| io_error("read", path, error))?;
    if bytes.len() as u64 == limit {
        return Err(LibraryError::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(bytes)
}

/// What a torrent is made of: the path, and those options that change its info-hash.
fn source_key(path: &Path, options: &CreateOptions) -> Vec<u8> {
    let CreateOptions {
        name,
        private,
        piece_length,
        source,
        symlinks,
        ..
    } = options;
    let mut key = path.as_os_str().as_bytes().to_vec();
    key.push(0);
    let options = format!("{name:?} {private} {piece_length:?} {source:?} {symlinks:?}");
    key.extend_from_slice(options.as_bytes());
    key
}

/// The paths below `data_dir` of those `files` (whose own paths start at `root`) that the metainfo has
/// elsewhere.
fn overrides(
    metainfo: &Metainfo,
    files: &[DataFile],
    root: &Path,
    data_dir: &Option<PathBuf>,
) -> BTreeMap<u32, PathBuf> {
    let below = data_dir
        .as_ref()
        .and_then(|data_dir| root.strip_prefix(data_dir).ok());
    let below = below.unwrap_or(Path::new(""));
    differing(metainfo, files.iter().map(|file| below.join(file.path())))
}

/// Those of `paths` that are not the metainfo's, by the index of their file.
fn differing(metainfo: &Metainfo, paths: impl Iterator<Item = PathBuf>) -> BTreeMap<u32, PathBuf> {
    let pairs = (0..).zip(metainfo.files.iter().zip(paths));
    let differs = |(index, (file, path)): (u32, (&proto::metainfo::File, PathBuf))| {
        let said = file.path.iter().collect::<PathBuf>();
        (said != path).then_some((index, path))
    };
    pairs.filter_map(differs).collect()
}

/// The files that are wrong, a few by name.
fn faults(files: &[verify::FileReport]) -> String {
    /// Files that are named; of the rest only the number is.
    const NAMED_MAX: usize = 5;
    let wrong: Vec<_> = files.iter().filter(|file| file.state.is_wrong()).collect();
    let name = |file: &&verify::FileReport| match &file.state {
        FileState::Fault(fault) => format!("{:?}: {fault}", file.path),
        _ => format!(
            "{:?}: {} of {} pieces are bad",
            file.path, file.pieces_bad, file.pieces
        ),
    };
    let mut text = wrong
        .iter()
        .take(NAMED_MAX)
        .map(name)
        .collect::<Vec<_>>()
        .join("; ");
    if wrong.len() > NAMED_MAX {
        text.push_str(&format!("; and {} more files", wrong.len() - NAMED_MAX));
    }
    text
}

fn io_error(operation: &'static str, path: &Path, error: io::Error) -> LibraryError {
    LibraryError::Io {
        operation,
        path: path.to_owned(),
        error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hashing::PageCache;
    use seedring_metrics::Registry;

    fn quiet(_: &CreateProgress<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("data")).unwrap();
        std::fs::write(folder.path().join("data/a"), vec![1; 40_000]).unwrap();
        std::fs::write(folder.path().join("data/b"), b"").unwrap();
        folder
    }

    fn of_path(folder: &tempfile::TempDir, options: &CreateOptions) -> Ready {
        let state = State::open(&folder.path().join("state")).unwrap();
        let cells = Registry::new(0).control();
        let library = Library {
            state: &state,
            always_hash: false,
            cells: &cells,
            disk: &PageCache,
        };
        library
            .of_path(&folder.path().join("data"), options, &mut quiet)
            .unwrap()
    }

    #[test]
    fn an_unchanged_folder_is_not_hashed_again_and_a_changed_one_is() {
        let folder = folder();
        let options = CreateOptions::default();
        let made = of_path(&folder, &options);
        assert_eq!(made.proof, Proof::Made);
        let again = of_path(&folder, &options);
        assert_eq!(
            (again.proof, again.info_hash),
            (Proof::Remembered, made.info_hash)
        );
        std::fs::write(folder.path().join("data/a"), vec![2; 40_000]).unwrap();
        let changed = of_path(&folder, &options);
        assert_eq!(changed.proof, Proof::Made);
        assert_ne!(changed.info_hash, made.info_hash);
        std::fs::write(folder.path().join("data/c"), b"new").unwrap();
        assert_eq!(of_path(&folder, &options).proof, Proof::Made);
    }

    #[test]
    fn other_trackers_need_no_hashing_and_other_pieces_do() {
        let folder = folder();
        let mut options = CreateOptions::default();
        let made = of_path(&folder, &options);
        options.trackers = vec![vec!["http://tracker.example/announce".into()]];
        let again = of_path(&folder, &options);
        assert_eq!(
            (again.proof, again.info_hash),
            (Proof::Remembered, made.info_hash)
        );
        assert_eq!(again.metainfo.trackers, options.trackers);
        options.piece_length = Some(16 << 10);
        assert_eq!(of_path(&folder, &options).proof, Proof::Made);
    }

    #[test]
    fn a_torrent_is_hashed_once_and_wrong_data_are_named() {
        let folder = folder();
        let made = of_path(&folder, &CreateOptions::default());
        let file = folder.path().join("x.torrent");
        std::fs::write(&file, &made.torrent).unwrap();
        let state = State::open(&folder.path().join("other-state")).unwrap();
        let cells = Registry::new(0).control();
        let library = Library {
            state: &state,
            always_hash: false,
            cells: &cells,
            disk: &PageCache,
        };
        let of = || library.of_torrent(&file, folder.path(), &mut quiet);
        assert_eq!(of().unwrap().proof, Proof::Hashed);
        assert_eq!(of().unwrap().proof, Proof::Remembered);
        // Counted once: what is remembered costs nothing.
        assert_eq!(
            cells.counter(ControlCounter::VerifiedBytes),
            made.metainfo.total_length
        );
        assert!(cells.counter(ControlCounter::PiecesGood) > 0);
        assert_eq!(cells.counter(ControlCounter::PiecesBad), 0);
        std::fs::write(folder.path().join("data/a"), vec![2; 40_000]).unwrap();
        let text = of().unwrap_err().to_string();
        assert!(text.contains("data/a"), "{text}");
    }
}
