//! The pieces that may be begun, in classes of equal priority and equal availability.
//!
//! Each class is a bucket without inner order: ties are broken at random when a piece is chosen, so
//! that a change of class is a push and a swap-remove, O(1) whatever the distance. Buckets are made
//! of chunks of [`CHUNK_PIECES`] slots from one pool, so that a million pieces that move from one
//! class to the next leave nothing behind: memory is 4 bytes a piece and a 32nd to spare, and a
//! chunk at most for each class that is not empty.
//!
//! Every priority that is in use keeps a set of its pieces besides, one bit each: it answers "the
//! lowest piece that this peer has" and "any piece that this peer has" 64 pieces at a time.
//!
//! Not here: where in the order a piece is (its slot), which [`super::pieces`] keeps.

use proto::ids::PieceIndex;

use super::bits::Bits;
use super::priority::{PRIORITIES, Priority};

/// Slots in a chunk.
const CHUNK_PIECES: usize = 64;

/// For how many chunks an empty class keeps room in its list, so that a piece that comes and goes
/// allocates nothing.
const CHUNKS_KEPT: usize = 4;

/// Where a piece stands in the pool of chunks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Slot(pub u32);

/// The pieces of one class.
#[derive(Clone, Debug, Default)]
struct Bucket {
    /// Chunks of the pool; all but the last are full.
    chunks: Vec<u32>,
    len: u32,
}

/// The pieces of one priority.
#[derive(Clone, Debug, Default)]
pub(super) struct Level {
    /// By availability.
    buckets: Vec<Bucket>,
    /// The same pieces by index; without words until the priority is first used.
    members: Bits,
    len: u32,
    /// No word of `members` before this one has a piece.
    lowest_word: usize,
}

impl Level {
    pub fn len(&self) -> u32 {
        self.len
    }

    pub fn members(&self) -> &Bits {
        &self.members
    }

    /// One more than the highest availability that a piece of this level has had.
    pub fn bucket_count(&self) -> usize {
        self.buckets.len()
    }

    /// How many pieces have this availability.
    pub fn bucket_len(&self, availability: usize) -> u32 {
        self.buckets
            .get(availability)
            .map_or(0, |bucket| bucket.len)
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pool: Vec<PieceIndex>,
    free_chunks: Vec<u32>,
    levels: [Level; PRIORITIES],
    pieces: u32,
    len: u32,
}

impl Order {
    /// An empty order for a torrent of so many pieces.
    pub fn new(pieces: u32) -> Order {
        Order {
            pool: Vec::with_capacity((pieces as usize).next_multiple_of(CHUNK_PIECES)),
            free_chunks: Vec::new(),
            levels: Default::default(),
            pieces,
            len: 0,
        }
    }

    /// How many pieces are in it.
    pub fn len(&self) -> u32 {
        self.len
    }

    pub fn level(&self, priority: Priority) -> &Level {
        &self.levels[priority.index()]
    }

    /// The highest priority of any piece in it.
    pub fn priority_max(&self) -> Priority {
        let mut down = Priority::ALL.into_iter().rev();
        down.find(|priority| self.level(*priority).len > 0)
            .unwrap_or(Priority::SKIP)
    }

    /// Adds a piece that is not in it.
    pub fn insert(&mut self, piece: PieceIndex, priority: Priority, availability: u16) -> Slot {
        let level = &mut self.levels[priority.index()];
        if !level.members.has_room() {
            level.members = Bits::with_room_for(self.pieces);
        }
        level.members.insert(piece);
        level.lowest_word = level.lowest_word.min(piece.0 as usize / 64);
        level.len += 1;
        self.len += 1;
        self.push(piece, priority, availability)
    }

    /// Takes the piece at `slot` out. The piece that fills its place, if another one does, now
    /// stands there.
    pub fn remove(
        &mut self,
        slot: Slot,
        priority: Priority,
        availability: u16,
    ) -> Option<PieceIndex> {
        let level = &mut self.levels[priority.index()];
        level.members.remove(self.pool[slot.0 as usize]);
        level.len -= 1;
        self.len -= 1;
        self.swap_remove(slot, priority, availability)
    }

    /// Moves the piece at `slot` to another availability. Returns its new slot, and the piece that
    /// now stands in the old one, if another one does.
    pub fn relocate(
        &mut self,
        slot: Slot,
        priority: Priority,
        from: u16,
        to: u16,
    ) -> (Slot, Option<PieceIndex>) {
        let piece = self.pool[slot.0 as usize];
        let filler = self.swap_remove(slot, priority, from);
        (self.push(piece, priority, to), filler)
    }

    /// Every availability rises by one.
    pub fn shift_up(&mut self) {
        for level in &mut self.levels {
            if level.len > 0 {
                level.buckets.insert(0, Bucket::default());
            }
        }
    }

    /// Every availability falls by one; none was 0.
    pub fn shift_down(&mut self) {
        for level in &mut self.levels {
            if !level.buckets.is_empty() {
                let first = level.buckets.remove(0);
                assert_eq!(first.len, 0, "an availability below 0");
            }
        }
    }

    /// Empties it, and keeps its memory.
    pub fn clear(&mut self) {
        for level in &mut self.levels {
            for bucket in &mut level.buckets {
                self.free_chunks.append(&mut bucket.chunks);
                bucket.len = 0;
            }
            level.members.clear();
            level.len = 0;
        }
        self.len = 0;
    }

    /// The piece number `place` of a class.
    pub fn piece_at(&self, priority: Priority, availability: usize, place: u32) -> PieceIndex {
        let bucket = &self.levels[priority.index()].buckets[availability];
        self.pool[slot_of(bucket, place)]
    }

    /// The first word of the level's members that has a piece, if any has.
    pub fn lowest_word(&mut self, priority: Priority) -> usize {
        let level = &mut self.levels[priority.index()];
        let words = level.members.words();
        while words.get(level.lowest_word) == Some(&0) {
            level.lowest_word += 1;
        }
        level.lowest_word
    }

    fn push(&mut self, piece: PieceIndex, priority: Priority, availability: u16) -> Slot {
        let buckets = &mut self.levels[priority.index()].buckets;
        let availability = usize::from(availability);
        if availability >= buckets.len() {
            buckets.resize_with(availability + 1, Bucket::default);
        }
        let bucket = &mut buckets[availability];
        if bucket.len as usize == bucket.chunks.len() * CHUNK_PIECES {
            let chunk = self.free_chunks.pop();
            let chunk = chunk.unwrap_or_else(|| grow(&mut self.pool));
            bucket.chunks.push(chunk);
        }
        bucket.len += 1;
        let slot = slot_of(bucket, bucket.len - 1);
        self.pool[slot] = piece;
        Slot(slot as u32)
    }

    /// Fills `slot` with the last piece of its class, and returns that one unless it stood there
    /// itself.
    fn swap_remove(
        &mut self,
        slot: Slot,
        priority: Priority,
        availability: u16,
    ) -> Option<PieceIndex> {
        let bucket = &mut self.levels[priority.index()].buckets[usize::from(availability)];
        let last = slot_of(bucket, bucket.len - 1);
        bucket.len -= 1;
        if bucket.len as usize + CHUNK_PIECES <= bucket.chunks.len() * CHUNK_PIECES {
            self.free_chunks.extend(bucket.chunks.pop());
            if bucket.chunks.is_empty() && bucket.chunks.capacity() > CHUNKS_KEPT {
                // A class that was large for a moment keeps no long list of its chunks.
                bucket.chunks = Vec::new();
            }
        }
        let filler = self.pool[last];
        self.pool[slot.0 as usize] = filler;
        (last != slot.0 as usize).then_some(filler)
    }

    /// Bytes that it has allocated.
    pub fn memory_bytes(&self) -> usize {
        let levels = self.levels.iter().map(|level| {
            let chunks: usize = level.buckets.iter().map(|b| b.chunks.capacity() * 4).sum();
            chunks
                + level.buckets.capacity() * size_of::<Bucket>()
                + level.members.words().len() * 8
        });
        (self.pool.capacity() + self.free_chunks.capacity()) * 4 + levels.sum::<usize>()
    }

    /// Panics if it contradicts itself or what `class_of` says of its pieces: O(pieces).
    pub fn check_invariants(&self, class_of: impl Fn(PieceIndex) -> Option<(Priority, u16, Slot)>) {
        let mut total = 0;
        let mut chunks = self.free_chunks.clone();
        for priority in Priority::ALL {
            let level = self.level(priority);
            assert!(level.len == 0 || priority != Priority::SKIP);
            assert_eq!(level.members.count(), level.len);
            let mut len = 0;
            for (availability, bucket) in level.buckets.iter().enumerate() {
                let filled = (bucket.len as usize).div_ceil(CHUNK_PIECES);
                assert_eq!(bucket.chunks.len(), filled, "chunks of a bucket");
                chunks.extend(&bucket.chunks);
                len += bucket.len;
                for place in 0..bucket.len {
                    let slot = slot_of(bucket, place);
                    let piece = self.pool[slot];
                    let class = (priority, availability as u16, Slot(slot as u32));
                    assert_eq!(class_of(piece), Some(class), "the class of piece {piece}");
                    assert!(level.members.contains(piece));
                    assert!(piece.0 as usize / 64 >= level.lowest_word);
                }
            }
            assert_eq!(len, level.len);
            total += len;
        }
        assert_eq!(total, self.len);
        chunks.sort_unstable();
        let all: Vec<u32> = (0..(self.pool.len() / CHUNK_PIECES) as u32).collect();
        assert_eq!(chunks, all, "every chunk is in one bucket or free");
    }
}

/// Adds a chunk to the pool, which grows by a 32nd: by half or twice, its spare room would outweigh
/// all else.
fn grow(pool: &mut Vec<PieceIndex>) -> u32 {
    let len = pool.len();
    if len == pool.capacity() {
        pool.reserve_exact((len / 32).max(CHUNK_PIECES));
    }
    pool.resize(len + CHUNK_PIECES, PieceIndex(u32::MAX));
    (len / CHUNK_PIECES) as u32
}

fn slot_of(bucket: &Bucket, place: u32) -> usize {
    let place = place as usize;
    bucket.chunks[place / CHUNK_PIECES] as usize * CHUNK_PIECES + place % CHUNK_PIECES
}
