//! Complete torrents: loaded when peers want them, put to sleep when nobody has for a while.
//!
//! Limits: those of the roster of the data plane. Does not: look at data that are in doubt
//! ([`crate::doubting`]).

use crate::manager::{Inner, Manager, Phase};
use crate::reading::{Kept, KeptError};
use control::roots::Roots;
use proto::ids::InfoHashV1;
use seedring_io::plane::{Keeper, Retired};
use seedring_io::roster::Wanted;
use seedring_io::torrent::SeededTorrent;
use state::Condition;
use std::sync::{Arc, Mutex, PoisonError};

/// A torrent that is awake.
pub(crate) struct Awake {
    pub torrent: Arc<SeededTorrent>,
    /// How much of what it has sent is in its totals.
    pub counted: u64,
}

/// What came of reading a torrent that peers want.
pub(crate) struct Loaded {
    info_hash: InfoHashV1,
    wanted: Wanted,
    outcome: Result<Arc<SeededTorrent>, NotLoaded>,
}

enum NotLoaded {
    /// Its data were never hashed, or nothing is known of its files.
    Unhashed,
    Failed(String),
    /// Its data are where none may be.
    Outside(String),
    /// The store could not be read: peers ask again.
    Later(KeptError),
}

/// Hands one torrent, which is loaded, to the data plane, and hears which fall asleep for it.
#[derive(Default)]
struct Hand {
    torrent: Mutex<Option<Arc<SeededTorrent>>>,
    retired: Mutex<Vec<Retired>>,
}

impl Hand {
    fn into_retired(self) -> Vec<Retired> {
        self.retired
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keeper for Hand {
    async fn load(&self, _: InfoHashV1) -> Option<Arc<SeededTorrent>> {
        let torrent = self.torrent.lock();
        torrent.unwrap_or_else(PoisonError::into_inner).take()
    }

    fn retired(&self, retired: Retired) {
        let list = self.retired.lock();
        list.unwrap_or_else(PoisonError::into_inner).push(retired);
    }
}

impl Manager {
    /// Peers want a dormant torrent: reads it beside everything else.
    pub(crate) fn wanted(&mut self, wanted: Wanted) {
        let info_hash = wanted.info_hash();
        let sleeps = {
            let catalog = self.seat.catalog();
            catalog.get(&info_hash).is_some_and(crate::acting::sleeps)
        };
        // A wish that is dropped is refused.
        if !sleeps || !self.loading.insert(info_hash) {
            return;
        }
        let (store, inner) = (self.keeping.store.clone(), self.inner.clone());
        let roots = self.settings.roots.clone();
        tokio::task::spawn_blocking(move || {
            let outcome = load(&store, info_hash, &roots);
            let loaded = Loaded {
                info_hash,
                wanted,
                outcome,
            };
            let _ = inner.send(Inner::Loaded(Box::new(loaded)));
        });
    }

    pub(crate) async fn loaded(&mut self, loaded: Loaded) {
        let Loaded {
            info_hash,
            wanted,
            outcome,
        } = loaded;
        // It was paused or removed meanwhile.
        if !self.loading.remove(&info_hash) {
            return;
        }
        let torrent = match outcome {
            Ok(torrent) => torrent,
            Err(NotLoaded::Unhashed) => {
                drop(wanted);
                self.services.plane.remove_dormant(&[info_hash]).await;
                self.check(info_hash);
                return;
            }
            Err(NotLoaded::Later(error)) => {
                drop(wanted);
                tracing::warn!(torrent = %info_hash, %error, "it cannot be read now");
                return;
            }
            Err(NotLoaded::Outside(why)) => {
                drop(wanted);
                tracing::warn!(torrent = %info_hash, "not served: {why}");
                let offline = Condition::Offline;
                self.condemn(info_hash, offline, why, true).await;
                return;
            }
            Err(NotLoaded::Failed(error)) => {
                drop(wanted);
                tracing::error!(torrent = %info_hash, %error, "cannot be served");
                let failed = Condition::Failed;
                self.condemn(info_hash, failed, error, true).await;
                return;
            }
        };
        self.catch_up(&torrent);
        let limits = self.limits_of(info_hash);
        self.services.plane.set_torrent_limits(&torrent, limits);
        torrent.set_super_seeding(self.is_super_seeded(info_hash));
        let hand = Hand {
            torrent: Mutex::new(Some(Arc::clone(&torrent))),
            ..Hand::default()
        };
        let plane = Arc::clone(&self.services.plane);
        if plane.wake(wanted, &hand, self.settings.sleep).await {
            let awake = Awake {
                torrent,
                counted: 0,
            };
            self.phases.insert(info_hash, Phase::Awake(awake));
        }
        self.retired(hand.into_retired());
    }

    /// Whether a torrent is to be super-seeded, when it is complete.
    pub(crate) fn is_super_seeded(&self, info_hash: InfoHashV1) -> bool {
        let catalog = self.seat.catalog();
        let torrent = catalog.get(&info_hash);
        torrent.is_some_and(|torrent| torrent.summary.super_seeding)
    }

    /// Has the data plane do with an awake torrent what its summary says of super-seeding.
    pub(crate) fn tell_super_seeding(&self, info_hash: InfoHashV1) {
        if let Some(Phase::Awake(awake)) = self.phases.get(&info_hash) {
            let on = self.is_super_seeded(info_hash);
            awake.torrent.set_super_seeding(on);
        }
    }

    /// Has those torrents fall asleep that nobody has used for a while.
    pub(crate) async fn rest(&mut self) {
        let hand = Hand::default();
        let plane = Arc::clone(&self.services.plane);
        plane.rest(&hand, self.settings.sleep).await;
        self.retired(hand.into_retired());
    }

    fn retired(&mut self, retired: Vec<Retired>) {
        for Retired { info_hash, .. } in retired {
            if let Some(Phase::Awake(awake)) = self.phases.remove(&info_hash) {
                self.count_uploaded(info_hash, &awake.torrent, awake.counted);
            }
            self.show(info_hash, |torrent| {
                torrent.live.upload_rate = 0;
                torrent.live.peers = 0;
                torrent.live.seeds = 0;
            });
        }
    }
}

/// Reads a torrent for the data plane; blocks on the disk.
fn load(
    store: &state::Handle,
    info_hash: InfoHashV1,
    roots: &Roots,
) -> Result<Arc<SeededTorrent>, NotLoaded> {
    let failed = |error: String| NotLoaded::Failed(error);
    let kept = Kept::read(store, info_hash).map_err(|error| match error.is_passing() {
        true => NotLoaded::Later(error),
        false => failed(error.to_string()),
    })?;
    let metainfo = kept
        .described()
        .map_err(|error| failed(error.to_string()))?;
    roots
        .check(&kept.summary.save_path)
        .map_err(|outside| NotLoaded::Outside(outside.to_string()))?;
    // What was never hashed is not served: seed mode means that it is hashed now.
    if kept.summary.pieces != kept.verified.count(kept.summary.pieces) || !kept.is_stamped() {
        return Err(NotLoaded::Unhashed);
    }
    let torrent = SeededTorrent::new(
        Arc::clone(metainfo),
        &kept.summary.save_path,
        kept.stamps.clone(),
        kept.details.renames.clone(),
    );
    torrent
        .map(Arc::new)
        .map_err(|error| failed(error.to_string()))
}
