//! Serving metadata (BEP 9) and the other extension messages.

use super::*;

#[test]
fn metadata_is_served_block_by_block() {
    let mut session = session(FULL);
    introduce(&mut session);
    assert_eq!(session.peer_client(), Some("Peer 1.0"));
    for piece in [0, 2, 3] {
        request_metadata(&mut session, piece).unwrap();
    }
    assert_eq!(control(&mut session).len(), 1, "block 3 does not exist");
    assert_eq!(session.take_metadata_request(), Some(0));
    session.send_metadata(0, &[5; METADATA_BLOCK_BYTES as usize]);
    assert_eq!(session.take_metadata_request(), Some(2));
    session.send_metadata(2, &[6; 40_000 - 32_768]);
    assert_eq!(session.take_metadata_request(), None);
    let mut bytes = Vec::new();
    session.take_control(&mut bytes);
    let parsed: Vec<_> = messages(&bytes)
        .into_iter()
        .map(|message| match message {
            Message::Extended { id: 33, payload } => MetadataMessage::parse(payload).unwrap(),
            other => panic!("{other:?}"),
        })
        .collect();
    let total_bytes = METADATA;
    assert_eq!(
        parsed,
        [
            MetadataMessage::Data {
                piece: 0,
                total_bytes,
                block: &[5; 16_384]
            },
            MetadataMessage::Data {
                piece: 2,
                total_bytes,
                block: &[6; 7_232]
            },
        ]
    );
    assert_eq!(session.counters().metadata_sent, 2);
}

#[test]
fn metadata_that_is_not_there_is_rejected() {
    let mut session = session(FULL);
    introduce(&mut session);
    request_metadata(&mut session, 1).unwrap();
    assert_eq!(session.take_metadata_request(), Some(1));
    session.send_metadata(1, b"too short");
    let mut bytes = Vec::new();
    session.take_control(&mut bytes);
    let Message::Extended { id: 33, payload } = messages(&bytes)[0] else {
        panic!()
    };
    assert_eq!(
        MetadataMessage::parse(payload),
        Ok(MetadataMessage::Reject { piece: 1 })
    );

    let mut session = session_of(
        TorrentView {
            metadata_bytes: None,
            ..torrent()
        },
        FULL,
        SessionConfig::default(),
    );
    introduce(&mut session);
    request_metadata(&mut session, 0).unwrap();
    assert_eq!(session.take_metadata_request(), None);
    assert_eq!(session.counters().metadata_refused, 1);
}

/// C15: whoever asks for metadata again and again gets it a few times, then rejects, then is
/// closed.
#[test]
fn a_metadata_flood_is_bounded_then_closed() {
    let mut session = session(FULL);
    introduce(&mut session);
    let mut served = 0;
    let closed = loop {
        if let Err(closed) = request_metadata(&mut session, 0) {
            break closed;
        }
        if let Some(piece) = session.take_metadata_request() {
            session.send_metadata(piece, &[0; METADATA_BLOCK_BYTES as usize]);
            served += 1;
        }
        assert!(session.control_bytes() <= (64 << 10) + (17 << 10));
        control(&mut session);
    };
    assert_eq!(
        closed,
        Disconnect::MetadataFlood {
            count: METADATA_REFUSALS_MAX + 1
        }
    );
    assert_eq!(served, 3 * 4);
    assert_eq!(closed.kind(), DisconnectKind::Misbehaved);
}

/// C15: requests that are not answered yet are bounded too, and wait while the peer does not drain.
#[test]
fn waiting_metadata_requests_are_bounded() {
    let big = TorrentView {
        metadata_bytes: Some(64 << 20),
        ..torrent()
    };
    let mut session = session_of(big, FULL, SessionConfig::default());
    control(&mut session);
    introduce(&mut session);
    for piece in 0..100 {
        request_metadata(&mut session, piece).unwrap();
    }
    assert_eq!(control(&mut session).len(), 100 - 16);
    let mut answered = 0;
    while let Some(piece) = session.take_metadata_request() {
        session.send_metadata(piece, &[0; METADATA_BLOCK_BYTES as usize]);
        answered += 1;
    }
    assert_eq!(answered, 4, "four blocks are over 64 KiB");
    assert!(!session.wants_input());
    control(&mut session);
    assert!(session.wants_input() && session.take_metadata_request().is_some());
}

#[test]
fn broken_extension_messages_end_the_connection_and_unknown_ones_do_not() {
    let id = Extension::Metadata.our_id().get();
    for (id, payload) in [(0, &b"garbage"[..]), (0, b"le"), (id, b"de"), (id, b"")] {
        let refused = extended(&mut session(FULL), id, payload).unwrap_err();
        assert!(matches!(refused, Disconnect::Extension(_)), "{refused}");
    }
    extended(&mut session(FULL), 200, b"whatever").unwrap();
    extended(
        &mut session(FULL),
        Extension::Holepunch.our_id().get(),
        b"x",
    )
    .unwrap();
}
