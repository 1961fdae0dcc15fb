//! Who is told of what, and what peers cost; [`model`] has the same rules naively.

mod cost;
mod model;

use super::*;
use crate::random::Random;
use std::net::Ipv4Addr;

fn at(ms: u64) -> Time {
    Time(1_000_000_000 + ms * 1_000_000)
}

fn id(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, number).into()
}

fn news(seed: &mut SuperSeed, key: SuperKey) -> Vec<u32> {
    let news = seed.take_news(key);
    news.pieces.iter().map(|piece| piece.0).collect()
}

fn has(seed: &mut SuperSeed, key: SuperKey, pieces: &[u32], now: Time) {
    for piece in pieces {
        seed.has(key, PieceIndex(*piece), now);
        seed.check_invariants();
    }
}

#[test]
fn nobody_is_told_of_what_another_is_to_get_and_the_next_comes_when_it_is_passed_on() {
    let mut seed = SuperSeed::new(6, 1);
    let (one, other) = (seed.join(id(1), at(0)), seed.join(id(2), at(0)));
    let (mine, theirs) = (news(&mut seed, one), news(&mut seed, other));
    assert_eq!((mine.len(), theirs.len()), (2, 2));
    assert!(mine.iter().all(|piece| !theirs.contains(piece)));
    // It has it: that is not enough.
    has(&mut seed, one, &mine, at(1));
    assert_eq!(news(&mut seed, one), []);
    // One who was told of nothing of the kind brings nothing.
    has(&mut seed, other, &mine[..1], at(2));
    let next = news(&mut seed, one);
    assert_eq!(
        next.len(),
        2,
        "one for it, and one because it passes pieces on"
    );
    assert!(
        next.iter()
            .all(|piece| !mine.contains(piece) && !theirs.contains(piece))
    );
    assert_eq!(seed.take_changed(), BTreeSet::from([one, other]));
    assert_eq!(news(&mut seed, other), []);
    // All that is left is on its way to somebody: nobody else is told of it.
    let third = seed.join(id(3), at(3));
    assert_eq!(news(&mut seed, third), []);
    assert_eq!(seed.missing(), 4);
    // Who was to get it goes: it is for others.
    seed.leave(one, at(4));
    seed.tick(at(4));
    assert_eq!(news(&mut seed, third).len(), 2);
    seed.check_invariants();
}

#[test]
fn a_peer_that_is_alone_goes_on_by_itself() {
    let mut seed = SuperSeed::new(50, 2);
    let one = seed.join(id(1), at(0));
    let mut told = news(&mut seed, one);
    let mut got = 0;
    while let Some(piece) = told.pop() {
        has(&mut seed, one, &[piece], at(got));
        told.extend(news(&mut seed, one));
        got += 1;
        assert!(told.len() <= WINDOW_MAX);
    }
    assert_eq!(got, 50, "it is complete");
}

#[test]
fn who_gets_nowhere_is_told_of_more_each_time() {
    let mut seed = SuperSeed::new(1000, 3);
    let (one, other) = (seed.join(id(1), at(0)), seed.join(id(2), at(0)));
    seed.take_news(other);
    let mut told = news(&mut seed, one);
    let patience = PATIENCE.as_millis() as u64;
    let mut counts = Vec::new();
    for round in 1..=5 {
        // They cannot reach each other.
        let now = at(round * (patience + 1000) - 1000);
        has(&mut seed, one, &told, now);
        seed.tick(now);
        assert_eq!(news(&mut seed, one), [], "it has just got on");
        seed.tick(at(round * (patience + 1000) - 1000 + patience));
        told = news(&mut seed, one);
        counts.push(told.len());
        seed.check_invariants();
    }
    assert_eq!(counts, [2, 4, 8, 16, 32]);
    has(&mut seed, other, &told[..1], at(200_000));
    assert!(news(&mut seed, one).is_empty(), "32 wait");
}

#[test]
fn what_a_peer_does_not_want_is_given_to_another() {
    let mut seed = SuperSeed::new(2, 4);
    let one = seed.join(id(1), at(0));
    assert_eq!(news(&mut seed, one).len(), 2);
    let other = seed.join(id(2), at(0));
    assert_eq!(news(&mut seed, other), []);
    seed.tick(at(19_000));
    assert_eq!(news(&mut seed, other), []);
    seed.tick(at(20_000));
    assert_eq!(news(&mut seed, other).len(), 2);
    // One that wants others, but not this one.
    let mut seed = SuperSeed::new(100, 4);
    let (one, other) = (seed.join(id(1), at(0)), seed.join(id(2), at(0)));
    let (mut mine, theirs) = (news(&mut seed, one), news(&mut seed, other));
    let unwanted = mine.remove(0);
    let mut got = 0;
    while let Some(piece) = mine.pop() {
        assert_eq!(seed.spread.coming(PieceIndex(unwanted)), 1, "it got {got}");
        has(&mut seed, one, &[piece], at(10_000));
        has(&mut seed, other, &[piece], at(20_000));
        mine.extend(news(&mut seed, one));
        got += 1;
        if got == OVERTAKEN_MAX {
            break;
        }
    }
    has(&mut seed, other, &theirs[..1], at(20_000));
    seed.serves(one, &[], false, at(20_000));
    seed.tick(at(19_999));
    assert_eq!(seed.spread.coming(PieceIndex(unwanted)), 1, "not yet");
    seed.tick(at(21_000));
    assert_eq!(seed.spread.coming(PieceIndex(unwanted)), 0);
}

#[test]
fn whom_we_keep_waiting_is_told_of_no_more_for_that() {
    for (asked, waits) in [(true, false), (false, true), (false, false)] {
        let mut seed = SuperSeed::new(100, 6);
        let one = seed.join(id(1), at(0));
        seed.join(id(2), at(0));
        let mut mine: Vec<_> = news(&mut seed, one).into_iter().map(PieceIndex).collect();
        mine.sort_unstable();
        for second in 1..100 {
            let now = at(1000 * second);
            if asked || waits {
                seed.serves(one, if asked { &mine } else { &[] }, waits, now);
            }
            seed.tick(now);
        }
        assert_eq!(news(&mut seed, one).is_empty(), asked || waits);
    }
}

#[test]
fn two_others_that_have_everything_are_enough_for_half_an_hour() {
    let stay = SEED_STAYS.as_millis() as u64;
    let mut seed = SuperSeed::new(3, 5);
    let leecher = seed.join(id(1), at(0));
    let one = seed.join(id(2), at(0));
    seed.has_all(one, at(0));
    // The same one by another connection is none more.
    let again = seed.join(id(2), at(1));
    seed.has_all(again, at(1));
    seed.tick(at(stay + 1));
    assert!(!seed.is_over() && !seed.take_news(leecher).all);
    let two = seed.join(id(3), at(stay + 2));
    seed.has_these(two, &[0b1110_0000], at(stay + 2));
    // Whoever comes to say so and goes is none.
    let passing = seed.join(id(4), at(stay + 2));
    seed.has_all(passing, at(stay + 2));
    seed.leave(passing, at(2 * stay + 1));
    seed.tick(at(2 * stay + 1));
    assert!(!seed.is_over() && !seed.take_news(leecher).all);
    seed.tick(at(2 * stay + 1001));
    assert!(seed.is_over());
    assert!(
        seed.take_news(leecher).all,
        "who is there is told of everything"
    );
    let late = seed.join(id(5), at(20_000));
    assert_eq!(
        seed.take_news(late),
        News {
            pieces: vec![],
            all: true
        }
    );
    for gone in [one, again, two] {
        seed.leave(gone, at(20_000));
    }
    let end = SEEDS_REMEMBERED.as_millis() as u64;
    seed.tick(at(end));
    assert!(seed.is_over());
    seed.tick(at(2 * stay + 1001 + end));
    assert!(!seed.is_over(), "they were seen no more for so long");
    let later = seed.join(id(6), at(2 * end));
    assert!(!seed.take_news(later).all);
    seed.check_invariants();
}
