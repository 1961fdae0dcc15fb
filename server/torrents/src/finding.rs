//! Where the peers of a torrent come from, and how others find us: trackers, the DHT, local
//! discovery. Each torrent that is doing something is entered with all that may know of it, and
//! taken out again.
//!
//! Limits: those of each source. Does not: ask anybody.

use crate::manager::Services;
use control::announce::{Totals, TotalsNow};
use control::command::Server;
use control::lsd::PeerSink;
use engine::peer_list::PeerSource;
use proto::ids::InfoHashV1;
use seedring_io::fetch::{Fetch, MetadataFetch};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

/// What is said to be left while only a torrent's hash is known: more than nothing, so that
/// trackers name peers.
const LEFT_UNKNOWN: u64 = 16 << 10;

/// Who wants the peers of a torrent that is not complete.
#[derive(Clone)]
pub(crate) enum Seeker {
    /// Its download.
    Fetch(Arc<Fetch>),
    /// Who asks for its metadata.
    Metadata(Arc<MetadataFetch>),
}

/// What sources of peers need to know of all torrents.
pub(crate) struct Finding {
    services: Arc<Services>,
    server: Server,
    seekers: RwLock<HashMap<InfoHashV1, Seeker>>,
}

/// A torrent as the sources of peers have it. Many of these exist, so they hold no more than where
/// to look.
struct Sink {
    info_hash: InfoHashV1,
    finding: Arc<Finding>,
}

impl Finding {
    pub(crate) fn new(services: &Arc<Services>, server: Server) -> Finding {
        Finding {
            services: Arc::clone(services),
            server,
            seekers: RwLock::default(),
        }
    }

    /// From now on peers of this torrent are for `seeker`; for the seed, if there is none.
    pub(crate) fn set_seeker(&self, info_hash: InfoHashV1, seeker: Option<Seeker>) {
        let seekers = self.seekers.write();
        let mut seekers = seekers.unwrap_or_else(PoisonError::into_inner);
        match seeker {
            Some(seeker) => drop(seekers.insert(info_hash, seeker)),
            None => drop(seekers.remove(&info_hash)),
        }
    }

    fn seeker(&self, info_hash: &InfoHashV1) -> Option<Seeker> {
        let seekers = self.seekers.read().unwrap_or_else(PoisonError::into_inner);
        seekers.get(info_hash).cloned()
    }

    fn sink(self: &Arc<Self>, info_hash: InfoHashV1) -> Arc<Sink> {
        Arc::new(Sink {
            info_hash,
            finding: Arc::clone(self),
        })
    }

    /// Has a complete torrent be found, and its downloaders named, but for its trackers.
    pub(crate) fn seed(self: &Arc<Self>, info_hash: InfoHashV1, private: bool) {
        let services = &self.services;
        if let Some(tracker) = &services.tracker {
            tracker.register_local(info_hash, services.peer_id, services.peer_port);
        }
        if let Some(lsd) = services.lsd.as_ref().filter(|_| !private) {
            lsd.add(info_hash, self.sink(info_hash));
        }
        if let Some(dht) = &services.dht {
            dht.announce(info_hash, private, self.sink(info_hash));
        }
    }

    /// Has peers be named for a torrent that is not complete, but for its trackers.
    pub(crate) fn fetch(self: &Arc<Self>, info_hash: InfoHashV1, private: bool, seeker: Seeker) {
        let only_metadata = matches!(seeker, Seeker::Metadata(_));
        self.set_seeker(info_hash, Some(seeker));
        let services = &self.services;
        if let Some(tracker) = &services.tracker {
            tracker.allow(info_hash);
        }
        if let Some(lsd) = services.lsd.as_ref().filter(|_| !private) {
            lsd.add(info_hash, self.sink(info_hash));
        }
        if let Some(dht) = &services.dht {
            match only_metadata {
                // It may be private: the DHT is asked, and told nothing.
                true => dht.look(info_hash, self.sink(info_hash)),
                false => drop(dht.find(info_hash, private, self.sink(info_hash))),
            }
        }
    }

    /// Announces a torrent to its trackers from now on. Of a complete one our own is left out,
    /// which knows of it already.
    pub(crate) fn announce(
        self: &Arc<Self>,
        info_hash: InfoHashV1,
        tiers: &[Vec<String>],
        private: bool,
        is_complete: bool,
    ) {
        let services = &self.services;
        let Some(announcer) = &services.announcer else {
            return;
        };
        let own = services.own_tracker.as_ref().filter(|_| is_complete);
        let others = |tier: &Vec<String>| {
            let urls = tier.iter().filter(|url| Some(*url) != own);
            urls.cloned().collect::<Vec<_>>()
        };
        let tiers: Vec<_> = tiers.iter().map(others).collect();
        let tiers: Vec<_> = tiers.into_iter().filter(|tier| !tier.is_empty()).collect();
        if !tiers.is_empty() {
            announcer.add(info_hash, &tiers, private, self.sink(info_hash));
        }
    }

    /// A torrent that was being downloaded is complete.
    pub(crate) fn completed(self: &Arc<Self>, info_hash: InfoHashV1, private: bool) {
        self.set_seeker(info_hash, None);
        if let Some(announcer) = &self.services.announcer {
            announcer.completed(info_hash);
        }
        if let Some(dht) = &self.services.dht {
            dht.announce(info_hash, private, self.sink(info_hash));
        }
    }

    /// Asks all sources as soon as they allow it.
    pub(crate) fn hurry(&self, info_hash: InfoHashV1) {
        if let Some(announcer) = &self.services.announcer {
            announcer.reannounce(info_hash);
        }
        if let Some(dht) = &self.services.dht {
            dht.hurry(info_hash);
        }
    }

    /// Has a torrent be found no more.
    pub(crate) fn leave(&self, info_hash: InfoHashV1) {
        self.set_seeker(info_hash, None);
        let services = &self.services;
        if let Some(tracker) = &services.tracker {
            tracker.disallow(info_hash);
        }
        if let Some(announcer) = &services.announcer {
            announcer.remove(info_hash);
        }
        if let Some(lsd) = &services.lsd {
            lsd.remove(info_hash);
        }
        if let Some(dht) = &services.dht {
            dht.remove(info_hash);
        }
    }
}

impl Sink {
    fn take(&self, peers: &[SocketAddr], source: PeerSource) {
        match self.finding.seeker(&self.info_hash) {
            Some(Seeker::Fetch(fetch)) => fetch.found(peers, source),
            Some(Seeker::Metadata(fetch)) => fetch.found(peers, source),
            None => {
                let plane = &self.finding.services.plane;
                plane.found_for(self.info_hash, peers, source);
            }
        }
    }
}

impl Totals for Sink {
    fn now(&self) -> TotalsNow {
        let left = match self.finding.seeker(&self.info_hash) {
            Some(Seeker::Fetch(fetch)) => fetch.progress().bytes_wanted,
            Some(Seeker::Metadata(_)) => LEFT_UNKNOWN,
            None => 0,
        };
        let catalog = self.finding.server.catalog();
        let live = catalog.get(&self.info_hash).map(|torrent| torrent.live);
        let live = live.unwrap_or_default();
        TotalsNow {
            uploaded: live.uploaded_session,
            downloaded: live.downloaded_session,
            left,
        }
    }

    fn found(&self, peers: &[SocketAddr]) {
        self.take(peers, PeerSource::Tracker);
    }
}

impl PeerSink for Sink {
    fn found(&self, peers: &[SocketAddr], source: PeerSource) {
        self.take(peers, source);
    }
}
