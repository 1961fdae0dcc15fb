//! Local service discovery (BEP 14): datagrams to a multicast group that say which torrents a host
//! has.
//!
//! A datagram looks like a request of HTTP, with `Port`, one or more `Infohash` and a `cookie` by
//! which a host knows its own datagrams.
//!
//! Limits: [`DATAGRAM_BYTES_MAX`] bytes, in which there is room for [`INFO_HASHES_MAX`] torrents; a
//! cookie of [`COOKIE_BYTES_MAX`]. Headers that are not known are skipped.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::num::NonZeroU16;

use crate::ids::InfoHashV1;

/// The port of both groups.
pub const PORT: u16 = 6771;

/// The group of IPv4.
pub const GROUP_V4: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 192, 152, 143), PORT);

/// The group of IPv6.
pub const GROUP_V6: SocketAddrV6 = SocketAddrV6::new(
    Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0xefc0, 0x988f),
    PORT,
    0,
    0,
);

/// The longest datagram that is sent or read: what fits an Ethernet frame (BEP 14).
pub const DATAGRAM_BYTES_MAX: usize = 1400;

/// Torrents in one datagram that we send: each takes 52 bytes.
pub const INFO_HASHES_MAX: usize = 24;

/// The longest cookie that is kept; a longer one is not ours.
pub const COOKIE_BYTES_MAX: usize = 64;

const FIRST_LINE: &str = "BT-SEARCH * HTTP/1.1";

/// What a datagram says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Announcement {
    /// The port on which the sender takes connections of peers.
    pub port: NonZeroU16,
    /// The torrents that it has, or wants; at least one.
    pub info_hashes: Vec<InfoHashV1>,
    /// What the sender calls itself, if it does.
    pub cookie: Option<String>,
}

/// Why a datagram was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LsdError {
    /// It is longer than any honest one.
    #[error("a datagram of {0} bytes, at most {DATAGRAM_BYTES_MAX} are read")]
    Long(usize),
    /// It does not begin as one.
    #[error("not a BT-SEARCH datagram")]
    NotSearch,
    /// It has no port, or an impossible one.
    #[error("no port from 1 to 65535")]
    Port,
    /// It names no torrent, or one by something that is no hash.
    #[error("no info-hash, or one that is not 40 hexadecimal digits")]
    InfoHash,
}

impl Announcement {
    /// Parses a datagram.
    pub fn parse(datagram: &[u8]) -> Result<Announcement, LsdError> {
        if datagram.len() > DATAGRAM_BYTES_MAX {
            return Err(LsdError::Long(datagram.len()));
        }
        let mut lines = datagram
            .split(|&byte| byte == b'\n')
            .map(<[u8]>::trim_ascii);
        if lines.next() != Some(FIRST_LINE.as_bytes()) {
            return Err(LsdError::NotSearch);
        }
        let (mut port, mut info_hashes, mut cookie) = (None, Vec::new(), None);
        for line in lines.take_while(|line| !line.is_empty()) {
            let Some(colon) = line.iter().position(|&byte| byte == b':') else {
                continue;
            };
            let (name, value) = line.split_at(colon);
            let value = value.get(1..).unwrap_or_default().trim_ascii();
            let is = |known: &str| name.trim_ascii().eq_ignore_ascii_case(known.as_bytes());
            if is("Port") {
                port = port.or(parse_port(value));
            } else if is("Infohash") {
                info_hashes.push(parse_hash(value).ok_or(LsdError::InfoHash)?);
            } else if is("cookie") && value.len() <= COOKIE_BYTES_MAX {
                cookie = cookie.or(std::str::from_utf8(value).ok().map(str::to_owned));
            }
        }
        if info_hashes.is_empty() {
            return Err(LsdError::InfoHash);
        }
        Ok(Announcement {
            port: port.ok_or(LsdError::Port)?,
            info_hashes,
            cookie,
        })
    }

    /// The datagram for `group`. Its cookie is one line of at most [`COOKIE_BYTES_MAX`] bytes.
    pub fn encode(&self, group: SocketAddr) -> Vec<u8> {
        let mut text = format!("{FIRST_LINE}\r\nHost: {group}\r\nPort: {}\r\n", self.port);
        for info_hash in &self.info_hashes {
            // Writing to a string cannot fail.
            let _ = write!(text, "Infohash: {info_hash}\r\n");
        }
        if let Some(cookie) = &self.cookie {
            let _ = write!(text, "cookie: {cookie}\r\n");
        }
        text.push_str("\r\n\r\n");
        text.into_bytes()
    }
}

fn parse_port(value: &[u8]) -> Option<NonZeroU16> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn parse_hash(value: &[u8]) -> Option<InfoHashV1> {
    if value.len() != 40 {
        return None;
    }
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let mut hash = [0; 20];
    for (byte, digits) in hash.iter_mut().zip(value.chunks_exact(2)) {
        let [high, low] = digits else { return None };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(InfoHashV1(hash))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn announcement(hashes: usize) -> Announcement {
        Announcement {
            port: NonZeroU16::new(u16::MAX).unwrap(),
            info_hashes: (0..hashes)
                .map(|number| InfoHashV1([number as u8; 20]))
                .collect(),
            cookie: Some("x".repeat(COOKIE_BYTES_MAX)),
        }
    }

    #[test]
    fn a_datagram_is_that_of_bep_14() {
        let one = Announcement {
            port: NonZeroU16::new(6890).unwrap(),
            info_hashes: vec![InfoHashV1([0xab; 20])],
            cookie: Some("me".to_owned()),
        };
        let hash = "ab".repeat(20);
        let due = format!(
            "BT-SEARCH * HTTP/1.1\r\nHost: 239.192.152.143:6771\r\nPort: 6890\r\n\
             Infohash: {hash}\r\ncookie: me\r\n\r\n\r\n"
        );
        let bytes = one.encode(GROUP_V4.into());
        assert_eq!(String::from_utf8(bytes.clone()).unwrap(), due);
        assert_eq!(Announcement::parse(&bytes), Ok(one.clone()));
        let v6 = String::from_utf8(one.encode(GROUP_V6.into())).unwrap();
        assert!(v6.contains("Host: [ff15::efc0:988f]:6771\r\n"), "{v6}");
    }

    #[test]
    fn as_many_torrents_as_we_name_fit() {
        let full = announcement(INFO_HASHES_MAX);
        let bytes = full.encode(GROUP_V6.into());
        assert!(bytes.len() <= DATAGRAM_BYTES_MAX, "{}", bytes.len());
        assert_eq!(Announcement::parse(&bytes), Ok(full));
    }

    #[test]
    fn what_others_send_is_understood() {
        let upper = "AB".repeat(20);
        for text in [
            format!("BT-SEARCH * HTTP/1.1\nport:1\ninfohash:{upper}\n"),
            format!(
                "BT-SEARCH * HTTP/1.1\r\nX: y\r\njunk\r\nPORT:  1 \r\nINFOHASH: {upper} \r\n\r\n"
            ),
            format!(
                "BT-SEARCH * HTTP/1.1\r\nPort: 1\r\nInfohash: {upper}\r\ncookie: {}\r\n",
                "x".repeat(65)
            ),
        ] {
            let parsed = Announcement::parse(text.as_bytes()).unwrap();
            assert_eq!(parsed.port.get(), 1);
            assert_eq!(parsed.info_hashes, [InfoHashV1([0xab; 20])]);
            assert_eq!(parsed.cookie, None);
        }
    }

    #[test]
    fn what_is_no_announcement_is_refused() {
        let hash = "ab".repeat(20);
        let cases = [
            (String::new(), LsdError::NotSearch),
            ("M-SEARCH * HTTP/1.1\r\n".to_owned(), LsdError::NotSearch),
            (
                "BT-SEARCH * HTTP/1.1\r\nPort: 1\r\n".to_owned(),
                LsdError::InfoHash,
            ),
            (
                format!("BT-SEARCH * HTTP/1.1\r\nInfohash: {hash}\r\n"),
                LsdError::Port,
            ),
            (
                format!("BT-SEARCH * HTTP/1.1\r\nPort: 0\r\nInfohash: {hash}\r\n"),
                LsdError::Port,
            ),
            (
                format!("BT-SEARCH * HTTP/1.1\r\nPort: 65536\r\nInfohash: {hash}\r\n"),
                LsdError::Port,
            ),
            (
                format!("BT-SEARCH * HTTP/1.1\r\nPort: 1\r\nInfohash: {hash}0\r\n"),
                LsdError::InfoHash,
            ),
            (
                format!(
                    "BT-SEARCH * HTTP/1.1\r\nPort: 1\r\nInfohash: g{}\r\n",
                    &hash[1..]
                ),
                LsdError::InfoHash,
            ),
            ("x".repeat(1401), LsdError::Long(1401)),
        ];
        for (text, due) in cases {
            assert_eq!(Announcement::parse(text.as_bytes()), Err(due), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn decode_encode_is_identity(
            port in 1..=u16::MAX, hashes in vec(any::<[u8; 20]>(), 1..=INFO_HASHES_MAX), cookie in vec(prop_oneof![Just('a'), Just('0'), Just('-')], 0..=64),
        ) {
            let one = Announcement {
                port: NonZeroU16::new(port).unwrap(),
                info_hashes: hashes.into_iter().map(InfoHashV1).collect(),
                cookie: Some(cookie.into_iter().collect()),
            };
            let bytes = one.encode(GROUP_V4.into());
            prop_assert_eq!(Announcement::parse(&bytes), Ok(one));
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in vec(any::<u8>(), 0..200), length in 0..400_usize) {
            let _ = Announcement::parse(&bytes);
            let mut whole = announcement(3).encode(GROUP_V4.into());
            whole.truncate(length);
            whole.extend(bytes);
            if let Ok(parsed) = Announcement::parse(&whole) {
                prop_assert!(!parsed.info_hashes.is_empty());
            }
        }
    }
}
