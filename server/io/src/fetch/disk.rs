//! The files of one download: opened and made, written to, read back, synced, renamed; all through
//! the shard's ring, so that no disk holds up the shard.
//!
//! A file is made below the data directory and nowhere else, with the directories on its way: no
//! component of a path leads out of it, and neither a link nor a device nor a file with other names
//! (hard links) in a file's place is written to. A file that was opened once is never made again:
//! one that has gone since, or is another one, ends the download.
//!
//! A file that was written to stays open until it is synced: of one that was closed, the kernel may
//! have forgotten that it could not write its pages. A sync that fails is told once and leaves
//! those pages clean, so it puts all in doubt that was written since the last good one
//! ([`Disk::doubts`]).
//!
//! A file that is open for writing is locked. One that is whole, and has its length, is not opened
//! for writing: whoever may only read complete data has no less of them.
//!
//! Limits: [`FILES_OPEN_MAX`] files open at a time, those in use among them; each twice where they
//! are written past the page cache. The one used longest ago is closed for another; where all wait
//! to be synced, half of them are, and whoever wants another file waits.
//!
//! Not here: when something is written or tried again.

use crate::fetch::memory::{self, Sealed, Segment};
use crate::fetch::{Allocation, PastCache};
use crate::files::{self, OpenFile};
use crate::ring::{self, Found};
use crate::torrent::{FaultCause, SeededTorrent};
use engine::layout::{FileIndex, FileStamp};
use lru::LruCache;
use proto::ids::PieceIndex;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::CString;
use std::io;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{Mutex, Notify, oneshot};

/// Files of one download that are open for writing.
const FILES_OPEN_MAX: usize = 64;

/// Descriptors of one download's files: each is open twice while it is written past the page cache.
pub const DESCRIPTORS_MAX: u64 = 2 * FILES_OPEN_MAX as u64;

/// Tries at an open that a concurrent rename disturbed.
const OPEN_TRIES_MAX: usize = 8;

mod errors;
mod locking;
mod naming;
mod passing;
mod settling;

pub(crate) use errors::DiskError;
use errors::{cause_of_length, is_unsupported};
use passing::Passing;

/// The files that a sync found synced, as they are now.
pub(crate) type Stamps = Vec<(FileIndex, FileStamp)>;

/// See the module.
pub(crate) struct Disk {
    torrent: Arc<SeededTorrent>,
    allocation: Allocation,
    /// What is written past the page cache.
    passing: Passing,
    /// The open files once more, as far as they take such writes.
    direct: RefCell<HashMap<FileIndex, Rc<OpenFile>>>,
    /// What files were that held verified pieces at the start.
    stamps: Vec<Option<FileStamp>>,
    open: RefCell<LruCache<FileIndex, Rc<OpenFile>>>,
    /// Files that are being opened or closed.
    opening: RefCell<HashSet<FileIndex>>,
    /// Files that nobody may use just now.
    held: RefCell<HashSet<FileIndex>>,
    /// Told when a file is no longer in use, held, or open.
    freed: Notify,
    /// Files that were written to since they were last synced; all of them are open.
    dirty: RefCell<BTreeSet<FileIndex>>,
    /// Where what was written to a file ends.
    ends: RefCell<HashMap<FileIndex, u64>>,
    /// When files that were opened before had been made: the inode of one that was deleted is used
    /// again.
    births: RefCell<HashMap<FileIndex, Option<i64>>>,
    /// Directories in which there are new names since they were last synced, relative to the data
    /// directory.
    directories: RefCell<BTreeSet<CString>>,
    /// Files that were synced to be closed, and nobody has heard of it.
    settled: RefCell<BTreeMap<FileIndex, FileStamp>>,
    /// Files of which only what shares a piece with others is fetched.
    unwanted: RefCell<BTreeSet<FileIndex>>,
    syncing: Mutex<()>,
    doubts: Cell<u64>,
}

/// A file that is not closed as long as this is there.
struct InUse<'a> {
    file: Rc<OpenFile>,
    disk: &'a Disk,
}

impl Deref for InUse<'_> {
    type Target = Rc<OpenFile>;

    fn deref(&self) -> &Rc<OpenFile> {
        &self.file
    }
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        // Whoever waits looks later: by then `file` has gone.
        self.disk.freed.notify_waiters();
    }
}

/// A note that a file is being opened or closed, which one task does.
struct Opening<'a> {
    index: FileIndex,
    disk: &'a Disk,
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.disk.opening.borrow_mut().remove(&self.index);
        self.disk.freed.notify_waiters();
    }
}

impl Disk {
    /// The files of `torrent`.
    pub(crate) fn new(
        torrent: Arc<SeededTorrent>,
        allocation: Allocation,
        past_cache: PastCache,
        stamps: Vec<Option<FileStamp>>,
    ) -> Disk {
        for (index, stamp) in (0..).map(FileIndex).zip(&stamps) {
            if let Some(stamp) = stamp {
                torrent.set_identity(index, stamp);
            }
        }
        Disk {
            torrent,
            allocation,
            passing: Passing::new(past_cache),
            direct: RefCell::default(),
            stamps,
            open: RefCell::new(LruCache::unbounded()),
            opening: RefCell::default(),
            held: RefCell::default(),
            freed: Notify::new(),
            dirty: RefCell::default(),
            ends: RefCell::default(),
            births: RefCell::default(),
            directories: RefCell::default(),
            settled: RefCell::default(),
            unwanted: RefCell::default(),
            syncing: Mutex::new(()),
            doubts: Cell::new(0),
        }
    }

    /// Says which files are not wanted: they take no space but for what of them shares a piece with
    /// others.
    pub(crate) fn set_unwanted(&self, unwanted: BTreeSet<FileIndex>) {
        *self.unwanted.borrow_mut() = unwanted;
    }

    /// Whether a file is wanted.
    pub(crate) fn is_wanted(&self, index: FileIndex) -> bool {
        !self.unwanted.borrow().contains(&index)
    }

    /// Writes `length` bytes from `start` of `memory` to the files that they belong to, which is at
    /// `begin` of `piece`. `is_asked`: somebody may ask for them at once. Returns how many writes
    /// that took.
    pub(crate) async fn write(
        &self,
        piece: PieceIndex,
        begin: u32,
        memory: &Arc<Sealed>,
        start: usize,
        length: usize,
        is_asked: bool,
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
                let pages = pages_of(at, offset, end - at);
                let direct = match pages > 0 && self.passing.takes(is_asked) {
                    true => self.direct.borrow().get(&index).map(Rc::clone),
                    false => None,
                };
                let is_direct = direct.is_some();
                let written = match direct {
                    Some(direct) => {
                        self.write_past_cache(direct, memory, at, pages, offset)
                            .await
                    }
                    None => {
                        let (file, memory) = (Rc::clone(&file), Arc::clone(memory));
                        ring::write_at(file, memory, at, end - at, offset).await
                    }
                };
                match written {
                    Err(error) if is_direct && is_unsupported(&error) => {
                        self.write_through_cache(&error);
                    }
                    Ok(0) => {
                        let error = io::ErrorKind::WriteZero.into();
                        return Err(self.error(index, "write to", &error));
                    }
                    Ok(count) => {
                        writes += 1;
                        at += count;
                        offset += count as u64;
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(self.error(index, "write to", &error)),
                }
            }
            // Now, not before: a sync that is under way may have begun before these bytes were
            // there.
            self.dirty.borrow_mut().insert(index);
            let mut ends = self.ends.borrow_mut();
            let known_end = ends.entry(index).or_insert(0);
            *known_end = offset.max(*known_end);
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
                        let error = io::ErrorKind::UnexpectedEof.into();
                        return Err(self.error(index, "read back", &error));
                    }
                    Ok(count) => {
                        at += count;
                        offset += count as u64;
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(self.error(index, "read back", &error)),
                }
            }
        }
        Ok(segment)
    }

    /// Up to `count` files that are not in use, those used longest ago: dirty ones, or such that
    /// can be closed.
    fn idle_files(&self, dirty: bool, count: usize) -> Vec<FileIndex> {
        let (open, marked) = (self.open.borrow(), self.dirty.borrow());
        let is_one = |(index, file): &(&FileIndex, &Rc<OpenFile>)| {
            Rc::strong_count(file) == 1 && marked.contains(index) == dirty
        };
        let idle = open.iter().rev().filter(is_one).map(|(index, _)| *index);
        idle.take(count).collect()
    }

    /// The error that a test wants while there is a file of this name beside the torrent's.
    #[cfg(test)]
    fn injected_fault(&self, name: &str, error: i32) -> io::Result<()> {
        match self.torrent.data_dir().join(name).exists() {
            true => Err(io::Error::from_raw_os_error(error)),
            false => Ok(()),
        }
    }

    /// Waits as long as a test wants it, by a file of this name beside the torrent's.
    #[cfg(test)]
    pub(crate) async fn injected_wait(&self, name: &str) {
        let cause = self.torrent.data_dir().join(name);
        while cause.exists() {
            // So that the test knows that somebody has come this far.
            let _ = std::fs::write(cause.with_extension("now"), b"");
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }

    /// How much longer than it took something is to seem: ten minutes while a test wants it, by a
    /// file of this name beside the torrent's.
    #[cfg(test)]
    fn injected_delay(&self, name: &str) -> std::time::Duration {
        let is_wanted = self.torrent.data_dir().join(name).exists();
        std::time::Duration::from_secs(600 * u64::from(is_wanted))
    }

    /// Opens a file for writes past the page cache too, if that is wanted and to be had.
    async fn open_past_cache(&self, index: FileIndex, file: &Rc<OpenFile>) {
        if !self.passing.is_possible() {
            return;
        }
        match ring::open_past_cache(Rc::clone(file)).await {
            Ok(descriptor) => {
                let direct = Rc::new(OpenFile::new(descriptor));
                self.direct.borrow_mut().insert(index, direct);
            }
            Err(error) if is_unsupported(&error) => self.write_through_cache(&error),
            Err(error) => {
                tracing::debug!(%error, "writing one file through the page cache");
            }
        }
    }

    /// Writes whole pages past the page cache.
    async fn write_past_cache(
        &self,
        file: Rc<OpenFile>,
        memory: &Arc<Sealed>,
        at: usize,
        length: usize,
        offset: u64,
    ) -> io::Result<usize> {
        let write = self.passing.begin(Instant::now());
        let written = ring::write_at(file, Arc::clone(memory), at, length, offset).await;
        let bytes = written.as_ref().copied().unwrap_or(0);
        let ended = Instant::now();
        #[cfg(test)]
        let ended = ended + self.injected_delay("writes take long");
        if let Some(rate) = write.end(bytes, ended) {
            let slow = format!("it takes only {} MB/s that way", rate / 1_000_000);
            self.write_through_cache(&io::Error::other(slow));
        }
        written
    }

    /// Gives up writing past the page cache.
    fn write_through_cache(&self, error: &io::Error) {
        if self.passing.give_up() {
            let folder = self.torrent.data_dir().display();
            tracing::info!(%error, %folder, "not writing past the page cache there, but through it");
        }
        // Closed by whoever uses one, or with this; nothing was written that its close would wait
        // for.
        self.direct.borrow_mut().clear();
    }

    /// Closes what a file was opened as beside.
    async fn close_past_cache(&self, index: FileIndex) {
        let direct = self.direct.borrow_mut().remove(&index);
        if let Some(direct) = direct {
            close(direct).await;
        }
    }

    /// Closes all files.
    pub(crate) async fn close(&self) {
        self.dirty.borrow_mut().clear();
        loop {
            let next = self.open.borrow_mut().pop_lru();
            let Some((index, file)) = next else { return };
            self.close_past_cache(index).await;
            close(file).await;
        }
    }

    /// What `file` is now.
    async fn stamp(&self, index: FileIndex, file: &Rc<OpenFile>) -> Result<FileStamp, DiskError> {
        self.look(index, file).await.map(|found| found.stamp)
    }

    /// The same, with how many names it has, and since when it is there.
    async fn look(&self, index: FileIndex, file: &Rc<OpenFile>) -> Result<Found, DiskError> {
        let written = self.ends.borrow().get(&index).copied().unwrap_or(0);
        let found = ring::stat(Rc::clone(file)).await;
        match found.map_err(|error| self.error(index, "look at", &error))? {
            None => Err(self.lasting(index, FaultCause::NotRegular)),
            Some(found) if found.links == 0 => Err(self.lasting(index, FaultCause::Missing)),
            Some(found) if found.stamp.size < written => {
                let cause = cause_of_length(written, found.stamp.size);
                Err(self.lasting(index, cause))
            }
            Some(found) => Ok(found),
        }
    }

    fn in_use(&self, file: &Rc<OpenFile>) -> InUse<'_> {
        InUse {
            file: Rc::clone(file),
            disk: self,
        }
    }

    /// The open file.
    async fn open(&self, index: FileIndex) -> Result<InUse<'_>, DiskError> {
        loop {
            let freed = self.freed.notified();
            if self.held.borrow().contains(&index) {
                freed.await;
                continue;
            }
            if let Some(file) = self.open.borrow_mut().get(&index) {
                return Ok(self.in_use(file));
            }
            let count = self.open.borrow().len() + self.opening.borrow().len();
            if self.opening.borrow().contains(&index) {
                freed.await;
            } else if count < FILES_OPEN_MAX {
                break;
            } else if self.close_idle(1).await == 0 {
                match self.is_some_idle() {
                    true => self.sync_some().await?,
                    false => freed.await,
                }
            }
        }
        self.opening.borrow_mut().insert(index);
        let _opening = Opening { index, disk: self };
        let file = Rc::new(self.open_anew(index).await?);
        self.open.borrow_mut().put(index, Rc::clone(&file));
        Ok(self.in_use(&file))
    }

    /// Closes up to `count` files that are neither in use nor dirty, those used longest ago.
    /// Returns how many.
    async fn close_idle(&self, count: usize) -> usize {
        for closed in 0..count {
            let idle = self.idle_files(false, 1).pop();
            let file = idle.and_then(|index| Some((index, self.open.borrow_mut().pop(&index)?)));
            match file {
                Some((index, file)) => {
                    // Whoever wants it again waits until its lock has gone with it.
                    self.opening.borrow_mut().insert(index);
                    let _closing = Opening { index, disk: self };
                    self.close_past_cache(index).await;
                    close(file).await;
                }
                None => return closed,
            }
        }
        count
    }

    /// Whether a file is open that is not in use.
    fn is_some_idle(&self) -> bool {
        let open = self.open.borrow();
        open.iter().any(|(_, file)| Rc::strong_count(file) == 1)
    }

    fn data_dir(&self) -> CString {
        self.torrent.paths_for_kernel(FileIndex(0)).0
    }

    async fn open_anew(&self, index: FileIndex) -> Result<OpenFile, DiskError> {
        let (data_dir, path) = self.torrent.paths_for_kernel(index);
        let error = |error| self.error(index, "open", &error);
        let root = ring::open_directory(data_dir).await;
        let root =
            Rc::new(root.map_err(|error| {
                self.error_at(self.torrent.data_dir(), "open the folder", &error)
            })?);
        let mut opened = open_retrying(&root, &path, false).await;
        if let Err(failed) = &opened
            && matches!(failed.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
            && self.close_idle(usize::MAX).await > 0
        {
            opened = open_retrying(&root, &path, false).await;
        }
        let descriptor = match opened {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                if self.torrent.identity(index).is_some() {
                    return Err(self.lasting(index, FaultCause::Missing));
                }
                self.make(index, &root, &path).await?
            }
            Err(failed) => return Err(self.open_error(index, &root, &path, &failed).await),
            Ok(descriptor) => descriptor,
        };
        let file = Rc::new(OpenFile::new(descriptor));
        let found = self.look(index, &file).await?;
        let stamp = found.stamp;
        if found.links > 1 {
            return Err(self.lasting(index, FaultCause::OtherNames));
        }
        let due = self.torrent.layout().file_length(index);
        let known = self.torrent.identity(index);
        let before = self.stamps.get(index.0 as usize).copied().flatten();
        // One that was longer than it should be may have been cut since.
        let birth = self.births.borrow().get(&index).copied();
        if known.is_some_and(|known| known != (stamp.device, stamp.inode))
            || birth.is_some_and(|birth| birth != found.birth_ns)
            || before.is_some_and(|before| stamp.size < before.size.min(due))
        {
            return Err(self.lasting(index, FaultCause::Changed));
        }
        self.torrent.set_identity(index, &stamp);
        self.births.borrow_mut().insert(index, found.birth_ns);
        self.lock(index, &file).await?;
        files::clear_nonblocking(&file).map_err(error)?;
        self.fit(index, &file, stamp.size).await?;
        self.open_past_cache(index, &file).await;
        Rc::try_unwrap(file).map_err(|_| error(io::Error::other("the file is still in use")))
    }

    /// Gives a file that was just opened its length, as far as that is to be done at once.
    async fn fit(&self, index: FileIndex, file: &Rc<OpenFile>, size: u64) -> Result<(), DiskError> {
        let due = self.torrent.layout().file_length(index);
        if size > due {
            let cut = cut(file, due).await;
            cut.map_err(|error| self.error(index, "cut", &error))?;
        }
        if self.allocation == Allocation::Sparse || !self.is_wanted(index) || size >= due {
            return Ok(());
        }
        match ring::allocate(Rc::clone(file), due).await {
            Err(error) if is_unsupported(&error) => Ok(()),
            other => other.map_err(|error| self.error(index, "take the space for", &error)),
        }
    }

    /// Panics if the state contradicts itself.
    #[cfg(test)]
    fn check_invariants(&self) {
        let open = self.open.borrow();
        assert!(open.len() <= FILES_OPEN_MAX, "{} are open", open.len());
        for index in self.dirty.borrow().iter() {
            assert!(open.contains(index), "{index:?} was closed unsynced");
        }
    }
}

/// How many of `length` bytes at `at` of a segment and `offset` of a file can be written past the
/// page cache: whole pages, if both begin at a page.
fn pages_of(at: usize, offset: u64, length: usize) -> usize {
    match at.is_multiple_of(memory::ALIGNMENT) && offset.is_multiple_of(memory::ALIGNMENT as u64) {
        true => length - length % memory::ALIGNMENT,
        false => 0,
    }
}

/// Closes a file that nobody uses.
async fn close(file: Rc<OpenFile>) {
    if let Ok(file) = Rc::try_unwrap(file) {
        ring::close(file.into_descriptor()).await;
    }
}

/// Cuts a file down to `length` bytes, on a thread of its own: rings know that only since Linux
/// 6.9, and it is rare.
async fn cut(file: &OpenFile, length: u64) -> io::Result<()> {
    let descriptor = file.duplicate()?;
    on_a_thread(move || std::fs::File::from(descriptor).set_len(length)).await
}

/// Has a thread of its own do what rings know not to, and may take its time.
async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (done, told) = oneshot::channel();
    let work = move || {
        let _ = done.send(work());
    };
    let thread = std::thread::Builder::new().name("disk".to_owned());
    thread.spawn(work)?;
    let ended_early = |_| Err(io::Error::other("the thread for it has ended"));
    told.await.unwrap_or_else(ended_early)
}

async fn open_retrying(root: &Rc<OwnedFd>, path: &CString, make: bool) -> io::Result<OwnedFd> {
    let mut tries = 0;
    loop {
        tries += 1;
        match ring::open_for_writing(Rc::clone(root), path.clone(), make).await {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && tries < OPEN_TRIES_MAX => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests;
