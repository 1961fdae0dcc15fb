//! What came of the rounds: medians with their spread, ratios within each round, conditions,
//! remarks; as Markdown for people and as one object for programs.
//!
//! A run in which the load was the limit is no verdict: it counts in no median beside runs that are
//! one, and in no ratio. Keys of the object are part of the tool's interface.

use serde::Serialize;

use super::figures::{Figures, counted};
use super::markdown::{put, show, write_cells, write_head};
use super::run::{Kind, Run, Settings};
use super::statistics::Spread;
use super::{Protocol, Rival, remarks};
use crate::measure::Host;

/// A server that served less of the open loop's rate has no latency to compare: what it did not
/// answer would have taken longest, and is not counted.
const SERVED_SHARE: f64 = 0.95;

/// What every report begins with.
#[derive(Debug, Serialize)]
pub struct Head {
    /// "rivals", with what makes it another measurement.
    pub command: &'static str,
    /// Of this program, with the commit that it was built from where it is known.
    pub version: &'static str,
    /// When the session began, in UTC.
    pub date: String,
    /// The machine.
    pub host: Host,
    /// What figures depend on, in sentences.
    pub conditions: Vec<String>,
    /// How it was run.
    pub settings: Settings,
    /// What was compared.
    pub servers: Vec<ServerPart>,
}

/// See the head of this file.
#[derive(Debug, Serialize)]
pub struct Comparison {
    #[serde(flatten)]
    pub head: Head,
    /// What is not installed, and why it is not in the comparison.
    pub left_out: Vec<String>,
    /// A row for each server, number of peers and kind of loop.
    pub rows: Vec<Row>,
    /// Ours by each other.
    pub ratios: Vec<Ratio>,
    /// Every single run.
    pub runs: Vec<Run>,
}

/// A server as it was compared.
#[derive(Debug, Clone, Serialize)]
pub struct ServerPart {
    /// Its name in the tables.
    pub name: String,
    /// How it calls itself; ours names its commit.
    pub version: String,
    /// How it was set.
    pub settings: String,
    /// Whether it is this project's.
    pub is_ours: bool,
    /// How it was loaded; anything but the peer protocol makes it a floor and no seed.
    pub protocol: Protocol,
}

impl ServerPart {
    /// What is known of a rival.
    pub fn of(rival: &dyn Rival) -> Self {
        Self {
            name: rival.name().to_owned(),
            version: rival.version(),
            settings: rival.settings(),
            is_ours: rival.is_ours(),
            protocol: rival.protocol(),
        }
    }

    /// Whether it is no seed but a floor.
    pub fn is_floor(&self) -> bool {
        self.protocol != Protocol::Peer
    }
}

/// The runs of one server with one number of peers, put together.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Its name.
    pub server: String,
    /// How many peers.
    pub peers: usize,
    /// How requests were made.
    #[serde(flatten)]
    pub kind: Kind,
    /// Runs with figures, and runs that failed.
    pub runs: usize,
    /// See [`Self::runs`].
    pub failed: usize,
    /// Runs in which the load was the limit.
    pub load_limited: usize,
    /// False if there is no run but such.
    pub is_verdict: bool,
    /// Payload, in 10^9 bytes per second.
    pub gigabytes_per_s: Option<Spread>,
    /// CPU seconds per 2^30 bytes served.
    pub cpu_s_per_gib: Option<Spread>,
    /// Latency, in µs.
    pub latency_p50_us: Option<Spread>,
    /// The same.
    pub latency_p90_us: Option<Spread>,
    /// The same.
    pub latency_p99_us: Option<Spread>,
    /// The same.
    pub latency_p99_9_us: Option<Spread>,
    /// The same.
    pub latency_max_us: Option<Spread>,
    /// Bytes of the slowest peer by those of the median peer.
    pub fairness: Option<Spread>,
    /// Memory at the end of the window.
    pub resident_bytes: Option<Spread>,
    /// The same, its own only.
    pub anonymous_bytes: Option<Spread>,
    /// Bytes that the disk read by bytes served.
    pub disk_bytes_per_byte_served: Option<Spread>,
    /// Open loop: the share of the rate that was served.
    pub served_share_of_rate: Option<Spread>,
    /// What a reader must know of it.
    pub remarks: Vec<String>,
}

/// One of ours by one other, within each round.
#[derive(Debug, Clone, Serialize)]
pub struct Ratio {
    /// The one of ours.
    pub ours: String,
    /// The other.
    pub rival: String,
    /// How many peers.
    pub peers: usize,
    /// How requests were made.
    #[serde(flatten)]
    pub kind: Kind,
    /// Rounds in which both were a verdict.
    pub rounds: usize,
    /// CPU per byte, ours by the other's: below 1 is less.
    pub cpu: Option<Spread>,
    /// Throughput: above 1 is more.
    pub throughput: Option<Spread>,
    /// The 99th percentile of latency in open loop, of rounds in which both kept the rate: below 1
    /// is less.
    pub latency_p99: Option<Spread>,
}

/// The rows of all runs, in the order of the servers for each number of peers and kind of loop.
pub fn rows(runs: &[Run], servers: &[ServerPart]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (peers, kind) in groups(runs) {
        for server in servers {
            let mine: Vec<&Run> = of_group(runs, peers, kind)
                .filter(|run| run.server == server.name)
                .collect();
            if !mine.is_empty() {
                rows.push(row(server, peers, kind, &mine));
            }
        }
    }
    rows
}

/// The ratios of each of ours to each other server.
pub fn ratios(runs: &[Run], servers: &[ServerPart]) -> Vec<Ratio> {
    let mut ratios = Vec::new();
    for (peers, kind) in groups(runs) {
        for (at, ours) in servers.iter().enumerate().filter(|(_, one)| one.is_ours) {
            for (other_at, rival) in servers.iter().enumerate() {
                // Two of ours are compared once.
                let is_later = rival.is_ours && other_at <= at;
                let has_no_loop = rival.is_floor() && kind != Kind::Closed;
                if !is_later && !has_no_loop {
                    ratios.push(ratio(runs, &ours.name, &rival.name, peers, kind));
                }
            }
        }
    }
    ratios
}

/// Numbers of peers with kinds of loop, each once, in the order of the runs.
fn groups(runs: &[Run]) -> Vec<(usize, Kind)> {
    let mut found: Vec<(usize, Kind)> = Vec::new();
    for run in runs {
        if !found.contains(&(run.peers, run.kind)) {
            found.push((run.peers, run.kind));
        }
    }
    found
}

fn of_group(runs: &[Run], peers: usize, kind: Kind) -> impl Iterator<Item = &Run> {
    runs.iter()
        .filter(move |run| run.peers == peers && run.kind == kind)
}

fn row(server: &ServerPart, peers: usize, kind: Kind, runs: &[&Run]) -> Row {
    let all: Vec<&Figures> = runs.iter().filter_map(|run| run.figures.as_ref()).collect();
    let load_limited = all.iter().filter(|one| one.load_limited).count();
    let used = counted(&all);
    let of = |field: fn(&Figures) -> f64| Spread::of(used.iter().map(|figures| field(figures)));
    let of_some = |field: fn(&Figures) -> Option<f64>| {
        Spread::of(used.iter().filter_map(|figures| field(figures)))
    };
    // A range of a web server is 64 blocks: its times are no block's.
    let latency = |field| if server.is_floor() { None } else { of(field) };
    // Nobody connects to a disk, and its process is not looked at.
    let is_disk = server.protocol == Protocol::Disk;
    let of_server = |field| if is_disk { None } else { of(field) };
    Row {
        server: server.name.clone(),
        peers,
        kind,
        runs: all.len(),
        failed: runs.len() - all.len(),
        load_limited,
        is_verdict: load_limited < all.len(),
        gigabytes_per_s: of(|one| one.gigabytes_per_s),
        cpu_s_per_gib: of(|one| one.cpu_s_per_gib),
        latency_p50_us: latency(|one| one.latency_p50_us),
        latency_p90_us: latency(|one| one.latency_p90_us),
        latency_p99_us: latency(|one| one.latency_p99_us),
        latency_p99_9_us: latency(|one| one.latency_p99_9_us),
        latency_max_us: latency(|one| one.latency_max_us),
        fairness: of_server(|one| one.fairness),
        resident_bytes: of_server(|one| one.resident_bytes as f64),
        anonymous_bytes: of_server(|one| one.anonymous_bytes as f64),
        disk_bytes_per_byte_served: of_some(|one| one.disk_bytes_per_byte_served),
        served_share_of_rate: of_some(|one| one.served_share_of_rate),
        remarks: remarks_of(runs, &all),
    }
}

fn remarks_of(runs: &[&Run], figures: &[&Figures]) -> Vec<String> {
    let mut found = Vec::new();
    let limited = figures.iter().filter(|one| one.load_limited).count();
    match limited {
        0 => {}
        all if all == figures.len() => found.push("† load-limited: no verdict".to_owned()),
        some => {
            let count = figures.len();
            found.push(format!("{some} of {count} load-limited and left out"));
        }
    }
    let sum = |field: fn(&Figures) -> u64| figures.iter().map(|one| field(one)).sum::<u64>();
    found.extend(remarks::wrong_pieces(figures.iter().copied()));
    for (count, what) in [
        (sum(|one| one.chokes), "chokes"),
        (sum(|one| one.rejects), "rejects"),
        (sum(|one| one.disconnects), "disconnects"),
        (sum(|one| one.unrequested_blocks), "unrequested blocks"),
    ] {
        if count > 0 {
            found.push(format!("{count} {what}"));
        }
    }
    let behind = figures.iter().filter(|one| !keeps_the_rate(one)).count();
    if behind > 0 {
        let count = figures.len();
        found.push(format!(
            "did not keep the rate in {behind} of {count}: latencies only of what was answered"
        ));
    }
    found.extend(remarks::starved_peers(figures.iter().copied()));
    found.extend(remarks::disturbances(figures.iter().copied()));
    // Only cold runs count rounds of the content, and only to them is a cached page a fault.
    let cold = || runs.iter().filter(|run| run.content_rounds.is_some());
    found.extend(remarks::not_cold(
        "the content",
        cold().filter_map(|run| run.cached_share),
        cold().filter_map(|run| run.content_rounds),
    ));
    let errors = runs.iter().filter_map(|run| run.error.as_ref());
    found.extend(remarks::failures(errors));
    found
}

fn ratio(runs: &[Run], ours: &str, rival: &str, peers: usize, kind: Kind) -> Ratio {
    let find = |server: &str, round: usize| {
        let mut mine = of_group(runs, peers, kind)
            .filter(|run| run.server == server && run.round == round)
            .filter_map(|run| run.figures.as_ref());
        mine.next().filter(|figures| !figures.load_limited)
    };
    let last = runs.iter().map(|run| run.round).max().unwrap_or(0);
    let pairs: Vec<(&Figures, &Figures)> = (1..=last)
        .filter_map(|round| find(ours, round).zip(find(rival, round)))
        .collect();
    let of = |field: fn(&Figures) -> f64| {
        Spread::of_ratios(pairs.iter().map(|(a, b)| (field(a), field(b))))
    };
    Ratio {
        ours: ours.to_owned(),
        rival: rival.to_owned(),
        peers,
        kind,
        rounds: pairs.len(),
        cpu: of(|one| one.cpu_s_per_gib),
        throughput: of(|one| one.gigabytes_per_s),
        latency_p99: match kind {
            Kind::Closed => None,
            Kind::Open { .. } => {
                let kept = pairs
                    .iter()
                    .filter(|(a, b)| keeps_the_rate(a) && keeps_the_rate(b));
                Spread::of_ratios(kept.map(|(a, b)| (a.latency_p99_us, b.latency_p99_us)))
            }
        },
    }
}

fn keeps_the_rate(figures: &Figures) -> bool {
    figures
        .served_share_of_rate
        .is_none_or(|share| share >= SERVED_SHARE)
}

impl Comparison {
    /// Whether every run came to figures and every byte was right.
    pub fn is_complete(&self) -> bool {
        let wrong = |figures: &Figures| figures.pieces_wrong > 0;
        let is_right = |run: &Run| run.figures.as_ref().is_some_and(|figures| !wrong(figures));
        !self.runs.is_empty() && self.runs.iter().all(is_right)
    }

    /// The whole report as Markdown.
    pub fn to_markdown(&self) -> String {
        let mut out = String::new();
        for condition in &self.head.conditions {
            put(&mut out, &format!("- {condition}"));
        }
        for left_out in &self.left_out {
            put(&mut out, &format!("- left out: {left_out}"));
        }
        for (peers, kind) in groups(&self.runs) {
            let rows: Vec<&Row> = self
                .rows
                .iter()
                .filter(|row| (row.peers, row.kind) == (peers, kind))
                .collect();
            let ratios: Vec<&Ratio> = self
                .ratios
                .iter()
                .filter(|ratio| (ratio.peers, ratio.kind) == (peers, kind))
                .collect();
            self.write_group(&mut out, peers, kind, &rows, &ratios);
        }
        out
    }

    fn write_group(
        &self,
        out: &mut String,
        peers: usize,
        kind: Kind,
        rows: &[&Row],
        ratios: &[&Ratio],
    ) {
        let peers = match peers {
            1 => "1 peer".to_owned(),
            count => format!("{count} peers"),
        };
        match kind {
            Kind::Closed => {
                put(out, &format!("\n**{peers}, closed loop**\n"));
                self.write_closed(out, rows);
            }
            Kind::Open { rate_bytes_per_s } => {
                let rate = rate_bytes_per_s as f64 / 1e9;
                put(
                    out,
                    &format!("\n**{peers}, open loop at {rate:.2} GB/s**\n"),
                );
                write_open(out, rows);
            }
        }
        if !ratios.is_empty() {
            write_ratios(out, kind, ratios);
        }
    }

    fn write_closed(&self, out: &mut String, rows: &[&Row]) {
        let mut head = vec![
            "server",
            "GB/s",
            "CPU-s/GiB",
            "p50 ms",
            "p90 ms",
            "p99 ms",
            "p99.9 ms",
            "max ms",
            "slowest/median peer",
            "resident MiB",
            "anonymous MiB",
        ];
        if self.head.settings.cold {
            head.push("disk B/B served");
        }
        head.push("remarks");
        write_head(out, &head);
        for row in rows {
            // A row whose runs all failed has no figures to mark.
            let mark = |cell: String| {
                if row.is_verdict || row.load_limited == 0 {
                    cell
                } else {
                    format!("{cell} †")
                }
            };
            let mut cells = vec![
                row.server.clone(),
                mark(show(row.gigabytes_per_s, 1.0, 2)),
                mark(show(row.cpu_s_per_gib, 1.0, 3)),
                show(row.latency_p50_us, 1e-3, 2),
                show(row.latency_p90_us, 1e-3, 2),
                show(row.latency_p99_us, 1e-3, 2),
                show(row.latency_p99_9_us, 1e-3, 2),
                show(row.latency_max_us, 1e-3, 1),
                show(row.fairness, 1.0, 2),
                show(row.resident_bytes, 1.0 / (1 << 20) as f64, 0),
                show(row.anonymous_bytes, 1.0 / (1 << 20) as f64, 0),
            ];
            if self.head.settings.cold {
                cells.push(show(row.disk_bytes_per_byte_served, 1.0, 2));
            }
            cells.push(row.remarks.join("; "));
            write_cells(out, &cells);
        }
    }
}

fn write_open(out: &mut String, rows: &[&Row]) {
    write_head(
        out,
        &[
            "server",
            "served %",
            "p50 ms",
            "p90 ms",
            "p99 ms",
            "p99.9 ms",
            "max ms",
            "CPU-s/GiB",
            "remarks",
        ],
    );
    for row in rows {
        write_cells(
            out,
            &[
                row.server.clone(),
                show(row.served_share_of_rate, 100.0, 1),
                show(row.latency_p50_us, 1e-3, 3),
                show(row.latency_p90_us, 1e-3, 3),
                show(row.latency_p99_us, 1e-3, 3),
                show(row.latency_p99_9_us, 1e-3, 3),
                show(row.latency_max_us, 1e-3, 1),
                show(row.cpu_s_per_gib, 1.0, 3),
                row.remarks.join("; "),
            ],
        );
    }
}

fn write_ratios(out: &mut String, kind: Kind, ratios: &[&Ratio]) {
    put(out, "");
    let third = match kind {
        Kind::Closed => "throughput",
        Kind::Open { .. } => "p99 latency",
    };
    write_head(out, &["ratio", "CPU per GiB", third, "rounds"]);
    for ratio in ratios {
        let value = match kind {
            Kind::Closed => ratio.throughput,
            Kind::Open { .. } => ratio.latency_p99,
        };
        let cells = match ratio.rounds {
            0 => ["no verdict".to_owned(), "no verdict".to_owned()],
            _ => [show(ratio.cpu, 1.0, 2), show(value, 1.0, 2)],
        };
        let [cpu, value] = cells;
        let name = format!("{} ÷ {}", ratio.ours, ratio.rival);
        write_cells(out, &[name, cpu, value, ratio.rounds.to_string()]);
    }
}

#[cfg(test)]
pub mod tests;
