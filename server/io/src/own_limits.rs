//! The limits of one torrent, which may change while it is served or downloaded.
//!
//! They are set by the control plane at any time, before the shards have the torrent or after. The
//! buckets of its rates are made when its first peer comes: few of many torrents have any.

use crate::limits::SharedLimit;
use crate::plane::RateLimits;
use engine::time::Time;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// For peers: the configuration's.
const UNSET: u32 = u32::MAX;

/// Limits of a torrent. `None` leaves one to the configuration of the data plane; 0 means that
/// there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TorrentLimits {
    /// Upload, in bytes per second.
    pub upload_rate: Option<u64>,
    /// Download, in bytes per second.
    pub download_rate: Option<u64>,
    /// Connected peers. Where there are more when it is set, some are closed.
    pub peers_max: Option<u32>,
}

/// The buckets of a torrent's rates.
#[derive(Clone)]
pub(crate) struct TorrentRates {
    pub(crate) upload: Arc<SharedLimit>,
    pub(crate) download: Arc<SharedLimit>,
}

#[derive(Default)]
struct Set {
    limits: TorrentLimits,
    rates: Option<TorrentRates>,
}

impl Set {
    /// Upload and download, in bytes per second; 0 for no limit.
    fn rates_of(&self, configured: &RateLimits) -> (u64, u64) {
        let upload = self.limits.upload_rate.unwrap_or(configured.torrent);
        let download = self.limits.download_rate;
        (upload, download.unwrap_or(configured.torrent_download))
    }
}

/// See the module.
pub(crate) struct OwnLimits {
    peers_max: AtomicU32,
    set: Mutex<Set>,
}

impl Default for OwnLimits {
    fn default() -> OwnLimits {
        OwnLimits {
            peers_max: AtomicU32::new(UNSET),
            set: Mutex::default(),
        }
    }
}

impl OwnLimits {
    /// Changes all of them.
    pub(crate) fn set(&self, limits: TorrentLimits, configured: &RateLimits, now: Time) {
        let peers_max = limits.peers_max.map_or(UNSET, |max| max.min(UNSET - 1));
        self.peers_max.store(peers_max, Ordering::Relaxed);
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        set.limits = limits;
        let (upload, download) = set.rates_of(configured);
        if let Some(rates) = &set.rates {
            rates.upload.set(upload, now);
            rates.download.set(download, now);
        }
    }

    /// The buckets of its rates, for `shards` shards.
    pub(crate) fn rates(&self, configured: &RateLimits, shards: u16, now: Time) -> TorrentRates {
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        let (upload, download) = set.rates_of(configured);
        let rates = set.rates.get_or_insert_with(|| TorrentRates {
            upload: SharedLimit::new(upload, shards, now),
            download: SharedLimit::new(download, shards, now),
        });
        rates.clone()
    }

    /// How many peers it may have, if that is said of it and there is a limit.
    pub(crate) fn peers_max(&self) -> Option<u32> {
        let peers_max = self.peers_max.load(Ordering::Relaxed);
        (peers_max != UNSET && peers_max != 0).then_some(peers_max)
    }

    /// The same where the configuration says `configured`.
    pub(crate) fn peers_max_or(&self, configured: usize) -> usize {
        match self.peers_max.load(Ordering::Relaxed) {
            UNSET => configured,
            0 => usize::MAX,
            peers_max => peers_max as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_the_configurations_and_nothing_is_no_limit() {
        let configured = RateLimits {
            torrent: 1_000,
            torrent_download: 2_000,
            ..RateLimits::default()
        };
        let (own, now) = (OwnLimits::default(), Time::default());
        let are_limited = || {
            let rates = own.rates(&configured, 1, now);
            (rates.upload.rate(), rates.download.rate())
        };
        assert_eq!(are_limited(), (Some(1_000), Some(2_000)));
        assert_eq!((own.peers_max(), own.peers_max_or(7)), (None, 7));
        let limits = TorrentLimits {
            upload_rate: Some(5),
            download_rate: Some(0),
            peers_max: Some(3),
        };
        own.set(limits, &configured, now);
        assert_eq!(are_limited(), (Some(5), None));
        assert_eq!((own.peers_max(), own.peers_max_or(7)), (Some(3), 3));
        let limits = TorrentLimits {
            peers_max: Some(0),
            ..TorrentLimits::default()
        };
        own.set(limits, &configured, now);
        assert_eq!(are_limited(), (Some(1_000), Some(2_000)));
        assert_eq!((own.peers_max(), own.peers_max_or(7)), (None, usize::MAX));
    }
}
