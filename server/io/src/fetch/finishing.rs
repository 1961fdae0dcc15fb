//! A piece from its last block to the disk: hashed and written at the same time, both out of the memory that its
//! blocks came into.
//!
//! The download hears that the hash is right as soon as it is, and that the piece is stored when both are done. A
//! piece that is wrong is forgotten only when its writes have ended, so that they never land on those of its
//! successor. Where the disk takes nothing, the memory is kept and the write is tried again until it does.
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

/// A note that a piece is being written to.
struct Writing {
    fetch: Rc<ActiveFetch>,
    piece: PieceIndex,
}

impl Writing {
    fn begin(fetch: &Rc<ActiveFetch>, piece: PieceIndex) -> Writing {
        *fetch.writing.borrow_mut().entry(piece).or_insert(0) += 1;
        let fetch = Rc::clone(fetch);
        Writing { fetch, piece }
    }

    /// The same when nobody else writes to it any more: what was written before has landed then.
    async fn begin_alone(fetch: &Rc<ActiveFetch>, piece: PieceIndex) -> Writing {
        loop {
            let told = fetch.written.notified();
            if !fetch.writing.borrow().contains_key(&piece) {
                return Writing::begin(fetch, piece);
            }
            told.await;
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let mut writing = self.fetch.writing.borrow_mut();
        if let Some(count) = writing.get_mut(&self.piece) {
            *count -= 1;
            if *count == 0 {
                writing.remove(&self.piece);
            }
        }
        drop(writing);
        self.fetch.written.notify_waiters();
    }
}

/// Brings a whole piece to its end.
pub(crate) async fn finish(fetch: &Rc<ActiveFetch>, piece: PieceIndex, open: OpenPiece) {
    let Some(shard) = fetch.shard() else { return };
    let writing = Writing::begin_alone(fetch, piece).await;
    let is_in_memory = open.parts.iter().all(|part| part.written == 0);
    let finished = match is_in_memory {
        true => finish_from_memory(fetch, &shard, piece, open).await,
        false => finish_in_turns(fetch, &shard, piece, open).await,
    };
    let Some((digest, digests)) = finished else {
        // The download is ending.
        return;
    };
    let is_good = Some(digest) == expected(fetch, piece);
    drop(writing);
    let now = shard.now();
    if is_good {
        // It was told to be good, if that was known before.
        fetch.download.borrow_mut().piece_good(piece, &digests);
        fetch.download.borrow_mut().piece_stored(piece);
    } else {
        shard.cells.increment(Counter::HashFailures);
        fetch
            .published
            .hash_failures
            .fetch_add(1, Ordering::Relaxed);
        fetch.waste(
            &shard,
            u64::from(fetch.torrent.layout().piece_length_of(piece)),
        );
        fetch.download.borrow_mut().piece_bad(piece, &digests);
    }
    fetch.drive(&shard, now);
}

fn expected(fetch: &ActiveFetch, piece: PieceIndex) -> Option<Sha1Digest> {
    fetch.torrent.metainfo().piece_hash(piece).copied()
}

/// All of the piece is in memory: one job for the hash threads, while it is being written.
async fn finish_from_memory(
    fetch: &Rc<ActiveFetch>,
    shard: &Rc<Shard>,
    piece: PieceIndex,
    mut open: OpenPiece,
) -> Option<(Sha1Digest, Vec<BlockDigest>)> {
    let mut segments = Vec::with_capacity(open.parts.len());
    for index in 0..open.parts.len() {
        let (begin, length) = open.extent(index);
        let Part { memory, here, .. } = std::mem::take(open.parts.get_mut(index)?);
        let memory = memory?.seal();
        segments.push(Segment {
            begin,
            length,
            blocks: here,
            memory,
        });
    }
    let hashed = submit(fetch, shard, piece, Sha1::new(), &segments, true);
    let written = write_all(fetch, shard, piece, &segments);
    let (hashed, written) = tokio::join!(hashed, written);
    for segment in segments {
        shard.segments.give_back_sealed(segment.memory);
    }
    let hashed = hashed?;
    written.then(|| (hashed.state.finish(), hashed.digests))
}

/// Some of the piece has left memory: segment by segment, read back where that is so.
async fn finish_in_turns(
    fetch: &Rc<ActiveFetch>,
    shard: &Rc<Shard>,
    piece: PieceIndex,
    mut open: OpenPiece,
) -> Option<(Sha1Digest, Vec<BlockDigest>)> {
    let (mut state, mut digests) = (Sha1::new(), Vec::new());
    for index in 0..open.parts.len() {
        let (begin, length) = open.extent(index);
        let Part {
            memory,
            here,
            written,
            ..
        } = std::mem::take(open.parts.get_mut(index)?);
        let mut memory = match memory {
            Some(memory) => memory,
            None => match shard.segments.try_take(open.segment_bytes) {
                Some(memory) => memory,
                None => {
                    put_away(fetch, shard, piece, &mut open).await?;
                    fetch.take_segment(shard, open.segment_bytes).await?
                }
            },
        };
        for (start, bytes) in runs(written & !here, length) {
            let at = u32::try_from(begin + start).ok()?;
            let read = fetch.disk.read(piece, at, memory, start, bytes).await;
            memory = match read {
                Ok(memory) => memory,
                Err(error) => {
                    // What cannot be read back is as good as wrong: it is fetched again.
                    tracing::warn!(error = %error.text(), "cannot read back a piece");
                    fetch.disk_failed(shard, error);
                    fetch.try_again_later(shard);
                    return Some((Sha1::new().finish(), Vec::new()));
                }
            };
        }
        let segment = Segment {
            begin,
            length,
            blocks: here,
            memory: memory.seal(),
        };
        let one = std::slice::from_ref(&segment);
        let hashed = submit(fetch, shard, piece, state, one, false);
        let written = write_all(fetch, shard, piece, one);
        let (hashed, is_written) = tokio::join!(hashed, written);
        shard.segments.give_back_sealed(segment.memory);
        let hashed = hashed?;
        state = hashed.state;
        digests.extend(hashed.digests);
        if !is_written {
            return None;
        }
    }
    Some((state.finish(), digests))
}

/// Writes what of the piece is in memory and gives the memory back: who waits for memory holds none, or those who
/// finish pieces would wait for each other. `None` if the download ends before it is done.
async fn put_away(
    fetch: &Rc<ActiveFetch>,
    shard: &Rc<Shard>,
    piece: PieceIndex,
    open: &mut OpenPiece,
) -> Option<()> {
    for index in 0..open.parts.len() {
        let (begin, length) = open.extent(index);
        let part = open.parts.get_mut(index)?;
        let Some(memory) = part.memory.take() else {
            continue;
        };
        let blocks = std::mem::take(&mut part.here);
        part.written |= blocks;
        let segment = Segment {
            begin,
            length,
            blocks,
            memory: memory.seal(),
        };
        let one = std::slice::from_ref(&segment);
        let is_written = write_all(fetch, shard, piece, one).await;
        shard.segments.give_back_sealed(segment.memory);
        is_written.then_some(())?;
    }
    Some(())
}

/// Has segments hashed. `is_whole`: they are all of their piece. `None` if the hash threads are gone.
async fn submit(
    fetch: &Rc<ActiveFetch>,
    shard: &Rc<Shard>,
    piece: PieceIndex,
    state: Sha1,
    segments: &[Segment],
    is_whole: bool,
) -> Option<Hashed> {
    let (done, told) = oneshot::channel();
    let is_suspected = fetch.download.borrow().needs_digests(piece);
    let expected = expected(fetch, piece).filter(|_| is_whole);
    shard.hashing.submit(HashJob {
        state,
        segments: segments
            .iter()
            .map(|segment| (Arc::clone(&segment.memory), segment.length))
            .collect(),
        expected,
        wants_digests: is_suspected || !is_whole,
        done,
    });
    let hashed = told.await.ok()?;
    // Others may be told of the right hash while the write is still under way: who lied is known now.
    if is_whole && Some(hashed.state.clone().finish()) == expected {
        let digests = &hashed.digests;
        fetch.download.borrow_mut().piece_good(piece, digests);
        fetch.drive(shard, shard.now());
    }
    Some(hashed)
}

/// Writes the blocks of `segments`, as often as it takes. False if the download ends before it is done.
async fn write_all(
    fetch: &Rc<ActiveFetch>,
    shard: &Rc<Shard>,
    piece: PieceIndex,
    segments: &[Segment],
) -> bool {
    let mut has_failed = false;
    loop {
        match write_once(fetch, shard, piece, segments).await {
            Ok(()) => {
                if has_failed {
                    fetch.disk_works(shard);
                }
                return true;
            }
            Err(error) => fetch.disk_failed(shard, error),
        }
        has_failed = true;
        fetch.rest(shard).await;
        if fetch.is_ending() {
            return false;
        }
    }
}

async fn write_once(
    fetch: &Rc<ActiveFetch>,
    shard: &Rc<Shard>,
    piece: PieceIndex,
    segments: &[Segment],
) -> Result<(), DiskError> {
    for segment in segments {
        for (start, bytes) in runs(segment.blocks, segment.length) {
            let begin = u32::try_from(segment.begin + start).unwrap_or(u32::MAX);
            let memory = &segment.memory;
            let writes = fetch.disk.write(piece, begin, memory, start, bytes).await?;
            shard.cells.add(Counter::DiskWrites, writes);
            shard.cells.add(Counter::DiskWriteBytes, bytes as u64);
        }
    }
    Ok(())
}

impl ActiveFetch {
    /// A segment, for which room is made if need be. `None` if the download ends before there is one.
    async fn take_segment(&self, shard: &Rc<Shard>, bytes: usize) -> Option<memory::Segment> {
        loop {
            if let Some(segment) = shard.segments.try_take(bytes) {
                return Some(segment);
            }
            if self.is_ending() {
                return None;
            }
            shard.make_room(self);
            shard.segments.changed().await;
        }
    }

    /// Makes room in memory: the segment used longest ago is written, or given up if there is nothing in it. False if
    /// there is none.
    pub(crate) fn make_room(&self, shard: &Rc<Shard>) -> bool {
        let spill = self.open.borrow_mut().take_spill(&shard.segments);
        let (Some(spill), Some(fetch)) = (spill, self.handle()) else {
            return false;
        };
        let Some(spill) = spill else { return true };
        let shard = Rc::clone(shard);
        // From now on, so that a piece that becomes whole meanwhile waits for it.
        let writing = Writing::begin(&fetch, spill.piece);
        self.spawn(async move {
            write_spill(&fetch, &shard, spill).await;
            drop(writing);
        });
        true
    }
}

/// Writes what had to leave memory.
async fn write_spill(fetch: &Rc<ActiveFetch>, shard: &Rc<Shard>, spill: Spill) {
    let segment = Segment {
        begin: spill.begin,
        length: spill.length,
        blocks: spill.blocks,
        memory: spill.memory.seal(),
    };
    let one = std::slice::from_ref(&segment);
    write_all(fetch, shard, spill.piece, one).await;
    shard.segments.give_back_sealed(segment.memory);
}
