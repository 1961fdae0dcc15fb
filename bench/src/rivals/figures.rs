//! The numbers of one run that are compared, taken from its report.

use serde::Serialize;

use crate::report::Report;

/// See the head of this file. Units are in the names; GB is 10^9 bytes, GiB 2^30.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Figures {
    /// Payload per second of the window.
    pub gigabytes_per_s: f64,
    /// User and system time of all the server's threads and processes by the payload served.
    pub cpu_s_per_gib: f64,
    /// Times from request (closed loop) or from when it was due (open loop) to block.
    pub latency_p50_us: f64,
    /// The same.
    pub latency_p90_us: f64,
    /// The same.
    pub latency_p99_us: f64,
    /// The same.
    pub latency_p99_9_us: f64,
    /// The same.
    pub latency_max_us: f64,
    /// The bytes of the peer that got least, by those of the median peer.
    pub fairness: f64,
    /// Peers that got nothing.
    pub peers_without_data: usize,
    /// Resident memory at the end of the window.
    pub resident_bytes: u64,
    /// Resident memory of its own.
    pub anonymous_bytes: u64,
    /// What the disk read for the server by the payload served.
    pub disk_bytes_per_byte_served: Option<f64>,
    /// Open loop: the share of the rate that was served.
    pub served_share_of_rate: Option<f64>,
    /// Whether the load may have been the limit: then this is no verdict.
    pub load_limited: bool,
    /// Cores that something else kept busy.
    pub elsewhere_cores: f64,
    /// Cores that the host gave to others.
    pub stolen_cores: f64,
    /// Times that a served peer was choked.
    pub chokes: u64,
    /// Requests that were rejected.
    pub rejects: u64,
    /// Connections that ended.
    pub disconnects: u64,
    /// Blocks that nobody had asked for.
    pub unrequested_blocks: u64,
    /// Pieces whose hash was wrong.
    pub pieces_wrong: u64,
}

impl Figures {
    /// Of a report of a run in which the server's process was measured.
    pub fn of(report: &Report) -> Option<Self> {
        let server = report.server.as_ref()?;
        let (latency, fair, events) = (&report.latency_us, &report.fairness, &report.events);
        let disturbance = report.disturbance();
        Some(Self {
            gigabytes_per_s: report.served.gigabytes_per_s,
            cpu_s_per_gib: server.cpu_s_per_gib,
            latency_p50_us: latency.p50,
            latency_p90_us: latency.p90,
            latency_p99_us: latency.p99,
            latency_p99_9_us: latency.p99_9,
            latency_max_us: latency.max,
            fairness: fair.bytes_min as f64 / fair.bytes_median.max(1) as f64,
            peers_without_data: fair.peers_without_data,
            resident_bytes: server.resident_bytes,
            anonymous_bytes: server.anonymous_bytes,
            disk_bytes_per_byte_served: server.disk_bytes_per_byte_served,
            served_share_of_rate: report
                .open_loop
                .as_ref()
                .map(|open| open.served_share_of_rate),
            load_limited: report.load_limited,
            elsewhere_cores: disturbance.elsewhere_cores,
            stolen_cores: disturbance.stolen_cores,
            chokes: events.chokes,
            rejects: events.rejects,
            disconnects: events.disconnects,
            unrequested_blocks: events.unrequested_blocks,
            pieces_wrong: report.pieces_wrong(),
        })
    }
}

/// Those of `all` that a median is of. A run in which the load was the limit is no verdict: it
/// counts only where there is no other.
pub fn counted<'a>(all: &[&'a Figures]) -> Vec<&'a Figures> {
    let verdicts = all.iter().copied().filter(|one| !one.load_limited);
    let verdicts: Vec<_> = verdicts.collect();
    match verdicts.is_empty() {
        true => all.to_vec(),
        false => verdicts,
    }
}
