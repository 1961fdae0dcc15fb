//! Peers that are found by other ways than the user: peer exchange, calls for complete torrents;
//! and those that are kept away.

use super::*;
use engine::ip_filter::{IpFilter, IpFilterBuilder};
use proto::extension::{Extension, ExtensionHandshake, HANDSHAKE_ID};
use proto::pex::{PexMessage, PexPeer};
use seedring_metrics::Counter;

/// A server whose counters are looked at.
fn counted(config: PlaneConfig) -> (Server, Registry) {
    let registry = Registry::new(config.shards);
    let (plane, events) = Plane::start(config, &registry).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let server = Server {
        plane,
        events,
        runtime,
    };
    (server, registry)
}

/// A seed that takes a minute for a few MiB, and two that fetch from it.
struct Slow {
    seed: Server,
    leechers: [Server; 2],
    fetches: Vec<Fetch>,
    _folders: [TempDir; 2],
    _events: Vec<mpsc::Receiver<FetchEvent>>,
}

impl Slow {
    fn start(content: &Content) -> Slow {
        let mut slow = config(0);
        slow.rates.global = 16 << 10;
        // The first block of each peer is one that another shard may have to serve.
        slow.shards = 2;
        let seed = server(slow);
        seed.runtime.block_on(seed.plane.add(&content.seeded()));
        let leechers = [server(config(1)), server(config(2))];
        let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
        let (mut fetches, mut events) = (Vec::new(), Vec::new());
        for (leecher, folder) in leechers.iter().zip(&folders) {
            let spec = FetchSpec::new(content.metainfo.clone(), folder.path());
            let (fetch, told) = leecher.fetch(spec);
            fetch.add_peers(&[seed.address()]);
            fetches.push(fetch);
            events.push(told);
        }
        Slow {
            seed,
            leechers,
            fetches,
            _folders: folders,
            _events: events,
        }
    }

    fn stop(self) {
        self.seed.stop();
        self.leechers.into_iter().for_each(Server::stop);
    }
}

#[test]
fn a_seed_tells_its_leechers_of_each_other() {
    let content = Content::new(&[("a", 64 * PIECE)], PIECE);
    let slow = Slow::start(&content);
    for (leecher, fetch) in slow.leechers.iter().zip(&slow.fetches) {
        leecher.until(fetch, |progress| {
            progress.known_by_source.get(PeerSource::Exchange) == 1 && progress.peers == 2
        });
    }
    let met = slow.fetches.iter().map(|fetch| {
        let peers = fetch.progress().peers_by_source;
        assert_eq!(peers.get(PeerSource::Given), 1, "the seed");
        peers.get(PeerSource::Exchange) + peers.get(PeerSource::Incoming)
    });
    assert_eq!(met.sum::<u32>(), 2, "each other");
    slow.stop();
}

#[test]
fn leechers_of_a_private_torrent_learn_nothing_of_each_other() {
    let private = Content::private(&[("a", 64 * PIECE)], PIECE);
    let public = Content::new(&[("b", 64 * PIECE)], PIECE);
    let (private, public) = (Slow::start(&private), Slow::start(&public));
    for (leecher, fetch) in private.leechers.iter().zip(&private.fetches) {
        leecher.until(fetch, |progress| progress.peers == 1);
    }
    // Which began later.
    for (leecher, fetch) in public.leechers.iter().zip(&public.fetches) {
        leecher.until(fetch, |progress| {
            progress.known_by_source.get(PeerSource::Exchange) == 1
        });
    }
    // Whoever else names somebody is not heard, either.
    let somebody = [SocketAddr::from(([127, 0, 0, 9], 1))];
    let another = [SocketAddr::from(([127, 0, 0, 9], 2))];
    let fetch = &private.fetches[0];
    for source in PeerSource::ALL.into_iter().filter(|one| one.is_hearsay()) {
        fetch.found(&somebody, source);
    }
    fetch.found(&another, PeerSource::Tracker);
    private.leechers[0].until(fetch, |progress| {
        progress.known_by_source.get(PeerSource::Tracker) == 1
    });
    let known = fetch.progress().known_by_source;
    let hearsay = PeerSource::ALL.into_iter().filter(|one| one.is_hearsay());
    assert!(
        hearsay.map(|one| known.get(one)).all(|count| count == 0),
        "{known:?}"
    );
    for fetch in &private.fetches[1..] {
        let progress = fetch.progress();
        let known = PeerSource::ALL.map(|source| progress.known_by_source.get(source));
        assert_eq!(
            (known.iter().sum::<u32>(), progress.peers),
            (1, 1),
            "the seed alone"
        );
    }
    private.stop();
    public.stop();
}

/// The metadata of a seed that `source` names to `server`.
fn metadata_by(server: &Server, content: &Content, seed: SocketAddr, source: PeerSource) {
    let info_hash = content.metainfo.info_hash_v1.unwrap();
    let begun = server.plane.fetch_metadata(info_hash);
    let (fetch, mut events) = server.runtime.block_on(begun).unwrap();
    fetch.found(&[seed], source);
    let event = async { tokio::time::timeout(PATIENCE, events.recv()).await };
    let event = server.runtime.block_on(event).expect("in time");
    assert!(
        matches!(event, Some(MetadataEvent::Complete(_))),
        "{event:?}"
    );
}

/// BEP 27: of a link it is not known whether its torrent is private. When it is, those whom the DHT
/// named have said so themselves, and are left.
#[test]
fn who_gave_the_metadata_goes_on_as_a_peer_unless_hearsay_named_it_and_it_is_private() {
    let public = Content::new(&[("a", 16 * PIECE)], PIECE);
    let private = Content::private(&[("b", 16 * PIECE)], PIECE);
    for (content, source) in [
        (&public, PeerSource::Dht),
        (&private, PeerSource::Tracker),
        (&private, PeerSource::Dht),
        (&private, PeerSource::Local),
    ] {
        let (seed, seed_counts) = counted(config(0));
        seed.runtime.block_on(seed.plane.add(&content.seeded()));
        let leecher = server(config(1));
        metadata_by(&leecher, content, seed.address(), source);
        let folder = TempDir::new().unwrap();
        let spec = FetchSpec::new(content.metainfo.clone(), folder.path());
        let (fetch, mut events) = leecher.fetch(spec);
        if content.metainfo.private && source.is_hearsay() {
            let closed = || {
                let counts = seed_counts.snapshot();
                let ends = [
                    Counter::ClosedByPeer,
                    Counter::ClosedReset,
                    Counter::ClosedOther,
                ];
                ends.map(|end| counts.counter(end)).iter().sum::<u64>()
            };
            let end = std::time::Instant::now() + PATIENCE;
            while closed() == 0 {
                assert!(std::time::Instant::now() < end, "it is not left");
                thread::sleep(Duration::from_millis(5));
            }
            assert_eq!(fetch.progress().downloaded, 0);
            // A tracker may name the same peer.
            fetch.found(&[seed.address()], PeerSource::Tracker);
        }
        leecher.wait(&mut events, is_complete);
        content.assert_is_in(folder.path());
        leecher.stop();
        seed.stop();
    }
}

/// A peer by hand that speaks the extension protocol and takes peer exchange under id 9.
fn extended_peer(address: SocketAddr, content: &Content, port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let handshake = Handshake {
        reserved: Reserved::NONE
            .with(ReservedBit::FAST)
            .with(ReservedBit::EXTENSION_PROTOCOL),
        info_hash: content.metainfo.info_hash_v1.unwrap(),
        peer_id: PeerId([port as u8; 20]),
    };
    let mut opening = handshake.encode().to_vec();
    Message::HaveNone.encode(&mut opening);
    let mut ours = ExtensionHandshake::default();
    ours.messages.set(Extension::PeerExchange, 9);
    ours.listen_port = std::num::NonZeroU16::new(port);
    let mut payload = Vec::new();
    ours.encode(&mut payload);
    let payload = &payload[..];
    Message::Extended {
        id: HANDSHAKE_ID,
        payload,
    }
    .encode(&mut opening);
    stream.write_all(&opening).unwrap();
    stream.read_exact(&mut [0; HANDSHAKE_BYTES]).unwrap();
    stream
}

/// The payload of the next extended message of that id.
fn next_extended(stream: &mut TcpStream, id: u8) -> Vec<u8> {
    loop {
        let body = read_message(stream).expect("it goes on");
        if let [wire::id::EXTENDED, found, payload @ ..] = &body[..]
            && *found == id
        {
            return payload.to_vec();
        }
    }
}

fn offers_exchange(stream: &mut TcpStream) -> bool {
    let theirs = ExtensionHandshake::parse(&next_extended(stream, HANDSHAKE_ID)).unwrap();
    assert!(theirs.listen_port.is_some());
    theirs.messages.get(Extension::PeerExchange).is_some()
}

#[test]
fn on_the_wire_peers_are_told_with_where_they_listen_and_the_private_are_not() {
    let public = Content::new(&[("a", PIECE)], PIECE);
    let private = Content::private(&[("b", PIECE)], PIECE);
    let seed = seed(&public, 0);
    seed.runtime.block_on(seed.plane.add(&private.seeded()));
    let mut one = extended_peer(seed.address(), &public, 1001);
    let mut two = extended_peer(seed.address(), &public, 1002);
    assert!(offers_exchange(&mut one) && offers_exchange(&mut two));
    let mut hidden = [1003, 1004].map(|port| extended_peer(seed.address(), &private, port));
    assert!(!hidden.iter_mut().any(offers_exchange));
    for (stream, other) in [(&mut one, 1002), (&mut two, 1001)] {
        let told = PexMessage::parse(&next_extended(stream, 9)).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], other));
        assert!(matches!(&told.added[..], [PexPeer { address: told, .. }] if *told == address));
        assert_eq!(told.dropped, []);
    }
    // What was sent to those of the private torrent by now is here when their connection has ended.
    for stream in &mut hidden {
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        while let Some(body) = read_message(stream) {
            assert_ne!(body[..2.min(body.len())], [wire::id::EXTENDED, 9]);
        }
    }
    seed.stop();
}

#[test]
fn a_seed_calls_who_wants_something_of_it() {
    let content = Content::new(&[("a", 8 * PIECE)], PIECE);
    let mut calling = config(0);
    calling.shards = 2;
    let (seed, registry) = counted(calling);
    let torrent = content.seeded();
    seed.runtime.block_on(seed.plane.add(&torrent));
    let leecher = server(config(1));
    let folder = TempDir::new().unwrap();
    let (fetch, mut events) =
        leecher.fetch(FetchSpec::new(content.metainfo.clone(), folder.path()));
    // Nobody listens at the first, and the second is the seed itself.
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let named = [nobody, seed.address(), leecher.address()];
    seed.plane.found(&torrent, &named, PeerSource::Tracker);
    leecher.wait(&mut events, is_complete);
    content.assert_is_in(folder.path());
    assert_eq!(fetch.progress().downloaded, content.bytes.len() as u64);
    let counter = |counter| registry.snapshot().counter(counter);
    assert_eq!(counter(Counter::FoundTracker), 3);
    assert_eq!(counter(Counter::FoundIncoming), 0);
    let end = std::time::Instant::now() + PATIENCE;
    while counter(Counter::ConnectsRefused) == 0 {
        assert!(std::time::Instant::now() < end);
        thread::sleep(Duration::from_millis(5));
    }
    seed.stop();
    leecher.stop();
}

#[test]
fn a_seed_that_is_not_to_call_calls_nobody() {
    let content = Content::new(&[("a", PIECE)], PIECE);
    let mut quiet = config(0);
    quiet.call_leechers = false;
    let (seed, registry) = counted(quiet);
    let torrent = content.seeded();
    seed.runtime.block_on(seed.plane.add(&torrent));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let named = [listener.local_addr().unwrap()];
    seed.plane.found(&torrent, &named, PeerSource::Tracker);
    // When the next command is answered, that one has been taken.
    seed.runtime.block_on(seed.plane.remove(&torrent));
    assert_eq!(registry.snapshot().counter(Counter::FoundTracker), 0);
    seed.stop();
}

pub(super) fn filter(range: &str) -> Arc<IpFilter> {
    let mut builder = IpFilterBuilder::default();
    let range = proto::ip_filter::parse_line(range.as_bytes())
        .unwrap()
        .unwrap();
    assert!(builder.add(range));
    Arc::new(builder.build())
}

#[test]
fn who_is_kept_away_is_neither_let_in_nor_called_and_who_is_here_goes() {
    let content = Content::new(&[("a", 4 * PIECE)], PIECE);
    let (seed, registry) = counted(config(0));
    seed.runtime.block_on(seed.plane.add(&content.seeded()));
    let mut here = extended_peer(seed.address(), &content, 1001);
    next_extended(&mut here, HANDSHAKE_ID);
    let everybody = filter("127.0.0.0/8");
    seed.runtime.block_on(seed.plane.set_ip_filter(&everybody));
    while read_message(&mut here).is_some() {}
    let mut late = TcpStream::connect(seed.address()).unwrap();
    late.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(matches!(late.read(&mut [0; 1]), Ok(0) | Err(_)));
    let counter = |counter| registry.snapshot().counter(counter);
    assert_eq!(counter(Counter::RefusedFilter), 1);

    let mut shy = config(1);
    shy.ip_filter = everybody;
    let (leecher, calls) = counted(shy);
    let folder = TempDir::new().unwrap();
    let (fetch, mut events) =
        leecher.fetch(FetchSpec::new(content.metainfo.clone(), folder.path()));
    fetch.add_peers(&[seed.address()]);
    let end = std::time::Instant::now() + PATIENCE;
    while calls.snapshot().counter(Counter::ConnectsFiltered) == 0 {
        assert!(std::time::Instant::now() < end);
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(calls.snapshot().counter(Counter::ConnectsDone), 0);

    // With other lists all is as it was.
    let nobody = filter("9.9.9.9");
    leecher
        .runtime
        .block_on(leecher.plane.set_ip_filter(&nobody));
    seed.runtime.block_on(seed.plane.set_ip_filter(&nobody));
    fetch.add_peers(&[seed.address()]);
    leecher.wait(&mut events, is_complete);
    assert_eq!(counter(Counter::RefusedFilter), 1);
    seed.stop();
    leecher.stop();
}
