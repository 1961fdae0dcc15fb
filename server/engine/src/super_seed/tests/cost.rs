//! What peers cost, in steps, and what they can have kept.

use super::*;

/// Lets seconds pass for peers that do nothing but read what they are told.
fn idle(seed: &mut SuperSeed, keys: &[SuperKey], seconds: std::ops::Range<u64>) {
    for second in seconds {
        seed.tick(at(1000 * second));
        for key in keys {
            seed.take_news(*key);
        }
    }
}

fn words(pieces: u32) -> u64 {
    u64::from(pieces.div_ceil(64))
}

/// A bitfield of all pieces but the first.
fn all_but_one(pieces: u32) -> Vec<u8> {
    [vec![0x7f], vec![0xff; pieces as usize / 8 - 1]].concat()
}

/// Whoever says again what it has, or takes something back and says it anew, costs next to nothing.
#[test]
fn what_a_peer_says_again_costs_a_step_for_each_word_of_it_at_most() {
    const MANY: u32 = 51_200;
    let mut seed = SuperSeed::new(MANY, 8);
    let one = seed.join(id(1), at(0));
    seed.join(id(2), at(0));
    let most = all_but_one(MANY);
    seed.has_these(one, &most, at(1));
    assert_eq!(seed.peers[&one].count, MANY - 1);
    let before = seed.steps;
    for _ in 0..100 {
        seed.has_these(one, &most, at(2));
        seed.has_these(one, &[0x40], at(2));
        seed.has(one, PieceIndex(1), at(2));
    }
    assert!(seed.steps - before <= 201 * words(MANY), "{}", seed.steps);
    seed.has_all(one, at(3));
    let before = seed.steps;
    for _ in 0..1_000 {
        seed.has_all(one, at(4));
        seed.has_these(one, &most, at(4));
    }
    assert_eq!(seed.steps, before, "it has everything");
    assert_eq!(seed.missing(), 0);
}

/// Five bytes say that a peer has everything: they cost no step for each piece, nor does the
/// beginning, nor who goes.
#[test]
fn a_torrent_of_very_many_pieces_begins_and_hears_of_everything_without_a_step_for_each() {
    const MOST: u32 = proto::limits::PIECES_MAX;
    let mut seed = SuperSeed::new(MOST, 9);
    assert_eq!(seed.steps, 0);
    seed.join(id(1), at(0));
    assert!(seed.steps <= words(MOST) + 10, "{}", seed.steps);
    let before = seed.steps;
    for _ in 0..100 {
        let one = seed.join(id(2), at(0));
        seed.has_all(one, at(0));
        assert_eq!(seed.missing(), 0);
        seed.leave(one, at(0));
        assert_eq!(seed.missing(), MOST);
    }
    assert!(seed.steps - before <= 100 * 10, "{}", seed.steps - before);
}

/// Pieces that wait for a peer are few, and looked for in what is new, not each of that in them.
#[test]
fn a_bitfield_of_who_was_silent_for_long_costs_a_step_for_each_piece() {
    const MANY: u32 = 131_072;
    let mut seed = SuperSeed::new(MANY, 10);
    let keys = [seed.join(id(1), at(0)), seed.join(id(2), at(0))];
    idle(&mut seed, &keys, 1..400);
    assert_eq!(seed.peers[&keys[0]].waiting.len(), TOLD_AT_ONCE_MAX);
    for key in keys {
        let before = seed.steps;
        seed.has_these(key, &all_but_one(MANY), at(400_000));
        let most = u64::from(MANY) + 3 * words(MANY) + 4 * TOLD_AT_ONCE_MAX as u64;
        assert!(seed.steps - before <= most, "{}", seed.steps - before);
    }
    assert_eq!(seed.missing(), 1);
}

#[test]
fn who_was_told_of_everything_costs_nothing_when_others_come_and_go() {
    const PIECES: u32 = 20_000;
    const PEERS: u8 = 20;
    let mut seed = SuperSeed::new(PIECES, 11);
    let keys: Vec<SuperKey> = (1..=PEERS).map(|one| seed.join(id(one), at(0))).collect();
    idle(&mut seed, &keys, 1..1_000);
    for key in &keys {
        assert_eq!(seed.peers[key].known_count, PIECES);
    }
    let before = seed.steps;
    for _ in 0..100 {
        let one = seed.join(id(99), at(1_000_000));
        seed.leave(one, at(1_000_000));
    }
    let (steps, most) = (seed.steps - before, 100 * (words(PIECES) + 10));
    assert!(
        steps <= most,
        "it is what the newcomer is told of: {steps} of {most}"
    );
    let before = seed.steps;
    idle(&mut seed, &keys, 1_001..1_002);
    let (steps, most) = (
        seed.steps - before,
        u64::from(PEERS) * (TOLD_AT_ONCE_MAX as u64 + 2),
    );
    assert!(steps <= most, "{steps} of {most}");
}

/// Of what a peer does not read there is no more than at the beginning.
#[test]
fn who_does_not_take_what_it_is_told_is_told_of_no_more() {
    let mut seed = SuperSeed::new(10_000, 12);
    let one = seed.join(id(1), at(0));
    seed.join(id(2), at(0));
    for second in 1..1_000 {
        seed.tick(at(1000 * second));
        seed.check_peers();
    }
    assert_eq!(seed.take_news(one).pieces.len(), TOLD_AT_ONCE_MAX);
    seed.tick(at(1_000_000));
    assert_eq!(
        seed.take_news(one).pieces.len(),
        TOLD_AT_ONCE_MAX,
        "then it goes on"
    );
}

/// Who gets nowhere knows all pieces of a usual torrent within four minutes.
#[test]
fn who_gets_nowhere_is_told_of_everything_in_the_end() {
    for (pieces, seconds) in [(4_000, 241), (100_000, 1_000)] {
        let mut seed = SuperSeed::new(pieces, 13);
        let keys = [seed.join(id(1), at(0)), seed.join(id(2), at(0))];
        idle(&mut seed, &keys, 1..seconds);
        assert_eq!(seed.peers[&keys[0]].known_count, pieces);
    }
}
