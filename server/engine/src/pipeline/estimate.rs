//! What the answered requests tell of a peer: its rate and its round trip.
//!
//! *Rate*: each answer gives a sample, the bytes that came between the sending of its request and
//! now, over that time ("delivery rate", Cheng, Cardwell and others,
//! draft-cheng-iccrg-delivery-rate-estimation). While few requests are outstanding such a sample is
//! what these few allow; so a window of twice rate times round trip doubles each round until the
//! link is full, and no more then. The estimate is the largest of the last one to two seconds, or
//! rounds if they are longer.
//!
//! *Round trip*: from request to block, so with the time in the peer's queue. The base is the least
//! seen; it is measured anew now and then with an empty queue ([`crate::pipeline`]), or it would
//! never grow.
//!
//! Not here: how many requests follow from it.

use std::time::Duration;

use super::outstanding::Sent;
use super::pauses::Pauses;
use crate::time::Time;

/// A shorter sample counts as so long: what one read of a socket brings says nothing about a rate.
const SAMPLE_INTERVAL_MIN: Duration = Duration::from_millis(1);

/// How long the larger half of the window of rate samples lasts at least.
const RATE_WINDOW_HALF: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Estimate {
    delivered: u64,
    delivered_at: Time,
    /// The largest rates, in bytes per second, of the current half of the window and of the one
    /// before.
    rate: u64,
    rate_before: u64,
    half_started_at: Time,
    base: Option<Duration>,
    /// The smoothed round trip and its mean deviation, by the gains of RFC 6298.
    smoothed: Duration,
    deviation: Duration,
    pauses: Pauses,
}

impl Estimate {
    /// The bytes delivered so far, and when the last of them came, for a request that is about to
    /// be sent. If none is outstanding, the time till now was our own silence and does not count.
    pub fn mark(&mut self, idle: bool, now: Time) -> (u64, Time) {
        if idle {
            self.delivered_at = now;
        }
        (self.delivered, self.delivered_at)
    }

    /// Takes the answer to a request, when `outstanding` bytes were waited for, its own among them;
    /// returns its round trip.
    pub fn answered(&mut self, sent: &Sent, outstanding: u64, now: Time) -> Duration {
        let gap = now.since(self.delivered_at);
        self.pauses
            .came(sent.block.length, sent.at, gap, outstanding, now);
        self.delivered += u64::from(sent.block.length);
        self.delivered_at = now;
        let interval = now.since(sent.delivered_at).max(SAMPLE_INTERVAL_MIN);
        let bytes = self.delivered.saturating_sub(sent.delivered);
        self.add_rate(per_second(bytes, interval), now);
        let round_trip = now.since(sent.at);
        match self.base {
            None => {
                self.smoothed = round_trip;
                self.deviation = round_trip / 2;
            }
            Some(_) => {
                let error = self.smoothed.abs_diff(round_trip);
                self.deviation = (self.deviation * 3 + error) / 4;
                self.smoothed = (self.smoothed * 7 + round_trip) / 8;
            }
        }
        self.base = Some(self.base.map_or(round_trip, |base| base.min(round_trip)));
        round_trip
    }

    /// The rate in bytes per second; `None` before the first answer.
    pub fn rate(&self) -> Option<u64> {
        let rate = self.rate.max(self.rate_before);
        (rate > 0).then_some(rate)
    }

    /// The round trip without waiting in the peer's queue; `None` before the first answer.
    pub fn base(&self) -> Option<Duration> {
        self.base
    }

    /// How long the peer pauses with an empty queue.
    pub fn pause(&self) -> Duration {
        self.pauses.longest()
    }

    /// How much round trips vary.
    pub fn deviation(&self) -> Duration {
        self.deviation
    }

    /// Sets the base to what was measured with an empty queue.
    pub fn set_base(&mut self, base: Duration) {
        self.base = Some(base);
    }

    /// Forgets the rate, because the peer stopped sending.
    pub fn forget_rate(&mut self) {
        (self.rate, self.rate_before) = (0, 0);
    }

    fn add_rate(&mut self, rate: u64, now: Time) {
        let half = RATE_WINDOW_HALF.max(2 * self.base.unwrap_or_default());
        let age = now.since(self.half_started_at);
        if age >= half {
            self.rate_before = if age >= 2 * half { 0 } else { self.rate };
            (self.rate, self.half_started_at) = (0, now);
        }
        self.rate = self.rate.max(rate);
    }
}

/// Bytes per second.
fn per_second(bytes: u64, interval: Duration) -> u64 {
    let rate = u128::from(bytes) * 1_000_000_000 / interval.as_nanos().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// What `rate` bytes per second bring in `time`.
pub(super) fn bytes_in(rate: u64, time: Duration) -> u64 {
    let bytes = u128::from(rate).saturating_mul(time.as_nanos()) / 1_000_000_000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// How long `bytes` take at `rate` bytes per second.
pub(super) fn time_for(bytes: u64, rate: u64) -> Duration {
    let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proto::ids::PieceIndex;
    use proto::wire::BlockRequest;

    use super::*;

    const BLOCK: u32 = 16_384;

    fn at_ms(ms: u64) -> Time {
        Time(ms * 1_000_000)
    }

    fn sent(estimate: &mut Estimate, idle: bool, now: Time) -> Sent {
        let (delivered, delivered_at) = estimate.mark(idle, now);
        Sent {
            block: BlockRequest {
                piece: PieceIndex(0),
                begin: 0,
                length: BLOCK,
            },
            at: now,
            deadline: now,
            order: 0,
            ahead: 0,
            delivered,
            delivered_at,
        }
    }

    #[test]
    fn a_sample_is_what_came_since_its_request() {
        let mut estimate = Estimate::default();
        assert_eq!((estimate.rate(), estimate.base()), (None, None));
        let requests = [0, 0, 0, 0].map(|ms| sent(&mut estimate, true, at_ms(ms)));
        for request in &requests {
            estimate.answered(request, u64::from(BLOCK), at_ms(100));
        }
        // Four blocks in a tenth of a second.
        assert_eq!(estimate.rate(), Some(40 * u64::from(BLOCK)));
        assert_eq!(estimate.base(), Some(Duration::from_millis(100)));
        // Ten seconds of our own silence are not the peer's.
        let late = sent(&mut estimate, true, at_ms(10_100));
        estimate.answered(&late, u64::from(BLOCK), at_ms(10_150));
        assert_eq!(estimate.rate(), Some(20 * u64::from(BLOCK)));
        assert_eq!(estimate.base(), Some(Duration::from_millis(50)));
    }

    #[test]
    fn the_largest_rate_is_forgotten_after_two_halves() {
        let mut estimate = Estimate::default();
        let mut rates = Vec::new();
        let times = [
            (0, 10),
            (600, 700),
            (1_100, 1_200),
            (1_800, 1_900),
            (2_300, 2_400),
        ];
        for (from, to) in times {
            let request = sent(&mut estimate, true, at_ms(from));
            estimate.answered(&request, u64::from(BLOCK), at_ms(to));
            rates.push(estimate.rate().unwrap_or(0) / u64::from(BLOCK));
        }
        assert_eq!(rates, [100, 100, 100, 100, 10]);
        estimate.forget_rate();
        assert_eq!(estimate.rate(), None);
    }

    #[test]
    fn a_read_that_brings_much_at_once_is_no_rate() {
        let mut estimate = Estimate::default();
        let request = sent(&mut estimate, true, at_ms(5));
        estimate.answered(&request, u64::from(BLOCK), at_ms(5));
        assert_eq!(estimate.rate(), Some(1_000 * u64::from(BLOCK)));
    }

    #[test]
    fn times_and_bytes_do_not_overflow() {
        assert_eq!(bytes_in(u64::MAX, Duration::MAX), u64::MAX);
        assert_eq!(time_for(u64::MAX, 0), Duration::from_nanos(u64::MAX));
        assert_eq!(bytes_in(62_500_000, Duration::from_millis(100)), 6_250_000);
        assert_eq!(time_for(6_250_000, 62_500_000), Duration::from_millis(100));
    }
}
