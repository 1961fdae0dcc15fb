//! Why a torrent was refused.

use std::fmt;

use crate::{bencode, limits};

/// Why a torrent was refused: which field, at which byte of the input, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetainfoError {
    /// The field, such as `info.files[3].length`. Names from the torrent in it are escaped and cut.
    pub field: String,
    /// The offset in the input of the offending value; where a key is missing, of its dictionary.
    pub offset: usize,
    /// What is wrong with the field.
    pub reason: Reason,
}

impl fmt::Display for MetainfoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}", self.field, self.offset, self.reason)
    }
}

impl std::error::Error for MetainfoError {}

impl From<bencode::Error> for MetainfoError {
    fn from(error: bencode::Error) -> Self {
        let reason = Reason::Bencode(error.kind);
        Self {
            field: "bencode".to_owned(),
            offset: error.offset,
            reason,
        }
    }
}

/// What can be wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The bytes are not bencode, or too much of it.
    #[error("{0}")]
    Bencode(bencode::ErrorKind),
    /// A key that a torrent must have is absent.
    #[error("is missing")]
    Missing,
    /// The value is of another kind.
    #[error("is {found}, expected {expected}")]
    WrongKind {
        /// The kind that stands there.
        found: bencode::Kind,
        /// The kind that must stand there.
        expected: bencode::Kind,
    },
    /// A key stands twice in `info`, so that two clients may read two torrents from it.
    #[error("is a duplicate key, so the torrent could be read in two ways")]
    DuplicateKey,
    /// The keys of a `file tree` do not ascend, so that the order of its files is ambiguous.
    #[error("has keys that are not sorted, so the order of the files is ambiguous")]
    UnsortedKeys,
    /// A number that does not lie in its range.
    #[error("is not between {min} and {max}")]
    OutOfRange {
        /// The least value allowed.
        min: u64,
        /// The greatest value allowed.
        max: u64,
    },
    /// The piece length of a v2 torrent is not a power of two of at least 16 KiB (BEP 52).
    #[error("is not a power of two of at least 16384, as version 2 demands")]
    PieceLengthNotPowerOfTwo,
    /// The sizes add up to more pieces than the limit.
    #[error(
        "makes more than the limit of {} pieces; a larger piece length is needed",
        limits::PIECES_MAX
    )]
    TooManyPieces,
    /// The `pieces` string is not a whole number of SHA-1 hashes.
    #[error("has {0} bytes, not a multiple of 20")]
    PiecesNotHashes(usize),
    /// There are not as many hashes as the sizes demand.
    #[error("has {found} hashes, but the files need {expected}")]
    HashCount {
        /// Hashes that stand there.
        found: usize,
        /// Hashes that the lengths need.
        expected: u64,
    },
    /// Both `length` and `files`.
    #[error("stands beside info.length; a torrent has one of the two")]
    LengthAndFiles,
    /// No files, or a file without a path.
    #[error("is empty")]
    Empty,
    /// A path of too many components.
    #[error("has more than the limit of {} components", limits::PATH_DEPTH_MAX)]
    PathTooDeep,
    /// All paths together are too much.
    #[error(
        "makes all paths together longer than the limit of {} bytes",
        limits::PATHS_BYTES_MAX
    )]
    PathsTooLong,
    /// A name in the `file tree` is a file and a directory.
    #[error("is both a file and a directory")]
    FileAndDirectory,
    /// A meta version that is not 1 or 2.
    #[error("is a version of the format that is not supported (1 and 2 are)")]
    UnsupportedVersion,
    /// A pad file in a `file tree`, where files are aligned without.
    #[error("marks a pad file, which a file tree must not have")]
    PadInFileTree,
    /// A `pieces root` that is not 32 bytes or all zeros, or a layer that is not whole hashes.
    #[error("is not made of SHA-256 hashes of 32 bytes")]
    NotSha256,
    /// The piece layer of a file that needs one is absent.
    #[error("lacks the layer of hashes for this file, which is longer than a piece")]
    PieceLayerMissing,
    /// A piece layer whose hashes do not make the file's root.
    #[error("holds hashes that do not add up to the file's `pieces root`")]
    PieceLayerWrong,
    /// The v1 and v2 halves of a hybrid torrent describe different files.
    #[error("describes other files than the version 2 part of the same torrent")]
    HybridMismatch,
    /// In a hybrid torrent a file does not start on a piece boundary.
    #[error("does not start on a piece boundary, as a torrent of both versions demands")]
    HybridUnaligned,
}
