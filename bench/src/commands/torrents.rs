//! `seedring-bench torrents`: how soon a server with many torrents serves after a restart, and what
//! it costs to hold them.
//!
//! Every server gets the same small torrents, checks their data once and is stopped: that is not
//! measured. A run starts it again, with what it knows, and waits until a sample of the torrents is
//! answered completely. Files are in the page cache.
//!
//! Limits: version 1, one file each, on loopback, no trackers. A server that does not know all its
//! torrents within `--prepare-timeout` has no figures, and its row says how far it came.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;

use crate::console::tell;
use crate::harness::comparison::{Column, Comparison, Figures};
use crate::harness::content::{Content, NO_TRACKER, Shape};
use crate::harness::environment::Environment;
use crate::harness::libtorrent::Libtorrent;
use crate::harness::listing::Api;
use crate::harness::options::{Common, Named, Pieces};
use crate::harness::probe::loopback;
use crate::harness::rounds::{self, Contender};
use crate::harness::servers::{Place, Server, start};
use crate::measure::{MemorySample, ProcessSample};
use crate::units::{count_from_1, mebibytes, seconds_ns, torrents};

const EXAMPLES: &str = "\
Examples:
  seedring-bench torrents
  seedring-bench torrents --count 10000 --only seedring,libtorrent --rounds 3
  seedring-bench torrents --count 200 --timeout 20 --json

Exit codes: 0 all measured; 1 somebody failed, or did not serve the sample in time; 2 usage.";

/// How often the sample is asked.
const POLL: Duration = Duration::from_millis(5);

const COLUMNS: &[Column] = &[
    Column {
        key: "listens_s",
        title: "listens s",
        digits: 2,
    },
    Column {
        key: "lists_s",
        title: "lists s",
        digits: 2,
    },
    Column {
        key: "serves_s",
        title: "serves s",
        digits: 2,
    },
    Column {
        key: "answered",
        title: "answered",
        digits: 0,
    },
    Column {
        key: "start_cpu_s",
        title: "CPU s",
        digits: 2,
    },
    Column {
        key: "resident_mebibytes",
        title: "resident MiB",
        digits: 0,
    },
    Column {
        key: "anonymous_mebibytes",
        title: "anonymous MiB",
        digits: 0,
    },
    Column {
        key: "idle_cpu_percent",
        title: "idle CPU %",
        digits: 1,
    },
];

#[derive(Debug, Args)]
#[command(
    after_help = EXAMPLES,
    mut_arg("size", |arg| arg.default_value("64K").help("The length of the file of each")),
    mut_arg("piece_size", |arg| arg.default_value("16K")),
)]
pub struct TorrentsArguments {
    /// How many torrents.
    #[arg(long, value_name = "N", default_value = "2000", value_parser = torrents)]
    count: usize,

    #[command(flatten)]
    pieces: Pieces,

    /// How many of them must be answered completely, evenly spread.
    #[arg(long, value_name = "N", default_value = "20", value_parser = count_from_1)]
    sample: usize,

    /// How long a server may take to serve the sample, in seconds.
    #[arg(long, value_name = "S", default_value = "40", value_parser = seconds_ns)]
    timeout: u64,

    /// How long a server may take to check the data at its first start, in seconds.
    #[arg(long, value_name = "S", default_value = "600", value_parser = seconds_ns)]
    prepare_timeout: u64,

    /// How long it is then left alone to measure its idle CPU time, in seconds.
    #[arg(long, value_name = "S", default_value = "5", value_parser = seconds_ns)]
    idle: u64,

    #[command(flatten)]
    common: Common,
}

pub fn run(arguments: &TorrentsArguments) -> anyhow::Result<ExitCode> {
    let common = &arguments.common;
    common.check()?;
    arguments.pieces.check(arguments.pieces.size)?;
    common.check_room(arguments.pieces.size.saturating_mul(arguments.count as u64))?;
    let workspace = common.workspace()?;
    let folder = workspace.path();
    let libtorrent = Libtorrent::new(&common.python.path(), folder)?;
    let servers = vec![
        Server::Seedring(common.seedring()),
        Server::Libtorrent(libtorrent),
        Server::Rtorrent,
        Server::Transmission,
        Server::Qbittorrent,
        Server::Rqbit,
    ];
    let chosen = common.choice.chosen(servers)?;
    let data = folder.join("data");
    let torrents = make_torrents(arguments, folder, &data)?;
    let job = Job {
        folder: folder.to_owned(),
        data,
        sample: sample_of(&torrents, arguments.sample),
        torrents: &torrents,
        cores: common.pin.clone(),
        timeout: Duration::from_nanos(arguments.timeout),
        prepare_timeout: Duration::from_nanos(arguments.prepare_timeout),
        idle: Duration::from_nanos(arguments.idle),
    };
    let contenders = chosen.into_iter().map(|server| -> Box<dyn Contender> {
        Box::new(Restarted {
            server,
            place: None,
            job: &job,
        })
    });
    let mut report = Comparison::new(
        "torrents",
        Environment::here(&common.pin),
        COLUMNS,
        "serves_s",
    );
    describe(arguments, &job, &mut report);
    let everybody = rounds::run(
        contenders.collect(),
        common.choice.rounds.count,
        &mut report,
    );
    let short = |row: &&crate::harness::comparison::Row| {
        let answered = row.figures.get("answered");
        answered.is_some_and(|answered| answered.spread.min < job.sample.len() as f64)
    };
    let all_served = report.rows.iter().find(short).is_none();
    common.choice.print(&report, everybody && all_served)
}

/// Puts into the report what everybody was given.
fn describe(arguments: &TorrentsArguments, job: &Job<'_>, report: &mut Comparison) {
    let (count, size) = (arguments.count, arguments.pieces.size);
    let piece = arguments.pieces.piece_size >> 10;
    report.setting(
        "data",
        format!("{count} torrents of one file of {size} B, pieces of {piece} KiB, checked before"),
    );
    report.setting(
        "sample",
        format!(
            "{} torrents; \"serves\" is when all of them are answered completely",
            job.sample.len()
        ),
    );
    report.setting(
        "idle",
        format!(
            "{} s, from when the sample is served",
            job.idle.as_secs_f64()
        ),
    );
    report.setting("page cache", "holds the files");
}

fn make_torrents(
    arguments: &TorrentsArguments,
    folder: &Path,
    data: &Path,
) -> anyhow::Result<Vec<Content>> {
    tell(format_args!("making {} torrents", arguments.count));
    let torrents = folder.join("torrents");
    for new in [data, &torrents] {
        std::fs::create_dir(new).with_context(|| format!("cannot make {new:?}"))?;
    }
    let make = |index: usize| {
        let shape = Shape {
            bytes: arguments.pieces.size,
            piece_bytes: arguments.pieces.piece_size,
            seed: index as u64,
            tracker: Some(NO_TRACKER),
        };
        let name = format!("content-{index:06}");
        let torrent = torrents.join(format!("{name}.torrent"));
        Content::make(data, &name, &torrent, shape)
    };
    (0..arguments.count).map(make).collect()
}

/// At most `count` of them, evenly spread, the first and the last among them.
fn sample_of(torrents: &[Content], count: usize) -> Vec<&Content> {
    let last = torrents.len().saturating_sub(1);
    let count = count.min(torrents.len());
    let place = |index: usize| index * last / count.saturating_sub(1).max(1);
    (0..count).map(|index| &torrents[place(index)]).collect()
}

/// What everybody is to do.
struct Job<'a> {
    folder: PathBuf,
    data: PathBuf,
    torrents: &'a [Content],
    sample: Vec<&'a Content>,
    cores: Vec<usize>,
    timeout: Duration,
    prepare_timeout: Duration,
    idle: Duration,
}

impl Named for Server {
    fn name(&self) -> String {
        Server::name(self).to_owned()
    }
}

/// A server that is started again and again.
struct Restarted<'a> {
    server: Server,
    /// Where it knows the torrents already.
    place: Option<Place<'a>>,
    job: &'a Job<'a>,
}

impl Contender for Restarted<'_> {
    fn name(&self) -> String {
        self.server.name().to_owned()
    }

    fn version(&self) -> Result<String, String> {
        self.server.version()
    }

    fn run(&mut self) -> anyhow::Result<Figures> {
        let job = self.job;
        let place = match self.place.take() {
            Some(place) => place,
            None => {
                let name = self.server.name();
                tell(format_args!("{name}: first start, not measured"));
                let place = Place::new(&job.folder, name, job.torrents, &job.data)?;
                self.server.prepare(&place, job.prepare_timeout)?;
                place
            }
        };
        let place = self.place.insert(place);
        let program = self.server.again(place)?.on_cores(&job.cores);
        let (mut running, listens) = start(&program, place, job.timeout)?;
        let asks = Asks {
            api: self.server.api(),
            place,
            started: running.started(),
            until: running.started() + job.timeout,
        };
        let (answered, serves, lists) = std::thread::scope(|scope| {
            let lists = scope.spawn(|| asks.until_all_are_listed());
            let answered = place.wait_until_served(&job.sample, &mut running, POLL, job.timeout)?;
            let serves = running.started().elapsed();
            let lists = lists.join().unwrap_or_default();
            anyhow::Ok((answered, serves, lists))
        })?;
        let before = ProcessSample::of(running.pid())?;
        let idle_from = Instant::now();
        std::thread::sleep(job.idle);
        running.check()?;
        let after = ProcessSample::of(running.pid())?;
        let idle_s = idle_from.elapsed().as_secs_f64();
        let memory = MemorySample::of(running.pid())?;
        running.end();
        let cpu_s = |sample: &ProcessSample| sample.user_s + sample.system_s;
        let mut figures = Figures::from([
            ("listens_s", listens.as_secs_f64()),
            ("answered", answered as f64),
            ("start_cpu_s", cpu_s(&before)),
            ("resident_mebibytes", mebibytes(memory.resident_bytes)),
            ("anonymous_mebibytes", mebibytes(memory.anonymous_bytes)),
            (
                "idle_cpu_percent",
                (cpu_s(&after) - cpu_s(&before)) / idle_s * 100.0,
            ),
        ]);
        if let Some(lists) = lists {
            figures.insert("lists_s", lists.as_secs_f64());
        }
        if answered == job.sample.len() {
            figures.insert("serves_s", serves.as_secs_f64());
        }
        Ok(figures)
    }
}

/// Asks a server's API, beside the peers that ask for the sample.
struct Asks<'a> {
    api: Option<Api>,
    place: &'a Place<'a>,
    started: Instant,
    until: Instant,
}

impl Asks<'_> {
    /// How long after its start it listed all its torrents; none if it did not in time, or has no
    /// API.
    fn until_all_are_listed(&self) -> Option<Duration> {
        let (address, state) = (
            loopback(self.place.control_port),
            self.place.work.join("state"),
        );
        let api = self.api?;
        while !api.lists(address, &state, self.place.torrents.len()) {
            if Instant::now() > self.until {
                return None;
            }
            std::thread::sleep(POLL);
        }
        Some(self.started.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::ids::InfoHashV1;

    #[test]
    fn samples_are_spread_from_the_first_to_the_last() {
        let torrents: Vec<Content> = (0..100)
            .map(|index| Content {
                directory: PathBuf::new(),
                file: PathBuf::new(),
                torrent: PathBuf::new(),
                info_hash: InfoHashV1([index; 20]),
                pieces: 1,
                bytes: 1,
            })
            .collect();
        let places = |torrents: &[Content], count| -> Vec<u8> {
            sample_of(torrents, count)
                .iter()
                .map(|torrent| torrent.info_hash.0[0])
                .collect()
        };
        assert_eq!(places(&torrents, 4), [0, 33, 66, 99]);
        assert_eq!(places(&torrents, 1), [0]);
        assert_eq!(places(&torrents[..3], 20), [0, 1, 2]);
        assert!(places(&[], 20).is_empty());
    }
}
