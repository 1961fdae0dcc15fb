//! Threads that hash the pieces of downloads, several at a time side by side ([`hash::lanes`]).
//!
//! A shard hands a run of a piece's segments over with the state of its hash so far, and is told
//! the state after it; most pieces are one run. Whoever is asked for digests of blocks, because the
//! hash is wrong or because somebody is suspected, makes those too.
//!
//! A thread waits a moment for as many jobs as go side by side ([`LINGER`]), unless one of them is
//! a part of a piece ([`HashJob::expected`]): the next part is read from the disk only after it.
//!
//! Limits: a job holds the memory of its segments, so the memory budget bounds the jobs that wait.
//! Threads start with the first job, and end when the last shard has gone. A job that is lost,
//! because it panicked or because there is no thread, is dropped: who waits for it hears that.

use crate::fetch::memory::Sealed;
use engine::picker::blame::BlockDigest;
use hash::{Sha1, Sha1Digest};
use proto::limits::BLOCK_LENGTH;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a thread waits for more jobs, so that all lanes have one: eight side by side cost 0.6
/// of the CPU of eight one after another. At 300 MB/s this is six pieces of 1 MiB; of a slow
/// download nobody notices it.
const LINGER: Duration = Duration::from_millis(20);

/// The next run of a piece.
pub(crate) struct HashJob {
    /// The hash of what came before.
    pub(crate) state: Sha1,
    /// The segments, and how many bytes of each count.
    pub(crate) segments: Vec<(Arc<Sealed>, usize)>,
    /// The hash that the piece should have, if this is all of it: if it has another, its blocks'
    /// digests are made. A job without it waits for no others.
    pub(crate) expected: Option<Sha1Digest>,
    /// Whether the blocks' digests are wanted whatever the hash.
    pub(crate) wants_digests: bool,
    /// Where to tell.
    pub(crate) done: oneshot::Sender<Hashed>,
}

/// What a run came to.
pub(crate) struct Hashed {
    pub(crate) state: Sha1,
    /// Of the blocks of this run, in order; empty if not asked for.
    pub(crate) digests: Vec<BlockDigest>,
}

/// The threads, as shards see them.
pub(crate) struct HashPool {
    queue: Arc<Queue>,
    threads: usize,
    /// Threads that were started.
    started: Mutex<usize>,
}

struct Queue {
    /// How long a thread waits for more jobs.
    linger: Duration,
    jobs: Mutex<Waiting>,
    /// There is a job where none was.
    more: Condvar,
    /// There are as many as go side by side.
    full: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<HashJob>,
    ended: bool,
}

impl Waiting {
    /// Whether what there is should wait for more.
    fn may_linger(&self) -> bool {
        let is_room = (1..hash::lanes()).contains(&self.jobs.len());
        is_room && !self.ended && self.jobs.iter().all(|job| job.expected.is_some())
    }
}

impl Queue {
    fn new(linger: Duration) -> Queue {
        Queue {
            linger,
            jobs: Mutex::default(),
            more: Condvar::new(),
            full: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, job: HashJob) {
        let mut waiting = self.lock();
        let is_urgent = job.expected.is_none();
        waiting.jobs.push_back(job);
        let count = waiting.jobs.len();
        drop(waiting);
        if count == 1 {
            self.more.notify_one();
        } else if is_urgent || count.is_multiple_of(hash::lanes()) {
            // Whoever lingers has enough; if nobody does, who sleeps should begin.
            self.full.notify_one();
            self.more.notify_one();
        }
    }

    fn end(&self) {
        self.lock().ended = true;
        self.more.notify_all();
        self.full.notify_all();
    }

    /// Takes as many jobs as fit side by side. `None` at the end.
    fn take(&self) -> Option<Vec<HashJob>> {
        let mut waiting = self.lock();
        loop {
            let is_idle = |waiting: &mut Waiting| waiting.jobs.is_empty() && !waiting.ended;
            let woken = self.more.wait_while(waiting, is_idle);
            waiting = woken.unwrap_or_else(PoisonError::into_inner);
            let may_linger = |waiting: &mut Waiting| waiting.may_linger();
            let woken = self
                .full
                .wait_timeout_while(waiting, self.linger, may_linger);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
            let count = waiting.jobs.len().min(hash::lanes());
            match count {
                0 if waiting.ended => return None,
                // Another thread was faster.
                0 => {}
                _ => {
                    let jobs = waiting.jobs.drain(..count).collect();
                    if !waiting.jobs.is_empty() {
                        // Not until these are hashed: there may be another thread that sleeps.
                        self.more.notify_one();
                    }
                    return Some(jobs);
                }
            }
        }
    }
}

impl HashPool {
    /// A pool of so many threads.
    pub(crate) fn new(threads: usize) -> HashPool {
        HashPool::lingering(threads, LINGER)
    }

    fn lingering(threads: usize, linger: Duration) -> HashPool {
        HashPool {
            queue: Arc::new(Queue::new(linger)),
            threads: threads.max(1),
            started: Mutex::new(0),
        }
    }

    /// Has a run hashed.
    pub(crate) fn submit(&self, job: HashJob) {
        if self.start_threads() {
            self.queue.push(job);
        }
    }

    /// Starts the threads that are missing. False if there is none.
    fn start_threads(&self) -> bool {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        while *started < self.threads {
            let queue = Arc::clone(&self.queue);
            let name = format!("hash-{started}");
            let work = move || {
                while let Some(jobs) = queue.take() {
                    // Whoever waits for these jobs sees them dropped; the others are not to wait
                    // for ever.
                    if catch_unwind(AssertUnwindSafe(|| run(jobs))).is_err() {
                        tracing::error!("hashing a piece panicked, which is a bug");
                    }
                }
            };
            if let Err(error) = std::thread::Builder::new().name(name).spawn(work) {
                tracing::error!(%error, "cannot start a thread that hashes downloads");
                break;
            }
            *started += 1;
        }
        *started > 0
    }
}

impl Drop for HashPool {
    fn drop(&mut self) {
        self.queue.end();
    }
}

/// Hashes `jobs` side by side and tells of each.
fn run(mut jobs: Vec<HashJob>) {
    let mut states: Vec<Sha1> = jobs.iter().map(|job| job.state.clone()).collect();
    let rounds = jobs.iter().map(|job| job.segments.len()).max().unwrap_or(0);
    for round in 0..rounds {
        let slices: Vec<&[u8]> = jobs
            .iter()
            .map(|job| {
                let segment = job.segments.get(round);
                segment.map_or(&[][..], |(sealed, length)| bytes_of(sealed, *length))
            })
            .collect();
        Sha1::update_many(&mut states, &slices);
    }
    for (job, state) in jobs.drain(..).zip(states) {
        let is_wrong = job
            .expected
            .is_some_and(|expected| state.clone().finish() != expected);
        let digests = match is_wrong || job.wants_digests {
            true => digests_of(&job.segments),
            false => Vec::new(),
        };
        // Before it is told, so that the shard finds itself the only holder and uses the memory
        // again.
        drop(job.segments);
        let _ = job.done.send(Hashed { state, digests });
    }
}

fn bytes_of(sealed: &Sealed, length: usize) -> &[u8] {
    let bytes = sealed.bytes();
    &bytes[..length.min(bytes.len())]
}

/// The digest of each block: the first half of its SHA-256.
fn digests_of(segments: &[(Arc<Sealed>, usize)]) -> Vec<BlockDigest> {
    let blocks = segments
        .iter()
        .flat_map(|(sealed, length)| bytes_of(sealed, *length).chunks(BLOCK_LENGTH as usize));
    let digest = |block: &[u8]| {
        let mut half = [0; 16];
        half.copy_from_slice(&hash::sha256(block)[..16]);
        BlockDigest(half)
    };
    blocks.map(digest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::memory::{MemoryBudget, SegmentPool};

    fn sealed(bytes: &[u8]) -> (Arc<Sealed>, usize) {
        let pool = SegmentPool::new(MemoryBudget::new(1 << 20));
        let mut segment = pool.try_take(bytes.len()).unwrap();
        assert!(segment.put(0, bytes));
        (segment.seal(), bytes.len())
    }

    fn submit(pool: &HashPool, job: impl FnOnce(oneshot::Sender<Hashed>) -> HashJob) -> Hashed {
        let (done, told) = oneshot::channel();
        pool.submit(job(done));
        told.blocking_recv().unwrap()
    }

    #[test]
    fn runs_of_a_piece_come_to_its_hash() {
        let pool = HashPool::new(2);
        let bytes: Vec<u8> = (0..50_000_u32).map(|at| (at % 253) as u8).collect();
        let mut state = Sha1::new();
        for run in [&bytes[..20_000], &bytes[20_000..]] {
            let hashed = submit(&pool, |done| HashJob {
                state: state.clone(),
                segments: vec![sealed(&run[..10_000]), sealed(&run[10_000..])],
                expected: None,
                wants_digests: false,
                done,
            });
            assert!(hashed.digests.is_empty());
            state = hashed.state;
        }
        assert_eq!(state.finish(), hash::sha1(&bytes));
    }

    #[test]
    fn a_part_of_a_piece_waits_for_no_other() {
        let pool = HashPool::lingering(1, Duration::from_secs(3_600));
        let job = |expected| {
            let (done, told) = oneshot::channel();
            pool.submit(HashJob {
                state: Sha1::new(),
                segments: vec![sealed(b"some")],
                expected,
                wants_digests: false,
                done,
            });
            told
        };
        // The second has the thread look at once, and both are hashed then.
        let (whole, part) = (job(Some([0; 20])), job(None));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            for told in [whole, part, job(None)] {
                let hashed = tokio::time::timeout(Duration::from_secs(60), told);
                let hashed = hashed.await.expect("it waited for others").unwrap();
                assert_eq!(hashed.state.finish(), hash::sha1(b"some"));
            }
        });
    }

    #[test]
    fn a_wrong_piece_comes_with_the_digests_of_its_blocks() {
        let pool = HashPool::new(1);
        let block = BLOCK_LENGTH as usize;
        let bytes = [vec![1; block], vec![2; block], vec![1; block], vec![3; 5]].concat();
        let piece = |expected| {
            submit(&pool, |done| HashJob {
                state: Sha1::new(),
                segments: vec![sealed(&bytes)],
                expected: Some(expected),
                wants_digests: false,
                done,
            })
        };
        assert!(piece(hash::sha1(&bytes)).digests.is_empty());
        let digests = piece([0; 20]).digests;
        assert_eq!(digests.len(), 4);
        assert_eq!(digests[0], digests[2]);
        assert!(digests[0] != digests[1] && digests[3] != digests[1]);
    }
}
