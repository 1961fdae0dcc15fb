//! The HTTP load against a web server in this process: what is asked for, what is counted, which
//! answers end the run.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use proto::ids::InfoHashV1;
use rustix::event::epoll::{self, CreateFlags, Event, EventData};
use rustix::time::Timespec;

use super::*;
use crate::load::leecher;
use crate::load::stream::SCRATCH_BYTES;

const GEOMETRY: Geometry = Geometry {
    piece_count: 3,
    piece_length: 64 << 10,
    last_piece_length: 1_000,
};

fn content() -> Vec<u8> {
    (0..2 * (64 << 10) + 1_000)
        .map(|at| (at % 251) as u8)
        .collect()
}

/// Serves ranges of the content with this status line until the test's process ends.
fn start_server(status: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || stream.and_then(|stream| serve(&stream, status)));
        }
    });
    address
}

fn serve(stream: &TcpStream, status: &str) -> std::io::Result<()> {
    let mut out = stream;
    let content = content();
    for line in BufReader::new(stream).lines() {
        let line = line?;
        let Some(range) = line.strip_prefix("Range: bytes=") else {
            continue;
        };
        let (first, last) = range.split_once('-').unwrap();
        let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
        let body = &content[first..=last];
        write!(
            out,
            "HTTP/1.1 {status}\r\nServer: test\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )?;
        out.write_all(body)?;
    }
    Ok(())
}

fn plan(address: SocketAddr, discard: bool) -> Plan {
    let content = content();
    let pieces = content.chunks(GEOMETRY.piece_length as usize);
    let expected = Expected {
        geometry: GEOMETRY,
        hashes: pieces.map(|piece| Sha1::digest(piece).into()).collect(),
    };
    Plan {
        settings: leecher::Settings {
            info_hash: InfoHashV1([0; 20]),
            geometry: GEOMETRY,
            expected: (!discard).then(|| Arc::new(expected)),
            block_bytes: 16 << 10,
            depth: 8,
            fast: true,
            extended: true,
            open_loop: false,
            deck: None,
        },
        socket: SocketSettings {
            address,
            discard,
            congestion_control: None,
        },
        peers: 3,
        slow_readers: 0,
        idle: 0,
        threads: 2,
        cores: Vec::new(),
        local_addresses: vec!["127.0.0.2".parse().unwrap()],
        rate_bytes: None,
        ready_ns_max: 30_000_000_000,
        warmup_ns: 0,
        window_ns: 500_000_000,
        server_pid: None,
        random_seed: 3,
    }
}

fn totals(outcome: &Outcome) -> Tally {
    let mut tally = Tally::default();
    outcome.load_peers().for_each(|peer| tally.add(&peer.tally));
    tally
}

#[test]
fn ranges_arrive_whole_and_right() {
    let outcome = run(&plan(start_server("206 Partial Content"), false), "/file").unwrap();
    let tally = totals(&outcome);
    assert!(tally.pieces_right > 0);
    assert_eq!(tally.pieces_wrong, 0);
    assert_eq!(outcome.latency.count(), tally.blocks);
    assert_eq!(outcome.load_peers().count(), 3);
}

#[test]
fn discarding_keeps_its_place_in_the_stream() {
    // A head that was looked for in a wrong place would be an answer that ends the run.
    let outcome = run(&plan(start_server("206 Partial Content"), true), "/file").unwrap();
    assert!(totals(&outcome).blocks > 0);
}

#[test]
fn an_answer_that_is_no_range_ends_the_run() {
    let error = run(&plan(start_server("404 Not Found"), true), "/file")
        .err()
        .unwrap();
    let text = error.to_string();
    assert!(matches!(error, LoadError::Answer { .. }), "{text}");
    assert!(text.contains("404 Not Found"), "{text}");
}

/// One connection to a web server that is the test itself.
struct Driven {
    connection: Connection,
    epoll: OwnedFd,
    listener: TcpListener,
    scratch: Vec<u8>,
}

impl Driven {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let plan = plan(listener.local_addr().unwrap(), false);
        let settings = Settings {
            path: "/file".to_owned(),
            geometry: GEOMETRY,
            expected: plan.settings.expected.clone(),
            deck: None,
            pipelined: 2,
        };
        let socket = Arc::new(plan.socket);
        Self {
            connection: Connection::new(Arc::new(settings), socket, None, Random::new(1)),
            epoll: epoll::create(CreateFlags::CLOEXEC).unwrap(),
            listener,
            scratch: vec![0; SCRATCH_BYTES],
        }
    }

    /// Connects, asks for ranges, and returns the server's end.
    fn connect(&mut self) -> TcpStream {
        self.connection.connect(&self.epoll, 0, 0).unwrap();
        let (server, _) = self.listener.accept().unwrap();
        self.handle_event().unwrap();
        self.connection.flush(&self.epoll, 0, 0).unwrap();
        server
    }

    /// Waits for an event and lets the connection read what is there.
    fn handle_event(&mut self) -> Result<(), End> {
        let mut events = [Event {
            flags: EventFlags::empty(),
            data: EventData::new_u64(0),
        }];
        let patience = Timespec {
            tv_sec: 30,
            tv_nsec: 0,
        };
        let count = epoll::wait(&self.epoll, &mut events[..], Some(&patience)).unwrap();
        assert_eq!(count, 1, "nothing happens");
        let flags = events[0].flags;
        let (clock, mut latency) = (Clock::start(), Latency::default());
        let connection = &mut self.connection;
        connection.ready(flags, &mut self.scratch, &clock, &mut latency)
    }

    /// The head and the body that answer the oldest request.
    fn answer(&self) -> (Vec<u8>, Vec<u8>) {
        let content = content();
        let mut pieces = content.chunks(GEOMETRY.piece_length as usize);
        let body = pieces.nth(self.connection.asked[0].piece as usize).unwrap();
        let length = body.len();
        let head = format!("HTTP/1.1 206 Partial Content\r\nContent-Length: {length}\r\n\r\n");
        (head.into_bytes(), body.to_vec())
    }

    /// Whether the socket holds bytes, for which epoll would wake us at once.
    fn is_left_with_bytes(&self) -> bool {
        let seen = self.connection.stream.receive(&mut [0], Taking::Peek);
        seen.unwrap().is_some()
    }
}

#[test]
fn a_head_may_arrive_in_two_parts() {
    let mut driven = Driven::new();
    let mut server = driven.connect();
    let mut split = 1;
    while split < driven.answer().0.len() {
        let (head, body) = driven.answer();
        server.write_all(&head[..split]).unwrap();
        driven.handle_event().unwrap();
        assert!(!driven.is_left_with_bytes(), "split at {split}");
        server.write_all(&head[split..]).unwrap();
        server.write_all(&body).unwrap();
        while driven.connection.tally.blocks < split as u64 {
            driven.handle_event().unwrap();
        }
        driven.connection.flush(&driven.epoll, 0, 0).unwrap();
        split += 1;
    }
    let tally = driven.connection.tally;
    assert_eq!(
        (tally.pieces_right, tally.pieces_wrong),
        (split as u64 - 1, 0)
    );
}

#[test]
fn a_head_that_was_cut_off_is_forgotten() {
    let mut driven = Driven::new();
    let mut server = driven.connect();
    // Cut off within the status: if it were kept, the next answer would have a wrong one.
    server.write_all(b"HTTP/1.1 2").unwrap();
    driven.handle_event().unwrap();
    drop(server);
    assert!(driven.handle_event().is_err());
    driven.connection.ended(0);
    let mut server = driven.connect();
    let (head, body) = driven.answer();
    server.write_all(&head).unwrap();
    server.write_all(&body).unwrap();
    while driven.connection.tally.blocks == 0 {
        driven.handle_event().unwrap();
    }
    assert_eq!(driven.connection.tally.pieces_right, 1);
}

#[test]
fn a_head_without_an_end_ends_the_connection() {
    let mut driven = Driven::new();
    let mut server = driven.connect();
    server
        .write_all(b"HTTP/1.1 206 Partial Content\r\n")
        .unwrap();
    driven.handle_event().unwrap();
    server.write_all(&[b'x'; HEAD_BYTES_MAX]).unwrap();
    let end = loop {
        match driven.handle_event() {
            Ok(()) => {}
            Err(end) => break end,
        }
    };
    assert!(end.to_string().contains("more than 4 KiB"), "{end}");
}

#[test]
fn heads_are_judged() {
    let head = b"HTTP/1.1 206 Partial Content\r\nServer: x\r\nContent-Length: 77";
    assert_eq!(body_length(head), Ok(77));
    for wrong in [
        "HTTP/1.1 200 OK\r\nContent-Length: 77",
        "HTTP/1.1 206 Partial Content\r\nServer: x",
        "HTTP/1.1 206 Partial Content\r\nContent-Length: 0",
        "HTTP/1.1 206 Partial Content\r\nContent-Length: x",
        "",
    ] {
        assert!(body_length(wrong.as_bytes()).is_err(), "{wrong}");
    }
}

#[test]
fn as_many_bytes_are_under_way_as_a_leecher_has() {
    let mut plan = plan("127.0.0.1:1".parse().unwrap(), true);
    assert_eq!(pipelined(&plan), 3, "128 KiB are 2 ranges of 64 KiB");
    plan.settings.geometry.piece_length = 1 << 20;
    plan.settings.depth = 64;
    assert_eq!(pipelined(&plan), 2);
}
