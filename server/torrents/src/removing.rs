//! Torrents are removed: first from the store, then from everything else; then, if the user wants
//! it, their files are deleted ([`crate::burying`]). Which these are is kept by the transaction that
//! removes the torrent, so a crash in between leaves neither a torrent whose files were deleted nor
//! files that no torrent knows of.
//!
//! Limits: one removal of a torrent at a time, and none is added while it is removed; [`READS_MAX`]
//! are read at a time, whose metainfo are in memory then. The others wait.

use crate::burying::intended;
use crate::deleting::Remains;
use crate::keeping::{After, Next, refusal};
use crate::manager::{Inner, Manager, Phase};
use crate::reading::KeptError;
use control::command::{CommandError, Reply};
use control::hooks::{HookEvent, Notice};
use proto::ids::InfoHashV1;
use state::limits::INTENT_BYTES_MAX;
use state::{Handle, Intent, Write, WriteError};
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Torrents that are read at a time, to know their files.
const READS_MAX: usize = 4;

/// Removals that are under way, of which there is one for a torrent: a second one would take away
/// what is added after the first.
pub(crate) struct Removals {
    running: HashSet<InfoHashV1>,
    /// Those that find out which files they are.
    reads: Arc<Semaphore>,
}

impl Default for Removals {
    fn default() -> Removals {
        Removals {
            running: HashSet::new(),
            reads: Arc::new(Semaphore::new(READS_MAX)),
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
                    let mut written =
                        write_removed(&store, info_hash, remains.as_deref(), kept).await;
                    // What is told as failed may be on the disk all the same.
                    if matches!(written, Err(WriteError::Failed(_)))
                        && is_gone(&store, info_hash).await
                    {
                        written = write_removed(&store, info_hash, remains.as_deref(), None).await;
                    }
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
                // Others may have begun to serve it meanwhile.
                let is_shown = self.declared.torrent(&info_hash).is_some();
                let is_gone = is_shown
                    || self
                        .seat
                        .change(|catalog| catalog.remove(&info_hash))
                        .is_some();
                self.tell_removed(notice, is_gone);
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
    let read = move || {
        let remains = match Remains::read(&store, info_hash, &suffix) {
            // An earlier try has removed it, though it said otherwise.
            Err(KeptError::Gone) => intended(&store, info_hash)?.map(Box::new),
            remains => remains.map_err(|error| error.to_string())?,
        };
        let bytes = remains.as_ref().map_or(0, |remains| remains.encode().len());
        match bytes <= INTENT_BYTES_MAX {
            true => Ok(remains),
            false => Err(format!(
                "their names take {bytes} bytes, and {INTENT_BYTES_MAX} can be kept"
            )),
        }
    };
    let read = tokio::task::spawn_blocking(read).await;
    let read = read.unwrap_or_else(|error| Err(error.to_string()));
    read.map_err(|why| {
        format!("its files cannot be told, so it is not removed: {why}; without its data it can be")
    })
}

/// Whether the store says that it does not have a torrent.
async fn is_gone(store: &Handle, info_hash: InfoHashV1) -> bool {
    let read = store.read(move |view| view.summary(&info_hash)).await;
    matches!(read, Ok(None))
}

/// Removes a torrent from the store, and keeps which files are to be deleted, or that none are,
/// whatever an earlier try has kept; with `beside`, which has no say.
async fn write_removed(
    store: &Handle,
    info_hash: InfoHashV1,
    remains: Option<&Remains>,
    beside: Option<Write>,
) -> Result<(), WriteError> {
    let kept = remains.map(Remains::encode);
    let mut writes = vec![
        Write::Intent(Intent::Delete, info_hash, kept),
        Write::Remove(info_hash),
    ];
    let asked = writes.len();
    writes.extend(beside);
    let ack = store.submit(writes);
    let written = ack.await?.await;
    written.into_iter().take(asked).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::burying::DELETES_MAX;
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

    /// A write that was told as failed was on the disk. Whoever tries again is told the truth, and
    /// who has thought better of it keeps his files, also after a restart.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_removal_that_was_done_though_it_failed_is_done_as_it_is_asked_for_last() {
        for with_data in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let mut idle = Idle::new(folder.path());
            let info_hash = idle.keep(Summary::default(), Status::Paused).await;
            let file = folder.path().join("a");
            fs::write(&file, b"x").unwrap();
            let remains = Remains::of_files(folder.path(), &["a"]);
            let store = idle.store.handle();
            let removed = write_removed(&store, info_hash, Some(&remains), None).await;
            assert_eq!(removed, Ok(()));
            assert!(is_gone(&store, info_hash).await);
            let (reply, answer) = oneshot::channel();
            idle.manager.remove(info_hash, with_data, reply);
            assert_eq!(idle.answer(answer).await, Ok(()));
            while idle.manager.burials.any_runs() {
                idle.step().await;
            }
            assert_eq!(file.exists(), !with_data);
            assert!(idle.manager.seat.catalog().get(&info_hash).is_none());
            store.flush().await.unwrap();
            let intent = |view: &state::View| view.intent(Intent::Delete, &info_hash);
            assert_eq!(store.read_blocking(intent).unwrap(), None);
        }
    }

    /// Disks that hang have the others wait, but take no threads from what else blocks.
    #[tokio::test(flavor = "multi_thread")]
    async fn so_many_are_read_and_deleted_at_a_time_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let mut idle = Idle::new(folder.path());
        let info_hash = idle.keep(Summary::default(), Status::Paused).await;
        fs::write(folder.path().join("a"), b"x").unwrap();
        let deletes = Arc::clone(&idle.manager.burials.deletes);
        let reads = Arc::clone(&idle.manager.removals.reads);
        let others = deletes.acquire_many(DELETES_MAX as u32).await.unwrap();
        let reading = reads.acquire_many(READS_MAX as u32).await.unwrap();
        let remains = Remains::of_files(folder.path(), &["a"]);
        let kept = Some(remains.encode());
        let write = Write::Intent(Intent::Delete, info_hash, kept);
        idle.store.handle().write(write).await.unwrap();
        let (reply, removed) = oneshot::channel();
        idle.manager.remove(info_hash, true, reply);
        idle.manager.bury(info_hash, Some(Box::new(remains)));
        // Whoever did not wait would have come by then.
        let wait = std::time::Duration::from_millis(500);
        let none = tokio::time::timeout(wait, idle.next()).await;
        assert!(none.is_err() && folder.path().join("a").exists());
        drop(others);
        idle.step().await;
        assert!(!idle.manager.burials.any_runs() && !folder.path().join("a").exists());
        drop(reading);
        assert_eq!(idle.answer(removed).await, Ok(()));
    }
}
