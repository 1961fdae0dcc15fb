//! What a hashing thread is about to hash, planned and read ahead.
//!
//! A *batch* is up to as many pieces as there are lanes; a *round* is the next stretch of every
//! piece of a batch, at most [`STRETCH_BYTES`] each. Rounds are planned in the order in which they
//! are hashed. Of each range it is asked then whether it is in memory: if so it is left to be read
//! when it is hashed, and else the reader is told to bring it, so that by the time a round is
//! hashed the next ones are on their way.
//!
//! Memory: the reader's, up to [`AHEAD_BYTES`] or the thread's share of what the disk allows, and a
//! little for alignment ([`memory_bytes_max`]); taken with the first range that is not in memory.
//! Does not: read what is in memory, hash, or judge a read that failed.

use super::disk::{ALIGNMENT_BYTES, DiskReader, ReadId, Way};
use super::file::OpenFile;
use super::{FileFault, HashJob};
use engine::layout::{BlockRanges, FileIndex, FileRange};
use hash::LANES_MAX;
use proto::ids::PieceIndex;
use std::collections::VecDeque;
use std::rc::Rc;

/// The most bytes of one piece in one round.
const STRETCH_BYTES: usize = 1 << 20;

/// How much is planned ahead of what is being hashed, in bytes: enough reads under way to keep a
/// fast disk busy.
const AHEAD_BYTES: usize = 32 << 20;

/// The most rounds planned ahead, for pieces so small that the bytes are no limit.
const ROUNDS_AHEAD_MAX: usize = 64;

/// The most parts that the memory is cut into: a part holds a stretch.
const SLOTS_MAX: usize = 256;

/// A direct read of less than this costs more than it saves.
const DIRECT_BYTES_MIN: usize = 16 << 10;

/// A piece is read in multiples of this, in bytes, where it is longer.
const STRETCH_STEP: usize = 64 << 10;

/// The next stretch of every piece of a batch.
pub(super) struct Round {
    /// The pieces of the batch that begins with this round; empty if one goes on.
    pub(super) begins: Vec<PieceIndex>,
    /// A stretch for each piece of the batch.
    pub(super) stretches: Vec<Stretch>,
    /// Whether the pieces of the batch end with this round.
    pub(super) ends: bool,
}

/// The next bytes of one piece.
#[derive(Default)]
pub(super) struct Stretch {
    pub(super) segments: VecDeque<Segment>,
    /// Bytes to hash in all segments together.
    pub(super) length: usize,
    /// The part of the reader's memory that the segments are read to, if any is.
    slot: Option<usize>,
}

/// A run of bytes of a piece from one source.
pub(super) struct Segment {
    pub(super) length: usize,
    pub(super) source: Source,
}

/// Where bytes come from.
pub(super) enum Source {
    /// Padding.
    Zeros,
    /// A file that is read when they are hashed.
    Ordinary { file: Rc<OpenFile>, offset: u64 },
    /// The reader's memory.
    Ahead {
        file: Rc<OpenFile>,
        offset: u64,
        /// The read that brings them, until it was waited for.
        read: Option<ReadId>,
        /// How many bytes it brings before the first of ours.
        lead: usize,
        /// Where the first of ours is.
        place: usize,
    },
    /// Nowhere: the file at fault, and what is wrong.
    Fault(FileIndex, FileFault),
}

/// Plans the rounds of one hashing thread.
pub(super) struct Planner<'a> {
    job: &'a HashJob<'a>,
    lanes: usize,
    stretch_bytes: usize,
    slot_bytes: usize,
    ahead_bytes: usize,
    batch: Option<Batch<'a>>,
    rounds: VecDeque<Round>,
    /// Bytes in `rounds`.
    planned: usize,
    memory: Memory,
    /// The file that was opened last, for the next lane or piece that lies in it.
    recent: Option<Rc<OpenFile>>,
}

/// The pieces that are being planned.
struct Batch<'a> {
    /// Until the first round of the batch has them.
    pieces: Vec<PieceIndex>,
    lanes: Vec<Lane<'a>>,
}

/// One piece that is being planned.
struct Lane<'a> {
    ranges: BlockRanges<'a>,
    /// What is left of the range that the last stretch ended in.
    range: Option<FileRange>,
    /// Bytes that are not planned yet.
    left: usize,
}

/// The reader's memory.
enum Memory {
    /// Not asked for yet.
    Unasked,
    /// There is none.
    None,
    /// The parts of it that no stretch has.
    Free(Vec<usize>),
}

impl<'a> Planner<'a> {
    /// For one of `threads` threads, with `lanes` lanes.
    pub(super) fn new(job: &'a HashJob<'a>, lanes: usize, threads: usize) -> Planner<'a> {
        let piece_bytes = job.layout.piece_length() as usize;
        let ahead_bytes = AHEAD_BYTES.min(job.disk.limits().ahead_bytes_max / threads);
        // One round is hashed while another is read.
        let share = ahead_bytes / (2 * lanes) / STRETCH_STEP * STRETCH_STEP;
        let stretch_bytes = share.clamp(STRETCH_STEP, STRETCH_BYTES).min(piece_bytes);
        Planner {
            job,
            lanes,
            stretch_bytes,
            slot_bytes: slot_bytes(stretch_bytes),
            ahead_bytes,
            batch: None,
            rounds: VecDeque::new(),
            planned: 0,
            memory: Memory::Unasked,
            recent: None,
        }
    }

    /// The next round to hash. Plans as many after it as there is room for, with pieces from
    /// `take`.
    pub(super) fn next(
        &mut self,
        reader: &mut dyn DiskReader,
        mut take: impl FnMut(usize) -> Vec<PieceIndex>,
    ) -> Option<Round> {
        while self.rounds.is_empty() || self.has_room() {
            if self.batch.is_none() {
                let pieces = take(self.lanes);
                if pieces.is_empty() {
                    break;
                }
                self.batch = Some(Batch::new(self.job, pieces));
            }
            self.plan_round(reader);
            reader.submit();
        }
        let round = self.rounds.pop_front()?;
        self.planned -= round.bytes();
        Some(round)
    }

    /// Takes back the memory of a round that was hashed.
    pub(super) fn free(&mut self, round: Round) {
        if let Memory::Free(slots) = &mut self.memory {
            slots.extend(
                round
                    .stretches
                    .into_iter()
                    .filter_map(|stretch| stretch.slot),
            );
        }
    }

    /// Whether another round may be planned beside those that wait.
    fn has_room(&self) -> bool {
        let has_memory = match &self.memory {
            Memory::Unasked | Memory::None => true,
            Memory::Free(slots) => slots.len() >= self.lanes,
        };
        has_memory && self.planned < self.ahead_bytes && self.rounds.len() < ROUNDS_AHEAD_MAX
    }

    /// Plans the next round of the batch.
    fn plan_round(&mut self, reader: &mut dyn DiskReader) {
        let Some(mut batch) = self.batch.take() else {
            return;
        };
        let lanes = batch.lanes.iter_mut();
        let round = Round {
            stretches: lanes.map(|lane| self.plan_stretch(lane, reader)).collect(),
            begins: std::mem::take(&mut batch.pieces),
            ends: batch.lanes.iter().all(|lane| lane.left == 0),
        };
        if !round.ends {
            self.batch = Some(batch);
        }
        self.planned += round.bytes();
        self.rounds.push_back(round);
    }

    fn plan_stretch(&mut self, lane: &mut Lane<'_>, reader: &mut dyn DiskReader) -> Stretch {
        let mut stretch = Stretch::default();
        let mut used = 0;
        while stretch.length < self.stretch_bytes {
            let Some(range) = lane.range.take().or_else(|| lane.ranges.next()) else {
                break;
            };
            let length = (range.length as usize).min(self.stretch_bytes - stretch.length);
            let source = match range.file {
                None => Some(Source::Zeros),
                Some(file) => match self.open(file) {
                    Ok(open) => {
                        self.source(&open, range.offset, length, &mut stretch, &mut used, reader)
                    }
                    Err(fault) => {
                        let source = Source::Fault(file, fault);
                        stretch.segments.push_back(Segment { length: 0, source });
                        lane.left = 0;
                        return stretch;
                    }
                },
            };
            let Some(source) = source else {
                lane.range = Some(range);
                break;
            };
            stretch.segments.push_back(Segment { length, source });
            stretch.length += length;
            lane.left -= length;
            let left = range.length - length as u32;
            lane.range = (left > 0).then_some(FileRange {
                offset: range.offset + length as u64,
                length: left,
                ..range
            });
        }
        stretch
    }

    /// Opens the file, if it is not the one that was opened last.
    fn open(&mut self, file: FileIndex) -> Result<Rc<OpenFile>, FileFault> {
        if let Some(recent) = self.recent.as_ref().filter(|recent| recent.index == file) {
            return Ok(Rc::clone(recent));
        }
        self.recent = None;
        let open = Rc::new(OpenFile::open(self.job, file)?);
        self.recent = Some(Rc::clone(&open));
        Ok(open)
    }

    /// How `length` bytes from `offset` of `file` will be had. `None` if the slot of `stretch`, of
    /// which `used` bytes are in use, has no room for them.
    fn source(
        &mut self,
        file: &Rc<OpenFile>,
        offset: u64,
        length: usize,
        stretch: &mut Stretch,
        used: &mut usize,
        reader: &mut dyn DiskReader,
    ) -> Option<Source> {
        let ordinary = Source::Ordinary {
            file: Rc::clone(file),
            offset,
        };
        if reader.is_resident(&file.file, offset, length as u64) {
            return Some(ordinary);
        }
        let Some(slot) = stretch.slot.or_else(|| self.take_slot(reader)) else {
            reader.expect(&file.file, offset, length as u64);
            return Some(ordinary);
        };
        stretch.slot = Some(slot);
        let direct = (length >= DIRECT_BYTES_MIN)
            .then(|| file.direct(self.job))
            .flatten();
        let (handle, way, alignment) = match direct {
            Some(direct) => (direct, Way::Direct, ALIGNMENT_BYTES),
            None => (&file.file, Way::Passing, 1),
        };
        let lead = (offset % alignment as u64) as usize;
        let start = used.next_multiple_of(alignment);
        let end = start + (lead + length).next_multiple_of(alignment);
        if end > self.slot_bytes {
            return None;
        }
        let base = slot * self.slot_bytes;
        let places = base + start..base + end;
        match reader.start(handle, offset - lead as u64, places, way) {
            Some(read) => {
                *used = end;
                Some(Source::Ahead {
                    file: Rc::clone(file),
                    offset,
                    read: Some(read),
                    lead,
                    place: base + start + lead,
                })
            }
            None => {
                reader.expect(&file.file, offset, length as u64);
                Some(ordinary)
            }
        }
    }

    /// A part of the reader's memory; `None` if there is none on this system.
    fn take_slot(&mut self, reader: &mut dyn DiskReader) -> Option<usize> {
        if let Memory::Unasked = self.memory {
            let slots = (self.ahead_bytes / self.stretch_bytes).clamp(2 * self.lanes, SLOTS_MAX);
            let bytes = slots * self.slot_bytes;
            assert!(
                bytes <= memory_bytes_max(self.ahead_bytes),
                "the memory that was promised"
            );
            self.memory = if reader.make_memory(bytes) {
                Memory::Free((0..slots).rev().collect())
            } else {
                Memory::None
            };
        }
        match &mut self.memory {
            Memory::Free(slots) => slots.pop(),
            Memory::Unasked | Memory::None => None,
        }
    }
}

/// The memory of a thread that may read `ahead_bytes` ahead, in bytes: for any length of pieces and
/// any number of lanes.
pub(super) fn memory_bytes_max(ahead_bytes: usize) -> usize {
    // Of the shortest stretches that are cut from it, each lane has two all the same.
    let stretches = ahead_bytes.clamp(2 * LANES_MAX * STRETCH_STEP, AHEAD_BYTES);
    stretches + stretches / 8 + SLOTS_MAX * 3 * ALIGNMENT_BYTES
}

/// How much memory a stretch is given: with some room for reads that begin and end at the blocks of
/// the disk.
fn slot_bytes(stretch_bytes: usize) -> usize {
    let slack = stretch_bytes / 8 + 2 * ALIGNMENT_BYTES;
    (stretch_bytes + slack).next_multiple_of(ALIGNMENT_BYTES)
}

impl<'a> Batch<'a> {
    fn new(job: &'a HashJob<'a>, pieces: Vec<PieceIndex>) -> Batch<'a> {
        let lane = |&piece| Lane {
            ranges: job.layout.piece_ranges(piece),
            range: None,
            left: job.layout.piece_length_of(piece) as usize,
        };
        Batch {
            lanes: pieces.iter().map(lane).collect(),
            pieces,
        }
    }
}

impl Round {
    /// Bytes to hash in all stretches together.
    fn bytes(&self) -> usize {
        self.stretches.iter().map(|stretch| stretch.length).sum()
    }
}
