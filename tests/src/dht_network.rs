//! Nodes of the DHT that are programs: ours in `seed` and `get`, and those of libtorrent.

use crate::clients::{libtorrent_python, script};
use crate::get::Get;
use crate::process::Process;
use crate::server::{SHORT, Seed, Server};
use crate::single::Single;
use crate::skip::Skip;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// Loopback.
pub const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// The same of IPv6.
pub const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Counts announces that some node took.
pub const ANNOUNCED: &str = "seedring_dht_searches_total{result=\"announced\"}";

/// A seed with a node that knows this one, on one address of loopback only.
pub fn seed(content: &Single, ip: IpAddr, node: Option<SocketAddr>) -> Server {
    on(ip, with_node(content, node)).start()
}

/// The same, wherever it listens.
pub fn with_node(content: &Single, node: Option<SocketAddr>) -> Seed {
    let nodes = node.map_or(String::new(), |node| node.to_string());
    content
        .seed()
        .options(["--shards", "1"])
        .setting("dht", "enabled", "true")
        .setting("dht", "bootstrap", &nodes)
}

/// Listens on loopback of one family.
pub fn on(ip: IpAddr, seed: Seed) -> Seed {
    let (v4, v6) = addresses(ip);
    seed.setting("peers", "bind_v4", v4)
        .setting("peers", "bind_v6", v6)
}

fn addresses(ip: IpAddr) -> (&'static str, &'static str) {
    match ip {
        IpAddr::V4(_) => ("127.0.0.1", ""),
        IpAddr::V6(_) => ("", "::1"),
    }
}

/// `get` of a link by a node that it knows.
pub fn get(magnet: &str, folder: &TempDir, ip: IpAddr, node: SocketAddr) -> Get {
    let (v4, v6) = addresses(ip);
    Get::new(magnet, folder.path())
        .setting("dht", "enabled", "true")
        .setting("dht", "bootstrap", &node.to_string())
        .setting("peers", "bind_v4", v4)
        .setting("peers", "bind_v6", v6)
}

/// The metric of the nodes that are known in a family.
pub fn nodes_metric(ip: IpAddr) -> &'static str {
    match ip {
        IpAddr::V4(_) => "seedring_dht_nodes{family=\"ipv4\"}",
        IpAddr::V6(_) => "seedring_dht_nodes{family=\"ipv6\"}",
    }
}

/// How many nodes of a family a server of ours knows.
pub fn known(server: &Server, ip: IpAddr) -> f64 {
    server.metrics()[nodes_metric(ip)]
}

/// Nodes of libtorrent, and where they listen.
#[derive(Debug)]
pub struct Theirs {
    /// All of them.
    pub process: Process,
    /// Their addresses.
    pub nodes: Vec<SocketAddr>,
}

impl Theirs {
    /// Starts so many at an address.
    pub fn start(ip: IpAddr, count: usize, more: &[&str]) -> Result<Self, Skip> {
        Self::start_by(Command::new(libtorrent_python()?), ip, count, more)
    }

    /// The same by a command for libtorrent's Python, such as one that runs it on another host.
    pub fn start_by(
        mut command: Command,
        ip: IpAddr,
        count: usize,
        more: &[&str],
    ) -> Result<Self, Skip> {
        command.arg(script("libtorrent_dht.py")).arg(ip.to_string());
        command.arg(count.to_string()).args(more);
        let mut process = Process::spawn("libtorrent nodes", &command);
        let ports = process.wait_for("nodes", SHORT, |process| {
            let stdout = process.stdout();
            let line = stdout
                .lines()
                .find_map(|line| line.strip_prefix("nodes "))?;
            let ports = line.split(' ').map(|port| port.parse::<u16>().unwrap());
            Some(ports.collect::<Vec<_>>())
        });
        assert!(ports.iter().all(|port| *port != 0), "{ports:?}");
        let nodes = ports.into_iter().map(|port| SocketAddr::new(ip, port));
        Ok(Self {
            process,
            nodes: nodes.collect(),
        })
    }

    /// Waits until one of them was told of a peer of this torrent.
    pub fn wait_for_announce(&mut self, hash: &str, limit: Duration) {
        self.process.wait_for("an announce", limit, |process| {
            let told = |line: &str| line.starts_with("dht_announce ") && line.contains(hash);
            process.stderr().lines().any(told).then_some(())
        });
    }
}
