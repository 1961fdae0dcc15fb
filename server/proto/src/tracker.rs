//! The tracker protocols, both sides: announces (BEP 3, 7, 23, 24, 31) and scrapes (BEP 48) over
//! HTTP; in [`udp`] both over UDP (BEP 15, 41).
//!
//! As a client: [`AnnounceRequest::url`], [`AnnounceReply::parse`], [`scrape_url`],
//! [`ScrapeReply::parse`]. As a tracker: [`AnnounceRequest::parse_query`],
//! [`AnnounceReply::encode`], [`parse_scrape_query`], [`ScrapeReply::encode`].
//!
//! Limits are the `TRACKER_…`, `ANNOUNCE_…` and `SCRAPE_…` constants of [`crate::limits`]. A reply
//! is read as leniently as trackers need: a peer that cannot be used is dropped and counted, an
//! absent or odd number takes its default, and intervals are clamped. A stranger's text is made
//! printable and cut.
//!
//! Not here: HTTP, compression, DNS (a peer given by name is dropped, so that no tracker makes us
//! resolve names), the choice of tracker.

mod query;
mod reply;
mod request;
mod scrape;
#[cfg(test)]
mod tests;
pub mod udp;

use std::net::SocketAddr;

pub use query::{QueryError, parse_scrape_query};
pub use reply::{AnnounceReply, AnnounceSuccess, Failure, Interval, ReplyError, RetryIn};
pub use request::{scrape_request_url, scrape_url};
pub use scrape::{ScrapeFile, ScrapeReply};

use crate::ids::{InfoHashV1, PeerId};

/// Why a client announces.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum AnnounceEvent {
    /// It is time again.
    #[default]
    None,
    /// The first announce of a run.
    Started,
    /// The client goes.
    Stopped,
    /// The download is complete now.
    Completed,
    /// The client goes on without downloading all (BEP 21).
    Paused,
}

impl AnnounceEvent {
    /// The value of the `event` parameter; `None` is sent without one.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            AnnounceEvent::None => None,
            AnnounceEvent::Started => Some("started"),
            AnnounceEvent::Stopped => Some("stopped"),
            AnnounceEvent::Completed => Some("completed"),
            AnnounceEvent::Paused => Some("paused"),
        }
    }

    /// The event of a name; one that we do not know is none.
    fn from_name(name: &[u8]) -> Self {
        match name {
            b"started" => AnnounceEvent::Started,
            b"stopped" => AnnounceEvent::Stopped,
            b"completed" => AnnounceEvent::Completed,
            b"paused" => AnnounceEvent::Paused,
            _ => AnnounceEvent::None,
        }
    }
}

/// An announce, as a client sends it and a tracker receives it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AnnounceRequest {
    /// The torrent: its v1 info-hash, or the first 20 bytes of the v2 one (BEP 52).
    pub info_hash: InfoHashV1,
    /// How the client calls itself.
    pub peer_id: PeerId,
    /// The TCP port on which it takes connections; 0 if it takes none, and then it is no use as a
    /// peer.
    pub port: u16,
    /// Payload bytes sent since the `started` event.
    pub uploaded_bytes: u64,
    /// Payload bytes received since the `started` event.
    pub downloaded_bytes: u64,
    /// Bytes still missing; 0 makes the client a seed. `None` if the client does not say.
    pub left_bytes: Option<u64>,
    /// Why it announces.
    pub event: AnnounceEvent,
    /// How many peers the client wants; `None` leaves it to the tracker.
    pub peers_wanted: Option<u32>,
    /// Proves to the tracker that the client is the same one from another address.
    pub key: Option<Vec<u8>>,
    /// Whether the client takes compact peers (BEP 23). A query without the parameter does.
    pub compact: bool,
    /// Whether the client wants dictionaries without peer ids.
    pub no_peer_id: bool,
    /// The client's address as it says. A tracker has to know why it would believe that.
    pub ip: Option<std::net::IpAddr>,
    /// The client's IPv4 address as it says (BEP 7).
    pub ipv4: Option<std::net::Ipv4Addr>,
    /// The client's IPv6 address as it says (BEP 7).
    pub ipv6: Option<std::net::Ipv6Addr>,
    /// What the tracker gave as `tracker id` in an earlier reply.
    pub tracker_id: Option<Vec<u8>>,
}

impl AnnounceRequest {
    /// An announce with nothing transferred, nothing left unsaid but what is optional, compact
    /// peers.
    pub const fn new(info_hash: InfoHashV1, peer_id: PeerId, port: u16) -> Self {
        AnnounceRequest {
            info_hash,
            peer_id,
            port,
            uploaded_bytes: 0,
            downloaded_bytes: 0,
            left_bytes: None,
            event: AnnounceEvent::None,
            peers_wanted: None,
            key: None,
            compact: true,
            no_peer_id: false,
            ip: None,
            ipv4: None,
            ipv6: None,
            tracker_id: None,
        }
    }
}

/// A peer in a tracker's reply.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TrackerPeer {
    /// Where it takes connections: a unicast address, never port 0.
    pub address: SocketAddr,
    /// How it calls itself, if the reply says.
    pub peer_id: Option<PeerId>,
}

/// In which form a tracker writes peers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerFormat {
    /// 6 and 18 bytes a peer (BEP 23, BEP 7).
    Compact,
    /// Dictionaries (BEP 3), with peer ids where they are known and wanted.
    Dictionaries {
        /// Whether peer ids are left out.
        no_peer_id: bool,
    },
}

impl PeerFormat {
    /// The form that a request asks for.
    pub const fn of(request: &AnnounceRequest) -> Self {
        if request.compact {
            PeerFormat::Compact
        } else {
            PeerFormat::Dictionaries {
                no_peer_id: request.no_peer_id,
            }
        }
    }
}
