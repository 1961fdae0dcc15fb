//! A file in a watch folder: looked at, read, renamed, moved and deleted by its name in a folder
//! that is open, with no symbolic link on the way to it below what is watched. Blocks on the disk.

use super::content::Kind;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path};

const FOLDER: OFlags = OFlags::DIRECTORY
    .union(OFlags::RDONLY)
    .union(OFlags::CLOEXEC);

/// The longest name of a file, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// Names that are tried for a file before it is given up.
const NAMES_MAX: u32 = 1000;

/// By which it is known that a file is the one that it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stamp {
    pub device: u64,
    pub inode: u64,
    pub bytes: u64,
    pub changed_ns: i128,
}

impl Stamp {
    fn of(stat: &Stat) -> Stamp {
        Stamp {
            device: stat.st_dev,
            inode: stat.st_ino,
            bytes: u64::try_from(stat.st_size).unwrap_or(0),
            changed_ns: i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec),
        }
    }
}

/// What is at a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum There {
    /// An ordinary file.
    File(Stamp),
    /// A folder.
    Folder,
    /// A link, a pipe, a device.
    Special,
}

/// What was read.
#[derive(Debug)]
pub(super) enum Content {
    Whole(Vec<u8>),
    /// It is longer than one of its kind can be.
    TooLong,
    /// It has changed while it was read, or since it was looked at.
    Changing,
}

/// See the module.
pub(super) struct Spot {
    folder: OwnedFd,
    name: OsString,
}

impl Spot {
    /// The file at `path` below `root`.
    pub(super) fn open(root: &Path, path: &Path) -> io::Result<Spot> {
        let mut folder = rustix::fs::open(root, FOLDER, Mode::empty())?;
        let mut name = None;
        for component in path.components() {
            let Component::Normal(next) = component else {
                return Err(Errno::INVAL.into());
            };
            if let Some(above) = name.replace(next) {
                let flags = FOLDER | OFlags::NOFOLLOW;
                folder = rustix::fs::openat(&folder, above, flags, Mode::empty())?;
            }
        }
        let name = name.ok_or(Errno::INVAL)?.to_owned();
        Ok(Spot { folder, name })
    }

    /// Its name.
    pub(super) fn name(&self) -> &OsStr {
        &self.name
    }

    /// What is there now.
    pub(super) fn look(&self) -> io::Result<There> {
        let stat = rustix::fs::statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => There::File(Stamp::of(&stat)),
            FileType::Directory => There::Folder,
            _ => There::Special,
        })
    }

    /// Reads the file that has this stamp.
    pub(super) fn read(&self, stamp: Stamp, kind: Kind) -> io::Result<Content> {
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.folder, &self.name, flags, Mode::empty())?;
        if Stamp::of(&rustix::fs::fstat(&file)?) != stamp {
            return Ok(Content::Changing);
        }
        if stamp.bytes > kind.bytes_max() {
            return Ok(Content::TooLong);
        }
        let mut content = Vec::with_capacity(usize::try_from(stamp.bytes).unwrap_or(0));
        let mut file = File::from(file);
        (&mut file)
            .take(stamp.bytes + 1)
            .read_to_end(&mut content)?;
        let is_same = Stamp::of(&rustix::fs::fstat(&file)?) == stamp;
        Ok(match is_same && content.len() as u64 == stamp.bytes {
            true => Content::Whole(content),
            false => Content::Changing,
        })
    }

    /// Gives the file that has this stamp another name, which ends with `suffix` and which nothing
    /// has yet.
    pub(super) fn rename(&self, stamp: Stamp, suffix: &str) -> io::Result<OsString> {
        self.check(stamp)?;
        self.rename_into(&self.folder, suffix)
    }

    /// Deletes the file that has this stamp.
    pub(super) fn delete(&self, stamp: Stamp) -> io::Result<()> {
        self.check(stamp)?;
        Ok(rustix::fs::unlinkat(
            &self.folder,
            &self.name,
            AtFlags::empty(),
        )?)
    }

    /// Moves the file that has this stamp into another folder, which is made if it is not there,
    /// and which may be on another file system.
    pub(super) fn move_into(&self, stamp: Stamp, folder: &Path) -> io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let into = rustix::fs::open(folder, FOLDER, Mode::empty())?;
        self.check(stamp)?;
        match self.rename_into(&into, "") {
            Err(error) if error.raw_os_error() == Some(Errno::XDEV.raw_os_error()) => {}
            result => return result.map(drop),
        }
        // A copy under a name that no watch takes, and that gets its own when it is whole.
        let (draft, to) = self.draft(into)?;
        let copied = self.copy_to(stamp, to).and_then(|()| {
            let into = draft.folder.try_clone()?;
            rename_as(&draft, &into, &self.name, "")
        });
        if copied.is_err() {
            let _ = rustix::fs::unlinkat(&draft.folder, &draft.name, AtFlags::empty());
        }
        copied?;
        self.delete(stamp)
    }

    /// A new file with a name that nothing has: others of this name may be on their way.
    fn draft(&self, into: OwnedFd) -> io::Result<(Spot, File)> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o666);
        let hidden = [b".", self.name.as_bytes()].concat();
        for number in 1..=NAMES_MAX {
            let name = fit(&hidden, &format!(".{number}.part"));
            match rustix::fs::openat(&into, &name, flags, mode) {
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
                Ok(file) => return Ok((Spot { folder: into, name }, File::from(file))),
            }
        }
        Err(Errno::EXIST.into())
    }

    fn copy_to(&self, stamp: Stamp, mut to: File) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let from = rustix::fs::openat(&self.folder, &self.name, flags, Mode::empty())?;
        let mut from = File::from(from);
        let copied = io::copy(&mut (&mut from).take(Kind::Torrent.bytes_max()), &mut to)?;
        if copied != stamp.bytes || Stamp::of(&rustix::fs::fstat(&from)?) != stamp {
            return Err(io::Error::other("another file is there now"));
        }
        to.sync_all()
    }

    /// Whether the name is still that of the file that was read.
    fn check(&self, stamp: Stamp) -> io::Result<()> {
        match self.look()? {
            There::File(now) if now == stamp => Ok(()),
            _ => Err(io::Error::other("another file is there now")),
        }
    }

    fn rename_into(&self, into: &OwnedFd, suffix: &str) -> io::Result<OsString> {
        rename_as(self, into, &self.name, suffix)
    }
}

/// Gives a file the first free name that is made of `name` and `suffix`.
fn rename_as(spot: &Spot, into: &OwnedFd, name: &OsStr, suffix: &str) -> io::Result<OsString> {
    for number in 1..=NAMES_MAX {
        let tail = match number {
            1 => suffix.to_owned(),
            _ => format!(".{number}{suffix}"),
        };
        let new = fit(name.as_bytes(), &tail);
        match rename_free(spot, into, &new) {
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
            Ok(()) => return Ok(new),
        }
    }
    Err(Errno::EXIST.into())
}

/// Renames where nothing has the name yet.
fn rename_free(spot: &Spot, into: &OwnedFd, new: &OsStr) -> Result<(), Errno> {
    let (folder, name) = (&spot.folder, &spot.name);
    match rustix::fs::renameat_with(folder, name, into, new, RenameFlags::NOREPLACE) {
        // Not every file system of the network or of a user's program has it.
        Err(Errno::INVAL | Errno::NOSYS) => {}
        result => return result,
    }
    match rustix::fs::statat(into, new, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => rustix::fs::renameat(folder, name, into, new),
        Err(error) => Err(error),
        Ok(_) => Err(Errno::EXIST),
    }
}

/// A name with a tail, of which so much is cut as names may not have.
fn fit(name: &[u8], tail: &str) -> OsString {
    let room = NAME_BYTES_MAX.saturating_sub(tail.len());
    let mut fitted = name[..name.len().min(room)].to_vec();
    fitted.extend_from_slice(tail.as_bytes());
    OsString::from_vec(fitted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn stamp(spot: &Spot) -> Stamp {
        match spot.look().unwrap() {
            There::File(stamp) => stamp,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_is_read_and_gets_a_name_that_nothing_has() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("a.torrent"), "one").unwrap();
        fs::write(path("a.torrent.added"), "other").unwrap();
        let spot = Spot::open(folder.path(), Path::new("a.torrent")).unwrap();
        let is = stamp(&spot);
        let Content::Whole(content) = spot.read(is, Kind::Torrent).unwrap() else {
            panic!("not read");
        };
        assert_eq!(content, b"one");
        assert_eq!(spot.rename(is, ".added").unwrap(), "a.torrent.2.added");
        assert_eq!(fs::read(path("a.torrent.added")).unwrap(), b"other");
        assert_eq!(fs::read(path("a.torrent.2.added")).unwrap(), b"one");
        let long = "x".repeat(247) + ".torrent";
        fs::write(path(&long), "long").unwrap();
        let spot = Spot::open(folder.path(), Path::new(&long)).unwrap();
        let name = spot.rename(stamp(&spot), ".invalid").unwrap();
        assert_eq!(name.len(), 255);
        assert!(name.as_bytes().ends_with(b"x.invalid"));
    }

    #[test]
    fn what_took_the_file_s_place_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.torrent");
        fs::write(&path, "one").unwrap();
        let spot = Spot::open(folder.path(), Path::new("a.torrent")).unwrap();
        let was = stamp(&spot);
        fs::remove_file(&path).unwrap();
        fs::write(folder.path().join("b"), "").unwrap();
        fs::write(&path, "other").unwrap();
        assert!(matches!(
            spot.read(was, Kind::Torrent),
            Ok(Content::Changing)
        ));
        assert!(spot.rename(was, ".added").is_err());
        assert!(spot.delete(was).is_err());
        assert!(spot.move_into(was, &folder.path().join("to")).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"other");
    }

    #[test]
    fn links_and_pipes_are_neither_followed_nor_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("x.torrent"), "x").unwrap();
        let link = |from: &Path, name: &str| {
            std::os::unix::fs::symlink(from, folder.path().join(name)).unwrap();
        };
        link(&outside.path().join("x.torrent"), "a.torrent");
        link(outside.path(), "below");
        let pipe = folder.path().join("p.torrent");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let spot = |path: &str| Spot::open(folder.path(), Path::new(path));
        assert_eq!(spot("a.torrent").unwrap().look().unwrap(), There::Special);
        assert_eq!(spot("p.torrent").unwrap().look().unwrap(), There::Special);
        assert!(spot("below/x.torrent").is_err());
        assert!(spot("../x.torrent").is_err());
        // One that took the place of a file after the look.
        let is = Spot::open(outside.path(), Path::new("x.torrent")).unwrap();
        let is = stamp(&is);
        assert!(spot("a.torrent").unwrap().read(is, Kind::Torrent).is_err());
        let read = spot("p.torrent").unwrap().read(is, Kind::Torrent);
        assert!(matches!(read, Ok(Content::Changing)));
    }

    #[test]
    fn a_file_is_moved_also_to_another_file_system() {
        let folder = tempfile::tempdir().unwrap();
        let near = folder.path().join("done/deep");
        let far = tempfile::tempdir_in("/dev/shm").ok();
        let folders = [Some(near), far.as_ref().map(|far| far.path().join("done"))];
        for to in folders.into_iter().flatten() {
            fs::create_dir_all(&to).unwrap();
            // Somebody else's on its way.
            fs::write(to.join(".a.torrent.1.part"), "theirs").unwrap();
            for content in ["one", "two"] {
                fs::write(folder.path().join("a.torrent"), content).unwrap();
                let spot = Spot::open(folder.path(), Path::new("a.torrent")).unwrap();
                spot.move_into(stamp(&spot), &to).unwrap();
                assert!(!folder.path().join("a.torrent").exists());
            }
            assert_eq!(fs::read(to.join("a.torrent")).unwrap(), b"one");
            assert_eq!(fs::read(to.join("a.torrent.2")).unwrap(), b"two");
            assert_eq!(fs::read(to.join(".a.torrent.1.part")).unwrap(), b"theirs");
            assert_eq!(fs::read_dir(&to).unwrap().count(), 3);
        }
    }
}
