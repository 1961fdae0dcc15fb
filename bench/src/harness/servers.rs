//! Programs that serve torrents until they are told to stop: how each is given its torrents, and
//! how it is started again when it knows them.
//!
//! They differ from the seeds of `seedring-bench rivals` in that they serve any number of torrents
//! and keep what they know between two starts. Everything that would look for peers beyond loopback
//! is off.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::json;

use crate::harness::children::{Program, Running};
use crate::harness::content::Content;
use crate::harness::folder;
use crate::harness::libtorrent::Libtorrent;
use crate::harness::listing::Api;
use crate::harness::probe::{free_port, loopback, serves_everything};

/// Limits of connections and slots that nobody reaches.
const PEERS_MAX: u32 = 10_000;

/// How often a server that prepares is asked.
const POLL: Duration = Duration::from_millis(100);

/// For how many torrents a server is asked at a time: an answer may take it a second, and then
/// others need not wait.
const ASKED_AT_ONCE: usize = 32;

/// Torrents that are named to ours on one command line.
const ADDED_AT_ONCE: usize = 500;

/// Where a server works.
#[derive(Debug)]
pub struct Place<'a> {
    /// Its own folder, kept between its starts.
    pub work: PathBuf,
    /// What it serves.
    pub torrents: &'a [Content],
    /// The folder with all their files.
    pub data: &'a Path,
    /// Where peers reach it.
    pub port: u16,
    /// For whatever else it must listen on.
    pub control_port: u16,
}

impl<'a> Place<'a> {
    /// A new folder `name` in `workspace`, and free ports.
    pub fn new(
        workspace: &Path,
        name: &str,
        torrents: &'a [Content],
        data: &'a Path,
    ) -> anyhow::Result<Self> {
        let work = workspace.join(name);
        fs::create_dir(&work).with_context(|| format!("cannot make {work:?}"))?;
        Ok(Self {
            work,
            torrents,
            data,
            port: free_port()?,
            control_port: free_port()?,
        })
    }

    /// Where its output goes.
    pub fn log(&self) -> PathBuf {
        self.work.join("log")
    }

    /// Waits until each of `torrents` is served completely, and returns how many are when `within`
    /// is over.
    pub fn wait_until_served(
        &self,
        torrents: &[&Content],
        running: &mut Running,
        poll: Duration,
        within: Duration,
    ) -> anyhow::Result<usize> {
        let mut left = torrents.to_vec();
        loop {
            running.check()?;
            let before = left.len();
            // As long as nobody of these is served, the others are not asked: a server that still
            // checks is left alone.
            let asked = left.split_off(before.saturating_sub(ASKED_AT_ONCE));
            left.extend(self.not_served(&asked));
            if left.len() < before && !left.is_empty() {
                continue;
            }
            if left.is_empty() || running.started().elapsed() > within {
                return Ok(torrents.len() - left.len());
            }
            std::thread::sleep(poll);
        }
    }

    /// Asks for all of `torrents` at once, and returns those that are not served completely.
    fn not_served<'t>(&self, torrents: &[&'t Content]) -> Vec<&'t Content> {
        let address = loopback(self.port);
        std::thread::scope(|scope| {
            let ask = |(asker, &torrent): (u8, &&'t Content)| {
                let (info_hash, pieces) = (torrent.info_hash, torrent.pieces);
                let ask = move || serves_everything(address, asker, info_hash, pieces);
                (torrent, scope.spawn(ask))
            };
            let asked: Vec<_> = (1..).zip(torrents).map(ask).collect();
            let served = asked
                .into_iter()
                .map(|(torrent, answer)| (torrent, answer.join().unwrap_or(false)));
            served
                .filter(|&(_, served)| !served)
                .map(|(torrent, _)| torrent)
                .collect()
        })
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> anyhow::Result<PathBuf> {
        folder::write(&self.work, name, text)
    }
}

/// The programs that we know how to start.
#[derive(Debug, Clone)]
pub enum Server {
    /// Ours.
    Seedring(PathBuf),
    /// libtorrent's Python binding.
    Libtorrent(Libtorrent),
    /// transmission-daemon.
    Transmission,
    /// qbittorrent-nox.
    Qbittorrent,
    /// rTorrent.
    Rtorrent,
    /// rqbit.
    Rqbit,
}

impl Server {
    /// Its name in reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Seedring(_) => "seedring",
            Self::Libtorrent(_) => "libtorrent",
            Self::Transmission => "transmission",
            Self::Qbittorrent => "qbittorrent",
            Self::Rtorrent => "rtorrent",
            Self::Rqbit => "rqbit",
        }
    }

    /// How its API is asked, if it has one.
    pub fn api(&self) -> Option<Api> {
        match self {
            Self::Seedring(_) => Some(Api::Seedring),
            Self::Libtorrent(_) | Self::Rtorrent => None,
            Self::Transmission => Some(Api::Transmission),
            Self::Qbittorrent => Some(Api::Qbittorrent),
            Self::Rqbit => Some(Api::Rqbit),
        }
    }

    /// What it says of its version, or why it cannot be measured here.
    pub fn version(&self) -> Result<String, String> {
        let program = match self {
            Self::Seedring(path) => Program::new(path).arg("--version"),
            Self::Libtorrent(libtorrent) => return libtorrent.version(),
            Self::Transmission => Program::new("transmission-daemon").arg("--version"),
            Self::Qbittorrent => Program::new("qbittorrent-nox").arg("--version"),
            Self::Rtorrent => Program::new("rtorrent").arg("-h"),
            Self::Rqbit => Program::new("rqbit").arg("--version"),
        };
        program.version()
    }

    /// The command line that gives it the torrents of `place` for the first time: it checks their
    /// data and serves them.
    pub fn first(&self, place: &Place<'_>) -> anyhow::Result<Program> {
        match self {
            Self::Seedring(path) => seedring(path, place),
            Self::Libtorrent(_) => bail!("libtorrent's tool checks and serves in two steps"),
            Self::Transmission => transmission(place),
            Self::Qbittorrent => qbittorrent(place, true),
            Self::Rtorrent => rtorrent(place, true),
            Self::Rqbit => rqbit(place),
        }
        .map(|program| program.at_home_in(&place.work))
    }

    /// The command line by which it starts again, with what it knows.
    pub fn again(&self, place: &Place<'_>) -> anyhow::Result<Program> {
        match self {
            Self::Seedring(path) => seedring(path, place),
            Self::Libtorrent(libtorrent) => {
                let tool = libtorrent.tool("serve").arg(place.work.join("resume"));
                // Python finds modules of the user in his home.
                return Ok(tool.arg(place.port.to_string()));
            }
            // It finds the torrents in its own folder, as they were put there.
            Self::Transmission => Ok(transmission_program(place)),
            Self::Qbittorrent => qbittorrent(place, false),
            Self::Rtorrent => rtorrent(place, false),
            Self::Rqbit => rqbit(place),
        }
        .map(|program| program.at_home_in(&place.work))
    }

    /// Lets it check all data once and remember that, as any server has that was not started today.
    pub fn prepare(&self, place: &Place<'_>, within: Duration) -> anyhow::Result<()> {
        if let Self::Libtorrent(libtorrent) = self {
            let resume = place.work.join("resume");
            fs::create_dir(&resume).with_context(|| format!("cannot make {resume:?}"))?;
            let tool = libtorrent.tool("remember").arg(torrents_folder(place)?);
            tool.arg(place.data).arg(resume).run(&place.log(), within)?;
            return Ok(());
        }
        let mut running = self.first(place)?.start(&place.log())?;
        if let Self::Seedring(path) = self {
            add(path, place, within)?;
        }
        let all: Vec<&Content> = place.torrents.iter().collect();
        let served = place.wait_until_served(&all, &mut running, POLL, within)?;
        if served < all.len() {
            bail!(
                "it served {served} of {} torrents after {} s of its first start \
                 (--prepare-timeout)",
                all.len(),
                within.as_secs()
            );
        }
        running.end();
        Ok(())
    }
}

/// Starts `program` and waits until it accepts connections of peers; returns when that was.
pub fn start(
    program: &Program,
    place: &Place<'_>,
    within: Duration,
) -> anyhow::Result<(Running, Duration)> {
    let mut running = program.start(&place.log())?;
    let started = running.started();
    loop {
        running.check()?;
        if std::net::TcpStream::connect(loopback(place.port)).is_ok() {
            return Ok((running, started.elapsed()));
        }
        if Instant::now() > started + within {
            bail!(
                "it does not listen after {} s: {}",
                within.as_secs(),
                running.log_tail()
            );
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until somebody listens at a port of loopback.
fn wait_for_port(port: u16, within: Duration) -> anyhow::Result<()> {
    let until = Instant::now() + within;
    while std::net::TcpStream::connect(loopback(port)).is_err() {
        if Instant::now() > until {
            bail!("nobody listens at {}", loopback(port));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// The folder in which all torrents of `place` lie, and nothing else.
fn torrents_folder<'a>(place: &'a Place<'_>) -> anyhow::Result<&'a Path> {
    let first = place.torrents.first().context("no torrents")?;
    first.torrent.parent().context("a torrent without a folder")
}

fn seedring(path: &Path, place: &Place<'_>) -> anyhow::Result<Program> {
    let config = format!(
        "[peers]\nport = {}\nbind_v4 = \"127.0.0.1\"\nbind_v6 = \"\"\n\n[api]\n\
         listen = \"127.0.0.1:{}\"\n\n\
         [announce]\nenabled = false\n\n[state]\ndir = {}\n",
        place.port,
        place.control_port,
        toml_string(&place.work.join("state"))
    );
    let config = place.write("seedring.toml", config)?;
    Ok(Program::new(path).arg("serve").arg("--config").arg(config))
}

/// Gives a running server of ours its torrents, by its own command.
fn add(path: &Path, place: &Place<'_>, within: Duration) -> anyhow::Result<()> {
    wait_for_port(place.control_port, within)?;
    let url = format!("http://{}", loopback(place.control_port));
    for some in place.torrents.chunks(ADDED_AT_ONCE) {
        let program = Program::new(path).args(["add", "--url", &url, "--token-file"]);
        let program = program.arg(place.work.join("state/api-token")).arg("-d");
        let program = program.arg(place.data);
        let program = program.args(some.iter().map(|torrent| &torrent.torrent));
        program.run(&place.work.join("add.log"), within)?;
    }
    Ok(())
}

/// A basic string of TOML, whose escapes are those of JSON.
fn toml_string(path: &Path) -> String {
    json!(path.to_string_lossy()).to_string()
}

fn transmission(place: &Place<'_>) -> anyhow::Result<Program> {
    // Copies, because it renames the torrents that it finds in a watched folder.
    let watch = place.work.join("watch");
    for (index, torrent) in place.torrents.iter().enumerate() {
        let bytes = fs::read(&torrent.torrent);
        let bytes = bytes.with_context(|| format!("cannot read {:?}", torrent.torrent))?;
        place.write(&format!("watch/{index}.torrent"), bytes)?;
    }
    let settings = json!({
        "download-dir": place.data, "start-added-torrents": true, "rpc-enabled": true,
        "rpc-port": place.control_port, "rpc-bind-address": "127.0.0.1",
        "rpc-authentication-required": false, "rpc-whitelist-enabled": false,
        "dht-enabled": false,
        "lpd-enabled": false, "pex-enabled": false, "utp-enabled": false, "port-forwarding-enabled":
        false,
        "peer-port": place.port, "bind-address-ipv4": "127.0.0.1", "encryption": 0,
        "peer-limit-global": PEERS_MAX, "peer-limit-per-torrent": PEERS_MAX,
        "upload-slots-per-torrent": PEERS_MAX, "speed-limit-up-enabled": false,
        "ratio-limit-enabled": false,
        "queue-stalled-enabled": false, "download-queue-enabled": false, "seed-queue-enabled":
        false,
        "incomplete-dir-enabled": false, "watch-dir-enabled": true, "watch-dir": watch,
        "trash-original-torrent-files": false, "message-level": 1,
    });
    place.write("settings.json", settings.to_string())?;
    Ok(transmission_program(place))
}

fn transmission_program(place: &Place<'_>) -> Program {
    let daemon = Program::new("transmission-daemon").args(["--foreground", "--config-dir"]);
    daemon.arg(&place.work)
}

fn qbittorrent(place: &Place<'_>, first: bool) -> anyhow::Result<Program> {
    let (port, control_port) = (place.port, place.control_port);
    if first {
        let config = format!(
            "[LegalNotice]\nAccepted=true\n\n[BitTorrent]\nSession\\Port={port}\n\
             Session\\Interface=lo\n\
             Session\\InterfaceAddress=127.0.0.1\nSession\\BTProtocol=TCP\n\
             Session\\QueueingSystemEnabled=false\n\
             Session\\MaxConnections=-1\nSession\\MaxConnectionsPerTorrent=-1\n\
             Session\\MaxUploads=-1\n\
             Session\\MaxUploadsPerTorrent=-1\nSession\\MultiConnectionsPerIp=true\n\
             Session\\MaxActiveCheckingTorrents=4\nSession\\DHTEnabled=false\n\
             Session\\PeXEnabled=false\n\
             Session\\LSDEnabled=false\nSession\\AddTorrentPaused=false\n\n[Network]\n\
             PortForwardingEnabled=false\n\n\
             [Preferences]\nConnection\\ResolvePeerCountries=false\nWebUI\\Enabled=true\n\
             WebUI\\Address=127.0.0.1\n\
             WebUI\\Port={control_port}\nWebUI\\UseUPnP=false\nWebUI\\LocalHostAuth=false\n"
        );
        place.write("qBittorrent/config/qBittorrent.conf", config)?;
    }
    let program =
        Program::new("qbittorrent-nox").arg(format!("--profile={}", place.work.display()));
    if !first {
        return Ok(program);
    }
    let program = program.arg(format!("--save-path={}", place.data.display()));
    let program = program.args(["--add-paused=false", "--skip-dialog=true"]);
    Ok(program.args(place.torrents.iter().map(|torrent| &torrent.torrent)))
}

fn rtorrent(place: &Place<'_>, first: bool) -> anyhow::Result<Program> {
    let (work, data, port) = (place.work.display(), place.data.display(), place.port);
    fs::create_dir_all(place.work.join("session")).context("cannot make a session folder")?;
    let load = match first {
        true => format!(
            "load.start = {}/*.torrent\n",
            torrents_folder(place)?.display()
        ),
        // What the session holds is loaded by itself.
        false => String::new(),
    };
    let config = format!(
        "system.daemon.set = true\nsession.path.set = {work}/session\n\
         directory.default.set = {data}\n\
         network.bind_address.set = 127.0.0.1\nnetwork.port_range.set = {port}-{port}\n\
         network.port_random.set = no\ndht.mode.set = disable\nprotocol.pex.set = no\n\
         trackers.use_udp.set = no\n\
         protocol.encryption.set = none\nthrottle.max_uploads.set = 60000\n\
         throttle.max_uploads.global.set = 0\n\
         throttle.max_peers.normal.set = {PEERS_MAX}\nthrottle.max_peers.seed.set = {PEERS_MAX}\n\
         network.max_open_sockets.set = {PEERS_MAX}\nnetwork.max_open_files.set = 600\n{load}"
    );
    let config = place.write("rtorrent.rc", config)?;
    let import = format!("import={}", config.display());
    Ok(Program::new("rtorrent").args(["-n", "-o", &import]))
}

fn rqbit(place: &Place<'_>) -> anyhow::Result<Program> {
    let program = Program::new("rqbit");
    let program = program.args([
        "--disable-dht",
        "--disable-lsd",
        "--disable-trackers",
        "--ipv4-only",
    ]);
    let program = program.args(["--disable-upnp-port-forward", "--listen-ip", "127.0.0.1"]);
    let program = program.args([
        "--listen-port",
        &place.port.to_string(),
        "--http-api-listen-addr",
    ]);
    let program = program.arg(loopback(place.control_port).to_string());
    let program = program.args(["server", "start", "--fastresume", "--persistence-location"]);
    let program = program.arg(place.work.join("state")).arg("--watch-folder");
    Ok(program.arg(torrents_folder(place)?).arg(place.data))
}
