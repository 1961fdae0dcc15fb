//! Room in memory for the metadata that are being gathered, of all links of a server: how long they
//! are is what strangers say, up to 64 MiB of each.
//!
//! A length takes room for all of it before its first block is asked for: twice its bytes, since
//! its blocks are in memory, and for a moment the whole that is made of them. Short lengths have
//! room of their own, so that none of them waits for a long one: nearly all torrents are short.
//!
//! Policy when full: a length that does not fit waits in line, behind those that came before it,
//! however much they need, and its link goes on with another length that fits. Who has room keeps
//! it until it is done; once others are in line, for [`HOLD`] and as long as its bytes take at
//! [`HOLD_BYTES_PER_SECOND`], twice as long each time it had to make room. Since every length fits
//! into the room for its like alone, each has its turn in the end.
//!
//! What is put aside for a later turn has room of its own; what does not fit there is dropped, and
//! asked for again.
//!
//! Limits: [`MEMORY_BYTES_MAX`] in all; one place in line for each link. Nobody is told that there
//! is room: who is in line looks from time to time.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::limits::METAINFO_BYTES_MAX;

use crate::time::Time;

/// The longest of the short lengths, in bytes: the hashes of 50,000 pieces.
const SHORT_BYTES_MAX: u32 = 1 << 20;

/// Room for short lengths, in bytes.
const SHORT_ROOM_BYTES: usize = 32 << 20;

/// Room for long lengths, in bytes: for the longest one.
const LONG_ROOM_BYTES: usize = COPIES * METAINFO_BYTES_MAX;

/// Room for what is put aside, in bytes.
const ASIDE_ROOM_BYTES: usize = 16 << 20;

/// How often the bytes of a length are in memory.
const COPIES: usize = 2;

/// What the metadata that are being gathered take at most, in bytes.
pub const MEMORY_BYTES_MAX: usize = SHORT_ROOM_BYTES + LONG_ROOM_BYTES + ASIDE_ROOM_BYTES;

/// How long who has room keeps it at least, others in line or not.
const HOLD: Duration = Duration::from_secs(30);

/// How fast its bytes must come for it to be done in that time: two blocks a second from each of
/// two peers.
const HOLD_BYTES_PER_SECOND: u32 = 64 << 10;

/// How often that time doubles, at most.
const HOLD_DOUBLINGS_MAX: u32 = 5;

/// The room, for all exchanges of a server.
#[derive(Default)]
pub struct MetadataRoom(Mutex<Rooms>);

#[derive(Default)]
struct Rooms {
    short: Room,
    long: Room,
    aside_bytes: usize,
    /// The next place in line.
    next_number: u64,
}

/// Room for lengths of one kind.
#[derive(Default)]
struct Room {
    taken_bytes: usize,
    /// Who waits, by its place in line.
    line: BTreeSet<u64>,
}

impl Rooms {
    fn of(&mut self, kind: Kind) -> &mut Room {
        match kind {
            Kind::Short => &mut self.short,
            Kind::Long => &mut self.long,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Short,
    Long,
}

impl Kind {
    fn of(total_bytes: u32) -> Kind {
        match total_bytes <= SHORT_BYTES_MAX {
            true => Kind::Short,
            false => Kind::Long,
        }
    }

    fn room_bytes(self) -> usize {
        match self {
            Kind::Short => SHORT_ROOM_BYTES,
            Kind::Long => LONG_ROOM_BYTES,
        }
    }
}

fn memory_bytes(total_bytes: u32) -> usize {
    COPIES * total_bytes as usize
}

impl MetadataRoom {
    fn lock(&self) -> MutexGuard<'_, Rooms> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that are taken: of lengths that are being gathered, and put aside.
    pub fn taken_bytes(&self) -> usize {
        let rooms = self.lock();
        rooms.short.taken_bytes + rooms.long.taken_bytes + rooms.aside_bytes
    }
}

/// Room that one length has; given back when it is dropped.
pub struct Place {
    room: Arc<MetadataRoom>,
    kind: Kind,
    bytes: usize,
    until: Time,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.lock().of(self.kind).taken_bytes -= self.bytes;
    }
}

/// Room of what was put aside; given back when it is dropped.
pub(super) struct AsidePlace {
    room: Arc<MetadataRoom>,
    bytes: usize,
}

impl Drop for AsidePlace {
    fn drop(&mut self) {
        self.room.lock().aside_bytes -= self.bytes;
    }
}

/// A place in line.
struct Ticket {
    number: u64,
    total_bytes: u32,
}

/// The part of one exchange in the room: what it has, and what it waits for.
pub(super) struct Share {
    room: Arc<MetadataRoom>,
    place: Option<Place>,
    ticket: Option<Ticket>,
    /// How often it had to make room.
    made_room: u32,
}

impl Share {
    pub(super) fn new(room: Arc<MetadataRoom>) -> Share {
        Share {
            room,
            place: None,
            ticket: None,
            made_room: 0,
        }
    }

    /// What it is in line for.
    pub(super) fn awaited(&self) -> Option<u32> {
        self.ticket.as_ref().map(|ticket| ticket.total_bytes)
    }

    /// Whether there would be room for a length at once, in place of what it has.
    pub(super) fn fits(&self, total_bytes: u32) -> bool {
        self.fits_in(&mut self.room.lock(), total_bytes)
    }

    fn fits_in(&self, rooms: &mut Rooms, total_bytes: u32) -> bool {
        if self.has_room_of(total_bytes) {
            return true;
        }
        let kind = Kind::of(total_bytes);
        let own = self.place.as_ref().filter(|place| place.kind == kind);
        let own_bytes = own.map_or(0, |place| place.bytes);
        let own_number = self.ticket.as_ref().map(|ticket| ticket.number);
        let room = rooms.of(kind);
        let first = room.line.first().copied();
        let is_next = first.is_none() || first == own_number;
        is_next && room.taken_bytes - own_bytes + memory_bytes(total_bytes) <= kind.room_bytes()
    }

    /// Whether what it has is room for just this length.
    fn has_room_of(&self, total_bytes: u32) -> bool {
        let (kind, bytes) = (Kind::of(total_bytes), memory_bytes(total_bytes));
        let own = self.place.as_ref();
        own.is_some_and(|place| place.kind == kind && place.bytes == bytes)
    }

    /// Takes room for a length in place of what it has, which is not to be in memory any more. If
    /// there is none, it keeps what it has, and is in line from now on unless it is already.
    pub(super) fn take(&mut self, total_bytes: u32, now: Time) -> bool {
        let room = Arc::clone(&self.room);
        let mut rooms = room.lock();
        let kind = Kind::of(total_bytes);
        if !self.fits_in(&mut rooms, total_bytes) {
            self.wait(&mut rooms, total_bytes);
            return false;
        }
        if self.awaited() == Some(total_bytes) {
            self.leave_line_in(&mut rooms);
        }
        if self.has_room_of(total_bytes) {
            return true;
        }
        let bytes = memory_bytes(total_bytes);
        rooms.of(kind).taken_bytes += bytes;
        // The old place takes the lock for itself.
        drop(rooms);
        let bytes_due = Duration::from_secs((total_bytes / HOLD_BYTES_PER_SECOND).into());
        let doublings = self.made_room.min(HOLD_DOUBLINGS_MAX);
        self.place = Some(Place {
            room,
            kind,
            bytes,
            until: now + (HOLD + bytes_due).saturating_mul(1 << doublings),
        });
        true
    }

    fn wait(&mut self, rooms: &mut Rooms, total_bytes: u32) {
        if self.ticket.is_some() {
            return;
        }
        let number = rooms.next_number;
        rooms.next_number += 1;
        let line = &mut rooms.of(Kind::of(total_bytes)).line;
        line.insert(number);
        self.ticket = Some(Ticket {
            number,
            total_bytes,
        });
    }

    /// Waits for nothing any more.
    pub(super) fn leave_line(&mut self) {
        let room = Arc::clone(&self.room);
        self.leave_line_in(&mut room.lock());
    }

    fn leave_line_in(&mut self, rooms: &mut Rooms) {
        if let Some(ticket) = self.ticket.take() {
            let line = &mut rooms.of(Kind::of(ticket.total_bytes)).line;
            line.remove(&ticket.number);
        }
    }

    /// Whether others want the room that it has, and it has had it for long enough.
    pub(super) fn is_to_make_room(&self, now: Time) -> bool {
        let own = self.ticket.as_ref().map(|ticket| ticket.number);
        self.place.as_ref().is_some_and(|place| {
            let mut rooms = self.room.lock();
            let mut line = rooms.of(place.kind).line.iter();
            place.until <= now && line.any(|&number| Some(number) != own)
        })
    }

    /// Gives back what it has because others want it.
    pub(super) fn make_room(&mut self) {
        self.place = None;
        self.made_room = self.made_room.saturating_add(1);
    }

    /// Gives back what it has.
    pub(super) fn give_back(&mut self) {
        self.place = None;
    }

    /// The room that it has, for whoever keeps what is in it.
    pub(super) fn take_place(&mut self) -> Option<Place> {
        self.place.take()
    }

    /// Room for bytes that are put aside, if there is any.
    pub(super) fn put_aside(&self, bytes: usize) -> Option<AsidePlace> {
        let mut rooms = self.room.lock();
        let sum = rooms.aside_bytes.checked_add(bytes)?;
        if sum > ASIDE_ROOM_BYTES {
            return None;
        }
        rooms.aside_bytes = sum;
        let room = Arc::clone(&self.room);
        Some(AsidePlace { room, bytes })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.leave_line();
    }
}
