//! `seedring verify`.

use crate::cli::Global;
use crate::failure::Failure;
use clap::Args;

/// Arguments of `seedring verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {}

/// Runs the command.
pub fn run(_global: &Global, _args: &VerifyArgs) -> Result<(), Failure> {
    Err(anyhow::anyhow!("not written yet").into())
}
