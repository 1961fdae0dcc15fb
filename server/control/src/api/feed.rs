//! What has changed: asked for, or told as it happens (server-sent events).
//!
//! Limits: [`LISTENERS_MAX`] who listen; one that does not read is written to no more, and told all
//! that it has missed at once when it does. Events come at most once in [`GATHERED_FOR`], but
//! without a pause while there is more to tell than one may hold; a listener that hears nothing for
//! [`HEARTBEAT`] is sent a comment. A listener is sent away after [`LISTENING_MAX`], and goes on by
//! Last-Event-ID where it stopped.

use super::input::Query;
use super::problem::{Kind, Refusal};
use super::types::{Changes, ChangesQuery};
use super::{Answer, Api, answer, ok};
use crate::catalog::{Known, PAGE_MAX};
use crate::command::Server;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream;
use seedring_metrics::{ControlCells, ControlCounter, ControlGauge};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

/// Those who listen at a time.
pub(super) const LISTENERS_MAX: usize = 64;

/// Between two events.
const GATHERED_FOR: Duration = Duration::from_secs(1);

/// After how long a listener is told that there is nothing to tell.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// How long one may listen: somewhat less than a connection lasts.
const LISTENING_MAX: Duration = Duration::from_secs(540);

/// What is new since a revision.
#[utoipa::path(get, path = "/changes", tag = "changes", params(ChangesQuery),
    responses((status = 200, description = "What is new", body = Changes)))]
pub(super) async fn changes(
    State(api): State<Arc<Api>>,
    Query(query): Query<ChangesQuery>,
) -> Answer {
    api.count(ControlCounter::ApiChanges);
    ok(&new_since(&api.server, known(&query), limit(&query)?))
}

fn limit(query: &ChangesQuery) -> Result<usize, Box<Refusal>> {
    match query.limit {
        1.. => Ok(query.limit.min(PAGE_MAX)),
        0 => {
            let detail = "in the query, limit: at least 1";
            Err(Refusal::field("limit", detail))
        }
    }
}

fn known(query: &ChangesQuery) -> Known {
    Known {
        revision: query.since,
        begun: query.begun,
    }
}

fn new_since(server: &Server, known: Known, limit: usize) -> Changes {
    answer::changes(&server.catalog().changes(known, limit))
}

/// The id of an event: the revision and, behind a point, when the first telling of all torrents
/// began, while that goes on.
fn event_id(known: Known) -> String {
    match known.begun {
        None => known.revision.to_string(),
        Some(begun) => format!("{}.{begun}", known.revision),
    }
}

fn read_event_id(id: &str) -> Option<Known> {
    let (revision, begun) = match id.split_once('.') {
        None => (id, None),
        Some((revision, begun)) => (revision, Some(begun.parse().ok()?)),
    };
    let revision = revision.parse().ok()?;
    Some(Known { revision, begun })
}

/// The same as it happens: events `change`, each with an id by which `Last-Event-ID` goes on.
#[utoipa::path(get, path = "/events", tag = "changes", params(ChangesQuery),
    responses((status = 200, description = "Events", content_type = "text/event-stream",
        body = Changes)))]
pub(super) async fn events(
    State(api): State<Arc<Api>>,
    Query(query): Query<ChangesQuery>,
    headers: HeaderMap,
) -> Answer {
    api.count(ControlCounter::ApiEvents);
    let limit = limit(&query)?;
    let last = headers.get("last-event-id");
    let known = match last.map(|last| last.to_str().ok().and_then(read_event_id)) {
        None => known(&query),
        Some(Some(known)) => known,
        Some(None) => {
            let detail = "Last-Event-ID: as the events have it";
            return Err(Refusal::new(Kind::Malformed, detail));
        }
    };
    let place = Arc::clone(&api.listeners).try_acquire_owned();
    let Ok(place) = place else {
        api.count(ControlCounter::ApiRefusedListener);
        let detail = format!("{LISTENERS_MAX} listen already; try again later, or ask /changes");
        return Err(Refusal::new(Kind::Unavailable, detail).retry_after(30));
    };
    let now = Instant::now();
    let listener = Listener {
        server: api.server.clone(),
        revisions: api.server.revisions(),
        known,
        limit,
        next_at: now,
        ends_at: now + LISTENING_MAX,
        _present: Present::new(place, Arc::clone(&api.cells)),
    };
    let events = stream::unfold(listener, |mut listener| async move {
        let event = listener.next().await?;
        Some((Ok::<_, Infallible>(event), listener))
    });
    let heartbeat = KeepAlive::new().interval(HEARTBEAT);
    Ok(Sse::new(events).keep_alive(heartbeat).into_response())
}

/// A listener's place, while it is there.
struct Present {
    _place: OwnedSemaphorePermit,
    cells: Arc<ControlCells>,
}

impl Present {
    fn new(place: OwnedSemaphorePermit, cells: Arc<ControlCells>) -> Present {
        cells.raise(ControlGauge::ApiListeners, 1);
        Present {
            _place: place,
            cells,
        }
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.cells.lower(ControlGauge::ApiListeners, 1);
    }
}

/// Someone who listens.
struct Listener {
    server: Server,
    revisions: watch::Receiver<u64>,
    known: Known,
    limit: usize,
    /// When the next event may be told.
    next_at: Instant,
    ends_at: Instant,
    _present: Present,
}

impl Listener {
    /// The next event, when there is one; none when it has to go.
    async fn next(&mut self) -> Option<Event> {
        loop {
            tokio::time::timeout_at(self.ends_at, tokio::time::sleep_until(self.next_at))
                .await
                .ok()?;
            // Seen before it is looked at, so that a change in between is not missed.
            self.revisions.borrow_and_update();
            let changes = new_since(&self.server, self.known, self.limit);
            self.known = Known {
                revision: changes.revision,
                begun: changes.begun,
            };
            let is_news =
                changes.begins_anew || !changes.changed.is_empty() || !changes.removed.is_empty();
            if is_news {
                self.next_at = match changes.has_more {
                    true => Instant::now(),
                    false => Instant::now() + GATHERED_FOR,
                };
                let event = Event::default().event("change");
                let event = event.id(event_id(self.known));
                return Some(event.data(serde_json::to_string(&changes).ok()?));
            }
            if !changes.has_more {
                let changed = tokio::time::timeout_at(self.ends_at, self.revisions.changed());
                changed.await.ok()?.ok()?;
            }
        }
    }
}
