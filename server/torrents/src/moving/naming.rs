//! Names that a move gives. Whatever is under a name of the torrent in the new folder may be
//! another's: of another torrent that was added there while the copying took its hours, or the
//! user's. So copies have names of the move's own, which nothing else has, until all of them are
//! right; each gets its name of the torrent then, if nothing has that. What is taken away has a
//! name of the move's own, or is known by device and inode to be what this try has made.
//!
//! A crash may come between the names and the store's word that the torrent is there. Such a copy
//! is taken for what it is by its length and time, is hashed like any other, and is never deleted:
//! it could be somebody's.
//!
//! Does not: keep others from writing into a file that they find.

use super::Why;
use super::copying::is_copied;
use super::taken;
use super::work::{Item, Work, come_since, is_same};
use crate::beneath::Beneath;
use control::hashing::stamp_of;
use engine::layout::FileStamp;
use proto::ids::InfoHashV1;
use proto::metainfo::Metainfo;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// What the names of files end in that a move makes beside those of the torrent.
const OWN_SUFFIX: &str = ".moving";

/// The name of a file that says that copies are made in a folder.
pub(crate) fn mark_name(info_hash: &InfoHashV1) -> String {
    format!(".{info_hash}{OWN_SUFFIX}")
}

/// The name of the copy of a file beside `path` until all are right.
pub(crate) fn own_name(info_hash: &InfoHashV1, index: u32, path: &Path) -> PathBuf {
    path.with_file_name(format!(".{info_hash}-{index}{OWN_SUFFIX}"))
}

/// Whether a move of this torrent, and nothing else, makes files of this name.
pub(crate) fn is_own(info_hash: &InfoHashV1, name: &OsStr) -> bool {
    let name = name.to_str().and_then(|name| name.strip_suffix(OWN_SUFFIX));
    let index = name.and_then(|name| name.strip_prefix(&format!(".{info_hash}")));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    index.is_some_and(|index| index.is_empty() || index.strip_prefix('-').is_some_and(digits))
}

/// What a try has made in the new folder.
#[derive(Default)]
pub(super) struct Made {
    /// Second names, and the first of each.
    pub(super) links: Vec<(PathBuf, PathBuf)>,
    named: Vec<Named>,
}

/// A copy that has its name of the torrent.
struct Named {
    own: PathBuf,
    new: PathBuf,
    /// Its device and inode.
    identity: (u64, u64),
}

impl Work {
    /// Where the copies of files are, or are to be made.
    pub(super) fn copies(
        &self,
        from: &Beneath,
        to: &Beneath,
        items: &[Item],
    ) -> Result<Vec<Item>, Why> {
        let of = |item: &Item| {
            let new = match self.is_named_copy(from, to, item)? {
                true => item.new.clone(),
                false => own_name(&self.info_hash, item.index, &item.new),
            };
            let (index, old) = (item.index, item.old.clone());
            Ok(Item { index, old, new })
        };
        items.iter().map(of).collect()
    }

    /// Whether a copy has its name of the torrent already: a crash came then.
    pub(super) fn is_named_copy(
        &self,
        from: &Beneath,
        to: &Beneath,
        item: &Item,
    ) -> Result<bool, Why> {
        let own = own_name(&self.info_hash, item.index, &item.new);
        let may_be = self.phase.is_copying() && !to.exists(&own);
        Ok(may_be && is_copied(self, from, to, item)?)
    }

    /// Where each file is while copies have their own names; those that have none are nowhere.
    pub(super) fn copy_names(
        &self,
        metainfo: &Metainfo,
        copies: &[Item],
    ) -> BTreeMap<u32, PathBuf> {
        let names = taken::names(self, metainfo).into_iter();
        let own = names.map(|it| (it.index, own_name(&self.info_hash, it.index, &it.both[0])));
        let there = copies.iter().map(|copy| (copy.index, copy.new.clone()));
        own.chain(there).collect()
    }

    /// Takes a copy away that is not right, if it has a name of its own.
    pub(super) fn drop_copy(&self, to: &Beneath, copy: &Item) -> Result<(), Why> {
        let name = copy.new.file_name();
        if !name.is_some_and(|name| is_own(&self.info_hash, name)) {
            return Ok(());
        }
        let gone = to.unlink(&copy.new);
        gone.map_err(|error| Why::of(&self.to.join(&copy.new), error))
    }

    /// Gives the copies their names of the torrent. Their stamps then; each must be what it was when
    /// it was hashed.
    pub(super) fn name_all(
        &self,
        to: &Beneath,
        items: &[Item],
        copies: &[Item],
        hashed: &[Option<FileStamp>],
        made: &mut Made,
    ) -> Result<Vec<Option<FileStamp>>, Why> {
        let mut stamps = vec![None; hashed.len()];
        for (item, copy) in items.iter().zip(copies) {
            self.go_on()?;
            let path = self.to.join(&item.new);
            let stamp = |name: &Path| {
                let found = to.read(name).and_then(|file| file.metadata());
                let found = found.map_err(|error| Why::of(&self.to.join(name), error))?;
                Ok(stamp_of(&found))
            };
            if copy.new != item.new {
                match to.rename(&copy.new, &item.new) {
                    Ok(()) => {}
                    Err(Errno::EXIST) => return Err(come_since(&path)),
                    Err(error) => return Err(Why::of(&path, error)),
                }
            }
            let now = stamp(&item.new)?;
            if copy.new != item.new {
                made.named.push(Named {
                    own: copy.new.clone(),
                    new: item.new.clone(),
                    identity: (now.device, now.inode),
                });
            }
            let index = item.index as usize;
            let before = hashed.get(index).copied().flatten();
            let of = |stamp: FileStamp| (stamp.size, stamp.mtime_ns);
            if before.map(of) != Some(of(now)) {
                let why = "it was changed after it was hashed";
                return Err(Why::Passing(format!("{path:?}: {why}")));
            }
            if let Some(place) = stamps.get_mut(index) {
                *place = Some(now);
            }
        }
        Ok(stamps)
    }

    /// Gives copies their own names back: the torrent has not gone there.
    pub(super) fn unname(&self, to: &Beneath, made: &mut Made) {
        for named in made.named.drain(..) {
            let found = to.read(&named.new).and_then(|file| file.metadata());
            let found = found.ok().map(|found| stamp_of(&found));
            // What another has put in its place is left there.
            if found.map(|found| (found.device, found.inode)) != Some(named.identity) {
                continue;
            }
            if let Err(error) = to.rename(&named.new, &named.own) {
                let path = self.to.join(&named.new);
                tracing::warn!(torrent = %self.info_hash, ?path, %error, "a copy keeps its name");
            }
        }
    }

    /// Takes second names away that this try has made, if they are of the same files still.
    pub(super) fn unlink_made(&self, from: &Beneath, to: &Beneath, made: &mut Made) {
        let links = std::mem::take(&mut made.links).into_iter();
        let links = links.filter(|(old, new)| is_same(from, old, to, new));
        let links: Vec<_> = links.map(|(_, new)| new).collect();
        self.clear(to, links.iter().map(PathBuf::as_path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_moves_own_by_all_of_it() {
        let (mine, other) = (InfoHashV1([7; 20]), InfoHashV1([8; 20]));
        let own = own_name(&mine, 12, Path::new("a/b"));
        assert_eq!(own.parent(), Some(Path::new("a")));
        let name = own.file_name().unwrap();
        assert!(is_own(&mine, name) && !is_own(&other, name));
        assert!(is_own(&mine, OsStr::new(&mark_name(&mine))));
        for name in [
            format!(".{mine}-.moving"),
            format!(".{mine}-x.moving"),
            format!(".{mine}-1.moving.mkv"),
            format!("x.{mine}-1.moving"),
        ] {
            assert!(!is_own(&mine, OsStr::new(&name)), "{name}");
        }
    }
}
