//! The HTTP API of a server that keeps torrents: `docs/API.md` lists what can be asked,
//! [`types`] are the JSON of it, `docs/adr/0018-api.md` says why it is as it is.
//!
//! A request goes through the checks of [`crate::http`] (its Host), then through [`check`] here
//! (the page it comes from, who asks), is read by `input`, made a command by `convert`, answered by
//! the server (`crate::command`) or from its catalog, and said by `answer`. Nothing here touches a
//! disk but the start, and nothing waits for the data plane but what asks it.
//!
//! Limits: [`ANSWER_WAIT_MAX`] for the server's answer, [`feed::LISTENERS_MAX`] who listen to
//! events, and those of `input`, `auth` and `convert`. A lock of the catalog is held while a page
//! or what is new is copied from it, never while something is waited for.
//!
//! Does not: keep anything, or decide anything about a torrent.

mod answer;
mod auth;
mod bulk;
mod convert;
mod decode;
mod document;
mod feed;
mod input;
mod log;
mod parts;
mod problem;
mod status;
mod torrents;
pub mod types;

#[cfg(test)]
mod tests;

use crate::command::{Command, CommandError, Reply, Server};
use crate::config::Api as Settings;
use crate::exporter::BuildInfo;
use crate::http::Client;
use crate::logging::KeptLines;
use auth::Gate;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{self, HeaderValue};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use problem::{Kind, Refusal};
use seedring_metrics::{ControlCells, ControlCounter};
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU16;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

pub use auth::{Access, TOKEN_FILE, TokenError, hash_password};

/// What all paths of the API begin with.
pub const PREFIX: &str = "/api/v1";

/// How long a request waits for the server's answer.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(60);

/// What the server says of itself.
#[derive(Debug)]
pub struct Facts {
    /// Its version.
    pub version: String,
    /// The commit that it was built from.
    pub commit: String,
    /// When it was started.
    pub started: Instant,
    /// The port at which peers reach it; 0 until it is open.
    pub peer_port: AtomicU16,
    /// The last lines of its log.
    pub log: Arc<KeptLines>,
}

impl Facts {
    /// What is known when the server starts.
    pub fn new(build: &BuildInfo, log: Arc<KeptLines>) -> Facts {
        Facts {
            version: build.version.clone(),
            commit: build.commit.clone(),
            started: Instant::now(),
            peer_port: AtomicU16::new(0),
            log,
        }
    }
}

/// The API of one server.
pub struct Api {
    server: Server,
    gate: Gate,
    facts: Arc<Facts>,
    body_max: usize,
    /// Places for those who listen to events.
    listeners: Arc<Semaphore>,
    /// Places for what is done to many torrents at once.
    bulks: Arc<Semaphore>,
    /// Places for bodies in memory.
    bodies: Arc<Semaphore>,
    /// Places for long ones.
    large: Arc<Semaphore>,
    cells: Arc<ControlCells>,
}

/// Memory that bodies of requests and the verification of passwords may take, in bytes: what adds a
/// torrent comes as text, is decoded, and is kept by whoever adds it until it has.
pub fn bodies_bytes_max(settings: &Settings) -> u64 {
    let usual = input::BODIES_MAX as u64 * input::BODY_BYTES_MAX as u64;
    let large = input::LARGE_MAX as u64 * settings.body_max.bytes();
    3 * (usual + large) + auth::verifying_bytes_max(&settings.users)
}

type Answer = Result<Response, Box<Refusal>>;

impl Api {
    /// The API of `server`, for whoever knows the token of `state_dir`, which is made if there is
    /// none.
    ///
    /// # Errors
    ///
    /// The token cannot be read or made, or others can read it.
    pub fn open(
        settings: &Settings,
        state_dir: &Path,
        server: Server,
        facts: Arc<Facts>,
        cells: Arc<ControlCells>,
    ) -> Result<Arc<Api>, TokenError> {
        Ok(Arc::new(Api {
            server,
            gate: Gate::new(Access::read(settings, state_dir)?, Arc::clone(&cells)),
            facts,
            body_max: usize::try_from(settings.body_max.bytes()).unwrap_or(usize::MAX),
            listeners: Arc::new(Semaphore::new(feed::LISTENERS_MAX)),
            bulks: Arc::new(Semaphore::new(bulk::UNDER_WAY_MAX)),
            bodies: Arc::new(Semaphore::new(input::BODIES_MAX)),
            large: Arc::new(Semaphore::new(input::LARGE_MAX)),
            cells,
        }))
    }

    /// Lets in whom `access` says, and nobody else, from the next request on.
    pub fn renew(&self, access: Access) {
        self.gate.renew(access);
    }

    fn count(&self, counter: ControlCounter) {
        self.cells.increment(counter);
    }

    /// Asks the server, and gives up after [`ANSWER_WAIT_MAX`].
    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Box<Refusal>> {
        let asked = tokio::time::timeout(ANSWER_WAIT_MAX, self.server.ask(command)).await;
        let answer = asked.map_err(|_| {
            let detail = format!(
                "the server has not answered itself in {} s; it may still do what was asked",
                ANSWER_WAIT_MAX.as_secs()
            );
            Refusal::new(Kind::NoAnswer, detail)
        })?;
        Ok(answer?)
    }

    /// A torrent as lists have it.
    fn torrent(&self, hash: &proto::ids::InfoHashV1) -> Result<types::Torrent, Box<Refusal>> {
        let catalog = self.server.catalog();
        let found = catalog.get(hash).map(answer::torrent);
        found.ok_or_else(|| CommandError::Unknown(*hash).into())
    }
}

/// An answer in JSON.
fn json<T: Serialize>(status: StatusCode, value: &T) -> Answer {
    let body = serde_json::to_vec(value).map_err(|error| {
        let detail = format!("the answer cannot be written, which is a bug: {error}");
        Refusal::new(Kind::Failed, detail)
    })?;
    let kind = HeaderValue::from_static("application/json");
    Ok((status, [(header::CONTENT_TYPE, kind)], body).into_response())
}

fn ok<T: Serialize>(value: &T) -> Answer {
    json(StatusCode::OK, value)
}

/// The answer of what has been done and has nothing to tell.
fn done() -> Answer {
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// All paths of the API, or what answers in their place where a command keeps no torrents.
pub(crate) fn router(api: Option<Arc<Api>>) -> Router {
    let Some(api) = api else {
        return Router::new().nest(PREFIX, Router::new().fallback(no_torrents));
    };
    let closed = Router::new()
        .route("/torrents", get(torrents::list).post(torrents::add))
        .route("/torrents/actions", post(bulk::act))
        .route(
            "/torrents/{hash}",
            get(torrents::one)
                .patch(torrents::edit)
                .delete(torrents::remove),
        )
        .route("/torrents/{hash}/pause", post(torrents::pause))
        .route("/torrents/{hash}/stop", post(torrents::pause))
        .route("/torrents/{hash}/resume", post(torrents::resume))
        .route("/torrents/{hash}/start", post(torrents::resume))
        .route("/torrents/{hash}/recheck", post(torrents::recheck))
        .route("/torrents/{hash}/announce", post(torrents::announce))
        .route("/torrents/{hash}/move", post(torrents::relocate))
        .route("/torrents/{hash}/queue", post(torrents::queue))
        .route(
            "/torrents/{hash}/files",
            get(parts::files).patch(parts::edit_files),
        )
        .route(
            "/torrents/{hash}/files/{index}/rename",
            post(parts::rename_file),
        )
        .route("/torrents/{hash}/rename", post(parts::rename_path))
        .route(
            "/torrents/{hash}/peers",
            get(parts::peers).post(parts::add_peers),
        )
        .route(
            "/torrents/{hash}/trackers",
            get(parts::trackers).put(parts::set_trackers),
        )
        .route("/torrents/{hash}/pieces", get(parts::pieces))
        .route("/torrents/{hash}/metainfo", get(parts::metainfo))
        .route("/changes", get(feed::changes))
        .route("/events", get(feed::events))
        .route("/server", get(status::server))
        .route("/log", get(log::log))
        .route("/limits", get(status::limits).patch(status::set_limits))
        .route("/labels", get(status::labels))
        .route("/categories", get(status::categories))
        .fallback(not_found)
        .method_not_allowed_fallback(other_method)
        // The bounds of bodies are those of `input`, of forms too.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(Arc::clone(&api), check))
        .with_state(api);
    Router::new().nest(PREFIX, document::router().merge(closed))
}

/// What is asked for under a name that is not ours.
pub(crate) fn refused_host(detail: &str) -> Response {
    Refusal::new(Kind::Forbidden, detail)
        .of("host")
        .into_response()
}

async fn no_torrents() -> Response {
    Refusal::new(Kind::Unavailable, "this command keeps no torrents").into_response()
}

/// What is asked for and is not there.
pub(crate) async fn not_found() -> Response {
    let detail = format!("there is no such path; {PREFIX}/docs shows those that there are");
    Refusal::new(Kind::NotFound, detail).into_response()
}

async fn other_method(method: Method) -> Response {
    let detail = format!("nothing here is asked for by {method}; see the Allow header");
    Refusal::new(Kind::Method, detail).into_response()
}

/// Refuses what another web page's scripts or forms send, and who has not shown who asks.
async fn check(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    // A connection always has it; without one nobody is trusted.
    let client = request.extensions().get::<Client>().copied();
    let Some(client) = client else {
        return Refusal::new(Kind::Forbidden, "the client is not known").into_response();
    };
    let is_reading = matches!(*request.method(), Method::GET | Method::HEAD);
    if !is_reading && !is_own_page(request.headers()) {
        api.count(ControlCounter::ApiRefusedOrigin);
        let detail = "a web page of another origin may change nothing here";
        return Refusal::new(Kind::Forbidden, detail).into_response();
    }
    match api.gate.check(client, request.headers()).await {
        Ok(proven) => {
            request.extensions_mut().insert(proven);
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    }
}

/// Whether a request comes from no web page, or from one that we have served: browsers say which by
/// Origin, and newer ones by Sec-Fetch-Site.
fn is_own_page(headers: &HeaderMap) -> bool {
    let text = |name: &str| {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => value.to_str().map(Some).map_err(|_| ()),
            (Some(_), Some(_)) => Err(()),
        }
    };
    let (Ok(origin), Ok(site), Ok(host)) = (text("origin"), text("sec-fetch-site"), text("host"))
    else {
        return false;
    };
    let is_same_site = site.is_none_or(|site| site == "same-origin" || site == "none");
    let is_same_origin = origin.is_none_or(|origin| {
        let (Some((scheme, origin)), Some(host)) = (origin.split_once("://"), host) else {
            return false;
        };
        let port = match scheme {
            "http" => ":80",
            "https" => ":443",
            _ => return false,
        };
        // A proxy in front of us may speak another scheme than we; the port that is left out is
        // that of the page's.
        let whole = |host: &str| {
            let host = host.to_ascii_lowercase();
            host.strip_suffix(port).map(str::to_owned).unwrap_or(host)
        };
        whole(origin) == whole(host)
    });
    is_same_site && is_same_origin
}
