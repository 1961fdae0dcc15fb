//! Quantities as they are written on the command line: counts, sizes, seconds, ranges of addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The most addresses that one range may name.
const ADDRESSES_MAX: usize = 65_536;

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
