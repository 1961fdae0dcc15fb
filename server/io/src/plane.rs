//! The data plane as the rest of the server sees it: start, add and remove torrents, hear of
//! faults, stop.
//!
//! Callers are on an ordinary tokio runtime; every call goes to the shards by a bounded channel,
//! and no call waits for a peer or a disk.

use crate::buffers::Registration;
use crate::doors;
use crate::fetch::hashing::HashPool;
use crate::fetch::memory::MemoryBudget;
use crate::fetch::metadata::Resolving;
use crate::fetch::{
    self, Fetch, FetchConfig, FetchError, FetchEvent, FetchSeat, FetchSpec, MetadataEvent,
    MetadataFetch, MetadataSeat,
};
use crate::leases;
use crate::limits::{Admission, SharedLimits};
use crate::peers::PeerSeen;
use crate::refusal::{self, Refusal};
use crate::roster::{Roster, WakeLimits, Wanted};
use crate::shard::{self, ShardSeat};
use crate::sockets::SocketOptions;
use crate::system;
use crate::torrent::{Fault, SeededTorrent};
use engine::choker::ChokerConfig;
use engine::ip_filter::IpFilter;
use engine::peer_list::PeerSource;
use engine::session::SessionConfig;
use proto::ids::{InfoHashV1, PeerId};
use seedring_metrics::Registry;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Commands that may wait for a shard; a caller waits beyond that.
const COMMANDS_MAX: usize = 256;

/// DHT nodes that peers told of and that wait to be taken, over all shards; further ones are
/// dropped. Each connection tells of one, so that whoever comes and goes could pile them up.
const NODES_WAITING_MAX: usize = 1024;

/// Everything that the data plane needs to know, in numbers.
#[derive(Clone, Debug)]
pub struct PlaneConfig {
    /// Where peers connect: one address per family; port 0 for any, then the same for all.
    pub listen: Vec<SocketAddr>,
    /// Threads that serve peers; 0 for one per core.
    pub shards: usize,
    /// Whether each is pinned to its core.
    pub pin: bool,
    /// How sockets are set up.
    pub sockets: SocketOptions,
    /// Connections, handshakes included.
    pub connections_max: usize,
    /// Connections of one v4 address or v6 /64; 0 for no limit.
    pub connections_per_stranger_max: usize,
    /// Connections whose handshake is not done.
    pub handshakes_max: usize,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// Payload buffers of all shards together, in bytes.
    pub buffer_bytes: usize,
    /// The size of one of them, and of the largest batch, in bytes.
    pub batch_bytes: u32,
    /// The cache of chunks of all shards together, in bytes; taken by [`SendPath::Direct`] only.
    pub cache_bytes: usize,
    /// Windows onto files of all shards together, in bytes: see [`crate::windows`].
    pub mapped_bytes: u64,
    /// Whether they are registered with the ring.
    pub registration: Registration,
    /// How payload gets from the disk to a socket.
    pub send_path: SendPath,
    /// Pipes of each shard, at most [`crate::pipes::PIPES_MAX`].
    pub pipes_per_shard: usize,
    /// Open files of all shards together.
    pub open_files_max: usize,
    /// How sessions behave.
    pub session: SessionConfig,
    /// Who is unchoked.
    pub choker: ChokerConfig,
    /// Upload slots of the server; 0 for no limit.
    pub upload_slots: u32,
    /// Rates of upload and download.
    pub rates: RateLimits,
    /// How we name ourselves to peers.
    pub peer_id: PeerId,
    /// How downloads work.
    pub fetch: FetchConfig,
    /// How peers wait for dormant torrents.
    pub waking: WakeLimits,
    /// Whether peers of complete torrents are called, too.
    pub call_leechers: bool,
    /// Addresses to keep away from the start.
    pub ip_filter: Arc<IpFilter>,
}

/// How payload gets from the disk to a socket (docs/adr/0009-send-paths.md).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SendPath {
    /// By pipes where the pages are in memory and the file is under our lease, else through
    /// buffers.
    #[default]
    Auto,
    /// By pipes, whatever is known of the pages and the file.
    Splice,
    /// Through the buffers of the pool.
    Ring,
    /// Past the page cache, through a cache of our own.
    Direct,
}

/// Rates in bytes per second; 0 for no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RateLimits {
    /// Upload of the server.
    pub global: u64,
    /// Upload of each torrent that has no limit of its own.
    pub torrent: u64,
    /// Upload to all peers on this machine or site together.
    pub local: u64,
    /// Upload to all other peers together.
    pub remote: u64,
    /// Download of the server.
    pub download: u64,
    /// Download of each torrent that has no limit of its own.
    pub torrent_download: u64,
}

/// What the data plane tells of its own accord.
#[derive(Debug)]
pub enum Event {
    /// A torrent's data are in doubt; it has been stopped on all shards.
    TorrentFault(Fault),
    /// A shard's thread has ended although nobody stopped it: a bug, and a reason to end the
    /// process.
    ShardLost(usize),
    /// A peer says that it has a DHT node there; once for each connection.
    DhtNode(HeardNode),
    /// Whether the interface that peers are met by is there; told when that changes, and at the start
    /// if it is not.
    Interface(bool),
    /// Peers wait for a dormant torrent; once for each time that it is to be woken. Dropped without
    /// [`Plane::add`], it is refused.
    Wanted(Wanted),
}

/// The data plane can not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// io_uring is refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A port is taken, an address is not ours, or a socket cannot be as it is configured.
    #[error("cannot listen for peers on {address}: {error}{}", remedy(.error))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        error: io::Error,
    },
    /// No address is configured.
    #[error("no address to listen on for peers; set peers.bind_v4 or peers.bind_v6")]
    NoAddress,
    /// The kernel's messages about leases can not be taken.
    #[error("cannot ignore SIGIO: {0}")]
    Signal(io::Error),
    /// A thread can not be started.
    #[error("cannot start the thread of shard {shard}: {error}")]
    Thread {
        /// The shard.
        shard: usize,
        /// What the kernel said.
        error: io::Error,
    },
}

/// What can be done where a port cannot be listened on.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; choose another port with --port or peers.port",
        io::ErrorKind::AddrNotAvailable => "; choose another address by peers.bind_v4 or bind_v6",
        io::ErrorKind::PermissionDenied => "; choose a port above 1023 with --port or peers.port",
        _ => "",
    }
}

/// What a shard is told.
pub(crate) enum Command {
    /// Serve this torrent; the answer says that it does.
    Add(Arc<SeededTorrent>, oneshot::Sender<()>),
    /// Forget this torrent; the answer says that its peers are being closed.
    Remove(Arc<SeededTorrent>, oneshot::Sender<()>),
    /// Accept connections by these listeners alone: the interface that the others are bound to is
    /// gone, or another one.
    Listen(Vec<std::net::TcpListener>),
    /// Forget this torrent, which has fallen asleep; the answer says that its memory is given back.
    Retire(Arc<SeededTorrent>, oneshot::Sender<()>),
    /// Be the home of this download, and tell the other shards; the answer says whether it is.
    Fetch(Box<FetchSeat>, oneshot::Sender<Result<(), FetchError>>),
    /// This shard downloads the torrent, or none does any more: its peers are to be sent there.
    Elsewhere(InfoHashV1, Option<usize>),
    /// Take over a peer of a download, which another shard has accepted.
    Adopt(Box<Adopted>),
    /// These may be peers of this complete torrent.
    Call(Arc<SeededTorrent>, Vec<SocketAddr>, PeerSource),
    /// Keep away whom this has, and nobody else; the answer says that those who are here are being
    /// closed.
    Filter(Arc<IpFilter>, oneshot::Sender<()>),
    /// Choose by these rules whom to unchoke.
    Choose(Box<ChokerConfig>, oneshot::Sender<()>),
    /// Tell of the peers of this torrent, at most so many.
    Peers(InfoHashV1, usize, oneshot::Sender<Vec<PeerSeen>>),
    /// Fetch metadata; the answer says that peers which call us are asked, too.
    FetchMetadata(Box<MetadataSeat>, oneshot::Sender<()>),
    /// Close everything and end.
    Stop,
}

/// A connection on its way to another shard.
pub(crate) struct Adopted {
    pub(crate) socket: std::net::TcpStream,
    pub(crate) peer: SocketAddr,
    /// What was received of it.
    pub(crate) received: Vec<u8>,
    pub(crate) admission: Admission,
}

/// The running data plane.
pub struct Plane {
    shards: Vec<(mpsc::Sender<Command>, JoinHandle<()>)>,
    addresses: Vec<SocketAddr>,
    dht: Arc<DhtDoor>,
    roster: Arc<Roster>,
    limits: Arc<SharedLimits>,
    /// Held by whoever gives the shards a torrent or takes one from them: one after another.
    changing: tokio::sync::Mutex<()>,
}

/// A node that a peer told of. It has a place among those that wait until it is dropped.
#[derive(Debug)]
pub struct HeardNode {
    /// Where it is.
    pub address: SocketAddr,
    door: Arc<DhtDoor>,
}

impl Drop for HeardNode {
    fn drop(&mut self) {
        self.door.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What peers are told of our DHT nodes, and tell us of theirs.
#[derive(Debug, Default)]
pub(crate) struct DhtDoor {
    /// Whether we have any.
    is_open: AtomicBool,
    /// Nodes that peers told of and nobody has taken yet.
    waiting: AtomicUsize,
    /// Where that of IPv4 and that of IPv6 are; 0 if peers are not told.
    ports: [AtomicU16; 2],
}

impl DhtDoor {
    fn open(&self, ports: [Option<u16>; 2]) {
        for (door, port) in self.ports.iter().zip(ports) {
            door.store(port.unwrap_or(0), Ordering::Relaxed);
        }
        self.is_open.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }

    /// A node that a peer told of. `None` if we have no DHT, or if [`NODES_WAITING_MAX`] wait: the
    /// DHT finds enough of them by itself.
    pub(crate) fn heard_of(self: &Arc<Self>, address: SocketAddr) -> Option<HeardNode> {
        if !self.is_open() {
            return None;
        }
        let door = Arc::clone(self);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // Dropping one that is too many gives its place back.
        let node = HeardNode { address, door };
        (self.waiting.load(Ordering::Relaxed) <= NODES_WAITING_MAX).then_some(node)
    }

    /// Where our node is that a peer at this address can ask: the two DHTs know nothing of each
    /// other (BEP 32).
    pub(crate) fn port_for(&self, peer: IpAddr) -> Option<u16> {
        let index = usize::from(peer.to_canonical().is_ipv6());
        let port = self.ports.get(index)?.load(Ordering::Relaxed);
        (port != 0).then_some(port)
    }
}

/// The number of shards that a configuration means on this machine.
pub fn shard_count(configured: usize) -> usize {
    match configured {
        0 => system::allowed_cores()
            .map_or(1, |cores| cores.len())
            .max(1),
        count => count,
    }
}

/// The torrents of a data plane, none yet.
fn roster(
    config: &PlaneConfig,
    events: &mpsc::UnboundedSender<Event>,
    registry: &Registry,
) -> Arc<Roster> {
    // Those who wait take a quarter of the connections at most.
    let waiting_max = (config.connections_max / 4).max(1);
    let limits = WakeLimits {
        waiting_max: config.waking.waiting_max.min(waiting_max),
        ..config.waking
    };
    let events = events.downgrade();
    Arc::new(Roster::new(limits, events, registry.control()))
}

/// Where a choker's chances start; without random bytes all shards make the same choices, which is
/// as good.
fn seed() -> u64 {
    let mut bytes = [0; 8];
    let _ = system::random(&mut bytes);
    u64::from_le_bytes(bytes)
}

impl Plane {
    /// Opens the ports and starts the shards. The events must be read as they come. Bound to an
    /// interface, it is to be called on a tokio runtime, which looks after that.
    ///
    /// # Errors
    ///
    /// [`StartError`]; no port is open then.
    pub fn start(
        config: PlaneConfig,
        registry: &Registry,
    ) -> Result<(Plane, mpsc::UnboundedReceiver<Event>), StartError> {
        refusal::check()?;
        leases::ignore_signal().map_err(StartError::Signal)?;
        if config.listen.is_empty() {
            return Err(StartError::NoAddress);
        }
        let count = shard_count(config.shards);
        let mut opened = doors::open(&config.listen, count, &config.sockets)
            .map_err(|(address, error)| StartError::Listen { address, error })?;
        // The port on which peers are told to call us is the same for all families.
        let port = opened.addresses.first().map_or(0, SocketAddr::port);
        let cores = system::allowed_cores().unwrap_or_default();
        // Bounded by the torrents, each of which tells of its first fault only, by the shards, by
        // `NODES_WAITING_MAX`, and by `WakeLimits::wakes_max`.
        let (events, received) = mpsc::unbounded_channel();
        let limits = Arc::new(SharedLimits::new(&config, count));
        let session_config = Arc::new(SessionConfig {
            listen_port: NonZeroU16::new(port),
            ..config.session.clone()
        });
        let config = Arc::new(config);
        let mut plane = Plane {
            shards: Vec::with_capacity(count),
            addresses: opened.addresses.clone(),
            dht: Arc::default(),
            roster: roster(&config, &events, registry),
            limits: Arc::clone(&limits),
            changing: tokio::sync::Mutex::new(()),
        };
        let fetch_memory = MemoryBudget::new(config.fetch.buffer_bytes);
        let resolving = Arc::new(Resolving::default());
        let hashing = Arc::new(HashPool::new(shard_count(config.fetch.hash_threads)));
        let channels: Vec<_> = (0..count).map(|_| mpsc::channel(COMMANDS_MAX)).collect();
        // A shard must not keep itself alive.
        let shards: Vec<_> = channels.iter().map(|(way, _)| way.downgrade()).collect();
        if config.sockets.interface.is_some() {
            let watched = opened.watched(&config.sockets, shards.clone(), &events);
            tokio::spawn(doors::watch(watched));
        }
        for (index, (commands, inbox)) in channels.into_iter().enumerate() {
            let seat = ShardSeat {
                index,
                count,
                core: config
                    .pin
                    .then(|| cores.get(index % cores.len().max(1)).copied())
                    .flatten(),
                config: Arc::clone(&config),
                session_config: Arc::clone(&session_config),
                seed: seed(),
                limits: Arc::clone(&limits),
                cells: registry.shard(index),
                listeners: opened.take(),
                commands: inbox,
                shards: shards.clone(),
                fetch_memory: Arc::clone(&fetch_memory),
                hashing: Arc::clone(&hashing),
                events: events.clone(),
                dht: Arc::clone(&plane.dht),
                roster: Arc::clone(&plane.roster),
                resolving: Arc::clone(&resolving),
            };
            let thread = shard::spawn(seat)?;
            plane.shards.push((commands, thread));
        }
        Ok((plane, received))
    }

    /// From now on peers may tell us of their DHT nodes ([`Event::DhtNode`]), and are told that ours
    /// of the IPv4 and of the IPv6 DHT are at these UDP ports (BEP 5, BEP 32), if they are to know.
    pub fn open_dht(&self, ports: [Option<u16>; 2]) {
        self.dht.open(ports);
    }

    /// Where peers connect.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// How many shards run.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Serves `torrent` from all shards; it is being served when this returns. If it was dormant it
    /// is awake, and the peers that waited for it go on. (One that was removed or retired does not
    /// come back: it takes a new [`SeededTorrent`].)
    pub async fn add(&self, torrent: &Arc<SeededTorrent>) {
        let _changing = self.changing.lock().await;
        self.roster.enter(torrent);
        self.tell_all(|done| Command::Add(Arc::clone(torrent), done))
            .await;
        self.roster.woken(torrent.info_hash());
    }

    /// Stops serving `torrent`: no block of it is sent after this returns.
    pub async fn remove(&self, torrent: &Arc<SeededTorrent>) {
        let _changing = self.changing.lock().await;
        torrent.stop();
        self.roster.leave(torrent);
        self.tell_all(|done| Command::Remove(Arc::clone(torrent), done))
            .await;
    }

    /// Begins to download a torrent. Its events must be read as they come.
    ///
    /// # Errors
    ///
    /// [`FetchError`]; nothing has been begun then.
    pub async fn fetch(
        &self,
        spec: FetchSpec,
    ) -> Result<(Fetch, mpsc::Receiver<FetchEvent>), FetchError> {
        let limits = spec.limits;
        let (fetch, seat, events) = fetch::begin(spec)?;
        self.set_torrent_limits(fetch.torrent(), limits);
        let info_hash = fetch.torrent().info_hash();
        let home = self.home_of(info_hash);
        let (done, answer) = oneshot::channel();
        let command = Command::Fetch(Box::new(seat), done);
        self.tell(home, command).await?;
        answer.await.map_err(|_| FetchError::Stopping)??;
        Ok((fetch, events))
    }

    /// Begins to fetch a torrent's `info` dictionary from peers (BEP 9). Those that call us for it
    /// are asked from when this returns, on whatever shard they come.
    ///
    /// # Errors
    ///
    /// [`FetchError::Stopping`].
    pub async fn fetch_metadata(
        &self,
        info_hash: InfoHashV1,
    ) -> Result<(MetadataFetch, mpsc::Receiver<MetadataEvent>), FetchError> {
        let (fetch, seat, events) = fetch::begin_metadata(info_hash);
        let (done, answer) = oneshot::channel();
        let command = Command::FetchMetadata(Box::new(seat), done);
        self.tell(self.home_of(info_hash), command).await?;
        answer.await.map_err(|_| FetchError::Stopping)?;
        Ok((fetch, events))
    }

    /// Names peers of a complete torrent, which are called if they may want something. When too
    /// many wait already they are dropped: sources name them again.
    pub fn found(&self, torrent: &Arc<SeededTorrent>, peers: &[SocketAddr], source: PeerSource) {
        if let Some((shard, _)) = self.shards.get(self.home_of(torrent.info_hash())) {
            let command = Command::Call(Arc::clone(torrent), peers.to_vec(), source);
            let _ = shard.try_send(command);
        }
    }

    /// The same for the torrent of this info-hash, if it is awake. Dormant ones call nobody.
    pub fn found_for(&self, info_hash: InfoHashV1, peers: &[SocketAddr], source: PeerSource) {
        if let Some(torrent) = self.roster.torrent(info_hash) {
            self.found(&torrent, peers, source);
        }
    }

    /// Keeps away whom `filter` has, and nobody else, also those who are connected.
    pub async fn set_ip_filter(&self, filter: &Arc<IpFilter>) {
        self.tell_all(|done| Command::Filter(Arc::clone(filter), done))
            .await;
    }

    /// The shard whose the download of this torrent is.
    fn home_of(&self, info_hash: InfoHashV1) -> usize {
        fetch::home_of(info_hash, self.shards.len())
    }

    async fn tell(&self, shard: usize, command: Command) -> Result<(), FetchError> {
        let shard = self.shards.get(shard);
        let (commands, _) = shard.ok_or(FetchError::Stopping)?;
        commands
            .send(command)
            .await
            .map_err(|_| FetchError::Stopping)
    }

    /// Closes all connections and ends the shards, within `deadline`. False if some shard was not
    /// done by then (an operation on a hung disk is not to be interrupted); its thread is left
    /// behind.
    pub async fn stop(&self, deadline: Duration) -> bool {
        let until = tokio::time::Instant::now() + deadline;
        for (commands, _) in &self.shards {
            let _ = tokio::time::timeout_at(until, commands.send(Command::Stop)).await;
        }
        let ended = |shards: &[(_, JoinHandle<()>)]| shards.iter().all(|(_, t)| t.is_finished());
        while !ended(&self.shards) {
            if tokio::time::Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        true
    }

    async fn tell_all(&self, command: impl Fn(oneshot::Sender<()>) -> Command) {
        let mut answers = Vec::with_capacity(self.shards.len());
        for (commands, _) in &self.shards {
            let (done, answer) = oneshot::channel();
            // A shard that is gone has told so by `Event::ShardLost`.
            if commands.send(command(done)).await.is_ok() {
                answers.push(answer);
            }
        }
        for answer in answers {
            let _ = answer.await;
        }
    }
}

mod sleeping;
mod steering;
#[cfg(test)]
mod tests;

pub use sleeping::{Keeper, NotRetired, Retired, SleepPolicy};
pub use steering::ConfiguredLimits;
