//! A torrent's data are moved to another folder while it is served.
//!
//! On the same file system each file gets a second name in the new folder, the torrent goes on from
//! there, and the old names are taken away: no byte is copied, and other hard links of the files
//! stay theirs. Else all files are copied, forced to the disk, and hashed where they are, and what is
//! not verified is compared with what it was copied of; only then is the torrent served from there,
//! and the old files are deleted. At every moment the store names
//! a folder in which all files are.
//!
//! That a torrent is to be moved is kept before it is acknowledged, so a move that a crash has
//! interrupted is begun again at the next start: files of the right length that are there already
//! are hashed with the others. Another file under a name that the torrent needs, now or when it is
//! complete, ends the move; what it has made is taken away then.
//!
//! Limits: [`MOVES_MAX`] at a time, which read and write in the background; the others wait. Does
//! not: serve a torrent that is not complete while it is moved (it is stopped, moved and begun
//! again).

mod apart;
mod comparing;
mod deciding;
mod taken;
pub(crate) mod way;
pub(crate) mod work;

use crate::keeping::{Change, Next};
use crate::manager::{Inner, Manager, Phase};
use crate::reading::Kept;
use crate::renaming::Renames;
use control::catalog::Status;
use control::command::CommandError;
use proto::ids::InfoHashV1;
use seedring_io::torrent::{Place, SeededTorrent};
use state::{Intent, Summary, Update, Write};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::oneshot;
use way::Way;
use work::{Work, is_as_before};

/// Torrents that are moved at a time.
const MOVES_MAX: usize = 1;

/// How long files go on being read under names that they do not have any more: longer than a shard
/// keeps a file open that nobody asks for, and than a peer may leave what it was sent unread.
const OLD_NAMES: Duration = Duration::from_secs(150);

/// When it is tried again to keep where a torrent's data are.
const AGAIN: Duration = Duration::from_secs(5);

/// Moves that are read of the store at once at the start.
const PAGE: usize = 2_000;

/// Keeps that a torrent is to be moved, or that it is not any more.
pub(super) fn keep(info_hash: InfoHashV1, way: Option<&Way>) -> Write {
    Write::Intent(Intent::Move, info_hash, way.map(Way::encode))
}

/// The moves that are under way and wait.
#[derive(Default)]
pub(crate) struct Moves {
    running: HashMap<InfoHashV1, Arc<Moving>>,
    waiting: VecDeque<(InfoHashV1, Way)>,
    /// Those of which it is being kept where their data are to be.
    deciding: HashSet<InfoHashV1>,
    /// Torrents whose files get other names, or have got them lately, and where they are, if that
    /// has changed.
    pub renaming: HashMap<InfoHashV1, Option<Place>>,
    /// Those that wait, and who is told when they have ended.
    pub renames: Renames,
    /// For each of [`Moves::renaming`] that has ended, the number of its last end.
    ends: HashMap<InfoHashV1, u64>,
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
    fn waits(&self, info_hash: &InfoHashV1) -> bool {
        self.waiting.iter().any(|(waiting, _)| waiting == info_hash)
    }

    /// How many torrents are being moved; renames are over soon, and no move waits for them.
    fn moved_now(&self) -> usize {
        let running = self.running.values();
        running.filter(|moving| !moving.is_rename()).count()
    }

    /// The move that may begin next.
    fn take_next(&mut self) -> Option<(InfoHashV1, Way)> {
        let free = |(info_hash, _): &(InfoHashV1, Way)| !self.deciding.contains(info_hash);
        let at = self.waiting.iter().position(free)?;
        self.waiting.remove(at)
    }

    /// Whether it is being moved, or is to be.
    pub(crate) fn concerns(&self, info_hash: &InfoHashV1) -> bool {
        self.waits(info_hash) || self.deciding.contains(info_hash) || self.runs(info_hash)
    }

    /// Notes that work at the names of a torrent's files has begun.
    pub(crate) fn begin(
        &mut self,
        info_hash: InfoHashV1,
        number: u64,
        way: Way,
        served: bool,
    ) -> Arc<Moving> {
        let moving = Arc::new(Moving {
            number,
            cancelled: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            switched: OnceLock::new(),
            done_permille: AtomicU16::new(0),
            served: AtomicBool::new(served),
            way,
        });
        self.running.insert(info_hash, Arc::clone(&moving));
        moving
    }

    /// Forgets what is known of a torrent that is gone.
    pub(crate) fn forget(&mut self, info_hash: &InfoHashV1) {
        self.cancel(info_hash);
        self.renaming.remove(info_hash);
        self.ends.remove(info_hash);
        self.renames.forget(info_hash);
    }

    /// Gives up moves of a torrent.
    pub(crate) fn cancel(&mut self, info_hash: &InfoHashV1) {
        self.waiting.retain(|(waiting, _)| waiting != info_hash);
        if let Some(moving) = self.running.get(info_hash) {
            moving.cancelled.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn cancel_all(&mut self) {
        self.waiting.clear();
        for moving in self.running.values() {
            // What was given up before is nobody's.
            let was = moving.cancelled.swap(true, Ordering::Relaxed);
            moving.stopping.store(!was, Ordering::Relaxed);
        }
    }

    /// How far those are that run and take long.
    pub(crate) fn progress(&self) -> Vec<(InfoHashV1, u16)> {
        let done = |moving: &Moving| moving.done_permille.load(Ordering::Relaxed);
        let running = self.running.iter();
        running
            .filter(|(_, moving)| !moving.is_rename())
            .map(|(info_hash, moving)| (*info_hash, done(moving)))
            .collect()
    }
}

/// A move that is under way.
pub(crate) struct Moving {
    /// Which one: what an earlier one tells of the same torrent is not its own.
    pub(crate) number: u64,
    cancelled: AtomicBool,
    /// Whether the next start goes on with it: what is made stays.
    stopping: AtomicBool,
    /// Where the torrent's files are, once the store says so.
    switched: OnceLock<Place>,
    done_permille: AtomicU16,
    /// Whether the torrent is served meanwhile.
    served: AtomicBool,
    way: Way,
}

/// What the thread that moves a torrent's files tells, and waits for.
pub(crate) enum MoveEvent {
    /// Its files are about to get other names.
    Renaming(oneshot::Sender<()>),
    /// For a moment its files have no names that are known: nobody is to open them.
    Halt(oneshot::Sender<()>),
    /// All files are in the new folder, with these stamps: the torrent is to go on from there.
    There(Box<Place>, oneshot::Sender<bool>),
    /// The old names are gone, and these are the stamps now.
    Settled(Box<Place>),
    /// It has ended, well or not.
    Ended(Result<(), String>),
    /// Files of it were renamed, or not.
    Renamed(Result<(), CommandError>),
}

impl Moving {
    /// Whether the torrent is served meanwhile.
    pub(crate) fn is_served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }

    /// Notes that it is not served any more.
    fn set_unserved(&self) {
        self.served.store(false, Ordering::Relaxed);
    }

    /// Whether files get other names where they are: nothing goes to another folder.
    fn is_rename(&self) -> bool {
        self.way.from == self.way.to
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    fn note(&self, done: u64, all: u64) {
        let done = u128::from(done) * 1000;
        let permille = done.checked_div(u128::from(all)).unwrap_or(1000);
        let permille = u16::try_from(permille).unwrap_or(1000);
        self.done_permille.store(permille, Ordering::Relaxed);
    }
}

impl Manager {
    /// Goes on with the moves that an earlier run did not end.
    pub(crate) async fn resume_moves(&mut self) -> Result<(), state::ReadError> {
        let mut after = None;
        loop {
            let read = move |view: &state::View| view.intents(Intent::Move, after, PAGE);
            let page = self.keeping.store.read(read).await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            for (info_hash, value) in page {
                let is_known = self.seat.catalog().get(&info_hash).is_some();
                if let Some(way) = Way::decode(&value).filter(|_| is_known) {
                    self.moves.waiting.push_back((info_hash, way));
                }
            }
        }
        self.next_move().await;
        Ok(())
    }

    /// Begins those moves whose turn it is.
    pub(crate) async fn next_move(&mut self) {
        while self.moves.moved_now() < MOVES_MAX {
            let Some((info_hash, way)) = self.moves.take_next() else {
                return;
            };
            let is_complete = {
                let catalog = self.seat.catalog();
                match catalog.get(&info_hash) {
                    Some(torrent) => torrent.is_complete(),
                    None => continue,
                }
            };
            let phase = self.phases.get(&info_hash);
            let served = is_complete && matches!(phase, None | Some(Phase::Awake(_)));
            if !served && !self.halt(info_hash).await {
                // It goes on when its download has ended.
                self.moves.waiting.push_back((info_hash, way));
                return;
            }
            self.begin_move(info_hash, way, served);
        }
    }

    fn begin_move(&mut self, info_hash: InfoHashV1, way: Way, served: bool) {
        let number = self.number();
        let moving = self.moves.begin(info_hash, number, way.clone(), served);
        self.set_status(info_hash, Status::Moving);
        let (store, inner) = (self.keeping.store.clone(), self.inner.clone());
        let (suffix, services) = (
            self.settings.partial_suffix.clone(),
            Arc::clone(&self.services),
        );
        tokio::spawn(async move {
            // What its download has synced last may be on its way to the disk. If that fails, the
            // stamps tell.
            let _ = store.flush().await;
            let work = move || match Kept::read(&store, info_hash) {
                Ok(kept) => Work {
                    info_hash,
                    kept,
                    from: way.from,
                    to: way.to,
                    phase: way.phase,
                    store,
                    suffix,
                    moving,
                    services,
                    inner,
                }
                .work(),
                Err(error) => {
                    let ended = MoveEvent::Ended(Err(format!("not moved: {error}")));
                    let _ = inner.send(Inner::Moved(info_hash, number, ended));
                }
            };
            let _ = tokio::task::spawn_blocking(work).await;
        });
    }

    pub(crate) async fn moved(&mut self, info_hash: InfoHashV1, number: u64, event: MoveEvent) {
        let running = self.moves.running.get(&info_hash);
        if running.is_none_or(|moving| moving.number != number) {
            return;
        }
        match event {
            MoveEvent::Renaming(done) => {
                if let Some(Phase::Awake(awake)) = self.phases.get(&info_hash) {
                    awake.torrent.set_renaming(true);
                }
                self.moves.renaming.entry(info_hash).or_default();
                let _ = done.send(());
            }
            MoveEvent::There(place, done) => self.switch(info_hash, *place, done).await,
            MoveEvent::Settled(place) => {
                let place = self.settled(info_hash, place);
                let update = Update::new().all_stamps(place.stamps.clone());
                self.keeping.note(info_hash, update).await;
                self.set_place(info_hash, *place);
            }
            MoveEvent::Halt(done) => {
                self.halt(info_hash).await;
                if let Some(moving) = self.moves.running.get(&info_hash) {
                    moving.set_unserved();
                    self.set_status(info_hash, Status::Moving);
                }
                let _ = done.send(());
            }
            MoveEvent::Ended(result) => self.move_ended(info_hash, result).await,
            MoveEvent::Renamed(result) => self.rename_ended(info_hash, result).await,
        }
    }

    /// Stamps that were taken when the old names were gone, of files that are what they were before
    /// but for the time of change; others are not known any more, and are hashed.
    fn settled(&self, info_hash: InfoHashV1, mut place: Box<Place>) -> Box<Place> {
        if let Some(Some(before)) = self.moves.renaming.get(&info_hash)
            && before.data_dir == place.data_dir
        {
            for (now, before) in place.stamps.iter_mut().zip(&before.stamps) {
                if !is_as_before(*now, *before) {
                    *now = None;
                }
            }
        }
        place
    }

    /// A torrent's files are there now.
    fn set_place(&mut self, info_hash: InfoHashV1, place: Place) {
        if let Some(Phase::Awake(awake)) = self.phases.get(&info_hash) {
            awake.torrent.move_to(place.clone());
        }
        self.moves.renaming.insert(info_hash, Some(place));
    }

    /// All of it is in the new folder: that is kept, and then it is served from there.
    async fn switch(&mut self, info_hash: InfoHashV1, place: Place, done: oneshot::Sender<bool>) {
        let moving = self.moves.running.get(&info_hash).map(Arc::clone);
        let moving = moving.filter(|moving| !moving.is_cancelled());
        let Some(moving) = moving.filter(|_| self.seat.catalog().get(&info_hash).is_some()) else {
            let _ = done.send(false);
            return;
        };
        let folder = place.data_dir.clone();
        let way = Way {
            phase: way::Phase::Switched,
            ..moving.way.clone()
        };
        let change: Change = Arc::new(move |summary: &mut Summary| {
            summary.save_path.clone_from(&folder);
        });
        let kept = Arc::clone(&change);
        let paths = place.paths.clone();
        let update = Update::new()
            .summary(move |summary| kept(summary))
            .details(move |details| details.renames = paths)
            .all_stamps(place.stamps.clone());
        let mut writes = vec![Write::Update(info_hash, Box::new(update))];
        // A rename has an intent of its own. By one to move, the next start would set about taking
        // files away whose only names these are.
        if !moving.is_rename() {
            writes.push(keep(info_hash, Some(&way)));
        }
        let after = move |manager: &mut Manager, written: Result<(), state::WriteError>| {
            match written {
                Ok(()) => {
                    let _ = moving.switched.set(place.clone());
                    manager.sharing.changed(info_hash);
                    manager.show(info_hash, |torrent| change(&mut torrent.summary));
                    manager.set_place(info_hash, place);
                    let _ = done.send(true);
                }
                Err(state::WriteError::Unknown(_)) => drop(done.send(false)),
                // It may be kept or not, and files are in both folders: it is written again until
                // that is known, or the server stops.
                Err(error) => {
                    tracing::error!(torrent = %info_hash, %error,
                        "where its data are is not kept; it is tried again");
                    let (inner, number) = (manager.inner.clone(), moving.number);
                    tokio::spawn(async move {
                        tokio::time::sleep(AGAIN).await;
                        let there = MoveEvent::There(Box::new(place), done);
                        let _ = inner.send(Inner::Moved(info_hash, number, there));
                    });
                }
            }
            Next::Done
        };
        self.keeping.write_all(writes, Box::new(after)).await;
    }

    /// Nothing is done at a torrent's files any more. If it was removed meanwhile, it is known only
    /// now where they are.
    pub(crate) fn end_move(&mut self, info_hash: InfoHashV1) -> Option<Arc<Moving>> {
        let moving = self.moves.running.remove(&info_hash)?;
        if let Some(remains) = self.leaving.remove(&info_hash) {
            self.moves.forget(&info_hash);
            let remains = remains.map(|remains| match moving.switched.get() {
                Some(place) => Box::new(remains.at(place, &self.settings.partial_suffix)),
                None => Box::new(remains.of_folder(&moving.way.from)),
            });
            self.bury(info_hash, remains);
        }
        Some(moving)
    }

    async fn move_ended(&mut self, info_hash: InfoHashV1, result: Result<(), String>) {
        let moving = self.end_move(info_hash);
        let served = moving.is_some_and(|moving| moving.is_served());
        if let Err(why) = result {
            tracing::error!(torrent = %info_hash, why, "a move did not end well");
            let (at_s, text) = (self.clock.now_s(), why);
            self.show(info_hash, |torrent| {
                torrent.summary.last_error = Some(state::LastError { at_s, text });
            });
        }
        // Another that waits has its own intent in the place of this one's.
        if self
            .moves
            .waiting
            .iter()
            .all(|(waiting, _)| *waiting != info_hash)
        {
            let after = |_: &mut Manager, _| Next::Done;
            let write = keep(info_hash, None);
            self.keeping.write(write, Box::new(after)).await;
        }
        self.go_on(info_hash, served).await;
    }

    /// What was done at the names of a torrent's files has ended: it goes on, and others have their
    /// turn.
    pub(crate) async fn go_on(&mut self, info_hash: InfoHashV1, served: bool) {
        let status = {
            let catalog = self.seat.catalog();
            catalog.get(&info_hash).map(|torrent| torrent.live.status)
        };
        match served {
            // Whoever paused it meanwhile, or found a fault, has said so.
            true if status != Some(Status::Moving) => {}
            true if matches!(self.phases.get(&info_hash), Some(Phase::Awake(_))) => {
                self.set_status(info_hash, Status::Seeding);
            }
            true => self.start(info_hash).await,
            false => self.start(info_hash).await,
        }
        let (inner, number) = (self.inner.clone(), self.number());
        if self.moves.renaming.contains_key(&info_hash) {
            self.moves.ends.insert(info_hash, number);
        }
        tokio::spawn(async move {
            tokio::time::sleep(OLD_NAMES).await;
            let _ = inner.send(Inner::Strict(info_hash, number));
        });
        self.next_move().await;
    }

    /// Nobody reads files of a torrent under their old names any more.
    pub(crate) fn strict(&mut self, info_hash: InfoHashV1, number: u64) {
        // One that has been moved again since has its own end.
        let is_last = self.moves.ends.get(&info_hash) == Some(&number);
        if self.moves.runs(&info_hash) || !is_last {
            return;
        }
        self.moves.ends.remove(&info_hash);
        self.moves.renaming.remove(&info_hash);
        if let Some(Phase::Awake(awake)) = self.phases.get(&info_hash) {
            awake.torrent.set_renaming(false);
        }
    }

    /// What is to be known of a torrent that has just been read: it may have been moved meanwhile.
    pub(crate) fn catch_up(&self, torrent: &SeededTorrent) {
        let Some(place) = self.moves.renaming.get(&torrent.info_hash()) else {
            return;
        };
        torrent.set_renaming(true);
        if let Some(place) = place {
            torrent.move_to(place.clone());
        }
    }
}
