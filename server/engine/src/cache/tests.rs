use super::*;
use proptest::prelude::*;

const A: UserId = UserId(1);
const B: UserId = UserId(2);
const WHOLE: Extent = Extent {
    from: 0,
    to: CHUNK_BYTES,
};
const START: Extent = Extent {
    from: 0,
    to: 16_384,
};
const SECOND: Extent = Extent {
    from: 16_384,
    to: 32_768,
};

fn key(chunk: u32) -> ChunkKey {
    ChunkKey {
        torrent: 1,
        piece: PieceIndex(chunk / 4),
        chunk: chunk % 4,
    }
}

fn purpose(user: UserId) -> Purpose {
    Purpose {
        user,
        ahead: false,
        passing: false,
    }
}

/// Reads a chunk for `user`, who leaves it at once. Returns what had to go for it.
fn visit(cache: &mut ChunkCache, chunk: u32, user: UserId) -> Option<ChunkKey> {
    let mut evicted = None;
    match cache.find(key(chunk), WHOLE) {
        Found::Present(slot) => {
            cache.pin(slot, user);
            cache.unpin(slot);
        }
        _ => {
            let (slot, gone) = cache.start_read(key(chunk), WHOLE, purpose(user)).unwrap();
            evicted = gone.map(|evicted| evicted.key);
            cache.read_done(slot, true);
        }
    }
    cache.check_invariants();
    evicted
}

fn has(cache: &ChunkCache, chunk: u32) -> bool {
    matches!(cache.find(key(chunk), WHOLE), Found::Present(_))
}

#[test]
fn a_chunk_that_is_being_read_is_read_once_and_stays_while_it_is_used() {
    let mut cache = ChunkCache::new(1);
    let (slot, evicted) = cache.start_read(key(0), WHOLE, purpose(A)).unwrap();
    assert_eq!(evicted, None);
    assert_eq!(cache.find(key(0), START), Found::Reading(slot));
    cache.pin(slot, A);
    cache.pin(slot, B);
    assert!(!cache.read_done(slot, true));
    assert_eq!(cache.find(key(0), SECOND), Found::Present(slot));
    assert_eq!(cache.start_read(key(1), WHOLE, purpose(A)), None);
    assert!(!cache.unpin(slot));
    assert_eq!(cache.start_read(key(1), WHOLE, purpose(A)), None);
    assert!(cache.unpin(slot));
    assert_eq!(visit(&mut cache, 1, A), Some(key(0)));
    assert_eq!(cache.find(key(0), START), Found::Absent);
}

#[test]
fn a_failed_read_leaves_nothing_and_its_slot_is_free_when_the_last_waiter_has_gone() {
    let mut cache = ChunkCache::new(1);
    let (slot, _) = cache.start_read(key(0), WHOLE, purpose(A)).unwrap();
    cache.pin(slot, A);
    assert!(!cache.read_done(slot, false));
    assert_eq!(cache.find(key(0), WHOLE), Found::Absent);
    assert_eq!((cache.idle(), cache.filled()), (0, 1));
    assert!(cache.unpin(slot));
    assert_eq!((cache.idle(), cache.filled()), (1, 0));
}

#[test]
fn a_scan_by_one_peer_leaves_what_several_share() {
    let mut cache = ChunkCache::new(8);
    for chunk in 0..4 {
        visit(&mut cache, chunk, A);
        visit(&mut cache, chunk, B);
    }
    // Fewer evictions than the decay needs to reach the fourth of them.
    for chunk in 100..100 + SHARED_DECAY {
        visit(&mut cache, chunk, A);
    }
    assert_eq!((0..4).filter(|&chunk| has(&cache, chunk)).count(), 4);
    // One peer's many visits are no sharing.
    visit(&mut cache, 200, A);
    (0..10).for_each(|_| assert_eq!(visit(&mut cache, 200, A), None));
    (201..220).for_each(|chunk| _ = visit(&mut cache, chunk, A));
    assert!(!has(&cache, 200));
}

#[test]
fn what_was_shared_once_does_not_stay_for_ever() {
    let mut cache = ChunkCache::new(8);
    for chunk in 0..8 {
        visit(&mut cache, chunk, A);
        visit(&mut cache, chunk, B);
    }
    for chunk in 100..100 + 16 * SHARED_DECAY {
        visit(&mut cache, chunk, A);
    }
    assert!((0..8).all(|chunk| !has(&cache, chunk)));
}

#[test]
fn small_extents_go_first_and_give_way_to_the_whole() {
    let mut cache = ChunkCache::new(2);
    visit(&mut cache, 0, A);
    let passing = Purpose {
        passing: true,
        ..purpose(A)
    };
    let (slot, _) = cache.start_read(key(1), START, passing).unwrap();
    cache.read_done(slot, true);
    assert_eq!(cache.find(key(1), SECOND), Found::Other(A));
    // It is younger than the other, and goes all the same.
    assert_eq!(visit(&mut cache, 2, A), Some(key(1)));
    let (small, _) = cache.start_read(key(3), START, passing).unwrap();
    assert_eq!(cache.find(key(3), WHOLE), Found::Other(A));
    let (large, _) = cache.start_read(key(3), WHOLE, purpose(B)).unwrap();
    assert_ne!(small, large);
    assert_eq!(cache.find(key(3), START), Found::Reading(large));
    assert!(cache.read_done(small, true), "its user may still send it");
    assert!(cache.read_done(large, true));
    assert_eq!((cache.filled(), cache.idle()), (1, 2));
    cache.check_invariants();
}

#[test]
fn what_is_fetched_ahead_is_counted_until_it_is_used_or_goes() {
    let mut cache = ChunkCache::new(2);
    let ahead = Purpose {
        ahead: true,
        ..purpose(A)
    };
    for chunk in 0..2 {
        let (slot, _) = cache.start_read(key(chunk), WHOLE, ahead).unwrap();
        cache.read_done(slot, true);
    }
    assert_eq!(cache.ahead(), 2);
    visit(&mut cache, 0, A);
    assert_eq!(cache.ahead(), 1);
    let (slot, evicted) = cache.start_read(key(2), WHOLE, purpose(A)).unwrap();
    let expected = Evicted {
        key: key(1),
        unused: true,
    };
    assert_eq!((evicted, cache.ahead()), (Some(expected), 0));
    cache.read_done(slot, true);
    let (_, evicted) = cache.start_read(key(3), WHOLE, purpose(A)).unwrap();
    assert_eq!(evicted.map(|evicted| evicted.unused), Some(false));
}

#[test]
fn a_small_extent_fetched_ahead_waits_like_any_other_until_its_peer_has_come() {
    let mut cache = ChunkCache::new(2);
    visit(&mut cache, 0, A);
    let purpose = Purpose {
        user: A,
        ahead: true,
        passing: true,
    };
    let (slot, _) = cache.start_read(key(1), START, purpose).unwrap();
    cache.read_done(slot, true);
    assert_eq!(visit(&mut cache, 2, A), Some(key(0)), "the older one goes");
    cache.pin(slot, A);
    cache.unpin(slot);
    assert_eq!(visit(&mut cache, 3, A), Some(key(1)));
}

#[test]
fn a_forgotten_torrent_is_not_found_and_its_users_keep_their_bytes() {
    let mut cache = ChunkCache::new(3);
    visit(&mut cache, 0, A);
    let (slot, _) = cache.start_read(key(1), WHOLE, purpose(A)).unwrap();
    let other = ChunkKey {
        torrent: 2,
        ..key(0)
    };
    let (kept, _) = cache.start_read(other, WHOLE, purpose(A)).unwrap();
    cache.forget(1);
    assert_eq!(cache.find(key(0), WHOLE), Found::Absent);
    assert_eq!(cache.find(key(1), WHOLE), Found::Absent);
    assert_eq!(cache.find(other, WHOLE), Found::Reading(kept));
    assert_eq!(cache.idle(), 1);
    cache.check_invariants();
    assert!(cache.read_done(slot, true));
    assert_eq!((cache.idle(), cache.filled()), (2, 1));
}

#[derive(Clone, Debug)]
enum Operation {
    /// Look for an extent of a chunk; use it if it is there, read it if it is not.
    Want(u32, u32, u64, bool),
    /// The n-th use ends.
    Leave(usize),
    /// The n-th read ends.
    Done(usize, bool),
    Forget(u64),
}

fn operations() -> impl Strategy<Value = Operation> {
    prop_oneof![
        8 => (0_u32..24, 0_u32..3, 0_u64..3, any::<bool>())
            .prop_map(|(chunk, part, user, ahead)| Operation::Want(chunk, part, user, ahead)),
        6 => (0_usize..64).prop_map(Operation::Leave),
        6 => (0_usize..64, 0_u32..8).prop_map(|(at, odd)| Operation::Done(at, odd > 0)),
        1 => (1_u64..3).prop_map(Operation::Forget),
    ]
}

/// A chunk of the naive model. Its place in the list is its age: later is younger.
#[derive(Clone, Debug)]
struct Held {
    slot: Slot,
    key: ChunkKey,
    extent: Extent,
    reading: bool,
    users: u32,
    mapped: bool,
    first_user: UserId,
    rank: u32,
    unused: bool,
    passing: bool,
}

const PASSING: u32 = 0;
const PROBATION: u32 = 1;
const SHARED: u32 = 2;

/// The same policy by walking over everything.
struct Model {
    slots: u32,
    held: Vec<Held>,
    evictions: u32,
}

impl Model {
    fn at(&mut self, slot: Slot) -> usize {
        let at = self.held.iter().position(|held| held.slot == slot);
        at.expect("a slot in use is held")
    }

    fn mapped(&self, key: ChunkKey) -> Option<usize> {
        let mut held = self.held.iter();
        held.position(|held| held.mapped && held.key == key)
    }

    fn find(&self, key: ChunkKey, extent: Extent) -> Found {
        let Some(at) = self.mapped(key) else {
            return Found::Absent;
        };
        let held = &self.held[at];
        if held.extent.from > extent.from || held.extent.to < extent.to {
            Found::Other(held.first_user)
        } else if held.reading {
            Found::Reading(held.slot)
        } else {
            Found::Present(held.slot)
        }
    }

    fn idle(&self) -> u32 {
        let used = self.held.iter().filter(|held| held.users > 0).count();
        self.slots - used as u32
    }

    /// Drops a use; what nobody uses any more becomes the youngest, or goes if it is not to be
    /// found.
    fn leave(&mut self, at: usize) -> bool {
        let mut held = self.held.remove(at);
        held.users -= 1;
        let last = held.users == 0;
        if !last {
            self.held.insert(at, held);
        } else if held.mapped {
            self.held.push(held);
        }
        last
    }

    fn unmap(&mut self, at: usize) {
        self.held[at].mapped = false;
        self.held[at].unused = false;
        if self.held[at].users == 0 {
            self.held.remove(at);
        }
    }

    /// Pushes out what is worth least if every slot holds something.
    fn make_room(&mut self) -> Option<Evicted> {
        if self.held.len() < self.slots as usize {
            return None;
        }
        let oldest = |held: &[Held], rank: u32| {
            held.iter()
                .position(|held| held.users == 0 && held.rank == rank)
        };
        let count = |held: &[Held], rank: u32| {
            let idle = held.iter().filter(|held| held.users == 0);
            idle.filter(|held| held.rank == rank).count() as u32
        };
        let spare_probation = count(&self.held, PROBATION) > self.slots / PROBATION_SHARE
            || count(&self.held, SHARED) == 0;
        let victim = oldest(&self.held, PASSING)
            .or_else(|| spare_probation.then(|| oldest(&self.held, PROBATION))?)
            .or_else(|| oldest(&self.held, SHARED))
            .expect("something is idle");
        let gone = self.held.remove(victim);
        self.evictions += 1;
        if self.evictions.is_multiple_of(SHARED_DECAY)
            && let Some(at) = oldest(&self.held, SHARED)
        {
            let mut demoted = self.held.remove(at);
            demoted.rank = PROBATION;
            self.held.push(demoted);
        }
        Some(Evicted {
            key: gone.key,
            unused: gone.unused,
        })
    }
}

/// A whole chunk, its first half or its last block.
fn extent(part: u32) -> Extent {
    [
        WHOLE,
        Extent {
            from: 0,
            to: CHUNK_BYTES / 2,
        },
        Extent {
            from: CHUNK_BYTES - 16_384,
            to: CHUNK_BYTES,
        },
    ][part as usize]
}

/// Does one operation to both, and checks that they answer alike.
fn want(
    (cache, model): (&mut ChunkCache, &mut Model),
    (uses, reads): (&mut Vec<Slot>, &mut Vec<Slot>),
    (key, extent): (ChunkKey, Extent),
    (user, ahead): (UserId, bool),
) {
    let found = cache.find(key, extent);
    assert_eq!(found, model.find(key, extent));
    if let Found::Present(slot) | Found::Reading(slot) = found {
        cache.pin(slot, user);
        uses.push(slot);
        let at = model.at(slot);
        let held = &mut model.held[at];
        held.users += 1;
        if held.unused && held.passing {
            held.rank = PASSING;
        }
        held.unused = false;
        if held.first_user != user {
            held.rank = SHARED;
        }
        return;
    }
    let passing = extent.bytes() < CHUNK_BYTES / 4;
    let purpose = Purpose {
        user,
        ahead,
        passing,
    };
    let started = cache.start_read(key, extent, purpose);
    assert_eq!(started.is_none(), model.idle() == 0);
    let Some((slot, evicted)) = started else {
        return;
    };
    if let Some(at) = model.mapped(key) {
        model.unmap(at);
    }
    assert_eq!(evicted, model.make_room());
    assert!(model.held.iter().all(|held| held.slot != slot));
    model.held.push(Held {
        slot,
        key,
        extent,
        reading: true,
        users: 1,
        mapped: true,
        first_user: user,
        rank: if passing && !ahead {
            PASSING
        } else {
            PROBATION
        },
        unused: ahead,
        passing,
    });
    reads.push(slot);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn the_cache_does_as_a_naive_list_does(
        slots in 1_u32..12,
        operations in proptest::collection::vec(operations(), 1..400),
    ) {
        let mut cache = ChunkCache::new(slots);
        let mut model = Model { slots, held: Vec::new(), evictions: 0 };
        let (mut uses, mut reads) = (Vec::new(), Vec::new());
        for operation in operations {
            match operation {
                Operation::Want(chunk, part, user, ahead) => {
                    let mut key = key(chunk);
                    key.torrent = 1 + u64::from(chunk % 2);
                    want(
                        (&mut cache, &mut model),
                        (&mut uses, &mut reads),
                        (key, extent(part)),
                        (UserId(user), ahead),
                    );
                }
                Operation::Leave(at) if !uses.is_empty() => {
                    let slot = uses.swap_remove(at % uses.len());
                    let at = model.at(slot);
                    prop_assert_eq!(cache.unpin(slot), model.leave(at));
                }
                Operation::Done(at, success) if !reads.is_empty() => {
                    let slot = reads.swap_remove(at % reads.len());
                    let at = model.at(slot);
                    model.held[at].reading = false;
                    if !success {
                        model.held[at].mapped = false;
                        model.held[at].unused = false;
                    }
                    prop_assert_eq!(cache.read_done(slot, success), model.leave(at));
                }
                Operation::Forget(torrent) => {
                    cache.forget(torrent);
                    while let Some(at) = model.held.iter()
                        .position(|held| held.mapped && held.key.torrent == torrent)
                    {
                        model.unmap(at);
                    }
                }
                Operation::Leave(_) | Operation::Done(..) => {}
            }
            cache.check_invariants();
            prop_assert_eq!(cache.idle(), model.idle());
            prop_assert_eq!(cache.filled() as usize, model.held.len());
            let unused = model.held.iter().filter(|held| held.unused).count();
            prop_assert_eq!(cache.ahead() as usize, unused);
        }
    }
}
