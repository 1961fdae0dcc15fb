//! Peers that break the protocol or abuse it, over real sockets (RELIABILITY.md section C).
//!
//! After each the oracle holds: the server lives, no thread is lost, descriptors return, and another peer
//! and another torrent get correct bytes.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use seedring_tests::fixture::{Fixture, PIECE};
use seedring_tests::oracle::Oracle;
use seedring_tests::peer::{
    Answer, BLOCK, Extensions, Peer, closed_within, handshake, id, is_timeout, message, range,
    split_block,
};
use seedring_tests::torrent::{Torrent, sha1};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// "At once", with room for a busy machine.
const AT_ONCE: Duration = Duration::from_secs(3);
/// The bytes of a fixture piece.
const PIECE_BYTES: u32 = PIECE as u32;

/// Runs an attack on a fresh server and holds the result against the oracle.
fn attack(attack: impl FnOnce(&Fixture)) {
    attack_on(Fixture::start(), attack);
}

fn attack_on(mut fixture: Fixture, attack: impl FnOnce(&Fixture)) {
    let torrents = [fixture.target.clone(), fixture.other.clone()];
    let torrents: Vec<&Torrent> = torrents.iter().collect();
    let oracle = Oracle::before(&fixture.server, &torrents);
    attack(&fixture);
    oracle.check(&mut fixture.server, &torrents);
}

fn plain_peer(fixture: &Fixture) -> Peer {
    let address = fixture.server.address();
    let mut peer = Peer::connect_plain(address, &fixture.target.info_hash).unwrap();
    peer.unchoked().unwrap();
    peer
}

/// Requests that no torrent of 20 pieces can answer.
fn impossible_requests(torrent: &Torrent) -> Vec<(u32, u32, u32)> {
    let count = u32::try_from(torrent.pieces.len()).unwrap();
    let last = torrent.piece_size(count - 1);
    vec![
        (count, 0, BLOCK),
        (u32::MAX, 0, BLOCK),
        (0, PIECE_BYTES, BLOCK),
        (0, PIECE_BYTES - 1, 2),
        (0, u32::MAX, BLOCK),
        (0, u32::MAX - BLOCK + 1, BLOCK),
        (count - 1, last - 10, 11),
        (0, 0, 0),
        (0, 0, 128 * 1024 + 1),
        (0, 0, u32::MAX),
    ]
}

#[test]
fn impossible_requests_are_rejected() {
    attack(|fixture| {
        for (piece, begin, length) in impossible_requests(&fixture.target) {
            let mut peer = fixture.server.peer(&fixture.target);
            match peer.block(piece, begin, length) {
                Ok(Answer::Rejected) => {
                    // A peer that is told so goes on: its next good request is served.
                    let data = peer.piece(&fixture.target, 3).unwrap().expect("served");
                    assert!(fixture.target.is_piece(3, &data));
                }
                Ok(Answer::Block(_)) => panic!("served {piece} {begin} {length}"),
                Err(error) if is_timeout(&error) => {
                    panic!("neither rejected nor closed: {piece} {begin} {length}")
                }
                Err(_closed) => {}
            }
        }
    });
}

#[test]
fn impossible_requests_of_a_peer_without_rejects_close_it() {
    attack(|fixture| {
        for (piece, begin, length) in impossible_requests(&fixture.target) {
            let mut peer = plain_peer(fixture);
            peer.request(piece, begin, length).unwrap();
            match peer.read_until(id::PIECE) {
                Ok(_) => panic!("served {piece} {begin} {length}"),
                Err(error) => assert!(!is_timeout(&error), "kept after {piece} {begin} {length}"),
            }
        }
    });
}

#[test]
fn endless_impossible_requests_close_the_peer() {
    attack(|fixture| {
        let mut peer = fixture.server.peer(&fixture.target);
        let request = message(id::REQUEST, &range(999, 0, BLOCK));
        let flood = request.repeat(10_000);
        // The write may fail: the server may have closed already.
        let _closed = peer.stream().write_all(&flood);
        peer.closed_within(Duration::from_secs(10));
    });
}

#[test]
fn long_requests_are_served_up_to_128_kib() {
    attack(|fixture| {
        let mut peer = fixture.server.peer(&fixture.target);
        for length in [
            1,
            BLOCK - 1,
            BLOCK,
            BLOCK + 1,
            32 << 10,
            64 << 10,
            128 << 10,
        ] {
            let mut data = Vec::new();
            while data.len() < PIECE_BYTES as usize {
                let at = u32::try_from(data.len()).unwrap();
                // One odd block, then the rest of the piece in the longest blocks.
                let want = if at == 0 { length } else { 128 << 10 };
                let want = want.min(PIECE_BYTES - at);
                match peer.block(7, at, want).unwrap() {
                    Answer::Block(block) => data.extend_from_slice(&block),
                    Answer::Rejected => panic!("{want} bytes at {at} rejected"),
                }
            }
            assert!(
                fixture.target.is_piece(7, &data),
                "wrong bytes in blocks of {length}"
            );
        }
    });
}

#[test]
fn requests_while_choked_are_never_served() {
    attack(|fixture| {
        let address = fixture.server.address();
        for fast in [true, false] {
            let hash = &fixture.target.info_hash;
            let mut peer = match fast {
                true => Peer::connect(address, hash).unwrap(),
                false => Peer::connect_plain(address, hash).unwrap(),
            };
            peer.request(0, 0, BLOCK).unwrap();
            if fast {
                assert_eq!(peer.answer(0, 0, BLOCK).unwrap(), Answer::Rejected);
            } else {
                peer.stream()
                    .set_read_timeout(Some(Duration::from_secs(1)))
                    .unwrap();
                let error = peer.read_until(id::PIECE).expect_err("served while choked");
                assert!(
                    is_timeout(&error),
                    "one early request closes nobody: {error}"
                );
                peer.stream()
                    .set_read_timeout(Some(seedring_tests::peer::TIMEOUT))
                    .unwrap();
            }
            peer.unchoked().unwrap();
            let data = peer
                .piece(&fixture.target, 0)
                .unwrap()
                .expect("served once unchoked");
            assert!(fixture.target.is_piece(0, &data));
        }
    });
}

#[test]
fn endless_requests_while_choked_close_the_peer() {
    attack(|fixture| {
        let hash = &fixture.target.info_hash;
        let mut peer = Peer::connect_plain(fixture.server.address(), hash).unwrap();
        let flood = message(id::REQUEST, &range(0, 0, BLOCK)).repeat(100_000);
        let _closed = peer.stream().write_all(&flood);
        peer.closed_within(Duration::from_secs(10));
    });
}

#[test]
fn pipelined_requests_are_each_answered_once_in_bounded_memory() {
    const REQUESTS: usize = 100_000;
    const LENGTH: u32 = 1024;
    attack(|fixture| {
        let mut peer = fixture.server.peer(&fixture.target);
        let expected = peer.piece(&fixture.target, 5).unwrap().expect("served");
        let before = fixture.server.memory_bytes();
        let mut writer = peer.stream().try_clone().unwrap();
        let flood: Vec<u8> = (0..REQUESTS)
            .flat_map(|number| {
                let begin = u32::try_from(number).unwrap() % (PIECE_BYTES / LENGTH) * LENGTH;
                message(id::REQUEST, &range(5, begin, LENGTH))
            })
            .collect();
        let sender = std::thread::spawn(move || writer.write_all(&flood));
        // Nobody reads for a while: whatever the server queues now, it must bound.
        std::thread::sleep(Duration::from_secs(2));
        let grown = fixture.server.memory_bytes().saturating_sub(before);
        assert!(grown < 32 << 20, "{grown} bytes queued for one peer");
        let (mut served, mut rejected) = (0, 0);
        while served + rejected < REQUESTS {
            let message = peer.read().unwrap_or_else(|error| {
                panic!("after {served} served, {rejected} rejected: {error}")
            });
            match message.id {
                Some(id::PIECE) => {
                    let (piece, begin, block) = split_block(&message.payload);
                    let begin = begin as usize;
                    assert_eq!(piece, 5);
                    assert!(
                        block == &expected[begin..begin + LENGTH as usize],
                        "wrong bytes"
                    );
                    served += 1;
                }
                Some(id::REJECT) => rejected += 1,
                _ => {}
            }
        }
        sender.join().unwrap().unwrap();
        assert!(served > 0, "nothing was served");
    });
}

#[test]
fn a_cancel_storm_leaves_every_request_answered_at_most_once() {
    attack(|fixture| {
        let mut peer = fixture.server.peer(&fixture.target);
        let mut storm = Vec::new();
        for round in 0..200u32 {
            let blocks: Vec<_> = (0..16u32)
                .map(|at| range(round % 20, at * BLOCK, 1000))
                .collect();
            blocks
                .iter()
                .for_each(|block| storm.extend(message(id::REQUEST, block)));
            blocks
                .iter()
                .for_each(|block| storm.extend(message(id::CANCEL, block)));
            blocks
                .iter()
                .for_each(|block| storm.extend(message(id::CANCEL, block)));
        }
        let mut writer = peer.stream().try_clone().unwrap();
        let sender = std::thread::spawn(move || writer.write_all(&storm));
        // With BEP 6 each request is answered by its block or by a reject.
        let mut answers = 0;
        while answers < 200 * 16 {
            let message = peer
                .read()
                .unwrap_or_else(|error| panic!("{answers} answers: {error}"));
            if matches!(message.id, Some(id::PIECE | id::REJECT)) {
                answers += 1;
            }
        }
        sender.join().unwrap().unwrap();
        let data = peer
            .piece(&fixture.target, 1)
            .unwrap()
            .expect("served after the storm");
        assert!(fixture.target.is_piece(1, &data));
    });
}

#[test]
fn a_slow_handshake_is_closed_at_ten_seconds() {
    attack(|fixture| {
        let bytes = handshake(&fixture.target.info_hash, Extensions::All);
        let address = fixture.server.address();
        let silent = std::thread::spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            closed_within(&mut stream, Duration::from_secs(15))
        });
        let mut slow = TcpStream::connect(address).unwrap();
        let mut writer = slow.try_clone().unwrap();
        let drip = std::thread::spawn(move || {
            // One byte every half second: never silent, never done in time.
            for byte in bytes.iter().take(40) {
                if writer.write_all(&[*byte]).is_err() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(500));
            }
        });
        for took in [
            closed_within(&mut slow, Duration::from_secs(15)),
            silent.join().unwrap(),
        ] {
            assert!(took >= Duration::from_secs(8), "closed too early: {took:?}");
        }
        drip.join().unwrap();
    });
}

#[test]
fn an_unknown_info_hash_is_closed_at_once_and_told_nothing() {
    attack(|fixture| {
        let mut stream = TcpStream::connect(fixture.server.address()).unwrap();
        stream
            .write_all(&handshake(&[0xAB; 20], Extensions::All))
            .unwrap();
        stream.set_read_timeout(Some(AT_ONCE)).unwrap();
        let mut received = Vec::new();
        let result = stream.read_to_end(&mut received);
        assert!(
            !result.is_err_and(|error| is_timeout(&error)),
            "kept for {AT_ONCE:?}"
        );
        assert!(
            received.is_empty(),
            "a stranger was told {} bytes",
            received.len()
        );
    });
}

#[test]
fn garbage_instead_of_a_handshake_is_closed_at_once() {
    attack(|fixture| {
        let mut garbage: Vec<Vec<u8>> = vec![
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(4),
            vec![0u8; 68],
            vec![0xFFu8; 4096],
            b"\x13BitTorrent protocoX".repeat(4),
            b"\x12BitTorrent protocol".repeat(4),
        ];
        // What the first message of an encrypted handshake looks like: 96 to 608 random bytes.
        for length in [96usize, 300, 608] {
            let random = (0..length / 20 + 1).flat_map(|at| sha1(&at.to_le_bytes()));
            garbage.push(random.take(length).collect());
        }
        for bytes in garbage {
            let mut stream = TcpStream::connect(fixture.server.address()).unwrap();
            stream.write_all(&bytes).unwrap();
            closed_within(&mut stream, AT_ONCE);
        }
    });
}

#[test]
fn messages_in_any_pieces_are_understood() {
    attack(|fixture| {
        let mut opening = handshake(&fixture.target.info_hash, Extensions::All).to_vec();
        opening.extend(message(id::HAVE, &3u32.to_be_bytes()));
        opening.extend(0u32.to_be_bytes());
        opening.extend(message(id::INTERESTED, &[]));
        let mut requests = Vec::new();
        for begin in (0..PIECE_BYTES).step_by(BLOCK as usize) {
            requests.extend(message(id::REQUEST, &range(2, begin, BLOCK)));
        }
        for step in [1, 2, 3, 7, 67, 68, 69, 71] {
            let mut stream = TcpStream::connect(fixture.server.address()).unwrap();
            stream.set_nodelay(true).unwrap();
            send_in_pieces(&mut stream, &opening, step);
            let mut peer = Peer::introduced(stream).unwrap();
            peer.read_until(id::UNCHOKE).unwrap();
            send_in_pieces(peer.stream(), &requests, step);
            let mut data = Vec::new();
            for begin in (0..PIECE_BYTES).step_by(BLOCK as usize) {
                match peer.answer(2, begin, BLOCK).unwrap() {
                    Answer::Block(block) => data.extend(block),
                    Answer::Rejected => panic!("rejected at {begin} in steps of {step}"),
                }
            }
            assert!(
                fixture.target.is_piece(2, &data),
                "wrong bytes in steps of {step}"
            );
        }
    });
}

fn send_in_pieces(stream: &mut TcpStream, bytes: &[u8], step: usize) {
    for part in bytes.chunks(step) {
        stream.write_all(part).unwrap();
        std::thread::sleep(Duration::from_micros(300));
    }
}

#[test]
fn a_reader_that_never_drains_is_closed() {
    let fixture = Fixture::start_with(|seed| seed.setting("peers", "stalled_timeout_s", "5"));
    attack_on(fixture, |fixture| {
        let mut peer = fixture.server.peer(&fixture.target);
        let requests: Vec<u8> = (0..20u32)
            .flat_map(|piece| (0..16u32).map(move |at| range(piece, at * BLOCK, BLOCK)))
            .flat_map(|request| message(id::REQUEST, &request))
            .collect();
        // Far more than both socket buffers hold, so that the server is left with unsent data.
        for _ in 0..4 {
            peer.stream().write_all(&requests).unwrap();
        }
        while connected(fixture) < 1.0 {
            // The metrics follow a little later.
            std::thread::sleep(Duration::from_millis(20));
        }
        let before = Instant::now();
        let closed = |fixture: &Fixture| connected(fixture) == 0.0;
        while !closed(fixture) {
            assert!(
                before.elapsed() < Duration::from_secs(20),
                "the stalled reader is kept"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        let took = before.elapsed();
        assert!(took >= Duration::from_secs(4), "closed too early: {took:?}");
        drop(peer);
    });
}

/// Peers connected now, over all shards.
fn connected(fixture: &Fixture) -> f64 {
    let metrics = fixture.server.metrics();
    let series = metrics
        .iter()
        .filter(|(series, _)| series.starts_with("seedring_peers_connected"));
    series.map(|(_, value)| value).sum()
}

/// Sends `flood` to the server in a session that has been unchoked, then says whether the session survives.
fn flood(fixture: &Fixture, flood: &[u8]) -> Result<(), ErrorKind> {
    let mut peer = fixture.server.peer(&fixture.target);
    let mut writer = peer.stream().try_clone().unwrap();
    let flood = flood.to_vec();
    let sender = std::thread::spawn(move || writer.write_all(&flood));
    let served = peer
        .piece(&fixture.target, 4)
        .map(|data| data.expect("served"));
    let _closed = sender.join().unwrap();
    // Only now is the whole flood in: ask once more.
    let served = served.and_then(|_| peer.piece(&fixture.target, 9));
    match served {
        Ok(data) => {
            let data = data.expect("served after the flood");
            assert!(fixture.target.is_piece(9, &data));
            Ok(())
        }
        Err(error) if is_timeout(&error) => panic!("neither served nor closed"),
        Err(error) => Err(error.kind()),
    }
}

#[test]
fn floods_of_lawful_messages_are_borne() {
    attack(|fixture| {
        let have: Vec<u8> = (0..100_000u32)
            .flat_map(|at| message(id::HAVE, &(at % 19).to_be_bytes()))
            .collect();
        let interest = [
            message(id::INTERESTED, &[]),
            message(id::NOT_INTERESTED, &[]),
        ]
        .concat();
        let floods: Vec<(&str, Vec<u8>)> = vec![
            ("keep-alive", vec![0u8; 400_000]),
            // aria2 sends its bitfield again and again.
            (
                "bitfield",
                message(id::BITFIELD, &[0x80, 0, 0]).repeat(100_000),
            ),
            ("have", have),
            (
                "interested",
                [interest.repeat(50_000), message(id::INTERESTED, &[])].concat(),
            ),
            (
                "cancel",
                message(id::CANCEL, &range(0, 0, BLOCK)).repeat(100_000),
            ),
            ("unknown id", message(99, b"?").repeat(100_000)),
            ("port", message(id::PORT, &[0x1A, 0xE1]).repeat(100_000)),
        ];
        for (name, bytes) in floods {
            let start = Instant::now();
            // A flood of interest makes and ends unchokes; requests in between may be rejected.
            if name == "interested" {
                let mut peer = fixture.server.peer(&fixture.target);
                let _closed = peer.stream().write_all(&bytes);
                continue;
            }
            assert_eq!(flood(fixture, &bytes), Ok(()), "{name}");
            assert!(
                start.elapsed() < Duration::from_secs(15),
                "{name}: not O(1) a message"
            );
        }
    });
}

#[test]
fn floods_of_fast_messages_are_survived() {
    attack(|fixture| {
        for id in [
            id::SUGGEST,
            id::ALLOWED_FAST,
            id::HAVE_ALL,
            id::HAVE_NONE,
            id::REJECT,
        ] {
            let payload: &[u8] = match id {
                id::SUGGEST | id::ALLOWED_FAST => &[0, 0, 0, 1],
                id::REJECT => &[0; 12],
                _ => &[],
            };
            // The server may close (no client sends them so) or bear it: it must do one of them.
            let _either = flood(fixture, &message(id, payload).repeat(100_000));
        }
    });
}

#[test]
fn violations_close_the_peer() {
    attack(|fixture| {
        let huge = |length: u32| [&length.to_be_bytes()[..], &[id::BITFIELD, 1, 2, 3]].concat();
        let violations: Vec<(&str, Vec<u8>)> = vec![
            ("have of no piece", message(id::HAVE, &999u32.to_be_bytes())),
            (
                "have of the highest index",
                message(id::HAVE, &u32::MAX.to_be_bytes()),
            ),
            ("have of two bytes", message(id::HAVE, &[0, 0])),
            ("short bitfield", message(id::BITFIELD, &[0xFF])),
            ("long bitfield", message(id::BITFIELD, &[0xFF; 9])),
            ("spare bits", message(id::BITFIELD, &[0xFF, 0xFF, 0xFF])),
            ("request of 11 bytes", message(id::REQUEST, &[0; 11])),
            ("request of 13 bytes", message(id::REQUEST, &[0; 13])),
            ("choke with a payload", message(id::CHOKE, &[1])),
            ("message of 4 GiB", huge(u32::MAX)),
            ("message of 2 GiB", huge(0x8000_0000)),
            ("message of 1 MiB", huge(1 << 20)),
            ("unrequested block", message(id::PIECE, &[0; 8 + 16])),
            ("extended message without an id", message(id::EXTENDED, &[])),
            (
                "extension handshake of garbage",
                message(id::EXTENDED, &[0, b'x', b'y']),
            ),
            ("deep extension handshake", deep_extension()),
        ];
        for (name, bytes) in violations {
            let result = flood(fixture, &bytes);
            assert!(result.is_err(), "{name}: the peer is kept");
        }
    });
}

fn deep_extension() -> Vec<u8> {
    let mut payload = vec![0u8];
    payload.extend(std::iter::repeat_n(b'l', 20_000));
    payload.extend(std::iter::repeat_n(b'e', 20_000));
    message(id::EXTENDED, &payload)
}

#[test]
fn metadata_is_served_whole_and_a_flood_for_it_is_bounded() {
    attack(|fixture| {
        let hash = &fixture.target.info_hash;
        let mut peer = Peer::connect(fixture.server.address(), hash).unwrap();
        let ours = b"\0d1:md11:ut_metadatai3eee";
        peer.send(id::EXTENDED, ours).unwrap();
        let theirs = peer.read_until(id::EXTENDED).unwrap();
        let text = String::from_utf8_lossy(&theirs.payload).into_owned();
        let id_at = text.find("11:ut_metadatai").expect("ut_metadata offered") + 15;
        let metadata_id: u8 = text[id_at..].split('e').next().unwrap().parse().unwrap();
        let ask = |piece: u32| {
            let mut payload = vec![metadata_id];
            payload.extend(format!("d8:msg_typei0e5:piecei{piece}ee").bytes());
            payload
        };
        peer.send(id::EXTENDED, &ask(0)).unwrap();
        let answer = loop {
            let message = peer.read_until(id::EXTENDED).unwrap();
            if message.payload[0] == 3 {
                break message.payload;
            }
        };
        let (_, head) = seedring_tests::bencode::decode(&answer[1..]);
        assert_eq!(
            sha1(&answer[1 + head..]),
            fixture.target.info_hash,
            "the metadata"
        );
        let all: Vec<u8> = [0u32, 1, 77, u32::MAX]
            .iter()
            .flat_map(|piece| message(id::EXTENDED, &ask(*piece)))
            .collect();
        let _either = flood(
            fixture,
            &[message(id::EXTENDED, ours), all.repeat(25_000)].concat(),
        );
    });
}

#[test]
fn one_address_cannot_take_every_place() {
    attack(|fixture| {
        let hash = fixture.target.info_hash;
        let mut peers = Vec::new();
        let mut refused = 0;
        for _ in 0..1_000 {
            match Peer::connect(fixture.server.address(), &hash) {
                Ok(peer) => peers.push(peer),
                Err(_) => refused += 1,
            }
        }
        assert!(
            refused > 0,
            "1,000 connections from one address were all taken"
        );
        assert!(!peers.is_empty(), "no connection was taken");
        // Those that are in are served; those beyond the limit leave nothing behind.
        let first = peers.first_mut().unwrap();
        first.unchoked().unwrap();
        let data = first.piece(&fixture.target, 0).unwrap().expect("served");
        assert!(fixture.target.is_piece(0, &data));
    });
}

#[test]
fn connections_that_vanish_leave_nothing_behind() {
    attack(|fixture| {
        for round in 0..500u32 {
            let mut stream = TcpStream::connect(fixture.server.address()).unwrap();
            let mut script = handshake(&fixture.target.info_hash, Extensions::All).to_vec();
            script.extend(message(id::INTERESTED, &[]));
            script.extend(message(id::REQUEST, &range(round % 20, 0, BLOCK)));
            script.truncate(script.len() * (round as usize % 10) / 9);
            stream.write_all(&script).unwrap();
            // Half of them by reset: unread data, or a closed socket with data on its way.
            if round % 2 == 0 {
                let socket = socket2::SockRef::from(&stream);
                socket.set_linger(Some(Duration::ZERO)).unwrap();
            }
        }
    });
}
