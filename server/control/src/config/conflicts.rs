//! Keys that are right by themselves and wrong together.
//!
//! Does not: look at the machine, such as whether a port is free; but where folders really are.

mod lists;
mod roots;

pub(super) use lists::{of_hook, of_watches};
pub(super) use roots::of_roots;

use super::{Config, Tracker};
use crate::tracker::LabelledNetwork;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A key, and what is wrong with its value.
type Wrong = (&'static str, String);

/// The DHT on the port on which the tracker answers over UDP, where one of them could not listen.
pub(super) fn of_datagrams(config: &Config) -> Option<Wrong> {
    let (dht, tracker) = (&config.dht, &config.tracker);
    let takes_part = dht.enabled && dht.port != 0 && config.announce.proxy.url().is_none();
    if !takes_part || !tracker.enabled || !tracker.udp {
        return None;
    }
    let tracker: [Option<SocketAddr>; 2] = [
        tracker.listen_v4.map(SocketAddr::from),
        tracker.listen_v6.map(SocketAddr::from),
    ];
    let overlap = |one: IpAddr, other: IpAddr| {
        one.is_ipv4() == other.is_ipv4()
            && (one == other || one.is_unspecified() || other.is_unspecified())
    };
    let is_taken = |address: IpAddr| {
        let listeners = tracker.iter().flatten();
        let mut of_port = listeners.filter(|tracker| tracker.port() == dht.port);
        of_port.any(|tracker| overlap(tracker.ip(), address))
    };
    let taken = config.dht_addresses().into_iter().any(is_taken);
    let message = format!(
        "port {} is the tracker's over UDP already; give the DHT another, or set tracker.udp = false",
        dht.port
    );
    taken.then_some(("dht.port", message))
}

/// A tracker that is on and may listen nowhere.
pub(super) fn of_tracker(tracker: &Tracker) -> Option<Wrong> {
    let is_nowhere = tracker.listen_v4.is_none() && tracker.listen_v6.is_none();
    let message = "listen_v4 and listen_v6 are both off, so the tracker could not answer anybody; \
                   set one of them, or turn tracker.enabled off";
    (tracker.enabled && is_nowhere).then(|| ("tracker.listen_v6", message.to_owned()))
}

/// Addresses that no host has for itself.
pub(super) fn of_addresses(config: &Config) -> Vec<Wrong> {
    let (peers, announce) = (&config.peers, &config.announce);
    let v4 = [
        ("peers.bind_v4", peers.bind_v4),
        ("announce.bind_v4", announce.bind_v4),
    ];
    let v6 = [
        ("peers.bind_v6", peers.bind_v6),
        ("announce.bind_v6", announce.bind_v6),
    ];
    let v4 = v4.map(|(key, address)| Some((key, wrong_v4(address?)?)));
    let v6 = v6.map(|(key, address)| Some((key, wrong_v6(address?)?)));
    let said = |(key, why): (&'static str, &str)| {
        let message =
            format!("no host has this address for itself: {why}; give one of this machine");
        (key, message)
    };
    v4.into_iter().chain(v6).flatten().map(said).collect()
}

fn wrong_v4(address: Ipv4Addr) -> Option<&'static str> {
    match address.octets() {
        [0, 0, 0, 0] => None,
        [0, ..] => Some("0.0.0.0/8 is for \"this network\""),
        [224..=239, ..] => Some("it is a multicast group"),
        [255, 255, 255, 255] => Some("it is that of all hosts"),
        [240..=255, ..] => Some("240.0.0.0/4 is reserved"),
        _ => None,
    }
}

fn wrong_v6(address: Ipv6Addr) -> Option<&'static str> {
    if address.is_multicast() {
        return Some("it is a multicast group");
    }
    if address.to_ipv4_mapped().is_some() {
        return Some("it is an IPv4 address, which has a key of its own");
    }
    let needs_zone = address.is_unicast_link_local();
    needs_zone.then_some("it is one of each link, and would need a zone")
}

/// Two listeners on one port, where that is plain from the configuration alone.
pub(super) fn of_ports(config: &Config) -> Option<Wrong> {
    let peers = config.peers.port;
    let api = config.api.listen.map(|address| address.port());
    let tracker = config.tracker.listen_v4.map(|address| address.port());
    let tracker = tracker.filter(|_| config.tracker.enabled);
    let clash = |key, other: &str, port| {
        (
            key,
            format!("port {port} is {other}'s already; give each listener a port of its own"),
        )
    };
    match (api, tracker) {
        (Some(port), _) if port != 0 && port == peers => {
            Some(clash("api.listen", "peers.port", port))
        }
        (_, Some(port)) if port != 0 && port == peers => {
            Some(clash("tracker.listen_v4", "peers.port", port))
        }
        (Some(port), Some(other)) if port != 0 && port == other => {
            Some(clash("tracker.listen_v4", "api.listen", port))
        }
        _ => None,
    }
}

/// A network that is in two zones, of which only one would hold.
pub(super) fn of_zones(labels: &[LabelledNetwork]) -> Option<Wrong> {
    let mut known: HashMap<(IpAddr, u8), (usize, &str)> = HashMap::new();
    for (index, label) in labels.iter().enumerate() {
        let network = (label.address, label.prefix_bits);
        let (first, zone) = *known.entry(network).or_insert((index, &label.zone));
        if zone != label.zone {
            let message = format!(
                "{}/{} is in two zones: entry {} says {zone}, entry {} says {}; leave one",
                label.address,
                label.prefix_bits,
                first + 1,
                index + 1,
                label.zone
            );
            return Some(("tracker.zones", message));
        }
    }
    None
}
