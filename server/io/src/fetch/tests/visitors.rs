//! Peers that call us while the metadata of a torrent are being fetched, of which nobody has told
//! us: they alone have them.

use super::peers::give_metadata_and_pieces;
use super::*;
use engine::peer_list::PeerSource;
use seedring_metrics::Counter;

/// A fetch of the metadata of `content`, to whom nobody is named.
fn begin(server: &Server, content: &Content) -> (MetadataFetch, mpsc::Receiver<MetadataEvent>) {
    let info_hash = content.metainfo.info_hash_v1.unwrap();
    let begun = server.plane.fetch_metadata(info_hash);
    server.runtime.block_on(begun).unwrap()
}

/// Waits for them.
fn finish(server: &Server, content: &Content, mut events: mpsc::Receiver<MetadataEvent>) {
    let event = async { tokio::time::timeout(PATIENCE, events.recv()).await };
    let event = server.runtime.block_on(event).expect("in time");
    let Some(MetadataEvent::Complete(info)) = event else {
        panic!("{event:?}");
    };
    assert!(info[..] == content.metainfo.info[..]);
}

/// A seed by hand that calls `server` once.
fn caller(server: &Server, content: &Content) -> thread::JoinHandle<()> {
    let (address, content) = (server.address(), content.clone());
    thread::spawn(move || {
        let stream = TcpStream::connect(address).unwrap();
        give_metadata_and_pieces(stream, &content);
    })
}

fn handshake(content: &Content, id: u8) -> [u8; HANDSHAKE_BYTES] {
    let handshake = Handshake {
        reserved: Reserved::NONE.with(ReservedBit::EXTENSION_PROTOCOL),
        info_hash: content.metainfo.info_hash_v1.unwrap(),
        peer_id: PeerId([id; 20]),
    };
    handshake.encode()
}

/// Shakes hands; none if we close without.
fn shake_hands(server: &Server, content: &Content, id: u8) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&handshake(content, id)).unwrap();
    let theirs = stream.read_exact(&mut [0; HANDSHAKE_BYTES]);
    theirs.ok().map(|()| stream)
}

/// So often that not all are accepted by the shard that asks them.
#[test]
fn who_calls_us_is_asked_on_whatever_shard_he_comes_and_goes_on_as_a_peer() {
    let content = Content::new(&[("a", 8 * PIECE)], PIECE);
    let mut config = config(1);
    config.shards = 3;
    let registry = Registry::new(config.shards);
    let server = server_with(config, &registry);
    for round in 1..=8 {
        let (metadata, events) = begin(&server, &content);
        let seed = caller(&server, &content);
        finish(&server, &content, events);
        drop(metadata);
        let folder = TempDir::new().unwrap();
        let spec = FetchSpec::new(content.metainfo.clone(), folder.path());
        let (fetch, mut events) = server.fetch(spec);
        server.until(&fetch, |progress| {
            progress.peers_by_source.get(PeerSource::Incoming) == 1
        });
        server.wait(&mut events, is_complete);
        content.assert_is_in(folder.path());
        let counter = |counter| registry.snapshot().counter(counter);
        assert_eq!(counter(Counter::FoundIncoming), round, "counted once");
        assert_eq!(counter(Counter::Handshakes), round, "counted once");
        server
            .runtime
            .block_on(server.plane.remove(fetch.torrent()));
        seed.join().unwrap();
    }
    server.stop();
}

#[test]
fn one_stranger_has_four_places_and_one_that_it_leaves_is_free() {
    let content = Content::new(&[("a", PIECE)], PIECE);
    let server = server(config(1));
    let (metadata, events) = begin(&server, &content);
    let mut places: Vec<_> = (0..4)
        .map(|id| shake_hands(&server, &content, id).expect("a place"))
        .collect();
    assert!(shake_hands(&server, &content, 4).is_none());
    places.pop();
    let end = std::time::Instant::now() + PATIENCE;
    while metadata.peers() == 4 {
        assert!(std::time::Instant::now() < end, "it does not leave");
        thread::sleep(Duration::from_millis(5));
    }
    let seed = caller(&server, &content);
    finish(&server, &content, events);
    server.stop();
    seed.join().unwrap();
}

/// BEP 27: nobody knows from whom he has heard of us.
#[test]
fn who_calls_us_is_left_when_the_torrent_is_private_and_may_call_again() {
    let content = Content::private(&[("a", 8 * PIECE)], PIECE);
    let server = server(config(1));
    let (_metadata, events) = begin(&server, &content);
    let seed = caller(&server, &content);
    finish(&server, &content, events);
    let folder = TempDir::new().unwrap();
    let spec = FetchSpec::new(content.metainfo.clone(), folder.path());
    let (fetch, mut events) = server.fetch(spec);
    // It ends when the connection does.
    seed.join().unwrap();
    assert_eq!(fetch.progress().downloaded, 0);
    let again = caller(&server, &content);
    server.wait(&mut events, is_complete);
    content.assert_is_in(folder.path());
    server.stop();
    again.join().unwrap();
}

/// As after a fetch that nobody wants any more.
#[test]
fn who_calls_us_for_what_is_not_looked_for_is_closed() {
    let content = Content::new(&[("a", PIECE)], PIECE);
    let server = server(config(1));
    let (metadata, events) = begin(&server, &content);
    let mut visitor = shake_hands(&server, &content, 1).expect("a place");
    drop((metadata, events));
    while read_message(&mut visitor).is_some() {}
    assert!(shake_hands(&server, &content, 2).is_none());
    server.stop();
}
