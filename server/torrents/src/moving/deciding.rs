//! Where a torrent's data are to be, as the user says: kept before it is acknowledged, and nothing of
//! it is begun before.

use super::keep;
use super::waiting::Waiter;
use super::way::{Phase, Way};
use crate::keeping::{Change, Next, refusal};
use crate::manager::Manager;
use crate::unkept::Fields;
use control::command::{CommandError, Move, Reply};
use proto::ids::InfoHashV1;
use state::{Summary, Update, Write};
use std::path::PathBuf;
use std::sync::Arc;

impl Manager {
    /// Has a torrent's data elsewhere.
    pub(crate) async fn relocate(&mut self, info_hash: InfoHashV1, to: Move, reply: Reply<()>) {
        let checked = self.kept(info_hash);
        let checked = checked.and_then(|()| crate::adding::absolute("save_path", &to.save_path));
        if let Err(error) = checked {
            let _ = reply.send(Err(error));
            return;
        }
        let (pieces, same) = {
            let catalog = self.seat.catalog();
            let Some(torrent) = catalog.get(&info_hash) else {
                return;
            };
            let summary = &torrent.summary;
            (summary.pieces, summary.save_path == to.save_path)
        };
        if self.moves.may_give_up(&info_hash, &to.save_path) {
            self.give_up(info_hash, reply).await;
        } else if self.moves.runs(&info_hash)
            || self.moves.deciding.contains(&info_hash)
            || self.moves.renames.waits(&info_hash)
        {
            let why = "its files are being moved or renamed; wait until that has ended".to_owned();
            let _ = reply.send(Err(CommandError::Conflict(why)));
        } else if same {
            self.stay(info_hash, reply).await;
        } else if to.data_are_there || pieces == 0 {
            self.point_at(info_hash, to.save_path, reply).await;
        } else {
            self.intend(info_hash, to.save_path, reply).await;
        }
    }

    /// Keeps that a torrent is to be moved, and has it be when it is its turn.
    async fn intend(&mut self, info_hash: InfoHashV1, path: PathBuf, reply: Reply<()>) {
        let from = {
            let catalog = self.seat.catalog();
            let torrent = catalog.get(&info_hash);
            torrent.map_or_else(PathBuf::new, |it| it.summary.save_path.clone())
        };
        let way = Way {
            from,
            to: path,
            phase: Phase::Waiting,
        };
        if self.moves.waiting.hurry(&info_hash, &way) {
            // It is to be moved there already, and tried at once.
            let _ = reply.send(Ok(()));
            self.next_move().await;
            return;
        }
        let write = keep(info_hash, Some(&way));
        let then = move |manager: &mut Manager, waited: Option<Waiter>| {
            manager.gave_up(info_hash, waited);
            manager.moves.waiting.push(info_hash, Waiter::new(way));
            Next::Move
        };
        self.decide(info_hash, vec![write], then, reply).await;
    }

    /// Its data stay where they are: it is not moved any more, if it was to be.
    async fn stay(&mut self, info_hash: InfoHashV1, reply: Reply<()>) {
        if !self.moves.waits(&info_hash) {
            let _ = reply.send(Ok(()));
            return;
        }
        let write = keep(info_hash, None);
        let then = move |manager: &mut Manager, waited: Option<Waiter>| {
            manager.gave_up(info_hash, waited);
            Next::Move
        };
        self.decide(info_hash, vec![write], then, reply).await;
    }

    /// A move that is under way ends where it is, and is kept no more. What it has copied is taken
    /// away when it has ended.
    async fn give_up(&mut self, info_hash: InfoHashV1, reply: Reply<()>) {
        let moving = self.moves.running.get(&info_hash).map(Arc::clone);
        if let Some(moving) = &moving {
            moving.give_up();
        }
        let after = move |_: &mut Manager, written: Result<(), state::WriteError>| {
            let is_late = moving.is_some_and(|moving| moving.is_late());
            let result = match is_late {
                true => Err(CommandError::Conflict(
                    "it has been moved just now".to_owned(),
                )),
                false => written.map_err(refusal),
            };
            let _ = reply.send(result);
            Next::Done
        };
        let write = keep(info_hash, None);
        self.keeping.write(write, Box::new(after)).await;
    }

    /// Whoever moved the data may have copied them wrong: what is there is hashed. A move that waits
    /// is given up with it, in one transaction: it would take the old files away.
    async fn point_at(&mut self, info_hash: InfoHashV1, path: PathBuf, reply: Reply<()>) {
        let change: Change = Arc::new(move |summary: &mut Summary| {
            summary.save_path.clone_from(&path);
            if summary.pieces > 0 {
                summary.condition = state::Condition::NeedsCheck;
            }
        });
        let kept = Arc::clone(&change);
        let update = Update::new().summary(move |summary| kept(summary));
        let writes = vec![
            Write::Update(info_hash, Box::new(update)),
            keep(info_hash, None),
        ];
        let then = move |manager: &mut Manager, waited: Option<Waiter>| {
            // What was copied may be what is to be hashed, by whatever name: it stays.
            if let Some(waiter) = waited {
                manager.unsay(info_hash, &waiter);
            }
            manager.show(info_hash, |torrent| change(&mut torrent.summary));
            // Whoever looks after this sees the folder.
            manager.sharing.changed(info_hash);
            Next::Restart(info_hash)
        };
        self.decide(info_hash, writes, then, reply).await;
    }

    /// Keeps where a torrent's data are to be. No move of it begins until that is durable; then
    /// `then` is done in place of what it was to do.
    async fn decide(
        &mut self,
        info_hash: InfoHashV1,
        writes: Vec<Write>,
        then: impl FnOnce(&mut Manager, Option<Waiter>) -> Next + Send + 'static,
        reply: Reply<()>,
    ) {
        self.moves.deciding.insert(info_hash);
        let after = move |manager: &mut Manager, written: Result<(), state::WriteError>| {
            manager.moves.deciding.remove(&info_hash);
            let result = written.map_err(refusal);
            let next = match &result {
                Ok(()) => {
                    let waited = manager.moves.cancel(&info_hash);
                    then(manager, waited)
                }
                Err(_) => Next::Move,
            };
            let _ = reply.send(result);
            next
        };
        // Only what says that the data are there changes the torrent now.
        let fields = match writes.first() {
            Some(Write::Update(..)) => Fields::CONDITION,
            _ => Fields::NONE,
        };
        let after = self.overtaking(info_hash, fields, Box::new(after));
        self.keeping.write_all(writes, after).await;
    }
}
