//! Hashing the data on disk and comparing it with a torrent.
//!
//! Files are looked for beneath the data directory and nowhere else: a symbolic link inside it is
//! followed if it is relative and leads to what is beneath it, as the data plane does; only regular
//! files are opened, and no open blocks. A file is looked for under its safe
//! path first, then under the name that the torrent spells; one of a torrent that is being fetched under
//! its safe path, then under the name that it has until it is complete. Every file gets a stamp from before its
//! bytes were read, and pieces of a file that changed meanwhile are not good.
//!
//! Memory: a few hundred bytes for each file, a bit for each piece; see [`crate::hashing`] for the
//! buffers.
//! Does not: serve, repair or write anything; verify torrents that have version 2 hashes only (BEP
//! 52).

mod piece_set;

pub use piece_set::PieceSet;

use crate::hashing::{
    DataFile, Disk, FileFault, HashError, HashJob, Links, PieceResult, Progress, Root, hash_files,
    settled, stamp_of,
};
use engine::layout::{FileIndex, FileStamp, LayoutError, StorageLayout};
use proto::ids::PieceIndex;
use proto::metainfo::{File, Metainfo};
use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use thiserror::Error;

/// Which part of a torrent is verified.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Selection<'a> {
    /// All of it.
    All,
    /// The pieces that hold bytes of these files.
    Files(&'a [FileIndex]),
    /// These pieces.
    Pieces(&'a PieceSet),
}

/// What a verification found.
#[derive(Debug)]
pub struct Verified {
    /// The pieces whose bytes on disk have the torrent's hash. A piece that was not selected is not
    /// in it.
    pub pieces: PieceSet,
    /// The pieces that were selected.
    pub selected: PieceSet,
    /// What became of each file, in the order of the torrent.
    pub files: Vec<FileReport>,
}

impl Verified {
    /// Whether everything that was selected is good.
    pub fn is_good(&self) -> bool {
        self.files.iter().all(|file| !file.state.is_wrong()) && self.pieces == self.selected
    }

    /// The stamps that the files had before they were read, in the order of the torrent.
    pub fn stamps(&self) -> Vec<Option<FileStamp>> {
        self.files.iter().map(|file| file.stamp).collect()
    }
}

/// What became of one file.
#[derive(Debug)]
pub struct FileReport {
    /// Where it was looked for, below the data directory.
    pub path: PathBuf,
    /// Its length in the torrent, in bytes.
    pub length: u64,
    /// Its stamp from before its bytes were read; `None` if it was not found or not looked for.
    pub stamp: Option<FileStamp>,
    /// How many selected pieces hold bytes of it.
    pub pieces: u32,
    /// How many of them are not good.
    pub pieces_bad: u32,
    /// The verdict.
    pub state: FileState,
}

/// The verdict on one file.
#[derive(Debug)]
pub enum FileState {
    /// It is there, has its length, and all selected pieces with bytes of it are good.
    Good,
    /// It is there and has its length, but some pieces with bytes of it are bad. The bad bytes may
    /// lie in a neighbour that shares a piece with it.
    BadPieces,
    /// It is not there, has another length, or cannot be read.
    Fault(FileFault),
    /// It was not selected, or is never on disk (pad files and links of BEP 47).
    NotChecked,
}

impl FileState {
    /// Whether something is wrong with the file.
    pub fn is_wrong(&self) -> bool {
        matches!(self, FileState::BadPieces | FileState::Fault(_))
    }
}

/// Why nothing could be verified.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// The progress callback said stop.
    #[error("stopped before the end")]
    Stopped,
    /// The data directory cannot be opened.
    #[error("cannot open the data folder {path:?}: {error}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system answered.
        error: io::Error,
    },
    /// The torrent has no SHA-1 hashes.
    #[error("the torrent has version 2 hashes only (BEP 52); verifying those comes later")]
    OnlyV2,
    /// The torrent's files do not add up.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A thread could not be started.
    #[error(transparent)]
    Hashing(HashError),
}

/// Verifies all of `metainfo` whose data lies in `directory`, so that the torrent's first file is
/// at `directory/NAME` or `directory/NAME/…`. `threads` hash, one on each core if `None`.
///
/// Blocks for as long as reading and hashing take. What is not in memory is read by `disk`.
/// `progress` is called on this thread, about ten times a second, and may stop the work.
pub fn verify(
    metainfo: &Metainfo,
    directory: &Path,
    threads: Option<NonZeroUsize>,
    disk: &dyn Disk,
    progress: &mut dyn FnMut(&Progress<'_>) -> ControlFlow<()>,
) -> Result<Verified, VerifyError> {
    verify_subset(
        metainfo,
        directory,
        Names::Whole,
        Selection::All,
        threads,
        disk,
        progress,
    )
}

/// How the names of files on disk follow from the torrent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Names<'a> {
    /// They are safe, or as the torrent spells them: the files may be from elsewhere.
    Whole,
    /// They are safe, or what a user has called them.
    Kept {
        /// This may be at their end while the torrent is being fetched; may be empty.
        suffix: &'a str,
        /// The paths of those that lie elsewhere than the torrent says, by their index.
        renames: &'a BTreeMap<u32, PathBuf>,
    },
}

/// [`verify`] for a part of the torrent.
pub fn verify_subset(
    metainfo: &Metainfo,
    directory: &Path,
    names: Names<'_>,
    selection: Selection<'_>,
    threads: Option<NonZeroUsize>,
    disk: &dyn Disk,
    progress: &mut dyn FnMut(&Progress<'_>) -> ControlFlow<()>,
) -> Result<Verified, VerifyError> {
    if metainfo.info_hash_v1.is_none() {
        return Err(VerifyError::OnlyV2);
    }
    let lengths: Vec<(u64, bool)> = metainfo
        .files
        .iter()
        .map(|file| (file.length, file.pad))
        .collect();
    let layout = StorageLayout::new(&lengths, metainfo.piece_length)?;
    drop(lengths);
    let root = Root::open(directory, Links::Beneath).map_err(|error| VerifyError::Directory {
        path: directory.to_owned(),
        error,
    })?;
    let selected = select(&layout, selection);
    let place = Place { root: &root, names };
    let (files, faults) = look(metainfo, place, &layout, selection, &selected);

    let outcome = Mutex::new((PieceSet::new(layout.piece_count()), Faults::new()));
    let on_piece = |piece: PieceIndex, result: PieceResult| {
        let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(digest) if metainfo.piece_hash(piece) == Some(&digest) => outcome.0.insert(piece),
            Ok(_) => {}
            Err((file, fault)) => drop(outcome.1.entry(file.0).or_insert(fault)),
        }
        ControlFlow::Continue(())
    };
    let job = HashJob {
        root: &root,
        files: &files,
        layout: &layout,
        threads,
        disk,
    };
    hash_files(&job, selected.iter(), &on_piece, progress).map_err(|error| match error {
        HashError::Stopped => VerifyError::Stopped,
        error => VerifyError::Hashing(error),
    })?;
    let (pieces, late_faults) = outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
    let files = report(
        metainfo,
        &layout,
        &selected,
        &pieces,
        files,
        faults,
        late_faults,
    );
    Ok(Verified {
        pieces,
        selected,
        files,
    })
}

/// The faults of files, by their index. Most torrents have none.
type Faults = std::collections::HashMap<u32, FileFault>;

/// The pieces that `selection` means.
fn select(layout: &StorageLayout, selection: Selection<'_>) -> PieceSet {
    let mut selected = PieceSet::new(layout.piece_count());
    match selection {
        Selection::All => (0..layout.piece_count()).for_each(|p| selected.insert(PieceIndex(p))),
        Selection::Files(files) => files
            .iter()
            .flat_map(|&file| layout.pieces_of_file(file))
            .for_each(|piece| selected.insert(PieceIndex(piece))),
        Selection::Pieces(pieces) => pieces.iter().for_each(|piece| selected.insert(piece)),
    }
    selected
}

/// Where files are looked for.
#[derive(Clone, Copy)]
struct Place<'a> {
    root: &'a Root,
    names: Names<'a>,
}

/// Looks for every file that selected pieces need, and stamps it.
fn look(
    metainfo: &Metainfo,
    place: Place<'_>,
    layout: &StorageLayout,
    selection: Selection<'_>,
    selected: &PieceSet,
) -> (Vec<DataFile>, Faults) {
    let mut faults = Faults::new();
    let mut look_at = |(index, file): (u32, &File)| {
        let mut paths = paths(metainfo, (index, file), place.names);
        let wanted = match selection {
            Selection::All => true,
            Selection::Files(files) if files.contains(&FileIndex(index)) => true,
            _ => has_selected(layout, selected, FileIndex(index)),
        };
        if !wanted || !is_on_disk(file) {
            return DataFile {
                path: paths.swap_remove(0),
                stamp: None,
            };
        }
        let mut found = DataFile {
            path: paths[0].clone(),
            stamp: None,
        };
        let mut fault = FileFault::Missing;
        for path in paths {
            let candidate = DataFile { path, stamp: None };
            match settled(|| Ok(place.root.open_file(candidate.path())?.1)) {
                Ok(metadata) => {
                    let stamp = stamp_of(&metadata);
                    if stamp.size != file.length {
                        let (expected, found) = (file.length, stamp.size);
                        faults.insert(index, FileFault::WrongSize { expected, found });
                    }
                    return DataFile {
                        stamp: Some(stamp),
                        ..candidate
                    };
                }
                Err(FileFault::Missing) => {}
                Err(other) => (found, fault) = (candidate, other),
            }
        }
        faults.insert(index, fault);
        found
    };
    let files = (0..).zip(&metainfo.files).map(&mut look_at).collect();
    (files, faults)
}

/// Whether the file has, or should have, a place on disk.
pub(crate) fn is_on_disk(file: &File) -> bool {
    !file.pad && file.symlink_target.is_none()
}

/// Whether a selected piece holds bytes of `file`.
fn has_selected(layout: &StorageLayout, selected: &PieceSet, file: FileIndex) -> bool {
    layout
        .pieces_of_file(file)
        .any(|piece| selected.contains(PieceIndex(piece)))
}

/// Where a file, given with its index, may lie below the data directory, the likeliest first.
pub(crate) fn paths(
    metainfo: &Metainfo,
    (index, file): (u32, &File),
    names: Names<'_>,
) -> Vec<Box<[u8]>> {
    let safe = || file.path.join("/").into_bytes();
    let (first, other) = match names {
        Names::Whole => {
            let literal = metainfo.literal_path(file);
            (safe(), literal.map(|literal| literal.join(&b'/')))
        }
        Names::Kept { suffix, renames } => {
            let own = renames.get(&index);
            let own = own.map_or_else(safe, |path| path.as_os_str().as_bytes().to_vec());
            let partial = (!suffix.is_empty()).then(|| [&own, suffix.as_bytes()].concat());
            (own, partial)
        }
    };
    let paths = std::iter::once(first).chain(other);
    paths.map(Vec::into_boxed_slice).collect()
}

/// Puts together what was found before hashing and by hashing.
fn report(
    metainfo: &Metainfo,
    layout: &StorageLayout,
    selected: &PieceSet,
    good: &PieceSet,
    found: Vec<DataFile>,
    mut faults: Faults,
    mut late_faults: Faults,
) -> Vec<FileReport> {
    let report_on = |((index, file), found): ((u32, &File), DataFile)| {
        let pieces = layout.pieces_of_file(FileIndex(index)).map(PieceIndex);
        let pieces: Vec<PieceIndex> = pieces.filter(|&piece| selected.contains(piece)).collect();
        let bad = pieces
            .iter()
            .filter(|&&piece| !good.contains(piece))
            .count();
        let fault = faults.remove(&index).or_else(|| late_faults.remove(&index));
        let state = match fault {
            Some(fault) if is_on_disk(file) => FileState::Fault(fault),
            _ if found.stamp.is_none() => FileState::NotChecked,
            _ if bad > 0 => FileState::BadPieces,
            _ => FileState::Good,
        };
        FileReport {
            path: PathBuf::from(std::ffi::OsStr::from_bytes(&found.path)),
            length: file.length,
            stamp: found.stamp,
            pieces: pieces.len() as u32,
            pieces_bad: bad as u32,
            state,
        }
    };
    (0..)
        .zip(&metainfo.files)
        .zip(found)
        .map(report_on)
        .collect()
}

#[cfg(test)]
mod tests;
