//! The files of one download: opened and made, written to, read back, synced, renamed; all through the shard's ring,
//! so that no disk holds up the shard.
//!
//! A file is made below the data directory and nowhere else, with the directories on its way: no component of a path
//! leads out of it, and neither a link nor a device nor a file with other names (hard links) in a file's place is
//! written to.
//!
//! Limits: [`FILES_OPEN_MAX`] files open at a time, the one used longest ago is closed.
//!
//! Not here: when something is written or tried again.

use crate::fetch::Allocation;
use crate::fetch::memory::{Sealed, Segment};
use crate::files::{self, OpenFile};
use crate::ring;
use crate::torrent::{Fault, FaultCause, SeededTorrent};
use engine::layout::{FileIndex, FileStamp};
use lru::LruCache;
use proto::ids::PieceIndex;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

/// Files of one download that are open for writing.
const FILES_OPEN_MAX: NonZeroUsize = NonZeroUsize::new(32).unwrap();

/// Tries at an open that a concurrent rename disturbed.
const OPEN_TRIES_MAX: usize = 8;

/// Why something could not be done with a file.
#[derive(Debug)]
pub(crate) enum DiskError {
    /// It may go better later: the disk is full, failing, read-only or away.
    Passing(String),
    /// The file is not ours to write to.
    Lasting(Fault),
}

/// See the module.
pub(crate) struct Disk {
    torrent: Arc<SeededTorrent>,
    allocation: Allocation,
    /// What files were that held verified pieces at the start.
    stamps: Vec<Option<FileStamp>>,
    open: RefCell<LruCache<FileIndex, Rc<OpenFile>>>,
    /// Files that were written to since they were last synced.
    dirty: RefCell<BTreeSet<FileIndex>>,
    /// Files of which only what shares a piece with others is fetched.
    unwanted: RefCell<BTreeSet<FileIndex>>,
}

impl Disk {
    /// The files of `torrent`.
    pub(crate) fn new(
        torrent: Arc<SeededTorrent>,
        allocation: Allocation,
        stamps: Vec<Option<FileStamp>>,
    ) -> Disk {
        Disk {
            torrent,
            allocation,
            stamps,
            open: RefCell::new(LruCache::new(FILES_OPEN_MAX)),
            dirty: RefCell::default(),
            unwanted: RefCell::default(),
        }
    }

    /// Says which files are not wanted: they take no space but for what of them shares a piece with others.
    pub(crate) fn set_unwanted(&self, unwanted: BTreeSet<FileIndex>) {
        *self.unwanted.borrow_mut() = unwanted;
    }

    /// Whether a file is wanted.
    pub(crate) fn is_wanted(&self, index: FileIndex) -> bool {
        !self.unwanted.borrow().contains(&index)
    }

    /// Writes `length` bytes from `start` of `memory` to the files that they belong to, which is at `begin` of `piece`.
    /// Returns how many writes that took.
    pub(crate) async fn write(
        &self,
        piece: PieceIndex,
        begin: u32,
        memory: &Arc<Sealed>,
        start: usize,
        length: usize,
    ) -> Result<u64, DiskError> {
        let mut at = start;
        let mut writes = 0;
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        for range in self.torrent.layout().block_ranges(piece, begin, length) {
            let Some(index) = range.file else {
                at += range.length as usize;
                continue;
            };
            let file = self.open(index).await?;
            let end = at + range.length as usize;
            let mut offset = range.offset;
            while at < end {
                let written =
                    ring::write_at(Rc::clone(&file), Arc::clone(memory), at, end - at, offset);
                match written.await {
                    Ok(0) => {
                        return Err(self.error(index, &io::ErrorKind::WriteZero.into()));
                    }
                    Ok(count) => {
                        writes += 1;
                        at += count;
                        offset += count as u64;
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(self.error(index, &error)),
                }
            }
            // Now, not before: a sync that is under way may have begun before these bytes were there.
            self.dirty.borrow_mut().insert(index);
        }
        Ok(writes)
    }

    /// Reads `length` bytes from `begin` of `piece` to `start` of `segment`.
    pub(crate) async fn read(
        &self,
        piece: PieceIndex,
        begin: u32,
        mut segment: Segment,
        start: usize,
        length: usize,
    ) -> Result<Segment, DiskError> {
        let mut at = start;
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        for range in self.torrent.layout().block_ranges(piece, begin, length) {
            let end = at + range.length as usize;
            let Some(index) = range.file else {
                // What peers sent for padding was not kept; only zeros can have been right.
                segment.put(at, &vec![0; range.length as usize]);
                at = end;
                continue;
            };
            let file = self.open(index).await?;
            let mut offset = range.offset;
            while at < end {
                let result;
                let file = Rc::clone(&file);
                (result, segment) =
                    ring::read_into_segment(file, segment, at, end - at, offset).await;
                match result {
                    Ok(0) => {
                        return Err(self.error(index, &io::ErrorKind::UnexpectedEof.into()));
                    }
                    Ok(count) => {
                        at += count;
                        offset += count as u64;
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(self.error(index, &error)),
                }
            }
        }
        Ok(segment)
    }

    /// Takes the files that were written to since the last time.
    pub(crate) fn take_dirty(&self) -> BTreeSet<FileIndex> {
        std::mem::take(&mut self.dirty.borrow_mut())
    }

    /// Takes them back: they could not be synced.
    pub(crate) fn put_back_dirty(&self, files: &BTreeSet<FileIndex>) {
        self.dirty.borrow_mut().extend(files);
    }

    /// Forces what was written to `files` to the disk, and returns what they are now.
    pub(crate) async fn sync(
        &self,
        files: &BTreeSet<FileIndex>,
    ) -> Result<Vec<(FileIndex, FileStamp)>, DiskError> {
        let mut stamps = Vec::with_capacity(files.len());
        for &index in files {
            let file = self.open(index).await?;
            let synced = ring::sync_data(Rc::clone(&file)).await;
            #[cfg(test)]
            let synced = synced.and_then(|()| self.injected_fault());
            synced.map_err(|error| self.error(index, &error))?;
            stamps.push((index, self.stamp(index, &file)?));
        }
        Ok(stamps)
    }

    /// The error that a test wants of each sync while there is a file of this name beside the torrent's.
    #[cfg(test)]
    fn injected_fault(&self) -> io::Result<()> {
        match self.torrent.data_dir().join("syncs fail").exists() {
            true => Err(io::Error::from_raw_os_error(libc::EIO)),
            false => Ok(()),
        }
    }

    /// Makes the empty files, and gives each file of `files` its own name. Returns what each is then.
    pub(crate) async fn finish(
        &self,
        files: &BTreeSet<FileIndex>,
    ) -> Result<Vec<(FileIndex, FileStamp)>, DiskError> {
        let mut stamps = Vec::with_capacity(files.len());
        let mut directories = BTreeMap::new();
        for &index in files {
            let file = self.open(index).await?;
            if let Some((suffixed, own)) = self.torrent.suffixed_paths(index) {
                self.rename(index, &suffixed, &own).await?;
                self.torrent.set_renamed(index);
                directories.insert(directory_of(&own).to_vec(), (index, own));
            }
            stamps.push((index, self.stamp(index, &file)?));
        }
        for (index, path) in directories.into_values() {
            self.sync_directory(index, &path).await?;
        }
        Ok(stamps)
    }

    /// Forces to the disk which names there are beside `path`.
    async fn sync_directory(&self, index: FileIndex, path: &CString) -> Result<(), DiskError> {
        let error = |error| self.error(index, &error);
        let (data_dir, _) = self.torrent.paths_for_kernel(index);
        let root = Rc::new(ring::open_directory(data_dir).await.map_err(error)?);
        let directory = parent_of(&root, path, false).await.map_err(error)?;
        match ring::sync_directory(directory).await {
            // Of directories some file systems know no sync.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            other => other.map_err(error),
        }
    }

    /// Closes all files.
    pub(crate) fn close(&self) {
        self.open.borrow_mut().clear();
    }

    /// What `file` is now.
    fn stamp(&self, index: FileIndex, file: &Rc<OpenFile>) -> Result<FileStamp, DiskError> {
        let found = files::stat(file).map_err(|error| self.error(index, &error))?;
        let Some((stamp, links)) = found else {
            return Err(self.lasting(index, FaultCause::NotRegular));
        };
        match links {
            0 => Err(self.lasting(index, FaultCause::Missing)),
            _ => Ok(stamp),
        }
    }

    /// The open file.
    async fn open(&self, index: FileIndex) -> Result<Rc<OpenFile>, DiskError> {
        if let Some(file) = self.open.borrow_mut().get(&index) {
            return Ok(Rc::clone(file));
        }
        let file = Rc::new(self.open_anew(index).await?);
        self.open.borrow_mut().put(index, Rc::clone(&file));
        Ok(file)
    }

    async fn open_anew(&self, index: FileIndex) -> Result<OpenFile, DiskError> {
        let (data_dir, path) = self.torrent.paths_for_kernel(index);
        let error = |error| self.error(index, &error);
        let root = Rc::new(ring::open_directory(data_dir).await.map_err(error)?);
        let descriptor = match open_retrying(&root, &path).await {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                parent_of(&root, &path, true)
                    .await
                    .map_err(|error| self.error(index, &error))?;
                open_retrying(&root, &path).await
            }
            other => other,
        };
        let file = OpenFile::new(descriptor.map_err(error)?);
        let found = files::stat(&file).map_err(error)?;
        let Some((stamp, links)) = found else {
            return Err(self.lasting(index, FaultCause::NotRegular));
        };
        if links > 1 {
            return Err(self.lasting(index, FaultCause::OtherNames));
        }
        if let Some(Some(before)) = self.stamps.get(index.0 as usize) {
            let is_it = (before.device, before.inode) == (stamp.device, stamp.inode);
            // One that was longer than it should be may have been cut since.
            let due = self.torrent.layout().file_length(index);
            if !is_it || stamp.size < before.size.min(due) {
                return Err(self.lasting(index, FaultCause::Changed));
            }
        }
        files::clear_nonblocking(&file).map_err(error)?;
        self.fit(index, file, stamp.size).await
    }

    /// Gives a file that was just opened its length, as far as that is to be done at once.
    async fn fit(
        &self,
        index: FileIndex,
        file: OpenFile,
        size: u64,
    ) -> Result<OpenFile, DiskError> {
        let due = self.torrent.layout().file_length(index);
        let error = |error| self.error(index, &error);
        if size > due {
            files::truncate(&file, due).map_err(error)?;
        }
        if self.allocation == Allocation::Sparse || !self.is_wanted(index) || size >= due {
            return Ok(file);
        }
        let file = Rc::new(file);
        match ring::allocate(Rc::clone(&file), due).await {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
            other => other.map_err(error)?,
        }
        Rc::try_unwrap(file).map_err(|_| error(io::Error::other("the file is still in use")))
    }

    /// Gives a file its own name, in the directory where it is.
    async fn rename(
        &self,
        index: FileIndex,
        from: &CString,
        to: &CString,
    ) -> Result<(), DiskError> {
        let error = |error| self.error(index, &error);
        let (data_dir, _) = self.torrent.paths_for_kernel(index);
        let root = Rc::new(ring::open_directory(data_dir).await.map_err(error)?);
        let directory = parent_of(&root, from, false).await.map_err(error)?;
        let name = |path: &CString| last_component(path);
        let renamed = ring::rename_in(directory, name(from), name(to)).await;
        renamed.map_err(error)
    }

    /// The error behind a failed operation on a file.
    fn error(&self, index: FileIndex, error: &io::Error) -> DiskError {
        match error.raw_os_error() {
            Some(libc::EXDEV) => self.lasting(index, FaultCause::Escapes),
            Some(libc::ELOOP | libc::ENXIO | libc::EISDIR | libc::ENOTDIR) => {
                self.lasting(index, FaultCause::NotRegular)
            }
            Some(libc::EEXIST) => self.lasting(index, FaultCause::Taken),
            _ => {
                let fault = self.torrent.fault(index, FaultCause::Io(String::new()));
                DiskError::Passing(format!("{}: {error}", fault.file.display()))
            }
        }
    }

    fn lasting(&self, index: FileIndex, cause: FaultCause) -> DiskError {
        DiskError::Lasting(self.torrent.fault(index, cause))
    }
}

async fn open_retrying(root: &Rc<OwnedFd>, path: &CString) -> io::Result<OwnedFd> {
    let mut tries = 0;
    loop {
        tries += 1;
        match ring::open_for_writing(Rc::clone(root), path.clone()).await {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && tries < OPEN_TRIES_MAX => {}
            other => return other,
        }
    }
}

/// The directory that `path` is in, below `root`; made with those above it if it is not there and `make` says so.
/// Each is opened from `root`, as the file will be: a link to elsewhere below `root` leads out of the folder that it
/// is in, and is none the worse for that.
async fn parent_of(root: &Rc<OwnedFd>, path: &CString, make: bool) -> io::Result<Rc<OwnedFd>> {
    let mut parent = Rc::clone(root);
    let path = path.as_bytes();
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    for (end, _) in slashes {
        let directory = CString::new(path.get(..end).unwrap_or_default())?;
        let opened = ring::open_directory_beneath(Rc::clone(root), directory.clone()).await;
        let opened = match opened {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) && make => {
                let name = last_component(&directory);
                match ring::make_directory(Rc::clone(&parent), name).await {
                    Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
                    other => other?,
                }
                ring::open_directory_beneath(Rc::clone(root), directory).await?
            }
            other => other?,
        };
        parent = Rc::new(opened);
    }
    Ok(parent)
}

/// The path of the directory that `path` is in.
fn directory_of(path: &CString) -> &[u8] {
    let bytes = path.as_bytes();
    let end = bytes.iter().rposition(|&byte| byte == b'/');
    bytes.get(..end.unwrap_or(0)).unwrap_or_default()
}

fn last_component(path: &CString) -> CString {
    let name = path.as_bytes().rsplit(|&byte| byte == b'/').next();
    CString::new(name.unwrap_or_default()).unwrap_or_default()
}
