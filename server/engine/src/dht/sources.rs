//! What strangers may send and be sent: a pace for each source, a mute for whoever exceeds it, and
//! who has proven to be where it says.
//!
//! A table of fixed size. Two sources that fall into one place share its pace, the later one takes
//! its name; which fall together depends on a secret, so nobody can choose whom to share with. A
//! mute is its source's alone, and pays for what that took ahead: others in the place are heard. Of
//! a place one source at a time is muted, the last that sent too much.

use super::secret::Secret;
use super::site::Site;
use crate::time::Time;
use std::time::Duration;

/// How long it is believed that a source receives what is sent to its address.
const PROVEN_FOR: Duration = Duration::from_secs(600);

/// A pace: so many units a second, so many at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Nanoseconds that a unit takes.
    unit_ns: u64,
    /// Nanoseconds that may be taken ahead.
    ahead_ns: u64,
}

impl Pace {
    pub(super) fn new(per_second: u32, at_once: u32) -> Pace {
        let unit_ns = 1_000_000_000 / u64::from(per_second.max(1));
        Pace {
            unit_ns,
            ahead_ns: unit_ns * u64::from(at_once.max(1)),
        }
    }

    /// Takes `units` if the pace allows it; `spent` is until when is taken.
    pub(super) fn take(&self, spent: &mut Time, units: u64, now: Time) -> bool {
        let cost = Duration::from_nanos(self.unit_ns.saturating_mul(units));
        let after = (*spent).max(now) + cost;
        let allowed = after.since(now) <= Duration::from_nanos(self.ahead_ns);
        if allowed {
            *spent = after;
        }
        allowed
    }

    /// Takes `units` whether the pace allows it or not: it makes up for them later.
    pub(super) fn charge(&self, spent: &mut Time, units: u64, now: Time) {
        let cost = Duration::from_nanos(self.unit_ns.saturating_mul(units));
        *spent = (*spent).max(now) + cost;
    }

    /// When `take` of one unit would be allowed.
    pub(super) fn ready_at(&self, spent: Time) -> Time {
        let wait = self.ahead_ns - self.unit_ns;
        Time(spent.0.saturating_sub(wait))
    }
}

#[derive(Clone, Copy, Default)]
struct Place {
    site: Option<Site>,
    spent: Time,
    muted: Option<Site>,
    muted_until: Time,
    proven_until: Time,
}

/// See the module.
pub(super) struct Sources {
    secret: Secret,
    places: Vec<Place>,
    pace: Pace,
    mute: Duration,
}

impl Sources {
    /// A table of so many places, 120 bytes each.
    pub(super) fn new(secret: Secret, places: usize, pace: Pace, mute: Duration) -> Sources {
        Sources {
            secret,
            places: vec![Place::default(); places.max(1)],
            pace,
            mute,
        }
    }

    /// Whether a datagram from here is to be looked at.
    pub(super) fn admit(&mut self, site: Site, now: Time) -> bool {
        let (pace, mute) = (self.pace, self.mute);
        let place = self.place(site);
        if place.muted == Some(site) && place.muted_until > now {
            return false;
        }
        if place.site != Some(site) {
            place.site = Some(site);
            place.proven_until = Time(0);
        }
        let admitted = pace.take(&mut place.spent, 1, now);
        if !admitted {
            (place.muted, place.muted_until) = (Some(site), now + mute);
            place.spent = now;
        }
        admitted
    }

    /// The source has answered with what only who received our datagram can know.
    pub(super) fn prove(&mut self, site: Site, now: Time) {
        let place = self.place(site);
        if place.site == Some(site) {
            place.proven_until = now + PROVEN_FOR;
        }
    }

    /// Whether it has, not long ago.
    pub(super) fn is_proven(&mut self, site: Site, now: Time) -> bool {
        let place = self.place(site);
        place.site == Some(site) && place.proven_until > now
    }

    fn place(&mut self, site: Site) -> &mut Place {
        let index = self.secret.tag(&site.to_bytes()) % self.places.len() as u64;
        &mut self.places[index as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn site(text: &str) -> Site {
        Site::of(text.parse::<SocketAddr>().unwrap())
    }

    fn sources() -> Sources {
        let secret = Secret::new([7; 16]);
        Sources::new(secret, 1_024, Pace::new(10, 20), Duration::from_secs(60))
    }

    #[test]
    fn a_pace_allows_its_rate_and_what_it_saved() {
        let pace = Pace::new(10, 20);
        let mut spent = Time(0);
        let mut taken = 0;
        // A second of everything that can be had, in steps of a millisecond.
        for millisecond in 0..1_000 {
            let now = Time(0) + Duration::from_millis(millisecond);
            while pace.take(&mut spent, 1, now) {
                taken += 1;
            }
            assert!(pace.ready_at(spent) > now);
        }
        assert!((28..=30).contains(&taken), "{taken}");
        let ready = pace.ready_at(spent);
        assert!(pace.take(&mut spent, 1, ready));
        assert!(!pace.take(&mut spent, 21, ready + Duration::from_secs(100)));
    }

    #[test]
    fn who_floods_is_muted_and_others_are_not() {
        let mut sources = sources();
        let (flood, quiet) = (site("9.0.0.1:1"), site("9.0.0.2:1"));
        let mut admitted = 0;
        for millisecond in 0..10_000 {
            let now = Time(0) + Duration::from_millis(millisecond);
            admitted += u32::from(sources.admit(flood, now));
            if millisecond.is_multiple_of(200) {
                assert!(sources.admit(quiet, now));
            }
        }
        assert!(admitted <= 21, "{admitted}");
        assert!(sources.admit(flood, Time(0) + Duration::from_secs(61)));
    }

    #[test]
    fn who_shares_a_place_with_a_muted_one_is_heard() {
        let secret = Secret::new([7; 16]);
        let mut sources = Sources::new(secret, 1, Pace::new(10, 20), Duration::from_secs(60));
        let (flood, quiet) = (site("9.0.0.1:1"), site("9.0.0.2:1"));
        let mut admitted = 0;
        for second in 1..50 {
            let now = Time(0) + Duration::from_secs(second);
            for _ in 0..100 {
                admitted += u32::from(sources.admit(flood, now));
            }
            assert!(sources.admit(quiet, now), "after {second} s");
        }
        assert_eq!(admitted, 20, "the mute goes on meanwhile");
    }

    #[test]
    fn proof_is_of_one_source_and_ends() {
        let mut sources = sources();
        let (one, other) = (site("9.0.0.1:1"), site("9.0.0.2:1"));
        let now = Time(0) + Duration::from_secs(1);
        assert!(sources.admit(one, now) && sources.admit(other, now));
        sources.prove(one, now);
        assert!(sources.is_proven(one, now) && !sources.is_proven(other, now));
        assert!(!sources.is_proven(one, now + PROVEN_FOR));
    }

    /// However many sources there are, what they share is their pace, never the proof.
    #[test]
    fn a_place_that_changes_hands_loses_its_proof() {
        let mut sources = sources();
        let now = Time(0) + Duration::from_secs(1);
        let first = site("9.0.0.1:1");
        sources.admit(first, now);
        sources.prove(first, now);
        for number in 0..20_000_u32 {
            let ip = std::net::Ipv4Addr::from(0x0a00_0000 - 1 - number);
            let other = Site::of((ip, 1).into());
            sources.admit(other, now);
            assert!(!sources.is_proven(other, now));
        }
        assert!(!sources.is_proven(first, now));
    }
}
