//! Who lied: which peers sent the bytes that made a piece fail its hash.
//!
//! A hash fails for a whole piece, and a piece may come from many peers of whom one lies. So when it fails,
//! the sender and a digest of the bytes of each block are remembered. When the piece has been fetched again and
//! is right, whoever sent a block with other bytes is a liar, and nobody else. Whoever alone sent a whole bad
//! piece is one at once.
//!
//! The caller computes the digests, so it chooses them: nobody who knows the function may be able to find
//! bytes with the digest of others, so it is a cryptographic one, or keyed with a secret.
//!
//! Bounds: [`BLOCKS_MAX`] blocks are remembered, 32 bytes each, over all pieces of a torrent; [`TRIES_MAX`] failures
//! of one piece. When full, the oldest failure is forgotten: a liar may go free for the time being, and an
//! honest peer is never blamed. A failure that alone would take more than all the room is not remembered.

use std::collections::{BTreeMap, VecDeque};

use proto::ids::PieceIndex;

use crate::choker::PeerKey;

/// Blocks whose senders are remembered, at most: 2 MiB, one failure of a piece of a GiB, or 1,024 of a MiB.
pub const BLOCKS_MAX: usize = 65_536;

/// Failures of one piece that are remembered, the latest ones.
pub const TRIES_MAX: usize = 4;

/// A digest of a block's bytes, as the caller computes it: 128 bits, so that no two blocks share one by chance.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BlockDigest(pub [u8; 16]);

/// One failure of one piece.
#[derive(Clone, Debug)]
struct Try {
    /// Grows from failure to failure.
    number: u64,
    /// The sender and the digest of each block.
    blocks: Box<[(PeerKey, BlockDigest)]>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Blame {
    /// The piece and the number of each failure, oldest first.
    failures: VecDeque<(PieceIndex, u64)>,
    tries: BTreeMap<PieceIndex, VecDeque<Try>>,
    blocks: usize,
    next_number: u64,
}

impl Blame {
    /// Nobody is suspected.
    pub fn new() -> Blame {
        Blame::default()
    }

    /// A piece was bad; `blocks` are the sender and the digest of each block, in order. Returns the liar if there
    /// was one sender alone; else remembers.
    pub fn piece_failed(
        &mut self,
        piece: PieceIndex,
        blocks: &[(PeerKey, BlockDigest)],
    ) -> Option<PeerKey> {
        let &(first, _) = blocks.first()?;
        if blocks.iter().all(|&(peer, _)| peer == first) {
            return Some(first);
        }
        if blocks.len() > BLOCKS_MAX {
            return None;
        }
        while self.blocks + blocks.len() > BLOCKS_MAX {
            self.forget_oldest();
        }
        if self.tries.get(&piece).map_or(0, VecDeque::len) == TRIES_MAX {
            self.forget_first_try(piece);
        }
        let number = self.next_number;
        self.next_number += 1;
        self.failures.push_back((piece, number));
        self.blocks += blocks.len();
        let tries = self.tries.entry(piece).or_default();
        tries.push_back(Try {
            number,
            blocks: blocks.into(),
        });
        None
    }

    /// Whether [`Self::piece_verified`] would need the digests of this piece.
    pub fn remembers(&self, piece: PieceIndex) -> bool {
        self.tries.contains_key(&piece)
    }

    /// A piece is right; `blocks` are the digests of its blocks, in order. Returns who sent others, each once,
    /// and forgets the piece.
    pub fn piece_verified(&mut self, piece: PieceIndex, blocks: &[BlockDigest]) -> Vec<PeerKey> {
        let mut liars = Vec::new();
        for failed in self.forget(piece) {
            let pairs = failed.blocks.iter().zip(blocks);
            let wrong = pairs.filter(|((_, digest), right)| digest != *right);
            liars.extend(wrong.map(|((peer, _), _)| *peer));
        }
        liars.sort_unstable();
        liars.dedup();
        liars
    }

    /// Forgets what is known of a piece: it came from elsewhere, or is wanted no longer.
    pub fn piece_dropped(&mut self, piece: PieceIndex) {
        self.forget(piece);
    }

    fn forget(&mut self, piece: PieceIndex) -> VecDeque<Try> {
        let tries = self.tries.remove(&piece).unwrap_or_default();
        self.blocks -= tries.iter().map(|one| one.blocks.len()).sum::<usize>();
        if !tries.is_empty() {
            self.failures.retain(|(failed, _)| *failed != piece);
        }
        tries
    }

    fn forget_oldest(&mut self) {
        if let Some(&(piece, _)) = self.failures.front() {
            self.forget_first_try(piece);
        }
    }

    /// Forgets the earliest remembered failure of this piece.
    fn forget_first_try(&mut self, piece: PieceIndex) {
        let Some(tries) = self.tries.get_mut(&piece) else {
            return;
        };
        if let Some(oldest) = tries.pop_front() {
            self.blocks -= oldest.blocks.len();
            self.failures.retain(|(_, number)| *number != oldest.number);
        }
        if tries.is_empty() {
            self.tries.remove(&piece);
        }
    }

    /// Panics if the structure contradicts itself.
    pub fn check_invariants(&self) {
        let tries = self.tries.values().flatten();
        let blocks: usize = tries.map(|one| one.blocks.len()).sum();
        assert_eq!(blocks, self.blocks);
        assert!(self.blocks <= BLOCKS_MAX);
        let mut listed: Vec<_> = self.failures.iter().copied().collect();
        assert!(listed.is_sorted_by_key(|(_, number)| *number));
        listed.sort_unstable();
        let mut kept = Vec::new();
        for (piece, tries) in &self.tries {
            assert!((1..=TRIES_MAX).contains(&tries.len()));
            kept.extend(tries.iter().map(|one| (*piece, one.number)));
        }
        assert_eq!(listed, kept);
    }
}
