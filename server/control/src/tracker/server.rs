//! The tracker's connections: accepting, bounding and closing them; what is asked is `answer`'s.
//!
//! Limits: those of `TrackerConfig` and [`HEAD_BYTES_MAX`]; a connection over a limit is closed
//! as it comes. Does not: read request bodies, or know what a torrent is.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use seedring_metrics::{ControlCounter, ControlGauge, ControlHistogram};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Inner;
use super::answer::{self, Asker};

/// A request's head: long enough for a scrape of 200 torrents with every byte escaped.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Header lines of a request.
const HEADERS_MAX: usize = 64;
/// How long a connection that is to end may take to.
const GRACE: Duration = Duration::from_secs(2);
/// How often peers expire and the gauges are brought up to date.
const TICK: Duration = Duration::from_secs(5);
/// How long accepting rests when the system has no descriptor or memory left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown` is ready.
pub(super) async fn run(
    inner: Arc<Inner>,
    listeners: Vec<TcpListener>,
    shutdown: impl Future<Output = ()>,
) {
    let (stop, stopping) = watch::channel(());
    let connections = Arc::new(Connections::default());
    let mut tasks = JoinSet::new();
    for listener in listeners {
        let (inner, connections) = (inner.clone(), connections.clone());
        tasks.spawn(accept(inner, listener, connections, stopping.clone()));
    }
    drop(stopping);
    let mut tick = tokio::time::interval(TICK);
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            _ = tick.tick() => {
                inner.store.tick(inner.now());
                let (torrents, peers) = inner.store.sizes();
                inner.cells.set(ControlGauge::TrackerTorrents, torrents as u64);
                inner.cells.set(ControlGauge::TrackerPeers, peers as u64);
            }
        }
    }
    drop(stop);
    while tasks.join_next().await.is_some() {}
}

/// Accepts on one listener; ends when told to and its connections have ended.
async fn accept(
    inner: Arc<Inner>,
    listener: TcpListener,
    connections: Arc<Connections>,
    mut stopping: watch::Receiver<()>,
) {
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = stopping.changed() => break,
            Some(_) = tasks.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, remote)) => {
                let Some(place) = Connections::enter(&connections, &inner, remote.ip()) else {
                    inner
                        .cells
                        .increment(ControlCounter::TrackerRefusedConnections);
                    continue;
                };
                tasks.spawn(serve(
                    inner.clone(),
                    stream,
                    remote,
                    place,
                    stopping.clone(),
                ));
            }
            Err(error) => {
                // Out of descriptors, or a connection that was gone before it was accepted.
                tracing::debug!(%error, "the tracker cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    while tasks.join_next().await.is_some() {}
}

/// The open connections, in all and by address.
#[derive(Default)]
struct Connections {
    by_address: Mutex<(usize, HashMap<IpAddr, usize>)>,
}

/// One connection's place among them; left when dropped.
struct Place {
    connections: Arc<Connections>,
    ip: IpAddr,
}

impl Connections {
    fn enter(connections: &Arc<Connections>, inner: &Inner, ip: IpAddr) -> Option<Place> {
        let mut open = connections
            .by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (total, by_address) = &mut *open;
        if *total >= inner.config.connections_max {
            return None;
        }
        let own = by_address.entry(ip).or_default();
        if *own >= inner.config.connections_per_address_max && !ip.is_loopback() {
            return None;
        }
        *own += 1;
        *total += 1;
        Some(Place {
            connections: connections.clone(),
            ip,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let open = &self.connections.by_address;
        let (total, by_address) = &mut *open.lock().unwrap_or_else(PoisonError::into_inner);
        *total -= 1;
        if let Some(own) = by_address.get_mut(&self.ip) {
            *own -= 1;
            if *own == 0 {
                by_address.remove(&self.ip);
            }
        }
    }
}

/// Serves one connection to its end.
async fn serve(
    inner: Arc<Inner>,
    stream: TcpStream,
    remote: SocketAddr,
    _place: Place,
    mut stopping: watch::Receiver<()>,
) {
    let Ok(local) = stream.local_addr() else {
        return;
    };
    let _ = stream.set_nodelay(true);
    let asker = Asker {
        ip: remote.ip().to_canonical(),
        reached_at: local.ip().to_canonical(),
    };
    let service = service_fn(|request: Request<Incoming>| {
        let response = respond(&inner, asker, &request);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // Counts from the end of the previous request, so it bounds idleness too.
        .header_read_timeout(inner.config.head_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stopping.changed() => {}
        () = tokio::time::sleep(inner.config.connection_lifetime) => {}
    }
    connection.as_mut().graceful_shutdown();
    // A client that does not read its reply is cut off here.
    let _ = tokio::time::timeout(GRACE, connection).await;
}

fn respond(inner: &Inner, asker: Asker, request: &Request<Incoming>) -> Response<Body> {
    let start = Instant::now();
    let response = route(inner, asker, request);
    inner
        .cells
        .record(ControlHistogram::TrackerRequestDuration, start.elapsed());
    response
}

fn route(inner: &Inner, asker: Asker, request: &Request<Incoming>) -> Response<Body> {
    if !inner.flood.allows(inner.now(), asker.ip) {
        inner.cells.increment(ControlCounter::TrackerRefusedRate);
        let body = answer::failure("too many requests from this address: ask less often");
        let mut response = text(StatusCode::TOO_MANY_REQUESTS, body);
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static("60"));
        return response;
    }
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, b"GET only\n".to_vec());
    }
    let query = request.uri().query().unwrap_or("");
    match request.uri().path() {
        "/announce" => text(StatusCode::OK, answer::announce(inner, asker, query)),
        "/scrape" => text(StatusCode::OK, answer::scrape(inner, query)),
        _ => text(
            StatusCode::NOT_FOUND,
            b"a BitTorrent tracker: /announce, /scrape\n".to_vec(),
        ),
    }
}

fn text(status: StatusCode, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}
