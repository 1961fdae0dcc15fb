//! Published vectors, and every way of feeding a stream against every other.

use super::*;
use ::sha1::Digest;
use proptest::collection;
use proptest::prelude::*;

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
    for kernel in Kernel::available() {
        for length in lengths() {
            let data = noise(length, 7);
            let mut digest = [[0; 20]];
            kernel.hash_pieces(&[&data], &mut digest);
            assert_eq!(
                digest[0],
                sha1_reference(&data),
                "{kernel}, length {length}"
            );
        }
    }
}

#[test]
fn the_text_of_the_standard_agrees_with_the_library() {
    for length in lengths() {
        let data = noise(length, 9);
        let library: Sha1Digest = ::sha1::Sha1::digest(&data).into();
        assert_eq!(sha1_reference(&data), library, "length {length}");
    }
}

#[test]
fn many_pieces_are_hashed_as_each_alone() {
    let all: Vec<Vec<u8>> = lengths()
        .into_iter()
        .map(|length| noise(length, 11))
        .collect();
    let expected: Vec<Sha1Digest> = all.iter().map(|piece| sha1_reference(piece)).collect();
    for kernel in Kernel::available() {
        for count in (0..=2 * LANES_MAX + 1).chain([all.len()]) {
            let pieces: Vec<&[u8]> = all.iter().rev().take(count).map(Vec::as_slice).collect();
            let mut digests = vec![[0; 20]; count];
            kernel.hash_pieces(&pieces, &mut digests);
            let expected: Vec<Sha1Digest> = expected.iter().rev().take(count).copied().collect();
            assert_eq!(digests, expected, "{kernel}, {count} pieces");
        }
    }
}

#[test]
fn equal_pieces_in_all_lanes_are_not_mixed_up() {
    for kernel in Kernel::available() {
        for count in 1..=LANES_MAX + 3 {
            let all: Vec<Vec<u8>> = (0..count)
                .map(|lane| noise(4 << 10, lane as u64 + 1))
                .collect();
            let pieces: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
            let mut digests = vec![[0; 20]; count];
            kernel.hash_pieces(&pieces, &mut digests);
            for (lane, piece) in pieces.iter().enumerate() {
                let expected = sha1_reference(piece);
                assert_eq!(digests[lane], expected, "{kernel}, lane {lane} of {count}");
            }
        }
    }
}

/// All lanes alike, of every length up to beyond four blocks, from every place within a cache line.
#[test]
fn every_length_and_alignment_is_right_in_every_number_of_lanes() {
    const LENGTH_MAX: usize = 300;
    let data: Vec<Vec<u8>> = (0..LANES_MAX)
        .map(|lane| noise(LENGTH_MAX + 64, lane as u64 + 21))
        .collect();
    for kernel in Kernel::available() {
        for length in 0..=LENGTH_MAX {
            // The start moves with lane and length, so that all 64 come by in each lane.
            let piece = |lane: usize| &data[lane][(length * 3 + lane * 5) % 64..][..length];
            let expected: Vec<Sha1Digest> = (0..LANES_MAX)
                .map(|lane| ::sha1::Sha1::digest(piece(lane)).into())
                .collect();
            for count in 1..=LANES_MAX {
                let pieces: Vec<&[u8]> = (0..count).map(piece).collect();
                let mut digests = vec![[0; 20]; count];
                kernel.hash_pieces(&pieces, &mut digests);
                assert_eq!(
                    digests,
                    expected[..count],
                    "{kernel}, {count} of {length} bytes"
                );
            }
        }
    }
}

#[test]
fn slices_of_many_streams_make_the_digests_of_the_whole() {
    for kernel in Kernel::available() {
        for slice_length in [1, 63, 64, 65, 1000, 4096] {
            let all: Vec<Vec<u8>> = (0..LANES_MAX)
                .map(|lane| noise(5000 + 64 * lane, lane as u64 + 3))
                .collect();
            let mut streams = vec![Sha1::new(); all.len()];
            let longest = all.iter().map(Vec::len).max().unwrap_or(0);
            for start in (0..longest).step_by(slice_length) {
                let slice = |data: &'_ Vec<u8>| {
                    start.min(data.len())..(start + slice_length).min(data.len())
                };
                let slices: Vec<&[u8]> = all.iter().map(|data| &data[slice(data)]).collect();
                kernel.update_many(&mut streams, &slices);
            }
            let mut digests = vec![[0; 20]; streams.len()];
            kernel.finish_many(&mut streams, &mut digests);
            for (digest, data) in digests.iter().zip(&all) {
                let expected = sha1_reference(data);
                assert_eq!(*digest, expected, "{kernel}, slices of {slice_length}");
            }
        }
    }
}

/// Pieces that end where memory ends: a kernel that reads a byte too many kills this test.
#[test]
fn no_kernel_reads_beyond_its_pieces() {
    use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
    const PAGE: usize = 64 << 10; // The largest page of any machine.
    let (none, access) = (std::ptr::null_mut(), ProtFlags::READ | ProtFlags::WRITE);
    // SAFETY: a new mapping of ours, at no given place.
    let memory = unsafe { mmap_anonymous(none, 2 * PAGE, access, MapFlags::PRIVATE) }.unwrap();
    // SAFETY: the second half of that mapping, which nothing refers to.
    unsafe { mprotect(memory.byte_add(PAGE), PAGE, MprotectFlags::empty()) }.unwrap();
    // SAFETY: the first half is readable, writable, and only used through this slice.
    let page = unsafe { std::slice::from_raw_parts_mut(memory.cast::<u8>(), PAGE) };
    page.copy_from_slice(&noise(PAGE, 17));
    for kernel in Kernel::available() {
        for length in [1, 64, 128, 192, 640, 1000] {
            let piece = &page[PAGE - length..];
            let expected: Sha1Digest = ::sha1::Sha1::digest(piece).into();
            for count in 1..=LANES_MAX {
                let mut digests = vec![[0; 20]; count];
                kernel.hash_pieces(&vec![piece; count], &mut digests);
                assert!(digests.iter().all(|digest| *digest == expected), "{kernel}");
            }
        }
    }
    // SAFETY: the whole mapping, whose last use was above.
    unsafe { munmap(memory, 2 * PAGE) }.unwrap();
}

#[test]
fn the_best_kernel_is_the_first_and_each_has_a_name_of_its_own() {
    let kernels: Vec<Kernel> = Kernel::available().collect();
    assert_eq!(kernels.first(), Some(&Kernel::best()));
    let names: std::collections::BTreeSet<String> = kernels.iter().map(Kernel::to_string).collect();
    assert_eq!(names.len(), kernels.len(), "{names:?}");
    #[cfg(target_arch = "x86_64")]
    for (feature, name) in [
        (is_x86_feature_detected!("avx512bw"), "AVX-512"),
        (is_x86_feature_detected!("avx2"), "AVX2"),
        (true, "sha1-asm"),
        (true, "AWS-LC"),
    ] {
        assert_eq!(names.contains(name), feature, "{name}");
    }
}

/// One call: for each stream the length of its slice.
fn calls(streams: usize) -> impl Strategy<Value = Vec<Vec<usize>>> {
    let length = prop_oneof![
        2 => 0..200_usize,
        2 => Just(0_usize),
        3 => (0..20_usize).prop_map(|blocks| blocks * 64),
        1 => (1..20_usize).prop_map(|blocks| blocks * 64 - 1),
        1 => 0..3000_usize,
    ];
    let unequal = collection::vec(length.clone(), streams);
    let equal = length.prop_map(move |length| vec![length; streams]);
    collection::vec(prop_oneof![unequal, equal], 0..8)
}

proptest! {
    /// Streams that are fed slices of any lengths, in any number of calls, end in the digests of
    /// what they were fed.
    #[test]
    fn any_sequence_of_updates_agrees_with_the_library(
        (streams, calls) in (1..=2 * LANES_MAX + 1).prop_flat_map(|n| (Just(n), calls(n))),
        seed: u64,
    ) {
        let data: Vec<Vec<u8>> = (0..streams)
            .map(|stream| {
                let length = calls.iter().map(|call| call[stream]).sum();
                noise(length, seed ^ stream as u64)
            })
            .collect();
        let library: Vec<Sha1Digest> =
            data.iter().map(|data| ::sha1::Sha1::digest(data).into()).collect();
        for kernel in Kernel::available() {
            let mut hashed = vec![Sha1::new(); streams];
            let mut starts = vec![0; streams];
            for call in &calls {
                let slices: Vec<&[u8]> = (0..streams)
                    .map(|stream| &data[stream][starts[stream]..][..call[stream]])
                    .collect();
                kernel.update_many(&mut hashed, &slices);
                starts.iter_mut().zip(call).for_each(|(start, length)| *start += length);
            }
            let mut digests = vec![[0; 20]; streams];
            kernel.finish_many(&mut hashed, &mut digests);
            prop_assert_eq!(&digests, &library, "{}", kernel);
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
