//! `seedring config`.

use crate::cli::Global;
use crate::failure::Failure;
use clap::Args;

/// Arguments of `seedring config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {}

/// Runs the command.
pub fn run(_global: &Global, _args: &ConfigArgs) -> Result<(), Failure> {
    Err(anyhow::anyhow!("not written yet").into())
}
