//! The report of one load: an object for programs, a table for people, both from the same numbers.
//!
//! Names carry their units. GB/s is 10^9 bytes per second, GiB is 2^30 bytes. Keys of the JSON
//! object are part of the tool's interface: docs/BENCHMARKING.md explains them.

use std::fmt::Write as _;

use serde::Serialize;

use crate::load::leecher::{Role, Tally};
use crate::load::worker::PeerResult;
use crate::load::{Outcome, Plan};
use crate::measure::Host;
use crate::quiet::{self, Disturbance};
use crate::torrent::Torrent;

/// The verdict of a run in which the load may have been the limit.
pub const LOAD_LIMITED: &str = "load-limited: no verdict";

/// See the head of this file.
#[derive(Debug, Serialize)]
pub struct Report {
    pub command: &'static str,
    pub version: &'static str,
    /// "valid", or why the figures are none.
    pub verdict: &'static str,
    pub load_limited: bool,
    /// What else a reader of the verdict must know: whether the machine was busy elsewhere.
    pub remarks: Vec<String>,
    pub host: Host,
    pub torrent: TorrentPart,
    pub settings: SettingsPart,
    pub window_s: f64,
    pub served: Served,
    pub latency_us: LatencyPart,
    pub fairness: Fairness,
    pub server: Option<ServerPart>,
    pub load: LoadPart,
    /// CPU seconds of the window that neither the server nor the load used; a busy machine voids
    /// figures.
    pub elsewhere_cpu_s: Option<f64>,
    pub stolen_cpu_s: f64,
    pub events: Events,
    pub unchoked: Unchoked,
    pub verify: Option<VerifyPart>,
    pub open_loop: Option<OpenLoop>,
    pub beside: Beside,
    pub first_end: Option<String>,
}

/// What was asked for.
#[derive(Debug, Serialize)]
pub struct TorrentPart {
    pub info_hash: String,
    pub name: String,
    pub total_bytes: u64,
    pub pieces: u32,
    pub piece_bytes: u32,
}

/// How it was asked for.
#[derive(Debug, Serialize)]
pub struct SettingsPart {
    pub address: String,
    pub mode: &'static str,
    pub peers: usize,
    pub depth: usize,
    pub block_bytes: u32,
    pub threads: usize,
    pub cores: Vec<usize>,
    pub warmup_s: f64,
    pub rate_bytes_per_s: Option<u64>,
    pub load_congestion_control: Option<String>,
    pub random_seed: u64,
}

/// Payload that arrived in the window.
#[derive(Debug, Serialize)]
pub struct Served {
    pub bytes: u64,
    pub blocks: u64,
    pub gigabytes_per_s: f64,
}

/// Times of blocks, in µs.
#[derive(Debug, Serialize)]
pub struct LatencyPart {
    /// "request to block" (closed loop) or "due time to block" (open loop).
    pub measured: &'static str,
    pub blocks: u64,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub max: f64,
}

/// How the payload was spread over the measured peers.
#[derive(Debug, Serialize)]
pub struct Fairness {
    pub peers: usize,
    pub peers_without_data: usize,
    pub bytes_min: u64,
    pub bytes_median: u64,
    pub bytes_max: u64,
}

/// The seed's process and its descendants.
#[derive(Debug, Serialize)]
pub struct ServerPart {
    pub pid: u32,
    /// CPU seconds (user + system, all threads) of the server's process per GiB that it served.
    pub cpu_s_per_gib: f64,
    pub cpu_user_s: f64,
    pub cpu_system_s: f64,
    pub cores_used: f64,
    pub waiting_for_cpu_s: f64,
    pub threads: u64,
    pub resident_bytes: u64,
    pub anonymous_bytes: u64,
    /// What the disk read for the server in the window, readahead included.
    pub disk_read_bytes: Option<u64>,
    /// Those bytes by the payload served: 0 with everything in the page cache.
    pub disk_bytes_per_byte_served: Option<f64>,
}

/// What the load itself used.
#[derive(Debug, Serialize)]
pub struct LoadPart {
    pub cpu_user_s: f64,
    pub cpu_system_s: f64,
    pub cpu_s_per_gib: f64,
    pub busiest_thread_share: f64,
    pub busiest_thread_waiting_share: f64,
}

/// What happened on the wire beside blocks.
#[derive(Debug, Serialize)]
pub struct Events {
    pub chokes: u64,
    pub unchokes: u64,
    pub rejects: u64,
    pub unrequested_blocks: u64,
    pub disconnects: u64,
    pub reconnects: u64,
}

/// When the measured peers were unchoked.
#[derive(Debug, Serialize)]
pub struct Unchoked {
    pub peers: usize,
    pub first_ms: f64,
    pub median_ms: f64,
    pub last_ms: f64,
}

/// What the hashes said (`--mode verify`).
#[derive(Debug, Serialize)]
pub struct VerifyPart {
    pub pieces_right: u64,
    pub pieces_wrong: u64,
    /// Bytes of the pieces whose hash was wrong.
    pub wrong_bytes: u64,
}

/// How the schedule was kept (`--rate`).
#[derive(Debug, Serialize)]
pub struct OpenLoop {
    pub rate_bytes_per_s: u64,
    pub served_share_of_rate: f64,
    /// Requests under way at the end.
    pub outstanding: usize,
    /// Requests that were due at the end and could not be made: pipelines full, choked,
    /// disconnected.
    pub due_not_made: usize,
    pub oldest_unanswered_ms: f64,
    /// How late the load itself was: part of the latencies, and no fault of the server.
    pub load_lateness_p99_us: f64,
    pub load_lateness_max_us: f64,
}

/// The peers that are not measured.
#[derive(Debug, Serialize)]
pub struct Beside {
    pub slow_readers: usize,
    pub slow_reader_bytes: u64,
    pub idle: usize,
    pub disconnects: u64,
}

impl Report {
    /// Puts the numbers of `outcome` together.
    pub fn new(plan: &Plan, torrent: &Torrent, mode: &'static str, outcome: &Outcome) -> Self {
        let mut tally = Tally::default();
        outcome.load_peers().for_each(|peer| tally.add(&peer.tally));
        let gibibytes = tally.payload_bytes as f64 / (1u64 << 30) as f64;
        let load_limited = outcome.load_limited();
        let mut report = Self {
            command: "seed",
            version: crate::VERSION,
            verdict: if load_limited { LOAD_LIMITED } else { "valid" },
            load_limited,
            remarks: Vec::new(),
            host: Host::here(),
            torrent: torrent_part(torrent),
            settings: settings_part(plan, mode),
            window_s: rounded(outcome.window_s, 6),
            served: Served {
                bytes: tally.payload_bytes,
                blocks: tally.blocks,
                gigabytes_per_s: rounded(tally.payload_bytes as f64 / 1e9 / outcome.window_s, 4),
            },
            latency_us: latency_part(plan, outcome),
            fairness: fairness(outcome),
            server: server_part(plan, outcome, gibibytes),
            load: load_part(outcome, gibibytes),
            elsewhere_cpu_s: outcome.elsewhere_cpu_s.map(|s| rounded(s, 2)),
            stolen_cpu_s: rounded(outcome.stolen_cpu_s, 2),
            events: events(outcome, &tally),
            unchoked: unchoked(outcome),
            verify: plan.settings.expected.as_ref().map(|_| VerifyPart {
                pieces_right: tally.pieces_right,
                pieces_wrong: tally.pieces_wrong,
                wrong_bytes: tally.wrong_bytes,
            }),
            open_loop: plan.rate_bytes.map(|rate| open_loop(rate, outcome, &tally)),
            beside: beside(plan, outcome),
            first_end: outcome.first_end.clone(),
        };
        report.remarks = quiet::remarks(std::iter::once(report.disturbance()));
        report
    }

    /// What disturbed the run; without the server's process its CPU time cannot be told from that
    /// of others, and counts as nothing.
    pub fn disturbance(&self) -> Disturbance {
        Disturbance {
            elsewhere_cores: self.elsewhere_cpu_s.unwrap_or(0.0) / self.window_s,
            stolen_cores: self.stolen_cpu_s / self.window_s,
        }
    }

    /// Pieces that failed their hash; the run is a failure unless it is 0.
    pub fn pieces_wrong(&self) -> u64 {
        self.verify.as_ref().map_or(0, |verify| verify.pieces_wrong)
    }

    /// The report for people.
    pub fn to_text(&self) -> String {
        let mut table = Table::default();
        self.rows_of_the_run(&mut table);
        self.rows_of_the_figures(&mut table);
        self.rows_of_the_processes(&mut table);
        self.rows_of_what_happened(&mut table);
        table.text
    }

    fn rows_of_the_run(&self, table: &mut Table) {
        let (torrent, settings, host) = (&self.torrent, &self.settings, &self.host);
        let remarks = self.remarks.iter().map(String::as_str);
        let verdict: Vec<&str> = std::iter::once(self.verdict).chain(remarks).collect();
        table.row("verdict", verdict.join("; "));
        table.row(
            "seed",
            format!("{} · {}", settings.address, torrent.name.escape_debug()),
        );
        let loop_kind = match settings.rate_bytes_per_s {
            Some(rate) => format!("open loop, {} B/s", grouped(rate)),
            None => format!("closed loop, depth {}", settings.depth),
        };
        let (peers, block, mode) = (settings.peers, settings.block_bytes >> 10, settings.mode);
        table.row(
            "load",
            format!("{peers} peers · {loop_kind} · {block} KiB blocks · {mode}"),
        );
        let (window, warmup) = (self.window_s, settings.warmup_s);
        table.row(
            "window",
            format!("{window:.2} s after {warmup:.1} s warm-up"),
        );
        let control = &host.tcp_congestion_control_default;
        table.row(
            "host",
            format!(
                "Linux {} · {} · TCP {control} by default",
                host.kernel, host.cpu
            ),
        );
    }

    fn rows_of_the_figures(&self, table: &mut Table) {
        let (served, latency, fair) = (&self.served, &self.latency_us, &self.fairness);
        table.row("throughput", format!("{:.3} GB/s", served.gigabytes_per_s));
        table.row(
            "served",
            format!("{} B in {} blocks", grouped(served.bytes), served.blocks),
        );
        let [p50, p90, p99, p999, max] = [
            latency.p50,
            latency.p90,
            latency.p99,
            latency.p99_9,
            latency.max,
        ]
        .map(time);
        let quantiles = format!("p50 {p50} · p90 {p90} · p99 {p99} · p99.9 {p999} · max {max}");
        table.row("latency", format!("{quantiles} ({})", latency.measured));
        let [min, median, max] = [fair.bytes_min, fair.bytes_median, fair.bytes_max].map(size);
        let without = match fair.peers_without_data {
            0 => String::new(),
            count => format!(" · {count} of {} peers got nothing", fair.peers),
        };
        table.row(
            "per peer",
            format!("min {min} · median {median} · max {max}{without}"),
        );
    }

    fn rows_of_the_processes(&self, table: &mut Table) {
        if let Some(server) = &self.server {
            let (user, system, cores) = (server.cpu_user_s, server.cpu_system_s, server.cores_used);
            table.row(
                "server CPU",
                format!(
                    "{:.3} s per GiB served · {user:.2} s user + {system:.2} s system · \
                     {cores:.2} cores",
                    server.cpu_s_per_gib
                ),
            );
            let (resident, anonymous) = (size(server.resident_bytes), size(server.anonymous_bytes));
            table.row(
                "server memory",
                format!("{resident} resident · {anonymous} anonymous"),
            );
            if let (Some(bytes), Some(share)) =
                (server.disk_read_bytes, server.disk_bytes_per_byte_served)
            {
                let read = size(bytes);
                table.row(
                    "disk",
                    format!("{read} read · {share:.2} B per byte served"),
                );
            }
        }
        let load = &self.load;
        let busy = load.busiest_thread_share * 100.0;
        let waiting = load.busiest_thread_waiting_share * 100.0;
        table.row(
            "load CPU",
            format!(
                "busiest thread {busy:.0} % busy, {waiting:.0} % waiting for its core · \
                 {:.3} s per GiB",
                load.cpu_s_per_gib
            ),
        );
        if let Some(elsewhere) = self.elsewhere_cpu_s {
            let stolen = self.stolen_cpu_s;
            table.row(
                "other CPU",
                format!("{elsewhere:.2} s elsewhere · {stolen:.2} s stolen"),
            );
        }
    }

    fn rows_of_what_happened(&self, table: &mut Table) {
        let (events, unchoked) = (&self.events, &self.unchoked);
        table.row(
            "unchoked",
            format!(
                "{} of {} peers · first {:.0} ms · median {:.0} ms · last {:.0} ms",
                unchoked.peers,
                self.settings.peers,
                unchoked.first_ms,
                unchoked.median_ms,
                unchoked.last_ms
            ),
        );
        table.row(
            "events",
            format!(
                "{} chokes · {} rejects · {} unrequested · {} disconnects · {} reconnects",
                events.chokes,
                events.rejects,
                events.unrequested_blocks,
                events.disconnects,
                events.reconnects
            ),
        );
        if let Some(verify) = &self.verify {
            let (right, wrong) = (verify.pieces_right, verify.pieces_wrong);
            let bytes = grouped(verify.wrong_bytes);
            table.row(
                "verified",
                format!("{right} pieces right · {wrong} WRONG ({bytes} B)"),
            );
        }
        if let Some(open) = &self.open_loop {
            table.row(
                "open loop",
                format!(
                    "{:.1} % of the rate · {} due and not made · oldest unanswered {:.1} ms · \
                     load late p99 {}",
                    open.served_share_of_rate * 100.0,
                    open.due_not_made,
                    open.oldest_unanswered_ms,
                    time(open.load_lateness_p99_us)
                ),
            );
        }
        let beside = &self.beside;
        if beside.slow_readers + beside.idle > 0 {
            let (slow, idle, ended) = (beside.slow_readers, beside.idle, beside.disconnects);
            table.row(
                "beside",
                format!("{slow} slow readers · {idle} idle · {ended} disconnects"),
            );
        }
        if let Some(end) = &self.first_end {
            table.row("first end", end);
        }
    }
}

fn torrent_part(torrent: &Torrent) -> TorrentPart {
    TorrentPart {
        info_hash: torrent.info_hash.to_string(),
        name: torrent.name.clone(),
        total_bytes: torrent.total_bytes,
        pieces: torrent.geometry.piece_count,
        piece_bytes: torrent.geometry.piece_length,
    }
}

fn settings_part(plan: &Plan, mode: &'static str) -> SettingsPart {
    SettingsPart {
        address: plan.socket.address.to_string(),
        mode,
        peers: plan.peers,
        depth: plan.settings.depth,
        block_bytes: plan.settings.block_bytes,
        threads: plan.threads,
        cores: plan.cores.clone(),
        warmup_s: plan.warmup_ns as f64 / 1e9,
        rate_bytes_per_s: plan.rate_bytes,
        load_congestion_control: plan.socket.congestion_control.clone(),
        random_seed: plan.random_seed,
    }
}

fn latency_part(plan: &Plan, outcome: &Outcome) -> LatencyPart {
    let latency = &outcome.latency;
    let open = plan.rate_bytes.is_some();
    LatencyPart {
        measured: if open {
            "due time to block"
        } else {
            "request to block"
        },
        blocks: latency.count(),
        mean: rounded(latency.mean_us(), 1),
        p50: rounded(latency.quantile_us(0.5), 1),
        p90: rounded(latency.quantile_us(0.9), 1),
        p99: rounded(latency.quantile_us(0.99), 1),
        p99_9: rounded(latency.quantile_us(0.999), 1),
        max: rounded(latency.max_us(), 1),
    }
}

fn fairness(outcome: &Outcome) -> Fairness {
    let mut bytes: Vec<u64> = outcome
        .load_peers()
        .map(|peer| peer.tally.payload_bytes)
        .collect();
    bytes.sort_unstable();
    let at = |place: usize| bytes.get(place).copied().unwrap_or(0);
    Fairness {
        peers: bytes.len(),
        peers_without_data: bytes.iter().filter(|&&count| count == 0).count(),
        bytes_min: at(0),
        bytes_median: at(bytes.len() / 2),
        bytes_max: at(bytes.len().saturating_sub(1)),
    }
}

fn server_part(plan: &Plan, outcome: &Outcome, gibibytes: f64) -> Option<ServerPart> {
    let (pid, server) = (plan.server_pid?, outcome.server?);
    let cpu_s = server.cpu.user_s + server.cpu.system_s;
    Some(ServerPart {
        pid,
        cpu_s_per_gib: rounded(cpu_s / gibibytes, 4),
        cpu_user_s: rounded(server.cpu.user_s, 2),
        cpu_system_s: rounded(server.cpu.system_s, 2),
        cores_used: rounded(cpu_s / outcome.window_s, 3),
        waiting_for_cpu_s: rounded(server.cpu.waiting_s, 3),
        threads: server.cpu.threads,
        resident_bytes: server.memory.resident_bytes,
        anonymous_bytes: server.memory.anonymous_bytes,
        disk_read_bytes: server.cpu.disk_read_bytes,
        disk_bytes_per_byte_served: server
            .cpu
            .disk_read_bytes
            .map(|bytes| rounded(bytes as f64 / (gibibytes * (1u64 << 30) as f64), 3)),
    })
}

fn load_part(outcome: &Outcome, gibibytes: f64) -> LoadPart {
    let cpu = &outcome.load_cpu;
    LoadPart {
        cpu_user_s: rounded(cpu.user_s, 2),
        cpu_system_s: rounded(cpu.system_s, 2),
        cpu_s_per_gib: rounded((cpu.user_s + cpu.system_s) / gibibytes, 4),
        busiest_thread_share: rounded(outcome.load_busy_share, 3),
        busiest_thread_waiting_share: rounded(outcome.load_waiting_share, 3),
    }
}

fn events(outcome: &Outcome, tally: &Tally) -> Events {
    Events {
        chokes: tally.chokes,
        unchokes: tally.unchokes,
        rejects: tally.rejects,
        unrequested_blocks: tally.unrequested_blocks,
        disconnects: outcome.load_peers().map(|peer| peer.disconnects).sum(),
        reconnects: outcome.load_peers().map(|peer| peer.reconnects).sum(),
    }
}

fn unchoked(outcome: &Outcome) -> Unchoked {
    let mut times: Vec<u64> = outcome
        .load_peers()
        .filter_map(|peer| peer.unchoked_ns)
        .collect();
    times.sort_unstable();
    let at = |place: usize| rounded(times.get(place).map_or(0.0, |&ns| ns as f64 / 1e6), 1);
    Unchoked {
        peers: times.len(),
        first_ms: at(0),
        median_ms: at(times.len() / 2),
        last_ms: at(times.len().saturating_sub(1)),
    }
}

fn open_loop(rate: u64, outcome: &Outcome, tally: &Tally) -> OpenLoop {
    let sum = |field: fn(&PeerResult) -> usize| outcome.load_peers().map(field).sum();
    let oldest = outcome
        .load_peers()
        .map(|peer| peer.oldest_ns)
        .max()
        .unwrap_or(0);
    let asked_for = rate as f64 * outcome.window_s;
    OpenLoop {
        rate_bytes_per_s: rate,
        served_share_of_rate: rounded(tally.payload_bytes as f64 / asked_for, 4),
        outstanding: sum(|peer| peer.outstanding),
        due_not_made: sum(|peer| peer.due),
        oldest_unanswered_ms: rounded(oldest as f64 / 1e6, 2),
        load_lateness_p99_us: rounded(outcome.lateness.quantile_us(0.99), 1),
        load_lateness_max_us: rounded(outcome.lateness.max_us(), 1),
    }
}

fn beside(plan: &Plan, outcome: &Outcome) -> Beside {
    let others = || outcome.peers.iter().filter(|peer| peer.role != Role::Load);
    let slow = others().filter(|peer| peer.role == Role::SlowReader);
    Beside {
        slow_readers: plan.slow_readers,
        slow_reader_bytes: slow.map(|peer| peer.tally.payload_bytes).sum(),
        idle: plan.idle,
        disconnects: others().map(|peer| peer.disconnects).sum(),
    }
}

/// Two columns, the first as wide as the longest name that is used.
#[derive(Default)]
struct Table {
    text: String,
}

impl Table {
    fn row(&mut self, name: &str, value: impl AsRef<str>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{name:<14} {}", value.as_ref());
    }
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

/// A time in µs, in the unit that fits it.
fn time(us: f64) -> String {
    match us {
        us if us < 1e3 => format!("{us:.0} µs"),
        us if us < 1e6 => format!("{:.2} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

/// A count of bytes, in the unit that fits it.
fn size(bytes: u64) -> String {
    match bytes {
        0..0x2800 => format!("{bytes} B"),
        0x2800..0xa0_0000 => format!("{} KiB", bytes >> 10),
        0xa0_0000..0x2_8000_0000 => format!("{} MiB", bytes >> 20),
        _ => format!("{} GiB", bytes >> 30),
    }
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use proto::ids::InfoHashV1;

    use super::*;
    use crate::load::blocks::Geometry;
    use crate::load::latency::Latency;
    use crate::load::leecher::Settings;
    use crate::load::stream::SocketSettings;
    use crate::measure::ProcessSample;

    /// The report of a window of 2 s, in which others had so much CPU time.
    fn report(load_busy_share: f64, elsewhere_cpu_s: Option<f64>, stolen_cpu_s: f64) -> Report {
        let geometry = Geometry {
            piece_count: 1,
            piece_length: 16 << 10,
            last_piece_length: 16 << 10,
        };
        let torrent = Torrent {
            info_hash: InfoHashV1([1; 20]),
            name: "content".to_owned(),
            geometry,
            total_bytes: 16 << 10,
            hashes: vec![[0; 20]],
        };
        let plan = Plan {
            settings: Settings {
                info_hash: torrent.info_hash,
                geometry,
                expected: None,
                block_bytes: 16 << 10,
                depth: 1,
                fast: true,
                extended: true,
                open_loop: false,
                deck: None,
            },
            socket: SocketSettings {
                address: ([127, 0, 0, 1], 1).into(),
                discard: true,
                congestion_control: None,
            },
            peers: 1,
            slow_readers: 0,
            idle: 0,
            threads: 1,
            cores: Vec::new(),
            local_addresses: Vec::new(),
            rate_bytes: None,
            ready_ns_max: 1,
            warmup_ns: 0,
            window_ns: 2_000_000_000,
            server_pid: None,
            random_seed: 1,
        };
        let outcome = Outcome {
            peers: Vec::new(),
            latency: Latency::default(),
            lateness: Latency::default(),
            window_s: 2.0,
            server: None,
            load_cpu: ProcessSample::default(),
            load_busy_share,
            load_waiting_share: 0.0,
            elsewhere_cpu_s,
            stolen_cpu_s,
            first_end: None,
        };
        Report::new(&plan, &torrent, "discard", &outcome)
    }

    #[test]
    fn the_verdict_says_so_when_the_machine_was_busy_elsewhere() {
        let verdict = |report: &Report| {
            let text = report.to_text();
            let line = text.lines().find(|line| line.starts_with("verdict"));
            line.unwrap().split_once(' ').unwrap().1.trim().to_owned()
        };
        let quiet = report(0.5, Some(0.2), 0.04);
        assert_eq!(
            (verdict(&quiet).as_str(), quiet.remarks.len()),
            ("valid", 0)
        );
        assert_eq!(verdict(&report(0.5, None, 0.0)), "valid");
        let busy = report(0.5, Some(1.0), 0.5);
        assert_eq!(
            verdict(&busy),
            "valid; up to 0.5 cores busy elsewhere: not a quiet machine; \
             up to 0.25 cores stolen by the host"
        );
        let json = serde_json::to_value(&busy).unwrap();
        assert_eq!(json["verdict"], "valid");
        assert_eq!(json["remarks"][1], "up to 0.25 cores stolen by the host");
        assert!(verdict(&report(1.0, None, 0.5)).starts_with("load-limited: no verdict; up to"));
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(123_456), "123,456");
        assert_eq!(size(16 << 10), "16 KiB");
        assert_eq!(size(4 << 30), "4096 MiB");
        assert_eq!(time(950.0), "950 µs");
        assert_eq!(time(1_250.0), "1.25 ms");
        assert!((rounded(1.23456, 2) - 1.23).abs() < 1e-12);
    }
}
