//! What hashing needs of the disk, as an interface: the system calls behind it are not this
//! crate's.
//!
//! Hashing reads what is in memory by ordinary reads. What is not is read ahead, many ranges at a
//! time, to memory of the reader, past the page cache where the file allows it, so that a check of
//! terabytes does not push out what is being served. [`PageCache`] is the disk of a system that
//! offers no such thing.

use super::THREADS_MAX;
use rustix::fs::Advice;
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;

/// What place, offset and length of a [`Way::Direct`] read are multiples of, in bytes.
pub const ALIGNMENT_BYTES: usize = 4096;

/// How the disk is read; shared by all hashing threads.
pub trait Disk: std::fmt::Debug + Send + Sync {
    /// What one job that reads this disk may take.
    fn limits(&self) -> Limits {
        Limits::FOREGROUND
    }

    /// Readies the calling thread, a hashing thread, and gives it a reader of its own.
    fn reader(&self) -> Box<dyn DiskReader>;
}

/// What one hashing job may take of the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Threads at most, whatever is asked for.
    pub threads_max: usize,
    /// Bytes that all threads together read ahead.
    pub ahead_bytes_max: usize,
}

impl Limits {
    /// For a command whose only work is hashing.
    pub const FOREGROUND: Limits = Limits {
        threads_max: THREADS_MAX,
        ahead_bytes_max: 512 << 20,
    };

    /// For hashing beside a server, whose memory is promised: 32 MiB keep a disk busy, and four threads
    /// hash what it brings.
    pub const BACKGROUND: Limits = Limits {
        threads_max: 4,
        ahead_bytes_max: 32 << 20,
    };

    /// The most memory that a job can take for buffers and reading ahead, in bytes.
    pub fn memory_bytes_max(self) -> u64 {
        let thread = |threads| super::thread::memory_bytes_max(self.ahead_bytes_max / threads);
        let of = |threads| (threads * thread(threads)) as u64;
        // Fewer threads take more each: neither end need be the worst.
        (1..=self.threads_max).map(of).max().unwrap_or(0)
    }
}

/// How a read reaches the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Around the page cache: the file was opened for that, and everything is aligned.
    Direct,
    /// Through the page cache, leaving nothing in it if that can be had.
    Passing,
}

/// A read that was started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadId(pub u32);

/// Reads of one hashing thread.
///
/// Whatever fails here is read again in the ordinary way, which finds out what is wrong with the
/// file.
pub trait DiskReader {
    /// Whether all of the `length` bytes from `offset` of `file` are in memory, so that an ordinary
    /// read does not wait.
    fn is_resident(&self, file: &File, offset: u64, length: u64) -> bool;

    /// Makes `bytes` of memory to read to; asked once, before the first read. False if there is no
    /// reading ahead on this system.
    fn make_memory(&mut self, bytes: usize) -> bool;

    /// Starts to read from `offset` of `file` to `place` in the memory; `None` if it cannot be
    /// started.
    fn start(
        &mut self,
        file: &Arc<File>,
        offset: u64,
        place: Range<usize>,
        way: Way,
    ) -> Option<ReadId>;

    /// Hands what was started to the system.
    fn submit(&mut self);

    /// Waits until a read has ended, and returns how many bytes it has brought. Should waiting itself
    /// fail, so that the read may still be under way, [`DiskReader::start`] offers nothing from then
    /// on: its place is never used again.
    fn wait(&mut self, id: ReadId) -> io::Result<usize>;

    /// What is at `place` in the memory, to which no read is under way.
    fn bytes(&self, place: Range<usize>) -> &[u8];

    /// Tells the system that the range will be read soon in the ordinary way. Called where `start`
    /// had nothing to offer.
    fn expect(&self, file: &File, offset: u64, length: u64) {
        if let Some(length) = NonZeroU64::new(length) {
            // Only a hint: whoever reads the file reports what is wrong with it.
            let _ = rustix::fs::fadvise(file, offset, Some(length), Advice::WillNeed);
        }
    }
}

/// A disk that is read through the page cache and in no other way.
#[derive(Clone, Copy, Debug, Default)]
pub struct PageCache;

impl Disk for PageCache {
    fn reader(&self) -> Box<dyn DiskReader> {
        Box::new(PageCache)
    }
}

impl DiskReader for PageCache {
    fn is_resident(&self, _: &File, _: u64, _: u64) -> bool {
        false
    }

    fn make_memory(&mut self, _: usize) -> bool {
        false
    }

    fn start(&mut self, _: &Arc<File>, _: u64, _: Range<usize>, _: Way) -> Option<ReadId> {
        None
    }

    fn submit(&mut self) {}

    fn wait(&mut self, _: ReadId) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn bytes(&self, _: Range<usize>) -> &[u8] {
        &[]
    }
}
