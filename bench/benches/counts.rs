//! The micro-benchmarks by instructions: `cargo bench -p seedring-bench --bench counts [--
//! FILTER]`.
//!
//! Counts drift by less than a thousandth where times drift by a fifth, so a small regression shows
//! on a busy machine. Each workload runs in a process of its own, a few times and some hundred
//! times more; the difference divided by the runs between them is the count, and start-up cancels
//! itself out. The processor's counters are read by `perf stat` where they are to be had, else
//! valgrind counts; with neither this says so and succeeds.
//!
//! Limits: user space only. Valgrind knows no AVX-512, so a kernel that is chosen by CPU may be
//! another one under it. With `--test`, or under `cargo test --bench counts`, each workload runs
//! once and nothing is counted.
#![forbid(unsafe_code)]

mod workloads;

use std::process::{Command, ExitCode};

use crate::workloads::{Amount, Workload};

/// The argument by which this program calls itself: `--run NAME TIMES`.
const RUN: &str = "--run";

/// Runs before what is counted: allocations that are made once, tables, lazily bound symbols.
const RUNS_FEW: u64 = 2;

/// Runs that are counted at first, and again if they were so short that start-up may differ by as
/// much.
const RUNS_COUNTED: [u64; 2] = [4, 1_000];

/// A run of fewer instructions is short.
const INSTRUCTIONS_SHORT: u64 = 100_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let workloads = workloads::all();
    if let [first, name, times] = arguments.as_slice()
        && first == RUN
    {
        return run(&workloads, name, times);
    }
    // `cargo bench` says --bench, `cargo test` says nothing.
    let count = arguments.iter().any(|argument| argument == "--bench")
        && !arguments.iter().any(|argument| argument == "--test");
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let chosen =
        |workload: &&Workload| filter.is_none_or(|filter| workload.name.contains(filter.as_str()));
    if !count {
        for workload in workloads.iter().filter(chosen) {
            workloads::check(workload, &mut (workload.prepare)());
            println!("{}: ok", workload.name);
        }
        return ExitCode::SUCCESS;
    }
    let Some(counter) = Counter::find() else {
        println!(
            "no instruction counts: perf reads no counter here (a virtual machine without them, or \
             kernel.perf_event_paranoid) and valgrind is not installed; `--bench micro` measures \
             time"
        );
        return ExitCode::SUCCESS;
    };
    println!("instructions in user space, counted by {}", counter.name());
    println!("{:<36} {:>14} {:>16}", "workload", "each run", "each");
    for workload in workloads.iter().filter(chosen) {
        match instructions_of_one_run(&counter, workload) {
            Ok(instructions) => println!("{}", line(workload, instructions)),
            Err(reason) => {
                eprintln!("{}: {reason}", workload.name);
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn run(workloads: &[Workload], name: &str, times: &str) -> ExitCode {
    let (Some(workload), Ok(times)) = (
        workloads.iter().find(|workload| workload.name == name),
        times.parse::<u64>(),
    ) else {
        eprintln!("no workload {name:?}, or {times:?} is no number");
        return ExitCode::from(2);
    };
    let mut run = (workload.prepare)();
    for _ in 0..times {
        workloads::check(workload, &mut run);
    }
    ExitCode::SUCCESS
}

fn line(workload: &Workload, instructions: u64) -> String {
    let (amount, unit) = match workload.amount {
        Amount::Bytes(amount) => (amount, "byte"),
        Amount::Elements(amount) => (amount, "element"),
    };
    let each = instructions as f64 / amount as f64;
    format!(
        "{:<36} {instructions:>14} {each:>8.2} a {unit}",
        workload.name
    )
}

fn instructions_of_one_run(counter: &Counter, workload: &Workload) -> Result<u64, String> {
    let few = counter.count(workload.name, RUNS_FEW)?;
    let mut instructions = 0;
    for runs in RUNS_COUNTED {
        let many = counter.count(workload.name, RUNS_FEW + runs)?;
        let difference = many.checked_sub(few);
        instructions = difference.ok_or("more runs took fewer instructions")? / runs;
        if instructions >= INSTRUCTIONS_SHORT {
            break;
        }
    }
    Ok(instructions)
}

/// Who counts.
enum Counter {
    /// The processor, read by `perf stat`.
    Perf,
    /// `valgrind --tool=callgrind`.
    Valgrind,
}

impl Counter {
    /// The best that works here.
    fn find() -> Option<Self> {
        if Self::Perf.count_of(&Command::new("true")).is_ok() {
            return Some(Self::Perf);
        }
        let valgrind = Command::new("valgrind").arg("--version").output();
        valgrind
            .is_ok_and(|output| output.status.success())
            .then_some(Self::Valgrind)
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Perf => "the processor (perf stat)",
            Self::Valgrind => "valgrind (this machine gives no counters to perf)",
        }
    }

    /// The instructions of a process that runs the workload `times` times.
    fn count(&self, name: &str, times: u64) -> Result<u64, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.arg(RUN).arg(name).arg(times.to_string());
        self.count_of(&command)
    }

    /// The instructions of the process that `counted` describes: its program and arguments alone.
    fn count_of(&self, counted: &Command) -> Result<u64, String> {
        let mut command = match self {
            Self::Perf => {
                let mut command = Command::new("perf");
                command.args([
                    "stat",
                    "--field-separator",
                    ",",
                    "--event",
                    "instructions:u",
                    "--",
                ]);
                command
            }
            Self::Valgrind => {
                let mut command = Command::new("valgrind");
                command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--"]);
                command
            }
        };
        command.arg(counted.get_program()).args(counted.get_args());
        let output = command
            .output()
            .map_err(|error| format!("{command:?}: {error}"))?;
        let text = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            return Err(format!("{command:?} ended with {}: {text}", output.status));
        }
        let found = match self {
            Self::Perf => text.lines().find_map(|line| {
                let (count, rest) = line.split_once(',')?;
                rest.contains("instructions").then(|| count.parse().ok())?
            }),
            Self::Valgrind => text.lines().find_map(|line| {
                let (_, count) = line.split_once("Collected : ")?;
                count.trim().parse().ok()
            }),
        };
        found.ok_or_else(|| format!("{command:?} told no count: {text}"))
    }
}
