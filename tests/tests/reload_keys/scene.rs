//! What the rows of the table are looked at with: a server, peers and trackers of ours, and what of
//! them shows that a key holds.
//!
//! Nothing here is decided by how long something takes: what a setting forbids would not come for
//! days, and what it allows is waited for.

use seedring_tests::content::{MIB, write_file};
use seedring_tests::http::split_url;
use seedring_tests::peer::{BLOCK, Peer, id, is_timeout};
use seedring_tests::served::Served;
use seedring_tests::server::{Seed, Server, event};
use seedring_tests::torrent::Torrent;
use seedring_tests::tracker::{Behaviour, RecordingTracker};
use seedring_tests::udp_tracker::Asker;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tempfile::TempDir;

/// What a thirsty peer asks for in all: more than every limit lets through at once.
const WANTED: usize = MIB as usize;
/// How long a thirsty peer is listened to at a time.
const SIP: Duration = Duration::from_millis(100);
/// The files of another server that are there to be downloaded, one after another.
const OFFERED: u64 = 6;
/// The length of each.
const OFFERED_BYTES: u64 = 2 * MIB;

/// An address of no local network, for a test with a network of its own.
pub const REMOTE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

/// A server that is being looked at.
pub struct Scene {
    pub server: Served,
    /// Who is connected.
    pub peers: Vec<Peer>,
    /// Connections that say nothing.
    pub silent: Vec<TcpStream>,
    pub tracker: Option<RecordingTracker>,
    /// What a thirsty peer has got, in bytes.
    sipped: usize,
    /// The other server, and its data.
    other: Option<(Server, TempDir)>,
    /// How many of something there have been.
    count: u64,
    /// The peers that take data until they are choked.
    taking: Vec<JoinHandle<std::io::Result<()>>>,
}

impl Scene {
    pub fn new(server: Served) -> Scene {
        Scene {
            server,
            peers: Vec::new(),
            silent: Vec::new(),
            tracker: None,
            sipped: 0,
            other: None,
            count: 0,
            taking: Vec::new(),
        }
    }

    /// The next of several.
    pub fn next(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    /// A complete torrent that is kept, with the label and in the category "some".
    pub fn add(&self, name: &str, length: u64) -> Torrent {
        let torrent = self.server.make(name, length);
        let data = self.server.path("data");
        let file = torrent.to_str().unwrap();
        let place = ["-d", data.to_str().unwrap()];
        let groups = ["--label", "some", "--category", "some"];
        self.server
            .ok([&["add", file][..], &place, &groups].concat());
        let is_served = |torrent: &Value| torrent["name"] == name && torrent["status"] == "seeding";
        self.server
            .wait("the torrent served", |all| all.iter().any(is_served));
        Torrent::read(&torrent)
    }

    /// A link of which nothing is known but its hash; what `add` is told beside it.
    pub fn add_link(&mut self, options: &[&str]) -> String {
        let hash = format!("{:040x}", self.next());
        let link = format!("magnet:?xt=urn:btih:{hash}");
        self.server.ok([&["add", link.as_str()], options].concat());
        hash
    }

    /// Where the data of a link that is added now would come.
    pub fn save_path_of_new(&mut self, options: &[&str]) -> PathBuf {
        let hash = self.add_link(options);
        let torrents = self.server.torrents();
        let added = torrents
            .iter()
            .find(|torrent| torrent["info_hash"] == *hash);
        PathBuf::from(added.unwrap()["save_path"].as_str().unwrap())
    }

    pub fn status(&self, name: &str) -> Option<String> {
        let torrents = self.server.torrents();
        let torrent = torrents.iter().find(|torrent| torrent["name"] == name)?;
        Some(torrent["status"].as_str()?.to_owned())
    }

    pub fn metric(&self, series: &str) -> f64 {
        self.server.metrics()[series]
    }

    /// A peer that may request; the server is met at `host`.
    pub fn peer(&mut self, torrent: &Torrent, host: Ipv4Addr) {
        let address = SocketAddr::from((host, self.server.peers().port()));
        let mut peer = Peer::connect(address, &torrent.info_hash).unwrap();
        peer.unchoked().unwrap();
        self.peers.push(peer);
    }

    /// A peer that asks for more than any limit lets through.
    pub fn thirst(&mut self, host: Ipv4Addr) {
        let torrent = self.add("big", 2 * MIB);
        self.peer(&torrent, host);
        let peer = self.peers.last_mut().unwrap();
        for block in 0..WANTED as u64 / u64::from(BLOCK) {
            let (piece, begin) = place(&torrent, block);
            peer.request(piece, begin, BLOCK).unwrap();
        }
    }

    /// Whether it has got it.
    pub fn is_quenched(&mut self) -> bool {
        let stream = self.peers.last_mut().unwrap().stream();
        stream.set_read_timeout(Some(SIP)).unwrap();
        let mut buffer = [0; 65_536];
        while self.sipped < WANTED {
            match stream.read(&mut buffer) {
                Ok(0) => panic!("the server has closed the connection"),
                Ok(read) => self.sipped += read,
                Err(error) if is_timeout(&error) => return false,
                Err(error) => panic!("{error}"),
            }
        }
        true
    }

    /// Whether a peer is let in now.
    pub fn lets_in(&self, from: Ipv4Addr) -> bool {
        let torrent = Torrent::read(&self.server.path("small.torrent"));
        let stream = seedring_tests::peer::connect_from(IpAddr::V4(from), self.server.peers());
        let meet = |stream| {
            let all = seedring_tests::peer::Extensions::All;
            Peer::from_stream(stream, &torrent.info_hash, all)
        };
        stream.and_then(meet).is_ok()
    }

    /// Starts the other server.
    pub fn offer(&mut self) {
        let data = TempDir::new().unwrap();
        let mut seed = Seed::default();
        for number in 1..=OFFERED {
            let path = data.path().join(format!("offer-{number}"));
            write_file(&path, OFFERED_BYTES, number);
            seed = seed.and_path(&path);
        }
        self.other = Some((seed.start(), data));
    }

    /// Has the next of what the other server offers be downloaded; the file that comes of it.
    pub fn download(&mut self) -> PathBuf {
        let number = self.next();
        let (other, _) = self.other.as_ref().unwrap();
        let name = format!("offer-{number}");
        let mut offered = other.ready.torrents.iter();
        let offered = offered.find(|offered| offered.name == name);
        let torrent = offered.expect("not so many are offered").torrent.clone();
        let peer = other.address().to_string();
        let (torrent, out) = (torrent.to_str().unwrap(), self.server.path("out"));
        let place = ["-d", out.to_str().unwrap(), "--peer", &peer];
        self.server.ok([&["add", torrent][..], &place].concat());
        out.join(name)
    }

    /// Whether the download of that number is whole.
    pub fn is_downloaded(&self, number: u64) -> bool {
        self.status(&format!("offer-{number}")).as_deref() == Some("seeding")
    }

    /// Whether a file that is begun now has all of its space before its bytes.
    pub fn takes_all_space(&mut self) -> bool {
        let mut file = self.download().into_os_string();
        file.push(".part");
        let space = || std::fs::metadata(&file).map_or(0, |file| file.blocks() * 512);
        self.server.until("a file begun", || space() > 0);
        space() >= OFFERED_BYTES
    }

    /// Whether little of a file that is downloaded now is in the page cache.
    pub fn writes_past_the_cache(&mut self) -> bool {
        let file = self.download();
        let number = self.count;
        self.server
            .until("a download", || self.is_downloaded(number));
        let mut command = Command::new("fincore");
        command.args(["-nrb", "-o", "RES"]).arg(file);
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.trim().parse::<u64>().unwrap() < OFFERED_BYTES / 2
    }

    /// The status that the API answers with over TCP.
    pub fn asked(&self, headers: &str) -> u16 {
        let (address, _) = split_url(&self.server.api);
        let mut stream = TcpStream::connect(address).unwrap();
        let request = format!("GET /api/v1/server HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// Whether this is the certificate that who connects now is shown.
    pub fn shows(&self, certificate: &str) -> bool {
        let expected = std::fs::read_to_string(self.server.path(certificate)).unwrap();
        let address = split_url(&self.server.api).0;
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", address]);
        let output = command.stdin(std::process::Stdio::null()).output().unwrap();
        let body = |text: &str| {
            let (_, rest) = text.split_once("-----BEGIN CERTIFICATE-----")?;
            let (body, _) = rest.split_once("-----END CERTIFICATE-----")?;
            Some(body.split_whitespace().collect::<String>())
        };
        let shown = body(&String::from_utf8_lossy(&output.stdout));
        shown.is_some() && shown == body(&expected)
    }

    /// Whether who asks the server's own tracker is given peers of his own network first, each of
    /// many times; without zones that would be a wonder.
    pub fn tells_of_own_zone_first(&self) -> bool {
        /// Peers that are asked for, and how many of those are kept for the asker's own zone.
        const ASKED: u32 = 8;
        const OWN: usize = 6;
        let ready = event(&self.server.process, "ready").unwrap();
        let url = ready["tracker"].as_str().unwrap().to_owned();
        let tracker: SocketAddr = split_url(&url).0.parse().unwrap();
        let announce = |network: u8, host: u8, wanted: u32| {
            let ip = Ipv4Addr::new(10, network, 0, host);
            let mut peer_id = *b"-XX0000-........test";
            peer_id[8..10].copy_from_slice(&[network, host]);
            Asker::at(ip.into(), tracker).announce(&[7; 20], &peer_id, 7000, wanted)
        };
        for host in 1..=20 {
            announce(1, host, 0);
            announce(2, host, 0);
        }
        (0..20).all(|_| {
            let told = announce(1, 21, ASKED);
            let own = told.iter().filter(|peer| peer.ip().octets()[1] == 1);
            own.count() >= OWN
        })
    }

    /// A tracker that all torrents from here on may be told of.
    pub fn track(&mut self, behaviour: Behaviour) -> String {
        let tracker = RecordingTracker::start(behaviour);
        let url = tracker.url();
        self.tracker = Some(tracker);
        url
    }

    /// Peers that want the slots: two that take data all the time, and have half of the torrent,
    /// and many that have nothing and only wait.
    pub fn crowd(&mut self) {
        let torrent = Arc::new(self.add("big", 16 * MIB));
        let address = self.server.peers();
        let pieces = torrent.pieces.len();
        let mut half = vec![0; pieces.div_ceil(8)];
        half[..pieces / 16].fill(0xff);
        for _ in 0..2 {
            let mut busy = Peer::connect_plain(address, &torrent.info_hash).unwrap();
            busy.send(id::BITFIELD, &half).unwrap();
            busy.unchoked().unwrap();
            let torrent = Arc::clone(&torrent);
            self.taking
                .push(std::thread::spawn(move || take(busy, &torrent)));
        }
        for _ in 0..12 {
            let mut peer = Peer::connect(address, &torrent.info_hash).unwrap();
            peer.send(id::INTERESTED, &[]).unwrap();
            self.peers.push(peer);
        }
    }

    /// Whether one of those that take data has lost its slot.
    pub fn is_choked(&mut self) -> bool {
        let ended = self.taking.iter().position(JoinHandle::is_finished);
        let Some(ended) = ended else { return false };
        let ended = self.taking.swap_remove(ended).join().unwrap();
        ended.expect("it was sent away");
        true
    }
}

/// Where a block is in a torrent.
fn place(torrent: &Torrent, block: u64) -> (u32, u32) {
    let at = block * u64::from(BLOCK);
    let length = torrent.piece_length;
    let piece = u32::try_from(at / length).unwrap();
    (piece, u32::try_from(at % length).unwrap())
}

/// Takes a block after the other of what it does not have, until it is choked.
fn take(mut peer: Peer, torrent: &Torrent) -> std::io::Result<()> {
    let blocks = torrent.length() / u64::from(BLOCK);
    for block in (blocks / 2..blocks).cycle() {
        let (piece, begin) = place(torrent, block);
        peer.request(piece, begin, BLOCK)?;
        loop {
            match peer.read()?.id {
                Some(id::PIECE) => break,
                Some(id::CHOKE) => return Ok(()),
                _ => {}
            }
        }
        // Fast enough to be before all others, and slow enough not to be done for an hour.
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// A certificate and its key in the files `NAME.pem` and `NAME.key` of a folder.
pub fn vouch(folder: &Path, name: &str) {
    let authority = seedring_tests::certificates::Authority::new().unwrap();
    let (pem, key) = authority.self_signed(name, &["subjectAltName=IP:127.0.0.1"]);
    std::fs::copy(pem, folder.join(format!("{name}.pem"))).unwrap();
    std::fs::copy(key, folder.join(format!("{name}.key"))).unwrap();
}
