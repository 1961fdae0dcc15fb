//! The rounds: every server in turn, fresh for each run, so that a drifting machine harms all
//! alike.
//!
//! For each number of peers: the rounds in closed loop; then, if wanted, the rounds in open loop at
//! half of what the best rival served. The order of the servers turns from round to round (see
//! [`rounds::order`]). A run that fails is part of the result, and the others go on.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;

use super::data::DataSet;
use super::figures::{Figures, counted};
use super::started::{Homes, Started, Wanted};
use super::statistics::Spread;
use super::{Protocol, Rival, fio, system};
use crate::commands::describe;
use crate::harness::{page_cache, rounds};
use crate::load::blocks::Deck;
use crate::load::leecher::Settings as LeecherSettings;
use crate::load::stream::SocketSettings;
use crate::load::{self, Mode, Outcome, Plan};
use crate::report::Report;
use crate::torrent::Torrent;

/// The length of a block: what every client asks for.
pub const BLOCK_BYTES: u32 = 16 << 10;

/// How long all peers may take to be unchoked; with some, the run then begins. aria2 never unchokes
/// more than a few, so it takes this long in each of its runs.
const READY_NS_MAX: u64 = 12_000_000_000;

/// The open loop asks for this share of the best rival's capacity.
const OPEN_LOOP_SHARE: f64 = 0.5;

/// What a program that measures the disk may take longer than it was told to.
const READS_OVERTIME: Duration = Duration::from_secs(60);

/// How often the sockets are asked for their congestion control until they are there.
const LOOK: Duration = Duration::from_millis(300);

/// What is run.
#[derive(Debug, Clone, Serialize)]
pub struct Settings {
    /// Numbers of peers, ascending.
    pub peers: Vec<usize>,
    /// Rounds for each number of peers.
    pub rounds: usize,
    /// The window, in ns.
    pub window_ns: u64,
    /// The load before it, in ns.
    pub warmup_ns: u64,
    /// Requests under way at each peer.
    pub depth: usize,
    /// What the load does with payload.
    pub mode: Mode,
    /// Cores of the servers.
    pub server_cores: Vec<usize>,
    /// Cores of the load; one thread on each.
    pub load_cores: Vec<usize>,
    /// Whether to run open loops too.
    pub latency: bool,
    /// Whether the page cache is emptied before each run.
    pub cold: bool,
}

/// How requests are made.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "loop")]
pub enum Kind {
    /// Each peer keeps its pipeline full.
    Closed,
    /// Requests are due at fixed times.
    Open {
        /// Bytes per second over all peers.
        rate_bytes_per_s: u64,
    },
}

/// One run of one server.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// Its name.
    pub server: String,
    /// From 1.
    pub round: usize,
    /// Measured peers.
    pub peers: usize,
    /// How requests were made.
    #[serde(flatten)]
    pub kind: Kind,
    /// The share of the content that was in the page cache when the load began.
    pub cached_share: Option<f64>,
    /// The share that was there before it was read in.
    pub cached_share_found: Option<f64>,
    /// Cold: how often all of the content was asked for, warm-up included; above 1 not all was
    /// cold.
    pub content_rounds: Option<f64>,
    /// Congestion controls of the server's sockets.
    pub congestion_controls: Vec<String>,
    /// The machine's load average before the run.
    pub load_average: f64,
    /// What is compared.
    pub figures: Option<Figures>,
    /// The whole report of the load.
    pub report: Option<Value>,
    /// Why there are no figures.
    pub error: Option<String>,
}

/// Servers, content and settings of a session.
pub struct Session<'a> {
    /// What is compared; at least one.
    pub servers: &'a [Box<dyn Rival>],
    /// What they serve.
    pub data: &'a DataSet,
    /// How.
    pub settings: &'a Settings,
    /// Hears of progress, a line at a time.
    pub tell: &'a dyn Fn(&str),
}

impl Session<'_> {
    /// All rounds.
    pub fn run(&self) -> anyhow::Result<Vec<Run>> {
        let homes = Homes::new(self.servers.len())?;
        let mut progress = Progress::new(self);
        let mut runs = Vec::new();
        for &peers in &self.settings.peers {
            self.rounds(peers, Kind::Closed, &homes, &mut progress, &mut runs);
            if !self.settings.latency {
                continue;
            }
            match self.open_loop_rate(peers, &runs) {
                Some(rate_bytes_per_s) => {
                    let kind = Kind::Open { rate_bytes_per_s };
                    self.rounds(peers, kind, &homes, &mut progress, &mut runs);
                }
                None => (self.tell)(&format!("N={peers}: nothing was served, so no open loop")),
            }
        }
        Ok(runs)
    }

    fn rounds(
        &self,
        peers: usize,
        kind: Kind,
        homes: &Homes,
        progress: &mut Progress,
        runs: &mut Vec<Run>,
    ) {
        for round in 0..self.settings.rounds {
            for at in rounds::order(self.servers.len(), round) {
                let server = &self.servers[at];
                // The floors have no open loop here: their reads are no blocks.
                if kind != Kind::Closed && server.protocol() != Protocol::Peer {
                    continue;
                }
                let mut run = Run {
                    server: server.name().to_owned(),
                    round: round + 1,
                    peers,
                    kind,
                    cached_share: None,
                    cached_share_found: None,
                    content_rounds: None,
                    congestion_controls: Vec::new(),
                    load_average: system::load_average(),
                    figures: None,
                    report: None,
                    error: None,
                };
                if let Err(error) = self.one(server.as_ref(), homes.of(at), &mut run) {
                    run.error = Some(describe(&error));
                }
                (self.tell)(&progress.line(&run));
                runs.push(run);
            }
        }
    }

    /// Starts a server, loads it, and stops it.
    fn one(&self, rival: &dyn Rival, home: &Path, run: &mut Run) -> anyhow::Result<()> {
        let settings = self.settings;
        if !settings.cold {
            // Before the start: a check of data on the disk would take long.
            run.cached_share_found = Some(self.data.cache()?);
        }
        let wanted = Wanted {
            data: self.data,
            beside: None,
            home,
            peers: run.peers,
            settings,
        };
        if rival.protocol() == Protocol::Disk {
            page_cache::drop_all()?;
            run.cached_share = Some(self.data.cached_share()?);
            run.figures = Some(self.reads(Started::new(rival, &wanted)?)?);
            return Ok(());
        }
        let mut server = Started::new(rival, &wanted)?;
        let torrent = &self.data.torrent;
        server.wait_until_ready(rival.protocol(), torrent)?;
        if settings.cold {
            page_cache::drop_all()?;
        } else {
            self.data.cache()?;
        }
        run.cached_share = Some(self.data.cached_share()?);
        let asked = Asked {
            torrent,
            peers: run.peers,
            round: run.round,
            rate_bytes: match run.kind {
                Kind::Closed => None,
                Kind::Open { rate_bytes_per_s } => Some(rate_bytes_per_s),
            },
            // A piece that is asked for again is not cold any more.
            each_once: settings.cold,
        };
        let plan = plan(settings, &asked, server.address, server.process.pid());
        let outcome = loaded(&plan, rival.protocol(), &self.data.name, run);
        let outcome = outcome.map_err(|error| server.reason(error))?;
        server.process.end();
        run.content_rounds = plan.settings.deck.as_ref().map(|deck| deck.rounds());
        let report = Report::new(&plan, torrent, settings.mode.name(), &outcome);
        run.figures = Figures::of(&report);
        run.report = Some(serde_json::to_value(&report)?);
        Ok(())
    }

    /// Waits for a program that measures the disk by itself.
    fn reads(&self, mut disk: Started) -> anyhow::Result<Figures> {
        let process = &mut disk.process;
        let run = Duration::from_nanos(self.settings.warmup_ns + self.settings.window_ns);
        let until = Instant::now() + run + READS_OVERTIME;
        let status = loop {
            match process.ended() {
                Some(status) => break status,
                None if Instant::now() > until => anyhow::bail!("it does not end"),
                None => std::thread::sleep(LOOK),
            }
        };
        let figures = fio::figures(&process.output());
        figures.with_context(|| format!("it ended ({status}); {}", process.log_tail()))
    }

    /// Half of what the best rival served to as many peers: the median over its rounds. Without
    /// rivals, of the best server at all.
    fn open_loop_rate(&self, peers: usize, runs: &[Run]) -> Option<u64> {
        let median = |server: &dyn Rival| closed_loop_median(runs, server.name(), peers);
        let seeds = || {
            let seeds = self.servers.iter().map(Box::as_ref);
            seeds.filter(|server| server.protocol() == Protocol::Peer)
        };
        let rivals = seeds()
            .filter(|server| !server.is_ours())
            .filter_map(median);
        let best = rivals.max_by(f64::total_cmp);
        let best = best.or_else(|| seeds().filter_map(median).max_by(f64::total_cmp))?;
        let rate = (best * OPEN_LOOP_SHARE * 1e9) as u64;
        (rate > 0).then_some(rate)
    }
}

/// The median that the report shows of what `server` served to `peers` in closed loop, in 10^9
/// bytes per second.
fn closed_loop_median(runs: &[Run], server: &str, peers: usize) -> Option<f64> {
    let closed = runs
        .iter()
        .filter(|run| run.server == server && run.peers == peers && run.kind == Kind::Closed);
    let all: Vec<&Figures> = closed.filter_map(|run| run.figures.as_ref()).collect();
    let rates = counted(&all).into_iter().map(|one| one.gigabytes_per_s);
    Spread::of(rates).map(|spread| spread.median)
}

/// What one load asks for.
pub struct Asked<'a> {
    /// Of this torrent.
    pub torrent: &'a Torrent,
    /// Measured peers.
    pub peers: usize,
    /// Decides which pieces.
    pub round: usize,
    /// Open loop: bytes per second over all peers.
    pub rate_bytes: Option<u64>,
    /// Whether no piece is asked for twice before each was asked for once.
    pub each_once: bool,
}

/// The load on the server at `address` whose process is `server_pid`.
pub fn plan(settings: &Settings, asked: &Asked<'_>, address: SocketAddr, server_pid: u32) -> Plan {
    let torrent = asked.torrent;
    let deck = || Arc::new(Deck::new(torrent.geometry.piece_count, asked.round as u64));
    Plan {
        settings: LeecherSettings {
            info_hash: torrent.info_hash,
            geometry: torrent.geometry,
            expected: settings.mode.expected(torrent),
            block_bytes: BLOCK_BYTES,
            depth: settings.depth,
            fast: true,
            extended: true,
            open_loop: asked.rate_bytes.is_some(),
            deck: asked.each_once.then(deck),
        },
        socket: SocketSettings {
            address,
            discard: settings.mode == Mode::Discard,
            congestion_control: None,
        },
        peers: asked.peers,
        slow_readers: 0,
        idle: 0,
        threads: settings.load_cores.len().max(1),
        cores: settings.load_cores.clone(),
        local_addresses: local_addresses(asked.peers),
        rate_bytes: asked.rate_bytes,
        ready_ns_max: READY_NS_MAX,
        warmup_ns: settings.warmup_ns,
        window_ns: settings.window_ns.max(1),
        server_pid: Some(server_pid),
        random_seed: asked.round as u64,
    }
}

/// Loads the server; notes its sockets' congestion control meanwhile.
fn loaded(
    plan: &Plan,
    protocol: Protocol,
    file_name: &str,
    run: &mut Run,
) -> Result<Outcome, load::shared::LoadError> {
    let is_over = AtomicBool::new(false);
    let port = plan.socket.address.port();
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut found = Vec::new();
            while found.is_empty() && !is_over.load(Ordering::Acquire) {
                std::thread::sleep(LOOK);
                found = system::congestion_controls_of(port);
            }
            found
        });
        let outcome = match protocol {
            Protocol::Peer => load::run(plan),
            // A disk is not loaded: see [`Session::reads`].
            Protocol::Http | Protocol::Disk => load::http::run(plan, &format!("/{file_name}")),
        };
        is_over.store(true, Ordering::Release);
        run.congestion_controls = looking.join().unwrap_or_default();
        outcome
    })
}

/// An address for each peer, all of loopback: some seeds take one peer from each.
fn local_addresses(peers: usize) -> Vec<IpAddr> {
    let first = u32::from(Ipv4Addr::new(127, 0, 1, 1));
    let addresses = (0..peers as u32).map(|at| IpAddr::V4(Ipv4Addr::from(first + at)));
    addresses.collect()
}

/// Says how far the session is.
struct Progress {
    done: usize,
    all: usize,
    since: Instant,
}

impl Progress {
    fn new(session: &Session<'_>) -> Self {
        let settings = session.settings;
        let each = settings.peers.len() * settings.rounds;
        let seeds = session
            .servers
            .iter()
            .filter(|server| server.protocol() == Protocol::Peer);
        let open = if settings.latency { seeds.count() } else { 0 };
        Self {
            done: 0,
            all: each * (session.servers.len() + open),
            since: Instant::now(),
        }
    }

    /// The line of a run that has just ended.
    fn line(&mut self, run: &Run) -> String {
        self.done += 1;
        let left = self.all.saturating_sub(self.done);
        let each_s = self.since.elapsed().as_secs_f64() / self.done as f64;
        let left_s = each_s * left as f64;
        let left = match left_s {
            s if s < 90.0 => format!("{s:.0} s"),
            s => format!("{:.0} min", s / 60.0),
        };
        let kind = match run.kind {
            Kind::Closed => "",
            Kind::Open { .. } => " open loop",
        };
        let result = match (&run.figures, &run.error) {
            (Some(figures), _) => {
                let limited = match figures.load_limited {
                    true => ", load-limited: no verdict",
                    false => "",
                };
                let (rate, cpu) = (figures.gigabytes_per_s, figures.cpu_s_per_gib);
                // A disk has no peers that could wait.
                let latency = match figures.latency_p99_us {
                    p99_us if p99_us > 0.0 => format!(", p99 {:.2} ms", p99_us / 1e3),
                    _ => String::new(),
                };
                format!("{rate:.2} GB/s, {cpu:.3} CPU-s/GiB{latency}{limited}")
            }
            (None, Some(error)) => format!("FAILED: {error}"),
            (None, None) => "no figures".to_owned(),
        };
        let (done, all, round, server, peers) =
            (self.done, self.all, run.round, &run.server, run.peers);
        format!("{done}/{all} (about {left} left) N={peers} round {round}{kind} {server}: {result}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rivals::report::tests::{figures, run};

    #[test]
    fn every_peer_has_an_address() {
        let addresses = local_addresses(600);
        assert_eq!(addresses.len(), 600);
        assert_eq!(addresses[0].to_string(), "127.0.1.1");
        assert_eq!(addresses[599].to_string(), "127.0.3.88");
    }

    #[test]
    fn the_open_loop_follows_runs_that_are_a_verdict() {
        let of =
            |server, peers, rate, limited| run(server, 1, peers, Some(figures(rate, 1.0, limited)));
        let runs = [
            of("some", 16, 1.0, true),
            of("some", 16, 1.5, true),
            of("some", 16, 3.0, false),
            of("some", 1, 9.0, false),
            of("limited", 16, 2.0, true),
            run("limited", 2, 16, None),
        ];
        assert_eq!(closed_loop_median(&runs, "some", 16), Some(3.0));
        assert_eq!(closed_loop_median(&runs, "limited", 16), Some(2.0));
        assert_eq!(closed_loop_median(&runs, "absent", 16), None);
    }
}
