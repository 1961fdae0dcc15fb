//! What a peer that is super-seeded (BEP 16) is told of, and what it gets.

use super::*;

fn super_seeded(reserved: Reserved) -> Session {
    super_seeded_of(torrent(), reserved)
}

/// 1,000 pieces.
fn many() -> TorrentView {
    TorrentView {
        piece_count: 1_000,
        total_length: 1_000 * u64::from(PIECE),
        ..torrent()
    }
}

fn super_seeded_of(torrent: TorrentView, reserved: Reserved) -> Session {
    let ip = Some(IpAddr::from(Ipv4Addr::new(10, 1, 2, 3)));
    let peer = PeerIdentity {
        peer_id: PeerId([7; 20]),
        reserved,
        ip,
    };
    let config = Arc::new(SessionConfig::default());
    Session::super_seeding(config, Arc::new(torrent), peer, seconds(0))
}

fn tell(session: &mut Session, pieces: &[u32]) -> Vec<String> {
    let pieces: Vec<_> = pieces.iter().copied().map(PieceIndex).collect();
    session.tell_pieces(&pieces);
    control(session)
}

fn have(piece: u32) -> String {
    format!("{:?}", Message::Have(PieceIndex(piece)))
}

#[test]
fn it_is_told_that_we_have_nothing_and_gets_what_it_was_told_of() {
    let mut session = super_seeded(FAST);
    assert_eq!(control(&mut session), ["HaveNone"]);
    give(&mut session, &Message::Interested).unwrap();
    assert!(!session.wants_allowed_fast(), "that would tell of pieces");
    session.set_choked(false, seconds(0));
    assert_eq!(control(&mut session), ["Unchoke"]);
    let wanted = [block(3, 0, BLOCK), block(4, 0, BLOCK)];
    for wanted in wanted {
        request(&mut session, wanted).unwrap();
    }
    assert_eq!(control(&mut session), rejects(&wanted));
    assert_eq!(tell(&mut session, &[3, 3]), [have(3)], "once");
    for wanted in wanted {
        request(&mut session, wanted).unwrap();
    }
    assert_eq!(control(&mut session), rejects(&wanted[1..]));
    assert_eq!(session.queued().collect::<Vec<_>>(), wanted[..1]);
    assert_eq!(session.role(), Role::Seeding);
    // Who cannot be sent a reject has no right to ask.
    let mut plain = super_seeded(Reserved::NONE);
    assert_eq!(control(&mut plain), [] as [&str; 0]);
    give(&mut plain, &Message::Interested).unwrap();
    plain.set_choked(false, seconds(0));
    let lost = request(&mut plain, block(3, 0, BLOCK)).unwrap_err();
    assert_eq!(
        lost,
        Disconnect::PieceLost {
            piece: PieceIndex(3)
        }
    );
}

#[test]
fn it_does_not_hear_that_we_only_upload_before_it_knows_everything() {
    let upload_only = |session: &mut Session| {
        let mut bytes = Vec::new();
        session.take_control(&mut bytes);
        let handshake = messages(&bytes)
            .into_iter()
            .find_map(|message| match message {
                Message::Extended { id: 0, payload } => {
                    Some(ExtensionHandshake::parse(payload).unwrap())
                }
                _ => None,
            });
        handshake.unwrap().upload_only
    };
    assert!(!upload_only(&mut super_seeded(FULL)));
    let config = SessionConfig::default();
    assert!(upload_only(&mut session_of(torrent(), FULL, config)));
}

#[test]
fn what_it_says_that_it_has_is_passed_on_and_of_others_nothing_is_kept() {
    let mut session = super_seeded(FAST);
    let bits = [0x80, 0];
    give(&mut session, &Message::Bitfield(&bits)).unwrap();
    give(&mut session, &Message::Have(PieceIndex(5))).unwrap();
    give(&mut session, &Message::HaveNone).unwrap();
    give(&mut session, &Message::HaveAll).unwrap();
    let heard = [
        Heard::These(bits.to_vec()),
        Heard::Has(PieceIndex(5)),
        Heard::All,
    ];
    assert_eq!(session.take_heard(), heard);
    assert_eq!(session.take_heard(), []);
    // Who has everything says nothing new.
    give(&mut session, &Message::HaveAll).unwrap();
    give(&mut session, &Message::Bitfield(&bits)).unwrap();
    give(&mut session, &Message::Have(PieceIndex(5))).unwrap();
    give(&mut session, &Message::HaveAll).unwrap();
    assert_eq!(session.take_heard(), []);
    // We are both seeds, whatever it knows of us.
    let grace = SessionConfig::default().redundant_grace;
    let redundant = session.handle_timeout(seconds(0) + grace);
    assert_eq!(redundant, Err(Disconnect::BothComplete));
    let mut usual = super::session(FAST);
    give(&mut usual, &Message::Have(PieceIndex(5))).unwrap();
    assert_eq!(usual.take_heard(), []);
}

#[test]
fn who_says_what_it_has_again_and_again_is_closed() {
    let bits = [0x80, 0];
    let statements = [
        Message::HaveAll,
        Message::HaveNone,
        Message::Bitfield(&bits),
    ];
    for statement in &statements {
        let mut session = super_seeded(FAST);
        // As fast as that for ever.
        for second in 0..1_000 {
            session.handle_message(statement, seconds(second)).unwrap();
        }
        let mut count = 0;
        while session.handle_message(statement, seconds(1_000)).is_ok() {
            count += 1;
            assert!(count < 1_000, "{statement:?}");
        }
        assert_eq!(count, telling::STATEMENTS_MAX);
        let closed = session.handle_message(statement, seconds(1_000));
        let closed = closed.unwrap_err();
        assert!(matches!(closed, Disconnect::StatementFlood { .. }));
        assert_eq!(closed.kind(), DisconnectKind::Misbehaved);
    }
    // aria2 gets pieces as fast as that, and says so by bitfields.
    let mut session = super_seeded_of(many(), FAST);
    let mut bits = [0; 125];
    for piece in 0..1_000 {
        bits[piece / 8] |= 0x80 >> (piece % 8);
        give(&mut session, &Message::Bitfield(&bits)).unwrap();
    }
    // A peer of an ordinary seed costs nothing by that.
    let mut usual = super::session(FAST);
    for _ in 0..1_000 {
        give(&mut usual, &Message::HaveAll).unwrap();
    }
}

/// A bitfield of all pieces is not to be looked at piece by piece.
#[test]
fn a_whole_bitfield_says_that_it_has_everything() {
    let mut session = super_seeded(Reserved::NONE);
    give(&mut session, &Message::Bitfield(&[0xff, 0xe0])).unwrap();
    assert_eq!(session.take_heard(), [Heard::All]);
}

/// rTorrent says that it has a piece with its next request only.
#[test]
fn it_has_what_it_was_sent_all_of() {
    let mut session = super_seeded(FAST);
    give(&mut session, &Message::Interested).unwrap();
    session.set_choked(false, seconds(0));
    tell(&mut session, &[10, 3]);
    for wanted in [block(10, 500, 500), block(3, 0, BLOCK), block(10, 0, 500)] {
        assert_eq!(session.take_heard(), []);
        request(&mut session, wanted).unwrap();
        let batch = session.next_batch(u32::MAX).unwrap();
        session.batch_sent(&batch, seconds(1));
    }
    assert_eq!(session.take_heard(), [Heard::Has(PieceIndex(10))]);
}

/// Of a peer that fetches a little of very many pieces only some are remembered: those of which it
/// was sent most.
#[test]
fn what_it_was_sent_a_part_of_is_remembered_of_a_few_pieces() {
    let mut session = super_seeded_of(many(), FAST);
    give(&mut session, &Message::Interested).unwrap();
    session.set_choked(false, seconds(0));
    let all: Vec<_> = (0..1_000).map(PieceIndex).collect();
    session.tell_pieces(&all);
    let mut send = |wanted| {
        request(&mut session, wanted).unwrap();
        let batch = session.next_batch(u32::MAX).unwrap();
        session.batch_sent(&batch, seconds(1));
        let remembered = session.super_seeded.as_ref().unwrap().sent.len();
        (session.take_heard(), remembered)
    };
    for begin in (0..PIECE - BLOCK).step_by(BLOCK as usize) {
        assert_eq!(send(block(7, begin, BLOCK)).0, []);
    }
    for piece in (0..1_000).filter(|piece| *piece != 7) {
        let (heard, remembered) = send(block(piece, 0, BLOCK));
        assert!(heard.is_empty() && remembered <= 64, "{remembered}");
    }
    let (heard, _) = send(block(7, PIECE - BLOCK, BLOCK));
    assert_eq!(heard, [Heard::Has(PieceIndex(7))]);
}

#[test]
fn in_the_end_it_is_told_of_everything_a_few_at_a_time() {
    let mut session = super_seeded(FAST);
    control(&mut session);
    assert_eq!(tell(&mut session, &[0, 9]), [have(0), have(9)]);
    assert!(session.tell_rest(5));
    assert_eq!(control(&mut session), (1..6).map(have).collect::<Vec<_>>());
    assert!(session.tell_rest(5));
    let last = [6, 7, 8, 10].map(have);
    assert_eq!(control(&mut session), last);
    assert!(!session.tell_rest(5), "it knows everything");
    give(&mut session, &Message::Have(PieceIndex(5))).unwrap();
    assert_eq!(session.take_heard(), []);
    give(&mut session, &Message::Interested).unwrap();
    assert!(session.wants_allowed_fast(), "as of any seed");
    assert_eq!(tell(&mut session, &[1]), [] as [&str; 0]);
}
