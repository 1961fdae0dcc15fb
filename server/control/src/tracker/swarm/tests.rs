//! The store in virtual time, also against a naive model.

use std::collections::{BTreeMap, HashSet};

use super::choosing::choose;
use super::*;

const LIFETIME: Duration = Duration::from_secs(3600);
const HASH: InfoHashV1 = InfoHashV1([1; 20]);
const LAN: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 5));

fn limits() -> Limits {
    Limits {
        torrents_max: 1000,
        peers_per_torrent_max: 1000,
        peers_max: 10_000,
        peer_lifetime: LIFETIME,
    }
}

fn listed() -> Store {
    let store = Store::new(false, limits());
    store.allow(HASH);
    store
}

fn id(number: u32) -> PeerId {
    let mut id = *b"-SR0100-............";
    id[8..12].copy_from_slice(&number.to_be_bytes());
    PeerId(id)
}

fn seconds(seconds: u64) -> Time {
    Time(0) + Duration::from_secs(seconds)
}

/// A leecher with this number, at an address of its own.
fn peer(number: u32) -> Announce {
    let ip = Ipv4Addr::from(0x0b00_0000 + number);
    Announce {
        info_hash: HASH,
        peer_id: id(number),
        key: Some(u64::from(number)),
        endpoint: SocketAddr::new(ip.into(), 6881),
        zone: Zone::default(),
        seed: false,
        event: Event::Present,
        numwant: 50,
        ids_wanted: true,
    }
}

fn seed(number: u32) -> Announce {
    Announce {
        seed: true,
        ..peer(number)
    }
}

/// Announces; answers the counts and the endpoints that were handed out.
fn tell(store: &Store, now: Time, announce: Announce) -> (Counts, Vec<SocketAddr>) {
    let mut random = fastrand::Rng::with_seed(now.0 ^ 5);
    let mut found = Vec::new();
    let counts = store
        .announce(now, &announce, LAN, &mut random, &mut found)
        .unwrap();
    store.check_invariants();
    (counts, found.iter().map(|found| found.endpoint).collect())
}

fn counts(complete: u32, incomplete: u32, downloaded: u32) -> Counts {
    Counts {
        complete,
        incomplete,
        downloaded,
    }
}

impl Store {
    /// What must hold between any two calls.
    fn check_invariants(&self) {
        let (mut torrents, mut peers) = (0, 0);
        for shard in &self.shards {
            let shard = shard.lock().unwrap();
            shard.check_invariants();
            torrents += shard.swarms.len();
            peers += shard.count;
        }
        assert_eq!(self.sizes(), (torrents, peers));
    }
}

impl Shard {
    fn check_invariants(&self) {
        assert_eq!(self.index.len(), self.count);
        assert_eq!(self.peers.len(), self.count + self.free.len());
        let mut lived = 0;
        for (info_hash, swarm) in &self.swarms {
            let mut seen = [HashSet::new(), HashSet::new()];
            for (members, list) in swarm.members.iter().enumerate() {
                for (position, member) in list.iter().enumerate() {
                    let peer = &self.peers[member.slot as usize];
                    assert_eq!(member.endpoint, peer.endpoint);
                    assert_eq!(peer.position as usize, position);
                    assert_eq!(super::list(peer.seed, peer.endpoint.is_ipv6()), members);
                    assert_eq!(self.index[&(*info_hash, peer.endpoint)], member.slot);
                    let role = self.ids[&(*info_hash, peer.peer_id)].seed;
                    seen[usize::from(role)].insert(peer.peer_id);
                    lived += 1;
                }
            }
            assert!(swarm.listed || swarm.members.iter().any(|list| !list.is_empty()));
            assert_eq!(swarm.counts.incomplete as usize, seen[0].len());
            assert_eq!(swarm.counts.complete as usize, seen[1].len());
            self.check_zones(swarm);
        }
        assert_eq!(lived, self.count);
        let mut sites = HashMap::new();
        for (info_hash, endpoint) in self.index.keys() {
            if let Some(site) = Site::of(endpoint.ip()) {
                *sites.entry((*info_hash, site)).or_insert(0) += 1;
            }
        }
        assert_eq!(self.sites, sites);
        let entries: u32 = self.ids.values().map(|id| id.entries).sum();
        assert_eq!(entries as usize, self.count);
        // The list goes from the one longest not seen to the one seen last, and back.
        let (mut slot, mut before, mut length) = (self.oldest, NONE, 0);
        while slot != NONE {
            let peer = &self.peers[slot as usize];
            assert!(peer.older == before && !peer.permanent);
            assert!(before == NONE || self.peers[before as usize].seen <= peer.seen);
            (before, slot, length) = (slot, peer.newer, length + 1);
        }
        assert_eq!(self.newest, before);
        let permanent = self
            .index
            .values()
            .filter(|slot| self.peers[**slot as usize].permanent);
        assert_eq!(length + permanent.count(), self.count);
    }

    /// Whoever has a zone stands in that zone's lists, and nobody else.
    fn check_zones(&self, swarm: &Swarm) {
        let mut zoned = 0;
        for (zone, lists) in &swarm.zones {
            assert!(lists.iter().any(|list| !list.is_empty()));
            for (members, list) in lists.iter().enumerate() {
                for (position, member) in list.iter().enumerate() {
                    let peer = &self.peers[member.slot as usize];
                    assert_eq!(member.endpoint, peer.endpoint);
                    assert_eq!((peer.zone, peer.zone_position as usize), (*zone, position));
                    assert_eq!(super::list(peer.seed, peer.endpoint.is_ipv6()), members);
                    assert_ne!(peer.zone, Zone::default());
                    zoned += 1;
                }
            }
        }
        let all = swarm.members.iter().flatten();
        let due = all.filter(|member| self.peers[member.slot as usize].zone != Zone::default());
        assert_eq!(due.count(), zoned);
    }
}

#[test]
fn one_address_of_the_world_has_few_peers_of_a_torrent_and_one_inside_has_many() {
    let store = listed();
    tell(&store, seconds(0), peer(9_999));
    let at = |ip: [u8; 4], port| Announce {
        // Who is at two addresses would be counted once.
        peer_id: id(u32::from(port) + 1000 * u32::from(ip[0])),
        key: Some(u64::from(port) + 1000 * u64::from(ip[0])),
        endpoint: SocketAddr::from((ip, port)),
        ..peer(0)
    };
    let listed = |ip: [u8; 4]| {
        let most = (1..200).map(|port| tell(&store, seconds(1), at(ip, port)).0.incomplete);
        most.max().unwrap()
    };
    assert_eq!(listed([11, 9, 9, 9]), PEERS_PER_SITE_MAX + 1);
    assert_eq!(listed([10, 9, 9, 9]), PEERS_PER_SITE_MAX + 1 + 199);
    // Who is listed may say so again, and who leaves makes room.
    tell(
        &store,
        seconds(2),
        Announce {
            seed: true,
            ..at([11, 9, 9, 9], 1)
        },
    );
    let stopped = Announce {
        event: Event::Stopped,
        ..at([11, 9, 9, 9], 2)
    };
    assert_eq!(tell(&store, seconds(2), stopped).0, counts(1, 63 + 199, 0));
    let (now, found) = tell(&store, seconds(3), at([11, 9, 9, 9], 199));
    assert_eq!((now, found.is_empty()), (counts(1, 64 + 199, 0), false));
}

#[test]
fn nobody_in_the_world_is_told_of_peers_inside_a_network() {
    let store = listed();
    let inside = Announce {
        endpoint: SocketAddr::from(([10, 0, 0, 7], 6881)),
        ..peer(1)
    };
    tell(&store, seconds(0), inside);
    assert_eq!(tell(&store, seconds(1), peer(2)).1, []);
    let neighbour = Announce {
        endpoint: SocketAddr::from(([10, 0, 0, 8], 6881)),
        ..peer(3)
    };
    let (_, found) = tell(&store, seconds(2), neighbour);
    assert!(found.contains(&inside.endpoint) && found.contains(&peer(2).endpoint));
}

#[test]
fn peers_find_each_other() {
    let store = listed();
    assert_eq!(tell(&store, seconds(0), peer(1)), (counts(0, 1, 0), vec![]));
    assert_eq!(
        tell(&store, seconds(1), peer(2)),
        (counts(0, 2, 0), vec![peer(1).endpoint])
    );
    assert_eq!(
        tell(&store, seconds(2), peer(1)),
        (counts(0, 2, 0), vec![peer(2).endpoint])
    );
}

#[test]
fn seeds_are_not_given_to_seeds() {
    let store = listed();
    tell(&store, seconds(0), seed(1));
    assert_eq!(tell(&store, seconds(1), seed(2)), (counts(2, 0, 0), vec![]));
    let (_, found) = tell(&store, seconds(2), peer(3));
    assert_eq!(found.len(), 2);
    assert_eq!(tell(&store, seconds(3), seed(1)).1, [peer(3).endpoint]);
}

/// aria2 announces a magnet link with `left=0`, and has to find the seeds all the same.
#[test]
fn who_starts_is_given_seeds_whatever_it_says_is_left() {
    let store = listed();
    tell(&store, seconds(0), seed(1));
    let started = Announce {
        event: Event::Started,
        ..seed(2)
    };
    assert_eq!(tell(&store, seconds(1), started).1, [seed(1).endpoint]);
    assert_eq!(tell(&store, seconds(2), seed(2)).1, []);
}

#[test]
fn a_peer_stops() {
    let store = listed();
    tell(&store, seconds(0), peer(1));
    let stopped = Announce {
        event: Event::Stopped,
        ..peer(1)
    };
    // Another one behind the same address cannot stop it, the same one with a new peer id can.
    let stranger = Announce {
        peer_id: id(9),
        key: Some(9),
        ..stopped
    };
    assert_eq!(tell(&store, seconds(1), stranger).0, counts(0, 1, 0));
    let keyless = Announce {
        key: None,
        ..stranger
    };
    assert_eq!(tell(&store, seconds(1), keyless).0, counts(0, 1, 0));
    assert_eq!(
        tell(
            &store,
            seconds(2),
            Announce {
                peer_id: id(9),
                ..stopped
            }
        )
        .0,
        counts(0, 0, 0)
    );
    assert_eq!(tell(&store, seconds(3), stopped), (counts(0, 0, 0), vec![]));
}

#[test]
fn a_restarted_peer_is_counted_once() {
    let store = listed();
    tell(&store, seconds(0), peer(1));
    let restarted = Announce {
        peer_id: id(2),
        key: Some(77),
        seed: true,
        ..peer(1)
    };
    assert_eq!(tell(&store, seconds(1), restarted).0, counts(1, 0, 0));
    assert_eq!(store.sizes(), (1, 1));
}

#[test]
fn a_peer_of_both_families_is_counted_once() {
    let store = listed();
    let v6 = Announce {
        endpoint: "[2606:4700::1]:6881".parse().unwrap(),
        ..peer(1)
    };
    tell(&store, seconds(0), peer(1));
    assert_eq!(tell(&store, seconds(0), v6), (counts(0, 1, 0), vec![]));
    assert_eq!(
        tell(&store, seconds(1), Announce { seed: true, ..v6 }).0,
        counts(1, 0, 0)
    );
    // Its own family's addresses come first, the other's fill up.
    let (_, found) = tell(&store, seconds(2), peer(2));
    assert_eq!(found, [peer(1).endpoint, v6.endpoint]);
    let one = Announce {
        numwant: 1,
        ..peer(2)
    };
    assert_eq!(tell(&store, seconds(3), one).1, [peer(1).endpoint]);
    let stopped = Announce {
        event: Event::Stopped,
        ..v6
    };
    assert_eq!(tell(&store, seconds(4), stopped).0, counts(1, 1, 0));
}

#[test]
fn completed_counts_once_and_only_for_leechers() {
    let store = listed();
    let completed = Announce {
        event: Event::Completed,
        ..seed(1)
    };
    assert_eq!(tell(&store, seconds(0), completed).0, counts(1, 0, 0));
    tell(&store, seconds(1), peer(2));
    let completed = Announce {
        event: Event::Completed,
        ..seed(2)
    };
    assert_eq!(tell(&store, seconds(2), completed).0, counts(2, 0, 1));
    assert_eq!(tell(&store, seconds(3), completed).0, counts(2, 0, 1));
    assert_eq!(store.scrape(seconds(4), HASH), Some(counts(2, 0, 1)));
}

#[test]
fn peers_expire_when_their_lifetime_is_over() {
    let store = listed();
    (0..500).for_each(|number| drop(tell(&store, seconds(0), peer(number))));
    tell(&store, seconds(1800), peer(7));
    store.tick(seconds(3599));
    assert_eq!(store.sizes(), (1, 500));
    store.tick(seconds(3600));
    assert_eq!(store.sizes(), (1, 1));
    assert_eq!(store.scrape(seconds(5399), HASH), Some(counts(0, 1, 0)));
    assert_eq!(store.scrape(seconds(5400), HASH), Some(counts(0, 0, 0)));
    store.check_invariants();
}

#[test]
fn one_announce_expires_a_few_only() {
    let store = listed();
    (0..500).for_each(|number| drop(tell(&store, seconds(0), peer(number))));
    tell(&store, seconds(4000), peer(1000));
    assert_eq!(store.sizes(), (1, 501 - EXPIRE_MAX));
}

#[test]
fn unlisted_torrents_are_refused_unless_open() {
    let mut random = fastrand::Rng::with_seed(1);
    let mut ask = |store: &Store, number: u8| {
        let announce = Announce {
            info_hash: InfoHashV1([number; 20]),
            ..peer(1)
        };
        store.announce(seconds(0), &announce, LAN, &mut random, &mut Vec::new())
    };
    assert_eq!(ask(&listed(), 9), Err(Refused::Unlisted));
    let open = Store::new(
        true,
        Limits {
            torrents_max: 2,
            ..limits()
        },
    );
    assert!(ask(&open, 1).is_ok() && ask(&open, 2).is_ok());
    assert_eq!(ask(&open, 3), Err(Refused::Full));
    // Nothing is kept of a torrent whose last peer is gone.
    open.tick(seconds(4000));
    assert_eq!(open.sizes(), (0, 0));
    assert!(ask(&open, 3).is_ok());
    open.check_invariants();
}

/// A peer in a zone: the numbers below 100 are in zone 1, and so on.
fn zoned(number: u32) -> Announce {
    Announce {
        zone: Zone((number / 100 + 1) as u16),
        numwant: 20,
        ..peer(number)
    }
}

#[test]
fn most_peers_are_of_the_askers_zone_and_some_are_drawn_from_all() {
    let store = listed();
    for number in 0..500 {
        tell(&store, seconds(0), zoned(number));
    }
    let mut outside = 0;
    for round in 0..50 {
        let (_, found) = tell(&store, seconds(1 + round), zoned(7));
        assert_eq!(found.len(), 20);
        assert_eq!(
            HashSet::<&SocketAddr>::from_iter(&found).len(),
            20,
            "nobody twice"
        );
        assert!(!found.contains(&peer(7).endpoint));
        let near: Vec<SocketAddr> = (0..100).map(|number| peer(number).endpoint).collect();
        let inside = found
            .iter()
            .filter(|endpoint| near.contains(endpoint))
            .count();
        assert!(inside >= 15, "{inside}");
        outside += 20 - inside;
    }
    // Of 5 that are drawn from all, 4 in 5 are of another zone: 200 of 250.
    assert!((150..=240).contains(&outside), "{outside}");
}

#[test]
fn a_small_zone_is_filled_up_and_no_label_means_everybody() {
    let store = listed();
    (0..3).for_each(|number| drop(tell(&store, seconds(0), zoned(number))));
    (100..200).for_each(|number| drop(tell(&store, seconds(0), zoned(number))));
    let (_, found) = tell(&store, seconds(1), zoned(0));
    assert_eq!(found.len(), 20);
    let near = [peer(1).endpoint, peer(2).endpoint];
    assert!(
        near.iter().all(|endpoint| found[..2].contains(endpoint)),
        "first"
    );
    let unlabelled = Announce {
        zone: Zone::default(),
        ..zoned(900)
    };
    assert_eq!(tell(&store, seconds(2), unlabelled).1.len(), 20);
    // Who moves to another zone is found there.
    tell(
        &store,
        seconds(3),
        Announce {
            zone: Zone(2),
            ..zoned(1)
        },
    );
    let (_, found) = tell(
        &store,
        seconds(4),
        Announce {
            numwant: 1,
            ..zoned(0)
        },
    );
    assert_eq!(found, [peer(2).endpoint]);
}

#[test]
fn a_disallowed_torrent_is_forgotten() {
    let store = listed();
    store.register_local(HASH, id(99), 6890);
    (0..10).for_each(|number| drop(tell(&store, seconds(0), peer(number))));
    store.disallow(HASH);
    store.check_invariants();
    assert_eq!(
        (store.sizes(), store.scrape(seconds(0), HASH)),
        ((0, 0), None)
    );
}

#[test]
fn a_full_swarm_makes_room_and_a_full_store_drops_the_oldest() {
    let small = Limits {
        peers_per_torrent_max: 10,
        peers_max: 15,
        ..limits()
    };
    let store = Store::new(true, small);
    (0..100).for_each(|number| drop(tell(&store, seconds(number.into()), peer(number))));
    assert_eq!(store.sizes(), (1, 10));
    // The newest is always there.
    let watcher = Announce {
        event: Event::Present,
        endpoint: "11.9.9.9:0".parse().unwrap(),
        ..peer(500)
    };
    let (_, found) = tell(&store, seconds(200), watcher);
    assert!(found.len() == 10 && found.contains(&peer(99).endpoint));
    let other = |number| Announce {
        info_hash: InfoHashV1([17; 20]),
        ..peer(number)
    };
    for number in 0..100 {
        tell(&store, seconds(300 + u64::from(number)), other(number));
    }
    assert!(store.sizes().1 <= 15);
    assert_eq!(
        store
            .scrape(seconds(500), InfoHashV1([17; 20]))
            .unwrap()
            .incomplete,
        10
    );
}

#[test]
fn who_cannot_be_reached_is_answered_but_not_handed_out() {
    let store = listed();
    tell(&store, seconds(0), peer(1));
    for endpoint in ["11.0.0.9:0", "169.254.1.1:6881", "[fe80::1]:6881"] {
        let announce = Announce {
            endpoint: endpoint.parse().unwrap(),
            ..peer(2)
        };
        assert_eq!(
            tell(&store, seconds(1), announce).1,
            [peer(1).endpoint],
            "{endpoint}"
        );
        assert_eq!(store.sizes(), (1, 1));
    }
}

#[test]
fn a_peer_on_this_machine_is_handed_out_as_the_address_that_was_reached() {
    let store = listed();
    let local = Announce {
        endpoint: "127.0.0.1:6890".parse().unwrap(),
        ..seed(1)
    };
    tell(&store, seconds(0), local);
    assert_eq!(
        tell(&store, seconds(1), peer(2)).1,
        ["192.168.1.5:6890".parse().unwrap()]
    );
    let beside = Announce {
        endpoint: "127.0.0.1:7000".parse().unwrap(),
        ..peer(3)
    };
    assert!(tell(&store, seconds(2), beside).1.contains(&local.endpoint));
    // Which IPv6 address leads to it is not known.
    let v6 = Announce {
        endpoint: "[2606:4700::9]:1".parse().unwrap(),
        ..peer(4)
    };
    let mut found = Vec::new();
    let reached = "2606:4700::5".parse().unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    store
        .announce(seconds(3), &v6, reached, &mut random, &mut found)
        .unwrap();
    assert_eq!(
        found.iter().map(|found| found.endpoint).collect::<Vec<_>>(),
        [peer(2).endpoint]
    );
}

#[test]
fn our_own_seed_is_there_for_both_families_and_for_ever() {
    let store = Store::new(false, limits());
    store.register_local(HASH, id(99), 6890);
    store.register_local(HASH, id(99), 6890);
    let now = seconds(100_000);
    store.tick(now);
    assert_eq!(store.scrape(now, HASH), Some(counts(1, 0, 0)));
    assert_eq!(
        tell(&store, now, peer(1)).1,
        ["192.168.1.5:6890".parse().unwrap()]
    );
    // Its own announces over loopback change nothing, its `stopped` neither.
    let own = Announce {
        peer_id: id(99),
        endpoint: "127.0.0.1:6890".parse().unwrap(),
        ..seed(1)
    };
    assert_eq!(
        tell(&store, now, own),
        (counts(1, 1, 0), vec![peer(1).endpoint])
    );
    let stopped = Announce {
        event: Event::Stopped,
        ..own
    };
    assert_eq!(tell(&store, now, stopped).0, counts(1, 1, 0));
}

#[test]
fn a_full_swarm_never_drops_our_own_seed() {
    let store = Store::new(
        false,
        Limits {
            peers_per_torrent_max: 1,
            peers_max: 2,
            ..limits()
        },
    );
    store.register_local(HASH, id(99), 6890);
    for number in 0..20 {
        tell(&store, seconds(0), peer(number));
    }
    assert_eq!(store.scrape(seconds(0), HASH).unwrap().complete, 1);
}

#[test]
fn choosing_is_fair_and_without_repetition() {
    let mut random = fastrand::Rng::with_seed(3);
    let mut times = [0u32; 40];
    for _ in 0..10_000 {
        let mut chosen = Vec::new();
        choose(40, 10, &mut random, |number| chosen.push(number));
        assert_eq!(chosen.iter().collect::<HashSet<_>>().len(), 10);
        chosen.into_iter().for_each(|number| times[number] += 1);
    }
    assert!(
        times.iter().all(|times| (2200..=2800).contains(times)),
        "{times:?}"
    );
    for (size, wanted) in (1..200).map(|size| (size, size / 2)) {
        let mut chosen = HashSet::new();
        choose(size, wanted, &mut random, |number| {
            assert!(number < size && chosen.insert(number));
        });
        assert_eq!(chosen.len(), wanted);
    }
    for (size, wanted) in [(0, 5), (3, 5), (5, 5), (5, 0)] {
        let mut count = 0;
        choose(size, wanted, &mut random, |_| count += 1);
        assert_eq!(count, size.min(wanted));
    }
}

#[test]
fn random_announces_agree_with_a_naive_model() {
    let store = Store::new(true, limits());
    let mut random = fastrand::Rng::with_seed(11);
    // By endpoint: its peer and when it was last seen.
    let mut model: BTreeMap<(u8, SocketAddr), (Announce, Time)> = BTreeMap::new();
    let mut now = Time(0);
    for _ in 0..20_000 {
        now = now + Duration::from_secs(random.u64(0..60));
        let hash = random.u8(0..3);
        let number = random.u32(0..60);
        let mut announce = if random.bool() {
            peer(number)
        } else {
            seed(number)
        };
        announce.info_hash = InfoHashV1([hash; 20]);
        if random.bool() {
            let ip = Ipv6Addr::from(0x2606_4700 << 96 | u128::from(number));
            announce.endpoint.set_ip(ip.into());
        }
        announce.event = match random.u32(0..8) {
            0 => Event::Stopped,
            1 => Event::Completed,
            2 => Event::Started,
            _ => Event::Present,
        };
        model.retain(|_, (_, seen)| now.since(*seen) < LIFETIME);
        store.tick(now);
        let mut found = Vec::new();
        store
            .announce(now, &announce, LAN, &mut random, &mut found)
            .unwrap();
        if announce.event == Event::Stopped {
            model.remove(&(hash, announce.endpoint));
            assert!(found.is_empty());
        } else {
            model.insert((hash, announce.endpoint), (announce, now));
        }
        let swarm = || model.iter().filter(|((of, _), _)| *of == hash);
        let leechers_only = announce.seed && announce.event != Event::Started;
        let eligible =
            |other: &Announce| other.peer_id != announce.peer_id && !(leechers_only && other.seed);
        let given: HashSet<SocketAddr> = found.iter().map(|found| found.endpoint).collect();
        assert_eq!(given.len(), found.len());
        if announce.event != Event::Stopped {
            let possible = swarm().filter(|(_, (other, _))| eligible(other)).count();
            assert_eq!(given.len(), possible.min(50));
        }
        for endpoint in given {
            assert!(eligible(&model[&(hash, endpoint)].0));
        }
        assert_eq!(store.sizes().1, model.len());
    }
    store.check_invariants();
}
