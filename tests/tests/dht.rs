//! The DHT with real nodes: libtorrent's and ours in one network on loopback, and some by hand.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use seedring_tests::bencode::{Value, decode};
use seedring_tests::content::{KIB, MIB};
use seedring_tests::dht::{Node, SILENCE, bytes};
use seedring_tests::dht_network::{
    ANNOUNCED, Theirs, V4, V6, get, known, nodes_metric, on, seed, with_node,
};
use seedring_tests::get::Get;
use seedring_tests::lan;
use seedring_tests::need;
use seedring_tests::peer::{self, Peer, id};
use seedring_tests::process::{Process, run_ok};
use seedring_tests::server::{SHORT, Seed, Server, event};
use seedring_tests::single::Single;
use seedring_tests::skip::{Skip, program};
use seedring_tests::torrent::Torrent;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest wait for a download; what it took is printed.
const LIMIT: Duration = Duration::from_secs(180);
/// A link alone becomes a download of ours in less. Seconds are measured.
const LINK_MAX: Duration = Duration::from_secs(30);
/// Nodes of libtorrent and of ours in the network.
const THEIRS: usize = 14;
const OURS: usize = 8;

/// A network of libtorrent's nodes and ours: from a link with nothing but the hash each side finds
/// what the other seeds, and all of it arrives.
fn a_magnet_alone_is_enough_over(test: &str, ip: IpAddr) {
    let (by_ours, by_theirs) = (Single::new(5 * MIB, 1, &[]), Single::new(5 * MIB, 2, &[]));
    let torrent = by_theirs.torrent.to_str().unwrap();
    let data_dir = by_theirs.data_dir();
    let data_dir = data_dir.to_str().unwrap();
    let mut theirs = need!(
        test,
        Theirs::start(ip, THEIRS, &["--seed", torrent, data_dir])
    );
    let others: Vec<Single> = (1..OURS as u64)
        .map(|seed| Single::new(32 * KIB, 10 + seed, &[]))
        .collect();
    let ours: Vec<Server> = others
        .iter()
        .enumerate()
        .map(|(index, content)| seed(content, ip, Some(theirs.nodes[index % THEIRS])))
        .collect();
    let mut seed = seed(&by_ours, ip, Some(theirs.nodes[1]));
    // What is timed is the way from a link to a download, so both seeds have to be announced
    // before: libtorrent's first announce goes out before it knows anybody, the next 20 s later.
    seed.wait_for_metric(ANNOUNCED, 1.0);
    theirs.wait_for_announce(&by_theirs.info_hash(), LIMIT);

    // Through a node of ours, and through one of libtorrent.
    for (content, node) in [
        (&by_ours, theirs.nodes[THEIRS - 1]),
        (&by_ours, ours[3].ready.dht[0]),
        (&by_theirs, ours[3].ready.dht[0]),
    ] {
        let (folder, started) = (TempDir::new().unwrap(), Instant::now());
        get(&content.magnet(), &folder, ip, node)
            .start()
            .complete(LIMIT);
        let took = started.elapsed();
        println!("{test}: a link alone became a download in {took:?}");
        assert!(took < LINK_MAX, "{took:?}");
        content.assert_copied(&folder);
    }
    let (folder, started) = (TempDir::new().unwrap(), Instant::now());
    let (magnet, target) = (by_ours.magnet(), folder.path().to_str().unwrap());
    let node = ours[3].ready.dht[0].port().to_string();
    let more = ["--node", &node, "--get", &magnet, target];
    let mut theirs = need!(test, Theirs::start(ip, 1, &more));
    theirs.process.wait_for("complete", LIMIT, |process| {
        process.stdout().contains("complete").then_some(())
    });
    println!("{test}: the same for libtorrent in {:?}", started.elapsed());
    by_ours.assert_copied(&folder);
    let most = ours
        .iter()
        .map(|server| known(server, ip))
        .fold(0.0, f64::max);
    println!("{test}: one node of ours knows {most} others");
    assert!(most >= 8.0, "{most}");
}

#[test]
fn a_magnet_alone_is_enough() {
    a_magnet_alone_is_enough_over("a_magnet_alone_is_enough", V4);
}

#[test]
fn a_magnet_alone_is_enough_over_ipv6() {
    a_magnet_alone_is_enough_over("a_magnet_alone_is_enough_over_ipv6", V6);
}

/// How aria2 takes part: by this node, on loopback.
fn aria2(node: SocketAddr, folder: &Path) -> Result<Command, Skip> {
    let mut command = Command::new(program("aria2c", "aria2")?);
    command.args(["--no-conf", "--enable-dht=true", "--enable-dht6=false"]);
    command.arg(format!("--dht-entry-point={node}"));
    command.arg(format!("--dht-file-path={}/dht.dat", folder.display()));
    // In a network of its own nobody else has these ports.
    command.args(["--dht-listen-port=7001", "--listen-port=7001"]);
    command.args(["--bt-enable-lpd=false", "--enable-peer-exchange=false"]);
    command.args(["--summary-interval=0", "--file-allocation=none"]);
    command.args(["--console-log-level=info", "--interface=127.0.0.1"]);
    Ok(command)
}

/// aria2 and ours find each other's seeds by the DHT alone.
#[test]
fn aria2_and_ours_find_each_other() {
    let test = "aria2_and_ours_find_each_other";
    if !need!(test, lan::inside(test)) {
        return;
    }
    let mut up = Command::new("ip");
    run_ok("ip", up.args(["link", "set", "lo", "up"]), SHORT);
    let (by_ours, by_theirs) = (Single::new(MIB, 1, &[]), Single::new(MIB, 2, &[]));
    let first = seed(&Single::new(32 * KIB, 3, &[]), V4, None);
    let node = first.ready.dht[0];
    let mut seed = seed(&by_ours, V4, Some(node));
    seed.wait_for_metric(ANNOUNCED, 1.0);

    let (state, folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut command = need!(test, aria2(node, state.path()));
    command.args(["--seed-time=0", "--dir"]).arg(folder.path());
    let started = Instant::now();
    let mut theirs = Process::spawn("aria2c", command.arg(by_ours.magnet()));
    let status = theirs.wait_exit(LIMIT);
    assert!(status.success(), "{status}\n{}", theirs.transcript());
    println!("{test}: aria2 had it in {:?}", started.elapsed());
    by_ours.assert_copied(&folder);

    let mut command = need!(test, aria2(node, state.path()));
    command.args(["--seed-ratio=0", "--check-integrity=true", "--dir"]);
    command.arg(by_theirs.data_dir()).arg(&by_theirs.torrent);
    let _theirs = Process::spawn("aria2c", &command);
    let (folder, started) = (TempDir::new().unwrap(), Instant::now());
    get(&by_theirs.magnet(), &folder, V4, node)
        .start()
        .complete(LIMIT);
    println!("{test}: we had it in {:?}", started.elapsed());
    by_theirs.assert_copied(&folder);
}

/// A torrent without a tracker names a node to begin with (BEP 5).
#[test]
fn the_nodes_of_a_torrent_are_enough_to_begin_with() {
    let content = Single::new(MIB, 1, &[]);
    let first = seed(&Single::new(32 * KIB, 2, &[]), V4, None);
    let node = first.ready.dht[0];
    let mut seed = seed(&content, V4, Some(node));
    seed.wait_for_metric(ANNOUNCED, 1.0);
    let (of_torrent, _) = decode(&std::fs::read(&content.torrent).unwrap());
    let Value::Dictionary(mut torrent) = of_torrent else {
        panic!("a torrent is a dictionary");
    };
    let port = Value::Integer(i64::from(node.port()));
    let nodes = Value::List(vec![Value::List(vec![bytes(b"127.0.0.1"), port])]);
    torrent.insert(b"nodes".to_vec(), nodes);
    let path = content.root().join("with nodes.torrent");
    std::fs::write(&path, Value::Dictionary(torrent).encode()).unwrap();
    let folder = TempDir::new().unwrap();
    Get::new(&path, folder.path())
        .setting("dht", "enabled", "true")
        .setting("dht", "bootstrap", "")
        .start()
        .complete(LIMIT);
    content.assert_copied(&folder);
}

/// What is known is kept for the next start, also by `get`.
#[test]
fn nodes_are_remembered() {
    let content = Single::new(MIB, 1, &[]);
    let first = seed(&Single::new(32 * KIB, 2, &[]), V4, None);
    let node = first.ready.dht[0];
    let mut seed = seed(&content, V4, Some(node));
    seed.wait_for_metric(ANNOUNCED, 1.0);
    let state = TempDir::new().unwrap();
    let nobody: SocketAddr = "127.0.0.1:9".parse().unwrap();
    for bootstrap in [node, nobody] {
        let folder = TempDir::new().unwrap();
        let get = get(&content.magnet(), &folder, V4, bootstrap).state_dir(state.path());
        get.start().complete(LIMIT);
        content.assert_copied(&folder);
        assert!(state.path().join("dht.nodes").exists());
    }
}

/// BEP 27: of a private torrent no node ever hears, of another one does.
#[test]
fn private_torrents_are_kept_off() {
    let public = Single::new(32 * KIB, 1, &[]);
    let options = ["--private", "--tracker", "http://127.0.0.1:9/announce"];
    let private = Single::new(MIB, 2, &options);
    let node = Node::at(V4, [9; 20]);
    // Slow enough for a search to be made meanwhile.
    let slow = with_node(&private, Some(node.address()));
    let hidden = on(V4, slow.setting("limits", "upload_rate", "300kB/s")).start();
    let mut shown = seed(&public, V4, Some(node.address()));
    let folder = TempDir::new().unwrap();
    let getting = Get::new(&private.torrent, folder.path())
        .setting("dht", "enabled", "true")
        .setting("dht", "bootstrap", &node.address().to_string())
        .peer(hidden.address())
        .start();
    let (mut heard, until) = (Vec::new(), Instant::now() + LIMIT);
    let hashes_of = |query: &Value| {
        let hash = query.get("a")?.get("info_hash")?.bytes();
        let digits = hash.iter().map(|byte| format!("{byte:02x}"));
        Some(digits.collect::<String>())
    };
    // Until all three have asked the node, one has looked for its torrent, and one has all of it.
    let is_over = |heard: &[String]| {
        let asked = |server: &Server| server.metrics()["seedring_dht_queries_sent_total"] > 0.0;
        heard.contains(&public.info_hash())
            && event(&getting.process, "complete").is_some()
            && asked(&hidden)
            && asked(&shown)
    };
    while !is_over(&heard) {
        assert!(Instant::now() < until, "{heard:?}");
        heard.extend(node.serve(SILENCE).iter().filter_map(hashes_of));
    }
    assert!(!heard.contains(&private.info_hash()), "{heard:?}");
    shown.wait_for_metric("seedring_dht_torrents", 1.0);
    assert_eq!(hidden.metrics()["seedring_dht_torrents"], 0.0);
}

/// Of a link it is not known whether its torrent is private before peers have said what it is:
/// until then it is looked for, and announced only if it is not.
#[test]
fn what_a_link_stands_for_is_announced_only_when_it_is_not_private() {
    let options = ["--private", "--tracker", "http://127.0.0.1:9/announce"];
    // How long it takes here to announce what is complete.
    let mut took = Duration::ZERO;
    for options in [&[][..], &options[..]] {
        let is_private = !options.is_empty();
        let content = Single::new(32 * KIB, 1, options);
        let seed = Seed::torrent(&content.torrent, &content.data_dir());
        let server = seed.options(["--no-tracker", "--shards", "1"]).start();
        let (node, folder) = (Node::at(V4, [9; 20]), TempDir::new().unwrap());
        let getting = get(&content.magnet(), &folder, V4, node.address())
            .peer(server.address())
            .options(["--seed"])
            .start();
        let is_announce = |query: &Value| query.get("q").unwrap().bytes() == b"announce_peer";
        let (mut announces, until) = (0, Instant::now() + SHORT);
        let mut hear = |time| {
            let queries = node.serve(time);
            announces += queries.iter().filter(|query| is_announce(query)).count();
            announces
        };
        let started = Instant::now();
        while event(&getting.process, "complete").is_none() {
            assert!(Instant::now() < until, "{}", getting.process.transcript());
            hear(SILENCE);
        }
        if is_private {
            // Several times as long as the other one took.
            assert_eq!(hear(10 * SILENCE + 5 * took), 0);
        } else {
            while hear(SILENCE) == 0 {
                assert!(Instant::now() < until, "{}", getting.process.transcript());
            }
            took = started.elapsed();
        }
        content.assert_copied(&folder);
    }
}

/// Peers are told of our node and tell us of theirs (BEP 5), but for a private torrent.
#[test]
fn peers_tell_each_other_of_their_nodes() {
    let options = ["--private", "--tracker", "http://127.0.0.1:9/announce"];
    for (ip, options) in [(V4, &[][..]), (V4, &options[..]), (V6, &[][..])] {
        let is_private = !options.is_empty();
        let content = Single::new(32 * KIB, 1, options);
        let mut server = seed(&content, ip, None);
        let torrent = Torrent::read(&content.torrent);
        let mut handshake = peer::handshake(&torrent.info_hash, peer::Extensions::All);
        handshake[27] |= 1;
        let mut stream = TcpStream::connect((ip, server.ready.peer_port)).unwrap();
        stream.write_all(&handshake).unwrap();
        let mut peer = Peer::introduced(stream).unwrap();
        assert_eq!(peer.reserved[7] & 1, 1, "we have a node");
        let node = Node::at(ip, [9; 20]);
        let port = node.address().port().to_be_bytes();
        peer.send(id::PORT, &port).unwrap();
        assert!(!node.serve(10 * SILENCE).is_empty(), "it is asked");
        server.wait_for_metric(nodes_metric(ip), 1.0);
        // What comes first are our pieces and our extensions; then there is time for more.
        peer.send(id::INTERESTED, &[]).unwrap();
        let mut told = None;
        loop {
            let message = peer.read().unwrap();
            match message.id {
                Some(id::PORT) => told = Some(message.payload),
                Some(id::UNCHOKE) => break,
                _ => {}
            }
        }
        let ours = server.ready.dht[0].port().to_be_bytes().to_vec();
        assert_eq!(told, (!is_private).then_some(ours));
    }
}

/// A read-only node answers nobody, and says that it is one.
#[test]
fn a_read_only_node_answers_nobody() {
    let node = Node::at(V4, [9; 20]);
    let content = Single::new(32 * KIB, 1, &[]);
    let folder = TempDir::new().unwrap();
    let _getting = get(&content.magnet(), &folder, V4, node.address()).start();
    let until = Instant::now() + SHORT;
    let mut queries = Vec::new();
    while queries.len() < 2 && Instant::now() < until {
        queries.extend(node.serve(SILENCE));
    }
    assert!(queries.len() >= 2, "{queries:?}");
    let says = |query: &Value| query.get("ro").is_some_and(|ro| ro.integer() == 1);
    assert!(queries.iter().all(says), "{queries:?}");
}
