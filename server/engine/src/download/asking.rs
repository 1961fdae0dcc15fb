//! Which peers are asked for more, and for how much: what their windows take, and where the
//! download has a rate limit no more than it allows.
//!
//! A request counts when it is sent, because nobody can stop what was asked for. What will not be
//! answered (rejected, void by a choke, of a peer that has gone) counts for nothing: it may be
//! asked for again without a new grant. What has timed out or was cancelled may still come, so it
//! stays counted.
//!
//! Limits: [`CREDIT_BYTES_MAX`].

use super::{Action, Download};
use crate::choker::PeerKey;
use crate::picker::Wish;
use crate::time::Time;
use proto::limits::BLOCK_LENGTH;
use std::ops::Bound;

/// What is remembered at most of what was granted and will not come, in bytes.
const CREDIT_BYTES_MAX: u64 = 1 << 20;

/// What a download with a rate limit may ask for.
#[derive(Default)]
pub(super) struct Allowance {
    /// Whether there was a limit when it last asked.
    is_limited: bool,
    /// What may be asked for now; set while it asks.
    bytes: Option<u64>,
    /// What was granted before and will not come.
    credit: u64,
    /// Whom it asked last.
    asked: Option<PeerKey>,
}

impl Allowance {
    /// Counts a request as one that will not be answered.
    pub(super) fn void(&mut self, bytes: u64) {
        if self.is_limited {
            self.credit = self.credit.saturating_add(bytes).min(CREDIT_BYTES_MAX);
        }
    }
}

/// What came of asking within a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    /// What of the grant was not needed, in bytes.
    pub left: u64,
    /// Whether more would have been asked for: another grant is of use.
    pub is_short: bool,
}

impl Download {
    /// Asks peers for more, now that the inputs at hand have been taken.
    pub fn refill(&mut self, now: Time) {
        self.allowance = Allowance::default();
        self.ask_ready(now);
    }

    /// The same of a download with a rate limit, by which `bytes` were granted.
    pub fn refill_within(&mut self, bytes: u64, now: Time) -> Asked {
        let credit = std::mem::take(&mut self.allowance.credit);
        self.allowance.is_limited = true;
        self.allowance.bytes = Some(bytes.saturating_add(credit));
        self.ask_ready(now);
        let left = self.allowance.bytes.take().unwrap_or(0);
        self.allowance.credit = left.min(credit);
        Asked {
            left: left - self.allowance.credit,
            is_short: !self.ready.is_empty(),
        }
    }

    /// Whether asking may be of use: some peer's window may have room.
    pub fn may_ask(&self) -> bool {
        !self.ready.is_empty()
    }

    fn ask_ready(&mut self, now: Time) {
        if self.paused || self.unstored_bytes > self.config.unstored_bytes_max {
            // Woken again by what is stored, or by the end of the pause.
            self.hungry.append(&mut self.ready);
            return;
        }
        while let Some(peer) = self.next_ready() {
            if !self.ask(peer, now) {
                self.ready.insert(peer);
                return;
            }
        }
    }

    /// Takes a peer that may be asked. Where little may be asked for, all have their turn.
    fn next_ready(&mut self) -> Option<PeerKey> {
        if self.allowance.bytes.is_none() {
            return self.ready.pop_first();
        }
        let asked = self.allowance.asked;
        let after = asked.map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.ready.range((after, Bound::Unbounded)).next().copied();
        let peer = next.or_else(|| self.ready.first().copied())?;
        self.ready.remove(&peer);
        Some(peer)
    }

    /// Asks one peer for as much as its window takes. False if the limit does not allow it all.
    fn ask(&mut self, peer: PeerKey, now: Time) -> bool {
        let Some(source) = self.peers.get_mut(&peer) else {
            return true;
        };
        if !source.interested {
            return true;
        }
        let room = match source.chokes {
            true if source.allowed_fast.is_empty() => 0,
            true => source.pipeline.allowed_fast_room(&self.budget, now),
            false => source.pipeline.room(&self.budget, now),
        };
        let granted = self
            .allowance
            .bytes
            .map(|bytes| bytes / u64::from(BLOCK_LENGTH));
        let granted = granted.map(|blocks| u32::try_from(blocks).unwrap_or(u32::MAX));
        let count = granted.map_or(room, |blocks| blocks.min(room));
        if count == 0 {
            return room == 0;
        }
        let wish = Wish {
            count,
            only: source.chokes.then_some(&source.allowed_fast[..]),
            suggested: source.suggested.make_contiguous(),
        };
        let mut blocks = std::mem::take(&mut self.blocks);
        self.picker.pick(peer, wish, &mut blocks);
        let has_more = blocks.len() as u64 >= u64::from(count);
        if !has_more {
            self.hungry.insert(peer);
        }
        for block in blocks.drain(..) {
            if source.pipeline.requested(block, &mut self.budget, now) {
                self.actions.push_back(Action::Request { peer, block });
                if let Some(bytes) = &mut self.allowance.bytes {
                    *bytes = bytes.saturating_sub(u64::from(block.length));
                    self.allowance.asked = Some(peer);
                }
            } else {
                self.picker.request_failed(peer, block);
            }
        }
        self.blocks = blocks;
        self.follow_picker();
        count == room || !has_more
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::download::DownloadConfig;
    use crate::layout::StorageLayout;
    use crate::picker::PeerPieces;
    use proto::wire::BlockRequest;

    const BLOCK: u64 = BLOCK_LENGTH as u64;

    /// A download of a hundred blocks from `peers` that have all of it.
    fn download(peers: u64) -> Download {
        let layout = StorageLayout::new(&[(100 * BLOCK, false)], 4 * BLOCK_LENGTH).unwrap();
        let mut download = Download::new(DownloadConfig::default(), &layout, PeerPieces::None, 1);
        for peer in (1..=peers).map(PeerKey) {
            download.peer_joined(peer, true, PeerPieces::All);
            download.unchoked(peer, Time::default());
        }
        requests(&mut download);
        download
    }

    /// What is to be requested of whom.
    fn requests(download: &mut Download) -> Vec<(PeerKey, BlockRequest)> {
        let actions = std::iter::from_fn(|| download.take_action());
        let requests = actions.filter_map(|action| match action {
            Action::Request { peer, block } => Some((peer, block)),
            _ => None,
        });
        requests.collect()
    }

    #[test]
    fn no_more_is_asked_for_than_was_granted_and_everybody_has_a_turn() {
        let (mut download, now) = (download(3), Time::default());
        let asked = download.refill_within(BLOCK - 1, now);
        let none = Asked {
            left: BLOCK - 1,
            is_short: true,
        };
        assert_eq!(asked, none);
        assert!(requests(&mut download).is_empty());
        let mut turns = Vec::new();
        for _ in 0..4 {
            let asked = download.refill_within(BLOCK + 5, now);
            assert_eq!((asked.left, asked.is_short), (5, true));
            let requests = requests(&mut download);
            assert_eq!(requests.len(), 1);
            turns.push(requests[0].0.0);
            // Who was answered has room again.
            let (peer, block) = requests[0];
            download.block(peer, block, now);
        }
        assert_eq!(turns, [1, 2, 3, 1]);
        // All that windows take; the rest is given back.
        let asked = download.refill_within(1_000 * BLOCK, now);
        let requests = requests(&mut download).len() as u64;
        assert!(!asked.is_short && requests > 0);
        assert_eq!(asked.left, (1_000 - requests) * BLOCK);
        download.check_invariants();
    }

    #[test]
    fn what_will_not_come_may_be_asked_for_again_without_a_grant() {
        let (mut download, now) = (download(2), Time::default());
        download.refill_within(3 * BLOCK, now);
        let asked = requests(&mut download);
        assert_eq!(asked.len(), 3);
        let (peer, block) = asked[0];
        download.rejected(peer, block, now);
        assert_eq!(download.refill_within(0, now).left, 0);
        assert_eq!(requests(&mut download).len(), 1);
        // Twice the same answer is no second credit.
        download.rejected(peer, block, now);
        download.refill_within(0, now);
        assert!(requests(&mut download).is_empty());
        // A peer that goes takes its requests with it.
        let theirs = download.requested_bytes();
        download.peer_left(PeerKey(1));
        let void = theirs - download.requested_bytes();
        assert!(void > 0);
        download.refill_within(0, now);
        let again: u64 = requests(&mut download)
            .iter()
            .map(|(_, block)| u64::from(block.length))
            .sum();
        assert!(again > 0 && again <= void);
        // Without a limit nothing of that is remembered.
        download.refill(now);
        download.peer_left(PeerKey(2));
        assert_eq!(download.allowance.credit, 0);
    }
}
