//! Lines of lists of addresses to keep away, in the formats in use:
//!
//! - PeerGuardian text (`p2p`): `Some name: of its own:1.2.3.0-1.2.3.255`
//! - eMule's `ipfilter.dat`: `001.002.003.000 - 001.002.003.255 , 100 , Some name`; a level above
//!   127 blocks nobody
//! - CIDR: `1.2.3.0/24`, `2001:db8::/32`, a single address, or a range, with a comment after `#` or
//!   `;` or none
//!
//! Each line is told by itself, so a file may mix them. Octets may have leading zeros, which are
//! not octal. Empty lines and those that begin with `#`, `;` or `//` say nothing.
//!
//! Limits: [`LINE_BYTES_MAX`] for a line; one that is longer is an error. Names may be of any
//! encoding.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest line that is read, in bytes.
pub const LINE_BYTES_MAX: usize = 1024;

/// The level of `ipfilter.dat` above which a range is allowed.
const LEVEL_BLOCKED_MAX: u32 = 127;

/// Addresses from one to another, both included, the first not above the last.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum IpRange {
    /// Of IPv4.
    V4(Ipv4Addr, Ipv4Addr),
    /// Of IPv6.
    V6(Ipv6Addr, Ipv6Addr),
}

impl IpRange {
    /// From `first` to `last`, unless they are of two families or in the wrong order.
    pub fn new(first: IpAddr, last: IpAddr) -> Option<IpRange> {
        match (first.to_canonical(), last.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(last)) if first <= last => {
                Some(IpRange::V4(first, last))
            }
            (IpAddr::V6(first), IpAddr::V6(last)) if first <= last => {
                Some(IpRange::V6(first, last))
            }
            _ => None,
        }
    }

    /// Whether `address` is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self, address.to_canonical()) {
            (IpRange::V4(first, last), IpAddr::V4(ip)) => (first..=last).contains(&&ip),
            (IpRange::V6(first, last), IpAddr::V6(ip)) => (first..=last).contains(&&ip),
            _ => false,
        }
    }
}

/// Why a line was not understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LineError {
    /// It is too long for any of the formats.
    #[error("longer than {LINE_BYTES_MAX} bytes")]
    Long,
    /// It is of none of the formats, or its range is empty.
    #[error("no range of addresses, such as 1.2.3.0/24, 1.2.3.4-1.2.3.9 or name:1.2.3.4-1.2.3.9")]
    Unknown,
}

/// Parses one line without its end. `None` if it blocks nobody.
pub fn parse_line(line: &[u8]) -> Result<Option<IpRange>, LineError> {
    if line.len() > LINE_BYTES_MAX {
        return Err(LineError::Long);
    }
    let line = line
        .strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(line)
        .trim_ascii();
    if line.is_empty()
        || line.starts_with(b"//")
        || line.starts_with(b"#")
        || line.starts_with(b";")
    {
        return Ok(None);
    }
    if let Some((range, rest)) = split_at(line, b',')
        && let Some(range) = from_to(range)
    {
        let level = split_at(rest, b',').map_or(rest, |(level, _)| level);
        let level = text(level).and_then(|level| level.parse::<u32>().ok());
        let is_blocked = level.is_none_or(|level| level <= LEVEL_BLOCKED_MAX);
        return Ok(is_blocked.then_some(range));
    }
    let bare = [b'#', b';'].iter().fold(line, |line, &sign| {
        split_at(line, sign).map_or(line, |(before, _)| before)
    });
    let range = from_to(bare)
        .or_else(|| network(bare))
        .or_else(|| named(line));
    range.map(Some).ok_or(LineError::Unknown)
}

/// A range behind a name and a colon, which the name may have too, and IPv6 addresses do: the
/// longest end of the line that is one.
fn named(line: &[u8]) -> Option<IpRange> {
    let is_of_range = |byte: &u8| byte.is_ascii_hexdigit() || b".:- ".contains(byte);
    let outside = line.iter().rposition(|byte| !is_of_range(byte));
    let colons = (0..line.len()).filter(|&at| line.get(at) == Some(&b':'));
    let mut behind = colons.filter(|&at| outside.is_none_or(|outside| at > outside));
    behind.find_map(|at| from_to(line.get(at + 1..)?))
}

/// `first-last`.
fn from_to(range: &[u8]) -> Option<IpRange> {
    let (first, last) = split_at(range, b'-')?;
    IpRange::new(address(first)?, address(last)?)
}

/// `address/bits`, or an address alone.
fn network(network: &[u8]) -> Option<IpRange> {
    let Some((first, bits)) = split_at(network, b'/') else {
        let one = address(network)?;
        return IpRange::new(one, one);
    };
    let bits: u32 = text(bits)?.parse().ok()?;
    match address(first)? {
        IpAddr::V4(ip) if bits <= 32 => {
            let hosts = u32::MAX.checked_shr(bits).unwrap_or(0);
            let first = ip.to_bits() & !hosts;
            Some(IpRange::V4(first.into(), (first | hosts).into()))
        }
        IpAddr::V6(ip) if bits <= 128 => {
            let hosts = u128::MAX.checked_shr(bits).unwrap_or(0);
            let first = ip.to_bits() & !hosts;
            Some(IpRange::V6(first.into(), (first | hosts).into()))
        }
        _ => None,
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let text = text(bytes)?;
    if text.contains(':') {
        return text.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        let is_number = (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        *octet = part.parse().ok().filter(|_| is_number)?;
    }
    parts.next().is_none().then(|| IpAddr::from(octets))
}

/// What is before the first `sign` and behind it.
fn split_at(bytes: &[u8], sign: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|&byte| byte == sign)?;
    Some((bytes.get(..at)?, bytes.get(at + 1..)?))
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes.trim_ascii()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn range(first: &str, last: &str) -> IpRange {
        IpRange::new(first.parse().unwrap(), last.parse().unwrap()).unwrap()
    }

    #[test]
    fn lines_of_all_formats_are_understood() {
        let block = |first, last| Some(range(first, last));
        let cases: &[(&[u8], Option<IpRange>)] = &[
            (b"Bogon:1.2.3.4-1.2.3.9", block("1.2.3.4", "1.2.3.9")),
            (
                b"A: name, with - all:1.2.3.4-1.2.3.9\r",
                block("1.2.3.4", "1.2.3.9"),
            ),
            (b"caf\xe9:1.2.3.4-1.2.3.9", block("1.2.3.4", "1.2.3.9")),
            (
                b"1.2.3.4 is named:5.0.0.0-5.255.255.255",
                block("5.0.0.0", "5.255.255.255"),
            ),
            (
                b"v6:2001:db8::-2001:db8::ffff",
                block("2001:db8::", "2001:db8::ffff"),
            ),
            (
                b"001.002.003.004 - 001.002.003.010 , 000 , Some, name",
                block("1.2.3.4", "1.2.3.10"),
            ),
            (b"1.2.3.4 - 1.2.3.9 , 127 , x", block("1.2.3.4", "1.2.3.9")),
            (b"1.2.3.4 - 1.2.3.9 , 128 , x", None),
            (b"1.2.3.4-1.2.3.9,,x", block("1.2.3.4", "1.2.3.9")),
            (b"1.2.3.77/24", block("1.2.3.0", "1.2.3.255")),
            (b"1.2.3.0/24 ; SBL1", block("1.2.3.0", "1.2.3.255")),
            (b"0.0.0.0/0", block("0.0.0.0", "255.255.255.255")),
            (b"1.2.3.4/32 # one", block("1.2.3.4", "1.2.3.4")),
            (b"1.2.3.4", block("1.2.3.4", "1.2.3.4")),
            (b"010.000.000.001", block("10.0.0.1", "10.0.0.1")),
            (b"1.2.3.4-1.2.3.9", block("1.2.3.4", "1.2.3.9")),
            (
                b"2001:db8::/32",
                block("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
            ),
            (
                b"::/0",
                block("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ),
            (b"2001:db8::1", block("2001:db8::1", "2001:db8::1")),
            (b"::ffff:1.2.3.4", block("1.2.3.4", "1.2.3.4")),
            (b"\xef\xbb\xbf# a list", None),
            (b"", None),
            (b"  \t", None),
            (b"// no", None),
            (b"; no", None),
        ];
        for (line, due) in cases {
            assert_eq!(parse_line(line), Ok(*due), "{}", line.escape_ascii());
        }
    }

    #[test]
    fn what_is_no_range_is_an_error() {
        for line in [
            "name",
            "name:",
            "name:1.2.3.4",
            "name:1.2.3.9-1.2.3.4",
            "1.2.3.9-1.2.3.4",
            "1.2.3.4-",
            "1.2.3.4-::1",
            "1.2.3/24",
            "1.2.3.4/33",
            "1.2.3.4/-1",
            "::/129",
            "1.2.3.256",
            "1.2.3.4.5",
            "1.2.3.0004",
            "1.2..4",
            "+1.2.3.4",
        ] {
            assert_eq!(
                parse_line(line.as_bytes()),
                Err(LineError::Unknown),
                "{line}"
            );
        }
        let long = [b'1'; LINE_BYTES_MAX + 1];
        assert_eq!(parse_line(&long), Err(LineError::Long));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(one in any::<u32>(), other in any::<u32>(), name in vec(any::<char>().prop_filter("an end of a line", |c| !"\r\n".contains(*c)), 0..40)) {
            let (first, last) = (one.min(other), one.max(other));
            let name: String = name.into_iter().collect();
            let (first, last) = (Ipv4Addr::from(first), Ipv4Addr::from(last));
            let due = Ok(Some(IpRange::V4(first, last)));
            // A name that looks like a comment makes a comment of its line.
            let p2p = format!("n{name}:{first}-{last}");
            prop_assert_eq!(parse_line(p2p.as_bytes()), due);
            prop_assert_eq!(parse_line(format!("{first} - {last} , 000 , {name}").as_bytes()), due);
            prop_assert_eq!(parse_line(format!("{first}-{last}").as_bytes()), due);
        }

        #[test]
        fn networks_hold_their_addresses(ip in any::<u128>(), bits in 0..=128_u32, host in any::<u128>()) {
            let hosts = u128::MAX.checked_shr(bits).unwrap_or(0);
            let inside = IpAddr::V6(Ipv6Addr::from(ip & !hosts | host & hosts));
            let line = format!("{}/{bits}", Ipv6Addr::from(ip));
            let parsed = parse_line(line.as_bytes()).unwrap().unwrap();
            if matches!(parsed, IpRange::V6(..)) && inside.to_canonical().is_ipv6() {
                prop_assert!(parsed.contains(inside));
            }
        }

        #[test]
        fn hostile_lines_never_panic(
            line in vec(prop_oneof![Just(b':'), Just(b'-'), Just(b'.'), Just(b'1'), Just(b','), any::<u8>()], 0..200),
        ) {
            if let Ok(Some(IpRange::V4(first, last))) = parse_line(&line) {
                prop_assert!(first <= last);
            }
        }
    }
}
