//! Files get other names on the disk: on a thread for blocking work, which waits for the manager
//! where the torrent goes on under the new ones.

use super::intended;
use super::intent::{self, Renamed};
use super::names::{Change, Names, variants};
use super::tidying::{is_one_entry, refreshed, tidy, tidy_names};
use crate::beneath::Beneath;
use crate::moving::work::{Item, Work};
use crate::moving::{MoveEvent, Why};
use crate::reading::{Kept, KeptError};
use control::command::{CommandError, Rename};
use control::hashing::stamp_of;
use engine::layout::FileStamp;
use rustix::io::Errno;
use std::collections::{BTreeSet, HashMap};
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
    let (items, renamed) = items(work, &folder, &names)?;
    keep(work, &renamed)?;
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
        Ok(kept) => tidy(kept, &folder, &renamed),
        Err(KeptError::Gone) => tidy_names(&folder, renamed.iter().map(|file| (file, is_done))),
        Err(error) => Err(error.to_string()),
    };
    if let Ok(kept) = &kept {
        let stamps = refreshed(kept, &folder, &work.suffix);
        let mut place = work.place(work.from.clone(), stamps);
        place.paths.clone_from(&kept.details.renames);
        work.tell(MoveEvent::Settled(Box::new(place)));
    }
    match tidied {
        Ok(()) => drop(store.write_blocking(intended(work.info_hash, None))),
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
        let old = variants(&change.old, suffix);
        for (old, new) in old.iter().zip(&variants(&change.new, suffix)) {
            if folder.exists(new) {
                let why = match is_one_entry(folder, old, new) {
                    true => format!("the file system takes {old:?} and {new:?} for one name"),
                    false => format!("{new:?} is there already; nothing is written over"),
                };
                return Err(CommandError::Conflict(why));
            }
        }
    }
    Ok(())
}

/// Keeps which files are being renamed.
fn keep(work: &Work, renamed: &[Renamed]) -> Result<(), CommandError> {
    let bytes = intent::encode(renamed);
    let bytes_max = state::limits::INTENT_BYTES_MAX;
    intent::check_length(renamed.len(), bytes.len(), bytes_max)?;
    let written = work
        .store
        .write_blocking(intended(work.info_hash, Some(bytes)));
    written.map_err(crate::keeping::refusal)
}

/// The torrent's files that are on the disk, under the names that they have there then; and of those
/// that get others, how they lie there.
fn items(work: &Work, folder: &Beneath, names: &Names) -> Result<(Vec<Item>, Vec<Renamed>), Why> {
    let changes = names.changes.iter().map(|change| (change.index, change));
    let changes: HashMap<u32, &Change> = changes.collect();
    let (mut items, mut renamed) = (work.items(folder)?, Vec::new());
    for item in &mut items {
        let Some(&change) = changes.get(&item.index) else {
            continue;
        };
        let found = folder.read(&item.old).and_then(|file| file.metadata());
        let found = found.map_err(|error| Why::of(&item.old, error))?;
        let stamp = stamp_of(&found);
        let file = Renamed {
            change: change.clone(),
            suffix: intent::suffix_at(item.old.as_os_str(), change.old.as_os_str()),
            size: stamp.size,
            mtime_ns: stamp.mtime_ns,
        };
        (item.new, item.old) = file.now_and_other(true);
        renamed.push(file);
    }
    Ok((items, renamed))
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

/// Has the names in the folders above these paths be on stable storage; those that are not there
/// any more are so when the folders above them are.
pub(super) fn sync<'a>(
    folder: &Beneath,
    paths: impl Iterator<Item = &'a Path>,
) -> Result<(), String> {
    let above: BTreeSet<_> = paths.flat_map(|path| path.ancestors().skip(1)).collect();
    for path in above {
        match folder.sync_folder(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            result => result.map_err(|error| format!("{path:?}: {error}"))?,
        }
    }
    Ok(())
}
