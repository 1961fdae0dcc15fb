//! The HTTP load against a web server in this process: what is asked for, what is counted, which
//! answers end the run.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use proto::ids::InfoHashV1;

use super::*;
use crate::load::leecher;

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
