//! Runs of adjacent bytes among the requests that a peer has queued: what is worth reading before
//! its turn comes.
//!
//! Pure; keeps nothing but where the peer was last.

use crate::queue::Batch;
use proto::ids::PieceIndex;
use proto::wire::BlockRequest;

/// Adjacent bytes of one piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// The piece.
    pub piece: PieceIndex,
    /// Where the run starts in the piece, in bytes.
    pub begin: u32,
    /// How long it is, in bytes.
    pub bytes: u32,
}

impl Run {
    /// Where the run ends in the piece, in bytes.
    fn end(&self) -> u32 {
        self.begin.saturating_add(self.bytes)
    }
}

impl From<&Batch> for Run {
    fn from(batch: &Batch) -> Run {
        Run {
            piece: batch.piece,
            begin: batch.begin,
            bytes: batch.bytes,
        }
    }
}

/// Joins `queued` requests into runs of at most `run_bytes_max`, in order, and ends before they are
/// more than `bytes_max` in all.
pub fn runs(
    queued: impl Iterator<Item = BlockRequest>,
    run_bytes_max: u32,
    bytes_max: u32,
) -> impl Iterator<Item = Run> {
    let mut queued = queued.peekable();
    let mut left = bytes_max;
    std::iter::from_fn(move || {
        let first = queued.next_if(|block| block.length <= left)?;
        let mut run = Run {
            piece: first.piece,
            begin: first.begin,
            bytes: first.length,
        };
        left -= first.length;
        while let Some(next) = queued.next_if(|block| {
            block.piece == run.piece
                && block.begin == run.end()
                && block.length <= left
                && run.bytes.saturating_add(block.length) <= run_bytes_max
        }) {
            run.bytes += next.length;
            left -= next.length;
        }
        Some(run)
    })
}

/// Where a peer was last, and how far it had gone through the piece in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    last: Option<Run>,
}

impl Progress {
    /// Notes that `run` is sent.
    pub fn advance(&mut self, run: Run) {
        if self
            .last
            .is_some_and(|last| last.piece == run.piece && last.end() == run.end())
        {
            // The same bytes, tried once more.
            return;
        }
        self.last = match self.last {
            Some(last) if last.piece == run.piece && last.end() == run.begin => Some(Run {
                bytes: last.bytes.saturating_add(run.bytes),
                ..last
            }),
            _ => Some(run),
        };
    }

    /// What a peer that goes on in order will ask for after `latest` in its piece, which has
    /// `piece_bytes`: as much as it has taken in order so far, at most `bytes_max`. A peer that has
    /// not asked for two runs in order is not believed to go on.
    pub fn expected(&self, latest: Run, piece_bytes: u32, bytes_max: u32) -> Option<Run> {
        let last = self.last.filter(|last| last.piece == latest.piece)?;
        let in_order = last.end() == latest.end() && last.bytes > latest.bytes;
        let bytes = (piece_bytes.checked_sub(latest.end())?)
            .min(last.bytes)
            .min(bytes_max);
        (in_order && bytes > 0).then_some(Run {
            piece: latest.piece,
            begin: latest.end(),
            bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(piece: u32, begin: u32, length: u32) -> BlockRequest {
        BlockRequest {
            piece: PieceIndex(piece),
            begin,
            length,
        }
    }

    fn run(piece: u32, begin: u32, bytes: u32) -> Run {
        Run {
            piece: PieceIndex(piece),
            begin,
            bytes,
        }
    }

    #[test]
    fn adjacent_requests_are_joined_within_the_limits() {
        let queued = [
            block(1, 0, 10),
            block(1, 10, 10),
            block(1, 20, 10),
            block(1, 40, 10),
            block(2, 50, 10),
        ];
        let found: Vec<_> = runs(queued.into_iter(), 20, 45).collect();
        assert_eq!(found, [run(1, 0, 20), run(1, 20, 10), run(1, 40, 10)]);
        assert_eq!(runs(queued.into_iter(), 100, 1000).count(), 3);
        assert_eq!(runs(queued.into_iter(), 100, 9).count(), 0);
        assert_eq!(runs(std::iter::empty(), 100, 9).count(), 0);
    }

    #[test]
    fn who_goes_on_in_order_is_expected_to_go_on_as_far_as_he_came() {
        let mut progress = Progress::default();
        assert_eq!(progress.expected(run(1, 0, 10), 100, 50), None);
        progress.advance(run(1, 0, 10));
        // One run alone is no order.
        assert_eq!(progress.expected(run(1, 0, 10), 100, 50), None);
        progress.advance(run(1, 10, 10));
        assert_eq!(
            progress.expected(run(1, 10, 10), 100, 50),
            Some(run(1, 20, 20))
        );
        assert_eq!(
            progress.expected(run(1, 10, 10), 100, 5),
            Some(run(1, 20, 5))
        );
        assert_eq!(
            progress.expected(run(1, 10, 10), 25, 50),
            Some(run(1, 20, 5))
        );
        assert_eq!(progress.expected(run(1, 10, 10), 20, 50), None);
        // Elsewhere it starts anew.
        progress.advance(run(1, 60, 10));
        assert_eq!(progress.expected(run(1, 60, 10), 100, 50), None);
        progress.advance(run(2, 70, 10));
        assert_eq!(progress.expected(run(2, 70, 10), 100, 50), None);
    }
}
