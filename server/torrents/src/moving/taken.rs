//! Names that a torrent would use in the folder that its data are moved to and that something else
//! has there.
//!
//! A download looks for each of its files by its own name first, and by the one with the suffix of
//! what is not complete then, and writes into what it finds. So it is not enough that the names of
//! the files that are moved are free: those of files that are still to come have to be, too, and of
//! each both. Does not: keep anybody from taking a name after it was looked at.

use super::Why;
use super::way::Phase;
use super::work::{Item, Work, another, come_since, is_same};
use crate::beneath::Beneath;
use proto::metainfo::Metainfo;
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// A file of a torrent, and the names that it may have: its own, and one while it is not complete.
pub(super) struct Names {
    pub(super) index: u32,
    pub(super) both: [PathBuf; 2],
}

/// The names of all files that are on a disk.
pub(super) fn names(work: &Work, metainfo: &Metainfo) -> Vec<Names> {
    let files = (0..).zip(&metainfo.files);
    let on_disk = files.filter(|(_, file)| !file.pad && file.symlink_target.is_none());
    on_disk
        .map(|(index, file)| {
            let said = || file.path.iter().collect::<PathBuf>();
            let own = work.kept.details.renames.get(&index).cloned();
            let own = own.unwrap_or_else(said);
            let mut partial = OsString::from(&own);
            partial.push(&work.suffix);
            Names {
                index,
                both: [own, partial.into()],
            }
        })
        .collect()
}

/// Refuses a move to where a name is taken by what is not of an earlier run of it.
pub(super) fn check(work: &Work, from: &Beneath, to: &Beneath, items: &[Item]) -> Result<(), Why> {
    let metainfo = work.described()?;
    let moved: HashMap<_, _> = items.iter().map(|item| (&item.new, item)).collect();
    for Names { both, .. } in names(work, metainfo) {
        for name in both.iter().filter(|name| to.exists(name)) {
            let is_ours = match (work.phase, moved.get(name)) {
                (Phase::Waiting, Some(item)) => is_same(from, &item.old, to, &item.new),
                // A crash came when it had its name and that was not kept yet.
                (phase, Some(item)) if phase.is_copying() => work.is_named_copy(from, to, item)?,
                _ => false,
            };
            if !is_ours {
                // What was made to try whether the folders are two is empty.
                work.clear_folders(to, items.iter().map(|item| item.new.as_path()));
                let path = work.to.join(name);
                return Err(match work.phase.is_copying() {
                    true => come_since(&path),
                    false => another(&path),
                });
            }
        }
    }
    Ok(())
}
