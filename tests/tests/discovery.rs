//! Peers that find each other without a tracker: by peer exchange (BEP 11) and in the local network
//! (BEP 14); those whom we call for a complete torrent; private torrents, of which nothing is told
//! (BEP 27); lists of addresses to keep away.
//!
//! In networks of their own, so that nothing outside a test is found.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use rustix::process::Signal;
use seedring_tests::clients::{libtorrent_python, script};
use seedring_tests::content::{MIB, assert_same_tree};
use seedring_tests::dht_network::{ANNOUNCED, Theirs};
use seedring_tests::get::{Get, Getting, last};
use seedring_tests::lan::{self, CLIENT, CLIENT_MORE, CLIENT_V6, Lan, SERVER, SERVER_V6};
use seedring_tests::need;
use seedring_tests::peer::{Peer, id};
use seedring_tests::process::Process;
use seedring_tests::server::{SHORT, Seed, Server, event, events, metrics_of, seedring};
use seedring_tests::single::Single;
use seedring_tests::skip::{Skip, is_root, program};
use seedring_tests::torrent::Torrent;
use seedring_tests::tracker::{Behaviour, RecordingTracker};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use std::ffi::OsStr;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// Longest wait for peers to meet; Transmission tells of others every 90 s.
const MEET: Duration = Duration::from_secs(200);

/// Where Transmission listens.
const TRANSMISSION_PORT: u16 = 51_413;

/// A file of some MiB and its torrent.
fn some_mib(options: &[&str]) -> Single {
    let pieces = ["--piece-size", "64K"];
    Single::new(8 * MIB + 5, 77, &[&pieces, options].concat())
}

/// A seed that needs minutes for the file.
fn slow(seed: Seed) -> Server {
    seed.setting("limits", "upload_rate", "60kB/s").start()
}

fn at(host: Ipv4Addr, server: &Server) -> SocketAddr {
    SocketAddr::from((host, server.ready.peer_port))
}

/// libtorrent on the client's host at `address`.
fn libtorrent(
    lan: &Lan,
    torrent: &Path,
    folder: &Path,
    address: Ipv4Addr,
    options: &[&str],
) -> Result<Process, Skip> {
    let mut command = lan.client_command(libtorrent_python()?);
    command
        .arg(script("libtorrent_swarm.py"))
        .arg(torrent)
        .arg(folder);
    command.arg(address.to_string()).args(options);
    Ok(Process::spawn("libtorrent", &command))
}

/// Waits until libtorrent has met a peer at `host` that it found by `source`.
fn meets(libtorrent: &mut Process, host: &str, source: &str) {
    libtorrent.wait_for(&format!("peer {host} by {source}"), MEET, |process| {
        let stdout = process.stdout();
        let mut peers = stdout.lines().filter_map(|line| line.strip_prefix("peer "));
        peers.find_map(|peer| {
            let (found, sources) = peer.split_once(' ')?;
            (found == host && sources.split(',').any(|one| one == source)).then_some(())
        })
    });
}

/// Transmission on the client's host. For peer exchange it has another address than our downloads
/// there, because it takes one peer of an address; local discovery names it by the host's own.
fn transmission(
    lan: &Lan,
    torrent: &Path,
    folder: &Path,
    home: &Path,
    how: &str,
) -> Result<Process, Skip> {
    let program = program("transmission-daemon", "transmission-daemon")?;
    let watch = home.join("watch");
    std::fs::create_dir(&watch).unwrap();
    std::fs::copy(torrent, watch.join("add.torrent")).unwrap();
    let address = match how {
        "pex" => CLIENT_MORE[0],
        _ => CLIENT,
    };
    let settings = serde_json::json!({
        "bind-address-ipv4": address.to_string(),
        "dht-enabled": false,
        "download-dir": folder,
        "lpd-enabled": how == "lpd",
        "peer-port": TRANSMISSION_PORT,
        "pex-enabled": how == "pex",
        "port-forwarding-enabled": false,
        "rpc-enabled": false,
        "utp-enabled": false,
        "watch-dir": watch,
        "watch-dir-enabled": true,
    });
    std::fs::write(home.join("settings.json"), settings.to_string()).unwrap();
    let mut command = lan.client_command(program);
    command
        .args(["--foreground", "--log-debug", "--config-dir"])
        .arg(home);
    command.env("HOME", home).env("LC_ALL", "C.UTF-8");
    Ok(Process::spawn("transmission-daemon", &command))
}

/// Waits until `get` knows `known` addresses and has met `peers` of the source.
fn finds(getting: &mut Getting, source: &str, known: u64, peers: u64) {
    getting
        .process
        .wait_for(&format!("peers by {source}"), MEET, |process| {
            let progress = last(process, "progress")?;
            let of = &progress["sources"][source];
            (of["known"].as_u64()? >= known && of["peers"].as_u64()? >= peers).then_some(())
        });
}

/// A download that calls nobody but the first that it is told of.
fn get(content: &Single, folder: &TempDir) -> Get {
    Get::new(&content.torrent, folder.path())
}

#[test]
fn our_seed_makes_libtorrent_and_our_download_known_to_each_other() {
    let test = "our_seed_makes_libtorrent_and_our_download_known_to_each_other";
    if !need!(test, lan::inside(test)) {
        return;
    }
    let lan = Lan::build();
    let content = some_mib(&[]);
    let server = slow(content.seed());
    let seed = at(SERVER, &server);
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    // With one place for calls, which the seed has: libtorrent has to call it.
    let shy = get(&content, &folders[0])
        .peer(seed)
        .setting("fetch", "outgoing_max", "1");
    let mut shy = shy.start();
    finds(&mut shy, "given", 1, 1);
    let peer = seed.to_string();
    let options = ["--peer", &peer, "--rate", "30000"];
    let folder = folders[1].path();
    let theirs = libtorrent(&lan, &content.torrent, folder, CLIENT, &options);
    let mut theirs = need!(test, theirs);
    meets(&mut theirs, &SERVER.to_string(), "pex");
    finds(&mut shy, "pex", 1, 0);
    finds(&mut shy, "incoming", 0, 1);
}

#[test]
fn our_download_learns_of_peers_by_libtorrent() {
    let test = "our_download_learns_of_peers_by_libtorrent";
    if !need!(test, lan::inside(test)) {
        return;
    }
    let lan = Lan::build();
    let content = some_mib(&[]);
    let folders = [
        TempDir::new().unwrap(),
        TempDir::new().unwrap(),
        TempDir::new().unwrap(),
    ];
    let start = |folder: &Path, address, options: &[&str]| {
        libtorrent(&lan, &content.torrent, folder, address, options)
    };
    // Nobody has anything, so that nobody completes.
    let mut hub = need!(test, start(folders[0].path(), CLIENT, &[]));
    let port = hub.wait_for("port", SHORT, |process| {
        let stdout = process.stdout();
        stdout
            .lines()
            .find_map(|line| line.strip_prefix("listening ")?.parse::<u16>().ok())
    });
    let peer = format!("{CLIENT}:{port}");
    let other = start(folders[1].path(), CLIENT_MORE[0], &["--peer", &peer]);
    let _other = need!(test, other);
    let mut ours = get(&content, &folders[2])
        .peer((CLIENT, port).into())
        .start();
    finds(&mut ours, "pex", 1, 0);
}

/// Transmission is told of our seed by a tracker, and of our download by our seed only: it calls
/// it.
#[test]
fn our_seed_makes_transmission_and_our_download_known_to_each_other() {
    let test = "our_seed_makes_transmission_and_our_download_known_to_each_other";
    if !need!(test, lan::inside(test)) {
        return;
    }
    let lan = Lan::build();
    let content = some_mib(&[]);
    let server = slow(content.seed());
    let seed = SocketAddrV4::new(SERVER, server.ready.peer_port);
    let host = |program: &OsStr| lan.client_command(program);
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let shy = get(&content, &folders[0])
        .peer(seed.into())
        .setting("fetch", "outgoing_max", "1");
    let mut shy = shy.start_on(&host);
    finds(&mut shy, "given", 1, 1);
    let tracker = RecordingTracker::start_on(SERVER, Behaviour::Names(seed));
    let named = some_mib(&["--tracker", &tracker.url()]);
    let home = TempDir::new().unwrap();
    let folder = folders[1].path();
    let theirs = transmission(&lan, &named.torrent, folder, home.path(), "pex");
    let _theirs = need!(test, theirs);
    finds(&mut shy, "pex", 1, 0);
    finds(&mut shy, "incoming", 0, 1);
}

#[test]
fn our_download_learns_of_peers_by_transmission() {
    let test = "our_download_learns_of_peers_by_transmission";
    if !need!(test, lan::inside(test)) {
        return;
    }
    let lan = Lan::build();
    let content = some_mib(&[]);
    let home = TempDir::new().unwrap();
    let folders = [
        TempDir::new().unwrap(),
        TempDir::new().unwrap(),
        TempDir::new().unwrap(),
    ];
    // Nobody has anything, so that nobody completes.
    let hub = transmission(
        &lan,
        &content.torrent,
        folders[0].path(),
        home.path(),
        "pex",
    );
    let _hub = need!(test, hub);
    let at = SocketAddr::from((CLIENT_MORE[0], TRANSMISSION_PORT));
    let host = |program: &OsStr| lan.client_command(program);
    let _other = get(&content, &folders[1]).peer(at).start_on(&host);
    let mut ours = get(&content, &folders[2]).peer(at).start();
    finds(&mut ours, "given", 1, 1);
    finds(&mut ours, "pex", 1, 0);
}

#[test]
fn transmission_and_ours_find_each_other_in_one_network() {
    let test = "transmission_and_ours_find_each_other_in_one_network";
    if !need!(test, lan::inside(test)) {
        return;
    }
    let lan = Lan::build();
    let content = some_mib(&[]);
    let server = lsd(content.seed()).start();
    let (home, folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let theirs = transmission(&lan, &content.torrent, folder.path(), home.path(), "lpd");
    let mut theirs = need!(test, theirs);
    let file = folder.path().join("one.bin");
    theirs.wait_for("complete", MEET, |_| file.exists().then_some(()));
    assert_same_tree(&content.data_dir(), folder.path());
    drop((theirs, server));
    // The other way round: it is a seed now, begun anew, because it knows the seed at our address.
    let (home, again) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let ours = get(&content, &again).setting("lsd", "enabled", "true");
    let ours = ours.start();
    let theirs = transmission(&lan, &content.torrent, folder.path(), home.path(), "lpd");
    let _theirs = need!(test, theirs);
    ours.complete(MEET);
    assert_same_tree(&content.data_dir(), again.path());
}

fn lsd(seed: Seed) -> Seed {
    seed.setting("lsd", "enabled", "true")
}

#[test]
fn hosts_of_one_network_find_each_other() {
    let test = "hosts_of_one_network_find_each_other";
    if !need!(test, lan::inside(test)) {
        return;
    }
    let lan = Lan::build();
    let content = some_mib(&[]);
    let server = lsd(content.seed()).start();
    let folder = TempDir::new().unwrap();
    // Either hears the other: libtorrent announces when it comes, and our seed calls it.
    let theirs = libtorrent(&lan, &content.torrent, folder.path(), CLIENT, &["--lsd"]);
    let mut theirs = need!(test, theirs);
    theirs.wait_for("complete", MEET, |process| {
        process.stdout().contains("complete").then_some(())
    });
    assert_same_tree(&content.data_dir(), folder.path());
    let found = server.metrics()["seedring_peers_found_total{source=\"lsd\"}"];
    assert!(found >= 1.0, "{found}");
    drop(server);
    // The other way round: it is a seed now.
    let again = TempDir::new().unwrap();
    let ours = get(&content, &again)
        .setting("lsd", "enabled", "true")
        .start();
    ours.complete(MEET);
    assert_same_tree(&content.data_dir(), again.path());
}

/// With nothing but its hash: the first announce tells of who looks for it, and who has it answers.
#[test]
fn a_link_is_enough_in_one_network() {
    let test = "a_link_is_enough_in_one_network";
    if !need!(test, lan::inside(test)) {
        return;
    }
    let lan = Lan::build();
    let content = some_mib(&[]);
    let magnet = format!("magnet:?xt=urn:btih:{}", content.info_hash());
    let by_link = || {
        let folder = TempDir::new().unwrap();
        let get = Get::new(&magnet, folder.path()).setting("lsd", "enabled", "true");
        let client = |program: &OsStr| lan.client_command(program);
        let complete = get.start_on(&client).complete(MEET);
        println!("{} s", complete["seconds"]);
        assert_same_tree(&content.data_dir(), folder.path());
    };
    let ours = lsd(content.seed()).start();
    by_link();
    drop(ours);
    let mut theirs = Command::new(need!(test, libtorrent_python()));
    theirs.arg(script("libtorrent_swarm.py"));
    theirs.args([&content.torrent, &content.data_dir()]);
    let mut theirs = Process::spawn("libtorrent", theirs.args([&SERVER.to_string(), "--lsd"]));
    theirs.wait_for("complete", MEET, |process| {
        process.stdout().contains("complete").then_some(())
    });
    by_link();
}

/// Who has a link and calls nobody: the seed hears of him in this network, and calls him.
#[test]
fn a_seed_that_calls_us_is_enough_for_a_link() {
    let test = "a_seed_that_calls_us_is_enough_for_a_link";
    if !need!(test, lan::inside(test)) {
        return;
    }
    let lan = Lan::build();
    let content = some_mib(&[]);
    let mut theirs = Command::new(need!(test, libtorrent_python()));
    theirs.arg(script("libtorrent_swarm.py"));
    theirs.args([&content.torrent, &content.data_dir()]);
    let mut theirs = Process::spawn("libtorrent", theirs.args([&SERVER.to_string(), "--lsd"]));
    theirs.wait_for("complete", MEET, |process| {
        process.stdout().contains("complete").then_some(())
    });
    let folder = TempDir::new().unwrap();
    let magnet = format!("magnet:?xt=urn:btih:{}", content.info_hash());
    let shy = Get::new(&magnet, folder.path())
        .setting("lsd", "enabled", "true")
        .setting("fetch", "outgoing_max", "0");
    let client = |program: &OsStr| lan.client_command(program);
    shy.start_on(&client).complete(MEET);
    assert_same_tree(&content.data_dir(), folder.path());
}

#[test]
fn hosts_of_one_network_find_each_other_by_ipv6() {
    let test = "hosts_of_one_network_find_each_other_by_ipv6";
    if !need!(test, lan::inside(test)) {
        return;
    }
    let lan = Lan::build();
    let content = some_mib(&[]);
    let on_lan = |seed: Seed| {
        seed.setting("lsd", "interfaces", "lan0")
            .setting("peers", "bind_v4", "")
    };
    let server = on_lan(lsd(content.seed())).start();
    let folder = TempDir::new().unwrap();
    let theirs = get(&content, &folder)
        .setting("lsd", "enabled", "true")
        .setting("lsd", "interfaces", "lan0")
        .setting("peers", "bind_v4", "");
    let client = |program: &OsStr| lan.client_command(program);
    theirs.start_on(&client).complete(MEET);
    assert_same_tree(&content.data_dir(), folder.path());
    assert_ne!(SERVER_V6, CLIENT_V6);
    drop(server);
}

#[test]
fn a_leecher_that_cannot_call_us_is_called() {
    let test = "a_leecher_that_cannot_call_us_is_called";
    if !need!(test, lan::inside(test)) {
        return;
    }
    let lan = Lan::build();
    let content = some_mib(&[]);
    let folder = TempDir::new().unwrap();
    let theirs = libtorrent(&lan, &content.torrent, folder.path(), CLIENT, &[]);
    let mut theirs = need!(test, theirs);
    let port = theirs.wait_for("port", SHORT, |process| {
        let stdout = process.stdout();
        stdout
            .lines()
            .find_map(|line| line.strip_prefix("listening ")?.parse::<u16>().ok())
    });
    // It names the leecher to us, and nobody to the leecher, which does not know of it.
    let tracker = RecordingTracker::start(Behaviour::Names(SocketAddrV4::new(CLIENT, port)));
    let with_tracker = some_mib(&["--tracker", &tracker.url()]);
    assert_eq!(with_tracker.info_hash(), content.info_hash());
    let _server = with_tracker.seed().start();
    theirs.wait_for("complete", MEET, |process| {
        process.stdout().contains("complete").then_some(())
    });
    meets(&mut theirs, &SERVER.to_string(), "incoming");
    assert_same_tree(&content.data_dir(), folder.path());
}

/// What of a torrent was seen on the wire while two hosts fetched it from our seed.
#[derive(PartialEq, Eq, Debug)]
struct Leaks {
    /// Datagrams of local discovery that name it.
    discovery: usize,
    /// Queries of the DHT that do.
    dht: usize,
    /// Offers of peer exchange.
    exchange: usize,
}

/// See [`Leaks`]. Everybody knows a node of libtorrent.
fn leaks(lan: &Lan, options: &[&str], node: &str) -> Leaks {
    let content = some_mib(options);
    let mut capture = Command::new("python3");
    capture
        .arg(script("capture.py"))
        .args(["lan0", &content.info_hash()]);
    let mut capture = Process::spawn("capture", &capture);
    capture.wait_for("capturing", SHORT, |one| {
        one.stdout().contains("capturing").then_some(())
    });
    let mut server = lsd(content.seed())
        .setting("limits", "upload_rate", "3MB/s")
        .setting("dht", "enabled", "true")
        .setting("dht", "bootstrap", node)
        .start();
    server.wait_for_metric("seedring_dht_nodes{family=\"ipv4\"}", 1.0);
    if options.is_empty() {
        server.wait_for_metric(ANNOUNCED, 1.0);
    }
    let seed = at(SERVER, &server);
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let client = |program: &OsStr| lan.client_command(program);
    let ours = server.ready.dht[0].port();
    let nodes = [node.to_owned(), format!("{SERVER}:{ours}")];
    let getting = folders.each_ref().map(|folder| {
        let get = get(&content, folder)
            .peer(seed)
            .setting("lsd", "enabled", "true")
            .setting("dht", "enabled", "true")
            .setting("dht", "bootstrap", &nodes.join(","));
        get.start_on(&client)
    });
    for one in getting {
        one.complete(MEET);
    }
    let seen = capture.stdout();
    let count = |what: &str| seen.lines().filter(|line| *line == what).count();
    Leaks {
        discovery: count("discovery"),
        dht: count("dht"),
        exchange: count("exchange"),
    }
}

#[test]
fn a_private_torrent_leaks_to_nobody() {
    let test = "a_private_torrent_leaks_to_nobody";
    if !need!(test, lan::inside(test)) {
        return;
    }
    if !is_root() {
        return Skip::machine("to capture packets one has to be root").report(test);
    }
    let lan = Lan::build();
    let python = lan.client_command(need!(test, libtorrent_python()));
    let theirs = need!(test, Theirs::start_by(python, CLIENT.into(), 1, &[]));
    let node = theirs.nodes[0].to_string();
    let public = leaks(&lan, &[], &node);
    assert!(
        public.discovery > 0 && public.dht > 0 && public.exchange > 0,
        "the capture sees what there is to see: {public:?}"
    );
    let none = Leaks {
        discovery: 0,
        dht: 0,
        exchange: 0,
    };
    assert_eq!(leaks(&lan, &["--private"], &node), none);
}

/// Tells the network, until it is dropped, that this host has a torrent.
struct Announcing(Arc<AtomicBool>);

impl Announcing {
    fn begin(info_hash: &str, port: u16) -> Self {
        let group = SocketAddrV4::new(Ipv4Addr::new(239, 192, 152, 143), 6771);
        let text = format!(
            "BT-SEARCH * HTTP/1.1\r\nHost: {group}\r\nPort: {port}\r\n\
             Infohash: {info_hash}\r\n\r\n\r\n"
        );
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        socket.set_multicast_if_v4(&SERVER).unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&is_over);
        std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                socket.send_to(text.as_bytes(), &group.into()).unwrap();
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Self(is_over)
    }
}

impl Drop for Announcing {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// BEP 27: whether a link's torrent is private is known when its metadata are here. They may come
/// from whom this network named, who is left then; and nobody is told or heard any more.
#[test]
fn whom_this_network_named_is_left_when_a_link_s_torrent_is_private() {
    const ASKED: &str = "this network: being asked";
    let test = "whom_this_network_named_is_left_when_a_link_s_torrent_is_private";
    if !need!(test, lan::inside(test)) {
        return;
    }
    let lan = Lan::build();
    let tracker = RecordingTracker::start_on(SERVER, Behaviour::Answers);
    let waiting = |line: &Value| line["waiting"].to_string();
    for options in [&[][..], &["--private"]] {
        let content = some_mib(options);
        let server = content.seed().start();
        let folder = TempDir::new().unwrap();
        let get = Get::new(content.magnet(), folder.path())
            .options(["--tracker", &tracker.url()])
            .setting("lsd", "enabled", "true");
        let mut getting = get.start_on(&|program: &OsStr| lan.client_command(program));
        getting.process.wait_for(ASKED, SHORT, |process| {
            let line = last(process, "progress")?;
            waiting(&line).contains(ASKED).then_some(())
        });
        // Nobody else tells of the seed.
        let _announcing = Announcing::begin(&content.info_hash(), server.ready.peer_port);
        getting.event("started", SHORT);
        if options.is_empty() {
            getting.complete(MEET);
            content.assert_copied(&folder);
            continue;
        }
        let fetching = |process: &Process| {
            let lines = events(process, "progress").into_iter();
            let lines = lines.filter(|line| line["action"] == "fetching");
            let lines: Vec<Value> = lines.collect();
            (lines.len() >= 5).then_some(lines)
        };
        let lines = getting.process.wait_for("5 s", SHORT, fetching);
        for line in lines {
            assert_eq!(line["sources"]["lsd"], json!({"known": 0, "peers": 0}));
            assert_eq!(
                (&line["peers"], &line["bytes_done"]),
                (&json!(0), &json!(0))
            );
            let waiting = waiting(&line);
            assert!(
                waiting.contains("tracker") && !waiting.contains(ASKED),
                "{waiting}"
            );
        }
    }
}

#[test]
fn lists_of_addresses_are_read_again_on_sighup() {
    let content = some_mib(&[]);
    let state = TempDir::new().unwrap();
    let list = content.root().join("lists/level1.p2p");
    std::fs::create_dir(list.parent().unwrap()).unwrap();
    std::fs::write(&list, "# nobody yet\n").unwrap();
    let config = content.root().join("seedring.toml");
    // A path that begins at the folder of the configuration.
    let text = format!(
        "[peers]\nport = 0\nip_filter = [\"lists/level1.p2p\"]\n[api]\nlisten = \"127.0.0.1:0\"\n\
         [[torrent]]\ntorrent = {:?}\ndata = {:?}\n",
        content.torrent,
        content.data_dir()
    );
    std::fs::write(&config, text).unwrap();
    let mut command = seedring(["serve", "--json"]);
    command
        .arg("--config")
        .arg(&config)
        .arg("--state-dir")
        .arg(state.path());
    let mut server = Process::spawn("seedring serve", &command);
    let ready = server.wait_for("ready line", MEET, |process| event(process, "ready"));
    let api = ready["api"].as_str().unwrap().to_owned();
    let port = u16::try_from(ready["peer_port"].as_u64().unwrap()).unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let info_hash = Torrent::read(&content.torrent).info_hash;
    let mut here = Peer::connect(address, &info_hash).unwrap();
    here.read_until(id::HAVE_ALL).unwrap();

    let mut file = std::fs::File::create(&list).unwrap();
    file.write_all(b"Loopback: all of it:127.0.0.0-127.255.255.255\nnonsense\n")
        .unwrap();
    server.signal(Signal::HUP);
    server.wait_for("list", SHORT, |process| {
        process
            .stderr()
            .contains("level1.p2p:2: no range")
            .then_some(())
    });
    here.closed_within(SHORT);
    assert!(
        Peer::connect(address, &info_hash).is_err(),
        "it is kept away"
    );
    let refused = "seedring_connections_refused_total{reason=\"ip_filter\"}";
    assert!(metrics_of(&api)[refused] >= 1.0);
    assert_eq!(metrics_of(&api)["seedring_ip_filter_ranges"], 1.0);
    assert_eq!(metrics_of(&api)["seedring_ip_filter_malformed_lines"], 1.0);

    // A list that cannot be used changes nothing.
    std::fs::write(&list, "<html>\n").unwrap();
    server.signal(Signal::HUP);
    server.wait_for("refusal", SHORT, |process| {
        process
            .stderr()
            .contains("the configuration stays as it was")
            .then_some(())
    });
    assert!(Peer::connect(address, &info_hash).is_err(), "it still is");

    std::fs::write(&list, "").unwrap();
    server.signal(Signal::HUP);
    server.wait_for("an open door", SHORT, |_| {
        Peer::connect(address, &info_hash).ok()
    });
}
