//! Tests of the HTTP port over real sockets, written byte by byte where a client library would
//! be too polite.

use super::*;
use crate::exporter::BuildInfo;
use seedring_metrics::Registry;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

struct Server {
    address: SocketAddr,
    registry: Arc<Registry>,
    readiness: Arc<Readiness>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

async fn server(change: impl FnOnce(&mut Listener)) -> Server {
    let api = Api {
        listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        allowed_hosts: vec!["seed.example".to_owned()],
        ..Api::default()
    };
    let mut listener = listen(&api, None).await.unwrap();
    change(&mut listener);
    let registry = Arc::new(Registry::new(1));
    let build = BuildInfo {
        version: "0".to_owned(),
        commit: "unknown".to_owned(),
    };
    let exporter = Arc::new(Exporter::new(Arc::clone(&registry), &build).unwrap());
    let readiness = Arc::new(Readiness::new(["torrents"], registry.control()));
    let status: Arc<dyn Status> = Arc::clone(&readiness) as Arc<dyn Status>;
    let service = Service {
        exporter,
        status,
        cells: registry.control(),
        api: None,
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let address = listener.address.unwrap();
    let task = tokio::spawn(serve(listener, service, async {
        let _ = stopped.await;
    }));
    Server {
        address,
        registry,
        readiness,
        stop: Some(stop),
        task,
    }
}

impl Server {
    /// Sends these bytes and returns all that comes back until the connection ends.
    async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A reset after the answer is as good as an end.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    async fn get(&self, path: &str) -> String {
        self.raw(&format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        ))
        .await
    }
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or(answer)
}

#[tokio::test]
async fn the_pages_answer() {
    let server = server(|_| {}).await;
    let metrics = server.get("/metrics").await;
    assert_eq!(status(&metrics), "200");
    assert!(metrics.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    assert!(metrics.contains("\nseedring_uploaded_bytes_total{shard=\"0\"} 0\n"));
    assert_eq!(status(&server.get("/healthz").await), "200");
    assert_eq!(status(&server.get("/").await), "404");
    assert_eq!(status(&server.get("/metrics/..%2f..%00").await), "404");
    let head = server
        .raw("HEAD /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await;
    assert!(
        head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    let cells = server.registry.control();
    assert_eq!(cells.counter(ControlCounter::HttpOk), 3);
    assert_eq!(cells.counter(ControlCounter::HttpClientError), 2);
}

#[tokio::test]
async fn readiness_follows_the_server() {
    let server = server(|_| {}).await;
    let ready = || {
        server
            .registry
            .control()
            .gauge(seedring_metrics::ControlGauge::Ready)
    };
    let answer = server.get("/readyz").await;
    assert_eq!(status(&answer), "503");
    assert!(
        answer.ends_with("not ready: waiting for torrents\n"),
        "{answer}"
    );
    assert_eq!(ready(), 0);
    server.readiness.met("torrents");
    assert_eq!(status(&server.get("/readyz").await), "200");
    assert_eq!(ready(), 1);
    server.readiness.stopping();
    let answer = server.get("/readyz").await;
    assert!(
        answer.ends_with("not ready: the server is stopping\n"),
        "{answer}"
    );
    assert_eq!(status(&server.get("/healthz").await), "200");
    assert_eq!(ready(), 0);
}

#[tokio::test]
async fn foreign_names_and_other_methods_are_refused() {
    let server = server(|_| {}).await;
    for (request, expected) in [
        (
            "GET /metrics HTTP/1.1\r\nHost: seed.example:8690\r\n",
            "200",
        ),
        ("GET /metrics HTTP/1.1\r\nHost: 192.0.2.1\r\n", "200"),
        ("GET /metrics HTTP/1.1\r\nHost: evil.example\r\n", "403"),
        ("GET /healthz HTTP/1.1\r\nHost: evil.example\r\n", "403"),
        (
            "GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n",
            "403",
        ),
        (
            "GET http://evil.example/metrics HTTP/1.1\r\nHost: localhost\r\n",
            "403",
        ),
        ("GET /metrics HTTP/1.1\r\n", "403"),
        ("GET /metrics HTTP/1.0\r\n", "403"),
        (
            "POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n",
            "405",
        ),
        ("DELETE /healthz HTTP/1.1\r\nHost: localhost\r\n", "405"),
        ("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n", "405"),
        ("BREW /coffee HTTP/1.1\r\nHost: localhost\r\n", "405"),
        ("nonsense\r\n", "400"),
    ] {
        let answer = server
            .raw(&format!("{request}Connection: close\r\n\r\n"))
            .await;
        assert_eq!(status(&answer), expected, "{request}");
    }
    assert_eq!(
        server
            .registry
            .control()
            .counter(ControlCounter::HttpRefusedHost),
        6
    );
    assert_eq!(
        server
            .registry
            .control()
            .counter(ControlCounter::HttpRefusedMethod),
        4
    );
}

#[tokio::test]
async fn every_answer_has_the_security_headers() {
    let server = server(|_| {}).await;
    let foreign = "GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    for answer in [
        server.get("/metrics").await,
        server.get("/x").await,
        server.raw(foreign).await,
    ] {
        for header in [
            "x-content-type-options: nosniff",
            "content-security-policy: default-src 'none'; frame-ancestors 'none'",
            "x-frame-options: DENY",
            "cache-control: no-store",
        ] {
            assert!(
                answer.contains(&format!("{header}\r\n")),
                "{header}: {answer}"
            );
        }
    }
}

#[tokio::test]
async fn a_large_head_or_body_costs_nothing() {
    let server = server(|_| {}).await;
    let long = format!(
        "GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "x".repeat(100_000)
    );
    let answer = server.raw(&long).await;
    assert!(
        answer.is_empty() || ["414", "431"].contains(&status(&answer)),
        "{answer}"
    );
    let many = "a: b\r\n".repeat(100);
    let answer = server
        .raw(&format!("GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n"))
        .await;
    assert_eq!(status(&answer), "431");
    // The answer comes, and the connection ends, without the gigabyte that was announced.
    for method in ["GET", "POST"] {
        let head = format!("{method} /healthz HTTP/1.1\r\nHost: localhost\r\n");
        let answer = server
            .raw(&format!("{head}Content-Length: 1000000000\r\n\r\nx"))
            .await;
        assert!(["200", "405"].contains(&status(&answer)), "{answer}");
    }
}

#[tokio::test]
async fn silent_slow_and_idle_clients_are_closed() {
    let short = Duration::from_millis(50);
    let patient = Timeouts::default();
    for (timeouts, request) in [
        (
            Timeouts {
                first_request: short,
                ..patient
            },
            "",
        ),
        (
            Timeouts {
                first_request: short,
                ..patient
            },
            "GET /healthz HTTP/1.1\r\nHost: loc",
        ),
        (
            Timeouts {
                idle: short,
                ..patient
            },
            "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ),
        (
            Timeouts {
                lifetime: short,
                ..patient
            },
            "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ),
    ] {
        let server = server(|listener| listener.timeouts = timeouts).await;
        // Ends only because the server closes; without the timeout the test would hang.
        let answer = server.raw(request).await;
        assert_eq!(
            answer.starts_with("HTTP/1.1 200"),
            request.ends_with("\r\n\r\n"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed() {
    let server = server(|listener| listener.connections_max = 1).await;
    let mut first = TcpStream::connect(server.address).await.unwrap();
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    first.write_all(request).await.unwrap();
    let mut byte = [0];
    first.read_exact(&mut byte).await.unwrap();
    assert_eq!(server.get("/healthz").await, "");
    assert_eq!(
        server
            .registry
            .control()
            .counter(ControlCounter::HttpRefusedConnections),
        1
    );
    drop(first);
    // The place is free again once the server has seen the end.
    while server.get("/healthz").await.is_empty() {}
}

#[tokio::test]
async fn stopping_ends_idle_connections() {
    let mut server = server(|_| {}).await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut byte = [0];
    idle.read_exact(&mut byte).await.unwrap();
    drop(server.stop.take());
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    server.task.await.unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let api = Api {
        listen: Some(address),
        ..Api::default()
    };
    let error = listen(&api, None).await.unwrap_err();
    let message = error.to_string();
    assert!(
        message.starts_with(&format!("api.listen: cannot listen on {address}: ")),
        "{message}"
    );
    let off = Api {
        listen: None,
        ..Api::default()
    };
    assert!(listen(&off, None).await.unwrap().address.is_none());
}
