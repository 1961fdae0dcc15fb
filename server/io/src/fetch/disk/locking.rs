//! One writer at a time: a file is locked (`flock`) as long as it is open for writing, so that two
//! downloads into one folder, of whatever process and with whatever state, do not spoil each other.
//!
//! Limits: [`LOCK_TRIES_MAX`] tries. A process that was killed lets go only when the kernel has
//! ended what it had under way, so the next one waits a little before it gives up.
//!
//! Where a file system knows no such locks there are none.

use crate::fetch::disk::errors::DiskError;
use crate::fetch::disk::{Disk, on_a_thread};
use crate::files::OpenFile;
use crate::torrent::FaultCause;
use engine::layout::FileIndex;
use std::fs::{File, TryLockError};
use std::time::Duration;

/// Tries at a lock that another holds.
const LOCK_TRIES_MAX: usize = 40;

/// What lies between two of them.
const LOCK_RETRY_PERIOD: Duration = Duration::from_millis(50);

impl Disk {
    /// Locks a file that was just opened, until it is closed.
    pub(super) async fn lock(&self, index: FileIndex, file: &OpenFile) -> Result<(), DiskError> {
        for _ in 0..LOCK_TRIES_MAX {
            // The lock is that of the open file, so a second descriptor of it takes it, too. On
            // some file systems a server is asked, which may hang.
            let locked = match file.duplicate() {
                Ok(descriptor) => {
                    on_a_thread(move || match File::from(descriptor).try_lock() {
                        Ok(()) => Ok(true),
                        Err(TryLockError::WouldBlock) => Ok(false),
                        Err(TryLockError::Error(error)) => Err(error),
                    })
                    .await
                }
                Err(error) => Err(error),
            };
            match locked {
                Ok(true) => return Ok(()),
                Ok(false) => tokio::time::sleep(LOCK_RETRY_PERIOD).await,
                Err(error) => {
                    tracing::debug!(%error, "a file is written to without a lock");
                    return Ok(());
                }
            }
        }
        Err(self.lasting(index, FaultCause::InUse))
    }
}
