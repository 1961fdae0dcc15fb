//! Sessions of a torrent that is being downloaded: what the peer is told while it grows.

use super::*;
use crate::choker::Role;

/// A session of a torrent of which these pieces are here, and its bitfield.
fn growing(reserved: Reserved, pieces: &[u32]) -> (Session, Arc<PieceBits>) {
    let bits = Arc::new(PieceBits::new(11, &[]));
    for &piece in pieces {
        bits.set(PieceIndex(piece), true);
    }
    let torrent = TorrentView {
        pieces: Pieces::Growing(Arc::clone(&bits)),
        ..torrent()
    };
    let mut session = session_of(torrent, reserved, SessionConfig::default());
    session.set_fetching(true);
    (session, bits)
}

/// The peer takes don't-haves under id 40 and upload-only under 41.
fn takes_news(session: &mut Session) {
    let mut handshake = ExtensionHandshake::default();
    handshake.messages.set(Extension::DontHave, 40);
    handshake.messages.set(Extension::UploadOnly, 41);
    let mut payload = Vec::new();
    handshake.encode(&mut payload);
    extended(session, 0, &payload).unwrap();
}

#[test]
fn who_gave_the_metadata_knows_that_no_piece_is_here() {
    let bits = Arc::new(PieceBits::new(11, &[]));
    let view = TorrentView {
        pieces: Pieces::Growing(Arc::clone(&bits)),
        ..torrent()
    };
    let peer = PeerIdentity {
        peer_id: PeerId([7; 20]),
        reserved: FULL,
        ip: None,
    };
    let mut session = Session::continued(Arc::default(), Arc::new(view), peer, seconds(0));
    session.set_fetching(true);
    let told = control(&mut session);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("Extended"), "{told:?}");
    // The second time that it says so, and what it says for the first time.
    give(&mut session, &Message::HaveAll).unwrap();
    takes_news(&mut session);
    assert!(session.is_peer_complete());
    bits.set(PieceIndex(4), true);
    session.announce(PieceIndex(4), false);
    let due = format!("{:?}", Message::Have(PieceIndex(4)));
    assert_eq!(control(&mut session), [due]);
}

#[test]
fn the_opening_says_which_pieces_are_here_and_that_more_are_wanted() {
    let opening = |reserved, pieces: &[u32]| control(&mut growing(reserved, pieces).0);
    assert_eq!(opening(FAST, &[]), ["HaveNone"]);
    assert!(opening(Reserved::NONE, &[]).is_empty());
    assert_eq!(opening(FAST, &[0, 9]), ["Bitfield([128, 64])"]);
    let (mut session, bits) = growing(FULL, &[]);
    let is_upload_only = |session: &mut Session| {
        let mut bytes = Vec::new();
        session.take_control(&mut bytes);
        let handshake = messages(&bytes)
            .into_iter()
            .find_map(|message| match message {
                Message::Extended { id: 0, payload } => ExtensionHandshake::parse(payload).ok(),
                _ => None,
            });
        handshake.unwrap().upload_only
    };
    assert!(!is_upload_only(&mut session));
    assert_eq!(session.role(), Role::Downloading);
    bits.set_wants_more(false);
    let torrent = TorrentView {
        pieces: Pieces::Growing(bits),
        ..torrent()
    };
    let mut later = session_of(torrent, FULL, SessionConfig::default());
    assert!(is_upload_only(&mut later));
    assert_eq!(later.role(), Role::Seeding);
}

#[test]
fn a_piece_is_served_from_when_it_is_here_until_it_is_lost() {
    let (mut session, bits) = growing(FULL, &[]);
    takes_news(&mut session);
    give(&mut session, &Message::Interested).unwrap();
    session.set_choked(false, seconds(0));
    control(&mut session);
    let wanted = block(3, 0, BLOCK);
    request(&mut session, wanted).unwrap();
    assert_eq!(control(&mut session), rejects(&[wanted]));
    bits.set(PieceIndex(3), true);
    session.announce(PieceIndex(3), false);
    assert_eq!(control(&mut session), ["Have(PieceIndex(3))"]);
    request(&mut session, wanted).unwrap();
    assert_eq!(session.queued_requests(), 1);
    bits.set(PieceIndex(3), false);
    session.take_back(PieceIndex(3));
    session.check_invariants();
    let mut told = vec!["Extended { id: 40, payload: [0, 0, 0, 3] }".to_owned()];
    told.extend(rejects(&[wanted]));
    assert_eq!(control(&mut session), told);
}

#[test]
fn a_peer_that_has_lost_a_piece_is_no_seed() {
    let (mut session, _bits) = growing(FULL, &[]);
    give(&mut session, &Message::HaveAll).unwrap();
    assert!(session.is_peer_complete());
    let id = Extension::DontHave.our_id().get();
    extended(&mut session, id, &[0, 0, 0, 3]).unwrap();
    assert!(!session.is_peer_complete());
    // Of a wrong length it is ignored.
    extended(&mut session, id, &[0, 0, 3]).unwrap();
    assert_eq!(session.peer_pieces(), 10);
}

#[test]
fn a_seed_is_told_how_far_we_are_and_not_by_the_last_piece_that_we_are_one() {
    let all_but_two: Vec<u32> = (2..11).collect();
    let told = |opening: Message<'_>| {
        let (mut session, bits) = growing(FULL, &all_but_two);
        give(&mut session, &opening).unwrap();
        takes_news(&mut session);
        control(&mut session);
        for piece in [0, 1].map(PieceIndex) {
            bits.set(piece, true);
            session.announce(piece, piece.0 == 1);
        }
        session.complete();
        (control(&mut session), session)
    };
    let [first, last] = [0, 1].map(|piece| format!("{:?}", Message::Have(PieceIndex(piece))));
    let upload_only = "Extended { id: 41, payload: [1] }".to_owned();
    let (seed, mut session) = told(Message::HaveAll);
    assert_eq!(seed, [first.clone(), upload_only.clone()]);
    // Once it wants something, it hears of what we have.
    let id = Extension::DontHave.our_id().get();
    extended(&mut session, id, &[0, 0, 0, 7]).unwrap();
    assert_eq!(control(&mut session), std::slice::from_ref(&last));
    extended(&mut session, id, &[0, 0, 0, 8]).unwrap();
    assert!(control(&mut session).is_empty());
    let (leecher, _) = told(Message::HaveNone);
    assert_eq!(leecher, [first, last, upload_only]);
}

/// What a seed was not told of it hears when it shows by a shorter bitfield that it is none, unless
/// we have lost that ourselves.
#[test]
fn what_a_seed_was_not_told_is_told_when_it_is_none_and_we_have_it_still() {
    for is_lost in [false, true] {
        let all_but_one: Vec<u32> = (1..11).collect();
        let (mut session, bits) = growing(FULL, &all_but_one);
        give(&mut session, &Message::HaveAll).unwrap();
        takes_news(&mut session);
        bits.set(PieceIndex(0), true);
        session.announce(PieceIndex(0), true);
        if is_lost {
            bits.set(PieceIndex(0), false);
            session.take_back(PieceIndex(0));
        }
        control(&mut session);
        give(&mut session, &Message::Bitfield(&[0x7f, 0xe0])).unwrap();
        let have = format!("{:?}", Message::Have(PieceIndex(0)));
        assert_eq!(control(&mut session).contains(&have), !is_lost);
    }
}

#[test]
fn a_session_goes_on_as_a_seeds_when_all_is_here() {
    let (mut session, _bits) = growing(FULL, &[]);
    takes_news(&mut session);
    control(&mut session);
    session.complete();
    assert_eq!(session.role(), Role::Seeding);
    let told = ["Extended { id: 41, payload: [1] }"];
    assert_eq!(control(&mut session), told);
    give(&mut session, &Message::Interested).unwrap();
    session.set_choked(false, seconds(0));
    request(&mut session, block(10, 0, 1_000)).unwrap();
    assert_eq!(session.queued_requests(), 1);
    // What was on its way when the last piece came is no offence.
    let late = Message::Piece {
        piece: PieceIndex(0),
        begin: 0,
        block: &[0; 16],
    };
    give(&mut session, &late).unwrap();
}

#[test]
fn bits_beyond_the_last_piece_are_never_set() {
    let bits = PieceBits::new(11, &[0xff, 0xff, 0xff]);
    assert_eq!((bits.to_bytes(), bits.set_count()), (vec![0xff, 0xe0], 11));
    bits.set(PieceIndex(11), true);
    bits.set(PieceIndex(999), true);
    assert_eq!(bits.set_count(), 11);
    bits.set(PieceIndex(10), false);
    assert!(!bits.has(PieceIndex(10)) && bits.has(PieceIndex(9)) && !bits.has(PieceIndex(11)));
    assert_eq!(PieceBits::new(0, &[1]).to_bytes(), []);
    assert_eq!(PieceBits::new(16, &[1, 3]).to_bytes(), [1, 3]);
}
