//! How often one address may ask: a token bucket per IPv4 address or IPv6 /64 network.
//!
//! Limits: [`BUCKETS`] buckets in a table of fixed size. An address is hashed to its bucket with
//! a key drawn at start, so nobody can choose with whom to share one; two who share one share its
//! rate.
//!
//! Does not: read a clock.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use engine::time::Time;

/// Buckets: 512 KiB of memory, whatever comes.
const BUCKETS: usize = 1 << 16;

/// See the module's text.
pub(super) struct Flood {
    /// For each bucket, when its next request would be due if they came evenly.
    next_even: Vec<AtomicU64>,
    key: RandomState,
    gap: Duration,
    burst: Duration,
}

impl Flood {
    /// Lets each address ask `per_second` times a second, and `burst` times at once after a pause.
    pub fn new(per_second: u32, burst: u32) -> Flood {
        let gap = Duration::from_secs(1) / per_second.max(1);
        Flood {
            next_even: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            key: RandomState::new(),
            gap,
            burst: gap * burst.max(1),
        }
    }

    /// Counts a request; false if it is one too many. Loopback is this machine, and always may.
    pub fn allows(&self, now: Time, ip: IpAddr) -> bool {
        if ip.is_loopback() {
            return true;
        }
        let network = match ip {
            IpAddr::V4(ip) => u64::from(ip.to_bits()),
            IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64,
        };
        let bucket = self.key.hash_one((ip.is_ipv6(), network)) as usize % BUCKETS;
        let step = |next: u64| {
            let after = Time(next).max(now) + self.gap;
            (after.since(now) <= self.burst).then_some(after.0)
        };
        let relaxed = Ordering::Relaxed;
        self.next_even[bucket]
            .fetch_update(relaxed, relaxed, step)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let flood = Flood::new(10, 5);
        let now = Time(0) + Duration::from_secs(1000);
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        let allowed = |at: Time, times: usize| (0..times).filter(|_| flood.allows(at, ip)).count();
        assert_eq!(allowed(now, 100), 5);
        assert_eq!(allowed(now + Duration::from_millis(100), 100), 1);
        assert_eq!(allowed(now + Duration::from_millis(300), 100), 2);
        assert_eq!(allowed(now + Duration::from_secs(60), 100), 5);
    }

    #[test]
    fn a_network_of_ipv6_shares_a_bucket_and_others_do_not() {
        let flood = Flood::new(1, 1);
        let now = Time(0) + Duration::from_secs(1000);
        assert!(flood.allows(now, "2001:db8::1".parse().unwrap()));
        assert!(!flood.allows(now, "2001:db8::2".parse().unwrap()));
        // One of a few others may share the bucket by chance, but not all of them.
        let others =
            (1..5u128).map(|n| IpAddr::from((0x2001_0db9_u128 << 96 | n << 64).to_be_bytes()));
        assert!(others.into_iter().any(|ip| flood.allows(now, ip)));
    }

    #[test]
    fn loopback_is_never_refused() {
        let flood = Flood::new(1, 1);
        assert!((0..100).all(|_| flood.allows(Time(0), IpAddr::from([127, 0, 0, 1]))));
    }
}
