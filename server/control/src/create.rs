//! Making a torrent of a file or a directory.
//!
//! [`create`] walks the path, hashes what it finds on all cores, and returns the bytes of the
//! `.torrent` with the stamps of the files that they stand for, so that a server can serve them
//! without hashing again. A file that changes meanwhile is an error that names it. Equal content
//! and options make equal bytes, unless a creation date is asked for.
//!
//! Memory: a few hundred bytes for each file and 20 bytes for each piece; see [`crate::hashing`]
//! for the buffers. [`write_file`] then puts it on disk. Does not: make version 2 torrents.

mod piece_length;
mod walk;
mod write;

pub use piece_length::{PIECE_LENGTH_MIN, is_piece_length, piece_length_for};
pub use walk::{FILES_MAX, Skip, Skips, SymlinkPolicy, Walked, walk};
pub use write::{WriteError, check_writable, write_file};

use crate::hashing::{
    DataFile, Disk, FileFault, HashError, HashJob, PieceResult, Progress, Root, hash_files,
};
use engine::layout::{FileIndex, FileStamp, LayoutError, StorageLayout};
use proto::bencode::Limits;
use proto::ids::PieceIndex;
use proto::limits::{PATH_DEPTH_MAX, PIECE_LENGTH_MAX};
use proto::metainfo::{Builder, BuilderFile, Metainfo, MetainfoError};
use std::io;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use thiserror::Error;
use walk::links_of;

/// How a torrent is made.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CreateOptions {
    /// The torrent's name; `None` for that of the file or directory.
    pub name: Option<String>,
    /// Trackers by tier.
    pub trackers: Vec<Vec<String>>,
    /// Web seeds (BEP 19).
    pub web_seeds: Vec<String>,
    /// Whether only the trackers may name peers (BEP 27).
    pub private: bool,
    /// The length of a piece in bytes; `None` for what [`piece_length_for`] says.
    pub piece_length: Option<u32>,
    /// The `source` in `info`.
    pub source: Option<String>,
    /// A remark for people.
    pub comment: Option<String>,
    /// Seconds since 1970; `None` for none.
    pub creation_date: Option<i64>,
    /// What to do with symbolic links.
    pub symlinks: SymlinkPolicy,
    /// How many threads hash; `None` for one on each core.
    pub threads: Option<NonZeroUsize>,
    /// Files to leave out: those that are about to be written.
    pub exclude: Vec<PathBuf>,
}

/// How far the work has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CreateProgress<'a> {
    /// The path is being walked.
    Walking {
        /// Files found so far.
        files: u64,
    },
    /// The files are being hashed.
    Hashing(Progress<'a>),
}

/// A torrent that was just made.
#[derive(Debug)]
pub struct Created {
    /// The bytes of the `.torrent` file.
    pub torrent: Vec<u8>,
    /// The same, parsed.
    pub metainfo: Metainfo,
    /// The directory that the paths of `files` start from.
    pub root: PathBuf,
    /// The data directory of the torrent: where a server finds `metainfo.name`. `None` if the
    /// torrent has another name than the file or directory on disk, so that there is none.
    pub data_dir: Option<PathBuf>,
    /// The files in the order of `metainfo.files`, with their stamps from before hashing. They held
    /// good until the last byte of each was read.
    pub files: Vec<DataFile>,
    /// What was left out.
    pub skips: Skips,
}

/// Why no torrent was made.
#[derive(Debug, Error)]
pub enum CreateError {
    /// The progress callback said stop.
    #[error("stopped before the end")]
    Stopped,
    /// The system refused something.
    #[error("cannot {operation} {path:?}: {error}")]
    Io {
        /// What was tried, in words.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system answered.
        error: io::Error,
    },
    /// A file that cannot be part of a torrent, or not now.
    #[error("{path:?}: {fault}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: FileFault,
    },
    /// A symbolic link where none may be.
    #[error("{path:?} is a symbolic link; see --symlinks to skip or to follow it")]
    Symlink {
        /// The link.
        path: PathBuf,
    },
    /// A name that a torrent cannot hold.
    #[error("the name \"{path}\" is not UTF-8, which a torrent's names must be; rename it")]
    NotUtf8 {
        /// The path, escaped.
        path: String,
    },
    /// A path that clients would refuse.
    #[error("{path:?} lies deeper than {PATH_DEPTH_MAX} folders, the limit of a torrent")]
    TooDeep {
        /// The folder that is too deep.
        path: PathBuf,
    },
    /// A torrent that clients would refuse.
    #[error("{root:?} has more than {FILES_MAX} files, the limit of a torrent; make several")]
    TooManyFiles {
        /// The directory.
        root: PathBuf,
    },
    /// There is nothing to hash.
    #[error("{path:?} holds no data to share (empty files: {files})")]
    Empty {
        /// What was given.
        path: PathBuf,
        /// How many files it has.
        files: usize,
    },
    /// The path is `/`, which has no name.
    #[error("{path:?} has no name of its own; give one with --name")]
    NoName {
        /// What was given.
        path: PathBuf,
    },
    /// The name asked for cannot be a file's.
    #[error(
        "the name {name:?} cannot be a file's or a folder's: it is empty, `.` or `..`, has a `/`, \
             or is longer than 255 bytes"
    )]
    BadName {
        /// The name.
        name: String,
    },
    /// The piece length asked for is not allowed.
    #[error(
        "a piece length of {piece_length} bytes is not a power of two from {PIECE_LENGTH_MIN} \
             to {PIECE_LENGTH_MAX}"
    )]
    PieceLength {
        /// The length asked for.
        piece_length: u32,
    },
    /// There would be too many pieces.
    #[error("{0}; choose a larger --piece-size")]
    Layout(#[from] LayoutError),
    /// A thread could not be started.
    #[error(transparent)]
    Hashing(HashError),
    /// The torrent would be refused by whoever reads it.
    #[error("the torrent would be refused: {0}")]
    Refused(#[from] MetainfoError),
}

/// Makes a torrent of the file or directory at `path`.
///
/// Blocks for as long as reading and hashing take. What is not in memory is read by `disk`.
/// `progress` is called on this thread, about ten times a second, and may stop the work.
pub fn create(
    path: &Path,
    options: &CreateOptions,
    disk: &dyn Disk,
    progress: &mut dyn FnMut(&CreateProgress<'_>) -> ControlFlow<()>,
) -> Result<Created, CreateError> {
    let mut walking = |files| progress(&CreateProgress::Walking { files });
    let mut walked = walk(path, options.symlinks, &options.exclude, &mut walking)?;
    if let Some(name) = &options.name {
        walked.name.clone_from(name);
    }
    check_name(path, options, &walked)?;
    let content_length = walked.content_length();
    if content_length == 0 {
        return Err(CreateError::Empty {
            path: path.to_owned(),
            files: walked.files.len(),
        });
    }
    let piece_length = options
        .piece_length
        .unwrap_or_else(|| piece_length_for(content_length));
    if !is_piece_length(piece_length) {
        return Err(CreateError::PieceLength { piece_length });
    }
    let pieces = hash_walked(&walked, options, piece_length, disk, progress)?;
    let torrent = encode(&walked, options, piece_length, pieces);
    let metainfo = Metainfo::parse_within(&torrent, &Limits::METAINFO_OWN)?;
    let data_dir = walked.data_dir();
    let Walked {
        root, files, skips, ..
    } = walked;
    Ok(Created {
        torrent,
        metainfo,
        root,
        data_dir,
        files,
        skips,
    })
}

impl Created {
    /// The stamps of the files in the order of the torrent.
    pub fn stamps(&self) -> Vec<Option<FileStamp>> {
        self.files.iter().map(|file| file.stamp).collect()
    }
}

/// Refuses a name that is none.
fn check_name(path: &Path, options: &CreateOptions, walked: &Walked) -> Result<(), CreateError> {
    if options.name.is_none() && walked.name.is_empty() {
        return Err(CreateError::NoName {
            path: path.to_owned(),
        });
    }
    if !proto::path::is_literal_component(walked.name.as_bytes()) {
        return Err(CreateError::BadName {
            name: walked.name.clone(),
        });
    }
    Ok(())
}

/// The SHA-1 of every piece, one after the other.
fn hash_walked(
    walked: &Walked,
    options: &CreateOptions,
    piece_length: u32,
    disk: &dyn Disk,
    progress: &mut dyn FnMut(&CreateProgress<'_>) -> ControlFlow<()>,
) -> Result<Vec<u8>, CreateError> {
    let lengths: Vec<(u64, bool)> = walked
        .files
        .iter()
        .map(|file| (file.stamp.map_or(0, |stamp| stamp.size), false))
        .collect();
    let layout = StorageLayout::new(&lengths, piece_length)?;
    drop(lengths);
    let root =
        Root::open(&walked.root, links_of(options.symlinks)).map_err(|error| CreateError::Io {
            operation: "open the folder",
            path: walked.root.clone(),
            error,
        })?;
    let digests = Mutex::new(vec![0; layout.piece_count() as usize * 20]);
    let fault: Mutex<Option<(FileIndex, FileFault)>> = Mutex::new(None);
    let on_piece = |piece: PieceIndex, result: PieceResult| match result {
        Ok(digest) => {
            let start = piece.0 as usize * 20;
            let mut digests = digests.lock().unwrap_or_else(PoisonError::into_inner);
            digests[start..start + 20].copy_from_slice(&digest);
            ControlFlow::Continue(())
        }
        Err(found) => {
            fault
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert(found);
            ControlFlow::Break(())
        }
    };
    let job = HashJob {
        root: &root,
        files: &walked.files,
        layout: &layout,
        threads: options.threads,
        disk,
    };
    let pieces = (0..layout.piece_count()).map(PieceIndex);
    let mut hashing = |done: &Progress<'_>| progress(&CreateProgress::Hashing(*done));
    let ended = hash_files(&job, pieces, &on_piece, &mut hashing);
    if let Some((file, fault)) = fault.into_inner().unwrap_or_else(PoisonError::into_inner) {
        let path = walked.root.join(walked.files[file.0 as usize].path());
        return Err(CreateError::File { path, fault });
    }
    match ended {
        Ok(()) => Ok(digests.into_inner().unwrap_or_else(PoisonError::into_inner)),
        Err(HashError::Stopped) => Err(CreateError::Stopped),
        Err(error) => Err(CreateError::Hashing(error)),
    }
}

/// The bytes of the `.torrent` file.
fn encode(walked: &Walked, options: &CreateOptions, piece_length: u32, pieces: Vec<u8>) -> Vec<u8> {
    let size = |file: &DataFile| file.stamp.map_or(0, |stamp| stamp.size);
    let file = |file: &DataFile| BuilderFile {
        path: file
            .path
            .split(|&byte| byte == b'/')
            .map(<[u8]>::to_vec)
            .collect(),
        length: size(file),
        attributes: String::new(),
    };
    let files = walked
        .is_directory
        .then(|| walked.files.iter().map(file).collect());
    let builder = Builder {
        name: walked.name.clone().into_bytes(),
        piece_length,
        pieces,
        length: walked.files.first().map_or(0, size),
        files: files.unwrap_or_default(),
        trackers: options.trackers.clone(),
        web_seeds: options.web_seeds.clone(),
        private: options.private,
        source: options.source.clone(),
        comment: options.comment.clone(),
        created_by: Some(concat!("Seedring ", env!("CARGO_PKG_VERSION")).to_owned()),
        creation_date: options.creation_date,
    };
    builder.encode()
}

#[cfg(test)]
mod tests;
