//! Ring operations that tokio-uring's public API does not offer, added through
//! `UnsubmittedOneshot`.
//!
//! This is the only file that builds submission entries. Every operation owns what the kernel may
//! touch until its last completion, also when the future that waits for it is dropped: tokio-uring
//! then keeps the operation's data in its driver until the completion has come.
//!
//! Does not: multishot or zero-copy notifications; a completion with the MORE flag panics
//! tokio-uring 0.5.

use crate::buffers::Buffer;
use crate::direct::Lease;
use crate::fetch::memory::{Sealed, Segment};
use crate::files::OpenFile;
use crate::outgoing::Outgoing;
use engine::layout::FileStamp;
use io_uring::{cqueue, opcode, squeue, types};
use std::ffi::CString;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use tokio_uring::net::TcpStream;
use tokio_uring::{InFlightOneshot, OneshotOutputTransform, UnsubmittedOneshot};

/// The length of one read operation, in bytes: a length that the kernel takes whole.
const READ_BYTES_MAX: usize = 1 << 30;

/// Hands the operation's data back together with its result.
pub struct GiveBack<D>(PhantomData<D>);

impl<D: 'static> OneshotOutputTransform for GiveBack<D> {
    type Output = (io::Result<u32>, D);
    type StoredData = D;

    fn transform_oneshot_output(self, data: D, completion: cqueue::Entry) -> Self::Output {
        let result = match u32::try_from(completion.result()) {
            Ok(value) => Ok(value),
            Err(_) => Err(io::Error::from_raw_os_error(-completion.result())),
        };
        (result, data)
    }
}

/// Queues one operation; it reaches the kernel when the shard's thread parks, with all others.
///
/// # Safety
///
/// Every pointer in `entry` must point into memory that `data` owns on the heap (so that it stays
/// where it is when `data` moves), and every descriptor in `entry` must be kept open by `data`.
unsafe fn submit<D: Unpin + 'static>(
    data: D,
    entry: squeue::Entry,
) -> InFlightOneshot<D, GiveBack<D>> {
    UnsubmittedOneshot::new(data, GiveBack(PhantomData), entry).submit()
}

/// Opens the directory `path` as a place to open files beneath.
pub async fn open_directory(path: CString) -> io::Result<OwnedFd> {
    let data = Box::new(path);
    let entry = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), data.as_ptr())
        .flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC)
        .build();
    // SAFETY: the path's bytes live on the heap, owned by `data`; the entry holds no descriptor of
    // ours.
    let (result, _data) = unsafe { submit(data, entry) }.await;
    descriptor(result)
}

/// Opens `path` below `root` for reading, by `openat2` with `RESOLVE_BENEATH`: no component of the
/// path, symbolic links included, may lead out of `root`.
///
/// `O_NONBLOCK` keeps the open of a FIFO or a device from waiting; the caller clears it.
/// Not to be cancelled: a descriptor that arrives after that would have no owner.
pub async fn open_beneath(root: Rc<OwnedFd>, path: CString) -> io::Result<OwnedFd> {
    let how = types::OpenHow::new()
        .flags((libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY) as u64)
        .resolve(libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS);
    open_how(root, path, how).await
}

/// Opens `path` below `root` for writing; `make` makes it, and it must not be there then. Neither a
/// link in its place is followed, nor a component that leads out of `root`. Not to be cancelled,
/// see [`open_beneath`].
pub async fn open_for_writing(root: Rc<OwnedFd>, path: CString, make: bool) -> io::Result<OwnedFd> {
    let flags =
        libc::O_RDWR | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_NOFOLLOW;
    let how = types::OpenHow::new().resolve(libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS);
    let how = match make {
        true => how
            .flags((flags | libc::O_CREAT | libc::O_EXCL) as u64)
            .mode(0o666),
        false => how.flags(flags as u64),
    };
    open_how(root, path, how).await
}

/// Opens `path` below `root` for reading as [`open_for_writing`] does for writing.
pub async fn open_in_place(root: Rc<OwnedFd>, path: CString) -> io::Result<OwnedFd> {
    let flags =
        libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_NOFOLLOW;
    let how = types::OpenHow::new()
        .flags(flags as u64)
        .resolve(libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS);
    open_how(root, path, how).await
}

/// Opens `file` once more, for writes that bypass the page cache: of whole pages, from and to page
/// boundaries.
pub async fn open_past_cache(file: Rc<OpenFile>) -> io::Result<OwnedFd> {
    // What the descriptor stands for, whatever name that has by now.
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let flags = libc::O_WRONLY | libc::O_DIRECT | libc::O_CLOEXEC | libc::O_NOCTTY;
    let data = Box::new((file, path, types::OpenHow::new().flags(flags as u64)));
    let here = types::Fd(libc::AT_FDCWD);
    let entry = opcode::OpenAt2::new(here, data.1.as_ptr(), &raw const data.2).build();
    // SAFETY: the path's bytes and how it is to be opened live on the heap, owned by `data`, which
    // also keeps the descriptor open that the path names.
    let (result, _data) = unsafe { submit(data, entry) }.await;
    descriptor(result)
}

/// Opens the directory `path` below `root` as a place to open files beneath.
pub async fn open_directory_beneath(root: Rc<OwnedFd>, path: CString) -> io::Result<OwnedFd> {
    let how = types::OpenHow::new()
        .flags((libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC) as u64)
        .resolve(libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS);
    open_how(root, path, how).await
}

async fn open_how(root: Rc<OwnedFd>, path: CString, how: types::OpenHow) -> io::Result<OwnedFd> {
    let data = Box::new((root, path, how));
    let (root, path) = (types::Fd(data.0.as_raw_fd()), data.1.as_ptr());
    let entry = opcode::OpenAt2::new(root, path, &raw const data.2).build();
    // SAFETY: the path's bytes and `how` live on the heap, owned by `data`, which also keeps `root`
    // open.
    let (result, _data) = unsafe { submit(data, entry) }.await;
    descriptor(result)
}

/// Forces to the disk which names there are in `directory`.
pub async fn sync_directory(directory: Rc<OwnedFd>) -> io::Result<()> {
    let how = types::OpenHow::new()
        .flags((libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC) as u64)
        .resolve(libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS);
    // What was opened as a place only can not be synced.
    let opened = open_how(directory, CString::from(c"."), how).await?;
    let entry = opcode::Fsync::new(types::Fd(opened.as_raw_fd())).build();
    // SAFETY: the entry holds no pointer, and the operation keeps the directory open.
    let (result, _opened) = unsafe { submit(opened, entry) }.await;
    result.map(drop)
}

/// Makes the directory `name` in `parent`.
pub async fn make_directory(parent: Rc<OwnedFd>, name: CString) -> io::Result<()> {
    let data = Box::new((parent, name));
    let parent = types::Fd(data.0.as_raw_fd());
    let entry = opcode::MkDirAt::new(parent, data.1.as_ptr())
        .mode(0o777)
        .build();
    // SAFETY: the name's bytes live on the heap, owned by `data`, which also keeps `parent` open.
    let (result, _data) = unsafe { submit(data, entry) }.await;
    result.map(drop)
}

/// Gives the file `from` in `directory` the name `to`. `exclusive`: unless there is one of that
/// name, which not every file system can see to (`EINVAL`); else that one is replaced.
pub async fn rename_in(
    directory: Rc<OwnedFd>,
    from: CString,
    to: CString,
    exclusive: bool,
) -> io::Result<()> {
    let data = Box::new((directory, from, to));
    let directory = types::Fd(data.0.as_raw_fd());
    let flags = match exclusive {
        true => libc::RENAME_NOREPLACE,
        false => 0,
    };
    let entry = opcode::RenameAt::new(directory, data.1.as_ptr(), directory, data.2.as_ptr())
        .flags(flags)
        .build();
    // SAFETY: both names' bytes live on the heap, owned by `data`, which also keeps `directory`
    // open.
    let (result, _data) = unsafe { submit(data, entry) }.await;
    result.map(drop)
}

/// What `statx` says of `name` in `directory`, a link itself and not where it leads; of
/// `directory`'s own file if the name is empty.
async fn stat_at<D: AsRawFd + 'static>(directory: Rc<D>, name: CString) -> io::Result<libc::statx> {
    // SAFETY: `statx` is plain data for which zeros are valid.
    let found: libc::statx = unsafe { std::mem::zeroed() };
    let mut data = Box::new((directory, name, found));
    let target = (&raw mut data.2).cast::<types::statx>();
    let flags = libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW;
    let entry = opcode::Statx::new(types::Fd(data.0.as_raw_fd()), data.1.as_ptr(), target)
        .flags(flags)
        .mask(libc::STATX_BASIC_STATS | libc::STATX_BTIME)
        .build();
    // SAFETY: the name's bytes and what is written to live on the heap, owned by `data`, which also
    // keeps the directory open.
    let (result, data) = unsafe { submit(data, entry) }.await;
    result.map(|_| data.2)
}

/// What a regular file is now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    pub(crate) stamp: FileStamp,
    /// How many names it has.
    pub(crate) links: u64,
    /// When it was made, in nanoseconds since the epoch, where the file system knows that: what
    /// tells a file from another one that got its inode after it.
    pub(crate) birth_ns: Option<i64>,
}

/// What an open file is; `None` if it is not a regular one.
pub(crate) async fn stat(file: Rc<OpenFile>) -> io::Result<Option<Found>> {
    stat_at(file, CString::default())
        .await
        .map(|s| found_of(&s))
}

/// The same of the file `name` in `directory`.
pub(crate) async fn stat_in(directory: Rc<OwnedFd>, name: CString) -> io::Result<Option<Found>> {
    stat_at(directory, name).await.map(|found| found_of(&found))
}

fn found_of(found: &libc::statx) -> Option<Found> {
    let nanoseconds = |time: &libc::statx_timestamp| {
        let seconds = time.tv_sec.saturating_mul(1_000_000_000);
        seconds.saturating_add(i64::from(time.tv_nsec))
    };
    if u32::from(found.stx_mode) & libc::S_IFMT != libc::S_IFREG {
        return None;
    }
    let stamp = FileStamp {
        device: libc::makedev(found.stx_dev_major, found.stx_dev_minor),
        inode: found.stx_ino,
        size: found.stx_size,
        mtime_ns: nanoseconds(&found.stx_mtime),
        ctime_ns: nanoseconds(&found.stx_ctime),
    };
    let has_birth = found.stx_mask & libc::STATX_BTIME != 0;
    Some(Found {
        stamp,
        links: u64::from(found.stx_nlink),
        birth_ns: has_birth.then(|| nanoseconds(&found.stx_btime)),
    })
}

/// Closes a file, for which some file systems wait: for what was written, or for the blocks of one
/// that was deleted.
pub(crate) async fn close(descriptor: OwnedFd) {
    let number = descriptor.into_raw_fd();
    let entry = opcode::Close::new(types::Fd(number)).build();
    // SAFETY: the entry holds no pointer, and the descriptor is the operation's from here on:
    // nobody else closes it.
    let (result, ()) = unsafe { submit((), entry) }.await;
    if let Err(error) = result {
        tracing::debug!(%error, "closing a file");
    }
}

/// Takes the space of the first `length` bytes of `file`.
pub async fn allocate(file: Rc<OpenFile>, length: u64) -> io::Result<()> {
    let entry = opcode::Fallocate::new(types::Fd(file.as_raw_fd()), length).build();
    // SAFETY: the entry holds no pointer, and the operation keeps the file open.
    let (result, _file) = unsafe { submit(file, entry) }.await;
    result.map(drop)
}

/// Forces to the disk what was written to `file`, and what is needed to find it.
pub async fn sync_data(file: Rc<OpenFile>) -> io::Result<()> {
    let entry = opcode::Fsync::new(types::Fd(file.as_raw_fd()))
        .flags(types::FsyncFlags::DATASYNC)
        .build();
    // SAFETY: the entry holds no pointer, and the operation keeps the file open.
    let (result, _file) = unsafe { submit(file, entry) }.await;
    result.map(drop)
}

/// Writes `length` bytes from `start` of `memory` to `offset` of `file`, and returns how many.
pub(crate) async fn write_at(
    file: Rc<OpenFile>,
    memory: Arc<Sealed>,
    start: usize,
    length: usize,
    offset: u64,
) -> io::Result<usize> {
    let source = memory
        .bytes()
        .get(start..)
        .and_then(|rest| rest.get(..length));
    let Some(source) = source else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    let entry = opcode::Write::new(
        types::Fd(file.as_raw_fd()),
        source.as_ptr(),
        source.len() as u32,
    )
    .offset(offset)
    .build();
    // SAFETY: the bytes lie in `memory`, which nobody changes and which the operation keeps; `file`
    // keeps the descriptor open.
    let (result, _data) = unsafe { submit((memory, file), entry) }.await;
    result.map(|count| count as usize)
}

/// Reads up to `length` bytes of `file` from `offset` to `start` of `segment`, and returns how
/// many.
pub(crate) async fn read_into_segment(
    file: Rc<OpenFile>,
    mut segment: Segment,
    start: usize,
    length: usize,
    offset: u64,
) -> (io::Result<usize>, Segment) {
    let Some(target) = segment.target(start, length) else {
        return (Err(io::Error::from_raw_os_error(libc::EINVAL)), segment);
    };
    let entry = opcode::Read::new(types::Fd(file.as_raw_fd()), target, length as u32)
        .offset(offset)
        .build();
    // SAFETY: `target` points to `length` bytes of the segment's memory, which the operation owns;
    // `file` keeps the descriptor open.
    let (result, (segment, _file)) = unsafe { submit((segment, file), entry) }.await;
    (result.map(|count| count as usize), segment)
}

/// The descriptor that an open has made.
fn descriptor(result: io::Result<u32>) -> io::Result<OwnedFd> {
    let number = RawFd::try_from(result?).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Reads up to `length` bytes of `file` from `offset` into `buffer` at `start`, and returns how
/// many.
///
/// The buffer comes back with the result in every case. Uses the registered form when the pool's
/// buffers are registered with the ring.
pub async fn read_at(
    file: Rc<OpenFile>,
    mut buffer: Buffer,
    start: usize,
    length: usize,
    offset: u64,
) -> (io::Result<usize>, Buffer) {
    let length = length.min(READ_BYTES_MAX);
    let Some(target) = buffer.spare_mut(start, length) else {
        return (Err(io::Error::from_raw_os_error(libc::EINVAL)), buffer);
    };
    let descriptor = types::Fd(file.as_raw_fd());
    let entry = match buffer.registered_index() {
        Some(index) => opcode::ReadFixed::new(descriptor, target, length as u32, index)
            .offset(offset)
            .build(),
        None => opcode::Read::new(descriptor, target, length as u32)
            .offset(offset)
            .build(),
    };
    // SAFETY: `target` points to `length` bytes inside the pool's buffer, which lives on the heap
    // and which `buffer` owns alone until it is dropped; `file` keeps the descriptor open.
    let (result, (mut buffer, _file)) = unsafe { submit((buffer, file), entry) }.await;
    let result = result.map(|count| count as usize);
    if let Ok(count) = result {
        // SAFETY: the kernel has written `count` bytes at `start`.
        unsafe { buffer.set_filled(start, count) };
    }
    (result, buffer)
}

/// Has the reads of a range of `file` started; a thread of the kernel does that, since it may have
/// to wait for a place in the disk's queue or for where the bytes lie.
pub async fn ask_for(file: Rc<OpenFile>, offset: u64, length: u32) -> io::Result<()> {
    let length = libc::off_t::from(length);
    let entry = opcode::Fadvise::new(
        types::Fd(file.as_raw_fd()),
        length,
        libc::POSIX_FADV_WILLNEED,
    )
    .offset(offset)
    .build();
    // SAFETY: the entry holds no pointer, and the operation keeps the file open.
    let (result, _file) = unsafe { submit(file, entry) }.await;
    result.map(drop)
}

/// Has the page cache drop what it holds of `file`, as far as it is clean and not in use.
pub(crate) async fn drop_pages(file: Rc<OpenFile>) -> io::Result<()> {
    let all = 0;
    let descriptor = types::Fd(file.as_raw_fd());
    let entry = opcode::Fadvise::new(descriptor, all, libc::POSIX_FADV_DONTNEED).build();
    // SAFETY: the entry holds no pointer, and the operation keeps the file open.
    let (result, _file) = unsafe { submit(file, entry) }.await;
    result.map(drop)
}

/// Waits until the byte at `offset` of `file` is in memory. False at the end of the file.
pub async fn read_byte(file: Rc<OpenFile>, offset: u64) -> io::Result<bool> {
    let mut byte = Box::new(0_u8);
    let entry = opcode::Read::new(types::Fd(file.as_raw_fd()), &raw mut *byte, 1)
        .offset(offset)
        .build();
    // SAFETY: the byte lives on the heap, owned by the operation; `file` keeps the descriptor open.
    let (result, _data) = unsafe { submit((byte, file), entry) }.await;
    result.map(|count| count == 1)
}

/// Reads up to `length` bytes of `file` from `offset` into the slot of `lease` at `start`, and
/// returns how many.
pub(crate) async fn read_into_slot(
    file: Rc<OpenFile>,
    lease: Rc<Lease>,
    start: usize,
    length: usize,
    offset: u64,
) -> io::Result<usize> {
    let length = length.min(READ_BYTES_MAX);
    let Some(target) = lease.target(start, length) else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    let entry = opcode::Read::new(types::Fd(file.as_raw_fd()), target, length as u32)
        .offset(offset)
        .build();
    // SAFETY: `target` points to `length` bytes inside the slot, which nobody else reads or writes
    // and which is not freed as long as `lease` lives; `file` keeps the descriptor open.
    let (result, _data) = unsafe { submit((lease, file), entry) }.await;
    result.map(|count| count as usize)
}

/// Waits until `object` is ready for one of `events` (`poll(2)` bits) or is broken.
pub fn poll<D: AsRawFd + 'static>(
    object: Rc<D>,
    events: libc::c_short,
) -> InFlightOneshot<Rc<D>, GiveBack<Rc<D>>> {
    let entry = opcode::PollAdd::new(types::Fd(object.as_raw_fd()), events as u16 as u32).build();
    // SAFETY: the entry holds no pointer, and the operation keeps the object open.
    unsafe { submit(object, entry) }
}

/// Sends what is left of `outgoing`, as much as the socket takes without waiting, and returns the
/// count.
///
/// A full socket is `WouldBlock`. The caller has one send in flight per socket.
pub async fn send(
    socket: Rc<TcpStream>,
    mut outgoing: Box<Outgoing>,
) -> (io::Result<usize>, Box<Outgoing>) {
    let message = outgoing.prepare();
    let entry = opcode::SendMsg::new(types::Fd(socket.as_raw_fd()), message)
        .flags((libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) as u32)
        .build();
    // SAFETY: `message` and all that it points to live in the box and in the buffers that the box
    // owns; the operation keeps the socket open.
    let (result, (_socket, outgoing)) = unsafe { submit((socket, outgoing), entry) }.await;
    (result.map(|count| count as usize), outgoing)
}
