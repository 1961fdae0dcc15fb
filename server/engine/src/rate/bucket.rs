//! One token bucket: exact integer arithmetic in virtual time.

use std::time::Duration;

use crate::time::Time;

/// Nanoseconds in a second; also the unit of the remainder: 10^-9 byte.
const NANOS: u64 = 1_000_000_000;

/// What every burst has room for, in bytes: one batch must always fit, or it would wait for ever.
pub const BURST_BYTES_MIN: u64 = crate::queue::BATCH_BYTES_MAX as u64;

/// The greatest rate that is told from no limit, in bytes per second: 1 TB/s.
pub const RATE_MAX: u64 = 1_000_000_000_000;

/// How long a slice of a shared bucket may be spent after it was taken.
pub const SLICE_LIFE: Duration = Duration::from_millis(20);

/// A limit: how fast, and how much at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RateLimit {
    bytes_per_second: u64,
    burst_bytes: u64,
}

impl RateLimit {
    /// `bytes_per_second` with a burst of 50 ms and a batch. The rate is held between 1 and
    /// [`RATE_MAX`].
    pub fn new(bytes_per_second: u64) -> RateLimit {
        RateLimit::with_burst(bytes_per_second, bytes_per_second / 20 + BURST_BYTES_MIN)
    }

    /// `bytes_per_second` with a burst of `burst_bytes`, held at [`SLICE_LIFE`] of the rate plus
    /// [`BURST_BYTES_MIN`] or more.
    pub fn with_burst(bytes_per_second: u64, burst_bytes: u64) -> RateLimit {
        let bytes_per_second = bytes_per_second.clamp(1, RATE_MAX);
        let limit = RateLimit {
            bytes_per_second,
            burst_bytes: burst_bytes.min(RATE_MAX),
        };
        let least = limit.bytes_late() + BURST_BYTES_MIN;
        RateLimit {
            burst_bytes: limit.burst_bytes.max(least),
            ..limit
        }
    }

    /// How fast, in bytes per second.
    pub fn bytes_per_second(&self) -> u64 {
        self.bytes_per_second
    }

    /// How much at once, in bytes.
    pub fn burst_bytes(&self) -> u64 {
        self.burst_bytes
    }

    /// The bytes that come in `duration`, rounded down.
    pub fn bytes_in(&self, duration: Duration) -> u64 {
        let bytes = u128::from(self.bytes_per_second) * duration.as_nanos() / u128::from(NANOS);
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// The limit for bytes that are lent in slices. They are sent up to [`SLICE_LIFE`] after they
    /// were lent, so what is sent in a window was lent in a window that is longer by that.
    pub(super) fn for_slices(&self) -> RateLimit {
        RateLimit {
            burst_bytes: self.burst_bytes - self.bytes_late(),
            ..*self
        }
    }

    /// The bytes that come in [`SLICE_LIFE`], rounded up.
    fn bytes_late(&self) -> u64 {
        self.bytes_in(SLICE_LIFE) + 1
    }
}

/// A token bucket. In any window of length `t` no more than `rate * t + burst` bytes are taken, and
/// no part of a byte is lost between refills: what does not make a whole byte is kept.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    limit: RateLimit,
    /// Whole bytes.
    tokens: u64,
    /// The rest, in 10^-9 byte; below [`NANOS`], and 0 in a full bucket.
    remainder: u64,
    refilled_at: Time,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(limit: RateLimit, now: Time) -> TokenBucket {
        TokenBucket {
            tokens: limit.burst_bytes,
            ..TokenBucket::empty(limit, now)
        }
    }

    /// A bucket with nothing in it: for a limit that is set while bytes flow.
    pub fn empty(limit: RateLimit, now: Time) -> TokenBucket {
        TokenBucket {
            limit,
            tokens: 0,
            remainder: 0,
            refilled_at: now,
        }
    }

    /// The limit.
    pub fn limit(&self) -> RateLimit {
        self.limit
    }

    /// Changes the limit from `now` on. What is in the bucket stays, as far as it fits.
    pub fn set_limit(&mut self, limit: RateLimit, now: Time) {
        self.refill(now);
        self.limit = limit;
        self.clip();
    }

    /// The bytes that may be taken now.
    pub fn available(&mut self, now: Time) -> u64 {
        self.refill(now);
        self.tokens
    }

    /// Takes up to `bytes_max` bytes, but at least `bytes_min`; or takes nothing and says when to
    /// ask again. A `bytes_min` over the burst counts as the burst.
    pub fn take(&mut self, bytes_min: u64, bytes_max: u64, now: Time) -> Result<u64, Time> {
        self.refill(now);
        let least = bytes_min.min(self.limit.burst_bytes);
        if self.tokens < least {
            return Err(self.time_of(least));
        }
        let taken = self.tokens.min(bytes_max.max(least));
        self.tokens -= taken;
        Ok(taken)
    }

    /// Puts back bytes that were taken but not used.
    pub fn give_back(&mut self, bytes: u64) {
        self.tokens = self.tokens.saturating_add(bytes);
        self.clip();
    }

    /// When the bucket will hold `bytes`, if nothing is taken and the burst has room for them.
    /// Exact: at that nanosecond, and not one before.
    pub fn time_of(&self, bytes: u64) -> Time {
        let missing = u128::from(bytes.saturating_sub(self.tokens)) * u128::from(NANOS);
        let missing = missing.saturating_sub(u128::from(self.remainder));
        let nanos = missing.div_ceil(u128::from(self.limit.bytes_per_second));
        self.refilled_at + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Adds what has come since the last time, as far as the burst has room.
    fn refill(&mut self, now: Time) {
        let elapsed = now.0.saturating_sub(self.refilled_at.0);
        if elapsed == 0 {
            return;
        }
        self.refilled_at = now;
        let rate = self.limit.bytes_per_second;
        let product = rate
            .checked_mul(elapsed)
            .and_then(|bytes| bytes.checked_add(self.remainder));
        // Nearly always 64 bits are enough: 18 s at 1 GB/s.
        let (whole, remainder) = match product {
            Some(product) => (product / NANOS, product % NANOS),
            None => {
                let product = u128::from(rate) * u128::from(elapsed) + u128::from(self.remainder);
                let whole = u64::try_from(product / u128::from(NANOS)).unwrap_or(u64::MAX);
                (whole, (product % u128::from(NANOS)) as u64)
            }
        };
        self.tokens = self.tokens.saturating_add(whole);
        self.remainder = remainder;
        self.clip();
    }

    fn clip(&mut self) {
        if self.tokens >= self.limit.burst_bytes {
            self.tokens = self.limit.burst_bytes;
            self.remainder = 0;
        }
    }
}
