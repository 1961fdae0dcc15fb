//! Why io_uring can be refused, told in one line with its cure, before anything is started.

use io_uring::IoUring;
use std::io;

/// The kernel, the container or a limit refuses io_uring.
#[derive(Debug, thiserror::Error)]
#[error("io_uring is refused: {cause}; {cure}")]
pub struct Refusal {
    /// What refused it.
    pub cause: String,
    /// What to do about it.
    pub cure: &'static str,
}

/// Tries a ring as the shards will use it.
///
/// # Errors
///
/// The [`Refusal`] that a user reads.
pub fn check() -> Result<(), Refusal> {
    match IoUring::new(8) {
        Ok(_ring) => Ok(()),
        Err(error) => Err(explain(&error)),
    }
}

/// The cause and the cure behind an error of `io_uring_setup(2)` or of registering buffers.
pub fn explain(error: &io::Error) -> Refusal {
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
        .is_ok_and(|text| text.trim() != "0");
    let (cause, cure) = match error.raw_os_error() {
        Some(libc::EPERM) if disabled => (
            "the sysctl kernel.io_uring_disabled forbids it (EPERM)",
            "run `sysctl -w kernel.io_uring_disabled=0` as root, or add the user to the group in \
             kernel.io_uring_group",
        ),
        Some(libc::EPERM) | Some(libc::EACCES) => (
            "a seccomp filter forbids it (EPERM); Docker, containerd and Podman do by default",
            "start the container with the profile deploy/container/seccomp.json \
             (--security-opt seccomp=FILE)",
        ),
        Some(libc::ENOSYS) => (
            "the kernel or a seccomp filter does not know it (ENOSYS)",
            "use Linux 5.19 or newer; in a container use the profile \
             deploy/container/seccomp.json (--security-opt seccomp=FILE)",
        ),
        Some(libc::ENOMEM) => (
            "the limit on locked memory is too low (RLIMIT_MEMLOCK, ENOMEM)",
            "raise it (`ulimit -l unlimited`, LimitMEMLOCK=infinity in the systemd unit): each shard's ring \
             needs some 256 KiB, and with storage.registered_buffers = \"require\" the buffers count too",
        ),
        Some(libc::EMFILE) | Some(libc::ENFILE) => (
            "no file descriptor is left (EMFILE)",
            "raise the limit (`ulimit -n`, LimitNOFILE= in the systemd unit)",
        ),
        _ => (
            "the kernel gave an unexpected error",
            "report it together with `uname -a`",
        ),
    };
    Refusal {
        cause: format!("{cause}: {error}"),
        cure,
    }
}
