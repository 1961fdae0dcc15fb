//! A piece from its last block to the disk: hashed and written at the same time, both out of the
//! memory that its blocks came into.
//!
//! The download hears that the hash is right as soon as it is, and that the piece is stored when
//! both are done. A piece that is wrong is forgotten only when its writes have ended, so that they
//! never land on those of its successor; what is forgotten before says nothing any more
//! ([`ActiveFetch::incarnation`]). Where the disk takes nothing, the memory is kept and the write
//! is tried again until it does, or until another download needs the memory.
//!
//! What was written before a sync failed is written again from memory, or, where it has left
//! memory, fetched again.
//!
//! What of a long piece had to leave memory before it was whole is read back, segment by segment.

use crate::fetch::disk::DiskError;
use crate::fetch::hashing::{HashJob, Hashed};
use crate::fetch::home::ActiveFetch;
use crate::fetch::memory::{self, Sealed};
use crate::fetch::pieces::{BlockMask, OpenPiece, Part, Spill, runs};
use crate::shard::Shard;
use engine::picker::blame::BlockDigest;
use hash::{Sha1, Sha1Digest};
use proto::ids::PieceIndex;
use seedring_metrics::Counter;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::oneshot;

/// Blocks of one segment that are to be written.
struct Segment {
    begin: usize,
    length: usize,
    blocks: BlockMask,
    memory: Arc<Sealed>,
}

/// Why a piece has not come to its end.
enum Unfinished {
    /// Nobody waits for it: the download is ending, or has forgotten it.
    Dropped,
    /// What there was of it is gone: it is to be fetched again, and nobody is to blame.
    Lost,
}

/// The hash of a piece, and the digests of its blocks if they were wanted.
type Finished = (Sha1Digest, Vec<BlockDigest>);

/// A note that a piece is being written to.
struct Writing {
    fetch: Rc<ActiveFetch>,
    piece: PieceIndex,
    incarnation: u32,
}

impl Writing {
    fn begin(fetch: &Rc<ActiveFetch>, piece: PieceIndex, incarnation: u32) -> Writing {
        let mut writing = fetch.writing.borrow_mut();
        writing.entry(piece).or_default().push(incarnation);
        Writing {
            fetch: Rc::clone(fetch),
            piece,
            incarnation,
        }
    }

    /// The same when nobody else writes to it any more: what was written before has landed then.
    async fn begin_alone(fetch: &Rc<ActiveFetch>, piece: PieceIndex, incarnation: u32) -> Writing {
        loop {
            let told = fetch.written.notified();
            if !fetch.writing.borrow().contains_key(&piece) {
                return Writing::begin(fetch, piece, incarnation);
            }
            told.await;
        }
    }

    /// Waits until what was begun before the piece was last forgotten has landed.
    async fn wait_for_older(&self) {
        loop {
            let told = self.fetch.written.notified();
            let is_older = |&other: &u32| other < self.incarnation;
            let has_older = |of_piece: &Vec<u32>| of_piece.iter().any(is_older);
            let is_waiting = self
                .fetch
                .writing
                .borrow()
                .get(&self.piece)
                .is_some_and(has_older);
            if !is_waiting {
                return;
            }
            told.await;
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let mut writing = self.fetch.writing.borrow_mut();
        if let Some(of_piece) = writing.get_mut(&self.piece) {
            let ours = of_piece.iter().position(|&one| one == self.incarnation);
            ours.map(|at| of_piece.swap_remove(at));
            if of_piece.is_empty() {
                writing.remove(&self.piece);
            }
        }
        drop(writing);
        self.fetch.written.notify_waiters();
    }
}

/// A note that a write has failed and has not got through yet.
struct Failing(Rc<ActiveFetch>);

impl Failing {
    fn begin(fetch: &Rc<ActiveFetch>) -> Failing {
        fetch.failing.set(fetch.failing.get() + 1);
        Failing(Rc::clone(fetch))
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        self.0.failing.set(self.0.failing.get() - 1);
    }
}

/// What is to be done with one piece, or with a part of it.
pub(crate) struct Work {
    fetch: Rc<ActiveFetch>,
    shard: Rc<Shard>,
    piece: PieceIndex,
    /// Which of the piece's lives this is about.
    incarnation: u32,
    /// The doubts when it began: nothing of it was written before that.
    doubts: u64,
}

impl Work {
    /// Begins now, whenever the rest of it is run.
    pub(crate) fn begin(fetch: &Rc<ActiveFetch>, piece: PieceIndex) -> Option<Work> {
        Some(Work {
            shard: fetch.shard()?,
            piece,
            incarnation: fetch.incarnation(piece),
            doubts: fetch.disk.doubts(),
            fetch: Rc::clone(fetch),
        })
    }

    /// Brings a whole piece to its end.
    pub(crate) async fn finish(self, open: OpenPiece) {
        let writing = Writing::begin_alone(&self.fetch, self.piece, self.incarnation).await;
        let is_in_memory = open.parts.iter().all(|part| part.written == 0);
        let finished = match is_in_memory {
            _ if self.is_stale() => Err(Unfinished::Dropped),
            true => self.finish_from_memory(open).await,
            false => self.finish_in_turns(open).await,
        };
        drop(writing);
        self.tell(finished);
    }

    /// Tells the download how it ended, at once: what of the piece is on the disk is in no doubt at
    /// this moment.
    fn tell(&self, finished: Result<Finished, Unfinished>) {
        if self.is_stale() {
            return;
        }
        let mut download = self.fetch.download.borrow_mut();
        match finished {
            Ok((digest, digests)) if Some(digest) == self.expected() => {
                // It was told to be good, if that was known before.
                download.piece_good(self.piece, &digests);
                download.piece_stored(self.piece);
            }
            Ok((_, digests)) => {
                self.shard.cells.increment(Counter::HashFailures);
                let failures = &self.fetch.published.hash_failures;
                failures.fetch_add(1, Ordering::Relaxed);
                self.fetch.waste(&self.shard, self.bytes());
                download.piece_bad(self.piece, &digests);
            }
            Err(Unfinished::Lost) if !self.fetch.is_ending() => {
                self.fetch.waste(&self.shard, self.bytes());
                download.piece_lost(self.piece);
            }
            Err(_) => return,
        }
        drop(download);
        self.fetch.drive(&self.shard, self.shard.now());
    }

    /// Whether the piece was forgotten since.
    fn is_stale(&self) -> bool {
        self.fetch.incarnation(self.piece) != self.incarnation
    }

    fn expected(&self) -> Option<Sha1Digest> {
        let metainfo = self.fetch.torrent.metainfo();
        metainfo.piece_hash(self.piece).copied()
    }

    /// The length of the piece.
    fn bytes(&self) -> u64 {
        u64::from(self.fetch.torrent.layout().piece_length_of(self.piece))
    }

    /// All of the piece is in memory: one job for the hash threads, while it is being written.
    async fn finish_from_memory(&self, mut open: OpenPiece) -> Result<Finished, Unfinished> {
        let mut segments = Vec::with_capacity(open.parts.len());
        for index in 0..open.parts.len() {
            let (begin, length) = open.extent(index);
            let part = open.parts.get_mut(index).map(std::mem::take);
            let Part { memory, here, .. } = part.unwrap_or_default();
            segments.push(Segment {
                begin,
                length,
                blocks: here,
                memory: memory.ok_or(Unfinished::Lost)?.seal(),
            });
        }
        let finished = self.hash_and_write(&segments).await;
        for segment in segments {
            self.shard.segments.give_back_sealed(segment.memory);
        }
        finished
    }

    async fn hash_and_write(&self, segments: &[Segment]) -> Result<Finished, Unfinished> {
        let hashing = self.hash(Sha1::new(), segments, true);
        let (hashed, mut written) = tokio::join!(hashing, self.write_all(segments));
        let hashed = hashed?;
        let digest = hashed.state.finish();
        // A sync that failed since may have taken what was written before it.
        while let Ok(doubts) = written
            && doubts != self.fetch.disk.doubts()
            && Some(digest) == self.expected()
        {
            written = self.write_all(segments).await;
        }
        written.map(|_| (digest, hashed.digests))
    }

    /// Some of the piece has left memory: segment by segment, read back where that is so.
    async fn finish_in_turns(&self, mut open: OpenPiece) -> Result<Finished, Unfinished> {
        let (mut state, mut digests) = (Sha1::new(), Vec::new());
        for index in 0..open.parts.len() {
            let (begin, length) = open.extent(index);
            let part = open.parts.get_mut(index).map(std::mem::take);
            let part = part.unwrap_or_default();
            let mut memory = match part.memory {
                Some(memory) => memory,
                None => match self.shard.segments.try_take(open.segment_bytes) {
                    Some(memory) => memory,
                    None => {
                        self.put_away(&mut open).await?;
                        self.take_segment(open.segment_bytes).await?
                    }
                },
            };
            for (start, bytes) in runs(part.written & !part.here, length) {
                memory = self.read_back(begin, memory, start, bytes).await?;
            }
            let segment = Segment {
                begin,
                length,
                blocks: part.here,
                memory: memory.seal(),
            };
            let one = std::slice::from_ref(&segment);
            let (hashed, written) = tokio::join!(self.hash(state, one, false), self.write_all(one));
            self.shard.segments.give_back_sealed(segment.memory);
            let hashed = hashed?;
            written?;
            state = hashed.state;
            digests.extend(hashed.digests);
            if self.doubts != self.fetch.disk.doubts() {
                // A sync has failed, and what was written before it has left memory.
                return Err(Unfinished::Lost);
            }
        }
        Ok((state.finish(), digests))
    }

    /// Reads `bytes` of the segment that begins at `begin`, from `start` of it on. What cannot be
    /// read is lost.
    async fn read_back(
        &self,
        begin: usize,
        memory: memory::Segment,
        start: usize,
        bytes: usize,
    ) -> Result<memory::Segment, Unfinished> {
        let at = u32::try_from(begin + start).unwrap_or(u32::MAX);
        let disk = &self.fetch.disk;
        let read = disk.read(self.piece, at, memory, start, bytes).await;
        read.map_err(|error| {
            self.fetch.disk_failed(&self.shard, error);
            self.fetch.try_again_later(&self.shard);
            Unfinished::Lost
        })
    }

    /// Writes what of the piece is in memory and gives the memory back: who waits for memory holds
    /// none, or those who finish pieces would wait for each other.
    async fn put_away(&self, open: &mut OpenPiece) -> Result<(), Unfinished> {
        for index in 0..open.parts.len() {
            let (begin, length) = open.extent(index);
            let Some(part) = open.parts.get_mut(index) else {
                continue;
            };
            let Some(memory) = part.memory.take() else {
                continue;
            };
            let blocks = std::mem::take(&mut part.here);
            part.written |= blocks;
            self.write_segment(Segment {
                begin,
                length,
                blocks,
                memory: memory.seal(),
            })
            .await?;
        }
        Ok(())
    }

    /// A segment, for which room is made if need be.
    async fn take_segment(&self, bytes: usize) -> Result<memory::Segment, Unfinished> {
        loop {
            if self.fetch.is_ending() || self.is_stale() {
                return Err(Unfinished::Dropped);
            }
            if let Some(segment) = self.shard.segments.try_take(bytes) {
                return Ok(segment);
            }
            self.fetch.wait_for_memory(&self.shard).await;
        }
    }

    /// Has segments hashed. `is_whole`: they are all of their piece.
    async fn hash(
        &self,
        state: Sha1,
        segments: &[Segment],
        is_whole: bool,
    ) -> Result<Hashed, Unfinished> {
        let (done, told) = oneshot::channel();
        let is_suspected = self.fetch.download.borrow().needs_digests(self.piece);
        let expected = self.expected().filter(|_| is_whole);
        self.shard.hashing.submit(HashJob {
            state,
            segments: segments
                .iter()
                .map(|segment| (Arc::clone(&segment.memory), segment.length))
                .collect(),
            expected,
            wants_digests: is_suspected || !is_whole,
            done,
        });
        let hashed = told.await;
        #[cfg(test)]
        let hashed = self.injected_loss(hashed).await;
        let Ok(hashed) = hashed else {
            // Nobody will hash it. That is a bug, or there are no threads; it is not to be tried
            // all the time.
            tracing::error!(piece = %self.piece, "a piece was not hashed; it is fetched again");
            let period = self.shard.config.fetch.retry_period;
            self.fetch.rest(period, || self.is_stale()).await;
            return Err(Unfinished::Lost);
        };
        // Others may be told of the right hash while the write is still under way: who lied is
        // known now.
        if is_whole && Some(hashed.state.clone().finish()) == expected && !self.is_stale() {
            let digests = &hashed.digests;
            let mut download = self.fetch.download.borrow_mut();
            download.piece_good(self.piece, digests);
            drop(download);
            self.fetch.drive(&self.shard, self.shard.now());
        }
        Ok(hashed)
    }

    /// What becomes of a hash when a test wants it late, or lost.
    #[cfg(test)]
    async fn injected_loss<E>(&self, hashed: Result<Hashed, E>) -> Result<Hashed, ()> {
        self.fetch.disk.injected_wait("hashes wait").await;
        match self
            .fetch
            .torrent
            .data_dir()
            .join("hashes are lost")
            .exists()
        {
            true => Err(()),
            false => hashed.map_err(drop),
        }
    }

    /// Writes the blocks of `segments`, as often as it takes. Returns the doubts when the writing
    /// that succeeded began.
    async fn write_all(&self, segments: &[Segment]) -> Result<u64, Unfinished> {
        let bytes = segments.iter().map(|segment| segment.memory.bytes().len());
        let bytes = bytes.sum();
        let mut failing = None;
        loop {
            let doubts = self.fetch.disk.doubts();
            match self.write_once(segments).await {
                Ok(()) => {
                    if failing.take().is_some() {
                        self.fetch.disk_works(&self.shard);
                    }
                    return Ok(doubts);
                }
                Err(error) => {
                    failing.get_or_insert_with(|| Failing::begin(&self.fetch));
                    self.fetch.disk_failed(&self.shard, error);
                }
            }
            let resting = self
                .fetch
                .rest_holding(bytes, &self.shard, || self.is_stale());
            resting.await;
            if self.fetch.is_ending() {
                return Err(Unfinished::Dropped);
            }
            let is_stale = self.is_stale();
            if is_stale || self.fetch.gives_up(bytes, &self.shard) {
                self.fetch.has_given_up(&self.shard);
                return match is_stale {
                    true => Err(Unfinished::Dropped),
                    false => Err(Unfinished::Lost),
                };
            }
        }
    }

    async fn write_once(&self, segments: &[Segment]) -> Result<(), DiskError> {
        let (disk, cells) = (&self.fetch.disk, &self.shard.cells);
        let is_asked = self.fetch.is_asked();
        for segment in segments {
            for (start, bytes) in runs(segment.blocks, segment.length) {
                let begin = u32::try_from(segment.begin + start).unwrap_or(u32::MAX);
                let memory = &segment.memory;
                let writes = disk
                    .write(self.piece, begin, memory, start, bytes, is_asked)
                    .await?;
                cells.add(Counter::DiskWrites, writes);
                cells.add(Counter::DiskWriteBytes, bytes as u64);
            }
        }
        Ok(())
    }

    async fn write_segment(&self, segment: Segment) -> Result<(), Unfinished> {
        let written = self.write_all(std::slice::from_ref(&segment)).await;
        self.shard.segments.give_back_sealed(segment.memory);
        written.map(drop)
    }

    /// Writes what had to leave memory. If that fails, the piece is to be fetched again.
    async fn write_spill(self, spill: Spill, writing: Writing) {
        writing.wait_for_older().await;
        if self.is_stale() {
            return;
        }
        let written = self.write_segment(Segment {
            begin: spill.begin,
            length: spill.length,
            blocks: spill.blocks,
            memory: spill.memory.seal(),
        });
        if written.await.is_err() && !self.is_stale() {
            self.fetch.download.borrow_mut().piece_lost(self.piece);
            self.fetch.drive(&self.shard, self.shard.now());
        }
    }
}

impl ActiveFetch {
    /// Waits for memory, for which room is made if the disk takes what is written; else what is in
    /// memory stays there.
    pub(crate) async fn wait_for_memory(&self, shard: &Rc<Shard>) {
        let is_stuck = self.is_stuck();
        if !is_stuck {
            shard.make_room(self);
        }
        shard.segments.changed(!is_stuck).await;
    }

    /// Makes room in memory: the segment used longest ago is written, or given up if there is
    /// nothing in it. Where the disk takes nothing, a piece is given up, to be fetched again. False
    /// if there is none.
    pub(crate) fn make_room(&self, shard: &Rc<Shard>) -> bool {
        if self.is_stuck() {
            return self.give_up_one(shard);
        }
        let spill = self.open.borrow_mut().take_spill(&shard.segments);
        let (Some(spill), Some(fetch)) = (spill, self.handle()) else {
            return false;
        };
        let Some(spill) = spill else { return true };
        let Some(work) = Work::begin(&fetch, spill.piece) else {
            return false;
        };
        // From now on, so that a piece that becomes whole meanwhile waits for it.
        let writing = Writing::begin(&fetch, spill.piece, work.incarnation);
        self.spawn(work.write_spill(spill, writing));
        true
    }

    /// Gives up a piece in memory that can not be written. False if there is none.
    fn give_up_one(&self, shard: &Rc<Shard>) -> bool {
        let open = self.open.borrow().oldest_with_memory();
        if let Some(piece) = open {
            self.download.borrow_mut().piece_lost(piece);
            self.drive(shard, shard.now());
            return true;
        }
        self.have_one_given_up(shard)
    }
}
