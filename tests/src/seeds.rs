//! Real clients as seeds of data that lie on disk, with every way of finding peers off but the torrent's
//! trackers.
//!
//! [`RealSeed::start`] serves on a loopback port and returns when the client serves every piece: it has
//! checked the data then. [`RealSeed::launch`] waits for nothing, so that several check side by side.

use crate::clients::{aria2_dht, in_url, libtorrent_python, script};
use crate::peer::{Peer, id};
use crate::process::Process;
use crate::server::{Seed, Server};
use crate::skip::{Skip, program};
use crate::torrent::Torrent;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest wait until a seed has checked its data.
const READY: Duration = Duration::from_secs(120);

/// A client that seeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RealSeed {
    /// `transmission-daemon`.
    Transmission,
    /// libtorrent through its Python binding.
    Libtorrent,
    /// `qbittorrent-nox`.
    Qbittorrent,
    /// `aria2c`.
    Aria2,
    /// `rtorrent` in daemon mode.
    Rtorrent,
    /// `seedring seed`.
    Seedring,
}

/// A seed that serves.
#[derive(Debug)]
pub struct Seeding {
    /// Where peers connect.
    pub address: SocketAddr,
    running: Running,
    _home: TempDir,
}

#[derive(Debug)]
#[allow(dead_code)]
enum Running {
    Process(Process),
    Server(Box<Server>),
}

impl RealSeed {
    /// All of them.
    pub const ALL: [RealSeed; 6] = [
        RealSeed::Transmission,
        RealSeed::Libtorrent,
        RealSeed::Qbittorrent,
        RealSeed::Aria2,
        RealSeed::Rtorrent,
        RealSeed::Seedring,
    ];

    /// Seeds the data of `torrent` that lie in `data_dir`.
    pub fn start(self, torrent: &Path, data_dir: &Path) -> Result<Seeding, Skip> {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let mut seeding = self.started(torrent, data_dir, loopback, false)?;
        let Running::Process(process) = &mut seeding.running else {
            return Ok(seeding);
        };
        let known = Torrent::read(torrent);
        process.wait_for("serving of every piece", READY, |_| {
            let serves = serves_everything(seeding.address, &known);
            if !serves {
                // Some clients take few connections of one address in a second.
                std::thread::sleep(Duration::from_millis(200));
            }
            serves.then_some(())
        });
        // Transmission takes one connection of an address, and notices in its next pulse that ours has gone. Whoever
        // comes too early is refused, and comes again.
        std::thread::sleep(Duration::from_secs(1));
        Ok(seeding)
    }

    /// Starts it as a host of that address. Ours is ready when this returns; others check their data first.
    /// Only in a network of the test's own, for aria2 has its DHT on here: it asks no UDP tracker otherwise.
    pub fn launch(self, torrent: &Path, data_dir: &Path, ip: IpAddr) -> Result<Seeding, Skip> {
        self.started(torrent, data_dir, ip, true)
    }

    fn started(
        self,
        torrent: &Path,
        data_dir: &Path,
        ip: IpAddr,
        dht: bool,
    ) -> Result<Seeding, Skip> {
        let home = TempDir::new().unwrap();
        let place = Place {
            torrent,
            data_dir,
            home: home.path(),
            ip,
            port: free_port(),
        };
        let (name, mut command) = match self {
            RealSeed::Transmission => ("transmission-daemon", transmission(&place)?),
            RealSeed::Libtorrent => ("libtorrent", libtorrent(&place)?),
            RealSeed::Qbittorrent => ("qbittorrent-nox", qbittorrent(&place)?),
            RealSeed::Aria2 => ("aria2c", aria2(&place, dht)?),
            RealSeed::Rtorrent => ("rtorrent", rtorrent(&place)?),
            RealSeed::Seedring => {
                let server = Seed::torrent(torrent, data_dir).options(["--no-tracker"]);
                let server = Box::new(server.start());
                return Ok(Seeding {
                    address: SocketAddr::new(ip, server.ready.peer_port),
                    running: Running::Server(server),
                    _home: home,
                });
            }
        };
        command
            .env("HOME", home.path())
            .env("LC_ALL", "C.UTF-8")
            .env("TERM", "xterm")
            .current_dir(home.path());
        Ok(Seeding {
            address: SocketAddr::new(ip, place.port),
            running: Running::Process(Process::spawn(name, &command)),
            _home: home,
        })
    }
}

/// What a client is started with.
struct Place<'a> {
    torrent: &'a Path,
    data_dir: &'a Path,
    home: &'a Path,
    ip: IpAddr,
    port: u16,
}

/// A port that is free now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// Whether a peer at `address` says that it has every piece.
fn serves_everything(address: SocketAddr, torrent: &Torrent) -> bool {
    let Ok(mut peer) = Peer::connect(address, &torrent.info_hash) else {
        return false;
    };
    let until = Instant::now() + Duration::from_secs(2);
    let _ = peer.stream().set_read_timeout(Some(Duration::from_secs(2)));
    while Instant::now() < until {
        let Ok(message) = peer.read() else {
            return false;
        };
        match message.id {
            Some(id::HAVE_ALL) => return true,
            Some(id::BITFIELD) => {
                let pieces: u32 = message.payload.iter().map(|byte| byte.count_ones()).sum();
                return pieces as usize == torrent.pieces.len();
            }
            _ => {}
        }
    }
    false
}

fn transmission(place: &Place<'_>) -> Result<Command, Skip> {
    let program = program("transmission-daemon", "transmission-daemon")?;
    let watch = place.home.join("watch");
    std::fs::create_dir(&watch).unwrap();
    std::fs::copy(place.torrent, watch.join("add.torrent")).unwrap();
    let family = match place.ip {
        IpAddr::V4(_) => "bind-address-ipv4",
        IpAddr::V6(_) => "bind-address-ipv6",
    };
    let settings = serde_json::json!({
        "download-dir": place.data_dir,
        "start-added-torrents": true,
        "watch-dir": watch,
        "watch-dir-enabled": true,
        "rpc-enabled": false,
        "dht-enabled": false,
        "lpd-enabled": false,
        "pex-enabled": false,
        "utp-enabled": false,
        "port-forwarding-enabled": false,
        "peer-port": place.port,
        family: place.ip.to_string(),
        "incomplete-dir-enabled": false,
        "trash-original-torrent-files": false,
    });
    std::fs::write(place.home.join("settings.json"), settings.to_string()).unwrap();
    let mut command = Command::new(program);
    command
        .args(["--foreground", "--config-dir"])
        .arg(place.home);
    Ok(command)
}

fn libtorrent(place: &Place<'_>) -> Result<Command, Skip> {
    let mut command = Command::new(libtorrent_python()?);
    command
        .arg(script("libtorrent_seed.py"))
        .arg(place.torrent)
        .arg(place.data_dir)
        .args([in_url(place.ip), place.port.to_string()]);
    Ok(command)
}

fn qbittorrent(place: &Place<'_>) -> Result<Command, Skip> {
    let program = program("qbittorrent-nox", "qbittorrent-nox")?;
    let config = place.home.join("qBittorrent/config");
    std::fs::create_dir_all(&config).unwrap();
    let settings = format!(
        "[LegalNotice]\nAccepted=true\n\n\
         [BitTorrent]\n\
         Session\\Port={port}\n\
         Session\\Interface=lo\n\
         Session\\InterfaceAddress=127.0.0.1\n\
         Session\\BTProtocol=TCP\n\
         Session\\QueueingSystemEnabled=false\n\
         Session\\DHTEnabled=false\n\
         Session\\PeXEnabled=false\n\
         Session\\LSDEnabled=false\n\
         Session\\AddTorrentPaused=false\n\n\
         [Network]\nPortForwardingEnabled=false\n\n\
         [Preferences]\n\
         WebUI\\Enabled=true\n\
         WebUI\\Address=127.0.0.1\n\
         WebUI\\Port={control_port}\n\
         WebUI\\UseUPnP=false\n",
        port = place.port,
        control_port = free_port(),
    );
    std::fs::write(config.join("qBittorrent.conf"), settings).unwrap();
    let mut command = Command::new(program);
    command
        .arg(format!("--profile={}", place.home.display()))
        .arg(format!("--save-path={}", place.data_dir.display()))
        .args(["--add-paused=false", "--skip-dialog=true"])
        .arg(place.torrent);
    Ok(command)
}

fn aria2(place: &Place<'_>, dht: bool) -> Result<Command, Skip> {
    let mut command = Command::new(program("aria2c", "aria2")?);
    command
        .arg(format!("--dir={}", place.data_dir.display()))
        .arg(format!("--listen-port={}", place.port))
        .args(["--no-conf", "--seed-ratio=0.0", "--check-integrity=true"])
        .arg(format!("--disable-ipv6={}", place.ip.is_ipv4()))
        .args(["--bt-hash-check-seed=true", "--bt-enable-lpd=false"])
        .args(["--enable-peer-exchange=false"])
        .args(["--file-allocation=none", "--summary-interval=0"])
        .arg(place.torrent);
    aria2_dht(&mut command, dht, place.home);
    Ok(command)
}

/// With a tracker that nobody has: rTorrent loads no torrent without one.
fn rtorrent(place: &Place<'_>) -> Result<Command, Skip> {
    let program = program("rtorrent", "rtorrent")?;
    let bytes = std::fs::read(place.torrent).unwrap();
    let torrent = place.home.join("with-tracker.torrent");
    let url = "http://127.0.0.1:9/announce";
    let mut with = format!("d8:announce{}:{url}", url.len()).into_bytes();
    with.extend_from_slice(&bytes[1..]);
    std::fs::write(&torrent, with).unwrap();
    let session = place.home.join("session");
    std::fs::create_dir(&session).unwrap();
    let settings = format!(
        "system.daemon.set = true\n\
         session.path.set = \"{session}\"\n\
         directory.default.set = \"{directory}\"\n\
         network.bind_address.set = 127.0.0.1\n\
         network.port_range.set = {port}-{port}\n\
         network.port_random.set = no\n\
         dht.mode.set = disable\n\
         protocol.pex.set = no\n\
         load.start = \"{torrent}\"\n",
        session = session.display(),
        directory = place.data_dir.display(),
        port = place.port,
        torrent = torrent.display(),
    );
    let file = place.home.join("rtorrent.rc");
    std::fs::write(&file, settings).unwrap();
    let mut command = Command::new(program);
    command
        .arg("-n")
        .arg("-o")
        .arg(format!("import={}", file.display()));
    Ok(command)
}
