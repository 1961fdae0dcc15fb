//! A complete, verified torrent as every shard sees it: immutable, shared by `Arc`, plus a few totals.

use crate::limits::SharedLimit;
use engine::layout::{FileIndex, FileStamp, LayoutError, StorageLayout};
use engine::session::{Pieces, TorrentView};
use proto::extension::{METADATA_BLOCK_BYTES, metadata_block_bytes};
use proto::ids::InfoHashV1;
use proto::metainfo::Metainfo;
use seedring_metrics::Counter;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Numbers torrents of one process apart, so that a torrent added again is not taken for its past self.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// A torrent whose every byte on disk has been verified.
pub struct SeededTorrent {
    id: u64,
    info_hash: InfoHashV1,
    metainfo: Arc<Metainfo>,
    layout: StorageLayout,
    view: Arc<TorrentView>,
    data_dir: PathBuf,
    /// What each file was when it was verified; `None` for files without data on disk (pad files).
    stamps: Vec<Option<FileStamp>>,
    /// Paths of files that lie elsewhere than the metainfo says, by their index.
    paths: BTreeMap<u32, PathBuf>,
    uploaded_bytes: AtomicU64,
    stopped: AtomicBool,
    /// Its own upload limit, if it has one; set when it is added.
    upload_limit: OnceLock<SharedLimit>,
}

/// Why a torrent can not be handed to the shards.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// The torrent has no v1 info-hash.
    #[error("torrent {name:?} has only v2 hashes (BEP 52); serving those comes later")]
    OnlyV2 {
        /// The torrent's name.
        name: String,
    },
    /// Its files do not add up.
    #[error("torrent {name:?}: {error}")]
    Layout {
        /// The torrent's name.
        name: String,
        /// What is wrong.
        error: LayoutError,
    },
    /// The number of stamps is not the number of files: a bug of ours.
    #[error("torrent {name:?} came with {stamps} file stamps for {files} files")]
    Stamps {
        /// The torrent's name.
        name: String,
        /// The number of stamps.
        stamps: usize,
        /// The number of files.
        files: usize,
    },
}

impl SeededTorrent {
    /// A torrent with its data below `data_dir`, verified when its files had these `stamps`
    /// (one per file of the torrent, in its order; `None` for pad files). `paths` has the paths of those
    /// files that lie elsewhere than the metainfo says, by their index.
    ///
    /// # Errors
    ///
    /// [`AddError`]; nothing has been started then.
    pub fn new(
        metainfo: Arc<Metainfo>,
        data_dir: &Path,
        stamps: Vec<Option<FileStamp>>,
        paths: BTreeMap<u32, PathBuf>,
    ) -> Result<Self, AddError> {
        let name = || metainfo.name.clone();
        let Some(info_hash) = metainfo.info_hash_v1 else {
            return Err(AddError::OnlyV2 { name: name() });
        };
        let files = &metainfo.files;
        if stamps.len() != files.len() {
            let (stamps, files) = (stamps.len(), files.len());
            return Err(AddError::Stamps {
                name: name(),
                stamps,
                files,
            });
        }
        let lengths: Vec<(u64, bool)> = files.iter().map(|file| (file.length, file.pad)).collect();
        let layout = StorageLayout::new(&lengths, metainfo.piece_length).map_err(|error| {
            AddError::Layout {
                name: name(),
                error,
            }
        })?;
        let view = TorrentView {
            piece_count: layout.piece_count(),
            piece_length: layout.piece_length(),
            total_length: layout.total_length(),
            metadata_bytes: u32::try_from(metainfo.info.len()).ok(),
            private: metainfo.private,
            pieces: Pieces::All,
        };
        Ok(SeededTorrent {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            info_hash,
            layout,
            view: Arc::new(view),
            metainfo,
            data_dir: data_dir.to_owned(),
            stamps,
            paths,
            uploaded_bytes: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            upload_limit: OnceLock::new(),
        })
    }

    /// Its number in this process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its v1 info-hash.
    pub fn info_hash(&self) -> InfoHashV1 {
        self.info_hash
    }

    /// Its metainfo.
    pub fn metainfo(&self) -> &Arc<Metainfo> {
        &self.metainfo
    }

    /// Where its bytes lie in its files.
    pub fn layout(&self) -> &StorageLayout {
        &self.layout
    }

    /// The directory that its paths are relative to.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Payload bytes sent to peers since the process started.
    pub fn uploaded_bytes(&self) -> u64 {
        self.uploaded_bytes.load(Ordering::Relaxed)
    }

    /// Counts payload bytes sent.
    pub(crate) fn add_uploaded(&self, bytes: u64) {
        self.uploaded_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Ends the serving of this torrent on all shards, before their next block. True the first time.
    pub(crate) fn stop(&self) -> bool {
        !self.stopped.swap(true, Ordering::AcqRel)
    }

    /// Whether it was stopped: removed, or its data are no longer what was verified.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Its own upload limit; made by `limit` the first time.
    pub(crate) fn upload_limit(&self, limit: impl FnOnce() -> SharedLimit) -> &SharedLimit {
        self.upload_limit.get_or_init(limit)
    }

    /// What its sessions need to know of it.
    pub(crate) fn view(&self) -> Arc<TorrentView> {
        Arc::clone(&self.view)
    }

    /// Block `piece` of the `info` dictionary (BEP 9).
    pub(crate) fn metadata_block(&self, piece: u32) -> Option<&[u8]> {
        let info = &self.metainfo.info;
        let length = metadata_block_bytes(u32::try_from(info.len()).ok()?, piece)? as usize;
        let start = METADATA_BLOCK_BYTES as usize * piece as usize;
        info.get(start..start + length)
    }

    /// What `file` was when it was verified.
    pub(crate) fn stamp(&self, file: FileIndex) -> Option<FileStamp> {
        self.stamps.get(file.0 as usize).copied().flatten()
    }

    /// The path of `file` relative to the data directory. (Parsing has made it relative and free of NULs.)
    fn path(&self, file: FileIndex) -> PathBuf {
        if let Some(path) = self.paths.get(&file.0) {
            return path.clone();
        }
        let files = &self.metainfo.files;
        files
            .get(file.0 as usize)
            .map(|file| file.path.iter().collect())
            .unwrap_or_default()
    }

    /// The data directory and the path of `file` below it, for system calls.
    pub(crate) fn paths_for_kernel(&self, file: FileIndex) -> (CString, CString) {
        let c_string = |path: &Path| CString::new(path.as_os_str().as_bytes()).unwrap_or_default();
        (c_string(&self.data_dir), c_string(&self.path(file)))
    }

    /// A fault of `file`.
    pub(crate) fn fault(&self, file: FileIndex, cause: FaultCause) -> Fault {
        Fault {
            info_hash: self.info_hash,
            file: self.data_dir.join(self.path(file)),
            cause,
        }
    }
}

/// Why a file can not be served any more.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: {cause}", .file.display())]
pub struct Fault {
    /// The torrent.
    pub info_hash: InfoHashV1,
    /// The file on disk.
    pub file: PathBuf,
    /// What is wrong with it.
    pub cause: FaultCause,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultCause {
    /// It is gone.
    #[error("the file is missing")]
    Missing,
    /// It is shorter than it was.
    #[error("the file was truncated from {expected} to {found} bytes")]
    Truncated {
        /// Its verified length, in bytes.
        expected: u64,
        /// Its length now, in bytes.
        found: u64,
    },
    /// It was written to, replaced, unlinked or had its attributes changed.
    #[error("the file was changed, replaced or unlinked since it was verified")]
    Changed,
    /// Something else stands in its place.
    #[error("not a regular file")]
    NotRegular,
    /// Its path leads out of the data directory.
    #[error("the path leads out of the data directory")]
    Escapes,
    /// We may not read it.
    #[error("permission denied")]
    Denied,
    /// No descriptor or memory is left, or something was in the way for a moment: not the torrent's fault.
    #[error("no resources: {0}")]
    Resources(String),
    /// The disk failed.
    #[error("input/output failed: {0}")]
    Io(String),
}

impl FaultCause {
    /// The cause behind a failed open.
    pub(crate) fn of_open(error: &io::Error) -> FaultCause {
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => FaultCause::Missing,
            Some(libc::EXDEV) => FaultCause::Escapes,
            Some(libc::EACCES | libc::EPERM) => FaultCause::Denied,
            Some(libc::ELOOP | libc::ENXIO | libc::EISDIR) => FaultCause::NotRegular,
            Some(libc::EMFILE | libc::ENFILE) => FaultCause::Resources(error.to_string()),
            _ => FaultCause::of_io(error),
        }
    }

    /// The cause behind any other failed operation on an open file. What passes by itself (no memory, a
    /// signal, a lease or a rename in the way) says nothing about the data.
    pub(crate) fn of_io(error: &io::Error) -> FaultCause {
        match error.raw_os_error() {
            Some(libc::ENOMEM | libc::ENOBUFS | libc::EAGAIN | libc::EINTR) => {
                FaultCause::Resources(error.to_string())
            }
            _ => FaultCause::Io(error.to_string()),
        }
    }

    /// The counter of this cause.
    pub(crate) fn counter(&self) -> Counter {
        match self {
            FaultCause::Truncated { .. } => Counter::DiskErrorTruncated,
            FaultCause::Changed => Counter::DiskErrorChanged,
            FaultCause::Io(_) => Counter::DiskErrorRead,
            _ => Counter::DiskErrorOpen,
        }
    }

    /// Whether the torrent's data are in doubt, as against a passing lack of resources.
    pub fn condemns(&self) -> bool {
        !matches!(self, FaultCause::Resources(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lasting_errors_condemn_a_torrent() {
        let condemns =
            |number| FaultCause::of_open(&io::Error::from_raw_os_error(number)).condemns();
        for passing in [
            libc::EMFILE,
            libc::ENFILE,
            libc::ENOMEM,
            libc::EAGAIN,
            libc::EINTR,
        ] {
            assert!(!condemns(passing), "{passing}");
        }
        for lasting in [
            libc::ENOENT,
            libc::EACCES,
            libc::EXDEV,
            libc::EIO,
            libc::ELOOP,
        ] {
            assert!(condemns(lasting), "{lasting}");
        }
    }
}
