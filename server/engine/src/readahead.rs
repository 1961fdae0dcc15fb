//! How much of a chunk is read when a peer asks for a part of it.
//!
//! A chunk is longer than a block, so a peer that goes through a piece in order is best served by
//! one read of the whole chunk; one that picks blocks here and there by reads of just those.
//! Nothing but the requests tells the two apart, so the answer is taken from what the peer has
//! queued and where it was before.
//!
//! Limits: looks at [`LOOK_AHEAD_MAX`] requests. Pure arithmetic; keeps nothing.

use crate::cache::{CHUNK_BYTES, Extent};
use proto::ids::PieceIndex;
use proto::wire::BlockRequest;

/// How many queued requests are looked at.
pub const LOOK_AHEAD_MAX: usize = 64;

/// A read may bring at most 4 bytes for each 3 that somebody waits for.
const WANTED_OF_FOUR: u64 = 3;

/// A part of a chunk that a peer wants, and what is known of the peer and of others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wish {
    /// The piece.
    pub piece: PieceIndex,
    /// The chunk of the piece.
    pub chunk: u32,
    /// How long the chunk is, in bytes.
    pub chunk_bytes: u32,
    /// What is wanted now.
    pub extent: Extent,
    /// The peer took the bytes directly before, so it will take the next ones too.
    pub continues: bool,
    /// Other bytes of the chunk are cached for another peer: several want it.
    pub shared: bool,
}

/// What to read for `wish` of a peer that has `queued` these requests after it; it covers the wish.
pub fn extent_to_read(wish: &Wish, queued: impl Iterator<Item = BlockRequest>) -> Extent {
    let whole = Extent {
        from: 0,
        to: wish.chunk_bytes,
    };
    if wish.shared {
        return whole;
    }
    let mut union = wish.extent;
    let mut wanted = u64::from(union.bytes());
    let mut dense = union;
    for block in queued.take(LOOK_AHEAD_MAX) {
        let Some(part) = part_of_chunk(block, wish) else {
            continue;
        };
        if !union.covers(part) {
            wanted += u64::from(part.bytes());
        }
        union.from = union.from.min(part.from);
        union.to = union.to.max(part.to);
        if is_dense(wanted, union) {
            dense = union;
        }
    }
    if wish.continues {
        dense.to = wish.chunk_bytes;
    }
    if is_dense(u64::from(dense.bytes()), whole) {
        whole
    } else {
        dense
    }
}

/// Whether an extent is too small a part of its chunk for the slot that it takes.
pub fn is_passing(extent: Extent, chunk_bytes: u32) -> bool {
    extent.bytes() < chunk_bytes / 2
}

fn is_dense(wanted: u64, read: Extent) -> bool {
    wanted * 4 >= u64::from(read.bytes()) * WANTED_OF_FOUR
}

/// What of `block` lies in the chunk of `wish`.
fn part_of_chunk(block: BlockRequest, wish: &Wish) -> Option<Extent> {
    let start = u64::from(wish.chunk) * u64::from(CHUNK_BYTES);
    let inside = |position: u64| {
        let clamped = position.clamp(start, start + u64::from(wish.chunk_bytes));
        (clamped - start) as u32
    };
    let begin = u64::from(block.begin);
    let extent = Extent {
        from: inside(begin),
        to: inside(begin + u64::from(block.length)),
    };
    (block.piece == wish.piece && extent.from < extent.to).then_some(extent)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u32 = 16 << 10;

    fn wish(first: u32, blocks: u32) -> Wish {
        Wish {
            piece: PieceIndex(7),
            chunk: 1,
            chunk_bytes: CHUNK_BYTES,
            extent: blocks_of(first, blocks),
            continues: false,
            shared: false,
        }
    }

    fn blocks_of(first: u32, blocks: u32) -> Extent {
        Extent {
            from: first * BLOCK,
            to: (first + blocks) * BLOCK,
        }
    }

    /// Requests for these blocks of the chunk of [`wish`].
    fn queued(blocks: &[u32]) -> impl Iterator<Item = BlockRequest> + '_ {
        blocks.iter().map(|block| BlockRequest {
            piece: PieceIndex(7),
            begin: CHUNK_BYTES + block * BLOCK,
            length: BLOCK,
        })
    }

    const WHOLE: Extent = Extent {
        from: 0,
        to: CHUNK_BYTES,
    };

    #[test]
    fn a_lone_block_reads_itself() {
        for block in 0..16 {
            let read = extent_to_read(&wish(block, 1), queued(&[]));
            assert_eq!(read, blocks_of(block, 1));
        }
        let elsewhere = [BlockRequest {
            piece: PieceIndex(8),
            begin: CHUNK_BYTES + BLOCK,
            length: BLOCK,
        }];
        let read = extent_to_read(&wish(0, 1), elsewhere.into_iter());
        assert_eq!(read, blocks_of(0, 1));
        let far = extent_to_read(&wish(0, 1), queued(&[15, 16, 40]));
        assert_eq!(
            far,
            blocks_of(0, 1),
            "two blocks are no reason to read sixteen"
        );
    }

    #[test]
    fn what_is_queued_beside_it_is_read_with_it() {
        assert_eq!(
            extent_to_read(&wish(3, 2), queued(&[5, 6])),
            blocks_of(3, 4)
        );
        // In any order, with a small hole.
        assert_eq!(
            extent_to_read(&wish(5, 1), queued(&[3, 6, 5])),
            blocks_of(3, 4)
        );
    }

    #[test]
    fn most_of_a_chunk_is_read_as_all_of_it() {
        assert_eq!(extent_to_read(&wish(0, 16), queued(&[])), WHOLE);
        assert_eq!(extent_to_read(&wish(2, 12), queued(&[])), WHOLE);
        assert_eq!(extent_to_read(&wish(0, 11), queued(&[])), blocks_of(0, 11));
        // The block before the chunk is a part of another one.
        let before = [BlockRequest {
            piece: PieceIndex(7),
            begin: 0,
            length: CHUNK_BYTES,
        }];
        let read = extent_to_read(&wish(0, 1), before.into_iter());
        assert_eq!(read, blocks_of(0, 1));
    }

    #[test]
    fn one_who_goes_on_gets_the_rest_and_what_many_want_is_read_whole() {
        let mut wish = wish(6, 1);
        wish.continues = true;
        assert_eq!(extent_to_read(&wish, queued(&[])), blocks_of(6, 10));
        wish.shared = true;
        assert_eq!(extent_to_read(&wish, queued(&[])), WHOLE);
        wish.chunk_bytes = 100_000;
        let read = extent_to_read(&wish, queued(&[]));
        assert_eq!(read.to, 100_000, "the last chunk of a piece is shorter");
    }

    #[test]
    fn small_extents_pass() {
        assert!(is_passing(blocks_of(0, 7), CHUNK_BYTES));
        assert!(!is_passing(blocks_of(0, 8), CHUNK_BYTES));
        assert!(!is_passing(blocks_of(0, 1), BLOCK), "a whole small piece");
    }
}
