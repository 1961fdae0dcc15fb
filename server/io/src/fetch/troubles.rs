//! Why peers that were called are of no use, in words: whoever named a peer wants to know why it
//! gives nothing.
//!
//! Limits: [`TROUBLES_MAX`] peers are remembered; the one that failed longest ago is forgotten.

use crate::closing::CloseReason;
use crate::fetch::connecting::Called;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

/// Peers of whom it is remembered why they are of no use.
pub const TROUBLES_MAX: usize = 64;

/// See the module.
#[derive(Default)]
pub(crate) struct Troubles(VecDeque<(SocketAddr, String)>);

impl Troubles {
    /// Notes the last reason of a peer.
    pub(crate) fn note(&mut self, peer: SocketAddr, reason: String) {
        self.0.retain(|(other, _)| *other != peer);
        if self.0.len() >= TROUBLES_MAX {
            self.0.pop_front();
        }
        self.0.push_back((peer, reason));
    }

    /// All of them, the latest last.
    pub(crate) fn all(&self) -> Vec<(SocketAddr, String)> {
        self.0.iter().cloned().collect()
    }
}

/// Why nobody took a connection.
pub(crate) fn of_connect(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "connection refused: no program takes connections there".to_owned()
        }
        io::ErrorKind::TimedOut => "it does not answer".to_owned(),
        _ => format!("no connection: {error}"),
    }
}

/// Why a peer that was called is of no use, if it is to blame, or if it is that the interface which
/// peers are met by `is_gone`.
pub(crate) fn of_call(called: &Called, is_gone: bool) -> Option<String> {
    match called {
        Called::Unreachable(_) | Called::Ended { .. } if is_gone => Some(GONE.to_owned()),
        Called::NoRoom => None,
        Called::NoInterface => Some(NO_INTERFACE.to_owned()),
        Called::Filtered => Some(FILTERED.to_owned()),
        Called::Unreachable(trouble) => Some(trouble.clone()),
        Called::Ended {
            reason, is_greeted, ..
        } => of_close(*reason, *is_greeted).map(str::to_owned),
    }
}

/// Why a connection has ended, as far as its peer is to blame. `is_greeted`: the handshake was
/// done.
fn of_close(reason: CloseReason, is_greeted: bool) -> Option<&'static str> {
    Some(match reason {
        CloseReason::PeerClosed | CloseReason::Reset if is_greeted => {
            "it closed the connection after the handshake"
        }
        CloseReason::PeerClosed | CloseReason::Reset => CLOSED_AT_ONCE,
        CloseReason::Filtered => FILTERED,
        CloseReason::HandshakeTimeout => SILENT,
        CloseReason::HandshakeInvalid => NO_HANDSHAKE,
        CloseReason::UnknownTorrent => OTHER_TORRENT,
        CloseReason::SelfConnection => OURSELVES,
        CloseReason::Misbehaved | CloseReason::Flood => "it does not keep to the protocol",
        CloseReason::Idle | CloseReason::Stalled => "it has fallen silent",
        CloseReason::Banned => "it sent wrong data",
        // It is we who have no place for it, or no use.
        _ => return None,
    })
}

/// What peers are met by is not there.
pub(crate) const NO_INTERFACE: &str =
    "it was not called: the interface of peers.bind_interface is not there";
/// It went while there was a connection.
pub(crate) const GONE: &str =
    "the connection to it is broken: the interface of peers.bind_interface is gone";
/// The user keeps its address away.
pub(crate) const FILTERED: &str = "its address is kept away (peers.ip_filter)";
/// The peer closed the connection where its handshake was due.
pub(crate) const CLOSED_AT_ONCE: &str =
    "it closed the connection without a handshake: it may not have this torrent";
/// No handshake came.
pub(crate) const SILENT: &str = "it took the connection and sent no handshake in time";
/// What came is none.
pub(crate) const NO_HANDSHAKE: &str = "what it sends is no BitTorrent handshake";
/// The handshake is about another torrent.
pub(crate) const OTHER_TORRENT: &str = "it answers for another torrent";
/// The address is our own.
pub(crate) const OURSELVES: &str = "it is this download itself";
/// It cannot give metadata.
pub(crate) const NO_EXTENSIONS: &str =
    "it cannot say what the torrent is (it does not speak BEP 10), and a link alone does not";
/// It gave wrong metadata.
pub(crate) const WRONG_METADATA: &str = "it sent wrong metadata, and is kept away";
/// It gave no metadata.
pub(crate) const NO_METADATA: &str = "the connection ended before it said what the torrent is";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_reason_of_the_last_peers_is_remembered() {
        let peer = |number: u16| SocketAddr::from(([192, 0, 2, 1], number));
        let mut troubles = Troubles::default();
        for number in 0..=TROUBLES_MAX as u16 {
            troubles.note(peer(number), "first".to_owned());
        }
        troubles.note(peer(1), "second".to_owned());
        let all = troubles.all();
        assert_eq!(all.len(), TROUBLES_MAX);
        assert!(all.iter().all(|(other, _)| *other != peer(0)));
        assert_eq!(all.last(), Some(&(peer(1), "second".to_owned())));
    }

    #[test]
    fn nobody_is_blamed_for_our_interface() {
        let ended = Called::Ended {
            reason: CloseReason::Reset,
            is_greeted: true,
            lasted: std::time::Duration::ZERO,
        };
        assert_eq!(of_call(&ended, true).as_deref(), Some(GONE));
        assert_ne!(of_call(&ended, false).as_deref(), Some(GONE));
        assert_eq!(of_call(&Called::NoRoom, true), None);
    }

    #[test]
    fn whoever_closes_before_the_handshake_may_not_have_the_torrent() {
        assert_eq!(
            of_close(CloseReason::PeerClosed, false),
            Some(CLOSED_AT_ONCE)
        );
        assert_ne!(
            of_close(CloseReason::PeerClosed, true),
            Some(CLOSED_AT_ONCE)
        );
        assert_eq!(of_close(CloseReason::Full, true), None, "we had no place");
    }
}
