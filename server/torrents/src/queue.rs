//! The order in which downloads get their turn: the user's, as the store has it, and who of it
//! waits. All of it is in memory, so that no question about it reads the store, and each change
//! costs the logarithm of their number.
//!
//! A download that has got nothing in its turn goes behind those that have not had theirs; the
//! order that the user sees stays what it is. Torrents that are in no place of the order come after
//! all that are.
//!
//! Limits: an entry for each torrent that is not complete. Does not: keep the order (the store
//! does) or begin anything.

use proto::ids::InfoHashV1;
use state::Place;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// How far ranks are apart that are given anew.
const GAP: u64 = 1 << 32;
/// The rank of the first torrent of an empty order.
const MIDDLE: u64 = 1 << 63;

/// Who comes first: how many turns were in vain, the rank in the order, the info-hash.
type Key = (u32, u64, InfoHashV1);

/// See the module.
#[derive(Default)]
pub(crate) struct Queue {
    ranks: HashMap<InfoHashV1, u64>,
    order: BTreeMap<u64, InfoHashV1>,
    waiting: BTreeSet<Key>,
    keys: HashMap<InfoHashV1, Key>,
    /// How many turns of a torrent were in vain, where that is any.
    vain: HashMap<InfoHashV1, u32>,
}

impl Queue {
    /// The order, as the store has it.
    pub(crate) fn fill(&mut self, order: &[InfoHashV1]) {
        for info_hash in order {
            self.place(*info_hash, Place::Last);
        }
    }

    /// Moves a torrent in the order, into it or out of it. One beside which it is to be that is not
    /// in it stands for the front.
    pub(crate) fn place(&mut self, info_hash: InfoHashV1, place: Place) {
        if place == Place::Before(info_hash) || place == Place::After(info_hash) {
            return;
        }
        if let Some(rank) = self.ranks.remove(&info_hash) {
            self.order.remove(&rank);
        }
        if place != Place::Out {
            let mut rank = self.free_rank(place);
            if rank.is_none() {
                self.spread();
                rank = self.free_rank(place);
            }
            // After spreading there is room everywhere.
            let rank = rank.unwrap_or(MIDDLE);
            self.ranks.insert(info_hash, rank);
            self.order.insert(rank, info_hash);
        }
        if self.is_waiting(&info_hash) {
            self.wait(info_hash);
        }
    }

    /// Whether a torrent is in the order.
    pub(crate) fn has(&self, info_hash: &InfoHashV1) -> bool {
        self.ranks.contains_key(info_hash)
    }

    /// The place of a torrent in the order, from 0. Costs a look at all before it.
    pub(crate) fn position(&self, info_hash: &InfoHashV1) -> Option<u64> {
        let rank = self.ranks.get(info_hash)?;
        Some(self.order.range(..rank).count() as u64)
    }

    /// Nothing is to be known of a torrent any more.
    pub(crate) fn forget(&mut self, info_hash: &InfoHashV1) {
        self.leave(info_hash);
        self.vain.remove(info_hash);
        self.place(*info_hash, Place::Out);
    }

    /// A torrent waits for its turn.
    pub(crate) fn wait(&mut self, info_hash: InfoHashV1) {
        self.leave(&info_hash);
        let key = self.key(&info_hash);
        self.waiting.insert(key);
        self.keys.insert(info_hash, key);
    }

    /// A torrent does not wait any more.
    pub(crate) fn leave(&mut self, info_hash: &InfoHashV1) {
        if let Some(key) = self.keys.remove(info_hash) {
            self.waiting.remove(&key);
        }
    }

    pub(crate) fn is_waiting(&self, info_hash: &InfoHashV1) -> bool {
        self.keys.contains_key(info_hash)
    }

    /// Nobody waits any more.
    pub(crate) fn stop(&mut self) {
        self.waiting.clear();
        self.keys.clear();
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whose turn it is next.
    pub(crate) fn first(&self) -> Option<InfoHashV1> {
        self.waiting.first().map(|(_, _, info_hash)| *info_hash)
    }

    /// How many turns of a torrent were in vain, one after another.
    pub(crate) fn vain(&self, info_hash: &InfoHashV1) -> u32 {
        self.vain.get(info_hash).copied().unwrap_or(0)
    }

    /// Whether somebody waits who comes before this torrent if its turn was in vain.
    pub(crate) fn has_before(&self, info_hash: &InfoHashV1) -> bool {
        let (vain, rank, _) = self.key(info_hash);
        let after = (vain.saturating_add(1), rank, *info_hash);
        self.waiting.first().is_some_and(|first| *first < after)
    }

    /// A torrent has got nothing in its turn.
    pub(crate) fn note_vain(&mut self, info_hash: InfoHashV1) {
        let vain = self.vain.entry(info_hash).or_default();
        *vain = vain.saturating_add(1);
    }

    /// A torrent gets something, or the user has moved it: it is as all others again.
    pub(crate) fn note_gain(&mut self, info_hash: &InfoHashV1) {
        if self.vain.remove(info_hash).is_some() && self.is_waiting(info_hash) {
            self.wait(*info_hash);
        }
    }

    fn key(&self, info_hash: &InfoHashV1) -> Key {
        let rank = self.ranks.get(info_hash).copied();
        (self.vain(info_hash), rank.unwrap_or(u64::MAX), *info_hash)
    }

    /// A rank that nobody has, at `place`; none if there is none left.
    fn free_rank(&self, place: Place) -> Option<u64> {
        let first = self.order.keys().next().copied();
        let beside = |other: &InfoHashV1| self.ranks.get(other).copied();
        let (low, high) = match place {
            Place::Out => return None,
            Place::First => (None, first),
            Place::Last => (self.order.keys().next_back().copied(), None),
            Place::Before(other) => match beside(&other) {
                Some(high) => (
                    self.order.range(..high).next_back().map(|it| *it.0),
                    Some(high),
                ),
                None => (None, first),
            },
            Place::After(other) => match beside(&other) {
                Some(low) => (
                    Some(low),
                    self.order.range(low + 1..).next().map(|it| *it.0),
                ),
                None => (None, first),
            },
        };
        match (low, high) {
            (None, None) => Some(MIDDLE),
            (None, Some(high)) => high.checked_sub(GAP),
            // The last rank of all stands for no place.
            (Some(low), None) => low.checked_add(GAP).filter(|rank| *rank < u64::MAX),
            (Some(low), Some(high)) => {
                let half = high.saturating_sub(low) / 2;
                (half > 0).then_some(low + half)
            }
        }
    }

    /// Gives all ranks anew, in the same order.
    fn spread(&mut self) {
        let order: Vec<_> = std::mem::take(&mut self.order).into_values().collect();
        let start = MIDDLE - GAP * (order.len() as u64 / 2);
        for (number, info_hash) in (0u64..).zip(order) {
            let rank = start + number * GAP;
            self.order.insert(rank, info_hash);
            self.ranks.insert(info_hash, rank);
        }
        let waiting: Vec<_> = self.keys.keys().copied().collect();
        for info_hash in waiting {
            self.wait(info_hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: u32) -> InfoHashV1 {
        let mut hash = [0; 20];
        hash[..4].copy_from_slice(&number.to_be_bytes());
        InfoHashV1(hash)
    }

    fn order(queue: &Queue) -> Vec<InfoHashV1> {
        for (rank, info_hash) in &queue.order {
            assert_eq!(queue.ranks.get(info_hash), Some(rank));
        }
        assert_eq!(queue.ranks.len(), queue.order.len());
        queue.order.values().copied().collect()
    }

    /// Those that wait, in the order in which they get their turn.
    fn turns(queue: &Queue) -> Vec<InfoHashV1> {
        queue.waiting.iter().map(|key| key.2).collect()
    }

    #[test]
    fn every_place_is_where_it_says() {
        let [a, b, c, d, e] = [1, 2, 3, 4, 5].map(hash);
        let mut queue = Queue::default();
        queue.fill(&[a, b]);
        for (torrent, place) in [
            (c, Place::First),
            (d, Place::Before(b)),
            (e, Place::After(c)),
            (a, Place::First),
            (a, Place::After(a)),
        ] {
            queue.place(torrent, place);
        }
        assert_eq!(order(&queue), [a, c, e, d, b]);
        assert_eq!(queue.position(&d), Some(3));
        queue.place(c, Place::Out);
        assert_eq!(order(&queue), [a, e, d, b]);
        assert_eq!((queue.position(&c), queue.has(&c)), (None, false));
    }

    #[test]
    fn a_crowded_place_makes_room_and_keeps_the_order_of_those_that_wait() {
        let (first, last) = (hash(0), hash(u32::MAX));
        let mut queue = Queue::default();
        queue.fill(&[first, last]);
        let mut expected = vec![first];
        expected.extend((1..=200).rev().map(hash));
        expected.push(last);
        for number in 1..=200 {
            queue.place(hash(number), Place::After(first));
            queue.wait(hash(number));
        }
        for other in [last, first] {
            queue.wait(other);
        }
        assert_eq!(order(&queue), expected);
        assert_eq!(turns(&queue), expected);
    }

    #[test]
    fn what_is_in_no_place_comes_last_also_when_it_waits_already() {
        let [a, b, c] = [3, 2, 1].map(hash);
        let mut queue = Queue::default();
        queue.fill(&[a, b]);
        for torrent in [c, b, a] {
            queue.wait(torrent);
        }
        assert_eq!(turns(&queue), [a, b, c]);
        queue.place(a, Place::Out);
        queue.place(c, Place::First);
        assert_eq!(turns(&queue), [c, b, a]);
        queue.forget(&c);
        queue.leave(&b);
        assert_eq!(turns(&queue), [a]);
        assert_eq!(queue.first(), Some(a));
    }

    #[test]
    fn who_got_nothing_comes_after_those_who_have_not_had_a_turn() {
        let [a, b, c] = [1, 2, 3].map(hash);
        let mut queue = Queue::default();
        queue.fill(&[a, b, c]);
        assert!(!queue.has_before(&a), "nobody waits");
        queue.wait(b);
        assert!(queue.has_before(&a));
        queue.note_vain(a);
        queue.wait(a);
        assert_eq!(turns(&queue), [b, a]);
        // All have had one: the order counts again.
        queue.leave(&a);
        queue.note_vain(b);
        queue.wait(b);
        assert!(queue.has_before(&a), "a has had two then");
        queue.note_vain(a);
        queue.wait(a);
        assert!(queue.has_before(&c), "both have had one, and b comes first");
        assert_eq!(turns(&queue), [b, a]);
        queue.note_gain(&a);
        assert_eq!(turns(&queue), [a, b]);
    }
}
