//! rqbit, the client in Rust. No distribution has it: `cargo install rqbit`.

use super::{PEERS_MAX, Place, Rival, missing_program, version_line};
use crate::harness::children::Program;

/// The rqbit in the path; its options are those of version 9.
pub struct Rqbit;

impl Rival for Rqbit {
    fn name(&self) -> &str {
        "rqbit"
    }

    fn settings(&self) -> String {
        format!("{PEERS_MAX} peers, as many threads as cores")
    }

    fn missing(&self) -> Option<String> {
        missing_program("rqbit", "cargo install rqbit --locked")
    }

    fn version(&self) -> String {
        version_line(&Program::new("rqbit").arg("--version"))
    }

    fn program(&self, place: &Place<'_>) -> anyhow::Result<Program> {
        Ok(Program::new("rqbit")
            .args([
                "--disable-dht",
                "--disable-lsd",
                "--disable-trackers",
                "--disable-upnp-port-forward",
                "--listen-ip",
                "127.0.0.1",
            ])
            .args(["--listen-port", &place.port.to_string()])
            .args(["--peer-limit", &PEERS_MAX.to_string()])
            .args(["--worker-threads", &place.cores.to_string()])
            .args(["download", "--overwrite", "--disable-http-api"])
            .arg("--output-folder")
            .arg(&place.data.directory)
            .arg(&place.data.torrent_file)
            .at_home_in(place.work))
    }
}
