//! Transmission's daemon, slots and peer limits raised.
//!
//! Its bandwidth is dealt out in pulses of 500 ms whatever the settings, and it drops requests
//! beyond 512 of a peer.

use anyhow::Context as _;
use serde_json::json;

use super::{PEERS_MAX, Place, Rival, missing_program, version_line};
use crate::harness::children::Program;
use crate::harness::folder;

/// Debian's Transmission, or any in the path.
pub struct Transmission;

impl Rival for Transmission {
    fn name(&self) -> &str {
        "transmission"
    }

    fn settings(&self) -> String {
        format!("{PEERS_MAX} slots and peers, no speed limit, uTP off")
    }

    fn missing(&self) -> Option<String> {
        missing_program("transmission-daemon", "apt-get install transmission-daemon")
    }

    fn version(&self) -> String {
        version_line(&Program::new("transmission-daemon").arg("--version"))
    }

    fn program(&self, place: &Place<'_>) -> anyhow::Result<Program> {
        // A torrent in the watched directory is added without its remote control.
        let watch = place.work.join("watch");
        std::fs::create_dir(&watch).with_context(|| format!("cannot make {watch:?}"))?;
        let torrent = &place.data.torrent_file;
        std::fs::copy(torrent, watch.join("content.torrent"))
            .with_context(|| format!("cannot copy {torrent:?} to {watch:?}"))?;
        let settings = json!({
            "download-dir": place.data.directory,
            "start-added-torrents": true,
            "watch-dir": watch,
            "watch-dir-enabled": true,
            "rpc-enabled": false,
            "dht-enabled": false,
            "lpd-enabled": false,
            "pex-enabled": false,
            "utp-enabled": false,
            "port-forwarding-enabled": false,
            "peer-port": place.port,
            "bind-address-ipv4": "127.0.0.1",
            "encryption": 0,
            "peer-limit-global": PEERS_MAX,
            "peer-limit-per-torrent": PEERS_MAX,
            "upload-slots-per-torrent": PEERS_MAX,
            "speed-limit-up-enabled": false,
            "ratio-limit-enabled": false,
            "queue-stalled-enabled": false,
            "cache-size-mb": 64,
            "incomplete-dir-enabled": false,
            "message-level": 1,
        });
        folder::write(place.work, "settings.json", settings.to_string())?;
        Ok(Program::new("transmission-daemon")
            .arg("--foreground")
            .arg("--config-dir")
            .arg(place.work))
    }
}
