//! Sizes, rates and durations as the configuration writes them.
//!
//! A size or a rate is an integer or a string with a unit; units are exact and must be spelt out
//! (`MiB` or `MB`, never `M`), because a factor of 1.05 or 8 is what operators trip over.

use std::num::NonZeroU64;
use std::time::Duration;

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// This many KiB.
    pub const fn kib(count: u64) -> Self {
        Self(count * KIB)
    }

    /// This many MiB.
    pub const fn mib(count: u64) -> Self {
        Self(count * KIB * KIB)
    }
}

/// A number of bytes per second; 0 means without limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteRate(pub u64);

impl ByteRate {
    /// No limit.
    pub const UNLIMITED: Self = Self(0);

    /// The limit in bytes per second, if there is one.
    pub const fn limit(self) -> Option<NonZeroU64> {
        NonZeroU64::new(self.0)
    }
}

/// A number of whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub u64);

impl Seconds {
    /// The same as a duration.
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

const KIB: u64 = 1024;

/// The units of a size, the largest first, so that printing finds the shortest form.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", KIB * KIB * KIB * KIB),
    ("TB", 1_000_000_000_000),
    ("GiB", KIB * KIB * KIB),
    ("GB", 1_000_000_000),
    ("MiB", KIB * KIB),
    ("MB", 1_000_000),
    ("KiB", KIB),
    ("kB", 1_000),
    ("B", 1),
];

/// The units of a rate that sizes do not have: bits, as networks are sold.
const BIT_UNITS: [(&str, u64); 3] = [
    ("Gbit/s", 125_000_000),
    ("Mbit/s", 125_000),
    ("kbit/s", 125),
];

/// Reads a size such as `64MiB` or `4096`.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    scale(number, unit, &SIZE_UNITS)
}

/// Reads a rate such as `10MB/s`, `1Gbit/s` or `0`.
pub fn parse_rate(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    match unit.strip_suffix("/s") {
        Some(size) => scale(number, unit, &BIT_UNITS).or_else(|| scale(number, size, &SIZE_UNITS)),
        None => scale(number, unit, &SIZE_UNITS),
    }
}

/// The units of a time, the longest first.
const TIME_UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];

/// Reads a ratio such as `2`, `1.5` or `0.125`, in thousandths.
pub fn parse_ratio(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || part.len() > 3 || !is_digits(whole) || !is_digits(part) {
        return None;
    }
    let part: u64 = format!("{part:0<3}").parse().ok()?;
    let whole: u64 = whole.parse().ok()?;
    whole.checked_mul(1000)?.checked_add(part)
}

/// Writes thousandths as [`parse_ratio`] reads them.
pub(crate) fn format_ratio(permille: u64) -> String {
    let (whole, part) = (permille / 1000, permille % 1000);
    match part {
        0 => whole.to_string(),
        part => {
            let part = format!("{part:03}");
            format!("{whole}.{}", part.trim_end_matches('0'))
        }
    }
}

/// Reads a time such as `90m`, `36h`, `14d` or `0`, in seconds.
pub fn parse_time(text: &str) -> Option<u64> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let number: u64 = digits.parse().ok()?;
    if unit.is_empty() {
        return (number == 0).then_some(0);
    }
    let (_, factor) = TIME_UNITS.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*factor)
}

/// Writes seconds as [`parse_time`] reads them.
pub(crate) fn format_time(seconds: u64) -> String {
    if seconds == 0 {
        return "0".to_owned();
    }
    let fits = |(_, factor): &&(&str, u64)| seconds.is_multiple_of(*factor);
    let (unit, factor) = TIME_UNITS.iter().find(fits).unwrap_or(&("s", 1));
    format!("{}{unit}", seconds / factor)
}

/// The number, and the unit without the blanks between them.
fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    Some((digits.parse().ok()?, unit.trim_start()))
}

fn scale(number: u64, unit: &str, units: &[(&str, u64)]) -> Option<u64> {
    if unit.is_empty() {
        return Some(number);
    }
    // `KB` is common for `kB`, and means the same.
    let (_, factor) = units
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    number.checked_mul(*factor)
}

/// The shortest exact form with a unit.
pub(crate) fn format_size(bytes: u64) -> String {
    let unit = SIZE_UNITS
        .iter()
        .find(|(_, factor)| bytes != 0 && bytes.is_multiple_of(*factor));
    match unit {
        Some((name, factor)) => format!("{}{name}", bytes / factor),
        None => "0".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_with_units() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64MiB", 64 << 20),
            (" 64 MiB ", 64 << 20),
            ("1KiB", 1024),
            ("1kB", 1000),
            ("1KB", 1000),
            ("2TB", 2_000_000_000_000),
            ("7B", 7),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in [
            "",
            "MiB",
            "-1",
            "1.5GiB",
            "1M",
            "1 MiB/s",
            "1MiBB",
            "99999999999TiB",
            "1e3",
            "0x10",
        ] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn rates_with_units() {
        for (text, rate) in [
            ("0", 0),
            ("10MB/s", 10_000_000),
            ("10 MiB/s", 10 << 20),
            ("10MB", 10_000_000),
            ("1Gbit/s", 125_000_000),
            ("80kbit/s", 10_000),
        ] {
            assert_eq!(parse_rate(text), Some(rate), "{text}");
        }
        for text in ["1Mbit", "1MB/h", "/s", "MB/s", "1M/s"] {
            assert_eq!(parse_rate(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_printed_reads_back() {
        for bytes in [0, 1, 1000, 1024, 64 << 20, 10_000_000, u64::MAX, 3 << 40] {
            assert_eq!(parse_size(&format_size(bytes)), Some(bytes));
        }
        assert_eq!(format_size(64 << 20), "64MiB");
        assert_eq!(format_size(0), "0");
    }
}
