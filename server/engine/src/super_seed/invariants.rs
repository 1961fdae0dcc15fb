//! What holds of a [`SuperSeed`] between any two calls.

use super::{Peer, SuperSeed, TOLD_AT_ONCE_MAX};
use proto::ids::PieceIndex;

impl SuperSeed {
    /// Panics if the state contradicts itself. For tests and simulation.
    pub fn check_invariants(&self) {
        let number = |which: &dyn Fn(&&Peer) -> bool| self.peers.values().filter(which).count();
        if !self.peers.is_empty() {
            self.check_pieces();
        }
        let complete = number(&|peer| peer.complete_at.is_some());
        assert_eq!(self.spread.complete() as usize, complete);
        let lacking = number(&|peer| peer.count < self.piece_count);
        assert_eq!(self.lacking.len(), lacking);
        let waits_alone = |peer: &Peer| {
            let waiting = peer.waiting.keys();
            waiting.filter(|piece| peer.has.contains(**piece)).count()
        };
        let alone: usize = self.peers.values().map(waits_alone).sum();
        assert_eq!(self.alone.len(), alone);
        for (piece, key) in &self.alone {
            let peer = &self.peers[key];
            assert!(peer.waiting.contains_key(piece) && peer.has.contains(*piece));
            assert!(self.spread.copies(*piece) == 1 && self.lacking.len() > 1);
        }
        self.check_peers();
    }

    /// The part of it that does not look at each piece.
    pub(super) fn check_peers(&self) {
        self.peers.values().for_each(|peer| self.check_peer(peer));
    }

    fn check_pieces(&self) {
        let mut missing = 0;
        for piece in (0..self.piece_count).map(PieceIndex) {
            let number = |which: &dyn Fn(&&Peer) -> bool| {
                let peers = self.peers.values();
                u32::try_from(peers.filter(which).count()).unwrap_or(u32::MAX)
            };
            let has = |peer: &Peer| peer.complete_at.is_some() || peer.has.contains(piece);
            let copies = number(&|peer| has(peer));
            assert_eq!(self.spread.copies(piece), copies);
            missing += u32::from(copies == 0);
            let is_coming = |peer: &&Peer| peer.waiting.contains_key(&piece) && !has(peer);
            let coming = number(&is_coming);
            let reach = copies - self.spread.complete() + coming;
            assert_eq!(self.spread.reach(piece), reach);
            assert_eq!(self.spread.free().contains(piece), reach == 0);
        }
        assert_eq!(self.spread.free_count(), self.spread.free().count());
        assert_eq!(self.missing(), missing);
    }

    fn check_peer(&self, peer: &Peer) {
        assert!(peer.waiting.len() <= TOLD_AT_ONCE_MAX);
        assert!(peer.news.pieces.len() <= TOLD_AT_ONCE_MAX);
        if peer.complete_at.is_some() {
            assert!(peer.waiting.is_empty() && peer.count == self.piece_count);
            return;
        }
        assert_eq!(peer.has.count(), peer.count);
        assert_eq!(peer.known.count(), peer.known_count);
        assert_eq!(peer.has.count_common(&peer.known), peer.count);
        let mut waiting = peer.waiting.keys();
        assert!(waiting.all(|piece| peer.known.contains(*piece)));
    }
}
