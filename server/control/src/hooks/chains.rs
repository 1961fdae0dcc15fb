//! What waits for one hook: of one torrent one event after another, of different torrents in the
//! order in which they came.
//!
//! Limits: [`WAITING_MAX`], [`WAITING_BYTES_MAX`]; what does not fit is handed back. Adding and
//! taking cost the same however many wait. Does not: know time or tasks.

use super::{WAITING_BYTES_MAX, WAITING_MAX};
use proto::ids::InfoHashV1;
use std::collections::{HashMap, VecDeque};

/// See the module.
pub(super) struct Chains<Job> {
    /// Of each torrent of which something waits or is being told, what waits.
    chains: HashMap<InfoHashV1, VecDeque<(Job, usize)>>,
    /// Torrents of which something waits and nothing is being told.
    ready: VecDeque<InfoHashV1>,
    waiting: usize,
    bytes: usize,
}

impl<Job> Default for Chains<Job> {
    fn default() -> Chains<Job> {
        Chains {
            chains: HashMap::new(),
            ready: VecDeque::new(),
            waiting: 0,
            bytes: 0,
        }
    }
}

impl<Job> Chains<Job> {
    /// Has a job of so many bytes wait; hands it back if too much waits.
    pub(super) fn push(&mut self, torrent: InfoHashV1, job: Job, bytes: usize) -> Result<(), Job> {
        if self.waiting >= WAITING_MAX || self.bytes.saturating_add(bytes) > WAITING_BYTES_MAX {
            return Err(job);
        }
        self.waiting += 1;
        self.bytes += bytes;
        match self.chains.get_mut(&torrent) {
            Some(chain) => chain.push_back((job, bytes)),
            None => {
                self.chains.insert(torrent, VecDeque::from([(job, bytes)]));
                self.ready.push_back(torrent);
            }
        }
        Ok(())
    }

    /// The next job; of its torrent there is none until [`Chains::ended`].
    pub(super) fn next(&mut self) -> Option<(InfoHashV1, Job)> {
        let torrent = self.ready.pop_front()?;
        let (job, bytes) = self.chains.get_mut(&torrent)?.pop_front()?;
        self.waiting -= 1;
        self.bytes -= bytes;
        Some((torrent, job))
    }

    /// The job of this torrent that was taken has ended.
    pub(super) fn ended(&mut self, torrent: InfoHashV1) {
        match self.chains.get(&torrent) {
            Some(chain) if chain.is_empty() => {
                self.chains.remove(&torrent);
            }
            Some(_) => self.ready.push_back(torrent),
            None => {}
        }
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn torrent(number: u8) -> InfoHashV1 {
        InfoHashV1([number; 20])
    }

    #[test]
    fn one_torrent_s_jobs_come_one_after_another_and_others_pass_them() {
        let mut chains = Chains::default();
        for (of, job) in [(1, "a"), (1, "b"), (2, "c"), (1, "d")] {
            chains.push(torrent(of), job, 1).unwrap();
        }
        assert_eq!(chains.next(), Some((torrent(1), "a")));
        assert_eq!(chains.next(), Some((torrent(2), "c")));
        assert_eq!(chains.next(), None, "b waits for a");
        // What comes while one is being told waits for it, too.
        chains.push(torrent(2), "e", 1).unwrap();
        assert_eq!(chains.next(), None);
        chains.ended(torrent(1));
        assert_eq!(chains.next(), Some((torrent(1), "b")));
        chains.ended(torrent(2));
        chains.ended(torrent(1));
        assert_eq!(chains.next(), Some((torrent(2), "e")));
        assert_eq!(chains.next(), Some((torrent(1), "d")));
        assert_eq!(chains.waiting(), 0);
        chains.ended(torrent(1));
        chains.ended(torrent(2));
        assert!(chains.chains.is_empty() && chains.ready.is_empty() && chains.bytes == 0);
    }

    #[test]
    fn what_does_not_fit_is_handed_back() {
        let mut chains = Chains::default();
        for job in 0..WAITING_MAX {
            chains.push(torrent(1), job, 1).unwrap();
        }
        assert_eq!(chains.push(torrent(2), 7, 1), Err(7));
        assert_eq!(chains.next(), Some((torrent(1), 0)));
        assert_eq!(chains.push(torrent(2), 7, WAITING_BYTES_MAX), Err(7));
        chains.push(torrent(2), 7, 1).unwrap();
    }
}
