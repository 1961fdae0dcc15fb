//! Pipes of one shard: the way of pages from a file to a socket without a copy.
//!
//! A pipe is filled with references to pages, headers and file pages in turn, and emptied into a
//! socket. It is borrowed for one batch at a time, so a shard needs few of them. All calls here
//! return at once.
//!
//! The calls are made without the C library's wrappers, which are points where a thread may be
//! cancelled.
//!
//! Limits: [`PIPES_MAX`] pipes a shard, [`SLOTS`] references each. An unprivileged user may hold
//! `fs.pipe-user-pages-soft` references in all; beyond that a pipe is too small, and none is handed
//! out.

use crate::system::page_bytes;
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Once;

/// The most pipes that a shard has. Each is two descriptors.
pub const PIPES_MAX: usize = 32;

/// References that a pipe holds: a batch of 16 blocks whose content straddles pages needs 96.
pub const SLOTS: usize = 128;

/// The pipes of one shard.
pub struct PipePool {
    count_max: usize,
    free: RefCell<Vec<Pipe>>,
    /// Pipes that exist, free or borrowed.
    count: Cell<usize>,
    /// The fewest free ones since the last [`PipePool::close_idle`].
    free_min: Cell<usize>,
    /// The system made no pipe since then.
    is_short: Cell<bool>,
    /// The system takes no pages into pipes.
    is_refused: Cell<bool>,
    page_bytes: usize,
}

/// A pipe whose two ends are ours alone.
struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl PipePool {
    /// A pool of at most `count_max` pipes, made when they are first needed.
    pub fn new(count_max: usize) -> Rc<PipePool> {
        Rc::new(PipePool {
            count_max: count_max.min(PIPES_MAX),
            free: RefCell::default(),
            count: Cell::new(0),
            free_min: Cell::new(0),
            is_short: Cell::new(false),
            is_refused: Cell::new(false),
            page_bytes: page_bytes(),
        })
    }

    /// An empty pipe; `None` when all are in use or the system grants no more.
    pub fn take(self: &Rc<Self>) -> Option<BorrowedPipe> {
        if self.is_refused.get() {
            return None;
        }
        let mut free = self.free.borrow_mut();
        let popped = free.pop();
        self.free_min.set(self.free_min.get().min(free.len()));
        drop(free);
        let pipe = match popped {
            Some(pipe) => pipe,
            None if self.is_exhausted() => return None,
            None => match Pipe::new(SLOTS * self.page_bytes) {
                Ok(pipe) => {
                    self.count.set(self.count.get() + 1);
                    pipe
                }
                Err(error) => {
                    self.is_short.set(true);
                    tell_of_shortage(&error);
                    return None;
                }
            },
        };
        Some(BorrowedPipe {
            pipe: Some(pipe),
            pool: Rc::clone(self),
            held_bytes: 0,
        })
    }

    /// Closes the pipes that nobody needed since it was last called.
    pub fn close_idle(&self) {
        let mut free = self.free.borrow_mut();
        let idle = self.free_min.get().min(free.len());
        free.drain(..idle);
        self.count.set(self.count.get() - idle);
        self.free_min.set(free.len());
        self.is_short.set(false);
    }

    /// The size of a page, in bytes.
    pub fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    /// Whether somebody who asks now gets none.
    pub fn is_exhausted(&self) -> bool {
        let may_grow = self.count.get() < self.count_max && !self.is_short.get();
        self.is_refused.get() || (self.free.borrow().is_empty() && !may_grow)
    }

    /// Whether `error`, of putting pages into a pipe or of emptying one into a socket, says that
    /// this system does not do that (a filter of system calls); no pipe is lent from then on.
    pub fn are_refused(&self, error: &io::Error) -> bool {
        let is_refusal = matches!(
            error.raw_os_error(),
            Some(libc::EPERM | libc::ENOSYS | libc::EINVAL | libc::EOPNOTSUPP)
        );
        if is_refusal {
            self.is_refused.set(true);
            tell_of_refusal(error);
        }
        is_refusal
    }

    /// How many pages the `length` bytes from `offset` of a file touch: the references that they
    /// take.
    pub fn pages(&self, offset: u64, length: u64) -> usize {
        let page = self.page_bytes as u64;
        let touched = (offset % page + length).div_ceil(page);
        usize::try_from(touched).unwrap_or(usize::MAX)
    }
}

impl Pipe {
    /// A pipe with room for `bytes` of whole pages, never blocking.
    fn new(bytes: usize) -> io::Result<Pipe> {
        let mut ends = [0; 2];
        // SAFETY: `ends` is ours to write for the length of the call.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made these descriptors for us and nobody else knows them.
        let (reader, writer) =
            unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
        let wanted = libc::c_int::try_from(bytes).map_err(io::Error::other)?;
        // SAFETY: resizes a pipe that we own; no memory of ours is involved.
        if unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, wanted) } < wanted {
            return Err(io::Error::last_os_error());
        }
        Ok(Pipe { reader, writer })
    }
}

/// A pipe on loan. It goes back when it is dropped; with something in it, it is closed instead,
/// which drops the references.
pub struct BorrowedPipe {
    /// There until it is dropped.
    pipe: Option<Pipe>,
    pool: Rc<PipePool>,
    held_bytes: usize,
}

impl BorrowedPipe {
    /// Appends references to the `parts`, of `bytes` in all, which are changed. What of them lies
    /// in files is in memory already, or the call waits for the disk.
    ///
    /// # Errors
    ///
    /// `EFAULT` if there is no page at one of them; what the kernel said otherwise. The pipe is
    /// then to be dropped.
    ///
    /// # Safety
    ///
    /// Each part is mapped memory. What of it belongs to no file must not be written to as long as
    /// the kernel refers to it, which is until the receiver has acknowledged it: never again, or
    /// not before its page has been given up by `madvise`.
    pub unsafe fn append(&mut self, parts: &mut [libc::iovec], bytes: usize) -> io::Result<()> {
        let mut parts = parts;
        let end = self.held_bytes + bytes;
        loop {
            // SAFETY: `parts` is valid for the length of the call; that its memory stays as it is
            // after that is what our caller promises.
            let moved = unsafe {
                libc::syscall(
                    libc::SYS_vmsplice,
                    self.writer(),
                    parts.as_ptr(),
                    parts.len(),
                    libc::SPLICE_F_NONBLOCK,
                )
            };
            match usize::try_from(moved) {
                Ok(0) => return Err(io::ErrorKind::WouldBlock.into()),
                Ok(count) => {
                    self.held_bytes += count;
                    if self.held_bytes >= end {
                        return Ok(());
                    }
                    // The kernel stops at a page that is not there and says why when it is asked
                    // for that one.
                    parts = without(parts, count);
                }
                Err(_) => retry_if_interrupted()?,
            }
        }
    }

    /// Moves what the non-blocking `socket` takes now out of the pipe into it, and returns how many
    /// bytes.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if the socket is full; what the kernel said otherwise.
    pub fn send_to(&mut self, socket: &impl AsRawFd) -> io::Result<usize> {
        loop {
            // SAFETY: both descriptors are open for the length of the call, which touches no memory
            // of ours.
            let moved = unsafe {
                libc::syscall(
                    libc::SYS_splice,
                    self.reader(),
                    std::ptr::null_mut::<libc::loff_t>(),
                    socket.as_raw_fd(),
                    std::ptr::null_mut::<libc::loff_t>(),
                    self.held_bytes,
                    libc::SPLICE_F_NONBLOCK,
                )
            };
            match usize::try_from(moved) {
                Ok(count) => {
                    self.held_bytes -= count.min(self.held_bytes);
                    return Ok(count);
                }
                Err(_) => retry_if_interrupted()?,
            }
        }
    }

    fn reader(&self) -> libc::c_int {
        self.pipe
            .as_ref()
            .map_or(-1, |pipe| pipe.reader.as_raw_fd())
    }

    fn writer(&self) -> libc::c_int {
        self.pipe
            .as_ref()
            .map_or(-1, |pipe| pipe.writer.as_raw_fd())
    }
}

impl Drop for BorrowedPipe {
    fn drop(&mut self) {
        let Some(pipe) = self.pipe.take() else { return };
        if self.held_bytes == 0 {
            self.pool.free.borrow_mut().push(pipe);
        } else {
            self.pool.count.set(self.pool.count.get() - 1);
        }
    }
}

/// `parts` without their first `count` bytes, which are fewer than they have.
fn without(parts: &mut [libc::iovec], mut count: usize) -> &mut [libc::iovec] {
    let mut done = 0;
    for part in parts.iter_mut() {
        if count < part.iov_len {
            part.iov_base = part.iov_base.wrapping_byte_add(count);
            part.iov_len -= count;
            break;
        }
        count -= part.iov_len;
        done += 1;
    }
    &mut parts[done..]
}

/// Says once why fewer batches than could be are sent as pages.
fn tell_of_shortage(error: &io::Error) {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        tracing::info!(
            %error,
            "no pipe for sending pages, so data are sent through buffers and cost more CPU: raise \
             fs.pipe-user-pages-soft or LimitNOFILE"
        );
    });
}

/// Says once why no batch is sent as pages.
fn tell_of_refusal(error: &io::Error) {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        tracing::info!(
            %error,
            "this system lets no pages into pipes (splice, vmsplice), so data are sent through buffers and cost \
             more CPU: look at the filter of system calls"
        );
    });
}

/// The last error of the kernel, unless it was a signal.
fn retry_if_interrupted() -> io::Result<()> {
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::Interrupted {
        return Ok(());
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    /// What comes out of `pipe`.
    fn drained(pipe: &mut BorrowedPipe) -> Vec<u8> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut bytes = vec![0; pipe.held_bytes];
        let mut done = 0;
        while pipe.held_bytes > 0 {
            let count = pipe.send_to(&ours).unwrap();
            theirs.read_exact(&mut bytes[done..done + count]).unwrap();
            done += count;
        }
        bytes
    }

    /// Appends `parts`, which live as long as the program.
    fn append(pipe: &mut BorrowedPipe, parts: &[&'static [u8]]) -> io::Result<()> {
        let bytes = parts.iter().map(|part| part.len()).sum();
        let mut parts: Vec<_> = parts
            .iter()
            .map(|part| libc::iovec {
                iov_base: part.as_ptr() as *mut _,
                iov_len: part.len(),
            })
            .collect();
        // SAFETY: nobody writes to what lives as long as the program.
        unsafe { pipe.append(&mut parts, bytes) }
    }

    /// Memory of `pages` pages, of no particular bytes.
    fn content(pages: usize) -> &'static [u8] {
        let bytes: Vec<u8> = (0..pages * 4096).map(|at| (at % 251) as u8).collect();
        Vec::leak(bytes)
    }

    #[test]
    fn pages_come_out_as_they_went_in() {
        let content = content(5);
        let pool = PipePool::new(PIPES_MAX);
        let mut pipe = pool.take().unwrap();
        append(&mut pipe, &[&content[4095..13_095], b"between"]).unwrap();
        append(&mut pipe, &[&content[..1]]).unwrap();
        let right = [&content[4095..13_095], b"between", &content[..1]].concat();
        assert!(drained(&mut pipe) == right);
    }

    #[test]
    fn a_page_that_is_not_there_is_an_error() {
        let pool = PipePool::new(PIPES_MAX);
        let mut pipe = pool.take().unwrap();
        let nowhere = libc::iovec {
            iov_base: std::ptr::without_provenance_mut(4096),
            iov_len: 1,
        };
        let there = libc::iovec {
            iov_base: b"there".as_ptr() as *mut _,
            iov_len: 5,
        };
        // SAFETY: the kernel answers where there is no memory; the rest is a constant.
        let error = unsafe { pipe.append(&mut [there, nowhere], 6) }.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EFAULT));
        assert!(!pool.are_refused(&error));
        // What was put into it before that is not lent to others, who get another.
        drop(pipe);
        assert_eq!(pool.count.get(), 0);
        assert!(pool.take().is_some());
    }

    #[test]
    fn a_system_that_refuses_the_calls_is_asked_once() {
        for refusal in [libc::EPERM, libc::ENOSYS] {
            let pool = PipePool::new(PIPES_MAX);
            assert!(pool.take().is_some());
            assert!(pool.are_refused(&io::Error::from_raw_os_error(refusal)));
            assert!(pool.take().is_none() && pool.is_exhausted());
        }
    }

    #[test]
    fn what_is_left_starts_inside_a_part() {
        let bytes = b"abcdefgh";
        let part = |from: usize, length| libc::iovec {
            iov_base: bytes[from..].as_ptr() as *mut _,
            iov_len: length,
        };
        for count in 0..8 {
            let mut parts = [part(0, 3), part(3, 1), part(4, 4)];
            let left = without(&mut parts, count);
            let first = left[0].iov_base as usize - bytes.as_ptr() as usize;
            assert_eq!(first, count);
            let bytes: usize = left.iter().map(|part| part.iov_len).sum();
            assert_eq!(bytes, 8 - count);
        }
    }

    #[test]
    fn a_full_pipe_refuses_and_a_pool_ends() {
        let content = content(1);
        let pool = PipePool::new(PIPES_MAX);
        let mut pipe = pool.take().unwrap();
        for at in 0..SLOTS {
            append(&mut pipe, &[&content[at..=at]]).unwrap();
        }
        let error = append(&mut pipe, &[&content[..1]]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let others: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(others.len(), PIPES_MAX - 1);
        assert!(pool.is_exhausted());
    }

    #[test]
    fn pipes_are_closed_when_nobody_needs_them() {
        let pool = PipePool::new(PIPES_MAX);
        let three: Vec<_> = (0..3).map(|_| pool.take().unwrap()).collect();
        drop(three);
        pool.close_idle();
        // All three were needed since the start.
        assert_eq!(pool.count.get(), 3);
        drop(pool.take());
        pool.close_idle();
        assert_eq!(pool.count.get(), 1);
        pool.close_idle();
        assert_eq!(pool.count.get(), 0);
    }
}
