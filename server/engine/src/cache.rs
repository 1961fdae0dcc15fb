//! Policy of a bounded cache of chunks: which chunk is in which slot, who uses it, and which one
//! goes.
//!
//! A chunk is a fixed stretch of a piece ([`CHUNK_BYTES`], the last one of a piece shorter). Its
//! slot holds one [`Extent`] of it: mostly all, sometimes only the blocks that one peer asked for.
//! A slot is free, being read, or present; while it is read or has users it stays. Unused ones wait
//! in three lists, and the victim comes from the first that applies:
//!
//! 1. *passing*: a small extent of a chunk, whose slot is mostly empty: it goes first;
//! 2. *probation*: chunks that one peer alone has used, least recently used first;
//! 3. *shared*: chunks that a second peer has used. They go only when probation is down to a
//!    [`PROBATION_SHARE`] of the slots, so that a peer that reads everything once does not push out
//!    what several peers want; and [`SHARED_DECAY`] moves those that nobody wants any more back.
//!
//! That is a segmented LRU whose promotion counts peers and not uses: one peer comes back to a
//! chunk for each of its batches, which says nothing about the next peer.
//!
//! Limits: the number of slots, fixed at the start; all memory is allocated then. Every operation
//! is O(1) but [`ChunkCache::forget`]. No clock, no I/O, no bytes: who owns the memory is the I/O
//! layer.

use crate::queue::BATCH_BYTES_MAX;
use proto::ids::PieceIndex;
use std::collections::HashMap;

/// The length of a chunk, in bytes: the longest batch, so that a batch touches two chunks at most.
pub const CHUNK_BYTES: u32 = BATCH_BYTES_MAX;

/// Shared chunks are pushed out only when unused chunks on probation are at most one in so many
/// slots.
pub const PROBATION_SHARE: u32 = 4;

/// After so many evictions the shared chunk used longest ago goes back on probation.
pub const SHARED_DECAY: u32 = 16;

/// "No slot": lists end with it.
const NONE: u32 = u32::MAX;

/// Names a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ChunkKey {
    /// The torrent, by its number in this process.
    pub torrent: u64,
    /// The piece.
    pub piece: PieceIndex,
    /// Which stretch of the piece, from 0.
    pub chunk: u32,
}

/// A run of bytes within a chunk: `from .. to`, never empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// The first byte.
    pub from: u32,
    /// One after the last byte.
    pub to: u32,
}

impl Extent {
    /// How long it is, in bytes.
    pub fn bytes(self) -> u32 {
        self.to - self.from
    }

    /// Whether all of `other` lies in it.
    pub fn covers(self, other: Extent) -> bool {
        self.from <= other.from && other.to <= self.to
    }
}

/// Tells peers apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UserId(pub u64);

/// The number of a place for one chunk.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Slot(u32);

impl Slot {
    /// Its number, below the number of slots.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What the cache knows of an extent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// Its bytes are here.
    Present(Slot),
    /// A read that brings them is under way.
    Reading(Slot),
    /// Other bytes of the chunk are here or on their way, fetched for this peer.
    Other(UserId),
    /// Nothing.
    Absent,
}

/// Why a chunk is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Purpose {
    /// The peer for whom.
    pub user: UserId,
    /// It has not come to these bytes yet: they are fetched before their turn.
    pub ahead: bool,
    /// The extent is a small part of the chunk.
    pub passing: bool,
}

/// What became of an unused chunk that had to make room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Evicted {
    /// The chunk.
    pub key: ChunkKey,
    /// It was fetched ahead, and nobody came for it.
    pub unused: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Free,
    Reading,
    Present,
}

/// The list in which a slot waits while nobody uses it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Home {
    Free,
    Passing,
    Probation,
    Shared,
}

const HOMES: usize = 4;

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: ChunkKey,
    extent: Extent,
    state: State,
    home: Home,
    /// Those who send its bytes or wait for them, and the read itself.
    users: u32,
    /// Whether the map leads here: not once another slot has taken the chunk over or its torrent
    /// has gone. Then the slot is free when its last user goes.
    mapped: bool,
    first_user: UserId,
    /// Fetched ahead, and nobody has used it yet.
    unused: bool,
    /// A small extent. One that was fetched ahead is on probation until its peer has come for it.
    passing: bool,
    previous: u32,
    next: u32,
}

/// The most recently used at the head.
#[derive(Clone, Copy, Debug)]
struct List {
    head: u32,
    tail: u32,
    length: u32,
}

/// The cache's book-keeping: see the module.
pub struct ChunkCache {
    entries: Box<[Entry]>,
    map: HashMap<ChunkKey, u32>,
    /// By [`Home`]; a slot is in its list exactly while it has no user.
    lists: [List; HOMES],
    /// Chunks fetched ahead that nobody has used yet.
    ahead: u32,
    evictions_until_decay: u32,
}

impl ChunkCache {
    /// An empty cache of `slots` slots.
    pub fn new(slots: u32) -> ChunkCache {
        let entry = Entry {
            key: ChunkKey {
                torrent: 0,
                piece: PieceIndex(0),
                chunk: 0,
            },
            extent: Extent { from: 0, to: 0 },
            state: State::Free,
            home: Home::Free,
            users: 0,
            mapped: false,
            first_user: UserId(0),
            unused: false,
            passing: false,
            previous: NONE,
            next: NONE,
        };
        let list = List {
            head: NONE,
            tail: NONE,
            length: 0,
        };
        let mut cache = ChunkCache {
            entries: vec![entry; slots as usize].into_boxed_slice(),
            map: HashMap::with_capacity(slots as usize),
            lists: [list; HOMES],
            ahead: 0,
            evictions_until_decay: SHARED_DECAY,
        };
        // So that the first slots are handed out first, and memory that is never needed is never
        // touched.
        (0..slots).for_each(|slot| cache.link_last(slot));
        cache
    }

    /// How many slots there are.
    pub fn slots(&self) -> u32 {
        self.entries.len() as u32
    }

    /// How many slots hold a chunk or are being read.
    pub fn filled(&self) -> u32 {
        self.slots() - self.list(Home::Free).length
    }

    /// How many slots nobody uses: free ones and those that could be pushed out.
    pub fn idle(&self) -> u32 {
        self.lists.iter().map(|list| list.length).sum()
    }

    /// How many chunks were fetched ahead and wait for their peer.
    pub fn ahead(&self) -> u32 {
        self.ahead
    }

    /// What is known of `extent` of the chunk. Changes nothing.
    pub fn find(&self, key: ChunkKey, extent: Extent) -> Found {
        let Some(&slot) = self.map.get(&key) else {
            return Found::Absent;
        };
        let entry = &self.entries[slot as usize];
        match entry.state {
            _ if !entry.extent.covers(extent) => Found::Other(entry.first_user),
            State::Reading => Found::Reading(Slot(slot)),
            State::Present => Found::Present(Slot(slot)),
            State::Free => Found::Absent,
        }
    }

    /// Which bytes of its chunk a slot holds or is about to hold.
    pub fn extent(&self, slot: Slot) -> Extent {
        self.entries[slot.index()].extent
    }

    /// Whether somebody uses the slot.
    pub fn is_used(&self, slot: Slot) -> bool {
        self.entries[slot.index()].users > 0
    }

    /// Counts `user` as one who uses what [`Self::find`] has found.
    pub fn pin(&mut self, slot: Slot, user: UserId) {
        assert_ne!(self.entry(slot).state, State::Free, "it was found");
        if self.entry(slot).users == 0 {
            self.unlink(slot.0);
        }
        let entry = &mut self.entries[slot.index()];
        entry.users += 1;
        if std::mem::take(&mut entry.unused) {
            self.ahead -= 1;
            if entry.passing {
                entry.home = Home::Passing;
            }
        }
        if entry.first_user != user {
            entry.home = Home::Shared;
        }
    }

    /// Takes a use back. True when it was the last one.
    pub fn unpin(&mut self, slot: Slot) -> bool {
        let entry = &mut self.entries[slot.index()];
        assert!(entry.users > 0, "each use is given back once");
        entry.users -= 1;
        if entry.users > 0 {
            return false;
        }
        if !entry.mapped {
            self.empty(slot.0);
        }
        self.link(slot.0);
        true
    }

    /// Gives `extent` of a chunk, which was not found, a slot to be read into, and says what had to
    /// go for it. The read is a user of the slot until [`Self::read_done`]. `None` if every slot is
    /// used.
    ///
    /// What else the cache had of the chunk is forgotten; its users keep it until they are done.
    pub fn start_read(
        &mut self,
        key: ChunkKey,
        extent: Extent,
        purpose: Purpose,
    ) -> Option<(Slot, Option<Evicted>)> {
        assert!(extent.from < extent.to && extent.to <= CHUNK_BYTES);
        if self.idle() == 0 {
            return None;
        }
        if let Some(slot) = self.map.remove(&key) {
            self.disown(slot);
        }
        let (slot, evicted) = self.vacate()?;
        self.unlink(slot);
        self.ahead += u32::from(purpose.ahead);
        self.map.insert(key, slot);
        let entry = &mut self.entries[slot as usize];
        *entry = Entry {
            key,
            extent,
            state: State::Reading,
            home: if purpose.passing && !purpose.ahead {
                Home::Passing
            } else {
                Home::Probation
            },
            users: 1,
            mapped: true,
            first_user: purpose.user,
            unused: purpose.ahead,
            passing: purpose.passing,
            ..*entry
        };
        Some((Slot(slot), evicted))
    }

    /// Ends the read of a slot: its bytes are here if `success`, else the chunk is forgotten. True
    /// when nobody waited for it.
    pub fn read_done(&mut self, slot: Slot, success: bool) -> bool {
        let entry = &mut self.entries[slot.index()];
        assert_eq!(entry.state, State::Reading, "each read ends once");
        entry.state = State::Present;
        if !success && entry.mapped {
            let key = entry.key;
            self.map.remove(&key);
            self.disown(slot.0);
        }
        self.unpin(slot)
    }

    /// Forgets a torrent's chunks; those in use when their last user goes. O(slots).
    pub fn forget(&mut self, torrent: u64) {
        for slot in 0..self.slots() {
            let entry = &self.entries[slot as usize];
            if entry.mapped && entry.key.torrent == torrent {
                let key = entry.key;
                self.map.remove(&key);
                self.disown(slot);
            }
        }
    }

    /// Panics if the structure contradicts itself. For tests and simulation: O(slots).
    pub fn check_invariants(&self) {
        let mut listed = vec![None; self.entries.len()];
        for home in [Home::Free, Home::Passing, Home::Probation, Home::Shared] {
            let list = self.list(home);
            let (mut at, mut previous, mut length) = (list.head, NONE, 0);
            while at != NONE {
                let entry = &self.entries[at as usize];
                assert_eq!((entry.home, entry.users), (home, 0));
                assert_eq!(entry.previous, previous);
                assert_eq!(listed[at as usize].replace(home), None);
                (previous, at) = (at, entry.next);
                length += 1;
            }
            assert_eq!((list.tail, list.length), (previous, length));
        }
        let (mut mapped, mut unused) = (0, 0);
        for (slot, entry) in self.entries.iter().enumerate() {
            assert_eq!(listed[slot].is_some(), entry.users == 0);
            assert_eq!(entry.state == State::Free, entry.home == Home::Free);
            assert!(entry.users > 0 || entry.state != State::Reading);
            assert!(entry.users > 0 || entry.mapped == (entry.state == State::Present));
            if entry.mapped {
                assert_eq!(self.map.get(&entry.key), Some(&(slot as u32)));
                mapped += 1;
            }
            unused += u32::from(entry.unused);
        }
        assert_eq!((self.map.len(), self.ahead), (mapped, unused));
    }

    fn entry(&self, slot: Slot) -> &Entry {
        &self.entries[slot.index()]
    }

    fn list(&self, home: Home) -> &List {
        &self.lists[home as usize]
    }

    /// Takes a chunk that the map has lost from its slot: now if nobody uses it, else with the last
    /// user.
    fn disown(&mut self, slot: u32) {
        let entry = &mut self.entries[slot as usize];
        entry.mapped = false;
        if std::mem::take(&mut entry.unused) {
            self.ahead -= 1;
        }
        if entry.users == 0 {
            self.unlink(slot);
            self.empty(slot);
            self.link(slot);
        }
    }

    /// Makes a slot free that is in no list.
    fn empty(&mut self, slot: u32) {
        let entry = &mut self.entries[slot as usize];
        entry.state = State::Free;
        entry.home = Home::Free;
    }

    /// A slot that is free, or is made so by pushing out the chunk that is worth least.
    fn vacate(&mut self) -> Option<(u32, Option<Evicted>)> {
        let free = self.list(Home::Free).head;
        if free != NONE {
            return Some((free, None));
        }
        let probation = self.list(Home::Probation);
        let victim = if self.list(Home::Passing).length > 0 {
            self.list(Home::Passing).tail
        } else if probation.length > self.slots() / PROBATION_SHARE
            || self.list(Home::Shared).length == 0
        {
            probation.tail
        } else {
            self.list(Home::Shared).tail
        };
        let entry = self.entries.get(victim as usize)?;
        let (key, unused) = (entry.key, entry.unused);
        self.map.remove(&key);
        self.disown(victim);
        self.decay();
        Some((victim, Some(Evicted { key, unused })))
    }

    /// Puts the shared chunk used longest ago back on probation, at times: else those that were
    /// wanted once would stay for ever.
    fn decay(&mut self) {
        self.evictions_until_decay -= 1;
        if self.evictions_until_decay > 0 {
            return;
        }
        self.evictions_until_decay = SHARED_DECAY;
        let oldest = self.list(Home::Shared).tail;
        if oldest != NONE {
            self.unlink(oldest);
            self.entries[oldest as usize].home = Home::Probation;
            self.link(oldest);
        }
    }

    /// Puts a slot that nobody uses at the head of its list.
    fn link(&mut self, slot: u32) {
        let list = &mut self.lists[self.entries[slot as usize].home as usize];
        let next = std::mem::replace(&mut list.head, slot);
        list.length += 1;
        match next {
            NONE => list.tail = slot,
            next => self.entries[next as usize].previous = slot,
        }
        let entry = &mut self.entries[slot as usize];
        (entry.previous, entry.next) = (NONE, next);
    }

    /// Puts a slot that nobody uses at the tail of its list.
    fn link_last(&mut self, slot: u32) {
        let list = &mut self.lists[self.entries[slot as usize].home as usize];
        let previous = std::mem::replace(&mut list.tail, slot);
        list.length += 1;
        match previous {
            NONE => list.head = slot,
            previous => self.entries[previous as usize].next = slot,
        }
        let entry = &mut self.entries[slot as usize];
        (entry.previous, entry.next) = (previous, NONE);
    }

    /// Takes a slot out of its list.
    fn unlink(&mut self, slot: u32) {
        let Entry {
            home,
            previous,
            next,
            ..
        } = self.entries[slot as usize];
        let list = &mut self.lists[home as usize];
        list.length -= 1;
        match previous {
            NONE => list.head = next,
            previous => self.entries[previous as usize].next = next,
        }
        match next {
            NONE => self.lists[home as usize].tail = previous,
            next => self.entries[next as usize].previous = previous,
        }
    }
}

#[cfg(test)]
mod tests;
