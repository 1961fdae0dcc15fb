//! Super-seeding (BEP 16): which pieces each peer of a torrent is told of, so that a seed sends as
//! little as can be until a copy of everything is among the others.
//!
//! Each peer hears of a few pieces that nobody else has or was told of, and of the next when one of
//! them was *passed on*: it has the piece, and so has another. When every piece is out, peers hear
//! of those that are rarest among them.
//!
//! Nobody starves. A peer that is the only one left who lacks something has nobody to pass a piece
//! on to: what it has counts. A peer that gets nowhere for [`PATIENCE`] though we keep nobody
//! waiting, because it does not want what it was told of, or nobody takes it from there, is told of
//! others, of twice as many each time; pieces that it does not fetch are given to others. And when
//! [`SEEDS_ENOUGH`] others have everything, as seen in the last [`SEEDS_REMEMBERED`], the swarm
//! needs no care: all are told of everything.
//!
//! Pure: time is an argument. Whoever drives it tells who comes, goes and has what, asks
//! [`SuperSeed::take_news`] of the peers that [`SuperSeed::take_changed`] names, and calls
//! [`SuperSeed::tick`] about once a second.
//!
//! Limits: a bitfield for each peer, a few words for each piece; a change costs the logarithm of
//! the number of pieces, an offer as many steps as the peer has of the rarest pieces.

mod invariants;

use crate::picker::Bits;
use crate::random::Random;
use crate::time::Time;
use proto::ids::{PeerId, PieceIndex};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

/// Pieces that wait for a peer to pass them on, at first.
pub const WINDOW_MIN: usize = 2;

/// The same of a peer that passes on what it gets: one more for each piece.
pub const WINDOW_MAX: usize = 8;

/// How long a peer may get nowhere before it is told of others.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Pieces that a peer gets of those that it was told of later, from which on one that it does not
/// ask for is given to another.
pub const OVERTAKEN_MAX: u32 = 16;

/// Others that have everything, from which on super-seeding is of no use.
pub const SEEDS_ENOUGH: usize = 2;

/// How long one of them counts after it was last seen: seeds do not stay connected to a seed.
pub const SEEDS_REMEMBERED: Duration = Duration::from_secs(30 * 60);

/// How often it is looked who gets nowhere.
const TICK: Duration = Duration::from_secs(1);

/// A peer, by the number that [`SuperSeed::join`] gave it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SuperKey(pub u64);

/// What a peer is to be told of now.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct News {
    /// These pieces.
    pub pieces: Vec<PieceIndex>,
    /// Everything: it is not super-seeded any more.
    pub all: bool,
}

/// A piece that a peer was told of and that is not passed on yet.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    piece: PieceIndex,
    /// When the peer was told of it, or has last asked for it.
    asked_at: Time,
    /// [`Peer::got`] when it was told of it.
    got: u32,
}

struct Peer {
    id: PeerId,
    /// What it says that it has, and how much that is.
    has: Bits,
    count: u32,
    /// What it was told of.
    told: Bits,
    knows_all: bool,
    waiting: VecDeque<Waiting>,
    /// How many of the pieces that waited for it it has got.
    got: u32,
    window: usize,
    /// How many pieces it was told of when it last got nowhere; 0 since it has passed one on.
    burst: usize,
    /// When it last got on.
    progress_at: Time,
    news: News,
}

/// What is known of a piece.
#[derive(Clone, Copy, Default, Debug)]
struct Spread {
    /// Peers that have it.
    copies: u32,
    /// Peers that were told of it and are expected to get it.
    coming: u32,
    /// Peers among whose [`Peer::waiting`] it is.
    waiting: u32,
}

/// See the module.
pub struct SuperSeed {
    spread: Vec<Spread>,
    /// Pieces that nobody has.
    missing: u32,
    /// The pieces, the rarest first, by [`SuperSeed::rank`].
    order: BTreeSet<(u32, u32, u32)>,
    seed: u64,
    peers: HashMap<SuperKey, Peer>,
    next_key: u64,
    /// Peers that lack something.
    lacking: u32,
    /// Others that have everything, and when each was last seen; no more than are enough.
    seeds: VecDeque<(PeerId, Time)>,
    is_over: bool,
    changed: BTreeSet<SuperKey>,
    ticked_at: Time,
    /// Pieces, and words of 64 of them, that were looked at since the start, to say what peers of
    /// others cost: for tests.
    steps: u64,
}

impl SuperSeed {
    /// Nobody is there yet. `seed` decides which of equally rare pieces come first: two seeds had
    /// better not begin with the same.
    pub fn new(piece_count: u32, seed: u64) -> SuperSeed {
        let mut all = SuperSeed {
            spread: vec![Spread::default(); piece_count as usize],
            missing: piece_count,
            order: BTreeSet::new(),
            seed,
            peers: HashMap::new(),
            next_key: 0,
            lacking: 0,
            seeds: VecDeque::new(),
            is_over: false,
            changed: BTreeSet::new(),
            ticked_at: Time::default(),
            steps: 0,
        };
        all.order = (0..piece_count).map(|piece| all.rank(piece)).collect();
        all
    }

    /// A peer has come, which has nothing as far as is known.
    pub fn join(&mut self, id: PeerId, now: Time) -> SuperKey {
        let key = SuperKey(self.next_key);
        self.next_key += 1;
        let peer = Peer {
            id,
            has: Bits::with_room_for(self.piece_count()),
            count: 0,
            told: Bits::with_room_for(self.piece_count()),
            knows_all: false,
            waiting: VecDeque::new(),
            got: 0,
            window: WINDOW_MIN,
            burst: 0,
            progress_at: now,
            news: News::default(),
        };
        self.peers.insert(key, peer);
        self.lacking += u32::from(self.piece_count() > 0);
        if self.is_over {
            self.tell_all(key);
        }
        self.fill(key, now);
        key
    }

    /// A peer has gone: what it had does not count any more, and what it was told of is for others.
    pub fn leave(&mut self, key: SuperKey, now: Time) {
        let Some(peer) = self.peers.remove(&key) else {
            return;
        };
        self.changed.remove(&key);
        self.lacking -= u32::from(peer.count < self.piece_count());
        for waiting in &peer.waiting {
            let has_it = peer.has.contains(waiting.piece);
            self.stop_waiting(waiting.piece, has_it);
        }
        for piece in peer.has.iter() {
            self.change(piece, |spread| spread.copies -= 1);
        }
        self.settle_all(now);
    }

    /// A peer says that it has a piece.
    pub fn has(&mut self, key: SuperKey, piece: PieceIndex, now: Time) {
        let was_missing = self.missing;
        if !self.gain(key, piece, now) {
            return;
        }
        let peer = self.peers.get(&key);
        let is_complete = peer.is_some_and(|peer| peer.count == self.piece_count());
        if is_complete || (was_missing > 0 && self.missing == 0) {
            self.settle_all(now);
        } else if self.spread_of(piece).waiting > 0 {
            for key in self.keys() {
                let peer = self.peers.get(&key);
                if peer.is_some_and(|peer| peer.waits_for(piece)) {
                    self.settle(key, now);
                }
            }
        }
    }

    /// A peer has said by a bitfield (BEP 3) what it has. Pieces that it does not name any more
    /// stay: what was once out counts, and who says this and that costs nothing.
    pub fn has_these(&mut self, key: SuperKey, bitfield: &[u8], now: Time) {
        if self.lacks_something(key) {
            let pieces = Bits::from_wire(bitfield, self.piece_count());
            self.gain_all(key, &pieces, now);
        }
    }

    /// A peer has everything.
    pub fn has_all(&mut self, key: SuperKey, now: Time) {
        if self.lacks_something(key) {
            self.gain_all(key, &Bits::full(self.piece_count()), now);
        }
    }

    /// It is by us that a peer gets no further: it asks for these pieces, is being sent something,
    /// or `waits` for us to unchoke it. To be told about once a second.
    pub fn serves(&mut self, key: SuperKey, asked: &[PieceIndex], waits: bool, now: Time) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        peer.progress_at = now;
        for waiting in &mut peer.waiting {
            if waits || asked.contains(&waiting.piece) {
                waiting.asked_at = now;
            }
        }
    }

    /// Looks at who gets nowhere, and at which seeds are there. More often than once a second does
    /// nothing.
    pub fn tick(&mut self, now: Time) {
        if now.since(self.ticked_at) < TICK {
            return;
        }
        self.ticked_at = now;
        let count = self.piece_count();
        for key in self.keys() {
            let Some(peer) = self.peers.get(&key) else {
                continue;
            };
            if peer.count == count {
                self.see_seed(peer.id, now);
            } else if now.since(peer.progress_at) >= PATIENCE {
                self.excuse(key, now);
            } else {
                self.take_back(key, now);
            }
        }
        self.seeds
            .retain(|(_, seen)| now.since(*seen) < SEEDS_REMEMBERED);
        self.is_over = self.seeds.len() >= SEEDS_ENOUGH;
        self.settle_all(now);
    }

    /// Peers that there is something to tell, since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<SuperKey> {
        std::mem::take(&mut self.changed)
    }

    /// What a peer is to be told of, since the last call.
    pub fn take_news(&mut self, key: SuperKey) -> News {
        let peer = self.peers.get_mut(&key);
        peer.map_or_else(News::default, |peer| std::mem::take(&mut peer.news))
    }

    /// Whether enough others have everything.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// How many pieces nobody has.
    pub fn missing(&self) -> u32 {
        self.missing
    }

    fn piece_count(&self) -> u32 {
        u32::try_from(self.spread.len()).unwrap_or(u32::MAX)
    }

    /// All peers, in an order that does not depend on chance.
    fn keys(&self) -> Vec<SuperKey> {
        let mut keys: Vec<SuperKey> = self.peers.keys().copied().collect();
        keys.sort_unstable();
        keys
    }

    fn spread_of(&self, piece: PieceIndex) -> Spread {
        let spread = self.spread.get(piece.0 as usize);
        spread.copied().unwrap_or_default()
    }

    /// Where a piece is in the order: whoever is about to get it counts as who has it; of equals
    /// the lot decides.
    fn rank(&self, piece: u32) -> (u32, u32, u32) {
        let spread = self.spread_of(PieceIndex(piece));
        (spread.copies + spread.coming, lot(self.seed, piece), piece)
    }

    fn change(&mut self, piece: PieceIndex, change: impl FnOnce(&mut Spread)) {
        let before = self.rank(piece.0);
        let Some(spread) = self.spread.get_mut(piece.0 as usize) else {
            return;
        };
        self.missing -= u32::from(spread.copies == 0);
        change(spread);
        self.missing += u32::from(spread.copies == 0);
        let rank = self.rank(piece.0);
        if rank != before {
            self.order.remove(&before);
            self.order.insert(rank);
        }
    }

    /// Whether anything that a peer says that it has can be new.
    fn lacks_something(&self, key: SuperKey) -> bool {
        let peer = self.peers.get(&key);
        peer.is_some_and(|peer| peer.count < self.piece_count())
    }

    /// Notes what is new of all that a peer has: the rest costs a step for each word of it.
    fn gain_all(&mut self, key: SuperKey, pieces: &Bits, now: Time) {
        let Some(peer) = self.peers.get(&key) else {
            return;
        };
        let gained: Vec<PieceIndex> = pieces.iter_beyond(&peer.has).collect();
        self.steps += (pieces.words().len() + gained.len()) as u64;
        if gained.is_empty() {
            return;
        }
        for piece in gained {
            self.gain(key, piece, now);
        }
        self.settle_all(now);
    }

    /// Notes that a peer has a piece. False if it was known.
    fn gain(&mut self, key: SuperKey, piece: PieceIndex, now: Time) -> bool {
        let Some(peer) = self.peers.get_mut(&key) else {
            return false;
        };
        if piece.0 as usize >= self.spread.len() || peer.has.contains(piece) {
            return false;
        }
        peer.has.insert(piece);
        peer.count += 1;
        peer.progress_at = now;
        let (id, is_complete) = (peer.id, peer.count as usize == self.spread.len());
        let was_coming = peer.waits_for(piece);
        peer.got += u32::from(was_coming);
        self.change(piece, |spread| {
            spread.copies += 1;
            spread.coming -= u32::from(was_coming);
        });
        if is_complete {
            self.lacking -= 1;
            self.see_seed(id, now);
        }
        true
    }

    /// A piece is not waited for any more by a peer that has it, or has it not.
    fn stop_waiting(&mut self, piece: PieceIndex, has_it: bool) {
        self.change(piece, |spread| {
            spread.waiting -= 1;
            spread.coming -= u32::from(!has_it);
        });
    }

    /// Whether a piece that a peer was told of is passed on: it has it, and so has another, or
    /// nobody else lacks anything.
    fn is_passed_on(&self, peer: &Peer, piece: PieceIndex) -> bool {
        let others_lack = self.lacking > u32::from(peer.count < self.piece_count());
        peer.has.contains(piece) && (self.spread_of(piece).copies > 1 || !others_lack)
    }

    /// Takes out what a peer has passed on, and tells it of others.
    fn settle(&mut self, key: SuperKey, now: Time) {
        let Some(peer) = self.peers.get(&key) else {
            return;
        };
        let waiting = peer.waiting.iter().map(|waiting| waiting.piece);
        let passed: Vec<PieceIndex> = waiting
            .filter(|piece| self.is_passed_on(peer, *piece))
            .collect();
        if let Some(peer) = self.peers.get_mut(&key).filter(|_| !passed.is_empty()) {
            peer.waiting
                .retain(|waiting| !passed.contains(&waiting.piece));
            peer.window = (peer.window + passed.len()).min(WINDOW_MAX);
            peer.burst = 0;
            peer.progress_at = now;
        }
        for piece in passed {
            self.stop_waiting(piece, true);
        }
        self.fill(key, now);
    }

    fn settle_all(&mut self, now: Time) {
        for key in self.keys() {
            if self.is_over {
                self.tell_all(key);
            }
            self.settle(key, now);
        }
    }

    /// A peer got nowhere: nothing that it was told of is waited for any more, and it is told of
    /// twice as many as the last time.
    fn excuse(&mut self, key: SuperKey, now: Time) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        peer.progress_at = now;
        peer.burst = (peer.burst * 2).clamp(WINDOW_MIN, self.spread.len().max(WINDOW_MIN));
        peer.window = WINDOW_MIN;
        let burst = peer.burst;
        self.release(key, |_, _| true);
        // Of any: those that nobody has may all be on their way to others.
        self.offer(key, now, burst, u32::MAX);
    }

    /// Gives those pieces to others that a peer does not ask for, though it has got many others.
    fn take_back(&mut self, key: SuperKey, now: Time) {
        self.release(key, |peer, waiting| {
            let is_overtaken = peer.got - waiting.got >= OVERTAKEN_MAX;
            let is_asked_for = now.since(waiting.asked_at) < PATIENCE;
            !peer.has.contains(waiting.piece) && is_overtaken && !is_asked_for
        });
    }

    /// Waits no more for those pieces that `which` says.
    fn release(&mut self, key: SuperKey, which: impl Fn(&Peer, &Waiting) -> bool) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        let (gone, stay) = peer
            .waiting
            .iter()
            .partition::<VecDeque<Waiting>, _>(|waiting| which(peer, waiting));
        let has = |waiting: &Waiting| (waiting.piece, peer.has.contains(waiting.piece));
        let gone: Vec<_> = gone.iter().map(has).collect();
        peer.waiting = stay;
        for (piece, has_it) in gone {
            self.stop_waiting(piece, has_it);
        }
    }

    /// Tells a peer of as many pieces as may wait for it: as long as some are out nowhere, of those
    /// only that nobody has or gets; then of the rarest.
    fn fill(&mut self, key: SuperKey, now: Time) {
        let waiting = self
            .peers
            .get(&key)
            .map_or(0, |peer| peer.window.saturating_sub(peer.waiting.len()));
        let count_max = if self.missing > 0 { 0 } else { u32::MAX };
        self.offer(key, now, waiting, count_max);
    }

    /// Tells a peer of `number` pieces at most, those that no more than `count_max` have or get.
    fn offer(&mut self, key: SuperKey, now: Time, number: usize, count_max: u32) {
        let Some(peer) = self.peers.get(&key) else {
            return;
        };
        if peer.knows_all || number == 0 {
            return;
        }
        let rarest = self.order.iter();
        let offered: Vec<PieceIndex> = rarest
            .take_while(|(count, _, _)| *count <= count_max)
            .map(|(_, _, piece)| PieceIndex(*piece))
            .filter(|piece| !peer.has.contains(*piece) && !peer.told.contains(*piece))
            .take(number)
            .collect();
        for piece in offered {
            self.change(piece, |spread| {
                spread.coming += 1;
                spread.waiting += 1;
            });
            if let Some(peer) = self.peers.get_mut(&key) {
                peer.told.insert(piece);
                peer.waiting.push_back(Waiting {
                    piece,
                    asked_at: now,
                    got: peer.got,
                });
                peer.news.pieces.push(piece);
            }
            self.changed.insert(key);
        }
    }

    /// Somebody has everything.
    fn see_seed(&mut self, id: PeerId, now: Time) {
        self.seeds.retain(|(known, _)| *known != id);
        self.seeds.push_back((id, now));
        if self.seeds.len() > SEEDS_ENOUGH {
            self.seeds.pop_front();
        }
        self.is_over = self.seeds.len() >= SEEDS_ENOUGH;
    }

    fn tell_all(&mut self, key: SuperKey) {
        self.release(key, |_, _| true);
        if let Some(peer) = self.peers.get_mut(&key).filter(|peer| !peer.knows_all) {
            peer.knows_all = true;
            peer.news.all = true;
            self.changed.insert(key);
        }
    }
}

/// What decides between equally rare pieces.
fn lot(seed: u64, piece: u32) -> u32 {
    (Random::new(seed ^ u64::from(piece)).next_u64() >> 32) as u32
}

impl Peer {
    fn waits_for(&self, piece: PieceIndex) -> bool {
        self.waiting.iter().any(|waiting| waiting.piece == piece)
    }
}

#[cfg(test)]
mod tests;
