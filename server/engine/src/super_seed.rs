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
//! Cost, whatever peers do: a piece that is new costs O(1) when its peer says so and when it goes,
//! a bitfield a step for each word of it beside; to have everything is one number. What concerns
//! all peers, such as what another has given back, is done with the next tick. Looking for pieces
//! to tell of walks words of a bitfield and [`SAMPLE`] pieces; for who was told of everything,
//! nothing.
//!
//! Limits: [`SuperSeed::memory_bytes`], and [`SuperSeed::peer_memory_bytes_max`] for each peer, of
//! which no more than [`TOLD_AT_ONCE_MAX`] pieces wait.

mod invariants;
mod seeds;
mod spread;
mod telling;

use crate::picker::Bits;
use crate::time::Time;
use proto::ids::PieceIndex;
use seeds::Seeds;
use spread::Spread;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

/// Pieces that wait for a peer to pass them on, at first.
pub const WINDOW_MIN: usize = 2;

/// The same of a peer that passes on what it gets: one more for each piece.
pub const WINDOW_MAX: usize = 8;

/// How long a peer may get nowhere before it is told of others.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Pieces that a peer who gets nowhere is told of in a second, and that wait for one peer at most.
/// One that does not read what it is told is told of no more than these.
pub const TOLD_AT_ONCE_MAX: usize = 128;

/// Pieces among which the rarest are looked for, from a place that the lot decides: twice as many
/// as are to be told of, but no less than these.
pub const SAMPLE: usize = 256;

/// Pieces that a peer gets of those that it was told of later, from which on one that it does not
/// ask for is given to another.
pub const OVERTAKEN_MAX: u32 = 16;

/// Others that have everything, from which on super-seeding is of no use.
pub const SEEDS_ENOUGH: usize = 2;

/// How long one of them must have been there. Less than what a session leaves to two seeds: see
/// [`SessionConfig::redundant_grace`](crate::session::SessionConfig::redundant_grace).
pub const SEED_STAYS: Duration = Duration::from_secs(5);

/// How long one of them counts after it was last seen: seeds do not stay connected to a seed.
pub const SEEDS_REMEMBERED: Duration = Duration::from_secs(30 * 60);

/// How often it is looked who gets nowhere.
const TICK: Duration = Duration::from_secs(1);

/// A piece that waits: its place in the peer's map, that of who has it alone, in the news, and in
/// what the session keeps, in bytes, when maps have just grown.
const WAITING_BYTES: usize = 128;

/// A peer beside its bitfields and what waits, in bytes.
const PEER_BYTES: usize = 2 << 10;

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
    /// When the peer was told of it, or has last asked for it.
    asked_at: Time,
    /// [`Peer::got`] when it was told of it.
    got: u32,
}

struct Peer {
    /// Where it is: what one host can have at will is one.
    stranger: IpAddr,
    /// What it says that it has, and how much that is. No bits of one that has everything.
    has: Bits,
    count: u32,
    /// What it has or was told of, and how much that is. No bits of one that has everything.
    known: Bits,
    known_count: u32,
    /// Since when it has everything.
    complete_at: Option<Time>,
    knows_all: bool,
    /// No more than [`TOLD_AT_ONCE_MAX`].
    waiting: BTreeMap<PieceIndex, Waiting>,
    /// How many of the pieces that waited for it it has got.
    got: u32,
    window: usize,
    /// How many pieces it was told of when it last got nowhere; 0 since it has passed one on.
    burst: usize,
    /// Of how many of these it was not told yet.
    owed: usize,
    /// When it last got on.
    progress_at: Time,
    /// No more than [`TOLD_AT_ONCE_MAX`] pieces.
    news: News,
}

/// See the module.
pub struct SuperSeed {
    piece_count: u32,
    seed: u64,
    spread: Spread,
    peers: HashMap<SuperKey, Peer>,
    next_key: u64,
    /// Peers that lack something.
    lacking: BTreeSet<SuperKey>,
    /// Pieces that wait for a peer who alone has them: by the next who gets one it is passed on.
    alone: HashMap<PieceIndex, SuperKey>,
    seeds: Seeds,
    is_over: bool,
    changed: BTreeSet<SuperKey>,
    ticked_at: Time,
    /// Pieces, words of 64 of them, and peers that were looked at since the start, to say what
    /// peers cost: for tests.
    steps: u64,
}

impl SuperSeed {
    /// Nobody is there yet. `seed` decides where the search for pieces begins: two seeds had better
    /// not begin with the same.
    pub fn new(piece_count: u32, seed: u64) -> SuperSeed {
        SuperSeed {
            piece_count,
            seed,
            spread: Spread::default(),
            peers: HashMap::new(),
            next_key: 0,
            lacking: BTreeSet::new(),
            alone: HashMap::new(),
            seeds: Seeds::default(),
            is_over: false,
            changed: BTreeSet::new(),
            ticked_at: Time::default(),
            steps: 0,
        }
    }

    /// What it takes at most while peers are there, beside them, in bytes.
    pub const fn memory_bytes(piece_count: u32) -> usize {
        Spread::memory_bytes(piece_count) + size_of::<SuperSeed>()
    }

    /// What one peer takes at most, in bytes, with what its session keeps for this.
    pub const fn peer_memory_bytes_max(piece_count: u32) -> usize {
        // What it has, what it knows, and that once more in the session.
        3 * Bits::memory_bytes(piece_count) + TOLD_AT_ONCE_MAX * WAITING_BYTES + PEER_BYTES
    }

    /// A peer has come, which has nothing as far as is known. `stranger` is its address, or what
    /// stands for all that one host can have.
    pub fn join(&mut self, stranger: IpAddr, now: Time) -> SuperKey {
        let key = SuperKey(self.next_key);
        self.next_key += 1;
        if self.peers.is_empty() {
            self.spread = Spread::new(self.piece_count);
            self.steps += self.spread.free().words().len() as u64;
        }
        let peer = Peer {
            stranger,
            has: Bits::with_room_for(self.piece_count),
            count: 0,
            known: Bits::with_room_for(self.piece_count),
            known_count: 0,
            complete_at: None,
            knows_all: false,
            waiting: BTreeMap::new(),
            got: 0,
            window: WINDOW_MIN,
            burst: 0,
            owed: 0,
            progress_at: now,
            news: News::default(),
        };
        self.peers.insert(key, peer);
        if self.piece_count > 0 {
            self.lacking.insert(key);
        }
        if self.is_over {
            self.tell_all(key);
        }
        self.fill(key, now);
        key
    }

    /// A peer has gone: what it had does not count any more, and what it was told of is for others,
    /// who hear of it with the next tick.
    pub fn leave(&mut self, key: SuperKey, now: Time) {
        self.release(key, |_, _, _| true);
        let Some(peer) = self.peers.remove(&key) else {
            return;
        };
        self.changed.remove(&key);
        self.lacking.remove(&key);
        if peer.complete_at.is_some() {
            self.spread.remove_complete();
        }
        self.steps += u64::from(peer.has.count());
        for piece in peer.has.iter() {
            self.spread.remove_copy(piece);
        }
        if self.peers.is_empty() {
            self.spread = Spread::default();
        }
        self.settle_last(now);
    }

    /// A peer says that it has a piece.
    pub fn has(&mut self, key: SuperKey, piece: PieceIndex, now: Time) {
        self.steps += 1;
        let peer = self.peers.get(&key);
        let is_new = peer.is_some_and(|peer| peer.lacks_anything() && !peer.has.contains(piece));
        if is_new && piece.0 < self.piece_count {
            self.gain(key, &[piece], now);
        }
    }

    /// A peer has said by a bitfield (BEP 3) what it has. Pieces that it does not name any more
    /// stay: what was once out counts, and who says this and that costs nothing.
    pub fn has_these(&mut self, key: SuperKey, bitfield: &[u8], now: Time) {
        let Some(peer) = self.peers.get(&key).filter(|peer| peer.lacks_anything()) else {
            return;
        };
        let pieces = Bits::from_wire(bitfield, self.piece_count);
        let gained: Vec<PieceIndex> = pieces.iter_beyond(&peer.has).collect();
        self.steps += pieces.words().len() as u64;
        if !gained.is_empty() {
            self.gain(key, &gained, now);
        }
    }

    /// A peer has everything.
    pub fn has_all(&mut self, key: SuperKey, now: Time) {
        let peer = self.peers.get(&key);
        if self.piece_count > 0 && peer.is_some_and(Peer::lacks_anything) {
            self.complete(key, now);
        }
    }

    /// It is by us that a peer gets no further: it asks for these pieces, which are in order, is
    /// being sent something, or `waits` for us to unchoke it. To be told about once a second.
    pub fn serves(&mut self, key: SuperKey, asked: &[PieceIndex], waits: bool, now: Time) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        peer.progress_at = now;
        for (piece, waiting) in &mut peer.waiting {
            if waits || asked.binary_search(piece).is_ok() {
                waiting.asked_at = now;
            }
        }
    }

    /// Looks at who gets nowhere, and at which seeds are there, and tells all of what came free.
    /// More often than once a second does nothing.
    pub fn tick(&mut self, now: Time) {
        if now.since(self.ticked_at) < TICK {
            return;
        }
        self.ticked_at = now;
        let keys = self.keys();
        for key in &keys {
            let Some(peer) = self.peers.get(key) else {
                continue;
            };
            self.steps += 1 + peer.waiting.len() as u64;
            if let Some(complete_at) = peer.complete_at {
                self.seeds.see(peer.stranger, complete_at, now);
            } else if peer.knows_all {
                continue;
            } else if now.since(peer.progress_at) >= PATIENCE {
                self.excuse(*key, now);
            } else if peer.owed > 0 {
                self.tell_owed(*key, now);
            } else {
                self.take_back(*key, now);
            }
        }
        self.seeds.forget(now);
        self.is_over = self.seeds.are_enough();
        for key in keys {
            match self.is_over {
                true => self.tell_all(key),
                false => self.fill(key, now),
            }
        }
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

    /// Whether nobody is there.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// How many pieces nobody has.
    pub fn missing(&self) -> u32 {
        self.spread.missing(self.piece_count)
    }

    /// All peers, in an order that does not depend on chance.
    fn keys(&self) -> Vec<SuperKey> {
        let mut keys: Vec<SuperKey> = self.peers.keys().copied().collect();
        keys.sort_unstable();
        keys
    }

    /// Notes that a peer has pieces, which are in order, and which it did not have.
    fn gain(&mut self, key: SuperKey, gained: &[PieceIndex], now: Time) {
        self.steps += gained.len() as u64;
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        // A torrent has at most 2^21 pieces.
        if peer.count as usize + gained.len() == self.piece_count as usize {
            return self.complete(key, now);
        }
        peer.count += gained.len() as u32;
        peer.progress_at = now;
        for piece in gained {
            peer.has.insert(*piece);
            peer.know(*piece);
            self.spread.add_copy(*piece);
        }
        // Those that waited for it are few, or it has said few.
        let waiting = peer.waiting.keys();
        let mine = waiting.filter(|piece| gained.binary_search(piece).is_ok());
        let mine: Vec<PieceIndex> = mine.copied().collect();
        peer.got += mine.len() as u32;
        let mut passed = BTreeSet::from([key]);
        for piece in self.others_alone_with(gained) {
            passed.extend(self.pass_on(piece, now));
        }
        for piece in mine {
            self.spread.expect_no_more(piece);
            self.alone.insert(piece, key);
            if self.spread.copies(piece) > 1 || self.lacking.len() == 1 {
                self.pass_on(piece, now);
            }
        }
        for key in passed {
            self.fill(key, now);
        }
    }

    /// Which of these pieces wait for one who had them alone. No more steps than there are of
    /// either.
    fn others_alone_with(&self, gained: &[PieceIndex]) -> Vec<PieceIndex> {
        let is_alone = |piece: &&PieceIndex| self.alone.contains_key(piece);
        let is_gained = |piece: &&PieceIndex| gained.binary_search(piece).is_ok();
        let mut theirs: Vec<PieceIndex> = match gained.len() <= self.alone.len() {
            true => gained.iter().filter(is_alone).copied().collect(),
            false => self.alone.keys().filter(is_gained).copied().collect(),
        };
        theirs.sort_unstable();
        theirs
    }

    /// A peer has everything: nothing waits for it, and whatever another has is passed on.
    fn complete(&mut self, key: SuperKey, now: Time) {
        self.release(key, |_, _, _| true);
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        peer.complete_at = Some(now);
        let has = std::mem::take(&mut peer.has);
        self.steps += u64::from(peer.count);
        peer.known = Bits::default();
        (peer.count, peer.known_count) = (self.piece_count, self.piece_count);
        for piece in has.iter() {
            self.spread.remove_copy(piece);
        }
        self.spread.add_complete();
        self.lacking.remove(&key);
        self.pass_on_all(now);
    }

    /// Where one peer alone is left who lacks something, it has nobody to pass anything on to.
    fn settle_last(&mut self, now: Time) {
        if self.lacking.len() == 1 {
            self.pass_on_all(now);
        }
    }

    /// All that waits for one who has it alone is passed on.
    fn pass_on_all(&mut self, now: Time) {
        let mut pieces: Vec<PieceIndex> = self.alone.keys().copied().collect();
        pieces.sort_unstable();
        let passed: BTreeSet<SuperKey> = pieces
            .into_iter()
            .filter_map(|piece| self.pass_on(piece, now))
            .collect();
        for key in passed {
            self.fill(key, now);
        }
    }

    /// A piece is passed on by who had it alone: it may be told of more than before. Says who that
    /// is.
    fn pass_on(&mut self, piece: PieceIndex, now: Time) -> Option<SuperKey> {
        self.steps += 1;
        let key = self.alone.remove(&piece)?;
        let peer = self.peers.get_mut(&key)?;
        peer.waiting.remove(&piece);
        peer.window = (peer.window + 1).min(WINDOW_MAX);
        (peer.burst, peer.owed) = (0, 0);
        peer.progress_at = now;
        Some(key)
    }
}

impl Peer {
    fn lacks_anything(&self) -> bool {
        self.complete_at.is_none()
    }

    /// It has a piece, or is told of it.
    fn know(&mut self, piece: PieceIndex) {
        self.known_count += u32::from(!self.known.contains(piece));
        self.known.insert(piece);
    }
}

#[cfg(test)]
mod tests;
