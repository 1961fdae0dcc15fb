//! The picker's rules once more, naively: sets and scans, nothing kept that can be computed.
//! [`run`] reads a sequence of calls from bytes, makes each on a picker and on the model, and
//! compares all that comes out; a choice must be one that the model allows, and every one that it
//! makes.
//!
//! Only what is public is used, so that the fuzz target includes this file as it is. Torrents are
//! small enough that a walk through the order never tires, so that "the rarest" is exact.

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
const PEERS: u8 = 7;

/// A sequence of calls, byte by byte; 0 when it has ended.
struct Bytes<'a> {
    left: &'a [u8],
}

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.left.split_first() else {
            return 0;
        };
        self.left = rest;
        first
    }

    fn below(&mut self, bound: u32) -> u32 {
        (u32::from(self.byte()) << 8 | u32::from(self.byte())) % bound
    }

    fn key(&mut self) -> PeerKey {
        PeerKey((self.byte() % PEERS).into())
    }

    fn piece(&mut self, pieces: u32) -> PieceIndex {
        // One more than there are.
        PieceIndex(self.below(pieces + 1))
    }
}

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

/// A picker and its model.
struct Pair {
    picker: Picker,
    model: Model,
}

/// Makes the calls that `bytes` say on a picker and on the model, and panics where they differ.
pub fn run(bytes: &[u8]) -> Seen {
    let mut bytes = Bytes { left: bytes };
    let mut pair = Pair::new(&mut bytes);
    while !bytes.left.is_empty() {
        let mut events = pair.call(&mut bytes);
        events.extend(std::iter::from_fn(|| pair.picker.take_event()));
        pair.compare(events);
    }
    pair.model.seen
}

impl Pair {
    fn new(bytes: &mut Bytes<'_>) -> Pair {
        let pieces = [3_u32, 20, 70, 150][usize::from(bytes.byte() % 4)];
        let piece_length = [BLOCK, 3 * BLOCK, 40_000][usize::from(bytes.byte() % 3)];
        let last = u64::from(bytes.byte()) + 1;
        let total = u64::from(pieces - 1) * u64::from(piece_length) + last;
        let layout = StorageLayout::new(&[(total, false)], piece_length).unwrap();
        let mut verified = vec![0; pieces.div_ceil(8) as usize];
        verified[0] = bytes.byte() & 0xe0;
        let config = PickerConfig {
            random_first_pieces: u32::from(bytes.byte() % 4) * 2,
            open_pieces_spare: u32::from(bytes.byte() % 4) + 1,
            endgame_requesters: u32::from(bytes.byte() % 4) + 1,
            ..PickerConfig::default()
        };
        let picker = Picker::new(config, &layout, PeerPieces::Bitfield(&verified), 1);
        let first = (0..3).filter(|piece| verified[0] & (0x80 >> piece) != 0);
        let model = Model {
            config,
            piece_length,
            lengths: (0..pieces)
                .map(|i| layout.piece_length_of(PieceIndex(i)))
                .collect(),
            priorities: vec![Priority::NORMAL; pieces as usize],
            verified: first.collect(),
            open: BTreeMap::new(),
            peers: BTreeMap::new(),
            events: Vec::new(),
            seen: Seen::default(),
        };
        Pair { picker, model }
    }

    /// One call. Returns the events that are left of a pick; those of other calls are still in the
    /// picker.
    fn call(&mut self, bytes: &mut Bytes<'_>) -> Vec<Event> {
        match bytes.byte() % 20 {
            0 | 1 => self.join(bytes),
            2 => self.leave(bytes.key()),
            3 | 4 => self.have(bytes),
            5 => self.lost(bytes),
            6 | 7 => {
                let (key, rate) = (bytes.key(), u64::from(bytes.byte() % 2) << 20);
                self.picker.set_rate(key, rate);
                if let Some(peer) = self.model.peers.get_mut(&key) {
                    peer.rate = rate;
                }
            }
            8..=11 => return self.pick(bytes),
            12..=14 => self.receive(bytes),
            15 => self.give_back(bytes),
            16 => self.settle_piece(bytes),
            17 => self.prioritise(bytes),
            18 => self.configure(bytes),
            _ => {
                // What has come whole is most worth hashing.
                let complete = self.model.open.iter();
                let mut complete = complete.filter(|(_, o)| o.received() == o.blocks.len());
                if let Some((&piece, _)) = complete.next() {
                    self.verify(piece);
                }
            }
        }
        Vec::new()
    }

    fn join(&mut self, bytes: &mut Bytes<'_>) {
        let (key, pieces) = (bytes.key(), self.model.pieces());
        if self.model.peers.contains_key(&key) {
            return;
        }
        let mut bits = vec![0_u8; pieces.div_ceil(8) as usize];
        let kind = bytes.byte() % 8;
        for byte in &mut bits {
            *byte = match kind {
                0 | 1 => 0,
                2 | 3 => 0xff,
                // Some, few, all but a few.
                4 | 5 => bytes.byte(),
                6 => bytes.byte() & 0x11 & bytes.byte(),
                _ => bytes.byte() | 0xee | bytes.byte(),
            };
        }
        let says = match kind {
            0 => PeerPieces::None,
            2 => PeerPieces::All,
            _ => PeerPieces::Bitfield(&bits),
        };
        self.picker.peer_joined(key, says);
        let has =
            (0..pieces).filter(|piece| bits[*piece as usize / 8] & (0x80 >> (piece % 8)) != 0);
        let has = has.collect();
        self.model.peers.insert(key, ModelPeer { has, rate: 0 });
    }

    fn leave(&mut self, key: PeerKey) {
        self.picker.peer_left(key);
        for request in self.model.requests(key) {
            self.model.give_back(key, request);
        }
        self.model.peers.remove(&key);
        for open in self.model.open.values_mut() {
            open.owner = open.owner.filter(|owner| *owner != key);
        }
    }

    fn have(&mut self, bytes: &mut Bytes<'_>) {
        let (key, piece) = (bytes.key(), bytes.piece(self.model.pieces()));
        let pieces = self.model.pieces();
        let news = self
            .model
            .peers
            .get_mut(&key)
            .is_some_and(|peer| piece.0 < pieces && peer.has.insert(piece.0));
        assert_eq!(self.picker.have(key, piece), news);
    }

    fn lost(&mut self, bytes: &mut Bytes<'_>) {
        let (key, piece) = (bytes.key(), bytes.piece(self.model.pieces()));
        let peer = self.model.peers.get_mut(&key);
        let news = peer.is_some_and(|peer| peer.has.remove(&piece.0));
        assert_eq!(self.picker.peer_lost(key, piece), news);
    }

    fn pick(&mut self, bytes: &mut Bytes<'_>) -> Vec<Event> {
        let (key, kind, pieces) = (bytes.key(), bytes.byte(), self.model.pieces());
        let count = u32::from(bytes.byte() % 12);
        let some: Vec<PieceIndex> = (0..kind % 4).map(|_| bytes.piece(pieces)).collect();
        let wish = Wish {
            count,
            only: (kind & 0x30 == 0x30).then_some(&some[..]),
            suggested: &some,
        };
        let mut picked = Vec::new();
        self.picker.pick(key, wish, &mut picked);
        let mut events: Vec<Event> = std::iter::from_fn(|| self.picker.take_event()).collect();
        self.model.picked(key, &wish, &picked, &mut events);
        events
    }

    fn receive(&mut self, bytes: &mut Bytes<'_>) {
        let (key, many) = (bytes.key(), bytes.byte());
        let requests = self.model.requests(key);
        let mut blocks: Vec<BlockRequest> = match many % 4 {
            // One that it was asked for, all of these, or something else.
            0 | 1 => requests
                .into_iter()
                .skip(usize::from(many / 32))
                .take(1)
                .collect(),
            2 => requests,
            _ => Vec::new(),
        };
        if blocks.is_empty() {
            blocks.push(BlockRequest {
                piece: bytes.piece(self.model.pieces()),
                begin: bytes.below(4) * BLOCK,
                length: if many & 0x80 == 0 {
                    BLOCK
                } else {
                    u32::from(many)
                },
            });
        }
        for block in blocks {
            let expected = self.model.receive(key, block);
            assert_eq!(
                self.picker.block_received(key, block),
                expected,
                "{block:?}"
            );
        }
    }

    fn give_back(&mut self, bytes: &mut Bytes<'_>) {
        let (key, many) = (bytes.key(), bytes.byte());
        let requests = self.model.requests(key);
        if many.is_multiple_of(4) {
            assert_eq!(self.picker.requests_dropped(key), requests.len() as u32);
            for request in requests {
                self.model.give_back(key, request);
            }
        } else if let Some(&request) = requests.get(usize::from(many / 16)) {
            assert!(self.model.give_back(key, request));
            assert!(self.picker.request_failed(key, request));
            assert!(!self.picker.request_failed(key, request));
        }
    }

    fn verify(&mut self, piece: u32) {
        self.picker.piece_verified(PieceIndex(piece));
        if piece < self.model.pieces() {
            self.model.close(piece);
            self.model.verified.insert(piece);
        }
    }

    fn settle_piece(&mut self, bytes: &mut Bytes<'_>) {
        let kind = bytes.byte() % 6;
        let complete = self.model.open.iter();
        let mut complete = complete.filter(|(_, o)| o.received() == o.blocks.len());
        let piece = match complete.next().filter(|_| kind < 4) {
            Some((piece, _)) => *piece,
            None => bytes.piece(self.model.pieces()).0,
        };
        match kind {
            0 | 4 => self.verify(piece),
            1 | 2 => {
                let senders = self.picker.piece_failed(PieceIndex(piece));
                let mut expected = Vec::new();
                if let Some(open) = self.model.open.get_mut(&piece)
                    && open.received() == open.blocks.len()
                {
                    expected.extend(open.blocks.iter().filter_map(|block| block.sender));
                    open.blocks.fill(ModelBlock::default());
                    open.owner = None;
                    self.model.seen.failed += 1;
                }
                assert_eq!(senders, expected);
            }
            _ => {
                self.picker.piece_lost(PieceIndex(piece));
                self.model.drop_open(piece);
                self.model.verified.remove(&piece);
            }
        }
    }

    fn prioritise(&mut self, bytes: &mut Bytes<'_>) {
        let pieces = self.model.pieces();
        if bytes.byte().is_multiple_of(4) {
            let numbers = [bytes.byte(), bytes.byte(), bytes.byte()];
            let number = |piece: u32| numbers[piece as usize % 3] % 8;
            let priorities: Vec<_> = (0..pieces)
                .map(|i| Priority::new(number(i)).unwrap())
                .collect();
            self.picker.set_priorities(&priorities);
            for piece in (0..pieces).filter(|piece| number(*piece) == 0) {
                self.model.drop_open(piece);
            }
            self.model.priorities = priorities;
        } else {
            let (piece, number) = (bytes.piece(pieces), bytes.byte() % 8);
            let priority = Priority::new(number).unwrap();
            self.picker.set_priority(piece, priority);
            if piece.0 < pieces {
                if priority == Priority::SKIP {
                    self.model.drop_open(piece.0);
                }
                self.model.priorities[piece.0 as usize] = priority;
            }
        }
    }

    fn configure(&mut self, bytes: &mut Bytes<'_>) {
        let kind = bytes.byte();
        let config = &mut self.model.config;
        if kind.is_multiple_of(2) {
            config.order = match kind / 2 % 2 {
                0 => PieceOrder::RarestFirst,
                _ => PieceOrder::Sequential,
            };
            self.picker.set_order(config.order);
        } else {
            config.sharing = match kind / 2 % 3 {
                0 => Sharing::WholePieces { peers_per_piece: 2 },
                _ => Sharing::BySpeed { whole_piece_s: 30 },
            };
            self.picker.set_sharing(config.sharing);
        }
    }

    /// All that can be seen is alike, and the events are those expected, in any order.
    fn compare(&mut self, mut events: Vec<Event>) {
        let Pair { picker, model } = self;
        picker.check_invariants();
        let mut expected = std::mem::take(&mut model.events);
        let order = |event: &Event| match *event {
            Event::Cancel { peer, block } => (block.piece, 0, block.begin, peer.0),
            Event::Dropped(piece) => (piece, 1, 0, 0),
        };
        events.sort_by_key(order);
        expected.sort_by_key(order);
        assert_eq!(events, expected);
        let cancels = events.iter().filter(|e| matches!(e, Event::Cancel { .. }));
        model.seen.cancelled += cancels.count() as u32;
        let wanted = (0..model.pieces()).filter(|&piece| model.is_wanted(piece));
        assert_eq!(picker.wanted() as usize, wanted.count());
        assert_eq!(picker.verified() as usize, model.verified.len());
        assert_eq!(picker.open_pieces(), model.open.len());
        assert_eq!(picker.in_endgame(), model.in_endgame());
        for piece in 0..model.pieces() {
            let index = PieceIndex(piece);
            assert_eq!(picker.availability(index), model.availability(piece));
            assert_eq!(picker.priority(index), model.priorities[piece as usize]);
            assert_eq!(picker.is_verified(index), model.verified.contains(&piece));
        }
        for &key in model.peers.keys() {
            assert_eq!(
                picker.interesting_pieces(key),
                model.interesting(key),
                "{key:?}"
            );
        }
    }
}
