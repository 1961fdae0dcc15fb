//! What can go wrong, and what to do about it.

use crate::field::DecodeError;
use crate::tables::SCHEMA;
use proto::ids::InfoHashV1;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// The store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be made or used.
    #[error("state directory {path:?}: {error}; choose another with --state-dir")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// There is no store there, and none was to be made.
    #[error("there is no state store at {path:?}; --state-dir names another directory")]
    Missing {
        /// Where it would be.
        path: PathBuf,
    },
    /// Another process has it.
    #[error(
        "state store {path:?} is in use by {}; stop that, or choose another directory with \
         --state-dir",
        holder(*.pid)
    )]
    InUse {
        /// The file of the store.
        path: PathBuf,
        /// Who has it, if that could be found out.
        pid: Option<u32>,
    },
    /// It was written by a later version.
    #[error(
        "state store {path:?} has schema {found}, this version knows up to {SCHEMA}; run the \
         version that wrote it or a later one, or restore a backup of this one's with \
         `seedring state restore FILE --force`"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u64,
    },
    /// The file is damaged, or is none of ours.
    #[error(
        "state store {path:?} is damaged ({cause}); restore a backup with \
         `seedring state restore FILE --force`, or move the file away to begin with no torrents"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// It cannot be read or written.
    #[error("state store {path:?}: {error}")]
    Failed {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        error: String,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(
        || "another process".to_owned(),
        |pid| format!("process {pid}"),
    )
}

/// The disk, or what stands for it, failed. What was to be written may be there or not: it was not
/// acknowledged, and reading tells. What was acknowledged before is there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("state store {path:?}: {text}")]
pub struct Failure {
    /// The file.
    pub path: PathBuf,
    /// What went wrong.
    pub text: String,
    /// Whether it was for want of space or quota.
    pub disk_full: bool,
}

/// A write was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// A torrent of this info-hash is there already.
    #[error("torrent {0} is there already")]
    Exists(InfoHashV1),
    /// There is no torrent of this info-hash.
    #[error("there is no torrent {0}")]
    Unknown(InfoHashV1),
    /// The torrent that another one was to be put beside is not in the queue.
    #[error("torrent {0} is not in the queue")]
    NotQueued(InfoHashV1),
    /// Verified pieces or stamps are not those of a torrent with so many pieces and files.
    #[error("{what} do not fit torrent {info_hash}")]
    Mismatch {
        /// The torrent.
        info_hash: InfoHashV1,
        /// What does not fit.
        what: &'static str,
    },
    /// Something is larger than its limit (see [`crate::limits`]).
    #[error("{what}: {found}, but the most is {max}")]
    TooMuch {
        /// What is too large.
        what: &'static str,
        /// How much it is.
        found: u64,
        /// How much it may be.
        max: u64,
    },
    /// What is kept of the torrent is damaged: it can only be removed and added again.
    #[error("what is kept of torrent {info_hash} is damaged: {error}")]
    Damaged {
        /// The torrent.
        info_hash: InfoHashV1,
        /// What is wrong.
        error: DecodeError,
    },
    /// A later change stands, so this one was not tried again; by whoever keeps writes that have
    /// failed, the store itself never says so.
    #[error("a later change of torrent {0} stands")]
    Overtaken(InfoHashV1),
    /// The disk failed. The store tries again with the next write.
    #[error(transparent)]
    Failed(Arc<Failure>),
    /// The store has been closed.
    #[error("the state store is closed")]
    Closed,
}

/// Something could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// What is kept of the torrent is damaged: it can only be removed and added again.
    #[error("what is kept of torrent {info_hash} is damaged: {error}")]
    Damaged {
        /// The torrent.
        info_hash: InfoHashV1,
        /// What is wrong.
        error: DecodeError,
    },
    /// What is kept of the whole store is damaged.
    #[error("the {what} of the state store are damaged")]
    DamagedStore {
        /// What of it.
        what: &'static str,
    },
    /// The disk failed. The store is opened again with the next write.
    #[error(transparent)]
    Failed(Arc<Failure>),
    /// The store has been closed.
    #[error("the state store is closed")]
    Closed,
}

/// Whether the space is used up: by files, by quota or by a limit of the process.
pub(crate) fn is_disk_full(error: &redb::Error) -> bool {
    let redb::Error::Io(error) = error else {
        return false;
    };
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
