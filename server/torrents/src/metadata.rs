//! Torrents of which only a magnet link is known: peers are asked for the rest (BEP 9).

use crate::acting::shown_after;
use crate::finding::Seeker;
use crate::keeping::{After, Change, Next};
use crate::manager::{Inner, Manager, Phase};
use crate::sharing::Claim;
use control::announce::is_global;
use control::catalog::{Status, describe};
use control::hooks::HookEvent;
use engine::picker::Priority;
use proto::ids::InfoHashV1;
use proto::magnet::{Magnet, PeerAddress};
use proto::metainfo::{Metainfo, with_trackers};
use seedring_io::fetch::{GatheredInfo, MetadataEvent, MetadataFetch};
use state::{Condition, Update, Write, WriteError};
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

    /// Which files a torrent names by the metadata that have come.
    fn claim_of(&self, info_hash: InfoHashV1, metainfo: &Metainfo) -> Option<Claim> {
        let catalog = self.seat.catalog();
        let torrent = catalog.get(&info_hash)?;
        let folder = torrent.summary.save_path.clone();
        let metainfo = Arc::new(metainfo.clone());
        Some(Claim::new(folder, metainfo, Default::default()))
    }

    /// Whether a torrent's metadata are being fetched, and by this fetch.
    fn fetches_metadata(&self, info_hash: InfoHashV1, number: u64) -> bool {
        let phase = self.phases.get(&info_hash);
        matches!(phase, Some(Phase::Metadata(metadata)) if metadata.number == number)
    }

    /// Peers have given a torrent's `info` dictionary: bytes of its hash.
    pub(crate) async fn described(
        &mut self,
        info_hash: InfoHashV1,
        number: u64,
        info: GatheredInfo,
    ) {
        if !self.fetches_metadata(info_hash, number) {
            return;
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
        let Some(claim) = self.claim_of(info_hash, &metainfo) else {
            return;
        };
        // Whoever deletes files from now on leaves these.
        self.sharing.claim(info_hash, claim.clone());
        let metainfo = Arc::clone(&claim.metainfo);
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
        let notice = self.note_change(info_hash, &change, told);
        let write = Write::Update(info_hash, Box::new(update));
        let shown = shown_after(info_hash, change, Next::Restart(info_hash), None);
        let shown: After<Manager> = Box::new(move |manager, written| {
            match &written {
                Ok(()) => manager.sharing.keep(info_hash, Some(&claim)),
                Err(_) => manager.sharing.unclaim(&info_hash),
            }
            shown(manager, written)
        });
        let after = or_fetched_anew(info_hash, number, shown);
        self.keeping.write_telling(vec![write], notice, after).await;
    }
}

/// Does `after` when metadata are kept, or not. Their fetch has ended: if the state disk has failed
/// they are fetched anew in a while, which takes no memory until then.
fn or_fetched_anew(info_hash: InfoHashV1, number: u64, after: After<Manager>) -> After<Manager> {
    Box::new(move |manager, written| {
        let has_failed = matches!(written, Err(WriteError::Failed(_)));
        let next = after(manager, written);
        if has_failed && manager.fetches_metadata(info_hash, number) {
            manager.later(info_hash);
        }
        next
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::idle::{Idle, full};
    use state::Summary;

    #[tokio::test(flavor = "multi_thread")]
    async fn metadata_that_cannot_be_kept_are_fetched_anew() {
        let folder = tempfile::tempdir().unwrap();
        let mut idle = Idle::new(folder.path());
        let hash = InfoHashV1([1; 20]);
        let link = Summary {
            magnet: Some(format!("magnet:?xt=urn:btih:{hash}")),
            ..Summary::default()
        };
        let info_hash = idle.keep(link, Status::Queued).await;
        idle.manager.start(info_hash).await;
        let number_of = |manager: &Manager| match manager.phases.get(&info_hash) {
            Some(Phase::Metadata(metadata)) => Some(metadata.number),
            _ => None,
        };
        let first = number_of(&idle.manager).unwrap();
        let nothing = || -> After<Manager> { Box::new(|_, _| Next::Done) };
        let keeping = &idle.manager.keeping;
        keeping.begun();
        keeping.begun();
        // Of an earlier fetch: this one goes on.
        let after = or_fetched_anew(info_hash, first + 1, nothing());
        idle.manager.inner(Inner::Written(Err(full()), after)).await;
        assert_eq!(number_of(&idle.manager), Some(first));
        let after = or_fetched_anew(info_hash, first, nothing());
        idle.manager.inner(Inner::Written(Err(full()), after)).await;
        let later = idle.manager.phases.get(&info_hash);
        let Some(Phase::Later(number)) = later else {
            panic!("its fetch has ended, and is not begun again");
        };
        idle.manager.begin_again(info_hash, *number).await;
        let second = number_of(&idle.manager);
        assert!(second.is_some_and(|second| second != first));
    }
}
