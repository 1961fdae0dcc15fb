//! Who lied: which peers sent the bytes that made a piece fail its hash.
//!
//! A hash fails for a whole piece, and a piece may come from many peers of whom one lies. So when
//! it fails, the sender and a digest of the bytes of each block are remembered. When the piece has
//! been fetched again and is right, whoever sent a block with other bytes is a liar, and nobody
//! else. Whoever alone sent a whole bad piece is one at once.
//!
//! The caller computes the digests, so it chooses them: nobody who knows the function may be able
//! to find bytes with the digest of others, so it is a cryptographic one, or keyed with a secret.
//!
//! Bounds: [`BLOCKS_MAX`] blocks are remembered, 32 bytes each, over all pieces of a torrent;
//! [`TRIES_MAX`] failures of one piece. When full, the oldest failure is forgotten: a liar may go
//! free for the time being, and an honest peer is never blamed. A failure that alone would take
//! more than all the room is not remembered.

use std::collections::{BTreeMap, VecDeque};

use proto::ids::PieceIndex;

use crate::choker::PeerKey;

/// Blocks whose senders are remembered, at most: 2 MiB, one failure of a piece of a GiB, or 1,024
/// of a MiB.
pub const BLOCKS_MAX: usize = 65_536;

/// Failures of one piece that are remembered, the latest ones.
pub const TRIES_MAX: usize = 4;

/// A digest of a block's bytes, as the caller computes it: 128 bits, so that no two blocks share
/// one by chance.
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

    /// A piece was bad; `blocks` are the sender and the digest of each block, in order. Returns the
    /// liar if there was one sender alone; else remembers.
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

    /// A piece is right; `blocks` are the digests of its blocks, in order. Returns who sent others,
    /// each once, and forgets the piece.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use proptest::prelude::*;

    fn digest(number: u64) -> BlockDigest {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        BlockDigest(bytes)
    }

    /// The blocks of a piece as these peers sent them; the right digest of block i is i.
    fn sent(peers: &[u64], wrong: &[usize]) -> Vec<(PeerKey, BlockDigest)> {
        let blocks = peers.iter().enumerate();
        let number = |block: usize| block as u64 + if wrong.contains(&block) { 1_000 } else { 0 };
        blocks
            .map(|(block, &peer)| (PeerKey(peer), digest(number(block))))
            .collect()
    }

    fn right(blocks: u64) -> Vec<BlockDigest> {
        (0..blocks).map(digest).collect()
    }

    const PIECE: PieceIndex = PieceIndex(7);

    #[test]
    fn one_liar_among_five_is_found_when_the_piece_is_right() {
        let mut blame = Blame::new();
        let peers = [1, 2, 3, 4, 5, 1, 2, 3];
        // Peer 3 sent one right block and one wrong one.
        assert_eq!(blame.piece_failed(PIECE, &sent(&peers, &[7])), None);
        assert!(blame.remembers(PIECE) && !blame.remembers(PieceIndex(8)));
        assert_eq!(blame.piece_verified(PIECE, &right(8)), [PeerKey(3)]);
        assert!(!blame.remembers(PIECE));
        assert_eq!(blame.piece_verified(PIECE, &right(8)), []);
        blame.check_invariants();
    }

    #[test]
    fn who_alone_sent_a_bad_piece_is_a_liar_at_once() {
        let mut blame = Blame::new();
        let failed = blame.piece_failed(PIECE, &sent(&[4; 8], &[2]));
        assert_eq!(failed, Some(PeerKey(4)));
        assert!(!blame.remembers(PIECE));
        assert_eq!(blame.piece_failed(PIECE, &[]), None);
    }

    #[test]
    fn liars_of_several_tries_are_named_once() {
        let mut blame = Blame::new();
        blame.piece_failed(PIECE, &sent(&[1, 2, 3], &[0]));
        blame.piece_failed(PIECE, &sent(&[3, 2, 1], &[2]));
        blame.piece_failed(PIECE, &sent(&[3, 2, 4], &[1]));
        let liars = blame.piece_verified(PIECE, &right(3));
        assert_eq!(liars, [1, 2].map(PeerKey));
    }

    #[test]
    fn the_latest_tries_of_a_piece_are_kept() {
        let mut blame = Blame::new();
        // In try i, peer i lies.
        for peer in 1..=TRIES_MAX as u64 + 2 {
            blame.piece_failed(PIECE, &sent(&[peer, 100], &[0]));
            blame.check_invariants();
        }
        let liars = blame.piece_verified(PIECE, &right(2));
        assert_eq!(liars, [3, 4, 5, 6].map(PeerKey));
    }

    #[test]
    fn when_full_the_oldest_failure_is_forgotten() {
        let mut blame = Blame::new();
        let mut peers = vec![1; BLOCKS_MAX / 4];
        peers[0] = 2;
        for piece in 0..5 {
            let failed = blame.piece_failed(PieceIndex(piece), &sent(&peers, &[0]));
            assert_eq!(failed, None);
            blame.check_invariants();
        }
        assert_eq!(
            [0, 1, 4].map(|i| blame.remembers(PieceIndex(i))),
            [false, true, true]
        );
        assert_eq!(blame.piece_verified(PieceIndex(0), &right(9)), []);
        // What is more than all the room is not remembered, and pushes nothing out.
        let mut peers = vec![1; BLOCKS_MAX + 1];
        peers[0] = 2;
        blame.piece_failed(PieceIndex(9), &sent(&peers, &[0]));
        assert_eq!(
            [1, 9].map(|i| blame.remembers(PieceIndex(i))),
            [true, false]
        );
        blame.piece_dropped(PieceIndex(1));
        assert!(!blame.remembers(PieceIndex(1)));
        blame.check_invariants();
    }

    proptest! {
        /// Honest peers are never named, and liars are as long as nothing was forgotten.
        #[test]
        fn the_liars_and_nobody_else(seed in any::<u64>(), tries in 1..=TRIES_MAX) {
            let mut random = Random::new(seed);
            let mut blame = Blame::new();
            let mut expected = Vec::new();
            // Peers 0 to 2 lie now and then.
            for _ in 0..tries {
                let peers: Vec<u64> = (0..12).map(|_| random.below(6)).collect();
                let wrong: Vec<usize> = (0..12_usize)
                    .filter(|&block| peers[block] < 3 && random.below(4) == 0)
                    .collect();
                if peers.iter().any(|peer| *peer != peers[0]) {
                    prop_assert_eq!(blame.piece_failed(PIECE, &sent(&peers, &wrong)), None);
                    expected.extend(wrong.iter().map(|&block| PeerKey(peers[block])));
                }
                blame.check_invariants();
            }
            expected.sort_unstable();
            expected.dedup();
            prop_assert_eq!(blame.piece_verified(PIECE, &right(12)), expected);
        }
    }
}
