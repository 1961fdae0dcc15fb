//! The pieces of one download that have begun to come: where each block's bytes are until the piece
//! is whole.
//!
//! A piece lies in segments of at most [`SEGMENT_BYTES_MAX`]. A segment has memory while blocks
//! come into it; when memory is short, the one used longest ago is written to the disk before its
//! piece is whole, and what comes later gets other memory, so that pieces of any length cost no
//! more than the budget.
//!
//! A block whose first bytes have come is *claimed* by its peer: the rest is received straight into
//! its place. A claim is lost to another peer that brings the block whole, and when the piece is
//! forgotten.
//!
//! Limits: the memory budget; claims, one for each peer.

use crate::fetch::memory::{SEGMENT_BYTES_MAX, Segment, SegmentPool};
use engine::choker::PeerKey;
use proto::ids::PieceIndex;
use proto::limits::BLOCK_LENGTH;
use proto::wire::BlockRequest;
use std::collections::HashMap;

/// A set of blocks of one segment.
pub(crate) type BlockMask = u64;

const BLOCK: usize = BLOCK_LENGTH as usize;

/// A part of a piece.
#[derive(Default)]
pub(crate) struct Part {
    pub(crate) memory: Option<Segment>,
    /// Blocks that are in the memory.
    pub(crate) here: BlockMask,
    /// Blocks that are coming into the memory.
    claimed: BlockMask,
    /// Blocks that are on the disk, or will be when the writes under way have ended.
    pub(crate) written: BlockMask,
    /// When it was last used; grows.
    used: u64,
}

/// A piece of which some blocks are here.
pub(crate) struct OpenPiece {
    pub(crate) parts: Box<[Part]>,
    pub(crate) piece_bytes: usize,
    pub(crate) segment_bytes: usize,
}

impl OpenPiece {
    /// Where part number `index` begins in the piece, and how many bytes it has.
    pub(crate) fn extent(&self, index: usize) -> (usize, usize) {
        let start = index * self.segment_bytes;
        (start, self.segment_bytes.min(self.piece_bytes - start))
    }
}

/// What is to be written so that its memory is free.
pub(crate) struct Spill {
    pub(crate) piece: PieceIndex,
    /// Where the segment begins in its piece, in bytes, and how long it is.
    pub(crate) begin: usize,
    pub(crate) length: usize,
    pub(crate) blocks: BlockMask,
    pub(crate) memory: Segment,
}

/// There is no memory for a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NoMemory;

/// See the module.
pub(crate) struct OpenPieces {
    segment_bytes: usize,
    pieces: HashMap<PieceIndex, OpenPiece>,
    claims: HashMap<BlockRequest, PeerKey>,
    uses: u64,
}

impl OpenPieces {
    /// None yet, of a torrent of such pieces.
    pub(crate) fn new(piece_length: u32) -> OpenPieces {
        OpenPieces {
            segment_bytes: (piece_length as usize).min(SEGMENT_BYTES_MAX),
            pieces: HashMap::new(),
            claims: HashMap::new(),
            uses: 0,
        }
    }

    /// Makes sure that there is memory for a block of a piece of `piece_bytes`, which it lies in.
    pub(crate) fn make_place(
        &mut self,
        block: BlockRequest,
        piece_bytes: u32,
        pool: &SegmentPool,
    ) -> Result<(), NoMemory> {
        let take = |bytes| pool.try_take(bytes);
        self.make_place_with(block, piece_bytes, take)
    }

    fn make_place_with(
        &mut self,
        block: BlockRequest,
        piece_bytes: u32,
        take: impl FnOnce(usize) -> Option<Segment>,
    ) -> Result<(), NoMemory> {
        let segment_bytes = self.segment_bytes;
        let piece_bytes = piece_bytes as usize;
        let piece = self.pieces.entry(block.piece).or_insert_with(|| OpenPiece {
            parts: (0..piece_bytes.div_ceil(segment_bytes))
                .map(|_| Part::default())
                .collect(),
            piece_bytes,
            segment_bytes,
        });
        self.uses += 1;
        let Some(part) = piece.parts.get_mut(block.begin as usize / segment_bytes) else {
            return Err(NoMemory);
        };
        part.used = self.uses;
        if part.memory.is_none() {
            part.memory = Some(take(segment_bytes).ok_or(NoMemory)?);
        }
        Ok(())
    }

    /// A block's place, if nobody is bringing it and there is memory in plenty: for bytes that may
    /// turn out to be others, in which case the place is as good as empty. Valid until these pieces
    /// are next changed, but for further places.
    pub(crate) fn spare_place(
        &mut self,
        block: BlockRequest,
        piece_bytes: u32,
        pool: &SegmentPool,
    ) -> Option<*mut u8> {
        let take = |bytes| pool.try_take_spare(bytes);
        self.make_place_with(block, piece_bytes, take).ok()?;
        let (part, at, bit) = self.locate(block)?;
        if (part.here | part.claimed) & bit != 0 {
            return None;
        }
        part.memory.as_mut()?.target(at, block.length as usize)
    }

    /// The first `length` bytes of a block's place, whatever they are.
    pub(crate) fn bytes_at(&self, block: BlockRequest, length: usize) -> Option<&[u8]> {
        let begin = block.begin as usize;
        let piece = self.pieces.get(&block.piece)?;
        let part = piece.parts.get(begin / self.segment_bytes)?;
        part.memory
            .as_ref()?
            .get(begin % self.segment_bytes, length)
    }

    /// The part that a block lies in, where in it, and its bit there.
    fn locate(&mut self, block: BlockRequest) -> Option<(&mut Part, usize, BlockMask)> {
        let begin = block.begin as usize;
        let piece = self.pieces.get_mut(&block.piece)?;
        let part = piece.parts.get_mut(begin / self.segment_bytes)?;
        let at = begin % self.segment_bytes;
        let bit = 1_u64.checked_shl((at / BLOCK) as u32)?;
        Some((part, at, bit))
    }

    /// Puts `bytes` into a block's place from `done` on. False if there is none.
    pub(crate) fn put(&mut self, block: BlockRequest, done: u32, bytes: &[u8]) -> bool {
        match self.locate(block) {
            Some((part, at, _)) => {
                let memory = part.memory.as_mut();
                memory.is_some_and(|memory| memory.put(at + done as usize, bytes))
            }
            None => false,
        }
    }

    /// Where the bytes of a block from `done` on are to be received: valid until these pieces are
    /// next changed. `None` if `peer` has no claim to it (any more).
    pub(crate) fn target(
        &mut self,
        block: BlockRequest,
        done: u32,
        peer: PeerKey,
    ) -> Option<(*mut u8, usize)> {
        if self.claims.get(&block) != Some(&peer) {
            return None;
        }
        let length = block.length.checked_sub(done)? as usize;
        let (part, at, _) = self.locate(block)?;
        let memory = part.memory.as_mut()?;
        Some((memory.target(at + done as usize, length)?, length))
    }

    /// Notes that `peer` is bringing a block, for which there is a place. Whoever was before has
    /// lost it. Of a block that is here nobody brings anything: what comes of it is dropped.
    pub(crate) fn claim(&mut self, block: BlockRequest, peer: PeerKey) {
        if let Some((part, _, bit)) = self.locate(block)
            && part.here & bit == 0
            && part.memory.is_some()
        {
            part.claimed |= bit;
            self.claims.insert(block, peer);
        }
    }

    /// Ends a claim; false if `peer` has lost it.
    pub(crate) fn end_claim(&mut self, block: BlockRequest, peer: PeerKey) -> bool {
        if self.claims.get(&block) != Some(&peer) {
            return false;
        }
        self.claims.remove(&block);
        if let Some((part, _, bit)) = self.locate(block) {
            part.claimed &= !bit;
        }
        true
    }

    /// Notes that all bytes of a block have been put into its place. Nobody else may bring it any
    /// more.
    pub(crate) fn set_here(&mut self, block: BlockRequest) {
        self.claims.remove(&block);
        if let Some((part, _, bit)) = self.locate(block) {
            part.claimed &= !bit;
            part.here |= bit;
        }
    }

    /// Takes a piece that is whole.
    pub(crate) fn take(&mut self, piece: PieceIndex) -> Option<OpenPiece> {
        self.claims.retain(|block, _| block.piece != piece);
        self.pieces.remove(&piece)
    }

    /// Forgets a piece.
    pub(crate) fn forget(&mut self, piece: PieceIndex, pool: &SegmentPool) {
        let parts = self.take(piece).map(|piece| piece.parts);
        let memories = parts.into_iter().flatten().filter_map(|part| part.memory);
        memories.for_each(|memory| pool.give_back(memory));
    }

    /// Forgets all pieces.
    pub(crate) fn forget_all(&mut self, pool: &SegmentPool) {
        let pieces: Vec<PieceIndex> = self.pieces.keys().copied().collect();
        pieces.iter().for_each(|&piece| self.forget(piece, pool));
    }

    /// The pieces of which something was written before they were whole.
    pub(crate) fn with_spills(&self) -> Vec<PieceIndex> {
        let pieces = self.pieces.iter();
        pieces
            .filter(|(_, open)| open.parts.iter().any(|part| part.written != 0))
            .map(|(&piece, _)| piece)
            .collect()
    }

    /// The piece with memory that was used longest ago.
    pub(crate) fn oldest_with_memory(&self) -> Option<PieceIndex> {
        let last_use = |open: &OpenPiece| {
            let with_memory = open.parts.iter().filter(|part| part.memory.is_some());
            with_memory.map(|part| part.used).max()
        };
        let pieces = self.pieces.iter();
        let used = pieces.filter_map(|(&piece, open)| Some((last_use(open)?, piece)));
        used.min_by_key(|(used, _)| *used).map(|(_, piece)| piece)
    }

    /// Takes the memory of the segment used longest ago, preferably of one into which nothing is
    /// coming right now; else whoever brings something there has lost it. `None` if no segment has
    /// memory; memory in which there is nothing of worth is given back, which is an answer without
    /// anything to write.
    pub(crate) fn take_spill(&mut self, pool: &SegmentPool) -> Option<Option<Spill>> {
        let with_memory = self.pieces.iter().flat_map(|(&piece, open)| {
            let parts = open.parts.iter().enumerate();
            parts
                .filter(|(_, part)| part.memory.is_some())
                .map(move |(index, part)| ((part.claimed != 0, part.used), piece, index))
        });
        let (_, piece, index) = with_memory.min_by_key(|(rank, ..)| *rank)?;
        let open = self.pieces.get_mut(&piece)?;
        let (begin, length) = open.extent(index);
        let part = open.parts.get_mut(index)?;
        let memory = part.memory.take()?;
        let blocks = std::mem::take(&mut part.here);
        if std::mem::take(&mut part.claimed) != 0 {
            let end = begin + length;
            let is_inside = |block: &BlockRequest| {
                block.piece == piece && (begin..end).contains(&(block.begin as usize))
            };
            self.claims.retain(|block, _| !is_inside(block));
        }
        if blocks == 0 {
            pool.give_back(memory);
            return Some(None);
        }
        part.written |= blocks;
        Some(Some(Spill {
            piece,
            begin,
            length,
            blocks,
            memory,
        }))
    }
}

/// The runs of adjacent blocks in `blocks`, of a segment of `length` bytes: each as its first byte
/// and its length.
pub(crate) fn runs(blocks: BlockMask, length: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut left = blocks;
    let mut shifted = 0;
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let skip = left.trailing_zeros();
        left >>= skip;
        let ones = left.trailing_ones();
        left = left.checked_shr(ones).unwrap_or(0);
        let start = (shifted + skip) as usize * BLOCK;
        shifted += skip + ones;
        let end = (shifted as usize * BLOCK).min(length);
        Some((start, end.saturating_sub(start)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::memory::MemoryBudget;

    const PIECE: u32 = 4 * BLOCK_LENGTH;

    fn block(piece: u32, number: u32) -> BlockRequest {
        BlockRequest {
            piece: PieceIndex(piece),
            begin: number * BLOCK_LENGTH,
            length: BLOCK_LENGTH,
        }
    }

    fn pool(segments: usize) -> SegmentPool {
        SegmentPool::new(MemoryBudget::new(segments * PIECE as usize))
    }

    #[test]
    fn runs_are_the_adjacent_blocks() {
        let found = |blocks, length| runs(blocks, length).collect::<Vec<_>>();
        assert_eq!(
            found(0b0_1101, 5 * BLOCK),
            [(0, BLOCK), (2 * BLOCK, 2 * BLOCK)]
        );
        assert_eq!(found(u64::MAX, 64 * BLOCK), [(0, 64 * BLOCK)]);
        assert_eq!(found(0b11, BLOCK + 5), [(0, BLOCK + 5)]);
        assert_eq!(found(1 << 63, 64 * BLOCK), [(63 * BLOCK, BLOCK)]);
        assert_eq!(found(0, BLOCK), []);
    }

    #[test]
    fn a_claim_is_lost_to_whoever_brings_the_block_whole() {
        let (mut open, pool) = (OpenPieces::new(PIECE), pool(1));
        let [slow, fast] = [PeerKey(1), PeerKey(2)];
        open.make_place(block(0, 1), PIECE, &pool).unwrap();
        open.claim(block(0, 1), slow);
        assert!(open.put(block(0, 1), 0, &[1; 100]));
        assert_eq!(open.target(block(0, 1), 100, slow).unwrap().1, BLOCK - 100);
        assert!(open.target(block(0, 1), 100, fast).is_none());
        assert!(open.put(block(0, 1), 0, &[2; BLOCK]));
        open.set_here(block(0, 1));
        assert!(open.target(block(0, 1), 100, slow).is_none());
        assert!(!open.end_claim(block(0, 1), slow));
        let mut piece = open.take(PieceIndex(0)).unwrap();
        assert_eq!(piece.parts[0].here, 0b10);
        let sealed = piece.parts[0].memory.take().unwrap().seal();
        assert!(
            sealed.bytes()[BLOCK..2 * BLOCK]
                .iter()
                .all(|&byte| byte == 2)
        );
    }

    #[test]
    fn what_is_here_or_has_no_memory_is_claimed_by_nobody() {
        let (mut open, pool) = (OpenPieces::new(PIECE), pool(1));
        let late = PeerKey(1);
        open.make_place(block(0, 1), PIECE, &pool).unwrap();
        assert!(open.put(block(0, 1), 0, &[2; BLOCK]));
        open.set_here(block(0, 1));
        open.claim(block(0, 1), late);
        assert!(open.target(block(0, 1), 0, late).is_none());
        assert!(!open.end_claim(block(0, 1), late));
        // Its memory goes, and with it what is not here.
        assert!(matches!(open.take_spill(&pool), Some(Some(_))));
        open.claim(block(0, 2), late);
        assert!(!open.end_claim(block(0, 2), late));
    }

    #[test]
    fn what_was_used_longest_ago_is_spilled_and_claims_last() {
        let (mut open, pool) = (OpenPieces::new(PIECE), pool(3));
        for piece in 0..3 {
            open.make_place(block(piece, 0), PIECE, &pool).unwrap();
        }
        assert_eq!(open.make_place(block(3, 0), PIECE, &pool), Err(NoMemory));
        open.claim(block(0, 0), PeerKey(1));
        open.set_here(block(1, 0));
        let spill = open.take_spill(&pool).unwrap().unwrap();
        assert_eq!((spill.piece, spill.blocks), (PieceIndex(1), 1));
        assert!(
            open.take_spill(&pool).unwrap().is_none(),
            "piece 2 had nothing"
        );
        assert!(open.target(block(0, 0), 0, PeerKey(1)).is_some());
        assert!(open.take_spill(&pool).unwrap().is_none());
        assert!(open.target(block(0, 0), 0, PeerKey(1)).is_none());
        assert!(open.take_spill(&pool).is_none());
        // The rest of the piece gets other memory, and remembers what was written.
        open.make_place(block(1, 1), PIECE, &pool).unwrap();
        open.set_here(block(1, 1));
        let piece = open.take(PieceIndex(1)).unwrap();
        assert_eq!((piece.parts[0].written, piece.parts[0].here), (0b1, 0b10));
    }

    #[test]
    fn a_piece_of_many_segments_takes_memory_as_they_are_used() {
        let length = 3 * SEGMENT_BYTES_MAX as u32 - 5;
        let (mut open, pool) = (
            OpenPieces::new(length),
            SegmentPool::new(MemoryBudget::new(SEGMENT_BYTES_MAX)),
        );
        let last = block(0, 191);
        open.make_place(last, length, &pool).unwrap();
        open.set_here(last);
        assert_eq!(open.make_place(block(0, 0), length, &pool), Err(NoMemory));
        let piece = open.take(PieceIndex(0)).unwrap();
        assert_eq!(piece.parts.len(), 3);
        assert_eq!(
            piece.extent(2),
            (2 * SEGMENT_BYTES_MAX, SEGMENT_BYTES_MAX - 5)
        );
        assert_eq!(piece.parts[2].here, 1 << 63);
    }
}
