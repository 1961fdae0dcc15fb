//! `seedring seed`.

use crate::cli::{Global, SeedArgs};
use crate::failure::Failure;

/// Runs the command.
pub fn run(_global: &Global, _args: &SeedArgs) -> Result<(), Failure> {
    Err(anyhow::anyhow!("not written yet").into())
}
