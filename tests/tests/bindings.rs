//! What the server is bound to: an interface, an address, a proxy. What it names is used, or nothing is; and
//! it may come late and go.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use seedring_tests::content::KIB;
use seedring_tests::dht::Node;
use seedring_tests::dht_network::{V4, on, with_node};
use seedring_tests::lan;
use seedring_tests::need;
use seedring_tests::single::Single;
use std::net::IpAddr;
use std::time::Duration;

/// Longest wait for what has to come.
const LIMIT: Duration = Duration::from_secs(180);
/// What trackers are asked by holds for the DHT: it goes past no proxy, and by the interface that is
/// named or not at all.
#[test]
fn it_goes_past_no_proxy_and_by_no_other_interface() {
    let content = Single::new(32 * KIB, 1, &[]);
    let with = |key: &str, value: &str| {
        let seed = with_node(&content, None);
        on(V4, seed.setting("announce", key, value)).start()
    };
    let server = with("bind_interface", "lo");
    Node::at(V4, [1; 20]).ask(server.ready.dht[0], "ping", &[]);
    let server = with("bind_v4", "127.0.0.2");
    assert_eq!(server.ready.dht[0].ip(), IpAddr::from([127, 0, 0, 2]));
    Node::at(V4, [1; 20]).ask(server.ready.dht[0], "ping", &[]);
    for (key, value) in [
        ("proxy", "http://127.0.0.1:9"),
        ("bind_interface", "nosuch0"),
        // Peers are served over IPv4 alone here.
        ("bind_v6", "::1"),
    ] {
        assert_eq!(with(key, value).ready.dht, [], "{key}");
    }
}

/// Datagrams that went out by an interface.
fn sent_by(interface: &str) -> u64 {
    let all = std::fs::read_to_string("/proc/self/net/dev").unwrap();
    let of_it = all.lines().find_map(|line| {
        let (name, numbers) = line.split_once(':')?;
        (name.trim() == interface).then_some(numbers)
    });
    let number = of_it.unwrap().split_whitespace().nth(9).unwrap();
    number.parse().unwrap()
}

/// What it is bound to may come later than it, and go and come again as another, as a VPN does.
#[test]
fn an_interface_may_come_late_and_again() {
    let test = "an_interface_may_come_late_and_again";
    if !need!(test, lan::inside(test)) {
        return;
    }
    lan::ip_here("link set lo up");
    let content = Single::new(32 * KIB, 1, &[]);
    // Nobody is there, which a node has to ask to know.
    let seed = with_node(&content, Some("9.9.9.9:6881".parse().unwrap()))
        .setting("announce", "bind_interface", "tunnel0")
        .setting("peers", "bind_v4", "0.0.0.0")
        .setting("peers", "bind_v6", "");
    let mut server = seed.start();
    assert_eq!(server.ready.dht, []);
    for times in 1..=2 {
        server.process.wait_for("the loss", LIMIT, |process| {
            let told = process.stderr();
            (told.matches("is bound to is not there").count() == times).then_some(())
        });
        lan::ip_here("link add tunnel0 type veth peer name far0");
        // Nothing is sent but what we send, which waits for nobody to answer.
        for interface in ["tunnel0", "far0"] {
            lan::ip_here(&format!("link set {interface} addrgenmode none arp off"));
            lan::ip_here(&format!("link set {interface} up"));
        }
        lan::ip_here("addr add 9.9.9.1/24 dev tunnel0");
        server.process.wait_for("the return", LIMIT, |process| {
            let told = process.stderr();
            (told.matches("the DHT can send again").count() == times).then_some(())
        });
        assert!(sent_by("tunnel0") > 0);
        lan::ip_here("link del tunnel0");
    }
}
