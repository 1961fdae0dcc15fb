//! The wire codec: what a seed decodes (requests by the pipeline) and what it encodes.

use proto::ids::PieceIndex;
use proto::wire::{self, BlockRequest, Decoded, FrameLimits, Message};

use super::{Amount, Run, Workload};

const REQUESTS: u32 = 64;
const PIECES: u32 = 4_096;

pub fn workloads() -> Vec<Workload> {
    let requests = Amount::Elements(u64::from(REQUESTS));
    let mixed = mixed_stream();
    let workload = |name, amount, prepare, result| Workload {
        name,
        amount,
        prepare,
        result,
    };
    let pipeline_bytes = u64::from(REQUESTS) * wire::REQUEST_FRAME_BYTES as u64;
    let headers_bytes = u64::from(REQUESTS) * wire::PIECE_HEADER_BYTES as u64;
    vec![
        workload(
            "wire/decode 64 requests",
            requests,
            || decode_all(pipeline()),
            u64::from(REQUESTS),
        ),
        workload(
            "wire/decode mixed messages",
            Amount::Elements(mixed.1),
            || decode_all(mixed_stream().0),
            mixed.1,
        ),
        workload(
            "wire/encode 64 requests",
            requests,
            encode_requests,
            pipeline_bytes,
        ),
        workload(
            "wire/encode 64 piece headers",
            requests,
            encode_headers,
            headers_bytes,
        ),
    ]
}

/// The requests for a whole piece, as they lie in a receive buffer.
pub fn pipeline() -> Vec<u8> {
    let mut stream = Vec::new();
    requests().for_each(|block| Message::Request(block).encode(&mut stream));
    stream
}

/// [`REQUESTS`] adjacent blocks of 16 KiB.
pub fn requests() -> impl Iterator<Item = BlockRequest> {
    (0..REQUESTS).map(|index| BlockRequest {
        piece: PieceIndex(7),
        begin: index << 14,
        length: 1 << 14,
    })
}

/// What peers send beside requests, and how many messages it is.
fn mixed_stream() -> (Vec<u8>, u64) {
    let bitfield = [0xff; PIECES as usize / 8];
    let cancelled = BlockRequest {
        piece: PieceIndex(7),
        begin: 0,
        length: 1 << 14,
    };
    let opening = [Message::Bitfield(&bitfield), Message::Interested];
    let body = (0..64).flat_map(|index| {
        [
            Message::Have(PieceIndex(index)),
            Message::Cancel(cancelled),
            Message::KeepAlive,
            Message::Extended {
                id: 1,
                payload: b"d8:msg_typei0e5:piecei0ee",
            },
        ]
    });
    let mut stream = Vec::new();
    let mut count = 0;
    for message in opening.into_iter().chain(body) {
        message.encode(&mut stream);
        count += 1;
    }
    (stream, count)
}

/// Runs return how many messages there were.
fn decode_all(stream: Vec<u8>) -> Run {
    let limits = FrameLimits::for_torrent(PIECES);
    Box::new(move || {
        let mut rest = stream.as_slice();
        let mut count = 0;
        while let Ok(Decoded::Message { message, consumed }) = wire::decode(rest, &limits) {
            std::hint::black_box(&message);
            rest = &rest[consumed..];
            count += 1;
        }
        count
    })
}

fn encode_requests() -> Run {
    let blocks: Vec<BlockRequest> = requests().collect();
    let mut out = Vec::new();
    Box::new(move || {
        out.clear();
        for &block in &blocks {
            Message::Request(block).encode(&mut out);
        }
        out.len() as u64
    })
}

fn encode_headers() -> Run {
    let blocks: Vec<BlockRequest> = requests().collect();
    let mut out = Vec::new();
    Box::new(move || {
        out.clear();
        for block in &blocks {
            let header = wire::piece_header(block.piece, block.begin, block.length);
            out.extend_from_slice(&header);
        }
        out.len() as u64
    })
}
