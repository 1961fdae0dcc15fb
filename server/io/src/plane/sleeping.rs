//! Dormant torrents as the control plane sees them: which there are, which are wanted, which awake
//! ones nobody has used for a while and may fall asleep.
//!
//! Whoever keeps the metainfo implements [`Keeper`], has [`Plane::wake`] answer each
//! [`Event::Wanted`](crate::plane::Event::Wanted), and calls [`Plane::rest`] now and then, both
//! from one task: so the totals of a torrent that falls asleep are with the keeper before it is
//! loaded again.
//!
//! Limits: [`crate::roster::DORMANT_MAX`], [`crate::roster::WakeLimits`], [`SleepPolicy`].

use crate::plane::{Command, Plane};
use crate::roster::Wanted;
use crate::torrent::SeededTorrent;
use proto::ids::InfoHashV1;
use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Torrents that are looked at in one go when some are to fall asleep.
const REST_BATCH: usize = 64;

/// A torrent that has fallen asleep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retired {
    /// The torrent.
    pub info_hash: InfoHashV1,
    /// Payload bytes of it that were sent to peers since it was added.
    pub uploaded_bytes: u64,
}

/// Why a torrent does not fall asleep.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotRetired {
    /// It is not awake.
    #[error("the torrent is not being served")]
    Unknown,
    /// Peers are connected for it, are being called, or it is being downloaded.
    #[error("the torrent has peers")]
    Busy,
    /// Its data are in doubt, or it is being removed.
    #[error("the torrent was stopped")]
    Stopped,
    /// There are [`crate::roster::DORMANT_MAX`] dormant ones.
    #[error("no more torrents can be dormant")]
    Full,
}

/// Which torrents stay awake.
#[derive(Clone, Copy, Debug)]
pub struct SleepPolicy {
    /// How many that have no peers may be awake beside others; the longest unused fall asleep
    /// first. Those with peers are bounded by the connections.
    pub awake_max: usize,
    /// How long one has had no peers when it falls asleep.
    pub idle_min: Duration,
}

/// Whoever keeps what is known of dormant torrents.
pub trait Keeper {
    /// The torrent as it is to be served; `None` if it is not to be served now. It must be a new
    /// one, not one that was served before.
    fn load(
        &self,
        info_hash: InfoHashV1,
    ) -> impl Future<Output = Option<Arc<SeededTorrent>>> + Send;

    /// A torrent has fallen asleep.
    fn retired(&self, retired: Retired);
}

impl Plane {
    /// Adds torrents that are complete and served when a peer comes. Those that are awake stay so.
    /// Returns how many there was no room for.
    pub async fn add_dormant(&self, info_hashes: &[InfoHashV1]) -> usize {
        let _changing = self.changing.lock().await;
        self.enter_dormant(info_hashes)
    }

    /// Makes these the dormant torrents, and no others. Returns how many there was no room for.
    pub async fn set_dormant(&self, info_hashes: &[InfoHashV1]) -> usize {
        let _changing = self.changing.lock().await;
        let kept: HashSet<InfoHashV1> = info_hashes.iter().copied().collect();
        for gone in self.roster.dormant_without(&kept) {
            self.roster.remove_dormant(gone);
        }
        self.enter_dormant(info_hashes)
    }

    fn enter_dormant(&self, info_hashes: &[InfoHashV1]) -> usize {
        let asleep = info_hashes
            .iter()
            .filter(|&&info_hash| self.roster.torrent(info_hash).is_none());
        asleep
            .filter(|&&info_hash| !self.roster.add_dormant(info_hash))
            .count()
    }

    /// Forgets dormant torrents; peers that wait for them are closed.
    pub async fn remove_dormant(&self, info_hashes: &[InfoHashV1]) {
        let _changing = self.changing.lock().await;
        for &info_hash in info_hashes {
            self.roster.remove_dormant(info_hash);
        }
    }

    /// Closes the peers that wait for a dormant torrent, as those of an unknown one. It stays
    /// dormant: the next peer wants it again.
    pub fn refuse(&self, info_hash: InfoHashV1) {
        self.roster.refuse(info_hash);
    }

    /// How many torrents are dormant.
    pub fn dormant_count(&self) -> usize {
        self.roster.dormant_count()
    }

    /// How many complete torrents are awake.
    pub fn awake_count(&self) -> usize {
        self.roster.awake_count()
    }

    /// At most `count_max` torrents that have had no peer, nor called one, for `idle_min`; the
    /// longest unused first. What it costs depends on `count_max` alone.
    pub fn idle(&self, idle_min: Duration, count_max: usize) -> Vec<InfoHashV1> {
        match Instant::now().checked_sub(idle_min) {
            Some(before) => self.roster.idle(before, count_max),
            None => Vec::new(),
        }
    }

    /// Has a torrent without peers fall asleep: its memory is given back, as far as nobody else
    /// holds it, and it is dormant. A peer that comes meanwhile is served by it or wakes it again.
    ///
    /// # Errors
    ///
    /// [`NotRetired`]; it is awake as before, unless it was not.
    pub async fn retire(&self, info_hash: InfoHashV1) -> Result<Retired, NotRetired> {
        let _changing = self.changing.lock().await;
        let torrent = self.roster.torrent(info_hash);
        let torrent = torrent.ok_or(NotRetired::Unknown)?;
        if torrent.is_stopped() {
            return Err(NotRetired::Stopped);
        }
        self.roster.fall_asleep(&torrent)?;
        self.tell_all(|done| Command::Retire(Arc::clone(&torrent), done))
            .await;
        Ok(Retired {
            info_hash,
            uploaded_bytes: torrent.uploaded_bytes(),
        })
    }

    /// Answers a wish: has `keeper` load the torrent and serves it, or refuses it. Where
    /// [`SleepPolicy::awake_max`] are awake, the longest unused falls asleep before. True if it is
    /// served.
    pub async fn wake<K: Keeper>(&self, wanted: Wanted, keeper: &K, policy: SleepPolicy) -> bool {
        if wanted.is_answered() {
            return self.roster.torrent(wanted.info_hash()).is_some();
        }
        let Some(torrent) = keeper.load(wanted.info_hash()).await else {
            return false;
        };
        self.make_room(keeper, policy.awake_max).await;
        self.add(&torrent).await;
        true
    }

    /// Has those torrents fall asleep that `policy` says. Returns how many did.
    pub async fn rest<K: Keeper>(&self, keeper: &K, policy: SleepPolicy) -> usize {
        let mut rested = 0;
        loop {
            let idle = self.idle(policy.idle_min, REST_BATCH);
            let retired = self.retire_all(&idle, keeper).await;
            rested += retired;
            // Those that have got a peer meanwhile are not in the next batch.
            if retired == 0 || idle.len() < REST_BATCH {
                break;
            }
        }
        rested
            + self
                .make_room(keeper, policy.awake_max.saturating_add(1))
                .await
    }

    /// Has torrents without peers fall asleep until fewer than `count` are awake.
    async fn make_room<K: Keeper>(&self, keeper: &K, count: usize) -> usize {
        let mut rested = 0;
        loop {
            let over = (self.awake_count() + 1).saturating_sub(count);
            let idle = self.idle(Duration::ZERO, over.min(REST_BATCH));
            let retired = self.retire_all(&idle, keeper).await;
            if retired == 0 {
                return rested;
            }
            rested += retired;
        }
    }

    async fn retire_all<K: Keeper>(&self, info_hashes: &[InfoHashV1], keeper: &K) -> usize {
        let mut count = 0;
        for &info_hash in info_hashes {
            if let Ok(retired) = self.retire(info_hash).await {
                keeper.retired(retired);
                count += 1;
            }
        }
        count
    }
}

#[cfg(test)]
mod tests;
