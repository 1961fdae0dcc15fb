//! Peers, their links, and a fluid network: what a peer uploads is divided evenly over the links that it serves,
//! and what a peer can download bounds what it gets; time passes in steps of two seconds.

use std::time::Duration;

use engine::choker::{ChokeChange, Choker, ChokerConfig, PeerKey, PeerView, Role};
use engine::meter::RateMeter;
use engine::random::Random;
use engine::time::Time;

use super::picker::{Block, BlockPicker, Layout};

const STEP: Duration = Duration::from_secs(2);

/// Rounds of different peers fall into different seconds: chokers are made in the first ten.
const START: Time = Time(10_000_000_000);

/// Who has fewer neighbours left looks for others.
const NEIGHBOURS_MIN: usize = 10;

/// What a peer is like.
#[derive(Clone, Copy, Debug)]
pub struct PeerKind {
    /// For the reports.
    pub class: usize,
    /// Bytes per second.
    pub upload: u64,
    pub download: u64,
    /// It has everything from the start, and stays to the end.
    pub seed: bool,
    /// It unchokes nobody.
    pub free_rider: bool,
}

/// What a swarm is like.
pub struct Scenario {
    pub layout: Layout,
    pub choker: ChokerConfig,
    pub peers: Vec<PeerKind>,
    /// How many others each peer connects to; as many connect to it on average.
    pub connects: usize,
    /// Who is complete leaves.
    pub leave: bool,
    pub seed: u64,
}

/// One end of a link between two peers.
struct Link {
    other: usize,
    /// The number of this link at the other end.
    back: usize,
    /// We choke the other.
    choked: bool,
    /// The other has what we want.
    wants: bool,
    /// What we have asked the other for, and how many bytes of it are still to come.
    request: Option<(Block, u64)>,
    download: RateMeter,
    connected_at: Time,
    unchoked_at: Time,
    uploaded_in_round: u64,
    uploaded_since_unchoke: u64,
}

struct Peer {
    kind: PeerKind,
    choker: Choker,
    picker: Box<dyn BlockPicker>,
    links: Vec<Link>,
    /// The numbers of the links whose other end we do not choke.
    serves: Vec<usize>,
    /// Those that have not gone.
    neighbours: usize,
    complete_at: Option<Time>,
    gone: bool,
}

/// What flows over a link in one step.
struct Flow {
    from: usize,
    link: usize,
    to: usize,
    back: usize,
    bytes: u64,
}

pub struct Swarm {
    layout: Layout,
    leave: bool,
    random: Random,
    peers: Vec<Peer>,
    now: Time,
    /// Whole blocks that peers which were not complete have uploaded, and what they could have, in bytes; until
    /// half of the peers were complete.
    pub uploaded: u64,
    pub capacity: u64,
}

impl Swarm {
    pub fn new(
        scenario: &Scenario,
        picker: impl Fn(&PeerKind, u64) -> Box<dyn BlockPicker>,
    ) -> Swarm {
        let mut random = Random::new(scenario.seed);
        let peer = |kind: &PeerKind, random: &mut Random| Peer {
            kind: *kind,
            choker: Choker::new(
                scenario.choker,
                random.next_u64(),
                Time(random.below(START.0)),
            ),
            picker: picker(kind, random.next_u64()),
            links: Vec::new(),
            serves: Vec::new(),
            neighbours: 0,
            complete_at: kind.seed.then_some(START),
            gone: false,
        };
        let peers = scenario.peers.iter().map(|kind| peer(kind, &mut random));
        let mut swarm = Swarm {
            layout: scenario.layout,
            leave: scenario.leave,
            peers: peers.collect(),
            random: Random::new(scenario.seed),
            now: START,
            uploaded: 0,
            capacity: 0,
        };
        let count = swarm.peers.len();
        for one in 0..count {
            (0..scenario.connects).for_each(|_| swarm.connect_somebody(one));
        }
        swarm
    }

    /// Lets a step pass.
    pub fn step(&mut self) {
        self.now = self.now + STEP;
        (0..self.peers.len()).for_each(|peer| self.hold_round(peer));
        (0..self.peers.len()).for_each(|peer| self.unchoke_early(peer));
        let flows = self.flows();
        let half = self
            .peers
            .iter()
            .filter(|peer| peer.complete_at.is_some())
            .count()
            * 2
            >= self.peers.len();
        for peer in &self.peers {
            if !half && peer.complete_at.is_none() && !peer.kind.free_rider {
                self.capacity += in_step(peer.kind.upload);
            }
        }
        for flow in flows {
            let moved = self.transfer(&flow);
            if !half && self.peers[flow.from].complete_at.is_none() {
                self.uploaded += moved;
            }
        }
    }

    pub fn seconds(&self) -> u64 {
        self.now.since(START).as_secs()
    }

    /// When each peer that was no seed was complete, in seconds, with its class.
    pub fn completions(&self) -> impl Iterator<Item = (usize, Option<u64>)> + '_ {
        let peers = self.peers.iter().filter(|peer| !peer.kind.seed);
        peers.map(|peer| {
            let seconds = peer.complete_at.map(|time| time.since(START).as_secs());
            (peer.kind.class, seconds)
        })
    }

    pub fn all_complete(&self) -> bool {
        self.peers.iter().all(|peer| peer.complete_at.is_some())
    }

    /// Links two peers.
    fn connect(&mut self, one: usize, other: usize) {
        let backs = [self.peers[other].links.len(), self.peers[one].links.len()];
        for (here, there, back) in [(one, other, backs[0]), (other, one, backs[1])] {
            let count = self.peers[there].picker.pieces();
            let complete = count == self.layout.pieces;
            let some = if complete { 0 } else { count };
            let has = |piece: &u32| self.peers[there].picker.has(*piece);
            let pieces: Vec<_> = (0..self.layout.pieces)
                .filter(has)
                .take(some as usize)
                .collect();
            let peer = &mut self.peers[here];
            let link = peer.links.len();
            peer.picker.joined(complete);
            pieces
                .into_iter()
                .for_each(|piece| peer.picker.have(link, piece));
            peer.neighbours += 1;
            peer.links.push(Link {
                other: there,
                back,
                choked: true,
                wants: peer.picker.is_interesting(link),
                request: None,
                download: RateMeter::new(self.now),
                connected_at: self.now,
                unchoked_at: Time(0),
                uploaded_in_round: 0,
                uploaded_since_unchoke: 0,
            });
        }
    }

    /// Links a peer to one more, as a tracker's answer would: no link is made twice.
    fn connect_somebody(&mut self, one: usize) {
        let other = self.random.below(self.peers.len() as u64) as usize;
        let known = self.peers[one].links.iter().any(|link| link.other == other);
        if other != one && !known && !self.peers[other].gone {
            self.connect(one, other);
        }
    }

    /// Holds a round of a peer's choker when one is due.
    fn hold_round(&mut self, index: usize) {
        let peer = &self.peers[index];
        if peer.gone || peer.kind.free_rider || self.now < peer.choker.next_timeout() {
            return;
        }
        let count = peer.links.len();
        let views: Vec<_> = (0..count)
            .filter_map(|link| self.view(index, link))
            .collect();
        let mut changes = Vec::new();
        self.peers[index]
            .choker
            .round(&views, self.now, &mut changes);
        for ChokeChange { key, choke } in changes {
            self.set_choked(index, key.0 as usize, choke);
        }
        let links = &mut self.peers[index].links;
        links.iter_mut().for_each(|link| link.uploaded_in_round = 0);
    }

    /// A link as the choker sees it; none if the other end has gone.
    fn view(&mut self, index: usize, link: usize) -> Option<PeerView> {
        let (other, back) = self.ends(index, link);
        if self.peers[other].gone {
            return None;
        }
        let interested = self.peers[other].links[back].wants;
        let pieces = u64::from(self.peers[other].picker.pieces());
        let piece_length = u64::from(self.layout.blocks_per_piece) * self.layout.block_length;
        let now = self.now;
        let peer = &mut self.peers[index];
        let role = peer.role();
        let link_state = &mut peer.links[link];
        Some(PeerView {
            key: PeerKey(link as u64),
            role,
            interested,
            choked: link_state.choked,
            connected_at: link_state.connected_at,
            unchoked_at: link_state.unchoked_at,
            uploaded_in_round: link_state.uploaded_in_round,
            uploaded_since_unchoke: link_state.uploaded_since_unchoke,
            progress_bytes: pieces * piece_length,
            total_length: self.layout.bytes(),
            piece_length: piece_length as u32,
            download_rate: link_state.download.rate(now),
            snubbed: false,
        })
    }

    /// Unchokes whoever waits while slots are free, as the shard does between rounds.
    fn unchoke_early(&mut self, index: usize) {
        if self.peers[index].gone || self.peers[index].kind.free_rider {
            return;
        }
        for link in 0..self.peers[index].links.len() {
            let unchoked = self.peers[index].serves.len() as u32;
            let role = self.peers[index].role();
            if !self.peers[index].choker.may_unchoke(role, unchoked) {
                return;
            }
            let (other, back) = self.ends(index, link);
            let waits = !self.peers[other].gone && self.peers[other].links[back].wants;
            if waits
                && self.peers[index].links[link].choked
                && self.peers[index].choker.claim(role, unchoked)
            {
                self.set_choked(index, link, false);
            }
        }
    }

    fn set_choked(&mut self, index: usize, link: usize, choked: bool) {
        let (other, back) = self.ends(index, link);
        let now = self.now;
        let peer = &mut self.peers[index];
        let state = &mut peer.links[link];
        assert_ne!(state.choked, choked, "a change changes something");
        state.choked = choked;
        if choked {
            peer.serves.retain(|&served| served != link);
            let other = &mut self.peers[other];
            if let Some((block, _)) = other.links[back].request.take() {
                other.picker.given_back(back, block);
            }
        } else {
            (state.unchoked_at, state.uploaded_since_unchoke) = (now, 0);
            peer.serves.push(link);
        }
    }

    /// What flows in this step: each upload divided evenly over the links in use; where a download is less
    /// than what it is offered, all its links get less in proportion, and what is left goes to other links.
    fn flows(&mut self) -> Vec<Flow> {
        let mut flows = Vec::new();
        let mut offered = vec![0_u64; self.peers.len()];
        for from in 0..self.peers.len() {
            let first = flows.len();
            for place in 0..self.peers[from].serves.len() {
                let link = self.peers[from].serves[place];
                let (to, back) = self.ends(from, link);
                if self.ask(to, back) {
                    flows.push(Flow {
                        from,
                        link,
                        to,
                        back,
                        bytes: 0,
                    });
                }
            }
            let share = in_step(self.peers[from].kind.upload) / (flows.len() - first).max(1) as u64;
            for flow in &mut flows[first..] {
                flow.bytes = share;
                offered[flow.to] += share;
            }
        }
        let mut spare_up: Vec<u64> = self
            .peers
            .iter()
            .map(|peer| in_step(peer.kind.upload))
            .collect();
        let mut spare_down: Vec<u64> = self
            .peers
            .iter()
            .map(|peer| in_step(peer.kind.download))
            .collect();
        for flow in &mut flows {
            let download = in_step(self.peers[flow.to].kind.download);
            if offered[flow.to] > download {
                flow.bytes = flow.bytes * download / offered[flow.to];
            }
            spare_up[flow.from] -= flow.bytes;
            spare_down[flow.to] = spare_down[flow.to].saturating_sub(flow.bytes);
        }
        for flow in &mut flows {
            let more = spare_up[flow.from].min(spare_down[flow.to]);
            flow.bytes += more;
            spare_up[flow.from] -= more;
            spare_down[flow.to] -= more;
        }
        flows
    }

    /// Whether a block is requested over a link, or can be now.
    fn ask(&mut self, index: usize, link: usize) -> bool {
        let peer = &mut self.peers[index];
        if peer.gone || !peer.links[link].wants {
            return false;
        }
        if peer.links[link].request.is_none() {
            let block = peer.picker.pick(link);
            peer.links[link].request = block.map(|block| (block, self.layout.block_length));
        }
        peer.links[link].request.is_some()
    }

    /// Moves the bytes of a flow; returns those of the blocks that became whole.
    fn transfer(&mut self, flow: &Flow) -> u64 {
        let (mut bytes, mut moved) = (flow.bytes, 0);
        while bytes > 0 && !self.peers[flow.to].gone && self.ask(flow.to, flow.back) {
            let link = &mut self.peers[flow.to].links[flow.back];
            let Some((block, left)) = link.request else {
                break;
            };
            let part = left.min(bytes);
            bytes -= part;
            link.download.add(part, self.now);
            link.request = (left > part).then_some((block, left - part));
            let up = &mut self.peers[flow.from].links[flow.link];
            up.uploaded_in_round += part;
            up.uploaded_since_unchoke += part;
            if left == part {
                moved += self.layout.block_length;
                self.received(flow.to, flow.back, block);
            }
        }
        moved
    }

    fn received(&mut self, index: usize, link: usize, block: Block) {
        if !self.peers[index].picker.received(link, block) {
            return;
        }
        for link in 0..self.peers[index].links.len() {
            let (other, back) = self.ends(index, link);
            let peer = &mut self.peers[index];
            peer.links[link].wants = peer.picker.is_interesting(link);
            let other = &mut self.peers[other];
            if !other.gone {
                other.picker.have(back, block.piece);
                other.links[back].wants = other.picker.is_interesting(back);
            }
        }
        if self.peers[index].picker.pieces() < self.layout.pieces {
            self.find_more(index);
        } else {
            self.peers[index].complete_at = Some(self.now);
            if self.leave {
                self.leave(index);
            }
        }
    }

    fn leave(&mut self, index: usize) {
        self.peers[index].gone = true;
        self.peers[index].serves.clear();
        for link in 0..self.peers[index].links.len() {
            let (other, back) = self.ends(index, link);
            let other = &mut self.peers[other];
            if let Some((block, _)) = other.links[back].request.take() {
                other.picker.given_back(back, block);
            }
            other.picker.left(back);
            other.links[back].wants = false;
            other.links[back].choked = true;
            other.serves.retain(|&served| served != back);
            other.neighbours -= 1;
        }
        for link in 0..self.peers[index].links.len() {
            let (other, _) = self.ends(index, link);
            self.find_more(other);
        }
    }

    /// Asks the tracker, as it were: who has few neighbours finds one more, and who lacks what none of them would
    /// give finds the seed, which is the first.
    fn find_more(&mut self, index: usize) {
        let peer = &self.peers[index];
        if peer.gone || peer.complete_at.is_some() {
            return;
        }
        if peer.neighbours < NEIGHBOURS_MIN {
            self.connect_somebody(index);
        }
        let links = &self.peers[index].links;
        let gives = |link: &Link| link.wants && !self.peers[link.other].kind.free_rider;
        if !links.iter().any(|link| gives(link) || link.other == 0) {
            self.connect(index, 0);
        }
    }

    fn ends(&self, index: usize, link: usize) -> (usize, usize) {
        let link = &self.peers[index].links[link];
        (link.other, link.back)
    }
}

impl Peer {
    fn role(&self) -> Role {
        match self.complete_at {
            Some(_) => Role::Seeding,
            None => Role::Downloading,
        }
    }
}

/// What a rate in bytes per second brings in a step.
fn in_step(rate: u64) -> u64 {
    rate * STEP.as_secs()
}
