//! The announcer over real sockets: against our own tracker, and against hand-made hostile ones.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicUsize;

use proto::tracker::AnnounceEvent;
use seedring_metrics::{ControlCounter, Registry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::client::Client;
use super::schedule::Job;
use super::udp::UdpClient;
use super::url::is_global;
use super::*;
use crate::tracker::{Tracker, TrackerConfig};

mod hostile;
mod redirects;
mod udp;
mod way;

const HASH: InfoHashV1 = InfoHashV1([0xab; 20]);
const IDENTITY: Identity = Identity {
    peer_id: PeerId(*b"-SR0100-abcdefghijkl"),
    key: 0x1234_abcd,
    port: 6890,
};
const GOOD: &[u8] = b"d8:completei2e10:incompletei1e8:intervali1800e5:peers0:e";

/// 8.8.8.8:80, 127.0.0.1:81 and 10.0.0.1:82 as a tracker names them.
const PEERS: &[u8] =
    b"d8:intervali1800e5:peers18:\x08\x08\x08\x08\0\x50\x7f\0\0\x01\0\x51\x0a\0\0\x01\0\x52e";

/// What a hand-made tracker answers to one request.
enum Say {
    Bytes(Vec<u8>),
    /// The first once, then the second for ever, after each pause.
    Endless(Vec<u8>, Vec<u8>, Duration),
    Close,
}

/// A hand-made tracker; remembers the heads of the requests that it got.
struct Server {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    async fn start(ip: &str, say: impl Fn(&str) -> Say + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        Server::on(listener, say)
    }

    fn on(listener: TcpListener, say: impl Fn(&str) -> Say + Send + Sync + 'static) -> Server {
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let (say, kept, count) = (Arc::new(say), heads.clone(), connections.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(converse(stream, say.clone(), kept.clone()));
            }
        });
        Server {
            address,
            heads,
            connections,
        }
    }

    fn url(&self) -> String {
        format!("http://{}/announce?passkey=0123456789abcdef", self.address)
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

async fn converse(
    mut stream: TcpStream,
    say: Arc<impl Fn(&str) -> Say>,
    heads: Arc<Mutex<Vec<String>>>,
) {
    let mut input = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = input.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            if !matches!(stream.read_buf(&mut input).await, Ok(1..)) {
                return;
            }
        };
        let head = String::from_utf8(input.drain(..end).collect()).unwrap();
        heads.lock().unwrap().push(head.clone());
        match say(&head) {
            Say::Bytes(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Say::Endless(first, rest, pause) => {
                let mut result = stream.write_all(&first).await;
                while result.is_ok() {
                    tokio::time::sleep(pause).await;
                    result = stream.write_all(&rest).await;
                }
                return;
            }
            Say::Close => return,
        }
    }
}

fn http(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn ok(body: &[u8]) -> Say {
    Say::Bytes(http("200 OK", "", body))
}

fn moved(to: &str) -> Say {
    Say::Bytes(http("302 Found", &format!("Location: {to}\r\n"), b""))
}

fn config() -> AnnounceConfig {
    AnnounceConfig {
        timeout: Duration::from_secs(20),
        ..AnnounceConfig::default()
    }
}

/// The first announce of a torrent with these trackers.
fn job(url: &str, private: bool) -> Arc<Job> {
    let limits = Limits {
        in_flight_max: 1,
        in_flight_per_host_max: 1,
        per_second_per_host: 1,
        scrape_interval: None,
    };
    let mut scheduler = Scheduler::new(limits, 1);
    let totals = Arc::new(TorrentTotals::default());
    scheduler.add(Time(0), HASH, &[vec![url.to_owned()]], private, totals);
    Arc::new(scheduler.poll(Time(0)).unwrap())
}

async fn announce_with(client: Client, url: &str) -> Outcome {
    Arc::new(client).announce(job(url, false)).await
}

fn client(config: &AnnounceConfig) -> Client {
    Client::new(config, IDENTITY, Registry::new(0).control()).unwrap()
}

/// A client for which other addresses are global.
fn scoped(is_global: fn(IpAddr) -> bool) -> Client {
    let udp = UdpClient::new(Binding::default(), Registry::new(0).control());
    Client::with_scope(&config(), IDENTITY, udp, is_global).unwrap()
}

async fn announce(url: &str) -> Outcome {
    announce_with(client(&config()), url).await
}

fn pretend_127_0_0_2_is_global(ip: IpAddr) -> bool {
    ip == IpAddr::from([127, 0, 0, 2])
}

/// The failure's text, which never shows the passkey.
fn error_of(outcome: Outcome) -> String {
    let Outcome::Failed { error, .. } = outcome else {
        panic!("not a failure: {outcome:?}")
    };
    assert!(!error.contains("0123456789abcdef"), "{error}");
    error
}

#[tokio::test]
async fn an_announce_says_what_it_should() {
    let server = Server::start("127.0.0.1", |_| ok(GOOD)).await;
    let outcome = announce(&server.url()).await;
    let Outcome::Reply(reply) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!((reply.seeders, reply.leechers), (Some(2), Some(1)));
    let head = server.heads()[0].clone();
    let escaped = "%AB".repeat(20);
    assert!(head.starts_with(&format!(
        "GET /announce?passkey=0123456789abcdef&info_hash={escaped}&"
    )));
    for part in [
        "&peer_id=-SR0100-abcdefghijkl&",
        "&port=6890&",
        "&left=0&",
        "&compact=1&",
        "&event=started&",
        "&numwant=30&",
        "&key=1234abcd ",
        "\r\nuser-agent: seedring/",
        "\r\naccept-encoding: gzip\r\n",
    ] {
        assert!(head.contains(part), "{part:?} is not in {head:?}");
    }
    assert!(!head.contains("\r\nreferer"));
}

/// Totals of a torrent of which so much is left, and the peers that were found for it.
#[derive(Default)]
struct Finding {
    left: u64,
    found: Mutex<Vec<SocketAddr>>,
}

impl Totals for Finding {
    fn now(&self) -> TotalsNow {
        TotalsNow {
            left: self.left,
            ..TotalsNow::default()
        }
    }

    fn found(&self, peers: &[SocketAddr]) {
        self.found.lock().unwrap().extend_from_slice(peers);
    }
}

impl Finding {
    fn with_left(left: u64) -> Arc<Finding> {
        Arc::new(Finding {
            left,
            ..Finding::default()
        })
    }
}

#[tokio::test]
async fn the_peers_of_an_answer_reach_the_torrent_that_asked() {
    let server = Server::start("127.0.0.1", |_| ok(PEERS)).await;
    let cells = Registry::new(0).control();
    let handle = Announcer::start(&config(), IDENTITY, cells).unwrap();
    let wanting = Finding::with_left(5);
    let totals: Arc<dyn Totals> = Arc::clone(&wanting) as _;
    handle.add(HASH, &[vec![server.url()]], false, totals);
    settled(&handle, TrackerState::Working).await;
    assert_eq!(wanting.found.lock().unwrap().len(), 3);
    assert!(
        server.heads()[0].contains("&left=5&"),
        "{:?}",
        server.heads()
    );
    assert!(
        server.heads()[0].contains("&numwant=50"),
        "{:?}",
        server.heads()
    );
}

#[tokio::test]
async fn a_refusal_is_shown_safely() {
    let reason = [
        b"bad key 0123456789abcdef \x1b[31m\r\n".to_vec(),
        vec![b'x'; 900_000],
    ]
    .concat();
    let length = reason.len().to_string();
    let body = [
        b"d14:failure reason",
        length.as_bytes(),
        b":",
        &reason,
        b"e",
    ]
    .concat();
    let server = Server::start("127.0.0.1", move |_| ok(&body)).await;
    let outcome = announce(&server.url()).await;
    let Outcome::Refused { reason, .. } = outcome else {
        panic!("{outcome:?}")
    };
    assert!(reason.starts_with("bad key … "), "{reason}");
    assert!(reason.chars().count() <= 300 && !reason.chars().any(char::is_control));
}

#[tokio::test]
async fn a_tracker_that_is_gone_for_good_is_believed() {
    let never = b"d14:failure reason4:gone8:retry in5:nevere";
    for (status, body) in [("410 Gone", &b"<html>"[..]), ("200 OK", never)] {
        let answer = http(status, "", body);
        let server = Server::start("127.0.0.1", move |_| Say::Bytes(answer.clone())).await;
        let handle = Announcer::start(&config(), IDENTITY, Registry::new(0).control()).unwrap();
        let totals = Arc::new(TorrentTotals::default());
        handle.add(HASH, &[vec![server.url()]], false, totals);
        let status = settled(&handle, TrackerState::Disabled).await;
        assert_eq!(status.until_next, None);
    }
}

#[tokio::test]
async fn retry_after_is_read() {
    let server = Server::start("127.0.0.1", |_| {
        Say::Bytes(http("503 Service Unavailable", "Retry-After: 120\r\n", b""))
    });
    let outcome = announce(&server.await.url()).await;
    let due = Some(RetryIn::After(Duration::from_secs(120)));
    assert!(matches!(outcome, Outcome::Failed { retry, .. } if retry == due));
}

#[tokio::test]
async fn a_tls_port_that_speaks_no_tls_is_refused() {
    let server = Server::start("127.0.0.1", |_| ok(GOOD)).await;
    let url = server.url().replace("http:", "https:");
    let config = AnnounceConfig {
        timeout: Duration::from_secs(2),
        ..config()
    };
    error_of(announce_with(client(&config), &url).await);
    assert_eq!(server.heads().len(), 0);
}

#[tokio::test]
async fn both_families_of_a_name_are_told_unless_private() {
    // `localhost` stands for both, where the machine has both.
    let v4 = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = v4.local_addr().unwrap().port();
    let names = tokio::net::lookup_host(("localhost", 0)).await.unwrap();
    let has_both = names.collect::<Vec<_>>().iter().any(SocketAddr::is_ipv6);
    let v6 = TcpListener::bind(("::1", port)).await;
    let (Ok(v6), true) = (v6, has_both) else {
        println!("skipped: localhost has no IPv6 address here, or its port is taken");
        return;
    };
    let (v4, v6) = (Server::on(v4, |_| ok(GOOD)), Server::on(v6, |_| ok(GOOD)));
    let url = format!("http://localhost:{port}/announce");
    let client = Arc::new(client(&config()));
    assert!(matches!(
        client.clone().announce(job(&url, true)).await,
        Outcome::Reply(_)
    ));
    assert_eq!(v4.heads().len() + v6.heads().len(), 1);
    assert!(matches!(
        client.announce(job(&url, false)).await,
        Outcome::Reply(_)
    ));
    assert_eq!(v4.heads().len() + v6.heads().len(), 3);
    let target = |server: &Server| {
        let heads = server.heads();
        heads.last().unwrap().lines().next().unwrap().to_owned()
    };
    assert_eq!(target(&v4), target(&v6)); // the same key and peer id
}

#[tokio::test]
async fn many_announces_share_few_connections() {
    let server = Server::start("127.0.0.1", |_| ok(GOOD)).await;
    let registry = Registry::new(0);
    let config = AnnounceConfig {
        per_second_per_host: 100_000,
        ..config()
    };
    let handle = Announcer::start(&config, IDENTITY, registry.control()).unwrap();
    let url = server.url();
    for number in 0..200u8 {
        let totals = Arc::new(TorrentTotals::default());
        assert!(handle.add(
            InfoHashV1([number; 20]),
            &[vec![url.clone()]],
            false,
            totals
        ));
    }
    let cells = registry.control();
    while cells.counter(ControlCounter::AnnouncesOk) < 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(handle.shutdown(Duration::from_secs(60)).await);
    let heads = server.heads();
    assert_eq!(
        heads
            .iter()
            .filter(|head| head.contains("event=started"))
            .count(),
        200
    );
    assert_eq!(
        heads
            .iter()
            .filter(|head| head.contains("event=stopped"))
            .count(),
        200
    );
    assert_eq!(cells.counter(ControlCounter::AnnouncesStopped), 200);
    // 8 while seeding, 32 while stopping; without keep-alive it would be 400.
    let connections = server.connections.load(Ordering::Relaxed);
    assert!(connections <= 60, "{connections}");
}

#[tokio::test]
async fn shutdown_does_not_wait_for_a_dead_tracker() {
    // Answers `started` and then never again.
    let server = Server::start("127.0.0.1", |head| {
        let pause = Duration::from_secs(3600);
        if head.contains("started") {
            ok(GOOD)
        } else {
            Say::Endless(vec![], vec![], pause)
        }
    })
    .await;
    let registry = Registry::new(0);
    let handle = Announcer::start(&config(), IDENTITY, registry.control()).unwrap();
    handle.add(
        HASH,
        &[vec![server.url()]],
        false,
        Arc::new(TorrentTotals::default()),
    );
    while registry.control().counter(ControlCounter::AnnouncesOk) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!handle.shutdown(Duration::from_millis(200)).await);
    assert!(!handle.add(HASH, &[], false, Arc::new(TorrentTotals::default())));
}

#[tokio::test]
async fn our_announcer_and_our_tracker() {
    let registry = Registry::new(0);
    let listen = vec!["127.0.0.1:0".parse().unwrap()];
    let config = TrackerConfig {
        listen,
        ..TrackerConfig::default()
    };
    let tracker = Tracker::bind(&config, registry.control()).unwrap();
    let url = format!("http://{}/announce", tracker.addresses()[0]);
    let store = tracker.handle();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(tracker.run(async { drop(stopped.await) }));
    let handle = Announcer::start(&self::config(), IDENTITY, registry.control()).unwrap();

    // A torrent that the tracker does not know is refused, and the reason is shown.
    handle.add(
        HASH,
        &[vec![url.clone()]],
        false,
        Arc::new(TorrentTotals::default()),
    );
    let status = settled(&handle, TrackerState::Failing).await;
    let due = "this torrent is not served by this tracker";
    assert_eq!(status.message.as_deref(), Some(due));
    assert!(handle.remove(HASH));

    store.allow(HASH);
    handle.add(
        HASH,
        &[vec![url]],
        false,
        Arc::new(TorrentTotals::default()),
    );
    let status = settled(&handle, TrackerState::Working).await;
    assert_eq!((status.seeders, status.leechers), (Some(1), Some(0)));
    assert!(
        status
            .until_next
            .is_some_and(|wait| wait > Duration::from_secs(1700))
    );
    assert_eq!(store.sizes(), (1, 1));
    assert!(handle.shutdown(Duration::from_secs(20)).await);
    assert_eq!(store.sizes(), (1, 0));
    drop(stop);
    running.await.unwrap();
}

/// Whom our tracker names to a seed that asks for so many, while a leecher at port 7001 is there.
async fn named_to_a_seed(numwant_complete: u32) -> Vec<SocketAddr> {
    let registry = Registry::new(0);
    let config = TrackerConfig {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        ..TrackerConfig::default()
    };
    let tracker = Tracker::bind(&config, registry.control()).unwrap();
    let url = format!("http://{}/announce", tracker.addresses()[0]);
    let store = tracker.handle();
    store.allow(HASH);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(tracker.run(async { drop(stopped.await) }));
    let start = |port, numwant_complete| {
        let config = AnnounceConfig {
            numwant_complete,
            ..self::config()
        };
        let identity = Identity {
            peer_id: PeerId([port as u8; 20]),
            port,
            ..IDENTITY
        };
        Announcer::start(&config, identity, registry.control()).unwrap()
    };
    let leecher = start(7001, 0);
    let wanting = Finding::with_left(5);
    leecher.add(HASH, &[vec![url.clone()]], false, wanting);
    settled(&leecher, TrackerState::Working).await;
    let seed = start(7002, numwant_complete);
    let seeding = Finding::with_left(0);
    let totals: Arc<dyn Totals> = Arc::clone(&seeding) as _;
    seed.add(HASH, &[vec![url]], false, totals);
    let status = settled(&seed, TrackerState::Working).await;
    assert_eq!((status.seeders, status.leechers), (Some(1), Some(1)));
    drop(stop);
    running.await.unwrap();
    seeding.found.lock().unwrap().clone()
}

#[tokio::test]
async fn our_tracker_names_leechers_to_a_seed_that_calls() {
    let wanted = AnnounceConfig::default().numwant_complete;
    assert_eq!(
        named_to_a_seed(wanted).await,
        ["127.0.0.1:7001".parse().unwrap()]
    );
    assert_eq!(named_to_a_seed(0).await, []);
}

async fn settled(handle: &AnnounceHandle, state: TrackerState) -> TrackerStatus {
    loop {
        if let Some(status) = handle.status(HASH)
            && status.trackers[0].state == state
        {
            return status.trackers[0].clone();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn events_reach_the_query() {
    assert_eq!(
        job("http://127.0.0.1/announce", false).event,
        AnnounceEvent::Started
    );
}
