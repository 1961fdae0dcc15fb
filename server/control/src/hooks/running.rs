//! The hooks of a running server: a line for each, in which events wait, and a task that tells
//! them.

use super::chains::Chains;
use super::event::Happened;
use super::outbox::{Notice, Outbox};
use super::program::Starts;
use super::{Argument, Hook, HookError, HookEvent, Target, Webhook, program, webhook};
use crate::announce::Authority;
use crate::catalog::Torrent;
use ::state::{Handle, ReadError};
use proto::ids::InfoHashV1;
use reqwest::Client;
use seedring_metrics::{ControlCells, ControlCounter, ControlGauge};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::{Id, JoinError, JoinSet};

/// How long the server waits for hooks at its end: what they may take, and what it takes to end
/// them.
const STOP: Duration = Duration::from_secs(5);

/// What became of telling a hook.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    Done,
    Failed,
    OutOfTime,
    /// The server stops; it is to be told again.
    Interrupted,
}

/// An event that hooks are being told.
struct Pending {
    id: u64,
    happened: Happened,
    is_kept: bool,
    /// Hooks that have not been told yet.
    left: AtomicUsize,
}

/// How a hook is told. Each line has all that it takes, so that it can go on by it when another
/// configuration is in its place.
enum Way {
    Program(Vec<Argument>, Starts),
    Web(Client, Webhook),
}

/// A hook and what waits for it.
struct Line {
    hook: Hook,
    way: Way,
    chains: Mutex<Chains<Arc<Pending>>>,
    more: Notify,
    /// Another configuration is in its place: it ends when nothing waits. Set when it has been
    /// taken out of those that events are pushed to.
    is_retired: AtomicBool,
    /// Events are being dropped, which was said.
    is_full: AtomicBool,
}

impl Line {
    fn chains(&self) -> MutexGuard<'_, Chains<Arc<Pending>>> {
        self.chains.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Shared {
    outbox: Outbox,
    /// Held for reading while an event is pushed, so that no line ends meanwhile.
    lines: RwLock<Vec<Arc<Line>>>,
    cells: Arc<ControlCells>,
    stopping: watch::Sender<bool>,
    /// Held by each task, so that their end can be waited for.
    tasks: watch::Sender<()>,
}

/// The way to the hooks, for whoever knows what happens. Nothing here waits for one.
#[derive(Clone)]
pub struct Hooks(Arc<Shared>);

impl Hooks {
    /// Starts hooks, and tells them what an earlier run has left in `store`.
    ///
    /// # Errors
    ///
    /// [`HookError`]. What is left that cannot be read is logged.
    pub async fn start(
        hooks: Vec<Hook>,
        authorities: &[Authority],
        store: Handle,
        cells: Arc<ControlCells>,
    ) -> Result<Hooks, HookError> {
        let started = Hooks(Arc::new(Shared {
            outbox: Outbox::new(store),
            lines: RwLock::default(),
            cells,
            stopping: watch::channel(false).0,
            tasks: watch::channel(()).0,
        }));
        started.replace(hooks, authorities)?;
        if let Err(error) = started.tell_left().await {
            tracing::error!(%error, "what hooks were not told before the last end is not known");
        }
        Ok(started)
    }

    /// Puts other hooks in the place of these. What waits for those before is still told them.
    ///
    /// # Errors
    ///
    /// [`HookError`]; nothing has changed then.
    pub fn replace(&self, hooks: Vec<Hook>, authorities: &[Authority]) -> Result<(), HookError> {
        let lines = lines(hooks, authorities)?;
        for line in &lines {
            let held = self.0.tasks.subscribe();
            let running = run(Arc::clone(line), Arc::clone(&self.0));
            tokio::spawn(async move {
                running.await;
                drop(held);
            });
        }
        let mut now = self.0.lines.write().unwrap_or_else(PoisonError::into_inner);
        for line in std::mem::replace(&mut *now, lines) {
            line.is_retired.store(true, Ordering::Release);
            line.more.notify_one();
        }
        drop(now);
        Ok(())
    }

    async fn tell_left(&self) -> Result<(), ReadError> {
        for (id, happened) in self.0.outbox.left().await? {
            self.tell(id, happened, true);
        }
        Ok(())
    }

    /// What is to be written with a change that has this happen to `torrent`; none if no hook is to
    /// be told.
    pub fn note(
        &self,
        torrent: &Torrent,
        event: HookEvent,
        at_s: u64,
        error: Option<&str>,
    ) -> Option<Notice> {
        let lines = self.lines();
        if !lines.iter().any(|line| line.hook.on.contains(&event)) {
            return None;
        }
        let happened = Happened::to(torrent, event, at_s, error);
        let is_taken = lines.iter().any(|line| line.hook.takes(&happened));
        drop(lines);
        is_taken.then(|| self.0.outbox.note(happened))
    }

    /// The change is durable: hooks are told.
    pub fn happened(&self, notice: Notice) {
        let is_kept = notice.is_kept();
        self.tell(notice.id, notice.happened, is_kept);
    }

    /// The change has not been made.
    pub fn withdraw(&self, notice: &Notice) {
        if notice.is_kept() {
            self.forget(notice.id);
        }
    }

    /// Waits a little for those that are being told, ends them, and ends. What waits is told at the
    /// next start.
    pub async fn stop(&self) {
        self.0.stopping.send_replace(true);
        let _ = tokio::time::timeout(STOP, self.0.tasks.closed()).await;
    }

    fn lines(&self) -> RwLockReadGuard<'_, Vec<Arc<Line>>> {
        let lines = self.0.lines.read();
        lines.unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, id: u64, happened: Happened, is_kept: bool) {
        let lines = self.lines();
        let takers: Vec<&Arc<Line>> = lines
            .iter()
            .filter(|line| line.hook.takes(&happened))
            .collect();
        let (torrent, bytes) = (happened.info_hash(), happened.size());
        let pending = Arc::new(Pending {
            id,
            happened,
            is_kept,
            // One is ours, until all lines have it.
            left: AtomicUsize::new(takers.len() + 1),
        });
        for line in takers {
            // Before it waits: it may be taken, and be counted no more, at once.
            self.0.cells.raise(ControlGauge::HookEventsWaiting, 1);
            let pushed = line.chains().push(torrent, Arc::clone(&pending), bytes);
            match pushed {
                Ok(()) => line.more.notify_one(),
                Err(pending) => {
                    self.0.cells.lower(ControlGauge::HookEventsWaiting, 1);
                    self.dropped(line, &pending);
                }
            }
        }
        drop(lines);
        self.ended(&pending);
    }

    fn dropped(&self, line: &Line, pending: &Arc<Pending>) {
        self.0.cells.add(ControlCounter::HookEventsDropped, 1);
        if !line.is_full.swap(true, Ordering::Relaxed) {
            tracing::error!(
                hook = line.hook.name(),
                "too many events wait for a hook: it is \
                not told of what happens until it has caught up; raise its concurrency, or have \
                it do less"
            );
        }
        self.ended(pending);
    }

    /// A hook has been told, or will not be: after the last of them the event is forgotten.
    fn ended(&self, pending: &Pending) {
        if pending.left.fetch_sub(1, Ordering::AcqRel) == 1 && pending.is_kept {
            self.forget(pending.id);
        }
    }

    fn forget(&self, id: u64) {
        let shared = Arc::clone(&self.0);
        let held = self.0.tasks.subscribe();
        tokio::spawn(async move {
            shared.outbox.forget(id).await;
            drop(held);
        });
    }
}

impl Shared {
    fn counted(&self, outcome: Outcome) {
        let counter = match outcome {
            Outcome::Done => ControlCounter::HooksOk,
            Outcome::Failed => ControlCounter::HooksFailed,
            Outcome::OutOfTime => ControlCounter::HooksTimedOut,
            Outcome::Interrupted => return,
        };
        self.cells.add(counter, 1);
    }
}

/// A line for each hook. Webhooks of one configuration share a client, which is not made where
/// there are none.
fn lines(hooks: Vec<Hook>, authorities: &[Authority]) -> Result<Vec<Arc<Line>>, HookError> {
    let mut made: Option<Client> = None;
    let mut lines = Vec::with_capacity(hooks.len());
    for hook in hooks {
        let way = match &hook.target {
            Target::Run(arguments) => {
                Way::Program(arguments.clone(), Starts::new(hook.concurrency))
            }
            Target::Post(webhook) => {
                let client = match made.clone() {
                    Some(client) => client,
                    None => made.insert(webhook::client(authorities)?).clone(),
                };
                Way::Web(client, webhook.clone())
            }
        };
        lines.push(Arc::new(Line {
            hook,
            way,
            chains: Mutex::default(),
            more: Notify::new(),
            is_retired: AtomicBool::new(false),
            is_full: AtomicBool::new(false),
        }));
    }
    Ok(lines)
}

/// Those that are being told, by their tasks.
type Told = HashMap<Id, (InfoHashV1, Arc<Pending>)>;

/// Tells a hook what waits for it, until the server stops or another is in its place.
async fn run(line: Arc<Line>, shared: Arc<Shared>) {
    let hooks = Hooks(Arc::clone(&shared));
    let mut stopping = shared.stopping.subscribe();
    let mut running: JoinSet<Outcome> = JoinSet::new();
    let mut told = Told::new();
    loop {
        while running.len() < line.hook.concurrency {
            let next = line.chains().next();
            let Some((torrent, pending)) = next else {
                line.is_full.store(false, Ordering::Relaxed);
                break;
            };
            shared.cells.lower(ControlGauge::HookEventsWaiting, 1);
            let telling = tell(Arc::clone(&line), Arc::clone(&shared), Arc::clone(&pending));
            let task = running.spawn(telling);
            told.insert(task.id(), (torrent, pending));
        }
        // Looked at before what waits is: whatever was pushed to it was pushed before this was set.
        let is_retired = line.is_retired.load(Ordering::Acquire);
        if is_retired && running.is_empty() && line.chains().waiting() == 0 {
            return;
        }
        tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => break,
            () = line.more.notified() => {}
            Some(ended) = running.join_next_with_id() => {
                if let Some(torrent) = take(&hooks, &mut told, ended) {
                    line.chains().ended(torrent);
                }
            }
        }
    }
    while let Some(ended) = running.join_next_with_id().await {
        take(&hooks, &mut told, ended);
    }
}

/// Notes that a hook has been told: the torrent of which it is to be told the next.
fn take(
    hooks: &Hooks,
    told: &mut Told,
    ended: Result<(Id, Outcome), JoinError>,
) -> Option<InfoHashV1> {
    let (id, outcome) = ended.unwrap_or_else(|error| (error.id(), Outcome::Failed));
    hooks.0.counted(outcome);
    let (torrent, pending) = told.remove(&id)?;
    if outcome != Outcome::Interrupted {
        hooks.ended(&pending);
    }
    Some(torrent)
}

async fn tell(line: Arc<Line>, shared: Arc<Shared>, pending: Arc<Pending>) -> Outcome {
    let limit = line.hook.timeout;
    let stopping = shared.stopping.subscribe();
    let event = (pending.id, &pending.happened);
    match &line.way {
        Way::Program(arguments, starts) => {
            program::run(arguments, starts, limit, event, stopping).await
        }
        Way::Web(client, webhook) => webhook::post(client, webhook, limit, event, stopping).await,
    }
}

#[cfg(test)]
mod tests;
