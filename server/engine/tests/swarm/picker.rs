//! What a simulated peer needs of a piece picker, and a simple one.

use engine::random::Random;

/// A block: the piece, and the number of the block in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Block {
    pub piece: u32,
    pub index: u32,
}

/// How large the torrent is.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub pieces: u32,
    pub blocks_per_piece: u32,
    pub block_length: u64,
}

impl Layout {
    pub fn bytes(&self) -> u64 {
        u64::from(self.pieces) * u64::from(self.blocks_per_piece) * self.block_length
    }
}

/// A picker of one peer. Neighbours are numbered from 0 in the order in which they join; each is asked for one
/// block at a time.
pub trait BlockPicker {
    /// A neighbour comes, with all pieces or with none.
    fn joined(&mut self, complete: bool);
    /// A neighbour goes; what it was asked for is given back.
    fn left(&mut self, neighbour: usize);
    /// A neighbour has got a piece.
    fn have(&mut self, neighbour: usize, piece: u32);
    /// Whether the neighbour has anything that we lack.
    fn is_interesting(&self, neighbour: usize) -> bool;
    /// What to ask the neighbour for next.
    fn pick(&mut self, neighbour: usize) -> Option<Block>;
    /// The neighbour does not answer: it chokes us.
    fn given_back(&mut self, neighbour: usize, block: Block);
    /// The block came, and is verified; tells whether its piece is now complete.
    fn received(&mut self, neighbour: usize, block: Block) -> bool;
    /// How many pieces we have.
    fn pieces(&self) -> u32;
    /// Whether we have this piece.
    fn has(&self, piece: u32) -> bool;
}

/// A set of pieces.
#[derive(Clone)]
struct Pieces(Vec<u64>);

impl Pieces {
    fn new(count: u32, all: bool) -> Pieces {
        let mut words = vec![0; count.div_ceil(64) as usize];
        if all {
            (0..count).for_each(|piece| words[piece as usize / 64] |= 1 << (piece % 64));
        }
        Pieces(words)
    }

    fn has(&self, piece: u32) -> bool {
        self.0[piece as usize / 64] & (1 << (piece % 64)) != 0
    }

    fn insert(&mut self, piece: u32) -> bool {
        let fresh = !self.has(piece);
        self.0[piece as usize / 64] |= 1 << (piece % 64);
        fresh
    }

    /// Those of `self` that are in none of the others.
    fn except<'a>(&'a self, others: [&'a Pieces; 2]) -> impl Iterator<Item = u32> + 'a {
        (0_u32..).zip(&self.0).flat_map(move |(word, &bits)| {
            let index = word as usize;
            let mut bits = bits & !others[0].0[index] & !others[1].0[index];
            std::iter::from_fn(move || {
                let bit = (bits != 0).then(|| bits.trailing_zeros())?;
                bits &= bits - 1;
                Some(word * 64 + bit)
            })
        })
    }
}

struct Neighbour {
    pieces: Pieces,
    count: u32,
    /// How many of its pieces we lack.
    interesting: u32,
}

/// A piece of which blocks are requested or received.
struct Open {
    piece: u32,
    free: u64,
    received: u64,
}

/// Rarest first among a peer's neighbours, ties at random, open pieces before new ones, no end-game: the least
/// that a swarm works with.
pub struct RarestFirst {
    layout: Layout,
    random: Random,
    own: Pieces,
    count: u32,
    /// The pieces of `open`.
    begun: Pieces,
    open: Vec<Open>,
    neighbours: Vec<Neighbour>,
    availability: Vec<u32>,
}

impl RarestFirst {
    pub fn new(layout: Layout, complete: bool, seed: u64) -> RarestFirst {
        assert!(layout.blocks_per_piece <= 64);
        RarestFirst {
            layout,
            random: Random::new(seed),
            own: Pieces::new(layout.pieces, complete),
            count: if complete { layout.pieces } else { 0 },
            begun: Pieces::new(layout.pieces, false),
            open: Vec::new(),
            neighbours: Vec::new(),
            availability: vec![0; layout.pieces as usize],
        }
    }

    fn rarest(&mut self, neighbour: usize) -> Option<u32> {
        let pieces = &self.neighbours[neighbour].pieces;
        let (mut best, mut rarity, mut ties) = (None, u32::MAX, 0);
        for piece in pieces.except([&self.own, &self.begun]) {
            let availability = self.availability[piece as usize];
            if availability < rarity {
                (best, rarity, ties) = (Some(piece), availability, 1);
            } else if availability == rarity {
                ties += 1;
                if self.random.below(ties) == 0 {
                    best = Some(piece);
                }
            }
        }
        best
    }
}

impl BlockPicker for RarestFirst {
    fn joined(&mut self, complete: bool) {
        let pieces = Pieces::new(self.layout.pieces, complete);
        let interesting = pieces.except([&self.own, &self.own]).count() as u32;
        if complete {
            self.availability.iter_mut().for_each(|count| *count += 1);
        }
        self.neighbours.push(Neighbour {
            pieces,
            count: if complete { self.layout.pieces } else { 0 },
            interesting,
        });
    }

    fn left(&mut self, neighbour: usize) {
        let gone = &mut self.neighbours[neighbour];
        let none = Pieces::new(self.layout.pieces, false);
        let pieces = std::mem::replace(&mut gone.pieces, none.clone());
        (gone.count, gone.interesting) = (0, 0);
        for piece in pieces.except([&none, &none]) {
            self.availability[piece as usize] -= 1;
        }
    }

    fn have(&mut self, neighbour: usize, piece: u32) {
        let other = &mut self.neighbours[neighbour];
        if other.pieces.insert(piece) {
            other.count += 1;
            other.interesting += u32::from(!self.own.has(piece));
            self.availability[piece as usize] += 1;
        }
    }

    fn is_interesting(&self, neighbour: usize) -> bool {
        self.neighbours[neighbour].interesting > 0
    }

    fn pick(&mut self, neighbour: usize) -> Option<Block> {
        let pieces = &self.neighbours[neighbour].pieces;
        let usable = |open: &&mut Open| open.free != 0 && pieces.has(open.piece);
        if let Some(open) = self.open.iter_mut().find(usable) {
            let index = open.free.trailing_zeros();
            open.free &= open.free - 1;
            let piece = open.piece;
            return Some(Block { piece, index });
        }
        let piece = self.rarest(neighbour)?;
        self.begun.insert(piece);
        let blocks = self.layout.blocks_per_piece;
        let all = u64::MAX >> (64 - blocks);
        self.open.push(Open {
            piece,
            free: all & !1,
            received: 0,
        });
        Some(Block { piece, index: 0 })
    }

    fn given_back(&mut self, _neighbour: usize, block: Block) {
        let open = self.open.iter_mut().find(|open| open.piece == block.piece);
        open.expect("a requested block is of an open piece").free |= 1 << block.index;
    }

    fn received(&mut self, _neighbour: usize, block: Block) -> bool {
        let place = self.open.iter().position(|open| open.piece == block.piece);
        let place = place.expect("a requested block is of an open piece");
        let open = &mut self.open[place];
        open.received |= 1 << block.index;
        if open.received.count_ones() < self.layout.blocks_per_piece {
            return false;
        }
        self.open.remove(place);
        self.own.insert(block.piece);
        self.count += 1;
        for other in &mut self.neighbours {
            other.interesting -= u32::from(other.pieces.has(block.piece));
        }
        true
    }

    fn pieces(&self) -> u32 {
        self.count
    }

    fn has(&self, piece: u32) -> bool {
        self.own.has(piece)
    }
}
