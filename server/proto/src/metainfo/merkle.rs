//! The hash trees of BEP 52: SHA-256 over 16 KiB blocks, padded with zero hashes to a power of two.

use sha2::{Digest, Sha256};

use crate::limits::BLOCK_LENGTH;

pub(super) type Hash = [u8; 32];

/// The root over the hashes of a file's pieces, each the root of `piece_length` bytes of blocks.
///
/// `piece_length` is a power of two of at least a block. No hashes make the zero hash.
pub(super) fn root_of_piece_layer(hashes: &[Hash], piece_length: u32) -> Hash {
    // What pads a layer is the root of a subtree of zero leaves, which rises with the layer.
    let piece_height = (piece_length / BLOCK_LENGTH).max(1).ilog2();
    let mut padding = (0..piece_height).fold([0; 32], |hash, _| parent(&hash, &hash));
    let mut layer = hashes.to_vec();
    if layer.is_empty() {
        return [0; 32];
    }
    while layer.len() > 1 {
        layer = layer
            .chunks(2)
            .map(|pair| parent(&pair[0], pair.get(1).unwrap_or(&padding)))
            .collect();
        padding = parent(&padding, &padding);
    }
    layer[0]
}

fn parent(left: &Hash, right: &Hash) -> Hash {
    Sha256::new()
        .chain_update(left)
        .chain_update(right)
        .finalize()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree built naively: all leaves of the file, padded with zeros to a power of two.
    fn naive_root(leaves: &[Hash], leaves_total: usize) -> Hash {
        let mut layer = leaves.to_vec();
        layer.resize(leaves_total.next_power_of_two(), [0; 32]);
        while layer.len() > 1 {
            layer = layer
                .chunks(2)
                .map(|pair| parent(&pair[0], &pair[1]))
                .collect();
        }
        layer[0]
    }

    #[test]
    fn a_piece_layer_gives_the_same_root_as_all_the_blocks() {
        let leaves: Vec<Hash> = (0..37u8).map(|n| Sha256::digest([n]).into()).collect();
        for blocks_per_piece in [1usize, 2, 4, 8] {
            for count in 1..=leaves.len() {
                let leaves = &leaves[..count];
                let pieces: Vec<Hash> = leaves
                    .chunks(blocks_per_piece)
                    .map(|piece| naive_root(piece, blocks_per_piece))
                    .collect();
                if pieces.len() < 2 {
                    continue;
                }
                let pieces_total = pieces.len().next_power_of_two() * blocks_per_piece;
                assert_eq!(
                    root_of_piece_layer(&pieces, BLOCK_LENGTH * blocks_per_piece as u32),
                    naive_root(leaves, pieces_total),
                    "{count} blocks, {blocks_per_piece} a piece"
                );
            }
        }
    }
}
