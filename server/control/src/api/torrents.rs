//! Torrents: lists, one, what is added and what is done to one.

use super::auth::Proven;
use super::input::{self, Json, Nothing, Query, Target};
use super::problem::{Kind, Refusal};
use super::types::{
    AddTorrent, Added, EditTorrent, ListQuery, MoveTorrent, Problem, QueuePlace, RemoveQuery,
    SecretsQuery, Torrent, TorrentDetails, TorrentList,
};
use super::{Answer, Api, PREFIX, answer, convert, done, json, ok};
use crate::command::{self, Action, AddSource, Command};
use axum::Extension;
use axum::extract::{FromRequest, Multipart, Request, State};
use axum::http::StatusCode;
use axum::http::header::{self, HeaderValue};
use proto::ids::InfoHashV1;
use seedring_metrics::ControlCounter;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The fields that a torrent can have, for those who select some.
const FIELDS: [&str; 36] = [
    "info_hash",
    "info_hash_v2",
    "name",
    "status",
    "done_permille",
    "last_error",
    "private",
    "total_bytes",
    "verified_bytes",
    "piece_bytes",
    "pieces",
    "pieces_verified",
    "files",
    "save_path",
    "category",
    "labels",
    "added_at_s",
    "completed_at_s",
    "last_active_at_s",
    "paused",
    "seed_mode",
    "sequential",
    "super_seeding",
    "limits",
    "uploaded_bytes",
    "downloaded_bytes",
    "uploaded_session_bytes",
    "downloaded_session_bytes",
    "wasted_bytes",
    "ratio_permille",
    "active_s",
    "seeding_s",
    "upload_rate",
    "download_rate",
    "peers",
    "seeds",
];

/// A page with some fields of each torrent.
#[derive(Serialize)]
struct Selected {
    total: usize,
    offset: usize,
    revision: u64,
    torrents: Vec<serde_json::Map<String, serde_json::Value>>,
}

/// A page of the torrents.
#[utoipa::path(get, path = "/torrents", tag = "torrents", params(ListQuery),
    responses((status = 200, description = "The page", body = TorrentList)))]
pub(super) async fn list(State(api): State<Arc<Api>>, Query(query): Query<ListQuery>) -> Answer {
    api.count(ControlCounter::ApiList);
    let fields = fields(query.fields.as_deref())?;
    let wanted = convert::list_query(&query)?;
    let list = {
        let catalog = api.server.catalog();
        let page = catalog.page(&wanted);
        TorrentList {
            total: page.total,
            offset: query.offset,
            revision: catalog.revision(),
            torrents: page.torrents.into_iter().map(answer::torrent).collect(),
        }
    };
    let Some(fields) = fields else {
        return ok(&list);
    };
    let torrents = list.torrents.iter().map(|torrent| select(torrent, &fields));
    ok(&Selected {
        total: list.total,
        offset: list.offset,
        revision: list.revision,
        torrents: torrents.collect(),
    })
}

/// Which fields are selected, if some are.
fn fields(text: Option<&str>) -> Result<Option<Vec<&str>>, Box<Refusal>> {
    let fields: Vec<_> = convert::parts(text).collect();
    if let Some(unknown) = fields.iter().find(|field| !FIELDS.contains(field)) {
        let known = FIELDS.join(", ");
        let detail = format!("in the query, fields: there is no \"{unknown}\"; known are {known}");
        return Err(Refusal::field("fields", detail));
    }
    Ok((!fields.is_empty()).then_some(fields))
}

fn select(torrent: &Torrent, fields: &[&str]) -> serde_json::Map<String, serde_json::Value> {
    let Ok(serde_json::Value::Object(mut whole)) = serde_json::to_value(torrent) else {
        return serde_json::Map::new();
    };
    whole.retain(|name, _| fields.contains(&name.as_str()));
    whole
}

/// Adds a torrent. One that is there already is left as it is.
#[utoipa::path(post, path = "/torrents", tag = "torrents",
    request_body(content(
        (AddTorrent = "application/json"),
        (Vec<u8> = "application/x-bittorrent"),
    ), description = "JSON; a .torrent file with `save_path`, `name`, `category`, `labels`, \
       `paused`, \
       `seed_mode`, `sequential`, `super_seeding` and `first_in_queue` in the query; or \
       multipart/form-data with the file as `torrent` and JSON as `options`"),
    responses((status = 201, description = "It was added", body = Added),
        (status = 200, description = "It was there already", body = Added)))]
pub(super) async fn add(State(api): State<Arc<Api>>, request: Request) -> Answer {
    api.count(ControlCounter::ApiAdd);
    let (parts, body) = request.into_parts();
    let torrent = match input::media_type(&parts).as_str() {
        "application/json" => {
            let body = input::read(&api, body, api.body_max).await?;
            convert::add(input::json(&body.bytes)?)?
        }
        "application/x-bittorrent" => {
            let options: AddQuery = input::query(parts.uri.query().unwrap_or_default())?;
            let body = input::read(&api, body, api.body_max).await?;
            convert::add_metainfo(options.into(), body.bytes)?
        }
        "multipart/form-data" => {
            // Read whole first, so that its limits are those of every body.
            let body = input::read(&api, body, api.body_max).await?;
            form(Request::from_parts(parts, body.bytes.into())).await?
        }
        _ => {
            let detail = "send JSON (Content-Type: application/json), a .torrent file \
                          (application/x-bittorrent) or both as multipart/form-data";
            return Err(Refusal::new(Kind::MediaType, detail));
        }
    };
    if let AddSource::Metainfo(bytes) = &torrent.source
        && bytes.is_empty()
    {
        let detail = "metainfo: the .torrent file is empty";
        return Err(Refusal::field("metainfo", detail));
    }
    let added = api
        .ask(|reply| Command::Add(Box::new(torrent), reply))
        .await?;
    let added = answer::added(added);
    let status = match added.was_there {
        true => StatusCode::OK,
        false => StatusCode::CREATED,
    };
    let mut response = json(status, &added)?;
    let location = format!("{PREFIX}/torrents/{}", added.info_hash);
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// What the query says of a torrent whose file is the body.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AddQuery {
    save_path: Option<String>,
    name: Option<String>,
    category: Option<String>,
    labels: Option<String>,
    paused: bool,
    seed_mode: bool,
    sequential: bool,
    super_seeding: bool,
    first_in_queue: bool,
}

impl From<AddQuery> for AddTorrent {
    fn from(query: AddQuery) -> AddTorrent {
        let labels = convert::parts(query.labels.as_deref());
        AddTorrent {
            labels: labels.map(str::to_owned).collect(),
            save_path: query.save_path,
            name: query.name,
            category: query.category,
            paused: query.paused,
            seed_mode: query.seed_mode,
            sequential: query.sequential,
            super_seeding: query.super_seeding,
            first_in_queue: query.first_in_queue,
            ..AddTorrent::default()
        }
    }
}

/// Reads a form: the .torrent file as `torrent`, JSON as `options`.
async fn form(request: Request) -> Result<command::AddTorrent, Box<Refusal>> {
    let malformed = |detail: String| {
        let detail = format!("the body is no form: {detail}");
        Refusal::new(Kind::Malformed, detail)
    };
    let form = Multipart::from_request(request, &()).await;
    let mut form = form.map_err(|error| malformed(error.body_text()))?;
    let (mut metainfo, mut options) = (None, None);
    while let Some(field) = form
        .next_field()
        .await
        .map_err(|error| malformed(error.body_text()))?
    {
        let name = field.name().unwrap_or_default().to_owned();
        let bytes = field.bytes().await;
        let bytes = bytes.map_err(|error| malformed(error.body_text()))?;
        let place = match name.as_str() {
            "torrent" => &mut metainfo,
            "options" => &mut options,
            _ => {
                let detail = format!("{name}: a form has the parts torrent and options");
                return Err(Refusal::field(name, detail));
            }
        };
        if place.replace(bytes).is_some() {
            let detail = format!("{name}: there are two of it");
            return Err(Refusal::field(name, detail));
        }
    }
    let options = options.map(|options| input::json(&options)).transpose()?;
    let options: AddTorrent = options.unwrap_or_default();
    match metainfo {
        Some(metainfo) => convert::add_metainfo(options, metainfo.into()),
        None => convert::add(options),
    }
}

/// All that is known of a torrent.
#[utoipa::path(get, path = "/torrents/{hash}", tag = "torrents",
    params(("hash" = String, Path, description = "The info-hash"), SecretsQuery),
    responses((status = 200, description = "The torrent", body = TorrentDetails)))]
pub(super) async fn one(
    State(api): State<Arc<Api>>,
    target: Target,
    Query(query): Query<SecretsQuery>,
    Extension(proven): Extension<Proven>,
) -> Answer {
    api.count(ControlCounter::ApiTorrent);
    secrets_allowed(query.secrets, proven)?;
    let hash = target.info_hash;
    // Who is not known is said without asking.
    api.torrent(&hash)?;
    let described = api.ask(|reply| Command::Describe(hash, reply)).await?;
    let torrent = api.torrent(&hash)?;
    ok(&answer::details(torrent, *described, query.secrets))
}

/// Refuses to tell secrets to somebody who may be anybody.
pub(super) fn secrets_allowed(wanted: bool, proven: Proven) -> Result<(), Box<Refusal>> {
    match wanted && !proven.0 {
        true => {
            let detail = "passkeys are told only to those who show who they are, by the token";
            Err(Refusal::new(Kind::Forbidden, detail).of("secrets"))
        }
        false => Ok(()),
    }
}

/// Changes what is kept of a torrent.
#[utoipa::path(patch, path = "/torrents/{hash}", tag = "torrents",
    params(("hash" = String, Path, description = "The info-hash")), request_body = EditTorrent,
    responses((status = 200, description = "The torrent as it is now", body = Torrent)))]
pub(super) async fn edit(
    State(api): State<Arc<Api>>,
    target: Target,
    Json(edit): Json<EditTorrent>,
) -> Answer {
    api.count(ControlCounter::ApiChange);
    let hash = target.info_hash;
    let edit = convert::edit(edit)?;
    api.torrent(&hash)?;
    api.ask(|reply| Command::Edit(hash, Box::new(edit), reply))
        .await?;
    ok(&api.torrent(&hash)?)
}

/// Removes a torrent.
#[utoipa::path(delete, path = "/torrents/{hash}", tag = "torrents",
    params(("hash" = String, Path, description = "The info-hash"), RemoveQuery),
    responses((status = 204, description = "It is gone")))]
pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    target: Target,
    Query(query): Query<RemoveQuery>,
) -> Answer {
    let with_data = query.with_data;
    act(&api, target.info_hash, Action::Remove { with_data }).await
}

/// Does something to a torrent.
async fn act(api: &Api, hash: InfoHashV1, action: Action) -> Answer {
    api.count(ControlCounter::ApiChange);
    api.torrent(&hash)?;
    api.ask(|reply| Command::Act(hash, action, reply)).await?;
    done()
}

/// Stops a torrent; also called stop.
#[utoipa::path(post, path = "/torrents/{hash}/pause", tag = "torrents",
    params(("hash" = String, Path, description = "The info-hash")),
    responses((status = 204, description = "It is paused")))]
pub(super) async fn pause(State(api): State<Arc<Api>>, target: Target, _: Nothing) -> Answer {
    act(&api, target.info_hash, Action::Pause).await
}

/// Lets a torrent go on; also called start.
#[utoipa::path(post, path = "/torrents/{hash}/resume", tag = "torrents",
    params(("hash" = String, Path, description = "The info-hash")),
    responses((status = 204, description = "It goes on")))]
pub(super) async fn resume(State(api): State<Arc<Api>>, target: Target, _: Nothing) -> Answer {
    act(&api, target.info_hash, Action::Resume).await
}

/// Hashes all data of a torrent.
#[utoipa::path(post, path = "/torrents/{hash}/recheck", tag = "torrents",
    params(("hash" = String, Path, description = "The info-hash")),
    responses((status = 204, description = "It has begun")))]
pub(super) async fn recheck(State(api): State<Arc<Api>>, target: Target, _: Nothing) -> Answer {
    act(&api, target.info_hash, Action::Recheck).await
}

/// Announces a torrent as soon as its trackers allow it.
#[utoipa::path(post, path = "/torrents/{hash}/announce", tag = "torrents",
    params(("hash" = String, Path, description = "The info-hash")),
    responses((status = 204, description = "It is going to be announced")))]
pub(super) async fn announce(State(api): State<Arc<Api>>, target: Target, _: Nothing) -> Answer {
    act(&api, target.info_hash, Action::Announce).await
}

/// Moves a torrent in the queue.
#[utoipa::path(post, path = "/torrents/{hash}/queue", tag = "torrents",
    params(("hash" = String, Path, description = "The info-hash")), request_body = QueuePlace,
    responses((status = 204, description = "It is there")))]
pub(super) async fn queue(
    State(api): State<Arc<Api>>,
    target: Target,
    Json(queue): Json<QueuePlace>,
) -> Answer {
    let place = convert::place(queue.place)?;
    act(&api, target.info_hash, Action::Queue(place)).await
}

/// Has a torrent's data elsewhere: they are moved, or are there already.
#[utoipa::path(post, path = "/torrents/{hash}/move", tag = "torrents",
    params(("hash" = String, Path, description = "The info-hash")), request_body = MoveTorrent,
    responses((status = 202, description = "It has begun"),
        (status = "default", description = "It was refused", body = Problem)))]
pub(super) async fn relocate(
    State(api): State<Arc<Api>>,
    target: Target,
    Json(movement): Json<MoveTorrent>,
) -> Answer {
    api.count(ControlCounter::ApiChange);
    let (hash, movement) = (target.info_hash, convert::movement(&movement)?);
    api.torrent(&hash)?;
    api.ask(|reply| Command::Move(hash, movement, reply))
        .await?;
    json(StatusCode::ACCEPTED, &api.torrent(&hash)?)
}
