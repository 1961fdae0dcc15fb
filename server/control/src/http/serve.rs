//! Accepts connections and serves each with its limits.

use axum::Router;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use seedring_metrics::{ControlCells, ControlCounter};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// How long a connection may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    /// For its first request: a client that connects and says nothing, or says it slowly.
    pub(super) first_request: Duration,
    /// Between two requests, and for the head of the next; more than the usual intervals of
    /// Prometheus (15, 30 and 60 s), so that it keeps its connection.
    pub(super) idle: Duration,
    /// In all: then it ends with its current answer, so that nobody keeps a place for ever.
    pub(super) lifetime: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            first_request: Duration::from_secs(10),
            idle: Duration::from_secs(65),
            lifetime: Duration::from_secs(600),
        }
    }
}

/// The largest head of a request, and the most that is buffered of a connection.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Header lines of a request.
const HEADERS_MAX: usize = 64;

/// How long an ending connection may take for its last answer.
const LAST_ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Wait after an accept that failed, most likely because descriptors ran out.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

/// Accepts until `stop` is done, then waits for the connections to end.
pub(super) async fn run(
    socket: TcpListener,
    (connections_max, timeouts): (usize, Timeouts),
    router: Router,
    cells: &ControlCells,
    stop: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(connections_max));
    // Every connection holds a receiver: the sender can tell when the last one has ended.
    let (stopping, stopped) = watch::channel(false);
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = socket.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the HTTP port could not accept a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            cells.increment(ControlCounter::HttpRefusedConnections);
            continue;
        };
        let (router, stopped) = (router.clone(), stopped.clone());
        tokio::spawn(async move {
            connection(stream, router, timeouts, stopped).await;
            drop(place);
        });
    }
    drop(socket);
    drop(stopped);
    // No receiver is left only if no connection is.
    let _ = stopping.send(true);
    stopping.closed().await;
}

async fn connection(
    stream: TcpStream,
    router: Router,
    timeouts: Timeouts,
    mut stopped: watch::Receiver<bool>,
) {
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(timeouts.idle)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .half_close(false);
    let asked = AtomicBool::new(false);
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request| {
        asked.store(true, Relaxed);
        router.call(request)
    });
    let silent = async {
        tokio::time::sleep(timeouts.first_request).await;
        if asked.load(Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // An error is the client's: it left, was slow, or spoke no HTTP.
        _ = connection.as_mut() => return,
        () = silent => return,
        _ = stopped.wait_for(|stopped| *stopped) => {}
        () = tokio::time::sleep(timeouts.lifetime) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(LAST_ANSWER_TIMEOUT, connection).await;
}
