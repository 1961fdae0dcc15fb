//! `seedring serve`.

use crate::cli::Global;
use crate::failure::Failure;

/// Runs the command.
pub fn run(_global: &Global) -> Result<(), Failure> {
    Err(anyhow::anyhow!("not written yet").into())
}
