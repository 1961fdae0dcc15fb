//! A torrent goes on from the folder that its files are in now: first kept, then served from there.

use super::way::{self, Way};
use super::work::is_as_before;
use super::{AGAIN, MoveEvent, keep};
use crate::keeping::{Change, Next};
use crate::manager::{Inner, Manager, Phase};
use proto::ids::InfoHashV1;
use seedring_io::torrent::{Place, SeededTorrent};
use state::{Summary, Update, Write};
use std::sync::Arc;
use tokio::sync::oneshot;

impl Manager {
    /// Stamps that were taken when the old names were gone, of files that are what they were before
    /// but for the time of change; others are not known any more, and are hashed.
    pub(super) fn settled(&self, info_hash: InfoHashV1, mut place: Box<Place>) -> Box<Place> {
        if let Some(Some(before)) = self.moves.renaming.get(&info_hash)
            && before.data_dir == place.data_dir
        {
            for (now, before) in place.stamps.iter_mut().zip(&before.stamps) {
                if !is_as_before(*now, *before) {
                    *now = None;
                }
            }
        }
        place
    }

    /// A torrent's files are there now.
    pub(super) fn set_place(&mut self, info_hash: InfoHashV1, place: Place) {
        if let Some(Phase::Awake(awake)) = self.phases.get(&info_hash) {
            awake.torrent.move_to(place.clone());
        }
        self.moves.renaming.insert(info_hash, Some(place));
    }

    /// All of it is in the new folder: that is kept, and then it is served from there.
    pub(super) async fn switch(
        &mut self,
        info_hash: InfoHashV1,
        place: Place,
        done: oneshot::Sender<bool>,
    ) {
        let moving = self.moves.running.get(&info_hash).map(Arc::clone);
        let moving = moving.filter(|moving| !moving.is_cancelled() || moving.may_be_there());
        let Some(moving) = moving.filter(|_| self.seat.catalog().get(&info_hash).is_some()) else {
            let _ = done.send(false);
            return;
        };
        // Given up behind this the intent would go, and the old files would stay for ever.
        moving.set_switching();
        let folder = place.data_dir.clone();
        let way = Way {
            phase: way::Phase::Switched,
            ..moving.way().clone()
        };
        let change: Change = Arc::new(move |summary: &mut Summary| {
            summary.save_path.clone_from(&folder);
        });
        let kept = Arc::clone(&change);
        let paths = place.paths.clone();
        let update = Update::new()
            .summary(move |summary| kept(summary))
            .details(move |details| details.renames = paths)
            .all_stamps(place.stamps.clone());
        let mut writes = vec![Write::Update(info_hash, Box::new(update))];
        // A rename has an intent of its own. By one to move, the next start would set about taking
        // files away whose only names these are.
        if !moving.is_rename() {
            writes.push(keep(info_hash, Some(&way)));
        }
        let after = move |manager: &mut Manager, written: Result<(), state::WriteError>| {
            match written {
                Ok(()) => {
                    let _ = moving.switched.set(place.clone());
                    if manager.declared.torrent(&info_hash).is_none() {
                        manager.show(info_hash, |torrent| change(&mut torrent.summary));
                    }
                    // Whoever looks after this sees the folder.
                    manager.sharing.changed(info_hash);
                    manager.set_place(info_hash, place);
                    let _ = done.send(true);
                }
                Err(state::WriteError::Unknown(_)) => drop(done.send(false)),
                // It may be kept or not, and files are in both folders: it is written again until
                // that is known, or the server stops.
                Err(error) => {
                    moving.doubt_place();
                    tracing::error!(torrent = %info_hash, %error,
                        "where its data are is not kept; it is tried again");
                    let (inner, number) = (manager.inner.clone(), moving.number);
                    tokio::spawn(async move {
                        tokio::time::sleep(AGAIN).await;
                        let there = MoveEvent::There(Box::new(place), done);
                        let _ = inner.send(Inner::Moved(info_hash, number, there));
                    });
                }
            }
            Next::Done
        };
        self.keeping.write_all(writes, Box::new(after)).await;
    }

    /// Nobody reads files of a torrent under their old names any more.
    pub(crate) fn strict(&mut self, info_hash: InfoHashV1, number: u64) {
        // One that has been moved again since has its own end.
        let is_last = self.moves.ends.get(&info_hash) == Some(&number);
        if self.moves.runs(&info_hash) || !is_last {
            return;
        }
        self.moves.ends.remove(&info_hash);
        self.moves.renaming.remove(&info_hash);
        if let Some(Phase::Awake(awake)) = self.phases.get(&info_hash) {
            awake.torrent.set_renaming(false);
        }
    }

    /// What is to be known of a torrent that has just been read: it may have been moved meanwhile.
    pub(crate) fn catch_up(&self, torrent: &SeededTorrent) {
        let Some(place) = self.moves.renaming.get(&torrent.info_hash()) else {
            return;
        };
        torrent.set_renaming(true);
        if let Some(place) = place {
            torrent.move_to(place.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::disks::Lane;
    use super::super::{Moving, Waiter};
    use super::*;
    use crate::idle::Idle;
    use control::catalog::Status;
    use control::command::{CommandError, Move};
    use state::Intent;

    /// The intent would go behind the word that the torrent is in the new folder.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_move_is_not_given_up_while_it_is_kept_that_it_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let mut idle = Idle::new(folder.path());
        let way = Way {
            from: folder.path().join("from"),
            to: folder.path().join("to"),
            phase: way::Phase::Copying,
        };
        let summary = Summary {
            save_path: way.from.clone(),
            ..Summary::default()
        };
        let info_hash = idle.keep(summary, Status::Moving).await;
        let lane = Some(Lane::new(1, 1));
        let moving = Moving::new(1, Waiter::new(way.clone()), lane, true);
        idle.manager.moves.begin(info_hash, moving);
        assert!(idle.manager.moves.may_give_up(&info_hash, &way.from));
        let place = Place {
            data_dir: way.to.clone(),
            stamps: Vec::new(),
            paths: Default::default(),
        };
        let (done, mut kept) = oneshot::channel();
        idle.manager.switch(info_hash, place, done).await;
        let back = Move {
            save_path: way.from.clone(),
            data_are_there: false,
        };
        let (reply, answer) = oneshot::channel();
        idle.manager.relocate(info_hash, back, reply).await;
        let answer = idle.answer(answer).await;
        assert!(
            matches!(answer, Err(CommandError::Conflict(_))),
            "{answer:?}"
        );
        let is_there = loop {
            match kept.try_recv() {
                Ok(is_there) => break is_there,
                Err(_) => idle.step().await,
            }
        };
        assert!(is_there);
        let moving = &idle.manager.moves.running[&info_hash];
        assert!(!moving.leaves_old(), "the old files go");
        let read = move |view: &state::View| view.intent(Intent::Move, &info_hash);
        let intent = idle.store.handle().read_blocking(read).unwrap().unwrap();
        let kept = Way::decode(&intent).unwrap();
        assert_eq!(kept.phase, way::Phase::Switched);
    }
}
