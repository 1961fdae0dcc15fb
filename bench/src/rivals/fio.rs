//! fio: no server, but the floor of a cold run: what the disk gives for random reads of one size.
//!
//! It reads the same file past the page cache, on the servers' cores, with as many reads under way
//! as there are peers. Nothing is sent, so its CPU time is that of reading alone.

use anyhow::Context as _;
use serde_json::Value;

use super::figures::Figures;
use super::{Place, Protocol, Rival, missing_program, version_line};
use crate::harness::children::Program;

/// The length of a read: what seeds join adjacent blocks to.
const READ: &str = "256K";

/// More reads under way than this make no disk faster.
const DEPTH_MAX: usize = 128;

/// Debian's fio, or any in the path.
pub struct Fio;

impl Rival for Fio {
    fn name(&self) -> &str {
        "fio"
    }

    fn settings(&self) -> String {
        format!(
            "random reads of {READ} past the page cache, one under way for each peer, at most \
             {DEPTH_MAX}"
        )
    }

    fn missing(&self) -> Option<String> {
        missing_program("fio", "apt-get install fio")
    }

    fn version(&self) -> String {
        version_line(&Program::new("fio").arg("--version"))
    }

    fn program(&self, place: &Place<'_>) -> anyhow::Result<Program> {
        let seconds = |ns: u64| format!("{}ms", ns.div_ceil(1_000_000).max(1));
        Ok(Program::new("fio")
            .args([
                "--name=disk",
                "--readonly",
                "--rw=randread",
                "--direct=1",
                "--ioengine=libaio",
                "--thread",
                "--time_based",
                "--output-format=json",
            ])
            .arg(format!("--bs={READ}"))
            .arg(format!("--filename={}", place.data.file().display()))
            .arg(format!("--iodepth={}", place.peers.min(DEPTH_MAX)))
            .arg(format!("--ramp_time={}", seconds(place.warmup_ns)))
            .arg(format!("--runtime={}", seconds(place.window_ns))))
    }

    fn protocol(&self) -> Protocol {
        Protocol::Disk
    }
}

/// What fio's report says. Everything that a load would have seen is 0.
pub fn figures(output: &str) -> anyhow::Result<Figures> {
    // Warnings may precede the object.
    let start = output.find('{').unwrap_or(0);
    let report: Value = serde_json::from_str(&output[start..]).context("fio printed no report")?;
    let job = &report["jobs"][0];
    let field = |value: &Value| value.as_f64().context("fio's report lacks a figure");
    let bytes_per_s = field(&job["read"]["bw_bytes"])?;
    let seconds = field(&job["read"]["runtime"])? / 1e3;
    // Percent of the job's time.
    let cpu_share = (field(&job["usr_cpu"])? + field(&job["sys_cpu"])?) / 100.0;
    let gibibytes = bytes_per_s * seconds / (1u64 << 30) as f64;
    Ok(Figures {
        gigabytes_per_s: bytes_per_s / 1e9,
        cpu_s_per_gib: cpu_share * seconds / gibibytes,
        disk_bytes_per_byte_served: Some(1.0),
        ..Figures::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let output = "warning: x\n{\"jobs\": [{\"usr_cpu\": 1.0, \"sys_cpu\": 4.0, \"read\": \
                      {\"bw_bytes\": 1073741824, \"runtime\": 2000}}]}\n";
        let figures = figures(output).unwrap();
        assert!((figures.gigabytes_per_s - 1.073_741_824).abs() < 1e-9);
        assert!((figures.cpu_s_per_gib - 0.05).abs() < 1e-9);
        for wrong in ["", "fio: no such file", "{}", "{\"jobs\": [{}]}"] {
            assert!(super::figures(wrong).is_err(), "{wrong}");
        }
    }
}
