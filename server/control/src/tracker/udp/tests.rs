//! Datagrams in virtual time, and over real sockets.

use std::net::Ipv4Addr;
use std::sync::RwLock;

use proto::ids::{InfoHashV1, PeerId};
use proto::tracker::udp::{InfoHashes, UrlData};
use proto::tracker::{AnnounceEvent, AnnounceSuccess};
use seedring_metrics::Registry;

use super::super::zones::Zones;
use super::super::{Flood, Store, TrackerConfig};
use super::*;

const HASH: InfoHashV1 = InfoHashV1([7; 20]);
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const ASKED: TransactionId = TransactionId(0x0102_0304);

/// A tracker without sockets.
fn inner(config: TrackerConfig) -> Inner {
    let inner = Inner {
        store: Store::new(config.open, config.limits),
        flood: Flood::new(config.requests_per_second_max, config.requests_burst_max),
        zones: RwLock::new(Arc::new(Zones::new(&config.zones))),
        connection_ids: ConnectionIds::new(),
        cells: Registry::new(0).control(),
        start: std::time::Instant::now(),
        config,
    };
    inner.store.allow(HASH);
    inner
}

fn seconds(seconds: u64) -> Time {
    Time(0) + Duration::from_secs(3600 + seconds)
}

fn source(number: u8) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(203, 0, 113, number).into(), 40_000)
}

fn announce(number: u8) -> UdpAnnounce {
    UdpAnnounce {
        info_hash: HASH,
        peer_id: PeerId([number; 20]),
        downloaded_bytes: 0,
        left_bytes: 1,
        uploaded_bytes: 0,
        event: AnnounceEvent::Started,
        ip: 0,
        key: number.into(),
        peers_wanted: None,
        port: 6881,
    }
}

fn datagram(request: &UdpRequest<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    request.encode(&mut out);
    out
}

fn announcing(connection: UdpConnectionId, announce: UdpAnnounce) -> Vec<u8> {
    datagram(&UdpRequest::Announce {
        connection,
        transaction: ASKED,
        announce,
        url_data: UrlData::new(b"/announce"),
    })
}

/// Asks; answers the decoded reply.
fn ask(server: &mut Server<'_>, now: Time, from: SocketAddr, request: &[u8]) -> Option<UdpReply> {
    let reply = server.answer(now, from, LOCAL, request)?;
    let reply = UdpReply::decode(reply, AddressFamily::of(from)).unwrap();
    assert_eq!(reply.transaction(), ASKED);
    Some(reply)
}

fn connect(server: &mut Server<'_>, now: Time, from: SocketAddr) -> UdpConnectionId {
    let request = datagram(&UdpRequest::Connect { transaction: ASKED });
    match ask(server, now, from, &request) {
        Some(UdpReply::Connect { connection, .. }) => connection,
        other => panic!("{other:?}"),
    }
}

fn success(reply: Option<UdpReply>) -> AnnounceSuccess {
    match reply {
        Some(UdpReply::Announce { success, .. }) => success,
        other => panic!("{other:?}"),
    }
}

fn reason(reply: Option<UdpReply>) -> String {
    match reply {
        Some(UdpReply::Error { failure, .. }) => failure.reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn peers_find_each_other() {
    let inner = inner(TrackerConfig::default());
    let mut server = Server::new(&inner);
    let first = connect(&mut server, seconds(0), source(1));
    let request = announcing(first, announce(1));
    let reply = success(ask(&mut server, seconds(0), source(1), &request));
    assert_eq!((reply.complete, reply.incomplete), (Some(0), Some(1)));
    assert!(reply.peers.is_empty());
    assert!((1800..=1980).contains(&reply.interval.seconds));

    let second = connect(&mut server, seconds(1), source(2));
    let request = announcing(second, announce(2));
    let reply = success(ask(&mut server, seconds(1), source(2), &request));
    let found: Vec<SocketAddr> = reply.peers.iter().map(|peer| peer.address).collect();
    assert_eq!(found, [SocketAddr::new(source(1).ip(), 6881)]);

    let request = datagram(&UdpRequest::Scrape {
        connection: second,
        transaction: ASKED,
        info_hashes: InfoHashes::new(&[InfoHashV1([9; 20]), HASH]),
    });
    let Some(UdpReply::Scrape { files, .. }) = ask(&mut server, seconds(2), source(2), &request)
    else {
        panic!("no scrape")
    };
    let counts: Vec<(u32, u32)> = files
        .iter()
        .map(|of| (of.complete, of.incomplete))
        .collect();
    assert_eq!(counts, [(0, 0), (0, 2)]);
}

/// BEP 15: a client may use its id for a minute, a tracker should take it for two.
#[test]
fn a_connection_id_holds_for_its_address_and_its_time() {
    let inner = inner(TrackerConfig::default());
    let mut server = Server::new(&inner);
    let id = connect(&mut server, seconds(0), source(1));
    let request = announcing(id, announce(1));
    success(ask(&mut server, seconds(60), source(1), &request));
    // Another port of the same address is the same host: NAT may move it.
    let moved = SocketAddr::new(source(1).ip(), 50_000);
    success(ask(&mut server, seconds(60), moved, &request));
    let again = "connect again";
    assert_eq!(
        reason(ask(&mut server, seconds(60), source(2), &request)),
        again
    );
    assert_eq!(
        reason(ask(&mut server, seconds(120), source(1), &request)),
        again
    );
    let refused = inner
        .cells
        .counter(ControlCounter::TrackerRefusedConnectionId);
    assert_eq!(refused, 2);
    assert_eq!(inner.store.sizes(), (1, 1));
}

/// RELIABILITY.md E3 for the tracker: who has not proved its address gets no more than it sent.
#[test]
fn nobody_is_flooded_in_anothers_name() {
    let inner = inner(TrackerConfig::default());
    let mut server = Server::new(&inner);
    for number in 0..200 {
        let from = source(number);
        let id = connect(&mut server, seconds(0), from);
        server.answer(seconds(0), from, LOCAL, &announcing(id, announce(number)));
    }
    let mut random = fastrand::Rng::with_seed(3);
    let victim = source(250);
    let requests = [
        datagram(&UdpRequest::Connect { transaction: ASKED }),
        announcing(UdpConnectionId(1), announce(250)),
        datagram(&UdpRequest::Scrape {
            connection: UdpConnectionId(1),
            transaction: ASKED,
            info_hashes: InfoHashes::new(&[HASH]),
        }),
    ];
    let mut answered = 0;
    for request in &requests {
        for length in 0..=request.len() {
            let mut request = request[..length].to_vec();
            for _ in 0..50 {
                let reply = server.answer(seconds(1), victim, LOCAL, &request);
                answered += usize::from(reply.is_some());
                assert!(reply.map_or(0, <[u8]>::len) <= request.len(), "{request:?}");
                if let Some(byte) = random.choice(&mut request) {
                    *byte = random.u8(..);
                }
            }
        }
    }
    assert!(answered > 0);
}

#[test]
fn a_reply_fits_a_datagram_that_is_never_cut_into_fragments() {
    let inner = inner(TrackerConfig::default());
    let mut server = Server::new(&inner);
    for v6 in [false, true] {
        let mut last = 0;
        for number in 0..300_u16 {
            let ip = match v6 {
                false => IpAddr::from([198, 18, (number >> 8) as u8, number as u8]),
                true => IpAddr::from([0x2001, 0xdb8, 0, number, 0, 0, 0, 1]),
            };
            let from = SocketAddr::new(ip, 40_000);
            let id = connect(&mut server, seconds(0), from);
            let mut peer = announce(1);
            peer.peer_id.0[..2].copy_from_slice(&number.to_be_bytes());
            peer.peer_id.0[2] = u8::from(v6);
            (peer.peers_wanted, peer.key) = (Some(1000), number.into());
            let request = announcing(id, peer);
            let reply = server.answer(seconds(0), from, LOCAL, &request).unwrap();
            assert!(reply.len() <= REPLY_BYTES_MAX, "{}", reply.len());
            let reply = success(ask(&mut server, seconds(0), from, &request));
            assert_eq!(reply.peers_dropped, 0);
            assert!(reply.peers.iter().all(|peer| peer.address.is_ipv6() == v6));
            last = reply.peers.len();
        }
        assert_eq!(last, if v6 { 67 } else { 200 });
    }
}

#[test]
fn refusals_say_why() {
    let config = TrackerConfig {
        requests_per_second_max: 1,
        requests_burst_max: 3,
        ..TrackerConfig::default()
    };
    let inner = inner(config);
    let mut server = Server::new(&inner);
    let id = connect(&mut server, seconds(0), source(1));
    let unlisted = UdpAnnounce {
        info_hash: InfoHashV1([9; 20]),
        ..announce(1)
    };
    let reply = ask(
        &mut server,
        seconds(0),
        source(1),
        &announcing(id, unlisted),
    );
    assert_eq!(reason(reply), "this torrent is not served by this tracker");
    // Cut short, but with an id that holds: worth a word.
    let short = &announcing(id, announce(1))[..97];
    let reply = ask(&mut server, seconds(0), source(1), short);
    assert!(reason(reply).contains("98"), "the length that is due");
    // The rate of one address: of the burst of three, one is used.
    let request = announcing(id, announce(1));
    let taken = (0..10)
        .filter(|_| {
            server
                .answer(seconds(0), source(1), LOCAL, &request)
                .is_some()
        })
        .count();
    assert_eq!(taken, 2);
    // Connects do not count: they are no more than what anybody can send in its name.
    for _ in 0..10 {
        connect(&mut server, seconds(0), source(1));
    }
}

/// A client on a socket of its own.
struct Client {
    socket: UdpSocket,
    family: AddressFamily,
}

impl Client {
    fn new(tracker: SocketAddr) -> Client {
        let any = if tracker.is_ipv4() {
            "127.0.0.1:0"
        } else {
            "[::1]:0"
        };
        let socket = UdpSocket::bind(any).unwrap();
        socket.connect(tracker).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let family = AddressFamily::of(tracker);
        Client { socket, family }
    }

    fn ask(&self, request: &[u8]) -> Option<UdpReply> {
        self.socket.send(request).unwrap();
        let mut reply = [0; 2048];
        let length = self.socket.recv(&mut reply).unwrap();
        Some(UdpReply::decode(&reply[..length], self.family).unwrap())
    }

    fn announce(&self, number: u8) -> AnnounceSuccess {
        let connect = datagram(&UdpRequest::Connect { transaction: ASKED });
        let Some(UdpReply::Connect { connection, .. }) = self.ask(&connect) else {
            panic!("no connection id")
        };
        success(self.ask(&announcing(connection, announce(number))))
    }
}

/// Both families, and what came over HTTP is found over UDP.
#[tokio::test(flavor = "multi_thread")]
async fn over_real_sockets() {
    let config = TrackerConfig {
        listen: vec!["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()],
        ..TrackerConfig::default()
    };
    let registry = Registry::new(0);
    let tracker = super::super::Tracker::bind(&config, registry.control()).unwrap();
    let addresses = tracker.addresses().to_vec();
    let handle = tracker.handle();
    handle.register_local(HASH, PeerId([9; 20]), 6890);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let task = tokio::spawn(tracker.run(async { drop(stopped.await) }));
    let found = tokio::task::spawn_blocking(move || {
        let mut found = Vec::new();
        for address in addresses {
            let client = Client::new(address);
            // Garbage before and between spoils nothing.
            client.socket.send(&[]).unwrap();
            client.socket.send(&[0xff; 1400]).unwrap();
            let reply = client.announce(1);
            found.push((address.is_ipv6(), reply.complete, reply.peers));
        }
        found
    });
    let found = found.await.unwrap();
    assert_eq!(found.len(), 2, "a machine without IPv6 on loopback");
    for (v6, complete, peers) in found {
        assert_eq!(complete, Some(1));
        let seed = if v6 { "[::1]:6890" } else { "127.0.0.1:6890" };
        let addresses: Vec<String> = peers.iter().map(|peer| peer.address.to_string()).collect();
        assert_eq!(addresses, [seed]);
    }
    drop(stop);
    task.await.unwrap();
    let counted = registry.control().counter(ControlCounter::TrackerAnnounces);
    assert_eq!(counted, 2);
    // The seed in both families, and the announcing peer in both.
    assert_eq!(handle.sizes(), (1, 4));
}
