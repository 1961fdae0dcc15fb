//! What is done to many torrents at once.
//!
//! Limits: [`NAMED_MAX`] that are named; [`AT_ONCE`] are asked for at a time, so that the server
//! can keep many changes by one write; [`FAILURES_MAX`] failures are told.

use super::input::Json;
use super::problem::Refusal;
use super::types::{Bulk, BulkAction, BulkFailure, BulkResult};
use super::{Answer, Api, convert, ok};
use crate::command::{Action, Command, Edit};
use axum::extract::State;
use futures_util::StreamExt;
use proto::ids::InfoHashV1;
use seedring_metrics::ControlCounter;
use std::sync::Arc;

/// Info-hashes of one request.
const NAMED_MAX: usize = 10_000;

/// Commands of one request that are under way.
const AT_ONCE: usize = 64;

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
    let asked = hashes.into_iter().map(|hash| {
        let (api, deed) = (Arc::clone(&api), Arc::clone(&deed));
        async move { (hash, one(&api, hash, &deed).await) }
    });
    let mut results = futures_util::stream::iter(asked).buffer_unordered(AT_ONCE);
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
    ok(&result)
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
