//! Read leases on files: what makes sending without a copy safe (docs/adr/0009-send-paths.md).
//!
//! Pages on their way to a peer are the file's own, and a program that writes to the file would
//! change them in flight. A read lease (`fcntl(2)`, `F_SETLEASE`) is granted only while nobody has
//! the file open for writing, and whoever opens it for writing or truncates it then waits in the
//! kernel until we have let go. We send nothing more without a copy, wait until what is on its way
//! has been acknowledged, and let go.
//!
//! Limits: a writer waits [`DRAIN_MAX`] at most; a peer that has not acknowledged by then is cut
//! off. Granted to the owner of the file or to who has `CAP_LEASE`, on local file systems; without
//! it the data are sent through buffers.

use crate::closing::CloseReason;
use crate::files::OpenFile;
use crate::in_transit::LINGER;
use crate::ring;
use crate::shard::Shard;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long a program that opens a file for writing waits for peers that are slow to acknowledge.
/// The kernel would wait for `fs.lease-break-time`, 45 s by default.
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// How often acknowledgements are looked at meanwhile.
const DRAIN_PERIOD: Duration = Duration::from_millis(2);

/// `F_SETOWN_EX` and its kind of owner, of linux/fcntl.h.
const F_SETOWN_EX: libc::c_int = 15;
const F_OWNER_TID: libc::c_int = 0;

/// `struct f_owner_ex` of linux/fcntl.h.
#[repr(C)]
struct Owner {
    kind: libc::c_int,
    thread: libc::pid_t,
}

/// Takes a read lease on `file` for the calling thread, which is told by [`LeaseSignal`] when a
/// writer waits.
///
/// # Errors
///
/// `WouldBlock` while somebody has it open for writing; `EACCES` for a file of another user;
/// `EINVAL` where the file system has no leases.
pub fn take(file: &impl AsRawFd) -> io::Result<()> {
    let descriptor = file.as_raw_fd();
    // SAFETY: concerns a descriptor that its owner keeps open for the length of the call.
    check(unsafe { libc::fcntl(descriptor, libc::F_SETLEASE, libc::F_RDLCK) })?;
    let owner = Owner {
        kind: F_OWNER_TID,
        // SAFETY: asks for a number.
        thread: unsafe { libc::gettid() },
    };
    // The lease came with the process as its owner, so this is after it.
    // SAFETY: as above; `owner` is ours for the length of the call.
    let owned = check(unsafe { libc::fcntl(descriptor, F_SETOWN_EX, &raw const owner) });
    // A writer that came in between has told the process, not us.
    if owned.is_err() || !is_held(file) {
        give_up(file);
        owned?;
        return Err(io::ErrorKind::WouldBlock.into());
    }
    Ok(())
}

/// Whether the lease is ours and nobody waits for it.
pub fn is_held(file: &impl AsRawFd) -> bool {
    // SAFETY: concerns a descriptor that its owner keeps open for the length of the call.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLEASE) == libc::F_RDLCK }
}

/// Lets go of the lease: who waits goes on.
pub fn give_up(file: &impl AsRawFd) {
    // SAFETY: concerns a descriptor that its owner keeps open for the length of the call. Without a
    // lease the kernel refuses, which is as good.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) };
}

fn check(answer: libc::c_int) -> io::Result<()> {
    match answer {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Keeps the kernel's message, `SIGIO`, from ending the process where no shard waits for it.
///
/// # Errors
///
/// What the kernel said.
pub fn ignore_signal() -> io::Result<()> {
    // SAFETY: sets no handler of ours, so nothing runs when the signal comes.
    if unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Where the kernel tells a shard that somebody waits for one of its leases.
pub struct LeaseSignal {
    descriptor: OwnedFd,
}

impl AsRawFd for LeaseSignal {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

impl LeaseSignal {
    /// Of the calling thread.
    ///
    /// # Errors
    ///
    /// What the kernel said.
    pub fn new() -> io::Result<LeaseSignal> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `sigemptyset` makes `set` whole before it is used; the calls only read it after
        // that.
        let number = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigaddset(set.as_mut_ptr(), libc::SIGIO);
            let blocked =
                libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
            if blocked != 0 {
                return Err(io::Error::from_raw_os_error(blocked));
            }
            libc::signalfd(-1, set.as_ptr(), libc::SFD_NONBLOCK | libc::SFD_CLOEXEC)
        };
        check(number)?;
        // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
        Ok(LeaseSignal { descriptor })
    }

    /// Ends the wait for it in [`watch`]. For the thread whose it is.
    pub fn wake(&self) {
        // SAFETY: a signal to ourselves, blocked since `new`.
        unsafe { libc::raise(libc::SIGIO) };
    }

    /// Takes the signals that have come. They are all alike, so which file is found by asking.
    fn clear(&self) {
        let mut one = MaybeUninit::<libc::signalfd_siginfo>::uninit();
        let bytes = size_of::<libc::signalfd_siginfo>();
        // SAFETY: `one` is ours to write, of the length given; it is never looked at.
        while unsafe { libc::read(self.as_raw_fd(), one.as_mut_ptr().cast(), bytes) } > 0 {}
    }
}

/// Lets go of leases for which somebody waits, as long as the shard lives.
pub(crate) async fn watch(shard: Rc<Shard>, signal: Rc<LeaseSignal>) {
    loop {
        let _ready = ring::poll(Rc::clone(&signal), libc::POLLIN).await;
        if shard.is_stopping() {
            return;
        }
        signal.clear();
        for file in shard.files.with_broken_lease() {
            let shard = Rc::clone(&shard);
            tokio_uring::spawn(async move {
                drain(&shard, &file).await;
                file.let_go(shard.now());
            });
        }
    }
}

/// Waits until no page of `file` is on its way to a peer, and cuts off who is too slow.
async fn drain(shard: &Shard, file: &Rc<OpenFile>) {
    let until = Instant::now() + DRAIN_MAX;
    loop {
        let late = Instant::now() >= until;
        let mut waiting = false;
        for (_, connection) in shard.connections.borrow().iter() {
            if connection.sends_pages_of(file) {
                waiting = true;
                if late && connection.awaits_acknowledgement(file) {
                    connection.abort(CloseReason::Storage);
                }
            }
        }
        let lingers = |(one, since): &(Rc<OpenFile>, Instant)| {
            Rc::ptr_eq(one, file) && since.elapsed() < LINGER
        };
        waiting |= shard.lingering.borrow().iter().any(lingers);
        if late || !waiting {
            return;
        }
        tokio::time::sleep(DRAIN_PERIOD).await;
    }
}
