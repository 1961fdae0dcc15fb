//! Zones: which part of the operator's network, such as a rack or a site, an address is in.
//!
//! The configuration labels networks in CIDR notation; the longest prefix that holds an address
//! decides. Peers of a zone are given each other first (see `swarm`).
//!
//! Limits: [`NETWORKS_MAX`] labels. Does not: ask anybody; a network without a label has no zone.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Labelled networks at most; an address is looked up once for each length of prefix among them.
pub const NETWORKS_MAX: usize = 4096;
/// The longest name of a zone, in characters.
const NAME_CHARS_MAX: usize = 64;

/// A network and the zone that it belongs to, as the configuration writes it:
/// `10.1.0.0/16=rack-1`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LabelledNetwork {
    /// Its first address; the bits behind the prefix are zero.
    pub address: IpAddr,
    /// Bits of the prefix: at most 32, for IPv6 128.
    pub prefix_bits: u8,
    /// The zone: letters, digits, `-`, `_` and `.`.
    pub zone: String,
}

/// A text that labels no network.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a network and its zone, such as 10.1.0.0/16=rack-1")]
pub struct LabelError;

impl FromStr for LabelledNetwork {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<LabelledNetwork, LabelError> {
        let (network, zone) = text.split_once('=').ok_or(LabelError)?;
        let (address, bits) = network.split_once('/').ok_or(LabelError)?;
        let address: IpAddr = address.parse().map_err(|_| LabelError)?;
        let prefix_bits: u8 = bits.parse().map_err(|_| LabelError)?;
        let named = zone
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        let fits =
            prefix_bits <= width(address) && masked(address, prefix_bits) == bits_of(address);
        if !named || zone.is_empty() || zone.len() > NAME_CHARS_MAX || !fits {
            return Err(LabelError);
        }
        Ok(LabelledNetwork {
            address,
            prefix_bits,
            zone: zone.to_owned(),
        })
    }
}

impl fmt::Display for LabelledNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}={}", self.address, self.prefix_bits, self.zone)
    }
}

/// A zone; 0 is that of all addresses without a label.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(super) struct Zone(pub u16);

/// The labels, ready to be asked.
#[derive(Debug, Default)]
pub(super) struct Zones {
    /// By family and length of prefix, the longest first.
    prefixes: Vec<Prefixes>,
    /// What the zones are called.
    names: HashMap<String, Zone>,
}

#[derive(Debug)]
struct Prefixes {
    v6: bool,
    bits: u8,
    zones: HashMap<u128, Zone>,
}

impl Zones {
    /// Of two labels of the same network the later one holds, of more than [`NETWORKS_MAX`] the
    /// first ones; the configuration lets neither happen.
    pub fn new(labels: &[LabelledNetwork]) -> Zones {
        Zones::default().renewed(labels)
    }

    /// The same with other labels. A zone that keeps its name stays the same one, and no other is
    /// what one of these was: peers are known by it until they announce themselves again.
    #[must_use]
    pub fn renewed(&self, labels: &[LabelledNetwork]) -> Zones {
        let mut names: HashMap<String, Zone> = HashMap::new();
        let mut taken: HashSet<Zone> = self.names.values().copied().collect();
        // There are fewer names than numbers, of both together.
        let mut numbers = (1..=u16::MAX).map(Zone);
        let mut prefixes: Vec<Prefixes> = Vec::new();
        for label in labels.iter().take(NETWORKS_MAX) {
            let zone = match (names.get(&label.zone), self.names.get(&label.zone)) {
                (Some(zone), _) | (None, Some(zone)) => *zone,
                (None, None) => numbers.find(|zone| taken.insert(*zone)).unwrap_or_default(),
            };
            names.insert(label.zone.clone(), zone);
            let (v6, bits) = (label.address.is_ipv6(), label.prefix_bits);
            let at = prefixes
                .iter()
                .position(|of| of.v6 == v6 && of.bits == bits);
            let at = at.unwrap_or_else(|| {
                let zones = HashMap::new();
                prefixes.push(Prefixes { v6, bits, zones });
                prefixes.len() - 1
            });
            let network = masked(label.address, bits);
            prefixes[at].zones.insert(network, zone);
        }
        prefixes.sort_by_key(|of| std::cmp::Reverse(of.bits));
        Zones { prefixes, names }
    }

    /// The zone of an address.
    pub fn of(&self, ip: IpAddr) -> Zone {
        let ip = ip.to_canonical();
        let family = self.prefixes.iter().filter(|of| of.v6 == ip.is_ipv6());
        let mut found = family.filter_map(|of| of.zones.get(&masked(ip, of.bits)));
        found.next().copied().unwrap_or_default()
    }
}

fn width(ip: IpAddr) -> u8 {
    if ip.is_ipv6() { 128 } else { 32 }
}

fn bits_of(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// The address with all but its first `bits` bits zero.
fn masked(ip: IpAddr, bits: u8) -> u128 {
    let behind = u32::from(width(ip).saturating_sub(bits));
    // A shift by the whole width, for a prefix of no bits, leaves nothing.
    let kept = bits_of(ip).checked_shr(behind).unwrap_or(0);
    kept.checked_shl(behind).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zones(labels: &[&str]) -> Zones {
        let labels: Vec<LabelledNetwork> =
            labels.iter().map(|text| text.parse().unwrap()).collect();
        Zones::new(&labels)
    }

    #[test]
    fn the_longest_prefix_decides() {
        let zones = zones(&[
            "10.0.0.0/8=site",
            "10.1.0.0/16=rack-1",
            "10.1.2.3/32=host",
            "fd00::/8=site",
            "fd00:0:0:1::/64=rack-1",
        ]);
        let of = |ip: &str| zones.of(ip.parse().unwrap());
        assert_eq!(of("10.2.0.1"), of("fd00::1"));
        assert_eq!(of("10.1.0.1"), of("fd00:0:0:1::9"));
        assert_ne!(of("10.1.0.1"), of("10.2.0.1"));
        assert_ne!(of("10.1.2.3"), of("10.1.2.4"));
        assert_eq!(of("192.0.2.1"), Zone(0));
        assert_eq!(of("::ffff:10.1.0.1"), of("10.1.0.1"));
        assert_ne!(of("10.2.0.1"), Zone(0));
    }

    #[test]
    fn a_prefix_of_no_bits_holds_its_whole_family() {
        let zones = zones(&["0.0.0.0/0=v4", "::/0=v6"]);
        assert_eq!(zones.of("203.0.113.7".parse().unwrap()), Zone(1));
        assert_eq!(zones.of("2001:db8::1".parse().unwrap()), Zone(2));
    }

    #[test]
    fn zones_that_keep_their_names_stay_and_none_takes_the_place_of_another() {
        let first = zones(&["10.1.0.0/16=a", "10.2.0.0/16=b"]);
        let labels = |texts: &[&str]| -> Vec<LabelledNetwork> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let of = |zones: &Zones, ip: &str| zones.of(ip.parse().unwrap());
        let (a, b) = (of(&first, "10.1.0.1"), of(&first, "10.2.0.1"));
        let second = first.renewed(&labels(&[
            "10.3.0.0/16=c",
            "10.2.0.0/24=b",
            "10.1.0.0/16=c",
        ]));
        assert_eq!(of(&second, "10.2.0.1"), b);
        assert_eq!(of(&second, "10.2.1.1"), Zone(0));
        let c = of(&second, "10.1.0.1");
        assert_eq!(of(&second, "10.3.0.1"), c);
        assert!(![a, b, Zone(0)].contains(&c));
        // Names come and go for years, and numbers do not run out.
        let mut zones = second;
        for round in 0..200_000 / NETWORKS_MAX {
            let many: Vec<_> = (0..NETWORKS_MAX)
                .map(|at| format!("10.{}.{}.0/24=zone-{round}-{at}", at / 256, at % 256))
                .collect();
            let many: Vec<_> = many.iter().map(String::as_str).collect();
            zones = zones.renewed(&labels(&many));
            let last = of(&zones, "10.15.255.1");
            assert!(last != Zone(0) && last != of(&zones, "10.0.0.1"));
        }
    }

    #[test]
    fn what_labels_no_network_is_refused() {
        let long = format!("10.0.0.0/8={}", "x".repeat(NAME_CHARS_MAX + 1));
        for text in [
            "",
            "10.0.0.0/8",
            "10.0.0.0=a",
            "10.0.0.0/33=a",
            "10.0.0.1/8=a",
            "::/129=a",
            "10.0.0.0/8=",
            "10.0.0.0/8=a b",
            "10.0.0.0/-1=a",
            "rack=10.0.0.0/8",
            &long,
        ] {
            assert_eq!(text.parse::<LabelledNetwork>(), Err(LabelError), "{text}");
        }
    }

    /// Against the definition: of the labels whose bits all agree, the last of the longest.
    #[test]
    fn agrees_with_a_naive_search() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..2000 {
            let mut labels: Vec<LabelledNetwork> = Vec::new();
            for _ in 0..random.usize(0..40) {
                // Half of them inside another one, else prefixes would hardly ever overlap.
                let inside = labels.get(random.usize(0..=labels.len()));
                let base = inside.map_or(random.u32(..), |of| bits_of(of.address) as u32);
                let bits = random.u8(0..=32);
                let ip = IpAddr::from((base ^ random.u32(..) >> random.u8(0..32)).to_be_bytes());
                let network = IpAddr::from((masked(ip, bits) as u32).to_be_bytes());
                labels.push(
                    format!("{network}/{bits}=z{}", random.u8(0..5))
                        .parse()
                        .unwrap(),
                );
            }
            let base = labels.get(random.usize(0..=labels.len()));
            let base = base.map_or(0, |of| bits_of(of.address) as u32);
            let ip = base ^ random.u32(..) >> random.u8(0..32);
            let holds = |label: &&LabelledNetwork| {
                let behind = u32::from(32 - label.prefix_bits);
                let differs = bits_of(label.address) as u32 ^ ip;
                differs.checked_shr(behind).unwrap_or(0) == 0
            };
            let expected = labels
                .iter()
                .filter(holds)
                .max_by_key(|label| label.prefix_bits);
            // Zones are numbered as their names first appear.
            let mut names: Vec<&str> = Vec::new();
            for label in &labels {
                if !names.contains(&&*label.zone) {
                    names.push(&label.zone);
                }
            }
            let number = expected.and_then(|of| names.iter().position(|name| **name == of.zone));
            let found = Zones::new(&labels).of(IpAddr::from(ip.to_be_bytes()));
            assert_eq!(
                found,
                Zone(number.map_or(0, |at| at as u16 + 1)),
                "{labels:?} {ip:#x}"
            );
        }
    }
}
