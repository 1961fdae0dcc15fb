//! Which pieces a peer may fetch although it is choked (BEP 6), so that one that has nothing yet gets something to give.
//!
//! The set follows from the peer's network and the torrent, so that whoever comes again, or from the next address, gets
//! no other pieces.
//!
//! Limits: [`PIECES_MAX`] pieces, and no more than [`BYTES_MAX`] of them beside the first.

use engine::session::ALLOWED_FAST_PIECES_MAX as PIECES_MAX;
use proto::ids::{InfoHashV1, PieceIndex};
use std::net::IpAddr;

/// What one peer is given so, in bytes, unless a piece is longer.
const BYTES_MAX: u64 = 16 << 20;

/// Rounds of the hash, each of which names five pieces: in a torrent of few pieces the same come again and again.
const ROUNDS_MAX: usize = 100;

/// How many pieces of this length a peer is allowed.
pub(crate) fn count(piece_length: u32) -> usize {
    let fitting = BYTES_MAX / u64::from(piece_length.max(1));
    usize::try_from(fitting).map_or(PIECES_MAX, |fitting| fitting.clamp(1, PIECES_MAX))
}

/// The first `count` pieces of the set of a peer at `address`, as BEP 6 computes it; fewer if the torrent has fewer.
pub(crate) fn pieces(
    address: IpAddr,
    info_hash: InfoHashV1,
    piece_count: u32,
    count: usize,
) -> Vec<PieceIndex> {
    let mut pieces = Vec::with_capacity(count);
    if piece_count == 0 {
        return pieces;
    }
    let mut text = network(address);
    text.extend(info_hash.0);
    for _ in 0..ROUNDS_MAX {
        text = hash::sha1(&text).to_vec();
        for word in text.chunks_exact(4) {
            let number = word
                .iter()
                .fold(0, |number, &byte| number << 8 | u32::from(byte));
            let piece = PieceIndex(number % piece_count);
            if pieces.len() == count {
                return pieces;
            }
            if !pieces.contains(&piece) {
                pieces.push(piece);
            }
        }
    }
    pieces
}

/// The v4 /24 of an address, as BEP 6 has it. Of IPv6 it says nothing: the /64 is what one customer gets.
fn network(address: IpAddr) -> Vec<u8> {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            vec![a, b, c, 0]
        }
        IpAddr::V6(address) => address.octets().into_iter().take(8).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(address: &str, piece_count: u32, count: usize) -> Vec<u32> {
        let pieces = pieces(
            address.parse().unwrap(),
            InfoHashV1([0xaa; 20]),
            piece_count,
            count,
        );
        pieces.into_iter().map(|piece| piece.0).collect()
    }

    #[test]
    fn the_set_is_the_one_that_bep_6_gives_as_its_example() {
        let due = [1059, 431, 808, 1217, 287, 376, 1188, 353, 508];
        assert_eq!(set("80.4.4.200", 1313, 7), due[..7]);
        assert_eq!(set("80.4.4.200", 1313, 9), due);
        assert_eq!(
            set("::ffff:80.4.4.7", 1313, 9),
            due,
            "its neighbour's is the same"
        );
    }

    #[test]
    fn a_small_torrent_has_no_more_pieces_than_it_has() {
        assert_eq!(set("192.0.2.1", 0, 5), []);
        let mut all = set("2001:db8::1", 3, 10);
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2]);
        assert_eq!([16 << 10, 4 << 20, 512 << 20].map(count), [10, 4, 1]);
    }
}
