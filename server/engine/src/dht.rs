//! A node of the DHT, of one address family: a state machine without I/O (BEP 5, 32, 42, 43, 45).
//!
//! Datagrams come in by [`Node::handle`], time by [`Node::handle_timeout`] when
//! [`Node::next_timeout`] says so; what is to be sent and what is to be told comes out by
//! [`Node::poll`], which is to be called until it is empty after each other call. Randomness is a
//! key that the caller draws once. A host with addresses of both families runs a node for each (BEP
//! 32, 45), with ids of their own, and hands each the other's [`Table`] when asked for nodes of
//! both.
//!
//! **What strangers can make it do**
//! - *Receive*: so many datagrams a second of one source; who sends more is muted (`sources`), but
//!   for answers that we wait for. What is no message, answers nothing that we asked, or comes from elsewhere than we asked, is
//!   dropped.
//! - *Send*: answers of [`NodeConfig::reply_bytes_per_second`] in all. As long as a source has not
//!   shown that it receives what is sent to its address, an answer and the ping that may go with it
//!   have at most [`AMPLIFICATION_MAX`] times the bytes of its query: fewer nodes and peers, then
//!   none.
//! - *Remember*: peers as `storage` says, and only of those who show a token that was sent to their
//!   address within the last 5 to 10 minutes; nodes as `table` says, and only those that have
//!   answered us.
//! - *Ask*: [`NodeConfig::queries_per_second`] in all, 128 in one search. A node at a global
//!   address is not believed when it names nodes or peers inside a network.
//!
//! Loopback and private addresses are as good as any other to those who are there themselves: they
//! have no place in BEP 42, and their sockets are told apart by port (`site`).
//!
//! Limits: [`NodeConfig`], `lookup`, `table`, `storage`, `sources`. Does not: store items (BEP 44),
//! resolve names, say when to announce.

mod answering;
mod asking;
mod lookup;
mod secret;
mod site;
mod sources;
mod storage;
mod table;
#[cfg(test)]
mod tests;
mod votes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use proto::address::{self, is_global};
use proto::dht::{Contact, NodeId};
use proto::ids::InfoHashV1;

use crate::time::Time;
use asking::Transaction;
use lookup::{Goal, Lookup};
use secret::{Secret, SecretRandom};
use site::Site;
use sources::{Pace, Sources};
use storage::Storage;
use votes::Votes;

pub use lookup::LookupId;
pub use storage::StorageLimits;
pub use table::{BUCKET_NODES, Table};

/// Bytes sent for a byte received while the return path is not proven.
pub const AMPLIFICATION_MAX: usize = 3;
/// A datagram that we send, in bytes (BEP 32).
const DATAGRAM_BYTES_MAX: usize = 1_024;
/// How often what has no time of its own is looked after.
const TICK: Duration = Duration::from_secs(5);
/// How often the secret of tokens changes; one is taken until the change after the next.
const SECRET_LIFETIME: Duration = Duration::from_secs(5 * 60);
/// How often stored peers are looked through.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);
/// How long a search may take.
const LOOKUP_MAX: Duration = Duration::from_secs(90);
/// How often our id may change.
const RENAME_EVERY: Duration = Duration::from_secs(30 * 60);
/// Nodes that wait to be pinged; more are dropped.
const PINGS_MAX: usize = 64;
/// Nodes to begin with that are remembered as such; of further ones each is like any other.
const ROUTERS_MAX: usize = 64;
/// Nodes that a search begins with.
const LOOKUP_NODES: usize = 16;
/// Who knows fewer nodes than this looks for more once a minute.
const NODES_FEW: usize = 2 * BUCKET_NODES;
/// See [`NODES_FEW`].
const FEW_AGAIN: Duration = Duration::from_secs(60);
/// Searches beyond `lookups_max` for our own upkeep.
const OWN_LOOKUPS_MAX: usize = 2;

/// How a node behaves.
#[derive(Clone, Copy, Debug)]
pub struct NodeConfig {
    /// Answers no queries, and says so (BEP 43): for a host that is not reached from outside, or
    /// soon gone.
    pub read_only: bool,
    /// Searches at a time.
    pub lookups_max: usize,
    /// Queries that we send a second.
    pub queries_per_second: u32,
    /// Bytes of answers that we send a second.
    pub reply_bytes_per_second: u32,
    /// Datagrams that one source may send a second.
    pub source_packets_per_second: u32,
    /// Datagrams that one source may send at once.
    pub source_packets_at_once: u32,
    /// Sources that are told apart; beyond it some share their pace.
    pub sources_max: usize,
    /// How long a source is not heard that sends more.
    pub mute: Duration,
    /// After so long without an answer, another node is asked beside.
    pub slow_after: Duration,
    /// After so long without an answer, none is waited for.
    pub answer_timeout: Duration,
    /// Queries that wait for an answer at a time.
    pub transactions_max: usize,
    /// What is stored for others.
    pub storage: StorageLimits,
}

impl Default for NodeConfig {
    fn default() -> NodeConfig {
        NodeConfig {
            read_only: false,
            lookups_max: 32,
            queries_per_second: 250,
            reply_bytes_per_second: 64 << 10,
            source_packets_per_second: 20,
            source_packets_at_once: 60,
            sources_max: 8_192,
            mute: Duration::from_secs(60),
            slow_after: Duration::from_secs(1),
            answer_timeout: Duration::from_secs(5),
            transactions_max: 1_024,
            storage: StorageLimits::default(),
        }
    }
}

/// The family of a node's addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl Family {
    /// Of this address.
    pub fn of(address: SocketAddr) -> Family {
        match address {
            SocketAddr::V4(_) => Family::V4,
            SocketAddr::V6(_) => Family::V6,
        }
    }
}

/// What a node wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Send this.
    Send {
        /// Where to.
        to: SocketAddr,
        /// What.
        datagram: Vec<u8>,
    },
    /// Know this.
    Event(Event),
}

/// What a node tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A search has found peers; the same may come again.
    Peers {
        /// The search.
        lookup: LookupId,
        /// The torrent.
        info_hash: InfoHashV1,
        /// The peers.
        peers: Vec<SocketAddr>,
    },
    /// A search of the caller has ended.
    Done {
        /// The search.
        lookup: LookupId,
        /// The torrent.
        info_hash: InfoHashV1,
        /// Nodes that answered.
        answers: usize,
        /// Nodes that took our announce.
        announced: usize,
    },
    /// Nodes of the other family, of use to its node if that knows few.
    OtherFamily(Vec<Contact>),
    /// Others see us at another address, so that we have another id (BEP 42).
    Renamed {
        /// The address.
        address: IpAddr,
    },
}

/// What a node has counted since its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Datagrams received.
    pub received: u64,
    /// Dropped: their source sends too many.
    pub muted: u64,
    /// Dropped: no message, or one that cannot be from a node.
    pub malformed: u64,
    /// Dropped: answers to nothing that we asked there.
    pub unsolicited: u64,
    /// Not answered: the bytes for answers were used up.
    pub over_rate: u64,
    /// Not answered: we are read-only.
    pub not_served: u64,
    /// Queries answered.
    pub answered: u64,
    /// Announces stored.
    pub stored: u64,
    /// Announces refused: a wrong token, or no room.
    pub refused: u64,
    /// Queries sent.
    pub queries: u64,
    /// Answers received to them.
    pub answers: u64,
    /// Queries that nobody answered in time.
    pub timeouts: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
}

/// See the module.
pub struct Node {
    config: NodeConfig,
    family: Family,
    id: NodeId,
    random: SecretRandom,
    /// What tokens are made with now, and was before.
    secrets: [Secret; 2],
    secret_until: Time,
    table: Table,
    storage: Storage,
    sources: Sources,
    votes: Votes,
    renamed_at: Option<Time>,
    lookups: BTreeMap<LookupId, Lookup>,
    /// Of the searches, those that the caller does not know of.
    own: BTreeSet<LookupId>,
    lookups_begun: u64,
    /// The search by which others are got to know at the start.
    bootstrap: Option<LookupId>,
    /// Those whom everybody begins with: they have enough to do, and keep no place once others are
    /// known (BEP 5).
    routers: BTreeSet<SocketAddr>,
    /// The search that asked last: the next one is to ask next.
    lookup_cursor: LookupId,
    transactions: BTreeMap<u32, Transaction>,
    /// How many of those wait for an answer from there.
    asked: BTreeMap<SocketAddr, usize>,
    deadlines: BTreeSet<(Time, u32)>,
    pings: VecDeque<(Option<NodeId>, SocketAddr)>,
    queries: Pace,
    queries_spent: Time,
    replies: Pace,
    replies_spent: Time,
    ping_backs: Pace,
    ping_backs_spent: Time,
    /// Queries wait for their pace.
    is_held: bool,
    tick_at: Time,
    few_at: Time,
    expire_at: Time,
    outputs: VecDeque<Output>,
    counters: Counters,
}

impl Node {
    /// A node that knows nobody. `key` is secret and random; `address` is ours as others see it, if
    /// that is known; `id` the one that we had, which is kept if the address allows it.
    pub fn new(
        config: NodeConfig,
        family: Family,
        key: [u8; 16],
        address: Option<IpAddr>,
        id: Option<NodeId>,
        now: Time,
    ) -> Node {
        let mut random = SecretRandom::new(Secret::new(key));
        let address = address.filter(|&address| is_global(address));
        let kept = id.filter(|id| address.is_none_or(|address| id.is_bound_to(address)));
        let id = kept.unwrap_or_else(|| match address {
            Some(address) => NodeId::bound_to(address, random.bytes()),
            None => NodeId(random.bytes()),
        });
        let per_source = Pace::new(
            config.source_packets_per_second,
            config.source_packets_at_once,
        );
        let mut secret = || Secret::new(random.bytes());
        let (secrets, of_sources) = ([secret(), secret()], secret());
        Node {
            family,
            id,
            secrets,
            secret_until: now + SECRET_LIFETIME,
            table: Table::new(id),
            storage: Storage::new(config.storage, id),
            sources: Sources::new(of_sources, config.sources_max, per_source, config.mute),
            votes: Votes::default(),
            renamed_at: None,
            lookups: BTreeMap::new(),
            own: BTreeSet::new(),
            lookups_begun: 0,
            bootstrap: None,
            routers: BTreeSet::new(),
            lookup_cursor: LookupId(0),
            transactions: BTreeMap::new(),
            asked: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            pings: VecDeque::new(),
            queries: Pace::new(config.queries_per_second, config.queries_per_second),
            queries_spent: Time(0),
            replies: Pace::new(
                config.reply_bytes_per_second,
                config.reply_bytes_per_second.max(DATAGRAM_BYTES_MAX as u32),
            ),
            replies_spent: Time(0),
            ping_backs: Pace::new(2, 10),
            ping_backs_spent: Time(0),
            is_held: false,
            tick_at: now,
            few_at: now + FEW_AGAIN,
            expire_at: now + EXPIRE_EVERY,
            outputs: VecDeque::new(),
            counters: Counters::default(),
            random,
            config,
        }
    }

    /// Our id.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The family of its addresses.
    pub fn family(&self) -> Family {
        self.family
    }

    /// The nodes that we know.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Peers that we store for others, and of how many torrents.
    pub fn stored(&self) -> (usize, usize) {
        self.storage.counts()
    }

    /// What was counted.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Searches under way.
    pub fn lookups(&self) -> usize {
        self.lookups.len()
    }

    /// Whether others are known, and nothing more is to be learned by asking at once who is near
    /// us, but from those who take long.
    pub fn is_ready(&self) -> bool {
        let lookup = self.bootstrap.and_then(|id| self.lookups.get(&id));
        !self.table.is_empty() && lookup.is_none_or(Lookup::is_settled)
    }

    /// Whether [`Node::search`] would begin a search.
    pub fn can_search(&self) -> bool {
        let theirs = self.lookups.len() - self.own.len();
        theirs < self.config.lookups_max && !self.table.is_empty()
    }

    /// Up to `count` nodes to begin with after a restart, the nearest first.
    pub fn known(&self, count: usize) -> Vec<Contact> {
        self.table.nearest(&self.id, count, |_| true)
    }

    /// Asks these nodes for others near us: at the start, and when all others have gone. Those
    /// whose ids are not known are there for everybody, and keep no place once others are known.
    pub fn bootstrap(&mut self, nodes: &[(Option<NodeId>, SocketAddr)], now: Time) {
        let id = self.begin(self.id, Goal::Nodes, now);
        self.own.insert(id);
        // Who knows others already does not wait for those who may be gone.
        if self.bootstrap.is_none() || self.table.is_empty() {
            self.bootstrap = Some(id);
        }
        let family = self.family;
        if let Some(lookup) = self.lookups.get_mut(&id) {
            lookup.both_families = true;
            for (id, address) in nodes {
                if Family::of(*address) == family && is_host(*address) {
                    lookup.add(*id, *address);
                    if id.is_none() && self.routers.len() < ROUTERS_MAX {
                        self.routers.insert(*address);
                    }
                }
            }
        }
        self.pump(now);
    }

    /// A node that may be there: it is asked when there is time for it.
    pub fn suggest(&mut self, address: SocketAddr, now: Time) {
        if Family::of(address) == self.family
            && is_host(address)
            && self.pings.len() < PINGS_MAX
            && !self.pings.iter().any(|(_, waiting)| *waiting == address)
        {
            self.pings.push_back((None, address));
            self.pump(now);
        }
    }

    /// Searches peers of a torrent, and announces it at a port if one is given. `None` while too
    /// many searches are under way, or nobody is known who could be asked.
    pub fn search(
        &mut self,
        info_hash: InfoHashV1,
        announce: Option<u16>,
        now: Time,
    ) -> Option<LookupId> {
        if !self.can_search() {
            return None;
        }
        let goal = Goal::Peers { announce };
        let id = self.begin(info_hash.into(), goal, now);
        self.pump(now);
        Some(id)
    }

    /// Ends the searches for a torrent without a word.
    pub fn cancel(&mut self, info_hash: InfoHashV1) {
        let of_it = |lookup: &Lookup| {
            lookup.target == info_hash.into() && matches!(lookup.goal, Goal::Peers { .. })
        };
        self.lookups.retain(|_, lookup| !of_it(lookup));
    }

    /// Takes a datagram. `other` is the table of the other family's node.
    pub fn handle(&mut self, from: SocketAddr, datagram: &[u8], other: Option<&Table>, now: Time) {
        self.counters.received += 1;
        self.counters.bytes_in += datagram.len() as u64;
        if Family::of(from) != self.family || !is_host(from) {
            self.counters.malformed += 1;
            return;
        }
        let admitted = self.sources.admit(Site::of(from), now);
        // A flood by somebody who says to be here takes no answer away that we wait for.
        if !admitted && !self.waits_for(from, datagram) {
            self.counters.muted += 1;
            return;
        }
        self.handle_admitted(from, datagram, other, now);
        self.pump(now);
    }

    /// When [`Node::handle_timeout`] is to be called at the latest.
    pub fn next_timeout(&self) -> Time {
        let mut next = self.tick_at;
        if let Some((deadline, _)) = self.deadlines.first() {
            next = next.min(*deadline);
        }
        if self.is_held {
            next = next.min(self.queries.ready_at(self.queries_spent));
        }
        next
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        self.expire_transactions(now);
        if self.tick_at <= now {
            self.tick_at = now + TICK;
            self.tick(now);
        }
        self.pump(now);
    }

    /// What is to be done next.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn tick(&mut self, now: Time) {
        if self.secret_until <= now {
            self.secret_until = now + SECRET_LIFETIME;
            let next = Secret::new(self.random.bytes());
            self.secrets[1] = std::mem::replace(&mut self.secrets[0], next);
        }
        if self.expire_at <= now {
            self.expire_at = now + EXPIRE_EVERY;
            self.storage.expire(now);
        }
        let over: Vec<LookupId> = self
            .lookups
            .iter()
            .filter(|(_, lookup)| lookup.deadline <= now)
            .map(|(id, _)| *id)
            .collect();
        over.into_iter().for_each(|id| self.end(id));
        if let Some(contact) = self.table.questionable(now) {
            self.ask(
                Some(contact.id),
                contact.address,
                asking::Purpose::Ping,
                now,
            );
        }
        self.look_after_table(now);
    }

    /// Searches where there was no search for long, and near us while few nodes are known.
    fn look_after_table(&mut self, now: Time) {
        if self.own.len() >= OWN_LOOKUPS_MAX || self.table.is_empty() {
            return;
        }
        if self.table.len() > NODES_FEW {
            self.table.leave_out(&self.routers);
        }
        let is_due = self.few_at <= now && self.table.len() < NODES_FEW;
        let target = if is_due {
            self.few_at = now + FEW_AGAIN;
            self.id
        } else if let Some(common) = self.table.unsearched(now) {
            self.id.beside(common, self.random.bytes())
        } else {
            return;
        };
        let id = self.begin(target, Goal::Nodes, now);
        self.own.insert(id);
    }

    /// Others see us at this address.
    fn seen_at(&mut self, voter: SocketAddr, seen: SocketAddr, now: Time) {
        let Some(address) = self.votes.vote(Site::of(voter), seen.ip()) else {
            return;
        };
        let lately = |renamed| now.since(renamed) < RENAME_EVERY;
        let is_ours = Family::of(SocketAddr::new(address, 1)) == self.family;
        if !is_ours || self.id.is_bound_to(address) || self.renamed_at.is_some_and(lately) {
            return;
        }
        self.renamed_at = Some(now);
        self.votes.clear();
        self.id = NodeId::bound_to(address, self.random.bytes());
        self.table.rename(self.id);
        self.storage.rename(self.id);
        self.tell(Event::Renamed { address });
        let id = self.begin(self.id, Goal::Nodes, now);
        self.own.insert(id);
    }

    fn begin(&mut self, target: NodeId, goal: Goal, now: Time) -> LookupId {
        self.lookups_begun += 1;
        let id = LookupId(self.lookups_begun);
        let mut lookup = Lookup::new(target, goal, now + LOOKUP_MAX);
        for contact in self.table.nearest(&target, LOOKUP_NODES, |_| true) {
            lookup.add(Some(contact.id), contact.address);
        }
        self.table.searched(&target, now);
        self.lookups.insert(id, lookup);
        id
    }

    fn send(&mut self, to: SocketAddr, datagram: Vec<u8>) {
        self.counters.bytes_out += datagram.len() as u64;
        self.outputs.push_back(Output::Send { to, datagram });
    }

    fn tell(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }
}

/// Whether a single host can be there.
fn is_host(address: SocketAddr) -> bool {
    let ip = address.ip();
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast() || v4.octets()[0] == 0);
    address.port() != 0 && !ip.is_multicast() && !ip.is_unspecified() && !broadcast
}

/// Whether who is at `other` may send us to `address`, or be told of it: nobody outside sends us
/// inside, or has a use for what is there.
fn may_name(other: SocketAddr, address: SocketAddr) -> bool {
    is_host(address) && address::may_name(other.ip(), address)
}
