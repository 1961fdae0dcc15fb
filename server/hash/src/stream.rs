//! The SHA-1 stream: its state between slices of any length, and its padding at the end.
//!
//! A stream keeps fewer than 64 bytes that do not fill a block yet. The functions that take many
//! streams turn them into runs of whole blocks, one run for each stream, and leave it to the kernel
//! which of them go side by side.
//!
//! Limits: a stream of 2^61 bytes, as the standard has it.
//! Does not: know any kernel.

use crate::LANES_MAX;
use crate::kernel::{Block, Kernel, States};

/// A SHA-1 digest.
pub type Sha1Digest = [u8; 20];

/// The state that a stream starts from (FIPS 180-4, 5.3.1).
const INITIAL: [u32; 5] = [
    0x6745_2301,
    0xefcd_ab89,
    0x98ba_dcfe,
    0x1032_5476,
    0xc3d2_e1f0,
];

/// The last bytes of a block that hold the stream's length.
const LENGTH_BYTES: usize = 8;

/// A SHA-1 stream.
#[derive(Clone)]
pub struct Sha1 {
    state: [u32; 5],
    /// The bytes so far; those that do not fill a block are in `partial`.
    length: u64,
    partial: Block,
}

impl Default for Sha1 {
    fn default() -> Self {
        Sha1 {
            state: INITIAL,
            length: 0,
            partial: [0; 64],
        }
    }
}

impl Sha1 {
    /// Starts a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends `data` to the stream.
    pub fn update(&mut self, data: &[u8]) {
        Kernel::best().update_many(std::slice::from_mut(self), &[data]);
    }

    /// Appends to each of `streams` the slice of the same index. Slices may differ in length; equal
    /// lengths that are multiples of 64 bytes are the fast case.
    ///
    /// # Panics
    ///
    /// If there are not as many slices as streams.
    pub fn update_many(streams: &mut [Sha1], slices: &[&[u8]]) {
        Kernel::best().update_many(streams, slices);
    }

    /// Ends the stream and returns its digest.
    pub fn finish(mut self) -> Sha1Digest {
        self.finish_reset()
    }

    /// Returns the digest and starts the stream anew.
    pub fn finish_reset(&mut self) -> Sha1Digest {
        let mut digest = [[0; 20]];
        Kernel::best().finish_many(std::slice::from_mut(self), &mut digest);
        digest[0]
    }

    /// Writes the digest of each of `streams` to the digest of the same index, and starts the
    /// streams anew.
    ///
    /// # Panics
    ///
    /// If there are not as many digests as streams.
    pub fn finish_many(streams: &mut [Sha1], digests: &mut [Sha1Digest]) {
        Kernel::best().finish_many(streams, digests);
    }

    /// How many bytes wait in `partial` for their block to fill.
    fn waiting(&self) -> usize {
        (self.length % 64) as usize
    }

    /// Moves bytes of `data` into the block that waits to be filled, if one does. Returns the rest
    /// of `data`, and whether the block is full now.
    fn fill_partial<'data>(&mut self, data: &'data [u8]) -> (&'data [u8], bool) {
        let waiting = self.waiting();
        if waiting == 0 {
            return (data, false);
        }
        let (head, rest) = data.split_at(data.len().min(64 - waiting));
        self.partial[waiting..waiting + head.len()].copy_from_slice(head);
        self.length += head.len() as u64;
        (rest, waiting + head.len() == 64)
    }

    /// The blocks that end the stream: what waits, a one bit, zeros, the length in bits. Returns
    /// how many of the two are used.
    fn padding(&self, blocks: &mut [Block; 2]) -> usize {
        let waiting = self.waiting();
        let count = if waiting + 1 + LENGTH_BYTES > 64 {
            2
        } else {
            1
        };
        let bytes = blocks.as_flattened_mut();
        bytes[..waiting].copy_from_slice(&self.partial[..waiting]);
        bytes[waiting] = 0x80;
        let bits = self.length.wrapping_mul(8);
        bytes[count * 64 - LENGTH_BYTES..count * 64].copy_from_slice(&bits.to_be_bytes());
        count
    }
}

/// Appends `slices` to `streams`: at most as many as there are lanes.
pub(crate) fn update(kernel: Kernel, streams: &mut [Sha1], slices: &[&[u8]]) {
    let mut rests = [&[][..]; LANES_MAX];
    let mut full = [false; LANES_MAX];
    for (index, (stream, slice)) in streams.iter_mut().zip(slices).enumerate() {
        (rests[index], full[index]) = stream.fill_partial(slice);
    }
    let mut states = load(streams);
    if full.contains(&true) {
        let mut blocks: [&[Block]; LANES_MAX] = [&[]; LANES_MAX];
        for (index, stream) in streams.iter().enumerate().filter(|(index, _)| full[*index]) {
            blocks[index] = std::slice::from_ref(&stream.partial);
        }
        kernel.compress(&mut states, &mut blocks);
    }
    let mut blocks: [&[Block]; LANES_MAX] = [&[]; LANES_MAX];
    for (index, stream) in streams.iter_mut().enumerate() {
        let (whole, tail) = rests[index].as_chunks();
        blocks[index] = whole;
        // A tail begins a block: what waited before was either filled up or had no rest.
        let waiting = stream.waiting();
        stream.partial[waiting..waiting + tail.len()].copy_from_slice(tail);
        stream.length += rests[index].len() as u64;
    }
    kernel.compress(&mut states, &mut blocks);
    for (stream, state) in streams.iter_mut().zip(states) {
        stream.state = state;
    }
}

/// Ends `streams`, at most as many as there are lanes, and starts them anew.
pub(crate) fn finish(kernel: Kernel, streams: &mut [Sha1], digests: &mut [Sha1Digest]) {
    let mut padding = [[[0; 64]; 2]; LANES_MAX];
    let mut blocks: [&[Block]; LANES_MAX] = [&[]; LANES_MAX];
    for ((stream, padding), blocks) in streams.iter().zip(&mut padding).zip(&mut blocks) {
        let count = stream.padding(padding);
        *blocks = &padding[..count];
    }
    let mut states = load(streams);
    kernel.compress(&mut states, &mut blocks);
    for ((stream, digest), state) in streams.iter_mut().zip(digests).zip(states) {
        for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        *stream = Sha1::new();
    }
}

fn load(streams: &[Sha1]) -> States {
    let mut states = [[0; 5]; LANES_MAX];
    for (state, stream) in states.iter_mut().zip(streams) {
        *state = stream.state;
    }
    states
}
