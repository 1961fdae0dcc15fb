//! Real BitTorrent clients, each started headless with every way of finding peers off but the tracker.
//!
//! A client is left at its own defaults otherwise (encryption, request sizes, uTP but for Transmission): the
//! point is to serve clients as they are.

use crate::content::{assert_same_tree, assert_same_tree_but_empty_files};
use crate::process::{POLL, Process};
use crate::skip::{Skip, program};
use std::ffi::OsStr;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A client that downloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// `transmission-cli`.
    Transmission,
    /// `transmission-daemon` with a watch folder.
    TransmissionDaemon,
    /// `aria2c`.
    Aria2,
    /// `aria2c` with its DHT on, without which it asks no UDP tracker. Only in a network of the test's own.
    Aria2Udp,
    /// libtorrent (the library of qBittorrent and Deluge) through its Python binding.
    Libtorrent,
    /// `rtorrent` in daemon mode.
    Rtorrent,
}

/// A download under way.
#[derive(Debug)]
pub struct Download {
    process: Process,
    end: End,
    /// What starts a client again that ends too early by a fault of its own; see [`Download::wait`].
    again: Option<Box<Command>>,
    _config: TempDir,
}

/// How a client shows that it has everything.
#[derive(Debug)]
enum End {
    /// It exits with status 0.
    Exit,
    /// It makes this file.
    Marker(PathBuf),
}

impl Client {
    /// False for the daemon, whose watch folder takes .torrent files only.
    pub fn takes_magnets(self) -> bool {
        self != Client::TransmissionDaemon
    }

    /// Starts a download of a .torrent file or magnet link into `folder`. `host` makes commands that run on
    /// the client's host.
    pub fn download(
        self,
        source: &OsStr,
        folder: &Path,
        host: &dyn Fn(&OsStr) -> Command,
    ) -> Result<Download, Skip> {
        self.download_as(source, folder, None, host)
    }

    /// The same with an address of its own, if it is one of those that can be told: several clients on one host are
    /// otherwise one to those which take one connection of an address.
    pub fn download_as(
        self,
        source: &OsStr,
        folder: &Path,
        address: Option<IpAddr>,
        host: &dyn Fn(&OsStr) -> Command,
    ) -> Result<Download, Skip> {
        let config = TempDir::new().unwrap();
        let home = config.path();
        let (name, mut command, end) = match self {
            Client::Transmission => transmission_cli(source, folder, home, address, host)?,
            Client::TransmissionDaemon => transmission_daemon(source, folder, home, host)?,
            Client::Aria2 => aria2(source, folder, false, home, host)?,
            Client::Aria2Udp => aria2(source, folder, true, home, host)?,
            Client::Libtorrent => libtorrent(source, folder, address, host)?,
            Client::Rtorrent => rtorrent(source, folder, home, host)?,
        };
        command
            .env("HOME", home)
            .env("LC_ALL", "C.UTF-8")
            .env("TERM", "xterm");
        let process = Process::spawn(name, &command);
        Ok(Download {
            process,
            end,
            again: (self == Client::Transmission).then(|| Box::new(command)),
            _config: config,
        })
    }

    /// Panics unless the download is the content, as far as this client writes it: Transmission 3 does not
    /// create empty files.
    pub fn assert_same_tree(self, expected: &Path, actual: &Path) {
        match self {
            Client::Transmission | Client::TransmissionDaemon => {
                assert_same_tree_but_empty_files(expected, actual);
            }
            Client::Aria2 | Client::Aria2Udp | Client::Libtorrent | Client::Rtorrent => {
                assert_same_tree(expected, actual);
            }
        }
    }
}

impl Download {
    /// Waits until the client says that it has everything.
    ///
    /// transmission-cli ends with status 0 when it finds its torrent stopped in one of its looks, five a
    /// second; and Transmission stops a torrent for a moment when the metadata of a magnet link have come. Started
    /// again, it has the metadata.
    pub fn wait(&mut self, limit: Duration) {
        if let (Some(command), End::Marker(marker)) = (self.again.take(), &self.end) {
            let until = Instant::now() + limit;
            while !marker.exists() && self.process.is_alive() && Instant::now() < until {
                std::thread::sleep(POLL);
            }
            if !marker.exists() && !self.process.is_alive() {
                let status = self.process.wait_exit(limit);
                assert!(status.success(), "{status}\n{}", self.process.transcript());
                eprintln!("transmission-cli ended early and is started again");
                self.process = Process::spawn("transmission-cli", &command);
            }
        }
        match &self.end {
            End::Exit => {
                let status = self.process.wait_exit(limit);
                assert!(status.success(), "{status}\n{}", self.process.transcript());
            }
            End::Marker(marker) => {
                self.process.wait_for("finished download", limit, |_| {
                    marker.exists().then_some(())
                });
            }
        }
    }
}

/// The interpreter that Debian's python3-libtorrent is built for.
pub fn libtorrent_python() -> Result<PathBuf, Skip> {
    let python = PathBuf::from("/usr/bin/python3");
    let found = Command::new(&python)
        .args(["-c", "import libtorrent"])
        .output();
    match found {
        Ok(output) if output.status.success() => Ok(python),
        _ => Err(Skip::program("libtorrent for Python", "python3-libtorrent")),
    }
}

/// The path of a script in `tests/clients`.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("clients")
        .join(name)
}

/// An address as URLs and libtorrent have it.
pub fn in_url(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

type Started = Result<(&'static str, Command, End), Skip>;
type Host<'a> = &'a dyn Fn(&OsStr) -> Command;

fn transmission_cli(
    source: &OsStr,
    folder: &Path,
    home: &Path,
    address: Option<IpAddr>,
    host: Host<'_>,
) -> Started {
    let program = program("transmission-cli", "transmission-cli")?;
    let (script, marker) = marker_script(home);
    let bind = address.map(|address| {
        let key = match address {
            IpAddr::V4(_) => "bind-address-ipv4",
            IpAddr::V6(_) => "bind-address-ipv6",
        };
        (key, format!("{:?}", address.to_string()))
    });
    write_transmission_settings(home, bind.as_slice());
    let mut command = host(program.as_os_str());
    command
        .arg("--config-dir")
        .arg(home)
        .arg("--download-dir")
        .arg(folder);
    command
        .arg("--finish")
        .arg(script)
        .arg("--no-portmap")
        .arg(source);
    Ok(("transmission-cli", command, End::Marker(marker)))
}

fn transmission_daemon(source: &OsStr, folder: &Path, home: &Path, host: Host<'_>) -> Started {
    let program = program("transmission-daemon", "transmission-daemon")?;
    let (script, marker) = marker_script(home);
    let watch = home.join("watch");
    std::fs::create_dir(&watch).unwrap();
    std::fs::copy(source, watch.join("add.torrent")).unwrap();
    let quoted = |path: &Path| format!("{:?}", path.display().to_string());
    write_transmission_settings(
        home,
        &[
            ("rpc-enabled", "false".to_owned()),
            ("download-dir", quoted(folder)),
            ("watch-dir-enabled", "true".to_owned()),
            ("watch-dir", quoted(&watch)),
            ("script-torrent-done-enabled", "true".to_owned()),
            ("script-torrent-done-filename", quoted(&script)),
        ],
    );
    let mut command = host(program.as_os_str());
    command
        .args(["--foreground", "--log-debug", "--config-dir"])
        .arg(home);
    Ok(("transmission-daemon", command, End::Marker(marker)))
}

/// Turns the DHT of aria2 on or off. On, it knows no node to begin with, so that it asks nobody of whom no peer
/// has told it; what it learns it leaves in `home`.
pub fn aria2_dht(command: &mut Command, on: bool, home: &Path) {
    command.args([&format!("--enable-dht={on}"), "--enable-dht6=false"]);
    let table = home.join("dht.dat");
    command
        .arg(format!("--dht-file-path={}", table.display()))
        .arg("--dht-listen-port=20000-60000");
}

fn aria2(source: &OsStr, folder: &Path, dht: bool, home: &Path, host: Host<'_>) -> Started {
    let program = program("aria2c", "aria2")?;
    let mut command = host(program.as_os_str());
    command.args(["--no-conf", "--bt-enable-lpd=false"]);
    aria2_dht(&mut command, dht, home);
    command.args([
        "--seed-time=0",
        "--console-log-level=info",
        "--summary-interval=0",
    ]);
    command
        .args(["--allow-overwrite=true", "--file-allocation=none", "--dir"])
        .arg(folder);
    command.arg(source);
    Ok(("aria2c", command, End::Exit))
}

fn libtorrent(source: &OsStr, folder: &Path, address: Option<IpAddr>, host: Host<'_>) -> Started {
    let python = libtorrent_python()?;
    let mut command = host(python.as_os_str());
    command
        .arg(script("libtorrent_download.py"))
        .arg(source)
        .arg(folder);
    if let Some(address) = address {
        command.args(["--bind", &in_url(address)]);
    }
    Ok(("libtorrent", command, End::Exit))
}

fn rtorrent(source: &OsStr, folder: &Path, home: &Path, host: Host<'_>) -> Started {
    let program = program("rtorrent", "rtorrent")?;
    let (script, marker) = marker_script(home);
    let session = home.join("session");
    std::fs::create_dir(&session).unwrap();
    let settings = format!(
        "system.daemon.set = true\n\
         directory.default.set = \"{folder}\"\n\
         session.path.set = \"{session}\"\n\
         network.port_range.set = 1025-65535\n\
         network.port_random.set = yes\n\
         dht.mode.set = disable\n\
         protocol.pex.set = no\n\
         log.open_file = \"log\", (cat,\"/dev/stderr\")\n\
         log.add_output = \"info\", \"log\"\n\
         log.add_output = \"tracker_debug\", \"log\"\n\
         method.set_key = event.download.finished, done, \"execute2={script}\"\n\
         schedule2 = add, 0, 0, ((load.start, \"{source}\"))\n",
        folder = folder.display(),
        session = session.display(),
        script = script.display(),
        source = source.to_string_lossy(),
    );
    let file = home.join("rtorrent.rc");
    std::fs::write(&file, settings).unwrap();
    let mut command = host(program.as_os_str());
    command
        .arg("-n")
        .arg("-o")
        .arg(format!("import={}", file.display()));
    Ok(("rtorrent", command, End::Marker(marker)))
}

/// A script that a client runs when it has everything, and the file that the script makes.
fn marker_script(home: &Path) -> (PathBuf, PathBuf) {
    let (script, marker) = (home.join("finished.sh"), home.join("finished"));
    std::fs::write(&script, format!("#!/bin/sh\n: > '{}'\n", marker.display())).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    (script, marker)
}

/// Without uTP: when its uTP connect fails, Transmission 3 opens a TCP connection and closes it again without
/// sending a byte, so at its defaults it never reaches a seed that speaks TCP only and does not dial out
/// itself. That holds for every such seed (libtorrent with uTP off behaves the same), not for ours alone.
fn write_transmission_settings(home: &Path, more: &[(&str, String)]) {
    let mut settings = String::from(
        "{\"dht-enabled\": false, \"lpd-enabled\": false, \"port-forwarding-enabled\": false, \
         \"peer-port-random-on-start\": true, \"utp-enabled\": false, \"trash-original-torrent-files\": false",
    );
    for (key, value) in more {
        settings.push_str(&format!(", \"{key}\": {value}"));
    }
    settings.push_str("}\n");
    std::fs::write(home.join("settings.json"), settings).unwrap();
}
