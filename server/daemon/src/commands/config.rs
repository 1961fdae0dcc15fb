//! `seedring config`: prints the reference configuration, or checks a file.

use crate::cli::Global;
use crate::failure::Failure;
use clap::{Args, Subcommand};
use control::config::{Config, Environment};
use std::path::PathBuf;

/// Arguments of `seedring config`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  seedring config > seedring.toml      start a configuration of your own
  seedring config check seedring.toml  check it, without starting anything")]
pub struct ConfigArgs {
    /// What to do [default: print the reference configuration]
    #[command(subcommand)]
    action: Option<Action>,
}

/// What to do with a configuration.
#[derive(Debug, Subcommand)]
enum Action {
    /// Check a file and the environment's overrides: prints ok, or every error with file and line
    Check {
        /// The file [default: the one that the server would read]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

/// Runs the command.
pub fn run(global: &Global, args: &ConfigArgs) -> Result<(), Failure> {
    let text = match &args.action {
        None => control::config::reference(),
        Some(Action::Check { file }) => {
            let file = file.as_deref().or(global.config.as_deref());
            let config = Config::load(file, &Environment::of_process())
                .map_err(|error| Failure::Usage(error.into()))?;
            match (&config.file, global.json) {
                (file, true) => {
                    let file = file.as_ref().map(|file| file.to_string_lossy());
                    format!("{}\n", serde_json::json!({ "ok": true, "file": file }))
                }
                (Some(file), false) => format!("ok: {}\n", file.display()),
                (None, false) => "ok: no file, the defaults\n".to_owned(),
            }
        }
    };
    super::completions::print(text.as_bytes())
}
