//! Why connections end: one vocabulary for logs and metrics.

use engine::session::{Disconnect, DisconnectKind};
use seedring_metrics::Counter;
use std::io;

/// Why a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CloseReason {
    /// The peer closed its side.
    PeerClosed,
    /// The connection was reset or broke.
    Reset,
    /// The handshake took too long.
    HandshakeTimeout,
    /// The stream does not begin as a plain BitTorrent connection.
    HandshakeInvalid,
    /// We do not seed the torrent that the peer asked for.
    UnknownTorrent,
    /// The torrent that the peer asked for did not wake in time, or too many peers wait for such.
    Asleep,
    /// The peer is ourselves.
    SelfConnection,
    /// The peer broke the protocol.
    Misbehaved,
    /// The peer sent more than any honest one does.
    Flood,
    /// The peer needs nothing that we have: it is a seed too.
    Pointless,
    /// Nothing came for too long.
    Idle,
    /// The peer takes no bytes.
    Stalled,
    /// The torrent was removed or its data are in doubt.
    TorrentStopped,
    /// The data could not be read for want of descriptors or memory.
    Storage,
    /// The peer sent wrong data, now or before.
    Banned,
    /// Its address is one to keep away.
    Filtered,
    /// The same peer is connected already.
    Duplicate,
    /// The torrent has as many peers as it may.
    Full,
    /// The server is stopping.
    Stopping,
}

impl CloseReason {
    /// The reason behind a failed receive or send.
    pub(crate) fn of_socket(error: &io::Error) -> CloseReason {
        match error.kind() {
            io::ErrorKind::TimedOut => CloseReason::Stalled,
            _ => CloseReason::Reset,
        }
    }

    /// The reason behind a session's wish to end.
    pub(crate) fn of_session(disconnect: &Disconnect) -> CloseReason {
        match disconnect {
            Disconnect::Idle { .. } => return CloseReason::Idle,
            Disconnect::InvalidRequests { .. }
            | Disconnect::RequestsWhileChoked { .. }
            | Disconnect::MetadataFlood { .. }
            | Disconnect::ExchangeFlood { .. } => return CloseReason::Flood,
            _ => {}
        }
        match disconnect.kind() {
            DisconnectKind::Misbehaved | DisconnectKind::Incompatible => CloseReason::Misbehaved,
            DisconnectKind::Redundant => CloseReason::Pointless,
            DisconnectKind::TimedOut => CloseReason::Stalled,
        }
    }

    /// Whether the connection ended before its handshake was done.
    fn counter_of_handshake(self) -> Option<Counter> {
        Some(match self {
            CloseReason::HandshakeTimeout => Counter::HandshakeTimeout,
            CloseReason::HandshakeInvalid => Counter::HandshakeProtocol,
            CloseReason::UnknownTorrent => Counter::HandshakeUnknownTorrent,
            CloseReason::Asleep => Counter::HandshakeAsleep,
            CloseReason::SelfConnection => Counter::HandshakeSelf,
            _ => return None,
        })
    }

    /// The counter of this reason, for a connection that had or had not done its handshake.
    pub(crate) fn counter(self, greeted: bool) -> Counter {
        if !greeted {
            return self
                .counter_of_handshake()
                .unwrap_or(Counter::HandshakeClosed);
        }
        match self {
            CloseReason::PeerClosed => Counter::ClosedByPeer,
            CloseReason::Reset => Counter::ClosedReset,
            CloseReason::Misbehaved => Counter::ClosedProtocol,
            CloseReason::Flood => Counter::ClosedFlood,
            CloseReason::Pointless => Counter::ClosedOther,
            CloseReason::Idle => Counter::ClosedIdle,
            CloseReason::Stalled => Counter::ClosedStalled,
            CloseReason::TorrentStopped => Counter::ClosedTorrent,
            CloseReason::Storage => Counter::ClosedStorage,
            CloseReason::Stopping => Counter::ClosedStopping,
            CloseReason::Banned => Counter::ClosedBanned,
            CloseReason::Duplicate => Counter::ClosedDuplicate,
            CloseReason::Filtered => Counter::ClosedFiltered,
            _ => Counter::ClosedOther,
        }
    }
}
