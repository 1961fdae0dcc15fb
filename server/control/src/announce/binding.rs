//! By which interface or address trackers are asked, failing closed: where it is gone nothing
//! leaves.
//!
//! Limits: none of its own. Does not: bind name lookups, which the system's resolver makes as it is
//! configured; with a proxy there are none but that of the proxy's name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use super::resolve::Family;

/// By what requests to trackers leave this machine. Default: as the routing table says.
///
/// When an address of one family only is given, trackers are not asked by the other family at all,
/// because that would go round the binding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Binding {
    /// Only by this network interface (`SO_BINDTODEVICE`).
    pub interface: Option<String>,
    /// Only from this IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// Only from this IPv6 address.
    pub v6: Option<Ipv6Addr>,
}

impl Binding {
    /// Whether anything is bound.
    pub(super) fn is_bound(&self) -> bool {
        *self != Binding::default()
    }

    /// The address to send from by a family, if one is given.
    pub(crate) fn address(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.v4.map(IpAddr::V4),
            Family::V6 => self.v6.map(IpAddr::V6),
        }
    }

    /// Whether trackers, and web servers, may be asked by a family.
    pub(crate) fn allows(&self, family: Family) -> bool {
        (self.v4.is_none() && self.v6.is_none()) || self.address(family).is_some()
    }

    /// A UDP socket of a family, at a port that the kernel draws at random.
    pub(super) fn udp_socket(&self, family: Family) -> Result<UdpSocket, String> {
        let (domain, any) = match family {
            Family::V4 => (Domain::IPV4, IpAddr::from(Ipv4Addr::UNSPECIFIED)),
            Family::V6 => (Domain::IPV6, IpAddr::from(Ipv6Addr::UNSPECIFIED)),
        };
        let failed = |what: String| move |error: std::io::Error| format!("cannot {what}: {error}");
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))
            .map_err(failed("open a UDP socket".to_owned()))?;
        if family == Family::V6 {
            let only = socket.set_only_v6(true);
            only.map_err(failed("keep a socket to IPv6".to_owned()))?;
        }
        if let Some(interface) = &self.interface {
            socket
                .bind_device(Some(interface.as_bytes()))
                .map_err(failed(format!(
                    "bind to the interface {interface} (announce.bind_interface)"
                )))?;
        }
        let address = self.address(family).unwrap_or(any);
        socket
            .bind(&SocketAddr::new(address, 0).into())
            .map_err(failed(format!("bind to the address {address}")))?;
        socket
            .set_nonblocking(true)
            .map_err(failed("make a socket non-blocking".to_owned()))?;
        UdpSocket::from_std(socket.into()).map_err(failed("watch a UDP socket".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_family_without_an_address_is_left_out() {
        let free = Binding::default();
        assert!(free.allows(Family::V4) && free.allows(Family::V6) && !free.is_bound());
        let v4 = Binding {
            v4: Some(Ipv4Addr::LOCALHOST),
            ..Binding::default()
        };
        assert!(v4.allows(Family::V4) && !v4.allows(Family::V6) && v4.is_bound());
        let socket = v4.udp_socket(Family::V4).unwrap();
        assert_eq!(socket.local_addr().unwrap().ip(), Ipv4Addr::LOCALHOST);
    }

    #[tokio::test]
    async fn what_is_gone_is_an_error() {
        let interface = Binding {
            interface: Some("absent0".to_owned()),
            ..Binding::default()
        };
        let error = interface.udp_socket(Family::V4).unwrap_err();
        assert!(error.contains("absent0"), "{error}");
        // An address for documentation (RFC 5737), which nobody has.
        let address = Binding {
            v4: Some(Ipv4Addr::new(192, 0, 2, 77)),
            ..Binding::default()
        };
        let error = address.udp_socket(Family::V4).unwrap_err();
        assert!(error.contains("192.0.2.77"), "{error}");
    }
}
