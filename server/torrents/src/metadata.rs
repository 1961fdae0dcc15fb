//! Torrents of which only a magnet link is known: peers are asked for the rest (BEP 9).

use crate::finding::Seeker;
use crate::keeping::{Change, Next};
use crate::manager::{Inner, Manager, Phase};
use control::announce::is_global;
use control::catalog::{Status, describe};
use control::hooks::HookEvent;
use engine::picker::Priority;
use proto::ids::InfoHashV1;
use proto::magnet::{Magnet, PeerAddress};
use proto::metainfo::{Metainfo, with_trackers};
use seedring_io::fetch::{GatheredInfo, MetadataEvent, MetadataFetch};
use state::{Condition, Update};
use std::sync::Arc;
use std::time::Instant;

/// Metadata that are being fetched.
pub(crate) struct Metadata {
    pub number: u64,
    pub fetch: Arc<MetadataFetch>,
    /// When it was begun.
    pub begun: Instant,
    task: tokio::task::AbortHandle,
}

impl Drop for Metadata {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Manager {
    /// Begins to fetch a torrent's metadata, or has it wait for its turn.
    pub(crate) async fn seek_metadata(&mut self, info_hash: InfoHashV1) {
        if !self.take_turn(info_hash) {
            return;
        }
        let Some(magnet) = self.magnet(info_hash) else {
            let why = "neither its metainfo nor a link that can be read is known".to_owned();
            self.condemn(info_hash, Condition::Failed, why, true).await;
            return;
        };
        let (fetch, mut events) = match self.services.plane.fetch_metadata(info_hash).await {
            Ok(begun) => begun,
            Err(error) => {
                let why = error.to_string();
                self.condemn(info_hash, Condition::Failed, why, true).await;
                return;
            }
        };
        let fetch = Arc::new(fetch);
        let number = self.number();
        let inner = self.inner.clone();
        let task = tokio::spawn(async move {
            if let Some(MetadataEvent::Complete(info)) = events.recv().await {
                let _ = inner.send(Inner::Described(info_hash, number, info));
            }
        });
        // Whoever made the link must not have us knock at doors inside our network.
        let in_link = magnet.peers.iter().filter_map(|peer| match peer {
            PeerAddress::Socket(address) if is_global(address.ip()) => Some(*address),
            _ => None,
        });
        let mut peers: Vec<_> = in_link.collect();
        peers.extend(self.named.get(&info_hash).into_iter().flatten());
        fetch.add_peers(&peers);
        self.set_status(info_hash, Status::Metadata);
        let seeker = Seeker::Metadata(Arc::clone(&fetch));
        self.finding.fetch(info_hash, false, seeker);
        let metadata = Metadata {
            number,
            fetch,
            begun: Instant::now(),
            task: task.abort_handle(),
        };
        self.phases
            .insert(info_hash, Phase::Metadata(Box::new(metadata)));
        // The link's, or those that the user has set in their place.
        self.read_trackers(info_hash);
    }

    fn magnet(&self, info_hash: InfoHashV1) -> Option<Magnet> {
        let catalog = self.seat.catalog();
        let link = catalog.get(&info_hash)?.summary.magnet.clone()?;
        Magnet::parse(&link).ok()
    }

    /// Peers have given a torrent's `info` dictionary: bytes of its hash.
    pub(crate) async fn described(
        &mut self,
        info_hash: InfoHashV1,
        number: u64,
        info: GatheredInfo,
    ) {
        match self.phases.get(&info_hash) {
            Some(Phase::Metadata(metadata)) if metadata.number == number => {}
            _ => return,
        }
        let Some(magnet) = self.magnet(info_hash) else {
            return;
        };
        let (torrent, metainfo) = match described(info_hash, &magnet, &info) {
            Ok(described) => described,
            Err(why) => {
                tracing::error!(torrent = %info_hash, error = %why, "what the link stands for");
                self.condemn(info_hash, Condition::Failed, why, true).await;
                return;
            }
        };
        let priorities = selected(&magnet, metainfo.files.len());
        let change: Change = Arc::new(move |summary: &mut state::Summary| {
            // A name from the link gives way to the real one, a name that the user chose does not.
            let given = magnet.name.as_deref().unwrap_or_default();
            if summary.name == given || summary.name == info_hash.to_string() {
                summary.name.clear();
            }
            describe(summary, &metainfo);
            summary.condition = Condition::NeedsCheck;
        });
        let kept = Arc::clone(&change);
        let update = Update::new()
            .summary(move |summary| kept(summary))
            .metainfo(torrent)
            .details(move |details| {
                if details.priorities.is_empty() {
                    details.priorities = priorities;
                }
            });
        let told = Some((HookEvent::Metadata, None));
        let next = Next::Restart(info_hash);
        self.update_telling(info_hash, update, change, next, None, told)
            .await;
    }
}

/// The .torrent file of a link, from what peers gave.
fn described(
    info_hash: InfoHashV1,
    magnet: &Magnet,
    info: &[u8],
) -> Result<(Vec<u8>, Metainfo), String> {
    let bare = [b"d4:info", info, b"e"].concat();
    let tiers: Vec<_> = magnet
        .trackers
        .iter()
        .map(|url| vec![url.clone()])
        .collect();
    let torrent = match tiers.is_empty() {
        true => bare,
        false => with_trackers(&bare, &tiers).map_err(|error| error.to_string())?,
    };
    let metainfo = Metainfo::parse(&torrent).map_err(|error| error.to_string())?;
    // Whoever made the link may have hashed more than a dictionary.
    match metainfo.info_hash_v1 == Some(info_hash) {
        true => Ok((torrent, metainfo)),
        false => Err("it is no torrent that can be downloaded: it goes on".to_owned()),
    }
}

/// The priorities of the files that a link selects (BEP 53); none if all are wanted.
fn selected(magnet: &Magnet, files: usize) -> Vec<Priority> {
    let Some(ranges) = &magnet.selection else {
        return Vec::new();
    };
    let mut priorities = vec![Priority::SKIP; files];
    for range in ranges {
        let first = *range.start() as usize;
        let last = (*range.end() as usize).min(files.saturating_sub(1));
        for priority in priorities.iter_mut().take(last + 1).skip(first) {
            *priority = Priority::NORMAL;
        }
    }
    priorities
}
