//! Memory that the kernel may refer to for as long as it likes: block headers on their way through
//! pipes, and the zeros of pad files.
//!
//! A page that was handed to a pipe is part of packets until the receiver has acknowledged them,
//! which nobody tells us. So a header is written once, to memory that was never written before, and
//! when the arena is full all of its pages are given up by `madvise`: the kernel keeps those that
//! packets still refer to, and we get fresh ones at the same address. Nothing has to be tracked.
//!
//! Memory: [`ARENA_BYTES`] a shard, and a page more for every few headers that an unacknowledged
//! packet holds.

use engine::queue::BATCH_BLOCKS_MAX;
use proto::wire::PIECE_HEADER_BYTES;
use std::io;
use std::ptr::NonNull;

/// What is handed out before the pages are given up, in bytes: headers of 1,024 batches, 256 MiB of
/// content.
const ARENA_BYTES: usize = 256 << 10;

/// The distance of the headers of two batches, in bytes: a divisor of the page size, so that none
/// straddles two pages.
const STRIDE: usize = 256;

const _: () = assert!(BATCH_BLOCKS_MAX * PIECE_HEADER_BYTES <= STRIDE);

/// The longest run of zeros in one piece, in bytes.
pub const ZERO_BYTES: usize = 16 << 10;

/// Zeros on pages of their own, so that a run of them takes no more references than it has pages.
#[repr(align(4096))]
pub struct Zeros(pub [u8; ZERO_BYTES]);

/// What pad files (BEP 47) are made of.
pub static ZEROS: Zeros = Zeros([0; ZERO_BYTES]);

/// Headers of one shard.
pub struct HeaderArena {
    start: NonNull<u8>,
    used: usize,
}

impl HeaderArena {
    /// Maps the arena.
    ///
    /// # Errors
    ///
    /// What the kernel said: no memory.
    pub fn new() -> io::Result<HeaderArena> {
        // SAFETY: a new private mapping at an address of the kernel's choice concerns no other
        // memory.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                ARENA_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        match NonNull::new(start.cast::<u8>()) {
            Some(start) if start.as_ptr().cast() != libc::MAP_FAILED => {
                Ok(HeaderArena { start, used: 0 })
            }
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Keeps the `headers` of a batch, one after another, where they are never written to again. Of
    /// more than [`BATCH_BLOCKS_MAX`] the first ones.
    ///
    /// # Errors
    ///
    /// What the kernel said when pages were to be given up; none is known for an anonymous mapping.
    pub fn keep(
        &mut self,
        headers: impl Iterator<Item = [u8; PIECE_HEADER_BYTES]>,
    ) -> io::Result<&[[u8; PIECE_HEADER_BYTES]]> {
        if self.used + STRIDE > ARENA_BYTES {
            // SAFETY: the range is the whole of our own mapping, and no reference into it is alive:
            // `keep` borrows the arena for as long as its result lives.
            let given_up = unsafe {
                libc::madvise(self.start.as_ptr().cast(), ARENA_BYTES, libc::MADV_DONTNEED)
            };
            if given_up != 0 {
                return Err(io::Error::last_os_error());
            }
            self.used = 0;
        }
        // SAFETY: `used + STRIDE` is at most the length of the mapping, so the place lies inside
        // it.
        let place = unsafe { self.start.as_ptr().add(self.used) };
        let place = place.cast::<[u8; PIECE_HEADER_BYTES]>();
        let mut count = 0;
        for header in headers.take(BATCH_BLOCKS_MAX) {
            // SAFETY: so many fit into the stride, which has not been handed out since its page was
            // fresh.
            unsafe { place.add(count).write(header) };
            count += 1;
        }
        self.used += STRIDE;
        // SAFETY: the headers that have just been written; nobody writes there again while the
        // result lives.
        Ok(unsafe { std::slice::from_raw_parts(place, count) })
    }
}

impl Drop for HeaderArena {
    fn drop(&mut self) {
        // SAFETY: the range is the whole of our own mapping, and no reference into it outlives the
        // arena. What pipes and packets refer to stays in the kernel's hands.
        unsafe {
            libc::munmap(self.start.as_ptr().cast(), ARENA_BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_where_nothing_was_written_before() {
        let mut arena = HeaderArena::new().unwrap();
        for round in 0..3_u8 {
            for batch in 0..ARENA_BYTES / STRIDE {
                let headers = [[round + 1; PIECE_HEADER_BYTES]; BATCH_BLOCKS_MAX];
                let count = batch % (BATCH_BLOCKS_MAX + 1);
                let kept = arena.keep(headers.into_iter().take(count)).unwrap();
                assert_eq!(kept, &headers[..count]);
                let first = kept.as_ptr() as usize;
                assert_eq!(first / 4096, (first + STRIDE - 1) / 4096);
            }
        }
    }

    #[test]
    fn pages_in_a_pipe_keep_their_bytes_when_the_arena_starts_over() {
        let pool = crate::pipes::PipePool::new(1);
        let mut pipe = pool.take().unwrap();
        let mut arena = HeaderArena::new().unwrap();
        let first = arena
            .keep(std::iter::once([7; PIECE_HEADER_BYTES]))
            .unwrap();
        let mut parts = [libc::iovec {
            iov_base: first.as_ptr() as *mut _,
            iov_len: PIECE_HEADER_BYTES,
        }];
        // SAFETY: the arena never writes to what it has handed out.
        unsafe { pipe.append(&mut parts, PIECE_HEADER_BYTES).unwrap() };
        for _ in 0..2 * ARENA_BYTES / STRIDE {
            arena
                .keep(std::iter::once([9; PIECE_HEADER_BYTES]))
                .unwrap();
        }
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(pipe.send_to(&ours).unwrap(), PIECE_HEADER_BYTES);
        let mut received = [0; PIECE_HEADER_BYTES];
        std::io::Read::read_exact(&mut { theirs }, &mut received).unwrap();
        assert_eq!(received, [7; PIECE_HEADER_BYTES]);
    }
}
