//! What `/proc` says of this process. Whatever cannot be read is left out, never guessed.

use std::fs;

/// The kernel's clock ticks per second in `/proc`: USER_HZ, 100 on every architecture we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// Resources of the process at one moment.
#[derive(Debug, Default, Clone)]
pub(super) struct Process {
    pub(super) cpu_seconds: Option<f64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) virtual_bytes: Option<u64>,
    pub(super) open_fds: Option<u64>,
    pub(super) max_fds: Option<u64>,
    pub(super) threads: Option<u64>,
}

pub(super) fn read() -> Process {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':')
            .split_whitespace()
            .next()?
            .parse::<u64>()
            .ok()
    };
    Process {
        // User and system time, added as whole ticks.
        cpu_seconds: stat_ticks(14)
            .zip(stat_ticks(15))
            .map(|(user, system)| seconds(user + system)),
        resident_bytes: field("VmRSS").map(|kib| kib * 1024),
        virtual_bytes: field("VmSize").map(|kib| kib * 1024),
        open_fds: open_fds(),
        max_fds: max_fds(),
        threads: field("Threads"),
    }
}

/// When the process started, in seconds since 1970; asked once, because the clock may be set.
pub(super) fn start_time_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let boot = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    Some(boot.trim().parse::<f64>().ok()? + seconds(stat_ticks(22)?))
}

/// The CPU seconds of the threads named `shard-0`, `shard-1` and so on.
pub(super) fn shard_cpu_seconds(shards: usize) -> Vec<(usize, f64)> {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else {
        return Vec::new();
    };
    let mut found: Vec<(usize, f64)> = tasks
        .flatten()
        .filter_map(|task| {
            let name = fs::read_to_string(task.path().join("comm")).ok()?;
            let shard: usize = name.trim_end().strip_prefix("shard-")?.parse().ok()?;
            // Nanoseconds on a CPU, nanoseconds waiting for one, time slices.
            let schedule = fs::read_to_string(task.path().join("schedstat")).ok()?;
            let nanos: u64 = schedule.split_whitespace().next()?.parse().ok()?;
            (shard < shards).then_some((shard, nanos as f64 / 1e9))
        })
        .collect();
    found.sort_by_key(|(shard, _)| *shard);
    found.dedup_by_key(|(shard, _)| *shard);
    found
}

/// A field of `/proc/self/stat` in ticks; fields are numbered from 1 as in proc(5).
fn stat_ticks(number: usize) -> Option<u64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the name in brackets, which may hold blanks and brackets itself.
    let (_, after_name) = stat.rsplit_once(") ")?;
    after_name.split(' ').nth(number - 3)?.parse().ok()
}

fn seconds(ticks: u64) -> f64 {
    ticks as f64 / TICKS_PER_SECOND
}

fn open_fds() -> Option<u64> {
    // Since Linux 6.2 the folder's size is the count; before, it is 0 and has to be counted.
    match fs::metadata("/proc/self/fd").ok()?.len() {
        0 => Some(fs::read_dir("/proc/self/fd").ok()?.count() as u64),
        count => Some(count),
    }
}

fn max_fds() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_plausible() {
        let process = read();
        assert!(process.resident_bytes.unwrap() > 100_000);
        assert!(process.virtual_bytes >= process.resident_bytes);
        assert!(process.open_fds.unwrap() >= 3);
        assert!(process.max_fds.unwrap() >= process.open_fds.unwrap());
        assert!(process.threads.unwrap() >= 1);
        assert!(process.cpu_seconds.unwrap() >= 0.0);
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let start = start_time_seconds().unwrap();
        assert!(start > 1e9 && start <= now.as_secs_f64() + 2.0, "{start}");
    }

    #[test]
    fn a_shard_is_found_by_its_thread_name() {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let (ready, started) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("shard-3".to_owned())
            .spawn(move || {
                // Some work, so that the kernel has time to account for.
                let sum: u64 = (0..1_000_000_u64).map(std::hint::black_box).sum();
                ready.send(sum).unwrap();
                let _ = receiver.recv();
            });
        started.recv().unwrap();
        let found = shard_cpu_seconds(4);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, 3);
        assert!(found[0].1 > 0.0);
        assert!(shard_cpu_seconds(3).is_empty());
        drop(sender);
        thread.unwrap().join().unwrap();
    }
}
