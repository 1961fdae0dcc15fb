//! Links whose metadata peers give, and that stand for no torrent (RELIABILITY.md B5): the download
//! ends with its reason, and nothing is left of it.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use seedring_tests::bencode::{Value, decode, dictionary};
use seedring_tests::get::Get;
use seedring_tests::peer::{Extensions, Peer, id};
use seedring_tests::torrent::{hex, sha1};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// Longest wait for what has to come.
const LIMIT: Duration = Duration::from_secs(60);
/// Under which id this peer takes messages of metadata.
const OUR_ID: u8 = 3;

/// A peer that gives these bytes, of one block, as the metadata that have their hash. Its thread
/// ends with the test's process.
fn giver(info: &[u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let info = info.to_vec();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let peer = Peer::from_stream(stream.unwrap(), &sha1(&info), Extensions::All);
            // It may hang up when it has had what it wanted.
            let _ = peer.and_then(|peer| give(peer, &info));
        }
    });
    address
}

fn give(mut peer: Peer, info: &[u8]) -> io::Result<()> {
    let offer = dictionary([
        ("m", dictionary([("ut_metadata", i64::from(OUR_ID).into())])),
        ("metadata_size", i64::try_from(info.len()).unwrap().into()),
    ]);
    peer.send(id::EXTENDED, &[vec![0], offer.encode()].concat())?;
    let mut theirs = 0;
    loop {
        let message = peer.read()?;
        let Some((kind, payload)) = message.payload.split_first() else {
            continue;
        };
        match (message.id, *kind) {
            (Some(id::EXTENDED), 0) => {
                let (said, _) = decode(payload);
                let ids = said.get("m").unwrap();
                theirs = u8::try_from(ids.get("ut_metadata").unwrap().integer()).unwrap();
            }
            (Some(id::EXTENDED), OUR_ID) => {
                let answer = dictionary([
                    ("msg_type", 1.into()),
                    ("piece", 0.into()),
                    ("total_size", i64::try_from(info.len()).unwrap().into()),
                ]);
                let answer = [vec![theirs], answer.encode(), info.to_vec()].concat();
                peer.send(id::EXTENDED, &answer)?;
            }
            _ => {}
        }
    }
}

/// The `info` dictionary of a file of 100 bytes.
fn info() -> Vec<u8> {
    let info: Value = dictionary([
        ("length", 100.into()),
        ("name", "x".into()),
        ("piece length", 16_384.into()),
        ("pieces", vec![7u8; 20].into()),
    ]);
    info.encode()
}

/// All that is in a folder, at whatever depth.
fn within(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(within(&path));
        }
        found.push(path);
    }
    found
}

#[test]
fn a_link_whose_metadata_are_no_torrent_ends_with_its_reason_and_leaves_nothing() {
    let more = b"8:url-list19:http://inside.test/".to_vec();
    for (info, due) in [
        (b"d4:name1:xe".to_vec(), "piece length"),
        (b"i7e".to_vec(), "dictionary"),
        (b"no bencode".to_vec(), "byte 0"),
        (info()[..40].to_vec(), "ends"),
        // What follows the dictionary would be the rest of a .torrent file.
        ([info(), more].concat(), "it goes on"),
    ] {
        let (folder, state) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let data = folder.path().join("data");
        let link = format!("magnet:?xt=urn:btih:{}", hex(&sha1(&info)));
        let get = Get::new(link, &data).peer(giver(&info));
        let mut getting = get.state_dir(state.path()).start();
        let status = getting.process.wait_exit(LIMIT);
        let said = getting.process.stderr();
        assert_eq!(status.code(), Some(1), "{}", getting.process.transcript());
        assert!(
            said.contains("what the link stands for is no torrent") && said.contains(due),
            "{due}: {said}"
        );
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
        assert_eq!(within(folder.path()), [] as [PathBuf; 0]);
        let kept = within(state.path());
        assert!(kept.iter().all(|path| path.ends_with("get")), "{kept:?}");
    }
}
