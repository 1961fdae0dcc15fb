//! Two folders can be one: by a link, a bind mount, or, with other numbers of device and inode, as
//! two views of one folder (mergerfs and other unions, an overlay and its layers, a network file
//! system of this very machine). A move between them would take the only copy away.
//!
//! So it is tried, not asked: before anything is made, a file with a name that nothing has had is
//! made in one folder and looked for in the other, and the other way round. And before an old file
//! goes it gets such a name: it must not be seen in the new folder then, and the new file must be
//! there as it was. Names that were never looked up are in no cache, which may otherwise show what
//! is gone, or hide what is there, for a minute.
//!
//! Does not: find out that two names in different folders are of one file. That is no harm: of a
//! file with two names one may go.

use super::Why;
use super::work::{Item, Work};
use crate::beneath::Beneath;
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What the names of old files end in that are about to go.
const GOING_SUFFIX: &str = ".going";

/// What is told of two folders that are one.
fn one_folder(work: &Work) -> String {
    let (from, to) = (&work.from, &work.to);
    format!("{from:?} and {to:?} are the same folder, or two views of one")
}

/// Refuses a move between folders that are one, by whatever names: their files have one name.
pub(super) fn check(work: &Work, from: &Beneath, to: &Beneath, items: &[Item]) -> Result<(), Why> {
    let above = |path: &Path| path.parent().map_or_else(PathBuf::new, Path::to_owned);
    let of_items = items
        .iter()
        .map(|item| (above(&item.old), above(&item.new)));
    let pairs: BTreeSet<_> = of_items.chain([Default::default()]).collect();
    for (old, new) in pairs {
        let one = from.folder_of(&old.join("x"));
        let mut is_one = one.is_some() && one == to.folder_of(&new.join("x"));
        is_one = is_one || shows(work, to, &new, from, &old)?;
        // What cannot be written cannot lose a file, and a full disk is a reason to move.
        is_one = is_one || shows(work, from, &old, to, &new).unwrap_or(false);
        if is_one {
            // What was made on the way to it is empty.
            for above in new.ancestors().filter(|path| !path.as_os_str().is_empty()) {
                let _ = to.remove_folder(above);
            }
            return Err(Why::Final(one_folder(work)));
        }
    }
    Ok(())
}

/// Whether a file that is made in folder `place` of `one` is there in folder `other_place` of
/// `other`.
fn shows(
    work: &Work,
    one: &Beneath,
    place: &Path,
    other: &Beneath,
    other_place: &Path,
) -> Result<bool, Why> {
    let name = never_seen(work, "probe");
    let path = place.join(&name);
    one.create(&path).map_err(|error| Why::of(&path, error))?;
    let is_there = other.exists(&other_place.join(&name));
    if let Err(error) = one.unlink(&path) {
        tracing::warn!(torrent = %work.info_hash, ?path, %error, "cannot be taken away");
    }
    Ok(is_there)
}

/// A name that nothing has had.
fn never_seen(work: &Work, what: impl std::fmt::Display) -> OsString {
    let random = RandomState::new().hash_one(std::process::id());
    format!(".{}-{what}-{random:016x}{GOING_SUFFIX}", work.info_hash).into()
}

/// The number of the file that is about to go under this name.
fn going(work: &Work, name: &OsStr) -> Option<u32> {
    let name = name.to_str()?.strip_suffix(GOING_SUFFIX)?;
    let name = name.strip_prefix(&format!(".{}-", work.info_hash))?;
    let (index, _) = name.split_once('-')?;
    index.parse().ok()
}

/// Takes the old name of a file away, whose new one is there. False if it is gone already.
pub(super) fn take_old(
    work: &Work,
    from: &Beneath,
    to: &Beneath,
    item: &Item,
) -> Result<bool, Why> {
    let identity = || {
        let found = to.read(&item.new).and_then(|file| file.metadata()).ok()?;
        Some((found.dev(), found.ino(), found.len()))
    };
    let new = identity().ok_or_else(|| Why::Passing(format!("{:?} is not there", item.new)))?;
    let name = never_seen(work, item.index);
    let going = item.old.with_file_name(&name);
    match from.rename(&item.old, &going) {
        Ok(()) => {}
        Err(Errno::NOENT) => return Ok(false),
        Err(error) => return Err(Why::of(&work.from.join(&item.old), error)),
    }
    let is_seen = to.exists(&item.new.with_file_name(&name));
    if is_seen || identity() != Some(new) {
        return match from.rename(&going, &item.old) {
            Ok(()) => Err(Why::Final(one_folder(work))),
            Err(error) => Err(Why::Final(format!(
                "{}, and {going:?} is to be called {:?} again: {error}",
                one_folder(work),
                item.old
            ))),
        };
    }
    match from.unlink(&going) {
        Ok(()) => Ok(true),
        Err(error) => Err(Why::of(&work.from.join(&going), error)),
    }
}

/// Gives old files their names back that were about to go when an earlier run ended.
pub(super) fn restore(work: &Work, from: &Beneath, items: &[Item]) {
    let mut seen = BTreeSet::new();
    for item in items.iter().filter(|item| seen.insert(item.old.parent())) {
        let names = from.names_beside(&item.old).unwrap_or_default();
        for name in names {
            let index = going(work, &name);
            let of = |item: &&Item| Some(item.index) == index;
            if let Some(item) = items.iter().find(of) {
                // One whose name is taken is not needed.
                let _ = from.rename(&item.old.with_file_name(&name), &item.old);
            }
        }
    }
}
