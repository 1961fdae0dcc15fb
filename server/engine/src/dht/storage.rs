//! The peers that others have announced to us: bounded in all, for each torrent and for each who
//! announces, and gone after [`Limits::lifetime`].
//!
//! When all places are taken, the torrent farthest from our id gives way to a nearer one: lookups
//! end at the nodes nearest to a torrent, so what is far was put here by somebody who wants our
//! places. A torrent's own oldest peer gives way to a new one.

use super::secret::SecretRandom;
use super::site::Site;
use crate::time::Time;
use proto::dht::{Distance, NodeId};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// How much is stored.
#[derive(Clone, Copy, Debug)]
pub struct StorageLimits {
    /// Torrents.
    pub torrents_max: usize,
    /// Peers of one torrent.
    pub peers_per_torrent_max: usize,
    /// Peers of all torrents.
    pub peers_max: usize,
    /// Peers that one site (an IPv4 address, an IPv6 /64) has announced.
    pub peers_per_site_max: usize,
    /// Ports of one site for one torrent.
    pub ports_per_site_max: usize,
    /// How long an announce holds.
    pub lifetime: Duration,
}

impl Default for StorageLimits {
    fn default() -> StorageLimits {
        StorageLimits {
            torrents_max: 8_192,
            peers_per_torrent_max: 256,
            peers_max: 32_768,
            peers_per_site_max: 256,
            ports_per_site_max: 4,
            lifetime: Duration::from_secs(45 * 60),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Stored {
    address: SocketAddr,
    site: Site,
    expires: Time,
}

#[derive(Clone, Debug)]
struct Torrent {
    id: NodeId,
    /// In the order of their last announces.
    peers: Vec<Stored>,
}

/// See the module.
pub(super) struct Storage {
    limits: StorageLimits,
    own: NodeId,
    torrents: BTreeMap<Distance, Torrent>,
    by_site: BTreeMap<Site, usize>,
    peers: usize,
}

impl Storage {
    pub(super) fn new(limits: StorageLimits, own: NodeId) -> Storage {
        Storage {
            limits,
            own,
            torrents: BTreeMap::new(),
            by_site: BTreeMap::new(),
            peers: 0,
        }
    }

    /// Peers that are stored, and of how many torrents.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.peers, self.torrents.len())
    }

    /// We have another id now.
    pub(super) fn rename(&mut self, own: NodeId) {
        self.own = own;
        let torrents = std::mem::take(&mut self.torrents);
        self.torrents = torrents
            .into_values()
            .map(|torrent| (own.distance(&torrent.id), torrent))
            .collect();
    }

    /// Keeps a peer of a torrent; false if there is no room for it.
    pub(super) fn store(&mut self, torrent: NodeId, address: SocketAddr, now: Time) -> bool {
        let distance = self.own.distance(&torrent);
        let site = Site::of(address);
        let peer = Stored {
            address,
            site,
            expires: now + self.limits.lifetime,
        };
        if self.renewed(distance, peer) {
            return true;
        }
        if self.by_site.get(&site).copied().unwrap_or(0) >= self.limits.peers_per_site_max
            || self.of_site(distance, site) >= self.limits.ports_per_site_max
            || !self.make_room(distance)
        {
            return false;
        }
        let torrent = self.torrents.entry(distance).or_insert(Torrent {
            id: torrent,
            peers: Vec::new(),
        });
        torrent.peers.push(peer);
        *self.by_site.entry(site).or_insert(0) += 1;
        self.peers += 1;
        true
    }

    /// Up to `count` peers of a torrent that `allowed` lets through, chosen by chance.
    pub(super) fn some(
        &self,
        torrent: NodeId,
        count: usize,
        now: Time,
        random: &mut SecretRandom,
        allowed: impl Fn(SocketAddr) -> bool,
    ) -> Vec<SocketAddr> {
        let Some(torrent) = self.torrents.get(&self.own.distance(&torrent)) else {
            return Vec::new();
        };
        let living = torrent.peers.iter().filter(|peer| peer.expires > now);
        let mut found: Vec<SocketAddr> = living
            .map(|peer| peer.address)
            .filter(|address| allowed(*address))
            .collect();
        for index in 0..count.min(found.len()) {
            let other = index + random.below(found.len() - index);
            found.swap(index, other);
        }
        found.truncate(count);
        found
    }

    /// Drops what has expired. O(everything): once a minute.
    pub(super) fn expire(&mut self, now: Time) {
        let Storage {
            torrents,
            by_site,
            peers,
            ..
        } = self;
        torrents.retain(|_, torrent| {
            torrent.peers.retain(|peer| {
                let lives = peer.expires > now;
                if !lives {
                    uncount(by_site, peer.site);
                    *peers -= 1;
                }
                lives
            });
            !torrent.peers.is_empty()
        });
    }

    /// Whether the peer was there already; it is the newest then.
    fn renewed(&mut self, distance: Distance, peer: Stored) -> bool {
        let Some(torrent) = self.torrents.get_mut(&distance) else {
            return false;
        };
        let found = |stored: &Stored| stored.address == peer.address;
        let Some(index) = torrent.peers.iter().position(found) else {
            return false;
        };
        torrent.peers.remove(index);
        torrent.peers.push(peer);
        true
    }

    fn of_site(&self, distance: Distance, site: Site) -> usize {
        let torrent = self.torrents.get(&distance);
        let peers = torrent.map_or(&[][..], |torrent| &torrent.peers);
        peers.iter().filter(|peer| peer.site == site).count()
    }

    /// Makes room for one peer of the torrent at this distance; false if it is the one to give way.
    fn make_room(&mut self, distance: Distance) -> bool {
        if let Some(torrent) = self.torrents.get_mut(&distance)
            && torrent.peers.len() >= self.limits.peers_per_torrent_max
        {
            let oldest = torrent.peers.remove(0);
            uncount(&mut self.by_site, oldest.site);
            self.peers -= 1;
        }
        let is_new = !self.torrents.contains_key(&distance);
        while self.peers >= self.limits.peers_max
            || (is_new && self.torrents.len() >= self.limits.torrents_max)
        {
            match self.torrents.last_key_value() {
                Some((farthest, _)) if *farthest > distance => {}
                _ => return false,
            }
            let Some((_, torrent)) = self.torrents.pop_last() else {
                return false;
            };
            for peer in &torrent.peers {
                uncount(&mut self.by_site, peer.site);
                self.peers -= 1;
            }
        }
        true
    }

    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        let all = || self.torrents.values().flat_map(|torrent| &torrent.peers);
        assert_eq!(all().count(), self.peers);
        assert!(self.peers <= self.limits.peers_max);
        assert!(self.torrents.len() <= self.limits.torrents_max);
        let mut by_site = BTreeMap::new();
        for peer in all() {
            *by_site.entry(peer.site).or_insert(0) += 1;
        }
        assert_eq!(by_site, self.by_site);
        for (distance, torrent) in &self.torrents {
            assert_eq!(self.own.distance(&torrent.id), *distance);
            assert!(!torrent.peers.is_empty());
            assert!(torrent.peers.len() <= self.limits.peers_per_torrent_max);
        }
    }
}

fn uncount(by_site: &mut BTreeMap<Site, usize>, site: Site) {
    if let Some(count) = by_site.get_mut(&site) {
        *count -= 1;
        if *count == 0 {
            by_site.remove(&site);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::secret::Secret;
    use super::*;
    use crate::random::Random;
    use proptest::prelude::*;

    const LIMITS: StorageLimits = StorageLimits {
        torrents_max: 10,
        peers_per_torrent_max: 5,
        peers_max: 20,
        peers_per_site_max: 8,
        ports_per_site_max: 2,
        lifetime: Duration::from_secs(100),
    };

    fn id(number: u8) -> NodeId {
        let mut id = [0; 20];
        id[0] = number;
        NodeId(id)
    }

    fn peer(host: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([9, 9, 9, host], port))
    }

    fn peers_of(storage: &Storage, torrent: u8, now: Time) -> Vec<SocketAddr> {
        let mut random = SecretRandom::new(Secret::new([1; 16]));
        let mut peers = storage.some(id(torrent), 100, now, &mut random, |_| true);
        peers.sort();
        peers
    }

    #[test]
    fn what_is_stored_is_found_until_it_expires() {
        let mut storage = Storage::new(LIMITS, id(0));
        let later = |seconds| Time(0) + Duration::from_secs(seconds);
        assert!(storage.store(id(1), peer(1, 1), later(0)));
        assert!(storage.store(id(1), peer(2, 1), later(50)));
        assert_eq!(peers_of(&storage, 1, later(60)), [peer(1, 1), peer(2, 1)]);
        assert_eq!(peers_of(&storage, 1, later(100)), [peer(2, 1)]);
        assert_eq!(peers_of(&storage, 2, later(0)), []);
        // Whoever announces again stays.
        assert!(storage.store(id(1), peer(2, 1), later(120)));
        storage.expire(later(160));
        assert_eq!(storage.counts(), (1, 1));
        storage.expire(later(220));
        assert_eq!(storage.counts(), (0, 0));
        storage.check_invariants();
    }

    #[test]
    fn a_choice_is_of_those_allowed_and_without_repeats() {
        let mut storage = Storage::new(StorageLimits::default(), id(0));
        for host in 0..100 {
            storage.store(id(1), peer(host, 1), Time(0));
        }
        let mut random = SecretRandom::new(Secret::new([1; 16]));
        let even = |address: SocketAddr| address.to_string().ends_with("0:1");
        let mut some = storage.some(id(1), 7, Time(1), &mut random, even);
        assert_eq!(some.len(), 7);
        assert!(some.iter().all(|&address| even(address)));
        some.sort();
        some.dedup();
        assert_eq!(some.len(), 7);
    }

    #[test]
    fn a_full_torrent_loses_its_oldest_and_a_full_store_its_farthest() {
        let mut storage = Storage::new(LIMITS, id(0));
        for host in 0..6 {
            assert!(storage.store(id(1), peer(host, 1), Time(0)));
        }
        assert!(!peers_of(&storage, 1, Time(1)).contains(&peer(0, 1)));
        for torrent in 2..=10 {
            assert!(storage.store(id(torrent), peer(100 + torrent, 1), Time(0)));
        }
        assert!(!storage.store(id(200), peer(200, 1), Time(0)));
        assert!(storage.store(id(0), peer(200, 1), Time(0)));
        assert_eq!(peers_of(&storage, 10, Time(1)), []);
        storage.check_invariants();
    }

    #[test]
    fn one_site_does_not_take_all_places() {
        let mut storage = Storage::new(LIMITS, id(0));
        let stored = (1..100_u16).filter(|&port| storage.store(id(1), peer(1, port), Time(0)));
        assert_eq!(stored.count(), LIMITS.ports_per_site_max);
        let stored = (2..=100).filter(|&torrent| storage.store(id(torrent), peer(1, 1), Time(0)));
        assert_eq!(
            stored.count(),
            LIMITS.peers_per_site_max - LIMITS.ports_per_site_max
        );
        storage.check_invariants();
    }

    proptest! {
        #[test]
        fn the_limits_hold_whatever_is_announced(seed in any::<u64>(), renames in any::<bool>()) {
            let mut random = Random::new(seed);
            let mut storage = Storage::new(LIMITS, id(7));
            let mut now = Time(0);
            for _ in 0..500 {
                now = now + Duration::from_secs(random.below(10));
                let torrent = id(random.below(40) as u8);
                let host = random.below(12) as u8;
                storage.store(torrent, peer(host, 1 + random.below(3) as u16), now);
                if random.below(20) == 0 {
                    storage.expire(now);
                }
                if renames && random.below(50) == 0 {
                    storage.rename(id(random.below(256) as u8));
                }
                storage.check_invariants();
            }
        }
    }
}
