//! Torrents are removed: first from the store, then from everything else, then, if the user wants
//! it, their files are deleted. A crash in between leaves files that no torrent knows of, never a
//! torrent whose files were deleted.
//!
//! Files are deleted beneath the save folder and nowhere else, with no link on the way; folders of
//! the torrent go when they are empty. Files that another kept torrent names stay
//! ([`crate::sharing`]), which is logged.
//!
//! Limits: one removal of a torrent at a time, and none is added while it is removed; [`READS_MAX`]
//! are read at a time, whose metainfo are in memory then, and files of [`DELETES_MAX`] deleted. The
//! others wait.

use crate::acting::STORE_AGAIN;
use crate::beneath::Beneath;
use crate::keeping::{After, Next, refusal};
use crate::manager::{Inner, Manager, Phase};
use crate::reading::Kept;
use crate::sharing::{Remaining, Sharing, SharingError};
use control::command::{CommandError, Reply};
use control::hooks::{HookEvent, Notice};
use proto::ids::InfoHashV1;
use seedring_io::torrent::Place;
use state::{Handle, Write, WriteError};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Torrents that are read at a time, to know their files.
const READS_MAX: usize = 4;

/// Torrents whose files are deleted at a time.
const DELETES_MAX: usize = 32;

/// The files of a torrent that is gone.
pub(crate) struct Remains {
    folder: PathBuf,
    /// Below it; with the suffix of files that are not complete, too.
    files: Vec<PathBuf>,
    /// What is appended to names of files that are not complete.
    suffix: String,
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
pub(crate) fn names(own: PathBuf, suffix: &str) -> Vec<PathBuf> {
    let mut names = Vec::new();
    if !suffix.is_empty() {
        let mut partial = OsString::from(&own);
        partial.push(suffix);
        names.push(partial.into());
    }
    names.push(own);
    names
}

/// Removals that are under way, of which there is one for a torrent: a second one would take away
/// what is added after the first.
pub(crate) struct Removals {
    running: HashSet<InfoHashV1>,
    /// Those that find out which files they are.
    reads: Arc<Semaphore>,
    /// Those that delete files: a disk that hangs must not take all threads.
    deletes: Arc<Semaphore>,
}

impl Default for Removals {
    fn default() -> Removals {
        Removals {
            running: HashSet::new(),
            reads: Arc::new(Semaphore::new(READS_MAX)),
            deletes: Arc::new(Semaphore::new(DELETES_MAX)),
        }
    }
}

impl Removals {
    /// Whether the torrent is being removed from the store.
    pub(crate) fn runs(&self, info_hash: &InfoHashV1) -> bool {
        self.running.contains(info_hash)
    }
}

impl Manager {
    pub(crate) fn remove(&mut self, info_hash: InfoHashV1, with_data: bool, reply: Reply<()>) {
        if !self.removals.running.insert(info_hash) {
            let why = "it is being removed already; wait until that has ended".to_owned();
            let _ = reply.send(Err(CommandError::Conflict(why)));
            return;
        }
        self.keeping.begun();
        let torrent = self.seat.catalog().get(&info_hash).cloned();
        let notice = torrent.and_then(|torrent| self.note(&torrent, HookEvent::Removed, None));
        let (store, inner) = (self.keeping.store.clone(), self.inner.clone());
        let suffix = self.settings.partial_suffix.clone();
        let reads = Arc::clone(&self.removals.reads);
        tokio::spawn(async move {
            // Which files they are is known as long as the torrent is.
            let read = match with_data {
                true => read_remains(&store, info_hash, suffix, &reads).await,
                false => Ok(None),
            };
            let (written, after) = match read {
                Ok(remains) => {
                    let kept = notice.as_ref().and_then(Notice::write);
                    let written = write_removed(&store, info_hash, kept).await;
                    let after: After<Manager> = Box::new(move |manager, written| {
                        manager.removed(info_hash, written, remains, notice, reply)
                    });
                    (written, after)
                }
                Err(why) => {
                    let after: After<Manager> = Box::new(move |manager, _| {
                        manager.removals.running.remove(&info_hash);
                        manager.tell_removed(notice, false);
                        let _ = reply.send(Err(CommandError::Failed(why)));
                        Next::Done
                    });
                    (Ok(()), after)
                }
            };
            let _ = inner.send(Inner::Written(written, after));
        });
    }

    /// The store has removed a torrent, or has not.
    fn removed(
        &mut self,
        info_hash: InfoHashV1,
        written: Result<(), WriteError>,
        remains: Option<Box<Remains>>,
        notice: Option<Notice>,
        reply: Reply<()>,
    ) -> Next {
        self.removals.running.remove(&info_hash);
        // One that an earlier try has removed, though it said otherwise, is removed.
        let written = match written {
            Err(WriteError::Unknown(_)) => Ok(()),
            written => written,
        };
        let next = match &written {
            Ok(()) => {
                let removed = self.seat.change(|catalog| catalog.remove(&info_hash));
                self.tell_removed(notice, removed.is_some());
                Next::Leave(info_hash, remains)
            }
            Err(_) => {
                self.tell_removed(notice, false);
                Next::Done
            }
        };
        let _ = reply.send(written.map_err(refusal));
        next
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
        self.ending.remove(&info_hash);
        for notice in self.unkept.forget(&info_hash) {
            self.told(notice, false);
        }
        self.sharing.unclaim(&info_hash);
        self.sharing.gone(&info_hash);
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
            let deletes = Arc::clone(&self.removals.deletes);
            let sharing = Arc::clone(&self.sharing);
            tokio::spawn(async move {
                let _turn = deletes.acquire().await;
                let remains = Arc::new(remains);
                loop {
                    let (remains, sharing) = (Arc::clone(&remains), Arc::clone(&sharing));
                    let delete = move || delete(info_hash, &remains, &sharing);
                    let deleted = tokio::task::spawn_blocking(delete).await;
                    match deleted {
                        Ok(Err(SharingError::Store(error))) => {
                            tracing::warn!(torrent = %info_hash, %error, "which of its files \
                                others have cannot be read now; they are deleted when it can");
                            tokio::time::sleep(STORE_AGAIN).await;
                        }
                        Ok(Err(why)) => {
                            tracing::error!(torrent = %info_hash, %why, "files of a removed \
                                torrent stay");
                            break;
                        }
                        Ok(Ok(())) | Err(_) => break,
                    }
                }
                let _ = inner.send(Inner::Buried(info_hash));
            });
        }
    }
}

/// Which files of a torrent are to be deleted; why that is not known, if it is not.
async fn read_remains(
    store: &Handle,
    info_hash: InfoHashV1,
    suffix: String,
    reads: &Semaphore,
) -> Result<Option<Box<Remains>>, String> {
    let _turn = reads.acquire().await;
    let store = store.clone();
    let read = move || match Kept::read(&store, info_hash) {
        Ok(kept) => Ok(remains(&kept, &suffix).map(Box::new)),
        Err(error) => Err(error.to_string()),
    };
    let read = tokio::task::spawn_blocking(read).await;
    let read = read.unwrap_or_else(|error| Err(error.to_string()));
    read.map_err(|why| {
        format!("its files are not known, so it is not removed: {why}; without its data it can be")
    })
}

/// Removes a torrent from the store, and that it was to be moved; with `beside`, which has no say.
async fn write_removed(
    store: &Handle,
    info_hash: InfoHashV1,
    beside: Option<Write>,
) -> Result<(), WriteError> {
    let writes = [Write::Remove(info_hash)].into_iter();
    let ack = store.submit(writes.chain(beside).collect());
    let written = ack.await?.await;
    written.into_iter().next().unwrap_or(Ok(()))
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
        suffix: suffix.to_owned(),
        had_data: kept.pieces_said() > 0,
    })
}

/// Deletes files that no other torrent names, and those of their folders that are empty then.
fn delete(info_hash: InfoHashV1, remains: &Remains, sharing: &Sharing) -> Result<(), SharingError> {
    let folder = &remains.folder;
    let root = match Beneath::open(folder) {
        Ok(root) => root,
        Err(error) => {
            tracing::warn!(?folder, %error, "files of a removed torrent cannot be deleted");
            return Ok(());
        }
    };
    let own = (folder.as_path(), remains.files.as_slice());
    let mut remaining = Remaining::look(sharing, info_hash, own, &remains.suffix)?;
    let (mut folders, mut found) = (BTreeSet::new(), false);
    for file in &remains.files {
        if !remaining.may_go(file)? {
            found = true;
            continue;
        }
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
        tracing::warn!(?folder, first = ?remains.files.first(), "none of the files of a removed \
            torrent was there to be deleted: if their disk is mounted again, they are nobody's");
    }
    // The deepest first; one that holds something else stays.
    let shared = remaining.shared.keys();
    let others: BTreeSet<_> = shared.flat_map(|path| path.ancestors()).collect();
    for folder in folders.iter().rev().filter(|path| !others.contains(*path)) {
        let _ = root.remove_folder(folder);
    }
    tell_shared(info_hash, folder, &remaining.shared);
    Ok(())
}

/// Tells which files stay because others have them.
fn tell_shared(info_hash: InfoHashV1, folder: &Path, shared: &BTreeMap<PathBuf, InfoHashV1>) {
    let there = shared.iter().filter(|(path, _)| folder.join(path).exists());
    let there: Vec<_> = there.collect();
    if let Some((first, other)) = there.first() {
        let files = there.len();
        tracing::info!(torrent = %info_hash, files, ?first, ?folder, of = %other,
            "files of a removed torrent stay: another torrent has them, too");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::idle::Idle;
    use control::catalog::Status;
    use control::command::{AddSource, AddTorrent};
    use proto::magnet::Magnet;
    use state::Summary;
    use std::fs;
    use tokio::sync::oneshot;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_torrent_that_is_being_removed_is_neither_removed_again_nor_added() {
        let folder = tempfile::tempdir().unwrap();
        let mut idle = Idle::new(folder.path());
        let info_hash = idle.keep(Summary::default(), Status::Paused).await;
        let (reply, first) = oneshot::channel();
        idle.manager.remove(info_hash, true, reply);
        let removed = idle.next().await;
        let (reply, second) = oneshot::channel();
        idle.manager.remove(info_hash, true, reply);
        let second = idle.answer(second).await;
        assert!(
            matches!(second, Err(CommandError::Conflict(_))),
            "{second:?}"
        );
        let link = Magnet::parse(&format!("magnet:?xt=urn:btih:{info_hash}")).unwrap();
        let add = AddTorrent {
            paused: true,
            ..AddTorrent::new(AddSource::Magnet(Box::new(link)))
        };
        let (reply, early) = oneshot::channel();
        idle.manager.add(add.clone(), reply);
        let early = idle.answer(early).await;
        assert!(matches!(early, Err(CommandError::Conflict(_))), "{early:?}");
        // When it is gone it is another's turn, and nothing takes that away.
        idle.manager.inner(removed).await;
        assert_eq!(idle.answer(first).await, Ok(()));
        let (reply, late) = oneshot::channel();
        idle.manager.add(add, reply);
        assert!(!idle.answer(late).await.unwrap().was_there);
        let (reply, again) = oneshot::channel();
        idle.manager.remove(info_hash, false, reply);
        assert_eq!(idle.answer(again).await, Ok(()));
        assert!(idle.manager.removals.running.is_empty());
    }

    /// Disks that hang have the others wait, but take no threads from what else blocks.
    #[tokio::test(flavor = "multi_thread")]
    async fn so_many_are_read_and_deleted_at_a_time_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let mut idle = Idle::new(folder.path());
        let info_hash = idle.keep(Summary::default(), Status::Paused).await;
        fs::write(folder.path().join("a"), b"x").unwrap();
        let deletes = Arc::clone(&idle.manager.removals.deletes);
        let reads = Arc::clone(&idle.manager.removals.reads);
        let others = deletes.acquire_many(DELETES_MAX as u32).await.unwrap();
        let reading = reads.acquire_many(READS_MAX as u32).await.unwrap();
        let remains = Remains {
            folder: folder.path().to_owned(),
            files: vec!["a".into()],
            suffix: ".part".into(),
            had_data: true,
        };
        let (reply, removed) = oneshot::channel();
        idle.manager.remove(info_hash, true, reply);
        idle.manager.bury(info_hash, Some(Box::new(remains)));
        // Whoever did not wait would have come by then.
        let wait = std::time::Duration::from_millis(500);
        let none = tokio::time::timeout(wait, idle.next()).await;
        assert!(none.is_err() && folder.path().join("a").exists());
        drop(others);
        idle.step().await;
        assert!(idle.manager.burying.is_empty() && !folder.path().join("a").exists());
        drop(reading);
        assert_eq!(idle.answer(removed).await, Ok(()));
    }

    const HASH: InfoHashV1 = InfoHashV1([7; 20]);

    #[test]
    fn what_was_renamed_when_it_was_gone_is_deleted_under_its_new_name() {
        let folder = tempfile::tempdir().unwrap();
        let (_store, sharing) = Sharing::of_nobody();
        let path = |name: &str| folder.path().join(name);
        let remains = |place: Option<&Place>| {
            let remains = Remains {
                folder: "/nowhere".into(),
                files: vec!["old/a".into(), "old/b".into()],
                suffix: ".part".into(),
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
            delete(HASH, &remains(place), &sharing).unwrap();
            assert_eq!(path("new/a").exists(), place.is_none());
            assert_eq!(path("new/b.part").exists(), place.is_none());
            assert!(path("new/mine").exists() && !path("old").exists());
        }
    }

    #[test]
    fn files_and_their_empty_folders_go_and_nothing_else() {
        let (_store, sharing) = Sharing::of_nobody();
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
            suffix: ".part".into(),
            had_data: true,
        };
        delete(HASH, &remains, &sharing).unwrap();
        assert!(!path("t/a").exists() && !path("t/c/3").exists());
        assert!(path("t/c/mine").exists(), "another's file stays");
        assert!(outside.path().join("kept").exists(), "no link is followed");
        assert!(folder.path().exists());
    }
}
