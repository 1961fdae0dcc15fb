//! Settings and facts of the whole machine that decide figures: congestion control, load, free
//! ports, the date.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use anyhow::Context as _;

use crate::harness::children::Program;
use crate::harness::undo::{self, Guard, Undo};
use crate::harness::usage::Usage;

const CONGESTION_CONTROL: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
const AVAILABLE: &str = "/proc/sys/net/ipv4/tcp_available_congestion_control";

/// Ports that are tried, from a place that depends on the process: below those that the kernel
/// gives to outgoing connections.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Sets the congestion control that new sockets of the machine get, until the guard is dropped.
/// Most servers cannot be told another way. Returns nothing to restore if it is set already; that
/// it cannot be set is a [`Usage`].
pub fn set_congestion_control(name: &str) -> anyhow::Result<Option<Guard>> {
    let path = Path::new(CONGESTION_CONTROL);
    let before = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read {CONGESTION_CONTROL}"))?;
    if before.trim() == name {
        return Ok(None);
    }
    let guard = undo::register(Undo::WriteBack {
        path: path.to_owned(),
        content: before.clone(),
    });
    if let Err(error) = std::fs::write(path, name) {
        guard.forget_after(|| ());
        return Err(Usage(format!(
            "--congestion-control {name}: it cannot be set ({error}): run as root, choose one of \
             {:?}, or keep the system's ({}) with --congestion-control system",
            available(),
            before.trim()
        ))
        .into());
    }
    Ok(Some(guard))
}

fn available() -> String {
    std::fs::read_to_string(AVAILABLE)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// The congestion controls of the sockets that serve on `port`, as the kernel tells (`ss`); empty
/// while nobody is connected, and without `ss`.
pub fn congestion_controls_of(port: u16) -> Vec<String> {
    let ss = Program::new("ss").args(["-tinH", &format!("sport = :{port}")]);
    controls_in(&ss.output().unwrap_or_default(), &available())
}

/// The words of `text` that are names of `known`, each once.
fn controls_in(text: &str, known: &str) -> Vec<String> {
    let known: Vec<&str> = known.split_whitespace().collect();
    let mut found: Vec<String> = text
        .split_whitespace()
        .filter(|word| known.contains(word))
        .map(str::to_owned)
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// The 1-minute load average.
pub fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split_whitespace().next();
    first.and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

/// Two free ports. Another process may take them before the server does; then the server says so
/// and the run fails.
pub fn free_ports() -> anyhow::Result<(u16, u16)> {
    let start = PORTS.start + (std::process::id() % 10_000) as u16;
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok();
    let mut ports = (start..PORTS.end).chain(PORTS.start..start).filter(is_free);
    ports
        .next()
        .zip(ports.next())
        .context("no two free ports from 20000 to 32000")
}

/// The time of day in UTC, as `2026-01-31 14:05`.
pub fn date() -> String {
    let seconds = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    date_of(seconds)
}

/// The civil date of a time since 1970, by counting eras of 400 years from March, 0000.
fn date_of(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = (shifted_month + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute) = (of_day / 3_600, of_day % 3_600 / 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(date_of(0), "1970-01-01 00:00 UTC");
        assert_eq!(date_of(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(date_of(1_767_225_599), "2025-12-31 23:59 UTC");
        assert_eq!(date_of(4_107_542_400), "2100-03-01 00:00 UTC");
    }

    #[test]
    fn controls_are_found_among_what_ss_prints() {
        let text =
            "ESTAB 0 0 127.0.0.1:1 127.0.1.1:2\n\t cubic wscale:7,7 rto:201\n\t cubic x bbr y";
        assert_eq!(controls_in(text, "reno bbr cubic\n"), ["bbr", "cubic"]);
        assert!(controls_in("", "reno").is_empty());
    }

    #[test]
    fn free_ports_differ() {
        let (one, other) = free_ports().unwrap();
        assert_ne!(one, other);
    }
}
