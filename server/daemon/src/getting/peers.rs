//! Where peers come from: those that the user names, and those that trackers do.

use control::announce::{Totals, TotalsNow, is_global};
use control::lsd::PeerSink;
use engine::peer_list::PeerSource;
use proto::magnet::PeerAddress;
use proto::metainfo::Metainfo;
use seedring_io::fetch::Fetch;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Answers of trackers that may wait; more are dropped, for trackers name their peers again.
const ANSWERS_MAX: usize = 16;

/// DHT nodes that are taken from a torrent; it should name eight.
const NODES_MAX: usize = 32;

/// How long a peer's name may take to be resolved.
const LOOKUP_MAX: Duration = Duration::from_secs(10);

/// What is said to be left while only the torrent's hash is known: more than nothing, so that
/// trackers name peers.
const LEFT_UNKNOWN: u64 = 16 << 10;

/// Peers, and who named them.
pub struct Found {
    pub peers: Vec<SocketAddr>,
    pub source: PeerSource,
}

/// Says how the download stands to trackers, and takes the peers that they and others name.
pub struct Finder {
    fetch: OnceLock<Arc<Fetch>>,
    found: mpsc::Sender<Found>,
}

impl Finder {
    /// Peers arrive at the receiver.
    pub fn new() -> (Finder, mpsc::Receiver<Found>) {
        let (found, received) = mpsc::channel(ANSWERS_MAX);
        let fetch = OnceLock::new();
        (Finder { fetch, found }, received)
    }

    /// Takes peers that `source` has named; it is too many when they are not taken away.
    pub fn take(&self, peers: &[SocketAddr], source: PeerSource) {
        let peers = peers.to_vec();
        let _ = self.found.try_send(Found { peers, source });
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
        self.take(peers, PeerSource::Tracker);
    }
}

impl PeerSink for Finder {
    fn found(&self, peers: &[SocketAddr], source: PeerSource) {
        self.take(peers, source);
    }
}

/// The addresses of peers: those `named` by the user, wherever they are, and of those `in_link` the
/// ones at global addresses, since whoever made the link must not have us knock at doors inside our
/// network. Beside them why others are left out: their names cannot be resolved, or not in time.
pub async fn resolve(named: &[PeerAddress], in_link: &[PeerAddress]) -> Resolved {
    resolve_by(look_up, named, in_link).await
}

/// The DHT nodes that a torrent names (BEP 5), the first [`NODES_MAX`].
pub fn nodes_of(metainfo: &Metainfo) -> Vec<PeerAddress> {
    let nodes = metainfo.nodes.iter().take(NODES_MAX);
    let address = |(host, port): &(String, u16)| match host.parse() {
        Ok(ip) => PeerAddress::Socket(SocketAddr::new(ip, *port)),
        Err(_) => PeerAddress::Name(host.clone(), *port),
    };
    nodes.map(address).collect()
}

/// Peers to ask.
#[derive(Default, Debug)]
pub struct Resolved {
    pub addresses: Vec<SocketAddr>,
    /// Those that are not asked, with the reason; fit to be shown.
    pub refused: Vec<String>,
}

/// The addresses of a name, as the system knows them.
async fn look_up(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    let found = tokio::net::lookup_host((host, port)).await?;
    Ok(found.collect())
}

/// [`resolve`] with names found by `lookup`.
async fn resolve_by<Found>(
    lookup: impl Fn(String, u16) -> Found + Copy + Send + 'static,
    named: &[PeerAddress],
    in_link: &[PeerAddress],
) -> Resolved
where
    Found: Future<Output = io::Result<Vec<SocketAddr>>> + Send,
{
    let mut lookups = JoinSet::new();
    let all = named.iter().map(|peer| (peer, true));
    for (peer, is_named) in all.chain(in_link.iter().map(|peer| (peer, false))) {
        let peer = peer.clone();
        lookups.spawn(async move { (addresses_of(lookup, &peer).await, peer, is_named) });
    }
    let mut addresses = Vec::new();
    let mut refused = Vec::new();
    while let Some(Ok((found, peer, is_named))) = lookups.join_next().await {
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                refused.push(format!("the peer {peer} is not asked: {error}"));
                continue;
            }
        };
        let is_allowed = |address: &&SocketAddr| is_named || is_global(address.ip());
        let before = addresses.len();
        addresses.extend(found.iter().filter(is_allowed));
        if addresses.len() == before {
            refused.push(format!(
                "the link's peer {peer} is not asked: its address is inside a network; if it is yours, give it by --peer"
            ));
        }
    }
    Resolved { addresses, refused }
}

async fn addresses_of<Found>(
    lookup: impl Fn(String, u16) -> Found,
    peer: &PeerAddress,
) -> Result<Vec<SocketAddr>, String>
where
    Found: Future<Output = io::Result<Vec<SocketAddr>>>,
{
    let (host, port) = match peer {
        PeerAddress::Socket(address) => return Ok(vec![*address]),
        PeerAddress::Name(host, port) => (host.clone(), *port),
    };
    let found = timeout(LOOKUP_MAX, lookup(host, port)).await;
    let found = found.map_err(|_| "its name was not resolved in time".to_owned())?;
    found.map_err(|error| format!("its name cannot be resolved: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(texts: &[&str]) -> Vec<PeerAddress> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// Knows one name, as no machine's resolver is asked.
    async fn know(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
        match host.as_str() {
            "localhost" => Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    #[tokio::test]
    async fn a_link_s_peers_are_asked_where_they_are_global_and_the_user_s_anywhere() {
        let inside = ["127.0.0.1:1", "10.0.0.1:2", "[fe80::1]:3", "localhost:4"];
        let in_link = resolve_by(know, &[], &peers(&inside)).await;
        assert_eq!(in_link.addresses, []);
        assert_eq!(in_link.refused.len(), 4, "{in_link:?}");
        let named = resolve_by(know, &peers(&inside), &[]).await.addresses;
        assert_eq!(named.len(), 4);
        let global = peers(&["9.9.9.9:5"]);
        let both = resolve(&peers(&["10.0.0.1:2"]), &global).await.addresses;
        assert_eq!(both.len(), 2, "{both:?}");
    }

    #[tokio::test]
    async fn a_name_that_nobody_knows_is_left_out() {
        let named = peers(&["nobody.invalid:1", "10.0.0.1:2"]);
        let found = resolve_by(know, &named, &[]).await;
        assert_eq!(found.addresses, ["10.0.0.1:2".parse().unwrap()]);
        let [refused] = &found.refused[..] else {
            panic!("{found:?}");
        };
        assert!(refused.contains("nobody.invalid:1"), "{refused}");
    }
}
