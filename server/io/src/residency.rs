//! Whether a range of a file is in the page cache, asked without waiting for a disk.
//!
//! `cachestat(2)` answers for a range at once (Linux 6.5, and only for who may write to the file or
//! owns it); elsewhere one byte per probe is read with `RWF_NOWAIT`. The answer is a moment's: a
//! page may go in the next one, and then whoever puts it into a pipe waits for the disk.

use std::cell::Cell;
use std::io;
use std::os::fd::AsRawFd;

/// The number of `cachestat(2)` on all architectures with the common table.
const SYS_CACHESTAT: libc::c_long = 451;

/// The distance of two probes by reading, in bytes: three for a batch. More would cost as much as
/// sending it.
const PROBE_BYTES: usize = 128 << 10;

/// `struct cachestat_range` of linux/mman.h.
#[repr(C)]
struct CachestatRange {
    offset: u64,
    length: u64,
}

/// `struct cachestat` of linux/mman.h.
#[repr(C)]
#[derive(Default)]
struct Cachestat {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// How residency is asked for on this machine.
pub struct Residency {
    page_bytes: u64,
    has_cachestat: Cell<bool>,
}

impl Residency {
    /// Of a machine with pages of `page_bytes`.
    pub fn new(page_bytes: usize) -> Residency {
        Residency {
            page_bytes: page_bytes as u64,
            has_cachestat: Cell::new(true),
        }
    }

    /// Whether all of the `length` bytes from `offset` of `file` are in memory now. False when
    /// nobody says.
    pub fn is_resident(&self, file: &impl AsRawFd, offset: u64, length: u64) -> bool {
        if length == 0 {
            return true;
        }
        if self.has_cachestat.get() {
            match self.cached_pages(file, offset, length) {
                Ok(pages) => return pages >= self.pages(offset, length),
                Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                    self.has_cachestat.set(false);
                }
                // Of somebody else's file it says nothing; reading may.
                Err(_) => {}
            }
        }
        probes(offset, length).all(|at| is_readable_at_once(file, at))
    }

    fn pages(&self, offset: u64, length: u64) -> u64 {
        (offset % self.page_bytes + length).div_ceil(self.page_bytes)
    }

    fn cached_pages(&self, file: &impl AsRawFd, offset: u64, length: u64) -> io::Result<u64> {
        // Whole pages: the kernel counts those that the range touches.
        let first = offset - offset % self.page_bytes;
        let range = CachestatRange {
            offset: first,
            length: self.pages(offset, length) * self.page_bytes,
        };
        let mut found = Cachestat::default();
        // SAFETY: the descriptor is open, and both structures are ours, of the kernel's layout, for
        // the length of the call.
        let answer = unsafe {
            libc::syscall(
                SYS_CACHESTAT,
                file.as_raw_fd(),
                &raw const range,
                &raw mut found,
                0,
            )
        };
        if answer != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(found.cached)
    }
}

/// Where a range is looked at when each of its pages would be too many: its ends and some places
/// between.
pub fn probes(offset: u64, length: u64) -> impl Iterator<Item = u64> {
    let end = offset.saturating_add(length);
    let inside = (offset..end).step_by(PROBE_BYTES);
    inside.chain(end.checked_sub(1).filter(|&last| last > offset))
}

/// Whether the byte at `offset` can be read without waiting.
pub fn is_readable_at_once(file: &impl AsRawFd, offset: u64) -> bool {
    let Ok(offset) = libc::off64_t::try_from(offset) else {
        return false;
    };
    let mut byte = 0_u8;
    let target = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    // SAFETY: the descriptor is open, and `target` points to a byte of ours, for the length of the
    // call.
    unsafe {
        libc::preadv2(
            file.as_raw_fd(),
            &raw const target,
            1,
            offset,
            libc::RWF_NOWAIT,
        ) == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const PAGE: u64 = 4096;
    const HALF: u64 = 8 << 20;

    fn probing() -> Residency {
        let residency = Residency::new(PAGE as usize);
        residency.has_cachestat.set(false);
        residency
    }

    #[test]
    fn what_was_just_written_is_resident_and_what_was_dropped_is_not() {
        // Not on tmpfs, whose pages can not be dropped.
        let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        // Halves that no folio straddles.
        file.write_all(&vec![1; 2 * HALF as usize]).unwrap();
        file.sync_all().unwrap();
        for residency in [Residency::new(PAGE as usize), probing()] {
            assert!(residency.is_resident(&file, 0, 2 * HALF));
            assert!(residency.is_resident(&file, PAGE - 1, 2));
            assert!(residency.is_resident(&file, 0, 0));
        }
        // A probe starts reading what it misses, and where the disk answers before it returns, it
        // was there after all.
        for (residency, tries) in [(Residency::new(PAGE as usize), 1), (probing(), 100)] {
            assert!(is_missed(&residency, &file, 0, HALF, tries));
            assert!(is_missed(&residency, &file, HALF - 1, 2, tries));
            assert!(residency.is_resident(&file, HALF, HALF));
        }
    }

    /// Whether a range is said to be absent after its file's first half was dropped, in one of so
    /// many tries.
    fn is_missed(
        residency: &Residency,
        file: &std::fs::File,
        offset: u64,
        length: u64,
        tries: usize,
    ) -> bool {
        (0..tries).any(|_| {
            // SAFETY: advice about a file that we own.
            let dropped = unsafe {
                libc::posix_fadvise(file.as_raw_fd(), 0, HALF as i64, libc::POSIX_FADV_DONTNEED)
            };
            assert_eq!(dropped, 0);
            !residency.is_resident(file, offset, length)
        })
    }
}
