//! What torrents are doing, and which of them something has to be done for each second: those that
//! wait, for a check, for their data, for their turn, cost nothing then.
//!
//! Limits: an entry for each torrent that is doing something or waits for a check or its data.

use crate::manager::Phase;
use proto::ids::InfoHashV1;
use std::collections::{HashMap, HashSet};

/// What torrents are doing, where that is anything.
#[derive(Default)]
pub(crate) struct Phases {
    all: HashMap<InfoHashV1, Phase>,
    /// Those that peers are connected for, or may be.
    active: HashSet<InfoHashV1>,
    /// Those that have the turn of a download.
    turns: HashSet<InfoHashV1>,
}

impl Phases {
    pub(crate) fn get(&self, info_hash: &InfoHashV1) -> Option<&Phase> {
        self.all.get(info_hash)
    }

    /// What a torrent is doing, to be changed but not to be another phase.
    pub(crate) fn get_mut(&mut self, info_hash: &InfoHashV1) -> Option<&mut Phase> {
        self.all.get_mut(info_hash)
    }

    pub(crate) fn insert(&mut self, info_hash: InfoHashV1, phase: Phase) {
        self.forget(&info_hash);
        if matches!(
            phase,
            Phase::Awake(_) | Phase::Downloading(_) | Phase::Metadata(_)
        ) {
            self.active.insert(info_hash);
        }
        if matches!(
            phase,
            Phase::Preparing(_) | Phase::Downloading(_) | Phase::Metadata(_)
        ) {
            self.turns.insert(info_hash);
        }
        self.all.insert(info_hash, phase);
    }

    pub(crate) fn remove(&mut self, info_hash: &InfoHashV1) -> Option<Phase> {
        self.forget(info_hash);
        self.all.remove(info_hash)
    }

    fn forget(&mut self, info_hash: &InfoHashV1) {
        self.active.remove(info_hash);
        self.turns.remove(info_hash);
    }

    /// How many have the turn of a download.
    pub(crate) fn turns(&self) -> usize {
        self.turns.len()
    }

    /// Those that have the turn of a download.
    pub(crate) fn with_turn(&self) -> impl Iterator<Item = (&InfoHashV1, &Phase)> {
        let phase = |info_hash| self.all.get_key_value(info_hash);
        self.turns.iter().filter_map(phase)
    }

    /// A download has all that is wanted of it: its turn is another's.
    pub(crate) fn give_turn_back(&mut self, info_hash: &InfoHashV1) {
        self.turns.remove(info_hash);
    }

    /// More is wanted of a download that had all: it has a turn again, whether one is free or not.
    pub(crate) fn take_turn_again(&mut self, info_hash: &InfoHashV1) {
        if matches!(self.all.get(info_hash), Some(Phase::Downloading(_))) {
            self.turns.insert(*info_hash);
        }
    }

    /// Those that peers are connected for, or may be.
    pub(crate) fn active(&self) -> impl Iterator<Item = InfoHashV1> {
        self.active.iter().copied()
    }

    /// Does something with each of those that peers are connected for, or may be.
    pub(crate) fn for_each_active(&mut self, mut each: impl FnMut(&InfoHashV1, &mut Phase)) {
        for info_hash in &self.active {
            if let Some(phase) = self.all.get_mut(info_hash) {
                each(info_hash, phase);
            }
        }
    }

    /// Takes out all downloads, those that end among them: the server stops.
    pub(crate) fn take_downloads(&mut self) -> Vec<(InfoHashV1, Phase)> {
        let is_download =
            |phase: &mut Phase| matches!(phase, Phase::Downloading(_) | Phase::Stopping(_));
        let taken = self.all.extract_if(|_, phase| is_download(phase));
        let taken: Vec<_> = taken.collect();
        for (info_hash, _) in &taken {
            self.active.remove(info_hash);
            self.turns.remove(info_hash);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_not_looked_at_and_turns_are_counted() {
        let mut phases = Phases::default();
        let hash = |byte| InfoHashV1([byte; 20]);
        for byte in 0..50 {
            phases.insert(hash(byte), Phase::Checking);
        }
        let active = |phases: &mut Phases| {
            let mut active = 0;
            phases.for_each_active(|_, _| active += 1);
            active
        };
        assert_eq!((active(&mut phases), phases.turns()), (0, 0));
        phases.insert(hash(1), Phase::Preparing(1));
        assert_eq!((active(&mut phases), phases.turns()), (0, 1));
        phases.insert(hash(1), Phase::Stopping(1));
        assert_eq!(phases.turns(), 0, "one that ends has none any more");
        phases.insert(hash(2), Phase::Preparing(2));
        assert!(matches!(phases.remove(&hash(2)), Some(Phase::Preparing(2))));
        assert_eq!(phases.turns(), 0);
        // Only a download may have its turn again.
        phases.take_turn_again(&hash(3));
        assert_eq!(phases.turns(), 0);
        assert_eq!(phases.take_downloads().len(), 1);
        assert!(phases.get(&hash(1)).is_none());
    }
}
