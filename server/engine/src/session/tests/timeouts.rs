//! What happens when nothing does: silence, a reader that takes nothing, peers that need nothing.

use super::*;

#[test]
fn a_silent_peer_is_closed_and_one_that_talks_is_not() {
    let mut session = session(FAST);
    assert_eq!(session.handle_timeout(seconds(179)), Ok(()));
    assert_eq!(
        session.handle_timeout(seconds(180)),
        Err(Disconnect::Idle { seconds: 180 })
    );
    session
        .handle_message(&Message::KeepAlive, seconds(170))
        .unwrap();
    assert_eq!(session.handle_timeout(seconds(340)), Ok(()));
    assert!(session.handle_timeout(seconds(350)).is_err());
}

#[test]
fn silence_counts_only_while_we_read() {
    let mut session = unchoked(Reserved::NONE);
    for _ in 0..2_000 {
        request(&mut session, block(0, 0, BLOCK)).unwrap();
    }
    assert!(!session.wants_input());
    assert!(session.next_timeout() < seconds(180), "keep-alives go on");
    assert_eq!(session.handle_timeout(seconds(500)), Ok(()));
    let batch = session.next_batch(u32::MAX).unwrap();
    session.batch_sent(&batch, seconds(900));
    assert!(session.wants_input());
    assert_eq!(
        session.handle_timeout(seconds(900)),
        Ok(()),
        "the silence begins here"
    );
    assert_eq!(session.handle_timeout(seconds(1_079)), Ok(()));
    assert!(session.handle_timeout(seconds(1_080)).is_err());
}

#[test]
fn keep_alives_go_out_when_nothing_else_does() {
    let mut session = session(FAST);
    assert_eq!(session.next_timeout(), seconds(100));
    session.handle_timeout(seconds(99)).unwrap();
    assert!(control(&mut session).is_empty());
    session.handle_timeout(seconds(100)).unwrap();
    session.handle_timeout(seconds(150)).unwrap();
    assert_eq!(control(&mut session), ["KeepAlive"]);
    session.send_started(4, seconds(100));
    session.send_progressed(4, seconds(100));
    assert_eq!(session.next_timeout(), seconds(180), "the idle timeout");
}

/// C9: bytes wait, and the peer takes none. A peer that takes one byte now and then is slow, not
/// stalled.
#[test]
fn a_reader_that_never_drains_is_closed_and_a_slow_one_is_not() {
    let mut session = unchoked(FAST);
    session.send_started(1_000_000, seconds(50));
    for second in (100..1_000).step_by(50) {
        session
            .handle_message(&Message::KeepAlive, seconds(second))
            .unwrap();
        session.send_progressed(1, seconds(second));
        session.handle_timeout(seconds(second + 49)).unwrap();
    }
    assert_eq!(session.next_timeout(), seconds(950 + 120));
    assert_eq!(session.handle_timeout(seconds(1_069)), Ok(()));
    assert_eq!(
        session.handle_timeout(seconds(1_070)),
        Err(Disconnect::Stalled {
            seconds: 120,
            bytes: 1_000_000 - 18
        })
    );
}

#[test]
fn a_complete_peer_is_closed_after_a_grace() {
    let whole = [0xff, 0xe0];
    for message in [Message::HaveAll, Message::Bitfield(&whole)] {
        let mut session = session(FAST);
        session.handle_message(&message, seconds(5)).unwrap();
        assert_eq!(session.next_timeout(), seconds(15));
        assert_eq!(session.handle_timeout(seconds(14)), Ok(()));
        let closed = session.handle_timeout(seconds(15)).unwrap_err();
        assert_eq!(closed, Disconnect::BothComplete);
        assert_eq!(closed.kind(), DisconnectKind::Redundant);
    }
    // Where we lack pieces ourselves, a seed is welcome.
    let mut session = session(FAST);
    session.set_pieces(Pieces::Some(Arc::from([0, 0])));
    give(&mut session, &Message::HaveAll).unwrap();
    assert_eq!(session.handle_timeout(seconds(100)), Ok(()));
}

#[test]
fn a_peer_that_completes_by_haves_stays_while_it_wants_something() {
    let mut session = unchoked(FAST);
    for piece in 0..11 {
        give(&mut session, &Message::Have(PieceIndex(piece))).unwrap();
    }
    assert_eq!(
        session.handle_timeout(seconds(100)),
        Ok(()),
        "it is still interested"
    );
    session
        .handle_message(&Message::NotInterested, seconds(100))
        .unwrap();
    assert_eq!(session.next_timeout(), seconds(110));
    assert_eq!(
        session.handle_timeout(seconds(110)),
        Err(Disconnect::BothComplete)
    );
}

#[test]
fn a_complete_peer_that_still_fetches_is_served() {
    let mut session = unchoked(FULL);
    introduce(&mut session);
    give(&mut session, &Message::HaveAll).unwrap();
    request(&mut session, block(0, 0, BLOCK)).unwrap();
    assert_eq!(
        session.handle_timeout(seconds(60)),
        Ok(()),
        "a request waits"
    );
    let batch = session.next_batch(u32::MAX).unwrap();
    assert_eq!(
        session.handle_timeout(seconds(60)),
        Ok(()),
        "a batch is in flight"
    );
    session.batch_sent(&batch, seconds(60));
    request_metadata(&mut session, 0).unwrap();
    assert_eq!(
        session.handle_timeout(seconds(80)),
        Ok(()),
        "metadata waits"
    );
    session.take_metadata_request().unwrap();
    assert_eq!(
        session.handle_timeout(seconds(80)),
        Ok(()),
        "metadata is being read"
    );
    session.reject_metadata(0);
    assert_eq!(
        session.handle_timeout(seconds(80)),
        Err(Disconnect::BothComplete)
    );
}

#[test]
fn upload_only_is_honoured_in_both_forms_and_can_be_taken_back() {
    let id = Extension::UploadOnly.our_id().get();
    let mut session = session(FULL);
    extended(&mut session, 0, b"d11:upload_onlyi1ee").unwrap();
    assert_eq!(session.next_timeout(), seconds(10));
    extended(&mut session, id, &[0]).unwrap();
    assert_eq!(session.next_timeout(), seconds(100));
    extended(&mut session, id, &[1]).unwrap();
    assert_eq!(
        session.handle_timeout(seconds(10)),
        Err(Disconnect::BothUploadOnly)
    );
    give(&mut session, &Message::Interested).unwrap();
    assert_eq!(
        session.handle_timeout(seconds(10)),
        Ok(()),
        "it wants something all the same"
    );
}

#[test]
fn an_idle_session_holds_no_buffers() {
    let mut session = unchoked(FAST);
    for _ in 0..100 {
        request(&mut session, block(0, 0, BLOCK)).unwrap();
    }
    while let Some(batch) = session.next_batch(u32::MAX) {
        session.batch_sent(&batch, seconds(1));
    }
    assert!(session.queue.memory_bytes() > 0);
    assert_eq!(session.next_timeout(), seconds(10));
    session.handle_timeout(seconds(10)).unwrap();
    assert_eq!(
        (session.queue.memory_bytes(), session.control.capacity()),
        (0, 0)
    );
    assert!(
        size_of::<Session>() <= 768,
        "{} bytes",
        size_of::<Session>()
    );
}

#[test]
fn silence_does_not_count_while_our_answers_wait() {
    let mut session = session(FULL);
    introduce(&mut session);
    for piece in [0, 1, 0, 1, 0] {
        request_metadata(&mut session, piece).unwrap();
    }
    while let Some(piece) = session.take_metadata_request() {
        session.send_metadata(piece, &[0; METADATA_BLOCK_BYTES as usize]);
    }
    assert!(!session.wants_input());
    control(&mut session);
    assert!(session.wants_input());
    assert_eq!(session.handle_timeout(seconds(500)), Ok(()));
    assert_eq!(session.handle_timeout(seconds(679)), Ok(()));
    assert!(session.handle_timeout(seconds(680)).is_err());
}
