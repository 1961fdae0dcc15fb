//! `seedring info`, `peers`: what the server knows of one torrent.

use super::columns::status_word;
use super::content::file_table;
use super::select::one;
use super::table::{Column, table};
use super::text::{bytes, duration, moment, name, percent, rate, rate_limit, ratio};
use super::trackers::tracker_table;
use super::{Outcome, Remote, terminal_columns};
use crate::cli::Global;
use crate::client::ServerArgs;
use crate::failure::Failure;
use crate::progress::{counted, print, print_json};
use clap::Args;
use control::api::types::{
    FileList, LimitAction, NewPeers, PeerList, PeerStatus, SourceStatus, TorrentDetails,
    TorrentLimits, TrackerList,
};
use reqwest::Method;
use serde::Serialize;
use std::fmt::Write as _;

/// Files that `info` shows; `files` shows all.
const FILES_SHOWN_MAX: usize = 20;

/// Arguments of `seedring info`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  seedring info debian-12.iso
  seedring info 3fa9 77d0 --json | jq .torrent.ratio_permille

--json prints a line {torrent, files, trackers} for each, as the API has them.")]
pub struct InfoArgs {
    /// The torrents: info-hashes, the beginnings of them, or names
    #[arg(value_name = "TORRENT", required = true)]
    torrents: Vec<String>,
    #[command(flatten)]
    server: ServerArgs,
}

/// Arguments of `seedring peers`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  seedring peers debian-12.iso
  seedring peers 3fa9 --add 192.0.2.7:6881
  seedring peers 3fa9 --json | jq -r .client

Flags: D we download of it, d it would send but is choking us; U we upload to it, u it wants to be \
but we are choking it; I it connected to us. --json prints a line for each peer.")]
pub struct PeersArgs {
    /// The torrent: its info-hash, the beginning of it, or its name
    #[arg(value_name = "TORRENT")]
    torrent: String,
    /// Ask this peer, too (repeatable)
    #[arg(long, value_name = "ADDR:PORT")]
    add: Vec<String>,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Serialize)]
struct Whole {
    torrent: TorrentDetails,
    files: FileList,
    trackers: TrackerList,
}

/// Runs `info`.
pub fn info(global: &Global, args: &InfoArgs) -> Result<(), Failure> {
    let remote = Remote::new(global, &args.server)?;
    let found = super::select::find(&remote, &args.torrents)?;
    let mut outcome = Outcome::default();
    for (wanted, found) in args.torrents.iter().zip(found) {
        let Some(found) = found else {
            outcome.failed.push(super::Failed {
                name: name(wanted),
                info_hash: None,
                reason: super::select::MISSING.to_owned(),
            });
            continue;
        };
        let path = format!("/torrents/{}", found.info_hash);
        let whole = Whole {
            torrent: remote.get(&path)?,
            files: remote.get(&format!("{path}/files"))?,
            trackers: remote.get(&format!("{path}/trackers"))?,
        };
        if remote.json {
            print_json(&whole);
        } else {
            let gap = if outcome.done > 0 { "\n" } else { "" };
            print(&format!("{gap}{}", whole_text(&whole, terminal_columns())));
        }
        outcome.done += 1;
    }
    outcome.conclude("torrents are not there")
}

/// All of it, for people.
fn whole_text(whole: &Whole, room: Option<usize>) -> String {
    let mut text = detail_lines(&whole.torrent);
    let trackers = &whole.trackers.trackers;
    if !trackers.is_empty() {
        text += "\nTrackers\n";
        text += &indented(&tracker_table(
            trackers,
            room.map(|room| room.saturating_sub(2)),
        ));
    }
    let files = &whole.files.files;
    if !files.is_empty() {
        let shown = &files[..files.len().min(FILES_SHOWN_MAX)];
        text += "\nFiles\n";
        text += &indented(&file_table(shown, room.map(|room| room.saturating_sub(2))));
        if files.len() > shown.len() {
            let more = counted((files.len() - shown.len()) as u64, "more file");
            let _ = writeln!(text, "  and {more}; `seedring files` shows all");
        }
    }
    text
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

/// What is known of a torrent, a line for each thing.
pub fn detail_lines(details: &TorrentDetails) -> String {
    let torrent = &details.torrent;
    let mut lines = Lines::default();
    lines.add("Name", &name(&torrent.name));
    lines.add("Info-hash", &torrent.info_hash);
    lines.option("Info-hash v2", torrent.info_hash_v2.as_deref());
    let status = status_word(torrent.status);
    match torrent.done_permille {
        Some(done) => lines.add("Status", &format!("{status}, {}% of it", done / 10)),
        None => lines.add("Status", status),
    }
    if let Some(error) = &torrent.last_error {
        lines.add(
            "Last error",
            &format!("{} ({})", name(&error.text), moment(error.at_s)),
        );
    }
    lines.add(
        "Size",
        &match torrent.total_bytes {
            0 => "not known yet".to_owned(),
            total => format!(
                "{} in {}, {} of {}",
                bytes(total),
                counted(u64::from(torrent.files), "file"),
                counted(u64::from(torrent.pieces), "piece"),
                bytes(u64::from(torrent.piece_bytes))
            ),
        },
    );
    if torrent.total_bytes > 0 {
        let percent = percent(torrent.verified_bytes, torrent.total_bytes);
        let verified = bytes(torrent.verified_bytes);
        lines.add("Verified", &format!("{percent}, {verified}"));
    }
    lines.add("Saved in", &name(&torrent.save_path));
    lines.option("Category", torrent.category.as_deref());
    if !torrent.labels.is_empty() {
        lines.add("Labels", &name(&torrent.labels.join(", ")));
    }
    transfer_lines(&mut lines, details);
    lines.option("Comment", details.comment.as_deref());
    lines.option("Made by", details.created_by.as_deref());
    lines.add("Magnet", &name(&details.magnet));
    lines.text
}

/// What went where, when and how.
fn transfer_lines(lines: &mut Lines, details: &TorrentDetails) {
    let torrent = &details.torrent;
    let now = |rate_now: u64| match rate(rate_now) {
        text if text.is_empty() => text,
        text => format!(", now {text}"),
    };
    let sent = bytes(torrent.uploaded_bytes) + &now(torrent.upload_rate);
    lines.add(
        "Sent",
        &format!("{sent}; ratio {}", ratio(torrent.ratio_permille)),
    );
    let mut received = bytes(torrent.downloaded_bytes) + &now(torrent.download_rate);
    if torrent.wasted_bytes > 0 {
        received += &format!("; {} of no use", bytes(torrent.wasted_bytes));
    }
    lines.add("Received", &received);
    lines.add(
        "Peers",
        &format!("{}, {} of them seeds", torrent.peers, torrent.seeds),
    );
    lines.option("Peers named", sources(&details.sources).as_deref());
    lines.add("Added", &moment(torrent.added_at_s));
    lines.option("Completed", torrent.completed_at_s.map(moment).as_deref());
    lines.option(
        "Last active",
        torrent.last_active_at_s.map(moment).as_deref(),
    );
    let (active, seeding) = (duration(torrent.active_s), duration(torrent.seeding_s));
    lines.add("Active", &format!("{active}, seeding {seeding}"));
    let place = details.queue_position.map(|place| (place + 1).to_string());
    lines.option("Place in queue", place.as_deref());
    let flags = [
        (torrent.private, "private"),
        (torrent.sequential, "sequential"),
        (torrent.super_seeding, "super-seeding"),
        (torrent.seed_mode, "taken to be complete when added"),
    ];
    let flags = flags.iter().filter(|(is_set, _)| *is_set);
    let flags: Vec<&str> = flags.map(|(_, word)| *word).collect();
    if !flags.is_empty() {
        lines.add("Flags", &flags.join(", "));
    }
    if torrent.limits != TorrentLimits::default() {
        lines.text += &limit_lines(&torrent.limits);
    }
}

/// Who named how many peers; nothing if nobody did.
fn sources(sources: &[SourceStatus]) -> Option<String> {
    let named = sources.iter().filter(|one| one.named + one.connected > 0);
    let word =
        |one: &SourceStatus| format!("{} {} ({} connected)", one.source, one.named, one.connected);
    let words: Vec<String> = named.map(word).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// Limits, a line for each.
pub fn limit_lines(limits: &TorrentLimits) -> String {
    let count = |count: Option<u64>, word: &dyn Fn(u64) -> String| match count {
        None => "default".to_owned(),
        Some(0) => "none".to_owned(),
        Some(count) => word(count),
    };
    let mut lines = Lines::default();
    lines.add("Upload limit", &rate_limit(limits.upload_rate));
    lines.add("Download limit", &rate_limit(limits.download_rate));
    lines.add(
        "Most peers",
        &count(limits.peers_max, &|count| count.to_string()),
    );
    lines.add("Ratio limit", &count(limits.ratio_permille, &ratio));
    lines.add("Seeding limit", &count(limits.seeding_time_s, &duration));
    let action = limits.at_limit.map_or("default", |action| match action {
        LimitAction::Pause => "pause",
        LimitAction::Remove => "remove",
        LimitAction::RemoveWithData => "remove with data",
        LimitAction::SuperSeed => "super-seed",
    });
    lines.add("At a limit", action);
    lines.text
}

/// Names and values, the values below one another.
#[derive(Default)]
struct Lines {
    text: String,
}

impl Lines {
    fn add(&mut self, title: &str, value: &str) {
        let _ = writeln!(self.text, "{:<16}{value}", format!("{title}:"));
    }

    fn option(&mut self, title: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.add(title, &name(value));
        }
    }
}

/// Runs `peers`.
pub fn peers(global: &Global, args: &PeersArgs) -> Result<(), Failure> {
    let remote = Remote::new(global, &args.server)?;
    let torrent = one(&remote, &args.torrent)?;
    let path = format!("/torrents/{}/peers", torrent.info_hash);
    if !args.add.is_empty() {
        let request = NewPeers {
            peers: args.add.clone(),
        };
        remote.send(Method::POST, &path, &request)?;
        match remote.json {
            true => print_json(&serde_json::json!({ "event": "asked", "peers": args.add.len() })),
            false => print(&format!(
                "asking {}\n",
                counted(args.add.len() as u64, "peer")
            )),
        }
        return Ok(());
    }
    let list: PeerList = remote.get(&path)?;
    match remote.json {
        true => list.peers.iter().for_each(print_json),
        false => print(&peer_table(&list.peers, terminal_columns())),
    }
    Ok(())
}

/// The peers as a table.
pub fn peer_table(peers: &[PeerStatus], room: Option<usize>) -> String {
    let row = |peer: &PeerStatus| {
        vec![
            peer.address.clone(),
            name(&peer.client),
            flags(peer),
            percent(u64::from(peer.has_permille), 1000),
            rate(peer.download_rate),
            rate(peer.upload_rate),
            bytes(peer.downloaded_bytes),
            bytes(peer.uploaded_bytes),
            name(&peer.source),
        ]
    };
    let columns = [
        Column::word("address", 0),
        Column::text("client", 2),
        Column::word("flags", 1),
        Column::figure("has", 3),
        Column::figure("down", 4),
        Column::figure("up", 4),
        Column::figure("received", 5),
        Column::figure("sent", 5),
        Column::word("source", 6),
    ];
    let rows: Vec<Vec<String>> = peers.iter().map(row).collect();
    table(&columns, &rows, room)
}

/// Who wants what of whom.
fn flags(peer: &PeerStatus) -> String {
    let mut flags = String::new();
    match (peer.am_interested, peer.peer_choking) {
        (true, false) => flags.push('D'),
        (true, true) => flags.push('d'),
        (false, _) => {}
    }
    match (peer.peer_interested, peer.am_choking) {
        (true, false) => flags.push('U'),
        (true, true) => flags.push('u'),
        (false, _) => {}
    }
    if peer.incoming {
        flags.push('I');
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::super::columns::tests::torrent;
    use super::*;

    fn source(name: &str, named: u32, connected: u32) -> SourceStatus {
        SourceStatus {
            source: name.to_owned(),
            named,
            connected,
        }
    }

    #[test]
    fn what_is_known_is_shown_and_nothing_else() {
        let mut details = TorrentDetails {
            torrent: torrent("0123456789abcdef0123456789abcdef01234567", "a\u{1b}b"),
            comment: Some("by\x07 a stranger".into()),
            created_by: None,
            created_at_s: None,
            magnet: "magnet:?x".into(),
            trackers: Vec::new(),
            web_seeds: Vec::new(),
            queue_position: Some(0),
            sources: vec![
                source("tracker", 40, 3),
                source("dht", 0, 0),
                source("incoming", 2, 1),
            ],
        };
        let text = detail_lines(&details);
        assert!(text.starts_with("Name:           a\\u{1b}b\nInfo-hash:      0123"));
        assert!(
            text.contains("\nSize:           10.0 GiB in 3 files, 10,240 pieces of 1.00 MiB\n")
        );
        assert!(
            text.contains("\nVerified:       50.0%, 5.00 GiB\n"),
            "{text}"
        );
        assert!(
            text.contains("\nReceived:       5.00 GiB, now 10.0 MiB/s\n"),
            "{text}"
        );
        assert!(text.contains("\nPlace in queue: 1\n"), "{text}");
        let sources = "\nPeers named:    tracker 40 (3 connected), incoming 2 (1 connected)\n";
        assert!(text.contains(sources), "{text}");
        assert!(!text.contains("Upload limit") && !text.contains('\x07'));
        details.torrent.limits.ratio_permille = Some(2000);
        details.torrent.total_bytes = 0;
        let text = detail_lines(&details);
        assert!(text.contains("\nRatio limit:    2.00\n"), "{text}");
        assert!(text.contains("\nSize:           not known yet\n"), "{text}");
    }

    #[test]
    fn flags_say_who_wants_what() {
        let peer = PeerStatus {
            address: "192.0.2.1:6881".into(),
            client: "x".into(),
            incoming: true,
            source: "tracker".into(),
            has_permille: 1000,
            uploaded_bytes: 0,
            downloaded_bytes: 0,
            upload_rate: 0,
            download_rate: 0,
            am_choking: true,
            am_interested: true,
            peer_choking: false,
            peer_interested: true,
        };
        assert_eq!(flags(&peer), "DuI");
        let text = peer_table(&[peer], Some(40));
        assert!(text.contains("192.0.2.1:6881") && text.lines().all(|line| line.len() <= 40));
    }
}
