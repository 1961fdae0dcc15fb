//! One peer's connection, from its handshake to its close: a reader and a writer around one pure session.
//!
//! The path of a block: [`read_messages`] receives, [`Connection::digest`] decodes and feeds the session, which
//! checks and queues → [`write`] takes a batch within the rate limits ([`crate::allowance`]) →
//! [`crate::sending`] sends it, as pages ([`crate::splicing`]) or from a buffer ([`crate::payload`]).
//!
//! Limits: one receive and one send in flight; input stops while the session does not want it. No `.await`
//! while the session is borrowed.

use crate::allowance::Allowance;
use crate::answer_clock::AnswerClock;
use crate::closing::CloseReason;
use crate::direct::Reader;
use crate::files::OpenFile;
use crate::in_transit::InTransit;
use crate::limits::{self, Levels};
use crate::outgoing::Outgoing;
use crate::ring;
use crate::sending::send_round;
use crate::shard::Shard;
use crate::sockets;
use crate::torrent::SeededTorrent;
use engine::choker::{PeerKey, PeerView};
use engine::queue::Batch;
use engine::runs::Progress;
use engine::session::{PeerIdentity, Session, SessionCounters};
use engine::time::Time;
use proto::handshake::{self, HANDSHAKE_BYTES, Handshake, HandshakeStage};
use proto::wire::{self, Decoded};
use seedring_metrics::{Counter, Histogram};
use std::cell::{Cell, RefCell};
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_uring::net::TcpStream;

/// What a connection receives into, in bytes: 240 requests. A bitfield or an extension handshake that
/// needs more grows it, up to the frame limit of the torrent, and it shrinks back after that.
const RECEIVE_BYTES: usize = 4096;

/// Waits on our side that are worth an excuse.
const EXCUSE_MIN: Duration = Duration::from_millis(1);

/// How long a peer that goes may take to acknowledge what is on its way to it.
const SETTLE_MAX: Duration = Duration::from_secs(1);

/// How often its acknowledgements are looked at.
const SETTLE_PERIOD: Duration = Duration::from_millis(5);

/// What one peer is sent before others have their turn, in bytes. Sending without a copy never waits as long as
/// the socket takes all.
const TURN_BYTES: u32 = 1 << 20;

/// A connection whose handshake is done.
pub(crate) struct Connection {
    pub(crate) peer: SocketAddr,
    pub(crate) torrent: Arc<SeededTorrent>,
    pub(crate) session: RefCell<Session>,
    pub(crate) socket: Rc<TcpStream>,
    /// The rate limits that it is under.
    pub(crate) levels: Levels,
    /// There may be something to send.
    work: Notify,
    /// The session may take input again.
    input: Notify,
    closing: Cell<Option<CloseReason>>,
    /// Files whose pages are on their way to the peer.
    pub(crate) in_transit: RefCell<InTransit>,
    /// Where the peer was last.
    pub(crate) progress: Cell<Progress>,
    /// Bytes that the socket takes at least, as far as is known: what it had room for less what it was given since.
    pub(crate) room_bytes: Cell<usize>,
    /// Batches until its data count as being in memory: see [`crate::warming`].
    pub(crate) warmth: Cell<u32>,
    pub(crate) reader: Reader,
    clock: RefCell<AnswerClock>,
    published: Cell<SessionCounters>,
}

impl Connection {
    /// Ends the connection; operations in flight complete with an error or an end of stream.
    pub(crate) fn close(&self, reason: CloseReason) {
        if self.closing.get().is_none() {
            self.closing.set(Some(reason));
            // The socket may be broken already, which is as good.
            let _ = self.socket.shutdown(Shutdown::Both);
        }
        self.work.notify_one();
        self.input.notify_one();
    }

    /// Ends the connection and drops what is queued in its socket.
    pub(crate) fn abort(&self, reason: CloseReason) {
        sockets::abort(&*self.socket);
        self.close(reason);
    }

    /// Whether pages of `file` are on their way to the peer.
    pub(crate) fn sends_pages_of(&self, file: &Rc<OpenFile>) -> bool {
        self.in_transit.borrow_mut().holds(&*self.socket, file)
    }

    /// Whether pages of `file` wait for the peer to acknowledge them.
    pub(crate) fn awaits_acknowledgement(&self, file: &Rc<OpenFile>) -> bool {
        self.in_transit.borrow().awaits(&*self.socket, file)
    }

    /// Why it is being closed, if it is.
    pub(crate) fn closing(&self) -> Option<CloseReason> {
        self.closing.get()
    }

    /// Chokes or unchokes the peer.
    pub(crate) fn set_choked(&self, shard: &Shard, choked: bool, now: Time) {
        let mut session = self.session.borrow_mut();
        session.set_choked(choked, now);
        // At once: the shard decides by the number of unchoked peers.
        self.publish(shard, &session);
        self.work.notify_one();
    }

    /// The peer as the choker sees it.
    pub(crate) fn choke_view(&self, key: usize) -> PeerView {
        self.session.borrow().choke_view(PeerKey(key as u64))
    }

    /// Does what the session's timeouts ask for.
    pub(crate) fn look_at_timeout(&self, now: Time) {
        self.in_transit.borrow_mut().forget_arrived(&*self.socket);
        let mut session = self.session.borrow_mut();
        if session.next_timeout() > now {
            return;
        }
        let outcome = session.handle_timeout(now);
        drop(session);
        match outcome {
            Ok(()) => self.work.notify_one(),
            Err(disconnect) => {
                tracing::debug!(peer = %self.peer, %disconnect, "closing");
                self.close(CloseReason::of_session(&disconnect));
            }
        }
    }

    /// Feeds whole messages of `input` to the session as long as it wants them. Returns how many bytes they
    /// took and how many the next message needs in all.
    fn digest(&self, shard: &Shard, input: &[u8]) -> Result<(usize, usize), CloseReason> {
        let now = shard.now();
        let mut session = self.session.borrow_mut();
        let limits = session.frame_limits();
        let mut consumed = 0;
        let mut needed = 0;
        while session.wants_input() {
            match wire::decode(&input[consumed..], &limits) {
                Ok(Decoded::Message {
                    message,
                    consumed: bytes,
                }) => {
                    consumed += bytes;
                    shard.count_message(&message);
                    session
                        .handle_message(&message, now)
                        .map_err(|disconnect| {
                            tracing::debug!(peer = %self.peer, %disconnect, "closing");
                            CloseReason::of_session(&disconnect)
                        })?;
                }
                Ok(Decoded::Incomplete { needed: bytes }) => {
                    needed = bytes;
                    break;
                }
                Err(error) => {
                    tracing::debug!(peer = %self.peer, %error, "closing");
                    return Err(CloseReason::Misbehaved);
                }
            }
        }
        let accepted = session.counters().requests_accepted;
        self.clock.borrow_mut().accepted(accepted, Instant::now());
        if session.wants_unchoke() && shard.claim_slot(session.role()) {
            session.set_choked(false, now);
            // Also when no message was whole: the slot may have become free since the last one.
            self.work.notify_one();
        }
        self.publish(shard, &session);
        Ok((consumed, needed))
    }

    /// Says to the session that `batch` has been sent, and counts it.
    pub(crate) fn batch_sent(&self, shard: &Shard, batch: &Batch) {
        let mut session = self.session.borrow_mut();
        session.batch_sent(batch, shard.now());
        let counters = session.counters();
        let answered =
            counters.blocks_sent + counters.requests_rejected + counters.requests_dropped;
        if let Some(waited) = self.clock.borrow_mut().answered(answered, Instant::now()) {
            shard.cells.record(Histogram::RequestDuration, waited);
        }
        self.torrent.add_uploaded(u64::from(batch.bytes));
        self.publish(shard, &session);
    }

    /// Notes that `bytes` are about to be given to the socket.
    pub(crate) fn send_started(&self, shard: &Shard, bytes: usize) {
        let now = shard.now();
        self.session.borrow_mut().send_started(bytes as u64, now);
    }

    /// Notes that the socket was given `bytes` of them.
    pub(crate) fn given(&self, shard: &Shard, bytes: usize) {
        self.in_transit.borrow_mut().given(bytes);
        self.room_bytes
            .set(self.room_bytes.get().saturating_sub(bytes));
        let now = shard.now();
        self.session.borrow_mut().send_progressed(bytes as u64, now);
    }

    /// Notes that since `start` it was not the peer who kept us waiting.
    pub(crate) fn excuse_since(&self, shard: &Shard, start: Time) {
        let waited = shard.now().since(start);
        if waited >= EXCUSE_MIN {
            self.session.borrow_mut().send_excused(waited);
        }
    }

    /// Waits until the peer has acknowledged the pages that are on their way to it, or drops them: as long as they
    /// are, their files must be neither closed nor left to a writer.
    async fn settle(&self, shard: &Shard) {
        let until = Instant::now() + SETTLE_MAX;
        // A batch that was broken off is not on its way any more.
        self.in_transit.borrow_mut().cut();
        while self.in_transit.borrow_mut().awaits_any(&*self.socket) {
            if Instant::now() >= until {
                sockets::abort(&*self.socket);
                break;
            }
            tokio::time::sleep(SETTLE_PERIOD).await;
        }
        self.in_transit.borrow_mut().hand_over(&shard.lingering);
    }

    /// Adds to the shard's cells what the session has counted since the last time.
    pub(crate) fn publish(&self, shard: &Shard, session: &Session) {
        let now = *session.counters();
        let before = self.published.replace(now);
        shard.count_session(&before, &now);
    }
}

/// Serves an accepted socket until it closes, and returns why it did.
pub(crate) async fn serve(
    shard: &Rc<Shard>,
    socket: Rc<TcpStream>,
    peer: SocketAddr,
    admission: &mut limits::Admission,
) -> CloseReason {
    let accepted = Instant::now();
    let (theirs, torrent) = match greet_in_time(shard, &socket).await {
        Ok(greeted) => greeted,
        Err(reason) => return reason,
    };
    admission.greeted();
    shard.cells.increment(Counter::Handshakes);
    shard
        .cells
        .record(Histogram::HandshakeDuration, accepted.elapsed());
    let identity = PeerIdentity {
        peer_id: theirs.peer_id,
        reserved: theirs.reserved,
        ip: Some(peer.ip()),
    };
    let now = shard.now();
    let session = Session::new(shard.session_config(), torrent.view(), identity, now);
    let is_near = sockets::is_near(&*socket, peer.ip());
    let connection = Rc::new(Connection {
        peer,
        levels: shard.rates.levels(&torrent, peer.ip(), now),
        torrent,
        session: RefCell::new(session),
        socket,
        work: Notify::new(),
        input: Notify::new(),
        closing: Cell::new(None),
        in_transit: RefCell::new(InTransit::new(is_near)),
        progress: Cell::default(),
        room_bytes: Cell::new(0),
        warmth: Cell::new(0),
        reader: Reader::default(),
        clock: RefCell::default(),
        published: Cell::default(),
    });
    let _registered = shard.register(&connection);
    let read = async {
        let reason = read_messages(shard, &connection).await;
        connection.close(reason);
    };
    let write = async {
        let reason = write(shard, &connection).await;
        connection.close(reason);
    };
    tokio::join!(read, write);
    connection.settle(shard).await;
    connection.publish(shard, &connection.session.borrow());
    connection.closing().unwrap_or(CloseReason::PeerClosed)
}

/// [`greet`] within the handshake timeout.
async fn greet_in_time(
    shard: &Shard,
    socket: &Rc<TcpStream>,
) -> Result<(Handshake, Arc<SeededTorrent>), CloseReason> {
    let mut greeting = pin!(greet(shard, socket));
    match timeout(shard.config.handshake_timeout, &mut greeting).await {
        Ok(greeted) => greeted,
        Err(_elapsed) => {
            // Ends the receive that is in flight. It is waited for, so that whoever waits for this
            // connection to go finds nothing of it in the ring.
            let _ = socket.shutdown(Shutdown::Both);
            let _ = greeting.await;
            Err(CloseReason::HandshakeTimeout)
        }
    }
}

/// Receives the peer's handshake and finds its torrent.
async fn greet(
    shard: &Shard,
    socket: &Rc<TcpStream>,
) -> Result<(Handshake, Arc<SeededTorrent>), CloseReason> {
    let mut buffer = Vec::with_capacity(HANDSHAKE_BYTES);
    loop {
        match receive(socket, &mut buffer, HANDSHAKE_BYTES).await {
            Ok(0) => return Err(CloseReason::PeerClosed),
            Ok(count) => shard
                .cells
                .add(Counter::ProtocolBytesReceived, count as u64),
            Err(error) => return Err(CloseReason::of_socket(&error)),
        }
        // A stream that is not BitTorrent, an encrypted one included, shows at its first wrong byte, and an
        // unknown torrent after 48 bytes: both close at once.
        match handshake::parse(&buffer).map_err(|_| CloseReason::HandshakeInvalid)? {
            HandshakeStage::Incomplete { .. } => {}
            HandshakeStage::InfoHash { info_hash, .. } => {
                shard
                    .torrent(info_hash)
                    .ok_or(CloseReason::UnknownTorrent)?;
            }
            HandshakeStage::Complete(theirs) => {
                if theirs.peer_id == shard.config.peer_id {
                    return Err(CloseReason::SelfConnection);
                }
                let torrent = shard.torrent(theirs.info_hash);
                return Ok((theirs, torrent.ok_or(CloseReason::UnknownTorrent)?));
            }
        }
    }
}

/// Receives and decodes messages into the session until the connection ends.
async fn read_messages(shard: &Shard, connection: &Connection) -> CloseReason {
    let mut buffer: Vec<u8> = Vec::with_capacity(RECEIVE_BYTES);
    loop {
        let (consumed, needed) = match connection.digest(shard, &buffer) {
            Ok(digested) => digested,
            Err(reason) => return reason,
        };
        if consumed > 0 {
            buffer.drain(..consumed);
            connection.work.notify_one();
        }
        if !connection.session.borrow().wants_input() {
            connection.input.notified().await;
            if connection.closing().is_some() {
                return CloseReason::PeerClosed;
            }
            continue;
        }
        fit(&mut buffer, needed);
        match receive(&connection.socket, &mut buffer, usize::MAX).await {
            Ok(0) => return CloseReason::PeerClosed,
            Ok(count) => shard
                .cells
                .add(Counter::ProtocolBytesReceived, count as u64),
            Err(error) => return CloseReason::of_socket(&error),
        }
    }
}

/// Waits for bytes and receives them into the free capacity of `buffer`, at most up to `length_max` in it.
async fn receive(
    socket: &Rc<TcpStream>,
    buffer: &mut Vec<u8>,
    length_max: usize,
) -> io::Result<usize> {
    loop {
        let (ready, _socket) = ring::poll(Rc::clone(socket), libc::POLLIN).await;
        ready?;
        match sockets::receive(&**socket, buffer, length_max) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            received => return received,
        }
    }
}

/// Gives the buffer room for the `needed` bytes of the message at its start, and no more than that.
fn fit(buffer: &mut Vec<u8>, needed: usize) {
    let wanted = needed.max(RECEIVE_BYTES);
    if buffer.capacity() < wanted {
        buffer.reserve_exact(wanted - buffer.len());
    } else if buffer.capacity() > wanted && buffer.len() < wanted {
        buffer.shrink_to(wanted);
    }
}

/// Sends what the session has to say until the connection ends.
async fn write(shard: &Shard, connection: &Connection) -> CloseReason {
    let mut outgoing = Outgoing::new();
    let ours = shard.our_handshake(connection.torrent.info_hash());
    outgoing.control_mut().extend_from_slice(&ours.encode());
    let mut allowance = Allowance::new(shard, connection);
    let mut turn_bytes = 0;
    loop {
        if let Some(reason) = connection.closing() {
            return reason;
        }
        if connection.torrent.is_stopped() {
            return CloseReason::TorrentStopped;
        }
        take_control(connection, outgoing.control_mut());
        let batch = allowance.next_batch();
        if batch.is_none() && outgoing.control_mut().is_empty() {
            tokio::select! {
                () = allowance.arrive() => {}
                () = connection.work.notified() => {}
            }
            continue;
        }
        let round = pin!(send_round(shard, connection, outgoing, batch.as_ref()));
        let sent;
        (sent, outgoing) = allowance.arrive_during(round).await;
        if let Err(reason) = sent {
            return reason;
        }
        connection.input.notify_one();
        turn_bytes += batch.map_or(0, |batch| batch.bytes);
        if turn_bytes >= TURN_BYTES {
            turn_bytes = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// Moves the session's control messages, and the metadata that the peer asked for, to `control`.
fn take_control(connection: &Connection, control: &mut Vec<u8>) {
    let mut session = connection.session.borrow_mut();
    while let Some(piece) = session.take_metadata_request() {
        match connection.torrent.metadata_block(piece) {
            Some(block) => session.send_metadata(piece, block),
            None => session.reject_metadata(piece),
        }
    }
    session.take_control(control);
}
