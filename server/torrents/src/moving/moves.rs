//! The moves that are under way and wait, and what the manager and the thread of each share.
//!
//! Limits: one move or rename for each torrent; [`ASKS_MAX`] pairs of folders are looked at, at a
//! time.

use super::MOVES_MAX;
use super::disks::Lane;
use super::waiting::{Next, Waiter, Waiting};
use super::way::{Phase, Way};
use crate::renaming::Renames;
use proto::ids::InfoHashV1;
use seedring_io::torrent::Place;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};

/// Pairs of folders whose disks are asked for at a time: one that hangs must not take all threads.
pub(super) const ASKS_MAX: usize = 32;

/// See the file.
#[derive(Default)]
pub(crate) struct Moves {
    pub(super) running: HashMap<InfoHashV1, Arc<Moving>>,
    pub(super) waiting: Waiting,
    /// Those whose turn has come and whose download ends first.
    pub(super) halting: HashMap<InfoHashV1, Next>,
    /// Those of which it is being kept where their data are to be.
    pub(super) deciding: HashSet<InfoHashV1>,
    /// How many pairs of folders are being looked at.
    pub(super) asks: usize,
    /// Torrents whose files get other names, or have got them lately, and where they are, if that
    /// has changed.
    pub(crate) renaming: HashMap<InfoHashV1, Option<Place>>,
    /// Those that wait, and who is told when they have ended.
    pub(crate) renames: Renames,
    /// For each of [`Moves::renaming`] that has ended, the number of its last end.
    pub(super) ends: HashMap<InfoHashV1, u64>,
}

impl Moves {
    /// Whether the torrent must not be touched meanwhile.
    pub(crate) fn holds(&self, info_hash: &InfoHashV1) -> bool {
        let running = self.running.get(info_hash);
        running.is_some_and(|moving| !moving.is_served())
    }

    /// Whether the torrent is being moved.
    pub(crate) fn runs(&self, info_hash: &InfoHashV1) -> bool {
        self.running.contains_key(info_hash)
    }

    /// Whether the torrent is to be moved when it is its turn.
    pub(super) fn waits(&self, info_hash: &InfoHashV1) -> bool {
        self.waiting.contains(info_hash) || self.halting.contains_key(info_hash)
    }

    /// Whether it is being moved, or is to be.
    pub(crate) fn concerns(&self, info_hash: &InfoHashV1) -> bool {
        self.waits(info_hash) || self.deciding.contains(info_hash) || self.runs(info_hash)
    }

    /// The move that may begin next: its disks are no other's. Renames are over soon, and no move
    /// waits for them.
    pub(super) fn take_next(&mut self) -> Option<Next> {
        let running = self.running.values().filter_map(|moving| moving.lane);
        let halting = self.halting.values().map(|next| next.lane);
        let busy: Vec<Lane> = running.chain(halting).collect();
        if busy.len() >= MOVES_MAX {
            return None;
        }
        let is_free = |lane: &Lane| !busy.iter().any(|other| other.shares(lane));
        let (deciding, running) = (&self.deciding, &self.running);
        let is_held = |it: &InfoHashV1| deciding.contains(it) || running.contains_key(it);
        self.waiting.take(is_free, is_held)
    }

    /// Notes that work at the names of a torrent's files has begun.
    pub(crate) fn begin(&mut self, info_hash: InfoHashV1, moving: Moving) -> Arc<Moving> {
        let moving = Arc::new(moving);
        self.running.insert(info_hash, Arc::clone(&moving));
        moving
    }

    /// Forgets what is known of a torrent that is gone.
    pub(crate) fn forget(&mut self, info_hash: &InfoHashV1) {
        if let Some(waiter) = self
            .cancel(info_hash)
            .filter(|it| it.way.phase.is_copying())
        {
            let folder = &waiter.way.to;
            tracing::warn!(torrent = %info_hash, ?folder, "it was removed while its move waited: \
                what had been copied there is nobody's");
        }
        self.renaming.remove(info_hash);
        self.ends.remove(info_hash);
        self.renames.forget(info_hash);
    }

    /// Gives up moves of a torrent; returns the one that waited.
    pub(crate) fn cancel(&mut self, info_hash: &InfoHashV1) -> Option<Waiter> {
        if let Some(moving) = self.running.get(info_hash) {
            moving.cancelled.store(true, Ordering::Relaxed);
        }
        let waited = self.waiting.remove(info_hash);
        waited.or_else(|| self.halting.remove(info_hash).map(|next| next.waiter))
    }

    /// Whether a move that is under way ends if the torrent's data are to be in `path`: they are
    /// there still, or are there already and old files are left.
    pub(super) fn may_give_up(&self, info_hash: &InfoHashV1, path: &Path) -> bool {
        let moving = self.running.get(info_hash).filter(|it| it.lane.is_some());
        moving.is_some_and(|moving| match moving.phase() {
            Phase::Switched => moving.way().to == path,
            _ => moving.way().from == path && !moving.is_switching(),
        })
    }

    /// Stops the moves of a torrent where they are: what is kept of them stays, and is gone on with
    /// later.
    pub(crate) fn park(&mut self, info_hash: &InfoHashV1) {
        self.waiting.remove(info_hash);
        self.halting.remove(info_hash);
        if let Some(moving) = self.running.get(info_hash) {
            moving.park();
        }
    }

    pub(crate) fn cancel_all(&mut self) {
        self.waiting.clear();
        self.halting.clear();
        for moving in self.running.values() {
            moving.park();
        }
    }

    /// How far those are that run and take long.
    pub(crate) fn progress(&self) -> Vec<(InfoHashV1, u16)> {
        let done = |moving: &Moving| moving.done_permille.load(Ordering::Relaxed);
        let running = self.running.iter();
        running
            .filter(|(_, moving)| moving.lane.is_some())
            .map(|(info_hash, moving)| (*info_hash, done(moving)))
            .collect()
    }
}

/// A move that is under way, or a rename.
pub(crate) struct Moving {
    /// Which one: what an earlier one tells of the same torrent is not its own.
    pub(crate) number: u64,
    cancelled: AtomicBool,
    /// Whether the user has given it up.
    given_up: AtomicBool,
    /// Whether it is gone on with later: what is made stays.
    stopping: AtomicBool,
    /// Whether the store says that copies are made.
    copying: AtomicBool,
    /// Where the torrent's files are, once the store says so.
    pub(super) switched: OnceLock<Place>,
    /// Whether that is being kept: it cannot be given up any more.
    switching: AtomicBool,
    /// Whether the store may say so and could not tell.
    doubtful: AtomicBool,
    done_permille: AtomicU16,
    /// Whether the torrent is served meanwhile.
    served: AtomicBool,
    /// The disks that it keeps busy; none of what is over soon.
    pub(super) lane: Option<Lane>,
    /// What it was while it waited.
    pub(super) waiter: Waiter,
}

impl Moving {
    pub(crate) fn new(number: u64, waiter: Waiter, lane: Option<Lane>, served: bool) -> Moving {
        Moving {
            number,
            cancelled: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            copying: AtomicBool::new(waiter.way.phase.is_copying()),
            switched: OnceLock::new(),
            switching: AtomicBool::new(false),
            doubtful: AtomicBool::new(false),
            done_permille: AtomicU16::new(0),
            served: AtomicBool::new(served),
            lane,
            waiter,
        }
    }

    /// From where to where.
    pub(super) fn way(&self) -> &Way {
        &self.waiter.way
    }

    /// How far it is, as the store has it.
    pub(super) fn phase(&self) -> Phase {
        match self.way().phase {
            _ if self.switched.get().is_some() => Phase::Switched,
            Phase::Waiting if self.is_copying() => Phase::Copying,
            phase => phase,
        }
    }

    /// Whether the torrent is served meanwhile.
    pub(crate) fn is_served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }

    /// Notes that it is not served any more.
    pub(super) fn set_unserved(&self) {
        self.served.store(false, Ordering::Relaxed);
    }

    /// Whether the store says that copies are made.
    pub(super) fn is_copying(&self) -> bool {
        self.copying.load(Ordering::Relaxed)
    }

    /// Notes that the store says so.
    pub(super) fn set_copying(&self) {
        self.copying.store(true, Ordering::Relaxed);
    }

    /// Whether the store may say that the torrent is in the new folder: nothing there may go.
    pub(super) fn may_be_there(&self) -> bool {
        self.switched.get().is_some() || self.doubtful.load(Ordering::Relaxed)
    }

    /// Whether it may be on its way to the store that the torrent is in the new folder.
    fn is_switching(&self) -> bool {
        self.may_be_there() || self.switching.load(Ordering::Relaxed)
    }

    /// Notes that this goes to the store now.
    pub(super) fn set_switching(&self) {
        self.switching.store(true, Ordering::Relaxed);
    }

    /// Whether the torrent has gone to the new folder after all.
    pub(super) fn is_late(&self) -> bool {
        self.way().phase != Phase::Switched && self.may_be_there()
    }

    /// Notes that the store could not tell.
    pub(super) fn doubt_place(&self) {
        self.doubtful.store(true, Ordering::Relaxed);
    }

    /// Whether files get other names where they are: nothing goes to another folder.
    pub(super) fn is_rename(&self) -> bool {
        self.way().from == self.way().to
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Notes that the user wants it no more.
    pub(super) fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether old files stay where they are, once the torrent is in the new folder: those of a
    /// torrent that was removed meanwhile are nobody's, and go.
    pub(super) fn leaves_old(&self) -> bool {
        self.is_stopping() || self.given_up.load(Ordering::Relaxed)
    }

    /// Whether it is gone on with later.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Stops it so that it is gone on with later, unless it was given up before: what is given up
    /// is nobody's.
    fn park(&self) {
        let was = self.cancelled.swap(true, Ordering::Relaxed);
        if !was {
            self.stopping.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn note(&self, done: u64, all: u64) {
        let done = u128::from(done) * 1000;
        let permille = done.checked_div(u128::from(all)).unwrap_or(1000);
        let permille = u16::try_from(permille).unwrap_or(1000);
        self.done_permille.store(permille, Ordering::Relaxed);
    }
}
