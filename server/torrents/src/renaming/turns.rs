//! How many renames are under way at a time: a disk that hangs must neither take all threads for
//! blocking work nor keep files on others from being renamed.
//!
//! Limits: [`RENAMES_MAX`] wait or are under way; one more is refused at once. [`READS_MAX`] are read
//! of the store at a time, [`WORKS_MAX`] are at work, and [`FOLDER_MAX`] of one save folder. Who
//! waits for longer than [`WAIT`] is refused, before its torrent is stopped.

use control::command::CommandError;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Renames that wait or are under way.
pub(super) const RENAMES_MAX: usize = 1024;

/// Torrents that are read at a time, whose metainfo are in memory then.
const READS_MAX: usize = 4;

/// Renames at work at a time, each on a thread and with its torrent's metainfo in memory.
pub(super) const WORKS_MAX: usize = 32;

/// Those of one save folder: disks that hang have the others wait.
const FOLDER_MAX: usize = 4;

/// How long one waits for its turn: less than the API does for an answer.
const WAIT: Duration = Duration::from_secs(30);

/// See the file.
pub(super) struct Turns {
    reads: Arc<Semaphore>,
    works: Arc<Semaphore>,
    folders: HashMap<PathBuf, Arc<Semaphore>>,
    wait: Duration,
}

/// A rename's turn, until it is dropped.
pub(crate) struct Turn {
    _folder: OwnedSemaphorePermit,
    _work: OwnedSemaphorePermit,
}

/// One that waits for its turn.
pub(super) struct Waiting {
    reads: Arc<Semaphore>,
    works: Arc<Semaphore>,
    folder: Arc<Semaphore>,
    until: tokio::time::Instant,
}

impl Default for Turns {
    fn default() -> Turns {
        Turns {
            reads: Arc::new(Semaphore::new(READS_MAX)),
            works: Arc::new(Semaphore::new(WORKS_MAX)),
            folders: HashMap::new(),
            wait: WAIT,
        }
    }
}

impl Turns {
    /// One that concerns this folder has come.
    pub(super) fn come(&mut self, folder: &Path) -> Waiting {
        // Whoever waits, or is at work, has it.
        self.folders.retain(|_, turns| Arc::strong_count(turns) > 1);
        let turns = || Arc::new(Semaphore::new(FOLDER_MAX));
        let folder = self.folders.entry(folder.to_owned());
        Waiting {
            reads: Arc::clone(&self.reads),
            works: Arc::clone(&self.works),
            folder: Arc::clone(folder.or_insert_with(turns)),
            until: tokio::time::Instant::now() + self.wait,
        }
    }
}

impl Waiting {
    /// Does what reads the store, when it is its turn.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T, CommandError> + Send + 'static,
    ) -> Result<T, CommandError> {
        let _turn = self.take(&self.reads).await?;
        let read = tokio::task::spawn_blocking(read).await;
        read.unwrap_or_else(|error| Err(CommandError::Failed(error.to_string())))
    }

    /// When it may be at work.
    pub(super) async fn turn(&self) -> Result<Turn, CommandError> {
        Ok(Turn {
            _folder: self.take(&self.folder).await?,
            _work: self.take(&self.works).await?,
        })
    }

    async fn take(&self, turns: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, CommandError> {
        let turn = Arc::clone(turns).acquire_owned();
        match tokio::time::timeout_at(self.until, turn).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) | Err(_) => Err(CommandError::Busy),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::idle::Idle;
    use crate::manager::Manager;
    use control::catalog::Status;
    use control::command::Rename;
    use proto::ids::InfoHashV1;
    use state::{Summary, Update, Write};
    use tokio::sync::oneshot;

    /// A torrent of the file `a` in this folder.
    async fn kept(idle: &Idle, folder: &Path) -> InfoHashV1 {
        std::fs::write(folder.join("a"), b"x").unwrap();
        let summary = Summary {
            total_bytes: 1,
            pieces: 1,
            files: 1,
            save_path: folder.to_owned(),
            ..Summary::default()
        };
        let info_hash = idle.keep(summary, Status::Paused).await;
        let hash = "x".repeat(20);
        let info = format!("d6:lengthi1e4:name1:a12:piece lengthi16384e6:pieces20:{hash}e");
        let update = Update::new().metainfo(format!("d4:info{info}e").into_bytes());
        let write = Write::Update(info_hash, Box::new(update));
        idle.store.handle().write(write).await.unwrap();
        info_hash
    }

    async fn rename(idle: &mut Idle, info_hash: InfoHashV1, to: &str) -> Result<(), CommandError> {
        let (reply, renamed) = oneshot::channel();
        let rename = Rename::File {
            index: 0,
            to: to.into(),
        };
        idle.manager.rename(info_hash, rename, reply).await;
        idle.answer(renamed).await
    }

    fn turns(manager: &mut Manager) -> &mut Turns {
        &mut manager.moves.renames.turns
    }

    /// As when disks hang that others are at.
    #[tokio::test(flavor = "multi_thread")]
    async fn who_waits_for_too_long_is_refused_and_takes_no_thread() {
        let folder = tempfile::tempdir().unwrap();
        let mut idle = Idle::new(folder.path());
        let info_hash = kept(&idle, folder.path()).await;
        turns(&mut idle.manager).wait = Duration::from_millis(100);
        let reads = Arc::clone(&turns(&mut idle.manager).reads);
        let works = Arc::clone(&turns(&mut idle.manager).works);
        let here = turns(&mut idle.manager).come(folder.path()).folder;
        for (all, count) in [(reads, READS_MAX), (works, WORKS_MAX), (here, FOLDER_MAX)] {
            let others = all.acquire_many(count as u32).await.unwrap();
            let refused = rename(&mut idle, info_hash, "b").await;
            assert_eq!(refused, Err(CommandError::Busy));
            assert!(folder.path().join("a").exists());
            assert!(!idle.manager.moves.runs(&info_hash), "it was not stopped");
            drop(others);
        }
        // With room it is done; what hangs elsewhere is nothing to it.
        let elsewhere = turns(&mut idle.manager).come("/elsewhere".as_ref()).folder;
        let _others = elsewhere.acquire_many(FOLDER_MAX as u32).await.unwrap();
        turns(&mut idle.manager).wait = WAIT;
        assert_eq!(rename(&mut idle, info_hash, "b").await, Ok(()));
        assert!(folder.path().join("b").exists() && !folder.path().join("a").exists());
        // It gives its turn back, and its folder is forgotten then.
        let left = turns(&mut idle.manager);
        let _all = left.works.acquire_many(WORKS_MAX as u32).await.unwrap();
        let is_forgotten = async {
            while left.folders.len() > 1 {
                tokio::time::sleep(Duration::from_millis(5)).await;
                left.folders.retain(|_, turns| Arc::strong_count(turns) > 1);
            }
        };
        tokio::time::timeout(WAIT, is_forgotten).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn so_many_wait_and_one_more_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut idle = Idle::new(folder.path());
        let info_hash = kept(&idle, folder.path()).await;
        for number in 0..RENAMES_MAX {
            let mut hash = [2; 20];
            hash[..8].copy_from_slice(&number.to_le_bytes());
            let (reply, _) = oneshot::channel();
            let replies = &mut idle.manager.moves.renames.replies;
            replies.insert(InfoHashV1(hash), (0, reply));
        }
        let refused = rename(&mut idle, info_hash, "b").await;
        assert_eq!(refused, Err(CommandError::Busy));
    }
}
