//! Seeds beside each other: starts what is installed, loads each in turn, compares.
//!
//! * one file per program (`seedring`, `libtorrent`, ...): how it is configured and started; each
//!   with the settings that its own documentation has for seeding fast.
//! * [`data`]: the content, its torrent, and whether it is in the page cache.
//! * [`started`]: a server of one run.
//! * [`system`]: what is set, and facts of the machine. Programs are started and ended, and all is
//!   undone for certain, by [`crate::harness`].
//! * [`run`]: the interleaved rounds; [`beside`]: those with two torrents. [`figures`], [`report`],
//!   [`plot`]: what came of them; [`remarks`], [`markdown`]: how that is told.
//!
//! It measures on one machine over loopback; it does not judge how a program finds or picks peers.

pub mod aria2;
pub mod beside;
pub mod data;
pub mod figures;
pub mod fio;
pub mod libtorrent;
pub mod markdown;
pub mod nginx;
pub mod plot;
pub mod qbittorrent;
pub mod remarks;
pub mod report;
pub mod rqbit;
pub mod rtorrent;
pub mod run;
pub mod seedring;
pub mod started;
pub mod statistics;
pub mod system;
pub mod transmission;

use std::path::Path;

use serde::Serialize;

use self::data::DataSet;
use crate::harness::children::Program;

/// Peers and slots that a rival is told to allow: more than any run has.
pub const PEERS_MAX: usize = 10_000;

/// How a server is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// The BitTorrent peer protocol.
    Peer,
    /// HTTP ranges: no seed, but the floor.
    Http,
    /// Not at all: it reads the content by itself, the floor of cold runs, and in no others.
    Disk,
}

/// What a server is started with.
pub struct Place<'a> {
    /// What it serves.
    pub data: &'a DataSet,
    /// What it serves besides; ours alone are given any.
    pub beside: Option<&'a DataSet>,
    /// Where it must listen, on 127.0.0.1.
    pub port: u16,
    /// A second free port, for a control interface that cannot be turned off.
    pub control_port: u16,
    /// An empty directory of this run; absolute.
    pub work: &'a Path,
    /// A directory that this server keeps from run to run; absolute.
    pub home: &'a Path,
    /// Cores that it is pinned to.
    pub cores: usize,
    /// How many peers will come.
    pub peers: usize,
    /// The load before the window, in ns.
    pub warmup_ns: u64,
    /// The window, in ns.
    pub window_ns: u64,
}

/// A program that serves the content.
pub trait Rival {
    /// Its name in tables; unique in a run.
    fn name(&self) -> &str;

    /// Its settings in one line, for the report.
    fn settings(&self) -> String;

    /// What is not installed, and how to get it; none if everything is there.
    fn missing(&self) -> Option<String>;

    /// How the program calls itself.
    fn version(&self) -> String;

    /// The command line; files that it needs are written into `place.work`.
    fn program(&self, place: &Place<'_>) -> anyhow::Result<Program>;

    /// How it is loaded.
    fn protocol(&self) -> Protocol {
        Protocol::Peer
    }

    /// Whether the others are compared with it.
    fn is_ours(&self) -> bool {
        false
    }

    /// Whether it has child processes that only it can stop: then SIGTERM, not SIGKILL, is what it
    /// gets should this process die.
    fn has_children(&self) -> bool {
        false
    }
}

/// Every rival that is known, in the order of the tables.
pub fn all(libtorrent_python: &Path) -> Vec<Box<dyn Rival>> {
    vec![
        Box::new(rtorrent::Rtorrent),
        Box::new(libtorrent::Libtorrent::new(libtorrent_python)),
        Box::new(qbittorrent::Qbittorrent),
        Box::new(transmission::Transmission),
        Box::new(aria2::Aria2),
        Box::new(rqbit::Rqbit),
        Box::new(nginx::Nginx),
        Box::new(fio::Fio),
    ]
}

/// Why `program` cannot be started; none if it is in the path.
fn missing_program(program: &str, how: &str) -> Option<String> {
    let found = Program::new(program).is_installed();
    (!found).then(|| format!("{program} is not installed ({how})"))
}

/// The first line of what a program prints that has a digit in it.
fn version_line(program: &Program) -> String {
    let text = program.output().unwrap_or_default();
    let line = text
        .lines()
        .find(|line| line.contains(|c: char| c.is_ascii_digit()));
    line.map_or("unknown", str::trim).to_owned()
}
