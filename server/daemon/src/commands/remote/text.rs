//! Figures and strangers' text as columns and lines show them.

use proto::text::printable;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The longest name that is looked at, in characters.
pub const NAME_CHARS_MAX: usize = 400;

const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// A number of bytes in at most eight columns: `9.77 GiB`.
pub fn bytes(bytes: u64) -> String {
    let unit = (0..UNITS.len() - 1)
        .find(|unit| bytes >> (10 * unit) < 1024)
        .unwrap_or(UNITS.len() - 1);
    // Cut and not rounded, so that nothing that is not whole looks whole.
    let hundredths = (u128::from(bytes) * 100) >> (10 * unit);
    let (whole, part) = (hundredths / 100, hundredths % 100);
    let name = UNITS[unit];
    match whole {
        _ if unit == 0 => format!("{whole} {name}"),
        0..10 => format!("{whole}.{part:02} {name}"),
        10..100 => format!("{whole}.{} {name}", part / 10),
        _ => format!("{whole} {name}"),
    }
}

/// Bytes per second; nothing of none.
pub fn rate(bytes_per_s: u64) -> String {
    match bytes_per_s {
        0 => String::new(),
        some => format!("{}/s", bytes(some)),
    }
}

/// A limit of a rate.
pub fn rate_limit(limit: Option<u64>) -> String {
    match limit {
        None => "default".to_owned(),
        Some(0) => "none".to_owned(),
        Some(limit) => format!("{}/s", bytes(limit)),
    }
}

/// A part of a whole: 100 % when all is there, and not before.
pub fn percent(part: u64, whole: u64) -> String {
    match permille(part, whole) {
        None => String::new(),
        Some(1000) => "100%".to_owned(),
        Some(permille) => format!("{}.{}%", permille / 10, permille % 10),
    }
}

/// Thousandths of a whole; none of nothing.
pub fn permille(part: u64, whole: u64) -> Option<u64> {
    let permille = u128::from(part) * 1000 / u128::from(whole.max(1));
    (whole > 0).then(|| u64::try_from(permille).unwrap_or(1000).min(1000))
}

/// A ratio that is given in thousandths.
pub fn ratio(permille: u64) -> String {
    match permille {
        many if many >= 100_000 => format!("{}", many / 1000),
        few => format!("{}.{:02}", few / 1000, few % 1000 / 10),
    }
}

/// A length of time in its two largest units.
pub fn duration(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest}s"),
        (0, 0, _) => format!("{minutes}m{rest:02}s"),
        (0, _, _) => format!("{hours}h{minutes:02}m"),
        (1..=999, _, _) => format!("{days}d{hours:02}h"),
        _ => format!("{days}d"),
    }
}

/// A moment, in UTC.
pub fn moment(seconds: u64) -> String {
    crate::commands::show::utc(i64::try_from(seconds).unwrap_or(i64::MAX / 2))
}

/// A stranger's name, fit for a line.
pub fn name(text: &str) -> String {
    printable(text.as_bytes(), NAME_CHARS_MAX)
}

/// The first eight digits of an info-hash.
pub fn short_hash(hash: &str) -> &str {
    hash.get(..8).unwrap_or(hash)
}

/// The columns that a text takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// A text in at most `columns`: what is longer ends in `…`.
pub fn cut(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let Some(room) = columns.checked_sub(1) else {
        return String::new();
    };
    let mut cut = String::new();
    let mut taken = 0;
    for character in text.chars() {
        taken += character.width().unwrap_or(0);
        if taken > room {
            break;
        }
        cut.push(character);
    }
    cut.push('…');
    cut
}

/// A text in exactly `columns`, which lies at their left or right end.
pub fn fitted(text: &str, columns: usize, is_right: bool) -> String {
    let text = cut(text, columns);
    let blanks = " ".repeat(columns.saturating_sub(text.width()));
    match is_right {
        true => blanks + &text,
        false => text + &blanks,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_eight_columns_and_are_never_too_much() {
        for (count, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (10_239, "9.99 KiB"),
            (10_240, "10.0 KiB"),
            ((1 << 20) - 1, "1023 KiB"),
            (1 << 20, "1.00 MiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(bytes(count), shown);
        }
        for bits in 0..64 {
            assert!(bytes(u64::MAX >> bits).len() <= 8);
        }
        assert_eq!(rate(0), "");
        assert_eq!(rate(2048), "2.00 KiB/s");
        assert_eq!(rate_limit(None), "default");
        assert_eq!(rate_limit(Some(0)), "none");
    }

    #[test]
    fn only_what_is_whole_is_a_hundred_percent() {
        assert_eq!(percent(0, 0), "");
        assert_eq!(percent(0, 10), "0.0%");
        assert_eq!(percent(9_999_999, 10_000_000), "99.9%");
        assert_eq!(percent(10, 10), "100%");
        assert_eq!(percent(u64::MAX, u64::MAX), "100%");
        assert_eq!(percent(11, 10), "100%");
    }

    #[test]
    fn times_and_ratios_have_two_parts() {
        assert_eq!(duration(0), "0s");
        assert_eq!(duration(61), "1m01s");
        assert_eq!(duration(3 * 3600 + 125), "3h02m");
        assert_eq!(duration(90_000), "1d01h");
        assert_eq!(duration(u64::MAX), "213503982334601d");
        assert_eq!(ratio(0), "0.00");
        assert_eq!(ratio(1999), "1.99");
        assert_eq!(ratio(100_000), "100");
        assert_eq!(moment(0), "1970-01-01 00:00:00 UTC");
    }

    #[test]
    fn texts_are_cut_by_what_they_take_on_a_terminal() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "ab…");
        assert_eq!(cut("abcd", 0), "");
        assert_eq!(cut("日本語", 5), "日本…");
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(fitted("日本語", 4, false), "日… ");
        assert_eq!(fitted("7", 3, true), "  7");
        assert_eq!(name("a\x1b[2Jb"), "a\\u{1b}[2Jb");
    }
}
