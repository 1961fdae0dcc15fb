//! Each rule by example, and random swarms with liars in virtual time.

use proptest::prelude::*;
use proto::extension::METADATA_BLOCK_BYTES;

use super::turns::ASIDE_MAX;
use super::*;

mod room;

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
    let config = MetadataConfig {
        requests_max: 4,
        ..MetadataConfig::default()
    };
    MetadataExchange::new(config, Arc::default())
}

/// A stranger for each key.
fn stranger(number: u64) -> IpAddr {
    IpAddr::from([10, 0, 0, number as u8])
}

/// A peer that is a stranger for itself says a length.
fn join(exchange: &mut MetadataExchange, peer: u64, total_bytes: u32) {
    assert!(exchange.peer_joined(PeerKey(peer), stranger(peer), total_bytes));
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

/// Returns whether it was a block that was asked for.
fn answer(
    exchange: &mut MetadataExchange,
    peer: u64,
    index: u32,
    metadata: &[u8],
    ms: u64,
) -> bool {
    let message = MetadataMessage::Data {
        piece: index,
        total_bytes: metadata.len() as u32,
        block: block_of(metadata, index),
    };
    let is_of_use = exchange.handle_message(PeerKey(peer), &message, at_ms(ms));
    exchange.check_invariants();
    is_of_use
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
    let mut exchange = MetadataExchange::new(MetadataConfig::default(), Arc::default());
    join(&mut exchange, 1, metadata.len() as u32);
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
    join(&mut exchange, 1, metadata.len() as u32);
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
    join(&mut exchange, 1, bad.len() as u32);
    requests(&mut exchange, 0);
    join(&mut exchange, 2, good.len() as u32);
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
    join(&mut exchange, 1, good.len() as u32);
    join(&mut exchange, 2, good.len() as u32);
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
    join(&mut exchange, 1, metadata.len() as u32);
    assert_eq!(requests(&mut exchange, 0), [(1, 0), (1, 1)]);
    join(&mut exchange, 2, metadata.len() as u32);
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
    join(&mut exchange, 1, 1);
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
    join(&mut exchange, 1, 64 << 20);
    join(&mut exchange, 2, 3);
    join(&mut exchange, 3, 3);
    assert_eq!(requests(&mut exchange, 0), [(2, 0)]);
    exchange.peer_left(PeerKey(2));
    assert_eq!(requests(&mut exchange, 1), [(3, 0)]);
    exchange.peer_left(PeerKey(3));
    let asked = requests(&mut exchange, 2);
    assert_eq!(asked, [(1, 0), (1, 1), (1, 2), (1, 3)]);
    join(&mut exchange, 4, 0);
    assert!(
        !exchange.peers.contains_key(&PeerKey(4)),
        "nothing is no length"
    );
}

/// Four connections of one stranger are one voice, and of as many voices the smaller length is
/// first.
#[test]
fn a_stranger_has_one_voice_however_many_connections() {
    let mut exchange = exchange();
    for peer in 1..=4 {
        assert!(exchange.peer_joined(PeerKey(peer), stranger(1), 64 << 20));
    }
    join(&mut exchange, 5, 3);
    assert_eq!(requests(&mut exchange, 0), [(5, 0)]);
    let mut exchange = MetadataExchange::new(MetadataConfig::default(), Arc::default());
    for peer in 1..=4 {
        assert!(exchange.peer_joined(PeerKey(peer), stranger(1), 2));
    }
    join(&mut exchange, 5, 3);
    join(&mut exchange, 6, 3);
    assert_eq!(requests(&mut exchange, 0), [(5, 0)]);
}

/// Runs until peer `honest` has given all of `good`, and returns after how many milliseconds.
/// `others` answers, or not, what others are asked.
fn time_to_come(
    exchange: &mut MetadataExchange,
    honest: u64,
    good: &[u8],
    mut others: impl FnMut(&mut MetadataExchange, u64, Option<(u64, u32)>),
) -> u64 {
    for now in (0..4 * 3_600_000).step_by(100) {
        others(exchange, now, None);
        for (peer, block) in requests(exchange, now) {
            if peer == honest {
                answer(exchange, peer, block, good, now + 100);
            } else {
                others(exchange, now, Some((peer, block)));
            }
        }
        if matches!(exchange.stage, Stage::Checking { .. }) {
            assert_eq!(exchange.take_info().as_deref(), Some(good));
            return now;
        }
    }
    panic!("it does not come in hours");
}

/// Answers of tricklers, each 7.9 s after it was asked: when, by whom, to what.
type Trickle = VecDeque<(u64, u64, u32)>;

/// Puts an answer on its way, or has those arrive that are due.
fn trickle(
    exchange: &mut MetadataExchange,
    trickle: &mut Trickle,
    now: u64,
    asked: Option<(u64, u32)>,
) {
    if let Some((peer, block)) = asked {
        trickle.push_back((now + 7_900, peer, block));
    }
    while let Some(&(at, peer, block)) = trickle.front().filter(|(at, ..)| *at <= now) {
        trickle.pop_front();
        let Some(source) = exchange.peers.get(&PeerKey(peer)) else {
            continue;
        };
        let message = MetadataMessage::Data {
            piece: block,
            total_bytes: source.total_bytes,
            block: &[0; BLOCK as usize],
        };
        exchange.handle_message(PeerKey(peer), &message, at_ms(at));
    }
}

#[test]
fn who_trickles_keeps_the_metadata_away_for_one_turn() {
    let good = metadata(9 * BLOCK);
    let mut exchange = MetadataExchange::new(MetadataConfig::default(), Arc::default());
    join(&mut exchange, 1, 64 << 20);
    assert_eq!(requests(&mut exchange, 0), [(1, 0)]);
    join(&mut exchange, 2, good.len() as u32);
    assert!(exchange.is_waiting(PeerKey(2), at_ms(0)));
    assert!(!exchange.is_waiting(PeerKey(1), at_ms(0)));
    assert_eq!(exchange.next_timeout(), at_ms(8_000), "it may be late");
    let mut under_way = Trickle::from([(7_900, 1, 0)]);
    let ms = time_to_come(&mut exchange, 2, &good, |exchange, now, asked| {
        trickle(exchange, &mut under_way, now, asked);
    });
    assert_eq!(ms, 30_800);
}

/// With strangers who keep coming, two of each length, and an honest peer so slow that it needs
/// several turns: what it gave is kept from one to the next.
#[test]
fn who_waits_gets_its_turn_however_many_others_come() {
    let good = metadata(15 * BLOCK);
    let mut exchange = MetadataExchange::new(MetadataConfig::default(), Arc::default());
    for peer in 1..=3 {
        join(&mut exchange, peer, 8 << 20);
    }
    join(&mut exchange, 9, good.len() as u32);
    let (mut tricklers, mut honest) = (Trickle::new(), Trickle::new());
    for now in (0_u64..).step_by(100) {
        assert!(now < 900_000, "{:?} of {}", exchange.progress(), good.len());
        if now.is_multiple_of(20_000) {
            // More voices than the honest peer's; they leave when three more pairs have come.
            let first = 10 + now / 20_000 * 2;
            for peer in [first, first + 1] {
                join(&mut exchange, peer, (4 << 20) + first as u32);
                exchange.peer_left(PeerKey(peer.saturating_sub(6).max(10)));
            }
        }
        while let Some(&(at, peer, block)) = honest.front().filter(|(at, ..)| *at <= now) {
            honest.pop_front();
            answer(&mut exchange, peer, block, &good, at);
        }
        trickle(&mut exchange, &mut tricklers, now, None);
        if matches!(exchange.stage, Stage::Checking { .. }) {
            // Turns of 30 s and 60 s for those with the most voices, and of 30 s for this one.
            assert_eq!(now, 120_000 + 45_000);
            assert_eq!(exchange.take_info(), Some(good));
            return;
        }
        for (peer, block) in requests(&mut exchange, now) {
            match peer {
                9 => honest.push_back((now + 5_000, 9, block)),
                _ => tricklers.push_back((now + 7_900, peer, block)),
            }
        }
    }
}

/// A length stands: by another one, a silent peer would never be late.
#[test]
fn a_peer_says_its_length_once() {
    let good = metadata(2 * BLOCK);
    let mut exchange = MetadataExchange::new(MetadataConfig::default(), Arc::default());
    join(&mut exchange, 1, 64 << 20);
    requests(&mut exchange, 0);
    join(&mut exchange, 2, good.len() as u32);
    join(&mut exchange, 1, 64 << 20);
    let ms = time_to_come(&mut exchange, 2, &good, |exchange, now, _| {
        if now > 0 && now.is_multiple_of(7_000) {
            let other = (64 << 20) - now as u32;
            assert!(!exchange.peer_joined(PeerKey(1), stranger(1), other));
        }
    });
    assert_eq!(ms, 8_100);
}

#[test]
fn what_is_put_aside_is_bounded() {
    let mut exchange = MetadataExchange::new(MetadataConfig::default(), Arc::default());
    let assembly = |total_bytes: u32, blocks: u32| {
        let block = |index| {
            let bytes = vec![0; BLOCK as usize].into();
            (
                index,
                Block {
                    from: PeerKey(1),
                    bytes,
                },
            )
        };
        Stage::Assembling(Assembly {
            total_bytes,
            alone: None,
            here: (0..blocks).map(block).collect(),
            wanted: BTreeSet::new(),
            until: Time(0),
        })
    };
    // Just as much as may be; one more, and the longest goes.
    for (length, blocks) in [(1, 500), (2, 12), (3, 1)] {
        exchange.stage = assembly(length, blocks);
        exchange.put_aside();
    }
    let lengths = |exchange: &MetadataExchange| {
        let keys = exchange.aside.keys();
        keys.map(|(length, _)| *length).collect::<Vec<u32>>()
    };
    assert_eq!(lengths(&exchange), [2, 3]);
    for length in 4..100 {
        exchange.stage = assembly(length, 1);
        exchange.put_aside();
    }
    assert_eq!(exchange.aside.len(), ASIDE_MAX);
    assert!(!exchange.aside.contains_key(&(2, None)));
}

#[test]
fn who_sent_what_is_here_is_known_though_he_has_gone() {
    let bad = vec![7; 2 * BLOCK as usize];
    let mut exchange = MetadataExchange::new(MetadataConfig::default(), Arc::default());
    join(&mut exchange, 1, bad.len() as u32);
    for block in 0..2 {
        requests(&mut exchange, 0);
        assert!(answer(&mut exchange, 1, block, &bad, 1));
        assert_eq!(exchange.senders(), BTreeSet::from([PeerKey(1)]));
    }
    exchange.peer_left(PeerKey(1));
    assert_eq!(exchange.senders(), BTreeSet::from([PeerKey(1)]));
    assert_eq!(exchange.take_action(), Some(Action::Check));
    exchange.checked(false);
    assert_eq!(exchange.take_action(), Some(Action::Ban(PeerKey(1))));
    assert_eq!(exchange.senders(), BTreeSet::new());
}

#[test]
fn a_length_that_contradicts_the_handshake_and_what_nobody_asked_for_change_nothing() {
    let good = metadata(2 * BLOCK);
    let mut exchange = exchange();
    join(&mut exchange, 1, good.len() as u32);
    requests(&mut exchange, 0);
    let longer = metadata(3 * BLOCK);
    assert!(!answer(&mut exchange, 1, 0, &longer, 1));
    assert!(!answer(&mut exchange, 5, 1, &good, 1));
    assert_eq!(exchange.progress().0, 0);
    assert_eq!(requests(&mut exchange, 2), [], "it rests");
    assert!(answer(&mut exchange, 1, 1, &good, 3));
    assert_eq!(exchange.progress().0, u64::from(BLOCK));
    assert!(!answer(&mut exchange, 1, 1, &good, 3), "it is not asked");
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
            join(&mut exchange, peer, length_said(kind, &good));
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
