//! Brings what peers wait for into the page cache, so that it can be sent from there without a
//! copy.
//!
//! A range that is not in memory is asked for by advice through the ring, which starts its reads,
//! and ring reads of single bytes complete when they have come: nothing is copied and the shard
//! does not wait. While one peer's batch is read, the ranges that it has queued after it are read
//! as well, and a little of what it will ask for if it goes on in order. The kernel's own readahead
//! is off: it does not know what peers have asked for.
//!
//! A range is read once for all peers that wait for it. Limits: each peer waits for one range;
//! reads ahead are at most [`AHEAD_BYTES`] for a peer and end where [`READS_MAX`] are under way.

use crate::connection::Connection;
use crate::files::OpenFile;
use crate::residency::{is_readable_at_once, probes};
use crate::ring;
use crate::shard::Shard;
use crate::splicing::Part;
use engine::queue::Batch;
use engine::runs::{Run, runs};
use seedring_metrics::{Counter, Histogram};
use std::cell::RefCell;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Instant;
use tokio::sync::Notify;

/// What is read before its turn for one peer, in bytes.
const AHEAD_BYTES: u32 = 1 << 20;

/// The longest range that the kernel is asked for at once, in bytes: with the usual `read_ahead_kb`
/// of 128 it follows advice no further.
const ASK_BYTES: u32 = 128 << 10;

/// Reads of one shard under way beyond which nothing is read ahead: what keeps a fast disk busy.
const READS_MAX: usize = 128;

/// No page is larger than this, in bytes, on any machine that we know.
const PAGE_BYTES_MAX: u64 = 64 << 10;

/// Batches that a peer finds in memory before it is believed to need no reading ahead.
const WARM_BATCHES: u32 = 16;

/// The reads of one shard that are under way.
#[derive(Default)]
pub(crate) struct Warming {
    reads: RefCell<Vec<Rc<Read>>>,
}

/// Bytes of a file that are being read.
struct Read {
    file: Rc<OpenFile>,
    start: u64,
    end: u64,
    done: Notify,
}

/// A range of an open file.
struct Range {
    file: Rc<OpenFile>,
    offset: u64,
    length: u32,
}

impl Range {
    /// Where `part` lies; `None` for padding.
    fn of(part: &Part) -> Option<Range> {
        let (_, file) = part.file.as_ref()?;
        Some(Range {
            file: Rc::clone(file),
            offset: part.offset,
            length: part.length,
        })
    }

    fn end(&self) -> u64 {
        self.offset + u64::from(self.length)
    }

    /// Whether all of it is in memory, as far as is known.
    fn is_resident(&self, shard: &Shard) -> bool {
        let (windows, length) = (&shard.windows, u64::from(self.length));
        let look = || self.is_found(shard);
        windows.are_resident(&self.file, self.offset, length, shard.now(), look)
    }

    /// Whether all of it is in memory. Pages that are still being read count as being there for
    /// `cachestat`; this shard knows of its own reads, so only while other shards have some under
    /// way is there a closer look.
    fn is_found(&self, shard: &Shard) -> bool {
        let (file, length) = (&*self.file, u64::from(self.length));
        let others_read = shard.limits.reads_under_way() > shard.warming.reads.borrow().len();
        let mut places = probes(self.offset, length);
        shard.residency.is_resident(file, self.offset, length)
            && (!others_read || places.all(|at| is_readable_at_once(file, at)))
    }
}

impl Warming {
    /// Waits until no read is under way.
    pub(crate) async fn drained(&self) {
        loop {
            let first = self.reads.borrow().first().map(Rc::clone);
            let Some(read) = first else { return };
            read.done.notified().await;
        }
    }

    /// A read under way that touches a page of `range`.
    fn find(&self, range: &Range) -> Option<Rc<Read>> {
        let reads = self.reads.borrow();
        let mut touching = reads.iter().filter(|read| {
            Rc::ptr_eq(&read.file, &range.file)
                && read.start / PAGE_BYTES_MAX <= (range.end() - 1) / PAGE_BYTES_MAX
                && range.offset / PAGE_BYTES_MAX <= (read.end - 1) / PAGE_BYTES_MAX
        });
        touching.next().map(Rc::clone)
    }

    /// Waits until nothing of `range` is being read. True if something was.
    async fn settle(&self, range: &Range) -> bool {
        let mut waited = false;
        while let Some(read) = self.find(range) {
            let done = read.done.notified();
            waited = true;
            done.await;
        }
        waited
    }
}

/// A read's place in the list; leaving it tells who waits.
struct UnderWay<'a> {
    shard: &'a Shard,
    read: Rc<Read>,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.shard.limits.read_ended();
        let mut reads = self.shard.warming.reads.borrow_mut();
        reads.retain(|read| !Rc::ptr_eq(read, &self.read));
        self.read.done.notify_waiters();
    }
}

/// Waits for what of `parts`, the place of `batch`, is being read, and has the peer's queue read
/// ahead if its data are cold. With `read` it also brings in what is not there; a failure shows
/// when the bytes are wanted. True if all of them are in memory.
pub(crate) async fn warm(
    shard: &Shard,
    connection: &Connection,
    batch: &Batch,
    parts: &[Part],
    read: bool,
) -> bool {
    let (mut is_resident, mut is_cold, mut looked) = (true, false, false);
    for part in parts {
        let Some(range) = Range::of(part) else {
            continue;
        };
        is_cold |= shard.warming.settle(&range).await;
        if range.is_resident(shard) {
            continue;
        }
        is_cold = true;
        if !looked {
            // Before the read for this batch, so that they are under way together.
            look_ahead(shard, connection, batch);
            looked = true;
        }
        is_resident = read && bring_in(shard, range).await && is_resident;
    }
    let mut progress = connection.progress.get();
    progress.advance(Run::from(batch));
    connection.progress.set(progress);
    // For a while after cold data what was read ahead is found in memory, and reading ahead has to
    // go on.
    let warmth = connection.warmth.get();
    connection.warmth.set(match is_cold {
        true => WARM_BATCHES,
        false => warmth.saturating_sub(1),
    });
    if !looked && (is_cold || warmth > 0) {
        look_ahead(shard, connection, batch);
    }
    is_resident
}

/// Brings `range` into the page cache. False if that failed: whoever wants the bytes will find out
/// why.
async fn bring_in(shard: &Shard, range: Range) -> bool {
    let read = Rc::new(Read {
        start: range.offset,
        end: range.end(),
        file: Rc::clone(&range.file),
        done: Notify::new(),
    });
    shard.warming.reads.borrow_mut().push(Rc::clone(&read));
    shard.limits.read_started();
    let _under_way = UnderWay { shard, read };
    let started = Instant::now();
    let mut asked = 0;
    while asked < range.length {
        let step = (range.length - asked).min(ASK_BYTES);
        shard.cells.increment(Counter::RingSubmissions);
        let offset = range.offset + u64::from(asked);
        if ring::ask_for(Rc::clone(&range.file), offset, step)
            .await
            .is_err()
        {
            break;
        }
        asked += step;
    }
    shard.cells.increment(Counter::DiskReads);
    let bytes = u64::from(range.length);
    shard.cells.add(Counter::DiskReadBytes, bytes);
    // The last byte most likely comes last.
    let last = range.end() - 1;
    let places = std::iter::once(last).chain(probes(range.offset, bytes));
    for (number, place) in places.enumerate() {
        if number > 0 && is_readable_at_once(&*range.file, place) {
            continue;
        }
        shard.cells.increment(Counter::RingSubmissions);
        if !matches!(
            ring::read_byte(Rc::clone(&range.file), place).await,
            Ok(true)
        ) {
            return false;
        }
    }
    let elapsed = started.elapsed();
    shard.cells.record(Histogram::DiskReadDuration, elapsed);
    // The advice may have been followed in part, or a page may have gone again.
    range.is_resident(shard)
}

/// Starts reads of what the peer is going to be sent after `batch`.
fn look_ahead(shard: &Shard, connection: &Connection, batch: &Batch) {
    let layout = connection.torrent.layout();
    let run_bytes_max = shard.config.batch_bytes;
    let session = connection.session.borrow();
    let mut latest = Run::from(batch);
    let mut progress = connection.progress.get();
    progress.advance(latest);
    for run in runs(session.queued(), run_bytes_max, AHEAD_BYTES) {
        start(shard, connection, run);
        progress.advance(run);
        latest = run;
    }
    let piece_bytes = layout.piece_length_of(latest.piece);
    if let Some(run) = progress.expected(latest, piece_bytes, run_bytes_max) {
        start(shard, connection, run);
    }
}

/// Starts the reads of `run`, as far as its files are open, it is not in memory, and not too many
/// are under way.
fn start(shard: &Shard, connection: &Connection, run: Run) {
    let torrent = &connection.torrent;
    for place in torrent
        .layout()
        .block_ranges(run.piece, run.begin, run.bytes)
    {
        let Some(index) = place.file else { continue };
        let Some(file) = shard.files.cached(torrent, index, shard.now()) else {
            return;
        };
        let range = Range {
            file,
            offset: place.offset,
            length: place.length,
        };
        if shard.warming.find(&range).is_some() || range.is_resident(shard) {
            continue;
        }
        if shard.warming.reads.borrow().len() >= READS_MAX {
            return;
        }
        let Some(shard) = shard.handle() else { return };
        tokio_uring::spawn(async move { bring_in(&shard, range).await });
    }
}

/// Turns the kernel's readahead for `file` off: a read fetches what it asks for.
pub(crate) fn stop_readahead(file: &impl AsRawFd) {
    // SAFETY: advice about a descriptor that its owner keeps open for the length of the call.
    // Refused, reads fetch more than they ask for, which is no harm but the waste.
    unsafe {
        libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_RANDOM);
    }
}
