//! SHA-1 of sixteen streams side by side with AVX-512.
//!
//! Vector `i` of the message schedule holds word `i` of all sixteen streams. A block of each stream
//! is brought into that form by a 16x16 transposition: half of it is done by the loads (32 bytes of
//! two streams make a vector), the rest by shuffles. Shuffles all go through one port, arithmetic
//! through two, so the transposition of the next block is spread over the rounds of this one, where
//! that port has room. Ternary logic does any function of three words in one instruction, and
//! rotation is one.
//!
//! Limits: 10 instructions a round, two a cycle; the port limit is about 2.5 bytes a cycle.
//! Does not: know streams, lengths or padding.

use crate::kernel::Block;
use crate::rounds::{CONSTANTS, five_rounds};
use core::arch::x86_64::*;

/// How many streams go side by side.
pub(crate) const LANES: usize = 16;

/// How far ahead of the block that is being transposed each stream is fetched into the cache, in
/// bytes. Sixteen streams are more than the hardware's prefetchers follow.
const PREFETCH_BYTES: usize = 512;

/// Feeds the first `count` blocks of each of `streams` to the state of the same index.
///
/// # Safety
///
/// The CPU has AVX-512 F and BW, and each of the pointers is readable for `count` blocks.
#[target_feature(enable = "avx512f,avx512bw,avx2")]
pub(crate) unsafe fn compress(
    words: &mut [[u32; LANES]; 5],
    streams: &[*const Block; LANES],
    count: usize,
) {
    if count == 0 {
        return;
    }
    let mut state = [splat(0); 5];
    for (vector, words) in state.iter_mut().zip(&*words) {
        // SAFETY: `words` are sixteen words, as many as a vector has.
        *vector = unsafe { _mm512_loadu_si512(words.as_ptr().cast()) };
    }
    let mut schedule = Schedule::new();
    for part in 0..4 {
        // SAFETY: there is a block, and the caller vouches for it.
        unsafe { schedule.load(streams, 0, part) };
    }
    for column in 0..8 {
        schedule.shuffle(column);
    }
    for index in 0..count {
        // In the last turn the same block again: its words are not used.
        let next = (index + 1).min(count - 1);
        // SAFETY: `next` is below `count`, and the caller vouches for that many blocks.
        state = unsafe { rounds(state, &mut schedule, streams, next) };
    }
    for (vector, words) in state.iter().zip(words) {
        // SAFETY: `words` are sixteen words, as many as a vector has.
        unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), *vector) };
    }
}

/// The eighty rounds of the block in `schedule`, and between them the transposition of block `next`
/// of each stream into it.
///
/// # Safety
///
/// Each of the pointers is readable for block `next`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx2")]
unsafe fn rounds(
    state: [__m512i; 5],
    schedule: &mut Schedule,
    streams: &[*const Block; LANES],
    next: usize,
) -> [__m512i; 5] {
    keep_order();
    let mut w = schedule.words;
    let [mut a, mut b, mut c, mut d, mut e] = state;
    let constant = splat(CONSTANTS[0]);
    five_rounds!(w, choose, constant, 0, a b c d e);
    five_rounds!(w, choose, constant, 5, a b c d e);
    five_rounds!(w, choose, constant, 10, a b c d e);
    five_rounds!(w, choose, constant, 15, a b c d e);
    keep_order();
    // From here on the words of this block are in registers, and `schedule` is free for the next.
    let constant = splat(CONSTANTS[1]);
    macro_rules! load_and_five_rounds {
        ($part:literal, $constant:ident, $round:literal) => {
            // SAFETY: the caller vouches for block `next`.
            unsafe { schedule.load(streams, next, $part) };
            prefetch(streams[2 * $part], next);
            prefetch(streams[2 * $part + 1], next);
            five_rounds!(w, parity, $constant, $round, a b c d e);
            keep_order();
        };
    }
    load_and_five_rounds!(0, constant, 20);
    load_and_five_rounds!(1, constant, 25);
    load_and_five_rounds!(2, constant, 30);
    load_and_five_rounds!(3, constant, 35);
    macro_rules! shuffle_and_five_rounds {
        ($column:literal, $function:ident, $constant:ident, $round:literal) => {
            schedule.shuffle($column);
            prefetch(streams[8 + $column], next);
            five_rounds!(w, $function, $constant, $round, a b c d e);
            keep_order();
        };
    }
    let constant = splat(CONSTANTS[2]);
    shuffle_and_five_rounds!(0, majority, constant, 40);
    shuffle_and_five_rounds!(1, majority, constant, 45);
    shuffle_and_five_rounds!(2, majority, constant, 50);
    shuffle_and_five_rounds!(3, majority, constant, 55);
    let constant = splat(CONSTANTS[3]);
    shuffle_and_five_rounds!(4, parity, constant, 60);
    shuffle_and_five_rounds!(5, parity, constant, 65);
    shuffle_and_five_rounds!(6, parity, constant, 70);
    shuffle_and_five_rounds!(7, parity, constant, 75);
    [
        add(state[0], a),
        add(state[1], b),
        add(state[2], c),
        add(state[3], d),
        add(state[4], e),
    ]
}

/// The words of a block of all streams on their way through the transposition.
#[repr(align(64))]
struct Schedule {
    /// Vector `4 * part + word`, for the parts of [`Schedule::load`]: in its four quarters, word
    /// `word` of the part's first four streams, then of its other four, each from two places of the
    /// block.
    halfway: [__m512i; 16],
    /// Vector `i`: word `i` of all streams.
    words: [__m512i; 16],
}

impl Schedule {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx2")]
    fn new() -> Schedule {
        Schedule {
            halfway: [splat(0); 16],
            words: [splat(0); 16],
        }
    }

    /// Loads one of the four parts of block `index`: 32 bytes of eight streams, and transposes 4x4
    /// words within each quarter of the vectors. Parts 0 and 1 are the first halves of the blocks,
    /// 2 and 3 the second; even parts hold streams 0 to 3 and 8 to 11, odd ones the others.
    ///
    /// # Safety
    ///
    /// Each of the pointers is readable for block `index`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx2")]
    unsafe fn load(&mut self, streams: &[*const Block; LANES], index: usize, part: usize) {
        let first = 4 * (part % 2);
        let row = |lane: usize| {
            let half = |lane: usize| streams[lane].wrapping_add(index).cast::<__m256i>();
            let low = half(lane).wrapping_add(part / 2);
            let high = half(lane + 8).wrapping_add(part / 2);
            // SAFETY: a block has two halves of 32 bytes, and the caller vouches for the block.
            let (low, high) = unsafe { (_mm256_loadu_si256(low), _mm256_loadu_si256(high)) };
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
        };
        let (a, b, c, d) = (row(first), row(first + 1), row(first + 2), row(first + 3));
        let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        self.halfway[4 * part] = _mm512_unpacklo_epi64(ab_low, cd_low);
        self.halfway[4 * part + 1] = _mm512_unpackhi_epi64(ab_low, cd_low);
        self.halfway[4 * part + 2] = _mm512_unpacklo_epi64(ab_high, cd_high);
        self.halfway[4 * part + 3] = _mm512_unpackhi_epi64(ab_high, cd_high);
    }

    /// Brings the quarters of two vectors into the order of the streams: one of eight such steps,
    /// each of which makes two words, in the byte order of the machine.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx2")]
    fn shuffle(&mut self, column: usize) {
        let big_endian =
            _mm512_broadcast_i32x4(_mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203));
        let (half, word) = (8 * (column / 4), column % 4);
        let (a, b) = (self.halfway[half + word], self.halfway[half + 4 + word]);
        let low = _mm512_set_epi64(13, 12, 5, 4, 9, 8, 1, 0);
        let high = _mm512_set_epi64(15, 14, 7, 6, 11, 10, 3, 2);
        let (low, high) = (
            _mm512_permutex2var_epi64(a, low, b),
            _mm512_permutex2var_epi64(a, high, b),
        );
        self.words[half + word] = _mm512_shuffle_epi8(low, big_endian);
        self.words[half + 4 + word] = _mm512_shuffle_epi8(high, big_endian);
    }
}

/// Fetches the bytes ahead of block `index` into the cache.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx2")]
fn prefetch(stream: *const Block, index: usize) {
    let ahead = stream.wrapping_add(index).wrapping_byte_add(PREFETCH_BYTES);
    // SAFETY: a prefetch reads nothing that the program sees, so any address will do.
    #[allow(unused_unsafe, reason = "newer compilers know that")]
    unsafe {
        _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
    }
}

/// Keeps the compiler from moving loads and stores across: left to itself it does the whole
/// transposition in one go, where the shuffle port is the limit.
#[inline(always)]
fn keep_order() {
    // SAFETY: it is no instruction at all.
    unsafe { core::arch::asm!("", options(nostack, preserves_flags)) };
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx2")]
fn splat(word: u32) -> __m512i {
    _mm512_set1_epi32(word.cast_signed())
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx2")]
fn add(a: __m512i, b: __m512i) -> __m512i {
    _mm512_add_epi32(a, b)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx2")]
fn xor_of_four(a: __m512i, b: __m512i, c: __m512i, d: __m512i) -> __m512i {
    _mm512_xor_si512(parity(a, b, c), d)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx2")]
fn rotate_1(a: __m512i) -> __m512i {
    _mm512_rol_epi32::<1>(a)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx2")]
fn rotate_5(a: __m512i) -> __m512i {
    _mm512_rol_epi32::<5>(a)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx2")]
fn rotate_30(a: __m512i) -> __m512i {
    _mm512_rol_epi32::<30>(a)
}

/// The immediate of ternary logic is the function's truth table, for `b` `c` `d` from 000 to 111.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx2")]
fn choose(b: __m512i, c: __m512i, d: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0b1100_1010>(b, c, d)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx2")]
fn parity(b: __m512i, c: __m512i, d: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0b1001_0110>(b, c, d)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx2")]
fn majority(b: __m512i, c: __m512i, d: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0b1110_1000>(b, c, d)
}
