//! The HTTP port for monitoring: `/metrics`, `/healthz`, `/readyz`.
//!
//! It runs on the control plane and asks no shard anything, so that it answers while disks hang.
//! Only GET and HEAD are answered, and only under names that are ours (see [`host`]).
//!
//! Limits: `api.connections_max` connections, of which more are closed at once; 16 KiB of request
//! head, the first within 10 s; a connection ends after 10 minutes. A request's body is never read.
//!
//! Does not: speak TLS or HTTP/2, or ask for a password; what it shows names no torrent, peer or
//! tracker.

pub mod host;
mod readiness;
mod serve;

#[cfg(test)]
mod tests;

use crate::config::Api;
use crate::exporter::{self, Exporter};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use host::Hosts;
use seedring_metrics::{ControlCells, ControlCounter, ControlHistogram};
use serve::Timeouts;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

pub use readiness::{Readiness, Status};

/// Why the port could not be opened.
#[derive(Debug, thiserror::Error)]
#[error(
    "api.listen: cannot listen on {address}: {cause}; is another program using that port? Choose another with --api or api.listen"
)]
pub struct ListenError {
    /// The address asked for.
    pub address: SocketAddr,
    /// What the system said.
    pub cause: std::io::Error,
}

/// What the handlers use.
#[derive(Debug, Clone)]
pub struct Service {
    /// The text of `/metrics`.
    pub exporter: Arc<Exporter>,
    /// Whether `/readyz` says yes.
    pub status: Arc<dyn Status>,
    /// Where requests are counted.
    pub cells: Arc<ControlCells>,
}

/// The open port, not serving yet.
#[derive(Debug)]
pub struct Listener {
    socket: tokio::net::TcpListener,
    /// The address, with the port that the system chose if the configuration said 0.
    pub address: SocketAddr,
    hosts: Arc<Hosts>,
    connections_max: usize,
    timeouts: Timeouts,
}

/// Opens the port, or nothing where the configuration turns it off.
///
/// # Errors
///
/// When the address cannot be bound.
pub async fn listen(api: &Api) -> Result<Option<Listener>, ListenError> {
    let Some(address) = api.listen else {
        return Ok(None);
    };
    let fail = |cause| ListenError { address, cause };
    let socket = tokio::net::TcpListener::bind(address).await.map_err(fail)?;
    Ok(Some(Listener {
        address: socket.local_addr().map_err(fail)?,
        socket,
        hosts: Arc::new(Hosts::new(&api.allowed_hosts)),
        connections_max: api.connections_max as usize,
        timeouts: Timeouts::default(),
    }))
}

/// Serves until `stop` is done, then closes every connection within a second.
pub async fn serve(listener: Listener, service: Service, stop: impl Future<Output = ()>) {
    let cells = Arc::clone(&service.cells);
    let router = router(Arc::clone(&listener.hosts), service);
    let limits = (listener.connections_max, listener.timeouts);
    serve::run(listener.socket, limits, router, &cells, stop).await;
}

fn router(hosts: Arc<Hosts>, service: Service) -> Router {
    let guard = Guard {
        hosts,
        cells: Arc::clone(&service.cells),
    };
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(service)
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

async fn not_found() -> Response {
    text(
        StatusCode::NOT_FOUND,
        "not found; here are /metrics, /healthz and /readyz\n".to_owned(),
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
    hosts: Arc<Hosts>,
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
    response.headers_mut().extend(SECURITY_HEADERS);
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
    if !guard.hosts.allow(request) {
        guard.cells.increment(ControlCounter::HttpRefusedHost);
        let message = "this name is not allowed; add it to api.allowed_hosts if it is ours\n";
        return Some(text(StatusCode::FORBIDDEN, message.to_owned()));
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
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
