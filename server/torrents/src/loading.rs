//! The start: what the store has is entered into the catalog, and begun.
//!
//! Limits: [`PAGE`] torrents are read at once. Does not: read metainfo, but for trackers, beside
//! everything else.

use crate::acting;
use crate::manager::{Inner, Manager};
use crate::reading::{Kept, KeptError};
use control::catalog::{Status, Torrent};
use proto::ids::InfoHashV1;
use state::{Condition, LastError, ReadError, Summary};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Torrents that are read of the store at once at the start.
const PAGE: usize = 2_000;

/// Torrents whose trackers are read, and told, together.
const BATCH: usize = 64;

/// Reads the trackers of a torrent, in their tiers.
type ReadTiers = Arc<dyn Fn(&InfoHashV1) -> Result<Vec<Vec<String>>, KeptError> + Send + Sync>;

impl Manager {
    /// Reads the torrents, a page at a time: each page is in the catalog and served before the next
    /// is read. Ends when all are.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; some torrents may be there then.
    pub async fn load(&mut self) -> Result<(), ReadError> {
        // Before anybody looks for a file.
        self.resume_renames().await?;
        self.load_limits().await?;
        let order = self.keeping.store.read(|view| view.queue()).await?;
        self.queue.fill(&order);
        let mut after = None;
        loop {
            let read = move |view: &state::View| view.torrents(after, PAGE);
            let page = self.keeping.store.read(read).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.info_hash);
            self.enter(page).await;
        }
        self.load_totals().await?;
        // In the user's order, not the store's.
        for info_hash in order {
            self.start(info_hash).await;
        }
        self.is_loaded = true;
        self.next_downloads().await;
        self.list_trackers();
        self.look_for_outsiders();
        self.resume_moves().await?;
        self.resume_burials().await
    }

    /// Enters a page of torrents; those in the order of downloads are begun later.
    pub(crate) async fn enter(&mut self, page: Vec<state::Listed>) {
        self.sharing
            .enter(page.iter().map(|listed| listed.info_hash));
        let (mut asleep, mut others) = (Vec::new(), Vec::new());
        let damaged = &mut self.damaged;
        let now_s = self.clock.now_s();
        self.seat.change(|catalog| {
            for listed in page {
                let info_hash = listed.info_hash;
                let summary = match listed.summary {
                    Ok(summary) => summary,
                    Err(error) => {
                        tracing::error!(torrent = %info_hash, %error, "what is kept of it is \
                            damaged: it is not served; remove it and add it again");
                        damaged.insert(info_hash);
                        unreadable(info_hash, &error, now_s)
                    }
                };
                let mut torrent = Torrent {
                    info_hash,
                    summary,
                    totals: listed.totals,
                    pieces_verified: listed.pieces_verified,
                    live: Default::default(),
                };
                // One that the configuration names is served by others.
                if catalog.get(&info_hash).is_some() {
                    continue;
                }
                if acting::sleeps(&torrent) {
                    torrent.live.status = Status::Seeding;
                    torrent.live.active_since_s = Some(now_s);
                    asleep.push((info_hash, torrent.summary.private));
                } else if !self.queue.has(&info_hash) {
                    others.push(info_hash);
                }
                catalog.add(torrent);
            }
        });
        let hashes: Vec<_> = asleep.iter().map(|(info_hash, _)| *info_hash).collect();
        self.services.plane.add_dormant(&hashes).await;
        for (info_hash, private) in asleep {
            self.finding.seed(info_hash, private);
            self.date(info_hash);
        }
        for info_hash in others {
            self.start(info_hash).await;
        }
    }

    /// Reads the trackers of all torrents that sleep, beside everything else: it takes as long as
    /// reading all metainfo does.
    fn list_trackers(&self) {
        if self.services.announcer.is_none() {
            return;
        }
        let sleeping: Vec<InfoHashV1> = {
            let catalog = self.seat.catalog();
            let torrents = catalog.iter().filter(|torrent| acting::sleeps(torrent));
            torrents.map(|torrent| torrent.info_hash).collect()
        };
        self.read_trackers_of(sleeping);
    }

    /// Reads the trackers of torrents and announces these. If the store cannot be read that is tried
    /// again: who is not announced is not found.
    pub(crate) fn read_trackers_of(&self, torrents: Vec<InfoHashV1>) {
        let (store, sharing) = (self.keeping.store.clone(), Arc::clone(&self.sharing));
        let read = move |info_hash: &InfoHashV1| {
            let begun = sharing.begin_reading();
            let kept = Kept::read(&store, *info_hash)?;
            sharing.note(*info_hash, &kept, begun);
            Ok(kept.trackers())
        };
        let again = acting::STORE_AGAIN;
        tokio::spawn(read_all(
            torrents,
            Arc::new(read),
            again,
            self.inner.clone(),
        ));
    }
}

/// Reads something of each torrent with `read`, which may block, and tells it as
/// [`Inner::Trackers`]; of those that cannot be read now after a pause, until all are or the manager
/// has ended.
async fn read_all(
    torrents: Vec<InfoHashV1>,
    read: ReadTiers,
    again: Duration,
    inner: mpsc::UnboundedSender<Inner>,
) {
    let mut left = torrents;
    loop {
        let mut failed = Vec::new();
        for batch in left.chunks(BATCH) {
            let (batch, read) = (batch.to_vec(), Arc::clone(&read));
            let read = move || {
                let (mut trackers, mut failed) = (Vec::new(), Vec::new());
                for info_hash in batch {
                    match read(&info_hash) {
                        Ok(tiers) => trackers.push((info_hash, tiers)),
                        Err(KeptError::Store(ReadError::Failed(_))) => failed.push(info_hash),
                        // Of what is damaged or gone none are known.
                        Err(_) => {}
                    }
                }
                (trackers, failed)
            };
            let Ok((trackers, unread)) = tokio::task::spawn_blocking(read).await else {
                return;
            };
            failed.extend(unread);
            if inner.send(Inner::Trackers(trackers)).is_err() {
                return;
            }
        }
        if failed.is_empty() {
            return;
        }
        let torrents = failed.len();
        tracing::warn!(
            torrents,
            "their trackers cannot be read now; that is tried again"
        );
        left = failed;
        tokio::time::sleep(again).await;
    }
}

/// What is shown of a torrent whose summary is damaged: nothing more is known of it.
fn unreadable(info_hash: InfoHashV1, error: &impl std::fmt::Display, at_s: u64) -> Summary {
    let text = format!(
        "what is kept of it is damaged ({error}): remove it without its data, and add it again"
    );
    Summary {
        name: info_hash.to_string(),
        condition: Condition::Failed,
        last_error: Some(LastError { at_s, text }),
        ..Summary::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use state::Failure;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A state disk that fails while trackers are read costs no torrent its announces.
    #[tokio::test]
    async fn trackers_that_cannot_be_read_are_read_again() {
        let torrents: Vec<_> = (0..BATCH as u8 + 1)
            .map(|byte| InfoHashV1([byte; 20]))
            .collect();
        let reads = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&reads);
        let read = move |info_hash: &InfoHashV1| {
            let failed = || {
                ReadError::Failed(Arc::new(Failure {
                    path: "state".into(),
                    text: "no space".into(),
                    disk_full: true,
                }))
            };
            match (info_hash.0[0], counted.fetch_add(1, Ordering::Relaxed)) {
                (0, _) => Err(KeptError::Gone),
                (_, ..10) => Err(failed().into()),
                (byte, _) => Ok(vec![vec![format!("http://{byte}/")]]),
            }
        };
        let (inner, mut told) = mpsc::unbounded_channel();
        let pause = Duration::from_millis(1);
        read_all(torrents.clone(), Arc::new(read), pause, inner).await;
        let mut known = Vec::new();
        while let Some(Inner::Trackers(trackers)) = told.recv().await {
            known.extend(trackers);
        }
        known.sort();
        assert!(
            known
                .iter()
                .map(|(info_hash, _)| info_hash)
                .eq(&torrents[1..])
        );
        assert_eq!(known[0].1, [["http://1/"]]);
        assert_eq!(reads.load(Ordering::Relaxed), torrents.len() + 9);
    }
}
