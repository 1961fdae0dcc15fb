//! Quantities as they are written on the command line: counts, sizes, seconds, ranges of addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proto::limits::PIECES_MAX;

/// The most addresses that one range may name.
const ADDRESSES_MAX: usize = 65_536;

/// More threads than this are a slip of the finger.
const THREADS_MAX: usize = 1_024;

/// More torrents than this are not named so that they sort.
const TORRENTS_MAX: usize = 1_000_000;

/// No line on earth is longer.
const ROUND_TRIP_MS_MAX: u64 = 10_000;

/// Parses a count that may not be 0.
pub fn count_from_1(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(count) => Ok(count),
        Err(error) => Err(format!("{error}")),
    }
}

/// Parses a rate in bytes per second, written like a size; 0 is none.
pub fn rate_bytes(text: &str) -> Result<u64, String> {
    match size_bytes(text)? {
        0 => Err("must be more than 0".to_owned()),
        bytes => Ok(bytes),
    }
}

/// Parses the length of content, written like a size; nothing cannot be shared.
pub fn content_bytes(text: &str) -> Result<u64, String> {
    match size_bytes(text)? {
        0 => Err("must be at least 1 B: an empty file has no pieces".to_owned()),
        bytes => Ok(bytes),
    }
}

/// Parses the length of content in pieces of 1 MiB: a whole number of them that a torrent may have.
pub fn whole_mebibytes(text: &str) -> Result<u64, String> {
    let bytes = size_bytes(text)?;
    let pieces = bytes >> 20;
    if pieces == 0 || pieces << 20 != bytes {
        return Err(format!(
            "the content has pieces of 1 MiB and must be a whole number of them, not {bytes} B: \
             give it in M or G"
        ));
    }
    match pieces <= u64::from(PIECES_MAX) {
        true => Ok(bytes),
        false => Err("must be at most 2048G: a torrent has no more pieces".to_owned()),
    }
}

/// Parses a number of threads.
pub fn threads(text: &str) -> Result<usize, String> {
    match count_from_1(text)? {
        threads @ 1..=THREADS_MAX => Ok(threads),
        _ => Err(format!("must be at most {THREADS_MAX}")),
    }
}

/// Parses a number of torrents.
pub fn torrents(text: &str) -> Result<usize, String> {
    match count_from_1(text)? {
        torrents @ 1..=TORRENTS_MAX => Ok(torrents),
        _ => Err(format!("must be at most {TORRENTS_MAX}")),
    }
}

/// Parses a round trip in milliseconds.
pub fn round_trip_ms(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(ms @ 0..=ROUND_TRIP_MS_MAX) => Ok(ms),
        _ => Err(format!("must be a number from 0 to {ROUND_TRIP_MS_MAX}")),
    }
}

/// Parses the depth of a pipeline.
pub fn depth(text: &str) -> Result<usize, String> {
    match count_from_1(text)? {
        depth @ 1..=2_000 => Ok(depth),
        _ => Err("must be at most 2000: no known seed queues more".to_owned()),
    }
}

/// Parses a size in bytes: `16384`, `16K` or `16KiB` (1,024), `16KB` (1,000), likewise M and G.
pub fn size_bytes(text: &str) -> Result<u64, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("{text:?} does not begin with a number"))?;
    let factor: u64 = match unit {
        "" | "B" => 1,
        "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        "KB" | "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => {
            return Err(format!(
                "{unit:?} is no unit; known are K, M, G (1024) and KB, MB, GB (1000)"
            ));
        }
    };
    number
        .checked_mul(factor)
        .ok_or_else(|| format!("{text:?} is too large"))
}

/// `bytes` in MiB, for reports.
pub fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Parses the length of a piece: a power of two from 16 KiB to 512 MiB.
pub fn piece_bytes(text: &str) -> Result<u32, String> {
    let bytes = size_bytes(text)?;
    match u32::try_from(bytes) {
        Ok(bytes) if bytes.is_power_of_two() && (1 << 14..=512 << 20).contains(&bytes) => Ok(bytes),
        _ => Err("must be a power of two from 16K to 512M".to_owned()),
    }
}

/// Parses seconds, such as `4` or `0.5`, up to a day; the result is in ns.
pub fn seconds_ns(text: &str) -> Result<u64, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| format!("{text:?} is not a number of seconds"))?;
    if !(0.0..=86_400.0).contains(&seconds) {
        return Err("must be from 0 to 86400 seconds".to_owned());
    }
    Ok((seconds * 1e9) as u64)
}

/// Parses the length of a measurement: seconds, as above, from a tenth.
pub fn window_ns(text: &str) -> Result<u64, String> {
    match seconds_ns(text)? {
        ns @ 100_000_000.. => Ok(ns),
        _ => Err("must be at least 0.1 seconds".to_owned()),
    }
}

/// Parses addresses and ranges of them, separated by commas: `127.0.0.2-127.0.0.201,::1`.
pub fn local_addresses(text: &str) -> Result<Box<[IpAddr]>, String> {
    let mut found = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let parse = |text: &str| {
            text.parse::<IpAddr>()
                .map_err(|_| format!("{text:?} is not an IP address"))
        };
        let range: Vec<IpAddr> = match (parse(first)?, parse(last)?) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                let bits = first.to_bits()..=last.to_bits();
                bits.take(ADDRESSES_MAX + 1)
                    .map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)))
                    .collect()
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                let bits = first.to_bits()..=last.to_bits();
                bits.take(ADDRESSES_MAX + 1)
                    .map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)))
                    .collect()
            }
            _ => Vec::new(),
        };
        if range.is_empty() {
            return Err(format!(
                "{part:?} is not a range: the last address precedes the first"
            ));
        }
        found.extend(range);
        if found.len() > ADDRESSES_MAX {
            return Err(format!("more than {ADDRESSES_MAX} addresses"));
        }
    }
    Ok(found.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size_bytes("16384"), Ok(16_384));
        assert_eq!(size_bytes("16K"), Ok(16_384));
        assert_eq!(size_bytes("2GB"), Ok(2_000_000_000));
        for wrong in ["", "K", "1.5M", "12X", "-1", "99999999999G"] {
            assert!(size_bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn content_is_something_and_in_whole_pieces() {
        assert_eq!(content_bytes("1"), Ok(1));
        assert!(content_bytes("0").is_err() && content_bytes("x").is_err());
        assert_eq!(whole_mebibytes("2048G"), Ok(1 << 41));
        for (wrong, why) in [
            ("0", "not 0 B"),
            ("1000", "not 1000 B"),
            ("1048577", "whole number"),
            ("2049G", "at most 2048G"),
        ] {
            let error = whole_mebibytes(wrong).unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }

    #[test]
    fn counts_end_where_they_make_no_sense() {
        assert_eq!(threads("1024"), Ok(1_024));
        assert_eq!(torrents("1000000"), Ok(1_000_000));
        assert_eq!(round_trip_ms("10000"), Ok(10_000));
        assert!(threads("0").is_err() && threads("1025").is_err());
        assert!(torrents("0").is_err() && torrents("1000001").is_err());
        assert!(round_trip_ms("10001").is_err() && round_trip_ms("-1").is_err());
    }

    #[test]
    fn pieces() {
        assert_eq!(piece_bytes("1M"), Ok(1 << 20));
        for wrong in ["8K", "1G", "100000", "0", "M"] {
            assert!(piece_bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn seconds() {
        assert_eq!(seconds_ns("0.25"), Ok(250_000_000));
        assert_eq!(window_ns("0.1"), Ok(100_000_000));
        assert!(window_ns("0.09").is_err() && window_ns("0").is_err());
        for wrong in ["", "-1", "NaN", "inf", "1e9", "4s"] {
            assert!(seconds_ns(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn address_ranges() {
        let found = local_addresses("127.0.0.254-127.0.1.1,::1").unwrap();
        assert_eq!(found.len(), 5);
        assert_eq!(found[2].to_string(), "127.0.1.0");
        assert!(local_addresses("").unwrap().is_empty());
        for wrong in [
            "x",
            "127.0.0.3-127.0.0.2",
            "127.0.0.1-::1",
            "::-ffff::",
            "0.0.0.0-1.0.0.0",
        ] {
            assert!(local_addresses(wrong).is_err(), "{wrong}");
        }
    }
}
