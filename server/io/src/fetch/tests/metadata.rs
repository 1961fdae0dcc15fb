//! The `info` dictionary from peers by hand of whom some lie: of its bytes, of its length.

use super::peers::listen;
use super::*;
use crate::fetch::troubles;
use proto::extension::{
    Extension, HANDSHAKE_ID, METADATA_BLOCK_BYTES, MessageIds, MetadataMessage,
};
use seedring_metrics::Counter;

/// Under which id these peers take messages of metadata: not ours.
const THEIR_ID: u8 = 77;

/// Under which id we take them.
fn our_id() -> u8 {
    let ids = MessageIds::ours(&[Extension::Metadata]);
    ids.get(Extension::Metadata).unwrap().get()
}

/// Takes a call, and says that the metadata have these lengths, one after another.
fn offer(listener: &TcpListener, content: &Content, lengths: &[i64]) -> TcpStream {
    let mut stream = listener.accept().unwrap().0;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let handshake = Handshake {
        reserved: Reserved::NONE.with(ReservedBit::EXTENSION_PROTOCOL),
        info_hash: content.metainfo.info_hash_v1.unwrap(),
        peer_id: PeerId([b'p'; 20]),
    };
    let mut opening = handshake.encode().to_vec();
    for length in lengths {
        let payload = format!("d1:md11:ut_metadatai{THEIR_ID}ee13:metadata_sizei{length}ee");
        let (id, payload) = (HANDSHAKE_ID, payload.as_bytes());
        Message::Extended { id, payload }.encode(&mut opening);
    }
    stream.write_all(&opening).unwrap();
    stream.read_exact(&mut [0; HANDSHAKE_BYTES]).unwrap();
    stream
}

/// Sends a message of metadata; whoever is closed meanwhile need not be told.
fn send(stream: &mut TcpStream, message: &MetadataMessage<'_>) {
    let (mut payload, mut bytes) = (Vec::new(), Vec::new());
    message.encode(&mut payload);
    let (id, payload) = (our_id(), &payload[..]);
    Message::Extended { id, payload }.encode(&mut bytes);
    let _ = stream.write_all(&bytes);
}

/// Sends a block of the metadata, of which `flip` changes a byte.
fn give(stream: &mut TcpStream, content: &Content, piece: u32, flip: u8) {
    let info = &content.metainfo.info;
    let mut blocks = info.chunks(METADATA_BLOCK_BYTES as usize);
    let mut block = blocks.nth(piece as usize).unwrap().to_vec();
    block[0] ^= flip;
    let data = MetadataMessage::Data {
        piece,
        total_bytes: info.len() as u32,
        block: &block,
    };
    send(stream, &data);
}

/// What it is told next of metadata: the kind of the message, and the block that it is about. None
/// when the connection has ended.
fn told(stream: &mut TcpStream) -> Option<(&'static str, u32)> {
    loop {
        let body = read_message(stream)?;
        if let [wire::id::EXTENDED, THEIR_ID, payload @ ..] = &body[..] {
            return Some(match MetadataMessage::parse(payload).unwrap() {
                MetadataMessage::Request { piece } => ("request", piece),
                MetadataMessage::Reject { piece } => ("reject", piece),
                other => panic!("{other:?}"),
            });
        }
    }
}

/// Answers whatever it is asked until the connection ends, with a wrong byte in block `wrong`.
fn give_all(stream: &mut TcpStream, content: &Content, wrong: Option<u32>) {
    while let Some((what, piece)) = told(stream) {
        assert_eq!(what, "request");
        give(stream, content, piece, u8::from(wrong == Some(piece)));
    }
}

#[test]
fn of_three_peers_one_lies_and_one_exaggerates_and_the_metadata_come() {
    // Four blocks of them.
    let content = Content::new(&[("a", 3_000)], 1);
    let length = content.metainfo.info.len() as i64;
    assert_eq!(length.div_euclid(METADATA_BLOCK_BYTES.into()), 3);
    let registry = Registry::new(1);
    let server = server_with(config(1), &registry);
    let begun = server
        .plane
        .fetch_metadata(content.metainfo.info_hash_v1.unwrap());
    let (metadata, mut events) = server.runtime.block_on(begun).unwrap();

    // It is the only one there is, and is asked for nothing that is no length.
    let (listener, exaggerator) = listen(11);
    metadata.add_peers(&[exaggerator]);
    let mut exaggerating = offer(&listener, &content, &[-1, 0, i32::MAX.into(), i64::MAX]);
    send(&mut exaggerating, &MetadataMessage::Request { piece: 5 });
    assert_eq!(told(&mut exaggerating), Some(("reject", 5)));

    let (listener, right) = listen(12);
    metadata.add_peers(&[right]);
    let mut honest = offer(&listener, &content, &[length]);
    let (_, first) = told(&mut honest).unwrap();
    let (listener, liar) = listen(13);
    metadata.add_peers(&[liar]);
    let mut lying = offer(&listener, &content, &[length]);
    let (_, wrong) = told(&mut lying).unwrap();
    // The other comes last, so that most of what has the wrong hash is the liar's; who it is shows
    // when it has given the rest, too.
    give(&mut lying, &content, wrong, 1);
    for _ in 0..2 {
        let (_, piece) = told(&mut lying).unwrap();
        give(&mut lying, &content, piece, u8::from(piece == wrong));
    }
    give(&mut honest, &content, first, 0);
    give_all(&mut lying, &content, Some(wrong));
    let end = std::time::Instant::now() + PATIENCE;
    let left = || registry.snapshot().counter(Counter::PeersBanned) == 1 && metadata.peers() <= 2;
    while !left() {
        assert!(std::time::Instant::now() < end, "it is not banned");
        thread::sleep(Duration::from_millis(5));
    }
    let why = metadata.troubles();
    let due = (liar, troubles::WRONG_METADATA.to_owned());
    assert!(why.contains(&due), "{why:?}");

    let given = thread::spawn({
        let content = content.clone();
        move || give_all(&mut honest, &content, None)
    });
    let event = async { tokio::time::timeout(PATIENCE, events.recv()).await };
    let event = server.runtime.block_on(event).expect("in time");
    let Some(MetadataEvent::Complete(info)) = event else {
        panic!("{event:?}");
    };
    assert!(info[..] == content.metainfo.info[..]);
    server.stop();
    given.join().unwrap();
    assert_eq!(told(&mut exaggerating), None, "it is asked to the end");
}

/// It has gone before what it sent is known to be wrong.
#[test]
fn who_lies_and_hangs_up_is_banned_all_the_same() {
    let content = Content::new(&[("a", 3_000)], 64);
    let length = content.metainfo.info.len() as i64;
    let registry = Registry::new(1);
    let server = server_with(config(1), &registry);
    let begun = server
        .plane
        .fetch_metadata(content.metainfo.info_hash_v1.unwrap());
    let (metadata, _events) = server.runtime.block_on(begun).unwrap();
    let (listener, liar) = listen(11);
    metadata.add_peers(&[liar]);
    let mut lying = offer(&listener, &content, &[length]);
    for piece in 0..content
        .metainfo
        .info
        .len()
        .div_ceil(METADATA_BLOCK_BYTES as usize)
    {
        assert_eq!(told(&mut lying), Some(("request", piece as u32)));
        give(&mut lying, &content, piece as u32, 1);
    }
    drop(lying);
    let end = std::time::Instant::now() + PATIENCE;
    while registry.snapshot().counter(Counter::PeersBanned) == 0 {
        assert!(std::time::Instant::now() < end, "it is not banned");
        thread::sleep(Duration::from_millis(5));
    }
    let due = (liar, troubles::WRONG_METADATA.to_owned());
    assert!(metadata.troubles().contains(&due));
    server.stop();
}

/// Waits until `counter` has come to `due`.
fn await_counter(registry: &Registry, counter: Counter, due: u64) {
    let end = std::time::Instant::now() + PATIENCE;
    while registry.snapshot().counter(counter) != due {
        let all = registry.snapshot().counter(counter);
        assert!(std::time::Instant::now() < end, "{all} of {due}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// One that is asked, one that has called, one that has not greeted, and one that waits for the
/// torrent after it has given the metadata.
#[test]
fn who_is_to_be_kept_away_from_now_on_goes_in_every_state_of_a_link() {
    let content = Content::new(&[("a", PIECE)], PIECE);
    let info = &content.metainfo.info;
    let registry = Registry::new(1);
    let server = server_with(config(1), &registry);
    let begun = server
        .plane
        .fetch_metadata(content.metainfo.info_hash_v1.unwrap());
    let (metadata, mut events) = server.runtime.block_on(begun).unwrap();
    let everybody = super::discovery::filter("127.0.0.0/8");
    let nobody = super::discovery::filter("9.9.9.9");
    let set = |filter| server.runtime.block_on(server.plane.set_ip_filter(filter));

    let (listener, asked) = listen(11);
    metadata.add_peers(&[asked]);
    let mut asked_stream = offer(&listener, &content, &[info.len() as i64]);
    assert_eq!(told(&mut asked_stream), Some(("request", 0)));
    let mut visitor = TcpStream::connect(server.address()).unwrap();
    visitor.set_read_timeout(Some(PATIENCE)).unwrap();
    let handshake = Handshake {
        reserved: Reserved::NONE.with(ReservedBit::EXTENSION_PROTOCOL),
        info_hash: content.metainfo.info_hash_v1.unwrap(),
        peer_id: PeerId([b'v'; 20]),
    };
    visitor.write_all(&handshake.encode()).unwrap();
    visitor.read_exact(&mut [0; HANDSHAKE_BYTES]).unwrap();
    let (listener, silent) = listen(12);
    metadata.add_peers(&[silent]);
    let mut silent_stream = listener.accept().unwrap().0;
    silent_stream.set_read_timeout(Some(PATIENCE)).unwrap();
    silent_stream.read_exact(&mut [0; HANDSHAKE_BYTES]).unwrap();
    set(&everybody);
    assert_eq!(told(&mut asked_stream), None);
    while read_message(&mut visitor).is_some() {}
    assert!(matches!(silent_stream.read(&mut [0; 1]), Ok(0) | Err(_)));
    await_counter(&registry, Counter::ClosedFiltered, 2);
    await_counter(&registry, Counter::HandshakeClosed, 1);
    let due = (asked, troubles::FILTERED.to_owned());
    let end = std::time::Instant::now() + PATIENCE;
    while !metadata.troubles().contains(&due) {
        assert!(std::time::Instant::now() < end);
        thread::sleep(Duration::from_millis(5));
    }

    set(&nobody);
    let (listener, right) = listen(13);
    metadata.add_peers(&[right]);
    let mut waits = offer(&listener, &content, &[info.len() as i64]);
    assert_eq!(told(&mut waits), Some(("request", 0)));
    give(&mut waits, &content, 0, 0);
    let event = async { tokio::time::timeout(PATIENCE, events.recv()).await };
    let event = server.runtime.block_on(event).expect("in time");
    assert!(matches!(event, Some(MetadataEvent::Complete(_))));
    set(&everybody);
    assert_eq!(told(&mut waits), None);
    server.stop();
    // A connection is counted once when it is there, when it greets, and when it ends.
    let counter = |counter| registry.snapshot().counter(counter);
    assert_eq!(counter(Counter::ConnectsDone), 3);
    assert_eq!(counter(Counter::Handshakes), 3);
}
