//! Who is to be looked at again and when, in an order for a `BinaryHeap`. Does not: wait.

use std::cmp::Ordering;
use std::sync::Arc;

use engine::time::Time;
use proto::ids::InfoHashV1;

/// One that waits for its time; of two for the same moment, who came first.
pub(super) struct Timer {
    pub at: Time,
    pub sequence: u64,
    pub wakes: Wakes,
}

/// Whom a timer wakes.
pub(super) enum Wakes {
    Torrent(InfoHashV1),
    Host(Arc<str>),
}

impl PartialEq for Timer {
    fn eq(&self, other: &Timer) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Timer {}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Timer) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timer {
    /// Turned round, because `BinaryHeap` gives its greatest first.
    fn cmp(&self, other: &Timer) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}
