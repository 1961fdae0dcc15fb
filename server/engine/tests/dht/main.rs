//! A DHT of some hundred nodes in virtual time: what is announced is found, also when nodes come
//! and go, datagrams are lost, and some nodes lie. One seed decides everything.

mod network;

use engine::dht::{Family, NodeConfig, StorageLimits};
use network::{Network, Sybils, torrent};
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

fn config() -> NodeConfig {
    NodeConfig {
        // Hundreds of nodes in one process.
        sources_max: 256,
        ..NodeConfig::default()
    }
}

/// A network whose nodes have had ten minutes to know each other.
fn settled(family: Family, nodes: usize, seed: u64) -> Network {
    let mut network = Network::new(family, config(), seed);
    for _ in 0..nodes {
        network.join();
    }
    network.run(10 * MINUTE);
    network
}

/// Announces torrents by one node each, then lets another search for each; answers how many were
/// found.
fn found_of(network: &mut Network, torrents: std::ops::Range<u64>) -> usize {
    let mut pairs = Vec::new();
    for number in torrents {
        let (announcer, searcher) = (network.pick(), network.pick());
        network.search(announcer, torrent(number), Some(1_000));
        pairs.push((number, announcer, searcher));
        network.run(Duration::from_millis(200));
    }
    network.run(2 * MINUTE);
    for (number, announcer, _) in &pairs {
        assert!(network.announced(*announcer, torrent(*number)) > 0);
    }
    pairs
        .into_iter()
        .filter(|(number, announcer, searcher)| {
            network.search(*searcher, torrent(*number), None);
            network.run(MINUTE / 6);
            let peer = network.peer_of(*announcer, 1_000);
            network.has_found(*searcher, torrent(*number), peer)
        })
        .count()
}

#[test]
fn what_is_announced_is_found() {
    let mut network = settled(Family::V4, 300, 1);
    assert!(network.known_least() >= 16, "{}", network.known_least());
    let before = network.queries();
    assert_eq!(found_of(&mut network, 0..40), 40);
    // 80 searches, 40 of them with announces, and what several minutes of upkeep of 300 nodes take.
    let per_search = (network.queries() - before) / 80;
    println!("{per_search} queries for each search, upkeep included");
    assert!(network.all_bound(), "ids follow the addresses");
}

#[test]
fn what_is_announced_over_ipv6_is_found() {
    let mut network = settled(Family::V6, 100, 2);
    assert_eq!(found_of(&mut network, 0..20), 20);
    assert!(network.all_bound());
}

#[test]
fn a_fifth_of_all_datagrams_may_be_lost() {
    let mut network = settled(Family::V4, 150, 3);
    network.loss_percent = 20;
    let found = found_of(&mut network, 0..30);
    assert!(found >= 29, "{found}");
}

/// In half an hour half of the nodes go without a word and others come; who announces does so every
/// ten minutes.
#[test]
fn nodes_may_come_and_go() {
    let mut network = settled(Family::V4, 200, 4);
    let announcers: Vec<usize> = (0..20).map(|_| network.pick()).collect();
    for minute in 0..30 {
        if minute % 10 == 0 {
            for (number, announcer) in announcers.iter().enumerate() {
                network.search(*announcer, torrent(number as u64), Some(1_000));
            }
        }
        for _ in 0..4 {
            let gone = network.pick();
            if !announcers.contains(&gone) {
                network.leave(gone);
                network.join();
            }
        }
        network.run(MINUTE);
    }
    let found = (0..20).filter(|&number: &usize| {
        let searcher = network.pick();
        network.search(searcher, torrent(number as u64), None);
        network.run(MINUTE / 2);
        let peer = network.peer_of(announcers[number], 1_000);
        network.has_found(searcher, torrent(number as u64), peer)
    });
    let found = found.count();
    assert!(found >= 19, "{found}");
}

/// What is not announced again is forgotten.
#[test]
fn announces_expire() {
    let storage = StorageLimits {
        lifetime: 5 * MINUTE,
        ..StorageLimits::default()
    };
    let mut network = Network::new(
        Family::V4,
        NodeConfig {
            storage,
            ..config()
        },
        5,
    );
    (0..60).for_each(|_| _ = network.join());
    network.run(10 * MINUTE);
    assert_eq!(found_of(&mut network, 0..5), 5);
    network.run(10 * MINUTE);
    // Not the one who has found it before.
    let searcher = loop {
        let host = network.pick();
        if network.found_count(host, torrent(0)) == 0 {
            break host;
        }
    };
    network.search(searcher, torrent(0), None);
    network.run(MINUTE);
    assert_eq!(network.found_count(searcher, torrent(0)), 0);
}

/// One host with hundreds of ids next to the torrents, which says of every torrent that only it is
/// near.
#[test]
fn the_sybils_of_one_host_do_not_hide_a_torrent() {
    let mut network = settled(Family::V4, 200, 6);
    let sybils = Sybils::of_one_host(300);
    network.attack(sybils);
    network.run(20 * MINUTE);
    assert!(network.sybils_asked() > 100, "they take part");
    assert!(network.sybil_places_most() <= 1);
    assert_eq!(found_of(&mut network, 0..20), 20);
}

/// Fifty hosts with ids that their addresses do not allow, all next to the torrents that are looked
/// for.
#[test]
fn ids_that_no_address_allows_do_not_hide_a_torrent() {
    let mut network = settled(Family::V4, 200, 7);
    network.attack(Sybils::of_hosts(50));
    network.run(20 * MINUTE);
    assert!(network.sybils_asked() > 100, "they take part");
    let found = found_of(&mut network, 0..20);
    assert!(found >= 19, "{found}");
}

/// Answers in the name of others, who were asked, with guessed transaction ids.
#[test]
fn spoofed_answers_put_no_peer_into_a_search() {
    let mut network = settled(Family::V4, 100, 8);
    network.spoofs = true;
    assert_eq!(found_of(&mut network, 0..10), 10);
    assert!(network.spoofed > 1_000, "{}", network.spoofed);
    assert_eq!(network.spoofed_peers_found(), 0);
}
