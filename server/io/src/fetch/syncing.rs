//! What is safe: written pieces are forced to the disk once a period, and told after that.
//!
//! The period is the longest that a piece waits: from when it is stored to when a record of it is
//! on the disk. So a sync begins as much earlier as it is expected to take ([`Beat`]).
//!
//! The order is what a crash leaves to be believed: the bytes are written, their files marked, the
//! piece is noted, the files synced, the piece told. If a sync fails, nothing is believed that was
//! written since the last good one, be it a piece that was stored before or while it failed, one
//! that is being stored, or what of one had to leave memory: the kernel may have dropped those
//! pages and says so once. It is written again from memory or fetched again, after a pause that
//! doubles with each failure: a disk that never syncs is not to be fed with the same data for ever.

use crate::fetch::FetchEvent;
use crate::fetch::disk::DiskError;
use crate::fetch::home::ActiveFetch;
use crate::shard::Shard;
use engine::layout::{FileIndex, FileStamp};
use engine::time::Time;
use proto::ids::PieceIndex;
use seedring_metrics::Histogram;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The longest pause after failed syncs.
const REST_MAX: Duration = Duration::from_secs(5 * 60);

/// When the next sync begins.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Beat {
    /// When the first piece was stored that no sync has begun to cover.
    waiting_since: Option<Time>,
    /// How long the last sync took, if there was one.
    took: Option<Duration>,
}

impl Beat {
    /// A piece was stored. True if it is the first one that waits, so that a sync is due now.
    pub(crate) fn stored(&mut self, now: Time) -> bool {
        let is_first = self.waiting_since.is_none();
        self.waiting_since.get_or_insert(now);
        is_first
    }

    /// A sync begins, of all that was stored.
    fn begins(&mut self) {
        self.waiting_since = None;
    }

    /// When the next sync is to begin so that nothing waits for longer than `period`: earlier by
    /// what the last one took, and by as much again for what is done with its result, which is
    /// forced to the disk too. A disk that takes long, or of which nothing is known yet, gets half
    /// of the period to itself: there pieces wait for as long as the disk takes.
    fn due(&self, period: Duration) -> Time {
        let took = self.took.unwrap_or(period);
        let rest = period.saturating_sub(took * 2).max(period / 2);
        self.waiting_since.map_or(Time::NEVER, |since| since + rest)
    }
}

impl ActiveFetch {
    /// Waits until the next sync is due; for ever if nothing waits for one, or one is under way.
    /// Either is told as news when it ends.
    pub(crate) async fn sync_due(&self, shard: &Shard) {
        let is_under_way = self.syncing.try_lock().is_err();
        let due = self.beat.get().due(shard.config.fetch.sync_period);
        match due {
            Time::NEVER => std::future::pending().await,
            _ if is_under_way => std::future::pending().await,
            due => tokio::time::sleep(due.since(shard.now())).await,
        }
    }

    /// Notes that a piece is stored and not synced.
    pub(crate) fn note_stored(&self, piece: PieceIndex, now: Time) {
        self.unsynced.borrow_mut().push(piece);
        self.keep_time(now);
    }

    fn keep_time(&self, now: Time) {
        let mut beat = self.beat.get();
        let is_first = beat.stored(now);
        self.beat.set(beat);
        if is_first {
            self.news.notify_one();
        }
    }

    fn sync_begins(&self) {
        let mut beat = self.beat.get();
        beat.begins();
        self.beat.set(beat);
    }

    /// Syncs in a task of its own, unless the last one is still under way.
    pub(crate) fn sync_aside(&self, shard: &Rc<Shard>) {
        let Some(fetch) = self.handle() else { return };
        if self.syncing.try_lock().is_err() {
            return;
        }
        self.sync_begins();
        if self.unsynced.borrow().is_empty() {
            return;
        }
        let shard = Rc::clone(shard);
        self.spawn(async move {
            let _synced = fetch.sync(&shard).await;
        });
    }

    /// Forces to the disk what is written and tells of it. False if that failed: what was written
    /// is lost then.
    pub(crate) async fn sync(&self, shard: &Rc<Shard>) -> bool {
        let one_at_a_time = self.syncing.lock().await;
        let begun = self.disk.begin_sync().await;
        let pieces = std::mem::take(&mut *self.unsynced.borrow_mut());
        self.sync_begins();
        if pieces.is_empty() && self.disk.is_clean() {
            return true;
        }
        let started = Instant::now();
        let synced = self.disk.sync(begun).await;
        let took = started.elapsed();
        shard.cells.record(Histogram::DiskSyncDuration, took);
        self.beat.set(Beat {
            took: Some(took),
            ..self.beat.get()
        });
        let is_synced = self.draw_consequences(shard, pieces, synced).await;
        // The next one waits for this one's end.
        drop(one_at_a_time);
        self.news.notify_one();
        is_synced
    }

    /// Tells what a sync has brought; see [`Self::sync`].
    async fn draw_consequences(
        &self,
        shard: &Rc<Shard>,
        pieces: Vec<PieceIndex>,
        synced: Result<Vec<(FileIndex, FileStamp)>, DiskError>,
    ) -> bool {
        match synced {
            Ok(stamps) => {
                if !pieces.is_empty() {
                    self.failed_syncs.set(0);
                }
                let _ = self
                    .events
                    .send(FetchEvent::Synced { pieces, stamps })
                    .await;
                true
            }
            Err(error) => {
                self.unsynced.borrow_mut().extend(pieces);
                self.keep_time(shard.now());
                self.disk_failed(shard, error);
                false
            }
        }
    }

    /// Takes back all that is in doubt, if a sync has failed since the last time.
    pub(crate) fn face_doubts(&self, shard: &Rc<Shard>) {
        let doubts = self.disk.doubts();
        if self.doubts.replace(doubts) == doubts {
            return;
        }
        self.failed_syncs.set(self.failed_syncs.get() + 1);
        let unsynced = std::mem::take(&mut *self.unsynced.borrow_mut());
        let spilled = self.open.borrow().with_spills();
        self.lose(shard, &unsynced, &spilled);
        self.try_again_later(shard);
    }

    /// Goes on after a while, and finds out whether the disk works.
    pub(crate) fn try_again_later(&self, shard: &Rc<Shard>) {
        let Some(fetch) = self.handle() else { return };
        let shard = Rc::clone(shard);
        let period = rest_after(self.failed_syncs.get(), shard.config.fetch.retry_period);
        self.resting.set(self.resting.get() + 1);
        self.spawn(async move {
            fetch.rest(period, || false).await;
            fetch.resting.set(fetch.resting.get() - 1);
            fetch.disk_works(&shard);
        });
    }

    /// Waits for `period`, until `is_over`, or until the download ends.
    pub(crate) async fn rest(&self, period: Duration, is_over: impl Fn() -> bool) {
        let until = tokio::time::Instant::now() + period;
        while !self.is_ending() && !is_over() {
            let told = self.written.notified();
            if tokio::time::timeout_at(until, told).await.is_err() {
                return;
            }
        }
    }

    /// Waits until the disk is to be tried again, holding `bytes` of memory that others may want:
    /// until these are to be given up, `is_over`, or the download ends.
    pub(crate) async fn rest_holding(
        &self,
        bytes: usize,
        shard: &Shard,
        is_over: impl Fn() -> bool,
    ) {
        let period = shard.config.fetch.retry_period;
        self.holding.borrow_mut().push(bytes);
        self.rest(period, || is_over() || self.to_give_up.get() > 0)
            .await;
        let mut holding = self.holding.borrow_mut();
        let ours = holding.iter().position(|&one| one == bytes);
        ours.map(|at| holding.swap_remove(at));
    }

    /// Whether whoever asks, who holds `bytes`, is to give them up: somebody wants them. The last
    /// one keeps what is little: its next try says whether the disk works.
    pub(crate) fn gives_up(&self, bytes: usize, shard: &Shard) -> bool {
        let count = self.to_give_up.get();
        self.to_give_up.set(count.saturating_sub(1));
        let is_last = self.holding.borrow().is_empty();
        count > 0 && !(is_last && is_little(bytes, shard))
    }

    /// Notes that a write which failed is not tried again. If no other is, somebody else has to end
    /// the pause.
    pub(crate) fn has_given_up(&self, shard: &Rc<Shard>) {
        if self.holding.borrow().is_empty() {
            self.try_again_later(shard);
        }
    }

    /// Has one of those who hold memory that can not be written give it up. False if there is none
    /// (more).
    pub(crate) fn have_one_given_up(&self, shard: &Rc<Shard>) -> bool {
        let count = self.to_give_up.get();
        let holding = self.holding.borrow();
        let left = holding.get(count..).unwrap_or_default();
        if left.len() <= 1 && left.iter().all(|&bytes| is_little(bytes, shard)) {
            return false;
        }
        self.to_give_up.set(count + 1);
        self.written.notify_waiters();
        true
    }

    /// Gives the files that are whole their own names, and makes the empty ones. When that is all
    /// of the torrent, it is a complete one from then on. False if it could not be done.
    pub(crate) async fn name_files(&self, shard: &Rc<Shard>) -> bool {
        let whole = self.whole_files();
        // Of all there is before: what comes meanwhile is neither synced nor among these files.
        let was_all = self.is_all_synced();
        match self.disk.finish(&whole).await {
            Ok(stamps) => {
                if was_all && self.is_all_synced() {
                    self.torrent.complete(self.stamps_of_all(&stamps));
                }
                true
            }
            Err(error) => {
                self.disk_failed(shard, error);
                self.try_again_later(shard);
                false
            }
        }
    }

    /// Whether all pieces of the torrent are there, and none has come since the last sync.
    fn is_all_synced(&self) -> bool {
        let count = self.torrent.layout().piece_count();
        self.stored.get() == count && self.unsynced.borrow().is_empty()
    }

    /// The files of which all pieces are there; empty ones are among them if they are wanted, or
    /// all others are there.
    fn whole_files(&self) -> BTreeSet<FileIndex> {
        let layout = self.torrent.layout();
        let is_complete = self.stored.get() == layout.piece_count();
        let files = self.torrent.metainfo().files.iter();
        (0..)
            .map(FileIndex)
            .zip(files)
            .filter(|(index, file)| {
                let mut pieces = layout.pieces_of_file(*index).map(PieceIndex);
                let is_on_disk = !file.pad && file.symlink_target.is_none();
                let is_due = file.length > 0 || is_complete || self.disk.is_wanted(*index);
                is_on_disk && is_due && pieces.all(|piece| self.pieces.has(piece))
            })
            .map(|(index, _)| index)
            .collect()
    }

    fn stamps_of_all(&self, found: &[(FileIndex, FileStamp)]) -> Vec<Option<FileStamp>> {
        let mut stamps = vec![None; self.torrent.metainfo().files.len()];
        for (index, stamp) in found {
            if let Some(place) = stamps.get_mut(index.0 as usize) {
                *place = Some(*stamp);
            }
        }
        stamps
    }
}

/// Whether others do without so many bytes of memory.
fn is_little(bytes: usize, shard: &Shard) -> bool {
    bytes <= shard.config.fetch.buffer_bytes / 4
}

/// How long nothing is requested after so many failed syncs in a row: `shortest` after the first,
/// then twice as long each time, up to [`REST_MAX`].
fn rest_after(failed_syncs: u32, shortest: Duration) -> Duration {
    let doublings = failed_syncs.saturating_sub(1).min(16);
    let period = shortest.saturating_mul(1 << doublings);
    period.min(REST_MAX.max(shortest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::random::Random;

    const PERIOD: Duration = Duration::from_secs(5);

    /// Downloads for an hour: the longest that a piece waits from being stored to being recorded,
    /// and the shortest time from one sync to the next. Pieces come every `gap` to twice that; a
    /// sync takes `least` to `most`, its record as long again.
    fn waits(gap: u64, least: u64, most: u64) -> (Duration, Duration) {
        let millis = |millis: u64| Time(millis * 1_000_000);
        let mut random = Random::new(gap ^ least << 20 ^ most << 40);
        let mut beat = Beat::default();
        let (mut waiting, mut longest) = (Vec::new(), Duration::ZERO);
        let (mut begun, mut shortest) = (None, Duration::MAX);
        // When the sync that is under way ends, and how long it takes.
        let mut busy: Option<(Time, Duration)> = None;
        let mut next_piece = 0;
        for now in 0..3_600_000 {
            let at = millis(now);
            if now == next_piece {
                beat.stored(at);
                waiting.push(at);
                next_piece += gap + random.below(gap + 1);
            }
            if let Some((_, took)) = busy.filter(|(ends, _)| *ends <= at) {
                beat.took = Some(took);
                busy = None;
            }
            if busy.is_none() && beat.due(PERIOD) <= at {
                beat.begins();
                let took = least + random.below(most - least + 1);
                let recorded = millis(now + 2 * took);
                let waited = waiting.drain(..).map(|since| recorded.since(since));
                longest = waited.max().unwrap_or_default().max(longest);
                shortest = begun.map_or(shortest, |begun| at.since(begun).min(shortest));
                begun = Some(at);
                busy = Some((millis(now + took), Duration::from_millis(took)));
            }
        }
        assert!(begun.is_some());
        (longest, shortest)
    }

    #[test]
    fn no_piece_waits_for_longer_than_a_period() {
        for (gap, least, most) in [(1, 20, 20), (7, 0, 0), (300, 900, 900), (9_000, 1, 1)] {
            let (longest, shortest) = waits(gap, least, most);
            assert!(longest <= PERIOD, "{gap} {least} {most}: {longest:?}");
            assert!(shortest >= PERIOD / 2, "{gap} {least} {most}: {shortest:?}");
            // Not for much less either: each sync costs.
            let spare = Duration::from_millis(2 * (most - least) + 2);
            assert!(
                longest >= PERIOD - spare,
                "{gap} {least} {most}: {longest:?}"
            );
        }
        // Where syncs differ, by no more than they do.
        let (longest, _) = waits(5, 100, 400);
        assert!(
            longest <= PERIOD + Duration::from_millis(600),
            "{longest:?}"
        );
        // A slow disk is not synced without a pause that it needs.
        let (longest, shortest) = waits(5, 2_000, 2_000);
        assert!(shortest >= PERIOD / 2, "{shortest:?}");
        assert!(
            longest <= PERIOD / 2 + 2 * Duration::from_secs(2),
            "{longest:?}"
        );
    }

    #[test]
    fn what_waits_for_nothing_is_never_due() {
        let mut beat = Beat::default();
        assert_eq!(beat.due(PERIOD), Time::NEVER);
        assert!(beat.stored(Time(7)));
        assert!(!beat.stored(Time(8)), "the first one counts");
        assert_eq!(beat.due(PERIOD), Time(7) + PERIOD / 2, "of a disk unknown");
        beat.took = Some(PERIOD / 10);
        assert_eq!(beat.due(PERIOD), Time(7) + PERIOD * 4 / 5);
        beat.begins();
        assert_eq!(beat.due(PERIOD), Time::NEVER);
    }

    #[test]
    fn a_disk_that_never_syncs_is_tried_less_and_less() {
        let seconds = |failed| rest_after(failed, Duration::from_secs(5)).as_secs();
        let tries = [0, 1, 2, 3, 4, 7, 8, u32::MAX].map(seconds);
        assert_eq!(tries, [5, 5, 10, 20, 40, 300, 300, 300]);
        let long = Duration::from_secs(3_600);
        assert_eq!(rest_after(5, long), long);
    }
}
