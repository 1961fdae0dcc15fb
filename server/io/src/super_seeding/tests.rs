//! What a peer is told and when, and what memory that may take, without connections.

use super::*;
use crate::testing::Data;
use engine::session::{PeerIdentity, SessionConfig};
use engine::super_seed::TOLD_AT_ONCE_MAX;
use proto::handshake::Reserved as Extensions;
use proto::ids::PeerId;
use std::net::Ipv4Addr;

const PIECE_BYTES: usize = 1024;

/// The bytes of a have message.
const HAVE_BYTES: usize = 9;

fn at(seconds: u64) -> Time {
    Time(seconds * 1_000_000_000)
}

fn torrent(pieces: usize) -> (Data, Arc<SeededTorrent>) {
    let data = Data::new(&[("a", pieces * PIECE_BYTES)]);
    let torrent = data.torrent_of_pieces(PIECE_BYTES);
    torrent.set_super_seeding(true);
    (data, torrent)
}

fn enter(torrent: &Arc<SeededTorrent>, room: &Arc<Room>, host: u8) -> Option<Part> {
    let address = Ipv4Addr::new(10, 0, 0, host).into();
    Part::enter(torrent, address, room, 1, at(0))
}

/// A session whose opening messages are sent.
fn session(torrent: &SeededTorrent) -> Session {
    let peer = PeerIdentity {
        peer_id: PeerId([1; 20]),
        reserved: Extensions::NONE,
        ip: None,
    };
    let config = Arc::new(SessionConfig::default());
    let mut session = Session::super_seeding(config, torrent.view(), peer, at(0));
    read(&mut session);
    session
}

/// The peer reads what it was told; of how many pieces.
fn read(session: &mut Session) -> usize {
    let mut bytes = Vec::new();
    session.take_control(&mut bytes);
    bytes.len() / HAVE_BYTES
}

#[test]
fn who_reads_nothing_is_told_of_the_rest_later() {
    const PIECES: usize = 3_000;
    let (_data, torrent) = torrent(PIECES);
    let room = Arc::default();
    let part = enter(&torrent, &room, 1).unwrap();
    let _other = enter(&torrent, &room, 2).unwrap();
    let mut session = session(&torrent);
    for second in 1..500 {
        part.look(&mut session, at(second));
        part.tell(&mut session);
    }
    let waits = session.control_bytes();
    let most = BACKLOG_BYTES + TOLD_AT_ONCE_MAX * HAVE_BYTES;
    assert!((BACKLOG_BYTES..=most).contains(&waits), "{waits} bytes");
    let mut told = read(&mut session);
    for second in 500..1_000 {
        part.look(&mut session, at(second));
        told += read(&mut session);
    }
    assert_eq!(told, PIECES);
}

#[test]
fn who_reads_nothing_is_told_of_everything_when_it_does() {
    const PIECES: usize = 3_000;
    let (_data, torrent) = torrent(PIECES);
    let part = enter(&torrent, &Arc::default(), 1).unwrap();
    let mut session = session(&torrent);
    let mut second = 1;
    while session.control_bytes() <= BACKLOG_BYTES {
        part.look(&mut session, at(second));
        second += 1;
        assert!(second < 1_000);
    }
    torrent.set_super_seeding(false);
    let before = session.control_bytes();
    part.tell(&mut session);
    assert_eq!(session.control_bytes(), before, "it reads nothing");
    let mut told = 0;
    for more in 0..3 {
        told += read(&mut session);
        part.look(&mut session, at(second + more));
    }
    assert_eq!(told, PIECES);
}

#[test]
fn who_finds_no_room_is_served_as_by_any_seed() {
    let (_data, torrent) = torrent(3_000);
    let room = Arc::<Room>::default();
    let mut parts = Vec::new();
    while let Some(part) = enter(&torrent, &room, 1) {
        assert!(room.taken_bytes() <= MEMORY_BYTES_MAX);
        parts.push(part);
    }
    let each = SuperSeed::peer_memory_bytes_max(3_000);
    let base = SuperSeed::memory_bytes(3_000);
    assert_eq!(parts.len(), (MEMORY_BYTES_MAX - base) / each);
    parts.pop();
    parts.push(enter(&torrent, &room, 2).expect("one has gone"));
    parts.clear();
    assert_eq!(room.taken_bytes(), 0);
    // Also of those who were there when it was switched off.
    let part = enter(&torrent, &room, 1).unwrap();
    torrent.set_super_seeding(false);
    drop(part);
    assert_eq!(room.taken_bytes(), 0);
    // A torrent that finds room for itself and for no peer takes none.
    torrent.set_super_seeding(true);
    let _rest = room.reserve(MEMORY_BYTES_MAX - base - 1).unwrap();
    let before = room.taken_bytes();
    assert!(enter(&torrent, &room, 1).is_none());
    assert_eq!(room.taken_bytes(), before);
}
