//! The peers of a torrent as they are shown to people: what each connection knows anyway.
//!
//! Limits: [`PEERS_SEEN_MAX`]. Looking costs a step for each connection of a shard.

use crate::connection::Connection;
use crate::shard::Shard;
use engine::peer_list::PeerSource;
use proto::client_name::client_name;
use proto::ids::InfoHashV1;
use std::net::SocketAddr;

/// Peers of one torrent that are told of at a time.
pub const PEERS_SEEN_MAX: usize = 4_096;

/// A peer whose handshake is done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerSeen {
    /// Where it is.
    pub address: SocketAddr,
    /// The program that it says it is, printable: by its extension handshake (BEP 10), or else by
    /// its peer id (BEP 20).
    pub client: String,
    /// Whether it connected to us.
    pub is_incoming: bool,
    /// By which source we know of it.
    pub source: PeerSource,
    /// Pieces that it says it has, in thousandths of all.
    pub has_permille: u16,
    /// Payload sent to it, in bytes.
    pub uploaded: u64,
    /// Payload of it that was kept, in bytes.
    pub downloaded: u64,
    /// Payload sent to it over the last seconds, in bytes per second.
    pub upload_rate: u64,
    /// Payload received of it over the last seconds, in bytes per second.
    pub download_rate: u64,
    /// Whether we choke it (BEP 3).
    pub am_choking: bool,
    /// Whether it wants something of us.
    pub peer_interested: bool,
    /// Whether it chokes us.
    pub peer_choking: bool,
    /// Whether we want something of it.
    pub am_interested: bool,
}

impl Connection {
    /// What is shown of the peer.
    fn seen(&self) -> PeerSeen {
        let session = self.session.borrow();
        let said = session.peer_client().filter(|name| !name.is_empty());
        let by_id = || client_name(&session.peer().peer_id).to_string();
        let pieces = u64::from(self.torrent.layout().piece_count());
        let has = u64::from(session.peer_pieces()).min(pieces) * 1_000;
        let fetching = self.fetching.as_ref();
        let fetching_now = fetching.filter(|fetching| !fetching.fetch.is_over());
        PeerSeen {
            address: SocketAddr::new(self.peer.ip().to_canonical(), self.peer.port()),
            client: said.map_or_else(by_id, str::to_owned),
            is_incoming: !self.is_called(),
            source: self.source,
            has_permille: u16::try_from(has.checked_div(pieces).unwrap_or(0)).unwrap_or(1_000),
            uploaded: session.counters().uploaded_bytes,
            downloaded: fetching.map_or(0, |fetching| fetching.given_bytes.get()),
            upload_rate: self.speeds.up.rate(),
            download_rate: self.speeds.down.rate(),
            am_choking: session.is_choked(),
            peer_interested: session.is_interested(),
            peer_choking: session.is_choking(),
            am_interested: fetching_now.is_some_and(|fetching| {
                let download = fetching.fetch.download.borrow();
                download.is_interested(fetching.key)
            }),
        }
    }
}

impl Shard {
    /// At most `count_max` of the peers of a torrent that are connected here.
    pub(crate) fn peers_seen(&self, info_hash: InfoHashV1, count_max: usize) -> Vec<PeerSeen> {
        let connections = self.connections.borrow();
        let theirs = connections.iter().filter(|(_, connection)| {
            connection.torrent.info_hash() == info_hash && connection.closing().is_none()
        });
        let seen = theirs.map(|(_, connection)| connection.seen());
        seen.take(count_max).collect()
    }
}
