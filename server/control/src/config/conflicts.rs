//! Keys that are right by themselves and wrong together.
//!
//! Does not: look at the machine, such as whether a port is free.

use super::Config;
use crate::tracker::LabelledNetwork;
use std::collections::HashMap;
use std::net::IpAddr;

/// Two listeners on one port, where that is plain from the configuration alone.
pub(super) fn of_ports(config: &Config) -> Option<(&'static str, String)> {
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
pub(super) fn of_zones(labels: &[LabelledNetwork]) -> Option<(&'static str, String)> {
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
