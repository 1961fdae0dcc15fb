//! The bounded pool of payload buffers of one shard, registered with its ring where the kernel
//! allows it.
//!
//! The number of buffers is fixed when the shard starts, so that memory is a number in the
//! configuration. Who finds the pool empty waits in line, first come first served: a connection
//! that gives its buffer back and asks for the next one comes after those that wait. A buffer given
//! to an operation belongs to it until its last completion.

use seedring_metrics::{Counter, ShardCells};
use std::io;
use std::sync::{Arc, Once};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio_uring::buf::fixed::{FixedBuf, FixedBufPool};
use tokio_uring::buf::{IoBuf, IoBufMut};

/// That buffers are not registered is said once by a process.
static TOLD: Once = Once::new();

/// The most buffers that one pool has: what the kernel registers at once, and what `FixedBufPool`
/// takes.
pub const BUFFERS_MAX: usize = libc::UIO_MAXIOV as usize;

/// Whether the pool's buffers are registered with the ring (saves the kernel pinning pages per
/// operation).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Registration {
    /// Register; where the limit on locked memory forbids it, go on with plain buffers and say so.
    #[default]
    Auto,
    /// Register or refuse to start.
    Require,
    /// Plain buffers.
    Off,
}

/// A fixed number of buffers of one size.
pub struct BufferPool {
    pool: FixedBufPool<Vec<u8>>,
    buffer_bytes: usize,
    count: usize,
    /// One permit per buffer. The pool's own waiting is not fair: whoever runs takes what was just
    /// freed.
    line: Arc<Semaphore>,
    registered: bool,
}

impl BufferPool {
    /// Makes `count` buffers of `buffer_bytes` each, at most [`BUFFERS_MAX`]. Call inside the
    /// shard's runtime.
    ///
    /// # Errors
    ///
    /// The kernel's refusal to register them, with [`Registration::Require`] only; `ENOMEM` means
    /// that `RLIMIT_MEMLOCK` is too low.
    pub fn new(count: usize, buffer_bytes: usize, registration: Registration) -> io::Result<Self> {
        let count = count.min(BUFFERS_MAX);
        let pool = FixedBufPool::new((0..count).map(|_| Vec::with_capacity(buffer_bytes)));
        let registered = match registration {
            Registration::Off => false,
            Registration::Require => {
                pool.register()?;
                true
            }
            Registration::Auto => match pool.register() {
                Ok(()) => true,
                Err(error) => {
                    // Each shard has a pool, and they have one limit.
                    TOLD.call_once(|| {
                        tracing::info!(
                            %error,
                            bytes = count * buffer_bytes,
                            "buffers are not registered with the ring: the limit on locked memory \
                             (RLIMIT_MEMLOCK) is too low; raise it (LimitMEMLOCK=) for a little \
                             less CPU"
                        );
                    });
                    false
                }
            },
        };
        Ok(BufferPool {
            pool,
            buffer_bytes,
            count,
            line: Arc::new(Semaphore::new(count)),
            registered,
        })
    }

    /// Bytes of the pool that are in use.
    pub fn used_bytes(&self) -> usize {
        (self.count - self.line.available_permits()) * self.buffer_bytes
    }

    /// Whether all buffers are in use.
    pub fn is_exhausted(&self) -> bool {
        self.line.available_permits() == 0
    }

    /// A buffer if one is free and nobody waits for it.
    pub fn try_take(&self) -> Option<Buffer> {
        match Arc::clone(&self.line).try_acquire_owned() {
            Ok(permit) => self.hand_out(permit),
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => None,
        }
    }

    /// A buffer, when it is this caller's turn. `None` never comes but for a bug.
    pub async fn take(&self) -> Option<Buffer> {
        self.hand_out(Arc::clone(&self.line).acquire_owned().await.ok()?)
    }

    /// A buffer, when it is this caller's turn; counts the wait.
    pub(crate) async fn take_counted(&self, cells: &ShardCells) -> Option<Buffer> {
        if let Some(buffer) = self.try_take() {
            return Some(buffer);
        }
        cells.increment(Counter::BufferPoolWaits);
        self.take().await
    }

    /// The buffer that a permit stands for.
    fn hand_out(&self, permit: OwnedSemaphorePermit) -> Option<Buffer> {
        let inner = self.pool.try_next(self.buffer_bytes)?;
        Some(Buffer {
            inner,
            filled: 0,
            registered: self.registered,
            _permit: permit,
        })
    }
}

/// One buffer of the pool, filled from its start; it returns to the pool when it is dropped.
pub struct Buffer {
    // Dropped in this order: the buffer is back before the permit wakes who waits for it.
    inner: FixedBuf,
    filled: usize,
    registered: bool,
    _permit: OwnedSemaphorePermit,
}

impl Buffer {
    /// The bytes filled so far.
    pub fn filled(&self) -> &[u8] {
        // SAFETY: `filled` bytes from the start have been written by the kernel or by `fill_zero`,
        // and stay valid as long as `inner` is owned.
        unsafe { std::slice::from_raw_parts(self.inner.stable_ptr(), self.filled) }
    }

    /// The index under which the ring knows this buffer, if it is registered.
    pub fn registered_index(&self) -> Option<u16> {
        self.registered.then(|| self.inner.buf_index())
    }

    /// Where `length` bytes at `start` are to be written; `None` unless that continues what is
    /// filled and lies inside the buffer.
    pub fn spare_mut(&mut self, start: usize, length: usize) -> Option<*mut u8> {
        let end = start.checked_add(length)?;
        if start != self.filled || end > self.inner.bytes_total() {
            return None;
        }
        // SAFETY: `start` lies inside the buffer, checked above.
        Some(unsafe { self.inner.stable_mut_ptr().add(start) })
    }

    /// Appends `length` zeros: the content of a pad file (BEP 47). False if they do not fit.
    pub fn fill_zero(&mut self, length: usize) -> bool {
        let start = self.filled;
        let Some(target) = self.spare_mut(start, length) else {
            return false;
        };
        // SAFETY: `spare_mut` has checked that `length` bytes at `target` lie inside the buffer.
        unsafe {
            target.write_bytes(0, length);
            self.set_filled(start, length);
        }
        true
    }

    /// Notes that `count` bytes at `start` have been written.
    ///
    /// # Safety
    ///
    /// They have been: by the kernel or through the pointer that `spare_mut` gave.
    pub unsafe fn set_filled(&mut self, start: usize, count: usize) {
        debug_assert_eq!(start, self.filled);
        self.filled = start + count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    #[test]
    fn buffers_go_to_those_who_wait_in_their_order() {
        tokio_uring::start(async {
            let pool = Rc::new(BufferPool::new(1, 64, Registration::Off).unwrap());
            let order = Rc::new(RefCell::new(Vec::new()));
            let mut held = pool.try_take();
            let mut waiting = Vec::new();
            for number in 0..3 {
                let (pool, order) = (Rc::clone(&pool), Rc::clone(&order));
                waiting.push(tokio_uring::spawn(async move {
                    let buffer = pool.take().await.unwrap();
                    order.borrow_mut().push(number);
                    drop(buffer);
                }));
                tokio::task::yield_now().await;
            }
            assert!(pool.is_exhausted());
            held.take();
            // Whoever comes now comes after those three.
            assert!(pool.try_take().is_none());
            for task in waiting {
                task.await.unwrap();
            }
            assert_eq!(*order.borrow(), [0, 1, 2]);
            assert_eq!(pool.used_bytes(), 0);
            assert!(pool.try_take().is_some());
        });
    }
    fn pool(count: usize) -> BufferPool {
        BufferPool::new(count, 4096, Registration::Off).unwrap()
    }

    #[test]
    fn who_leaves_the_line_leaves_no_buffer_behind() {
        tokio_uring::start(async {
            let pool = pool(1);
            let held = pool.try_take();
            let mut waiting = Box::pin(pool.take());
            let at_once = tokio::time::timeout(std::time::Duration::ZERO, &mut waiting);
            assert!(at_once.await.is_err());
            // It is now the waiter's, which goes without having taken it.
            drop(held);
            assert!(pool.try_take().is_none());
            drop(waiting);
            assert!(pool.try_take().is_some());
        });
    }

    #[test]
    fn more_buffers_than_there_can_be_are_not_counted() {
        tokio_uring::start(async {
            let pool = pool(BUFFERS_MAX + 1);
            let all: Vec<_> = std::iter::from_fn(|| pool.try_take()).collect();
            assert_eq!((all.len(), pool.is_exhausted()), (BUFFERS_MAX, true));
        });
    }

    #[test]
    fn what_is_written_continues_what_is_filled_and_stays_inside() {
        tokio_uring::start(async {
            let pool = pool(1);
            let mut buffer = pool.try_take().unwrap();
            assert!(buffer.fill_zero(4000));
            assert!(buffer.spare_mut(0, 1).is_none(), "filled already");
            assert!(buffer.spare_mut(4001, 1).is_none(), "leaves a hole");
            assert!(buffer.spare_mut(4000, 97).is_none(), "too long");
            assert!(buffer.spare_mut(4000, usize::MAX).is_none());
            assert!(buffer.fill_zero(96) && !buffer.fill_zero(1));
            assert_eq!(buffer.filled(), [0; 4096]);
        });
    }
}
