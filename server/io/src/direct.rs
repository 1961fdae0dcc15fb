//! The `direct` send path: chunks of pieces, read past the page cache into a bounded cache of this
//! shard's, from which peers are sent.
//!
//! [`read_batch`] finds a batch's chunks in the cache, joins reads that are under way, or starts
//! them, and starts those for what the peer has queued next. Which chunk stays is the policy's
//! ([`engine::cache`]), how much of one is read is [`engine::readahead`]'s, the reading is
//! [`crate::chunk_read`]'s.
//!
//! Limits: the slots, counted out at the start. A slot in use is not another's: who finds all in
//! use waits in line, first come first served. Reads for later requests take slots only while half
//! of them are idle, and only while fewer than [`READS_AHEAD_UNTIL`] reads are in flight.
//!
//! A slot's memory is written by one read at a time, whose [`Lease`] lives as long as the kernel
//! may write, and shared by senders after that, whose [`Pin`]s keep it from being read into again.

use crate::aligned::AlignedMemory;
use crate::chunk_read::{self, SLACK_BYTES, Target};
use crate::files::check_stamp;
use crate::payload;
use crate::shard::Shard;
use crate::torrent::{Fault, FaultCause, SeededTorrent};
use engine::cache::{CHUNK_BYTES, ChunkCache, ChunkKey, Extent, Found, Purpose, Slot, UserId};
use engine::layout::FileIndex;
use engine::queue::Batch;
use engine::readahead::{self, LOOK_AHEAD_MAX, Wish};
use engine::session::Session;
use proto::ids::PieceIndex;
use seedring_metrics::{Counter, Gauge, ShardCells};
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

/// The memory of one chunk, in bytes.
pub const SLOT_BYTES: usize = CHUNK_BYTES as usize + SLACK_BYTES;

/// A shard's slots at the least: enough that a batch in two chunks is read while others are sent.
pub const SLOTS_MIN: usize = 8;

/// How many chunks a batch touches at most, since it is no longer than one.
pub(crate) const PARTS_MAX: usize = 2;

/// While so many reads are in flight, none is started for later requests: the disk is busy enough,
/// and with many peers each one's next chunk is read while it waits its turn anyway.
const READS_AHEAD_UNTIL: usize = 32;

/// How many chunks are looked at beyond a peer's batch.
const CHUNKS_AHEAD_MAX: usize = 4;

/// How many slots of the cache one shard of `shards` has, for a configuration of `cache_bytes` over
/// all.
pub fn slots_per_shard(cache_bytes: usize, shards: usize) -> usize {
    let share = cache_bytes / shards.max(1) / SLOT_BYTES;
    // The policy counts slots in 32 bits.
    share.clamp(SLOTS_MIN, u32::MAX as usize / 2)
}

/// The chunk cache of one shard.
pub(crate) struct Direct {
    memory: AlignedMemory,
    cache: RefCell<ChunkCache>,
    /// One permit for each slot that nobody uses, less those that somebody is about to use.
    idle: Semaphore,
    places: RefCell<Box<[Place]>>,
    reads_in_flight: Cell<usize>,
    /// Told when none is left.
    quiet: Notify,
    cells: Arc<ShardCells>,
}

/// What is known of a slot beside the policy's part.
#[derive(Clone, Default)]
struct Place {
    /// Where in the slot the extent starts.
    start: usize,
    /// The read that fills it, while there is one.
    read: Option<Rc<PendingRead>>,
}

/// A read that somebody may wait for.
#[derive(Default)]
struct PendingRead {
    outcome: RefCell<Option<Result<(), Option<Fault>>>>,
    done: Notify,
}

/// A peer whose batch is read.
#[derive(Clone, Copy)]
pub(crate) struct Peer<'a> {
    pub(crate) torrent: &'a Arc<SeededTorrent>,
    /// What it waits for after the batch.
    pub(crate) session: &'a RefCell<Session>,
    pub(crate) reader: &'a Reader,
}

/// What a connection brings to its reads: who it is, and where it was.
pub(crate) struct Reader {
    user: UserId,
    last: Cell<Option<Last>>,
}

/// A peer's last batch.
#[derive(Clone, Copy)]
struct Last {
    piece: PieceIndex,
    begin: u32,
    end: u32,
    continued: bool,
}

impl Default for Reader {
    fn default() -> Reader {
        static NEXT_USER: AtomicU64 = AtomicU64::new(1);
        Reader {
            user: UserId(NEXT_USER.fetch_add(1, Ordering::Relaxed)),
            last: Cell::new(None),
        }
    }
}

impl Reader {
    /// Whether `batch` follows the one before. The same batch again is what it was.
    fn continues(&self, batch: &Batch) -> bool {
        let last = self.last.get().filter(|last| last.piece == batch.piece);
        let continued = last.is_some_and(|last| {
            batch.begin == last.end || (batch.begin == last.begin && last.continued)
        });
        self.last.set(Some(Last {
            piece: batch.piece,
            begin: batch.begin,
            end: batch.begin + batch.bytes,
            continued,
        }));
        continued
    }
}

/// A stretch of requests that lies in one chunk.
#[derive(Clone, Copy)]
struct Part {
    key: ChunkKey,
    chunk_bytes: u32,
    extent: Extent,
}

/// The chunks of a batch, pinned: its bytes one after another.
pub(crate) struct ChunkSlices {
    slices: [Option<ChunkSlice>; PARTS_MAX],
}

/// A run of bytes of a chunk that stays where it is.
struct ChunkSlice {
    pin: Pin,
    start: usize,
    length: usize,
}

impl ChunkSlices {
    /// The runs, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.slices.iter().flatten().map(|slice| {
            let slot = slice.pin.direct.memory.slot(slice.pin.slot.index());
            // SAFETY: the run lies inside what the read has filled (`finish` has checked that it
            // lies in the slot), and nobody writes to a slot whose read is over as long as it is
            // pinned.
            unsafe { std::slice::from_raw_parts(slot.as_ptr().add(slice.start), slice.length) }
        })
    }
}

/// Has all bytes of `batch` in the cache, and keeps them there as long as the result lives.
///
/// # Errors
///
/// The [`Fault`] of the file that could not be read or is no longer what was verified.
pub(crate) async fn read_batch(
    shard: &Shard,
    direct: &Rc<Direct>,
    peer: Peer<'_>,
    batch: &Batch,
) -> Result<ChunkSlices, Fault> {
    let torrent = peer.torrent;
    let continues = peer.reader.continues(batch);
    let mut parts = [None; PARTS_MAX];
    for (place, part) in parts.iter_mut().zip(parts_of(torrent, batch)) {
        *place = Some(part);
    }
    let mut reserved = direct.reserve(parts.iter().flatten().count()).await;
    let mut all_fresh = true;
    let mut pins = [None, None];
    for (pin, part) in pins.iter_mut().zip(parts.iter().flatten()) {
        let (pinned, fresh) = direct
            .pin_or_read(shard, peer, part, continues, &mut reserved)
            .ok_or_else(|| torrent.fault(FileIndex(0), given_up()))?;
        *pin = Some(pinned);
        all_fresh &= fresh;
    }
    drop(reserved);
    direct.read_ahead(shard, peer);
    let mut slices = [None, None];
    for ((slice, pin), part) in slices.iter_mut().zip(pins).zip(parts.iter().flatten()) {
        let Some(pin) = pin else { break };
        pin.wait(torrent).await?;
        *slice = Some(pin.slice(part.extent));
    }
    if !all_fresh {
        check_stamps(shard, torrent, batch).await?;
    }
    Ok(ChunkSlices { slices })
}

/// A read was given up, which is no fault of the torrent's.
fn given_up() -> FaultCause {
    FaultCause::Resources("a read was given up".into())
}

/// The parts of a batch by chunk, in order.
fn parts_of(torrent: &SeededTorrent, batch: &Batch) -> impl Iterator<Item = Part> {
    parts_of_range(torrent, batch.piece, batch.begin, batch.bytes)
}

fn parts_of_range(
    torrent: &SeededTorrent,
    piece: PieceIndex,
    begin: u32,
    bytes: u32,
) -> impl Iterator<Item = Part> {
    let id = torrent.id();
    let piece_bytes = torrent.layout().piece_length_of(piece);
    let (first, last) = (begin / CHUNK_BYTES, (begin + bytes - 1) / CHUNK_BYTES);
    (first..=last).map(move |chunk| {
        let start = chunk * CHUNK_BYTES;
        let chunk_bytes = (piece_bytes - start).min(CHUNK_BYTES);
        Part {
            key: ChunkKey {
                torrent: id,
                piece,
                chunk,
            },
            chunk_bytes,
            extent: Extent {
                from: begin.saturating_sub(start),
                to: (begin + bytes - start).min(chunk_bytes),
            },
        }
    })
}

/// Checks that the files of cached bytes are still what was verified. The bytes are the verified
/// ones in any case, but a torrent whose files have changed is not to be served.
async fn check_stamps(
    shard: &Shard,
    torrent: &Arc<SeededTorrent>,
    batch: &Batch,
) -> Result<(), Fault> {
    let ranges = torrent
        .layout()
        .block_ranges(batch.piece, batch.begin, batch.bytes);
    for index in ranges.filter_map(|range| range.file) {
        let file = payload::open(shard, torrent, index).await?;
        check_stamp(torrent, index, &file)?;
    }
    Ok(())
}

impl Direct {
    /// A cache of `slots` slots.
    ///
    /// # Errors
    ///
    /// The kernel's refusal of so much address space.
    pub(crate) fn new(slots: usize, cells: Arc<ShardCells>) -> io::Result<Direct> {
        cells.set(Gauge::CacheBytes, (slots * SLOT_BYTES) as u64);
        Ok(Direct {
            memory: AlignedMemory::new(slots, SLOT_BYTES)?,
            cache: RefCell::new(ChunkCache::new(slots as u32)),
            idle: Semaphore::new(slots),
            places: RefCell::new(vec![Place::default(); slots].into_boxed_slice()),
            reads_in_flight: Cell::new(0),
            quiet: Notify::new(),
            cells,
        })
    }

    /// How many bytes of the cache hold chunks or are being read into.
    pub(crate) fn used_bytes(&self) -> usize {
        self.cache.borrow().filled() as usize * SLOT_BYTES
    }

    /// Whether somebody waits for a slot, or the next one would.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.idle.available_permits() == 0
    }

    /// Drops what it has of a torrent; what is being sent goes with its last send.
    pub(crate) fn forget(&self, torrent: &SeededTorrent) {
        self.cache.borrow_mut().forget(torrent.id());
    }

    /// Waits until no read is in flight.
    pub(crate) async fn drained(&self) {
        while self.reads_in_flight.get() > 0 {
            self.quiet.notified().await;
        }
    }

    /// Waits in line for `slots` slots that nobody uses.
    async fn reserve(&self, slots: usize) -> SemaphorePermit<'_> {
        let slots = slots as u32;
        if let Ok(permits) = self.idle.try_acquire_many(slots) {
            return permits;
        }
        self.cells.increment(Counter::CacheWaits);
        // All at once: one by one, those who hold one and wait for another could wait for each
        // other.
        let permits = self.idle.acquire_many(slots).await;
        permits.expect("nobody closes this semaphore")
    }

    /// Pins the chunk of `part`, which is here, on its way, or read from now on; takes a slot from
    /// `reserved` if nobody used it before. Also says whether the bytes are newly read. `None` if
    /// no read can be started.
    fn pin_or_read(
        self: &Rc<Self>,
        shard: &Shard,
        peer: Peer<'_>,
        part: &Part,
        continues: bool,
        reserved: &mut SemaphorePermit<'_>,
    ) -> Option<(Pin, bool)> {
        let user = peer.reader.user;
        let found = self.cache.borrow().find(part.key, part.extent);
        let (counter, slot) = match found {
            Found::Present(slot) => (Counter::CacheHits, slot),
            Found::Reading(slot) => (Counter::CacheJoined, slot),
            Found::Other(_) | Found::Absent => {
                let shared = matches!(found, Found::Other(other) if other != user);
                let extent = self.extent_to_read(peer, part, continues, shared);
                let slot = self.start(shard, peer.torrent, part, extent, user, false)?;
                use_up(reserved);
                (Counter::CacheMisses, slot)
            }
        };
        self.cells.increment(counter);
        let mut cache = self.cache.borrow_mut();
        if !cache.is_used(slot) {
            use_up(reserved);
        }
        cache.pin(slot, user);
        let pin = Pin {
            direct: Rc::clone(self),
            slot,
            read: self.places.borrow()[slot.index()].read.clone(),
        };
        Some((pin, counter != Counter::CacheHits))
    }

    /// How much of the chunk of `part` to read.
    fn extent_to_read(&self, peer: Peer<'_>, part: &Part, continues: bool, shared: bool) -> Extent {
        let wish = Wish {
            piece: part.key.piece,
            chunk: part.key.chunk,
            chunk_bytes: part.chunk_bytes,
            extent: part.extent,
            continues,
            shared,
        };
        let session = peer.session.borrow();
        readahead::extent_to_read(&wish, session.queued())
    }

    /// Starts reads of what the peer has queued, as far as slots and disk are idle.
    fn read_ahead(self: &Rc<Self>, shard: &Shard, peer: Peer<'_>) {
        let torrent = peer.torrent;
        let session = peer.session.borrow();
        let blocks = session.queued().take(LOOK_AHEAD_MAX);
        let parts = blocks
            .flat_map(|block| parts_of_range(torrent, block.piece, block.begin, block.length));
        let mut chunks = 0;
        let mut previous = None;
        for part in parts {
            if previous.replace(part.key) == Some(part.key) {
                continue;
            }
            chunks += 1;
            if chunks > CHUNKS_AHEAD_MAX || !self.may_read_ahead() {
                return;
            }
            let found = self.cache.borrow().find(part.key, part.extent);
            if found != Found::Absent {
                continue;
            }
            let Ok(permit) = self.idle.try_acquire() else {
                return;
            };
            let extent = self.extent_to_read(peer, &part, false, false);
            let user = peer.reader.user;
            if self
                .start(shard, torrent, &part, extent, user, true)
                .is_none()
            {
                return;
            }
            permit.forget();
        }
    }

    fn may_read_ahead(&self) -> bool {
        let cache = self.cache.borrow();
        self.reads_in_flight.get() < READS_AHEAD_UNTIL
            && cache.ahead() < cache.slots() / 4
            && self.idle.available_permits() > cache.slots() as usize / 2
    }

    /// Starts the read of `extent` of a chunk, for which a slot is reserved.
    fn start(
        self: &Rc<Self>,
        shard: &Shard,
        torrent: &Arc<SeededTorrent>,
        part: &Part,
        extent: Extent,
        user: UserId,
        ahead: bool,
    ) -> Option<Slot> {
        let shard = shard.handle()?;
        let purpose = Purpose {
            user,
            ahead,
            passing: readahead::is_passing(extent, part.chunk_bytes),
        };
        let started = self
            .cache
            .borrow_mut()
            .start_read(part.key, extent, purpose);
        let (slot, evicted) = started?;
        if let Some(evicted) = evicted {
            self.cells.increment(if evicted.unused {
                Counter::CacheEvictionsUnused
            } else {
                Counter::CacheEvictions
            });
        }
        let read = Rc::new(PendingRead::default());
        self.places.borrow_mut()[slot.index()].read = Some(Rc::clone(&read));
        self.reads_in_flight.set(self.reads_in_flight.get() + 1);
        let lease = Lease {
            direct: Rc::clone(self),
            slot,
            read,
            finished: Cell::new(false),
        };
        let target = Target {
            piece: part.key.piece,
            begin: part.key.chunk * CHUNK_BYTES + extent.from,
            bytes: extent.bytes(),
        };
        let torrent = Arc::clone(torrent);
        tokio_uring::spawn(chunk_read::run(shard, torrent, target, Rc::new(lease)));
        Some(slot)
    }

    /// Ends a read, for its waiters too.
    fn read_ended(&self, slot: Slot, read: &PendingRead, outcome: Result<usize, Option<Fault>>) {
        let place = &mut self.places.borrow_mut()[slot.index()];
        place.read = None;
        let success = outcome.is_ok();
        if let Ok(start) = outcome {
            place.start = start;
        }
        if self.cache.borrow_mut().read_done(slot, success) {
            self.idle.add_permits(1);
        }
        *read.outcome.borrow_mut() = Some(outcome.map(|_start| ()));
        read.done.notify_waiters();
        self.reads_in_flight.set(self.reads_in_flight.get() - 1);
        if self.reads_in_flight.get() == 0 {
            self.quiet.notify_one();
        }
    }
}

/// Takes one slot off a reservation: it is in use now, and idle again when its last user goes.
fn use_up(reserved: &mut SemaphorePermit<'_>) {
    if let Some(one) = reserved.split(1) {
        one.forget();
    }
}

/// Keeps a chunk in its slot.
struct Pin {
    direct: Rc<Direct>,
    slot: Slot,
    /// The read that was to fill it when it was pinned.
    read: Option<Rc<PendingRead>>,
}

impl Pin {
    /// Waits until the chunk has been read.
    async fn wait(&self, torrent: &SeededTorrent) -> Result<(), Fault> {
        let Some(read) = &self.read else {
            return Ok(());
        };
        loop {
            // Made before the look, so that what comes between the two is not missed.
            let done = read.done.notified();
            if let Some(outcome) = &*read.outcome.borrow() {
                let given_up = || torrent.fault(FileIndex(0), given_up());
                return outcome
                    .clone()
                    .map_err(|fault| fault.unwrap_or_else(given_up));
            }
            done.await;
        }
    }

    /// The bytes of `wanted`, which the chunk's extent covers.
    fn slice(self, wanted: Extent) -> ChunkSlice {
        let start = self.direct.places.borrow()[self.slot.index()].start;
        let extent = self.direct.cache.borrow().extent(self.slot);
        assert!(extent.covers(wanted), "the policy has found it");
        ChunkSlice {
            start: start + (wanted.from - extent.from) as usize,
            length: wanted.bytes() as usize,
            pin: self,
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if self.direct.cache.borrow_mut().unpin(self.slot) {
            self.direct.idle.add_permits(1);
        }
    }
}

/// The right to write to a slot: its read's alone, until the last operation of that read has
/// completed.
pub(crate) struct Lease {
    direct: Rc<Direct>,
    slot: Slot,
    read: Rc<PendingRead>,
    finished: Cell<bool>,
}

impl Lease {
    /// Where `length` bytes at `start` of the slot are; `None` unless they lie inside it.
    pub(crate) fn target(&self, start: usize, length: usize) -> Option<*mut u8> {
        let memory = &self.direct.memory;
        let end = start.checked_add(length)?;
        if end > memory.slot_bytes() || self.finished.get() {
            return None;
        }
        // SAFETY: inside the slot, checked above.
        Some(unsafe { memory.slot(self.slot.index()).as_ptr().add(start) })
    }

    /// Writes zeros: the content of a pad file (BEP 47).
    pub(crate) fn zero(&self, start: usize, length: usize) {
        let target = self.target(start, length).expect("a chunk fits its slot");
        // SAFETY: inside the slot, which is this lease's alone to write, and no operation is in
        // flight.
        unsafe { target.write_bytes(0, length) };
    }

    /// Moves bytes to a place before them.
    pub(crate) fn move_down(&self, from: usize, to: usize, length: usize) {
        if from == to {
            return;
        }
        let source = self.target(from, length).expect("a chunk fits its slot");
        let target = self.target(to, length).expect("a chunk fits its slot");
        // SAFETY: both lie inside the slot, which is this lease's alone, and no operation is in
        // flight.
        unsafe { source.copy_to(target, length) };
    }

    /// Ends the read: the extent lies in the slot from the given place on, or it could not be had.
    pub(crate) fn finish(&self, outcome: Result<usize, Fault>) {
        if !self.finished.replace(true) {
            self.direct
                .read_ended(self.slot, &self.read, outcome.map_err(Some));
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Its task has gone before the end, and now so has its last operation.
        if !self.finished.get() {
            self.direct.read_ended(self.slot, &self.read, Err(None));
        }
    }
}

#[cfg(test)]
mod tests;
