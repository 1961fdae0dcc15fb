//! One leecher: the peer wire protocol of a client that only downloads, as a state machine.
//!
//! Pure: bytes and the time come in as arguments, bytes to send come out of [`Leecher::fill`]. It
//! asks for blocks up to the depth of its pipeline as long as the seed unchokes it, and counts what
//! happens. It never uploads and never finishes. It sends nothing beyond its own handshake before
//! the seed's is there, because aria2 drops a peer that does. Connecting, timeouts of connections
//! and the kernel's dropping of payload are the worker's.

use std::collections::VecDeque;
use std::sync::Arc;

use proto::handshake::{self, Handshake, HandshakeError, HandshakeStage, Reserved, ReservedBit};
use proto::ids::{InfoHashV1, PeerId};
use proto::wire::{self, BlockRequest, Decoded, FrameLimits, Message, WireError};

use super::blocks::{Available, BlockSource, Deck, Geometry, Random};
use super::framing::{BlockHeader, Frame, Framing, FramingError};
use super::latency::Latency;
use super::verify::{Expected, Passage, Verdict, Verifier};

/// A keep-alive is sent after this long without anything else: seeds drop silent peers after 2
/// minutes.
const KEEP_ALIVE_NS: u64 = 60_000_000_000;

/// Requests that are answered by nothing for this long mean that the seed has lost them.
const STALL_NS: u64 = 30_000_000_000;

/// The extension handshake (BEP 10) of a client that has no extensions.
const EXTENSION_HANDSHAKE: &[u8] = b"d1:mde1:v14:seedring-benche";

/// What all leechers of a run have in common.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The torrent to ask for.
    pub info_hash: InfoHashV1,
    /// Its sizes.
    pub geometry: Geometry,
    /// The content's hashes, if what arrives is checked against them.
    pub expected: Option<Arc<Expected>>,
    /// The length of a block, in bytes.
    pub block_bytes: u32,
    /// Requests that one leecher keeps under way.
    pub depth: usize,
    /// Whether to offer the fast extension (BEP 6).
    pub fast: bool,
    /// Whether to offer the extension protocol (BEP 10).
    pub extended: bool,
    /// Open loop: requests are made when they are due ([`Leecher::schedule`]), not when there is
    /// room.
    pub open_loop: bool,
    /// Where all leechers take their pieces from, if each piece shall be asked for once only.
    pub deck: Option<Arc<Deck>>,
}

/// How a leecher behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Asks for blocks as fast as the run wants them; only these are measured.
    Load,
    /// Asks like the others, but takes its data slowly.
    SlowReader,
    /// Stays connected and asks for nothing.
    Idle,
}

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The seed has not greeted yet.
    AwaitingHandshake,
    /// The seed has not said that it has anything.
    AwaitingPieces,
    /// The seed knows that we are interested, and chokes us.
    AwaitingUnchoke,
    /// The seed serves us.
    Unchoked,
}

/// Counts of what happened to one leecher since they were last taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Payload of blocks that were asked for, in bytes.
    pub payload_bytes: u64,
    /// Blocks received whole.
    pub blocks: u64,
    /// Times that the seed choked us while it served us.
    pub chokes: u64,
    /// Times that the seed unchoked us.
    pub unchokes: u64,
    /// Requests that the seed rejected (BEP 6).
    pub rejects: u64,
    /// Blocks that were not asked for.
    pub unrequested_blocks: u64,
    /// Pieces whose hash was the torrent's.
    pub pieces_right: u64,
    /// Pieces whose hash was not the torrent's.
    pub pieces_wrong: u64,
    /// Bytes of the pieces whose hash was not the torrent's.
    pub wrong_bytes: u64,
}

impl Tally {
    /// Adds `other` to this.
    pub fn add(&mut self, other: &Self) {
        self.payload_bytes += other.payload_bytes;
        self.blocks += other.blocks;
        self.chokes += other.chokes;
        self.unchokes += other.unchokes;
        self.rejects += other.rejects;
        self.unrequested_blocks += other.unrequested_blocks;
        self.pieces_right += other.pieces_right;
        self.pieces_wrong += other.pieces_wrong;
        self.wrong_bytes += other.wrong_bytes;
    }
}

/// Why a leecher gives a connection up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misbehaviour {
    /// The seed's greeting is none.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The seed greets for another torrent.
    #[error("the seed answered with the info-hash {found}, asked for was {wanted}")]
    OtherTorrent {
        /// The seed's.
        found: InfoHashV1,
        /// Ours.
        wanted: InfoHashV1,
    },
    /// The stream cannot be cut into messages.
    #[error(transparent)]
    Framing(#[from] FramingError),
    /// A message cannot be read.
    #[error(transparent)]
    Wire(#[from] WireError),
}

#[derive(Debug, Clone, Copy)]
struct Outstanding {
    block: BlockRequest,
    /// When the request was made, or in open loop when it should have been, in ns.
    since_ns: u64,
    passage: Passage,
}

/// See the head of this file.
pub struct Leecher {
    settings: Arc<Settings>,
    limits: FrameLimits,
    role: Role,
    peer_id: PeerId,
    stage: Stage,
    framing: Framing,
    fast: bool,
    interested: bool,
    available: Available,
    source: BlockSource,
    verifier: Option<Verifier>,
    outstanding: VecDeque<Outstanding>,
    /// Blocks that the seed dropped when it choked us, to be asked for again.
    again: VecDeque<Outstanding>,
    /// Open loop: when requests that are not made yet are due, in ns.
    due: VecDeque<u64>,
    /// The block whose payload is arriving (none if it was not asked for), and the bytes of it so
    /// far.
    arriving: Option<(Outstanding, u32)>,
    /// Messages to send ahead of requests.
    replies: Vec<u8>,
    sent_ns: u64,
    progress_ns: u64,
    tally: Tally,
}

impl Leecher {
    /// A leecher that is not connected. `seed` decides its peer id and the pieces that it asks for.
    pub fn new(settings: Arc<Settings>, role: Role, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let peer_id = peer_id(&mut random);
        let deck = settings.deck.clone();
        let source = BlockSource::new(settings.geometry, settings.block_bytes, random, deck);
        Self {
            limits: FrameLimits::for_torrent(settings.geometry.piece_count),
            role,
            peer_id,
            stage: Stage::AwaitingHandshake,
            framing: Framing::default(),
            fast: false,
            interested: false,
            available: Available::nothing(),
            source,
            verifier: settings.expected.clone().map(Verifier::new),
            outstanding: VecDeque::new(),
            again: VecDeque::new(),
            due: VecDeque::new(),
            arriving: None,
            replies: Vec::new(),
            sent_ns: 0,
            progress_ns: 0,
            tally: Tally::default(),
            settings,
        }
    }

    /// How this leecher behaves.
    pub fn role(&self) -> Role {
        self.role
    }

    /// How far its connection has come.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The payload that the arriving block still lacks, in bytes; see [`Framing::payload_left`].
    pub fn payload_left(&self) -> u32 {
        self.framing.payload_left()
    }

    /// The bytes that may be read without running into payload; see [`Framing::bytes_wanted`].
    pub fn bytes_wanted(&self) -> usize {
        self.framing.bytes_wanted()
    }

    /// Takes the counts, which begin again at 0.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Requests under way, and requests that are due and not made, with the time of the oldest, in
    /// ns.
    pub fn backlog(&self, now_ns: u64) -> (usize, usize, Option<u64>) {
        let due = self
            .due
            .iter()
            .take_while(|&&due_ns| due_ns <= now_ns)
            .count();
        let oldest = self
            .outstanding
            .iter()
            .chain(&self.again)
            .map(|request| request.since_ns);
        let oldest = oldest.chain(self.due.front().copied()).min();
        (
            self.outstanding.len(),
            due + self.again.len(),
            oldest.filter(|&ns| ns <= now_ns),
        )
    }

    /// Open loop: asks for one more block at `due_ns`. Times must not decrease.
    pub fn schedule(&mut self, due_ns: u64) {
        self.due.push_back(due_ns);
    }

    /// A connection is there: greets.
    pub fn connected(&mut self, now_ns: u64) {
        let mut reserved = Reserved::NONE;
        if self.settings.fast {
            reserved = reserved.with(ReservedBit::FAST);
        }
        if self.settings.extended {
            reserved = reserved.with(ReservedBit::EXTENSION_PROTOCOL);
        }
        let info_hash = self.settings.info_hash;
        let greeting = Handshake {
            reserved,
            info_hash,
            peer_id: self.peer_id,
        };
        self.replies.extend_from_slice(&greeting.encode());
        self.sent_ns = now_ns;
        self.progress_ns = now_ns;
    }

    /// The connection ended. What was asked for is lost; in open loop it is still due.
    pub fn disconnected(&mut self) {
        let arriving = self.arriving.take().map(|(request, _)| request);
        if self.settings.open_loop {
            let lost = self.outstanding.iter().chain(&self.again).chain(&arriving);
            self.due.extend(lost.map(|request| request.since_ns));
            self.due.make_contiguous().sort_unstable();
        }
        self.outstanding.clear();
        self.again.clear();
        self.source.abandon_piece();
        if let Some(verifier) = &mut self.verifier {
            verifier.reset();
        }
        self.stage = Stage::AwaitingHandshake;
        self.framing = Framing::default();
        self.fast = false;
        self.interested = false;
        self.available = Available::nothing();
        self.replies.clear();
    }

    /// Takes bytes from the seed, split at any point.
    pub fn received(
        &mut self,
        mut input: &[u8],
        now_ns: u64,
        latency: &mut Latency,
    ) -> Result<(), Misbehaviour> {
        // The framing lends out its own buffer; taken out of `self`, the rest of it stays usable.
        let mut framing = std::mem::take(&mut self.framing);
        let result = loop {
            match framing.next(&mut input) {
                Err(error) => break Err(error.into()),
                Ok(None) => break Ok(()),
                Ok(Some(frame)) => {
                    if let Err(error) = self.frame(&frame, now_ns, latency) {
                        break Err(error);
                    }
                }
            }
        };
        self.framing = framing;
        result
    }

    /// Says that the kernel dropped `count` bytes of payload, at most [`Leecher::payload_left`].
    pub fn skipped(&mut self, count: u32, now_ns: u64, latency: &mut Latency) {
        let last = self.framing.skip_payload(count);
        self.payload(count, None, last, now_ns, latency);
    }

    /// Appends what is to be sent now to `out`.
    pub fn fill(&mut self, now_ns: u64, out: &mut Vec<u8>) {
        let before = out.len();
        out.append(&mut self.replies);
        if self.stage == Stage::Unchoked && self.role != Role::Idle {
            if self.outstanding.is_empty() {
                self.progress_ns = now_ns;
            }
            while self.outstanding.len() < self.settings.depth {
                let Some(request) = self.next_request(now_ns) else {
                    break;
                };
                Message::Request(request.block).encode(out);
                self.outstanding.push_back(request);
            }
        }
        if out.len() > before {
            self.sent_ns = now_ns;
        }
    }

    /// To be called every now and then: keeps the connection alive. Returns whether it is stalled:
    /// the seed owes us blocks and sends nothing.
    pub fn tick(&mut self, now_ns: u64) -> bool {
        let greeted = self.stage != Stage::AwaitingHandshake;
        if greeted && now_ns.saturating_sub(self.sent_ns) >= KEEP_ALIVE_NS {
            Message::KeepAlive.encode(&mut self.replies);
        }
        self.role == Role::Load
            && self.stage == Stage::Unchoked
            && !self.outstanding.is_empty()
            && now_ns.saturating_sub(self.progress_ns) >= STALL_NS
    }

    fn next_request(&mut self, now_ns: u64) -> Option<Outstanding> {
        let due_ns = self.due.front().copied().filter(|&due_ns| due_ns <= now_ns);
        if let Some(mut request) = self.again.pop_front() {
            if !self.settings.open_loop {
                request.since_ns = now_ns;
            }
            return Some(request);
        }
        if self.settings.open_loop && due_ns.is_none() {
            return None;
        }
        let (block, starts_piece) = self.source.next(&self.available)?;
        let passage = match &mut self.verifier {
            Some(verifier) if starts_piece => verifier.begin(block.piece.0),
            Some(verifier) => verifier.latest(),
            None => Passage::default(),
        };
        if self.settings.open_loop {
            self.due.pop_front();
        }
        Some(Outstanding {
            block,
            since_ns: due_ns.unwrap_or(now_ns),
            passage,
        })
    }

    fn frame(
        &mut self,
        frame: &Frame<'_>,
        now_ns: u64,
        latency: &mut Latency,
    ) -> Result<(), Misbehaviour> {
        match *frame {
            Frame::Handshake(bytes) => self.greeted(bytes),
            Frame::KeepAlive => Ok(()),
            Frame::Message(bytes) => match wire::decode(bytes, &self.limits)? {
                Decoded::Message { message, .. } => self.message(&message),
                // The framing hands out whole messages only.
                Decoded::Incomplete { .. } => Ok(()),
            },
            Frame::Block(header) => {
                self.block(header);
                Ok(())
            }
            Frame::Payload { bytes, last } => {
                // A block is at most 128 KiB long.
                self.payload(bytes.len() as u32, Some(bytes), last, now_ns, latency);
                Ok(())
            }
        }
    }

    fn greeted(&mut self, bytes: &[u8]) -> Result<(), Misbehaviour> {
        let HandshakeStage::Complete(greeting) = handshake::parse(bytes)? else {
            return Ok(());
        };
        let wanted = self.settings.info_hash;
        if greeting.info_hash != wanted {
            return Err(Misbehaviour::OtherTorrent {
                found: greeting.info_hash,
                wanted,
            });
        }
        self.stage = Stage::AwaitingPieces;
        self.fast = self.settings.fast && greeting.reserved.fast();
        if self.fast {
            // BEP 6: what a peer has is said at once, even if it is nothing.
            Message::HaveNone.encode(&mut self.replies);
        }
        if self.settings.extended && greeting.reserved.extension_protocol() {
            let greeting = Message::Extended {
                id: 0,
                payload: EXTENSION_HANDSHAKE,
            };
            greeting.encode(&mut self.replies);
        }
        Ok(())
    }

    fn message(&mut self, message: &Message<'_>) -> Result<(), Misbehaviour> {
        let geometry = self.settings.geometry;
        match *message {
            Message::HaveAll => self.has(Available::All),
            Message::Bitfield(bits) => {
                wire::check_bitfield(bits, geometry.piece_count)?;
                self.has(Available::from_bitfield(bits, &geometry));
            }
            Message::Have(piece) => {
                let mut available = std::mem::replace(&mut self.available, Available::nothing());
                available.add(piece.0, &geometry);
                self.has(available);
            }
            Message::Unchoke => {
                self.tally.unchokes += u64::from(self.stage != Stage::Unchoked);
                self.stage = Stage::Unchoked;
            }
            Message::Choke => self.choked(),
            Message::Reject(block) => self.rejected(&block),
            // A seed asks for nothing that a leecher must answer; extensions were not offered.
            _ => {}
        }
        Ok(())
    }

    fn has(&mut self, available: Available) {
        let nothing = available == Available::nothing();
        self.available = available;
        if nothing {
            return;
        }
        if self.stage == Stage::AwaitingPieces {
            self.stage = Stage::AwaitingUnchoke;
        }
        if self.role != Role::Idle && !self.interested {
            self.interested = true;
            Message::Interested.encode(&mut self.replies);
        }
    }

    fn choked(&mut self) {
        if self.stage != Stage::Unchoked {
            return;
        }
        self.tally.chokes += 1;
        self.stage = Stage::AwaitingUnchoke;
        if !self.fast {
            // Without BEP 6 a choke drops every request silently.
            self.again.extend(self.outstanding.drain(..));
        }
    }

    fn rejected(&mut self, block: &BlockRequest) {
        self.tally.rejects += 1;
        let at = self
            .outstanding
            .iter()
            .position(|request| request.block == *block);
        let Some(request) = at.and_then(|at| self.outstanding.remove(at)) else {
            return;
        };
        if self.stage != Stage::Unchoked {
            self.again.push_back(request);
            return;
        }
        // Refused although we are unchoked: another block takes its place.
        if let Some(verifier) = &mut self.verifier {
            verifier.give_up(request.passage, block);
        }
        if self.settings.open_loop {
            let at = self
                .due
                .partition_point(|&due_ns| due_ns < request.since_ns);
            self.due.insert(at, request.since_ns);
        }
    }

    fn block(&mut self, header: BlockHeader) {
        let is_it = |request: &Outstanding| {
            let block = &request.block;
            (block.piece.0, block.begin, block.length)
                == (header.piece, header.offset, header.length)
        };
        let at = self.outstanding.iter().position(is_it);
        self.arriving = at
            .and_then(|at| self.outstanding.remove(at))
            .map(|request| (request, 0));
        self.tally.unrequested_blocks += u64::from(self.arriving.is_none());
    }

    fn payload(
        &mut self,
        count: u32,
        bytes: Option<&[u8]>,
        last: bool,
        now_ns: u64,
        latency: &mut Latency,
    ) {
        let Some((request, so_far)) = &mut self.arriving else {
            return;
        };
        self.progress_ns = now_ns;
        self.tally.payload_bytes += u64::from(count);
        if let (Some(verifier), Some(bytes)) = (&mut self.verifier, bytes) {
            let offset = request.block.begin + *so_far;
            verifier.feed(request.passage, &request.block, offset, bytes);
        }
        *so_far += count;
        if !last {
            return;
        }
        let request = *request;
        self.arriving = None;
        self.tally.blocks += 1;
        if self.role == Role::Load {
            latency.record_ns(now_ns.saturating_sub(request.since_ns));
        }
        if let Some(verifier) = &mut self.verifier {
            let verdict = verifier.complete(request.passage, &request.block);
            self.judge(verdict);
        }
    }

    fn judge(&mut self, verdict: Option<Verdict>) {
        let Some(verdict) = verdict else { return };
        if verdict.right {
            self.tally.pieces_right += 1;
        } else {
            self.tally.pieces_wrong += 1;
            self.tally.wrong_bytes += u64::from(verdict.length);
        }
    }
}

fn peer_id(random: &mut Random) -> PeerId {
    let mut id = *b"-SB0100-------------";
    for byte in &mut id[8..] {
        *byte = b'a' + random.below(26) as u8;
    }
    PeerId(id)
}

#[cfg(test)]
mod tests;
