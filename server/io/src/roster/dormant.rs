//! The info-hashes of dormant torrents: sorted, 20 bytes each, with at most an eighth as much room
//! to grow.
//!
//! Hashes are spread over [`PARTITIONS`] by their first byte, each behind a lock of its own, which
//! is held for the comparison of some nine hashes or, when a torrent comes or goes, for moving a
//! few kilobytes: shards that look up torrents hardly ever meet, and it is once for a handshake.
//!
//! Limits: [`DORMANT_MAX`] hashes; further ones are not taken.

use proto::ids::InfoHashV1;
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

/// Torrents that may be dormant, 84 MiB of hashes.
pub const DORMANT_MAX: usize = 4 << 20;

/// One for each first byte of a hash.
const PARTITIONS: usize = 256;

/// The least room that a partition grows by, in hashes.
const GROWTH_MIN: usize = 4;

/// See the module.
pub(crate) struct DormantSet {
    partitions: Box<[RwLock<Vec<InfoHashV1>>]>,
    count: AtomicUsize,
}

impl Default for DormantSet {
    fn default() -> Self {
        DormantSet {
            partitions: (0..PARTITIONS).map(|_| RwLock::default()).collect(),
            count: AtomicUsize::new(0),
        }
    }
}

impl DormantSet {
    fn partition(&self, info_hash: InfoHashV1) -> Option<&RwLock<Vec<InfoHashV1>>> {
        let [first, ..] = info_hash.0;
        self.partitions.get(usize::from(first))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether a hash is among them.
    pub(crate) fn contains(&self, info_hash: InfoHashV1) -> bool {
        // Most servers have none.
        self.len() > 0
            && self.partition(info_hash).is_some_and(|partition| {
                let hashes = partition.read().unwrap_or_else(PoisonError::into_inner);
                hashes.binary_search(&info_hash).is_ok()
            })
    }

    /// Adds a hash, if it is not there. False if there is no room.
    pub(crate) fn insert(&self, info_hash: InfoHashV1) -> bool {
        let Some(partition) = self.partition(info_hash) else {
            return false;
        };
        let mut hashes = partition.write().unwrap_or_else(PoisonError::into_inner);
        let Err(place) = hashes.binary_search(&info_hash) else {
            return true;
        };
        let more = |count: usize| (count < DORMANT_MAX).then_some(count + 1);
        let counted = self
            .count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        if counted.is_err() {
            return false;
        }
        if hashes.len() == hashes.capacity() {
            let growth = (hashes.len() / 8).max(GROWTH_MIN);
            hashes.reserve_exact(growth);
        }
        hashes.insert(place, info_hash);
        true
    }

    /// Removes a hash. True if it was there.
    pub(crate) fn remove(&self, info_hash: InfoHashV1) -> bool {
        let Some(partition) = self.partition(info_hash) else {
            return false;
        };
        let mut hashes = partition.write().unwrap_or_else(PoisonError::into_inner);
        let Ok(place) = hashes.binary_search(&info_hash) else {
            return false;
        };
        hashes.remove(place);
        let kept = hashes.len() + (hashes.len() / 8).max(GROWTH_MIN);
        if hashes.capacity() > 2 * kept {
            hashes.shrink_to(kept);
        }
        self.count.fetch_sub(1, Ordering::Relaxed);
        true
    }

    /// Those that are not in `kept`.
    pub(crate) fn without(&self, kept: &HashSet<InfoHashV1>) -> Vec<InfoHashV1> {
        let mut others = Vec::new();
        for partition in &self.partitions {
            let hashes = partition.read().unwrap_or_else(PoisonError::into_inner);
            others.extend(hashes.iter().filter(|hash| !kept.contains(hash)));
        }
        others
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::random::Random;

    #[test]
    fn it_is_a_set() {
        let set = DormantSet::default();
        let mut model = HashSet::new();
        let mut random = Random::new(7);
        for round in 0..20_000 {
            let number = random.next_u64();
            // Few different ones, so that many are met again, in few partitions.
            let mut hash = [0; 20];
            hash[0] = (number % 3) as u8;
            hash[19] = (number >> 8) as u8;
            hash[18] = (number >> 16) as u8 % 4;
            let hash = InfoHashV1(hash);
            assert_eq!(set.contains(hash), model.contains(&hash));
            // It grows at first, then shrinks.
            if (number >> 32) % 4 == u64::from(round < 10_000) * 3 {
                assert_eq!(set.remove(hash), model.remove(&hash));
            } else {
                assert!(set.insert(hash));
                model.insert(hash);
            }
            assert_eq!(set.len(), model.len());
        }
        let kept: HashSet<_> = model.iter().copied().take(model.len() / 2).collect();
        let others: HashSet<_> = set.without(&kept).into_iter().collect();
        assert_eq!(others, model.difference(&kept).copied().collect());
        for hash in model {
            assert!(set.remove(hash));
        }
        assert_eq!(set.len(), 0);
    }
}
