//! The announcing task: takes announces and scrapes from the scheduler as they become due, runs
//! them, hands back the outcomes.
//!
//! Limits: as many requests at once as the scheduler hands out; no other task or timer. Does not:
//! decide anything; see `schedule`.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use proto::tracker::AnnounceEvent;
use seedring_metrics::{ControlCounter, ControlGauge, ControlHistogram};
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;

use super::client::Client;
use super::schedule::{Job, ScrapeJob};
use super::{Outcome, ScrapeOutcome, Shared};

/// How often the gauges are brought up to date and idle hosts forgotten.
const TICK: Duration = Duration::from_secs(5);
/// A first announce that is not answered for so long is told of.
const SLOW_AFTER: Duration = Duration::from_secs(4);
/// Trackers of which that is told; further ones are not until one of them has answered.
const SLOW_TOLD_MAX: usize = 64;

/// The requests under way.
#[derive(Default)]
struct Running {
    tasks: JoinSet<Ended>,
    /// The same by task, so that the scheduler gets each job back even if its task panics.
    jobs: HashMap<Id, Work>,
    /// Trackers of which it has been told that they take long, and that have not answered since.
    slow: HashSet<Arc<str>>,
}

impl Running {
    /// Tells of trackers that take long to answer, which without that are seen only when the time for
    /// it is over.
    fn tell_slow(&mut self) {
        for work in self.jobs.values() {
            if let Work::Announce(job, since) = work
                && job.event == AnnounceEvent::Started
                && since.elapsed() >= SLOW_AFTER
                && self.slow.len() < SLOW_TOLD_MAX
                && self.slow.insert(Arc::clone(&job.target.host))
            {
                tracing::info!(
                    tracker = %job.target.shown,
                    "no answer yet; it is waited for"
                );
            }
        }
    }

    /// An announce has ended: whoever has answered may be told of anew.
    fn ended(&mut self, work: &Work, ended: Option<&Ended>) {
        let failed = matches!(ended, Some(Ended::Announce(Outcome::Failed { .. })));
        if let (Work::Announce(job, _), false) = (work, failed) {
            self.slow.remove(&job.target.host);
        }
    }
}

/// What a task does.
enum Work {
    Announce(Arc<Job>, Instant),
    Scrape(Arc<ScrapeJob>),
}

/// What came of it.
enum Ended {
    Announce(Outcome),
    Scrape(ScrapeOutcome),
}

/// Runs until aborted, or until all handles are gone.
pub(super) async fn run(shared: Weak<Shared>, client: Arc<Client>) {
    let mut running = Running::default();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        // Held for one round only, so that the last handle's end is seen at the next tick.
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let wait = start_due(&shared, &client, &mut running);
        tokio::select! {
            () = shared.changed.notified() => {}
            () = tokio::time::sleep_until(wait) => {}
            _ = tick.tick() => {
                shared.scheduler().tidy(shared.now());
                running.tell_slow();
                publish(&shared);
            }
            Some(ended) = running.tasks.join_next_with_id() => {
                let (id, ended) = match ended {
                    Ok((id, ended)) => (id, Some(ended)),
                    Err(panic) => {
                        tracing::error!(%panic, "an announce ended by a panic; please report it");
                        (panic.id(), None)
                    }
                };
                if let Some(work) = running.jobs.remove(&id) {
                    running.ended(&work, ended.as_ref());
                    end(&shared, work, ended);
                }
            }
        }
    }
}

/// Starts what is due; says when to look again.
fn start_due(shared: &Arc<Shared>, client: &Arc<Client>, running: &mut Running) -> Instant {
    let now = shared.now();
    let mut scheduler = shared.scheduler();
    while let Some(job) = scheduler.poll(now) {
        shared.cells.increment(sent_counter(job.event));
        let job = Arc::new(job);
        let task = client.clone().announce(job.clone());
        let task = async { Ended::Announce(task.await) };
        let id = running.tasks.spawn(task).id();
        running.jobs.insert(id, Work::Announce(job, Instant::now()));
    }
    while let Some(job) = scheduler.poll_scrape(now) {
        let job = Arc::new(job);
        let task = client.clone().scrape(job.clone());
        let task = async { Ended::Scrape(task.await) };
        let id = running.tasks.spawn(task).id();
        running.jobs.insert(id, Work::Scrape(job));
    }
    if scheduler.is_empty() {
        shared.stopped.notify_waiters();
    }
    // The tick comes before that anyway; a far time would overflow `Instant`.
    Instant::now() + scheduler.next_wake().since(now).min(2 * TICK)
}

fn sent_counter(event: AnnounceEvent) -> ControlCounter {
    match event {
        AnnounceEvent::Started => ControlCounter::AnnouncesStarted,
        AnnounceEvent::Completed => ControlCounter::AnnouncesCompleted,
        AnnounceEvent::Stopped => ControlCounter::AnnouncesStopped,
        AnnounceEvent::None | AnnounceEvent::Paused => ControlCounter::AnnouncesRegular,
    }
}

/// Hands back what came of a task; none if it panicked.
fn end(shared: &Shared, work: Work, ended: Option<Ended>) {
    let internal = || "an internal error".to_owned();
    match work {
        Work::Announce(job, since) => {
            let duration = since.elapsed();
            shared
                .cells
                .record(ControlHistogram::AnnounceDuration, duration);
            let outcome = match ended {
                Some(Ended::Announce(outcome)) => outcome,
                _ => Outcome::Failed {
                    error: internal(),
                    retry: None,
                },
            };
            finish(shared, &job, outcome);
        }
        Work::Scrape(job) => {
            let outcome = match ended {
                Some(Ended::Scrape(outcome)) => outcome,
                _ => ScrapeOutcome::Failed(internal()),
            };
            finish_scrape(shared, &job, &outcome);
        }
    }
}

fn finish_scrape(shared: &Shared, job: &ScrapeJob, outcome: &ScrapeOutcome) {
    let (tracker, asked) = (&job.target.shown, job.info_hashes.len());
    let counter = match outcome {
        ScrapeOutcome::Files(files) => {
            tracing::debug!(%tracker, asked, known = files.len(), "scraped");
            ControlCounter::ScrapesOk
        }
        ScrapeOutcome::Refused(reason) => {
            tracing::debug!(%tracker, asked, %reason, "a scrape was refused");
            ControlCounter::ScrapesRefused
        }
        ScrapeOutcome::Failed(reason) => {
            tracing::debug!(%tracker, asked, %reason, "a scrape failed");
            ControlCounter::ScrapesFailed
        }
    };
    shared.cells.increment(counter);
    shared.scheduler().scraped(shared.now(), job, outcome);
}

fn finish(shared: &Shared, job: &Job, outcome: Outcome) {
    let (counter, reason) = match &outcome {
        Outcome::Reply(reply) => {
            shared
                .cells
                .add(ControlCounter::AnnouncePeers, reply.peers.len() as u64);
            tracing::debug!(
                torrent = %job.info_hash,
                tracker = %job.target.shown,
                event = ?job.event,
                peers = reply.peers.len(),
                "announced"
            );
            if !reply.peers.is_empty() {
                job.totals.found(&reply.peers);
            }
            (ControlCounter::AnnouncesOk, None)
        }
        Outcome::Refused { reason, .. } => (ControlCounter::AnnouncesRefused, Some(reason)),
        Outcome::Failed { error, .. } => (ControlCounter::AnnouncesFailed, Some(error)),
    };
    if let Some(reason) = reason {
        tracing::info!(
            torrent = %job.info_hash,
            tracker = %job.target.shown,
            event = ?job.event,
            %reason,
            "an announce failed"
        );
    }
    let failing = {
        let mut scheduler = shared.scheduler();
        scheduler.finished(shared.now(), job, outcome);
        scheduler.failing()
    };
    // Who looks after an announce has failed is to see it.
    let gauge = ControlGauge::TrackersFailing;
    shared.cells.set(gauge, failing as u64);
    shared.cells.increment(counter);
}

fn publish(shared: &Shared) {
    let gauges = shared.scheduler().gauges(shared.now());
    for (gauge, value) in [
        (ControlGauge::AnnouncesInFlight, gauges.in_flight),
        (ControlGauge::AnnouncesOverdue, gauges.overdue),
        (ControlGauge::TrackersFailing, gauges.failing),
    ] {
        shared.cells.set(gauge, value as u64);
    }
}
