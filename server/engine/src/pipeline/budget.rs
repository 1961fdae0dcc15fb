//! How much one torrent may have requested at a time, of all its peers together.

/// Bytes that are requested and not yet here: what the receive path, the disk and the end game must
/// bear. The limit may change at any time, so that a slow disk can slow requests down. Each peer
/// may have one request though the budget is used up, so it is exceeded by a block for each peer at
/// most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestBudget {
    bytes_max: u64,
    used: u64,
}

impl RequestBudget {
    /// A budget of so many bytes.
    pub fn new(bytes_max: u64) -> RequestBudget {
        RequestBudget { bytes_max, used: 0 }
    }

    /// Changes the limit. What is requested above it stays so.
    pub fn set_bytes_max(&mut self, bytes_max: u64) {
        self.bytes_max = bytes_max;
    }

    /// How many bytes may still be requested.
    pub fn left(&self) -> u64 {
        self.bytes_max.saturating_sub(self.used)
    }

    /// How many bytes are requested.
    pub fn used(&self) -> u64 {
        self.used
    }

    pub(super) fn take(&mut self, bytes: u32) {
        self.used += u64::from(bytes);
    }

    pub(super) fn give_back(&mut self, bytes: u32) {
        self.used -= u64::from(bytes);
    }
}
