//! The start: what the store has is entered into the catalog, and begun.
//!
//! Limits: [`PAGE`] torrents are read at once. Does not: read metainfo, but for trackers, beside
//! everything else.

use crate::acting;
use crate::manager::{Inner, Manager};
use control::catalog::{Status, Torrent};
use proto::ids::InfoHashV1;
use state::{Condition, LastError, ReadError, Summary};
use std::sync::Arc;

/// Torrents that are read of the store at once at the start.
const PAGE: usize = 2_000;

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
        let (store, inner) = (self.keeping.store.clone(), self.inner.clone());
        let sharing = Arc::clone(&self.sharing);
        tokio::task::spawn_blocking(move || {
            for batch in sleeping.chunks(64) {
                let begun = sharing.begin_reading();
                let read = |info_hash: &InfoHashV1| {
                    let kept = crate::reading::Kept::read(&store, *info_hash).ok()?;
                    sharing.note(*info_hash, &kept, begun);
                    Some((*info_hash, kept.trackers()))
                };
                let trackers = batch.iter().filter_map(read).collect();
                if inner.send(Inner::Trackers(trackers)).is_err() {
                    return;
                }
            }
        });
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
