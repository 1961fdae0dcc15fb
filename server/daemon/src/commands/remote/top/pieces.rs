//! Which pieces of a torrent are there, as an area of text.

/// From none of a cell's pieces to all of them.
const SHADES: [char; 5] = ['·', '░', '▒', '▓', '█'];
/// The same for terminals without Unicode.
const ASCII_SHADES: [char; 5] = ['.', '-', '=', '+', '#'];

/// Pieces of a torrent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PieceMap {
    /// How many there are.
    pub count: u32,
    /// A bit for each, the highest of the first byte is piece 0; one that is set is there.
    pub bits: Vec<u8>,
}

impl PieceMap {
    fn has(&self, piece: u64) -> bool {
        let byte = usize::try_from(piece / 8).ok();
        let byte = byte.and_then(|byte| self.bits.get(byte));
        byte.is_some_and(|byte| byte & (0x80 >> (piece % 8)) != 0)
    }

    /// How many are there.
    pub fn there(&self) -> u64 {
        (0..u64::from(self.count))
            .filter(|piece| self.has(*piece))
            .count() as u64
    }

    /// Lines of cells, each of which stands for the same number of pieces, or one more.
    pub fn lines(&self, columns: usize, rows: usize, is_ascii: bool) -> Vec<String> {
        let shades = if is_ascii { ASCII_SHADES } else { SHADES };
        let count = u64::from(self.count);
        let cells = (columns as u64 * rows as u64).min(count);
        let cell = |cell: u64| {
            let (from, to) = (cell * count / cells, (cell + 1) * count / cells);
            let there = (from..to).filter(|piece| self.has(*piece)).count() as u64;
            let shade = match there {
                0 => 0,
                all if all == to - from => 4,
                some => 1 + (some * 3 / (to - from)).min(2),
            };
            shades[usize::try_from(shade).unwrap_or(0)]
        };
        let all: Vec<char> = (0..cells).map(cell).collect();
        let lines = all.chunks(columns.max(1));
        lines.map(|line| line.iter().collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_say_how_many_of_their_pieces_are_there() {
        let map = |count: u32, bits: &[u8]| PieceMap {
            count,
            bits: bits.to_vec(),
        };
        assert_eq!(
            map(10, &[0b1010_0000, 0b0100_0000]).lines(80, 5, false),
            ["█·█······█"]
        );
        let sixteen = map(16, &[0xff, 0b1000_1110]);
        assert_eq!(sixteen.lines(4, 1, false), ["██░▓"]);
        assert_eq!(sixteen.lines(4, 1, true), ["##-+"]);
        assert_eq!(sixteen.lines(4, 2, false), ["████", "▒·█▒"]);
        assert_eq!(sixteen.there(), 12);
        assert_eq!(map(0, &[]).lines(80, 5, false), [""; 0]);
        assert_eq!(
            map(9, &[0xff]).lines(80, 5, true),
            ["########."],
            "too few bits"
        );
        let many = map(u32::MAX, &[]);
        assert_eq!(many.lines(0, 5, false), [""; 0]);
    }
}
