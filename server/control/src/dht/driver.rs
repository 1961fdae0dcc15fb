//! The task of the DHT: sockets, timers and names on the one side, nodes and schedule on the other.
//!
//! Limits: [`BURST`] datagrams are taken from a socket before everything else has its turn; one
//! look-up of names at a time.

use super::loneliness::{Loneliness, Resolved};
use super::saved::{self, NODES_MAX, Saved};
use super::schedule::{Ready, index};
use super::socket::Socket;
use super::{DhtConfig, NODES_ENOUGH, Shared};
use engine::dht::{Counters, Event, Family, Node, NodeConfig, Output, StorageLimits};
use engine::peer_list::PeerSource;
use engine::time::Time;
use proto::dht::{Contact, NodeId};
use seedring_metrics::{ControlCells, ControlCounter, ControlGauge};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Datagrams taken from one socket at a time.
const BURST: usize = 64;
/// Longer than any datagram that is taken, so that one that is too long shows.
const BUFFER_BYTES: usize = 2_048;
/// How often numbers are published, and what is overdue is counted.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);
/// How often the nodes that we know are saved.
const SAVE_EVERY: Duration = Duration::from_secs(10 * 60);
/// How soon nodes are looked for again while too few are known, at first and at most.
const BOOTSTRAP_MIN: Duration = Duration::from_secs(5);
const BOOTSTRAP_MAX: Duration = Duration::from_secs(5 * 60);
/// How long a name may take to be resolved.
const LOOKUP_MAX: Duration = Duration::from_secs(10);
/// Addresses of one name that are used.
const ADDRESSES_MAX: usize = 8;
/// Nodes of the other family that are handed over at a time.
const HANDED_OVER_MAX: usize = 8;

/// A node and its socket.
struct Endpoint {
    node: Node,
    socket: Socket,
    published: Counters,
}

impl Endpoint {
    /// Sends what the node wants sent, and hands on what it tells.
    fn flush(&mut self, now: Time, mut tell: impl FnMut(Event)) {
        while let Some(output) = self.node.poll() {
            match output {
                Output::Send { to, datagram } => self.socket.send(to, &datagram, now),
                Output::Event(event) => tell(event),
            }
        }
    }
}

/// See the module.
pub(super) struct Driver {
    endpoints: Vec<Endpoint>,
    bootstrap: Vec<String>,
    /// Nodes of the last run, by family; asked until some node is known.
    kept: [Saved; 2],
    saved: Option<PathBuf>,
    /// It is soon gone: the id of another run stays in the file.
    read_only: bool,
    peer_port: u16,
    cells: Arc<ControlCells>,
    bootstrap_at: Time,
    bootstrap_pause: Duration,
    save_at: Time,
    publish_at: Time,
    names: mpsc::Receiver<Resolved>,
    named: mpsc::Sender<Resolved>,
    loneliness: Loneliness,
}

/// What the task waited for.
enum Woken {
    Readable(usize),
    Names(Resolved),
    Due,
    Stopped,
}

impl Driver {
    pub(super) fn new(
        config: &DhtConfig,
        peer_port: u16,
        sockets: Vec<Socket>,
        cells: Arc<ControlCells>,
        shared: &Shared,
    ) -> Driver {
        let now = shared.now();
        let kept = config.saved.as_deref().map(saved::read).unwrap_or_default();
        let node_config = NodeConfig {
            read_only: config.read_only,
            queries_per_second: config.queries_per_second,
            reply_bytes_per_second: config.reply_bytes_per_second,
            storage: StorageLimits {
                peers_max: config.stored_peers_max,
                ..StorageLimits::default()
            },
            ..NodeConfig::default()
        };
        let endpoints = sockets.into_iter().zip(config.keys).map(|(socket, key)| {
            let address = socket.address();
            let family = Family::of(address);
            // Who is soon gone takes no id that another run may have.
            let id = kept[index(family)].id.filter(|_| !config.read_only);
            let ip = Some(address.ip());
            Endpoint {
                node: Node::new(node_config, family, key, ip, id, now),
                socket,
                published: Counters::default(),
            }
        });
        let (named, names) = mpsc::channel(1);
        Driver {
            endpoints: endpoints.collect(),
            bootstrap: config.bootstrap.clone(),
            kept,
            saved: config.saved.clone(),
            read_only: config.read_only,
            peer_port,
            cells,
            bootstrap_at: now,
            bootstrap_pause: BOOTSTRAP_MIN,
            save_at: now + SAVE_EVERY,
            publish_at: now,
            names,
            named,
            loneliness: Loneliness::new(now),
        }
    }

    /// Runs until it is stopped or the last handle is gone.
    pub(super) async fn run(mut self, shared: Weak<Shared>, mut stopped: watch::Receiver<bool>) {
        // What is sent before the runtime knows that it can be is dropped, and those whom we knew
        // at the end of the last run are asked first of all.
        for endpoint in &self.endpoints {
            endpoint.socket.writable().await;
        }
        let Some(mut now) = shared.upgrade().map(|shared| shared.now()) else {
            return;
        };
        loop {
            let due = match shared.upgrade() {
                Some(shared) => self.work(&shared, now),
                None => break,
            };
            let woken = self.wait(&shared, due, &mut stopped).await;
            now = match shared.upgrade() {
                Some(shared) => shared.now(),
                None => break,
            };
            match woken {
                Woken::Readable(endpoint) => self.receive(endpoint, now),
                Woken::Names(resolved) => self.take_names(resolved, now),
                Woken::Due => {}
                Woken::Stopped => break,
            }
        }
        self.save();
    }

    /// Does everything that is due, and answers when the next is.
    fn work(&mut self, shared: &Shared, now: Time) -> Time {
        self.take_suggestions(shared, now);
        self.reopen(now);
        for endpoint in &mut self.endpoints {
            if endpoint.node.next_timeout() <= now {
                endpoint.node.handle_timeout(now);
            }
        }
        if self.bootstrap_at <= now {
            self.bootstrap(now);
        }
        self.alone(now);
        self.begin_searches(shared, now);
        self.take_outputs(shared, now);
        if self.publish_at <= now {
            self.publish_at = now + PUBLISH_EVERY;
            self.publish(shared, now);
            for endpoint in &mut self.endpoints {
                endpoint.socket.look(now);
            }
        }
        if self.save_at <= now {
            self.save_at = now + SAVE_EVERY;
            tokio::task::block_in_place(|| self.save());
        }
        let nodes = self.endpoints.iter().map(|one| one.node.next_timeout());
        let lost = self.endpoints.iter().filter_map(|one| one.socket.due());
        // What is due and could not begin waits for an answer to somebody else.
        let search = shared.state().schedule.due().filter(|due| *due > now);
        let own = [self.bootstrap_at, self.save_at, self.publish_at];
        let all = nodes.chain(lost).chain(own).chain(search);
        all.min().unwrap_or(Time::NEVER)
    }

    async fn wait(
        &mut self,
        shared: &Weak<Shared>,
        due: Time,
        stopped: &mut watch::Receiver<bool>,
    ) -> Woken {
        let Some(strong) = shared.upgrade() else {
            return Woken::Stopped;
        };
        let at = strong.start + due.since(Time(1));
        let changed = strong.changed.notified();
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => Woken::Stopped,
            endpoint = readable(&self.endpoints) => Woken::Readable(endpoint),
            Some(resolved) = self.names.recv() => Woken::Names(resolved),
            () = changed => Woken::Due,
            () = tokio::time::sleep_until(at.into()) => Woken::Due,
        }
    }

    fn receive(&mut self, index: usize, now: Time) {
        let mut buffer = [0; BUFFER_BYTES];
        for _ in 0..BURST {
            let (before, rest) = self.endpoints.split_at_mut(index);
            let Some((endpoint, after)) = rest.split_first_mut() else {
                return;
            };
            let other = before.first().or(after.first());
            match endpoint.socket.receive(&mut buffer) {
                Ok((length, from)) => {
                    let other = other.map(|other| other.node.table());
                    let datagram = &buffer[..length];
                    endpoint.node.handle(canonical(from), datagram, other, now);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // What an earlier datagram met on its way (ICMP) is told here; the socket goes on.
                Err(_) => {}
            }
        }
    }

    /// Opens again what has gone. When it is there, nodes to begin with are asked soon.
    fn reopen(&mut self, now: Time) {
        for endpoint in &mut self.endpoints {
            if endpoint.socket.reopen(now) {
                self.bootstrap_pause = BOOTSTRAP_MIN;
                self.bootstrap_at = self.bootstrap_at.min(now + BOOTSTRAP_MIN);
            }
        }
    }

    fn take_suggestions(&mut self, shared: &Shared, now: Time) {
        let (suggestions, removed) = {
            let mut state = shared.state();
            let state = &mut *state;
            (
                std::mem::take(&mut state.suggestions),
                std::mem::take(&mut state.removed),
            )
        };
        for endpoint in &mut self.endpoints {
            for address in &suggestions {
                endpoint.node.suggest(*address, now);
            }
            for info_hash in &removed {
                endpoint.node.cancel(*info_hash);
            }
        }
    }

    /// Begins what is due, as long as the nodes have room for it.
    fn begin_searches(&mut self, shared: &Shared, now: Time) {
        let nodes = self.endpoints.iter().map(|one| &one.node);
        let readiness = Ready::of_nodes(nodes.clone());
        let known = nodes.map(|node| node.table().len()).sum();
        let mut state = shared.state();
        state.nodes = known;
        state.schedule.set_ready(now, readiness);
        while let Some((info_hash, role)) = state.schedule.next(now) {
            let families = readiness.of(role);
            let ready = |one: &Endpoint| families[index(one.node.family())];
            let mut nodes = self.endpoints.iter().filter(|one| ready(one)).peekable();
            if nodes.peek().is_none() || !nodes.all(|one| one.node.can_search()) {
                return;
            }
            let port = (self.peer_port != 0 && role.is_told()).then_some(self.peer_port);
            let mut begun = 0;
            for endpoint in self.endpoints.iter_mut().filter(|one| ready(one)) {
                begun += usize::from(endpoint.node.search(info_hash, port, now).is_some());
            }
            state.schedule.begun(info_hash, begun);
            if begun == 0 {
                state.schedule.ended(now, info_hash, 0);
            }
        }
    }

    /// Sends what is to be sent, and takes what was found.
    fn take_outputs(&mut self, shared: &Shared, now: Time) {
        let mut others = Vec::new();
        for endpoint in &mut self.endpoints {
            endpoint.flush(now, |event| match event {
                Event::OtherFamily(nodes) => others.extend(nodes.into_iter().take(HANDED_OVER_MAX)),
                event => take_event(event, shared, &self.cells, now),
            });
        }
        if others.is_empty() {
            return;
        }
        for endpoint in &mut self.endpoints {
            let family = endpoint.node.family();
            let of_it = others
                .iter()
                .filter(|other| Family::of(other.address) == family);
            if endpoint.node.table().len() < NODES_ENOUGH {
                of_it.for_each(|other| endpoint.node.suggest(other.address, now));
            }
            endpoint.flush(now, |event| take_event(event, shared, &self.cells, now));
        }
    }

    /// Looks for nodes to begin with while too few are known.
    fn bootstrap(&mut self, now: Time) {
        let needy = |one: &Endpoint| one.node.table().len() < NODES_ENOUGH;
        self.bootstrap_at = now + self.bootstrap_pause;
        if !self.endpoints.iter().any(needy) {
            self.bootstrap_pause = BOOTSTRAP_MIN;
            self.bootstrap_at = now + BOOTSTRAP_MAX;
            return;
        }
        self.bootstrap_pause = (self.bootstrap_pause * 2).min(BOOTSTRAP_MAX);
        for endpoint in &mut self.endpoints {
            let kept = &mut self.kept[index(endpoint.node.family())].nodes;
            if !endpoint.node.table().is_empty() {
                // They have been asked, and who answered is in the table.
                kept.clear();
            } else if !kept.is_empty() {
                let kept = kept.iter().map(|node| (Some(node.id), node.address));
                endpoint.node.bootstrap(&kept.collect::<Vec<_>>(), now);
            }
        }
        if self.bootstrap.is_empty() {
            self.loneliness.nobody_is_named();
        } else if self.named.capacity() > 0 {
            let (names, named) = (self.bootstrap.clone(), self.named.clone());
            tokio::spawn(async move {
                let _ = named.try_send(resolve(names).await);
            });
        }
    }

    /// Says so when nobody answers, and when somebody does after all.
    fn alone(&mut self, now: Time) {
        let known: usize = self
            .endpoints
            .iter()
            .map(|one| one.node.table().len())
            .sum();
        self.loneliness.look(known, now);
    }

    fn take_names(&mut self, resolved: Resolved, now: Time) {
        let addresses = &resolved.addresses[..];
        for endpoint in &mut self.endpoints {
            if endpoint.node.table().len() >= NODES_ENOUGH {
                continue;
            }
            let nodes = addresses.iter().map(|address| (None::<NodeId>, *address));
            endpoint.node.bootstrap(&nodes.collect::<Vec<_>>(), now);
        }
        self.loneliness.resolved(resolved);
    }

    fn save(&self) {
        let Some(path) = &self.saved else {
            return;
        };
        // What another run of ours has written by now.
        let mut saved = saved::read(path);
        for endpoint in &self.endpoints {
            let mut nodes = endpoint.node.known(NODES_MAX);
            if nodes.is_empty() {
                // Better what was known before than nothing.
                continue;
            }
            let kept = &mut saved[index(endpoint.node.family())];
            if self.read_only {
                let is_new =
                    |other: &Contact| !nodes.iter().any(|one| one.address == other.address);
                let others: Vec<Contact> = kept.nodes.iter().copied().filter(is_new).collect();
                nodes.extend(others);
                nodes.truncate(NODES_MAX);
            } else {
                kept.id = Some(endpoint.node.id());
            }
            kept.nodes = nodes;
        }
        if saved.iter().all(|saved| saved.nodes.is_empty()) {
            return;
        }
        if let Err(error) = saved::write(path, &saved) {
            tracing::warn!(?path, %error, "cannot save the DHT nodes for the next start");
        }
    }

    fn publish(&mut self, shared: &Shared, now: Time) {
        let mut stored = 0;
        for endpoint in &mut self.endpoints {
            let gauge = match endpoint.node.family() {
                Family::V4 => ControlGauge::DhtNodesV4,
                Family::V6 => ControlGauge::DhtNodesV6,
            };
            self.cells.set(gauge, endpoint.node.table().len() as u64);
            stored += endpoint.node.stored().0;
            let counters = endpoint.node.counters();
            count(&self.cells, &endpoint.published, &counters);
            endpoint.published = counters;
        }
        let cells = &self.cells;
        cells.set(ControlGauge::DhtStoredPeers, stored as u64);
        let state = shared.state();
        let torrents = state.schedule.len() as u64;
        cells.set(ControlGauge::DhtTorrents, torrents);
        let overdue = state.schedule.overdue(now) as u64;
        cells.set(ControlGauge::DhtSearchesOverdue, overdue);
    }
}

/// The endpoint from which something can be read.
async fn readable(endpoints: &[Endpoint]) -> usize {
    let one = async |index: usize| match endpoints.get(index) {
        Some(endpoint) => {
            endpoint.socket.readable().await;
            index
        }
        None => std::future::pending().await,
    };
    tokio::select! {
        index = one(0) => index,
        index = one(1) => index,
    }
}

fn take_event(event: Event, shared: &Shared, cells: &ControlCells, now: Time) {
    match event {
        Event::Peers {
            info_hash, peers, ..
        } => {
            cells.add(ControlCounter::DhtPeersFound, peers.len() as u64);
            let sink = shared.state().schedule.found(info_hash, peers.len());
            if let Some(sink) = sink {
                sink.found(&peers, PeerSource::Dht);
            }
        }
        Event::Done {
            info_hash,
            answers,
            announced,
            ..
        } => {
            let result = match (announced, answers) {
                (0, 0) => ControlCounter::DhtSearchesUnanswered,
                (0, _) => ControlCounter::DhtSearchesAnswered,
                _ => ControlCounter::DhtSearchesAnnounced,
            };
            cells.add(result, 1);
            let mut state = shared.state();
            state.schedule.ended(now, info_hash, announced);
            drop(state);
            tracing::debug!(torrent = %info_hash, answers, announced, "searched the DHT");
        }
        Event::Renamed { address } => {
            tracing::info!(%address, "DHT nodes see us at this address; our node id follows it");
        }
        Event::OtherFamily(_) => {}
    }
}

fn count(cells: &ControlCells, before: &Counters, now: &Counters) {
    use ControlCounter as C;
    for (counter, before, now) in [
        (C::DhtReceived, before.received, now.received),
        (C::DhtDroppedMuted, before.muted, now.muted),
        (C::DhtDroppedMalformed, before.malformed, now.malformed),
        (
            C::DhtDroppedUnsolicited,
            before.unsolicited,
            now.unsolicited,
        ),
        (C::DhtDroppedRate, before.over_rate, now.over_rate),
        (C::DhtDroppedReadOnly, before.not_served, now.not_served),
        (C::DhtQueriesAnswered, before.answered, now.answered),
        (C::DhtAnnouncesStored, before.stored, now.stored),
        (C::DhtAnnouncesRefused, before.refused, now.refused),
        (C::DhtQueriesSent, before.queries, now.queries),
        (C::DhtQueriesUnanswered, before.timeouts, now.timeouts),
        (C::DhtBytesIn, before.bytes_in, now.bytes_in),
        (C::DhtBytesOut, before.bytes_out, now.bytes_out),
    ] {
        cells.add(counter, now - before);
    }
}

/// The addresses behind names; who cannot be resolved is left out.
async fn resolve(names: Vec<String>) -> Resolved {
    let mut lookups = JoinSet::new();
    for name in names {
        lookups.spawn(async move {
            let found = tokio::net::lookup_host(name.clone());
            (tokio::time::timeout(LOOKUP_MAX, found).await, name)
        });
    }
    let mut resolved = Resolved::default();
    while let Some(Ok((found, name))) = lookups.join_next().await {
        let error = match found {
            Ok(Ok(found)) => {
                resolved.addresses.extend(found.take(ADDRESSES_MAX));
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "not resolved in time".to_owned(),
        };
        tracing::debug!(%name, %error, "a DHT bootstrap name");
        resolved.failed = Some((name, error));
    }
    resolved
}

/// The address without scope and flow, which would make one host two.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}
