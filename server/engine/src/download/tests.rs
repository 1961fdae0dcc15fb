//! A world of peers around one download: they answer, choke, come, go, keep silent and lie, in
//! virtual time.

use super::*;
use crate::random::Random;
use proto::limits::BLOCK_LENGTH;
use std::collections::HashSet;
use std::time::Duration;

const PIECE: u32 = 4 * BLOCK_LENGTH;

/// Twenty pieces, the last of them shorter by a block and a half.
const LENGTH: u64 = 20 * PIECE as u64 - 3 * BLOCK_LENGTH as u64 / 2;

#[derive(Default)]
struct Peer {
    has: HashSet<u32>,
    lies: bool,
    fast: bool,
    chokes: bool,
    /// Requests that it has not answered, in order.
    queue: Vec<BlockRequest>,
    interested: bool,
}

struct World {
    download: Download,
    random: Random,
    now: Time,
    peers: HashMap<PeerKey, Peer>,
    next_peer: u64,
    /// Who sent which block of a piece that is not stored, and whether they were the right bytes.
    received: HashMap<BlockRequest, (PeerKey, bool)>,
    to_check: Vec<PieceIndex>,
    to_store: Vec<PieceIndex>,
    announced: HashSet<u32>,
    banned: HashSet<PeerKey>,
    liars: HashSet<PeerKey>,
    requests: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let layout = StorageLayout::new(&[(LENGTH, false)], PIECE).unwrap();
        let config = DownloadConfig {
            unstored_bytes_max: 3 * u64::from(PIECE),
            ..DownloadConfig::default()
        };
        World {
            download: Download::new(config, &layout, PeerPieces::None, seed),
            random: Random::new(seed),
            now: Time::default() + Duration::from_secs(1),
            peers: HashMap::new(),
            next_peer: 0,
            received: HashMap::new(),
            to_check: Vec::new(),
            to_store: Vec::new(),
            announced: HashSet::new(),
            banned: HashSet::new(),
            liars: HashSet::new(),
            requests: 0,
        }
    }

    fn join(&mut self, has: impl Iterator<Item = u32>, lies: bool, fast: bool) -> PeerKey {
        let key = PeerKey(self.next_peer);
        self.next_peer += 1;
        let has: HashSet<u32> = has.collect();
        let mut bits = [0; 3];
        for piece in &has {
            bits[*piece as usize / 8] |= 0x80 >> (piece % 8);
        }
        let pieces = match has.len() {
            20 => PeerPieces::All,
            0 => PeerPieces::None,
            _ => PeerPieces::Bitfield(&bits),
        };
        self.download.peer_joined(key, fast, pieces);
        if lies {
            self.liars.insert(key);
        }
        let peer = Peer {
            has,
            lies,
            fast,
            chokes: true,
            ..Peer::default()
        };
        self.peers.insert(key, peer);
        self.settle();
        key
    }

    fn leave(&mut self, key: PeerKey) {
        self.peers.remove(&key);
        self.download.peer_left(key);
        self.settle();
    }

    fn set_choking(&mut self, key: PeerKey, chokes: bool) {
        let peer = self.peers.get_mut(&key).unwrap();
        peer.chokes = chokes;
        let rejected = match (chokes, peer.fast) {
            (true, true) => std::mem::take(&mut peer.queue),
            (true, false) => {
                peer.queue.clear();
                Vec::new()
            }
            (false, _) => Vec::new(),
        };
        match chokes {
            true => self.download.choked(key),
            false => self.download.unchoked(key, self.now),
        }
        for block in rejected {
            self.download.rejected(key, block, self.now);
        }
        self.settle();
    }

    /// The peer answers its first request, if it has one.
    fn answer(&mut self, key: PeerKey) {
        let peer = self.peers.get_mut(&key).unwrap();
        if peer.queue.is_empty() {
            return;
        }
        let block = peer.queue.remove(0);
        let right = !peer.lies || self.random.below(3) > 0;
        match self.download.block(key, block, self.now) {
            Verdict::Keep => {
                let before = self.received.insert(block, (key, right));
                assert!(before.is_none(), "{block:?} is here already");
            }
            Verdict::Drop => {}
            Verdict::Unasked => panic!("{block:?} was asked for"),
        }
        self.settle();
    }

    fn blocks_of(piece: PieceIndex) -> impl Iterator<Item = BlockRequest> {
        let start = u64::from(piece.0) * u64::from(PIECE);
        let length = (LENGTH - start).min(u64::from(PIECE)) as u32;
        (0..length)
            .step_by(BLOCK_LENGTH as usize)
            .map(move |begin| BlockRequest {
                piece,
                begin,
                length: BLOCK_LENGTH.min(length - begin),
            })
    }

    /// A digest that differs for other bytes, and between liars.
    fn digest(block: &BlockRequest, sender: PeerKey, right: bool) -> BlockDigest {
        let mut digest = [0; 16];
        digest[..4].copy_from_slice(&block.begin.to_be_bytes());
        if !right {
            digest[8..].copy_from_slice(&(sender.0 + 1).to_be_bytes());
        }
        BlockDigest(digest)
    }

    fn check(&mut self) {
        let Some(piece) = self.to_check.pop() else {
            return;
        };
        let sent: Vec<_> = World::blocks_of(piece)
            .map(|block| (block, self.received[&block]))
            .collect();
        let digests: Vec<_> = sent
            .iter()
            .map(|(block, (sender, right))| World::digest(block, *sender, *right))
            .collect();
        if sent.iter().all(|(_, (_, right))| *right) {
            let needed = self.download.needs_digests(piece);
            self.download
                .piece_good(piece, if needed { &digests } else { &[] });
            self.to_store.push(piece);
        } else {
            self.download.piece_bad(piece, &digests);
        }
        self.settle();
    }

    fn store(&mut self, fails: bool) {
        let Some(piece) = self.to_store.pop() else {
            return;
        };
        if fails {
            self.forget(piece);
            self.download.piece_lost(piece);
        } else {
            self.download.piece_stored(piece);
        }
        self.settle();
    }

    fn forget(&mut self, piece: PieceIndex) {
        self.received.retain(|block, _| block.piece != piece);
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.download.tick(self.now);
        self.settle();
    }

    /// Takes all actions, asks for more, and looks whether all is as it should be.
    fn settle(&mut self) {
        self.act();
        self.download.refill(self.now);
        self.act();
        self.download.check_invariants();
    }

    fn act(&mut self) {
        while let Some(action) = self.download.take_action() {
            match action {
                Action::SetInterested { peer, interested } => {
                    let Some(peer) = self.peers.get_mut(&peer) else {
                        continue;
                    };
                    assert_ne!(peer.interested, interested);
                    peer.interested = interested;
                }
                Action::Request { peer, block } => {
                    let peer = self.peers.get_mut(&peer).expect("it is there");
                    assert!(peer.interested && !peer.chokes);
                    assert!(peer.has.contains(&block.piece.0));
                    assert!(!peer.queue.contains(&block), "{block:?} is under way");
                    assert!(World::blocks_of(block.piece).any(|one| one == block));
                    peer.queue.push(block);
                    self.requests += 1;
                }
                Action::Cancel { peer, block } => {
                    if let Some(peer) = self.peers.get_mut(&peer) {
                        peer.queue.retain(|one| *one != block);
                    }
                }
                Action::Forget(piece) => {
                    self.forget(piece);
                    self.to_check.retain(|one| *one != piece);
                }
                Action::Check(piece) => {
                    assert!(
                        World::blocks_of(piece).all(|block| self.received.contains_key(&block))
                    );
                    self.to_check.push(piece);
                }
                Action::Announce(piece) => {
                    assert!(World::blocks_of(piece).all(|block| self.received[&block].1));
                    assert!(self.announced.insert(piece.0));
                }
                Action::Ban(peer) => {
                    assert!(self.liars.contains(&peer), "{peer:?} never lied");
                    self.banned.insert(peer);
                }
            }
        }
        for peer in std::mem::take(&mut self.banned) {
            if self.peers.contains_key(&peer) {
                self.peers.remove(&peer);
                self.download.peer_left(peer);
            }
        }
    }

    fn key(&mut self) -> Option<PeerKey> {
        let mut keys: Vec<_> = self.peers.keys().copied().collect();
        keys.sort_unstable();
        let count = keys.len() as u64;
        (count > 0).then(|| keys[self.random.below(count) as usize])
    }

    /// Everybody who is there answers, in turn, and what has come is checked and stored.
    fn finish(&mut self) {
        for _ in 0..2_000 {
            if self.download.is_done() {
                return;
            }
            let mut keys: Vec<_> = self.peers.keys().copied().collect();
            keys.sort_unstable();
            for key in keys {
                if self.peers.contains_key(&key) {
                    self.answer(key);
                }
            }
            self.check();
            self.store(false);
            self.pass(Duration::from_millis(100));
        }
        panic!(
            "not done: {} pieces wanted",
            self.download.picker().wanted()
        );
    }
}

#[test]
fn one_seed_gives_all() {
    let mut world = World::new(1);
    let seed = world.join(0..20, false, true);
    world.set_choking(seed, false);
    world.finish();
    assert_eq!(world.announced.len(), 20);
    // Nothing was asked for twice: end-game needs others.
    assert_eq!(world.requests, LENGTH.div_ceil(u64::from(BLOCK_LENGTH)));
    world.pass(Duration::from_secs(1));
    assert!(!world.peers[&seed].interested);
}

/// Of seeds that answer at once, none is asked for what another is about to bring; of one that
/// hangs, others are.
#[test]
fn in_the_end_only_what_is_late_is_asked_for_twice() {
    let blocks = LENGTH.div_ceil(u64::from(BLOCK_LENGTH));
    let mut world = World::new(2);
    let seeds = [0, 1, 2].map(|_| world.join(0..0, false, true));
    for seed in seeds {
        // What it has comes behind its handshake.
        world.peers.get_mut(&seed).unwrap().has = (0..20).collect();
        world.download.set_pieces(seed, PeerPieces::All);
        world.set_choking(seed, false);
    }
    // All is asked for, and nothing has come.
    while world.download.picker().wanted() > 0 && !world.download.picker().in_endgame() {
        for seed in seeds {
            world.answer(seed);
        }
        world.check();
        world.store(false);
    }
    assert_eq!(world.requests, blocks);
    let hangs = seeds
        .into_iter()
        .find(|seed| !world.peers[seed].queue.is_empty());
    let hangs = hangs.expect("in the end-game something is under way");
    let left = world.peers[&hangs].queue.len() as u64;
    for seed in seeds.into_iter().filter(|seed| *seed != hangs) {
        while !world.peers[&seed].queue.is_empty() {
            world.answer(seed);
        }
    }
    assert_eq!(world.requests, blocks, "it has had no second yet");
    world.pass(Duration::from_secs(1));
    world.pass(Duration::from_secs(1));
    assert!(world.requests >= blocks + left, "{} {left}", world.requests);
    world.finish();
}

#[test]
fn a_block_is_expected_from_whom_it_was_asked_until_somebody_brought_it() {
    let mut world = World::new(3);
    let [first, second] = [0, 1].map(|_| world.join(0..20, false, true));
    world.set_choking(first, false);
    world.settle();
    let asked = world.peers[&first].queue[0];
    assert!(world.download.expects(first, asked));
    assert!(!world.download.expects(second, asked), "it was not asked");
    assert!(!world.download.expects(PeerKey(99), asked));
    let shorter = BlockRequest {
        length: asked.length - 1,
        ..asked
    };
    assert!(!world.download.expects(first, shorter));
    let now = world.now;
    assert_eq!(world.download.block(first, asked, now), Verdict::Keep);
    assert!(!world.download.expects(first, asked), "it is here");
}

#[test]
fn a_peer_takes_a_have_back() {
    let mut world = World::new(3);
    let peer = world.join(0..1, false, true);
    assert_eq!(world.download.picker().availability(PieceIndex(0)), 1);
    let id = Extension::DontHave.our_id().get();
    let payload = &[0, 0, 0, 0][..];
    let message = Message::Extended { id, payload };
    world.download.handle_message(peer, &message, world.now);
    assert_eq!(world.download.picker().availability(PieceIndex(0)), 0);
    // One of a piece that there is not changes nothing.
    let payload = &[0xff; 4][..];
    let message = Message::Extended { id, payload };
    world.download.handle_message(peer, &message, world.now);
    world.download.check_invariants();
}

#[test]
fn who_has_all_and_lost_a_piece_may_say_again_that_it_has_all() {
    let mut world = World::new(5);
    let key = world.join(0..20, false, true);
    world.set_choking(key, false);
    let lost = PieceIndex(3);
    for _ in 0..2 {
        world.download.peer_lost(key, lost);
        assert_eq!(world.download.picker().availability(lost), 0);
        for _ in 0..2 {
            world
                .download
                .handle_message(key, &Message::HaveAll, world.now);
            assert_eq!(world.download.picker().availability(lost), 1);
        }
    }
}

#[test]
fn only_the_liar_is_banned() {
    for seed in 0..50 {
        let mut world = World::new(seed);
        for peer in 0..5 {
            let key = world.join(0..20, peer == 2, peer % 2 == 0);
            world.set_choking(key, false);
        }
        world.finish();
        assert_eq!(world.announced.len(), 20);
        // Of whoever lied in a piece that had to be fetched again, nothing is left.
        let left = world.peers.len();
        assert!(left >= 4, "{left} peers are left with seed {seed}");
    }
}

#[test]
fn what_is_not_on_disk_yet_holds_requests_back() {
    let mut world = World::new(3);
    let seed = world.join(0..20, false, true);
    world.set_choking(seed, false);
    for _ in 0..200 {
        world.answer(seed);
        world.check();
        world.pass(Duration::from_millis(10));
    }
    // More than three pieces, and what was under way by then.
    assert!(world.download.unstored_bytes() > 3 * u64::from(PIECE));
    assert!(world.peers[&seed].queue.is_empty());
    assert!(!world.download.is_done());
    world.finish();
}

#[test]
fn a_pause_asks_for_nothing() {
    let mut world = World::new(4);
    world.download.set_paused(true);
    let seed = world.join(0..20, false, false);
    world.set_choking(seed, false);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.requests, 0);
    world.download.set_paused(false);
    world.finish();
}

#[test]
fn a_piece_that_is_allowed_comes_though_we_are_choked() {
    let mut world = World::new(5);
    let key = world.join(0..20, false, true);
    world.download.allowed_fast(key, PieceIndex(7));
    // As the world sees it the peer gives all; that it is asked for nothing else is what is looked
    // at.
    world.peers.get_mut(&key).unwrap().chokes = false;
    world.settle();
    let asked: HashSet<u32> = world.peers[&key]
        .queue
        .iter()
        .map(|block| block.piece.0)
        .collect();
    assert_eq!(asked, HashSet::from([7]));
}

#[test]
fn suggestions_are_bounded_and_the_latest_counts() {
    let mut world = World::new(6);
    let key = world.join(0..20, false, true);
    for piece in 0..100 {
        world.download.suggested(key, PieceIndex(piece % 40));
        world.download.allowed_fast(key, PieceIndex(piece % 40));
    }
    let source = &world.download.peers[&key];
    assert_eq!(source.suggested.len(), HINTS_MAX);
    assert_eq!(source.suggested[0], PieceIndex(19));
    assert_eq!(source.allowed_fast.len(), HINTS_MAX);
}

#[test]
fn whatever_peers_do_it_is_consistent_and_ends() {
    for seed in 0..150 {
        let mut world = World::new(seed);
        for _ in 0..300 {
            step(&mut world);
        }
        // A seed that does all that it is asked comes, and the others leave.
        world.download.set_paused(false);
        for key in world.peers.keys().copied().collect::<Vec<_>>() {
            world.leave(key);
        }
        let key = world.join(0..20, false, true);
        world.set_choking(key, false);
        world.finish();
        assert_eq!(world.announced.len(), 20, "seed {seed}");
    }
}

/// Something happens.
fn step(world: &mut World) {
    let what = world.random.below(20);
    if what == 0 && world.peers.len() < 8 {
        let count = world.random.below(21) as u32;
        let from = world.random.below(20) as u32;
        let (lies, fast) = (world.random.below(4) == 0, world.random.below(2) == 0);
        world.join((from..from + count).map(|piece| piece % 20), lies, fast);
        return;
    }
    match what {
        1 => world.check(),
        2 => world.store(false),
        3 if world.random.below(4) == 0 => world.store(true),
        4 => world.pass(Duration::from_secs(1)),
        5 if world.random.below(10) == 0 => world.pass(Duration::from_secs(70)),
        6 if world.random.below(10) == 0 => {
            let paused = world.random.below(2) == 0;
            world.download.set_paused(paused);
            world.settle();
        }
        _ => {}
    }
    let Some(key) = world.key() else { return };
    match what {
        7 if world.random.below(5) == 0 => world.leave(key),
        8 => {
            let chokes = world.random.below(3) == 0;
            world.set_choking(key, chokes);
        }
        9 => {
            let piece = world.random.below(20) as u32;
            world.peers.get_mut(&key).unwrap().has.insert(piece);
            world.download.have(key, PieceIndex(piece));
            world.settle();
        }
        10 => {
            let peer = world.peers.get_mut(&key).unwrap();
            if peer.fast
                && let Some(block) = peer.queue.pop()
            {
                world.download.rejected(key, block, world.now);
                world.settle();
            }
        }
        // It forgets a request without a word.
        11 => {
            world.peers.get_mut(&key).unwrap().queue.pop();
        }
        12.. => world.answer(key),
        _ => {}
    }
}

#[test]
fn a_tick_does_to_all_peers_in_the_same_order_every_time() {
    // Thirty seeds that are asked and keep silent until all requests are given back.
    let actions = || {
        let mut download = World::new(1).download;
        let now = Time::default() + Duration::from_secs(1);
        for key in (0..30).map(PeerKey) {
            download.peer_joined(key, true, PeerPieces::All);
            download.unchoked(key, now);
        }
        download.refill(now);
        while download.take_action().is_some() {}
        download.tick(now + Duration::from_secs(61));
        let mut actions = Vec::new();
        while let Some(action) = download.take_action() {
            actions.push(action);
        }
        actions
    };
    let first = actions();
    assert!(first.len() > 60, "{}", first.len());
    assert_eq!(actions(), first);
}
