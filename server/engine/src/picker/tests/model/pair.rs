//! A picker and its model side by side: [`run`] reads a sequence of calls from bytes, makes each on
//! both, and compares all that comes out; a choice must be one that the model allows, and every one
//! that it makes.

use super::*;

/// Peers that come and go.
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
