//! Which files are in a watch folder. Blocks on the disk.
//!
//! Limits: [`FILES_MAX`] files that concern us and [`FOLDERS_MAX`] folders, [`DEPTH_MAX`] deep;
//! what is beyond is not seen until there are fewer.

use super::content::Kind;
use super::spot::{Stamp, There};
use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Files of one watch that are minded at once.
pub(super) const FILES_MAX: usize = 32_768;

/// Folders of one watch.
const FOLDERS_MAX: usize = 4096;

/// How deep they lie.
const DEPTH_MAX: usize = 32;

/// Which folder it is, and when it was changed last: its inode, seconds and nanoseconds.
pub(super) type Changed = (u64, i64, i64);

/// The folders of a watch.
pub(super) type Folders = BTreeMap<PathBuf, Changed>;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Files that concern us, by their paths below the watch; no stamp if they are no ordinary
    /// files.
    pub files: BTreeMap<PathBuf, Option<Stamp>>,
    pub folders: Folders,
    /// Folders that could not be listed, and files that could not be looked at, with the reason:
    /// what is there is not known.
    pub unknown: BTreeMap<PathBuf, String>,
    /// Whether there is more than the limits let be seen.
    pub is_cut: bool,
}

impl Found {
    /// Something could not be looked at. What has gone is known: it is not there.
    fn unknown(&mut self, path: PathBuf, error: &io::Error) {
        if error.kind() != io::ErrorKind::NotFound {
            self.unknown.insert(path, error.to_string());
        }
    }
}

/// Looks into a watch folder; none if no folder has changed since `before`.
pub(super) fn look(
    root: &Path,
    recursive: bool,
    before: Option<&Folders>,
) -> io::Result<Option<Found>> {
    // It is what says that the folder is there, at each look.
    let changed = changed_at(&std::fs::metadata(root)?);
    if let Some(before) = before {
        let is_same = |(path, known): (&PathBuf, &Changed)| {
            let now = std::fs::symlink_metadata(root.join(path));
            now.is_ok_and(|now| changed_at(&now) == *known)
        };
        let root_is_same = before.get(Path::new("")) == Some(&changed);
        let mut below = before
            .iter()
            .filter(|(path, _)| !path.as_os_str().is_empty());
        if root_is_same && below.all(is_same) {
            return Ok(None);
        }
    }
    let mut found = Found::default();
    found.folders.insert(PathBuf::new(), changed);
    let mut left = vec![(PathBuf::new(), 0)];
    while let Some((folder, depth)) = left.pop() {
        let listed = list(root, &folder, &mut found);
        let below = match listed {
            // One that vanished meanwhile, or that nobody may read, hides no other.
            Err(error) if depth > 0 => {
                found.unknown(folder, &error);
                continue;
            }
            listed => listed?,
        };
        for (path, changed) in below {
            if !recursive {
                break;
            }
            if depth == DEPTH_MAX || found.folders.len() == FOLDERS_MAX {
                found.is_cut = true;
                break;
            }
            found.folders.insert(path.clone(), changed);
            left.push((path, depth + 1));
        }
    }
    Ok(Some(found))
}

/// Lists one folder: its files into `found`; returns the folders in it.
fn list(root: &Path, folder: &Path, found: &mut Found) -> io::Result<Vec<(PathBuf, Changed)>> {
    let mut below = Vec::new();
    for entry in std::fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let name = entry.file_name();
        let is_dotted = name.as_encoded_bytes().first() == Some(&b'.');
        let is_folder = entry.file_type()?.is_dir();
        let is_ours = Kind::of(&name).is_some();
        if is_dotted || !(is_folder || is_ours) {
            continue;
        }
        let path = folder.join(&name);
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            Err(error) => {
                found.unknown(path, &error);
                continue;
            }
        };
        if metadata.is_dir() {
            below.push((path, changed_at(&metadata)));
        } else if found.files.len() == FILES_MAX {
            found.is_cut = true;
        } else {
            let stamp = match there(&metadata) {
                There::File(stamp) => Some(stamp),
                There::Folder | There::Special => None,
            };
            found.files.insert(path, stamp);
        }
    }
    Ok(below)
}

fn changed_at(metadata: &Metadata) -> Changed {
    (metadata.ino(), metadata.mtime(), metadata.mtime_nsec())
}

fn there(metadata: &Metadata) -> There {
    match metadata.is_file() {
        true => There::File(Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            changed_ns: i128::from(metadata.mtime()) * 1_000_000_000
                + i128::from(metadata.mtime_nsec()),
        }),
        false => There::Special,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags};
    use std::fs;

    fn names(found: &Found) -> Vec<&str> {
        found
            .files
            .keys()
            .map(|path| path.to_str().unwrap())
            .collect()
    }

    #[test]
    fn files_that_concern_us_are_found_and_links_are_not_walked() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir_all(path("sub/deep")).unwrap();
        fs::create_dir_all(path(".hidden")).unwrap();
        for name in [
            "a.torrent",
            "b.txt",
            ".c.torrent",
            "sub/d.magnet",
            "sub/deep/e.torrent",
        ] {
            fs::write(path(name), "x").unwrap();
        }
        fs::write(path(".hidden/f.torrent"), "x").unwrap();
        std::os::unix::fs::symlink(folder.path(), path("round")).unwrap();
        std::os::unix::fs::symlink("a.torrent", path("g.torrent")).unwrap();
        let found = look(folder.path(), false, None).unwrap().unwrap();
        assert_eq!(names(&found), ["a.torrent", "g.torrent"]);
        assert!(found.files[Path::new("g.torrent")].is_none());
        let found = look(folder.path(), true, None).unwrap().unwrap();
        let all = [
            "a.torrent",
            "g.torrent",
            "sub/d.magnet",
            "sub/deep/e.torrent",
        ];
        assert_eq!(names(&found), all);
        assert_eq!(found.folders.len(), 3);
        assert!(!found.is_cut);
        // Nothing has changed, then something has, deep below.
        let again = look(folder.path(), true, Some(&found.folders)).unwrap();
        assert!(again.is_none());
        fs::remove_file(path("sub/deep/e.torrent")).unwrap();
        fs::remove_dir(path("sub/deep")).unwrap();
        let again = look(folder.path(), true, Some(&found.folders)).unwrap();
        assert_eq!(names(&again.unwrap()), all[..3]);
        assert!(look(&path("absent"), false, None).is_err());
    }

    /// As of a mount that does not answer: its files are neither there nor gone.
    #[test]
    fn a_folder_that_cannot_be_listed_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.torrent"), "x").unwrap();
        // The way to it becomes longer than the kernel takes, also for root, whom no mode hinders.
        let name = "d".repeat(250);
        let mut deepest =
            rustix::fs::open(folder.path(), OFlags::DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..20 {
            rustix::fs::mkdirat(&deepest, &name, Mode::RWXU).unwrap();
            deepest =
                rustix::fs::openat(&deepest, &name, OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        let found = look(folder.path(), true, None).unwrap().unwrap();
        assert_eq!(names(&found), ["a.torrent"]);
        let unknown: Vec<_> = found.unknown.into_iter().collect();
        assert_eq!(unknown.len(), 1, "{unknown:?}");
        assert!(unknown[0].1.contains("too long"), "{unknown:?}");
        let found = look(folder.path(), false, None).unwrap().unwrap();
        assert!(found.unknown.is_empty());
    }
}
