//! Blocks that a peer will send next if it answers in the order of the requests, as most do: they
//! are received straight into their places, their headers beside, which saves the copy out of the
//! buffer that all connections share.
//!
//! Nothing relies on it: what came is looked at header by header, and from the first that is
//! another on, the bytes are gathered and decoded as any others ([`Foreseen::gather`]). Their
//! places are as good as empty then.
//!
//! Limits: [`FORESEEN_MAX`] blocks at a time.

use crate::fetch::pieces::OpenPieces;
use crate::sockets::RECEIVE_TARGETS_MAX;
use proto::limits::BLOCK_LENGTH;
use proto::wire::{BlockRequest, PIECE_HEADER_BYTES};

/// Blocks foreseen at a time: 256 KiB of payload.
const FORESEEN_MAX: usize = 16;

// Each is a header and a place; one target more is the rest of the block that is coming.
const _: () = assert!(2 * FORESEEN_MAX < RECEIVE_TARGETS_MAX);

/// After how many receives foreseeing is tried again at first and at most, once it was wrong.
const PAUSE_MIN: u32 = 4;
const PAUSE_MAX: u32 = 256;

/// Whether a peer answers in order.
#[derive(Debug)]
pub(super) struct Foresight {
    pause: u32,
    next_pause: u32,
    /// What the last receive brought, in bytes.
    received: usize,
}

impl Default for Foresight {
    fn default() -> Foresight {
        Foresight {
            pause: 0,
            next_pause: PAUSE_MIN,
            received: 0,
        }
    }
}

impl Foresight {
    /// Whether to foresee what the next receive brings.
    pub(super) fn is_worth_it(&mut self) -> bool {
        let is_worth_it = self.pause == 0;
        self.pause = self.pause.saturating_sub(1);
        is_worth_it
    }

    /// Notes what a receive brought, in bytes.
    pub(super) fn set_received(&mut self, bytes: usize) {
        self.received = bytes;
    }

    /// How many blocks the next receive may bring: twice as much as the last. To find more places
    /// would be for nothing.
    pub(super) fn blocks(&self) -> usize {
        let blocks = 2 * self.received / BLOCK_LENGTH as usize;
        (2 + blocks).min(FORESEEN_MAX)
    }

    /// All came as foreseen.
    pub(super) fn was_right(&mut self) {
        self.next_pause = PAUSE_MIN;
    }

    /// Something else came.
    pub(super) fn was_wrong(&mut self) {
        self.pause = self.next_pause;
        self.next_pause = (2 * self.next_pause).min(PAUSE_MAX);
    }
}

/// Where the blocks of one receive are to come.
#[derive(Default)]
pub(super) struct Foreseen {
    blocks: Vec<(BlockRequest, *mut u8)>,
    headers: [[u8; PIECE_HEADER_BYTES]; FORESEEN_MAX],
}

impl Foreseen {
    /// Adds a block and its place. False if there is no room for more behind it.
    pub(super) fn add(&mut self, block: BlockRequest, place: *mut u8) -> bool {
        if self.blocks.is_empty() {
            self.blocks.reserve_exact(FORESEEN_MAX);
        }
        self.blocks.push((block, place));
        self.blocks.len() < FORESEEN_MAX
    }

    /// Whether no more blocks are foreseen for want of room.
    pub(super) fn is_full(&self) -> bool {
        self.blocks.len() == FORESEEN_MAX
    }

    /// Where what comes is received: for each block its header's place and its own.
    pub(super) fn targets(&mut self) -> impl Iterator<Item = (*mut u8, usize)> {
        let headers = self.headers.iter_mut();
        self.blocks
            .iter()
            .zip(headers)
            .flat_map(|(&(block, place), header)| {
                [
                    (header.as_mut_ptr(), PIECE_HEADER_BYTES),
                    (place, block.length as usize),
                ]
            })
    }

    /// The bytes of all targets.
    pub(super) fn bytes(&self) -> usize {
        let bytes = |block: &BlockRequest| PIECE_HEADER_BYTES + block.length as usize;
        self.blocks.iter().map(|(block, _)| bytes(block)).sum()
    }

    /// The blocks, and what came where the header of each should be.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (BlockRequest, &[u8; PIECE_HEADER_BYTES])> {
        let blocks = self.blocks.iter().map(|&(block, _)| block);
        blocks.zip(&self.headers)
    }

    /// The bytes from `from` to `to` of what came into the targets, in one piece.
    pub(super) fn gather(&self, open: &OpenPieces, from: usize, to: usize) -> Vec<u8> {
        let mut gathered = Vec::with_capacity(to.saturating_sub(from));
        let mut at = 0;
        let mut take = |bytes: &[u8]| {
            let start = from.saturating_sub(at).min(bytes.len());
            let end = to.saturating_sub(at).min(bytes.len());
            gathered.extend_from_slice(bytes.get(start..end).unwrap_or_default());
            at += bytes.len();
        };
        for (block, header) in self.blocks() {
            take(header);
            take(
                open.bytes_at(block, block.length as usize)
                    .unwrap_or_default(),
            );
        }
        gathered
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::memory::{MemoryBudget, SegmentPool};
    use proto::ids::PieceIndex;
    use proto::wire;

    const PIECE: u32 = 4 * BLOCK_LENGTH;

    #[test]
    fn what_came_is_gathered_from_any_byte_to_any_other() {
        let pool = SegmentPool::new(MemoryBudget::new(4 * PIECE as usize));
        let mut open = OpenPieces::new(PIECE);
        let mut foreseen = Foreseen::default();
        let mut stream = Vec::new();
        for number in [2, 0, 3] {
            let block = BlockRequest {
                piece: PieceIndex(0),
                begin: number * BLOCK_LENGTH,
                length: BLOCK_LENGTH,
            };
            let place = open.spare_place(block, PIECE, &pool).unwrap();
            assert!(foreseen.add(block, place));
            stream.extend(wire::piece_header(block.piece, block.begin, block.length));
            stream.extend((0..BLOCK_LENGTH).map(|at| (at % 251 + number) as u8));
        }
        assert_eq!(foreseen.bytes(), stream.len());
        let mut rest = &stream[..];
        for (target, length) in foreseen.targets() {
            let (bytes, later) = rest.split_at(length);
            // SAFETY: the targets are valid: the pieces were not changed since.
            unsafe { target.copy_from_nonoverlapping(bytes.as_ptr(), length) };
            rest = later;
        }
        let message = PIECE_HEADER_BYTES + BLOCK_LENGTH as usize;
        let ends = [
            0,
            1,
            13,
            14,
            message,
            message + 5,
            2 * message + 13,
            3 * message,
        ];
        for from in ends {
            for to in ends.into_iter().filter(|&to| to >= from) {
                assert_eq!(foreseen.gather(&open, from, to), stream[from..to]);
            }
        }
    }

    #[test]
    fn a_place_that_somebody_fills_is_not_spare() {
        let pool = SegmentPool::new(MemoryBudget::new(2 * PIECE as usize));
        let mut open = OpenPieces::new(PIECE);
        let block = |number: u32| BlockRequest {
            piece: PieceIndex(0),
            begin: number * BLOCK_LENGTH,
            length: BLOCK_LENGTH,
        };
        assert!(open.spare_place(block(0), PIECE, &pool).is_some());
        open.claim(block(0), engine::choker::PeerKey(1));
        assert!(open.spare_place(block(0), PIECE, &pool).is_none());
        open.set_here(block(1));
        assert!(open.spare_place(block(1), PIECE, &pool).is_none());
        // No memory is taken for a guess but out of plenty.
        let other = BlockRequest {
            piece: PieceIndex(1),
            ..block(0)
        };
        assert!(open.spare_place(other, PIECE, &pool).is_some());
        let third = BlockRequest {
            piece: PieceIndex(2),
            ..block(0)
        };
        assert!(open.spare_place(third, PIECE, &pool).is_none());
    }

    #[test]
    fn who_answers_otherwise_is_foreseen_ever_less() {
        let mut foresight = Foresight::default();
        let mut tries = 0;
        for _ in 0..1_000 {
            if foresight.is_worth_it() {
                tries += 1;
                foresight.was_wrong();
            }
        }
        assert!((8..12).contains(&tries), "{tries}");
    }
}
