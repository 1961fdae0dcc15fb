//! Bencode and metainfo: a torrent of one large file, and one of 10,000 files.

use proto::bencode::{Document, Limits};
use proto::extension::{Extension, ExtensionHandshake, MessageIds};

use proto::metainfo::{Builder, BuilderFile, Metainfo};

use super::{Amount, Run, Workload};

const PIECES: u64 = 4_096;
const PIECE_LENGTH: u32 = 1 << 20;
const FILES: u64 = 10_000;

pub fn workloads() -> Vec<Workload> {
    let large = single_file().encode().len() as u64;
    let many = many_files().encode().len() as u64;
    let handshake = extension_handshake().len() as u64;
    let workload = |name, bytes, prepare, result| Workload {
        name,
        amount: Amount::Bytes(bytes),
        prepare,
        result,
    };
    vec![
        workload("bencode/parse 10,000 files", many, parse_document, many),
        workload("bencode/encode 10,000 files", many, encode, many),
        workload(
            "bencode/parse extension handshake",
            handshake,
            parse_handshake,
            2_000,
        ),
        workload(
            "metainfo/parse 4,096 pieces",
            large,
            || parse_metainfo(&single_file()),
            PIECES,
        ),
        workload(
            "metainfo/parse 10,000 files",
            many,
            || parse_metainfo(&many_files()),
            FILES,
        ),
    ]
}

fn parse_document() -> Run {
    let torrent = many_files().encode();
    Box::new(move || {
        let document = Document::parse(&torrent, &Limits::METAINFO).expect("our own torrent");
        document.consumed() as u64
    })
}

fn encode() -> Run {
    let builder = many_files();
    Box::new(move || builder.encode().len() as u64)
}

fn parse_handshake() -> Run {
    let payload = extension_handshake();
    Box::new(move || {
        let handshake = ExtensionHandshake::parse(&payload).expect("our own handshake");
        handshake.request_queue.map_or(0, u64::from)
    })
}

/// Runs return the number of files, or of pieces if there is one file.
fn parse_metainfo(builder: &Builder) -> Run {
    let torrent = builder.encode();
    Box::new(move || {
        let metainfo = Metainfo::parse(&torrent).expect("our own torrent");
        match metainfo.files.len() {
            1 => metainfo.piece_hashes().len() as u64 / 20,
            files => files as u64,
        }
    })
}

fn single_file() -> Builder {
    Builder {
        name: b"large.img".to_vec(),
        piece_length: PIECE_LENGTH,
        pieces: hashes(PIECES),
        length: PIECES * u64::from(PIECE_LENGTH),
        trackers: vec![vec!["https://tracker.example/announce".to_owned()]],
        ..Builder::default()
    }
}

fn many_files() -> Builder {
    let length = 100_000;
    let file = |index: u64| BuilderFile {
        path: vec![
            format!("folder {:03}", index / 100).into_bytes(),
            format!("file {index:05}.bin").into_bytes(),
        ],
        length,
        ..BuilderFile::default()
    };
    Builder {
        name: b"many".to_vec(),
        piece_length: PIECE_LENGTH,
        pieces: hashes((FILES * length).div_ceil(u64::from(PIECE_LENGTH))),
        files: (0..FILES).map(file).collect(),
        ..Builder::default()
    }
}

/// Bytes that stand for the digests of `pieces` pieces.
fn hashes(pieces: u64) -> Vec<u8> {
    (0..pieces * 20).map(|index| (index * 7) as u8).collect()
}

fn extension_handshake() -> Vec<u8> {
    let handshake = ExtensionHandshake {
        messages: MessageIds::ours(&[Extension::Metadata]),
        request_queue: Some(2_000),
        client: Some("Peer 1.0".to_owned()),
        metadata_bytes: Some(82_000),
        ..ExtensionHandshake::default()
    };
    let mut payload = Vec::new();
    handshake.encode(&mut payload);
    payload
}
