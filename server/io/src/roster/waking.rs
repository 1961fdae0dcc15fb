//! Peers that wait for dormant torrents, and the wishes to wake these that the control plane has
//! before it.
//!
//! All who wait for a torrent share one wake-up, and the control plane is told of it once
//! ([`Wanted`]). It has at most [`WakeLimits::wakes_max`] of them before it; the next ones are told
//! as it answers, in the order in which they came. Who has waited too long is closed by its shard;
//! a wish that was told stays until it is answered, one that was not goes with the last who waits.
//!
//! Limits: [`WakeLimits`]; who would be one more is closed, and comes again as others of its kind
//! do.

use crate::roster::Roster;
use proto::ids::InfoHashV1;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// How many peers may wait for dormant torrents, and how long.
#[derive(Clone, Copy, Debug)]
pub struct WakeLimits {
    /// Peers that may wait in all. Those beyond a quarter of the connections are refused anyway, so
    /// that who asks for what sleeps keeps nobody from what is awake.
    pub waiting_max: usize,
    /// Peers that may wait for one torrent.
    pub torrent_waiting_max: usize,
    /// Wishes that the control plane has before it; others wait until it has answered one.
    pub wakes_max: usize,
    /// How long a peer waits. Many give up by themselves after 10 s or more.
    pub wait: Duration,
}

impl Default for WakeLimits {
    fn default() -> Self {
        WakeLimits {
            waiting_max: 1024,
            torrent_waiting_max: 128,
            wakes_max: 64,
            wait: Duration::from_secs(10),
        }
    }
}

/// What the control plane has made of a wish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    Awake,
    Refused,
}

/// How a peer's wait has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Awake,
    Refused,
    TimedOut,
}

/// Peers want a torrent that is dormant. It is to be answered by [`crate::plane::Plane::add`] or
/// [`crate::plane::Plane::refuse`]; one that is dropped without an answer is refused.
pub struct Wanted {
    info_hash: InfoHashV1,
    number: u64,
    roster: Arc<Roster>,
}

impl Wanted {
    pub(super) fn new(roster: &Arc<Roster>, info_hash: InfoHashV1, number: u64) -> Wanted {
        Wanted {
            info_hash,
            number,
            roster: Arc::clone(roster),
        }
    }

    /// The torrent.
    pub fn info_hash(&self) -> InfoHashV1 {
        self.info_hash
    }

    /// Whether there is an answer already, as when the torrent has been added meanwhile.
    pub fn is_answered(&self) -> bool {
        self.roster.is_answered(self.info_hash, self.number)
    }
}

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Wanted").field(&self.info_hash).finish()
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        let number = Some(self.number);
        self.roster.answer(self.info_hash, number, Answer::Refused);
    }
}

/// A peer's place among those who wait, given back when it is dropped.
pub(crate) struct Waiter {
    roster: Arc<Roster>,
    info_hash: InfoHashV1,
    joined: Joined,
}

impl Waiter {
    pub(super) fn new(roster: &Arc<Roster>, info_hash: InfoHashV1, joined: Joined) -> Waiter {
        Waiter {
            roster: Arc::clone(roster),
            info_hash,
            joined,
        }
    }

    /// Waits for the answer, at most until `until`.
    pub(crate) async fn outcome(mut self, until: Instant) -> Outcome {
        let answer = self.joined.answer.wait_for(Option::is_some);
        match timeout_at(until, answer).await {
            Ok(Ok(answer)) if *answer == Some(Answer::Awake) => Outcome::Awake,
            Ok(_) => Outcome::Refused,
            Err(_elapsed) => Outcome::TimedOut,
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.roster.left(self.info_hash, self.joined.number);
    }
}

/// What one who waits knows of the wake-up.
pub(super) struct Joined {
    number: u64,
    answer: watch::Receiver<Option<Answer>>,
}

/// One torrent that is wanted.
struct Wake {
    number: u64,
    is_told: bool,
    waiting: usize,
    answer: watch::Sender<Option<Answer>>,
}

/// See the module.
pub(super) struct Wakes {
    limits: WakeLimits,
    by_hash: HashMap<InfoHashV1, Wake>,
    /// Those that the control plane has not been told of, by their number.
    untold: BTreeMap<u64, InfoHashV1>,
    next_number: u64,
    /// Wishes that it has before it.
    told: usize,
    /// Who waits, also those who have been answered and do not know it yet.
    waiting: usize,
    is_stopped: bool,
}

impl Wakes {
    pub(super) fn new(limits: WakeLimits) -> Wakes {
        Wakes {
            limits,
            by_hash: HashMap::new(),
            untold: BTreeMap::new(),
            next_number: 0,
            told: 0,
            waiting: 0,
            is_stopped: false,
        }
    }

    /// Torrents that are wanted.
    pub(super) fn len(&self) -> usize {
        self.by_hash.len()
    }

    /// One more waits for a torrent. `None` if too many do.
    pub(super) fn join(&mut self, info_hash: InfoHashV1) -> Option<Joined> {
        if self.is_stopped || self.waiting >= self.limits.waiting_max {
            return None;
        }
        let waiting = self.by_hash.get(&info_hash).map_or(0, |wake| wake.waiting);
        if waiting >= self.limits.torrent_waiting_max {
            return None;
        }
        let (untold, next_number) = (&mut self.untold, &mut self.next_number);
        let wake = self.by_hash.entry(info_hash).or_insert_with(|| {
            let number = *next_number;
            *next_number += 1;
            untold.insert(number, info_hash);
            Wake {
                number,
                is_told: false,
                waiting: 0,
                answer: watch::Sender::new(None),
            }
        });
        wake.waiting += 1;
        self.waiting += 1;
        Some(Joined {
            number: wake.number,
            answer: wake.answer.subscribe(),
        })
    }

    /// One less waits.
    pub(super) fn leave(&mut self, info_hash: InfoHashV1, number: u64) {
        self.waiting -= 1;
        let wake = self.by_hash.get_mut(&info_hash);
        let Some(wake) = wake.filter(|wake| wake.number == number) else {
            return;
        };
        wake.waiting -= 1;
        if wake.waiting == 0 && !wake.is_told {
            self.untold.remove(&number);
            self.by_hash.remove(&info_hash);
        }
    }

    /// The next wish that the control plane is to be told of, if it may have one more before it.
    pub(super) fn tell_next(&mut self) -> Option<(u64, InfoHashV1)> {
        if self.told >= self.limits.wakes_max {
            return None;
        }
        let (number, info_hash) = self.untold.pop_first()?;
        if let Some(wake) = self.by_hash.get_mut(&info_hash) {
            wake.is_told = true;
            self.told += 1;
        }
        Some((number, info_hash))
    }

    /// Whether the wake-up of this number is under way.
    pub(super) fn is_current(&self, info_hash: InfoHashV1, number: u64) -> bool {
        let wake = self.by_hash.get(&info_hash);
        wake.is_some_and(|wake| wake.number == number)
    }

    /// Ends a wake-up, if it is under way and has this number, or any for `None`.
    pub(super) fn end(
        &mut self,
        info_hash: InfoHashV1,
        number: Option<u64>,
        answer: Answer,
    ) -> bool {
        let wake = self.by_hash.get(&info_hash);
        if wake.is_none_or(|wake| number.is_some_and(|number| number != wake.number)) {
            return false;
        }
        let Some(wake) = self.by_hash.remove(&info_hash) else {
            return false;
        };
        if wake.is_told {
            self.told -= 1;
        } else {
            self.untold.remove(&wake.number);
        }
        wake.answer.send_replace(Some(answer));
        true
    }

    /// Refuses all, from now on.
    pub(super) fn stop(&mut self) {
        self.is_stopped = true;
        self.told = 0;
        self.untold.clear();
        for (_, wake) in self.by_hash.drain() {
            wake.answer.send_replace(Some(Answer::Refused));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: WakeLimits = WakeLimits {
        waiting_max: 6,
        torrent_waiting_max: 3,
        wakes_max: 2,
        wait: Duration::from_secs(1),
    };

    fn hash(number: u8) -> InfoHashV1 {
        InfoHashV1([number; 20])
    }

    fn told(wakes: &mut Wakes) -> Vec<InfoHashV1> {
        let told = std::iter::from_fn(|| wakes.tell_next());
        told.map(|(_, hash)| hash).collect()
    }

    #[test]
    fn each_torrent_is_told_of_once_and_in_order() {
        let mut wakes = Wakes::new(LIMITS);
        let joined: Vec<_> = [1, 1, 2, 3, 3]
            .map(|number| wakes.join(hash(number)).unwrap())
            .into();
        assert_eq!(told(&mut wakes), [hash(1), hash(2)]);
        assert!(wakes.end(hash(1), None, Answer::Awake));
        assert!(!wakes.end(hash(1), None, Answer::Awake));
        assert_eq!(told(&mut wakes), [hash(3)]);
        let answers: Vec<_> = joined.iter().map(|one| *one.answer.borrow()).collect();
        let awake = Some(Answer::Awake);
        assert_eq!(answers, [awake, awake, None, None, None]);
        // The next who comes is another wake-up, which an answer to the first is not for.
        let again = wakes.join(hash(1)).unwrap();
        assert!(!wakes.end(hash(1), Some(joined[0].number), Answer::Refused));
        assert!(wakes.end(hash(1), Some(again.number), Answer::Refused));
        assert_eq!(*again.answer.borrow(), Some(Answer::Refused));
    }

    #[test]
    fn nobody_joins_beyond_the_limits() {
        let mut wakes = Wakes::new(LIMITS);
        let first: Vec<_> = (0..3).map(|_| wakes.join(hash(1)).unwrap()).collect();
        assert!(wakes.join(hash(1)).is_none(), "three wait for it");
        let _others: Vec<_> = (2..5).map(|n| wakes.join(hash(n)).unwrap()).collect();
        assert!(wakes.join(hash(5)).is_none(), "six wait");
        wakes.leave(hash(1), first[0].number);
        assert!(wakes.join(hash(5)).is_some());
        wakes.stop();
        wakes.leave(hash(1), first[1].number);
        assert!(wakes.join(hash(6)).is_none(), "it is stopped");
        assert_eq!(*first[2].answer.borrow(), Some(Answer::Refused));
    }

    #[test]
    fn a_wish_that_was_told_stays_without_anybody_and_another_does_not() {
        let mut wakes = Wakes::new(LIMITS);
        let joined: Vec<_> = (1..4).map(|n| wakes.join(hash(n)).unwrap()).collect();
        assert_eq!(told(&mut wakes), [hash(1), hash(2)]);
        for (number, joined) in (1..4).zip(&joined) {
            wakes.leave(hash(number), joined.number);
        }
        assert_eq!(wakes.len(), 2);
        assert!(wakes.end(hash(1), Some(joined[0].number), Answer::Refused));
        assert_eq!(told(&mut wakes), []);
    }

    proptest! {
        /// Whatever comes in whatever order, the counts are those of the parts.
        #[test]
        fn counts_stay_right(steps in prop::collection::vec((0_u8..5, 0_u8..4), 0..200)) {
            let mut wakes = Wakes::new(LIMITS);
            let mut joined: Vec<(InfoHashV1, u64)> = Vec::new();
            for (step, number) in steps {
                let info_hash = hash(number);
                match step {
                    0 | 1 => {
                        let new = wakes.join(info_hash);
                        joined.extend(new.map(|new| (info_hash, new.number)));
                    }
                    2 if !joined.is_empty() => {
                        let (info_hash, number) = joined.remove(usize::from(number) % joined.len());
                        wakes.leave(info_hash, number);
                    }
                    3 => drop(wakes.tell_next()),
                    _ => drop(wakes.end(info_hash, None, Answer::Awake)),
                }
                prop_assert_eq!(wakes.waiting, joined.len());
                prop_assert!(wakes.waiting <= LIMITS.waiting_max);
                let all = || wakes.by_hash.iter();
                let told = all().filter(|(_, wake)| wake.is_told).count();
                prop_assert_eq!(wakes.told, told);
                prop_assert!(told <= LIMITS.wakes_max);
                prop_assert_eq!(wakes.untold.len(), all().count() - told);
                for (info_hash, wake) in all() {
                    let its = (*info_hash, wake.number);
                    let waiting = joined.iter().filter(|one| **one == its).count();
                    prop_assert_eq!(wake.waiting, waiting);
                    prop_assert!(wake.is_told || wake.waiting > 0);
                }
            }
        }
    }
}
