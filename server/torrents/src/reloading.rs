//! Settings that change while torrents are kept: limits, how many are downloaded, which fall asleep,
//! when they have given enough, where new ones come.
//!
//! What is under way goes on by what it began with, where that is said of it at its beginning: a
//! download keeps how its files take their space, and one that is too many is not stopped.
//!
//! Does not: read a configuration, or know which of its keys may change.

use crate::manager::{Manager, Settings};
use proto::ids::InfoHashV1;
use seedring_io::own_limits::TorrentLimits;

impl Manager {
    /// Goes by these settings from now on. What was set over the API stays before the
    /// configuration's.
    pub(crate) async fn reload(&mut self, settings: Settings) {
        for key in self.limits.set_rules(settings.limits.clone()) {
            tracing::warn!(
                "{key}: another limit was set while the server ran, and comes before it; \
                `seedring limit --whole-server` with `default` goes back to the configuration's"
            );
        }
        let are_other_roots = settings.roots != self.settings.roots;
        self.settings = settings;
        self.tell_limits();
        let awake: Vec<InfoHashV1> = self.phases.active().collect();
        for info_hash in awake {
            self.tell_torrent_limits(info_hash);
        }
        // What the configuration says of each torrent may be another, which named ones go by, too.
        for torrent in self.declared.torrents() {
            let limits = TorrentLimits::default();
            self.services.plane.set_torrent_limits(torrent, limits);
        }
        self.date_all();
        if are_other_roots {
            self.look_again_at_roots().await;
        }
    }
}
