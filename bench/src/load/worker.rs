//! One thread of the load: its connections on one epoll set, from the first connect to the last
//! count.
//!
//! The worker connects, lets the leechers ask, and counts from the start of the window to its end.
//! In open loop it also makes requests due at their times, whatever the seed does. It decides
//! nothing about the run: the window comes from the controller through [`Shared`].

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use proto::ids::InfoHashV1;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::Timespec;

use super::connection::{Connection, End, SCRATCH_BYTES, SocketSettings};
use super::latency::Latency;
use super::leecher::{Role, Stage, Tally};
use super::shared::{LoadError, Shared, is_final};
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

/// See the head of this file.
pub struct Worker {
    shared: Arc<Shared>,
    settings: SocketSettings,
    info_hash: InfoHashV1,
    epoll: OwnedFd,
    connections: Vec<Connection>,
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

impl Worker {
    /// A worker for these connections.
    pub fn new(
        shared: Arc<Shared>,
        settings: SocketSettings,
        info_hash: InfoHashV1,
        connections: Vec<Connection>,
        schedule: Option<Schedule>,
    ) -> std::io::Result<Self> {
        let is_load = |at: &usize| connections[*at].leecher.role() == Role::Load;
        Ok(Self {
            shared,
            settings,
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
            self.connections[at].leecher.schedule(due_ns);
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
                connection.connect(&self.settings, &self.epoll, at as u64, now_ns)
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
        let before = (connection.was_connected, progress(connection));
        let result = connection.ready(flags, &self.settings, scratch, clock, &mut self.latency);
        let result = result.and_then(|()| connection.flush(&self.epoll, at as u64, clock.now_ns()));
        let after = (connection.was_connected, progress(connection));
        if before != after {
            self.publish(before, after, connection_is_load(&self.connections[at]));
        }
        self.settle(at, result);
    }

    /// Adds to the shared counts what a connection has come through for the first time in this
    /// step. A leecher that reconnects counts again; the counts only tell "nobody" from "somebody",
    /// except that of unchoked ones, which [`Connection::unchoked_ns`] keeps exact.
    fn publish(&self, before: (bool, Progress), after: (bool, Progress), is_load: bool) {
        let add = |count: &AtomicU32, is: bool| {
            count.fetch_add(u32::from(is), Ordering::Release);
        };
        add(&self.shared.connected, !before.0 && after.0);
        let passes = |stage| before.1.stage < stage && after.1.stage >= stage;
        add(&self.shared.greeted, passes(1));
        add(&self.shared.offered, passes(2));
        add(
            &self.shared.unchoked,
            is_load && !before.1.unchoked && after.1.unchoked,
        );
    }

    fn settle(&mut self, at: usize, result: Result<(), End>) {
        let Err(end) = result else { return };
        let now_ns = self.shared.clock.now_ns();
        let connection = &mut self.connections[at];
        connection.ended(now_ns);
        let address = self.settings.address;
        let failures = connection.failures;
        if let Some(error) = is_final(&end, &self.shared, address, self.info_hash, failures) {
            self.shared.fail(error);
        }
        if self.window.is_some() {
            self.first_end.get_or_insert_with(|| end.to_string());
        }
    }

    fn begin_window(&mut self, now_ns: u64) -> Result<(), LoadError> {
        self.latency.start();
        self.lateness.start();
        for connection in &mut self.connections {
            connection.leecher.take_tally();
            connection.disconnects = 0;
            connection.reconnects = 0;
        }
        self.window = Some((now_ns, ThreadSample::of_this_thread()?));
        Ok(())
    }

    fn finish(mut self, now_ns: u64) -> Result<WorkerResult, LoadError> {
        let end = ThreadSample::of_this_thread()?;
        let (begin_ns, begin) = self.window.take().unwrap_or((now_ns, end));
        let peer = |connection: &mut Connection| {
            let (outstanding, due, oldest) = connection.leecher.backlog(now_ns);
            PeerResult {
                tally: connection.leecher.take_tally(),
                unchoked_ns: connection.unchoked_ns,
                disconnects: connection.disconnects,
                reconnects: connection.reconnects,
                role: connection.leecher.role(),
                outstanding,
                due,
                oldest_ns: oldest.map_or(0, |oldest_ns| now_ns - oldest_ns),
            }
        };
        Ok(WorkerResult {
            peers: self.connections.iter_mut().map(peer).collect(),
            latency: self.latency,
            lateness: self.lateness,
            thread: end.since(&begin),
            window_ns: now_ns - begin_ns,
            first_end: self.first_end,
        })
    }
}

/// How far a connection has come, for the shared counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Progress {
    stage: u8,
    unchoked: bool,
}

fn progress(connection: &Connection) -> Progress {
    let stage = match connection.leecher.stage() {
        Stage::AwaitingHandshake => 0,
        Stage::AwaitingPieces => 1,
        Stage::AwaitingUnchoke | Stage::Unchoked => 2,
    };
    Progress {
        stage,
        unchoked: connection.unchoked_ns.is_some(),
    }
}

fn connection_is_load(connection: &Connection) -> bool {
    connection.leecher.role() == Role::Load
}
