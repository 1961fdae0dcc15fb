//! Peers that call us while a torrent's metadata are being fetched: somebody told them of us, and
//! they may be the only ones that have them, behind a NAT that lets nobody call. They come to the
//! shard that fetches, as those of downloads do, and are asked as if we had called.
//!
//! When the metadata are here, they wait for the download as well. Of a private one (BEP 27) they
//! are left, because nobody knows from whom they have heard of us: they call again.
//!
//! Limits: [`VISITORS_MAX`], of whom [`VISITORS_OF_ONE_MAX`] may be one stranger; who is one more
//! is closed, and a place is free again after [`super::PATIENCE`] of no use. How many torrents are
//! looked up at a time is the caller's.

use super::Exchange;
use crate::closing::CloseReason;
use crate::connection::Opened;
use crate::fetch::connecting;
use crate::shard::{Shard, Visit};
use crate::sockets;
use engine::metadata::MetadataRoom;
use engine::peer_list::PeerSource;
use proto::handshake::Handshake;
use proto::ids::InfoHashV1;
use seedring_metrics::Counter;
use std::collections::HashMap;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_uring::net::TcpStream;

/// Peers that called us, of one fetch.
const VISITORS_MAX: usize = 32;

/// Those of them that are one stranger.
const VISITORS_OF_ONE_MAX: usize = 4;

/// Whose metadata are being fetched, for all shards: which of them fetches follows from the hash
/// ([`crate::fetch::home_of`]); and the room in memory that these fetches share.
#[derive(Default)]
pub(crate) struct Resolving {
    fetches: Mutex<HashMap<InfoHashV1, usize>>,
    room: Arc<MetadataRoom>,
}

impl Resolving {
    /// Whether a torrent is among them.
    pub(crate) fn contains(&self, info_hash: InfoHashV1) -> bool {
        self.lock().contains_key(&info_hash)
    }

    /// Room for the metadata that are being gathered.
    pub(super) fn room(&self) -> Arc<MetadataRoom> {
        Arc::clone(&self.room)
    }

    fn enter(&self, info_hash: InfoHashV1) {
        *self.lock().entry(info_hash).or_default() += 1;
    }

    fn leave(&self, info_hash: InfoHashV1) {
        let mut fetches = self.lock();
        if let Some(count) = fetches.get_mut(&info_hash) {
            *count -= 1;
            if *count == 0 {
                fetches.remove(&info_hash);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<InfoHashV1, usize>> {
        self.fetches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// By which peers that call us come to a fetch, until it is dropped.
pub(super) struct Door {
    shard: Rc<Shard>,
    exchange: Rc<Exchange>,
}

impl Door {
    pub(super) fn open(shard: &Rc<Shard>, exchange: &Rc<Exchange>) -> Door {
        let mut exchanges = shard.exchanges.borrow_mut();
        exchanges.insert(exchange.info_hash, Rc::clone(exchange));
        shard.resolving.enter(exchange.info_hash);
        Door {
            shard: Rc::clone(shard),
            exchange: Rc::clone(exchange),
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let info_hash = self.exchange.info_hash;
        self.shard.resolving.leave(info_hash);
        let mut exchanges = self.shard.exchanges.borrow_mut();
        // A later fetch of the same torrent has its own.
        let is_this = |one: &Rc<Exchange>| Rc::ptr_eq(one, &self.exchange);
        if exchanges.get(&info_hash).is_some_and(is_this) {
            exchanges.remove(&info_hash);
        }
    }
}

/// A visitor's place, given back when it is dropped.
struct Place {
    exchange: Rc<Exchange>,
    stranger: IpAddr,
}

impl Place {
    fn take(exchange: &Rc<Exchange>, address: IpAddr) -> Option<Place> {
        let stranger = sockets::stranger(address);
        let mut visitors = exchange.visitors.borrow_mut();
        let theirs = visitors.iter().filter(|&&other| other == stranger);
        if visitors.len() >= VISITORS_MAX || theirs.count() >= VISITORS_OF_ONE_MAX {
            return None;
        }
        visitors.push(stranger);
        Some(Place {
            exchange: Rc::clone(exchange),
            stranger,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut visitors = self.exchange.visitors.borrow_mut();
        let place = visitors.iter().position(|other| *other == self.stranger);
        if let Some(place) = place {
            visitors.swap_remove(place);
        }
    }
}

impl Exchange {
    /// Asks a peer that called us and whose handshake has been read, and has the download go on
    /// with it; returns why the connection has ended.
    pub(crate) async fn visited(
        self: &Rc<Self>,
        shard: &Rc<Shard>,
        (socket, address): (Rc<TcpStream>, SocketAddr),
        visit: &mut Visit,
        theirs: Handshake,
    ) -> CloseReason {
        visit.greeted();
        shard.cells.increment(Counter::Handshakes);
        shard.count_found(PeerSource::Incoming, true);
        if self.list.borrow().is_banned(address) {
            return CloseReason::Banned;
        }
        if !theirs.reserved.extension_protocol() {
            return CloseReason::Pointless;
        }
        let Some(place) = Place::take(self, address.ip()) else {
            return CloseReason::Full;
        };
        let ours = shard.our_handshake(self.info_hash).encode();
        if let Err(error) = sockets::send_first(&*socket, &ours) {
            return CloseReason::of_socket(&error);
        }
        let met = Opened {
            socket: Rc::clone(&socket),
            peer: address,
            source: PeerSource::Incoming,
            is_called: false,
            theirs,
            received: Vec::new(),
        };
        match self.attend(shard, met).await {
            Ok(opened) => {
                let reason = connecting::keep_visitor(shard, opened, visit, place).await;
                // A poll that nobody waits for any more may hold the socket open.
                let _ = socket.shutdown(Shutdown::Both);
                reason
            }
            Err(reason) => reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_places_however_many_strangers_come() {
        let exchange = Rc::new(Exchange::new(
            InfoHashV1([1; 20]),
            Arc::default(),
            Arc::default(),
        ));
        let address = |number: usize| IpAddr::from([10, 0, 0, number as u8]);
        let places: Vec<_> = (0..VISITORS_MAX)
            .map(|number| Place::take(&exchange, address(number)).unwrap())
            .collect();
        assert!(Place::take(&exchange, address(VISITORS_MAX)).is_none());
        drop(places);
        let of_one = || Place::take(&exchange, address(0));
        let places: Vec<_> = std::iter::from_fn(of_one).collect();
        assert_eq!(places.len(), VISITORS_OF_ONE_MAX);
    }

    #[test]
    fn a_torrent_is_looked_for_until_the_last_fetch_of_it_has_ended() {
        let resolving = Resolving::default();
        let info_hash = InfoHashV1([1; 20]);
        resolving.enter(info_hash);
        resolving.enter(info_hash);
        resolving.leave(info_hash);
        assert!(resolving.contains(info_hash));
        resolving.leave(info_hash);
        assert!(!resolving.contains(info_hash));
    }
}
