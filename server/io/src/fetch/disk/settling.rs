//! Forcing to the disk what was written: files side by side, then the folders in which there are
//! new names.
//!
//! Limits: eight syncs at a time ([`side_by_side`]).
//!
//! The kernel tells once of pages that it could not write, and drops them: a second sync that
//! succeeds says nothing. So each failure is a doubt ([`Disk::doubts`]) about all that was written
//! before it and not told as synced. The caller deals with it before anything else runs. The page
//! cache is made to forget a file that failed ([`Disk::forget_pages`]).

use crate::fetch::disk::errors::DiskError;
use crate::fetch::disk::{Disk, FILES_OPEN_MAX, Stamps};
use crate::files::OpenFile;
use crate::ring;
use engine::layout::{FileIndex, FileStamp};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use tokio::sync::MutexGuard;

/// Runs as many of the same worker as a disk's queue makes use of, until all have ended.
pub(super) async fn side_by_side<W: Future<Output = ()>>(worker: impl Fn() -> W) {
    tokio::join!(
        worker(),
        worker(),
        worker(),
        worker(),
        worker(),
        worker(),
        worker(),
        worker()
    );
}

impl Disk {
    /// How often a sync has failed. What was written before the last time, and not told as synced
    /// then, is not to be believed.
    pub(crate) fn doubts(&self) -> u64 {
        self.doubts.get()
    }

    /// Whether there is nothing to be synced.
    pub(crate) fn is_clean(&self) -> bool {
        self.dirty.borrow().is_empty()
            && self.settled.borrow().is_empty()
            && self.directories.borrow().is_empty()
    }

    /// Waits until no sync is under way. What is written by now is covered by [`Self::sync`] with
    /// the result.
    pub(crate) async fn begin_sync(&self) -> MutexGuard<'_, ()> {
        self.syncing.lock().await
    }

    /// Forces to the disk what was written and which names there are. Returns what the files are
    /// now that were written to since the last time. If it fails, there is a doubt more.
    pub(crate) async fn sync(&self, _one: MutexGuard<'_, ()>) -> Result<Stamps, DiskError> {
        let dirty = self.dirty.borrow().iter().copied().collect();
        self.settle(dirty).await?;
        self.sync_directories().await.inspect_err(|_| {
            self.doubts.set(self.doubts.get() + 1);
        })?;
        Ok(std::mem::take(&mut *self.settled.borrow_mut())
            .into_iter()
            .collect())
    }

    /// Syncs some of the files that are not in use, so that they can be closed.
    pub(super) async fn sync_some(&self) -> Result<(), DiskError> {
        let _one = self.syncing.lock().await;
        self.settle(self.idle_files(true, FILES_OPEN_MAX / 2)).await
    }

    /// Syncs `files`, which are dirty, a few side by side: a journal writes for several what it
    /// would for one.
    async fn settle(&self, files: Vec<FileIndex>) -> Result<(), DiskError> {
        let mut queue = VecDeque::with_capacity(files.len());
        for index in &files {
            self.dirty.borrow_mut().remove(index);
            if let Some(file) = self.open.borrow().peek(index) {
                queue.push_back((*index, self.in_use(file)));
            }
        }
        let (queue, failure) = (RefCell::new(queue), RefCell::new(None));
        side_by_side(|| async {
            loop {
                let next = queue.borrow_mut().pop_front();
                let Some((index, file)) = next else { return };
                match self.sync_file(index, &file).await {
                    Ok(stamp) => {
                        self.settled.borrow_mut().insert(index, stamp);
                    }
                    Err(error) => {
                        self.forget_pages(index, &file).await;
                        failure.borrow_mut().get_or_insert(error);
                    }
                }
            }
        })
        .await;
        match failure.into_inner() {
            None => Ok(()),
            Some(error) => {
                // One that was synced before another failed may have been closed meanwhile.
                let open = self.open.borrow();
                let still_open = files.into_iter().filter(|index| open.contains(index));
                self.dirty.borrow_mut().extend(still_open);
                self.doubts.set(self.doubts.get() + 1);
                Err(error)
            }
        }
    }

    /// Has the page cache forget a file that could not be synced. Of a page that could not be
    /// written, ext4 believes from then on that its place on the disk is in use, which is not noted
    /// there: what is written to that page later reaches the disk, and is zeros to whoever reads it
    /// after a restart. So all that is in doubt has to be written to new pages.
    async fn forget_pages(&self, index: FileIndex, file: &Rc<OpenFile>) {
        self.held.borrow_mut().insert(index);
        // Ours, and that of the open files.
        while Rc::strong_count(file) > 2 {
            self.freed.notified().await;
        }
        // What was written while the sync ran is in doubt, too, and has to be clean to be dropped.
        let _ = ring::sync_data(Rc::clone(file)).await;
        if let Err(error) = ring::drop_pages(Rc::clone(file)).await {
            tracing::debug!(%error, "the page cache keeps a file");
        }
        self.held.borrow_mut().remove(&index);
        self.freed.notify_waiters();
    }

    async fn sync_file(
        &self,
        index: FileIndex,
        file: &Rc<OpenFile>,
    ) -> Result<FileStamp, DiskError> {
        let synced = ring::sync_data(Rc::clone(file)).await;
        #[cfg(test)]
        self.injected_wait("syncs wait").await;
        #[cfg(test)]
        let synced = self.injected_fault("syncs fail", libc::EIO).and(synced);
        synced.map_err(|error| self.error(index, "sync", &error))?;
        self.stamp(index, file).await
    }
}
