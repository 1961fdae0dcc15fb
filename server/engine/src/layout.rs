//! Storage layout: which bytes of which files a block of a piece is.
//!
//! A torrent's content is its files put end to end (BEP 3), pad files (BEP 47) included. This
//! module maps blocks to file ranges and files to pieces, by arithmetic alone: it opens nothing and
//! knows no path.
//!
//! Limits: 2^32 − 1 files, [`limits::PIECES_MAX`] pieces. Memory: 16 bytes for each file that is
//! not empty. A look-up is one binary search; iterating allocates nothing.

use std::ops::Range;

use proto::ids::PieceIndex;
use proto::limits;
use thiserror::Error;

/// The index of a file in the torrent's file list, from 0, pad files and empty files counted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct FileIndex(pub u32);

/// A run of bytes in one file, or a run of padding.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FileRange {
    /// The file; `None` for padding (BEP 47), which is zeros and exists on no disk.
    pub file: Option<FileIndex>,
    /// Where the run starts in the file, in bytes.
    pub offset: u64,
    /// How long the run is, in bytes; never 0.
    pub length: u32,
}

/// Why a file list and a piece length make no layout.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum LayoutError {
    /// The piece length is 0 or over the limit.
    #[error("piece length {piece_length} is not within 1 to {max}", max = limits::PIECE_LENGTH_MAX)]
    PieceLength {
        /// The refused piece length, in bytes.
        piece_length: u32,
    },
    /// The lengths of the files add up to more than 2^64 − 1.
    #[error("the lengths of the files up to file {file} add up to more than 2^64 - 1 bytes")]
    TotalLength {
        /// The file at which the sum overflowed.
        file: usize,
    },
    /// There are more pieces than a torrent may have.
    #[error("{pieces} pieces, more than the limit of {max}", max = limits::PIECES_MAX)]
    PieceCount {
        /// How many pieces it would be.
        pieces: u64,
    },
    /// There are more files than a [`FileIndex`] can count.
    #[error("{files} files, more than the limit of 2^32 - 1")]
    FileCount {
        /// How many files there are.
        files: usize,
    },
}

/// A file that is not empty, and where it starts in the torrent.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u64,
    file: FileIndex,
    pad: bool,
}

/// The map between pieces and files of one torrent. Immutable: every shard may share one.
#[derive(Clone, Debug)]
pub struct StorageLayout {
    /// Sorted by start and by file, both strictly.
    spans: Box<[Span]>,
    total_length: u64,
    piece_length: u32,
    piece_count: u32,
    file_count: u32,
}

impl StorageLayout {
    /// The layout of `files`, each given as its length in bytes and whether it is a pad file.
    pub fn new(files: &[(u64, bool)], piece_length: u32) -> Result<StorageLayout, LayoutError> {
        if piece_length == 0 || piece_length > limits::PIECE_LENGTH_MAX {
            return Err(LayoutError::PieceLength { piece_length });
        }
        let file_count = u32::try_from(files.len())
            .map_err(|_| LayoutError::FileCount { files: files.len() })?;
        let filled = files.iter().filter(|(length, _)| *length > 0).count();
        let mut spans = Vec::with_capacity(filled);
        let mut start = 0_u64;
        for (file, &(length, pad)) in (0..file_count).zip(files) {
            if length > 0 {
                spans.push(Span {
                    start,
                    file: FileIndex(file),
                    pad,
                });
                start = start.checked_add(length).ok_or(LayoutError::TotalLength {
                    file: file as usize,
                })?;
            }
        }
        let pieces = start.div_ceil(u64::from(piece_length));
        if pieces > u64::from(limits::PIECES_MAX) {
            return Err(LayoutError::PieceCount { pieces });
        }
        Ok(StorageLayout {
            spans: spans.into_boxed_slice(),
            total_length: start,
            piece_length,
            piece_count: pieces as u32,
            file_count,
        })
    }

    /// The length of the whole content, padding included, in bytes.
    pub fn total_length(&self) -> u64 {
        self.total_length
    }

    /// The length of every piece but the last, in bytes.
    pub fn piece_length(&self) -> u32 {
        self.piece_length
    }

    /// How many pieces there are; 0 for a torrent of empty files.
    pub fn piece_count(&self) -> u32 {
        self.piece_count
    }

    /// How many files there are, pad files and empty files counted.
    pub fn file_count(&self) -> u32 {
        self.file_count
    }

    /// The length of `piece`, in bytes: the last one may be shorter; 0 if there is no such piece.
    pub fn piece_length_of(&self, piece: PieceIndex) -> u32 {
        let Some(start) = self.piece_start(piece) else {
            return 0;
        };
        let rest = self.total_length - start;
        u32::try_from(rest).map_or(self.piece_length, |rest| rest.min(self.piece_length))
    }

    /// Whether the block is not empty and lies wholly inside its piece.
    pub fn contains_block(&self, piece: PieceIndex, begin: u32, length: u32) -> bool {
        length > 0
            && begin
                .checked_add(length)
                .is_some_and(|end| end <= self.piece_length_of(piece))
    }

    /// The runs of bytes that the block is made of, in order, empty files skipped. A block that is
    /// not wholly inside its piece has none.
    pub fn block_ranges(&self, piece: PieceIndex, begin: u32, length: u32) -> BlockRanges<'_> {
        let start = match self.piece_start(piece) {
            Some(start) if self.contains_block(piece, begin, length) => start + u64::from(begin),
            _ => {
                return BlockRanges {
                    layout: self,
                    span: 0,
                    position: 0,
                    left: 0,
                };
            }
        };
        BlockRanges {
            layout: self,
            span: self.span_at(start),
            position: start,
            left: length,
        }
    }

    /// The runs of bytes that the whole piece is made of: what a hash check reads.
    pub fn piece_ranges(&self, piece: PieceIndex) -> BlockRanges<'_> {
        self.block_ranges(piece, 0, self.piece_length_of(piece))
    }

    /// The pieces that hold bytes of `file`, as indices; empty for an empty or unknown file. These
    /// are the pieces that can no longer be trusted when the file has changed.
    pub fn pieces_of_file(&self, file: FileIndex) -> Range<u32> {
        let Ok(span) = self.spans.binary_search_by_key(&file, |span| span.file) else {
            return 0..0;
        };
        let piece_length = u64::from(self.piece_length);
        let first = self.spans[span].start / piece_length;
        let end = self.span_end(span).div_ceil(piece_length);
        // Both are at most the piece count, which is a u32.
        first as u32..end as u32
    }

    /// The length of `file` in bytes; 0 for an empty or unknown one.
    pub fn file_length(&self, file: FileIndex) -> u64 {
        match self.spans.binary_search_by_key(&file, |span| span.file) {
            Ok(span) => self.span_end(span) - self.spans[span].start,
            Err(_) => 0,
        }
    }

    /// Where `piece` starts in the torrent, if there is such a piece.
    fn piece_start(&self, piece: PieceIndex) -> Option<u64> {
        (piece.0 < self.piece_count).then(|| u64::from(piece.0) * u64::from(self.piece_length))
    }

    /// The span that holds byte `position`, which must be below the total length.
    fn span_at(&self, position: u64) -> usize {
        self.spans.partition_point(|span| span.start <= position) - 1
    }

    /// Where span number `span` ends in the torrent.
    fn span_end(&self, span: usize) -> u64 {
        self.spans
            .get(span + 1)
            .map_or(self.total_length, |next| next.start)
    }
}

/// The file ranges of a block: see [`StorageLayout::block_ranges`].
#[derive(Clone, Debug)]
pub struct BlockRanges<'a> {
    layout: &'a StorageLayout,
    span: usize,
    position: u64,
    left: u32,
}

impl Iterator for BlockRanges<'_> {
    type Item = FileRange;

    fn next(&mut self) -> Option<FileRange> {
        if self.left == 0 {
            return None;
        }
        let span = self.layout.spans.get(self.span)?;
        let span_left = self.layout.span_end(self.span) - self.position;
        let length = u32::try_from(span_left).map_or(self.left, |left| left.min(self.left));
        let range = FileRange {
            file: (!span.pad).then_some(span.file),
            offset: self.position - span.start,
            length,
        };
        self.span += 1;
        self.position += u64::from(length);
        self.left -= length;
        Some(range)
    }
}

/// What identifies one state of a file on disk: if two stamps are alike, the bytes are taken to be
/// too.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct FileStamp {
    /// The device that holds the file.
    pub device: u64,
    /// The inode on that device.
    pub inode: u64,
    /// The length in bytes.
    pub size: u64,
    /// When the content last changed, in nanoseconds since 1970; can be set back by anyone who may
    /// write.
    pub mtime_ns: i64,
    /// When content or attributes last changed, in nanoseconds since 1970; kept by the kernel
    /// alone.
    pub ctime_ns: i64,
}

impl FileStamp {
    /// Nanoseconds since 1970 from a kernel's pair of seconds and nanoseconds, held at the ends of
    /// `i64` (the years 1677 and 2262).
    pub fn nanoseconds(seconds: i64, nanoseconds: u32) -> i64 {
        seconds
            .saturating_mul(1_000_000_000)
            .saturating_add(i64::from(nanoseconds))
    }

    /// Whether anything differs, the change time included: the strict test, for a file under a
    /// running server. It also tells of a writer who sets the modification time back, and errs on
    /// renames and `chmod`.
    pub fn differs_from(&self, other: &FileStamp) -> bool {
        self != other
    }

    /// Whether device, inode, size or modification time differ: the test for stored state, where a
    /// `chmod`, a new hard link or a rename between two runs must not cost a full check.
    pub fn content_differs_from(&self, other: &FileStamp) -> bool {
        FileStamp {
            ctime_ns: 0,
            ..*self
        } != FileStamp {
            ctime_ns: 0,
            ..*other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The layout byte by byte: (file, offset in file, pad).
    fn byte_map(files: &[(u64, bool)]) -> Vec<(u32, u64, bool)> {
        let mut map = Vec::new();
        for (file, &(length, pad)) in (0_u32..).zip(files) {
            map.extend((0..length).map(|offset| (file, offset, pad)));
        }
        map
    }

    #[test]
    fn a_block_over_three_files_skips_the_empty_one() {
        let layout =
            StorageLayout::new(&[(10, false), (0, false), (5, false), (100, false)], 32).unwrap();
        assert_eq!((layout.total_length(), layout.piece_count()), (115, 4));
        let ranges: Vec<_> = layout.block_ranges(PieceIndex(0), 8, 16).collect();
        let range = |file, offset, length| FileRange {
            file: Some(FileIndex(file)),
            offset,
            length,
        };
        assert_eq!(ranges, [range(0, 8, 2), range(2, 0, 5), range(3, 0, 9)]);
    }

    #[test]
    fn padding_names_no_file() {
        let layout = StorageLayout::new(&[(10, false), (6, true), (16, false)], 16).unwrap();
        let ranges: Vec<_> = layout.piece_ranges(PieceIndex(0)).collect();
        assert_eq!(
            ranges,
            [
                FileRange {
                    file: Some(FileIndex(0)),
                    offset: 0,
                    length: 10
                },
                FileRange {
                    file: None,
                    offset: 0,
                    length: 6
                },
            ]
        );
    }

    #[test]
    fn blocks_outside_their_piece_have_no_ranges() {
        let layout = StorageLayout::new(&[(100, false)], 64).unwrap();
        assert_eq!(layout.piece_length_of(PieceIndex(1)), 36);
        let piece = PieceIndex;
        for (index, begin, length) in [
            (0, 0, 0),
            (0, 64, 1),
            (0, 63, 2),
            (0, u32::MAX, 1),
            (0, 1, u32::MAX),
            (1, 0, 37),
            (1, 36, 1),
            (2, 0, 1),
            (u32::MAX, 0, 1),
        ] {
            assert!(!layout.contains_block(piece(index), begin, length));
            assert_eq!(layout.block_ranges(piece(index), begin, length).count(), 0);
        }
        assert!(layout.contains_block(piece(1), 35, 1));
    }

    #[test]
    fn hostile_sizes_are_refused() {
        let refused = |files: &[(u64, bool)], piece_length| {
            StorageLayout::new(files, piece_length).unwrap_err()
        };
        assert_eq!(
            refused(&[(1, false)], 0),
            LayoutError::PieceLength { piece_length: 0 }
        );
        assert_eq!(
            refused(&[(1, false)], u32::MAX),
            LayoutError::PieceLength {
                piece_length: u32::MAX
            }
        );
        assert_eq!(
            refused(&[(u64::MAX, false), (1, false)], 16),
            LayoutError::TotalLength { file: 1 }
        );
        assert_eq!(
            refused(&[(u64::MAX, false)], 1),
            LayoutError::PieceCount { pieces: u64::MAX }
        );
        let pieces = u64::from(limits::PIECES_MAX);
        assert_eq!(
            refused(&[(pieces + 1, false)], 1),
            LayoutError::PieceCount { pieces: pieces + 1 }
        );
        assert_eq!(
            StorageLayout::new(&[(pieces, false)], 1)
                .unwrap()
                .piece_count(),
            limits::PIECES_MAX
        );
    }

    #[test]
    fn a_torrent_of_empty_files_has_no_pieces() {
        for files in [&[][..], &[(0, false), (0, false)]] {
            let layout = StorageLayout::new(files, 16).unwrap();
            assert_eq!((layout.total_length(), layout.piece_count()), (0, 0));
            assert_eq!(layout.piece_length_of(PieceIndex(0)), 0);
            assert_eq!(layout.piece_ranges(PieceIndex(0)).count(), 0);
            assert_eq!(layout.pieces_of_file(FileIndex(0)), 0..0);
        }
    }

    #[test]
    fn the_largest_content_is_addressed_without_overflow() {
        let length = u64::from(limits::PIECES_MAX) * u64::from(limits::PIECE_LENGTH_MAX);
        let layout =
            StorageLayout::new(&[(length - 1, false), (1, false)], limits::PIECE_LENGTH_MAX)
                .unwrap();
        let last = PieceIndex(limits::PIECES_MAX - 1);
        assert_eq!(layout.piece_length_of(last), limits::PIECE_LENGTH_MAX);
        let ranges: Vec<_> = layout
            .block_ranges(last, limits::PIECE_LENGTH_MAX - 2, 2)
            .collect();
        assert_eq!(
            ranges,
            [
                FileRange {
                    file: Some(FileIndex(0)),
                    offset: length - 2,
                    length: 1
                },
                FileRange {
                    file: Some(FileIndex(1)),
                    offset: 0,
                    length: 1
                },
            ]
        );
    }

    #[test]
    fn stamps_tell_content_from_attributes() {
        let stamp = FileStamp {
            device: 1,
            inode: 2,
            size: 3,
            mtime_ns: 4,
            ctime_ns: 5,
        };
        assert!(!stamp.differs_from(&stamp));
        let touched = FileStamp {
            ctime_ns: 6,
            ..stamp
        };
        assert!(stamp.differs_from(&touched) && !stamp.content_differs_from(&touched));
        for changed in [
            FileStamp { device: 9, ..stamp },
            FileStamp { inode: 9, ..stamp },
            FileStamp { size: 9, ..stamp },
            FileStamp {
                mtime_ns: 9,
                ..stamp
            },
        ] {
            assert!(stamp.differs_from(&changed) && stamp.content_differs_from(&changed));
        }
        assert_eq!(FileStamp::nanoseconds(2, 3), 2_000_000_003);
        assert_eq!(FileStamp::nanoseconds(-1, 1), -999_999_999);
        assert_eq!(FileStamp::nanoseconds(i64::MAX, 1), i64::MAX);
    }

    proptest! {
        #[test]
        fn every_block_is_the_bytes_of_the_naive_map(
            files in proptest::collection::vec((0_u64..40, any::<bool>()), 0..20),
            piece_length in 1_u32..50,
            blocks in proptest::collection::vec((0_u32..60, 0_u32..60, 0_u32..60), 1..40),
        ) {
            let layout = StorageLayout::new(&files, piece_length).unwrap();
            let map = byte_map(&files);
            prop_assert_eq!(layout.total_length(), map.len() as u64);
            let lengths: u64 = (0..layout.piece_count())
                .map(|piece| u64::from(layout.piece_length_of(PieceIndex(piece))))
                .sum();
            prop_assert_eq!(lengths, map.len() as u64);
            for (piece, begin, length) in blocks {
                let ranges: Vec<_> =
                    layout.block_ranges(PieceIndex(piece), begin, length).collect();
                let start = piece as usize * piece_length as usize + begin as usize;
                let end = start + length as usize;
                let inside = length > 0 && begin + length <= piece_length && end <= map.len();
                prop_assert_eq!(layout.contains_block(PieceIndex(piece), begin, length), inside);
                if !inside {
                    prop_assert!(ranges.is_empty());
                    continue;
                }
                let mut bytes = Vec::new();
                for range in &ranges {
                    prop_assert!(range.length > 0);
                    bytes.extend((0..u64::from(range.length)).map(|i| (range.file, range.offset + i)));
                }
                let expected: Vec<_> = map[start..end]
                    .iter()
                    .map(|&(file, offset, pad)| ((!pad).then_some(FileIndex(file)), offset))
                    .collect();
                prop_assert_eq!(bytes, expected);
            }
        }

        #[test]
        fn the_pieces_of_a_file_are_those_that_hold_its_bytes(
            files in proptest::collection::vec((0_u64..40, any::<bool>()), 0..20),
            piece_length in 1_u32..50,
        ) {
            let layout = StorageLayout::new(&files, piece_length).unwrap();
            let map = byte_map(&files);
            for (file, &(length, _)) in (0_u32..).zip(&files) {
                let first = map.iter().position(|byte| byte.0 == file);
                let last = map.iter().rposition(|byte| byte.0 == file);
                let expected = match (first, last) {
                    (Some(first), Some(last)) => {
                        first as u32 / piece_length..last as u32 / piece_length + 1
                    }
                    _ => 0..0,
                };
                prop_assert_eq!(layout.pieces_of_file(FileIndex(file)), expected);
                prop_assert_eq!(layout.file_length(FileIndex(file)), length);
            }
        }
    }
}
