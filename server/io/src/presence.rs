//! Who is connected for a torrent, in numbers: kept by the connections as they come and go, on
//! whatever shard, so that nobody has to look at all of them to count them. And how fast each is.
//!
//! Limits: [`PeerPlace::enter`] takes one. A connection that is being closed has no place any more.

use crate::torrent::SeededTorrent;
use engine::peer_list::{PeerSource, SourceCounts};
use engine::time::Time;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A rate follows what was measured in the last second by one part of so many.
const SPEED_PARTS: u64 = 4;

/// What has gone since a connection began, or since the last look, counts as if it had taken so long
/// at least: a burst is no rate.
const SPAN_MIN: Duration = Duration::from_secs(1);

/// A count for each source.
#[derive(Default)]
struct BySource([AtomicU32; PeerSource::ALL.len()]);

impl BySource {
    fn of(&self, source: PeerSource) -> Option<&AtomicU32> {
        self.0.get(source as usize)
    }

    fn add(&self, source: PeerSource) {
        if let Some(count) = self.of(source) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn remove(&self, source: PeerSource) {
        if let Some(count) = self.of(source) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn counts(&self) -> SourceCounts {
        let mut counts = SourceCounts::default();
        for source in PeerSource::ALL {
            let count = self.of(source);
            counts.set(source, count.map_or(0, |it| it.load(Ordering::Relaxed)));
        }
        counts
    }
}

/// The peers of one torrent.
#[derive(Default)]
pub(crate) struct Presence {
    peers: AtomicU32,
    seeds: AtomicU32,
    connected: BySource,
    named: BySource,
}

impl Presence {
    /// How many are connected, and how many of them only upload or have everything.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let count = |count: &AtomicU32| count.load(Ordering::Relaxed) as usize;
        (count(&self.peers), count(&self.seeds))
    }

    /// Who named those that are connected; who came by itself is its own source.
    pub(crate) fn connected(&self) -> SourceCounts {
        self.connected.counts()
    }

    /// Who named how many addresses, connections that came among them. They only grow.
    pub(crate) fn named(&self) -> SourceCounts {
        self.named.counts()
    }

    /// Counts an address that `source` named and that was not known.
    pub(crate) fn note_named(&self, source: PeerSource) {
        self.named.add(source);
    }
}

/// A connection's place among the peers of its torrent, until it is closing or dropped.
pub(crate) struct PeerPlace {
    torrent: Arc<SeededTorrent>,
    source: PeerSource,
    is_seed: Cell<bool>,
    has_left: Cell<bool>,
}

impl PeerPlace {
    /// Takes a place, of which there are `peers_max`, for a peer that `source` named.
    pub(crate) fn enter(
        torrent: &Arc<SeededTorrent>,
        source: PeerSource,
        peers_max: Option<u32>,
    ) -> Option<PeerPlace> {
        let presence = torrent.presence();
        let peers_max = peers_max.unwrap_or(u32::MAX);
        let (ordering, more) = (Ordering::Relaxed, |peers: u32| {
            (peers < peers_max).then(|| peers + 1)
        });
        presence.peers.fetch_update(ordering, ordering, more).ok()?;
        presence.connected.add(source);
        Some(PeerPlace {
            torrent: Arc::clone(torrent),
            source,
            is_seed: Cell::new(false),
            has_left: Cell::new(false),
        })
    }

    /// Notes whether the peer is a seed.
    pub(crate) fn set_seed(&self, is_seed: bool) {
        if self.has_left.get() || self.is_seed.replace(is_seed) == is_seed {
            return;
        }
        let seeds = &self.torrent.presence().seeds;
        match is_seed {
            true => seeds.fetch_add(1, Ordering::Relaxed),
            false => seeds.fetch_sub(1, Ordering::Relaxed),
        };
    }

    /// Gives the place up if more than `peers_max` are taken; true if it did.
    pub(crate) fn give_way(&self, peers_max: u32) -> bool {
        if self.has_left.get() {
            return false;
        }
        let (ordering, less) = (Ordering::Relaxed, |peers: u32| {
            (peers > peers_max).then(|| peers - 1)
        });
        let peers = &self.torrent.presence().peers;
        let gives_way = peers.fetch_update(ordering, ordering, less).is_ok();
        if gives_way {
            self.forget();
        }
        gives_way
    }

    /// Gives the place up, if it has not been.
    pub(crate) fn leave(&self) {
        if !self.has_left.get() {
            let peers = &self.torrent.presence().peers;
            peers.fetch_sub(1, Ordering::Relaxed);
            self.forget();
        }
    }

    fn forget(&self) {
        self.set_seed(false);
        self.has_left.set(true);
        self.torrent.presence().connected.remove(self.source);
    }
}

impl Drop for PeerPlace {
    fn drop(&mut self) {
        self.leave();
    }
}

/// How fast payload goes one way, over the last seconds; looked at once in each.
pub(crate) struct Speed {
    bytes: Cell<u64>,
    rate: Cell<u64>,
    looked_at: Cell<Time>,
}

impl Speed {
    fn new(now: Time) -> Speed {
        Speed {
            bytes: Cell::new(0),
            rate: Cell::new(0),
            looked_at: Cell::new(now),
        }
    }

    /// Notes that `bytes` have gone in all.
    pub(crate) fn look(&self, bytes: u64, now: Time) {
        let span = now.since(self.looked_at.replace(now)).max(SPAN_MIN);
        let new = bytes.saturating_sub(self.bytes.replace(bytes));
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let measured = new.saturating_mul(1_000) / millis;
        self.rate.set(match self.rate.get() {
            0 => measured,
            rate => rate - rate.div_ceil(SPEED_PARTS) + measured / SPEED_PARTS,
        });
    }

    /// In bytes per second.
    pub(crate) fn rate(&self) -> u64 {
        self.rate.get()
    }
}

/// How fast payload goes to a peer and comes from it.
pub(crate) struct Speeds {
    pub(crate) up: Speed,
    pub(crate) down: Speed,
}

impl Speeds {
    /// Those of a connection that begins.
    pub(crate) fn new(now: Time) -> Speeds {
        Speeds {
            up: Speed::new(now),
            down: Speed::new(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Data;

    #[test]
    fn places_are_counted_by_source_up_to_a_limit_and_given_back_once() {
        let data = Data::new(&[("a", 10)]);
        let torrent = data.torrent();
        let enter = |source, max| PeerPlace::enter(&torrent, source, max);
        let first = enter(PeerSource::Tracker, Some(2)).unwrap();
        let second = enter(PeerSource::Incoming, Some(2)).unwrap();
        assert!(enter(PeerSource::Dht, Some(2)).is_none());
        second.set_seed(true);
        second.set_seed(true);
        assert_eq!(torrent.presence().counts(), (2, 1));
        let of = |source| torrent.presence().connected().get(source);
        assert_eq!((of(PeerSource::Tracker), of(PeerSource::Dht)), (1, 0));
        second.leave();
        second.set_seed(true);
        assert_eq!(
            (torrent.presence().counts(), of(PeerSource::Incoming)),
            ((1, 0), 0)
        );
        assert!(enter(PeerSource::Dht, Some(2)).is_some());
        drop((first, second));
        assert_eq!(torrent.presence().counts(), (0, 0));
    }

    /// As many go as are too many, whoever is asked first.
    #[test]
    fn of_those_who_are_too_many_the_rest_stays() {
        let data = Data::new(&[("a", 10)]);
        let torrent = data.torrent();
        let places: Vec<_> = (0..5)
            .map(|_| PeerPlace::enter(&torrent, PeerSource::Given, None).unwrap())
            .collect();
        let went = |max| places.iter().filter(|place| place.give_way(max)).count();
        assert_eq!(went(2), 3);
        assert_eq!(went(2), 0);
        assert_eq!(torrent.presence().counts().0, 2);
        drop(places);
        assert_eq!(torrent.presence().counts().0, 0);
        assert_eq!(torrent.presence().connected().get(PeerSource::Given), 0);
    }

    #[test]
    fn a_speed_is_that_of_the_last_seconds_and_comes_to_nothing() {
        let at = |second| Time::default() + Duration::from_secs(second);
        let speed = Speed::new(at(1));
        speed.look(500, at(1));
        assert_eq!(speed.rate(), 500);
        let speed = Speed::new(at(1));
        speed.look(0, at(1));
        speed.look(1_000, at(2));
        assert_eq!(speed.rate(), 1_000);
        speed.look(6_000, at(2) + Duration::from_millis(1));
        assert_eq!(speed.rate(), 750 + 1_250);
        speed.look(16_000, at(4));
        assert_eq!(speed.rate(), 1_500 + 1_250);
        (5..60).for_each(|second| speed.look(16_000, at(second)));
        assert_eq!(speed.rate(), 0);
    }
}
