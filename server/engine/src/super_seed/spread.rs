//! How many peers have each piece of a super-seeded torrent, or are about to get it.
//!
//! Peers that have everything are one number, whatever the number of pieces: whoever says so costs
//! no step for each of them. A change of a piece costs O(1).

use crate::picker::Bits;
use proto::ids::PieceIndex;

/// See the module. While nobody is there it holds no memory for pieces.
#[derive(Default)]
pub(super) struct Spread {
    /// Peers that have each piece, but for those that have everything.
    copies: Vec<u32>,
    /// Peers that were told of each piece and are expected to get it.
    coming: Vec<u32>,
    /// Pieces of which both numbers are 0, and how many these are.
    free: Bits,
    free_count: u32,
    /// Pieces of which there are copies.
    out: u32,
    /// Peers that have everything.
    complete: u32,
}

impl Spread {
    /// Nobody has anything.
    pub fn new(piece_count: u32) -> Spread {
        Spread {
            copies: vec![0; piece_count as usize],
            coming: vec![0; piece_count as usize],
            free: Bits::full(piece_count),
            free_count: piece_count,
            out: 0,
            complete: 0,
        }
    }

    /// What it takes at most, in bytes.
    pub const fn memory_bytes(piece_count: u32) -> usize {
        // Two numbers and a bit, and a word for what is rounded up.
        piece_count as usize * 8 + Bits::memory_bytes(piece_count)
    }

    /// How many have a piece.
    pub fn copies(&self, piece: PieceIndex) -> u32 {
        self.complete + number(&self.copies, piece)
    }

    /// How many have a piece or are expected to, but for those that have everything: what orders
    /// pieces by how rare they are.
    pub fn reach(&self, piece: PieceIndex) -> u32 {
        number(&self.copies, piece) + number(&self.coming, piece)
    }

    /// How many are expected to get a piece.
    #[cfg(test)]
    pub fn coming(&self, piece: PieceIndex) -> u32 {
        number(&self.coming, piece)
    }

    /// How many of `piece_count` pieces nobody has.
    pub fn missing(&self, piece_count: u32) -> u32 {
        match self.complete {
            0 => piece_count - self.out,
            _ => 0,
        }
    }

    /// Pieces that nobody who lacks something has or is expected to get.
    pub fn free(&self) -> &Bits {
        &self.free
    }

    /// How many these are.
    pub fn free_count(&self) -> u32 {
        self.free_count
    }

    /// How many have everything.
    pub fn complete(&self) -> u32 {
        self.complete
    }

    /// One that has everything has come.
    pub fn add_complete(&mut self) {
        self.complete += 1;
    }

    /// One that has everything has gone.
    pub fn remove_complete(&mut self) {
        self.complete -= 1;
    }

    /// One has got a piece.
    pub fn add_copy(&mut self, piece: PieceIndex) {
        let copies = &mut self.copies[piece.0 as usize];
        self.out += u32::from(*copies == 0);
        *copies += 1;
        self.take(piece);
    }

    /// One that has it has gone.
    pub fn remove_copy(&mut self, piece: PieceIndex) {
        let copies = &mut self.copies[piece.0 as usize];
        *copies -= 1;
        self.out -= u32::from(*copies == 0);
        self.give_back(piece);
    }

    /// One is expected to get a piece.
    pub fn expect(&mut self, piece: PieceIndex) {
        self.coming[piece.0 as usize] += 1;
        self.take(piece);
    }

    /// It has got it, or is not expected to any more.
    pub fn expect_no_more(&mut self, piece: PieceIndex) {
        self.coming[piece.0 as usize] -= 1;
        self.give_back(piece);
    }

    fn take(&mut self, piece: PieceIndex) {
        if self.free.contains(piece) {
            self.free.remove(piece);
            self.free_count -= 1;
        }
    }

    fn give_back(&mut self, piece: PieceIndex) {
        if self.reach(piece) == 0 && !self.free.contains(piece) {
            self.free.insert(piece);
            self.free_count += 1;
        }
    }
}

fn number(of_pieces: &[u32], piece: PieceIndex) -> u32 {
    of_pieces.get(piece.0 as usize).copied().unwrap_or(0)
}
