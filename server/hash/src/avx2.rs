//! SHA-1 of eight streams side by side with AVX2.
//!
//! Vector `i` of the message schedule holds word `i` of all eight streams, so that every round is
//! done for all of them at once. The blocks lie one after the other in each stream: four loads and
//! a 4x4 transposition for each quarter of a block bring them into that form.
//!
//! Limits: about 20 instructions a round, three a cycle; the port limit is about 1 byte a cycle.
//! Does not: know streams, lengths or padding.

use crate::kernel::Block;
use crate::rounds::{CONSTANTS, five_rounds};
use core::arch::x86_64::*;
use std::array;

/// How many streams go side by side.
pub(crate) const LANES: usize = 8;

/// How far ahead of the block that is being hashed each stream is fetched into the cache, in bytes.
/// Eight streams are more than the hardware's prefetchers follow reliably.
const PREFETCH_BYTES: usize = 512;

/// Feeds the first `count` blocks of each of `streams` to the state of the same index.
///
/// # Safety
///
/// The CPU has AVX2, and each of the pointers is readable for `count` blocks.
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn compress(
    words: &mut [[u32; LANES]; 5],
    streams: &[*const Block; LANES],
    count: usize,
) {
    let mut state = [splat(0); 5];
    for (vector, words) in state.iter_mut().zip(&*words) {
        // SAFETY: `words` are eight words, as many as a vector has.
        *vector = unsafe { _mm256_loadu_si256(words.as_ptr().cast()) };
    }
    for index in 0..count {
        for stream in streams {
            let ahead = stream.wrapping_add(index).wrapping_byte_add(PREFETCH_BYTES);
            // SAFETY: a prefetch reads nothing that the program sees, so any address will do.
            #[allow(unused_unsafe, reason = "newer compilers know that")]
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
            }
        }
        // SAFETY: `index` is below `count`, and the caller vouches for that many blocks.
        let w = unsafe { load(&array::from_fn(|lane| streams[lane].add(index))) };
        state = rounds(state, w);
    }
    for (vector, words) in state.iter().zip(words) {
        // SAFETY: `words` are eight words, as many as a vector has.
        unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), *vector) };
    }
}

/// Brings one block of each stream into sixteen vectors: vector `i` holds word `i` of all.
///
/// # Safety
///
/// Each of the pointers is readable for a block.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load(blocks: &[*const Block; LANES]) -> [__m256i; 16] {
    let big_endian =
        _mm256_broadcastsi128_si256(_mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203));
    let mut w = [splat(0); 16];
    for quarter in 0..4 {
        // Row `lane`: four words of stream `lane` below, of stream `lane + 4` above.
        let row = |lane: usize| {
            let low = blocks[lane].cast::<__m128i>().wrapping_add(quarter);
            let high = blocks[lane + 4].cast::<__m128i>().wrapping_add(quarter);
            // SAFETY: a block has four quarters of 16 bytes, and the caller vouches for the block.
            let (low, high) = unsafe { (_mm_loadu_si128(low), _mm_loadu_si128(high)) };
            _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), high)
        };
        let (a, b, c, d) = (row(0), row(1), row(2), row(3));
        let (ab_low, ab_high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
        let (cd_low, cd_high) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
        let columns = [
            _mm256_unpacklo_epi64(ab_low, cd_low),
            _mm256_unpackhi_epi64(ab_low, cd_low),
            _mm256_unpacklo_epi64(ab_high, cd_high),
            _mm256_unpackhi_epi64(ab_high, cd_high),
        ];
        for (word, column) in columns.into_iter().enumerate() {
            w[4 * quarter + word] = _mm256_shuffle_epi8(column, big_endian);
        }
    }
    w
}

/// The eighty rounds of one block.
#[inline]
#[target_feature(enable = "avx2")]
fn rounds(state: [__m256i; 5], mut w: [__m256i; 16]) -> [__m256i; 5] {
    let [mut a, mut b, mut c, mut d, mut e] = state;
    macro_rules! twenty_rounds {
        ($function:ident, $round:literal) => {
            let constant = splat(CONSTANTS[$round / 20]);
            five_rounds!(w, $function, constant, $round, a b c d e);
            five_rounds!(w, $function, constant, $round + 5, a b c d e);
            five_rounds!(w, $function, constant, $round + 10, a b c d e);
            five_rounds!(w, $function, constant, $round + 15, a b c d e);
        };
    }
    twenty_rounds!(choose, 0);
    twenty_rounds!(parity, 20);
    twenty_rounds!(majority, 40);
    twenty_rounds!(parity, 60);
    [
        add(state[0], a),
        add(state[1], b),
        add(state[2], c),
        add(state[3], d),
        add(state[4], e),
    ]
}

#[inline]
#[target_feature(enable = "avx2")]
fn splat(word: u32) -> __m256i {
    _mm256_set1_epi32(word.cast_signed())
}

#[inline]
#[target_feature(enable = "avx2")]
fn add(a: __m256i, b: __m256i) -> __m256i {
    _mm256_add_epi32(a, b)
}

#[inline]
#[target_feature(enable = "avx2")]
fn xor_of_four(a: __m256i, b: __m256i, c: __m256i, d: __m256i) -> __m256i {
    _mm256_xor_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(c, d))
}

/// Rotations are two shifts and an `or`; doubling is the shift that any port can do.
#[inline]
#[target_feature(enable = "avx2")]
fn rotate_1(a: __m256i) -> __m256i {
    _mm256_or_si256(_mm256_add_epi32(a, a), _mm256_srli_epi32::<31>(a))
}

#[inline]
#[target_feature(enable = "avx2")]
fn rotate_5(a: __m256i) -> __m256i {
    _mm256_or_si256(_mm256_slli_epi32::<5>(a), _mm256_srli_epi32::<27>(a))
}

#[inline]
#[target_feature(enable = "avx2")]
fn rotate_30(a: __m256i) -> __m256i {
    _mm256_or_si256(_mm256_slli_epi32::<30>(a), _mm256_srli_epi32::<2>(a))
}

#[inline]
#[target_feature(enable = "avx2")]
fn choose(b: __m256i, c: __m256i, d: __m256i) -> __m256i {
    _mm256_xor_si256(d, _mm256_and_si256(b, _mm256_xor_si256(c, d)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn parity(b: __m256i, c: __m256i, d: __m256i) -> __m256i {
    _mm256_xor_si256(_mm256_xor_si256(c, d), b)
}

#[inline]
#[target_feature(enable = "avx2")]
fn majority(b: __m256i, c: __m256i, d: __m256i) -> __m256i {
    _mm256_or_si256(
        _mm256_and_si256(c, d),
        _mm256_and_si256(b, _mm256_or_si256(c, d)),
    )
}
