//! Which disks a move reads and writes: moves that share none are made side by side.
//!
//! Asking blocks on a disk that hangs, so it is for a thread for blocking work. A partition counts
//! as its disk. Does not: see that two logical volumes, or two subvolumes, are on one disk; moves
//! between these are only slower than they would be one after another.

use crate::beneath::Beneath;
use rustix::fs::{major, makedev, minor};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where files are moved from and to.
pub(crate) type Folders = (PathBuf, PathBuf);

/// The two disks of a move, or one twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Lane(u64, u64);

impl Lane {
    pub(crate) fn new(one: u64, other: u64) -> Lane {
        Lane(one.min(other), one.max(other))
    }

    /// Whether both have a disk.
    pub(crate) fn shares(&self, other: &Lane) -> bool {
        [self.0, self.1]
            .iter()
            .any(|disk| *disk == other.0 || *disk == other.1)
    }
}

/// What is found of the folders of a move before it begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    pub lane: Lane,
    /// Why files cannot come from there now.
    pub from: Option<String>,
    /// Why files cannot come there now; a move that has not begun makes the folder.
    pub to: Option<String>,
}

/// Looks at folders; blocks on their disks.
pub(crate) fn look((from, to): &Folders) -> Found {
    let trouble = |folder: &Path| {
        let opened = Beneath::open(folder);
        opened.err().map(|error| format!("{folder:?}: {error}"))
    };
    Found {
        lane: Lane::new(disk_of(from), disk_of(to)),
        from: trouble(from),
        to: trouble(to),
    }
}

/// The number of the disk that a folder is on, or would be.
fn disk_of(folder: &Path) -> u64 {
    for above in folder.ancestors() {
        match std::fs::metadata(above) {
            Ok(found) => return whole(found.dev()),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) => {}
            // A disk of its own: it fails.
            Err(_) => return 0,
        }
    }
    0
}

/// The disk of a partition; else the device itself.
fn whole(device: u64) -> u64 {
    let sys = format!("/sys/dev/block/{}:{}", major(device), minor(device));
    let sys = Path::new(&sys);
    if !sys.join("partition").exists() {
        return device;
    }
    let of_disk = || {
        let folder = sys.canonicalize().ok()?;
        let text = std::fs::read_to_string(folder.parent()?.join("dev")).ok()?;
        let (major, minor) = text.trim().split_once(':')?;
        Some(makedev(major.parse().ok()?, minor.parse().ok()?))
    };
    of_disk().unwrap_or(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_is_on_the_disk_that_it_would_be_on() {
        let one = tempfile::tempdir().unwrap();
        let there = one.path().to_owned();
        let folders = (there.clone(), there.join("not/there"));
        let found = look(&folders);
        assert_eq!(found.lane.0, found.lane.1);
        assert_eq!(found.from, None);
        assert!(found.to.unwrap().contains("not/there"));
        let Ok(other) = tempfile::tempdir_in("/dev/shm") else {
            return eprintln!("SKIP: there is no /dev/shm");
        };
        let found = look(&(other.path().to_owned(), other.path().to_owned()));
        assert_eq!(found.lane.0, other.path().metadata().unwrap().dev());
    }

    #[test]
    fn lanes_share_a_disk_or_do_not() {
        let [one, two, three] = [Lane::new(1, 2), Lane::new(2, 1), Lane::new(3, 3)];
        assert_eq!(one, two);
        assert!(one.shares(&two) && !one.shares(&three) && three.shares(&three));
        assert!(Lane::new(3, 2).shares(&one));
    }
}
