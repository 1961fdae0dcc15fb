//! The data plane over loopback. Waits end when their event comes; the limits on them only end a
//! failed test.

use super::*;
use crate::own_limits::TorrentLimits;
use crate::testing::{self, Data, PIECE_BYTES};
use engine::peer_list::SourceCounts;
use proto::handshake::{HANDSHAKE_BYTES, Reserved, ReservedBit};
use proto::ids::PieceIndex;
use proto::wire::{self, BlockRequest, Message};
use seedring_metrics::{Counter, Gauge};
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running data plane with one torrent, and the runtime to call it from.
struct Served {
    plane: Plane,
    registry: Registry,
    _events: mpsc::UnboundedReceiver<Event>,
    torrent: Arc<SeededTorrent>,
    runtime: tokio::runtime::Runtime,
}

fn serve(config: PlaneConfig, data: &Data) -> Served {
    let registry = Registry::new(config.shards);
    let (plane, events) = Plane::start(config, &registry).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let torrent = data.torrent();
    runtime.block_on(plane.add(&torrent));
    Served {
        plane,
        registry,
        _events: events,
        torrent,
        runtime,
    }
}

impl Served {
    /// A peer with the fast extension that has been unchoked; its receive buffer is small.
    fn peer(&self) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&self.plane.addresses()[0].into()).unwrap();
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let handshake = proto::handshake::Handshake {
            reserved: Reserved::NONE.with(ReservedBit::FAST),
            info_hash: self.torrent.info_hash(),
            peer_id: PeerId(*b"-XX0000-testtesttest"),
        };
        stream.write_all(&handshake.encode()).unwrap();
        stream.read_exact(&mut [0; HANDSHAKE_BYTES]).unwrap();
        stream.write_all(&encoded(&Message::Interested)).unwrap();
        while read_message(&mut stream).first() != Some(&wire::id::UNCHOKE) {}
        stream
    }

    fn stop(self) {
        assert!(self.runtime.block_on(self.plane.stop(PATIENCE)));
    }
}

fn encoded(message: &Message<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    bytes
}

fn block(begin: usize, length: usize) -> BlockRequest {
    BlockRequest {
        piece: PieceIndex((begin / PIECE_BYTES) as u32),
        begin: (begin % PIECE_BYTES) as u32,
        length: length as u32,
    }
}

/// The next message without its length prefix.
fn read_message(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut body = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut body).unwrap();
    body
}

/// Asks for a block and compares what comes.
fn fetch(stream: &mut TcpStream, data: &Data, begin: usize, length: usize) {
    let request = Message::Request(block(begin, length));
    stream.write_all(&encoded(&request)).unwrap();
    let mut answer = read_message(stream);
    while answer.first() != Some(&wire::id::PIECE) {
        assert_ne!(answer.first(), Some(&wire::id::REJECT));
        answer = read_message(stream);
    }
    let bytes = std::fs::read(data.path(0)).unwrap();
    assert!(answer[9..] == bytes[begin..begin + length]);
}

/// Writes requests and their cancels, reading none of the rejects, until the server reads no more:
/// its sockets are full then.
fn fill_with_rejects(stream: &mut TcpStream) {
    let request = block(PIECE_BYTES, 16 << 10);
    let mut pairs = encoded(&Message::Request(request));
    pairs.extend(encoded(&Message::Cancel(request)));
    let storm = pairs.repeat(4096);
    let until_full = Duration::from_millis(300);
    stream.set_write_timeout(Some(until_full)).unwrap();
    let full = (0..1000).find_map(|_| stream.write_all(&storm).err());
    assert_eq!(full.unwrap().kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_peer_gets_the_bytes_of_the_file() {
    let data = Data::new(&[("a", 3 * PIECE_BYTES)]);
    let served = serve(testing::config(), &data);
    let mut peer = served.peer();
    for begin in [0, 16 << 10, PIECE_BYTES, 3 * PIECE_BYTES - 1000] {
        fetch(&mut peer, &data, begin, 1000);
    }
    let torrent = Arc::clone(&served.torrent);
    served.stop();
    assert_eq!(torrent.uploaded_bytes(), 4000);
}

#[test]
fn a_peer_that_does_not_read_holds_up_nobody_at_a_rate_limit() {
    let data = Data::new(&[("a", 4 * PIECE_BYTES)]);
    let mut config = testing::config();
    config.rates.global = 32 << 10;
    let served = serve(config, &data);
    let mut full = served.peer();
    // Two such blocks are the burst; the third waits some seconds for its bytes, first in the line.
    let large = 128 << 10;
    for begin in [0, large, 2 * PIECE_BYTES] {
        let request = Message::Request(block(begin, large));
        full.write_all(&encoded(&request)).unwrap();
    }
    // Now its rejects wait too, until it is closed as stalled after two minutes.
    fill_with_rejects(&mut full);
    fetch(&mut served.peer(), &data, 0, 1000);
    served.stop();
}

#[test]
fn a_torrent_that_was_removed_is_served_no_more() {
    let data = Data::new(&[("a", PIECE_BYTES)]);
    let served = serve(testing::config(), &data);
    let mut peer = served.peer();
    fetch(&mut peer, &data, 0, 1000);
    served
        .runtime
        .block_on(served.plane.remove(&served.torrent));
    assert_eq!(peer.read(&mut [0; 1]).unwrap_or(0), 0, "it is closed");
    served.stop();
}

#[test]
fn stopping_closes_peers_in_every_state() {
    let data = Data::new(&[("a", 4 * PIECE_BYTES)]);
    let mut config = testing::config();
    config.rates.global = 1;
    let served = serve(config, &data);
    let _ungreeted = TcpStream::connect(served.plane.addresses()[0]).unwrap();
    let _idle = served.peer();
    let mut full = served.peer();
    let mut waiting = served.peer();
    for begin in [0, 128 << 10, PIECE_BYTES] {
        let request = encoded(&Message::Request(block(begin, 128 << 10)));
        full.write_all(&request).unwrap();
        waiting.write_all(&request).unwrap();
    }
    fill_with_rejects(&mut full);
    served.stop();
}

#[test]
fn who_comes_by_itself_is_counted_as_such() {
    let data = Data::new(&[("a", PIECE_BYTES)]);
    let served = serve(testing::config(), &data);
    let peers = [served.peer(), served.peer()];
    let found = |served: &Served| {
        let snapshot = served.registry.snapshot();
        snapshot.counter(Counter::FoundIncoming)
    };
    assert_eq!(found(&served), 2);
    // Gauges are renewed once a second.
    let until = std::time::Instant::now() + PATIENCE;
    let connected = |source| served.registry.snapshot().gauge(source);
    while connected(Gauge::ConnectedIncoming) != 2 {
        assert!(std::time::Instant::now() < until);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(connected(Gauge::ConnectedTracker), 0);
    let torrent = &served.torrent;
    assert_eq!(torrent.peers(), (2, 0));
    let of = |counts: SourceCounts| counts.get(PeerSource::Incoming);
    assert_eq!(of(torrent.named_by_source()), 2);
    assert_eq!(of(torrent.peers_by_source()), 2);
    let seen = served.plane.peers(torrent.info_hash());
    let seen = served.runtime.block_on(seen);
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|peer| peer.is_incoming));
    assert!(
        seen.iter()
            .all(|peer| peer.peer_interested && !peer.am_choking)
    );
    let other = served.plane.peers(InfoHashV1([0; 20]));
    assert_eq!(served.runtime.block_on(other), []);
    drop(peers);
    while torrent.peers().0 > 0 {
        assert!(std::time::Instant::now() < until);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(of(torrent.peers_by_source()), 0);
    assert_eq!(of(torrent.named_by_source()), 2);
    served.stop();
}

/// Whose listening port nobody knows is a peer as others are.
#[test]
fn a_seeds_peers_are_no_more_than_its_own_limit() {
    let data = Data::new(&[("a", PIECE_BYTES)]);
    let served = serve(testing::config(), &data);
    let peers = [served.peer(), served.peer()];
    let limits = TorrentLimits {
        peers_max: Some(1),
        ..TorrentLimits::default()
    };
    served.plane.set_torrent_limits(&served.torrent, limits);
    let until = std::time::Instant::now() + PATIENCE;
    while served.torrent.peers().0 != 1 {
        assert!(std::time::Instant::now() < until);
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut third = TcpStream::connect(served.plane.addresses()[0]).unwrap();
    let handshake = proto::handshake::Handshake {
        reserved: Reserved::NONE,
        info_hash: served.torrent.info_hash(),
        peer_id: PeerId(*b"-XX0000-testtesttest"),
    };
    third.write_all(&handshake.encode()).unwrap();
    assert_eq!(third.read(&mut [0; 1]).unwrap_or(0), 0, "it is closed");
    drop(peers);
    served.stop();
}

/// Whoever connects again and again cannot pile up what the main task has no time for.
#[test]
fn nodes_that_peers_tell_of_are_dropped_when_too_many_wait() {
    let door = Arc::new(DhtDoor::default());
    let node: SocketAddr = "9.9.9.9:6881".parse().unwrap();
    assert!(door.heard_of(node).is_none(), "there is no DHT");
    door.open([Some(4), None]);
    let mut waiting: Vec<HeardNode> = (0..NODES_WAITING_MAX)
        .map(|_| door.heard_of(node).unwrap())
        .collect();
    assert!(door.heard_of(node).is_none());
    assert!(door.heard_of(node).is_none());
    // Who is taken makes room for one.
    assert_eq!(waiting.pop().unwrap().address, node);
    let next = door.heard_of(node);
    assert!(next.is_some() && door.heard_of(node).is_none());
    drop(waiting);
}

/// A node of the IPv6 DHT is of no use to who knows us by IPv4 (BEP 32).
#[test]
fn peers_are_told_of_the_node_of_their_own_family() {
    let door = Arc::new(DhtDoor::default());
    let [v4, v6, mapped] = ["9.9.9.9", "2600::1", "::ffff:9.9.9.9"].map(|ip| ip.parse().unwrap());
    assert!(!door.is_open() && door.port_for(v4).is_none());
    door.open([Some(4), None]);
    assert!(door.is_open());
    assert_eq!(
        [v4, v6, mapped].map(|ip| door.port_for(ip)),
        [Some(4), None, Some(4)]
    );
    door.open([None, Some(6)]);
    assert_eq!(
        [v4, v6, mapped].map(|ip| door.port_for(ip)),
        [None, Some(6), None]
    );
}
