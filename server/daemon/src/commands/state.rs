//! `seedring state`: checks, copies and restores the store of torrents while no server uses it.

use crate::cli::Global;
use crate::failure::Failure;
use crate::progress::{counted, print, print_json, shown};
use anyhow::anyhow;
use clap::{Args, Subcommand};
use control::config::{Config, Environment};
use indicatif::{BinaryBytes, HumanCount};
use proto::text::printable;
use serde::Serialize;
use state::{Problem, Report};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The longest problem that is shown, in characters.
const PROBLEM_CHARS_MAX: usize = 400;

const EXAMPLES: &str = "\
Examples:
  seedring state check                             # every checksum and every record
  seedring state backup /backup/store.redb         # a copy; replaces a file only with --force
  seedring state restore /backup/store.redb        # the store is the copy again
  seedring state check --json | jq .problems

Exit code 0: done, and nothing is wrong; 1: something is, or a server has the store; 2: the \
command line or the configuration is wrong. With --force, restore replaces a store that is there \
and keeps it beside the new one. A backup has the passkeys of its torrents: only its owner may \
read it. --json prints one line: {\"event\":\"checked\", good, torrents, schema, uuid, bytes, \
repaired, problems, problems_count}, {\"event\":\"backed-up\", file, bytes} or \
{\"event\":\"restored\", torrents, kept}.";

/// Arguments of `seedring state`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct StateArgs {
    /// What to do
    #[command(subcommand)]
    action: Action,
}

/// What to do with the store.
#[derive(Debug, Subcommand)]
enum Action {
    /// Read all of it: every checksum, every record, whether they belong together
    Check,
    /// Write a copy of it
    Backup {
        /// Where to
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Replace a file that is there
        #[arg(long)]
        force: bool,
    },
    /// Make it from a copy
    Restore {
        /// The copy
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Replace a store that is there; it is kept beside the new one
        #[arg(long)]
        force: bool,
    },
}

#[derive(Serialize)]
struct CheckedLine<'a> {
    event: &'static str,
    good: bool,
    torrents: u64,
    schema: u64,
    uuid: String,
    bytes: u64,
    repaired: bool,
    problems: Vec<ProblemPart<'a>>,
    problems_count: u64,
}

#[derive(Serialize)]
struct ProblemPart<'a> {
    info_hash_v1: Option<String>,
    problem: &'a str,
}

#[derive(Serialize)]
struct BackedUpLine<'a> {
    event: &'static str,
    file: Cow<'a, str>,
    bytes: u64,
}

#[derive(Serialize)]
struct RestoredLine<'a> {
    event: &'static str,
    torrents: u64,
    kept: Option<Cow<'a, str>>,
}

/// Runs the command.
pub fn run(global: &Global, args: &StateArgs) -> Result<(), Failure> {
    let directory = state_dir(global)?;
    match &args.action {
        Action::Check => check(global, &directory),
        Action::Backup { file, force } => {
            let bytes = state::backup(&directory, file, *force).map_err(anyhow::Error::from)?;
            if global.json {
                print_json(&BackedUpLine {
                    event: "backed-up",
                    file: file.to_string_lossy(),
                    bytes,
                });
            } else {
                print(&format!("{}: {}\n", shown(file), BinaryBytes(bytes)));
            }
            Ok(())
        }
        Action::Restore { file, force } => {
            let restored = state::restore(&directory, file, *force).map_err(anyhow::Error::from)?;
            if global.json {
                print_json(&RestoredLine {
                    event: "restored",
                    torrents: restored.torrents,
                    kept: restored.kept.as_ref().map(|kept| kept.to_string_lossy()),
                });
            } else {
                let mut text = format!("restored {}\n", counted(restored.torrents, "torrent"));
                if let Some(kept) = &restored.kept {
                    let _ = writeln!(text, "the store that was there is kept as {}", shown(kept));
                }
                print(&text);
            }
            Ok(())
        }
    }
}

/// Where the server keeps its state: what the command line says, else its configuration.
pub(super) fn state_dir(global: &Global) -> Result<PathBuf, Failure> {
    if let Some(directory) = &global.state_dir {
        return Ok(directory.clone());
    }
    let environment = Environment::of_process();
    let config = Config::load(global.config.as_deref(), &environment);
    let config = config.map_err(|error| Failure::Usage(error.into()))?;
    Ok(config.state_dir(&environment))
}

fn check(global: &Global, directory: &Path) -> Result<(), Failure> {
    let report = state::check(directory).map_err(anyhow::Error::from)?;
    let good = report.problems_count == 0;
    if global.json {
        print_json(&checked_line(&report, good));
    } else {
        print(&text(&report));
    }
    match good {
        true => Ok(()),
        false => Err(anyhow!(
            "{} in the state store: remove these torrents and add them again, or restore a backup",
            counted(report.problems_count, "problem"),
        )
        .into()),
    }
}

fn checked_line(report: &Report, good: bool) -> CheckedLine<'_> {
    let part =
        |problem: &'_ Problem| -> Option<String> { problem.info_hash.map(|hash| hash.to_string()) };
    let problems = report.problems.iter().map(|problem| ProblemPart {
        info_hash_v1: part(problem),
        problem: &problem.text,
    });
    CheckedLine {
        event: "checked",
        good,
        torrents: report.torrents,
        schema: report.schema,
        uuid: uuid(&report.uuid),
        bytes: report.bytes,
        repaired: report.repaired,
        problems: problems.collect(),
        problems_count: report.problems_count,
    }
}

/// The outcome for people: a line for each problem, and one of the whole.
fn text(report: &Report) -> String {
    let mut text = String::new();
    for problem in &report.problems {
        let whose = problem.info_hash.map(|hash| format!("{hash}: "));
        let what = printable(problem.text.as_bytes(), PROBLEM_CHARS_MAX);
        let _ = writeln!(text, "{}{what}", whose.unwrap_or_default());
    }
    let more = report.problems_count - report.problems.len() as u64;
    if more > 0 {
        let _ = writeln!(text, "and {} more", HumanCount(more));
    }
    let _ = writeln!(
        text,
        "{}, {}, schema {}{}",
        counted(report.torrents, "torrent"),
        BinaryBytes(report.bytes),
        report.schema,
        if report.repaired {
            ", put in order"
        } else {
            ""
        },
    );
    text
}

/// A UUID as it is written (RFC 9562).
fn uuid(bytes: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_written_in_its_five_groups() {
        let bytes = std::array::from_fn(|index| index as u8 * 0x11);
        assert_eq!(uuid(&bytes), "00112233-4455-6677-8899-aabbccddeeff");
    }

    #[test]
    fn problems_are_listed_and_those_that_are_not_are_counted() {
        let problem = |text: &str| Problem {
            info_hash: None,
            text: text.into(),
        };
        let report = Report {
            torrents: 1,
            schema: 1,
            bytes: 2048,
            problems: vec![problem("a\u{1b}b")],
            problems_count: 3,
            ..Report::default()
        };
        let text = text(&report);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1..], ["and 2 more", "1 torrent, 2.00 KiB, schema 1"]);
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}
