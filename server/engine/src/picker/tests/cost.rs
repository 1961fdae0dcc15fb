//! What calls cost, in work that is counted and in bytes.

use super::*;

/// As many pieces as a debug build handles at once.
const MANY: u32 = 1 << 17;

/// What `call` adds to the work.
fn work_of(picker: &mut Picker, call: impl FnOnce(&mut Picker)) -> Work {
    let before = picker.work();
    call(picker);
    let after = picker.work();
    Work {
        moves: after.moves - before.moves,
        swept: after.swept - before.swept,
        rebuilt: after.rebuilt - before.rebuilt,
        looks: after.looks - before.looks,
        words: after.words - before.words,
    }
}

fn moves(moves: u64) -> Work {
    Work {
        moves,
        ..Work::default()
    }
}

#[test]
fn a_have_is_one_move_and_a_seed_none() {
    let mut picker = picker(MANY, 1);
    picker.peer_joined(PeerKey(0), PeerPieces::None);
    let have = work_of(&mut picker, |picker| {
        for piece in (0..MANY).step_by(128) {
            picker.have(PeerKey(0), PieceIndex(piece));
        }
    });
    assert_eq!(have, moves(1_024));
    let seeds = work_of(&mut picker, |picker| {
        (1..=1_000).for_each(|key| join_seed(picker, key));
        (1..=500).for_each(|key| picker.peer_left(PeerKey(key)));
    });
    assert_eq!(seeds, moves(0));
    assert_eq!(picker.availability(PieceIndex(0)), 501);
    // A full bitfield is a seed too.
    let full = bitfield(MANY, 0..MANY);
    let joined = work_of(&mut picker, |picker| {
        picker.peer_joined(PeerKey(0xf), PeerPieces::Bitfield(&full));
    });
    assert_eq!(joined, moves(0));
    picker.check_invariants();
}

#[test]
fn coming_and_leaving_cost_what_the_peer_has_or_lacks() {
    let mut picker = picker(MANY, 1);
    let coming_and_leaving = |picker: &mut Picker, has: Vec<u32>| {
        let bits = bitfield(MANY, has);
        let bits = PeerPieces::Bitfield(&bits);
        let come = work_of(picker, |picker| picker.peer_joined(PeerKey(1), bits));
        picker.check_invariants();
        let left = work_of(picker, |picker| picker.peer_left(PeerKey(1)));
        picker.check_invariants();
        assert_eq!(come, left);
        come
    };
    let few = coming_and_leaving(&mut picker, (0..MANY).step_by(100).collect());
    assert_eq!(few, moves(1_311));
    let most = coming_and_leaving(&mut picker, (0..MANY).filter(|i| i % 100 > 0).collect());
    let swept = MANY.into();
    assert_eq!(
        most,
        Work {
            swept,
            ..moves(1_311)
        }
    );
    let half = coming_and_leaving(&mut picker, (0..MANY).step_by(2).collect());
    let rebuilt = MANY.into();
    assert_eq!(
        half,
        Work {
            rebuilt,
            ..moves(0)
        }
    );
}

#[test]
fn becoming_a_seed_is_one_sweep_and_ceasing_to_be_one_counts_once() {
    let mut picker = picker(MANY, 1);
    join(&mut picker, 0, 1..MANY);
    let complete = work_of(&mut picker, |picker| {
        assert!(picker.have(PeerKey(0), PieceIndex(0)));
    });
    let sweep = Work {
        swept: MANY.into(),
        ..moves(1)
    };
    assert_eq!((complete, picker.peers.seeds()), (sweep, 1));
    // A peer that loses and gets a piece again and again (BEP 54) costs one sweep in all.
    let lost = work_of(&mut picker, |picker| {
        assert!(picker.peer_lost(PeerKey(0), PieceIndex(5)));
    });
    assert_eq!((lost, picker.peers.seeds()), (sweep, 0));
    let hostile = work_of(&mut picker, |picker| {
        for _ in 0..100 {
            assert!(picker.have(PeerKey(0), PieceIndex(5)));
            assert!(picker.peer_lost(PeerKey(0), PieceIndex(5)));
        }
    });
    assert_eq!(hostile, moves(200));
    picker.check_invariants();
}

#[test]
fn a_new_piece_from_a_seed_is_one_look() {
    let mut picker = picker(MANY, 1);
    join_seed(&mut picker, 0);
    // Those of one class are one look each, whatever their number; in small classes all are looked
    // at.
    let work = work_of(&mut picker, |picker| {
        let mut requests = Vec::new();
        let wish = Wish {
            count: 1_000,
            ..Wish::default()
        };
        picker.pick(PeerKey(0), wish, &mut requests);
        assert_eq!(requests.len(), 1_000);
    });
    let looks = 1_000;
    assert_eq!(
        work,
        Work {
            looks,
            ..moves(1_000)
        }
    );
}

#[test]
fn a_peer_without_the_rarest_pieces_is_served_within_a_bound() {
    let mut picker = picker(MANY, 1);
    // The rarest three quarters are at peer 0 alone; peer 1 has the others, as two more have.
    join(&mut picker, 0, 0..MANY);
    picker.peer_lost(PeerKey(0), PieceIndex(MANY - 1));
    for key in 1..4 {
        join(&mut picker, key, MANY / 4 * 3..MANY);
    }
    let words = u64::from(MANY / 64);
    let mut word_starts = 0;
    for _ in 0..100 {
        let work = work_of(&mut picker, |picker| {
            let mut requests = Vec::new();
            let wish = Wish {
                count: 1,
                ..Wish::default()
            };
            picker.pick(PeerKey(1), wish, &mut requests);
            assert!(requests[0].piece.0 >= MANY / 4 * 3);
            word_starts += u32::from(requests[0].piece.0.is_multiple_of(64));
        });
        // The probes, the walk, and a sample up to the end of its last word.
        assert!(
            work.looks <= u64::from(WALK_MAX + SAMPLE_MAX + 16 + 64),
            "{work:?}"
        );
        assert!(work.words <= words && work.moves == 1, "{work:?}");
    }
    // One in 64 by chance: ties are broken within the sample, too.
    assert!(word_starts < 10, "{word_starts}");
}

/// What haves, blocks, verified pieces, departures and choices cost in a torrent of so many pieces
/// that so many peers fetch with us.
fn work_in(pieces: u32, peers: u64) -> [Work; 5] {
    let mut picker = picker(pieces, 2);
    join_seed(&mut picker, 0);
    for key in 1..=peers {
        picker.peer_joined(PeerKey(key), PeerPieces::None);
    }
    let haves = work_of(&mut picker, |picker| {
        for number in 0..1_000_u32 {
            let key = 1 + u64::from(number) % peers;
            assert!(picker.have(PeerKey(key), PieceIndex(number * (pieces / 1_000))));
        }
    });
    // From a seed, so that only the size of the swarm could matter.
    let mut requests = Vec::new();
    let choices = work_of(&mut picker, |picker| {
        let wish = Wish {
            count: 100,
            ..Wish::default()
        };
        picker.pick(PeerKey(0), wish, &mut requests);
    });
    let blocks = work_of(&mut picker, |picker| {
        for &request in &requests {
            if picker.block_received(PeerKey(0), request) == Received::PieceComplete {
                picker.piece_verified(request.piece);
            }
        }
    });
    let given_back = work_of(&mut picker, |picker| {
        let wish = Wish {
            count: 2,
            ..Wish::default()
        };
        let mut requests = Vec::new();
        picker.pick(PeerKey(0), wish, &mut requests);
        assert!(picker.request_failed(PeerKey(0), requests[0]));
    });
    let seed_gone = work_of(&mut picker, |picker| picker.peer_left(PeerKey(0)));
    [haves, choices, blocks, given_back, seed_gone]
}

#[test]
fn no_update_costs_more_in_the_largest_torrent_and_swarm() {
    let small = work_in(1 << 11, 10);
    assert_eq!(small[0], moves(1_000));
    assert_eq!(small[1].moves, 50);
    assert_eq!(work_in(1 << 21, 1_000), small);
}

#[test]
fn a_search_in_vain_is_not_repeated() {
    let mut picker = picker(MANY, 2);
    join_seed(&mut picker, 0);
    join(&mut picker, 1, [7]);
    join(&mut picker, 2, [7]);
    assert_eq!(pick(&mut picker, 1, 9).len(), 2);
    let none = |picker: &mut Picker| {
        work_of(picker, |picker| {
            let mut requests = Vec::new();
            let wish = Wish {
                count: 1,
                ..Wish::default()
            };
            picker.pick(PeerKey(2), wish, &mut requests);
            assert_eq!(requests, []);
        })
    };
    let first = none(&mut picker);
    assert_eq!(
        first.words + first.looks,
        0,
        "it has one piece, and no class but that"
    );
    // Most pieces are at another peer now.
    join(&mut picker, 3, 0..1_000);
    assert_eq!(none(&mut picker).looks, 0);
    picker.have(PeerKey(2), PieceIndex(7));
    picker.set_priority(PieceIndex(MANY - 1), Priority::SKIP);
    let again = none(&mut picker);
    assert!(again.looks > 900, "{again:?}");
    assert_eq!(none(&mut picker).looks, 0);
}

#[test]
fn twelve_bytes_a_piece_whatever_happened() {
    // No power of two, so that a vector that doubles would show.
    let pieces = 300_000;
    let mut picker = picker(pieces, 1);
    let each = |picker: &Picker| picker.piece_memory_bytes() as f64 / f64::from(pieces);
    let fresh = each(&picker);
    // Classes come and go: everything moves through five of them.
    for key in 0..5 {
        let bits = bitfield(pieces, (0..pieces).filter(|piece| piece % 7 != key as u32));
        picker.peer_joined(PeerKey(key), PeerPieces::Bitfield(&bits));
    }
    let full = each(&picker);
    (0..5).for_each(|key| picker.peer_left(PeerKey(key)));
    let after = each(&picker);
    println!("bytes a piece: {fresh:.2} fresh, {full:.2} with 5 peers, {after:.2} after they left");
    assert!(
        fresh <= 11.5 && full <= 12.0 && after <= 12.0,
        "{fresh} {full} {after}"
    );
}

#[test]
fn a_block_is_twenty_four_bytes() {
    assert_eq!(size_of::<super::super::open::Block>(), 24);
    assert!(size_of::<Option<super::super::open::OpenPiece>>() <= 72);
}
