//! The commands that ask a running server over its API. A file for each group of them; what they
//! share is here and in [`select`], [`table`], [`text`] and [`columns`].

mod act;
mod add;
mod change;
mod columns;
mod content;
mod export;
mod inspect;
mod limits;
mod list;
mod select;
mod server;
mod table;
mod text;
mod top;
mod trackers;

use crate::cli::Global;
use crate::client::{Client, Error, ServerArgs, find};
use crate::failure::Failure;
use anyhow::{Context, anyhow};
use clap::Subcommand;
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::IsTerminal;

/// What to ask the server.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add torrents to the running server
    Add(Box<add::AddArgs>),
    /// List the server's torrents
    List(list::ListArgs),
    /// Show all that the server knows of a torrent
    Info(inspect::InfoArgs),
    /// Show a torrent's files, or choose which are wanted
    Files(content::FilesArgs),
    /// Show a torrent's peers, or name others to ask
    Peers(inspect::PeersArgs),
    /// Show a torrent's trackers, or change them
    Trackers(trackers::TrackersArgs),
    /// Pause torrents
    Pause(act::ActArgs),
    /// Resume torrents
    Resume(act::ActArgs),
    /// Remove torrents, if told so with their data
    Remove(act::RemoveArgs),
    /// Hash all data of torrents
    Recheck(act::ActArgs),
    /// Announce torrents to their trackers now
    Announce(act::ActArgs),
    /// Move the data of torrents to another folder
    Move(change::MoveArgs),
    /// Give a torrent another place in the queue
    Queue(change::QueueArgs),
    /// Limit rates, peers, ratio or seeding time of torrents, or the server's rates
    Limit(change::LimitArgs),
    /// Change the labels of torrents, or list all labels
    Label(change::LabelArgs),
    /// Put torrents into a category, or list all categories
    Category(change::CategoryArgs),
    /// Send each piece of a new torrent about once, until all are in the swarm
    SuperSeed(change::SuperSeedArgs),
    /// Give a torrent, or files of it, another name
    Rename(content::RenameArgs),
    /// Write a torrent's .torrent file
    Export(export::ExportArgs),
    /// Show what the server is doing
    Stats(server::StatsArgs),
    /// Watch the server and act, in the terminal
    Top(top::TopArgs),
}

/// Runs a command.
pub fn run(global: &Global, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Add(args) => add::run(global, args),
        Command::List(args) => list::run(global, args),
        Command::Info(args) => inspect::info(global, args),
        Command::Files(args) => content::files(global, args),
        Command::Peers(args) => inspect::peers(global, args),
        Command::Trackers(args) => trackers::run(global, args),
        Command::Pause(args) => act::run(global, args, &act::PAUSE),
        Command::Resume(args) => act::run(global, args, &act::RESUME),
        Command::Remove(args) => act::remove(global, args),
        Command::Recheck(args) => act::run(global, args, &act::RECHECK),
        Command::Announce(args) => act::run(global, args, &act::ANNOUNCE),
        Command::Move(args) => change::move_data(global, args),
        Command::Queue(args) => change::queue(global, args),
        Command::Limit(args) => change::limit(global, args),
        Command::Label(args) => change::label(global, args),
        Command::Category(args) => change::category(global, args),
        Command::SuperSeed(args) => change::super_seed(global, args),
        Command::Rename(args) => content::rename(global, args),
        Command::Export(args) => export::run(global, args),
        Command::Stats(args) => server::stats(global, args),
        Command::Top(args) => top::run(global, args),
    }
}

/// A server that is asked one thing after another.
struct Remote {
    runtime: tokio::runtime::Runtime,
    client: Client,
    /// Whether results are for programs.
    json: bool,
}

impl Remote {
    /// The server that the command line means.
    fn new(global: &Global, server: &ServerArgs) -> Result<Remote, Failure> {
        let client = find(global, server)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        Ok(Remote {
            runtime,
            client,
            json: global.json,
        })
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.runtime.block_on(self.client.get(path))
    }

    /// The bytes of an answer that is no JSON.
    fn bytes(&self, path: &str) -> Result<Vec<u8>, Error> {
        let asked = self.client.ask::<()>(Method::GET, path, None);
        self.runtime.block_on(asked)
    }

    /// Sends what has no answer that matters.
    fn send<B: Serialize>(&self, method: Method, path: &str, body: &B) -> Result<(), Error> {
        let asked = self.client.ask(method, path, Some(body));
        self.runtime.block_on(asked).map(drop)
    }

    fn send_for<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &B,
    ) -> Result<T, Error> {
        self.runtime.block_on(self.client.send(method, path, body))
    }
}

/// What became of something that was done to several things.
#[derive(Default)]
struct Outcome {
    done: usize,
    /// Which it was not done to, and why.
    failed: Vec<Failed>,
    /// To how many more it was not done: the API names the first thousand.
    failed_more: usize,
}

/// Something to which something was not done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Failed {
    /// What the user calls it.
    name: String,
    /// Its info-hash, if it has been found.
    #[serde(skip_serializing_if = "Option::is_none")]
    info_hash: Option<String>,
    /// Why.
    reason: String,
}

impl Outcome {
    /// Names each failure on stderr; it is a failure of the command if there is any.
    fn conclude(self, undone: &str) -> Result<(), Failure> {
        let failures = self.failed.len() + self.failed_more;
        match (self.failed.as_slice(), self.done) {
            ([], _) => return Ok(()),
            ([only], 0) => return Err(anyhow!("{}: {}", only.name, only.reason).into()),
            _ => {}
        }
        for failed in &self.failed {
            eprintln!("seedring: {}: {}", failed.name, failed.reason);
        }
        if self.failed_more > 0 {
            eprintln!("seedring: and {} more", self.failed_more);
        }
        let all = failures + self.done;
        Err(anyhow!("{failures} of {all} {undone}").into())
    }
}

/// The columns of the terminal that takes what is printed, if one does.
fn terminal_columns() -> Option<usize> {
    if !std::io::stdout().is_terminal() {
        return None;
    }
    let (columns, _) = ratatui::crossterm::terminal::size().ok()?;
    (columns > 0).then_some(usize::from(columns))
}

/// A path of the user's, which the server knows by its absolute name.
fn absolute(path: &std::path::Path) -> Result<String, Failure> {
    let path = std::path::absolute(path)
        .with_context(|| format!("cannot tell where {} is", path.display()))?;
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| {
        let why = anyhow!("{}: its name is no UTF-8, as the API's are", path.display());
        Failure::Usage(why)
    })
}

#[cfg(test)]
mod tests;
