//! Each rule by example, with figures; and sequences of calls against a naive model.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::pieces::{SAMPLE_MAX, WALK_MAX};
use super::*;

mod cost;
mod model;
mod sharing;

const BLOCK: u32 = BLOCK_LENGTH;

/// A rate at which a piece of a few blocks comes in a second.
const FAST: u64 = 1 << 20;

/// So many pieces of so many blocks; nothing is random but ties.
fn picker(pieces: u32, blocks: u32) -> Picker {
    picker_with(PickerConfig::default(), pieces, blocks, 1)
}

fn picker_with(config: PickerConfig, pieces: u32, blocks: u32, seed: u64) -> Picker {
    let length = u64::from(pieces) * u64::from(blocks) * u64::from(BLOCK);
    let layout = StorageLayout::new(&[(length, false)], blocks * BLOCK).unwrap();
    let config = PickerConfig {
        random_first_pieces: 0,
        ..config
    };
    Picker::new(config, &layout, PeerPieces::None, seed)
}

/// A bitfield of these pieces.
fn bitfield(pieces: u32, has: impl IntoIterator<Item = u32>) -> Vec<u8> {
    let mut bytes = vec![0; pieces.div_ceil(8) as usize];
    for piece in has {
        bytes[piece as usize / 8] |= 0x80 >> (piece % 8);
    }
    bytes
}

fn join(picker: &mut Picker, key: u64, has: impl IntoIterator<Item = u32>) {
    let bits = bitfield(picker.pieces.count(), has);
    picker.peer_joined(PeerKey(key), PeerPieces::Bitfield(&bits));
}

fn join_seed(picker: &mut Picker, key: u64) {
    picker.peer_joined(PeerKey(key), PeerPieces::All);
}

fn join_fast_seed(picker: &mut Picker, key: u64) {
    join_seed(picker, key);
    picker.set_rate(PeerKey(key), FAST);
}

fn pick(picker: &mut Picker, key: u64, count: u32) -> Vec<BlockRequest> {
    let wish = Wish {
        count,
        ..Wish::default()
    };
    pick_wish(picker, key, wish)
}

fn pick_wish(picker: &mut Picker, key: u64, wish: Wish<'_>) -> Vec<BlockRequest> {
    let mut requests = Vec::new();
    picker.pick(PeerKey(key), wish, &mut requests);
    picker.check_invariants();
    requests
}

/// The pieces of these blocks, each once, in order.
fn pieces_of(requests: &[BlockRequest]) -> Vec<u32> {
    let mut pieces: Vec<u32> = requests.iter().map(|request| request.piece.0).collect();
    pieces.dedup();
    pieces
}

fn receive(picker: &mut Picker, key: u64, requests: &[BlockRequest]) -> Vec<Received> {
    let each = requests.iter();
    each.map(|&request| picker.block_received(PeerKey(key), request))
        .collect()
}

fn events(picker: &mut Picker) -> Vec<Event> {
    std::iter::from_fn(|| picker.take_event()).collect()
}

fn block(piece: u32, number: u32) -> BlockRequest {
    BlockRequest {
        piece: PieceIndex(piece),
        begin: number * BLOCK,
        length: BLOCK,
    }
}

fn priority(number: u8) -> Priority {
    Priority::new(number).unwrap()
}

#[test]
fn the_rarest_pieces_come_first() {
    let mut picker = picker(10, 1);
    join_seed(&mut picker, 0);
    // Piece i is at i more peers.
    for key in 1..10 {
        join(&mut picker, key, key as u32..10);
    }
    assert_eq!(picker.availability(PieceIndex(9)), 10);
    let requests = pick(&mut picker, 0, 10);
    assert_eq!(pieces_of(&requests), (0..10).collect::<Vec<_>>());
}

#[test]
fn a_have_and_a_departure_change_the_order() {
    let mut picker = picker(3, 1);
    join(&mut picker, 0, [0, 1, 2]);
    join(&mut picker, 1, [0, 1]);
    assert!(picker.have(PeerKey(1), PieceIndex(2)));
    assert!(!picker.have(PeerKey(1), PieceIndex(2)), "known");
    assert!(!picker.have(PeerKey(1), PieceIndex(3)), "no such piece");
    assert!(!picker.have(PeerKey(7), PieceIndex(0)), "no such peer");
    join(&mut picker, 2, [0, 2]);
    assert_eq!(pieces_of(&pick(&mut picker, 0, 1)), [1]);
    picker.peer_left(PeerKey(2));
    join(&mut picker, 3, [0]);
    assert_eq!(pieces_of(&pick(&mut picker, 0, 1)), [2]);
}

/// How often each piece is the first that `key` is given, over many seeds.
fn first_choices(pieces: u32, seeds: u64, prepare: impl Fn(&mut Picker), key: u64) -> Vec<u32> {
    let mut counts = vec![0; pieces as usize];
    for seed in 0..seeds {
        let mut picker = picker_with(PickerConfig::default(), pieces, 1, seed);
        prepare(&mut picker);
        let mut requests = Vec::new();
        let wish = Wish {
            count: 1,
            ..Wish::default()
        };
        picker.pick(PeerKey(key), wish, &mut requests);
        counts[requests[0].piece.0 as usize] += 1;
    }
    counts
}

#[test]
fn ties_are_broken_at_random_and_evenly() {
    // 100 for each piece on average, standard deviation 10.
    let even = |counts: &[u32]| counts.iter().all(|count| (55..=150).contains(count));
    for pieces in [8, 40] {
        let counts = first_choices(pieces, u64::from(pieces) * 100, |p| join_seed(p, 0), 0);
        assert!(even(&counts), "{pieces} pieces: {counts:?}");
    }
    // A peer that has the lower half of them: the upper half must not fall on its last or first
    // piece.
    let half = |picker: &mut Picker| {
        join_seed(picker, 0);
        join(picker, 1, 0..20);
        join(picker, 2, 20..40);
    };
    let counts = first_choices(40, 2_000, half, 1);
    assert!(even(&counts[..20]), "{counts:?}");
    assert_eq!(counts[20..].iter().sum::<u32>(), 0);
}

#[test]
fn the_first_pieces_are_any() {
    let mut rarest = 0;
    for seed in 0..1_000 {
        let layout = StorageLayout::new(&[(100 * u64::from(BLOCK), false)], BLOCK).unwrap();
        let mut picker = Picker::new(PickerConfig::default(), &layout, PeerPieces::None, seed);
        join(&mut picker, 0, 0..99);
        // Pieces 0 to 9 are the rarest.
        join(&mut picker, 1, 10..100);
        let mut requests = Vec::new();
        let wish = Wish {
            count: 5,
            ..Wish::default()
        };
        picker.pick(PeerKey(0), wish, &mut requests);
        let pieces = pieces_of(&requests);
        assert!(pieces[4] < 10, "the fifth is one of the rarest");
        rarest += pieces[..4].iter().filter(|piece| **piece < 10).count();
    }
    // A tenth of 4,000, standard deviation 19.
    assert!((320..480).contains(&rarest), "{rarest}");
}

#[test]
fn sequential_is_the_lowest_first_and_can_be_changed() {
    let mut picker = picker(100, 1);
    picker.set_order(PieceOrder::Sequential);
    join_seed(&mut picker, 0);
    join(&mut picker, 1, [1, 70, 71, 99]);
    assert_eq!(pieces_of(&pick(&mut picker, 1, 2)), [1, 70]);
    assert_eq!(pieces_of(&pick(&mut picker, 0, 3)), [0, 2, 3]);
    picker.set_priority(PieceIndex(50), Priority::HIGHEST);
    assert_eq!(pieces_of(&pick(&mut picker, 0, 2)), [50, 4]);
    // What is given back is the lowest again.
    assert!(picker.request_failed(PeerKey(1), block(1, 0)));
    assert_eq!(pieces_of(&pick(&mut picker, 0, 2)), [1, 5]);
    picker.set_order(PieceOrder::RarestFirst);
    let requests = pick(&mut picker, 0, 200);
    assert_ne!(pieces_of(&requests)[..3], [6, 7, 8]);
}

#[test]
fn priority_comes_before_rarity_and_before_open_pieces() {
    let mut picker = picker(5, 2);
    join_seed(&mut picker, 0);
    join_seed(&mut picker, 9);
    join(&mut picker, 1, [3, 4]);
    let priorities = [1, 0, 4, 4, 7].map(priority);
    picker.set_priorities(&priorities);
    assert_eq!(picker.wanted(), 4);
    let requests = pick(&mut picker, 0, 7);
    assert_eq!(pieces_of(&requests), [4, 2, 3, 0]);
    assert_eq!(
        pick(&mut picker, 0, 9).len(),
        1,
        "the rest; piece 1 is skipped"
    );
    picker.set_priority(PieceIndex(1), priority(1));
    // One block of piece 1 is left, but there is something better now.
    assert_eq!(pick(&mut picker, 0, 1), [block(1, 0)]);
    picker.set_priority(PieceIndex(3), Priority::SKIP);
    picker.set_priority(PieceIndex(3), Priority::HIGHEST);
    assert_eq!(
        pick(&mut picker, 9, 3),
        [block(3, 0), block(3, 1), block(1, 1)]
    );
}

#[test]
fn an_open_piece_that_is_skipped_is_dropped_with_cancels() {
    let mut picker = picker(2, 2);
    join(&mut picker, 0, [0]);
    let requests = pick(&mut picker, 0, 2);
    assert_eq!(receive(&mut picker, 0, &requests[..1]), [Received::New]);
    picker.set_priority(PieceIndex(0), Priority::SKIP);
    let cancel = Event::Cancel {
        peer: PeerKey(0),
        block: block(0, 1),
    };
    assert_eq!(events(&mut picker), [cancel, Event::Dropped(PieceIndex(0))]);
    assert!(!picker.is_interesting(PeerKey(0)));
    assert_eq!(
        receive(&mut picker, 0, &requests[1..]),
        [Received::Unwanted]
    );
    picker.set_priority(PieceIndex(0), Priority::NORMAL);
    assert_eq!(pick(&mut picker, 0, 9).len(), 2, "all of it again");
}

#[test]
fn the_last_block_and_the_last_piece_are_shorter() {
    let layout = StorageLayout::new(&[(100_000, false)], 40_000).unwrap();
    let mut picker = Picker::new(PickerConfig::default(), &layout, PeerPieces::None, 1);
    picker.set_order(PieceOrder::Sequential);
    join_seed(&mut picker, 0);
    let requests = pick(&mut picker, 0, 100);
    let lengths: Vec<_> = requests
        .iter()
        .map(|r| (r.piece.0, r.begin, r.length))
        .collect();
    let expected = [
        (0, 0, BLOCK),
        (0, BLOCK, BLOCK),
        (0, 2 * BLOCK, 7_232),
        (1, 0, BLOCK),
        (1, BLOCK, BLOCK),
        (1, 2 * BLOCK, 7_232),
        (2, 0, BLOCK),
        (2, BLOCK, 3_616),
    ];
    assert_eq!(lengths, expected);
    for (begin, length) in [
        (BLOCK, BLOCK),
        (1, BLOCK),
        (3 * BLOCK, 1),
        (u32::MAX, u32::MAX),
    ] {
        let piece = PieceIndex(2);
        let hostile = BlockRequest {
            piece,
            begin,
            length,
        };
        assert_eq!(
            picker.block_received(PeerKey(0), hostile),
            Received::Unwanted
        );
        assert!(!picker.request_failed(PeerKey(0), hostile));
    }
}

#[test]
fn what_was_verified_before_is_not_fetched() {
    let layout = StorageLayout::new(&[(8 * u64::from(BLOCK), false)], BLOCK).unwrap();
    let config = PickerConfig::default();
    let verified = [0b1110_1111];
    let mut picker = Picker::new(config, &layout, PeerPieces::Bitfield(&verified), 1);
    assert_eq!((picker.verified(), picker.wanted()), (7, 1));
    join_seed(&mut picker, 0);
    assert_eq!(pick(&mut picker, 0, 9), [block(3, 0)]);
    picker.piece_verified(PieceIndex(3));
    assert_eq!(
        (picker.wanted(), picker.is_interesting(PeerKey(0))),
        (0, false)
    );
    // The data of a piece vanish.
    picker.piece_lost(PieceIndex(5));
    assert_eq!(picker.interesting_pieces(PeerKey(0)), 1);
    assert_eq!(pick(&mut picker, 0, 9), [block(5, 0)]);
    let picker = Picker::new(config, &layout, PeerPieces::All, 1);
    assert_eq!((picker.verified(), picker.wanted()), (8, 0));
}

#[test]
fn interest_follows_haves_verification_and_priority() {
    let mut picker = picker(10, 1);
    join(&mut picker, 1, [0, 1, 2]);
    picker.peer_joined(PeerKey(2), PeerPieces::None);
    join_seed(&mut picker, 3);
    let interest = |picker: &Picker| [1, 2, 3].map(|key| picker.interesting_pieces(PeerKey(key)));
    assert_eq!(interest(&picker), [3, 0, 10]);
    picker.have(PeerKey(2), PieceIndex(0));
    assert_eq!(interest(&picker), [3, 1, 10]);
    picker.piece_verified(PieceIndex(0));
    assert_eq!(interest(&picker), [2, 0, 9]);
    picker.set_priority(PieceIndex(1), Priority::SKIP);
    assert_eq!(interest(&picker), [1, 0, 8]);
    picker.set_priorities(&[Priority::NORMAL; 10]);
    assert_eq!(interest(&picker), [2, 0, 9]);
    assert!(picker.peer_lost(PeerKey(1), PieceIndex(1)));
    assert!(!picker.peer_lost(PeerKey(1), PieceIndex(1)));
    picker.piece_lost(PieceIndex(0));
    assert_eq!(interest(&picker), [2, 1, 10]);
    picker.check_invariants();
}

#[test]
fn a_choked_peer_gets_its_allowed_pieces_alone() {
    let mut picker = picker(10, 2);
    join(&mut picker, 0, [0, 1, 2, 3]);
    let allowed = [7, 3, 2].map(PieceIndex);
    let wish = Wish {
        count: 3,
        only: Some(&allowed),
        suggested: &[],
    };
    let blocks = [block(3, 0), block(3, 1), block(2, 0)];
    assert_eq!(pick_wish(&mut picker, 0, wish), blocks);
    // One more, and nothing of the pieces 0 and 1.
    assert_eq!(pick_wish(&mut picker, 0, wish), [block(2, 1)]);
    let nothing = Wish {
        only: Some(&[]),
        ..wish
    };
    assert_eq!(pick_wish(&mut picker, 0, nothing), []);
}

#[test]
fn a_suggested_piece_comes_first_within_its_priority() {
    let mut picker = picker(10, 1);
    join(&mut picker, 0, 0..9);
    join(&mut picker, 1, [4, 5]);
    let suggested = [9, 4, 5].map(PieceIndex);
    let wish = Wish {
        count: 1,
        only: None,
        suggested: &suggested,
    };
    picker.set_priority(PieceIndex(7), Priority::HIGHEST);
    // The peer has not 9; 7 has a higher priority; 4 is less rare than others, but suggested.
    let mut next = || pick_wish(&mut picker, 0, wish)[0].piece.0;
    assert_eq!([next(), next(), next()], [7, 4, 5]);
    assert!(next() < 4);
}

#[test]
fn a_bad_piece_names_its_senders_and_is_fetched_again_first() {
    let mut picker = picker(3, 4);
    join_seed(&mut picker, 0);
    join_seed(&mut picker, 1);
    let one = pick(&mut picker, 0, 3);
    let two = pick(&mut picker, 1, 1);
    let bad = one[0].piece;
    assert_eq!(picker.piece_failed(bad), [], "not complete");
    receive(&mut picker, 0, &one);
    assert_eq!(receive(&mut picker, 1, &two), [Received::PieceComplete]);
    assert_eq!(picker.piece_failed(bad), [0, 0, 0, 1].map(PeerKey));
    assert_eq!(picker.piece_failed(bad), [], "told once");
    assert_eq!(pieces_of(&pick(&mut picker, 1, 4)), [bad.0]);
}

#[test]
fn requests_that_fail_are_given_to_others() {
    let config = PickerConfig {
        endgame_requesters: 1,
        ..PickerConfig::default()
    };
    let mut picker = picker_with(config, 2, 3, 1);
    join(&mut picker, 0, [0]);
    join(&mut picker, 1, [0]);
    assert_eq!(pick(&mut picker, 0, 9).len(), 3);
    assert_eq!(picker.requests_dropped(PeerKey(0)), 3);
    assert_eq!(pick(&mut picker, 1, 2), [block(0, 0), block(0, 1)]);
    assert!(picker.request_failed(PeerKey(1), block(0, 0)));
    assert!(!picker.request_failed(PeerKey(1), block(0, 0)), "told once");
    assert_eq!(pick(&mut picker, 0, 9), [block(0, 0), block(0, 2)]);
    picker.peer_left(PeerKey(0));
    assert_eq!(pick(&mut picker, 1, 9), [block(0, 0), block(0, 2)]);
    // What was given back and comes late is of use, once.
    join(&mut picker, 0, [0]);
    assert_eq!(receive(&mut picker, 0, &[block(0, 2)]), [Received::New]);
    let cancel = Event::Cancel {
        peer: PeerKey(1),
        block: block(0, 2),
    };
    assert_eq!(events(&mut picker), [cancel]);
    assert_eq!(
        receive(&mut picker, 1, &[block(0, 2)]),
        [Received::Duplicate]
    );
}

#[test]
fn a_download_asks_for_each_block_once_until_its_end() {
    // 20 seeds and 30 that have some, each with a pipeline of its speed; who answers is by lot.
    let mut picker = picker_with(PickerConfig::default(), 300, 8, 1);
    let mut random = Random::new(7);
    for key in 0..50 {
        let has = (0..300).filter(|_| random.below(3) > 0);
        match key {
            0..20 => join_seed(&mut picker, key),
            _ => join(&mut picker, key, has),
        }
        picker.set_rate(PeerKey(key), (key % 3) * FAST);
    }
    let mut pipelines: BTreeMap<u64, Vec<BlockRequest>> = BTreeMap::new();
    let (mut requested, mut useless, mut cancels, mut before_endgame) = (0, 0, 0, 0);
    while picker.wanted() > 0 {
        let key = random.below(50);
        let pipeline = pipelines.entry(key).or_default();
        let room = (4 + key % 3 * 16) as usize - pipeline.len();
        let mut given = Vec::new();
        let wish = Wish {
            count: room as u32,
            ..Wish::default()
        };
        picker.pick(PeerKey(key), wish, &mut given);
        requested += given.len();
        if !picker.in_endgame() {
            before_endgame = requested;
        }
        pipeline.extend(given);
        for _ in 0..pipeline.len().min(1 + (key % 3 * 4) as usize) {
            let request = pipeline.remove(0);
            match picker.block_received(PeerKey(key), request) {
                Received::New => {}
                Received::PieceComplete => picker.piece_verified(request.piece),
                Received::Duplicate | Received::Unwanted => useless += 1,
            }
        }
        while let Some(event) = picker.take_event() {
            let Event::Cancel { peer, block } = event else {
                panic!("nothing is dropped: {event:?}");
            };
            let pipeline = pipelines.get_mut(&peer.0).unwrap();
            pipeline.retain(|request| *request != block);
            cancels += 1;
        }
    }
    picker.check_invariants();
    // Cancels are obeyed at once here, so none comes twice.
    assert_eq!((picker.verified(), useless), (300, 0));
    assert_eq!(requested - cancels, 2_400);
    assert!(
        before_endgame <= 2_400 && cancels < 1_000,
        "{cancels} cancels"
    );
}

#[test]
fn the_sequences_reach_every_rule() {
    let mut random = Random::new(1);
    let mut all = model::Seen::default();
    for _ in 0..30 {
        let bytes: Vec<u8> = (0..1_500).map(|_| random.next_u64() as u8).collect();
        all.add(model::run(&bytes));
    }
    assert!(
        all.begun > 500 && all.joined > 1_000 && all.chosen > 100,
        "{all:?}"
    );
    assert!(
        all.evicted > 20 && all.twice > 30 && all.exhausted > 200,
        "{all:?}"
    );
    assert!(
        all.cancelled > 100 && all.completed > 200 && all.failed > 20,
        "{all:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]
    #[test]
    fn every_call_does_what_the_naive_model_does(
        bytes in proptest::collection::vec(any::<u8>(), 0..1_500),
    ) {
        model::run(&bytes);
    }
}
