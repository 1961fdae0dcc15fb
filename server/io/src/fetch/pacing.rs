//! How fast a download asks for blocks: within its own limit and the server's.
//!
//! A download that is limited asks peers for no more than it was granted ([`crate::limits`]), and
//! what of a grant their windows do not take goes back at once. When nothing is granted it stands in
//! line for [`ActiveFetch::grant`], which its task waits for ([`crate::fetch::home`]), and asks
//! nobody until then.
//!
//! So over any time no more is asked for than rate and burst allow, whoever answers when. Limits:
//! [`GRANT_BYTES`] at a time, so that several downloads take turns.

use crate::fetch::home::ActiveFetch;
use crate::limits::{self, Levels};
use crate::shard::Shard;
use engine::rate::Demand;
use engine::time::Time;
use proto::limits::BLOCK_LENGTH;
use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;

/// What a download is granted at a time, in bytes.
const GRANT_BYTES: u32 = 16 * BLOCK_LENGTH;

const DEMAND: Demand = Demand {
    bytes_min: BLOCK_LENGTH,
    bytes_max: GRANT_BYTES,
};

/// A download's dealings with its limits.
pub(crate) struct Pacing {
    levels: Levels,
    /// Whether it stands in line, or is about to.
    is_short: Cell<bool>,
}

/// A grant that is waited for.
pub(crate) type Granting = Pin<Box<dyn Future<Output = u32>>>;

impl Pacing {
    pub(crate) fn new(levels: Levels) -> Pacing {
        Pacing {
            levels,
            is_short: Cell::new(false),
        }
    }

    /// Gives back what is not used. Once a second.
    pub(crate) fn tick(&self, now: Time) {
        self.levels.iter().for_each(|level| level.expire(now));
    }
}

impl ActiveFetch {
    /// Asks peers for more, as far as the limits allow it.
    pub(crate) fn refill(&self, now: Time) {
        let pacing = &self.pacing;
        if pacing.is_short.get() {
            return;
        }
        if !limits::are_limited(&pacing.levels) {
            return self.download.borrow_mut().refill(now);
        }
        while self.download.borrow().may_ask() {
            match limits::try_grant(&pacing.levels, DEMAND, now) {
                Some(bytes) if self.spend(bytes, now) => {}
                Some(_) => return,
                None => {
                    pacing.is_short.set(true);
                    return self.news.notify_one();
                }
            }
        }
    }

    /// Asks for what `bytes` are enough for; true if more would be of use.
    fn spend(&self, bytes: u32, now: Time) -> bool {
        let asked = self
            .download
            .borrow_mut()
            .refill_within(u64::from(bytes), now);
        let left = u32::try_from(asked.left).unwrap_or(bytes).min(bytes);
        limits::give_back(&self.pacing.levels, left);
        asked.is_short
    }

    /// Stands in line, if it is to and does not.
    pub(crate) fn stand_in_line(&self, shard: &Rc<Shard>, granting: &mut Option<Granting>) {
        if self.pacing.is_short.get() && granting.is_none() {
            let (shard, levels) = (Rc::clone(shard), self.pacing.levels.clone());
            let grant = async move { limits::grant(&shard, &levels, DEMAND).await };
            *granting = Some(Box::pin(grant));
        }
    }

    /// Goes on with what it stood in line for.
    pub(crate) fn granted(&self, shard: &Shard, bytes: u32) {
        self.pacing.is_short.set(false);
        if self.is_ending() {
            return limits::give_back(&self.pacing.levels, bytes);
        }
        let now = shard.now();
        self.spend(bytes, now);
        self.drive(shard, now);
    }
}

/// Waits for a grant, for ever if none is waited for.
pub(crate) async fn arrive(granting: &mut Option<Granting>) -> u32 {
    match granting {
        Some(under_way) => {
            let bytes = under_way.await;
            *granting = None;
            bytes
        }
        None => std::future::pending().await,
    }
}
