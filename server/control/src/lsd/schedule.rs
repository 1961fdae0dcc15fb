//! Which torrents are announced when, and which of them share a datagram: see the module above.
//! Pure, in virtual time.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use engine::random::Random;
use engine::time::Time;
use proto::ids::InfoHashV1;

use super::{DATAGRAMS_PER_SECOND_MAX, INFO_HASHES_MAX, PERIOD, PeerSink, TORRENTS_MAX};

/// See the module.
pub(super) struct Schedule {
    torrents: HashMap<InfoHashV1, Entry>,
    due: BTreeSet<(Time, InfoHashV1)>,
    random: Random,
}

struct Entry {
    sink: Arc<dyn PeerSink>,
    due_at: Time,
}

impl Schedule {
    /// No torrents; the times of announces vary with `seed`.
    pub fn new(seed: u64) -> Schedule {
        Schedule {
            torrents: HashMap::new(),
            due: BTreeSet::new(),
            random: Random::new(seed),
        }
    }

    /// Adds a torrent, which is due at once, or gives one that is there another sink. False if
    /// there are too many.
    pub fn add(&mut self, info_hash: InfoHashV1, sink: Arc<dyn PeerSink>, now: Time) -> bool {
        if let Some(known) = self.torrents.get_mut(&info_hash) {
            known.sink = sink;
            return true;
        }
        if self.torrents.len() >= TORRENTS_MAX {
            return false;
        }
        self.due.insert((now, info_hash));
        self.torrents.insert(info_hash, Entry { sink, due_at: now });
        true
    }

    /// Removes a torrent.
    pub fn remove(&mut self, info_hash: InfoHashV1) {
        if let Some(entry) = self.torrents.remove(&info_hash) {
            self.due.remove(&(entry.due_at, info_hash));
        }
    }

    /// Has all torrents announced from `now` on: as many a second as ever.
    pub fn all_due(&mut self, now: Time) {
        let later = std::mem::take(&mut self.due).into_iter();
        for (time, info_hash) in later {
            let due_at = time.min(now);
            self.due.insert((due_at, info_hash));
            if let Some(entry) = self.torrents.get_mut(&info_hash) {
                entry.due_at = due_at;
            }
        }
    }

    /// Who takes the peers of a torrent, if it is there.
    pub fn sink(&self, info_hash: InfoHashV1) -> Option<Arc<dyn PeerSink>> {
        let entry = self.torrents.get(&info_hash)?;
        Some(Arc::clone(&entry.sink))
    }

    /// What is to be sent in this second: the torrents of each datagram. To be called once a
    /// second.
    pub fn take_due(&mut self, now: Time) -> Vec<Vec<InfoHashV1>> {
        let most = DATAGRAMS_PER_SECOND_MAX * INFO_HASHES_MAX;
        let due = self.due.iter().take_while(|(time, _)| *time <= now);
        let due: Vec<(Time, InfoHashV1)> = due.take(most).copied().collect();
        for &(time, info_hash) in &due {
            self.due.remove(&(time, info_hash));
            let tenth = u64::try_from(PERIOD.as_nanos()).unwrap_or(u64::MAX) / 10;
            let next = now + PERIOD + std::time::Duration::from_nanos(self.random.below(tenth));
            self.due.insert((next, info_hash));
            if let Some(entry) = self.torrents.get_mut(&info_hash) {
                entry.due_at = next;
            }
        }
        let in_one = due.len().div_ceil(DATAGRAMS_PER_SECOND_MAX).max(1);
        let datagrams = due.chunks(in_one);
        let hashes = |one: &[(Time, InfoHashV1)]| one.iter().map(|(_, hash)| *hash).collect();
        datagrams.map(hashes).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::peer_list::PeerSource;
    use std::net::SocketAddr;
    use std::time::Duration;

    struct Nobody;

    impl PeerSink for Nobody {
        fn found(&self, _peers: &[SocketAddr], _source: PeerSource) {}
    }

    fn hash(number: u32) -> InfoHashV1 {
        let mut hash = [0; 20];
        hash[..4].copy_from_slice(&number.to_be_bytes());
        InfoHashV1(hash)
    }

    fn at(seconds: u64) -> Time {
        Time::default() + Duration::from_secs(seconds)
    }

    /// Runs `torrents` for `seconds`; returns for each second its datagrams.
    fn run(torrents: u32, seconds: u64) -> Vec<Vec<Vec<InfoHashV1>>> {
        let mut schedule = Schedule::new(7);
        for number in 0..torrents {
            assert!(schedule.add(hash(number), Arc::new(Nobody), at(0)));
        }
        (0..seconds)
            .map(|second| schedule.take_due(at(second)))
            .collect()
    }

    #[test]
    fn one_torrent_is_announced_at_once_and_every_five_minutes() {
        let sent = run(1, 1_000);
        let times: Vec<usize> = (0..1_000)
            .filter(|&second| !sent[second].is_empty())
            .collect();
        assert_eq!(times[0], 0);
        assert_eq!(times.len(), 4);
        for pair in times.windows(2) {
            assert!((300..=331).contains(&(pair[1] - pair[0])), "{times:?}");
        }
    }

    #[test]
    fn a_datagram_names_one_torrent_while_that_does() {
        let sent = run(8, 1);
        assert_eq!(sent[0].len(), 8);
        assert!(sent[0].iter().all(|datagram| datagram.len() == 1));
        let sent = run(20, 1);
        assert_eq!(sent[0].iter().map(Vec::len).sum::<usize>(), 20);
        assert!(sent[0].len() <= DATAGRAMS_PER_SECOND_MAX && sent[0][0].len() == 3);
    }

    #[test]
    fn a_hundred_thousand_torrents_are_announced_in_turn_at_a_bounded_rate() {
        let sent = run(100_000, 1_200);
        let mut last: HashMap<InfoHashV1, usize> = HashMap::new();
        for (second, datagrams) in sent.iter().enumerate() {
            assert!(datagrams.len() <= DATAGRAMS_PER_SECOND_MAX);
            for &info_hash in datagrams.iter().flatten() {
                let before = last.insert(info_hash, second);
                assert!(before.is_none_or(|before| second - before >= 300));
            }
            assert!(datagrams.iter().all(|one| one.len() <= INFO_HASHES_MAX));
        }
        assert_eq!(last.len(), 100_000, "each has had its turn");
        assert!(last.values().all(|&second| second > 400), "and again");
    }

    #[test]
    fn all_torrents_are_due_when_somebody_new_can_hear() {
        let mut schedule = Schedule::new(1);
        for number in 0..20 {
            schedule.add(hash(number), Arc::new(Nobody), at(0));
        }
        assert_eq!(schedule.take_due(at(0)).concat().len(), 20);
        assert!(schedule.take_due(at(10)).is_empty());
        schedule.all_due(at(10));
        assert_eq!(schedule.take_due(at(10)).concat().len(), 20);
        assert!(schedule.take_due(at(300)).is_empty());
        schedule.all_due(at(300));
        schedule.remove(hash(7));
        assert_eq!(schedule.take_due(at(300)).concat().len(), 19);
    }

    #[test]
    fn what_was_removed_is_not_announced() {
        let mut schedule = Schedule::new(1);
        schedule.add(hash(1), Arc::new(Nobody), at(0));
        schedule.add(hash(2), Arc::new(Nobody), at(0));
        assert!(
            schedule.add(hash(2), Arc::new(Nobody), at(0)),
            "it is there"
        );
        schedule.remove(hash(1));
        schedule.remove(hash(3));
        assert_eq!(schedule.take_due(at(0)), [vec![hash(2)]]);
        schedule.remove(hash(2));
        assert!(schedule.due.is_empty() && schedule.sink(hash(2)).is_none());
    }
}
