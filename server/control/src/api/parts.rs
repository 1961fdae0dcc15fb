//! Parts of a torrent: its files, peers, trackers, pieces, and its .torrent file.

use super::auth::Proven;
use super::input::{Json, Query, Target};
use super::problem::{Kind, Refusal};
use super::torrents::secrets_allowed;
use super::types::{
    EditFiles, FileList, NewPeers, NewTrackers, PeerList, Pieces, RenameFile, RenamePath,
    SecretsQuery, TrackerList,
};
use super::{Answer, Api, answer, convert, done, ok};
use crate::command::{Command, Edit, Rename};
use axum::Extension;
use axum::extract::State;
use axum::http::header::{self, HeaderValue};
use axum::response::IntoResponse;
use seedring_metrics::ControlCounter;
use std::sync::Arc;

/// A torrent's files.
#[utoipa::path(get, path = "/torrents/{hash}/files", tag = "files",
    params(("hash" = String, Path, description = "The info-hash")),
    responses((status = 200, description = "The files", body = FileList)))]
pub(super) async fn files(State(api): State<Arc<Api>>, target: Target) -> Answer {
    api.count(ControlCounter::ApiTorrent);
    let hash = target.info_hash;
    api.torrent(&hash)?;
    let files = api.ask(|reply| Command::Files(hash, reply)).await?;
    ok(&answer::files(files))
}

/// Says how much files are wanted.
#[utoipa::path(patch, path = "/torrents/{hash}/files", tag = "files",
    params(("hash" = String, Path, description = "The info-hash")), request_body = EditFiles,
    responses((status = 204, description = "They are wanted so")))]
pub(super) async fn edit_files(
    State(api): State<Arc<Api>>,
    target: Target,
    Json(edit): Json<EditFiles>,
) -> Answer {
    api.count(ControlCounter::ApiChange);
    let edit = Edit {
        priorities: convert::priorities(&edit.files)?,
        ..Edit::default()
    };
    change(&api, target, edit).await
}

async fn change(api: &Api, target: Target, edit: Edit) -> Answer {
    let hash = target.info_hash;
    api.torrent(&hash)?;
    api.ask(|reply| Command::Edit(hash, Box::new(edit), reply))
        .await?;
    done()
}

/// Calls a file otherwise.
#[utoipa::path(post, path = "/torrents/{hash}/files/{index}/rename", tag = "files",
    params(("hash" = String, Path, description = "The info-hash"),
        ("index" = u32, Path, description = "The file's number, from 0")),
    request_body = RenameFile,
    responses((status = 204, description = "It is called so")))]
pub(super) async fn rename_file(
    State(api): State<Arc<Api>>,
    target: Target,
    Json(rename): Json<RenameFile>,
) -> Answer {
    api.count(ControlCounter::ApiChange);
    let to = convert::relative("path", &rename.path)?;
    let index = target.index;
    call_otherwise(&api, target, Rename::File { index, to }).await
}

/// Calls a file, or a folder with all that is in it, otherwise.
#[utoipa::path(post, path = "/torrents/{hash}/rename", tag = "files",
    params(("hash" = String, Path, description = "The info-hash")), request_body = RenamePath,
    responses((status = 204, description = "It is called so")))]
pub(super) async fn rename_path(
    State(api): State<Arc<Api>>,
    target: Target,
    Json(rename): Json<RenamePath>,
) -> Answer {
    api.count(ControlCounter::ApiChange);
    let from = convert::relative("from", &rename.from)?;
    let to = convert::relative("to", &rename.to)?;
    call_otherwise(&api, target, Rename::Path { from, to }).await
}

async fn call_otherwise(api: &Api, target: Target, rename: Rename) -> Answer {
    let hash = target.info_hash;
    api.torrent(&hash)?;
    api.ask(|reply| Command::Rename(hash, rename, reply))
        .await?;
    done()
}

/// A torrent's connected peers.
#[utoipa::path(get, path = "/torrents/{hash}/peers", tag = "peers",
    params(("hash" = String, Path, description = "The info-hash")),
    responses((status = 200, description = "The peers", body = PeerList)))]
pub(super) async fn peers(State(api): State<Arc<Api>>, target: Target) -> Answer {
    api.count(ControlCounter::ApiTorrent);
    let hash = target.info_hash;
    api.torrent(&hash)?;
    let peers = api.ask(|reply| Command::Peers(hash, reply)).await?;
    ok(&answer::peers(peers))
}

/// Asks peers for a torrent.
#[utoipa::path(post, path = "/torrents/{hash}/peers", tag = "peers",
    params(("hash" = String, Path, description = "The info-hash")), request_body = NewPeers,
    responses((status = 204, description = "They are going to be asked")))]
pub(super) async fn add_peers(
    State(api): State<Arc<Api>>,
    target: Target,
    Json(new): Json<NewPeers>,
) -> Answer {
    api.count(ControlCounter::ApiChange);
    let (hash, peers) = (target.info_hash, convert::peers(&new.peers)?);
    api.torrent(&hash)?;
    api.ask(|reply| Command::AddPeers(hash, peers, reply))
        .await?;
    done()
}

/// A torrent's trackers, and how they do.
#[utoipa::path(get, path = "/torrents/{hash}/trackers", tag = "trackers",
    params(("hash" = String, Path, description = "The info-hash"), SecretsQuery),
    responses((status = 200, description = "The trackers", body = TrackerList)))]
pub(super) async fn trackers(
    State(api): State<Arc<Api>>,
    target: Target,
    Query(query): Query<SecretsQuery>,
    Extension(proven): Extension<Proven>,
) -> Answer {
    api.count(ControlCounter::ApiTorrent);
    secrets_allowed(query.secrets, proven)?;
    let hash = target.info_hash;
    api.torrent(&hash)?;
    let described = api.ask(|reply| Command::Describe(hash, reply)).await?;
    let statuses = api.ask(|reply| Command::Trackers(hash, reply)).await?;
    ok(&answer::trackers(*described, statuses, query.secrets))
}

/// Gives a torrent other trackers.
#[utoipa::path(put, path = "/torrents/{hash}/trackers", tag = "trackers",
    params(("hash" = String, Path, description = "The info-hash")), request_body = NewTrackers,
    responses((status = 204, description = "They are its trackers now")))]
pub(super) async fn set_trackers(
    State(api): State<Arc<Api>>,
    target: Target,
    Json(new): Json<NewTrackers>,
) -> Answer {
    api.count(ControlCounter::ApiChange);
    let edit = Edit {
        trackers: Some(convert::trackers("tiers", new.tiers)?),
        ..Edit::default()
    };
    change(&api, target, edit).await
}

/// A torrent's pieces.
#[utoipa::path(get, path = "/torrents/{hash}/pieces", tag = "files",
    params(("hash" = String, Path, description = "The info-hash")),
    responses((status = 200, description = "The pieces", body = Pieces)))]
pub(super) async fn pieces(State(api): State<Arc<Api>>, target: Target) -> Answer {
    api.count(ControlCounter::ApiTorrent);
    let hash = target.info_hash;
    api.torrent(&hash)?;
    let pieces = api.ask(|reply| Command::Pieces(hash, reply)).await?;
    ok(&answer::pieces(&pieces))
}

/// A torrent's .torrent file. One that may hold a passkey is for those who show who they are.
#[utoipa::path(get, path = "/torrents/{hash}/metainfo", tag = "files",
    params(("hash" = String, Path, description = "The info-hash")),
    responses((status = 200, description = "The file", content_type = "application/x-bittorrent",
        body = Vec<u8>)))]
pub(super) async fn metainfo(
    State(api): State<Arc<Api>>,
    target: Target,
    Extension(proven): Extension<Proven>,
) -> Answer {
    api.count(ControlCounter::ApiTorrent);
    let hash = target.info_hash;
    let torrent = api.torrent(&hash)?;
    if !proven.0 {
        let described = api.ask(|reply| Command::Describe(hash, reply)).await?;
        let urls = described.trackers.iter().flatten();
        let mut urls = urls.chain(&described.web_seeds);
        if torrent.private || !urls.all(|url| answer::is_open(url)) {
            let detail = "this file may hold a passkey, and passkeys are told only to those who \
                          show who they are, by the token";
            return Err(Refusal::new(Kind::Forbidden, detail));
        }
    }
    let bytes = api.ask(|reply| Command::Metainfo(hash, reply)).await?;
    let kind = HeaderValue::from_static("application/x-bittorrent");
    let name = HeaderValue::from_str(&format!("attachment; filename=\"{hash}.torrent\""));
    let mut response = ([(header::CONTENT_TYPE, kind)], bytes).into_response();
    if let Ok(name) = name {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(response)
}
