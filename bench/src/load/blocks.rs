//! What a leecher asks for next: blocks in order inside a piece, pieces at random.
//!
//! Pure: the randomness is a seeded generator of its own, so that a run can be repeated. A piece
//! may be asked for any number of times: a load never finishes a torrent. Where that would turn
//! cold data into cached ones, all leechers draw from one [`Deck`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proto::ids::PieceIndex;
use proto::wire::BlockRequest;

/// The torrent as far as asking for blocks of it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Pieces in the torrent; at least 1.
    pub piece_count: u32,
    /// The length of every piece but the last, in bytes.
    pub piece_length: u32,
    /// The length of the last piece, in bytes; at least 1.
    pub last_piece_length: u32,
}

impl Geometry {
    /// The length of `piece`, in bytes.
    pub fn length_of(&self, piece: u32) -> u32 {
        if piece + 1 < self.piece_count {
            self.piece_length
        } else {
            self.last_piece_length
        }
    }
}

/// A generator of numbers that only have to be spread well (SplitMix64; Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator that gives the same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Fills `bytes`, which then do not compress.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(8) {
            part.copy_from_slice(&self.next().to_le_bytes()[..part.len()]);
        }
    }

    /// A number below `bound`, which is at least 1.
    pub fn below(&mut self, bound: u32) -> u32 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u32
    }
}

/// All pieces in random order, for all leechers together: none comes twice before each came once.
#[derive(Debug)]
pub struct Deck {
    order: Vec<u32>,
    dealt: AtomicUsize,
}

impl Deck {
    /// The pieces of a torrent, which has at least one, in an order that `seed` decides.
    pub fn new(piece_count: u32, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut order: Vec<u32> = (0..piece_count).collect();
        for at in (1..order.len()).rev() {
            order.swap(at, random.below(at as u32 + 1) as usize);
        }
        Self {
            order,
            dealt: AtomicUsize::new(0),
        }
    }

    /// The next piece.
    pub fn deal(&self) -> Option<u32> {
        let at = self.dealt.fetch_add(1, Ordering::Relaxed);
        self.order.get(at % self.order.len().max(1)).copied()
    }

    /// How often the whole torrent was dealt.
    pub fn rounds(&self) -> f64 {
        self.dealt.load(Ordering::Relaxed) as f64 / self.order.len().max(1) as f64
    }
}

/// The pieces that the seed says it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Available {
    /// Every piece.
    All,
    /// These, in no order; empty until the seed says something.
    Some(Vec<u32>),
}

impl Available {
    /// Nothing was heard yet.
    pub fn nothing() -> Self {
        Self::Some(Vec::new())
    }

    /// Takes a bitfield whose length was checked.
    pub fn from_bitfield(bits: &[u8], geometry: &Geometry) -> Self {
        let has = |piece: &u32| {
            bits.get((*piece / 8) as usize)
                .is_some_and(|byte| byte & (0x80 >> (piece % 8)) != 0)
        };
        let pieces: Vec<u32> = (0..geometry.piece_count).filter(has).collect();
        if pieces.len() == geometry.piece_count as usize {
            Self::All
        } else {
            Self::Some(pieces)
        }
    }

    /// Takes a `have`. A seed that announces its pieces one by one costs a search for each.
    pub fn add(&mut self, piece: u32, geometry: &Geometry) {
        let Self::Some(pieces) = self else { return };
        if piece < geometry.piece_count && !pieces.contains(&piece) {
            pieces.push(piece);
        }
        if pieces.len() == geometry.piece_count as usize {
            *self = Self::All;
        }
    }

    fn pick(&self, geometry: &Geometry, random: &mut Random) -> Option<u32> {
        match self {
            Self::All => Some(random.below(geometry.piece_count)),
            Self::Some(pieces) if pieces.is_empty() => None,
            Self::Some(pieces) => pieces
                .get(random.below(pieces.len() as u32) as usize)
                .copied(),
        }
    }
}

/// The place in the piece that is being asked for.
#[derive(Debug)]
pub struct BlockSource {
    geometry: Geometry,
    block_bytes: u32,
    random: Random,
    deck: Option<Arc<Deck>>,
    piece: u32,
    begin: u32,
    /// The end of the current piece; equal to `begin` when the next one must be chosen.
    end: u32,
}

impl BlockSource {
    /// Asks for blocks of `block_bytes` (the last one of a piece may be shorter). Pieces come from
    /// `deck` if there is one and the seed has all of them.
    pub fn new(
        geometry: Geometry,
        block_bytes: u32,
        random: Random,
        deck: Option<Arc<Deck>>,
    ) -> Self {
        Self {
            geometry,
            block_bytes,
            random,
            deck,
            piece: 0,
            begin: 0,
            end: 0,
        }
    }

    /// The next block, and whether it is the first of its piece. None as long as nothing is
    /// available.
    pub fn next(&mut self, available: &Available) -> Option<(BlockRequest, bool)> {
        if self.begin == self.end {
            self.piece = match (&self.deck, available) {
                (Some(deck), Available::All) => deck.deal()?,
                _ => available.pick(&self.geometry, &mut self.random)?,
            };
            self.begin = 0;
            self.end = self.geometry.length_of(self.piece);
        }
        let (begin, first) = (self.begin, self.begin == 0);
        let length = self.block_bytes.min(self.end - begin);
        self.begin += length;
        Some((
            BlockRequest {
                piece: PieceIndex(self.piece),
                begin,
                length,
            },
            first,
        ))
    }

    /// Leaves the current piece: the next block is the first of another one.
    pub fn abandon_piece(&mut self) {
        self.begin = self.end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GEOMETRY: Geometry = Geometry {
        piece_count: 9,
        piece_length: 40_000,
        last_piece_length: 5,
    };

    #[test]
    fn blocks_cover_each_piece_in_order() {
        let mut source = BlockSource::new(GEOMETRY, 16_384, Random::new(7), None);
        let mut seen = [0u32; 9];
        for _ in 0..2_000 {
            let (first, starts) = source.next(&Available::All).unwrap();
            assert!(starts);
            assert_eq!(first.begin, 0);
            seen[first.piece.0 as usize] += 1;
            if first.piece.0 == 8 {
                assert_eq!(first.length, 5);
                continue;
            }
            assert_eq!(first.length, 16_384);
            for (begin, length) in [(16_384, 16_384), (32_768, 7_232)] {
                let block = BlockRequest {
                    piece: first.piece,
                    begin,
                    length,
                };
                assert_eq!(source.next(&Available::All), Some((block, false)));
            }
        }
        assert!(seen.iter().all(|&count| count > 150), "uneven: {seen:?}");
    }

    #[test]
    fn a_deck_deals_every_piece_once_before_any_twice() {
        let deck = Arc::new(Deck::new(9, 3));
        let source =
            |seed| BlockSource::new(GEOMETRY, 40_000, Random::new(seed), Some(Arc::clone(&deck)));
        let mut sources = [source(1), source(2)];
        for _ in 0..2 {
            let asked = (0..9).map(|turn| sources[turn % 2].next(&Available::All).unwrap());
            let mut pieces: Vec<u32> = asked.map(|(block, _)| block.piece.0).collect();
            assert!(!pieces.is_sorted());
            pieces.sort_unstable();
            assert_eq!(pieces, (0..9).collect::<Vec<u32>>());
        }
        assert!((deck.rounds() - 2.0).abs() < 1e-9);
        let some = Available::Some(vec![4]);
        assert_eq!(sources[0].next(&some).unwrap().0.piece, PieceIndex(4));
    }

    #[test]
    fn only_available_pieces_are_asked_for() {
        let mut available = Available::nothing();
        let mut source = BlockSource::new(GEOMETRY, 16_384, Random::new(1), None);
        assert_eq!(source.next(&available), None);
        available.add(3, &GEOMETRY);
        available.add(3, &GEOMETRY);
        available.add(99, &GEOMETRY);
        assert_eq!(available, Available::Some(vec![3]));
        for _ in 0..10 {
            assert_eq!(source.next(&available).unwrap().0.piece, PieceIndex(3));
        }
        source.abandon_piece();
        assert!(source.next(&available).unwrap().1);
        (0..9).for_each(|piece| available.add(piece, &GEOMETRY));
        assert_eq!(available, Available::All);
    }

    #[test]
    fn a_bitfield_is_read_high_bit_first() {
        let some = Available::from_bitfield(&[0b0100_0000, 0b1000_0000], &GEOMETRY);
        assert_eq!(some, Available::Some(vec![1, 8]));
        assert_eq!(
            Available::from_bitfield(&[0xff, 0x80], &GEOMETRY),
            Available::All
        );
        assert_eq!(
            Available::from_bitfield(&[], &GEOMETRY),
            Available::nothing()
        );
    }

    #[test]
    fn equal_seeds_make_equal_bytes() {
        let mut bytes = [[0; 21]; 3];
        for (bytes, seed) in bytes.iter_mut().zip([1, 1, 2]) {
            Random::new(seed).fill(bytes);
        }
        assert_eq!(bytes[0], bytes[1]);
        assert_ne!(bytes[0], bytes[2]);
    }
}
