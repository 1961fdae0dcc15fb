//! One torrent that is being fetched: what is asked of whom, what becomes of each block, who lied.
//!
//! The three that decide are the picker ([`crate::picker`]: which blocks), a pipeline for each peer
//! ([`crate::pipeline`]: how many, and until when) and blame ([`crate::picker::blame`]: who sent
//! what a hash refused). This brings them together for one torrent: an input changes them, and what
//! is to be done about it comes out as [`Action`]s. After each input the caller drains
//! [`Download::take_action`]; when it has no more input at hand it calls [`Download::refill`],
//! which asks peers for more, so that the requests for what one read from a socket has brought go
//! out together.
//!
//! A piece goes through these states: some blocks are here → all are ([`Action::Check`]) → its hash
//! is right ([`Download::piece_good`]) → it is on disk ([`Download::piece_stored`]) → peers are
//! told ([`Action::Announce`]). A wrong hash begins it anew.
//!
//! Limits: what is requested and not here ([`DownloadConfig::request_bytes_max`]), where there is a
//! rate limit how fast ([`Download::refill_within`]), and what is here and not on disk ([`DownloadConfig::unstored_bytes_max`], beyond which nothing is requested);
//! allowed-fast and suggested pieces of a peer ([`HINTS_MAX`]). Each input costs O(1) beside what
//! picker and pipeline state; a tick is O(peers).
//!
//! Not here: bytes, files, hashes, messages. A peer's key is used once: a peer that comes again has
//! another, or it would be blamed for what the one before it sent.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use proto::extension::{Extension, dont_have};
use proto::ids::PieceIndex;
use proto::wire::{BlockRequest, Message};

use crate::choker::PeerKey;
use crate::layout::StorageLayout;
use crate::picker::blame::{Blame, BlockDigest};
use crate::picker::{Event, PeerPieces, Picker, PickerConfig, PieceOrder, Priority, Received};
use crate::pipeline::{Arrival, Pipeline, PipelineConfig, RequestBudget};
use crate::time::Time;

mod asking;

use asking::Allowance;
pub use asking::Asked;

/// Pieces that a peer may allow us although it chokes us, and that it may suggest (BEP 6): each of
/// the two lists. More are ignored, of suggestions the oldest is forgotten.
pub const HINTS_MAX: usize = 32;

/// How a download works.
#[derive(Clone, Copy, Debug)]
pub struct DownloadConfig {
    /// Which blocks are chosen.
    pub picker: PickerConfig,
    /// How many of one peer.
    pub pipeline: PipelineConfig,
    /// Bytes that are requested of all peers and not here yet, at most (and a block for each peer).
    pub request_bytes_max: u64,
    /// Bytes of whole pieces that are here and not yet on disk; with more, nothing is requested.
    pub unstored_bytes_max: u64,
}

impl Default for DownloadConfig {
    fn default() -> DownloadConfig {
        DownloadConfig {
            picker: PickerConfig::default(),
            pipeline: PipelineConfig::default(),
            request_bytes_max: 64 << 20,
            unstored_bytes_max: 64 << 20,
        }
    }
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Tell this peer that we are interested, or no longer.
    SetInterested {
        /// The peer.
        peer: PeerKey,
        /// Whether we are.
        interested: bool,
    },
    /// Ask this peer for a block.
    Request {
        /// The peer.
        peer: PeerKey,
        /// The block.
        block: BlockRequest,
    },
    /// Take a request back.
    Cancel {
        /// The peer.
        peer: PeerKey,
        /// The block.
        block: BlockRequest,
    },
    /// What is here of this piece is of no use.
    Forget(PieceIndex),
    /// All of this piece is here: hash it, and answer by [`Download::piece_good`] or
    /// [`Download::piece_bad`].
    Check(PieceIndex),
    /// This piece is verified and on disk: tell all peers (BEP 3).
    Announce(PieceIndex),
    /// This peer sent bytes that are not the torrent's: close it and keep its address away.
    Ban(PeerKey),
}

/// What to do with the bytes of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Keep them: they are the first of this block.
    Keep,
    /// Drop them: they are here already, or nobody wants them any more.
    Drop,
    /// Drop them, and think the worse of the peer: it was never asked.
    Unasked,
}

/// A peer that we fetch from, or would.
struct Source {
    pipeline: Pipeline,
    /// Whether it was told that we are interested.
    interested: bool,
    /// Whether it chokes us.
    chokes: bool,
    allowed_fast: Vec<PieceIndex>,
    suggested: VecDeque<PieceIndex>,
    /// Whether it said that it has all pieces, and has lost none since.
    has_all: bool,
    /// The blocks that had come at the last tick.
    blocks_before: u64,
}

impl Source {
    /// Whether what it was asked for takes longer than until the next tick, as far as it shows at a
    /// tick.
    fn is_late(&mut self) -> bool {
        let blocks = self.pipeline.counters().blocks;
        let has_come = std::mem::replace(&mut self.blocks_before, blocks) < blocks;
        let outstanding = self.pipeline.outstanding_bytes();
        let rate = self.pipeline.rate().unwrap_or(0);
        outstanding > 0 && (!has_come || self.pipeline.is_snubbed() || rate < outstanding)
    }
}

/// The download of one torrent: see the module.
pub struct Download {
    config: DownloadConfig,
    picker: Picker,
    blame: Blame,
    budget: RequestBudget,
    /// In an order, so that what a tick does to all of them is not left to chance.
    peers: BTreeMap<PeerKey, Source>,
    /// Peers that may be asked for more: their window has room, or there is more to ask for.
    ready: BTreeSet<PeerKey>,
    /// Peers whose window has room and for whom there was nothing.
    hungry: BTreeSet<PeerKey>,
    actions: VecDeque<Action>,
    /// Pieces that are whole and not yet on disk, and whether their hash was right.
    unstored: HashMap<PieceIndex, bool>,
    unstored_bytes: u64,
    piece_length: u64,
    total_length: u64,
    paused: bool,
    allowance: Allowance,
    /// For the results of one call.
    blocks: Vec<BlockRequest>,
}

impl Download {
    /// The download of what a torrent of this `layout` lacks when the pieces `verified` are on
    /// disk. The same `seed` and the same inputs bring the same actions.
    pub fn new(
        config: DownloadConfig,
        layout: &StorageLayout,
        verified: PeerPieces<'_>,
        seed: u64,
    ) -> Download {
        Download {
            picker: Picker::new(config.picker, layout, verified, seed),
            blame: Blame::new(),
            budget: RequestBudget::new(config.request_bytes_max),
            peers: BTreeMap::new(),
            ready: BTreeSet::new(),
            hungry: BTreeSet::new(),
            actions: VecDeque::new(),
            unstored: HashMap::new(),
            unstored_bytes: 0,
            piece_length: u64::from(layout.piece_length()),
            total_length: layout.total_length(),
            paused: false,
            allowance: Allowance::default(),
            blocks: Vec::new(),
            config,
        }
    }

    /// What is still to be done because of the inputs so far; `None` when all is.
    pub fn take_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The picker, to look at.
    pub fn picker(&self) -> &Picker {
        &self.picker
    }

    /// Whether all that is wanted is verified and on disk.
    pub fn is_done(&self) -> bool {
        self.picker.wanted() == 0 && self.unstored.is_empty()
    }

    /// Whether a peer owes us blocks and sends none: the choker is to know.
    pub fn is_snubbed(&self, peer: PeerKey) -> bool {
        let source = self.peers.get(&peer);
        source.is_some_and(|source| source.pipeline.is_snubbed())
    }

    /// Whether a peer has something that we want.
    pub fn is_interested(&self, peer: PeerKey) -> bool {
        self.peers
            .get(&peer)
            .is_some_and(|source| source.interested)
    }

    /// How many pieces are whole and not on disk.
    pub fn unstored_pieces(&self) -> usize {
        self.unstored.len()
    }

    /// Bytes that are requested and not here.
    pub fn requested_bytes(&self) -> u64 {
        self.budget.used()
    }

    /// Bytes of whole pieces that are not on disk yet.
    pub fn unstored_bytes(&self) -> u64 {
        self.unstored_bytes
    }

    /// A peer whose handshake is done, and what it has. `fast`: both sides speak the fast extension
    /// (BEP 6).
    pub fn peer_joined(&mut self, peer: PeerKey, fast: bool, pieces: PeerPieces<'_>) {
        if self.peers.contains_key(&peer) {
            return;
        }
        self.picker.peer_joined(peer, pieces);
        self.peers.insert(
            peer,
            Source {
                pipeline: Pipeline::new(self.config.pipeline, fast),
                interested: false,
                chokes: true,
                allowed_fast: Vec::new(),
                suggested: VecDeque::new(),
                has_all: matches!(pieces, PeerPieces::All),
                blocks_before: 0,
            },
        );
        // Nobody is late before he had a second.
        self.picker.set_late(peer, false);
        self.show_interest(peer);
    }

    /// A peer has gone. What was asked of it may be asked of others.
    pub fn peer_left(&mut self, peer: PeerKey) {
        let Some(mut source) = self.peers.remove(&peer) else {
            return;
        };
        let mut blocks = std::mem::take(&mut self.blocks);
        source.pipeline.close(&mut self.budget, &mut blocks);
        let freed = !blocks.is_empty();
        let void = blocks.drain(..).map(|block| u64::from(block.length));
        self.allowance.void(void.sum());
        self.blocks = blocks;
        self.picker.peer_left(peer);
        self.ready.remove(&peer);
        self.hungry.remove(&peer);
        self.follow_picker();
        if freed {
            self.wake_hungry();
        }
    }

    /// Takes a message that the peer's session has found to be in order. Of a block it says what to
    /// do with the bytes.
    pub fn handle_message(
        &mut self,
        peer: PeerKey,
        message: &Message<'_>,
        now: Time,
    ) -> Option<Verdict> {
        match *message {
            Message::Choke => self.choked(peer),
            Message::Unchoke => self.unchoked(peer, now),
            Message::Have(piece) => self.have(peer, piece),
            Message::Bitfield(bits) => self.set_pieces(peer, PeerPieces::Bitfield(bits)),
            Message::HaveAll => self.set_pieces(peer, PeerPieces::All),
            Message::Suggest(piece) => self.suggested(peer, piece),
            Message::AllowedFast(piece) => self.allowed_fast(peer, piece),
            Message::Reject(block) => self.rejected(peer, block, now),
            Message::Piece {
                piece,
                begin,
                block,
            } => {
                let length = u32::try_from(block.len()).unwrap_or(u32::MAX);
                let block = BlockRequest {
                    piece,
                    begin,
                    length,
                };
                return Some(self.block(peer, block, now));
            }
            Message::Extended { id, payload } => {
                if Extension::from_our_id(id) == Some(Extension::DontHave)
                    && let Some(piece) = dont_have(payload)
                {
                    self.peer_lost(peer, piece);
                }
            }
            // A peer that has nothing joined with nothing; the rest is the session's.
            Message::HaveNone
            | Message::KeepAlive
            | Message::Interested
            | Message::NotInterested
            | Message::Request(_)
            | Message::Cancel(_)
            | Message::Port(_)
            | Message::Unknown { .. } => {}
        }
        None
    }

    /// The peer says what it has, after it joined, and perhaps again: aria2 sends a bitfield in
    /// place of many haves. While blocks are under way from it, what it had before stays.
    pub fn set_pieces(&mut self, peer: PeerKey, pieces: PeerPieces<'_>) {
        let Some(source) = self.peers.get_mut(&peer) else {
            return;
        };
        // Five bytes that cost a look at each piece: once.
        let has_all = matches!(pieces, PeerPieces::All);
        if has_all && source.has_all {
            return;
        }
        source.has_all = has_all || (source.has_all && source.pipeline.outstanding() > 0);
        if source.pipeline.outstanding() == 0 {
            self.picker.peer_left(peer);
            self.picker.peer_joined(peer, pieces);
            self.picker.set_late(peer, false);
            self.follow_picker();
        } else {
            let count = self.picker.piece_count();
            let has = |piece: &PieceIndex| match pieces {
                PeerPieces::None => false,
                PeerPieces::All => true,
                PeerPieces::Bitfield(bits) => bits
                    .get(piece.0 as usize / 8)
                    .is_some_and(|byte| byte & (0x80 >> (piece.0 % 8)) != 0),
            };
            for piece in (0..count).map(PieceIndex).filter(has) {
                self.picker.have(peer, piece);
            }
        }
        self.show_interest(peer);
        self.wake(peer);
    }

    /// The peer has got a piece (BEP 3).
    pub fn have(&mut self, peer: PeerKey, piece: PieceIndex) {
        if self.picker.have(peer, piece) {
            self.show_interest(peer);
            // Another piece makes no room in a full window.
            if self.hungry.remove(&peer) {
                self.ready.insert(peer);
            }
        }
    }

    /// The peer has lost a piece (BEP 54).
    pub fn peer_lost(&mut self, peer: PeerKey, piece: PieceIndex) {
        if let Some(source) = self.peers.get_mut(&peer) {
            source.has_all = false;
        }
        self.picker.peer_lost(peer, piece);
    }

    /// The peer chokes us (BEP 3).
    pub fn choked(&mut self, peer: PeerKey) {
        let Some(source) = self.peers.get_mut(&peer) else {
            return;
        };
        source.chokes = true;
        let mut blocks = std::mem::take(&mut self.blocks);
        source.pipeline.choked(&mut self.budget, &mut blocks);
        self.give_back(peer, blocks, false);
    }

    /// The peer chokes us no longer (BEP 3).
    pub fn unchoked(&mut self, peer: PeerKey, now: Time) {
        if let Some(source) = self.peers.get_mut(&peer) {
            source.chokes = false;
            source.pipeline.unchoked(now);
            self.wake(peer);
        }
    }

    /// The peer gives this piece although it chokes us (BEP 6).
    pub fn allowed_fast(&mut self, peer: PeerKey, piece: PieceIndex) {
        if let Some(source) = self.peers.get_mut(&peer)
            && source.allowed_fast.len() < HINTS_MAX
            && !source.allowed_fast.contains(&piece)
        {
            source.allowed_fast.push(piece);
            self.wake(peer);
        }
    }

    /// The peer suggests this piece (BEP 6): the latest suggestion is the best.
    pub fn suggested(&mut self, peer: PeerKey, piece: PieceIndex) {
        if let Some(source) = self.peers.get_mut(&peer) {
            source.suggested.retain(|&other| other != piece);
            source.suggested.truncate(HINTS_MAX - 1);
            source.suggested.push_front(piece);
        }
    }

    /// How many requests the peer queues (`reqq`, BEP 10).
    pub fn set_peer_queue(&mut self, peer: PeerKey, requests: u32) {
        if let Some(source) = self.peers.get_mut(&peer) {
            source.pipeline.set_peer_queue(requests);
            self.wake(peer);
        }
    }

    /// The peer will not answer a request (BEP 6).
    pub fn rejected(&mut self, peer: PeerKey, block: BlockRequest, now: Time) {
        let Some(source) = self.peers.get_mut(&peer) else {
            return;
        };
        source.allowed_fast.retain(|&piece| piece != block.piece);
        if source.pipeline.rejected(&block, &mut self.budget, now) {
            self.allowance.void(u64::from(block.length));
            self.picker.request_failed(peer, block);
            self.follow_picker();
            self.wake_hungry();
        }
        self.wake(peer);
    }

    /// Whether a block that is beginning to come from the peer is one to keep, as far as one can
    /// tell before it is whole: it was requested, and nobody has brought it meanwhile.
    pub fn expects(&self, peer: PeerKey, block: BlockRequest) -> bool {
        let source = self.peers.get(&peer);
        source.is_some_and(|source| source.pipeline.expects(&block))
            && self.picker.is_missing(block)
    }

    /// The blocks to keep that come next from the peer, if it answers in the order of the requests.
    /// `coming` is left out, and so is all behind one that somebody else has brought: the peer may
    /// leave that out.
    pub fn upcoming(
        &self,
        peer: PeerKey,
        coming: Option<BlockRequest>,
    ) -> impl Iterator<Item = BlockRequest> {
        let source = self.peers.get(&peer);
        let waiting = source.into_iter().flat_map(|one| one.pipeline.waiting());
        waiting
            .filter(move |&block| Some(block) != coming)
            .take_while(|&block| self.picker.is_missing(block))
    }

    /// A block has come from the peer. Only of one to keep are the bytes needed; it counts as here
    /// then.
    pub fn block(&mut self, peer: PeerKey, block: BlockRequest, now: Time) -> Verdict {
        let Some(source) = self.peers.get_mut(&peer) else {
            return Verdict::Drop;
        };
        let arrival = source.pipeline.received(&block, &mut self.budget, now);
        self.wake(peer);
        if arrival == Arrival::Unrequested {
            return Verdict::Unasked;
        }
        let received = self.picker.block_received(peer, block);
        self.follow_picker();
        match received {
            Received::New => Verdict::Keep,
            Received::PieceComplete => {
                self.unstored.insert(block.piece, false);
                self.unstored_bytes += self.length_of(block.piece);
                self.actions.push_back(Action::Check(block.piece));
                Verdict::Keep
            }
            Received::Duplicate | Received::Unwanted => {
                // Given back, fetched from another, and here after all: the picker knew nothing of
                // it.
                self.picker.request_failed(peer, block);
                Verdict::Drop
            }
        }
    }

    /// Whether [`Self::piece_good`] needs the digests of this piece's blocks.
    pub fn needs_digests(&self, piece: PieceIndex) -> bool {
        self.blame.remembers(piece)
    }

    /// The hash of a piece is right. `digests` are those of its blocks, in order, if they are
    /// needed.
    pub fn piece_good(&mut self, piece: PieceIndex, digests: &[BlockDigest]) {
        let Some(is_good) = self.unstored.get_mut(&piece) else {
            return;
        };
        *is_good = true;
        self.picker.piece_verified(piece);
        self.follow_picker();
        for liar in self.blame.piece_verified(piece, digests) {
            self.ban(liar);
        }
    }

    /// The hash of a piece is wrong. `digests` are those of its blocks, in order. It will be
    /// fetched again.
    pub fn piece_bad(&mut self, piece: PieceIndex, digests: &[BlockDigest]) {
        if self.unstored.get(&piece) != Some(&false) {
            return;
        }
        self.forget_unstored(piece);
        let senders = self.picker.piece_failed(piece);
        self.follow_picker();
        let blocks: Vec<_> = senders.into_iter().zip(digests.iter().copied()).collect();
        if let Some(liar) = self.blame.piece_failed(piece, &blocks) {
            self.ban(liar);
        }
        self.actions.push_back(Action::Forget(piece));
        self.wake_hungry();
    }

    /// A verified piece is on disk.
    pub fn piece_stored(&mut self, piece: PieceIndex) {
        if self.unstored.get(&piece) == Some(&true) {
            self.forget_unstored(piece);
            self.actions.push_back(Action::Announce(piece));
            self.wake_hungry();
        }
    }

    /// A piece could not be written, or what was on disk of it is gone: it is missing again.
    pub fn piece_lost(&mut self, piece: PieceIndex) {
        self.forget_unstored(piece);
        self.picker.piece_lost(piece);
        self.blame.piece_dropped(piece);
        self.follow_picker();
        self.wake_hungry();
        let peers: Vec<PeerKey> = self.peers.keys().copied().collect();
        for peer in peers {
            self.show_interest(peer);
        }
    }

    /// Asks for nothing more, or goes on: while the disk is full, or the torrent is paused.
    pub fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
        self.wake_hungry();
    }

    /// Changes in which order pieces are begun.
    pub fn set_order(&mut self, order: PieceOrder) {
        self.picker.set_order(order);
    }

    /// Changes how much each piece is wanted.
    pub fn set_priorities(&mut self, priorities: &[Priority]) {
        self.picker.set_priorities(priorities);
        self.follow_picker();
        self.wake_hungry();
        let peers: Vec<PeerKey> = self.peers.keys().copied().collect();
        for peer in peers {
            self.show_interest(peer);
        }
    }

    /// Once a second: gives up what is overdue, says how fast peers are, and loses interest.
    pub fn tick(&mut self, now: Time) {
        let peers: Vec<PeerKey> = self.peers.keys().copied().collect();
        for peer in peers {
            let Some(source) = self.peers.get_mut(&peer) else {
                continue;
            };
            let mut blocks = std::mem::take(&mut self.blocks);
            source
                .pipeline
                .handle_timeout(&mut self.budget, now, &mut blocks);
            let rate = match source.pipeline.is_snubbed() {
                true => 0,
                false => source.pipeline.rate().unwrap_or(0),
            };
            self.picker.set_rate(peer, rate);
            self.picker.set_late(peer, source.is_late());
            self.give_back(peer, blocks, true);
            self.lose_interest(peer);
            self.wake(peer);
        }
    }

    /// Gives blocks of a peer back to the picker; `cancel`: the peer may still send them.
    fn give_back(&mut self, peer: PeerKey, mut blocks: Vec<BlockRequest>, cancel: bool) {
        let freed = !blocks.is_empty();
        for block in blocks.drain(..) {
            self.picker.request_failed(peer, block);
            match cancel {
                true => self.actions.push_back(Action::Cancel { peer, block }),
                false => self.allowance.void(u64::from(block.length)),
            }
        }
        self.blocks = blocks;
        self.follow_picker();
        if freed {
            self.wake_hungry();
        }
    }

    /// Does what the picker has to say.
    fn follow_picker(&mut self) {
        while let Some(event) = self.picker.take_event() {
            match event {
                Event::Cancel { peer, block } => {
                    let Some(source) = self.peers.get_mut(&peer) else {
                        continue;
                    };
                    if source.pipeline.cancelled(&block, &mut self.budget) {
                        self.actions.push_back(Action::Cancel { peer, block });
                    }
                    self.wake(peer);
                }
                Event::Dropped(piece) => {
                    self.forget_unstored(piece);
                    self.blame.piece_dropped(piece);
                    self.actions.push_back(Action::Forget(piece));
                }
            }
        }
    }

    fn forget_unstored(&mut self, piece: PieceIndex) {
        if self.unstored.remove(&piece).is_some() {
            self.unstored_bytes -= self.length_of(piece);
        }
    }

    fn ban(&mut self, peer: PeerKey) {
        self.actions.push_back(Action::Ban(peer));
    }

    /// Becomes interested, at once.
    fn show_interest(&mut self, peer: PeerKey) {
        if let Some(source) = self.peers.get_mut(&peer)
            && !source.interested
            && self.picker.is_interesting(peer)
        {
            source.interested = true;
            let interested = true;
            self.actions
                .push_back(Action::SetInterested { peer, interested });
            self.wake(peer);
        }
    }

    /// Is interested no longer, when nothing is under way: there is no hurry, and it may come back.
    fn lose_interest(&mut self, peer: PeerKey) {
        if let Some(source) = self.peers.get_mut(&peer)
            && source.interested
            && source.pipeline.outstanding() == 0
            && !self.picker.is_interesting(peer)
        {
            source.interested = false;
            source.pipeline.shrink();
            let interested = false;
            self.actions
                .push_back(Action::SetInterested { peer, interested });
        }
    }

    fn wake(&mut self, peer: PeerKey) {
        if self.peers.contains_key(&peer) {
            self.ready.insert(peer);
        }
    }

    /// There may be something for those for whom there was nothing.
    fn wake_hungry(&mut self) {
        self.ready.append(&mut self.hungry);
    }

    /// The length of a piece, in bytes.
    fn length_of(&self, piece: PieceIndex) -> u64 {
        let start = u64::from(piece.0) * self.piece_length;
        self.total_length
            .saturating_sub(start)
            .min(self.piece_length)
    }

    /// Panics if the state contradicts itself. For tests and simulation: O(pieces × peers).
    pub fn check_invariants(&self) {
        self.picker.check_invariants();
        self.blame.check_invariants();
        let outstanding = self
            .peers
            .values()
            .map(|source| source.pipeline.outstanding_bytes());
        assert_eq!(outstanding.sum::<u64>(), self.budget.used());
        let unstored = self.unstored.keys().map(|&piece| self.length_of(piece));
        assert_eq!(unstored.sum::<u64>(), self.unstored_bytes);
        for (piece, is_good) in &self.unstored {
            assert_eq!(self.picker.is_verified(*piece), *is_good);
        }
        for peer in self.ready.iter().chain(&self.hungry) {
            assert!(self.peers.contains_key(peer));
        }
    }
}

#[cfg(test)]
mod tests;
