//! The files of a move, brought from one folder to another: on a thread for blocking work, which
//! tells the manager how far it is and waits for it where the torrent goes on from the new folder.

use super::naming::Made;
use super::taken::{self, Names};
use super::way::Phase;
use super::{MoveEvent, Moving, Why, apart};
use crate::beneath::Beneath;
use crate::manager::Inner;
use crate::reading::Kept;
use crate::sharing::{Remaining, Sharing, SharingError};
use control::hashing::stamp_of;
use engine::layout::FileStamp;
use proto::ids::InfoHashV1;
use proto::metainfo::Metainfo;
use rustix::io::Errno;
use seedring_io::torrent::Place;
use state::{Condition, Handle};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Why a file is not written over.
pub(super) fn another(path: &Path) -> Why {
    let why = "another file is there; if it is the torrent's, move with `data_are_there`";
    Why::Final(format!("{path:?}: {why}"))
}

/// The same of a file that came after copying had begun: it may go again, and the copies are good.
pub(super) fn come_since(path: &Path) -> Why {
    let why = "another file is there since this move began, and stays: the move waits until it is \
        elsewhere, or until the move is given up";
    Why::Passing(format!("{path:?}: {why}"))
}

/// What is to be done with one file.
pub(crate) struct Item {
    pub(crate) index: u32,
    pub(crate) old: PathBuf,
    pub(crate) new: PathBuf,
}

/// The work of a move, beside the manager.
pub(crate) struct Work {
    pub(crate) info_hash: InfoHashV1,
    pub(crate) kept: Kept,
    pub(crate) from: PathBuf,
    pub(crate) to: PathBuf,
    /// How far an earlier run has come.
    pub(crate) phase: Phase,
    pub(crate) store: Handle,
    pub(crate) suffix: String,
    pub(crate) moving: Arc<Moving>,
    pub(crate) services: Arc<crate::Services>,
    pub(crate) sharing: Arc<Sharing>,
    pub(crate) inner: tokio::sync::mpsc::UnboundedSender<Inner>,
}

impl Work {
    /// The folders that files come from and go to. The new one is made before anything else is, and
    /// not again: it would be where the disk should be that it is on.
    fn open(&self) -> Result<(Beneath, Beneath), Why> {
        let open = |path: &Path| Beneath::open(path).map_err(|error| Why::of(path, error));
        let from = open(&self.from)?;
        if !self.phase.needs_target() {
            let made = std::fs::create_dir_all(&self.to);
            made.map_err(|error| Why::of(&self.to, error))?;
        }
        let to = open(&self.to)?;
        if self.phase == Phase::Copying {
            self.check_mark(&to)?;
        }
        Ok((from, to))
    }

    /// Moves the files, or ends what an earlier run has begun.
    pub(super) fn run(&self) -> Result<(), Why> {
        if self.phase == Phase::Switched {
            return self.resume().map_err(|why| self.left_over(why));
        }
        let not_moved = |why: Why| why.map(|why| format!("not moved: {why}"));
        if self.kept.summary.save_path != self.from {
            let why = "its data were said to be elsewhere since".to_owned();
            return Err(not_moved(Why::Final(why)));
        }
        let (from, to) = self.open().map_err(not_moved)?;
        let items = self.items(&from).map_err(not_moved)?;
        apart::check(self, &from, &to, &items).map_err(not_moved)?;
        taken::check(self, &from, &to, &items).map_err(not_moved)?;
        let mut made = Made::default();
        let why = match self.bring(&from, &to, &items, &mut made) {
            Ok(Some(true)) => {
                let finished = self.finish(&from, &to);
                return finished.map_err(|why| self.left_over(why));
            }
            Ok(Some(false)) => Why::GivenUp,
            Ok(None) => {
                let why = "whether that is kept is not known: its files are in both folders";
                return Err(not_moved(Why::Passing(why.into())));
            }
            Err(why) => why,
        };
        self.unname(&to, &mut made);
        if self.moving.is_stopping() {
            // It is gone on with by what is there.
            return Err(not_moved(why));
        }
        // Second names that were made here are nobody's, and copies are if nobody wants them.
        self.unlink_made(&from, &to, &mut made);
        if why == Why::GivenUp
            && self.moving.is_copying()
            && let Err(why) = self.take_back()
        {
            tracing::warn!(torrent = %self.info_hash, %why, "copies of a move that was given up \
                are left");
        }
        // Names that came and went have moved the time of change of the files.
        if let Ok(stamps) = self.as_kept(&from, &items) {
            let place = self.place(self.from.clone(), stamps);
            self.tell(MoveEvent::Settled(Box::new(place)));
        }
        Err(not_moved(why))
    }

    /// Takes the old files away that an earlier run, which had the torrent go on from the new
    /// folder, has left.
    fn resume(&self) -> Result<(), Why> {
        if self.kept.summary.save_path != self.to {
            let why = "its data were said to be elsewhere since".to_owned();
            return Err(Why::Final(why));
        }
        if self.kept.summary.condition != Condition::Ready {
            return Err(Why::Passing("its data are to be checked first".into()));
        }
        let (from, to) = self.open()?;
        // The time of change of second names moves when the first are taken away.
        self.renaming()?;
        apart::restore(self, &from, &self.items(&to)?);
        self.finish(&from, &to)
    }

    /// What is told when the torrent is in the new folder and files are in the old one, too.
    fn left_over(&self, why: Why) -> Why {
        let (from, to) = (&self.from, &self.to);
        why.map(|why| format!("moved to {to:?}, but its old files in {from:?} stay there: {why}"))
    }

    /// What its metainfo say.
    pub(super) fn described(&self) -> Result<&Arc<Metainfo>, Why> {
        let described = self.kept.described();
        described.map_err(|error| Why::Final(error.to_string()))
    }

    /// The files that are there.
    pub(crate) fn items(&self, folder: &Beneath) -> Result<Vec<Item>, Why> {
        let metainfo = self.described()?;
        let mut items = Vec::new();
        for Names { index, both } in taken::names(self, metainfo) {
            let found = both.into_iter().find(|name| folder.read(name).is_ok());
            match found {
                Some(path) => items.push(Item {
                    index,
                    new: path.clone(),
                    old: path,
                }),
                // What was verified has to be there; the rest may be still to come.
                None if self.moving.is_served() || self.known(index).is_some() => {
                    let why = format!("file {index} is missing, or cannot be read");
                    return Err(Why::Passing(why));
                }
                None => {}
            }
        }
        Ok(items)
    }

    /// The torrent is in the new folder: takes the old files away, each only if the new one is what
    /// was verified, and another.
    fn finish(&self, from: &Beneath, to: &Beneath) -> Result<(), Why> {
        self.unmark(to);
        let items = self.items(to)?;
        let found = self.found(to, &items)?;
        let is_whole = |item: &Item| {
            let at = |stamps: &[Option<FileStamp>]| stamps.get(item.index as usize).copied();
            let is_known = match self.phase {
                // What has changed since an earlier run is not what was verified then.
                Phase::Switched => is_as_before(at(&found)?, at(&self.kept.stamps)?),
                _ => true,
            };
            let length = |folder: &Beneath, path: &Path| {
                let found = folder.read(path).and_then(|file| file.metadata());
                found.ok().map(|found| found.len())
            };
            let new = length(to, &item.new);
            let is_same = is_same(from, &item.old, to, &item.new);
            Some(is_same || is_known && new.is_some() && length(from, &item.old) == new)
        };
        let whole = items.iter().filter(|item| is_whole(item) == Some(true));
        let (taken, mut result) = self.take_all_old(from, to, &whole.collect::<Vec<_>>());
        // A loss of power must not bring them back when the move is known to have ended: another move
        // to where they were would be refused for them.
        let mut synced = BTreeSet::new();
        for path in &taken {
            if synced.insert(path.parent()) {
                let gone = from.sync_above(path);
                result = result.and(gone.map_err(|error| Why::of(path, error)));
            }
        }
        self.clear_folders(from, taken.into_iter());
        let mut stamps = self.found(to, &items)?;
        if self.phase == Phase::Switched {
            // What has changed since is hashed.
            for (found, known) in stamps.iter_mut().zip(&self.kept.stamps) {
                if !is_as_before(*found, *known) {
                    *found = None;
                }
            }
        }
        let place = self.place(self.to.clone(), stamps);
        self.tell(MoveEvent::Settled(Box::new(place)));
        result
    }

    /// Takes old files away but for those that another torrent names: these stay for it, as second
    /// names or as what was copied. Those that are gone, and what has kept others.
    fn take_all_old<'i>(
        &self,
        from: &Beneath,
        to: &Beneath,
        items: &[&'i Item],
    ) -> (Vec<&'i Path>, Result<(), Why>) {
        let (mut taken, mut left) = (Vec::new(), Vec::new());
        let unknown = |error: SharingError| {
            let why = format!("which of them other torrents have is not known: {error}");
            Why::Passing(why)
        };
        let mut take_all = || {
            if items.is_empty() {
                return Ok(());
            }
            let files: Vec<_> = items.iter().map(|item| item.old.clone()).collect();
            let own = (self.from.as_path(), files.as_slice());
            let remaining = Remaining::look(&self.sharing, self.info_hash, own, &self.suffix);
            let mut remaining = remaining.map_err(unknown)?;
            for item in items {
                if self.moving.leaves_old() {
                    return Err(Why::GivenUp);
                }
                if !remaining.may_go(&item.old).map_err(unknown)? {
                    left.push(remaining.shared.get(&item.old).copied());
                } else if apart::take_old(self, from, to, item)? {
                    taken.push(item.old.as_path());
                }
            }
            Ok(())
        };
        let result = take_all();
        if let Some(Some(other)) = left.first() {
            let (files, folder) = (left.len(), &self.from);
            tracing::info!(torrent = %self.info_hash, files, ?folder, of = %other,
                "old files of a torrent that was moved stay: another torrent has them, too");
        }
        (taken, result)
    }

    /// Has all files be in the new folder, and the torrent go on from there. Whether it does;
    /// nothing if nobody says.
    fn bring(
        &self,
        from: &Beneath,
        to: &Beneath,
        items: &[Item],
        made: &mut Made,
    ) -> Result<Option<bool>, Why> {
        let linked = !self.moving.is_copying() && self.link_all(from, to, items, made)?;
        let named = match linked {
            true => None,
            false => {
                let copies = self.copy_all(from, to, items)?;
                let hashed = self.hashed(from, to, &copies)?;
                Some(self.name_all(to, items, &copies, &hashed, made)?)
            }
        };
        for item in items {
            self.go_on()?;
            let synced = to.sync_above(&item.new);
            synced.map_err(|error| Why::of(&self.to.join(&item.new), error))?;
        }
        let stamps = match named {
            Some(stamps) => stamps,
            None => self.as_kept(to, items)?,
        };
        // The time of change of the old files moves when they are taken away.
        self.renaming()?;
        let (done, kept) = oneshot::channel();
        let place = Box::new(self.place(self.to.clone(), stamps));
        self.tell(MoveEvent::There(place, done));
        Ok(kept.blocking_recv().ok())
    }

    /// Refuses to go on with a move that was given up.
    pub(super) fn go_on(&self) -> Result<(), Why> {
        match self.moving.is_cancelled() {
            true => Err(Why::GivenUp),
            false => Ok(()),
        }
    }

    pub(crate) fn renaming(&self) -> Result<(), Why> {
        let (done, told) = oneshot::channel();
        self.tell(MoveEvent::Renaming(done));
        let told = told.blocking_recv();
        told.map_err(|_| Why::Passing("the server is stopping".to_owned()))
    }

    /// Gives all files their new names beside the old ones. False if they are on another file
    /// system, or on one without hard links: nothing is made then.
    fn link_all(
        &self,
        from: &Beneath,
        to: &Beneath,
        items: &[Item],
        made: &mut Made,
    ) -> Result<bool, Why> {
        self.renaming()?;
        for item in items {
            self.go_on()?;
            match from.link(&item.old, to, &item.new) {
                Ok(()) => made.links.push((item.old.clone(), item.new.clone())),
                // An earlier run has come so far.
                Err(Errno::EXIST) if is_same(from, &item.old, to, &item.new) => {}
                // That comes before the kernel looks at file systems.
                Err(Errno::EXIST) if !is_one_device(from, &item.old, to, &item.new) => {
                    self.unlink_made(from, to, made);
                    return Ok(false);
                }
                Err(Errno::XDEV | Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => {
                    self.unlink_made(from, to, made);
                    return Ok(false);
                }
                Err(Errno::EXIST) => return Err(another(&self.to.join(&item.new))),
                Err(error) => return Err(Why::of(&self.to.join(&item.new), error)),
            }
        }
        Ok(true)
    }

    /// The stamp that a file had when it was verified.
    pub(crate) fn known(&self, index: u32) -> Option<FileStamp> {
        self.kept.stamps.get(index as usize).copied().flatten()
    }

    /// The stamps that the files have now, if they are those that were verified but for the time of
    /// change, which our own names move.
    pub(crate) fn as_kept(
        &self,
        folder: &Beneath,
        items: &[Item],
    ) -> Result<Vec<Option<FileStamp>>, Why> {
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
            false => {
                let why = "a file has changed since it was verified; check it first";
                Err(Why::Final(why.to_owned()))
            }
        }
    }

    /// The stamps of those files that have been verified, as they are now.
    pub(crate) fn found(
        &self,
        folder: &Beneath,
        items: &[Item],
    ) -> Result<Vec<Option<FileStamp>>, Why> {
        let mut stamps = vec![None; self.kept.summary.files as usize];
        for item in items.iter().filter(|item| self.known(item.index).is_some()) {
            let found = folder.read(&item.new).and_then(|file| file.metadata());
            let found = found.map_err(|error| Why::of(&item.new, error))?;
            if let Some(place) = stamps.get_mut(item.index as usize) {
                *place = Some(stamp_of(&found));
            }
        }
        Ok(stamps)
    }

    pub(crate) fn place(&self, data_dir: PathBuf, stamps: Vec<Option<FileStamp>>) -> Place {
        Place {
            data_dir,
            stamps,
            paths: self.kept.details.renames.clone(),
        }
    }

    /// Takes files away, and those of their folders that are empty then.
    pub(crate) fn clear<'a>(
        &self,
        folder: &Beneath,
        paths: impl Iterator<Item = &'a Path> + Clone,
    ) {
        for path in paths.clone() {
            if let Err(error) = folder.unlink(path) {
                tracing::warn!(torrent = %self.info_hash, ?path, %error, "cannot be taken away");
            }
        }
        self.clear_folders(folder, paths);
    }

    /// Takes those folders of files away that are empty.
    pub(super) fn clear_folders<'a>(
        &self,
        folder: &Beneath,
        paths: impl Iterator<Item = &'a Path>,
    ) {
        let above = paths.flat_map(|path| path.ancestors().skip(1));
        let folders: BTreeSet<_> = above.filter(|path| !path.as_os_str().is_empty()).collect();
        for path in folders.iter().rev() {
            let _ = folder.remove_folder(path);
        }
    }

    pub(crate) fn tell(&self, event: MoveEvent) {
        let _ = self
            .inner
            .send(Inner::Moved(self.info_hash, self.moving.number, event));
    }
}

/// Whether a file is what it was, but for the time of change, which our own names move.
pub(crate) fn is_as_before(found: Option<FileStamp>, known: Option<FileStamp>) -> bool {
    let (Some(found), Some(known)) = (found, known) else {
        return false;
    };
    let ctime_ns = known.ctime_ns;
    FileStamp { ctime_ns, ..found } == known
}

/// Whether two names are of one file, which has more than one.
pub(crate) fn is_same(from: &Beneath, old: &Path, to: &Beneath, new: &Path) -> bool {
    let found = |folder: &Beneath, path: &Path| {
        let metadata = folder.read(path).and_then(|file| file.metadata()).ok()?;
        let stamp = stamp_of(&metadata);
        (metadata.nlink() > 1).then_some((stamp.device, stamp.inode))
    };
    let old = found(from, old);
    old.is_some() && old == found(to, new)
}

/// Whether two files would be on one file system.
fn is_one_device(from: &Beneath, old: &Path, to: &Beneath, new: &Path) -> bool {
    let device = |folder: &Beneath, path: &Path| folder.folder_of(path).map(|(device, _)| device);
    device(from, old) == device(to, new)
}
