//! Moves that wait: for it to be known which disks they need, for these disks, or for a while
//! because they could not be made.
//!
//! In each lane, the same two disks, they are made in the order in which they were asked for; of
//! several lanes whose disks are free the one begins that was asked for first. Pure: nothing is
//! asked of a disk here.
//!
//! Limits: one for each torrent. Does not: keep that order over a restart; those that an earlier
//! run has left come in the order of their info-hashes.

use super::disks::{Folders, Found, Lane};
use super::way::Way;
use proto::ids::InfoHashV1;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// A move that waits, and what has come of it so far.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Waiter {
    pub way: Way,
    /// How often it could not be made.
    pub tries: u32,
    /// How often a copy was not what it was copied of.
    pub bad_copies: u32,
    /// What was told of that last.
    pub said: Option<String>,
}

impl Waiter {
    pub(crate) fn new(way: Way) -> Waiter {
        Waiter {
            way,
            tries: 0,
            bad_copies: 0,
            said: None,
        }
    }

    fn folders(&self) -> Folders {
        (self.way.from.clone(), self.way.to.clone())
    }
}

/// A move whose turn it is.
pub(crate) struct Next {
    pub info_hash: InfoHashV1,
    pub lane: Lane,
    pub waiter: Waiter,
}

/// What a move waits for.
enum Wait {
    /// That it is known which disks it needs.
    Disks(u64),
    /// That its disks are free.
    Turn(Lane, u64),
    /// The end of its rest with this number.
    Rest(u64),
}

type Order = BTreeMap<u64, InfoHashV1>;

/// See the file.
#[derive(Default)]
pub(crate) struct Waiting {
    next: u64,
    torrents: HashMap<InfoHashV1, (Wait, Waiter)>,
    lanes: BTreeMap<Lane, Order>,
    unknown: HashMap<Folders, Order>,
    /// Of the unknown those that nobody looks at yet.
    unasked: VecDeque<Folders>,
}

impl Waiting {
    pub(crate) fn contains(&self, info_hash: &InfoHashV1) -> bool {
        self.torrents.contains_key(info_hash)
    }

    /// Has a move wait behind those that do, in place of the torrent's that does.
    pub(crate) fn push(&mut self, info_hash: InfoHashV1, waiter: Waiter) {
        self.remove(&info_hash);
        self.next += 1;
        let folders = waiter.folders();
        let unasked = &mut self.unasked;
        let order = self.unknown.entry(folders.clone()).or_insert_with(|| {
            unasked.push_back(folders);
            Order::new()
        });
        order.insert(self.next, info_hash);
        let wait = Wait::Disks(self.next);
        self.torrents.insert(info_hash, (wait, waiter));
    }

    /// Has a move rest until [`Waiting::wake`].
    pub(crate) fn rest(&mut self, info_hash: InfoHashV1, waiter: Waiter, number: u64) {
        self.remove(&info_hash);
        let wait = Wait::Rest(number);
        self.torrents.insert(info_hash, (wait, waiter));
    }

    /// The rest of this number is over: the move waits behind the others.
    pub(crate) fn wake(&mut self, info_hash: InfoHashV1, number: u64) {
        let waits = self.torrents.get(&info_hash);
        if matches!(waits, Some((Wait::Rest(mine), _)) if *mine == number)
            && let Some(waiter) = self.remove(&info_hash)
        {
            self.push(info_hash, waiter);
        }
    }

    /// Has the move of a torrent that rests be tried at once, if it goes this way. False if none
    /// waits that does.
    pub(crate) fn hurry(&mut self, info_hash: &InfoHashV1, way: &Way) -> bool {
        let Some((wait, waiter)) = self.torrents.get_mut(info_hash) else {
            return false;
        };
        if waiter.way.from != way.from || waiter.way.to != way.to {
            return false;
        }
        waiter.tries = 0;
        if let Wait::Rest(number) = *wait {
            self.wake(*info_hash, number);
        }
        true
    }

    /// Folders that are to be looked at, whose answer is [`Waiting::found`].
    pub(crate) fn next_to_ask(&mut self) -> Option<Folders> {
        self.unasked.pop_front()
    }

    /// These folders have been looked at: those that wait for it wait for their disks now, but for
    /// those that cannot be made, which are returned with the reason.
    pub(crate) fn found(
        &mut self,
        folders: &Folders,
        found: &Found,
    ) -> Vec<(InfoHashV1, Waiter, String)> {
        let mut refused = Vec::new();
        for (at, info_hash) in self.unknown.remove(folders).unwrap_or_default() {
            let Some((wait, waiter)) = self.torrents.get_mut(&info_hash) else {
                continue;
            };
            let to = found
                .to
                .as_ref()
                .filter(|_| waiter.way.phase.needs_target());
            if let Some(why) = found.from.as_ref().or(to) {
                refused.push((info_hash, waiter.clone(), why.clone()));
                self.torrents.remove(&info_hash);
                continue;
            }
            *wait = Wait::Turn(found.lane, at);
            self.lanes
                .entry(found.lane)
                .or_default()
                .insert(at, info_hash);
        }
        refused
    }

    /// The move that may begin next, of those whose lane is free and that nothing holds.
    pub(crate) fn take(
        &mut self,
        is_free: impl Fn(&Lane) -> bool,
        is_held: impl Fn(&InfoHashV1) -> bool,
    ) -> Option<Next> {
        let free = self.lanes.iter().filter(|(lane, _)| is_free(lane));
        let first = free.filter_map(|(lane, order)| {
            let mut order = order.iter();
            let (at, info_hash) = order.find(|(_, info_hash)| !is_held(info_hash))?;
            Some((*at, *lane, *info_hash))
        });
        let (_, lane, info_hash) = first.min_by_key(|(at, ..)| *at)?;
        let waiter = self.remove(&info_hash)?;
        Some(Next {
            info_hash,
            lane,
            waiter,
        })
    }

    /// Forgets the move of a torrent.
    pub(crate) fn remove(&mut self, info_hash: &InfoHashV1) -> Option<Waiter> {
        let (wait, waiter) = self.torrents.remove(info_hash)?;
        match wait {
            Wait::Disks(at) => {
                // The folders stay, empty, until they have been looked at.
                if let Some(order) = self.unknown.get_mut(&waiter.folders()) {
                    order.remove(&at);
                }
            }
            Wait::Turn(lane, at) => {
                if let Some(order) = self.lanes.get_mut(&lane) {
                    order.remove(&at);
                    if order.is_empty() {
                        self.lanes.remove(&lane);
                    }
                }
            }
            Wait::Rest(_) => {}
        }
        Some(waiter)
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        *self = Waiting::default();
    }
}

#[cfg(test)]
mod tests {
    use super::super::way::Phase;
    use super::*;

    fn hash(number: u8) -> InfoHashV1 {
        InfoHashV1([number; 20])
    }

    fn waiter(from: &str, to: &str, phase: Phase) -> Waiter {
        let (from, to) = (from.into(), to.into());
        Waiter::new(Way { from, to, phase })
    }

    /// A folder is on the disk that is its name.
    fn ask_all(waiting: &mut Waiting) {
        while let Some(folders) = waiting.next_to_ask() {
            let disk = |path: &std::path::Path| path.to_str().unwrap().parse().unwrap();
            let lane = Lane::new(disk(&folders.0), disk(&folders.1));
            let (from, to) = (None, None);
            let refused = waiting.found(&folders, &Found { lane, from, to });
            assert!(refused.is_empty());
        }
    }

    #[test]
    fn a_disk_that_is_busy_holds_only_those_that_need_it_and_a_lane_has_an_order() {
        let mut waiting = Waiting::default();
        for (number, from, to) in [
            (1, "1", "2"),
            (2, "1", "2"),
            (3, "3", "1"),
            (4, "3", "4"),
            (5, "3", "4"),
            (6, "5", "5"),
        ] {
            waiting.push(hash(number), waiter(from, to, Phase::Waiting));
        }
        let none = |_: &InfoHashV1| false;
        assert!(waiting.take(|_| true, none).is_none(), "no disk is known");
        ask_all(&mut waiting);
        let mut busy: Vec<Lane> = Vec::new();
        let mut begun = Vec::new();
        while let Some(next) = waiting.take(|lane| !busy.iter().any(|it| it.shares(lane)), none) {
            busy.push(next.lane);
            begun.push(next.info_hash);
        }
        assert_eq!(begun, [1, 4, 6].map(hash), "2, 3 and 5 wait for a disk");
        // The first hangs: what does not need its disks goes on.
        busy.retain(|lane| *lane == Lane::new(1, 2));
        let next = waiting.take(|lane| !busy.iter().any(|it| it.shares(lane)), none);
        assert_eq!(next.unwrap().info_hash, hash(5));
        // All are free again: in their order, but for one that is held.
        let next = waiting.take(|_| true, |held| *held == hash(2)).unwrap();
        assert_eq!(next.info_hash, hash(3));
        let next = waiting.take(|_| true, none).unwrap();
        assert_eq!(next.info_hash, hash(2));
        assert!(waiting.torrents.is_empty() && waiting.lanes.is_empty());
        assert!(waiting.unknown.is_empty() && waiting.unasked.is_empty());
    }

    #[test]
    fn what_rests_comes_behind_the_others_and_what_is_replaced_not_at_all() {
        let mut waiting = Waiting::default();
        let one = waiter("1", "2", Phase::Waiting);
        waiting.rest(hash(1), one.clone(), 7);
        waiting.push(hash(2), one.clone());
        waiting.wake(hash(1), 6);
        assert!(waiting.contains(&hash(1)));
        ask_all(&mut waiting);
        let none = |_: &InfoHashV1| false;
        assert_eq!(waiting.take(|_| true, none).unwrap().info_hash, hash(2));
        assert!(waiting.take(|_| true, none).is_none(), "it rests");
        waiting.wake(hash(1), 7);
        waiting.push(hash(1), waiter("3", "3", Phase::Waiting));
        ask_all(&mut waiting);
        let next = waiting.take(|_| true, none).unwrap();
        assert_eq!((next.info_hash, next.lane), (hash(1), Lane::new(3, 3)));
        assert!(waiting.take(|_| true, none).is_none());
        waiting.push(hash(3), one);
        assert!(waiting.remove(&hash(3)).is_some() && waiting.remove(&hash(3)).is_none());
        ask_all(&mut waiting);
        assert!(waiting.lanes.is_empty() && waiting.unknown.is_empty());
    }

    #[test]
    fn a_folder_that_is_away_is_made_by_what_has_not_begun_only() {
        let mut waiting = Waiting::default();
        waiting.push(hash(1), waiter("1", "2", Phase::Waiting));
        waiting.push(hash(2), waiter("1", "2", Phase::Copying));
        let folders = waiting.next_to_ask().unwrap();
        assert!(waiting.next_to_ask().is_none(), "both ask the same");
        let lane = Lane::new(1, 2);
        let (from, to) = (None, Some("away".to_owned()));
        let refused = waiting.found(&folders, &Found { lane, from, to });
        let refused: Vec<_> = refused
            .iter()
            .map(|(hash, _, why)| (*hash, why.as_str()))
            .collect();
        assert_eq!(refused, [(hash(2), "away")]);
        let next = waiting.take(|_| true, |_| false).unwrap();
        assert_eq!(next.info_hash, hash(1));
    }
}
