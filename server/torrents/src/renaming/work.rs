//! Files get other names on the disk: on a thread for blocking work, which waits for the manager
//! where the torrent goes on under the new ones.

use super::keep;
use super::names::{Change, Names};
use crate::beneath::Beneath;
use crate::moving::work::{Item, Work, is_as_before, is_same};
use crate::moving::{MoveEvent, Why};
use crate::reading::{Kept, KeptError};
use control::command::{CommandError, Rename};
use control::hashing::stamp_of;
use engine::layout::FileStamp;
use proto::ids::InfoHashV1;
use proto::path::fold_case;
use rustix::io::Errno;
use state::{Handle, Update, Write};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use tokio::sync::oneshot;

/// Renames files as the user says; all of them or none.
pub(super) fn rename(work: &Work, rename: &Rename) -> Result<(), CommandError> {
    let (store, failed) = (&work.store, CommandError::Failed);
    let names = Names::after(&work.kept, rename, &work.suffix)?;
    let Some(folder) = folder_of(work).map_err(failed)? else {
        // Nothing of it is on the disk: it is what the store says.
        return match switch(work, &names, work.kept.stamps.clone()) {
            Some(true) => Ok(()),
            Some(false) => Err(CommandError::Unknown(work.info_hash)),
            None => Err(failed("whether that is kept is not known".to_owned())),
        };
    };
    check_free(&folder, &names, &work.suffix)?;
    let items = items(work, &folder, &names)?;
    store
        .write_blocking(keep(work.info_hash, Some(&names.changes)))
        .map_err(crate::keeping::refusal)?;
    let brought = bring(work, &folder, &items, &names);
    if let Ok(None) = brought {
        let why = "whether that is kept is not known: its files have both names until the next \
                   start";
        return Err(failed(why.to_owned()));
    }
    let is_done = brought == Ok(Some(true));
    // The store is asked which names count; of a torrent that was removed just now we know it.
    let kept = Kept::read(store, work.info_hash);
    let tidied = match &kept {
        Ok(kept) => tidy(kept, &folder, &names.changes, &work.suffix),
        Err(KeptError::Gone) => {
            let changes = names.changes.iter();
            let kept = changes.map(|change| (change, is_done));
            tidy_names(&work.kept, &folder, kept, &work.suffix)
        }
        Err(error) => Err(error.to_string()),
    };
    if let Ok(kept) = &kept {
        let stamps = refreshed(kept, &folder, &work.suffix);
        let mut place = work.place(work.from.clone(), stamps);
        place.paths.clone_from(&kept.details.renames);
        work.tell(MoveEvent::Settled(Box::new(place)));
    }
    match tidied {
        Ok(()) => drop(store.write_blocking(keep(work.info_hash, None))),
        Err(why) => {
            tracing::warn!(torrent = %work.info_hash, why, "files may have two names still");
        }
    }
    match brought {
        Ok(Some(true)) => Ok(()),
        Ok(_) => Err(CommandError::Unknown(work.info_hash)),
        Err(error) => Err(error),
    }
}

/// Takes away what a rename that was cut off has left.
pub(super) fn recover(
    store: &Handle,
    info_hash: InfoHashV1,
    changes: &[Change],
    suffix: &str,
) -> Result<(), String> {
    let kept = match Kept::read(store, info_hash) {
        Ok(kept) => kept,
        Err(KeptError::Gone) => return Ok(()),
        Err(error) => return Err(error.to_string()),
    };
    let path = &kept.summary.save_path;
    let folder = Beneath::open(path).map_err(|error| format!("{path:?}: {error}"))?;
    tidy(&kept, &folder, changes, suffix)?;
    let update = Update::new().all_stamps(refreshed(&kept, &folder, suffix));
    let write = Write::Update(info_hash, Box::new(update));
    store
        .write_blocking(write)
        .map_err(|error| error.to_string())
}

/// The save folder; none if there is none, and nothing of the torrent has to be there.
fn folder_of(work: &Work) -> Result<Option<Beneath>, String> {
    let needs_it = work.moving.is_served() || work.kept.stamps.iter().any(Option::is_some);
    match Beneath::open(&work.from) {
        Ok(folder) => Ok(Some(folder)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !needs_it => Ok(None),
        Err(error) => Err(format!("{:?}: {error}", work.from)),
    }
}

/// Refuses names that something has already.
fn check_free(folder: &Beneath, names: &Names, suffix: &str) -> Result<(), CommandError> {
    for change in &names.changes {
        let variants = [change.new.clone(), suffixed(&change.new, suffix)];
        for (new, old) in variants
            .iter()
            .zip([change.old.clone(), suffixed(&change.old, suffix)])
        {
            if folder.exists(new) {
                let why = match is_one_entry(folder, &old, new) {
                    true => format!("the file system takes {old:?} and {new:?} for one name"),
                    false => format!("{new:?} is there already; nothing is written over"),
                };
                return Err(CommandError::Conflict(why));
            }
        }
    }
    Ok(())
}

/// The files of the rename that are on the disk, under the names that they have there.
fn items(work: &Work, folder: &Beneath, names: &Names) -> Result<Vec<Item>, Why> {
    let mut items = work.items(folder)?;
    for item in &mut items {
        let mut changes = names.changes.iter();
        let Some(change) = changes.find(|change| change.index == item.index) else {
            continue;
        };
        item.new = match item.old == change.old {
            true => change.new.clone(),
            false => suffixed(&change.new, &work.suffix),
        };
    }
    Ok(items)
}

/// Has all files have their new names, and the torrent go on under these. Whether it does; nothing
/// if nobody says.
fn bring(
    work: &Work,
    folder: &Beneath,
    items: &[Item],
    names: &Names,
) -> Result<Option<bool>, CommandError> {
    let failed = CommandError::Failed;
    let renamed: Vec<&Item> = items.iter().filter(|item| item.old != item.new).collect();
    work.renaming()?;
    if !link_all(folder, &renamed)? {
        let (done, halted) = oneshot::channel();
        work.tell(MoveEvent::Halt(done));
        let halted = halted.blocking_recv();
        halted.map_err(|_| CommandError::Stopping)?;
        for item in &renamed {
            let moved = folder.rename_beneath(&item.old, &item.new);
            moved.map_err(|error| not_renamed(&item.new, error))?;
        }
    }
    let paths = renamed.iter().flat_map(|item| [&item.new, &item.old]);
    sync(folder, paths.map(PathBuf::as_path)).map_err(failed)?;
    let stamps = work.as_kept(folder, items)?;
    Ok(switch(work, names, stamps))
}

/// Has the store and the data plane take the new names. Whether they do; nothing if nobody says.
fn switch(work: &Work, names: &Names, stamps: Vec<Option<FileStamp>>) -> Option<bool> {
    let (done, kept) = oneshot::channel();
    let mut place = work.place(work.from.clone(), stamps);
    place.paths.clone_from(&names.renames);
    work.tell(MoveEvent::There(Box::new(place), done));
    kept.blocking_recv().ok()
}

/// Gives all files their new names beside the old ones. False if the file system knows no second
/// names: nothing is made then.
fn link_all(folder: &Beneath, items: &[&Item]) -> Result<bool, CommandError> {
    for (at, item) in items.iter().enumerate() {
        match folder.link(&item.old, folder, &item.new) {
            Ok(()) => {}
            // Pooled file systems have links within a branch only, and say so by XDEV, too; what is
            // really another file system will refuse the rename.
            Err(Errno::XDEV | Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => {
                for made in items.iter().take(at) {
                    let _ = folder.unlink(&made.new);
                }
                return Ok(false);
            }
            Err(error) => return Err(not_renamed(&item.new, error)),
        }
    }
    Ok(true)
}

fn not_renamed(new: &Path, error: Errno) -> CommandError {
    match error {
        Errno::EXIST => {
            CommandError::Conflict(format!("{new:?} is there already; nothing is written over"))
        }
        Errno::XDEV => CommandError::Conflict(format!(
            "{new:?} is on another file system; `move` brings data there"
        )),
        error => CommandError::Failed(format!("{new:?}: {error}")),
    }
}

/// Has files have the names alone that the store says.
fn tidy(kept: &Kept, folder: &Beneath, changes: &[Change], suffix: &str) -> Result<(), String> {
    let metainfo = kept.described().map_err(|error| error.to_string())?;
    let counts = changes.iter().filter_map(|change| {
        let file = metainfo.files.get(change.index as usize);
        let said = || file.map(|file| file.path.iter().collect::<PathBuf>());
        let now = kept.details.renames.get(&change.index).cloned();
        let now = now.or_else(said)?;
        // Else it was renamed once more since.
        let is_known = now == change.new || now == change.old;
        is_known.then(|| (change, now == change.new))
    });
    tidy_names(kept, folder, counts, suffix)
}

/// Has each file have its new name alone, or its old one, as it is said of it. What is gone then is
/// gone after a loss of power, too.
fn tidy_names<'a>(
    kept: &Kept,
    folder: &Beneath,
    changes: impl Iterator<Item = (&'a Change, bool)> + Clone,
    suffix: &str,
) -> Result<(), String> {
    for (change, is_new) in changes.clone() {
        let names = match is_new {
            true => (&change.new, &change.old),
            false => (&change.old, &change.new),
        };
        let known = kept.stamps.get(change.index as usize).copied().flatten();
        for (now, other) in variants(names, suffix) {
            tidy_one(folder, &now, &other, known)?;
        }
    }
    let paths = changes.flat_map(|(change, _)| [&change.new, &change.old]);
    sync(folder, paths.map(PathBuf::as_path))
}

/// Has the names in the folders above these paths be on stable storage; those that are not there
/// any more are so when the folders above them are.
fn sync<'a>(folder: &Beneath, paths: impl Iterator<Item = &'a Path>) -> Result<(), String> {
    let above: BTreeSet<_> = paths.flat_map(|path| path.ancestors().skip(1)).collect();
    for path in above {
        match folder.sync_folder(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            result => result.map_err(|error| format!("{path:?}: {error}"))?,
        }
    }
    Ok(())
}

/// Has one file have the name `now` alone, and not `other`.
fn tidy_one(
    folder: &Beneath,
    now: &Path,
    other: &Path,
    known: Option<FileStamp>,
) -> Result<(), String> {
    let stamp = |path: &Path| {
        let metadata = folder.read(path).and_then(|file| file.metadata());
        metadata.ok().map(|metadata| stamp_of(&metadata))
    };
    match (stamp(now), stamp(other)) {
        (Some(_), Some(_))
            if is_same(folder, now, folder, other) && !is_one_entry(folder, now, other) =>
        {
            remove(folder, other);
        }
        // The file system knows no second names.
        (None, Some(found)) if known.is_none() || is_as_before(Some(found), known) => {
            let back = folder.rename_beneath(other, now);
            back.map_err(|error| format!("{other:?} to {now:?}: {error}"))?;
            remove_folders(folder, other);
        }
        // Folders that were made for it.
        (_, None) => remove_folders(folder, other),
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
fn is_one_entry(folder: &Beneath, one: &Path, other: &Path) -> bool {
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
fn refreshed(kept: &Kept, folder: &Beneath, suffix: &str) -> Vec<Option<FileStamp>> {
    let Ok(metainfo) = kept.described() else {
        return Vec::new();
    };
    let files = (0..).zip(metainfo.files.iter().zip(&kept.stamps));
    files
        .map(|(index, (file, known))| {
            let known = (*known)?;
            let said = || file.path.iter().collect::<PathBuf>();
            let own = kept.details.renames.get(&index).cloned();
            let own = own.unwrap_or_else(said);
            let open = |path: &Path| folder.read(path).and_then(|file| file.metadata()).ok();
            match open(&own).or_else(|| open(&suffixed(&own, suffix))) {
                Some(found) => {
                    Some(stamp_of(&found)).filter(|found| is_as_before(Some(*found), Some(known)))
                }
                // It is away, not another.
                None => Some(known),
            }
        })
        .collect()
}

/// Two names of a file, as those of one that is whole and of one that is not.
fn variants((now, other): (&PathBuf, &PathBuf), suffix: &str) -> Vec<(PathBuf, PathBuf)> {
    let mut variants = vec![(now.clone(), other.clone())];
    if !suffix.is_empty() {
        variants.push((suffixed(now, suffix), suffixed(other, suffix)));
    }
    variants
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}
