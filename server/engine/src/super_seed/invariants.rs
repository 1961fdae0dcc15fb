//! What holds of a [`SuperSeed`] between any two calls.

use super::{Peer, SuperSeed};
use proto::ids::PieceIndex;

impl SuperSeed {
    /// Panics if the state contradicts itself. For tests and simulation.
    pub fn check_invariants(&self) {
        let count = self.piece_count();
        for piece in (0..count).map(PieceIndex) {
            let peers = || self.peers.values();
            let number = |which: &dyn Fn(&&Peer) -> bool| peers().filter(which).count() as u32;
            let spread = self.spread_of(piece);
            assert_eq!(spread.copies, number(&|peer| peer.has.contains(piece)));
            assert_eq!(spread.waiting, number(&|peer| peer.waits_for(piece)));
            let is_coming = |peer: &&Peer| peer.waits_for(piece) && !peer.has.contains(piece);
            assert_eq!(spread.coming, number(&is_coming));
            assert!(self.order.contains(&self.rank(piece.0)));
        }
        assert_eq!(self.order.len(), self.spread.len());
        let missing = self.spread.iter().filter(|spread| spread.copies == 0);
        assert_eq!(self.missing as usize, missing.count());
        let lacking = self.peers.values().filter(|peer| peer.count < count);
        assert_eq!(self.lacking as usize, lacking.count());
        for peer in self.peers.values() {
            assert_eq!(peer.has.count(), peer.count);
            assert!(peer.waiting.iter().all(|one| peer.told.contains(one.piece)));
        }
    }
}
