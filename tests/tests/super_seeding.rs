//! Super-seeding (BEP 16) for clients that nobody here wrote: a swarm of them gets on with little
//! more than a copy from us, and one that is alone gets everything.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use seedring_tests::clients::{Client, libtorrent_python, script};
use seedring_tests::content::{MIB, assert_same_tree};
use seedring_tests::lan::{self, Lan};
use seedring_tests::need;
use seedring_tests::peer::{Answer, Peer};
use seedring_tests::process::run_ok;
use seedring_tests::served::Served;
use seedring_tests::server::{SHORT, seedring};
use seedring_tests::torrent::Torrent;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// Longest wait for a download. Transmission, alone, seems to get on by being told of more when it
/// gets nowhere, which takes two minutes and a half.
const LIMIT: Duration = Duration::from_secs(600);

/// A server that super-seeds a torrent, and its port for peers.
fn super_seed(
    torrent: impl FnOnce(&Served) -> std::path::PathBuf,
) -> (Served, std::path::PathBuf, u16) {
    let server = Served::start();
    let torrent = torrent(&server);
    let data = server.path("data");
    let (file, folder) = (torrent.to_str().unwrap(), data.to_str().unwrap());
    server.ok(["add", file, "-d", folder, "--super-seeding"]);
    server.wait_status("seeding");
    let stats = server.say(["stats", "--json"]).json();
    let port = stats[0]["server"]["peer_port"].as_u64().unwrap();
    (server, torrent, u16::try_from(port).unwrap())
}

/// What the server has sent of its only torrent.
fn uploaded(server: &Served) -> u64 {
    let uploaded = |torrents: &[serde_json::Value]| torrents[0]["uploaded_bytes"].as_u64().unwrap();
    uploaded(&server.torrents())
}

#[test]
fn three_libtorrents_get_more_from_each_other_than_from_us() {
    let python = need!("super_seeding", libtorrent_python());
    let length = 32 * MIB;
    let (server, torrent, port) = super_seed(|server| server.make("shared", length));
    let folders = [(); 3].map(|()| TempDir::new().unwrap());
    let mut command = Command::new(python);
    command
        .arg(script("libtorrent_leechers.py"))
        .arg(&torrent)
        .arg(format!("127.0.0.1:{port}"))
        .args(folders.iter().map(TempDir::path));
    run_ok("three libtorrents", &command, LIMIT);
    for folder in &folders {
        assert_same_tree(&server.path("data/shared"), &folder.path().join("shared"));
    }
    let sent = server.wait("all that was sent", |_| uploaded(&server) >= length);
    let sent = sent[0]["uploaded_bytes"].as_u64().unwrap() as f64 / length as f64;
    println!("a swarm of three was sent {sent:.2} copies");
    assert!(sent < 2.0, "{sent} copies");
}

/// A tracker that names one peer to everybody.
fn tracker(address: Ipv4Addr, peer: SocketAddrV4) -> String {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut reply = b"d8:intervali60e5:peers6:".to_vec();
    reply.extend(peer.ip().octets());
    reply.extend(peer.port().to_be_bytes());
    reply.push(b'e');
    // It ends with the test.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut asked = Vec::new();
            let mut some = [0; 1024];
            while !asked.ends_with(b"\r\n\r\n") {
                match stream.read(&mut some) {
                    Ok(1..) => asked.extend(some.iter().take_while(|byte| **byte != 0)),
                    _ => break,
                }
                some.fill(0);
            }
            let head = format!(
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                reply.len()
            );
            let _ = stream.write_all(&[head.as_bytes(), &reply].concat());
        }
    });
    format!("http://{address}:{port}/announce")
}

/// Nobody is there to whom it could pass anything on.
fn alone(test: &str, client: Client) {
    if !need!(test, lan::inside(test)) {
        return;
    }
    let lan = Lan::build();
    let (server, torrent, port) = super_seed(|server| server.make("alone", 16 * MIB));
    let announce = tracker(lan::SERVER, SocketAddrV4::new(lan::SERVER, port));
    let named = server.path("named.torrent");
    let mut create = seedring(["create"]);
    create.arg(server.path("data/alone")).arg("-o").arg(&named);
    create.args(["--tracker", &announce]);
    run_ok("create", &create, SHORT);
    let hash = |path: &Path| Torrent::read(path).info_hash_hex();
    assert_eq!(hash(&named), hash(&torrent));
    let folder = TempDir::new_in(server.root.path()).unwrap();
    let host = |program: &OsStr| lan.client_command(program);
    let download = client.download(named.as_os_str(), folder.path(), &host);
    need!(test, download).wait(LIMIT);
    client.assert_same_tree(&server.path("data/alone"), &folder.path().join("alone"));
}

#[test]
fn transmission_completes_alone() {
    alone("transmission_completes_alone", Client::Transmission);
}

#[test]
fn aria2_completes_alone() {
    alone("aria2_completes_alone", Client::Aria2);
}

#[test]
fn rtorrent_completes_alone() {
    alone("rtorrent_completes_alone", Client::Rtorrent);
}

#[test]
fn libtorrent_completes_alone() {
    alone("libtorrent_completes_alone", Client::Libtorrent);
}

/// Message by message: have none, two haves, a reject for what was not told, and everything when it
/// is switched off.
#[test]
fn a_peer_gets_what_it_was_told_of_until_it_is_switched_off() {
    let (server, torrent, port) = super_seed(|server| server.make("told", 2 * MIB));
    let torrent = Torrent::read(&torrent);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut peer = Peer::connect(address, &torrent.info_hash).unwrap();
    let pieces = u32::try_from(torrent.pieces.len()).unwrap();
    peer.read_until(15).unwrap();
    let mut told = Vec::new();
    let have = |peer: &mut Peer| {
        let message = peer.read_until(4).unwrap();
        u32::from_be_bytes(message.payload[..4].try_into().unwrap())
    };
    told.extend([have(&mut peer), have(&mut peer)]);
    peer.unchoked().unwrap();
    let untold = (0..pieces).find(|piece| !told.contains(piece)).unwrap();
    assert!(matches!(
        peer.block(untold, 0, 1024).unwrap(),
        Answer::Rejected
    ));
    assert!(matches!(
        peer.block(told[0], 0, 1024).unwrap(),
        Answer::Block(_)
    ));
    server.ok(["super-seed", "told", "off"]);
    for _ in 2..pieces {
        told.push(have(&mut peer));
    }
    told.sort_unstable();
    assert_eq!(told, (0..pieces).collect::<Vec<_>>());
    assert!(matches!(
        peer.block(untold, 0, 1024).unwrap(),
        Answer::Block(_)
    ));
}
