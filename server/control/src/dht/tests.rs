//! Nodes on loopback sockets: they find each other, announce, find, and keep what they know.

use super::*;
use engine::peer_list::PeerSource;
use proto::dht::{Contact, NodeId};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Longest wait for anything.
const LIMIT: Duration = Duration::from_secs(60);

fn config(ip: IpAddr, bootstrap: &[SocketAddr]) -> DhtConfig {
    let key = || std::array::from_fn(|_| fastrand::u8(..));
    DhtConfig {
        listen: vec![ip],
        interface: None,
        port: 0,
        any_port: false,
        bootstrap: bootstrap.iter().map(SocketAddr::to_string).collect(),
        read_only: false,
        announce_interval: Duration::from_secs(1_200),
        queries_per_second: 1_000,
        reply_bytes_per_second: 1 << 20,
        stored_peers_max: 1_000,
        saved: None,
        keys: [key(), key()],
    }
}

fn start(config: &DhtConfig, peer_port: u16) -> DhtHandle {
    let cells = seedring_metrics::Registry::new(1).control();
    Dht::start(config, peer_port, cells).expect("a port of loopback")
}

/// Takes the peers that are found.
#[derive(Default)]
struct Found {
    peers: Mutex<Vec<SocketAddr>>,
    changed: Notify,
}

impl PeerSink for Found {
    fn found(&self, peers: &[SocketAddr], source: PeerSource) {
        assert_eq!(source, PeerSource::Dht);
        self.peers.lock().unwrap().extend(peers);
        self.changed.notify_one();
    }
}

impl Found {
    async fn wait_for(&self, peer: SocketAddr) {
        let found = async {
            while !self.peers.lock().unwrap().contains(&peer) {
                self.changed.notified().await;
            }
        };
        let in_time = tokio::time::timeout(LIMIT, found).await;
        assert!(in_time.is_ok(), "{peer} was not found");
    }
}

/// A network of so many nodes that know the first.
fn network(ip: IpAddr, count: usize) -> Vec<DhtHandle> {
    let mut nodes = vec![start(&config(ip, &[]), 1)];
    let first = nodes[0].addresses()[0];
    while nodes.len() < count {
        nodes.push(start(&config(ip, &[first]), 1));
    }
    nodes
}

async fn what_is_announced_is_found_at(ip: IpAddr) {
    let nodes = network(ip, 8);
    let first = nodes[0].addresses()[0];
    let torrent = InfoHashV1([0x5a; 20]);
    let seed = start(&config(ip, &[first]), 4_321);
    assert!(seed.announce(torrent, false, Arc::new(Found::default())));
    let reader = DhtConfig {
        read_only: true,
        ..config(ip, &[first])
    };
    let reader = start(&reader, 1_234);
    let found = Arc::new(Found::default());
    assert!(reader.find(torrent, false, Arc::clone(&found) as _));
    found.wait_for(SocketAddr::new(ip, 4_321)).await;
    reader.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_announced_is_found() {
    what_is_announced_is_found_at(Ipv4Addr::LOCALHOST.into()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_announced_over_ipv6_is_found() {
    what_is_announced_is_found_at(Ipv6Addr::LOCALHOST.into()).await;
}

/// A search finds what is announced though a node that it was told of is dead; that it does not
/// wait for that one is shown in virtual time beside the schedule.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_hinders_no_search() {
    let ip = Ipv4Addr::LOCALHOST.into();
    let nodes = network(ip, 4);
    let first = nodes[0].addresses()[0];
    let torrent = InfoHashV1([0x5a; 20]);
    nodes[3].announce(torrent, false, Arc::new(Found::default()));
    let witness = start(&config(ip, &[first]), 1);
    let found = Arc::new(Found::default());
    witness.look(torrent, Arc::clone(&found) as _);
    found.wait_for(SocketAddr::new(ip, 1)).await;
    let deaf = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let bootstrap = [first, deaf.local_addr().unwrap()];
    let reader = start(&config(ip, &bootstrap), 1_234);
    let found = Arc::new(Found::default());
    reader.look(torrent, Arc::clone(&found) as _);
    found.wait_for(SocketAddr::new(ip, 1)).await;
    let is_told = || {
        let (known, peers) = reader.status(torrent);
        known > 0 && peers > Some(0)
    };
    let told = async {
        while !is_told() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, told)
        .await
        .expect("what `get` says while it waits");
}

/// BEP 27: a private torrent is neither announced nor looked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_private_torrent_is_refused() {
    let node = start(&config(Ipv4Addr::LOCALHOST.into(), &[]), 1);
    let torrent = InfoHashV1([1; 20]);
    let sink = Arc::new(Found::default());
    assert!(!node.announce(torrent, true, Arc::clone(&sink) as _));
    assert!(!node.find(torrent, true, Arc::clone(&sink) as _));
    assert_eq!(node.shared.state().schedule.len(), 0);
    assert!(node.announce(torrent, false, sink));
    assert_eq!(node.shared.state().schedule.len(), 1);
}

/// The nodes of the last run are enough to begin with.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_known_is_kept_for_the_next_start() {
    let ip = Ipv4Addr::LOCALHOST.into();
    let folder = tempfile::tempdir().unwrap();
    let saved = Some(folder.path().join("dht.nodes"));
    let nodes = network(ip, 5);
    let first = nodes[0].addresses()[0];
    let with = |bootstrap: &[SocketAddr]| DhtConfig {
        saved: saved.clone(),
        ..config(ip, bootstrap)
    };
    let torrent = InfoHashV1([0x5a; 20]);
    nodes[4].announce(torrent, false, Arc::new(Found::default()));
    for bootstrap in [&[first][..], &[]] {
        let node = start(&with(bootstrap), 1_234);
        let found = Arc::new(Found::default());
        node.find(torrent, false, Arc::clone(&found) as _);
        found.wait_for(SocketAddr::new(ip, 1)).await;
        node.shutdown().await;
    }
    let kept = saved::read(saved.as_deref().unwrap());
    assert!(!kept[0].nodes.is_empty());
    assert!(kept[0].id.is_some());
}

/// A `get` beside a server, or after it, adds what it knows and leaves the server its id.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_soon_gone_leaves_the_id_and_the_nodes_of_others() {
    let ip = Ipv4Addr::LOCALHOST.into();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dht.nodes");
    let node = |byte: u8| Contact {
        id: NodeId([byte; 20]),
        address: (Ipv4Addr::LOCALHOST, 1 + u16::from(byte)).into(),
    };
    let of = |byte| saved::Saved {
        id: Some(NodeId([byte; 20])),
        nodes: vec![node(byte)],
    };
    saved::write(&path, &[of(1), of(2)]).unwrap();
    let nodes = network(ip, 3);
    let torrent = InfoHashV1([0x5a; 20]);
    nodes[2].announce(torrent, false, Arc::new(Found::default()));
    let reader = start(
        &DhtConfig {
            read_only: true,
            saved: Some(path.clone()),
            ..config(ip, &[nodes[0].addresses()[0]])
        },
        1_234,
    );
    let found = Arc::new(Found::default());
    reader.find(torrent, false, Arc::clone(&found) as _);
    found.wait_for(SocketAddr::new(ip, 1)).await;
    reader.shutdown().await;
    let kept = saved::read(&path);
    assert_eq!(kept[0].id, Some(NodeId([1; 20])));
    assert!(kept[0].nodes.len() > 1 && kept[0].nodes.contains(&node(1)));
    // It had no node of the other family.
    assert_eq!(kept[1].id, Some(NodeId([2; 20])));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_refused_or_passed_over() {
    let ip = Ipv4Addr::LOCALHOST.into();
    let first = start(&config(ip, &[]), 1);
    let port = first.addresses()[0].port();
    let taken = DhtConfig {
        port,
        ..config(ip, &[])
    };
    let cells = seedring_metrics::Registry::new(1).control();
    let refused = Dht::start(&taken, 1, Arc::clone(&cells));
    assert!(matches!(refused, Err(DhtError::Socket { .. })));
    let other = DhtConfig {
        any_port: true,
        ..taken
    };
    let other = start(&other, 1);
    assert_ne!(other.addresses()[0].port(), port);
    let none = DhtConfig {
        listen: Vec::new(),
        ..config(ip, &[])
    };
    assert!(matches!(
        Dht::start(&none, 1, cells),
        Err(DhtError::NoAddress)
    ));
}

/// Of what is only looked for nobody is told: a second one who looks finds nobody.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_only_looked_for_is_not_announced() {
    let ip = Ipv4Addr::LOCALHOST.into();
    let nodes = network(ip, 8);
    let first = nodes[0].addresses()[0];
    let (public, unknown) = (InfoHashV1([0x5a; 20]), InfoHashV1([0x5b; 20]));
    let seed = start(&config(ip, &[first]), 4_321);
    seed.announce(public, false, Arc::new(Found::default()));
    seed.announce(unknown, false, Arc::new(Found::default()));
    let downloader = start(&config(ip, &[first]), 1_234);
    let found = Arc::new(Found::default());
    downloader.find(public, false, Arc::clone(&found) as _);
    found.wait_for(SocketAddr::new(ip, 4_321)).await;
    let found = Arc::new(Found::default());
    downloader.look(unknown, Arc::clone(&found) as _);
    found.wait_for(SocketAddr::new(ip, 4_321)).await;
    let reader = start(&config(ip, &[first]), 5_678);
    let (of_public, of_unknown) = (Arc::new(Found::default()), Arc::new(Found::default()));
    reader.look(public, Arc::clone(&of_public) as _);
    of_public.wait_for(SocketAddr::new(ip, 1_234)).await;
    reader.look(unknown, Arc::clone(&of_unknown) as _);
    of_unknown.wait_for(SocketAddr::new(ip, 4_321)).await;
    let told = of_unknown.peers.lock().unwrap().clone();
    assert!(!told.contains(&SocketAddr::new(ip, 1_234)), "{told:?}");
    reader.shutdown().await;
}
