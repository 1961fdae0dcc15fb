//! The configuration: what it may say, how it is read, and the reference file made from it.
//!
//! A TOML file, each key of which an environment variable `SEEDRING_SECTION__KEY` overrides. Keys
//! are declared in `config/keys.rs`; their doc comments are the reference file's.
//!
//! Limits: a file of 16 MiB. Every problem is reported with file, line, column and key, before
//! anything is started; a command exits with code 2.
//!
//! A running server may read it again; each key says whether it is `live` or `fixed` then
//! ([`Config::renew`]).
//!
//! Does not: watch the file, or create folders.

mod access;
mod conflicts;
mod environment;
mod error;
mod hosts;
mod kernel;
mod keys;
mod lists;
mod load;
mod reference;
mod rules;
mod setting;
mod table;
mod units;

#[cfg(test)]
mod tests;

pub use access::{ApiSocket, ApiUser, ApiUsers};
pub use environment::Environment;
pub(crate) use error::escape;
pub use error::{ConfigError, Place, Problem};
pub use hosts::{HostError, HostName, ProxyUrl};
pub use keys::{
    Allocation, Announce, Api, ApiAuth, AtLimit, ChokerPolicy, Dht, Fetch, LeechPolicy, Library,
    Limits, Log, LogFormat, LogLevel, Lsd, PastCache, Peers, RegisteredBuffers, SendPath, Shards,
    State, Storage, Tracker, Verify,
};
pub use lists::{After, HookEntry, WatchEntry};
pub use reference::reference;
pub use rules::{CategoryPath, Moment, NamedLimits, NoRule, RuleLimits, ScheduledLimits};
pub use setting::{Interface, Interfaces, Nodes};
pub use table::{Change, Reload};
pub use units::{ByteRate, ByteSize, Seconds, parse_rate, parse_ratio, parse_time};

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use table::Section;

/// Declares the configuration's sections in the order of the reference file.
macro_rules! sections {
    ($($(#[$meta:meta])* $name:ident: $Section:ident,)+) => {
        /// The configuration; [`Config::default`] is what an empty file means.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Config {
            $($(#[$meta])* pub $name: $Section,)+
            /// Torrents to seed, `[[torrent]]`.
            pub torrents: Vec<TorrentEntry>,
            /// Files and folders to seed, `[[seed]]`.
            pub seeds: Vec<SeedEntry>,
            /// Folders to watch, `[[watch]]`.
            pub watches: Vec<WatchEntry>,
            /// What is told of torrents, `[[hook]]`.
            pub hooks: Vec<HookEntry>,
            /// The file that was read, if there was one.
            pub file: Option<PathBuf>,
        }

        impl Config {
            /// The names of the sections.
            pub(crate) const SECTIONS: &'static [&'static str] = &[$(stringify!($name)),+];

            /// A section by its name.
            pub(crate) fn section(&self, name: &str) -> Option<&dyn Section> {
                match name {
                    $(stringify!($name) => Some(&self.$name),)+
                    _ => None,
                }
            }

            /// A section by its name, to set its keys.
            pub(crate) fn section_mut(&mut self, name: &str) -> Option<&mut dyn Section> {
                match name {
                    $(stringify!($name) => Some(&mut self.$name),)+
                    _ => None,
                }
            }

            /// Takes from `new` what a running server can change: the keys that are live, the lists
            /// of torrents, of what is seeded, of watch folders and hooks, and which file it was. Answers with every key that
            /// is another there, also those that stay as they are until the next start.
            pub fn renew(&mut self, new: &Config) -> Vec<Change> {
                let mut changes = Vec::new();
                $(self.$name.renew(&new.$name, stringify!($name), &mut changes);)+
                self.torrents.clone_from(&new.torrents);
                self.seeds.clone_from(&new.seeds);
                self.watches.clone_from(&new.watches);
                self.hooks.clone_from(&new.hooks);
                self.file.clone_from(&new.file);
                changes
            }
        }
    };
}

sections! {
    /// `[peers]`
    peers: Peers,
    /// `[shards]`
    shards: Shards,
    /// `[storage]`
    storage: Storage,
    /// `[limits]`
    limits: Limits,
    /// `[fetch]`
    fetch: Fetch,
    /// `[api]`
    api: Api,
    /// `[tracker]`
    tracker: Tracker,
    /// `[announce]`
    announce: Announce,
    /// `[dht]`
    dht: Dht,
    /// `[lsd]`
    lsd: Lsd,
    /// `[library]`
    library: Library,
    /// `[log]`
    log: Log,
    /// `[state]`
    state: State,
}

/// A torrent and its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TorrentEntry {
    /// The .torrent file; it existed when the configuration was read.
    pub torrent: PathBuf,
    /// The folder that holds the data; it existed when the configuration was read.
    pub data: PathBuf,
}

/// A file or folder to seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedEntry {
    /// The file or folder; it existed when the configuration was read.
    pub path: PathBuf,
}

impl Config {
    /// Reads the configuration: the explicit file, else the system's, else the user's, else the
    /// defaults; then the environment's overrides.
    ///
    /// # Errors
    ///
    /// All problems at once, when the file cannot be read or says something that is not allowed.
    pub fn load(explicit: Option<&Path>, environment: &Environment) -> Result<Config, ConfigError> {
        load::load(explicit, environment)
    }

    /// What keeps the tracker from listening, with the key: for who turns it on after the
    /// configuration was read, which is checked for it as it was.
    pub fn tracker_problem(&self) -> Option<String> {
        let found = conflicts::of_tracker(&self.tracker);
        let (key, message) = found.or_else(|| conflicts::of_datagrams(self))?;
        Some(format!("{key}: {message}"))
    }

    /// Where the DHT listens, and sends from: as the trackers are asked, if that is bound to an
    /// address, else where peers come to. The addresses by which trackers are asked are not those of
    /// an interface that peers are met by.
    pub fn dht_addresses(&self) -> Vec<IpAddr> {
        let (peers, announce) = (&self.peers, &self.announce);
        let is_bound = announce.bind_v4.is_some() || announce.bind_v6.is_some();
        let (mut v4, mut v6) = (peers.bind_v4, peers.bind_v6);
        if is_bound && peers.bind_interface.name().is_none() {
            v4 = v4.and(announce.bind_v4);
            v6 = v6.and(announce.bind_v6);
        }
        let both = [v4.map(IpAddr::from), v6.map(IpAddr::from)];
        both.into_iter().flatten().collect()
    }

    /// The folder of the state: `state.dir`, else the default of this environment.
    pub fn state_dir(&self, environment: &Environment) -> PathBuf {
        self.state
            .dir
            .clone()
            .unwrap_or_else(|| environment.state_dir_default())
    }
}
