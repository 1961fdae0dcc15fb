//! What is asked and changed of a running data plane without its shards waiting for anybody: limits,
//! whom they choose, and who the peers of a torrent are.

use super::{Command, Plane, RateLimits};
use crate::own_limits::TorrentLimits;
use crate::peers::{PEERS_SEEN_MAX, PeerSeen};
use crate::torrent::SeededTorrent;
use engine::choker::ChokerConfig;
use proto::ids::InfoHashV1;
use tokio::sync::oneshot;

/// What of a plane's configuration can be changed while it runs.
#[derive(Clone, Copy, Debug)]
pub struct ConfiguredLimits {
    /// Rates. Those of the whole server are not taken from here: see [`Plane::set_rates`].
    pub rates: RateLimits,
    /// See [`super::PlaneConfig::upload_slots`].
    pub upload_slots: u32,
    /// See [`super::PlaneConfig::choker`].
    pub choker: ChokerConfig,
    /// See [`super::PlaneConfig::connections_per_stranger_max`].
    pub connections_per_stranger_max: usize,
    /// See [`super::PlaneConfig::handshakes_max`].
    pub handshakes_max: usize,
}

impl Plane {
    /// Changes what was configured. Connections that are there stay, also where there are more of
    /// them now than may come. What is sent and fetched of a torrent goes by its new rates from when
    /// its limits are set anew ([`Plane::set_torrent_limits`]), or from its first peer.
    pub async fn set_configured(&self, configured: &ConfiguredLimits) {
        self.limits.set_configured(configured);
        self.tell_all(|done| Command::Choose(Box::new(configured.choker), done))
            .await;
    }

    /// Changes the rates of the whole server, in bytes per second; 0 for no limit. Holds for those
    /// who are connected, too.
    pub fn set_rates(&self, upload: u64, download: u64) {
        self.limits.set_rates(upload, download);
    }

    /// Changes the limits of a torrent, whether or not it has been added yet.
    pub fn set_torrent_limits(&self, torrent: &SeededTorrent, limits: TorrentLimits) {
        self.limits.set_of_torrent(torrent, limits);
    }

    /// The peers that are connected for a torrent, on all shards, by their address; the first
    /// [`PEERS_SEEN_MAX`] of them.
    pub async fn peers(&self, info_hash: InfoHashV1) -> Vec<PeerSeen> {
        let mut answers = Vec::with_capacity(self.shards.len());
        for (commands, _) in &self.shards {
            let (reply, answer) = oneshot::channel();
            let command = Command::Peers(info_hash, PEERS_SEEN_MAX, reply);
            if commands.send(command).await.is_ok() {
                answers.push(answer);
            }
        }
        let mut peers = Vec::new();
        for answer in answers {
            peers.append(&mut answer.await.unwrap_or_default());
        }
        peers.sort_by_key(|peer| peer.address);
        peers.truncate(PEERS_SEEN_MAX);
        peers
    }
}
