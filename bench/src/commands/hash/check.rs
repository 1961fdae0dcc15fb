//! The full check of a torrent's data by programs.
//!
//! Programs that check and end are timed as a whole. Servers are timed from their start until a
//! handshake is answered with every piece, and their CPU time is read then: what they need to start
//! is in it. libtorrent is timed from the moment at which its session is given the torrent; the
//! start of Python is not in it.
//!
//! Limits: one file, version 1. Cold runs (`--cold`) empty the page cache of the whole machine, and
//! need root.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use crate::console::tell;
use crate::harness::children::Program;
use crate::harness::comparison::{Column, Comparison, Figures};
use crate::harness::content::{Content, NO_TRACKER, Shape};
use crate::harness::environment::Environment;
use crate::harness::libtorrent::Libtorrent;
use crate::harness::options::{Common, HashedFile};
use crate::harness::page_cache;
use crate::harness::probe::free_port;
use crate::harness::rounds::{self, Contender};
use crate::harness::servers::{Place, Server};
use crate::measure::{ProcessSample, peak_resident_bytes};
use crate::units::{mebibytes, threads};

const EXAMPLES: &str = "\
Examples:
  seedring-bench hash check                                    # 4 GiB in the page cache
  seedring-bench hash check --only seedring,libtorrent --threads 1
  seedring-bench hash check --cold --directory /data           # as root; fio's figure beside it

Exit codes: 0 all measured; 1 somebody failed; 2 usage.";

const COLD: &str = "Empty the page cache before each run, and measure how much of it each run \
                    fills. Needs root";

/// A run takes no longer than this.
const WITHIN: Duration = Duration::from_secs(1_800);

/// How often a server is asked whether it has checked everything.
const POLL: Duration = Duration::from_millis(5);

const COLUMNS: &[Column] = &[
    Column::WALL,
    Column::GIGABYTES_PER_S,
    Column::CPU,
    Column::PEAK,
    Column {
        key: "cache_growth_mebibytes",
        title: "page cache growth MiB",
        digits: 0,
    },
];

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, mut_arg("cold", |arg| arg.help(COLD)))]
pub struct CheckArguments {
    #[command(flatten)]
    file: HashedFile,

    /// Hashing threads for those who can be told; a row for each number.
    #[arg(
        long,
        value_name = "N[,N]",
        value_delimiter = ',',
        default_value = "1,2",
        value_parser = threads
    )]
    threads: Vec<usize>,

    #[command(flatten)]
    common: Common,
}

pub fn run(arguments: &CheckArguments) -> anyhow::Result<ExitCode> {
    let common = &arguments.common;
    common.check()?;
    arguments.file.check(common)?;
    let workspace = common.workspace()?;
    let folder = workspace.path();
    let libtorrent = Libtorrent::new(&common.python.path(), folder)?;
    // Who is chosen is known before anything is written.
    let chosen = common.choice.chosen(rows(arguments, &libtorrent))?;
    let content = content(arguments, folder)?;
    let job = Job {
        folder: folder.to_owned(),
        content,
        cores: common.pin.clone(),
        file: &arguments.file,
    };
    let contenders = chosen.into_iter().map(|row| -> Box<dyn Contender> {
        Box::new(Checker {
            row,
            job: &job,
            run: 0,
        })
    });
    let mut report = Comparison::new(
        "hash check",
        Environment::here(&common.pin),
        COLUMNS,
        "wall_s",
    );
    arguments.file.describe(job.content.bytes, &mut report);
    let everybody = rounds::run(
        contenders.collect(),
        common.choice.rounds.count,
        &mut report,
    );
    common.choice.print(&report, everybody)
}

fn content(arguments: &CheckArguments, folder: &Path) -> anyhow::Result<Content> {
    let tracker = Some(NO_TRACKER);
    let torrents = folder.join("torrents");
    std::fs::create_dir(&torrents).with_context(|| format!("cannot make {torrents:?}"))?;
    let torrent = torrents.join("content.torrent");
    let file = &arguments.file;
    let piece_bytes = file.pieces.piece_size;
    if let Some(data) = &file.data {
        let data = data
            .canonicalize()
            .with_context(|| format!("cannot find {data:?}"))?;
        return Content::of(&data, &torrent, piece_bytes, tracker);
    }
    let bytes = file.pieces.size;
    tell(format_args!(
        "writing and hashing {} MiB of random bytes",
        bytes >> 20
    ));
    let shape = Shape {
        bytes,
        piece_bytes,
        seed: 1,
        tracker,
    };
    Content::make(folder, "content", &torrent, shape)
}

/// What everybody is to do.
struct Job<'a> {
    folder: PathBuf,
    content: Content,
    cores: Vec<usize>,
    file: &'a HashedFile,
}

/// One who checks.
struct Row {
    name: String,
    kind: Kind,
}

enum Kind {
    /// `seedring verify` with this many threads.
    Seedring(PathBuf, usize),
    /// libtorrent with this many hashing threads.
    Libtorrent(Libtorrent, usize),
    /// aria2c, which can check and end.
    Aria2,
    /// One that serves when it has checked.
    Server(Server),
    /// The disk alone: sequential direct reads by fio.
    Fio,
}

fn rows(arguments: &CheckArguments, libtorrent: &Libtorrent) -> Vec<Row> {
    let row = |name: String, kind| Row { name, kind };
    let threads_of = |name: &str, threads: usize| match threads {
        1 => format!("{name}, 1 thread"),
        _ => format!("{name}, {threads} threads"),
    };
    let mut rows = Vec::new();
    for &threads in &arguments.threads {
        let kind = Kind::Seedring(arguments.common.seedring(), threads);
        rows.push(row(threads_of("seedring", threads), kind));
    }
    for &threads in &arguments.threads {
        let kind = Kind::Libtorrent(libtorrent.clone(), threads);
        rows.push(row(threads_of("libtorrent", threads), kind));
    }
    for server in [Server::Rtorrent, Server::Transmission] {
        rows.push(row(server.name().to_owned(), Kind::Server(server)));
    }
    rows.push(row("aria2".to_owned(), Kind::Aria2));
    rows.push(row(
        "qbittorrent".to_owned(),
        Kind::Server(Server::Qbittorrent),
    ));
    if arguments.file.cold {
        rows.push(row("fio".to_owned(), Kind::Fio));
    }
    rows
}

impl crate::harness::options::Named for Row {
    fn name(&self) -> String {
        self.name.clone()
    }
}

struct Checker<'a> {
    row: Row,
    job: &'a Job<'a>,
    /// Counts the runs, so that each server gets a folder that it has not seen.
    run: usize,
}

impl Contender for Checker<'_> {
    fn name(&self) -> String {
        self.row.name.clone()
    }

    fn version(&self) -> Result<String, String> {
        match &self.row.kind {
            Kind::Seedring(path, _) => Program::new(path).arg("--version").version(),
            Kind::Libtorrent(libtorrent, _) => libtorrent.version(),
            Kind::Aria2 => Program::new("aria2c").arg("--version").version(),
            Kind::Server(server) => {
                let version = server.version()?;
                Ok(format!(
                    "{version}, from its start until it serves every piece"
                ))
            }
            Kind::Fio => {
                let version = Program::new("fio").arg("--version").version()?;
                Ok(format!(
                    "{version}, sequential O_DIRECT reads of 1 MiB, depth 8, no hashing"
                ))
            }
        }
    }

    fn run(&mut self) -> anyhow::Result<Figures> {
        self.run += 1;
        let (job, content) = (self.job, &self.job.content);
        job.file.settle_cache(&content.file)?;
        let cached_before = page_cache::cached_bytes(&content.file);
        let mut figures = self.check()?;
        if let Some((before, after)) = cached_before.zip(page_cache::cached_bytes(&content.file)) {
            let growth = mebibytes(after.saturating_sub(before));
            figures.insert("cache_growth_mebibytes", growth);
        }
        let wall_s = figures.get("wall_s").copied().unwrap_or(f64::NAN);
        figures.insert("gigabytes_per_s", content.bytes as f64 / 1e9 / wall_s);
        Ok(figures)
    }
}

impl Checker<'_> {
    /// Wall time, CPU time and memory of one check.
    fn check(&self) -> anyhow::Result<Figures> {
        let (job, content) = (self.job, &self.job.content);
        let log = job.folder.join("log");
        let program = match &self.row.kind {
            Kind::Seedring(path, threads) => {
                let verify = Program::new(path)
                    .arg("verify")
                    .arg(&content.torrent)
                    .arg("-d");
                verify
                    .arg(&content.directory)
                    .args(["--threads", &threads.to_string()])
            }
            Kind::Libtorrent(libtorrent, threads) => {
                let tool = libtorrent
                    .tool("check")
                    .arg(&content.torrent)
                    .arg(&content.directory);
                tool.arg(threads.to_string())
            }
            Kind::Aria2 => {
                let aria2 = Program::new("aria2c").args(["--no-conf", "--check-integrity=true"]);
                let aria2 = aria2.args(["--hash-check-only=true", "--file-allocation=none"]);
                let aria2 = aria2.args(["--enable-dht=false", "--enable-dht6=false"]);
                let aria2 = aria2.args(["--bt-enable-lpd=false", "--summary-interval=0"]);
                let aria2 = aria2.arg(format!("--listen-port={}", free_port()?));
                aria2
                    .arg(format!("--dir={}", content.directory.display()))
                    .arg(&content.torrent)
            }
            Kind::Server(server) => return self.check_by_server(server),
            Kind::Fio => {
                let fio =
                    Program::new("fio").args(["--name=read", "--readonly", "--rw=read", "--bs=1M"]);
                let fio = fio.args([
                    "--direct=1",
                    "--ioengine=libaio",
                    "--iodepth=8",
                    "--output-format=json",
                ]);
                fio.arg(format!("--filename={}", content.file.display()))
            }
        };
        let finished = program.on_cores(&job.cores).run(&log, WITHIN)?;
        let output =
            || std::fs::read_to_string(&log).with_context(|| format!("cannot read {log:?}"));
        let (wall_s, cpu_s) = match &self.row.kind {
            Kind::Libtorrent(..) => seconds_of_tool(&output()?)?,
            Kind::Fio => (fio_seconds(&output()?, content.bytes)?, finished.cpu_s),
            _ => (finished.wall_s, finished.cpu_s),
        };
        Ok(Figures::from([
            ("wall_s", wall_s),
            ("cpu_s", cpu_s),
            ("peak_mebibytes", mebibytes(finished.peak_bytes)),
        ]))
    }

    fn check_by_server(&self, server: &Server) -> anyhow::Result<Figures> {
        let (job, content) = (self.job, &self.job.content);
        let torrents = std::slice::from_ref(content);
        let name = format!("{}-{}", server.name(), self.run);
        let place = Place::new(&job.folder, &name, torrents, &content.directory)?;
        let program = server.first(&place)?.on_cores(&job.cores);
        let mut running = program.start(&place.log())?;
        let served = place.wait_until_served(&[content], &mut running, POLL, WITHIN)?;
        let wall_s = running.started().elapsed().as_secs_f64();
        let sample = ProcessSample::of(running.pid())?;
        let peak_bytes = peak_resident_bytes(running.pid());
        anyhow::ensure!(
            served == 1,
            "it does not serve after {} s: {}",
            WITHIN.as_secs(),
            running.log_tail()
        );
        running.end();
        Ok(Figures::from([
            ("wall_s", wall_s),
            ("cpu_s", sample.user_s + sample.system_s),
            ("peak_mebibytes", mebibytes(peak_bytes)),
        ]))
    }
}

/// What libtorrent's tool prints: wall and CPU seconds.
fn seconds_of_tool(output: &str) -> anyhow::Result<(f64, f64)> {
    let numbers = output.lines().last().and_then(|line| line.split_once(' '));
    numbers
        .and_then(|(wall, cpu)| Some((wall.parse().ok()?, cpu.trim().parse().ok()?)))
        .with_context(|| format!("no two numbers: {:?}", output.trim()))
}

/// How long reading `bytes` takes at the rate that fio reports.
fn fio_seconds(output: &str, bytes: u64) -> anyhow::Result<f64> {
    // Notes of fio may come before the object.
    let start = output.find('{').unwrap_or(0);
    let report: serde_json::Value =
        serde_json::from_str(&output[start..]).context("fio's report")?;
    let rate = report["jobs"][0]["read"]["bw_bytes"].as_f64();
    let rate = rate
        .filter(|&rate| rate > 0.0)
        .context("fio's report has no rate")?;
    Ok(bytes as f64 / rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_others_are_read() {
        assert_eq!(
            seconds_of_tool("a warning\n1.25 2.5\n").unwrap(),
            (1.25, 2.5)
        );
        assert!(seconds_of_tool("").is_err() && seconds_of_tool("1.0\n").is_err());
        let report = r#"note: x
            {"jobs": [{"read": {"bw_bytes": 2000000000}}]}"#;
        assert_eq!(fio_seconds(report, 4_000_000_000).unwrap(), 2.0);
        assert!(fio_seconds("{}", 1).is_err() && fio_seconds("", 1).is_err());
    }
}
