//! What is known of every piece: how many peers have it, its priority, whether it is missing, open
//! or verified, and, while it is missing and wanted, its place in the order.
//!
//! Memory for each piece: 2 bytes of availability, 1 of priority and state, 4 of position, 4 to
//! 4.25 in [`Order`], and 1/8 there for each priority that is in use: 11.2 to 11.5 bytes mostly,
//! 12.2 with all seven.
//!
//! Cost: a change of one piece is O(1). A bitfield costs a change for each piece that the peer has,
//! or for each that it lacks and one linear sweep, whichever are fewer; beyond one in
//! [`REBUILD_SHARE`] of all pieces the order is built anew, which is linear with a small constant.
//! [`Work`] counts all of that.

use proto::ids::PieceIndex;

use super::Work;
use super::bits::{Bits, pieces_of_word};
use super::order::{Order, Slot};
use super::priority::Priority;
use crate::random::Random;

/// A bitfield that changes more than one in so many pieces rebuilds the order instead of moving
/// them one by one: a move costs about as much as so many pieces of a rebuild.
const REBUILD_SHARE: u32 = 8;

/// Pieces that are looked at in the order, rarest first, before the sets are searched instead. A
/// peer that lacks the rarest pieces, as most do, must not make a choice cost O(pieces).
pub(super) const WALK_MAX: u32 = 1_024;

/// Pieces of the sets among which the rarest is taken then. It is rarer than all but a thousandth
/// of what the peer has, on average.
pub(super) const SAMPLE_MAX: u32 = 1_024;

/// Random places of a class, or pieces of all, that are tried before the class or the set is walked
/// through. A class of as many pieces is looked at whole.
const PROBES: u32 = 16;

/// "In no place": for pieces that are verified or skipped. Nothing reads it.
const NOWHERE: u32 = u32::MAX;

const PRIORITY_MASK: u8 = 0b0_0111;
const OPEN: u8 = 0b0_1000;
const VERIFIED: u8 = 0b1_0000;

/// What we have of a piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Nothing.
    Missing,
    /// It has been begun: its blocks are at this place among the open ones.
    Open(u32),
    /// All, and its hash was right.
    Verified,
}

/// How a walk through the classes of one priority ended.
enum Walk {
    Found(PieceIndex),
    /// The peer has none of these pieces.
    Absent,
    /// [`WALK_MAX`] pieces were looked at.
    Tired,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Pieces {
    availability: Vec<u16>,
    /// Priority and state.
    flags: Vec<u8>,
    /// The slot in the order, or the place among the open pieces.
    position: Vec<u32>,
    order: Order,
    open: u32,
    verified: u32,
    /// Grows when a piece enters the order or a piece's priority changes.
    entries: u64,
    pub work: Work,
}

impl Pieces {
    /// `verified`, and the others missing; all of normal priority.
    pub fn new(count: u32, verified: &Bits) -> Pieces {
        let mut flags = vec![Priority::NORMAL.number(); count as usize];
        for piece in verified.iter() {
            flags[piece.0 as usize] |= VERIFIED;
        }
        let mut pieces = Pieces {
            availability: vec![0; count as usize],
            flags,
            position: vec![NOWHERE; count as usize],
            order: Order::new(count),
            open: 0,
            verified: verified.count(),
            entries: 0,
            work: Work::default(),
        };
        pieces.rebuild();
        pieces
    }

    pub fn count(&self) -> u32 {
        self.flags.len() as u32
    }

    pub fn contains(&self, piece: PieceIndex) -> bool {
        piece.0 < self.count()
    }

    pub fn order(&self) -> &Order {
        &self.order
    }

    pub fn verified(&self) -> u32 {
        self.verified
    }

    /// How many pieces are wanted and not verified. Open pieces are always wanted.
    pub fn wanted(&self) -> u32 {
        self.order.len() + self.open
    }

    /// Grows whenever a search that found nothing might find something now, the peer's own pieces
    /// aside.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// How many peers have it, those that have all not counted.
    pub fn availability(&self, piece: PieceIndex) -> u16 {
        self.availability[piece.0 as usize]
    }

    pub fn priority(&self, piece: PieceIndex) -> Priority {
        let number = self.flags[piece.0 as usize] & PRIORITY_MASK;
        Priority::ALL[usize::from(number)]
    }

    pub fn state(&self, piece: PieceIndex) -> State {
        let flags = self.flags[piece.0 as usize];
        if flags & VERIFIED != 0 {
            State::Verified
        } else if flags & OPEN != 0 {
            State::Open(self.position[piece.0 as usize])
        } else {
            State::Missing
        }
    }

    /// Wanted and not verified.
    pub fn is_wanted(&self, piece: PieceIndex) -> bool {
        self.state(piece) != State::Verified && self.priority(piece) != Priority::SKIP
    }

    /// Wanted and missing: in the order.
    pub fn is_ordered(&self, piece: PieceIndex) -> bool {
        self.state(piece) == State::Missing && self.priority(piece) != Priority::SKIP
    }

    /// One more peer has it.
    pub fn raise(&mut self, piece: PieceIndex) {
        let before = self.availability(piece);
        self.change_availability(piece, before + 1);
    }

    /// One peer less has it.
    pub fn lower(&mut self, piece: PieceIndex) {
        let before = self.availability(piece);
        self.change_availability(piece, before - 1);
    }

    fn change_availability(&mut self, piece: PieceIndex, after: u16) {
        let index = piece.0 as usize;
        let before = std::mem::replace(&mut self.availability[index], after);
        if !self.is_ordered(piece) {
            return;
        }
        self.work.moves += 1;
        let old = Slot(self.position[index]);
        let (slot, filler) = self
            .order
            .relocate(old, self.priority(piece), before, after);
        if let Some(filler) = filler {
            self.position[filler.0 as usize] = old.0;
        }
        self.position[index] = slot.0;
    }

    /// A peer with these pieces has come.
    pub fn raise_all(&mut self, bits: &Bits) {
        let count = self.count();
        let has = bits.count();
        if has.min(count - has) > count / REBUILD_SHARE {
            for piece in bits.iter() {
                self.availability[piece.0 as usize] += 1;
            }
            self.rebuild();
        } else if has <= count - has {
            bits.iter().for_each(|piece| self.raise(piece));
        } else {
            self.shift_up();
            bits.iter_absent(count).for_each(|piece| self.lower(piece));
        }
    }

    /// A peer with these pieces has gone.
    pub fn lower_all(&mut self, bits: &Bits) {
        let count = self.count();
        let has = bits.count();
        if has.min(count - has) > count / REBUILD_SHARE {
            for piece in bits.iter() {
                self.availability[piece.0 as usize] -= 1;
            }
            self.rebuild();
        } else if has <= count - has {
            bits.iter().for_each(|piece| self.lower(piece));
        } else {
            bits.iter_absent(count).for_each(|piece| self.raise(piece));
            self.shift_down();
        }
    }

    /// One more peer has every piece, and is to be counted with each. No piece changes its place.
    pub fn shift_up(&mut self) {
        self.work.swept += u64::from(self.count());
        // None passes the number of peers, which is below 2^16; a check of each would make this ten
        // times slower.
        for availability in &mut self.availability {
            *availability = availability.wrapping_add(1);
        }
        self.order.shift_up();
    }

    /// A peer that had every piece, and was counted with each, has gone or is counted elsewhere
    /// now.
    pub fn shift_down(&mut self) {
        self.work.swept += u64::from(self.count());
        // This peer is counted with each, so none is 0, which the order asserts of its pieces.
        for availability in &mut self.availability {
            *availability = availability.wrapping_sub(1);
        }
        self.order.shift_down();
    }

    /// Puts everything into its class anew.
    pub fn rebuild(&mut self) {
        self.work.rebuilt += u64::from(self.count());
        self.entries += 1;
        self.order.clear();
        for index in 0..self.count() {
            let piece = PieceIndex(index);
            if self.is_ordered(piece) {
                let (priority, availability) = (self.priority(piece), self.availability(piece));
                let slot = self.order.insert(piece, priority, availability);
                self.position[index as usize] = slot.0;
            }
        }
    }

    /// Writes a priority without moving the piece: a rebuild must follow.
    pub fn write_priority(&mut self, piece: PieceIndex, priority: Priority) {
        let flags = &mut self.flags[piece.0 as usize];
        *flags = *flags & !PRIORITY_MASK | priority.number();
    }

    /// Changes a priority. An open piece must not be skipped.
    pub fn set_priority(&mut self, piece: PieceIndex, priority: Priority) {
        let ordered = self.is_ordered(piece);
        if ordered {
            self.leave_order(piece);
        }
        self.write_priority(piece, priority);
        if self.is_ordered(piece) {
            self.enter_order(piece);
        }
        self.entries += 1;
    }

    /// A missing piece that is wanted is begun; its blocks are at `place`.
    pub fn set_open(&mut self, piece: PieceIndex, place: u32) {
        self.leave_order(piece);
        self.flags[piece.0 as usize] |= OPEN;
        self.position[piece.0 as usize] = place;
        self.open += 1;
    }

    /// A piece that is open or verified is missing again.
    pub fn set_missing(&mut self, piece: PieceIndex) {
        let flags = &mut self.flags[piece.0 as usize];
        self.open -= u32::from(*flags & OPEN != 0);
        self.verified -= u32::from(*flags & VERIFIED != 0);
        *flags &= PRIORITY_MASK;
        self.position[piece.0 as usize] = NOWHERE;
        if self.is_ordered(piece) {
            self.enter_order(piece);
        }
    }

    /// A piece that is missing or open is verified.
    pub fn set_verified(&mut self, piece: PieceIndex) {
        if self.is_ordered(piece) {
            self.leave_order(piece);
        }
        let flags = &mut self.flags[piece.0 as usize];
        self.open -= u32::from(*flags & OPEN != 0);
        *flags = *flags & PRIORITY_MASK | VERIFIED;
        self.verified += 1;
    }

    fn enter_order(&mut self, piece: PieceIndex) {
        self.work.moves += 1;
        self.entries += 1;
        let (priority, availability) = (self.priority(piece), self.availability(piece));
        let slot = self.order.insert(piece, priority, availability);
        self.position[piece.0 as usize] = slot.0;
    }

    fn leave_order(&mut self, piece: PieceIndex) {
        self.work.moves += 1;
        let slot = Slot(self.position[piece.0 as usize]);
        let (priority, availability) = (self.priority(piece), self.availability(piece));
        if let Some(filler) = self.order.remove(slot, priority, availability) {
            self.position[filler.0 as usize] = slot.0;
        }
        self.position[piece.0 as usize] = NOWHERE;
    }

    /// The rarest missing piece of the highest priority above `above` that is in `has` (`None`: all
    /// pieces are), by chance among equals.
    pub fn find_rarest(
        &mut self,
        has: Option<&Bits>,
        above: Priority,
        random: &mut Random,
    ) -> Option<PieceIndex> {
        let mut budget = WALK_MAX;
        for priority in self.levels_above(above) {
            let found = match self.walk(priority, has, random, &mut budget) {
                Walk::Found(piece) => Some(piece),
                Walk::Absent => None,
                Walk::Tired => self.sample(priority, has, random, SAMPLE_MAX),
            };
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Any missing piece of the highest priority above `above` that is in `has`, by chance.
    pub fn find_random(
        &mut self,
        has: Option<&Bits>,
        above: Priority,
        random: &mut Random,
    ) -> Option<PieceIndex> {
        let mut levels = self.levels_above(above);
        levels.find_map(|priority| {
            let members = self.order.level(priority).members();
            // A walk to the next one from a random place would prefer what stands behind a gap.
            for _ in 0..PROBES {
                self.work.looks += 1;
                let piece = PieceIndex(random.below(self.flags.len() as u64) as u32);
                if members.contains(piece) && has.is_none_or(|has| has.contains(piece)) {
                    return Some(piece);
                }
            }
            let start = random_word(members, random);
            let mut words = (1_u64..).zip(common_words(members, has, start));
            let (looked_at, (index, word)) = words.find(|(_, (_, word))| *word != 0)?;
            self.work.words += looked_at;
            let chosen = random.below(u64::from(word.count_ones()));
            pieces_of_word(index, word).nth(chosen as usize)
        })
    }

    /// The lowest missing piece of the highest priority above `above` that is in `has`.
    pub fn find_lowest(&mut self, has: Option<&Bits>, above: Priority) -> Option<PieceIndex> {
        let mut levels = self.levels_above(above);
        levels.find_map(|priority| {
            let first = self.order.lowest_word(priority);
            let members = self.order.level(priority).members().words();
            let mut words = (first..members.len()).map(|index| {
                self.work.words += 1;
                (index, members[index] & word_of(has, index))
            });
            let (index, word) = words.find(|(_, word)| *word != 0)?;
            pieces_of_word(index, word).next()
        })
    }

    fn levels_above(&self, above: Priority) -> impl Iterator<Item = Priority> + use<> {
        let filled = Priority::ALL.map(|priority| self.order.level(priority).len() > 0);
        let levels = Priority::ALL.into_iter().zip(filled).rev();
        levels
            .filter(move |&(priority, filled)| filled && priority > above)
            .map(|(priority, _)| priority)
    }

    /// Goes through the classes, rarest first.
    fn walk(
        &mut self,
        priority: Priority,
        has: Option<&Bits>,
        random: &mut Random,
        budget: &mut u32,
    ) -> Walk {
        // What no peer has but those that have all, a peer that lacks something has not.
        let first = usize::from(has.is_some());
        let wanted = |piece: PieceIndex| has.is_none_or(|has| has.contains(piece));
        for class in first..self.order.level(priority).bucket_count() {
            let len = self.order.level(priority).bucket_len(class);
            let mut look = |place: u32| {
                self.work.looks += 1;
                let piece = self.order.piece_at(priority, class, place);
                wanted(piece).then_some(piece)
            };
            if len <= PROBES {
                let fitting = (0..len).filter_map(&mut look);
                if let Some(piece) = choose(fitting, random) {
                    return Walk::Found(piece);
                }
                *budget = budget.saturating_sub(len);
            } else {
                let probes = (0..PROBES).map(|_| random.below(u64::from(len)) as u32);
                if let Some(piece) = probes.into_iter().find_map(&mut look) {
                    return Walk::Found(piece);
                }
                let start = random.below(u64::from(len)) as u32;
                let steps = len.min(*budget);
                let mut places = (0..steps).map(|step| (start + step) % len);
                if let Some(piece) = places.find_map(&mut look) {
                    return Walk::Found(piece);
                }
                *budget -= steps;
            }
            if *budget == 0 {
                return Walk::Tired;
            }
        }
        Walk::Absent
    }

    /// The rarest of the first `sample` pieces of this priority that are in `has`, from a random
    /// word on.
    fn sample(
        &mut self,
        priority: Priority,
        has: Option<&Bits>,
        random: &mut Random,
        sample: u32,
    ) -> Option<PieceIndex> {
        let mut best: Option<(u16, PieceIndex)> = None;
        let (mut seen, mut ties) = (0, 0);
        let mut words = 0;
        let members = self.order.level(priority).members();
        let start = random_word(members, random);
        for (index, word) in common_words(members, has, start) {
            words += 1;
            for piece in pieces_of_word(index, word) {
                let availability = self.availability(piece);
                let rarest = best.map_or(u16::MAX, |(rarest, _)| rarest);
                if best.is_none() || availability < rarest {
                    (best, ties) = (Some((availability, piece)), 1);
                } else if availability == rarest {
                    ties += 1;
                    if random.below(ties) == 0 {
                        best = Some((availability, piece));
                    }
                }
                seen += 1;
            }
            if seen >= sample {
                break;
            }
        }
        self.work.words += words;
        self.work.looks += u64::from(seen);
        best.map(|(_, piece)| piece)
    }

    /// How many of `bits` are wanted and not verified; `open` are the open pieces.
    pub fn count_wanted(&self, bits: &Bits, open: impl Iterator<Item = PieceIndex>) -> u32 {
        let levels = Priority::ALL.into_iter().skip(1);
        let ordered =
            levels.map(|priority| bits.count_common(self.order.level(priority).members()));
        let open = open.filter(|&piece| bits.contains(piece)).count();
        ordered.sum::<u32>() + open as u32
    }

    /// Bytes that it has allocated.
    pub fn memory_bytes(&self) -> usize {
        self.availability.capacity() * 2
            + self.flags.capacity()
            + self.position.capacity() * 4
            + self.order.memory_bytes()
    }

    /// Panics if it contradicts itself: O(pieces).
    pub fn check_invariants(&self) {
        let mut counts = [0_u32; 3];
        for piece in (0..self.count()).map(PieceIndex) {
            match self.state(piece) {
                State::Missing => counts[0] += u32::from(self.is_ordered(piece)),
                State::Open(_) => counts[1] += 1,
                State::Verified => counts[2] += 1,
            }
            let skipped = self.priority(piece) == Priority::SKIP;
            assert!(!skipped || !matches!(self.state(piece), State::Open(_)));
        }
        assert_eq!(counts, [self.order.len(), self.open, self.verified]);
        self.order.check_invariants(|piece| {
            let slot = Slot(self.position[piece.0 as usize]);
            self.is_ordered(piece)
                .then(|| (self.priority(piece), self.availability(piece), slot))
        });
    }
}

fn random_word(members: &Bits, random: &mut Random) -> usize {
    random.below(members.words().len() as u64) as usize
}

/// The words of `members` that are in `has`, once round from the word `start`.
fn common_words<'a>(
    members: &'a Bits,
    has: Option<&'a Bits>,
    start: usize,
) -> impl Iterator<Item = (usize, u64)> + 'a {
    let members = members.words();
    let words = (start..members.len()).chain(0..start);
    words.map(move |index| (index, members[index] & word_of(has, index)))
}

fn word_of(has: Option<&Bits>, index: usize) -> u64 {
    has.map_or(u64::MAX, |has| has.words().get(index).copied().unwrap_or(0))
}

/// One of them by chance, each as likely.
fn choose<T>(from: impl Iterator<Item = T>, random: &mut Random) -> Option<T> {
    let mut chosen = None;
    for (count, one) in (1_u64..).zip(from) {
        if random.below(count) == 0 {
            chosen = Some(one);
        }
    }
    chosen
}
