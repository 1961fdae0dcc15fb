//! The picker's rules once more, naively: sets and scans, nothing kept that can be computed.
//! [`run`] compares a picker with them.
//!
//! Only what is public is used, so that the fuzz target includes this file as it is. Torrents are
//! small enough that a walk through the order never tires, so that "the rarest" is exact.

// By its path, since the fuzz target includes this file by one.
#[path = "model/pair.rs"]
mod pair;

pub use pair::run;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// How often what happened: sequences that reach nothing would prove nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    /// Pieces that were begun.
    pub begun: u32,
    /// Pieces among several that the model allowed.
    pub chosen: u32,
    /// Open pieces that a peer went to.
    pub joined: u32,
    /// Pieces that were forgotten to make room.
    pub evicted: u32,
    /// Blocks that were requested from one more peer.
    pub twice: u32,
    /// Picks that gave less than was asked for although the peer had something wanted.
    pub exhausted: u32,
    /// Cancels.
    pub cancelled: u32,
    /// Pieces of which the last block came.
    pub completed: u32,
    /// Pieces that failed their hash.
    pub failed: u32,
}

impl Seen {
    /// Adds what another sequence reached.
    pub fn add(&mut self, other: Seen) {
        self.begun += other.begun;
        self.chosen += other.chosen;
        self.joined += other.joined;
        self.evicted += other.evicted;
        self.twice += other.twice;
        self.exhausted += other.exhausted;
        self.cancelled += other.cancelled;
        self.completed += other.completed;
        self.failed += other.failed;
    }
}

const BLOCK: u32 = 16 << 10;

#[derive(Clone, Default)]
struct ModelPeer {
    has: BTreeSet<u32>,
    rate: u64,
}

#[derive(Clone, Default)]
struct ModelBlock {
    sender: Option<PeerKey>,
    requesters: BTreeSet<PeerKey>,
}

impl ModelBlock {
    fn is_free(&self) -> bool {
        self.sender.is_none() && self.requesters.is_empty()
    }
}

#[derive(Clone)]
struct ModelOpen {
    owner: Option<PeerKey>,
    blocks: Vec<ModelBlock>,
}

impl ModelOpen {
    fn free(&self) -> usize {
        self.blocks.iter().filter(|block| block.is_free()).count()
    }

    fn received(&self) -> usize {
        let received = self.blocks.iter().filter(|block| block.sender.is_some());
        received.count()
    }

    fn requesters(&self) -> BTreeSet<PeerKey> {
        let blocks = self.blocks.iter();
        blocks.flat_map(|b| b.requesters.iter().copied()).collect()
    }
}

/// Who may join an open piece, as in the picker's rules 2 and 4.
#[derive(Clone, Copy, PartialEq)]
enum Join {
    Welcome,
    Any,
}

/// What the next block may be.
enum Expected {
    /// A free block of one of these pieces.
    Free(BTreeSet<u32>),
    /// A block that others are asked for, if anything.
    Twice,
}

struct Model {
    config: PickerConfig,
    piece_length: u32,
    lengths: Vec<u32>,
    priorities: Vec<Priority>,
    verified: BTreeSet<u32>,
    open: BTreeMap<u32, ModelOpen>,
    peers: BTreeMap<PeerKey, ModelPeer>,
    events: Vec<Event>,
    seen: Seen,
}

impl Model {
    fn is_wanted(&self, piece: u32) -> bool {
        self.priorities[piece as usize] > Priority::SKIP && !self.verified.contains(&piece)
    }

    fn is_ordered(&self, piece: u32) -> bool {
        self.is_wanted(piece) && !self.open.contains_key(&piece)
    }

    fn pieces(&self) -> u32 {
        self.lengths.len() as u32
    }

    fn availability(&self, piece: u32) -> u32 {
        let peers = self.peers.values();
        peers.filter(|peer| peer.has.contains(&piece)).count() as u32
    }

    fn has(&self, key: PeerKey, piece: u32) -> bool {
        let peer = self.peers.get(&key);
        peer.is_some_and(|peer| peer.has.contains(&piece))
    }

    fn is_fast(&self, key: PeerKey) -> bool {
        let rate = self.peers[&key].rate;
        match self.config.sharing {
            Sharing::BySpeed { whole_piece_s } => {
                rate * u64::from(whole_piece_s) >= self.piece_length.into()
            }
            Sharing::WholePieces { .. } => true,
        }
    }

    fn interesting(&self, key: PeerKey) -> u32 {
        let pieces = (0..self.pieces()).filter(|&piece| self.is_wanted(piece));
        pieces.filter(|&piece| self.has(key, piece)).count() as u32
    }

    fn block(&self, piece: u32, block: usize) -> BlockRequest {
        let begin = block as u32 * BLOCK;
        BlockRequest {
            piece: PieceIndex(piece),
            begin,
            length: BLOCK.min(self.lengths[piece as usize] - begin),
        }
    }

    fn block_count(&self, piece: u32) -> usize {
        self.lengths[piece as usize].div_ceil(BLOCK) as usize
    }

    /// The block that a request names, if its piece is open.
    fn find(&mut self, request: BlockRequest) -> Option<&mut ModelBlock> {
        let piece = request.piece.0;
        let blocks = self
            .lengths
            .get(piece as usize)
            .map_or(0, |_| self.block_count(piece));
        let block = (0..blocks).find(|&block| self.block(piece, block) == request)?;
        Some(&mut self.open.get_mut(&piece)?.blocks[block])
    }

    fn reserved(&self, open: &ModelOpen, key: PeerKey) -> bool {
        open.owner
            .is_some_and(|owner| owner != key && self.is_fast(owner))
    }

    fn may_join(&self, key: PeerKey, open: &ModelOpen, join: Join) -> bool {
        let working = open.requesters();
        if working.is_empty() || open.owner == Some(key) {
            return true;
        }
        if !self.is_fast(key) {
            return !self.reserved(open, key);
        }
        let room = match self.config.sharing {
            Sharing::BySpeed { .. } => true,
            Sharing::WholePieces { peers_per_piece } => working.len() < peers_per_piece as usize,
        };
        join == Join::Any && room
    }

    fn partial(&self, key: PeerKey, join: Join) -> Option<u32> {
        let open = self.open.iter();
        let may = open.filter(|(piece, open)| {
            open.free() > 0 && self.has(key, **piece) && self.may_join(key, open, join)
        });
        let best = may.min_by_key(|(piece, open)| {
            let nearest = match self.config.order {
                PieceOrder::RarestFirst => open.free(),
                PieceOrder::Sequential => **piece as usize,
            };
            let priority = self.priorities[**piece as usize];
            (Reverse(priority), nearest, **piece)
        });
        best.map(|(piece, _)| *piece)
    }

    /// The new pieces that may be begun next.
    fn new_pieces(&self, key: PeerKey, above: Priority, suggested: &[PieceIndex]) -> BTreeSet<u32> {
        let all = (0..self.pieces()).filter(|&piece| self.is_ordered(piece));
        let mut fit: BTreeSet<u32> = all
            .filter(|&piece| self.has(key, piece) && self.priorities[piece as usize] > above)
            .collect();
        let priority = |piece: &u32| self.priorities[*piece as usize];
        let Some(highest) = fit.iter().map(priority).max() else {
            return fit;
        };
        fit.retain(|piece| priority(piece) == highest);
        if self.config.order == PieceOrder::Sequential {
            return fit.first().copied().into_iter().collect();
        }
        if let Some(hint) = suggested.iter().find(|hint| fit.contains(&hint.0)) {
            return BTreeSet::from([hint.0]);
        }
        if self.verified.len() + self.open.len() >= self.config.random_first_pieces as usize {
            let rarest = fit.iter().map(|&piece| self.availability(piece)).min();
            fit.retain(|&piece| Some(self.availability(piece)) == rarest);
        }
        fit
    }

    fn unfinished(&self) -> usize {
        self.open.values().filter(|open| open.free() > 0).count()
    }

    fn unfinished_max(&self) -> usize {
        self.config.open_pieces_spare as usize + self.peers.len()
    }

    /// The piece that is forgotten if there is no room for another one.
    fn evicted(&self) -> Option<u32> {
        let idle = self.open.iter();
        let idle = idle.filter(|(_, open)| open.free() > 0 && open.requesters().is_empty());
        let first = idle
            .min_by_key(|(piece, open)| (self.availability(**piece) > 0, open.received(), **piece));
        first.map(|(piece, _)| *piece)
    }

    fn has_room(&self) -> bool {
        self.unfinished() < self.unfinished_max() || self.evicted().is_some()
    }

    fn expected(&self, key: PeerKey, wish: &Wish<'_>) -> Expected {
        if let Some(only) = wish.only {
            return self.expected_among(key, only);
        }
        let assigned = self.open.iter().filter(|(piece, open)| {
            let free_to = self.is_fast(key) || !self.reserved(open, key);
            open.free() > 0 && open.requesters().contains(&key) && self.has(key, **piece) && free_to
        });
        let assigned: BTreeSet<u32> = assigned.map(|(piece, _)| *piece).collect();
        if !assigned.is_empty() {
            return Expected::Free(assigned);
        }
        let partial = self.partial(key, Join::Welcome);
        let above = partial.map_or(Priority::SKIP, |piece| self.priorities[piece as usize]);
        let new = self.new_pieces(key, above, wish.suggested);
        if !new.is_empty() && self.has_room() {
            return Expected::Free(new);
        }
        match partial.or_else(|| self.partial(key, Join::Any)) {
            Some(piece) => Expected::Free(BTreeSet::from([piece])),
            None => Expected::Twice,
        }
    }

    fn expected_among(&self, key: PeerKey, only: &[PieceIndex]) -> Expected {
        let open = only.iter().find(|piece| {
            let open = self.open.get(&piece.0);
            self.has(key, piece.0)
                && open
                    .is_some_and(|open| open.free() > 0 && self.may_join(key, open, Join::Welcome))
        });
        let mut missing = only.iter().filter(|piece| {
            piece.0 < self.pieces() && self.is_ordered(piece.0) && self.has(key, piece.0)
        });
        let chosen = open.or_else(|| missing.next().filter(|_| self.has_room()));
        match chosen {
            Some(piece) => Expected::Free(BTreeSet::from([piece.0])),
            None => Expected::Twice,
        }
    }

    fn in_endgame(&self) -> bool {
        let unbegun = (0..self.pieces()).any(|piece| self.is_ordered(piece));
        let free = self.open.values().any(|open| open.free() > 0);
        !self.open.is_empty() && !unbegun && !free
    }

    /// The blocks that this peer may be asked for although others are, with how many are.
    fn twice(&self, key: PeerKey, only: Option<&[PieceIndex]>) -> Vec<(BlockRequest, usize)> {
        let mut blocks = Vec::new();
        if !self.in_endgame() || self.interesting(key) == 0 {
            return blocks;
        }
        for (&piece, open) in &self.open {
            let allowed = only.is_none_or(|only| only.contains(&PieceIndex(piece)));
            if !allowed || !self.has(key, piece) {
                continue;
            }
            for (number, block) in open.blocks.iter().enumerate() {
                let requesters = &block.requesters;
                let count = requesters.len();
                let slower = |other: &PeerKey| self.is_fast(key) || !self.is_fast(*other);
                if (1..self.config.endgame_requesters as usize).contains(&count)
                    && !requesters.contains(&key)
                    && requesters.iter().all(slower)
                {
                    blocks.push((self.block(piece, number), count));
                }
            }
        }
        blocks
    }

    /// Checks what was picked, block by block, and takes it over.
    fn picked(
        &mut self,
        key: PeerKey,
        wish: &Wish<'_>,
        picked: &[BlockRequest],
        events: &mut Vec<Event>,
    ) {
        assert!(picked.len() <= wish.count as usize);
        let mut current: Option<u32> = None;
        let mut requesters_before = 0;
        for &request in picked {
            let piece = request.piece.0;
            assert!(self.has(key, piece) && self.is_wanted(piece));
            assert!(self.interesting(key) > 0);
            let goes_on = current.filter(|open| self.open[open].free() > 0);
            let expected = match goes_on {
                Some(open) => Expected::Free(BTreeSet::from([open])),
                None => self.expected(key, wish),
            };
            match expected {
                Expected::Free(pieces) => {
                    assert!(pieces.contains(&piece), "piece {piece}, not of {pieces:?}");
                    assert_eq!(requesters_before, 0, "free blocks come first");
                    if goes_on.is_none() {
                        self.seen.chosen += u32::from(pieces.len() > 1);
                        self.enter(key, piece, events);
                    }
                    current = Some(piece);
                    let blocks = &self.open[&piece].blocks;
                    let first = blocks.iter().position(ModelBlock::is_free).unwrap();
                    assert_eq!(request, self.block(piece, first), "blocks in order");
                }
                Expected::Twice => {
                    let twice = self.twice(key, wish.only);
                    let found = twice.iter().find(|(block, _)| *block == request);
                    let requesters = found.expect("a block that may be asked for again").1;
                    assert!(
                        requesters >= requesters_before,
                        "the fewest requesters first"
                    );
                    requesters_before = requesters;
                    self.seen.twice += 1;
                }
            }
            let block = self.find(request).expect("a block of an open piece");
            assert!(block.sender.is_none() && block.requesters.insert(key));
        }
        if picked.len() < wish.count as usize && self.interesting(key) > 0 {
            self.seen.exhausted += 1;
            let expected = self.expected(key, wish);
            assert!(
                matches!(expected, Expected::Twice),
                "there was more to pick"
            );
            assert_eq!(
                self.twice(key, wish.only),
                [],
                "there was more to pick twice"
            );
        }
    }

    /// A peer goes to another piece, which is begun if need be.
    fn enter(&mut self, key: PeerKey, piece: u32, events: &mut Vec<Event>) {
        if !self.open.contains_key(&piece) {
            if self.unfinished() >= self.unfinished_max() {
                let evicted = self.evicted().expect("room is needed");
                assert_eq!(events.remove(0), Event::Dropped(PieceIndex(evicted)));
                self.open.remove(&evicted);
                self.seen.evicted += 1;
            }
            self.seen.begun += 1;
            let blocks = vec![ModelBlock::default(); self.block_count(piece)];
            let open = ModelOpen {
                owner: None,
                blocks,
            };
            self.open.insert(piece, open);
        }
        self.seen.joined += 1;
        let owner = self.is_fast(key).then_some(key);
        let open = self.open.get_mut(&piece).unwrap();
        if open.requesters().is_empty() {
            open.owner = owner;
        }
    }

    fn receive(&mut self, key: PeerKey, request: BlockRequest) -> Received {
        let known = self.peers.contains_key(&key);
        let Some(block) = self.find(request).filter(|_| known) else {
            return Received::Unwanted;
        };
        if block.sender.is_some() {
            return Received::Duplicate;
        }
        block.sender = Some(key);
        let requesters = std::mem::take(&mut block.requesters);
        let others = requesters.into_iter().filter(|other| *other != key);
        self.events.extend(others.map(|peer| Event::Cancel {
            peer,
            block: request,
        }));
        let open = self.open.get_mut(&request.piece.0).unwrap();
        if open.received() < open.blocks.len() {
            return Received::New;
        }
        open.owner = None;
        self.seen.completed += 1;
        Received::PieceComplete
    }

    fn give_back(&mut self, key: PeerKey, request: BlockRequest) -> bool {
        let Some(block) = self.find(request) else {
            return false;
        };
        let was = block.requesters.remove(&key);
        let open = self.open.get_mut(&request.piece.0).unwrap();
        if was && open.owner == Some(key) && !open.requesters().contains(&key) {
            open.owner = None;
        }
        was
    }

    /// The blocks that a peer is asked for.
    fn requests(&self, key: PeerKey) -> Vec<BlockRequest> {
        let open = self.open.iter();
        let blocks = open.flat_map(|(piece, open)| {
            let blocks = open.blocks.iter().enumerate();
            blocks.map(|(number, block)| (*piece, number, block))
        });
        blocks
            .filter(|(_, _, block)| block.requesters.contains(&key))
            .map(|(piece, number, _)| self.block(piece, number))
            .collect()
    }

    /// Forgets an open piece, and expects cancels.
    fn close(&mut self, piece: u32) -> bool {
        let Some(open) = self.open.remove(&piece) else {
            return false;
        };
        for (number, block) in open.blocks.iter().enumerate() {
            let block_request = self.block(piece, number);
            self.events
                .extend(block.requesters.iter().map(|&peer| Event::Cancel {
                    peer,
                    block: block_request,
                }));
        }
        true
    }

    fn drop_open(&mut self, piece: u32) {
        if self.close(piece) {
            self.events.push(Event::Dropped(PieceIndex(piece)));
        }
    }
}
