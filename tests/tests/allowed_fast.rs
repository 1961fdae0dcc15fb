//! What a peer gets while others have all upload slots.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used)]

use seedring_tests::content::{MIB, write_file};
use seedring_tests::peer::{Answer, BLOCK, Peer, id};
use seedring_tests::server::Seed;
use tempfile::TempDir;

/// With one slot, whoever comes second is choked, is told which pieces it may fetch all the same, and gets these.
#[test]
fn a_choked_newcomer_gets_a_few_pieces() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("data.bin");
    write_file(&path, 16 * MIB, 1);
    let seed = Seed::path(&path)
        .options(["--shards", "1", "--piece-size", "64K"])
        .setting("limits", "upload_slots", "1")
        // Whoever has a slot keeps it for a minute by this policy, which is longer than any wait here.
        .setting("limits", "choker", "round-robin")
        .setting("limits", "optimistic_slots", "0")
        .start();
    let torrent = seed.torrent(0);
    let connect = || Peer::connect(seed.address(), &torrent.info_hash).unwrap();
    let mut first = connect();
    first.unchoked().unwrap();
    let mut second = connect();
    second.send(id::INTERESTED, &[]).unwrap();
    let mut allowed = Vec::new();
    while allowed.len() < 10 {
        let message = second.read_until(id::ALLOWED_FAST).unwrap();
        let piece: [u8; 4] = message.payload[..].try_into().unwrap();
        allowed.push(u32::from_be_bytes(piece));
    }
    for &piece in &allowed {
        let data = second.piece(&torrent, piece).unwrap().unwrap();
        assert!(torrent.is_piece(piece, &data));
    }
    let other = (0..).find(|piece| !allowed.contains(piece)).unwrap();
    assert_eq!(second.block(other, 0, BLOCK).unwrap(), Answer::Rejected);
    let again = second.block(allowed[0], 0, BLOCK).unwrap();
    assert_eq!(again, Answer::Rejected, "each byte once");
}
