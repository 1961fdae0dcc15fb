//! One node and its strangers, datagram by datagram.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use proto::dht::{Body, Message, Query, Reply, Token, TransactionId, Want, code};

use super::*;
use crate::random::Random;

mod searching;

const KEY: [u8; 16] = [7; 16];
const TORRENT: InfoHashV1 = InfoHashV1([0x33; 20]);

fn at(seconds: u64) -> Time {
    Time(0) + Duration::from_secs(seconds)
}

fn config() -> NodeConfig {
    NodeConfig::default()
}

fn node_with(config: NodeConfig) -> Node {
    Node::new(config, Family::V4, KEY, None, None, at(0))
}

fn node() -> Node {
    node_with(config())
}

/// A host at an address, and in a neighbourhood, of its own.
fn host(number: u32) -> SocketAddr {
    (Ipv4Addr::from(0x0900_0001 + (number << 8)), 6881).into()
}

fn some_id(random: &mut Random) -> NodeId {
    NodeId(std::array::from_fn(|_| random.next_u64() as u8))
}

fn drain(node: &mut Node) -> (Vec<(SocketAddr, Message)>, Vec<Event>) {
    let (mut sent, mut events) = (Vec::new(), Vec::new());
    while let Some(output) = node.poll() {
        match output {
            Output::Send { to, datagram } => {
                sent.push((to, Message::decode(&datagram).expect("ours are right")));
            }
            Output::Event(event) => events.push(event),
        }
    }
    (sent, events)
}

fn bytes_sent(node: &mut Node) -> usize {
    let mut bytes = 0;
    while let Some(output) = node.poll() {
        if let Output::Send { datagram, .. } = output {
            bytes += datagram.len();
        }
    }
    bytes
}

fn query(query: Query) -> Message {
    Message {
        transaction: TransactionId::new(b"aa").unwrap(),
        body: Body::Query {
            id: NodeId([0x99; 20]),
            query,
            read_only: true,
        },
        seen: None,
    }
}

fn get_peers(info_hash: InfoHashV1) -> Query {
    let want = Want::default();
    Query::GetPeers { info_hash, want }
}

fn announce(info_hash: InfoHashV1, port: u16, token: Token) -> Query {
    Query::AnnouncePeer {
        info_hash,
        port: Some(port),
        token,
    }
}

fn reply_to(transaction: TransactionId, reply: Reply) -> Vec<u8> {
    let message = Message {
        transaction,
        body: Body::Reply(reply),
        seen: None,
    };
    message.encode()
}

/// Sends a query of a read-only stranger, who is not asked back, and answers what was answered.
fn ask(node: &mut Node, from: SocketAddr, asked: Query, now: Time) -> Option<Body> {
    node.handle(from, &query(asked).encode(), None, now);
    let (sent, _) = drain(node);
    let answer = sent.into_iter().find(|(to, _)| *to == from)?.1;
    assert_eq!(answer.transaction.as_bytes(), b"aa");
    assert_eq!(answer.seen, Some(from));
    Some(answer.body)
}

fn reply_of(body: Option<Body>) -> Reply {
    match body {
        Some(Body::Reply(reply)) => reply,
        other => panic!("no reply: {other:?}"),
    }
}

/// Lets the node ask a host, which answers by this id.
fn befriend(node: &mut Node, id: NodeId, address: SocketAddr, now: Time) {
    node.suggest(address, now);
    let (sent, _) = drain(node);
    for (to, message) in sent.into_iter().filter(|(to, _)| *to == address) {
        node.handle(to, &reply_to(message.transaction, Reply::of(id)), None, now);
    }
    let _ = drain(node);
}

/// A node that knows many others.
fn node_with_friends(count: u32) -> Node {
    let mut node = node();
    let mut random = Random::new(1);
    for number in 1000..1000 + count {
        let id = some_id(&mut random);
        befriend(
            &mut node,
            id,
            host(number),
            at(1 + u64::from(number - 1000) / 100),
        );
    }
    node
}

#[test]
fn every_query_is_answered() {
    let mut node = node_with_friends(100);
    let now = at(100);
    let reply = reply_of(ask(&mut node, host(1), Query::Ping, now));
    assert_eq!(reply, Reply::of(node.id()));
    let target = NodeId(TORRENT.0);
    let want = Want::default();
    let reply = reply_of(ask(
        &mut node,
        host(1),
        Query::FindNode { target, want },
        now,
    ));
    let nearest = node.table().nearest(&target, reply.nodes.len(), |_| true);
    assert!(reply.nodes.len() >= 6, "{}", reply.nodes.len());
    assert_eq!(reply.nodes, nearest);
    let reply = reply_of(ask(&mut node, host(1), get_peers(TORRENT), now));
    assert!(reply.nodes.len() >= 6 && reply.peers.is_empty());
    let token = reply.token.unwrap();
    let taken = reply_of(ask(&mut node, host(1), announce(TORRENT, 7, token), now));
    assert_eq!(taken, Reply::of(node.id()));
    let reply = reply_of(ask(&mut node, host(2), get_peers(TORRENT), now));
    assert_eq!(reply.peers, [SocketAddr::new(host(1).ip(), 7)]);
    let unknown = Query::Unknown { target: None, want };
    assert_eq!(
        ask(&mut node, host(1), unknown, now),
        Some(Body::Error(code::METHOD_UNKNOWN))
    );
    let target = Some(target);
    let reply = reply_of(ask(
        &mut node,
        host(1),
        Query::Unknown { target, want },
        now,
    ));
    assert!(!reply.nodes.is_empty());
}

/// Nodes of the other family are named to whoever wants them (BEP 32).
#[test]
fn nodes_of_both_families_are_named_to_who_wants_them() {
    let mut v4 = node_with_friends(20);
    let mut v6 = Node::new(config(), Family::V6, KEY, None, None, at(0));
    let friend: SocketAddr = "[2600:1::1]:1".parse().unwrap();
    befriend(&mut v6, NodeId([5; 20]), friend, at(1));
    let ask = |v4: &mut Node, want| {
        let asked = query(Query::FindNode {
            target: NodeId(TORRENT.0),
            want,
        });
        v4.handle(host(1), &asked.encode(), Some(v6.table()), at(2));
        let (mut sent, _) = drain(v4);
        let reply = reply_of(sent.pop().map(|(_, message)| message.body));
        let families = reply.nodes.iter().map(|node| node.address.is_ipv4());
        let v4 = families.filter(|is_v4| *is_v4).count();
        (v4 > 0, reply.nodes.len() > v4)
    };
    assert_eq!(
        ask(
            &mut v4,
            Want {
                v4: false,
                v6: true
            }
        ),
        (false, true)
    );
    assert_eq!(ask(&mut v4, Want { v4: true, v6: true }), (true, true));
    assert_eq!(ask(&mut v4, Want::default()), (true, false));
}

/// E2: a source that sends 1,000 datagrams a second is muted; the rest of the world is not.
#[test]
fn a_flood_is_muted() {
    let mut node = node();
    let (flood, quiet) = (host(1), host(2));
    let ping = query(Query::Ping).encode();
    let (mut to_flood, mut to_quiet) = (0, 0);
    for millisecond in 0..30_000 {
        let now = Time(0) + Duration::from_millis(millisecond);
        // From ports of its choice.
        let port = 1 + (millisecond % 1_000) as u16;
        node.handle(SocketAddr::new(flood.ip(), port), &ping, None, now);
        if millisecond.is_multiple_of(1_000) {
            node.handle(quiet, &ping, None, now);
        }
        for (to, _) in drain(&mut node).0 {
            if to == quiet {
                to_quiet += 1;
            } else {
                to_flood += 1;
            }
        }
    }
    assert!(to_flood <= 62, "{to_flood}");
    assert_eq!(to_quiet, 30);
    assert_eq!(node.counters().muted, 30_000 - to_flood);
}

/// Who forges a flood of somebody's takes no answer to us away, and gets none himself.
#[test]
fn answers_that_we_wait_for_pass_a_mute() {
    let mut node = node();
    let asked = host(1);
    node.suggest(asked, at(1));
    let (sent, _) = drain(&mut node);
    let ping = query(Query::Ping).encode();
    for _ in 0..100 {
        node.handle(asked, &ping, None, at(1));
    }
    let muted = node.counters().muted;
    assert!(muted >= 40, "{muted}");
    let _ = drain(&mut node);
    let wrong = TransactionId::new(b"wxyz").unwrap();
    let id = NodeId([0x44; 20]);
    node.handle(asked, &reply_to(wrong, Reply::of(id)), None, at(2));
    node.handle(asked, &ping, None, at(2));
    assert_eq!(node.counters().muted, muted + 2);
    let answer = reply_to(sent[0].1.transaction, Reply::of(id));
    node.handle(asked, &answer, None, at(2));
    assert_eq!(node.table().len(), 1);
    // Once: then it waits for nothing from there.
    node.handle(asked, &answer, None, at(2));
    assert_eq!(node.counters().muted, muted + 3);
    assert!(drain(&mut node).0.is_empty());
}

/// E3: what a source may have forged brings its victim at most three bytes for one, whatever is
/// asked.
#[test]
fn nobody_unproven_is_sent_more_than_three_times_its_bytes() {
    let mut node = node_with_friends(200);
    let mut stored = 0;
    for number in 1..100 {
        let reply = reply_of(ask(&mut node, host(number), get_peers(TORRENT), at(50)));
        let query = announce(TORRENT, 7, reply.token.unwrap());
        stored += u32::from(ask(&mut node, host(number), query, at(50)).is_some());
    }
    assert_eq!(stored, 99);
    let want = Want { v4: true, v6: true };
    let (target, none) = (NodeId(TORRENT.0), Want::default());
    let queries = [
        Query::Ping,
        get_peers(TORRENT),
        Query::GetPeers {
            info_hash: TORRENT,
            want,
        },
        Query::FindNode { target, want: none },
        Query::FindNode { target, want },
        Query::Unknown {
            target: None,
            want: none,
        },
        Query::Unknown {
            target: Some(target),
            want,
        },
        announce(TORRENT, 1, Token::new(b"").unwrap()),
    ];
    let mut number = 5_000;
    let mut asked_back = 0;
    for asked in queries {
        for read_only in [false, true] {
            number += 1;
            let message = Message {
                transaction: TransactionId::new(b"").unwrap(),
                body: Body::Query {
                    // Near to us, where a node is always wanted.
                    id: node.id().beside(30, [1; 20]),
                    query: asked,
                    read_only,
                },
                seen: None,
            };
            let datagram = message.encode();
            let before = node.counters().queries;
            node.handle(
                host(number),
                &datagram,
                Some(&node.table().clone()),
                at(100),
            );
            asked_back += node.counters().queries - before;
            let sent = bytes_sent(&mut node);
            assert!(sent > 0, "{asked:?}");
            assert!(
                sent <= AMPLIFICATION_MAX * datagram.len(),
                "{asked:?} {sent}"
            );
        }
    }
    assert!(asked_back >= 4, "{asked_back}");
    // Who has shown that it is there gets all there is.
    befriend(&mut node, NodeId([0x44; 20]), host(9_000), at(100));
    let asked = query(get_peers(TORRENT)).encode();
    node.handle(host(9_000), &asked, None, at(101));
    assert!(bytes_sent(&mut node) > 5 * asked.len());
}

/// E3: and the total is bounded, however many sources there seem to be.
#[test]
fn all_answers_together_keep_to_their_rate() {
    let mut node = node_with_friends(100);
    let before = node.counters().bytes_out;
    let asked = query(get_peers(TORRENT)).encode();
    for number in 0..100_000_u32 {
        let now = at(100) + Duration::from_micros(u64::from(number) * 100);
        node.handle(host(20_000 + number), &asked, None, now);
        while node.poll().is_some() {}
    }
    let seconds = 10;
    let rate = u64::from(config().reply_bytes_per_second);
    let sent = node.counters().bytes_out - before;
    // Beside the answers there is our own upkeep.
    assert!(sent <= rate * (seconds + 1) + 50_000, "{sent}");
    assert!(sent >= rate * seconds, "{sent}");
    assert!(node.counters().over_rate > 50_000);
}

/// E4: a token is good for the address that it was sent to, for its torrent, for 5 to 10 minutes.
#[test]
fn tokens_are_bound_to_address_and_torrent_and_age() {
    let mut node = node();
    let now = at(10);
    let token = reply_of(ask(&mut node, host(1), get_peers(TORRENT), now))
        .token
        .unwrap();
    let wrong = Some(Body::Error(code::PROTOCOL));
    let other = InfoHashV1([0x34; 20]);
    assert_eq!(
        ask(&mut node, host(2), announce(TORRENT, 1, token), now),
        wrong
    );
    assert_eq!(
        ask(&mut node, host(1), announce(other, 1, token), now),
        wrong
    );
    let guess = Token::new(&[0; 8]).unwrap();
    assert_eq!(
        ask(&mut node, host(1), announce(TORRENT, 1, guess), now),
        wrong
    );
    assert_eq!(node.stored(), (0, 0));
    let from_other_port = SocketAddr::new(host(1).ip(), 9);
    reply_of(ask(
        &mut node,
        from_other_port,
        announce(TORRENT, 1, token),
        now,
    ));
    assert_eq!(node.stored(), (1, 1));
    node.handle_timeout(at(301));
    reply_of(ask(
        &mut node,
        host(1),
        announce(TORRENT, 1, token),
        at(302),
    ));
    node.handle_timeout(at(602));
    assert_eq!(
        ask(&mut node, host(1), announce(TORRENT, 1, token), at(603)),
        wrong
    );
    // Another node, or this one after a restart, has other secrets.
    let mut again = Node::new(config(), Family::V4, [8; 16], None, None, at(0));
    assert_eq!(
        ask(&mut again, host(1), announce(TORRENT, 1, token), now),
        wrong
    );
}

/// E5: one address has one place, whatever ids it says and ports it uses.
#[test]
fn the_sybils_of_one_address_get_one_place() {
    let mut node = node_with_friends(50);
    let honest = node.table().len();
    let mut random = Random::new(5);
    let attacker = host(1).ip();
    for round in 0..200 {
        let address = SocketAddr::new(attacker, 1 + round);
        let id = node
            .id()
            .beside(usize::from(round % 20), some_id(&mut random).0);
        befriend(&mut node, id, address, at(100 + u64::from(round)));
    }
    assert_eq!(node.table().len(), honest + 1);
}

/// E6: the store keeps its limits, and announces expire.
#[test]
fn stored_peers_are_bounded_and_expire() {
    let mut config = config();
    config.storage.peers_per_torrent_max = 50;
    config.storage.peers_max = 500;
    let mut node = node_with(config);
    let mut announced = 0;
    for number in 1..=400 {
        for torrent in 0..5_u8 {
            let torrent = InfoHashV1([torrent * (number / 20) as u8; 20]);
            let now = at(u64::from(number));
            let reply = reply_of(ask(&mut node, host(number), get_peers(torrent), now));
            let query = announce(torrent, 1, reply.token.unwrap());
            announced += u32::from(ask(&mut node, host(number), query, now).is_some());
        }
    }
    assert_eq!(announced, 2_000);
    let (peers, torrents) = node.stored();
    assert!(peers <= 500 && peers > 250, "{peers}");
    assert!(torrents >= 10);
    let lifetime = config.storage.lifetime;
    node.handle_timeout(at(460) + lifetime);
    assert_eq!(node.stored(), (0, 0));
}

/// Only who was asked can answer, and only with what it was asked by.
#[test]
fn spoofed_answers_are_ignored() {
    let mut node = node();
    let (asked, other) = (host(1), host(2));
    node.suggest(asked, at(1));
    let (sent, _) = drain(&mut node);
    let transaction = sent[0].1.transaction;
    let id = NodeId([0x44; 20]);
    node.handle(other, &reply_to(transaction, Reply::of(id)), None, at(1));
    let mut wrong = [0; 4];
    wrong.copy_from_slice(transaction.as_bytes());
    wrong[3] ^= 1;
    let wrong = TransactionId::new(&wrong).unwrap();
    node.handle(asked, &reply_to(wrong, Reply::of(id)), None, at(1));
    let short = TransactionId::new(b"aa").unwrap();
    node.handle(asked, &reply_to(short, Reply::of(id)), None, at(1));
    assert!(node.table().is_empty());
    assert_eq!(node.counters().unsolicited, 3);
    node.handle(asked, &reply_to(transaction, Reply::of(id)), None, at(1));
    assert_eq!(node.table().len(), 1);
    // And once only.
    node.handle(asked, &reply_to(transaction, Reply::of(id)), None, at(1));
    assert_eq!(node.counters().unsolicited, 4);
}

#[test]
fn a_node_that_answers_by_another_id_is_known_by_it_and_believed_next_time() {
    let mut node = node();
    befriend(&mut node, NodeId([0x44; 20]), host(1), at(1));
    let lookup = node.search(TORRENT, None, at(2)).unwrap();
    let (sent, _) = drain(&mut node);
    assert_eq!(sent.len(), 1);
    let mut reply = Reply::of(NodeId([0x55; 20]));
    reply.peers = vec![host(7)];
    node.handle(
        host(1),
        &reply_to(sent[0].1.transaction, reply),
        None,
        at(2),
    );
    let (_, events) = drain(&mut node);
    let ended = Event::Done {
        lookup,
        info_hash: TORRENT,
        answers: 0,
        announced: 0,
    };
    assert_eq!(events, [ended]);
    // By the other id it is known from now on: a network whose nodes get new ids stays together.
    let renamed = Contact {
        id: NodeId([0x55; 20]),
        address: host(1),
    };
    assert_eq!(node.known(8), [renamed]);
}

/// A read-only node asks, says that it is one, and answers nobody (BEP 43).
#[test]
fn a_read_only_node_answers_nobody() {
    let mut node = node_with(NodeConfig {
        read_only: true,
        ..config()
    });
    assert_eq!(ask(&mut node, host(1), Query::Ping, at(1)), None);
    node.suggest(host(2), at(1));
    let (sent, _) = drain(&mut node);
    assert!(matches!(
        sent[0].1.body,
        Body::Query {
            read_only: true,
            ..
        }
    ));
    assert_eq!(node.counters().not_served, 1);
}

/// Who is read-only is not asked, and who asks otherwise is, once.
#[test]
fn who_asks_is_asked_whether_it_is_there() {
    let mut node = node();
    let asks = |node: &mut Node, from, read_only| {
        let message = Message {
            transaction: TransactionId::new(b"aa").unwrap(),
            body: Body::Query {
                id: NodeId([0x99; 20]),
                query: Query::Ping,
                read_only,
            },
            seen: None,
        };
        node.handle(from, &message.encode(), None, at(1));
        let (sent, _) = drain(node);
        sent.iter()
            .filter(|(_, sent)| matches!(sent.body, Body::Query { .. }))
            .count()
    };
    assert_eq!(asks(&mut node, host(1), true), 0);
    assert_eq!(asks(&mut node, host(1), false), 1);
    assert_eq!(node.table().len(), 0);
    befriend(&mut node, NodeId([0x99; 20]), host(1), at(1));
    assert_eq!(asks(&mut node, host(1), false), 0);
    // However many ask, they are asked at a pace.
    let asked: usize = (100..1_000)
        .map(|number| asks(&mut node, host(number), false))
        .sum();
    assert!(asked <= 10, "{asked}");
}

/// Nobody at a global address sends us inside a network.
#[test]
fn strangers_name_nothing_inside_a_network() {
    let inside = [
        "127.0.0.1:80",
        "10.0.0.1:53",
        "192.168.1.1:1900",
        "224.0.0.1:1",
        "0.0.0.0:1",
    ];
    let named = |teller: SocketAddr| {
        let mut node = node();
        let id = NodeId([0x44; 20]);
        befriend(&mut node, id, teller, at(1));
        node.search(TORRENT, None, at(2)).unwrap();
        let (sent, _) = drain(&mut node);
        let mut reply = Reply::of(id);
        for (number, address) in inside.iter().enumerate() {
            let id = NodeId([number as u8; 20]);
            reply.nodes.push(Contact {
                id,
                address: address.parse().unwrap(),
            });
            reply.peers.push(address.parse().unwrap());
        }
        node.handle(teller, &reply_to(sent[0].1.transaction, reply), None, at(2));
        let (sent, events) = drain(&mut node);
        let peers = events.iter().find_map(|event| match event {
            Event::Peers { peers, .. } => Some(peers.len()),
            _ => None,
        });
        (sent.len(), peers)
    };
    assert_eq!(named(host(1)), (0, None));
    // Who is inside may; of what no host can be, nobody may.
    assert_eq!(named("127.0.0.1:9".parse().unwrap()), (3, Some(3)));
}

/// And nobody outside is told of what is inside.
#[test]
fn nothing_inside_a_network_is_told_outside() {
    let mut node = node();
    let inside: SocketAddr = "10.0.0.1:6881".parse().unwrap();
    befriend(&mut node, NodeId([0x44; 20]), inside, at(1));
    let token = reply_of(ask(&mut node, inside, get_peers(TORRENT), at(1)))
        .token
        .unwrap();
    reply_of(ask(&mut node, inside, announce(TORRENT, 7, token), at(1)));
    let outside = reply_of(ask(&mut node, host(1), get_peers(TORRENT), at(1)));
    assert!(outside.peers.is_empty() && outside.nodes.is_empty());
    let beside = reply_of(ask(
        &mut node,
        "10.0.0.2:1".parse().unwrap(),
        get_peers(TORRENT),
        at(1),
    ));
    assert_eq!((beside.peers.len(), beside.nodes.len()), (1, 1));
}

/// Most of those that we ask say where we are: then our id is bound to that (BEP 42).
#[test]
fn our_id_follows_our_address() {
    let mut node = node_with_friends(30);
    let ours: IpAddr = "8.8.4.4".parse().unwrap();
    let before = node.id();
    let say = |node: &mut Node, number: u32, seen: &str, now| {
        node.suggest(host(number), now);
        let (sent, _) = drain(node);
        let Some((_, message)) = sent.into_iter().find(|(to, _)| *to == host(number)) else {
            panic!("not asked");
        };
        let answer = Message {
            transaction: message.transaction,
            body: Body::Reply(Reply::of(NodeId([number as u8; 20]))),
            seen: Some(SocketAddr::new(seen.parse().unwrap(), 1)),
        };
        node.handle(host(number), &answer.encode(), None, now);
        drain(node).1
    };
    for number in 1..6 {
        assert_eq!(say(&mut node, number, "8.8.4.4", at(10)), []);
    }
    assert_eq!(node.id(), before);
    let known = node.table().len();
    let events = say(&mut node, 6, "8.8.4.4", at(10));
    assert_eq!(events, [Event::Renamed { address: ours }]);
    assert!(node.id().is_bound_to(ours) && !before.is_bound_to(ours));
    assert!(node.table().len() * 2 > known);
    // Not again at once, whoever says so.
    for number in 10..30 {
        assert_eq!(say(&mut node, number, "8.8.8.8", at(11)), []);
    }
    assert!(node.id().is_bound_to(ours));
}

#[test]
fn the_id_of_before_is_kept_if_the_address_allows_it() {
    let ours: IpAddr = "8.8.4.4".parse().unwrap();
    let new = |address, id| Node::new(config(), Family::V4, KEY, address, id, at(0)).id();
    let bound = NodeId::bound_to(ours, [3; 20]);
    assert_eq!(new(Some(ours), Some(bound)), bound);
    assert_eq!(new(None, Some(NodeId([9; 20]))), NodeId([9; 20]));
    let other = new(Some(ours), Some(NodeId([9; 20])));
    assert!(other != NodeId([9; 20]) && other.is_bound_to(ours));
    assert!(new(Some(ours), None).is_bound_to(ours));
}

proptest! {
    /// Whatever comes from wherever, nothing breaks, and nobody gets more than the rules say.
    #[test]
    fn any_traffic_is_survived(seed in any::<u64>()) {
        let mut random = Random::new(seed);
        let mut node = node_with_friends(30);
        let mut now = at(10);
        let mut seen = Vec::new();
        for _ in 0..300 {
            now = now + Duration::from_millis(random.below(2_000));
            node.handle_timeout(now);
            let from = match random.below(3) {
                0 => host(random.below(20) as u32),
                1 => host(1000 + random.below(30) as u32),
                _ => SocketAddr::from(([127, 0, 0, 1], random.below(5) as u16)),
            };
            let transaction = match seen.last() {
                Some(transaction) if random.below(2) == 0 => *transaction,
                _ => TransactionId::new(b"xyzw").unwrap(),
            };
            let id = some_id(&mut random);
            let mut reply = Reply::of(id);
            reply.token = Token::new(&random.next_u64().to_be_bytes());
            for _ in 0..random.below(8) {
                let address = host(random.below(5_000) as u32);
                reply.nodes.push(Contact { id: some_id(&mut random), address });
                reply.peers.push(address);
            }
            let want = Want { v4: random.below(2) == 0, v6: false };
            let query = match random.below(4) {
                0 => Query::Ping,
                1 => Query::FindNode { target: id, want },
                2 => get_peers(TORRENT),
                _ => announce(TORRENT, 1, Token::new(b"12345678").unwrap()),
            };
            let body = match random.below(3) {
                0 => Body::Reply(reply),
                1 => Body::Error(203),
                _ => Body::Query { id, query, read_only: random.below(2) == 0 },
            };
            let seen_at = (random.below(2) == 0).then(|| host(random.below(9) as u32));
            let mut datagram = Message { transaction, body, seen: seen_at }.encode();
            if random.below(10) == 0 {
                let index = random.below(datagram.len() as u64) as usize;
                datagram[index] = random.next_u64() as u8;
            }
            node.handle(from, &datagram, None, now);
            if random.below(10) == 0 {
                node.search(InfoHashV1(some_id(&mut random).0), Some(1), now);
            }
            for (_, message) in drain(&mut node).0 {
                if matches!(message.body, Body::Query { .. }) {
                    seen.push(message.transaction);
                }
            }
            node.table.check_invariants();
            node.storage.check_invariants();
            prop_assert!(node.lookups() <= config().lookups_max + OWN_LOOKUPS_MAX + 1);
            prop_assert!(node.transactions.len() <= config().transactions_max);
            prop_assert_eq!(node.asked.values().sum::<usize>(), node.transactions.len());
        }
    }
}
