//! `seedring-bench hash`: how fast pieces are hashed, in memory by kernels and libraries, and on
//! disk by programs.

mod check;
mod kernels;

use std::process::ExitCode;

use clap::{Args, Subcommand};

/// See the head of this file.
#[derive(Debug, Args)]
pub struct HashArguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// SHA-1 of pieces in memory, on one core: our kernels beside libraries.
    Kernels(kernels::KernelsArguments),
    /// A full check of a torrent's data: seedring verify beside other programs.
    Check(Box<check::CheckArguments>),
}

pub fn run(arguments: &HashArguments) -> anyhow::Result<ExitCode> {
    match &arguments.what {
        What::Kernels(arguments) => kernels::run(arguments),
        What::Check(arguments) => check::run(arguments),
    }
}
