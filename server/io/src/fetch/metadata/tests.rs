//! The fetch of metadata by its parts, without a server.

use super::*;
use crate::testing;

#[test]
fn want_of_room_on_our_side_is_no_failure_of_the_address() {
    let mut config = testing::config();
    config.connections_max = 1;
    let seat = testing::seat(config);
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    tokio_uring::start(async {
        let shard = Shard::new(&seat).unwrap();
        let _theirs = shard.limits.admit(address.ip()).ok().unwrap();
        let exchange = Rc::new(Exchange::new(
            InfoHashV1([1; 20]),
            Arc::default(),
            Arc::default(),
        ));
        let mut postponed = PeerList::new(PeerListConfig::default());
        for list in [&mut *exchange.list.borrow_mut(), &mut postponed] {
            list.add(address, PeerSource::Given, Time(0));
            assert_eq!(list.take(Time(0)), Some(address));
        }
        let place = shard.limits.call(1, 1).unwrap();
        let peer = (address, PeerSource::Given);
        let outcome = exchange.call(&shard, peer, place).await;
        exchange.note_end(address, outcome, Time(0));
        postponed.postponed(address, Time(0));
        let list = exchange.list.borrow();
        assert_eq!(list.next_timeout(), postponed.next_timeout());
    });
}

#[test]
fn nobody_is_called_while_the_interface_is_not_there() {
    let mut config = testing::config();
    config.sockets.interface = Some("absent0".to_owned());
    let seat = testing::seat(config);
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    tokio_uring::start(async {
        let shard = Shard::new(&seat).unwrap();
        shard.listen(Vec::new());
        let exchange = Rc::new(Exchange::new(
            InfoHashV1([1; 20]),
            Arc::default(),
            Arc::default(),
        ));
        exchange.add_peers(&shard, &[address], PeerSource::Given);
        exchange.call_peers(&shard);
        assert_eq!(exchange.connections.get(), 0);
        let why = exchange.published.lock_troubles().all();
        assert_eq!(why, [(address, troubles::NO_INTERFACE.to_owned())]);
        assert_eq!(exchange.list.borrow().waiting(), 1, "it is put off");
    });
}

/// A peer at the other end of a connection of our own.
fn peer_at(listener: &std::net::TcpListener) -> (std::net::TcpStream, Peer) {
    let address = listener.local_addr().unwrap();
    let theirs = std::net::TcpStream::connect(address).unwrap();
    let (ours, address) = listener.accept().unwrap();
    let peer = Peer {
        socket: Rc::new(TcpStream::from_std(ours)),
        address,
        id: Cell::new(None),
        useful_at: Cell::new(Time(0)),
        has_waited: Cell::default(),
        said: RefCell::default(),
    };
    (theirs, peer)
}

/// The payload of an extension handshake that offers metadata of this length.
fn offer(bytes: u32) -> Vec<u8> {
    format!("d1:md11:ut_metadatai7ee13:metadata_sizei{bytes}ee").into_bytes()
}

#[test]
fn only_what_was_asked_for_is_of_use_and_who_waits_for_its_turn_is_borne_with() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    tokio_uring::start(async {
        let exchange = Exchange::new(InfoHashV1([1; 20]), Arc::default(), Arc::default());
        let (_theirs, asked) = peer_at(&listener);
        let (_others, waits) = peer_at(&listener);
        let at = |seconds| Time(0) + Duration::from_secs(seconds);
        let hear = |key, peer: &Peer, id, payload: &[u8], seconds| {
            let message = Message::Extended { id, payload };
            exchange.take(PeerKey(key), peer, &message, at(seconds))
        };
        assert!(hear(1, &asked, HANDSHAKE_ID, &offer(16_387), 1).is_some());
        exchange.exchange.borrow_mut().refill(at(1));
        assert!(hear(2, &waits, HANDSHAKE_ID, &offer(4), 1).is_some());
        let ids = MessageIds::ours(&[Extension::Metadata]);
        let id = ids.get(Extension::Metadata).unwrap().get();
        let mut data = Vec::new();
        let (piece, total_bytes, block) = (1, 16_387, &b"abc"[..]);
        MetadataMessage::Data {
            piece,
            total_bytes,
            block,
        }
        .encode(&mut data);
        assert!(hear(1, &asked, id, &data, 5).is_some());
        assert_eq!(asked.useful_at.get(), at(1), "it was not asked for this");
        let later = at(1) + PATIENCE;
        assert!(!exchange.bears_with(PeerKey(1), &asked, later));
        assert!(exchange.bears_with(PeerKey(2), &waits, later));
        assert!(waits.has_waited.get());
        data.clear();
        let (piece, block) = (0, &[0; 16_384][..]);
        MetadataMessage::Data {
            piece,
            total_bytes,
            block,
        }
        .encode(&mut data);
        assert!(hear(1, &asked, id, &data, 7).is_some());
        assert_eq!(asked.useful_at.get(), at(7));
        let again = hear(1, &asked, HANDSHAKE_ID, &offer(5), 8);
        assert!(again.is_none(), "a length stands");
    });
}

#[test]
fn what_a_peer_said_is_kept_as_far_as_it_counts_and_there_is_room() {
    let mut said = Said::default();
    let note = |said: &mut Said, message: &Message<'_>| {
        let mut encoded = Vec::new();
        message.encode(&mut encoded);
        said.note(message, &encoded);
        encoded
    };
    let bitfield = note(&mut said, &Message::Bitfield(&[1, 2]));
    note(&mut said, &Message::KeepAlive);
    let (id, payload) = (3, &b"metadata"[..]);
    note(&mut said, &Message::Extended { id, payload });
    let unchoke = note(&mut said, &Message::Unchoke);
    assert_eq!(said.bytes, [bitfield, unchoke].concat());
    let long = vec![0; SAID_BYTES_MAX];
    note(&mut said, &Message::Bitfield(&long));
    note(&mut said, &Message::Unchoke);
    assert!(said.is_cut && said.bytes.is_empty(), "a part is of no use");
}

#[test]
fn all_links_of_a_server_share_the_room_for_metadata() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let resolving = Resolving::default();
    tokio_uring::start(async {
        let link = |hash| Exchange::new(InfoHashV1([hash; 20]), Arc::default(), resolving.room());
        let (first, second) = (link(1), link(2));
        let (_theirs, peer) = peer_at(&listener);
        let hear = |exchange: &Exchange, peer: &Peer, key, bytes| {
            let payload = &offer(bytes)[..];
            let id = HANDSHAKE_ID;
            let message = Message::Extended { id, payload };
            let taken = exchange.take(PeerKey(key), peer, &message, Time(0));
            assert!(taken.is_some());
            let mut exchange = exchange.exchange.borrow_mut();
            exchange.refill(Time(0));
            exchange.take_action()
        };
        let asked = |peer| Some(Action::Request { peer, block: 0 });
        assert_eq!(hear(&first, &peer, 1, 64 << 20), asked(PeerKey(1)));
        let (_theirs, peer) = peer_at(&listener);
        assert_eq!(hear(&second, &peer, 1, 64 << 20), None, "it waits");
        assert!(second.bears_with(PeerKey(1), &peer, Time(0) + 2 * PATIENCE));
        let (_theirs, peer) = peer_at(&listener);
        assert_eq!(hear(&second, &peer, 2, 4), asked(PeerKey(2)));
    });
}
