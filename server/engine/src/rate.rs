//! Upload rate limits: token buckets in levels (global, torrent, peer class), shared by shards in
//! slices.
//!
//! One limit is one [`SharedBucket`], which the I/O layer keeps behind a lock. Each shard holds a
//! [`ShardBucket`] of it: a slice of a few milliseconds of the rate, taken in one locked exchange
//! and then spent without a lock. A slice that is not spent expires and goes back, so an idle shard
//! holds no budget.
//!
//! To send, a shard asks all levels of a peer at once by [`take`]; it gets bytes from all of them
//! or from none. If a level is short, the shard exchanges that level's slice
//! ([`SharedBucket::exchange`]) and tries again, or is told when to ask again. Peers of a shard
//! that wait for one level should wait in line, first come first served: that is the I/O layer's;
//! between shards this module keeps the line.
//!
//! ```text
//! loop {
//!     match take(&mut [&mut global, &mut torrent, &mut class], demand, now) {
//!         Ok(bytes) => { send a batch of at most `bytes`; give_back what the batch left; break }
//!         Err(level) => match shared[level].lock().exchange(&mut local[level], demand, now) {
//!             Ok(()) => continue,
//!             Err(time) => { the peer waits in the line of `level` until `time`; break }
//!         }
//!     }
//! }
//! ```
//!
//! Guarantee, over all shards together: in any window of length `t` at most `rate * t + burst`
//! bytes, exactly and at any rate up to [`RATE_MAX`]. Bytes are charged when a slice is lent, which
//! is up to [`SLICE_LIFE`] before they are sent; the burst that a limit names includes what that
//! adds. A changed limit is seen by every shard within 200 ms ([`WAIT_MAX`]), without being told.
//!
//! Not here: locks, waiting, whose turn it is within a shard.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Time;

mod bucket;

pub use bucket::{BURST_BYTES_MIN, RATE_MAX, RateLimit, SLICE_LIFE, TokenBucket};

/// How long a shard sends without a limit before it asks again whether there is one.
const UNLIMITED_LIFE: Duration = Duration::from_millis(100);

/// How much of the rate all shards together take in one round of slices.
const SLICE_OF_RATE: Duration = Duration::from_millis(4);

/// A shard in line that does not come back for so long after its time loses its place.
const LINE_GRACE: Duration = Duration::from_millis(100);

/// A shard waits so long for all that it wants, rather than for the least of it: fewer, larger
/// slices.
const WAIT_FOR_MORE: Duration = Duration::from_millis(2);

/// The longest that a shard is told to wait, so that it sees a changed limit.
pub const WAIT_MAX: Duration = Duration::from_millis(200);

/// What a sender wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Demand {
    /// The least that is of use, in bytes: the first block. At most [`BURST_BYTES_MIN`].
    pub bytes_min: u32,
    /// The most that can be used now, in bytes: the batch.
    pub bytes_max: u32,
}

/// The index of a shard, from 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ShardIndex(pub u16);

/// What one shard holds of a limit: see the module.
#[derive(Debug)]
pub struct ShardBucket {
    shard: ShardIndex,
    unlimited: bool,
    /// What may still be spent of the slice.
    bytes: u64,
    /// What was spent of the slice.
    spent: u64,
    expires_at: Time,
    /// The [`SharedBucket::generation`] that the slice is from.
    generation: u64,
}

impl ShardBucket {
    /// A shard's part of a limit, with nothing in it yet.
    pub fn new(shard: ShardIndex) -> ShardBucket {
        ShardBucket {
            shard,
            unlimited: false,
            bytes: 0,
            spent: 0,
            expires_at: Time::default(),
            generation: 0,
        }
    }

    /// The bytes that may be spent now; `u64::MAX` if there is no limit.
    pub fn available(&self, now: Time) -> u64 {
        match now < self.expires_at {
            false => 0,
            true if self.unlimited => u64::MAX,
            true => self.bytes,
        }
    }

    /// Puts back bytes that [`take`] granted and that were not sent.
    pub fn give_back(&mut self, bytes: u64) {
        let bytes = bytes.min(self.spent);
        self.spent -= bytes;
        self.bytes += bytes;
    }

    /// When to call [`SharedBucket::release`], so that an idle shard holds nothing; [`Time::NEVER`]
    /// if it holds nothing now.
    pub fn next_timeout(&self) -> Time {
        if self.bytes == 0 {
            Time::NEVER
        } else {
            self.expires_at
        }
    }

    fn spend(&mut self, bytes: u64) {
        if !self.unlimited {
            self.bytes -= bytes;
            self.spent += bytes;
        }
    }
}

/// Takes bytes from all `levels` or from none. Grants as much of the demand as every level has, at
/// least `bytes_min`; else names the first level that is short, whose slice is to be exchanged.
///
/// A level without a limit need not be in the list.
pub fn take(levels: &mut [&mut ShardBucket], demand: Demand, now: Time) -> Result<u32, usize> {
    let mut granted = demand.bytes_max.max(demand.bytes_min);
    for (index, level) in levels.iter().enumerate() {
        let available = level.available(now);
        if available < u64::from(demand.bytes_min) {
            return Err(index);
        }
        granted = u32::try_from(available).map_or(granted, |available| available.min(granted));
    }
    for level in levels.iter_mut() {
        level.spend(u64::from(granted));
    }
    Ok(granted)
}

/// A shard that waits for bytes.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    shard: ShardIndex,
    bytes_min: u64,
    /// What it would like to get.
    bytes_wanted: u64,
    /// When it was told to come back.
    due: Time,
}

/// A limit that all shards share: see the module.
#[derive(Debug)]
pub struct SharedBucket {
    /// The limit as it was set; `None`: no limit.
    limit: Option<RateLimit>,
    /// What may be lent. There is one exactly while there is a limit.
    bucket: Option<TokenBucket>,
    /// How often a bucket was made: a slice of one goes back into no other.
    generation: u64,
    /// Shards in line, first come first served; each at most once.
    line: VecDeque<Waiting>,
    shards: u16,
}

impl SharedBucket {
    /// A limit for `shards` shards; `None`: no limit, until one is set.
    pub fn new(limit: Option<RateLimit>, shards: u16, now: Time) -> SharedBucket {
        SharedBucket {
            limit,
            bucket: limit.map(|limit| TokenBucket::new(limit.for_slices(), now)),
            generation: 1,
            line: VecDeque::new(),
            shards: shards.max(1),
        }
    }

    /// The limit; `None` if there is none.
    pub fn limit(&self) -> Option<RateLimit> {
        self.limit
    }

    /// Changes the limit from `now` on. A limit in the place of none starts empty, because what was
    /// sent just before was not counted.
    pub fn set_limit(&mut self, limit: Option<RateLimit>, now: Time) {
        self.limit = limit;
        let slices = limit.as_ref().map(RateLimit::for_slices);
        match (&mut self.bucket, slices) {
            (Some(bucket), Some(slices)) => bucket.set_limit(slices, now),
            (bucket, slices) => {
                *bucket = slices.map(|slices| TokenBucket::empty(slices, now));
                self.generation += 1;
            }
        }
    }

    /// Takes back what `local` did not spend, and gives it a new slice of at least
    /// `demand.bytes_min`; or says when to ask again. A shard that was refused stands in line:
    /// until it got its slice, left by [`Self::release`] or did not come back, what it waits for is
    /// given to nobody else.
    pub fn exchange(
        &mut self,
        local: &mut ShardBucket,
        demand: Demand,
        now: Time,
    ) -> Result<(), Time> {
        self.settle(local);
        local.generation = self.generation;
        let shard = local.shard;
        let Some(bucket) = &mut self.bucket else {
            self.line.clear();
            local.unlimited = true;
            local.expires_at = now + UNLIMITED_LIFE;
            return Ok(());
        };
        self.line
            .retain(|other| other.shard == shard || now < other.due + LINE_GRACE);
        let limit = bucket.limit();
        let slice = limit.bytes_in(SLICE_OF_RATE) / u64::from(self.shards);
        // Half a slice at least, so that turns in the line are worth about the same.
        let least = u64::from(demand.bytes_min)
            .max(slice / 2)
            .clamp(1, limit.burst_bytes());
        let wanted = slice.max(u64::from(demand.bytes_max)).max(least);
        let before = self.line.iter().take_while(|other| other.shard != shard);
        let (ahead, ahead_wanted) = before.fold((0, 0), |(min, wanted), other| {
            (min + other.bytes_min, wanted + other.bytes_wanted)
        });
        let free = bucket.available(now).saturating_sub(ahead);
        if free < least {
            let more = bucket
                .time_of(ahead_wanted + wanted)
                .min(now + WAIT_FOR_MORE);
            let due = bucket.time_of(ahead + least).max(more).min(now + WAIT_MAX);
            self.stand_in_line(Waiting {
                shard,
                bytes_min: least,
                bytes_wanted: wanted,
                due,
            });
            return Err(due);
        }
        self.line.retain(|other| other.shard != shard);
        local.bytes = bucket.take(least, wanted.min(free), now)?;
        local.expires_at = now + SLICE_LIFE;
        Ok(())
    }

    /// Takes back what `local` did not spend, and its place in the line: when its time has come
    /// ([`ShardBucket::next_timeout`]), and when the shard has nobody left who waits for this
    /// limit.
    pub fn release(&mut self, local: &mut ShardBucket) {
        self.settle(local);
        self.line.retain(|other| other.shard != local.shard);
    }

    /// How many shards stand in line.
    pub fn waiting_shards(&self) -> usize {
        self.line.len()
    }

    /// Panics if the state contradicts itself. For tests and simulation.
    pub fn check_invariants(&self) {
        assert_eq!(self.limit.is_some(), self.bucket.is_some());
        for (index, waiting) in self.line.iter().enumerate() {
            assert!(
                self.line
                    .iter()
                    .skip(index + 1)
                    .all(|other| other.shard != waiting.shard)
            );
        }
    }

    /// Ends the slice of `local`: what it did not spend goes back to where it came from.
    fn settle(&mut self, local: &mut ShardBucket) {
        let unspent = std::mem::take(&mut local.bytes);
        local.spent = 0;
        local.unlimited = false;
        local.expires_at = Time::default();
        if let Some(bucket) = &mut self.bucket
            && local.generation == self.generation
        {
            bucket.give_back(unspent);
        }
    }

    fn stand_in_line(&mut self, waiting: Waiting) {
        match self
            .line
            .iter_mut()
            .find(|other| other.shard == waiting.shard)
        {
            Some(place) => *place = waiting,
            None => self.line.push_back(waiting),
        }
    }
}

#[cfg(test)]
mod tests;
