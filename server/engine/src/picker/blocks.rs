//! What becomes of requests: blocks come, fail, are given back, are cancelled.

use proto::wire::BlockRequest;

use super::open::OpenPlace;
use super::peers::PeerPlace;
use super::{Event, Picker, Received};
use crate::choker::PeerKey;

impl Picker {
    /// Whether this is a block that is missing, of a piece that is open.
    pub fn is_missing(&self, request: BlockRequest) -> bool {
        let Some((place, block)) = self.locate(request) else {
            return false;
        };
        let blocks = self.open.get(place).blocks();
        blocks
            .get(block as usize)
            .is_some_and(|block| !block.is_received())
    }

    /// A block has come from a peer that was asked for it, now or at some time: one that was given
    /// back is still of use if it is missing. Whoever else is asked for it is to be cancelled.
    /// O(1).
    pub fn block_received(&mut self, key: PeerKey, request: BlockRequest) -> Received {
        let (Some(peer), Some((place, block))) = (self.peers.find(key), self.locate(request))
        else {
            return Received::Unwanted;
        };
        let state = self.open.get(place).blocks()[block as usize];
        if state.is_received() {
            return Received::Duplicate;
        }
        for requester in state.requesters() {
            self.unassign(requester, place);
            if requester != peer {
                self.events.push_back(Event::Cancel {
                    peer: self.peers.get(requester).key,
                    block: request,
                });
            }
        }
        self.open.receive(place, block, key);
        if self.open.get(place).is_complete() {
            return Received::PieceComplete;
        }
        Received::New
    }

    /// A request will not be answered, or is waited for no longer: rejected (BEP 6), timed out,
    /// cancelled. The block may be given to anybody. Tells whether it was under way. O(1).
    pub fn request_failed(&mut self, key: PeerKey, request: BlockRequest) -> bool {
        let (Some(peer), Some((place, block))) = (self.peers.find(key), self.locate(request))
        else {
            return false;
        };
        let under_way = self.open.take_back(place, block, peer);
        if under_way && self.unassign(peer, place) {
            self.open.release(place, peer);
        }
        under_way
    }

    /// None of the peer's requests will be answered: it choked us, and does not speak the fast
    /// extension. Returns how many there were. O(blocks of the pieces that it works on).
    pub fn requests_dropped(&mut self, key: PeerKey) -> u32 {
        let Some(peer) = self.peers.find(key) else {
            return 0;
        };
        let assigned = std::mem::take(&mut self.peers.get_mut(peer).assigned);
        let mut dropped = 0;
        for one in assigned {
            let blocks = self.open.get(one.place).blocks().len() as u32;
            for block in 0..blocks {
                dropped += u32::from(self.open.take_back(one.place, block, peer));
            }
            self.open.get_mut(one.place).peers -= 1;
            self.open.release(one.place, peer);
        }
        dropped
    }

    /// Takes back all requests for an open piece, and has them cancelled.
    pub(super) fn cancel_requests(&mut self, place: OpenPlace) {
        if self.open.get(place).requests() == 0 {
            return;
        }
        let piece = self.open.get(place).piece;
        for block in 0..self.block_count(piece) {
            let state = self.open.get(place).blocks()[block as usize];
            for requester in state.requesters() {
                self.open.take_back(place, block, requester);
                self.unassign(requester, place);
                self.events.push_back(Event::Cancel {
                    peer: self.peers.get(requester).key,
                    block: self.block_request(piece, block),
                });
            }
        }
    }

    /// A block is requested from a peer.
    pub(super) fn request(&mut self, place: OpenPlace, block: u32, peer: PeerPlace) {
        self.open.request(place, block, peer);
        if self.peers.assign(peer, place) {
            self.open.get_mut(place).peers += 1;
        }
    }

    /// A request of the peer there has ended. Tells whether it was the last one.
    fn unassign(&mut self, peer: PeerPlace, place: OpenPlace) -> bool {
        let last = self.peers.unassign(peer, place);
        self.open.get_mut(place).peers -= u32::from(last);
        last
    }
}
