//! Each policy by example, and the promises of a round against random swarms.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

mod leech;

const MIB: u64 = 1 << 20;

fn seconds(seconds: u64) -> Time {
    Time(seconds * 1_000_000_000)
}

/// An interested, choked peer that has been there for long.
fn peer(key: u64) -> PeerView {
    PeerView {
        key: PeerKey(key),
        role: Role::Seeding,
        interested: true,
        choked: true,
        connected_at: Time(0),
        unchoked_at: Time(0),
        uploaded_in_round: 0,
        uploaded_since_unchoke: 0,
        progress_bytes: 0,
        total_length: 1_000 * MIB,
        piece_length: MIB as u32,
        download_rate: 0,
        snubbed: false,
    }
}

fn choker(policy: SeedPolicy, slots: u32) -> Choker {
    // With one optimistic slot more, the regular ones are `slots`.
    let config = ChokerConfig {
        slots: slots + 1,
        optimistic_slots: 1,
        policy,
        ..Default::default()
    };
    Choker::new(config, 1, Time(0))
}

fn round(choker: &mut Choker, peers: &[PeerView], now: Time) -> Vec<ChokeChange> {
    let mut changes = Vec::new();
    choker.round(peers, now, &mut changes);
    changes
}

/// Applies the changes, and returns who is unchoked then.
fn apply(peers: &mut [PeerView], changes: &[ChokeChange], now: Time) -> BTreeSet<u64> {
    for change in changes {
        let peer = peers
            .iter_mut()
            .find(|peer| peer.key == change.key)
            .unwrap();
        assert_ne!(peer.choked, change.choke, "a change changes something");
        peer.choked = change.choke;
        if !change.choke {
            peer.unchoked_at = now;
            peer.uploaded_since_unchoke = 0;
        }
    }
    peers
        .iter()
        .filter(|peer| !peer.choked)
        .map(|peer| peer.key.0)
        .collect()
}

/// The peers that a policy prefers: those that are unchoked besides the one optimistic choice.
fn preferred(policy: SeedPolicy, slots: u32, mut peers: Vec<PeerView>, now: Time) -> BTreeSet<u64> {
    // The optimistic slot falls to whoever the draw says, so several draws have the others in
    // common.
    let mut common: Option<BTreeSet<u64>> = None;
    for seed in 0..50 {
        let config = ChokerConfig {
            slots: slots + 1,
            optimistic_slots: 1,
            policy,
            ..Default::default()
        };
        let mut choker = Choker::new(config, seed, Time(0));
        let changes = round(&mut choker, &peers, now);
        let mut copy = peers.clone();
        let unchoked = apply(&mut copy, &changes, now);
        assert_eq!(unchoked.len(), slots as usize + 1);
        common = Some(match common {
            None => unchoked,
            Some(common) => common.intersection(&unchoked).copied().collect(),
        });
    }
    peers.clear();
    common.unwrap()
}

#[test]
fn without_a_limit_all_who_are_interested_are_unchoked() {
    let mut choker = Choker::new(ChokerConfig::default(), 1, Time(0));
    let mut peers: Vec<_> = (0..1_000).map(peer).collect();
    peers[3].interested = false;
    peers[4].choked = false;
    // Whoever is not interested any more keeps its slot.
    (peers[5].interested, peers[5].choked) = (false, false);
    let mut changes = Vec::with_capacity(1_000);
    choker.round(&peers, seconds(15), &mut changes);
    assert_eq!(changes.len(), 997);
    assert!(
        changes
            .iter()
            .all(|change| !change.choke && ![3, 4, 5].contains(&change.key.0))
    );
    assert_eq!(
        choker.candidates.capacity() + choker.optimistic.capacity(),
        0,
        "no allocation"
    );
    assert!(choker.may_unchoke(Role::Seeding, u32::MAX));
    assert_eq!(choker.next_timeout(), seconds(30));
}

#[test]
fn a_free_slot_needs_no_round() {
    let mut choker = choker(SeedPolicy::RoundRobin, 2);
    assert!(choker.may_unchoke(Role::Seeding, 2) && !choker.may_unchoke(Role::Seeding, 3));
    choker.set_slots(0);
    assert!(choker.may_unchoke(Role::Seeding, 1_000) && choker.slots() == 0);
}

#[test]
fn while_all_fit_all_are_unchoked_and_the_uninterested_choked() {
    let mut choker = choker(SeedPolicy::FastestUpload, 4);
    let mut peers: Vec<_> = (0..6).map(peer).collect();
    (peers[0].interested, peers[0].choked) = (false, false);
    let changes = round(&mut choker, &peers, seconds(15));
    assert_eq!(
        changes[0],
        ChokeChange {
            key: PeerKey(0),
            choke: true
        },
        "chokes go first"
    );
    assert_eq!(
        apply(&mut peers, &changes, seconds(15)),
        BTreeSet::from([1, 2, 3, 4, 5])
    );
}

#[test]
fn fewer_slots_choke_at_the_next_round() {
    let mut choker = choker(SeedPolicy::FastestUpload, 9);
    let mut peers: Vec<_> = (0..10).map(peer).collect();
    let changes = round(&mut choker, &peers, seconds(15));
    assert_eq!(apply(&mut peers, &changes, seconds(15)).len(), 10);
    choker.set_slots(1);
    let changes = round(&mut choker, &peers, seconds(16));
    assert_eq!(apply(&mut peers, &changes, seconds(16)).len(), 1);
}

#[test]
fn fastest_upload_keeps_the_fastest() {
    let mut peers: Vec<_> = (0..10).map(peer).collect();
    for (peer, sent) in peers.iter_mut().zip([5, 900, 3, 800, 0, 0, 700, 1, 2, 4]) {
        peer.choked = false;
        peer.uploaded_in_round = sent;
    }
    let kept = preferred(SeedPolicy::FastestUpload, 3, peers, seconds(15));
    assert_eq!(kept, BTreeSet::from([1, 3, 6]));
}

#[test]
fn fastest_upload_falls_back_to_who_waits_longest() {
    let mut peers: Vec<_> = (0..6).map(peer).collect();
    for (peer, unchoked) in peers.iter_mut().zip([50, 10, 40, 20, 60, 30]) {
        peer.unchoked_at = seconds(unchoked);
    }
    let kept = preferred(SeedPolicy::FastestUpload, 2, peers, seconds(100));
    assert_eq!(kept, BTreeSet::from([1, 3]));
}

/// By other rules another round comes of the same peers; how many slots there are stays.
#[test]
fn rules_that_are_changed_count_from_the_next_round_on() {
    let mut peers: Vec<_> = (0..6).map(peer).collect();
    for (number, peer) in peers.iter_mut().enumerate() {
        peer.uploaded_in_round = number as u64;
        peer.unchoked_at = seconds(number as u64);
        peer.choked = number < 3;
        peer.uploaded_since_unchoke = 1 << 40;
    }
    let of = |rules: ChokerConfig| {
        let mut choker = choker(SeedPolicy::FastestUpload, 2);
        choker.set_rules(rules);
        assert_eq!(choker.slots(), 3);
        let mut peers = peers.clone();
        let changes = round(&mut choker, &peers, seconds(100));
        apply(&mut peers, &changes, seconds(100))
    };
    let rules = |policy| ChokerConfig {
        optimistic_slots: 0,
        policy,
        ..ChokerConfig::default()
    };
    // One of the three slots is optimistic, and anybody's: 0 stands for a fifth, and one at least.
    let fastest = of(rules(SeedPolicy::FastestUpload));
    assert!(fastest.is_superset(&BTreeSet::from([4, 5])), "{fastest:?}");
    let in_turn = of(rules(SeedPolicy::RoundRobin));
    assert!(in_turn.is_superset(&BTreeSet::from([0, 1])), "{in_turn:?}");
    assert_eq!((fastest.len(), in_turn.len()), (3, 3));
}

#[test]
fn round_robin_hands_on_a_slot_once_its_quota_is_used() {
    let mut peers: Vec<_> = (0..6).map(peer).collect();
    for peer in &mut peers[..3] {
        (peer.choked, peer.unchoked_at, peer.uploaded_in_round) = (false, seconds(100), 5 * MIB);
        peer.uploaded_since_unchoke = 21 * MIB;
    }
    // Peer 1 has used less than 20 pieces, peer 2 has not had its minute.
    peers[1].uploaded_since_unchoke = 20 * MIB;
    peers[2].unchoked_at = seconds(140);
    peers[3].unchoked_at = seconds(30);
    peers[4].unchoked_at = seconds(20);
    peers[5].unchoked_at = seconds(10);
    let kept = preferred(SeedPolicy::RoundRobin, 3, peers, seconds(200));
    assert_eq!(
        kept,
        BTreeSet::from([1, 2, 5]),
        "the one that waits longest takes the slot"
    );
}

#[test]
fn round_robin_ignores_what_was_under_way_to_a_choked_peer() {
    let mut peers: Vec<_> = (0..4).map(peer).collect();
    (peers[0].uploaded_in_round, peers[0].unchoked_at) = (100 * MIB, seconds(90));
    let kept = preferred(SeedPolicy::RoundRobin, 2, peers, seconds(100));
    assert!(!kept.contains(&0), "{kept:?}");
}

#[test]
fn anti_leech_prefers_who_begins_and_who_is_almost_done() {
    let mut peers: Vec<_> = (0..8).map(peer).collect();
    for (peer, percent) in peers.iter_mut().zip([50, 1, 40, 99, 60, 30, 70, 2]) {
        peer.progress_bytes = percent * 10 * MIB;
    }
    let kept = preferred(SeedPolicy::AntiLeech, 3, peers, seconds(15));
    assert_eq!(kept, BTreeSet::from([1, 3, 7]));
    let empty = PeerView {
        total_length: 0,
        ..peer(0)
    };
    assert_eq!(anti_leech_score(&empty), 0);
    let huge = PeerView {
        total_length: u64::MAX,
        progress_bytes: u64::MAX,
        ..peer(0)
    };
    assert_eq!(anti_leech_score(&huge), 1_000);
}

/// With round-robin every peer of a swarm gets its turn, though there are few slots.
#[test]
fn round_robin_serves_everyone_in_time() {
    let mut choker = choker(SeedPolicy::RoundRobin, 3);
    let mut peers: Vec<_> = (0..40).map(peer).collect();
    let mut served = BTreeSet::new();
    let mut now = Time(0);
    for _ in 0..200 {
        now = now + Duration::from_secs(15);
        let changes = round(&mut choker, &peers, now);
        served.extend(apply(&mut peers, &changes, now));
        for peer in &mut peers {
            peer.uploaded_in_round = if peer.choked { 0 } else { 30 * MIB };
            peer.uploaded_since_unchoke += peer.uploaded_in_round;
        }
    }
    assert_eq!(served.len(), 40);
}

/// Fastest-upload alone would serve the same three for ever; the optimistic slot tries everyone.
#[test]
fn the_optimistic_slot_lasts_30_s_and_reaches_everyone() {
    let mut choker = choker(SeedPolicy::FastestUpload, 3);
    let mut peers: Vec<_> = (0..20).map(peer).collect();
    for fast in &mut peers[..3] {
        (fast.uploaded_in_round, fast.choked) = (100 * MIB, false);
    }
    let mut history = Vec::new();
    let mut now = Time(0);
    for _ in 0..1_000 {
        now = now + Duration::from_secs(15);
        let changes = round(&mut choker, &peers, now);
        let unchoked = apply(&mut peers, &changes, now);
        assert!(unchoked.is_superset(&BTreeSet::from([0, 1, 2])));
        history.extend(unchoked.into_iter().filter(|&key| key > 2));
    }
    assert_eq!(history.len(), 1_000);
    assert!(
        history.chunks(2).all(|pair| pair[0] == pair[1]),
        "two rounds each"
    );
    let changed = history
        .chunks(2)
        .zip(history[2..].chunks(2))
        .filter(|(a, b)| a != b)
        .count();
    assert!(
        changed > 400,
        "and then it goes to another: {changed} of 499"
    );
    assert_eq!(
        history.iter().collect::<BTreeSet<_>>().len(),
        17,
        "everyone in time"
    );
}

/// BEP 3: a new peer is three times as likely.
#[test]
fn new_peers_are_tried_three_times_as_often() {
    let mut counts = BTreeMap::new();
    for seed in 0..4_000 {
        let config = ChokerConfig {
            slots: 2,
            optimistic_slots: 1,
            ..Default::default()
        };
        let mut choker = Choker::new(config, seed, Time(0));
        let mut peers: Vec<_> = (0..5).map(peer).collect();
        // Peer 0 has the regular slot, peer 4 is new.
        (peers[0].uploaded_in_round, peers[0].choked) = (MIB, false);
        peers[4].connected_at = seconds(970);
        for change in round(&mut choker, &peers, seconds(1_000)) {
            *counts.entry(change.key.0).or_insert(0) += 1;
        }
    }
    // 3 of 6 for the new one, 1 of 6 for each of the others.
    assert!((1_800..2_200).contains(&counts[&4]), "{counts:?}");
    assert!(
        (1..4).all(|key| (550..780).contains(&counts[&key])),
        "{counts:?}"
    );
}

#[test]
fn the_same_seed_makes_the_same_choices() {
    let choices = |seed| {
        let config = ChokerConfig {
            slots: 5,
            ..Default::default()
        };
        let mut choker = Choker::new(config, seed, Time(0));
        let mut peers: Vec<_> = (0..50).map(peer).collect();
        let mut all = Vec::new();
        for i in 1..10 {
            let changes = round(&mut choker, &peers, seconds(i * 15));
            apply(&mut peers, &changes, seconds(i * 15));
            all.extend(changes.iter().map(|change| change.key));
        }
        all
    };
    assert_eq!(choices(7), choices(7));
    assert_ne!(choices(7), choices(8));
}

fn views() -> impl Strategy<Value = Vec<PeerView>> {
    let view = (
        any::<bool>(),
        any::<bool>(),
        0_u64..200,
        0_u64..200,
        0_u64..30,
        0_u64..1_000,
    );
    proptest::collection::vec(view, 0..60).prop_map(|views| {
        let view = |(key, (interested, choked, connected, unchoked, sent, progress))| {
            let view: PeerView = peer(key);
            PeerView {
                interested,
                choked,
                connected_at: seconds(connected),
                unchoked_at: seconds(unchoked),
                uploaded_in_round: sent * MIB,
                uploaded_since_unchoke: 2 * sent * MIB,
                progress_bytes: progress * MIB,
                ..view
            }
        };
        (0..).zip(views).map(view).collect()
    })
}

proptest! {
    /// After every round: exactly as many are unchoked as slots and interest allow, all of them
    /// interested, no peer is named twice, and nobody is preferred to a peer of a better rank but
    /// optimistically.
    #[test]
    fn a_round_keeps_its_promises(
        mut peers in views(),
        policy in prop_oneof![
            Just(SeedPolicy::RoundRobin),
            Just(SeedPolicy::FastestUpload),
            Just(SeedPolicy::AntiLeech),
        ],
        slots in proptest::collection::vec(1_u32..20, 1..6),
        optimistic_slots in 0_u32..25,
        seed in any::<u64>(),
    ) {
        let config = ChokerConfig { slots: 1, optimistic_slots, policy, ..Default::default() };
        let mut choker = Choker::new(config, seed, Time(0));
        let mut now = seconds(200);
        for slots in slots {
            choker.set_slots(slots);
            now = now + Duration::from_secs(15);
            let before = peers.clone();
            let mut changes = Vec::new();
            choker.round(&peers, now, &mut changes);
            let named: BTreeSet<_> = changes.iter().map(|change| change.key).collect();
            prop_assert_eq!(named.len(), changes.len());
            let unchoked = apply(&mut peers, &changes, now);
            let interested = peers.iter().filter(|peer| peer.interested).count();
            prop_assert_eq!(unchoked.len(), interested.min(slots as usize));
            prop_assert!(peers.iter().all(|peer| peer.interested || peer.choked));
            prop_assert_eq!(choker.next_timeout(), now + Duration::from_secs(15));

            // The naive model: sort all who are interested; the first regular ones must be
            // unchoked.
            if interested > slots as usize {
                let config = ChokerConfig { slots, ..config };
                let slots = slots as usize;
                let regular = slots - crate::choker::optimistic_slots(slots, optimistic_slots);
                let mut ranked: Vec<_> = before.iter().filter(|peer| peer.interested).collect();
                ranked.sort_by_key(|peer| rank(peer, &config, now));
                prop_assert!(ranked[..regular].iter().all(|peer| unchoked.contains(&peer.key.0)));
                prop_assert_eq!(choker.optimistic.len(), slots - regular);
            }
        }
    }

    #[test]
    fn leases_add_up_and_follow_demand(
        total in 0_u32..3_000,
        demand in proptest::collection::vec(prop_oneof![Just(0_u32), 0_u32..500], 1..20),
    ) {
        let parts = lease_slots(total, &demand);
        prop_assert_eq!(parts.len(), demand.len());
        prop_assert_eq!(parts.iter().sum::<u32>(), total);
        let asked: u32 = demand.iter().sum();
        let pairs = || parts.iter().zip(&demand);
        if asked <= total {
            prop_assert!(pairs().all(|(part, asked)| part >= asked));
            let spare = pairs().map(|(part, asked)| part - asked);
            prop_assert!(spare.clone().max().unwrap() - spare.min().unwrap() <= 1);
        } else {
            prop_assert!(pairs().all(|(part, asked)| part <= asked));
            // Who asks for more gets no less.
            for (i, j) in (0..demand.len()).flat_map(|i| (0..demand.len()).map(move |j| (i, j))) {
                prop_assert!(demand[i] <= demand[j] || parts[i] + 1 > parts[j]);
            }
            let asking = demand.iter().filter(|&&asked| asked > 0).count();
            if asking <= total as usize {
                prop_assert!(pairs().all(|(&part, &asked)| part > 0 || asked == 0));
            }
        }
    }
}

#[test]
fn leases_by_example() {
    assert_eq!(lease_slots(10, &[]), []);
    assert_eq!(lease_slots(10, &[0, 0, 0]), [4, 3, 3]);
    assert_eq!(lease_slots(10, &[1, 0, 4]), [3, 2, 5]);
    assert_eq!(lease_slots(10, &[90, 9, 1]), [8, 1, 1]);
    assert_eq!(lease_slots(2, &[5, 1, 5]), [1, 0, 1]);
    assert_eq!(lease_slots(0, &[5, 1]), [0, 0]);
    assert_eq!(
        lease_slots(u32::MAX, &[u32::MAX, u32::MAX]),
        [1 << 31, (1 << 31) - 1]
    );
    assert_eq!(lease_slots(u32::MAX, &[1, 0]), [1 << 31, (1 << 31) - 1]);
}
