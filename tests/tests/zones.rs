//! The embedded tracker's zones: who asks from a network that has a label is given peers of his own
//! zone first, by UDP and by HTTP. Peers are sockets at many addresses, in a network of their own.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use seedring_tests::bencode::decode;
use seedring_tests::content::KIB;
use seedring_tests::http::{self, split_url};
use seedring_tests::lan;
use seedring_tests::need;
use seedring_tests::server::Seed;
use seedring_tests::single::Single;
use seedring_tests::torrent::Torrent;
use seedring_tests::udp_tracker::Asker;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

/// The networks of three zones, the last of them within the second, and one that has no label.
const NETWORKS: [[u8; 3]; 4] = [[10, 1, 0], [10, 2, 0], [10, 2, 64], [10, 3, 0]];
const ZONES: &str = "10.1.0.0/16=rack-1,10.2.0.0/16=rack-2,10.2.64.0/18=rack-3,10.4.0.0/16=rack-4";
/// Peers in each of them.
const PEERS: u8 = 20;
/// What is asked for, and how much of that is kept for the asker's own zone.
const WANTED: u32 = 8;
const OWN: usize = 6;
/// How often each asker asks: what is left to chance shows.
const TIMES: usize = 20;

/// The tracker, and what it is asked about.
struct Swarm {
    tracker: SocketAddr,
    info_hash: [u8; 20],
}

impl Swarm {
    /// Announces a peer at this address, and returns whom it is told of.
    fn announce(&self, [a, b, c]: [u8; 3], host: u8, wanted: u32) -> Vec<SocketAddrV4> {
        let ip = Ipv4Addr::new(a, b, c, host);
        let asker = Asker::at(ip.into(), self.tracker);
        asker.announce(&self.info_hash, &peer_id(ip), 7000, wanted)
    }

    /// The same by HTTP.
    fn announce_by_http(&self, [a, b, c]: [u8; 3], host: u8) -> Vec<SocketAddrV4> {
        let ip = Ipv4Addr::new(a, b, c, host);
        let escaped = |bytes: &[u8]| -> String {
            let digits = bytes.iter().map(|byte| format!("%{byte:02x}"));
            digits.collect()
        };
        let path = format!(
            "/announce?info_hash={}&peer_id={}&port=7000&uploaded=0&downloaded=0&left=1&compact=1&numwant={WANTED}",
            escaped(&self.info_hash),
            escaped(&peer_id(ip)),
        );
        let reply = http::get_from(ip.into(), &format!("http://{}{path}", self.tracker));
        let (answer, _) = decode(&reply.body);
        let peers = answer
            .get("peers")
            .unwrap()
            .bytes()
            .as_chunks::<6>()
            .0
            .iter();
        peers
            .map(|&[a, b, c, d, high, low]| {
                SocketAddrV4::new([a, b, c, d].into(), u16::from_be_bytes([high, low]))
            })
            .collect()
    }
}

/// A peer id that nobody has twice.
fn peer_id(ip: Ipv4Addr) -> [u8; 20] {
    let mut id = *b"-XX0000-........test";
    let digits = format!("{:08x}", u32::from(ip));
    id[8..16].copy_from_slice(digits.as_bytes());
    id
}

/// How many of these are in a network.
fn within(peers: &[SocketAddrV4], network: [u8; 3]) -> usize {
    let is_in = |peer: &&SocketAddrV4| peer.ip().octets()[..3] == network;
    peers.iter().filter(is_in).count()
}

#[test]
fn who_asks_is_given_peers_of_his_own_zone_first() {
    let test = "who_asks_is_given_peers_of_his_own_zone_first";
    if !need!(test, lan::inside(test)) {
        return;
    }
    lan::ip_here("link set lo up");
    // All of these addresses are this host's.
    lan::ip_here("route add local 10.0.0.0/8 dev lo");
    let content = Single::new(32 * KIB, 1, &[]);
    let server = Seed::torrent(&content.torrent, &content.data_dir())
        .setting("tracker", "zones", ZONES)
        .setting("tracker", "announce_host", "10.9.9.9")
        .start();
    let announce = server.ready.tracker.clone().unwrap();
    let swarm = Swarm {
        tracker: split_url(&announce).0.parse().unwrap(),
        info_hash: Torrent::read(&content.torrent).info_hash,
    };
    for network in NETWORKS {
        for host in 1..=PEERS {
            swarm.announce(network, host, 0);
        }
    }

    for network in &NETWORKS[..3] {
        let mut elsewhere = 0;
        for _ in 0..TIMES {
            let peers = swarm.announce(*network, 200, WANTED);
            let own = within(&peers, *network);
            assert_eq!(peers.len(), WANTED as usize, "{peers:?}");
            assert!(own >= OWN, "{network:?}: {peers:?}");
            elsewhere += peers.len() - own;
        }
        // A quarter is drawn from all, of whom most are elsewhere: a zone is no island.
        assert!(elsewhere > 0, "{network:?}");
        let peers = swarm.announce_by_http(*network, 201);
        assert_eq!(peers.len(), WANTED as usize, "{peers:?}");
        assert!(within(&peers, *network) >= OWN, "{network:?}: {peers:?}");
    }

    // Whoever has no zone is given whomever it may be.
    let mut seen = [0; 4];
    for _ in 0..TIMES {
        let peers = swarm.announce(NETWORKS[3], 200, WANTED);
        assert_eq!(peers.len(), WANTED as usize, "{peers:?}");
        for (seen, network) in seen.iter_mut().zip(NETWORKS) {
            *seen += within(&peers, network);
        }
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");

    // Where a zone has few, they are given first, and the rest of the places go to others.
    let few = [10, 4, 0];
    for host in 1..=2 {
        swarm.announce(few, host, 0);
    }
    let peers = swarm.announce(few, 200, WANTED);
    assert_eq!(
        (peers.len(), within(&peers, few)),
        (WANTED as usize, 2),
        "{peers:?}"
    );
}
