//! Checks what a seed sends against the torrent: the SHA-1 of every piece that is received whole.
//!
//! Bytes are hashed as they arrive. A block that overtakes an earlier one of its piece is kept
//! until the gap before it is closed, so memory is bounded by the pipeline's depth. A piece of
//! which a block was lost (refused, or the connection ended) is not judged: its bytes were never
//! all there.
//!
//! What hashes is the crate `hash`, one stream for each piece under way: twice as fast as `sha1`
//! where the CPU has no SHA-NI. The tests compare it with `sha1`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use hash::Sha1;
use proto::wire::BlockRequest;

use super::blocks::Geometry;

/// What the torrent says of its content.
#[derive(Debug)]
pub struct Expected {
    /// Sizes of the pieces.
    pub geometry: Geometry,
    /// The SHA-1 of each piece.
    pub hashes: Vec<[u8; 20]>,
}

/// The answer to a piece that was received whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Which piece.
    pub piece: u32,
    /// Its length, in bytes.
    pub length: u32,
    /// Whether its hash is the torrent's.
    pub right: bool,
}

/// Names one passage of one piece through the verifier: the same piece may be under way twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passage(u64);

struct Assembly {
    piece: u32,
    length: u32,
    hasher: Sha1,
    /// How many bytes from the start of the piece were hashed.
    hashed: u32,
    /// Blocks that arrived before their turn, by their offset.
    early: BTreeMap<u32, Vec<u8>>,
    /// Bytes that arrived or were given up.
    settled: u32,
    given_up: bool,
}

/// The pieces under way on one connection.
pub struct Verifier {
    expected: Arc<Expected>,
    assemblies: VecDeque<Assembly>,
    /// The passage that the front of `assemblies` belongs to.
    first: u64,
}

impl Verifier {
    /// Checks against `expected`.
    pub fn new(expected: Arc<Expected>) -> Self {
        Self {
            expected,
            assemblies: VecDeque::new(),
            first: 0,
        }
    }

    /// Begins a piece whose blocks will all be asked for once.
    pub fn begin(&mut self, piece: u32) -> Passage {
        self.assemblies.push_back(Assembly {
            piece,
            length: self.expected.geometry.length_of(piece),
            hasher: Sha1::new(),
            hashed: 0,
            early: BTreeMap::new(),
            settled: 0,
            given_up: false,
        });
        Passage(self.first + self.assemblies.len() as u64 - 1)
    }

    /// The passage of the piece that was begun last.
    pub fn latest(&self) -> Passage {
        Passage((self.first + self.assemblies.len() as u64).saturating_sub(1))
    }

    /// Takes bytes of `block`, which start at `offset` in the piece.
    pub fn feed(&mut self, passage: Passage, block: &BlockRequest, offset: u32, bytes: &[u8]) {
        let Some(assembly) = self.assembly(passage) else {
            return;
        };
        if assembly.given_up {
            return;
        }
        if offset == assembly.hashed {
            assembly.hasher.update(bytes);
            assembly.hashed += bytes.len() as u32;
        } else {
            assembly
                .early
                .entry(block.begin)
                .or_default()
                .extend_from_slice(bytes);
        }
    }

    /// Says that `block` is complete; returns the verdict when it was the last of its piece.
    pub fn complete(&mut self, passage: Passage, block: &BlockRequest) -> Option<Verdict> {
        let expected = Arc::clone(&self.expected);
        let assembly = self.assembly(passage)?;
        while let Some(bytes) = assembly.early.remove(&assembly.hashed) {
            assembly.hasher.update(&bytes);
            assembly.hashed += bytes.len() as u32;
        }
        assembly.settled += block.length;
        let verdict = (assembly.settled == assembly.length && !assembly.given_up).then(|| {
            let found = assembly.hasher.finish_reset();
            let wanted = expected.hashes.get(assembly.piece as usize);
            let right = wanted == Some(&found);
            Verdict {
                piece: assembly.piece,
                length: assembly.length,
                right,
            }
        });
        self.drop_settled();
        verdict
    }

    /// Says that `block` will never come: its piece cannot be judged.
    pub fn give_up(&mut self, passage: Passage, block: &BlockRequest) {
        let Some(assembly) = self.assembly(passage) else {
            return;
        };
        assembly.given_up = true;
        assembly.early.clear();
        assembly.settled += block.length;
        self.drop_settled();
    }

    /// Forgets everything under way: the connection ended.
    pub fn reset(&mut self) {
        self.first += self.assemblies.len() as u64;
        self.assemblies.clear();
    }

    fn assembly(&mut self, passage: Passage) -> Option<&mut Assembly> {
        let at = passage.0.checked_sub(self.first)?;
        self.assemblies.get_mut(usize::try_from(at).ok()?)
    }

    fn drop_settled(&mut self) {
        while self
            .assemblies
            .front()
            .is_some_and(|front| front.settled >= front.length)
        {
            self.assemblies.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::ids::PieceIndex;
    use sha1::Digest as _;

    use super::*;

    fn content(piece: u32, length: u32) -> Vec<u8> {
        (0..length).map(|at| (at * 7 + piece * 13) as u8).collect()
    }

    fn verifier() -> Verifier {
        let geometry = Geometry {
            piece_count: 3,
            piece_length: 100,
            last_piece_length: 30,
        };
        let digest = |piece| sha1::Sha1::digest(content(piece, geometry.length_of(piece))).into();
        let hashes = (0..3).map(digest).collect();
        Verifier::new(Arc::new(Expected { geometry, hashes }))
    }

    fn blocks(piece: u32, length: u32) -> Vec<BlockRequest> {
        let begins = (0..length).step_by(40);
        let block = |begin: u32| BlockRequest {
            piece: PieceIndex(piece),
            begin,
            length: 40.min(length - begin),
        };
        begins.map(block).collect()
    }

    /// Feeds `block` in steps of `step` bytes and completes it.
    fn receive(
        verifier: &mut Verifier,
        passage: Passage,
        block: &BlockRequest,
        bytes: &[u8],
        step: usize,
    ) -> Option<Verdict> {
        let mut offset = block.begin;
        let end = (block.begin + block.length) as usize;
        for part in bytes[block.begin as usize..end].chunks(step) {
            verifier.feed(passage, block, offset, part);
            offset += part.len() as u32;
        }
        verifier.complete(passage, block)
    }

    #[test]
    fn any_order_of_blocks_and_any_split_verifies() {
        for order in [
            [0, 1, 2],
            [2, 1, 0],
            [1, 0, 2],
            [0, 2, 1],
            [2, 0, 1],
            [1, 2, 0],
        ] {
            for step in [1, 7, 40] {
                let mut verifier = verifier();
                let (bytes, blocks) = (content(1, 100), blocks(1, 100));
                let passage = verifier.begin(1);
                let verdicts: Vec<_> = order
                    .iter()
                    .map(|&at| receive(&mut verifier, passage, &blocks[at], &bytes, step))
                    .collect();
                let right = Verdict {
                    piece: 1,
                    length: 100,
                    right: true,
                };
                assert_eq!(
                    verdicts,
                    [None, None, Some(right)],
                    "order {order:?} step {step}"
                );
                assert!(verifier.assemblies.is_empty());
            }
        }
    }

    #[test]
    fn one_wrong_bit_is_found_wherever_it_is() {
        for at in 0..30 {
            let mut verifier = verifier();
            let mut bytes = content(2, 30);
            bytes[at] ^= 1;
            let passage = verifier.begin(2);
            let verdict = receive(&mut verifier, passage, &blocks(2, 30)[0], &bytes, 30);
            assert_eq!(
                verdict,
                Some(Verdict {
                    piece: 2,
                    length: 30,
                    right: false
                })
            );
        }
    }

    #[test]
    fn the_same_piece_may_be_under_way_twice() {
        let mut verifier = verifier();
        let (bytes, blocks) = (content(0, 100), blocks(0, 100));
        let (one, two) = (verifier.begin(0), verifier.begin(0));
        assert_eq!(verifier.latest(), two);
        let mut right = 0;
        for block in &blocks {
            for passage in [two, one] {
                let verdict = receive(&mut verifier, passage, block, &bytes, 40);
                right += usize::from(verdict.is_some_and(|verdict| verdict.right));
            }
        }
        assert_eq!(right, 2);
    }

    #[test]
    fn a_piece_with_a_lost_block_is_not_judged() {
        let mut verifier = verifier();
        let (bytes, blocks) = (content(0, 100), blocks(0, 100));
        let passage = verifier.begin(0);
        verifier.give_up(passage, &blocks[1]);
        assert_eq!(
            receive(&mut verifier, passage, &blocks[0], &bytes, 40),
            None
        );
        assert_eq!(
            receive(&mut verifier, passage, &blocks[2], &bytes, 40),
            None
        );
        assert!(verifier.assemblies.is_empty());

        let before = verifier.begin(0);
        receive(&mut verifier, before, &blocks[0], &bytes, 40);
        verifier.reset();
        assert_eq!(receive(&mut verifier, before, &blocks[1], &bytes, 40), None);
        let after = verifier.begin(2);
        let last = &self::blocks(2, 30)[0];
        assert!(
            receive(&mut verifier, after, last, &content(2, 30), 9)
                .unwrap()
                .right
        );
    }
}
