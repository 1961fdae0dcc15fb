//! The server as a whole: counts, rates, limits, and the labels and categories that torrents have.

use super::input::Json;
use super::types::{EditServerLimits, Group, GroupList, ServerLimits, ServerStatus, StatusCounts};
use super::{Answer, Api, answer, convert, ok};
use crate::catalog::{Catalog, Status};
use crate::command::Command;
use axum::extract::State;
use seedring_metrics::ControlCounter;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// The server.
#[utoipa::path(get, path = "/server", tag = "server",
    responses((status = 200, description = "The server", body = ServerStatus)))]
pub(super) async fn server(State(api): State<Arc<Api>>) -> Answer {
    api.count(ControlCounter::ApiServer);
    let facts = &api.facts;
    let status = {
        let catalog = api.server.catalog();
        let (sums, totals) = (catalog.sums(), catalog.totals());
        let (uploaded_session_bytes, downloaded_session_bytes) = catalog.session();
        ServerStatus {
            version: facts.version.clone(),
            commit: facts.commit.clone(),
            uptime_s: facts.started.elapsed().as_secs(),
            peer_port: facts.peer_port.load(Relaxed),
            revision: catalog.revision(),
            torrents: catalog.len(),
            by_status: counts(&catalog),
            total_bytes: catalog.bytes(),
            uploaded_bytes: totals.uploaded_bytes,
            downloaded_bytes: totals.downloaded_bytes,
            uploaded_session_bytes,
            downloaded_session_bytes,
            upload_rate: sums.upload_rate,
            download_rate: sums.download_rate,
        }
    };
    ok(&status)
}

fn counts(catalog: &Catalog) -> StatusCounts {
    StatusCounts {
        paused: catalog.count_of(Status::Paused),
        queued: catalog.count_of(Status::Queued),
        metadata: catalog.count_of(Status::Metadata),
        checking: catalog.count_of(Status::Checking),
        moving: catalog.count_of(Status::Moving),
        downloading: catalog.count_of(Status::Downloading),
        seeding: catalog.count_of(Status::Seeding),
        offline: catalog.count_of(Status::Offline),
        failed: catalog.count_of(Status::Failed),
    }
}

/// The limits of the whole server.
#[utoipa::path(get, path = "/limits", tag = "server",
    responses((status = 200, description = "The limits", body = ServerLimits)))]
pub(super) async fn limits(State(api): State<Arc<Api>>) -> Answer {
    api.count(ControlCounter::ApiServer);
    let limits = api.ask(Command::Limits).await?;
    ok(&answer::server_limits(limits))
}

/// Changes the limits of the whole server.
#[utoipa::path(patch, path = "/limits", tag = "server", request_body = EditServerLimits,
    responses((status = 200, description = "The limits as they are now", body = ServerLimits)))]
pub(super) async fn set_limits(
    State(api): State<Arc<Api>>,
    Json(limits): Json<EditServerLimits>,
) -> Answer {
    api.count(ControlCounter::ApiChange);
    let limits = convert::server_limits(&limits)?;
    let limits = api.ask(|reply| Command::SetLimits(limits, reply)).await?;
    ok(&answer::server_limits(limits))
}

/// Labels that torrents have.
#[utoipa::path(get, path = "/labels", tag = "server",
    responses((status = 200, description = "The labels", body = GroupList)))]
pub(super) async fn labels(State(api): State<Arc<Api>>) -> Answer {
    api.count(ControlCounter::ApiServer);
    let groups = groups(api.server.catalog().labels());
    ok(&groups)
}

/// Categories that torrents are in.
#[utoipa::path(get, path = "/categories", tag = "server",
    responses((status = 200, description = "The categories", body = GroupList)))]
pub(super) async fn categories(State(api): State<Arc<Api>>) -> Answer {
    api.count(ControlCounter::ApiServer);
    let groups = groups(api.server.catalog().categories());
    ok(&groups)
}

fn groups<'a>(groups: impl Iterator<Item = (&'a str, usize)>) -> GroupList {
    let group = |(name, torrents): (&str, usize)| Group {
        name: name.to_owned(),
        torrents,
    };
    GroupList {
        groups: groups.map(group).collect(),
    }
}
