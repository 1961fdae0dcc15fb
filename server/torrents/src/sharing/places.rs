//! Where the files of a torrent are on the disk, and whether others are at the same places: in the
//! same folder (its device and inode), by the same name. Save folders may be symbolic links, or
//! mounted in several places.
//!
//! Blocks on the disk.

use super::mounts::Mounts;
use super::short;
use crate::beneath::Beneath;
use engine::layout::FileStamp;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// A folder or file: its device and inode.
type Identity = (u64, u64);

/// Names of files in a folder, by their short forms, and where they are below the save folder.
type InFolder = HashMap<u64, Vec<(OsString, PathBuf)>>;

/// Files of a torrent that is gone.
#[derive(Default)]
pub(crate) struct Places {
    folders: HashMap<Identity, InFolder>,
    /// The folders of the files, and those above them by any of their names.
    on_the_way: HashSet<Identity>,
    /// The names of all of these, and of the files.
    names: HashSet<u64>,
    folder: PathBuf,
}

/// What another torrent names.
pub(crate) struct Named {
    folder: PathBuf,
    files: Vec<PathBuf>,
    /// What its files were, of each that is known.
    pub stamps: Vec<Option<FileStamp>>,
}

impl Named {
    pub(crate) fn new(folder: PathBuf, files: Vec<PathBuf>) -> Named {
        Named {
            folder,
            files,
            stamps: Vec::new(),
        }
    }
}

fn identity(path: &Path) -> Option<Identity> {
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

fn above(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

impl Places {
    /// The files at these paths below `folder`.
    pub(crate) fn of(folder: &Path, files: &[PathBuf]) -> Places {
        let mut places = Places {
            folder: folder.to_owned(),
            ..Places::default()
        };
        let Ok(root) = Beneath::open(folder) else {
            return places;
        };
        let mut folders: BTreeMap<&Path, Option<Identity>> = BTreeMap::new();
        for file in files {
            let found = folders.entry(above(file));
            let found = *found.or_insert_with(|| root.folder_of(file));
            let (Some(found), Some(name)) = (found, file.file_name()) else {
                continue;
            };
            let in_folder = places.folders.entry(found).or_default();
            let same = in_folder.entry(short(name)).or_default();
            same.push((name.to_owned(), file.clone()));
            places.names.insert(short(name));
        }
        places.add_ways(folder, folders.keys());
        places
    }

    /// Notes the folders above those of the files, by all their names.
    fn add_ways<'p>(&mut self, folder: &Path, below: impl Iterator<Item = &'p &'p Path>) {
        let real = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
        let mounts = Mounts::read();
        let mut seen = HashSet::new();
        for below in below {
            for name in mounts.names(&real.join(below)) {
                for above in name.ancestors() {
                    if !seen.insert(above.to_owned()) {
                        break;
                    }
                    self.on_the_way.extend(identity(above));
                    if let Some(Component::Normal(name)) = above.components().next_back() {
                        self.names.insert(short(name));
                    }
                }
            }
        }
    }

    /// Short forms of names one of which the path of everything here begins with, below whatever
    /// save folder.
    pub(super) fn names(&self) -> &HashSet<u64> {
        &self.names
    }

    /// Whether files below `folder` can be files here. What is not there can be: its mount may be
    /// away.
    pub(super) fn is_on_the_way(&self, folder: &Path) -> bool {
        identity(folder).is_none_or(|found| self.on_the_way.contains(&found))
    }

    /// Whether what is at `path`, a file or a folder with all that is below it, has some of the files
    /// here.
    pub(super) fn touch(&self, path: &Path) -> bool {
        let Some(found) = identity(path) else {
            // Nobody can say what it is: its name has to do.
            let is_near = self.folder.starts_with(path) || path.starts_with(&self.folder);
            let here = self.folders.values().flat_map(HashMap::values).flatten();
            let mut files = here.map(|(_, below)| self.folder.join(below));
            return is_near && files.any(|file| file.starts_with(path));
        };
        if self.on_the_way.contains(&found) {
            return true;
        }
        let mut touches = false;
        let mut tell = |_| touches = true;
        if let (Some(folder), Some(name)) = (identity(above(path)), path.file_name()) {
            self.find_in(folder, (name, path), &mut tell);
        }
        self.find_linked(path, &mut tell);
        touches
    }

    /// Tells the paths of those files that `other` names, too.
    pub(super) fn find(&self, other: &Named, suffix: &str, mut tell: impl FnMut(PathBuf)) {
        if identity(&other.folder).is_none() {
            self.find_stamped(other, tell);
            return;
        }
        let mut folders: HashMap<&Path, Option<Identity>> = HashMap::new();
        for file in &other.files {
            let found = folders.entry(above(file));
            let found = *found.or_insert_with(|| identity(&other.folder.join(above(file))));
            for name in crate::deleting::names(file.clone(), suffix) {
                let path = other.folder.join(&name);
                if let (Some(found), Some(name)) = (found, name.file_name()) {
                    self.find_in(found, (name, &path), &mut tell);
                }
                self.find_linked(&path, &mut tell);
            }
        }
    }

    /// Tells those in a folder that have this name there, or are the same file where the file
    /// system does not know upper from lower case.
    fn find_in(
        &self,
        folder: Identity,
        (name, path): (&OsStr, &Path),
        tell: &mut impl FnMut(PathBuf),
    ) {
        let in_folder = self.folders.get(&folder);
        let same = in_folder.and_then(|in_folder| in_folder.get(&short(name)));
        for (mine, below) in same.into_iter().flatten() {
            let is_same = || {
                let found = identity(path);
                found.is_some() && found == identity(&self.folder.join(below))
            };
            if mine == name || is_same() {
                tell(below.clone());
            }
        }
    }

    /// Tells the file that a symbolic link leads to.
    fn find_linked(&self, path: &Path, tell: &mut impl FnMut(PathBuf)) {
        let is_link = fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
        let target = is_link.then(|| fs::canonicalize(path).ok()).flatten();
        let Some(target) = target else { return };
        if let (Some(folder), Some(name)) = (identity(above(&target)), target.file_name()) {
            self.find_in(folder, (name, &target), tell);
        }
    }

    /// Tells those that are what the other's files were, whose folder is not there now.
    fn find_stamped(&self, other: &Named, mut tell: impl FnMut(PathBuf)) {
        let stamps = other.stamps.iter().flatten();
        let known: HashSet<Identity> = stamps.map(|stamp| (stamp.device, stamp.inode)).collect();
        if known.is_empty() {
            return;
        }
        let here = self.folders.values().flat_map(HashMap::values).flatten();
        for (_, below) in here {
            let found = identity(&self.folder.join(below));
            if found.is_some_and(|found| known.contains(&found)) {
                tell(below.clone());
            }
        }
    }
}
