//! Accepts connections and serves each with its limits.

use super::Client;
use super::doors::{Door, Stream};
use axum::Router;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use seedring_metrics::{ControlCells, ControlCounter};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
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

/// How long a connection at the end of its lifetime may take for its last answer.
const OVERTIME: Duration = Duration::from_secs(90);

/// How long a connection may take for its last answer when the server stops.
const LAST_ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Wait after an accept that failed, most likely because descriptors ran out.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

/// Accepts until `stop` is done, then waits for the connections to end.
pub(super) async fn run(
    doors: Vec<Door>,
    (connections_max, timeouts): (usize, Timeouts),
    router: Router,
    cells: &ControlCells,
    stop: impl Future<Output = ()>,
) {
    // Every connection holds a receiver: the sender can tell when the last one has ended.
    let (stopping, stopped) = watch::channel(false);
    let accepting = doors.iter().map(|door| {
        let shared = Shared {
            router: router.clone(),
            timeouts,
            stopped: stopped.clone(),
            places: Arc::new(Semaphore::new(door.connections_max(connections_max))),
        };
        accept(door, shared, cells)
    });
    let accepting = futures_util::future::join_all(accepting);
    tokio::select! {
        () = stop => {}
        // Without doors there is nothing to do, and nothing to wait for but the end.
        _ = async { accepting.await; std::future::pending::<()>().await } => {}
    }
    drop(doors);
    drop(stopped);
    // No receiver is left only if no connection is.
    let _ = stopping.send(true);
    stopping.closed().await;
}

/// What the connections of a door share.
struct Shared {
    router: Router,
    timeouts: Timeouts,
    stopped: watch::Receiver<bool>,
    /// Of this door alone, so that a port that is full keeps nobody from the socket.
    places: Arc<Semaphore>,
}

/// Lets clients in by one door, for ever.
async fn accept(door: &Door, shared: Shared, cells: &ControlCells) {
    loop {
        let (stream, client) = match door.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "the HTTP port could not accept a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&shared.places).try_acquire_owned() else {
            cells.increment(ControlCounter::HttpRefusedConnections);
            continue;
        };
        let (router, stopped) = (shared.router.clone(), shared.stopped.clone());
        let timeouts = shared.timeouts;
        tokio::spawn(async move {
            let serving = Serving {
                router,
                client,
                timeouts,
                stopped,
            };
            match stream {
                Stream::Tcp(stream) => serving.connection(stream).await,
                Stream::Unix(stream) => serving.connection(stream).await,
                Stream::Tls(stream, tls) => {
                    // Who fails here, or is slow, spoke no TLS; a stop need not wait for it.
                    let mut stopped = serving.stopped.clone();
                    let handshake = tls.0.accept(stream);
                    let handshake = tokio::time::timeout(timeouts.first_request, handshake);
                    let stream = tokio::select! {
                        stream = handshake => stream.ok().and_then(Result::ok),
                        _ = stopped.wait_for(|stopped| *stopped) => None,
                    };
                    if let Some(stream) = stream {
                        serving.connection(stream).await;
                    }
                }
            }
            drop(place);
        });
    }
}

/// What one connection is served with.
struct Serving {
    router: Router,
    client: Client,
    timeouts: Timeouts,
    stopped: watch::Receiver<bool>,
}

impl Serving {
    async fn connection(self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let Serving {
            router,
            client,
            timeouts,
            mut stopped,
        } = self;
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(timeouts.idle)
            .max_buf_size(HEAD_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .half_close(false);
        let asked = AtomicBool::new(false);
        let router = TowerToHyperService::new(router);
        let service = service_fn(|mut request: hyper::Request<Incoming>| {
            asked.store(true, Relaxed);
            request.extensions_mut().insert(client);
            router.call(request)
        });
        let silent = async {
            tokio::time::sleep(timeouts.first_request).await;
            if asked.load(Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let is_stopping = tokio::select! {
            // An error is the client's: it left, was slow, or spoke no HTTP.
            _ = connection.as_mut() => return,
            () = silent => return,
            _ = stopped.wait_for(|stopped| *stopped) => true,
            () = tokio::time::sleep(timeouts.lifetime) => false,
        };
        connection.as_mut().graceful_shutdown();
        if !is_stopping {
            tokio::select! {
                _ = connection.as_mut() => return,
                _ = stopped.wait_for(|stopped| *stopped) => {}
                () = tokio::time::sleep(OVERTIME) => return,
            }
        }
        let _ = tokio::time::timeout(LAST_ANSWER_TIMEOUT, connection).await;
    }
}
