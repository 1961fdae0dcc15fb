//! What is safe: written pieces are forced to the disk once a period, and told after that.
//!
//! The order is what a crash leaves to be believed: the bytes are written, their files marked, the piece is noted, the
//! files synced, the piece told. If a sync fails, nothing that was written since the last good one is believed: the
//! kernel may have dropped those pages and says so once.

use crate::fetch::FetchEvent;
use crate::fetch::disk::DiskError;
use crate::fetch::home::ActiveFetch;
use crate::shard::Shard;
use engine::layout::{FileIndex, FileStamp};
use proto::ids::PieceIndex;
use seedring_metrics::Histogram;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Instant;

impl ActiveFetch {
    /// Syncs in a task of its own, unless the last one is still under way.
    pub(crate) fn sync_aside(&self, shard: &Rc<Shard>) {
        let Some(fetch) = self.handle() else { return };
        if self.syncing.try_lock().is_err() || self.unsynced.borrow().is_empty() {
            return;
        }
        let shard = Rc::clone(shard);
        self.spawn(async move {
            let _synced = fetch.sync(&shard).await;
        });
    }

    /// Forces to the disk what is written and tells of it. False if that failed: what was written is lost then.
    pub(crate) async fn sync(&self, shard: &Rc<Shard>) -> bool {
        let _one_at_a_time = self.syncing.lock().await;
        let pieces = std::mem::take(&mut *self.unsynced.borrow_mut());
        let dirty = self.disk.take_dirty();
        if pieces.is_empty() && dirty.is_empty() {
            return true;
        }
        let started = Instant::now();
        let synced = self.disk.sync(&dirty).await;
        let duration = started.elapsed();
        shard.cells.record(Histogram::DiskSyncDuration, duration);
        match synced {
            Ok(stamps) => {
                let _ = self
                    .events
                    .send(FetchEvent::Synced { pieces, stamps })
                    .await;
                true
            }
            Err(error) => {
                self.disk.put_back_dirty(&dirty);
                self.disk_failed(shard, error);
                self.lose(shard, &pieces);
                self.try_again_later(shard);
                false
            }
        }
    }

    /// Goes on after a while, and finds out whether the disk works.
    pub(crate) fn try_again_later(&self, shard: &Rc<Shard>) {
        let Some(fetch) = self.handle() else { return };
        let shard = Rc::clone(shard);
        self.spawn(async move {
            fetch.rest(&shard).await;
            fetch.disk_works(&shard);
        });
    }

    /// Waits until the disk is to be tried again, or the download ends.
    pub(crate) async fn rest(&self, shard: &Shard) {
        let until = tokio::time::Instant::now() + shard.config.fetch.retry_period;
        while !self.is_ending() {
            let told = self.written.notified();
            if tokio::time::timeout_at(until, told).await.is_err() {
                return;
            }
        }
    }

    /// Gives the files that are whole their own names, and makes the empty ones. When that is all of the torrent, it
    /// is a complete one from then on. False if it could not be done.
    pub(crate) async fn name_files(&self, shard: &Rc<Shard>) -> bool {
        let whole = self.whole_files();
        match self.disk.finish(&whole).await {
            Ok(stamps) => {
                let count = self.torrent.layout().piece_count();
                if self.stored.get() == count {
                    self.torrent.complete(self.stamps_of_all(&stamps));
                }
                true
            }
            Err(error) => {
                self.disk_failed(shard, error);
                self.try_again_later(shard);
                false
            }
        }
    }

    /// The files of which all pieces are there; empty ones are among them if they are wanted, or all others are there.
    fn whole_files(&self) -> BTreeSet<FileIndex> {
        let layout = self.torrent.layout();
        let is_complete = self.stored.get() == layout.piece_count();
        let files = self.torrent.metainfo().files.iter();
        (0..)
            .map(FileIndex)
            .zip(files)
            .filter(|(index, file)| {
                let mut pieces = layout.pieces_of_file(*index).map(PieceIndex);
                let is_on_disk = !file.pad && file.symlink_target.is_none();
                let is_due = file.length > 0 || is_complete || self.disk.is_wanted(*index);
                is_on_disk && is_due && pieces.all(|piece| self.pieces.has(piece))
            })
            .map(|(index, _)| index)
            .collect()
    }

    fn stamps_of_all(&self, found: &[(FileIndex, FileStamp)]) -> Vec<Option<FileStamp>> {
        let mut stamps = vec![None; self.torrent.metainfo().files.len()];
        for (index, stamp) in found {
            if let Some(place) = stamps.get_mut(index.0 as usize) {
                *place = Some(*stamp);
            }
        }
        stamps
    }
}

impl DiskError {
    /// For a log line.
    pub(crate) fn text(&self) -> String {
        match self {
            DiskError::Passing(reason) => reason.clone(),
            DiskError::Lasting(fault) => fault.to_string(),
        }
    }
}
