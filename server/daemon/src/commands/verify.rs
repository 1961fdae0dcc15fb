//! `seedring verify`: hashes what is on disk and compares it with a torrent.

use super::show::read_torrent;
use crate::cli::Global;
use crate::disk::FOREGROUND;
use crate::failure::Failure;
use crate::progress::{Reporter, counted, print, print_json, shown};
use anyhow::anyhow;
use clap::Args;
use control::hashing::FileFault;
use control::verify::{FileReport, FileState, Verified, verify};
use indicatif::{BinaryBytes, HumanCount};
use proto::metainfo::Metainfo;
use serde::Serialize;
use std::borrow::Cow;
use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  seedring verify music.torrent -d ~            # the data is ~/music
  seedring verify music.torrent -d ~ --all      # a line for every file, not only for the bad ones
  seedring verify --json music.torrent -d ~ | jq 'select(.event == \"file\" and .state != \"good\")'

Exit code 0: every file is there and every piece has the torrent's hash; 1: something is wrong, \
listed per file. DIR may be a symbolic link; one inside it is followed if it is relative and leads \
to what is inside. --json prints progress lines, a line \
{\"event\":\"file\", path, length, state, pieces, pieces_bad, fault} for each file (state: good, \
bad-pieces, missing, wrong-size, unreadable or not-checked), and at the end {\"event\":\"verified\", \
good, name, info_hash_v1, pieces, pieces_good, files, files_wrong}.";

/// Arguments of `seedring verify`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct VerifyArgs {
    /// The .torrent file
    #[arg(value_name = "TORRENT")]
    torrent: PathBuf,
    /// The folder that holds the torrent's file or folder
    #[arg(short, long, value_name = "DIR")]
    directory: PathBuf,
    /// List good files too
    #[arg(long)]
    all: bool,
    /// How many threads hash [default: one on each core]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Trust the torrent: accept up to 1 GiB and a million files, as your own torrents may have
    #[arg(long)]
    own: bool,
}

#[derive(Serialize)]
struct FileLine<'a> {
    event: &'static str,
    path: Cow<'a, str>,
    length: u64,
    state: &'static str,
    pieces: u32,
    pieces_bad: u32,
    fault: Option<String>,
}

#[derive(Serialize)]
struct VerifiedLine<'a> {
    event: &'static str,
    good: bool,
    name: &'a str,
    info_hash_v1: Option<String>,
    pieces: u32,
    pieces_good: u32,
    files: usize,
    files_wrong: usize,
}

/// Runs the command.
pub fn run(global: &Global, args: &VerifyArgs) -> Result<(), Failure> {
    let metainfo = read_torrent(&args.torrent, args.own)?;
    let mut reporter = Reporter::new("hashing", global.json);
    let verified = verify(
        &metainfo,
        &args.directory,
        args.threads,
        FOREGROUND,
        &mut |progress| {
            reporter.hashing(progress);
            ControlFlow::Continue(())
        },
    );
    reporter.finish();
    let verified = verified.map_err(anyhow::Error::from)?;
    let files_wrong = files(&metainfo, &verified)
        .filter(|file| file.state.is_wrong())
        .count();
    if global.json {
        print_lines(&metainfo, &verified, files_wrong);
    } else {
        print(&text(&metainfo, &verified, args.all));
    }
    if verified.is_good() {
        return Ok(());
    }
    let mut error = format!(
        "{} of {} wrong, {} of {} bad",
        HumanCount(files_wrong as u64),
        counted(files(&metainfo, &verified).count() as u64, "file"),
        HumanCount(u64::from(verified.selected.len() - verified.pieces.len())),
        counted(u64::from(verified.selected.len()), "piece"),
    );
    if verified.files.iter().all(|file| file.stamp.is_none()) {
        let _ = write!(
            error,
            "; nothing was found: -d takes the folder that holds {:?}, not that itself",
            metainfo.name
        );
    }
    Err(anyhow!(error).into())
}

/// What was found of the torrent's files; padding is none, and nobody has it on a disk.
fn files<'a>(
    metainfo: &'a Metainfo,
    verified: &'a Verified,
) -> impl Iterator<Item = &'a FileReport> {
    let all = verified.files.iter().zip(&metainfo.files);
    all.filter(|(_, file)| !file.pad).map(|(report, _)| report)
}

/// The outcome for programs.
fn print_lines(metainfo: &Metainfo, verified: &Verified, files_wrong: usize) {
    for file in files(metainfo, verified) {
        print_json(&FileLine {
            event: "file",
            path: file.path.to_string_lossy(),
            length: file.length,
            state: state_name(&file.state),
            pieces: file.pieces,
            pieces_bad: file.pieces_bad,
            fault: match &file.state {
                FileState::Fault(fault) => Some(fault.to_string()),
                _ => None,
            },
        });
    }
    print_json(&VerifiedLine {
        event: "verified",
        good: verified.is_good(),
        name: &metainfo.name,
        info_hash_v1: metainfo.info_hash_v1.map(|hash| hash.to_string()),
        pieces: verified.pieces.piece_count(),
        pieces_good: verified.pieces.len(),
        files: files(metainfo, verified).count(),
        files_wrong,
    });
}

fn state_name(state: &FileState) -> &'static str {
    match state {
        FileState::Good => "good",
        FileState::BadPieces => "bad-pieces",
        FileState::Fault(FileFault::Missing) => "missing",
        FileState::Fault(FileFault::WrongSize { .. }) => "wrong-size",
        FileState::Fault(_) => "unreadable",
        FileState::NotChecked => "not-checked",
    }
}

/// The outcome for people: a line for each wrong file, for each file if `all`, and a last one if
/// all is good; the last one otherwise is the error.
fn text(metainfo: &Metainfo, verified: &Verified, all: bool) -> String {
    let mut text = String::new();
    for file in files(metainfo, verified).filter(|file| all || file.state.is_wrong()) {
        let _ = writeln!(
            text,
            "{:<12} {}{}",
            state_name(&file.state),
            shown(&file.path),
            details(file)
        );
    }
    if verified.is_good() {
        let _ = writeln!(
            text,
            "All good: {}, {}, {}",
            counted(files(metainfo, verified).count() as u64, "file"),
            BinaryBytes(metainfo.total_length),
            counted(u64::from(verified.pieces.len()), "piece"),
        );
    }
    text
}

/// What is wrong with a file, after its path and state.
fn details(file: &FileReport) -> String {
    let bad = || {
        format!(
            "{} of {} bad",
            file.pieces_bad,
            counted(u64::from(file.pieces), "piece")
        )
    };
    match &file.state {
        FileState::Good | FileState::NotChecked | FileState::Fault(FileFault::Missing) => {
            String::new()
        }
        FileState::BadPieces => format!(": {}", bad()),
        FileState::Fault(fault) if file.pieces_bad > 0 => format!(": {fault}; {}", bad()),
        FileState::Fault(fault) => format!(": {fault}"),
    }
}
