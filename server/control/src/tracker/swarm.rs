//! What the tracker knows: torrents, their peers, and who is given to whom. Pure: time and
//! randomness are arguments.
//!
//! The store is divided into [`SHARDS`] by info-hash, each behind its own lock. In a shard, peers
//! stand in one slab and in one list in the order in which they were last seen. All peers live
//! equally long, so the head of that list is always the next to expire: expiry costs as much as
//! there is to expire, and nothing is ever looped over whole.
//!
//! A peer is identified by torrent, address and port: the thing that is handed out. Its peer id
//! and `key` (BEP 3) decide who may stop it, and keep a peer that announces over IPv4 and IPv6
//! from being counted twice.
//!
//! What is needed to hand a peer out stands in the lists of its swarm themselves, side by side: an
//! announce of fifty peers must not fetch fifty places of the slab.
//!
//! Peers of one zone (`zones`) are given each other first, the rest (see [`choosing::ANYWHERE_SHARE`]) is
//! drawn from the whole swarm: so most of a download stays in its rack, and the swarm in one part.
//!
//! Limits: [`Limits`], and [`PEERS_PER_SITE_MAX`] peers of a torrent at one address of the world,
//! so that nobody fills a swarm with ports of its own: more are answered, but not listed. A full
//! swarm or store drops a random peer of the same swarm, or the one
//! longest not seen, for the new one: an honest peer comes back with its next announce. A full
//! torrent table refuses the torrent.
//!
//! Does not: do I/O or know of HTTP.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use engine::time::Time;
use proto::address::{Scope, is_global, scope};
use proto::ids::{InfoHashV1, PeerId};

use super::zones::Zone;

mod choosing;

/// Parts of the store, each with a lock of its own.
pub const SHARDS: usize = 16;
/// The peers that expire at most in one call, so that no announce pays for all.
const EXPIRE_MAX: usize = 64;
/// Peers of a torrent listed at one global IPv4 address or IPv6 /64 network: as many as a shared
/// line may have. Inside a network many may stand behind one address.
const PEERS_PER_SITE_MAX: u32 = 64;
/// No peer: the end of a list.
const NONE: u32 = u32::MAX;

/// How much the store holds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Torrents, all together. Those that were allowed by name count, but are never refused.
    pub torrents_max: usize,
    /// Peers of one torrent in one address family.
    pub peers_per_torrent_max: usize,
    /// Peers, all together. One costs 450 bytes, when tables have just grown 640.
    pub peers_max: usize,
    /// How long a peer is handed out after its last announce.
    pub peer_lifetime: Duration,
}

/// What a peer says of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Announce {
    pub info_hash: InfoHashV1,
    pub peer_id: PeerId,
    /// Its `key`; none if it gave none.
    pub key: Option<u64>,
    /// The address from which it came, and the port that it named.
    pub endpoint: SocketAddr,
    /// The zone of that address.
    pub zone: Zone,
    pub seed: bool,
    pub event: Event,
    pub numwant: usize,
    /// The peers' ids are wanted, too.
    pub ids_wanted: bool,
}

/// What of its event matters here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Event {
    Started,
    Present,
    Completed,
    Stopped,
}

/// A peer as it is handed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Found {
    /// If it was wanted.
    pub peer_id: Option<PeerId>,
    pub endpoint: SocketAddr,
}

/// The counts of a scrape (BEP 48).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Counts {
    pub complete: u32,
    pub incomplete: u32,
    pub downloaded: u32,
}

/// Why an announce is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("this torrent is not served by this tracker")]
    Unlisted,
    #[error("this tracker is full")]
    Full,
}

/// See the module's text.
pub(super) struct Store {
    shards: Vec<Mutex<Shard>>,
    open: bool,
    limits: Limits,
    torrents: AtomicUsize,
    peers: AtomicUsize,
}

#[derive(Default)]
struct Shard {
    swarms: HashMap<InfoHashV1, Swarm>,
    index: HashMap<(InfoHashV1, SocketAddr), u32>,
    /// How often each peer id is there, and as what it counts.
    ids: HashMap<(InfoHashV1, PeerId), Identity>,
    /// How many peers of a torrent stand at a site.
    sites: HashMap<(InfoHashV1, Site), u32>,
    peers: Vec<Peer>,
    free: Vec<u32>,
    oldest: u32,
    newest: u32,
    /// Peers that are there, those of ours that never expire included.
    count: usize,
}

#[derive(Default)]
struct Swarm {
    /// Named by the operator or ours: stays without peers.
    listed: bool,
    counts: Counts,
    /// All its peers.
    members: Members,
    /// Those in a zone once more, by zone.
    zones: HashMap<Zone, Members>,
}

/// Leechers and seeds, IPv4 and IPv6; see [`list`].
type Members = [Vec<Member>; 4];

/// A peer of a swarm: its place in the slab, and what is handed out.
#[derive(Clone, Copy)]
struct Member {
    slot: u32,
    /// How far its address reaches: found out once, not for all to whom it is handed out.
    scope: Option<Scope>,
    endpoint: SocketAddr,
}

/// A global IPv4 address or IPv6 /64 network, by its bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Site {
    V4(u32),
    V6(u64),
}

struct Identity {
    entries: u32,
    seed: bool,
}

struct Peer {
    info_hash: InfoHashV1,
    peer_id: PeerId,
    key: Option<u64>,
    endpoint: SocketAddr,
    zone: Zone,
    seed: bool,
    /// Ours: never expires, is never dropped, not in the list.
    permanent: bool,
    seen: Time,
    /// Where it stands in `members`, and in those of its zone.
    position: u32,
    zone_position: u32,
    older: u32,
    newer: u32,
}

impl Store {
    /// An empty store; an `open` one takes any torrent, else only those of [`Store::allow`].
    pub fn new(open: bool, limits: Limits) -> Store {
        let empty = || {
            Mutex::new(Shard {
                oldest: NONE,
                newest: NONE,
                ..Shard::default()
            })
        };
        let shards = (0..SHARDS).map(|_| empty()).collect();
        let (torrents, peers) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Store {
            shards,
            open,
            limits,
            torrents,
            peers,
        }
    }

    /// Serves a torrent from now on.
    pub fn allow(&self, info_hash: InfoHashV1) {
        self.with(info_hash, |shard| {
            shard.swarms.entry(info_hash).or_default().listed = true;
        });
    }

    /// Serves it no more, and forgets its peers.
    pub fn disallow(&self, info_hash: InfoHashV1) {
        self.with(info_hash, |shard| {
            let swarm = shard.swarms.get(&info_hash);
            let members = swarm
                .map(|swarm| swarm.members.concat())
                .unwrap_or_default();
            for member in members {
                shard.remove_keeping_swarm(member.slot);
            }
            shard.swarms.remove(&info_hash);
        });
    }

    /// Lists a seed on this machine, which needs no announces and never expires: as loopback, which
    /// [`Store::announce`] turns into an address that the asker can reach.
    pub fn register_local(&self, info_hash: InfoHashV1, peer_id: PeerId, port: u16) {
        self.with(info_hash, |shard| {
            shard.swarms.entry(info_hash).or_default().listed = true;
            for ip in [
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(Ipv6Addr::LOCALHOST),
            ] {
                let endpoint = SocketAddr::new(ip, port);
                if let Some(&slot) = shard.index.get(&(info_hash, endpoint)) {
                    shard.remove_keeping_swarm(slot);
                }
                let mut peer = Peer::new(info_hash, peer_id, endpoint);
                (peer.seed, peer.permanent) = (true, true);
                shard.insert(peer);
            }
        });
    }

    /// Takes an announce that came over a connection to `local`; hands out up to `numwant` peers,
    /// those of the asker's family first, and the counts.
    pub fn announce(
        &self,
        now: Time,
        announce: &Announce,
        local: IpAddr,
        random: &mut fastrand::Rng,
        found: &mut Vec<Found>,
    ) -> Result<Counts, Refused> {
        self.with(announce.info_hash, |shard| {
            shard.expire(now, self.limits.peer_lifetime);
            if !shard.swarms.contains_key(&announce.info_hash) {
                if !self.open {
                    return Err(Refused::Unlisted);
                }
                if self.torrents.load(Ordering::Relaxed) >= self.limits.torrents_max {
                    return Err(Refused::Full);
                }
            }
            let full = self.peers.load(Ordering::Relaxed) >= self.limits.peers_max;
            let stored = shard.take(now, announce, full, &self.limits, random);
            let Some(swarm) = shard.swarms.get(&announce.info_hash) else {
                return Ok(Counts::default()); // an open tracker's torrent without peers
            };
            if announce.event != Event::Stopped {
                shard.select(swarm, (announce, stored), local, random, found);
            }
            Ok(swarm.counts)
        })
    }

    /// The counts of a torrent; none if it is not there.
    pub fn scrape(&self, now: Time, info_hash: InfoHashV1) -> Option<Counts> {
        self.with(info_hash, |shard| {
            shard.expire(now, self.limits.peer_lifetime);
            shard.swarms.get(&info_hash).map(|swarm| swarm.counts)
        })
    }

    /// Expires a part of what is due in every shard, for those in which nobody announces; call
    /// every few seconds.
    pub fn tick(&self, now: Time) {
        for shard in &self.shards {
            // Some thousands at most, in short turns, so that no announce waits long for the lock.
            for _ in 0..64 {
                let expire = |shard: &mut Shard| shard.expire(now, self.limits.peer_lifetime);
                if self.with_shard(shard, expire) < EXPIRE_MAX {
                    break;
                }
            }
        }
    }

    /// Torrents and peers that are there.
    pub fn sizes(&self) -> (usize, usize) {
        (
            self.torrents.load(Ordering::Relaxed),
            self.peers.load(Ordering::Relaxed),
        )
    }

    fn with<R>(&self, info_hash: InfoHashV1, act: impl FnOnce(&mut Shard) -> R) -> R {
        self.with_shard(&self.shards[usize::from(info_hash.0[0]) % SHARDS], act)
    }

    /// Runs `act` under the lock and keeps the sums true.
    fn with_shard<R>(&self, shard: &Mutex<Shard>, act: impl FnOnce(&mut Shard) -> R) -> R {
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let (torrents, peers) = (shard.swarms.len(), shard.count);
        let result = act(&mut shard);
        // Wraps round where it falls, which is how an atomic is lowered.
        let grown = |sum: &AtomicUsize, old: usize, new: usize| {
            sum.fetch_add(new.wrapping_sub(old), Ordering::Relaxed);
        };
        grown(&self.torrents, torrents, shard.swarms.len());
        grown(&self.peers, peers, shard.count);
        result
    }
}

impl Peer {
    fn new(info_hash: InfoHashV1, peer_id: PeerId, endpoint: SocketAddr) -> Peer {
        Peer {
            info_hash,
            peer_id,
            key: None,
            endpoint,
            zone: Zone::default(),
            seed: false,
            permanent: false,
            seen: Time(0),
            position: 0,
            zone_position: 0,
            older: NONE,
            newer: NONE,
        }
    }
}

/// The list of [`Swarm::members`] in which a peer stands.
fn list(seed: bool, v6: bool) -> usize {
    usize::from(seed) + 2 * usize::from(v6)
}

impl Shard {
    /// Brings the peer that announced up to date: present, gone, or a seed now. Says whether it is
    /// there.
    fn take(
        &mut self,
        now: Time,
        announce: &Announce,
        full: bool,
        limits: &Limits,
        random: &mut fastrand::Rng,
    ) -> bool {
        let Announce {
            info_hash,
            peer_id,
            key,
            endpoint,
            zone,
            seed,
            event,
            ..
        } = *announce;
        let known = self.index.get(&(info_hash, endpoint)).copied();
        let old = known.map(|slot| &self.peers[slot as usize]);
        if old.is_some_and(|old| old.permanent) {
            return true;
        }
        // Another peer at the same address, behind one NAT, cannot stop it.
        let same = |old: &Peer| old.peer_id == peer_id || (old.key.is_some() && old.key == key);
        let same = old.filter(|old| same(old));
        let was_leecher = same.is_some_and(|old| !old.seed);
        // What nearly every announce says: it is there, as before.
        let as_before = |old: &Peer| {
            let id = self.ids.get(&(info_hash, peer_id));
            (old.peer_id, old.seed, old.zone) == (peer_id, seed, zone)
                && id.is_some_and(|id| id.seed == seed)
        };
        let unchanged = old.is_some_and(as_before);
        if event == Event::Stopped {
            if let (Some(slot), Some(_)) = (known, same) {
                self.remove(slot);
            }
            return false;
        }
        if let (Some(slot), true) = (known, unchanged) {
            self.touch(slot, key, now);
            return true;
        }
        if let Some(slot) = known {
            self.remove_keeping_swarm(slot);
        }
        let stored = endpoint.port() != 0
            && !is_unusable(endpoint.ip())
            && self.has_site(info_hash, endpoint.ip())
            && self.make_room(announce, full && known.is_none(), limits, random);
        if !stored {
            self.drop_if_empty(info_hash);
            return false;
        }
        let mut peer = Peer::new(info_hash, peer_id, endpoint);
        (peer.key, peer.zone, peer.seed, peer.seen) = (key, zone, seed, now);
        self.insert(peer);
        // Counted once per download: only a peer that we knew as a leecher completes.
        if let (Event::Completed, true, Some(swarm)) =
            (event, was_leecher && seed, self.swarms.get_mut(&info_hash))
        {
            swarm.counts.downloaded = swarm.counts.downloaded.saturating_add(1);
        }
        true
    }

    /// Whether one more peer of the torrent may be listed at this address.
    fn has_site(&self, info_hash: InfoHashV1, ip: IpAddr) -> bool {
        let count = Site::of(ip).and_then(|site| self.sites.get(&(info_hash, site)));
        count.is_none_or(|count| *count < PEERS_PER_SITE_MAX)
    }

    /// Drops one peer if there is no room for another; false if none can be dropped here.
    fn make_room(
        &mut self,
        announce: &Announce,
        full: bool,
        limits: &Limits,
        random: &mut fastrand::Rng,
    ) -> bool {
        let v6 = announce.endpoint.is_ipv6();
        let lists = self.swarms.get(&announce.info_hash).map(|swarm| {
            [
                &swarm.members[list(false, v6)][..],
                &swarm.members[list(true, v6)][..],
            ]
        });
        let [leechers, seeds] = lists.unwrap_or_default();
        let size = leechers.len() + seeds.len();
        let dropped = if size >= limits.peers_per_torrent_max {
            let at = random.usize(0..size.max(1));
            let slot = leechers
                .get(at)
                .or_else(|| seeds.get(at.wrapping_sub(leechers.len())));
            slot.map(|member| member.slot)
        } else if full {
            Some(self.oldest).filter(|oldest| *oldest != NONE)
        } else {
            return true;
        };
        match dropped {
            Some(slot) if !self.peers[slot as usize].permanent => {
                let info_hash = self.peers[slot as usize].info_hash;
                self.remove_keeping_swarm(slot);
                if info_hash != announce.info_hash {
                    self.drop_if_empty(info_hash);
                }
                true
            }
            _ => false,
        }
    }

    /// Removes peers that were not seen for their lifetime; at most [`EXPIRE_MAX`]. Says how many.
    fn expire(&mut self, now: Time, lifetime: Duration) -> usize {
        for expired in 0..EXPIRE_MAX {
            let oldest = self.oldest;
            if oldest == NONE || now.since(self.peers[oldest as usize].seen) < lifetime {
                return expired;
            }
            self.remove(oldest);
        }
        EXPIRE_MAX
    }

    /// Adds a peer that is not there.
    fn insert(&mut self, mut peer: Peer) {
        let swarm = self.swarms.entry(peer.info_hash).or_default();
        let members = &mut swarm.members[list(peer.seed, peer.endpoint.is_ipv6())];
        let slot = self.free.pop().unwrap_or(self.peers.len() as u32);
        let endpoint = peer.endpoint;
        let member = Member {
            slot,
            scope: scope(endpoint.ip()),
            endpoint,
        };
        peer.position = members.len() as u32;
        members.push(member);
        if peer.zone != Zone::default() {
            let near = swarm.zones.entry(peer.zone).or_default();
            let near = &mut near[list(peer.seed, peer.endpoint.is_ipv6())];
            peer.zone_position = near.len() as u32;
            near.push(member);
        }
        let id = self.ids.entry((peer.info_hash, peer.peer_id));
        let id = id.or_insert(Identity {
            entries: 0,
            seed: peer.seed,
        });
        if id.entries > 0 {
            *swarm.counts.of(id.seed) -= 1;
        }
        id.entries += 1;
        id.seed = peer.seed;
        *swarm.counts.of(id.seed) += 1;
        self.index.insert((peer.info_hash, peer.endpoint), slot);
        if let Some(site) = Site::of(peer.endpoint.ip()) {
            *self.sites.entry((peer.info_hash, site)).or_default() += 1;
        }
        self.count += 1;
        let permanent = peer.permanent;
        match self.peers.get_mut(slot as usize) {
            Some(place) => *place = peer,
            None => self.peers.push(peer),
        }
        if !permanent {
            self.link(slot);
        }
    }

    /// Says that a peer is there, as before.
    fn touch(&mut self, slot: u32, key: Option<u64>, now: Time) {
        self.unlink(slot);
        self.link(slot);
        let peer = &mut self.peers[slot as usize];
        (peer.key, peer.seen) = (key, now);
    }

    /// Puts a peer at the end of the list, as the one seen last.
    fn link(&mut self, slot: u32) {
        let peer = &mut self.peers[slot as usize];
        (peer.older, peer.newer) = (self.newest, NONE);
        match self.newest {
            NONE => self.oldest = slot,
            newest => self.peers[newest as usize].newer = slot,
        }
        self.newest = slot;
    }

    /// Takes a peer out of the list.
    fn unlink(&mut self, slot: u32) {
        let Peer { older, newer, .. } = self.peers[slot as usize];
        match older {
            NONE => self.oldest = newer,
            older => self.peers[older as usize].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.peers[newer as usize].older = older,
        }
    }

    /// Removes a peer, and its swarm if nothing keeps that.
    fn remove(&mut self, slot: u32) {
        let info_hash = self.peers[slot as usize].info_hash;
        self.remove_keeping_swarm(slot);
        self.drop_if_empty(info_hash);
    }

    fn drop_if_empty(&mut self, info_hash: InfoHashV1) {
        let swarm = self.swarms.get(&info_hash);
        if swarm.is_some_and(|swarm| !swarm.listed && swarm.members.iter().all(Vec::is_empty)) {
            self.swarms.remove(&info_hash);
        }
    }

    fn remove_keeping_swarm(&mut self, slot: u32) {
        let peer = &self.peers[slot as usize];
        let (info_hash, peer_id, position) = (peer.info_hash, peer.peer_id, peer.position as usize);
        let permanent = peer.permanent;
        let (zone, zone_position) = (peer.zone, peer.zone_position as usize);
        let members = list(peer.seed, peer.endpoint.is_ipv6());
        self.index.remove(&(info_hash, peer.endpoint));
        if let Some(site) = Site::of(peer.endpoint.ip())
            && let Some(count) = self.sites.get_mut(&(info_hash, site))
        {
            *count -= 1;
            if *count == 0 {
                self.sites.remove(&(info_hash, site));
            }
        }
        if !permanent {
            self.unlink(slot);
        }
        if let Some(swarm) = self.swarms.get_mut(&info_hash) {
            swarm.members[members].swap_remove(position);
            if let Some(&moved) = swarm.members[members].get(position) {
                self.peers[moved.slot as usize].position = position as u32;
            }
            if let Some(near) = swarm.zones.get_mut(&zone) {
                near[members].swap_remove(zone_position);
                if let Some(&moved) = near[members].get(zone_position) {
                    self.peers[moved.slot as usize].zone_position = zone_position as u32;
                }
                if near.iter().all(Vec::is_empty) {
                    swarm.zones.remove(&zone);
                }
            }
            if let Some(id) = self.ids.get_mut(&(info_hash, peer_id)) {
                id.entries -= 1;
                if id.entries == 0 {
                    *swarm.counts.of(id.seed) -= 1;
                    self.ids.remove(&(info_hash, peer_id));
                }
            }
        }
        self.free.push(slot);
        self.count -= 1;
    }
}

impl Site {
    /// The site of an address; none if it is not one of the world's.
    fn of(ip: IpAddr) -> Option<Site> {
        let site = match ip {
            IpAddr::V4(ip) => Site::V4(ip.to_bits()),
            IpAddr::V6(ip) => Site::V6((ip.to_bits() >> 64) as u64),
        };
        is_global(ip).then_some(site)
    }
}

impl Counts {
    fn of(&mut self, seed: bool) -> &mut u32 {
        if seed {
            &mut self.complete
        } else {
            &mut self.incomplete
        }
    }
}

/// An address that no peer can be reached at, whoever asks. A link-local one means nothing
/// without its interface.
fn is_unusable(ip: IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    link_local || ip.is_unspecified() || ip.is_multicast()
}

#[cfg(test)]
mod tests;
