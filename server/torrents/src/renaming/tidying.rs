//! After a rename, or what was cut off of one: each of its files has one name, the one that the
//! store says.
//!
//! Only the two names under which a file lay are touched, and a name is given back only to what is
//! the file that had it: what lies under any other name is another's, or another file of the torrent.
//! Does not: tidy what has got other names since.

use super::intent::Renamed;
use super::names::suffixed;
use super::work::sync;
use crate::beneath::Beneath;
use crate::moving::work::{is_as_before, is_same};
use crate::reading::{Kept, KeptError};
use control::hashing::stamp_of;
use engine::layout::FileStamp;
use proto::ids::InfoHashV1;
use proto::path::fold_case;
use state::{Handle, Update, Write};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Takes away what a rename that was cut off has left.
pub(super) fn recover(
    store: &Handle,
    info_hash: InfoHashV1,
    renamed: &[Renamed],
    suffix: &str,
) -> Result<(), String> {
    let kept = match Kept::read(store, info_hash) {
        Ok(kept) => kept,
        Err(KeptError::Gone) => return Ok(()),
        Err(error) => return Err(error.to_string()),
    };
    let path = &kept.summary.save_path;
    let folder = Beneath::open(path).map_err(|error| format!("{path:?}: {error}"))?;
    tidy(&kept, &folder, renamed)?;
    let update = Update::new().all_stamps(refreshed(&kept, &folder, suffix));
    let write = Write::Update(info_hash, Box::new(update));
    store
        .write_blocking(write)
        .map_err(|error| error.to_string())
}

/// Has files have the names alone that the store says.
pub(super) fn tidy(kept: &Kept, folder: &Beneath, renamed: &[Renamed]) -> Result<(), String> {
    let metainfo = kept.described().map_err(|error| error.to_string())?;
    let counts = renamed.iter().filter_map(|file| {
        let change = &file.change;
        let of_metainfo = metainfo.files.get(change.index as usize);
        let said = || of_metainfo.map(|file| file.path.iter().collect::<PathBuf>());
        let now = kept.details.renames.get(&change.index).cloned();
        let now = now.or_else(said)?;
        // Else it was renamed once more since.
        let is_known = now == change.new || now == change.old;
        is_known.then(|| (file, now == change.new))
    });
    tidy_names(folder, counts)
}

/// Has each file have its new name alone, or its old one, as it is said of it. What is gone then is
/// gone after a loss of power, too.
pub(super) fn tidy_names<'a>(
    folder: &Beneath,
    renamed: impl Iterator<Item = (&'a Renamed, bool)> + Clone,
) -> Result<(), String> {
    for (file, is_renamed) in renamed.clone() {
        tidy_one(folder, file, is_renamed)?;
    }
    let changes = renamed.map(|(file, _)| &file.change);
    let paths = changes.flat_map(|change| [&change.new, &change.old]);
    sync(folder, paths.map(PathBuf::as_path))
}

/// Has one file have one name.
fn tidy_one(folder: &Beneath, file: &Renamed, is_renamed: bool) -> Result<(), String> {
    let stamp = |path: &Path| {
        let metadata = folder.read(path).and_then(|file| file.metadata());
        metadata.ok().map(|metadata| stamp_of(&metadata))
    };
    let (mut now, other) = file.now_and_other(is_renamed);
    // It was completed since, so that it has lost its suffix.
    let own = match is_renamed {
        true => &file.change.new,
        false => &file.change.old,
    };
    if stamp(&now).is_none() && stamp(own).is_some() {
        now.clone_from(own);
    }
    match (stamp(&now), stamp(&other)) {
        (Some(_), Some(_))
            if is_same(folder, &now, folder, &other) && !is_one_entry(folder, &now, &other) =>
        {
            remove(folder, &other);
        }
        // The file system knows no second names.
        (None, Some(found)) if file.is(found) => {
            let back = folder.rename_beneath(&other, &now);
            back.map_err(|error| format!("{other:?} to {now:?}: {error}"))?;
            remove_folders(folder, &other);
        }
        (None, Some(_)) => tracing::warn!(
            missing = ?now, there = ?other,
            "a file that was being renamed is missing, and another is where it was to be or has been"
        ),
        // Folders that were made for it.
        (_, None) => remove_folders(folder, &other),
        _ => {}
    }
    Ok(())
}

fn remove(folder: &Beneath, path: &Path) {
    if let Err(error) = folder.unlink(path) {
        tracing::warn!(?path, %error, "an old name cannot be taken away");
    }
    remove_folders(folder, path);
}

/// Takes the folders of a path away that are empty.
fn remove_folders(folder: &Beneath, path: &Path) {
    for above in path.ancestors().skip(1) {
        if above.as_os_str().is_empty() || folder.remove_folder(above).is_err() {
            return;
        }
    }
}

/// Whether two names are one entry of a folder, as where upper and lower case are the same: who
/// takes one away takes the other, too.
pub(super) fn is_one_entry(folder: &Beneath, one: &Path, other: &Path) -> bool {
    let of = folder.folder_of(one);
    if of.is_none() || of != folder.folder_of(other) {
        return false;
    }
    let name = |path: &Path| path.file_name().map(OsString::from).unwrap_or_default();
    let (first, second) = (name(one), name(other));
    let fold = |name: &OsString| fold_case(&name.to_string_lossy());
    first == second || fold(&first) == fold(&second) && !(folder.lists(one) && folder.lists(other))
}

/// Stamps of the files as they are now; of one that has changed since it was verified, none.
pub(super) fn refreshed(kept: &Kept, folder: &Beneath, suffix: &str) -> Vec<Option<FileStamp>> {
    let Ok(metainfo) = kept.described() else {
        return Vec::new();
    };
    let suffix = kept.suffix(suffix);
    let files = (0..).zip(metainfo.files.iter().zip(&kept.stamps));
    files
        .map(|(index, (file, known))| {
            let known = (*known)?;
            let said = || file.path.iter().collect::<PathBuf>();
            let own = kept.details.renames.get(&index).cloned();
            let own = own.unwrap_or_else(said);
            let open = |path: &Path| folder.read(path).and_then(|file| file.metadata()).ok();
            match open(&own).or_else(|| open(&suffixed(&own, suffix.as_ref()))) {
                Some(found) => {
                    Some(stamp_of(&found)).filter(|found| is_as_before(Some(*found), Some(known)))
                }
                // It is away, not another.
                None => Some(known),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::names::Change;
    use super::*;
    use std::fs;

    /// A file as it was before it was renamed, which is at `path` now.
    fn renamed(path: &Path, old: &str, new: &str, suffix: &str) -> Renamed {
        let stamp = stamp_of(&fs::metadata(path).unwrap());
        let (old, new) = (old.into(), new.into());
        Renamed {
            change: Change { index: 0, old, new },
            suffix: suffix.into(),
            size: stamp.size,
            mtime_ns: stamp.mtime_ns,
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap();
        let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
        let mut names: Vec<String> = names.map(|entry| name(entry.unwrap())).collect();
        names.sort_unstable();
        names
    }

    /// The names of these files, tidied.
    fn tidied(folder: &Path, file: &Renamed, is_renamed: bool) -> Vec<String> {
        let beneath = Beneath::open(folder).unwrap();
        tidy_names(&beneath, [(file, is_renamed)].into_iter()).unwrap();
        names(folder)
    }

    #[test]
    fn a_name_with_the_suffix_is_not_taken_for_the_other_of_the_two() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("a"), b"x").unwrap();
        fs::hard_link(path("a"), path("a.part")).unwrap();
        let file = renamed(&path("a"), "a", "a.part", "");
        assert_eq!(tidied(folder.path(), &file, true), ["a.part"]);
        assert_eq!(tidied(folder.path(), &file, true), ["a.part"]);
        // Nor one of a file that is complete for one that is not.
        fs::write(path("b.part"), b"another's").unwrap();
        let file = renamed(&path("a.part"), "b", "c", "");
        assert_eq!(tidied(folder.path(), &file, true), ["a.part", "b.part"]);
    }

    #[test]
    fn only_the_file_itself_gets_its_name_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("a.part"), b"x").unwrap();
        let file = renamed(&path("a.part"), "a", "b/c", ".part");
        fs::create_dir(path("b")).unwrap();
        fs::rename(path("a.part"), path("b/c.part")).unwrap();
        assert_eq!(tidied(folder.path(), &file, false), ["a.part"]);
        fs::create_dir(path("b")).unwrap();
        fs::write(path("b/c.part"), b"another's").unwrap();
        fs::remove_file(path("a.part")).unwrap();
        assert_eq!(tidied(folder.path(), &file, false), ["b"]);
        assert_eq!(fs::read(path("b/c.part")).unwrap(), b"another's");
        let file = Renamed {
            size: 9,
            ..file.clone()
        };
        assert_eq!(tidied(folder.path(), &file, false), ["b"], "it is younger");
    }

    #[test]
    fn what_was_completed_since_keeps_the_name_that_it_has_got() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("old.part"), b"x").unwrap();
        let file = renamed(&path("old.part"), "old", "new", ".part");
        fs::hard_link(path("old.part"), path("new")).unwrap();
        assert_eq!(tidied(folder.path(), &file, true), ["new"]);
    }
}
