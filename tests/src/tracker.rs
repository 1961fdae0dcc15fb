//! A tracker of the tests' own that remembers every announce, and the real opentracker.

use crate::process::Process;
use crate::skip::{Skip, is_root, program};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How the recording tracker behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers every announce with no peers.
    Answers,
    /// Answers every announce that asks for peers with this one.
    Names(SocketAddrV4),
    /// Takes the connection and the request and never answers.
    Silent,
    /// Answers every announce but `stopped`.
    SilentToStops,
}

/// A tracker on a port of this host that records what it is asked.
#[derive(Debug)]
pub struct RecordingTracker {
    address: SocketAddr,
    announces: Arc<Mutex<Vec<String>>>,
}

impl RecordingTracker {
    /// Starts it. Its threads end with the test's process.
    pub fn start(behaviour: Behaviour) -> Self {
        Self::start_on(Ipv4Addr::LOCALHOST, behaviour)
    }

    /// The same for other hosts, at this one's address.
    pub fn start_on(ip: Ipv4Addr, behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let announces = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&announces);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || serve(stream, behaviour, &seen));
            }
        });
        Self { address, announces }
    }

    /// Its announce URL.
    pub fn url(&self) -> String {
        format!("http://{}/announce", self.address)
    }

    /// The request targets seen so far, in order.
    pub fn announces(&self) -> Vec<String> {
        self.announces.lock().unwrap().clone()
    }

    /// Waits for an announce whose target holds `part`.
    pub fn wait_for(&self, part: &str, limit: Duration) -> String {
        let until = Instant::now() + limit;
        loop {
            let seen = self.announces();
            if let Some(found) = seen.iter().find(|target| target.contains(part)) {
                return found.clone();
            }
            assert!(
                Instant::now() < until,
                "no announce with {part:?} in {limit:?}: {seen:?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn serve(mut stream: TcpStream, behaviour: Behaviour, seen: &Mutex<Vec<String>>) {
    let mut pending = Vec::new();
    let mut buffer = [0u8; 4096];
    loop {
        while let Some(end) = pending.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&pending[..end]).into_owned();
            pending.drain(..end + 4);
            let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let is_unwanted = target.contains("&numwant=0");
            let is_answered = match behaviour {
                Behaviour::Silent => false,
                Behaviour::SilentToStops => !target.contains("event=stopped"),
                Behaviour::Answers | Behaviour::Names(_) => true,
            };
            seen.lock().unwrap().push(target);
            if !is_answered {
                continue;
            }
            let peers = match behaviour {
                Behaviour::Names(peer) if !is_unwanted => {
                    [&peer.ip().octets()[..], &peer.port().to_be_bytes()].concat()
                }
                _ => Vec::new(),
            };
            let mut body = format!("d8:intervali1800e5:peers{}:", peers.len()).into_bytes();
            body.extend(peers);
            body.push(b'e');
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            if stream
                .write_all(&[head.as_bytes(), &body].concat())
                .is_err()
            {
                return;
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(length) => pending.extend_from_slice(&buffer[..length]),
        }
    }
}

/// The variable that names an opentracker that is built for IPv6.
const V6_BINARY: &str = "SEEDRING_OPENTRACKER_V6";

/// The real opentracker, serving the given info-hashes only (as Debian builds it) over HTTP and
/// UDP.
#[derive(Debug)]
pub struct OpenTracker {
    process: Process,
    url: String,
    address: SocketAddr,
    _folder: TempDir,
}

impl OpenTracker {
    /// Starts it on a free port of `address`. opentracker speaks one family, as it is built:
    /// Debian's is for IPv4; one for IPv6 (`make FEATURES=-DWANT_V6`) is taken from
    /// `SEEDRING_OPENTRACKER_V6`.
    pub fn start(address: IpAddr, info_hashes: &[String]) -> Result<Self, Skip> {
        let opentracker = match address {
            IpAddr::V4(_) => program("opentracker", "opentracker")?,
            IpAddr::V6(_) => PathBuf::from(std::env::var_os(V6_BINARY).ok_or_else(|| {
                Skip::machine(format!(
                    "Debian's opentracker is built for IPv4 only; {V6_BINARY} names no other"
                ))
            })?),
        };
        let folder = TempDir::new().unwrap();
        let list = folder.path().join("whitelist.txt");
        std::fs::write(&list, info_hashes.join("\n") + "\n").unwrap();
        open_to_all(folder.path(), &list);
        // The list is named relative to the root folder, which opentracker enters first.
        // It cannot be asked for any port: take one that is free now.
        let port = TcpListener::bind((address, 0))
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let place = SocketAddr::new(address, port);
        let config = folder.path().join("opentracker.conf");
        let mut text = format!(
            "listen.tcp {place}\nlisten.udp {place}\naccess.whitelist whitelist.txt\ntracker.rootdir {root}\n",
            root = folder.path().display()
        );
        if is_root() {
            text.push_str("tracker.user nobody\n");
        }
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(opentracker);
        command.arg("-f").arg(&config).current_dir(folder.path());
        let mut process = Process::spawn("opentracker", &command);
        process.wait_for("open port", Duration::from_secs(10), |_| {
            TcpStream::connect((address, port)).ok()
        });
        let url = format!("http://{place}/announce");
        Ok(Self {
            process,
            url,
            address: place,
            _folder: folder,
        })
    }

    /// Its announce URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it is asked by UDP.
    pub fn udp_address(&self) -> SocketAddr {
        self.address
    }

    /// Its announce URL by UDP.
    pub fn udp_url(&self) -> String {
        format!("udp://{}/announce", self.address)
    }

    /// What it printed.
    pub fn transcript(&self) -> String {
        self.process.transcript()
    }
}

/// opentracker gives up root and its root folder: what it reads must be readable to anyone.
fn open_to_all(folder: &Path, list: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(list, std::fs::Permissions::from_mode(0o644)).unwrap();
}
