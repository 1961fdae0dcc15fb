//! `seedring serve`: the server, from a configuration.

use crate::cli::Global;
use crate::failure::Failure;
use crate::loading::Source;
use crate::server::{self, Plan};
use control::config::{Config, Environment};

/// Runs the command.
pub fn run(global: &Global) -> Result<(), Failure> {
    let environment = Environment::of_process();
    let config = Config::load(global.config.as_deref(), &environment)
        .map_err(|error| Failure::Usage(error.into()))?;
    let state_dir = global
        .state_dir
        .clone()
        .unwrap_or_else(|| config.state_dir(&environment));
    let sources = Source::named(&config);
    server::run(Plan {
        config_file: global.config.clone(),
        config,
        state_dir,
        sources,
        all_or_nothing: false,
        keeps: true,
        stdout_is_log: true,
        json: global.json,
    })
}
