//! Connections that we begin for complete torrents: to leechers that trackers and others name, many
//! of whom nobody can call but who can be called, or the other way round.
//!
//! Each torrent has one home shard for that, as downloads have, so that nobody is called twice at a
//! time; whoever is connected already, on whichever shard, is left alone. What a called peer gets
//! is what one that came gets.
//!
//! Limits: [`ADDRESSES_MAX`] addresses of a shard and [`TORRENT_ADDRESSES_MAX`] of a torrent,
//! beyond which they are dropped, since trackers name them again; [`CONNECTING_MAX`] connections of
//! a torrent that are being begun and [`CALLED_MAX`] that we began; those of all torrents together
//! are bounded as for downloads ([`crate::fetch::FetchConfig::outgoing_max`],
//! [`crate::fetch::FetchConfig::half_open_max`]). Once a second only the torrents are looked at of
//! which an address has its turn.

use crate::fetch::connecting::{Called, call_peer, give_back};
use crate::fetch::home_of;
use crate::plane::Command;
use crate::shard::Shard;
use crate::torrent::SeededTorrent;
use engine::peer_list::{PeerList, PeerListConfig, PeerSource};
use engine::time::Time;
use proto::pex::{PexFlags, PexPeer};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Addresses that a shard knows for all its complete torrents.
const ADDRESSES_MAX: usize = 16_384;

/// Addresses that are known for one of them.
const TORRENT_ADDRESSES_MAX: usize = 64;

/// Connections of one torrent that are being begun.
const CONNECTING_MAX: usize = 4;

/// Connections of one torrent that we began.
const CALLED_MAX: usize = 50;

/// How long a torrent waits when no place is left for its calls, or no interface is there.
const REST: Duration = Duration::from_secs(5);

/// A seed is found by those who want something of it, so that it gives up soon.
const LIST: PeerListConfig = PeerListConfig {
    addresses_max: TORRENT_ADDRESSES_MAX,
    retry_min: Duration::from_secs(60),
    retry_max: Duration::from_secs(3600),
    failures_max: 3,
    few: 0,
    retry_few: Duration::from_secs(60),
};

/// The calls of one shard.
#[derive(Default)]
pub(crate) struct Calls {
    torrents: RefCell<HashMap<u64, Rc<SeedCalls>>>,
    /// Addresses of all of them.
    known: Cell<usize>,
    /// When an address of which torrent has its turn.
    due: RefCell<BTreeSet<(Time, u64)>>,
}

/// The calls of one torrent.
struct SeedCalls {
    torrent: Arc<SeededTorrent>,
    list: RefCell<PeerList>,
    /// Those of its addresses that [`Calls::known`] counts.
    counted: Cell<usize>,
    connecting: Cell<usize>,
    called: Cell<usize>,
    due_at: Cell<Time>,
}

/// A call, until its handshake is done.
struct Connecting(Rc<SeedCalls>);

impl Drop for Connecting {
    fn drop(&mut self) {
        self.0.connecting.set(self.0.connecting.get() - 1);
    }
}

impl Shard {
    /// Takes addresses of peers of a complete torrent, or sends them to where they belong.
    pub(crate) fn name_peers(
        self: &Rc<Self>,
        torrent: &Arc<SeededTorrent>,
        peers: Vec<SocketAddr>,
        source: PeerSource,
    ) {
        let may_call = self.config.call_leechers && torrent.may_call(source);
        if !may_call || peers.is_empty() {
            return;
        }
        let home = home_of(torrent.info_hash(), self.shards.len());
        if home != self.index {
            let home = self.shards.get(home).and_then(mpsc::WeakSender::upgrade);
            if let Some(home) = home {
                // A shard with so many commands waiting has no time for more peers: they are named
                // again.
                let _ = home.try_send(Command::Call(Arc::clone(torrent), peers, source));
            }
            return;
        }
        self.add_leechers(torrent, &peers, source);
    }

    /// What a peer of a complete torrent has told of others: those that are not complete may want
    /// something.
    pub(crate) fn take_told(self: &Rc<Self>, torrent: &Arc<SeededTorrent>, told: &[PexPeer]) {
        let leechers = told.iter().filter(|peer| !peer.flags.has(PexFlags::SEED));
        let leechers = leechers.map(|peer| peer.address).collect();
        self.name_peers(torrent, leechers, PeerSource::Exchange);
    }

    fn add_leechers(
        self: &Rc<Self>,
        torrent: &Arc<SeededTorrent>,
        peers: &[SocketAddr],
        source: PeerSource,
    ) {
        if self.is_stopping() || torrent.is_stopped() {
            return;
        }
        let now = self.now();
        let calls = &self.calls;
        let seed = calls.seed(torrent);
        let mut room = calls.room();
        for &peer in peers {
            if room == 0 {
                break;
            }
            let is_new = seed.list.borrow_mut().add(peer, source, now);
            self.count_found_for(torrent, source, is_new);
            room -= usize::from(is_new);
        }
        calls.schedule(&seed, now);
        self.call_leechers();
    }

    /// Begins the calls that are due. Once a second, and when there are new addresses.
    pub(crate) fn call_leechers(self: &Rc<Self>) {
        let now = self.now();
        while let Some(seed) = self.calls.next_due(now) {
            let until = match seed.torrent.is_stopped() || self.is_stopping() {
                true => Time::NEVER,
                false => self.call_for(&seed, now),
            };
            self.calls.schedule(&seed, until);
        }
    }

    /// Begins as many calls of one torrent as may be; returns when to look again.
    fn call_for(self: &Rc<Self>, seed: &Rc<SeedCalls>, now: Time) -> Time {
        if self.is_cut_off() {
            // Of so many addresses each would take a socket, once a second, to be told so.
            return now + REST;
        }
        let fetch = &self.config.fetch;
        loop {
            let is_full =
                seed.connecting.get() >= CONNECTING_MAX || seed.called.get() >= CALLED_MAX;
            if is_full {
                return now + REST;
            }
            let Some(place) = self.limits.call(fetch.outgoing_max, fetch.half_open_max) else {
                return now + REST;
            };
            // It falls asleep as soon as it is not used; nobody is called for it then.
            let Some(in_use) = self.roster.claim(&seed.torrent) else {
                return Time::NEVER;
            };
            let Some(address) = seed.list.borrow_mut().take(now) else {
                return seed.list.borrow().next_timeout();
            };
            if seed.torrent.swarm().has(address) {
                seed.list.borrow_mut().left(address, now);
                continue;
            }
            let peer = (address, seed.list.borrow().source_of_taken(address));
            seed.connecting.set(seed.connecting.get() + 1);
            seed.called.set(seed.called.get() + 1);
            let (shard, seed) = (Rc::clone(self), Rc::clone(seed));
            tokio_uring::spawn(async move {
                let connecting = Connecting(Rc::clone(&seed));
                let info_hash = seed.torrent.info_hash();
                let call = call_peer(&shard, peer, info_hash, connecting, |_| {}, place);
                let called = call.await;
                drop(in_use);
                shard.leecher_left(&seed, address, &called);
            });
        }
    }

    fn leecher_left(self: &Rc<Self>, seed: &Rc<SeedCalls>, address: SocketAddr, called: &Called) {
        seed.called.set(seed.called.get() - 1);
        let now = self.now();
        give_back(&mut seed.list.borrow_mut(), address, called, now);
        let next = seed.list.borrow().next_timeout();
        self.calls.schedule(seed, next.max(now));
    }

    /// Forgets whom to call for a torrent that is served no more.
    pub(crate) fn forget_leechers(&self, torrent: &SeededTorrent) {
        self.calls.remove(torrent.id());
    }
}

impl Calls {
    /// The calls of a torrent.
    fn seed(&self, torrent: &Arc<SeededTorrent>) -> Rc<SeedCalls> {
        let mut torrents = self.torrents.borrow_mut();
        let seed = torrents.entry(torrent.id()).or_insert_with(|| {
            Rc::new(SeedCalls {
                torrent: Arc::clone(torrent),
                list: RefCell::new(PeerList::new(LIST)),
                counted: Cell::new(0),
                connecting: Cell::new(0),
                called: Cell::new(0),
                due_at: Cell::new(Time::NEVER),
            })
        });
        Rc::clone(seed)
    }

    /// How many more addresses may be known.
    fn room(&self) -> usize {
        ADDRESSES_MAX.saturating_sub(self.known.get())
    }

    /// Counts the addresses of a torrent as they are now.
    fn recount(&self, seed: &SeedCalls, addresses: usize) {
        let before = seed.counted.replace(addresses);
        self.known.set(self.known.get() + addresses - before);
    }

    /// Has a torrent looked at again at `time`, or forgotten if it knows nobody.
    fn schedule(&self, seed: &Rc<SeedCalls>, time: Time) {
        let id = seed.torrent.id();
        let known = self.torrents.borrow().get(&id).map(Rc::clone);
        if known.is_none_or(|known| !Rc::ptr_eq(&known, seed)) {
            return;
        }
        let addresses = seed.list.borrow().len();
        if addresses == 0 || seed.torrent.is_stopped() {
            return self.remove(id);
        }
        self.recount(seed, addresses);
        let mut due = self.due.borrow_mut();
        due.remove(&(seed.due_at.replace(time), id));
        if time != Time::NEVER {
            due.insert((time, id));
        }
    }

    /// Takes a torrent whose turn it is.
    fn next_due(&self, now: Time) -> Option<Rc<SeedCalls>> {
        let mut due = self.due.borrow_mut();
        let &(time, id) = due.first().filter(|(time, _)| *time <= now)?;
        due.remove(&(time, id));
        self.torrents.borrow().get(&id).cloned()
    }

    fn remove(&self, id: u64) {
        if let Some(seed) = self.torrents.borrow_mut().remove(&id) {
            self.recount(&seed, 0);
            self.due.borrow_mut().remove(&(seed.due_at.get(), id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Data;

    /// The room is counted, not looked for: there may be thousands of torrents.
    #[test]
    fn the_room_is_what_the_lists_leave() {
        let data = Data::new(&[("a", 1 << 10)]);
        let calls = Calls::default();
        let seeds: Vec<_> = (1..=3)
            .map(|pieces| calls.seed(&data.torrent_of_pieces(pieces << 4)))
            .collect();
        let known = || {
            let torrents = calls.torrents.borrow();
            torrents
                .values()
                .map(|seed| seed.list.borrow().len())
                .sum::<usize>()
        };
        let now = Time::default();
        let address = |port| SocketAddr::from(([192, 0, 2, 1], port));
        for (index, port) in [(0, 1), (0, 2), (1, 1), (2, 1), (2, 2), (2, 3)] {
            let seed: &Rc<SeedCalls> = &seeds[index];
            assert!(
                seed.list
                    .borrow_mut()
                    .add(address(port), PeerSource::Tracker, now)
            );
            calls.schedule(seed, now);
            assert_eq!(calls.room(), ADDRESSES_MAX - known());
        }
        assert_eq!(known(), 6);
        seeds[0].list.borrow_mut().remove(address(1));
        calls.schedule(&seeds[0], now);
        assert_eq!((calls.room(), known()), (ADDRESSES_MAX - 5, 5));
        // The last address goes, a torrent is stopped, another is forgotten.
        seeds[1].list.borrow_mut().remove(address(1));
        calls.schedule(&seeds[1], now);
        assert_eq!(calls.room(), ADDRESSES_MAX - 4);
        seeds[2].torrent.stop();
        calls.schedule(&seeds[2], now);
        assert_eq!(calls.room(), ADDRESSES_MAX - 1);
        calls.remove(seeds[0].torrent.id());
        assert_eq!((calls.room(), calls.due.borrow().len()), (ADDRESSES_MAX, 0));
        // What comes back from a call of a torrent that is known no more counts for nothing.
        calls.schedule(&seeds[0], now);
        assert_eq!((calls.room(), calls.due.borrow().len()), (ADDRESSES_MAX, 0));
    }
}
