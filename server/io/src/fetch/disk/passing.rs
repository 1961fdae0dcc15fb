//! Which writes of a download go past the page cache.
//!
//! Past it they cost a third of the CPU time and leave the cache to others, but whoever asks for
//! such a piece makes the disk read it again. So by default a piece goes past the cache while
//! nobody who is connected wants anything of us, and only to a disk that takes such writes quickly:
//! one with heads is faster when the kernel may put them in order first. Figures: ADR 12.
//!
//! Limits: the rate is that of one download, looked at every [`WINDOW_BYTES`], or after
//! [`WINDOW_BUSY`] with something to write. Who shares a disk with other downloads sees his share of
//! it, and may find a quick disk slow: then he writes through the cache, which is correct and costs
//! more. The verdict holds until the download begins again. Does not: open, write, or measure disks
//! (see the module above).

use crate::fetch::PastCache;
use std::cell::Cell;
use std::time::{Duration, Instant};

/// A disk that takes fewer bytes per second past the cache, counting the time in which it had
/// something to write, is written to through it. Disks with heads stay below it with pieces of
/// 1 MiB and less, flash does not.
const RATE_MIN: u64 = 150_000_000;

/// After so many bytes the rate is looked at.
const WINDOW_BYTES: u64 = 128 << 20;

/// After so much time with something to write it is, too: a disk that has not taken a window by then
/// is far below [`RATE_MIN`].
const WINDOW_BUSY: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Passing {
    mode: Cell<PastCache>,
    /// Writes past the cache that are under way.
    under_way: Cell<u32>,
    /// Since when there is one.
    busy_since: Cell<Instant>,
    /// What was written in this window, and the time in which something was under way.
    bytes: Cell<u64>,
    busy: Cell<Duration>,
}

impl Passing {
    pub(super) fn new(mode: PastCache) -> Passing {
        Passing {
            mode: Cell::new(mode),
            under_way: Cell::new(0),
            busy_since: Cell::new(Instant::now()),
            bytes: Cell::new(0),
            busy: Cell::new(Duration::ZERO),
        }
    }

    /// Whether some writes may go past the cache.
    pub(super) fn is_possible(&self) -> bool {
        self.mode.get() != PastCache::Never
    }

    /// Whether what comes now goes past it. `is_asked`: somebody may ask for it at once.
    pub(super) fn takes(&self, is_asked: bool) -> bool {
        match self.mode.get() {
            PastCache::Never => false,
            PastCache::Unasked => !is_asked,
            PastCache::Always => true,
        }
    }

    /// Has all writes go through the cache from now on. False if they do.
    pub(super) fn give_up(&self) -> bool {
        self.mode.replace(PastCache::Never) != PastCache::Never
    }

    /// A write past the cache begins; it ends by [`Write::end`], or when this is dropped.
    pub(super) fn begin(&self, now: Instant) -> Write<'_> {
        if self.under_way.replace(self.under_way.get() + 1) == 0 {
            self.busy_since.set(now);
        }
        Write {
            passing: self,
            is_over: false,
        }
    }

    /// One that began has ended. Returns the rate in bytes per second if the disk turned out to be
    /// too slow for them.
    fn end(&self, bytes: usize, now: Instant) -> Option<u64> {
        let left = self.under_way.get().saturating_sub(1);
        self.under_way.set(left);
        self.bytes.set(self.bytes.get() + bytes as u64);
        let since = self.busy_since.replace(now);
        self.busy
            .set(self.busy.get() + now.saturating_duration_since(since));
        let is_full = self.bytes.get() >= WINDOW_BYTES || self.busy.get() >= WINDOW_BUSY;
        if !is_full {
            return None;
        }
        let (bytes, busy) = (self.bytes.take(), self.busy.take());
        let rate = bytes as f64 / busy.as_secs_f64().max(f64::MIN_POSITIVE);
        let is_slow = self.mode.get() == PastCache::Unasked && rate < RATE_MIN as f64;
        is_slow.then_some(rate as u64)
    }
}

/// A write past the cache that is under way.
pub(super) struct Write<'a> {
    passing: &'a Passing,
    is_over: bool,
}

impl Write<'_> {
    /// It has written so many bytes. Returns the rate in bytes per second if the disk turned out to
    /// be too slow for such writes.
    pub(super) fn end(mut self, bytes: usize, now: Instant) -> Option<u64> {
        self.is_over = true;
        self.passing.end(bytes, now)
    }
}

impl Drop for Write<'_> {
    /// Nobody waits for it any more: what it has written is not known, nor how long it takes.
    fn drop(&mut self) {
        if !self.is_over {
            let left = self.passing.under_way.get().saturating_sub(1);
            self.passing.under_way.set(left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;
    const WINDOW: usize = WINDOW_BYTES as usize / MIB;

    fn after(ms: u64) -> impl Fn(Instant) -> Instant {
        move |since| since + Duration::from_millis(ms)
    }

    #[test]
    fn by_default_only_what_nobody_asks_for_goes_past() {
        let takes = |mode, is_asked| Passing::new(mode).takes(is_asked);
        assert_eq!(
            [false, true].map(|asked| takes(PastCache::Unasked, asked)),
            [true, false]
        );
        assert_eq!(
            [false, true].map(|asked| takes(PastCache::Always, asked)),
            [true; 2]
        );
        assert_eq!(
            [false, true].map(|asked| takes(PastCache::Never, asked)),
            [false; 2]
        );
    }

    /// Writes a window, `at_once` writes of 1 MiB at a time which take `ms` each, and rests for a
    /// second between them.
    fn write(passing: &Passing, at_once: usize, ms: u64) -> Option<u64> {
        let mut now = Instant::now();
        for index in 0..WINDOW / at_once {
            let begun: Vec<_> = (0..at_once).map(|_| passing.begin(now)).collect();
            now = after(ms)(now);
            for (one, write) in (1..).zip(begun) {
                let told = write.end(MIB, now);
                if told.is_some() || index * at_once + one == WINDOW {
                    return told;
                }
            }
            now = after(1_000)(now);
        }
        None
    }

    #[test]
    fn a_slow_disk_is_told_by_the_time_in_which_it_had_something_to_do() {
        let passing = Passing::new(PastCache::Unasked);
        assert_eq!(write(&passing, 1, 5), None);
        assert_eq!(write(&passing, 4, 20), None);
        assert_eq!(write(&passing, 1, 10), Some(104_857_600));
        assert_eq!(write(&passing, 4, 40), Some(104_857_600));
        let always = Passing::new(PastCache::Always);
        assert_eq!(write(&always, 1, 10), None);
    }

    /// Pieces of 64 KiB on a disk with heads.
    #[test]
    fn a_disk_that_is_far_too_slow_is_told_long_before_a_window_is_full() {
        let passing = Passing::new(PastCache::Unasked);
        let start = Instant::now();
        let told = (0..).find_map(|number| {
            let write = passing.begin(after(number * 20)(start));
            Some((number, write.end(64 << 10, after(number * 20 + 16)(start))?))
        });
        assert_eq!(told, Some((312, 4_096_000)), "after 5 s of 16 ms each");
    }

    #[test]
    fn a_write_that_is_dropped_is_not_under_way_for_ever() {
        let passing = Passing::new(PastCache::Unasked);
        let start = Instant::now();
        drop(passing.begin(start));
        assert_eq!(passing.under_way.get(), 0);
        // An hour later: the time between is nobody's.
        let later = after(3_600_000);
        assert_eq!(passing.begin(later(start)).end(MIB, later(start)), None);
        assert_eq!(passing.busy.get(), Duration::ZERO);
    }

    #[test]
    fn it_is_given_up_once() {
        let passing = Passing::new(PastCache::Unasked);
        assert!(passing.is_possible());
        assert!(passing.give_up());
        assert!(!passing.is_possible() && !passing.takes(false));
        assert!(!passing.give_up());
    }
}
