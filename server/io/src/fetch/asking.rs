//! Fetching a torrent's `info` dictionary from peers, when only its hash is known (BEP 9, 10).
//!
//! [`MetadataExchange`] decides whom to ask for what; here are the connections. Peers are called, asked and left
//! again: whoever then downloads the torrent calls them anew, when it is known how many pieces they may have.
//!
//! Limits: [`PEERS_MAX`] connections, those that are being begun among them, and those of
//! [`crate::fetch::FetchConfig`] for all that we begin; a peer that has not said within [`READY_IN`] that it has the
//! metadata is left. Nothing is served, and nothing is sent but requests: what does not fit the socket's buffer at once
//! ends the connection, for that peer takes nothing.

use crate::connection::receive;
use crate::fetch::connecting::finish_connect;
use crate::fetch::{MetadataEvent, MetadataSeat, Order, Published};
use crate::shard::Shard;
use crate::sockets;
use engine::choker::PeerKey;
use engine::metadata::{Action, MetadataConfig, MetadataExchange};
use engine::peer_list::{PeerList, PeerListConfig};
use engine::time::Time;
use proto::extension::{Extension, ExtensionHandshake, HANDSHAKE_ID, MessageIds, MetadataMessage};
use proto::handshake::{self, HANDSHAKE_BYTES, Handshake, HandshakeStage, Reserved, ReservedBit};
use proto::ids::InfoHashV1;
use proto::limits::PIECES_MAX;
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
use tokio::time::{MissedTickBehavior, interval};
use tokio_uring::net::TcpStream;

/// Connections of one fetch of metadata.
const PEERS_MAX: usize = 24;

/// How long a peer may take until it has said that it has the metadata.
const READY_IN: Duration = Duration::from_secs(15);

/// How often timeouts are looked at.
const TICK: Duration = Duration::from_millis(250);

/// The receive buffer of a connection at first, in bytes: room for a block of metadata.
const RECEIVE_BYTES: usize = 20 << 10;

/// A peer that is connected.
struct Called {
    socket: Rc<TcpStream>,
    address: SocketAddr,
    since: Time,
    /// Under which id it takes requests, once it has said that it has the metadata.
    metadata_id: Cell<Option<NonZeroU8>>,
}

impl Called {
    fn close(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Sends a message; the end of the connection where that is not possible at once.
    fn send(&self, id: u8, payload: &[u8]) {
        let mut message = Vec::new();
        Message::Extended { id, payload }.encode(&mut message);
        if sockets::send_first(&*self.socket, &message).is_err() {
            self.close();
        }
    }

    fn send_metadata(&self, message: &MetadataMessage<'_>) {
        if let Some(id) = self.metadata_id.get() {
            let mut payload = Vec::new();
            message.encode(&mut payload);
            self.send(id.get(), &payload);
        }
    }
}

/// One fetch of metadata: see the module.
struct Asking {
    info_hash: InfoHashV1,
    exchange: RefCell<MetadataExchange>,
    list: RefCell<PeerList>,
    called: RefCell<HashMap<PeerKey, Rc<Called>>>,
    next_key: Cell<u64>,
    /// Tasks that call or converse.
    under_way: Cell<usize>,
    published: Arc<Published>,
    ended: Cell<bool>,
    /// Told when a peer has said something, or has gone.
    news: Notify,
}

/// Runs a fetch of metadata until it has them, or nobody wants them any more.
pub(crate) async fn run(shard: Rc<Shard>, seat: MetadataSeat) {
    let mut orders = seat.orders;
    let asking = Rc::new(Asking {
        info_hash: seat.info_hash,
        exchange: RefCell::new(MetadataExchange::new(MetadataConfig::default())),
        list: RefCell::new(PeerList::new(PeerListConfig::default())),
        called: RefCell::default(),
        next_key: Cell::new(1),
        under_way: Cell::new(0),
        published: seat.published,
        ended: Cell::new(false),
        news: Notify::new(),
    });
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut info = None;
    while info.is_none() && !shard.is_stopping() {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Peers(peers)) => asking.add_peers(&peers, shard.now()),
                // The rest is for downloads.
                Some(_) => {}
                None => break,
            },
            () = asking.news.notified() => {}
            _ = ticks.tick() => asking.leave_useless(shard.now()),
        }
        asking.call_peers(&shard);
        info = asking.drive(&shard).await;
    }
    asking.ended.set(true);
    asking.called.borrow().values().for_each(|called| called.close());
    if let Some(info) = info {
        let _ = seat.events.send(MetadataEvent::Complete(info)).await;
    }
}

impl Asking {
    fn add_peers(&self, peers: &[SocketAddr], now: Time) {
        let mut list = self.list.borrow_mut();
        for &peer in peers {
            list.add(peer, now);
        }
    }

    /// Begins as many connections as may be.
    fn call_peers(self: &Rc<Self>, shard: &Rc<Shard>) {
        while self.under_way.get() < PEERS_MAX {
            let Some(place) = shard.limits.call(shard.config.fetch.outgoing_max) else {
                return;
            };
            let Some(address) = self.list.borrow_mut().take(shard.now()) else {
                return;
            };
            self.under_way.set(self.under_way.get() + 1);
            let (shard, asking) = (Rc::clone(shard), Rc::clone(self));
            tokio_uring::spawn(async move {
                let _place = place;
                let was_of_use = asking.call(&shard, address).await;
                let mut list = asking.list.borrow_mut();
                match was_of_use {
                    true => list.left(address, shard.now()),
                    false => list.failed(address, shard.now()),
                }
                drop(list);
                asking.under_way.set(asking.under_way.get() - 1);
                asking.news.notify_one();
            });
        }
    }

    /// Calls a peer and converses with it until it goes; says whether it was of use.
    async fn call(&self, shard: &Rc<Shard>, address: SocketAddr) -> bool {
        let Ok(admission) = shard.limits.admit(address.ip()) else {
            return false;
        };
        let Ok(socket) = sockets::begin_connect(address, &shard.config.sockets) else {
            return false;
        };
        let socket = Rc::new(TcpStream::from_std(socket));
        let mut visit = shard.visit(&socket, admission);
        if let Err(error) = finish_connect(shard, &socket).await {
            tracing::debug!(peer = %address, %error, "cannot connect");
            return false;
        }
        if self.ended.get() {
            return false;
        }
        let key = PeerKey(self.next_key.get());
        self.next_key.set(key.0 + 1);
        let called = Rc::new(Called {
            socket,
            address,
            since: shard.now(),
            metadata_id: Cell::new(None),
        });
        self.called.borrow_mut().insert(key, Rc::clone(&called));
        visit.greeted();
        self.publish();
        let why = self.converse(shard, key, &called).await;
        tracing::debug!(peer = %address, why, "connection closed");
        self.called.borrow_mut().remove(&key);
        self.exchange.borrow_mut().peer_left(key);
        self.publish();
        called.metadata_id.get().is_some()
    }

    /// Greets a peer and takes what it says, until there is no more; returns why.
    async fn converse(&self, shard: &Shard, key: PeerKey, called: &Rc<Called>) -> &'static str {
        // Without the fast extension, so that nothing has to be said of pieces.
        let ours = Handshake {
            reserved: Reserved::NONE.with(ReservedBit::EXTENSION_PROTOCOL),
            info_hash: self.info_hash,
            peer_id: shard.config.peer_id,
        };
        if sockets::send_first(&*called.socket, &ours.encode()).is_err() {
            return "the handshake cannot be sent";
        }
        let mut buffer = Vec::with_capacity(RECEIVE_BYTES);
        let theirs = loop {
            match handshake::parse(&buffer) {
                Ok(HandshakeStage::Complete(theirs)) => break theirs,
                Ok(_) => {}
                Err(_) => return "it is no BitTorrent",
            }
            match receive(&called.socket, &mut buffer, HANDSHAKE_BYTES).await {
                Ok(1..) => {}
                _ => return "it has closed before its handshake",
            }
        };
        if theirs.info_hash != self.info_hash || !theirs.reserved.extension_protocol() {
            return "it has another torrent, or no extensions";
        }
        if theirs.peer_id == shard.config.peer_id {
            return "it is ourselves";
        }
        buffer.clear();
        self.introduce(shard, called);
        loop {
            match receive(&called.socket, &mut buffer, usize::MAX).await {
                Ok(1..) => {}
                _ => return "it has closed",
            }
            let digested = self.digest(shard, key, called, &buffer);
            let Some((consumed, needed)) = digested else {
                return "it said what nobody may say";
            };
            buffer.drain(..consumed);
            buffer.reserve(needed.saturating_sub(buffer.len()).max(1));
        }
    }

    /// Says which extensions we speak.
    fn introduce(&self, shard: &Shard, called: &Called) {
        let session = shard.session_config();
        let handshake = ExtensionHandshake {
            messages: MessageIds::ours(&[Extension::Metadata]),
            client: Some(session.client_version.clone()),
            your_ip: Some(called.address.ip()),
            ..ExtensionHandshake::default()
        };
        let mut payload = Vec::new();
        handshake.encode(&mut payload);
        called.send(HANDSHAKE_ID, &payload);
    }

    /// Takes whole messages of `input`. Returns how many bytes they took and how many the next one needs; nothing if
    /// the peer broke the protocol.
    fn digest(
        &self,
        shard: &Shard,
        key: PeerKey,
        called: &Called,
        input: &[u8],
    ) -> Option<(usize, usize)> {
        // It is not known how many pieces there are, and nobody may send blocks.
        let limits = FrameLimits {
            block_bytes_max: 0,
            ..FrameLimits::for_torrent(PIECES_MAX)
        };
        let mut consumed = 0;
        loop {
            match wire::decode(input.get(consumed..)?, &limits).ok()? {
                Decoded::Incomplete { needed } => return Some((consumed, needed)),
                Decoded::Message {
                    message,
                    consumed: bytes,
                } => {
                    consumed += bytes;
                    if let Message::Extended { id, payload } = message {
                        self.extended(shard, key, called, id, payload)?;
                    }
                }
            }
        }
    }

    /// Takes a message of an extension; nothing if it is none.
    fn extended(
        &self,
        shard: &Shard,
        key: PeerKey,
        called: &Called,
        id: u8,
        payload: &[u8],
    ) -> Option<()> {
        if id == HANDSHAKE_ID {
            let handshake = ExtensionHandshake::parse(payload).ok()?;
            let metadata_id = handshake.messages.get(Extension::Metadata);
            if let (Some(id), Some(bytes)) = (metadata_id, handshake.metadata_bytes) {
                called.metadata_id.set(Some(id));
                self.exchange.borrow_mut().peer_joined(key, bytes);
            }
        } else if Extension::from_our_id(id) == Some(Extension::Metadata) {
            let message = MetadataMessage::parse(payload).ok()?;
            if let MetadataMessage::Request { piece } = message {
                called.send_metadata(&MetadataMessage::Reject { piece });
            }
            let mut exchange = self.exchange.borrow_mut();
            exchange.handle_message(key, &message, shard.now());
        }
        self.news.notify_one();
        Some(())
    }

    /// Does what the exchange wants done; returns the metadata when they are here and right.
    async fn drive(&self, shard: &Shard) -> Option<Vec<u8>> {
        self.exchange.borrow_mut().refill(shard.now());
        loop {
            let action = self.exchange.borrow_mut().take_action()?;
            match action {
                Action::Request { peer, block } => {
                    if let Some(called) = self.called.borrow().get(&peer) {
                        called.send_metadata(&MetadataMessage::Request { piece: block });
                    }
                }
                Action::Check => {
                    let info = self.exchange.borrow_mut().take_info()?;
                    // They may be tens of megabytes, which would keep the shard's peers waiting.
                    let hashing = move || (hash::sha1(&info), info);
                    let (digest, info) = tokio::task::spawn_blocking(hashing).await.ok()?;
                    let is_good = digest == self.info_hash.0;
                    let mut exchange = self.exchange.borrow_mut();
                    exchange.checked(is_good);
                    if is_good {
                        return Some(info);
                    }
                    exchange.refill(shard.now());
                }
                Action::Ban(peer) => {
                    if let Some(called) = self.called.borrow().get(&peer) {
                        tracing::warn!(peer = %called.address, "the peer sent wrong metadata and is banned");
                        self.list.borrow_mut().ban(called.address);
                        called.close();
                    }
                }
            }
        }
    }

    /// Leaves those who had time enough to say that they have the metadata.
    fn leave_useless(&self, now: Time) {
        for called in self.called.borrow().values() {
            if called.metadata_id.get().is_none() && now.since(called.since) > READY_IN {
                called.close();
            }
        }
    }

    fn publish(&self) {
        let peers = u32::try_from(self.called.borrow().len()).unwrap_or(u32::MAX);
        self.published.peers.store(peers, Ordering::Relaxed);
    }
}
