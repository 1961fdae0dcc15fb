//! Tests of peer exchange, one side against the other.

use super::*;
use crate::random::Random;
use proptest::prelude::*;
use std::collections::HashSet;

fn at(seconds: u64) -> Time {
    Time::default() + Duration::from_secs(seconds)
}

/// Peer `number` of a world where each /24 has one.
fn peer(number: u16) -> PexPeer {
    let [high, low] = number.to_be_bytes();
    PexPeer {
        address: SocketAddr::from(([20, high, low, 1], 6881)),
        flags: PexFlags::default(),
    }
}

fn receiver(key: Option<SwarmKey>) -> Receiver {
    let ip = IpAddr::from([9, 9, 9, 9]);
    Receiver { ip, key }
}

fn added(message: &Option<PexMessage>) -> Vec<SocketAddr> {
    let message = message.iter();
    message
        .flat_map(|one| one.added.iter().map(|peer| peer.address))
        .collect()
}

fn dropped(message: &Option<PexMessage>) -> Vec<SocketAddr> {
    message.iter().flat_map(|one| one.dropped.clone()).collect()
}

#[test]
fn the_first_message_has_the_newest_and_the_next_ones_what_changed() {
    let mut swarm = Swarm::default();
    let keys: Vec<_> = (0..60)
        .map(|number| swarm.join(peer(number)).unwrap())
        .collect();
    let mut teller = Teller::default();
    let own = receiver(Some(keys[59]));
    let first = teller.next_message(&swarm, own, at(0));
    let newest: Vec<_> = (9..59).rev().map(|number| peer(number).address).collect();
    assert_eq!(
        added(&first),
        newest,
        "the newest 50, but not the receiver itself"
    );
    assert_eq!(dropped(&first), []);

    swarm.join(peer(100));
    swarm.leave(keys[58]);
    swarm.leave(keys[0]);
    let passing = swarm.join(peer(101)).unwrap();
    swarm.leave(passing);
    assert_eq!(
        teller.next_message(&swarm, own, at(59)),
        None,
        "not before its time"
    );
    let second = teller.next_message(&swarm, own, at(60));
    assert_eq!(added(&second), [peer(100).address]);
    assert_eq!(
        dropped(&second),
        [peer(58).address],
        "nobody was told of the other two"
    );
    assert_eq!(
        teller.next_message(&swarm, own, at(120)),
        None,
        "nothing is new"
    );
    swarm.leave(keys[57]);
    let later = teller.next_message(&swarm, own, at(121));
    assert_eq!(
        dropped(&later),
        [peer(57).address],
        "as soon as there is something"
    );
}

#[test]
fn a_swarm_in_which_nobody_is_yet_is_told_of_when_somebody_comes() {
    let mut swarm = Swarm::default();
    let mut teller = Teller::default();
    let key = swarm.join(peer(1));
    assert_eq!(
        teller.next_message(&swarm, receiver(key), at(0)),
        None,
        "only itself is there"
    );
    swarm.join(peer(2));
    let first = teller.next_message(&swarm, receiver(key), at(1));
    assert_eq!(added(&first), [peer(2).address]);
}

#[test]
fn many_news_come_in_several_messages_and_too_many_not_at_all() {
    let mut swarm = Swarm::default();
    let mut teller = Teller::default();
    swarm.join(peer(0));
    teller.next_message(&swarm, receiver(None), at(0)).unwrap();
    let keys: Vec<_> = (1..=230)
        .map(|number| swarm.join(peer(number)).unwrap())
        .collect();
    let mut told = Vec::new();
    for minute in 1..=5 {
        let message = teller.next_message(&swarm, receiver(None), at(60 * minute));
        told.extend(added(&message));
        assert_eq!(added(&message).len(), if minute < 5 { 50 } else { 0 });
    }
    let due: Vec<_> = (31..=230).map(|number| peer(number).address).collect();
    assert_eq!(told, due, "the oldest news are left out");
    for key in keys {
        swarm.leave(key);
    }
    let mut gone = Vec::new();
    for minute in 5..=9 {
        let message = teller.next_message(&swarm, receiver(None), at(60 * minute));
        assert!(dropped(&message).len() <= MESSAGE_PEERS_MAX);
        gone.extend(dropped(&message));
    }
    assert_eq!(gone, due);
}

#[test]
fn a_swarm_and_what_is_remembered_of_it_are_bounded() {
    let mut swarm = Swarm::default();
    let keys: Vec<_> = (0..1_001)
        .filter_map(|number| swarm.join(peer(number)))
        .collect();
    assert_eq!(
        (keys.len(), swarm.len()),
        (SWARM_PEERS_MAX, SWARM_PEERS_MAX)
    );
    let version = swarm.version();
    for key in keys {
        swarm.leave(key);
        swarm.leave(key);
    }
    assert_eq!(swarm.version(), version + 1_000, "each goes once");
    for number in 0..5 {
        let key = swarm.join(peer(number)).unwrap();
        swarm.leave(key);
    }
    assert_eq!(swarm.departed.len(), DEPARTED_MAX);
    let mut teller = Teller::default();
    assert_eq!(teller.next_message(&swarm, receiver(None), at(0)), None);
}

#[test]
fn what_is_inside_a_network_is_told_inside_it_only() {
    let mut swarm = Swarm::default();
    for address in ["127.0.0.1:1", "10.0.0.1:2", "20.0.0.1:3"] {
        let address = address.parse().unwrap();
        let flags = PexFlags::REACHABLE;
        swarm.join(PexPeer { address, flags }).unwrap();
    }
    for (ip, due) in [("127.0.0.1", 3), ("10.0.0.9", 2), ("9.9.9.9", 1)] {
        let ip = ip.parse().unwrap();
        let receiver = Receiver { ip, key: None };
        let message = Teller::default().next_message(&swarm, receiver, at(0));
        assert_eq!(added(&message).len(), due, "{ip}");
    }
}

#[test]
fn who_tells_too_often_is_ignored_and_then_closed() {
    let mut listener = Listener::default();
    assert_eq!(listener.heed(at(0)), Ok(true));
    for count in 1..=EARLY_MAX {
        assert_eq!(listener.heed(at(44)), Ok(false), "{count}");
    }
    let mut patient = listener.clone();
    assert_eq!(
        listener.heed(at(44)),
        Err(TooOften {
            count: EARLY_MAX + 1
        })
    );
    assert_eq!(patient.heed(at(45)), Ok(true));
    assert_eq!(patient.heed(at(46)), Ok(false), "it begins anew");
}

fn message(addresses: impl IntoIterator<Item = SocketAddr>) -> PexMessage {
    let flags = PexFlags::default();
    PexMessage {
        added: addresses
            .into_iter()
            .map(|address| PexPeer { address, flags })
            .collect(),
        dropped: Vec::new(),
    }
}

#[test]
fn no_more_than_fifty_addresses_of_a_message_are_taken_and_none_that_is_wrong() {
    let mut listener = Listener::default();
    let source = IpAddr::from([9, 9, 9, 9]);
    let own: SocketAddr = "30.0.0.1:6890".parse().unwrap();
    let wrong = [
        "20.0.0.1:0",
        "0.0.0.0:1",
        "255.255.255.255:1",
        "224.0.0.1:1",
        "127.0.0.1:1",
        "10.0.0.1:1",
        "192.168.0.1:1",
        "169.254.0.1:1",
        "[::1]:1",
        "[fe80::1]:1",
        "[ff02::1]:1",
        "[::]:1",
        "[::ffff:10.0.0.1]:1",
        "30.0.0.1:6890",
        "[::ffff:30.0.0.1]:6890",
    ]
    .map(|text| text.parse().unwrap());
    let none = listener.accept(&message(wrong), source, Some(own), at(0));
    assert_eq!(none, []);
    let many = message((0..80).map(|number| peer(number).address));
    assert_eq!(listener.accept(&many, source, Some(own), at(0)).len(), 50);
    let mapped: SocketAddr = "[::ffff:20.9.9.9]:1".parse().unwrap();
    let taken = listener.accept(&message([mapped]), source, None, at(0));
    assert_eq!(taken[0].address, "20.9.9.9:1".parse().unwrap());
}

#[test]
fn nobody_fills_a_list_with_addresses_of_one_network_or_with_many() {
    let source = IpAddr::from([9, 9, 9, 9]);
    let mut listener = Listener::default();
    let mut take = |addresses: Vec<SocketAddr>, seconds| {
        listener
            .accept(&message(addresses), source, None, at(seconds))
            .len()
    };
    let v4 = |last: u8| SocketAddr::from(([20, 1, 1, last], 1));
    let v6 = |last: u16| SocketAddr::from(([0x2606, 1, 2, 3, last, last, last, last], 1));
    assert_eq!(take((0..50).map(v4).collect(), 0), 8);
    assert_eq!(take((50..100).map(v4).collect(), 60), 0);
    assert_eq!(take((0..50).map(v6).collect(), 120), 8);
    assert_eq!(
        take(vec![SocketAddr::from(([20, 1, 2, 1], 1))], 120),
        1,
        "another network"
    );
    let rest = (0..20).map(|minute| {
        take(
            (0..50)
                .map(|number| peer(1000 + 50 * minute + number).address)
                .collect(),
            180,
        )
    });
    assert_eq!(rest.sum::<usize>(), NAMED_MAX - 17);
    assert_eq!(take(vec![v4(200)], 3600), 1, "an hour later");
}

#[test]
fn hosts_of_one_site_may_be_in_one_network() {
    let mut listener = Listener::default();
    let hosts = (1..=40).map(|last| SocketAddr::from(([10, 0, 0, last], 6881)));
    let taken = listener.accept(&message(hosts), [10, 0, 0, 99].into(), None, at(0));
    assert_eq!(taken.len(), 40);
}

proptest! {
    /// Whoever follows what is told knows, when nothing changes any more, whom the other is
    /// connected to, but for those who were left out.
    #[test]
    fn what_is_told_adds_up(seed in any::<u64>()) {
        let mut random = Random::new(seed);
        let (mut swarm, mut present) = (Swarm::default(), Vec::new());
        let (mut teller, mut known) = (Teller::default(), HashSet::new());
        let mut number = 0;
        let mut now = 0;
        let mut follow = |swarm: &Swarm, now| {
            let message = teller.next_message(swarm, receiver(None), at(now));
            for address in added(&message) {
                assert!(known.insert(address), "{address} is told twice");
            }
            for address in dropped(&message) {
                assert!(known.remove(&address), "nobody was told of {address}");
            }
            known.clone()
        };
        for _ in 0..random.below(200) {
            for _ in 0..random.below(20) {
                if present.is_empty() || random.below(3) > 0 {
                    number += 1;
                    present.extend(swarm.join(peer(number)).map(|key| (key, peer(number).address)));
                } else {
                    let gone = random.below(present.len() as u64) as usize;
                    swarm.leave(present.swap_remove(gone).0);
                }
            }
            now += random.below(120);
            follow(&swarm, now);
        }
        for _ in 0..40 {
            now += 60;
            follow(&swarm, now);
        }
        let known = follow(&swarm, now + 60);
        let present: HashSet<_> = present.into_iter().map(|(_, address)| address).collect();
        if number < 45 {
            prop_assert_eq!(&known, &present);
        }
        // Who went while more had gone than are remembered stays known.
        if number < 900 {
            let gone: Vec<_> = known.difference(&present).collect();
            prop_assert!(gone.len() <= number as usize && (gone.is_empty() || number > 50), "{gone:?}");
        }
    }
}
