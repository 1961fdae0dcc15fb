//! The bytes of a batch: from the chunk cache where there is one ([`crate::direct`]), else read
//! here into a buffer of the pool: layout, files, ring reads, and the proof that they are the
//! verified ones.
//!
//! Limits: one pool buffer per batch; who finds the pool empty waits in line.

use crate::buffers::Buffer;
use crate::connection::Connection;
use crate::direct::{self, ChunkSlices, Peer};
use crate::files::{OpenFile, check_stamp};
use crate::ring;
use crate::shard::Shard;
use crate::torrent::{Fault, FaultCause, SeededTorrent};
use engine::layout::{FileIndex, FileRange};
use engine::queue::Batch;
use seedring_metrics::{Counter, Gauge, Histogram};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// The bytes of a batch, which stay where they are until this is dropped.
pub(crate) enum Payload {
    /// In a buffer of the pool.
    Buffer(Buffer),
    /// In the chunk cache.
    Chunks(ChunkSlices),
}

impl Payload {
    /// What counts its sends.
    pub(crate) fn counter(&self) -> Counter {
        match self {
            Payload::Buffer(_) => Counter::SendsRing,
            Payload::Chunks(_) => Counter::SendsDirect,
        }
    }

    /// The runs of bytes that make it up, in order; at most [`direct::PARTS_MAX`].
    pub(crate) fn runs(&self) -> impl Iterator<Item = &[u8]> {
        let (buffer, chunks) = match self {
            Payload::Buffer(buffer) => (Some(buffer.filled()), None),
            Payload::Chunks(chunks) => (None, Some(chunks.iter())),
        };
        buffer.into_iter().chain(chunks.into_iter().flatten())
    }
}

/// Has all bytes of `batch`, the next one of `connection`.
///
/// # Errors
///
/// The [`Fault`] of the file that could not be read or is no longer what was verified.
pub(crate) async fn read_batch(
    shard: &Shard,
    connection: &Connection,
    batch: &Batch,
) -> Result<Payload, Fault> {
    match &shard.direct {
        Some(direct) => {
            let peer = Peer {
                torrent: &connection.torrent,
                session: &connection.session,
                reader: &connection.reader,
            };
            let slices = direct::read_batch(shard, direct, peer, batch).await;
            slices.map(Payload::Chunks)
        }
        None => {
            let buffer = read_into_buffer(shard, &connection.torrent, batch).await;
            buffer.map(Payload::Buffer)
        }
    }
}

/// Whether others wait for what a payload holds.
pub(crate) fn is_wanted(shard: &Shard) -> bool {
    match &shard.direct {
        Some(direct) => direct.is_exhausted(),
        None => shard.pool.is_exhausted(),
    }
}

/// Reads all bytes of `batch` into a buffer of the shard's pool.
async fn read_into_buffer(
    shard: &Shard,
    torrent: &Arc<SeededTorrent>,
    batch: &Batch,
) -> Result<Buffer, Fault> {
    let taken = shard.pool.take_counted(&shard.cells).await;
    let mut buffer = taken.ok_or_else(|| torrent.fault(FileIndex(0), no_buffer()))?;
    let started = Instant::now();
    for range in torrent
        .layout()
        .block_ranges(batch.piece, batch.begin, batch.bytes)
    {
        buffer = read_range(shard, torrent, range, buffer).await?;
    }
    shard
        .cells
        .record(Histogram::DiskReadDuration, started.elapsed());
    Ok(buffer)
}

/// The pool is closed or miscounted, which is a bug of ours and no fault of the torrent's.
fn no_buffer() -> FaultCause {
    FaultCause::Resources("the buffer pool has no buffer".into())
}

/// Appends one file's part of a batch.
async fn read_range(
    shard: &Shard,
    torrent: &Arc<SeededTorrent>,
    range: FileRange,
    mut buffer: Buffer,
) -> Result<Buffer, Fault> {
    let Some(index) = range.file else {
        if buffer.fill_zero(range.length as usize) {
            return Ok(buffer);
        }
        return Err(torrent.fault(
            FileIndex(0),
            FaultCause::Io("a batch exceeds its buffer".into()),
        ));
    };
    let file = open(shard, torrent, index).await?;
    let mut done: u32 = 0;
    while done < range.length {
        let start = buffer.filled().len();
        let length = (range.length - done) as usize;
        let offset = range.offset + u64::from(done);
        let result;
        shard.cells.increment(Counter::RingSubmissions);
        (result, buffer) = ring::read_at(Rc::clone(&file), buffer, start, length, offset).await;
        match result {
            // Shorter than it was: the stamp says how much.
            Ok(0) => {
                check_stamp(torrent, index, &file)?;
                return Err(torrent.fault(index, FaultCause::Io("unexpected end of file".into())));
            }
            Ok(count) => {
                shard.cells.increment(Counter::DiskReads);
                shard.cells.add(Counter::DiskReadBytes, count as u64);
                done += u32::try_from(count).unwrap_or(u32::MAX);
            }
            Err(error) => return Err(torrent.fault(index, FaultCause::of_io(&error))),
        }
    }
    // After the read, so that an unchanged stamp proves what was read
    // (docs/adr/0004-verified-bytes.md).
    check_stamp(torrent, index, &file)?;
    Ok(buffer)
}

/// The open file, from the table or opened now.
pub(crate) async fn open(
    shard: &Shard,
    torrent: &Arc<SeededTorrent>,
    index: FileIndex,
) -> Result<Rc<OpenFile>, Fault> {
    if let Some(file) = shard.files.cached(torrent, index, shard.now()) {
        shard.cells.increment(Counter::FileHits);
        return Ok(file);
    }
    shard.cells.increment(Counter::FileMisses);
    let (file, evicted) = shard.files.open(torrent, index, shard.now()).await?;
    if evicted {
        shard.cells.increment(Counter::FileEvictions);
    }
    shard.cells.set(Gauge::FilesOpen, shard.files.len() as u64);
    Ok(file)
}
