//! aria2 as a seed. It unchokes three or four peers whatever its options; the others get nothing.

use super::{Place, Rival, missing_program, version_line};
use crate::harness::children::Program;

/// Debian's aria2, or any in the path.
pub struct Aria2;

impl Rival for Aria2 {
    fn name(&self) -> &str {
        "aria2"
    }

    fn settings(&self) -> String {
        "no limit of peers (it has a fixed number of 3 or 4 slots)".to_owned()
    }

    fn missing(&self) -> Option<String> {
        missing_program("aria2c", "apt-get install aria2")
    }

    fn version(&self) -> String {
        version_line(&Program::new("aria2c").arg("--version"))
    }

    fn program(&self, place: &Place<'_>) -> anyhow::Result<Program> {
        Ok(Program::new("aria2c")
            .arg(format!("--dir={}", place.data.directory.display()))
            .arg(format!("--listen-port={}", place.port))
            .args([
                "--no-conf",
                "--seed-ratio=0.0",
                "--check-integrity=true",
                "--bt-hash-check-seed=true",
                "--bt-max-peers=0",
                "--bt-enable-lpd=false",
                "--enable-dht=false",
                "--enable-dht6=false",
                "--enable-peer-exchange=false",
                "--disable-ipv6=true",
                "--file-allocation=none",
                "--summary-interval=0",
                "--console-log-level=warn",
            ])
            .arg(&place.data.torrent_file))
    }
}
