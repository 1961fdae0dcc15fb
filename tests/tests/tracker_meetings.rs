//! Row "real trackers": libtorrent, Transmission, aria2 and ours find each other through
//! opentracker and through our own tracker, by HTTP and by UDP, over IPv4 and IPv6.
//!
//! Each pair of a seed and a leecher has a torrent of its own, and every other way of finding peers
//! is off: who completes has found the one seed by the tracker. Seeds stand on the server's host,
//! leechers on the client's.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use seedring_tests::clients::{Client, Download, in_url};
use seedring_tests::content::{MIB, assert_same_tree, write_file};
use seedring_tests::get::{Get, Getting};
use seedring_tests::lan::{self, Lan};
use seedring_tests::need;
use seedring_tests::process::run_ok;
use seedring_tests::seeds::RealSeed;
use seedring_tests::server::{SHORT, Seed, Server, seedring};
use seedring_tests::single::Single;
use seedring_tests::skip::Skip;
use seedring_tests::torrent::Torrent;
use seedring_tests::tracker::OpenTracker;
use seedring_tests::udp_tracker::seeds;
use std::ffi::OsStr;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest wait for a seed to be known to the tracker, and for one download.
const LIMIT: Duration = Duration::from_secs(100);

/// Who seeds.
const SEEDS: [RealSeed; 4] = [
    RealSeed::Seedring,
    RealSeed::Libtorrent,
    RealSeed::Transmission,
    RealSeed::Aria2,
];
/// Who fetches; `None` is ours.
const LEECHERS: [Option<Client>; 4] = [
    None,
    Some(Client::Libtorrent),
    Some(Client::Transmission),
    Some(Client::Aria2Udp),
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Which {
    OpenTracker,
    Ours,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum By {
    Http,
    Udp,
}

/// One tracker, asked in one way.
#[derive(Clone, Copy, Debug)]
struct Row {
    which: Which,
    by: By,
    ip: IpAddr,
}

impl Row {
    /// Whether every client asks trackers so: Transmission 3 and aria2 1.36 find nobody by UDP
    /// trackers over IPv6.
    fn is_spoken_by_all(self) -> bool {
        self.by == By::Http || self.ip.is_ipv4()
    }

    fn seeds(self) -> impl Iterator<Item = RealSeed> {
        let only_two = !self.is_spoken_by_all();
        let left_out = [RealSeed::Transmission, RealSeed::Aria2];
        SEEDS
            .into_iter()
            .filter(move |seed| !only_two || !left_out.contains(seed))
    }

    fn leechers(self) -> impl Iterator<Item = Option<Client>> {
        let only_two = !self.is_spoken_by_all();
        let left_out = [Some(Client::Transmission), Some(Client::Aria2Udp)];
        LEECHERS
            .into_iter()
            .filter(move |leecher| !only_two || !left_out.contains(leecher))
    }
}

/// The tracker of a row.
enum Tracker {
    Open(OpenTracker),
    Ours {
        _server: Box<Server>,
        address: SocketAddr,
    },
}

impl Tracker {
    fn start(row: Row, info_hashes: &[String], dummy: &Path) -> Result<Tracker, Skip> {
        if row.which == Which::OpenTracker {
            return OpenTracker::start(row.ip, info_hashes).map(Tracker::Open);
        }
        let server = Seed::path(dummy)
            .options(["--announce-host", &in_url(row.ip)])
            .setting("tracker", "open", "true")
            .start();
        let url = server.ready.tracker.clone().expect("a tracker of its own");
        let port = url.rsplit_once(':').unwrap().1.strip_suffix("/announce");
        let address = SocketAddr::new(row.ip, port.unwrap().parse().unwrap());
        let server = Box::new(server);
        Ok(Tracker::Ours {
            _server: server,
            address,
        })
    }

    fn address(&self) -> SocketAddr {
        match self {
            Tracker::Open(tracker) => tracker.udp_address(),
            Tracker::Ours { address, .. } => *address,
        }
    }

    fn url(&self, by: By) -> String {
        let scheme = match by {
            By::Http => "http",
            By::Udp => "udp",
        };
        format!("{scheme}://{}/announce", self.address())
    }
}

/// What one pair has for itself.
struct Content {
    root: TempDir,
}

impl Content {
    fn new(seed: u64) -> Content {
        let root = TempDir::new().unwrap();
        write_file(&root.path().join("data/file.bin"), MIB + seed, seed);
        Content { root }
    }

    fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    /// Its torrent; the hash is the same whatever the tracker.
    fn torrent(&self, trackers: &[&str]) -> PathBuf {
        let torrent = self.root.path().join("it.torrent");
        let mut create = seedring(["create"]);
        create.arg(self.data().join("file.bin"));
        create.arg("-o").arg(&torrent).arg("--force");
        for url in trackers {
            create.args(["--tracker", url]);
        }
        run_ok("seedring create", &create, SHORT);
        torrent
    }
}

/// A download that goes on.
enum Running {
    Ours(Getting),
    Theirs(Client, Download),
}

fn start(
    leecher: Option<Client>,
    torrent: &Path,
    folder: &Path,
    row: Row,
    lan: &Lan,
) -> Result<Running, Skip> {
    let address: IpAddr = match row.ip {
        IpAddr::V4(_) => lan::CLIENT.into(),
        IpAddr::V6(_) => lan::CLIENT_V6.into(),
    };
    let host = |program: &OsStr| lan.client_command(program);
    Ok(match leecher {
        None => Running::Ours(Get::new(torrent, folder).start_on(&host)),
        Some(client) => {
            let torrent = torrent.as_os_str();
            let download = client.download_as(torrent, folder, Some(address), &host)?;
            Running::Theirs(client, download)
        }
    })
}

impl Running {
    fn completes(self, data: &Path, folder: &Path) {
        match self {
            Running::Ours(getting) => {
                getting.complete(LIMIT);
                assert_same_tree(data, folder);
            }
            Running::Theirs(client, mut download) => {
                download.wait(LIMIT);
                client.assert_same_tree(data, folder);
            }
        }
    }
}

/// One seed and every leecher, each with a torrent of its own.
fn all_find(row: Row, seed: RealSeed, lan: &Lan) -> Result<(), Skip> {
    let leechers: Vec<_> = row.leechers().collect();
    let contents: Vec<Content> = (1..=leechers.len() as u64).map(Content::new).collect();
    let hashes: Vec<String> = contents
        .iter()
        .map(|content| Torrent::read(&content.torrent(&[])).info_hash_hex())
        .collect();
    let dummy = Content::new(99);
    let tracker = Tracker::start(row, &hashes, &dummy.data())?;
    let url = tracker.url(row.by);
    let mut seeding = Vec::new();
    for content in &contents {
        seeding.push(seed.launch(&content.torrent(&[&url]), &content.data(), row.ip)?);
    }
    let until = Instant::now() + LIMIT;
    for content in &contents {
        let hash = Torrent::read(&content.root.path().join("it.torrent")).info_hash;
        while seeds(tracker.address(), &hash) != 1 {
            assert!(
                Instant::now() < until,
                "{row:?} never knew {seed:?}: {seeding:?}"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    let mut running = Vec::new();
    for (content, leecher) in contents.iter().zip(leechers) {
        let folder = TempDir::new().unwrap();
        let torrent = content.root.path().join("it.torrent");
        let one = start(leecher, &torrent, folder.path(), row, lan)?;
        running.push((one, content, folder));
    }
    for (one, content, folder) in running {
        one.completes(&content.data(), folder.path());
    }
    Ok(())
}

fn meet(test: &str, which: Which, by: By, ip: impl Into<IpAddr>) {
    if !need!(test, lan::inside(test)) {
        return;
    }
    let row = Row {
        which,
        by,
        ip: ip.into(),
    };
    let lan = Lan::build();
    for seed in row.seeds() {
        eprintln!("{row:?}: {seed:?} seeds");
        need!(test, all_find(row, seed, &lan));
    }
}

macro_rules! rows {
    ($($test:ident: $which:ident, $by:ident, $ip:expr;)*) => {$(
        #[test]
        fn $test() {
            meet(stringify!($test), Which::$which, By::$by, $ip);
        }
    )*};
}

rows! {
    all_meet_at_opentracker_by_http: OpenTracker, Http, lan::SERVER;
    all_meet_at_opentracker_by_udp: OpenTracker, Udp, lan::SERVER;
    all_meet_at_opentracker_by_http_over_ipv6: OpenTracker, Http, lan::SERVER_V6;
    all_meet_at_opentracker_by_udp_over_ipv6: OpenTracker, Udp, lan::SERVER_V6;
    all_meet_at_ours_by_http: Ours, Http, lan::SERVER;
    all_meet_at_ours_by_udp: Ours, Udp, lan::SERVER;
    all_meet_at_ours_by_http_over_ipv6: Ours, Http, lan::SERVER_V6;
    all_meet_at_ours_by_udp_over_ipv6: Ours, Udp, lan::SERVER_V6;
}

/// A network may use addresses that the registries give to nobody, as this one those for
/// documentation: what `seed` prints is enough there, too.
#[test]
fn hosts_at_odd_addresses_find_each_other() {
    let test = "hosts_at_odd_addresses_find_each_other";
    if !need!(test, lan::inside(test)) {
        return;
    }
    lan::ip_here("link set lo up");
    for address in ["192.0.2.2", "198.18.0.2", "240.1.0.2"] {
        lan::ip_here(&format!("addr add {address}/32 dev lo"));
        let content = Single::new(MIB, 5, &[]);
        let seed =
            Seed::path(&content.data_dir()).options(["--no-dht", "--announce-host", address]);
        let seed = seed.start();
        let folder = TempDir::new().unwrap();
        let get = Get::new(&seed.ready.torrents[0].magnet, folder.path());
        let complete = get.options(["--no-dht"]).start().complete(LIMIT);
        assert_eq!(complete["bytes"], MIB, "{address}");
    }
}
