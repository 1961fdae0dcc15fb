//! Who stands behind an address: what one host can have at will counts as one.
//!
//! An IPv4 address, and of IPv6 the /64 that one customer gets, is one *site*; addresses close by
//! (/24, /48) are one
//! *neighbourhood*, which is likely to have one owner. Inside a network (loopback, private
//! addresses) none of that tells anything: there every socket is a site, and there are no
//! neighbourhoods.

use proto::address::is_global;
use std::net::{IpAddr, SocketAddr};

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Site {
    prefix: u128,
    /// 0 but inside a network.
    port: u16,
}

impl Site {
    pub(super) fn of(address: SocketAddr) -> Site {
        let ip = address.ip();
        match ip.to_canonical() {
            inside if !is_global(inside) => Site {
                prefix: bits(inside),
                port: address.port(),
            },
            IpAddr::V4(v4) => Site {
                prefix: bits(v4.into()),
                port: 0,
            },
            IpAddr::V6(v6) => Site {
                prefix: u128::from(v6) >> 64 << 64,
                port: 0,
            },
        }
    }

    /// The bytes to hash it by.
    pub(super) fn to_bytes(self) -> [u8; 18] {
        let mut bytes = [0; 18];
        bytes[..16].copy_from_slice(&self.prefix.to_be_bytes());
        bytes[16..].copy_from_slice(&self.port.to_be_bytes());
        bytes
    }
}

/// The neighbourhood of an address, if it has one.
pub(super) fn neighbourhood(ip: IpAddr) -> Option<u128> {
    match ip.to_canonical() {
        inside if !is_global(inside) => None,
        IpAddr::V4(v4) => Some(bits(v4.into()) >> 8 << 8),
        IpAddr::V6(v6) => Some(u128::from(v6) >> 80 << 80),
    }
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(one: &str, other: &str) -> (bool, bool) {
        let (one, other): (SocketAddr, SocketAddr) = (one.parse().unwrap(), other.parse().unwrap());
        let near = neighbourhood(one.ip()).is_some()
            && neighbourhood(one.ip()) == neighbourhood(other.ip());
        (Site::of(one) == Site::of(other), near)
    }

    #[test]
    fn outside_hosts_and_customers_are_sites_and_inside_sockets_are() {
        assert_eq!(same("9.1.2.3:1", "9.1.2.3:2"), (true, true));
        assert_eq!(same("9.1.2.3:1", "9.1.2.4:1"), (false, true));
        assert_eq!(same("9.1.2.3:1", "9.1.3.3:1"), (false, false));
        assert_eq!(
            same("[2600:1:2:3::1]:1", "[2600:1:2:3:9::]:2"),
            (true, true)
        );
        assert_eq!(
            same("[2600:1:2:3::1]:1", "[2600:1:2:4::1]:1"),
            (false, true)
        );
        assert_eq!(
            same("[2600:1:2:3::1]:1", "[2600:1:3:3::1]:1"),
            (false, false)
        );
        assert_eq!(same("[::ffff:9.1.2.3]:1", "9.1.2.3:2"), (true, true));
        for inside in ["127.0.0.1", "10.0.0.1", "[::1]", "[fe80::1]"] {
            let (one, other) = (format!("{inside}:1"), format!("{inside}:2"));
            assert_eq!(same(&one, &other), (false, false));
            assert_eq!(same(&one, &one), (true, false));
        }
    }
}
