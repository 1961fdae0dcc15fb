//! Which of a tracker's peers are ourselves: they are dropped before anybody connects to them.
//!
//! An address is ours if it has our port and is one of this machine's, or the one that the tracker
//! says we have (BEP 24). What a router in between has, we cannot know; a connection to ourselves
//! that is made nonetheless shows by its peer id.
//!
//! Limits: [`PROBES_MAX`] addresses of a reply are looked at. Does not: list interfaces.

use std::net::{IpAddr, SocketAddr, UdpSocket};

/// Addresses with our port in one reply that are looked at; a reply with more is odd, and a
/// connection to ourselves costs little.
const PROBES_MAX: usize = 16;

/// Drops our own address from the peers of a reply.
pub(super) fn drop_own(peers: &mut Vec<SocketAddr>, port: u16, external: Option<IpAddr>) {
    let mut probes = 0;
    peers.retain(|peer| {
        if peer.port() != port {
            return true;
        }
        if external == Some(peer.ip()) {
            return false;
        }
        probes += 1;
        probes > PROBES_MAX || !is_local(peer.ip())
    });
}

/// Whether an address is one of this machine's: only then a socket can be bound to it.
fn is_local(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_address_with_our_port_is_ours() {
        let all = ["127.0.0.1:6890", "127.0.0.1:6891", "192.0.2.9:6890"];
        let all = all.map(|peer| peer.parse().unwrap());
        let mut peers = all.to_vec();
        drop_own(&mut peers, 6890, None);
        assert_eq!(peers, all[1..]);
        drop_own(&mut peers, 6890, Some("192.0.2.9".parse().unwrap()));
        assert_eq!(peers, all[1..2]);
    }

    #[test]
    fn a_reply_full_of_our_port_costs_little() {
        let peer = |number: u16| SocketAddr::from(([127, 0, (number >> 8) as u8, number as u8], 1));
        let mut peers: Vec<SocketAddr> = (0..10_000).map(peer).collect();
        drop_own(&mut peers, 1, None);
        assert_eq!(peers.len(), 10_000 - PROBES_MAX);
    }
}
