//! Tests of the UDP codec: exact bytes, every truncation, hostile values, round trips.

use std::net::IpAddr;

use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::tracker::TrackerPeer;

const TRANSACTION: TransactionId = TransactionId(0x0bad_cafe);
const CONNECTION: UdpConnectionId = UdpConnectionId(0x0102_0304_0506_0708);

fn announce() -> UdpAnnounce {
    UdpAnnounce {
        info_hash: InfoHashV1([b'h'; 20]),
        peer_id: PeerId(*b"-SR0100-abcdefghijkl"),
        downloaded_bytes: 1,
        left_bytes: 2,
        uploaded_bytes: 3,
        event: AnnounceEvent::Started,
        ip: 0,
        key: 0x1234_abcd,
        peers_wanted: Some(50),
        port: 6890,
    }
}

fn request(url: &[u8]) -> UdpRequest<'_> {
    UdpRequest::Announce {
        connection: CONNECTION,
        transaction: TRANSACTION,
        announce: announce(),
        url_data: UrlData::new(url),
    }
}

fn encoded(request: &UdpRequest<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    request.encode(&mut out);
    out
}

fn encoded_reply(reply: &UdpReply, family: AddressFamily) -> Vec<u8> {
    let mut out = Vec::new();
    reply.encode(family, &mut out);
    out
}

fn failure(reason: &str) -> Failure {
    Failure {
        reason: reason.to_owned(),
        retry_in: None,
    }
}

/// The URL data of an announce with these options.
fn url_data(options: &[u8]) -> Vec<u8> {
    let datagram = [&encoded(&request(b""))[..], options].concat();
    match UdpRequest::decode(&datagram).unwrap() {
        UdpRequest::Announce { url_data, .. } => url_data.to_vec(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_bytes_are_those_of_bep_15() {
    let connect = UdpRequest::Connect {
        transaction: TRANSACTION,
    };
    let bytes = b"\0\0\x04\x17\x27\x10\x19\x80\0\0\0\0\x0b\xad\xca\xfe";
    assert_eq!(encoded(&connect), bytes);
    let due = [
        &b"\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\x01\x0b\xad\xca\xfe"[..],
        b"hhhhhhhhhhhhhhhhhhhh-SR0100-abcdefghijkl",
        b"\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03",
        b"\0\0\0\x02\0\0\0\0\x12\x34\xab\xcd\0\0\0\x32\x1a\xea",
    ]
    .concat();
    assert_eq!(due.len(), ANNOUNCE_BYTES);
    assert_eq!(encoded(&request(b"")), due);
    let with_url = [&due[..], b"\x02\x0e/announce?k=vv"].concat();
    assert_eq!(encoded(&request(b"/announce?k=vv")), with_url);
    let hashes = [InfoHashV1([b'a'; 20]), InfoHashV1([b'b'; 20])];
    let scrape = UdpRequest::Scrape {
        connection: CONNECTION,
        transaction: TRANSACTION,
        info_hashes: InfoHashes::new(&hashes),
    };
    let due = b"\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\x02\x0b\xad\xca\xfe\
        aaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbb";
    assert_eq!(encoded(&scrape), due);
}

#[test]
fn the_replies_are_those_of_bep_15() {
    let decode = |bytes: &[u8]| UdpReply::decode(bytes, AddressFamily::V4).unwrap();
    let connect = UdpReply::Connect {
        transaction: TRANSACTION,
        connection: CONNECTION,
    };
    let bytes = b"\0\0\0\0\x0b\xad\xca\xfe\x01\x02\x03\x04\x05\x06\x07\x08";
    assert_eq!(decode(bytes), connect);
    assert_eq!(encoded_reply(&connect, AddressFamily::V4), bytes);

    let bytes = b"\0\0\0\x01\x0b\xad\xca\xfe\0\0\x07\x08\0\0\0\x04\0\0\0\x05\
        \x01\x02\x03\x04\x1a\xe1\x05\x06\x07\x08\0\x50";
    let UdpReply::Announce {
        transaction,
        success,
    } = decode(bytes)
    else {
        panic!("an announce reply is not seen");
    };
    assert_eq!((transaction, success.interval.seconds), (TRANSACTION, 1800));
    assert_eq!((success.incomplete, success.complete), (Some(4), Some(5)));
    let addresses: Vec<String> = success
        .peers
        .iter()
        .map(|p| p.address.to_string())
        .collect();
    assert_eq!(addresses, ["1.2.3.4:6881", "5.6.7.8:80"]);
    assert_eq!(encoded_reply(&decode(bytes), AddressFamily::V4), bytes);

    let bytes = b"\0\0\0\x02\x0b\xad\xca\xfe\0\0\0\x01\0\0\0\x02\0\0\0\x03";
    let file = ScrapeFile {
        complete: 1,
        downloaded: 2,
        incomplete: 3,
    };
    let scrape = UdpReply::Scrape {
        transaction: TRANSACTION,
        files: vec![file],
    };
    assert_eq!(decode(bytes), scrape);
    assert_eq!(encoded_reply(&scrape, AddressFamily::V4), bytes);

    let error = UdpReply::Error {
        transaction: TRANSACTION,
        failure: failure("no such torrent"),
    };
    let bytes = b"\0\0\0\x03\x0b\xad\xca\xfeno such torrent";
    assert_eq!(decode(bytes), error);
    assert_eq!(encoded_reply(&error, AddressFamily::V4), bytes);
    assert_eq!(decode(&[&bytes[..], b"\0"].concat()), error);
}

#[test]
fn compact_peers_have_the_length_of_the_family() {
    let peers = [
        "192.0.2.1:1",
        "[2001:db8::1]:2",
        "[::ffff:192.0.2.2]:3",
        "[2001:db8::2]:4",
    ];
    let peers = peers.map(|peer| peer.parse().unwrap());
    let counts = UdpAnnounceCounts {
        interval_seconds: 1800,
        leechers: 0,
        seeders: 0,
    };
    for (family, due) in [
        (AddressFamily::V4, ["192.0.2.1:1", "192.0.2.2:3"]),
        (AddressFamily::V6, ["[2001:db8::1]:2", "[2001:db8::2]:4"]),
    ] {
        let mut datagram = Vec::new();
        encode_announce_reply(TRANSACTION, counts, peers, family, &mut datagram);
        assert_eq!(datagram.len(), 20 + 2 * family.peer_bytes());
        let Ok(UdpReply::Announce { success, .. }) = UdpReply::decode(&datagram, family) else {
            panic!("not an announce reply");
        };
        let found: Vec<String> = success
            .peers
            .iter()
            .map(|p| p.address.to_string())
            .collect();
        assert_eq!(found, due);
    }
}

#[test]
fn a_datagram_full_of_peers_is_taken_and_none_is_longer() {
    let peer = |number: u32| {
        let ip = IpAddr::from((0x0100_0000 + number).to_be_bytes());
        SocketAddr::new(ip, 6881)
    };
    let counts = UdpAnnounceCounts {
        interval_seconds: 60,
        leechers: u32::MAX,
        seeders: u32::MAX,
    };
    let mut datagram = Vec::new();
    encode_announce_reply(
        TRANSACTION,
        counts,
        (0..20_000).map(peer),
        AddressFamily::V4,
        &mut datagram,
    );
    assert_eq!(datagram.len(), 20 + 10_914 * 6);
    assert!(datagram.len() <= limits::UDP_DATAGRAM_BYTES_MAX);
    let Ok(UdpReply::Announce { success, .. }) = UdpReply::decode(&datagram, AddressFamily::V4)
    else {
        panic!("not an announce reply");
    };
    assert_eq!(success.peers.len(), limits::TRACKER_REPLY_PEERS_MAX);
    assert_eq!(success.peers_dropped, 914);
}

#[test]
fn peers_of_no_use_are_dropped_and_counted() {
    let head = b"\0\0\0\x01\x0b\xad\xca\xfe\0\0\x07\x08\0\0\0\0\0\0\0\0";
    let peers: &[&[u8]] = &[
        b"\x01\x02\x03\x04\x1a\xe1", // good
        b"\x01\x02\x03\x04\x1a\xe1", // the same
        b"\x01\x02\x03\x04\0\0",     // port 0
        b"\0\0\0\0\x1a\xe1",
        b"\xe0\0\0\x01\x1a\xe1", // multicast
        b"\xff\xff\xff\xff\x1a\xe1",
        b"\x01\x02\x03", // cut short
    ];
    let datagram = [&head[..], &peers.concat()].concat();
    let Ok(UdpReply::Announce { success, .. }) = UdpReply::decode(&datagram, AddressFamily::V4)
    else {
        panic!("not an announce reply");
    };
    assert_eq!((success.peers.len(), success.peers_dropped), (1, 6));
}

#[test]
fn every_truncation_is_an_error_or_says_less() {
    let announce = encoded(&request(b"/announce"));
    for length in 0..ANNOUNCE_BYTES {
        let error = UdpRequest::decode(&announce[..length]).unwrap_err();
        assert!(
            matches!(error, UdpError::Short { bytes, .. } if bytes == length),
            "{error}"
        );
    }
    for length in ANNOUNCE_BYTES..announce.len() {
        let Ok(UdpRequest::Announce { url_data, .. }) = UdpRequest::decode(&announce[..length])
        else {
            panic!("an announce with a cut option is refused");
        };
        assert!(url_data.is_empty());
    }
    let hashes = [InfoHashV1([7; 20]); 3];
    let scrape = encoded(&UdpRequest::Scrape {
        connection: CONNECTION,
        transaction: TRANSACTION,
        info_hashes: InfoHashes::new(&hashes),
    });
    for length in 0..scrape.len() {
        match UdpRequest::decode(&scrape[..length]) {
            Ok(UdpRequest::Scrape { info_hashes, .. }) => {
                assert_eq!(info_hashes.count(), (length - 16) / 20);
            }
            other => assert!(length < 36 && other.is_err(), "{length}: {other:?}"),
        }
    }
    let replies: [&[u8]; 3] = [
        b"\0\0\0\0\x0b\xad\xca\xfe\x01\x02\x03\x04\x05\x06\x07\x08",
        b"\0\0\0\x01\x0b\xad\xca\xfe\0\0\x07\x08\0\0\0\x04\0\0\0\x05",
        b"\0\0\0\x02\x0b\xad\xca\xfe",
    ];
    for reply in replies {
        assert!(UdpReply::decode(reply, AddressFamily::V6).is_ok());
        for length in 0..reply.len() {
            assert!(UdpReply::decode(&reply[..length], AddressFamily::V6).is_err());
        }
    }
}

#[test]
fn bytes_behind_what_is_known_are_ignored() {
    for datagram in [
        &b"\0\0\x04\x17\x27\x10\x19\x80\0\0\0\0\x0b\xad\xca\xfe"[..],
        &encoded(&request(b"")),
    ] {
        let longer = [datagram, b"\0\x02garbage"].concat();
        assert_eq!(UdpRequest::decode(&longer), UdpRequest::decode(datagram));
    }
    let connect = b"\0\0\0\0\x0b\xad\xca\xfe\x01\x02\x03\x04\x05\x06\x07\x08";
    let longer = [&connect[..], b"and more"].concat();
    let decode = |bytes: &[u8]| UdpReply::decode(bytes, AddressFamily::V4);
    assert_eq!(decode(&longer), decode(connect));
}

#[test]
fn requests_that_are_none_are_told_apart() {
    let wrong = b"\0\0\x04\x17\x27\x10\x19\x81\0\0\0\0\x0b\xad\xca\xfe";
    assert_eq!(UdpRequest::decode(wrong), Err(UdpError::Protocol));
    for action in [3u32, 4, u32::MAX] {
        let datagram = [&[0; 8][..], &action.to_be_bytes(), &[0; 100]].concat();
        assert_eq!(UdpRequest::decode(&datagram), Err(UdpError::Action(action)));
        // The head is readable, so that an error can be sent.
        let head = udp_request_head(&datagram);
        assert_eq!(head, Some((UdpConnectionId(0), TransactionId(0))));
    }
    let many = [&[0; 8][..], &SCRAPE.to_be_bytes(), &[0; 4], &[1; 75 * 20]].concat();
    let error = UdpError::TooManyHashes { count: 75 };
    assert_eq!(UdpRequest::decode(&many), Err(error));
    assert!(UdpRequest::decode(&many[..16 + 74 * 20]).is_ok());
    assert_eq!(udp_request_head(&many[..15]), None);
    let strange = b"\0\0\0\x04\x0b\xad\xca\xfe";
    assert_eq!(
        UdpReply::decode(strange, AddressFamily::V4),
        Err(UdpError::Action(4))
    );
    assert_eq!(udp_reply_transaction(strange), Some(TRANSACTION));
}

#[test]
fn url_data_is_read_as_bep_41_says() {
    assert_eq!(url_data(b""), b"");
    assert_eq!(url_data(b"\x02\x04/abc\0\x02\x01x"), b"/abc");
    assert_eq!(url_data(b"\x01\x01\x02\x02/a\x01\x02\x02bc"), b"/abc");
    assert_eq!(url_data(b"\x02\0"), b"");
    // An option that we do not know is skipped, one that is cut short ends them.
    assert_eq!(url_data(b"\x07\x03xyz\x02\x02/a"), b"/a");
    assert_eq!(url_data(b"\x02\x02/a\x02\xffb"), b"/a");
    assert_eq!(url_data(b"\x02"), b"");
    let long: Vec<u8> = (0..600u32).map(|number| number as u8).collect();
    let datagram = encoded(&request(&long));
    assert_eq!(datagram.len(), ANNOUNCE_BYTES + 600 + 3 * 2);
    assert_eq!(UdpRequest::decode(&datagram), Ok(request(&long)));
}

#[test]
fn odd_numbers_take_a_meaning() {
    let mut datagram = encoded(&request(b""));
    datagram[80..84].copy_from_slice(&77u32.to_be_bytes());
    datagram[92..96].copy_from_slice(&(-1i32).to_be_bytes());
    let Ok(UdpRequest::Announce { announce, .. }) = UdpRequest::decode(&datagram) else {
        panic!("not an announce");
    };
    assert_eq!(
        (announce.event, announce.peers_wanted),
        (AnnounceEvent::None, None)
    );
    datagram[92..96].copy_from_slice(&i32::MAX.to_be_bytes());
    let Ok(UdpRequest::Announce { announce, .. }) = UdpRequest::decode(&datagram) else {
        panic!("not an announce");
    };
    let most = limits::TRACKER_REPLY_PEERS_MAX as u32;
    assert_eq!(announce.peers_wanted, Some(most));
    for (seconds, due) in [(0u32, 60), (u32::MAX, 86_400)] {
        let head = [
            &ANNOUNCE.to_be_bytes()[..],
            &[0; 4],
            &seconds.to_be_bytes(),
            &[0; 8],
        ]
        .concat();
        let Ok(UdpReply::Announce { success, .. }) = UdpReply::decode(&head, AddressFamily::V4)
        else {
            panic!("not an announce reply");
        };
        assert_eq!(success.interval.seconds, due);
    }
}

#[test]
fn a_reason_is_made_printable_and_cut() {
    let text = [b"\x1b[31m\r\n\xff".to_vec(), vec![b'x'; 60_000]].concat();
    let datagram = [&ERROR.to_be_bytes()[..], &[0; 4], &text].concat();
    let Ok(UdpReply::Error { failure, .. }) = UdpReply::decode(&datagram, AddressFamily::V6) else {
        panic!("not an error");
    };
    assert_eq!(
        failure.reason.chars().count(),
        limits::TRACKER_TEXT_CHARS_MAX
    );
    assert!(!failure.reason.chars().any(char::is_control));
}

fn announces() -> impl Strategy<Value = UdpAnnounce> {
    let ids = any::<([u8; 20], [u8; 20], u16)>();
    let numbers = any::<(u64, u64, u64, u32, u32)>();
    let wanted = option::of(0..=limits::TRACKER_REPLY_PEERS_MAX as u32);
    (ids, numbers, 0u32..4, wanted).prop_map(|(ids, numbers, number, peers_wanted)| UdpAnnounce {
        info_hash: InfoHashV1(ids.0),
        peer_id: PeerId(ids.1),
        downloaded_bytes: numbers.0,
        left_bytes: numbers.1,
        uploaded_bytes: numbers.2,
        event: event(number),
        ip: numbers.3,
        key: numbers.4,
        peers_wanted,
        port: ids.2,
    })
}

proptest! {
    #[test]
    fn an_announce_survives(
        announce in announces(),
        url in vec(any::<u8>(), 0..1000),
        ids: (u64, u32),
    ) {
        let request = UdpRequest::Announce {
            connection: UdpConnectionId(ids.0),
            transaction: TransactionId(ids.1),
            announce,
            url_data: UrlData::new(&url),
        };
        let datagram = encoded(&request);
        prop_assert_eq!(UdpRequest::decode(&datagram), Ok(request));
        let head = udp_request_head(&datagram);
        prop_assert_eq!(head, Some((UdpConnectionId(ids.0), TransactionId(ids.1))));
    }

    #[test]
    fn a_scrape_survives(
        hashes in vec(any::<[u8; 20]>(), 1..=74),
        tail in vec(any::<u8>(), 0..20),
    ) {
        let hashes: Vec<InfoHashV1> = hashes.into_iter().map(InfoHashV1).collect();
        let request = UdpRequest::Scrape {
            connection: CONNECTION,
            transaction: TRANSACTION,
            info_hashes: InfoHashes::new(&hashes),
        };
        let mut datagram = encoded(&request);
        datagram.extend_from_slice(&tail);
        prop_assert_eq!(UdpRequest::decode(&datagram), Ok(request));
    }

    #[test]
    fn an_announce_reply_survives(
        v4 in btree_set(any::<([u8; 4], u16)>(), 0..100),
        v6 in btree_set(any::<([u8; 14], u16)>(), 0..100),
        counts: (u32, u32),
        interval in 60u32..=86_400,
        transaction: u32,
    ) {
        // 1 to 126 at the start of an IPv4 address, and 2020::/16, are unicast.
        let v4 = v4.into_iter().map(|(ip, port)| {
            (IpAddr::from([ip[0] % 126 + 1, ip[1], ip[2], ip[3]]), port)
        });
        let v6 = v6.into_iter().map(|(ip, port)| {
            let mut octets = [0x20; 16];
            octets[2..].copy_from_slice(&ip);
            (IpAddr::from(octets), port)
        });
        for (family, peers) in [
            (AddressFamily::V4, v4.collect::<std::collections::BTreeSet<_>>()),
            (AddressFamily::V6, v6.collect()),
        ] {
            let peers = peers.into_iter().filter(|(_, port)| *port != 0);
            let peers = peers.map(|(ip, port)| TrackerPeer {
                address: SocketAddr::new(ip, port),
                peer_id: None,
            });
            let reply = UdpReply::Announce {
                transaction: TransactionId(transaction),
                success: AnnounceSuccess {
                    interval: Interval::from_seconds(interval.into()),
                    peers: peers.collect(),
                    complete: Some(counts.0),
                    incomplete: Some(counts.1),
                    ..AnnounceSuccess::default()
                },
            };
            let datagram = encoded_reply(&reply, family);
            prop_assert_eq!(reply.transaction(), TransactionId(transaction));
            prop_assert_eq!(UdpReply::decode(&datagram, family), Ok(reply));
        }
    }

    #[test]
    fn a_scrape_reply_survives(files in vec(any::<(u32, u32, u32)>(), 0..=74)) {
        let files = files.into_iter().map(|(complete, downloaded, incomplete)| ScrapeFile {
            complete,
            downloaded,
            incomplete,
        });
        let reply = UdpReply::Scrape { transaction: TRANSACTION, files: files.collect() };
        let datagram = encoded_reply(&reply, AddressFamily::V6);
        prop_assert_eq!(UdpReply::decode(&datagram, AddressFamily::V6), Ok(reply));
    }

    #[test]
    fn any_datagram_is_read_or_refused(
        action in 0u32..5,
        body in vec(any::<u8>(), 0..400),
        head in vec(any::<u8>(), 0..20),
    ) {
        let _ = UdpRequest::decode(&head);
        let _ = UdpReply::decode(&head, AddressFamily::V4);
        let action = action.to_be_bytes();
        let request = [&UDP_PROTOCOL.to_be_bytes()[..], &action, &[0; 4], &body].concat();
        if let Ok(UdpRequest::Announce { url_data, .. }) = UdpRequest::decode(&request) {
            prop_assert!(url_data.to_vec().len() <= body.len());
        }
        for family in [AddressFamily::V4, AddressFamily::V6] {
            let reply = [&action[..], &body].concat();
            if let Ok(UdpReply::Announce { success, .. }) = UdpReply::decode(&reply, family) {
                prop_assert!(success.peers.iter().all(|peer| peer.address.port() != 0));
            }
        }
    }
}
