//! `seedring stats`: the server as a whole.

use super::Remote;
use super::columns::status_word;
use super::text::{bytes, duration, rate_limit};
use crate::cli::Global;
use crate::client::ServerArgs;
use crate::failure::Failure;
use crate::progress::{counted, print, print_json};
use clap::Args;
use control::api::types::{ServerLimits, ServerStatus, Status, StatusCounts};
use serde::Serialize;
use std::fmt::Write as _;

/// Arguments of `seedring stats`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  seedring stats
  seedring stats --json | jq .server.by_status.downloading

--json prints one line {server, limits}, as the API has them. /metrics has far more.")]
pub struct StatsArgs {
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Serialize)]
struct Whole {
    server: ServerStatus,
    limits: ServerLimits,
}

/// Runs the command.
pub fn stats(global: &Global, args: &StatsArgs) -> Result<(), Failure> {
    let remote = Remote::new(global, &args.server)?;
    let whole = Whole {
        server: remote.get("/server")?,
        limits: remote.get("/limits")?,
    };
    match remote.json {
        true => print_json(&whole),
        false => print(&text(&whole)),
    }
    Ok(())
}

fn text(whole: &Whole) -> String {
    let server = &whole.server;
    let mut text = format!(
        "seedring {} ({}), up {}\n",
        server.version,
        server.commit,
        duration(server.uptime_s)
    );
    let port = match server.peer_port {
        0 => "not open yet".to_owned(),
        port => port.to_string(),
    };
    let counts: Vec<String> = by_status(&server.by_status)
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(status, count)| format!("{count} {}", status_word(*status)))
        .collect();
    let torrents = counted(server.torrents as u64, "torrent");
    let _ = writeln!(text, "peer port   {port}");
    let _ = writeln!(
        text,
        "torrents    {torrents}, {}",
        bytes(server.total_bytes)
    );
    if !counts.is_empty() {
        let _ = writeln!(text, "            {}", counts.join(", "));
    }
    let line = |now: u64, (session, all): (u64, u64), limit: Option<u64>| {
        format!(
            "{}/s, {} since the start, {} in all, limit {}",
            bytes(now),
            bytes(session),
            bytes(all),
            rate_limit(limit)
        )
    };
    let up = line(
        server.upload_rate,
        (server.uploaded_session_bytes, server.uploaded_bytes),
        whole.limits.upload_rate,
    );
    let down = line(
        server.download_rate,
        (server.downloaded_session_bytes, server.downloaded_bytes),
        whole.limits.download_rate,
    );
    let _ = writeln!(text, "sent        {up}\nreceived    {down}");
    text
}

/// The counts beside what they count.
pub fn by_status(counts: &StatusCounts) -> [(Status, usize); 9] {
    [
        (Status::Downloading, counts.downloading),
        (Status::Seeding, counts.seeding),
        (Status::Checking, counts.checking),
        (Status::Moving, counts.moving),
        (Status::Metadata, counts.metadata),
        (Status::Queued, counts.queued),
        (Status::Paused, counts.paused),
        (Status::Offline, counts.offline),
        (Status::Failed, counts.failed),
    ]
}
