//! What a data plane costs that has dormant torrents and no peers: memory of the process, and CPU
//! time while nothing happens.
//!
//!     cargo run --release -p seedring-io --example dormant [torrents] [seconds]

use proto::ids::{InfoHashV1, PeerId};
use seedring_io::buffers::Registration;
use seedring_io::fetch::FetchConfig;
use seedring_io::plane::{Plane, PlaneConfig, RateLimits, SendPath};
use seedring_io::roster::WakeLimits;
use seedring_io::sockets::SocketOptions;
use seedring_metrics::Registry;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Shards, on however few cores.
const SHARDS: usize = 2;

fn config() -> PlaneConfig {
    PlaneConfig {
        listen: vec!["127.0.0.1:0".parse().expect("an address")],
        shards: SHARDS,
        pin: false,
        sockets: SocketOptions {
            backlog: 128,
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

/// Seconds that the process has had a core: user and system time in hundredths of a second are
/// fields 14 and 15 of this file, the second of which may have spaces in brackets.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let times = fields.split_whitespace().skip(11).take(2);
    times
        .filter_map(|time| time.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0
}

/// Resident memory of the process, in KiB.
fn resident_kib() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| {
        let argument = arguments.next();
        argument.and_then(|one| one.parse().ok()).unwrap_or(default)
    };
    let (torrents, seconds) = (number(100_000), number(10));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let registry = Registry::new(SHARDS);
    let (plane, _events) = Plane::start(config(), &registry).expect("a data plane");
    let hashes: Vec<InfoHashV1> = (0..torrents)
        .map(|number| InfoHashV1(hash::sha1(&number.to_le_bytes())))
        .collect();
    let (memory, began) = (resident_kib(), Instant::now());
    runtime.block_on(plane.add_dormant(&hashes));
    let (took, memory) = (began.elapsed(), resident_kib() - memory);
    println!("{torrents} dormant torrents entered in {took:.1?}, {memory} KiB more resident");
    let (cpu, began) = (cpu_seconds(), Instant::now());
    std::thread::sleep(Duration::from_secs(seconds));
    let share = (cpu_seconds() - cpu) / began.elapsed().as_secs_f64();
    println!(
        "{SHARDS} shards without peers, {seconds} s: {:.2} % of a core",
        share * 100.0
    );
    runtime.block_on(plane.stop(Duration::from_secs(10)));
}
