//! Reads one extent of a chunk into its slot: layout, files, reads at the file system's alignment,
//! and the proof that the bytes are the verified ones.
//!
//! A read that bypasses the page cache brings whole aligned units, so the bytes that are wanted
//! begin somewhere inside the first unit. Those of the first file stay where they land; what
//! follows from other files (small ones, in one piece) is moved up to them, so that a slot always
//! holds one run of bytes.
//!
//! Limits: one read in flight per chunk; a slot has [`SLACK_BYTES`] more than its chunk for what
//! alignment costs. Does not open more than one file at a time.

use crate::aligned::ALIGNMENT;
use crate::direct::Lease;
use crate::files::{OpenFile, check_stamp};
use crate::payload;
use crate::ring;
use crate::shard::Shard;
use crate::torrent::{Fault, FaultCause, SeededTorrent};
use engine::layout::{FileIndex, FileRange};
use proto::ids::PieceIndex;
use seedring_metrics::{Counter, Histogram};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// What a slot needs beside its chunk: the units before and after the first file's bytes, and the
/// same for the file that is being added behind them.
pub(crate) const SLACK_BYTES: usize = 4 * ALIGNMENT;

/// Which bytes of a torrent to read.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    /// The piece.
    pub(crate) piece: PieceIndex,
    /// Where the bytes start in the piece.
    pub(crate) begin: u32,
    /// How many there are.
    pub(crate) bytes: u32,
}

/// Reads `target` into the slot of `lease`, and says so to those who wait for it.
pub(crate) async fn run(
    shard: Rc<Shard>,
    torrent: Arc<SeededTorrent>,
    target: Target,
    lease: Rc<Lease>,
) {
    let started = Instant::now();
    let outcome = fill(&shard, &torrent, target, &lease).await;
    let duration = started.elapsed();
    shard.cells.record(Histogram::DiskReadDuration, duration);
    lease.finish(outcome);
}

/// Returns where in the slot the bytes start.
async fn fill(
    shard: &Shard,
    torrent: &Arc<SeededTorrent>,
    target: Target,
    lease: &Rc<Lease>,
) -> Result<usize, Fault> {
    let mut filled: Option<Filled> = None;
    let ranges = torrent
        .layout()
        .block_ranges(target.piece, target.begin, target.bytes);
    for range in ranges {
        let end = filled.map_or(0, |filled| filled.end);
        let added = match range.file {
            None => {
                lease.zero(end, range.length as usize);
                Filled {
                    start: end,
                    end: end + range.length as usize,
                }
            }
            Some(index) => read_range(shard, torrent, index, range, end, lease).await?,
        };
        filled = Some(match filled {
            None => added,
            Some(before) => {
                lease.move_down(added.start, before.end, range.length as usize);
                Filled {
                    start: before.start,
                    end: before.end + range.length as usize,
                }
            }
        });
    }
    Ok(filled.map_or(0, |filled| filled.start))
}

/// A run of bytes in a slot.
#[derive(Clone, Copy)]
struct Filled {
    start: usize,
    end: usize,
}

/// Reads one file's part to somewhere at or after `position` of the slot.
async fn read_range(
    shard: &Shard,
    torrent: &Arc<SeededTorrent>,
    index: FileIndex,
    range: FileRange,
    position: usize,
    lease: &Rc<Lease>,
) -> Result<Filled, Fault> {
    let file = payload::open(shard, torrent, index).await?;
    let plan = Plan::of(&file, range, position);
    let result = match read_whole(shard, &file, plan, lease).await {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) && file.bypasses_cache() => {
            file.stop_bypassing()
                .map_err(|error| torrent.fault(index, FaultCause::of_io(&error)))?;
            let plan = Plan::of(&file, range, position);
            read_whole(shard, &file, plan, lease).await.map(|()| plan)
        }
        other => other.map(|()| plan),
    };
    // After the read, so that an unchanged stamp proves what was read
    // (docs/adr/0004-verified-bytes.md). A file that is shorter than it was says so here too.
    check_stamp(torrent, index, &file)?;
    let plan = result.map_err(|error| torrent.fault(index, FaultCause::of_io(&error)))?;
    let start = plan.at + plan.skip;
    Ok(Filled {
        start,
        end: start + range.length as usize,
    })
}

/// How a range is read: whole units that hold it.
#[derive(Clone, Copy)]
struct Plan {
    /// Where in the slot the units go.
    at: usize,
    /// Where they start in the file.
    offset: u64,
    /// How many bytes before those that are wanted.
    skip: usize,
    /// How many bytes must come, those before included.
    needed: usize,
    /// How many bytes the units have; at the end of the file fewer come.
    length: usize,
    alignment: usize,
}

impl Plan {
    fn of(file: &OpenFile, range: FileRange, position: usize) -> Plan {
        let alignment = file.read_alignment() as usize;
        let skip = (range.offset % alignment as u64) as usize;
        let needed = skip + range.length as usize;
        Plan {
            at: position.next_multiple_of(alignment),
            offset: range.offset - skip as u64,
            skip,
            needed,
            length: needed.next_multiple_of(alignment),
            alignment,
        }
    }
}

/// Reads until all that is needed has come.
async fn read_whole(
    shard: &Shard,
    file: &Rc<OpenFile>,
    plan: Plan,
    lease: &Rc<Lease>,
) -> io::Result<()> {
    let mut done = 0;
    while done < plan.needed {
        shard.cells.increment(Counter::RingSubmissions);
        let count = ring::read_into_slot(
            Rc::clone(file),
            Rc::clone(lease),
            plan.at + done,
            plan.length - done,
            plan.offset + done as u64,
        )
        .await?;
        shard.cells.increment(Counter::DiskReads);
        shard.cells.add(Counter::DiskReadBytes, count as u64);
        let reached = done + count;
        // What follows a short read starts at a unit again. No unit gained is the end of the file.
        let next = if reached < plan.needed {
            reached - reached % plan.alignment
        } else {
            reached
        };
        if next <= done {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        done = next;
    }
    Ok(())
}
