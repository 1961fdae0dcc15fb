//! One session at a time, message by message: the rows of section C of the reliability promises
//! that concern a seed, and the timeouts.

use std::net::{IpAddr, Ipv4Addr};

use proto::extension::{Extension, ExtensionHandshake, METADATA_BLOCK_BYTES};
use proto::handshake::{Reserved, ReservedBit};
use proto::ids::{PeerId, PieceIndex};
use proto::wire::{self, BlockRequest, Decoded};

use super::messages::{INVALID_REQUESTS_MAX, METADATA_REFUSALS_MAX};
use super::*;

mod allowed_fast;
mod exchange;
mod growing;
mod metadata;
mod super_seeding;
mod timeouts;

const FAST: Reserved = Reserved::NONE.with(ReservedBit::FAST);
const FULL: Reserved = FAST.with(ReservedBit::EXTENSION_PROTOCOL);
const BLOCK: u32 = 16 << 10;
const PIECE: u32 = 256 << 10;
const METADATA: u32 = 40_000;

/// 11 pieces, the last one of 1,000 bytes.
fn torrent() -> TorrentView {
    TorrentView {
        piece_count: 11,
        piece_length: PIECE,
        total_length: 10 * u64::from(PIECE) + 1_000,
        metadata_bytes: Some(METADATA),
        private: false,
        pieces: Pieces::All,
    }
}

fn session_of(torrent: TorrentView, reserved: Reserved, config: SessionConfig) -> Session {
    let ip = Some(IpAddr::from(Ipv4Addr::new(10, 1, 2, 3)));
    let peer = PeerIdentity {
        peer_id: PeerId([7; 20]),
        reserved,
        ip,
    };
    Session::new(Arc::new(config), Arc::new(torrent), peer, seconds(0))
}

/// A session whose opening was sent.
fn session(reserved: Reserved) -> Session {
    let mut session = session_of(torrent(), reserved, SessionConfig::default());
    session.take_control(&mut Vec::new());
    session
}

/// A session whose peer is interested and unchoked.
fn unchoked(reserved: Reserved) -> Session {
    let mut session = session(reserved);
    give(&mut session, &Message::Interested).unwrap();
    assert!(session.wants_unchoke());
    session.set_choked(false, seconds(0));
    assert_eq!(control(&mut session), ["Unchoke"]);
    session
}

fn seconds(seconds: u64) -> Time {
    Time(seconds * 1_000_000_000)
}

fn give(session: &mut Session, message: &Message<'_>) -> Result<(), Disconnect> {
    let result = session.handle_message(message, seconds(0));
    session.check_invariants();
    result
}

fn block(piece: u32, begin: u32, length: u32) -> BlockRequest {
    BlockRequest {
        piece: PieceIndex(piece),
        begin,
        length,
    }
}

/// [`request`] without the check of the whole state, for floods.
fn flood(session: &mut Session, request: BlockRequest) -> Result<(), Disconnect> {
    session.handle_message(&Message::Request(request), seconds(0))
}

fn request(session: &mut Session, request: BlockRequest) -> Result<(), Disconnect> {
    give(session, &Message::Request(request))
}

/// Takes the queued control messages, each shown for comparing.
fn control(session: &mut Session) -> Vec<String> {
    let mut bytes = Vec::new();
    session.take_control(&mut bytes);
    messages(&bytes)
        .iter()
        .map(|message| format!("{message:?}"))
        .collect()
}

fn messages(mut bytes: &[u8]) -> Vec<Message<'_>> {
    let limits = FrameLimits::for_torrent(1 << 21);
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let Ok(Decoded::Message { message, consumed }) = wire::decode(bytes, &limits) else {
            panic!("control bytes that are no whole messages: {bytes:?}");
        };
        messages.push(message);
        bytes = &bytes[consumed..];
    }
    messages
}

fn rejects(blocks: &[BlockRequest]) -> Vec<String> {
    blocks
        .iter()
        .map(|&block| format!("{:?}", Message::Reject(block)))
        .collect()
}

fn extended(session: &mut Session, id: u8, payload: &[u8]) -> Result<(), Disconnect> {
    give(session, &Message::Extended { id, payload })
}

/// The peer's extension handshake: it takes metadata messages under id 33.
fn introduce(session: &mut Session) {
    let mut handshake = ExtensionHandshake::default();
    handshake.messages.set(Extension::Metadata, 33);
    handshake.client = Some("Peer 1.0".to_owned());
    let mut payload = Vec::new();
    handshake.encode(&mut payload);
    extended(session, 0, &payload).unwrap();
}

fn request_metadata(session: &mut Session, piece: u32) -> Result<(), Disconnect> {
    let mut payload = Vec::new();
    MetadataMessage::Request { piece }.encode(&mut payload);
    extended(session, Extension::Metadata.our_id().get(), &payload)
}

#[test]
fn the_opening_says_what_we_have_and_what_we_speak() {
    let mut session = session_of(torrent(), FULL, SessionConfig::default());
    let mut bytes = Vec::new();
    session.take_control(&mut bytes);
    let messages = messages(&bytes);
    assert_eq!(messages[0], Message::HaveAll);
    let Message::Extended { id: 0, payload } = messages[1] else {
        panic!("{messages:?}")
    };
    let handshake = ExtensionHandshake::parse(payload).unwrap();
    assert_eq!(handshake.metadata_bytes, Some(METADATA));
    assert_eq!(handshake.request_queue, Some(2_000));
    assert_eq!(
        handshake.your_ip,
        Some(IpAddr::from(Ipv4Addr::new(10, 1, 2, 3)))
    );
    assert!(handshake.upload_only);
    assert!(handshake.client.unwrap().starts_with("Seedring "));
    assert_eq!(
        handshake.messages.get(Extension::Metadata),
        Some(Extension::Metadata.our_id())
    );
    assert_eq!(messages.len(), 2);
}

#[test]
fn a_plain_peer_gets_a_bitfield_and_no_extension() {
    let mut session = session_of(torrent(), Reserved::NONE, SessionConfig::default());
    assert_eq!(control(&mut session), ["Bitfield([255, 224])"]);
    let config = SessionConfig {
        fast_extension: false,
        ..SessionConfig::default()
    };
    let mut session = session_of(torrent(), FAST, config);
    assert_eq!(
        control(&mut session),
        ["Bitfield([255, 224])"],
        "BEP 6 needs both sides"
    );
    let eight = TorrentView {
        piece_count: 8,
        total_length: 8 * u64::from(PIECE),
        ..torrent()
    };
    let mut session = session_of(eight, Reserved::NONE, SessionConfig::default());
    assert_eq!(control(&mut session), ["Bitfield([255])"]);
    let none = TorrentView {
        piece_count: 0,
        total_length: 0,
        ..torrent()
    };
    let mut session = session_of(none, Reserved::NONE, SessionConfig::default());
    assert!(control(&mut session).is_empty());
}

#[test]
fn a_torrent_with_lost_pieces_says_so_and_is_not_upload_only() {
    let pieces = Pieces::Some(Arc::from([0xfe, 0x20]));
    let mut session = session_of(
        TorrentView {
            pieces,
            ..torrent()
        },
        FULL,
        SessionConfig::default(),
    );
    let mut bytes = Vec::new();
    session.take_control(&mut bytes);
    let messages = messages(&bytes);
    assert_eq!(messages[0], Message::Bitfield(&[0xfe, 0x20]));
    let Message::Extended { payload, .. } = messages[1] else {
        panic!("{messages:?}")
    };
    assert!(!ExtensionHandshake::parse(payload).unwrap().upload_only);
}

#[test]
fn requests_become_batches_of_adjacent_blocks() {
    let mut session = unchoked(FAST);
    for begin in [0, BLOCK, 2 * BLOCK] {
        request(&mut session, block(3, begin, BLOCK)).unwrap();
    }
    request(&mut session, block(10, 0, 1_000)).unwrap();
    assert_eq!(session.queued_bytes(), 3 * u64::from(BLOCK) + 1_000);
    assert_eq!(session.peek_batch(u32::MAX).unwrap().count, 3);
    let first = session.next_batch(u32::MAX).unwrap();
    session.check_invariants();
    let second = session.next_batch(u32::MAX).unwrap();
    assert_eq!((second.piece, second.bytes), (PieceIndex(10), 1_000));
    assert_eq!(session.next_batch(u32::MAX), None);
    session.batch_sent(&first, seconds(1));
    session.batch_sent(&second, seconds(1));
    session.check_invariants();
    assert_eq!(session.counters().blocks_sent, 4);
    assert_eq!(
        session.counters().uploaded_bytes,
        3 * u64::from(BLOCK) + 1_000
    );
    assert!(control(&mut session).is_empty());
}

/// C3: what is wrong with a request decides; a fast peer is told, a plain one is closed.
#[test]
fn requests_that_cannot_be_served_are_rejected_or_end_the_connection() {
    let outside = [
        block(0, 0, 0),
        block(0, PIECE, 1),
        block(0, PIECE - 1, 2),
        block(0, u32::MAX, 1),
        block(0, 1, u32::MAX),
        block(10, 0, 1_001),
        block(11, 0, 1),
        block(u32::MAX, 0, BLOCK),
    ];
    for outside in outside {
        let mut session = unchoked(FAST);
        request(&mut session, outside).unwrap();
        assert_eq!(control(&mut session), rejects(&[outside]));
        let mut session = unchoked(Reserved::NONE);
        let refused = request(&mut session, outside).unwrap_err();
        assert_eq!(refused, Disconnect::RequestOutside(outside));
        assert_eq!(refused.kind(), DisconnectKind::Misbehaved);
    }
}

/// C3: 128 KiB are served, one byte more is not.
#[test]
fn long_blocks_are_served_up_to_the_limit() {
    let mut session = unchoked(FAST);
    let longest = block(0, 0, 128 << 10);
    let too_long = block(0, 0, (128 << 10) + 1);
    request(&mut session, longest).unwrap();
    request(&mut session, too_long).unwrap();
    assert_eq!(control(&mut session), rejects(&[too_long]));
    assert_eq!(session.next_batch(u32::MAX).unwrap().bytes, 128 << 10);
    let refused = request(&mut unchoked(Reserved::NONE), too_long).unwrap_err();
    assert_eq!(refused.kind(), DisconnectKind::Incompatible);
}

#[test]
fn a_peer_that_heeds_no_reject_is_closed() {
    let mut session = unchoked(FAST);
    for _ in 0..INVALID_REQUESTS_MAX {
        request(&mut session, block(11, 0, 1)).unwrap();
    }
    let closed = request(&mut session, block(11, 0, 1)).unwrap_err();
    assert_eq!(
        closed,
        Disconnect::InvalidRequests {
            count: INVALID_REQUESTS_MAX + 1
        }
    );
}

/// C3: while choked, the requests that were on their way are refused; going on for ever is not.
#[test]
fn requests_while_choked_are_refused_and_a_flood_of_them_closed() {
    for reserved in [FAST, Reserved::NONE] {
        let mut session = session(reserved);
        let wanted = block(0, 0, BLOCK);
        request(&mut session, wanted).unwrap();
        let told = if reserved.fast() {
            rejects(&[wanted])
        } else {
            Vec::new()
        };
        assert_eq!(control(&mut session), told);
        for _ in 1..4_000 {
            flood(&mut session, wanted).unwrap();
        }
        assert_eq!(session.queued_requests(), 0);
        assert_eq!(
            request(&mut session, wanted),
            Err(Disconnect::RequestsWhileChoked { count: 4_001 })
        );
    }
}

#[test]
fn a_choke_forgives_what_came_before_it() {
    let mut session = session(FAST);
    for round in 0..3 {
        for _ in 0..3_000 {
            flood(&mut session, block(0, 0, BLOCK)).unwrap();
        }
        session.set_choked(false, seconds(round));
        session.set_choked(true, seconds(round));
    }
}

/// C3: a piece that we do not have.
#[test]
fn requests_for_pieces_that_are_gone_are_rejected() {
    let mut session = unchoked(FAST);
    request(&mut session, block(7, 0, BLOCK)).unwrap();
    request(&mut session, block(6, 0, BLOCK)).unwrap();
    session.set_pieces(Pieces::Some(Arc::from([0xfe, 0xe0])));
    session.check_invariants();
    assert_eq!(control(&mut session), rejects(&[block(7, 0, BLOCK)]));
    assert_eq!(session.queued_requests(), 1);
    request(&mut session, block(7, BLOCK, BLOCK)).unwrap();
    assert_eq!(control(&mut session), rejects(&[block(7, BLOCK, BLOCK)]));
    session.set_pieces(Pieces::All);
    request(&mut session, block(7, BLOCK, BLOCK)).unwrap();
    assert_eq!(session.queued_requests(), 2);

    let mut plain = unchoked(Reserved::NONE);
    request(&mut plain, block(7, 0, BLOCK)).unwrap();
    plain.set_pieces(Pieces::Some(Arc::from([0xfe, 0xe0])));
    plain.check_invariants();
    assert_eq!(
        (plain.queued_requests(), plain.counters().requests_dropped),
        (0, 1)
    );
    let closed = request(&mut plain, block(7, 0, BLOCK)).unwrap_err();
    assert_eq!(
        closed,
        Disconnect::PieceLost {
            piece: PieceIndex(7)
        }
    );
}

/// C4: 100,000 pipelined requests.
#[test]
fn a_pipelining_flood_is_bounded_for_fast_peers_by_rejects() {
    let mut session = unchoked(FAST);
    let (mut given, mut taken) = (0, 0);
    while given < 100_000 {
        if session.wants_input() {
            let place = given % 16;
            flood(&mut session, block(given / 16 % 10, place * BLOCK, BLOCK)).unwrap();
            given += 1;
            assert!(session.control_bytes() <= (64 << 10) + wire::REQUEST_FRAME_BYTES);
        } else {
            let mut out = Vec::new();
            session.take_control(&mut out);
            taken += out.len() / wire::REQUEST_FRAME_BYTES;
            assert!(
                out.iter()
                    .skip(4)
                    .step_by(17)
                    .all(|&id| id == wire::id::REJECT)
            );
        }
    }
    session.check_invariants();
    taken += control(&mut session).len();
    assert_eq!((session.queued_requests(), taken), (2_000, 98_000));
    assert_eq!(session.counters().requests_refused, 98_000);
}

/// C4: a peer without rejects is not read from while its queue is full, so it loses nothing.
#[test]
fn a_pipelining_flood_is_bounded_for_plain_peers_by_not_reading() {
    let mut session = unchoked(Reserved::NONE);
    let (mut given, mut sent) = (0_u32, 0);
    while given < 10_000 {
        if session.wants_input() {
            flood(&mut session, block(0, 0, given % BLOCK + 1)).unwrap();
            given += 1;
        } else {
            let batch = session.next_batch(u32::MAX).unwrap();
            session.batch_sent(&batch, seconds(0));
            sent += batch.count;
        }
    }
    session.check_invariants();
    assert_eq!(sent + session.queued_requests(), 10_000);
    assert_eq!(session.counters().requests_ignored, 0);
}

/// C5: a cancel is answered by a reject (BEP 6), or by nothing (BEP 3); in flight it comes too
/// late.
#[test]
fn cancels_take_back_what_still_waits() {
    for reserved in [FAST, Reserved::NONE] {
        let mut session = unchoked(reserved);
        let (first, second) = (block(0, 0, BLOCK), block(0, BLOCK, BLOCK));
        request(&mut session, first).unwrap();
        let batch = session.next_batch(u32::MAX).unwrap();
        request(&mut session, second).unwrap();
        give(&mut session, &Message::Cancel(first)).unwrap();
        give(&mut session, &Message::Cancel(second)).unwrap();
        give(&mut session, &Message::Cancel(second)).unwrap();
        give(&mut session, &Message::Cancel(block(u32::MAX, 1, 0))).unwrap();
        let told = if reserved.fast() {
            rejects(&[second])
        } else {
            Vec::new()
        };
        assert_eq!(control(&mut session), told);
        session.batch_sent(&batch, seconds(0));
        session.check_invariants();
        let counters = session.counters();
        assert_eq!((counters.cancels, counters.blocks_sent), (4, 1));
        assert_eq!(session.next_batch(u32::MAX), None);
    }
}

/// C5: a choke while a batch is being sent.
#[test]
fn a_choke_gives_up_what_waits_and_lets_the_batch_in_flight_go() {
    for reserved in [FAST, Reserved::NONE] {
        let mut session = unchoked(reserved);
        let blocks = [
            block(0, 0, BLOCK),
            block(1, 0, BLOCK),
            block(1, BLOCK, BLOCK),
        ];
        for wanted in blocks {
            request(&mut session, wanted).unwrap();
        }
        let batch = session.next_batch(u32::MAX).unwrap();
        session.set_choked(true, seconds(1));
        session.set_choked(true, seconds(1));
        session.check_invariants();
        let mut told = vec!["Choke".to_owned()];
        if reserved.fast() {
            told.extend(rejects(&blocks[1..]));
        }
        assert_eq!(control(&mut session), told);
        assert_eq!(session.next_batch(u32::MAX), None);
        session.batch_sent(&batch, seconds(1));
        session.check_invariants();
        assert_eq!(
            (session.counters().blocks_sent, session.counters().chokes),
            (1, 1)
        );
    }
}

#[test]
fn a_failed_batch_is_rejected_or_dropped() {
    for reserved in [FAST, Reserved::NONE] {
        let mut session = unchoked(reserved);
        let blocks = [block(0, 0, BLOCK), block(0, BLOCK, BLOCK)];
        for wanted in blocks {
            request(&mut session, wanted).unwrap();
        }
        let batch = session.next_batch(u32::MAX).unwrap();
        session.batch_failed(&batch);
        session.check_invariants();
        let told = if reserved.fast() {
            rejects(&blocks)
        } else {
            Vec::new()
        };
        assert_eq!(control(&mut session), told);
        assert_eq!(session.counters().uploaded_bytes, 0);
    }
}

/// C7: a seed requests nothing, so every block is unrequested; the frame limits stop all but an
/// empty one.
#[test]
fn a_block_from_the_peer_ends_the_connection() {
    let mut session = session(FAST);
    let piece = PieceIndex(1);
    let message = Message::Piece {
        piece,
        begin: 0,
        block: b"x",
    };
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    assert!(wire::decode(&bytes, &session.frame_limits()).is_err());
    let empty = Message::Piece {
        piece,
        begin: 0,
        block: b"",
    };
    assert_eq!(
        give(&mut session, &empty),
        Err(Disconnect::UnrequestedPiece { piece })
    );
}

/// C10, C11: floods of haves, suggestions and the like change nothing but a number that has an
/// upper end.
#[test]
fn floods_of_haves_and_suggestions_neither_overflow_nor_grow() {
    let mut session = session(FAST);
    for i in 0..100_000_u32 {
        let piece = PieceIndex(i % 11);
        for message in [
            Message::Have(piece),
            Message::Suggest(PieceIndex(i)),
            Message::AllowedFast(PieceIndex(u32::MAX)),
            Message::Reject(block(i, i, i)),
            Message::Choke,
            Message::Unchoke,
            Message::Interested,
            Message::NotInterested,
            Message::KeepAlive,
            Message::Port(1),
            Message::Unknown {
                id: 99,
                payload_bytes: 3,
            },
        ] {
            session.handle_message(&message, seconds(0)).unwrap();
        }
    }
    session.check_invariants();
    assert_eq!((session.peer_pieces(), session.control_bytes()), (11, 0));
    let beyond = Message::Have(PieceIndex(11));
    assert_eq!(
        give(&mut session, &beyond),
        Err(Disconnect::HaveOutside {
            piece: PieceIndex(11),
            piece_count: 11
        })
    );
}

/// C11: the three messages that say what a peer has come right; the last one counts, because aria2
/// sends a bitfield again in place of many haves.
#[test]
fn bitfields_are_checked_and_the_last_one_counts() {
    let whole: [(Message<'_>, u32); 3] = [
        (Message::Bitfield(&[0xf0, 0x20]), 5),
        (Message::HaveAll, 11),
        (Message::HaveNone, 0),
    ];
    for (first, pieces_first) in &whole {
        for (second, pieces_second) in &whole {
            let mut session = session(FAST);
            give(&mut session, first).unwrap();
            assert_eq!(session.peer_pieces(), *pieces_first);
            give(&mut session, second).unwrap();
            assert_eq!(session.peer_pieces(), *pieces_second);
            session.check_invariants();
        }
    }
    for bad in [&[0xff][..], &[], &[0, 0, 0], &[0xff, 0xff], &[0, 0x10]] {
        let refused = give(&mut session(FAST), &Message::Bitfield(bad)).unwrap_err();
        assert!(matches!(refused, Disconnect::Wire(_)), "{bad:?}: {refused}");
    }
    let mut session = session(FAST);
    give(&mut session, &Message::HaveAll).unwrap();
    give(&mut session, &Message::Have(PieceIndex(3))).unwrap();
    assert_eq!(
        session.peer_pieces(),
        11,
        "a have after have-all is idle talk"
    );
}

#[test]
fn fast_messages_need_the_fast_extension() {
    for message in [
        Message::HaveAll,
        Message::HaveNone,
        Message::Suggest(PieceIndex(0)),
        Message::AllowedFast(PieceIndex(0)),
        Message::Reject(block(0, 0, BLOCK)),
    ] {
        let refused = give(&mut session(Reserved::NONE), &message).unwrap_err();
        assert!(
            matches!(refused, Disconnect::FastNotAgreed { .. }),
            "{refused}"
        );
        give(&mut session(FAST), &message).unwrap();
    }
}

#[test]
fn the_choker_sees_rounds_and_unchokes() {
    let mut session = unchoked(FAST);
    give(&mut session, &Message::Bitfield(&[0xc0, 0])).unwrap();
    let send = |session: &mut Session| {
        request(session, block(0, 0, BLOCK)).unwrap();
        let batch = session.next_batch(u32::MAX).unwrap();
        session.batch_sent(&batch, seconds(3));
    };
    send(&mut session);
    session.start_choke_round();
    send(&mut session);
    let view = session.choke_view(PeerKey(4));
    assert_eq!(
        (view.key, view.interested, view.choked),
        (PeerKey(4), true, false)
    );
    assert_eq!(view.uploaded_in_round, u64::from(BLOCK));
    assert_eq!(view.uploaded_since_unchoke, 2 * u64::from(BLOCK));
    assert_eq!(view.progress_bytes, 2 * u64::from(PIECE));
    session.set_choked(true, seconds(4));
    session.set_choked(false, seconds(5));
    let view = session.choke_view(PeerKey(4));
    assert_eq!(
        (view.uploaded_since_unchoke, view.unchoked_at),
        (0, seconds(5))
    );
}

#[test]
#[should_panic(expected = "a batch is given back once")]
fn a_batch_given_back_twice_is_our_bug() {
    let mut session = unchoked(FAST);
    request(&mut session, block(0, 0, BLOCK)).unwrap();
    let batch = session.next_batch(u32::MAX).unwrap();
    session.batch_sent(&batch, seconds(0));
    session.batch_sent(&batch, seconds(0));
}

#[test]
fn every_reason_says_what_happened() {
    for (reason, text) in [
        (
            Disconnect::RequestOutside(block(1, 2, 3)),
            "request for 3 bytes at 2 of piece 1, which is not within the torrent",
        ),
        (
            Disconnect::FastNotAgreed {
                message: "have all",
            },
            "a have all message without having agreed on the fast extension",
        ),
        (
            Disconnect::Stalled {
                seconds: 120,
                bytes: 5,
            },
            "the peer took no byte for 120 s, and 5 wait to be sent",
        ),
    ] {
        assert_eq!(reason.to_string(), text);
    }
}

/// BEP 5: the peer's DHT node is told once, whatever it says later.
#[test]
fn the_port_of_a_dht_node_is_told_once() {
    let mut session = session_of(torrent(), FULL, SessionConfig::default());
    assert_eq!(session.take_dht_port(), None);
    give(&mut session, &Message::Port(6881)).unwrap();
    give(&mut session, &Message::Port(6882)).unwrap();
    assert_eq!(session.take_dht_port(), Some(6881));
    give(&mut session, &Message::Port(6883)).unwrap();
    assert_eq!(session.take_dht_port(), None);
    let mut session = session_of(torrent(), FULL, SessionConfig::default());
    give(&mut session, &Message::Port(0)).unwrap();
    assert_eq!(session.take_dht_port(), None);
}
