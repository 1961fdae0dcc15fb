//! One peer connection, after the handshake: a state machine without I/O. It serves what we have;
//! what is fetched from the peer is [`crate::download`]'s, which sees the peer's messages after
//! this has, and speaks through it.
//!
//! Messages come in by [`Session::handle_message`]. What is to be sent comes out in two streams:
//! small messages, encoded ([`Session::take_control`]), and batches of blocks
//! ([`Session::next_batch`]) that the I/O layer sends without their bytes ever passing here.
//! Control goes out before the next batch, never inside one.
//!
//! Every request that is accepted is answered once: by a batch, by a reject (BEP 6), or it is
//! legally dropped (cancelled or choked without the fast extension). Limits: [`SessionConfig`].
//! Each message costs O(1), but for a bitfield, an extension message and a choke, which cost their
//! length. What a peer can make a session hold is its request queue and `control_bytes_max` plus
//! the rejects of one whole queue.
//!
//! For serving, only how many pieces the peer has matters, so no bitfield of it is kept here.
//!
//! Not here: what is fetched, whom peers are told of ([`crate::pex`]), choosing whom to unchoke
//! ([`crate::choker`]), rate limits ([`crate::rate`]).

use std::collections::VecDeque;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use proto::extension::{Extension, MessageIds, MetadataMessage, metadata_block_bytes};
use proto::ids::PieceIndex;
use proto::limits;
use proto::pex::{PexMessage, PexPeer};
use proto::wire::{BlockRequest, FrameLimits, Message};

use crate::choker::{PeerKey, PeerView, Role};
use crate::pex::Listener;
use crate::queue::{BATCH_BYTES_MAX, Batch, RequestQueue};
use crate::time::Time;

mod config;
mod disconnect;
mod messages;
mod telling;

pub use config::{PeerIdentity, PieceBits, Pieces, SessionConfig, TorrentView};
pub use disconnect::{Disconnect, DisconnectKind};
pub use telling::Heard;
use telling::SuperSeeded;

/// How long a queue keeps its memory after the last message, so that a busy one does not allocate
/// anew.
const QUEUE_SHRINK_AFTER: Duration = Duration::from_secs(10);

/// Pieces that a peer may fetch although it is choked (BEP 6), and how many it has at most to be
/// given them.
pub const ALLOWED_FAST_PIECES_MAX: usize = 10;

/// What a session has counted since its start. They only grow; the I/O layer publishes the
/// differences.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SessionCounters {
    /// Messages from the peer.
    pub messages: u64,
    /// Requests from the peer, whatever became of them.
    pub requests: u64,
    /// Requests that were put into the queue.
    pub requests_accepted: u64,
    /// Accepted requests whose block was sent.
    pub blocks_sent: u64,
    /// The bytes of content in those blocks.
    pub uploaded_bytes: u64,
    /// Requests that were refused at once by a reject.
    pub requests_refused: u64,
    /// Accepted requests that were answered by a reject later: cancelled, choked, failed.
    pub requests_rejected: u64,
    /// Accepted requests that were dropped without an answer, as BEP 3 has it: cancelled, choked,
    /// failed.
    pub requests_dropped: u64,
    /// Requests that were ignored, as BEP 3 has it: while choked, or into a full queue.
    pub requests_ignored: u64,
    /// Cancels from the peer, whether or not they found their request.
    pub cancels: u64,
    /// Chokes that we sent.
    pub chokes: u64,
    /// Unchokes that we sent.
    pub unchokes: u64,
    /// Blocks of metadata that we sent.
    pub metadata_sent: u64,
    /// Requests for metadata that we refused.
    pub metadata_refused: u64,
    /// Messages by which we told the peer of others.
    pub exchanges_sent: u64,
    /// Messages by which it told us of others.
    pub exchanges_received: u64,
    /// Those that came too soon.
    pub exchanges_ignored: u64,
}

/// One peer connection of a seed: see the module.
pub struct Session {
    config: Arc<SessionConfig>,
    torrent: Arc<TorrentView>,
    /// Which pieces we have now; starts as the torrent's.
    pieces: Pieces,
    peer: PeerIdentity,
    /// Both sides speak the fast extension.
    fast: bool,

    queue: RequestQueue,
    in_flight_blocks: u64,
    control: Vec<u8>,
    choked: bool,
    /// Requests since the peer was choked.
    choked_requests: u32,
    invalid_requests: u32,
    /// Pieces that the peer may fetch while it is choked, once it has been told so, and what is
    /// left to be sent of them.
    allowed_fast: Option<Vec<PieceIndex>>,
    allowed_fast_bytes: u64,

    interested: bool,
    /// Whether the peer chokes us.
    peer_choking: bool,
    /// How many pieces the peer says it has; haves for the same piece count again, up to the piece
    /// count.
    peer_pieces: u32,
    /// A bitfield or have-all said that the peer is complete.
    peer_complete: bool,
    /// The piece that made us complete, of which such a peer was not told.
    untold: Option<PieceIndex>,
    peer_upload_only: bool,
    peer_extensions: MessageIds,
    peer_client: Option<String>,
    peer_request_queue: Option<u32>,
    peer_listen_port: Option<NonZeroU16>,
    /// Our address as the peer sees it, and as our own socket does.
    our_ip: Option<IpAddr>,
    own_ip: Option<IpAddr>,
    /// What the peer has told of others, once it has.
    listener: Option<Box<Listener>>,
    named: Vec<PexPeer>,
    /// The port of the peer's DHT node, and whether it was told; the first one counts.
    peer_dht_port: Option<u16>,
    peer_dht_port_told: bool,
    /// Blocks are fetched from the peer.
    fetching: bool,
    /// What is to be known of a peer that is super-seeded.
    super_seeded: Option<Box<SuperSeeded>>,

    metadata_queue: VecDeque<u32>,
    metadata_in_flight: u32,
    metadata_accepted: u32,
    metadata_refused: u32,

    connected_at: Time,
    received_at: Time,
    /// Input was unwanted since `received_at`, so the peer's silence means nothing.
    input_was_unwanted: bool,
    sent_at: Time,
    /// Bytes that the I/O layer tries to send, and when the socket last took some.
    unsent_bytes: u64,
    progress_at: Time,
    /// When the peer was last of use: it asked for something or got something.
    useful_at: Time,
    unchoked_at: Time,
    uploaded_at_unchoke: u64,
    uploaded_at_round: u64,
    counters: SessionCounters,
}

impl Session {
    /// A session whose handshakes are done. Its opening messages are queued: which pieces we have,
    /// and the extension handshake.
    pub fn new(
        config: Arc<SessionConfig>,
        torrent: Arc<TorrentView>,
        peer: PeerIdentity,
        now: Time,
    ) -> Session {
        let mut session = Session::silent(config, torrent, peer, now);
        session.queue_pieces();
        session.queue_extension_handshake();
        session
    }

    /// The session of a connection over which the torrent's metadata came, so that its peer knows
    /// that we had no piece then; we must have none now. What is said anew is the extension
    /// handshake.
    pub fn continued(
        config: Arc<SessionConfig>,
        torrent: Arc<TorrentView>,
        peer: PeerIdentity,
        now: Time,
    ) -> Session {
        let mut session = Session::silent(config, torrent, peer, now);
        session.queue_extension_handshake();
        session
    }

    /// A session with nothing to say.
    fn silent(
        config: Arc<SessionConfig>,
        torrent: Arc<TorrentView>,
        peer: PeerIdentity,
        now: Time,
    ) -> Session {
        assert!(
            config.block_length_max <= BATCH_BYTES_MAX,
            "a block must fit into a batch"
        );
        if let Pieces::Some(bits) = &torrent.pieces {
            assert_eq!(
                bits.len(),
                torrent.piece_count.div_ceil(8) as usize,
                "our own bitfield"
            );
        }
        Session {
            fast: config.fast_extension && peer.reserved.fast(),
            queue: RequestQueue::new(config.requests_max),
            pieces: torrent.pieces.clone(),
            config,
            torrent,
            peer,
            in_flight_blocks: 0,
            control: Vec::new(),
            choked: true,
            choked_requests: 0,
            invalid_requests: 0,
            allowed_fast: None,
            allowed_fast_bytes: 0,
            interested: false,
            peer_choking: true,
            peer_pieces: 0,
            peer_complete: false,
            untold: None,
            peer_upload_only: false,
            peer_extensions: MessageIds::default(),
            peer_client: None,
            peer_request_queue: None,
            peer_listen_port: None,
            our_ip: None,
            own_ip: None,
            listener: None,
            named: Vec::new(),
            peer_dht_port: None,
            peer_dht_port_told: false,
            fetching: false,
            super_seeded: None,
            metadata_queue: VecDeque::new(),
            metadata_in_flight: 0,
            metadata_accepted: 0,
            metadata_refused: 0,
            connected_at: now,
            received_at: now,
            input_was_unwanted: false,
            sent_at: now,
            unsent_bytes: 0,
            progress_at: now,
            useful_at: now,
            unchoked_at: Time::default(),
            uploaded_at_unchoke: 0,
            uploaded_at_round: 0,
            counters: SessionCounters::default(),
        }
    }

    /// Says whether blocks are fetched from the peer: it may send them then.
    pub fn set_fetching(&mut self, fetching: bool) {
        self.fetching = fetching;
    }

    /// The limits to decode this peer's messages with: it may send no block while we fetch nothing,
    /// and no longer ones than we ask for.
    pub fn frame_limits(&self) -> FrameLimits {
        FrameLimits {
            block_bytes_max: if self.fetching {
                limits::BLOCK_LENGTH
            } else {
                0
            },
            ..FrameLimits::for_torrent(self.torrent.piece_count)
        }
    }

    /// Takes one message from the peer. On an error the connection is to be closed. Afterwards the
    /// I/O layer looks at [`Self::wants_unchoke`], [`Self::take_control`] and [`Self::next_batch`].
    pub fn handle_message(&mut self, message: &Message<'_>, now: Time) -> Result<(), Disconnect> {
        self.counters.messages += 1;
        self.received_at = now;
        self.input_was_unwanted = false;
        match *message {
            Message::Request(block) => self.handle_request(block, now)?,
            Message::Cancel(block) => self.handle_cancel(block),
            Message::Interested => self.interested = true,
            Message::NotInterested => self.set_not_interested(now),
            Message::Have(piece) => self.handle_have(piece, now)?,
            Message::Bitfield(bits) => self.handle_bitfield(bits, now)?,
            Message::HaveAll | Message::HaveNone => {
                self.require_fast(message)?;
                let all = matches!(message, Message::HaveAll);
                let pieces = if all { self.torrent.piece_count } else { 0 };
                self.count_statement(pieces, now)?;
                if all {
                    self.hear(|| Heard::All);
                }
                self.set_peer_pieces(pieces, now);
            }
            Message::Suggest(_) | Message::AllowedFast(_) | Message::Reject(_) => {
                // They are for one who downloads.
                self.require_fast(message)?;
            }
            Message::Piece { piece, .. } => self.handle_piece(piece, now)?,
            Message::Extended { id, payload } => self.handle_extended(id, payload, now)?,
            // Whether the peer would serve matters to the download alone; it is shown.
            Message::Choke => self.peer_choking = true,
            Message::Unchoke => self.peer_choking = false,
            Message::KeepAlive => {}
            Message::Port(port) => self.peer_dht_port = self.peer_dht_port.or(Some(port)),
            Message::Unknown { .. } => {}
        }
        self.input_was_unwanted = !self.wants_input();
        Ok(())
    }

    /// Whether to read from the peer. It is to be asked before every message, those already read
    /// included: `false` while queued control messages are over the limit, and, for a peer that
    /// cannot be sent rejects, while its request queue is full.
    pub fn wants_input(&self) -> bool {
        self.control.len() <= self.config.control_bytes_max
            && (self.fast || self.choked || self.queue.len() < self.config.requests_max)
    }

    /// Whether the peer waits to be unchoked. Where slots are free, unchoke at once.
    pub fn wants_unchoke(&self) -> bool {
        self.interested && self.choked
    }

    /// Chokes or unchokes the peer. A choke answers what is queued by rejects, or drops it where
    /// the fast extension is not spoken (BEP 3). Batches in flight still go out.
    pub fn set_choked(&mut self, choked: bool, now: Time) {
        if choked == self.choked {
            return;
        }
        self.choked = choked;
        if choked {
            self.counters.chokes += 1;
            self.choked_requests = 0;
            Message::Choke.encode(&mut self.control);
            self.give_up_queue();
        } else {
            self.counters.unchokes += 1;
            self.unchoked_at = now;
            self.uploaded_at_unchoke = self.counters.uploaded_bytes;
            Message::Unchoke.encode(&mut self.control);
        }
    }

    /// Whether the peer is one to be allowed some pieces while it is choked: it wants something,
    /// has next to nothing, and has not been allowed any before.
    pub fn wants_allowed_fast(&self) -> bool {
        self.fast
            && self.wants_unchoke()
            && self.allowed_fast.is_none()
            // It would tell of pieces.
            && !matches!(self.pieces, Pieces::Told(_))
            && (self.peer_pieces as usize) < ALLOWED_FAST_PIECES_MAX
    }

    /// Allows the peer those of `pieces` that we have (BEP 6) and whose bytes `reserve` grants:
    /// each of these bytes is sent once while it is choked.
    pub fn allow_fast(&mut self, pieces: &[PieceIndex], mut reserve: impl FnMut(u64) -> bool) {
        let mut allowed = Vec::new();
        for &piece in pieces {
            let bytes = u64::from(self.torrent.piece_length_of(piece));
            if allowed.len() < ALLOWED_FAST_PIECES_MAX && self.pieces.has(piece) && reserve(bytes) {
                Message::AllowedFast(piece).encode(&mut self.control);
                self.allowed_fast_bytes += bytes;
                allowed.push(piece);
            }
        }
        self.allowed_fast = Some(allowed);
    }

    /// Bytes of what it was allowed that the peer has not asked for while it was choked.
    pub fn allowed_fast_bytes(&self) -> u64 {
        self.allowed_fast_bytes
    }

    /// Says which pieces we have now. Queued requests for pieces that are gone are rejected, or
    /// dropped where the fast extension is not spoken. Pieces that came back need not be announced:
    /// the peer was never told that they were gone.
    pub fn set_pieces(&mut self, pieces: Pieces) {
        self.pieces = pieces;
        for _ in 0..self.queue.len() {
            let Some(block) = self.queue.pop() else { break };
            if self.pieces.has(block.piece) {
                assert!(self.queue.push(block), "it was in the queue before");
            } else {
                self.give_up(block);
            }
        }
    }

    /// Moves the queued control messages to the end of `out`; they are to be sent before the next
    /// batch.
    pub fn take_control(&mut self, out: &mut Vec<u8>) {
        self.input_was_unwanted |= !self.wants_input();
        if out.is_empty() {
            std::mem::swap(out, &mut self.control);
        } else {
            out.append(&mut self.control);
        }
        // An idle peer holds no buffer.
        self.control = Vec::new();
    }

    /// Queues a message of the download: interest, a request, a cancel, a have.
    pub fn tell(&mut self, message: &Message<'_>) {
        message.encode(&mut self.control);
    }

    /// Tells the peer that we have got `piece`, which our pieces say already (BEP 3), and which is
    /// the last one that was missing or is not.
    ///
    /// Not of the last one if the peer is a seed: it has no use for that, and Transmission 3, which
    /// remembers of an address that a seed was there, then closes each connection from it, those of
    /// another download on that host too. Who wants to know that we are complete is told by
    /// [`Self::complete`]; how far we are, the others have said.
    pub fn announce(&mut self, piece: PieceIndex, is_last: bool) {
        match is_last && self.peer_complete {
            true => self.untold = Some(piece),
            false => Message::Have(piece).encode(&mut self.control),
        }
    }

    /// Tells the peer that we have lost `piece`, as far as it understands that (BEP 54), and
    /// answers its requests for what our pieces say is not there any more.
    pub fn take_back(&mut self, piece: PieceIndex) {
        if self.untold == Some(piece) {
            self.untold = None;
        }
        if let Some(id) = self.peer_extensions.get(Extension::DontHave) {
            let payload = &piece.0.to_be_bytes()[..];
            let id = id.get();
            Message::Extended { id, payload }.encode(&mut self.control);
        }
        self.set_pieces(self.pieces.clone());
    }

    /// Tells the peer whether we only upload from now on (BEP 21).
    pub fn tell_upload_only(&mut self, upload_only: bool) {
        if let Some(id) = self.peer_extensions.get(Extension::UploadOnly) {
            let payload = &[u8::from(upload_only)][..];
            let id = id.get();
            Message::Extended { id, payload }.encode(&mut self.control);
        }
    }

    /// Says that we have all pieces now, for good: from here on this is a seed's session.
    pub fn complete(&mut self) {
        self.pieces = Pieces::All;
        self.tell_upload_only(true);
    }

    /// Whether we and peers of this torrent may tell each other of peers at all: never of a private
    /// one (BEP 27).
    pub fn may_exchange_peers(&self) -> bool {
        self.config.peer_exchange && !self.torrent.private
    }

    /// Whether the peer wants to be told of others.
    pub fn wants_exchange(&self) -> bool {
        self.may_exchange_peers() && self.peer_extensions.get(Extension::PeerExchange).is_some()
    }

    /// Tells the peer of others.
    pub fn tell_peers(&mut self, message: &PexMessage) {
        let id = self.peer_extensions.get(Extension::PeerExchange);
        if let Some(id) = id.filter(|_| self.may_exchange_peers()) {
            let mut payload = Vec::new();
            message.encode(&mut payload);
            let (id, payload) = (id.get(), &payload[..]);
            Message::Extended { id, payload }.encode(&mut self.control);
            self.counters.exchanges_sent += 1;
        }
    }

    /// The peers that the peer has told of since the last call, as far as they are to be believed.
    pub fn take_named(&mut self) -> Vec<PexPeer> {
        std::mem::take(&mut self.named)
    }

    /// The port on which the peer takes connections, if it said so.
    pub fn peer_listen_port(&self) -> Option<NonZeroU16> {
        self.peer_listen_port
    }

    /// Our address as the peer says that it sees it (BEP 10). Hearsay.
    pub fn our_ip(&self) -> Option<IpAddr> {
        self.our_ip
    }

    /// Says which address our own end of the connection has, which peers that tell of us may name.
    pub fn set_own_ip(&mut self, ip: IpAddr) {
        self.own_ip = Some(ip);
    }

    /// Whether the peer only uploads, or has everything, as far as it has told.
    pub fn is_peer_seed(&self) -> bool {
        self.peer_upload_only || self.is_peer_complete()
    }

    /// Whether the peer has every piece, as far as it has told.
    pub fn is_peer_complete(&self) -> bool {
        self.peer_pieces == self.torrent.piece_count
    }

    /// The port of the peer's DHT node (BEP 5), once.
    pub fn take_dht_port(&mut self) -> Option<u16> {
        let port = self.peer_dht_port.filter(|_| !self.peer_dht_port_told)?;
        self.peer_dht_port_told = true;
        (port != 0).then_some(port)
    }

    /// How many requests the peer queues, if it said so (`reqq`, BEP 10).
    pub fn peer_request_queue(&self) -> Option<u32> {
        self.peer_request_queue
    }

    /// How many bytes of control messages are queued.
    pub fn control_bytes(&self) -> usize {
        self.control.len()
    }

    /// What [`Self::next_batch`] would return: to ask the rate limit for the right number of bytes.
    pub fn peek_batch(&self, bytes_max: u32) -> Option<Batch> {
        self.queue.peek_batch(bytes_max)
    }

    /// Takes the next blocks to send, at most `bytes_max` bytes of content (from the rate limit).
    /// `None` if there are none, or if the first is longer than `bytes_max`. Each batch taken is to
    /// be given back once: to [`Self::batch_sent`] or to [`Self::batch_failed`].
    pub fn next_batch(&mut self, bytes_max: u32) -> Option<Batch> {
        let batch = self.queue.next_batch(bytes_max)?;
        self.in_flight_blocks += u64::from(batch.count);
        Some(batch)
    }

    /// Says that the socket has taken the whole batch.
    pub fn batch_sent(&mut self, batch: &Batch, now: Time) {
        self.take_off_flight(batch);
        self.counters.blocks_sent += u64::from(batch.count);
        self.counters.uploaded_bytes += u64::from(batch.bytes);
        self.note_sent(batch);
        self.sent_at = now;
        self.useful_at = now;
    }

    /// Says that the batch cannot be sent, and that no byte of it was: its requests are rejected,
    /// or dropped where the fast extension is not spoken.
    pub fn batch_failed(&mut self, batch: &Batch) {
        self.take_off_flight(batch);
        for block in batch.blocks() {
            self.give_up(block);
        }
    }

    /// Says that the I/O layer starts to send `bytes` (of anything) to the socket.
    pub fn send_started(&mut self, bytes: u64, now: Time) {
        if self.unsent_bytes == 0 {
            self.progress_at = now;
        }
        self.unsent_bytes = self.unsent_bytes.saturating_add(bytes);
    }

    /// Says that the socket took `bytes` of what was started.
    pub fn send_progressed(&mut self, bytes: u64, now: Time) {
        self.unsent_bytes = self.unsent_bytes.saturating_sub(bytes);
        self.progress_at = now;
        self.sent_at = now;
    }

    /// Says that for `waited` the peer took nothing because we had nothing to give: our disk was
    /// read.
    pub fn send_excused(&mut self, waited: Duration) {
        self.progress_at = self.progress_at + waited;
    }

    /// The next block of metadata (BEP 9) that the peer waits for, by its index. The answer is
    /// [`Self::send_metadata`] or [`Self::reject_metadata`].
    pub fn take_metadata_request(&mut self) -> Option<u32> {
        if self.control.len() > self.config.control_bytes_max {
            return None;
        }
        let piece = self.metadata_queue.pop_front()?;
        self.metadata_in_flight += 1;
        Some(piece)
    }

    /// Queues block `piece` of the metadata. A block of the wrong length is rejected instead.
    pub fn send_metadata(&mut self, piece: u32, block: &[u8]) {
        let total_bytes = self.torrent.metadata_bytes.unwrap_or(0);
        if metadata_block_bytes(total_bytes, piece).map(|due| due as usize) != Some(block.len()) {
            return self.reject_metadata(piece);
        }
        self.metadata_in_flight = self.metadata_in_flight.saturating_sub(1);
        self.counters.metadata_sent += 1;
        self.queue_metadata(&MetadataMessage::Data {
            piece,
            total_bytes,
            block,
        });
    }

    /// Says to the peer that it does not get block `piece` of the metadata.
    pub fn reject_metadata(&mut self, piece: u32) {
        self.metadata_in_flight = self.metadata_in_flight.saturating_sub(1);
        self.counters.metadata_refused += 1;
        self.queue_metadata(&MetadataMessage::Reject { piece });
    }

    /// When to call [`Self::handle_timeout`], unless something else happens before.
    pub fn next_timeout(&self) -> Time {
        let mut next = Time::NEVER;
        let mut at = |time: Time| next = next.min(time);
        if self.wants_input() {
            at(self.received_at + self.config.idle_timeout);
        }
        if self.unsent_bytes > 0 {
            at(self.progress_at + self.config.stall_timeout);
        } else if self.control.is_empty() {
            at(self.sent_at + self.config.keep_alive_interval);
        }
        if self.is_redundant() {
            at(self.useful_at + self.config.redundant_grace);
        }
        if self.queue.is_empty() && self.queue.memory_bytes() > 0 {
            at(self.received_at + QUEUE_SHRINK_AFTER);
        }
        next
    }

    /// Does what is due at `now`: queues a keep-alive, gives memory back, or says that the
    /// connection is to be closed. Calling it early does no harm.
    pub fn handle_timeout(&mut self, now: Time) -> Result<(), Disconnect> {
        if self.input_was_unwanted {
            // It was we who did not read.
            self.received_at = now;
            self.input_was_unwanted = !self.wants_input();
        }
        let idle = now.since(self.received_at);
        if self.wants_input() && idle >= self.config.idle_timeout {
            return Err(Disconnect::Idle {
                seconds: idle.as_secs(),
            });
        }
        let stalled = now.since(self.progress_at);
        if self.unsent_bytes > 0 && stalled >= self.config.stall_timeout {
            let bytes = self.unsent_bytes;
            return Err(Disconnect::Stalled {
                seconds: stalled.as_secs(),
                bytes,
            });
        }
        if self.is_redundant() && now.since(self.useful_at) >= self.config.redundant_grace {
            let complete = self.peer_pieces == self.torrent.piece_count;
            return Err(if complete {
                Disconnect::BothComplete
            } else {
                Disconnect::BothUploadOnly
            });
        }
        let quiet = now.since(self.sent_at) >= self.config.keep_alive_interval;
        if quiet && self.unsent_bytes == 0 && self.control.is_empty() {
            Message::KeepAlive.encode(&mut self.control);
            self.sent_at = now;
        }
        if idle >= QUEUE_SHRINK_AFTER {
            self.queue.shrink();
        }
        Ok(())
    }

    /// The peer as the choker sees it, but for what it gives us, which the download knows.
    pub fn choke_view(&self, key: PeerKey) -> PeerView {
        let uploaded = self.counters.uploaded_bytes;
        let has = u64::from(self.peer_pieces) * u64::from(self.torrent.piece_length);
        PeerView {
            key,
            role: self.role(),
            interested: self.interested,
            choked: self.choked,
            connected_at: self.connected_at,
            unchoked_at: self.unchoked_at,
            uploaded_in_round: uploaded - self.uploaded_at_round,
            uploaded_since_unchoke: uploaded - self.uploaded_at_unchoke,
            progress_bytes: uploaded.max(has).min(self.torrent.total_length),
            total_length: self.torrent.total_length,
            piece_length: self.torrent.piece_length,
            download_rate: 0,
            snubbed: false,
        }
    }

    /// What we do with the torrent.
    pub fn role(&self) -> Role {
        match &self.pieces {
            Pieces::Growing(bits) if bits.wants_more() => Role::Downloading,
            _ => Role::Seeding,
        }
    }

    /// Says that a round of the choker is over: the next view counts from here.
    pub fn start_choke_round(&mut self) {
        self.uploaded_at_round = self.counters.uploaded_bytes;
    }

    /// What was counted since the start.
    pub fn counters(&self) -> &SessionCounters {
        &self.counters
    }

    /// Who the peer is.
    pub fn peer(&self) -> &PeerIdentity {
        &self.peer
    }

    /// The name and version that the peer gave in its extension handshake; printable.
    pub fn peer_client(&self) -> Option<&str> {
        self.peer_client.as_deref()
    }

    /// How many pieces the peer says it has.
    pub fn peer_pieces(&self) -> u32 {
        self.peer_pieces
    }

    /// Whether the peer wants something of us.
    pub fn is_interested(&self) -> bool {
        self.interested
    }

    /// Whether the peer chokes us.
    pub fn is_choking(&self) -> bool {
        self.peer_choking
    }

    /// Whether we choke the peer.
    pub fn is_choked(&self) -> bool {
        self.choked
    }

    /// How many requests wait.
    pub fn queued_requests(&self) -> u32 {
        self.queue.len()
    }

    /// The requests that wait, front to back: what the peer is going to be sent next.
    pub fn queued(&self) -> impl Iterator<Item = BlockRequest> + '_ {
        self.queue.iter()
    }

    /// How many bytes the waiting requests ask for.
    pub fn queued_bytes(&self) -> u64 {
        self.queue.bytes()
    }

    /// Panics if the state contradicts itself. For tests and simulation: O(queue).
    pub fn check_invariants(&self) {
        self.queue.check_invariants();
        let counters = &self.counters;
        assert_eq!(
            counters.requests,
            counters.requests_accepted + counters.requests_refused + counters.requests_ignored,
            "each request is accepted, refused or ignored"
        );
        let answered =
            counters.blocks_sent + counters.requests_rejected + counters.requests_dropped;
        let waiting = u64::from(self.queue.len()) + self.in_flight_blocks;
        assert_eq!(
            counters.requests_accepted,
            answered + waiting,
            "each is answered once"
        );
        let is_allowed = |piece| {
            self.allowed_fast
                .as_ref()
                .is_some_and(|set| set.contains(&piece))
        };
        assert!(
            !self.choked || self.queue.iter().all(|block| is_allowed(block.piece)),
            "a choked peer has no request but for what it is allowed"
        );
        assert!(self.queue.len() <= self.config.requests_max);
        assert!(self.peer_pieces <= self.torrent.piece_count);
        assert!(self.metadata_queue.len() <= self.config.metadata_requests_max);
    }
}

#[cfg(test)]
mod tests;
