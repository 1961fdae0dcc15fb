//! The `seedring` binary: composition of the layers and the command line, nothing else.
#![forbid(unsafe_code)]

mod automation;
mod budget;
mod cli;
mod client;
mod commands;
mod control_plane;
mod dht;
mod disk;
mod failure;
mod getting;
mod keeping;
mod loading;
mod named;
mod progress;
mod reload;
mod server;
mod settings;
mod signals;
mod telling;
mod torrents;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cli::Cli::of_process();
    match commands::run(cli) {
        Ok(()) if progress::output_lost() => ExitCode::FAILURE,
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
