//! A data directory, and files opened beneath it and nowhere else.
//!
//! Every open is an `openat2` that the kernel refuses if the path leaves the directory, so that a
//! symbolic link put in a file's place while we work leads to an error and not to another file.
//! Opens are read-only, never block (a FIFO or a device in a file's place is opened non-blocking
//! and refused), and only regular files are handed out.

use super::FileFault;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path};

/// How often an open that raced with a rename is tried again before its error counts.
const OPEN_ATTEMPTS_MAX: u32 = 16;

/// Whether symbolic links inside a data directory are followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Links {
    /// Not at all: the path of a file that is one, or that has one among its folders, is refused.
    Refused,
    /// As long as they are relative and end beneath the directory.
    Beneath,
}

/// An open directory beneath which files are opened.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    links: Links,
}

impl Root {
    /// Opens `directory`; symbolic links on the way to it are the caller's own and are followed.
    pub fn open(directory: &Path, links: Links) -> io::Result<Root> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::PATH;
        let directory = rustix::fs::open(directory, flags, Mode::empty())?;
        Ok(Root { directory, links })
    }

    /// Opens the regular file at `path`, relative to the directory, for reading.
    pub fn open_file(&self, path: &Path) -> Result<(File, Metadata), FileFault> {
        self.open_regular(path, OFlags::empty())
    }

    /// The same for reads past the page cache (O_DIRECT), which not every file system has.
    pub(super) fn open_file_direct(&self, path: &Path) -> Result<(File, Metadata), FileFault> {
        self.open_regular(path, OFlags::DIRECT)
    }

    fn open_regular(&self, path: &Path, extra: OFlags) -> Result<(File, Metadata), FileFault> {
        let file = File::from(self.open_beneath(path, extra).map_err(fault_of_open)?);
        let metadata = file.metadata().map_err(|error| FileFault::Io {
            operation: "read its metadata",
            error,
        })?;
        match special_kind(&metadata.file_type()) {
            Some(kind) => Err(FileFault::NotRegular { kind }),
            None => Ok((file, metadata)),
        }
    }

    /// Opens whatever is at `path`, without waiting for anything.
    fn open_beneath(&self, path: &Path, extra: OFlags) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY | extra;
        let resolve = ResolveFlags::BENEATH
            | ResolveFlags::NO_MAGICLINKS
            | match self.links {
                Links::Refused => ResolveFlags::NO_SYMLINKS,
                Links::Beneath => ResolveFlags::empty(),
            };
        let mut attempts = 0;
        loop {
            attempts += 1;
            match rustix::fs::openat2(&self.directory, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) if attempts < OPEN_ATTEMPTS_MAX => {}
                // A container's seccomp profile from before openat2 existed.
                Err(Errno::NOSYS | Errno::PERM) => {
                    return self.open_by_component(path, flags);
                }
                result => return result,
            }
        }
    }

    /// The same without `openat2`: folder by folder, none of which may be a link, whatever [`Links`] says.
    fn open_by_component(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::NOFOLLOW;
        let mut components = path.components().peekable();
        let mut folder = None;
        while let Some(component) = components.next() {
            let Component::Normal(name) = component else {
                return Err(Errno::XDEV);
            };
            let at = folder.as_ref().unwrap_or(&self.directory);
            if components.peek().is_none() {
                return rustix::fs::openat(at, name, flags, Mode::empty());
            }
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            folder = Some(rustix::fs::openat(at, name, flags, Mode::empty())?);
        }
        Err(Errno::ISDIR)
    }
}

/// What a file that is not a regular one is, in words; `None` for a regular one.
pub fn special_kind(file_type: &std::fs::FileType) -> Option<&'static str> {
    if file_type.is_file() {
        return None;
    }
    Some(if file_type.is_dir() {
        "a directory"
    } else if file_type.is_symlink() {
        "a symbolic link"
    } else if file_type.is_fifo() {
        "a FIFO"
    } else if file_type.is_socket() {
        "a socket"
    } else if file_type.is_block_device() || file_type.is_char_device() {
        "a device"
    } else {
        "a special file"
    })
}

/// What a failed open means.
fn fault_of_open(errno: Errno) -> FileFault {
    match errno {
        Errno::NOENT | Errno::NOTDIR => FileFault::Missing,
        Errno::LOOP | Errno::XDEV => FileFault::Link,
        // What opening a socket, or a FIFO or device without a driver or reader, answers.
        Errno::NXIO | Errno::NODEV => FileFault::NotRegular {
            kind: "a socket or a device",
        },
        errno => FileFault::Io {
            operation: "open it",
            error: errno.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    /// A root with a file inside and one outside, and a link of every kind.
    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("folder")).unwrap();
        fs::write(root.join("folder/file"), "inside").unwrap();
        fs::write(dir.path().join("outside"), "outside").unwrap();
        symlink("folder/file", root.join("to-file")).unwrap();
        symlink("folder", root.join("to-folder")).unwrap();
        symlink("../outside", root.join("to-outside")).unwrap();
        symlink(dir.path().join("outside"), root.join("to-absolute")).unwrap();
        symlink("to-itself", root.join("to-itself")).unwrap();
        dir
    }

    fn fault(root: &Root, path: &str) -> FileFault {
        root.open_file(Path::new(path)).unwrap_err()
    }

    #[test]
    fn links_are_refused_or_followed_beneath_the_root_only() {
        let dir = tree();
        let refused = Root::open(&dir.path().join("root"), Links::Refused).unwrap();
        let beneath = Root::open(&dir.path().join("root"), Links::Beneath).unwrap();
        for root in [&refused, &beneath] {
            assert_eq!(root.open_file(Path::new("folder/file")).unwrap().1.len(), 6);
            for path in ["to-outside", "to-absolute", "to-itself", "../outside"] {
                assert!(matches!(fault(root, path), FileFault::Link), "{path}");
            }
            assert!(matches!(fault(root, "absent"), FileFault::Missing));
            assert!(matches!(fault(root, "folder/file/x"), FileFault::Missing));
            assert!(matches!(
                fault(root, "folder"),
                FileFault::NotRegular { .. }
            ));
        }
        for path in ["to-file", "to-folder/file"] {
            assert!(matches!(fault(&refused, path), FileFault::Link), "{path}");
            assert!(beneath.open_file(Path::new(path)).is_ok(), "{path}");
        }
    }

    #[test]
    fn the_way_without_openat2_refuses_the_same() {
        let dir = tree();
        let root = Root::open(&dir.path().join("root"), Links::Refused).unwrap();
        let open = |path: &str| root.open_by_component(Path::new(path), OFlags::RDONLY);
        assert!(open("folder/file").is_ok());
        for path in [
            "to-file",
            "to-folder/file",
            "to-outside",
            "to-absolute",
            "to-itself",
        ] {
            let fault = fault_of_open(open(path).unwrap_err());
            // A link in a folder's place is told apart from a file there only by openat2.
            assert!(
                matches!(fault, FileFault::Link | FileFault::Missing),
                "{path}: {fault}"
            );
        }
        for path in ["../outside", "/etc/passwd", "", "folder/../../outside"] {
            assert!(open(path).is_err(), "{path}");
        }
    }

    #[test]
    fn special_files_are_refused_without_blocking() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        let _listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        let root = Root::open(dir.path(), Links::Refused).unwrap();
        assert!(matches!(
            fault(&root, "fifo"),
            FileFault::NotRegular { kind: "a FIFO" }
        ));
        assert!(matches!(
            fault(&root, "socket"),
            FileFault::NotRegular { .. }
        ));
    }
}
