//! Peer exchange (BEP 11) on the connections of a torrent: who is connected is entered into the
//! torrent's [`Swarm`], and each peer is told now and then what has changed in it.
//!
//! The connections of a torrent may be on all shards, so its swarm is behind a lock. It is taken
//! when a peer comes and goes, and when one is told something: never on the way of a block. Once a
//! second each connection looks ([`Exchange::look`]); as long as nobody has come or gone that costs
//! the reading of one atomic.
//!
//! Limits: those of [`engine::pex`]; and a peer that leaves so much unread that [`BACKLOG_BYTES`]
//! wait is told later.
//!
//! Of a private torrent the swarm is known, but nobody is told of it or heard about it: [`Session`]
//! neither offers the extension nor sends or reads its messages (BEP 27).

use crate::connection::Connection;
use crate::torrent::SeededTorrent;
use engine::pex::{PERIOD, Receiver, Swarm, SwarmKey, Teller};
use engine::session::Session;
use engine::time::Time;
use proto::pex::{PexFlags, PexMessage, PexPeer};
use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Control messages in a connection's queue beyond which nothing is told, in bytes.
const BACKLOG_BYTES: usize = 4 << 10;

/// The peers that are connected for a torrent, on all shards.
#[derive(Default)]
pub(crate) struct SharedSwarm {
    /// The swarm's version, to be compared without the lock.
    version: AtomicU64,
    swarm: Mutex<Swarm>,
}

impl SharedSwarm {
    fn lock(&self) -> MutexGuard<'_, Swarm> {
        self.swarm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody is connected who listens at `address`.
    pub(crate) fn has(&self, address: SocketAddr) -> bool {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        self.lock().has(address)
    }

    fn change<R>(&self, change: impl FnOnce(&mut Swarm) -> R) -> R {
        let mut swarm = self.lock();
        let result = change(&mut swarm);
        self.version.store(swarm.version(), Ordering::Release);
        result
    }
}

/// A connection's part in the exchange; it leaves the swarm when this is dropped.
pub(crate) struct Exchange {
    torrent: Arc<SeededTorrent>,
    /// Where the peer listens, if we called it there.
    called: Option<SocketAddr>,
    place: Cell<Option<SwarmKey>>,
    flags: Cell<PexFlags>,
    /// After a swarm that was full, when to ask again.
    enter_at: Cell<Time>,
    teller: Cell<Teller>,
    /// The version of the swarm in which there is nothing more to tell.
    told: Cell<Option<u64>>,
}

impl Exchange {
    /// The part of a connection that has told nothing.
    pub(crate) fn new(torrent: &Arc<SeededTorrent>, called: Option<SocketAddr>) -> Exchange {
        Exchange {
            torrent: Arc::clone(torrent),
            called,
            place: Cell::new(None),
            flags: Cell::new(PexFlags::default()),
            enter_at: Cell::new(Time::default()),
            teller: Cell::new(Teller::default()),
            told: Cell::new(None),
        }
    }

    /// Whether we began the connection.
    pub(crate) fn is_called(&self) -> bool {
        self.called.is_some()
    }

    /// Where the peer takes connections, as far as is known.
    pub(crate) fn address(&self, connection: &Connection, session: &Session) -> Option<SocketAddr> {
        let said = || {
            let port = session.peer_listen_port()?;
            Some(SocketAddr::new(connection.peer.ip(), port.get()))
        };
        let address = self.called.or_else(said)?;
        Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }

    /// Once a second: enters the peer into the swarm when it is known where it listens, and tells
    /// it of the others when that is due. True if there is something to send.
    pub(crate) fn look(&self, connection: &Connection, now: Time) -> bool {
        let mut session = connection.session.borrow_mut();
        self.enter(connection, &session, now);
        let message = self.next_message(connection, &session, now);
        if let Some(message) = &message {
            session.tell_peers(message);
        }
        message.is_some()
    }

    fn enter(&self, connection: &Connection, session: &Session, now: Time) {
        let flags = flags(session, self.is_called());
        let swarm = self.torrent.swarm();
        match self.place.get() {
            Some(_) if self.flags.get() == flags => {}
            Some(key) => swarm.change(|swarm| swarm.set_flags(key, flags)),
            None if now < self.enter_at.get() => return,
            None => {
                let Some(address) = self.address(connection, session) else {
                    return;
                };
                let peer = PexPeer { address, flags };
                self.place.set(swarm.change(|swarm| swarm.join(peer)));
                self.enter_at.set(now + PERIOD);
            }
        }
        self.flags.set(flags);
    }

    fn next_message(
        &self,
        connection: &Connection,
        session: &Session,
        now: Time,
    ) -> Option<PexMessage> {
        let mut teller = self.teller.get();
        let swarm = self.torrent.swarm();
        let version = swarm.version.load(Ordering::Acquire);
        let has_news = self.told.get() != Some(version);
        let has_room = session.control_bytes() <= BACKLOG_BYTES;
        if !has_news || !has_room || !teller.is_due(now) || !session.wants_exchange() {
            return None;
        }
        let receiver = Receiver {
            ip: connection.peer.ip(),
            key: self.place.get(),
        };
        let message = teller.next_message(&swarm.lock(), receiver, now);
        self.teller.set(teller);
        // More than one message has room for is told of with the next.
        self.told.set(message.is_none().then_some(version));
        message
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(key) = self.place.get() {
            self.torrent.swarm().change(|swarm| swarm.leave(key));
        }
    }
}

fn flags(session: &Session, is_called: bool) -> PexFlags {
    let mut flags = PexFlags::default();
    if session.is_peer_seed() {
        flags = flags.with(PexFlags::SEED);
    }
    if is_called {
        flags = flags.with(PexFlags::REACHABLE);
    }
    flags
}
