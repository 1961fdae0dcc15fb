//! What the controller and the workers of a run share: the clock, the window, the progress, the
//! failure.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proto::ids::InfoHashV1;

use super::stream::End;

/// Why a run has no result.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Nothing listens at the address.
    #[error(
        "connection refused by {address}: nothing listens there; start the seed first and \
         check its port"
    )]
    Refused {
        /// The seed.
        address: SocketAddr,
    },
    /// The address does not answer.
    #[error(
        "no connection to {address} within 10 s: check the address and the seed's connection \
         limits"
    )]
    NoAnswer {
        /// The seed.
        address: SocketAddr,
    },
    /// The connection failed in another way.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// The seed.
        address: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The seed closes after our handshake.
    #[error(
        "wrong info-hash? {address} closed the connection after our handshake for \
         {info_hash}, {attempts} times: it does not seed this torrent, demands encryption, or \
         refuses further peers from this address (see --local-addresses)"
    )]
    ClosedAfterHandshake {
        /// The seed.
        address: SocketAddr,
        /// What we asked for.
        info_hash: InfoHashV1,
        /// How often one leecher tried.
        attempts: u32,
    },
    /// The seed accepts and says nothing.
    #[error(
        "{address} accepted the connection and sent no handshake within 10 s: is it a \
         BitTorrent seed?"
    )]
    NoHandshake {
        /// The seed.
        address: SocketAddr,
    },
    /// The seed breaks the protocol.
    #[error("{address} broke the peer protocol: {reason}")]
    Misbehaviour {
        /// The seed.
        address: SocketAddr,
        /// How.
        reason: String,
    },
    /// A web server answers something else than what was asked for (HTTP load only).
    #[error("{address} answered {reason}: is the file there, and may the server read it?")]
    Answer {
        /// The web server.
        address: SocketAddr,
        /// What it answered.
        reason: String,
    },
    /// The seed greets and has nothing.
    #[error(
        "{address} greeted and never said that it has a piece, within {seconds} s: it is \
         still checking its data, or its data is missing"
    )]
    NothingOffered {
        /// The seed.
        address: SocketAddr,
        /// How long we waited.
        seconds: u64,
    },
    /// The seed never unchokes.
    #[error(
        "never unchoked: {address} has pieces and served none of {peers} peers within \
         {seconds} s: raise its upload slots"
    )]
    NeverUnchoked {
        /// The seed.
        address: SocketAddr,
        /// How many asked.
        peers: u32,
        /// How long we waited.
        seconds: u64,
    },
    /// No data in the measured window.
    #[error(
        "{address} served nothing in the measured window ({chokes} chokes, {rejects} rejects, \
         {disconnects} disconnects): a seed may reject blocks above 16K (--block) or a long \
         queue (--depth)"
    )]
    NothingServed {
        /// The seed.
        address: SocketAddr,
        /// How often it choked us.
        chokes: u64,
        /// How many requests it rejected.
        rejects: u64,
        /// How many connections ended.
        disconnects: u64,
    },
    /// Our own system calls failed.
    #[error("the load generator could not {operation}: {source}")]
    System {
        /// What it wanted to do.
        operation: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Reading /proc failed.
    #[error(transparent)]
    Measure(#[from] crate::measure::MeasureError),
}

/// Nanoseconds since the run began.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// Begins now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time, in ns; 64 bits last for 584 years.
    pub fn now_ns(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }

    /// Sleeps until `at_ns`.
    pub fn sleep_until(&self, at_ns: u64) {
        std::thread::sleep(Duration::from_nanos(at_ns.saturating_sub(self.now_ns())));
    }
}

/// See the head of this file. Times are in ns of `clock`, `u64::MAX` as long as they are not known.
pub struct Shared {
    /// The run's clock.
    pub clock: Clock,
    /// Open loop: when the first request is due.
    pub schedule_ns: AtomicU64,
    /// When the measured window begins.
    pub start_ns: AtomicU64,
    /// When the measured window, and the run, ends.
    pub end_ns: AtomicU64,
    /// Leechers of any role that have been connected.
    pub connected: AtomicU32,
    /// Leechers of any role that the seed has greeted.
    pub greeted: AtomicU32,
    /// Leechers of any role to which the seed has offered pieces.
    pub offered: AtomicU32,
    /// Measured leechers that the seed has unchoked.
    pub unchoked: AtomicU32,
    /// Why the run cannot go on; the first reason stays.
    pub failure: OnceLock<LoadError>,
}

impl Shared {
    /// A run that begins now.
    pub fn new() -> Self {
        Self {
            clock: Clock::start(),
            schedule_ns: AtomicU64::new(u64::MAX),
            start_ns: AtomicU64::new(u64::MAX),
            end_ns: AtomicU64::new(u64::MAX),
            connected: AtomicU32::new(0),
            greeted: AtomicU32::new(0),
            offered: AtomicU32::new(0),
            unchoked: AtomicU32::new(0),
            failure: OnceLock::new(),
        }
    }

    /// Ends the run with `error`, unless it has ended already.
    pub fn fail(&self, error: LoadError) {
        // A later failure follows from the first.
        let _ = self.failure.set(error);
        self.end_ns.store(0, Ordering::Release);
    }
}

/// Says whether the end of a connection tells that the run can never begin. Before anybody has come
/// further than this leecher, a refusal is final; afterwards it is the seed's limits, and we come
/// back.
pub fn is_final(
    end: &End,
    shared: &Shared,
    address: SocketAddr,
    info_hash: InfoHashV1,
    failures: u32,
) -> Option<LoadError> {
    const ATTEMPTS_MAX: u32 = 3;
    let never = |count: &AtomicU32| count.load(Ordering::Relaxed) == 0;
    match end {
        End::Connect(error) if never(&shared.connected) => {
            Some(if error.kind() == std::io::ErrorKind::ConnectionRefused {
                LoadError::Refused { address }
            } else {
                let source = std::io::Error::new(error.kind(), error.to_string());
                LoadError::Connect { address, source }
            })
        }
        End::SetupTimeout if never(&shared.connected) => Some(LoadError::NoAnswer { address }),
        End::SetupTimeout if never(&shared.greeted) => Some(LoadError::NoHandshake { address }),
        End::Closed | End::Broken(_) if never(&shared.greeted) && failures >= ATTEMPTS_MAX => {
            Some(LoadError::ClosedAfterHandshake {
                address,
                info_hash,
                attempts: failures,
            })
        }
        End::Misbehaviour(reason) if never(&shared.unchoked) => Some(LoadError::Misbehaviour {
            address,
            reason: reason.to_string(),
        }),
        // A web server that does not answer ranges never will.
        End::Answer(reason) => Some(LoadError::Answer {
            address,
            reason: reason.clone(),
        }),
        _ => None,
    }
}
