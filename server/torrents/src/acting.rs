//! What a torrent is to do, by its summary: begun, stopped, begun anew.

use crate::hooking::Told;
use crate::keeping::{After, Change, Next, refusal};
use crate::manager::{Inner, Manager, Phase};
use crate::unkept::Fields;
use control::catalog::{Status, Torrent};
use control::command::{Action, CommandError, Reply};
use engine::peer_list::PeerSource;
use proto::ids::InfoHashV1;
use state::{Condition, LastError, Place, Update, Write};
use std::sync::Arc;
use std::time::Duration;

/// How long after the store could not be read it is tried again.
pub(crate) const STORE_AGAIN: Duration = Duration::from_secs(5);

/// Whether a torrent is complete and served when a peer comes: nothing has to be done for it.
pub(crate) fn sleeps(torrent: &Torrent) -> bool {
    let summary = &torrent.summary;
    let is_there = torrent.is_complete() || (summary.seed_mode && summary.pieces > 0);
    is_there && !summary.paused && summary.condition == Condition::Ready && !torrent.live.declared
}

impl Manager {
    /// Has a torrent be begun again in a while: the store could not be read for it, which says
    /// nothing about the torrent.
    pub(crate) fn later(&mut self, info_hash: InfoHashV1) {
        let number = self.number();
        self.phases.insert(info_hash, Phase::Later(number));
        let inner = self.inner.clone();
        tokio::spawn(async move {
            tokio::time::sleep(STORE_AGAIN).await;
            let _ = inner.send(Inner::Later(info_hash, number));
        });
    }

    pub(crate) async fn begin_again(&mut self, info_hash: InfoHashV1, number: u64) {
        if matches!(self.phases.get(&info_hash), Some(Phase::Later(mine)) if *mine == number) {
            self.restart(info_hash).await;
        }
    }

    /// Stops what the torrent is doing and begins what it is to do now.
    pub(crate) async fn restart(&mut self, info_hash: InfoHashV1) {
        if self.halt(info_hash).await {
            self.start(info_hash).await;
        }
        self.next_downloads().await;
    }

    /// Stops what the torrent is doing. False if that takes a while: it is begun anew then.
    pub(crate) async fn halt(&mut self, info_hash: InfoHashV1) -> bool {
        self.queue.leave(&info_hash);
        self.loading.remove(&info_hash);
        self.services.plane.remove_dormant(&[info_hash]).await;
        self.finding.leave(info_hash);
        match self.phases.remove(&info_hash) {
            None
            | Some(
                Phase::Preparing(_) | Phase::Metadata(_) | Phase::Doubtful(_) | Phase::Later(_),
            ) => {}
            Some(Phase::Checking) => self.checks.cancel(info_hash),
            Some(Phase::Awake(awake)) => {
                self.services.plane.remove(&awake.torrent).await;
                self.count_uploaded(info_hash, &awake.torrent, awake.counted);
            }
            Some(Phase::Stopping(number)) => {
                self.phases.insert(info_hash, Phase::Stopping(number));
                return false;
            }
            Some(Phase::Downloading(download)) => {
                let number = download.number;
                self.end_download(info_hash, *download);
                self.phases.insert(info_hash, Phase::Stopping(number));
                return false;
            }
        }
        true
    }

    /// Begins what the torrent is to do; it is doing nothing.
    pub(crate) async fn start(&mut self, info_hash: InfoHashV1) {
        let (is_asleep, paused, condition, pieces, private) = {
            let catalog = self.seat.catalog();
            let kept = catalog.get(&info_hash).filter(|it| !it.live.declared);
            let Some(torrent) = kept else {
                return;
            };
            let summary = &torrent.summary;
            (
                sleeps(torrent),
                summary.paused,
                summary.condition,
                summary.pieces,
                summary.private,
            )
        };
        let is_checked = condition == Condition::NeedsCheck;
        if self.moves.holds(&info_hash) || (is_checked && self.moves.runs(&info_hash)) {
            // It goes on when its data have been moved.
            self.set_status(info_hash, Status::Moving);
        } else if paused {
            self.set_status(info_hash, Status::Paused);
        } else if is_asleep {
            self.set_status(info_hash, Status::Seeding);
            self.services.plane.add_dormant(&[info_hash]).await;
            self.finding.seed(info_hash, private);
            self.read_trackers(info_hash);
            if let Some(peers) = self.named.remove(&info_hash) {
                let plane = &self.services.plane;
                plane.found_for(info_hash, &peers, PeerSource::Given);
            }
        } else {
            match condition {
                Condition::NeedsCheck => self.check(info_hash),
                Condition::Offline => self.doubt(info_hash, None),
                Condition::Failed => self.set_status(info_hash, Status::Failed),
                Condition::Ready if pieces == 0 => self.seek_metadata(info_hash).await,
                Condition::Ready => self.download(info_hash).await,
            }
        }
    }

    pub(crate) async fn act(&mut self, info_hash: InfoHashV1, action: Action, reply: Reply<()>) {
        if let Err(error) = self.kept(info_hash) {
            let _ = reply.send(Err(error));
            return;
        }
        match action {
            Action::Pause => {
                self.waived.remove(&info_hash);
                let pause = |summary: &mut state::Summary| summary.paused = true;
                let fields = Fields::PAUSED;
                self.change(info_hash, fields, Arc::new(pause), reply).await;
            }
            Action::Resume => {
                self.waive_limits(info_hash);
                let resume = |summary: &mut state::Summary| {
                    if summary.paused {
                        // Why it was paused, if not by the user.
                        summary.last_error = None;
                    }
                    summary.paused = false;
                    if summary.condition == Condition::Failed {
                        summary.condition = Condition::NeedsCheck;
                        summary.last_error = None;
                    }
                };
                let fields = Fields::PAUSED | Fields::CONDITION;
                self.change(info_hash, fields, Arc::new(resume), reply)
                    .await;
            }
            Action::Recheck => {
                let has_pieces = {
                    let catalog = self.seat.catalog();
                    catalog
                        .get(&info_hash)
                        .is_some_and(|it| it.summary.pieces > 0)
                };
                if !has_pieces {
                    let why = "its metainfo are not known yet: there is nothing to hash";
                    let _ = reply.send(Err(CommandError::Conflict(why.into())));
                    return;
                }
                let recheck = |summary: &mut state::Summary| {
                    summary.condition = Condition::NeedsCheck;
                    summary.last_error = None;
                };
                let fields = Fields::CONDITION;
                self.change(info_hash, fields, Arc::new(recheck), reply)
                    .await;
            }
            Action::Announce => {
                let result = match self.is_found(info_hash) {
                    true => Ok(()),
                    false => Err(CommandError::Conflict(
                        "it is announced nowhere while it is not served or fetched; see its status"
                            .into(),
                    )),
                };
                if result.is_ok() {
                    self.finding.hurry(info_hash);
                }
                let _ = reply.send(result);
            }
            Action::Queue(place) => self.move_in_queue(info_hash, place, reply).await,
            Action::Remove { with_data } => self.remove(info_hash, with_data, reply),
        }
    }

    /// Changes these fields of the summary of a torrent as the user says, durably, and restarts it.
    async fn change(
        &mut self,
        info_hash: InfoHashV1,
        fields: Fields,
        change: Change,
        reply: Reply<()>,
    ) {
        let kept = Arc::clone(&change);
        let update = Update::new().summary(move |summary| kept(summary));
        let next = Next::Restart(info_hash);
        self.update(info_hash, (fields, update), change, next, reply)
            .await;
    }

    /// Does `update`, which concerns these fields, durably, and then `change` to what is in memory,
    /// and what is next.
    pub(crate) async fn update(
        &mut self,
        info_hash: InfoHashV1,
        (fields, update): (Fields, Update),
        change: Change,
        next: Next,
        reply: Reply<()>,
    ) {
        let write = Write::Update(info_hash, Box::new(update));
        let after = shown_after(info_hash, change, next, Some(reply));
        let after = self.overtaking(info_hash, fields, after);
        self.keeping.write(write, after).await;
    }

    /// Changes these fields without anybody who waits for it: it is tried again while the state
    /// disk fails, unless the user changes them.
    pub(crate) async fn settle(
        &mut self,
        info_hash: InfoHashV1,
        fields: Fields,
        update: impl Fn() -> Update + Send + Sync + 'static,
        change: Change,
        next: Next,
    ) {
        self.settle_telling(info_hash, fields, update, change, next, None)
            .await;
    }

    /// The same, and tells hooks.
    pub(crate) async fn settle_telling(
        &mut self,
        info_hash: InfoHashV1,
        fields: Fields,
        update: impl Fn() -> Update + Send + Sync + 'static,
        change: Change,
        next: Next,
        told: Told,
    ) {
        let notice = self.note_change(info_hash, &change, told);
        let kept = Arc::clone(&change);
        let make = move || {
            let kept = Arc::clone(&kept);
            let update = update().summary(move |summary| kept(summary));
            Write::Update(info_hash, Box::new(update))
        };
        let after = shown_after(info_hash, change, next, None);
        self.insist(info_hash, (fields, Arc::new(make)), notice, after)
            .await;
    }

    /// Notes what a torrent waits for, and why.
    pub(crate) async fn condemn(
        &mut self,
        info_hash: InfoHashV1,
        condition: Condition,
        text: String,
        restart: bool,
    ) {
        let at_s = self.clock.now_s();
        let told = self.told_of(info_hash, condition, &text);
        let change: Change = Arc::new(move |summary: &mut state::Summary| {
            summary.condition = condition;
            let text = text.clone();
            summary.last_error = Some(LastError { at_s, text });
        });
        let next = match restart {
            true => Next::Restart(info_hash),
            false => Next::Done,
        };
        let fields = Fields::CONDITION;
        self.settle_telling(info_hash, fields, Update::new, change, next, told)
            .await;
    }

    /// Keeps what went wrong with a torrent that goes on, or that nothing is wrong any more.
    pub(crate) async fn tell_error(&mut self, info_hash: InfoHashV1, text: Option<String>) {
        let at_s = self.clock.now_s();
        let error = text.map(|text| LastError { at_s, text });
        let change: Change = Arc::new(move |summary: &mut state::Summary| {
            summary.last_error.clone_from(&error);
        });
        let fields = Fields::CONDITION;
        self.settle(info_hash, fields, Update::new, change, Next::Done)
            .await;
    }

    /// Has a torrent's data be hashed without anybody having asked.
    pub(crate) async fn recheck(&mut self, info_hash: InfoHashV1) {
        let change: Change = Arc::new(|summary: &mut state::Summary| {
            summary.condition = Condition::NeedsCheck;
        });
        let next = Next::Restart(info_hash);
        let fields = Fields::CONDITION;
        self.settle(info_hash, fields, Update::new, change, next)
            .await;
    }

    async fn move_in_queue(&mut self, info_hash: InfoHashV1, place: Place, reply: Reply<()>) {
        let write = Write::Queue(info_hash, place);
        let after = move |manager: &mut Manager, written: Result<(), state::WriteError>| {
            if written.is_ok() {
                manager.queue.place(info_hash, place);
                manager.queue.note_gain(&info_hash);
            }
            let _ = reply.send(written.map_err(refusal));
            Next::Done
        };
        let after = self.overtaking(info_hash, Fields::PLACE, Box::new(after));
        self.keeping.write(write, after).await;
    }
}

/// What is done when a change of a summary is durable: it is shown, and what is next is done.
pub(crate) fn shown_after(
    info_hash: InfoHashV1,
    change: Change,
    next: Next,
    reply: Option<Reply<()>>,
) -> After<Manager> {
    Box::new(move |manager, written| {
        let result = written.map_err(refusal);
        if result.is_ok() {
            manager.show(info_hash, |torrent| change(&mut torrent.summary));
            manager.date(info_hash);
            manager.tell_torrent_limits(info_hash);
            manager.tell_super_seeding(info_hash);
        } else if let Err(error) = &result {
            tracing::warn!(torrent = %info_hash, %error, "a change is not kept");
        }
        let next = match &result {
            Ok(()) => next,
            Err(_) => Next::Done,
        };
        if let Some(reply) = reply {
            let _ = reply.send(result);
        }
        next
    })
}
