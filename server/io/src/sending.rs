//! One round of a connection's writer: read the batch, send it with the control bytes, wait while the socket
//! is full.
//!
//! Limits: one send in flight per socket. A full socket keeps its payload buffer for [`BUFFER_HOLD`], or not
//! at all while the pool is empty; after that the payload is read again, so that slow readers hold no memory.

use crate::closing::CloseReason;
use crate::connection::Connection;
use crate::outgoing::Outgoing;
use crate::payload;
use crate::ring;
use crate::shard::Shard;
use crate::sockets::send_room;
use engine::queue::Batch;
use proto::wire::{self, PIECE_HEADER_BYTES};
use seedring_metrics::Counter;
use std::io;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::timeout;

/// How long a full socket may hold its payload buffer before it has to give it back.
const BUFFER_HOLD: Duration = Duration::from_millis(50);

/// What came of a round, and the message to use again.
type Sent = (Result<(), CloseReason>, Box<Outgoing>);

/// Reads `batch` if there is one, and sends it after the control bytes in `outgoing`.
pub(crate) async fn send_round(
    shard: &Shard,
    connection: &Connection,
    mut outgoing: Box<Outgoing>,
    batch: Option<&Batch>,
) -> Sent {
    let headers = batch.map_or(0, |batch| batch.count as usize * PIECE_HEADER_BYTES);
    let content = batch.map_or(0, |batch| batch.bytes as usize);
    let bytes = outgoing.control_mut().len() + headers + content;
    let mut payload = None;
    if let Some(batch) = batch {
        if let Err(reason) = wait_for_room(shard, connection, bytes).await {
            return (Err(reason), outgoing);
        }
        match payload::read_batch(shard, &connection.torrent, batch).await {
            Ok(buffer) => payload = Some(buffer),
            Err(fault) => return (Err(shard.report(&connection.torrent, fault)), outgoing),
        }
        for block in batch.blocks() {
            let header = wire::piece_header(block.piece, block.begin, block.length);
            outgoing.push_block(header, block.length);
        }
        shard.cells.increment(Counter::Sends);
    }
    outgoing.seal(payload);
    connection
        .session
        .borrow_mut()
        .send_started(bytes as u64, shard.now());
    let sent;
    (sent, outgoing) = send_all(shard, connection, outgoing, batch).await;
    if sent.is_ok() {
        shard
            .cells
            .add(Counter::ProtocolBytesSent, (bytes - content) as u64);
        if let Some(batch) = batch {
            connection.batch_sent(shard, batch);
        }
    }
    outgoing.clear();
    (sent, outgoing)
}

/// Waits until the socket has room for a batch, before anything is read for it: a batch that fits is sent at
/// once, and its buffer is free and still in the cache for the next one.
async fn wait_for_room(
    shard: &Shard,
    connection: &Connection,
    bytes: usize,
) -> Result<(), CloseReason> {
    if send_room(&*connection.socket).is_none_or(|room| room >= bytes) {
        return Ok(());
    }
    // A peer that takes nothing is stalled in this wait too, but not while our disk is read after it.
    let (session, bytes) = (&connection.session, bytes as u64);
    session.borrow_mut().send_started(bytes, shard.now());
    shard.cells.increment(Counter::RingSubmissions);
    let _ready = ring::poll(Rc::clone(&connection.socket), libc::POLLOUT).await;
    session.borrow_mut().send_progressed(bytes, shard.now());
    connection.closing().map_or(Ok(()), Err)
}

/// Sends all of `outgoing`, waiting whenever the socket is full.
async fn send_all(
    shard: &Shard,
    connection: &Connection,
    mut outgoing: Box<Outgoing>,
    batch: Option<&Batch>,
) -> Sent {
    loop {
        let result;
        shard.cells.increment(Counter::RingSubmissions);
        (result, outgoing) = ring::send(Rc::clone(&connection.socket), outgoing).await;
        match result {
            Ok(count) => {
                connection
                    .session
                    .borrow_mut()
                    .send_progressed(count as u64, shard.now());
                if outgoing.advance(count) {
                    return (Ok(()), outgoing);
                }
                shard.cells.increment(Counter::PartialSends);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return (Err(CloseReason::of_socket(&error)), outgoing),
        }
        let waited;
        (waited, outgoing) = wait_writable(shard, connection, outgoing, batch).await;
        if waited.is_err() {
            return (waited, outgoing);
        }
    }
}

/// Waits until the socket takes bytes or breaks.
async fn wait_writable(
    shard: &Shard,
    connection: &Connection,
    mut outgoing: Box<Outgoing>,
    batch: Option<&Batch>,
) -> Sent {
    shard.cells.increment(Counter::RingSubmissions);
    let mut writable = ring::poll(Rc::clone(&connection.socket), libc::POLLOUT);
    let patience = if shard.pool.is_exhausted() {
        Duration::ZERO
    } else {
        BUFFER_HOLD
    };
    if timeout(patience, &mut writable).await.is_ok() {
        return (Ok(()), outgoing);
    }
    let held = outgoing.release_payload();
    let _ready = writable.await;
    if let Some(reason) = connection.closing() {
        return (Err(reason), outgoing);
    }
    if let (true, Some(batch)) = (held, batch) {
        match payload::read_batch(shard, &connection.torrent, batch).await {
            Ok(buffer) => outgoing.restore_payload(buffer),
            Err(fault) => return (Err(shard.report(&connection.torrent, fault)), outgoing),
        }
    }
    (Ok(()), outgoing)
}
