//! Limits as the command line has them: rates with units, ratios, times.

use clap::{Args, ValueEnum};
use control::api::types::{EditLimits, LimitAction, TorrentLimits};

/// A limit, or a word for none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// That of the label, the category or the server.
    Default,
    /// This; 0 is none.
    Is(u64),
}

/// Limits of a torrent.
#[derive(Clone, Debug, Default, Args)]
pub struct LimitOptions {
    /// Most that is sent, such as 500KiB/s, 2MB/s or 10Mbit/s; `none`, or `default` for that of the
    /// label, category or server
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub up: Option<Limit>,
    /// Most that is received
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub down: Option<Limit>,
    /// Most peers
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub peers_max: Option<Limit>,
    /// Ratio at which it is done, such as 2 or 1.5
    #[arg(long, value_name = "RATIO", value_parser = parse_ratio)]
    pub ratio: Option<Limit>,
    /// Time of seeding after which it is done, such as 90m, 36h or 14d
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub seed_time: Option<Limit>,
    /// What is done with it then
    #[arg(long, value_name = "ACTION")]
    pub at_limit: Option<AtLimit>,
}

/// See [`LimitAction`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum AtLimit {
    /// It is paused
    Pause,
    /// It is removed, its data stay
    Remove,
    /// It is removed with its data
    RemoveWithData,
    /// It is super-seeded from then on
    SuperSeed,
    /// What the label, category or server says
    Default,
}

impl AtLimit {
    fn action(self) -> Option<LimitAction> {
        match self {
            AtLimit::Pause => Some(LimitAction::Pause),
            AtLimit::Remove => Some(LimitAction::Remove),
            AtLimit::RemoveWithData => Some(LimitAction::RemoveWithData),
            AtLimit::SuperSeed => Some(LimitAction::SuperSeed),
            AtLimit::Default => None,
        }
    }
}

impl Limit {
    /// As the API has it: absent is the default.
    pub fn value(self) -> Option<u64> {
        match self {
            Limit::Default => None,
            Limit::Is(value) => Some(value),
        }
    }
}

impl LimitOptions {
    /// Whether any is given.
    pub fn is_given(&self) -> bool {
        self.edit() != EditLimits::default()
    }

    /// As a change.
    pub fn edit(&self) -> EditLimits {
        EditLimits {
            upload_rate: self.up.map(Limit::value),
            download_rate: self.down.map(Limit::value),
            peers_max: self.peers_max.map(Limit::value),
            ratio_permille: self.ratio.map(Limit::value),
            seeding_time_s: self.seed_time.map(Limit::value),
            at_limit: self.at_limit.map(AtLimit::action),
        }
    }

    /// As the limits of something new.
    pub fn limits(&self) -> TorrentLimits {
        let edit = self.edit();
        TorrentLimits {
            upload_rate: edit.upload_rate.flatten(),
            download_rate: edit.download_rate.flatten(),
            peers_max: edit.peers_max.flatten(),
            ratio_permille: edit.ratio_permille.flatten(),
            seeding_time_s: edit.seeding_time_s.flatten(),
            at_limit: edit.at_limit.flatten(),
        }
    }
}

/// The words that every limit takes.
fn word(text: &str) -> Option<Limit> {
    match text.trim().to_ascii_lowercase().as_str() {
        "default" => Some(Limit::Default),
        "none" | "unlimited" => Some(Limit::Is(0)),
        _ => None,
    }
}

/// A rate as the configuration writes it.
pub fn parse_rate(text: &str) -> Result<Limit, String> {
    let is = |rate| Limit::Is(rate);
    word(text)
        .or_else(|| control::config::parse_rate(text).map(is))
        .ok_or_else(|| "it is no rate such as 500KiB/s, 2MB/s, 10Mbit/s, none or default".into())
}

fn parse_count(text: &str) -> Result<Limit, String> {
    word(text)
        .or_else(|| text.trim().parse().ok().map(Limit::Is))
        .ok_or_else(|| "it is no number, none or default".into())
}

/// A ratio in thousandths.
fn parse_ratio(text: &str) -> Result<Limit, String> {
    word(text)
        .or_else(|| control::config::parse_ratio(text.trim()).map(Limit::Is))
        .ok_or_else(|| "it is no ratio such as 2, 1.5, none or default".into())
}

/// A time in seconds.
fn parse_time(text: &str) -> Result<Limit, String> {
    word(text)
        .or_else(|| control::config::parse_time(text.trim()).map(Limit::Is))
        .ok_or_else(|| "it is no time such as 90m, 36h, 14d, none or default".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_ratios_and_times_have_units_or_words() {
        let is = Limit::Is;
        assert_eq!(parse_rate("10Mbit/s"), Ok(is(1_250_000)));
        assert_eq!(parse_rate("2 MiB/s"), Ok(is(2 << 20)));
        assert_eq!(parse_rate("none"), Ok(is(0)));
        assert_eq!(parse_rate("Default"), Ok(Limit::Default));
        assert!(parse_rate("2M").is_err() && parse_rate("-1").is_err());
        for (text, permille) in [("2", 2000), ("1.5", 1500), ("0.125", 125), ("3.", 3000)] {
            assert_eq!(parse_ratio(text), Ok(is(permille)), "{text}");
        }
        for text in [
            "",
            ".5",
            "1.2345",
            "1,5",
            "-1",
            "99999999999999999999",
            "1.+5",
        ] {
            assert!(parse_ratio(text).is_err(), "{text}");
        }
        assert_eq!(parse_time("90m"), Ok(is(5400)));
        assert_eq!(parse_time("14d"), Ok(is(14 * 86_400)));
        assert!(parse_time("90").is_err() && parse_time("m").is_err());
        assert_eq!(parse_count("50"), Ok(is(50)));
    }

    #[test]
    fn default_clears_a_limit_and_what_is_not_said_stays() {
        let options = LimitOptions {
            up: Some(Limit::Default),
            down: Some(Limit::Is(7)),
            at_limit: Some(AtLimit::RemoveWithData),
            ..LimitOptions::default()
        };
        let edit = serde_json::to_value(options.edit()).unwrap();
        let wanted = serde_json::json!({
            "upload_rate": null, "download_rate": 7, "at_limit": "remove_with_data"
        });
        assert_eq!(edit, wanted);
        assert_eq!(options.limits().download_rate, Some(7));
        assert!(options.is_given() && !LimitOptions::default().is_given());
    }
}
