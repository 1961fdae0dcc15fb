//! `seedring seed`: these files or folders, now, with nothing configured.

use crate::cli::{Global, SeedArgs};
use crate::failure::Failure;
use crate::loading::Source;
use crate::server::{self, Plan};
use anyhow::{Context, anyhow};
use control::config::{Config, Environment};
use control::create::CreateOptions;

/// Runs the command.
pub fn run(global: &Global, args: &SeedArgs) -> Result<(), Failure> {
    let environment = Environment::of_process();
    let mut config = Config::load(global.config.as_deref(), &environment)
        .map_err(|error| Failure::Usage(error.into()))?;
    apply(&mut config, args)?;
    for path in args.paths.iter().chain(&args.torrent).chain(&args.data_dir) {
        // Looked at before any port is opened: the usual mistake is answered by one line.
        std::fs::metadata(path).with_context(|| format!("cannot find {path:?}"))?;
    }
    let state_dir = global
        .state_dir
        .clone()
        .unwrap_or_else(|| config.state_dir(&environment));
    let sources = match (&args.torrent, &args.data_dir) {
        (Some(torrent), Some(data)) => {
            let trackers = named_trackers(args);
            vec![Source::Torrent(torrent.clone(), data.clone(), trackers)]
        }
        _ => {
            let options = create_options(args)?;
            args.paths
                .iter()
                .map(|path| Source::Path(path.clone(), options.clone()))
                .collect()
        }
    };
    server::run(Plan {
        config_file: global.config.clone(),
        config,
        state_dir,
        sources,
        all_or_nothing: true,
        keeps: false,
        stdout_is_log: false,
        json: global.json,
    })
}

/// Puts the command line's choices over the configuration's.
fn apply(config: &mut Config, args: &SeedArgs) -> Result<(), Failure> {
    if let Some(port) = args.port {
        config.peers.port = port;
    }
    if let Some(shards) = args.shards {
        config.shards.count = shards;
    }
    if let Some(api) = &args.api {
        let address = api.parse().map_err(|_| {
            Failure::Usage(anyhow!(
                "--api {api:?} is no ADDRESS:PORT, such as 127.0.0.1:8690"
            ))
        })?;
        config.api.listen = Some(address);
    }
    config.tracker.enabled = !args.no_tracker;
    config.dht.enabled &= !args.no_dht;
    if let Some(port) = args.tracker_port {
        if let Some(address) = &mut config.tracker.listen_v4 {
            address.set_port(port);
        }
        if let Some(address) = &mut config.tracker.listen_v6 {
            address.set_port(port);
        }
    }
    if let Some(host) = &args.announce_host {
        config.tracker.announce_host.clone_from(host);
    }
    if let Some(problem) = config.tracker_problem() {
        return Err(Failure::Usage(anyhow!("{problem}; or say --no-tracker")));
    }
    // Whoever seeds by hand has chosen the trackers, those in his own network included.
    config.announce.allow_private_trackers = true;
    Ok(())
}

/// The tiers of `--tracker`.
fn named_trackers(args: &SeedArgs) -> Vec<Vec<String>> {
    args.tracker.iter().map(|tier| tier.0.clone()).collect()
}

fn create_options(args: &SeedArgs) -> Result<CreateOptions, Failure> {
    let piece_length = match &args.piece_size {
        None => None,
        Some(size) => Some(
            super::create::parse_piece_size(size)
                .map_err(|error| Failure::Usage(anyhow!("--piece-size {size:?}: {error}")))?,
        ),
    };
    Ok(CreateOptions {
        trackers: named_trackers(args),
        private: args.private,
        piece_length,
        ..CreateOptions::default()
    })
}
