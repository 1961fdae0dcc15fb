//! The requests that one peer waits on, in the order in which they came.
//!
//! Requests leave at the front in batches of adjacent blocks (one read, one send), or from anywhere
//! when the peer cancels. Two equal requests are two requests: each is answered, and a cancel takes
//! back the newer one (BEP 6: one answer to each request).
//!
//! Cost: push, cancel and each block of a batch are O(1) amortised. A peer that crafts hash
//! collisions makes a cancel walk at most the queue. Memory: nothing until the first request, then
//! 20 bytes a slot in powers of two, at most [`RequestQueue::memory_bytes_max`]; given back by
//! [`RequestQueue::shrink`].
//!
//! Not here: whether a request is valid or allowed, which is the session's.

use proto::ids::PieceIndex;
use proto::wire::BlockRequest;

/// How many blocks one batch holds at most.
pub const BATCH_BLOCKS_MAX: usize = 16;

/// How many bytes of content one batch holds at most. A single block is never longer than this.
pub const BATCH_BYTES_MAX: u32 = 256 << 10;

/// The slots of the first allocation.
const SLOTS_MIN: usize = 16;

/// "No older request in this bucket": sequence numbers never come this far apart.
const NO_LINK: u32 = u32::MAX;

/// Adjacent blocks of one piece, in order: one read and one send answer them all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Batch {
    /// The piece of all the blocks.
    pub piece: PieceIndex,
    /// Where the first block starts in the piece, in bytes.
    pub begin: u32,
    /// The lengths of the blocks, in bytes; those from `count` on are 0.
    pub lengths: [u32; BATCH_BLOCKS_MAX],
    /// How many blocks there are; at least 1.
    pub count: u32,
    /// The sum of the lengths, in bytes: the batch is `begin .. begin + bytes` of the piece.
    pub bytes: u32,
}

impl Batch {
    /// The blocks, as they were requested.
    pub fn blocks(&self) -> impl ExactSizeIterator<Item = BlockRequest> + '_ {
        let mut begin = self.begin;
        self.lengths[..self.count as usize]
            .iter()
            .map(move |&length| {
                let block = BlockRequest {
                    piece: self.piece,
                    begin,
                    length,
                };
                begin += length;
                block
            })
    }

    fn of(block: BlockRequest) -> Batch {
        let mut lengths = [0; BATCH_BLOCKS_MAX];
        lengths[0] = block.length;
        Batch {
            piece: block.piece,
            begin: block.begin,
            lengths,
            count: 1,
            bytes: block.length,
        }
    }

    /// Adds `block` if it follows directly and the batch stays within `bytes_max`.
    fn extend(&mut self, block: BlockRequest, bytes_max: u32) -> bool {
        let fits = block.piece == self.piece
            && self.begin.checked_add(self.bytes) == Some(block.begin)
            && (self.count as usize) < BATCH_BLOCKS_MAX
            && self
                .bytes
                .checked_add(block.length)
                .is_some_and(|bytes| bytes <= bytes_max);
        if fits {
            self.lengths[self.count as usize] = block.length;
            self.count += 1;
            self.bytes += block.length;
        }
        fits
    }
}

/// The bit of a slot's length that says that the request was cancelled. No length reaches it.
const CANCELLED: u32 = 1 << 31;

/// One place of the ring.
#[derive(Clone, Copy)]
struct Slot {
    block: BlockRequest,
    /// The sequence number of the next older request in the same bucket.
    older: u32,
}

const EMPTY: Slot = Slot {
    block: BlockRequest {
        piece: PieceIndex(0),
        begin: 0,
        length: 0,
    },
    older: NO_LINK,
};

/// The bounded request queue of one peer: see the module.
///
/// A ring of slots, numbered by a sequence that wraps, and a hash index whose buckets chain from
/// the newest request to older ones. A chain ends where it leaves the ring, so taking from the
/// front unlinks nothing.
pub struct RequestQueue {
    /// A power of two, or none.
    slots: Vec<Slot>,
    /// As many as slots: the sequence number of the newest request of each bucket.
    buckets: Vec<u32>,
    /// The sequence number of the first slot in use, which is never a cancelled one.
    head: u32,
    /// Slots in use, cancelled ones between others counted.
    used: u32,
    /// Requests.
    live: u32,
    /// The sum of the requests' lengths.
    bytes: u64,
    requests_max: u32,
}

impl RequestQueue {
    /// An empty queue for at most `requests_max` requests. Allocates nothing.
    pub fn new(requests_max: u32) -> RequestQueue {
        RequestQueue {
            slots: Vec::new(),
            buckets: Vec::new(),
            head: 0,
            used: 0,
            live: 0,
            bytes: 0,
            requests_max: requests_max.min(1 << 20),
        }
    }

    /// How many requests wait.
    pub fn len(&self) -> u32 {
        self.live
    }

    /// Whether no request waits.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// How many bytes the waiting requests ask for.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The memory that the queue holds now, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>() + self.buckets.capacity() * size_of::<u32>()
    }

    /// The most memory that a queue for `requests_max` requests ever holds, in bytes.
    pub fn memory_bytes_max(requests_max: u32) -> usize {
        slots_max(requests_max.min(1 << 20)) * (size_of::<Slot>() + size_of::<u32>())
    }

    /// Adds a request at the back; `false` if the queue is full.
    ///
    /// `block.length` must be 1 to [`BATCH_BYTES_MAX`]: the session has checked it.
    #[must_use]
    pub fn push(&mut self, block: BlockRequest) -> bool {
        assert!(
            block.length > 0 && block.length <= BATCH_BYTES_MAX,
            "an unchecked request"
        );
        if self.live >= self.requests_max {
            return false;
        }
        if self.used as usize == self.slots.len() {
            self.make_room();
        }
        let sequence = self.head.wrapping_add(self.used);
        self.insert(sequence, block);
        self.used += 1;
        self.live += 1;
        self.bytes += u64::from(block.length);
        true
    }

    /// Takes back the newest request that equals `block`; `false` if there is none.
    pub fn cancel(&mut self, block: BlockRequest) -> bool {
        if self.live == 0 {
            return false;
        }
        let mut sequence = self.buckets[self.bucket_of(block)];
        let mut position = self.used;
        // Each step goes to an older slot, so this ends.
        while let Some(at) = self.position(sequence)
            && at < position
        {
            position = at;
            let slot = self.slot_mut(sequence);
            if slot.block == block {
                slot.block.length |= CANCELLED;
                self.live -= 1;
                self.bytes -= u64::from(block.length);
                self.trim();
                return true;
            }
            sequence = slot.older;
        }
        false
    }

    /// The request at the front.
    pub fn front(&self) -> Option<BlockRequest> {
        (self.live > 0).then(|| self.slots[self.index(self.head)].block)
    }

    /// What [`Self::next_batch`] would take with the same limits.
    pub fn peek_batch(&self, bytes_max: u32) -> Option<Batch> {
        self.gather(bytes_max).map(|(batch, _)| batch)
    }

    /// Takes the longest run of adjacent blocks at the front: at most [`BATCH_BLOCKS_MAX`] blocks
    /// and `bytes_max` (and [`BATCH_BYTES_MAX`]) bytes. `None` if the queue is empty or the first
    /// block alone is longer than `bytes_max`.
    pub fn next_batch(&mut self, bytes_max: u32) -> Option<Batch> {
        let (batch, used) = self.gather(bytes_max)?;
        self.head = self.head.wrapping_add(used);
        self.used -= used;
        self.live -= batch.count;
        self.bytes -= u64::from(batch.bytes);
        self.trim();
        Some(batch)
    }

    /// Takes the request at the front.
    pub fn pop(&mut self) -> Option<BlockRequest> {
        let block = self.front()?;
        self.head = self.head.wrapping_add(1);
        self.used -= 1;
        self.live -= 1;
        self.bytes -= u64::from(block.length);
        self.trim();
        Some(block)
    }

    /// The requests, front to back.
    pub fn iter(&self) -> impl Iterator<Item = BlockRequest> + '_ {
        (0..self.used)
            .map(|position| self.slots[self.index(self.head.wrapping_add(position))].block)
            .filter(|block| block.length & CANCELLED == 0)
    }

    /// Drops every request.
    pub fn clear(&mut self) {
        self.head = self.head.wrapping_add(self.used);
        self.used = 0;
        self.live = 0;
        self.bytes = 0;
    }

    /// Gives memory back: all of it when the queue is empty. For the session's idle timeout, so
    /// that a busy queue that runs empty for a moment does not allocate again and again.
    pub fn shrink(&mut self) {
        if self.live == 0 {
            *self = RequestQueue::new(self.requests_max);
        }
    }

    /// Panics if the structure contradicts itself. For tests and simulation: O(n).
    pub fn check_invariants(&self) {
        let blocks: Vec<_> = self.iter().collect();
        assert_eq!(blocks.len(), self.live as usize);
        assert_eq!(
            blocks
                .iter()
                .map(|block| u64::from(block.length))
                .sum::<u64>(),
            self.bytes
        );
        assert!(self.live <= self.used && self.used as usize <= self.slots.len());
        assert!(self.live <= self.requests_max);
        assert!(self.slots.len() <= slots_max(self.requests_max));
        assert_eq!(self.slots.len(), self.buckets.len());
        assert_eq!(self.live == 0, self.used == 0);
        if self.used > 0 {
            let last = self.head.wrapping_add(self.used - 1);
            assert!(!self.is_cancelled(self.head) && !self.is_cancelled(last));
        }
    }

    /// The batch at the front, and how many slots it takes, cancelled ones within it counted.
    fn gather(&self, bytes_max: u32) -> Option<(Batch, u32)> {
        let bytes_max = bytes_max.min(BATCH_BYTES_MAX);
        let first = self.front().filter(|block| block.length <= bytes_max)?;
        let mut batch = Batch::of(first);
        let mut used = 1;
        for position in 1..self.used {
            let block = self.slots[self.index(self.head.wrapping_add(position))].block;
            if block.length & CANCELLED != 0 {
                continue;
            }
            if !batch.extend(block, bytes_max) {
                break;
            }
            used = position + 1;
        }
        Some((batch, used))
    }

    /// Drops cancelled slots at both ends, so that none of them outlives the requests around it.
    fn trim(&mut self) {
        while self.used > 0 && self.is_cancelled(self.head) {
            self.head = self.head.wrapping_add(1);
            self.used -= 1;
        }
        while self.used > 0 {
            let last = self.head.wrapping_add(self.used - 1);
            if !self.is_cancelled(last) {
                break;
            }
            // The number will be used again, so the index must forget it: it is the newest of its
            // bucket.
            let Slot { mut block, older } = self.slots[self.index(last)];
            block.length &= !CANCELLED;
            let bucket = self.bucket_of(block);
            self.buckets[bucket] = older;
            self.used -= 1;
        }
    }

    fn is_cancelled(&self, sequence: u32) -> bool {
        self.slots[self.index(sequence)].block.length & CANCELLED != 0
    }

    /// Doubles the ring, or, at its greatest size, squeezes the cancelled slots out of it.
    fn make_room(&mut self) {
        let blocks: Vec<_> = self.iter().collect();
        // At the greatest size there are spare slots, so squeezing is not needed for every request.
        let grow = self.slots.len() < slots_max(self.requests_max);
        let size = if grow {
            (self.slots.len() * 2).max(SLOTS_MIN)
        } else {
            self.slots.len()
        };
        let size = size.min(slots_max(self.requests_max));
        self.slots = vec![EMPTY; size];
        self.buckets = vec![NO_LINK; size];
        self.head = 0;
        self.used = 0;
        for block in blocks {
            self.insert(self.used, block);
            self.used += 1;
        }
    }

    fn insert(&mut self, sequence: u32, block: BlockRequest) {
        let bucket = self.bucket_of(block);
        let older = std::mem::replace(&mut self.buckets[bucket], sequence);
        *self.slot_mut(sequence) = Slot { block, older };
    }

    /// Where in the ring the request of this sequence number is, from the head; `None` if it is not
    /// there.
    fn position(&self, sequence: u32) -> Option<u32> {
        let position = sequence.wrapping_sub(self.head);
        (position < self.used).then_some(position)
    }

    fn index(&self, sequence: u32) -> usize {
        sequence as usize & (self.slots.len() - 1)
    }

    fn slot_mut(&mut self, sequence: u32) -> &mut Slot {
        let index = self.index(sequence);
        &mut self.slots[index]
    }

    fn bucket_of(&self, block: BlockRequest) -> usize {
        let place = u64::from(block.piece.0) << 32 | u64::from(block.begin);
        let mixed =
            (place ^ u64::from(block.length).rotate_left(40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 40) as usize & (self.buckets.len() - 1)
    }
}

/// The slots of the largest ring for a queue of `requests_max`: a 64th to spare for cancelled ones.
fn slots_max(requests_max: u32) -> usize {
    (requests_max as usize + requests_max as usize / 64 + 1)
        .next_power_of_two()
        .max(SLOTS_MIN)
}

#[cfg(test)]
mod tests;
