//! Tests of the list: its order, its limits, who is kept away.

use super::*;
use crate::random::Random;
use proptest::prelude::*;

const TRACKER: PeerSource = PeerSource::Tracker;

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 6881))
}

fn at(seconds: u64) -> Time {
    Time::default() + Duration::from_secs(seconds)
}

fn list() -> PeerList {
    PeerList::new(PeerListConfig::default())
}

#[test]
fn addresses_are_taken_once_in_their_order() {
    let mut list = list();
    assert!(list.add(address(1), TRACKER, at(0)) && list.add(address(2), TRACKER, at(0)));
    assert!(!list.add(address(1), TRACKER, at(0)), "it is known");
    assert_eq!(list.take(at(0)), Some(address(1)));
    assert!(!list.add(address(1), TRACKER, at(0)), "it is taken");
    assert_eq!(list.take(at(0)), Some(address(2)));
    assert_eq!(list.take(at(9_999)), None);
    assert_eq!(list.next_timeout(), Time::NEVER);
}

#[test]
fn a_failure_waits_twice_as_long_as_the_one_before_and_is_given_up_in_the_end() {
    let mut list = list();
    list.add(address(1), TRACKER, at(0));
    for other in 2..=20 {
        list.add(address(other), TRACKER, at(100_000));
    }
    let mut now = at(0);
    for failure in 1..10_u32 {
        assert_eq!(list.take(now), Some(address(1)), "failure {failure}");
        list.failed(address(1), now);
        let pause = Duration::from_secs(10 << (failure - 1)).min(Duration::from_secs(900));
        assert_eq!(list.next_timeout(), now + pause);
        assert_eq!(list.take(now), None);
        assert!(
            !list.add(address(1), TRACKER, now),
            "naming it again does not hurry"
        );
        now = now + pause;
    }
    list.take(now);
    list.failed(address(1), now);
    assert_eq!(list.waiting(), 19);
    assert!(
        list.add(address(1), TRACKER, now),
        "it is forgotten, and may be named anew"
    );
}

#[test]
fn the_only_address_is_tried_for_ever_at_short_intervals() {
    let mut list = list();
    list.add(address(1), TRACKER, at(0));
    let mut now = at(0);
    for failure in 1..100_u32 {
        assert_eq!(list.take(now), Some(address(1)), "failure {failure}");
        list.failed(address(1), now);
        now = now + Duration::from_secs(if failure == 1 { 10 } else { 20 });
        assert_eq!(list.next_timeout(), now);
        list.check_invariants();
    }
}

#[test]
fn success_forgives_failures() {
    let mut list = list();
    list.add(address(1), TRACKER, at(0));
    list.take(at(0));
    list.failed(address(1), at(0));
    assert_eq!(list.take(at(10)), Some(address(1)));
    list.left(address(1), at(100));
    assert_eq!(list.take(at(109)), None);
    assert_eq!(list.take(at(110)), Some(address(1)));
    list.failed(address(1), at(110));
    assert_eq!(list.next_timeout(), at(120));
}

#[test]
fn a_liar_is_kept_away_with_its_host_but_on_loopback() {
    let mut list = list();
    let other_port = SocketAddr::from(([192, 0, 2, 1], 7000));
    list.add(address(1), TRACKER, at(0));
    list.ban(address(1));
    assert!(list.is_banned(other_port) && !list.add(other_port, TRACKER, at(0)));
    assert!(!list.is_banned(address(2)));
    assert_eq!(list.take(at(0)), None);
    let here = |port| SocketAddr::from(([127, 0, 0, 1], port));
    list.ban(here(1));
    assert!(list.is_banned(here(1)) && !list.is_banned(here(2)));
    list.exclude(address(3));
    assert!(list.is_banned(address(3)));
    assert!(!list.is_banned(SocketAddr::from(([192, 0, 2, 3], 7000))));
}

/// Else it would be believed most, as one whom the user names.
#[test]
fn who_is_forgotten_with_a_liar_while_it_is_tried_counts_as_hearsay() {
    let mut list = list();
    list.add(address(1), PeerSource::Dht, at(0));
    list.add(address(2), PeerSource::Given, at(0));
    assert_eq!(list.take(at(0)), Some(address(1)));
    assert_eq!(list.take(at(0)), Some(address(2)));
    assert_eq!(list.source_of_taken(address(1)), PeerSource::Dht);
    list.ban(SocketAddr::from(([192, 0, 2, 1], 7000)));
    assert!(list.source_of_taken(address(1)).is_hearsay());
    assert_eq!(list.source_of_taken(address(2)), PeerSource::Given);
}

#[test]
fn a_liar_has_no_other_address_in_its_network() {
    let v6 = |text: &str| SocketAddr::from((text.parse::<Ipv6Addr>().unwrap(), 6881));
    let mut list = list();
    let other = v6("2001:db8:1:2:ffff:1:2:3");
    assert!(list.add(other, TRACKER, at(0)) && list.add(v6("2001:db8:1:3::1"), TRACKER, at(0)));
    list.ban(v6("2001:db8:1:2::1"));
    assert!(list.is_banned(other) && !list.add(other, TRACKER, at(0)));
    assert_eq!(
        list.take(at(0)),
        Some(v6("2001:db8:1:3::1")),
        "what was known of the network is forgotten, and nothing else"
    );
    assert_eq!(list.take(at(0)), None);
    // An IPv4 address in IPv6 clothes is that host alone.
    list.ban(v6("::ffff:192.0.2.1"));
    assert!(list.is_banned(address(1)) && !list.is_banned(address(2)));
    let here = |port| SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    list.ban(here(1));
    assert!(list.is_banned(here(1)) && !list.is_banned(here(2)));
    list.check_invariants();
}

#[test]
fn who_hangs_up_at_once_is_tried_soon_once() {
    let mut list = list();
    list.add(address(1), TRACKER, at(0));
    list.take(at(0));
    list.hung_up(address(1), at(0));
    assert_eq!(list.next_timeout(), at(2));
    list.take(at(2));
    list.hung_up(address(1), at(2));
    assert_eq!(list.next_timeout(), at(22), "the second failure");
    list.take(at(22));
    list.left(address(1), at(30));
    list.take(at(40));
    list.hung_up(address(1), at(40));
    assert_eq!(list.next_timeout(), at(42), "it was of use meanwhile");
    list.hung_up(address(2), at(40));
    assert_eq!(list.waiting(), 1, "nobody named it");
    list.check_invariants();
}

#[test]
fn what_we_had_no_room_for_has_not_failed() {
    let mut list = list();
    list.add(address(1), TRACKER, at(0));
    list.take(at(0));
    list.failed(address(1), at(0));
    for second in 10..40 {
        assert_eq!(list.take(at(second)), Some(address(1)));
        list.postponed(address(1), at(second));
        assert_eq!(list.take(at(second)), None, "not at once");
    }
    assert_eq!(list.take(at(40)), Some(address(1)));
    list.failed(address(1), at(40));
    assert_eq!(list.next_timeout(), at(60), "its one failure still counts");
    list.check_invariants();
}

#[test]
fn who_is_connected_already_is_not_tried() {
    let mut list = list();
    assert!(list.connected(address(1), TRACKER, at(0)));
    assert!(!list.add(address(1), TRACKER, at(0)), "it is known");
    assert!(!list.connected(address(1), TRACKER, at(0)), "it is");
    list.add(address(2), TRACKER, at(0));
    assert!(list.connected(address(2), TRACKER, at(0)), "it only waited");
    assert_eq!(list.take(at(9_999)), None);
    list.ban(address(3));
    assert!(!list.connected(address(3), TRACKER, at(0)));
    list.left(address(1), at(0));
    assert_eq!(list.next_timeout(), at(10));
    list.check_invariants();
}

#[test]
fn impossible_addresses_are_not_taken() {
    let mut list = list();
    for text in ["192.0.2.1:0", "0.0.0.0:80", "224.0.0.1:80", "[::]:80"] {
        assert!(!list.add(text.parse().unwrap(), TRACKER, at(0)), "{text}");
    }
}

#[test]
fn a_full_list_gives_up_who_failed_most() {
    let mut list = PeerList::new(PeerListConfig {
        addresses_max: 2,
        ..PeerListConfig::default()
    });
    list.add(address(1), TRACKER, at(0));
    list.add(address(2), TRACKER, at(0));
    assert!(!list.add(address(3), TRACKER, at(0)), "nobody has failed");
    list.take(at(0));
    list.failed(address(1), at(0));
    assert!(list.add(address(3), TRACKER, at(0)));
    assert_eq!(list.take(at(99)), Some(address(2)));
    assert_eq!(list.take(at(99)), Some(address(3)));
    list.check_invariants();
}

#[test]
fn priorities_are_those_of_bep_40() {
    let priority = |one: &str, other: &str| {
        let priority = canonical_priority(one.parse().unwrap(), other.parse().unwrap());
        let back = canonical_priority(other.parse().unwrap(), one.parse().unwrap());
        assert_eq!(priority, back, "both ends agree");
        priority
    };
    // The examples of the BEP.
    assert_eq!(priority("123.213.32.10:0", "98.76.54.32:0"), 0xec2d_7224);
    assert_eq!(priority("123.213.32.10:0", "123.213.32.234:0"), 0x9956_8189);
    // One host: its ports; another host of the network: its address.
    let ports = priority("1.2.3.4:5", "1.2.3.4:6");
    assert_eq!(ports, priority("9.9.9.9:6", "9.9.9.9:5"));
    assert_ne!(
        priority("1.2.3.4:1", "1.2.3.5:1"),
        priority("1.2.3.4:1", "1.2.3.7:1")
    );
    // Afar, neighbours are as good as each other.
    let near = priority("[2606:4700::1]:1", "[2a00:1450::1]:1");
    assert_eq!(near, priority("[2606:4700::1]:1", "[2a00:1450::3]:1"));
    assert_eq!(priority("1.2.3.4:1", "[2a00::1]:1"), 0);
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}

#[test]
fn whose_turn_it_is_goes_by_failures_and_priority() {
    let mut list = list();
    let own = SocketAddr::from(([198, 51, 100, 7], 6890));
    list.set_own(SocketAddr::from(([203, 0, 113, 1], 1)));
    list.set_own(own);
    for last in 1..=20 {
        list.add(address(last), TRACKER, at(0));
    }
    let priority = |one| canonical_priority(own, one);
    let first = list.take(at(0)).unwrap();
    assert_eq!(
        Some(priority(first)),
        (1..=20).map(|last| priority(address(last))).max()
    );
    list.failed(first, at(0));
    let others: Vec<_> = (0..19).map(|_| list.take(at(100)).unwrap()).collect();
    assert!(!others.contains(&first));
    assert!(others.is_sorted_by_key(|&one| Reverse(priority(one))));
    assert_eq!(list.take(at(100)), Some(first), "who has failed comes last");
    list.check_invariants();
}

#[test]
fn no_hearsay_fills_the_list_and_trackers_displace_it() {
    let config = PeerListConfig {
        addresses_max: 4,
        ..PeerListConfig::default()
    };
    let mut list = PeerList::new(config);
    let mut add = |last, source| list.add(address(last), source, at(0));
    assert!(add(1, PeerSource::Exchange) && add(2, PeerSource::Exchange));
    assert!(!add(3, PeerSource::Exchange), "half of it is its share");
    assert!(add(4, PeerSource::Dht) && add(5, PeerSource::Dht));
    assert!(!add(6, PeerSource::Local), "it is full");
    assert!(add(6, PeerSource::Tracker) && add(7, PeerSource::Given));
    assert_eq!(list.sources().get(PeerSource::Tracker), 1);
    let hearsay = [PeerSource::Exchange, PeerSource::Dht].map(|one| list.sources().get(one));
    assert_eq!(hearsay.iter().sum::<u32>(), 2);
    assert_eq!(list.source_of(address(6)), Some(PeerSource::Tracker));
    list.check_invariants();
}

proptest! {
    #[test]
    fn whatever_happens_nobody_is_tried_twice_at_a_time(seed in any::<u64>()) {
        let mut random = Random::new(seed);
        let mut list = PeerList::new(PeerListConfig { addresses_max: 20, ..PeerListConfig::default() });
        let mut taken = HashSet::new();
        let mut now = at(0);
        for _ in 0..500 {
            let one = address(random.below(40) as u8 + 1);
            match random.below(9) {
                0 | 1 => { list.add(one, TRACKER, now); }
                2 => if let Some(next) = list.take(now) {
                    prop_assert!(!list.is_banned(next));
                    prop_assert!(taken.insert(next), "{} is taken twice", next);
                }
                3 => if taken.remove(&one) { list.failed(one, now) },
                4 => if taken.remove(&one) { list.left(one, now) },
                5 => if taken.remove(&one) { list.postponed(one, now) },
                6 => if taken.remove(&one) { list.hung_up(one, now) },
                7 => {
                    let connected = list.connected(one, TRACKER, now);
                    prop_assert!(!(connected && list.is_banned(one)));
                    prop_assert!(!connected || taken.insert(one), "{} is taken twice", one);
                }
                _ => if random.below(20) == 0 { taken.remove(&one); list.ban(one) },
            }
            now = now + Duration::from_secs(random.below(30));
            list.check_invariants();
        }
    }
}
