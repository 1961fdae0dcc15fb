//! What is known of the files of a watch folder, and which of them are due: pure, time is an
//! argument.
//!
//! What is due is kept in order beside the files, so that one more costs the same however many stay
//! in the folder. Limits: the files are those of a look, of which there are so many as `look.rs`
//! lets be seen. Does not: touch the disk.

use super::job::Outcome;
use super::spot::Stamp;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// How long a file that may still be written is left alone before it is looked at again.
const AGAIN: Duration = Duration::from_secs(1);

/// How long after a failure a file is tried again, at first and at most; it doubles in between.
const RETRY_MIN: Duration = Duration::from_secs(2);
/// See [`RETRY_MIN`].
const RETRY_MAX: Duration = Duration::from_secs(600);

/// What is known of a file.
pub(super) struct File {
    pub stamp: Stamp,
    /// Since when it has been so.
    pub since: Instant,
    state: State,
    /// Whether it was read, and nothing could be made of it.
    pub is_incomplete: bool,
    /// Failures since it has been so.
    tries: u32,
    /// Those of them that were the web's.
    pub fetches_failed: u32,
    /// The last reason that was told.
    told: String,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum State {
    /// It is to be dealt with at this time.
    Due(Instant),
    /// It is being dealt with.
    Busy,
    /// It stays, and there is nothing to do as long as it is what it is.
    Done,
}

impl File {
    fn new(stamp: Stamp, state: State, now: Instant) -> File {
        File {
            stamp,
            since: now,
            state,
            is_incomplete: false,
            tries: 0,
            fetches_failed: 0,
            told: String::new(),
        }
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Files {
    files: BTreeMap<PathBuf, File>,
    /// Those whose state is [`State::Due`], by their times.
    due: BTreeSet<(Instant, PathBuf)>,
}

impl Files {
    /// A file is there, with this stamp: due at once if it is new or another one.
    pub(super) fn noted(&mut self, path: PathBuf, stamp: Stamp, now: Instant) {
        let known = self.files.get(&path);
        if known.is_some_and(|file| file.state == State::Busy || file.stamp == stamp) {
            return;
        }
        self.forget(&path);
        self.due.insert((now, path.clone()));
        let file = File::new(stamp, State::Due(now), now);
        self.files.insert(path, file);
    }

    /// Forgets the files that are not there any more, but for those that are being dealt with.
    pub(super) fn retain(&mut self, is_there: impl Fn(&Path) -> bool) {
        self.files
            .retain(|path, file| file.state == State::Busy || is_there(path));
        let files = &self.files;
        self.due.retain(|(_, path)| files.contains_key(path));
    }

    /// The next file that is due, which is being dealt with from here on.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<(PathBuf, &File)> {
        let (at, _) = self.due.first()?;
        if *at > now {
            return None;
        }
        let (_, path) = self.due.pop_first()?;
        let file = self.files.get_mut(&path)?;
        file.state = State::Busy;
        Some((path, file))
    }

    /// A file has been dealt with. If that failed, and for another reason than before: the reason.
    pub(super) fn ended(&mut self, path: &Path, outcome: Outcome, now: Instant) -> Option<String> {
        let file = self.files.get_mut(path)?;
        match outcome {
            Outcome::Gone => self.forget(path),
            Outcome::Stays => self.set(path, State::Done),
            Outcome::Wait(stamp) => {
                if stamp != file.stamp {
                    *file = File::new(stamp, State::Busy, now);
                }
                self.set(path, State::Due(now + AGAIN));
            }
            Outcome::Incomplete => {
                file.is_incomplete = true;
                self.set(path, State::Due(now + AGAIN));
            }
            Outcome::Later { why, is_of_web } => {
                let pause = RETRY_MIN.saturating_mul(1 << file.tries.min(16));
                file.tries += 1;
                file.fetches_failed += u32::from(is_of_web);
                let is_told = file.told == why;
                file.told.clone_from(&why);
                self.set(path, State::Due(now + pause.min(RETRY_MAX)));
                return (!is_told).then_some(why);
            }
        }
        None
    }

    fn forget(&mut self, path: &Path) {
        self.set(path, State::Done);
        self.files.remove(path);
    }

    /// Has a file that is known be in this state.
    fn set(&mut self, path: &Path, state: State) {
        let Some(file) = self.files.get_mut(path) else {
            return;
        };
        if let State::Due(at) = std::mem::replace(&mut file.state, state) {
            self.due.remove(&(at, path.to_owned()));
        }
        if let State::Due(at) = state {
            self.due.insert((at, path.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stamp(bytes: u64) -> Stamp {
        Stamp {
            device: 1,
            inode: 1,
            bytes,
            changed_ns: 1,
        }
    }

    fn later(why: &str, is_of_web: bool) -> Outcome {
        Outcome::Later {
            why: why.to_owned(),
            is_of_web,
        }
    }

    impl Files {
        fn check_invariants(&self) {
            let due = self
                .files
                .iter()
                .filter_map(|(path, file)| match file.state {
                    State::Due(at) => Some((at, path.clone())),
                    State::Busy | State::Done => None,
                });
            assert_eq!(due.collect::<BTreeSet<_>>(), self.due);
        }
    }

    /// Nothing is walked to find what is due: what stays is not among it.
    #[test]
    fn files_that_stay_cost_nothing_when_another_is_due() {
        let now = Instant::now();
        let mut files = Files::default();
        for number in 0..1000 {
            files.noted(format!("{number}").into(), stamp(1), now);
        }
        for left in (0..1000).rev() {
            let (path, _) = files.take_due(now).unwrap();
            assert!(files.ended(&path, Outcome::Stays, now).is_none());
            assert_eq!(files.due.len(), left);
        }
        assert!(files.take_due(now).is_none());
        files.noted("7".into(), stamp(2), now);
        assert_eq!(files.take_due(now).unwrap().0, Path::new("7"));
        assert_eq!(files.files.len(), 1000);
    }

    /// A state disk that fails says nothing of a URL; each reason is told once.
    #[test]
    fn failures_are_counted_by_whose_they_are_and_told_once() {
        let mut now = Instant::now();
        let mut files = Files::default();
        let path = Path::new("a.url");
        files.noted(path.into(), stamp(1), now);
        let outcomes = [("disk", false, 0), ("disk", false, 0), ("web", true, 1)];
        let mut before = "";
        for (number, (why, is_of_web, counted)) in outcomes.into_iter().enumerate() {
            assert!(files.take_due(now).is_some());
            let told = files.ended(path, later(why, is_of_web), now);
            assert_eq!(told.is_some(), before != why);
            before = why;
            let pause = RETRY_MIN * (1 << number);
            assert!(files.take_due(now + pause - AGAIN).is_none());
            now += pause;
            assert_eq!(files.files[path].fetches_failed, counted);
        }
        // Another content is another file.
        assert!(files.take_due(now).is_some());
        files.ended(path, Outcome::Wait(stamp(2)), now);
        assert_eq!(files.files[path].fetches_failed, 0);
    }

    proptest! {
        #[test]
        fn what_is_due_is_what_the_files_say(steps in prop::collection::vec((0..6u8, 0..5u64), 0..60)) {
            let mut now = Instant::now();
            let mut files = Files::default();
            for (step, number) in steps {
                let path = PathBuf::from(number.to_string());
                match step {
                    0 => files.noted(path, stamp(number), now),
                    1 => files.noted(path, stamp(number + 1), now),
                    2 => files.retain(|path| path != Path::new("3")),
                    3 => now += RETRY_MIN,
                    _ => {
                        let expected = files.due.iter().find(|(at, _)| *at <= now).cloned();
                        let taken = files.take_due(now).map(|(path, _)| path);
                        prop_assert_eq!(&taken, &expected.map(|(_, path)| path));
                        files.check_invariants();
                        let outcome = match number {
                            0 => Outcome::Gone,
                            1 => Outcome::Stays,
                            2 => Outcome::Wait(stamp(9)),
                            3 => Outcome::Incomplete,
                            _ => later("why", true),
                        };
                        if let Some(path) = taken.filter(|_| step == 4) {
                            files.ended(&path, outcome, now);
                        }
                    }
                }
                files.check_invariants();
            }
        }
    }
}
