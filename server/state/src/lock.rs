//! The lock of a state directory: a file beside the store, locked as long as a process has the
//! store, which says which process that is. The kernel gives the lock back when the process ends,
//! however it ends; the file stays.

use crate::error::OpenError;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The lock's name in the state directory.
pub(crate) const LOCK_FILE: &str = "store.lock";
/// The most that is read of another's lock file: a process id has at most seven digits.
const PID_BYTES_MAX: u64 = 16;

/// The lock, held until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of `directory`, in which `store` is.
    pub fn take(directory: &Path, store: &Path) -> Result<Lock, OpenError> {
        let path = directory.join(LOCK_FILE);
        let failed = |error| OpenError::Directory {
            path: directory.to_owned(),
            error,
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.mode(0o600).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::InUse {
                    path: store.to_owned(),
                    pid: pid(&file),
                });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // Who finds no process id here knows less, and is kept away all the same: on a full disk,
        // say.
        let _told = file
            .set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Lock { _file: file })
    }
}

/// The process id that a lock file names.
fn pid(file: &File) -> Option<u32> {
    let mut text = String::new();
    file.take(PID_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
