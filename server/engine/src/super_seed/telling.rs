//! Which pieces a peer is told of, and for which nothing is expected of it any more.

use super::{
    OVERTAKEN_MAX, PATIENCE, Peer, SAMPLE, SuperKey, SuperSeed, TOLD_AT_ONCE_MAX, WINDOW_MIN,
    Waiting,
};
use crate::picker::pieces_around;
use crate::random::Random;
use crate::time::Time;
use proto::ids::PieceIndex;
use std::cell::Cell;

impl SuperSeed {
    /// A peer got nowhere: it is told of twice as many as the last time.
    pub(super) fn excuse(&mut self, key: SuperKey, now: Time) {
        self.release(key, |_, _, _| true);
        let piece_count = self.piece_count as usize;
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        peer.progress_at = now;
        peer.burst = (peer.burst * 2).clamp(WINDOW_MIN, piece_count.max(WINDOW_MIN));
        peer.owed = peer.burst;
        peer.window = WINDOW_MIN;
        self.tell_owed(key, now);
    }

    /// Tells a peer that got nowhere of as many of its burst as may be at once. Nothing that it was
    /// told of before is waited for any more.
    pub(super) fn tell_owed(&mut self, key: SuperKey, now: Time) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        let number = peer.owed.min(peer.room_for_news());
        if number == 0 {
            return;
        }
        peer.owed -= number;
        self.release(key, |_, _, _| true);
        // Of any: those that nobody has may all be on their way to others.
        self.offer(key, now, number, false);
    }

    /// Gives those pieces to others that a peer does not ask for, though it has got many others.
    pub(super) fn take_back(&mut self, key: SuperKey, now: Time) {
        self.release(key, |peer, piece, waiting| {
            let is_overtaken = peer.got - waiting.got >= OVERTAKEN_MAX;
            let is_asked_for = now.since(waiting.asked_at) < PATIENCE;
            !peer.has.contains(piece) && is_overtaken && !is_asked_for
        });
    }

    /// Waits no more for those pieces that `which` says.
    pub(super) fn release(
        &mut self,
        key: SuperKey,
        which: impl Fn(&Peer, PieceIndex, &Waiting) -> bool,
    ) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        let waiting = peer.waiting.iter();
        let gone = waiting.filter(|(piece, waiting)| which(peer, **piece, waiting));
        let gone: Vec<PieceIndex> = gone.map(|(piece, _)| *piece).collect();
        for piece in gone {
            peer.waiting.remove(&piece);
            if peer.has.contains(piece) {
                self.alone.remove(&piece);
            } else {
                self.spread.expect_no_more(piece);
            }
        }
    }

    /// Tells a peer of everything.
    pub(super) fn tell_all(&mut self, key: SuperKey) {
        self.release(key, |_, _, _| true);
        if let Some(peer) = self.peers.get_mut(&key).filter(|peer| !peer.knows_all) {
            peer.knows_all = true;
            peer.news.all = true;
            self.changed.insert(key);
        }
    }

    /// Tells a peer of as many pieces as may wait for it: as long as some are out nowhere, of those
    /// only that nobody has or gets; then of the rarest.
    pub(super) fn fill(&mut self, key: SuperKey, now: Time) {
        self.steps += 1;
        let Some(peer) = self.peers.get(&key) else {
            return;
        };
        let number = peer.window.saturating_sub(peer.waiting.len());
        let number = number.min(peer.room_for_news());
        self.offer(key, now, number, self.missing() > 0);
    }

    /// Tells a peer of `number` pieces at most: of those that nobody has or gets, or of any.
    fn offer(&mut self, key: SuperKey, now: Time, number: usize, only_free: bool) {
        let Some(peer) = self.peers.get(&key) else {
            return;
        };
        let is_all_known = peer.knows_all || peer.known_count == self.piece_count;
        if number == 0 || is_all_known || (only_free && self.spread.free_count() == 0) {
            return;
        }
        let start = self.start_of(key, peer);
        let (known, free) = (peer.known.words(), self.spread.free().words());
        let looked = Cell::new(0_u64);
        let unknown = |index: usize| {
            looked.set(looked.get() + 1);
            let allowed = if only_free { free[index] } else { u64::MAX };
            allowed & !known[index]
        };
        let pieces = pieces_around(start, self.piece_count, unknown);
        let mut offered: Vec<PieceIndex> = match only_free {
            true => pieces.take(number).collect(),
            false => pieces.take(SAMPLE.max(2 * number)).collect(),
        };
        let steps = looked.get() + offered.len() as u64;
        if !only_free {
            offered.sort_by_key(|piece| self.spread.reach(*piece));
            offered.truncate(number);
        }
        self.steps += steps;
        self.tell(key, &offered, now);
    }

    /// Where the search for pieces for a peer begins: by lot, anew each time.
    pub(super) fn start_of(&self, key: SuperKey, peer: &Peer) -> u32 {
        let lot = key.0.rotate_left(32) ^ u64::from(peer.known_count);
        let start = Random::new(self.seed ^ lot).below(u64::from(self.piece_count));
        u32::try_from(start).unwrap_or(0)
    }

    fn tell(&mut self, key: SuperKey, pieces: &[PieceIndex], now: Time) {
        let Some(peer) = self.peers.get_mut(&key).filter(|_| !pieces.is_empty()) else {
            return;
        };
        let (asked_at, got) = (now, peer.got);
        for piece in pieces {
            self.spread.expect(*piece);
            peer.know(*piece);
            peer.waiting.insert(*piece, Waiting { asked_at, got });
        }
        peer.news.pieces.extend(pieces);
        self.changed.insert(key);
    }
}

impl Peer {
    /// How many pieces more it may be told of before it has taken what there is to tell it.
    fn room_for_news(&self) -> usize {
        TOLD_AT_ONCE_MAX.saturating_sub(self.news.pieces.len())
    }
}
