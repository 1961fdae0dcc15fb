//! A connection's beginning: the peer's handshake, and the torrent that it is for.
//!
//! Limits: [`crate::plane::PlaneConfig::handshake_timeout`]; no byte behind the handshake is read.

use crate::closing::CloseReason;
use crate::connection::receive;
use crate::shard::{Found, Shard};
use crate::torrent::SeededTorrent;
use proto::handshake::{self, HANDSHAKE_BYTES, Handshake, HandshakeStage};
use seedring_metrics::Counter;
use std::net::Shutdown;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use tokio::time::timeout;
use tokio_uring::net::TcpStream;

/// Why there is no peer to converse with (here).
pub(crate) enum NotGreeted {
    Closed(CloseReason),
    Elsewhere(usize),
}

impl From<CloseReason> for NotGreeted {
    fn from(reason: CloseReason) -> NotGreeted {
        NotGreeted::Closed(reason)
    }
}

/// A peer's handshake, and the torrent that it is for.
pub(crate) type Greeted = (Handshake, Arc<SeededTorrent>);

/// [`greet`] within the handshake timeout.
pub(crate) async fn greet_in_time(
    shard: &Shard,
    socket: &Rc<TcpStream>,
    received: &mut Vec<u8>,
) -> Result<Greeted, NotGreeted> {
    let mut greeting = pin!(greet(shard, socket, received));
    match timeout(shard.config.handshake_timeout, &mut greeting).await {
        Ok(greeted) => greeted,
        Err(_elapsed) => {
            // Ends the receive that is in flight. It is waited for, so that whoever waits for this
            // connection to go finds nothing of it in the ring.
            let _ = socket.shutdown(Shutdown::Both);
            let _ = greeting.await;
            Err(CloseReason::HandshakeTimeout.into())
        }
    }
}

/// Receives the peer's handshake behind what of it has come, and finds its torrent.
async fn greet(
    shard: &Shard,
    socket: &Rc<TcpStream>,
    buffer: &mut Vec<u8>,
) -> Result<Greeted, NotGreeted> {
    buffer.reserve_exact(HANDSHAKE_BYTES.saturating_sub(buffer.len()));
    loop {
        // A stream that is not BitTorrent, an encrypted one included, shows at its first wrong
        // byte, and an unknown torrent after 48 bytes: both close at once.
        match handshake::parse(buffer).map_err(|_| CloseReason::HandshakeInvalid)? {
            HandshakeStage::Incomplete { .. } => {}
            HandshakeStage::InfoHash { info_hash, .. } => match shard.find(info_hash) {
                Some(Found::Here(_)) => {}
                Some(Found::Elsewhere(home)) => return Err(NotGreeted::Elsewhere(home)),
                None => return Err(CloseReason::UnknownTorrent.into()),
            },
            HandshakeStage::Complete(theirs) => {
                if theirs.peer_id == shard.config.peer_id {
                    return Err(CloseReason::SelfConnection.into());
                }
                return match shard.find(theirs.info_hash) {
                    Some(Found::Here(torrent)) => Ok((theirs, torrent)),
                    Some(Found::Elsewhere(home)) => Err(NotGreeted::Elsewhere(home)),
                    None => Err(CloseReason::UnknownTorrent.into()),
                };
            }
        }
        match receive(socket, buffer, HANDSHAKE_BYTES).await {
            Ok(0) => return Err(CloseReason::PeerClosed.into()),
            Ok(count) => shard
                .cells
                .add(Counter::ProtocolBytesReceived, count as u64),
            Err(error) => return Err(CloseReason::of_socket(&error).into()),
        }
    }
}
