//! The turns of downloads: so many at a time, the others wait in the user's order.
//!
//! What has all that is wanted of it needs no turn. What has got nothing for a while gives its turn
//! to others that wait, and comes again when they have had theirs: dead torrents at the front must
//! not keep all others from ever being downloaded.
//!
//! Limits: [`crate::Settings::downloads_max`] turns; a turn in vain ends after
//! [`crate::Settings::stalled_after`], which doubles up to 16 times of that while turns of a torrent
//! are in vain, so that trackers of dead torrents are not asked all the time.

use crate::manager::{Manager, Phase};
use control::catalog::Status;
use proto::ids::InfoHashV1;
use std::time::Instant;

/// How often the time of a turn in vain doubles, while all turns of a download are in vain.
const STALLED_DOUBLED_MAX: u32 = 4;

impl Manager {
    /// Takes a turn for a download, if one is free and nobody comes before; else it waits.
    pub(crate) fn take_turn(&mut self, info_hash: InfoHashV1) -> bool {
        self.queue.wait(info_hash);
        let takes = self.has_turn() && self.queue.first() == Some(info_hash);
        match takes {
            true => self.queue.leave(&info_hash),
            false => self.set_status(info_hash, Status::Queued),
        }
        takes
    }

    /// Whether one more download may begin.
    pub(crate) fn has_turn(&self) -> bool {
        let max = self.settings.downloads_max;
        self.is_loaded && (max == 0 || self.phases.turns() < max)
    }

    /// Begins those downloads whose turn it is.
    pub(crate) async fn next_downloads(&mut self) {
        while self.has_turn() {
            let Some(info_hash) = self.queue.first() else {
                return;
            };
            self.start(info_hash).await;
            // Whatever it has begun, it does not wait any more.
            self.queue.leave(&info_hash);
        }
    }

    /// Has downloads that have got nothing for a while make room for those that wait.
    pub(crate) async fn pass_turns_on(&mut self) {
        if self.has_turn() || self.queue.len() == 0 {
            return;
        }
        let stalled = |(info_hash, phase): (&InfoHashV1, &Phase)| {
            let since = match phase {
                Phase::Downloading(download) => download.gained,
                Phase::Metadata(metadata) => metadata.begun,
                _ => return None,
            };
            let doubled = self.queue.vain(info_hash).min(STALLED_DOUBLED_MAX);
            let after = self.settings.stalled_after * (1 << doubled);
            let is_stalled = since.elapsed() >= after && self.queue.has_before(info_hash);
            is_stalled.then_some((since, *info_hash))
        };
        let mut stalled: Vec<_> = self.phases.with_turn().filter_map(stalled).collect();
        stalled.sort_unstable();
        stalled.truncate(self.queue.len());
        for (_, info_hash) in stalled {
            tracing::info!(torrent = %info_hash, "it gets nothing: others have their turn first");
            self.queue.note_vain(info_hash);
            self.restart(info_hash).await;
        }
    }

    /// All that is wanted of a download is there: others may have its turn.
    pub(crate) async fn has_all_wanted(&mut self, info_hash: InfoHashV1, number: u64) {
        match self.phases.get_mut(&info_hash) {
            Some(Phase::Downloading(download)) if download.number == number => {
                download.has_all_wanted = true;
            }
            _ => return,
        }
        tracing::info!(torrent = %info_hash, "all that is wanted of it is there");
        self.phases.give_turn_back(&info_hash);
        self.queue.note_gain(&info_hash);
        self.set_status(info_hash, Status::Seeding);
        self.tell_selection(info_hash).await;
        self.next_downloads().await;
    }

    /// More is wanted of a download that had all.
    pub(crate) async fn wants_more(&mut self, info_hash: InfoHashV1) {
        if let Some(Phase::Downloading(download)) = self.phases.get_mut(&info_hash) {
            download.has_all_wanted = false;
            download.gained = Instant::now();
            self.phases.take_turn_again(&info_hash);
            self.set_status(info_hash, Status::Downloading);
            self.owe_completion(info_hash).await;
        }
    }
}
