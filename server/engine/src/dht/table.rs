//! The routing table (BEP 5): nodes that have answered us, the more of them the nearer they are to
//! our id.
//!
//! Bucket *n* holds nodes whose ids have the first *n* bits in common with ours, the last bucket
//! also all nearer ones; when that is full, it is split. A full bucket takes a new node in the
//! place of one that has failed, or one whose id its address does not allow (BEP 42) in favour of
//! one whose does; else the new one waits in case another fails. A node that has not been heard of
//! for [`QUESTIONABLE_AFTER`] is asked whether it is there; one that fails [`FAILURES_MAX`] times
//! goes.
//!
//! Limits: 160 buckets of [`BUCKET_NODES`] nodes and as many that wait. One node of a site in all,
//! and [`NEIGHBOURS_MAX`] of a neighbourhood in a bucket: whoever has one address, or a few side by
//! side, gets no further.

use super::site::{Site, neighbourhood};
use crate::time::Time;
use proto::dht::{Contact, Distance, ID_BITS, NodeId};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

/// Nodes of a bucket, and those that a search ends with: the *k* of BEP 5.
pub const BUCKET_NODES: usize = 8;
/// Nodes of one neighbourhood in a bucket.
const NEIGHBOURS_MAX: usize = 2;
/// After so long without an answer a node is asked for one.
pub const QUESTIONABLE_AFTER: Duration = Duration::from_secs(15 * 60);
/// After so long a node that failed is asked again.
const RETRY_AFTER: Duration = Duration::from_secs(60);
/// After so many failures in a row a node gives way to one that waits.
const FAILURES_BAD: u8 = 2;
/// After so many failures in a row a node goes.
const FAILURES_MAX: u8 = 5;
/// After so long without a search in it a bucket is searched.
pub const REFRESH_AFTER: Duration = Duration::from_secs(15 * 60);

/// A node of the table.
#[derive(Clone, Copy, Debug)]
struct Entry {
    contact: Contact,
    /// Its last answer.
    seen: Time,
    /// When it was last asked because it was questionable.
    tried: Time,
    failures: u8,
    /// Its address allows its id.
    bound: bool,
}

impl Entry {
    fn new(contact: Contact, now: Time) -> Entry {
        Entry {
            contact,
            seen: now,
            tried: now,
            failures: 0,
            bound: contact.id.is_bound_to(contact.address.ip()),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Bucket {
    live: Vec<Entry>,
    /// Those that have answered and found no place, the latest last.
    waiting: Vec<Entry>,
    /// The last search in it.
    searched: Option<Time>,
}

impl Bucket {
    fn neighbours(&self, contact: &Contact) -> usize {
        let Some(here) = neighbourhood(contact.address.ip()) else {
            return 0;
        };
        let near = |entry: &&Entry| neighbourhood(entry.contact.address.ip()) == Some(here);
        self.live.iter().filter(near).count()
    }

    /// The worst node in whose place another may come.
    fn bad(&self) -> Option<usize> {
        let bad = self.live.iter().enumerate();
        bad.filter(|(_, entry)| entry.failures >= FAILURES_BAD)
            .max_by_key(|(_, entry)| entry.failures)
            .map(|(index, _)| index)
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Table {
    own: NodeId,
    buckets: Vec<Bucket>,
}

impl Table {
    pub(super) fn new(own: NodeId) -> Table {
        Table {
            own,
            buckets: vec![Bucket::default()],
        }
    }

    /// Nodes in it.
    pub fn len(&self) -> usize {
        self.buckets.iter().map(|bucket| bucket.live.len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The nodes nearest to `target` that answered when last asked, up to `count` of those that
    /// `allowed` lets through.
    pub fn nearest(
        &self,
        target: &NodeId,
        count: usize,
        allowed: impl Fn(SocketAddr) -> bool,
    ) -> Vec<Contact> {
        let entries = self.entries().filter(|entry| entry.failures == 0);
        let mut near: Vec<(Distance, Contact)> = entries
            .filter(|entry| allowed(entry.contact.address))
            .map(|entry| (target.distance(&entry.contact.id), entry.contact))
            .collect();
        near.sort_unstable();
        near.truncate(count);
        near.into_iter().map(|(_, contact)| contact).collect()
    }

    /// A node has answered.
    pub(super) fn answered(&mut self, contact: Contact, now: Time) {
        if contact.id == self.own {
            return;
        }
        let index = self.index(&contact.id);
        let live = &mut self.buckets[index].live;
        if let Some(entry) = live.iter_mut().find(|entry| entry.contact == contact) {
            entry.seen = now;
            entry.failures = 0;
            return;
        }
        if self.clear_way(&contact) {
            self.insert(Entry::new(contact, now));
        }
    }

    /// A node did not answer in time.
    pub(super) fn failed(&mut self, contact: Contact) {
        let index = self.index(&contact.id);
        let bucket = &mut self.buckets[index];
        let found = bucket
            .live
            .iter()
            .position(|entry| entry.contact == contact);
        let Some(place) = found else {
            bucket.waiting.retain(|entry| entry.contact != contact);
            return;
        };
        let entry = &mut bucket.live[place];
        entry.failures = entry.failures.saturating_add(1);
        if entry.failures >= FAILURES_BAD && !bucket.waiting.is_empty() {
            bucket.live.remove(place);
            self.promote(index);
        } else if entry.failures >= FAILURES_MAX {
            bucket.live.remove(place);
        }
    }

    /// These have no place any more.
    pub(super) fn leave_out(&mut self, addresses: &BTreeSet<SocketAddr>) {
        for bucket in &mut self.buckets {
            let stays = |entry: &Entry| !addresses.contains(&entry.contact.address);
            bucket.live.retain(stays);
            bucket.waiting.retain(stays);
        }
    }

    /// Whether a node that has asked us is worth to be asked: it is new, and would find a place.
    pub(super) fn wants(&self, contact: &Contact) -> bool {
        if contact.id == self.own || self.has_site(contact.address) {
            return false;
        }
        let index = self.index(&contact.id);
        let bucket = &self.buckets[index];
        let room = bucket.live.len() < BUCKET_NODES || index + 1 == self.buckets.len();
        (room || bucket.bad().is_some()) && bucket.neighbours(contact) < NEIGHBOURS_MAX
    }

    /// A node that is to be asked whether it is still there, the longest silent first. It is taken
    /// as asked.
    pub(super) fn questionable(&mut self, now: Time) -> Option<Contact> {
        let entries = self.buckets.iter_mut().flat_map(|bucket| &mut bucket.live);
        let due = entries.filter(|entry| {
            let silent = now.since(entry.seen) >= QUESTIONABLE_AFTER || entry.failures > 0;
            silent && now.since(entry.tried) >= RETRY_AFTER
        });
        let entry = due.min_by_key(|entry| entry.seen)?;
        entry.tried = now;
        Some(entry.contact)
    }

    /// A bucket in which there was no search for long; it is taken as searched.
    pub(super) fn unsearched(&mut self, now: Time) -> Option<usize> {
        let due = |bucket: &Bucket| {
            bucket
                .searched
                .is_none_or(|searched| now.since(searched) >= REFRESH_AFTER)
        };
        let index = self.buckets.iter().rposition(due)?;
        self.buckets[index].searched = Some(now);
        Some(index)
    }

    /// A search for `target` begins.
    pub(super) fn searched(&mut self, target: &NodeId, now: Time) {
        let index = self.index(target);
        self.buckets[index].searched = Some(now);
    }

    /// We have another id now: every node finds its place anew.
    pub(super) fn rename(&mut self, own: NodeId) {
        let mut renamed = Table::new(own);
        let entries = self.entries().copied();
        let waiting = self.buckets.iter().flat_map(|bucket| &bucket.waiting);
        for entry in entries.chain(waiting.copied()) {
            if entry.contact.id != own && renamed.clear_way(&entry.contact) {
                renamed.insert(entry);
            }
        }
        *self = renamed;
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.buckets.iter().flat_map(|bucket| &bucket.live)
    }

    fn index(&self, id: &NodeId) -> usize {
        let common = self.own.distance(id).common_bits();
        common.min(self.buckets.len() - 1)
    }

    fn has_site(&self, address: SocketAddr) -> bool {
        let site = Site::of(address);
        self.entries()
            .any(|entry| Site::of(entry.contact.address) == site)
    }

    /// Whether nobody stands in the way of a node that has answered: nobody of its site, and nobody
    /// of its id. Those that are known to have gone are removed: who has failed, and who answers by
    /// another id now.
    fn clear_way(&mut self, contact: &Contact) -> bool {
        let site = Site::of(contact.address);
        let mut free = true;
        for bucket in &mut self.buckets {
            bucket.live.retain(|entry| {
                let other = &entry.contact;
                if Site::of(other.address) != site && other.id != contact.id {
                    return true;
                }
                let stays = entry.failures == 0 && other.address != contact.address;
                free &= !stays;
                stays
            });
            let same = |entry: &Entry| Site::of(entry.contact.address) == site;
            bucket.waiting.retain(|entry| !same(entry));
        }
        free
    }

    fn insert(&mut self, entry: Entry) {
        loop {
            let index = self.index(&entry.contact.id);
            let count = self.buckets.len();
            let bucket = &mut self.buckets[index];
            if bucket.neighbours(&entry.contact) >= NEIGHBOURS_MAX {
                return;
            }
            if bucket.live.len() < BUCKET_NODES {
                bucket.live.push(entry);
                return;
            }
            if let Some(bad) = bucket.bad() {
                bucket.live[bad] = entry;
                return;
            }
            if index + 1 == count && count < ID_BITS {
                self.split();
                continue;
            }
            let unbound = bucket.live.iter().position(|entry| !entry.bound);
            if let (true, Some(unbound)) = (entry.bound, unbound) {
                bucket.live[unbound] = entry;
                return;
            }
            if bucket.waiting.len() == BUCKET_NODES {
                bucket.waiting.remove(0);
            }
            bucket.waiting.push(entry);
            return;
        }
    }

    /// Fills a place that has become free with the one of those that wait which was heard of last.
    fn promote(&mut self, index: usize) {
        let bucket = &mut self.buckets[index];
        while let Some(entry) = bucket.waiting.pop() {
            if bucket.neighbours(&entry.contact) < NEIGHBOURS_MAX {
                bucket.live.push(entry);
                return;
            }
        }
    }

    fn split(&mut self) {
        let Some(last) = self.buckets.pop() else {
            return;
        };
        let common = self.buckets.len();
        let own = self.own;
        let is_far = |entry: &Entry| own.distance(&entry.contact.id).common_bits() == common;
        let (far, near): (Vec<_>, Vec<_>) = last.live.into_iter().partition(is_far);
        let (far_waiting, near_waiting) = last.waiting.into_iter().partition(is_far);
        // What was searched until now was near us; the far half is still to be.
        self.buckets.push(Bucket {
            live: far,
            waiting: far_waiting,
            searched: None,
        });
        self.buckets.push(Bucket {
            live: near,
            waiting: near_waiting,
            searched: last.searched,
        });
    }

    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        let mut sites: Vec<Site> = Vec::new();
        for (index, bucket) in self.buckets.iter().enumerate() {
            assert!(bucket.live.len() <= BUCKET_NODES);
            assert!(bucket.waiting.len() <= BUCKET_NODES);
            for entry in bucket.live.iter().chain(&bucket.waiting) {
                assert_ne!(entry.contact.id, self.own);
                assert_eq!(self.index(&entry.contact.id), index);
            }
            for entry in &bucket.live {
                assert!(bucket.neighbours(&entry.contact) <= NEIGHBOURS_MAX);
                sites.push(Site::of(entry.contact.address));
            }
        }
        let all = sites.len();
        sites.sort();
        sites.dedup();
        assert_eq!(sites.len(), all, "a site has two places");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    const OWN: NodeId = NodeId([0; 20]);

    fn at(seconds: u64) -> Time {
        Time(0) + Duration::from_secs(seconds)
    }

    fn id(random: &mut Random) -> NodeId {
        NodeId(std::array::from_fn(|_| random.next_u64() as u8))
    }

    /// A node at an address of a neighbourhood of its own, by number, with an id that starts so.
    fn node(number: u32, first: u8) -> Contact {
        let ip = Ipv4Addr::from(0x0900_0001 + (number << 8));
        let mut id = [number as u8; 20];
        id[0] = first;
        id[1] = (number >> 8) as u8;
        Contact {
            id: NodeId(id),
            address: (ip, 1).into(),
        }
    }

    fn bound(number: u32, random: &mut Random) -> Contact {
        let address = node(number, 0).address;
        Contact {
            id: NodeId::bound_to(address.ip(), id(random).0),
            address,
        }
    }

    fn everything(table: &Table) -> Vec<Contact> {
        table.nearest(&OWN, usize::MAX, |_| true)
    }

    #[test]
    fn near_buckets_split_and_far_ones_fill() {
        let mut table = Table::new(OWN);
        let mut random = Random::new(1);
        for number in 0..2_000 {
            let id = id(&mut random);
            let contact = Contact {
                id,
                ..node(number, 0)
            };
            table.answered(contact, at(1));
            table.check_invariants();
        }
        // About log2(2,000 / 8) splits.
        assert!(
            (8..=12).contains(&table.buckets.len()),
            "{}",
            table.buckets.len()
        );
        assert!(
            table.buckets[..6]
                .iter()
                .all(|bucket| bucket.live.len() == BUCKET_NODES)
        );
        assert!(
            table.buckets[..6]
                .iter()
                .all(|bucket| bucket.waiting.len() == BUCKET_NODES)
        );
    }

    #[test]
    fn the_nearest_are_the_nearest_that_answer() {
        let mut table = Table::new(OWN);
        for number in 0..20 {
            table.answered(node(number, 1 << (number % 8)), at(1));
        }
        let target = node(0, 3).id;
        let mut expected = everything(&table);
        expected.sort_by_key(|contact| target.distance(&contact.id));
        let nearest = expected[0];
        assert_eq!(table.nearest(&target, 5, |_| true), expected[..5]);
        table.failed(nearest);
        assert_eq!(table.nearest(&target, 5, |_| true), expected[1..6]);
        let other = |address| address != expected[1].address;
        assert_eq!(table.nearest(&target, 4, other), expected[2..6]);
    }

    #[test]
    fn one_address_has_one_place_whatever_ids_it_says() {
        let mut table = Table::new(OWN);
        let mut random = Random::new(2);
        let honest = node(1, 0x80);
        table.answered(honest, at(1));
        for port in 2..500 {
            let address = SocketAddr::new(honest.address.ip(), port);
            let id = id(&mut random);
            assert!(!table.wants(&Contact { id, address }));
            table.answered(Contact { id, address }, at(2));
        }
        assert_eq!(everything(&table), [honest]);
        // A node that has begun again with another id answers from where it was.
        let renamed = Contact {
            id: id(&mut random),
            ..honest
        };
        table.answered(renamed, at(3));
        assert_eq!(everything(&table), [renamed]);
        // When it has failed, another of its site may come.
        table.failed(renamed);
        let moved = Contact {
            address: SocketAddr::new(honest.address.ip(), 9),
            ..honest
        };
        table.answered(moved, at(4));
        assert_eq!(everything(&table), [moved]);
    }

    #[test]
    fn a_neighbourhood_has_two_places_in_a_bucket() {
        let mut table = Table::new(OWN);
        for host in 1..200_u8 {
            let mut id = [host; 20];
            id[0] = 0x80;
            let address = SocketAddr::from(([9, 9, 9, host], 1));
            table.answered(
                Contact {
                    id: NodeId(id),
                    address,
                },
                at(1),
            );
        }
        assert_eq!(table.len(), NEIGHBOURS_MAX);
        // On loopback, where all share one address, nobody is near another.
        let mut table = Table::new(OWN);
        for port in 1..=8_u16 {
            let mut id = [port as u8; 20];
            id[0] = 0x80;
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            table.answered(
                Contact {
                    id: NodeId(id),
                    address,
                },
                at(1),
            );
        }
        assert_eq!(table.len(), 8);
    }

    #[test]
    fn who_fails_gives_way_to_who_waits() {
        let mut table = Table::new(OWN);
        // Enough near ones that the far bucket is not the last.
        for number in 0..60 {
            let first = if number < 40 { 0x80 } else { 0x01 };
            table.answered(node(number, first), at(1));
        }
        let gone = table.buckets[0].live[0].contact;
        let waiting = table.buckets[0].waiting.last().unwrap().contact;
        table.failed(gone);
        assert!(table.entries().any(|entry| entry.contact == gone));
        table.failed(gone);
        assert!(!table.entries().any(|entry| entry.contact == gone));
        assert!(table.entries().any(|entry| entry.contact == waiting));
        table.check_invariants();
        // With nobody to come, it is kept a little longer: our own line may be down.
        let mut table = Table::new(OWN);
        let lonely = node(1, 0x80);
        table.answered(lonely, at(1));
        for _ in 1..FAILURES_MAX {
            table.failed(lonely);
            assert_eq!(table.len(), 1);
        }
        table.failed(lonely);
        assert!(table.is_empty());
    }

    #[test]
    fn ids_that_addresses_allow_are_preferred() {
        let mut table = Table::new(OWN);
        let mut random = Random::new(3);
        let far = |contact: &Contact| contact.id.0[0] & 0x80 != 0;
        for number in 0..60 {
            let first = if number < 40 { 0x80 } else { 0x01 };
            table.answered(node(number, first), at(1));
        }
        assert!(table.buckets[0].live.iter().all(|entry| !entry.bound));
        let honest: Vec<_> = (100..200)
            .map(|number| bound(number, &mut random))
            .filter(far)
            .take(BUCKET_NODES)
            .collect();
        honest
            .iter()
            .for_each(|&contact| table.answered(contact, at(2)));
        assert!(table.buckets[0].live.iter().all(|entry| entry.bound));
        table.check_invariants();
    }

    #[test]
    fn the_silent_are_asked_and_the_unsearched_searched() {
        let mut table = Table::new(OWN);
        table.answered(node(1, 0x80), at(0));
        table.answered(node(2, 0x80), at(10));
        assert_eq!(table.questionable(at(899)), None);
        assert_eq!(table.questionable(at(905)), Some(node(1, 0x80)));
        assert_eq!(table.questionable(at(906)), None);
        assert_eq!(table.questionable(at(910)), Some(node(2, 0x80)));
        table.answered(node(1, 0x80), at(911));
        assert_eq!(table.questionable(at(970)), Some(node(2, 0x80)));
        assert_eq!(table.unsearched(at(0)), Some(0));
        assert_eq!(table.unsearched(at(899)), None);
        assert_eq!(table.unsearched(at(900)), Some(0));
        table.searched(&OWN, at(1_000));
        assert_eq!(table.unsearched(at(1_899)), None);
    }

    #[test]
    fn another_id_keeps_the_nodes_that_find_a_place() {
        let mut table = Table::new(OWN);
        let mut random = Random::new(4);
        for number in 0..500 {
            let id = id(&mut random);
            table.answered(
                Contact {
                    id,
                    ..node(number, 0)
                },
                at(1),
            );
        }
        let before = table.len();
        table.rename(NodeId([0xff; 20]));
        table.check_invariants();
        assert!(table.len() * 3 > before, "{} of {before}", table.len());
    }

    proptest! {
        #[test]
        fn whatever_happens_the_limits_hold(seed in any::<u64>()) {
            let mut random = Random::new(seed);
            let mut table = Table::new(OWN);
            for step in 0..400 {
                let number = random.below(100) as u32;
                // Few addresses, some side by side, and ids of all distances.
                let ip = Ipv4Addr::from(0x0900_0000 + number * 60);
                let common = random.below(12) as usize;
                let id = OWN.beside(common, id(&mut random).0);
                let contact = Contact { id, address: (ip, 1 + random.below(2) as u16).into() };
                let known = everything(&table);
                match random.below(4) {
                    0 if !known.is_empty() => {
                        table.failed(known[random.below(known.len() as u64) as usize]);
                    }
                    1 => table.failed(contact),
                    _ => table.answered(contact, at(step)),
                }
                if random.below(100) == 0 {
                    table.rename(OWN);
                }
                table.check_invariants();
            }
        }
    }
}
