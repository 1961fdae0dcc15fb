//! SHA-256, the hash of BEP 52, by the library.
//!
//! Limits: blocks are hashed one after the other; SHA-NI makes each as fast as the CPU allows.
//! Does not: build merkle trees.

use sha2::Digest;

/// A SHA-256 digest.
pub type Sha256Digest = [u8; 32];

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

/// The SHA-256 of one block.
pub fn sha256(block: &[u8]) -> Sha256Digest {
    let mut stream = Sha256::new();
    stream.update(block);
    stream.finish()
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
