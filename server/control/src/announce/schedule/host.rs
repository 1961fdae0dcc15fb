//! What the scheduler keeps of one tracker host: who waits for it, its bucket, its faults.
//!
//! Limits: those of the scheduler. Does not: choose between hosts.

use std::collections::VecDeque;
use std::time::Duration;

use engine::time::Time;
use proto::ids::InfoHashV1;

use super::{HOST_BURST, HOST_FAILURES_MAX, Limits, UNPROVEN_IN_FLIGHT_MAX};
use crate::announce::tiers::BACKOFF_MAX;

#[derive(Default)]
pub(super) struct Host {
    pub urgent: VecDeque<Entry>,
    pub normal: VecDeque<Entry>,
    pub in_flight: usize,
    /// The bucket: when the next announce would be due if they went out evenly.
    pub next_even: Time,
    pub listed: Listed,
    pub failures: u32,
    pub down_until: Time,
    /// Why it is down.
    pub message: String,
    /// When it last answered anybody.
    pub answered: Option<Time>,
    /// Announces are under way, and nobody has been answered for a while.
    pub silent: bool,
}

/// Whether a host will get its turn.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listed {
    #[default]
    No,
    Ready,
    Timer,
}

/// A torrent that waits for a host.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub info_hash: InfoHashV1,
    pub ticket: u64,
    pub since: Time,
}

impl Host {
    pub fn is_down(&self, now: Time) -> bool {
        self.down_until > now
    }

    /// How many requests may be under way to it. One that failed is probed by one at a time until
    /// it answers.
    pub fn in_flight_max(&self, limits: &Limits) -> usize {
        let most = limits.in_flight_per_host_max;
        if self.failures >= HOST_FAILURES_MAX {
            1
        } else if self.answered.is_none() {
            most.min(UNPROVEN_IN_FLIGHT_MAX)
        } else {
            most
        }
    }

    /// How long the bucket, which fills by one each `gap`, lets the next request wait.
    pub fn too_early(&self, now: Time, gap: Duration) -> Duration {
        let burst = gap * (HOST_BURST - 1);
        self.next_even.since(now).saturating_sub(burst)
    }

    /// Takes a request out of the bucket.
    pub fn hand_out(&mut self, now: Time, gap: Duration) {
        self.in_flight += 1;
        self.next_even = self.next_even.max(now) + gap;
    }

    /// Nothing would be lost by forgetting it.
    pub fn is_idle(&self, now: Time) -> bool {
        self.in_flight == 0
            && self.listed == Listed::No
            && self.urgent.is_empty()
            && self.normal.is_empty()
            && self.next_even <= now
            && (self.failures == 0 || now.since(self.down_until) > BACKOFF_MAX)
    }
}
