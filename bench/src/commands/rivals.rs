//! `seedring-bench rivals`: seeds beside each other in interleaved rounds.
//!
//! The arguments, what the session needs of the machine (content, page cache, congestion control),
//! and where the report goes. The rounds themselves are in [`crate::rivals`].

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use crate::console;
use crate::harness::options::{Load, Python, Rounds, beside_this_program};
use crate::harness::page_cache;
use crate::harness::undo::{self, Guard};
use crate::harness::usage::{self, Usage};
use crate::load::room::{self, Needed, Room};
use crate::measure::Host;
use crate::rivals::data::{DataSet, Lock};
use crate::rivals::report::{Comparison, Head, ServerPart, ratios, rows};
use crate::rivals::run::{BLOCK_BYTES, Session, Settings};
use crate::rivals::seedring::Seedring;
use crate::rivals::{Protocol, Rival, all, plot, system};
use crate::units::{count_from_1, rate_bytes, whole_mebibytes};

mod beside;
mod conditions;

/// Keeps the congestion control as it is.
const SYSTEM: &str = "system";

const EXAMPLES: &str = "\
Examples:
  seedring-bench rivals --output DIR
  seedring-bench rivals --rivals rtorrent,libtorrent,nginx --peers 16 --rounds 3 --latency
  seedring-bench rivals --rivals none --seedring splice=PATH,storage.send_path=splice \\
      --seedring ring=PATH,storage.send_path=ring
  seedring-bench rivals --cold --peers 64 --size 16G
  seedring-bench rivals --cold-with-hot --size 16G

Run it as root, on a machine that does nothing else. It takes about 10 s for each run: servers ×
numbers of peers × rounds. Ctrl-C stops every server and restores what was set.
Exit codes: 0 measured; 1 a run failed, or wrong bytes were served; 2 usage.";

/// The arguments of `seedring-bench rivals`.
#[derive(Args)]
#[command(
    after_help = EXAMPLES,
    mut_arg("rounds", |arg| arg.help("Rounds for each number of peers")),
    mut_arg("duration", |arg| {
        arg.default_value("4").help("The measured window of each run, in seconds")
    }),
    mut_arg("warmup", |arg| arg.default_value("1.5")),
    mut_arg("mode", |arg| arg.default_value("discard")),
)]
pub struct RivalsArguments {
    /// Ours, repeatable: a build, a name for it, and configuration keys [default: the seedring
    /// beside this program].
    #[arg(long, value_name = "[NAME=]PATH[,KEY=VALUE..]", value_parser = Seedring::parse)]
    seedring: Vec<Seedring>,

    /// Others, of rtorrent, libtorrent, qbittorrent, transmission, aria2, rqbit, nginx, and with
    /// --cold fio; or none [default: all that are installed].
    #[arg(long, value_name = "NAME[,..]", value_delimiter = ',')]
    rivals: Vec<String>,

    #[command(flatten)]
    python: Python,

    /// Numbers of peers.
    #[arg(long, value_name = "N[,N]", value_delimiter = ',', default_value = "1,16,200",
        value_parser = peers)]
    peers: Vec<usize>,

    #[command(flatten)]
    rounds: Rounds,

    #[command(flatten)]
    load: Load,

    /// Measure latency too: in open loop, at half of what the best rival served in closed loop.
    #[arg(long)]
    latency: bool,

    /// Empty the page cache before each run; needs root.
    #[arg(long)]
    cold: bool,

    /// Measure instead what cold data of one torrent, asked for by 64 peers, cost another in the
    /// page cache, asked for by 16, in one server. Ours only; needs root.
    #[arg(long, conflicts_with_all = ["cold", "latency", "peers"])]
    cold_with_hot: bool,

    /// The size of what is in the page cache with --cold-with-hot: whole MiB.
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = whole_mebibytes)]
    hot_size: u64,

    /// With --cold-with-hot, ask for what is in the page cache in open loop, at this much payload
    /// per second over all peers, whatever the server does. Otherwise in closed loop, where both
    /// loads take all of the server's cores and share them.
    #[arg(long, value_name = "BYTES/S", value_parser = rate_bytes, requires = "cold_with_hot")]
    hot_rate: Option<u64>,

    /// The content's size: whole MiB.
    #[arg(long, value_name = "SIZE", default_value = "4G", value_parser = whole_mebibytes)]
    size: u64,

    /// Where the content is kept: a folder that is there, or is to be made in one that is.
    #[arg(long, value_name = "DIR", default_value = "/var/tmp/seedring-bench")]
    directory: PathBuf,

    /// Cores of the servers.
    #[arg(
        long,
        value_name = "CORE[,CORE]",
        value_delimiter = ',',
        default_value = "0"
    )]
    server_cores: Vec<usize>,

    /// Cores of the load, one thread on each; others than the servers'.
    #[arg(
        long,
        value_name = "CORE[,CORE]",
        value_delimiter = ',',
        default_value = "1"
    )]
    load_cores: Vec<usize>,

    /// Set for all sockets of the machine during the session, then restored; needs root. "system"
    /// keeps it as it is.
    #[arg(long, value_name = "NAME", default_value = "cubic")]
    congestion_control: String,

    /// Write report.json, report.md and pictures into this directory.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Runs the session and prints the report.
pub fn run(arguments: &RivalsArguments) -> anyhow::Result<ExitCode> {
    if arguments.cold_with_hot {
        return beside::run(arguments);
    }
    check(arguments, &Room::here())?;
    let (servers, left_out) = chosen(arguments)?;
    let date = begin(arguments)?;
    let restored = set_congestion_control(arguments)?;
    let data = DataSet::prepare(&arguments.directory, arguments.size, tell)?;
    let settings = settings(arguments);
    let mut lock = if settings.cold { None } else { data.lock() };
    let session = Session {
        servers: &servers,
        data: &data,
        settings: &settings,
        tell: &tell,
    };
    let runs = session.run()?;
    drop(restored);
    let is_locked = lock.as_mut().is_some_and(Lock::holds);
    let mut head = head("rivals", date, settings, &servers);
    head.conditions = conditions::of_seeds(&head, &data, is_locked, &runs);
    let comparison = Comparison {
        rows: rows(&runs, &head.servers),
        ratios: ratios(&runs, &head.servers),
        head,
        left_out,
        runs,
    };
    publish(
        arguments,
        &Published {
            name: "report",
            json: serde_json::to_string_pretty(&comparison)?,
            markdown: comparison.to_markdown(),
            pictures: plot::pictures(&comparison),
            is_complete: comparison.is_complete(),
        },
    )
}

/// Lets signals undo what follows, and says when that began.
fn begin(arguments: &RivalsArguments) -> anyhow::Result<String> {
    let date = system::date();
    undo::on_signals().context("cannot catch signals")?;
    if let Some(directory) = &arguments.output {
        // Now, not after an hour.
        std::fs::create_dir_all(directory).map_err(|error| {
            Usage(format!(
                "--output {directory:?}: it cannot be made ({error}): give another folder"
            ))
        })?;
        usage::folder("--output", directory)?;
    }
    Ok(date)
}

/// Sets what the command line asks for, until the guard is dropped. Before anything is made: it may
/// not be allowed.
fn set_congestion_control(arguments: &RivalsArguments) -> anyhow::Result<Option<Guard>> {
    match arguments.congestion_control.as_str() {
        SYSTEM => Ok(None),
        name => system::set_congestion_control(name),
    }
}

/// What a report begins with; the conditions are still to come.
fn head(
    command: &'static str,
    date: String,
    settings: Settings,
    servers: &[Box<dyn Rival>],
) -> Head {
    let servers = servers.iter().map(Box::as_ref);
    Head {
        command,
        version: crate::VERSION,
        date,
        host: Host::here(),
        conditions: Vec::new(),
        settings,
        servers: servers.map(ServerPart::of).collect(),
    }
}

/// What is compared, and why others are left out.
type Chosen = (Vec<Box<dyn Rival>>, Vec<String>);

/// Whether all that was asked for can be, on a machine that has this `room`.
fn check(arguments: &RivalsArguments, room: &Room) -> Result<(), Usage> {
    usage::folder_to_make("--directory", &arguments.directory)?;
    check_cores(arguments)?;
    arguments.python.check()?;
    if arguments.cold {
        page_cache::check_drop("--cold")?;
    }
    if arguments.cold_with_hot {
        page_cache::check_drop("--cold-with-hot")?;
    }
    let rate = arguments.hot_rate.unwrap_or(0);
    room::check_rate(rate, BLOCK_BYTES)
        .map_err(|no_room| Usage(format!("--hot-rate {rate}: {no_room}")))?;
    let peers = arguments.peers.iter().copied().max().unwrap_or(0) as u64;
    let needed = Needed {
        connections: peers,
        threads: arguments.load_cores.len() as u64,
        // Each has one of its own.
        addresses: peers.max(1),
    };
    let no_room = |no_room| Usage(format!("--peers {peers}: {no_room}"));
    room.check(&needed).map_err(no_room)
}

/// The servers of the command line; an error is a wrong one.
fn chosen(arguments: &RivalsArguments) -> Result<Chosen, Usage> {
    let mut servers = ours(arguments)?;
    let mut left_out = Vec::new();
    let known = all(&arguments.python.path());
    let names: Vec<&str> = known.iter().map(|rival| rival.name()).collect();
    let wanted = &arguments.rivals;
    let is_none = wanted.iter().map(String::as_str).eq(["none"]);
    if let Some(unknown) = wanted.iter().find(|name| !names.contains(&name.as_str()))
        && !is_none
    {
        let names = names.join(", ");
        return Err(Usage(format!(
            "--rivals {unknown}: known are {names}; or none"
        )));
    }
    for rival in known {
        let is_wanted = wanted.is_empty() || wanted.iter().any(|name| name == rival.name());
        let is_cold_only = rival.protocol() == Protocol::Disk && !arguments.cold;
        if is_cold_only && !wanted.is_empty() && is_wanted {
            let name = rival.name();
            return Err(Usage(format!(
                "--rivals {name}: it measures the disk alone: add --cold, or leave it out"
            )));
        }
        if is_none || !is_wanted || is_cold_only {
            continue;
        }
        match rival.missing() {
            Some(missing) if wanted.is_empty() => left_out.push(missing),
            Some(missing) => return Err(Usage(format!("--rivals {}: {missing}", rival.name()))),
            None => servers.push(rival),
        }
    }
    check_names(&servers)?;
    Ok((servers, left_out))
}

/// Ours of the command line, or the one beside this program.
fn ours(arguments: &RivalsArguments) -> Result<Vec<Box<dyn Rival>>, Usage> {
    let mut ours = arguments.seedring.clone();
    if ours.is_empty() {
        ours.push(Seedring::new("seedring", &beside_this_program()));
    }
    let mut servers: Vec<Box<dyn Rival>> = Vec::new();
    for mut one in ours {
        one.resolve();
        if let Some(missing) = one.missing() {
            return Err(Usage(format!("--seedring: {missing}")));
        }
        servers.push(Box::new(one));
    }
    Ok(servers)
}

fn check_names(servers: &[Box<dyn Rival>]) -> Result<(), Usage> {
    for (at, one) in servers.iter().enumerate() {
        if servers[..at].iter().any(|other| other.name() == one.name()) {
            let name = one.name();
            return Err(Usage(format!(
                "--seedring: two servers are called {name:?}: name them by NAME=PATH"
            )));
        }
    }
    Ok(())
}

fn check_cores(arguments: &RivalsArguments) -> Result<(), Usage> {
    let (servers, load) = (&arguments.server_cores, &arguments.load_cores);
    if let Some(shared) = servers.iter().find(|core| load.contains(core)) {
        return Err(Usage(format!(
            "--server-cores, --load-cores: core {shared} is in both, and the load would be the \
             limit: give each its own"
        )));
    }
    usage::cores("--server-cores", servers)?;
    usage::cores("--load-cores", load)
}

fn settings(arguments: &RivalsArguments) -> Settings {
    let load = &arguments.load;
    let mut peers = arguments.peers.clone();
    peers.sort_unstable();
    peers.dedup();
    Settings {
        peers,
        rounds: arguments.rounds.count,
        window_ns: load.duration,
        warmup_ns: load.warmup,
        depth: load.depth,
        mode: load.mode,
        server_cores: arguments.server_cores.clone(),
        load_cores: arguments.load_cores.clone(),
        latency: arguments.latency,
        cold: arguments.cold,
    }
}

/// A report in all its forms.
struct Published {
    /// Of the files, without what they end with.
    name: &'static str,
    json: String,
    markdown: String,
    /// Names of files and what is in them.
    pictures: Vec<(&'static str, String)>,
    is_complete: bool,
}

/// Prints the report, writes it, and says how it went.
fn publish(arguments: &RivalsArguments, report: &Published) -> anyhow::Result<ExitCode> {
    if let Some(directory) = &arguments.output {
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        write(&format!("{}.json", report.name), &report.json)?;
        write(&format!("{}.md", report.name), &report.markdown)?;
        for (name, picture) in &report.pictures {
            write(name, picture)?;
        }
    }
    let format = &arguments.rounds.format;
    format.print(&report.json, &report.markdown)?;
    Ok(match report.is_complete {
        true => ExitCode::SUCCESS,
        false => {
            tell("a run failed or served wrong bytes: see the remarks");
            ExitCode::FAILURE
        }
    })
}

fn tell(line: &str) {
    console::tell(format_args!("seedring-bench: {line}"));
}

/// As many as there are addresses for, and as the rivals are told to allow.
fn peers(text: &str) -> Result<usize, String> {
    match count_from_1(text)? {
        count @ 1..=crate::rivals::PEERS_MAX => Ok(count),
        _ => Err(format!("must be at most {}", crate::rivals::PEERS_MAX)),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::load::Mode;
    use crate::{Command as Subcommand, CommandLine};

    fn parse(line: &str) -> Result<RivalsArguments, clap::Error> {
        let line = format!("seedring-bench rivals {line}");
        let parsed = CommandLine::try_parse_from(line.split_whitespace())?;
        match parsed.command {
            Subcommand::Rivals(arguments) => Ok(*arguments),
            _ => panic!("another command"),
        }
    }

    #[test]
    fn arguments_become_settings() {
        let arguments = parse("--peers 200,1,16,1 --rounds 2 --mode verify --cold").unwrap();
        let settings = settings(&arguments);
        assert_eq!(settings.peers, [1, 16, 200]);
        assert_eq!(
            (settings.rounds, settings.mode, settings.cold),
            (2, Mode::Verify, true)
        );
        assert_eq!(settings.window_ns, 4_000_000_000);
    }

    #[test]
    fn cold_beside_hot_is_for_ours_alone() {
        for wrong in ["--cold", "--latency", "--peers 3"] {
            assert!(
                parse(&format!("--cold-with-hot {wrong}")).is_err(),
                "{wrong}"
            );
        }
        assert!(parse("--hot-rate 1G").is_err());
        assert!(parse("--cold-with-hot --hot-rate 0").is_err());
        let arguments = parse("--cold-with-hot --hot-rate 1G").unwrap();
        assert_eq!(arguments.hot_rate, Some(1 << 30));
        let arguments = parse("--cold-with-hot --rivals rtorrent").unwrap();
        assert!(
            beside::chosen(&arguments)
                .err()
                .unwrap()
                .to_string()
                .contains("own server only")
        );
    }

    #[test]
    fn wrong_command_lines_are_refused() {
        for wrong in [
            "--peers 0",
            "--peers 10001",
            "--rounds 0",
            "--seedring x,y",
            "--size 1000",
            "--size 0",
            "--cold-with-hot --hot-size 1000",
        ] {
            let error = parse(wrong).err().unwrap();
            assert_eq!(error.exit_code(), 2, "{wrong}");
        }
        // A file that is there stands for a build.
        let own = std::env::current_exe().unwrap();
        let own = own.display();
        for (wrong, reason) in [
            (
                format!("--seedring {own} --rivals bittornado"),
                "known are rtorrent,",
            ),
            (
                format!("--seedring {own} --seedring {own} --rivals none"),
                "two servers",
            ),
            (format!("--seedring {own} --rivals fio"), "add --cold"),
            (
                "--seedring /nowhere/seedring --rivals none".to_owned(),
                "is missing",
            ),
        ] {
            let error = chosen(&parse(&wrong).unwrap()).err().unwrap().to_string();
            assert!(error.starts_with("--"), "{wrong}: {error}");
            assert!(error.contains(reason), "{wrong}: {error}");
        }
    }

    #[test]
    fn what_the_machine_has_not_is_told_before_anything_is_made() {
        let room = Room {
            descriptors: 100,
            ports: 100,
        };
        // Cores 0 and 1 are the default, and a test may run where they are not.
        let first = first_core();
        for (wrong, reason) in [
            ("--server-cores 1".to_owned(), "core 1 is in both"),
            (
                "--server-cores 9999".to_owned(),
                "--server-cores 9999: there is no core 9999",
            ),
            (
                format!("--server-cores {first} --load-cores 9999"),
                "--load-cores 9999: there is no core 9999",
            ),
        ] {
            let error = check(&parse(&wrong).unwrap(), &room).unwrap_err();
            assert!(error.to_string().contains(reason), "{wrong}: {error}");
        }
        let mut arguments = parse("").unwrap();
        (arguments.server_cores, arguments.load_cores) = (vec![first], Vec::new());
        arguments.directory = std::env::temp_dir();
        arguments.hot_rate = Some(70 << 30);
        let error = check(&arguments, &room).unwrap_err().to_string();
        assert!(error.starts_with("--hot-rate 75161927680: "), "{error}");
        arguments.hot_rate = None;
        arguments.peers = vec![1, 50, 36];
        let error = check(&arguments, &room).unwrap_err().to_string();
        assert!(
            error.starts_with("--peers 50: ") && error.contains("at most 36"),
            "{error}"
        );
        arguments.peers = vec![1, 36];
        check(&arguments, &room).unwrap();
        arguments.directory = PathBuf::from("/no/such/folder");
        let error = check(&arguments, &room).unwrap_err().to_string();
        assert!(
            error.starts_with("--directory \"/no/such/folder\": "),
            "{error}"
        );
    }

    fn first_core() -> usize {
        let allowed = rustix::thread::sched_getaffinity(None).unwrap();
        let mut cores = 0..rustix::thread::CpuSet::MAX_CPU;
        cores.find(|&core| allowed.is_set(core)).unwrap()
    }
}
