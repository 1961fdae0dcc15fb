//! Reading much of what is on disk with many reads under way: the work under checking and making
//! torrents.
//!
//! Each hashing thread has a [`BulkReader`] of its own: an io_uring, and memory that ranges are
//! read to. A read by [`Way::Direct`] goes around the page cache (O_DIRECT). One by
//! [`Way::Passing`] goes through it and leaves no page behind that was not there before
//! (`RWF_DONTCACHE`, Linux 6.14; on older kernels the pages stay): for what is too small or not
//! aligned.
//!
//! Limits: [`READS_MAX`] reads under way; one more is refused.
//! Does not: retry. A read that fails or comes back short is the caller's, to read again in the
//! ordinary way and to name what is wrong.

use crate::residency::Residency;
use crate::system::page_bytes;
use io_uring::{IoUring, opcode, types};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

/// What place in memory, offset and length of a direct read are multiples of, in bytes: the largest
/// block of any disk in use.
pub const ALIGNMENT_BYTES: usize = 4096;

/// The most reads under way of one reader.
pub const READS_MAX: usize = 256;

/// The pause before a call is made again that the kernel had no memory for.
const PAUSE: Duration = Duration::from_millis(1);

/// How often such a call is made before the ring counts as failed: with [`PAUSE`], for two seconds.
const TRIES_MAX: usize = 2000;

/// `RWF_DONTCACHE` of linux/fs.h.
const RWF_DONTCACHE: i32 = 0x80;

/// How a read reaches the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Around the page cache. The file was opened with O_DIRECT, and place, offset and length are
    /// multiples of [`ALIGNMENT_BYTES`].
    Direct,
    /// Through the page cache, leaving nothing in it.
    Passing,
}

/// A read that was started; [`BulkReader::wait`] takes it, once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadId(pub u32);

/// Reads of one thread, and the memory that they go to.
pub struct BulkReader {
    ring: IoUring,
    memory: Mapping,
    /// Whether the memory is registered with the ring: the kernel then need not look up its pages
    /// for each read.
    registered: bool,
    /// The reads under way, and those that have ended and were not waited for, by their [`ReadId`].
    reads: Vec<Option<Read>>,
    under_way: usize,
    /// The flag of [`Way::Passing`], or none where the kernel has none.
    passing_flags: i32,
    /// Whether the ring itself has failed: reads may be under way whose end nobody learns, so
    /// nothing is started any more.
    failed: bool,
}

/// A read that was started.
struct Read {
    /// Where in the memory it goes.
    place: Range<usize>,
    way: Way,
    /// Keeps the descriptor open until the kernel has let go of it.
    _file: Arc<File>,
    /// What the kernel answered.
    result: Option<i32>,
}

impl BulkReader {
    /// Makes a reader with `bytes` of memory, which becomes real as it is used.
    ///
    /// # Errors
    ///
    /// What the kernel said: it refuses io_uring, or has no memory.
    pub fn new(bytes: usize) -> io::Result<BulkReader> {
        let ring = IoUring::new(READS_MAX as u32)?;
        let memory = Mapping::new(bytes.next_multiple_of(ALIGNMENT_BYTES))?;
        let whole = libc::iovec {
            iov_base: memory.start.as_ptr().cast(),
            iov_len: memory.length,
        };
        // SAFETY: the mapping is ours, and `Drop` ends the ring before it.
        let registered = unsafe { ring.submitter().register_buffers(&[whole]) }.is_ok();
        Ok(BulkReader {
            ring,
            memory,
            registered,
            reads: Vec::new(),
            under_way: 0,
            passing_flags: RWF_DONTCACHE,
            failed: false,
        })
    }

    /// Starts to read from `offset` of `file` to `place` in the memory; [`BulkReader::submit`]
    /// hands it to the kernel. `None` if it cannot be: there is no room for another read, the read
    /// is not aligned as its way demands, or the ring has failed ([`BulkReader::wait`]).
    ///
    /// # Panics
    ///
    /// If `place` is not in the memory, or another read goes to it.
    pub fn start(
        &mut self,
        file: &Arc<File>,
        offset: u64,
        place: Range<usize>,
        way: Way,
    ) -> Option<ReadId> {
        if self.failed {
            return None;
        }
        self.check(&place);
        let aligned = |number: usize| number.is_multiple_of(ALIGNMENT_BYTES);
        let is_aligned = offset.is_multiple_of(ALIGNMENT_BYTES as u64)
            && aligned(place.start)
            && aligned(place.len());
        if way == Way::Direct && !is_aligned {
            return None;
        }
        if self.under_way == READS_MAX {
            return None;
        }
        let length = u32::try_from(place.len()).ok()?;
        let id = self.reads.iter().position(Option::is_none);
        let id = id.unwrap_or_else(|| {
            self.reads.push(None);
            self.reads.len() - 1
        });
        // SAFETY: `place` lies in the mapping, checked above.
        let target = unsafe { self.memory.start.as_ptr().add(place.start) };
        let descriptor = types::Fd(file.as_raw_fd());
        let entry = if self.registered && way == Way::Direct {
            opcode::ReadFixed::new(descriptor, target, length, 0)
                .offset(offset)
                .build()
        } else {
            let flags = if way == Way::Passing {
                self.passing_flags
            } else {
                0
            };
            opcode::Read::new(descriptor, target, length)
                .offset(offset)
                .rw_flags(flags)
                .build()
        };
        let entry = entry.user_data(id as u64);
        // SAFETY: the file stays open and the place is left alone until the completion has come:
        // `reads` holds the file, `check` keeps every other read and look away, and `Drop` waits.
        if unsafe { self.ring.submission().push(&entry) }.is_err() {
            return None;
        }
        self.under_way += 1;
        self.reads[id] = Some(Read {
            place,
            way,
            _file: Arc::clone(file),
            result: None,
        });
        Some(ReadId(id as u32))
    }

    /// Hands what was started to the kernel.
    ///
    /// # Errors
    ///
    /// What the kernel said; the reads are handed over by the next call.
    pub fn submit(&mut self) -> io::Result<()> {
        match self.ring.submit() {
            Ok(_) => Ok(()),
            Err(error) if is_passing(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Waits until a read has ended, and returns how many bytes it has brought.
    ///
    /// # Errors
    ///
    /// What the kernel said of the read, or of the ring. After the latter the read may still be
    /// under way: nothing can be started any more, and the memory stays mapped when the reader is
    /// dropped.
    ///
    /// # Panics
    ///
    /// If the read is not of this reader.
    pub fn wait(&mut self, id: ReadId) -> io::Result<usize> {
        let id = id.0 as usize;
        loop {
            self.gather();
            let read = self.reads[id].as_ref().expect("a read is waited for once");
            if let Some(result) = read.result {
                self.reads[id] = None;
                return usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
            }
            if let Err(error) = self.wait_for_any() {
                self.failed = true;
                return Err(error);
            }
        }
    }

    /// What has been read to `place` in the memory.
    ///
    /// # Panics
    ///
    /// If `place` is not in the memory, or a read to it is under way.
    pub fn bytes(&self, place: Range<usize>) -> &[u8] {
        self.check(&place);
        // SAFETY: it lies in the mapping, and the kernel does not write to it, both just checked;
        // nobody else does while `self` is borrowed, because a read is only started through `&mut
        // self`.
        unsafe {
            std::slice::from_raw_parts(self.memory.start.as_ptr().add(place.start), place.len())
        }
    }

    /// Panics if `place` is not in the memory, or a read to it is under way.
    fn check(&self, place: &Range<usize>) {
        assert!(
            place.start <= place.end && place.end <= self.memory.length,
            "a place in the memory"
        );
        let touches = |read: &Read| {
            read.result.is_none() && read.place.start < place.end && place.start < read.place.end
        };
        assert!(
            self.under_way == 0 || !self.reads.iter().flatten().any(touches),
            "a place that no read goes to"
        );
    }

    /// Notes the reads that have ended.
    fn gather(&mut self) {
        let mut ended = 0;
        for completion in self.ring.completion() {
            let Some(Some(read)) = self.reads.get_mut(completion.user_data() as usize) else {
                continue;
            };
            read.result = Some(completion.result());
            if read.way == Way::Passing && completion.result() == -libc::EOPNOTSUPP {
                self.passing_flags = 0;
            }
            ended += 1;
        }
        self.under_way -= ended;
    }

    fn wait_for_any(&mut self) -> io::Result<()> {
        let enter = || self.ring.submit_and_wait(1).map(drop);
        patiently(enter, || std::thread::sleep(PAUSE))
    }
}

impl Drop for BulkReader {
    fn drop(&mut self) {
        while self.under_way > 0 {
            if self.wait_for_any().is_err() {
                // The kernel may still write to the memory: it stays mapped for good.
                self.memory.keep();
                return;
            }
            self.gather();
        }
        let _ = self.ring.submitter().unregister_buffers();
    }
}

/// Makes a call that waits. The kernel may be short of memory: then it is made again after a pause,
/// because without one it would take the core from those who could end the want, and at most
/// [`TRIES_MAX`] times. An interrupted call ends well: whoever waits looks and waits again.
fn patiently(mut call: impl FnMut() -> io::Result<()>, mut pause: impl FnMut()) -> io::Result<()> {
    for _ in 1..TRIES_MAX {
        match call() {
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => return Ok(()),
            Err(error) if is_passing(&error) => pause(),
            result => return result,
        }
    }
    call()
}

/// Whether a call that failed so is just to be made again.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)
    )
}

/// Anonymous memory of ours.
struct Mapping {
    start: NonNull<u8>,
    length: usize,
    kept: bool,
}

impl Mapping {
    fn new(length: usize) -> io::Result<Mapping> {
        // SAFETY: a new private mapping at an address of the kernel's choice concerns no other
        // memory.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        match NonNull::new(start.cast::<u8>()) {
            Some(start) if start.as_ptr().cast() != libc::MAP_FAILED => Ok(Mapping {
                start,
                length,
                kept: false,
            }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Never gives the memory back.
    fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if !self.kept {
            // SAFETY: the whole of our own mapping, and nothing refers to it any more.
            unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
        }
    }
}

/// Tells whether ranges of files are in memory.
pub struct Resident(Residency);

impl Default for Resident {
    fn default() -> Self {
        Resident::new()
    }
}

impl Resident {
    /// For the machine that we run on.
    pub fn new() -> Resident {
        Resident(Residency::new(page_bytes()))
    }

    /// Whether all of the `length` bytes from `offset` of `file` are in memory now.
    pub fn is_resident(&self, file: &File, offset: u64, length: u64) -> bool {
        self.0.is_resident(file, offset, length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;

    const LENGTH: usize = 3 * ALIGNMENT_BYTES + 100;

    fn content() -> Vec<u8> {
        (0..LENGTH).map(|at| (at * 7 + at / 251) as u8).collect()
    }

    /// A file with [`content`], on a disk where the build directory is on one.
    fn file() -> (tempfile::NamedTempFile, Arc<File>) {
        let mut named = tempfile::NamedTempFile::new_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        named.write_all(&content()).unwrap();
        named.as_file().sync_all().unwrap();
        let file = Arc::new(File::open(named.path()).unwrap());
        (named, file)
    }

    #[test]
    fn many_reads_bring_what_is_in_the_file() {
        let (_named, file) = file();
        let mut reader = BulkReader::new(64 * 100).unwrap();
        let reads: Vec<ReadId> = (0..64)
            .map(|n| {
                let place = n * 100..n * 100 + 100;
                reader
                    .start(&file, n as u64 * 50, place, Way::Passing)
                    .unwrap()
            })
            .collect();
        reader.submit().unwrap();
        for (n, id) in reads.into_iter().enumerate().rev() {
            // A kernel that cannot keep the cache clean says so for the first reads.
            match reader.wait(id) {
                Ok(count) => assert_eq!(count, 100),
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP));
                    continue;
                }
            }
            let bytes = reader.bytes(n * 100..n * 100 + 100);
            assert_eq!(bytes, &content()[n * 50..n * 50 + 100]);
        }
    }

    #[test]
    fn a_direct_read_ends_where_the_file_does() {
        let (named, _) = file();
        let direct = File::options()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(named.path());
        let direct = match direct {
            Ok(direct) => Arc::new(direct),
            Err(error) => {
                eprintln!(
                    "skipped: no O_DIRECT in {}: {error}",
                    env!("CARGO_MANIFEST_DIR")
                );
                return;
            }
        };
        let mut reader = BulkReader::new(4 * ALIGNMENT_BYTES).unwrap();
        let place = 0..4 * ALIGNMENT_BYTES;
        let id = reader.start(&direct, 0, place, Way::Direct).unwrap();
        assert_eq!(reader.wait(id).unwrap(), LENGTH);
        assert_eq!(reader.bytes(0..LENGTH), content());
        let place = 0..ALIGNMENT_BYTES;
        let beyond = 4 * ALIGNMENT_BYTES as u64;
        let id = reader.start(&direct, beyond, place, Way::Direct).unwrap();
        assert_eq!(reader.wait(id).unwrap(), 0);
    }

    #[test]
    fn what_is_not_aligned_is_refused() {
        let (_named, file) = file();
        let mut reader = BulkReader::new(4 * ALIGNMENT_BYTES).unwrap();
        for (offset, place) in [
            (1, 0..ALIGNMENT_BYTES),
            (0, 1..ALIGNMENT_BYTES + 1),
            (0, 0..100),
        ] {
            assert_eq!(reader.start(&file, offset, place, Way::Direct), None);
        }
    }

    #[test]
    fn no_more_reads_than_there_is_room_for() {
        let (_named, file) = file();
        let mut reader = BulkReader::new(READS_MAX + 1).unwrap();
        let ids: Vec<ReadId> = (0..READS_MAX)
            .map(|n| reader.start(&file, 0, n..n + 1, Way::Passing).unwrap())
            .collect();
        let last = READS_MAX..READS_MAX + 1;
        assert_eq!(reader.start(&file, 0, last.clone(), Way::Passing), None);
        ids.into_iter().for_each(|id| drop(reader.wait(id)));
        assert!(reader.start(&file, 0, last, Way::Passing).is_some());
        // Dropped with a read under way: it is waited for.
    }

    #[test]
    fn after_the_ring_has_failed_nothing_is_started() {
        let (_named, file) = file();
        let mut reader = BulkReader::new(ALIGNMENT_BYTES).unwrap();
        let id = reader.start(&file, 0, 0..100, Way::Passing).unwrap();
        let null = File::open("/dev/null").unwrap();
        // SAFETY: both descriptors are open; the ring's number stands for something else from now
        // on, and the ring's memory stays mapped.
        let replaced = unsafe { libc::dup2(null.as_raw_fd(), reader.ring.as_raw_fd()) };
        assert!(replaced >= 0);
        assert!(reader.wait(id).is_err());
        assert_eq!(reader.start(&file, 0, 0..100, Way::Passing), None);
        assert_eq!(reader.start(&file, 0, 200..300, Way::Passing), None);
        // What no read goes to can still be looked at.
        assert_eq!(reader.bytes(100..200), [0; 100]);
    }

    #[test]
    fn a_call_is_made_again_after_a_pause_and_not_for_ever() {
        let error = |number| Err(io::Error::from_raw_os_error(number));
        let (mut calls, mut pauses) = (0, 0);
        let short_of_memory = || {
            calls += 1;
            error(if calls % 2 == 0 {
                libc::EAGAIN
            } else {
                libc::EBUSY
            })
        };
        assert!(patiently(short_of_memory, || pauses += 1).is_err());
        assert_eq!((calls, pauses), (TRIES_MAX, TRIES_MAX - 1));
        assert!(patiently(|| error(libc::EINTR), || unreachable!()).is_ok());
        let broken = patiently(|| error(libc::EBADF), || unreachable!()).unwrap_err();
        assert_eq!(broken.raw_os_error(), Some(libc::EBADF));
        let mut left = 3;
        let recovers = || {
            left -= 1;
            if left > 0 {
                error(libc::EAGAIN)
            } else {
                Ok(())
            }
        };
        assert!(patiently(recovers, || {}).is_ok());
    }

    #[test]
    #[should_panic(expected = "no read goes to")]
    fn memory_is_not_looked_at_while_it_is_read_to() {
        let (_named, file) = file();
        let mut reader = BulkReader::new(ALIGNMENT_BYTES).unwrap();
        let _id = reader.start(&file, 0, 0..100, Way::Passing).unwrap();
        reader.bytes(99..200);
    }

    #[test]
    #[should_panic(expected = "place in the memory")]
    fn no_read_goes_beyond_the_memory() {
        let (_named, file) = file();
        let mut reader = BulkReader::new(ALIGNMENT_BYTES).unwrap();
        reader.start(
            &file,
            0,
            ALIGNMENT_BYTES - 1..ALIGNMENT_BYTES + 1,
            Way::Passing,
        );
    }
}
