//! `seedring-bench`: loads a BitTorrent seed, ours or another, and measures it from outside; and
//! compares programs that hash, create, hold and download torrents.
//!
//! This file is the command line: it parses, hands on, and chooses the exit code (0 measured, 1 not
//! measured or wrong bytes, 2 usage). Linux only, because it reads /proc and waits on epoll.
#![forbid(unsafe_code)]
// They panic when their reader has gone; see `console`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod commands;
mod console;
mod harness;
mod load;
mod measure;
mod quiet;
mod report;
mod rivals;
mod torrent;
mod units;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands::create::CreateArguments;
use crate::commands::get::GetArguments;
use crate::commands::hash::HashArguments;
use crate::commands::rivals::RivalsArguments;
use crate::commands::seed::SeedArguments;
use crate::commands::torrents::TorrentsArguments;
use crate::commands::tracker::TrackerArguments;
use crate::harness::usage::Usage;

/// The version of this program, with the commit that it was built from where it is known.
pub const VERSION: &str = env!("SEEDRING_VERSION");

/// Measures BitTorrent seeds.
#[derive(Parser)]
#[command(name = "seedring-bench", version = VERSION, about)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Load a seed with N leechers and measure throughput, latency, CPU and memory.
    Seed(Box<SeedArguments>),
    /// Compare seeds: start what is installed, load each in interleaved rounds, report.
    Rivals(Box<RivalsArguments>),
    /// Hash pieces in memory by our kernels and libraries, or check data on disk by several
    /// programs.
    Hash(Box<HashArguments>),
    /// Make the torrent of a file by several programs: time, CPU, memory.
    Create(Box<CreateArguments>),
    /// Restart servers that have many torrents: how soon they serve, memory, idle CPU.
    Torrents(Box<TorrentsArguments>),
    /// Announce to trackers over UDP: announces a second, CPU for each.
    Tracker(Box<TrackerArguments>),
    /// Download a torrent from one fast seed by several programs: time, CPU, memory.
    Get(Box<GetArguments>),
}

fn main() -> ExitCode {
    let result = match CommandLine::parse().command {
        Command::Seed(arguments) => commands::seed::run(&arguments),
        Command::Rivals(arguments) => commands::rivals::run(&arguments),
        Command::Hash(arguments) => commands::hash::run(&arguments),
        Command::Create(arguments) => commands::create::run(&arguments),
        Command::Torrents(arguments) => commands::torrents::run(&arguments),
        Command::Tracker(arguments) => commands::tracker::run(&arguments),
        Command::Get(arguments) => commands::get::run(&arguments),
    };
    result.unwrap_or_else(|error| {
        console::tell(format_args!(
            "seedring-bench: {}",
            commands::describe(&error)
        ));
        match error.downcast_ref::<Usage>() {
            Some(_) => ExitCode::from(2),
            None => ExitCode::FAILURE,
        }
    })
}
