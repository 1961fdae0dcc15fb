//! `seedring create`.

use crate::cli::Global;
use crate::failure::Failure;
use clap::Args;

/// Arguments of `seedring create`.
#[derive(Debug, Args)]
pub struct CreateArgs {}

/// Runs the command.
pub fn run(_global: &Global, _args: &CreateArgs) -> Result<(), Failure> {
    Err(anyhow::anyhow!("not written yet").into())
}
