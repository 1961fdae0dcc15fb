//! The embedded tracker: announce and scrape over HTTP (BEP 3, 7, 23, 24, 48) and UDP (BEP 15), so
//! that `seed` needs nothing else.
//!
//! [`Tracker::bind`] opens the listeners, [`Tracker::run`] serves until told to stop,
//! [`TrackerHandle`] tells it which torrents to serve. Its parts: `swarm` (who is there, pure),
//! `zones` (racks and sites), `server` (connections), `answer` (requests and replies), `udp`
//! (datagrams), `flood` (how often one address may ask).
//!
//! **Policies.**
//! - It serves the torrents that it was told of ([`TrackerHandle::allow`],
//!   [`TrackerHandle::register_local`]), or any if [`TrackerConfig::open`].
//! - A peer's address is where its connection comes from; `ip=` in the query is ignored, so
//!   nobody can point others at a third party.
//! - A seed is given leechers only; nobody is given itself. Peers of the asker's family come
//!   first, those of the other fill up; in each, those of its zone ([`TrackerConfig::zones`]).
//!   Nobody at a global address is told of addresses inside a network. The counts are of both
//!   families, a peer that announces over both is counted once.
//! - A peer that announced over loopback, or was registered, is on this machine: other machines
//!   are given the address at which they reached the tracker.
//! - A reply is compact unless the client asks for `compact=0` (BEP 23).
//!
//! Limits: [`TrackerConfig`] and the constants beside it; `swarm` and `flood` say what is dropped
//! when full. Does not: speak HTTPS, keep anything over a restart, or serve a full scrape.

mod answer;
mod flood;
mod server;
mod swarm;
#[cfg(test)]
mod tests;
mod udp;
mod zones;

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use engine::time::Time;
use proto::ids::{InfoHashV1, PeerId};
use seedring_metrics::ControlCells;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use flood::Flood;
use swarm::Store;
pub use swarm::{Limits, SHARDS};
use udp::ConnectionIds;
pub use zones::{LabelError, LabelledNetwork, NETWORKS_MAX};
use zones::{Zone, Zones};

/// The port on which trackers are usually found.
pub const PORT_DEFAULT: u16 = 6969;
/// Peers in one reply at most (what a client asks for with `numwant`), and when it does not ask.
pub const NUMWANT_MAX: usize = 200;
/// See [`NUMWANT_MAX`].
pub const NUMWANT_DEFAULT: usize = 50;
/// Ports that are tried for one that is free for TCP and UDP.
const ANY_PORT_ATTEMPTS: u32 = 16;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// How the tracker works; the defaults fit one machine's `seed`.
#[derive(Clone, Debug)]
pub struct TrackerConfig {
    /// Where to listen. Default: port 6969 of all IPv4 and all IPv6 addresses. Port 0 means any;
    /// the IPv6 one then takes the port of the first if it can.
    pub listen: Vec<SocketAddr>,
    /// Whether to answer over UDP too, at the same addresses and ports. Default yes.
    pub udp: bool,
    /// Whether to serve torrents that it was not told of. Default no.
    pub open: bool,
    /// When peers are to announce again; up to a tenth is added at random. Default 30 min.
    pub interval: Duration,
    /// When they may, at the earliest. Default 1 min.
    pub interval_min: Duration,
    /// Which networks are in which zone: peers are given those of their own zone first. Default
    /// none.
    pub zones: Vec<LabelledNetwork>,
    /// How much is held. A peer lives twice the interval by default.
    pub limits: Limits,
    /// Connections at once; more are closed as they come. Default 4,096.
    pub connections_max: usize,
    /// Of these from one address, loopback excepted. Default 256.
    pub connections_per_address_max: usize,
    /// Requests per second from one IPv4 address or IPv6 /64 network, loopback excepted. Default
    /// 100.
    pub requests_per_second_max: u32,
    /// Requests from it at once after a pause. Default 1,000.
    pub requests_burst_max: u32,
    /// How long a request's head may take to arrive, and how long a connection may be idle.
    /// Default 15 s.
    pub head_timeout: Duration,
    /// After this a connection is closed behind its next reply. Default 5 min.
    pub connection_lifetime: Duration,
}

impl Default for TrackerConfig {
    fn default() -> TrackerConfig {
        let interval = Duration::from_secs(30 * 60);
        TrackerConfig {
            listen: vec![
                (Ipv4Addr::UNSPECIFIED, PORT_DEFAULT).into(),
                (Ipv6Addr::UNSPECIFIED, PORT_DEFAULT).into(),
            ],
            udp: true,
            open: false,
            interval,
            interval_min: Duration::from_secs(60),
            zones: Vec::new(),
            limits: Limits {
                torrents_max: 200_000,
                peers_per_torrent_max: 20_000,
                peers_max: 200_000,
                peer_lifetime: 2 * interval,
            },
            connections_max: 4096,
            connections_per_address_max: 256,
            requests_per_second_max: 100,
            requests_burst_max: 1000,
            head_timeout: Duration::from_secs(15),
            connection_lifetime: Duration::from_secs(5 * 60),
        }
    }
}

/// Why the tracker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TrackerError {
    /// An address cannot be listened on.
    #[error(
        "the tracker cannot listen on {address}: {cause}; choose another with --tracker-port or tracker.listen, or stop who holds it"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Its threads for UDP cannot be started.
    #[error(
        "the tracker cannot start its threads for UDP: {0}; set tracker.udp = false, or raise the limits of this process"
    )]
    Threads(std::io::Error),
    /// There is no address to listen on.
    #[error(
        "the tracker has no address to listen on: set tracker.listen_v4 or tracker.listen_v6 to one \
         that this machine has, or turn the tracker off (--no-tracker, tracker.enabled)"
    )]
    Nowhere,
}

/// The tracker with its listeners open; see [`Tracker::run`].
pub struct Tracker {
    inner: Arc<Inner>,
    listeners: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    /// Ends its threads when dropped.
    udp: udp::Serving,
}

/// Tells a running tracker which torrents to serve.
#[derive(Clone)]
pub struct TrackerHandle {
    inner: Arc<Inner>,
}

struct Inner {
    config: TrackerConfig,
    store: Store,
    flood: Flood,
    /// Changed as a whole, at a reload.
    zones: RwLock<Arc<Zones>>,
    connection_ids: ConnectionIds,
    cells: Arc<ControlCells>,
    start: Instant,
}

impl Inner {
    /// The zone of an address now.
    fn zone_of(&self, ip: IpAddr) -> Zone {
        // What is guarded is whole at every moment.
        let zones = self.zones.read().unwrap_or_else(PoisonError::into_inner);
        zones.of(ip)
    }

    fn now(&self) -> Time {
        // Not from zero: the flood table's empty buckets stand for "long ago".
        Time(0) + Duration::from_secs(3600) + self.start.elapsed()
    }
}

impl Tracker {
    /// Opens the listeners, and answers over UDP from now on; call on a tokio runtime. An address
    /// of a family that this machine does not have is left out with a warning, as long as there is
    /// another.
    ///
    /// # Errors
    /// An address that cannot be listened on.
    pub fn bind(config: &TrackerConfig, cells: Arc<ControlCells>) -> Result<Tracker, TrackerError> {
        let mut listeners = Vec::new();
        let mut endpoints = Vec::new();
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for &address in &config.listen {
            let mut bound = Err(std::io::ErrorKind::AddrInUse.into());
            if let (0, Some(first)) = (address.port(), addresses.first()) {
                bound = listen(SocketAddr::new(address.ip(), first.port()), config.udp);
            }
            match bound.or_else(|_| listen(address, config.udp)) {
                Ok(bound) => {
                    addresses.push(bound.address);
                    listeners.push(bound.listener);
                    endpoints.extend(bound.endpoint);
                }
                Err(cause) if is_missing_family(&cause) => {
                    tracing::warn!(%address, %cause, "the tracker leaves out an address");
                }
                Err(cause) => return Err(TrackerError::Listen { address, cause }),
            }
        }
        if listeners.is_empty() {
            return Err(TrackerError::Nowhere);
        }
        let inner = Arc::new(Inner {
            config: config.clone(),
            store: Store::new(config.open, config.limits),
            flood: Flood::new(config.requests_per_second_max, config.requests_burst_max),
            zones: RwLock::new(Arc::new(Zones::new(&config.zones))),
            connection_ids: ConnectionIds::new(),
            cells,
            start: Instant::now(),
        });
        let udp = udp::Serving::start(&inner, endpoints).map_err(TrackerError::Threads)?;
        Ok(Tracker {
            inner,
            listeners,
            addresses,
            udp,
        })
    }

    /// Where it listens, with the ports that it got.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The way to tell it of torrents.
    pub fn handle(&self) -> TrackerHandle {
        TrackerHandle {
            inner: self.inner.clone(),
        }
    }

    /// Serves until `shutdown` is ready; then ends what is under way, which takes two seconds at
    /// most.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        server::run(self.inner, self.listeners, shutdown).await;
        drop(self.udp);
    }
}

impl TrackerHandle {
    /// Serves a torrent from now on.
    pub fn allow(&self, info_hash: InfoHashV1) {
        self.inner.store.allow(info_hash);
    }

    /// Serves it no more, and forgets its peers.
    pub fn disallow(&self, info_hash: InfoHashV1) {
        self.inner.store.disallow(info_hash);
    }

    /// Serves a torrent and lists a seed of it that is on this machine, over IPv4 and IPv6:
    /// without announces, until [`TrackerHandle::disallow`]. `peer_id` and `port` are those of
    /// its handshakes and its listener.
    pub fn register_local(&self, info_hash: InfoHashV1, peer_id: PeerId, port: u16) {
        self.inner.store.register_local(info_hash, peer_id, port);
    }

    /// Goes by these zones from now on: of who asks at once, of peers that are known from when they
    /// announce themselves again.
    pub fn set_zones(&self, labels: &[LabelledNetwork]) {
        let zones = &self.inner.zones;
        let before = Arc::clone(&zones.read().unwrap_or_else(PoisonError::into_inner));
        let renewed = Arc::new(before.renewed(labels));
        *zones.write().unwrap_or_else(PoisonError::into_inner) = renewed;
    }

    /// Torrents and peers that it knows of.
    pub fn sizes(&self) -> (usize, usize) {
        self.inner.store.sizes()
    }
}

/// One address, opened.
struct Bound {
    listener: TcpListener,
    endpoint: Option<udp::Endpoint>,
    address: SocketAddr,
}

/// Opens an address for HTTP, and the same port for UDP. Port 0 is any that is free for both.
fn listen(address: SocketAddr, udp: bool) -> std::io::Result<Bound> {
    for attempt in 1.. {
        let listener = listen_tcp(address)?;
        let bound = listener.local_addr()?;
        if !udp {
            let endpoint = None;
            return Ok(Bound {
                listener,
                endpoint,
                address: bound,
            });
        }
        match udp::Endpoint::bind(bound) {
            Err(error)
                if error.kind() == std::io::ErrorKind::AddrInUse
                    && address.port() == 0
                    && attempt < ANY_PORT_ATTEMPTS => {}
            endpoint => {
                let endpoint = Some(endpoint?);
                return Ok(Bound {
                    listener,
                    endpoint,
                    address: bound,
                });
            }
        }
    }
    Err(std::io::ErrorKind::AddrInUse.into())
}

fn listen_tcp(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        // Each family has a listener of its own, so that no IPv4 peer looks like an IPv6 one.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// The machine has no such family, or not that address in it.
fn is_missing_family(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{AddrNotAvailable, Unsupported};
    const EAFNOSUPPORT: i32 = 97;
    matches!(error.kind(), AddrNotAvailable | Unsupported)
        || error.raw_os_error() == Some(EAFNOSUPPORT)
}
