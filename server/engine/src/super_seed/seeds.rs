//! Who else has everything of a super-seeded torrent: when enough have, it needs no care.
//!
//! Who has everything cannot be proven, so what counts is what costs something: an address (of
//! IPv6 the /64) is one, whatever it calls itself, and only one that stayed for a while is. Who has
//! two addresses can end super-seeding all the same, and only that: everybody is served then as by
//! any seed.

use super::{SEED_STAYS, SEEDS_ENOUGH, SEEDS_REMEMBERED};
use crate::time::Time;
use std::collections::VecDeque;
use std::net::IpAddr;

/// See the module. There are no more of them than are enough.
#[derive(Default)]
pub(super) struct Seeds(VecDeque<(IpAddr, Time)>);

impl Seeds {
    /// One is there at `now` who has had everything since `complete_at`.
    pub fn see(&mut self, stranger: IpAddr, complete_at: Time, now: Time) {
        if now.since(complete_at) < SEED_STAYS {
            return;
        }
        self.0.retain(|(known, _)| *known != stranger);
        self.0.push_back((stranger, now));
        if self.0.len() > SEEDS_ENOUGH {
            self.0.pop_front();
        }
    }

    /// Forgets those that were not seen for long.
    pub fn forget(&mut self, now: Time) {
        self.0
            .retain(|(_, seen)| now.since(*seen) < SEEDS_REMEMBERED);
    }

    /// Whether they are enough.
    pub fn are_enough(&self) -> bool {
        self.0.len() >= SEEDS_ENOUGH
    }
}
