//! Torrents that we still download: tit-for-tat, the policy of a data center, both roles together.

use super::*;

/// A peer of a torrent that we download, which gives us so many bytes a second.
fn giver(key: u64, download_rate: u64) -> PeerView {
    PeerView {
        role: Role::Downloading,
        download_rate,
        ..peer(key)
    }
}

fn leech_choker(leech: LeechPolicy, seed: u64) -> Choker {
    let config = ChokerConfig {
        leech,
        ..Default::default()
    };
    Choker::new(config, seed, Time(0))
}

const FOUR: LeechPolicy = LeechPolicy::TitForTat { slots: 4 };

/// Who is unchoked whatever the draw says, and who is sometimes.
fn always_and_ever(leech: LeechPolicy, peers: &[PeerView]) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let mut always: BTreeSet<u64> = peers.iter().map(|peer| peer.key.0).collect();
    let mut ever = BTreeSet::new();
    for seed in 0..200 {
        let mut peers = peers.to_vec();
        let mut choker = leech_choker(leech, seed);
        let changes = round(&mut choker, &peers, seconds(1_000));
        let unchoked = apply(&mut peers, &changes, seconds(1_000));
        always.retain(|key| unchoked.contains(key));
        ever.extend(unchoked);
    }
    (always, ever)
}

#[test]
fn tit_for_tat_unchokes_the_best_givers_and_one_by_chance() {
    let rates = [5, 900, 3, 800, 0, 0, 700, 1, 2, 4];
    let peers: Vec<_> = (0..)
        .zip(rates)
        .map(|(key, rate)| giver(key, rate))
        .collect();
    let (always, ever) = always_and_ever(FOUR, &peers);
    assert_eq!(always, BTreeSet::from([1, 3, 6]));
    assert_eq!(ever.len(), 10, "everybody is tried");
    let mut choker = leech_choker(FOUR, 1);
    assert_eq!(round(&mut choker, &peers, seconds(10)).len(), 4);
}

#[test]
fn who_gives_nothing_or_snubs_us_gets_a_slot_only_by_chance() {
    let mut peers: Vec<_> = (0..12).map(|key| giver(key, 0)).collect();
    (peers[3].download_rate, peers[5].download_rate) = (10, 1_000);
    peers[5].snubbed = true;
    let (always, ever) = always_and_ever(FOUR, &peers);
    assert_eq!(always, BTreeSet::from([3]));
    assert_eq!(ever.len(), 12);
    // The slots that nobody deserves are used all the same.
    let mut choker = leech_choker(FOUR, 1);
    assert_eq!(round(&mut choker, &peers, seconds(10)).len(), 4);
    assert_eq!(choker.optimistic.len(), 3);
}

#[test]
fn an_optimistic_slot_lasts_three_rounds_of_ten_seconds() {
    let mut choker = leech_choker(FOUR, 3);
    let mut peers: Vec<_> = (0..20).map(|key| giver(key, 0)).collect();
    (0..3).for_each(|key| peers[key].download_rate = 100);
    let mut history = Vec::new();
    for _ in 0..900 {
        let now = choker.next_timeout();
        let changes = round(&mut choker, &peers, now);
        assert_eq!(choker.next_timeout(), now + Duration::from_secs(10));
        let unchoked = apply(&mut peers, &changes, now);
        assert!(unchoked.is_superset(&BTreeSet::from([0, 1, 2])));
        history.extend(unchoked.into_iter().filter(|&key| key > 2));
    }
    assert_eq!(history.len(), 900);
    assert!(
        history
            .chunks(3)
            .all(|turn| turn[0] == turn[1] && turn[1] == turn[2])
    );
    let turns: Vec<_> = history.iter().step_by(3).collect();
    let changed = turns.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(changed > 250, "{changed} of 299");
    assert_eq!(turns.into_iter().collect::<BTreeSet<_>>().len(), 17);
}

#[test]
fn new_peers_are_tried_three_times_as_often_in_a_download_too() {
    let mut counts = BTreeMap::new();
    for seed in 0..4_000 {
        let mut peers: Vec<_> = (0..5).map(|key| giver(key, 0)).collect();
        peers[0].download_rate = 100;
        peers[4].connected_at = seconds(970);
        let mut choker = leech_choker(LeechPolicy::TitForTat { slots: 2 }, seed);
        for change in round(&mut choker, &peers, seconds(1_000)) {
            *counts.entry(change.key.0).or_insert(0) += 1;
        }
    }
    assert_eq!(counts[&0], 4_000, "it has the regular slot");
    assert!((1_800..2_200).contains(&counts[&4]), "{counts:?}");
    assert!(
        (1..4).all(|key| (550..780).contains(&counts[&key])),
        "{counts:?}"
    );
}

#[test]
fn without_a_number_the_upload_rate_says_how_many_slots() {
    let mut choker = leech_choker(LeechPolicy::default(), 1);
    let mut peers: Vec<_> = (0..500).map(|key| giver(key, 1)).collect();
    let mut unchoked_at = |rate: u64, rounds: u32| {
        let mut count = 0;
        for _ in 0..rounds {
            let now = choker.next_timeout();
            peers[0].uploaded_in_round = rate * 10;
            let changes = round(&mut choker, &peers, now);
            count = apply(&mut peers, &changes, now).len();
        }
        count
    };
    assert_eq!(unchoked_at(0, 1), 4);
    // sqrt(0.6 * 1,250), sqrt(0.6 * 125,000)
    assert_eq!(unchoked_at(1_250_000, 1), 27);
    assert_eq!(unchoked_at(125_000_000, 1), 273);
    assert!(unchoked_at(0, 1) > 200, "not at once fewer");
    assert_eq!(unchoked_at(0, 100), 4);
}

#[test]
fn a_round_out_of_turn_measures_no_rate_from_nothing() {
    let mut choker = leech_choker(LeechPolicy::default(), 1);
    let mut peers: Vec<_> = (0..100).map(|key| giver(key, 1)).collect();
    let changes = round(&mut choker, &peers, seconds(10));
    apply(&mut peers, &changes, seconds(10));
    // In the first millisecond of a round a megabyte is no gigabyte per second.
    peers[0].uploaded_in_round = MIB;
    let now = seconds(10) + Duration::from_millis(1);
    assert_eq!(round(&mut choker, &peers, now), []);
}

#[test]
fn a_free_slot_of_a_download_is_claimed_once() {
    let mut choker = leech_choker(FOUR, 1);
    let mut peers: Vec<_> = (0..2).map(|key| giver(key, 0)).collect();
    let changes = round(&mut choker, &peers, seconds(10));
    apply(&mut peers, &changes, seconds(10));
    assert!(choker.may_unchoke(Role::Downloading, 2));
    assert!(choker.claim(Role::Downloading, 2) && choker.claim(Role::Downloading, 3));
    assert!(!choker.claim(Role::Downloading, 4));
    assert!(
        choker.claim(Role::Seeding, 4),
        "that of a seed is without limit"
    );
    choker.set_slots(4);
    assert!(!choker.claim(Role::Seeding, 4));
}

/// The slots of a download that has ended are free for the next one, before its first round.
#[test]
fn a_download_that_begins_finds_its_slots_free() {
    for slots in [0, 100] {
        let mut choker = leech_choker(FOUR, 1);
        choker.set_slots(slots);
        let mut peers: Vec<_> = (0..10).map(|key| giver(key, 0)).collect();
        let changes = round(&mut choker, &peers, seconds(10));
        apply(&mut peers, &changes, seconds(10));
        assert!(!choker.may_unchoke(Role::Downloading, 4));
        peers.iter_mut().for_each(|peer| peer.role = Role::Seeding);
        round(&mut choker, &peers, seconds(20));
        assert!((10..14).all(|unchoked| choker.claim(Role::Downloading, unchoked)));
        assert!(!choker.claim(Role::Downloading, 14));
    }
}

#[test]
fn in_a_data_center_everybody_is_unchoked_up_to_the_limit() {
    let policy = LeechPolicy::Datacenter { slots_max: 30 };
    let mut peers: Vec<_> = (0..30).map(|key| giver(key, 0)).collect();
    peers[7].snubbed = true;
    let (always, _) = always_and_ever(policy, &peers);
    assert_eq!(always.len(), 30);
    // Above the limit, among equals, who has a slot keeps it, but for the fifth that goes round.
    let mut choker = leech_choker(policy, 1);
    let changes = round(&mut choker, &peers, seconds(10));
    apply(&mut peers, &changes, seconds(10));
    peers.extend((30..60).map(|key| giver(key, 0)));
    let mut tried = BTreeSet::new();
    for turn in 2..60 {
        let changes = round(&mut choker, &peers, seconds(10 * turn));
        let unchoked = apply(&mut peers, &changes, seconds(10 * turn));
        assert_eq!(unchoked.len(), 30);
        assert!(unchoked.range(..30).count() >= 24);
        tried.extend(unchoked);
    }
    assert_eq!(tried.len(), 60);
    // Who gives comes first.
    (50..60).for_each(|key| peers[key].download_rate = 1_000);
    let (always, _) = always_and_ever(policy, &peers);
    assert!(always.is_superset(&(50..60).collect()), "{always:?}");
    assert_eq!(
        LeechPolicy::Datacenter { slots_max: 0 }.slots(&SlotsByRate::new(Time(0))),
        1
    );
}

/// A torrent that completes changes only how its peers are ranked: who is unchoked stays so until
/// the round, and an optimistic slot lasts its time.
#[test]
fn a_torrent_that_completes_keeps_its_peers_slots() {
    let config = ChokerConfig {
        slots: 4,
        leech: FOUR,
        policy: SeedPolicy::FastestUpload,
        ..Default::default()
    };
    let mut choker = Choker::new(config, 5, Time(0));
    let mut peers: Vec<_> = (0..10).map(|key| giver(key, key)).collect();
    let changes = round(&mut choker, &peers, seconds(10));
    let before = apply(&mut peers, &changes, seconds(10));
    assert!(before.is_superset(&BTreeSet::from([7, 8, 9])));
    let lucky = choker.optimistic.clone();
    for peer in &mut peers {
        peer.role = Role::Seeding;
        // The best givers are the best takers, too: so nothing changes.
        peer.uploaded_in_round = peer.download_rate;
    }
    assert_eq!(round(&mut choker, &peers, seconds(20)), []);
    assert_eq!(choker.optimistic, lucky);
    assert_eq!(
        choker.next_timeout(),
        seconds(35),
        "rounds of a seed from now on"
    );
    // Now by what they take.
    (0..10).for_each(|key| peers[key].uploaded_in_round = 10 - key as u64);
    let changes = round(&mut choker, &peers, seconds(50));
    let after = apply(&mut peers, &changes, seconds(50));
    assert!(after.is_superset(&BTreeSet::from([0, 1, 2])), "{after:?}");
}

#[test]
fn a_seed_without_limit_serves_all_beside_a_download() {
    let mut choker = leech_choker(FOUR, 1);
    let mut peers: Vec<_> = (0..50).map(peer).collect();
    (peers[9].interested, peers[9].choked) = (false, false);
    peers.extend((50..100).map(|key| giver(key, key)));
    (peers[60].interested, peers[60].choked) = (false, false);
    let changes = round(&mut choker, &peers, seconds(10));
    let unchoked = apply(&mut peers, &changes, seconds(10));
    assert_eq!(
        unchoked.range(..50).count(),
        50,
        "who is idle keeps its slot there"
    );
    assert_eq!(unchoked.range(50..).count(), 4);
    assert!(!unchoked.contains(&60));
}

fn mixed_views() -> impl Strategy<Value = Vec<PeerView>> {
    let extra = (any::<bool>(), 0_u64..5, any::<bool>());
    (views(), proptest::collection::vec(extra, 60)).prop_map(|(mut views, extras)| {
        for (view, (downloading, rate, snubbed)) in views.iter_mut().zip(extras) {
            view.role = if downloading {
                Role::Downloading
            } else {
                Role::Seeding
            };
            (view.download_rate, view.snubbed) = (rate * 1_000, snubbed);
        }
        views
    })
}

proptest! {
    /// After every round: at most as many are unchoked as there are slots, in downloads at most
    /// their own number; none is left unused while somebody waits; the best givers have theirs.
    #[test]
    fn a_round_of_both_roles_keeps_its_promises(
        mut peers in mixed_views(),
        slots in prop_oneof![Just(0_u32), 1_u32..20],
        leech_slots in 1_u32..10,
        datacenter in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let leech = match datacenter {
            true => LeechPolicy::Datacenter { slots_max: leech_slots },
            false => LeechPolicy::TitForTat { slots: leech_slots },
        };
        let config = ChokerConfig { slots, leech, ..Default::default() };
        let mut choker = Choker::new(config, seed, Time(0));
        for turn in 20..24 {
            let now = seconds(turn * 10);
            let before = peers.clone();
            let changes = round(&mut choker, &peers, now);
            let chokes_first = changes.iter().skip_while(|change| change.choke);
            prop_assert!(chokes_first.into_iter().all(|change| !change.choke));
            let unchoked = apply(&mut peers, &changes, now);
            let of = |role: Role| peers.iter().filter(move |peer| peer.role == role);
            let interested = |role| of(role).filter(|peer| peer.interested).count();
            let open = |role| of(role).filter(|peer| !peer.choked).count();
            let wanted = interested(Role::Downloading).min(leech_slots as usize);
            let all = interested(Role::Seeding) + wanted;
            prop_assert!(of(Role::Downloading).all(|peer| peer.interested || peer.choked));
            if slots == 0 {
                prop_assert_eq!(open(Role::Downloading), wanted);
                prop_assert!(of(Role::Seeding).all(|peer| !peer.interested || !peer.choked));
            } else {
                prop_assert_eq!(unchoked.len(), all.min(slots as usize));
                prop_assert!(open(Role::Downloading) <= wanted);
            }

            // The naive model: sort all who deserve a slot; the first regular ones must be
            // unchoked.
            let given = open(Role::Downloading);
            if given < interested(Role::Downloading) && given > 0 {
                let candidates = before.iter().filter(|peer| peer.interested && peer.role == Role::Downloading);
                let mut ranked: Vec<_> = candidates.filter(|peer| leech.deserves(peer)).collect();
                ranked.sort_by_key(|peer| crate::choker::leech::rank(peer, &config));
                let regular = given - optimistic_slots(given, 0);
                prop_assert!(ranked.iter().take(regular).all(|peer| unchoked.contains(&peer.key.0)));
            }
        }
    }
}
