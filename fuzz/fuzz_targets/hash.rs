//! SHA-1 of many streams side by side: every kernel of this CPU against the library.
//!
//! The input is a program: how many streams, then calls, each of which says how many bytes every
//! stream is fed and where in a cache line they begin. Checked: the digests are the library's,
//! however the bytes were cut up, and the streams begin anew after them.
#![no_main]

use hash::{Kernel, LANES_MAX, Sha1, Sha1Digest};
use libfuzzer_sys::fuzz_target;
use sha1::Digest;
use std::sync::LazyLock;

/// The most bytes that one call feeds one stream.
const SLICE_BYTES_MAX: usize = 2048;

/// Calls beyond this many show nothing new.
const CALLS_MAX: usize = 16;

/// What the streams are fed: each from a place of its own.
static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..64 * (LANES_MAX + 4) + SLICE_BYTES_MAX)
        .map(|_| next())
        .collect()
});

fuzz_target!(|data: &[u8]| {
    let Some((&[count, rounds], mut program)) = data.split_first_chunk() else {
        return;
    };
    let count = 1 + usize::from(count) % (LANES_MAX + 3);
    for _ in 0..=rounds % 2 {
        program = round(count, program);
    }
});

/// Runs calls until the program says that the streams end; returns the rest of it.
fn round(count: usize, mut program: &[u8]) -> &[u8] {
    let mut calls: Vec<Vec<&[u8]>> = Vec::new();
    while let Some((&kind, rest)) = program.split_first() {
        program = rest;
        if kind == 0 || calls.len() == CALLS_MAX {
            break;
        }
        let mut slices = Vec::with_capacity(count);
        let mut last = 0;
        for stream in 0..count {
            // An odd kind feeds all streams the same length: the fast case.
            if kind % 2 == 0 || stream == 0 {
                let Some((&[low, high], rest)) = program.split_first_chunk() else {
                    break;
                };
                program = rest;
                last = usize::from(u16::from_le_bytes([low, high])) % (SLICE_BYTES_MAX + 1);
            }
            let start = stream * 64 + (usize::from(kind) / 2 + stream) % 64;
            slices.push(&NOISE[start..start + last]);
        }
        slices.resize(count, &[]);
        calls.push(slices);
    }
    let expected: Vec<Sha1Digest> = (0..count)
        .map(|stream| {
            let mut library = sha1::Sha1::new();
            calls
                .iter()
                .for_each(|slices| library.update(slices[stream]));
            library.finalize().into()
        })
        .collect();
    let empty: Sha1Digest = sha1::Sha1::digest([]).into();
    for kernel in Kernel::available() {
        let mut streams = vec![Sha1::new(); count];
        for slices in &calls {
            kernel.update_many(&mut streams, slices);
        }
        let mut digests = vec![[0; 20]; count];
        kernel.finish_many(&mut streams, &mut digests);
        assert_eq!(digests, expected, "{kernel}");
        assert!(
            streams
                .iter_mut()
                .all(|stream| stream.finish_reset() == empty)
        );
    }
    program
}
