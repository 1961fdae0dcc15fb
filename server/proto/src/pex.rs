//! Peer exchange (BEP 11): peers tell each other whom they are connected to.
//!
//! A message is the payload of an extended message ([`crate::extension::Extension::PeerExchange`]):
//! a dictionary of compact addresses that came and went, and a byte of flags for each that came.
//!
//! Limits: those of [`crate::bencode::Limits::EXTENSION`], and [`limits::PEX_PEERS_MAX`] addresses
//! of each list; what is beyond is left out, and so is the rest of a list that does not end with a
//! whole address. What may be believed of it is not decided here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::bencode::{self, Dict, Document, Encoder, Value};
use crate::extension::ExtensionError;
use crate::limits;

/// What is told of a peer beside its address: the bits of BEP 11.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct PexFlags(pub u8);

impl PexFlags {
    /// It prefers encrypted connections.
    pub const PREFERS_ENCRYPTION: PexFlags = PexFlags(0x01);
    /// It uploads only.
    pub const SEED: PexFlags = PexFlags(0x02);
    /// It speaks uTP.
    pub const UTP: PexFlags = PexFlags(0x04);
    /// It takes part in `ut_holepunch` (BEP 55).
    pub const HOLEPUNCH: PexFlags = PexFlags(0x08);
    /// Who tells of it has reached it at this address.
    pub const REACHABLE: PexFlags = PexFlags(0x10);

    /// Whether all bits of `flags` are set.
    pub const fn has(self, flags: PexFlags) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// These flags and `flags`.
    #[must_use]
    pub const fn with(self, flags: PexFlags) -> PexFlags {
        PexFlags(self.0 | flags.0)
    }
}

/// A peer that somebody is connected to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PexPeer {
    /// Where it takes connections.
    pub address: SocketAddr,
    /// What else is known of it.
    pub flags: PexFlags,
}

/// One message.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PexMessage {
    /// Peers that the sender is connected to since the last message, or at all if this is the
    /// first.
    pub added: Vec<PexPeer>,
    /// Those that it is connected to no longer.
    pub dropped: Vec<SocketAddr>,
}

impl PexMessage {
    /// Parses the payload of an extended message with our id for peer exchange.
    pub fn parse(payload: &[u8]) -> Result<PexMessage, ExtensionError> {
        let document = Document::parse(payload, &bencode::Limits::EXTENSION)?;
        let root = document.root();
        let dict = root
            .dict()
            .ok_or(ExtensionError::NotDictionary(root.kind()))?;
        let mut message = PexMessage::default();
        for (key, flags_key, read) in [
            (&b"added"[..], &b"added.f"[..], v4 as Read),
            (b"added6", b"added6.f", v6),
        ] {
            let flags = list(dict, flags_key);
            let addresses = addresses(list(dict, key), read);
            message
                .added
                .extend(addresses.enumerate().map(|(at, address)| {
                    let flags = PexFlags(flags.get(at).copied().unwrap_or(0));
                    PexPeer { address, flags }
                }));
        }
        message
            .dropped
            .extend(addresses(list(dict, b"dropped"), v4));
        message
            .dropped
            .extend(addresses(list(dict, b"dropped6"), v6));
        Ok(message)
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.dropped.is_empty()
    }

    /// Appends the payload of the extended message. The lists of IPv4 are there even when they are
    /// empty, as everybody sends them.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (mut added, mut added6) = (Lists::default(), Lists::default());
        for peer in &self.added {
            let lists = match peer.address.ip().to_canonical() {
                IpAddr::V4(_) => &mut added,
                IpAddr::V6(_) => &mut added6,
            };
            push(&mut lists.addresses, peer.address);
            lists.flags.push(peer.flags.0);
        }
        let (mut dropped, mut dropped6) = (Vec::new(), Vec::new());
        for &address in &self.dropped {
            match address.ip().to_canonical() {
                IpAddr::V4(_) => push(&mut dropped, address),
                IpAddr::V6(_) => push(&mut dropped6, address),
            }
        }
        let mut encoder = Encoder::append_to(std::mem::take(out));
        encoder.begin_dict();
        encoder.key(b"added").bytes(&added.addresses);
        encoder.key(b"added.f").bytes(&added.flags);
        if !added6.addresses.is_empty() {
            encoder.key(b"added6").bytes(&added6.addresses);
            encoder.key(b"added6.f").bytes(&added6.flags);
        }
        encoder.key(b"dropped").bytes(&dropped);
        if !dropped6.is_empty() {
            encoder.key(b"dropped6").bytes(&dropped6);
        }
        encoder.end();
        *out = encoder.finish();
    }
}

#[derive(Default)]
struct Lists {
    addresses: Vec<u8>,
    flags: Vec<u8>,
}

/// Takes one address off the front of a list.
type Read = for<'a> fn(&'a [u8]) -> Option<(SocketAddr, &'a [u8])>;

fn v4(bytes: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let (&[a, b, c, d, high, low], rest) = bytes.split_first_chunk::<6>()?;
    let port = u16::from_be_bytes([high, low]);
    Some((SocketAddr::from((Ipv4Addr::new(a, b, c, d), port)), rest))
}

fn v6(bytes: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let (octets, rest) = bytes.split_first_chunk::<16>()?;
    let (port, rest) = rest.split_first_chunk::<2>()?;
    let address = (Ipv6Addr::from(*octets), u16::from_be_bytes(*port));
    Some((SocketAddr::from(address), rest))
}

fn list<'a>(dict: Dict<'_, 'a>, key: &[u8]) -> &'a [u8] {
    dict.get(key).and_then(Value::as_bytes).unwrap_or_default()
}

fn addresses(mut bytes: &[u8], read: Read) -> impl Iterator<Item = SocketAddr> {
    let next = move || {
        let (address, rest) = read(bytes)?;
        bytes = rest;
        Some(address)
    };
    std::iter::from_fn(next).take(limits::PEX_PEERS_MAX)
}

fn push(out: &mut Vec<u8>, address: SocketAddr) {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => out.extend(ip.octets()),
        IpAddr::V6(ip) => out.extend(ip.octets()),
    }
    out.extend(address.port().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn peer(address: &str, flags: u8) -> PexPeer {
        PexPeer {
            address: address.parse().unwrap(),
            flags: PexFlags(flags),
        }
    }

    fn encoded(message: &PexMessage) -> Vec<u8> {
        let mut out = Vec::new();
        message.encode(&mut out);
        out
    }

    #[test]
    fn a_message_has_the_bytes_of_bep_11() {
        let message = PexMessage {
            added: vec![peer("1.2.3.4:258", 0x12), peer("[2001:db8::1]:3", 1)],
            dropped: vec!["5.6.7.8:9".parse().unwrap()],
        };
        let mut due = b"d5:added6:\x01\x02\x03\x04\x01\x027:added.f1:\x126:added618:".to_vec();
        due.extend(b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\0\x038:added6.f1:\x01");
        due.extend(b"7:dropped6:\x05\x06\x07\x08\x00\x09e");
        assert_eq!(encoded(&message), due);
        assert_eq!(PexMessage::parse(&due), Ok(message));
        for length in 0..due.len() {
            assert!(PexMessage::parse(&due[..length]).is_err(), "{length}");
        }
        let empty = b"d5:added0:7:added.f0:7:dropped0:e";
        assert_eq!(encoded(&PexMessage::default()), empty);
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        let parse = |payload: &[u8]| PexMessage::parse(payload).unwrap();
        for nothing in [
            &b"de"[..],
            b"d5:addedi1e7:droppedlee",
            b"d5:added5:12345e",
            b"d6:added617:12345678901234567e",
        ] {
            assert!(parse(nothing).is_empty());
        }
        // A rest that is no address, and flags that are missing or too many.
        let two = parse(b"d5:added13:abcdefghijklm7:added.f1:\x02e");
        assert_eq!(two.added.len(), 2);
        assert!(two.added[0].flags.has(PexFlags::SEED));
        assert_eq!(two.added[1].flags, PexFlags::default());
        assert_eq!(
            parse(b"d5:added6:abcdef7:added.f9:123456789e").added.len(),
            1
        );
        for wrong in [&b"le"[..], b"i1e", b"d5:added", b""] {
            assert!(PexMessage::parse(wrong).is_err());
        }
    }

    #[test]
    fn a_long_list_is_cut() {
        let bytes = vec![7; 6 * (limits::PEX_PEERS_MAX + 1)];
        let mut payload = format!("d5:added{}:", bytes.len()).into_bytes();
        payload.extend(&bytes);
        payload.extend(format!("7:dropped{}:", bytes.len()).into_bytes());
        payload.extend(&bytes);
        payload.push(b'e');
        let message = PexMessage::parse(&payload).unwrap();
        assert_eq!(message.added.len(), limits::PEX_PEERS_MAX);
        assert_eq!(message.dropped.len(), limits::PEX_PEERS_MAX);
    }

    fn v4_addresses() -> impl Strategy<Value = Vec<SocketAddr>> {
        vec(any::<([u8; 4], u16)>().prop_map(SocketAddr::from), 0..60)
    }

    fn v6_addresses() -> impl Strategy<Value = Vec<SocketAddr>> {
        let is_v6 = |address: &SocketAddr| address.ip().to_canonical().is_ipv6();
        let any = any::<([u8; 16], u16)>().prop_map(SocketAddr::from);
        vec(any.prop_filter("an IPv4 address", is_v6), 0..60)
    }

    proptest! {
        #[test]
        fn decode_encode_is_identity(
            lists in (v4_addresses(), v6_addresses(), v4_addresses(), v6_addresses()),
            flags in vec(any::<u8>(), 120),
        ) {
            let (added, added6, dropped, dropped6) = lists;
            let added = added.into_iter().chain(added6).zip(flags);
            let message = PexMessage {
                added: added.map(|(address, flags)| PexPeer { address, flags: PexFlags(flags) }).collect(),
                dropped: dropped.into_iter().chain(dropped6).collect(),
            };
            prop_assert_eq!(PexMessage::parse(&encoded(&message)), Ok(message));
        }

        #[test]
        fn hostile_bytes_never_panic_and_are_bounded(bytes in vec(any::<u8>(), 0..400)) {
            if let Ok(message) = PexMessage::parse(&bytes) {
                prop_assert!(message.added.len() <= 2 * limits::PEX_PEERS_MAX);
                prop_assert!(message.dropped.len() <= 2 * limits::PEX_PEERS_MAX);
            }
        }

        #[test]
        fn a_flipped_bit_never_panics(at in any::<usize>(), bit in 0..8_u8) {
            let message = PexMessage {
                added: vec![peer("1.2.3.4:5", 1), peer("[2001:db8::1]:3", 1)],
                dropped: vec!["5.6.7.8:9".parse().unwrap()],
            };
            let mut bytes = encoded(&message);
            let at = at % bytes.len();
            bytes[at] ^= 1_u8 << bit;
            let _ = PexMessage::parse(&bytes);
        }
    }
}
