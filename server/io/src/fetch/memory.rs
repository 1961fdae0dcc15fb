//! The memory that pieces come into: segments at page boundaries, out of a number of bytes that all
//! shards share.
//!
//! A segment is filled by its shard ([`Segment`]), then sealed ([`Sealed`]) and read at once by a
//! hash thread and by writes that the kernel has under way. When the last of them has let go of it,
//! its memory is used again: taking pages from the kernel costs as much as hashing what is put into
//! them.
//!
//! Limits: [`MemoryBudget`]; a taker that finds nothing left waits, and whoever can makes room.
//! Memory that is kept for reuse counts as used, and is given up for a segment of another size, and
//! when another shard waits.

use std::alloc::{self, Layout};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// The longest segment, in bytes: 64 blocks, so that a word has a bit for each.
pub(crate) const SEGMENT_BYTES_MAX: usize = 1 << 20;

/// Where segments begin.
pub(crate) const ALIGNMENT: usize = 4096;

/// How long a waiting taker relies on being told: another shard may have given memory back.
const RECHECK: Duration = Duration::from_millis(20);

/// Bytes that all shards together may take.
pub(crate) struct MemoryBudget {
    bytes_max: usize,
    taken: AtomicUsize,
    /// Takers that wait.
    waiting: AtomicUsize,
}

impl MemoryBudget {
    /// A budget of so many bytes.
    pub(crate) fn new(bytes_max: usize) -> Arc<MemoryBudget> {
        Arc::new(MemoryBudget {
            bytes_max,
            taken: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
        })
    }

    fn take(&self, bytes: usize) -> bool {
        let take = |taken: usize| {
            let sum = taken.checked_add(bytes)?;
            (sum <= self.bytes_max).then_some(sum)
        };
        let ordering = Ordering::Relaxed;
        self.taken.fetch_update(ordering, ordering, take).is_ok()
    }
}

/// An allocation; the budget has it back when it is dropped.
struct Memory {
    start: NonNull<u8>,
    layout: Layout,
    budget: Arc<MemoryBudget>,
}

// SAFETY: it is the only owner of its allocation, and what it allows with `&self` is reading.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Memory of zeros, if the budget has it.
    fn new(bytes: usize, budget: &Arc<MemoryBudget>) -> Option<Memory> {
        let layout = Layout::from_size_align(bytes, ALIGNMENT).ok()?;
        if bytes == 0 || !budget.take(bytes) {
            return None;
        }
        // SAFETY: the layout is not empty.
        let start = NonNull::new(unsafe { alloc::alloc_zeroed(layout) });
        let Some(start) = start else {
            budget.taken.fetch_sub(bytes, Ordering::Relaxed);
            return None;
        };
        Some(Memory {
            start,
            layout,
            budget: Arc::clone(budget),
        })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout, and nobody else knows it.
        unsafe { alloc::dealloc(self.start.as_ptr(), self.layout) };
        self.budget
            .taken
            .fetch_sub(self.layout.size(), Ordering::Relaxed);
    }
}

/// A segment that is being filled.
pub(crate) struct Segment {
    memory: Memory,
}

impl Segment {
    /// Where `length` bytes at `start` are to be written; `None` if they do not lie in the segment.
    /// Valid as long as the segment.
    pub(crate) fn target(&mut self, start: usize, length: usize) -> Option<*mut u8> {
        let end = start.checked_add(length)?;
        if end > self.memory.layout.size() {
            return None;
        }
        // SAFETY: inside the allocation, checked above.
        Some(unsafe { self.memory.start.add(start).as_ptr() })
    }

    /// Puts `bytes` at `start`. False if they do not fit.
    pub(crate) fn put(&mut self, start: usize, bytes: &[u8]) -> bool {
        let Some(target) = self.target(start, bytes.len()) else {
            return false;
        };
        // SAFETY: `target` has room for them, and nobody else can have a reference into the
        // segment.
        unsafe { target.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        true
    }

    /// `length` bytes from `start`; those that were never filled are of no meaning.
    pub(crate) fn get(&self, start: usize, length: usize) -> Option<&[u8]> {
        let end = start.checked_add(length)?;
        if end > self.memory.layout.size() {
            return None;
        }
        // SAFETY: inside the allocation, checked above; it began as zeros, and while `self` is
        // borrowed nobody has a place in it to write to.
        Some(unsafe { std::slice::from_raw_parts(self.memory.start.add(start).as_ptr(), length) })
    }

    /// Ends the filling.
    pub(crate) fn seal(self) -> Arc<Sealed> {
        Arc::new(Sealed {
            memory: self.memory,
        })
    }
}

/// A segment that nobody changes any more.
pub(crate) struct Sealed {
    memory: Memory,
}

impl Sealed {
    /// Its bytes; those that were never filled are of no meaning.
    pub(crate) fn bytes(&self) -> &[u8] {
        let memory = &self.memory;
        // SAFETY: the allocation is ours and has no writer any more; it began as zeros.
        unsafe { std::slice::from_raw_parts(memory.start.as_ptr(), memory.layout.size()) }
    }
}

/// The segments of one shard.
pub(crate) struct SegmentPool {
    budget: Arc<MemoryBudget>,
    /// By size.
    free: RefCell<HashMap<usize, Vec<Memory>>>,
    freed: Notify,
    /// Takers of this shard that wait.
    waiting: Cell<usize>,
}

impl SegmentPool {
    /// A pool that takes from `budget`.
    pub(crate) fn new(budget: Arc<MemoryBudget>) -> SegmentPool {
        SegmentPool {
            budget,
            free: RefCell::default(),
            freed: Notify::new(),
            waiting: Cell::new(0),
        }
    }

    /// A segment of at least `bytes`, of any content, if one is to be had now.
    pub(crate) fn try_take(&self, bytes: usize) -> Option<Segment> {
        let bytes = bytes.next_multiple_of(ALIGNMENT);
        let mut free = self.free.borrow_mut();
        if let Some(memory) = free.get_mut(&bytes).and_then(Vec::pop) {
            return Some(Segment { memory });
        }
        if let Some(memory) = Memory::new(bytes, &self.budget) {
            return Some(Segment { memory });
        }
        // What is kept for other sizes is nobody's need.
        free.clear();
        Memory::new(bytes, &self.budget).map(|memory| Segment { memory })
    }

    /// The same, but only out of plenty: for what may turn out not to be needed.
    pub(crate) fn try_take_spare(&self, bytes: usize) -> Option<Segment> {
        let bytes = bytes.next_multiple_of(ALIGNMENT);
        if self.budget.waiting.load(Ordering::Relaxed) > 0 {
            return None;
        }
        if let Some(memory) = self.free.borrow_mut().get_mut(&bytes).and_then(Vec::pop) {
            return Some(Segment { memory });
        }
        let is_plenty = self.budget.taken.load(Ordering::Relaxed) <= self.budget.bytes_max / 2;
        let memory = is_plenty.then(|| Memory::new(bytes, &self.budget));
        memory.flatten().map(|memory| Segment { memory })
    }

    /// Waits until memory may have been given back. `counts`: whoever can is to make room
    /// meanwhile.
    pub(crate) async fn changed(&self, counts: bool) {
        let told = timeout(RECHECK, self.freed.notified());
        if !counts {
            let _ = told.await;
            return;
        }
        self.budget.waiting.fetch_add(1, Ordering::Relaxed);
        self.waiting.set(self.waiting.get() + 1);
        let _ = told.await;
        self.waiting.set(self.waiting.get() - 1);
        self.budget.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many wait for memory on other shards.
    pub(crate) fn wanted_elsewhere(&self) -> usize {
        let waiting = self.budget.waiting.load(Ordering::Relaxed);
        waiting.saturating_sub(self.waiting.get())
    }

    /// Takes a segment back for reuse. While another shard waits for memory it is freed, and those
    /// who wait here are not told: all of them look again soon, so that none has it before the
    /// others every time.
    pub(crate) fn give_back(&self, segment: Segment) {
        let memory = segment.memory;
        if self.wanted_elsewhere() > 0 {
            drop(memory);
            self.shrink();
            return;
        }
        let mut free = self.free.borrow_mut();
        free.entry(memory.layout.size()).or_default().push(memory);
        self.freed.notify_waiters();
    }

    /// Takes sealed memory back if nobody else holds it any more; else whoever does frees it.
    pub(crate) fn give_back_sealed(&self, sealed: Arc<Sealed>) {
        if let Ok(sealed) = Arc::try_unwrap(sealed) {
            self.give_back(Segment {
                memory: sealed.memory,
            });
        }
    }

    /// Frees what is kept for reuse.
    pub(crate) fn shrink(&self) {
        self.free.borrow_mut().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_kept_and_memory_is_used_again() {
        let budget = MemoryBudget::new(3 * ALIGNMENT);
        let pool = SegmentPool::new(Arc::clone(&budget));
        let mut first = pool.try_take(ALIGNMENT).unwrap();
        assert_eq!(first.target(0, 1).unwrap().align_offset(ALIGNMENT), 0);
        let second = pool.try_take(2 * ALIGNMENT - 5).unwrap();
        assert!(pool.try_take(1).is_none());
        pool.give_back(second);
        // What is kept for one size is given up for another.
        let third = pool.try_take(ALIGNMENT).unwrap();
        assert!(pool.try_take(2 * ALIGNMENT).is_none());
        pool.give_back(third);
        pool.give_back(first);
        let all = pool.try_take(3 * ALIGNMENT).unwrap();
        drop(all);
        assert_eq!(budget.taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_another_shard_waits_for_is_not_kept() {
        let budget = MemoryBudget::new(2 * ALIGNMENT);
        let pools = [1, 2].map(|_| SegmentPool::new(Arc::clone(&budget)));
        let kept = [1, 2].map(|_| pools[0].try_take(ALIGNMENT).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().build().unwrap();
        runtime.block_on(async {
            let [first, second] = kept;
            // Nobody waits: it is kept.
            pools[0].give_back(first);
            assert!(pools[1].try_take(ALIGNMENT).is_none());
            let back = async { pools[0].give_back(second) };
            tokio::join!(biased; pools[1].changed(true), back);
        });
        let all = [1, 2].map(|_| pools[1].try_take(ALIGNMENT));
        assert!(all.iter().all(Option::is_some), "all of it was given up");
    }

    #[test]
    fn what_is_put_is_there_when_sealed_and_nothing_goes_beyond_the_end() {
        let pool = SegmentPool::new(MemoryBudget::new(ALIGNMENT));
        let mut segment = pool.try_take(100).unwrap();
        assert!(segment.put(ALIGNMENT - 3, b"abc"));
        assert!(!segment.put(ALIGNMENT - 2, b"abc") && !segment.put(usize::MAX, b"a"));
        let sealed = segment.seal();
        assert_eq!(sealed.bytes()[ALIGNMENT - 3..], *b"abc");
        let other = Arc::clone(&sealed);
        pool.give_back_sealed(sealed);
        assert!(pool.try_take(100).is_none(), "it is held");
        pool.give_back_sealed(other);
        assert!(pool.try_take(100).is_some());
    }
}
