//! What /proc says of the server, of the load itself and of the machine.
//!
//! CPU time of a process is user + system of all its threads, living and dead (`/proc/PID/stat`).
//! On loopback the kernel charges receive processing to the sender, so a server's figure holds part
//! of the peer's TCP work: compare figures of one machine and one run only. Linux only.

use std::fs;
use std::io;

use serde::Serialize;

/// Why a measurement is missing.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// The process is not there, or not any more.
    #[error(
        "process {pid} is not running, or ended during the run ({path}): give the seed's own \
         process id with --pid, and see its log"
    )]
    NoProcess {
        /// Its id.
        pid: u32,
        /// The file that was read.
        path: String,
    },
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// The system's reason.
        source: io::Error,
    },
    /// A file says something else than this kernel version should.
    #[error("{path} has no field {field}: this kernel is not supported")]
    Field {
        /// The file.
        path: String,
        /// What was looked for.
        field: &'static str,
    },
}

/// CPU time of one thread, in ns.
#[derive(Debug, Clone, Copy, Default)]
pub struct ThreadSample {
    /// Time on a core.
    pub cpu_ns: u64,
    /// Time ready to run, while something else had the core; 0 where the kernel does not say.
    pub waiting_ns: u64,
}

impl ThreadSample {
    /// The calling thread, until now.
    pub fn of_this_thread() -> Result<Self, MeasureError> {
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let cpu_ns = cpu.tv_sec as u64 * 1_000_000_000 + cpu.tv_nsec as u64;
        let waiting_ns =
            fs::read_to_string("/proc/thread-self/schedstat").map_or(0, |text| run_delay_ns(&text));
        Ok(Self { cpu_ns, waiting_ns })
    }

    /// What was added since `before`.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(before.cpu_ns),
            waiting_ns: self.waiting_ns.saturating_sub(before.waiting_ns),
        }
    }
}

/// CPU time and disk reads of one process, all threads, or of a tree of processes.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessSample {
    /// In user space.
    pub user_s: f64,
    /// In the kernel.
    pub system_s: f64,
    /// Ready to run while something else had the core, of the threads that live now.
    pub waiting_s: f64,
    /// Threads that live now.
    pub threads: u64,
    /// Bytes that the disk read for it; none where the kernel does not tell (another user's).
    pub disk_read_bytes: Option<u64>,
}

impl ProcessSample {
    /// The process `pid` and its descendants that live now, until now.
    pub fn of_tree(pid: u32) -> Result<Self, MeasureError> {
        let mut sum = Self::of(pid)?;
        // A descendant that ends between the two looks is none any more.
        for one in descendants(pid).into_iter().flat_map(Self::of) {
            sum.user_s += one.user_s;
            sum.system_s += one.system_s;
            sum.waiting_s += one.waiting_s;
            sum.threads += one.threads;
            let both = sum.disk_read_bytes.zip(one.disk_read_bytes);
            sum.disk_read_bytes = both.map(|(a, b)| a + b);
        }
        Ok(sum)
    }

    /// The process `pid`, until now.
    pub fn of(pid: u32) -> Result<Self, MeasureError> {
        let path = format!("/proc/{pid}/stat");
        let text = read_of_process(pid, &path)?;
        if has_ended(&text) {
            return Err(MeasureError::NoProcess { pid, path });
        }
        let mut sample = parse_stat(&text, ticks_per_second()).ok_or(MeasureError::Field {
            path,
            field: "utime",
        })?;
        if let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) {
            let schedstat =
                |task: fs::DirEntry| fs::read_to_string(task.path().join("schedstat")).ok();
            let delays = tasks
                .flatten()
                .filter_map(schedstat)
                .map(|text| run_delay_ns(&text));
            sample.waiting_s = delays.sum::<u64>() as f64 / 1e9;
        }
        let io = fs::read_to_string(format!("/proc/{pid}/io")).ok();
        sample.disk_read_bytes = io.and_then(|text| disk_read_bytes(&text));
        Ok(sample)
    }

    /// The process `pid`, which has ended and which its parent, we, has not waited for yet: its
    /// whole life.
    pub fn of_ended(pid: u32) -> Result<Self, MeasureError> {
        let path = format!("/proc/{pid}/stat");
        let text = read_of_process(pid, &path)?;
        parse_stat(&text, ticks_per_second()).ok_or(MeasureError::Field {
            path,
            field: "utime",
        })
    }
}

/// The most memory that the process `pid` ever had resident, in bytes; 0 if it has ended.
pub fn peak_resident_bytes(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    kilobytes(&text, "VmHWM:").unwrap_or(0)
}

/// Memory of one process, in bytes.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct MemorySample {
    /// Resident, with the pages of files that it maps.
    pub resident_bytes: u64,
    /// Resident and its own: heap, stacks, buffers.
    pub anonymous_bytes: u64,
}

impl MemorySample {
    /// The process `pid` and its descendants, now; a page that two of them share counts twice.
    pub fn of_tree(pid: u32) -> Result<Self, MeasureError> {
        let mut sum = Self::of(pid)?;
        for one in descendants(pid).into_iter().flat_map(Self::of) {
            sum.resident_bytes += one.resident_bytes;
            sum.anonymous_bytes += one.anonymous_bytes;
        }
        Ok(sum)
    }

    /// The process `pid`, now (`/proc/PID/smaps_rollup`).
    pub fn of(pid: u32) -> Result<Self, MeasureError> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = read_of_process(pid, &path)?;
        let field = |name| kilobytes(&text, name);
        match (field("Rss:"), field("Anonymous:")) {
            (Some(resident_bytes), Some(anonymous_bytes)) => Ok(Self {
                resident_bytes,
                anonymous_bytes,
            }),
            _ => Err(MeasureError::Field {
                path,
                field: "Rss or Anonymous",
            }),
        }
    }
}

/// CPU time of the whole machine, in seconds, all cores.
#[derive(Debug, Clone, Copy, Default)]
pub struct MachineSample {
    /// Busy with anything: user, nice, system, interrupts.
    pub busy_s: f64,
    /// Wanted, but given to other machines by the host.
    pub stolen_s: f64,
}

impl MachineSample {
    /// The machine, until now (`/proc/stat`).
    pub fn now() -> Result<Self, MeasureError> {
        let path = "/proc/stat".to_owned();
        let text = fs::read_to_string(&path).map_err(|source| MeasureError::Read {
            path: path.clone(),
            source,
        })?;
        parse_machine(&text, ticks_per_second()).ok_or(MeasureError::Field { path, field: "cpu" })
    }
}

/// The machine and settings of it that decide figures.
#[derive(Debug, Clone, Serialize)]
pub struct Host {
    /// Kernel release.
    pub kernel: String,
    /// The first core's model name.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// `net.ipv4.tcp_congestion_control`: what a server's sockets use unless it chooses.
    pub tcp_congestion_control_default: String,
}

impl Host {
    /// This machine; what cannot be read is "unknown".
    pub fn here() -> Self {
        let read = |path: &str| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let text = text.trim();
            if text.is_empty() {
                "unknown".to_owned()
            } else {
                text.to_owned()
            }
        };
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name"));
        let model = model
            .and_then(|rest| rest.split_once(':'))
            .map(|(_, name)| name.trim());
        Self {
            kernel: read("/proc/sys/kernel/osrelease"),
            cpu: model.unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            tcp_congestion_control_default: read("/proc/sys/net/ipv4/tcp_congestion_control"),
        }
    }
}

fn ticks_per_second() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

fn read_of_process(pid: u32, path: &str) -> Result<String, MeasureError> {
    fs::read_to_string(path).map_err(|source| {
        let path = path.to_owned();
        let gone = source.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error());
        if gone || source.kind() == io::ErrorKind::NotFound {
            MeasureError::NoProcess { pid, path }
        } else {
            MeasureError::Read { path, source }
        }
    })
}

/// The processes that descend from `pid` now, `pid` itself not among them.
fn descendants(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let numbers = entries.flatten().filter_map(|entry| {
        let name = entry.file_name();
        name.to_str()?.parse::<u32>().ok()
    });
    let with_parent = |pid: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some((pid, parent(&text)?))
    };
    let pairs: Vec<(u32, u32)> = numbers.filter_map(with_parent).collect();
    descendants_in(&pairs, pid)
}

/// The descendants of `root` among pairs of a process and its parent.
fn descendants_in(pairs: &[(u32, u32)], root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut at = 0;
    while let Some(&parent) = found.get(at) {
        let children = pairs
            .iter()
            .filter(|&&(child, its_parent)| its_parent == parent && child != root)
            .map(|&(child, _)| child);
        found.extend(children);
        at += 1;
    }
    found.remove(0);
    found
}

/// Field 4 of `/proc/PID/stat`.
fn parent(text: &str) -> Option<u32> {
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// `read_bytes` of `/proc/PID/io`: what the storage layer was made to fetch, readahead included.
fn disk_read_bytes(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("read_bytes:"))?;
    line.trim().parse().ok()
}

/// The second field of a `schedstat` file: time spent waiting on a run queue.
fn run_delay_ns(text: &str) -> u64 {
    text.split_whitespace()
        .nth(1)
        .and_then(|field| field.parse().ok())
        .unwrap_or(0)
}

/// Whether `/proc/PID/stat` shows a zombie: it has ended, and its parent has not looked yet.
fn has_ended(text: &str) -> bool {
    text.rsplit_once(')')
        .is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
}

/// Fields 14, 15 and 20 of `/proc/PID/stat`, counted after the name, which may hold spaces and
/// brackets.
fn parse_stat(text: &str, ticks_per_second: f64) -> Option<ProcessSample> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(ProcessSample {
        user_s: number(11)? as f64 / ticks_per_second,
        system_s: number(12)? as f64 / ticks_per_second,
        waiting_s: 0.0,
        threads: number(17)?,
        disk_read_bytes: None,
    })
}

fn parse_machine(text: &str, ticks_per_second: f64) -> Option<MachineSample> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line
        .split_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal
    let sum = |places: &[usize]| -> Option<u64> {
        places.iter().map(|&place| ticks.get(place).copied()).sum()
    };
    Some(MachineSample {
        busy_s: sum(&[0, 1, 2, 5, 6])? as f64 / ticks_per_second,
        stolen_s: sum(&[7])? as f64 / ticks_per_second,
    })
}

fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kilobytes| kilobytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_with_brackets_does_not_shift_the_fields() {
        let text = "42 (a) R 1 (b)) S 1 42 42 0 -1 4194304 1 2 3 4 250 150 7 8 20 0 3 0 99 1000 50";
        let sample = parse_stat(text, 100.0).unwrap();
        assert_eq!(
            (sample.user_s, sample.system_s, sample.threads),
            (2.5, 1.5, 3)
        );
        assert!(parse_stat("42 (a) S 1 2", 100.0).is_none());
        assert!(!has_ended(text) && has_ended(&text.replace(") S", ") Z")));
    }

    #[test]
    fn memory_and_machine_lines_are_read() {
        let rollup = "00400000-7ffd rollup\nRss:            1024 kB\nAnonymous:       512 kB\n";
        assert_eq!(kilobytes(rollup, "Rss:"), Some(1 << 20));
        assert_eq!(kilobytes(rollup, "Anonymous:"), Some(512 << 10));
        assert_eq!(kilobytes(rollup, "Swap:"), None);
        let stat = "cpu  100 10 200 9999 50 5 6 70 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        let sample = parse_machine(stat, 100.0).unwrap();
        assert!((sample.busy_s - 3.21).abs() < 1e-9);
        assert!((sample.stolen_s - 0.7).abs() < 1e-9);
        assert_eq!(run_delay_ns("123 456 7\n"), 456);
        let io = "rchar: 9\nread_bytes: 4096\nwrite_bytes: 1\n";
        assert_eq!(disk_read_bytes(io), Some(4096));
        assert_eq!(disk_read_bytes("rchar: 9\n"), None);
    }

    #[test]
    fn a_tree_is_a_process_with_its_descendants_and_nobody_else() {
        assert_eq!(parent("42 (a) R 1 (b)) S 7 42 42 0"), Some(7));
        let pairs = [(2, 1), (3, 2), (4, 3), (5, 1), (1, 0)];
        assert_eq!(descendants_in(&pairs, 2), [3, 4]);
        assert!(descendants_in(&pairs, 5).is_empty());
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let found = descendants(std::process::id());
        let threads = ProcessSample::of_tree(std::process::id()).unwrap().threads;
        let alone = ProcessSample::of(std::process::id()).unwrap().threads;
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.contains(&child.id()), "{found:?}");
        // Other tests of this process may start threads; they end none that they did not start.
        assert!(threads >= 2 && alone >= 1);
    }

    #[test]
    fn this_process_is_measurable_and_an_absent_one_is_named() {
        let pid = std::process::id();
        assert!(ProcessSample::of(pid).unwrap().threads >= 1);
        let memory = MemorySample::of(pid).unwrap();
        assert!(memory.resident_bytes >= memory.anonymous_bytes && memory.anonymous_bytes > 0);
        assert!(MachineSample::now().unwrap().busy_s > 0.0);
        // Process ids end at 2^22.
        let error = ProcessSample::of(1 << 30).unwrap_err();
        assert!(matches!(error, MeasureError::NoProcess { pid, .. } if pid == 1 << 30));
    }
}
