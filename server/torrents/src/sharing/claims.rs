//! Which files a torrent names, and by which names these begin.

use proto::bencode::Limits;
use proto::metainfo::Metainfo;
use proto::path::fold_case;
use state::NewTorrent;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Names by which the files of a torrent begin; a torrent with more is looked at by everybody.
pub(super) const NAMES_MAX: usize = 32;

/// What a torrent with too many names has in their place.
pub(super) const ANY: u64 = u64::MAX;

/// A torrent that is not in the store, or not yet.
#[derive(Clone)]
pub(crate) struct Claim {
    pub folder: PathBuf,
    pub metainfo: Arc<Metainfo>,
    renames: BTreeMap<u32, PathBuf>,
    /// The names by which its files begin.
    pub names: Arc<[u64]>,
}

impl Claim {
    pub(crate) fn new(
        folder: PathBuf,
        metainfo: Arc<Metainfo>,
        renames: BTreeMap<u32, PathBuf>,
    ) -> Claim {
        let names = names_in(&metainfo, &renames).into();
        Claim {
            folder,
            metainfo,
            renames,
            names,
        }
    }

    /// What a torrent names that is to be added; none while its metainfo are not known.
    pub(crate) fn of(new: &NewTorrent) -> Option<Claim> {
        let metainfo = Metainfo::parse_within(new.metainfo.as_ref()?, &Limits::METAINFO_OWN);
        let folder = new.summary.save_path.clone();
        let renames = new.details.renames.clone();
        Some(Claim::new(folder, Arc::new(metainfo.ok()?), renames))
    }

    /// The paths of its files below its folder.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        own_paths(&self.metainfo, &self.renames)
    }
}

/// The paths of a torrent's files below its save folder.
pub(crate) fn own_paths(metainfo: &Metainfo, renames: &BTreeMap<u32, PathBuf>) -> Vec<PathBuf> {
    let files = (0..).zip(&metainfo.files).filter(|(_, file)| !file.pad);
    files
        .map(|(index, file)| {
            let said = || file.path.iter().collect();
            renames.get(&index).cloned().unwrap_or_else(said)
        })
        .collect()
}

/// A name under which a case-insensitive file system has the same as under others, in few bytes.
pub(crate) fn short(name: &OsStr) -> u64 {
    let mut hasher = DefaultHasher::new();
    match name.to_str() {
        Some(name) => fold_case(name).hash(&mut hasher),
        None => name.hash(&mut hasher),
    }
    hasher.finish().min(ANY - 1)
}

/// The names by which the files of a torrent begin; of a million files no path is built for that.
pub(super) fn names_in(metainfo: &Metainfo, renames: &BTreeMap<u32, PathBuf>) -> Box<[u64]> {
    let files = (0..).zip(&metainfo.files).filter(|(_, file)| !file.pad);
    names_of(files.filter_map(|(index, file)| match renames.get(&index) {
        Some(path) => first(path),
        None => file.path.first().map(OsStr::new),
    }))
}

/// The name by which a path begins.
pub(super) fn first(path: &Path) -> Option<&OsStr> {
    match path.components().next() {
        Some(Component::Normal(name)) => Some(name),
        _ => None,
    }
}

/// The short forms of the names by which files begin.
pub(super) fn names_of<'f>(files: impl Iterator<Item = &'f OsStr>) -> Box<[u64]> {
    let (mut names, mut last) = (BTreeSet::new(), None);
    for name in files {
        if last.replace(name) == Some(name) {
            continue;
        }
        names.insert(short(name));
        if names.len() > NAMES_MAX {
            return [ANY].into();
        }
    }
    names.into_iter().collect()
}
