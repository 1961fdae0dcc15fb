//! Peers that lie and leave, take each other's names, fill our places, send what nobody asked for,
//! and answer in whatever order they like.

use super::*;
use crate::fetch::receiving::UNASKED_BYTES_MAX;
use engine::random::Random;
use proto::extension::{Extension, ExtensionHandshake, HANDSHAKE_ID, MessageIds, MetadataMessage};

const BLOCK: usize = 16 << 10;

/// A peer by hand: its handshake and that it has all are sent, the server's handshake is read.
fn introduce(stream: TcpStream, content: &Content, id: [u8; 20]) -> TcpStream {
    let mut stream = begin(stream, content, id);
    let mut opening = Vec::new();
    Message::HaveAll.encode(&mut opening);
    Message::Unchoke.encode(&mut opening);
    stream.write_all(&opening).unwrap();
    stream
}

/// The handshakes alone.
pub(super) fn begin(mut stream: TcpStream, content: &Content, id: [u8; 20]) -> TcpStream {
    greet(&mut stream, content, id);
    stream.read_exact(&mut [0; HANDSHAKE_BYTES]).unwrap();
    stream
}

/// Our handshake alone.
fn greet(stream: &mut TcpStream, content: &Content, id: [u8; 20]) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let handshake = Handshake {
        reserved: Reserved::NONE.with(ReservedBit::FAST),
        info_hash: content.metainfo.info_hash_v1.unwrap(),
        peer_id: PeerId(id),
    };
    stream.write_all(&handshake.encode()).unwrap();
}

/// The next request.
fn next_request(stream: &mut TcpStream) -> Option<BlockRequest> {
    loop {
        let body = read_message(stream)?;
        if body.first() == Some(&wire::id::REQUEST) {
            let number = |at: usize| u32::from_be_bytes(body[at..at + 4].try_into().unwrap());
            return Some(BlockRequest {
                piece: PieceIndex(number(1)),
                begin: number(5),
                length: number(9),
            });
        }
    }
}

fn block_message(content: &Content, block: BlockRequest, flip: u8) -> Vec<u8> {
    let start = block.piece.0 as usize * content.metainfo.piece_length as usize;
    let start = start + block.begin as usize;
    let mut bytes = content.bytes[start..start + block.length as usize].to_vec();
    bytes[0] ^= flip;
    let mut message = Vec::new();
    Message::Piece {
        piece: block.piece,
        begin: block.begin,
        block: &bytes,
    }
    .encode(&mut message);
    message
}

/// Waits until the other side has closed.
fn wait_closed(stream: &mut TcpStream) {
    while read_message(stream).is_some() {}
}

#[test]
fn a_liar_that_has_left_before_its_piece_was_hashed_is_banned() {
    let content = Content::new(&[("a", 8 * PIECE)], PIECE);
    let server = server(config(1));
    let folder = TempDir::new().unwrap();
    let (fetch, mut events) = server.fetch(FetchSpec::new(content.metainfo.clone(), folder.path()));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let liar = listener.local_addr().unwrap();
    fetch.add_peers(&[liar]);
    let stream = listener.accept().unwrap().0;
    let mut stream = introduce(stream, &content, [b'L'; 20]);
    let block = next_request(&mut stream).unwrap();
    stream
        .write_all(&block_message(&content, block, 1))
        .unwrap();
    server.until(&fetch, |progress| progress.downloaded == BLOCK as u64);
    drop(stream);
    server.until(&fetch, |progress| progress.peers == 0);
    // All but one of those of which the liar sent nothing.
    let missing = (block.piece.0 + 1) % 8;
    let most = Script {
        has: (0..8).map(|piece| piece != missing).collect(),
        ..Script::all(&content, 0)
    };
    fetch.add_peers(&[scripted(&content, most)]);
    let is_ban = |event: &FetchEvent| match event {
        FetchEvent::Banned { peer } => {
            assert_eq!(*peer, liar);
            true
        }
        _ => false,
    };
    server.wait(&mut events, is_ban);
    // Before its lie showed it may have been called again.
    listener.set_nonblocking(true).unwrap();
    while listener.accept().is_ok() {}
    // Addresses are tried in the order in which they are named, so that it would be called before
    // the last one.
    fetch.add_peers(&[liar]);
    fetch.add_peers(&[scripted(&content, Script::all(&content, 1))]);
    let is_end = |event: &FetchEvent| {
        assert!(!matches!(event, FetchEvent::Banned { .. }), "{event:?}");
        is_complete(event)
    };
    server.wait(&mut events, is_end);
    content.assert_is_in(folder.path());
    assert!(listener.accept().is_err(), "it is called again");
    server.stop();
}

/// The address of a seed by hand, on a host of its own.
pub(super) fn listen(host: u8) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, host], 0))).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Answers all requests until the connection ends.
fn give(mut stream: TcpStream, content: &Content) {
    while let Some(block) = next_request(&mut stream) {
        if stream.write_all(&block_message(content, block, 0)).is_err() {
            return;
        }
    }
}

#[test]
fn a_stranger_with_a_seed_s_name_does_not_drive_it_out() {
    let content = Content::new(&[("a", 8 * PIECE)], PIECE);
    let server = server(config(1));
    // Of two connections that both sides began, the one that the greater id began would stay.
    for name in [[b'A'; 20], [b'z'; 20]] {
        let folder = TempDir::new().unwrap();
        let spec = FetchSpec::new(content.metainfo.clone(), folder.path());
        let (fetch, mut events) = server.fetch(spec);
        let (listener, seed) = listen(7);
        fetch.add_peers(&[seed]);
        let stream = introduce(listener.accept().unwrap().0, &content, name);
        // It takes no other connection.
        drop(listener);
        server.until(&fetch, |progress| progress.peers == 1);
        let stranger = TcpStream::connect(server.address()).unwrap();
        let stranger = begin(stranger, &content, name);
        server.until(&fetch, |progress| progress.peers == 2);
        thread::spawn({
            let content = content.clone();
            move || give(stream, &content)
        });
        server.wait(&mut events, is_complete);
        content.assert_is_in(folder.path());
        drop(stranger);
        let torrent = fetch.torrent();
        server.runtime.block_on(server.plane.remove(torrent));
    }
    server.stop();
}

/// Between blocks of a seed that is to give some of them for as long as it takes.
const PAUSE: Duration = Duration::from_millis(300);

/// Whoever it is that was there first: a seed with two addresses is fetched from by one, and a
/// stranger with its name drives out nobody by that.
#[test]
fn of_two_hosts_with_one_name_the_one_that_gives_stays() {
    let content = Content::new(&[("a", 32 * PIECE)], PIECE);
    let server = server(config(1));
    for giver in [0, 1] {
        let folder = TempDir::new().unwrap();
        let spec = FetchSpec::new(content.metainfo.clone(), folder.path());
        let (fetch, mut events) = server.fetch(spec);
        let mut streams = Vec::new();
        for host in [7, 8] {
            let (listener, seed) = listen(host);
            fetch.add_peers(&[seed]);
            let stream = listener.accept().unwrap().0;
            streams.push(introduce(stream, &content, [b'A'; 20]));
            server.until(&fetch, |progress| progress.peers == host as u32 - 6);
        }
        let mut idler = streams.remove(1 - giver);
        let mut giving = streams.remove(0);
        let (closed, is_closed) = std::sync::mpsc::channel();
        let given = thread::spawn({
            let content = content.clone();
            move || {
                // Not all before the other has gone.
                while is_closed.recv_timeout(PAUSE).is_err() {
                    let block = next_request(&mut giving).unwrap();
                    let message = block_message(&content, block, 0);
                    giving.write_all(&message).unwrap();
                }
                give(giving, &content);
            }
        });
        wait_closed(&mut idler);
        assert_eq!(idler.read(&mut [0]).unwrap(), 0, "it is there still");
        closed.send(()).unwrap();
        server.wait(&mut events, is_complete);
        content.assert_is_in(folder.path());
        let torrent = fetch.torrent();
        server.runtime.block_on(server.plane.remove(torrent));
        given.join().unwrap();
    }
    server.stop();
}

#[test]
fn a_seed_of_this_machine_is_one_peer_whatever_its_address() {
    let Ok(other) = TcpListener::bind("[::1]:0") else {
        eprintln!("SKIPPED a_seed_of_this_machine_is_one_peer_whatever_its_address: no ::1");
        return;
    };
    let content = Content::new(&[("a", 8 * PIECE)], PIECE);
    let server = server(config(1));
    let folder = TempDir::new().unwrap();
    let (fetch, mut events) = server.fetch(FetchSpec::new(content.metainfo.clone(), folder.path()));
    let (listener, seed) = listen(1);
    fetch.add_peers(&[seed]);
    let stream = introduce(listener.accept().unwrap().0, &content, [b'A'; 20]);
    server.until(&fetch, |progress| progress.peers == 1);
    fetch.add_peers(&[other.local_addr().unwrap()]);
    let mut again = begin(other.accept().unwrap().0, &content, [b'A'; 20]);
    assert_eq!(again.read(&mut [0]).unwrap(), 0, "it is told something");
    // Another seed there is another peer.
    let (listener, second) = listen(1);
    fetch.add_peers(&[second]);
    let second = begin(listener.accept().unwrap().0, &content, [b'B'; 20]);
    server.until(&fetch, |progress| progress.peers == 2);
    thread::spawn({
        let content = content.clone();
        move || give(stream, &content)
    });
    server.wait(&mut events, is_complete);
    assert_eq!(fetch.progress().downloaded, 8 * PIECE as u64);
    drop(second);
    server.stop();
}

#[test]
fn who_fills_our_places_does_not_keep_us_from_a_seed() {
    let content = Content::new(&[("a", 8 * PIECE)], PIECE);
    let mut config = config(1);
    config.fetch.peers_max = 4;
    config.fetch.patience = PATIENCE * 10;
    let server = server(config);
    let folder = TempDir::new().unwrap();
    let (fetch, mut events) = server.fetch(FetchSpec::new(content.metainfo.clone(), folder.path()));
    let idle = |id| {
        let stream = TcpStream::connect(server.address()).unwrap();
        begin(stream, &content, [id; 20])
    };
    let kept = [b'0', b'1', b'2'].map(idle);
    server.until(&fetch, |progress| progress.peers == 3);
    let mut one_more = TcpStream::connect(server.address()).unwrap();
    greet(&mut one_more, &content, [b'3'; 20]);
    wait_closed(&mut one_more);
    fetch.add_peers(&[scripted(&content, Script::all(&content, 0))]);
    server.wait(&mut events, is_complete);
    content.assert_is_in(folder.path());
    drop(kept);
    server.stop();
}

#[test]
fn who_is_of_no_use_gives_way() {
    let content = Content::new(&[("a", 8 * PIECE)], PIECE);
    let mut config = config(1);
    config.fetch.peers_max = 2;
    config.fetch.patience = Duration::ZERO;
    let server = server(config);
    let folder = TempDir::new().unwrap();
    let (fetch, mut events) = server.fetch(FetchSpec::new(content.metainfo.clone(), folder.path()));
    let connect = || TcpStream::connect(server.address()).unwrap();
    let mut idle = begin(connect(), &content, [b'0'; 20]);
    server.until(&fetch, |progress| progress.peers == 1);
    // It comes by itself, for which there is one place.
    let seed = introduce(connect(), &content, [b'1'; 20]);
    wait_closed(&mut idle);
    thread::spawn({
        let content = content.clone();
        move || give(seed, &content)
    });
    server.wait(&mut events, is_complete);
    content.assert_is_in(folder.path());
    server.stop();
}

/// Sends a block again and again until the other side has closed; returns how many bytes of payload
/// went out.
fn flood(stream: &mut TcpStream, content: &Content) -> u64 {
    let block = BlockRequest {
        piece: PieceIndex(0),
        begin: 0,
        length: BLOCK as u32,
    };
    let message = block_message(content, block, 0);
    let mut reader = stream.try_clone().unwrap();
    let drain = thread::spawn(move || wait_closed(&mut reader));
    let mut sent = 0;
    // Without an end it would fill any socket's buffers.
    while sent < 8 * UNASKED_BYTES_MAX && stream.write_all(&message).is_ok() {
        sent += BLOCK as u64;
    }
    drain.join().unwrap();
    sent
}

#[test]
fn who_sends_what_nobody_asked_for_is_closed_in_the_end() {
    let content = Content::new(&[("a", 8 * PIECE)], PIECE);
    let server = server(config(1));
    let folder = TempDir::new().unwrap();
    let (fetch, mut events) = server.fetch(FetchSpec::new(content.metainfo.clone(), folder.path()));
    // Of what it says to have it may be asked; of this one nothing.
    let stream = TcpStream::connect(server.address()).unwrap();
    let mut stream = begin(stream, &content, [b'0'; 20]);
    assert!(flood(&mut stream, &content) < 8 * UNASKED_BYTES_MAX);
    let wasted = fetch.progress().wasted;
    assert!(wasted > UNASKED_BYTES_MAX, "{wasted}");
    // And one that goes on when all is there.
    let (listener, seed) = listen(7);
    fetch.add_peers(&[seed]);
    let mut stream = introduce(listener.accept().unwrap().0, &content, [b'1'; 20]);
    let giver = thread::spawn({
        let stream = stream.try_clone().unwrap();
        let content = content.clone();
        let requests = content.bytes.len() / BLOCK;
        move || {
            let mut stream = stream;
            for _ in 0..requests {
                let block = next_request(&mut stream).unwrap();
                let message = block_message(&content, block, 0);
                stream.write_all(&message).unwrap();
            }
        }
    });
    server.wait(&mut events, is_complete);
    giver.join().unwrap();
    assert!(flood(&mut stream, &content) < 8 * UNASKED_BYTES_MAX);
    let after = fetch.progress().wasted;
    assert!(after > wasted + UNASKED_BYTES_MAX, "{wasted}, {after}");
    server.stop();
}

#[test]
fn who_stops_in_the_middle_of_a_block_holds_nothing_up_and_spoils_nothing() {
    let content = Content::new(&[("a", 8 * PIECE)], PIECE);
    let server = server(config(1));
    let folder = TempDir::new().unwrap();
    let (fetch, mut events) = server.fetch(FetchSpec::new(content.metainfo.clone(), folder.path()));
    let (listener, slow) = listen(7);
    fetch.add_peers(&[slow]);
    let mut stream = introduce(listener.accept().unwrap().0, &content, [b'0'; 20]);
    // Its last bytes are wrong, and come when another has brought the block.
    let block = next_request(&mut stream).unwrap();
    let mut message = block_message(&content, block, 0);
    let (begun, rest) = message.split_at_mut(BLOCK / 2);
    rest[0] ^= 1;
    stream.write_all(begun).unwrap();
    fetch.add_peers(&[scripted(&content, Script::all(&content, 1))]);
    let all_here = |progress: &FetchProgress| progress.pieces_stored == 8;
    server.until(&fetch, all_here);
    let _ = stream.write_all(rest);
    let is_end = |event: &FetchEvent| {
        assert!(!matches!(event, FetchEvent::Banned { .. }), "{event:?}");
        is_complete(event)
    };
    server.wait(&mut events, is_end);
    content.assert_is_in(folder.path());
    assert_eq!(fetch.progress().hash_failures, 0);
    server.stop();
}

/// Gathers what is asked for and answers a lot at a time: sometimes in order, sometimes not,
/// sometimes with other messages between; in pieces of any length.
fn answer_anyhow(stream: TcpStream, content: &Content, mut random: Random) {
    let mut writer = stream.try_clone().unwrap();
    let (asked, questions) = std::sync::mpsc::channel();
    let mut reader = stream;
    thread::spawn(move || {
        while let Some(block) = next_request(&mut reader) {
            let _ = asked.send(block);
        }
    });
    while let Ok(first) = questions.recv() {
        // As many as were asked meanwhile, so that some lie behind each other.
        thread::sleep(Duration::from_millis(2));
        let mut blocks: Vec<BlockRequest> =
            std::iter::once(first).chain(questions.try_iter()).collect();
        let mood = random.below(4);
        let mut answer = Vec::new();
        while !blocks.is_empty() {
            let next = match mood {
                0 => random.below(blocks.len() as u64) as usize,
                _ => 0,
            };
            answer.extend(block_message(content, blocks.remove(next), 0));
            if mood == 1 && random.below(5) == 0 {
                Message::KeepAlive.encode(&mut answer);
                Message::Have(PieceIndex(0)).encode(&mut answer);
            }
        }
        let mut rest = &answer[..];
        while !rest.is_empty() {
            let length = 1 + random.below(3 * BLOCK as u64 + 50) as usize;
            let (now, later) = rest.split_at(length.min(rest.len()));
            if writer.write_all(now).is_err() {
                return;
            }
            rest = later;
        }
    }
}

#[test]
fn blocks_come_right_in_whatever_order_and_among_whatever_messages() {
    let content = Content::new(&[("a", 300 * PIECE + 12_345)], PIECE);
    for round in 0..4 {
        let server = server(config(1));
        let folder = TempDir::new().unwrap();
        let (fetch, mut events) =
            server.fetch(FetchSpec::new(content.metainfo.clone(), folder.path()));
        let peers: Vec<SocketAddr> = (0..2)
            .map(|number| {
                let (listener, address) = listen(10 + number);
                let content = content.clone();
                let random = Random::new(10 * round + u64::from(number));
                thread::spawn(move || {
                    let stream = listener.accept().unwrap().0;
                    let stream = introduce(stream, &content, [b'0' + number; 20]);
                    answer_anyhow(stream, &content, random);
                });
                address
            })
            .collect();
        fetch.add_peers(&peers);
        server.wait(&mut events, is_complete);
        content.assert_is_in(folder.path());
        assert_eq!(fetch.progress().hash_failures, 0);
        server.stop();
    }
}

/// A seed by hand that takes one connection: it gives the metadata, then the pieces.
fn giver_of_all(content: &Content) -> (SocketAddr, thread::JoinHandle<()>) {
    let (listener, address) = listen(7);
    let content = content.clone();
    let giver = thread::spawn(move || {
        let stream = listener.accept().unwrap().0;
        drop(listener);
        give_metadata_and_pieces(stream, &content);
    });
    (address, giver)
}

/// What it says when it is there.
pub(super) fn give_metadata_and_pieces(mut stream: TcpStream, content: &Content) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let handshake = Handshake {
        reserved: Reserved::NONE
            .with(ReservedBit::FAST)
            .with(ReservedBit::EXTENSION_PROTOCOL),
        info_hash: content.metainfo.info_hash_v1.unwrap(),
        peer_id: PeerId([b'0'; 20]),
    };
    stream.write_all(&handshake.encode()).unwrap();
    stream.read_exact(&mut [0; HANDSHAKE_BYTES]).unwrap();
    // All that a download has to know is said before there is one.
    let mut opening = Vec::new();
    Message::HaveAll.encode(&mut opening);
    Message::Unchoke.encode(&mut opening);
    let ours = ExtensionHandshake {
        messages: MessageIds::ours(&[Extension::Metadata]),
        metadata_bytes: Some(content.metainfo.info.len() as u32),
        ..ExtensionHandshake::default()
    };
    let mut payload = Vec::new();
    ours.encode(&mut payload);
    let (id, payload) = (HANDSHAKE_ID, &payload[..]);
    Message::Extended { id, payload }.encode(&mut opening);
    stream.write_all(&opening).unwrap();
    answer_all(stream, content);
}

/// Answers requests for metadata and for blocks until the connection ends.
fn answer_all(mut stream: TcpStream, content: &Content) {
    let mut theirs = MessageIds::default();
    let mut times_empty = 0;
    while let Some(body) = read_message(&mut stream) {
        let mut answer = Vec::new();
        match (body.first(), body.get(1)) {
            (Some(&wire::id::HAVE_NONE), _) => times_empty += 1,
            (Some(&wire::id::EXTENDED), Some(&HANDSHAKE_ID)) => {
                theirs.update(&ExtensionHandshake::parse(&body[2..]).unwrap().messages);
            }
            (Some(&wire::id::EXTENDED), _) => {
                let message = MetadataMessage::parse(&body[2..]).unwrap();
                let MetadataMessage::Request { piece } = message else {
                    continue;
                };
                let info = &content.metainfo.info;
                let mut payload = Vec::new();
                let block = info.chunks(BLOCK).nth(piece as usize).unwrap();
                let total_bytes = info.len() as u32;
                MetadataMessage::Data {
                    piece,
                    total_bytes,
                    block,
                }
                .encode(&mut payload);
                let id = theirs.get(Extension::Metadata).unwrap().get();
                let payload = &payload[..];
                Message::Extended { id, payload }.encode(&mut answer);
            }
            (Some(&wire::id::REQUEST), _) => {
                let number = |at: usize| u32::from_be_bytes(body[at..at + 4].try_into().unwrap());
                let block = BlockRequest {
                    piece: PieceIndex(number(1)),
                    begin: number(5),
                    length: number(9),
                };
                answer = block_message(content, block, 0);
            }
            _ => {}
        }
        if stream.write_all(&answer).is_err() {
            break;
        }
    }
    assert_eq!(times_empty, 1, "BEP 6 has it said once");
}

#[test]
fn the_connection_over_which_the_metadata_came_is_the_download_s() {
    let content = Content::new(&[("a", 8 * PIECE)], PIECE);
    let server = server(config(1));
    let (seed, giver) = giver_of_all(&content);
    let info_hash = content.metainfo.info_hash_v1.unwrap();
    let begun = server.plane.fetch_metadata(info_hash);
    let (metadata, mut told) = server.runtime.block_on(begun).unwrap();
    metadata.add_peers(&[seed]);
    let event = async { tokio::time::timeout(PATIENCE, told.recv()).await };
    let event = server.runtime.block_on(event).expect("in time");
    assert!(matches!(event, Some(MetadataEvent::Complete(_))));
    drop(metadata);
    // Nobody names the seed again, and nobody could call it: it takes no other connection.
    let folder = TempDir::new().unwrap();
    let (_fetch, mut events) =
        server.fetch(FetchSpec::new(content.metainfo.clone(), folder.path()));
    server.wait(&mut events, is_complete);
    content.assert_is_in(folder.path());
    server.stop();
    giver.join().unwrap();
}

#[test]
fn a_connection_over_which_metadata_came_does_not_hold_up_a_stop() {
    let content = Content::new(&[("a", 8 * PIECE)], PIECE);
    let server = server(config(1));
    let begun = server
        .plane
        .fetch_metadata(content.metainfo.info_hash_v1.unwrap());
    let (metadata, mut told) = server.runtime.block_on(begun).unwrap();
    let (seed, giver) = giver_of_all(&content);
    metadata.add_peers(&[seed]);
    let event = async { tokio::time::timeout(PATIENCE, told.recv()).await };
    let event = server.runtime.block_on(event).expect("in time");
    assert!(matches!(event, Some(MetadataEvent::Complete(_))));
    // Panics if something is still in flight after a while.
    server.stop();
    giver.join().unwrap();
}

#[test]
fn who_gave_the_metadata_goes_on_or_is_called_again_at_once_and_lets_us_in() {
    let content = Content::new(&[("a", 8 * PIECE)], PIECE);
    let mut config_of_source = config(2);
    config_of_source.shards = 3;
    // It downloads the torrent itself, so that of two connections of ours it would keep the first.
    let source = server(config_of_source);
    let folder = TempDir::new().unwrap();
    let (fetch, _events) = source.fetch(FetchSpec::new(content.metainfo.clone(), folder.path()));
    let most = Script {
        has: (0..8).map(|piece| piece != 3).collect(),
        ..Script::all(&content, 0)
    };
    fetch.add_peers(&[scripted(&content, most)]);
    source.until(&fetch, |progress| progress.pieces_stored == 7);
    let info_hash = content.metainfo.info_hash_v1.unwrap();
    let server = server(config(1));
    for round in 0..16 {
        let begun = server.plane.fetch_metadata(info_hash);
        let (metadata, mut told) = server.runtime.block_on(begun).unwrap();
        metadata.add_peers(&[source.address()]);
        let event = async { tokio::time::timeout(PATIENCE, told.recv()).await };
        let event = server.runtime.block_on(event).expect("in time");
        assert!(matches!(event, Some(MetadataEvent::Complete(_))));
        drop(metadata);
        let folder = TempDir::new().unwrap();
        let mut spec = FetchSpec::new(content.metainfo.clone(), folder.path());
        if round % 2 == 0 {
            // It was told that we have nothing, so it is called again: the end of one connection
            // and the next come together, and are seen by different shards.
            fs::create_dir(folder.path().join("t")).unwrap();
            fs::write(folder.path().join("t/a.part"), &content.bytes[..PIECE]).unwrap();
            spec.verified = vec![0x80];
        }
        let (again, _events) = server.fetch(spec);
        again.add_peers(&[source.address()]);
        server.until(&again, |progress| {
            assert_eq!(progress.candidates, 0, "it waits to be called again");
            progress.pieces_stored == 7
        });
        assert!(server.runtime.block_on(again.stop(PATIENCE)));
    }
    source.stop();
    server.stop();
}
