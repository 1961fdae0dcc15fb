//! Has a running server go by a configuration that has been read again: what can change does, what
//! cannot is named in the log.
//!
//! Which keys can is said where they are declared (`control::config`); each of those is told here to
//! whoever goes by it, whether or not it has changed.

use super::Watch;
use crate::loading::{Loading, Source};
use crate::reload::Fresh;
use crate::settings;
use control::config::{Change, Config, Reload};
use control::http::warn_of_open_port;
use control::logging::LogHandle;
use std::sync::Arc;

/// What of the server only a reload speaks to.
pub(super) struct Renewable {
    pub(super) api: Option<Arc<control::api::Api>>,
    pub(super) http: Arc<control::http::Changeable>,
    pub(super) log: LogHandle,
}

/// The name of a key.
fn name(change: &Change) -> String {
    format!("{}.{}", change.section, change.key)
}

impl Watch {
    /// Takes what has been read, or says why nothing changes.
    pub(super) async fn reload(
        &mut self,
        read: anyhow::Result<Fresh>,
        loading: &mut Option<Loading>,
    ) {
        match read {
            Ok(fresh) => self.renew(fresh, loading).await,
            Err(error) => {
                // Each mistake of a file has a line of its own.
                for line in format!("{error:#}").lines() {
                    tracing::error!("{line}");
                }
                tracing::error!("the configuration stays as it was: nothing of it has changed");
            }
        }
        if self.readings.is_asked_again() {
            self.readings.begin(&self.config);
        }
    }

    async fn renew(&mut self, fresh: Fresh, loading: &mut Option<Loading>) {
        let Fresh {
            config,
            changes,
            settings,
            http,
            access,
            automation,
            ip_filter,
        } = fresh;
        let is_live = |change: &&Change| change.reload == Reload::Live;
        let changed: Vec<String> = changes.iter().filter(is_live).map(name).collect();
        for change in changes.iter().filter(|change| !is_live(change)) {
            tracing::warn!(
                "{}: changed in the configuration; needs a restart",
                name(change)
            );
        }
        let level_changed = changed.iter().any(|name| name == "log.level");
        if !self.renewable.log.set_level(&config.log) && level_changed {
            tracing::warn!("log.level: RUST_LOG is set, and says what is logged");
        }
        let plane = &self.running.plane;
        plane.set_configured(&settings::configured(&config)).await;
        plane.set_ip_filter(&ip_filter).await;
        if let Some(announcer) = &self.running.announcer {
            // What is fetched from the web goes by the same settings.
            announcer.set_limits(&settings.web);
        }
        if let Some(tracker) = &self.running.tracker {
            tracker.set_zones(&config.tracker.zones);
        }
        self.kept.reload(settings);
        let server = self.server.clone();
        self.automation.renew(automation, server);
        self.running.stop_timeout = config.announce.stop_timeout_s.duration();
        self.renewable.http.set(http);
        if let Some(api) = &self.renewable.api {
            api.renew(access);
        }
        if let Some(address) = self.announcement.api
            && changes.iter().any(|change| change.section == "api")
        {
            warn_of_open_port(address, &config.api);
        }
        self.count_costs(&config);
        self.config = config;
        let (loaded, withdrawn) = self.renew_named(loading).await;
        let keys = match changed.as_slice() {
            [] => "no key".to_owned(),
            changed => changed.join(", "),
        };
        tracing::info!(
            loaded,
            withdrawn,
            "the configuration has been read again; changed: {keys}"
        );
    }

    /// Says what the configuration costs at most, if that is another than it was.
    fn count_costs(&mut self, config: &Config) {
        let budget = self.budget.renewed(config);
        if budget == self.budget {
            return;
        }
        self.budget = budget;
        self.teller.costs(&budget);
        if budget.is_short_of_descriptors() {
            tracing::warn!(
                "hooks and watch folders may need more descriptors than are left ({} in all), and what \
                 finds none fails; raise the limit (LimitNOFILE= in the systemd unit), or restart, \
                 so that there are fewer connections and files in their place",
                budget.descriptors_max
            );
        }
    }

    /// Loads what is named now and was not, and withdraws what is named no more; tells how many of
    /// each.
    async fn renew_named(&mut self, loading: &mut Option<Loading>) -> (usize, usize) {
        // Whose files those are that are named now is known when they are loaded.
        self.kept.hold();
        let renewed = self.named.renew(Source::named(&self.config));
        self.torrents.forget_not_loaded(renewed.refused);
        for info_hash in &renewed.gone {
            self.torrents.remove(*info_hash).await;
        }
        let count = renewed.load.len();
        match loading {
            Some(loading) => loading.more(renewed.load),
            None if count == 0 => {}
            None => *loading = Some(Loading::start(self.loader.clone(), renewed.load)),
        }
        if loading.is_none() {
            self.kept.settle(self.named.unserved());
        }
        self.torrents
            .loading(loading.as_ref().map_or(0, Loading::left));
        (count, renewed.gone.len())
    }
}
