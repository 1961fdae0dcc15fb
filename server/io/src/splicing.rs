//! A batch sent without a copy: a pipe is filled with headers and pages in turn and emptied into the socket.
//!
//! Only for what is in memory, so that no call waits for a disk, and only for files under a lease, so that
//! nobody changes the pages on their way (docs/adr/0009-send-paths.md). Nothing reaches the socket before the
//! whole batch is in the pipe and the files' stamps have been checked (under a lease, lately): a batch that
//! cannot be sent is thrown away with its pipe.

use crate::closing::CloseReason;
use crate::connection::Connection;
use crate::constants::{ZERO_BYTES, ZEROS};
use crate::files::{OpenFile, check_stamp};
use crate::leases;
use crate::payload;
use crate::pipes::{BorrowedPipe, SLOTS};
use crate::plane::SendPath;
use crate::sending::{Full, Remaining, patience, wait_writable};
use crate::shard::Shard;
use crate::torrent::{Fault, FaultCause, SeededTorrent};
use engine::layout::FileIndex;
use engine::queue::Batch;
use proto::wire::{self, PIECE_HEADER_BYTES};
use seedring_metrics::Counter;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

/// A run of a batch's bytes in one file, or of padding.
pub(crate) struct Part {
    pub(crate) file: Option<(FileIndex, Rc<OpenFile>)>,
    pub(crate) offset: u64,
    pub(crate) length: u32,
}

/// Where the bytes of `batch` lie, with their files open.
///
/// # Errors
///
/// The [`Fault`] of a file that cannot be opened or is no longer what was verified.
pub(crate) async fn locate(
    shard: &Shard,
    torrent: &Arc<SeededTorrent>,
    batch: &Batch,
) -> Result<Vec<Part>, Fault> {
    let mut parts = Vec::with_capacity(1);
    for range in torrent
        .layout()
        .block_ranges(batch.piece, batch.begin, batch.bytes)
    {
        let file = match range.file {
            Some(index) => Some((index, payload::open(shard, torrent, index).await?)),
            None => None,
        };
        parts.push(Part {
            file,
            offset: range.offset,
            length: range.length,
        });
    }
    Ok(parts)
}

/// Whether `batch` may be sent as pages: a pipe holds it, and its files are under leases. With
/// [`SendPath::Splice`] nobody asks for leases.
pub(crate) fn suits(shard: &Shard, batch: &Batch, parts: &[Part]) -> bool {
    // Each block adds its header, and its first page counts twice if it continues another block's.
    let mut slots = 2 * batch.count as usize;
    for part in parts {
        slots += match &part.file {
            Some(_) => shard.pipes.pages(part.offset, u64::from(part.length)),
            // Runs of zeros, each of whole pages but for its end, divided by block borders.
            None => shard.pipes.pages(0, u64::from(part.length)) + 1,
        };
    }
    slots <= SLOTS && are_leased(shard, parts)
}

fn are_leased(shard: &Shard, parts: &[Part]) -> bool {
    let is_forced = shard.config.send_path == SendPath::Splice;
    let mut files = parts.iter().filter_map(|part| part.file.as_ref());
    is_forced || files.all(|(_, file)| shard.files.is_leased(file, shard.now()))
}

/// Whether the kernel says so too, as far as it was not asked just now.
fn are_still_leased(shard: &Shard, parts: &[Part]) -> bool {
    let is_forced = shard.config.send_path == SendPath::Splice;
    let mut files = parts.iter().filter_map(|part| part.file.as_ref());
    is_forced || files.all(|(_, file)| file.is_proven(shard.now()) || leases::is_held(&**file))
}

/// A pipe for the last `bytes` of a batch, whose files are then known to be on their way. `None` if none is
/// free, if too many files are on their way to this peer, or if a lease has been lost since [`suits`] was asked.
pub(crate) fn pipe_for(
    shard: &Shard,
    connection: &Connection,
    parts: &[Part],
    bytes: usize,
) -> Option<BorrowedPipe> {
    // Nothing is waited for between this and the note that the files are on their way, on which a writer waits. A
    // lease may also have been taken away, while this machine slept or stood still.
    if !are_leased(shard, parts) || !are_still_leased(shard, parts) {
        return None;
    }
    let pipe = shard.pipes.take()?;
    let mut in_transit = connection.in_transit.borrow_mut();
    let mut files = parts.iter().filter_map(|part| part.file.as_ref());
    if !files.all(|(_, file)| in_transit.add(&*connection.socket, file, bytes)) {
        in_transit.cut();
        return None;
    }
    Some(pipe)
}

/// Sends what is left of `batch` through `pipe`. `None`, with nothing sent, if the system puts no pages into it.
///
/// # Errors
///
/// Why the connection is to be closed.
pub(crate) async fn send(
    shard: &Shard,
    connection: &Connection,
    batch: &Batch,
    parts: &[Part],
    mut pipe: BorrowedPipe,
    left: &mut Remaining,
) -> Result<Option<Full>, CloseReason> {
    let torrent = &connection.torrent;
    if let Err((file, error)) = fill(shard, &mut pipe, batch, parts, left.sent) {
        connection.in_transit.borrow_mut().cut();
        if !shard.pipes.are_refused(&error) {
            return Err(shard.report(torrent, fault(torrent, file, &error)));
        }
        return Ok(None);
    }
    prove(shard, torrent, parts).map_err(|fault| shard.report(torrent, fault))?;
    shard.cells.increment(Counter::SendsSplice);
    let mut pipe = Some(pipe);
    loop {
        let Some(filled) = &mut pipe else {
            return Ok(Some(Full::Yes));
        };
        match filled.send_to(&*connection.socket) {
            Ok(0) => return Err(CloseReason::Reset),
            Ok(count) => {
                left.progressed(shard, connection, count);
                if left.bytes() == 0 {
                    return Ok(Some(Full::No));
                }
                shard.cells.increment(Counter::PartialSends);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(CloseReason::of_socket(&error)),
        }
        let patience = patience(shard.pipes.is_exhausted());
        let give_back = || {
            pipe = None;
            connection.in_transit.borrow_mut().cut();
        };
        wait_writable(shard, connection, Some(patience), give_back).await?;
    }
}

/// Checks the stamps of the files whose pages are in a pipe: unchanged, they prove that the pages are what was
/// verified. Under a lease one check holds for a while.
fn prove(shard: &Shard, torrent: &SeededTorrent, parts: &[Part]) -> Result<(), Fault> {
    let is_leased = shard.config.send_path != SendPath::Splice;
    let now = shard.now();
    for (index, file) in parts.iter().filter_map(|part| part.file.as_ref()) {
        if is_leased && file.is_proven(now) {
            continue;
        }
        check_stamp(torrent, *index, file)?;
        if is_leased {
            file.set_proven(now);
        }
    }
    Ok(())
}

/// What is wrong with a file whose pages could not be had.
fn fault(torrent: &SeededTorrent, file: FileIndex, error: &io::Error) -> Fault {
    let cause = match error.kind() {
        io::ErrorKind::UnexpectedEof => FaultCause::Io("unexpected end of file".into()),
        _ => FaultCause::of_io(error),
    };
    torrent.fault(file, cause)
}

/// Puts the headers and pages of `batch` into `pipe`, without the first `skip` bytes.
fn fill(
    shard: &Shard,
    pipe: &mut BorrowedPipe,
    batch: &Batch,
    parts: &[Part],
    skip: usize,
) -> Result<(), (FileIndex, io::Error)> {
    let mut headers = shard.headers.borrow_mut();
    let mut content = Content { parts, at: 0 };
    let mut skip = skip;
    for block in batch.blocks() {
        let length = block.length as usize;
        if skip < PIECE_HEADER_BYTES {
            let header = wire::piece_header(block.piece, block.begin, block.length);
            let kept = headers.keep(header);
            let appended = kept.and_then(|kept| {
                // SAFETY: the arena never writes to what it has handed out.
                unsafe { pipe.append_constant(&kept[skip..]) }
            });
            appended.map_err(|error| (content.file(), error))?;
        }
        let skipped = skip.saturating_sub(PIECE_HEADER_BYTES).min(length);
        skip = skip.saturating_sub(PIECE_HEADER_BYTES + length);
        content.skip(skipped);
        content.append_to(pipe, length - skipped)?;
    }
    Ok(())
}

/// A place in the bytes of a batch.
struct Content<'a> {
    /// The rest of them; the first is the one that the place is in.
    parts: &'a [Part],
    /// Bytes of the first one that lie before the place.
    at: usize,
}

impl Content<'_> {
    /// The file at the place, to name in an error.
    fn file(&self) -> FileIndex {
        let files = self.parts.iter().filter_map(|part| part.file.as_ref());
        files
            .map(|(index, _)| *index)
            .next()
            .unwrap_or(FileIndex(0))
    }

    /// Moves the place by `length` bytes.
    fn skip(&mut self, mut length: usize) {
        while let Some(part) = self.parts.first() {
            let rest = part.length as usize - self.at;
            if length < rest {
                break;
            }
            length -= rest;
            self.at = 0;
            self.parts = &self.parts[1..];
        }
        self.at += length;
    }

    /// Appends the next `length` bytes.
    fn append_to(
        &mut self,
        pipe: &mut BorrowedPipe,
        mut length: usize,
    ) -> Result<(), (FileIndex, io::Error)> {
        while length > 0 {
            let Some(part) = self.parts.first() else {
                return Err((FileIndex(0), io::ErrorKind::UnexpectedEof.into()));
            };
            let mut count = length.min(part.length as usize - self.at);
            let appended = match &part.file {
                Some((_, file)) => pipe.append_file(&**file, part.offset + self.at as u64, count),
                None => {
                    count = count.min(ZERO_BYTES);
                    // SAFETY: a constant of the program.
                    unsafe { pipe.append_constant(&ZEROS.0[..count]) }
                }
            };
            appended.map_err(|error| (self.file(), error))?;
            length -= count;
            self.skip(count);
        }
        Ok(())
    }
}
