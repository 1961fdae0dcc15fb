//! The thread that owns the writing: it takes what waits, commits all of it in one transaction and
//! acknowledges each. While the disk syncs, the next ones gather, so the more is written at once,
//! the cheaper each becomes.
//!
//! After a failure redb refuses everything until it is opened again, and what its memory holds is
//! not to be believed. So everybody who waited is told, the database is given up and opened from
//! the disk, and if that fails too it is tried again with the next write.

use crate::error::{Failure, WriteError, is_disk_full};
use crate::file::{self, Medium, Open};
use crate::limits;
use crate::panics::caught;
use crate::record::Totals;
use crate::store::{Options, Shared, Slot};
use crate::tables::Tables;
use crate::waiting::{wait, wait_until};
use crate::write::{Progress, Write, apply};
use proto::ids::InfoHashV1;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

pub(crate) type Outcome = Vec<Result<(), WriteError>>;

/// What is asked of the writer.
pub(crate) enum Request {
    /// Durable, then acknowledged.
    Write(Waiting),
    /// Durable within a period.
    Soon(InfoHashV1, Progress, OwnedSemaphorePermit),
    /// The same for the server's totals.
    ServerTotalsSoon(Totals),
    /// What waits for the end of a period becomes durable now.
    Flush(oneshot::Sender<Result<(), WriteError>>),
    /// A reader has met a failure: the database is opened again.
    Mend,
    /// Everything is written, then the thread ends.
    Close,
}

/// Writes whose writer waits for their outcome.
pub(crate) struct Waiting {
    pub writes: Vec<Write>,
    pub reply: oneshot::Sender<Outcome>,
    /// Its share of the memory for what waits, until it is acknowledged.
    pub room: OwnedSemaphorePermit,
}

pub(crate) struct Writer {
    shared: Arc<Shared>,
    medium: Box<dyn Medium>,
    options: Options,
    requests: mpsc::Receiver<Request>,
    soon: Soon,
    /// A request that was taken but belongs behind the next commit.
    held: Option<Request>,
}

/// What waits for the end of its period.
#[derive(Default)]
struct Soon {
    torrents: BTreeMap<InfoHashV1, Progress>,
    /// About how much memory it takes; never less.
    bytes: usize,
    server: Option<Totals>,
    due: Option<Instant>,
}

impl Soon {
    /// Whether there is room for more of a torrent's.
    fn has_room(&self, torrent: &InfoHashV1, bytes: usize) -> bool {
        let few = self.torrents.len() < limits::SOON_TORRENTS_MAX;
        let small = self.bytes.saturating_add(bytes) <= limits::SOON_BYTES_MAX;
        self.is_empty() || small && (few || self.torrents.contains_key(torrent))
    }

    fn is_empty(&self) -> bool {
        self.torrents.is_empty() && self.server.is_none()
    }
}

impl Writer {
    pub fn new(
        shared: Arc<Shared>,
        medium: Box<dyn Medium>,
        options: Options,
        requests: mpsc::Receiver<Request>,
    ) -> Self {
        Self {
            shared,
            medium,
            options,
            requests,
            soon: Soon::default(),
            held: None,
        }
    }

    /// Runs until the store is closed.
    pub fn run(mut self) {
        while let ControlFlow::Continue(()) = self.turn() {}
        // Who closed it has nobody to tell; the status says it.
        let _failed = self.flush();
        let slot = std::mem::replace(&mut *self.shared.slot_mut(), Slot::Closed);
        if let Slot::Open(open) = slot {
            open.close();
        }
    }

    /// Takes the next request, or does what is due.
    fn turn(&mut self) -> ControlFlow<()> {
        let request = match (self.held.take(), self.soon.due) {
            (Some(held), _) => Some(held),
            (None, None) => wait(self.requests.recv()),
            (None, Some(due)) => match wait_until(self.requests.recv(), due) {
                Some(request) => request,
                None => {
                    let _failed = self.flush();
                    return ControlFlow::Continue(());
                }
            },
        };
        match request {
            None | Some(Request::Close) => return ControlFlow::Break(()),
            Some(Request::Write(first)) => {
                let group = self.gather(first);
                // Each of the group has been told.
                let _told = self.commit(group, false);
            }
            Some(Request::Soon(torrent, progress, room)) => {
                self.remember(torrent, progress);
                drop(room);
            }
            Some(Request::ServerTotalsSoon(totals)) => {
                self.soon.server = Some(totals);
                self.set_due();
            }
            Some(Request::Flush(reply)) => {
                let flushed = self.flush();
                // Nobody need wait for it.
                let _gone = reply.send(flushed);
            }
            Some(Request::Mend) => self.mend(),
        }
        // A stream of requests must not put off what is due.
        if self.soon.due.is_some_and(|due| due <= Instant::now()) {
            let _failed = self.flush();
        }
        ControlFlow::Continue(())
    }

    /// All that waits to be written with `first`, in order.
    fn gather(&mut self, first: Waiting) -> Vec<Waiting> {
        let mut touched = BTreeSet::new();
        let mut group = Vec::new();
        let mut next = Some(first);
        while let Some(waiting) = next.take() {
            touched.extend(waiting.writes.iter().filter_map(torrent_of));
            group.push(waiting);
            while next.is_none() && group.len() < limits::GROUP_MAX {
                match self.requests.try_recv() {
                    Err(_) => break,
                    Ok(Request::Write(waiting)) => next = Some(waiting),
                    // What is said of a torrent after a write of the group must not come before it.
                    Ok(Request::Soon(torrent, progress, _)) if !touched.contains(&torrent) => {
                        self.remember(torrent, progress);
                    }
                    Ok(other) => {
                        self.held = Some(other);
                        return group;
                    }
                }
            }
        }
        group
    }

    /// Keeps progress for the end of the period.
    fn remember(&mut self, torrent: InfoHashV1, progress: Progress) {
        let bytes = progress.bytes();
        if !self.soon.has_room(&torrent, bytes) {
            let _failed = self.flush();
            if !self.soon.is_empty() {
                self.shared.status_mut().progress_dropped += 1;
                return;
            }
        }
        self.soon.bytes += bytes;
        let kept = self.soon.torrents.entry(torrent).or_default();
        kept.merge(progress);
        self.set_due();
    }

    fn set_due(&mut self) {
        let due = || Instant::now() + self.options.soon_period;
        self.soon.due.get_or_insert_with(due);
    }

    /// Writes what waits for the end of its period.
    fn flush(&mut self) -> Result<(), WriteError> {
        match self.soon.is_empty() {
            true => Ok(()),
            false => self.commit(Vec::new(), true),
        }
    }

    /// Writes and acknowledges a group; with `all`, everything else that waits too.
    fn commit(&mut self, group: Vec<Waiting>, all: bool) -> Result<(), WriteError> {
        let (mut replies, mut writes) = (Vec::new(), Vec::new());
        for waiting in group {
            replies.push((waiting.reply, waiting.writes.len(), waiting.room));
            writes.extend(waiting.writes);
        }
        // What was said of a torrent before is written before.
        let progress: Vec<InfoHashV1> = match all {
            true => self.soon.torrents.keys().copied().collect(),
            false => {
                let touched = writes.iter().filter_map(torrent_of);
                let known = touched.filter(|torrent| self.soon.torrents.contains_key(torrent));
                BTreeSet::from_iter(known).into_iter().collect()
            }
        };
        let result = self.transact(&progress, all, writes);
        let mut status = self.shared.status_mut();
        match &result {
            Ok(_) => {
                status.commits += 1;
                status.failing = None;
            }
            Err(failure) => {
                status.failures += 1;
                status.failing = Some(failure.clone());
            }
        }
        drop(status);
        match result {
            Ok(outcomes) => {
                for torrent in &progress {
                    self.soon.torrents.remove(torrent);
                }
                if all {
                    self.soon.server = None;
                }
                if self.soon.is_empty() {
                    self.soon.due = None;
                    self.soon.bytes = 0;
                }
                let mut outcomes = outcomes.into_iter();
                for (reply, count, room) in replies {
                    // Who does not wait any more is not told.
                    let _gone = reply.send(outcomes.by_ref().take(count).collect());
                    drop(room);
                }
                Ok(())
            }
            Err(failure) => {
                let failed = WriteError::Failed(failure);
                for (reply, count, room) in replies {
                    let _gone = reply.send(vec![Err(failed.clone()); count]);
                    drop(room);
                }
                // What waits for its period goes on to wait: for another one.
                self.soon.due = None;
                if !self.soon.is_empty() {
                    self.set_due();
                }
                Err(failed)
            }
        }
    }

    /// One transaction. After a failure the database has been opened again, or could not be.
    fn transact(
        &mut self,
        progress: &[InfoHashV1],
        server: bool,
        writes: Vec<Write>,
    ) -> Result<Outcome, Arc<Failure>> {
        if !matches!(&*self.shared.slot(), Slot::Open(_)) {
            self.reopen()?;
        }
        let done = {
            let slot = self.shared.slot();
            let Slot::Open(open) = &*slot else {
                return Err(self.failure(&redb::Error::DatabaseAlreadyOpen));
            };
            let soon = &self.soon;
            let transact = || transaction(open, soon, progress, server, writes);
            caught(transact)
        };
        let panicked = |panic| Err(redb::Error::Corrupted(panic));
        done.unwrap_or_else(panicked).map_err(|error| {
            let failure = self.failure(&error);
            // What was not acknowledged is tried again by who wants it; who waits next finds out
            // whether it works.
            let _still = self.reopen();
            failure
        })
    }

    fn failure(&self, error: &redb::Error) -> Arc<Failure> {
        Arc::new(Failure {
            path: self.medium.path().to_owned(),
            text: error.to_string(),
            disk_full: is_disk_full(error),
        })
    }

    /// Opens the database again if it does not answer.
    fn mend(&mut self) {
        use redb::ReadableDatabase;
        let works = match &*self.shared.slot() {
            Slot::Open(open) => {
                let look = || -> Result<(), redb::Error> {
                    open.database
                        .begin_read()?
                        .open_table(crate::tables::GLOBAL)?;
                    Ok(())
                };
                caught(look).is_ok_and(|looked| looked.is_ok())
            }
            _ => false,
        };
        if !works {
            let _still = self.reopen();
        }
    }

    /// Gives the database up and opens what is on the disk.
    fn reopen(&mut self) -> Result<(), Arc<Failure>> {
        let failure = Arc::new(Failure {
            path: self.medium.path().to_owned(),
            text: "it is being opened again after a failure".into(),
            disk_full: false,
        });
        let mut slot = self.shared.slot_mut();
        if let Slot::Open(open) = std::mem::replace(&mut *slot, Slot::Failed(failure)) {
            open.give_up();
        }
        let opened = file::open(&*self.medium, self.options.cache_bytes, true);
        match opened {
            Ok(open) => {
                *slot = Slot::Open(open);
                Ok(())
            }
            Err(error) => {
                let failure = Arc::new(Failure {
                    path: self.medium.path().to_owned(),
                    text: error.to_string(),
                    disk_full: false,
                });
                *slot = Slot::Failed(failure.clone());
                Err(failure)
            }
        }
    }
}

/// The torrent that a write is about.
fn torrent_of(write: &Write) -> Option<InfoHashV1> {
    match write {
        Write::Add(torrent, _)
        | Write::Update(torrent, _)
        | Write::Remove(torrent)
        | Write::Queue(torrent, _)
        | Write::Intent(_, torrent, _) => Some(*torrent),
        Write::Setting(..) | Write::ServerTotals(_) => None,
    }
}

fn transaction(
    open: &Open,
    soon: &Soon,
    progress: &[InfoHashV1],
    server: bool,
    writes: Vec<Write>,
) -> Result<Outcome, redb::Error> {
    let mut transaction = open.database.begin_write()?;
    // The state of the allocator is written with each commit, so that opening after kill -9 reads
    // that instead of the whole file; and a commit has two phases, so that no checksum has to tell
    // which one was the last.
    transaction.set_quick_repair(true);
    let mut tables = Tables::open(&transaction)?;
    for torrent in progress {
        let kept = soon.torrents.get(torrent).cloned().unwrap_or_default();
        let update = Write::Update(*torrent, Box::new(kept.into()));
        // Of a torrent that is gone, or is another now, there is nothing to keep.
        let _refused = apply(&mut tables, update)?;
    }
    if let Some(totals) = soon.server.filter(|_| server) {
        let _never_refused = apply(&mut tables, Write::ServerTotals(totals))?;
    }
    let mut outcomes = Vec::with_capacity(writes.len());
    for write in writes {
        outcomes.push(apply(&mut tables, write)?);
    }
    drop(tables);
    transaction.commit()?;
    Ok(outcomes)
}
