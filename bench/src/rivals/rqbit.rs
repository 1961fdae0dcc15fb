//! rqbit, the client in Rust. No distribution has it: `cargo install rqbit`.

use std::process::Command;

use super::{PEERS_MAX, Place, Rival, missing_program, version_line};

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
        version_line(Command::new("rqbit").arg("--version"))
    }

    fn command(&self, place: &Place<'_>) -> anyhow::Result<Command> {
        let mut command = Command::new("rqbit");
        command
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
            .env("HOME", place.work)
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_DATA_HOME")
            .env_remove("XDG_CACHE_HOME");
        Ok(command)
    }
}
