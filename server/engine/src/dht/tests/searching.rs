//! Searches, who they begin with, and when a node is ready for them.

use super::*;

/// A search asks, announces, and tells what it found.
#[test]
fn a_search_finds_and_announces() {
    let mut node = node();
    let (near, far) = (NodeId([0x33; 20]), NodeId([0x44; 20]));
    befriend(&mut node, far, host(1), at(1));
    let lookup = node.search(TORRENT, Some(77), at(2)).unwrap();
    let (sent, _) = drain(&mut node);
    assert!(matches!(
        sent[0].1.body,
        Body::Query {
            query: Query::GetPeers { .. },
            ..
        }
    ));
    let token = Token::new(b"token");
    let mut reply = Reply {
        token,
        ..Reply::of(far)
    };
    reply.nodes = vec![Contact {
        id: near,
        address: host(2),
    }];
    node.handle(
        host(1),
        &reply_to(sent[0].1.transaction, reply),
        None,
        at(2),
    );
    let (sent, _) = drain(&mut node);
    assert_eq!(sent[0].0, host(2));
    let mut reply = Reply {
        token,
        ..Reply::of(near)
    };
    reply.peers = vec![host(9)];
    node.handle(
        host(2),
        &reply_to(sent[0].1.transaction, reply),
        None,
        at(2),
    );
    let (sent, events) = drain(&mut node);
    assert_eq!(
        events,
        [Event::Peers {
            lookup,
            info_hash: TORRENT,
            peers: vec![host(9)]
        }]
    );
    let expected = announce(TORRENT, 77, token.unwrap());
    assert_eq!(sent.len(), 2);
    for (to, message) in sent {
        assert!(matches!(message.body, Body::Query { query, .. } if query == expected));
        let id = if to == host(1) { far } else { near };
        node.handle(
            to,
            &reply_to(message.transaction, Reply::of(id)),
            None,
            at(3),
        );
    }
    let (_, events) = drain(&mut node);
    assert_eq!(
        events,
        [Event::Done {
            lookup,
            info_hash: TORRENT,
            answers: 2,
            announced: 2
        }]
    );
    assert_eq!(node.lookups(), 0);
}

#[test]
fn searches_and_queries_are_bounded_and_all_end() {
    let config = NodeConfig {
        queries_per_second: 20,
        lookups_max: 5,
        ..config()
    };
    let mut node = node_with(config);
    for number in 0..8 {
        befriend(
            &mut node,
            NodeId([number as u8 + 1; 20]),
            host(number),
            at(u64::from(number)),
        );
    }
    node.handle_timeout(at(20));
    let _ = drain(&mut node);
    let begun = (0..100_u8).filter_map(|byte| node.search(InfoHashV1([byte; 20]), None, at(20)));
    assert_eq!(begun.count(), 5);
    // Nobody answers any more.
    let (mut now, mut sent, mut done) = (at(20), 0_u64, 0);
    while now < at(200) {
        let (messages, events) = drain(&mut node);
        sent += messages.len() as u64;
        done += events
            .iter()
            .filter(|event| matches!(event, Event::Done { .. }))
            .count();
        let elapsed = now.since(at(20)).as_secs();
        assert!(sent <= 20 * (elapsed + 2), "{sent} after {elapsed} s");
        assert!(node.next_timeout() > now, "it makes progress");
        now = node.next_timeout();
        node.handle_timeout(now);
    }
    assert_eq!(done, 5);
    assert_eq!(node.lookups(), 0);
}

#[test]
fn a_cancelled_search_says_no_more() {
    let mut node = node();
    befriend(&mut node, NodeId([0x44; 20]), host(1), at(1));
    node.search(TORRENT, Some(1), at(2)).unwrap();
    let (sent, _) = drain(&mut node);
    node.cancel(TORRENT);
    let mut reply = Reply::of(NodeId([0x44; 20]));
    reply.peers = vec![host(9)];
    node.handle(
        host(1),
        &reply_to(sent[0].1.transaction, reply),
        None,
        at(2),
    );
    assert_eq!(drain(&mut node), (vec![], vec![]));
}

#[test]
fn a_node_without_others_asks_nobody() {
    let mut node = node();
    assert_eq!(node.search(TORRENT, None, at(1)), None);
    // Nodes that stand in a configuration are asked, those of the other family are not.
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 1));
    node.bootstrap(&[(None, host(1)), (None, v6)], at(1));
    let (sent, _) = drain(&mut node);
    assert_eq!(sent.len(), 1);
    let want = Want { v4: true, v6: true };
    let target = node.id();
    let expected = Query::FindNode { target, want };
    assert!(matches!(sent[0].1.body, Body::Query { query, .. } if query == expected));
    let mut reply = Reply::of(NodeId([0x44; 20]));
    reply.nodes = vec![Contact {
        id: NodeId([0x45; 20]),
        address: "[2600::1]:1".parse().unwrap(),
    }];
    let others = reply.nodes.clone();
    node.handle(
        host(1),
        &reply_to(sent[0].1.transaction, reply),
        None,
        at(1),
    );
    assert_eq!(drain(&mut node).1, [Event::OtherFamily(others)]);
}

/// Those whom everybody begins with keep no place once others are known, and while nobody is they
/// do.
#[test]
fn who_everybody_begins_with_is_left_alone_when_others_are_known() {
    let mut node = node();
    let mut random = Random::new(1);
    node.bootstrap(
        &[(None, host(1)), (Some(NodeId([0x44; 20])), host(2))],
        at(1),
    );
    for (to, message) in drain(&mut node).0 {
        let id = match to == host(1) {
            true => NodeId([0x55; 20]),
            false => NodeId([0x44; 20]),
        };
        node.handle(
            to,
            &reply_to(message.transaction, Reply::of(id)),
            None,
            at(1),
        );
    }
    let knows = |node: &Node, number| {
        let known = node.known(usize::MAX);
        known.iter().any(|contact| contact.address == host(number))
    };
    node.handle_timeout(at(10));
    assert!(knows(&node, 1) && knows(&node, 2));
    for number in 10..60 {
        befriend(&mut node, some_id(&mut random), host(number), at(11));
    }
    node.handle_timeout(at(20));
    assert!(!knows(&node, 1) && knows(&node, 2));
    // Also when it answers once more.
    befriend(&mut node, NodeId([0x55; 20]), host(1), at(21));
    assert!(!knows(&node, 1));
}

/// Announces wait until it is known who is near, once; nodes that are gone delay nothing later.
#[test]
fn a_node_is_ready_when_it_knows_who_is_near() {
    let mut node = node();
    assert!(!node.is_ready());
    node.bootstrap(&[(None, host(1)), (None, host(2))], at(1));
    let (sent, _) = drain(&mut node);
    assert_eq!(sent.len(), 2);
    let reply = Reply::of(NodeId([0x44; 20]));
    node.handle(
        host(1),
        &reply_to(sent[0].1.transaction, reply),
        None,
        at(1),
    );
    assert!(!node.is_ready(), "the other may know more");
    node.handle_timeout(at(2));
    assert!(node.is_ready() && node.lookups() > 0, "it is dead, maybe");
    while node.next_timeout() < at(7) {
        let now = node.next_timeout();
        node.handle_timeout(now);
    }
    assert!(node.is_ready());
    node.bootstrap(&[(None, host(3))], at(8));
    assert!(node.is_ready() && node.lookups() > 0);
}
