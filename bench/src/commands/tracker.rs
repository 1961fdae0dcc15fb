//! `seedring-bench tracker`: how many announces over UDP a tracker answers, and what each costs.
//!
//! Our embedded tracker and opentracker, each on the same cores, started anew for each run with the
//! same torrents to serve, and loaded by one thread on a core of its own.
//!
//! Limits: IPv4 on loopback; announces of peers that stay, no scrapes.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use proto::ids::InfoHashV1;

use crate::harness::children::Program;
use crate::harness::comparison::{Column, Comparison, Figures};
use crate::harness::environment::Environment;
use crate::harness::options::{Common, Named};
use crate::harness::probe::{free_port, loopback};
use crate::harness::rounds::{self, Contender};
use crate::harness::usage;
use crate::load::announces::{self, Plan};
use crate::load::pin_this_thread;
use crate::measure::MemorySample;
use crate::units::{count_from_1, mebibytes, seconds_ns};

const EXAMPLES: &str = "\
Examples:
  seedring-bench tracker --pin 0 --load-pin 1
  seedring-bench tracker --torrents 1000 --peers 100 --rounds 3 --json

Exit codes: 0 all measured; 1 somebody failed; 2 usage.
A run whose load was busy all the time says so: the tracker could have answered more.";

/// From this share on, the load was the limit.
const LOAD_LIMITED: f64 = 0.95;

const COLUMNS: &[Column] = &[
    Column {
        key: "announces_per_s",
        title: "announces/s",
        digits: 0,
    },
    Column {
        key: "cpu_us",
        title: "CPU µs each",
        digits: 2,
    },
    Column {
        key: "p50_us",
        title: "p50 µs",
        digits: 0,
    },
    Column {
        key: "p99_us",
        title: "p99 µs",
        digits: 0,
    },
    Column {
        key: "peers",
        title: "peers each",
        digits: 1,
    },
    Column {
        key: "lost",
        title: "lost",
        digits: 0,
    },
    Column {
        key: "tracker_busy",
        title: "tracker's core",
        digits: 2,
    },
    Column {
        key: "load_busy",
        title: "load's core",
        digits: 2,
    },
    Column {
        key: "resident_mebibytes",
        title: "resident MiB",
        digits: 0,
    },
];

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct TrackerArguments {
    /// How many torrents are announced.
    #[arg(long, value_name = "N", default_value = "1000", value_parser = count_from_1)]
    torrents: usize,

    /// How many peers each of them has.
    #[arg(long, value_name = "N", default_value = "100", value_parser = count_from_1)]
    peers: usize,

    /// How many peers an announce asks for.
    #[arg(long, value_name = "N", default_value_t = 50)]
    numwant: u32,

    /// Sockets, each of an address of its own.
    #[arg(long, value_name = "N", default_value = "16", value_parser = count_from_1)]
    sockets: usize,

    /// Announces under way on each.
    #[arg(long, value_name = "N", default_value = "16", value_parser = count_from_1)]
    depth: usize,

    /// How long each run is measured, in seconds.
    #[arg(long, value_name = "S", default_value = "5", value_parser = seconds_ns)]
    duration: u64,

    /// How long it is loaded before that, in seconds.
    #[arg(long, value_name = "S", default_value = "2", value_parser = seconds_ns)]
    warmup: u64,

    /// The core of the load.
    #[arg(long, value_name = "CORE")]
    load_pin: Option<usize>,

    #[command(flatten)]
    common: Common,
}

pub fn run(arguments: &TrackerArguments) -> anyhow::Result<ExitCode> {
    let common = &arguments.common;
    common.check()?;
    usage::cores("--load-pin", arguments.load_pin.as_slice())?;
    let workspace = common.workspace()?;
    let chosen = common.choice.chosen(vec![
        Tracker::Seedring(common.seedring()),
        Tracker::Opentracker,
    ])?;
    pin_this_thread(arguments.load_pin)?;
    let job = Job {
        folder: workspace.path().to_owned(),
        torrents: (0..arguments.torrents).map(info_hash).collect(),
        arguments,
    };
    let contenders = chosen.into_iter().map(|tracker| -> Box<dyn Contender> {
        Box::new(Loaded {
            tracker,
            job: &job,
            runs: 0,
            load_limited: false,
        })
    });
    let environment = Environment::here(&common.pin);
    let mut report = Comparison::new("tracker", environment, COLUMNS, "cpu_us");
    let (torrents, peers) = (arguments.torrents, arguments.peers);
    let wanted = arguments.numwant;
    report.setting(
        "announces",
        format!(
            "{torrents} torrents of {peers} peers each, {wanted} peers asked for, UDP over IPv4"
        ),
    );
    let (sockets, depth) = (arguments.sockets, arguments.depth);
    let core = arguments
        .load_pin
        .map_or("any".to_owned(), |core| core.to_string());
    report.setting(
        "load",
        format!(
            "one thread, core {core}; {sockets} sockets with {depth} announces under way on each"
        ),
    );
    let everybody = rounds::run(
        contenders.collect(),
        common.choice.rounds.count,
        &mut report,
    );
    common.choice.print(&report, everybody)
}

/// The info-hash of a torrent that does not exist.
fn info_hash(number: usize) -> InfoHashV1 {
    let mut hash = [0x5e; 20];
    // Trackers divide their torrents by the first bytes: spread them as real ones are.
    let spread = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash[..8].copy_from_slice(&spread.to_be_bytes());
    hash[12..].copy_from_slice(&(number as u64).to_be_bytes());
    InfoHashV1(hash)
}

struct Job<'a> {
    folder: PathBuf,
    torrents: Vec<InfoHashV1>,
    arguments: &'a TrackerArguments,
}

/// The trackers that we know how to start.
#[derive(Debug, Clone)]
enum Tracker {
    Seedring(PathBuf),
    Opentracker,
}

impl Named for Tracker {
    fn name(&self) -> String {
        match self {
            Tracker::Seedring(_) => "seedring".to_owned(),
            Tracker::Opentracker => "opentracker".to_owned(),
        }
    }
}

impl Tracker {
    /// The program that tracks `torrents` on `port`, with its files in `work`.
    fn program(&self, work: &Path, port: u16, torrents: &[InfoHashV1]) -> anyhow::Result<Program> {
        let write = |name: &str, text: String| {
            let path = work.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {path:?}"))?;
            anyhow::Ok(path)
        };
        match self {
            Tracker::Seedring(path) => {
                // Loopback is never throttled, so no limit is in the way.
                let config = format!(
                    "[peers]\nport = 0\nbind_v4 = \"127.0.0.1\"\nbind_v6 = \"\"\n\n[api]\nlisten = \"\"\n\n\
                     [tracker]\nenabled = true\nopen = true\nlisten_v4 = \"127.0.0.1:{port}\"\n\
                     listen_v6 = \"\"\ntorrents_max = {count}\n\n[shards]\ncount = 1\n\n[state]\ndir = {state:?}\n",
                    count = torrents.len().max(1),
                    state = work.join("state"),
                );
                let config = write("seedring.toml", config)?;
                Ok(Program::new(path).args(["serve", "--config"]).arg(config))
            }
            Tracker::Opentracker => {
                let mut list = String::new();
                for InfoHashV1(hash) in torrents {
                    for byte in hash {
                        // Writing to a string cannot fail.
                        let _ = write!(list, "{byte:02x}");
                    }
                    list.push('\n');
                }
                write("torrents.txt", list)?;
                // It names the list from its root folder, and gives up root: others must read it.
                let root = work.display();
                let config = format!(
                    "listen.tcp 127.0.0.1:{port}\nlisten.udp 127.0.0.1:{port}\n\
                     access.whitelist torrents.txt\ntracker.rootdir {root}\ntracker.user nobody\n"
                );
                let config = write("opentracker.conf", config)?;
                let readable = fs::Permissions::from_mode(0o755);
                fs::set_permissions(work, readable).context("cannot open a folder to others")?;
                let program = Program::new("opentracker").arg("-f").arg(config);
                Ok(program.in_directory(work))
            }
        }
    }
}

/// A tracker that is loaded again and again.
struct Loaded<'a> {
    tracker: Tracker,
    job: &'a Job<'a>,
    runs: usize,
    load_limited: bool,
}

impl Contender for Loaded<'_> {
    fn name(&self) -> String {
        self.tracker.name()
    }

    fn version(&self) -> Result<String, String> {
        match &self.tracker {
            Tracker::Seedring(path) => Program::new(path).arg("--version").version(),
            Tracker::Opentracker => {
                let program = Program::new("opentracker");
                let installed = program.is_installed().then(|| "as installed".to_owned());
                installed.ok_or_else(|| "not installed: apt-get install opentracker".to_owned())
            }
        }
    }

    fn remark(&self) -> Option<String> {
        let remark = "the load was the limit in a run: it could have answered more";
        self.load_limited.then(|| remark.to_owned())
    }

    fn run(&mut self) -> anyhow::Result<Figures> {
        let (job, arguments) = (self.job, self.job.arguments);
        self.runs += 1;
        let work = job.folder.join(format!("{}-{}", self.name(), self.runs));
        fs::create_dir(&work).with_context(|| format!("cannot make {work:?}"))?;
        let port = free_port()?;
        let program = self.tracker.program(&work, port, &job.torrents)?;
        let running = program
            .on_cores(&arguments.common.pin)
            .start(&work.join("log"))?;
        let plan = Plan {
            tracker: loopback(port),
            pid: running.pid(),
            torrents: job.torrents.clone(),
            peers_per_torrent: arguments.peers,
            sockets: arguments.sockets.min(announces::SOCKETS_MAX),
            depth: arguments.depth,
            peers_wanted: arguments.numwant,
            warmup: Duration::from_nanos(arguments.warmup),
            duration: Duration::from_nanos(arguments.duration),
        };
        let outcome = announces::run(&plan).with_context(|| running.log_tail())?;
        let memory = MemorySample::of(running.pid())?;
        running.end();
        self.load_limited |= outcome.load_busy >= LOAD_LIMITED;
        let (answered, window) = (outcome.answered.max(1) as f64, outcome.window.as_secs_f64());
        Ok(Figures::from([
            ("announces_per_s", outcome.answered as f64 / window),
            ("cpu_us", outcome.cpu_s * 1e6 / answered),
            ("p50_us", outcome.latency.quantile_us(0.5)),
            ("p99_us", outcome.latency.quantile_us(0.99)),
            ("peers", outcome.peers as f64 / answered),
            ("lost", outcome.lost as f64),
            ("tracker_busy", outcome.cpu_s / window),
            ("load_busy", outcome.load_busy),
            ("resident_mebibytes", mebibytes(memory.resident_bytes)),
        ]))
    }
}
