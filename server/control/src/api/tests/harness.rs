//! A server whose torrents are in its catalog alone, and clients that write their requests byte by
//! byte.

use crate::announce::{TrackerState, TrackerStatus};
use crate::api::{Api, Facts, TOKEN_FILE};
use crate::catalog::{self, Catalog, Live, Status};
use crate::command::{
    self, Action, AddSource, AddTorrent, Added, Command, CommandError, Described, Edit, FileStatus,
    PeerStatus, Pieces, Rename, Seat, SourceStatus,
};
use crate::config::Api as Settings;
use crate::exporter::{BuildInfo, Exporter};
use crate::http::{self, Readiness, Service};
use ::state::{Summary, Totals};
use engine::picker::Priority;
use proto::ids::InfoHashV1;
use seedring_metrics::{ControlCells, Registry};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// A tracker's URL with something that nobody else may know.
pub(super) const SECRET_URL: &str = "http://tracker.example:6969/secretkey/announce";

/// One with nothing of the kind.
pub(super) const OPEN_URL: &str = "udp://open.example:80/announce";

/// What the server says is its .torrent file, whatever torrent it is of.
pub(super) const METAINFO: &[u8] = b"d4:infodee";

/// A running server and its API.
pub(super) struct Bench {
    pub(super) address: SocketAddr,
    pub(super) api: Arc<Api>,
    pub(super) changeable: Arc<http::Changeable>,
    pub(super) token: String,
    pub(super) cells: Arc<ControlCells>,
    pub(super) folder: TempDir,
    pub(super) seat: Arc<Seat>,
    /// Every command that has come, as Debug writes it.
    pub(super) commands: Arc<Mutex<Vec<String>>>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn of(bytes: &[u8]) -> Answer {
        let end = bytes.windows(4).position(|part| part == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no head: {:?}", String::from_utf8_lossy(bytes)));
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head,
            body: bytes[end + 4..].to_vec(),
        }
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1);
        lines.find_map(|line| {
            let (said, value) = line.split_once(": ")?;
            said.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// The kind of a problem, without what all kinds begin with, and its field.
    pub(super) fn problem(&self) -> (String, String) {
        let kind = self.header("content-type");
        assert_eq!(kind, Some("application/problem+json"), "{}", self.head);
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{problem}");
        assert!(!problem["title"].as_str().unwrap().is_empty());
        assert!(!problem["detail"].as_str().unwrap().is_empty());
        let kind = problem["type"].as_str().unwrap();
        let kind = kind.strip_prefix("urn:seedring:").unwrap().to_owned();
        let field = problem["field"].as_str().unwrap_or_default().to_owned();
        (kind, field)
    }
}

pub(super) fn hash(number: u8) -> InfoHashV1 {
    InfoHashV1([number; 20])
}

/// A torrent of some megabytes.
pub(super) fn torrent(number: u8) -> catalog::Torrent {
    catalog::Torrent {
        info_hash: hash(number),
        summary: Summary {
            name: format!("Torrent {number}"),
            total_bytes: 1_000_000 * u64::from(number),
            piece_bytes: 1000,
            pieces: 1000 * u32::from(number),
            files: 2,
            save_path: PathBuf::from("/data"),
            labels: vec![format!("label {}", number % 2)],
            added_at_s: 1_700_000_000,
            ..Summary::default()
        },
        totals: Totals::default(),
        pieces_verified: 0,
        live: Live {
            status: Status::Seeding,
            ..Live::default()
        },
    }
}

/// A server with the settings that `change` makes of the usual ones.
pub(super) async fn bench(change: impl FnOnce(&mut Settings)) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings {
        listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        ..Settings::default()
    };
    change(&mut settings);
    let registry = Arc::new(Registry::new(1));
    let cells = registry.control();
    let build = BuildInfo {
        version: "1.2.3".to_owned(),
        commit: "abcdef".to_owned(),
    };
    let (server, mut seat) = command::pair();
    let (_, none) = mpsc::channel(1);
    let asked = std::mem::replace(&mut seat.commands, none);
    let seat = Arc::new(seat);
    let facts = Arc::new(Facts::new(&build, Arc::default()));
    let state_dir = folder.path();
    let api = Api::open(&settings, state_dir, server, facts, Arc::clone(&cells)).unwrap();
    let listener = http::listen(&settings, Some(state_dir)).await.unwrap();
    let changeable = listener.changeable();
    let address = listener.address.unwrap();
    let service = Service {
        exporter: Arc::new(Exporter::new(Arc::clone(&registry), &build).unwrap()),
        status: Arc::new(Readiness::new([], registry.control())),
        cells: Arc::clone(&cells),
        api: Some(Arc::clone(&api)),
    };
    let commands = Arc::default();
    tokio::spawn(answer(asked, Arc::clone(&seat), Arc::clone(&commands)));
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(http::serve(listener, service, async {
        let _ = stopped.await;
    }));
    let token = std::fs::read_to_string(state_dir.join(TOKEN_FILE)).unwrap();
    Bench {
        address,
        api,
        changeable,
        token: token.trim().to_owned(),
        cells,
        folder,
        seat,
        commands,
        stop: Some(stop),
        task,
    }
}

impl Bench {
    /// Puts torrents of these numbers into the catalog.
    pub(super) fn fill(&self, numbers: impl IntoIterator<Item = u8>) {
        self.seat.change(|catalog| {
            for number in numbers {
                assert!(catalog.add(torrent(number)));
            }
        });
    }

    /// What a refused request must leave as it is.
    pub(super) fn revision(&self) -> (u64, usize) {
        let commands = self.commands.lock().unwrap();
        let changing = commands.iter().filter(|command| is_changing(command));
        (self.seat.catalog().revision(), changing.count())
    }

    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    pub(super) async fn connect_socket(&self) -> UnixStream {
        let path = self.folder.path().join(http::SOCKET_FILE);
        UnixStream::connect(path).await.unwrap()
    }

    /// Sends a request with these header lines, each with its end.
    pub(super) async fn send(&self, line: &str, headers: &str, body: &[u8]) -> Answer {
        exchange(self.connect().await, line, headers, body).await
    }

    /// The same as who knows the token, with JSON if there is a body.
    pub(super) async fn ask(&self, line: &str, body: &str) -> Answer {
        let kind = match body {
            "" => "",
            _ => "Content-Type: application/json\r\n",
        };
        let headers = format!("Authorization: Bearer {}\r\n{kind}", self.token);
        self.send(line, &headers, body.as_bytes()).await
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path}"), "").await
    }

    pub(super) async fn stop(self) {
        drop(self.stop_and_keep().await);
    }

    /// Stops it; its folder stays until it is dropped.
    pub(super) async fn stop_and_keep(mut self) -> TempDir {
        drop(self.stop.take());
        self.task.await.unwrap();
        self.folder
    }
}

fn is_changing(command: &str) -> bool {
    let reading = [
        "Describe", "Files", "Peers", "Trackers", "Pieces", "Metainfo", "Limits",
    ];
    !reading.iter().any(|name| {
        let rest = command.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with('('))
    })
}

/// Sends a request below the API's prefix, and reads until the connection ends.
pub(super) async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    line: &str,
    headers: &str,
    body: &[u8],
) -> Answer {
    let (method, path) = line.split_once(' ').unwrap();
    let host = match headers.to_ascii_lowercase().contains("host: ") {
        true => "",
        false => "Host: localhost\r\n",
    };
    let length = match body.is_empty() && method == "GET" {
        true => String::new(),
        false => format!("Content-Length: {}\r\n", body.len()),
    };
    let head = format!(
        "{method} /api/v1{path} HTTP/1.1\r\n{host}{headers}{length}Connection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // It may have been refused before its end.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    Answer::of(&answer)
}

/// Does what is asked.
async fn answer(
    mut asked: mpsc::Receiver<Command>,
    seat: Arc<Seat>,
    commands: Arc<Mutex<Vec<String>>>,
) {
    while let Some(command) = asked.recv().await {
        commands.lock().unwrap().push(format!("{command:?}"));
        match command {
            Command::Add(torrent, reply) => {
                let _ = reply.send(add(&seat, &torrent));
            }
            Command::Act(hash, action, reply) => {
                let _ = reply.send(act(&seat, hash, action));
            }
            Command::Edit(hash, edit, reply) => {
                seat.change(|catalog| change(catalog, hash, &edit));
                let _ = reply.send(Ok(()));
            }
            Command::Move(hash, movement, reply) => {
                seat.change(|catalog| {
                    catalog.change(&hash, |torrent| {
                        torrent.summary.save_path = movement.save_path.clone();
                    })
                });
                let _ = reply.send(Ok(()));
            }
            Command::Rename(_, rename, reply) => {
                let _ = reply.send(match rename {
                    Rename::File { index: 0..2, .. } => Ok(()),
                    Rename::Path { from, .. } if from.starts_with("folder") => Ok(()),
                    Rename::Path { .. } => Err(CommandError::Conflict("no such path".into())),
                    Rename::File { .. } => Err(CommandError::Invalid {
                        field: "index",
                        reason: "the torrent has 2 files".to_owned(),
                    }),
                });
            }
            Command::AddPeers(_, _, reply) => {
                let _ = reply.send(Ok(()));
            }
            Command::Limits(reply) => {
                let _ = reply.send(Ok(command::ServerLimits::default()));
            }
            Command::SetLimits(limits, reply) => {
                let _ = reply.send(Ok(limits.of(command::ServerLimits::default())));
            }
            other => tell(other),
        }
    }
}

/// Tells what is asked of a torrent.
fn tell(command: Command) {
    match command {
        Command::Describe(_, reply) => {
            let _ = reply.send(Ok(Box::new(described())));
        }
        Command::Files(_, reply) => {
            let _ = reply.send(Ok(vec![FileStatus {
                index: 0,
                path: PathBuf::from("folder/file"),
                length: 10,
                bytes_verified: 4,
                priority: Priority::NORMAL,
            }]));
        }
        Command::Peers(_, reply) => {
            let _ = reply.send(Ok(vec![peer()]));
        }
        Command::Trackers(_, reply) => {
            let _ = reply.send(Ok(vec![tracker()]));
        }
        Command::Pieces(_, reply) => {
            let _ = reply.send(Ok(Pieces {
                count: 10,
                verified: vec![0b1010_0000, 0b0100_0000],
            }));
        }
        Command::Metainfo(_, reply) => {
            let _ = reply.send(Ok(METAINFO.to_vec()));
        }
        _ => {}
    }
}

fn described() -> Described {
    let urls = [SECRET_URL, OPEN_URL].map(|url| vec![url.to_owned()]);
    Described {
        comment: Some("by hand".to_owned()),
        magnet: format!(
            "magnet:?xt=urn:btih:{}&tr={SECRET_URL}&tr={OPEN_URL}",
            hash(1)
        ),
        trackers: urls.to_vec(),
        web_seeds: vec!["http://user:password@seeds.example/files".to_owned()],
        queue_position: Some(3),
        sources: vec![SourceStatus {
            source: "dht",
            named: 5,
            connected: 2,
        }],
        ..Described::default()
    }
}

fn peer() -> PeerStatus {
    PeerStatus {
        address: SocketAddr::from(([192, 0, 2, 1], 6881)),
        client: "Client 1.0".to_owned(),
        incoming: true,
        source: "tracker",
        has_permille: 500,
        uploaded: 1,
        downloaded: 2,
        upload_rate: 3,
        download_rate: 4,
        am_choking: true,
        peer_interested: false,
        peer_choking: true,
        am_interested: false,
    }
}

fn tracker() -> TrackerStatus {
    TrackerStatus {
        tracker: "http://tracker.example:6969/…".to_owned(),
        tier: 0,
        state: TrackerState::Working,
        since_last: Some(std::time::Duration::from_secs(5)),
        asking_for: None,
        until_next: Some(std::time::Duration::from_secs(1800)),
        seeders: Some(2),
        leechers: None,
        downloaded: None,
        peers: 2,
        message: None,
    }
}

fn add(seat: &Seat, torrent: &AddTorrent) -> Result<Added, CommandError> {
    let info_hash = match &torrent.source {
        AddSource::Magnet(magnet) => magnet.info_hash_v1.unwrap(),
        AddSource::Metainfo(bytes) => hash(bytes.len() as u8),
        AddSource::Path(_) => return Err(CommandError::Unsupported("no paths".to_owned())),
        AddSource::Url(url) => {
            return Err(match url.as_str() {
                "http://conflict.example/" => CommandError::Conflict("not now".to_owned()),
                "http://busy.example/" => CommandError::Busy,
                _ => CommandError::Failed("nobody answers".to_owned()),
            });
        }
    };
    let name = torrent.name.clone().unwrap_or_default();
    let mut added = self::torrent(0);
    added.info_hash = info_hash;
    added.summary.name.clone_from(&name);
    added.summary.labels.clone_from(&torrent.labels);
    added.summary.category.clone_from(&torrent.category);
    added.summary.paused = torrent.paused;
    let is_new = seat.change(|catalog| catalog.add(added));
    Ok(Added {
        info_hash,
        name,
        was_there: !is_new,
    })
}

fn act(seat: &Seat, hash: InfoHashV1, action: Action) -> Result<(), CommandError> {
    let is_known = seat.change(|catalog| match action {
        Action::Remove { .. } => catalog.remove(&hash).is_some(),
        Action::Pause | Action::Resume => catalog.change(&hash, |torrent| {
            torrent.summary.paused = action == Action::Pause;
        }),
        _ => true,
    });
    match is_known {
        true => Ok(()),
        false => Err(CommandError::Unknown(hash)),
    }
}

fn change(catalog: &mut Catalog, hash: InfoHashV1, edit: &Edit) {
    catalog.change(&hash, |torrent| {
        let summary = &mut torrent.summary;
        if let Some(name) = &edit.name {
            summary.name.clone_from(name);
        }
        if let Some(category) = &edit.category {
            summary.category.clone_from(category);
        }
        if let Some(labels) = &edit.labels {
            summary.labels.clone_from(labels);
        }
        summary.labels.extend_from_slice(&edit.labels_added);
        edit.limits.apply(&mut summary.limits);
    });
}
