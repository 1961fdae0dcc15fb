//! qBittorrent without a window, with what libtorrent's preset for seeding sets.
//!
//! Its libtorrent maps files: they show in its resident memory, not in its anonymous one. The web
//! interface cannot be left out of the headless build; it listens on a free port of loopback.

use super::{PEERS_MAX, Place, Rival, missing_program, version_line};
use crate::harness::children::Program;
use crate::harness::folder;

/// Debian's qBittorrent, or any in the path.
pub struct Qbittorrent;

impl Rival for Qbittorrent {
    fn name(&self) -> &str {
        "qbittorrent"
    }

    fn settings(&self) -> String {
        "no limits of connections and slots, several connections per address, queueing off, send \
         buffer watermarks of libtorrent's preset high_performance_seed"
            .to_owned()
    }

    fn missing(&self) -> Option<String> {
        missing_program("qbittorrent-nox", "apt-get install qbittorrent-nox")
    }

    fn version(&self) -> String {
        version_line(&Program::new("qbittorrent-nox").arg("--version"))
    }

    fn program(&self, place: &Place<'_>) -> anyhow::Result<Program> {
        let (port, control_port) = (place.port, place.control_port);
        let text = format!(
            "[LegalNotice]
Accepted=true

[BitTorrent]
Session\\Port={port}
Session\\Interface=lo
Session\\InterfaceAddress=127.0.0.1
Session\\BTProtocol=TCP
Session\\QueueingSystemEnabled=false
Session\\MaxConnections=-1
Session\\MaxConnectionsPerTorrent=-1
Session\\MaxUploads=-1
Session\\MaxUploadsPerTorrent=-1
Session\\MultiConnectionsPerIp=true
Session\\SendBufferLowWatermark=1024
Session\\SendBufferWatermark=3072
Session\\SendBufferWatermarkFactor=150
Session\\SocketBacklogSize=3000
Session\\RequestQueueSize={PEERS_MAX}
Session\\FilePoolSize=500
Session\\DHTEnabled=false
Session\\PeXEnabled=false
Session\\LSDEnabled=false
Session\\AddTorrentPaused=false

[Network]
PortForwardingEnabled=false

[Preferences]
Connection\\ResolvePeerCountries=false
WebUI\\Enabled=true
WebUI\\Address=127.0.0.1
WebUI\\Port={control_port}
WebUI\\UseUPnP=false
"
        );
        folder::write(place.work, "qBittorrent/config/qBittorrent.conf", text)?;
        Ok(Program::new("qbittorrent-nox")
            .arg(format!("--profile={}", place.work.display()))
            .arg(format!("--save-path={}", place.data.directory.display()))
            .args(["--add-paused=false", "--skip-dialog=true"])
            .arg(&place.data.torrent_file))
    }
}
