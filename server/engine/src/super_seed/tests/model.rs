//! A naive model that counts everything anew each time must tell every peer of the same pieces.

use super::*;
use proptest::prelude::*;

const PIECES: u32 = 24;

/// The same rules, and nothing remembered that can be counted.
struct Model {
    seed: u64,
    peers: BTreeMap<SuperKey, ModelPeer>,
    seeds: Vec<(IpAddr, Time)>,
    is_over: bool,
    ticked_at: Time,
}

struct ModelPeer {
    stranger: IpAddr,
    has: [bool; PIECES as usize],
    told: [bool; PIECES as usize],
    complete_at: Option<Time>,
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
    fn new(stranger: IpAddr, now: Time) -> ModelPeer {
        ModelPeer {
            stranger,
            has: Default::default(),
            told: Default::default(),
            complete_at: None,
            waiting: Vec::new(),
            got: 0,
            window: WINDOW_MIN,
            burst: 0,
            progress_at: now,
            news: News::default(),
            knows_all: false,
        }
    }

    fn is_complete(&self) -> bool {
        self.has.iter().all(|has| *has)
    }

    fn known(&self, piece: usize) -> bool {
        self.has[piece] || self.told[piece]
    }
}

impl Model {
    fn keys(&self) -> Vec<SuperKey> {
        self.peers.keys().copied().collect()
    }

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
        let peer = &self.peers[&key];
        let known_count = (0..PIECES as usize).filter(|piece| peer.known(*piece));
        let lot = key.0.rotate_left(32) ^ known_count.count() as u64;
        let start = Random::new(self.seed ^ lot).below(u64::from(PIECES));
        let around = (0..PIECES as usize).map(|index| (start as usize + index) % PIECES as usize);
        let mut allowed: Vec<usize> = around
            .filter(|piece| !peer.knows_all && !peer.known(*piece))
            .filter(|piece| any || self.count(*piece) == 0)
            .collect();
        if any {
            allowed.sort_by_key(|piece| self.count(*piece));
        }
        for piece in allowed.into_iter().take(number) {
            let peer = self.peers.get_mut(&key).unwrap();
            peer.told[piece] = true;
            peer.waiting.push((piece, now, peer.got));
            peer.news.pieces.push(PieceIndex(piece as u32));
        }
    }

    fn fill(&mut self, key: SuperKey, now: Time) {
        let peer = &self.peers[&key];
        let room = peer.window.saturating_sub(peer.waiting.len());
        let any = (0..PIECES as usize).all(|piece| self.copies(piece) > 0);
        self.offer(key, now, room, any);
    }

    /// Takes out what is passed on, and has those told of others, and `also`.
    fn settle(&mut self, also: Option<SuperKey>, now: Time) {
        let lacking = self.peers.values().filter(|peer| !peer.is_complete());
        let is_alone = lacking.count() <= 1;
        let copies: Vec<usize> = (0..PIECES as usize)
            .map(|piece| self.copies(piece))
            .collect();
        let mut settled: BTreeSet<SuperKey> = also.into_iter().collect();
        for (key, peer) in &mut self.peers {
            if peer.is_complete() {
                peer.waiting.clear();
            }
            let before = peer.waiting.len();
            let has = peer.has;
            peer.waiting
                .retain(|(piece, _, _)| !(has[*piece] && (is_alone || copies[*piece] > 1)));
            let passed = before - peer.waiting.len();
            if passed > 0 {
                peer.window = (peer.window + passed).min(WINDOW_MAX);
                peer.burst = 0;
                peer.progress_at = now;
                settled.insert(*key);
            }
        }
        for key in settled {
            self.fill(key, now);
        }
    }

    fn have(&mut self, key: SuperKey, pieces: &[usize], now: Time) {
        let peer = self.peers.get_mut(&key).unwrap();
        let mut is_new = false;
        for piece in pieces {
            if std::mem::replace(&mut peer.has[*piece], true) {
                continue;
            }
            is_new = true;
            peer.progress_at = now;
            let waits = peer.waiting.iter();
            peer.got += waits.filter(|(waiting, _, _)| waiting == piece).count() as u32;
            if peer.is_complete() {
                peer.complete_at = Some(now);
            }
        }
        if is_new {
            self.settle(Some(key), now);
        }
    }

    fn see(&mut self, stranger: IpAddr, now: Time) {
        self.seeds.retain(|(known, _)| *known != stranger);
        self.seeds.push((stranger, now));
        if self.seeds.len() > SEEDS_ENOUGH {
            self.seeds.remove(0);
        }
    }

    fn tick(&mut self, now: Time) {
        if now.since(self.ticked_at) < TICK {
            return;
        }
        self.ticked_at = now;
        for key in self.keys() {
            let peer = self.peers.get_mut(&key).unwrap();
            if let Some(complete_at) = peer.complete_at {
                let stranger = peer.stranger;
                if now.since(complete_at) >= SEED_STAYS {
                    self.see(stranger, now);
                }
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
        for key in self.keys() {
            self.look_at_end(key);
            self.fill(key, now);
        }
    }

    fn look_at_end(&mut self, key: SuperKey) {
        let peer = self.peers.get_mut(&key).unwrap();
        if self.is_over {
            peer.waiting.clear();
            peer.news.all |= !peer.knows_all;
            peer.knows_all = true;
        }
    }

    fn join(&mut self, key: SuperKey, stranger: IpAddr, now: Time) {
        self.peers.insert(key, ModelPeer::new(stranger, now));
        self.look_at_end(key);
        self.fill(key, now);
    }

    fn serves(&mut self, key: SuperKey, asked: usize, waits: bool, now: Time) {
        let peer = self.peers.get_mut(&key).unwrap();
        peer.progress_at = now;
        for (waiting, asked_at, _) in &mut peer.waiting {
            if waits || *waiting == asked {
                *asked_at = now;
            }
        }
    }
}

/// Something that a peer does.
fn act(seed: &mut SuperSeed, model: &mut Model, random: &mut Random, now: Time) {
    let all = 0..PIECES as usize;
    let keys = model.keys();
    let piece = random.below(u64::from(PIECES)) as usize;
    let somebody = random.below(keys.len().max(1) as u64) as usize;
    match (random.below(20), keys.get(somebody)) {
        (0..2, _) => {
            let stranger = id(random.below(9) as u8);
            let key = seed.join(stranger, now);
            model.join(key, stranger, now);
        }
        (2, Some(&key)) => {
            seed.leave(key, now);
            model.peers.remove(&key);
            model.settle(None, now);
        }
        (3, Some(&key)) if piece == 0 => {
            seed.has_all(key, now);
            model.have(key, &all.collect::<Vec<_>>(), now);
        }
        (3, Some(&key)) => {
            let bits = (random.next_u64() as u32 & random.next_u64() as u32).to_be_bytes();
            seed.has_these(key, &bits[..3], now);
            let bit = |piece: &usize| bits[piece / 8] & (0x80 >> (piece % 8)) != 0;
            model.have(key, &all.filter(bit).collect::<Vec<_>>(), now);
        }
        (4..7, _) => {
            seed.tick(now);
            model.tick(now);
        }
        (12..14, Some(&key)) => {
            let waits = random.below(2) == 0;
            seed.serves(key, &[PieceIndex(piece as u32)], waits, now);
            model.serves(key, piece, waits, now);
        }
        (kind, Some(&key)) => {
            // Most fetch what they were told of.
            let told = |piece: &usize| kind < 12 && model.peers[&key].told[*piece];
            let told: Vec<usize> = all.filter(told).collect();
            let piece = told
                .get(piece % told.len().max(1))
                .copied()
                .unwrap_or(piece);
            seed.has(key, PieceIndex(piece as u32), now);
            model.have(key, &[piece], now);
        }
        _ => {}
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
            act(&mut seed, &mut model, &mut random, at(now_ms));
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
