//! A set of pieces, one bit each, in words.
//!
//! Piece 0 is the lowest bit of word 0: unlike on the wire (BEP 3), where it is the highest bit of
//! byte 0, so that the lowest piece of a word is one instruction away.

use proto::ids::PieceIndex;

/// Pieces in a word.
pub(crate) const WORD_PIECES: usize = 64;

/// A set of pieces. An empty one may hold no words at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    /// The empty set, with room for `pieces`.
    pub fn with_room_for(pieces: u32) -> Bits {
        Bits {
            words: vec![0; (pieces as usize).div_ceil(WORD_PIECES)],
        }
    }

    /// All of `pieces`.
    pub fn full(pieces: u32) -> Bits {
        let mut bits = Bits {
            words: vec![u64::MAX; (pieces as usize).div_ceil(WORD_PIECES)],
        };
        bits.mask(pieces);
        bits
    }

    /// A bitfield message's payload. Bytes that lack count as zeros, and what is beyond `pieces` is
    /// left out.
    pub fn from_wire(bitfield: &[u8], pieces: u32) -> Bits {
        let mut bits = Bits::with_room_for(pieces);
        for (word, bytes) in bits.words.iter_mut().zip(bitfield.chunks(8)) {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_be_bytes(whole).reverse_bits();
        }
        bits.mask(pieces);
        bits
    }

    /// What the words for `pieces` take, in bytes.
    pub const fn memory_bytes(pieces: u32) -> usize {
        (pieces as usize).div_ceil(WORD_PIECES) * size_of::<u64>()
    }

    fn mask(&mut self, pieces: u32) {
        let spare = self.words.len() * WORD_PIECES - pieces as usize;
        if let Some(last) = self.words.last_mut() {
            *last &= u64::MAX >> spare;
        }
    }

    pub fn contains(&self, piece: PieceIndex) -> bool {
        let (word, bit) = place(piece);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Adds a piece for which there is room.
    pub fn insert(&mut self, piece: PieceIndex) {
        let (word, bit) = place(piece);
        self.words[word] |= bit;
    }

    /// Removes a piece for which there is room.
    pub fn remove(&mut self, piece: PieceIndex) {
        let (word, bit) = place(piece);
        self.words[word] &= !bit;
    }

    pub fn clear(&mut self) {
        self.words.fill(0);
    }

    pub fn has_room(&self) -> bool {
        !self.words.is_empty()
    }

    pub fn words(&self) -> &[u64] {
        &self.words
    }

    pub fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// How many pieces are in both.
    pub fn count_common(&self, other: &Bits) -> u32 {
        let words = self.words.iter().zip(&other.words);
        words.map(|(one, two)| (one & two).count_ones()).sum()
    }

    pub fn iter(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        self.words
            .iter()
            .enumerate()
            .flat_map(|(index, &word)| pieces_of_word(index, word))
    }

    /// Those that are not in `other`, which has room for as many.
    pub fn iter_beyond<'a>(&'a self, other: &'a Bits) -> impl Iterator<Item = PieceIndex> + 'a {
        let words = self.words.iter().zip(&other.words);
        words
            .enumerate()
            .flat_map(|(index, (&word, &other))| pieces_of_word(index, word & !other))
    }

    /// Those of the first `pieces` that are not in the set.
    pub fn iter_absent(&self, pieces: u32) -> impl Iterator<Item = PieceIndex> + '_ {
        self.words
            .iter()
            .enumerate()
            .flat_map(|(index, &word)| pieces_of_word(index, !word))
            .take_while(move |piece| piece.0 < pieces)
    }
}

/// Those of `pieces`, of which there are some, that are in the words that `word` gives: from `start`
/// on, and then from the first on. Words are asked for one after another, as they are needed.
pub(crate) fn pieces_around(
    start: u32,
    pieces: u32,
    word: impl Fn(usize) -> u64,
) -> impl Iterator<Item = PieceIndex> {
    let words = (pieces as usize).div_ceil(WORD_PIECES);
    let (first, from) = (
        start as usize / WORD_PIECES,
        u64::MAX << (start as usize % WORD_PIECES),
    );
    // The word in which it begins comes twice: what is after the start, and what is before it.
    let around = (0..=words).flat_map(move |step| {
        let index = (first + step) % words;
        let part = match step {
            0 => from,
            last if last == words => !from,
            _ => u64::MAX,
        };
        pieces_of_word(index, word(index) & part)
    });
    around.filter(move |piece| piece.0 < pieces)
}

/// The pieces of the word at `index`, lowest first.
pub(super) fn pieces_of_word(index: usize, word: u64) -> impl Iterator<Item = PieceIndex> {
    let mut left = word;
    std::iter::from_fn(move || {
        (left != 0).then(|| {
            let bit = left.trailing_zeros() as usize;
            left &= left - 1;
            // At most 2^21 pieces.
            PieceIndex((index * WORD_PIECES + bit) as u32)
        })
    })
}

fn place(piece: PieceIndex) -> (usize, u64) {
    let index = piece.0 as usize;
    (index / WORD_PIECES, 1 << (index % WORD_PIECES))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_wire_form_is_read_bit_by_bit(
            bytes in proptest::collection::vec(any::<u8>(), 0..40),
            pieces in 1_u32..300,
        ) {
            let bits = Bits::from_wire(&bytes, pieces);
            let expected: Vec<u32> = (0..pieces)
                .filter(|&piece| {
                    let byte = bytes.get(piece as usize / 8).copied().unwrap_or(0);
                    byte & (0x80 >> (piece % 8)) != 0
                })
                .collect();
            let found: Vec<u32> = bits.iter().map(|piece| piece.0).collect();
            prop_assert_eq!(&found, &expected);
            prop_assert_eq!(bits.count() as usize, expected.len());
            let mut all: Vec<u32> = bits.iter_absent(pieces).map(|piece| piece.0).collect();
            all.extend(found);
            all.sort_unstable();
            prop_assert_eq!(all, (0..pieces).collect::<Vec<_>>());
            let full = Bits::full(pieces);
            prop_assert_eq!(full.count_common(&bits), bits.count());
            let absent: Vec<_> = bits.iter_absent(pieces).collect();
            prop_assert_eq!(full.iter_beyond(&bits).collect::<Vec<_>>(), absent);
            prop_assert_eq!(bits.iter_beyond(&full).count(), 0);
        }

        #[test]
        fn around_a_start_each_comes_once(
            words in proptest::collection::vec(any::<u64>(), 5),
            pieces in 1_u32..300,
            start in any::<u32>(),
        ) {
            let start = start % pieces;
            let is_in = |piece: &u32| words[*piece as usize / 64] & (1 << (piece % 64)) != 0;
            let expected: Vec<u32> = (start..pieces).chain(0..start).filter(is_in).collect();
            let found = pieces_around(start, pieces, |index| words[index]);
            prop_assert_eq!(found.map(|piece| piece.0).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn a_set_without_words_is_empty() {
        let mut bits = Bits::default();
        assert!(!bits.contains(PieceIndex(0)) && bits.count() == 0 && !bits.has_room());
        bits = Bits::with_room_for(65);
        bits.insert(PieceIndex(64));
        assert!(bits.contains(PieceIndex(64)) && !bits.contains(PieceIndex(1_000)));
        bits.remove(PieceIndex(64));
        assert_eq!(bits, Bits::with_room_for(65));
    }
}
