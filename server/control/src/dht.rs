//! The DHT: our nodes, one of each address family, over UDP; when which torrent is announced there,
//! and looked for.
//!
//! [`Dht::start`] opens the sockets and spawns one task on the control runtime. It drives two
//! [`engine::dht::Node`]s, which decide everything about the protocol; `schedule` decides which
//! torrent is next, `saved` keeps the nodes that we know for the next start.
//!
//! **Policies.**
//! - *Private torrents* (BEP 27) are refused here, so that no caller can forget it; what may be one,
//!   since only its hash is known, is looked for and not announced.
//! - *Announces* are spread: a torrent is announced again [`DhtConfig::announce_interval`] after
//!   its last announce ended, up to 10 % later at random; searches under way and queries a second
//!   are bounded, so with very many torrents the interval grows instead of the load. There is no
//!   timer and no task per torrent. What was announced in one family before the other had a node is
//!   announced in both when it has one.
//! - *Downloads* come before seeds, and look again the sooner the less they have found.
//! - *Bootstrap*: the nodes of the last run and those of the configuration; again, ever less often,
//!   while fewer than [`NODES_ENOUGH`] are known.
//! - *Nobody answers*: that is told in the log, once, with what is known of the reason, and when
//!   somebody does.
//! - *A datagram that the socket does not take* is dropped: UDP loses some anyway.
//! - *An interface or address* that is named and not there: nothing is sent or heard until it is,
//!   which `socket` looks for.
//! - *The port* is the peers' (BEP 5 implies it); if another program has it, and none was
//!   configured, any.
//!
//! Limits: those of [`engine::dht::NodeConfig`]; [`SUGGESTIONS_MAX`] nodes that peers have named
//! wait to be asked. Does not: connect to the peers that it finds; announce to trackers.

mod driver;
mod loneliness;
mod saved;
mod schedule;
mod socket;
#[cfg(test)]
mod tests;

use crate::lsd::PeerSink;
use engine::time::Time;
use proto::ids::InfoHashV1;
use schedule::{Role, Schedule};
use seedring_metrics::ControlCells;
use socket::Socket;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// Nodes below which more are looked for.
pub const NODES_ENOUGH: usize = 8;
/// Nodes named by peers (BEP 5 `port`) that wait to be asked; more are dropped.
const SUGGESTIONS_MAX: usize = 256;
/// How long the task may take to end.
const STOP_MAX: Duration = Duration::from_secs(1);

/// How the DHT is taken part in.
#[derive(Clone, Debug)]
pub struct DhtConfig {
    /// The addresses to listen on, at most one of each family.
    pub listen: Vec<IpAddr>,
    /// The network interface that everything goes by; none: any.
    pub interface: Option<String>,
    /// The UDP port; 0: any.
    pub port: u16,
    /// Whether another port will do if that one is taken.
    pub any_port: bool,
    /// Nodes to begin with, `HOST:PORT`.
    pub bootstrap: Vec<String>,
    /// Answers no queries (BEP 43).
    pub read_only: bool,
    /// How long after an announce the next one of the same torrent.
    pub announce_interval: Duration,
    /// Queries that each node sends a second.
    pub queries_per_second: u32,
    /// Bytes of answers that each node sends a second.
    pub reply_bytes_per_second: u32,
    /// Peers that each node stores for others.
    pub stored_peers_max: usize,
    /// The file that keeps the nodes that we know; none: they are forgotten.
    pub saved: Option<PathBuf>,
    /// Secret and random: a key for each node.
    pub keys: [[u8; 16]; 2],
}

/// Why no node can be run.
#[derive(Debug, thiserror::Error)]
pub enum DhtError {
    /// A socket cannot be opened.
    #[error("cannot open UDP port {address} for the DHT: {error}")]
    Socket {
        /// Its address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// There is no address to listen on.
    #[error("the DHT has no address: bind_v4 and bind_v6 of [peers] and [announce] leave none")]
    NoAddress,
}

/// Starts the DHT; see [`Dht::start`].
pub struct Dht;

impl Dht {
    /// Opens the sockets and spawns the task on the current tokio runtime. It ends with
    /// [`DhtHandle::shutdown`], or when the last handle is dropped. `peer_port` is what is
    /// announced.
    ///
    /// # Errors
    /// No socket can be opened. If one of two cannot, that is logged; so it is if what one is to be
    /// bound to is not there yet.
    pub fn start(
        config: &DhtConfig,
        peer_port: u16,
        cells: Arc<ControlCells>,
    ) -> Result<DhtHandle, DhtError> {
        let mut sockets = Vec::new();
        let mut failed = DhtError::NoAddress;
        let mut port = config.port;
        for ip in &config.listen {
            match Socket::open(SocketAddr::new(*ip, port), config) {
                Ok(socket) => {
                    // Peers of both families are told one number (BEP 5 `port`).
                    port = socket.address().port();
                    sockets.push(socket);
                }
                Err(error) => {
                    tracing::warn!(%error, "no node of this address family");
                    failed = error;
                }
            }
        }
        if sockets.is_empty() {
            return Err(failed);
        }
        let addresses = sockets
            .iter()
            .filter(|socket| socket.is_open())
            .map(Socket::address)
            .collect();
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                schedule: Schedule::new(config.announce_interval, fastrand::u64(..)),
                suggestions: Vec::new(),
                removed: Vec::new(),
                nodes: 0,
            }),
            changed: Notify::new(),
            start: Instant::now(),
        });
        let (stop, stopped) = watch::channel(false);
        let driver = driver::Driver::new(config, peer_port, sockets, cells, &shared);
        let task = tokio::spawn(driver.run(Arc::downgrade(&shared), stopped));
        Ok(DhtHandle {
            shared,
            addresses,
            stop: Arc::new(stop),
            task: Arc::new(Mutex::new(Some(task))),
        })
    }
}

/// What the handles and the task share.
struct Shared {
    state: Mutex<State>,
    /// The task has something new to look at.
    changed: Notify,
    start: Instant,
}

struct State {
    schedule: Schedule,
    /// Nodes that peers have named.
    suggestions: Vec<SocketAddr>,
    /// Torrents whose searches are to end. At most those that were there.
    removed: Vec<InfoHashV1>,
    /// Nodes that are known.
    nodes: usize,
}

impl Shared {
    fn now(&self) -> Time {
        Time(1) + self.start.elapsed()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way to the DHT. Its calls take a short lock and never wait for the network.
#[derive(Clone)]
pub struct DhtHandle {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    stop: Arc<watch::Sender<bool>>,
    task: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl DhtHandle {
    /// Announces a torrent that we seed from now on; `sink` takes the peers that are found on the
    /// way. False if it is private.
    pub fn announce(&self, info_hash: InfoHashV1, private: bool, sink: Arc<dyn PeerSink>) -> bool {
        self.add(info_hash, private, Role::Seed, sink)
    }

    /// Announces a torrent from now on, and looks for its peers. False if it is private.
    pub fn find(&self, info_hash: InfoHashV1, private: bool, sink: Arc<dyn PeerSink>) -> bool {
        self.add(info_hash, private, Role::Download, sink)
    }

    /// Looks for the peers of a torrent of which only the hash is known, and announces nothing: it
    /// may be private.
    pub fn look(&self, info_hash: InfoHashV1, sink: Arc<dyn PeerSink>) {
        self.add(info_hash, false, Role::Look, sink);
    }

    /// A download has nobody to fetch from: looks for peers again soon. May be called as often as
    /// one likes.
    pub fn hurry(&self, info_hash: InfoHashV1) {
        if self.shared.state().schedule.hurry(info_hash) {
            self.shared.changed.notify_one();
        }
    }

    /// Has no more to do with a torrent. What was announced is forgotten by others in time.
    pub fn remove(&self, info_hash: InfoHashV1) {
        let mut state = self.shared.state();
        if state.schedule.remove(info_hash) {
            state.removed.push(info_hash);
            drop(state);
            self.shared.changed.notify_one();
        }
    }

    /// A peer says that it has a node there (BEP 5 `port`).
    pub fn suggest(&self, node: SocketAddr) {
        let mut state = self.shared.state();
        if state.suggestions.len() < SUGGESTIONS_MAX {
            state.suggestions.push(node);
            drop(state);
            self.shared.changed.notify_one();
        }
    }

    /// How many nodes are known, and how many peers the last search for this torrent has found, if
    /// there was one.
    pub fn status(&self, info_hash: InfoHashV1) -> (usize, Option<usize>) {
        let state = self.shared.state();
        (state.nodes, state.schedule.found_lately(info_hash))
    }

    /// Where our nodes listen since the start.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Ends the task, which saves the nodes that it knows.
    pub async fn shutdown(&self) {
        let _ = self.stop.send(true);
        let task = self
            .task
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(task) = task
            && tokio::time::timeout(STOP_MAX, task).await.is_err()
        {
            tracing::warn!("the DHT did not end in time; the nodes that it knew may not be saved");
        }
    }

    fn add(
        &self,
        info_hash: InfoHashV1,
        private: bool,
        role: Role,
        sink: Arc<dyn PeerSink>,
    ) -> bool {
        if private {
            return false;
        }
        let now = self.shared.now();
        self.shared.state().schedule.add(now, info_hash, role, sink);
        self.shared.changed.notify_one();
        true
    }
}
