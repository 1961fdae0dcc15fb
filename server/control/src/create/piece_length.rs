//! The piece length that suits a torrent's size.
//!
//! Small pieces make a large `.torrent` and many haves; large ones cost more when one is bad and
//! start slower. Between one and two thousand pieces are the usual middle:
//!
//! | content         | piece length | pieces        |
//! |-----------------|--------------|---------------|
//! | up to 32 MiB    | 16 KiB       | up to 2,048   |
//! | up to 64 MiB    | 32 KiB       | 1,025 – 2,048 |
//! | up to 128 MiB   | 64 KiB       | 1,025 – 2,048 |
//! | …               | …            | 1,025 – 2,048 |
//! | up to 16 GiB    | 8 MiB        | 1,025 – 2,048 |
//! | up to 32 TiB    | 16 MiB       | 1,025 and up  |
//!
//! Beyond 32 TiB there would be more pieces than clients accept: then a larger length must be asked
//! for.

use proto::limits::PIECE_LENGTH_MAX;

/// The shortest piece: one block.
pub const PIECE_LENGTH_MIN: u32 = 16 << 10;

/// The longest piece that is chosen by itself; every client accepts it.
pub const PIECE_LENGTH_CHOSEN_MAX: u32 = 16 << 20;

/// How many pieces a torrent gets before the next longer piece is chosen.
const PIECES_WANTED_MAX: u64 = 2048;

/// The piece length for `content_length` bytes: see the table above.
pub fn piece_length_for(content_length: u64) -> u32 {
    let mut piece_length = PIECE_LENGTH_MIN;
    while piece_length < PIECE_LENGTH_CHOSEN_MAX
        && content_length.div_ceil(u64::from(piece_length)) > PIECES_WANTED_MAX
    {
        piece_length *= 2;
    }
    piece_length
}

/// Whether a torrent may have pieces of this length: a power of two, from 16 KiB to 512 MiB.
pub fn is_piece_length(piece_length: u32) -> bool {
    piece_length.is_power_of_two() && (PIECE_LENGTH_MIN..=PIECE_LENGTH_MAX).contains(&piece_length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_follow_the_table() {
        for (content, piece) in [
            (0, 16 << 10),
            (1, 16 << 10),
            (32 << 20, 16 << 10),
            ((32 << 20) + 1, 32 << 10),
            (64 << 20, 32 << 10),
            (4 << 30, 2 << 20),
            (16 << 30, 8 << 20),
            ((16 << 30) + 1, 16 << 20),
            (100 << 30, 16 << 20),
            (u64::MAX, 16 << 20),
        ] {
            assert_eq!(piece_length_for(content), piece, "{content}");
        }
    }

    #[test]
    fn from_16_mib_to_32_gib_there_are_1000_to_2500_pieces() {
        let mut content = 16_400_000_u64;
        while content < 32 << 30 {
            let pieces = content.div_ceil(u64::from(piece_length_for(content)));
            assert!((1000..=2500).contains(&pieces), "{content}: {pieces}");
            content += content / 97;
        }
    }

    #[test]
    fn every_chosen_length_is_allowed() {
        assert!((0..64).all(|shift| is_piece_length(piece_length_for(1 << shift))));
        for refused in [0, 1, 8 << 10, (16 << 10) + 1, 48 << 10, 1 << 30, u32::MAX] {
            assert!(!is_piece_length(refused), "{refused}");
        }
    }
}
