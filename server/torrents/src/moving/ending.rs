//! A move has ended: it is done, or is tried again in a while, or what it has made is taken away.
//!
//! Limits: a move rests for [`PAUSE`] first and [`PAUSE_MAX`] at last; a copy that is not what it
//! was copied of is made [`COPIES_MAX`] times.

use super::waiting::Waiter;
use super::{MoveEvent, Moving, OLD_NAMES, Why, keep};
use crate::keeping::Next;
use crate::manager::{Inner, Manager, Phase};
use control::catalog::Status;
use proto::ids::InfoHashV1;
use std::sync::Arc;
use std::time::Duration;

/// How long a move rests after its first try; twice as long after each further one.
const PAUSE: Duration = Duration::from_secs(5);

/// How long it rests at most.
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// How often a file is copied that does not arrive whole.
const COPIES_MAX: u32 = 3;

impl Manager {
    /// Nothing is done at a torrent's files any more. If it was removed meanwhile, it is known only
    /// now where they are.
    pub(crate) fn end_move(&mut self, info_hash: InfoHashV1) -> Option<Arc<Moving>> {
        let moving = self.moves.running.remove(&info_hash)?;
        if let Some(remains) = self.leaving.remove(&info_hash) {
            self.moves.forget(&info_hash);
            let remains = remains.map(|remains| {
                let (phase, place) = (moving.phase(), moving.switched.get());
                Box::new(remains.after(moving.way(), phase, place))
            });
            self.bury(info_hash, remains);
        }
        Some(moving)
    }

    pub(super) async fn move_ended(&mut self, info_hash: InfoHashV1, result: Result<(), Why>) {
        let Some(moving) = self.end_move(info_hash) else {
            return;
        };
        // What was parked is kept, and gone on with by that. Another that waits has its own intent
        // in the place of this one's, or is about to have.
        let is_parked = moving.is_stopping();
        let is_last = !is_parked && !self.moves.concerns(&info_hash);
        let is_known = self.seat.catalog().get(&info_hash).is_some();
        if is_last && is_known {
            self.note_end(info_hash, &moving, result).await;
        } else if let Err(why) = result {
            tracing::info!(torrent = %info_hash, %why, "a move does not go on");
        }
        self.go_on(info_hash, moving.is_served()).await;
        if is_parked {
            self.resume_parked(info_hash).await;
        }
    }

    /// What comes of a move that has ended, of a torrent that is to have no other.
    async fn note_end(&mut self, info_hash: InfoHashV1, moving: &Moving, result: Result<(), Why>) {
        let mut waiter = moving.waiter.clone();
        waiter.way.phase = moving.phase();
        let mut is_tidy = false;
        match result {
            Ok(()) | Err(Why::GivenUp) => {
                is_tidy = true;
                self.unsay(info_hash, &waiter);
            }
            Err(Why::Passing(_) | Why::BadCopy(_)) if moving.is_cancelled() => {
                self.unsay(info_hash, &waiter);
            }
            Err(Why::Passing(why)) => return self.rest_move(info_hash, waiter, &why),
            Err(Why::BadCopy(why)) if waiter.bad_copies + 1 < COPIES_MAX => {
                waiter.bad_copies += 1;
                return self.rest_move(info_hash, waiter, &why);
            }
            Err(Why::BadCopy(why) | Why::Final(why)) => {
                tracing::error!(torrent = %info_hash, why, "a move did not end well");
                self.say(info_hash, why);
            }
        }
        let after = |_: &mut Manager, _| Next::Done;
        self.keeping
            .write(keep(info_hash, None), Box::new(after))
            .await;
        // What was copied before is nobody's then; what has been switched to is the torrent's.
        if !is_tidy && waiter.way.phase.is_copying() && !moving.may_be_there() {
            self.take_back(info_hash, waiter);
        }
    }

    fn say(&self, info_hash: InfoHashV1, text: String) {
        let at_s = self.clock.now_s();
        self.show(info_hash, |torrent| {
            torrent.summary.last_error = Some(state::LastError { at_s, text });
        });
    }

    /// What was told of a move while it could not be made holds no more.
    pub(super) fn unsay(&self, info_hash: InfoHashV1, waiter: &Waiter) {
        self.show(info_hash, |torrent| {
            let last = torrent.summary.last_error.as_ref();
            if last.is_some_and(|last| waiter.said.as_ref() == Some(&last.text)) {
                torrent.summary.last_error = None;
            }
        });
    }

    /// A move could not be made now: it is tried again in a while.
    pub(super) fn rest_move(&mut self, info_hash: InfoHashV1, mut waiter: Waiter, why: &str) {
        let pause = pause(waiter.tries);
        waiter.tries += 1;
        let again = format!("it is tried again in {} s", pause.as_secs());
        tracing::warn!(torrent = %info_hash, why, again, "a move cannot go on now");
        let text = format!("{why}; {again}");
        waiter.said = Some(text.clone());
        self.say(info_hash, text);
        let number = self.number();
        self.moves.waiting.rest(info_hash, waiter, number);
        let inner = self.inner.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let _ = inner.send(Inner::MoveAgain(info_hash, number));
        });
    }

    /// The rest of a move is over.
    pub(crate) async fn move_again(&mut self, info_hash: InfoHashV1, number: u64) {
        self.moves.waiting.wake(info_hash, number);
        self.next_move().await;
    }

    /// Takes away what a move that waited, and waits no more, has copied.
    pub(super) fn gave_up(&mut self, info_hash: InfoHashV1, waited: Option<Waiter>) {
        let Some(waiter) = waited else { return };
        self.unsay(info_hash, &waiter);
        // Of one that runs the end does it.
        if waiter.way.phase.is_copying() && !self.moves.runs(&info_hash) {
            self.take_back(info_hash, waiter);
        }
    }

    /// Takes the copies away that a move has made: the torrent is where it was. Nothing else is
    /// done at its files meanwhile.
    fn take_back(&mut self, info_hash: InfoHashV1, waiter: Waiter) {
        let moving = Moving::new(self.number(), Waiter::new(waiter.way), None, true);
        let moving = self.moves.begin(info_hash, moving);
        self.begin_work(info_hash, moving, |work| {
            if let Err(why) = work.and_then(|work| work.take_back()) {
                tracing::warn!(torrent = %why, "copies of a move that was given up are left");
            }
            MoveEvent::TakenBack
        });
    }

    /// What was done at the names of a torrent's files has ended: it goes on, and others have their
    /// turn.
    pub(crate) async fn go_on(&mut self, info_hash: InfoHashV1, served: bool) {
        let status = {
            let catalog = self.seat.catalog();
            let torrent = catalog.get(&info_hash).filter(|it| !it.live.declared);
            torrent.map(|torrent| torrent.live.status)
        };
        match served {
            // Whoever paused it meanwhile, or found a fault, has said so.
            true if status != Some(Status::Moving) => {}
            true if matches!(self.phases.get(&info_hash), Some(Phase::Awake(_))) => {
                self.set_status(info_hash, Status::Seeding);
            }
            true => self.start(info_hash).await,
            false => self.start(info_hash).await,
        }
        let (inner, number) = (self.inner.clone(), self.number());
        if self.moves.renaming.contains_key(&info_hash) {
            self.moves.ends.insert(info_hash, number);
        }
        tokio::spawn(async move {
            tokio::time::sleep(OLD_NAMES).await;
            let _ = inner.send(Inner::Strict(info_hash, number));
        });
        self.next_move().await;
    }
}

/// How long a move rests that could not be made so often before.
fn pause(tries: u32) -> Duration {
    let factor = 2u32.saturating_pow(tries);
    PAUSE.saturating_mul(factor).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_rests_longer_each_time_up_to_an_end() {
        let pauses: Vec<u64> = (0..9).map(|tries| pause(tries).as_secs()).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 600, 600]);
        assert_eq!(pause(u32::MAX), PAUSE_MAX);
    }
}
