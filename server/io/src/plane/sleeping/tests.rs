//! Dormant torrents over loopback, with a control plane that is played here. Waits end when their
//! event comes; the limits on them only end a failed test.

use super::*;
use crate::plane::{Event, PlaneConfig};
use crate::testing::{self, Data};
use proto::handshake::{HANDSHAKE_BYTES, Handshake, Reserved, ReservedBit};
use proto::ids::{PeerId, PieceIndex};
use proto::wire::{self, BlockRequest, Message};
use seedring_metrics::{ControlCounter, ControlGauge, Counter, Gauge, Registry};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

const FILE_BYTES: usize = 40 << 10;
const PIECE_BYTES: usize = 16 << 10;

/// All torrents may stay awake.
const AWAKE: SleepPolicy = SleepPolicy {
    awake_max: usize::MAX,
    idle_min: Duration::ZERO,
};

/// None may that nobody uses.
const ASLEEP: SleepPolicy = SleepPolicy {
    awake_max: 0,
    idle_min: Duration::ZERO,
};

/// Torrents of one file, each with a name of its own, and what has become of them.
struct Library {
    data: Data,
    names: HashMap<InfoHashV1, String>,
    hashes: Vec<InfoHashV1>,
    loads: AtomicUsize,
    uploaded_bytes: AtomicU64,
    /// Those that were served.
    loaded: Mutex<Vec<std::sync::Weak<SeededTorrent>>>,
}

impl Library {
    fn new(count: usize) -> Arc<Library> {
        let data = Data::new(&[("a", FILE_BYTES)]);
        let names = (0..count).map(|number| format!("torrent {number}"));
        let hash = |name: &String| data.torrent_named(name, PIECE_BYTES).info_hash();
        let named: Vec<_> = names.map(|name| (hash(&name), name)).collect();
        Arc::new(Library {
            hashes: named.iter().map(|(hash, _)| *hash).collect(),
            names: named.into_iter().collect(),
            data,
            loads: AtomicUsize::new(0),
            uploaded_bytes: AtomicU64::new(0),
            loaded: Mutex::default(),
        })
    }

    fn torrent(&self, info_hash: InfoHashV1) -> Arc<SeededTorrent> {
        let name = &self.names[&info_hash];
        self.data.torrent_named(name, PIECE_BYTES)
    }

    /// How many torrents that were served are in memory.
    fn in_memory(&self) -> usize {
        let loaded = self.loaded.lock().unwrap();
        loaded.iter().filter(|one| one.strong_count() > 0).count()
    }

    /// Waits until none is: whoever used one last may be about to let go of it.
    fn await_none_in_memory(&self) {
        let until = Instant::now() + PATIENCE;
        while self.in_memory() > 0 {
            assert!(Instant::now() < until, "their memory is not given back");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Keeper for Arc<Library> {
    async fn load(&self, info_hash: InfoHashV1) -> Option<Arc<SeededTorrent>> {
        self.loads.fetch_add(1, Ordering::Relaxed);
        let torrent = self.torrent(info_hash);
        self.loaded.lock().unwrap().push(Arc::downgrade(&torrent));
        Some(torrent)
    }

    fn retired(&self, retired: Retired) {
        self.uploaded_bytes
            .fetch_add(retired.uploaded_bytes, Ordering::Relaxed);
    }
}

/// A data plane, all torrents of a library dormant.
struct Server {
    plane: Arc<Plane>,
    registry: Registry,
    events: mpsc::UnboundedReceiver<Event>,
    library: Arc<Library>,
    runtime: Runtime,
}

fn server(library: &Arc<Library>, change: impl FnOnce(&mut PlaneConfig)) -> Server {
    let mut config = testing::config();
    config.shards = 2;
    config.connections_max = 256;
    config.handshakes_max = 256;
    config.sockets.backlog = 256;
    config.waking.wait = PATIENCE;
    change(&mut config);
    let registry = Registry::new(config.shards);
    let (plane, events) = Plane::start(config, &registry).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    assert_eq!(runtime.block_on(plane.add_dormant(&library.hashes)), 0);
    Server {
        plane: Arc::new(plane),
        registry,
        events,
        library: Arc::clone(library),
        runtime,
    }
}

impl Server {
    fn address(&self) -> SocketAddr {
        self.plane.addresses()[0]
    }

    fn next(&mut self) -> Wanted {
        let event = async { tokio::time::timeout(PATIENCE, self.events.recv()).await };
        match self.runtime.block_on(event).unwrap() {
            Some(Event::Wanted(wanted)) => wanted,
            other => panic!("{other:?}"),
        }
    }

    /// Answers a wish.
    fn wake(&self, wanted: Wanted) {
        let woken = self.plane.wake(wanted, &self.library, AWAKE);
        assert!(self.runtime.block_on(woken));
    }

    /// Answers wishes until `done`, and has `idle` torrents fall asleep all the while.
    fn play(&mut self, done: &AtomicBool, policy: SleepPolicy) {
        let (plane, events, library) = (&self.plane, &mut self.events, &self.library);
        self.runtime.block_on(async {
            while !done.load(Ordering::Relaxed) {
                let soon = Duration::from_millis(1);
                if let Ok(event) = tokio::time::timeout(soon, events.recv()).await {
                    let Some(Event::Wanted(wanted)) = event else {
                        panic!("{event:?}");
                    };
                    plane.wake(wanted, library, AWAKE).await;
                }
                plane.rest(library, policy).await;
            }
        });
    }

    /// Has all torrents fall asleep, as soon as it is seen that their peers have gone.
    fn put_to_sleep(&self) {
        let until = Instant::now() + PATIENCE;
        while self.plane.awake_count() > 0 {
            assert!(Instant::now() < until);
            let rested = self.plane.rest(&self.library, ASLEEP);
            if self.runtime.block_on(rested) == 0 {
                thread::sleep(Duration::from_millis(5));
            }
        }
    }

    fn counter(&self, counter: Counter) -> u64 {
        self.registry.snapshot().counter(counter)
    }

    /// Waits until a counter has come to a value.
    fn await_counter(&self, counter: Counter, value: u64) {
        let until = Instant::now() + PATIENCE;
        while self.counter(counter) != value {
            assert!(Instant::now() < until, "{counter:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until so many peers wait.
    fn await_waiting(&self, count: u64) {
        let until = Instant::now() + PATIENCE;
        while self.registry.snapshot().gauge(Gauge::PeersWaiting) != count {
            assert!(Instant::now() < until);
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn stop(self) {
        assert!(self.runtime.block_on(self.plane.stop(PATIENCE)));
    }
}

/// Shakes hands without waiting for the answer.
fn knock(address: SocketAddr, info_hash: InfoHashV1) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let handshake = Handshake {
        reserved: Reserved::NONE.with(ReservedBit::FAST),
        info_hash,
        peer_id: PeerId(*b"-XX0000-testtesttest"),
    };
    stream.write_all(&handshake.encode()).unwrap();
    stream
}

/// Whether the peer's handshake is answered; else it is closed.
fn is_greeted(stream: &mut TcpStream) -> bool {
    match stream.read_exact(&mut [0; HANDSHAKE_BYTES]) {
        Ok(()) => true,
        Err(error) => {
            assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "no answer");
            false
        }
    }
}

fn message(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut body = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut body).unwrap();
    body
}

/// Gets a block of the second piece and compares it.
fn fetch(stream: &mut TcpStream) {
    let block = BlockRequest {
        piece: PieceIndex(1),
        begin: 100,
        length: 1000,
    };
    let mut bytes = Vec::new();
    Message::Interested.encode(&mut bytes);
    stream.write_all(&bytes).unwrap();
    while message(stream).first() != Some(&wire::id::UNCHOKE) {}
    bytes.clear();
    Message::Request(block).encode(&mut bytes);
    stream.write_all(&bytes).unwrap();
    let start = PIECE_BYTES + 100;
    let due: Vec<u8> = (start..start + 1000).map(|at| (at % 251) as u8).collect();
    loop {
        let answer = message(stream);
        assert_ne!(answer.first(), Some(&wire::id::REJECT));
        if answer.first() == Some(&wire::id::PIECE) {
            assert!(answer[9..] == due);
            return;
        }
    }
}

/// Shakes hands for each torrent in turn, from several threads, and gets a block of each.
fn fetch_all(address: SocketAddr, hashes: &[InfoHashV1], done: &AtomicBool) {
    const THREADS: usize = 8;
    thread::scope(|scope| {
        for hashes in hashes.chunks(hashes.len().div_ceil(THREADS)) {
            scope.spawn(move || {
                for &hash in hashes {
                    let mut stream = knock(address, hash);
                    assert!(is_greeted(&mut stream), "{hash}");
                    fetch(&mut stream);
                }
            });
        }
    });
    done.store(true, Ordering::Relaxed);
}

#[test]
fn two_thousand_torrents_wake_serve_sleep_and_wake_again() {
    let library = Library::new(2_000);
    let mut server = server(&library, |_| {});
    for round in 1..=2 {
        let (done, address) = (AtomicBool::new(false), server.address());
        thread::scope(|scope| {
            scope.spawn(|| fetch_all(address, &library.hashes, &done));
            // None falls asleep: an hour is too long.
            let policy = SleepPolicy {
                idle_min: Duration::from_secs(3600),
                ..AWAKE
            };
            server.play(&done, policy);
        });
        assert_eq!(library.loads.load(Ordering::Relaxed), 2_000 * round);
        let counts = (server.plane.awake_count(), server.plane.dormant_count());
        assert_eq!(counts, (2_000, 0));
        assert_eq!(library.in_memory(), 2_000);
        server.put_to_sleep();
        assert_eq!(server.plane.dormant_count(), 2_000);
        library.await_none_in_memory();
    }
    assert_eq!(library.uploaded_bytes.load(Ordering::Relaxed), 4_000_000);
    let snapshot = server.registry.snapshot();
    let control = |gauge| snapshot.control.gauge(gauge);
    assert_eq!(control(ControlGauge::TorrentsDormant), 2_000);
    assert_eq!(control(ControlGauge::TorrentsAwake), 0);
    assert_eq!(control(ControlGauge::WakesPending), 0);
    let wakes = snapshot.control.counter(ControlCounter::WakesDone);
    let retired = snapshot.control.counter(ControlCounter::TorrentsRetired);
    assert_eq!((wakes, retired), (4_000, 4_000));
    assert_eq!(snapshot.counter(Counter::WaitsServed), 4_000);
    assert_eq!(snapshot.gauge(Gauge::PeersWaiting), 0);
    server.stop();
}

/// Torrents fall asleep whenever nobody uses them, while peers come and go for them from all sides.
#[test]
fn no_handshake_is_lost_while_its_torrent_falls_asleep() {
    let library = Library::new(3);
    let mut server = server(&library, |_| {});
    let mut served = 0;
    // Each round ends with all asleep, so that it comes to an end whatever happens when.
    while library.loads.load(Ordering::Relaxed) < 60 {
        let (done, address) = (AtomicBool::new(false), server.address());
        thread::scope(|scope| {
            scope.spawn(|| {
                let hashes = library.hashes.repeat(200);
                fetch_all(address, &hashes, &done);
            });
            server.play(&done, ASLEEP);
        });
        server.put_to_sleep();
        served += 600;
    }
    library.await_none_in_memory();
    let uploaded = library.uploaded_bytes.load(Ordering::Relaxed);
    assert_eq!(uploaded, served * 1_000);
    server.stop();
}

#[test]
fn a_torrent_with_peers_does_not_fall_asleep() {
    let library = Library::new(1);
    let mut server = server(&library, |_| {});
    let hash = library.hashes[0];
    let retire = |server: &Server| server.runtime.block_on(server.plane.retire(hash));
    assert_eq!(retire(&server), Err(NotRetired::Unknown));
    let mut peer = knock(server.address(), hash);
    let wanted = server.next();
    server.wake(wanted);
    assert!(is_greeted(&mut peer));
    assert_eq!(retire(&server), Err(NotRetired::Busy));
    assert_eq!(server.plane.idle(Duration::ZERO, 9), []);
    assert_eq!(server.plane.dormant_count(), 0);
    fetch(&mut peer);
    drop(peer);
    server.put_to_sleep();
    assert_eq!(server.plane.dormant_count(), 1);
    // One whose data are in doubt must not be served again without anybody having looked.
    let torrent = library.torrent(hash);
    server.runtime.block_on(server.plane.add(&torrent));
    assert_eq!(server.plane.idle(Duration::ZERO, 9), [hash]);
    torrent.stop();
    assert_eq!(retire(&server), Err(NotRetired::Stopped));
    server.runtime.block_on(server.plane.remove(&torrent));
    assert_eq!(retire(&server), Err(NotRetired::Unknown));
    assert!(!is_greeted(&mut knock(server.address(), hash)));
    server.stop();
}

#[test]
fn one_that_waits_is_closed_when_its_torrent_is_refused() {
    let library = Library::new(4);
    let mut server = server(&library, |_| {});
    let address = server.address();
    let hashes = library.hashes.clone();
    // By a call, by a wish that is dropped, and by taking the torrent away.
    for way in 0..3 {
        let mut peers = [knock(address, hashes[0]), knock(address, hashes[0])];
        let wanted = server.next();
        assert_eq!(wanted.info_hash(), hashes[0]);
        server.await_waiting(2);
        match way {
            0 => server.plane.refuse(hashes[0]),
            1 => drop(wanted),
            _ => {
                let removed = server.plane.remove_dormant(&hashes[..1]);
                server.runtime.block_on(removed);
                assert!(wanted.is_answered());
            }
        }
        assert!(peers.iter_mut().all(|peer| !is_greeted(peer)));
    }
    assert!(!is_greeted(&mut knock(address, hashes[0])), "it is gone");
    // All but one are gone, which is in a new set together with one that is awake.
    let awake = library.torrent(hashes[1]);
    server.runtime.block_on(server.plane.add(&awake));
    let mut peer = knock(address, hashes[3]);
    let wanted = server.next();
    let set = server.plane.set_dormant(&hashes[1..3]);
    assert_eq!(server.runtime.block_on(set), 0);
    assert!(wanted.is_answered() && !is_greeted(&mut peer));
    assert_eq!(server.plane.dormant_count(), 1);
    assert!(is_greeted(&mut knock(address, hashes[1])));
    let mut peer = knock(address, hashes[2]);
    let wanted = server.next();
    server.wake(wanted);
    assert!(is_greeted(&mut peer));
    assert_eq!(server.counter(Counter::WaitsRefused), 7);
    server.stop();
}

#[test]
fn peers_beyond_the_limits_are_closed_and_wishes_wait_for_each_other() {
    let library = Library::new(5);
    let mut server = server(&library, |config| {
        config.waking.waiting_max = 4;
        config.waking.torrent_waiting_max = 2;
        config.waking.wakes_max = 1;
    });
    let (address, hashes) = (server.address(), library.hashes.clone());
    let mut first = [knock(address, hashes[0]), knock(address, hashes[0])];
    server.await_waiting(2);
    assert!(
        !is_greeted(&mut knock(address, hashes[0])),
        "two wait for it"
    );
    let mut others = [knock(address, hashes[1]), knock(address, hashes[2])];
    server.await_waiting(4);
    assert!(!is_greeted(&mut knock(address, hashes[3])), "four wait");
    assert_eq!(server.counter(Counter::WaitsFull), 2);
    assert_eq!(server.counter(Counter::HandshakeAsleep), 2);
    // The next torrent's turn comes when the one before has been answered.
    let wanted = server.next();
    assert_eq!(wanted.info_hash(), hashes[0]);
    assert!(server.events.try_recv().is_err());
    server.wake(wanted);
    assert!(first.iter_mut().all(is_greeted));
    for _ in 0..2 {
        let wanted = server.next();
        server.wake(wanted);
    }
    assert!(others.iter_mut().all(is_greeted));
    // There is room again.
    server.await_waiting(0);
    let mut last = knock(address, hashes[4]);
    let wanted = server.next();
    server.wake(wanted);
    assert!(is_greeted(&mut last));
    server.stop();
}

#[test]
fn who_has_waited_too_long_is_closed() {
    let library = Library::new(2);
    let mut server = server(&library, |config| {
        config.waking.wait = Duration::from_millis(50);
        config.waking.wakes_max = 1;
    });
    let (address, hashes) = (server.address(), library.hashes.clone());
    assert!(!is_greeted(&mut knock(address, hashes[0])));
    assert_eq!(server.counter(Counter::WaitsTimedOut), 1);
    let wanted = server.next();
    assert!(!wanted.is_answered(), "a wish that was told stays");
    assert!(!is_greeted(&mut knock(address, hashes[1])));
    // The answer comes late, and the next who comes is served at once.
    server.wake(wanted);
    let mut peer = knock(address, hashes[0]);
    assert!(is_greeted(&mut peer));
    fetch(&mut peer);
    assert!(
        server.events.try_recv().is_err(),
        "nobody waits for the other"
    );
    server.stop();
}

/// Handshakes for ever other dormant torrents, of which the control plane answers none, take only
/// the places of those who wait: who wants one that is awake has its handshake and its data.
#[test]
fn a_flood_for_dormant_torrents_starves_nobody_else() {
    let library = Library::new(1_000);
    let server = server(&library, |config| {
        config.connections_max = 64;
        config.handshakes_max = 4;
    });
    let address = server.address();
    let awake = library.data.torrent_of_pieces(PIECE_BYTES);
    server.runtime.block_on(server.plane.add(&awake));
    let mut flood = Vec::new();
    for (round, &hash) in library.hashes.iter().enumerate() {
        let mut stream = knock(address, hash);
        // A quarter of the connections may wait; the next ones are closed.
        match round < 16 {
            true => flood.push(stream),
            false => assert!(!is_greeted(&mut stream)),
        }
        server.await_waiting(flood.len() as u64);
        if round % 100 == 99 {
            let mut peer = knock(address, awake.info_hash());
            assert!(is_greeted(&mut peer));
            fetch(&mut peer);
        }
    }
    assert_eq!(server.counter(Counter::WaitsFull), 984);
    assert_eq!(server.counter(Counter::RefusedHandshakeLimit), 0);
    server.stop();
}

/// However many wake, no more stay awake than may, but for those with peers.
#[test]
fn the_longest_unused_make_room() {
    let library = Library::new(40);
    let mut server = server(&library, |_| {});
    let policy = SleepPolicy {
        awake_max: 8,
        idle_min: Duration::from_secs(3600),
    };
    let mut kept = Vec::new();
    for (number, &hash) in library.hashes.iter().enumerate() {
        let mut peer = knock(server.address(), hash);
        let wanted = server.next();
        let woken = server.plane.wake(wanted, &library, policy);
        assert!(server.runtime.block_on(woken));
        assert!(is_greeted(&mut peer));
        match number < 12 {
            // More than may be awake without peers.
            true => kept.push(peer),
            false => {
                drop(peer);
                let until = Instant::now() + PATIENCE;
                while server.plane.idle(Duration::ZERO, 1).is_empty() {
                    assert!(Instant::now() < until);
                    thread::sleep(Duration::from_millis(5));
                }
            }
        }
        assert!(server.plane.awake_count() <= kept.len() + 1, "{number}");
    }
    kept.iter_mut().for_each(fetch);
    drop(kept);
    let until = Instant::now() + PATIENCE;
    while server.plane.awake_count() > 8 {
        assert!(Instant::now() < until);
        server.runtime.block_on(server.plane.rest(&library, policy));
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(server.plane.awake_count(), 8);
    assert_eq!(server.plane.dormant_count(), 32);
    server.stop();
}

#[test]
fn stopping_closes_those_who_wait() {
    let library = Library::new(3);
    let mut server = server(&library, |config| config.waking.wakes_max = 1);
    let address = server.address();
    let mut peers: Vec<_> = (0..6)
        .map(|n| knock(address, library.hashes[n % 3]))
        .collect();
    server.await_waiting(6);
    let wanted = server.next();
    let registry = server.registry.snapshot();
    assert_eq!(registry.control.gauge(ControlGauge::WakesPending), 3);
    assert!(server.runtime.block_on(server.plane.stop(PATIENCE)));
    assert!(peers.iter_mut().all(|peer| !is_greeted(peer)));
    drop(wanted);
}

/// A wish may be overtaken by the control plane's own decision.
#[test]
fn who_waits_goes_on_when_the_torrent_is_added_unasked() {
    let library = Library::new(2);
    let mut server = server(&library, |config| config.waking.wakes_max = 1);
    let (address, hashes) = (server.address(), library.hashes.clone());
    let mut peers = [knock(address, hashes[0]), knock(address, hashes[1])];
    server.await_waiting(2);
    let wanted = server.next();
    // One that it was told of and one that it was not, in the other order.
    let other = match wanted.info_hash() == hashes[0] {
        true => [1, 0],
        false => [0, 1],
    };
    for number in other {
        let torrent = library.torrent(hashes[number]);
        server.runtime.block_on(server.plane.add(&torrent));
        assert!(is_greeted(&mut peers[number]));
    }
    server.wake(wanted);
    assert_eq!(
        library.loads.load(Ordering::Relaxed),
        0,
        "it is awake already"
    );
    assert!(server.events.try_recv().is_err());
    server.await_counter(Counter::Handshakes, 2);
    server.stop();
}
