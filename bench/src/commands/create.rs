//! `seedring-bench create`: how long programs take to make the torrent of one file.
//!
//! All hash the same file with the same piece length; each torrent that they write is read again,
//! and its piece hashes must be those of the first. Version 1 torrents only. One file, so that the
//! walk over a folder is not measured.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use proto::metainfo::Metainfo;

use crate::console::tell;
use crate::harness::children::Program;
use crate::harness::comparison::{Column, Comparison, Figures};
use crate::harness::content::{NO_TRACKER, write_random};
use crate::harness::environment::Environment;
use crate::harness::libtorrent::Libtorrent;
use crate::harness::options::{Common, HashedFile};
use crate::harness::rounds::{self, Contender};
use crate::units::{mebibytes, threads};

const EXAMPLES: &str = "\
Examples:
  seedring-bench create                              # 4 GiB of random bytes, in the page cache
  seedring-bench create --data big.img --threads 1 --pin 0
  seedring-bench create --cold --only seedring,mktorrent --json      # as root

Exit codes: 0 all measured; 1 somebody failed, or wrote wrong hashes; 2 usage.";

/// A run takes no longer than this.
const WITHIN: Duration = Duration::from_secs(1_800);

const COLUMNS: &[Column] = &[
    Column::WALL,
    Column::GIGABYTES_PER_S,
    Column::CPU,
    Column::PEAK,
];

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CreateArguments {
    #[command(flatten)]
    file: HashedFile,

    /// Hashing threads, for those who can be told [default: as many as cores].
    #[arg(long, value_name = "N", value_parser = threads)]
    threads: Option<usize>,

    #[command(flatten)]
    common: Common,
}

pub fn run(arguments: &CreateArguments) -> anyhow::Result<ExitCode> {
    let common = &arguments.common;
    common.check()?;
    arguments.file.check(common)?;
    let workspace = common.workspace()?;
    let folder = workspace.path();
    let threads = arguments.threads.unwrap_or_else(|| match common.pin.len() {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        cores => cores,
    });
    // Who is chosen is known before anything is written.
    let file = &arguments.file;
    let job = Job {
        file: file.data.clone().unwrap_or_else(|| folder.join("content")),
        folder: folder.to_owned(),
        piece_bytes: file.pieces.piece_size,
        cores: common.pin.clone(),
    };
    let contenders = common
        .choice
        .chosen(contenders(arguments, &job, threads)?)?;
    if file.data.is_none() {
        tell(format_args!(
            "writing {} MiB of random bytes",
            file.pieces.size >> 20
        ));
        write_random(&job.file, file.pieces.size, 1)?;
    }
    let bytes = fs::metadata(&job.file)
        .with_context(|| format!("cannot look at {:?}", job.file))?
        .len();
    let mut report = Comparison::new("create", Environment::here(&common.pin), COLUMNS, "wall_s");
    file.describe(bytes, &mut report);
    report.setting("threads", threads);
    let everybody = rounds::run(contenders, common.choice.rounds.count, &mut report);
    let agreed = compare_torrents(&job, &mut report)?;
    common.choice.print(&report, everybody && agreed)
}

/// What everybody is to do.
#[derive(Clone)]
struct Job {
    file: PathBuf,
    folder: PathBuf,
    piece_bytes: u32,
    cores: Vec<usize>,
}

impl Job {
    fn torrent_of(&self, who: &str) -> PathBuf {
        self.folder.join(format!("{who}.torrent"))
    }
}

/// A program that makes a torrent and ends.
struct Tool {
    name: &'static str,
    version: Result<String, String>,
    program: Program,
}

/// A tool with the file that it is given.
struct Creator<'a> {
    tool: Tool,
    file: &'a HashedFile,
    job: Job,
}

impl Contender for Creator<'_> {
    fn name(&self) -> String {
        self.tool.name.to_owned()
    }

    fn version(&self) -> Result<String, String> {
        self.tool.version.clone()
    }

    fn run(&mut self) -> anyhow::Result<Figures> {
        let job = &self.job;
        let torrent = job.torrent_of(self.tool.name);
        if torrent.exists() {
            fs::remove_file(&torrent).with_context(|| format!("cannot remove {torrent:?}"))?;
        }
        self.file.settle_cache(&job.file)?;
        let log = job.folder.join("log");
        let finished = self.tool.program.run(&log, WITHIN)?;
        let bytes = fs::metadata(&job.file)
            .with_context(|| format!("cannot look at {:?}", job.file))?
            .len();
        Ok(Figures::from([
            ("wall_s", finished.wall_s),
            ("cpu_s", finished.cpu_s),
            ("gigabytes_per_s", bytes as f64 / 1e9 / finished.wall_s),
            ("peak_mebibytes", mebibytes(finished.peak_bytes)),
        ]))
    }
}

fn contenders<'a>(
    arguments: &'a CreateArguments,
    job: &Job,
    threads: usize,
) -> anyhow::Result<Vec<Box<dyn Contender + 'a>>> {
    let common = &arguments.common;
    let tools = vec![
        seedring(common.seedring(), job, threads),
        mktorrent(job, threads),
        transmission_create(job),
        libtorrent(&common.python.path(), job)?,
        imdl(job),
    ];
    let contender = |tool: Tool| -> Box<dyn Contender + 'a> {
        Box::new(Creator {
            tool: Tool {
                program: tool.program.on_cores(&job.cores),
                ..tool
            },
            file: &arguments.file,
            job: job.clone(),
        })
    };
    Ok(tools.into_iter().map(contender).collect())
}

fn seedring(path: PathBuf, job: &Job, threads: usize) -> Tool {
    let (name, program) = ("seedring", Program::new(path));
    let version = program.clone().arg("--version").version();
    let program = program.arg("create").arg(&job.file);
    let program = program.arg("--output").arg(job.torrent_of(name));
    let program = program.args(["--piece-size", &job.piece_bytes.to_string()]);
    let program = program.args(["--threads", &threads.to_string()]);
    Tool {
        name,
        version,
        program: program.args(["--creation-date", "none"]),
    }
}

fn mktorrent(job: &Job, threads: usize) -> Tool {
    let (name, program) = ("mktorrent", Program::new("mktorrent"));
    let version = program.clone().arg("-h").version();
    let exponent = job.piece_bytes.ilog2().to_string();
    let program = program.args(["-a", NO_TRACKER, "-d", "-l", &exponent]);
    let program = program.args(["-t", &threads.to_string()]);
    let program = program.arg("-o").arg(job.torrent_of(name));
    Tool {
        name,
        version,
        program: program.arg(&job.file),
    }
}

fn transmission_create(job: &Job) -> Tool {
    let (name, program) = ("transmission-create", Program::new("transmission-create"));
    let version = program.clone().arg("--version").version();
    let program = program.args(["-s", &(job.piece_bytes >> 10).to_string()]);
    let program = program.arg("-o").arg(job.torrent_of(name));
    Tool {
        name,
        version: one_thread(version),
        program: program.arg(&job.file),
    }
}

fn libtorrent(python: &Path, job: &Job) -> anyhow::Result<Tool> {
    let (name, libtorrent) = ("libtorrent", Libtorrent::new(python, &job.folder)?);
    let program = libtorrent.tool("create").arg(&job.file);
    let program = program.arg(job.torrent_of(name));
    Ok(Tool {
        name,
        version: one_thread(libtorrent.version()),
        program: program.arg(job.piece_bytes.to_string()),
    })
}

fn imdl(job: &Job) -> Tool {
    let (name, program) = ("imdl", Program::new("imdl"));
    let version = program.clone().arg("--version").version();
    let program = program.args(["torrent", "create"]);
    let program = program.args(["--piece-length", &job.piece_bytes.to_string()]);
    let program = program.arg("--input").arg(&job.file);
    Tool {
        name,
        version: one_thread(version),
        program: program.arg("--output").arg(job.torrent_of(name)),
    }
}

fn one_thread(version: Result<String, String>) -> Result<String, String> {
    version.map(|version| format!("{version}, one thread: it has no option for more"))
}

/// Says of each row which info-hash it made. Piece hashes must be alike; what else is in `info` may
/// differ.
fn compare_torrents(job: &Job, report: &mut Comparison) -> anyhow::Result<bool> {
    let mut reference: Option<(String, Metainfo)> = None;
    let mut agreed = true;
    let mut others = BTreeMap::new();
    for row in report.rows.iter_mut().filter(|row| !row.figures.is_empty()) {
        let metainfo = read_torrent(&job.torrent_of(&row.who))?;
        let info_hash = metainfo
            .info_hash_v1
            .map(|hash| hash.to_string())
            .unwrap_or_default();
        let Some((_, first)) = &reference else {
            reference = Some((row.who.clone(), metainfo));
            continue;
        };
        let same_pieces = metainfo.piece_hashes() == first.piece_hashes();
        if !same_pieces {
            agreed = false;
            row.remark = Some("WRONG: other piece hashes than the first".to_owned());
        } else if metainfo.info_hash_v1 != first.info_hash_v1 {
            others.insert(row.who.clone(), info_hash);
        }
    }
    if let Some((who, metainfo)) = &reference {
        let info_hash = metainfo
            .info_hash_v1
            .map(|hash| hash.to_string())
            .unwrap_or_default();
        report.remarks.push(format!(
            "info-hash: {info_hash} ({who}, and all that are not named here)"
        ));
    }
    for (who, info_hash) in others {
        report.remarks.push(format!(
            "info-hash: {info_hash} ({who}: equal pieces, other keys in the info dictionary)"
        ));
    }
    Ok(agreed)
}

fn read_torrent(path: &Path) -> anyhow::Result<Metainfo> {
    let text = fs::read(path).with_context(|| format!("cannot read {path:?}"))?;
    let metainfo =
        Metainfo::parse(&text).with_context(|| format!("{path:?} is not a valid torrent"))?;
    if metainfo.piece_hashes().is_empty() {
        bail!("{path:?} has no pieces");
    }
    Ok(metainfo)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::metainfo::Builder;

    fn write_torrent(job: &Job, who: &str, pieces: u8, private: bool) {
        let builder = Builder {
            name: b"content".to_vec(),
            piece_length: 1 << 14,
            pieces: vec![pieces; 20],
            length: 100,
            private,
            ..Builder::default()
        };
        fs::write(job.torrent_of(who), builder.encode()).unwrap();
    }

    #[test]
    fn wrong_pieces_are_an_error_and_other_keys_a_remark() {
        let folder = tempfile::tempdir().unwrap();
        let job = Job {
            file: PathBuf::new(),
            folder: folder.path().to_owned(),
            piece_bytes: 1 << 14,
            cores: Vec::new(),
        };
        let report_of = |whom: &[&str]| {
            let mut report = Comparison::new("create", Environment::here(&[]), COLUMNS, "wall_s");
            for who in whom {
                report.row(*who, "1", &[Some(Figures::from([("wall_s", 1.0)]))], None);
            }
            report.row("failed", "1", &[None], None);
            report
        };
        write_torrent(&job, "seedring", 1, false);
        write_torrent(&job, "private", 1, true);
        write_torrent(&job, "wrong", 2, false);
        let mut report = report_of(&["seedring", "private"]);
        assert!(compare_torrents(&job, &mut report).unwrap());
        assert_eq!(report.remarks.len(), 2);
        assert!(
            report.remarks[1].contains("(private: equal pieces"),
            "{:?}",
            report.remarks
        );
        let mut report = report_of(&["seedring", "wrong"]);
        assert!(!compare_torrents(&job, &mut report).unwrap());
        assert!(report.rows[1].remark.as_deref().unwrap().contains("WRONG"));
        assert!(compare_torrents(&job, &mut report_of(&["absent"])).is_err());
    }
}
