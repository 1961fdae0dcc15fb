//! A swarm in virtual time, event by event. A host is what our server is, without sockets, disk and
//! hashes: a [`Download`] (picker, pipelines, blame), a [`Choker`], and for each link a
//! [`RequestQueue`](engine::queue), driven in the order in which `server/io` drives them: an input,
//! the actions, a refill; once a second a tick and, if due, a round of the choker.
//!
//! The network: a message takes the sender's latency. A host's uplink sends one block at a time,
//! its links in turn. What arrives waits for the downlink, first come, first served. A link has few
//! blocks on their way at a time (those of a round trip at the full rate of the uplink, and one),
//! as TCP has, so that a slow receiver holds up its own link and not the uplink. Messages other
//! than blocks weigh nothing; hashing and writing take no time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet, VecDeque};
use std::net::Ipv6Addr;
use std::time::Duration;

use engine::choker::{ChokeChange, Choker, ChokerConfig, PeerKey};
use engine::download::{Action, Download, DownloadConfig};
use engine::layout::StorageLayout;
use engine::picker::PeerPieces;
use engine::random::Random;
use engine::super_seed::{SuperKey, SuperSeed};
use engine::time::Time;
use proto::ids::PieceIndex;
use proto::limits::BLOCK_LENGTH;
use proto::wire::BlockRequest;

use super::peer::{Link, Peer, REQUESTS_MAX};

/// All hosts begin in the first second, so their rounds and ticks fall at different times.
const START: Time = Time(1_000_000_000);

/// How often a host looks at timeouts and slots.
const TICK: Duration = Duration::from_secs(1);

/// Who has fewer neighbours left looks for others.
const NEIGHBOURS_MIN: usize = 10;

/// What a host is like.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// For the reports.
    pub class: usize,
    /// Bytes per second.
    pub upload: u64,
    pub download: u64,
    /// What a message takes from here to anybody.
    pub latency: Duration,
    /// It has everything from the start, and stays to the end.
    pub seed: bool,
    /// It unchokes nobody.
    pub free_rider: bool,
}

/// What a swarm is like.
pub struct Scenario {
    pub pieces: u32,
    pub blocks_per_piece: u32,
    pub download: DownloadConfig,
    pub choker: ChokerConfig,
    pub hosts: Vec<Host>,
    /// How many others each host connects to; as many connect to it on average.
    pub connects: usize,
    /// Who is complete leaves.
    pub leave: bool,
    /// The first host, a seed, super-seeds (BEP 16).
    pub super_seeding: bool,
    pub seed: u64,
}

impl Scenario {
    pub fn bytes(&self) -> u64 {
        u64::from(self.pieces) * u64::from(self.piece_length())
    }

    pub fn piece_length(&self) -> u32 {
        self.blocks_per_piece * BLOCK_LENGTH
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Message {
    Interested(bool),
    Choke(bool),
    Request(Wanted),
    Cancel(Wanted),
    Reject(Wanted),
    Have(u32),
}

/// A block, in an order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Wanted {
    piece: u32,
    begin: u32,
    length: u32,
}

impl From<BlockRequest> for Wanted {
    fn from(block: BlockRequest) -> Wanted {
        Wanted {
            piece: block.piece.0,
            begin: block.begin,
            length: block.length,
        }
    }
}

impl From<Wanted> for BlockRequest {
    fn from(block: Wanted) -> BlockRequest {
        BlockRequest {
            piece: PieceIndex(block.piece),
            begin: block.begin,
            length: block.length,
        }
    }
}

/// What happens at a host; `link` is its own number for it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Event {
    Message {
        link: usize,
        message: Message,
    },
    /// The neighbours hear that it has a piece.
    Have(u32),
    /// A block has left the uplink.
    Sent,
    /// A block has reached the downlink.
    Arrived {
        link: usize,
        block: Wanted,
    },
    /// A block is through the downlink.
    Received {
        link: usize,
        block: Wanted,
    },
    /// The other end has received a block.
    Acknowledged {
        link: usize,
    },
    Tick,
}

/// See the module.
pub struct Swarm {
    layout: StorageLayout,
    download: DownloadConfig,
    leave: bool,
    random: Random,
    pub peers: Vec<Peer>,
    now: Time,
    /// What is to happen when, the order of planning, and to whom.
    agenda: BinaryHeap<Reverse<(Time, u64, usize, Event)>>,
    planned: u64,
    incomplete: usize,
    /// Of the first host, if it super-seeds; and who each of its links is there.
    super_seed: Option<SuperSeed>,
    super_keys: Vec<SuperKey>,
    /// Pieces that no host but seeds has, and what the first had sent when there were none left.
    missing: HashSet<u32>,
    pub sent_for_first_copy: u64,
}

impl Swarm {
    pub fn new(scenario: &Scenario) -> Swarm {
        let layout = StorageLayout::new(&[(scenario.bytes(), false)], scenario.piece_length());
        let mut swarm = Swarm {
            layout: layout.expect("a layout"),
            download: scenario.download,
            leave: scenario.leave,
            random: Random::new(scenario.seed),
            peers: Vec::new(),
            now: START,
            agenda: BinaryHeap::new(),
            planned: 0,
            incomplete: scenario.hosts.iter().filter(|host| !host.seed).count(),
            super_seed: scenario
                .super_seeding
                .then(|| SuperSeed::new(scenario.pieces, scenario.seed)),
            super_keys: Vec::new(),
            missing: (0..scenario.pieces).collect(),
            sent_for_first_copy: 0,
        };
        for (index, host) in scenario.hosts.iter().enumerate() {
            let begins_at = Time(swarm.random.below(START.0));
            let peer = swarm.peer(host, scenario.choker, begins_at);
            swarm.peers.push(peer);
            swarm.plan(begins_at + TICK, index, Event::Tick);
        }
        for one in 0..swarm.peers.len() {
            (0..scenario.connects).for_each(|_| swarm.connect_somebody(one));
        }
        (0..swarm.peers.len()).for_each(|index| swarm.drive(index));
        swarm
    }

    fn peer(&mut self, host: &Host, choker: ChokerConfig, begins_at: Time) -> Peer {
        let seed = self.random.next_u64();
        let download = || Download::new(self.download, &self.layout, PeerPieces::None, seed);
        // Nobody is farther away than ourselves, as it were.
        let round_trip = 2 * host.latency;
        let block = time_for(BLOCK_LENGTH, host.upload.max(1));
        let on_the_way = round_trip.as_nanos().div_ceil(block.as_nanos());
        Peer {
            host: *host,
            download: (!host.seed).then(download),
            choker: Choker::new(choker, self.random.next_u64(), begins_at),
            links: Vec::new(),
            turns: VecDeque::new(),
            is_sending: false,
            window: u32::try_from(on_the_way + 1).expect("a window"),
            downlink_free_at: START,
            neighbours: 0,
            complete_at: host.seed.then_some(START),
            gone: false,
            uploaded: 0,
            received: 0,
        }
    }

    /// Lets the next thing happen.
    pub fn step(&mut self) {
        let Reverse((time, _, index, event)) = self.agenda.pop().expect("ticks go on");
        self.now = time;
        if self.peers[index].gone {
            return;
        }
        match event {
            Event::Message { link, message } => {
                if !self.peers[index].links[link].closed {
                    self.take_message(index, link, message);
                }
            }
            Event::Have(piece) => self.spread_have(index, PieceIndex(piece)),
            Event::Sent => {
                self.peers[index].is_sending = false;
                self.send(index);
            }
            Event::Arrived { link, block } => self.take_arrival(index, link, block),
            Event::Received { link, block } => self.take_block(index, link, block.into()),
            Event::Acknowledged { link } => {
                let peer = &mut self.peers[index];
                peer.links[link].in_flight -= 1;
                peer.take_turn(link);
                self.send(index);
            }
            Event::Tick => {
                if let Some(download) = &mut self.peers[index].download {
                    download.tick(self.now);
                }
                if let Some(policy) = self.super_seed.as_mut().filter(|_| index == 0) {
                    for (key, link) in self.super_keys.iter().zip(&self.peers[0].links) {
                        let mut asked: Vec<PieceIndex> =
                            link.queue.iter().map(|block| block.piece).collect();
                        asked.sort_unstable();
                        let waits = link.wants_unchoke();
                        if waits || link.in_flight > 0 || !asked.is_empty() {
                            policy.serves(*key, &asked, waits, self.now);
                        }
                    }
                    policy.tick(self.now);
                    policy.check_invariants();
                }
                self.drive(index);
                self.rechoke(index);
                self.plan(self.now + TICK, index, Event::Tick);
            }
        }
        self.tell_super_seeded();
    }

    /// The first host tells others of pieces, as its super-seeding has it.
    fn tell_super_seeded(&mut self) {
        let Some(policy) = &mut self.super_seed else {
            return;
        };
        let mut told = Vec::new();
        for key in policy.take_changed() {
            let link = self.super_keys.iter().position(|known| *known == key);
            let news = policy.take_news(key);
            let all = 0..if news.all {
                self.layout.piece_count()
            } else {
                0
            };
            let pieces = news.pieces.into_iter().map(|piece| piece.0).chain(all);
            told.extend(pieces.map(|piece| (link.expect("a link"), piece)));
        }
        for (link, piece) in told {
            self.tell(0, link, Message::Have(piece));
        }
    }

    /// Since the start.
    pub fn elapsed(&self) -> Duration {
        self.now.since(START)
    }

    pub fn all_complete(&self) -> bool {
        self.incomplete == 0
    }

    /// How long a host took, if it was no seed and is complete.
    pub fn time_of(&self, peer: &Peer) -> Option<Duration> {
        let complete_at = peer.complete_at.filter(|_| !peer.host.seed);
        complete_at.map(|time| time.since(START))
    }

    fn plan(&mut self, time: Time, index: usize, event: Event) {
        self.planned += 1;
        self.agenda
            .push(Reverse((time, self.planned, index, event)));
    }

    /// Sends a message over a link; it counts from when it comes.
    fn tell(&mut self, index: usize, link: usize, message: Message) {
        let (other, back) = self.ends(index, link);
        let latency = self.peers[index].host.latency;
        let link = back;
        self.plan(self.now + latency, other, Event::Message { link, message });
    }

    /// Links two hosts.
    fn connect(&mut self, one: usize, other: usize) {
        let backs = [self.peers[other].links.len(), self.peers[one].links.len()];
        for (here, there, back) in [(one, other, backs[0]), (other, one, backs[1])] {
            let link = self.peers[here].links.len() as u64;
            let bits = self.bitfield(there);
            if let Some(policy) = self.super_seed.as_mut().filter(|_| here == 0) {
                let address = Ipv6Addr::from_bits((there as u128) << 64);
                let key = policy.join(address.into(), self.now);
                match &bits {
                    Some(bits) => policy.has_these(key, bits, self.now),
                    None => policy.has_all(key, self.now),
                }
                self.super_keys.push(key);
            }
            let peer = &mut self.peers[here];
            if let Some(download) = &mut peer.download {
                let pieces = bits
                    .as_deref()
                    .map_or(PeerPieces::All, PeerPieces::Bitfield);
                download.peer_joined(PeerKey(link), true, pieces);
                download.set_peer_queue(PeerKey(link), REQUESTS_MAX);
            }
            peer.links.push(Link::new(there, back, self.now));
            peer.neighbours += 1;
        }
    }

    /// What a host has, as a bitfield message says it; nothing if that is all.
    fn bitfield(&self, index: usize) -> Option<Vec<u8>> {
        if index == 0 && self.super_seed.is_some() {
            return Some(vec![0; self.layout.piece_count().div_ceil(8) as usize]);
        }
        let picker = self.peers[index].download.as_ref()?.picker();
        let mut bits = vec![0_u8; picker.piece_count().div_ceil(8) as usize];
        for piece in (0..picker.piece_count()).map(PieceIndex) {
            let bit = u8::from(picker.is_verified(piece)) << (7 - piece.0 % 8);
            bits[piece.0 as usize / 8] |= bit;
        }
        Some(bits)
    }

    /// Links a host with another one by chance, with whom it is not linked.
    fn connect_somebody(&mut self, one: usize) {
        for _ in 0..20 {
            let other = self.random.below(self.peers.len() as u64) as usize;
            let links = &self.peers[one].links;
            let known = links.iter().any(|link| link.other == other);
            if other != one && !self.peers[other].gone && !known {
                self.connect(one, other);
                self.drive(one);
                self.drive(other);
                return;
            }
        }
    }

    /// Does what the download of a host wants done, and has it ask for more.
    fn drive(&mut self, index: usize) {
        self.do_actions(index);
        if let Some(download) = &mut self.peers[index].download {
            download.refill(self.now);
            self.do_actions(index);
        }
    }

    fn do_actions(&mut self, index: usize) {
        while let Some(download) = &mut self.peers[index].download
            && let Some(action) = download.take_action()
        {
            match action {
                Action::SetInterested { peer, interested } => {
                    self.tell_interest(index, peer.0 as usize, interested);
                }
                Action::Request { peer, block } => {
                    self.tell(index, peer.0 as usize, Message::Request(block.into()));
                }
                Action::Cancel { peer, block } => {
                    self.tell(index, peer.0 as usize, Message::Cancel(block.into()));
                }
                Action::Check(piece) => {
                    download.piece_good(piece, &[]);
                    download.piece_stored(piece);
                }
                Action::Announce(piece) => {
                    if self.missing.remove(&piece.0) && self.missing.is_empty() {
                        self.sent_for_first_copy = self.peers[0].uploaded;
                    }
                    let latency = self.peers[index].host.latency;
                    self.plan(self.now + latency, index, Event::Have(piece.0));
                }
                Action::Forget(_) => {}
                Action::Ban(_) => unreachable!("nobody lies"),
            }
        }
        let download = self.peers[index].download.as_ref();
        if download.is_some_and(Download::is_done) {
            self.complete(index);
        }
    }

    fn tell_interest(&mut self, index: usize, link: usize, interested: bool) {
        self.peers[index].links[link].told_interest = interested;
        self.tell(index, link, Message::Interested(interested));
    }

    fn complete(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        let download = peer.download.take().expect("it was downloading");
        download.check_invariants();
        assert_eq!(
            download.requested_bytes(),
            0,
            "nothing is asked for any more"
        );
        peer.complete_at = Some(self.now);
        self.incomplete -= 1;
        for link in 0..self.peers[index].links.len() {
            let state = &self.peers[index].links[link];
            if state.told_interest && !state.closed {
                self.tell_interest(index, link, false);
            }
        }
    }

    /// Everybody whom a host is linked with hears that it has a piece; who has all may leave.
    fn spread_have(&mut self, index: usize, piece: PieceIndex) {
        for link in 0..self.peers[index].links.len() {
            let (other, back) = self.ends(index, link);
            let is_open = !self.peers[index].links[link].closed;
            if let Some(policy) = self.super_seed.as_mut().filter(|_| is_open && other == 0) {
                policy.has(self.super_keys[back], piece, self.now);
            }
            if let Some(download) = &mut self.peers[other].download
                && is_open
            {
                download.have(PeerKey(back as u64), piece);
                self.drive(other);
            }
        }
        if self.peers[index].download.is_none() && self.leave && !self.peers[index].host.seed {
            self.leave(index);
        } else {
            self.find_more(index);
        }
    }

    fn take_message(&mut self, index: usize, link: usize, message: Message) {
        let key = PeerKey(link as u64);
        let now = self.now;
        let peer = &mut self.peers[index];
        match message {
            Message::Interested(interested) => {
                peer.links[link].interested = interested;
                let (role, unchoked) = (peer.role(), peer.unchoked());
                let may = !peer.host.free_rider && peer.links[link].wants_unchoke();
                if may && peer.choker.claim(role, unchoked) {
                    self.set_choked(index, link, false);
                }
            }
            Message::Request(block) => {
                if peer.links[link].choked {
                    self.tell(index, link, Message::Reject(block));
                } else {
                    assert!(peer.links[link].queue.push(block.into()), "within `reqq`");
                    peer.take_turn(link);
                    self.send(index);
                }
            }
            Message::Cancel(block) => {
                if peer.links[link].queue.cancel(block.into()) {
                    self.tell(index, link, Message::Reject(block));
                }
            }
            Message::Choke(choked) => {
                match (&mut peer.download, choked) {
                    (Some(download), true) => download.choked(key),
                    (Some(download), false) => download.unchoked(key, now),
                    (None, _) => {}
                }
                self.drive(index);
            }
            Message::Have(piece) => {
                if let Some(download) = &mut peer.download {
                    download.have(key, PieceIndex(piece));
                    self.drive(index);
                }
            }
            Message::Reject(block) => {
                if let Some(download) = &mut peer.download {
                    download.rejected(key, block.into(), now);
                    self.drive(index);
                }
            }
        }
    }

    /// Gives the uplink its next block, if it is idle.
    fn send(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        if peer.is_sending {
            return;
        }
        let Some((link, block)) = peer.next_block() else {
            return;
        };
        peer.is_sending = true;
        let sent_at = self.now + time_for(block.length, peer.host.upload);
        let arrives_at = sent_at + peer.host.latency;
        let (other, back) = self.ends(index, link);
        let (link, block) = (back, block.into());
        self.plan(sent_at, index, Event::Sent);
        self.plan(arrives_at, other, Event::Arrived { link, block });
    }

    fn take_arrival(&mut self, index: usize, link: usize, block: Wanted) {
        let peer = &mut self.peers[index];
        let through = time_for(block.length, peer.host.download);
        peer.downlink_free_at = peer.downlink_free_at.max(self.now) + through;
        let time = peer.downlink_free_at;
        self.plan(time, index, Event::Received { link, block });
    }

    fn take_block(&mut self, index: usize, link: usize, block: BlockRequest) {
        let (other, back) = self.ends(index, link);
        let peer = &mut self.peers[index];
        let acknowledged_at = self.now + peer.host.latency;
        peer.received += u64::from(block.length);
        peer.links[link]
            .download
            .add(u64::from(block.length), self.now);
        if let Some(download) = &mut peer.download {
            download.block(PeerKey(link as u64), block, self.now);
            self.drive(index);
        }
        self.plan(acknowledged_at, other, Event::Acknowledged { link: back });
    }

    /// Holds a round of the choker, if one is due, or if it has room and somebody waits.
    fn rechoke(&mut self, index: usize) {
        let (total, piece_length) = (self.layout.total_length(), self.layout.piece_length());
        let peer = &mut self.peers[index];
        if peer.host.free_rider {
            return;
        }
        let due = self.now >= peer.choker.next_timeout();
        let may_unchoke = peer.choker.may_unchoke(peer.role(), peer.unchoked());
        let room = may_unchoke && peer.links.iter().any(Link::wants_unchoke);
        if !due && !room {
            return;
        }
        let views = peer.views(total, piece_length, self.now);
        let mut changes = Vec::new();
        peer.choker.round(&views, self.now, &mut changes);
        if due {
            let links = peer.links.iter_mut();
            links.for_each(|link| link.uploaded_in_round = 0);
        }
        for ChokeChange { key, choke } in changes {
            self.set_choked(index, key.0 as usize, choke);
        }
    }

    /// Tells the other; a choke rejects what it has asked for (BEP 6).
    fn set_choked(&mut self, index: usize, link: usize, choked: bool) {
        let state = &mut self.peers[index].links[link];
        assert_ne!(state.choked, choked, "a change changes something");
        state.choked = choked;
        self.tell(index, link, Message::Choke(choked));
        let state = &mut self.peers[index].links[link];
        if !choked {
            (state.unchoked_at, state.uploaded_since_unchoke) = (self.now, 0);
            return;
        }
        while let Some(block) = self.peers[index].links[link].queue.pop() {
            self.tell(index, link, Message::Reject(block.into()));
        }
    }

    fn leave(&mut self, index: usize) {
        self.peers[index].gone = true;
        for link in 0..self.peers[index].links.len() {
            if std::mem::replace(&mut self.peers[index].links[link].closed, true) {
                continue;
            }
            let (other, back) = self.ends(index, link);
            if let Some(policy) = self.super_seed.as_mut().filter(|_| other == 0) {
                policy.leave(self.super_keys[back], self.now);
            }
            let peer = &mut self.peers[other];
            peer.links[back].closed = true;
            peer.links[back].queue.clear();
            peer.neighbours -= 1;
            if let Some(download) = &mut peer.download {
                download.peer_left(PeerKey(back as u64));
                self.drive(other);
            }
        }
        for link in 0..self.peers[index].links.len() {
            let (other, _) = self.ends(index, link);
            self.find_more(other);
        }
    }

    /// Asks the tracker, as it were: who has few neighbours finds one more. Where hosts leave, who
    /// lacks what none of its neighbours gives finds the seed, which is the first.
    fn find_more(&mut self, index: usize) {
        let peer = &self.peers[index];
        if peer.gone || peer.download.is_none() {
            return;
        }
        if peer.neighbours < NEIGHBOURS_MIN {
            self.connect_somebody(index);
        }
        let mut open = self.peers[index].links.iter().filter(|link| !link.closed);
        let gives = |link: &Link| link.told_interest && !self.peers[link.other].host.free_rider;
        if self.leave && !open.any(|link| gives(link) || link.other == 0) {
            self.connect(index, 0);
            self.drive(index);
        }
    }

    fn ends(&self, index: usize, link: usize) -> (usize, usize) {
        let link = &self.peers[index].links[link];
        (link.other, link.back)
    }
}

/// How long a link of `rate` bytes per second takes for a block.
fn time_for(length: u32, rate: u64) -> Duration {
    Duration::from_nanos(u64::from(length) * 1_000_000_000 / rate)
}
