//! The fetch of an `info` dictionary from peers (BEP 9), for a magnet link: until it is here
//! nothing is known of the torrent, so these connections exchange nothing but that. When it is here
//! they wait for the download, whose they are from then on ([`connecting::keep`]): a peer that is
//! called again may still take the first connection to be alive. Peers that call us meanwhile are
//! asked as well ([`visitors`]).
//!
//! The pure [`MetadataExchange`] decides what is asked of whom and who lied; here are the
//! connections, each a task, and the hash. What peers say besides, such as which pieces they have,
//! is kept for the download as it came.
//!
//! Limits: those of downloads for connections that we begin ([`crate::fetch::FetchConfig`]), and
//! those of [`visitors`]; [`RECEIVE_BYTES`] and the longest message for what of a connection's input
//! is not decoded; [`SAID_BYTES_MAX`] of what is kept, beyond which the connection ends with the
//! metadata; [`PATIENCE`] for a peer that is of no use and does not wait for its turn. What comes
//! of metadata shares room with that of all other links ([`engine::metadata::MetadataRoom`]).

use crate::closing::CloseReason;
use crate::connection::{Opened, wait_readable};
use crate::fetch::connecting::{self, finish_connect};
use crate::fetch::troubles;
use crate::fetch::{GatheredInfo, MetadataEvent, MetadataSeat, Order};
use crate::limits::{Admission, CallPlace};
use crate::shard::{Shard, Visit};
use crate::sockets;
use engine::choker::PeerKey;
use engine::metadata::{Action, MetadataConfig, MetadataExchange, MetadataRoom};
use engine::peer_list::{PeerList, PeerListConfig, PeerSource};
use engine::time::Time;
use hash::Sha1;
use proto::extension::{Extension, ExtensionHandshake, HANDSHAKE_ID, MessageIds, MetadataMessage};
use proto::handshake::{self, HANDSHAKE_BYTES, Handshake, HandshakeStage};
use proto::ids::InfoHashV1;
use proto::limits;
use proto::wire::{self, Decoded, FrameLimits, Message};
use seedring_metrics::Counter;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::num::NonZeroU8;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_uring::net::TcpStream;

use super::Published;

mod visitors;

use visitors::Door;
pub(crate) use visitors::Resolving;

/// How often time-outs are looked at.
const TICK: Duration = Duration::from_millis(500);

/// How long a peer may be of no use before its place goes to another, or to another try: some
/// accept a connection, greet, and never say more.
const PATIENCE: Duration = Duration::from_secs(15);

/// What is received at a time, in bytes.
const RECEIVE_BYTES: usize = 20 << 10;

/// What a peer may have said that counts in a download, in bytes: the bitfield of half a million
/// pieces.
const SAID_BYTES_MAX: usize = 64 << 10;

/// What is hashed before others on the shard have their turn, in bytes.
const HASH_BYTES: usize = 1 << 20;

/// The fetch of one torrent's metadata.
pub(crate) struct Exchange {
    info_hash: InfoHashV1,
    exchange: RefCell<MetadataExchange>,
    peers: RefCell<HashMap<PeerKey, Rc<Peer>>>,
    /// Where those were who have left, but whose blocks may still turn out to be wrong: no more
    /// than there are blocks.
    departed: RefCell<HashMap<PeerKey, SocketAddr>>,
    list: RefCell<PeerList>,
    published: Arc<Published>,
    next_key: Cell<u64>,
    connections: Cell<usize>,
    /// Where those are who called us, as strangers.
    visitors: RefCell<Vec<IpAddr>>,
    news: Notify,
    /// Whether it has ended, and whether with the metadata.
    is_over: Cell<bool>,
    is_complete: Cell<bool>,
    /// Told when it has ended.
    ended: Notify,
}

/// How a call ended, as far as its address is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    /// We had no room.
    NoRoom,
    /// The address is one to keep away.
    Filtered,
    /// It came to no handshake with a peer of use.
    Failed,
    /// It did.
    Left,
}

/// What a peer has said that counts in a download: messages as they came.
#[derive(Default)]
struct Said {
    bytes: Vec<u8>,
    /// There was more than is kept.
    is_cut: bool,
}

impl Said {
    fn note(&mut self, message: &Message<'_>, encoded: &[u8]) {
        let counts = match message {
            Message::Bitfield(_) | Message::HaveAll | Message::HaveNone | Message::Have(_) => true,
            Message::Choke | Message::Unchoke => true,
            Message::Interested | Message::NotInterested => true,
            Message::AllowedFast(_) | Message::Suggest(_) => true,
            Message::Extended { id, .. } => *id == HANDSHAKE_ID,
            _ => false,
        };
        if !counts {
            return;
        }
        if self.bytes.len() + encoded.len() > SAID_BYTES_MAX {
            self.is_cut = true;
            self.bytes = Vec::new();
        } else if !self.is_cut {
            self.bytes.extend_from_slice(encoded);
        }
    }
}

/// A peer that has greeted.
struct Peer {
    socket: Rc<TcpStream>,
    address: SocketAddr,
    /// Under which id it takes messages of metadata, once it has said so.
    id: Cell<Option<NonZeroU8>>,
    /// When it was of use last: it came, offered metadata, or sent some that it was asked for.
    useful_at: Cell<Time>,
    /// It was of no use because others were asked: its time begins when it is.
    has_waited: Cell<bool>,
    said: RefCell<Said>,
}

impl Peer {
    /// Sends a message that is so short that a socket takes it, unless its peer reads nothing: that
    /// one is closed.
    fn tell(&self, message: &Message<'_>) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        if sockets::send_first(&*self.socket, &bytes).is_err() {
            self.close();
        }
    }

    /// Says that we have no piece, in place of a bitfield: BEP 6 demands it of who speaks it.
    /// Others may wait for a bitfield, which they see by any other message not to come.
    fn tell_nothing_is_here(&self, fast: bool) {
        self.tell(match fast {
            true => &Message::HaveNone,
            false => &Message::KeepAlive,
        });
    }

    fn tell_metadata(&self, message: &MetadataMessage<'_>) {
        let Some(id) = self.id.get() else { return };
        let mut payload = Vec::new();
        message.encode(&mut payload);
        let (id, payload) = (id.get(), &payload[..]);
        self.tell(&Message::Extended { id, payload });
    }

    fn close(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// Begins to fetch; peers that call us for the torrent are taken when this returns.
pub(crate) fn begin(shard: &Rc<Shard>, seat: MetadataSeat) {
    let published = Arc::clone(&seat.published);
    let exchange = Exchange::new(seat.info_hash, published, shard.resolving.room());
    let exchange = Rc::new(exchange);
    let door = Door::open(shard, &exchange);
    tokio_uring::spawn(run(Rc::clone(shard), exchange, seat, door));
}

/// Fetches until the metadata are here or nobody wants them any more.
async fn run(shard: Rc<Shard>, exchange: Rc<Exchange>, mut seat: MetadataSeat, door: Door) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !shard.is_stopping() {
        tokio::select! {
            order = seat.orders.recv() => match order {
                Some(Order::Peers(peers, source)) => {
                    exchange.add_peers(&shard, &peers, source);
                }
                Some(_) => {}
                None => break,
            },
            _ = ticks.tick() => {}
            () = exchange.news.notified() => {}
        }
        exchange.call_peers(&shard);
        if let Some(info) = exchange.drive(&shard).await {
            // Before it is told, so that none is missing when the download begins.
            exchange.end(true);
            let _ = seat.events.send(MetadataEvent::Complete(info)).await;
            drop(seat);
            // Who calls before the download begins waits for it.
            connecting::download_of(&shard, exchange.info_hash).await;
            drop(door);
            return;
        }
    }
    exchange.end(false);
}

impl Exchange {
    fn new(info_hash: InfoHashV1, published: Arc<Published>, room: Arc<MetadataRoom>) -> Exchange {
        let exchange = MetadataExchange::new(MetadataConfig::default(), room);
        Exchange {
            info_hash,
            exchange: RefCell::new(exchange),
            peers: RefCell::default(),
            departed: RefCell::default(),
            list: RefCell::new(PeerList::new(PeerListConfig::default())),
            published,
            next_key: Cell::new(1),
            connections: Cell::new(0),
            visitors: RefCell::default(),
            news: Notify::new(),
            is_over: Cell::new(false),
            is_complete: Cell::new(false),
            ended: Notify::new(),
        }
    }

    fn end(&self, is_complete: bool) {
        self.is_complete.set(is_complete);
        self.is_over.set(true);
        self.ended.notify_waiters();
    }

    fn add_peers(&self, shard: &Shard, peers: &[SocketAddr], source: PeerSource) {
        let now = shard.now();
        let mut list = self.list.borrow_mut();
        for &peer in peers {
            shard.count_found(source, list.add(peer, source, now));
        }
    }

    /// Does what the exchange wants done; returns the metadata when they are right.
    async fn drive(&self, shard: &Shard) -> Option<GatheredInfo> {
        self.exchange.borrow_mut().refill(shard.now());
        loop {
            let action = self.exchange.borrow_mut().take_action()?;
            match action {
                Action::Request { peer, block } => {
                    if let Some(peer) = self.peers.borrow().get(&peer) {
                        if peer.has_waited.take() {
                            peer.useful_at.set(shard.now());
                        }
                        peer.tell_metadata(&MetadataMessage::Request { piece: block });
                    }
                }
                Action::Check => {
                    let info = self.exchange.borrow_mut().take_info();
                    let Some(info) = info else { continue };
                    let is_right = sha1_in_turns(&info).await == self.info_hash.0;
                    self.exchange.borrow_mut().checked(is_right);
                    if is_right {
                        let place = self.exchange.borrow_mut().take_place();
                        return Some(GatheredInfo::new(info, place));
                    }
                    self.exchange.borrow_mut().refill(shard.now());
                }
                Action::Ban(peer) => self.ban(shard, peer),
            }
        }
    }

    /// Keeps a liar away, also one that has left, and closes it and whoever else is kept away by
    /// that.
    fn ban(&self, shard: &Shard, peer: PeerKey) {
        let peers = self.peers.borrow();
        let address = match peers.get(&peer) {
            Some(peer) => Some(peer.address),
            None => self.departed.borrow_mut().remove(&peer),
        };
        let mut list = self.list.borrow_mut();
        let Some(address) = address.filter(|&address| !list.is_banned(address)) else {
            return;
        };
        tracing::warn!(peer = %address, "the peer sent wrong metadata and is banned");
        list.ban(address);
        shard.cells.increment(Counter::PeersBanned);
        let trouble = troubles::WRONG_METADATA;
        self.published.note_trouble(address, trouble);
        for peer in peers.values() {
            if list.is_banned(peer.address) {
                peer.close();
            }
        }
    }

    /// A peer has gone; its address is kept for as long as it may have to be banned.
    fn depart(&self, key: PeerKey, address: SocketAddr) {
        let mut exchange = self.exchange.borrow_mut();
        exchange.peer_left(key);
        self.peers.borrow_mut().remove(&key);
        let senders = exchange.senders();
        let mut departed = self.departed.borrow_mut();
        departed.insert(key, address);
        departed.retain(|key, _| senders.contains(key));
    }

    /// Begins as many connections as may be.
    fn call_peers(self: &Rc<Self>, shard: &Rc<Shard>) {
        let config = &shard.config.fetch;
        if shard.is_cut_off() {
            let mut list = self.list.borrow_mut();
            return connecting::put_off(&mut list, &self.published, shard.now());
        }
        while self.connections.get() < config.connecting_max {
            let Some(place) = shard.limits.call(config.outgoing_max, config.half_open_max) else {
                return;
            };
            let address = self.list.borrow_mut().take(shard.now());
            let Some(address) = address else { return };
            // Asked for now, since it is forgotten when its host is banned.
            let peer = (address, self.list.borrow().source_of_taken(address));
            self.connections.set(self.connections.get() + 1);
            let (exchange, shard) = (Rc::clone(self), Rc::clone(shard));
            tokio_uring::spawn(async move {
                let outcome = exchange.call(&shard, peer, place).await;
                exchange.connections.set(exchange.connections.get() - 1);
                exchange.note_end(address, outcome, shard.now());
                exchange.news.notify_one();
            });
        }
    }

    fn note_end(&self, address: SocketAddr, outcome: Outcome, now: Time) {
        let mut list = self.list.borrow_mut();
        match outcome {
            _ if list.is_banned(address) => {}
            Outcome::NoRoom => list.postponed(address, now),
            Outcome::Filtered => list.remove(address),
            Outcome::Failed => list.failed(address, now),
            Outcome::Left => list.left(address, now),
        }
    }

    /// Converses with one peer until the connection ends.
    async fn call(
        self: &Rc<Self>,
        shard: &Rc<Shard>,
        peer: (SocketAddr, PeerSource),
        place: CallPlace,
    ) -> Outcome {
        let (address, _) = peer;
        if shard.is_filtered(address.ip()) {
            shard.cells.increment(Counter::ConnectsFiltered);
            self.published.note_trouble(address, troubles::FILTERED);
            return Outcome::Filtered;
        }
        let Ok(admission) = shard.limits.admit(address.ip()) else {
            return Outcome::NoRoom;
        };
        let socket = match sockets::begin_connect(address, &shard.config.sockets) {
            Ok(socket) => Rc::new(TcpStream::from_std(socket)),
            Err(error) if sockets::is_interface_gone(&error) => {
                let trouble = troubles::NO_INTERFACE.to_owned();
                self.published.note_trouble(address, trouble);
                return Outcome::NoRoom;
            }
            Err(error) => {
                shard.cells.increment(Counter::ConnectsRefused);
                let trouble = troubles::of_connect(&error);
                self.published.note_trouble(address, trouble);
                return Outcome::Failed;
            }
        };
        let met = self.meet(shard, peer, socket, admission, &place).await;
        match met {
            _ if shard.is_filtered(address.ip()) => Outcome::Filtered,
            Some(()) => Outcome::Left,
            None => Outcome::Failed,
        }
    }

    /// The same with a place for the connection, which has been begun. `None` if it came to no
    /// handshake.
    async fn meet(
        self: &Rc<Self>,
        shard: &Rc<Shard>,
        (address, source): (SocketAddr, PeerSource),
        socket: Rc<TcpStream>,
        admission: Admission,
        place: &CallPlace,
    ) -> Option<()> {
        let no_connection = |error: io::Error| {
            let trouble = match shard.is_filtered(address.ip()) {
                true => troubles::FILTERED.to_owned(),
                false => troubles::of_connect(&error),
            };
            self.published.note_trouble(address, trouble);
        };
        let mut visit = shard.visit(&socket, address, admission);
        let connected = finish_connect(shard, &socket, address).await;
        connected.map_err(no_connection).ok()?;
        place.connected();
        let connected_at = shard.now();
        let ended = |visit: &Visit, reason| {
            connecting::note_end(shard, address, visit, connected_at, reason);
        };
        let ours = shard.our_handshake(self.info_hash).encode();
        let sent = sockets::send_first(&*socket, &ours);
        let unsent = |error| ended(&visit, CloseReason::of_socket(&error));
        sent.map_err(unsent).ok()?;
        let greeted = self.greet(shard, &socket, &mut visit).await;
        let note = |trouble| self.published.note_trouble(address, trouble);
        let unmet = |(reason, trouble)| {
            ended(&visit, reason);
            note(trouble);
        };
        let (theirs, received) = greeted.map_err(unmet).ok()?;
        let met = Opened {
            socket: Rc::clone(&socket),
            peer: address,
            source,
            is_called: true,
            theirs,
            received,
        };
        match self.attend(shard, met).await {
            Ok(opened) => {
                connecting::keep(shard, opened, &mut visit).await;
                // A poll that nobody waits for any more may hold the socket open.
                let _ = socket.shutdown(Shutdown::Both);
            }
            Err(reason) => {
                ended(&visit, reason);
                match reason {
                    CloseReason::Banned | CloseReason::TorrentStopped => {}
                    CloseReason::Filtered => note(troubles::FILTERED),
                    _ if shard.is_cut_off() => note(troubles::GONE),
                    _ => note(troubles::NO_METADATA),
                }
            }
        }
        Some(())
    }

    /// Asks a peer that has greeted, until the metadata are here: returns its connection, with what
    /// of the peer's messages counts in a download. Else why it was closed.
    async fn attend(&self, shard: &Shard, met: Opened) -> Result<Opened, CloseReason> {
        let peer = Rc::new(Peer {
            socket: Rc::clone(&met.socket),
            address: met.peer,
            id: Cell::new(None),
            useful_at: Cell::new(shard.now()),
            has_waited: Cell::default(),
            said: RefCell::default(),
        });
        let key = PeerKey(self.next_key.get());
        self.next_key.set(key.0 + 1);
        self.peers.borrow_mut().insert(key, Rc::clone(&peer));
        self.count_peers();
        let fast = met.theirs.reserved.fast() && shard.session_config().fast_extension;
        peer.tell_nothing_is_here(fast);
        let rest = self.converse(shard, key, &peer, met.received).await;
        self.depart(key, peer.address);
        self.count_peers();
        let Said { bytes, is_cut } = peer.said.take();
        let outcome = match rest {
            // A neighbour of one that lied is of no use either.
            _ if self.list.borrow().is_banned(met.peer) => Err(CloseReason::Banned),
            _ if shard.is_filtered(met.peer.ip()) => Err(CloseReason::Filtered),
            Err(_) if self.is_over.get() => Err(CloseReason::TorrentStopped),
            Err(reason) => Err(reason),
            Ok(_) if !self.is_complete.get() || is_cut => Err(CloseReason::TorrentStopped),
            Ok(rest) => Ok([bytes, rest].concat()),
        };
        match outcome {
            Ok(received) => Ok(Opened { received, ..met }),
            Err(reason) => {
                // A poll that nobody waits for any more may hold the socket open.
                peer.close();
                Err(reason)
            }
        }
    }

    fn count_peers(&self) {
        let peers = u32::try_from(self.peers.borrow().len()).unwrap_or(u32::MAX);
        self.published.peers.store(peers, Ordering::Relaxed);
    }

    /// Receives the peer's handshake, and returns it with what came after it; else why it is of
    /// no use.
    async fn greet(
        &self,
        shard: &Shard,
        socket: &Rc<TcpStream>,
        visit: &mut Visit,
    ) -> Result<(Handshake, Vec<u8>), (CloseReason, &'static str)> {
        let mut buffer = Vec::with_capacity(RECEIVE_BYTES);
        let greeting = async {
            loop {
                let invalid = (CloseReason::HandshakeInvalid, troubles::NO_HANDSHAKE);
                match handshake::parse(&buffer).map_err(|_| invalid)? {
                    HandshakeStage::Complete(theirs) => return Ok(theirs),
                    _ => {
                        let received = receive(socket, &mut buffer).await;
                        let closed = (CloseReason::PeerClosed, troubles::CLOSED_AT_ONCE);
                        received.ok_or(closed)?;
                    }
                }
            }
        };
        let mut greeting = Box::pin(greeting);
        let theirs = match timeout(shard.config.handshake_timeout, &mut greeting).await {
            Ok(theirs) => theirs?,
            Err(_elapsed) => {
                // Ends the receive that is in flight, which is waited for.
                let _ = socket.shutdown(Shutdown::Both);
                let _ = greeting.await;
                return Err((CloseReason::HandshakeTimeout, troubles::SILENT));
            }
        };
        drop(greeting);
        if theirs.peer_id == shard.config.peer_id {
            return Err((CloseReason::SelfConnection, troubles::OURSELVES));
        }
        if theirs.info_hash != self.info_hash {
            return Err((CloseReason::UnknownTorrent, troubles::OTHER_TORRENT));
        }
        visit.greeted();
        shard.cells.increment(Counter::Handshakes);
        if !theirs.reserved.extension_protocol() {
            return Err((CloseReason::Pointless, troubles::NO_EXTENSIONS));
        }
        buffer.drain(..HANDSHAKE_BYTES.min(buffer.len()));
        Ok((theirs, buffer))
    }

    /// Takes messages of a peer until the exchange ends: returns what has come and is not decoded
    /// then. Else why the connection has ended before.
    async fn converse(
        &self,
        shard: &Shard,
        key: PeerKey,
        peer: &Peer,
        mut buffer: Vec<u8>,
    ) -> Result<Vec<u8>, CloseReason> {
        self.introduce(shard, peer);
        // The torrent's size is not known, so its bitfield may be any torrent's.
        let limits = FrameLimits {
            block_bytes_max: 0,
            ..FrameLimits::for_torrent(limits::PIECES_MAX)
        };
        loop {
            let ended = self.ended.notified();
            if self.is_over.get() {
                return Ok(buffer);
            }
            let needed = self.digest(key, peer, &mut buffer, &limits, shard.now());
            let needed = needed.ok_or(CloseReason::Misbehaved)?;
            let room = needed.max(RECEIVE_BYTES);
            buffer.reserve(room.saturating_sub(buffer.len()));
            self.news.notify_one();
            let receiving = receive(&peer.socket, &mut buffer);
            let received = tokio::select! {
                received = self.with_patience(shard, key, peer, receiving) => received,
                // What waits for the socket is left to its next event.
                () = ended => continue,
            };
            let Some(received) = received else {
                tracing::debug!(peer = %peer.address, "no metadata from it; closing");
                return Err(CloseReason::Idle);
            };
            received.ok_or(CloseReason::PeerClosed)?;
        }
    }

    /// Waits for what a peer sends for as long as it may stay; none if that is over.
    async fn with_patience<T>(
        &self,
        shard: &Shard,
        key: PeerKey,
        peer: &Peer,
        receiving: impl Future<Output = T>,
    ) -> Option<T> {
        let mut receiving = std::pin::pin!(receiving);
        loop {
            let patience = PATIENCE.saturating_sub(shard.now().since(peer.useful_at.get()));
            match timeout(patience, receiving.as_mut()).await {
                Ok(received) => return Some(received),
                Err(_elapsed) if self.bears_with(key, peer, shard.now()) => {}
                Err(_elapsed) => return None,
            }
        }
    }

    /// Whether a peer may stay although it was of no use for a while, because it waits for its turn
    /// or has just got it.
    fn bears_with(&self, key: PeerKey, peer: &Peer, now: Time) -> bool {
        if self.exchange.borrow().is_waiting(key, now) {
            peer.has_waited.set(true);
            peer.useful_at.set(now);
        }
        now.since(peer.useful_at.get()) < PATIENCE
    }

    /// Says which extensions we speak.
    fn introduce(&self, shard: &Shard, peer: &Peer) {
        let mut payload = Vec::new();
        let ours = ExtensionHandshake {
            messages: MessageIds::ours(&[Extension::Metadata]),
            client: Some(shard.session_config().client_version.clone()),
            ..ExtensionHandshake::default()
        };
        ours.encode(&mut payload);
        let (id, payload) = (HANDSHAKE_ID, &payload[..]);
        peer.tell(&Message::Extended { id, payload });
    }

    /// Takes whole messages off the front of `buffer`; returns how many bytes the next one needs.
    /// `None` if one breaks the protocol.
    fn digest(
        &self,
        key: PeerKey,
        peer: &Peer,
        buffer: &mut Vec<u8>,
        limits: &FrameLimits,
        now: Time,
    ) -> Option<usize> {
        let mut at = 0;
        loop {
            let rest = buffer.get(at..).unwrap_or_default();
            match wire::decode(rest, limits) {
                Ok(Decoded::Message { message, consumed }) => {
                    self.take(key, peer, &message, now)?;
                    let encoded = rest.get(..consumed).unwrap_or_default();
                    peer.said.borrow_mut().note(&message, encoded);
                    at += consumed;
                }
                Ok(Decoded::Incomplete { needed }) => {
                    buffer.drain(..at);
                    return Some(needed);
                }
                Err(error) => {
                    tracing::debug!(peer = %peer.address, %error, "closing");
                    return None;
                }
            }
        }
    }

    /// Takes a message. `None` if it breaks the protocol.
    fn take(&self, key: PeerKey, peer: &Peer, message: &Message<'_>, now: Time) -> Option<()> {
        let Message::Extended { id, payload } = *message else {
            return Some(());
        };
        let mut exchange = self.exchange.borrow_mut();
        if id == HANDSHAKE_ID {
            let theirs = ExtensionHandshake::parse(payload).ok()?;
            let id = theirs.messages.get(Extension::Metadata);
            let offers_now = peer.id.get().is_none();
            peer.id.set(id.or(peer.id.get()));
            if let (Some(bytes), Some(_)) = (theirs.metadata_bytes, peer.id.get()) {
                let stranger = sockets::stranger(peer.address.ip());
                if !exchange.peer_joined(key, stranger, bytes) {
                    tracing::debug!(peer = %peer.address, "it says another length; closing");
                    return None;
                }
                if offers_now {
                    peer.useful_at.set(now);
                }
            }
            return Some(());
        }
        if Extension::from_our_id(id) == Some(Extension::Metadata) {
            let message = MetadataMessage::parse(payload).ok()?;
            if let MetadataMessage::Request { piece } = message {
                // We have none of it either.
                peer.tell_metadata(&MetadataMessage::Reject { piece });
            }
            // What nobody asked for is of no use, however often it comes.
            if exchange.handle_message(key, &message, now) {
                peer.useful_at.set(now);
            }
        }
        Some(())
    }
}

/// Receives behind what is in `buffer`. `None` at the end.
async fn receive(socket: &Rc<TcpStream>, buffer: &mut Vec<u8>) -> Option<()> {
    loop {
        wait_readable(socket).await.ok()?;
        match sockets::receive(&**socket, buffer, usize::MAX) {
            Ok(0) => return None,
            Ok(_) => return Some(()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

/// The SHA-1 of what may be long, with turns for others on the way.
async fn sha1_in_turns(bytes: &[u8]) -> [u8; 20] {
    let mut state = Sha1::new();
    for run in bytes.chunks(HASH_BYTES) {
        state.update(run);
        tokio::task::yield_now().await;
    }
    state.finish()
}

#[cfg(test)]
mod tests;
