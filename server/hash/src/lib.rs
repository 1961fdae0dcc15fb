//! SHA-1 and SHA-256 of many pieces at a time.
//!
//! One SHA-1 stream is bound by the latency of its rounds, so a caller that has several pieces at
//! hand gives them together: [`hash_pieces`] for pieces that lie in memory, [`Sha1::update_many`]
//! for pieces that are read slice by slice. [`lanes`] says how many at a time are worth it on this
//! machine.
//!
//! Limits: every call hashes on the calling thread and allocates nothing. Today each stream is
//! hashed by the fastest library kernel (SHA-NI where the CPU has it), one after the other, so
//! [`lanes`] is 1.
//! Does not: read files or start threads; that is the caller's work.
#![forbid(unsafe_code)]

use sha1::Digest;

/// The most streams that any kernel hashes side by side: the bound for a caller's arrays.
pub const LANES_MAX: usize = 16;

/// A SHA-1 digest.
pub type Sha1Digest = [u8; 20];

/// A SHA-256 digest.
pub type Sha256Digest = [u8; 32];

/// How many pieces a caller should bring together on this machine: between 1 and [`LANES_MAX`].
///
/// More than that is accepted by every function here and gains nothing.
pub fn lanes() -> usize {
    1
}

/// A SHA-1 stream.
#[derive(Clone, Default)]
pub struct Sha1(sha1::Sha1);

impl Sha1 {
    /// Starts a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends `data` to the stream.
    pub fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// Appends to each of `streams` the slice of the same index. Slices may differ in length; equal
    /// lengths that are multiples of 64 bytes are the fast case.
    ///
    /// # Panics
    ///
    /// If there are not as many slices as streams.
    pub fn update_many(streams: &mut [Sha1], slices: &[&[u8]]) {
        assert_eq!(streams.len(), slices.len(), "one slice for each stream");
        for (stream, slice) in streams.iter_mut().zip(slices) {
            stream.update(slice);
        }
    }

    /// Ends the stream and returns its digest.
    pub fn finish(self) -> Sha1Digest {
        self.0.finalize().into()
    }

    /// Returns the digest and starts the stream anew.
    pub fn finish_reset(&mut self) -> Sha1Digest {
        self.0.finalize_reset().into()
    }
}

/// A SHA-256 stream.
#[derive(Clone, Default)]
pub struct Sha256(sha2::Sha256);

impl Sha256 {
    /// Starts a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends `data` to the stream.
    pub fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// Ends the stream and returns its digest.
    pub fn finish(self) -> Sha256Digest {
        self.0.finalize().into()
    }

    /// Returns the digest and starts the stream anew.
    pub fn finish_reset(&mut self) -> Sha256Digest {
        self.0.finalize_reset().into()
    }
}

/// The SHA-1 of one piece.
pub fn sha1(piece: &[u8]) -> Sha1Digest {
    let mut stream = Sha1::new();
    stream.update(piece);
    stream.finish()
}

/// The SHA-256 of one block.
pub fn sha256(block: &[u8]) -> Sha256Digest {
    let mut stream = Sha256::new();
    stream.update(block);
    stream.finish()
}

/// Writes the SHA-1 of each of `pieces` to the digest of the same index.
///
/// Any number of pieces, of any lengths; up to [`lanes`] of them are hashed side by side.
///
/// # Panics
///
/// If there are not as many digests as pieces.
pub fn hash_pieces(pieces: &[&[u8]], digests: &mut [Sha1Digest]) {
    assert_eq!(pieces.len(), digests.len(), "one digest for each piece");
    for (piece, digest) in pieces.iter().zip(digests) {
        *digest = sha1(piece);
    }
}

/// Writes the SHA-256 of each of `blocks` to the digest of the same index: the leaves of a merkle
/// tree (BEP 52).
///
/// # Panics
///
/// If there are not as many digests as blocks.
pub fn hash_blocks(blocks: &[&[u8]], digests: &mut [Sha256Digest]) {
    assert_eq!(blocks.len(), digests.len(), "one digest for each block");
    for (block, digest) in blocks.iter().zip(digests) {
        *digest = sha256(block);
    }
}

#[cfg(test)]
mod tests;
