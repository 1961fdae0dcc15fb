//! rTorrent: without a terminal, unlimited slots, limits raised, no preloading.

use anyhow::Context as _;

use super::{PEERS_MAX, Place, Rival, missing_program};
use crate::harness::children::Program;
use crate::harness::folder;

/// Debian's rTorrent, or any in the path.
pub struct Rtorrent;

impl Rival for Rtorrent {
    fn name(&self) -> &str {
        "rtorrent"
    }

    fn settings(&self) -> String {
        format!("unlimited slots, {PEERS_MAX} peers, send buffers of 4 MiB, preloading off")
    }

    fn missing(&self) -> Option<String> {
        missing_program("rtorrent", "apt-get install rtorrent")
    }

    fn version(&self) -> String {
        let text = Program::new("rtorrent").arg("-h").output();
        let text = text.unwrap_or_default();
        let line = text.lines().find(|line| line.contains("version"));
        line.map_or("rTorrent", |line| line.trim().trim_end_matches('.'))
            .to_owned()
    }

    fn program(&self, place: &Place<'_>) -> anyhow::Result<Program> {
        let session = place.work.join("session");
        std::fs::create_dir(&session).with_context(|| format!("cannot make {session:?}"))?;
        let (port, session) = (place.port, session.display());
        let (directory, torrent) = (place.data.directory.display(), &place.data.torrent_file);
        let torrent = torrent.display();
        // 60000 slots are the most that it takes.
        let text = format!(
            "system.daemon.set = true
session.path.set = {session}
directory.default.set = {directory}
network.bind_address.set = 127.0.0.1
network.port_range.set = {port}-{port}
network.port_random.set = no
dht.mode.set = disable
protocol.pex.set = no
trackers.use_udp.set = no
protocol.encryption.set = none
throttle.max_uploads.set = 60000
throttle.max_uploads.global.set = 0
throttle.max_peers.normal.set = {PEERS_MAX}
throttle.max_peers.seed.set = {PEERS_MAX}
network.max_open_sockets.set = {PEERS_MAX}
network.max_open_files.set = 600
network.send_buffer.size.set = 4M
network.receive_buffer.size.set = 128K
pieces.memory.max.set = 8192M
pieces.preload.type.set = 0
load.start = {torrent}
"
        );
        let config = folder::write(place.work, "rtorrent.rc", text)?;
        Ok(Program::new("rtorrent")
            .arg("-n")
            .arg("-o")
            .arg(format!("import={}", config.display())))
    }
}
