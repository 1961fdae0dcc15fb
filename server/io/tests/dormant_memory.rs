//! What torrents of 1,000 pieces take in the data plane, by what is allocated: dormant, awake, and
//! after they have fallen asleep again. Prints the figures; `--nocapture` shows them.
//!
//! One test in a process of its own, because it counts what the whole process allocates.

use proto::ids::{InfoHashV1, PeerId};
use proto::metainfo::Metainfo;
use seedring_io::buffers::Registration;
use seedring_io::fetch::FetchConfig;
use seedring_io::plane::{Plane, PlaneConfig, RateLimits, SendPath};
use seedring_io::roster::WakeLimits;
use seedring_io::sockets::SocketOptions;
use seedring_io::torrent::SeededTorrent;
use seedring_metrics::Registry;
use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Bytes that are allocated.
static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call goes on to the system's allocator as it is; only sizes are counted beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`, which is the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn config() -> PlaneConfig {
    PlaneConfig {
        listen: vec!["127.0.0.1:0".parse().expect("an address")],
        shards: 2,
        pin: false,
        sockets: SocketOptions {
            backlog: 16,
            congestion_control: String::new(),
            interface: None,
        },
        connections_max: 1_000,
        connections_per_stranger_max: 0,
        handshakes_max: 100,
        handshake_timeout: Duration::from_secs(10),
        buffer_bytes: 4 << 20,
        batch_bytes: 256 << 10,
        cache_bytes: 0,
        mapped_bytes: 0,
        registration: Registration::Off,
        send_path: SendPath::Auto,
        pipes_per_shard: 4,
        open_files_max: 64,
        session: Default::default(),
        choker: Default::default(),
        upload_slots: 0,
        rates: RateLimits::default(),
        peer_id: PeerId(*b"-SR0100-testtesttest"),
        fetch: FetchConfig::default(),
        waking: WakeLimits::default(),
        call_leechers: true,
        ip_filter: Arc::default(),
    }
}

/// A torrent of one file and 1,000 pieces. Nothing of it is on a disk: nobody asks for it.
fn torrent(number: usize) -> Arc<SeededTorrent> {
    let name = format!("torrent {number:06}");
    let (length, pieces) = (1_000 << 20, 20 * 1_000);
    let mut info = format!("d6:lengthi{length}e4:name{}:{name}", name.len()).into_bytes();
    info.extend(format!("12:piece lengthi{}e6:pieces{pieces}:", 1 << 20).as_bytes());
    info.resize(info.len() + pieces, 0);
    info.push(b'e');
    let metainfo = Arc::new(Metainfo::parse_info(&info).expect("metainfo"));
    let folder = Path::new("/nowhere");
    let torrent = SeededTorrent::new(metainfo, folder, vec![None], BTreeMap::new());
    Arc::new(torrent.expect("a torrent"))
}

fn allocated() -> usize {
    ALLOCATED.load(Ordering::Relaxed)
}

#[test]
fn a_dormant_torrent_takes_little_more_than_its_hash() {
    const DORMANT: usize = 100_000;
    const AWAKE: usize = 1_000;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let registry = Registry::new(2);
    let (plane, _events) = Plane::start(config(), &registry).unwrap();
    let hashes: Vec<InfoHashV1> = (0..DORMANT as u64)
        .map(|number| InfoHashV1(hash::sha1(&number.to_le_bytes())))
        .collect();
    let before = allocated();
    assert_eq!(runtime.block_on(plane.add_dormant(&hashes)), 0);
    let dormant = (allocated() - before) as f64 / DORMANT as f64;

    let before = allocated();
    let mut awake_hashes = Vec::with_capacity(AWAKE);
    for number in 0..AWAKE {
        let torrent = torrent(number);
        awake_hashes.push(torrent.info_hash());
        runtime.block_on(plane.add(&torrent));
    }
    let awake = (allocated() - before) as f64 / AWAKE as f64;
    for &hash in &awake_hashes {
        runtime.block_on(plane.retire(hash)).unwrap();
    }
    let asleep = (allocated() as f64 - before as f64) / AWAKE as f64;
    assert_eq!(plane.dormant_count(), DORMANT + AWAKE);
    println!("bytes of a torrent of 1,000 pieces in the data plane, with 100,000 dormant ones:");
    println!("dormant {dormant:.1}, awake {awake:.0}, asleep again {asleep:.0}");
    assert!(dormant < 24.0, "{dormant}");
    // Tables that have grown for those that were awake keep their room.
    assert!(asleep < 300.0, "{asleep}");
    assert!(
        awake > 20_000.0,
        "{awake}: what is measured is not what is meant"
    );
    assert!(runtime.block_on(plane.stop(Duration::from_secs(30))));
}
