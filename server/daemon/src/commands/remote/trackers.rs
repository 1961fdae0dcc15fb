//! `seedring trackers`: how a torrent's trackers do, and which it has.

use super::select::one;
use super::table::{Column, table};
use super::text::{duration, name};
use super::{Remote, terminal_columns};
use crate::cli::Global;
use crate::client::ServerArgs;
use crate::commands::create::{Tier, parse_tier};
use crate::failure::Failure;
use crate::progress::{counted, print, print_json};
use anyhow::anyhow;
use clap::Args;
use control::api::types::{NewTrackers, TrackerList, TrackerState, TrackerStatus};
use reqwest::Method;

/// Arguments of `seedring trackers`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  seedring trackers debian-12.iso
  seedring trackers 3fa9 --add udp://tracker.example:6969/announce
  seedring trackers 3fa9 --remove tracker.example
  seedring trackers 3fa9 --replace http://a.example/announce,http://b.example/announce
  seedring trackers 3fa9 --urls           whole URLs: they may hold passkeys

--json prints what the API says: {tiers, trackers}.")]
pub struct TrackersArgs {
    /// The torrent: its info-hash, the beginning of it, or its name
    #[arg(value_name = "TORRENT")]
    torrent: String,
    /// Another tracker, behind those it has; several of one tier with commas between (repeatable)
    #[arg(long, value_name = "URL[,URL…]", value_parser = parse_tier)]
    add: Vec<Tier>,
    /// A tracker less: its URL, its host, or its host and port (repeatable)
    #[arg(long, value_name = "URL|HOST")]
    remove: Vec<String>,
    /// These in place of those it has (repeatable: each is a tier)
    #[arg(long, value_name = "URL[,URL…]", value_parser = parse_tier,
          conflicts_with_all = ["add", "remove"])]
    replace: Vec<Tier>,
    /// Show whole URLs, one a line, their tiers parted by an empty line
    #[arg(long, conflicts_with_all = ["add", "remove", "replace"])]
    urls: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs the command.
pub fn run(global: &Global, args: &TrackersArgs) -> Result<(), Failure> {
    let remote = Remote::new(global, &args.server)?;
    let torrent = one(&remote, &args.torrent)?;
    let path = format!("/torrents/{}/trackers", torrent.info_hash);
    if args.add.is_empty() && args.remove.is_empty() && args.replace.is_empty() {
        let asked = if args.urls { "?secrets=true" } else { "" };
        let list: TrackerList = remote.get(&format!("{path}{asked}"))?;
        match (remote.json, args.urls) {
            (true, _) => print_json(&list),
            (false, true) => {
                let tiers = list.tiers.iter().map(|tier| tier.join("\n") + "\n");
                print(&tiers.collect::<Vec<_>>().join("\n"));
            }
            (false, false) => print(&tracker_table(&list.trackers, terminal_columns())),
        }
        return Ok(());
    }
    let tiers = match args.replace.is_empty() {
        false => urls(&args.replace),
        true => {
            let list: TrackerList = remote.get(&format!("{path}?secrets=true"))?;
            changed(list.tiers, &urls(&args.add), &args.remove)
                .map_err(|text| Failure::Failed(anyhow!(text)))?
        }
    };
    let count = tiers.iter().map(Vec::len).sum::<usize>();
    remote.send(Method::PUT, &path, &NewTrackers { tiers })?;
    match remote.json {
        true => print_json(&serde_json::json!({ "event": "changed", "trackers": count })),
        false => print(&format!(
            "{} has {} now\n",
            name(&torrent.name),
            counted(count as u64, "tracker")
        )),
    }
    Ok(())
}

fn urls(tiers: &[Tier]) -> Vec<Vec<String>> {
    tiers.iter().map(|tier| tier.0.clone()).collect()
}

/// The trackers with some more and some less.
fn changed(
    mut tiers: Vec<Vec<String>>,
    add: &[Vec<String>],
    remove: &[String],
) -> Result<Vec<Vec<String>>, String> {
    for wanted in remove {
        let before = tiers.iter().map(Vec::len).sum::<usize>();
        tiers
            .iter_mut()
            .for_each(|tier| tier.retain(|url| !is_meant(wanted, url)));
        if tiers.iter().map(Vec::len).sum::<usize>() == before {
            return Err("--remove names a tracker that the torrent does not have".into());
        }
    }
    for tier in add {
        let is_new = |url: &&String| !tiers.iter().any(|tier| tier.contains(url));
        let new: Vec<String> = tier.iter().filter(is_new).cloned().collect();
        tiers.push(new);
    }
    tiers.retain(|tier| !tier.is_empty());
    Ok(tiers)
}

/// Whether a URL, a host, or a host and port is that of `url`.
fn is_meant(wanted: &str, url: &str) -> bool {
    if wanted == url {
        return true;
    }
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let authority = authority.rsplit('@').next().unwrap_or_default();
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    wanted.eq_ignore_ascii_case(authority) || wanted.eq_ignore_ascii_case(host)
}

/// The trackers as a table.
pub fn tracker_table(trackers: &[TrackerStatus], room: Option<usize>) -> String {
    let count = |count: Option<u32>| count.map_or_else(String::new, |count| count.to_string());
    let row = |tracker: &TrackerStatus| {
        vec![
            tracker.tier.to_string(),
            name(&tracker.tracker),
            state_word(tracker.state).to_owned(),
            count(tracker.seeders),
            count(tracker.leechers),
            tracker.peers.to_string(),
            tracker.until_next_s.map_or_else(String::new, duration),
            name(tracker.message.as_deref().unwrap_or_default()),
        ]
    };
    let columns = [
        Column::figure("tier", 3),
        Column::text("tracker", 0),
        Column::word("state", 0),
        Column::figure("seeds", 4),
        Column::figure("leeches", 4),
        Column::figure("peers", 2),
        Column::figure("next", 5),
        Column::text("message", 1),
    ];
    let rows: Vec<Vec<String>> = trackers.iter().map(row).collect();
    table(&columns, &rows, room)
}

fn state_word(state: TrackerState) -> &'static str {
    match state {
        TrackerState::Waiting => "waiting",
        TrackerState::Announcing => "announcing",
        TrackerState::Working => "working",
        TrackerState::Failing => "failing",
        TrackerState::Disabled => "disabled",
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn trackers_are_removed_by_url_or_host_and_added_once() {
        let tier = |urls: &[&str]| urls.iter().map(|url| (*url).to_owned()).collect::<Vec<_>>();
        let a = "http://user@a.example:80/announce?key=1";
        let tiers = vec![
            tier(&[a, "udp://b.example:6969"]),
            tier(&["http://[::1]:1/announce"]),
        ];
        let changed = |add: &[&str], remove: &[&str]| {
            super::changed(tiers.clone(), &[tier(add)], &tier(remove))
        };
        assert_eq!(
            changed(&[], &["A.example"]).unwrap()[0],
            ["udp://b.example:6969"]
        );
        assert_eq!(changed(&[], &[a, "b.example:6969"]).unwrap().len(), 1);
        assert_eq!(changed(&[], &["[::1]"]).unwrap().len(), 1);
        assert!(changed(&[], &["example"]).is_err());
        let more = changed(&[a, "http://c/announce"], &[]).unwrap();
        assert_eq!(more[2], ["http://c/announce"]);
        assert_eq!(changed(&[a], &[]).unwrap().len(), 2, "no empty tier");
    }
}
