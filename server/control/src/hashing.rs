//! Hashing the pieces of a torrent's files on all cores: the work under `create` and `verify`.
//!
//! One feeder thread goes through the wanted pieces in order, asks the kernel to read their files
//! ahead, and hands the pieces to hashing threads over a bounded queue. A hashing thread reads
//! [`hash::lanes`] pieces side by side in slices that stay in its core's cache. The calling thread
//! does neither: it reports progress, and stops the others when it is told to.
//!
//! Memory: 1 MiB of buffers for each thread, the queue, and nothing that grows with the data; the
//! page cache holds at most [`AHEAD_BYTES`] that no thread has asked for yet.
//! Does not: decide what a digest or a fault means; that is the caller's work.

mod root;
mod stamp;

pub use root::{Links, Root, special_kind};
pub use stamp::{SETTLE_TIME, settled, stamp_of};

use engine::layout::{BlockRanges, FileIndex, FileRange, FileStamp, StorageLayout};
use hash::{LANES_MAX, Sha1, Sha1Digest};
use proto::ids::PieceIndex;
use rustix::fs::Advice;
use std::fs::File;
use std::io;
use std::num::{NonZeroU64, NonZeroUsize};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use thiserror::Error;

/// How far the feeder may ask the kernel to read ahead of the hashing threads, in bytes.
pub const AHEAD_BYTES: u64 = 64 << 20;

/// Threads beyond this many gain nothing: the disk or the memory bus is the limit long before.
pub const THREADS_MAX: usize = 256;

/// How often progress is reported.
const PROGRESS_PERIOD: Duration = Duration::from_millis(100);

/// The buffers of one thread together, in bytes: what fits a core's cache.
const BUFFER_BYTES: usize = 1 << 20;

/// One lane's buffer is never longer than this, in bytes: more gains nothing.
const SLICE_BYTES_MAX: usize = 128 << 10;

/// Why the bytes of a file cannot be had, or cannot be trusted. The caller names the file.
#[derive(Debug, Error)]
pub enum FileFault {
    /// There is nothing at its path.
    #[error("there is no such file")]
    Missing,
    /// Something else is in its place.
    #[error("it is {kind}, not a regular file")]
    NotRegular {
        /// What it is, in words.
        kind: &'static str,
    },
    /// Its path has a symbolic link that is not followed.
    #[error("a symbolic link stands in its path and is not followed, or leads outside the folder")]
    Link,
    /// Its length is not the torrent's.
    #[error("it has {found} bytes where the torrent has {expected}")]
    WrongSize {
        /// The length in the torrent, in bytes.
        expected: u64,
        /// The length on disk, in bytes.
        found: u64,
    },
    /// Its stamp is not the one from before hashing.
    #[error("it changed while it was being hashed; try again when nothing writes to it")]
    Changed,
    /// It changes faster than it can be stamped.
    #[error("something keeps writing to it; try again when nothing does")]
    Restless,
    /// The system refused something.
    #[error("cannot {operation}: {error}")]
    Io {
        /// What was tried, in words.
        operation: &'static str,
        /// What the system answered.
        error: io::Error,
    },
}

/// A file that holds part of a torrent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DataFile {
    /// Its path beneath the root, as bytes with `/` between folders.
    pub path: Box<[u8]>,
    /// Its stamp from before hashing; `None` if it cannot be read at all, which fails its pieces.
    pub stamp: Option<FileStamp>,
}

impl DataFile {
    /// The path beneath the root.
    pub fn path(&self) -> &Path {
        Path::new(std::ffi::OsStr::from_bytes(&self.path))
    }
}

/// What is to be hashed.
#[derive(Clone, Copy, Debug)]
pub struct HashJob<'a> {
    /// Where the files lie.
    pub root: &'a Root,
    /// The files in the order of the torrent, pad files too, indexed by [`FileIndex`].
    pub files: &'a [DataFile],
    /// Which bytes of the files make which piece.
    pub layout: &'a StorageLayout,
    /// How many threads hash; `None` for one on each core.
    pub threads: Option<NonZeroUsize>,
}

/// How far the work has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress<'a> {
    /// Bytes hashed, those of pieces that could not be read included.
    pub bytes_done: u64,
    /// Bytes to hash.
    pub bytes_total: u64,
    /// The file that is being hashed, relative to the root; with several threads one of them.
    pub file: Option<&'a Path>,
}

/// What becomes of each piece: its digest, or the file at fault and what is wrong with it.
pub type PieceResult = Result<Sha1Digest, (FileIndex, FileFault)>;

/// Why hashing ended before all pieces were done.
#[derive(Debug, Error)]
pub enum HashError {
    /// A callback said stop.
    #[error("stopped before the end")]
    Stopped,
    /// A thread could not be started.
    #[error("cannot start a hashing thread: {0}; raise the limit of tasks or use fewer --threads")]
    Thread(io::Error),
}

/// Hashes `pieces`, gives each result to `on_piece` on whichever thread has it, in no order, and
/// calls `progress` on the calling thread every 100 ms and at the end. Either may stop the work.
pub fn hash_files(
    job: &HashJob<'_>,
    pieces: impl Iterator<Item = PieceIndex> + Clone + Send,
    on_piece: &(dyn Fn(PieceIndex, PieceResult) -> ControlFlow<()> + Sync),
    progress: &mut dyn FnMut(&Progress<'_>) -> ControlFlow<()>,
) -> Result<(), HashError> {
    let lanes = hash::lanes().clamp(1, LANES_MAX);
    hash_files_in_lanes(job, pieces, on_piece, progress, lanes)
}

/// [`hash_files`] with a given number of lanes.
fn hash_files_in_lanes(
    job: &HashJob<'_>,
    pieces: impl Iterator<Item = PieceIndex> + Clone + Send,
    on_piece: &(dyn Fn(PieceIndex, PieceResult) -> ControlFlow<()> + Sync),
    progress: &mut dyn FnMut(&Progress<'_>) -> ControlFlow<()>,
    lanes: usize,
) -> Result<(), HashError> {
    let threads = thread_count(job.threads);
    let bytes_total = pieces
        .clone()
        .map(|piece| u64::from(job.layout.piece_length_of(piece)))
        .sum();
    let ahead = AHEAD_BYTES / u64::from(job.layout.piece_length());
    let (sender, receiver) = sync_channel((ahead as usize).clamp(lanes * threads, 4096));
    let shared = Shared {
        job,
        on_piece,
        queue: Mutex::new(Some(receiver)),
        stopped: AtomicBool::new(false),
        bytes_done: AtomicU64::new(0),
        current_file: AtomicU32::new(u32::MAX),
        running: Mutex::new(0),
        ended: Condvar::new(),
    };
    std::thread::scope(|scope| {
        let shared = &shared;
        let start = || {
            let feeder = move || feed(shared, pieces, &sender);
            std::thread::Builder::new()
                .name("hash-feeder".into())
                .spawn_scoped(scope, feeder)?;
            for thread in 0..threads {
                let running = Running::new(shared);
                let work = move || {
                    let _running = running;
                    HashingThread::new(shared, lanes).run();
                };
                let name = format!("hash-{thread}");
                std::thread::Builder::new()
                    .name(name)
                    .spawn_scoped(scope, work)?;
            }
            Ok(())
        };
        let started = start().map_err(HashError::Thread);
        if started.is_err() {
            shared.stop();
        }
        shared.report_until_ended(bytes_total, progress);
        // With the queue gone the feeder ends too, even if a hashing thread panicked.
        shared.close_queue();
        started
    })?;
    if shared.is_stopped() {
        Err(HashError::Stopped)
    } else {
        Ok(())
    }
}

/// How many threads to use: as many as asked for, else one on each core.
fn thread_count(asked: Option<NonZeroUsize>) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    asked
        .map_or_else(cores, NonZeroUsize::get)
        .clamp(1, THREADS_MAX)
}

/// Locks, also after another thread panicked while it held the lock: what is guarded here stays
/// whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What all threads of one job share.
struct Shared<'a> {
    job: &'a HashJob<'a>,
    on_piece: &'a (dyn Fn(PieceIndex, PieceResult) -> ControlFlow<()> + Sync),
    queue: Mutex<Option<Receiver<PieceIndex>>>,
    stopped: AtomicBool,
    bytes_done: AtomicU64,
    current_file: AtomicU32,
    running: Mutex<usize>,
    ended: Condvar,
}

impl Shared<'_> {
    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Ends the queue, so that a feeder that waits for room in it ends as well.
    fn close_queue(&self) {
        lock(&self.queue).take();
    }

    /// Takes up to `count` pieces off the queue into `pieces`; none when there are no more.
    fn take(&self, count: usize, pieces: &mut Vec<PieceIndex>) {
        pieces.clear();
        let queue = lock(&self.queue);
        let Some(queue) = queue.as_ref() else { return };
        pieces.extend(queue.iter().take(count));
    }

    /// Reports progress until every hashing thread has ended.
    fn report_until_ended(
        &self,
        bytes_total: u64,
        progress: &mut dyn FnMut(&Progress<'_>) -> ControlFlow<()>,
    ) {
        let mut report = || {
            let file = self.current_file.load(Ordering::Relaxed);
            progress(&Progress {
                bytes_done: self.bytes_done.load(Ordering::Relaxed),
                bytes_total,
                file: self.job.files.get(file as usize).map(DataFile::path),
            })
        };
        let mut running = lock(&self.running);
        while *running > 0 {
            let waited = self.ended.wait_timeout(running, PROGRESS_PERIOD);
            running = waited.unwrap_or_else(PoisonError::into_inner).0;
            if *running > 0 {
                drop(running);
                if report().is_break() {
                    self.stop();
                }
                running = lock(&self.running);
            }
        }
        drop(running);
        if !self.is_stopped() {
            // All is done: what the last report answers can no longer stop anything.
            let _ = report();
        }
    }
}

/// Counts one hashing thread for as long as it lives, panics included.
struct Running<'a>(&'a Shared<'a>);

impl<'a> Running<'a> {
    fn new(shared: &'a Shared<'a>) -> Self {
        *lock(&shared.running) += 1;
        Running(shared)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        *lock(&self.0.running) -= 1;
        self.0.ended.notify_all();
    }
}

/// The feeder: queues each piece after asking the kernel to read its files ahead.
fn feed(
    shared: &Shared<'_>,
    pieces: impl Iterator<Item = PieceIndex>,
    sender: &SyncSender<PieceIndex>,
) {
    let mut open: Option<(FileIndex, Option<File>)> = None;
    for piece in pieces {
        for range in shared.job.layout.piece_ranges(piece) {
            let Some(file) = range.file else { continue };
            if open.as_ref().is_none_or(|(index, _)| *index != file) {
                let found = shared
                    .job
                    .files
                    .get(file.0 as usize)
                    .filter(|f| f.stamp.is_some());
                let found = found.and_then(|f| shared.job.root.open_file(f.path()).ok());
                open = Some((file, found.map(|(file, _)| file)));
            }
            if let Some((_, Some(file))) = &open {
                let length = NonZeroU64::new(u64::from(range.length));
                // Only a hint: whoever reads the file reports what is wrong with it.
                let _ = rustix::fs::fadvise(file, range.offset, length, Advice::WillNeed);
            }
        }
        if shared.is_stopped() || sender.send(piece).is_err() {
            return;
        }
    }
}

/// An open file of the torrent; lanes in the same file share one.
struct OpenFile {
    index: FileIndex,
    file: File,
    stamp: FileStamp,
    /// Its length in the torrent, in bytes.
    length: u64,
}

impl OpenFile {
    fn open(job: &HashJob<'_>, index: FileIndex) -> Result<OpenFile, FileFault> {
        let data_file = job.files.get(index.0 as usize).ok_or(FileFault::Missing)?;
        let stamp = data_file.stamp.ok_or(FileFault::Missing)?;
        let (file, metadata) = job.root.open_file(data_file.path())?;
        if stamp_of(&metadata).differs_from(&stamp) {
            return Err(FileFault::Changed);
        }
        Ok(OpenFile {
            index,
            file,
            stamp,
            length: job.layout.file_length(index),
        })
    }

    /// Fills `buffer` from `offset` on.
    fn read(&self, mut buffer: &mut [u8], mut offset: u64) -> Result<(), FileFault> {
        while !buffer.is_empty() {
            match self.file.read_at(buffer, offset) {
                Ok(0) if offset >= self.stamp.size => {
                    let (expected, found) = (self.length, self.stamp.size);
                    return Err(FileFault::WrongSize { expected, found });
                }
                Ok(0) => return Err(FileFault::Changed),
                Ok(count) => {
                    buffer = &mut buffer[count..];
                    offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(FileFault::Io {
                        operation: "read it",
                        error,
                    });
                }
            }
        }
        Ok(())
    }

    /// Whether what was read is what the stamp stands for.
    fn check(&self) -> Result<(), FileFault> {
        let metadata = self.file.metadata().map_err(|error| FileFault::Io {
            operation: "read its metadata",
            error,
        })?;
        if stamp_of(&metadata).differs_from(&self.stamp) {
            return Err(FileFault::Changed);
        }
        Ok(())
    }
}

/// One piece on its way through a hashing thread.
struct Lane<'a> {
    piece: PieceIndex,
    ranges: BlockRanges<'a>,
    /// What is left of the range that is being read.
    range: Option<FileRange>,
    open: Option<Rc<OpenFile>>,
    /// The first thing that went wrong; the rest of the piece is then not read.
    fault: Option<(FileIndex, FileFault)>,
    /// Bytes of the piece that are not read yet.
    left: u32,
}

/// A hashing thread: its buffers and its streams.
struct HashingThread<'a> {
    shared: &'a Shared<'a>,
    lanes: usize,
    buffers: Vec<Vec<u8>>,
    streams: Vec<Sha1>,
    /// The file that was opened last, for the next lane or piece that lies in it.
    recent: Option<Rc<OpenFile>>,
}

impl<'a> HashingThread<'a> {
    fn new(shared: &'a Shared<'a>, lanes: usize) -> Self {
        // A multiple of 64, the block of SHA-1, so that lanes stay in step.
        let slice = (BUFFER_BYTES / lanes).min(SLICE_BYTES_MAX) / 64 * 64;
        let slice = slice.min(shared.job.layout.piece_length() as usize);
        let buffers = (0..lanes).map(|_| vec![0; slice]).collect();
        HashingThread {
            shared,
            lanes,
            buffers,
            streams: vec![Sha1::new(); lanes],
            recent: None,
        }
    }

    fn run(&mut self) {
        let mut pieces = Vec::with_capacity(self.lanes);
        while !self.shared.is_stopped() {
            self.shared.take(self.lanes, &mut pieces);
            if pieces.is_empty() {
                return;
            }
            self.hash(&pieces);
        }
        self.shared.close_queue();
    }

    /// Hashes `pieces`, at most as many as there are lanes, and hands their results out.
    fn hash(&mut self, pieces: &[PieceIndex]) {
        let layout = self.shared.job.layout;
        let lane = |&piece| Lane {
            piece,
            ranges: layout.piece_ranges(piece),
            range: None,
            open: None,
            fault: None,
            left: layout.piece_length_of(piece),
        };
        let mut lanes: Vec<Lane<'_>> = pieces.iter().map(lane).collect();
        while lanes.iter().any(|lane| lane.left > 0) {
            if self.shared.is_stopped() {
                return;
            }
            let mut filled = [0; LANES_MAX];
            for (index, lane) in lanes.iter_mut().enumerate() {
                filled[index] = self.fill(lane, index);
            }
            let slices: Vec<&[u8]> = self
                .buffers
                .iter()
                .zip(filled)
                .map(|(buffer, filled)| &buffer[..filled])
                .collect();
            Sha1::update_many(&mut self.streams[..lanes.len()], &slices[..lanes.len()]);
            let bytes: usize = filled.iter().sum();
            self.shared
                .bytes_done
                .fetch_add(bytes as u64, Ordering::Relaxed);
        }
        for (index, mut lane) in lanes.into_iter().enumerate() {
            self.leave_file(&mut lane);
            let digest = self.streams[index].finish_reset();
            let result = lane.fault.map_or(Ok(digest), Err);
            if (self.shared.on_piece)(lane.piece, result).is_break() {
                self.shared.stop();
                return;
            }
        }
    }

    /// Reads the next slice of the lane's piece into buffer `index` and returns its length.
    fn fill(&mut self, lane: &mut Lane<'_>, index: usize) -> usize {
        if lane.left == 0 {
            return 0;
        }
        let mut buffer = std::mem::take(&mut self.buffers[index]);
        let mut filled = 0;
        while filled < buffer.len() {
            let Some(range) = lane.range.take().or_else(|| lane.ranges.next()) else {
                break;
            };
            let length = (range.length as usize).min(buffer.len() - filled);
            let read = self.read(lane, &range, &mut buffer[filled..filled + length]);
            if let Err(fault) = read {
                lane.fault = range.file.map(|file| (file, fault));
                let done = u64::from(lane.left) - filled as u64;
                self.shared.bytes_done.fetch_add(done, Ordering::Relaxed);
                lane.left = filled as u32;
                break;
            }
            filled += length;
            let left = range.length - length as u32;
            if left > 0 {
                let offset = range.offset + length as u64;
                lane.range = Some(FileRange {
                    offset,
                    length: left,
                    ..range
                });
            }
        }
        lane.left -= filled as u32;
        self.buffers[index] = buffer;
        filled
    }

    /// Fills `buffer` from the start of `range`; padding is zeros.
    fn read(
        &mut self,
        lane: &mut Lane<'_>,
        range: &FileRange,
        buffer: &mut [u8],
    ) -> Result<(), FileFault> {
        let Some(file) = range.file else {
            buffer.fill(0);
            return Ok(());
        };
        if lane.open.as_ref().is_none_or(|open| open.index != file) {
            self.leave_file(lane);
            let recent = self.recent.take().filter(|recent| recent.index == file);
            let open = match recent {
                Some(recent) => recent,
                None => Rc::new(OpenFile::open(self.shared.job, file)?),
            };
            self.recent = Some(Rc::clone(&open));
            lane.open = Some(open);
            self.shared.current_file.store(file.0, Ordering::Relaxed);
        }
        match &lane.open {
            Some(open) => open.read(buffer, range.offset),
            None => Err(FileFault::Missing),
        }
    }

    /// Checks, when a lane has read all that it needs of a file, that the file did not change
    /// meanwhile.
    fn leave_file(&self, lane: &mut Lane<'_>) {
        let Some(open) = lane.open.take() else { return };
        if let (Err(fault), None) = (open.check(), &lane.fault) {
            lane.fault = Some((open.index, fault));
        }
    }
}

#[cfg(test)]
mod tests;
