//! Who gets which piece: fast and slow peers, whole pieces, the bound on open ones, the end-game.

use super::*;

#[test]
fn a_fast_peer_gets_whole_pieces_of_its_own_in_order() {
    let mut picker = picker(20, 4);
    join_fast_seed(&mut picker, 0);
    join_fast_seed(&mut picker, 1);
    let mut taken = [Vec::new(), Vec::new()];
    for round in 0..24 {
        let key = round % 2;
        taken[key as usize].extend(pick(&mut picker, key, 1));
    }
    let [one, two] = taken.map(|requests| {
        for piece in requests.chunks(4) {
            let numbers: Vec<_> = piece.iter().map(|r| (r.piece, r.begin / BLOCK)).collect();
            let first = piece[0].piece;
            assert_eq!(numbers, [0, 1, 2, 3].map(|number| (first, number)));
        }
        pieces_of(&requests).into_iter().collect::<BTreeSet<_>>()
    });
    assert_eq!((one.len(), two.len()), (3, 3));
    assert!(one.is_disjoint(&two));
}

#[test]
fn slow_peers_share_pieces_and_stay_out_of_those_of_fast_ones() {
    let mut picker = picker(20, 8);
    join_fast_seed(&mut picker, 0);
    let own = pick(&mut picker, 0, 1);
    for key in 1..=4 {
        join_seed(&mut picker, key);
    }
    let shared: Vec<_> = (1..=4).flat_map(|key| pick(&mut picker, key, 2)).collect();
    assert_eq!(
        pieces_of(&shared).len(),
        1,
        "8 blocks, one piece for four peers"
    );
    assert_ne!(shared[0].piece, own[0].piece);
    // The slow peers are stuck; the fast one goes on with its own piece and new ones.
    let more = pick(&mut picker, 0, 15);
    assert_eq!(pieces_of(&more).len(), 2);
    assert!(more.iter().all(|request| request.piece != shared[0].piece));
}

#[test]
fn a_slow_peer_waits_rather_than_hold_up_a_fast_one() {
    let mut picker = picker(1, 4);
    join_fast_seed(&mut picker, 0);
    join_seed(&mut picker, 1);
    assert_eq!(pick(&mut picker, 0, 2).len(), 2);
    assert_eq!(pick(&mut picker, 1, 2), []);
    // It hangs: then its piece is anybody's, and so are the blocks that it is asked for when it is
    // given up.
    picker.set_rate(PeerKey(0), 0);
    assert_eq!(pick(&mut picker, 1, 1), [block(0, 2)]);
    assert!(picker.request_failed(PeerKey(0), block(0, 0)));
    assert_eq!(pick(&mut picker, 1, 1), [block(0, 0)]);
}

#[test]
fn a_piece_that_nobody_works_on_is_finished_before_a_new_one() {
    let mut picker = picker(20, 4);
    join_fast_seed(&mut picker, 0);
    join_fast_seed(&mut picker, 1);
    join_seed(&mut picker, 2);
    let one = pick(&mut picker, 0, 3);
    receive(&mut picker, 0, &one[..2]);
    picker.peer_left(PeerKey(0));
    // A fast peer takes it over, and then it is its own.
    assert_eq!(pick(&mut picker, 1, 1), [one[2]]);
    assert_ne!(pieces_of(&pick(&mut picker, 2, 1)), pieces_of(&one));
    assert_eq!(pieces_of(&pick(&mut picker, 1, 1)), pieces_of(&one));
}

#[test]
fn the_nearest_to_its_end_comes_first_among_open_pieces() {
    let mut picker = picker(20, 4);
    for key in 0..3 {
        join_fast_seed(&mut picker, key);
        let requests = pick(&mut picker, key, 4);
        receive(&mut picker, key, &requests[..key as usize]);
    }
    let nearest = pieces_of(&{
        let mut picker = picker.clone();
        picker.peer_left(PeerKey(0));
        picker.peer_left(PeerKey(1));
        pick(&mut picker, 2, 0)
    });
    assert_eq!(nearest, [0_u32; 0], "nothing was asked for");
    (0..3).for_each(|key| picker.peer_left(PeerKey(key)));
    join_seed(&mut picker, 9);
    let free: Vec<_> = {
        let requests = pick(&mut picker, 9, 9);
        let pieces = pieces_of(&requests).into_iter();
        pieces
            .map(|piece| requests.iter().filter(|r| r.piece.0 == piece).count())
            .collect()
    };
    assert_eq!(free, [2, 3, 4]);
}

#[test]
fn speed_is_a_whole_piece_in_half_a_minute() {
    let mut picker = picker(20, 64);
    let piece_bytes = 64 * u64::from(BLOCK);
    join_seed(&mut picker, 0);
    join_seed(&mut picker, 1);
    picker.set_rate(PeerKey(0), piece_bytes.div_ceil(30));
    picker.set_rate(PeerKey(1), piece_bytes.div_ceil(30) - 1);
    let of = |picker: &mut Picker, key| pieces_of(&pick(picker, key, 1));
    let slow = of(&mut picker, 1);
    let fast = of(&mut picker, 0);
    assert_ne!(slow, fast);
    // Another slow one joins the slow one.
    join_seed(&mut picker, 2);
    assert_eq!(of(&mut picker, 2), slow);
}

#[test]
fn whole_pieces_let_few_peers_into_one() {
    let sharing = Sharing::WholePieces { peers_per_piece: 2 };
    let config = PickerConfig {
        sharing,
        ..PickerConfig::default()
    };
    let mut picker = picker_with(config, 2, 8, 1);
    (0..5).for_each(|key| join_seed(&mut picker, key));
    // Nobody is measured yet, and each has a piece of its own as long as there are any.
    let firsts: Vec<_> = (0..5)
        .map(|key| pieces_of(&pick(&mut picker, key, 1)))
        .collect();
    assert_ne!(firsts[0], firsts[1]);
    let mut in_pieces = [firsts[2].clone(), firsts[3].clone()].concat();
    in_pieces.sort_unstable();
    assert_eq!(in_pieces, [0, 1], "a second peer in each");
    assert_eq!(firsts[4], [0_u32; 0], "and no third one");
    picker.set_sharing(Sharing::WholePieces { peers_per_piece: 3 });
    assert_eq!(pick(&mut picker, 4, 1).len(), 1);
}

#[test]
fn open_pieces_are_bounded_by_the_peers_present() {
    let mut picker = picker(1_000, 4);
    join_seed(&mut picker, 0);
    // Peers begin a piece that nobody else has, deliver a block, and leave.
    for piece in 1..500 {
        join(&mut picker, 1, [piece]);
        picker.set_rate(PeerKey(1), FAST);
        let requests = pick(&mut picker, 1, 1);
        receive(&mut picker, 1, &requests);
        picker.peer_left(PeerKey(1));
        // 16 to spare, two peers.
        assert!(picker.open_pieces() <= 18, "{}", picker.open_pieces());
    }
    // At first the seed could have finished them all; now only 18 are still there.
    let dropped = events(&mut picker);
    assert_eq!(dropped.len(), 499 - 18);
    assert!(
        dropped
            .iter()
            .all(|event| matches!(event, Event::Dropped(_)))
    );
}

#[test]
fn what_nobody_has_any_more_is_forgotten_first() {
    let config = PickerConfig {
        open_pieces_spare: 1,
        ..PickerConfig::default()
    };
    let mut picker = picker_with(config, 10, 4, 1);
    // Peer i begins piece i, and gets so many blocks of it.
    for (key, blocks) in [(0, 1), (1, 3), (2, 2)] {
        join(&mut picker, key, [key as u32]);
        picker.set_rate(PeerKey(key), FAST);
        let requests = pick(&mut picker, key, blocks);
        receive(&mut picker, key, &requests);
    }
    picker.peer_left(PeerKey(1));
    picker.peer_left(PeerKey(2));
    // Three may be open when there are two peers. Each that comes begins another one, and goes.
    let begun = |picker: &mut Picker, piece: u32| {
        join(picker, 9, [piece]);
        assert_eq!(pieces_of(&pick(picker, 9, 1)), [piece]);
        let dropped = events(picker);
        receive(picker, 9, &[block(piece, 0)]);
        picker.peer_left(PeerKey(9));
        dropped
    };
    let dropped = |piece| [Event::Dropped(PieceIndex(piece))];
    // 1 and 2 are at nobody, 2 has fewer blocks than 1; 0 has the fewest, but its peer is still
    // there.
    assert_eq!(begun(&mut picker, 5), dropped(2));
    assert_eq!(begun(&mut picker, 6), dropped(5));
    picker.set_priority(PieceIndex(6), Priority::SKIP);
    assert_eq!(events(&mut picker), dropped(6));
    assert_eq!(begun(&mut picker, 7), []);
}

#[test]
fn in_the_end_game_blocks_are_asked_for_thrice_and_cancelled() {
    let mut picker = picker(1, 4);
    (0..5).for_each(|key| join_seed(&mut picker, key));
    assert_eq!(pick(&mut picker, 0, 3).len(), 3);
    assert!(!picker.in_endgame());
    assert_eq!(
        pick(&mut picker, 1, 9).len(),
        4,
        "the free one, then three twice"
    );
    assert!(picker.in_endgame());
    let all = [0, 1, 2, 3].map(|number| block(0, number));
    assert_eq!(
        pick(&mut picker, 1, 9),
        [],
        "never twice from the same peer"
    );
    assert_eq!(pick(&mut picker, 2, 9).len(), 4);
    assert_eq!(pick(&mut picker, 3, 9), [block(0, 3)], "three is the most");
    assert_eq!(pick(&mut picker, 4, 9), []);
    assert_eq!(receive(&mut picker, 1, &all[..1]), [Received::New]);
    let cancel = |peer, number| Event::Cancel {
        peer: PeerKey(peer),
        block: block(0, number),
    };
    assert_eq!(events(&mut picker), [cancel(0, 0), cancel(2, 0)]);
    assert_eq!(receive(&mut picker, 0, &all[..1]), [Received::Duplicate]);
    receive(&mut picker, 2, &all[1..3]);
    assert_eq!(
        receive(&mut picker, 3, &all[3..]),
        [Received::PieceComplete]
    );
    assert_eq!(events(&mut picker).len(), 6);
    picker.check_invariants();
}

#[test]
fn the_end_game_asks_no_slow_peer_for_what_a_fast_one_is_asked_for() {
    let mut picker = picker(1, 4);
    join_fast_seed(&mut picker, 0);
    join_seed(&mut picker, 1);
    join_fast_seed(&mut picker, 2);
    assert_eq!(pick(&mut picker, 0, 4).len(), 4);
    assert_eq!(pick(&mut picker, 1, 4), []);
    assert_eq!(pick(&mut picker, 2, 4).len(), 4);
}

#[test]
fn nothing_is_asked_for_twice_while_pieces_are_missing_that_nobody_has_yet() {
    let mut picker = picker(3, 2);
    join(&mut picker, 0, [0]);
    join(&mut picker, 1, [0]);
    assert_eq!(pick(&mut picker, 0, 9).len(), 2);
    // A swarm around a slow seed is so all the time.
    assert!(!picker.in_endgame());
    assert_eq!(pick(&mut picker, 1, 9), []);
    // Somebody gets the rest, and is asked for it.
    join(&mut picker, 2, [1, 2]);
    assert_eq!(pick(&mut picker, 2, 9).len(), 4);
    assert!(picker.in_endgame());
    assert_eq!(pick(&mut picker, 1, 9).len(), 2);
}

#[test]
fn without_an_end_game_nothing_is_asked_for_twice() {
    let config = PickerConfig {
        endgame_requesters: 1,
        ..PickerConfig::default()
    };
    let mut picker = picker_with(config, 1, 2, 1);
    join_seed(&mut picker, 0);
    join_seed(&mut picker, 1);
    assert_eq!(pick(&mut picker, 0, 9).len(), 2);
    assert_eq!(pick(&mut picker, 1, 9), []);
}
