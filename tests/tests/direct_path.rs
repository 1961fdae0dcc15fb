//! `storage.send_path = "direct"`: right bytes past the page cache, one read for all who want a chunk, and no
//! memory for readers that drain nothing.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use seedring_tests::content::{KIB, MIB, write_file};
use seedring_tests::peer::{Answer, BLOCK, Peer};
use seedring_tests::process::run_ok;
use seedring_tests::server::{SHORT, Seed, Server};
use seedring_tests::skip::{self, Skip};
use seedring_tests::torrent::Torrent;
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::Barrier;
use tempfile::TempDir;

const PIECE: u64 = MIB;

/// One shard with the smallest cache: far smaller than the data.
fn start(path: &Path) -> (Server, Torrent) {
    let server = Seed::path(path)
        .options(["--no-tracker", "--shards", "1", "--piece-size", "1M"])
        .setting("storage", "send_path", "direct")
        .setting("storage", "cache_bytes", "4MiB")
        .start();
    let torrent = server.torrent(0);
    (server, torrent)
}

fn metric(server: &Server, name: &str) -> f64 {
    let metrics = server.metrics();
    let of_name = |series: &str| series == name || series.starts_with(&format!("{name}{{"));
    let values = metrics.iter().filter(|(series, _)| of_name(series));
    values.map(|(_, value)| value).sum()
}

/// Bytes read per byte sent since the start.
fn read_amplification(server: &Server) -> f64 {
    metric(server, "seedring_disk_read_bytes_total")
        / metric(server, "seedring_uploaded_bytes_total")
}

/// How much of a file is in the page cache, in bytes.
fn resident_bytes(fincore: &Path, file: &Path) -> u64 {
    let mut command = Command::new(fincore);
    command.args(["--bytes", "--noheadings", "--output", "RES"]);
    let output = run_ok("fincore", command.arg(file), SHORT);
    output.trim().parse().unwrap()
}

/// Puts a file's pages out of the page cache, as far as the file system lets them go.
fn drop_pages(path: &Path) {
    let file = File::open(path).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

#[test]
fn peers_share_each_read_and_the_page_cache_is_left_alone() {
    let fincore = match skip::program("fincore", "util-linux") {
        Ok(fincore) => fincore,
        Err(skip) => return skip.report("direct path: page cache"),
    };
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("large.bin");
    write_file(&path, 40 * MIB + 12_345, 5);
    let (server, torrent) = start(&path);
    // Hashing has read it all through the page cache.
    drop_pages(&path);
    if resident_bytes(&fincore, &path) > 0 {
        let reason = "the temporary folder's file system keeps its files in memory";
        return Skip::machine(reason).report("direct path: page cache");
    }
    const PEERS: usize = 4;
    let together = Barrier::new(PEERS);
    std::thread::scope(|scope| {
        for _ in 0..PEERS {
            scope.spawn(|| {
                let mut peer = Peer::connect(server.address(), &torrent.info_hash).unwrap();
                peer.unchoked().unwrap();
                for piece in 0..torrent.pieces.len() as u32 {
                    let data = peer.piece(&torrent, piece).unwrap().unwrap();
                    assert!(torrent.is_piece(piece, &data), "piece {piece}");
                    together.wait();
                }
            });
        }
    });
    let sent = metric(&server, "seedring_uploaded_bytes_total");
    assert!(sent >= (PEERS as u64 * torrent.length()) as f64);
    let once = read_amplification(&server) * PEERS as f64;
    assert!(
        (0.99..1.05).contains(&once),
        "each byte was read {once} times"
    );
    let resident = resident_bytes(&fincore, &path);
    assert!(
        resident <= 64 * KIB,
        "{resident} bytes came into the page cache"
    );
}

#[test]
fn blocks_here_and_there_are_read_without_their_surroundings() {
    let folder = TempDir::new().unwrap();
    // Files of odd lengths, so that nothing is aligned but the first.
    for file in 0..5 {
        let path = folder.path().join(format!("set/{file}.bin"));
        write_file(&path, 6 * MIB + 1000 * file + 77, file);
    }
    let (server, torrent) = start(&folder.path().join("set"));
    let mut peer = Peer::connect(server.address(), &torrent.info_hash).unwrap();
    peer.unchoked().unwrap();
    let blocks_of_piece = (PIECE / u64::from(BLOCK)) as u32;
    let full_pieces = (torrent.length() / PIECE) as u32;
    for number in 0..300_u32 {
        let place = number.wrapping_mul(2_654_435_761) >> 8;
        let (piece, block) = (
            place / blocks_of_piece % full_pieces,
            place % blocks_of_piece,
        );
        let answer = peer.block(piece, block * BLOCK, BLOCK).unwrap();
        assert!(matches!(answer, Answer::Block(_)));
    }
    let amplification = read_amplification(&server);
    assert!(
        amplification <= 1.3,
        "{amplification} bytes were read for each byte sent"
    );
    // And they are the right ones.
    for piece in [0, full_pieces / 2, full_pieces] {
        let data = peer.piece(&torrent, piece).unwrap().unwrap();
        assert!(torrent.is_piece(piece, &data), "piece {piece}");
    }
}

#[test]
fn readers_that_drain_nothing_hold_no_chunk_that_others_need() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("large.bin");
    write_file(&path, 64 * MIB, 6);
    let (server, torrent) = start(&path);
    // More of them than the cache has chunks, each at another place.
    let mut stuck: Vec<Peer> = Vec::new();
    for piece in 0..32 {
        let mut peer = Peer::connect(server.address(), &torrent.info_hash).unwrap();
        peer.unchoked().unwrap();
        for block in 0..512 {
            let place = piece * 64 + block;
            let (piece, block) = (place / 64 % 64, place % 64);
            peer.request(piece, block * BLOCK, BLOCK).unwrap();
        }
        stuck.push(peer);
    }
    let mut peer = Peer::connect(server.address(), &torrent.info_hash).unwrap();
    peer.unchoked().unwrap();
    for piece in 0..torrent.pieces.len() as u32 {
        let data = peer.piece(&torrent, piece).unwrap().unwrap();
        assert!(torrent.is_piece(piece, &data), "piece {piece}");
    }
    assert!(metric(&server, "seedring_cache_used_bytes") <= 4.0 * MIB as f64);
}
