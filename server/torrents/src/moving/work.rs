//! The files of a move, brought from one folder to another: on a thread for blocking work, which
//! tells the manager how far it is and waits for it where the torrent goes on from the new folder.

use super::{MoveEvent, Moving};
use crate::beneath::Beneath;
use crate::manager::Inner;
use crate::reading::Kept;
use control::hashing::stamp_of;
use control::resume::Resume;
use control::verify::PieceSet;
use engine::layout::FileStamp;
use proto::ids::{InfoHashV1, PieceIndex};
use seedring_io::torrent::Place;
use state::Verified;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, Read, Seek, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::oneshot;

/// How much is copied at once, in bytes.
const COPY_BYTES: usize = 1 << 20;

/// What is appended to the name of a file that is being copied.
const COPY_SUFFIX: &str = ".moving";

/// What is to be done with one file.
struct Item {
    index: u32,
    old: PathBuf,
    new: PathBuf,
}

/// The work of a move, beside the manager.
pub(super) struct Work {
    pub(super) info_hash: InfoHashV1,
    pub(super) kept: Kept,
    pub(super) from: PathBuf,
    pub(super) to: PathBuf,
    pub(super) suffix: String,
    pub(super) moving: Arc<Moving>,
    pub(super) services: Arc<crate::Services>,
    pub(super) inner: tokio::sync::mpsc::UnboundedSender<Inner>,
}

impl Work {
    /// The folders that files come from and go to.
    pub(super) fn open(&self) -> Result<(Beneath, Beneath), String> {
        let from = &self.from;
        let old = Beneath::open(from).map_err(|error| format!("{from:?}: {error}"))?;
        std::fs::create_dir_all(&self.to).map_err(|error| format!("{:?}: {error}", self.to))?;
        let new = Beneath::open(&self.to).map_err(|error| format!("{:?}: {error}", self.to))?;
        Ok((old, new))
    }

    pub(super) fn run(&self, from: &Beneath, to: &Beneath) -> Result<(), String> {
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
pub(super) fn is_as_before(found: Option<FileStamp>, known: Option<FileStamp>) -> bool {
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
