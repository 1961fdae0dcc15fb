//! A connection's beginning: the peer's handshake, and the torrent that it is for, which may have
//! to be woken first.
//!
//! Limits: [`crate::plane::PlaneConfig::handshake_timeout`]; no byte behind the handshake is read.
//! Who waits for a torrent counts no more among the handshakes that are not done, so that it keeps
//! nobody from shaking hands for another one; it has limits of its own
//! ([`crate::roster::WakeLimits`]).

use crate::closing::CloseReason;
use crate::connection::receive;
use crate::fetch::metadata::Exchange;
use crate::roster::{Outcome, TorrentUse};
use crate::shard::{Found, Shard, Visit};
use proto::handshake::{self, HANDSHAKE_BYTES, Handshake, HandshakeStage};
use seedring_metrics::{Counter, Gauge, Histogram};
use std::net::{IpAddr, Shutdown};
use std::pin::pin;
use std::rc::Rc;
use tokio::time::{Instant, timeout};
use tokio_uring::net::TcpStream;

/// Why there is no peer to converse with (here).
pub(crate) enum NotGreeted {
    Closed(CloseReason),
    Elsewhere(usize),
    /// Its torrent is to be woken ([`await_torrent`]).
    Dormant(Handshake),
    /// What its torrent is, is still to be found out, and may be known to the peer.
    Resolving(Handshake, Rc<Exchange>),
}

impl From<CloseReason> for NotGreeted {
    fn from(reason: CloseReason) -> NotGreeted {
        NotGreeted::Closed(reason)
    }
}

/// A peer's handshake, and the torrent that it is for.
pub(crate) type Greeted = (Handshake, TorrentUse);

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

/// Waits until the dormant torrent of a handshake is awake; its socket is left as it is.
pub(crate) async fn await_torrent(
    shard: &Shard,
    visit: &mut Visit,
    ip: IpAddr,
    theirs: Handshake,
) -> Result<Greeted, NotGreeted> {
    visit.handshake_read();
    let began = Instant::now();
    let found = find_awake(shard, theirs, began + shard.config.waking.wait).await;
    let (torrent, counter) = match found {
        Ok(torrent) => {
            let waited = began.elapsed();
            shard.cells.record(Histogram::WakeWait, waited);
            (Ok((theirs, torrent)), Counter::WaitsServed)
        }
        Err((not_greeted, counter)) => (Err(not_greeted), counter),
    };
    shard.cells.increment(counter);
    // The list of addresses to keep away may have changed meanwhile.
    if shard.is_filtered(ip) {
        return Err(CloseReason::Filtered.into());
    }
    torrent
}

async fn find_awake(
    shard: &Shard,
    theirs: Handshake,
    until: Instant,
) -> Result<TorrentUse, (NotGreeted, Counter)> {
    let unknown = || (CloseReason::UnknownTorrent.into(), Counter::WaitsRefused);
    loop {
        // Between this look and the place among those who wait this thread does nothing else, so
        // that no awakening is missed: it ends when this shard, too, has the torrent.
        match shard.find(theirs.info_hash) {
            Some(Found::Here(torrent)) => return Ok(torrent),
            Some(Found::Elsewhere(home)) => {
                return Err((NotGreeted::Elsewhere(home), Counter::WaitsServed));
            }
            None | Some(Found::Resolving(_)) => return Err(unknown()),
            Some(Found::Dormant) => {}
        }
        let Some(waiter) = shard.roster.wait(theirs.info_hash) else {
            return Err((CloseReason::Asleep.into(), Counter::WaitsFull));
        };
        shard.cells.raise(Gauge::PeersWaiting, 1);
        let outcome = waiter.outcome(until).await;
        shard.cells.lower(Gauge::PeersWaiting, 1);
        match outcome {
            // It may have fallen asleep again.
            Outcome::Awake => {}
            Outcome::Refused => return Err(unknown()),
            Outcome::TimedOut => {
                return Err((CloseReason::Asleep.into(), Counter::WaitsTimedOut));
            }
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
                Some(Found::Here(_) | Found::Dormant | Found::Resolving(_)) => {}
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
                    Some(Found::Dormant) => Err(NotGreeted::Dormant(theirs)),
                    Some(Found::Resolving(exchange)) => {
                        Err(NotGreeted::Resolving(theirs, exchange))
                    }
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
