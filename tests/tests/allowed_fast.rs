//! What a peer gets while others have all upload slots.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used)]

use seedring_tests::content::{MIB, write_file};
use seedring_tests::peer::{Answer, BLOCK, Peer, id};
use seedring_tests::server::{Seed, Server};
use seedring_tests::torrent::Torrent;
use tempfile::TempDir;

/// A seed whose only slot is taken.
struct Busy {
    seed: Server,
    torrent: Torrent,
    _first: Peer,
    _folder: TempDir,
}

impl Busy {
    fn start(bytes: u64, piece_size: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("data.bin");
        write_file(&path, bytes, 1);
        let seed = Seed::path(&path)
            .options(["--shards", "1", "--piece-size", piece_size])
            .setting("limits", "upload_slots", "1")
            // Whoever has a slot keeps it for a minute by this policy, which is longer than any wait here.
            .setting("limits", "choker", "round-robin")
            .setting("limits", "optimistic_slots", "0")
            .start();
        let torrent = seed.torrent(0);
        let mut first = Peer::connect(seed.address(), &torrent.info_hash).unwrap();
        first.unchoked().unwrap();
        Self {
            seed,
            torrent,
            _first: first,
            _folder: folder,
        }
    }

    /// Another peer, which wants something.
    fn connect(&self) -> Peer {
        let mut peer = Peer::connect(self.seed.address(), &self.torrent.info_hash).unwrap();
        peer.send(id::INTERESTED, &[]).unwrap();
        peer
    }

    /// The next `count` pieces that `peer` is allowed, which it fetches.
    fn fetch_allowed(&self, peer: &mut Peer, count: usize) -> Vec<u32> {
        let mut allowed = Vec::new();
        while allowed.len() < count {
            let message = peer.read_until(id::ALLOWED_FAST).unwrap();
            let piece: [u8; 4] = message.payload[..].try_into().unwrap();
            allowed.push(u32::from_be_bytes(piece));
        }
        for &piece in &allowed {
            let data = peer.piece(&self.torrent, piece).unwrap().unwrap();
            assert!(self.torrent.is_piece(piece, &data));
        }
        allowed
    }
}

/// With one slot, whoever comes second is choked, is told which pieces it may fetch all the same, and gets these.
#[test]
fn a_choked_newcomer_gets_a_few_pieces() {
    let busy = Busy::start(16 * MIB, "64K");
    let mut second = busy.connect();
    let allowed = busy.fetch_allowed(&mut second, 10);
    let other = (0..).find(|piece| !allowed.contains(piece)).unwrap();
    assert_eq!(second.block(other, 0, BLOCK).unwrap(), Answer::Rejected);
    let again = second.block(allowed[0], 0, BLOCK).unwrap();
    assert_eq!(again, Answer::Rejected, "each byte once");
}

/// Four pieces of 4 MiB are all that an address gets while it is choked, however often it comes.
#[test]
fn whoever_connects_again_gets_no_more() {
    let busy = Busy::start(32 * MIB, "4M");
    let mut second = busy.connect();
    let allowed = busy.fetch_allowed(&mut second, 4);
    drop(second);
    let mut again = busy.connect();
    let answer = again.block(allowed[0], 0, BLOCK).unwrap();
    assert_eq!(answer, Answer::Rejected);
}
