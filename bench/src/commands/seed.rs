//! `seedring-bench seed`: loads one seed and prints the report of it.
//!
//! The arguments, whether they can be, what they mean to a load, and the exit code (1 when wrong
//! bytes were served).

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use crate::console::tell;
use crate::harness::options::{Format, Load};
use crate::harness::usage::{self, Usage};
use crate::load::blocks::Deck;
use crate::load::leecher::Settings;
use crate::load::room::{self, Needed, Room};
use crate::load::stream::SocketSettings;
use crate::load::{self, Mode, Plan};
use crate::report::Report;
use crate::torrent::{Torrent, TorrentError};
use crate::units::{count_from_1, local_addresses, rate_bytes, seconds_ns, size_bytes, threads};

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
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = threads)]
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
    check(arguments, &Room::here())?;
    let torrent = open(arguments)?;
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

fn open(arguments: &SeedArguments) -> anyhow::Result<Torrent> {
    Torrent::open(&arguments.torrent, arguments.address).map_err(|error| match error {
        TorrentError::Read { .. } => Usage(format!(
            "--torrent: {error}: give a .torrent file that is there, or a magnet link"
        ))
        .into(),
        error => error.into(),
    })
}

/// Whether all that was asked for can be, on a machine that has this `room`.
fn check(arguments: &SeedArguments, room: &Room) -> Result<(), Usage> {
    usage::cores("--pin", &arguments.pin)?;
    let addresses: BTreeSet<IpAddr> = arguments.local_addresses.iter().copied().collect();
    for &local in &addresses {
        if local.is_ipv4() != arguments.address.is_ipv4() {
            return Err(Usage(format!(
                "--local-addresses {local}: {} cannot be reached from it: give addresses of the \
                 same version of IP",
                arguments.address
            )));
        }
        usage::own_address("--local-addresses", local)?;
    }
    if let Some(name) = &arguments.congestion_control {
        usage::congestion_control("--congestion-control", name)?;
    }
    let (peers, slow, idle) = (arguments.peers, arguments.slow_readers, arguments.idle);
    let needed = Needed {
        connections: peers.saturating_add(slow).saturating_add(idle) as u64,
        threads: arguments.threads as u64,
        addresses: addresses.len().max(1) as u64,
    };
    room.check(&needed).map_err(|no_room| {
        let others = match slow.saturating_add(idle) {
            0 => String::new(),
            _ => format!(" --slow-readers {slow} --idle {idle}"),
        };
        Usage(format!("--peers {peers}{others}: {no_room}"))
    })?;
    let (rate, block) = (arguments.rate.unwrap_or(0), arguments.block);
    room::check_rate(rate, block)
        .map_err(|no_room| Usage(format!("--rate {rate} --block {block}: {no_room}")))
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

    use super::*;
    use crate::{Command, CommandLine};

    /// The arguments of a load of `torrent` on port 1 of loopback.
    fn parse(torrent: &str, more: &str) -> SeedArguments {
        let line = format!("seedring-bench seed --torrent {torrent} --address 127.0.0.1:1 {more}");
        let line = CommandLine::try_parse_from(line.split_whitespace()).unwrap();
        match line.command {
            Command::Seed(arguments) => *arguments,
            _ => panic!("another command"),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
        let arguments = parse(
            "t",
            "--pin 1,2 --local-addresses 127.0.0.2-127.0.0.4 --rate 500M --block 32K \
             --duration 0.5",
        );
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
            "--threads 1025",
        ] {
            let line = format!("seedring-bench seed --torrent t --address 127.0.0.1:1 {wrong}");
            let error = CommandLine::try_parse_from(line.split_whitespace())
                .err()
                .unwrap();
            assert_eq!(error.exit_code(), 2, "{wrong}");
        }
    }

    #[test]
    fn what_is_not_there_is_told_before_the_seed_is_asked() {
        let room = Room {
            descriptors: 20_000,
            ports: 1_000,
        };
        let magnet = "magnet:?xt=urn:btih:0";
        check(&parse(magnet, "--peers 1000"), &room).unwrap();
        check(&parse(magnet, "--peers 1 --rate 60G"), &room).unwrap();
        let range = "--local-addresses 127.0.0.2-127.0.0.3,127.0.0.2";
        check(&parse(magnet, &format!("--peers 2000 {range}")), &room).unwrap();
        for (wrong, what, why) in [
            ("--peers 10000000", "--peers 10000000: ", "at most 19935,"),
            (
                "--idle 10000000",
                "--peers 16 --slow-readers 0 --idle 10000000: ",
                "at most 19935,",
            ),
            ("--peers 1001", "--peers 1001: ", "at least 2 addresses"),
            (
                "--peers 2001 --local-addresses 127.0.0.2-127.0.0.3,127.0.0.2",
                "--peers 2001: ",
                "at most 2000,",
            ),
            ("--pin 9999", "--pin 9999: ", "choose among"),
            (
                "--local-addresses ::1",
                "--local-addresses ::1: ",
                "same version",
            ),
            (
                "--local-addresses 203.0.113.1",
                "--local-addresses 203.0.113.1: ",
                "this machine cannot use it",
            ),
            (
                "--congestion-control no-such",
                "--congestion-control no-such: ",
                "tcp_available_congestion_control",
            ),
            (
                "--rate 1G --block 1",
                "--rate 1073741824 --block 1: ",
                "requests per second",
            ),
        ] {
            let error = check(&parse(magnet, wrong), &room).unwrap_err().to_string();
            assert!(error.starts_with(what) && error.contains(why), "{error}");
        }
        let error = open(&parse("/no/such.torrent", "")).unwrap_err();
        let said = error.downcast_ref::<Usage>().unwrap().to_string();
        assert!(said.contains("\"/no/such.torrent\": No such"), "{said}");
    }
}
