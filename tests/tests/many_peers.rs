//! 2,000 connected peers on the default configuration: memory and descriptors stay under what the ready line
//! promised, everyone can be served, and both return when the peers leave.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use seedring_tests::fixture::Fixture;
use seedring_tests::need;
use seedring_tests::oracle::Oracle;
use seedring_tests::peer::{Extensions, Peer, connect_from};
use seedring_tests::skip::Skip;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

const PEERS: usize = 2_000;

/// Raises this process's own soft limit: it holds one descriptor for each peer.
fn raise_descriptor_limit() -> Result<(), Skip> {
    let needed = PEERS as u64 + 200;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    if limit.maximum.is_some_and(|maximum| maximum < needed) {
        let reason = format!(
            "the hard limit of descriptors is {:?}, not {needed}",
            limit.maximum
        );
        return Err(Skip::machine(reason));
    }
    let raised = Rlimit {
        current: Some(needed),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised)
        .map_err(|error| Skip::machine(format!("setrlimit: {error}")))
}

/// A loopback address of its own for each few peers, as in a real swarm.
fn source(number: usize) -> IpAddr {
    let number = u8::try_from(number / 20).unwrap();
    IpAddr::V4(Ipv4Addr::new(127, 7, number, 1))
}

#[test]
fn two_thousand_peers_stay_within_the_promise() {
    need!(
        "two_thousand_peers_stay_within_the_promise",
        raise_descriptor_limit()
    );
    let mut fixture = Fixture::start();
    let torrents = [fixture.target.clone(), fixture.other.clone()];
    let torrents: Vec<_> = torrents.iter().collect();
    let memory_max = fixture
        .server
        .ready
        .memory_bytes_max
        .expect("memory_bytes_max is printed");
    let descriptors_max = fixture
        .server
        .ready
        .descriptors_max
        .expect("descriptors_max is printed");
    let oracle = Oracle::before(&fixture.server, &torrents);
    let before = fixture.server.memory_bytes();

    let address = fixture.server.address();
    let mut peers: Vec<Peer> = (0..PEERS)
        .map(|number| {
            let stream = connect_from(source(number), address)
                .unwrap_or_else(|error| panic!("connect {number}: {error}"));
            Peer::from_stream(stream, &torrents[number % 2].info_hash, Extensions::All)
                .unwrap_or_else(|error| panic!("handshake {number}: {error}"))
        })
        .collect();
    for (number, peer) in peers.iter_mut().enumerate() {
        peer.unchoked()
            .unwrap_or_else(|error| panic!("unchoke {number}: {error}"));
    }
    within(&fixture, memory_max, descriptors_max, before, "idle");
    for (number, peer) in peers.iter_mut().enumerate() {
        let piece = u32::try_from(number % 20).unwrap();
        let data = peer.piece(torrents[number % 2], piece);
        let data = data.unwrap_or_else(|error| panic!("peer {number}: {error}"));
        let data = data.unwrap_or_else(|| panic!("peer {number}: rejected"));
        assert!(
            torrents[number % 2].is_piece(piece, &data),
            "peer {number}: wrong bytes"
        );
    }
    within(&fixture, memory_max, descriptors_max, before, "served");
    // All at once: each asks for a whole piece before any answer is read.
    for (number, peer) in peers.iter_mut().enumerate() {
        for at in 0..16 {
            let block = seedring_tests::peer::BLOCK;
            peer.request(u32::try_from(number % 19).unwrap(), at * block, block)
                .unwrap();
        }
    }
    std::thread::sleep(Duration::from_millis(500));
    within(&fixture, memory_max, descriptors_max, before, "all asking");
    drop(peers);
    let until = Instant::now() + Duration::from_secs(15);
    while fixture.server.memory_bytes() > memory_max / 2 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100));
    }
    oracle.check(&mut fixture.server, &torrents);
}

fn within(fixture: &Fixture, memory_max: u64, descriptors_max: u64, before: u64, when: &str) {
    let memory = fixture.server.memory_bytes();
    let descriptors = fixture.server.descriptors() as u64;
    let each = memory.saturating_sub(before) / PEERS as u64;
    println!("{when}: {memory} bytes ({each} a peer) of {memory_max}, {descriptors} descriptors");
    assert!(
        memory <= memory_max,
        "{when}: {memory} bytes, promised {memory_max}"
    );
    assert!(
        descriptors <= descriptors_max,
        "{when}: {descriptors}, promised {descriptors_max}"
    );
    assert!(
        descriptors >= PEERS as u64,
        "{when}: only {descriptors} descriptors"
    );
}
