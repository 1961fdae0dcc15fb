//! The whole load against a seed in this process: real sockets on loopback, a deterministic
//! verdict.
//!
//! The seed is as small as the protocol allows, and can be told to misbehave. Timing decides
//! nothing here: a test asks whether bytes were right, what was counted, or which error was named.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use proto::handshake::{HANDSHAKE_BYTES, Handshake, Reserved};
use proto::ids::{InfoHashV1, PeerId};
use proto::wire::{self, Decoded, FrameLimits, Message};
use sha1::{Digest, Sha1};
use socket2::{Domain, Socket, Type};

use super::blocks::Geometry;
use super::verify::Expected;
use super::*;

const GEOMETRY: Geometry = Geometry {
    piece_count: 6,
    piece_length: 64 << 10,
    last_piece_length: 40_000,
};
const INFO_HASH: InfoHashV1 = InfoHashV1([9; 20]);

/// What the seed does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Habit {
    Serve,
    /// One bit of each block is wrong.
    Corrupt,
    /// Closes when the handshake names a torrent, as a seed does that does not have it.
    CloseAfterHandshake,
    NeverUnchoke,
    /// Greets and says nothing of its pieces.
    Silent,
    /// Closes after each 8 blocks.
    CloseOften,
}

fn content(piece: u32) -> Vec<u8> {
    (0..GEOMETRY.length_of(piece))
        .map(|at| (at % 251) as u8 ^ piece as u8)
        .collect()
}

/// Listens on a free port; its threads end with the process, or when their peer leaves.
fn start_seed(habit: Habit) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            // A broken connection is the end of that peer only.
            thread::spawn(move || stream.and_then(|stream| serve(stream, habit)));
        }
    });
    address
}

fn serve(mut stream: TcpStream, habit: Habit) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut greeting = [0; HANDSHAKE_BYTES];
    stream.read_exact(&mut greeting)?;
    assert_eq!(greeting[28..48], INFO_HASH.0);
    if habit == Habit::CloseAfterHandshake {
        return Ok(());
    }
    let peer_id = PeerId([b's'; 20]);
    let ours = Handshake {
        reserved: Reserved::NONE,
        info_hash: INFO_HASH,
        peer_id,
    };
    let mut out = ours.encode().to_vec();
    if habit != Habit::Silent {
        Message::Bitfield(&[0b1111_1100]).encode(&mut out);
    }
    stream.write_all(&out)?;
    let (mut input, mut buffer, mut blocks) = (Vec::new(), [0; 4096], 0);
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        input.extend_from_slice(&buffer[..count]);
        let mut out = Vec::new();
        let limits = FrameLimits::for_torrent(GEOMETRY.piece_count);
        while let Decoded::Message { message, consumed } = wire::decode(&input, &limits).unwrap() {
            match message {
                Message::Interested if habit != Habit::NeverUnchoke => {
                    Message::Unchoke.encode(&mut out);
                }
                Message::Request(request) => {
                    let (begin, length) = (request.begin as usize, request.length as usize);
                    let mut block = content(request.piece.0)[begin..begin + length].to_vec();
                    block[length / 2] ^= u8::from(habit == Habit::Corrupt);
                    let (piece, begin) = (request.piece, request.begin);
                    Message::Piece {
                        piece,
                        begin,
                        block: &block,
                    }
                    .encode(&mut out);
                    blocks += 1;
                }
                _ => {}
            }
            input.drain(..consumed);
        }
        stream.write_all(&out)?;
        if habit == Habit::CloseOften && blocks >= 8 {
            return Ok(());
        }
    }
}

fn plan(address: SocketAddr) -> Plan {
    let hashes = (0..6)
        .map(|piece| Sha1::digest(content(piece)).into())
        .collect();
    Plan {
        settings: Settings {
            info_hash: INFO_HASH,
            geometry: GEOMETRY,
            expected: Some(Arc::new(Expected {
                geometry: GEOMETRY,
                hashes,
            })),
            block_bytes: 16 << 10,
            depth: 8,
            fast: true,
            extended: true,
            open_loop: false,
            deck: None,
        },
        socket: SocketSettings {
            address,
            discard: false,
            congestion_control: None,
        },
        peers: 3,
        slow_readers: 0,
        idle: 0,
        threads: 1,
        cores: Vec::new(),
        local_addresses: Vec::new(),
        rate_bytes: None,
        ready_ns_max: 30_000_000_000,
        warmup_ns: 0,
        window_ns: 1_000_000_000,
        server_pid: Some(std::process::id()),
        random_seed: 5,
    }
}

fn totals(outcome: &Outcome) -> Tally {
    let mut tally = Tally::default();
    outcome.load_peers().for_each(|peer| tally.add(&peer.tally));
    tally
}

#[test]
fn a_right_seed_verifies_and_is_measured() {
    let outcome = run(&plan(start_seed(Habit::Serve))).unwrap();
    let tally = totals(&outcome);
    assert!(tally.pieces_right > 0);
    assert_eq!((tally.pieces_wrong, tally.unrequested_blocks), (0, 0));
    assert_eq!(outcome.latency.count(), tally.blocks);
    assert_eq!(
        outcome
            .load_peers()
            .filter(|peer| peer.unchoked_ns.is_some())
            .count(),
        3
    );
    let server = outcome.server.unwrap();
    assert!(server.memory.anonymous_bytes > 0 && server.cpu.threads > 0);
}

#[test]
fn wrong_bytes_are_found() {
    let tally = totals(&run(&plan(start_seed(Habit::Corrupt))).unwrap());
    assert!(tally.pieces_wrong > 0 && tally.wrong_bytes > 0);
    assert_eq!(tally.pieces_right, 0);
}

#[test]
fn discarding_keeps_its_place_in_the_stream_on_several_threads() {
    let mut plan = plan(start_seed(Habit::Serve));
    plan.settings.expected = None;
    plan.socket.discard = true;
    (plan.threads, plan.slow_readers, plan.idle) = (2, 1, 1);
    plan.local_addresses = vec!["127.0.0.2".parse().unwrap(), "127.0.0.3".parse().unwrap()];
    let outcome = run(&plan).unwrap();
    let tally = totals(&outcome);
    assert!(tally.blocks > 0);
    assert_eq!(tally.unrequested_blocks, 0);
    assert_eq!(
        outcome
            .load_peers()
            .map(|peer| peer.disconnects)
            .sum::<u64>(),
        0
    );
    assert_eq!(outcome.peers.len(), 5);
}

#[test]
fn an_open_loop_is_served_at_its_rate() {
    let mut plan = plan(start_seed(Habit::Serve));
    plan.settings.open_loop = true;
    plan.rate_bytes = Some(4 << 20);
    let outcome = run(&plan).unwrap();
    let tally = totals(&outcome);
    // 4 MiB/s for 1 s are 256 blocks; what was due before the window and came in it adds a few, and
    // a busy machine may leave some undone, but nothing can add more than one pipeline of each
    // peer.
    assert!(
        (1..=256 + 3 * 8 + 3).contains(&tally.blocks),
        "{}",
        tally.blocks
    );
    assert!(outcome.lateness.count() > 0);
}

#[test]
fn a_seed_that_closes_is_met_again() {
    let plan = plan(start_seed(Habit::CloseOften));
    let outcome = run(&plan).unwrap();
    let tally = totals(&outcome);
    assert_eq!(tally.pieces_wrong, 0);
    assert!(
        outcome
            .load_peers()
            .map(|peer| peer.disconnects)
            .sum::<u64>()
            > 0
    );
    // Closed or reset, as the kernel had unread requests or not.
    assert!(outcome.first_end.is_some());
}

#[test]
fn each_way_to_fail_at_the_start_is_named() {
    let fails = |address, ready_ns_max| {
        let mut plan = plan(address);
        plan.ready_ns_max = ready_ns_max;
        run(&plan).err().unwrap()
    };
    // Bound, so that nobody else gets the port, and not listening.
    let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    bound
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    let refusing = bound.local_addr().unwrap().as_socket().unwrap();
    let error = fails(refusing, 30_000_000_000);
    assert!(
        matches!(error, LoadError::Refused { address } if address == refusing),
        "{error}"
    );
    let error = fails(start_seed(Habit::CloseAfterHandshake), 30_000_000_000);
    assert!(
        matches!(error, LoadError::ClosedAfterHandshake { .. }),
        "{error}"
    );
    let error = fails(start_seed(Habit::NeverUnchoke), 500_000_000);
    assert!(
        matches!(error, LoadError::NeverUnchoked { peers: 3, .. }),
        "{error}"
    );
    let error = fails(start_seed(Habit::Silent), 500_000_000);
    assert!(matches!(error, LoadError::NothingOffered { .. }), "{error}");
    let mut plan = plan(start_seed(Habit::Serve));
    plan.server_pid = Some(1 << 30);
    let error = run(&plan).err().unwrap();
    assert!(matches!(error, LoadError::Measure(_)), "{error}");
}
