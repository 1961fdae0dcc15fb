//! A server of one run: started in a folder of its own, waited for until it serves everything, and
//! gone with its folder when it is dropped.
//!
//! A seed that still checks its data answers with a bitfield of fewer pieces, or not at all;
//! measured then, it would look slow.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};

use super::data::DataSet;
use super::run::Settings;
use super::{Place, Protocol, Rival, system};
use crate::harness::children::Running;
use crate::harness::folder::Folder;
use crate::harness::probe::serves_everything;
use crate::load::shared::LoadError;
use crate::torrent::Torrent;

/// How long a server may check its data before it serves them.
const READY: Duration = Duration::from_secs(180);

/// How often it is asked.
const POLL: Duration = Duration::from_millis(200);

/// How long a web server may take to accept.
const ANSWER: Duration = Duration::from_secs(2);

/// Who asks: 127.0.1.0, which no peer of the load connects from.
const ASKER: u8 = 0;

/// Folders that servers keep from run to run, one for each; removed when this is dropped.
pub struct Homes {
    paths: Vec<PathBuf>,
    _folder: Folder,
}

impl Homes {
    /// Of `count` servers.
    pub fn new(count: usize) -> anyhow::Result<Self> {
        let folder = Folder::new("seedring-bench-homes-", None)?;
        let path = |at| folder.path().join(format!("home-{at}"));
        let paths: Vec<PathBuf> = (0..count).map(path).collect();
        for home in &paths {
            std::fs::create_dir(home)
                .with_context(|| format!("cannot make the directory {}", home.display()))?;
        }
        Ok(Self {
            paths,
            _folder: folder,
        })
    }

    /// That of the server `at`, which is below their count.
    pub fn of(&self, at: usize) -> &Path {
        &self.paths[at]
    }
}

/// What a server is started for.
pub struct Wanted<'a> {
    /// What it serves.
    pub data: &'a DataSet,
    /// What it serves besides.
    pub beside: Option<&'a DataSet>,
    /// The folder that it keeps.
    pub home: &'a Path,
    /// How many peers will come.
    pub peers: usize,
    /// How it is loaded.
    pub settings: &'a Settings,
}

/// See the head of this file.
pub struct Started {
    /// The process; ended before its folder is removed: fields are dropped in this order.
    pub process: Running,
    /// Where it listens, or will.
    pub address: SocketAddr,
    _work: Folder,
}

impl Started {
    /// Starts `rival`.
    pub fn new(rival: &dyn Rival, wanted: &Wanted<'_>) -> anyhow::Result<Self> {
        let settings = wanted.settings;
        let work = Folder::new(&format!("seedring-bench-{}-", rival.name()), None)?;
        let (port, control_port) = system::free_ports()?;
        let program = rival.program(&Place {
            data: wanted.data,
            beside: wanted.beside,
            port,
            control_port,
            work: work.path(),
            home: wanted.home,
            cores: settings.server_cores.len().max(1),
            peers: wanted.peers,
            warmup_ns: settings.warmup_ns,
            window_ns: settings.window_ns,
        })?;
        let program = program
            .in_directory(work.path())
            .on_cores(&settings.server_cores);
        let program = match rival.has_children() {
            true => program.gently(),
            false => program,
        };
        Ok(Self {
            process: program.start(&work.path().join("log"))?,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            _work: work,
        })
    }

    /// Returns when it serves all of `torrent`: a seed answers a handshake with a whole bitfield, a
    /// web server accepts connections.
    pub fn wait_until_ready(
        &mut self,
        protocol: Protocol,
        torrent: &Torrent,
    ) -> anyhow::Result<()> {
        let (info_hash, pieces) = (torrent.info_hash, torrent.geometry.piece_count);
        let until = Instant::now() + READY;
        loop {
            let serves = match protocol {
                Protocol::Peer => serves_everything(self.address, ASKER, info_hash, pieces),
                Protocol::Http | Protocol::Disk => {
                    TcpStream::connect_timeout(&self.address, ANSWER).is_ok()
                }
            };
            self.process.check().context("it was not ready yet")?;
            if serves {
                return Ok(());
            }
            if Instant::now() > until {
                bail!(
                    "it does not serve all pieces after {} s; {}",
                    READY.as_secs(),
                    self.process.log_tail()
                );
            }
            std::thread::sleep(POLL);
        }
    }

    /// Why a load of it failed: its own end, if it has ended.
    pub fn reason(&mut self, error: LoadError) -> anyhow::Error {
        match self.process.check() {
            Err(ended) => anyhow!(ended),
            Ok(()) => error.into(),
        }
    }
}
