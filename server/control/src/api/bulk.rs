//! What is done to many torrents at once.
//!
//! What was begun is done to all, also when who asked has gone: half of it done and nobody told
//! which would be the worst of answers. While it lasts the answer is blanks, which JSON may begin
//! with, so that who waits knows that it goes on.
//!
//! Limits: [`NAMED_MAX`] that are named; [`AT_ONCE`] are asked for at a time, so that the server
//! can keep many changes by one write; [`UNDER_WAY_MAX`] such requests are under way, one more is
//! refused; [`FAILURES_MAX`] failures are told.

use super::input::Json;
use super::problem::{Kind, Refusal};
use super::types::{Bulk, BulkAction, BulkFailure, BulkResult};
use super::{Answer, Api, convert, ok};
use crate::command::{Action, Command, Edit};
use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use futures_util::{StreamExt, stream};
use proto::ids::InfoHashV1;
use seedring_metrics::ControlCounter;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Info-hashes of one request.
const NAMED_MAX: usize = 10_000;

/// Commands of one request that are under way.
const AT_ONCE: usize = 512;

/// Requests that are under way.
pub(super) const UNDER_WAY_MAX: usize = 8;

/// Between two blanks.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// Failures that are told of; the others are counted.
const FAILURES_MAX: usize = 1000;

/// What is done to each.
enum Deed {
    Act(Action),
    Edit(Box<Edit>),
}

/// Does something to many torrents. Each is done or fails by itself.
#[utoipa::path(post, path = "/torrents/actions", tag = "torrents", request_body = Bulk,
    responses((status = 200, description = "What became of it", body = BulkResult)))]
pub(super) async fn act(State(api): State<Arc<Api>>, Json(bulk): Json<Bulk>) -> Answer {
    api.count(ControlCounter::ApiBulk);
    let (deed, hashes) = (Arc::new(deed(&bulk)?), hashes(&api, bulk)?);
    let Ok(place) = Arc::clone(&api.bulks).try_acquire_owned() else {
        let detail = format!("{UNDER_WAY_MAX} such requests are under way; try again later");
        return Err(Refusal::new(Kind::Unavailable, detail).retry_after(5));
    };
    let (done, mut result) = oneshot::channel();
    tokio::spawn(async move {
        let _ = done.send(all(api, deed, hashes).await);
        drop(place);
    });
    if let Ok(Ok(result)) = tokio::time::timeout(SIGN_OF_LIFE, &mut result).await {
        return ok(&result);
    }
    let parts = stream::unfold(Some(result), |waiting| answer(waiting, SIGN_OF_LIFE));
    let body = Body::from_stream(parts);
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

/// The next part of the answer, and what the one behind it comes of.
async fn answer(
    waiting: Option<oneshot::Receiver<BulkResult>>,
    sign_of_life: Duration,
) -> Option<(
    Result<String, Infallible>,
    Option<oneshot::Receiver<BulkResult>>,
)> {
    let mut result = waiting?;
    match tokio::time::timeout(sign_of_life, &mut result).await {
        Err(_) => Some((Ok(" ".to_owned()), Some(result))),
        // Nothing but the end of the server loses it: an answer that breaks off says so.
        Ok(result) => Some((Ok(serde_json::to_string(&result.ok()?).ok()?), None)),
    }
}

async fn all(api: Arc<Api>, deed: Arc<Deed>, hashes: Vec<InfoHashV1>) -> BulkResult {
    let asked = hashes.into_iter().map(|hash| {
        let (api, deed) = (Arc::clone(&api), Arc::clone(&deed));
        async move { (hash, one(&api, hash, &deed).await) }
    });
    let mut results = stream::iter(asked).buffer_unordered(AT_ONCE);
    let mut result = BulkResult::default();
    while let Some((hash, outcome)) = results.next().await {
        let Err(refusal) = outcome else {
            result.done += 1;
            continue;
        };
        result.failed_total += 1;
        if result.failed.len() < FAILURES_MAX {
            result.failed.push(BulkFailure {
                info_hash: hash.to_string(),
                problem: refusal.problem(),
            });
        }
    }
    result
}

async fn one(api: &Api, hash: InfoHashV1, deed: &Deed) -> Result<(), Box<Refusal>> {
    api.torrent(&hash)?;
    match deed {
        Deed::Act(action) => {
            let action = *action;
            api.ask(|reply| Command::Act(hash, action, reply)).await
        }
        Deed::Edit(edit) => {
            let edit = edit.clone();
            api.ask(|reply| Command::Edit(hash, edit, reply)).await
        }
    }
}

/// What is to be done, of a request that says so without contradiction.
fn deed(bulk: &Bulk) -> Result<Deed, Box<Refusal>> {
    if bulk.with_data && bulk.action != BulkAction::Remove {
        let detail = "with_data: only remove deletes files";
        return Err(Refusal::field("with_data", detail));
    }
    let edit = match (&bulk.edit, bulk.action) {
        (Some(edit), BulkAction::Edit) => Some(convert::bulk_edit(edit.clone())?),
        (None, BulkAction::Edit) => {
            let detail = "edit: say what is to be changed";
            return Err(Refusal::field("edit", detail));
        }
        (Some(_), _) => {
            let detail = "edit: only the action edit changes something";
            return Err(Refusal::field("edit", detail));
        }
        (None, _) => None,
    };
    let with_data = bulk.with_data;
    Ok(match (edit, bulk.action) {
        (Some(edit), _) => Deed::Edit(Box::new(edit)),
        (None, BulkAction::Resume) => Deed::Act(Action::Resume),
        (None, BulkAction::Remove) => Deed::Act(Action::Remove { with_data }),
        (None, BulkAction::Recheck) => Deed::Act(Action::Recheck),
        (None, BulkAction::Announce) => Deed::Act(Action::Announce),
        (None, BulkAction::Pause | BulkAction::Edit) => Deed::Act(Action::Pause),
    })
}

/// To which it is done.
fn hashes(api: &Api, bulk: Bulk) -> Result<Vec<InfoHashV1>, Box<Refusal>> {
    match (bulk.torrents, bulk.filter) {
        (Some(named), None) if named.len() <= NAMED_MAX => convert::info_hashes("torrents", &named),
        (Some(_), None) => {
            let detail = format!("torrents: at most {NAMED_MAX}; a filter may mean more");
            Err(Refusal::field("torrents", detail))
        }
        (None, Some(filter)) => {
            let filter = convert::filter(filter);
            let catalog = api.server.catalog();
            Ok(catalog.hashes(&filter))
        }
        _ => {
            let detail = "say to which torrents, by one of torrents and filter";
            Err(Refusal::field("torrents", detail))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_long_is_sent_blanks_and_then_the_result() {
        let (done, result) = oneshot::channel();
        let (part, rest) = answer(Some(result), Duration::ZERO).await.unwrap();
        assert_eq!(part.unwrap(), " ");
        let told = BulkResult {
            done: 7,
            ..BulkResult::default()
        };
        done.send(told.clone()).unwrap();
        let (part, rest) = answer(rest, SIGN_OF_LIFE).await.unwrap();
        let text = format!(" {}", part.unwrap());
        assert_eq!(serde_json::from_str::<BulkResult>(&text).unwrap(), told);
        assert!(answer(rest, SIGN_OF_LIFE).await.is_none());
    }

    /// So a client sees that the answer broke off.
    #[tokio::test]
    async fn a_result_that_is_lost_is_no_result() {
        let (done, result) = oneshot::channel();
        drop(done);
        assert!(answer(Some(result), SIGN_OF_LIFE).await.is_none());
    }
}
