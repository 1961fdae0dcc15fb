//! Open files of one shard: read-only, beneath the torrent's root, at most so many at a time (LRU),
//! and only while each is still the file that was verified.
//!
//! A file is the verified one as long as its stamp (device, inode, size, mtime, ctime) is
//! unchanged. The kernel moves mtime before it changes a byte, so a stamp that is unchanged *after*
//! a read proves that what was read is what was verified. Unlinking and renaming over move ctime,
//! and are seen too.

use crate::bypass;
use crate::leases;
use crate::ring;
use crate::torrent::{Fault, FaultCause, NumberedPlace, Place, SeededTorrent};
use crate::warming;
use crate::windows::FileWindows;
use engine::layout::{FileIndex, FileStamp};
use engine::time::Time;
use lru::LruCache;
use std::cell::{Cell, OnceCell, RefCell};
use std::ffi::CString;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::{Rc, Weak};
use std::sync::{Arc, Once};
use std::time::Duration;

/// Tries at an open that a concurrent rename disturbed (`EAGAIN` of `openat2`).
const OPEN_TRIES_MAX: usize = 8;

/// How long a lease that was refused for the moment is not asked for again.
const LEASE_REST: Duration = Duration::from_secs(5);

/// How long a leased file is not asked for its stamp and its lease again. A file that was renamed
/// over or unlinked goes on being served for that long, with the bytes that were verified.
const PROOF_PERIOD: Duration = Duration::from_millis(100);

/// The shortest list of leased files that is worth looking through for closed ones.
const LISTED_MIN: usize = 64;

/// A verified file, open for reading.
pub struct OpenFile {
    descriptor: OwnedFd,
    /// Where its torrent's files were when it was opened.
    place: NumberedPlace,
    lease: Cell<Lease>,
    /// When a lease may be asked for again.
    lease_at: Cell<Time>,
    /// Whether it is in the list of the leased.
    is_listed: Cell<bool>,
    /// When its stamp was last found unchanged under its lease.
    proven_at: Cell<Option<Time>>,
    /// The alignment of reads that bypass the page cache, in bytes; 1 while they do not.
    read_alignment: Cell<u32>,
    /// Its windows, once it has any.
    windows: OnceCell<FileWindows>,
    is_unmappable: Cell<bool>,
}

impl OpenFile {
    /// Another descriptor of the same open file.
    pub(crate) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.descriptor.try_clone()
    }

    /// Its descriptor, to be closed.
    pub(crate) fn into_descriptor(self) -> OwnedFd {
        self.descriptor
    }

    pub(crate) fn new(descriptor: OwnedFd) -> OpenFile {
        OpenFile {
            descriptor,
            place: (0, None),
            lease: Cell::new(Lease::None),
            lease_at: Cell::new(Time::default()),
            is_listed: Cell::new(false),
            proven_at: Cell::new(None),
            read_alignment: Cell::new(1),
            windows: OnceCell::new(),
            is_unmappable: Cell::new(false),
        }
    }

    /// What stands for its windows, made by `new` the first time.
    pub(crate) fn windows(&self, new: impl FnOnce() -> FileWindows) -> &FileWindows {
        self.windows.get_or_init(new)
    }

    /// What stands for its windows, if it has had any.
    pub(crate) fn windows_so_far(&self) -> Option<&FileWindows> {
        self.windows.get()
    }

    /// Whether no window onto it is to be had.
    pub(crate) fn is_unmappable(&self) -> bool {
        self.is_unmappable.get()
    }

    /// Notes that no window onto it is to be had, and says so once.
    pub(crate) fn set_unmappable(&self, error: &io::Error) {
        self.is_unmappable.set(true);
        static TOLD: Once = Once::new();
        TOLD.call_once(|| {
            tracing::info!(
                %error,
                "a file of a torrent cannot be mapped, so it is sent through buffers and costs more CPU: look at its \
                 file system, RLIMIT_AS and vm.max_map_count"
            );
        });
    }

    /// Of what offset and length of each read must be multiples, in bytes.
    pub(crate) fn read_alignment(&self) -> u32 {
        self.read_alignment.get()
    }

    /// Whether reads bypass the page cache.
    pub(crate) fn bypasses_cache(&self) -> bool {
        self.read_alignment.get() > 1
    }

    /// Believes in an alignment that is not the file system's.
    #[cfg(test)]
    pub(crate) fn claim_alignment(&self, alignment: u32) {
        self.read_alignment.set(alignment);
    }

    /// Reads through the page cache from now on.
    pub(crate) fn stop_bypassing(&self) -> io::Result<()> {
        self.read_alignment.set(1);
        bypass::disable(self)
    }

    /// Whether its stamp was found unchanged under its lease so lately that there is no need to ask
    /// again: under a lease nobody writes to it, and the kernel takes a lease away from nobody who
    /// asks more often than this.
    pub fn is_proven(&self, now: Time) -> bool {
        let proven_at = self.proven_at.get();
        proven_at.is_some_and(|at| now.since(at) < PROOF_PERIOD)
    }

    /// Notes that its stamp was found unchanged under its lease.
    pub fn set_proven(&self, now: Time) {
        self.proven_at.set(Some(now));
    }

    /// Lets go of the lease: who waits goes on, and it may be had again later.
    pub fn let_go(&self, now: Time) {
        leases::give_up(self);
        self.lease.set(Lease::None);
        self.proven_at.set(None);
        self.lease_at.set(now + LEASE_REST);
    }
}

impl AsRawFd for OpenFile {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

/// How long a file stays open without being read: a file that its owner has deleted holds its disk
/// space as long as it is open.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// A lease as the file that it is on knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lease {
    /// Not taken, or let go; it may be tried again.
    None,
    /// Nobody can write to the file.
    Held,
    /// Somebody waits to write, and pages are still on their way.
    Draining,
    /// Not to be had for this file: another owner, or a file system without leases.
    Refused,
}

/// A torrent's id and its file.
type Key = (u64, FileIndex);

/// The open files of one shard, with the time of their last use.
pub struct FileTable {
    open: RefCell<LruCache<Key, (Rc<OpenFile>, Time)>>,
    /// Files on which a lease was taken, the table's and those that connections keep open.
    leased: RefCell<Vec<Weak<OpenFile>>>,
    /// Files that have left the table while their pages were on their way, and how many there may
    /// be.
    aside: RefCell<Vec<Weak<OpenFile>>>,
    aside_max: usize,
    /// Whether files are read past the page cache, where that is possible.
    bypass_cache: bool,
}

impl FileTable {
    /// A table of at most `open_files_max` files; a quarter as many may be open beside it.
    pub fn new(open_files_max: NonZeroUsize) -> Self {
        FileTable {
            open: RefCell::new(LruCache::new(open_files_max)),
            leased: RefCell::default(),
            aside: RefCell::default(),
            aside_max: (open_files_max.get() / 4).max(1),
            bypass_cache: false,
        }
    }

    /// The same, of files that are read past the page cache where that is possible.
    pub fn bypassing_cache(self) -> Self {
        FileTable {
            bypass_cache: true,
            ..self
        }
    }

    /// How many files are open.
    pub fn len(&self) -> usize {
        self.open.borrow().len()
    }

    /// The open file if it is in the table already.
    pub fn cached(
        &self,
        torrent: &SeededTorrent,
        file: FileIndex,
        now: Time,
    ) -> Option<Rc<OpenFile>> {
        let mut open = self.open.borrow_mut();
        let key = (torrent.id(), file);
        let (file, used) = open.get_mut(&key)?;
        // Its torrent's files have been moved since.
        if file.place.0 != torrent.place_number() {
            let file = Rc::clone(file);
            open.pop(&key);
            self.set_aside(&file);
            return None;
        }
        *used = now;
        Some(Rc::clone(file))
    }

    /// Closes files that have not been read for a while.
    pub fn close_idle(&self, now: Time) {
        let mut open = self.open.borrow_mut();
        while open
            .peek_lru()
            .is_some_and(|(_, (_, used))| now.since(*used) >= IDLE_MAX)
        {
            if let Some((_, (file, _))) = open.pop_lru() {
                self.set_aside(&file);
            }
        }
    }

    /// Opens `file` of `torrent` and checks that it is the verified one. Also says whether another
    /// file was closed to make room.
    ///
    /// # Errors
    ///
    /// A [`Fault`] that names the file. Lack of descriptors empties the table and tries once more.
    pub async fn open(
        &self,
        torrent: &Arc<SeededTorrent>,
        file: FileIndex,
        now: Time,
    ) -> Result<(Rc<OpenFile>, bool), Fault> {
        let mut place = torrent.place();
        let descriptor = loop {
            let at = place.1.as_deref();
            let descriptor = match open_retrying(torrent, file, at).await {
                Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                    self.close_all();
                    open_retrying(torrent, file, at).await
                }
                other => other,
            };
            // It was moved away meanwhile.
            if descriptor.is_err() && torrent.place_number() != place.0 {
                place = torrent.place();
                continue;
            }
            break descriptor;
        };
        let fault = |cause| torrent.fault(file, cause);
        let descriptor = descriptor.map_err(|error| fault(FaultCause::of_open(&error)))?;
        let opened = Rc::new(OpenFile {
            place,
            ..OpenFile::new(descriptor)
        });
        check_stamp(torrent, file, &opened)?;
        warming::stop_readahead(&*opened);
        clear_nonblocking(&opened).map_err(|error| fault(FaultCause::of_io(&error)))?;
        if self.bypass_cache {
            let alignment = bypass::enable(&*opened);
            opened.read_alignment.set(alignment.unwrap_or(1));
        }
        let key = (torrent.id(), file);
        let pushed_out = self.open.borrow_mut().push(key, (Rc::clone(&opened), now));
        if let Some((_, (file, _))) = &pushed_out {
            self.set_aside(file);
        }
        Ok((opened, pushed_out.is_some_and(|(other, _)| other != key)))
    }

    /// Closes all files of the table.
    fn close_all(&self) {
        let mut open = self.open.borrow_mut();
        while let Some((_, (file, _))) = open.pop_lru() {
            self.set_aside(&file);
        }
    }

    /// Whether `file` is under a lease, so that its pages can be sent as they are. A leased file is
    /// to be kept open until they have arrived, also when it leaves the table; while many such ones
    /// are open, the answer is no.
    pub fn is_leased(&self, file: &Rc<OpenFile>, now: Time) -> bool {
        if self.is_overdrawn() {
            return false;
        }
        match file.lease.get() {
            Lease::Held => true,
            Lease::Draining | Lease::Refused => false,
            Lease::None if now < file.lease_at.get() => false,
            Lease::None => self.take_lease(file, now),
        }
    }

    fn take_lease(&self, file: &Rc<OpenFile>, now: Time) -> bool {
        file.lease_at.set(now + LEASE_REST);
        match leases::take(&**file) {
            Ok(()) => {
                file.lease.set(Lease::Held);
                self.list(file);
                return true;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                file.lease.set(Lease::Refused);
                tell_of_refusal(&error);
            }
        }
        false
    }

    /// Enters `file` into the list of the leased, once; now and then those that are closed leave
    /// it.
    fn list(&self, file: &Rc<OpenFile>) {
        if file.is_listed.replace(true) {
            return;
        }
        let mut leased = self.leased.borrow_mut();
        if leased.len() == leased.capacity() {
            leased.retain(|one| one.strong_count() > 0);
            let room = leased.len().max(LISTED_MIN);
            leased.reserve(room);
        }
        leased.push(Rc::downgrade(file));
    }

    /// Whether as many files as may be are open beside the table, because their pages are on their
    /// way.
    fn is_overdrawn(&self) -> bool {
        let mut aside = self.aside.borrow_mut();
        if aside.len() >= self.aside_max {
            aside.retain(|one| one.strong_count() > 0);
        }
        aside.len() >= self.aside_max
    }

    /// Lets go of a file of the table; it stays open as long as its pages are on their way.
    fn set_aside(&self, file: &Rc<OpenFile>) {
        if Rc::strong_count(file) > 1 {
            self.aside.borrow_mut().push(Rc::downgrade(file));
        }
    }

    /// The files for whose lease somebody waits. Each is told of once.
    pub fn with_broken_lease(&self) -> Vec<Rc<OpenFile>> {
        let leased = self.leased.borrow();
        let broken = leased
            .iter()
            .filter_map(Weak::upgrade)
            .filter(|file| file.lease.get() == Lease::Held && !leases::is_held(&**file));
        broken
            .inspect(|file| file.lease.set(Lease::Draining))
            .collect()
    }

    /// Closes the files of a torrent that has left (each when its last operation has ended).
    pub fn forget(&self, torrent: &SeededTorrent) {
        let mut open = self.open.borrow_mut();
        let is_its = |(key, _): &(&Key, _)| key.0 == torrent.id();
        let gone: Vec<_> = open.iter().filter(is_its).map(|(key, _)| *key).collect();
        for key in gone {
            if let Some((file, _)) = open.pop(&key) {
                self.set_aside(&file);
            }
        }
    }
}

/// Says once why data are not sent without a copy.
fn tell_of_refusal(error: &io::Error) {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        tracing::info!(
            %error,
            "no lease on a file of a torrent, so it is sent through buffers and costs more CPU: run as the \
             owner of the files or with CAP_LEASE, on a local file system"
        );
    });
}

/// Checks that `opened` is still what was verified as `file`.
///
/// # Errors
///
/// A [`Fault`] that names the file and says what changed.
pub fn check_stamp(
    torrent: &SeededTorrent,
    file: FileIndex,
    opened: &OpenFile,
) -> Result<(), Fault> {
    let found = match stat(opened) {
        // Its bytes change while others come; what may be served of it says the torrent's bitfield.
        Ok(Some((stamp, _links))) if !torrent.is_complete() => {
            let found = (stamp.device, stamp.inode);
            return match torrent.identity(file).is_none_or(|known| known == found) {
                true => Ok(()),
                false => Err(torrent.fault(file, FaultCause::Changed)),
            };
        }
        Ok(Some((stamp, _links))) => stamp,
        Ok(None) => return Err(torrent.fault(file, FaultCause::NotRegular)),
        Err(error) => return Err(torrent.fault(file, FaultCause::of_io(&error))),
    };
    let verified = match &opened.place.1 {
        Some(place) => place.stamps.get(file.0 as usize).copied().flatten(),
        None => torrent.stamp(file),
    };
    if torrent.is_as_verified(verified, found) {
        return Ok(());
    }
    let cause = match verified {
        Some(verified) if found.size < verified.size => FaultCause::Truncated {
            expected: verified.size,
            found: found.size,
        },
        _ => FaultCause::Changed,
    };
    Err(torrent.fault(file, cause))
}

/// Opens through the ring, again while a concurrent rename disturbs the lookup.
///
/// The data directory is opened for each file and not kept: 10,000 torrents would keep as many
/// descriptors.
async fn open_retrying(
    torrent: &SeededTorrent,
    file: FileIndex,
    moved: Option<&Place>,
) -> io::Result<OwnedFd> {
    let (data_dir, path) = match moved {
        Some(place) => torrent.paths_at(place, file),
        None => torrent.paths_for_kernel(file),
    };
    let own = torrent.suffixed_paths(file).map(|(_, own)| own);
    let root = Rc::new(ring::open_directory(data_dir).await?);
    match open_beneath_retrying(&root, &path).await {
        // It gets its own name just now, whether that is known here already or not.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) && own.is_some() => {
            open_beneath_retrying(&root, &own.unwrap_or_default()).await
        }
        other => other,
    }
}

async fn open_beneath_retrying(root: &Rc<OwnedFd>, path: &CString) -> io::Result<OwnedFd> {
    let mut tries = 0;
    loop {
        tries += 1;
        match ring::open_beneath(Rc::clone(root), path.clone()).await {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && tries < OPEN_TRIES_MAX => {}
            other => return other,
        }
    }
}

/// The stamp of an open file, and how many names it has; `None` if it is not a regular file.
pub(crate) fn stat(file: &OpenFile) -> io::Result<Option<(FileStamp, u64)>> {
    // SAFETY: `stat` is plain data for which zeros are valid.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, and `stat` is ours to write for the length of the call.
    if unsafe { libc::fstat(file.as_raw_fd(), &raw mut stat) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Ok(None);
    }
    let stamp = FileStamp {
        device: stat.st_dev,
        inode: stat.st_ino,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime_ns: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
        ctime_ns: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
    };
    Ok(Some((stamp, stat.st_nlink as u64)))
}

/// Nanoseconds since the epoch.
fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
}

/// A ring read of a file with `O_NONBLOCK` would answer `EAGAIN` for cold data instead of fetching
/// it.
pub(crate) fn clear_nonblocking(file: &OpenFile) -> io::Result<()> {
    // SAFETY: `F_SETFL` with plain flags on a descriptor that we own.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Data, stamp};
    use std::fs;
    use std::os::unix::fs::symlink;

    const FIRST: FileIndex = FileIndex(0);
    const SECOND: FileIndex = FileIndex(1);
    const NOW: Time = Time(0);

    fn table(open_files_max: usize) -> FileTable {
        FileTable::new(NonZeroUsize::new(open_files_max).unwrap())
    }

    /// The cause for which the first file is not opened.
    fn refused(torrent: &Arc<SeededTorrent>) -> FaultCause {
        let opened = tokio_uring::start(async { table(1).open(torrent, FIRST, NOW).await });
        opened.err().expect("it is not what was verified").cause
    }

    /// What is open goes on being read where it was, what is opened is where it is now; and only
    /// the time that renaming moves is overlooked.
    #[test]
    fn a_torrent_is_moved_while_its_files_are_open() {
        let data = Data::new(&[("a", 10), ("b", 10)]);
        let torrent = data.torrent();
        let other = tempfile::tempdir_in(data.dir.path()).unwrap();
        tokio_uring::start(async {
            let files = table(2);
            let (before, _) = files.open(&torrent, FIRST, NOW).await.unwrap();
            torrent.set_renaming(true);
            let (old, new) = (data.path(0), other.path().join("c"));
            fs::hard_link(&old, &new).unwrap();
            let place = Place {
                data_dir: other.path().to_owned(),
                stamps: vec![stamp(&new), torrent.stamps()[1]],
                paths: [(0, "c".into())].into(),
            };
            torrent.move_to(place.clone());
            fs::remove_file(&old).unwrap();
            check_stamp(&torrent, FIRST, &before).unwrap();
            assert!(
                files.cached(&torrent, FIRST, NOW).is_none(),
                "it is opened anew"
            );
            let (after, _) = files.open(&torrent, FIRST, NOW).await.unwrap();
            assert!(files.cached(&torrent, FIRST, NOW).is_some());
            torrent.set_renaming(false);
            let changed = check_stamp(&torrent, FIRST, &after).unwrap_err();
            assert_eq!(
                changed.cause,
                FaultCause::Changed,
                "its name was taken away"
            );
            assert_eq!(changed.file, new);
            let stamps = vec![stamp(&new), torrent.stamps()[1]];
            torrent.move_to(Place { stamps, ..place });
            let (last, _) = files.open(&torrent, FIRST, NOW).await.unwrap();
            check_stamp(&torrent, FIRST, &last).unwrap();
            // A write is seen whatever is overlooked.
            torrent.set_renaming(true);
            fs::write(&new, [7; 10]).unwrap();
            check_stamp(&torrent, FIRST, &last).unwrap_err();
        });
    }

    #[test]
    fn the_file_used_longest_ago_is_closed_for_another() {
        let data = Data::new(&[("a", 10), ("b", 10), ("c", 10)]);
        let torrent = data.torrent();
        tokio_uring::start(async {
            let files = table(2);
            assert!(!files.open(&torrent, FIRST, NOW).await.unwrap().1);
            assert!(!files.open(&torrent, SECOND, NOW).await.unwrap().1);
            assert!(files.cached(&torrent, FIRST, NOW).is_some());
            assert!(files.open(&torrent, FileIndex(2), NOW).await.unwrap().1);
            assert!(files.cached(&torrent, SECOND, NOW).is_none());
            assert!(files.cached(&torrent, FIRST, NOW).is_some());
            // Opened by two at once, it is open once.
            assert!(!files.open(&torrent, FIRST, NOW).await.unwrap().1);
            assert_eq!(files.len(), 2);
        });
    }

    #[test]
    fn files_are_closed_when_idle_and_with_their_torrent() {
        let data = Data::new(&[("a", 10), ("b", 10)]);
        let (torrent, again) = (data.torrent(), data.torrent());
        tokio_uring::start(async {
            let files = table(8);
            files.open(&torrent, FIRST, NOW).await.unwrap();
            files.open(&torrent, SECOND, NOW).await.unwrap();
            files.open(&again, FIRST, NOW).await.unwrap();
            let later = NOW + IDLE_MAX / 2;
            assert!(files.cached(&torrent, FIRST, later).is_some());
            files.close_idle(NOW + IDLE_MAX);
            assert_eq!(files.len(), 1);
            files.open(&again, FIRST, later).await.unwrap();
            files.forget(&torrent);
            assert!(files.cached(&torrent, FIRST, later).is_none());
            assert!(files.cached(&again, FIRST, later).is_some());
            files.close_idle(later + IDLE_MAX);
            assert_eq!(files.len(), 0);
        });
    }

    #[test]
    fn a_file_that_is_gone_is_missing() {
        let data = Data::new(&[("a", 10)]);
        let torrent = data.torrent();
        fs::remove_file(data.path(0)).unwrap();
        assert_eq!(refused(&torrent), FaultCause::Missing);
    }

    #[test]
    fn a_link_out_of_the_directory_is_not_followed() {
        let (data, outside) = (Data::new(&[("a", 10)]), Data::new(&[("a", 10)]));
        let torrent = data.torrent();
        fs::remove_file(data.path(0)).unwrap();
        symlink(outside.path(0), data.path(0)).unwrap();
        assert_eq!(refused(&torrent), FaultCause::Escapes);
    }

    #[test]
    fn what_is_not_a_file_is_refused_without_waiting_for_it() {
        let data = Data::new(&[("a", 10)]);
        let torrent = data.torrent();
        fs::remove_file(data.path(0)).unwrap();
        let path = std::ffi::CString::new(data.path(0).into_os_string().into_encoded_bytes());
        // SAFETY: the path is a C string for the length of the call.
        assert_eq!(unsafe { libc::mkfifo(path.unwrap().as_ptr(), 0o600) }, 0);
        assert_eq!(refused(&torrent), FaultCause::NotRegular);
        fs::remove_file(data.path(0)).unwrap();
        fs::create_dir(data.path(0)).unwrap();
        assert_eq!(refused(&torrent), FaultCause::NotRegular);
    }

    #[test]
    fn a_change_shows_in_an_open_file() {
        let data = Data::new(&[("a", 10), ("b", 10), ("c", 10)]);
        let torrent = data.torrent();
        let open = |file| {
            let path = data.path(file);
            let descriptor = fs::File::open(path).unwrap().into();
            OpenFile::new(descriptor)
        };
        let files = [open(0), open(1), open(2)];
        let cause = |file: u32| {
            let opened = &files[file as usize];
            check_stamp(&torrent, FileIndex(file), opened).map_err(|fault| fault.cause)
        };
        assert_eq!([cause(0), cause(1), cause(2)], [Ok(()), Ok(()), Ok(())]);
        let truncated = fs::File::options().write(true).open(data.path(0)).unwrap();
        truncated.set_len(3).unwrap();
        fs::write(data.dir.path().join("new"), [0; 10]).unwrap();
        fs::rename(data.dir.path().join("new"), data.path(1)).unwrap();
        let (expected, found) = (10, 3);
        assert_eq!(cause(0), Err(FaultCause::Truncated { expected, found }));
        assert_eq!(cause(1), Err(FaultCause::Changed));
        assert_eq!(cause(2), Ok(()));
    }
}
