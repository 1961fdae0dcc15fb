//! The command line: every command, option and help text. What a command does is in [`crate::commands`].

use clap::error::{ContextKind, ContextValue};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// A Linux-only BitTorrent seedbox server on io_uring.
#[derive(Debug, Parser)]
#[command(name = "seedring", version = env!("SEEDRING_VERSION"), propagate_version = true)]
pub struct Cli {
    /// Options that every command takes.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Reads the command line of this process. Ends it where that is wrong, with a message that shows no password.
    pub fn of_process() -> Cli {
        Cli::try_parse().unwrap_or_else(|error| without_secrets(error).exit())
    }
}

/// The error with no more of a wrong URL than its scheme: passwords and passkeys stand behind that.
fn without_secrets(mut error: clap::Error) -> clap::Error {
    if let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue)
        && (value.contains("://") || value.contains('@'))
    {
        let scheme = value.split_once("://").map(|(scheme, _)| scheme);
        let shown = scheme.map_or_else(|| "…".to_owned(), |scheme| format!("{scheme}://…"));
        error.insert(ContextKind::InvalidValue, ContextValue::String(shown));
    }
    error
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
    /// Download one torrent
    Get(crate::commands::get::GetArgs),
    /// Run the server from a configuration
    #[command(after_help = SERVE_EXAMPLES)]
    Serve,
    /// Make a .torrent file
    Create(crate::commands::create::CreateArgs),
    /// Show what is in a .torrent file or a magnet link
    Show(crate::commands::show::ShowArgs),
    /// Hash the data on disk and compare it with a torrent
    Verify(crate::commands::verify::VerifyArgs),
    /// Print the reference configuration, or check a file
    Config(crate::commands::config::ConfigArgs),
    /// Make a line for api.users of a password
    HashPassword(crate::commands::hash_password::HashPasswordArgs),
    /// Check, back up or restore the state store
    State(crate::commands::state::StateArgs),
    /// Take over the torrents of qBittorrent, Transmission or rTorrent
    Import(crate::commands::import::ImportArgs),
    #[command(flatten)]
    Remote(crate::commands::remote::Command),
    /// Print a shell's completion script
    Completions(crate::commands::completions::CompletionsArgs),
    /// Print the man page (roff)
    Man,
}

/// Arguments of `seedring seed`.
#[derive(Debug, Args)]
#[command(
    group = clap::ArgGroup::new("what").args(["paths", "torrent"]).required(true).multiple(false),
    after_help = SEED_EXAMPLES
)]
pub struct SeedArgs {
    /// Files or folders to seed; the torrent of each is made, or used again when nothing has changed
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Seed the data of an existing torrent instead; with --data-dir
    #[arg(long, value_name = "FILE", requires = "data_dir")]
    pub torrent: Option<PathBuf>,
    /// Where the data of --torrent are: the folder that holds its file or folder
    #[arg(long, short = 'd', value_name = "DIR", requires = "torrent")]
    pub data_dir: Option<PathBuf>,
    /// Port for peers, 0 for any [default: 6890, or peers.port of the configuration]
    #[arg(long, value_name = "N")]
    pub port: Option<u16>,
    /// Address of the API and /metrics, port 0 for any [default: 127.0.0.1:8690]
    #[arg(long, value_name = "ADDR:PORT")]
    pub api: Option<String>,
    /// Port of our own tracker, 0 for any [default: 6969]
    #[arg(long, value_name = "N")]
    pub tracker_port: Option<u16>,
    /// Announce to this tracker too, before those of --torrent; several of one tier with commas between (repeatable: each is a tier)
    #[arg(long, value_name = "URL[,URL…]", value_parser = crate::commands::create::parse_tier)]
    pub tracker: Vec<crate::commands::create::Tier>,
    /// Start no tracker of our own
    #[arg(long)]
    pub no_tracker: bool,
    /// Take no part in the DHT: found by trackers only
    #[arg(long)]
    pub no_dht: bool,
    /// Host name or address by which others reach our tracker [default: this machine's address]
    #[arg(long, value_name = "HOST")]
    pub announce_host: Option<control::config::HostName>,
    /// Shards: threads that serve peers [default: one per core]
    #[arg(long, value_name = "N")]
    pub shards: Option<u16>,
    /// Piece size of torrents made now, such as 256K or 1M [default: by total size]
    #[arg(long, value_name = "SIZE")]
    pub piece_size: Option<String>,
    /// Make private torrents (no DHT, no peer exchange; BEP 27)
    #[arg(long)]
    pub private: bool,
}

const SERVE_EXAMPLES: &str = "\
Examples:
  seedring serve                                 from /etc/seedring/seedring.toml or the user's configuration
  seedring serve --config my.toml --json         another file; the ready line as JSON
  SEEDRING_PEERS__PORT=7000 seedring serve       one key from the environment
  seedring config check my.toml                  check a file first";

const SEED_EXAMPLES: &str = "\
Examples:
  seedring seed ~/videos                         seed a folder; prints its magnet link
  seedring seed a.iso b.iso --port 0             two torrents, any port
  seedring seed --torrent x.torrent -d /data     seed what a torrent describes
  seedring seed . --tracker http://tracker.example/announce --no-tracker";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_url_is_not_shown_with_its_password() {
        for url in [
            "ftp://me:secret@host/x",
            "http:// me:secret@host",
            "me:secret@host",
        ] {
            let line = ["seedring", "get", "x.torrent", "-d", ".", "--tracker", url];
            let error = Cli::try_parse_from(line).unwrap_err();
            let text = without_secrets(error).to_string();
            assert!(!text.contains("secret"), "{text}");
            assert!(text.contains("--tracker"), "{text}");
        }
    }
}
