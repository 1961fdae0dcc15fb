//! `seedring-bench get`: how long programs take to download a torrent from one fast seed.
//!
//! The seed is `seedring seed` with a tracker of its own, started anew for each run, so that no
//! downloader hears of the one before it. Each finds the seed by the tracker of the torrent (ours
//! is given its address), and starts with an empty folder. Wall time is from the start of the
//! program until it has ended, or says that it is done; then every byte is checked.
//!
//! Limits: one file, version 1, one machine, no encryption, no uTP. Nobody calls fsync: on a disk,
//! what is measured ends in the page cache.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::json;

use crate::console::tell;
use crate::harness::children::{Program, Running};
use crate::harness::comparison::{Column, Comparison, Figures};
use crate::harness::content::{Content, Shape};
use crate::harness::environment::Environment;
use crate::harness::folder::Folder;
use crate::harness::libtorrent::Libtorrent;
use crate::harness::options::{Common, Named, Pieces};
use crate::harness::page_cache;
use crate::harness::probe::{free_port, own_address};
use crate::harness::relay::{Link, Relay};
use crate::harness::rounds::{self, Contender};
use crate::harness::usage::{self, Usage};
use crate::measure::{ProcessSample, peak_resident_bytes};
use crate::units::{mebibytes, rate_bytes, round_trip_ms, seconds_ns};

const EXAMPLES: &str = "\
Examples:
  seedring-bench get --directory /dev/shm --seed-pin 0 --pin 1      # in memory, a core each
  seedring-bench get --size 1G --directory /data --only libtorrent,aria2 --rounds 3
  seedring-bench get --size 1G --round-trip 100 --link-rate 62500KB # over a long link of 500 Mbit/s

Exit codes: 0 all measured; 1 somebody failed, or wrote wrong bytes; 2 usage.";

/// How often a downloader that does not end by itself is looked at.
const POLL: Duration = Duration::from_millis(5);

/// How long the seed may take to check the data.
const SEED_READY: Duration = Duration::from_secs(600);

const COLUMNS: &[Column] = &[
    Column::WALL,
    Column::GIGABYTES_PER_S,
    Column {
        key: "cpu_s_per_gib",
        title: "CPU-s/GiB",
        digits: 2,
    },
    Column::PEAK,
];

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct GetArguments {
    #[command(flatten)]
    pieces: Pieces,

    /// How long a download may take, in seconds.
    #[arg(long, value_name = "S", default_value = "300", value_parser = seconds_ns)]
    timeout: u64,

    /// The address of this machine by which they reach the seed and its tracker. Transmission
    /// connects to none on loopback [default: this machine's own address].
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,

    /// Keep the seed on these cores.
    #[arg(long, value_name = "CORE[,CORE]", value_delimiter = ',')]
    seed_pin: Vec<usize>,

    /// Put a line of this round trip between the seed and them, in milliseconds.
    #[arg(long, value_name = "MS", requires = "link_rate", value_parser = round_trip_ms)]
    round_trip: Option<u64>,

    /// The rate of that line, per second: 62500KB is 500 Mbit/s.
    #[arg(long, value_name = "SIZE", requires = "round_trip", value_parser = rate_bytes)]
    link_rate: Option<u64>,

    #[command(flatten)]
    common: Common,
}

impl GetArguments {
    fn link(&self) -> Option<Link> {
        let round_trip = Duration::from_millis(self.round_trip?);
        let rate = self.link_rate?;
        Some(Link { round_trip, rate })
    }

    /// Whether all that was asked for can be; the seed is to be reached at `address`.
    fn check(&self, address: IpAddr) -> Result<(), Usage> {
        self.common.check()?;
        // Whoever downloads, ours is the seed.
        self.common.check_seedring()?;
        usage::cores("--seed-pin", &self.seed_pin)?;
        usage::own_address("--address", address)?;
        if let Some(link) = self.link() {
            link.check()?;
            if address.is_loopback() {
                return Err(Usage(format!(
                    "--address {address}: with a link the seed listens on loopback, so others need \
                     another address: give one that this machine has"
                )));
            }
        }
        self.pieces.check(self.pieces.size)?;
        // The content and one copy at a time.
        self.common.check_room(self.pieces.size.saturating_mul(2))
    }
}

pub fn run(arguments: &GetArguments) -> anyhow::Result<ExitCode> {
    let common = &arguments.common;
    let address = arguments.address.unwrap_or_else(own_address);
    arguments.check(address)?;
    let workspace = common.workspace()?;
    let folder = workspace.path();
    let libtorrent = Libtorrent::new(&common.python.path(), folder)?;
    let known = vec![
        Client::Seedring(common.seedring(), Writing::ByDefault),
        Client::Seedring(common.seedring(), Writing::ThroughCache),
        Client::Libtorrent(libtorrent),
        Client::Aria2,
        Client::Transmission,
        Client::Rqbit,
    ];
    let chosen = common.choice.chosen(known)?;
    let tracker = SocketAddr::new(address, free_port()?);
    let job = Job {
        seedring: common.seedring(),
        folder: folder.to_owned(),
        content: make_content(arguments, folder, tracker)?,
        tracker,
        cores: common.pin.clone(),
        seed_cores: arguments.seed_pin.clone(),
        timeout: Duration::from_nanos(arguments.timeout),
        link: arguments.link(),
    };
    // It checks the data now, so that no run waits for that.
    job.start_seed()?.end();
    let contenders = chosen
        .into_iter()
        .map(|client| -> Box<dyn Contender> { Box::new(Downloader { client, job: &job }) });
    let mut report = Comparison::new("get", Environment::here(&common.pin), COLUMNS, "wall_s");
    let (bytes, piece) = (job.content.bytes, arguments.pieces.piece_size >> 10);
    report.setting(
        "data",
        format!("one file of {bytes} B, pieces of {piece} KiB, in the page cache"),
    );
    if let Some(link) = job.link {
        let megabits = link.rate as f64 * 8.0 / 1e6;
        report.setting(
            "link",
            format!(
                "{} ms there and back, {megabits} Mbit/s, by a relay",
                link.round_trip.as_millis()
            ),
        );
    }
    let directory = common.directory.clone().unwrap_or_else(std::env::temp_dir);
    report.setting(
        "downloaded to",
        format!("{} ({})", directory.display(), file_system_of(folder)),
    );
    let seed_version = Program::new(&job.seedring).arg("--version").version();
    let seed_version = seed_version.unwrap_or_else(|error| error);
    report.setting(
        "seed",
        format!(
            "{seed_version} at {address}, cores {:?} (empty: all)",
            job.seed_cores
        ),
    );
    let everybody = rounds::run(
        contenders.collect(),
        common.choice.rounds.count,
        &mut report,
    );
    common.choice.print(&report, everybody)
}

fn make_content(
    arguments: &GetArguments,
    folder: &Path,
    tracker: SocketAddr,
) -> anyhow::Result<Content> {
    tell(format_args!(
        "writing and hashing {} MiB of random bytes",
        arguments.pieces.size >> 20
    ));
    let data = folder.join("data");
    fs::create_dir(&data).with_context(|| format!("cannot make {data:?}"))?;
    let tracker = format!("http://{tracker}/announce");
    let shape = Shape {
        bytes: arguments.pieces.size,
        piece_bytes: arguments.pieces.piece_size,
        seed: 1,
        tracker: Some(&tracker),
    };
    Content::make(&data, "content", &folder.join("content.torrent"), shape)
}

/// What kind of file system holds `folder`, as `stat` calls it.
fn file_system_of(folder: &Path) -> String {
    let mut stat = Command::new("stat");
    stat.args(["--file-system", "--format=%T"]).arg(folder);
    let output = stat.stdin(Stdio::null()).stderr(Stdio::null()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.ok()
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| "unknown file system".to_owned())
}

/// What everybody is to do.
struct Job {
    seedring: PathBuf,
    folder: PathBuf,
    content: Content,
    tracker: SocketAddr,
    cores: Vec<usize>,
    seed_cores: Vec<usize>,
    timeout: Duration,
    /// What lies between the seed and who downloads.
    link: Option<Link>,
}

/// A seed that serves.
struct Seed {
    running: Running,
    port: u16,
}

impl Seed {
    fn end(self) {
        self.running.end();
    }
}

impl Job {
    /// Starts the seed and waits until it serves. Where there is a link, it listens on loopback,
    /// and a relay with its port on the address that its tracker tells.
    fn start_seed(&self) -> anyhow::Result<Seed> {
        let port = free_port()?;
        if let Some(link) = self.link {
            let address = SocketAddr::new(self.tracker.ip(), port);
            let listener = TcpListener::bind(address)
                .with_context(|| format!("cannot listen on {address} for the link"))?;
            Relay::start(
                listener,
                SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
                link,
            )?;
        }
        let seed = Program::new(&self.seedring)
            .arg("seed")
            .arg("--torrent")
            .arg(&self.content.torrent);
        let seed = seed.arg("--data-dir").arg(&self.content.directory);
        let seed = seed.arg("--state-dir").arg(self.folder.join("seed-state"));
        let seed = seed.args([
            "--port",
            &port.to_string(),
            "--api",
            "127.0.0.1:0",
            "--json",
        ]);
        let seed = seed.args(["--tracker-port", &self.tracker.port().to_string()]);
        let seed = seed
            .args(["--announce-host", &self.tracker.ip().to_string()])
            .on_cores(&self.seed_cores);
        let seed = match self.link {
            Some(_) => seed
                .env("SEEDRING_PEERS__BIND_V4", "127.0.0.1")
                .env("SEEDRING_PEERS__BIND_V6", ""),
            None => seed,
        };
        let mut running = seed.start(&self.folder.join("seed-log"))?;
        let started = Instant::now();
        while !running.output().contains("\"event\":\"ready\"") {
            running.check().context("the seed")?;
            if started.elapsed() > SEED_READY {
                bail!(
                    "the seed is not ready after {} s: {}",
                    SEED_READY.as_secs(),
                    running.log_tail()
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Seed { running, port })
    }
}

/// How ours writes.
#[derive(Clone, Copy)]
enum Writing {
    ByDefault,
    ThroughCache,
}

/// The programs that we know how to let download.
enum Client {
    Seedring(PathBuf, Writing),
    Libtorrent(Libtorrent),
    Aria2,
    Transmission,
    Rqbit,
}

impl Named for Client {
    fn name(&self) -> String {
        let name = match self {
            Self::Seedring(_, Writing::ByDefault) => "seedring",
            Self::Seedring(_, Writing::ThroughCache) => "seedring through_cache",
            Self::Libtorrent(_) => "libtorrent",
            Self::Aria2 => "aria2",
            Self::Transmission => "transmission",
            Self::Rqbit => "rqbit",
        };
        name.to_owned()
    }
}

struct Downloader<'a> {
    client: Client,
    job: &'a Job,
}

impl Contender for Downloader<'_> {
    fn name(&self) -> String {
        self.client.name()
    }

    fn version(&self) -> Result<String, String> {
        match &self.client {
            Client::Seedring(path, _) => {
                let mut help = Command::new(path);
                help.args(["get", "--help"]).stdin(Stdio::null());
                let knows = help.output().is_ok_and(|output| output.status.success());
                if !knows {
                    return Err("it has no command `get`".to_owned());
                }
                Program::new(path).arg("--version").version()
            }
            Client::Libtorrent(libtorrent) => libtorrent.version(),
            Client::Aria2 => Program::new("aria2c").arg("--version").version(),
            Client::Transmission => Program::new("transmission-daemon")
                .arg("--version")
                .version(),
            Client::Rqbit => Program::new("rqbit").arg("--version").version(),
        }
    }

    fn run(&mut self) -> anyhow::Result<Figures> {
        let job = self.job;
        page_cache::warm(&job.content.file)?;
        let seed = job.start_seed()?;
        // Removed with all that was downloaded when the run is over.
        let work = Folder::new("get-", Some(&job.folder))?;
        let out = work.path().join("out");
        fs::create_dir(&out).with_context(|| format!("cannot make {out:?}"))?;
        let log = work.path().join("log");
        let program = self.program(work.path(), &out, seed.port)?;
        let program = match self.client {
            // Python finds modules of the user in his home.
            Client::Libtorrent(_) => program,
            _ => program.at_home_in(work.path()),
        };
        let program = program.on_cores(&job.cores);
        let (wall_s, cpu_s, peak_bytes) = match self.client {
            Client::Transmission => {
                until_marked(&program, &log, &work.path().join("done"), job.timeout)?
            }
            _ => {
                let finished = program.run(&log, job.timeout)?;
                (finished.wall_s, finished.cpu_s, finished.peak_bytes)
            }
        };
        seed.end();
        let copy = out.join("content");
        job.content.check_copy(&copy)?;
        let gibibytes = job.content.bytes as f64 / f64::from(1 << 30);
        Ok(Figures::from([
            ("wall_s", wall_s),
            ("gigabytes_per_s", job.content.bytes as f64 / 1e9 / wall_s),
            ("cpu_s_per_gib", cpu_s / gibibytes),
            ("peak_mebibytes", mebibytes(peak_bytes)),
        ]))
    }
}

impl Downloader<'_> {
    fn program(&self, work: &Path, out: &Path, seed_port: u16) -> anyhow::Result<Program> {
        let torrent = &self.job.content.torrent;
        let seed = SocketAddr::new(self.job.tracker.ip(), seed_port).to_string();
        let listen_port = free_port()?.to_string();
        Ok(match &self.client {
            Client::Seedring(path, writing) => {
                let past_cache = match writing {
                    Writing::ByDefault => "auto",
                    Writing::ThroughCache => "never",
                };
                let get = Program::new(path)
                    .env("SEEDRING_FETCH__PAST_CACHE", past_cache)
                    .arg("get")
                    .arg(torrent)
                    .arg("-d")
                    .arg(out);
                get.args(["--peer", &seed, "--state-dir"])
                    .arg(work.join("state"))
            }
            Client::Libtorrent(libtorrent) => libtorrent.tool("get").arg(torrent).arg(out),
            Client::Aria2 => {
                let aria2 = Program::new("aria2c")
                    .arg("--no-conf")
                    .arg(format!("--dir={}", out.display()));
                let aria2 = aria2.arg(format!("--listen-port={listen_port}"));
                let aria2 = aria2.args([
                    "--seed-time=0",
                    "--file-allocation=none",
                    "--summary-interval=0",
                ]);
                let aria2 = aria2.args([
                    "--enable-dht=false",
                    "--enable-dht6=false",
                    "--bt-enable-lpd=false",
                ]);
                let aria2 = aria2.args(["--disable-ipv6=true", "--console-log-level=warn"]);
                aria2.args(["--enable-peer-exchange=false"]).arg(torrent)
            }
            Client::Transmission => transmission(work, out, torrent, &listen_port)?,
            Client::Rqbit => {
                let rqbit =
                    Program::new("rqbit").args(["--disable-dht", "--disable-lsd", "--ipv4-only"]);
                let rqbit = rqbit.args([
                    "--listen-ip",
                    "127.0.0.1",
                    "--disable-upnp-port-forward",
                    "download",
                ]);
                rqbit
                    .args(["--exit-on-finish", "--disable-http-api", "--output-folder"])
                    .arg(out)
                    .arg(torrent)
            }
        })
    }
}

/// A daemon that runs a script when the torrent is complete, which makes the file `done`.
fn transmission(work: &Path, out: &Path, torrent: &Path, port: &str) -> anyhow::Result<Program> {
    let watch = work.join("watch");
    fs::create_dir(&watch).with_context(|| format!("cannot make {watch:?}"))?;
    fs::copy(torrent, watch.join("content.torrent")).context("cannot copy the torrent")?;
    let script = work.join("script");
    fs::write(&script, "#!/bin/sh\n: > \"${0%/*}/done\"\n").context("cannot write a script")?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))
        .context("cannot mark a script")?;
    let settings = json!({
        "download-dir": out, "start-added-torrents": true, "watch-dir": watch,
        "watch-dir-enabled": true,
        "script-torrent-done-enabled": true, "script-torrent-done-filename": script,
        "rpc-enabled": false, "dht-enabled": false, "lpd-enabled": false, "pex-enabled": false,
        // Version 3 prefers uTP, which our seed does not speak, and does not fall back to TCP.
        "utp-enabled": false, "port-forwarding-enabled": false, "encryption": 0, "preallocation": 0,
        "peer-port": port.parse::<u16>().context("a port")?,
        "speed-limit-down-enabled": false, "cache-size-mb": 64, "incomplete-dir-enabled": false,
        "rename-partial-files": false, "message-level": 1,
    });
    fs::write(work.join("settings.json"), settings.to_string()).context("cannot write settings")?;
    Ok(Program::new("transmission-daemon")
        .args(["--foreground", "--config-dir"])
        .arg(work))
}

/// Runs a program that does not end by itself until the file `done` is there: wall time, CPU time,
/// peak memory.
fn until_marked(
    program: &Program,
    log: &Path,
    done: &Path,
    within: Duration,
) -> anyhow::Result<(f64, f64, u64)> {
    let mut running = program.start(log)?;
    while !done.exists() {
        running.check()?;
        if running.started().elapsed() > within {
            bail!(
                "not done after {} s: {}",
                within.as_secs(),
                running.log_tail()
            );
        }
        std::thread::sleep(POLL);
    }
    let wall_s = running.started().elapsed().as_secs_f64();
    let sample = ProcessSample::of(running.pid())?;
    let peak_bytes = peak_resident_bytes(running.pid());
    running.end();
    Ok((wall_s, sample.user_s + sample.system_s, peak_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_ends_the_wait_and_a_silent_program_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let (log, done) = (folder.path().join("log"), folder.path().join("done"));
        let wait = |script: &str, within| {
            let program = Program::new("sh")
                .args(["-c", script])
                .at_home_in(folder.path());
            until_marked(&program, &log, &done, within)
        };
        let error = wait("exec sleep 60", Duration::ZERO).unwrap_err();
        assert!(error.to_string().contains("not done"), "{error}");
        assert!(wait("exit 1", Duration::from_secs(60)).is_err());
        let (wall_s, _, peak_bytes) =
            wait(": > done; exec sleep 60", Duration::from_secs(60)).unwrap();
        assert!(wall_s > 0.0 && peak_bytes > 0);
        assert_ne!(file_system_of(folder.path()), "");
    }
}
