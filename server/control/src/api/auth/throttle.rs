//! How often a client may fail to log in: [`FAILURES_MAX`] times at once, then once in
//! [`FAILURE_PERIOD`].
//!
//! Limits: [`CLIENTS_MAX`] clients are remembered, each an IPv4 address or an IPv6 /64; of more,
//! the one that may fail again the soonest is forgotten.

use crate::http::Client;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Failures that are taken at once.
const FAILURES_MAX: u32 = 10;

/// After which one more is.
const FAILURE_PERIOD: Duration = Duration::from_secs(10);

/// Clients that are remembered.
const CLIENTS_MAX: usize = 4096;

/// How far ahead of now a client may be.
fn ahead_max() -> Duration {
    FAILURE_PERIOD * (FAILURES_MAX - 1)
}

/// Whose failures are counted together; none for those who come by the socket.
type Key = Option<IpAddr>;

/// See the module.
#[derive(Default)]
pub(super) struct Throttle {
    /// When each client will have paid for its failures.
    paid_at: HashMap<Key, Instant>,
}

fn key(client: Client) -> Key {
    match client {
        Client::Socket => None,
        Client::Address(IpAddr::V4(v4)) => Some(v4.into()),
        Client::Address(IpAddr::V6(v6)) => match v6.to_ipv4_mapped() {
            Some(v4) => Some(v4.into()),
            None => {
                let network = v6.to_bits() >> 64 << 64;
                Some(IpAddr::V6(network.into()))
            }
        },
    }
}

impl Throttle {
    /// How long a client has to wait until it may try, if it has to.
    pub(super) fn wait(&self, client: Client, now: Instant) -> Option<Duration> {
        let paid_at = *self.paid_at.get(&key(client))?;
        let ahead = paid_at.saturating_duration_since(now);
        let wait = ahead.checked_sub(ahead_max())?;
        (!wait.is_zero()).then_some(wait)
    }

    /// A client has failed. Whether it has to wait from now on.
    pub(super) fn failed(&mut self, client: Client, now: Instant) -> bool {
        if self.paid_at.len() >= CLIENTS_MAX && !self.paid_at.contains_key(&key(client)) {
            self.paid_at.retain(|_, paid_at| *paid_at > now);
            let soonest = self.paid_at.iter().min_by_key(|(_, paid_at)| **paid_at);
            let soonest = soonest.map(|(key, _)| *key);
            if self.paid_at.len() >= CLIENTS_MAX
                && let Some(soonest) = soonest
            {
                self.paid_at.remove(&soonest);
            }
        }
        let paid_at = self.paid_at.entry(key(client)).or_insert(now);
        *paid_at = (*paid_at).max(now) + FAILURE_PERIOD;
        self.wait(client, now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn v4(number: u32) -> Client {
        Client::Address(Ipv4Addr::from_bits(number).into())
    }

    fn v6(number: u128) -> Client {
        Client::Address(Ipv6Addr::from_bits(number).into())
    }

    #[test]
    fn who_fails_too_often_waits_and_nobody_else() {
        let mut throttle = Throttle::default();
        let now = Instant::now();
        for number in 1..FAILURES_MAX {
            assert!(!throttle.failed(v4(1), now), "{number}");
        }
        assert_eq!(throttle.wait(v4(1), now), None);
        assert!(throttle.failed(v4(1), now));
        assert_eq!(throttle.wait(v4(1), now), Some(FAILURE_PERIOD));
        assert_eq!(throttle.wait(v4(2), now), None);
        assert_eq!(throttle.wait(Client::Socket, now), None);
        // One more is taken after a period, and no more.
        let later = now + FAILURE_PERIOD;
        assert_eq!(throttle.wait(v4(1), later), None);
        assert!(throttle.failed(v4(1), later));
        let much_later = later + FAILURE_PERIOD * FAILURES_MAX;
        assert!(!throttle.failed(v4(1), much_later));
    }

    #[test]
    fn an_ipv6_network_is_one_client_and_a_mapped_address_is_its_ipv4() {
        let mut throttle = Throttle::default();
        let now = Instant::now();
        let network: u128 = 0x2001_0db8_0000_0001 << 64;
        for host in 0..u128::from(FAILURES_MAX) {
            throttle.failed(v6(network | host), now);
        }
        assert!(throttle.wait(v6(network | 0xffff), now).is_some());
        assert_eq!(throttle.wait(v6(network + (1 << 64)), now), None);
        let mapped = Client::Address(Ipv4Addr::from_bits(7).to_ipv6_mapped().into());
        for _ in 0..FAILURES_MAX {
            throttle.failed(mapped, now);
        }
        assert!(throttle.wait(v4(7), now).is_some());
    }

    #[test]
    fn not_more_clients_are_remembered_than_it_says() {
        let mut throttle = Throttle::default();
        let now = Instant::now();
        for _ in 0..FAILURES_MAX {
            throttle.failed(v4(0), now);
        }
        for number in 1..CLIENTS_MAX as u32 + 200 {
            throttle.failed(v4(number), now);
        }
        assert_eq!(throttle.paid_at.len(), CLIENTS_MAX);
        // Who waits longest is the last to be forgotten.
        assert!(throttle.wait(v4(0), now).is_some());
        let later = now + FAILURE_PERIOD * 2;
        throttle.failed(v4(u32::MAX), later);
        // Those who have paid make room for it.
        assert_eq!(throttle.paid_at.len(), 2);
    }
}
