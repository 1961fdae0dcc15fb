//! Room in memory for super-seeding, over all torrents and shards.
//!
//! What a torrent and a peer of it take depends on how many pieces there are, so a number of peers
//! would not bound it. Each takes the most that it can come to, and gives it back when it goes.
//! Where there is no room, a peer is served as by any seed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that may be taken: 3,400 peers of a torrent of 2,000 pieces, 1,100 of one of 100,000.
pub const MEMORY_BYTES_MAX: usize = 64 << 20;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Room {
    taken_bytes: AtomicUsize,
}

/// A part of the room; given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Reserved {
    room: Arc<Room>,
    bytes: usize,
}

impl Room {
    /// Takes `bytes`, if there are as many.
    pub(crate) fn reserve(self: &Arc<Room>, bytes: usize) -> Option<Reserved> {
        let fits = |taken: usize| {
            let taken = taken.checked_add(bytes)?;
            (taken <= MEMORY_BYTES_MAX).then_some(taken)
        };
        let order = Ordering::Relaxed;
        self.taken_bytes.fetch_update(order, order, fits).ok()?;
        Some(Reserved {
            room: Arc::clone(self),
            bytes,
        })
    }

    /// How many bytes are taken.
    #[cfg(test)]
    pub(crate) fn taken_bytes(&self) -> usize {
        self.taken_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.room
            .taken_bytes
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
