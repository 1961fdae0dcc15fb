//! Announces: tells the HTTP, HTTPS and UDP trackers of every torrent that we have it (BEP 3, 7,
//! 12, 15, 23, 24, 31, 41), and asks them for its counts (BEP 48).
//!
//! [`Announcer::start`] spawns one task on the control runtime; the [`AnnounceHandle`] it answers
//! may be cloned and used from anywhere. Its parts: `tiers` (the trackers of one torrent),
//! `schedule` (who is next: pure, in virtual time), `client` (one announce or scrape), `udp` (UDP
//! trackers' sockets and connection ids), `resolve` (names and which addresses are allowed),
//! `binding` (by which interface), `own` (which peers are ourselves).
//!
//! **Policies.**
//! - *Tiers*: shuffled within; the first tracker that is not backing off is asked; one that answers
//!   moves to the front of its tier; the next tier is asked only when the whole tier fails (BEP
//!   12), or has not answered for seconds: then it is asked beside it, unless the torrent is
//!   private. `stopped` goes to every tracker that answered a `started`, to all at once.
//! - *Spacing*: announces leave evenly for each tracker host
//!   ([`AnnounceConfig::per_second_per_host`]), at most so many at once per host and overall;
//!   regular ones come up to 10 % later than asked, at random. So 10,000 torrents added at once
//!   neither burst nor stay in step. There is no timer and no task per torrent.
//! - *Intervals*: what the tracker asks, but 60 s to 24 h, and at least its `min interval`.
//! - *Failures*: the next tracker at once; the same one after 15 s (60 s if it answered with a
//!   refusal), doubling to 30 min, plus jitter; a tracker's own `retry in` (BEP 31) or
//!   `Retry-After` instead; `never` and HTTP 410 end it for the torrent. A host that fails three
//!   times in a row is left alone for all torrents and tried by single announces until it
//!   answers.
//! - *Two families*: a tracker with IPv4 and IPv6 addresses is told about a public torrent over
//!   each, with one key, because each family's peers are found by that family only. A private
//!   torrent is announced once, over the resolver's first choice and if that cannot be reached
//!   the other, because private trackers add up what each announce reports. A family that failed
//!   where the other worked is left out for half an hour.
//! - *Addresses*: see [`AnnounceConfig::allow_private_trackers`]. A tracker that was reached at a
//!   global address is followed to global addresses only; each is checked as it is connected to.
//!   HTTP requests to other addresses go only to paths that end in `announce…` or `scrape…`; all
//!   that a UDP address gets before it answers like a tracker are 16 fixed bytes. At most 5
//!   redirects, to `http` and `https`, never from `https` to `http`. No proxy is taken from the
//!   environment.
//! - *Proxy, binding*: see [`AnnounceConfig::proxy`] and [`Binding`]. What they ask for is gone:
//!   nothing leaves.
//! - *Bounds*: a reply of 1 MiB after decompression, or one datagram; 30 s for everything,
//!   redirects and repetitions included.
//! - *UDP*: asked again after 15 s (BEP 15), so twice in those 30 s; after that as any failure.
//! - *Scrapes*: each torrent once in [`AnnounceConfig::scrape_interval`] at the trackers that have
//!   answered for it, many in one request, by the same bucket, when no announce waits.
//! - *Secrets*: a tracker URL is never logged or shown but as scheme, host and `/…`; a tracker's
//!   text is cut, escaped, and rid of anything that may be the passkey.
//! - *Peers*: those of a reply go to [`Totals::found`], less port 0 and our own address. By the
//!   address that answered, a tracker names peers at global addresses only, or in our network too,
//!   or on this machine ([`proto::address::may_name`]): it must not make us connect to what it
//!   cannot see. A complete torrent asks for fewer ([`AnnounceConfig::numwant_complete`]): 30 take
//!   180 bytes.
//!
//! Does not: connect to peers; ask UDP trackers through a proxy.

mod binding;
mod client;
mod driver;
mod own;
mod resolve;
mod schedule;
#[cfg(test)]
mod tests;
mod tiers;
mod udp;
mod url;

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use engine::time::Time;
use proto::ids::{InfoHashV1, PeerId};
use proto::tracker::ScrapeFile;
use seedring_metrics::ControlCells;
use tokio::sync::Notify;

pub use binding::Binding;
pub(crate) use client::{certificates, check_authority, is_proxy_url};
pub(crate) use resolve::Family;
pub use schedule::{HOST_FAILURES_MAX, OVERDUE_AFTER};
pub use tiers::{
    BACKOFF_MAX, BACKOFF_MIN, INTERVAL_MAX, INTERVAL_MIN, REFUSED_BACKOFF_MIN,
    TRACKERS_PER_TORRENT_MAX,
};
pub use url::{TrackerUrlError, is_global, is_udp, redacted};

use schedule::{Limits, Scheduler};

/// Redirects that are followed for one announce.
pub const REDIRECTS_MAX: usize = 5;
/// At most this many announces are under way while shutting down, when only `stopped` is left to
/// say.
const SHUTDOWN_IN_FLIGHT_MAX: usize = 256;
/// See [`SHUTDOWN_IN_FLIGHT_MAX`]; to one host.
const SHUTDOWN_IN_FLIGHT_PER_HOST_MAX: usize = 32;

/// Trackers that are named when not all could be told that we stop.
const LEFT_TOLD_MAX: usize = 5;
/// Trackers that are named because a proxy keeps them from being asked; further ones are not.
const PROXIED_TOLD_MAX: usize = 64;

/// How announces are made; the defaults fit a server with 10,000 torrents.
#[derive(Clone, Debug)]
pub struct AnnounceConfig {
    /// What we call ourselves: `seedring/VERSION`.
    pub user_agent: String,
    /// Whether a tracker may have an address that is not global: loopback, private, link-local.
    /// Default true, for trackers of our own and in the local network. A redirect from a global
    /// address to such a one is refused either way.
    pub allow_private_trackers: bool,
    /// Announces under way at once. Default 64.
    pub in_flight_max: usize,
    /// Announces under way at once to one tracker host, and connections kept to it. Default 8.
    pub in_flight_per_host_max: usize,
    /// Announces per second to one tracker host. Default 20.
    pub per_second_per_host: u32,
    /// The time for one announce, redirects and body included. Default 30 s.
    pub timeout: Duration,
    /// Peers to ask for while incomplete. Default 50.
    pub numwant: u32,
    /// The same of a torrent that is complete, to call those who cannot call us; 0 if nobody is to
    /// be called. Default 30.
    pub numwant_complete: u32,
    /// How often each torrent is scraped at the trackers that know it; none for never. Default 30
    /// minutes.
    pub scrape_interval: Option<Duration>,
    /// The proxy that all requests go through: `http://`, `https://`, `socks5://` or `socks5h://`,
    /// with a user and password if it wants them. It resolves the trackers' names. UDP trackers are
    /// then not asked at all. Default none.
    pub proxy: Option<String>,
    /// By which interface or address requests leave. Default any.
    pub binding: Binding,
    /// Authorities to trust beside the system's, for trackers with one of their own. Default none.
    pub authorities: Vec<Authority>,
}

impl Default for AnnounceConfig {
    fn default() -> AnnounceConfig {
        AnnounceConfig {
            user_agent: concat!("seedring/", env!("CARGO_PKG_VERSION")).to_owned(),
            allow_private_trackers: true,
            in_flight_max: 64,
            in_flight_per_host_max: 8,
            per_second_per_host: 20,
            timeout: Duration::from_secs(30),
            numwant: 50,
            numwant_complete: 30,
            scrape_interval: Some(Duration::from_secs(30 * 60)),
            proxy: None,
            binding: Binding::default(),
            authorities: Vec::new(),
        }
    }
}

/// Certificates of whom to trust.
#[derive(Clone, Debug)]
pub struct Authority {
    /// Where they come from, for errors: a file's name.
    pub name: String,
    /// One certificate or several, in PEM.
    pub pem: Vec<u8>,
}

/// Who we say we are, to every tracker alike.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// The peer id of our handshakes.
    pub peer_id: PeerId,
    /// A number that stays ours when our address changes, and that no other peer learns. Draw it
    /// at random and keep it.
    pub key: u32,
    /// The port on which peers reach us.
    pub port: u16,
}

/// What an announce reports of a torrent, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TotalsNow {
    /// Payload sent to peers since the start.
    pub uploaded: u64,
    /// Payload received from peers since the start.
    pub downloaded: u64,
    /// Payload that we do not have yet: 0 when seeding.
    pub left: u64,
}

/// Where a torrent's totals are read when it is announced, and where the peers of the answer go.
pub trait Totals: Send + Sync {
    /// The totals now. Called on the control runtime; must not block.
    fn now(&self) -> TotalsNow;

    /// Takes the peers that a tracker has named: at most `limits::TRACKER_REPLY_PEERS_MAX`, and of
    /// them only such as that tracker may name. Called on the control runtime; must not block.
    fn found(&self, _peers: &[SocketAddr]) {}
}

/// Totals as three atomics, for callers that keep no better ones.
#[derive(Debug, Default)]
pub struct TorrentTotals {
    /// See [`TotalsNow::uploaded`].
    pub uploaded: AtomicU64,
    /// See [`TotalsNow::downloaded`].
    pub downloaded: AtomicU64,
    /// See [`TotalsNow::left`].
    pub left: AtomicU64,
}

impl Totals for TorrentTotals {
    fn now(&self) -> TotalsNow {
        TotalsNow {
            uploaded: self.uploaded.load(Ordering::Relaxed),
            downloaded: self.downloaded.load(Ordering::Relaxed),
            left: self.left.load(Ordering::Relaxed),
        }
    }
}

/// A torrent's announces, as of now.
#[derive(Clone, Debug)]
pub struct TorrentStatus {
    /// Its trackers in the order in which they are tried.
    pub trackers: Vec<TrackerStatus>,
    /// It was removed, and its trackers are being told.
    pub leaving: bool,
}

/// One tracker of a torrent, as of now.
#[derive(Clone, Debug)]
pub struct TrackerStatus {
    /// Scheme, host and port; the rest may be a passkey and is not shown. Several that are alike by
    /// that are numbered in the order of the torrent.
    pub tracker: String,
    /// Its tier, from 0.
    pub tier: usize,
    /// What it is about.
    pub state: TrackerState,
    /// The time since the last announce ended, well or not.
    pub since_last: Option<Duration>,
    /// How long its answer has been waited for, if an announce is under way.
    pub asking_for: Option<Duration>,
    /// The time until it may be asked again; none if never. Only the first that works in tier
    /// order is.
    pub until_next: Option<Duration>,
    /// Complete peers that it counts.
    pub seeders: Option<u32>,
    /// Incomplete peers that it counts.
    pub leechers: Option<u32>,
    /// How often the torrent was completed, as it counts.
    pub downloaded: Option<u32>,
    /// Peers in its last reply.
    pub peers: usize,
    /// The last failure or warning; a stranger's text, escaped and cut.
    pub message: Option<String>,
}

/// See [`TrackerStatus::state`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrackerState {
    /// Not asked yet, because one before it works or its turn is to come.
    Waiting,
    /// An announce is under way.
    Announcing,
    /// It answered the last announce.
    Working,
    /// It did not, and waits for its back-off to end.
    Failing,
    /// It is not used: a URL that cannot be, or it said `never`.
    Disabled,
}

/// The most that is read of a file of certificates: all authorities of the web are some 200 KiB.
const AUTHORITY_BYTES_MAX: u64 = 4 << 20;

impl Authority {
    /// Reads a file of certificates, which is short: what is more than [`AUTHORITY_BYTES_MAX`] is
    /// left.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn read(path: &Path) -> io::Result<Authority> {
        let mut pem = Vec::new();
        let mut file = File::open(path)?.take(AUTHORITY_BYTES_MAX);
        file.read_to_end(&mut pem)?;
        let name = path.display().to_string();
        Ok(Authority { name, pem })
    }
}

/// Why announcing cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    /// One of [`AnnounceConfig::authorities`] holds no certificate, or none that is one.
    #[error("{0} holds no certificates of authorities in PEM: {1}")]
    Certificate(String, String),
    /// [`AnnounceConfig::proxy`] is not a proxy's URL. What it is stays unsaid: it may hold a
    /// password.
    #[error(
        "the proxy for trackers is not http://, https://, socks5:// or socks5h://, host and port"
    )]
    Proxy,
    /// The HTTP client cannot be built.
    #[error("cannot set up the HTTP client for trackers: {0}")]
    Client(String),
}

/// Starts announcing; see [`Announcer::start`].
pub struct Announcer;

impl Announcer {
    /// Spawns the announcing task on the current tokio runtime. It ends with
    /// [`AnnounceHandle::shutdown`], or when the last handle is dropped (then without `stopped`).
    /// Announces are counted into `cells`.
    ///
    /// # Errors
    /// A certificate that is none, or a HTTP client that cannot be built.
    pub fn start(
        config: &AnnounceConfig,
        identity: Identity,
        cells: Arc<ControlCells>,
    ) -> Result<AnnounceHandle, AnnounceError> {
        let client = client::Client::new(config, identity, cells.clone())?;
        let limits = Limits::of(config);
        let shared = Arc::new(Shared {
            scheduler: Mutex::new(Scheduler::new(limits, fastrand::u64(..))),
            changed: Notify::new(),
            stopped: Notify::new(),
            cells,
            start: Instant::now(),
            is_proxied: config.proxy.is_some(),
            not_asked: Mutex::new(HashSet::new()),
        });
        let task = tokio::spawn(driver::run(Arc::downgrade(&shared), Arc::new(client)));
        Ok(AnnounceHandle {
            shared,
            task: Arc::new(task.abort_handle()),
        })
    }
}

/// What the handles and the task share.
struct Shared {
    scheduler: Mutex<Scheduler>,
    /// The task has something new to look at.
    changed: Notify,
    /// The scheduler has become empty.
    stopped: Notify,
    cells: Arc<ControlCells>,
    start: Instant,
    /// There is a proxy, past which UDP trackers are not asked.
    is_proxied: bool,
    /// Trackers of which that has been told.
    not_asked: Mutex<HashSet<String>>,
}

impl Shared {
    fn now(&self) -> Time {
        Time(0) + self.start.elapsed()
    }

    /// Tells once of each tracker that the proxy keeps from being asked.
    fn tell_not_asked(&self, tiers: &[Vec<String>]) {
        if !self.is_proxied {
            return;
        }
        let mut told = self
            .not_asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for url in tiers.iter().flatten().filter(|url| is_udp(url)) {
            let tracker = redacted(url);
            if told.len() < PROXIED_TOLD_MAX && told.insert(tracker.clone()) {
                tracing::warn!(tracker, "not asked: {}", client::NO_UDP);
            }
        }
    }

    fn scheduler(&self) -> MutexGuard<'_, Scheduler> {
        self.scheduler
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way to the announcing task. Its calls take a short lock and never wait for a tracker.
#[derive(Clone)]
pub struct AnnounceHandle {
    shared: Arc<Shared>,
    task: Arc<tokio::task::AbortHandle>,
}

impl AnnounceHandle {
    /// Announces a torrent from now on: `started` first. `tiers` as in `announce-list`. False if
    /// it is there already, or shutdown has begun.
    pub fn add(
        &self,
        info_hash: InfoHashV1,
        tiers: &[Vec<String>],
        private: bool,
        totals: Arc<dyn Totals>,
    ) -> bool {
        self.shared.tell_not_asked(tiers);
        self.change(|scheduler, now| scheduler.add(now, info_hash, tiers, private, totals))
    }

    /// Announces a torrent no more: `stopped` to the trackers that know of it. False if it is not
    /// there.
    pub fn remove(&self, info_hash: InfoHashV1) -> bool {
        self.change(|scheduler, now| scheduler.remove(now, info_hash))
    }

    /// Announces that a torrent has just become complete (not for one that was complete when
    /// added). False if it is not there.
    pub fn completed(&self, info_hash: InfoHashV1) -> bool {
        self.change(|scheduler, now| scheduler.completed(now, info_hash))
    }

    /// Announces a torrent as soon as its tracker's `min interval` allows. False if it is not
    /// there.
    pub fn reannounce(&self, info_hash: InfoHashV1) -> bool {
        self.change(|scheduler, now| scheduler.reannounce(now, info_hash))
    }

    /// Takes the limits of requests that `config` says: how many at a time, how many to one host in a
    /// second. What else it says stays as it was at the start.
    pub fn set_limits(&self, config: &AnnounceConfig) {
        self.change(|scheduler, _| scheduler.set_limits(Limits::of(config)));
    }

    /// How a torrent's announces are doing.
    pub fn status(&self, info_hash: InfoHashV1) -> Option<TorrentStatus> {
        self.shared.scheduler().status(self.shared.now(), info_hash)
    }

    /// Tells all trackers `stopped`, in parallel, for at most `deadline`; then the task ends.
    /// True if all that knew us were told (or could not be reached) in time: who has not answered a
    /// first announce for a while is not waited for. Five seconds do for some thousands of
    /// torrents.
    pub async fn shutdown(&self, deadline: Duration) -> bool {
        let limits = Limits {
            in_flight_max: SHUTDOWN_IN_FLIGHT_MAX,
            in_flight_per_host_max: SHUTDOWN_IN_FLIGHT_PER_HOST_MAX,
            per_second_per_host: u32::MAX,
            scrape_interval: None,
        };
        let stopped = self.shared.stopped.notified();
        tokio::pin!(stopped);
        stopped.as_mut().enable();
        self.change(|scheduler, now| scheduler.stop_all(now, limits));
        let empty = self.shared.scheduler().is_empty();
        let told = empty || tokio::time::timeout(deadline, stopped).await.is_ok();
        self.task.abort();
        if !told {
            let left = self.shared.scheduler().waited_for(LEFT_TOLD_MAX);
            tracing::warn!(
                trackers = left.join(", "),
                "these trackers did not answer in time that we stop: no harm is done, they forget us \
                 when we do not announce again (announce.stop_timeout_s is how long they are waited for)"
            );
        }
        told
    }

    fn change<R>(&self, act: impl FnOnce(&mut Scheduler, Time) -> R) -> R {
        let result = act(&mut self.shared.scheduler(), self.shared.now());
        self.shared.changed.notify_one();
        result
    }
}

/// What came of one announce.
#[derive(Debug)]
enum Outcome {
    /// The tracker took it.
    Reply(TrackerReply),
    /// The tracker works and says no: for this torrent.
    Refused {
        reason: String,
        retry: Option<RetryIn>,
    },
    /// No usable answer: the host may be at fault.
    Failed {
        error: String,
        retry: Option<RetryIn>,
    },
}

/// What came of one scrape.
#[derive(Debug)]
enum ScrapeOutcome {
    /// The counts of those torrents that the tracker knows.
    Files(Vec<(InfoHashV1, ScrapeFile)>),
    /// The tracker works and says no.
    Refused(String),
    /// No usable answer.
    Failed(String),
}

/// When a tracker that failed may be asked again, in its own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RetryIn {
    Never,
    After(Duration),
}

/// What is kept of a tracker's good answer.
#[derive(Debug, Default, PartialEq, Eq)]
struct TrackerReply {
    interval: Duration,
    interval_min: Option<Duration>,
    seeders: Option<u32>,
    leechers: Option<u32>,
    downloaded: Option<u32>,
    peers: Vec<SocketAddr>,
    /// Our address as the tracker sees it (BEP 24).
    external_ip: Option<IpAddr>,
    tracker_id: Option<Vec<u8>>,
    warning: Option<String>,
}
