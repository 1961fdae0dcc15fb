//! Each rule by example, and random swarms with liars in virtual time.

use proptest::prelude::*;
use proto::extension::METADATA_BLOCK_BYTES;

use super::*;

const BLOCK: u32 = METADATA_BLOCK_BYTES;

fn at_ms(ms: u64) -> Time {
    Time(ms * 1_000_000)
}

/// Metadata of so many bytes, no two blocks alike.
fn metadata(bytes: u32) -> Vec<u8> {
    (0..bytes)
        .map(|at| (at / 7 + at / BLOCK * 31) as u8)
        .collect()
}

fn block_of(metadata: &[u8], index: u32) -> &[u8] {
    metadata.chunks(BLOCK as usize).nth(index as usize).unwrap()
}

/// With four requests to a peer at a time, so that there is something to mix up.
fn exchange() -> MetadataExchange {
    MetadataExchange::new(MetadataConfig {
        requests_max: 4,
        ..MetadataConfig::default()
    })
}

/// Refills and takes the requests as (peer, block).
fn requests(exchange: &mut MetadataExchange, ms: u64) -> Vec<(u64, u32)> {
    exchange.refill(at_ms(ms));
    exchange.check_invariants();
    let mut requests = Vec::new();
    while let Some(action) = exchange.take_action() {
        match action {
            Action::Request { peer, block } => requests.push((peer.0, block)),
            other => panic!("{other:?}"),
        }
    }
    requests
}

fn answer(exchange: &mut MetadataExchange, peer: u64, index: u32, metadata: &[u8], ms: u64) {
    let message = MetadataMessage::Data {
        piece: index,
        total_bytes: metadata.len() as u32,
        block: block_of(metadata, index),
    };
    exchange.handle_message(PeerKey(peer), &message, at_ms(ms));
    exchange.check_invariants();
}

fn reject(exchange: &mut MetadataExchange, peer: u64, piece: u32, ms: u64) {
    let message = MetadataMessage::Reject { piece };
    exchange.handle_message(PeerKey(peer), &message, at_ms(ms));
    exchange.check_invariants();
}

/// rTorrent drops what is asked while it has not answered.
#[test]
fn a_peer_is_asked_for_one_block_at_a_time_by_default() {
    let metadata = metadata(3 * BLOCK);
    let mut exchange = MetadataExchange::new(MetadataConfig::default());
    exchange.peer_joined(PeerKey(1), metadata.len() as u32);
    for index in 0..3 {
        assert_eq!(requests(&mut exchange, 0), [(1, index)]);
        answer(&mut exchange, 1, index, &metadata, 10);
    }
    assert_eq!(exchange.take_action(), Some(Action::Check));
}

#[test]
fn one_peer_gives_all_of_it_a_few_blocks_at_a_time() {
    let metadata = metadata(5 * BLOCK + 3);
    let mut exchange = exchange();
    assert_eq!(exchange.next_timeout(), Time::NEVER);
    exchange.peer_joined(PeerKey(1), metadata.len() as u32);
    assert_eq!(requests(&mut exchange, 0), [(1, 0), (1, 1), (1, 2), (1, 3)]);
    assert_eq!(exchange.next_timeout(), at_ms(8_000));
    for index in 0..4 {
        answer(&mut exchange, 1, index, &metadata, 10);
    }
    assert_eq!(
        exchange.progress(),
        (4 * u64::from(BLOCK), metadata.len() as u64)
    );
    assert_eq!(requests(&mut exchange, 20), [(1, 4), (1, 5)]);
    answer(&mut exchange, 1, 5, &metadata, 30);
    answer(&mut exchange, 1, 4, &metadata, 30);
    assert_eq!(exchange.take_action(), Some(Action::Check));
    assert_eq!(exchange.take_info(), Some(metadata));
    assert_eq!(exchange.take_info(), None);
    exchange.checked(true);
    assert!(exchange.is_done());
    exchange.refill(at_ms(40));
    assert_eq!(exchange.take_action(), None);
    assert_eq!(exchange.next_timeout(), Time::NEVER);
}

#[test]
fn who_gave_all_of_what_is_wrong_is_banned_and_others_are_asked() {
    let (good, bad) = (metadata(BLOCK + 1), vec![7; BLOCK as usize + 1]);
    let mut exchange = exchange();
    exchange.peer_joined(PeerKey(1), bad.len() as u32);
    requests(&mut exchange, 0);
    exchange.peer_joined(PeerKey(2), good.len() as u32);
    answer(&mut exchange, 1, 0, &bad, 1);
    answer(&mut exchange, 1, 1, &bad, 1);
    assert_eq!(exchange.take_action(), Some(Action::Check));
    exchange.checked(false);
    assert_eq!(exchange.take_action(), Some(Action::Ban(PeerKey(1))));
    assert_eq!(requests(&mut exchange, 2), [(2, 0), (2, 1)]);
    answer(&mut exchange, 1, 0, &bad, 3);
    answer(&mut exchange, 2, 0, &good, 3);
    answer(&mut exchange, 2, 1, &good, 3);
    assert_eq!(exchange.take_action(), Some(Action::Check));
    assert_eq!(exchange.take_info(), Some(good));
}

#[test]
fn of_several_senders_the_one_with_the_most_is_tried_alone() {
    let good = metadata(6 * BLOCK);
    let bad = vec![9; good.len()];
    let mut exchange = exchange();
    exchange.peer_joined(PeerKey(1), good.len() as u32);
    exchange.peer_joined(PeerKey(2), good.len() as u32);
    let asked = requests(&mut exchange, 0);
    assert_eq!(asked.iter().filter(|&&(peer, _)| peer == 1).count(), 4);
    for (peer, index) in asked {
        let bytes = if peer == 1 { &good } else { &bad };
        answer(&mut exchange, peer, index, bytes, 1);
    }
    assert_eq!(exchange.take_action(), Some(Action::Check));
    exchange.checked(false);
    // Nobody is banned on suspicion, and what peer 1 sent is not asked again.
    assert_eq!(requests(&mut exchange, 2), [(1, 4), (1, 5)]);
    answer(&mut exchange, 1, 4, &good, 3);
    answer(&mut exchange, 1, 5, &good, 3);
    assert_eq!(exchange.take_action(), Some(Action::Check));
    assert_eq!(exchange.take_info(), Some(good));
    exchange.checked(true);
}

#[test]
fn a_silent_peer_rests_and_its_late_answer_is_taken() {
    let metadata = metadata(2 * BLOCK);
    let mut exchange = exchange();
    exchange.peer_joined(PeerKey(1), metadata.len() as u32);
    assert_eq!(requests(&mut exchange, 0), [(1, 0), (1, 1)]);
    exchange.peer_joined(PeerKey(2), metadata.len() as u32);
    assert_eq!(requests(&mut exchange, 7_999), []);
    assert_eq!(requests(&mut exchange, 8_000), [(2, 0), (2, 1)]);
    answer(&mut exchange, 1, 0, &metadata, 8_100);
    answer(&mut exchange, 2, 0, &metadata, 8_200);
    answer(&mut exchange, 2, 1, &metadata, 8_200);
    assert_eq!(exchange.take_action(), Some(Action::Check));
    assert_eq!(exchange.take_info(), Some(metadata));
}

#[test]
fn a_peer_that_rejects_is_asked_again_after_longer_and_longer_rests() {
    let mut exchange = exchange();
    exchange.peer_joined(PeerKey(1), 1);
    assert_eq!(requests(&mut exchange, 0), [(1, 0)]);
    reject(&mut exchange, 1, 0, 0);
    assert_eq!(requests(&mut exchange, 4_999), []);
    assert_eq!(exchange.next_timeout(), at_ms(5_000));
    assert_eq!(requests(&mut exchange, 5_000), [(1, 0)]);
    reject(&mut exchange, 1, 0, 5_000);
    assert_eq!(requests(&mut exchange, 14_999), []);
    assert_eq!(requests(&mut exchange, 15_000), [(1, 0)]);
}

#[test]
fn the_length_that_most_peers_say_comes_first_and_another_when_they_are_gone() {
    let mut exchange = exchange();
    exchange.peer_joined(PeerKey(1), 64 << 20);
    exchange.peer_joined(PeerKey(2), 3);
    exchange.peer_joined(PeerKey(3), 3);
    assert_eq!(requests(&mut exchange, 0), [(2, 0)]);
    exchange.peer_left(PeerKey(2));
    assert_eq!(requests(&mut exchange, 1), [(3, 0)]);
    exchange.peer_left(PeerKey(3));
    let asked = requests(&mut exchange, 2);
    assert_eq!(asked, [(1, 0), (1, 1), (1, 2), (1, 3)]);
    exchange.peer_joined(PeerKey(4), 0);
    assert!(
        !exchange.peers.contains_key(&PeerKey(4)),
        "nothing is no length"
    );
}

#[test]
fn a_length_that_contradicts_the_handshake_and_what_nobody_asked_for_change_nothing() {
    let good = metadata(2 * BLOCK);
    let mut exchange = exchange();
    exchange.peer_joined(PeerKey(1), good.len() as u32);
    requests(&mut exchange, 0);
    let longer = metadata(3 * BLOCK);
    answer(&mut exchange, 1, 0, &longer, 1);
    answer(&mut exchange, 5, 1, &good, 1);
    assert_eq!(exchange.progress().0, 0);
    assert_eq!(requests(&mut exchange, 2), [], "it rests");
    answer(&mut exchange, 1, 1, &good, 3);
    assert_eq!(exchange.progress().0, u64::from(BLOCK));
    answer(&mut exchange, 1, 1, &good, 3);
    assert_eq!(exchange.progress().0, u64::from(BLOCK));
}

/// An answer on its way: from which peer, to the request for which block, the bytes or a reject.
type Reply = (u64, u32, Option<Vec<u8>>);

/// How a peer of the random swarm behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Honest,
    /// Every block, or some, are wrong.
    Liar {
        one_in: u32,
    },
    /// Says another length, and sends such metadata.
    Long {
        blocks: u32,
    },
    Silent,
    Rejecting,
    /// Honest, and gone after so many answers.
    Leaving {
        after: u32,
    },
    /// Honest, and slower than the timeout.
    Slow,
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Honest),
        (1..4_u32).prop_map(|one_in| Kind::Liar { one_in }),
        (1..9_u32).prop_map(|blocks| Kind::Long { blocks }),
        Just(Kind::Silent),
        Just(Kind::Rejecting),
        (0..5_u32).prop_map(|after| Kind::Leaving { after }),
        Just(Kind::Slow),
    ]
}

/// What a peer answers to a request, and after how many milliseconds.
fn reaction(kind: Kind, good: &[u8], index: u32) -> Option<(u64, Option<Vec<u8>>)> {
    let block = || block_of(good, index).to_vec();
    match kind {
        Kind::Honest | Kind::Leaving { .. } => Some((30, Some(block()))),
        Kind::Slow => Some((9_000, Some(block()))),
        Kind::Liar { one_in } if index.is_multiple_of(one_in) => {
            Some((20, Some(block().iter().map(|byte| byte ^ 0x55).collect())))
        }
        Kind::Liar { .. } => Some((20, Some(block()))),
        Kind::Long { blocks } => {
            let other = vec![1; good.len() + (blocks * BLOCK) as usize];
            Some((20, Some(block_of(&other, index).to_vec())))
        }
        Kind::Rejecting => Some((10, None)),
        Kind::Silent => None,
    }
}

fn length_said(kind: Kind, good: &[u8]) -> u32 {
    match kind {
        Kind::Long { blocks } => good.len() as u32 + blocks * BLOCK,
        _ => good.len() as u32,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// With one honest peer that stays, the metadata come, whoever else is there; only liars are
    /// banned.
    #[test]
    fn it_ends_well_with_one_honest_peer(
        bytes in 1..12 * BLOCK,
        mut kinds in proptest::collection::vec(kind(), 0..8),
        honest_at in 0..8_usize,
    ) {
        let good = metadata(bytes);
        kinds.insert(honest_at.min(kinds.len()), Kind::Honest);
        let mut exchange = exchange();
        for (peer, &kind) in (0..).zip(&kinds) {
            exchange.peer_joined(PeerKey(peer), length_said(kind, &good));
        }
        let mut answers = vec![0; kinds.len()];
        // By the time of arrival and a number.
        let mut under_way: BTreeMap<(u64, u64), Reply> = BTreeMap::new();
        let (mut now, mut sent) = (0, 0);
        while !exchange.is_done() {
            prop_assert!(now < 3_600_000, "not done after an hour: {kinds:?}");
            exchange.refill(at_ms(now));
            exchange.check_invariants();
            while let Some(action) = exchange.take_action() {
                match action {
                    Action::Request { peer, block } => {
                        let kind = kinds[peer.0 as usize];
                        if let Some((after, reply)) = reaction(kind, &good, block) {
                            sent += 1;
                            under_way.insert((now + after, sent), (peer.0, block, reply));
                        }
                    }
                    Action::Check => {
                        let info = exchange.take_info().unwrap();
                        exchange.checked(info == good);
                        exchange.refill(at_ms(now));
                    }
                    Action::Ban(peer) => {
                        let kind = kinds[peer.0 as usize];
                        prop_assert!(matches!(kind, Kind::Liar { .. } | Kind::Long { .. }), "{kind:?}");
                    }
                }
            }
            let timeout = exchange.next_timeout().0.div_ceil(1_000_000);
            let Some(entry) = under_way.first_entry().filter(|entry| entry.key().0 <= timeout) else {
                prop_assert!(exchange.is_done() || timeout < u64::MAX / 1_000_000, "it sleeps for ever");
                now = timeout.max(now);
                continue;
            };
            now = entry.key().0.max(now);
            let (peer, piece, reply) = entry.remove();
            let kind = kinds[peer as usize];
            answers[peer as usize] += 1;
            if matches!(kind, Kind::Leaving { after } if answers[peer as usize] > after) {
                exchange.peer_left(PeerKey(peer));
                continue;
            }
            let total_bytes = length_said(kind, &good);
            let message = match &reply {
                Some(block) => MetadataMessage::Data { piece, total_bytes, block },
                None => MetadataMessage::Reject { piece },
            };
            exchange.handle_message(PeerKey(peer), &message, at_ms(now));
            exchange.check_invariants();
        }
    }
}
