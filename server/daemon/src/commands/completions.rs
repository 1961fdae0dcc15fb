//! `seedring completions` and `seedring man`.

use crate::failure::Failure;
use clap::Args;

/// Arguments of `seedring completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {}

/// Prints the completion script of a shell.
pub fn run(_args: &CompletionsArgs) -> Result<(), Failure> {
    Err(anyhow::anyhow!("not written yet").into())
}

/// Prints the man page.
pub fn man() -> Result<(), Failure> {
    Err(anyhow::anyhow!("not written yet").into())
}
