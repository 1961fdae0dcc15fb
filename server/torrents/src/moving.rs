//! A torrent's data are moved to another folder while it is served.
//!
//! On the same file system each file gets a second name in the new folder, the torrent goes on from
//! there, and the old names are taken away: no byte is copied, and other hard links of the files
//! stay theirs. Else all files are copied, forced to the disk, and hashed where they are, and what is
//! not verified is compared with what it was copied of; only then is the torrent served from there,
//! and the old files are deleted. At every moment the store names
//! a folder in which all files are.
//!
//! That a torrent is to be moved is kept before it is acknowledged, so a move that a crash has
//! interrupted is begun again at the next start, and one that a disk keeps from going on (it is
//! full, away, or fails once) is tried again until it is made or given up by the user: what is copied
//! already and has not changed since is hashed with the rest. Another file under a name that the
//! torrent needs, now or when it is complete, ends the move; what it has made is taken away then.
//! One that comes there while copies are made has the move wait: it is another's, and stays.
//!
//! Limits: [`MOVES_MAX`] at a time, which read and write in the background, and of those that share
//! a disk one, so that a disk that hangs holds no other; the others wait. Does
//! not: serve a torrent that is not complete while it is moved (it is stopped, moved and begun
//! again).

mod apart;
mod comparing;
mod copying;
mod deciding;
mod disks;
mod ending;
mod moves;
pub(crate) mod naming;
mod switching;
mod taken;
mod waiting;
pub(crate) mod way;
mod why;
pub(crate) mod work;

pub(crate) use disks::{Folders, Found};
pub(crate) use moves::{Moves, Moving};
pub(crate) use waiting::Waiter;
pub(crate) use why::Why;

use crate::keeping::Next as After;
use crate::manager::{Inner, Manager, Phase};
use crate::reading::{Kept, KeptError};
use control::catalog::Status;
use control::command::CommandError;
use moves::ASKS_MAX;
use proto::ids::InfoHashV1;
use seedring_io::torrent::Place;
use state::{Intent, Update, Write};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use waiting::Next;
use way::Way;
use work::Work;

/// Torrents that are moved at a time: each keeps a thread busy.
const MOVES_MAX: usize = 16;

/// How long files go on being read under names that they do not have any more: longer than a shard
/// keeps a file open that nobody asks for, and than a peer may leave what it was sent unread.
const OLD_NAMES: Duration = Duration::from_secs(150);

/// When it is tried again to keep where a torrent's data are.
const AGAIN: Duration = Duration::from_secs(5);

/// Moves that are read of the store at once at the start.
const PAGE: usize = 2_000;

/// Keeps that a torrent is to be moved, or that it is not any more.
fn keep(info_hash: InfoHashV1, way: Option<&Way>) -> Write {
    Write::Intent(Intent::Move, info_hash, way.map(Way::encode))
}

/// What the thread that moves a torrent's files tells, and waits for.
pub(crate) enum MoveEvent {
    /// Its files are about to get other names.
    Renaming(oneshot::Sender<()>),
    /// For a moment its files have no names that are known: nobody is to open them.
    Halt(oneshot::Sender<()>),
    /// Copies are about to be made: whether that is kept.
    Copying(oneshot::Sender<Result<(), Why>>),
    /// All files are in the new folder, with these stamps: the torrent is to go on from there.
    There(Box<Place>, oneshot::Sender<bool>),
    /// The old names are gone, and these are the stamps now.
    Settled(Box<Place>),
    /// It has ended, well or not.
    Ended(Result<(), Why>),
    /// The copies are gone that a move has made which was given up.
    TakenBack,
    /// Files of it were renamed, or not.
    Renamed(Result<(), CommandError>),
}

impl Manager {
    /// Goes on with the moves that an earlier run did not end.
    pub(crate) async fn resume_moves(&mut self) -> Result<(), state::ReadError> {
        let mut after = None;
        loop {
            let read = move |view: &state::View| view.intents(Intent::Move, after, PAGE);
            let page = self.keeping.store.read(read).await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            for (info_hash, value) in page {
                self.resume_move(info_hash, &value);
            }
        }
        self.next_move().await;
        Ok(())
    }

    /// Has a move wait that is kept. One of a torrent that others serve waits until they do not.
    pub(crate) fn resume_move(&mut self, info_hash: InfoHashV1, value: &[u8]) {
        let is_ours = {
            let catalog = self.seat.catalog();
            catalog.get(&info_hash).is_some_and(|it| !it.live.declared)
        };
        if let Some(way) = Way::decode(value).filter(|_| is_ours) {
            self.moves.waiting.push(info_hash, Waiter::new(way));
        }
    }

    /// Goes on with the move of one torrent that was parked, if there is one.
    pub(crate) async fn resume_parked(&mut self, info_hash: InfoHashV1) {
        let read = move |view: &state::View| view.intent(Intent::Move, &info_hash);
        match self.keeping.store.read(read).await {
            Ok(Some(value)) => self.resume_move(info_hash, &value),
            Ok(None) => {}
            Err(error) => {
                let why = "whether it is to be moved cannot be read: it is at the next start";
                tracing::error!(torrent = %info_hash, %error, why);
            }
        }
        self.next_move().await;
    }

    /// Begins those moves whose turn it is; none as long as others may name the same files.
    pub(crate) async fn next_move(&mut self) {
        if self.sharing.is_held() {
            return;
        }
        self.ask_disks();
        while let Some(next) = self.moves.take_next() {
            let is_complete = {
                let catalog = self.seat.catalog();
                match catalog.get(&next.info_hash) {
                    Some(torrent) if !torrent.live.declared => torrent.is_complete(),
                    _ => continue,
                }
            };
            let phase = self.phases.get(&next.info_hash);
            let served = is_complete && matches!(phase, None | Some(Phase::Awake(_)));
            if served || self.halt(next.info_hash).await {
                self.begin_move(next, served);
            } else {
                // It goes on when its download has ended.
                self.moves.halting.insert(next.info_hash, next);
            }
        }
    }

    /// A torrent's download has ended: moves what waits for that.
    pub(crate) fn begin_halted(&mut self, info_hash: InfoHashV1) {
        if let Some(next) = self.moves.halting.remove(&info_hash) {
            self.begin_move(next, false);
        }
    }

    /// Finds out which disks moves need.
    fn ask_disks(&mut self) {
        while self.moves.asks < ASKS_MAX
            && let Some(folders) = self.moves.waiting.next_to_ask()
        {
            self.moves.asks += 1;
            let inner = self.inner.clone();
            tokio::task::spawn_blocking(move || {
                let found = disks::look(&folders);
                let _ = inner.send(Inner::Disks(Box::new((folders, found))));
            });
        }
    }

    /// It is known which disks moves between two folders need.
    pub(crate) async fn found_disks(&mut self, (folders, found): (Folders, Found)) {
        self.moves.asks -= 1;
        for (info_hash, waiter, why) in self.moves.waiting.found(&folders, &found) {
            self.rest_move(info_hash, waiter, &why);
        }
        self.next_move().await;
    }

    fn begin_move(&mut self, next: Next, served: bool) {
        let Next {
            info_hash,
            lane,
            waiter,
        } = next;
        let moving = Moving::new(self.number(), waiter, Some(lane), served);
        let moving = self.moves.begin(info_hash, moving);
        self.set_status(info_hash, Status::Moving);
        self.begin_work(info_hash, moving, |work| {
            let ended = work.and_then(|work| work.run());
            MoveEvent::Ended(ended)
        });
    }

    /// Has something be done at the files of a torrent, on a thread for blocking work: what it
    /// returns is told.
    pub(crate) fn begin_work(
        &self,
        info_hash: InfoHashV1,
        moving: Arc<Moving>,
        work: impl FnOnce(Result<Work, Why>) -> MoveEvent + Send + 'static,
    ) {
        let (store, inner) = (self.keeping.store.clone(), self.inner.clone());
        let suffix = self.settings.partial_suffix.clone();
        let (services, roots) = (Arc::clone(&self.services), self.settings.roots.clone());
        let sharing = Arc::clone(&self.sharing);
        tokio::spawn(async move {
            // What its download has synced last may be on its way to the disk. If that fails, the
            // stamps tell.
            let _ = store.flush().await;
            let work = move || {
                let (number, teller) = (moving.number, inner.clone());
                let read = || {
                    Kept::read(&store, info_hash).map_err(|error| match error {
                        KeptError::Gone => Why::GivenUp,
                        error if error.is_passing() => Why::Passing(error.to_string()),
                        error => Why::Final(error.to_string()),
                    })
                };
                let Way { from, to, phase } = moving.way();
                // One that has begun ends where it was to.
                let inside = match phase {
                    way::Phase::Waiting => roots.check(from).and_then(|()| roots.check(to)),
                    _ => Ok(()),
                };
                let inside = inside.map_err(|outside| Why::Passing(outside.to_string()));
                let kept = inside.and_then(|()| read());
                let event = work(kept.map(|kept| Work {
                    info_hash,
                    suffix: kept.suffix(&suffix).to_owned(),
                    kept,
                    from: moving.way().from.clone(),
                    to: moving.way().to.clone(),
                    phase: moving.way().phase,
                    store,
                    moving,
                    services,
                    sharing,
                    inner,
                }));
                let _ = teller.send(Inner::Moved(info_hash, number, event));
            };
            let _ = tokio::task::spawn_blocking(work).await;
        });
    }

    pub(crate) async fn moved(&mut self, info_hash: InfoHashV1, number: u64, event: MoveEvent) {
        let running = self.moves.running.get(&info_hash);
        if running.is_none_or(|moving| moving.number != number) {
            return;
        }
        match event {
            MoveEvent::Renaming(done) => {
                if let Some(Phase::Awake(awake)) = self.phases.get(&info_hash) {
                    awake.torrent.set_renaming(true);
                }
                self.moves.renaming.entry(info_hash).or_default();
                let _ = done.send(());
            }
            MoveEvent::Copying(done) => self.keep_copying(info_hash, done).await,
            MoveEvent::There(place, done) => self.switch(info_hash, *place, done).await,
            MoveEvent::Settled(place) => {
                let place = self.settled(info_hash, place);
                let update = Update::new().all_stamps(place.stamps.clone());
                self.keeping.note(info_hash, update).await;
                self.set_place(info_hash, *place);
            }
            MoveEvent::Halt(done) => {
                self.halt(info_hash).await;
                if let Some(moving) = self.moves.running.get(&info_hash) {
                    moving.set_unserved();
                    self.set_status(info_hash, Status::Moving);
                }
                let _ = done.send(());
            }
            MoveEvent::Ended(result) => self.move_ended(info_hash, result).await,
            MoveEvent::TakenBack => {
                self.end_move(info_hash);
                self.next_move().await;
            }
            MoveEvent::Renamed(result) => self.rename_ended(info_hash, result).await,
        }
    }

    /// Keeps that copies are made, unless they are not to be any more.
    async fn keep_copying(
        &mut self,
        info_hash: InfoHashV1,
        done: oneshot::Sender<Result<(), Why>>,
    ) {
        let moving = self.moves.running.get(&info_hash).map(Arc::clone);
        let Some(moving) = moving.filter(|moving| !moving.is_cancelled()) else {
            let _ = done.send(Err(Why::GivenUp));
            return;
        };
        let way = Way {
            phase: way::Phase::Copying,
            ..moving.way().clone()
        };
        let after = move |_: &mut Manager, written: Result<(), state::WriteError>| {
            if written.is_ok() {
                moving.set_copying();
            }
            let _ = done.send(written.map_err(|error| Why::Passing(error.to_string())));
            After::Done
        };
        let write = keep(info_hash, Some(&way));
        self.keeping.write(write, Box::new(after)).await;
    }
}
