//! A torrent's data are moved to another folder while it is served.
//!
//! On the same file system each file gets a second name in the new folder, the torrent goes on from
//! there, and the old names are taken away: no byte is copied, and other hard links of the files
//! stay theirs. Else all files are copied, forced to the disk, and hashed where they are; only then
//! is the torrent served from there, and the old files are deleted. At every moment the store names
//! a folder in which all files are.
//!
//! That a torrent is to be moved is kept before it is acknowledged, so a move that a crash has
//! interrupted is begun again at the next start: files of the right length that are there already
//! are hashed with the others. Another file under a name that is needed ends the move; what it has
//! made is taken away then.
//!
//! Limits: [`MOVES_MAX`] at a time, which read and write in the background; the others wait. Does
//! not: serve a torrent that is not complete while it is moved (it is stopped, moved and begun
//! again).

mod apart;
mod way;
mod work;

use crate::keeping::{Change, Next, refusal};
use crate::manager::{Inner, Manager, Phase};
use crate::reading::Kept;
use control::catalog::Status;
use control::command::{CommandError, Move, Reply};
use proto::ids::InfoHashV1;
use seedring_io::torrent::{Place, SeededTorrent};
use state::{Summary, Update, Write};
use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;
use way::Way;
use work::{Work, is_as_before};

/// Torrents that are moved at a time.
const MOVES_MAX: usize = 1;

/// How long files go on being read under names that they do not have any more: longer than a shard
/// keeps a file open that nobody asks for, and than a peer may leave what it was sent unread.
const OLD_NAMES: Duration = Duration::from_secs(150);

/// Under which name it is kept that a torrent is to be moved: this, and its info-hash. The value is
/// a [`Way`].
const INTENT: &str = "move-";

/// Under which name it is kept that this torrent is to be moved.
pub(crate) fn intent(info_hash: InfoHashV1) -> String {
    format!("{INTENT}{info_hash}")
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
}

impl Moves {
    /// Whether the torrent must not be touched meanwhile.
    pub(crate) fn holds(&self, info_hash: &InfoHashV1) -> bool {
        let running = self.running.get(info_hash);
        running.is_some_and(|moving| !moving.served)
    }

    /// Whether the torrent is being moved.
    pub(crate) fn runs(&self, info_hash: &InfoHashV1) -> bool {
        self.running.contains_key(info_hash)
    }

    /// Whether the torrent is to be moved when it is its turn.
    fn waits(&self, info_hash: &InfoHashV1) -> bool {
        self.waiting.iter().any(|(waiting, _)| waiting == info_hash)
    }

    /// The move that may begin next.
    fn take_next(&mut self) -> Option<(InfoHashV1, Way)> {
        let free = |(info_hash, _): &(InfoHashV1, Way)| !self.deciding.contains(info_hash);
        let at = self.waiting.iter().position(free)?;
        self.waiting.remove(at)
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
            moving.cancelled.store(true, Ordering::Relaxed);
        }
    }

    /// How far those are that run.
    pub(crate) fn progress(&self) -> Vec<(InfoHashV1, u16)> {
        let done = |moving: &Moving| moving.done_permille.load(Ordering::Relaxed);
        let running = self.running.iter();
        running
            .map(|(info_hash, moving)| (*info_hash, done(moving)))
            .collect()
    }
}

/// A move that is under way.
struct Moving {
    cancelled: AtomicBool,
    done_permille: AtomicU16,
    /// Whether the torrent is served meanwhile.
    served: bool,
}

/// What the thread that moves a torrent's files tells, and waits for.
pub(crate) enum MoveEvent {
    /// Its files are about to get other names.
    Renaming(oneshot::Sender<()>),
    /// All files are in the new folder, with these stamps: the torrent is to go on from there.
    There(Box<Place>, oneshot::Sender<bool>),
    /// The old names are gone, and these are the stamps now.
    Settled(Box<Place>),
    /// It has ended, well or not.
    Ended(Result<(), String>),
}

impl Moving {
    fn note(&self, done: u64, all: u64) {
        let done = u128::from(done) * 1000;
        let permille = done.checked_div(u128::from(all)).unwrap_or(1000);
        let permille = u16::try_from(permille).unwrap_or(1000);
        self.done_permille.store(permille, Ordering::Relaxed);
    }
}

impl Manager {
    /// Has a torrent's data elsewhere.
    pub(crate) async fn relocate(&mut self, info_hash: InfoHashV1, to: Move, reply: Reply<()>) {
        let checked = self.kept(info_hash);
        let checked = checked.and_then(|()| crate::adding::absolute("save_path", &to.save_path));
        if let Err(error) = checked {
            let _ = reply.send(Err(error));
            return;
        }
        let (pieces, same) = {
            let catalog = self.seat.catalog();
            let Some(torrent) = catalog.get(&info_hash) else {
                return;
            };
            let summary = &torrent.summary;
            (summary.pieces, summary.save_path == to.save_path)
        };
        if self.moves.runs(&info_hash) || self.moves.deciding.contains(&info_hash) {
            let why = "it is being moved already; wait until that has ended".to_owned();
            let _ = reply.send(Err(CommandError::Conflict(why)));
        } else if same {
            self.stay(info_hash, reply).await;
        } else if to.data_are_there || pieces == 0 {
            self.point_at(info_hash, to.save_path, reply).await;
        } else {
            self.intend(info_hash, to.save_path, reply).await;
        }
    }

    /// Keeps that a torrent is to be moved, and has it be when it is its turn.
    async fn intend(&mut self, info_hash: InfoHashV1, path: PathBuf, reply: Reply<()>) {
        let from = {
            let catalog = self.seat.catalog();
            let torrent = catalog.get(&info_hash);
            torrent.map_or_else(PathBuf::new, |it| it.summary.save_path.clone())
        };
        let way = Way {
            from,
            to: path,
            phase: way::Phase::Waiting,
        };
        let write = Write::Setting(intent(info_hash), Some(way.encode()));
        let then = move |manager: &mut Manager| {
            manager.moves.waiting.push_back((info_hash, way));
            Next::Move
        };
        self.decide(info_hash, vec![write], then, reply).await;
    }

    /// Its data stay where they are: it is not moved any more, if it was to be.
    async fn stay(&mut self, info_hash: InfoHashV1, reply: Reply<()>) {
        if !self.moves.waits(&info_hash) {
            let _ = reply.send(Ok(()));
            return;
        }
        let write = Write::Setting(intent(info_hash), None);
        self.decide(info_hash, vec![write], |_| Next::Done, reply)
            .await;
    }

    /// Whoever moved the data may have copied them wrong: what is there is hashed. A move that waits
    /// is given up with it, in one transaction: it would take the old files away.
    async fn point_at(&mut self, info_hash: InfoHashV1, path: PathBuf, reply: Reply<()>) {
        let change: Change = Arc::new(move |summary: &mut Summary| {
            summary.save_path.clone_from(&path);
            if summary.pieces > 0 {
                summary.condition = state::Condition::NeedsCheck;
            }
        });
        let kept = Arc::clone(&change);
        let update = Update::new().summary(move |summary| kept(summary));
        let writes = vec![
            Write::Update(info_hash, Box::new(update)),
            Write::Setting(intent(info_hash), None),
        ];
        let then = move |manager: &mut Manager| {
            manager.show(info_hash, |torrent| change(&mut torrent.summary));
            Next::Restart(info_hash)
        };
        self.decide(info_hash, writes, then, reply).await;
    }

    /// Keeps where a torrent's data are to be. No move of it begins until that is durable; then
    /// `then` is done in place of what it was to do.
    async fn decide(
        &mut self,
        info_hash: InfoHashV1,
        writes: Vec<Write>,
        then: impl FnOnce(&mut Manager) -> Next + Send + 'static,
        reply: Reply<()>,
    ) {
        self.moves.deciding.insert(info_hash);
        let after = move |manager: &mut Manager, written: Result<(), state::WriteError>| {
            manager.moves.deciding.remove(&info_hash);
            let result = written.map_err(refusal);
            let next = match &result {
                Ok(()) => {
                    manager.moves.cancel(&info_hash);
                    then(manager)
                }
                Err(_) => Next::Move,
            };
            let _ = reply.send(result);
            next
        };
        self.keeping.write_all(writes, Box::new(after)).await;
    }

    /// Goes on with the moves that an earlier run did not end.
    pub(crate) async fn resume_moves(&mut self) -> Result<(), state::ReadError> {
        let read = move |view: &state::View| view.settings(INTENT);
        for (name, value) in self.keeping.store.read(read).await? {
            let hash = name.strip_prefix(INTENT).and_then(unhex);
            let known = hash.filter(|hash| self.seat.catalog().get(hash).is_some());
            if let (Some(info_hash), Some(way)) = (known, Way::decode(&value)) {
                self.moves.waiting.push_back((info_hash, way));
            }
        }
        self.next_move().await;
        Ok(())
    }

    /// Begins those moves whose turn it is.
    pub(crate) async fn next_move(&mut self) {
        while self.moves.running.len() < MOVES_MAX {
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
        let moving = Arc::new(Moving {
            cancelled: AtomicBool::new(false),
            done_permille: AtomicU16::new(0),
            served,
        });
        self.moves.running.insert(info_hash, Arc::clone(&moving));
        self.set_status(info_hash, Status::Moving);
        let (store, inner) = (self.keeping.store.clone(), self.inner.clone());
        let (suffix, services) = (
            self.settings.partial_suffix.clone(),
            Arc::clone(&self.services),
        );
        tokio::task::spawn_blocking(move || {
            let kept = match Kept::read(&store, info_hash) {
                Ok(kept) => kept,
                Err(error) => {
                    let ended = MoveEvent::Ended(Err(format!("not moved: {error}")));
                    let _ = inner.send(Inner::Moved(info_hash, ended));
                    return;
                }
            };
            let work = Work {
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
            };
            let event = Inner::Moved(info_hash, MoveEvent::Ended(work.run()));
            let _ = work.inner.send(event);
        });
    }

    pub(crate) async fn moved(&mut self, info_hash: InfoHashV1, event: MoveEvent) {
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
            MoveEvent::Ended(result) => self.move_ended(info_hash, result).await,
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
        let from = {
            let catalog = self.seat.catalog();
            let torrent = catalog.get(&info_hash);
            torrent.map(|torrent| torrent.summary.save_path.clone())
        };
        let Some(from) = from else {
            let _ = done.send(false);
            return;
        };
        let folder = place.data_dir.clone();
        let way = Way {
            from,
            to: folder.clone(),
            phase: way::Phase::Switched,
        };
        let change: Change = Arc::new(move |summary: &mut Summary| {
            summary.save_path.clone_from(&folder);
        });
        let kept = Arc::clone(&change);
        let update = Update::new()
            .summary(move |summary| kept(summary))
            .all_stamps(place.stamps.clone());
        let writes = vec![
            Write::Update(info_hash, Box::new(update)),
            Write::Setting(intent(info_hash), Some(way.encode())),
        ];
        let after = move |manager: &mut Manager, written: Result<(), state::WriteError>| {
            match written {
                Ok(()) => {
                    manager.show(info_hash, |torrent| change(&mut torrent.summary));
                    manager.set_place(info_hash, place);
                    let _ = done.send(true);
                }
                Err(state::WriteError::Unknown(_)) => drop(done.send(false)),
                // It may be kept or not: files stay in both folders. Nobody is told, which says so.
                Err(error) => {
                    tracing::error!(torrent = %info_hash, %error, "where its data are is not kept");
                }
            }
            Next::Done
        };
        self.keeping.write_all(writes, Box::new(after)).await;
    }

    async fn move_ended(&mut self, info_hash: InfoHashV1, result: Result<(), String>) {
        let moving = self.moves.running.remove(&info_hash);
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
            let write = Write::Setting(intent(info_hash), None);
            let after = |_: &mut Manager, _| Next::Done;
            self.keeping.write(write, Box::new(after)).await;
        }
        let status = {
            let catalog = self.seat.catalog();
            catalog.get(&info_hash).map(|torrent| torrent.live.status)
        };
        match moving.is_some_and(|moving| moving.served) {
            // Whoever paused it meanwhile, or found a fault, has said so.
            true if status != Some(Status::Moving) => {}
            true if matches!(self.phases.get(&info_hash), Some(Phase::Awake(_))) => {
                self.set_status(info_hash, Status::Seeding);
            }
            true => self.start(info_hash).await,
            false => self.start(info_hash).await,
        }
        let inner = self.inner.clone();
        tokio::spawn(async move {
            tokio::time::sleep(OLD_NAMES).await;
            let _ = inner.send(Inner::Strict(info_hash));
        });
        self.next_move().await;
    }

    /// Nobody reads files of a torrent under their old names any more.
    pub(crate) fn strict(&mut self, info_hash: InfoHashV1) {
        if self.moves.running.contains_key(&info_hash) {
            return;
        }
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

/// The info-hash that is written as 40 hexadecimal digits.
fn unhex(text: &str) -> Option<InfoHashV1> {
    let mut hash = [0; 20];
    if text.len() != 40 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(InfoHashV1(hash))
}
