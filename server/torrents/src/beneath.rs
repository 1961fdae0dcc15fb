//! Files and folders beneath a torrent's save folder, by their relative paths: what is written,
//! linked or deleted there goes through no symbolic link and never outside.
//!
//! Each step of a path is opened by itself (`O_NOFOLLOW`), so it works in containers whose seccomp
//! profile does not know `openat2`. Blocks on the disk.

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path};

const FOLDER: OFlags = OFlags::DIRECTORY
    .union(OFlags::RDONLY)
    .union(OFlags::CLOEXEC);

/// A folder that belongs to the user: links on the way to it are followed.
pub(crate) struct Beneath(OwnedFd);

impl Beneath {
    pub(crate) fn open(folder: &Path) -> io::Result<Beneath> {
        Ok(Beneath(rustix::fs::open(folder, FOLDER, Mode::empty())?))
    }

    /// The folder of `path`, opened; made, with those above it, if that is said.
    fn above(&self, path: &Path, make: bool) -> Result<OwnedFd, Errno> {
        let mut folder = self.0.try_clone().map_err(|_| Errno::MFILE)?;
        for component in path.parent().into_iter().flat_map(Path::components) {
            let Component::Normal(name) = component else {
                return Err(Errno::INVAL);
            };
            if make {
                match rustix::fs::mkdirat(&folder, name, Mode::from_raw_mode(0o777)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error),
                }
            }
            let flags = FOLDER | OFlags::NOFOLLOW;
            folder = rustix::fs::openat(&folder, name, flags, Mode::empty())?;
        }
        Ok(folder)
    }

    fn name(path: &Path) -> Result<&std::ffi::OsStr, Errno> {
        match path.components().next_back() {
            Some(Component::Normal(name)) => Ok(name),
            _ => Err(Errno::INVAL),
        }
    }

    /// Opens a regular file for reading.
    pub(crate) fn read(&self, path: &Path) -> io::Result<File> {
        let folder = self.above(path, false)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(folder, Self::name(path)?, flags, Mode::empty())?;
        regular(File::from(file))
    }

    /// Which folder a file is in: its device and inode. None if it is not there.
    pub(crate) fn folder_of(&self, path: &Path) -> Option<(u64, u64)> {
        let found = rustix::fs::fstat(self.above(path, false).ok()?).ok()?;
        Some((found.st_dev, found.st_ino))
    }

    /// How many bytes its file system takes yet; none if that says nothing about it.
    pub(crate) fn free_bytes(&self) -> Option<u64> {
        let found = rustix::fs::fstatvfs(&self.0).ok()?;
        (found.f_blocks > 0).then(|| found.f_bavail.saturating_mul(found.f_frsize))
    }

    /// Makes a file that is not there yet, with the folders above it.
    pub(crate) fn create(&self, path: &Path) -> io::Result<File> {
        let folder = self.above(path, true)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o666);
        let file = rustix::fs::openat(folder, Self::name(path)?, flags, mode)?;
        Ok(File::from(file))
    }

    /// Gives a file a name, in the same folder, that nothing has yet.
    pub(crate) fn rename(&self, path: &Path, new: &Path) -> Result<(), Errno> {
        let folder = self.above(path, false)?;
        self.name_anew((&folder, path), (&folder, new))
    }

    /// Gives a file a name, in any folder, that nothing has yet; folders above it are made.
    pub(crate) fn rename_beneath(&self, path: &Path, new: &Path) -> Result<(), Errno> {
        let (from, into) = (self.above(path, false)?, self.above(new, true)?);
        self.name_anew((&from, path), (&into, new))
    }

    fn name_anew(
        &self,
        (from, path): (&OwnedFd, &Path),
        (into, new): (&OwnedFd, &Path),
    ) -> Result<(), Errno> {
        let (old, name) = (Self::name(path)?, Self::name(new)?);
        match rustix::fs::renameat_with(from, old, into, name, RenameFlags::NOREPLACE) {
            // NFS and FUSE know no such rename; a second name is never given over another.
            Err(Errno::INVAL | Errno::NOSYS) => {
                match rustix::fs::linkat(from, old, into, name, AtFlags::empty()) {
                    Ok(()) => rustix::fs::unlinkat(from, old, AtFlags::empty()),
                    // Nor second names: it is looked first.
                    Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => {
                        match rustix::fs::statat(into, name, AtFlags::SYMLINK_NOFOLLOW) {
                            Err(Errno::NOENT) => rustix::fs::renameat(from, old, into, name),
                            Ok(_) => Err(Errno::EXIST),
                            Err(error) => Err(error),
                        }
                    }
                    Err(error) => Err(error),
                }
            }
            result => result,
        }
    }

    /// Whether anything has this name. Where that cannot be found out, it counts as taken.
    pub(crate) fn exists(&self, path: &Path) -> bool {
        let found = || {
            let folder = self.above(path, false)?;
            rustix::fs::statat(folder, Self::name(path)?, AtFlags::SYMLINK_NOFOLLOW)
        };
        !matches!(found(), Err(Errno::NOENT | Errno::NOTDIR))
    }

    /// The names in the folder of `path`.
    pub(crate) fn names_beside(&self, path: &Path) -> Result<Vec<OsString>, Errno> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(self.above(path, false)?)? {
            names.push(OsString::from_vec(entry?.file_name().to_bytes().to_vec()));
        }
        Ok(names)
    }

    /// Whether its folder lists exactly this name.
    pub(crate) fn lists(&self, path: &Path) -> bool {
        let Ok(name) = Self::name(path) else {
            return false;
        };
        let names = self.names_beside(path).unwrap_or_default();
        names
            .iter()
            .any(|listed| listed.as_bytes() == name.as_bytes())
    }

    /// Gives a file another name in `to`, which nothing has yet; it keeps this one.
    pub(crate) fn link(&self, path: &Path, to: &Beneath, new: &Path) -> Result<(), Errno> {
        let (from, into) = (self.above(path, false)?, to.above(new, true)?);
        let (old, name) = (Self::name(path)?, Self::name(new)?);
        rustix::fs::linkat(from, old, into, name, AtFlags::empty())
    }

    /// Takes a file away; nothing there is no error.
    pub(crate) fn unlink(&self, path: &Path) -> Result<(), Errno> {
        self.unlink_if_there(path).map(|_| ())
    }

    /// The same, and whether it was there.
    pub(crate) fn unlink_if_there(&self, path: &Path) -> Result<bool, Errno> {
        self.take(path, AtFlags::empty())
    }

    /// Takes a folder away that is empty.
    pub(crate) fn remove_folder(&self, path: &Path) -> Result<(), Errno> {
        self.take(path, AtFlags::REMOVEDIR).map(|_| ())
    }

    fn take(&self, path: &Path, flags: AtFlags) -> Result<bool, Errno> {
        let taken = || rustix::fs::unlinkat(self.above(path, false)?, Self::name(path)?, flags);
        match taken() {
            Err(Errno::NOENT) => Ok(false),
            result => result.map(|()| true),
        }
    }

    /// Has the names in the folder of `path`, and in those above it, be on stable storage.
    pub(crate) fn sync_above(&self, path: &Path) -> io::Result<()> {
        path.ancestors()
            .skip(1)
            .try_for_each(|above| self.sync_folder(above))
    }

    /// Has the names in a folder be on stable storage.
    pub(crate) fn sync_folder(&self, path: &Path) -> io::Result<()> {
        // A path below it, so that its own folder is opened.
        let folder = self.above(&path.join("x"), false)?;
        Ok(rustix::fs::fsync(folder)?)
    }
}

fn regular(file: File) -> io::Result<File> {
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("not a regular file")),
    }
}
