//! The DHT against those who mean harm: floods, amplification, forged answers, stolen
//! tokens, many ids of one address, and storage.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use seedring_tests::bencode::{Value, decode, dictionary};
use seedring_tests::content::KIB;
use seedring_tests::dht::{Node, SILENCE, bytes, query};
use seedring_tests::dht_network::{V4, known, nodes_metric, on, seed, with_node};
use seedring_tests::lan;
use seedring_tests::need;
use seedring_tests::server::{SHORT, Server};
use seedring_tests::single::Single;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// A server of ours without friends.
fn lonely() -> (Single, Server, SocketAddr) {
    let content = Single::new(32 * KIB, 1, &[]);
    let server = seed(&content, V4, None);
    let node = server.ready.dht[0];
    (content, server, node)
}

fn dropped(server: &Server, reason: &str) -> f64 {
    server.metrics()[&format!("seedring_dht_datagrams_dropped_total{{reason=\"{reason}\"}}")]
}

/// E2: who sends 1,000 datagrams a second is muted, and nobody else.
#[test]
fn e2_a_flood_is_muted() {
    let (_content, mut server, ours) = lonely();
    let (flood, quiet) = (Node::at(V4, [1; 20]), Node::at(V4, [2; 20]));
    let ping = query(flood.id, "ping", &[], true);
    let (mut sent, mut answered) = (0, 0);
    let started = Instant::now();
    while sent < 3_000 {
        // Never slower than a thousand a second, and never so fast that the kernel drops them.
        let due = (started.elapsed().as_millis() as usize * 2).min(3_000);
        while sent < due {
            flood.send(ours, &ping);
            sent += 1;
        }
        while flood.receive(Duration::from_millis(1)).is_some() {
            answered += 1;
        }
    }
    while flood.receive(SILENCE).is_some() {
        answered += 1;
    }
    assert!((1..=100).contains(&answered), "{answered}");
    server.wait_for_metric(
        "seedring_dht_datagrams_dropped_total{reason=\"muted\"}",
        2_000.0,
    );
    quiet.ask(ours, "ping", &[]);
}

/// E3: three bytes for one at most, whatever is asked, while it is not proven who asks.
#[test]
fn e3_nothing_is_amplified() {
    let (_content, mut server, ours) = lonely();
    let friends: Vec<Node> = (0..40_u8)
        .map(|number| Node::at(V4, [number.wrapping_mul(53); 20]))
        .collect();
    for friend in &friends {
        friend.introduce(ours);
    }
    server.wait_for_metric("seedring_dht_nodes{family=\"ipv4\"}", 8.0);
    let torrent = ("info_hash", bytes(&[7; 20]));
    for (port, friend) in (1_000..).zip(&friends) {
        let (answer, ..) = friend.ask(ours, "get_peers", std::slice::from_ref(&torrent));
        let token = answer.get("r").unwrap().get("token").unwrap().clone();
        let port = ("port", Value::Integer(port));
        let arguments = [torrent.clone(), port, ("token", token)];
        friend.ask(ours, "announce_peer", &arguments);
    }
    let want = ("want", Value::List(vec![bytes(b"n4"), bytes(b"n6")]));
    let target = ("target", bytes(&[7; 20]));
    let queries = [
        ("ping", vec![]),
        ("find_node", vec![target.clone()]),
        ("find_node", vec![target.clone(), want.clone()]),
        ("get_peers", vec![torrent.clone()]),
        ("get_peers", vec![torrent.clone(), want]),
        ("vote", vec![]),
        ("get", vec![target]),
    ];
    let mut most = 0.0_f64;
    for (number, (method, arguments)) in queries.into_iter().enumerate() {
        for read_only in [true, false] {
            let stranger = Node::at(V4, [100 + number as u8; 20]);
            let asked = query(stranger.id, method, &arguments, read_only);
            stranger.send(ours, &asked);
            let mut got = 0;
            // With whatever else comes, such as a ping.
            while let Some((datagram, _)) = stranger.receive(SILENCE) {
                got += datagram.len();
            }
            assert!(got > 0, "{method} is not answered");
            let ratio = got as f64 / asked.len() as f64;
            assert!(ratio <= 3.0, "{method}: {got} bytes for {}", asked.len());
            most = most.max(ratio);
        }
    }
    println!("at most {most:.2} bytes for one");
    // Who has shown that it is there gets more: this is a full answer, not a poor one.
    let (answer, asked, got) = friends[0].ask(ours, "get_peers", &[torrent]);
    assert!(got > 3 * asked, "{got} for {asked}");
    assert!(answer.get("r").unwrap().get("values").unwrap().list().len() > 20);
}

/// E3: all answers together keep to their rate, however many ask, each of them politely.
#[test]
fn e3_all_answers_together_are_bounded() {
    let content = Single::new(32 * KIB, 1, &[]);
    let seed = with_node(&content, None).setting("dht", "reply_bytes_per_second", "2KiB");
    let started = Instant::now();
    let mut server = on(V4, seed).start();
    let ours = server.ready.dht[0];
    let ping = query([1; 20], "ping", &[], true);
    let askers: Vec<Node> = (0..100).map(|_| Node::at(V4, [1; 20])).collect();
    for _ in 0..5 {
        askers.iter().for_each(|asker| asker.send(ours, &ping));
        std::thread::sleep(Duration::from_millis(50));
    }
    let refused = "seedring_dht_datagrams_dropped_total{reason=\"rate\"}";
    server.wait_for_metric(refused, 100.0);
    let sent = server.metrics()["seedring_dht_bytes_total{direction=\"out\"}"];
    // A second's worth may go at once.
    let allowed = 2_048.0 * (started.elapsed().as_secs_f64() + 1.0);
    assert!(sent > 0.0 && sent <= allowed, "{sent} of {allowed}");
}

/// Answers are believed of those who were asked only, however right they are otherwise: who sees
/// our queries and answers them from elsewhere sends us nowhere.
#[test]
fn forged_answers_are_not_believed() {
    let asked = Node::at(V4, [9; 20]);
    let (forger, far) = (Node::at(V4, [9; 20]), Node::at(V4, [0x55; 20]));
    let (victim, friend) = (Node::at(V4, [0x11; 20]), Node::at(V4, [0x22; 20]));
    let content = Single::new(32 * KIB, 1, &[]);
    let mut server = seed(&content, V4, Some(asked.address()));
    let ours = server.ready.dht[0];
    let (datagram, _) = asked.receive(SHORT).expect("it asks whom it knows");
    let (question, _) = decode(&datagram);
    let transaction = question.get("t").unwrap().bytes().to_vec();
    let right = answer_naming(&asked, &transaction, &victim);
    forger.send(ours, &right);
    far.send(ours, &answer_naming(&far, &transaction, &victim));
    let mut wrong = transaction.clone();
    wrong[0] ^= 1;
    asked.send(ours, &answer_naming(&asked, &wrong, &victim));
    let unsolicited = "seedring_dht_datagrams_dropped_total{reason=\"unsolicited\"}";
    server.wait_for_metric(unsolicited, 3.0);
    // The right one from the right place is.
    asked.send(ours, &answer_naming(&asked, &transaction, &friend));
    assert!(friend.receive(SHORT).is_some(), "it asks whom it was told");
    // Had it believed the others, it would have asked here before, and long before this is
    // answered.
    friend.ask(ours, "ping", &[]);
    assert!(victim.receive(SILENCE).is_none(), "nobody asks here");
}

/// An answer that names one other node.
fn answer_naming(by: &Node, transaction: &[u8], named: &Node) -> Vec<u8> {
    let SocketAddr::V4(at) = named.address() else {
        panic!("a node at an IPv4 address");
    };
    let port = at.port().to_be_bytes();
    let compact = [&named.id[..], &at.ip().octets(), &port].concat();
    let reply = dictionary([("id", bytes(&by.id)), ("nodes", bytes(&compact))]);
    let answer = dictionary([("r", reply), ("t", bytes(transaction)), ("y", bytes(b"r"))]);
    answer.encode()
}

/// E4: a token is for the address that it was sent to.
#[test]
fn e4_tokens_are_bound_to_the_address() {
    let (_content, server, ours) = lonely();
    let other: IpAddr = "127.0.0.2".parse().unwrap();
    let (one, other) = (Node::at(V4, [1; 20]), Node::at(other, [2; 20]));
    let torrent = ("info_hash", bytes(&[7; 20]));
    let (answer, ..) = one.ask(ours, "get_peers", std::slice::from_ref(&torrent));
    let token = answer.get("r").unwrap().get("token").unwrap().clone();
    let announce = [
        torrent.clone(),
        ("port", Value::Integer(7)),
        ("token", token.clone()),
    ];
    let (refused, ..) = other.ask(ours, "announce_peer", &announce);
    assert_eq!(refused.get("e").unwrap().list()[0].integer(), 203);
    let wrong = [
        torrent,
        ("port", Value::Integer(7)),
        ("token", bytes(b"12345678")),
    ];
    let (refused, ..) = one.ask(ours, "announce_peer", &wrong);
    assert_eq!(refused.get("e").unwrap().list()[0].integer(), 203);
    let (taken, ..) = one.ask(ours, "announce_peer", &announce);
    assert!(taken.get("r").is_some());
    // What was refused is not stored.
    let (answer, ..) = other.ask(ours, "get_peers", &announce[..1]);
    assert_eq!(
        answer.get("r").unwrap().get("values").unwrap().list().len(),
        1
    );
    drop(server);
}

/// E5: all ids of one address get one place. In a network of its own, where global addresses are
/// ours to use.
#[test]
fn e5_the_ids_of_one_address_get_one_place() {
    let test = "e5_the_ids_of_one_address_get_one_place";
    if !need!(test, lan::inside(test)) {
        return;
    }
    for arguments in [
        "link set lo up",
        "addr add 9.9.9.1/24 dev lo",
        "addr add 9.9.9.2/24 dev lo",
        "addr add 9.9.8.2/24 dev lo",
    ] {
        lan::ip_here(arguments);
    }
    let content = Single::new(32 * KIB, 1, &[]);
    let mut server = with_node(&content, None)
        .setting("peers", "bind_v4", "9.9.9.1")
        .setting("peers", "bind_v6", "")
        .start();
    let ours = server.ready.dht[0];
    assert_eq!(ours.ip(), IpAddr::from([9, 9, 9, 1]));
    let mut asked_back = 0;
    for number in 0..40_u8 {
        let sybil = Node::at([9, 9, 9, 2].into(), [number.wrapping_mul(53); 20]);
        asked_back += u32::from(sybil.introduce(ours));
    }
    assert_eq!(asked_back, 1, "who has a place is not asked again");
    let other = Node::at([9, 9, 8, 2].into(), [0x77; 20]);
    assert!(other.introduce(ours), "another address is another node");
    server.wait_for_metric(nodes_metric(V4), 2.0);
    assert_eq!(known(&server, V4), 2.0);
}

/// E5: whoever comes when the table is full finds no place, and is not asked whether he is there.
#[test]
fn e5_a_full_table_takes_no_more() {
    let (_content, mut server, ours) = lonely();
    let (answer, ..) = Node::at(V4, [1; 20]).ask(ours, "ping", &[]);
    let our_id = answer.get("r").unwrap().get("id").unwrap().bytes().to_vec();
    let mut asked_back = 0;
    for number in 0..24_u8 {
        // In the other half of all ids than ours is, where there are eight places.
        let node = Node::at(V4, [(!our_id[0] & 0x80) | number; 20]);
        asked_back += u32::from(node.introduce(ours));
    }
    // The ninth shows that there is no more room in a table of one bucket.
    assert!((8..=9).contains(&asked_back), "{asked_back}");
    server.wait_for_metric(nodes_metric(V4), 8.0);
    assert_eq!(known(&server, V4), 8.0);
}

/// E6: what is stored is bounded.
#[test]
fn e6_what_is_stored_is_bounded() {
    let content = Single::new(32 * KIB, 1, &[]);
    let seed = with_node(&content, None).setting("dht", "stored_peers_max", "100");
    let mut server = on(V4, seed).start();
    let ours = server.ready.dht[0];
    for number in 0..150_u8 {
        let node = Node::at(V4, [number; 20]);
        let torrent = ("info_hash", bytes(&[number; 20]));
        let (answer, ..) = node.ask(ours, "get_peers", std::slice::from_ref(&torrent));
        let token = answer.get("r").unwrap().get("token").unwrap().clone();
        let arguments = [torrent, ("port", Value::Integer(7)), ("token", token)];
        node.ask(ours, "announce_peer", &arguments);
    }
    // It is published with the rest: by then all of them have been taken or refused.
    server.wait_for_metric("seedring_dht_queries_answered_total", 300.0);
    let stored = server.metrics()["seedring_dht_stored_peers"];
    assert!((50.0..=100.0).contains(&stored), "{stored}");
}

/// What is no message, and what nobody asked for, is dropped and counted; the node goes on.
#[test]
fn garbage_is_dropped() {
    let (_content, mut server, ours) = lonely();
    let stranger = Node::at(V4, [1; 20]);
    for garbage in [&b""[..], b"x", b"d1:y1:qe", &[b'l'; 1_400], &[0xff; 4_000]] {
        stranger.send(ours, garbage);
    }
    stranger.send(ours, b"d1:rd2:id20:aaaaaaaaaaaaaaaaaaaae1:t4:abcd1:y1:re");
    stranger.ask(ours, "ping", &[]);
    server.wait_for_metric(
        "seedring_dht_datagrams_dropped_total{reason=\"unsolicited\"}",
        1.0,
    );
    assert_eq!(dropped(&server, "malformed"), 5.0);
}
