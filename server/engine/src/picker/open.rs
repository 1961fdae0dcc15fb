//! The pieces that have been begun, and what is known of each of their blocks.
//!
//! Memory: 24 bytes a block and about 100 a piece, from a piece's first request until it is
//! verified. Finding a piece, and every change of a block, is O(1); the next free block of a piece
//! is found by a hint that only goes back when a block is given back.

use proto::ids::PieceIndex;

use super::peers::PeerPlace;
use crate::choker::PeerKey;

/// How many peers one block can be requested from at a time, at most.
pub const REQUESTERS_MAX: usize = 4;

/// Where an open piece is: the same number names it until it is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct OpenPlace(pub u32);

/// A block of an open piece: received, or requested from some peers, or free.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    /// Who sent it, once it is received.
    from: PeerKey,
    requesters: [PeerPlace; REQUESTERS_MAX],
    received: bool,
}

impl Block {
    const FREE: Block = Block {
        from: PeerKey(0),
        requesters: [PeerPlace::NONE; REQUESTERS_MAX],
        received: false,
    };

    pub fn is_received(&self) -> bool {
        self.received
    }

    pub fn is_free(&self) -> bool {
        !self.received && self.requesters[0] == PeerPlace::NONE
    }

    /// Who sent it, if anybody has.
    pub fn sender(&self) -> Option<PeerKey> {
        self.received.then_some(self.from)
    }

    /// From whom it is requested; they stand in front.
    pub fn requesters(&self) -> impl Iterator<Item = PeerPlace> + use<> {
        self.requesters
            .into_iter()
            .take_while(|place| *place != PeerPlace::NONE)
    }

    pub fn is_requested_from(&self, peer: PeerPlace) -> bool {
        self.requesters.contains(&peer)
    }

    fn add(&mut self, peer: PeerPlace) {
        let room = self.requesters.iter().position(|p| *p == PeerPlace::NONE);
        self.requesters[room.expect("the caller looked for room")] = peer;
    }

    fn remove(&mut self, peer: PeerPlace) -> bool {
        let Some(found) = self.requesters.iter().position(|p| *p == peer) else {
            return false;
        };
        self.requesters.copy_within(found + 1.., found);
        self.requesters[REQUESTERS_MAX - 1] = PeerPlace::NONE;
        true
    }
}

/// A piece that has been begun.
#[derive(Clone, Debug)]
pub(super) struct OpenPiece {
    pub piece: PieceIndex,
    /// The peer that has it to itself, as long as that is fast.
    pub owner: Option<PeerPlace>,
    /// Peers that blocks of it are requested from.
    pub peers: u32,
    blocks: Box<[Block]>,
    free: u32,
    received: u32,
    /// Requests under way: a block that is requested twice counts twice.
    requests: u32,
    /// No block before this one is free.
    first_free: u32,
    /// Where it stands in the list of those with free blocks.
    listed_at: u32,
}

impl OpenPiece {
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// How many blocks are neither received nor requested.
    pub fn free(&self) -> u32 {
        self.free
    }

    pub fn received(&self) -> u32 {
        self.received
    }

    pub fn requests(&self) -> u32 {
        self.requests
    }

    pub fn is_complete(&self) -> bool {
        self.received as usize == self.blocks.len()
    }

    /// The lowest free block, if there is one.
    pub fn next_free(&mut self) -> Option<u32> {
        let mut left = self.blocks.iter().skip(self.first_free as usize);
        match left.position(Block::is_free) {
            Some(skipped) => {
                self.first_free += skipped as u32;
                Some(self.first_free)
            }
            None => {
                self.first_free = self.blocks.len() as u32;
                None
            }
        }
    }
}

/// All open pieces: see the module.
#[derive(Clone, Debug, Default)]
pub(super) struct OpenPieces {
    places: Vec<Option<OpenPiece>>,
    vacant: Vec<u32>,
    /// Those with free blocks, in no order.
    unfinished: Vec<OpenPlace>,
}

impl OpenPieces {
    pub fn get(&self, place: OpenPlace) -> &OpenPiece {
        self.places[place.0 as usize]
            .as_ref()
            .expect("a place of an open piece")
    }

    pub fn get_mut(&mut self, place: OpenPlace) -> &mut OpenPiece {
        self.places[place.0 as usize]
            .as_mut()
            .expect("a place of an open piece")
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (OpenPlace, &OpenPiece)> {
        let places = (0..).map(OpenPlace).zip(&self.places);
        places.filter_map(|(place, open)| Some((place, open.as_ref()?)))
    }

    /// How many places [`Self::at`] can be asked for.
    pub fn place_count(&self) -> u32 {
        self.places.len() as u32
    }

    /// The piece at a place, if one is open there.
    pub fn at(&self, place: OpenPlace) -> Option<&OpenPiece> {
        self.places.get(place.0 as usize)?.as_ref()
    }

    /// Those with free blocks, in no order.
    pub fn unfinished(&self) -> &[OpenPlace] {
        &self.unfinished
    }

    pub fn len(&self) -> usize {
        self.places.len() - self.vacant.len()
    }

    /// Begins a piece: all its blocks are free.
    pub fn begin(&mut self, piece: PieceIndex, blocks: u32) -> OpenPlace {
        let open = OpenPiece {
            piece,
            owner: None,
            peers: 0,
            blocks: vec![Block::FREE; blocks as usize].into_boxed_slice(),
            free: 0,
            received: 0,
            requests: 0,
            first_free: 0,
            listed_at: 0,
        };
        let place = OpenPlace(self.vacant.pop().unwrap_or(self.places.len() as u32));
        if place.0 as usize == self.places.len() {
            self.places.push(None);
        }
        self.places[place.0 as usize] = Some(open);
        self.change_free(place, blocks, true);
        place
    }

    /// Forgets a piece whose requests have all been taken back.
    pub fn close(&mut self, place: OpenPlace) {
        let free = self.get(place).free;
        assert_eq!(self.get(place).requests, 0, "requests would be forgotten");
        self.change_free(place, free, false);
        self.places[place.0 as usize] = None;
        self.vacant.push(place.0);
    }

    /// All blocks are free again.
    pub fn reset(&mut self, place: OpenPlace) {
        let open = self.get_mut(place);
        assert_eq!(open.requests, 0, "requests would be forgotten");
        let received = std::mem::take(&mut open.received);
        open.blocks.fill(Block::FREE);
        open.first_free = 0;
        open.owner = None;
        self.change_free(place, received, true);
    }

    /// A block that is not received is requested from one more peer.
    pub fn request(&mut self, place: OpenPlace, block: u32, peer: PeerPlace) {
        let open = self.get_mut(place);
        open.requests += 1;
        let block = &mut open.blocks[block as usize];
        let was_free = block.is_free();
        block.add(peer);
        if was_free {
            self.change_free(place, 1, false);
        }
    }

    /// A block is no longer requested from this peer. Tells whether it was.
    pub fn take_back(&mut self, place: OpenPlace, block: u32, peer: PeerPlace) -> bool {
        let open = self.get_mut(place);
        let state = &mut open.blocks[block as usize];
        if !state.remove(peer) {
            return false;
        }
        let is_free = state.is_free();
        open.requests -= 1;
        if is_free {
            open.first_free = open.first_free.min(block);
            self.change_free(place, 1, true);
        }
        true
    }

    /// A block that is not received has come from `from`; nobody is asked for it any more.
    pub fn receive(&mut self, place: OpenPlace, block: u32, from: PeerKey) {
        let open = self.get_mut(place);
        let state = &mut open.blocks[block as usize];
        assert!(!state.received, "a block is received once");
        let requests = state.requesters().count() as u32;
        *state = Block {
            from,
            received: true,
            ..Block::FREE
        };
        open.requests -= requests;
        open.received += 1;
        if requests == 0 {
            self.change_free(place, 1, false);
        }
    }

    /// The peer works on this piece no longer: if it had it to itself, others may have it.
    pub fn release(&mut self, place: OpenPlace, peer: PeerPlace) {
        let open = self.get_mut(place);
        if open.owner == Some(peer) {
            open.owner = None;
        }
    }

    /// The peer has gone, and its place may be another's: O(open pieces).
    pub fn disown(&mut self, peer: PeerPlace) {
        for open in self.places.iter_mut().flatten() {
            if open.owner == Some(peer) {
                open.owner = None;
            }
        }
    }

    /// Counts free blocks, and keeps the list of those that have some.
    fn change_free(&mut self, place: OpenPlace, by: u32, more: bool) {
        let listed_at = self.unfinished.len() as u32;
        let open = self.get_mut(place);
        let before = open.free;
        open.free = if more { before + by } else { before - by };
        match (before > 0, open.free > 0) {
            (false, true) => {
                open.listed_at = listed_at;
                self.unfinished.push(place);
            }
            (true, false) => {
                let hole = open.listed_at as usize;
                self.unfinished.swap_remove(hole);
                if let Some(&filler) = self.unfinished.get(hole) {
                    self.get_mut(filler).listed_at = hole as u32;
                }
            }
            _ => {}
        }
    }

    /// Panics if it contradicts itself: O(blocks).
    pub fn check_invariants(&self) {
        let mut unfinished = 0;
        for (place, open) in self.iter() {
            let count = |of: fn(&Block) -> bool| open.blocks.iter().filter(|b| of(b)).count();
            assert_eq!(count(Block::is_free), open.free as usize);
            assert_eq!(count(Block::is_received), open.received as usize);
            let requests = open.blocks.iter().map(|b| b.requesters().count());
            assert_eq!(requests.sum::<usize>(), open.requests as usize);
            let first_free = open.blocks.iter().position(Block::is_free);
            assert!(first_free.is_none_or(|first| first >= open.first_free as usize));
            for block in &open.blocks {
                let requesters: Vec<_> = block.requesters().collect();
                assert!(!block.received || requesters.is_empty());
                let distinct = requesters.iter().all(|one| {
                    let equal = requesters.iter().filter(|other| *other == one);
                    equal.count() == 1
                });
                assert!(distinct, "requested twice from one peer");
            }
            if open.free > 0 {
                unfinished += 1;
                assert_eq!(self.unfinished[open.listed_at as usize], place);
            }
        }
        assert_eq!(unfinished, self.unfinished.len());
        let vacant = self.places.iter().filter(|open| open.is_none()).count();
        assert_eq!(vacant, self.vacant.len());
    }
}
