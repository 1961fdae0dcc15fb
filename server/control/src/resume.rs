//! How a fetch goes on: which pieces of a torrent are on disk and known to be right, hashing only what is in doubt.
//!
//! What an earlier run synced is believed of files whose stamps have not changed since. Of a file that has changed,
//! because the run was killed while it wrote, or by somebody else, the pieces that were said to be there are hashed
//! again, and no others. Where nothing is known, all pieces of files that exist are hashed: they may come from
//! another client.
//!
//! Blocks for as long as hashing takes; call it on a thread for blocking work.
//! Does not: write anything, to disk or to the store.

use crate::hashing::{Disk, Links, Progress, Root, stamp_of};
use crate::state::{State, StateError};
use crate::verify::{self, Names, PieceSet, Selection, VerifyError};
use engine::layout::{FileIndex, FileStamp, LayoutError, StorageLayout};
use proto::ids::PieceIndex;
use proto::metainfo::{File, Metainfo};
use seedring_metrics::{ControlCells, ControlCounter};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What is there of a torrent.
#[derive(Debug)]
pub struct Resumed {
    /// The pieces that are right.
    pub pieces: PieceSet,
    /// The stamps of the files that are there, pieces or not, as they were before anything of them was read.
    pub stamps: Vec<Option<FileStamp>>,
    /// How many pieces were hashed to know it.
    pub hashed: u32,
}

/// What an earlier run said to be there.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The pieces that were verified and synced.
    pub pieces: PieceSet,
    /// The stamps for which that holds; short of files, it holds for none.
    pub stamps: Vec<Option<FileStamp>>,
}

impl Claim {
    /// What `state` remembers of this torrent in this place.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub fn of(
        state: &State,
        metainfo: &Metainfo,
        data_dir: &Path,
    ) -> Result<Option<Claim>, StateError> {
        let Some(info_hash) = metainfo.info_hash_v1 else {
            return Ok(None);
        };
        if let Some(record) = state.fetch_record(info_hash)?
            && record.data_dir == data_dir
            && let Some(pieces) = PieceSet::from_bitfield(&record.pieces, metainfo.piece_count)
        {
            let stamps = record.stamps;
            return Ok(Some(Claim { pieces, stamps }));
        }
        let record = state.record(info_hash)?;
        let record = record.filter(|record| record.data_dir == data_dir);
        Ok(record.map(|record| Claim {
            pieces: PieceSet::full(metainfo.piece_count),
            stamps: record.stamps,
        }))
    }
}

/// How it is found out.
pub struct Resume<'a> {
    /// What an earlier run said; without it all that is there is hashed, and what is gone is not missed.
    pub claim: Option<Claim>,
    /// Whether to hash what has not changed, too.
    pub always_hash: bool,
    /// What the names of files end in while they are not complete; empty if in nothing.
    pub partial_suffix: &'a str,
    /// Paths of files that lie elsewhere than the torrent says, by their index.
    pub renames: &'a BTreeMap<u32, PathBuf>,
    /// Where hashing is counted.
    pub cells: &'a ControlCells,
    /// How what is not in memory is read.
    pub disk: &'a dyn Disk,
}

/// A fetch cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// All files of an earlier run are gone.
    #[error(
        "{pieces} pieces of an earlier run were in {data_dir:?}, and none of their files is there now; \
         if a disk is not mounted, mount it"
    )]
    Gone {
        /// Where they were.
        data_dir: PathBuf,
        /// How many pieces.
        pieces: u32,
    },
    /// The torrent has no v1 hashes.
    #[error("the torrent has version 2 hashes only (BEP 52); fetching those comes later")]
    OnlyV2,
    /// The torrent's files do not add up.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Hashing could not be done.
    #[error(transparent)]
    Verify(#[from] VerifyError),
}

impl Resume<'_> {
    /// What is there of `metainfo` below `data_dir`.
    ///
    /// # Errors
    ///
    /// [`ResumeError`]; nothing has changed then.
    pub fn look(
        &self,
        metainfo: &Metainfo,
        data_dir: &Path,
        progress: &mut dyn FnMut(&Progress<'_>) -> ControlFlow<()>,
    ) -> Result<Resumed, ResumeError> {
        if metainfo.info_hash_v1.is_none() {
            return Err(ResumeError::OnlyV2);
        }
        let lengths: Vec<_> = metainfo.files.iter().map(|f| (f.length, f.pad)).collect();
        let layout = StorageLayout::new(&lengths, metainfo.piece_length)?;
        let stamps = self.stamps_now(metainfo, data_dir);
        // Where nothing is known, all of it may be there.
        let (mut pieces, known_stamps) = match &self.claim {
            Some(claim) => (claim.pieces.clone(), claim.stamps.as_slice()),
            None => (PieceSet::full(layout.piece_count()), &[][..]),
        };
        let mut doubtful = PieceSet::new(pieces.piece_count());
        let claimed = pieces.len();
        let mut some_file_left = false;
        for (index, file) in (0..).zip(&metainfo.files) {
            let at = index as usize;
            let of_file = layout.pieces_of_file(FileIndex(index)).map(PieceIndex);
            if !verify::is_on_disk(file) {
                continue;
            }
            if stamps[at].is_none() {
                of_file.for_each(|piece| pieces.remove(piece));
                continue;
            }
            some_file_left |= file.length > 0;
            if self.always_hash || known_stamps.get(at) != Some(&stamps[at]) {
                of_file.for_each(|piece| doubtful.insert(piece));
            }
        }
        if self.claim.is_some() && claimed > 0 && !some_file_left {
            let (data_dir, pieces) = (data_dir.to_owned(), claimed);
            return Err(ResumeError::Gone { data_dir, pieces });
        }
        let sure: Vec<_> = doubtful.iter().filter(|&p| !pieces.contains(p)).collect();
        sure.into_iter().for_each(|piece| doubtful.remove(piece));
        let hashed = doubtful.len();
        if hashed > 0 {
            let bad = self.hash(metainfo, data_dir, &doubtful, progress)?;
            bad.iter().for_each(|piece| pieces.remove(piece));
        }
        Ok(Resumed {
            pieces,
            stamps,
            hashed,
        })
    }

    fn names(&self) -> Names<'_> {
        Names::Kept {
            suffix: self.partial_suffix,
            renames: self.renames,
        }
    }

    /// The stamps of the files that are there.
    fn stamps_now(&self, metainfo: &Metainfo, data_dir: &Path) -> Vec<Option<FileStamp>> {
        // The data plane follows links to what lies beneath the folder, too.
        let Ok(root) = Root::open(data_dir, Links::Beneath) else {
            return vec![None; metainfo.files.len()];
        };
        let stamp = |index, file: &File| {
            let mut paths = verify::paths(metainfo, (index, file), self.names()).into_iter();
            paths.find_map(|path| {
                let path = Path::new(std::ffi::OsStr::from_bytes(&path));
                Some(stamp_of(&root.open_file(path).ok()?.1))
            })
        };
        let on_disk = |(index, file): (u32, &File)| match verify::is_on_disk(file) {
            true => stamp(index, file),
            false => None,
        };
        (0..).zip(&metainfo.files).map(on_disk).collect()
    }

    /// Those of `doubtful` whose bytes are wrong.
    fn hash(
        &self,
        metainfo: &Metainfo,
        data_dir: &Path,
        doubtful: &PieceSet,
        progress: &mut dyn FnMut(&Progress<'_>) -> ControlFlow<()>,
    ) -> Result<PieceSet, VerifyError> {
        let mut counted = 0;
        let mut counting = |done: &Progress<'_>| {
            let bytes = done.bytes_done.saturating_sub(counted);
            self.cells.add(ControlCounter::VerifiedBytes, bytes);
            counted += bytes;
            progress(done)
        };
        let verified = verify::verify_subset(
            metainfo,
            data_dir,
            self.names(),
            Selection::Pieces(doubtful),
            None,
            self.disk,
            &mut counting,
        )?;
        let mut bad = doubtful.clone();
        verified.pieces.iter().for_each(|piece| bad.remove(piece));
        let good = u64::from(verified.pieces.len());
        self.cells.add(ControlCounter::PiecesGood, good);
        self.cells
            .add(ControlCounter::PiecesBad, u64::from(bad.len()));
        Ok(bad)
    }
}

#[cfg(test)]
mod tests;
