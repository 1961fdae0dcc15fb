//! SHA-1 of as many pieces as are worth hashing together on this machine. `seedring-bench hash`
//! compares kernels and libraries; this one is here so that a regression shows beside the others.

use super::{Amount, Run, Workload};

const PIECES: usize = hash::LANES_MAX;
const PIECE_BYTES: usize = 64 << 10;

pub fn workloads() -> Vec<Workload> {
    vec![Workload {
        name: "hash/16 pieces of 64 KiB",
        amount: Amount::Bytes((PIECES * PIECE_BYTES) as u64),
        prepare: hash_pieces,
        result: PIECES as u64,
    }]
}

/// Runs return how many digests are right.
fn hash_pieces() -> Run {
    let pieces: Vec<Vec<u8>> = (0..PIECES)
        .map(|index| vec![index as u8; PIECE_BYTES])
        .collect();
    let expected: Vec<hash::Sha1Digest> = pieces.iter().map(|piece| hash::sha1(piece)).collect();
    Box::new(move || {
        let slices: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        let mut digests = [[0; 20]; PIECES];
        hash::hash_pieces(&slices, &mut digests);
        digests
            .iter()
            .zip(&expected)
            .filter(|(found, right)| found == right)
            .count() as u64
    })
}
