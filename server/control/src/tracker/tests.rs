//! The tracker over real sockets, byte for byte.

use std::net::IpAddr;
use std::time::Duration;

use proto::tracker::{AnnounceReply, AnnounceSuccess, ScrapeReply};
use seedring_metrics::{ControlCounter, Registry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

const HASH: InfoHashV1 = InfoHashV1([0xff; 20]);

/// A tracker that runs until dropped.
struct Running {
    addresses: Vec<SocketAddr>,
    handle: TrackerHandle,
    registry: Registry,
    stop: tokio::sync::oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

fn local() -> TrackerConfig {
    let listen = vec!["127.0.0.1:0".parse().unwrap()];
    TrackerConfig {
        listen,
        ..TrackerConfig::default()
    }
}

fn start(config: &TrackerConfig) -> Running {
    let registry = Registry::new(0);
    let tracker = Tracker::bind(config, registry.control()).unwrap();
    let (addresses, handle) = (tracker.addresses().to_vec(), tracker.handle());
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let task = tokio::spawn(tracker.run(async { drop(stopped.await) }));
    handle.allow(HASH);
    Running {
        addresses,
        handle,
        registry,
        stop,
        task,
    }
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addresses[0]).await.unwrap()
    }

    /// Sends one request on a connection of its own; answers status and body.
    async fn ask(&self, target: &str) -> (u16, Vec<u8>) {
        exchange(&mut self.connect().await, target).await
    }

    async fn announce(&self, rest: &str) -> AnnounceReply {
        AnnounceReply::parse(&self.ask(&announce(rest)).await.1).unwrap()
    }

    fn count(&self, counter: ControlCounter) -> u64 {
        self.registry.control().counter(counter)
    }
}

/// A leecher's announce; what is in `rest` comes first, and so may not repeat anything.
fn announce(rest: &str) -> String {
    let hash = "%fF".repeat(20);
    format!("/announce?info_hash={hash}&peer_id=-XX0000-%00%80%ff789abcdef&left=1&{rest}")
}

fn success(reply: AnnounceReply) -> AnnounceSuccess {
    match reply {
        AnnounceReply::Success(success) => success,
        AnnounceReply::Failure(failure) => panic!("refused: {}", failure.reason),
    }
}

fn reason(reply: AnnounceReply) -> String {
    match reply {
        AnnounceReply::Failure(failure) => failure.reason,
        AnnounceReply::Success(success) => panic!("not refused: {success:?}"),
    }
}

async fn exchange(stream: &mut TcpStream, target: &str) -> (u16, Vec<u8>) {
    let request = format!("GET {target} HTTP/1.1\r\nHost: tracker\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    answer(stream).await
}

/// Reads one answer; status 0 if the connection is closed instead.
async fn answer(stream: &mut TcpStream) -> (u16, Vec<u8>) {
    let mut input = Vec::new();
    loop {
        if let Some(end) = input.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let head = String::from_utf8(input[..end].to_vec())
                .unwrap()
                .to_lowercase();
            let status = head[9..12].parse().unwrap();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.parse().unwrap());
            let mut body = input.split_off(end + 4);
            while body.len() < length {
                stream.read_buf(&mut body).await.unwrap();
            }
            return (status, body);
        }
        if !matches!(stream.read_buf(&mut input).await, Ok(1..)) {
            return (0, input);
        }
    }
}

#[tokio::test]
async fn an_announce_and_its_reply() {
    let tracker = start(&local());
    let first = success(tracker.announce("port=7001&event=started").await);
    assert!((1800..=1980).contains(&first.interval.seconds));
    assert_eq!(first.min_interval.unwrap().seconds, 60);
    assert_eq!(first.external_ip, Some(IpAddr::from([127, 0, 0, 1])));
    assert_eq!(
        (first.complete, first.incomplete, first.peers.len()),
        (Some(0), Some(1), 0)
    );
    // Over the wire it is compact, as BEP 23 has it, whatever `ip` says.
    let target = announce("port=7002&ip=9.9.9.9&ipv4=9.9.9.9").replace("-XX0000", "-YY0000");
    let (status, body) = tracker.ask(&target).await;
    let text = String::from_utf8_lossy(&body).into_owned();
    assert_eq!(status, 200);
    assert!(body.starts_with(b"d8:completei0e10:downloadedi0e11:external ip4:\x7f\x00\x00\x01"));
    assert!(
        body.windows(14)
            .any(|b| b == b"5:peers6:\x7f\x00\x00\x01\x1b"),
        "{text}"
    );
    assert_eq!(tracker.count(ControlCounter::TrackerAnnounces), 2);
}

#[tokio::test]
async fn a_reply_with_dictionaries() {
    let tracker = start(&local());
    tracker.announce("port=7001").await;
    let ask = async |rest: &str| {
        let target = announce(rest).replace("-XX0000", "-YY0000");
        tracker.ask(&target).await.1
    };
    let body = ask("port=7002&compact=0").await;
    let due = b"5:peersld2:ip9:127.0.0.17:peer id20:-XX0000-\x00\x80\xff789abcdef4:porti7001eee";
    assert!(
        body.windows(due.len()).any(|bytes| bytes == due),
        "{body:?}"
    );
    let body = ask("port=7002&compact=0&no_peer_id=1").await;
    let due = b"5:peersld2:ip9:127.0.0.14:porti7001eee";
    assert!(
        body.windows(due.len()).any(|bytes| bytes == due),
        "{body:?}"
    );
}

#[tokio::test]
async fn both_families_on_one_port() {
    let listen = vec!["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()];
    let tracker = start(&TrackerConfig {
        listen,
        ..TrackerConfig::default()
    });
    if tracker.addresses.len() < 2 {
        println!("skipped: this machine has no IPv6");
        return;
    }
    tracker.announce("port=7001").await;
    let target = announce("port=7002").replace("-XX0000", "-YY0000");
    let mut stream = TcpStream::connect(tracker.addresses[1]).await.unwrap();
    let (_, body) = exchange(&mut stream, &target).await;
    assert_eq!(
        success(AnnounceReply::parse(&body).unwrap())
            .external_ip
            .unwrap()
            .to_string(),
        "::1"
    );
    let target = announce("port=7003").replace("-XX0000", "-ZZ0000");
    let (_, body) = exchange(&mut stream, &target).await;
    let found = success(AnnounceReply::parse(&body).unwrap()).peers;
    let found: Vec<String> = found.iter().map(|peer| peer.address.to_string()).collect();
    assert_eq!(found.len(), 2);
    assert!(found.contains(&"[::1]:7002".to_owned()), "{found:?}");
}

#[tokio::test]
async fn what_is_refused_and_why() {
    let tracker = start(&local());
    let hash = "%00".repeat(20);
    let unknown = format!("/announce?info_hash={hash}&peer_id=01234567890123456789&port=1");
    for (target, due) in [
        (
            unknown.as_str(),
            "this torrent is not served by this tracker",
        ),
        ("/announce", "parameter info_hash is missing"),
        (
            "/announce?info_hash=short&peer_id=01234567890123456789&port=1",
            "20 bytes",
        ),
        (
            "/announce?info_hash=%zz&peer_id=01234567890123456789&port=1",
            "broken %-escape",
        ),
        (&announce(""), "parameter port is missing"),
        (&announce("port=65536"), "a number from 0 to 65535"),
        (&announce("port=1&port=2"), "more than once"),
    ] {
        let (status, body) = tracker.ask(target).await;
        let reason = reason(AnnounceReply::parse(&body).unwrap());
        assert!(status == 200 && reason.contains(due), "{target}: {reason}");
    }
    assert_eq!(tracker.count(ControlCounter::TrackerRefusedUnlisted), 1);
    assert_eq!(tracker.count(ControlCounter::TrackerRefusedInvalid), 6);
    assert_eq!(tracker.ask("/stats").await.0, 404);
    let mut stream = tracker.connect().await;
    stream
        .write_all(b"POST /announce HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(answer(&mut stream).await.0, 405);
}

#[tokio::test]
async fn a_scrape() {
    let tracker = start(&local());
    tracker.announce("port=7001").await;
    tracker.handle.register_local(HASH, PeerId([7; 20]), 6890);
    let (known, unknown) = ("%FF".repeat(20), "%01".repeat(20));
    let (_, body) = tracker
        .ask(&format!("/scrape?info_hash={known}&info_hash={unknown}"))
        .await;
    let due = [b"d5:filesd20:".to_vec(), vec![0xff; 20]].concat();
    assert!(body.starts_with(&due));
    let ScrapeReply::Files(files) = ScrapeReply::parse(&body).unwrap() else {
        panic!()
    };
    assert_eq!(files.len(), 1);
    assert_eq!((files[&HASH].complete, files[&HASH].incomplete), (1, 1));
    let (_, body) = tracker.ask("/scrape").await;
    assert!(matches!(
        ScrapeReply::parse(&body),
        Ok(ScrapeReply::Failure(_))
    ));
    // The most that one may ask for fits into a request's head.
    let hashes: Vec<String> = (0..200)
        .map(|n| format!("info_hash=%{n:02x}{}", "%ff".repeat(19)))
        .collect();
    let (status, _) = tracker.ask(&format!("/scrape?{}", hashes.join("&"))).await;
    assert_eq!(
        (status, tracker.count(ControlCounter::TrackerScrapes)),
        (200, 2)
    );
}

#[tokio::test]
async fn a_registered_seed_is_found_over_loopback() {
    let tracker = start(&local());
    tracker.handle.register_local(HASH, PeerId([7; 20]), 6890);
    let found = success(tracker.announce("port=7001&numwant=10").await).peers;
    assert_eq!(found.first().unwrap().address.to_string(), "127.0.0.1:6890");
    tracker.handle.disallow(HASH);
    assert!(reason(tracker.announce("port=7001").await).contains("not served"));
}

#[tokio::test]
async fn numwant_is_bounded() {
    let tracker = start(&local());
    let mut stream = tracker.connect().await;
    for number in 0..300 {
        let id = format!("-{number:06}");
        let target = announce(&format!("port={}", 10_000 + number)).replace("-XX0000", &id);
        assert_eq!(exchange(&mut stream, &target).await.0, 200); // one connection, kept alive
    }
    for (wanted, due) in [
        ("", 50),
        ("&numwant=0", 0),
        ("&numwant=7", 7),
        ("&numwant=99999", 200),
    ] {
        let reply = tracker.announce(&format!("port=1{wanted}")).await;
        assert_eq!(success(reply).peers.len(), due, "{wanted:?}");
    }
}

#[tokio::test]
async fn raw_bytes_and_long_heads_do_no_harm() {
    let tracker = start(&local());
    let raw = [
        b"GET /announce?info_hash=".to_vec(),
        vec![0xff; 20],
        b" HTTP/1.1\r\n\r\n".to_vec(),
    ];
    let long = format!("GET /announce?x={} HTTP/1.1\r\n\r\n", "a".repeat(64 << 10)).into_bytes();
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(1000)).into_bytes();
    let junk = vec![0; 100_000];
    for input in [raw.concat(), long, many, junk] {
        let mut stream = tracker.connect().await;
        let _ = stream.write_all(&input).await; // it may close before it has read all
        let (status, _) = answer(&mut stream).await;
        assert!(
            status == 0 || status == 200 || (400..=431).contains(&status),
            "{status}"
        );
    }
    success(tracker.announce("port=7001").await);
}

#[tokio::test]
async fn slow_heads_and_idle_connections_are_closed() {
    let config = TrackerConfig {
        head_timeout: Duration::from_millis(100),
        ..local()
    };
    let tracker = start(&config);
    // Never a word; half a head; one request and then nothing.
    let silent = tracker.connect().await;
    let mut half = tracker.connect().await;
    half.write_all(b"GET /announce HTTP/1.1\r\nHost:")
        .await
        .unwrap();
    let mut idle = tracker.connect().await;
    assert_eq!(exchange(&mut idle, "/scrape").await.0, 200);
    for mut stream in [silent, half, idle] {
        let mut rest = Vec::new();
        // Ends only when the tracker closes.
        drop(stream.read_to_end(&mut rest).await);
    }
}

#[tokio::test]
async fn an_old_connection_is_closed_even_if_it_is_busy() {
    let config = TrackerConfig {
        connection_lifetime: Duration::from_millis(100),
        ..local()
    };
    let tracker = start(&config);
    let mut stream = tracker.connect().await;
    while exchange(&mut stream, "/scrape").await.0 != 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn connections_are_bounded() {
    let tracker = start(&TrackerConfig {
        connections_max: 3,
        ..local()
    });
    let mut kept = Vec::new();
    for _ in 0..3 {
        let mut stream = tracker.connect().await;
        assert_eq!(exchange(&mut stream, "/scrape").await.0, 200);
        kept.push(stream);
    }
    let mut refused = tracker.connect().await;
    assert_eq!(answer(&mut refused).await.0, 0);
    assert_eq!(tracker.count(ControlCounter::TrackerRefusedConnections), 1);
    drop(kept.pop());
    // The place is free once the tracker has seen the end.
    while tracker.connect_and_scrape().await == 0 {}
}

impl Running {
    async fn connect_and_scrape(&self) -> u16 {
        let mut stream = self.connect().await;
        let request = b"GET /scrape HTTP/1.1\r\n\r\n";
        if stream.write_all(request).await.is_err() {
            return 0;
        }
        answer(&mut stream).await.0
    }
}

#[tokio::test]
async fn stopping_closes_everything() {
    let tracker = start(&local());
    let mut idle = tracker.connect().await;
    assert_eq!(exchange(&mut idle, "/scrape").await.0, 200);
    drop(tracker.stop);
    tracker.task.await.unwrap();
    assert_eq!(answer(&mut idle).await.0, 0);
    assert!(TcpStream::connect(tracker.addresses[0]).await.is_err());
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let tracker = start(&local());
    let config = TrackerConfig {
        listen: tracker.addresses.clone(),
        ..local()
    };
    let error = Tracker::bind(&config, Registry::new(0).control())
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains(&tracker.addresses[0].to_string()), "{error}");
    let nowhere = TrackerConfig {
        listen: vec![],
        ..local()
    };
    assert!(Tracker::bind(&nowhere, Registry::new(0).control()).is_err());
}
