//! Whom a torrent that we still download unchokes: those who give (tit-for-tat, BEP 3), or
//! everybody.

use std::cmp::Reverse;
use std::time::Duration;

use super::{ChokerConfig, PeerView};
use crate::time::Time;

/// Fewer slots than this are not worth choosing for: three to those who give, one to try others.
const SLOTS_MIN: u32 = 4;

/// Which peers get slots in a torrent that we still download.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeechPolicy {
    /// Those from whom we download fastest, and some at random so that better ones are found (BEP
    /// 3). A peer that gives nothing, or that owes us blocks and sends none, gets a slot only by
    /// chance.
    TitForTat {
        /// How many peers get one; 0: by the rate at which they take, see [`LeechPolicy`]'s module.
        slots: u32,
    },
    /// Everybody who is interested, as hosts that work for one owner need no incentive. Above the
    /// limit those from whom we download fastest, but nobody is left out for what it gives: hosts
    /// are so paired with each other, and none has many takers and few givers. A limit makes the
    /// last host of a simulated data center a third later (`docs/adr/0013-swarm-figures.md`), so it
    /// is for whoever cannot serve all.
    Datacenter {
        /// How many peers get a slot; 0 counts as 1.
        slots_max: u32,
    },
}

impl Default for LeechPolicy {
    fn default() -> LeechPolicy {
        LeechPolicy::TitForTat { slots: 0 }
    }
}

/// How many slots there are by rate: the square root of six tenths of the rate in kB/s, as
/// BitTorrent's first client had it for its configured rate, but of the measured one, and at least
/// [`SLOTS_MIN`]. A slot then is worth more the faster we are, and there are always enough to find
/// better peers.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlotsByRate {
    /// Since when the views count what was uploaded in the round.
    counted_since: Time,
    /// Bytes per second; falls by an eighth in a round at most.
    rate: u64,
}

impl SlotsByRate {
    pub fn new(now: Time) -> SlotsByRate {
        SlotsByRate {
            counted_since: now,
            rate: 0,
        }
    }

    /// Looks at a round; `due` says that the counters of the views start anew after it.
    pub fn measure(&mut self, uploaded: u64, due: bool, now: Time) {
        // A round out of turn, just after another, says nothing.
        let time = now.since(self.counted_since);
        if time >= Duration::from_secs(1) {
            let rate = u128::from(uploaded) * 1_000 / time.as_millis();
            let rate = u64::try_from(rate).unwrap_or(u64::MAX);
            self.rate = rate.max(if due {
                self.rate - self.rate / 8
            } else {
                self.rate
            });
        }
        if due {
            self.counted_since = now;
        }
    }

    fn slots(&self) -> u32 {
        let kilobytes = self.rate / 1_000;
        let slots = (kilobytes / 10).saturating_mul(6).isqrt();
        u32::try_from(slots).unwrap_or(u32::MAX).max(SLOTS_MIN)
    }
}

impl LeechPolicy {
    /// How many peers get a slot, if there are no others.
    pub(super) fn slots(self, by_rate: &SlotsByRate) -> u32 {
        match self {
            LeechPolicy::TitForTat { slots: 0 } => by_rate.slots(),
            LeechPolicy::TitForTat { slots } => slots,
            LeechPolicy::Datacenter { slots_max } => slots_max.max(1),
        }
    }

    /// Whether a peer may have a slot otherwise than by chance.
    pub(super) fn deserves(self, peer: &PeerView) -> bool {
        match self {
            LeechPolicy::TitForTat { .. } => peer.download_rate > 0 && !peer.snubbed,
            LeechPolicy::Datacenter { .. } => true,
        }
    }
}

/// Where a peer of a torrent that we download stands. Among equals who has a slot keeps it: a choke
/// voids the requests of a peer, so to change for nothing costs both sides.
pub(super) fn rank(peer: &PeerView, config: &ChokerConfig) -> super::Rank {
    (
        !config.leech.deserves(peer),
        Reverse(peer.download_rate),
        peer.choked,
        peer.unchoked_at,
        peer.key,
    )
}
