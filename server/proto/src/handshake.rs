//! The 68 bytes with which a plain BitTorrent connection begins (BEP 3).
//!
//! Parsing goes in stages, because two decisions are made before all 68 bytes are there: a stream
//! that is not BitTorrent (or is an encrypted one) shows at its first wrong byte, and the torrent
//! is known after 48 bytes, when the side that accepted the connection may look it up, refuse it,
//! or answer.
//!
//! Limits: none are needed, the size is fixed. Not here: the extension handshake (BEP 10), which is
//! [`crate::extension`]'s, and message stream encryption.

use std::fmt;

use crate::ids::{InfoHashV1, PeerId};

/// The whole handshake, in bytes.
pub const HANDSHAKE_BYTES: usize = 68;

/// The bytes after which the info-hash is known: protocol string, reserved bits, info-hash.
pub const INFO_HASH_KNOWN_BYTES: usize = 48;

/// The length byte and the protocol string.
pub const PROTOCOL: &[u8; 20] = b"\x13BitTorrent protocol";

/// The eight reserved bytes: what the sender can do beyond BEP 3. Unknown bits are kept, and
/// ignored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Reserved(pub [u8; 8]);

/// One bit of [`Reserved`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ReservedBit {
    byte: usize,
    mask: u8,
    name: &'static str,
}

impl ReservedBit {
    /// The Azureus messaging protocol, which we do not speak.
    pub const AZUREUS_MESSAGING: ReservedBit = ReservedBit::new(0, 0x80, "azureus-messaging");
    /// The location-aware protocol of BEP-less practice, which we do not speak.
    pub const LOCATION_AWARE: ReservedBit = ReservedBit::new(2, 0x08, "location-aware");
    /// The extension protocol, BEP 10.
    pub const EXTENSION_PROTOCOL: ReservedBit = ReservedBit::new(5, 0x10, "extension-protocol");
    /// High bit of the negotiation between Azureus messaging and BEP 10.
    pub const EXTENSION_NEGOTIATION_HIGH: ReservedBit =
        ReservedBit::new(5, 0x02, "extension-negotiation-high");
    /// Low bit of the negotiation between Azureus messaging and BEP 10.
    pub const EXTENSION_NEGOTIATION_LOW: ReservedBit =
        ReservedBit::new(5, 0x01, "extension-negotiation-low");
    /// The peer can be upgraded to v2 for a hybrid torrent, BEP 52.
    pub const V2: ReservedBit = ReservedBit::new(7, 0x10, "v2");
    /// NAT traversal, as XBT defined it.
    pub const NAT_TRAVERSAL: ReservedBit = ReservedBit::new(7, 0x08, "nat-traversal");
    /// The fast extension, BEP 6.
    pub const FAST: ReservedBit = ReservedBit::new(7, 0x04, "fast");
    /// Peer exchange, as XBT defined it.
    pub const XBT_PEER_EXCHANGE: ReservedBit = ReservedBit::new(7, 0x02, "xbt-peer-exchange");
    /// The peer has a DHT node and wants port messages, BEP 5.
    pub const DHT: ReservedBit = ReservedBit::new(7, 0x01, "dht");

    /// Every bit that has a name.
    pub const ALL: [ReservedBit; 10] = [
        Self::AZUREUS_MESSAGING,
        Self::LOCATION_AWARE,
        Self::EXTENSION_PROTOCOL,
        Self::EXTENSION_NEGOTIATION_HIGH,
        Self::EXTENSION_NEGOTIATION_LOW,
        Self::V2,
        Self::NAT_TRAVERSAL,
        Self::FAST,
        Self::XBT_PEER_EXCHANGE,
        Self::DHT,
    ];

    const fn new(byte: usize, mask: u8, name: &'static str) -> Self {
        ReservedBit { byte, mask, name }
    }

    /// A short name for logs and reports.
    pub const fn name(self) -> &'static str {
        self.name
    }
}

impl Reserved {
    /// No bit set: BEP 3 alone.
    pub const NONE: Reserved = Reserved([0; 8]);

    /// This, with `bit` set.
    #[must_use]
    pub const fn with(mut self, bit: ReservedBit) -> Self {
        self.0[bit.byte] |= bit.mask;
        self
    }

    /// Whether `bit` is set.
    pub const fn has(self, bit: ReservedBit) -> bool {
        self.0[bit.byte] & bit.mask != 0
    }

    /// Whether the peer speaks the extension protocol (BEP 10).
    pub const fn extension_protocol(self) -> bool {
        self.has(ReservedBit::EXTENSION_PROTOCOL)
    }

    /// Whether the peer speaks the fast extension (BEP 6). It is on only when both sides say so.
    pub const fn fast(self) -> bool {
        self.has(ReservedBit::FAST)
    }

    /// Whether the peer has a DHT node (BEP 5).
    pub const fn dht(self) -> bool {
        self.has(ReservedBit::DHT)
    }

    /// Whether the peer supports v2 torrents (BEP 52).
    pub const fn v2(self) -> bool {
        self.has(ReservedBit::V2)
    }
}

impl fmt::Debug for Reserved {
    /// The names of the bits, and the bytes in hex when there are bits without a name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut unnamed = *self;
        let mut names = f.debug_set();
        for bit in ReservedBit::ALL.into_iter().filter(|bit| self.has(*bit)) {
            unnamed.0[bit.byte] &= !bit.mask;
            names.entry(&format_args!("{}", bit.name));
        }
        if unnamed != Reserved::NONE {
            names.entry(&format_args!("0x{:016x}", u64::from_be_bytes(unnamed.0)));
        }
        names.finish()
    }
}

/// A whole handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Handshake {
    /// What the sender can do.
    pub reserved: Reserved,
    /// The torrent: its v1 info-hash, or for a v2 torrent the first 20 bytes of the v2 one (BEP
    /// 52).
    pub info_hash: InfoHashV1,
    /// How the sender calls itself.
    pub peer_id: PeerId,
}

/// How much of a handshake the input holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandshakeStage {
    /// All so far is right; more input is needed before there is anything to decide.
    Incomplete {
        /// The total number of bytes of input at which there is more to see.
        needed: usize,
    },
    /// The torrent is known; the peer id is not there yet.
    InfoHash {
        /// What the sender can do.
        reserved: Reserved,
        /// The torrent, see [`Handshake::info_hash`].
        info_hash: InfoHashV1,
    },
    /// The handshake is whole and took [`HANDSHAKE_BYTES`] of the input.
    Complete(Handshake),
}

/// The input is not a handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HandshakeError {
    /// A byte differs from the protocol string. An encrypted connection looks like this too.
    #[error(
        "handshake: byte {offset} is 0x{found:02x}, the BitTorrent protocol string has \
         0x{expected:02x} there; this is no plain BitTorrent connection"
    )]
    Protocol {
        /// Where in the stream.
        offset: usize,
        /// The byte there.
        found: u8,
        /// The byte that belongs there.
        expected: u8,
    },
}

/// Looks at the start of a stream. Never needs more than [`HANDSHAKE_BYTES`], and never looks
/// further.
pub fn parse(input: &[u8]) -> Result<HandshakeStage, HandshakeError> {
    let pairs = input.iter().zip(PROTOCOL).enumerate();
    for (offset, (&found, &expected)) in pairs {
        if found != expected {
            return Err(HandshakeError::Protocol {
                offset,
                found,
                expected,
            });
        }
    }
    let Some((known, rest)) = input.split_first_chunk::<INFO_HASH_KNOWN_BYTES>() else {
        return Ok(HandshakeStage::Incomplete {
            needed: INFO_HASH_KNOWN_BYTES,
        });
    };
    let mut reserved = [0; 8];
    reserved.copy_from_slice(&known[20..28]);
    let mut info_hash = [0; 20];
    info_hash.copy_from_slice(&known[28..48]);
    let (reserved, info_hash) = (Reserved(reserved), InfoHashV1(info_hash));
    Ok(match rest.first_chunk::<20>() {
        None => HandshakeStage::InfoHash {
            reserved,
            info_hash,
        },
        Some(peer_id) => HandshakeStage::Complete(Handshake {
            reserved,
            info_hash,
            peer_id: PeerId(*peer_id),
        }),
    })
}

impl Handshake {
    /// The handshake as it is on the wire.
    pub fn encode(&self) -> [u8; HANDSHAKE_BYTES] {
        let mut out = [0; HANDSHAKE_BYTES];
        out[..20].copy_from_slice(PROTOCOL);
        out[20..28].copy_from_slice(&self.reserved.0);
        out[28..48].copy_from_slice(&self.info_hash.0);
        out[48..].copy_from_slice(&self.peer_id.0);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Handshake {
        Handshake {
            reserved: Reserved::NONE
                .with(ReservedBit::EXTENSION_PROTOCOL)
                .with(ReservedBit::FAST),
            info_hash: InfoHashV1(*b"abcdefghijklmnopqrst"),
            peer_id: PeerId(*b"-XX0000-0123456789ab"),
        }
    }

    #[test]
    fn the_bytes_are_those_of_bep_3() {
        let bytes = sample().encode();
        let mut expected = b"\x13BitTorrent protocol\0\0\0\0\0\x10\0\x04".to_vec();
        expected.extend_from_slice(b"abcdefghijklmnopqrst-XX0000-0123456789ab");
        assert_eq!(bytes.as_slice(), expected);
    }

    #[test]
    fn every_truncation_has_its_stage() {
        let handshake = sample();
        let bytes = handshake.encode();
        for length in 0..bytes.len() {
            let stage = parse(&bytes[..length]).unwrap();
            if length < INFO_HASH_KNOWN_BYTES {
                assert_eq!(
                    stage,
                    HandshakeStage::Incomplete {
                        needed: INFO_HASH_KNOWN_BYTES
                    }
                );
            } else {
                let Handshake {
                    reserved,
                    info_hash,
                    ..
                } = handshake;
                assert_eq!(
                    stage,
                    HandshakeStage::InfoHash {
                        reserved,
                        info_hash
                    }
                );
            }
        }
        assert_eq!(parse(&bytes).unwrap(), HandshakeStage::Complete(handshake));
        let mut longer = bytes.to_vec();
        longer.extend_from_slice(&[0xff; 100]);
        assert_eq!(parse(&longer).unwrap(), HandshakeStage::Complete(handshake));
    }

    #[test]
    fn the_first_wrong_byte_ends_it() {
        let bytes = sample().encode();
        for offset in 0..PROTOCOL.len() {
            let mut wrong = bytes;
            wrong[offset] ^= 0x20;
            let error = HandshakeError::Protocol {
                offset,
                found: wrong[offset],
                expected: bytes[offset],
            };
            for length in offset + 1..=wrong.len() {
                assert_eq!(parse(&wrong[..length]), Err(error));
            }
            assert!(parse(&wrong[..offset]).is_ok());
        }
    }

    #[test]
    fn named_bits_are_where_their_beps_put_them() {
        let set = |bit| Reserved::NONE.with(bit).0;
        assert_eq!(
            set(ReservedBit::EXTENSION_PROTOCOL),
            [0, 0, 0, 0, 0, 0x10, 0, 0]
        );
        assert_eq!(set(ReservedBit::DHT), [0, 0, 0, 0, 0, 0, 0, 0x01]);
        assert_eq!(set(ReservedBit::FAST), [0, 0, 0, 0, 0, 0, 0, 0x04]);
        assert_eq!(set(ReservedBit::V2), [0, 0, 0, 0, 0, 0, 0, 0x10]);
        for (index, bit) in ReservedBit::ALL.into_iter().enumerate() {
            for (other, second) in ReservedBit::ALL.into_iter().enumerate() {
                assert_eq!(Reserved::NONE.with(bit).has(second), index == other);
            }
        }
    }

    #[test]
    fn debug_names_what_it_knows_and_shows_the_rest() {
        let reserved = Reserved([0, 0, 0, 0, 0, 0x10, 0, 0x45]);
        let text = format!("{reserved:?}");
        assert_eq!(text, "{extension-protocol, fast, dht, 0x0000000000000040}");
    }

    proptest! {
        #[test]
        fn decode_encode_is_identity(
            reserved: [u8; 8], info_hash: [u8; 20], peer_id: [u8; 20],
        ) {
            let handshake = Handshake {
                reserved: Reserved(reserved),
                info_hash: InfoHashV1(info_hash),
                peer_id: PeerId(peer_id),
            };
            prop_assert_eq!(parse(&handshake.encode()), Ok(HandshakeStage::Complete(handshake)));
        }

        #[test]
        fn any_input_is_answered(input in proptest::collection::vec(any::<u8>(), 0..100)) {
            match parse(&input) {
                Ok(HandshakeStage::Incomplete { needed }) => prop_assert!(needed > input.len()),
                Ok(HandshakeStage::Complete(handshake)) => {
                    let bytes = handshake.encode();
                    prop_assert_eq!(bytes.as_slice(), &input[..HANDSHAKE_BYTES]);
                }
                Ok(HandshakeStage::InfoHash { .. }) => prop_assert!(input.len() < HANDSHAKE_BYTES),
                Err(HandshakeError::Protocol { offset, found, expected }) => {
                    prop_assert_eq!(input[offset], found);
                    prop_assert_ne!(found, expected);
                }
            }
        }
    }
}
