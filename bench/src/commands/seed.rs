//! `seedring-bench seed`: loads one seed and prints the report of it.
//!
//! The arguments, what they mean to a load, and the exit code (1 when wrong bytes were served).

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use crate::console::tell;
use crate::harness::options::{Format, Load};
use crate::load::blocks::Deck;
use crate::load::leecher::Settings;
use crate::load::stream::SocketSettings;
use crate::load::{self, Mode, Plan};
use crate::report::Report;
use crate::torrent::Torrent;
use crate::units::{count_from_1, local_addresses, rate_bytes, seconds_ns, size_bytes};

const EXAMPLES: &str = "\
Examples:
  seedring-bench seed --torrent big.torrent --address 127.0.0.1:6890 --pid $(pidof seedring)
  seedring-bench seed --torrent big.torrent --address 127.0.0.1:6890 --peers 200 --mode verify
  seedring-bench seed --torrent big.torrent --address 127.0.0.1:6890 --rate 500M --json

Exit codes: 0 measured; 1 not measured, or wrong bytes were served; 2 usage.
A run in which the load itself was the limit says \"load-limited: no verdict\".
Sizes: 16K = 16 KiB, 500MB = 500,000,000. Closed loop: each peer keeps --depth requests under way.
Open loop (--rate): requests are due at fixed times, and latency counts from then.";

/// The arguments of `seedring-bench seed`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct SeedArguments {
    /// The torrent: a .torrent file, or a magnet link whose metadata the seed is asked for.
    #[arg(long, value_name = "FILE|MAGNET")]
    torrent: String,

    /// Where the seed listens.
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    address: SocketAddr,

    /// Leechers that ask as fast as they may; the measured ones.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = count_from_1)]
    peers: usize,

    #[command(flatten)]
    load: Load,

    /// The length of a block: 1 to 128K. Some seeds close the connection at more than 16K.
    #[arg(long, value_name = "SIZE", default_value = "16K", value_parser = block_bytes)]
    block: u32,

    /// How long to wait until all peers are unchoked, in seconds; with some, the run then begins.
    #[arg(long, value_name = "S", default_value = "30", value_parser = seconds_ns)]
    ready_timeout: u64,

    /// The seed's process: its CPU time and memory are measured.
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,

    /// Threads to divide the leechers among.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count_from_1)]
    threads: usize,

    /// Cores to pin the threads to, in turn.
    #[arg(long, value_name = "CORE[,CORE]", value_delimiter = ',')]
    pin: Vec<usize>,

    /// Addresses to connect from, in turn: single ones, or FIRST-LAST. Some seeds take one peer an
    /// address.
    #[arg(long, value_name = "IP[-IP][,..]", default_value = "", value_parser = local_addresses)]
    local_addresses: LocalAddresses,

    /// Open loop: ask for this much payload per second over all peers, whatever the seed does.
    #[arg(long, value_name = "BYTES/S", value_parser = rate_bytes)]
    rate: Option<u64>,

    /// Further peers that ask likewise and read 16 KiB/s.
    #[arg(long, value_name = "N", default_value_t = 0)]
    slow_readers: usize,

    /// Further peers that stay connected and ask for nothing.
    #[arg(long, value_name = "N", default_value_t = 0)]
    idle: usize,

    /// The congestion control of the load's sockets (the seed's own decides; see
    /// docs/BENCHMARKING.md).
    #[arg(long, value_name = "NAME")]
    congestion_control: Option<String>,

    /// Do not offer the fast extension (BEP 6).
    #[arg(long)]
    no_fast: bool,

    /// Do not offer the extension protocol (BEP 10).
    #[arg(long)]
    no_extended: bool,

    /// Decides which pieces are asked for: the same number, the same pieces.
    #[arg(long, value_name = "N", default_value_t = 1)]
    random_seed: u64,

    /// Ask for no piece twice before each was asked for once, over all peers: for data that are not
    /// in the page cache.
    #[arg(long)]
    distinct: bool,

    #[command(flatten)]
    format: Format,
}

/// Addresses to connect from; empty: the system chooses. (A name of its own, so that clap takes the
/// list as one value.)
type LocalAddresses = std::boxed::Box<[IpAddr]>;

/// Loads the seed and prints the report.
pub fn run(arguments: &SeedArguments) -> anyhow::Result<ExitCode> {
    let torrent = Torrent::open(&arguments.torrent, arguments.address)?;
    let plan = plan(arguments, &torrent);
    let outcome = load::run(&plan)?;
    let report = Report::new(&plan, &torrent, arguments.load.mode.name(), &outcome);
    let json = serde_json::to_string(&report)?;
    arguments.format.print(&json, &report.to_text())?;
    if report.pieces_wrong() > 0 {
        tell(format_args!(
            "seedring-bench: the seed served {} wrong pieces",
            report.pieces_wrong()
        ));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn plan(arguments: &SeedArguments, torrent: &Torrent) -> Plan {
    let load = &arguments.load;
    Plan {
        settings: Settings {
            info_hash: torrent.info_hash,
            geometry: torrent.geometry,
            expected: load.mode.expected(torrent),
            block_bytes: arguments.block,
            depth: load.depth,
            fast: !arguments.no_fast,
            extended: !arguments.no_extended,
            open_loop: arguments.rate.is_some(),
            deck: arguments.distinct.then(|| {
                Arc::new(Deck::new(
                    torrent.geometry.piece_count,
                    arguments.random_seed,
                ))
            }),
        },
        socket: SocketSettings {
            address: arguments.address,
            discard: load.mode == Mode::Discard,
            congestion_control: arguments.congestion_control.clone(),
        },
        peers: arguments.peers,
        slow_readers: arguments.slow_readers,
        idle: arguments.idle,
        threads: arguments.threads,
        cores: arguments.pin.clone(),
        local_addresses: arguments.local_addresses.to_vec(),
        rate_bytes: arguments.rate,
        ready_ns_max: arguments.ready_timeout,
        warmup_ns: load.warmup,
        window_ns: load.duration,
        server_pid: arguments.pid,
        random_seed: arguments.random_seed,
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let mut found = text.to_socket_addrs().map_err(|error| error.to_string())?;
    found
        .next()
        .ok_or_else(|| "the name has no address".to_owned())
}

fn block_bytes(text: &str) -> Result<u32, String> {
    let bytes = size_bytes(text)?;
    match u32::try_from(bytes) {
        Ok(bytes) if (1..=proto::limits::BLOCK_LENGTH_MAX).contains(&bytes) => Ok(bytes),
        _ => Err("must be from 1 to 128K".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use crate::{Command, CommandLine};

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
        let line = "seedring-bench seed --torrent t --address 127.0.0.1:1 --pin 1,2 \
                    --local-addresses 127.0.0.2-127.0.0.4 --rate 500M --block 32K --duration 0.5";
        let line = CommandLine::try_parse_from(line.split_whitespace()).unwrap();
        let Command::Seed(arguments) = line.command else {
            panic!("another command");
        };
        assert_eq!(arguments.pin, [1, 2]);
        assert_eq!(arguments.local_addresses.len(), 3);
        assert_eq!(arguments.rate, Some(500 << 20));
        assert_eq!(
            (arguments.block, arguments.load.duration),
            (32 << 10, 500_000_000)
        );
    }

    #[test]
    fn impossible_numbers_are_usage_errors() {
        for wrong in [
            "--depth 0",
            "--depth 2001",
            "--block 129K",
            "--rate 0",
            "--peers 0",
        ] {
            let line = format!("seedring-bench seed --torrent t --address 127.0.0.1:1 {wrong}");
            let error = CommandLine::try_parse_from(line.split_whitespace())
                .err()
                .unwrap();
            assert_eq!(error.exit_code(), 2, "{wrong}");
        }
    }
}
