//! Torrents are removed: first from the store, then from everything else, then, if the user wants
//! it, their files are deleted. A crash in between leaves files that no torrent knows of, never a
//! torrent whose files were deleted.
//!
//! Files are deleted beneath the save folder and nowhere else, with no link on the way; folders of
//! the torrent go when they are empty.

use crate::beneath::Beneath;
use crate::keeping::{Next, refusal};
use crate::manager::{Manager, Phase};
use crate::reading::Kept;
use control::command::{CommandError, Reply};
use control::hooks::{HookEvent, Notice};
use proto::ids::InfoHashV1;
use seedring_io::torrent::Place;
use state::{Write, WriteError};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The files of a torrent that is gone.
pub(crate) struct Remains {
    folder: PathBuf,
    /// Below it; with the suffix of files that are not complete, too.
    files: Vec<PathBuf>,
    /// Whether some of them had data.
    had_data: bool,
}

impl Remains {
    /// The same files in this folder.
    pub(crate) fn of_folder(self, folder: &Path) -> Remains {
        Remains {
            folder: folder.to_owned(),
            ..self
        }
    }

    /// The same files where a move or a rename, which ended when the torrent was gone, has brought
    /// them; those that are not complete have `suffix`.
    pub(crate) fn at(mut self, place: &Place, suffix: &str) -> Remains {
        self.folder.clone_from(&place.data_dir);
        for own in place.paths.values() {
            self.files.extend(names(own.clone(), suffix));
        }
        self
    }
}

/// The names that a file may have.
fn names(own: PathBuf, suffix: &str) -> Vec<PathBuf> {
    let mut names = Vec::new();
    if !suffix.is_empty() {
        let mut partial = OsString::from(&own);
        partial.push(suffix);
        names.push(partial.into());
    }
    names.push(own);
    names
}

impl Manager {
    pub(crate) fn remove(&mut self, info_hash: InfoHashV1, with_data: bool, reply: Reply<()>) {
        let (store, inner) = (self.keeping.store.clone(), self.inner.clone());
        self.keeping.begun();
        let suffix = self.settings.partial_suffix.clone();
        let torrent = self.seat.catalog().get(&info_hash).cloned();
        let notice = torrent.and_then(|torrent| self.note(&torrent, HookEvent::Removed, None));
        tokio::task::spawn_blocking(move || {
            // Which files they are is known as long as the torrent is.
            let remains = match with_data.then(|| Kept::read(&store, info_hash)) {
                None => None,
                Some(Ok(kept)) => remains(&kept, &suffix).map(Box::new),
                Some(Err(error)) => {
                    let why = format!(
                        "its files are not known, so it is not removed: {error}; without its data \
                         it can be"
                    );
                    let _ = reply.send(Err(CommandError::Failed(why)));
                    let nothing = |manager: &mut Manager, _| {
                        manager.tell_removed(notice, false);
                        Next::Done
                    };
                    let event = crate::manager::Inner::Written(Ok(()), Box::new(nothing));
                    let _ = inner.send(event);
                    return;
                }
            };
            let kept = notice.as_ref().and_then(Notice::write);
            let after = move |manager: &mut Manager, written: Result<(), WriteError>| {
                // One that an earlier try has removed, though it said otherwise, is removed.
                let written = match written {
                    Err(WriteError::Unknown(_)) => Ok(()),
                    written => written,
                };
                let next = match &written {
                    Ok(()) => {
                        let removed = manager.seat.change(|catalog| catalog.remove(&info_hash));
                        manager.tell_removed(notice, removed.is_some());
                        Next::Leave(info_hash, remains)
                    }
                    Err(_) => {
                        manager.tell_removed(notice, false);
                        Next::Done
                    }
                };
                let _ = reply.send(written.map_err(refusal));
                next
            };
            let no_move = Write::Setting(crate::moving::intent(info_hash), None);
            let no_rename = Write::Setting(crate::renaming::intent(info_hash), None);
            let writes = [Write::Remove(info_hash), no_move, no_rename];
            let ack = store.submit_blocking(writes.into_iter().chain(kept).collect());
            let written = match ack {
                Ok(ack) => ack.wait().into_iter().next().unwrap_or(Ok(())),
                Err(error) => Err(error),
            };
            let event = crate::manager::Inner::Written(written, Box::new(after));
            let _ = inner.send(event);
        });
    }

    /// Tells that a torrent is gone, or that it is not after all.
    fn tell_removed(&self, notice: Option<Notice>, is_gone: bool) {
        if let Some(notice) = notice {
            self.told(notice, is_gone);
        }
    }

    /// A torrent is gone from the store: stops what it is doing, and deletes its files.
    pub(crate) async fn leave(&mut self, info_hash: InfoHashV1, remains: Option<Box<Remains>>) {
        self.named.remove(&info_hash);
        self.damaged.remove(&info_hash);
        self.waived.remove(&info_hash);
        for notice in self.unkept.forget(&info_hash) {
            self.told(notice, false);
        }
        self.queue.forget(&info_hash);
        self.returned.forget(&info_hash);
        self.moves.forget(&info_hash);
        if self.halt(info_hash).await {
            match self.moves.runs(&info_hash) {
                // Where its files are is known when its move has ended.
                true => drop(self.leaving.insert(info_hash, remains)),
                false => self.bury(info_hash, remains),
            }
        } else if matches!(self.phases.get(&info_hash), Some(Phase::Stopping(_))) {
            self.leaving.insert(info_hash, remains);
        }
        self.next_downloads().await;
    }

    pub(crate) fn bury(&mut self, info_hash: InfoHashV1, remains: Option<Box<Remains>>) {
        if let Some(remains) = remains {
            self.burying.insert(info_hash);
            let inner = self.inner.clone();
            tokio::task::spawn_blocking(move || {
                delete(&remains);
                let _ = inner.send(crate::manager::Inner::Buried(info_hash));
            });
        }
    }
}

fn remains(kept: &Kept, suffix: &str) -> Option<Remains> {
    let (_, metainfo) = kept.metainfo.as_ref()?;
    let mut files = Vec::new();
    for (index, file) in (0..).zip(&metainfo.files) {
        if file.pad {
            continue;
        }
        let said = || file.path.iter().collect::<PathBuf>();
        let own = kept.details.renames.get(&index).cloned();
        files.extend(names(own.unwrap_or_else(said), suffix));
    }
    let folder = kept.summary.save_path.clone();
    Some(Remains {
        folder,
        files,
        had_data: kept.pieces_said() > 0,
    })
}

/// Deletes files, and those of their folders that are empty then.
fn delete(remains: &Remains) {
    let root = match Beneath::open(&remains.folder) {
        Ok(root) => root,
        Err(error) => {
            let folder = &remains.folder;
            tracing::warn!(?folder, %error, "files of a removed torrent cannot be deleted");
            return;
        }
    };
    let (mut folders, mut found) = (BTreeSet::new(), false);
    for file in &remains.files {
        match root.unlink_if_there(file) {
            Ok(was_there) => found |= was_there,
            Err(error) => {
                found = true;
                tracing::warn!(?file, folder = ?remains.folder, %error,
                    "a file of a removed torrent cannot be deleted");
            }
        }
        let above = file.ancestors().skip(1);
        folders.extend(above.filter(|path| !path.as_os_str().is_empty()));
    }
    if remains.had_data && !found {
        let folder = &remains.folder;
        tracing::warn!(?folder, first = ?remains.files.first(), "none of the files of a removed \
            torrent was there to be deleted: if their disk is mounted again, they are nobody's");
    }
    // The deepest first; one that holds something else stays.
    for folder in folders.iter().rev() {
        let _ = root.remove_folder(folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_was_renamed_when_it_was_gone_is_deleted_under_its_new_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let remains = |place: Option<&Place>| {
            let remains = Remains {
                folder: "/nowhere".into(),
                files: vec!["old/a".into(), "old/b".into()],
                had_data: true,
            };
            match place {
                Some(place) => remains.at(place, ".part"),
                None => remains.of_folder(folder.path()),
            }
        };
        let place = Place {
            data_dir: folder.path().to_owned(),
            stamps: Vec::new(),
            paths: [(0, "new/a".into()), (1, "new/b".into())].into(),
        };
        for place in [None, Some(&place)] {
            fs::create_dir_all(path("new")).unwrap();
            fs::create_dir_all(path("old")).unwrap();
            for name in ["new/a", "new/b.part", "new/mine", "old/a"] {
                fs::write(path(name), b"x").unwrap();
            }
            delete(&remains(place));
            assert_eq!(path("new/a").exists(), place.is_none());
            assert_eq!(path("new/b.part").exists(), place.is_none());
            assert!(path("new/mine").exists() && !path("old").exists());
        }
    }

    #[test]
    fn files_and_their_empty_folders_go_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir_all(path("t/a/b")).unwrap();
        fs::create_dir_all(path("t/c")).unwrap();
        for name in ["t/a/b/1", "t/a/2.part", "t/c/3", "t/c/mine"] {
            fs::write(path(name), b"x").unwrap();
        }
        fs::write(outside.path().join("kept"), b"x").unwrap();
        std::os::unix::fs::symlink(outside.path(), path("t/link")).unwrap();
        let remains = Remains {
            folder: folder.path().to_owned(),
            files: [
                "t/a/b/1",
                "t/a/2.part",
                "t/a/2",
                "t/c/3",
                "t/link/kept",
                "../x",
            ]
            .map(PathBuf::from)
            .to_vec(),
            had_data: true,
        };
        delete(&remains);
        assert!(!path("t/a").exists() && !path("t/c/3").exists());
        assert!(path("t/c/mine").exists(), "another's file stays");
        assert!(outside.path().join("kept").exists(), "no link is followed");
        assert!(folder.path().exists());
    }
}
