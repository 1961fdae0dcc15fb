//! Hashing the pieces of a torrent's files on all cores: the work under `create` and `verify`.
//!
//! Each hashing thread takes [`hash::lanes`] pieces off the list, reads them side by side and
//! hashes them side by side. What is in memory already is read in slices that stay in its core's
//! cache; what is not is read ahead by a [`Disk`], past the page cache where it can be. The calling
//! thread does neither: it reports progress, and stops the others when it is told to.
//!
//! Memory: for each thread 1 MiB of buffers, and about 35 MiB once something is not in memory; what
//! all threads together may take is the disk's to say ([`Limits`]); nothing that grows with the data.
//! Does not: decide what a digest or a fault means; that is the caller's work.

mod ahead;
mod disk;
mod file;
mod root;
mod stamp;
mod thread;

pub use disk::{ALIGNMENT_BYTES, Disk, DiskReader, Limits, PageCache, ReadId, Way};
pub use root::{Links, Root, special_kind};
pub use stamp::{SETTLE_TIME, settled, stamp_of};

use engine::layout::{FileIndex, FileStamp, StorageLayout};
use hash::{LANES_MAX, Sha1Digest};
use proto::ids::PieceIndex;
use std::io;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use thiserror::Error;
use thread::HashingThread;

/// Threads beyond this many gain nothing: the disk or the memory bus is the limit long before.
pub const THREADS_MAX: usize = 256;

/// How often progress is reported.
const PROGRESS_PERIOD: Duration = Duration::from_millis(100);

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
    /// How many threads hash; `None` for one on each core. The disk's [`Limits`] go before.
    pub threads: Option<NonZeroUsize>,
    /// How what is not in memory is read.
    pub disk: &'a dyn Disk,
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
    mut pieces: impl Iterator<Item = PieceIndex> + Clone + Send,
    on_piece: &(dyn Fn(PieceIndex, PieceResult) -> ControlFlow<()> + Sync),
    progress: &mut dyn FnMut(&Progress<'_>) -> ControlFlow<()>,
    lanes: usize,
) -> Result<(), HashError> {
    let threads = thread_count(job.threads, job.disk.limits());
    let bytes_total = pieces
        .clone()
        .map(|piece| u64::from(job.layout.piece_length_of(piece)))
        .sum();
    let shared = Shared {
        job,
        on_piece,
        pieces: Mutex::new(&mut pieces),
        stopped: AtomicBool::new(false),
        bytes_done: AtomicU64::new(0),
        current_file: AtomicU32::new(u32::MAX),
        running: Mutex::new(0),
        ended: Condvar::new(),
    };
    std::thread::scope(|scope| {
        let shared = &shared;
        let start = || {
            for thread in 0..threads {
                let running = Running::new(shared);
                let work = move || {
                    let _running = running;
                    HashingThread::new(shared, lanes, threads).run();
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
        started
    })?;
    if shared.is_stopped() {
        Err(HashError::Stopped)
    } else {
        Ok(())
    }
}

/// How many threads to use: as many as asked for, else one on each core; no more than `limits` has.
fn thread_count(asked: Option<NonZeroUsize>, limits: Limits) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    asked
        .map_or_else(cores, NonZeroUsize::get)
        .clamp(1, limits.threads_max)
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
    /// Those that no thread has taken.
    pieces: Mutex<&'a mut (dyn Iterator<Item = PieceIndex> + Send)>,
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

    /// Takes up to `count` pieces; none when there are no more.
    fn take(&self, count: usize) -> Vec<PieceIndex> {
        let mut pieces = lock(&self.pieces);
        std::iter::from_fn(|| pieces.next()).take(count).collect()
    }

    /// Counts bytes as done.
    fn count(&self, bytes: usize) {
        self.bytes_done.fetch_add(bytes as u64, Ordering::Relaxed);
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

#[cfg(test)]
mod tests;
