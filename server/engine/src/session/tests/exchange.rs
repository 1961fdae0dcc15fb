//! Peer exchange (BEP 11) on one session.

use super::*;
use crate::pex::EARLY_MAX;
use proto::pex::{PexFlags, PexMessage, PexPeer};
use std::net::SocketAddr;
use std::num::NonZeroU16;

const THEIR_ID: u8 = 77;

fn peers(addresses: &[&str]) -> PexMessage {
    let peer = |text: &&str| PexPeer {
        address: text.parse().unwrap(),
        flags: PexFlags::SEED,
    };
    PexMessage {
        added: addresses.iter().map(peer).collect(),
        dropped: Vec::new(),
    }
}

/// What the peer's extension handshake says: it takes peer exchange, and listens.
fn greet(session: &mut Session) {
    let mut handshake = ExtensionHandshake::default();
    handshake.messages.set(Extension::PeerExchange, THEIR_ID);
    handshake.listen_port = NonZeroU16::new(6881);
    let mut payload = Vec::new();
    handshake.encode(&mut payload);
    let payload = &payload[..];
    give(session, &Message::Extended { id: 0, payload }).unwrap();
}

fn tell(session: &mut Session, message: &PexMessage, now: Time) -> Result<(), Disconnect> {
    let mut payload = Vec::new();
    message.encode(&mut payload);
    let (id, payload) = (Extension::PeerExchange.our_id().get(), &payload[..]);
    session.handle_message(&Message::Extended { id, payload }, now)
}

fn offers_exchange(torrent: TorrentView, config: SessionConfig) -> bool {
    let mut session = session_of(torrent, FULL, config);
    let mut bytes = Vec::new();
    session.take_control(&mut bytes);
    let opening = messages(&bytes);
    let payload = opening.iter().find_map(|message| match message {
        Message::Extended { id: 0, payload } => Some(*payload),
        _ => None,
    });
    let handshake = ExtensionHandshake::parse(payload.unwrap()).unwrap();
    handshake.messages.get(Extension::PeerExchange).is_some()
}

#[test]
fn it_is_offered_unless_the_torrent_is_private_or_it_is_off() {
    assert!(offers_exchange(torrent(), SessionConfig::default()));
    let private = TorrentView {
        private: true,
        ..torrent()
    };
    assert!(!offers_exchange(private, SessionConfig::default()));
    let off = SessionConfig {
        peer_exchange: false,
        ..SessionConfig::default()
    };
    assert!(!offers_exchange(torrent(), off));
}

#[test]
fn peers_are_told_and_taken() {
    let mut session = session(FULL);
    assert!(!session.wants_exchange(), "it has not said so");
    greet(&mut session);
    assert!(session.wants_exchange());
    assert_eq!(session.peer_listen_port(), NonZeroU16::new(6881));
    let message = peers(&["20.0.0.1:1"]);
    session.tell_peers(&message);
    let mut bytes = Vec::new();
    session.take_control(&mut bytes);
    let told = messages(&bytes);
    let Message::Extended { id, payload } = told[0] else {
        panic!("{told:?}");
    };
    assert_eq!((id, PexMessage::parse(payload)), (THEIR_ID, Ok(message)));

    // The peer is at 10.1.2.3, so it may name what is in its network.
    tell(
        &mut session,
        &peers(&["10.0.0.9:1", "127.0.0.1:1"]),
        seconds(0),
    )
    .unwrap();
    let named = session.take_named();
    assert_eq!(named.len(), 1);
    assert_eq!(
        named[0].address,
        "10.0.0.9:1".parse::<SocketAddr>().unwrap()
    );
    assert_eq!(session.take_named(), []);
    tell(&mut session, &peers(&["10.0.0.8:1"]), seconds(44)).unwrap();
    assert_eq!(session.take_named(), [], "too soon");
    tell(&mut session, &peers(&["10.0.0.8:1"]), seconds(60)).unwrap();
    assert_eq!(session.take_named().len(), 1);
    let counters = session.counters();
    let exchanged = (
        counters.exchanges_sent,
        counters.exchanges_received,
        counters.exchanges_ignored,
    );
    assert_eq!(exchanged, (1, 2, 1));
}

#[test]
fn we_are_not_a_peer_of_ours() {
    let config = SessionConfig {
        listen_port: NonZeroU16::new(6890),
        ..SessionConfig::default()
    };
    let mut session = session_of(torrent(), FULL, config);
    session.set_own_ip("::ffff:10.1.2.4".parse().unwrap());
    tell(
        &mut session,
        &peers(&["10.1.2.4:6890", "10.1.2.4:6891"]),
        seconds(0),
    )
    .unwrap();
    assert_eq!(session.take_named().len(), 1);
}

#[test]
fn of_a_private_torrent_nothing_is_told_or_taken() {
    let private = TorrentView {
        private: true,
        ..torrent()
    };
    let mut session = session_of(private, FULL, SessionConfig::default());
    session.take_control(&mut Vec::new());
    greet(&mut session);
    assert!(!session.wants_exchange() && !session.may_exchange_peers());
    session.tell_peers(&peers(&["20.0.0.1:1"]));
    assert_eq!(control(&mut session), [""; 0]);
    for _ in 0..100 {
        tell(&mut session, &peers(&["10.0.0.9:1"]), seconds(0)).unwrap();
    }
    assert_eq!(session.take_named(), []);
}

#[test]
fn who_tells_again_and_again_before_its_time_is_closed() {
    let mut session = session(FULL);
    tell(&mut session, &peers(&[]), seconds(0)).unwrap();
    for _ in 0..EARLY_MAX {
        tell(&mut session, &peers(&["10.0.0.9:1"]), seconds(1)).unwrap();
    }
    let flood = tell(&mut session, &peers(&[]), seconds(1));
    assert!(matches!(
        flood,
        Err(Disconnect::ExchangeFlood { count: 21 })
    ));
}

#[test]
fn what_is_no_message_is_refused() {
    let mut session = session(FULL);
    let (id, payload) = (Extension::PeerExchange.our_id().get(), &b"d5:added"[..]);
    let refused = give(&mut session, &Message::Extended { id, payload });
    assert!(matches!(refused, Err(Disconnect::Extension(_))));
}
