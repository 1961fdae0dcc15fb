//! Which code hashes SHA-1 blocks on this CPU, and which streams go side by side in it.
//!
//! A wide kernel feeds one block to each of its lanes in the time of one stream's block, so with
//! few streams left the library, one stream after the other, is sooner done: [`Kernel::compress`]
//! draws that line. Which kernel is best is decided by what the CPU can do; figures are in
//! docs/adr/0007-sha1-kernels.md.

use crate::LANES_MAX;
use crate::single::Single;
use crate::stream::{self, Sha1, Sha1Digest};
#[cfg(target_arch = "x86_64")]
use crate::{avx2, avx512};
use std::fmt;
use std::sync::OnceLock;

/// What SHA-1 takes at a time.
pub(crate) type Block = [u8; 64];

/// The states of up to [`LANES_MAX`] streams.
pub(crate) type States = [[u32; 5]; LANES_MAX];

/// A way to hash SHA-1 that runs on this CPU.
///
/// The functions of this crate use [`Kernel::best`]; tests and benchmarks compare the others with
/// it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kernel {
    /// Only what this CPU can run is ever here: [`Kernel::available`] makes all kernels.
    wide: Option<Wide>,
    single: Single,
    /// With fewer streams than this left, they go one after the other.
    streams_wide_min: usize,
}

/// A kernel of ours that hashes several streams side by side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wide {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Kernel {
    /// The fastest on this CPU.
    pub fn best() -> Kernel {
        static BEST: OnceLock<Kernel> = OnceLock::new();
        // There is always a library for single streams.
        *BEST.get_or_init(|| Kernel::all()[0].expect("the first kernel is always there"))
    }

    /// All that run on this CPU, the fastest first.
    pub fn available() -> impl Iterator<Item = Kernel> {
        Kernel::all().into_iter().flatten()
    }

    /// The kernels that run here, the fastest first, then none.
    fn all() -> [Option<Kernel>; 4] {
        let mut all = [None; 4];
        let wide = Wide::available().map(|wide| Kernel {
            wide: Some(wide),
            single: Single::available()[0],
            streams_wide_min: wide.streams_min(),
        });
        let single = Single::available().iter().map(|&single| Kernel {
            wide: None,
            single,
            streams_wide_min: usize::MAX,
        });
        for (place, kernel) in all.iter_mut().zip(wide.chain(single)) {
            *place = Some(kernel);
        }
        all
    }

    /// How many streams it hashes side by side: between 1 and [`LANES_MAX`].
    pub fn lanes(self) -> usize {
        match self.wide {
            #[cfg(target_arch = "x86_64")]
            Some(Wide::Avx512) => avx512::LANES,
            #[cfg(target_arch = "x86_64")]
            Some(Wide::Avx2) => avx2::LANES,
            None => 1,
        }
    }

    /// [`Sha1::update_many`] by this kernel.
    ///
    /// # Panics
    ///
    /// If there are not as many slices as streams.
    pub fn update_many(self, streams: &mut [Sha1], slices: &[&[u8]]) {
        assert_eq!(streams.len(), slices.len(), "one slice for each stream");
        let lanes = self.lanes();
        for (streams, slices) in streams.chunks_mut(lanes).zip(slices.chunks(lanes)) {
            stream::update(self, streams, slices);
        }
    }

    /// [`Sha1::finish_many`] by this kernel.
    ///
    /// # Panics
    ///
    /// If there are not as many digests as streams.
    pub fn finish_many(self, streams: &mut [Sha1], digests: &mut [Sha1Digest]) {
        assert_eq!(streams.len(), digests.len(), "one digest for each stream");
        let lanes = self.lanes();
        for (streams, digests) in streams.chunks_mut(lanes).zip(digests.chunks_mut(lanes)) {
            stream::finish(self, streams, digests);
        }
    }

    /// [`crate::hash_pieces`] by this kernel.
    ///
    /// # Panics
    ///
    /// If there are not as many digests as pieces.
    pub fn hash_pieces(self, pieces: &[&[u8]], digests: &mut [Sha1Digest]) {
        assert_eq!(pieces.len(), digests.len(), "one digest for each piece");
        let mut streams: [Sha1; LANES_MAX] = Default::default();
        let lanes = self.lanes();
        for (pieces, digests) in pieces.chunks(lanes).zip(digests.chunks_mut(lanes)) {
            let streams = &mut streams[..pieces.len()];
            stream::update(self, streams, pieces);
            stream::finish(self, streams, digests);
        }
    }

    /// Feeds to each of the first [`Kernel::lanes`] states the blocks of the same index, and takes
    /// them away.
    pub(crate) fn compress(self, states: &mut States, blocks: &mut [&[Block]; LANES_MAX]) {
        if let Some(wide) = self.wide {
            loop {
                let waiting = blocks.iter().filter(|blocks| !blocks.is_empty());
                if waiting.clone().count() < self.streams_wide_min {
                    break;
                }
                let count = waiting.map(|blocks| blocks.len()).min().unwrap_or(0);
                wide.compress(states, blocks, count);
                for blocks in blocks.iter_mut() {
                    *blocks = blocks.get(count..).unwrap_or_default();
                }
            }
        }
        for (state, blocks) in states.iter_mut().zip(blocks) {
            if !blocks.is_empty() {
                self.single.compress(state, std::mem::take(blocks));
            }
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match (self.wide, self.single) {
            #[cfg(target_arch = "x86_64")]
            (Some(Wide::Avx512), _) => "AVX-512",
            #[cfg(target_arch = "x86_64")]
            (Some(Wide::Avx2), _) => "AVX2",
            #[cfg(target_arch = "x86_64")]
            (None, Single::Sha1Asm) => "sha1-asm",
            (None, Single::AwsLc) => "AWS-LC",
        };
        f.write_str(name)
    }
}

impl Wide {
    /// Those that run on this CPU, the fastest first.
    #[cfg(target_arch = "x86_64")]
    fn available() -> impl Iterator<Item = Wide> {
        let avx2 = is_x86_feature_detected!("avx2");
        let avx512 = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
        let avx512 = (avx512 && avx2).then_some(Wide::Avx512);
        avx512.into_iter().chain(avx2.then_some(Wide::Avx2))
    }

    /// None: there are no kernels for this architecture.
    #[cfg(not(target_arch = "x86_64"))]
    fn available() -> impl Iterator<Item = Wide> {
        std::iter::empty()
    }

    /// How many streams it takes for this kernel to be sooner done than a library that hashes them
    /// one after the other.
    #[cfg(target_arch = "x86_64")]
    fn streams_min(self) -> usize {
        let has_sha_ni = is_x86_feature_detected!("sha");
        match (self, has_sha_ni) {
            (Wide::Avx512 | Wide::Avx2, false) => 3,
            (Wide::Avx512, true) => 5,
            (Wide::Avx2, true) => 6,
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn streams_min(self) -> usize {
        match self {}
    }

    /// Feeds `count` blocks of each of `blocks` that has any to the state of the same index.
    fn compress(self, states: &mut States, blocks: &[&[Block]; LANES_MAX], count: usize) {
        #[cfg(target_arch = "x86_64")]
        match self {
            // SAFETY: a `Wide` only comes from `Wide::available`, which asked the CPU.
            Wide::Avx512 => unsafe { side_by_side(states, blocks, count, avx512::compress) },
            // SAFETY: the same.
            Wide::Avx2 => unsafe { side_by_side(states, blocks, count, avx2::compress) },
        }
        #[cfg(not(target_arch = "x86_64"))]
        match self {}
    }
}

/// Transposes the states of the first `N` streams, has `compress` feed `count` blocks of each to
/// them, and puts the states of those that have blocks back.
///
/// # Safety
///
/// `compress` may be called on this CPU; it reads `count` blocks from each pointer and no more.
#[cfg(target_arch = "x86_64")]
unsafe fn side_by_side<const N: usize>(
    states: &mut States,
    blocks: &[&[Block]; LANES_MAX],
    count: usize,
    compress: unsafe fn(&mut [[u32; N]; 5], &[*const Block; N], usize),
) {
    // A lane without a stream is given the blocks of one that has, and its result is dropped.
    let Some(stand_in) = blocks.iter().find(|blocks| !blocks.is_empty()) else {
        return;
    };
    let mut pointers = [stand_in.as_ptr(); N];
    let mut words = [[0; N]; 5];
    for (lane, (state, blocks)) in states.iter().zip(blocks).enumerate().take(N) {
        if !blocks.is_empty() {
            pointers[lane] = blocks[..count].as_ptr();
            for (words, word) in words.iter_mut().zip(state) {
                words[lane] = *word;
            }
        }
    }
    assert!(
        stand_in.len() >= count,
        "every run of blocks has as many as are hashed"
    );
    // SAFETY: the CPU is the caller's promise; each pointer is that of a slice of at least `count`
    // blocks: cut to that length above, or the stand-in, whose length was just compared.
    unsafe { compress(&mut words, &pointers, count) };
    for (lane, (state, blocks)) in states.iter_mut().zip(blocks).enumerate().take(N) {
        if !blocks.is_empty() {
            for (words, word) in words.iter().zip(state) {
                *word = words[lane];
            }
        }
    }
}
