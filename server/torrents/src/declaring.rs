//! Torrents that the configuration or the command line names: others serve them, here they are only
//! shown. They are not kept, and commands do not change them.

use crate::manager::Manager;
use crate::reading::Kept;
use crate::sharing::Claim;
use control::catalog::{Status, Torrent, describe};
use control::library::Ready;
use proto::ids::InfoHashV1;
use seedring_io::torrent::SeededTorrent;
use state::{Details, LastError, Summary, Totals, Verified};
use std::collections::HashMap;
use std::sync::Arc;

/// A torrent that is served whatever is kept here.
pub struct Declared {
    /// What it is.
    pub ready: Ready,
    /// As the data plane has it.
    pub torrent: Arc<SeededTorrent>,
}

/// Those that there are.
#[derive(Default)]
pub(crate) struct DeclaredTorrents {
    torrents: HashMap<InfoHashV1, Shown>,
}

pub(crate) struct Shown {
    ready: Ready,
    pub torrent: Arc<SeededTorrent>,
    /// How much of what it has sent is in its totals.
    pub counted: u64,
}

impl DeclaredTorrents {
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&InfoHashV1, &mut Shown)> {
        self.torrents.iter_mut()
    }

    /// All of them as the data plane has them.
    pub(crate) fn torrents(&self) -> impl Iterator<Item = &Arc<SeededTorrent>> {
        self.torrents.values().map(|shown| &shown.torrent)
    }

    /// One of them as the data plane has it.
    pub(crate) fn torrent(&self, info_hash: &InfoHashV1) -> Option<&Arc<SeededTorrent>> {
        self.torrents.get(info_hash).map(|shown| &shown.torrent)
    }

    /// The same as the store would have of a kept one.
    pub(crate) fn kept(&self, info_hash: &InfoHashV1) -> Option<Kept> {
        let ready = &self.torrents.get(info_hash)?.ready;
        Some(Kept {
            summary: summary(ready),
            details: Details {
                renames: ready.paths.clone(),
                ..Details::default()
            },
            metainfo: Some((ready.torrent.clone(), Arc::clone(&ready.metainfo))),
            verified: Verified::All,
            stamps: ready.stamps.clone(),
        })
    }
}

fn summary(ready: &Ready) -> Summary {
    let mut summary = Summary {
        save_path: ready.data_dir.clone(),
        ..Summary::default()
    };
    describe(&mut summary, &ready.metainfo);
    summary
}

impl Manager {
    /// Shows a torrent that others serve; if it is kept, too, it is left to them.
    pub(crate) async fn declare(&mut self, declared: Declared) {
        let Declared { ready, torrent } = declared;
        let info_hash = ready.info_hash;
        if !self.declared.torrents.contains_key(&info_hash) {
            // Its files are theirs who serve it: none is moved or taken away meanwhile.
            self.moves.park(&info_hash);
            self.halt(info_hash).await;
        }
        let (folder, metainfo) = (ready.data_dir.clone(), Arc::clone(&ready.metainfo));
        let claim = Claim::new(folder, metainfo, ready.paths.clone());
        self.sharing.declare(info_hash, claim);
        // It was removed with its data before: they are theirs now who serve it.
        self.waive_burial(info_hash).await;
        let now_s = self.clock.now_s();
        let pieces = ready.metainfo.piece_count;
        self.seat.change(|catalog| {
            catalog.add(Torrent {
                info_hash,
                summary: Summary {
                    added_at_s: now_s,
                    completed_at_s: Some(now_s),
                    ..summary(&ready)
                },
                totals: Totals::default(),
                pieces_verified: pieces,
                live: Default::default(),
            });
            catalog.change(&info_hash, |torrent| {
                torrent.live.declared = true;
                torrent.summary.last_error = None;
            });
        });
        self.set_status(info_hash, Status::Seeding);
        let shown = Shown {
            ready,
            torrent,
            counted: 0,
        };
        self.declared.torrents.insert(info_hash, shown);
    }

    /// A torrent that others served is named no more, and nobody serves it. If it is kept, it goes on
    /// as it was kept.
    pub(crate) async fn undeclare(&mut self, info_hash: InfoHashV1) {
        if self.declared.torrents.remove(&info_hash).is_none() {
            return;
        }
        self.sharing.undeclare(&info_hash);
        self.set_status(info_hash, Status::Paused);
        self.seat.change(|catalog| catalog.remove(&info_hash));
        let kept = self
            .keeping
            .store
            .read(move |view| view.torrent(&info_hash));
        match kept.await {
            Ok(Some(kept)) => {
                self.enter(vec![kept]).await;
                if self.queue.has(&info_hash) {
                    self.start(info_hash).await;
                }
                self.next_downloads().await;
                // One that has not come to its end goes on by that.
                if !self.moves.runs(&info_hash) {
                    self.resume_parked(info_hash).await;
                }
            }
            Ok(None) => {}
            Err(error) => tracing::error!(torrent = %info_hash, %error, "it was kept, too, and \
                cannot be read: it is served again after a restart"),
        }
    }

    /// What others serve is declared: what had to wait for that goes on.
    pub(crate) async fn go_on_settled(&mut self) {
        self.next_move().await;
        self.bury_waiting();
    }

    /// A torrent that others serve is not served now.
    pub(crate) fn withdrawn(&mut self, info_hash: InfoHashV1, text: String) {
        if !self.declared.torrents.contains_key(&info_hash) {
            return;
        }
        let at_s = self.clock.now_s();
        self.set_status(info_hash, Status::Offline);
        self.show(info_hash, |torrent| {
            torrent.summary.last_error = Some(LastError { at_s, text });
        });
    }
}
