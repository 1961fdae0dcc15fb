//! A naive model that counts everything anew each time must tell every peer of the same pieces.

use super::*;
use crate::random::Random;
use proptest::prelude::*;
use std::collections::BTreeMap;

const PIECES: u32 = 24;

fn at(ms: u64) -> Time {
    Time(1_000_000_000 + ms * 1_000_000)
}

fn id(number: u8) -> PeerId {
    PeerId([number; 20])
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
        assert_eq!(
            seed.spread_of(PieceIndex(unwanted)).coming,
            1,
            "it got {got}"
        );
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
    assert_eq!(seed.spread_of(PieceIndex(unwanted)).coming, 1, "not yet");
    seed.tick(at(21_000));
    assert_eq!(seed.spread_of(PieceIndex(unwanted)).coming, 0);
}

#[test]
fn whom_we_keep_waiting_is_told_of_no_more_for_that() {
    for (asked, waits) in [(true, false), (false, true), (false, false)] {
        let mut seed = SuperSeed::new(100, 6);
        let one = seed.join(id(1), at(0));
        seed.join(id(2), at(0));
        let mine: Vec<_> = news(&mut seed, one).into_iter().map(PieceIndex).collect();
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
    let mut seed = SuperSeed::new(3, 5);
    let leecher = seed.join(id(1), at(0));
    let one = seed.join(id(2), at(0));
    seed.has_all(one, at(0));
    assert!(!seed.is_over() && !seed.take_news(leecher).all);
    // The same one by another connection is none more.
    let again = seed.join(id(2), at(1));
    seed.has_all(again, at(1));
    assert!(!seed.is_over());
    let two = seed.join(id(3), at(2));
    seed.has_these(two, &[0b1110_0000], at(2));
    assert!(seed.is_over());
    assert!(
        seed.take_news(leecher).all,
        "who is there is told of everything"
    );
    let late = seed.join(id(4), at(3));
    assert_eq!(
        seed.take_news(late),
        News {
            pieces: vec![],
            all: true
        }
    );
    for gone in [one, again, two] {
        seed.leave(gone, at(1000));
    }
    let end = SEEDS_REMEMBERED.as_millis() as u64;
    seed.tick(at(end + 1));
    assert!(!seed.is_over(), "the first was seen no more for so long");
    let later = seed.join(id(5), at(end + 1));
    assert!(!seed.take_news(later).all);
    seed.check_invariants();
}

/// Whoever says again what it has, or takes something back and says it anew, costs next to nothing.
#[test]
fn what_a_peer_says_again_costs_a_step_for_each_word_of_it_at_most() {
    const MANY: u32 = 50_000;
    let mut seed = SuperSeed::new(MANY, 8);
    let one = seed.join(id(1), at(0));
    seed.join(id(2), at(0));
    let lacks_one = [vec![0xfe], vec![0xff; MANY as usize / 8 - 1]].concat();
    seed.has_these(one, &lacks_one, at(1));
    assert_eq!(seed.peers[&one].count, MANY - 1);
    let before = seed.steps;
    for _ in 0..100 {
        seed.has_these(one, &lacks_one, at(2));
        seed.has_these(one, &[0x80], at(2));
        seed.has(one, PieceIndex(0), at(2));
    }
    let words = u64::from(MANY.div_ceil(64));
    assert!(seed.steps - before <= 200 * words, "{}", seed.steps);
    seed.has_all(one, at(3));
    let before = seed.steps;
    for _ in 0..1_000 {
        seed.has_all(one, at(4));
        seed.has_these(one, &lacks_one, at(4));
    }
    assert_eq!(seed.steps, before, "it has everything");
    assert_eq!(seed.missing(), 0);
}

/// The same rules, and nothing remembered that can be counted.
struct Model {
    seed: u64,
    peers: BTreeMap<SuperKey, ModelPeer>,
    seeds: Vec<(PeerId, Time)>,
    is_over: bool,
    ticked_at: Time,
}

struct ModelPeer {
    id: PeerId,
    has: [bool; PIECES as usize],
    told: [bool; PIECES as usize],
    /// The piece, when it was asked for, and how many it had got when it was told of it.
    waiting: Vec<(usize, Time, u32)>,
    got: u32,
    window: usize,
    burst: usize,
    progress_at: Time,
    news: News,
    knows_all: bool,
}

impl ModelPeer {
    fn is_complete(&self) -> bool {
        self.has.iter().all(|has| *has)
    }
}

impl Model {
    fn copies(&self, piece: usize) -> usize {
        self.peers.values().filter(|peer| peer.has[piece]).count()
    }

    fn count(&self, piece: usize) -> usize {
        let coming = |peer: &&ModelPeer| {
            !peer.has[piece] && peer.waiting.iter().any(|(waiting, _, _)| *waiting == piece)
        };
        self.copies(piece) + self.peers.values().filter(coming).count()
    }

    fn offer(&mut self, key: SuperKey, now: Time, number: usize, any: bool) {
        for _ in 0..number {
            let pieces = 0..PIECES as usize;
            let peer = &self.peers[&key];
            let allowed = pieces.filter(|piece| !peer.has[*piece] && !peer.told[*piece]);
            let allowed = allowed.filter(|piece| any || self.count(*piece) == 0);
            let best =
                allowed.min_by_key(|piece| (self.count(*piece), lot(self.seed, *piece as u32)));
            let Some(piece) = best.filter(|_| !peer.knows_all) else {
                return;
            };
            let peer = self.peers.get_mut(&key).unwrap();
            peer.told[piece] = true;
            peer.waiting.push((piece, now, peer.got));
            peer.news.pieces.push(PieceIndex(piece as u32));
        }
    }

    fn settle_all(&mut self, now: Time) {
        let keys: Vec<SuperKey> = self.peers.keys().copied().collect();
        for key in keys {
            let lacking = self
                .peers
                .values()
                .filter(|peer| !peer.is_complete())
                .count();
            let peer = &self.peers[&key];
            let is_alone = lacking <= usize::from(!peer.is_complete());
            let stays = |piece: usize| !(peer.has[piece] && (is_alone || self.copies(piece) > 1));
            let kept: Vec<_> = peer
                .waiting
                .iter()
                .copied()
                .filter(|(piece, _, _)| stays(*piece))
                .collect();
            let is_over = self.is_over;
            let peer = self.peers.get_mut(&key).unwrap();
            if is_over {
                peer.waiting.clear();
                peer.news.all |= !peer.knows_all;
                peer.knows_all = true;
            } else if kept.len() < peer.waiting.len() {
                peer.window = (peer.window + peer.waiting.len() - kept.len()).min(WINDOW_MAX);
                peer.burst = 0;
                peer.progress_at = now;
                peer.waiting = kept;
            }
            let room = peer.window.saturating_sub(peer.waiting.len());
            let any = (0..PIECES as usize).all(|piece| self.copies(piece) > 0);
            self.offer(key, now, room, any);
        }
    }

    fn see(&mut self, id: PeerId, now: Time) {
        self.seeds.retain(|(known, _)| *known != id);
        self.seeds.push((id, now));
        if self.seeds.len() > SEEDS_ENOUGH {
            self.seeds.remove(0);
        }
        self.is_over = self.seeds.len() == SEEDS_ENOUGH;
    }

    fn have(&mut self, key: SuperKey, pieces: &[usize], now: Time) {
        for piece in pieces {
            let peer = self.peers.get_mut(&key).unwrap();
            if std::mem::replace(&mut peer.has[*piece], true) {
                continue;
            }
            peer.progress_at = now;
            let waits = peer.waiting.iter();
            peer.got += waits.filter(|(waiting, _, _)| waiting == piece).count() as u32;
            if peer.is_complete() {
                let id = peer.id;
                self.see(id, now);
            }
        }
        self.settle_all(now);
    }

    fn tick(&mut self, now: Time) {
        if now.since(self.ticked_at) < TICK {
            return;
        }
        self.ticked_at = now;
        let keys: Vec<SuperKey> = self.peers.keys().copied().collect();
        for key in keys {
            let peer = self.peers.get_mut(&key).unwrap();
            if peer.is_complete() {
                let id = peer.id;
                self.see(id, now);
            } else if now.since(peer.progress_at) >= PATIENCE {
                peer.progress_at = now;
                peer.burst = (peer.burst * 2).clamp(WINDOW_MIN, PIECES as usize);
                peer.window = WINDOW_MIN;
                peer.waiting.clear();
                let burst = peer.burst;
                self.offer(key, now, burst, true);
            } else {
                let (has, got) = (peer.has, peer.got);
                peer.waiting.retain(|(piece, asked_at, then)| {
                    let is_asked_for = now.since(*asked_at) < PATIENCE;
                    has[*piece] || got - then < OVERTAKEN_MAX || is_asked_for
                });
            }
        }
        self.seeds
            .retain(|(_, seen)| now.since(*seen) < SEEDS_REMEMBERED);
        self.is_over = self.seeds.len() >= SEEDS_ENOUGH;
        self.settle_all(now);
    }
}

proptest! {
    #[test]
    fn it_tells_what_a_naive_model_tells(chance in any::<u64>(), steps in 1..400_usize) {
        let mut random = Random::new(chance);
        let mut seed = SuperSeed::new(PIECES, chance);
        let mut model = Model {
            seed: chance,
            peers: BTreeMap::new(),
            seeds: Vec::new(),
            is_over: false,
            ticked_at: Time::default(),
        };
        let mut now_ms = 0;
        for _ in 0..steps {
            now_ms += random.below(1500);
            let now = at(now_ms);
            let keys: Vec<SuperKey> = model.peers.keys().copied().collect();
            let piece = random.below(u64::from(PIECES)) as usize;
            let somebody = random.below(keys.len().max(1) as u64) as usize;
            match (random.below(20), keys.get(somebody)) {
                (0..2, _) => {
                    let id = id(random.below(9) as u8);
                    let key = seed.join(id, now);
                    let peer = ModelPeer {
                        id,
                        has: Default::default(),
                        told: Default::default(),
                        waiting: Vec::new(),
                        got: 0,
                        window: WINDOW_MIN,
                        burst: 0,
                        progress_at: now,
                        news: News::default(),
                        knows_all: false,
                    };
                    model.peers.insert(key, peer);
                    model.settle_all(now);
                }
                (2, Some(&key)) => {
                    seed.leave(key, now);
                    model.peers.remove(&key);
                    model.settle_all(now);
                }
                (3, Some(&key)) => {
                    let bits = (random.next_u64() as u32 & random.next_u64() as u32).to_be_bytes();
                    seed.has_these(key, &bits[..3], now);
                    let bit = |piece: usize| bits[piece / 8] & (0x80 >> (piece % 8)) != 0;
                    let pieces = (0..PIECES as usize).filter(|piece| bit(*piece));
                    let pieces: Vec<usize> = pieces.collect();
                    model.have(key, &pieces, now);
                }
                (4..7, _) => {
                    seed.tick(now);
                    model.tick(now);
                }
                (12..14, Some(&key)) => {
                    let waits = random.below(2) == 0;
                    seed.serves(key, &[PieceIndex(piece as u32)], waits, now);
                    let peer = model.peers.get_mut(&key).unwrap();
                    peer.progress_at = now;
                    for (waiting, asked_at, _) in &mut peer.waiting {
                        if waits || *waiting == piece {
                            *asked_at = now;
                        }
                    }
                }
                (7..12, Some(&key)) => {
                    // Most fetch what they were told of.
                    let told: Vec<usize> = (0..PIECES as usize)
                        .filter(|piece| model.peers[&key].told[*piece])
                        .collect();
                    let piece = told.get(piece % told.len().max(1)).copied().unwrap_or(piece);
                    seed.has(key, PieceIndex(piece as u32), now);
                    model.have(key, &[piece], now);
                }
                (_, Some(&key)) => {
                    seed.has(key, PieceIndex(piece as u32), now);
                    model.have(key, &[piece], now);
                }
                _ => {}
            }
            seed.check_invariants();
            let changed = seed.take_changed();
            prop_assert_eq!(seed.is_over(), model.is_over);
            for (key, peer) in &mut model.peers {
                let expected = std::mem::take(&mut peer.news);
                let told = seed.take_news(*key);
                prop_assert_eq!(changed.contains(key), expected != News::default());
                prop_assert_eq!(told, expected);
            }
        }
    }
}
