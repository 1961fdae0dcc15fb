//! Super-seeding (BEP 16) on the connections of a torrent: who is connected and what each says that
//! it has is entered into the torrent's [`SuperSeed`], which says what each is told of.
//!
//! The connections of a torrent may be on all shards, so that is behind a lock. It is taken when a
//! peer comes and goes, when it says that it has got a piece, once a second, and when there is
//! something to tell: never on the way of a block. Who is to be told is woken, on whatever shard.
//! A torrent that is not super-seeded costs one relaxed load for each peer that comes.
//!
//! Connections that were there before it was switched on go on as they are; when it is switched
//! off, or has done its work, all are told of everything.
//!
//! Limits: those of [`engine::super_seed`]; a peer that leaves so much unread that
//! [`BACKLOG_BYTES`] wait is told of the rest later; and [`MEMORY_BYTES_MAX`] for all torrents
//! together, beyond which peers that come are served as by any seed.

mod room;

use crate::connection::Connection;
use crate::sockets::stranger;
use crate::torrent::SeededTorrent;
use engine::session::{Heard, Session};
use engine::super_seed::{News, SuperKey, SuperSeed};
use engine::time::Time;
use proto::ids::PieceIndex;
use std::cell::Cell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

pub use room::MEMORY_BYTES_MAX;
pub(crate) use room::{Reserved, Room};

/// Control messages in a connection's queue beyond which it is told of no more, in bytes.
const BACKLOG_BYTES: usize = 4 << 10;

/// Pieces that a peer is told of at once when it is told of everything.
const HAVES_AT_ONCE: usize = 4_096;

/// What the connections of a torrent share.
#[derive(Default)]
pub(crate) struct SharedSuperSeed {
    is_on: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How often it was switched off: parts of before are told of everything.
    generation: u64,
    policy: Option<Box<SuperSeed>>,
    /// By which each part is woken.
    bells: HashMap<SuperKey, Arc<Notify>>,
    /// Room for what is known of the pieces, while peers are there.
    base: Option<Reserved>,
    /// It was logged that there is no room.
    is_full: bool,
}

impl State {
    /// Room for one more peer of a torrent of so many pieces.
    fn reserve(&mut self, room: &Arc<Room>, pieces: u32) -> Option<Reserved> {
        let base = match self.base.take() {
            Some(base) => base,
            None => room.reserve(SuperSeed::memory_bytes(pieces))?,
        };
        let peer = room.reserve(SuperSeed::peer_memory_bytes_max(pieces));
        if peer.is_some() || !self.bells.is_empty() {
            self.base = Some(base);
        }
        peer
    }

    /// Says once that there is no room.
    fn say_full(&mut self, torrent: &SeededTorrent) {
        if !std::mem::replace(&mut self.is_full, true) {
            tracing::warn!(
                torrent = %torrent.info_hash(),
                name = torrent.metainfo().name,
                bytes_max = MEMORY_BYTES_MAX,
                "super-seeding has no room in memory for more peers: those that come are served as \
                 by any seed until others go"
            );
        }
    }

    /// Wakes those that there is something to tell.
    fn ring(&mut self) {
        let Some(policy) = &mut self.policy else {
            return;
        };
        for key in policy.take_changed() {
            if let Some(bell) = self.bells.get(&key) {
                bell.notify_one();
            }
        }
    }
}

impl SharedSuperSeed {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Switches it on for peers that come from now on, or off for all.
    pub(crate) fn set(&self, on: bool) {
        let was_on = self.is_on.swap(on, Ordering::Relaxed);
        if on || !was_on {
            return;
        }
        let mut state = self.lock();
        state.generation += 1;
        state.policy = None;
        state.base = None;
        state.is_full = false;
        for (_, bell) in state.bells.drain() {
            bell.notify_one();
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }
}

/// A connection's part in it; it leaves when this is dropped.
pub(crate) struct Part {
    torrent: Arc<SeededTorrent>,
    generation: u64,
    key: SuperKey,
    bell: Arc<Notify>,
    /// It is being told of everything.
    tells_all: Cell<bool>,
    /// What it was sent, at the last look.
    sent_bytes: Cell<u64>,
    /// When it was last looked at.
    at: Cell<Time>,
    _reserved: Reserved,
}

impl Part {
    /// The part of a peer at `address` that has come for a complete torrent; none if it is to be
    /// served as by any seed. `chance` decides between equally rare pieces.
    pub(crate) fn enter(
        torrent: &Arc<SeededTorrent>,
        address: IpAddr,
        room: &Arc<Room>,
        chance: u64,
        now: Time,
    ) -> Option<Part> {
        let shared = torrent.super_seeding();
        if !shared.is_on() {
            return None;
        }
        let mut state = shared.lock();
        // It may have been switched off before the lock was ours.
        if !shared.is_on() {
            return None;
        }
        let pieces = torrent.layout().piece_count();
        let policy = state
            .policy
            .get_or_insert_with(|| Box::new(SuperSeed::new(pieces, chance)));
        policy.tick(now);
        let is_over = policy.is_over();
        state.ring();
        if is_over {
            return None;
        }
        let Some(reserved) = state.reserve(room, pieces) else {
            state.say_full(torrent);
            return None;
        };
        let key = state.policy.as_mut()?.join(stranger(address), now);
        let bell = Arc::new(Notify::new());
        state.bells.insert(key, Arc::clone(&bell));
        state.ring();
        Some(Part {
            torrent: Arc::clone(torrent),
            generation: state.generation,
            key,
            bell,
            tells_all: Cell::new(false),
            sent_bytes: Cell::new(0),
            at: Cell::new(now),
            _reserved: reserved,
        })
    }

    /// Does something with what is shared, unless it was switched off, and wakes whom it concerns.
    fn with<R>(&self, change: impl FnOnce(&mut SuperSeed) -> R) -> Option<R> {
        let mut state = self.torrent.super_seeding().lock();
        if state.generation != self.generation {
            return None;
        }
        let result = state.policy.as_deref_mut().map(change);
        state.ring();
        result
    }

    /// Takes what the peer has said that it has.
    pub(crate) fn heard(&self, heard: Vec<Heard>, now: Time) {
        let key = self.key;
        self.at.set(now);
        self.with(|policy| {
            for heard in heard {
                match heard {
                    Heard::Has(piece) => policy.has(key, piece, now),
                    Heard::These(bitfield) => policy.has_these(key, &bitfield, now),
                    Heard::All => policy.has_all(key, now),
                }
            }
        });
    }

    /// Once a second: looks at who gets nowhere, and goes on with telling the peer what it had no
    /// room for. True if there is something to send.
    pub(crate) fn look(&self, session: &mut Session, now: Time) -> bool {
        self.at.set(now);
        if self.tells_all.get() {
            return self.tell_rest(session);
        }
        let sent = session.counters().uploaded_bytes;
        let is_sent = self.sent_bytes.replace(sent) != sent;
        let waits = session.wants_unchoke();
        let mut asked: Vec<PieceIndex> = session.queued().map(|block| block.piece).collect();
        asked.sort_unstable();
        asked.dedup();
        let has_room = has_room(session);
        let news = self.with(|policy| {
            if waits || is_sent || !asked.is_empty() {
                policy.serves(self.key, &asked, waits, now);
            }
            policy.tick(now);
            match has_room {
                true => policy.take_news(self.key),
                false => News::default(),
            }
        });
        self.say(session, news)
    }

    /// Tells the peer what it is to be told of; what it leaves no room for waits for the next look.
    fn tell(&self, session: &mut Session) {
        if has_room(session) {
            let news = self.with(|policy| policy.take_news(self.key));
            self.say(session, news);
        }
    }

    /// Tells the peer this, or everything if it is super-seeded no more. True if there is something
    /// to send.
    fn say(&self, session: &mut Session, news: Option<News>) -> bool {
        let off = || News {
            all: true,
            ..News::default()
        };
        let news = news.unwrap_or_else(off);
        session.tell_pieces(&news.pieces);
        let begins = news.all && !self.tells_all.replace(true);
        if begins {
            self.tell_rest(session);
        }
        begins || !news.pieces.is_empty()
    }

    fn tell_rest(&self, session: &mut Session) -> bool {
        has_room(session) && session.tell_rest(HAVES_AT_ONCE)
    }
}

/// Whether the peer has read so much of what it was told that it is to be told of more.
fn has_room(session: &Session) -> bool {
    session.control_bytes() <= BACKLOG_BYTES
}

impl Drop for Part {
    fn drop(&mut self) {
        let mut state = self.torrent.super_seeding().lock();
        if state.generation != self.generation {
            return;
        }
        state.bells.remove(&self.key);
        if let Some(policy) = &mut state.policy {
            policy.leave(self.key, self.at.get());
        }
        if state.bells.is_empty() {
            state.base = None;
        }
        state.ring();
    }
}

/// Tells a peer what is new as long as this is held.
pub(crate) struct Following(JoinHandle<()>);

impl Following {
    /// Of a connection that is super-seeded.
    pub(crate) fn begin(connection: &Rc<Connection>) -> Option<Following> {
        let bell = Arc::clone(&connection.part.as_ref()?.bell);
        let connection = Rc::clone(connection);
        Some(Following(tokio_uring::spawn(async move {
            loop {
                bell.notified().await;
                if let Some(part) = &connection.part {
                    part.tell(&mut connection.session.borrow_mut());
                    connection.wake_writer();
                }
            }
        })))
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests;
