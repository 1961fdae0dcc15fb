//! One shard: a thread with its ring, its listeners, its connections, and nothing of another
//! shard's.
//!
//! Limits: connections by [`crate::limits`], buffers and open files by their pools. The tick loops
//! over this shard's connections once a second, never over torrents.

use crate::buffers::{BUFFERS_MAX, BufferPool, Registration};
use crate::calling::Calls;
use crate::closing::CloseReason;
use crate::connection::{self, Connection, Served};
use crate::constants::HeaderArena;
use crate::direct::{self, Direct};
use crate::doors::Doors;
use crate::fetch::hashing::HashPool;
use crate::fetch::home::ActiveFetch;
use crate::fetch::home_of;
use crate::fetch::memory::{MemoryBudget, SegmentPool};
use crate::fetch::metadata::{self, Exchange, Resolving};
use crate::fetch::receiving::RECEIVE_BUFFER_BYTES;
use crate::files::FileTable;
use crate::in_transit::Lingering;
use crate::leases::{self, LeaseSignal};
use crate::limits::{Admission, Refused, ShardRates, SharedLimits};
use crate::pipes::PipePool;
use crate::plane::{Command, DhtDoor, Event, PlaneConfig, SendPath, StartError};
use crate::refusal;
use crate::residency::Residency;
use crate::roster::{Roster, TorrentUse};
use crate::sockets;
use crate::system;
use crate::torrent::{Fault, SeededTorrent};
use crate::warming::Warming;
use crate::windows::Windows;
use engine::choker::Choker;
use engine::ip_filter::IpFilter;
use engine::random::Random;
use engine::session::SessionConfig;
use engine::time::Time;
use proto::handshake::{Handshake, Reserved, ReservedBit};
use proto::ids::InfoHashV1;
use seedring_metrics::{Counter, Gauge, ShardCells};
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::num::NonZeroUsize;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};
use tokio_uring::net::TcpStream;

/// Submission and completion entries of a shard's ring.
const RING_ENTRIES: u32 = 1024;
const RING_COMPLETIONS: u32 = 8 * 1024;

/// How often timeouts are looked at.
const TICK: Duration = Duration::from_secs(1);

/// How long a stopping shard waits for its connections' last operations.
const STOP_WAIT: Duration = Duration::from_secs(3);

/// What a shard's thread starts with.
pub(crate) struct ShardSeat {
    pub(crate) index: usize,
    pub(crate) count: usize,
    pub(crate) core: Option<usize>,
    pub(crate) config: Arc<PlaneConfig>,
    pub(crate) session_config: Arc<SessionConfig>,
    /// Where the choker's chances start.
    pub(crate) seed: u64,
    pub(crate) limits: Arc<SharedLimits>,
    pub(crate) cells: Arc<ShardCells>,
    pub(crate) listeners: Vec<std::net::TcpListener>,
    pub(crate) commands: mpsc::Receiver<Command>,
    /// The ways to all shards, itself among them.
    pub(crate) shards: Vec<mpsc::WeakSender<Command>>,
    pub(crate) fetch_memory: Arc<MemoryBudget>,
    pub(crate) hashing: Arc<HashPool>,
    pub(crate) events: mpsc::UnboundedSender<Event>,
    pub(crate) dht: Arc<DhtDoor>,
    pub(crate) roster: Arc<Roster>,
    pub(crate) resolving: Arc<Resolving>,
}

/// The state of one shard, shared by its tasks, all on its thread.
pub(crate) struct Shard {
    pub(crate) config: Arc<PlaneConfig>,
    pub(crate) cells: Arc<ShardCells>,
    pub(crate) pool: BufferPool,
    pub(crate) files: FileTable,
    pub(crate) pipes: Rc<PipePool>,
    pub(crate) headers: RefCell<HeaderArena>,
    pub(crate) windows: Rc<Windows>,
    pub(crate) residency: Residency,
    lease_signal: Rc<LeaseSignal>,
    pub(crate) warming: Warming,
    pub(crate) lingering: Lingering,
    /// The cache of chunks that replaces the page cache, if it does.
    pub(crate) direct: Option<Rc<Direct>>,
    /// Itself, for tasks of its own.
    handle: Weak<Shard>,
    pub(crate) rates: ShardRates,
    pub(crate) index: usize,
    pub(crate) limits: Arc<SharedLimits>,
    pub(crate) choker: RefCell<Choker>,
    /// Whether this shard's lease of the upload slots is more than nothing.
    pub(crate) has_slots: Cell<bool>,
    /// Unchoked peers.
    pub(crate) unchoked: Cell<u64>,
    session_config: Arc<SessionConfig>,
    /// The complete torrents that are awake.
    torrents: RefCell<HashMap<InfoHashV1, Arc<SeededTorrent>>>,
    pub(crate) roster: Arc<Roster>,
    /// The downloads whose home is here, and those whose home is another shard.
    pub(crate) fetches: RefCell<HashMap<InfoHashV1, Rc<ActiveFetch>>>,
    pub(crate) elsewhere: RefCell<HashMap<InfoHashV1, usize>>,
    /// The fetches of metadata that are made here, and which ones any shard makes.
    pub(crate) exchanges: RefCell<HashMap<InfoHashV1, Rc<Exchange>>>,
    pub(crate) resolving: Arc<Resolving>,
    pub(crate) shards: Vec<mpsc::WeakSender<Command>>,
    /// Whom to call for complete torrents.
    pub(crate) calls: Calls,
    /// Addresses to keep away.
    filter: RefCell<Arc<IpFilter>>,
    /// Memory for pieces of downloads.
    pub(crate) segments: SegmentPool,
    pub(crate) hashing: Arc<HashPool>,
    /// What connections of downloads receive into, one at a time.
    pub(crate) receive_buffer: RefCell<Box<[u8]>>,
    /// What they keep of that undecoded, together.
    pub(crate) kept_bytes: Rc<Cell<usize>>,
    random: RefCell<Random>,
    pub(crate) connections: RefCell<Slab<Rc<Connection>>>,
    /// Where connections are accepted.
    pub(crate) doors: Doors,
    /// All sockets of peers, greeted or not, so that stopping, and who is to be kept away from now
    /// on, reaches each of them.
    pub(crate) sockets: RefCell<Slab<(Rc<TcpStream>, SocketAddr)>>,
    events: mpsc::UnboundedSender<Event>,
    pub(crate) dht: Arc<DhtDoor>,
    started: Instant,
    stopping: Cell<bool>,
    /// Told when a socket has gone.
    gone: Notify,
    /// Told when a download has begun, or none will any more.
    pub(crate) begun: Notify,
}

/// Starts the thread of a shard and waits until it listens.
pub(crate) fn spawn(seat: ShardSeat) -> Result<JoinHandle<()>, StartError> {
    let shard = seat.index;
    let (ready, started) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new()
        .name(format!("shard-{shard}"))
        .spawn(move || run(seat, &ready))
        .map_err(|error| StartError::Thread { shard, error })?;
    match started.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => Err(StartError::Refused(refusal::explain(&error))),
        Err(_) => {
            let error = std::io::Error::other("it ended before it was ready");
            Err(StartError::Thread { shard, error })
        }
    }
}

/// Tells of a shard that ends without having been stopped.
struct LostGuard {
    index: usize,
    events: mpsc::UnboundedSender<Event>,
    armed: bool,
}

impl Drop for LostGuard {
    fn drop(&mut self) {
        if self.armed {
            let _ = self.events.send(Event::ShardLost(self.index));
        }
    }
}

/// The thread of a shard.
fn run(mut seat: ShardSeat, ready: &std::sync::mpsc::Sender<std::io::Result<()>>) {
    if let Some(core) = seat.core
        && let Err(error) = system::pin_to(core)
    {
        tracing::warn!(shard = seat.index, core, %error, "the shard is not pinned to its core");
    }
    let mut ring = tokio_uring::uring_builder();
    ring.setup_cqsize(RING_COMPLETIONS);
    let mut builder = tokio_uring::builder();
    builder.entries(RING_ENTRIES).uring_builder(&ring);
    let runtime = match tokio_uring::Runtime::new(&builder) {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    let mut guard = LostGuard {
        index: seat.index,
        events: seat.events.clone(),
        armed: true,
    };
    // Dropping the runtime frees what operations in flight still read and write, so that is done
    // only when nothing is in flight; else, and when a panic passes here, it is left to the end of
    // the process.
    let runtime = ManuallyDrop::new(runtime);
    let quiet = runtime.block_on(async {
        let listeners = std::mem::take(&mut seat.listeners);
        match Shard::new(&seat) {
            Ok(shard) => {
                let _ = ready.send(Ok(()));
                shard.live(listeners, seat.commands).await
            }
            Err(error) => {
                let _ = ready.send(Err(error));
                true
            }
        }
    });
    guard.armed = false;
    if quiet {
        drop(ManuallyDrop::into_inner(runtime));
    }
}

impl Shard {
    pub(crate) fn new(seat: &ShardSeat) -> std::io::Result<Rc<Shard>> {
        let config = &seat.config;
        // The direct path reads into its cache and takes no buffer.
        let (buffers, registration) = match config.send_path {
            SendPath::Direct => (0, Registration::Off),
            _ => (buffers_per_shard(config, seat.count), config.registration),
        };
        let pool = BufferPool::new(buffers, config.batch_bytes as usize, registration)?;
        seat.cells.set(
            Gauge::BufferPoolBytes,
            (buffers * config.batch_bytes as usize) as u64,
        );
        let pipes = PipePool::new(config.pipes_per_shard);
        let headers = RefCell::new(HeaderArena::new()?);
        let lease_signal = Rc::new(LeaseSignal::new()?);
        let mut files = FileTable::new(files_per_shard(config, seat.count));
        let mut direct = None;
        if config.send_path == SendPath::Direct {
            files = files.bypassing_cache();
            let slots = direct::slots_per_shard(config.cache_bytes, seat.count);
            direct = Some(Rc::new(Direct::new(slots, Arc::clone(&seat.cells))?));
        }
        Ok(Rc::new_cyclic(|handle| Shard {
            direct,
            handle: Weak::clone(handle),
            residency: Residency::new(pipes.page_bytes()),
            pipes,
            headers,
            windows: Windows::new(config.mapped_bytes, seat.count),
            lease_signal,
            warming: Warming::default(),
            lingering: Lingering::default(),
            config: Arc::clone(config),
            cells: Arc::clone(&seat.cells),
            pool,
            files,
            rates: ShardRates::new(&seat.limits, seat.index),
            session_config: Arc::clone(&seat.session_config),
            choker: RefCell::new(Choker::new(config.choker, seat.seed, Time::default())),
            has_slots: Cell::new(true),
            unchoked: Cell::new(0),
            index: seat.index,
            limits: Arc::clone(&seat.limits),
            torrents: RefCell::default(),
            roster: Arc::clone(&seat.roster),
            fetches: RefCell::default(),
            elsewhere: RefCell::default(),
            exchanges: RefCell::default(),
            resolving: Arc::clone(&seat.resolving),
            shards: seat.shards.clone(),
            calls: Calls::default(),
            filter: RefCell::new(Arc::clone(&config.ip_filter)),
            segments: SegmentPool::new(Arc::clone(&seat.fetch_memory)),
            hashing: Arc::clone(&seat.hashing),
            receive_buffer: RefCell::new(vec![0; RECEIVE_BUFFER_BYTES].into()),
            kept_bytes: Rc::default(),
            random: RefCell::new(Random::new(seat.seed.rotate_left(32))),
            connections: RefCell::default(),
            doors: Doors::default(),
            sockets: RefCell::default(),
            events: seat.events.clone(),
            dht: Arc::clone(&seat.dht),
            started: seat.limits.started(),
            stopping: Cell::new(false),
            gone: Notify::new(),
            begun: Notify::new(),
        }))
    }

    /// Accepts, ticks and obeys until told to stop; then closes everything. False if operations are
    /// still in flight after that.
    async fn live(
        self: &Rc<Self>,
        listeners: Vec<std::net::TcpListener>,
        mut commands: mpsc::Receiver<Command>,
    ) -> bool {
        self.listen(listeners);
        let ticking = tokio_uring::spawn(Rc::clone(self).tick());
        let signal = Rc::clone(&self.lease_signal);
        let watching = tokio_uring::spawn(leases::watch(Rc::clone(self), signal));
        while let Some(command) = commands.recv().await {
            match command {
                Command::Add(torrent, done) => {
                    self.serve(torrent);
                    let _ = done.send(());
                }
                Command::Remove(torrent, done) => {
                    self.forget(&torrent);
                    let _ = done.send(());
                }
                Command::Retire(torrent, done) => {
                    self.drop_torrent(&torrent);
                    drop(torrent);
                    let _ = done.send(());
                }
                Command::Fetch(seat, done) => {
                    self.begin_fetch(*seat, done);
                }
                Command::Listen(listeners) => self.listen_elsewhere(listeners),
                Command::Elsewhere(info_hash, home) => self.set_elsewhere(info_hash, home),
                Command::Adopt(adopted) => self.adopt(*adopted),
                Command::Call(torrent, peers, source) => {
                    self.name_peers(&torrent, peers, source);
                }
                Command::Filter(filter, done) => {
                    self.set_filter(filter);
                    let _ = done.send(());
                }
                Command::Choose(rules, done) => {
                    self.choker.borrow_mut().set_rules(*rules);
                    let _ = done.send(());
                }
                Command::Peers(info_hash, count_max, reply) => {
                    let _ = reply.send(self.peers_seen(info_hash, count_max));
                }
                Command::FetchMetadata(seat, done) => {
                    metadata::begin(self, *seat);
                    let _ = done.send(());
                }
                Command::Stop => break,
            }
        }
        self.stopping.set(true);
        self.roster.stop();
        self.begun.notify_waiters();
        ticking.abort();
        let quiet = self.stop().await;
        self.doors_closed().await;
        self.lease_signal.wake();
        let _ = watching.await;
        quiet
    }

    /// Shuts every socket down, so that its operations complete, and waits for that. False if some
    /// did not.
    async fn stop(&self) -> bool {
        self.close_doors();
        for fetch in self.fetches.borrow().values() {
            fetch.end();
        }
        for (_, connection) in self.connections.borrow().iter() {
            connection.close(CloseReason::Stopping);
        }
        for (_, (socket, _)) in self.sockets.borrow().iter() {
            let _ = socket.shutdown(Shutdown::Both);
        }
        let all_gone = async {
            while !self.sockets.borrow().is_empty() || !self.fetches.borrow().is_empty() {
                self.gone.notified().await;
            }
            self.warming.drained().await;
            if let Some(direct) = &self.direct {
                direct.drained().await;
            }
        };
        if tokio::time::timeout(STOP_WAIT, all_gone).await.is_err() {
            let left = self.sockets.borrow().len();
            tracing::warn!(
                shard = self.index,
                left,
                "stopping with operations still in flight"
            );
            return false;
        }
        true
    }

    /// Starts the task of an accepted connection, or closes it where a limit is met.
    pub(crate) fn admit(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr) {
        self.cells.increment(Counter::ConnectionsAccepted);
        if self.is_filtered(peer.ip()) {
            return self.cells.increment(Counter::RefusedFilter);
        }
        let admission = match self.limits.admit(peer.ip()) {
            Ok(admission) => admission,
            Err(refused) => {
                self.cells.increment(match refused {
                    Refused::Connections => Counter::RefusedConnectionLimit,
                    Refused::Stranger => Counter::RefusedAddressLimit,
                    Refused::Handshakes => Counter::RefusedHandshakeLimit,
                });
                return;
            }
        };
        let socket = Rc::new(stream);
        sockets::tune_accepted(&*socket);
        if let Err(error) = sockets::set_nonblocking(&*socket) {
            tracing::warn!(%error, %peer, "cannot set up a peer's socket");
            return;
        }
        self.receive(socket, peer, admission, Vec::new());
    }

    /// Starts the task of a connection, of which `received` has come.
    pub(crate) fn receive(
        self: &Rc<Self>,
        socket: Rc<TcpStream>,
        peer: SocketAddr,
        admission: Admission,
        received: Vec<u8>,
    ) {
        let mut visit = self.visit(&socket, peer, admission);
        tokio_uring::spawn(async move {
            let shard = Rc::clone(&visit.shard);
            let socket_of_task = Rc::clone(&socket);
            let served = connection::serve(&shard, socket_of_task, peer, &mut visit, received);
            match Box::pin(served).await {
                Served::Closed(reason) => {
                    let reason = shard.why_closed(peer, reason);
                    shard.cells.increment(reason.counter(visit.is_greeted()));
                    tracing::debug!(%peer, ?reason, "connection closed");
                }
                Served::Elsewhere(elsewhere) => {
                    shard.hand_over(&socket, peer, &mut visit, elsewhere);
                }
            }
        });
    }

    /// Enters a socket into the shard's list; it leaves when the result is dropped.
    pub(crate) fn visit(
        self: &Rc<Self>,
        socket: &Rc<TcpStream>,
        peer: SocketAddr,
        admission: Admission,
    ) -> Visit {
        let entry = (Rc::clone(socket), peer);
        Visit {
            shard: Rc::clone(self),
            key: self.sockets.borrow_mut().insert(entry),
            admission: Some(admission),
        }
    }

    /// Serves a complete torrent from now on.
    pub(crate) fn serve(&self, torrent: Arc<SeededTorrent>) {
        let info_hash = torrent.info_hash();
        self.elsewhere.borrow_mut().remove(&info_hash);
        self.torrents.borrow_mut().insert(info_hash, torrent);
    }

    /// Tells those who wait for something to have gone to look again.
    pub(crate) fn tell_gone(&self) {
        self.gone.notify_one();
    }

    /// A random number, for whatever needs no secrecy.
    pub(crate) fn draw(&self) -> u64 {
        self.random.borrow_mut().next_u64()
    }

    /// Looks at the sessions' timeouts once a second.
    async fn tick(self: Rc<Self>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = self.now();
            for (_, connection) in self.connections.borrow().iter() {
                connection.look_at_timeout(now);
            }
            self.files.close_idle(now);
            self.pipes.close_idle();
            self.rates.tick(now);
            self.rechoke(now);
            self.call_leechers();
            self.publish_gauges();
        }
    }

    /// The time of the state machines.
    pub(crate) fn now(&self) -> Time {
        Time(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Who has the torrent, if any shard does.
    pub(crate) fn find(&self, info_hash: InfoHashV1) -> Option<Found> {
        let torrents = self.torrents.borrow();
        let seeded = torrents.get(&info_hash);
        let seeded = seeded.filter(|torrent| !torrent.is_stopped());
        if let Some(torrent) = seeded.and_then(|torrent| self.roster.claim(torrent)) {
            return Some(Found::Here(torrent));
        }
        let fetch = self.fetch(info_hash);
        if let Some(torrent) = fetch.and_then(|fetch| self.roster.claim(&fetch.torrent)) {
            return Some(Found::Here(torrent));
        }
        if let Some(&home) = self.elsewhere.borrow().get(&info_hash) {
            return Some(Found::Elsewhere(home));
        }
        if let Some(exchange) = self.exchanges.borrow().get(&info_hash) {
            return Some(Found::Resolving(Rc::clone(exchange)));
        }
        let home = home_of(info_hash, self.shards.len());
        if home != self.index && self.resolving.contains(info_hash) {
            return Some(Found::Elsewhere(home));
        }
        // Last: one that has fallen asleep, which the first look has told, is entered there.
        let is_dormant = self.roster.is_dormant(info_hash);
        is_dormant.then_some(Found::Dormant)
    }

    /// Itself, for a task of its own; `None` when it is going.
    pub(crate) fn handle(&self) -> Option<Rc<Shard>> {
        self.handle.upgrade()
    }

    /// How sessions behave.
    pub(crate) fn session_config(&self) -> Arc<SessionConfig> {
        Arc::clone(&self.session_config)
    }

    /// What we say to a peer of a torrent.
    pub(crate) fn our_handshake(&self, info_hash: InfoHashV1) -> Handshake {
        let mut reserved = Reserved::NONE.with(ReservedBit::EXTENSION_PROTOCOL);
        if self.session_config.fast_extension {
            reserved = reserved.with(ReservedBit::FAST);
        }
        if self.dht.is_open() {
            reserved = reserved.with(ReservedBit::DHT);
        }
        Handshake {
            reserved,
            info_hash,
            peer_id: self.config.peer_id,
        }
    }

    /// A peer says that it has a DHT node. Each connection says so once.
    pub(crate) fn heard_of_node(&self, peer: SocketAddr, port: u16) {
        if let Some(node) = self.dht.heard_of(SocketAddr::new(peer.ip(), port)) {
            let _ = self.events.send(Event::DhtNode(node));
        }
    }

    /// Enters a connection into the shard's list; it leaves when the result is dropped.
    pub(crate) fn register(self: &Rc<Self>, connection: &Rc<Connection>) -> Registered {
        let key = self.connections.borrow_mut().insert(Rc::clone(connection));
        Registered {
            shard: Rc::clone(self),
            key,
        }
    }

    /// Whether an address is one to keep away.
    pub(crate) fn is_filtered(&self, address: IpAddr) -> bool {
        self.filter.borrow().blocks(address)
    }

    /// Keeps away whom `filter` has, also those who are here.
    fn set_filter(&self, filter: Arc<IpFilter>) {
        *self.filter.borrow_mut() = filter;
        for (_, connection) in self.connections.borrow().iter() {
            if self.is_filtered(connection.peer.ip()) {
                connection.close(CloseReason::Filtered);
            }
        }
        // Those who have not greeted yet, are asked for metadata, or wait for a torrent.
        for (_, (socket, peer)) in self.sockets.borrow().iter() {
            if self.is_filtered(peer.ip()) {
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
    }

    /// Why a connection has ended that did for `reason`, as far as it could see: a socket that is
    /// shut to keep its peer away looks as if that had closed it.
    pub(crate) fn why_closed(&self, peer: SocketAddr, reason: CloseReason) -> CloseReason {
        match reason {
            CloseReason::PeerClosed | CloseReason::Reset if self.is_filtered(peer.ip()) => {
                CloseReason::Filtered
            }
            _ => reason,
        }
    }

    /// Whether it was told to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Takes a torrent's fault: the first one that condemns it stops it everywhere and is told.
    pub(crate) fn report(&self, torrent: &SeededTorrent, fault: Fault) -> CloseReason {
        self.cells.increment(fault.cause.counter());
        if !fault.cause.condemns() {
            tracing::warn!(%fault, "cannot read for a peer");
            return CloseReason::Storage;
        }
        if !torrent.is_complete() {
            if let Some(fetch) = self.fetch(torrent.info_hash()) {
                fetch.fail(fault);
            }
            return CloseReason::TorrentStopped;
        }
        if torrent.stop() {
            let _ = self.events.send(Event::TorrentFault(fault));
        }
        CloseReason::TorrentStopped
    }

    /// Forgets a torrent and closes its connections and files.
    fn forget(&self, torrent: &SeededTorrent) {
        for (_, connection) in self.connections.borrow().iter() {
            if connection.torrent.id() == torrent.id() {
                connection.close(CloseReason::TorrentStopped);
            }
        }
        self.drop_torrent(torrent);
    }

    /// Gives back what a torrent without connections takes.
    fn drop_torrent(&self, torrent: &SeededTorrent) {
        let mut torrents = self.torrents.borrow_mut();
        if torrents
            .get(&torrent.info_hash())
            .is_some_and(|known| known.id() == torrent.id())
        {
            torrents.remove(&torrent.info_hash());
        }
        self.forget_leechers(torrent);
        self.files.forget(torrent);
        if let Some(direct) = &self.direct {
            direct.forget(torrent);
        }
    }
}

/// A connection's place in its shard's list.
pub(crate) struct Registered {
    shard: Rc<Shard>,
    key: usize,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let connection = self.shard.connections.borrow_mut().remove(self.key);
        // While a panic unwinds, the session may still be borrowed.
        if connection
            .session
            .try_borrow()
            .is_ok_and(|session| !session.is_choked())
        {
            self.shard
                .unchoked
                .set(self.shard.unchoked.get().saturating_sub(1));
        }
    }
}

/// A torrent that a peer asks for.
pub(crate) enum Found {
    /// It is served or downloaded here.
    Here(TorrentUse),
    /// This shard downloads it, or its metadata.
    Elsewhere(usize),
    /// Its metadata are being fetched here.
    Resolving(Rc<Exchange>),
    /// It is to be woken.
    Dormant,
}

/// A connection's place in its shard; leaving gives it back, also when its task panics.
pub(crate) struct Visit {
    shard: Rc<Shard>,
    key: usize,
    /// `None` when it has gone on to another shard.
    pub(crate) admission: Option<Admission>,
}

impl Visit {
    /// Notes that the handshake is done.
    pub(crate) fn greeted(&mut self) {
        if let Some(admission) = &mut self.admission {
            admission.greeted();
        }
    }

    /// Notes that the peer's handshake has been read, and its torrent is waited for.
    pub(crate) fn handshake_read(&mut self) {
        if let Some(admission) = &mut self.admission {
            admission.handshake_read();
        }
    }

    /// Whether the handshake is done.
    pub(crate) fn is_greeted(&self) -> bool {
        self.admission.as_ref().is_some_and(Admission::is_greeted)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.shard.sockets.borrow_mut().remove(self.key);
        self.shard.gone.notify_one();
    }
}

/// How many buffers each shard's pool holds: its share, at least two, so that one read overlaps one
/// send, and at most what a pool can have.
fn buffers_per_shard(config: &PlaneConfig, shards: usize) -> usize {
    (config.buffer_bytes / config.batch_bytes as usize / shards).clamp(2, BUFFERS_MAX)
}

/// How many files each shard's table keeps open: four fifths of its share, at least 16; the rest is
/// for those that have left the table while their pages were on their way.
fn files_per_shard(config: &PlaneConfig, shards: usize) -> NonZeroUsize {
    let files = (config.open_files_max / shards * 4 / 5).max(16);
    NonZeroUsize::new(files).unwrap_or(NonZeroUsize::MIN)
}
