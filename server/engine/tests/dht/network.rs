//! The network of the simulation: hosts, the datagrams on their way, and the liars among them.

use engine::dht::{Event, Family, Node, NodeConfig, Output};
use engine::random::Random;
use engine::time::Time;
use proto::dht::{Body, Contact, Message, NodeId, Query, Reply, Token, TransactionId};
use proto::ids::InfoHashV1;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// A peer that only spoofed answers name.
const SPOOFED_PEER: u16 = 6_666;
/// How often somebody guesses by what an answer is known: fewer than have its source muted.
const GUESSES: usize = 4;
/// The first hosts of the liars.
const SYBIL_HOSTS: u32 = 60_000;

/// A torrent by number; the numbers are spread over the space of ids.
pub fn torrent(number: u64) -> InfoHashV1 {
    let mut random = Random::new(number ^ 0x7e57);
    InfoHashV1(std::array::from_fn(|_| random.next_u64() as u8))
}

struct Host {
    address: SocketAddr,
    node: Node,
    is_up: bool,
    found: BTreeMap<InfoHashV1, BTreeSet<SocketAddr>>,
    announced: BTreeMap<InfoHashV1, usize>,
}

/// Hosts that answer every search with each other, under ids next to what is searched, and keep
/// peers to themselves.
pub struct Sybils {
    addresses: Vec<SocketAddr>,
    asked: usize,
}

impl Sybils {
    /// One host with so many ports.
    pub fn of_one_host(ports: u16) -> Sybils {
        let ip = v4(SYBIL_HOSTS);
        Sybils {
            addresses: (1..=ports).map(|port| SocketAddr::new(ip, port)).collect(),
            asked: 0,
        }
    }

    /// So many hosts.
    pub fn of_hosts(count: u32) -> Sybils {
        let address = |host| SocketAddr::new(v4(SYBIL_HOSTS + host), 6_881);
        Sybils {
            addresses: (0..count).map(address).collect(),
            asked: 0,
        }
    }

    /// The id by which it is known where this is searched: next to it, and its own for each
    /// address.
    fn id(&self, address: SocketAddr, target: &NodeId) -> NodeId {
        let index = self.addresses.iter().position(|other| *other == address);
        let mut id = *target;
        id.0[18] ^= 1 + (index.unwrap_or(0) >> 8) as u8;
        id.0[19] ^= index.unwrap_or(0) as u8;
        id
    }

    fn answer(
        &mut self,
        at: SocketAddr,
        message: &Message,
        random: &mut Random,
    ) -> Option<Vec<u8>> {
        let Body::Query { query, id, .. } = &message.body else {
            return None;
        };
        self.asked += 1;
        let target = match query {
            Query::FindNode { target, .. } => *target,
            Query::GetPeers { info_hash, .. } | Query::AnnouncePeer { info_hash, .. } => {
                NodeId::from(*info_hash)
            }
            _ => *id,
        };
        let mut reply = Reply::of(self.id(at, &target));
        reply.token = Token::new(b"lie");
        for _ in 0..8 {
            let index = random.below(self.addresses.len() as u64) as usize;
            let address = self.addresses[index];
            let id = self.id(address, &target);
            reply.nodes.push(Contact { id, address });
        }
        let answer = Message {
            transaction: message.transaction,
            body: Body::Reply(reply),
            seen: None,
        };
        Some(answer.encode())
    }
}

type Packet = (Time, u64, SocketAddr, SocketAddr, Vec<u8>);

/// See the module.
pub struct Network {
    family: Family,
    config: NodeConfig,
    random: Random,
    now: Time,
    hosts: Vec<Host>,
    by_address: BTreeMap<SocketAddr, usize>,
    packets: BinaryHeap<Reverse<Packet>>,
    wakes: BinaryHeap<Reverse<(Time, usize)>>,
    sent: u64,
    sybils: Option<Sybils>,
    /// Of a hundred datagrams so many are lost.
    pub loss_percent: u64,
    /// Whether every query is also answered by somebody who guesses.
    pub spoofs: bool,
    /// How often that was done.
    pub spoofed: usize,
}

fn v4(number: u32) -> std::net::IpAddr {
    Ipv4Addr::from(0x0900_0001 + (number << 8)).into()
}

impl Network {
    pub fn new(family: Family, config: NodeConfig, seed: u64) -> Network {
        Network {
            family,
            config,
            random: Random::new(seed),
            now: Time(1),
            hosts: Vec::new(),
            by_address: BTreeMap::new(),
            packets: BinaryHeap::new(),
            wakes: BinaryHeap::new(),
            sent: 0,
            sybils: None,
            loss_percent: 0,
            spoofs: false,
            spoofed: 0,
        }
    }

    /// A node joins: it knows one other, and every second its address.
    pub fn join(&mut self) -> usize {
        let number = self.hosts.len();
        let ip = match self.family {
            Family::V4 => v4(number as u32),
            Family::V6 => {
                let number = number as u16 + 1;
                Ipv6Addr::new(0x2600, number, number, 0, 0, 0, 0, 1).into()
            }
        };
        let address = SocketAddr::new(ip, 6_881);
        let key: [u8; 16] = std::array::from_fn(|_| self.random.next_u64() as u8);
        let known = number.is_multiple_of(2).then_some(ip);
        let mut node = Node::new(self.config, self.family, key, known, None, self.now);
        if number > 0 {
            let other = self.pick();
            node.bootstrap(&[(None, self.hosts[other].address)], self.now);
        }
        self.hosts.push(Host {
            address,
            node,
            is_up: true,
            found: BTreeMap::new(),
            announced: BTreeMap::new(),
        });
        self.by_address.insert(address, number);
        self.touched(number);
        number
    }

    /// A node goes without a word.
    pub fn leave(&mut self, host: usize) {
        self.hosts[host].is_up = false;
    }

    /// A node that is there.
    pub fn pick(&mut self) -> usize {
        loop {
            let host = self.random.below(self.hosts.len() as u64) as usize;
            if self.hosts[host].is_up {
                return host;
            }
        }
    }

    /// Liars join: a third of the nodes ask them, and hear of the rest.
    pub fn attack(&mut self, sybils: Sybils) {
        for host in (0..self.hosts.len()).step_by(3) {
            for _ in 0..5 {
                let index = self.random.below(sybils.addresses.len() as u64) as usize;
                let address = sybils.addresses[index];
                self.hosts[host].node.suggest(address, self.now);
            }
            self.touched(host);
        }
        self.sybils = Some(sybils);
    }

    pub fn search(&mut self, host: usize, info_hash: InfoHashV1, announce: Option<u16>) {
        let begun = self.hosts[host].node.search(info_hash, announce, self.now);
        assert!(begun.is_some(), "a node that knows others can search");
        self.touched(host);
    }

    /// Lets time pass.
    pub fn run(&mut self, duration: Duration) {
        let until = self.now + duration;
        loop {
            let packet = self.packets.peek().map(|Reverse(packet)| packet.0);
            let wake = self.wakes.peek().map(|Reverse(wake)| wake.0);
            let next = packet.into_iter().chain(wake).min();
            match next {
                Some(next) if next <= until => self.now = self.now.max(next),
                _ => break,
            }
            if packet == next {
                self.deliver();
            } else {
                self.wake();
            }
        }
        self.now = until;
    }

    fn deliver(&mut self) {
        let Some(Reverse((_, _, from, to, datagram))) = self.packets.pop() else {
            return;
        };
        if let Some(&host) = self.by_address.get(&to) {
            if self.hosts[host].is_up {
                self.hosts[host]
                    .node
                    .handle(from, &datagram, None, self.now);
                self.touched(host);
            }
            return;
        }
        let Some(sybils) = &mut self.sybils else {
            return;
        };
        let message = Message::decode(&datagram).expect("ours are right");
        if let Some(answer) = sybils.answer(to, &message, &mut self.random) {
            self.send(to, from, answer);
        }
    }

    fn wake(&mut self) {
        let Some(Reverse((_, host))) = self.wakes.pop() else {
            return;
        };
        // Those that were made out of date by what came meanwhile are many.
        if self.hosts[host].is_up && self.hosts[host].node.next_timeout() <= self.now {
            self.hosts[host].node.handle_timeout(self.now);
            self.touched(host);
        }
    }

    fn touched(&mut self, number: usize) {
        while let Some(output) = self.hosts[number].node.poll() {
            let host = &mut self.hosts[number];
            match output {
                Output::Send { to, datagram } => {
                    let from = host.address;
                    self.send(from, to, datagram);
                }
                Output::Event(Event::Peers {
                    info_hash, peers, ..
                }) => host.found.entry(info_hash).or_default().extend(peers),
                Output::Event(Event::Done {
                    info_hash,
                    announced,
                    ..
                }) => _ = host.announced.insert(info_hash, announced),
                Output::Event(Event::OtherFamily(_) | Event::Renamed { .. }) => {}
            }
        }
        let next = self.hosts[number].node.next_timeout();
        self.wakes.push(Reverse((next, number)));
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, datagram: Vec<u8>) {
        if self.spoofs {
            self.spoof(from, to, &datagram);
        }
        if self.random.below(100) < self.loss_percent {
            return;
        }
        let way = Duration::from_millis(10 + self.random.below(140));
        self.sent += 1;
        let packet = (self.now + way, self.sent, from, to, datagram);
        self.packets.push(Reverse(packet));
    }

    /// Somebody who knows who asks whom answers first, but has to guess what by.
    fn spoof(&mut self, from: SocketAddr, to: SocketAddr, datagram: &[u8]) {
        let message = Message::decode(datagram).expect("ours are right");
        let Body::Query { .. } = message.body else {
            return;
        };
        let mut reply = Reply::of(NodeId([9; 20]));
        reply.peers = vec![SocketAddr::new(v4(1), SPOOFED_PEER)];
        for _ in 0..GUESSES {
            let guess = (self.random.next_u64() as u32).to_be_bytes();
            let answer = Message {
                transaction: TransactionId::new(&guess).expect("four bytes fit"),
                body: Body::Reply(reply.clone()),
                seen: Some(SocketAddr::new(v4(2), 1)),
            };
            self.sent += 1;
            self.spoofed += 1;
            let packet = (self.now, self.sent, to, from, answer.encode());
            self.packets.push(Reverse(packet));
        }
    }

    pub fn peer_of(&self, host: usize, port: u16) -> SocketAddr {
        SocketAddr::new(self.hosts[host].address.ip(), port)
    }

    pub fn announced(&self, host: usize, info_hash: InfoHashV1) -> usize {
        let announced = &self.hosts[host].announced;
        announced.get(&info_hash).copied().unwrap_or(0)
    }

    pub fn has_found(&self, host: usize, info_hash: InfoHashV1, peer: SocketAddr) -> bool {
        let found = self.hosts[host].found.get(&info_hash);
        found.is_some_and(|found| found.contains(&peer))
    }

    pub fn found_count(&self, host: usize, info_hash: InfoHashV1) -> usize {
        self.hosts[host]
            .found
            .get(&info_hash)
            .map_or(0, BTreeSet::len)
    }

    pub fn spoofed_peers_found(&self) -> usize {
        let found = self.hosts.iter().flat_map(|host| host.found.values());
        found
            .flatten()
            .filter(|peer| peer.port() == SPOOFED_PEER)
            .count()
    }

    /// The fewest nodes that any node knows.
    pub fn known_least(&self) -> usize {
        let up = self.hosts.iter().filter(|host| host.is_up);
        up.map(|host| host.node.table().len()).min().unwrap_or(0)
    }

    /// Queries that all nodes have sent.
    pub fn queries(&self) -> u64 {
        let counters = self.hosts.iter().map(|host| host.node.counters());
        counters.map(|counters| counters.queries).sum()
    }

    /// Whether every node's id is one that its address allows.
    pub fn all_bound(&self) -> bool {
        let mut hosts = self.hosts.iter().filter(|host| host.is_up);
        hosts.all(|host| host.node.id().is_bound_to(host.address.ip()))
    }

    pub fn sybils_asked(&self) -> usize {
        self.sybils.as_ref().map_or(0, |sybils| sybils.asked)
    }

    /// The most places that the liars have in the table of any node.
    pub fn sybil_places_most(&self) -> usize {
        let is_sybil = |contact: &&Contact| !self.by_address.contains_key(&contact.address);
        let places = |host: &Host| {
            let known = host.node.known(usize::MAX);
            known.iter().filter(is_sybil).count()
        };
        self.hosts.iter().map(places).max().unwrap_or(0)
    }
}
