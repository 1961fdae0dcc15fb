//! One round of a connection's writer: control bytes, then a batch by the path that suits it, with
//! waits while the socket is full.
//!
//! Limits: one send in flight per socket. A full socket keeps what it holds of ours, a buffer or a
//! pipe, for [`HOLD`], or not at all while others wait for one; after that it is given back and the
//! rest of the batch is had again when the socket takes bytes, so that slow readers hold no memory.

use crate::closing::CloseReason;
use crate::connection::Connection;
use crate::outgoing::Outgoing;
use crate::payload;
use crate::plane::SendPath;
use crate::ring;
use crate::shard::Shard;
use crate::sockets::send_room;
use crate::splicing;
use crate::warming;
use engine::queue::Batch;
use proto::wire::{self, PIECE_HEADER_BYTES};
use seedring_metrics::Counter;
use std::io;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::timeout;

/// How long a full socket may hold a buffer or a pipe before it has to give it back.
const HOLD: Duration = Duration::from_millis(50);

/// How long a sender rests whose socket takes nothing although it said so.
const SHORTAGE_REST: Duration = Duration::from_millis(10);

/// What came of a round, and the message to use again.
type Sent = (Result<(), CloseReason>, Box<Outgoing>);

/// How a step of sending a batch ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Full {
    /// All was sent.
    No,
    /// The socket was full for too long: what was held has been given back.
    Yes,
}

/// What is left of a batch.
pub(crate) struct Remaining {
    total: usize,
    /// Bytes of the batch, headers included, that the socket has taken.
    pub(crate) sent: usize,
}

impl Remaining {
    /// Bytes that are left to send.
    pub(crate) fn bytes(&self) -> usize {
        self.total - self.sent
    }

    /// Notes that the socket took `count` bytes more.
    pub(crate) fn progressed(&mut self, shard: &Shard, connection: &Connection, count: usize) {
        self.sent += count.min(self.bytes());
        connection.given(shard, count);
    }
}

/// Sends the control bytes in `outgoing`, then `batch` if there is one.
pub(crate) async fn send_round(
    shard: &Shard,
    connection: &Connection,
    mut outgoing: Box<Outgoing>,
    batch: Option<&Batch>,
) -> Sent {
    let control = outgoing.control_mut().len();
    if control > 0 {
        let mut left = Remaining {
            total: control,
            sent: 0,
        };
        outgoing.seal(None);
        connection.send_started(shard, control);
        let sent;
        (sent, outgoing) = send_message(shard, connection, outgoing, &mut left, Hold::Own).await;
        outgoing.clear();
        if let Err(reason) = sent {
            return (Err(reason), outgoing);
        }
        shard.cells.add(Counter::ProtocolBytesSent, control as u64);
    }
    let Some(batch) = batch else {
        return (Ok(()), outgoing);
    };
    let sent;
    (sent, outgoing) = send_batch(shard, connection, outgoing, batch).await;
    if sent.is_ok() {
        let headers = batch.count as usize * PIECE_HEADER_BYTES;
        shard.cells.add(Counter::ProtocolBytesSent, headers as u64);
        connection.batch_sent(shard, batch);
    }
    (sent, outgoing)
}

/// Sends `batch`, by another path each time that its socket was full for long if that suits better
/// then.
async fn send_batch(
    shard: &Shard,
    connection: &Connection,
    mut outgoing: Box<Outgoing>,
    batch: &Batch,
) -> Sent {
    let total = batch.bytes as usize + batch.count as usize * PIECE_HEADER_BYTES;
    let mut left = Remaining { total, sent: 0 };
    connection.send_started(shard, total);
    loop {
        let before = left.sent;
        if let Err(reason) = wait_for_room(shard, connection, left.bytes()).await {
            return (Err(reason), outgoing);
        }
        let step = match try_splice(shard, connection, batch, &mut left).await {
            Ok(Some(full)) => Ok(full),
            Ok(None) => {
                let copied;
                (copied, outgoing) = copy(shard, connection, outgoing, batch, &mut left).await;
                copied
            }
            Err(reason) => Err(reason),
        };
        match step {
            Ok(Full::No) => return (Ok(()), outgoing),
            Ok(Full::Yes) if left.sent > before => {}
            // It said that it takes bytes and took none: the kernel is short of memory for sockets.
            Ok(Full::Yes) => tokio::time::sleep(SHORTAGE_REST).await,
            Err(reason) => return (Err(reason), outgoing),
        }
    }
}

/// Sends as pages where that may be; `None` if not.
async fn try_splice(
    shard: &Shard,
    connection: &Connection,
    batch: &Batch,
    left: &mut Remaining,
) -> Result<Option<Full>, CloseReason> {
    let path = shard.config.send_path;
    let torrent = &connection.torrent;
    // A file that is being written to is under nobody's lease.
    if path == SendPath::Direct || !torrent.is_complete() {
        return Ok(None);
    }
    let asked = shard.now();
    let parts = splicing::locate(shard, torrent, batch).await;
    let parts = parts.map_err(|fault| shard.report(torrent, fault))?;
    let suits = path != SendPath::Ring && splicing::suits(shard, batch, &parts);
    let may = match path {
        SendPath::Splice => suits,
        _ => warming::warm(shard, connection, batch, &parts, suits).await && suits,
    };
    connection.excuse_since(shard, asked);
    if !may {
        return Ok(None);
    }
    match splicing::pipe_for(shard, connection, &parts, left.bytes()) {
        Some(pipe) => splicing::send(shard, connection, batch, &parts, pipe, left).await,
        None => Ok(None),
    }
}

/// Sends what is left of `batch` from a buffer.
async fn copy(
    shard: &Shard,
    connection: &Connection,
    mut outgoing: Box<Outgoing>,
    batch: &Batch,
    left: &mut Remaining,
) -> (Result<Full, CloseReason>, Box<Outgoing>) {
    let asked = shard.now();
    let payload = match payload::read_batch(shard, connection, batch).await {
        Ok(payload) => payload,
        Err(fault) => return (Err(shard.report(&connection.torrent, fault)), outgoing),
    };
    connection.excuse_since(shard, asked);
    for block in batch.blocks() {
        let header = wire::piece_header(block.piece, block.begin, block.length);
        outgoing.push_block(header, block.length);
    }
    shard.cells.increment(payload.counter());
    outgoing.seal(Some(payload));
    outgoing.advance(left.sent);
    let sent;
    (sent, outgoing) = send_message(shard, connection, outgoing, left, Hold::Buffer).await;
    outgoing.clear();
    (sent, outgoing)
}

/// Waits until the socket has room for a batch, before anything is had for it: a batch that fits is
/// sent at once, and what it took is free, and still in the cache, for the next one.
async fn wait_for_room(
    shard: &Shard,
    connection: &Connection,
    bytes: usize,
) -> Result<(), CloseReason> {
    // It only grows but for what it is given, so the system is asked when what is known does not
    // suffice.
    if connection.room_bytes.get() >= bytes {
        return Ok(());
    }
    let room = send_room(&*connection.socket).unwrap_or(usize::MAX);
    connection.room_bytes.set(room);
    if room >= bytes {
        return Ok(());
    }
    shard.cells.increment(Counter::RingSubmissions);
    let _ready = ring::poll(Rc::clone(&connection.socket), libc::POLLOUT).await;
    connection.closing().map_or(Ok(()), Err)
}

/// What a message holds while it waits for its socket.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// Memory of its own, which nobody waits for.
    Own,
    /// A buffer of the pool, or chunks of the cache.
    Buffer,
}

/// Sends what is left of `outgoing`, waiting whenever the socket is full.
async fn send_message(
    shard: &Shard,
    connection: &Connection,
    mut outgoing: Box<Outgoing>,
    left: &mut Remaining,
    hold: Hold,
) -> (Result<Full, CloseReason>, Box<Outgoing>) {
    loop {
        let result;
        shard.cells.increment(Counter::RingSubmissions);
        (result, outgoing) = ring::send(Rc::clone(&connection.socket), outgoing).await;
        match result {
            Ok(count) => {
                left.progressed(shard, connection, count);
                if outgoing.advance(count) {
                    return (Ok(Full::No), outgoing);
                }
                shard.cells.increment(Counter::PartialSends);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return (Err(CloseReason::of_socket(&error)), outgoing),
        }
        let patience = match hold {
            Hold::Own => None,
            Hold::Buffer => Some(patience(payload::is_wanted(shard))),
        };
        match wait_writable(shard, connection, patience, || outgoing.clear()).await {
            Ok(true) => {}
            Ok(false) => return (Ok(Full::Yes), outgoing),
            Err(reason) => return (Err(reason), outgoing),
        }
    }
}

/// How long something may be held that others want (`wanted`), or do not.
pub(crate) fn patience(wanted: bool) -> Duration {
    if wanted { Duration::ZERO } else { HOLD }
}

/// Waits until the socket takes bytes or breaks. If that takes longer than `patience`, what is held
/// for it is given back by `release` meanwhile, and the answer is false.
///
/// # Errors
///
/// Why the connection is being closed.
pub(crate) async fn wait_writable(
    shard: &Shard,
    connection: &Connection,
    patience: Option<Duration>,
    release: impl FnOnce(),
) -> Result<bool, CloseReason> {
    shard.cells.increment(Counter::RingSubmissions);
    let mut writable = ring::poll(Rc::clone(&connection.socket), libc::POLLOUT);
    let mut is_held = true;
    if let Some(patience) = patience
        && timeout(patience, &mut writable).await.is_err()
    {
        release();
        is_held = false;
    }
    if patience.is_none() || !is_held {
        let _ready = writable.await;
    }
    connection.closing().map_or(Ok(is_held), Err)
}
