//! What an error of the disk means for a download: wait, ask somebody, or end.

use crate::fetch::disk::Disk;
use crate::torrent::{Fault, FaultCause};
use engine::layout::FileIndex;
use std::ffi::{CStr, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Why something could not be done with a file.
#[derive(Debug)]
pub(crate) enum DiskError {
    /// There is no space left for it.
    Full(String),
    /// It may go better later: the disk is failing, or away.
    Passing(String),
    /// Somebody has to let us do it.
    Denied(String),
    /// The file is not ours to write to, or can not be.
    Lasting(Fault),
}

impl Disk {
    /// The error behind a failed operation on a file, `what` it was.
    pub(super) fn error(&self, index: FileIndex, what: &str, error: &io::Error) -> DiskError {
        let fault = |cause| self.lasting(index, cause);
        match error.raw_os_error() {
            Some(libc::EXDEV) => fault(FaultCause::Escapes),
            Some(libc::ELOOP | libc::ENXIO | libc::EISDIR | libc::ENOTDIR) => {
                fault(FaultCause::NotRegular)
            }
            Some(libc::EEXIST) => fault(FaultCause::Taken),
            Some(number) if is_unfit(number) => fault(FaultCause::Unfit(error.to_string())),
            _ => {
                let path = self.torrent.fault(index, FaultCause::Missing).file;
                self.error_at(&path, what, error)
            }
        }
    }

    /// The same of a folder, or where the file is not to blame.
    pub(super) fn error_at(&self, path: &Path, what: &str, error: &io::Error) -> DiskError {
        let text = format!("cannot {what} {}: {error}", path.display());
        let number = error.raw_os_error();
        match number {
            Some(libc::ENOSPC | libc::EDQUOT) => DiskError::Full(text),
            Some(libc::EACCES | libc::EPERM | libc::EROFS) => DiskError::Denied(text),
            Some(libc::EXDEV | libc::ELOOP | libc::ENOTDIR) => {
                let mut fault = self.torrent.fault(FileIndex(0), FaultCause::NotFolder);
                if number == Some(libc::EXDEV) {
                    fault.cause = FaultCause::Escapes;
                }
                fault.file = path.to_owned();
                DiskError::Lasting(fault)
            }
            Some(number) if is_unfit(number) => {
                let cause = FaultCause::Unfit(error.to_string());
                let mut fault = self.torrent.fault(FileIndex(0), cause);
                fault.file = path.to_owned();
                DiskError::Lasting(fault)
            }
            _ => DiskError::Passing(text),
        }
    }

    pub(super) fn lasting(&self, index: FileIndex, cause: FaultCause) -> DiskError {
        DiskError::Lasting(self.torrent.fault(index, cause))
    }

    /// What `path` below the data directory is for people.
    pub(super) fn path_of(&self, path: &CStr) -> PathBuf {
        self.torrent
            .data_dir()
            .join(OsStr::from_bytes(path.to_bytes()))
    }
}

/// Whether a file system knows no such operation.
pub(super) fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP)
    )
}

pub(super) fn is_missing(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOENT)
}

/// Whether an error says that this file, or its name, is nothing for this file system: no waiting
/// changes that.
pub(super) fn is_unfit(number: i32) -> bool {
    matches!(
        number,
        libc::EINVAL
            | libc::ENAMETOOLONG
            | libc::EFBIG
            | libc::EOVERFLOW
            | libc::EILSEQ
            | libc::ENOSYS
            | libc::EOPNOTSUPP
    )
}

pub(super) fn cause_of_length(expected: u64, found: u64) -> FaultCause {
    match found < expected {
        true => FaultCause::Truncated { expected, found },
        false => FaultCause::Changed,
    }
}
