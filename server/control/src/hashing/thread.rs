//! A hashing thread: takes planned rounds, brings the slices of all lanes together, and hashes them
//! side by side.
//!
//! What is in memory is read here, in slices that stay in the core's cache until they are hashed.
//! What was read ahead is hashed where it lies.
//!
//! Memory: [`BUFFER_BYTES`] of slices, and what [`super::ahead`] takes.

use super::ahead::{Planner, Round, Segment, Source, Stretch};
use super::disk::DiskReader;
use super::file::OpenFile;
use super::{FileFault, Shared};
use engine::layout::FileIndex;
use hash::{LANES_MAX, Sha1, Sha1Digest};
use proto::ids::PieceIndex;
use std::ops::Range;
use std::rc::Rc;
use std::sync::atomic::Ordering;

/// The slices of one thread together, in bytes: what fits a core's cache.
const BUFFER_BYTES: usize = 1 << 20;

/// One lane's slice is never longer than this, in bytes: more gains nothing.
const SLICE_BYTES_MAX: usize = 128 << 10;

/// The usual size of a page, in bytes.
const PAGE_BYTES: usize = 4096;

/// How far the slices of two lanes lie apart in their pages, in bytes.
const LANE_SHIFT: usize = 512;

/// The most memory of a thread that may read `ahead_bytes` ahead, in bytes.
pub(super) fn memory_bytes_max(ahead_bytes: usize) -> usize {
    BUFFER_BYTES + super::ahead::memory_bytes_max(ahead_bytes)
}

/// A hashing thread: its buffers and its streams.
pub(super) struct HashingThread<'a> {
    shared: &'a Shared<'a>,
    reader: Box<dyn DiskReader>,
    planner: Planner<'a>,
    slice_bytes: usize,
    buffers: Vec<SliceBuffer>,
    streams: Vec<Sha1>,
    /// The pieces of the batch that is being hashed.
    lanes: Vec<Lane>,
}

/// One piece on its way through a hashing thread.
struct Lane {
    piece: PieceIndex,
    /// The file that its bytes come from at the moment.
    open: Option<Rc<OpenFile>>,
    /// The first thing that went wrong; the rest of the piece is then not read.
    fault: Option<(FileIndex, FileFault)>,
    /// Bytes of the piece that do not count as done yet.
    left: usize,
}

/// Memory for a lane's slice. It lies in its page where no processor copies slowly: some do at a fifth of their speed, to
/// an address whose place in its page is a little higher than the source's in its own, and the allocator's memory begins
/// 16 bytes into a page. And lanes lie apart in their pages, because a level-1 cache holds few lines of one place.
#[derive(Default)]
struct SliceBuffer {
    memory: Vec<u8>,
    start: usize,
}

impl SliceBuffer {
    /// Room for `length` bytes of this lane.
    fn new(length: usize, lane: usize) -> SliceBuffer {
        let place = lane * LANE_SHIFT % PAGE_BYTES;
        let memory = vec![0; length + PAGE_BYTES - 1 + place];
        let start = memory.as_ptr().addr().wrapping_neg() % PAGE_BYTES + place;
        SliceBuffer { memory, start }
    }

    /// The first `length` bytes.
    fn bytes(&self, length: usize) -> &[u8] {
        &self.memory[self.start..self.start + length]
    }

    /// `length` bytes from `from` on.
    fn part_mut(&mut self, from: usize, length: usize) -> &mut [u8] {
        let from = self.start + from;
        &mut self.memory[from..from + length]
    }
}

/// Where the next slice of a lane is.
enum Slice {
    None,
    /// At the start of the lane's buffer.
    Buffer(usize),
    /// In the reader's memory.
    Memory(Range<usize>),
}

impl<'a> HashingThread<'a> {
    pub(super) fn new(shared: &'a Shared<'a>, lanes: usize, threads: usize) -> Self {
        // A multiple of 64, the block of SHA-1, so that lanes stay in step.
        let slice_bytes = (BUFFER_BYTES / lanes).min(SLICE_BYTES_MAX) / 64 * 64;
        let slice_bytes = slice_bytes.min(shared.job.layout.piece_length() as usize);
        HashingThread {
            shared,
            reader: shared.job.disk.reader(),
            planner: Planner::new(shared.job, lanes, threads),
            slice_bytes,
            buffers: (0..lanes)
                .map(|lane| SliceBuffer::new(slice_bytes, lane))
                .collect(),
            streams: vec![Sha1::new(); lanes],
            lanes: Vec::new(),
        }
    }

    pub(super) fn run(&mut self) {
        let shared = self.shared;
        while !shared.is_stopped() {
            let take = |count| shared.take(count);
            let Some(mut round) = self.planner.next(&mut *self.reader, take) else {
                return;
            };
            self.hash(&mut round);
            self.planner.free(round);
        }
    }

    /// Hashes one round, and hands the results out if its pieces end with it.
    fn hash(&mut self, round: &mut Round) {
        if !round.begins.is_empty() {
            let lane = |&piece| Lane {
                piece,
                open: None,
                fault: None,
                left: self.shared.job.layout.piece_length_of(piece) as usize,
            };
            self.lanes = round.begins.iter().map(lane).collect();
        }
        for (index, stretch) in round.stretches.iter_mut().enumerate() {
            self.pass_over_faults(index, stretch);
        }
        while let Some(length) = self.step(&round.stretches) {
            if self.shared.is_stopped() {
                return;
            }
            let mut slices = [const { Slice::None }; LANES_MAX];
            for (index, stretch) in round.stretches.iter_mut().enumerate() {
                if stretch.length > 0 {
                    slices[index] = self.slice(index, stretch, length);
                }
            }
            self.update(&slices);
            for (index, stretch) in round.stretches.iter_mut().enumerate() {
                self.pass_over_faults(index, stretch);
            }
        }
        if round.ends {
            self.hand_out();
        }
    }

    /// How many bytes of every lane that has some left are hashed next: as many of each, so that no
    /// lane waits for another.
    fn step(&self, stretches: &[Stretch]) -> Option<usize> {
        let left = stretches.iter().map(|stretch| stretch.length);
        let least = left.filter(|&left| left > 0).min()?;
        Some(least.min(self.slice_bytes))
    }

    /// Feeds the slices to the streams.
    fn update(&mut self, slices: &[Slice; LANES_MAX]) {
        let mut bytes: [&[u8]; LANES_MAX] = [&[]; LANES_MAX];
        let mut count = 0;
        for (index, slice) in slices.iter().enumerate().take(self.lanes.len()) {
            bytes[index] = match slice {
                Slice::None => &[],
                Slice::Buffer(length) => self.buffers[index].bytes(*length),
                Slice::Memory(range) => self.reader.bytes(range.clone()),
            };
            self.lanes[index].left -= bytes[index].len();
            count += bytes[index].len();
        }
        let lanes = self.lanes.len();
        Sha1::update_many(&mut self.streams[..lanes], &bytes[..lanes]);
        self.shared.count(count);
    }

    /// Takes the next `length` bytes off the stretch of lane `index`.
    fn slice(&mut self, index: usize, stretch: &mut Stretch, length: usize) -> Slice {
        if let Some(segment) = stretch.segments.front_mut() {
            self.receive(segment);
            if let Source::Ahead { file, place, .. } = &segment.source
                && segment.length >= length
            {
                let slice = Slice::Memory(*place..*place + length);
                let file = Rc::clone(file);
                self.enter_file(index, &file);
                stretch.advance(length);
                return slice;
            }
        }
        let mut buffer = std::mem::take(&mut self.buffers[index]);
        let mut filled = 0;
        while filled < length {
            let Some(segment) = stretch.segments.front_mut() else {
                break;
            };
            self.receive(segment);
            let part = segment.length.min(length - filled);
            let read = self.copy(index, segment, buffer.part_mut(filled, part));
            if let Err(fault) = read {
                self.lanes[index].fault.get_or_insert(fault);
                break;
            }
            stretch.advance(part);
            filled += part;
        }
        self.buffers[index] = buffer;
        if self.lanes[index].fault.is_some() {
            return Slice::None;
        }
        Slice::Buffer(filled)
    }

    /// Waits for the read that brings a segment. One that failed is done again in the ordinary way,
    /// which tells what is wrong.
    fn receive(&mut self, segment: &mut Segment) {
        let Source::Ahead {
            file,
            offset,
            read,
            lead,
            ..
        } = &mut segment.source
        else {
            return;
        };
        let Some(read) = read.take() else { return };
        let received = self.reader.wait(read);
        if !received.is_ok_and(|count| count >= *lead + segment.length) {
            segment.source = Source::Ordinary {
                file: Rc::clone(file),
                offset: *offset,
            };
        }
    }

    /// Fills `buffer` from the start of a segment.
    fn copy(
        &mut self,
        index: usize,
        segment: &Segment,
        buffer: &mut [u8],
    ) -> Result<(), (FileIndex, FileFault)> {
        match &segment.source {
            Source::Zeros => buffer.fill(0),
            Source::Ordinary { file, offset } => {
                self.enter_file(index, file);
                file.read(buffer, *offset)
                    .map_err(|fault| (file.index, fault))?;
            }
            Source::Ahead { file, place, .. } => {
                self.enter_file(index, file);
                buffer.copy_from_slice(self.reader.bytes(*place..*place + buffer.len()));
            }
            // Faults are passed over before anything is asked of them.
            Source::Fault(..) => {}
        }
        Ok(())
    }

    /// Notes a fault that a lane has come to. The rest of a piece with a fault is not read; what is
    /// on its way is waited for, because it has the memory until then.
    fn pass_over_faults(&mut self, index: usize, stretch: &mut Stretch) {
        let at_fault = |segment: &mut Segment| matches!(segment.source, Source::Fault(..));
        if stretch.segments.front_mut().is_some_and(at_fault)
            && let Some(segment) = stretch.segments.pop_front()
            && let Source::Fault(file, fault) = segment.source
        {
            self.lanes[index].fault.get_or_insert((file, fault));
        }
        if self.lanes[index].fault.is_none() {
            return;
        }
        while let Some(mut segment) = stretch.segments.pop_front() {
            self.receive(&mut segment);
        }
        stretch.length = 0;
        let left = std::mem::take(&mut self.lanes[index].left);
        self.shared.count(left);
    }

    /// Ends the pieces of the batch and hands their results out.
    fn hand_out(&mut self) {
        let mut digests: [Sha1Digest; LANES_MAX] = [[0; 20]; LANES_MAX];
        let count = self.lanes.len();
        Sha1::finish_many(&mut self.streams[..count], &mut digests[..count]);
        for (index, digest) in digests.into_iter().enumerate().take(count) {
            self.leave_file(index);
            let lane = &mut self.lanes[index];
            let result = lane.fault.take().map_or(Ok(digest), Err);
            if (self.shared.on_piece)(lane.piece, result).is_break() {
                self.shared.stop();
                return;
            }
        }
    }

    /// Notes that a lane's bytes come from `file` now.
    fn enter_file(&mut self, index: usize, file: &Rc<OpenFile>) {
        let open = self.lanes[index].open.as_ref();
        if open.is_none_or(|open| open.index != file.index) {
            self.leave_file(index);
            self.lanes[index].open = Some(Rc::clone(file));
            let current = &self.shared.current_file;
            current.store(file.index.0, Ordering::Relaxed);
        }
    }

    /// Checks, when a lane has all that it needs of a file, that the file did not change meanwhile.
    fn leave_file(&mut self, index: usize) {
        let lane = &mut self.lanes[index];
        let Some(open) = lane.open.take() else { return };
        if let (Err(fault), None) = (open.check(), &lane.fault) {
            lane.fault = Some((open.index, fault));
        }
    }
}

impl Stretch {
    /// Takes `length` bytes off the first segment.
    fn advance(&mut self, length: usize) {
        self.length -= length;
        let Some(segment) = self.segments.front_mut() else {
            return;
        };
        segment.length -= length;
        match &mut segment.source {
            Source::Ordinary { offset, .. } => *offset += length as u64,
            Source::Ahead { offset, place, .. } => {
                *offset += length as u64;
                *place += length;
            }
            Source::Zeros | Source::Fault(..) => {}
        }
        if segment.length == 0 {
            self.segments.pop_front();
        }
    }
}
