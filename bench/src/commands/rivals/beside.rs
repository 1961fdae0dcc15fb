//! `seedring-bench rivals --cold-with-hot`: what cold data of one torrent cost another.
//!
//! The rounds themselves are in [`crate::rivals::beside`].

use std::process::ExitCode;

use super::{
    Published, RivalsArguments, begin, check, check_names, conditions, head, ours, publish,
    set_congestion_control, settings, tell,
};
use crate::harness::usage::Usage;
use crate::load::room::Room;
use crate::rivals::Rival;
use crate::rivals::beside::{COLD_PEERS, Comparison, HOT_PEERS, Session, rows};
use crate::rivals::data::{DataSet, Lock};
use crate::rivals::run::Settings;

/// Runs the session and prints the report.
pub fn run(arguments: &RivalsArguments) -> anyhow::Result<ExitCode> {
    check(arguments, &Room::here())?;
    let servers = chosen(arguments)?;
    let date = begin(arguments)?;
    let restored = set_congestion_control(arguments)?;
    let directory = &arguments.directory;
    let hot = DataSet::prepare_named("seedring-bench-hot", directory, arguments.hot_size, tell)?;
    let cold = DataSet::prepare(directory, arguments.size, tell)?;
    let settings = Settings {
        peers: vec![HOT_PEERS, COLD_PEERS],
        cold: true,
        ..settings(arguments)
    };
    let mut lock = hot.lock();
    let session = Session {
        servers: &servers,
        hot: &hot,
        cold: &cold,
        settings: &settings,
        hot_rate_bytes: arguments.hot_rate,
        tell: &tell,
    };
    let runs = session.run()?;
    drop(restored);
    let is_locked = lock.as_mut().is_some_and(Lock::holds);
    let mut head = head("rivals --cold-with-hot", date, settings.clone(), &servers);
    head.conditions = conditions::of_cold_with_hot(&head, &session, is_locked);
    let comparison = Comparison {
        rows: rows(&runs, &head.servers),
        head,
        runs,
    };
    publish(
        arguments,
        &Published {
            name: "cold-with-hot",
            json: serde_json::to_string_pretty(&comparison)?,
            markdown: comparison.to_markdown(),
            pictures: Vec::new(),
            is_complete: comparison.is_complete(),
        },
    )
}

/// The servers of the command line; an error is a wrong one.
pub(super) fn chosen(arguments: &RivalsArguments) -> Result<Vec<Box<dyn Rival>>, Usage> {
    let is_none = arguments.rivals.iter().map(String::as_str).eq(["none"]);
    if !arguments.rivals.is_empty() && !is_none {
        return Err(Usage(
            "--cold-with-hot: it is for our own server only: give --rivals none".to_owned(),
        ));
    }
    let servers = ours(arguments)?;
    check_names(&servers)?;
    Ok(servers)
}
