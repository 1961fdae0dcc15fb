//! One peer's connection, from its handshake to its close: a reader and a writer around one pure
//! session.
//!
//! The path of a block: [`read_messages`] receives, [`Connection::digest`] decodes and feeds the
//! session, which checks and queues → [`write`] takes a batch within the rate limits
//! ([`crate::allowance`]) → [`crate::sending`] sends it, as pages ([`crate::splicing`]) or from a
//! buffer ([`crate::payload`]).
//!
//! Limits: one receive and one send in flight; input stops while the session does not want it. No
//! `.await` while the session is borrowed.

use crate::allowance::Allowance;
use crate::allowed_fast;
use crate::answer_clock::AnswerClock;
use crate::closing::CloseReason;
use crate::direct::Reader;
use crate::exchange::Exchange;
use crate::fetch::home::ActiveFetch;
use crate::fetch::members::Applicant;
use crate::fetch::receiving::{self, Fetching};
use crate::files::OpenFile;
use crate::greeting::{NotGreeted, await_torrent, greet_in_time};
use crate::in_transit::InTransit;
use crate::limits::Levels;
use crate::outgoing::Outgoing;
use crate::presence::{PeerPlace, Speeds};
use crate::ring;
use crate::roster::TorrentUse;
use crate::sending::send_round;
use crate::shard::{Shard, Visit};
use crate::sockets;
use crate::super_seeding::{Following, Part};
use crate::torrent::SeededTorrent;
use engine::choker::{PeerKey, PeerView};
use engine::peer_list::PeerSource;
use engine::queue::Batch;
use engine::runs::Progress;
use engine::session::{PeerIdentity, Session, SessionCounters};
use engine::time::Time;
use proto::handshake::Handshake;
use proto::ids::InfoHashV1;
use proto::wire::{self, Decoded, Message};
use seedring_metrics::{Counter, Histogram};
use std::cell::{Cell, RefCell};
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_uring::net::TcpStream;

/// What a connection receives into, in bytes: 240 requests. A bitfield or an extension handshake
/// that needs more grows it, up to the frame limit of the torrent, and it shrinks back after that.
const RECEIVE_BYTES: usize = 4096;

/// Waits on our side that are worth an excuse.
const EXCUSE_MIN: Duration = Duration::from_millis(1);

/// How long a peer that goes may take to acknowledge what is on its way to it.
const SETTLE_MAX: Duration = Duration::from_secs(1);

/// How often its acknowledgements are looked at.
const SETTLE_PERIOD: Duration = Duration::from_millis(5);

/// What one peer is sent before others have their turn, in bytes. Sending without a copy never
/// waits as long as the socket takes all.
const TURN_BYTES: u32 = 1 << 20;

/// A connection whose handshake is done.
pub(crate) struct Connection {
    pub(crate) peer: SocketAddr,
    /// Who named the peer; [`PeerSource::Incoming`] if it came by itself, now or before.
    pub(crate) source: PeerSource,
    pub(crate) torrent: TorrentUse,
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
    /// Bytes that the socket takes at least, as far as is known: what it had room for less what it
    /// was given since.
    pub(crate) room_bytes: Cell<usize>,
    /// Batches until its data count as being in memory: see [`crate::warming`].
    pub(crate) warmth: Cell<u32>,
    pub(crate) reader: Reader,
    clock: RefCell<AnswerClock>,
    published: Cell<SessionCounters>,
    /// The download that it serves, if the torrent was not complete when the peer came.
    pub(crate) fetching: Option<Fetching>,
    pub(crate) exchange: Exchange,
    /// Its part in super-seeding, if it is told of pieces one after another.
    pub(crate) part: Option<Part>,
    place: PeerPlace,
    pub(crate) speeds: Speeds,
}

impl Connection {
    /// Has the writer look for what there is to send.
    pub(crate) fn wake_writer(&self) {
        self.work.notify_one();
    }

    /// Waits until the session may take input again.
    pub(crate) async fn input(&self) {
        self.input.notified().await;
    }

    /// Ends the connection; operations in flight complete with an error or an end of stream.
    pub(crate) fn close(&self, reason: CloseReason) {
        if self.closing.get().is_none() {
            self.closing.set(Some(reason));
            self.place.leave();
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
    pub(crate) fn choke_view(&self, key: usize, now: Time) -> PeerView {
        let mut view = self.session.borrow().choke_view(PeerKey(key as u64));
        if let Some(fetching) = &self.fetching {
            view.download_rate = fetching.meter.borrow_mut().rate(now);
            let download = fetching.fetch.download.borrow();
            view.snubbed = download.is_snubbed(fetching.key);
        }
        view
    }

    /// Does what is due after messages of the peer were taken.
    pub(crate) fn after_input(&self, shard: &Shard, now: Time) {
        let mut session = self.session.borrow_mut();
        self.note_input(shard, &mut session, now);
        drop(session);
        self.work.notify_one();
    }

    /// Times what was accepted, unchokes the peer if it may be at once, and counts.
    fn note_input(&self, shard: &Shard, session: &mut Session, now: Time) {
        let accepted = session.counters().requests_accepted;
        self.clock.borrow_mut().accepted(accepted, Instant::now());
        if session.wants_unchoke() && shard.claim_slot(session.role()) {
            session.set_choked(false, now);
            // Also when no message was whole: the slot may have become free since the last one.
            self.work.notify_one();
        } else if session.wants_allowed_fast() {
            let (torrent, layout) = (&self.torrent, self.torrent.layout());
            let count = allowed_fast::count(layout.piece_length());
            let (address, pieces) = (self.peer.ip(), layout.piece_count());
            let allowed = allowed_fast::pieces(address, torrent.info_hash(), pieces, count);
            let given = &shard.limits.allowed_fast;
            session.allow_fast(&allowed, |bytes| given.reserve(address, bytes, now));
            self.work.notify_one();
        }
        self.publish(shard, session);
    }

    /// Whether we began the connection.
    pub(crate) fn is_called(&self) -> bool {
        self.exchange.is_called()
    }

    /// Keeps what is known of the peer in numbers, and closes it where its torrent has more than it
    /// may.
    fn look_at_place(&self, now: Time) {
        let session = self.session.borrow();
        self.place.set_seed(session.is_peer_seed());
        let sent = session.counters().uploaded_bytes;
        drop(session);
        self.speeds.up.look(sent, now);
        if let Some(fetching) = &self.fetching {
            self.speeds.down.look(fetching.given_bytes.get(), now);
        }
        let peers_max = self.torrent.limits().peers_max();
        if peers_max.is_some_and(|max| self.place.give_way(max)) {
            self.close(CloseReason::Full);
        }
    }

    /// Does what the session's timeouts ask for, and tells the peer of others. Once a second.
    pub(crate) fn look_at_timeout(&self, now: Time) {
        self.look_at_place(now);
        self.in_transit.borrow_mut().forget_arrived(&*self.socket);
        if self.exchange.look(self, now) {
            self.work.notify_one();
        }
        let mut session = self.session.borrow_mut();
        if let Some(part) = &self.part
            && part.look(&mut session, now)
        {
            self.work.notify_one();
        }
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

    /// Feeds whole messages of `input` to the session as long as it wants them. Returns how many
    /// bytes they took and how many the next message needs in all.
    fn digest(&self, shard: &Rc<Shard>, input: &[u8]) -> Result<(usize, usize), CloseReason> {
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
                    if let Some(port) = session.take_dht_port() {
                        shard.heard_of_node(self.peer, port);
                    }
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
        let told = session.take_named();
        self.note_input(shard, &mut session, now);
        let heard = self.part.as_ref().map(|part| (part, session.take_heard()));
        drop(session);
        if !told.is_empty() {
            shard.take_told(&self.torrent, &told);
        }
        if let Some((part, heard)) = heard.filter(|(_, heard)| !heard.is_empty()) {
            part.heard(heard, now);
        }
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
        let heard = self.part.as_ref().map(|part| (part, session.take_heard()));
        drop(session);
        if let Some((part, heard)) = heard.filter(|(_, heard)| !heard.is_empty()) {
            part.heard(heard, shard.now());
        }
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

    /// Waits until the peer has acknowledged the pages that are on their way to it, or drops them:
    /// as long as they are, their files must be neither closed nor left to a writer.
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

/// A socket whose peer wants a torrent that another shard downloads.
pub(crate) struct Elsewhere {
    pub(crate) home: usize,
    /// What was received of it.
    pub(crate) received: Vec<u8>,
}

/// How the serving of an accepted socket ended.
pub(crate) enum Served {
    /// It is closed.
    Closed(CloseReason),
    /// It is to go on elsewhere.
    Elsewhere(Elsewhere),
}

/// A socket and what is known of it before the handshake.
struct Caller<'a> {
    socket: Rc<TcpStream>,
    peer: SocketAddr,
    visit: &'a mut Visit,
    /// Whether we began the connection.
    is_called: bool,
    /// Who named the peer to us; [`PeerSource::Incoming`] if it came by itself, now or before.
    source: PeerSource,
    /// What has come behind its handshake, if the torrent's metadata came over it: it knows that we
    /// had no piece.
    continued: Option<Vec<u8>>,
}

/// Serves an accepted socket, of which `received` has come already, until it closes; says why it
/// did, or where it belongs.
pub(crate) async fn serve(
    shard: &Rc<Shard>,
    socket: Rc<TcpStream>,
    peer: SocketAddr,
    visit: &mut Visit,
    mut received: Vec<u8>,
) -> Served {
    let accepted = Instant::now();
    let mut greeted = greet_in_time(shard, &socket, &mut received).await;
    if !matches!(
        greeted,
        Err(NotGreeted::Closed(_) | NotGreeted::Elsewhere(_))
    ) {
        let took = accepted.elapsed();
        shard.cells.record(Histogram::HandshakeDuration, took);
    }
    if let Err(NotGreeted::Dormant(theirs)) = greeted {
        greeted = await_torrent(shard, visit, peer.ip(), theirs).await;
    }
    let (theirs, torrent) = match greeted {
        Ok(greeted) => greeted,
        Err(NotGreeted::Closed(reason)) => return Served::Closed(reason),
        Err(NotGreeted::Elsewhere(home)) => return Served::Elsewhere(Elsewhere { home, received }),
        Err(NotGreeted::Dormant(_)) => return Served::Closed(CloseReason::Asleep),
        Err(NotGreeted::Resolving(theirs, exchange)) => {
            let visited = exchange.visited(shard, (socket, peer), visit, theirs);
            return Served::Closed(Box::pin(visited).await);
        }
    };
    let caller = Caller {
        socket,
        peer,
        visit,
        is_called: false,
        source: PeerSource::Incoming,
        continued: None,
    };
    shard.count_found_for(&torrent, PeerSource::Incoming, true);
    Served::Closed(converse(shard, caller, theirs, torrent).await)
}

/// Greets a peer that we called for a torrent, drops `begun`, and serves the connection until it
/// closes; returns why it did.
pub(crate) async fn call<B>(
    shard: &Rc<Shard>,
    socket: Rc<TcpStream>,
    (peer, source): (SocketAddr, PeerSource),
    visit: &mut Visit,
    info_hash: InfoHashV1,
    begun: B,
) -> CloseReason {
    let ours = shard.our_handshake(info_hash).encode();
    if let Err(error) = sockets::send_first(&*socket, &ours) {
        return CloseReason::of_socket(&error);
    }
    let mut received = Vec::new();
    let (theirs, torrent) = match greet_in_time(shard, &socket, &mut received).await {
        Ok(greeted) => greeted,
        Err(NotGreeted::Closed(reason)) => return reason,
        // Not what it was called for: that is used while it is called.
        Err(_) => return CloseReason::UnknownTorrent,
    };
    if theirs.info_hash != info_hash {
        return CloseReason::UnknownTorrent;
    }
    drop(begun);
    let caller = Caller {
        socket,
        peer,
        visit,
        is_called: true,
        source,
        continued: None,
    };
    converse(shard, caller, theirs, torrent).await
}

/// A connection over which a torrent's metadata were asked for, and nothing else was.
pub(crate) struct Opened {
    pub(crate) socket: Rc<TcpStream>,
    pub(crate) peer: SocketAddr,
    /// Who named the peer.
    pub(crate) source: PeerSource,
    /// Whether we began the connection.
    pub(crate) is_called: bool,
    pub(crate) theirs: Handshake,
    /// What came behind the handshake and counts in a download.
    pub(crate) received: Vec<u8>,
}

/// Goes on with a connection for `fetch`, which has no piece yet, until it closes; returns why it
/// did.
pub(crate) async fn go_on(
    shard: &Rc<Shard>,
    opened: Opened,
    visit: &mut Visit,
    fetch: &ActiveFetch,
) -> CloseReason {
    let caller = Caller {
        socket: opened.socket,
        peer: opened.peer,
        visit,
        is_called: opened.is_called,
        source: opened.source,
        continued: Some(opened.received),
    };
    let Some(torrent) = shard.roster.claim(&fetch.torrent) else {
        return CloseReason::TorrentStopped;
    };
    converse(shard, caller, opened.theirs, torrent).await
}

/// Joins the download that a torrent is, if it is not complete.
fn join_fetch(
    shard: &Shard,
    torrent: &SeededTorrent,
    caller: &Caller<'_>,
    theirs: &Handshake,
) -> Result<Option<Fetching>, CloseReason> {
    if torrent.is_complete() {
        return Ok(None);
    }
    let fetch = shard.fetch(torrent.info_hash());
    let fetch = fetch.ok_or(CloseReason::UnknownTorrent)?;
    let applicant = Applicant {
        address: caller.peer,
        peer_id: theirs.peer_id,
        is_called: caller.is_called,
        is_of_this_machine: sockets::is_of_this_machine(&*caller.socket, caller.peer.ip()),
    };
    if let Some(reason) = fetch.refuses(shard, &applicant) {
        return Err(reason);
    }
    Ok(Some(Fetching::new(fetch, shard.now())))
}

/// Serves a peer whose handshake is done until the connection closes, and returns why it did.
async fn converse(
    shard: &Rc<Shard>,
    mut caller: Caller<'_>,
    theirs: Handshake,
    torrent: TorrentUse,
) -> CloseReason {
    caller.visit.greeted();
    // One over which the metadata came was counted when its handshake was done.
    if caller.continued.is_none() {
        shard.cells.increment(Counter::Handshakes);
    }
    let fetching = match join_fetch(shard, &torrent, &caller, &theirs) {
        Ok(fetching) => fetching,
        Err(reason) => return reason,
    };
    // Who is a peer of a download is decided there.
    let peers_max = torrent.limits().peers_max();
    let peers_max = peers_max.filter(|_| fetching.is_none());
    let Some(place) = PeerPlace::enter(&torrent, caller.source, peers_max) else {
        return CloseReason::Full;
    };
    let called = caller.is_called.then_some(caller.peer);
    let is_introduced = caller.is_called || caller.continued.is_some();
    let is_seeding = fetching.is_none() && caller.continued.is_none();
    let part = is_seeding.then(|| {
        let chance = shard
            .config
            .peer_id
            .0
            .iter()
            .fold(0, |sum: u64, byte| sum.rotate_left(7) ^ u64::from(*byte));
        let (address, room) = (caller.peer.ip(), &shard.limits.super_seeding);
        let chance = chance ^ torrent.id();
        Part::enter(&torrent, address, room, chance, shard.now())
    });
    let part = part.flatten();
    let begun = Begun {
        is_fetching: fetching.is_some(),
        is_super_seeded: part.is_some(),
    };
    let session = begin_session(shard, &caller, &theirs, &torrent, begun);
    let received = caller.continued.take().unwrap_or_default();
    let connection = connect(shard, caller, session, (torrent, place), (fetching, part));
    let _following = Following::begin(&connection);
    let _registered = shard.register(&connection);
    let fast = theirs.reserved.fast() && shard.session_config().fast_extension;
    let _joined = connection
        .fetching
        .as_ref()
        .map(|fetching| fetching.join(shard, &connection, fast, called));
    let read = async {
        let reason = match &connection.fetching {
            Some(fetching) => receiving::read_blocks(shard, &connection, fetching, received).await,
            None => read_messages(shard, &connection, received).await,
        };
        connection.close(reason);
    };
    let write = async {
        let reason = write(shard, &connection, is_introduced).await;
        connection.close(reason);
    };
    tokio::join!(read, write);
    connection.settle(shard).await;
    let session = connection.session.borrow();
    let unfetched = session.allowed_fast_bytes();
    if unfetched > 0 {
        let given = &shard.limits.allowed_fast;
        given.give_back(connection.peer.ip(), unfetched);
    }
    connection.publish(shard, &session);
    drop(session);
    connection.closing().unwrap_or(CloseReason::PeerClosed)
}

/// What a session is for.
#[derive(Clone, Copy)]
struct Begun {
    is_fetching: bool,
    is_super_seeded: bool,
}

/// The session of a peer whose handshake is done.
fn begin_session(
    shard: &Shard,
    caller: &Caller<'_>,
    theirs: &Handshake,
    torrent: &SeededTorrent,
    begun: Begun,
) -> Session {
    let ip = caller.peer.ip();
    let identity = PeerIdentity {
        peer_id: theirs.peer_id,
        reserved: theirs.reserved,
        ip: Some(ip),
    };
    let begin = match &caller.continued {
        Some(_) => Session::continued,
        None if begun.is_super_seeded => Session::super_seeding,
        None => Session::new,
    };
    let mut session = begin(
        shard.session_config(),
        torrent.view(),
        identity,
        shard.now(),
    );
    session.set_fetching(begun.is_fetching);
    if let Some(own) = sockets::own_ip(&*caller.socket) {
        session.set_own_ip(own);
    }
    // Of a private torrent not even this: its peers are the tracker's business alone (BEP 27).
    if let Some(port) = shard.dht.port_for(ip)
        && theirs.reserved.dht()
        && !torrent.view().private
    {
        session.tell(&Message::Port(port));
    }
    session
}

/// The connection of a peer whose handshake is done.
fn connect(
    shard: &Shard,
    caller: Caller<'_>,
    session: Session,
    (torrent, place): (TorrentUse, PeerPlace),
    (fetching, part): (Option<Fetching>, Option<Part>),
) -> Rc<Connection> {
    let called = caller.is_called.then_some(caller.peer);
    let (socket, peer) = (caller.socket, caller.peer);
    let is_near = sockets::is_near(&*socket, peer.ip());
    Rc::new(Connection {
        peer,
        source: caller.source,
        levels: shard.rates.levels(&torrent, peer.ip(), shard.now()),
        exchange: Exchange::new(&torrent, called),
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
        fetching,
        part,
        place,
        speeds: Speeds::new(shard.now()),
    })
}

/// Receives and decodes messages into the session until the connection ends; `buffer` has come
/// already.
async fn read_messages(
    shard: &Rc<Shard>,
    connection: &Connection,
    mut buffer: Vec<u8>,
) -> CloseReason {
    fit(&mut buffer, 0);
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

/// Waits until there is something to receive.
pub(crate) async fn wait_readable(socket: &Rc<TcpStream>) -> io::Result<()> {
    let (ready, _socket) = ring::poll(Rc::clone(socket), libc::POLLIN).await;
    ready.map(drop)
}

/// Waits for bytes and receives them into the free capacity of `buffer`, at most up to `length_max`
/// in it.
pub(crate) async fn receive(
    socket: &Rc<TcpStream>,
    buffer: &mut Vec<u8>,
    length_max: usize,
) -> io::Result<usize> {
    loop {
        wait_readable(socket).await?;
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

/// Sends what the session has to say until the connection ends: first our handshake, unless the
/// peer has it.
async fn write(shard: &Shard, connection: &Connection, is_introduced: bool) -> CloseReason {
    let mut outgoing = Outgoing::new();
    if !is_introduced {
        let ours = shard.our_handshake(connection.torrent.info_hash());
        outgoing.control_mut().extend_from_slice(&ours.encode());
    }
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
