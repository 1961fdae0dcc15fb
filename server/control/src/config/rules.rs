//! Limits that hold for some torrents or at some times, each a line of text in the configuration.
//!
//! ```text
//! linux isos: upload=1MB/s download=0 peers=50 ratio=2 seeding_time=14d at_limit=remove
//! mon-fri 08:00-18:00 upload=2MB/s download=5MB/s
//! ```
//!
//! Does not: know a clock, or which limit comes before which.

use super::keys::AtLimit;
use super::units::{format_ratio, format_size, format_time, parse_rate, parse_ratio, parse_time};
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

/// The names of days, as [`Moment::day`] counts them.
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// What stands for all of them.
const DAILY: &str = "daily";

const MINUTES_OF_DAY: u16 = 24 * 60;

/// The longest name of a label or a category that a rule is for, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// The largest rate, as that of other keys.
const RATE_MAX: u64 = 1_000_000_000_000;

/// The most peers of a torrent that a rule may say.
const PEERS_MAX: u64 = 1_000_000;

/// The largest ratio, in thousandths, and the longest time, in seconds, as those of `[library]`.
const ENOUGH_MAX: u64 = 1_000_000_000;

/// What a rule says. `None`: nothing; 0: there is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RuleLimits {
    /// Upload, in bytes per second.
    pub upload_rate: Option<u64>,
    /// Download, in bytes per second.
    pub download_rate: Option<u64>,
    /// Connected peers.
    pub peers_max: Option<u64>,
    /// Bytes sent for a thousand of a complete torrent's, after which `at_limit` is done with it.
    pub ratio_permille: Option<u64>,
    /// Seconds of seeding after which it is.
    pub seeding_time_s: Option<u64>,
    /// What is done then. Here `None` alone says nothing.
    pub at_limit: Option<AtLimit>,
}

/// Limits of each torrent that has a label, or is in a category.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedLimits {
    /// The label or category.
    pub name: String,
    /// What they are.
    pub limits: RuleLimits,
}

/// The folder that data of a category come into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CategoryPath {
    /// The category.
    pub name: String,
    /// The folder; absolute.
    pub path: PathBuf,
}

/// A time of the week, by the clock on the wall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// From 0, a Monday.
    pub day: u8,
    /// Since midnight.
    pub minute: u16,
}

/// Rates of the server at some times of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScheduledLimits {
    first_day: u8,
    last_day: u8,
    begin: u16,
    end: u16,
    /// Upload, in bytes per second.
    pub upload_rate: Option<u64>,
    /// Download, in bytes per second.
    pub download_rate: Option<u64>,
}

/// A rule that says nothing, or what is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRule;

impl ScheduledLimits {
    /// Whether they hold then. A time that ends before it begins ends on the next day.
    pub fn holds(&self, now: Moment) -> bool {
        let is_day = |day: u8| match self.first_day <= self.last_day {
            true => (self.first_day..=self.last_day).contains(&day),
            false => day >= self.first_day || day <= self.last_day,
        };
        let day_before = (now.day + 6) % 7;
        if self.begin < self.end {
            is_day(now.day) && (self.begin..self.end).contains(&now.minute)
        } else {
            (is_day(now.day) && now.minute >= self.begin)
                || (is_day(day_before) && now.minute < self.end)
        }
    }
}

impl RuleLimits {
    /// Reads `upload=…`, `download=…`, `peers=…`, `ratio=…`, `seeding_time=…` and `at_limit=…`, one of
    /// them at least and each once.
    fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Option<RuleLimits> {
        let mut limits = RuleLimits::default();
        let enough = |number: Option<u64>| number.filter(|number| *number <= ENOUGH_MAX);
        for word in words {
            let (what, value) = word.split_once('=')?;
            let (place, value) = match what {
                "at_limit" => {
                    let action = AtLimit::ALL.into_iter().find(|it| it.as_str() == value)?;
                    if limits.at_limit.replace(action).is_some() {
                        return None;
                    }
                    continue;
                }
                "ratio" => (&mut limits.ratio_permille, enough(parse_ratio(value))?),
                "seeding_time" => (&mut limits.seeding_time_s, enough(parse_time(value))?),
                "upload" => (&mut limits.upload_rate, rate(value)?),
                "download" => (&mut limits.download_rate, rate(value)?),
                "peers" => {
                    let peers = value.parse().ok().filter(|peers| *peers <= PEERS_MAX)?;
                    (&mut limits.peers_max, peers)
                }
                _ => return None,
            };
            if place.replace(value).is_some() {
                return None;
            }
        }
        (limits != RuleLimits::default()).then_some(limits)
    }

    /// Whether it says nothing but rates.
    fn is_of_rates(&self) -> bool {
        let rates = RuleLimits {
            upload_rate: self.upload_rate,
            download_rate: self.download_rate,
            ..RuleLimits::default()
        };
        *self == rates
    }
}

fn rate(text: &str) -> Option<u64> {
    parse_rate(text).filter(|rate| *rate <= RATE_MAX)
}

impl FromStr for NamedLimits {
    type Err = NoRule;

    fn from_str(text: &str) -> Result<NamedLimits, NoRule> {
        let (name, limits) = text.rsplit_once(':').ok_or(NoRule)?;
        let name = name.trim();
        let limits = RuleLimits::parse(limits.split_whitespace()).ok_or(NoRule)?;
        match (1..=NAME_BYTES_MAX).contains(&name.len()) {
            true => Ok(NamedLimits {
                name: name.to_owned(),
                limits,
            }),
            false => Err(NoRule),
        }
    }
}

impl FromStr for CategoryPath {
    type Err = NoRule;

    fn from_str(text: &str) -> Result<CategoryPath, NoRule> {
        let (name, path) = text.split_once(": ").ok_or(NoRule)?;
        let (name, path) = (name.trim(), Path::new(path.trim()));
        let goes_up = path.components().any(|part| part == Component::ParentDir);
        let is_one = (1..=NAME_BYTES_MAX).contains(&name.len()) && path.is_absolute() && !goes_up;
        is_one
            .then(|| CategoryPath {
                name: name.to_owned(),
                path: path.to_owned(),
            })
            .ok_or(NoRule)
    }
}

impl FromStr for ScheduledLimits {
    type Err = NoRule;

    fn from_str(text: &str) -> Result<ScheduledLimits, NoRule> {
        let parse = || {
            let mut words = text.split_whitespace();
            let (first_day, last_day) = days(words.next()?)?;
            let (begin, end) = words.next()?.split_once('-')?;
            let (begin, end) = (minute(begin)?, minute(end)?);
            let limits = RuleLimits::parse(words).filter(RuleLimits::is_of_rates)?;
            (begin < MINUTES_OF_DAY).then_some(ScheduledLimits {
                first_day,
                last_day,
                begin,
                end,
                upload_rate: limits.upload_rate,
                download_rate: limits.download_rate,
            })
        };
        parse().ok_or(NoRule)
    }
}

/// Reads `daily`, a day, or the first and the last of several.
fn days(text: &str) -> Option<(u8, u8)> {
    let text = text.to_ascii_lowercase();
    if text == DAILY {
        return Some((0, 6));
    }
    let day = |name: &str| {
        let at = DAYS.iter().position(|day| *day == name)?;
        u8::try_from(at).ok()
    };
    let (first, last) = text.split_once('-').unwrap_or((&text, &text));
    Some((day(first)?, day(last)?))
}

/// Reads a time of the day, up to 24:00.
fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str| {
        let is_number = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| is_number)
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let minute = hours * 60 + minutes;
    (minutes < 60 && minute <= MINUTES_OF_DAY).then_some(minute)
}

impl fmt::Display for RuleLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = |rate: u64| match rate {
            0 => "0".to_owned(),
            rate => format!("{}/s", format_size(rate)),
        };
        let said = [
            self.upload_rate
                .map(|limit| format!("upload={}", rate(limit))),
            self.download_rate
                .map(|limit| format!("download={}", rate(limit))),
            self.peers_max.map(|peers| format!("peers={peers}")),
            self.ratio_permille
                .map(|ratio| format!("ratio={}", format_ratio(ratio))),
            self.seeding_time_s
                .map(|time| format!("seeding_time={}", format_time(time))),
            self.at_limit
                .map(|action| format!("at_limit={}", action.as_str())),
        ];
        let said: Vec<String> = said.into_iter().flatten().collect();
        f.write_str(&said.join(" "))
    }
}

impl fmt::Display for NamedLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.limits)
    }
}

impl fmt::Display for CategoryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.path.display())
    }
}

impl fmt::Display for ScheduledLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day = |day: u8| DAYS.get(usize::from(day)).copied().unwrap_or_default();
        match (self.first_day, self.last_day) {
            (0, 6) => f.write_str(DAILY)?,
            (first, last) if first == last => f.write_str(day(first))?,
            (first, last) => write!(f, "{}-{}", day(first), day(last))?,
        }
        let time = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
        let limits = RuleLimits {
            upload_rate: self.upload_rate,
            download_rate: self.download_rate,
            ..RuleLimits::default()
        };
        write!(f, " {}-{} {limits}", time(self.begin), time(self.end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_written_alike() {
        for text in [
            "linux isos: upload=1MB/s download=0 peers=50",
            "a:b: peers=0",
            "x: download=1kB/s",
            "tv: ratio=1.5 seeding_time=36h at_limit=remove-with-data",
            "tv: upload=1kB/s peers=7 ratio=0.125 seeding_time=14d",
            "tv: ratio=0 seeding_time=0 at_limit=pause",
            "tv: seeding_time=90m at_limit=remove",
            "tv: ratio=2 seeding_time=61s",
        ] {
            let rule: NamedLimits = text.parse().unwrap();
            assert_eq!(rule.to_string(), text);
        }
        for text in [
            "mon-fri 08:00-18:00 upload=2MB/s download=5MB/s",
            "daily 22:30-06:00 upload=0",
            "sun 00:00-24:00 download=1kB/s",
        ] {
            let rule: ScheduledLimits = text.parse().unwrap();
            assert_eq!(rule.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for text in [
            "",
            "x",
            "x:",
            ": upload=1",
            "x: upload",
            "x: upload=fast",
            "x: upload=1 upload=2",
            "x: ratio=-1",
            "x: ratio=1.2345",
            "x: ratio=1 ratio=2",
            "x: ratio=1000001",
            "x: seeding_time=90",
            "x: seeding_time=20000d",
            "x: at_limit=forget",
            "x: at_limit=pause at_limit=pause",
            "x: peers=1000001",
            "x: upload=2000GB/s",
        ] {
            assert_eq!(text.parse::<NamedLimits>(), Err(NoRule), "{text}");
        }
        for text in [
            "mon 08:00-18:00",
            "mon upload=1",
            "noday 08:00-18:00 upload=1",
            "mon 8:00-18:00 upload=1",
            "mon +8:00-18:00 upload=1",
            "mon 08:60-18:00 upload=1",
            "mon 24:00-18:00 upload=1",
            "mon 08:00-24:01 upload=1",
            "mon 08:00-18:00 peers=1",
            "mon 08:00-18:00 upload=1 ratio=1",
            "mon 08:00-18:00 upload=1 at_limit=pause",
        ] {
            assert_eq!(text.parse::<ScheduledLimits>(), Err(NoRule), "{text}");
        }
    }

    fn holds(rule: &str, day: u8, time: &str) -> bool {
        let rule: ScheduledLimits = format!("{rule} upload=1").parse().unwrap();
        let minute = minute(time).unwrap();
        rule.holds(Moment { day, minute })
    }

    #[test]
    fn a_time_holds_on_its_days_from_its_first_minute_to_before_its_last() {
        let work = "mon-fri 08:00-18:00";
        assert!(holds(work, 0, "08:00") && holds(work, 4, "17:59"));
        assert!(!holds(work, 0, "07:59") && !holds(work, 0, "18:00"));
        assert!(!holds(work, 5, "12:00"));
        let week_end = "sat-mon 00:00-24:00";
        assert!(holds(week_end, 5, "00:00") && holds(week_end, 0, "23:59"));
        assert!(!holds(week_end, 1, "00:00") && !holds(week_end, 4, "23:59"));
    }

    #[test]
    fn a_night_belongs_to_the_day_on_which_it_begins() {
        let night = "fri 22:00-06:00";
        assert!(holds(night, 4, "22:00") && holds(night, 5, "05:59"));
        assert!(!holds(night, 5, "06:00") && !holds(night, 4, "05:00"));
        assert!(!holds(night, 5, "22:00"));
        // Over the end of the week.
        assert!(holds("sun 22:00-06:00", 0, "01:00"));
        // A whole day.
        let day = "mon 12:00-12:00";
        assert!(holds(day, 0, "12:00") && holds(day, 1, "11:59"));
        assert!(!holds(day, 0, "11:59") && !holds(day, 1, "12:00"));
    }

    #[test]
    fn folders_of_categories_are_absolute_and_go_nowhere_else() {
        let rule: CategoryPath = "tv: /srv/tv shows".parse().unwrap();
        assert_eq!(
            (rule.name.as_str(), rule.path.to_str()),
            ("tv", Some("/srv/tv shows"))
        );
        assert_eq!(rule.to_string().parse(), Ok(rule));
        for text in [
            "tv",
            "tv: shows: /srv",
            "tv:",
            ": /srv",
            "tv: srv",
            "tv: /srv/../etc",
            "tv /srv",
        ] {
            assert_eq!(text.parse::<CategoryPath>(), Err(NoRule), "{text}");
        }
    }
}
