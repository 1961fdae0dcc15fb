//! Time as the state machines see it: an argument, never a clock that they read.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A moment, in nanoseconds since a start that the caller chose. Wide enough for 584 years.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Time(pub u64);

impl Time {
    /// The moment that never comes: the timeout of something that waits for nothing.
    pub const NEVER: Time = Time(u64::MAX);

    /// How long ago `earlier` was; zero if it is in the future.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    /// Saturates at [`Time::NEVER`].
    fn add(self, duration: Duration) -> Time {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Time(self.0.saturating_add(nanos))
    }
}

impl Sub<Time> for Time {
    type Output = Duration;

    /// Saturates at zero.
    fn sub(self, earlier: Time) -> Duration {
        self.since(earlier)
    }
}
