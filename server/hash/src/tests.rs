//! Published vectors, and every way of feeding a stream against every other.

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes without a short period, the same in every run.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// SHA-1 written from the text of FIPS 180-4 for this test alone, so that a kernel is never
/// compared with itself.
fn sha1_reference(data: &[u8]) -> Sha1Digest {
    let mut state: [u32; 5] = [
        0x6745_2301,
        0xefcd_ab89,
        0x98ba_dcfe,
        0x1032_5476,
        0xc3d2_e1f0,
    ];
    let mut message = data.to_vec();
    message.push(0x80);
    while message.len() % 64 != 56 {
        message.push(0);
    }
    message.extend_from_slice(&(data.len() as u64 * 8).to_be_bytes());
    for block in message.chunks_exact(64) {
        let mut w = [0u32; 80];
        for (word, bytes) in w.iter_mut().zip(block.chunks_exact(4)) {
            *word = u32::from_be_bytes(bytes.try_into().unwrap());
        }
        for t in 16..80 {
            w[t] = (w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (t, word) in w.iter().enumerate() {
            let (f, k) = match t {
                0..20 => ((b & c) | (!b & d), 0x5a82_7999),
                20..40 => (b ^ c ^ d, 0x6ed9_eba1),
                40..60 => ((b & c) | (b & d) | (c & d), 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6_u32),
            };
            let sum = a.rotate_left(5).wrapping_add(f).wrapping_add(e);
            (e, d, c, b, a) = (
                d,
                c,
                b.rotate_left(30),
                a,
                sum.wrapping_add(k).wrapping_add(*word),
            );
        }
        for (sum, value) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(value);
        }
    }
    let mut digest = [0; 20];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

/// Lengths around every boundary that a block of 64 bytes and its padding have.
fn lengths() -> Vec<usize> {
    let mut lengths: Vec<usize> = (0..=130).collect();
    for boundary in [4096, 16 << 10, 64 << 10] {
        lengths.extend([
            boundary - 64,
            boundary - 1,
            boundary,
            boundary + 1,
            boundary + 55,
        ]);
    }
    lengths
}

#[test]
fn sha1_vectors_of_fips_180() {
    assert_eq!(hex(&sha1(b"")), "da39a3ee5e6b4b0d3255bfef95601890afd80709");
    assert_eq!(
        hex(&sha1(b"abc")),
        "a9993e364706816aba3e25717850c26c9cd0d89d"
    );
    assert_eq!(
        hex(&sha1(
            b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"
        )),
        "84983e441c3bd26ebaae4aa1f95129e5e54670f1"
    );
    assert_eq!(
        hex(&sha1(&vec![b'a'; 1_000_000])),
        "34aa973cd4c4daa4f61eeb2bdbad27316534016f"
    );
}

#[test]
fn sha256_vectors_of_fips_180() {
    assert_eq!(
        hex(&sha256(b"")),
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    );
    assert_eq!(
        hex(&sha256(b"abc")),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    assert_eq!(
        hex(&sha256(&vec![b'a'; 1_000_000])),
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
    );
}

#[test]
fn every_length_agrees_with_the_text_of_the_standard() {
    for length in lengths() {
        let data = noise(length, 7);
        assert_eq!(sha1(&data), sha1_reference(&data), "length {length}");
    }
}

#[test]
fn many_pieces_are_hashed_as_each_alone() {
    let all: Vec<Vec<u8>> = lengths()
        .into_iter()
        .map(|length| noise(length, 11))
        .collect();
    for count in (0..=2 * LANES_MAX + 1).chain([all.len()]) {
        let pieces: Vec<&[u8]> = all.iter().rev().take(count).map(Vec::as_slice).collect();
        let mut digests = vec![[0; 20]; count];
        hash_pieces(&pieces, &mut digests);
        for (piece, digest) in pieces.iter().zip(&digests) {
            assert_eq!(
                *digest,
                sha1_reference(piece),
                "{count} pieces, length {}",
                piece.len()
            );
        }
    }
}

#[test]
fn equal_pieces_in_all_lanes_are_not_mixed_up() {
    for count in 1..=LANES_MAX + 3 {
        let all: Vec<Vec<u8>> = (0..count)
            .map(|lane| noise(16 << 10, lane as u64 + 1))
            .collect();
        let pieces: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
        let mut digests = vec![[0; 20]; count];
        hash_pieces(&pieces, &mut digests);
        for (lane, piece) in pieces.iter().enumerate() {
            assert_eq!(
                digests[lane],
                sha1_reference(piece),
                "lane {lane} of {count}"
            );
        }
    }
}

#[test]
fn slices_of_many_streams_make_the_digests_of_the_whole() {
    for slice_length in [1, 63, 64, 65, 1000, 4096] {
        let all: Vec<Vec<u8>> = (0..LANES_MAX)
            .map(|lane| noise(5000 + 64 * lane, lane as u64 + 3))
            .collect();
        let mut streams = vec![Sha1::new(); all.len()];
        let longest = all.iter().map(Vec::len).max().unwrap_or(0);
        for start in (0..longest).step_by(slice_length) {
            let slices: Vec<&[u8]> = all
                .iter()
                .map(|data| &data[start.min(data.len())..(start + slice_length).min(data.len())])
                .collect();
            Sha1::update_many(&mut streams, &slices);
        }
        for (stream, data) in streams.into_iter().zip(&all) {
            assert_eq!(
                stream.finish(),
                sha1_reference(data),
                "slices of {slice_length}"
            );
        }
    }
}

#[test]
fn a_stream_starts_anew_after_its_digest() {
    let mut stream = Sha1::new();
    stream.update(b"something else");
    stream.finish_reset();
    stream.update(b"abc");
    assert_eq!(stream.finish_reset(), sha1(b"abc"));
    assert_eq!(stream.finish(), sha1(b""));
    let mut stream = Sha256::new();
    stream.update(b"something else");
    stream.finish_reset();
    stream.update(b"abc");
    assert_eq!(stream.finish(), sha256(b"abc"));
}

#[test]
fn blocks_are_hashed_as_each_alone() {
    let all: Vec<Vec<u8>> = lengths()
        .into_iter()
        .map(|length| noise(length, 5))
        .collect();
    let blocks: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
    let mut digests = vec![[0; 32]; blocks.len()];
    hash_blocks(&blocks, &mut digests);
    for (block, digest) in blocks.iter().zip(&digests) {
        assert_eq!(*digest, sha256(block));
    }
}

#[test]
fn lanes_stay_within_their_bound() {
    assert!((1..=LANES_MAX).contains(&lanes()));
}
