//! Torrents that are awake: who uses each, and which ones nobody has used for how long.
//!
//! A use is a connection, one that is being begun, or a download that has not ended. Uses are
//! counted in the torrent, by an atomic; only the first and the last of a torrent take the lock of
//! the list. It keeps those without uses in the order in which they lost the last one, so that
//! nobody has to look at all torrents to find them.
//!
//! Limits: the torrents that the control plane has given to the shards.

use crate::roster::Roster;
use crate::torrent::SeededTorrent;
use proto::ids::InfoHashV1;
use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// How many use a torrent.
#[derive(Default)]
pub(crate) struct Uses(AtomicUsize);

impl Uses {
    /// Instead of a number: the torrent is asleep, and will not be used again.
    const CLOSED: usize = usize::MAX;

    /// One more; says whether it is the first. `None` if there can be none any more.
    fn begin(&self) -> Option<bool> {
        let more = |uses: usize| (uses != Uses::CLOSED).then(|| uses + 1);
        let before = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        before.ok().map(|uses| uses == 0)
    }

    /// One more, which does not end.
    pub(crate) fn pin(&self) {
        let _ = self.begin();
    }

    /// One less; says whether it was the last.
    fn end(&self) -> bool {
        self.0.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// From now on there is none. False if there is one.
    pub(crate) fn close(&self) -> bool {
        let (acquire, release) = (Ordering::Acquire, Ordering::AcqRel);
        let closed = self.0.compare_exchange(0, Uses::CLOSED, release, acquire);
        closed.is_ok()
    }

    fn is_none(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }
}

/// A torrent that is being used; it does not fall asleep until this is dropped.
pub(crate) struct TorrentUse {
    torrent: Arc<SeededTorrent>,
    roster: Arc<Roster>,
}

impl TorrentUse {
    pub(super) fn new(roster: &Arc<Roster>, torrent: &Arc<SeededTorrent>) -> Option<TorrentUse> {
        let is_first = torrent.uses().begin()?;
        if is_first {
            roster.look_at_uses(torrent);
        }
        Some(TorrentUse {
            torrent: Arc::clone(torrent),
            roster: Arc::clone(roster),
        })
    }
}

impl Deref for TorrentUse {
    type Target = Arc<SeededTorrent>;

    fn deref(&self) -> &Arc<SeededTorrent> {
        &self.torrent
    }
}

impl Drop for TorrentUse {
    fn drop(&mut self) {
        if self.torrent.uses().end() {
            self.roster.look_at_uses(&self.torrent);
        }
    }
}

/// One that is awake.
struct Resident {
    torrent: Arc<SeededTorrent>,
    /// Since when nobody uses it.
    idle_since: Option<Instant>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Awake {
    torrents: HashMap<InfoHashV1, Resident>,
    /// Those that nobody uses, by since when and their number.
    idle: BTreeMap<(Instant, u64), InfoHashV1>,
}

impl Awake {
    pub(super) fn len(&self) -> usize {
        self.torrents.len()
    }

    pub(super) fn torrent(&self, info_hash: InfoHashV1) -> Option<Arc<SeededTorrent>> {
        let resident = self.torrents.get(&info_hash)?;
        Some(Arc::clone(&resident.torrent))
    }

    /// Enters a torrent, in the place of another with its info-hash.
    pub(super) fn enter(&mut self, torrent: &Arc<SeededTorrent>, now: Instant) {
        let resident = Resident {
            torrent: Arc::clone(torrent),
            idle_since: None,
        };
        let before = self.torrents.insert(torrent.info_hash(), resident);
        if let Some((past, since)) = before.and_then(|past| Some((past.torrent, past.idle_since?)))
        {
            self.idle.remove(&(since, past.id()));
        }
        self.look(torrent, now);
    }

    /// Forgets a torrent, but not another with its info-hash.
    pub(super) fn leave(&mut self, torrent: &SeededTorrent) {
        let info_hash = torrent.info_hash();
        let known = self.torrents.get(&info_hash);
        if known.is_some_and(|known| known.torrent.id() == torrent.id())
            && let Some(known) = self.torrents.remove(&info_hash)
            && let Some(since) = known.idle_since
        {
            self.idle.remove(&(since, torrent.id()));
        }
    }

    /// Enters it among those that nobody uses, or takes it from them, as its uses say now: whoever
    /// changes them comes here afterwards, so that the last one to come sees them as they stay.
    pub(super) fn look(&mut self, torrent: &SeededTorrent, now: Instant) {
        let Some(known) = self.torrents.get_mut(&torrent.info_hash()) else {
            return;
        };
        if known.torrent.id() != torrent.id() {
            return;
        }
        match (torrent.uses().is_none(), known.idle_since) {
            (true, None) => {
                known.idle_since = Some(now);
                self.idle.insert((now, torrent.id()), torrent.info_hash());
            }
            (false, Some(since)) => {
                known.idle_since = None;
                self.idle.remove(&(since, torrent.id()));
            }
            _ => {}
        }
    }

    /// At most `count_max` that nobody has used since `before`, the longest unused first.
    pub(super) fn idle(&self, before: Instant, count_max: usize) -> Vec<InfoHashV1> {
        let long = self.idle.iter().take_while(|((at, _), _)| *at <= before);
        long.map(|(_, hash)| *hash).take(count_max).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Data, roster};
    use std::time::Duration;

    #[test]
    fn what_is_used_is_not_closed_and_what_is_closed_not_used() {
        let uses = Uses::default();
        assert_eq!((uses.begin(), uses.begin()), (Some(true), Some(false)));
        assert!(!uses.close());
        assert!(!uses.end() && !uses.close());
        assert!(uses.end() && uses.is_none());
        assert!(uses.close() && !uses.close());
        assert_eq!(uses.begin(), None);
    }

    #[test]
    fn the_longest_unused_come_first() {
        let data: Vec<Data> = (0..3).map(|_| Data::new(&[("a", 10)])).collect();
        let torrents: Vec<_> = (1..=3)
            .map(|pieces| data[0].torrent_of_pieces(pieces))
            .collect();
        let hashes: Vec<_> = torrents.iter().map(|torrent| torrent.info_hash()).collect();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut awake = Awake::default();
        for (torrent, second) in torrents.iter().zip([5, 3, 4]) {
            awake.enter(torrent, at(second));
        }
        assert_eq!(awake.idle(at(9), 9), [hashes[1], hashes[2], hashes[0]]);
        assert_eq!(awake.idle(at(4), 9), [hashes[1], hashes[2]]);
        assert_eq!(awake.idle(at(9), 1), [hashes[1]]);
        torrents[1].uses().begin();
        awake.look(&torrents[1], at(6));
        assert_eq!(awake.idle(at(9), 9), [hashes[2], hashes[0]]);
        torrents[1].uses().end();
        awake.look(&torrents[1], at(7));
        awake.look(&torrents[1], at(8));
        assert_eq!(awake.idle(at(9), 9), [hashes[2], hashes[0], hashes[1]]);
        // Another one in the place of the first, which is not forgotten for the first's sake.
        let again = data[0].torrent_of_pieces(1);
        awake.enter(&again, at(8));
        awake.leave(&torrents[0]);
        assert_eq!(awake.idle(at(9), 9), [hashes[2], hashes[1], hashes[0]]);
        awake.leave(&again);
        awake.leave(&torrents[2]);
        assert_eq!(awake.idle(at(9), 9), [hashes[1]]);
        assert_eq!((awake.len(), awake.idle.len()), (1, 1));
    }

    /// However uses come and go on several threads, in the end the list is right.
    #[test]
    fn first_and_last_uses_on_several_threads_leave_the_list_right() {
        let data = Data::new(&[("a", 10)]);
        let torrent = data.torrent();
        let (roster, _events) = roster();
        roster.enter(&torrent);
        let (in_the_end, hash) = (
            Instant::now() + Duration::from_secs(3600),
            torrent.info_hash(),
        );
        for _ in 0..20 {
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| (0..200).for_each(|_| drop(roster.claim(&torrent))));
                }
            });
            assert_eq!(roster.idle(in_the_end, 9), [hash]);
        }
        let used = roster.claim(&torrent);
        assert!(used.is_some() && roster.idle(in_the_end, 9).is_empty());
    }
}
