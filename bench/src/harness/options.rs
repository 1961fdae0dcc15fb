//! Options that several commands share: a struct for each group of those that belong together,
//! flattened into the command's own.
//!
//! A command for which another default or another explanation is right says so by `mut_arg`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use proto::limits::PIECES_MAX;

use crate::console;
use crate::harness::comparison::Comparison;
use crate::harness::folder::Folder;
use crate::harness::rounds::Contender;
use crate::harness::usage::{self, Usage};
use crate::harness::{page_cache, undo};
use crate::load::Mode;
use crate::units::{content_bytes, depth, piece_bytes, seconds_ns, window_ns};

/// The Python that is asked for libtorrent unless another is named.
const PYTHON: &str = "python3";

/// Something with a name that `--only` may choose.
pub trait Named {
    /// Its name.
    fn name(&self) -> String;
}

impl Named for Box<dyn Contender + '_> {
    fn name(&self) -> String {
        self.as_ref().name()
    }
}

/// How often, and how it is told.
#[derive(Debug, Args)]
pub struct Rounds {
    /// How often everybody runs; who is first turns from round to round.
    #[arg(id = "rounds", long, value_name = "N", default_value = "5", value_parser = rounds)]
    pub count: usize,

    #[command(flatten)]
    pub format: Format,
}

/// How a report is told.
#[derive(Debug, Args)]
pub struct Format {
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
}

impl Format {
    /// Prints the report in the form that is wanted.
    pub fn print(&self, json: &str, text: &str) -> anyhow::Result<()> {
        match self.json {
            true => console::print(&format!("{json}\n")),
            false => console::print(text),
        }
    }
}

/// Who runs, how often, and how it is told.
#[derive(Debug, Args)]
pub struct Choice {
    #[command(flatten)]
    pub rounds: Rounds,

    /// Measure only those whose names begin with one of these.
    #[arg(long, value_name = "NAME[,NAME]", value_delimiter = ',')]
    pub only: Vec<String>,
}

/// How a seed is loaded.
#[derive(Debug, Args)]
pub struct Load {
    /// Requests that each peer keeps under way. Seeds drop what exceeds their queue: Transmission
    /// 512, libtorrent 2,000.
    #[arg(long, value_name = "D", default_value_t = 64, value_parser = depth)]
    pub depth: usize,

    /// The measured window, in seconds.
    #[arg(long, value_name = "S", default_value = "10", value_parser = window_ns)]
    pub duration: u64,

    /// Load before the window, in seconds.
    #[arg(long, value_name = "S", default_value = "2", value_parser = seconds_ns)]
    pub warmup: u64,

    /// What happens to payload.
    #[arg(long, value_enum, default_value_t = Mode::Read)]
    pub mode: Mode,
}

/// How much data, in pieces of which length.
#[derive(Debug, Args)]
pub struct Pieces {
    /// The length of the file of random bytes that is made.
    #[arg(long, value_name = "SIZE", default_value = "4G", value_parser = content_bytes)]
    pub size: u64,

    /// The length of a piece: a power of two.
    #[arg(long, value_name = "SIZE", default_value = "1M", value_parser = piece_bytes)]
    pub piece_size: u32,
}

impl Pieces {
    /// Whether `bytes` in such pieces are a torrent.
    pub fn check(&self, bytes: u64) -> Result<(), Usage> {
        let count = bytes.div_ceil(u64::from(self.piece_size));
        if count <= u64::from(PIECES_MAX) {
            return Ok(());
        }
        Err(Usage(format!(
            "--piece-size {}K: {bytes} B have {count} such pieces, and a torrent has at most \
             {PIECES_MAX}: ask for longer pieces",
            self.piece_size >> 10
        )))
    }
}

/// One file to hash: made or given, in the page cache or not.
#[derive(Debug, Args)]
pub struct HashedFile {
    #[command(flatten)]
    pub pieces: Pieces,

    /// Take this file instead.
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,

    /// Empty the page cache before each run. Needs root.
    #[arg(long)]
    pub cold: bool,
}

impl HashedFile {
    /// Whether there can be such a file, and such a page cache.
    pub fn check(&self, common: &Common) -> Result<(), Usage> {
        if self.cold {
            page_cache::check_drop("--cold")?;
        }
        match &self.data {
            Some(path) => self.pieces.check(usage::file("--data", path)?),
            None => {
                self.pieces.check(self.pieces.size)?;
                common.check_room(self.pieces.size)
            }
        }
    }

    /// Names it, `bytes` long, in the report.
    pub fn describe(&self, bytes: u64, report: &mut Comparison) {
        let piece = self.pieces.piece_size >> 10;
        report.setting(
            "data",
            format!("one file of {bytes} B, pieces of {piece} KiB"),
        );
        let cache = match self.cold {
            true => "emptied before each run",
            false => "holds the file",
        };
        report.setting("page cache", cache);
    }

    /// To be called before each run: brings `file` into the page cache, or everything out of it.
    pub fn settle_cache(&self, file: &Path) -> anyhow::Result<()> {
        match self.cold {
            true => page_cache::drop_all(),
            false => page_cache::warm(file),
        }
    }
}

/// The Python that has libtorrent.
#[derive(Debug, Args)]
pub struct Python {
    /// A Python that has libtorrent.
    #[arg(long, value_name = "FILE", default_value = PYTHON)]
    libtorrent_python: PathBuf,
}

impl Python {
    /// Where it is.
    pub fn path(&self) -> PathBuf {
        absolute(&self.libtorrent_python)
    }

    /// Whether it is there, if it was named: without the usual one libtorrent is left out.
    pub fn check(&self) -> Result<(), Usage> {
        if self.libtorrent_python == Path::new(PYTHON) {
            return Ok(());
        }
        let what_to_do = "give a Python that has libtorrent, or leave the option out";
        usage::program("--libtorrent-python", &self.path(), what_to_do)
    }
}

/// What comparisons of programs need beside what is hashed or served.
#[derive(Debug, Args)]
pub struct Common {
    #[command(flatten)]
    pub choice: Choice,

    /// Keep the measured programs on these cores.
    #[arg(long, value_name = "CORE[,CORE]", value_delimiter = ',')]
    pub pin: Vec<usize>,

    /// Our server [default: the one beside this program].
    #[arg(long, value_name = "FILE")]
    pub seedring: Option<PathBuf>,

    #[command(flatten)]
    pub python: Python,

    /// Where data and working files go, in a folder that is removed at the end [default: the
    /// system's folder for temporary files].
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

impl Common {
    /// The program `seedring` to measure.
    pub fn seedring(&self) -> PathBuf {
        if let Some(path) = &self.seedring {
            return absolute(path);
        }
        match beside_this_program() {
            path if path.is_file() => path,
            _ => PathBuf::from("seedring"),
        }
    }

    /// Whether the program `seedring` is there, for those who cannot do without it.
    pub fn check_seedring(&self) -> Result<(), Usage> {
        let what_to_do =
            "build it (cargo build --release -p seedring), or give the path of a build";
        usage::program("--seedring", &self.seedring(), what_to_do)
    }

    /// Whether `bytes` may be written for this run.
    pub fn check_room(&self, bytes: u64) -> Result<(), Usage> {
        usage::disk_room("--size", &self.parent(), bytes)
    }

    /// The folder in which that of this run is made.
    pub fn parent(&self) -> PathBuf {
        let given = self.directory.as_deref().map(absolute);
        given.unwrap_or_else(std::env::temp_dir)
    }

    /// Whether all that was named is there.
    pub fn check(&self) -> Result<(), Usage> {
        usage::cores("--pin", &self.pin)?;
        if let Some(directory) = &self.directory {
            usage::folder("--directory", directory)?;
        }
        if self.seedring.is_some() {
            self.check_seedring()?;
        }
        self.python.check()
    }

    /// A folder for this run; it is removed when it is dropped, or when the user wants an end: from
    /// now on, signals undo whatever was begun. What the command line asks for is checked before:
    /// see [`Self::check`].
    pub fn workspace(&self) -> anyhow::Result<Folder> {
        undo::on_signals().context("cannot catch signals")?;
        Folder::new("seedring-bench-", Some(&self.parent()))
    }
}

/// Where our server is if both were built or installed together.
pub fn beside_this_program() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.with_file_name("seedring")
}

impl Choice {
    /// Those of `all` that `--only` names; an error names what it names in vain.
    pub fn chosen<T: Named>(&self, all: Vec<T>) -> anyhow::Result<Vec<T>> {
        let names: Vec<String> = all.iter().map(Named::name).collect();
        let unknown =
            |prefix: &&String| !names.iter().any(|name| name.starts_with(prefix.as_str()));
        if let Some(prefix) = self.only.iter().find(unknown) {
            let known = names.join(", ");
            return Err(Usage(format!(
                "--only: nobody is called {prefix:?}; known are {known}"
            ))
            .into());
        }
        let named = |name: &str| {
            self.only
                .iter()
                .any(|prefix| name.starts_with(prefix.as_str()))
        };
        let mut all = all;
        all.retain(|one| self.only.is_empty() || named(&one.name()));
        Ok(all)
    }

    /// Prints the report and chooses the exit code: 1 if somebody failed, or nobody was there.
    pub fn print(&self, report: &Comparison, everybody: bool) -> anyhow::Result<ExitCode> {
        let json = serde_json::to_string(report)?;
        self.rounds.format.print(&json, &report.to_text())?;
        Ok(if everybody && !report.rows.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

/// Programs run in folders of their own, so what they are given must not depend on ours. A name
/// without a slash is looked up in the PATH, and links stay links: a Python's virtual environment
/// is where its link is.
fn absolute(path: &Path) -> PathBuf {
    match path.components().count() {
        1 if !path.is_dir() => path.to_owned(),
        _ => std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
    }
}

fn rounds(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(rounds @ 1..=1_000) => Ok(rounds),
        _ => Err("must be a number from 1 to 1000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Someone(&'static str);

    impl Named for Someone {
        fn name(&self) -> String {
            self.0.to_owned()
        }
    }

    #[test]
    fn only_takes_beginnings_of_names_and_refuses_unknown_ones() {
        let choose = |only: &[&str]| {
            let choice = Choice {
                rounds: Rounds {
                    count: 1,
                    format: Format { json: false },
                },
                only: only.iter().map(|&name| name.to_owned()).collect(),
            };
            let all = vec![
                Someone("ours, 1 thread"),
                Someone("ours, 2 threads"),
                Someone("theirs"),
            ];
            choice
                .chosen(all)
                .map(|chosen| chosen.iter().map(|one| one.0).collect::<Vec<_>>())
        };
        assert_eq!(choose(&[]).unwrap().len(), 3);
        assert_eq!(
            choose(&["ours"]).unwrap(),
            ["ours, 1 thread", "ours, 2 threads"]
        );
        assert_eq!(
            choose(&["theirs", "ours, 2"]).unwrap(),
            ["ours, 2 threads", "theirs"]
        );
        let error = choose(&["ours", "hers"]).unwrap_err();
        assert!(error.downcast_ref::<Usage>().is_some());
        assert!(
            error
                .to_string()
                .contains("\"hers\"; known are ours, 1 thread"),
            "{error}"
        );
    }

    #[test]
    fn rounds_are_at_least_one() {
        assert_eq!(rounds("3"), Ok(3));
        assert!(rounds("0").is_err() && rounds("x").is_err());
    }
}
