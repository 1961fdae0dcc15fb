//! What people see of the scheduler: one torrent's trackers, sums for metrics, who is waited for.
//!
//! Limits: each says what it costs. Does not: change anything.

use std::collections::BTreeSet;

use engine::time::Time;
use proto::ids::InfoHashV1;

use super::host::Entry;
use super::{Gauges, OVERDUE_AFTER, Place, Scheduler};
use crate::announce::TorrentStatus;

impl Scheduler {
    /// Pairs of torrent and tracker whose last announce failed.
    pub fn failing(&self) -> usize {
        self.failing
    }

    /// The trackers that are still to answer, at most `count`, as they may be shown. Loops over all
    /// torrents.
    pub fn waited_for(&self, count: usize) -> Vec<String> {
        let mut waited_for = BTreeSet::new();
        let all = self.torrents.values().flat_map(|one| one.tiers.iter());
        for tracker in all.filter(|one| one.in_flight.is_some() || one.started) {
            if let Some(target) = &tracker.target
                && waited_for.len() < count
            {
                waited_for.insert(target.shown.to_string());
            }
        }
        waited_for.into_iter().collect()
    }

    /// What the operator sees of one torrent.
    pub fn status(&self, now: Time, info_hash: InfoHashV1) -> Option<TorrentStatus> {
        let torrent = self.torrents.get(&info_hash)?;
        let next = match torrent.place {
            Place::Until(at) => at,
            Place::Queued(_) | Place::InFlight(_) => now,
        };
        let trackers = torrent.tiers.iter().map(|tracker| {
            let host = tracker
                .target
                .as_ref()
                .and_then(|target| self.hosts.get(&target.host));
            let down = host.filter(|host| host.is_down(now));
            let down = down.map(|host| (host.down_until, host.message.as_str()));
            tracker.status(now, next, down)
        });
        let trackers = trackers.collect();
        Some(TorrentStatus {
            trackers,
            leaving: torrent.leaving,
        })
    }

    /// The sums; costs a search per host.
    pub fn gauges(&self, now: Time) -> Gauges {
        // Entries are in the order in which they came.
        let overdue = |entry: &Entry| now.since(entry.since) > OVERDUE_AFTER;
        let overdue = self
            .hosts
            .values()
            .map(|host| host.normal.partition_point(overdue))
            .sum();
        let torrents = self.torrents.len();
        Gauges {
            torrents,
            in_flight: self.in_flight,
            overdue,
            failing: self.failing,
        }
    }
}
