//! Trackers that send garbage, too much, too slowly, or a bomb.

use super::*;

#[tokio::test]
async fn garbage_is_a_failure() {
    for body in [
        &b"<html>no</html>"[..],
        b"",
        b"d8:intervali",
        b"le",
        &[0xff; 1000],
    ] {
        let body = body.to_vec();
        let server = Server::start("127.0.0.1", move |_| ok(&body)).await;
        error_of(announce(&server.url()).await);
    }
    let server = Server::start("127.0.0.1", |_| {
        Say::Bytes(b"220 ftp ready\r\n\r\n".to_vec())
    })
    .await;
    error_of(announce(&server.url()).await);
    let server = Server::start("127.0.0.1", |_| Say::Close).await;
    error_of(announce(&server.url()).await);
}

#[tokio::test]
async fn too_long_a_body_is_cut_off() {
    let endless = |head: &str| {
        let head = format!("HTTP/1.1 200 OK\r\n{head}\r\n");
        let chunk = [b"10000\r\n".to_vec(), vec![b'x'; 0x10000], b"\r\n".to_vec()].concat();
        let chunked = head.contains("chunked");
        let rest = if chunked { chunk } else { vec![b'x'; 0x10000] };
        Say::Endless(head.into_bytes(), rest, Duration::ZERO)
    };
    for head in [
        "Content-Length: 1073741824\r\n",
        "Transfer-Encoding: chunked\r\n",
        "",
    ] {
        let server = Server::start("127.0.0.1", move |_| endless(head)).await;
        assert_eq!(
            error_of(announce(&server.url()).await),
            "an answer of more than 1048576 bytes"
        );
    }
}

#[tokio::test]
async fn an_endless_head_is_cut_off() {
    let server = Server::start("127.0.0.1", |_| {
        let line = [b"X: ".to_vec(), vec![b'x'; 0x4000], b"\r\n".to_vec()].concat();
        Say::Endless(b"HTTP/1.1 200 OK\r\n".to_vec(), line, Duration::ZERO)
    });
    error_of(announce(&server.await.url()).await);
}

#[tokio::test]
async fn a_trickle_is_cut_off_by_the_clock() {
    let server = Server::start("127.0.0.1", |_| {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nd".to_vec();
        Say::Endless(head, b"1".to_vec(), Duration::from_millis(20))
    })
    .await;
    let config = AnnounceConfig {
        timeout: Duration::from_millis(200),
        ..config()
    };
    let client = client(&config);
    let error = error_of(announce_with(client, &server.url()).await);
    assert_eq!(error, "no answer within 200ms");
}

/// A deflate stream in fixed Huffman codes: a zero byte, then `repeats` times 258 more.
fn zeros_deflated(repeats: usize) -> Vec<u8> {
    let mut bits: Vec<bool> = vec![true, true, false]; // last block, fixed codes
    let mut code = |value: u32, length: u32| {
        bits.extend((0..length).rev().map(|bit| value >> bit & 1 == 1));
    };
    code(0b0011_0000, 8); // literal 0
    for _ in 0..repeats {
        code(0b1100_0101, 8); // length 258
        code(0, 5); // distance 1
    }
    code(0, 7); // end of block
    let byte = |bits: &[bool]| {
        bits.iter()
            .enumerate()
            .fold(0, |byte, (at, bit)| byte | u8::from(*bit) << at)
    };
    bits.chunks(8).map(byte).collect()
}

const GZIP_HEAD: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

#[tokio::test]
async fn a_gzip_bomb_does_not_go_off() {
    let bomb = [GZIP_HEAD, &zeros_deflated(400_000)].concat(); // 100 MB in 650 KB
    let server = Server::start("127.0.0.1", move |_| {
        Say::Bytes(http("200 OK", "Content-Encoding: gzip\r\n", &bomb))
    })
    .await;
    assert_eq!(
        error_of(announce(&server.url()).await),
        "an answer of more than 1048576 bytes"
    );
}

#[tokio::test]
async fn a_gzipped_answer_is_read() {
    let crc = !GOOD.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 }
        })
    });
    let length = GOOD.len() as u16;
    let stored = [
        &[1],
        &length.to_le_bytes()[..],
        &(!length).to_le_bytes(),
        GOOD,
    ]
    .concat();
    let tail = [crc.to_le_bytes(), u32::from(length).to_le_bytes()].concat();
    let body = [GZIP_HEAD, &stored, &tail].concat();
    let server = Server::start("127.0.0.1", move |_| {
        Say::Bytes(http("200 OK", "Content-Encoding: gzip\r\n", &body))
    })
    .await;
    assert!(matches!(announce(&server.url()).await, Outcome::Reply(_)));
}

#[tokio::test]
async fn a_hundred_thousand_peers_are_cut_to_the_limit() {
    let mut compact = Vec::new();
    for number in 0..100_000u32 {
        compact.extend_from_slice(&(0x0100_0000 + number).to_be_bytes());
        compact.extend_from_slice(&6881u16.to_be_bytes());
    }
    let head = format!("d8:intervali1800e5:peers{}:", compact.len());
    let body = [head.as_bytes(), &compact, b"e"].concat();
    let server = Server::start("127.0.0.1", move |_| ok(&body)).await;
    let outcome = announce(&server.url()).await;
    let Outcome::Reply(reply) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(reply.peers.len(), proto::limits::TRACKER_REPLY_PEERS_MAX);
}
