//! What a choked peer may fetch all the same (BEP 6).

use super::*;

/// A session whose choked peer wants something and was allowed pieces 3 and 10, of which it is
/// told.
fn allowed() -> Session {
    let mut session = session(FAST);
    give(&mut session, &Message::Interested).unwrap();
    assert!(session.wants_allowed_fast());
    session.allow_fast(&[PieceIndex(3), PieceIndex(10)], |_| true);
    assert!(!session.wants_allowed_fast(), "it is told once");
    let told = control(&mut session);
    let due = [3, 10].map(|piece| format!("{:?}", Message::AllowedFast(PieceIndex(piece))));
    assert_eq!(told, due);
    session
}

#[test]
fn a_choked_peer_is_sent_what_it_is_allowed_and_nothing_else() {
    let mut session = allowed();
    request(&mut session, block(3, 0, BLOCK)).unwrap();
    let other = block(4, 0, BLOCK);
    request(&mut session, other).unwrap();
    assert_eq!(control(&mut session), rejects(&[other]));
    let batch = session.next_batch(BATCH_BYTES_MAX).unwrap();
    assert_eq!(batch.blocks().collect::<Vec<_>>(), [block(3, 0, BLOCK)]);
    session.batch_sent(&batch, seconds(1));
    session.check_invariants();
}

#[test]
fn each_byte_of_it_is_sent_once() {
    let mut session = allowed();
    let bytes = u64::from(PIECE) + 1_000;
    let blocks = u64::from(PIECE / BLOCK) + 1;
    for number in 0..2 * blocks {
        // The same again and again.
        let begin = u32::try_from(number % 4).unwrap() * BLOCK;
        request(&mut session, block(3, begin, BLOCK)).unwrap();
        if let Some(batch) = session.next_batch(BATCH_BYTES_MAX) {
            session.batch_sent(&batch, seconds(1));
        }
    }
    assert!(session.counters().uploaded_bytes <= bytes);
    assert!(session.counters().requests_refused >= blocks);
}

#[test]
fn a_choke_takes_back_what_waits_and_allows_it_still() {
    let mut session = allowed();
    session.set_choked(false, seconds(1));
    let (one, other) = (block(3, 0, BLOCK), block(5, 0, BLOCK));
    request(&mut session, one).unwrap();
    request(&mut session, other).unwrap();
    session.set_choked(true, seconds(2));
    session.check_invariants();
    let told = control(&mut session);
    assert_eq!(told[..2], ["Unchoke", "Choke"]);
    assert_eq!(told[2..], rejects(&[one, other]));
    request(&mut session, one).unwrap();
    assert_eq!(session.queued_requests(), 1);
}

#[test]
fn only_who_wants_something_and_has_next_to_nothing_is_allowed_any() {
    let mut plain = session(Reserved::NONE);
    give(&mut plain, &Message::Interested).unwrap();
    assert!(!plain.wants_allowed_fast(), "it would not understand");
    let mut idle = session(FAST);
    assert!(!idle.wants_allowed_fast());
    give(&mut idle, &Message::Interested).unwrap();
    for piece in 0..ALLOWED_FAST_PIECES_MAX as u32 {
        give(&mut idle, &Message::Have(PieceIndex(piece))).unwrap();
    }
    assert!(!idle.wants_allowed_fast(), "it has something to give");
    // Of a piece that we have not nothing is said.
    let some = Pieces::Some(Arc::from([0b1000_0000, 0]));
    let view = TorrentView {
        pieces: some,
        ..torrent()
    };
    let mut partial = session_of(view, FAST, SessionConfig::default());
    partial.take_control(&mut Vec::new());
    give(&mut partial, &Message::Interested).unwrap();
    partial.allow_fast(&[PieceIndex(3), PieceIndex(0)], |_| true);
    let due = format!("{:?}", Message::AllowedFast(PieceIndex(0)));
    assert_eq!(control(&mut partial), [due]);
}

#[test]
fn what_was_not_granted_is_not_allowed_and_what_was_not_fetched_is_known() {
    let mut session = session(FAST);
    give(&mut session, &Message::Interested).unwrap();
    let mut asked = Vec::new();
    let pieces = [1, 2, 3].map(PieceIndex);
    session.allow_fast(&pieces, |bytes| {
        asked.push(bytes);
        asked.len() == 2
    });
    assert_eq!(asked, [u64::from(PIECE); 3]);
    let due = format!("{:?}", Message::AllowedFast(PieceIndex(2)));
    assert_eq!(control(&mut session), [due]);
    assert_eq!(session.allowed_fast_bytes(), u64::from(PIECE));
    request(&mut session, block(2, 0, BLOCK)).unwrap();
    assert_eq!(session.allowed_fast_bytes(), u64::from(PIECE - BLOCK));
    let other = block(1, 0, BLOCK);
    request(&mut session, other).unwrap();
    assert_eq!(control(&mut session), rejects(&[other]));
    session.check_invariants();
}
