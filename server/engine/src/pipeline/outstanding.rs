//! The requests that one peer has not answered, in the order in which they were sent.
//!
//! Two lists over one slab: requests that are *waited for*, and requests that were *given back*
//! (timed out, cancelled, void by a choke), which are remembered because their blocks may still be
//! on the way. A block is in at most one of them. Everything is O(1): a hash index finds a block,
//! links take it out of its list.
//!
//! Memory: at most the two lists' limits, 80 bytes a request and the index; [`Outstanding::shrink`]
//! returns it.
//!
//! Not here: when a request has timed out, how many there may be.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use proto::wire::BlockRequest;

use crate::time::Time;

/// The end of a list.
const NONE: u32 = u32::MAX;

/// What is remembered of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sent {
    pub block: BlockRequest,
    /// When it was sent.
    pub at: Time,
    /// When it has timed out; never earlier than that of the request sent before it.
    pub deadline: Time,
    /// Requests are numbered in the order in which they are sent.
    pub order: u64,
    /// How many requests were waited for when it was sent.
    pub ahead: u32,
    /// The bytes that the peer had delivered when it was sent, and when it delivered the last of
    /// them.
    pub delivered: u64,
    pub delivered_at: Time,
}

/// Which list a request is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    Waiting,
    GivenBack,
}

#[derive(Clone, Copy)]
struct Slot {
    sent: Sent,
    standing: Standing,
    previous: u32,
    next: u32,
}

#[derive(Clone, Copy)]
struct List {
    head: u32,
    tail: u32,
    len: u32,
}

const EMPTY: List = List {
    head: NONE,
    tail: NONE,
    len: 0,
};

/// Mixes the three numbers of a block. The keys are requests that we chose ourselves, so no peer
/// can aim at collisions; and a seed drawn from the system would not be pure.
#[derive(Default)]
struct BlockHasher {
    state: u64,
}

impl Hasher for BlockHasher {
    fn finish(&self) -> u64 {
        self.state ^ (self.state >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u32(byte.into()));
    }

    fn write_u32(&mut self, number: u32) {
        let mixed = self.state.rotate_left(26) ^ u64::from(number);
        self.state = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

type Index = HashMap<BlockRequest, u32, BuildHasherDefault<BlockHasher>>;

/// See the module.
pub(super) struct Outstanding {
    slots: Vec<Slot>,
    free: Vec<u32>,
    index: Index,
    waiting: List,
    given_back: List,
    given_back_max: u32,
    /// The bytes of the requests that are waited for.
    bytes: u64,
}

impl Outstanding {
    /// Without requests and without memory; remembers at most `given_back_max` that were given
    /// back.
    pub fn new(given_back_max: u32) -> Outstanding {
        Outstanding {
            slots: Vec::new(),
            free: Vec::new(),
            index: Index::default(),
            waiting: EMPTY,
            given_back: EMPTY,
            given_back_max,
            bytes: 0,
        }
    }

    /// How many requests are waited for.
    pub fn len(&self) -> u32 {
        self.waiting.len
    }

    /// Whether the block is in one of the lists.
    pub fn contains(&self, block: &BlockRequest) -> bool {
        self.index.contains_key(block)
    }

    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds a request behind all others. One that was given back before is waited for again; one
    /// that is waited for already is refused.
    pub fn push(&mut self, sent: Sent) -> bool {
        match self.index.get(&sent.block) {
            Some(&place) if self.slot(place).standing == Standing::Waiting => return false,
            Some(&place) => self.remove(place),
            None => {}
        }
        let slot = Slot {
            sent,
            standing: Standing::Waiting,
            previous: NONE,
            next: NONE,
        };
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push(slot);
            u32::try_from(self.slots.len() - 1).unwrap_or(NONE)
        });
        *self.slot_mut(place) = slot;
        self.index.insert(sent.block, place);
        self.bytes += u64::from(sent.block.length);
        self.link(place);
        true
    }

    /// Takes a request out of whichever list it is in.
    pub fn take(&mut self, block: &BlockRequest) -> Option<(Sent, Standing)> {
        let place = *self.index.get(block)?;
        let Slot { sent, standing, .. } = *self.slot(place);
        self.remove(place);
        Some((sent, standing))
    }

    /// The oldest request that is waited for.
    pub fn first(&self) -> Option<&Sent> {
        self.oldest(&self.waiting)
    }

    /// The requests that are waited for, the oldest first.
    pub fn waiting(&self) -> impl Iterator<Item = &Sent> {
        let slot = |place: u32| (place != NONE).then(|| self.slot(place));
        let first = slot(self.waiting.head);
        std::iter::successors(first, move |one| slot(one.next)).map(|one| &one.sent)
    }

    /// The youngest request that is waited for.
    pub fn last(&self) -> Option<&Sent> {
        let tail = self.waiting.tail;
        (tail != NONE).then(|| &self.slot(tail).sent)
    }

    /// Gives back the request for `block`, if it is waited for.
    pub fn give_back(&mut self, block: &BlockRequest) -> Option<Sent> {
        let place = *self.index.get(block)?;
        let Slot { sent, standing, .. } = *self.slot(place);
        if standing == Standing::GivenBack {
            return None;
        }
        self.unlink(place);
        self.bytes -= u64::from(sent.block.length);
        self.slot_mut(place).standing = Standing::GivenBack;
        self.link(place);
        if self.given_back.len > self.given_back_max {
            self.remove(self.given_back.head);
        }
        Some(sent)
    }

    /// Gives back the oldest request that is waited for.
    pub fn give_back_first(&mut self) -> Option<Sent> {
        let block = self.first()?.block;
        self.give_back(&block)
    }

    /// Returns the memory, if no request is remembered.
    pub fn shrink(&mut self) {
        if self.index.is_empty() {
            *self = Outstanding::new(self.given_back_max);
        }
    }

    fn oldest(&self, list: &List) -> Option<&Sent> {
        (list.head != NONE).then(|| &self.slot(list.head).sent)
    }

    fn remove(&mut self, place: u32) {
        let Slot { sent, standing, .. } = *self.slot(place);
        if standing == Standing::Waiting {
            self.bytes -= u64::from(sent.block.length);
        }
        self.unlink(place);
        self.index.remove(&sent.block);
        self.free.push(place);
    }

    /// Appends the slot to the list of its standing.
    fn link(&mut self, place: u32) {
        let list = self.list_mut(self.slot(place).standing);
        let tail = list.tail;
        list.tail = place;
        list.len += 1;
        if tail == NONE {
            list.head = place;
        } else {
            self.slot_mut(tail).next = place;
        }
        let slot = self.slot_mut(place);
        (slot.previous, slot.next) = (tail, NONE);
    }

    /// Takes the slot out of the list of its standing.
    fn unlink(&mut self, place: u32) {
        let Slot {
            previous,
            next,
            standing,
            ..
        } = *self.slot(place);
        if previous != NONE {
            self.slot_mut(previous).next = next;
        }
        if next != NONE {
            self.slot_mut(next).previous = previous;
        }
        let list = self.list_mut(standing);
        list.len -= 1;
        if previous == NONE {
            list.head = next;
        }
        if next == NONE {
            list.tail = previous;
        }
    }

    fn list_mut(&mut self, standing: Standing) -> &mut List {
        match standing {
            Standing::Waiting => &mut self.waiting,
            Standing::GivenBack => &mut self.given_back,
        }
    }

    /// Places come from our own lists only, never from a peer.
    fn slot(&self, place: u32) -> &Slot {
        &self.slots[place as usize]
    }

    fn slot_mut(&mut self, place: u32) -> &mut Slot {
        &mut self.slots[place as usize]
    }

    /// Panics if the lists, the index and the sums contradict each other. For tests: O(requests).
    pub fn check_invariants(&self) {
        let mut bytes = 0;
        let mut deadline = Time::default();
        let lists = [
            (self.waiting, Standing::Waiting),
            (self.given_back, Standing::GivenBack),
        ];
        for (list, standing) in lists {
            let (mut place, mut previous, mut len) = (list.head, NONE, 0);
            while place != NONE {
                let slot = self.slot(place);
                assert_eq!((slot.standing, slot.previous), (standing, previous));
                assert_eq!(self.index.get(&slot.sent.block), Some(&place));
                if standing == Standing::Waiting {
                    bytes += u64::from(slot.sent.block.length);
                    assert!(slot.sent.deadline >= deadline, "deadlines only grow");
                    deadline = slot.sent.deadline;
                }
                (previous, place, len) = (place, slot.next, len + 1);
            }
            assert_eq!((list.tail, list.len), (previous, len));
        }
        assert_eq!(bytes, self.bytes);
        assert!(self.given_back.len <= self.given_back_max);
        let remembered = self.waiting.len + self.given_back.len;
        assert_eq!(self.index.len(), remembered as usize);
        assert_eq!(self.slots.len(), self.index.len() + self.free.len());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proto::ids::PieceIndex;

    use super::*;

    fn sent(number: u32, order: u64) -> Sent {
        Sent {
            block: BlockRequest {
                piece: PieceIndex(number / 4),
                begin: number % 4 * 16_384,
                length: 16_384 - number % 3,
            },
            at: Time(order),
            deadline: Time(order * 10),
            order,
            ahead: 0,
            delivered: 0,
            delivered_at: Time(0),
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Action {
        Push(u32),
        Take(u32),
        GiveBack(u32),
        GiveBackFirst,
    }

    fn action() -> impl Strategy<Value = Action> {
        let number = 0_u32..40;
        prop_oneof![
            4 => number.clone().prop_map(Action::Push),
            2 => number.clone().prop_map(Action::Take),
            1 => number.prop_map(Action::GiveBack),
            1 => Just(Action::GiveBackFirst),
        ]
    }

    proptest! {
        /// The same as two vectors that are searched from end to end.
        #[test]
        fn lists_follow_the_naive_model(
            actions in proptest::collection::vec(action(), 0..300),
            given_back_max in 0_u32..8,
        ) {
            let mut lists = Outstanding::new(given_back_max);
            let (mut waiting, mut given_back) = (Vec::<Sent>::new(), Vec::<Sent>::new());
            let find = |list: &[Sent], number| {
                list.iter().position(|other| other.block == sent(number, 0).block)
            };
            for (order, action) in (1..).zip(actions) {
                match action {
                    Action::Push(number) => {
                        let fresh = find(&waiting, number).is_none();
                        prop_assert_eq!(lists.push(sent(number, order)), fresh);
                        if fresh {
                            find(&given_back, number).map(|place| given_back.remove(place));
                            waiting.push(sent(number, order));
                        }
                    }
                    Action::Take(number) => {
                        let of_waiting = find(&waiting, number)
                            .map(|place| (waiting.remove(place), Standing::Waiting));
                        let expected = of_waiting.or_else(|| {
                            find(&given_back, number)
                                .map(|place| (given_back.remove(place), Standing::GivenBack))
                        });
                        prop_assert_eq!(lists.take(&sent(number, 0).block), expected);
                    }
                    Action::GiveBack(number) => {
                        let expected = find(&waiting, number).map(|place| waiting.remove(place));
                        prop_assert_eq!(lists.give_back(&sent(number, 0).block), expected);
                        given_back.extend(expected);
                    }
                    Action::GiveBackFirst => {
                        let expected = (!waiting.is_empty()).then(|| waiting.remove(0));
                        prop_assert_eq!(lists.give_back_first(), expected);
                        given_back.extend(expected);
                    }
                }
                let over = given_back.len().saturating_sub(given_back_max as usize);
                given_back.drain(..over);
                lists.check_invariants();
                prop_assert_eq!(lists.first(), waiting.first());
                prop_assert_eq!(lists.last(), waiting.last());
                prop_assert_eq!(lists.len() as usize, waiting.len());
            }
        }
    }

    #[test]
    fn memory_is_returned_when_nothing_is_remembered() {
        let mut lists = Outstanding::new(4);
        for number in 0..40 {
            assert!(lists.push(sent(number, number.into())));
        }
        lists.shrink();
        assert_eq!(lists.len(), 40, "not while there are requests");
        for number in 0..40 {
            lists.take(&sent(number, 0).block);
        }
        lists.shrink();
        let held = lists.slots.capacity() + lists.free.capacity() + lists.index.capacity();
        assert_eq!(held, 0);
    }
}
