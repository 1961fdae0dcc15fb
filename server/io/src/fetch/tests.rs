//! Downloads over loopback, from our own seeds and from scripted ones. Waits end when their event
//! comes; the limits on them only end a failed test.

use super::*;
use crate::plane::{Event, Plane, PlaneConfig};
use crate::testing::{self, Content};
use proto::handshake::{HANDSHAKE_BYTES, Handshake, Reserved, ReservedBit};
use proto::ids::PeerId;
use proto::wire::{self, BlockRequest, Message};
use seedring_metrics::Registry;
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use tempfile::TempDir;
use tokio::runtime::Runtime;

mod caching;
mod discovery;
mod faults;
mod limits;
mod metadata;
mod peers;
mod sleeping;
mod visitors;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

const PIECE: usize = 64 << 10;

/// A data plane, and the runtime to call it from.
struct Server {
    plane: Plane,
    events: mpsc::UnboundedReceiver<Event>,
    runtime: Runtime,
}

/// A configuration under which nothing waits long.
fn config(id: u8) -> PlaneConfig {
    let mut config = testing::config();
    config.peer_id = PeerId([b'a' + id; 20]);
    config.connections_max = 64;
    config.fetch.sync_period = Duration::from_millis(200);
    config.fetch.retry_period = Duration::from_millis(100);
    config.fetch.hash_threads = 2;
    config
}

fn server(config: PlaneConfig) -> Server {
    let registry = Registry::new(config.shards);
    server_with(config, &registry)
}

/// The same, with counters to look at.
fn server_with(config: PlaneConfig, registry: &Registry) -> Server {
    let (plane, events) = Plane::start(config, registry).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    Server {
        plane,
        events,
        runtime,
    }
}

impl Server {
    fn address(&self) -> SocketAddr {
        self.plane.addresses()[0]
    }

    fn fetch(&self, spec: FetchSpec) -> (Fetch, mpsc::Receiver<FetchEvent>) {
        self.runtime.block_on(self.plane.fetch(spec)).unwrap()
    }

    fn next(&self, events: &mut mpsc::Receiver<FetchEvent>) -> FetchEvent {
        let event = async { tokio::time::timeout(PATIENCE, events.recv()).await };
        let event = self.runtime.block_on(event);
        event.expect("an event in time").expect("it has not ended")
    }

    /// Reads events up to the one that `is_it`; returns the pieces that were told as synced until
    /// then.
    fn wait(
        &self,
        events: &mut mpsc::Receiver<FetchEvent>,
        is_it: impl Fn(&FetchEvent) -> bool,
    ) -> BTreeSet<PieceIndex> {
        let mut synced = BTreeSet::new();
        loop {
            let event = self.next(events);
            if let FetchEvent::Synced { pieces, .. } = &event {
                for piece in pieces {
                    assert!(synced.insert(*piece), "{piece} is told once");
                }
            }
            if is_it(&event) {
                return synced;
            }
            assert!(
                !matches!(event, FetchEvent::Failed(_) | FetchEvent::Complete(_)),
                "{event:?}"
            );
        }
    }

    fn stop(self) {
        assert!(self.runtime.block_on(self.plane.stop(PATIENCE)));
    }

    /// Waits until `is_so` of the progress.
    fn until(&self, fetch: &Fetch, is_so: impl Fn(&FetchProgress) -> bool) {
        let end = std::time::Instant::now() + PATIENCE;
        loop {
            let progress = fetch.progress();
            let by_source = PeerSource::ALL.map(|source| progress.peers_by_source.get(source));
            assert_eq!(by_source.iter().sum::<u32>(), progress.peers);
            if is_so(&progress) {
                return;
            }
            assert!(std::time::Instant::now() < end, "{progress:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn is_complete(event: &FetchEvent) -> bool {
    matches!(event, FetchEvent::Complete(_))
}

/// A server that seeds `content`.
fn seed(content: &Content, id: u8) -> Server {
    let seed = server(config(id));
    seed.runtime.block_on(seed.plane.add(&content.seeded()));
    seed
}

/// How a scripted seed behaves.
#[derive(Clone)]
struct Script {
    id: u8,
    /// Whether each block it sends is wrong.
    lies: bool,
    /// The pieces that it has.
    has: Vec<bool>,
    /// After so many blocks it sends no more.
    blocks_max: usize,
}

impl Script {
    fn all(content: &Content, id: u8) -> Script {
        Script {
            id,
            lies: false,
            has: vec![true; content.metainfo.piece_count as usize],
            blocks_max: usize::MAX,
        }
    }
}

/// A seed that accepts connections and follows `script`.
fn scripted(content: &Content, script: Script) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let content = content.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (content, script) = (content.clone(), script.clone());
            thread::spawn(move || follow(stream.unwrap(), &content, &script));
        }
    });
    address
}

fn follow(mut stream: TcpStream, content: &Content, script: &Script) {
    let handshake = Handshake {
        reserved: Reserved::NONE.with(ReservedBit::FAST),
        info_hash: content.metainfo.info_hash_v1.unwrap(),
        peer_id: PeerId([b'A' + script.id; 20]),
    };
    let mut bits = vec![0; script.has.len().div_ceil(8)];
    for (piece, _) in script.has.iter().enumerate().filter(|(_, has)| **has) {
        bits[piece / 8] |= 0x80 >> (piece % 8);
    }
    let mut opening = handshake.encode().to_vec();
    Message::Bitfield(&bits).encode(&mut opening);
    Message::Unchoke.encode(&mut opening);
    if stream.write_all(&opening).is_err() || stream.read_exact(&mut [0; HANDSHAKE_BYTES]).is_err()
    {
        return;
    }
    let mut sent = 0;
    while let Some(body) = read_message(&mut stream) {
        if body.first() != Some(&wire::id::REQUEST) || sent == script.blocks_max {
            continue;
        }
        sent += 1;
        let number = |at: usize| u32::from_be_bytes(body[at..at + 4].try_into().unwrap());
        let (piece, begin, length) = (number(1), number(5), number(9));
        let start = piece as usize * content.metainfo.piece_length as usize + begin as usize;
        let mut block = content.bytes[start..start + length as usize].to_vec();
        if script.lies {
            block[0] ^= 1;
        }
        let mut answer = Vec::new();
        Message::Piece {
            piece: PieceIndex(piece),
            begin,
            block: &block,
        }
        .encode(&mut answer);
        if stream.write_all(&answer).is_err() {
            return;
        }
    }
}

/// The next message without its length prefix; `None` at the end.
fn read_message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut body = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut body).ok()?;
    Some(body)
}

#[test]
fn a_torrent_comes_whole_and_is_served_by_whoever_fetched_it() {
    let content = Content::new(&[("a", 40 * PIECE + 5)], PIECE);
    let seed = seed(&content, 0);
    let (first, second) = (server(config(1)), server(config(2)));
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let (fetch, mut events) =
        first.fetch(FetchSpec::new(content.metainfo.clone(), folders[0].path()));
    fetch.add_peers(&[seed.address()]);
    let synced = first.wait(&mut events, is_complete);
    assert_eq!(synced.len(), 41);
    content.assert_is_in(folders[0].path());
    let progress = fetch.progress();
    assert_eq!((progress.pieces_stored, progress.pieces_wanted), (41, 0));
    assert!(progress.downloaded >= content.bytes.len() as u64);
    seed.stop();
    let (fetch, mut events) =
        second.fetch(FetchSpec::new(content.metainfo.clone(), folders[1].path()));
    fetch.add_peers(&[first.address()]);
    second.wait(&mut events, is_complete);
    content.assert_is_in(folders[1].path());
    first.stop();
    second.stop();
}

#[test]
fn files_of_every_kind_are_made() {
    let files = [
        ("one", 3 * PIECE - 7),
        ("empty", 0),
        ("pad1", 7),
        ("tiny", 1),
        ("two", 5),
        ("three", 2 * PIECE),
        ("empty2", 0),
    ];
    let content = Content::new(&files, PIECE);
    let (seed, server) = (seed(&content, 0), server(config(1)));
    let folder = TempDir::new().unwrap();
    let mut spec = FetchSpec::new(content.metainfo.clone(), folder.path());
    spec.allocation = Allocation::Full;
    let (fetch, mut events) = server.fetch(spec);
    fetch.add_peers(&[seed.address()]);
    server.wait(&mut events, is_complete);
    content.assert_is_in(folder.path());
    let names = fs::read_dir(folder.path().join("t")).unwrap().count();
    assert_eq!(names, 6, "no padding, and nothing under another name");
    seed.stop();
    server.stop();
}

#[test]
fn a_file_has_its_suffix_until_it_is_whole_unless_its_name_would_become_too_long() {
    let long: &'static str = "n".repeat(251).leak();
    let content = Content::new(&[("short", 2 * PIECE), (long, 2 * PIECE)], PIECE);
    let server = server(config(1));
    let folder = TempDir::new().unwrap();
    let spec = FetchSpec::new(content.metainfo.clone(), folder.path());
    let at = |file| file_on_disk(&content.metainfo, FileIndex(file), folder.path(), ".part");
    let path = |name: &str| folder.path().join("t").join(name);
    let both = [Some(path("short.part")), Some(path(long))];
    assert_eq!(
        [at(0), at(1), at(2)],
        [both[0].clone(), both[1].clone(), None]
    );
    let (fetch, mut events) = server.fetch(spec);
    let most = Script {
        has: vec![true, false, false, true],
        ..Script::all(&content, 0)
    };
    fetch.add_peers(&[scripted(&content, most)]);
    server.until(&fetch, |progress| progress.pieces_stored == 2);
    assert_eq!([at(0), at(1)], both);
    assert!(path("short.part").exists() && path(long).exists());
    fetch.add_peers(&[scripted(&content, Script::all(&content, 1))]);
    server.wait(&mut events, is_complete);
    assert_eq!(at(0), Some(path("short")));
    content.assert_is_in(folder.path());
    server.stop();
}

#[test]
fn long_pieces_cost_no_more_memory_than_there_is() {
    // Eight pieces of 3 MiB at a time from eight peers, in 4 MiB.
    let content = Content::new(&[("a", 24 << 20)], 3 << 20);
    let mut config = config(1);
    config.fetch.buffer_bytes = 4 << 20;
    config.fetch.datacenter = true;
    let server = server(config);
    let folder = TempDir::new().unwrap();
    let (fetch, mut events) = server.fetch(FetchSpec::new(content.metainfo.clone(), folder.path()));
    let peers: Vec<_> = (0..8)
        .map(|id| scripted(&content, Script::all(&content, id)))
        .collect();
    fetch.add_peers(&peers);
    server.wait(&mut events, is_complete);
    content.assert_is_in(folder.path());
    assert_eq!(fetch.progress().hash_failures, 0);
    server.stop();
}

#[test]
fn no_suffix_makes_one_file_of_two() {
    let renamed = |names: &[&'static str], paths: &[(u32, &str)]| {
        let files: Vec<_> = names.iter().map(|&name| (name, 5)).collect();
        let content = Content::new(&files, PIECE);
        let mut spec = FetchSpec::new(content.metainfo.clone(), ".".as_ref());
        let paths = paths.iter().map(|(index, path)| (*index, path.into()));
        spec.paths = paths.collect();
        spec.set_suffix(".part");
        spec.suffix
    };
    let suffix = |names: &[&'static str]| renamed(names, &[]);
    assert_eq!(suffix(&["x", "y.part", "x.part2"]), ".part");
    assert_eq!(suffix(&["x", "x.part"]), "");
    assert_eq!(suffix(&["X", "y", "x.PART"]), "");
    // Where they lie now counts, not where the metainfo has them.
    assert_eq!(renamed(&["x", "y"], &[(1, "elsewhere/x.part")]), ".part");
    let both = [(0, "elsewhere/x"), (1, "elsewhere/x.part/y")];
    assert_eq!(renamed(&["x", "y"], &both), "");
    assert_eq!(renamed(&["x", "x.part"], &[(1, "elsewhere/y")]), ".part");
}

#[test]
fn a_liar_is_banned_and_nobody_else() {
    let content = Content::new(&[("a", 60 * PIECE)], PIECE);
    let server = server(config(1));
    let folder = TempDir::new().unwrap();
    let (fetch, mut events) = server.fetch(FetchSpec::new(content.metainfo.clone(), folder.path()));
    let liar = Script {
        lies: true,
        ..Script::all(&content, 9)
    };
    let liar = scripted(&content, liar);
    // It is alone at first, so that it is asked for something.
    fetch.add_peers(&[liar]);
    let is_ban = |event: &FetchEvent| match event {
        FetchEvent::Banned { peer } => *peer == liar,
        _ => false,
    };
    assert!(server.wait(&mut events, is_ban).is_empty());
    let honest: Vec<_> = (0..3)
        .map(|id| scripted(&content, Script::all(&content, id)))
        .collect();
    fetch.add_peers(&honest);
    fetch.add_peers(&[liar]);
    let is_end = |event: &FetchEvent| {
        assert!(!matches!(event, FetchEvent::Banned { .. }), "{event:?}");
        is_complete(event)
    };
    server.wait(&mut events, is_end);
    content.assert_is_in(folder.path());
    assert!(fetch.progress().hash_failures > 0);
    server.stop();
}

#[test]
fn what_was_synced_is_enough_to_go_on() {
    let content = Content::new(&[("a", 10 * PIECE), ("b", 10 * PIECE)], PIECE);
    let folder = TempDir::new().unwrap();
    let server = server(config(1));
    let (fetch, mut events) = server.fetch(FetchSpec::new(content.metainfo.clone(), folder.path()));
    let script = Script {
        blocks_max: 7 * PIECE / (16 << 10),
        ..Script::all(&content, 0)
    };
    fetch.add_peers(&[scripted(&content, script)]);
    let mut bits = vec![0; 3];
    let mut note = |pieces: &[PieceIndex]| {
        for piece in pieces {
            bits[piece.0 as usize / 8] |= 0x80 >> (piece.0 % 8);
        }
    };
    server.until(&fetch, |progress| progress.pieces_stored > 0);
    assert!(server.runtime.block_on(fetch.stop(PATIENCE)));
    let stored = fetch.progress().pieces_stored;
    let mut told = 0;
    while let Some(event) = server.runtime.block_on(events.recv()) {
        if let FetchEvent::Synced { pieces, stamps } = event {
            assert!(!stamps.is_empty());
            told += pieces.len();
            note(&pieces);
        }
    }
    assert_eq!(told, stored as usize);
    let mut spec = FetchSpec::new(content.metainfo.clone(), folder.path());
    spec.verified = bits;
    let (fetch, mut events) = server.fetch(spec);
    fetch.add_peers(&[scripted(&content, Script::all(&content, 1))]);
    server.wait(&mut events, is_complete);
    content.assert_is_in(folder.path());
    let progress = fetch.progress();
    assert_eq!(
        progress.downloaded - progress.wasted,
        ((20 - stored as usize) * PIECE) as u64
    );
    server.stop();
}

#[test]
fn a_disk_that_is_away_pauses_the_download_until_it_is_back() {
    let content = Content::new(&[("a", 10 * PIECE)], PIECE);
    let (seed, server) = (seed(&content, 0), server(config(1)));
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("mount");
    let (fetch, mut events) = server.fetch(FetchSpec::new(content.metainfo.clone(), &data));
    fetch.add_peers(&[seed.address()]);
    let is_paused = |event: &FetchEvent| match event {
        FetchEvent::Paused { reason, .. } => {
            assert!(reason.contains("/mount: No such file"), "{reason}");
            true
        }
        _ => false,
    };
    assert!(server.wait(&mut events, is_paused).is_empty());
    assert!(fetch.progress().paused.is_some());
    fs::create_dir(&data).unwrap();
    server.wait(&mut events, |event| matches!(event, FetchEvent::Resumed));
    server.wait(&mut events, is_complete);
    content.assert_is_in(&data);
    seed.stop();
    server.stop();
}

#[test]
fn what_others_would_see_is_not_written_to() {
    let content = Content::new(&[("a", 2 * PIECE)], PIECE);
    let (seed, server) = (seed(&content, 0), server(config(1)));
    let place = |make: &dyn Fn(&Path, &Path)| {
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join("t")).unwrap();
        let (outside, inside) = (folder.path().join("precious"), folder.path().join("t/a"));
        fs::write(&outside, b"precious").unwrap();
        make(&outside, &inside);
        let spec = FetchSpec::new(content.metainfo.clone(), folder.path());
        let (fetch, mut events) = server.fetch(spec);
        fetch.add_peers(&[seed.address()]);
        let is_failure = |event: &FetchEvent| matches!(event, FetchEvent::Failed(_));
        server.wait(&mut events, is_failure);
        assert!(server.runtime.block_on(fetch.stop(PATIENCE)));
        assert_eq!(fs::read(&outside).unwrap(), b"precious");
    };
    place(&|outside, inside| fs::hard_link(outside, inside).unwrap());
    place(&|outside, inside| std::os::unix::fs::symlink(outside, inside).unwrap());
    place(&|_, inside| fs::create_dir(inside).unwrap());
    seed.stop();
    server.stop();
}

#[test]
fn files_that_are_not_wanted_are_left_out_until_they_are() {
    let content = Content::new(&[("a", 4 * PIECE), ("b", 4 * PIECE), ("c", PIECE)], PIECE);
    let (seed, server) = (seed(&content, 0), server(config(1)));
    let folder = TempDir::new().unwrap();
    let mut spec = FetchSpec::new(content.metainfo.clone(), folder.path());
    spec.priorities = vec![Priority::SKIP, Priority::NORMAL, Priority::SKIP];
    let (fetch, mut events) = server.fetch(spec);
    fetch.add_peers(&[seed.address()]);
    let is_done = |event: &FetchEvent| matches!(event, FetchEvent::SelectionDone);
    assert_eq!(server.wait(&mut events, is_done).len(), 4);
    let there = |name: &str| folder.path().join("t").join(name).exists();
    assert!(there("b") && !there("a") && !there("a.part") && !there("c"));
    let all = vec![Priority::NORMAL; 3];
    server.runtime.block_on(fetch.set_priorities(all));
    assert_eq!(server.wait(&mut events, is_complete).len(), 5);
    content.assert_is_in(folder.path());
    seed.stop();
    server.stop();
}

#[test]
fn what_is_left_out_takes_no_space_beside_the_pieces_that_it_shares() {
    let files = [("a", 4 * PIECE + 9), ("b", 2 * PIECE - 9), ("empty", 0)];
    let content = Content::new(&files, PIECE);
    let (seed, server) = (seed(&content, 0), server(config(1)));
    let folder = TempDir::new().unwrap();
    let mut spec = FetchSpec::new(content.metainfo.clone(), folder.path());
    spec.priorities = vec![Priority::SKIP, Priority::NORMAL, Priority::SKIP];
    spec.allocation = Allocation::Full;
    let (fetch, mut events) = server.fetch(spec);
    fetch.add_peers(&[seed.address()]);
    let is_done = |event: &FetchEvent| matches!(event, FetchEvent::SelectionDone);
    assert_eq!(server.wait(&mut events, is_done).len(), 2);
    let path = |name: &str| folder.path().join("t").join(name);
    assert!(path("b").exists() && !path("empty").exists());
    let shared = fs::metadata(path("a.part")).unwrap();
    assert!(
        std::os::unix::fs::MetadataExt::blocks(&shared) * 512 < PIECE as u64,
        "nine bytes of it are needed: {shared:?}"
    );
    let all = vec![Priority::NORMAL; 3];
    server.runtime.block_on(fetch.set_priorities(all));
    server.wait(&mut events, is_complete);
    content.assert_is_in(folder.path());
    seed.stop();
    server.stop();
}

#[test]
fn a_folder_that_is_a_link_within_the_data_folder_is_written_to() {
    let content = Content::new(&[("sub/a", 2 * PIECE)], PIECE);
    let (seed, server) = (seed(&content, 0), server(config(1)));
    let folder = TempDir::new().unwrap();
    fs::create_dir_all(folder.path().join("real/t/sub")).unwrap();
    fs::create_dir(folder.path().join("t")).unwrap();
    // From below the torrent's folder to beside it.
    std::os::unix::fs::symlink("../real/t/sub", folder.path().join("t/sub")).unwrap();
    let spec = FetchSpec::new(content.metainfo.clone(), folder.path());
    let (fetch, mut events) = server.fetch(spec);
    fetch.add_peers(&[seed.address()]);
    server.wait(&mut events, is_complete);
    content.assert_is_in(&folder.path().join("real"));
    seed.stop();
    server.stop();
}

#[test]
fn who_fetches_passes_on_what_it_has() {
    let content = Content::new(&[("a", 8 * PIECE)], PIECE);
    let [first, second] = [1, 2].map(|id| server(config(id)));
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    // Each is given half by another source, and has to get the rest from the other.
    let (even, odd) = ([0, 1], [1, 0]);
    let half = |offset: usize| (0..8).map(|piece| piece % 2 == offset).collect();
    let script = |id: u8, offset| Script {
        has: half(offset),
        ..Script::all(&content, id)
    };
    let (one, mut events_of_one) =
        first.fetch(FetchSpec::new(content.metainfo.clone(), folders[0].path()));
    let (two, mut events_of_two) =
        second.fetch(FetchSpec::new(content.metainfo.clone(), folders[1].path()));
    one.add_peers(&[scripted(&content, script(3, even[0]))]);
    two.add_peers(&[scripted(&content, script(4, odd[0])), first.address()]);
    first.wait(&mut events_of_one, is_complete);
    second.wait(&mut events_of_two, is_complete);
    for folder in &folders {
        content.assert_is_in(folder.path());
    }
    assert!(one.progress().uploaded > 0 && two.progress().uploaded > 0);
    first.stop();
    second.stop();
}

#[test]
fn peers_of_any_shard_come_to_the_one_that_downloads() {
    let content = Content::new(&[("a", 16 * PIECE)], PIECE);
    let mut config = config(1);
    config.shards = 3;
    let server = server(config);
    let folder = TempDir::new().unwrap();
    let (fetch, mut events) = server.fetch(FetchSpec::new(content.metainfo.clone(), folder.path()));
    // The kernel spreads them over the shards by chance: twelve on one of three is one in 170,000.
    for id in 0..12 {
        let stream = TcpStream::connect(server.address()).unwrap();
        let content = content.clone();
        let script = Script {
            has: (0..16).map(|piece| piece % 12 == usize::from(id)).collect(),
            ..Script::all(&content, id)
        };
        thread::spawn(move || follow(stream, &content, &script));
    }
    server.until(&fetch, |progress| progress.peers == 12);
    // They have all but these four.
    let rest = Script {
        has: (0..16).map(|piece| piece >= 12).collect(),
        ..Script::all(&content, 20)
    };
    fetch.add_peers(&[scripted(&content, rest)]);
    server.wait(&mut events, is_complete);
    content.assert_is_in(folder.path());
    // Each shard serves it now.
    for _ in 0..12 {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let handshake = Handshake {
            reserved: Reserved::NONE,
            info_hash: content.metainfo.info_hash_v1.unwrap(),
            peer_id: PeerId(*b"-XX0000-testtesttest"),
        };
        stream.write_all(&handshake.encode()).unwrap();
        stream.read_exact(&mut [0; HANDSHAKE_BYTES]).unwrap();
    }
    server.stop();
}

#[test]
fn a_paused_download_asks_for_nothing() {
    let content = Content::new(&[("a", 8 * PIECE)], PIECE);
    let (seed, server) = (seed(&content, 0), server(config(1)));
    let folder = TempDir::new().unwrap();
    let (fetch, mut events) = server.fetch(FetchSpec::new(content.metainfo.clone(), folder.path()));
    server.runtime.block_on(fetch.pause());
    server.until(&fetch, |progress| progress.paused_by_user);
    // A peer that comes by itself is asked for nothing.
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let handshake = Handshake {
        reserved: Reserved::NONE.with(ReservedBit::FAST),
        info_hash: content.metainfo.info_hash_v1.unwrap(),
        peer_id: PeerId(*b"-XX0000-testtesttest"),
    };
    let mut opening = handshake.encode().to_vec();
    Message::HaveAll.encode(&mut opening);
    Message::Unchoke.encode(&mut opening);
    stream.write_all(&opening).unwrap();
    stream.read_exact(&mut [0; HANDSHAKE_BYTES]).unwrap();
    let mut heard = || read_message(&mut stream).unwrap()[0];
    assert_eq!(
        [heard(), heard()],
        [wire::id::HAVE_NONE, wire::id::INTERESTED]
    );
    // What it would have been asked for came before the answer to this.
    let block = BlockRequest {
        piece: PieceIndex(0),
        begin: 0,
        length: 1,
    };
    let mut request = Vec::new();
    Message::Request(block).encode(&mut request);
    stream.write_all(&request).unwrap();
    assert_eq!(read_message(&mut stream).unwrap()[0], wire::id::REJECT);
    fetch.add_peers(&[seed.address()]);
    server.runtime.block_on(fetch.resume());
    drop(stream);
    server.wait(&mut events, is_complete);
    seed.stop();
    server.stop();
}

#[test]
fn our_own_address_is_tried_once() {
    let content = Content::new(&[("a", 2 * PIECE)], PIECE);
    let server = server(config(1));
    let ours = config(1).peer_id;
    let folder = TempDir::new().unwrap();
    let (fetch, mut events) = server.fetch(FetchSpec::new(content.metainfo.clone(), folder.path()));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    fetch.add_peers(&[listener.local_addr().unwrap()]);
    let (mut stream, _) = listener.accept().unwrap();
    let handshake = Handshake {
        reserved: Reserved::NONE,
        info_hash: content.metainfo.info_hash_v1.unwrap(),
        peer_id: ours,
    };
    stream.write_all(&handshake.encode()).unwrap();
    // Until it is closed.
    let _ = stream.read_to_end(&mut Vec::new());
    fetch.add_peers(&[listener.local_addr().unwrap()]);
    fetch.add_peers(&[scripted(&content, Script::all(&content, 0))]);
    server.wait(&mut events, is_complete);
    assert_eq!(
        fetch.progress().candidates,
        0,
        "it does not wait to be tried again"
    );
    server.stop();
}

#[test]
fn a_torrent_that_is_here_already_is_not_begun_again() {
    let content = Content::new(&[("a", 8 * PIECE)], PIECE);
    let server = server(config(1));
    let folder = TempDir::new().unwrap();
    let spec = FetchSpec::new(content.metainfo.clone(), folder.path());
    let (fetch, _events) = server.fetch(spec.clone());
    let again = server.runtime.block_on(server.plane.fetch(spec.clone()));
    assert!(matches!(again, Err(FetchError::Present(_))));
    let mut wrong = spec.clone();
    wrong.verified = vec![0; 7];
    let wrong = server.runtime.block_on(server.plane.fetch(wrong));
    assert!(matches!(
        wrong,
        Err(FetchError::Mismatch {
            due: 1,
            given: 7,
            ..
        })
    ));
    assert!(server.runtime.block_on(fetch.stop(PATIENCE)));
    let (fetch, _events) = server.fetch(spec);
    assert!(server.runtime.block_on(fetch.stop(PATIENCE)));
    server.stop();
}

#[test]
fn metadata_come_from_a_seed_that_has_them() {
    let content = Content::new(&[("a", 4_000 * 64)], 64);
    let (seed, server) = (seed(&content, 0), server(config(1)));
    let info_hash = content.metainfo.info_hash_v1.unwrap();
    assert!(content.metainfo.info.len() > (64 << 10), "some blocks");
    let begun = server
        .runtime
        .block_on(server.plane.fetch_metadata(info_hash));
    let (fetch, mut events) = begun.unwrap();
    // Nobody listens at the first.
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    fetch.add_peers(&[nobody, server.address(), seed.address()]);
    let event = async { tokio::time::timeout(PATIENCE, events.recv()).await };
    let event = server.runtime.block_on(event).expect("in time");
    let Some(MetadataEvent::Complete(info)) = event else {
        panic!("{event:?}");
    };
    assert!(info[..] == content.metainfo.info[..]);
    let event = async { tokio::time::timeout(PATIENCE, events.recv()).await };
    let end = server.runtime.block_on(event).expect("in time");
    assert!(end.is_none(), "it is the last event");
    seed.stop();
    server.stop();
}
