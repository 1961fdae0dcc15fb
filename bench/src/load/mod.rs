//! The load generator: N leechers against one seed, for a measured window.
//!
//! The controller starts the workers, waits until the seed serves the leechers, sets the window,
//! and reads /proc at its two ends. `seed` binaries of any make can be loaded: only the peer
//! protocol is used.
//!
//! * [`leecher`], [`framing`], [`blocks`], [`verify`]: pure; what is said to the seed.
//! * [`mode`]: what is done with payload.
//! * [`stream`]: a socket; [`connection`]: a leecher with one; [`http`]: the same load by HTTP
//!   ranges, for a web server as the floor.
//! * [`worker`]: a thread with its connections on epoll.
//! * [`room`]: whether the machine has room for so many leechers.
//! * [`shared`]: the window, the progress and the failure, between threads.

pub mod announces;
pub mod blocks;
pub mod connection;
pub mod framing;
pub mod http;
pub mod latency;
pub mod leecher;
pub mod mode;
pub mod room;
pub mod shared;
pub mod stream;
pub mod verify;
pub mod worker;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};

use self::connection::Connection;
use self::latency::Latency;
use self::leecher::{Leecher, Role, Settings, Tally};
pub use self::mode::Mode;
use self::shared::{LoadError, Shared};
use self::stream::SocketSettings;
use self::worker::{Peer, PeerResult, Schedule, Worker, WorkerResult};
use crate::measure::{MachineSample, MemorySample, ProcessSample};

/// A load thread that was busy, or waited for its core, for this share of the window was the limit.
const BUSY_SHARE_LIMIT: f64 = 0.95;

/// How often the controller looks at the progress.
const POLL: Duration = Duration::from_millis(5);

/// A run, as the command line asks for it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What the leechers have in common.
    pub settings: Settings,
    /// How to connect.
    pub socket: SocketSettings,
    /// Measured leechers.
    pub peers: usize,
    /// Slow readers beside them.
    pub slow_readers: usize,
    /// Idle connections beside them.
    pub idle: usize,
    /// Threads among which the leechers are divided.
    pub threads: usize,
    /// Cores to pin the threads to, in turn; none: the system decides.
    pub cores: Vec<usize>,
    /// Addresses to connect from, in turn; none: the system decides.
    pub local_addresses: Vec<IpAddr>,
    /// Open loop: payload to ask for, in bytes per second over all leechers.
    pub rate_bytes: Option<u64>,
    /// How long to wait until the seed serves the leechers, in ns.
    pub ready_ns_max: u64,
    /// How long to load before the window begins, in ns.
    pub warmup_ns: u64,
    /// The length of the window, in ns.
    pub window_ns: u64,
    /// The seed's process, to measure.
    pub server_pid: Option<u32>,
    /// Decides which pieces are asked for.
    pub random_seed: u64,
}

impl Plan {
    /// Decides what the peer `at` asks for.
    fn random_seed_of(&self, at: usize) -> u64 {
        self.random_seed ^ (at as u64 + 1).wrapping_mul(0xd6e8_feb8_6659_fd93)
    }

    /// Where the peer `at` connects from, if that is to be chosen.
    fn local_address_of(&self, at: usize) -> Option<IpAddr> {
        match self.local_addresses.len() {
            0 => None,
            count => Some(self.local_addresses[at % count]),
        }
    }
}

/// The server's process over the window.
#[derive(Debug, Clone, Copy)]
pub struct ServerUse {
    /// CPU time and disk reads of all threads in the window, and its threads at the end; with the
    /// process's descendants.
    pub cpu: ProcessSample,
    /// Memory at the end of the window.
    pub memory: MemorySample,
}

/// What a run found. Counts are of the window unless said otherwise.
pub struct Outcome {
    /// Every leecher.
    pub peers: Vec<PeerResult>,
    /// Times from request (or from when it was due) to block.
    pub latency: Latency,
    /// Open loop: how late the load itself made requests.
    pub lateness: Latency,
    /// The window's length, in seconds.
    pub window_s: f64,
    /// The server's process, if its id was given.
    pub server: Option<ServerUse>,
    /// The load's own process.
    pub load_cpu: ProcessSample,
    /// The share of the window that the busiest load thread was on a core.
    pub load_busy_share: f64,
    /// The share of the window that the same thread was ready to run and had no core.
    pub load_waiting_share: f64,
    /// CPU seconds that neither the server nor the load used; none without the server's id.
    pub elsewhere_cpu_s: Option<f64>,
    /// CPU seconds that the host gave to other machines.
    pub stolen_cpu_s: f64,
    /// Why the first connection ended in the window, if one did.
    pub first_end: Option<String>,
}

impl Outcome {
    /// Whether the load, and not the server, may have been the limit: then no figure is a verdict.
    pub fn load_limited(&self) -> bool {
        self.load_busy_share + self.load_waiting_share >= BUSY_SHARE_LIMIT
    }

    /// The measured leechers.
    pub fn load_peers(&self) -> impl Iterator<Item = &PeerResult> {
        self.peers.iter().filter(|peer| peer.role == Role::Load)
    }
}

/// A running worker.
type WorkerThread = thread::JoinHandle<Result<WorkerResult, LoadError>>;

/// Runs `plan`.
pub fn run(plan: &Plan) -> Result<Outcome, LoadError> {
    run_with(plan, |thread, shared| {
        let connections = connections_of(plan, thread);
        let schedule = schedule_of(plan, &connections);
        spawn(plan, thread, shared, connections, schedule)
    })
}

/// Runs `plan` with workers that `spawn` starts, one for each thread's number.
fn run_with(
    plan: &Plan,
    spawn: impl Fn(usize, &Arc<Shared>) -> Result<WorkerThread, LoadError>,
) -> Result<Outcome, LoadError> {
    if let Some(pid) = plan.server_pid {
        ProcessSample::of(pid)?;
    }
    room::raise_descriptor_limit();
    let shared = Arc::new(Shared::new());
    let workers: Vec<_> = (0..plan.threads)
        .map(|thread| spawn(thread, &shared))
        .collect::<Result<_, _>>()
        .inspect_err(|_| shared.end_ns.store(0, Ordering::Release))?;
    let samples = conduct(plan, &shared);
    if samples.is_err() {
        shared.end_ns.store(0, Ordering::Release);
    }
    let results: Vec<_> = workers.into_iter().map(join).collect::<Result<_, _>>()?;
    let samples = samples?;
    if let Some(error) = Arc::into_inner(shared).and_then(|shared| shared.failure.into_inner()) {
        return Err(error);
    }
    let outcome = combine(results, &samples);
    let mut tally = Tally::default();
    outcome.load_peers().for_each(|peer| tally.add(&peer.tally));
    if tally.payload_bytes == 0 {
        return Err(LoadError::NothingServed {
            address: plan.socket.address,
            chokes: tally.chokes,
            rejects: tally.rejects,
            disconnects: outcome.load_peers().map(|peer| peer.disconnects).sum(),
        });
    }
    Ok(outcome)
}

fn join(worker: WorkerThread) -> Result<WorkerResult, LoadError> {
    worker
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The open loop of these leechers: their share of the rate.
fn schedule_of(plan: &Plan, connections: &[Connection]) -> Option<Schedule> {
    let load = connections.iter().filter(|one| one.is_load()).count();
    let rate_bytes = plan.rate_bytes.filter(|_| load > 0)?;
    let share = load as f64 / plan.peers as f64;
    let interval_s = f64::from(plan.settings.block_bytes) / (rate_bytes as f64 * share);
    Some(Schedule {
        interval_ns: interval_s * 1e9,
    })
}

/// Starts a worker for these connections.
fn spawn<P: Peer + Send + 'static>(
    plan: &Plan,
    thread: usize,
    shared: &Arc<Shared>,
    connections: Vec<P>,
    schedule: Option<Schedule>,
) -> Result<WorkerThread, LoadError> {
    let (address, info_hash) = (plan.socket.address, plan.settings.info_hash);
    let system = |source| LoadError::System {
        operation: "create an epoll set",
        source,
    };
    let worker = Worker::new(
        Arc::clone(shared),
        address,
        info_hash,
        connections,
        schedule,
    )
    .map_err(system)?;
    start_thread(plan, thread, shared, move || worker.run())
}

/// Starts a worker's thread on its core.
fn start_thread(
    plan: &Plan,
    thread: usize,
    shared: &Arc<Shared>,
    work: impl FnOnce() -> Result<WorkerResult, LoadError> + Send + 'static,
) -> Result<WorkerThread, LoadError> {
    let core = (!plan.cores.is_empty()).then(|| plan.cores[thread % plan.cores.len()]);
    let shared = Arc::clone(shared);
    let body = move || {
        let result = prepare_thread(core).and_then(|()| work());
        // The others must not wait for a thread that is gone.
        result.inspect_err(|_| shared.end_ns.store(0, Ordering::Release))
    };
    let builder = thread::Builder::new().name(format!("load-{thread}"));
    let system = |source| LoadError::System {
        operation: "start a thread",
        source,
    };
    builder.spawn(body).map_err(system)
}

/// Pins the calling thread to a core; without one it stays free.
///
/// # Errors
/// The system refuses: there is no such core.
pub fn pin_this_thread(core: Option<usize>) -> Result<(), LoadError> {
    let Some(core) = core else { return Ok(()) };
    let system = |source| LoadError::System {
        operation: "pin itself to its core",
        source,
    };
    if core >= CpuSet::MAX_CPU {
        return Err(system(std::io::ErrorKind::InvalidInput.into()));
    }
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).map_err(|errno| system(errno.into()))
}

/// Pins the calling thread, and lets its waits end on time: open loop needs better than the usual
/// 50 µs.
fn prepare_thread(core: Option<usize>) -> Result<(), LoadError> {
    // Only a coarser clock follows if this fails.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    pin_this_thread(core)
}

/// The leechers of one thread: every role is spread over all threads.
fn connections_of(plan: &Plan, thread: usize) -> Vec<Connection> {
    let (settings, socket) = (
        Arc::new(plan.settings.clone()),
        Arc::new(plan.socket.clone()),
    );
    let roles = std::iter::repeat_n(Role::Load, plan.peers)
        .chain(std::iter::repeat_n(Role::SlowReader, plan.slow_readers))
        .chain(std::iter::repeat_n(Role::Idle, plan.idle));
    let mine = roles
        .enumerate()
        .filter(|(at, _)| at % plan.threads == thread);
    let connection = |(at, role): (usize, Role)| {
        let leecher = Leecher::new(Arc::clone(&settings), role, plan.random_seed_of(at));
        Connection::new(leecher, Arc::clone(&socket), plan.local_address_of(at))
    };
    mine.map(connection).collect()
}

/// What was read at the two ends of the window.
struct Samples {
    server: Option<ServerUse>,
    load: ProcessSample,
    machine: MachineSample,
}

/// Waits for the seed, sets the window, and reads /proc at its ends.
fn conduct(plan: &Plan, shared: &Shared) -> Result<Samples, LoadError> {
    wait_until_served(plan, shared)?;
    let begin_ns = shared.clock.now_ns();
    let start_ns = begin_ns + plan.warmup_ns;
    let end_ns = start_ns + plan.window_ns;
    shared.schedule_ns.store(begin_ns, Ordering::Release);
    shared.start_ns.store(start_ns, Ordering::Release);
    // A failure has set the end to 0 already, and that must stay.
    let _ = shared
        .end_ns
        .compare_exchange(u64::MAX, end_ns, Ordering::AcqRel, Ordering::Acquire);
    shared.clock.sleep_until(start_ns);
    let own_pid = std::process::id();
    let server = plan.server_pid.map(ProcessSample::of_tree).transpose()?;
    let (load, machine) = (ProcessSample::of(own_pid)?, MachineSample::now()?);
    shared.clock.sleep_until(end_ns);
    let server_end = plan.server_pid.map(ProcessSample::of_tree).transpose()?;
    let (load_end, machine_end) = (ProcessSample::of(own_pid)?, MachineSample::now()?);
    let memory = plan.server_pid.map(MemorySample::of_tree).transpose()?;
    let server = match (server, server_end, memory) {
        (Some(begin), Some(end), Some(memory)) => Some(ServerUse {
            cpu: difference(&end, &begin),
            memory,
        }),
        _ => None,
    };
    Ok(Samples {
        server,
        load: difference(&load_end, &load),
        machine: MachineSample {
            busy_s: machine_end.busy_s - machine.busy_s,
            stolen_s: machine_end.stolen_s - machine.stolen_s,
        },
    })
}

fn difference(end: &ProcessSample, begin: &ProcessSample) -> ProcessSample {
    ProcessSample {
        // Threads that ended take their waiting with them, and child processes all of theirs.
        user_s: (end.user_s - begin.user_s).max(0.0),
        system_s: (end.system_s - begin.system_s).max(0.0),
        waiting_s: (end.waiting_s - begin.waiting_s).max(0.0),
        threads: end.threads,
        disk_read_bytes: end
            .disk_read_bytes
            .zip(begin.disk_read_bytes)
            .map(|(end, begin)| end.saturating_sub(begin)),
    }
}

/// Returns when every measured leecher was unchoked, or when some were and the time is up.
fn wait_until_served(plan: &Plan, shared: &Shared) -> Result<(), LoadError> {
    let address = plan.socket.address;
    let seconds = plan.ready_ns_max / 1_000_000_000;
    let peers = plan.peers as u32;
    loop {
        let unchoked = shared.unchoked.load(Ordering::Acquire);
        if unchoked >= peers || shared.failure.get().is_some() {
            return Ok(());
        }
        if shared.end_ns.load(Ordering::Acquire) == 0 {
            // A worker ended by itself; joining it tells why.
            return Ok(());
        }
        if shared.clock.now_ns() >= plan.ready_ns_max {
            let never = |count: &std::sync::atomic::AtomicU32| count.load(Ordering::Acquire) == 0;
            return match unchoked {
                0 if never(&shared.connected) => Err(LoadError::NoAnswer { address }),
                0 if never(&shared.greeted) => Err(LoadError::NoHandshake { address }),
                0 if never(&shared.offered) => Err(LoadError::NothingOffered { address, seconds }),
                0 => Err(LoadError::NeverUnchoked {
                    address,
                    peers,
                    seconds,
                }),
                _ => Ok(()),
            };
        }
        thread::sleep(POLL);
    }
}

fn combine(results: Vec<WorkerResult>, samples: &Samples) -> Outcome {
    let (mut latency, mut lateness) = (Latency::default(), Latency::default());
    let mut outcome = Outcome {
        peers: Vec::new(),
        latency: Latency::default(),
        lateness: Latency::default(),
        window_s: 0.0,
        server: samples.server,
        load_cpu: samples.load,
        load_busy_share: 0.0,
        load_waiting_share: 0.0,
        elsewhere_cpu_s: None,
        stolen_cpu_s: samples.machine.stolen_s,
        first_end: None,
    };
    let workers = results.len() as f64;
    for result in results {
        latency.add(&result.latency);
        lateness.add(&result.lateness);
        let window_ns = result.window_ns.max(1) as f64;
        outcome.window_s += window_ns / 1e9 / workers;
        let busy = result.thread.cpu_ns as f64 / window_ns;
        let waiting = result.thread.waiting_ns as f64 / window_ns;
        if busy + waiting >= outcome.load_busy_share + outcome.load_waiting_share {
            (outcome.load_busy_share, outcome.load_waiting_share) = (busy, waiting);
        }
        outcome.first_end = outcome.first_end.or(result.first_end);
        outcome.peers.extend(result.peers);
    }
    (outcome.latency, outcome.lateness) = (latency, lateness);
    outcome.elsewhere_cpu_s = samples.server.map(|server| {
        let ours = server.cpu.user_s + server.cpu.system_s;
        let load = samples.load.user_s + samples.load.system_s;
        (samples.machine.busy_s - ours - load).max(0.0)
    });
    outcome
}

#[cfg(test)]
mod tests;
