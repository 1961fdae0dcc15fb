//! The fetch of an `info` dictionary from peers (BEP 9), for a magnet link: until it is here nothing is known of the
//! torrent, so these connections exchange nothing but that, and end with it.
//!
//! The pure [`MetadataExchange`] decides what is asked of whom and who lied; here are the connections, each a task, and
//! the hash. What peers say besides, such as which pieces they have, is read and ignored.
//!
//! Limits: those of downloads for connections ([`crate::fetch::FetchConfig`]); [`RECEIVE_BYTES`] and the longest
//! message for what of a connection's input is not decoded; [`PATIENCE`] for a peer that is of no use.

use crate::connection::wait_readable;
use crate::fetch::connecting::finish_connect;
use crate::fetch::{MetadataEvent, MetadataSeat, Order};
use crate::limits::CallPlace;
use crate::shard::{Shard, Visit};
use crate::sockets;
use engine::choker::PeerKey;
use engine::metadata::{Action, MetadataConfig, MetadataExchange};
use engine::peer_list::{PeerList, PeerListConfig};
use engine::time::Time;
use hash::Sha1;
use proto::extension::{Extension, ExtensionHandshake, HANDSHAKE_ID, MessageIds, MetadataMessage};
use proto::handshake::{self, HANDSHAKE_BYTES, HandshakeStage};
use proto::ids::InfoHashV1;
use proto::limits;
use proto::wire::{self, Decoded, FrameLimits, Message};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr};
use std::num::NonZeroU8;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_uring::net::TcpStream;

use super::Published;

/// How often time-outs are looked at.
const TICK: Duration = Duration::from_millis(500);

/// How long a peer may be of no use before its place goes to another, or to another try: some accept a connection,
/// greet, and never say more.
const PATIENCE: Duration = Duration::from_secs(15);

/// What is received at a time, in bytes.
const RECEIVE_BYTES: usize = 20 << 10;

/// What is hashed before others on the shard have their turn, in bytes.
const HASH_BYTES: usize = 1 << 20;

/// The fetch of one torrent's metadata.
struct Exchange {
    info_hash: InfoHashV1,
    exchange: RefCell<MetadataExchange>,
    peers: RefCell<HashMap<PeerKey, Rc<Peer>>>,
    list: RefCell<PeerList>,
    published: Arc<Published>,
    next_key: Cell<u64>,
    connections: Cell<usize>,
    news: Notify,
    is_over: Cell<bool>,
}

/// A peer that is being called, or was.
struct Peer {
    socket: Rc<TcpStream>,
    address: SocketAddr,
    /// Under which id it takes messages of metadata, once it has said so.
    id: Cell<Option<NonZeroU8>>,
    /// When it was of use last: it came, offered metadata, or sent some of them.
    useful_at: Cell<Time>,
}

impl Peer {
    /// Sends a message that is so short that a socket takes it, unless its peer reads nothing: that one is closed.
    fn tell(&self, message: &Message<'_>) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        if sockets::send_first(&*self.socket, &bytes).is_err() {
            self.close();
        }
    }

    /// Says that we have no piece, in place of a bitfield: BEP 6 demands it of who speaks it. Others may wait for a
    /// bitfield, which they see by any other message not to come.
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

/// Fetches until the metadata are here or nobody wants them any more.
pub(crate) async fn run(shard: Rc<Shard>, mut seat: MetadataSeat) {
    let exchange = Rc::new(Exchange {
        info_hash: seat.info_hash,
        exchange: RefCell::new(MetadataExchange::new(MetadataConfig::default())),
        peers: RefCell::default(),
        list: RefCell::new(PeerList::new(PeerListConfig::default())),
        published: Arc::clone(&seat.published),
        next_key: Cell::new(1),
        connections: Cell::new(0),
        news: Notify::new(),
        is_over: Cell::new(false),
    });
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !shard.is_stopping() {
        tokio::select! {
            order = seat.orders.recv() => match order {
                Some(Order::Peers(peers)) => exchange.add_peers(&shard, &peers),
                Some(_) => {}
                None => break,
            },
            _ = ticks.tick() => {}
            () = exchange.news.notified() => {}
        }
        exchange.call_peers(&shard);
        if let Some(info) = exchange.drive(&shard).await {
            let _ = seat.events.send(MetadataEvent::Complete(info)).await;
            break;
        }
    }
    exchange.is_over.set(true);
    for peer in exchange.peers.borrow().values() {
        peer.close();
    }
}

impl Exchange {
    fn add_peers(&self, shard: &Shard, peers: &[SocketAddr]) {
        let now = shard.now();
        let mut list = self.list.borrow_mut();
        for &peer in peers {
            list.add(peer, now);
        }
    }

    /// Does what the exchange wants done; returns the metadata when they are right.
    async fn drive(&self, shard: &Shard) -> Option<Vec<u8>> {
        self.exchange.borrow_mut().refill(shard.now());
        loop {
            let action = self.exchange.borrow_mut().take_action()?;
            match action {
                Action::Request { peer, block } => {
                    if let Some(peer) = self.peers.borrow().get(&peer) {
                        peer.tell_metadata(&MetadataMessage::Request { piece: block });
                    }
                }
                Action::Check => {
                    let info = self.exchange.borrow_mut().take_info();
                    let Some(info) = info else { continue };
                    let is_right = sha1_in_turns(&info).await == self.info_hash.0;
                    self.exchange.borrow_mut().checked(is_right);
                    if is_right {
                        return Some(info);
                    }
                    self.exchange.borrow_mut().refill(shard.now());
                }
                Action::Ban(peer) => {
                    if let Some(peer) = self.peers.borrow().get(&peer) {
                        tracing::warn!(peer = %peer.address, "the peer sent wrong metadata and is banned");
                        self.list.borrow_mut().ban(peer.address);
                        peer.close();
                    }
                }
            }
        }
    }

    /// Begins as many connections as may be.
    fn call_peers(self: &Rc<Self>, shard: &Rc<Shard>) {
        let config = &shard.config.fetch;
        while self.connections.get() < config.connecting_max {
            let Some(place) = shard.limits.call(config.outgoing_max) else {
                return;
            };
            let address = self.list.borrow_mut().take(shard.now());
            let Some(address) = address else { return };
            self.connections.set(self.connections.get() + 1);
            let (exchange, shard) = (Rc::clone(self), Rc::clone(shard));
            tokio_uring::spawn(async move {
                let was_of_use = exchange.call(&shard, address, place).await.is_some();
                exchange.connections.set(exchange.connections.get() - 1);
                let mut list = exchange.list.borrow_mut();
                match was_of_use {
                    _ if list.is_banned(address) => {}
                    true => list.left(address, shard.now()),
                    false => list.failed(address, shard.now()),
                }
                exchange.news.notify_one();
            });
        }
    }

    /// Converses with one peer until the connection ends. `None` if it came to no handshake.
    async fn call(
        self: &Rc<Self>,
        shard: &Rc<Shard>,
        address: SocketAddr,
        _place: CallPlace,
    ) -> Option<()> {
        let admission = shard.limits.admit(address.ip()).ok()?;
        let socket = sockets::begin_connect(address, &shard.config.sockets).ok()?;
        let socket = Rc::new(TcpStream::from_std(socket));
        let mut visit = shard.visit(&socket, admission);
        finish_connect(shard, &socket).await.ok()?;
        let ours = shard.our_handshake(self.info_hash).encode();
        sockets::send_first(&*socket, &ours).ok()?;
        let (received, fast) = self.greet(shard, &socket, &mut visit).await?;
        let peer = Rc::new(Peer {
            socket,
            address,
            id: Cell::new(None),
            useful_at: Cell::new(shard.now()),
        });
        let key = PeerKey(self.next_key.get());
        self.next_key.set(key.0 + 1);
        self.peers.borrow_mut().insert(key, Rc::clone(&peer));
        self.count_peers();
        peer.tell_nothing_is_here(fast);
        self.converse(shard, key, &peer, received).await;
        self.exchange.borrow_mut().peer_left(key);
        self.peers.borrow_mut().remove(&key);
        self.count_peers();
        Some(())
    }

    fn count_peers(&self) {
        let peers = u32::try_from(self.peers.borrow().len()).unwrap_or(u32::MAX);
        self.published.peers.store(peers, Ordering::Relaxed);
    }

    /// Receives the peer's handshake, and returns what came after it, and whether it speaks BEP 6.
    async fn greet(
        &self,
        shard: &Shard,
        socket: &Rc<TcpStream>,
        visit: &mut Visit,
    ) -> Option<(Vec<u8>, bool)> {
        let mut buffer = Vec::with_capacity(RECEIVE_BYTES);
        let greeting = async {
            loop {
                match handshake::parse(&buffer).ok()? {
                    HandshakeStage::Complete(theirs) => return Some(theirs),
                    _ => receive(socket, &mut buffer).await?,
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
                return None;
            }
        };
        drop(greeting);
        visit.greeted();
        let is_ours = theirs.peer_id == shard.config.peer_id;
        let speaks = theirs.reserved.extension_protocol();
        if is_ours || !speaks || theirs.info_hash != self.info_hash {
            return None;
        }
        buffer.drain(..HANDSHAKE_BYTES.min(buffer.len()));
        Some((buffer, theirs.reserved.fast()))
    }

    /// Takes messages of a peer until the connection ends, or breaks the protocol.
    async fn converse(&self, shard: &Shard, key: PeerKey, peer: &Peer, mut buffer: Vec<u8>) {
        let mut payload = Vec::new();
        let ours = ExtensionHandshake {
            messages: MessageIds::ours(&[Extension::Metadata]),
            client: Some(shard.session_config().client_version.clone()),
            ..ExtensionHandshake::default()
        };
        ours.encode(&mut payload);
        let (id, payload) = (HANDSHAKE_ID, &payload[..]);
        peer.tell(&Message::Extended { id, payload });
        // The torrent's size is not known, so its bitfield may be any torrent's.
        let limits = FrameLimits {
            block_bytes_max: 0,
            ..FrameLimits::for_torrent(limits::PIECES_MAX)
        };
        while !self.is_over.get() {
            let mut at = 0;
            let needed = loop {
                match wire::decode(buffer.get(at..).unwrap_or_default(), &limits) {
                    Ok(Decoded::Message { message, consumed }) => {
                        at += consumed;
                        if self.take(key, peer, &message, shard.now()).is_none() {
                            return;
                        }
                    }
                    Ok(Decoded::Incomplete { needed }) => break needed,
                    Err(error) => {
                        tracing::debug!(peer = %peer.address, %error, "closing");
                        return;
                    }
                }
            };
            buffer.drain(..at);
            let room = needed.max(RECEIVE_BYTES);
            buffer.reserve(room.saturating_sub(buffer.len()));
            self.news.notify_one();
            let patience = PATIENCE.saturating_sub(shard.now().since(peer.useful_at.get()));
            let mut receiving = Box::pin(receive(&peer.socket, &mut buffer));
            let Ok(received) = timeout(patience, &mut receiving).await else {
                tracing::debug!(peer = %peer.address, "no metadata from it; closing");
                // Ends the receive that is in flight, which is waited for.
                peer.close();
                let _ = receiving.await;
                return;
            };
            if received.is_none() {
                return;
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
                exchange.peer_joined(key, bytes);
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
            if matches!(message, MetadataMessage::Data { .. }) {
                peer.useful_at.set(now);
            }
            exchange.handle_message(key, &message, now);
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
