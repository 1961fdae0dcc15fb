//! The files of a move, copied to another file system: each under a name of the move's own
//! ([`super::naming`]) until all are hashed or compared. What a try that was cut off has copied is
//! copied again only if its original has changed since.
//!
//! A copy has the length and the time of change of its original: so it is known again. The new
//! folder has a mark while copies are made there: without it, the disk that it is on is away, and
//! nothing is made in its place.
//!
//! Limits: a buffer of [`COPY_BYTES`]. Does not: copy a part of a file, or anything while the disk
//! has less room than all that is to be copied; take away what has another name than its own.

use super::naming::{mark_name, own_name};
use super::work::{Item, Work, another};
use super::{MoveEvent, Why, comparing, taken};
use crate::beneath::Beneath;
use control::resume::Resume;
use control::verify::PieceSet;
use engine::layout::FileStamp;
use proto::ids::PieceIndex;
use proto::metainfo::Metainfo;
use state::Verified;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write as _};
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use tokio::sync::oneshot;

/// How much is copied at once, in bytes.
pub(super) const COPY_BYTES: usize = 1 << 20;

/// Bytes that `stat` counts blocks in.
const BLOCK_BYTES: u64 = 512;

/// How far copying is.
struct Done {
    bytes: u64,
    /// Half of the work is the hashing afterwards.
    all: u64,
}

impl Work {
    /// Has a copy of each file be there; returns which these are.
    pub(super) fn copy_all(
        &self,
        from: &Beneath,
        to: &Beneath,
        items: &[Item],
    ) -> Result<Vec<Item>, Why> {
        seedring_io::system::work_in_background();
        if !self.moving.is_copying() {
            self.begin_copying(to, items)?;
        }
        let copies = self.copies(from, to, items)?;
        for copy in &copies {
            if !is_copied(self, from, to, copy)? {
                // One of what the original was before would take room.
                self.drop_copy(to, copy)?;
            }
        }
        self.check_room(from, to, &copies)?;
        let all = self.kept.summary.total_bytes.saturating_mul(2);
        let mut done = Done { bytes: 0, all };
        for copy in &copies {
            self.copy(from, to, copy, &mut done)?;
        }
        Ok(copies)
    }

    /// Keeps that copies are made. The names that they are to get are free by then.
    fn begin_copying(&self, to: &Beneath, items: &[Item]) -> Result<(), Why> {
        if let Some(item) = items.iter().find(|item| to.exists(&item.new)) {
            return Err(another(&self.to.join(&item.new)));
        }
        let mark = self.mark();
        let marked = match to.exists(&mark) {
            // A try has come so far and no further.
            true => Ok(()),
            false => to.create(&mark).and_then(|file| file.sync_all()),
        };
        let marked = marked.and_then(|()| to.sync_above(&mark));
        marked.map_err(|error| Why::of(&self.to.join(&mark), error))?;
        let (done, kept) = oneshot::channel();
        self.tell(MoveEvent::Copying(done));
        let stopping = |_| Why::Passing("the server is stopping".to_owned());
        kept.blocking_recv().map_err(stopping)?
    }

    /// The name that says that the new folder is the one that copies were made in.
    fn mark(&self) -> PathBuf {
        mark_name(&self.info_hash).into()
    }

    /// Refuses a folder that copies were made in and that is not that one now.
    pub(super) fn check_mark(&self, to: &Beneath) -> Result<(), Why> {
        if to.exists(&self.mark()) {
            return Ok(());
        }
        let why = "what was copied there is not there now; if its disk is not mounted, mount it";
        Err(Why::Passing(format!("{:?}: {why}", self.to)))
    }

    /// No copies are made there any more.
    pub(super) fn unmark(&self, to: &Beneath) {
        // One that stays is a name that nobody looks for.
        let _ = to.unlink(&self.mark());
    }

    /// Refuses to begin where there is not room for all.
    fn check_room(&self, from: &Beneath, to: &Beneath, items: &[Item]) -> Result<(), Why> {
        let mut needed = 0u64;
        for item in items {
            if !is_copied(self, from, to, item)? {
                let file = from.read(&item.old).and_then(|file| file.metadata());
                let file = file.map_err(|error| Why::of(&self.from.join(&item.old), error))?;
                needed += file.len().min(file.blocks().saturating_mul(BLOCK_BYTES));
            }
        }
        match to.free_bytes() {
            Some(free) if free < needed => Err(Why::Passing(format!(
                "{:?} has {free} bytes free, and {needed} are to be copied there",
                self.to
            ))),
            _ => Ok(()),
        }
    }

    /// Copies one file, unless its copy is there.
    fn copy(&self, from: &Beneath, to: &Beneath, item: &Item, done: &mut Done) -> Result<(), Why> {
        let reading = |error| Why::of(&self.from.join(&item.old), error);
        let mut source = from.read(&item.old).map_err(reading)?;
        let before = source.metadata().map_err(reading)?;
        // A try before this one has made it; whether it is right is found out by hashing.
        if is_copied(self, from, to, item)? {
            done.bytes += before.len();
            return Ok(());
        }
        let writing = |error| Why::of(&self.to.join(&item.new), error);
        let mut target = to.create(&item.new).map_err(writing)?;
        let copied = self.copy_bytes((&mut source, &reading), (&mut target, &writing), done);
        if let Err(why) = copied {
            // Of a disk that is full it takes the last room.
            let _ = self.drop_copy(to, item);
            return Err(why);
        }
        let after = source.metadata().map_err(reading)?;
        let of = |file: &std::fs::Metadata| (file.len(), file.mtime(), file.mtime_nsec());
        if of(&before) != of(&after) {
            let why = "it was changed while it was copied";
            let path = self.from.join(&item.old);
            return Err(Why::Passing(format!("{path:?}: {why}")));
        }
        let finish = || {
            target.set_len(before.len())?;
            target.set_modified(before.modified()?)?;
            target.sync_all()
        };
        finish().map_err(writing)
    }

    fn copy_bytes(
        &self,
        (source, reading): (&mut File, &dyn Fn(std::io::Error) -> Why),
        (target, writing): (&mut File, &dyn Fn(std::io::Error) -> Why),
        done: &mut Done,
    ) -> Result<(), Why> {
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            self.go_on()?;
            let count = source.read(&mut buffer).map_err(reading)?;
            let read = buffer.get(..count).unwrap_or_default();
            match read.iter().all(|byte| *byte == 0) {
                true if count == 0 => return Ok(()),
                // A file that is not complete has holes, and keeps them.
                true => drop(
                    target
                        .seek(SeekFrom::Current(count as i64))
                        .map_err(writing)?,
                ),
                false => target.write_all(read).map_err(writing)?,
            }
            done.bytes += count as u64;
            self.moving.note(done.bytes, done.all);
        }
    }

    /// Takes away what was copied: the torrent stays where it was. What has a name of the torrent is
    /// not known to be a copy, and stays.
    pub(super) fn take_back(&self) -> Result<(), Why> {
        let to = Beneath::open(&self.to).map_err(|error| Why::of(&self.to, error))?;
        self.check_mark(&to)?;
        let names = taken::names(self, self.described()?).into_iter();
        let own = names.map(|names| own_name(&self.info_hash, names.index, &names.both[0]));
        let paths: Vec<_> = own.chain([self.mark()]).collect();
        self.clear(&to, paths.iter().map(PathBuf::as_path));
        Ok(())
    }

    /// Hashes what was copied where it is now, and compares it where not all of it is verified: the
    /// stamps of the files, if all is right.
    pub(super) fn hashed(
        &self,
        from: &Beneath,
        to: &Beneath,
        copies: &[Item],
    ) -> Result<Vec<Option<FileStamp>>, Why> {
        let metainfo = self.described()?;
        if !matches!(self.kept.verified, Verified::All) {
            comparing::check(self, from, to, copies)?;
        }
        let names = self.copy_names(metainfo, copies);
        let resume = Resume {
            claim: None,
            always_hash: true,
            partial_suffix: "",
            renames: &names,
            cells: &self.services.cells,
            disk: self.services.disk,
        };
        let looked = resume.look(metainfo, &self.to, &mut |progress| {
            let all = progress.bytes_total;
            self.moving.note(all + progress.bytes_done, 2 * all);
            match self.moving.is_cancelled() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        self.go_on()?;
        let looked = looked.map_err(|error| Why::Passing(error.to_string()))?;
        let is_there = |piece: u32| looked.pieces.contains(PieceIndex(piece));
        let claimed = match &self.kept.verified {
            Verified::None => return Ok(looked.stamps),
            Verified::All => PieceSet::full(metainfo.piece_count),
            Verified::Pieces(bits) => PieceSet::from_bitfield(bits, metainfo.piece_count)
                .unwrap_or_else(|| PieceSet::new(metainfo.piece_count)),
        };
        match claimed.iter().find(|piece| !is_there(piece.0)) {
            None => {
                // What was hashed is on the disk, also where an earlier run had copied it.
                for copy in copies {
                    self.go_on()?;
                    let synced = to.read(&copy.new).and_then(|file| file.sync_all());
                    synced.map_err(|error| Why::of(&self.to.join(&copy.new), error))?;
                }
                Ok(looked.stamps)
            }
            Some(piece) => {
                self.unmake(to, copies, metainfo, piece)?;
                Err(Why::BadCopy(format!(
                    "piece {} did not arrive whole: one of the disks is not to be trusted, or \
                     the file was changed meanwhile",
                    piece.0
                )))
            }
        }
    }

    /// Takes the copies away that a piece is in: they are to be made again.
    fn unmake(
        &self,
        to: &Beneath,
        copies: &[Item],
        metainfo: &Metainfo,
        piece: PieceIndex,
    ) -> Result<(), Why> {
        let length = u64::from(metainfo.piece_length);
        let first = u64::from(piece.0) * length;
        let mut begin = 0u64;
        for (index, file) in (0..).zip(&metainfo.files) {
            let end = begin + file.length;
            let has_it = begin < first + length && first < end;
            let copy = copies.iter().find(|copy| copy.index == index);
            if let Some(copy) = copy.filter(|_| has_it) {
                self.drop_copy(to, copy)?;
            }
            begin = end;
        }
        Ok(())
    }
}

/// Whether the copy of a file is there and its original has not changed since it was made.
pub(super) fn is_copied(
    work: &Work,
    from: &Beneath,
    to: &Beneath,
    item: &Item,
) -> Result<bool, Why> {
    let Ok(found) = to.read(&item.new).and_then(|file| file.metadata()) else {
        return Ok(false);
    };
    let original = from.read(&item.old).and_then(|file| file.metadata());
    let original = original.map_err(|error| Why::of(&work.from.join(&item.old), error))?;
    let of = |file: &std::fs::Metadata| (file.len(), file.mtime(), file.mtime_nsec());
    Ok(of(&found) == of(&original))
}
