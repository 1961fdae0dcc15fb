//! The command line: every command, option and help text. What a command does is in [`crate::commands`].

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// A Linux-only BitTorrent seedbox server on io_uring.
#[derive(Debug, Parser)]
#[command(name = "seedring", version, propagate_version = true)]
pub struct Cli {
    /// Options that every command takes.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Debug, Args)]
pub struct Global {
    /// Configuration file [default: /etc/seedring/seedring.toml, else the user's configuration folder]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where torrents and state are kept [default: /var/lib/seedring for root, else the user's state folder]
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Print machine-readable JSON on stdout
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Seed files or folders now
    Seed(SeedArgs),
    /// Run the server from a configuration
    Serve,
    /// Make a .torrent file
    Create(crate::commands::create::CreateArgs),
    /// Show what is in a .torrent file or a magnet link
    Show(crate::commands::show::ShowArgs),
    /// Hash the data on disk and compare it with a torrent
    Verify(crate::commands::verify::VerifyArgs),
    /// Print the reference configuration, or check a file
    Config(crate::commands::config::ConfigArgs),
    /// Print a shell's completion script
    Completions(crate::commands::completions::CompletionsArgs),
    /// Print the man page (roff)
    Man,
}

/// Arguments of `seedring seed`.
#[derive(Debug, Args)]
pub struct SeedArgs {
    /// Files or folders to seed
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
}
