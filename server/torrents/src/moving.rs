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

use crate::beneath::Beneath;
use crate::keeping::{Change, refusal};
use crate::manager::{Inner, Manager, Phase};
use crate::reading::Kept;
use control::catalog::Status;
use control::command::{CommandError, Move, Reply};
use control::hashing::stamp_of;
use control::resume::Resume;
use control::verify::PieceSet;
use engine::layout::FileStamp;
use proto::ids::{InfoHashV1, PieceIndex};
use seedring_io::torrent::{Place, SeededTorrent};
use state::{Summary, Update, Verified, Write};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ffi::OsString;
use std::io::{self, Read, Seek, Write as _};
use std::ops::ControlFlow;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

/// Torrents that are moved at a time.
const MOVES_MAX: usize = 1;

/// How much is copied at once, in bytes.
const COPY_BYTES: usize = 1 << 20;

/// How long files go on being read under names that they do not have any more: longer than a shard
/// keeps a file open that nobody asks for, and than a peer may leave what it was sent unread.
const OLD_NAMES: Duration = Duration::from_secs(150);

/// What is appended to the name of a file that is being copied.
const COPY_SUFFIX: &str = ".moving";

/// Under which name it is kept that a torrent is to be moved: this, and its info-hash. The value is
/// the new folder, a NUL, and the old one.
const INTENT: &str = "move-";

/// Under which name it is kept that this torrent is to be moved.
pub(crate) fn intent(info_hash: InfoHashV1) -> String {
    format!("{INTENT}{info_hash}")
}

/// From where to where.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Way {
    from: PathBuf,
    to: PathBuf,
}

impl Way {
    fn encode(&self) -> Vec<u8> {
        let (from, to) = (self.from.as_os_str(), self.to.as_os_str());
        [to.as_bytes(), from.as_bytes()].join(&0)
    }

    fn decode(bytes: &[u8]) -> Option<Way> {
        let at = bytes.iter().position(|byte| *byte == 0)?;
        let path = |bytes: &[u8]| PathBuf::from(OsString::from_vec(bytes.to_vec()));
        Some(Way {
            to: path(bytes.get(..at)?),
            from: path(bytes.get(at + 1..)?),
        })
    }
}

/// The moves that are under way and wait.
#[derive(Default)]
pub(crate) struct Moves {
    running: HashMap<InfoHashV1, Arc<Moving>>,
    waiting: VecDeque<(InfoHashV1, Way)>,
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

/// What is to be done with one file.
struct Item {
    index: u32,
    old: PathBuf,
    new: PathBuf,
}

/// The work of a move, beside the manager.
struct Work {
    info_hash: InfoHashV1,
    kept: Kept,
    from: PathBuf,
    to: PathBuf,
    suffix: String,
    moving: Arc<Moving>,
    services: Arc<crate::Services>,
    inner: tokio::sync::mpsc::UnboundedSender<Inner>,
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
        if self.moves.running.contains_key(&info_hash) {
            let why = "it is being moved already; wait until that has ended".to_owned();
            let _ = reply.send(Err(CommandError::Conflict(why)));
        } else if same {
            let _ = reply.send(Ok(()));
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
        let way = Way { from, to: path };
        let write = Write::Setting(intent(info_hash), Some(way.encode()));
        let after = move |manager: &mut Manager, written: Result<(), state::WriteError>| {
            let result = written.map_err(refusal);
            if result.is_ok() {
                manager.moves.cancel(&info_hash);
                manager.moves.waiting.push_back((info_hash, way));
            }
            let _ = reply.send(result);
            crate::keeping::Next::Move
        };
        self.keeping.write(write, Box::new(after)).await;
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
            let Some((info_hash, way)) = self.moves.waiting.pop_front() else {
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

    /// Whoever moved the data may have copied them wrong: what is there is hashed.
    async fn point_at(&mut self, info_hash: InfoHashV1, path: PathBuf, reply: Reply<()>) {
        let change = move |summary: &mut Summary| {
            summary.save_path.clone_from(&path);
            if summary.pieces > 0 {
                summary.condition = state::Condition::NeedsCheck;
            }
        };
        self.change(info_hash, Arc::new(change), true, reply).await;
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
                    let ended = MoveEvent::Ended(Err(error.to_string()));
                    let _ = inner.send(Inner::Moved(info_hash, ended));
                    return;
                }
            };
            let work = Work {
                info_hash,
                kept,
                from: way.from,
                to: way.to,
                suffix,
                moving,
                services,
                inner,
            };
            let ended = work.open().and_then(|(from, to)| work.run(&from, &to));
            let event = Inner::Moved(info_hash, MoveEvent::Ended(ended));
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
        if self.seat.catalog().get(&info_hash).is_none() {
            let _ = done.send(false);
            return;
        }
        let folder = place.data_dir.clone();
        let change: Change = Arc::new(move |summary: &mut Summary| {
            summary.save_path.clone_from(&folder);
        });
        let kept = Arc::clone(&change);
        let update = Update::new()
            .summary(move |summary| kept(summary))
            .all_stamps(place.stamps.clone());
        let write = Write::Update(info_hash, Box::new(update));
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
            crate::keeping::Next::Done
        };
        self.keeping.write(write, Box::new(after)).await;
    }

    async fn move_ended(&mut self, info_hash: InfoHashV1, result: Result<(), String>) {
        let moving = self.moves.running.remove(&info_hash);
        if let Err(why) = result {
            tracing::error!(torrent = %info_hash, why, "its data were not moved");
            let (at_s, text) = (self.clock.now_s(), format!("not moved: {why}"));
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
            let after = |_: &mut Manager, _| crate::keeping::Next::Done;
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

impl Work {
    /// The folders that files come from and go to.
    fn open(&self) -> Result<(Beneath, Beneath), String> {
        let from = &self.from;
        let old = Beneath::open(from).map_err(|error| format!("{from:?}: {error}"))?;
        std::fs::create_dir_all(&self.to).map_err(|error| format!("{:?}: {error}", self.to))?;
        let new = Beneath::open(&self.to).map_err(|error| format!("{:?}: {error}", self.to))?;
        Ok((old, new))
    }

    fn run(&self, from: &Beneath, to: &Beneath) -> Result<(), String> {
        if self.kept.summary.save_path == self.to {
            // An earlier run has come so far that it is there; what is left is to clear up.
            return self.finish(from, to);
        }
        if self.kept.summary.save_path != self.from {
            return Err("it has been moved elsewhere since".to_owned());
        }
        let items = self.items(from)?;
        self.apart(from, to, &items)?;
        let mut made = Vec::new();
        let gave_up = match self.bring(from, to, &items, &mut made) {
            Ok(Some(true)) => return self.finish(from, to),
            Ok(Some(false)) => "it was removed".to_owned(),
            Ok(None) => {
                return Err(
                    "whether that is kept is not known: its files are in both folders".into(),
                );
            }
            Err(why) => why,
        };
        // What was made here is nobody's.
        self.clear(to, made.iter().map(PathBuf::as_path));
        // Names that came and went have moved the time of change of the files.
        if let Ok(stamps) = self.as_kept(from, &items) {
            let place = self.place(self.from.clone(), stamps);
            self.tell(MoveEvent::Settled(Box::new(place)));
        }
        Err(gave_up)
    }

    /// The files that are there.
    fn items(&self, folder: &Beneath) -> Result<Vec<Item>, String> {
        let metainfo = self.kept.described().map_err(|error| error.to_string())?;
        let mut items = Vec::new();
        for (index, file) in (0..).zip(&metainfo.files) {
            if file.pad || file.symlink_target.is_some() {
                continue;
            }
            let said = || file.path.iter().collect::<PathBuf>();
            let own = self.kept.details.renames.get(&index).cloned();
            let own = own.unwrap_or_else(said);
            let mut partial = OsString::from(&own);
            partial.push(&self.suffix);
            let names = [own, partial.into()];
            let found = names.into_iter().find(|name| folder.read(name).is_ok());
            match found {
                Some(path) => items.push(Item {
                    index,
                    new: path.clone(),
                    old: path,
                }),
                // What was verified has to be there; the rest may be still to come.
                None if self.moving.served || self.known(index).is_some() => {
                    return Err(format!("file {index} is missing, or cannot be read"));
                }
                None => {}
            }
        }
        Ok(items)
    }

    /// Refuses a move between folders that are one, by whatever names: their files have one name.
    fn apart(&self, from: &Beneath, to: &Beneath, items: &[Item]) -> Result<(), String> {
        let is_one = |item: &Item| {
            let old = from.folder_of(&item.old);
            old.is_some() && old == to.folder_of(&item.new)
        };
        let root = Path::new("x");
        let one = from.folder_of(root) == to.folder_of(root) || items.iter().any(is_one);
        match one {
            true => Err(format!(
                "{:?} and {:?} are the same folder",
                self.from, self.to
            )),
            false => Ok(()),
        }
    }

    /// The torrent is in the new folder: takes the old files away, each only if the new one is
    /// there in another folder.
    fn finish(&self, from: &Beneath, to: &Beneath) -> Result<(), String> {
        if self.from == self.to || from.folder_of(Path::new("x")) == to.folder_of(Path::new("x")) {
            return Ok(());
        }
        let items = self.items(to)?;
        let gone = items.iter().filter(|item| {
            let (old, new) = (from.folder_of(&item.old), to.folder_of(&item.new));
            let length = |folder: &Beneath, path: &Path| {
                let found = folder.read(path).and_then(|file| file.metadata());
                found.ok().map(|found| found.len())
            };
            old.is_some()
                && new.is_some()
                && old != new
                && length(from, &item.old) == length(to, &item.new)
        });
        self.clear(from, gone.map(|item| item.old.as_path()));
        let mut stamps = self.found(to, &items)?;
        if self.kept.summary.save_path == self.to {
            // Since an earlier run: what has changed meanwhile is hashed.
            for (found, known) in stamps.iter_mut().zip(&self.kept.stamps) {
                if !is_as_before(*found, *known) {
                    *found = None;
                }
            }
        }
        let place = self.place(self.to.clone(), stamps);
        self.tell(MoveEvent::Settled(Box::new(place)));
        Ok(())
    }

    /// Has all files be in the new folder, and the torrent go on from there. Whether it does;
    /// nothing if nobody says.
    fn bring(
        &self,
        from: &Beneath,
        to: &Beneath,
        items: &[Item],
        made: &mut Vec<PathBuf>,
    ) -> Result<Option<bool>, String> {
        let linked = self.link_all(from, to, items, made)?;
        if !linked {
            self.copy_all(from, to, items, made)?;
        }
        for item in items {
            let synced = to.sync_above(&item.new);
            synced.map_err(|error| format!("{:?}: {error}", item.new))?;
        }
        let stamps = match linked {
            true => self.as_kept(to, items)?,
            false => self.hashed(to)?,
        };
        // The time of change of the old files moves when they are taken away.
        self.renaming()?;
        let (done, kept) = oneshot::channel();
        let place = Box::new(self.place(self.to.clone(), stamps));
        self.tell(MoveEvent::There(place, done));
        Ok(kept.blocking_recv().ok())
    }

    fn renaming(&self) -> Result<(), String> {
        let (done, told) = oneshot::channel();
        self.tell(MoveEvent::Renaming(done));
        let told = told.blocking_recv();
        told.map_err(|_| "the server is stopping".to_owned())
    }

    /// Gives all files their new names beside the old ones. False if they are on another file
    /// system, or on one without hard links: nothing is made then.
    fn link_all(
        &self,
        from: &Beneath,
        to: &Beneath,
        items: &[Item],
        made: &mut Vec<PathBuf>,
    ) -> Result<bool, String> {
        use rustix::io::Errno;
        self.renaming()?;
        for item in items {
            match from.link(&item.old, to, &item.new) {
                Ok(()) => made.push(item.new.clone()),
                // An earlier run has come so far.
                Err(Errno::EXIST) if is_same(from, &item.old, to, &item.new) => {}
                // That comes before the kernel looks at file systems.
                Err(Errno::EXIST) if !is_one_device(from, &item.old, to, &item.new) => {
                    self.clear(to, made.iter().map(PathBuf::as_path));
                    made.clear();
                    return Ok(false);
                }
                Err(Errno::XDEV | Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => {
                    self.clear(to, made.iter().map(PathBuf::as_path));
                    made.clear();
                    return Ok(false);
                }
                Err(error) => return Err(format!("{:?}: {error}", self.to.join(&item.new))),
            }
        }
        Ok(true)
    }

    fn copy_all(
        &self,
        from: &Beneath,
        to: &Beneath,
        items: &[Item],
        made: &mut Vec<PathBuf>,
    ) -> Result<(), String> {
        seedring_io::system::work_in_background();
        // Half of the work is the hashing afterwards.
        let all = self.kept.summary.total_bytes.saturating_mul(2);
        let mut done = 0;
        for item in items {
            let copied = self.copy(from, to, item, made, &mut done, all);
            copied.map_err(|error| format!("{:?}: {error}", self.to.join(&item.new)))?;
        }
        Ok(())
    }

    /// Copies one file, under another name until it is whole and on the disk.
    fn copy(
        &self,
        from: &Beneath,
        to: &Beneath,
        item: &Item,
        made: &mut Vec<PathBuf>,
        done: &mut u64,
        all: u64,
    ) -> io::Result<()> {
        let mut source = from.read(&item.old)?;
        let length = source.metadata()?.len();
        // One of its length is there already: of an earlier run, or it is found out by hashing.
        if let Ok(found) = to.read(&item.new).and_then(|file| file.metadata()) {
            *done += length;
            return match found.len() == length {
                true => Ok(()),
                false => Err(io::Error::other("another file is there")),
            };
        }
        // A name that is ours alone: what is there is of an earlier run.
        let passing = format!(".{}-{}{COPY_SUFFIX}", self.info_hash, item.index);
        let passing = item.new.with_file_name(passing);
        to.unlink(&passing)?;
        let mut target = to.create(&passing)?;
        made.push(passing.clone());
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            if self.moving.cancelled.load(Ordering::Relaxed) {
                return Err(io::Error::other("it was given up"));
            }
            let count = source.read(&mut buffer)?;
            let read = buffer.get(..count).unwrap_or_default();
            match read.iter().all(|byte| *byte == 0) {
                true if count == 0 => break,
                // A file that is not complete has holes, and keeps them.
                true => drop(target.seek(io::SeekFrom::Current(count as i64))?),
                false => target.write_all(read)?,
            }
            *done += count as u64;
            self.moving.note(*done, all);
        }
        target.set_len(length)?;
        target.set_modified(source.metadata()?.modified()?)?;
        target.sync_all()?;
        to.rename(&passing, &item.new)?;
        made.push(item.new.clone());
        Ok(())
    }

    /// Hashes what was copied where it is now: the stamps of the files, if all is right.
    fn hashed(&self, to: &Beneath) -> Result<Vec<Option<FileStamp>>, String> {
        let metainfo = self.kept.described().map_err(|error| error.to_string())?;
        let resume = Resume {
            claim: None,
            always_hash: true,
            partial_suffix: &self.suffix,
            renames: &self.kept.details.renames,
            cells: &self.services.cells,
            disk: self.services.disk,
        };
        let looked = resume.look(metainfo, &self.to, &mut |progress| {
            let all = progress.bytes_total;
            self.moving.note(all + progress.bytes_done, 2 * all);
            match self.moving.cancelled.load(Ordering::Relaxed) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        let looked = looked.map_err(|error| error.to_string())?;
        let is_there = |piece: u32| looked.pieces.contains(PieceIndex(piece));
        let claimed = match &self.kept.verified {
            Verified::None => return Ok(looked.stamps),
            Verified::All => PieceSet::full(metainfo.piece_count),
            Verified::Pieces(bits) => PieceSet::from_bitfield(bits, metainfo.piece_count)
                .unwrap_or_else(|| PieceSet::new(metainfo.piece_count)),
        };
        match claimed.iter().find(|piece| !is_there(piece.0)) {
            None => {
                // What was hashed is on the disk, also where an earlier run had copied it.
                for item in self.items(to)? {
                    let synced = to.read(&item.new).and_then(|file| file.sync_all());
                    synced.map_err(|error| format!("{:?}: {error}", item.new))?;
                }
                Ok(looked.stamps)
            }
            Some(piece) => Err(format!(
                "piece {} did not arrive whole: one of the disks is not to be trusted, or another \
                 file is there",
                piece.0
            )),
        }
    }

    /// The stamp that a file had when it was verified.
    fn known(&self, index: u32) -> Option<FileStamp> {
        self.kept.stamps.get(index as usize).copied().flatten()
    }

    /// The stamps that the files have now, if they are those that were verified but for the time of
    /// change, which our own names move.
    fn as_kept(&self, folder: &Beneath, items: &[Item]) -> Result<Vec<Option<FileStamp>>, String> {
        let stamps = self.found(folder, items)?;
        match stamps.iter().zip(&self.kept.stamps).all(|pair| match pair {
            (Some(found), Some(known)) => {
                FileStamp {
                    ctime_ns: known.ctime_ns,
                    ..*found
                } == *known
            }
            (_, known) => known.is_none(),
        }) {
            true => Ok(stamps),
            false => Err("a file has changed since it was verified; check it first".to_owned()),
        }
    }

    /// The stamps of those files that have been verified, as they are now.
    fn found(&self, folder: &Beneath, items: &[Item]) -> Result<Vec<Option<FileStamp>>, String> {
        let mut stamps = vec![None; self.kept.summary.files as usize];
        for item in items.iter().filter(|item| self.known(item.index).is_some()) {
            let found = folder.read(&item.new).and_then(|file| file.metadata());
            let found = found.map_err(|error| format!("{:?}: {error}", item.new))?;
            if let Some(place) = stamps.get_mut(item.index as usize) {
                *place = Some(stamp_of(&found));
            }
        }
        Ok(stamps)
    }

    fn place(&self, data_dir: PathBuf, stamps: Vec<Option<FileStamp>>) -> Place {
        Place {
            data_dir,
            stamps,
            paths: self.kept.details.renames.clone(),
        }
    }

    /// Takes files away, and those of their folders that are empty then.
    fn clear<'a>(&self, folder: &Beneath, paths: impl Iterator<Item = &'a Path>) {
        let mut folders = BTreeSet::new();
        for path in paths {
            if let Err(error) = folder.unlink(path) {
                tracing::warn!(torrent = %self.info_hash, ?path, %error, "cannot be taken away");
            }
            let above = path.ancestors().skip(1);
            folders.extend(above.filter(|path| !path.as_os_str().is_empty()));
        }
        for path in folders.iter().rev() {
            let _ = folder.remove_folder(path);
        }
    }

    fn tell(&self, event: MoveEvent) {
        let _ = self.inner.send(Inner::Moved(self.info_hash, event));
    }
}

/// Whether a file is what it was, but for the time of change, which our own names move.
fn is_as_before(found: Option<FileStamp>, known: Option<FileStamp>) -> bool {
    let (Some(found), Some(known)) = (found, known) else {
        return false;
    };
    let ctime_ns = known.ctime_ns;
    FileStamp { ctime_ns, ..found } == known
}

/// Whether two names are of one file.
fn is_same(from: &Beneath, old: &Path, to: &Beneath, new: &Path) -> bool {
    let found = |folder: &Beneath, path: &Path| {
        let metadata = folder.read(path).and_then(|file| file.metadata()).ok()?;
        let stamp = stamp_of(&metadata);
        Some((stamp.device, stamp.inode))
    };
    let old = found(from, old);
    old.is_some() && old == found(to, new)
}

/// Whether two files would be on one file system.
fn is_one_device(from: &Beneath, old: &Path, to: &Beneath, new: &Path) -> bool {
    let device = |folder: &Beneath, path: &Path| folder.folder_of(path).map(|(device, _)| device);
    device(from, old) == device(to, new)
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
