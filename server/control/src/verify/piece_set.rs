//! A set of pieces as one bit each, in the order of a peer's bitfield message (BEP 3).

use proto::ids::PieceIndex;

/// Which pieces of a torrent are in the set.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PieceSet {
    /// The first piece is the highest bit of the first byte; bits past the last piece are 0.
    bits: Vec<u8>,
    piece_count: u32,
}

impl PieceSet {
    /// The empty set over `piece_count` pieces.
    pub fn new(piece_count: u32) -> PieceSet {
        PieceSet {
            bits: vec![0; piece_count.div_ceil(8) as usize],
            piece_count,
        }
    }

    /// All pieces of a torrent of so many.
    pub fn full(piece_count: u32) -> PieceSet {
        let mut set = PieceSet::new(piece_count);
        (0..piece_count).for_each(|piece| set.insert(PieceIndex(piece)));
        set
    }

    /// The set of a bitfield message's bytes; `None` if it is not one of a torrent of so many pieces.
    pub fn from_bitfield(bits: &[u8], piece_count: u32) -> Option<PieceSet> {
        let set = PieceSet {
            bits: bits.to_vec(),
            piece_count,
        };
        let fits = bits.len() == piece_count.div_ceil(8) as usize;
        let beyond = (piece_count..(bits.len() as u32).saturating_mul(8)).map(PieceIndex);
        let none_beyond = beyond
            .into_iter()
            .all(|piece| bits[byte_of(piece)] & bit_of(piece) == 0);
        (fits && none_beyond).then_some(set)
    }

    /// How many pieces the torrent has.
    pub fn piece_count(&self) -> u32 {
        self.piece_count
    }

    /// How many pieces are in the set.
    pub fn len(&self) -> u32 {
        self.bits.iter().map(|byte| byte.count_ones()).sum()
    }

    /// Whether no piece is in the set.
    pub fn is_empty(&self) -> bool {
        self.bits.iter().all(|&byte| byte == 0)
    }

    /// Whether every piece is in the set.
    pub fn is_full(&self) -> bool {
        self.len() == self.piece_count
    }

    /// Whether `piece` is in the set; a piece that does not exist is not.
    pub fn contains(&self, piece: PieceIndex) -> bool {
        self.bits
            .get(byte_of(piece))
            .is_some_and(|byte| byte & bit_of(piece) != 0)
    }

    /// Adds `piece`; one that does not exist is ignored.
    pub fn insert(&mut self, piece: PieceIndex) {
        if piece.0 < self.piece_count {
            self.bits[byte_of(piece)] |= bit_of(piece);
        }
    }

    /// Takes `piece` out.
    pub fn remove(&mut self, piece: PieceIndex) {
        if piece.0 < self.piece_count {
            self.bits[byte_of(piece)] &= !bit_of(piece);
        }
    }

    /// The pieces of the set in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = PieceIndex> + Clone + '_ {
        (0..self.piece_count)
            .map(PieceIndex)
            .filter(|&piece| self.contains(piece))
    }

    /// The bits as a peer's bitfield message has them.
    pub fn as_bitfield(&self) -> &[u8] {
        &self.bits
    }
}

fn byte_of(piece: PieceIndex) -> usize {
    piece.0 as usize / 8
}

fn bit_of(piece: PieceIndex) -> u8 {
    0x80 >> (piece.0 % 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_lie_as_in_a_bitfield_message() {
        let mut set = PieceSet::new(10);
        assert_eq!(set.as_bitfield(), [0, 0]);
        for piece in [0, 7, 8, 9, 10, u32::MAX] {
            set.insert(PieceIndex(piece));
        }
        assert_eq!(set.as_bitfield(), [0b1000_0001, 0b1100_0000]);
        assert_eq!(
            set.iter().map(|piece| piece.0).collect::<Vec<_>>(),
            [0, 7, 8, 9]
        );
        assert_eq!(
            (set.len(), set.is_full(), set.is_empty()),
            (4, false, false)
        );
        assert!(set.contains(PieceIndex(9)) && !set.contains(PieceIndex(10)));
        assert_eq!(
            PieceSet::from_bitfield(set.as_bitfield(), 10).as_ref(),
            Some(&set)
        );
        assert_eq!(
            PieceSet::from_bitfield(&[0, 0b0010_0000], 10),
            None,
            "beyond the last"
        );
        assert_eq!(PieceSet::from_bitfield(&[0], 10), None);
        assert_eq!(PieceSet::from_bitfield(&[0; 3], 10), None);
        set.remove(PieceIndex(0));
        set.remove(PieceIndex(10));
        assert_eq!(set.as_bitfield(), [0b0000_0001, 0b1100_0000]);
    }

    #[test]
    fn full_and_empty_sets_know_it() {
        let mut set = PieceSet::new(9);
        assert!(set.is_empty());
        (0..9).for_each(|piece| set.insert(PieceIndex(piece)));
        assert!(set.is_full() && set.len() == 9);
        assert!(PieceSet::new(0).is_full() && PieceSet::new(0).is_empty());
    }
}
