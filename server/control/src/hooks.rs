//! Programs that are run and URLs that are posted to when something happens to a torrent.
//!
//! Whoever keeps the torrents makes a [`Notice`] of what happens, writes it into the store with the
//! change itself, in one transaction, and hands it over when that is durable. It is forgotten when
//! all hooks that it is for have ended with it: so each is told *at least once*, also after a
//! crash. A notice that was read back at [`STARTS_MAX`] starts is given up: its hook may be what
//! ends the server.
//!
//! Of one torrent a hook is told one event after another, in their order; of different torrents so
//! many at a time as its `concurrency` says. Hooks do not wait for each other, and nobody waits for
//! a hook.
//!
//! Limits: [`WAITING_MAX`] and [`WAITING_BYTES_MAX`] events wait for a hook, beyond which the new
//! one is dropped for it, counted and logged; [`KEPT_MAX`] are in the store, others in memory
//! alone. Texts are cut to [`TEXT_BYTES_MAX`]. Does not: use a shell, or know what a torrent is.

mod argument;
mod chains;
mod event;
mod outbox;
mod program;
mod running;
mod webhook;

pub use argument::Argument;
pub use event::{Happened, HookEvent, Subject};
pub use outbox::Notice;
pub use running::Hooks;

use crate::announce::AnnounceError;
use reqwest::Url;
use std::path::PathBuf;
use std::time::Duration;

/// Events that wait for one hook.
pub const WAITING_MAX: usize = 8192;

/// Memory of the events that wait for one hook, in bytes.
pub const WAITING_BYTES_MAX: usize = 8 << 20;

/// Events that are kept over a restart: the store has room for so many, and for other things.
pub const KEPT_MAX: usize = 1024;

/// Starts of the server at which an event is read back.
pub const STARTS_MAX: u32 = 3;

/// The longest text of an event, in bytes; of labels, of all together.
pub const TEXT_BYTES_MAX: usize = 4096;

/// Descriptors that a hook takes while it is told something: its output by two pipes, the process
/// itself, and what it takes to start it.
pub const DESCRIPTORS: u64 = 8;

/// What is told of which torrents to whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hook {
    /// What it is told.
    pub on: Vec<HookEvent>,
    /// Only of torrents in one of these categories; none is any.
    pub categories: Vec<String>,
    /// Only of torrents with one of these labels; none is any.
    pub labels: Vec<String>,
    /// Whom.
    pub target: Target,
    /// How long a program may run, or an attempt to post take.
    pub timeout: Duration,
    /// Torrents at a time.
    pub concurrency: usize,
}

/// Who is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// A program with its arguments.
    Run(Vec<Argument>),
    /// A web server.
    Post(Webhook),
}

/// Where events are posted to. What of it may be secret is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Webhook {
    /// The URL.
    pub url: Url,
    /// By which what is posted is signed.
    pub secret: Option<Vec<u8>>,
    /// Sent in `Authorization`.
    pub token: Option<String>,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Webhook({:?})", self.url.host_str())
    }
}

/// Why hooks cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// A file with a secret cannot be used.
    #[error("{path:?}: {why}; it is to hold one line, of at most 4096 bytes")]
    Secret {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// An authority is none.
    #[error(transparent)]
    Authority(#[from] AnnounceError),
    /// The HTTP client cannot be built.
    #[error("cannot set up the HTTP client for webhooks: {0}")]
    Client(String),
}

impl Hook {
    /// What the log calls it: its program, or the host that is posted to.
    fn name(&self) -> String {
        match &self.target {
            Target::Run(arguments) => {
                let program = arguments.first().map_or("", Argument::as_written);
                program.escape_debug().to_string()
            }
            Target::Post(webhook) => webhook.url.host_str().unwrap_or_default().to_owned(),
        }
    }

    /// Whether it is told of this.
    fn takes(&self, happened: &Happened) -> bool {
        let Subject {
            category, labels, ..
        } = &happened.torrent;
        let in_category = |named: &String| category.as_ref() == Some(named);
        self.on.contains(&happened.event)
            && (self.categories.is_empty() || self.categories.iter().any(in_category))
            && (self.labels.is_empty() || self.labels.iter().any(|label| labels.contains(label)))
    }
}
