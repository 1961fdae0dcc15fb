//! `seedring-bench rivals --cold-with-hot`: what cold data of one torrent cost another.
//!
//! The rounds themselves are in [`crate::rivals::beside`].

use std::process::ExitCode;

use anyhow::Context as _;

use super::{RivalsArguments, SYSTEM, check_cores, check_names, ours, settings, tell};
use crate::measure::Host;
use crate::rivals::beside::{COLD_PEERS, Comparison, HOT_PEERS, Session, rows};
use crate::rivals::data::DataSet;
use crate::rivals::report::ServerPart;
use crate::rivals::run::Settings;
use crate::rivals::{Rival, system, undo};

/// Runs the session and prints the report.
pub fn run(arguments: &RivalsArguments) -> anyhow::Result<ExitCode> {
    let servers = match chosen(arguments) {
        Ok(servers) => servers,
        Err(wrong) => {
            eprintln!("seedring-bench: {wrong}");
            return Ok(ExitCode::from(2));
        }
    };
    let date = system::date();
    undo::on_signals().context("cannot catch signals")?;
    if let Some(directory) = &arguments.output {
        // Now, not after an hour.
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot write to {}", directory.display()))?;
    }
    let directory = &arguments.directory;
    let hot = DataSet::prepare_named("seedring-bench-hot", directory, arguments.hot_size, tell)?;
    let cold = DataSet::prepare(directory, arguments.size, tell)?;
    let settings = Settings {
        peers: vec![HOT_PEERS, COLD_PEERS],
        cold: true,
        ..settings(arguments)
    };
    let mut lock = hot.lock();
    let restored = match arguments.congestion_control.as_str() {
        SYSTEM => None,
        name => system::set_congestion_control(name)?,
    };
    let session = Session {
        servers: &servers,
        hot: &hot,
        cold: &cold,
        settings: &settings,
        tell: &tell,
    };
    let runs = session.run()?;
    drop(restored);
    let is_locked = lock.as_mut().is_some_and(|lock| lock.holds());
    let servers: Vec<ServerPart> = servers
        .iter()
        .map(|one| ServerPart::of(one.as_ref()))
        .collect();
    let host = Host::here();
    let mut conditions = vec![
        format!("{date}, seedring-bench {}", crate::VERSION),
        format!(
            "host: {}, {} cores, Linux {}, loopback, plaintext",
            host.cpu, host.cores, host.kernel
        ),
        content(&hot, &cold, is_locked),
        load(&settings),
    ];
    conditions.extend(
        servers
            .iter()
            .map(|one| format!("{}: {} ({})", one.name, one.version, one.settings)),
    );
    publish(
        arguments,
        &Comparison {
            command: "rivals --cold-with-hot",
            version: crate::VERSION,
            date,
            host,
            conditions,
            settings,
            rows: rows(&runs, &servers),
            servers,
            runs,
        },
    )
}

/// The servers of the command line; an error is a wrong one.
pub(super) fn chosen(arguments: &RivalsArguments) -> Result<Vec<Box<dyn Rival>>, String> {
    let is_none = arguments.rivals.iter().map(String::as_str).eq(["none"]);
    if !arguments.rivals.is_empty() && !is_none {
        return Err("--cold-with-hot is for our own server only: --rivals none".to_owned());
    }
    let servers = ours(arguments)?;
    check_names(&servers)?;
    check_cores(arguments)?;
    Ok(servers)
}

fn content(hot: &DataSet, cold: &DataSet, is_locked: bool) -> String {
    let mebibytes = |data: &DataSet| data.torrent.total_bytes >> 20;
    format!(
        "two torrents in one server, pieces of 1 MiB: hot, {} MiB in the page cache ({}); cold, {} \
         MiB, dropped from it before each run",
        mebibytes(hot),
        if is_locked { "locked" } else { "not locked" },
        mebibytes(cold)
    )
}

fn load(settings: &Settings) -> String {
    let seconds = |ns: u64| ns as f64 / 1e9;
    format!(
        "{HOT_PEERS} peers ask for hot pieces at random, alone and beside {COLD_PEERS} that ask for \
         cold ones, each once; depth {}, mode {}; {} s measured after {} s; servers on cores {:?}, \
         both loads on cores {:?}; {} rounds, each run with a fresh server; median (lowest–highest)",
        settings.depth,
        settings.mode.name(),
        seconds(settings.window_ns),
        seconds(settings.warmup_ns),
        settings.server_cores,
        settings.load_cores,
        settings.rounds,
    )
}

/// Prints the report, writes it, and says how it went.
fn publish(arguments: &RivalsArguments, comparison: &Comparison) -> anyhow::Result<ExitCode> {
    let markdown = comparison.to_markdown();
    let json = serde_json::to_string_pretty(comparison)?;
    if let Some(directory) = &arguments.output {
        for (name, text) in [
            ("cold-with-hot.json", &json),
            ("cold-with-hot.md", &markdown),
        ] {
            let path = directory.join(name);
            std::fs::write(&path, text)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    arguments.rounds.format.print(&json, &markdown);
    Ok(match comparison.is_complete() {
        true => ExitCode::SUCCESS,
        false => {
            eprintln!("seedring-bench: a run failed or served wrong bytes: see the remarks");
            ExitCode::FAILURE
        }
    })
}
