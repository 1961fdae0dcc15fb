//! One thread of the load: its connections on one epoll set, from the first connect to the last
//! count.
//!
//! The worker connects, lets the leechers ask, and counts from the start of the window to its end.
//! In open loop it also makes requests due at their times, whatever the seed does. It decides
//! nothing about the run: the window comes from the controller through [`Shared`]; and knows no
//! protocol: that is its [`Peer`]s' own.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use proto::ids::InfoHashV1;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::Timespec;

use super::latency::Latency;
use super::leecher::{Role, Tally};
use super::shared::{Clock, LoadError, Shared, is_final};
use super::stream::{End, SCRATCH_BYTES};
use crate::measure::ThreadSample;

/// How often timeouts and reconnects are looked at.
const TICK_NS: u64 = 10_000_000;

/// Connection attempts under way at once, so that the seed's listen queue does not overflow.
const CONNECTING_MAX: usize = 64;

/// Events taken by one wait.
const EVENTS_MAX: usize = 256;

/// The times at which a worker's leechers must ask, in turn.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// The time between two requests of this worker, in ns.
    pub interval_ns: f64,
}

/// What one measured leecher got in the window.
#[derive(Debug, Clone, Copy)]
pub struct PeerResult {
    /// Counts of the window.
    pub tally: Tally,
    /// When the seed unchoked it first, in ns since the run began.
    pub unchoked_ns: Option<u64>,
    /// Connections that ended in the window.
    pub disconnects: u64,
    /// Connections that were made anew in the window.
    pub reconnects: u64,
    /// How the leecher behaved.
    pub role: Role,
    /// Requests that were under way at the end.
    pub outstanding: usize,
    /// Requests that were due and not made at the end.
    pub due: usize,
    /// How old the oldest unanswered request was at the end, in ns.
    pub oldest_ns: u64,
}

/// What a worker brings back.
pub struct WorkerResult {
    /// Its leechers.
    pub peers: Vec<PeerResult>,
    /// Times from request to block.
    pub latency: Latency,
    /// Open loop: how late requests were made due, because this thread was busy.
    pub lateness: Latency,
    /// Its thread over the window.
    pub thread: ThreadSample,
    /// The window, in ns, as this thread saw it.
    pub window_ns: u64,
    /// Why the first connection ended in the window, if one did.
    pub first_end: Option<String>,
}

/// A connection with what is said over it. `index` is what its events in the epoll set carry; an
/// [`End`] says why the connection must end, and is followed by [`Peer::ended`].
pub trait Peer {
    /// Whether it is measured.
    fn is_load(&self) -> bool;

    /// Whether an attempt to connect is under way.
    fn is_connecting(&self) -> bool;

    /// Whether it is time to connect.
    fn wants_to_connect(&self, now_ns: u64) -> bool;

    /// Begins to connect.
    fn connect(&mut self, epoll: &OwnedFd, index: u64, now_ns: u64) -> Result<(), End>;

    /// Handles an event.
    fn ready(
        &mut self,
        flags: EventFlags,
        scratch: &mut [u8],
        clock: &Clock,
        latency: &mut Latency,
    ) -> Result<(), End>;

    /// Asks for more and sends what there is to send; adjusts what events are waited for.
    fn flush(&mut self, epoll: &OwnedFd, index: u64, now_ns: u64) -> Result<(), End>;

    /// To be called every now and then: timeouts, keep-alives, slow readers.
    fn tick(&mut self, now_ns: u64) -> Result<(), End>;

    /// Closes the socket and plans to come back.
    fn ended(&mut self, now_ns: u64);

    /// Attempts in a row that came to nothing.
    fn failures(&self) -> u32;

    /// Open loop: a request is due since `due_ns`.
    fn schedule(&mut self, due_ns: u64);

    /// How far it has come.
    fn progress(&self) -> Progress;

    /// Forgets what was counted so far.
    fn begin_window(&mut self);

    /// What was counted since then.
    fn result(&mut self, now_ns: u64) -> PeerResult;
}

/// How far a connection has come, for the shared counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Whether it was ever connected.
    pub connected: bool,
    /// Whether the seed has greeted.
    pub greeted: bool,
    /// Whether the seed has said that it has pieces.
    pub offered: bool,
    /// Whether the seed has ever unchoked it.
    pub unchoked: bool,
}

/// See the head of this file.
pub struct Worker<P> {
    shared: Arc<Shared>,
    address: SocketAddr,
    info_hash: InfoHashV1,
    epoll: OwnedFd,
    connections: Vec<P>,
    /// The measured ones among `connections`.
    load: Vec<usize>,
    schedule: Option<Schedule>,
    scheduled: u64,
    latency: Latency,
    lateness: Latency,
    window: Option<(u64, ThreadSample)>,
    next_tick_ns: u64,
    first_end: Option<String>,
}

impl<P: Peer> Worker<P> {
    /// A worker for these connections to `address`.
    pub fn new(
        shared: Arc<Shared>,
        address: SocketAddr,
        info_hash: InfoHashV1,
        connections: Vec<P>,
        schedule: Option<Schedule>,
    ) -> std::io::Result<Self> {
        let is_load = |at: &usize| connections[*at].is_load();
        Ok(Self {
            shared,
            address,
            info_hash,
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            load: (0..connections.len()).filter(is_load).collect(),
            connections,
            schedule,
            scheduled: 0,
            latency: Latency::default(),
            lateness: Latency::default(),
            window: None,
            next_tick_ns: 0,
            first_end: None,
        })
    }

    /// Runs on the calling thread until the window is over or the run has failed.
    pub fn run(mut self) -> Result<WorkerResult, LoadError> {
        let system = |operation| move |source| LoadError::System { operation, source };
        let mut scratch = vec![0; SCRATCH_BYTES];
        let nothing = Event {
            flags: EventFlags::empty(),
            data: EventData::new_u64(0),
        };
        let mut events = [nothing; EVENTS_MAX];
        loop {
            let now_ns = self.shared.clock.now_ns();
            if now_ns >= self.shared.end_ns.load(Ordering::Acquire) {
                return self.finish(now_ns);
            }
            if self.window.is_none() && now_ns >= self.shared.start_ns.load(Ordering::Acquire) {
                self.begin_window(now_ns)?;
            }
            self.make_due(now_ns);
            if now_ns >= self.next_tick_ns {
                self.tick(now_ns);
            }
            let timeout = self.timeout();
            let count = match epoll::wait(&self.epoll, &mut events, Some(&timeout)) {
                Ok(count) => count,
                Err(rustix::io::Errno::INTR) => 0,
                Err(errno) => return Err(system("wait for its sockets")(errno.into())),
            };
            for event in &events[..count] {
                let (flags, at) = (event.flags, event.data.u64());
                self.ready(at as usize, flags, &mut scratch);
            }
        }
    }

    /// Until the next tick, or the next request that is due.
    fn timeout(&self) -> Timespec {
        let now_ns = self.shared.clock.now_ns();
        let mut until_ns = self.next_tick_ns;
        if let Some(due_ns) = self.next_due_ns() {
            until_ns = until_ns.min(due_ns);
        }
        let wait_ns = until_ns.saturating_sub(now_ns).min(TICK_NS);
        Timespec {
            tv_sec: 0,
            tv_nsec: wait_ns as i64,
        }
    }

    fn next_due_ns(&self) -> Option<u64> {
        let schedule = self.schedule.as_ref().filter(|_| !self.load.is_empty())?;
        let begin_ns = self.shared.schedule_ns.load(Ordering::Acquire);
        (begin_ns != u64::MAX)
            .then(|| begin_ns + (self.scheduled as f64 * schedule.interval_ns) as u64)
    }

    /// Open loop: hands every request that is due by now to the leecher whose turn it is.
    fn make_due(&mut self, now_ns: u64) {
        let first = self.scheduled;
        while let Some(due_ns) = self.next_due_ns().filter(|&due_ns| due_ns <= now_ns) {
            let at = self.load[(self.scheduled % self.load.len() as u64) as usize];
            self.connections[at].schedule(due_ns);
            self.lateness.record_ns(now_ns - due_ns);
            self.scheduled += 1;
        }
        let touched = (self.scheduled - first).min(self.load.len() as u64);
        for turn in 0..touched {
            let at = self.load[((first + turn) % self.load.len() as u64) as usize];
            let result = self.connections[at].flush(&self.epoll, at as u64, now_ns);
            self.settle(at, result);
        }
    }

    fn tick(&mut self, now_ns: u64) {
        self.next_tick_ns = now_ns + TICK_NS;
        let mut connecting = self
            .connections
            .iter()
            .filter(|one| one.is_connecting())
            .count();
        for at in 0..self.connections.len() {
            let connection = &mut self.connections[at];
            let result = if !connection.wants_to_connect(now_ns) {
                let result = connection.tick(now_ns);
                result.and_then(|()| connection.flush(&self.epoll, at as u64, now_ns))
            } else if connecting < CONNECTING_MAX {
                connecting += 1;
                connection.connect(&self.epoll, at as u64, now_ns)
            } else {
                Ok(())
            };
            self.settle(at, result);
        }
    }

    fn ready(&mut self, at: usize, flags: EventFlags, scratch: &mut [u8]) {
        let clock = &self.shared.clock;
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        let before = connection.progress();
        let result = connection.ready(flags, scratch, clock, &mut self.latency);
        let result = result.and_then(|()| connection.flush(&self.epoll, at as u64, clock.now_ns()));
        let (after, is_load) = (connection.progress(), connection.is_load());
        if before != after {
            self.publish(before, after, is_load);
        }
        self.settle(at, result);
    }

    /// Adds to the shared counts what a connection has come through for the first time in this
    /// step. A leecher that reconnects counts again; the counts only tell "nobody" from "somebody",
    /// except that of unchoked ones, which [`Progress::unchoked`] keeps exact.
    fn publish(&self, before: Progress, after: Progress, is_load: bool) {
        let add = |count: &AtomicU32, is: bool| {
            count.fetch_add(u32::from(is), Ordering::Release);
        };
        let passes = |has: fn(&Progress) -> bool| !has(&before) && has(&after);
        add(&self.shared.connected, passes(|one| one.connected));
        add(&self.shared.greeted, passes(|one| one.greeted));
        add(&self.shared.offered, passes(|one| one.offered));
        add(&self.shared.unchoked, is_load && passes(|one| one.unchoked));
    }

    fn settle(&mut self, at: usize, result: Result<(), End>) {
        let Err(end) = result else { return };
        let now_ns = self.shared.clock.now_ns();
        let connection = &mut self.connections[at];
        connection.ended(now_ns);
        let failures = connection.failures();
        let error = is_final(&end, &self.shared, self.address, self.info_hash, failures);
        if let Some(error) = error {
            self.shared.fail(error);
        }
        if self.window.is_some() {
            self.first_end.get_or_insert_with(|| end.to_string());
        }
    }

    fn begin_window(&mut self, now_ns: u64) -> Result<(), LoadError> {
        self.latency.start();
        self.lateness.start();
        self.connections.iter_mut().for_each(P::begin_window);
        self.window = Some((now_ns, ThreadSample::of_this_thread()?));
        Ok(())
    }

    fn finish(mut self, now_ns: u64) -> Result<WorkerResult, LoadError> {
        let end = ThreadSample::of_this_thread()?;
        let (begin_ns, begin) = self.window.take().unwrap_or((now_ns, end));
        let peers = self.connections.iter_mut();
        Ok(WorkerResult {
            peers: peers.map(|peer| peer.result(now_ns)).collect(),
            latency: self.latency,
            lateness: self.lateness,
            thread: end.since(&begin),
            window_ns: now_ns - begin_ns,
            first_end: self.first_end,
        })
    }
}
