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
use engine::layout::FileStamp;
use proto::ids::InfoHashV1;
use seedring_io::torrent::{Place, SeededTorrent};
use state::{Summary, Update, Write};
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

/// Under which name it is kept that a torrent is to be moved: this, and its info-hash.
const INTENT: &str = "move-";

/// The moves that are under way and wait.
#[derive(Default)]
pub(crate) struct Moves {
    running: HashMap<InfoHashV1, Arc<Moving>>,
    waiting: VecDeque<(InfoHashV1, PathBuf)>,
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
    to: PathBuf,
    suffix: String,
    moving: Arc<Moving>,
    services: Arc<crate::Services>,
    inner: tokio::sync::mpsc::Sender<Inner>,
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
        let value = path.as_os_str().as_bytes().to_vec();
        let write = Write::Setting(format!("{INTENT}{info_hash}"), Some(value));
        let after = move |manager: &mut Manager, written: Result<(), state::WriteError>| {
            let result = written.map_err(refusal);
            if result.is_ok() {
                manager.moves.cancel(&info_hash);
                manager.moves.waiting.push_back((info_hash, path));
            }
            let _ = reply.send(result);
            crate::keeping::Next::Move
        };
        self.keeping.write(write, Box::new(after)).await;
    }

    /// Goes on with the moves that an earlier run did not end.
    pub(crate) async fn resume_moves(&mut self) -> Result<(), state::ReadError> {
        let hashes: Vec<InfoHashV1> = {
            let catalog = self.seat.catalog();
            catalog.iter().map(|torrent| torrent.info_hash).collect()
        };
        let read = move |view: &state::View| {
            let mut found = Vec::new();
            for (name, value) in view.settings(INTENT)? {
                let hash = name.strip_prefix(INTENT).unwrap_or_default();
                let known = hashes.iter().find(|known| known.to_string() == hash);
                found.extend(known.map(|known| (*known, value)));
            }
            Ok(found)
        };
        for (info_hash, path) in self.keeping.store.read(read).await? {
            let path = PathBuf::from(OsString::from_vec(path));
            self.moves.waiting.push_back((info_hash, path));
        }
        self.next_move().await;
        Ok(())
    }

    /// Begins those moves whose turn it is.
    pub(crate) async fn next_move(&mut self) {
        while self.moves.running.len() < MOVES_MAX {
            let Some((info_hash, path)) = self.moves.waiting.pop_front() else {
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
                self.moves.waiting.push_back((info_hash, path));
                return;
            }
            self.begin_move(info_hash, path, served);
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

    fn begin_move(&mut self, info_hash: InfoHashV1, to: PathBuf, served: bool) {
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
                    let _ = inner.blocking_send(Inner::Moved(info_hash, ended));
                    return;
                }
            };
            let work = Work {
                info_hash,
                kept,
                to,
                suffix,
                moving,
                services,
                inner,
            };
            let ended = work.open().and_then(|(from, to)| work.run(&from, &to));
            let event = Inner::Moved(info_hash, MoveEvent::Ended(ended));
            let _ = work.inner.blocking_send(event);
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
                let update = Update::new().all_stamps(place.stamps.clone());
                self.keeping.note(info_hash, update).await;
                self.set_place(info_hash, *place);
            }
            MoveEvent::Ended(result) => self.move_ended(info_hash, result).await,
        }
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
        let write = Write::Setting(format!("{INTENT}{info_hash}"), None);
        let after = |_: &mut Manager, _| crate::keeping::Next::Done;
        self.keeping.write(write, Box::new(after)).await;
        let status = {
            let catalog = self.seat.catalog();
            catalog.get(&info_hash).map(|torrent| torrent.live.status)
        };
        match moving.is_some_and(|moving| moving.served) {
            // Whoever paused it meanwhile, or found a fault, has said so.
            true if status == Some(Status::Moving) => self.set_status(info_hash, Status::Seeding),
            true => {}
            false => self.start(info_hash).await,
        }
        let inner = self.inner.clone();
        tokio::spawn(async move {
            tokio::time::sleep(OLD_NAMES).await;
            let _ = inner.send(Inner::Strict(info_hash)).await;
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
        let from = &self.kept.summary.save_path;
        let old = Beneath::open(from).map_err(|error| format!("{from:?}: {error}"))?;
        std::fs::create_dir_all(&self.to).map_err(|error| format!("{:?}: {error}", self.to))?;
        let new = Beneath::open(&self.to).map_err(|error| format!("{:?}: {error}", self.to))?;
        Ok((old, new))
    }

    fn run(&self, from: &Beneath, to: &Beneath) -> Result<(), String> {
        let items = self.items(from)?;
        let mut made = Vec::new();
        match self.bring(from, to, &items, &mut made) {
            Ok(Some(true)) => {}
            Ok(Some(false)) => {
                self.clear(to, made.iter().map(PathBuf::as_path));
                return Err("it was removed".to_owned());
            }
            Ok(None) => {
                return Err("whether that is kept is not known: its files are in both \
                folders"
                    .to_owned());
            }
            Err(why) => {
                // What was made here is nobody's.
                self.clear(to, made.iter().map(PathBuf::as_path));
                return Err(why);
            }
        }
        self.clear(from, items.iter().map(|item| item.old.as_path()));
        let stamps = self.stamps(to, &items)?;
        self.tell(MoveEvent::Settled(Box::new(self.place(stamps))));
        Ok(())
    }

    /// The files that are there.
    fn items(&self, from: &Beneath) -> Result<Vec<Item>, String> {
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
            let found = names.into_iter().find(|name| from.read(name).is_ok());
            match found {
                Some(path) => items.push(Item {
                    index,
                    new: path.clone(),
                    old: path,
                }),
                // Of a torrent that is complete all have to be there.
                None if self.moving.served => {
                    return Err(format!("file {index} cannot be read"));
                }
                None => {}
            }
        }
        Ok(items)
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
            true => self.stamps(to, items)?,
            false => self.hashed(to, items)?,
        };
        // The time of change of the old files moves when they are taken away.
        self.renaming()?;
        let (done, kept) = oneshot::channel();
        let place = Box::new(self.place(stamps));
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
        let mut passing = OsString::from(&item.new);
        passing.push(COPY_SUFFIX);
        let passing = PathBuf::from(passing);
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
    fn hashed(&self, to: &Beneath, items: &[Item]) -> Result<Vec<Option<FileStamp>>, String> {
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
        let due = self.kept.verified.count(self.kept.summary.pieces);
        match looked.pieces.len() >= due {
            true => self.stamps(to, items),
            false => Err(format!(
                "of {due} pieces {} arrived whole: the disk of one of the folders is not to be \
                 trusted",
                looked.pieces.len()
            )),
        }
    }

    fn stamps(&self, to: &Beneath, items: &[Item]) -> Result<Vec<Option<FileStamp>>, String> {
        let mut stamps = vec![None; self.kept.summary.files as usize];
        for item in items {
            let found = to.read(&item.new).and_then(|file| file.metadata());
            let found = found.map_err(|error| format!("{:?}: {error}", item.new))?;
            if let Some(place) = stamps.get_mut(item.index as usize) {
                *place = Some(stamp_of(&found));
            }
        }
        Ok(stamps)
    }

    fn place(&self, stamps: Vec<Option<FileStamp>>) -> Place {
        Place {
            data_dir: self.to.clone(),
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
        let _ = self
            .inner
            .blocking_send(Inner::Moved(self.info_hash, event));
    }
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
