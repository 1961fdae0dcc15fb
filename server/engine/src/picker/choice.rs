//! The choice itself: which open piece, which new piece, which block twice.

use std::cmp::Reverse;

use proto::ids::PieceIndex;
use proto::wire::BlockRequest;

use super::open::{OpenPiece, OpenPlace};
use super::peers::PeerPlace;
use super::{Event, Picker, PieceOrder, Priority, REQUESTERS_MAX, Sharing, Wish};
use crate::choker::PeerKey;

/// Pieces and blocks that are looked at for one choice in the end-game. What lies beyond is found
/// by another call, which starts elsewhere.
const ENDGAME_LOOKS_MAX: u64 = 4_096;

/// Which open pieces a peer may join.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Join {
    /// Those where it is in nobody's way.
    Welcome,
    /// For a fast peer, those of others too.
    Any,
}

impl Picker {
    /// Appends blocks to ask this peer for, [`Wish::count`] at most, and takes them as requested. A
    /// block is never given to a peer that has been asked for it and has not answered. Fewer, or
    /// none, mean that there is nothing more for this peer until something changes.
    pub fn pick(&mut self, key: PeerKey, wish: Wish<'_>, requests: &mut Vec<BlockRequest>) {
        let Some(peer) = self.peers.find(key) else {
            return;
        };
        if self.interesting_at(peer) == 0 {
            return;
        }
        let mut left = wish.count;
        while left > 0 {
            let Some(place) = self.choose_piece(peer, &wish) else {
                break;
            };
            self.claim(place, peer);
            let left_before = left;
            while left > 0
                && let Some(block) = self.open.get_mut(place).next_free()
            {
                self.request(place, block, peer);
                requests.push(self.block_request(self.open.get(place).piece, block));
                left -= 1;
            }
            assert!(left < left_before, "a chosen piece has a free block");
        }
        if left > 0 && self.config.endgame_requesters > 1 && self.in_endgame() {
            self.pick_twice(peer, &wish, left, requests);
        }
    }

    /// Whether everything that is missing has been asked for. That what the peers have has been
    /// asked for is not enough: where a slow seed gives out pieces that all neighbours then have in
    /// no time, it is so from the first piece on, and each of its blocks would be fetched twice.
    pub fn in_endgame(&self) -> bool {
        self.pieces.order().len() == 0 && self.open.len() > 0 && self.open.unfinished().is_empty()
    }

    /// An open piece with a free block for this peer; a new one is begun if there is none.
    fn choose_piece(&mut self, peer: PeerPlace, wish: &Wish<'_>) -> Option<OpenPlace> {
        if let Some(only) = wish.only {
            return self.choose_among(peer, only);
        }
        if let Some(place) = self.find_assigned(peer) {
            return Some(place);
        }
        let partial = self.find_partial(peer, Join::Welcome);
        let above = partial.map_or(Priority::SKIP, |place| {
            self.pieces.priority(self.open.get(place).piece)
        });
        if self.pieces.order().priority_max() > above
            && let Some(piece) = self.find_new(peer, above, wish.suggested)
            && self.make_room()
        {
            return Some(self.begin(piece));
        }
        partial.or_else(|| self.find_partial(peer, Join::Any))
    }

    /// The same among the few pieces that a peer gives while it chokes us (BEP 6).
    fn choose_among(&mut self, peer: PeerPlace, only: &[PieceIndex]) -> Option<OpenPlace> {
        let mut open = only.iter().filter_map(|&piece| self.open_place(piece));
        let open = open.find(|&place| {
            let open = self.open.get(place);
            open.free() > 0 && self.peers.get(peer).has(open.piece) && {
                self.may_join(peer, open, Join::Welcome)
            }
        });
        if open.is_some() {
            return open;
        }
        let mut missing = only.iter().copied();
        let missing = missing.find(|&piece| self.may_begin(peer, piece))?;
        self.make_room().then(|| self.begin(missing))
    }

    /// Whether the piece is missing and wanted, and the peer has it.
    fn may_begin(&self, peer: PeerPlace, piece: PieceIndex) -> bool {
        self.pieces.contains(piece)
            && self.pieces.is_ordered(piece)
            && self.peers.get(peer).has(piece)
    }

    /// A piece that the peer has requests in and that has free blocks for it: the one begun first.
    fn find_assigned(&self, peer: PeerPlace) -> Option<OpenPlace> {
        let fast = self.peers.get(peer).fast;
        let assigned = self.peers.get(peer).assigned.iter();
        let mut places = assigned.map(|assigned| assigned.place);
        places.find(|&place| {
            let open = self.open.get(place);
            let has = || self.peers.get(peer).has(open.piece);
            open.free() > 0 && (fast || !self.is_reserved(open, peer)) && has()
        })
    }

    /// Another open piece with free blocks: the highest priority, then the lowest piece
    /// (sequential) or the one with the fewest free blocks.
    fn find_partial(&mut self, peer: PeerPlace, join: Join) -> Option<OpenPlace> {
        let unfinished = self.open.unfinished();
        self.pieces.work.looks += unfinished.len() as u64;
        let may_have = unfinished.iter().copied().filter(|&place| {
            let open = self.open.get(place);
            self.peers.get(peer).has(open.piece) && self.may_join(peer, open, join)
        });
        may_have.min_by_key(|&place| {
            let open = self.open.get(place);
            let nearest = match self.config.order {
                PieceOrder::RarestFirst => open.free(),
                PieceOrder::Sequential => open.piece.0,
            };
            let priority = self.pieces.priority(open.piece);
            (Reverse(priority), nearest, open.piece)
        })
    }

    fn may_join(&self, peer: PeerPlace, open: &OpenPiece, join: Join) -> bool {
        if open.requests() == 0 || open.owner == Some(peer) {
            return true;
        }
        if !self.peers.get(peer).fast {
            return !self.is_reserved(open, peer);
        }
        let room = match self.config.sharing {
            Sharing::BySpeed { .. } => true,
            Sharing::WholePieces { peers_per_piece } => open.peers < peers_per_piece,
        };
        join == Join::Any && room
    }

    /// Whether another peer has the piece to itself.
    fn is_reserved(&self, open: &OpenPiece, peer: PeerPlace) -> bool {
        let other = open.owner.filter(|owner| *owner != peer);
        other.is_some_and(|owner| self.peers.get(owner).fast)
    }

    /// The best missing piece of a priority above `above` for this peer.
    fn find_new(
        &mut self,
        peer: PeerPlace,
        above: Priority,
        suggested: &[PieceIndex],
    ) -> Option<PieceIndex> {
        let entries = self.pieces.entries();
        if self.peers.get(peer).barren_at == Some(entries) {
            return None;
        }
        let has = self.peers.get(peer).bits();
        let begun = self.pieces.verified() as usize + self.open.len();
        let random = &mut self.random;
        let found = match self.config.order {
            PieceOrder::Sequential => self.pieces.find_lowest(has, above),
            PieceOrder::RarestFirst if begun < self.config.random_first_pieces as usize => {
                self.pieces.find_random(has, above, random)
            }
            PieceOrder::RarestFirst => self.pieces.find_rarest(has, above, random),
        };
        let Some(found) = found else {
            if above == Priority::SKIP {
                self.peers.get_mut(peer).barren_at = Some(entries);
            }
            return None;
        };
        if self.config.order == PieceOrder::Sequential {
            return Some(found);
        }
        let priority = self.pieces.priority(found);
        let mut suggested = suggested.iter().copied();
        let suggestion = suggested
            .find(|&piece| self.may_begin(peer, piece) && self.pieces.priority(piece) == priority);
        suggestion.or(Some(found))
    }

    fn begin(&mut self, piece: PieceIndex) -> OpenPlace {
        let place = self.open.begin(piece, self.block_count(piece));
        self.pieces.set_open(piece, place.0);
        place
    }

    /// A piece in which nobody has requests becomes the peer's own if it is fast, else everybody's.
    fn claim(&mut self, place: OpenPlace, peer: PeerPlace) {
        let fast = self.peers.get(peer).fast;
        let open = self.open.get_mut(place);
        if open.requests() == 0 {
            open.owner = fast.then_some(peer);
        }
    }

    /// Makes sure that one more piece may have free blocks, if need be by forgetting one that
    /// nobody works on.
    fn make_room(&mut self) -> bool {
        let max = self.config.open_pieces_spare.max(1) as usize + self.peers.len();
        if self.open.unfinished().len() < max {
            return true;
        }
        let seeds = self.peers.seeds();
        let unfinished = self.open.unfinished().iter().copied();
        let idle = unfinished.filter(|&place| self.open.get(place).requests() == 0);
        let least = idle.min_by_key(|&place| {
            let open = self.open.get(place);
            let available = seeds > 0 || self.pieces.availability(open.piece) > 0;
            (available, open.received(), open.piece)
        });
        let Some(place) = least else {
            return false;
        };
        let piece = self.open.get(place).piece;
        self.open.close(place);
        self.pieces.set_missing(piece);
        self.events.push_back(Event::Dropped(piece));
        true
    }

    /// Blocks that are requested from others: those from the fewest first. A slow peer is not asked
    /// for what a fast one is asked for, and nobody for what is about to come.
    fn pick_twice(
        &mut self,
        peer: PeerPlace,
        wish: &Wish<'_>,
        mut left: u32,
        requests: &mut Vec<BlockRequest>,
    ) {
        let mut looks = ENDGAME_LOOKS_MAX;
        let places = self.open.place_count();
        let start = self.random.below(u64::from(places)) as u32;
        let requesters_max = (self.config.endgame_requesters as usize).min(REQUESTERS_MAX);
        for requesters in 1..requesters_max {
            for place in (start..places).chain(0..start).map(OpenPlace) {
                if looks == 0 {
                    return;
                }
                looks -= 1;
                self.pieces.work.looks += 1;
                let Some(open) = self.open.at(place) else {
                    continue;
                };
                let piece = open.piece;
                let allowed = wish.only.is_none_or(|only| only.contains(&piece));
                if !allowed || open.requests() == 0 || !self.peers.get(peer).has(piece) {
                    continue;
                }
                for block in 0..self.block_count(piece) {
                    if left == 0 || looks == 0 {
                        return;
                    }
                    looks -= 1;
                    self.pieces.work.looks += 1;
                    if self.may_request_again(place, block, peer, requesters) {
                        self.request(place, block, peer);
                        requests.push(self.block_request(piece, block));
                        left -= 1;
                    }
                }
            }
        }
    }

    /// Whether the block is requested from exactly so many others, and this peer may be asked for
    /// it too.
    fn may_request_again(
        &self,
        place: OpenPlace,
        block: u32,
        peer: PeerPlace,
        requesters: usize,
    ) -> bool {
        let block = &self.open.get(place).blocks()[block as usize];
        let fast = self.peers.get(peer).fast;
        let slower = |requester: PeerPlace| {
            let requester = self.peers.get(requester);
            requester.late && (fast || !requester.fast)
        };
        block.requesters().count() == requesters
            && !block.is_requested_from(peer)
            && block.requesters().all(slower)
    }
}
