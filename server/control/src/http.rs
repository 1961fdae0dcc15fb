//! The HTTP port: the API of a server that keeps torrents ([`crate::api`]), and for monitoring
//! `/metrics`, `/healthz`, `/readyz`; the same at a Unix socket.
//!
//! It runs on the control plane and asks no shard anything, so that it answers while disks hang.
//! Requests are answered only under names that are ours (see [`host`]). What is for monitoring takes
//! GET and HEAD alone, reads no body, asks for no password, and names no torrent, peer or tracker.
//!
//! Limits: `api.connections_max` connections of the port, [`SOCKET_CONNECTIONS_MAX`] of the socket,
//! of which more are closed at once; 16 KiB of request head, the first within 10 s, with the handshake of TLS; a
//! connection ends after 10 minutes.
//!
//! Does not: speak HTTP/2.

mod changing;
mod doors;
pub mod host;
mod readiness;
mod serve;

#[cfg(test)]
mod tests;

use crate::api;
use crate::config::{Api, ApiAuth};
use crate::exporter::{self, Exporter};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use doors::Door;
use seedring_metrics::{ControlCells, ControlCounter, ControlHistogram};
use serve::Timeouts;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

pub use changing::{Changeable, Renewal};
pub use doors::{SOCKET_CONNECTIONS_MAX, SOCKET_FILE};
pub use readiness::{Readiness, Status};

/// Why a place where clients come in could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The port.
    #[error(
        "api.listen: cannot listen on {address}: {cause}; is another program using that port? Choose another with --api or api.listen"
    )]
    Port {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The Unix socket.
    #[error("api.socket: cannot listen on {path}: {cause}")]
    Socket {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The group of the Unix socket.
    #[error("api.socket_group: \"{name}\" is not known: {cause}")]
    Group {
        /// Its name.
        name: String,
        /// Why.
        cause: String,
    },
    /// The certificates or the key.
    #[error("api.tls_cert, api.tls_key: {path}: {cause}")]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
}

/// From where a request comes. Part of every request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Client {
    /// From this address, which may be that of a proxy.
    Address(IpAddr),
    /// By the Unix socket.
    Socket,
}

impl std::fmt::Display for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Client::Address(address) => address.fmt(f),
            Client::Socket => f.write_str("the Unix socket"),
        }
    }
}

/// What the handlers use.
#[derive(Clone)]
pub struct Service {
    /// The text of `/metrics`.
    pub exporter: Arc<Exporter>,
    /// Whether `/readyz` says yes.
    pub status: Arc<dyn Status>,
    /// Where requests are counted.
    pub cells: Arc<ControlCells>,
    /// What can be asked of the torrents; none where a command keeps none.
    pub api: Option<Arc<api::Api>>,
}

/// Open places, not serving yet.
#[derive(Debug)]
pub struct Listener {
    doors: Vec<Door>,
    /// The port's address, with the number that the system chose if the configuration said 0; none
    /// if there is no port.
    pub address: Option<SocketAddr>,
    changeable: Arc<Changeable>,
    connections_max: usize,
    timeouts: Timeouts,
}

impl Listener {
    /// The way to change what can be changed while it serves.
    pub fn changeable(&self) -> Arc<Changeable> {
        Arc::clone(&self.changeable)
    }
}

/// Opens the port, unless the configuration turns it off; and the Unix socket, for a server that
/// keeps torrents and has this state folder.
///
/// # Errors
///
/// When one of them cannot be opened.
pub async fn listen(api: &Api, state_dir: Option<&Path>) -> Result<Listener, ListenError> {
    let (mut doors, mut bound) = (Vec::new(), None);
    let changeable = Arc::new(Changeable::new(Renewal::read(api)?));
    if let Some(address) = api.listen {
        let (door, address) = doors::port(address, &changeable).await?;
        doors.push(door);
        bound = Some(address);
        if state_dir.is_some() {
            warn_of_open_port(address, api);
        }
    }
    if let Some(state_dir) = state_dir {
        doors.extend(doors::socket(api, state_dir)?);
    }
    Ok(Listener {
        doors,
        address: bound,
        changeable,
        connections_max: api.connections_max as usize,
        timeouts: Timeouts::default(),
    })
}

/// Says what others can read or do.
pub fn warn_of_open_port(address: SocketAddr, api: &Api) {
    if address.ip().is_loopback() {
        return;
    }
    if api.auth == ApiAuth::Off {
        tracing::warn!(
            "api.listen: whoever reaches {address} can remove torrents and files, because api.auth is \"off\""
        );
    } else if api.tls_cert.is_none() {
        tracing::warn!(
            "api.listen: {address} speaks no TLS, so who is on the way can read the API's token; set api.tls_cert \
             and api.tls_key, or put a proxy in front of it"
        );
    }
}

/// Serves until `stop` is done, then closes every connection within a second.
pub async fn serve(listener: Listener, service: Service, stop: impl Future<Output = ()>) {
    let cells = Arc::clone(&service.cells);
    let router = router(Arc::clone(&listener.changeable), service);
    let limits = (listener.connections_max, listener.timeouts);
    serve::run(listener.doors, limits, router, &cells, stop).await;
}

fn router(changeable: Arc<Changeable>, service: Service) -> Router {
    let guard = Guard {
        changeable,
        cells: Arc::clone(&service.cells),
    };
    let api = api::router(service.api.clone());
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(service)
        .merge(api)
        .fallback(not_found)
        .layer(middleware::from_fn_with_state(guard, check))
}

async fn metrics(State(service): State<Service>) -> Response {
    (
        [(header::CONTENT_TYPE, exporter::CONTENT_TYPE)],
        service.exporter.render(),
    )
        .into_response()
}

/// The process is alive: it can answer. Nothing else is asked, so that a supervisor does not kill
/// a server whose disks are slow.
async fn healthz() -> Response {
    text(StatusCode::OK, "ok\n".to_owned())
}

async fn readyz(State(service): State<Service>) -> Response {
    let reasons = service.status.not_ready();
    if reasons.is_empty() {
        return text(StatusCode::OK, "ready\n".to_owned());
    }
    text(
        StatusCode::SERVICE_UNAVAILABLE,
        format!("not ready: {}\n", reasons.join("; ")),
    )
}

async fn not_found(request: Request) -> Response {
    if request.uri().path().starts_with(api::PREFIX) {
        return api::not_found().await;
    }
    text(
        StatusCode::NOT_FOUND,
        "not found; here are /metrics, /healthz, /readyz, and the API below /api/v1\n".to_owned(),
    )
}

fn text(status: StatusCode, body: String) -> Response {
    (
        status,
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
        body,
    )
        .into_response()
}

/// What every request is checked against.
#[derive(Clone)]
struct Guard {
    changeable: Arc<Changeable>,
    cells: Arc<ControlCells>,
}

/// Headers of every answer: nothing here is a page, may be framed, or is worth keeping.
const SECURITY_HEADERS: [(HeaderName, HeaderValue); 6] = [
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    ),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    ),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

/// Refuses foreign hosts and methods, counts, and adds the security headers.
async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let mut response = match refusal(&guard, &request) {
        Some(response) => response,
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    for (name, value) in SECURITY_HEADERS {
        // A page says itself what it may load.
        headers.entry(name).or_insert(value);
    }
    guard
        .cells
        .record(ControlHistogram::HttpRequestDuration, start.elapsed());
    guard.cells.increment(match response.status().as_u16() {
        ..300 => ControlCounter::HttpOk,
        300..400 => ControlCounter::HttpRedirect,
        400..500 => ControlCounter::HttpClientError,
        500.. => ControlCounter::HttpServerError,
    });
    response
}

fn refusal(guard: &Guard, request: &Request) -> Option<Response> {
    // No web page gets to the socket by a name of its own.
    let is_by_socket = request.extensions().get() == Some(&Client::Socket);
    let is_api = request.uri().path().starts_with(api::PREFIX);
    if !is_by_socket && !guard.changeable.hosts().allow(request) {
        guard.cells.increment(ControlCounter::HttpRefusedHost);
        let message = "this name is not allowed; add it to api.allowed_hosts if it is ours";
        return Some(match is_api {
            true => api::refused_host(message),
            false => text(StatusCode::FORBIDDEN, format!("{message}\n")),
        });
    }
    if !is_api && !matches!(*request.method(), Method::GET | Method::HEAD) {
        guard.cells.increment(ControlCounter::HttpRefusedMethod);
        let mut response = text(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET and HEAD are answered\n".to_owned(),
        );
        let headers = response.headers_mut();
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        // Its body, if it has one, is not read: the connection ends here.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        return Some(response);
    }
    None
}
