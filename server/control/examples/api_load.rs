//! How long the HTTP API takes with many torrents that keep changing: pages, one torrent, changes.
//!
//! `cargo run --release -p control --example api_load [TORRENTS [REQUESTS]]`: a server in this
//! process, its torrents in the catalog alone, asked over TCP on loopback by four clients that keep
//! their connections, while 1 in 100 torrents changes each second. It prints percentiles in
//! milliseconds.
//!
//! Does not: load the data plane or a disk. What it says is of the control plane alone.
#![allow(clippy::unwrap_used)]

use control::api::{Api, Facts, TOKEN_FILE};
use control::catalog::{Live, Status, Torrent};
use control::command::{self, Command, Described, Seat};
use control::config::Api as Settings;
use control::exporter::{BuildInfo, Exporter};
use control::http::{self, Readiness, Service};
use proto::ids::InfoHashV1;
use seedring_metrics::Registry;
use state::{Summary, Totals};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Clients that ask at a time.
const CLIENTS: usize = 4;

fn torrent(number: u32) -> Torrent {
    let mut hash = [0; 20];
    hash[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b9).to_be_bytes());
    hash[4..8].copy_from_slice(&number.to_be_bytes());
    Torrent {
        info_hash: InfoHashV1(hash),
        summary: Summary {
            name: format!("Some.Release.Of.{}.Which.Is.Called.{number}", number % 97),
            total_bytes: 1_000_000_000 + u64::from(number),
            piece_bytes: 1 << 20,
            pieces: 954,
            files: 12,
            save_path: "/srv/torrents/of/somebody".into(),
            category: Some(format!("category {}", number % 10)),
            labels: vec![format!("label {}", number % 7)],
            added_at_s: 1_700_000_000 + u64::from(number),
            ..Summary::default()
        },
        totals: Totals::default(),
        pieces_verified: 954,
        live: Live {
            status: Status::Seeding,
            ..Live::default()
        },
    }
}

/// Answers what is asked of one torrent.
async fn answer(mut commands: mpsc::Receiver<Command>) {
    while let Some(command) = commands.recv().await {
        if let Command::Describe(_, reply) = command {
            let _ = reply.send(Ok(Box::new(Described::default())));
        }
    }
}

/// Changes one in a hundred torrents a second, ten times a second.
async fn change(seat: Arc<Seat>, torrents: u32) {
    let mut random = fastrand::Rng::with_seed(1);
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    loop {
        ticks.tick().await;
        seat.change(|catalog| {
            for _ in 0..torrents.div_ceil(1000) {
                let rate = random.u64(..);
                let hash = torrent(random.u32(0..torrents)).info_hash;
                catalog.change(&hash, |torrent| torrent.live.upload_rate = rate >> 32);
            }
        });
    }
}

/// A client that keeps its connection.
struct Client {
    stream: BufReader<TcpStream>,
    token: String,
}

impl Client {
    async fn new(address: SocketAddr, token: &str) -> Client {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Client {
            stream: BufReader::new(stream),
            token: token.to_owned(),
        }
    }

    /// Asks, and returns the length of the body.
    async fn get(&mut self, path: &str) -> usize {
        let request = format!(
            "GET /api/v1{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
            self.token
        );
        self.stream.write_all(request.as_bytes()).await.unwrap();
        let (mut length, mut line) = (0, String::new());
        let mut is_first = true;
        while line != "\r\n" {
            line.clear();
            self.stream.read_line(&mut line).await.unwrap();
            assert!(
                !is_first || line.starts_with("HTTP/1.1 200"),
                "{path}: {line}"
            );
            is_first = false;
            if let Some(said) = line.strip_prefix("content-length: ") {
                length = said.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.unwrap();
        length
    }
}

async fn measure(address: SocketAddr, token: &str, paths: Vec<String>, requests: usize) -> String {
    let paths = Arc::new(paths);
    let clients = (0..CLIENTS).map(|client| {
        let (token, paths) = (token.to_owned(), Arc::clone(&paths));
        tokio::spawn(async move {
            let mut asking = Client::new(address, &token).await;
            let (mut times, mut bytes) = (Vec::new(), 0);
            for number in 0..requests / CLIENTS {
                let path = &paths[(number * CLIENTS + client) % paths.len()];
                let start = Instant::now();
                bytes += asking.get(path).await;
                times.push(start.elapsed());
            }
            (times, bytes)
        })
    });
    let clients: Vec<_> = clients.collect();
    let (mut times, mut bytes) = (Vec::new(), 0);
    for client in clients {
        let (its, read) = client.await.unwrap();
        times.extend(its);
        bytes += read;
    }
    times.sort_unstable();
    let at = |permille: usize| {
        let place = (times.len() * permille / 1000).min(times.len() - 1);
        times[place].as_secs_f64() * 1000.0
    };
    format!(
        "p50 {:7.2}  p99 {:7.2}  max {:7.2} ms, {} bytes each",
        at(500),
        at(990),
        at(1000),
        bytes / times.len()
    )
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse().unwrap());
    let torrents: u32 = numbers.next().unwrap_or(100_000);
    let requests = numbers.next().unwrap_or(2000) as usize;
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        ..Settings::default()
    };
    let registry = Arc::new(Registry::new(1));
    let build = BuildInfo {
        version: String::new(),
        commit: String::new(),
    };
    let (server, mut seat) = command::pair();
    let (_, none) = mpsc::channel(1);
    let commands = std::mem::replace(&mut seat.commands, none);
    let facts = Arc::new(Facts::new(&build, Arc::default()));
    let api = Api::open(&settings, folder.path(), server, facts, registry.control()).unwrap();
    let listener = http::listen(&settings, Some(folder.path())).await.unwrap();
    let address = listener.address.unwrap();
    let service = Service {
        exporter: Arc::new(Exporter::new(Arc::clone(&registry), &build).unwrap()),
        status: Arc::new(Readiness::new([], registry.control())),
        cells: registry.control(),
        api: Some(api),
    };
    tokio::spawn(http::serve(listener, service, std::future::pending()));
    let start = Instant::now();
    seat.change(|catalog| (0..torrents).for_each(|number| assert!(catalog.add(torrent(number)))));
    println!("{torrents} torrents added in {:?}", start.elapsed());
    let revision = seat.catalog().revision();
    let seat = Arc::new(seat);
    tokio::spawn(answer(commands));
    tokio::spawn(change(Arc::clone(&seat), torrents));
    let token = std::fs::read_to_string(folder.path().join(TOKEN_FILE)).unwrap();
    let token = token.trim();
    let one = (0..1000).map(|number| {
        let hash = torrent(number * 97 % torrents).info_hash;
        format!("/torrents/{hash}")
    });
    let middle = torrents / 2;
    for (what, paths) in [
        ("a page of 100", vec!["/torrents?limit=100".to_owned()]),
        (
            "the same, in the middle",
            vec![format!("/torrents?limit=100&offset={middle}")],
        ),
        (
            "sorted by rate",
            vec!["/torrents?sort=upload_rate&order=desc".to_owned()],
        ),
        ("sorted by name", vec!["/torrents?sort=name".to_owned()]),
        (
            "of a label, by name",
            vec!["/torrents?label=label+3&sort=name".to_owned()],
        ),
        ("with a text", vec!["/torrents?q=called.4242".to_owned()]),
        ("one torrent", one.collect()),
        (
            "changes, 1000 at most",
            vec![format!("/changes?since={revision}")],
        ),
        ("the server", vec!["/server".to_owned()]),
        ("labels", vec!["/labels".to_owned()]),
    ] {
        let measured = measure(address, token, paths, requests).await;
        println!("{what:26} {measured}");
    }
}
