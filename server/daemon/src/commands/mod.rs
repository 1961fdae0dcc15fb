//! One file per command: each turns its arguments into calls of the layers below and prints the result.

pub mod completions;
pub mod config;
pub mod create;
pub mod get;
pub mod hash_password;
pub mod import;
pub mod remote;
pub mod seed;
pub mod serve;
pub mod show;
pub mod state;
pub mod verify;

use crate::cli::{Cli, Command};
use crate::failure::Failure;

/// Runs the command that the user named.
pub fn run(cli: Cli) -> Result<(), Failure> {
    let global = cli.global;
    match cli.command {
        Command::Seed(args) => seed::run(&global, &args),
        Command::Get(args) => get::run(&global, &args),
        Command::Serve => serve::run(&global),
        Command::Create(args) => create::run(&global, &args),
        Command::Show(args) => show::run(&global, &args),
        Command::Verify(args) => verify::run(&global, &args),
        Command::Config(args) => config::run(&global, &args),
        Command::HashPassword(args) => hash_password::run(&global, &args),
        Command::State(args) => state::run(&global, &args),
        Command::Import(args) => import::run(&global, &args),
        Command::Remote(command) => remote::run(&global, &command),
        Command::Completions(args) => completions::run(&args),
        Command::Man => completions::man(),
    }
}
