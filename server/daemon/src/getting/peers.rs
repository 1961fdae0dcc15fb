//! Where peers come from: those that the user names, and those that trackers do.

use anyhow::Context;
use control::announce::{Totals, TotalsNow};
use proto::magnet::PeerAddress;
use seedring_io::fetch::Fetch;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use tokio::sync::mpsc;

/// Answers of trackers that may wait; more are dropped, for trackers name their peers again.
const ANSWERS_MAX: usize = 16;

/// What is said to be left while only the torrent's hash is known: more than nothing, so that trackers name peers.
const LEFT_UNKNOWN: u64 = 16 << 10;

/// Says how the download stands to trackers, and takes the peers that they name.
pub struct Finder {
    fetch: OnceLock<Arc<Fetch>>,
    found: mpsc::Sender<Vec<SocketAddr>>,
}

impl Finder {
    /// Peers arrive at the receiver.
    pub fn new() -> (Finder, mpsc::Receiver<Vec<SocketAddr>>) {
        let (found, received) = mpsc::channel(ANSWERS_MAX);
        let fetch = OnceLock::new();
        (Finder { fetch, found }, received)
    }

    /// Tells trackers of this download from now on.
    pub fn follow(&self, fetch: &Arc<Fetch>) {
        let _ = self.fetch.set(Arc::clone(fetch));
    }
}

impl Totals for Finder {
    fn now(&self) -> TotalsNow {
        let Some(fetch) = self.fetch.get() else {
            return TotalsNow {
                left: LEFT_UNKNOWN,
                ..TotalsNow::default()
            };
        };
        let progress = fetch.progress();
        TotalsNow {
            uploaded: progress.uploaded,
            downloaded: progress.downloaded,
            left: progress.bytes_wanted,
        }
    }

    fn found(&self, peers: &[SocketAddr]) {
        let _ = self.found.try_send(peers.to_vec());
    }
}

/// The addresses of peers that were given by hand or in a link.
///
/// # Errors
///
/// A name that no resolver knows.
pub async fn resolve(peers: &[PeerAddress]) -> anyhow::Result<Vec<SocketAddr>> {
    let mut addresses = Vec::new();
    for peer in peers {
        match peer {
            PeerAddress::Socket(address) => addresses.push(*address),
            PeerAddress::Name(host, port) => {
                let found = tokio::net::lookup_host((host.as_str(), *port)).await;
                addresses.extend(found.with_context(|| format!("cannot find the peer {host:?}"))?);
            }
        }
    }
    Ok(addresses)
}
