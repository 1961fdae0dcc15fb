//! Whether and how an open file is read past the page cache (`O_DIRECT`).
//!
//! Such reads start and end at multiples of an alignment that the file system names (`statx`, Linux
//! 6.1) or that fits every ordinary one. Where they are refused, the file is read through the page
//! cache, and that is said once.

use crate::aligned::ALIGNMENT;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Once;

/// The path that means the descriptor itself.
const ITSELF: &CStr = c"";

/// Makes reads of `file` bypass the page cache, and returns the alignment that they need, in bytes.
/// `None` if they go through the page cache.
pub(crate) fn enable(file: &impl AsRawFd) -> Option<u32> {
    let descriptor = file.as_raw_fd();
    let alignment = match alignment(descriptor) {
        Ok(alignment) => alignment,
        Err(reason) => {
            tell(&reason);
            return None;
        }
    };
    match set_flags(descriptor, libc::O_DIRECT) {
        Ok(()) => Some(alignment),
        Err(error) => {
            tell(&error.to_string());
            None
        }
    }
}

/// Makes reads of `file` go through the page cache again, because one that did not was refused.
///
/// # Errors
///
/// What the kernel said.
pub(crate) fn disable(file: &impl AsRawFd) -> io::Result<()> {
    tell("the file system took the flag and refused the read");
    set_flags(file.as_raw_fd(), 0)
}

/// The alignment of offsets, lengths and memory of reads that bypass the page cache.
fn alignment(descriptor: RawFd) -> Result<u32, String> {
    // SAFETY: `statx` is plain data for which zeros are valid.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path is a C string, the descriptor is open, and `found` is ours to write.
    let answer = unsafe {
        libc::statx(
            descriptor,
            ITSELF.as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            &raw mut found,
        )
    };
    if answer != 0 || found.stx_mask & libc::STATX_DIOALIGN == 0 {
        // An older kernel, or a file system that does not say: whole pages suit all that can do it
        // at all.
        return Ok(ALIGNMENT as u32);
    }
    let alignment = found.stx_dio_offset_align.max(found.stx_dio_mem_align);
    if found.stx_dio_offset_align == 0 {
        Err("the file system has no such reads".into())
    } else if !alignment.is_power_of_two() || alignment as usize > ALIGNMENT {
        Err(format!(
            "the file system wants an alignment of {alignment} bytes"
        ))
    } else {
        Ok(alignment)
    }
}

fn set_flags(descriptor: RawFd, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: `F_SETFL` with plain flags on an open descriptor.
    if unsafe { libc::fcntl(descriptor, libc::F_SETFL, flags) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn tell(reason: &str) {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        tracing::warn!(
            reason,
            "files of a torrent are read through the page cache in spite of storage.send_path = \"direct\"; \
             to bypass it, keep them on a file system with O_DIRECT (ext4, XFS, Btrfs)"
        );
    });
}
