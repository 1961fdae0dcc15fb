//! Where an address is: on this machine, inside a network, or anywhere in the world.
//!
//! Who names addresses to us must not have us knock at doors that are not his to see: [`may_name`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How far an address reaches, the narrowest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Scope {
    /// This machine.
    Loopback,
    /// This network: private, link-local, unique local and shared (RFC 6598) addresses, and what the
    /// registries give to nobody (reserved, for documentation, for benchmarks): a host that has such
    /// an address has it from its network.
    Local,
    /// The world.
    Global,
}

/// How far `address` reaches; `None` if it can be no host's: unspecified, multicast, broadcast, or
/// of no assigned kind.
pub fn scope(address: IpAddr) -> Option<Scope> {
    let address = address.to_canonical();
    if is_global(address) {
        return Some(Scope::Global);
    }
    match address {
        IpAddr::V4(v4) if v4.is_loopback() => Some(Scope::Loopback),
        IpAddr::V6(v6) if v6.is_loopback() => Some(Scope::Loopback),
        IpAddr::V4(v4) => {
            let is_none = v4.octets()[0] == 0 || v4.is_multicast() || v4.is_broadcast();
            (!is_none).then_some(Scope::Local)
        }
        IpAddr::V6(v6) => {
            let is_inside = v6.is_unique_local() || v6.is_unicast_link_local();
            (is_inside || is_documentation_v6(v6)).then_some(Scope::Local)
        }
    }
}

/// Whether somebody at `source` may name `named` to us, or be told of it: a host out in the world
/// knows nothing of our network, and nobody but this machine of its loopback. A link-local IPv6
/// address is nobody's to name, since it means nothing without an interface.
pub fn may_name(source: IpAddr, named: SocketAddr) -> bool {
    let is_link_local = match named.ip() {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let source = scope(source).unwrap_or(Scope::Global);
    named.port() != 0 && !is_link_local && scope(named.ip()).is_some_and(|named| named >= source)
}

/// Whether `address` is one of the public internet's.
pub fn is_global(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_global_v4(address),
        IpAddr::V6(address) => is_global_v6(address),
    }
}

fn is_global_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(a == 0
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b == 18 || b == 19))
        || a >= 224)
}

fn is_global_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        is_global_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // NAT64 (RFC 6052) and 6to4 (RFC 3056) lead to the IPv4 address inside.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        // Teredo (RFC 4380).
        [0x2001, 0, ..] => false,
        _ if is_documentation_v6(address) => false,
        // Only 2000::/3 is assigned to global unicast.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

/// RFC 3849, RFC 9637.
fn is_documentation_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    (first, second) == (0x2001, 0xdb8) || (first == 0x3fff && second <= 0xfff)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn every_address_has_its_scope() {
        let cases = [
            ("127.0.0.1", Some(Scope::Loopback)),
            ("::1", Some(Scope::Loopback)),
            ("::ffff:127.0.0.1", Some(Scope::Loopback)),
            ("10.1.2.3", Some(Scope::Local)),
            ("100.64.0.1", Some(Scope::Local)),
            ("169.254.1.1", Some(Scope::Local)),
            ("fd00::1", Some(Scope::Local)),
            ("fe80::1", Some(Scope::Local)),
            ("9.9.9.9", Some(Scope::Global)),
            ("2606:4700::1", Some(Scope::Global)),
            ("0.0.0.0", None),
            ("0.1.2.3", None),
            ("224.0.0.1", None),
            ("255.255.255.255", None),
            ("192.0.2.1", Some(Scope::Local)),
            ("198.18.0.1", Some(Scope::Local)),
            ("240.0.0.1", Some(Scope::Local)),
            ("::", None),
            ("ff02::1", None),
            ("2001:db8::1", Some(Scope::Local)),
            ("3fff::1", Some(Scope::Local)),
            ("2001::1", None),
            ("2002:a00:1::1", None),
        ];
        for (text, due) in cases {
            assert_eq!(scope(ip(text)), due, "{text}");
        }
    }

    #[test]
    fn nobody_names_what_is_not_his_to_see() {
        let named = ["127.0.0.1:1", "10.0.0.1:1", "9.9.9.9:1"].map(|text| text.parse().unwrap());
        let may = |source: &str| named.map(|named| may_name(ip(source), named));
        assert_eq!(may("8.8.8.8"), [false, false, true]);
        assert_eq!(may("192.168.0.1"), [false, true, true]);
        assert_eq!(may("127.0.0.1"), [true, true, true]);
        assert_eq!(may("192.0.2.1"), [false, true, true]);
        assert_eq!(may("224.0.0.1"), [false, false, true], "nobody's address");
        let odd = "192.0.2.2:1".parse().unwrap();
        let odd = ["192.0.2.1", "10.0.0.1", "8.8.8.8"].map(|source| may_name(ip(source), odd));
        assert_eq!(odd, [true, true, false]);
        for wrong in ["9.9.9.9:0", "[fe80::1]:1", "0.0.0.0:1", "[ff02::1]:1"] {
            assert!(
                !may_name(ip("127.0.0.1"), wrong.parse().unwrap()),
                "{wrong}"
            );
        }
    }
}
