//! A batch sent without a copy: a pipe is filled with headers and pages in turn and emptied into
//! the socket.
//!
//! Only for what is in memory, so that no call waits for a disk, and only for files under a lease,
//! so that nobody changes the pages on their way (docs/adr/0009-send-paths.md). Nothing reaches the
//! socket before the whole batch is in the pipe and the files' stamps have been checked (under a
//! lease, lately): a batch that cannot be sent is thrown away with its pipe.

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
use crate::torrent::{Fault, SeededTorrent};
use crate::windows::Run;
use engine::layout::FileIndex;
use engine::queue::{BATCH_BLOCKS_MAX, Batch};
use proto::wire;
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
    slots <= SLOTS && are_mappable(parts) && are_leased(shard, parts)
}

fn are_mappable(parts: &[Part]) -> bool {
    let mut files = parts.iter().filter_map(|part| part.file.as_ref());
    files.all(|(_, file)| !file.is_unmappable())
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

/// A pipe for the last `bytes` of a batch, whose files are then known to be on their way. `None` if
/// none is free, if too many files are on their way to this peer, or if a lease has been lost since
/// [`suits`] was asked.
pub(crate) fn pipe_for(
    shard: &Shard,
    connection: &Connection,
    parts: &[Part],
    bytes: usize,
) -> Option<BorrowedPipe> {
    // Nothing is waited for between this and the note that the files are on their way, on which a
    // writer waits. A lease may also have been taken away, while this machine slept or stood still.
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

/// Sends what is left of `batch` through `pipe`. `None` if it can not be sent this way: a page can
/// not be had, or the system refuses the calls. What was sent until then counts.
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
    if fill(shard, torrent, &mut pipe, batch, parts, left.sent).is_err() {
        connection.in_transit.borrow_mut().cut();
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
            Err(error) if shard.pipes.are_refused(&error) => {
                drop(pipe.take());
                connection.in_transit.borrow_mut().cut();
                return Ok(None);
            }
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

/// Checks the stamps of the files whose pages are in a pipe: unchanged, they prove that the pages
/// are what was verified. Under a lease one check holds for a while.
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

/// Puts the headers and pages of `batch` into `pipe`, without the first `skip` bytes.
///
/// # Errors
///
/// A page could not be had, whatever the reason: reading tells.
fn fill(
    shard: &Shard,
    torrent: &SeededTorrent,
    pipe: &mut BorrowedPipe,
    batch: &Batch,
    parts: &[Part],
    skip: usize,
) -> io::Result<()> {
    let mut arena = shard.headers.borrow_mut();
    let headers = batch
        .blocks()
        .map(|block| wire::piece_header(block.piece, block.begin, block.length));
    let headers = arena.keep(headers)?;
    let content = map(shard, torrent, parts)?;
    let mut content = Runs {
        runs: &content,
        at: 0,
    };
    let mut message = Message::new(skip);
    for (header, block) in headers.iter().zip(batch.blocks()) {
        message.add(header.as_ptr(), header.len());
        content.append_to(&mut message, block.length as usize)?;
    }
    let bytes = message.bytes;
    // SAFETY: the arena never writes to what it has handed out, the zeros are constant, and the
    // rest is windows of files, which stay while a batch is put together.
    let appended = unsafe { pipe.append(&mut message.parts, bytes) };
    appended.inspect_err(|error| {
        shard.pipes.are_refused(error);
    })
}

/// Where the bytes of `parts` are mapped.
fn map(shard: &Shard, torrent: &SeededTorrent, parts: &[Part]) -> io::Result<Vec<Run>> {
    let mut runs = Vec::with_capacity(2);
    for part in parts {
        let mut done = 0;
        while done < part.length {
            let left = (part.length - done) as usize;
            let run = match &part.file {
                Some((index, file)) => {
                    let file_bytes = torrent.layout().file_length(*index);
                    let offset = part.offset + u64::from(done);
                    let now = shard.now();
                    shard.windows.find(file, file_bytes, offset, left, now)?
                }
                None => Run {
                    start: ZEROS.0.as_ptr(),
                    length: left.min(ZERO_BYTES),
                },
            };
            done += u32::try_from(run.length).unwrap_or(u32::MAX);
            runs.push(run);
        }
    }
    Ok(runs)
}

/// What goes into a pipe at once.
struct Message {
    parts: Vec<libc::iovec>,
    bytes: usize,
    /// Bytes that have been sent before.
    skip: usize,
}

impl Message {
    fn new(skip: usize) -> Message {
        Message {
            parts: Vec::with_capacity(2 * BATCH_BLOCKS_MAX + 1),
            bytes: 0,
            skip,
        }
    }

    /// Adds what of `length` bytes from `start` has not been sent.
    fn add(&mut self, start: *const u8, length: usize) {
        let skipped = self.skip.min(length);
        self.skip -= skipped;
        if skipped < length {
            self.parts.push(libc::iovec {
                iov_base: start.wrapping_add(skipped).cast_mut().cast(),
                iov_len: length - skipped,
            });
            self.bytes += length - skipped;
        }
    }
}

/// A place in runs of bytes.
struct Runs<'a> {
    /// The rest of them; the first is the one that the place is in.
    runs: &'a [Run],
    /// Bytes of the first one that lie before the place.
    at: usize,
}

impl Runs<'_> {
    /// Appends the next `length` bytes to `message`.
    fn append_to(&mut self, message: &mut Message, mut length: usize) -> io::Result<()> {
        while length > 0 {
            let run = self.runs.first().ok_or(io::ErrorKind::UnexpectedEof)?;
            let count = length.min(run.length - self.at);
            message.add(run.start.wrapping_add(self.at), count);
            length -= count;
            self.at += count;
            if self.at == run.length {
                self.runs = &self.runs[1..];
                self.at = 0;
            }
        }
        Ok(())
    }
}
