//! `seedring show`.

use crate::cli::Global;
use crate::failure::Failure;
use clap::Args;

/// Arguments of `seedring show`.
#[derive(Debug, Args)]
pub struct ShowArgs {}

/// Runs the command.
pub fn run(_global: &Global, _args: &ShowArgs) -> Result<(), Failure> {
    Err(anyhow::anyhow!("not written yet").into())
}
