//! Files of torrents that are gone are deleted, beside everything else. What is to be deleted is
//! kept until it is, so the next start goes on with what a crash or a stop has cut off.
//!
//! What is away (a mount that is not there) or cannot be deleted is tried again, at each start and
//! after [`AGAIN_MIN`], then twice that, up to [`AGAIN_MAX`], for [`TRIED_FOR`] since the torrent
//! was removed; then that is given up, and told. A torrent that is added again before keeps its
//! files.
//!
//! While torrents that the configuration names are being loaded nothing is deleted: whose files they
//! have is not known. What has come meanwhile is kept, and begun when they are.
//!
//! Limits: files of [`DELETES_MAX`] torrents are deleted at a time, the others wait: a disk that
//! hangs must not take all threads.

use crate::deleting::{Deleted, ENDING, Remains, now_s};
use crate::keeping::Next;
use crate::manager::{Inner, Manager};
use proto::ids::InfoHashV1;
use state::{Intent, ReadError, Write, WriteError};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Torrents whose files are deleted at a time.
pub(crate) const DELETES_MAX: usize = 32;

/// What is kept of deletions is read in pages of so many torrents.
const PAGE: usize = 100;

/// How long after files could not be deleted it is tried again.
const AGAIN_MIN: Duration = Duration::from_secs(60);
/// See [`AGAIN_MIN`].
const AGAIN_MAX: Duration = Duration::from_secs(3600);

/// For how long after a torrent was removed it is tried to delete its files.
const TRIED_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

/// Deletions that are under way.
pub(crate) struct Burials {
    running: HashMap<InfoHashV1, Burial>,
    /// Those that are at the disk.
    pub deletes: Arc<Semaphore>,
}

/// See [`Burials`].
struct Burial {
    number: u64,
    /// Whether it is the first try, after which files may be somebody else's.
    is_first: bool,
    /// How long it waits, if it does, unless it can go on before.
    waits: Option<Duration>,
    /// After which pause it is tried again.
    again: Duration,
}

impl Default for Burials {
    fn default() -> Burials {
        Burials {
            running: HashMap::new(),
            deletes: Arc::new(Semaphore::new(DELETES_MAX)),
        }
    }
}

impl Burials {
    /// Whether files of a torrent are being deleted.
    pub(crate) fn runs(&self, info_hash: &InfoHashV1) -> bool {
        let burial = self.running.get(info_hash);
        burial.is_some_and(|burial| burial.waits.is_none())
    }

    /// Whether files of a torrent are to be deleted later.
    pub(crate) fn waits(&self, info_hash: &InfoHashV1) -> bool {
        self.running.contains_key(info_hash) && !self.runs(info_hash)
    }

    /// Whether any are being deleted.
    pub(crate) fn any_runs(&self) -> bool {
        self.running.values().any(|burial| burial.waits.is_none())
    }

    /// Its files stay.
    pub(crate) fn forget(&mut self, info_hash: &InfoHashV1) {
        self.running.remove(info_hash);
    }
}

/// What came of a try to delete the files of a torrent.
pub(crate) struct Buried {
    info_hash: InfoHashV1,
    number: u64,
    outcome: Outcome,
}

enum Outcome {
    Done,
    /// Why not, and when the torrent was removed.
    Later(String, u64),
    GivenUp,
}

impl Manager {
    /// Deletes the files of a torrent that was removed just now.
    pub(crate) fn bury(&mut self, info_hash: InfoHashV1, remains: Option<Box<Remains>>) {
        if let Some(remains) = remains {
            self.begin_burial(info_hash, Some(remains), AGAIN_MIN);
        }
    }

    /// What is to be deleted of a torrent that was to be added, and is not, is to be all the same.
    pub(crate) fn bury_after_all(&mut self, info_hash: InfoHashV1) {
        if !self.burials.running.contains_key(&info_hash) {
            self.begin_burial(info_hash, None, AGAIN_MIN);
        }
    }

    /// Others serve a torrent that was removed: what is to be deleted of it is not any more. What is
    /// being deleted finds that out by itself.
    pub(crate) async fn waive_burial(&mut self, info_hash: InfoHashV1) {
        if self.burials.waits(&info_hash) {
            tracing::info!(torrent = %info_hash, "it was removed with its data, which were not \
                deleted yet, and is named in the configuration: what is there of them stays");
            self.burials.forget(&info_hash);
            self.settle_burial(info_hash).await;
        }
    }

    /// Goes on with the deletions that earlier runs did not end.
    pub(crate) async fn resume_burials(&mut self) -> Result<(), ReadError> {
        let mut after = None;
        loop {
            let read = move |view: &state::View| {
                // What they say may be many megabytes each.
                view.intending(Intent::Delete, after, PAGE)
            };
            let page = self.keeping.store.read(read).await?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = Some(*last);
            for info_hash in page {
                // It was added again while the server was down.
                let is_there = self.seat.catalog().get(&info_hash).is_some();
                match is_there {
                    true => self.settle_burial(info_hash).await,
                    false => self.begin_burial(info_hash, None, AGAIN_MIN),
                }
            }
        }
    }

    /// Has files be deleted when it is their turn: `remains`, or those that are kept.
    fn begin_burial(
        &mut self,
        info_hash: InfoHashV1,
        remains: Option<Box<Remains>>,
        again: Duration,
    ) {
        let number = self.number();
        let burial = Burial {
            number,
            is_first: remains.is_some(),
            waits: self.sharing.is_held().then_some(again),
            again,
        };
        let (is_late, waits) = (!burial.is_first, burial.waits.is_some());
        self.burials.running.insert(info_hash, burial);
        if waits {
            self.keep_until_settled(info_hash, remains);
            return;
        }
        let (store, inner) = (self.keeping.store.clone(), self.inner.clone());
        let deletes = Arc::clone(&self.burials.deletes);
        let sharing = Arc::clone(&self.sharing);
        tokio::spawn(async move {
            let mut is_kept = true;
            if let Some(remains) = remains.as_ref().filter(|remains| remains.is_other) {
                let kept = Some(remains.encode());
                let written = store.write(Write::Intent(Intent::Delete, info_hash, kept));
                is_kept = written.await.is_ok();
            }
            let begun = Instant::now();
            let (mut remains, mut is_late) = (remains, is_late);
            let _turn = match deletes.try_acquire() {
                Ok(turn) => Ok(turn),
                Err(_) => {
                    // Any number may wait: what the store has is not held in memory, too.
                    remains = remains.filter(|_| !is_kept);
                    let turn = deletes.acquire().await;
                    is_late |= begun.elapsed() >= ENDING;
                    turn
                }
            };
            let delete = move || {
                let remains = match remains {
                    Some(remains) => remains,
                    None => match intended(&store, info_hash) {
                        Ok(Some(remains)) => Box::new(remains),
                        Ok(None) => return Outcome::Done,
                        Err(why) => return Outcome::Later(why, now_s()),
                    },
                };
                let deleted = remains.delete(info_hash, &sharing, is_late);
                outcome(info_hash, &remains, deleted)
            };
            let outcome = tokio::task::spawn_blocking(delete).await;
            let outcome = outcome.unwrap_or_else(|why| Outcome::Later(why.to_string(), now_s()));
            let buried = Buried {
                info_hash,
                number,
                outcome,
            };
            let _ = inner.send(Inner::Buried(buried));
        });
    }

    /// Files are deleted when it is known what others serve: `remains` is as it is kept by then.
    fn keep_until_settled(&self, info_hash: InfoHashV1, remains: Option<Box<Remains>>) {
        let Some(remains) = remains else { return };
        tracing::info!(torrent = %info_hash, "it was removed with its data, which are deleted when \
            all torrents that the configuration names are loaded: they may have some of them");
        if remains.is_other {
            let (store, kept) = (self.keeping.store.clone(), Some(remains.encode()));
            let write = Write::Intent(Intent::Delete, info_hash, kept);
            tokio::spawn(async move { store.write(write).await });
        }
    }

    /// Tries again to delete what could not be, or was not to be yet.
    pub(crate) fn bury_waiting(&mut self) {
        let running = self.burials.running.iter();
        let waiting = running.filter(|(_, burial)| burial.waits.is_some());
        let waiting: Vec<_> = waiting.map(|(it, burial)| (*it, burial.again)).collect();
        for (info_hash, again) in waiting {
            self.begin_burial(info_hash, None, again);
        }
    }

    /// Files of a torrent are deleted, or not.
    pub(crate) async fn buried(&mut self, buried: Buried) {
        let Buried {
            info_hash,
            number,
            outcome,
        } = buried;
        let burial = self.burials.running.get_mut(&info_hash);
        let Some(burial) = burial.filter(|burial| burial.number == number) else {
            return;
        };
        let Outcome::Later(why, removed_at_s) = outcome else {
            self.burials.forget(&info_hash);
            self.settle_burial(info_hash).await;
            return;
        };
        let hours = TRIED_FOR
            .as_secs()
            .saturating_sub(now_s().saturating_sub(removed_at_s))
            / 3600;
        if burial.again == AGAIN_MIN {
            tracing::warn!(torrent = %info_hash, why, "files of a removed torrent are not deleted \
                yet: that is tried again for {hours} hours");
        } else {
            tracing::debug!(torrent = %info_hash, why, "still not deleted");
        }
        burial.waits = Some(burial.again);
        if self.declared.torrent(&info_hash).is_some() {
            return self.waive_burial(info_hash).await;
        }
        let (inner, pause) = (self.inner.clone(), burial.again);
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let _ = inner.send(Inner::BuryAgain(info_hash, number));
        });
    }

    /// Keeps that no files of a torrent are to be deleted any more.
    async fn settle_burial(&self, info_hash: InfoHashV1) {
        let after = move |_: &mut Manager, written: Result<(), WriteError>| {
            if let Err(error) = written {
                tracing::warn!(torrent = %info_hash, %error, "that its files are deleted is not \
                    kept: the next start looks for them again");
            }
            Next::Done
        };
        let write = Write::Intent(Intent::Delete, info_hash, None);
        self.keeping.write(write, Box::new(after)).await;
    }

    /// Files that could not be deleted are to be, now.
    pub(crate) fn bury_again(&mut self, info_hash: InfoHashV1, number: u64) {
        let burial = self.burials.running.get(&info_hash);
        if let Some(burial) = burial.filter(|burial| burial.number == number) {
            let again = (burial.again * 2).min(AGAIN_MAX);
            self.begin_burial(info_hash, None, again);
        }
    }
}

/// Which files of a torrent are to be deleted, as that is kept; blocks on the disk.
pub(crate) fn intended(
    store: &state::Handle,
    info_hash: InfoHashV1,
) -> Result<Option<Remains>, String> {
    let read = store.read_blocking(|view| view.intent(Intent::Delete, &info_hash));
    let Some(bytes) = read.map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    let remains = Remains::decode(&bytes);
    if remains.is_none() {
        tracing::error!(torrent = %info_hash, "which of its files were to be deleted is damaged: \
            they stay");
    }
    Ok(remains)
}

fn outcome(info_hash: InfoHashV1, remains: &Remains, deleted: Deleted) -> Outcome {
    let removed_at_s = remains.removed_at_s;
    match deleted {
        Ok(()) => Outcome::Done,
        Err(why) if now_s().saturating_sub(removed_at_s) < TRIED_FOR.as_secs() => {
            Outcome::Later(why, removed_at_s)
        }
        Err(why) => {
            let place = remains.place();
            tracing::error!(torrent = %info_hash, why, ?place, "files of a torrent that was removed \
                with its data are not deleted, and that is tried no more: what is there of them \
                is to be deleted by hand");
            Outcome::GivenUp
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::idle::{Idle, declared};
    use std::fs;
    use std::path::Path;

    /// An intent to delete `a` in this folder, as it is kept.
    async fn intend(idle: &Idle, folder: &Path) -> InfoHashV1 {
        fs::write(folder.join("a"), b"x").unwrap();
        let info_hash = InfoHashV1([7; 20]);
        let kept = Some(Remains::of_files(folder, &["a"]).encode());
        let write = Write::Intent(Intent::Delete, info_hash, kept);
        idle.store.handle().write(write).await.unwrap();
        info_hash
    }

    /// A start knows of no file that the configuration names before that is loaded, which may take
    /// hours; what could not be loaded may be there still.
    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_is_deleted_before_it_is_known_what_the_configuration_names() {
        let folder = tempfile::tempdir().unwrap();
        let mut idle = Idle::new(folder.path());
        idle.manager.sharing.hold();
        let file = folder.path().join("a");
        let info_hash = intend(&idle, folder.path()).await;
        idle.manager.load().await.unwrap();
        assert!(!idle.manager.burials.any_runs() && idle.manager.burials.waits(&info_hash));
        for unloaded in [folder.path().to_owned(), file.clone(), "/".into()] {
            idle.manager.sharing.settle(vec![unloaded]);
            idle.manager.go_on_settled().await;
            assert!(idle.manager.burials.runs(&info_hash));
            idle.step().await;
            assert!(file.exists() && idle.manager.burials.waits(&info_hash));
        }
        let elsewhere = ["b", "downloads", "a/x"].map(|name| folder.path().join(name));
        idle.manager.sharing.settle(elsewhere.into());
        idle.manager.go_on_settled().await;
        idle.step().await;
        assert!(!file.exists() && !idle.manager.burials.waits(&info_hash));
    }

    /// Who names a torrent in the configuration that he has removed wants its files.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_torrent_that_is_named_again_has_what_was_to_be_deleted_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut idle = Idle::new(folder.path());
        let (file, away) = (folder.path().join("a"), folder.path().join("away"));
        fs::write(&file, b"x").unwrap();
        let declared = declared(folder.path(), "a");
        let info_hash = declared.ready.info_hash;
        let bury = |idle: &mut Idle, folder: &Path| {
            let remains = Remains::of_files(folder, &["a"]);
            idle.manager.bury(info_hash, Some(Box::new(remains)));
        };
        let done = async |idle: &mut Idle| {
            while idle.manager.burials.any_runs() {
                idle.step().await;
            }
        };
        bury(&mut idle, &away);
        done(&mut idle).await;
        assert!(idle.manager.burials.waits(&info_hash), "its disk is away");
        idle.manager.declare(declared).await;
        assert!(!idle.manager.burials.waits(&info_hash));
        // Nor does one that begins now take them: its removal is acknowledged late.
        for place in [folder.path(), &away] {
            bury(&mut idle, place);
            done(&mut idle).await;
            assert!(file.exists() && !idle.manager.burials.waits(&info_hash));
        }
        idle.manager.undeclare(info_hash).await;
        bury(&mut idle, folder.path());
        done(&mut idle).await;
        assert!(!file.exists(), "nobody names them");
    }

    /// A reload names others while files are being deleted.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_removed_while_the_configuration_is_loaded_waits_as_it_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut idle = Idle::new(folder.path());
        idle.manager.sharing.hold();
        let file = folder.path().join("a");
        fs::write(&file, b"x").unwrap();
        let info_hash = InfoHashV1([7; 20]);
        // A move that has ended meanwhile says where they are.
        let mut remains = Remains::of_files(folder.path(), &["a"]);
        remains.is_other = true;
        idle.manager.bury(info_hash, Some(Box::new(remains)));
        assert!(!idle.manager.burials.any_runs() && file.exists());
        let kept = |view: &state::View| view.intent(Intent::Delete, &info_hash);
        while idle.store.handle().read_blocking(kept).unwrap().is_none() {
            tokio::task::yield_now().await;
        }
        idle.manager.sharing.settle(Vec::new());
        idle.manager.go_on_settled().await;
        idle.step().await;
        assert!(!file.exists());
    }
}
