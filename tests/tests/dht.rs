//! The DHT with real nodes: libtorrent's and ours in one network on loopback, and hostile ones by
//! hand.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use seedring_tests::bencode::{Value, decode, dictionary};
use seedring_tests::clients::{libtorrent_python, script};
use seedring_tests::content::{KIB, MIB, assert_same_tree, write_file};
use seedring_tests::dht::{Node, SILENCE, bytes, query};
use seedring_tests::get::Get;
use seedring_tests::lan;
use seedring_tests::need;
use seedring_tests::peer::{self, Peer, id};
use seedring_tests::process::{Process, run_ok};
use seedring_tests::server::{SHORT, Seed, Server, event, seedring};
use seedring_tests::skip::{Skip, program};
use seedring_tests::torrent::Torrent;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
/// Longest wait for a download; what it took is printed.
const LIMIT: Duration = Duration::from_secs(180);
/// A link alone becomes a download of ours in less. Seconds are measured.
const LINK_MAX: Duration = Duration::from_secs(30);
/// Nodes of libtorrent and of ours in the network.
const THEIRS: usize = 14;
const OURS: usize = 8;

/// One file, in a folder of its own, and its torrent, which names no tracker.
struct Content {
    root: TempDir,
    torrent: PathBuf,
}

impl Content {
    fn new(bytes: u64, seed: u64, options: &[&str]) -> Self {
        let root = TempDir::new().unwrap();
        write_file(&root.path().join("data/one.bin"), bytes, seed);
        let torrent = root.path().join("it.torrent");
        let mut create = seedring(["create"]);
        create
            .arg(root.path().join("data/one.bin"))
            .arg("-o")
            .arg(&torrent);
        create.args(options);
        run_ok("seedring create", &create, SHORT);
        Self { root, torrent }
    }

    fn data_dir(&self) -> PathBuf {
        self.root.path().join("data")
    }

    /// A seed of ours that knows this node, on this address only.
    fn seed(&self, ip: IpAddr, node: Option<SocketAddr>) -> Server {
        let nodes = node.map_or(String::new(), |node| node.to_string());
        let seed = Seed::torrent(&self.torrent, &self.data_dir())
            .options(["--no-tracker", "--shards", "1"])
            .setting("dht", "enabled", "true")
            .setting("dht", "bootstrap", &nodes);
        on(ip, seed).start()
    }

    fn hash(&self) -> String {
        Torrent::read(&self.torrent).info_hash_hex()
    }

    /// The link with the hash alone.
    fn magnet(&self) -> String {
        format!("magnet:?xt=urn:btih:{}", self.hash())
    }

    fn assert_copied(&self, folder: &TempDir) {
        assert_same_tree(&self.data_dir(), folder.path());
    }
}

/// Listens on loopback of one family.
fn on(ip: IpAddr, seed: Seed) -> Seed {
    let (v4, v6) = addresses(ip);
    seed.setting("peers", "bind_v4", v4)
        .setting("peers", "bind_v6", v6)
}

fn addresses(ip: IpAddr) -> (&'static str, &'static str) {
    match ip {
        IpAddr::V4(_) => ("127.0.0.1", ""),
        IpAddr::V6(_) => ("", "::1"),
    }
}

/// `get` of a link by nodes that it knows.
fn get(magnet: &str, folder: &TempDir, ip: IpAddr, node: SocketAddr) -> Get {
    let (v4, v6) = addresses(ip);
    Get::new(magnet, folder.path())
        .setting("dht", "enabled", "true")
        .setting("dht", "bootstrap", &node.to_string())
        .setting("peers", "bind_v4", v4)
        .setting("peers", "bind_v6", v6)
}

/// Nodes of libtorrent, and where they listen.
struct Theirs {
    process: Process,
    nodes: Vec<SocketAddr>,
}

impl Theirs {
    fn start(ip: IpAddr, count: usize, more: &[&str]) -> Result<Self, Skip> {
        let mut command = Command::new(libtorrent_python()?);
        command.arg(script("libtorrent_dht.py")).arg(ip.to_string());
        command.arg(count.to_string()).args(more);
        let mut process = Process::spawn("libtorrent nodes", &command);
        let ports = process.wait_for("nodes", SHORT, |process| {
            let stdout = process.stdout();
            let line = stdout
                .lines()
                .find_map(|line| line.strip_prefix("nodes "))?;
            let ports = line.split(' ').map(|port| port.parse::<u16>().unwrap());
            Some(ports.collect::<Vec<_>>())
        });
        assert!(ports.iter().all(|port| *port != 0), "{ports:?}");
        let nodes = ports.into_iter().map(|port| SocketAddr::new(ip, port));
        Ok(Self {
            process,
            nodes: nodes.collect(),
        })
    }

    /// Waits until one of them was told of a peer of this torrent.
    fn wait_for_announce(&mut self, hash: &str) {
        self.process.wait_for("an announce", LIMIT, |process| {
            let told = |line: &str| line.starts_with("dht_announce ") && line.contains(hash);
            process.stderr().lines().any(told).then_some(())
        });
    }
}

fn nodes_metric(ip: IpAddr) -> &'static str {
    match ip {
        IpAddr::V4(_) => "seedring_dht_nodes{family=\"ipv4\"}",
        IpAddr::V6(_) => "seedring_dht_nodes{family=\"ipv6\"}",
    }
}

/// How many nodes of a family a server of ours knows.
fn known(server: &Server, ip: IpAddr) -> f64 {
    server.metrics()[nodes_metric(ip)]
}

/// Waits until a metric of a server is at least so much.
fn wait_for_metric(server: &mut Server, name: &str, least: f64) {
    let api = server.ready.api.clone();
    server.process.wait_for(name, LIMIT, |_| {
        let reply = seedring_tests::http::get(&format!("{}/metrics", api.trim_end_matches('/')));
        let metrics = seedring_tests::server::parse_metrics(&reply.text());
        (metrics[name] >= least).then_some(())
    });
}

const ANNOUNCED: &str = "seedring_dht_searches_total{result=\"announced\"}";

/// A network of libtorrent's nodes and ours: from a link with nothing but the hash each side finds
/// what the other seeds, and all of it arrives.
fn a_magnet_alone_is_enough_over(test: &str, ip: IpAddr) {
    let (by_ours, by_theirs) = (Content::new(5 * MIB, 1, &[]), Content::new(5 * MIB, 2, &[]));
    let torrent = by_theirs.torrent.to_str().unwrap();
    let data_dir = by_theirs.data_dir();
    let data_dir = data_dir.to_str().unwrap();
    let mut theirs = need!(
        test,
        Theirs::start(ip, THEIRS, &["--seed", torrent, data_dir])
    );
    let others: Vec<Content> = (1..OURS as u64)
        .map(|seed| Content::new(32 * KIB, 10 + seed, &[]))
        .collect();
    let ours: Vec<Server> = others
        .iter()
        .enumerate()
        .map(|(index, content)| content.seed(ip, Some(theirs.nodes[index % THEIRS])))
        .collect();
    let mut seed = by_ours.seed(ip, Some(theirs.nodes[1]));
    // What is timed is the way from a link to a download, so both seeds have to be announced before:
    // libtorrent's first announce goes out before it knows anybody, the next 20 s later.
    wait_for_metric(&mut seed, ANNOUNCED, 1.0);
    theirs.wait_for_announce(&by_theirs.hash());

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
    let (by_ours, by_theirs) = (Content::new(MIB, 1, &[]), Content::new(MIB, 2, &[]));
    let first = Content::new(32 * KIB, 3, &[]).seed(V4, None);
    let node = first.ready.dht[0];
    let mut seed = by_ours.seed(V4, Some(node));
    wait_for_metric(&mut seed, ANNOUNCED, 1.0);

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
    let content = Content::new(MIB, 1, &[]);
    let first = Content::new(32 * KIB, 2, &[]).seed(V4, None);
    let node = first.ready.dht[0];
    let mut seed = content.seed(V4, Some(node));
    wait_for_metric(&mut seed, ANNOUNCED, 1.0);
    let (of_torrent, _) = decode(&std::fs::read(&content.torrent).unwrap());
    let Value::Dictionary(mut torrent) = of_torrent else {
        panic!("a torrent is a dictionary");
    };
    let port = Value::Integer(i64::from(node.port()));
    let nodes = Value::List(vec![Value::List(vec![bytes(b"127.0.0.1"), port])]);
    torrent.insert(b"nodes".to_vec(), nodes);
    let path = content.root.path().join("with nodes.torrent");
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
    let content = Content::new(MIB, 1, &[]);
    let first = Content::new(32 * KIB, 2, &[]).seed(V4, None);
    let node = first.ready.dht[0];
    let mut seed = content.seed(V4, Some(node));
    wait_for_metric(&mut seed, ANNOUNCED, 1.0);
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
    let public = Content::new(32 * KIB, 1, &[]);
    let private = Content::new(
        32 * KIB,
        2,
        &["--private", "--tracker", "http://127.0.0.1:9/announce"],
    );
    let node = Node::at(V4, [9; 20]);
    let _private = private.seed(V4, Some(node.address()));
    let _public = public.seed(V4, Some(node.address()));
    let folder = TempDir::new().unwrap();
    let getting = Get::new(&private.torrent, folder.path())
        .setting("dht", "enabled", "true")
        .setting("dht", "bootstrap", &node.address().to_string())
        .start();
    let (mut heard, until) = (Vec::new(), Instant::now() + SHORT);
    let hashes_of = |query: &Value| {
        let hash = query.get("a")?.get("info_hash")?.bytes();
        Some(
            hash.iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>(),
        )
    };
    while !heard.contains(&public.hash()) && Instant::now() < until {
        heard.extend(node.serve(SILENCE).iter().filter_map(hashes_of));
    }
    // The others have had their time, too.
    heard.extend(node.serve(10 * SILENCE).iter().filter_map(hashes_of));
    assert!(heard.contains(&public.hash()), "{heard:?}");
    assert!(!heard.contains(&private.hash()), "{heard:?}");
    drop(getting);
}

/// Of a link it is not known whether its torrent is private before peers have said what it is: until
/// then it is looked for, and announced only if it is not.
#[test]
fn what_a_link_stands_for_is_announced_only_when_it_is_not_private() {
    let options = ["--private", "--tracker", "http://127.0.0.1:9/announce"];
    for options in [&[][..], &options[..]] {
        let is_private = !options.is_empty();
        let content = Content::new(32 * KIB, 1, options);
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
        while Instant::now() < until {
            let heard = hear(SILENCE);
            let is_complete = event(&getting.process, "complete").is_some();
            if is_complete && (is_private || heard > 0) {
                break;
            }
        }
        assert_eq!(hear(10 * SILENCE) > 0, !is_private);
        content.assert_copied(&folder);
    }
}

/// What trackers are asked by holds for the DHT: it goes past no proxy, and by the interface that is
/// named or not at all.
#[test]
fn it_goes_past_no_proxy_and_by_no_other_interface() {
    let content = Content::new(32 * KIB, 1, &[]);
    let with = |key: &str, value: &str| {
        let seed = Seed::torrent(&content.torrent, &content.data_dir())
            .options(["--no-tracker", "--shards", "1"])
            .setting("dht", "enabled", "true")
            .setting("dht", "bootstrap", "");
        on(V4, seed.setting("announce", key, value)).start()
    };
    let server = with("bind_interface", "lo");
    Node::at(V4, [1; 20]).ask(server.ready.dht[0], "ping", &[]);
    let server = with("bind_v4", "127.0.0.2");
    assert_eq!(server.ready.dht[0].ip(), IpAddr::from([127, 0, 0, 2]));
    Node::at(V4, [1; 20]).ask(server.ready.dht[0], "ping", &[]);
    for (key, value) in [
        ("proxy", "http://127.0.0.1:9"),
        ("bind_interface", "nosuch0"),
        // Peers are served over IPv4 alone here.
        ("bind_v6", "::1"),
    ] {
        assert_eq!(with(key, value).ready.dht, [], "{key}");
    }
}

fn ip(arguments: &str) {
    let mut ip = Command::new("ip");
    ip.args(arguments.split(' '));
    run_ok("ip", &ip, SHORT);
}

/// Datagrams that went out by an interface.
fn sent_by(interface: &str) -> u64 {
    let all = std::fs::read_to_string("/proc/self/net/dev").unwrap();
    let of_it = all.lines().find_map(|line| {
        let (name, numbers) = line.split_once(':')?;
        (name.trim() == interface).then_some(numbers)
    });
    let number = of_it.unwrap().split_whitespace().nth(9).unwrap();
    number.parse().unwrap()
}

/// What it is bound to may come later than it, and go and come again as another, as a VPN does.
#[test]
fn an_interface_may_come_late_and_again() {
    let test = "an_interface_may_come_late_and_again";
    if !need!(test, lan::inside(test)) {
        return;
    }
    ip("link set lo up");
    let content = Content::new(32 * KIB, 1, &[]);
    let seed = Seed::torrent(&content.torrent, &content.data_dir())
        .options(["--no-tracker", "--shards", "1"])
        .setting("announce", "bind_interface", "tunnel0")
        .setting("dht", "enabled", "true")
        // Nobody is there, which a node has to ask to know.
        .setting("dht", "bootstrap", "9.9.9.9:6881")
        .setting("peers", "bind_v4", "0.0.0.0")
        .setting("peers", "bind_v6", "");
    let mut server = seed.start();
    assert_eq!(server.ready.dht, []);
    for times in 1..=2 {
        server.process.wait_for("the loss", LIMIT, |process| {
            let told = process.stderr();
            (told.matches("is bound to is not there").count() == times).then_some(())
        });
        ip("link add tunnel0 type veth peer name far0");
        // Nothing is sent but what we send, which waits for nobody to answer.
        for interface in ["tunnel0", "far0"] {
            ip(&format!("link set {interface} addrgenmode none arp off"));
            ip(&format!("link set {interface} up"));
        }
        ip("addr add 9.9.9.1/24 dev tunnel0");
        server.process.wait_for("the return", LIMIT, |process| {
            let told = process.stderr();
            (told.matches("the DHT can send again").count() == times).then_some(())
        });
        assert!(sent_by("tunnel0") > 0);
        ip("link del tunnel0");
    }
}

/// A server of ours without friends.
fn lonely() -> (Content, Server, SocketAddr) {
    let content = Content::new(32 * KIB, 1, &[]);
    let server = content.seed(V4, None);
    let node = server.ready.dht[0];
    (content, server, node)
}

fn dropped(server: &Server, reason: &str) -> f64 {
    server.metrics()[&format!("seedring_dht_datagrams_dropped_total{{reason=\"{reason}\"}}")]
}

/// E2: who sends 1,000 datagrams a second is muted, and nobody else.
#[test]
fn e2_a_flood_is_muted() {
    let (_content, mut server, ours) = lonely();
    let (flood, quiet) = (Node::at(V4, [1; 20]), Node::at(V4, [2; 20]));
    let ping = query(flood.id, "ping", &[], true);
    let (mut sent, mut answered) = (0, 0);
    let started = Instant::now();
    while sent < 3_000 {
        // Never slower than a thousand a second, and never so fast that the kernel drops them.
        let due = (started.elapsed().as_millis() as usize * 2).min(3_000);
        while sent < due {
            flood.send(ours, &ping);
            sent += 1;
        }
        while flood.receive(Duration::from_millis(1)).is_some() {
            answered += 1;
        }
    }
    while flood.receive(SILENCE).is_some() {
        answered += 1;
    }
    assert!((1..=100).contains(&answered), "{answered}");
    wait_for_metric(
        &mut server,
        "seedring_dht_datagrams_dropped_total{reason=\"muted\"}",
        2_000.0,
    );
    quiet.ask(ours, "ping", &[]);
}

/// E3: three bytes for one at most, whatever is asked, while it is not proven who asks.
#[test]
fn e3_nothing_is_amplified() {
    let (_content, mut server, ours) = lonely();
    let friends: Vec<Node> = (0..40_u8)
        .map(|number| Node::at(V4, [number.wrapping_mul(53); 20]))
        .collect();
    for friend in &friends {
        friend.introduce(ours);
    }
    wait_for_metric(&mut server, "seedring_dht_nodes{family=\"ipv4\"}", 8.0);
    let torrent = ("info_hash", bytes(&[7; 20]));
    for (port, friend) in (1_000..).zip(&friends) {
        let (answer, ..) = friend.ask(ours, "get_peers", std::slice::from_ref(&torrent));
        let token = answer.get("r").unwrap().get("token").unwrap().clone();
        let port = ("port", Value::Integer(port));
        let arguments = [torrent.clone(), port, ("token", token)];
        friend.ask(ours, "announce_peer", &arguments);
    }
    let want = ("want", Value::List(vec![bytes(b"n4"), bytes(b"n6")]));
    let target = ("target", bytes(&[7; 20]));
    let queries = [
        ("ping", vec![]),
        ("find_node", vec![target.clone()]),
        ("find_node", vec![target.clone(), want.clone()]),
        ("get_peers", vec![torrent.clone()]),
        ("get_peers", vec![torrent.clone(), want]),
        ("vote", vec![]),
        ("get", vec![target]),
    ];
    let mut most = 0.0_f64;
    for (number, (method, arguments)) in queries.into_iter().enumerate() {
        for read_only in [true, false] {
            let stranger = Node::at(V4, [100 + number as u8; 20]);
            let asked = query(stranger.id, method, &arguments, read_only);
            stranger.send(ours, &asked);
            let mut got = 0;
            // With whatever else comes, such as a ping.
            while let Some((datagram, _)) = stranger.receive(SILENCE) {
                got += datagram.len();
            }
            assert!(got > 0, "{method} is not answered");
            let ratio = got as f64 / asked.len() as f64;
            assert!(ratio <= 3.0, "{method}: {got} bytes for {}", asked.len());
            most = most.max(ratio);
        }
    }
    println!("at most {most:.2} bytes for one");
    // Who has shown that it is there gets more: this is a full answer, not a poor one.
    let (answer, asked, got) = friends[0].ask(ours, "get_peers", &[torrent]);
    assert!(got > 3 * asked, "{got} for {asked}");
    assert!(answer.get("r").unwrap().get("values").unwrap().list().len() > 20);
}

/// E3: all answers together keep to their rate, however many ask, each of them politely.
#[test]
fn e3_all_answers_together_are_bounded() {
    let content = Content::new(32 * KIB, 1, &[]);
    let seed = Seed::torrent(&content.torrent, &content.data_dir())
        .options(["--no-tracker", "--shards", "1"])
        .setting("dht", "enabled", "true")
        .setting("dht", "bootstrap", "")
        .setting("dht", "reply_bytes_per_second", "2KiB");
    let started = Instant::now();
    let mut server = on(V4, seed).start();
    let ours = server.ready.dht[0];
    let ping = query([1; 20], "ping", &[], true);
    let askers: Vec<Node> = (0..100).map(|_| Node::at(V4, [1; 20])).collect();
    for _ in 0..5 {
        askers.iter().for_each(|asker| asker.send(ours, &ping));
        std::thread::sleep(Duration::from_millis(50));
    }
    let refused = "seedring_dht_datagrams_dropped_total{reason=\"rate\"}";
    wait_for_metric(&mut server, refused, 100.0);
    let sent = server.metrics()["seedring_dht_bytes_total{direction=\"out\"}"];
    // A second's worth may go at once.
    let allowed = 2_048.0 * (started.elapsed().as_secs_f64() + 1.0);
    assert!(sent > 0.0 && sent <= allowed, "{sent} of {allowed}");
}

/// Answers are believed of those who were asked only, however right they are otherwise: who sees
/// our queries and answers them from elsewhere sends us nowhere.
#[test]
fn forged_answers_are_not_believed() {
    let asked = Node::at(V4, [9; 20]);
    let (forger, far) = (Node::at(V4, [9; 20]), Node::at(V4, [0x55; 20]));
    let (victim, friend) = (Node::at(V4, [0x11; 20]), Node::at(V4, [0x22; 20]));
    let content = Content::new(32 * KIB, 1, &[]);
    let mut server = content.seed(V4, Some(asked.address()));
    let ours = server.ready.dht[0];
    let (datagram, _) = asked.receive(SHORT).expect("it asks whom it knows");
    let (question, _) = decode(&datagram);
    let transaction = question.get("t").unwrap().bytes().to_vec();
    let right = answer_naming(&asked, &transaction, &victim);
    forger.send(ours, &right);
    far.send(ours, &answer_naming(&far, &transaction, &victim));
    let mut wrong = transaction.clone();
    wrong[0] ^= 1;
    asked.send(ours, &answer_naming(&asked, &wrong, &victim));
    let unsolicited = "seedring_dht_datagrams_dropped_total{reason=\"unsolicited\"}";
    wait_for_metric(&mut server, unsolicited, 3.0);
    // The right one from the right place is.
    asked.send(ours, &answer_naming(&asked, &transaction, &friend));
    assert!(friend.receive(SHORT).is_some(), "it asks whom it was told");
    assert!(victim.receive(10 * SILENCE).is_none(), "nobody asks here");
}

/// An answer that names one other node.
fn answer_naming(by: &Node, transaction: &[u8], named: &Node) -> Vec<u8> {
    let SocketAddr::V4(at) = named.address() else {
        panic!("a node at an IPv4 address");
    };
    let port = at.port().to_be_bytes();
    let compact = [&named.id[..], &at.ip().octets(), &port].concat();
    let reply = dictionary([("id", bytes(&by.id)), ("nodes", bytes(&compact))]);
    let answer = dictionary([("r", reply), ("t", bytes(transaction)), ("y", bytes(b"r"))]);
    answer.encode()
}

/// E4: a token is for the address that it was sent to.
#[test]
fn e4_tokens_are_bound_to_the_address() {
    let (_content, server, ours) = lonely();
    let other: IpAddr = "127.0.0.2".parse().unwrap();
    let (one, other) = (Node::at(V4, [1; 20]), Node::at(other, [2; 20]));
    let torrent = ("info_hash", bytes(&[7; 20]));
    let (answer, ..) = one.ask(ours, "get_peers", std::slice::from_ref(&torrent));
    let token = answer.get("r").unwrap().get("token").unwrap().clone();
    let announce = [
        torrent.clone(),
        ("port", Value::Integer(7)),
        ("token", token.clone()),
    ];
    let (refused, ..) = other.ask(ours, "announce_peer", &announce);
    assert_eq!(refused.get("e").unwrap().list()[0].integer(), 203);
    let wrong = [
        torrent,
        ("port", Value::Integer(7)),
        ("token", bytes(b"12345678")),
    ];
    let (refused, ..) = one.ask(ours, "announce_peer", &wrong);
    assert_eq!(refused.get("e").unwrap().list()[0].integer(), 203);
    let (taken, ..) = one.ask(ours, "announce_peer", &announce);
    assert!(taken.get("r").is_some());
    // What was refused is not stored.
    let (answer, ..) = other.ask(ours, "get_peers", &announce[..1]);
    assert_eq!(
        answer.get("r").unwrap().get("values").unwrap().list().len(),
        1
    );
    drop(server);
}

/// E5: all ids of one address get one place. In a network of its own, where global addresses are
/// ours to use.
#[test]
fn e5_the_ids_of_one_address_get_one_place() {
    let test = "e5_the_ids_of_one_address_get_one_place";
    if !need!(test, lan::inside(test)) {
        return;
    }
    for arguments in [
        "link set lo up",
        "addr add 9.9.9.1/24 dev lo",
        "addr add 9.9.9.2/24 dev lo",
        "addr add 9.9.8.2/24 dev lo",
    ] {
        ip(arguments);
    }
    let content = Content::new(32 * KIB, 1, &[]);
    let server = Seed::torrent(&content.torrent, &content.data_dir())
        .options(["--no-tracker", "--shards", "1"])
        .setting("dht", "enabled", "true")
        .setting("dht", "bootstrap", "")
        .setting("peers", "bind_v4", "9.9.9.1")
        .setting("peers", "bind_v6", "")
        .start();
    let ours = server.ready.dht[0];
    assert_eq!(ours.ip(), IpAddr::from([9, 9, 9, 1]));
    let mut asked_back = 0;
    for number in 0..40_u8 {
        let sybil = Node::at([9, 9, 9, 2].into(), [number.wrapping_mul(53); 20]);
        asked_back += u32::from(sybil.introduce(ours));
    }
    assert_eq!(asked_back, 1, "who has a place is not asked again");
    let other = Node::at([9, 9, 8, 2].into(), [0x77; 20]);
    assert!(other.introduce(ours), "another address is another node");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(known(&server, V4), 2.0);
}

/// E5: whoever comes when the table is full finds no place, and is not asked whether he is there.
#[test]
fn e5_a_full_table_takes_no_more() {
    let (_content, mut server, ours) = lonely();
    let (answer, ..) = Node::at(V4, [1; 20]).ask(ours, "ping", &[]);
    let our_id = answer.get("r").unwrap().get("id").unwrap().bytes().to_vec();
    let mut asked_back = 0;
    for number in 0..24_u8 {
        // In the other half of all ids than ours is, where there are eight places.
        let node = Node::at(V4, [(!our_id[0] & 0x80) | number; 20]);
        asked_back += u32::from(node.introduce(ours));
    }
    // The ninth shows that there is no more room in a table of one bucket.
    assert!((8..=9).contains(&asked_back), "{asked_back}");
    wait_for_metric(&mut server, nodes_metric(V4), 8.0);
    assert_eq!(known(&server, V4), 8.0);
}

/// E6: what is stored is bounded.
#[test]
fn e6_what_is_stored_is_bounded() {
    let content = Content::new(32 * KIB, 1, &[]);
    let seed = Seed::torrent(&content.torrent, &content.data_dir())
        .options(["--no-tracker", "--shards", "1"])
        .setting("dht", "enabled", "true")
        .setting("dht", "bootstrap", "")
        .setting("dht", "stored_peers_max", "100");
    let mut server = on(V4, seed).start();
    let ours = server.ready.dht[0];
    for number in 0..150_u8 {
        let node = Node::at(V4, [number; 20]);
        let torrent = ("info_hash", bytes(&[number; 20]));
        let (answer, ..) = node.ask(ours, "get_peers", std::slice::from_ref(&torrent));
        let token = answer.get("r").unwrap().get("token").unwrap().clone();
        let arguments = [torrent, ("port", Value::Integer(7)), ("token", token)];
        node.ask(ours, "announce_peer", &arguments);
    }
    wait_for_metric(&mut server, "seedring_dht_stored_peers", 50.0);
    std::thread::sleep(Duration::from_secs(2));
    let stored = server.metrics()["seedring_dht_stored_peers"];
    assert!(stored <= 100.0, "{stored}");
}

/// What is no message, and what nobody asked for, is dropped and counted; the node goes on.
#[test]
fn garbage_is_dropped() {
    let (_content, mut server, ours) = lonely();
    let stranger = Node::at(V4, [1; 20]);
    for garbage in [&b""[..], b"x", b"d1:y1:qe", &[b'l'; 1_400], &[0xff; 4_000]] {
        stranger.send(ours, garbage);
    }
    stranger.send(ours, b"d1:rd2:id20:aaaaaaaaaaaaaaaaaaaae1:t4:abcd1:y1:re");
    stranger.ask(ours, "ping", &[]);
    wait_for_metric(
        &mut server,
        "seedring_dht_datagrams_dropped_total{reason=\"unsolicited\"}",
        1.0,
    );
    assert_eq!(dropped(&server, "malformed"), 5.0);
}

/// Peers are told of our node and tell us of theirs (BEP 5), but for a private torrent.
#[test]
fn peers_tell_each_other_of_their_nodes() {
    let options = ["--private", "--tracker", "http://127.0.0.1:9/announce"];
    for (ip, options) in [(V4, &[][..]), (V4, &options[..]), (V6, &[][..])] {
        let is_private = !options.is_empty();
        let content = Content::new(32 * KIB, 1, options);
        let mut server = content.seed(ip, None);
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
        wait_for_metric(&mut server, nodes_metric(ip), 1.0);
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
    let content = Content::new(32 * KIB, 1, &[]);
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
