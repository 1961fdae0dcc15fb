//! What is asked and changed of a running data plane without its shards waiting for anybody: limits,
//! and who the peers of a torrent are.

use super::{Command, Plane};
use crate::own_limits::TorrentLimits;
use crate::peers::{PEERS_SEEN_MAX, PeerSeen};
use crate::torrent::SeededTorrent;
use proto::ids::InfoHashV1;
use tokio::sync::oneshot;

impl Plane {
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
