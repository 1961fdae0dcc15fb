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
//! Limits: those of [`engine::super_seed`]; and a peer that leaves so much unread that
//! [`BACKLOG_BYTES`] wait is told of the rest later.

use crate::connection::Connection;
use crate::torrent::SeededTorrent;
use engine::session::{Heard, Session};
use engine::super_seed::{News, SuperKey, SuperSeed};
use engine::time::Time;
use proto::ids::{PeerId, PieceIndex};
use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

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
}

impl State {
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
}

impl Part {
    /// The part of a peer that has come for a complete torrent; none if it is to be served as by
    /// any seed. `chance` decides between equally rare pieces.
    pub(crate) fn enter(
        torrent: &Arc<SeededTorrent>,
        peer_id: PeerId,
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
        let key = (!policy.is_over()).then(|| policy.join(peer_id, now));
        let bell = Arc::new(Notify::new());
        if let Some(key) = key {
            state.bells.insert(key, Arc::clone(&bell));
        }
        state.ring();
        Some(Part {
            torrent: Arc::clone(torrent),
            generation: state.generation,
            key: key?,
            bell,
            tells_all: Cell::new(false),
            sent_bytes: Cell::new(0),
            at: Cell::new(now),
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

    /// Once a second: looks at who gets nowhere, and goes on with telling of everything. True if
    /// there is something to send.
    pub(crate) fn look(&self, session: &mut Session, now: Time) -> bool {
        self.at.set(now);
        if self.tells_all.get() {
            return self.tell_rest(session);
        }
        let sent = session.counters().uploaded_bytes;
        let is_sent = self.sent_bytes.replace(sent) != sent;
        let waits = session.wants_unchoke();
        let mut asked: Vec<PieceIndex> = session.queued().map(|block| block.piece).collect();
        asked.dedup();
        self.with(|policy| {
            if waits || is_sent || !asked.is_empty() {
                policy.serves(self.key, &asked, waits, now);
            }
            policy.tick(now);
        });
        false
    }

    /// Tells the peer what it is to be told of.
    fn tell(&self, session: &mut Session) {
        let off = || News {
            all: true,
            ..News::default()
        };
        let news = self.with(|policy| policy.take_news(self.key));
        let news = news.unwrap_or_else(off);
        session.tell_pieces(&news.pieces);
        if news.all && !self.tells_all.replace(true) {
            self.tell_rest(session);
        }
    }

    fn tell_rest(&self, session: &mut Session) -> bool {
        let has_room = session.control_bytes() <= BACKLOG_BYTES;
        has_room && session.tell_rest(HAVES_AT_ONCE)
    }
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
