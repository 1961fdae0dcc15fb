//! SHA-1 and SHA-256 of many pieces at a time.
//!
//! One SHA-1 stream is bound by the latency of its rounds, so a caller that has several pieces at
//! hand gives them together: [`hash_pieces`] for pieces that lie in memory, [`Sha1::update_many`]
//! for pieces that are read slice by slice. [`lanes`] says how many at a time are worth it on this
//! machine. The [`Kernel`] behind them is chosen once, by what the CPU can do.
//!
//! Limits: every call hashes on the calling thread and allocates nothing. SHA-256 streams are
//! hashed by the library, one after the other.
//! Does not: read files or start threads; that is the caller's work.
#![deny(unsafe_op_in_unsafe_fn)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod kernel;
#[cfg(target_arch = "x86_64")]
mod rounds;
mod sha256;
mod single;
mod stream;

pub use kernel::Kernel;
pub use sha256::{Sha256, Sha256Digest, hash_blocks, sha256};
pub use stream::{Sha1, Sha1Digest};

/// The most streams that any kernel hashes side by side: the bound for a caller's arrays.
pub const LANES_MAX: usize = 16;

/// How many pieces a caller should bring together on this machine: between 1 and [`LANES_MAX`].
///
/// More than that is accepted by every function here and gains nothing.
pub fn lanes() -> usize {
    Kernel::best().lanes()
}

/// The SHA-1 of one piece.
pub fn sha1(piece: &[u8]) -> Sha1Digest {
    let mut stream = Sha1::new();
    stream.update(piece);
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
    Kernel::best().hash_pieces(pieces, digests);
}

#[cfg(test)]
mod tests;
