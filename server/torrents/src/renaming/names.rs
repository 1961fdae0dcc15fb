//! Which files of a torrent are called otherwise by a rename, and what speaks against it.
//!
//! Pure: the disk is not asked. Paths are those below the save path; none leaves it, none is taken
//! by two files, or by a file and a folder, also where a file system does not tell upper from lower
//! case.

use crate::reading::Kept;
use control::command::{CommandError, Rename};
use proto::metainfo::Metainfo;
use proto::path::{fold_case, sanitise_component};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// The longest path below a save path, in bytes: what Linux takes at once.
const PATH_BYTES_MAX: usize = 4096;

/// A file that is called otherwise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Change {
    pub index: u32,
    pub old: PathBuf,
    pub new: PathBuf,
}

/// What a rename comes to.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Names {
    /// The paths of all files that lie elsewhere than the metainfo says, then.
    pub renames: BTreeMap<u32, PathBuf>,
    pub changes: Vec<Change>,
}

impl Names {
    /// What `rename` makes of the names of a torrent's files, of which those that are not whole may
    /// have `suffix` at the end, if the torrent's have one.
    pub(crate) fn after(kept: &Kept, rename: &Rename, suffix: &str) -> Result<Names, CommandError> {
        let Some((_, metainfo)) = &kept.metainfo else {
            let why = "its metainfo are not known yet: it has no files to rename";
            return Err(CommandError::Conflict(why.to_owned()));
        };
        let suffix = kept.suffix(suffix);
        Names::of(metainfo, &kept.details.renames, rename, suffix)
    }

    fn of(
        metainfo: &Metainfo,
        before: &BTreeMap<u32, PathBuf>,
        rename: &Rename,
        suffix: &str,
    ) -> Result<Names, CommandError> {
        let mut names = Names {
            renames: before.clone(),
            changes: Vec::new(),
        };
        let mut found = false;
        for (index, file) in (0..).zip(&metainfo.files) {
            let said: PathBuf = file.path.iter().collect();
            let old = before.get(&index).unwrap_or(&said).clone();
            let Some(new) = renamed(rename, index, &old).filter(|_| !file.pad) else {
                continue;
            };
            found = true;
            if new == old {
                continue;
            }
            let checked = check(&new, suffix).and_then(|()| check_end(&old, &new, suffix));
            checked.map_err(|reason| CommandError::Invalid {
                field: rename.field(),
                reason,
            })?;
            match new == said {
                true => names.renames.remove(&index),
                false => names.renames.insert(index, new.clone()),
            };
            names.changes.push(Change { index, old, new });
        }
        if !found {
            return Err(nothing(rename, metainfo));
        }
        names.check_apart(metainfo, suffix)?;
        Ok(names)
    }

    /// Refuses paths that two files would have.
    fn check_apart(&self, metainfo: &Metainfo, suffix: &str) -> Result<(), CommandError> {
        let changed: HashSet<u32> = self.changes.iter().map(|change| change.index).collect();
        let (mut files, mut folders) = (HashMap::new(), HashMap::new());
        let clash = |path: &Path, one: u32, other: u32| {
            let why = format!("{path:?} would be the path of files {one} and {other}");
            Err(CommandError::Conflict(why))
        };
        for (index, path) in self.paths(metainfo) {
            for variant in variants(&path, suffix) {
                match files.insert(folded(&variant), index) {
                    Some(other) if changed.contains(&index) || changed.contains(&other) => {
                        return clash(&path, other, index);
                    }
                    _ => {}
                }
            }
            for above in path.ancestors().skip(1) {
                // One of those that are renamed, if any is below it.
                let place = folders.entry(folded(above)).or_insert(index);
                if changed.contains(&index) {
                    *place = index;
                }
            }
        }
        for (index, path) in self.paths(metainfo) {
            for variant in variants(&path, suffix) {
                match folders.get(&folded(&variant)) {
                    Some(other) if changed.contains(&index) || changed.contains(other) => {
                        return clash(&path, *other, index);
                    }
                    _ => {}
                }
            }
        }
        self.check_free(suffix)
    }

    /// Refuses paths that another of the files has until it is called otherwise, whole or not: what
    /// lies there could be the one or the other.
    fn check_free(&self, suffix: &str) -> Result<(), CommandError> {
        let old = |change: &Change| {
            let index = change.index;
            let old = variants(&change.old, suffix).into_iter();
            old.map(move |path| (path, index)).collect::<Vec<_>>()
        };
        let old: HashMap<PathBuf, u32> = self.changes.iter().flat_map(old).collect();
        for change in &self.changes {
            for path in variants(&change.new, suffix) {
                match old.get(&path) {
                    Some(other) if *other != change.index => {
                        return Err(CommandError::Conflict(format!(
                            "{path:?} is the path of file {other} still; rename that one first"
                        )));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// The paths of all files then.
    fn paths(&self, metainfo: &Metainfo) -> impl Iterator<Item = (u32, PathBuf)> {
        let files = (0..).zip(&metainfo.files).filter(|(_, file)| !file.pad);
        files.map(|(index, file)| {
            let said = || file.path.iter().collect();
            let own = self.renames.get(&index).cloned();
            (index, own.unwrap_or_else(said))
        })
    }
}

/// The path that a file has then, if it is meant.
fn renamed(rename: &Rename, index: u32, old: &Path) -> Option<PathBuf> {
    match rename {
        Rename::File { index: meant, to } => (*meant == index).then(|| to.clone()),
        Rename::Path { from, to } => {
            let rest = old.strip_prefix(from).ok()?;
            Some(match rest.as_os_str().is_empty() {
                true => to.clone(),
                false => to.join(rest),
            })
        }
    }
}

/// Why nothing is meant.
fn nothing(rename: &Rename, metainfo: &Metainfo) -> CommandError {
    match rename {
        Rename::File { .. } => CommandError::Invalid {
            field: "index",
            reason: format!("the torrent has {} files, from 0", metainfo.files.len()),
        },
        Rename::Path { from, .. } => CommandError::Invalid {
            field: "from",
            reason: format!("no file of the torrent is at {from:?} or below; `files` has them"),
        },
    }
}

/// Refuses paths that no download would make.
fn check(path: &Path, suffix: &str) -> Result<(), String> {
    let bytes_max = proto::limits::PATH_COMPONENT_BYTES_MAX - suffix.len();
    let mut components = 0;
    for component in path.components() {
        let Component::Normal(name) = component else {
            return Err(format!("{path:?} is not below the save path"));
        };
        let bytes = name.as_bytes();
        let is_plain = sanitise_component(bytes).is_some_and(|name| name.as_bytes() == bytes);
        if !is_plain || bytes.len() > bytes_max {
            return Err(format!(
                "{name:?} is no name for a file: up to {bytes_max} bytes of UTF-8 without control \
                 characters"
            ));
        }
        components += 1;
    }
    match components > 0 && path.as_os_str().len() <= PATH_BYTES_MAX {
        true => Ok(()),
        false => Err(format!("a path has 1 to {PATH_BYTES_MAX} bytes")),
    }
}

/// Refuses a name that says of a file, whole or not, that it is not: another program takes it away,
/// and what is looked for under one of the two names is found under the other.
fn check_end(old: &Path, new: &Path, suffix: &str) -> Result<(), String> {
    let end = fold_case(suffix);
    let has_it = |path: &Path| folded(path).ends_with(&end);
    match !suffix.is_empty() && has_it(new) && !has_it(old) {
        false => Ok(()),
        true => Err(format!(
            "{new:?} ends with {suffix:?}, as files do that are not complete \
             (`fetch.partial_suffix`); choose a name without it"
        )),
    }
}

/// The names that a file may have: its own, and the one that it has while it is not complete.
pub(super) fn variants(own: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut variants = vec![own.to_owned()];
    if !suffix.is_empty() {
        variants.push(suffixed(own, suffix.as_ref()));
    }
    variants
}

/// The name with `suffix` at its end.
pub(super) fn suffixed(path: &Path, suffix: &OsStr) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn folded(path: &Path) -> String {
    fold_case(&path.to_string_lossy())
}

#[cfg(test)]
mod tests;
