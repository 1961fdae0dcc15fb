//! Which blocks to ask which peer for: the piece picker of one torrent.
//!
//! The order of choice, for a peer that may be asked for anything:
//!
//! 1. the free blocks of pieces that it is working on;
//! 2. another open piece that it may join, the highest priority and the nearest to its end first;
//! 3. a new piece: the highest priority (priority comes before all else, 2. included), then the
//!    fewest peers that have it, then by chance. The first [`PickerConfig::random_first_pieces`]
//!    are any piece, so that there is something to trade soon; with [`PieceOrder::Sequential`] it
//!    is the lowest. A piece that the peer suggests (BEP 6) is taken before others of its priority;
//! 4. for a fast peer, an open piece that others are working on;
//! 5. end-game: when all that is missing is requested, blocks that are requested from others
//!    already, from [`PickerConfig::endgame_requesters`] peers at most. When one comes, the others
//!    are cancelled. While there are missing pieces that nobody present has there is none: who
//!    hangs then is found out by its timeouts ([`crate::pipeline`]).
//!
//! Speed classes ([`Sharing`]): a fast peer begins pieces of its own, in which slow peers get no
//! blocks, so that a slow one never holds up what a fast one has almost done; slow peers share
//! pieces among themselves. A piece in which nobody has requests is anybody's.
//!
//! Bounds: [`PIECES_MAX`](proto::limits::PIECES_MAX) pieces, [`PEERS_MAX`] peers. A piece is begun
//! only while those with free blocks are fewer than [`PickerConfig::open_pieces_spare`] and one for
//! each peer; what fails its hash, is given back, or was open before a peer left may come on top,
//! and is finished first. When so many are open, a piece in which nobody has requests is forgotten
//! ([`Event::Dropped`]) before a new one is begun: first one that nobody has any more, then the one
//! with the fewest blocks received. Pieces without free blocks are bounded by the requests that are
//! under way, and by what the caller lets wait for its hash.
//!
//! Memory: 11.2 to 12.2 bytes for each piece that is not open, by how many priorities are in use;
//! 24 for each block of one that is; a bit for each piece and each peer that has some but not all.
//! Cost: see [`Work`]; `have` and all that concerns one block are O(1), a piece that is wanted no
//! longer is O(peers), a bitfield O(pieces) in words.
//!
//! The caller handles an input, then drains [`Picker::take_event`]. It owns what needs time: how
//! many blocks a peer is asked for, when a request has timed out, how fast a peer is. Not here
//! either: whether a peer chokes us, whom to ban for a bad piece ([`blame`]), and the bytes.

use std::collections::VecDeque;

use proto::ids::PieceIndex;
use proto::limits::BLOCK_LENGTH;
use proto::wire::BlockRequest;

use crate::choker::PeerKey;
use crate::layout::StorageLayout;
use crate::random::Random;

mod bits;
pub mod blame;
mod blocks;
mod choice;
mod open;
mod order;
mod peers;
mod pieces;
mod priority;
mod swarm;

pub use open::REQUESTERS_MAX;
pub use peers::PEERS_MAX;
pub use priority::{Priority, piece_priorities};

pub(crate) use bits::{Bits, pieces_around};
use open::{OpenPieces, OpenPlace};
use peers::Peers;
use pieces::{Pieces, State};

/// In which order pieces are begun; priority comes first in each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PieceOrder {
    /// The fewest peers that have it first, by chance among equals: what spreads a torrent fastest.
    #[default]
    RarestFirst,
    /// The lowest first: for whoever reads the files while they come.
    Sequential,
}

/// How peers share pieces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sharing {
    /// A peer that sends a whole piece within `whole_piece_s` seconds gets pieces of its own;
    /// slower ones, and those that are not measured yet, share.
    ///
    /// By default 30 s. A piece becomes of use to others when it is whole, so this bounds how long
    /// we sit on what we have got from a peer; and it is half of the minute after which a request
    /// is commonly given up, so one lost block delays its piece by twice its time, not by ten
    /// times.
    BySpeed {
        /// How long a whole piece may take, in seconds.
        whole_piece_s: u32,
    },
    /// Every peer gets pieces of its own, and no more than `peers_per_piece` work on one at a time
    /// (end-game aside): for a data center, where all are fast and whole pieces are what peers can
    /// pass on.
    WholePieces {
        /// Peers with requests in one piece, at most; at least 1.
        peers_per_piece: u32,
    },
}

impl Default for Sharing {
    fn default() -> Sharing {
        Sharing::BySpeed { whole_piece_s: 30 }
    }
}

/// How a picker works.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PickerConfig {
    /// In which order pieces are begun.
    pub order: PieceOrder,
    /// So many pieces are begun at random before `order` counts. By default 4: what a peer needs to
    /// have something for others is any piece, soon, and the rarest ones come from the fewest
    /// peers.
    pub random_first_pieces: u32,
    /// How peers share pieces.
    pub sharing: Sharing,
    /// How many pieces may have free blocks besides one for each peer; at least 1. By default 16:
    /// room for those that slow peers share, and for those that peers have left.
    pub open_pieces_spare: u32,
    /// From how many peers a block may be requested in the end-game, [`REQUESTERS_MAX`] at most; 1
    /// is no end-game. By default 3: the second gets past one peer that hangs, the third past two,
    /// and what is wasted is at most twice what was left.
    pub endgame_requesters: u32,
}

impl Default for PickerConfig {
    fn default() -> PickerConfig {
        PickerConfig {
            order: PieceOrder::default(),
            random_first_pieces: 4,
            sharing: Sharing::default(),
            open_pieces_spare: 16,
            endgame_requesters: 3,
        }
    }
}

/// The pieces that a peer says it has when it comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerPieces<'a> {
    /// None: it sent have-none (BEP 6), or nothing at all yet.
    None,
    /// All: it sent have-all (BEP 6). A full bitfield is the same.
    All,
    /// Those of a bitfield message (BEP 3) that has been checked.
    Bitfield(&'a [u8]),
}

/// What a peer is to be asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Wish<'a> {
    /// How many blocks, at most.
    pub count: u32,
    /// Only these pieces, the first first: the allowed-fast set (BEP 6) while the peer chokes us.
    /// `None`: any.
    pub only: Option<&'a [PieceIndex]>,
    /// Pieces that the peer suggests (BEP 6), the best first.
    pub suggested: &'a [PieceIndex],
}

/// What became of a block that has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Received {
    /// It was missing.
    New,
    /// It was the last one that its piece lacked: the piece can be hashed.
    PieceComplete,
    /// It is there already; its bytes are of no use.
    Duplicate,
    /// Its piece is not open, or there is no such block; its bytes are of no use.
    Unwanted,
}

/// What the caller has to do besides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The block is not needed from this peer any more: send a cancel, and take it out of its
    /// pipeline.
    Cancel {
        /// The peer.
        peer: PeerKey,
        /// The block.
        block: BlockRequest,
    },
    /// The blocks of this piece are forgotten: it is no longer open, and will be begun anew if it
    /// is wanted.
    Dropped(PieceIndex),
}

/// What a picker has done since it was made, counted. It shows what a call costs where time would
/// not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Work {
    /// Pieces that entered, left or changed their class in the order, one by one: each is O(1).
    pub moves: u64,
    /// Pieces whose availability was changed in one linear sweep.
    pub swept: u64,
    /// Pieces that were put into the order anew in one linear pass.
    pub rebuilt: u64,
    /// Pieces and blocks that were looked at for a choice.
    pub looks: u64,
    /// Words of 64 pieces that were looked at for a choice.
    pub words: u64,
}

/// Chooses blocks: see the module.
#[derive(Clone, Debug)]
pub struct Picker {
    config: PickerConfig,
    random: Random,
    piece_length: u32,
    last_piece_length: u32,
    pieces: Pieces,
    peers: Peers,
    open: OpenPieces,
    events: VecDeque<Event>,
}

impl Picker {
    /// A picker for the pieces of `layout`, of which those in the bitfield `verified` are there
    /// already. The same seed and the same calls make the same choices.
    pub fn new(
        config: PickerConfig,
        layout: &StorageLayout,
        verified: PeerPieces<'_>,
        seed: u64,
    ) -> Picker {
        let count = layout.piece_count();
        let verified = match verified {
            PeerPieces::None => Bits::default(),
            PeerPieces::All => Bits::full(count),
            PeerPieces::Bitfield(bits) => Bits::from_wire(bits, count),
        };
        Picker {
            config,
            random: Random::new(seed),
            piece_length: layout.piece_length(),
            last_piece_length: layout.piece_length_of(PieceIndex(count.saturating_sub(1))),
            pieces: Pieces::new(count, &verified),
            peers: Peers::default(),
            open: OpenPieces::default(),
            events: VecDeque::new(),
        }
    }

    /// What is still to be done because of the last call; `None` when all is. The caller takes
    /// these until there are none, after each call.
    pub fn take_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Changes in which order pieces are begun, from the next one on.
    pub fn set_order(&mut self, order: PieceOrder) {
        self.config.order = order;
    }

    /// How many pieces there are.
    pub fn piece_count(&self) -> u32 {
        self.pieces.count()
    }

    /// How many pieces are verified.
    pub fn verified(&self) -> u32 {
        self.pieces.verified()
    }

    /// Whether this piece is verified.
    pub fn is_verified(&self, piece: PieceIndex) -> bool {
        self.pieces.contains(piece) && self.pieces.state(piece) == State::Verified
    }

    /// How many pieces are wanted and not verified: 0 when the download is done.
    pub fn wanted(&self) -> u32 {
        self.pieces.wanted()
    }

    /// How many pieces have been begun and are not verified.
    pub fn open_pieces(&self) -> usize {
        self.open.len()
    }

    /// How many peers have this piece.
    pub fn availability(&self, piece: PieceIndex) -> u32 {
        if !self.pieces.contains(piece) {
            return 0;
        }
        self.peers.seeds() + u32::from(self.pieces.availability(piece))
    }

    /// How much this piece is wanted.
    pub fn priority(&self, piece: PieceIndex) -> Priority {
        if !self.pieces.contains(piece) {
            return Priority::SKIP;
        }
        self.pieces.priority(piece)
    }

    /// What it has done so far.
    pub fn work(&self) -> Work {
        self.pieces.work
    }

    /// Bytes that are allocated for all pieces, those in progress and the peers' not counted.
    pub fn piece_memory_bytes(&self) -> usize {
        self.pieces.memory_bytes()
    }

    /// Changes how much one piece is wanted. What was received of an open piece that is now skipped
    /// is forgotten. O(peers).
    pub fn set_priority(&mut self, piece: PieceIndex, priority: Priority) {
        if !self.pieces.contains(piece) || self.pieces.priority(piece) == priority {
            return;
        }
        let wanted = self.pieces.is_wanted(piece);
        if priority == Priority::SKIP {
            self.drop_open(piece);
        }
        self.pieces.set_priority(piece, priority);
        if self.pieces.is_wanted(piece) != wanted {
            self.peers.change_interest(piece, !wanted);
        }
    }

    /// Changes how much all pieces are wanted; there is one priority for each. O(pieces), and
    /// O(pieces) words for each peer.
    pub fn set_priorities(&mut self, priorities: &[Priority]) {
        assert_eq!(priorities.len(), self.pieces.count() as usize);
        for (piece, &priority) in (0..).map(PieceIndex).zip(priorities) {
            if priority == Priority::SKIP {
                self.drop_open(piece);
            }
            self.pieces.write_priority(piece, priority);
        }
        self.pieces.rebuild();
        for peer in self.peers.iter_mut() {
            if let peers::Has::Some { bits, .. } = &peer.has {
                let open = self.open.iter().map(|(_, open)| open.piece);
                peer.interesting = self.pieces.count_wanted(bits, open);
            }
        }
    }

    /// The hash of this piece was right, now or in an earlier run. O(peers).
    pub fn piece_verified(&mut self, piece: PieceIndex) {
        if !self.pieces.contains(piece) || self.is_verified(piece) {
            return;
        }
        if let State::Open(place) = self.pieces.state(piece) {
            self.cancel_requests(OpenPlace(place));
            self.open.close(OpenPlace(place));
        }
        if self.pieces.is_wanted(piece) {
            self.peers.change_interest(piece, false);
        }
        self.pieces.set_verified(piece);
    }

    /// The hash of a complete piece was wrong: all its blocks are free again. Returns who sent each
    /// of them, in order, for [`blame`]; nothing, and nothing changes, if the piece is not
    /// complete.
    pub fn piece_failed(&mut self, piece: PieceIndex) -> Vec<PeerKey> {
        let Some(place) = self.open_place(piece) else {
            return Vec::new();
        };
        let open = self.open.get(place);
        if !open.is_complete() {
            return Vec::new();
        }
        let senders = open.blocks().iter().filter_map(|block| block.sender());
        let senders = senders.collect();
        self.open.reset(place);
        senders
    }

    /// What we had of this piece is lost, whether verified or in part: it is missing again.
    /// O(peers).
    pub fn piece_lost(&mut self, piece: PieceIndex) {
        self.drop_open(piece);
        if self.is_verified(piece) {
            self.pieces.set_missing(piece);
            if self.pieces.is_wanted(piece) {
                self.peers.change_interest(piece, true);
            }
        }
    }

    /// Forgets what was received of a piece, if it is open.
    fn drop_open(&mut self, piece: PieceIndex) {
        if let Some(place) = self.open_place(piece) {
            self.cancel_requests(place);
            self.open.close(place);
            self.pieces.set_missing(piece);
            self.events.push_back(Event::Dropped(piece));
        }
    }

    fn open_place(&self, piece: PieceIndex) -> Option<OpenPlace> {
        if !self.pieces.contains(piece) {
            return None;
        }
        match self.pieces.state(piece) {
            State::Open(place) => Some(OpenPlace(place)),
            _ => None,
        }
    }

    /// The length of a piece that exists, in bytes.
    fn length_of(&self, piece: PieceIndex) -> u32 {
        if piece.0 + 1 == self.pieces.count() {
            self.last_piece_length
        } else {
            self.piece_length
        }
    }

    fn block_count(&self, piece: PieceIndex) -> u32 {
        self.length_of(piece).div_ceil(BLOCK_LENGTH)
    }

    fn block_request(&self, piece: PieceIndex, block: u32) -> BlockRequest {
        let begin = block * BLOCK_LENGTH;
        BlockRequest {
            piece,
            begin,
            length: BLOCK_LENGTH.min(self.length_of(piece) - begin),
        }
    }

    /// The open piece and the number of a block, if it is one that we may have asked for.
    fn locate(&self, request: BlockRequest) -> Option<(OpenPlace, u32)> {
        let place = self.open_place(request.piece)?;
        let block = request.begin / BLOCK_LENGTH;
        let exists = block < self.block_count(request.piece)
            && self.block_request(request.piece, block) == request;
        exists.then_some((place, block))
    }

    /// Panics if the structure contradicts itself. For tests and fuzzing: O(pieces × peers).
    pub fn check_invariants(&self) {
        self.pieces.check_invariants();
        self.open.check_invariants();
        self.check_peers();
        for (place, open) in self.open.iter() {
            assert_eq!(self.pieces.state(open.piece), State::Open(place.0));
            assert_eq!(open.blocks().len() as u32, self.block_count(open.piece));
        }
    }
}

#[cfg(test)]
mod tests;
