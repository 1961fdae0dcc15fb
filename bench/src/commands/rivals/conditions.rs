//! What the figures of `seedring-bench rivals` depend on, in sentences.

use crate::rivals::Protocol;
use crate::rivals::beside::{COLD_PEERS, HOT_PEERS, Session};
use crate::rivals::data::DataSet;
use crate::rivals::report::{Head, ServerPart};
use crate::rivals::run::{Run, Settings};

/// Those of seeds beside each other.
pub fn of_seeds(head: &Head, data: &DataSet, is_locked: bool, runs: &[Run]) -> Vec<String> {
    let settings = &head.settings;
    let once = if settings.cold { ", each once" } else { "" };
    let mut all = of_the_machine(head);
    all.extend([
        format!(
            "TCP congestion control of the servers' sockets, as ss shows it: {}",
            controls(&head.servers, runs)
        ),
        format!("content: {}", content(data, settings, is_locked, runs)),
        format!(
            "load: depth {}, blocks of 16 KiB in order, random pieces{once}, mode {}, one address \
             a peer; {}",
            settings.depth,
            settings.mode.name(),
            window(settings)
        ),
        format!(
            "servers pinned to cores {:?}, load to cores {:?}",
            settings.server_cores, settings.load_cores
        ),
        format!(
            "{} interleaved rounds, each run with a fresh server; median (lowest–highest)",
            settings.rounds
        ),
        "CPU: user + system of all threads and child processes; loopback charges receiving to the \
         sender"
            .to_owned(),
    ]);
    all.extend(head.servers.iter().map(server));
    all
}

/// Those of cold data beside hot.
pub fn of_cold_with_hot(head: &Head, session: &Session<'_>, is_locked: bool) -> Vec<String> {
    let settings = &head.settings;
    let hot_loop = match session.hot_rate_bytes {
        None => "closed loop".to_owned(),
        Some(rate) => format!("open loop at {:.2} GB/s", rate as f64 / 1e9),
    };
    let mebibytes = |data: &DataSet| data.torrent.total_bytes >> 20;
    let mut all = of_the_machine(head);
    all.extend([
        format!(
            "two torrents in one server, pieces of 1 MiB: hot, {} MiB in the page cache ({}); \
             cold, {} MiB, dropped from it before each run",
            mebibytes(session.hot),
            locked(is_locked),
            mebibytes(session.cold)
        ),
        format!(
            "{HOT_PEERS} peers ask for hot pieces at random, in {hot_loop}, alone and beside \
             {COLD_PEERS} that ask for cold ones, each once, in closed loop; depth {}, mode {}; \
             {}; servers on cores {:?}, both loads on cores {:?}; {} rounds, each run with a fresh \
             server; median (lowest–highest)",
            settings.depth,
            settings.mode.name(),
            window(settings),
            settings.server_cores,
            settings.load_cores,
            settings.rounds,
        ),
    ]);
    all.extend(head.servers.iter().map(server));
    all
}

fn of_the_machine(head: &Head) -> Vec<String> {
    let host = &head.host;
    vec![
        format!("{}, seedring-bench {}", head.date, head.version),
        format!(
            "host: {}, {} cores, Linux {}, loopback, plaintext",
            host.cpu, host.cores, host.kernel
        ),
    ]
}

fn window(settings: &Settings) -> String {
    let seconds = |ns: u64| ns as f64 / 1e9;
    let (window_s, warmup_s) = (seconds(settings.window_ns), seconds(settings.warmup_ns));
    format!("{window_s} s measured after {warmup_s} s")
}

fn server(server: &ServerPart) -> String {
    let floor = match server.is_floor() {
        true => "the floor, no seed; ",
        false => "",
    };
    format!(
        "{}: {} ({floor}{})",
        server.name, server.version, server.settings
    )
}

fn locked(is_locked: bool) -> &'static str {
    if is_locked { "locked" } else { "not locked" }
}

fn controls(servers: &[ServerPart], runs: &[Run]) -> String {
    let of = |server: &ServerPart| {
        let mine = runs.iter().filter(|run| run.server == server.name);
        let mut found: Vec<&str> = mine
            .flat_map(|run| &run.congestion_controls)
            .map(String::as_str)
            .collect();
        found.sort_unstable();
        found.dedup();
        match found.is_empty() {
            true => format!("{} unknown", server.name),
            false => format!("{} {}", server.name, found.join("/")),
        }
    };
    let with_sockets = servers
        .iter()
        .filter(|server| server.protocol != Protocol::Disk);
    with_sockets.map(of).collect::<Vec<_>>().join(", ")
}

fn content(data: &DataSet, settings: &Settings, is_locked: bool, runs: &[Run]) -> String {
    let mebibytes = data.torrent.total_bytes >> 20;
    let shares = || runs.iter().filter_map(|run| run.cached_share);
    let cache = if settings.cold {
        let most = shares().fold(0.0, f64::max) * 100.0;
        format!("page cache dropped before each run (at most {most:.0} % of it left there)")
    } else {
        // Rounded down: a share that is not all must not read like all.
        let least = (shares().fold(1.0, f64::min) * 1e3).floor() / 10.0;
        let locked = locked(is_locked);
        format!("in the page cache (at least {least} % before each run, {locked})")
    };
    format!("one file of {mebibytes} MiB, pieces of 1 MiB, {cache}")
}
