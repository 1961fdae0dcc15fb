//! The identifiers of the protocol as types of their own, so that one is never taken for another.

use std::fmt;

/// The SHA-1 of a torrent's raw `info` dictionary (BEP 3): 20 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InfoHashV1(pub [u8; 20]);

/// The SHA-256 of a torrent's raw `info` dictionary (BEP 52): 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InfoHashV2(pub [u8; 32]);

/// The 20 bytes by which a peer names itself in handshakes and announces (BEP 3, conventions in BEP 20).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub [u8; 20]);

/// The index of a piece in its torrent, from 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PieceIndex(pub u32);

impl fmt::Display for PieceIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl InfoHashV1 {
    /// The info-hash that is written as 40 hex digits, of either case; none if that is anything
    /// else.
    pub fn from_hex(digits: &str) -> Option<InfoHashV1> {
        from_hex(digits).map(InfoHashV1)
    }
}

/// The bytes that are written as two hex digits each, of either case: so many and no more.
pub(crate) fn from_hex<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = hex_digit(*high)? << 4 | hex_digit(*low)?;
    }
    Some(bytes)
}

/// The value of a hex digit.
pub(crate) fn hex_digit(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

/// Writes `bytes` in lower-case hex.
fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

macro_rules! hex_display {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            /// Lower-case hex, without separators.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(f, &self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    )*};
}
hex_display!(InfoHashV1, InfoHashV2, PeerId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_info_hash_is_read_as_it_is_written_and_nothing_else_is_one() {
        let hash = InfoHashV1(std::array::from_fn(|at| at as u8 * 13));
        let text = hash.to_string();
        assert_eq!(InfoHashV1::from_hex(&text), Some(hash));
        assert_eq!(InfoHashV1::from_hex(&text.to_uppercase()), Some(hash));
        let two_bytes = format!("{}\u{e9}", &text[..38]);
        for other in ["", &text[1..], &format!("{text}00"), &two_bytes] {
            assert_eq!(InfoHashV1::from_hex(other), None, "{other}");
        }
        // What the standard library takes for numbers.
        for pair in ["+1", " 1", "1_", "-0", "g0"] {
            let other = format!("{pair}{}", &text[2..]);
            assert_eq!(InfoHashV1::from_hex(&other), None, "{other}");
        }
    }
}
