//! Writes that nobody waits for and that have failed because the state disk did (it is full, it has
//! failed once): what a check has found, that a download is complete, that data are away. They are
//! tried again, in their order for each torrent, until they are done or refused.
//!
//! A change by a user that is acknowledged meanwhile may be followed by what was found before it;
//! both are kept where they concern different things.
//!
//! Limits: [`UNKEPT_MAX`] wait, the rest is logged and lost; [`BATCH`] are tried at a time. Does not:
//! keep them over a restart, after which what they say is found out again.

use crate::keeping::{After, Next};
use crate::manager::Manager;
use control::hooks::Notice;
use proto::ids::InfoHashV1;
use state::{Write, WriteError};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// Writes that wait to be tried again.
const UNKEPT_MAX: usize = 10_000;

/// How many of them are tried at a time.
const BATCH: usize = 500;

/// Makes a write, each time that it is tried.
pub(crate) type Make = Arc<dyn Fn() -> Write + Send + Sync>;

/// A write, and what is done when it is.
struct Try<T> {
    make: Make,
    /// What hooks are told then, which is kept with it.
    notice: Option<Box<Notice>>,
    /// Nobody else has it: the lock is for those who may only look at what waits.
    after: Mutex<After<T>>,
}

impl<T> Try<T> {
    fn new(make: Make, notice: Option<Notice>, after: After<T>) -> Try<T> {
        let after = Mutex::new(after);
        Try {
            make,
            notice: notice.map(Box::new),
            after,
        }
    }

    fn done(self, owner: &mut T, written: Result<(), WriteError>) -> (Next, Option<Notice>) {
        let after = self.after.into_inner();
        let next = after.unwrap_or_else(PoisonError::into_inner)(owner, written);
        (next, self.notice.map(|notice| *notice))
    }
}

/// Those that wait, by the order in which they were first made.
pub(crate) struct Unkept<T> {
    tries: BTreeMap<u64, (InfoHashV1, Try<T>)>,
    torrents: HashMap<InfoHashV1, BTreeSet<u64>>,
    next: u64,
}

impl<T> Default for Unkept<T> {
    fn default() -> Unkept<T> {
        Unkept {
            tries: BTreeMap::new(),
            torrents: HashMap::new(),
            next: 0,
        }
    }
}

impl<T> Unkept<T> {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Whether something of a torrent waits that was made before.
    fn has_older(&self, info_hash: &InfoHashV1, number: u64) -> bool {
        let first = self.torrents.get(info_hash).and_then(BTreeSet::first);
        first.is_some_and(|first| *first < number)
    }

    /// Has a write wait; gives it back if too many do.
    fn put(&mut self, info_hash: InfoHashV1, number: u64, it: Try<T>) -> Result<(), Try<T>> {
        if self.tries.len() >= UNKEPT_MAX {
            return Err(it);
        }
        self.tries.insert(number, (info_hash, it));
        self.torrents.entry(info_hash).or_default().insert(number);
        Ok(())
    }

    /// Takes the oldest.
    fn take(&mut self) -> Option<(InfoHashV1, u64, Try<T>)> {
        let (number, (info_hash, it)) = self.tries.pop_first()?;
        if let Some(numbers) = self.torrents.get_mut(&info_hash) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.torrents.remove(&info_hash);
            }
        }
        Some((info_hash, number, it))
    }

    /// A torrent is gone: what hooks are not told then.
    pub(crate) fn forget(&mut self, info_hash: &InfoHashV1) -> Vec<Notice> {
        let numbers = self.torrents.remove(info_hash).into_iter().flatten();
        let tries = numbers.filter_map(|number| self.tries.remove(&number));
        tries
            .filter_map(|(_, it)| it.notice.map(|notice| *notice))
            .collect()
    }
}

impl Manager {
    /// Writes what nobody waits for, and again if the disk fails; `after` is told when it is done or
    /// refused.
    pub(crate) async fn insist(
        &mut self,
        info_hash: InfoHashV1,
        make: Make,
        notice: Option<Notice>,
        after: After<Manager>,
    ) {
        let (number, it) = (self.unkept.number(), Try::new(make, notice, after));
        let it = match self.unkept.has_older(&info_hash, number) {
            true => self.unkept.put(info_hash, number, it).err(),
            false => Some(it),
        };
        if let Some(it) = it {
            self.attempt(info_hash, number, it).await;
        }
    }

    async fn attempt(&self, info_hash: InfoHashV1, number: u64, it: Try<Manager>) {
        let writes = vec![(it.make)()];
        let kept = it.notice.as_deref().and_then(Notice::write);
        let after = move |manager: &mut Manager, written: Result<(), WriteError>| {
            let has_failed = matches!(written, Err(WriteError::Failed(_)));
            // What was made before and has failed must not be done after this.
            let is_early = written.is_ok() && manager.unkept.has_older(&info_hash, number);
            if !has_failed && !is_early {
                return manager.is_done(it, written);
            }
            if let Err(error) = &written {
                tracing::warn!(torrent = %info_hash, %error, "it is tried again");
            }
            match manager.unkept.put(info_hash, number, it) {
                Ok(()) => Next::Done,
                Err(it) => manager.is_done(it, written),
            }
        };
        self.keeping
            .write_beside(writes, kept, Box::new(after))
            .await;
    }

    fn is_done(&mut self, it: Try<Manager>, written: Result<(), WriteError>) -> Next {
        let is_written = written.is_ok();
        let (next, notice) = it.done(self, written);
        if let Some(notice) = notice {
            self.told(notice, is_written);
        }
        next
    }

    /// Tries again to write what could not be kept.
    pub(crate) async fn write_unkept(&mut self) {
        let mut tries = Vec::new();
        while tries.len() < BATCH
            && let Some(oldest) = self.unkept.take()
        {
            tries.push(oldest);
        }
        for (info_hash, number, it) in tries {
            self.attempt(info_hash, number, it).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_try() -> Try<()> {
        let make = || Write::Setting("x".into(), None);
        Try::new(Arc::new(make), None, Box::new(|(), _| Next::Done))
    }

    #[test]
    fn the_oldest_comes_first_and_a_torrent_that_is_gone_has_none() {
        let mut unkept = Unkept::default();
        let [a, b] = [1, 2].map(|byte| InfoHashV1([byte; 20]));
        let numbers: Vec<_> = (0..4).map(|_| unkept.number()).collect();
        assert!(unkept.put(a, numbers[1], a_try()).is_ok());
        assert!(!unkept.has_older(&a, numbers[0]), "this is newer");
        assert!(unkept.has_older(&a, numbers[2]));
        assert!(!unkept.has_older(&b, numbers[2]), "that is another's");
        assert!(unkept.put(b, numbers[2], a_try()).is_ok());
        assert!(unkept.put(a, numbers[0], a_try()).is_ok());
        let (torrent, number, _) = unkept.take().unwrap();
        assert_eq!((torrent, number), (a, numbers[0]));
        assert!(unkept.forget(&a).is_empty());
        let (torrent, number, _) = unkept.take().unwrap();
        assert_eq!((torrent, number), (b, numbers[2]));
        assert!(unkept.take().is_none() && unkept.torrents.is_empty());
        for _ in 0..UNKEPT_MAX {
            let number = unkept.number();
            assert!(unkept.put(a, number, a_try()).is_ok());
        }
        let number = unkept.number();
        assert!(unkept.put(b, number, a_try()).is_err(), "there is an end");
    }
}
