//! Tests of the DHT's messages: the examples of BEP 5, round trips, every truncation, hostile
//! datagrams.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::bencode::ErrorKind;
use crate::limits;

const ID: &[u8; 20] = b"abcdefghij0123456789";
const OTHER: &[u8; 20] = b"mnopqrstuvwxyz123456";

fn decode(datagram: &[u8]) -> Message {
    Message::decode(datagram).unwrap()
}

fn message(body: Body) -> Message {
    Message {
        transaction: TransactionId::new(b"aa").unwrap(),
        body,
        seen: None,
    }
}

fn query(query: Query) -> Message {
    message(Body::Query {
        id: NodeId(*ID),
        query,
        read_only: false,
    })
}

/// The messages that BEP 5 shows, each with what it means.
#[test]
fn the_examples_of_bep_5_are_read_and_written() {
    let info_hash = InfoHashV1(*OTHER);
    let token = Token::new(b"aoeusnth").unwrap();
    let want = Want::default();
    let peers = vec!["97.120.106.101:11893".parse().unwrap()];
    let examples: [(&[u8], Message); 6] = [
        (
            b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe",
            query(Query::Ping),
        ),
        (
            b"d1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:re",
            message(Body::Reply(Reply::of(NodeId(*OTHER)))),
        ),
        (
            b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q9:find_node\
            1:t2:aa1:y1:qe",
            query(Query::FindNode {
                target: NodeId(*OTHER),
                want,
            }),
        ),
        (
            b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz123456e1:q9:get_pe\
            ers1:t2:aa1:y1:qe",
            query(Query::GetPeers { info_hash, want }),
        ),
        (
            b"d1:rd2:id20:abcdefghij01234567895:token8:aoeusnth6:valuesl6:axje.uee1:t2:aa1:y1:re",
            message(Body::Reply(Reply {
                peers,
                token: Some(token),
                ..Reply::of(NodeId(*ID))
            })),
        ),
        (
            b"d1:ad2:id20:abcdefghij012345678912:implied_porti0e9:info_hash20:mnopqrstuvwxyz\
            1234564:porti6881e5:token8:aoeusnthe1:q13:announce_peer1:t2:aa1:y1:qe",
            query(Query::AnnouncePeer {
                info_hash,
                port: Some(6881),
                token,
            }),
        ),
    ];
    for (datagram, expected) in examples {
        assert_eq!(decode(datagram), expected, "{}", datagram.escape_ascii());
        assert_eq!(
            expected.encode().escape_ascii().to_string(),
            datagram.escape_ascii().to_string()
        );
    }
    let error = decode(b"d1:eli201e23:A Generic Error Ocurrede1:t2:aa1:y1:ee");
    assert_eq!(error.body, Body::Error(201));
}

#[test]
fn nodes_and_peers_of_both_families_are_read() {
    let contact = |address: &str| Contact {
        id: NodeId(*OTHER),
        address: address.parse().unwrap(),
    };
    let reply = message(Body::Reply(Reply {
        nodes: vec![contact("1.2.3.4:5"), contact("[2600::1]:6")],
        peers: vec!["9.8.7.6:5".parse().unwrap(), "[2600::2]:7".parse().unwrap()],
        token: None,
        ..Reply::of(NodeId(*ID))
    }));
    let datagram = reply.encode();
    assert!(datagram.windows(9).any(|bytes| bytes == b"5:nodes26"));
    assert!(datagram.windows(10).any(|bytes| bytes == b"6:nodes638"));
    assert_eq!(decode(&datagram), reply);
}

/// Of nodes and peers whatever is whole and has a port is of use.
#[test]
fn what_is_cut_or_has_no_port_is_left_out() {
    let one = [&ID[..], &[1, 2, 3, 4, 0, 5]].concat();
    let no_port = [&ID[..], &[1, 2, 3, 4, 0, 0]].concat();
    let compact = [&one[..], &no_port, &one, &one[..25]].concat();
    assert_eq!(compact_nodes(&compact, false).len(), 2);
    assert_eq!(compact_nodes(&one, true), []);
    let many = one.repeat(limits::DHT_REPLY_NODES_MAX + 5);
    assert_eq!(
        compact_nodes(&many, false).len(),
        limits::DHT_REPLY_NODES_MAX
    );
    let odd =
        b"d1:rd2:id20:abcdefghij01234567896:valuesl6:axje.u5:axje.i7e6:axje\0\0ee1:t1:a1:y1:re";
    let Body::Reply(reply) = decode(odd).body else {
        panic!("a reply")
    };
    assert_eq!(reply.peers.len(), 1);
}

#[test]
fn the_rest_of_the_extensions_is_read() {
    let datagram = b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz1234564:wantl2\
    :n42:n62:n9ee1:q9:find_node2:roi1e1:t2:aa1:v4:SR011:y1:qe";
    let Body::Query {
        query, read_only, ..
    } = decode(datagram).body
    else {
        panic!("a query")
    };
    assert!(read_only);
    let want = Want { v4: true, v6: true };
    let target = NodeId(*OTHER);
    assert_eq!(query, Query::FindNode { target, want });
    for (ip, expected) in [
        (&b"2:ip6:\x01\x02\x03\x04\x00\x05"[..], Some("1.2.3.4:5")),
        (b"2:ip4:\x01\x02\x03\x04", Some("1.2.3.4:0")),
        (b"2:ip3:\x01\x02\x03", None),
        (
            b"2:ip18:\x26\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x09",
            Some("[2600::1]:9"),
        ),
    ] {
        let datagram = [b"d", ip, b"1:rd2:id20:abcdefghij0123456789e1:t2:aa1:y1:re"].concat();
        let expected = expected.map(|text| text.parse().unwrap());
        assert_eq!(decode(&datagram).seen, expected);
    }
    // The port of the datagram, whatever the other says (BEP 5).
    let implied = b"d1:ad2:id20:abcdefghij012345678912:implied_porti1e9:info_hash20:mnopqrst\
    uvwxyz1234564:porti0e5:token1:xe1:q13:announce_peer1:t2:aa1:y1:qe";
    let Body::Query { query, .. } = decode(implied).body else {
        panic!("a query")
    };
    assert!(matches!(query, Query::AnnouncePeer { port: None, .. }));
}

#[test]
fn an_unknown_method_may_have_a_target() {
    for (arguments, expected) in [
        ("6:target20:mnopqrstuvwxyz123456", Some(NodeId(*OTHER))),
        ("9:info_hash20:mnopqrstuvwxyz123456", Some(NodeId(*OTHER))),
        ("6:target2:xx", None),
        ("", None),
    ] {
        let datagram =
            format!("d1:ad2:id20:abcdefghij0123456789{arguments}e1:q3:get1:t2:aa1:y1:qe");
        let Body::Query { query, .. } = decode(datagram.as_bytes()).body else {
            panic!("a query")
        };
        let want = Want::default();
        let target = expected;
        assert_eq!(query, Query::Unknown { target, want });
    }
}

#[test]
fn what_is_no_message_is_refused_with_its_reason() {
    let field = DecodeError::Field;
    let cases: [(&[u8], DecodeError); 12] = [
        (b"d1:t2:aae", field("y")),
        (b"le", field("t")),
        (b"d1:t2:aa1:y1:xe", field("y")),
        (
            b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:y1:qe",
            field("t"),
        ),
        (
            b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t17:aaaaaaaaaaaaaaaaa1:y1:qe",
            field("t"),
        ),
        (
            b"d1:ad2:id19:abcdefghij012345678e1:q4:ping1:t2:aa1:y1:qe",
            field("id"),
        ),
        (b"d1:q4:ping1:t2:aa1:y1:qe", field("a")),
        (
            b"d1:ad2:id20:abcdefghij0123456789e1:t2:aa1:y1:qe",
            field("q"),
        ),
        (
            b"d1:ad2:id20:abcdefghij0123456789e1:q9:find_node1:t2:aa1:y1:qe",
            field("target"),
        ),
        (b"d1:rd2:idi1ee1:t2:aa1:y1:re", field("id")),
        (
            b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe ",
            DecodeError::Trailing,
        ),
        (
            b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:t2:bb1:y1:qe",
            DecodeError::DuplicateKey,
        ),
    ];
    for (datagram, expected) in cases {
        let text = datagram.escape_ascii().to_string();
        assert_eq!(Message::decode(datagram), Err(expected), "{text}");
    }
    for port in ["i0e", "i65536e", "i-1e", "1:x"] {
        let datagram = format!(
            "d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz1234564:port{port}5\
            :token1:xe1:q13:announce_peer1:t2:aa1:y1:qe"
        );
        assert_eq!(Message::decode(datagram.as_bytes()), Err(field("port")));
    }
}

#[test]
fn a_message_is_bounded_before_it_is_read() {
    let kind = |datagram: &[u8]| match Message::decode(datagram) {
        Err(DecodeError::Bencode(error)) => error.kind,
        other => panic!("{other:?}"),
    };
    let long = [b"d1:t".as_slice(), &[b'1'; limits::DHT_DATAGRAM_BYTES_MAX]].concat();
    assert!(matches!(kind(&long), ErrorKind::TooManyBytes(_)));
    let deep = "l".repeat(limits::DHT_DEPTH_MAX + 1);
    assert!(matches!(kind(deep.as_bytes()), ErrorKind::TooDeep(_)));
    let many = format!("l{}e", "le".repeat(limits::DHT_TOKENS_MAX / 2));
    assert!(matches!(kind(many.as_bytes()), ErrorKind::TooManyTokens(_)));
}

fn ids() -> impl Strategy<Value = NodeId> {
    any::<[u8; 20]>().prop_map(NodeId)
}

fn addresses() -> impl Strategy<Value = SocketAddr> {
    let v4 = any::<[u8; 4]>().prop_map(|ip| IpAddr::V4(Ipv4Addr::from(ip)));
    let v6 = any::<[u8; 16]>().prop_map(|ip| IpAddr::V6(Ipv6Addr::from(ip)));
    (prop_oneof![v4, v6], 1..=u16::MAX).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

fn shorts<const MAX: usize>(longest: usize) -> impl Strategy<Value = Short<MAX>> {
    vec(any::<u8>(), 0..=longest).prop_map(|bytes| Short::new(&bytes).unwrap())
}

fn wants() -> impl Strategy<Value = Want> {
    any::<(bool, bool)>().prop_map(|(v4, v6)| Want { v4, v6 })
}

fn queries() -> impl Strategy<Value = Query> {
    let hashes = || any::<[u8; 20]>().prop_map(InfoHashV1);
    let announces = (
        hashes(),
        option::of(1..=u16::MAX),
        shorts(limits::DHT_TOKEN_BYTES_MAX),
    );
    prop_oneof![
        Just(Query::Ping),
        (ids(), wants()).prop_map(|(target, want)| Query::FindNode { target, want }),
        (hashes(), wants()).prop_map(|(info_hash, want)| Query::GetPeers { info_hash, want }),
        announces.prop_map(|(info_hash, port, token)| Query::AnnouncePeer {
            info_hash,
            port,
            token
        }),
        (option::of(ids()), wants()).prop_map(|(target, want)| Query::Unknown { target, want }),
    ]
}

fn replies() -> impl Strategy<Value = Reply> {
    let contacts = (ids(), addresses()).prop_map(|(id, address)| Contact { id, address });
    (
        ids(),
        vec(contacts, 0..=8),
        vec(addresses(), 0..=20),
        option::of(shorts(limits::DHT_TOKEN_BYTES_MAX)),
    )
        .prop_map(|(id, mut nodes, peers, token)| {
            // They are written family by family.
            nodes.sort_by_key(|contact| contact.address.is_ipv6());
            Reply {
                id,
                nodes,
                peers,
                token,
            }
        })
}

fn messages() -> impl Strategy<Value = Message> {
    let bodies = prop_oneof![
        (ids(), queries(), any::<bool>()).prop_map(|(id, query, read_only)| Body::Query {
            id,
            query,
            read_only
        }),
        replies().prop_map(Body::Reply),
        any::<i64>().prop_map(Body::Error),
    ];
    (
        shorts(limits::DHT_TRANSACTION_BYTES_MAX),
        bodies,
        option::of(addresses()),
    )
        .prop_map(|(transaction, body, seen)| Message {
            transaction,
            body,
            seen,
        })
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(message in messages()) {
        let datagram = message.encode();
        prop_assert!(datagram.len() <= limits::DHT_DATAGRAM_BYTES_MAX);
        prop_assert_eq!(Message::decode(&datagram), Ok(message));
    }

    #[test]
    fn the_sizes_that_replies_are_filled_by_are_enough(reply in replies(), seen in addresses()) {
        let mut counted = REPLY_BYTES_BASE + 2;
        counted += reply.token.map_or(0, |token| token.as_bytes().len());
        for contact in &reply.nodes {
            counted += if contact.address.is_ipv4() { CONTACT_BYTES_V4 } else { CONTACT_BYTES_V6 };
        }
        for peer in &reply.peers {
            counted += if peer.is_ipv4() { PEER_BYTES_V4 } else { PEER_BYTES_V6 };
        }
        let message = Message { seen: Some(seen), ..message(Body::Reply(reply)) };
        prop_assert!(message.encode().len() <= counted, "{} {counted}", message.encode().len());
    }

    #[test]
    fn a_truncated_message_is_refused(message in messages(), cut in any::<prop::sample::Index>()) {
        let datagram = message.encode();
        let cut = cut.index(datagram.len());
        prop_assert!(Message::decode(&datagram[..cut]).is_err());
    }

    #[test]
    fn a_damaged_message_does_no_harm(
        message in messages(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut datagram = message.encode();
        let at = at.index(datagram.len());
        datagram[at] = byte;
        if let Ok(read) = Message::decode(&datagram) {
            // What was taken for a message is one.
            prop_assert_eq!(Message::decode(&read.encode()).is_ok(), true);
        }
    }

    #[test]
    fn any_bytes_do_no_harm(datagram in vec(any::<u8>(), 0..2_000)) {
        let _ = Message::decode(&datagram);
    }
}
