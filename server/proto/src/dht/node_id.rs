//! Ids of nodes, how far apart they are, and which of them an address allows (BEP 42).

use std::fmt;
use std::net::IpAddr;

use crate::address::is_global;
use crate::ids::InfoHashV1;

/// Bits of an id.
pub const ID_BITS: usize = 160;

/// The 20 bytes by which a node names itself, in the same space as info-hashes (BEP 5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub [u8; 20]);

/// How far two ids are apart: their exclusive or. Less is nearer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Distance(pub [u8; 20]);

impl Distance {
    /// Farther than any: of what has no known id.
    pub const MAX: Distance = Distance([0xff; 20]);

    /// The bits from the first that the two ids have in common.
    pub fn common_bits(&self) -> usize {
        let zeros = self.0.iter().take_while(|&&byte| byte == 0).count();
        let rest = self.0.get(zeros).map_or(0, |byte| byte.leading_zeros());
        zeros * 8 + rest as usize
    }
}

impl NodeId {
    /// How far `other` is.
    pub fn distance(&self, other: &NodeId) -> Distance {
        let mut distance = [0; 20];
        for (out, (a, b)) in distance.iter_mut().zip(self.0.iter().zip(&other.0)) {
            *out = a ^ b;
        }
        Distance(distance)
    }

    /// An id that this address allows (BEP 42), the rest of which is `random`.
    pub fn bound_to(address: IpAddr, random: [u8; 20]) -> NodeId {
        let mut id = random;
        let prefix = prefix(address, random[19]);
        id[0] = prefix[0];
        id[1] = prefix[1];
        id[2] = (prefix[2] & 0xf8) | (random[2] & 0x07);
        NodeId(id)
    }

    /// Whether the address allows the id (BEP 42). Addresses inside a network allow any: there,
    /// whoever has one has been let in.
    pub fn is_bound_to(&self, address: IpAddr) -> bool {
        if !is_global(address) {
            return true;
        }
        let prefix = prefix(address, self.0[19]);
        self.0[0] == prefix[0] && self.0[1] == prefix[1] && (self.0[2] ^ prefix[2]) & 0xf8 == 0
    }

    /// An id that has the first `common` bits of this one, another next bit, and is `random` from
    /// there.
    pub fn beside(&self, common: usize, random: [u8; 20]) -> NodeId {
        let mut id = random;
        for bit in 0..=common.min(ID_BITS - 1) {
            let (byte, mask) = (bit / 8, 0x80 >> (bit % 8));
            let set = (self.0[byte] & mask != 0) != (bit == common);
            id[byte] = (id[byte] & !mask) | if set { mask } else { 0 };
        }
        NodeId(id)
    }
}

impl From<InfoHashV1> for NodeId {
    /// Torrents lie in the space of the nodes.
    fn from(info_hash: InfoHashV1) -> NodeId {
        NodeId(info_hash.0)
    }
}

impl fmt::Display for NodeId {
    /// Lower-case hex, without separators.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        InfoHashV1(self.0).fmt(f)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({self})")
    }
}

/// The first three bytes that the address allows for ids with this last byte; the last three bits
/// are free.
fn prefix(address: IpAddr, last: u8) -> [u8; 3] {
    let salt = last & 0x07;
    let sum = match address.to_canonical() {
        IpAddr::V4(v4) => {
            let mut masked = u32::from(v4) & 0x030f_3fff;
            masked |= u32::from(salt) << 29;
            crc32c(&masked.to_be_bytes())
        }
        IpAddr::V6(v6) => {
            let mut masked = ((u128::from(v6) >> 64) as u64) & 0x0103_070f_1f3f_7fff;
            masked |= u64::from(salt) << 61;
            crc32c(&masked.to_be_bytes())
        }
    };
    let [first, second, third, _] = sum.to_be_bytes();
    [first, second, third]
}

/// CRC-32C (Castagnoli, RFC 3720 B.4), bit by bit: eight bytes at most, once for each node that is
/// met.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for &byte in bytes {
        sum ^= u32::from(byte);
        for _ in 0..8 {
            let carry = sum & 1;
            sum = (sum >> 1) ^ (carry * 0x82f6_3b78);
        }
    }
    !sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_crc32c() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    /// The examples of BEP 42: address, last byte, first three bytes, of whose third the last three
    /// bits are free.
    #[test]
    fn ids_are_bound_to_addresses_as_bep_42_says() {
        let examples = [
            ("124.31.75.21", 1, [0x5f, 0xbf, 0xbf]),
            ("21.75.31.124", 86, [0x5a, 0x3c, 0xe9]),
            ("65.23.51.170", 22, [0xa5, 0xd4, 0x32]),
            ("84.124.73.14", 65, [0x1b, 0x03, 0x21]),
            ("43.213.53.83", 90, [0xe5, 0x6f, 0x6c]),
        ];
        for (address, last, start) in examples {
            let address: IpAddr = address.parse().unwrap();
            let mut random = [0x55; 20];
            random[19] = last;
            let id = NodeId::bound_to(address, random);
            assert_eq!(id.0[..2], start[..2], "{address}");
            assert_eq!(id.0[2] & 0xf8, start[2] & 0xf8, "{address}");
            assert_eq!(id.0[2] & 0x07, 0x05);
            assert_eq!(id.0[19], last);
            assert!(id.is_bound_to(address));
            for byte in [0, 1, 2] {
                let mut other = id;
                other.0[byte] ^= 0x08;
                assert!(!other.is_bound_to(address), "{byte}");
            }
        }
    }

    #[test]
    fn of_ipv6_the_first_half_counts() {
        let here: IpAddr = "2600:1:2:3::1".parse().unwrap();
        let id = NodeId::bound_to(here, [9; 20]);
        assert!(id.is_bound_to("2600:1:2:3:ffff::5".parse().unwrap()));
        assert!(!id.is_bound_to("2600:1:2:4::1".parse().unwrap()));
        // An IPv4 address in IPv6 clothes is that address.
        let v4 = NodeId::bound_to("9.8.7.6".parse().unwrap(), [1; 20]);
        assert!(v4.is_bound_to("::ffff:9.8.7.6".parse().unwrap()));
    }

    #[test]
    fn inside_a_network_any_id_will_do() {
        for address in ["127.0.0.1", "10.0.0.1", "::1", "fe80::1", "192.168.1.1"] {
            assert!(NodeId([0x77; 20]).is_bound_to(address.parse().unwrap()));
        }
    }

    #[test]
    fn distances_order_and_count_bits() {
        let zero = NodeId([0; 20]);
        let mut near = zero;
        near.0[19] = 1;
        assert_eq!(zero.distance(&zero).common_bits(), ID_BITS);
        assert_eq!(zero.distance(&near).common_bits(), ID_BITS - 1);
        for common in 0..ID_BITS {
            let id = NodeId([0xa7; 20]);
            for random in [[0; 20], [0xff; 20], [0x31; 20]] {
                let other = id.beside(common, random);
                assert_eq!(id.distance(&other).common_bits(), common);
            }
        }
        assert!(zero.distance(&near) < zero.distance(&NodeId([1; 20])));
        assert!(zero.distance(&NodeId([0xff; 20])) <= Distance::MAX);
    }
}
