//! Writes that nobody waits for and that have failed because the state disk did (it is full, it has
//! failed once): what a check has found, that a download is complete, that data are away. They are
//! tried again, in their order for each torrent, until they are done or refused.
//!
//! What was found says nothing any more of what the user has changed since, and has been told is so:
//! a write that was made before such a change and is about the same ([`Fields`]) is dropped, and none
//! is tried while such a change is on its way. Who is about other things is not touched.
//!
//! Limits: [`UNKEPT_MAX`] wait, the rest is logged and lost; [`BATCH`] are tried at a time. Does not:
//! keep them over a restart, after which what they say is found out again.

use crate::keeping::{After, Next};
use crate::manager::Manager;
use control::hooks::Notice;
use proto::ids::InfoHashV1;
use state::{Write, WriteError};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::BitOr;
use std::sync::{Arc, Mutex, PoisonError};

/// Writes that wait to be tried again.
const UNKEPT_MAX: usize = 10_000;

/// How many of them are tried at a time.
const BATCH: usize = 500;

/// Makes a write, each time that it is tried.
pub(crate) type Make = Arc<dyn Fn() -> Write + Send + Sync>;

/// What of a torrent a write is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fields(u8);

impl Fields {
    /// Nothing that a late write is about.
    pub(crate) const NONE: Fields = Fields(0);
    /// What it waits for, and which of its pieces are there.
    pub(crate) const CONDITION: Fields = Fields(1);
    /// Whether it is stopped.
    pub(crate) const PAUSED: Fields = Fields(2);
    /// When it has given enough.
    pub(crate) const LIMITS: Fields = Fields(4);
    /// Whether it is super-seeded.
    pub(crate) const SUPER_SEEDING: Fields = Fields(8);
    /// Its place in the queue.
    pub(crate) const PLACE: Fields = Fields(16);

    fn meets(self, other: Fields) -> bool {
        self.0 & other.0 != 0
    }
}

impl BitOr for Fields {
    type Output = Fields;

    fn bitor(self, other: Fields) -> Fields {
        Fields(self.0 | other.0)
    }
}

/// A write, and what is done when it is.
struct Try<T> {
    fields: Fields,
    make: Make,
    /// What hooks are told then, which is kept with it.
    notice: Option<Box<Notice>>,
    /// Nobody else has it: the lock is for those who may only look at what waits.
    after: Mutex<After<T>>,
}

impl<T> Try<T> {
    fn new(fields: Fields, make: Make, notice: Option<Notice>, after: After<T>) -> Try<T> {
        let after = Mutex::new(after);
        Try {
            fields,
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

/// What there is of one torrent.
#[derive(Default)]
struct Of {
    waiting: BTreeSet<u64>,
    /// Tries that are on their way to the disk.
    flying: u32,
    /// Changes by the user that are.
    pending: u32,
    /// Those that have arrived: what they were about, and before which tries that says more.
    done: Vec<(Fields, u64)>,
}

/// Those that wait, by the order in which they were first made.
pub(crate) struct Unkept<T> {
    tries: BTreeMap<u64, (InfoHashV1, Try<T>)>,
    torrents: HashMap<InfoHashV1, Of>,
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
        let of = self.torrents.get(info_hash);
        let first = of.and_then(|of| of.waiting.first());
        first.is_some_and(|first| *first < number)
    }

    /// Has a write wait; gives it back if too many do.
    fn put(&mut self, info_hash: InfoHashV1, number: u64, it: Try<T>) -> Result<(), Try<T>> {
        if self.tries.len() >= UNKEPT_MAX {
            return Err(it);
        }
        self.tries.insert(number, (info_hash, it));
        let of = self.torrents.entry(info_hash).or_default();
        of.waiting.insert(number);
        Ok(())
    }

    /// Takes the oldest behind `after` that no change of the user may overtake.
    fn take(&mut self, after: u64) -> Option<(InfoHashV1, u64, Try<T>)> {
        let behind = self.tries.range(after + 1..);
        let is_free = |info_hash: &InfoHashV1| {
            let of = self.torrents.get(info_hash);
            of.is_none_or(|of| of.pending == 0)
        };
        let mut free = behind.filter(|(_, (info_hash, _))| is_free(info_hash));
        let number = *free.next()?.0;
        let (info_hash, it) = self.remove(number)?;
        Some((info_hash, number, it))
    }

    fn remove(&mut self, number: u64) -> Option<(InfoHashV1, Try<T>)> {
        let (info_hash, it) = self.tries.remove(&number)?;
        if let Some(of) = self.torrents.get_mut(&info_hash) {
            of.waiting.remove(&number);
        }
        self.tidy(&info_hash);
        Some((info_hash, it))
    }

    /// Forgets a torrent of which nothing waits.
    fn tidy(&mut self, info_hash: &InfoHashV1) {
        let of = self.torrents.get(info_hash);
        if of.is_some_and(|of| of.waiting.is_empty() && of.flying == 0 && of.pending == 0) {
            self.torrents.remove(info_hash);
        }
    }

    /// A try is on its way.
    fn fly(&mut self, info_hash: InfoHashV1) {
        self.torrents.entry(info_hash).or_default().flying += 1;
    }

    /// It has arrived, or has not: whether a change of the user stands against what it says.
    fn land(&mut self, info_hash: &InfoHashV1, number: u64, fields: Fields) -> bool {
        let Some(of) = self.torrents.get_mut(info_hash) else {
            return false;
        };
        of.flying = of.flying.saturating_sub(1);
        let stands = |(done, before): &(Fields, u64)| number < *before && done.meets(fields);
        let is_overtaken = of.done.iter().any(stands);
        self.tidy(info_hash);
        is_overtaken
    }

    /// A change of the user is on its way; its number.
    fn begin_change(&mut self, info_hash: InfoHashV1) -> u64 {
        self.torrents.entry(info_hash).or_default().pending += 1;
        self.number()
    }

    /// It is kept, or not: the tries that are overtaken by it.
    fn end_change(
        &mut self,
        info_hash: &InfoHashV1,
        (fields, number): (Fields, u64),
        is_kept: bool,
    ) -> Vec<Try<T>> {
        let Some(of) = self.torrents.get_mut(info_hash) else {
            return Vec::new();
        };
        of.pending = of.pending.saturating_sub(1);
        let mut overtaken = Vec::new();
        if is_kept && fields != Fields::NONE {
            // One for each of the fields is enough: the last.
            of.done.retain(|(done, _)| *done != fields);
            of.done.push((fields, number));
            overtaken.extend(of.waiting.range(..number).copied());
        }
        let meets = |(_, it): &(InfoHashV1, Try<T>)| it.fields.meets(fields);
        overtaken.retain(|number| self.tries.get(number).is_some_and(meets));
        let overtaken = overtaken.into_iter();
        let tries = overtaken.filter_map(|number| Some(self.remove(number)?.1));
        let tries = tries.collect();
        self.tidy(info_hash);
        tries
    }

    /// A torrent is gone: what hooks are not told then.
    pub(crate) fn forget(&mut self, info_hash: &InfoHashV1) -> Vec<Notice> {
        let of = self.torrents.remove(info_hash);
        let numbers = of.into_iter().flat_map(|of| of.waiting);
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
        (fields, make): (Fields, Make),
        notice: Option<Notice>,
        after: After<Manager>,
    ) {
        let it = Try::new(fields, make, notice, after);
        let number = self.unkept.number();
        let it = match self.unkept.has_older(&info_hash, number) {
            true => self.unkept.put(info_hash, number, it).err(),
            false => Some(it),
        };
        if let Some(it) = it {
            self.attempt(info_hash, number, it).await;
        }
    }

    async fn attempt(&mut self, info_hash: InfoHashV1, number: u64, it: Try<Manager>) {
        let writes = vec![(it.make)()];
        let kept = it.notice.as_deref().and_then(Notice::write);
        self.unkept.fly(info_hash);
        let after = move |manager: &mut Manager, written: Result<(), WriteError>| {
            let is_overtaken = manager.unkept.land(&info_hash, number, it.fields);
            let has_failed = matches!(written, Err(WriteError::Failed(_)));
            if has_failed && is_overtaken {
                return manager.is_done(it, Err(WriteError::Overtaken(info_hash)));
            }
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

    /// A change by the user of these fields is on its way: has what was made before and is about
    /// the same be dropped when it is kept.
    pub(crate) fn overtaking(
        &mut self,
        info_hash: InfoHashV1,
        fields: Fields,
        after: After<Manager>,
    ) -> After<Manager> {
        let number = self.unkept.begin_change(info_hash);
        Box::new(move |manager, written| {
            let is_kept = written.is_ok();
            let change = (fields, number);
            for it in manager.unkept.end_change(&info_hash, change, is_kept) {
                tracing::info!(torrent = %info_hash, "what was found out before is not kept any \
                    more: the user has changed it since");
                // Whatever it would have begun, the change does.
                let _ = manager.is_done(it, Err(WriteError::Overtaken(info_hash)));
            }
            after(manager, written)
        })
    }

    /// Tries again to write what could not be kept.
    pub(crate) async fn write_unkept(&mut self) {
        let (mut tries, mut last) = (Vec::new(), 0);
        while tries.len() < BATCH
            && let Some(oldest) = self.unkept.take(last)
        {
            last = oldest.1;
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
    use crate::idle::{Idle, full};
    use crate::manager::Inner;
    use control::catalog::Status;
    use control::command::Action;
    use state::{Condition, Summary};
    use tokio::sync::oneshot;

    fn a_try() -> Try<()> {
        of(Fields::CONDITION)
    }

    fn of(fields: Fields) -> Try<()> {
        let make = || Write::Setting("x".into(), None);
        Try::new(fields, Arc::new(make), None, Box::new(|(), _| Next::Done))
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
        let (torrent, number, _) = unkept.take(0).unwrap();
        assert_eq!((torrent, number), (a, numbers[0]));
        assert!(unkept.forget(&a).is_empty());
        let (torrent, number, _) = unkept.take(0).unwrap();
        assert_eq!((torrent, number), (b, numbers[2]));
        assert!(unkept.take(0).is_none() && unkept.torrents.is_empty());
        for _ in 0..UNKEPT_MAX {
            let number = unkept.number();
            assert!(unkept.put(a, number, a_try()).is_ok());
        }
        let number = unkept.number();
        assert!(unkept.put(b, number, a_try()).is_err(), "there is an end");
    }

    #[test]
    fn a_change_drops_what_was_made_before_of_the_same_and_nothing_else() {
        let mut unkept = Unkept::default();
        let [a, b] = [1, 2].map(|byte| InfoHashV1([byte; 20]));
        let put = |unkept: &mut Unkept<()>, info_hash, fields| {
            let number = unkept.number();
            assert!(unkept.put(info_hash, number, of(fields)).is_ok());
            number
        };
        put(&mut unkept, a, Fields::CONDITION);
        let place = put(&mut unkept, a, Fields::PLACE);
        let other = put(&mut unkept, b, Fields::CONDITION);
        unkept.fly(a);
        let flying = unkept.number();
        let change = unkept.begin_change(a);
        let later = put(&mut unkept, a, Fields::CONDITION);
        // Nothing of the torrent is tried while the change is on its way.
        assert_eq!(unkept.take(0).unwrap().1, other);
        assert!(unkept.take(0).is_none());
        let fields = Fields::CONDITION | Fields::PAUSED;
        assert_eq!(unkept.end_change(&a, (fields, change), true).len(), 1);
        assert!(
            unkept.land(&a, flying, Fields::PAUSED),
            "it was made before"
        );
        // One that is not kept changes nothing.
        let change = unkept.begin_change(a);
        assert!(
            unkept
                .end_change(&a, (Fields::PLACE, change), false)
                .is_empty()
        );
        unkept.fly(a);
        let flying = unkept.number();
        assert!(
            !unkept.land(&a, flying, Fields::PAUSED),
            "it was made after"
        );
        assert_eq!(unkept.take(0).unwrap().1, place);
        assert_eq!(unkept.take(0).unwrap().1, later);
        assert!(unkept.torrents.is_empty() && unkept.tries.is_empty());
    }

    /// What the disk did not take is not done after what the user has been told is so.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_found_before_a_change_by_the_user_does_not_undo_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut idle = Idle::new(folder.path());
        let summary = Summary {
            pieces: 1,
            ..Summary::default()
        };
        let info_hash = idle.keep(summary, Status::Failed).await;
        let why = || "it fails".to_owned();
        let failed = Condition::Failed;
        idle.manager.condemn(info_hash, failed, why(), false).await;
        let Inner::Written(_, after) = idle.next().await else {
            panic!("it is kept that it has failed");
        };
        idle.manager.inner(Inner::Written(Err(full()), after)).await;
        assert_eq!(idle.manager.unkept.tries.len(), 1, "it is tried again");
        let (reply, paused) = oneshot::channel();
        idle.manager.act(info_hash, Action::Pause, reply).await;
        idle.manager.write_unkept().await;
        assert_eq!(
            idle.manager.unkept.tries.len(),
            1,
            "not before that is kept"
        );
        assert_eq!(idle.answer(paused).await, Ok(()));
        assert_eq!(
            idle.manager.unkept.tries.len(),
            1,
            "this is about something else"
        );
        let (reply, checked) = oneshot::channel();
        idle.manager.act(info_hash, Action::Recheck, reply).await;
        assert_eq!(idle.answer(checked).await, Ok(()));
        assert!(idle.manager.unkept.tries.is_empty());
        idle.manager.write_unkept().await;
        let read = move |view: &state::View| view.summary(&info_hash);
        let kept = idle.store.handle().read_blocking(read).unwrap().unwrap();
        assert!(kept.paused && kept.condition == Condition::NeedsCheck);
        // And what is found after it is kept.
        idle.manager.condemn(info_hash, failed, why(), false).await;
        idle.step().await;
        let kept = idle.store.handle().read_blocking(read).unwrap().unwrap();
        assert_eq!(kept.condition, Condition::Failed);
    }
}
