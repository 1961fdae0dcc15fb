//! Stamps of files: when two are alike, the bytes are taken to be too.
//!
//! A stamp is only worth something if any later change shows in it. The kernel stamps changes with
//! a clock that may tick every 1 to 10 ms, so a file that changed within the current tick could
//! change again and keep its stamp: such a file is waited for until its times lie [`SETTLE_TIME`]
//! in the past.
//!
//! Limits: file systems that count time in whole seconds (FAT: two) keep their own, coarser
//! blindness.

use super::FileFault;
use engine::layout::FileStamp;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How old the times of a file must be before its stamp is trusted: twice the coarsest kernel tick
/// (100 Hz).
pub const SETTLE_TIME: Duration = Duration::from_millis(20);

/// A time this far in the future is a clock's fault and is waited for; one farther off was set by
/// hand.
const FUTURE_WAIT_MAX: Duration = Duration::from_secs(1);

/// How often a file that keeps changing is waited for before it is given up.
const SETTLE_ATTEMPTS_MAX: u32 = 50;

/// The stamp of a file whose metadata is `metadata`.
pub fn stamp_of(metadata: &Metadata) -> FileStamp {
    let nanoseconds = |seconds, nanoseconds: i64| {
        FileStamp::nanoseconds(seconds, u32::try_from(nanoseconds).unwrap_or(0))
    };
    FileStamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.len(),
        mtime_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
        ctime_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
    }
}

/// Asks `metadata` until the times of the file are old enough for its stamp to show every later
/// change.
///
/// Blocks for [`SETTLE_TIME`] at most for a file at rest; one that keeps changing is
/// [`FileFault::Restless`].
pub fn settled(
    mut metadata: impl FnMut() -> Result<Metadata, FileFault>,
) -> Result<Metadata, FileFault> {
    for _ in 0..SETTLE_ATTEMPTS_MAX {
        let found = metadata()?;
        match unsettled_for(&stamp_of(&found), now_ns()) {
            None => return Ok(found),
            Some(wait) => std::thread::sleep(wait),
        }
    }
    Err(FileFault::Restless)
}

/// How long to wait before a file with this stamp, taken at `now_ns`, can be stamped; `None` if it
/// can be.
fn unsettled_for(stamp: &FileStamp, now_ns: i64) -> Option<Duration> {
    let settle_ns = SETTLE_TIME.as_nanos() as i64;
    let future_ns = FUTURE_WAIT_MAX.as_nanos() as i64;
    [stamp.mtime_ns, stamp.ctime_ns]
        .into_iter()
        .filter(|&time| time > now_ns.saturating_sub(settle_ns))
        .filter(|&time| time <= now_ns.saturating_add(future_ns))
        .map(|time| time.saturating_add(settle_ns).saturating_sub(now_ns))
        .max()
        .map(|wait| Duration::from_nanos(wait.unsigned_abs().max(1)))
}

/// The wall clock, in nanoseconds since 1970: the clock that file times are taken from.
fn now_ns() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    fn stamp(mtime_ns: i64, ctime_ns: i64) -> FileStamp {
        FileStamp {
            mtime_ns,
            ctime_ns,
            ..FileStamp::default()
        }
    }

    #[test]
    fn only_recent_times_are_waited_for() {
        let now = 1_000_000 * MS;
        let wait = |mtime, ctime| unsettled_for(&stamp(mtime, ctime), now);
        assert_eq!(wait(now - 20 * MS, now - 30 * MS), None);
        assert_eq!(
            wait(now - 19 * MS, now - 30 * MS),
            Some(Duration::from_millis(1))
        );
        assert_eq!(
            wait(now - 19 * MS, now - 5 * MS),
            Some(Duration::from_millis(15))
        );
        assert_eq!(wait(now, 0), Some(Duration::from_millis(20)));
        assert_eq!(wait(0, now + 100 * MS), Some(Duration::from_millis(120)));
        // Set by hand to next year: waiting would never end, and the change time guards the file.
        assert_eq!(wait(now + 31_536_000_000 * MS, 0), None);
        assert_eq!(wait(i64::MAX, i64::MIN), None);
    }

    #[test]
    fn a_change_after_a_settled_stamp_shows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for round in 0..20_u8 {
            std::fs::write(&path, [round; 10]).unwrap();
            let before = settled(|| Ok(std::fs::metadata(&path).unwrap())).unwrap();
            std::fs::write(&path, [round + 100; 10]).unwrap();
            let after = std::fs::metadata(&path).unwrap();
            assert_ne!(stamp_of(&before), stamp_of(&after), "round {round}");
        }
    }
}
