//! Downloads that have all that is wanted of them: hooks are told once of it, at whatever moment the
//! server ends.
//!
//! A torrent that is complete says so in the store by the write that tells of it. Of a selection the
//! pieces are kept as they come, and that hooks are to be told when all of them are there was kept
//! before the first came ([`state::Summary::completion_untold`]); it is taken back by the write that
//! tells them. So a start that finds all there knows whether anybody has been told.
//!
//! Does not: tell of data that were there before they were wanted.

use crate::keeping::{Change, Next};
use crate::manager::{Manager, Phase};
use crate::unkept::Fields;
use control::hooks::HookEvent;
use control::verify::PieceSet;
use engine::layout::{FileIndex, StorageLayout};
use engine::picker::Priority;
use proto::ids::{InfoHashV1, PieceIndex};
use proto::metainfo::Metainfo;
use state::{Summary, Update};
use std::sync::Arc;

/// What hooks are still to be told of a download.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Untold {
    /// Whether something was missing since they were told; that is kept, or about to be.
    owed: bool,
    /// Whether it was so before this download began: what has come then is not among what it has
    /// received.
    before: bool,
    /// How much it had received when they were told last, in bytes.
    received: u64,
}

impl Untold {
    /// A download begins that lacks something of what is wanted, or not; `before` as it was kept.
    pub(crate) fn new(before: bool, lacks: bool) -> Untold {
        Untold {
            owed: before || lacks,
            before,
            received: 0,
        }
    }

    /// All that is wanted is there, and so much was received: whether hooks are told so, and whether
    /// what is kept says that they are to be.
    fn take(&mut self, received: u64) -> (bool, bool) {
        let then = std::mem::take(self);
        self.received = received;
        (then.before || received > then.received, then.owed)
    }
}

/// Whether a piece of a file that is wanted is missing.
pub(crate) fn lacks_wanted(
    metainfo: &Metainfo,
    priorities: &[Priority],
    pieces: &PieceSet,
) -> bool {
    let files = metainfo.files.iter();
    let lengths: Vec<_> = files.map(|file| (file.length, file.pad)).collect();
    let Ok(layout) = StorageLayout::new(&lengths, metainfo.piece_length) else {
        return false;
    };
    (0..).zip(&metainfo.files).any(|(index, file)| {
        let is_wanted = priorities.get(index as usize) != Some(&Priority::SKIP);
        let mut of_file = layout.pieces_of_file(FileIndex(index)).map(PieceIndex);
        is_wanted && !file.pad && of_file.any(|piece| !pieces.contains(piece))
    })
}

impl Manager {
    /// What hooks are to be told of a download that begins, and lacks something of what is wanted or
    /// not.
    pub(crate) async fn untold(&mut self, info_hash: InfoHashV1, lacks: bool) -> Untold {
        let before = {
            let catalog = self.seat.catalog();
            let torrent = catalog.get(&info_hash);
            torrent.is_some_and(|torrent| torrent.summary.completion_untold)
        };
        if lacks && !before {
            self.keep_untold(info_hash).await;
        }
        Untold::new(before, lacks)
    }

    /// More is wanted of a download that had all.
    pub(crate) async fn owe_completion(&mut self, info_hash: InfoHashV1) {
        if let Some(Phase::Downloading(download)) = self.phases.get_mut(&info_hash) {
            download.untold.owed = true;
            self.keep_untold(info_hash).await;
        }
    }

    async fn keep_untold(&mut self, info_hash: InfoHashV1) {
        let change: Change = Arc::new(|summary: &mut Summary| summary.completion_untold = true);
        self.settle(info_hash, Fields::NONE, Update::new, change, Next::Done)
            .await;
    }

    /// Tells that all is there that is wanted of a download, if any of it has come.
    pub(crate) async fn tell_selection(&mut self, info_hash: InfoHashV1) {
        let Some(Phase::Downloading(download)) = self.phases.get_mut(&info_hash) else {
            return;
        };
        let received = download.fetch.progress().downloaded;
        let (has_come, was_owed) = download.untold.take(received);
        if has_come || was_owed {
            let told = has_come.then_some((HookEvent::Completed, None));
            let change: Change = Arc::new(|summary: &mut Summary| {
                summary.completion_untold = false;
            });
            let nothing = Fields::NONE;
            self.settle_telling(info_hash, nothing, Update::new, change, Next::Done, told)
                .await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_come_is_told_once_and_what_was_there_is_not() {
        // All was there.
        let mut there = Untold::new(false, false);
        assert_eq!(there.take(0), (false, false));
        // It is not wanted any more.
        let mut given_up = Untold::new(false, true);
        assert_eq!(given_up.take(0), (false, true));
        // It comes, and again when more is wanted.
        let mut comes = Untold::new(false, true);
        assert_eq!(comes.take(9), (true, true));
        assert_eq!(comes.take(9), (false, false));
        comes.owed = true;
        assert_eq!(comes.take(10), (true, true));
        // It had come when the server ended.
        let mut had_come = Untold::new(true, false);
        assert_eq!(had_come.take(0), (true, true));
        assert_eq!(had_come.take(0), (false, false));
    }

    #[test]
    fn what_is_missing_is_missing_of_what_is_wanted() {
        // Two files in three pieces, of which they share the second; a pad file behind them.
        let file = |name: &str, length: u32, more: &str| {
            format!("d{more}6:lengthi{length}e4:pathl1:{name}ee")
        };
        let pad = file("p", 8_192, "4:attr1:p");
        let files = [file("a", 24_576, ""), file("b", 16_384, ""), pad].concat();
        let info = format!(
            "d5:filesl{files}e4:name1:t12:piece lengthi16384e6:pieces60:{}e",
            "x".repeat(60)
        );
        let metainfo = Metainfo::parse(format!("d4:info{info}e").as_bytes()).unwrap();
        let lacks = |skipped: [bool; 2], there: &[u32]| {
            let priority = |skip| {
                if skip {
                    Priority::SKIP
                } else {
                    Priority::NORMAL
                }
            };
            let mut pieces = PieceSet::new(3);
            there
                .iter()
                .for_each(|&piece| pieces.insert(PieceIndex(piece)));
            lacks_wanted(&metainfo, &skipped.map(priority), &pieces)
        };
        assert!(lacks([false, false], &[0, 1]) && !lacks([false, false], &[0, 1, 2]));
        assert!(!lacks([false, true], &[0, 1]) && lacks([false, true], &[0]));
        assert!(!lacks([true, false], &[1, 2]) && lacks([true, false], &[0, 2]));
        assert!(!lacks([true, true], &[]));
    }
}
