//! What the server is bound to: an interface, an address, a proxy. What it names is used, or
//! nothing is; and it may come late and go.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use seedring_tests::content::{KIB, MIB};
use seedring_tests::dht::Node;
use seedring_tests::dht_network::{V4, on, with_node};
use seedring_tests::get::{Get, Getting, last};
use seedring_tests::lan::{self, CLIENT, Lan, SERVER};
use seedring_tests::need;
use seedring_tests::process::{Process, run, run_ok};
use seedring_tests::server::{SHORT, Seed, Server, events};
use seedring_tests::single::Single;
use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// Longest wait for what has to come.
const LIMIT: Duration = Duration::from_secs(180);
/// Lines of progress, one a second, in which somebody who has a way would have called a peer again
/// whose call could not be made: that is tried after a second, too.
const IDLE_LINES: usize = 3;
/// Whether the server is ready for traffic.
const READY: &str = "seedring_ready";
/// The two ends of the tunnel.
const NEAR: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 2);

/// What trackers are asked by holds for the DHT: it goes past no proxy, and by the interface that
/// is named or not at all.
#[test]
fn it_goes_past_no_proxy_and_by_no_other_interface() {
    let content = Single::new(32 * KIB, 1, &[]);
    let with = |key: &str, value: &str| {
        let seed = with_node(&content, None);
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

/// What trackers are asked by holds for the URL of a torrent, too.
#[test]
fn a_torrent_s_url_is_asked_as_trackers_are_or_not_at_all() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}/it.torrent", listener.local_addr().unwrap());
    let folder = TempDir::new().unwrap();
    let get = |key: &str, value: &str| {
        let get = Get::new(&url, folder.path());
        get.setting("announce", key, value).start()
    };
    for (key, value, due) in [
        ("bind_interface", "nosuch0", "cannot fetch the torrent"),
        ("proxy", "http://127.0.0.1:9", "announce.proxy is set"),
        ("bind_v6", "::1", "announce.bind_v6"),
    ] {
        let mut getting = get(key, value);
        assert_eq!(getting.process.wait_exit(SHORT).code(), Some(1), "{key}");
        let told = getting.process.stderr();
        assert!(told.contains(due), "{key}: {told}");
    }
    assert!(listener.accept().is_err());
    let mut getting = get("bind_interface", "lo");
    getting
        .process
        .wait_for("its call", SHORT, |_| listener.accept().ok());
}

/// What is told to everybody is where peers are met, not the way past it.
#[test]
fn a_torrent_names_no_other_address_than_that_of_the_interface() {
    let test = "a_torrent_names_no_other_address_than_that_of_the_interface";
    if !need!(test, lan::inside(test)) {
        return;
    }
    let lan = Lan::build();
    let content = Single::new(32 * KIB, 1, &[]);
    let seed = || {
        let seed = Seed::path(&content.data_dir());
        seed.setting("peers", "bind_interface", "tunnel0")
    };
    let (mut process, _state) = seed().launch();
    assert_eq!(process.wait_exit(SHORT).code(), Some(1));
    let told = process.stderr();
    assert!(told.contains("tracker.announce_host"), "{told}");
    let named = seed().options(["--announce-host", "seed.example"]).start();
    let tracker = named.ready.tracker.clone().unwrap();
    assert!(tracker.starts_with("http://seed.example:"), "{tracker}");
    make_tunnel(&lan);
    let server = seed().start();
    let tracker = server.ready.tracker.clone().unwrap();
    assert!(tracker.starts_with(&format!("http://{NEAR}:")), "{tracker}");
    let link = &server.ready.torrents[0].magnet;
    assert!(
        link.contains(&NEAR.to_string()) && !link.contains(&SERVER.to_string()),
        "{link}"
    );
}

/// As in a network for storage, which leads nowhere.
#[test]
fn a_host_without_a_way_out_names_the_address_that_it_has() {
    let test = "a_host_without_a_way_out_names_the_address_that_it_has";
    if !need!(test, lan::inside(test)) {
        return;
    }
    let _lan = Lan::build();
    lan::ip_here("route del default");
    lan::ip_here("-6 route del default");
    let content = Single::new(32 * KIB, 1, &[]);
    let seed = || Seed::path(&content.data_dir()).start();
    let named = |server: &Server, host: IpAddr| {
        let tracker = server.ready.tracker.clone().unwrap();
        assert!(tracker.starts_with(&format!("http://{host}:")), "{tracker}");
        server.process.stderr().contains("--announce-host")
    };
    assert!(!named(&seed(), SERVER.into()), "nothing to warn of");
    lan::ip_here("link set lan0 down");
    assert!(named(&seed(), Ipv4Addr::LOCALHOST.into()), "a warning");
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
    lan::ip_here("link set lo up");
    let content = Single::new(32 * KIB, 1, &[]);
    // Nobody is there, which a node has to ask to know.
    let seed = with_node(&content, Some("9.9.9.9:6881".parse().unwrap()))
        .setting("announce", "bind_interface", "tunnel0")
        .setting("peers", "bind_v4", "0.0.0.0")
        .setting("peers", "bind_v6", "");
    let mut server = seed.start();
    assert_eq!(server.ready.dht, []);
    for times in 1..=2 {
        server.process.wait_for("the loss", LIMIT, |process| {
            let told = process.stderr();
            (told.matches("is bound to is not there").count() == times).then_some(())
        });
        lan::ip_here("link add tunnel0 type veth peer name far0");
        // Nothing is sent but what we send, which waits for nobody to answer.
        for interface in ["tunnel0", "far0"] {
            lan::ip_here(&format!("link set {interface} addrgenmode none arp off"));
            lan::ip_here(&format!("link set {interface} up"));
        }
        lan::ip_here("addr add 9.9.9.1/24 dev tunnel0");
        server.process.wait_for("the return", LIMIT, |process| {
            let told = process.stderr();
            (told.matches("the DHT can send again").count() == times).then_some(())
        });
        assert!(sent_by("tunnel0") > 0);
        lan::ip_here("link del tunnel0");
    }
}

/// A ping to a node of the DHT, until it is answered.
const PING: &str = "\
import socket, sys
asking = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
asking.settimeout(0.5)
while True:
    try:
        query = b'd1:ad2:id20:' + b'x' * 20 + b'e1:q4:ping1:t2:aa1:y1:qe'
        asking.sendto(query, (sys.argv[1], int(sys.argv[2])))
        asking.recv(1500)
        break
    except OSError:
        pass
";

/// Who knows nobody sends nothing, so no failure tells him that his interface is another one.
#[test]
fn a_dht_node_that_sends_nothing_hears_again_when_its_interface_is_made_anew() {
    let test = "a_dht_node_that_sends_nothing_hears_again_when_its_interface_is_made_anew";
    if !need!(test, lan::inside(test)) {
        return;
    }
    let lan = Lan::build();
    let make = || {
        make_tunnel(&lan);
        lan::ip_here("-6 addr add fd88::1/64 dev tunnel0 nodad");
        lan.client_ip("-6 addr add fd88::2/64 dev tunnel0 nodad");
    };
    make();
    let content = Single::new(32 * KIB, 1, &[]);
    let server = with_node(&content, None)
        .setting("announce", "bind_interface", "tunnel0")
        .setting("peers", "bind_v4", "")
        .setting("peers", "bind_v6", "::")
        .start();
    let port = server.ready.dht[0].port().to_string();
    for _ in 0..2 {
        let mut ping = lan.client_command("python3");
        ping.args(["-c", PING, "fd88::1", &port]);
        run_ok("ping", &ping, LIMIT);
        lan::ip_here("link del tunnel0");
        make();
    }
}

/// Makes the tunnel between the two hosts; deleting one end deletes both.
fn make_tunnel(lan: &Lan) {
    let pid = lan.client_pid();
    lan::ip_here(&format!(
        "link add tunnel0 type veth peer name tunnel0 netns {pid}"
    ));
    lan::ip_here(&format!("addr add {NEAR}/24 dev tunnel0"));
    lan::ip_here("link set tunnel0 up");
    lan.client_ip(&format!("addr add {FAR}/24 dev tunnel0"));
    lan.client_ip("link set tunnel0 up");
}

/// Whether `bash`, on whichever host it runs, can connect there.
fn is_open(mut command: Command, address: SocketAddr) -> bool {
    let (ip, port) = (address.ip(), address.port());
    command.args(["-c", &format!("exec 3<>/dev/tcp/{ip}/{port}")]);
    run("bash", &command, SHORT).0.success()
}

/// Waits until `get` has been without a peer for some seconds from now on, in each of which it
/// would call one, and says that it does not, because its interface is not there.
fn does_not_call(getting: &mut Getting) {
    let before = events(&getting.process, "progress").len();
    getting.process.wait_for("no call", LIMIT, |process| {
        let progress = events(process, "progress");
        let from_now = progress.iter().skip(before).rev();
        let idle = from_now.take_while(|one| one["peers"] == 0).count();
        let told = process.stdout() + &process.stderr();
        let is_told = told.contains("the interface of peers.bind_interface is not there");
        (is_told && idle > IDLE_LINES).then_some(())
    });
}

/// Fetches a torrent of this peer, or of whom local discovery finds by the tunnel.
fn is_fetched(content: &Single, peer: Option<SocketAddr>, host: &dyn Fn(&OsStr) -> Command) {
    let folder = TempDir::new().unwrap();
    let mut get = Get::new(&content.torrent, folder.path())
        .setting("lsd", "enabled", &peer.is_none().to_string())
        .setting("lsd", "interfaces", "tunnel0");
    if let Some(peer) = peer {
        get = get.peer(peer);
    }
    get.start_on(host).complete(LIMIT);
    content.assert_copied(&folder);
}

/// How many bytes a download has.
fn done(getting: &Getting) -> u64 {
    let progress = last(&getting.process, "progress").unwrap();
    progress["bytes_done"].as_u64().unwrap()
}

/// Waits until a server has said something so many times.
fn says(process: &mut Process, what: &str, times: usize) {
    process.wait_for(what, LIMIT, |process| {
        (process.stderr().matches(what).count() == times).then_some(())
    });
}

/// Two servers of ours on the server's host that are bound to the tunnel, one that seeds and one
/// that fetches, and a seed and downloads on the client's. The way past the tunnel leads
/// everywhere, also to the tunnel's own addresses, so that whatever is not bound goes by it.
#[test]
fn peers_are_met_by_the_interface_that_is_named_or_not_at_all() {
    let test = "peers_are_met_by_the_interface_that_is_named_or_not_at_all";
    if !need!(test, lan::inside(test)) {
        return;
    }
    let lan = Lan::build();
    lan.client_ip(&format!("addr add {FAR}/32 dev lo"));
    let client = |program: &OsStr| lan.client_command(program);
    // It is to be under way still when the interface goes for the second time, on a slow machine, too.
    let (by_us, by_them) = (Single::new(MIB, 1, &[]), Single::new(96 * MIB, 2, &[]));

    let enter = format!("--net=/proc/{}/ns/net", lan.client_pid());
    let theirs = by_them.seed().under(["nsenter", &enter, "--"]);
    let theirs = theirs.setting("limits", "upload_rate", "1200kB/s");
    let theirs = theirs.api_address(IpAddr::V4(CLIENT)).start();
    let far = SocketAddr::from((FAR, theirs.ready.peer_port));
    let accepted =
        |server: &Server| server.metrics()["seedring_peers_found_total{source=\"incoming\"}"];

    // Nobody is there, which a node has to ask to know.
    let mut ours = with_node(&by_us, Some(SocketAddr::from((FAR, 9))))
        .setting("peers", "bind_interface", "tunnel0")
        .setting("peers", "bind_v6", "")
        .setting("lsd", "enabled", "true")
        .start();
    assert_eq!(ours.ready.dht, []);
    ours.wait_until_metric(READY, |ready| ready == 0.0);
    let (by_lan, by_tunnel) = (
        SocketAddr::from((SERVER, ours.ready.peer_port)),
        SocketAddr::from((NEAR, ours.ready.peer_port)),
    );
    let folder = TempDir::new().unwrap();
    let mut getting = Get::new(&by_them.torrent, folder.path())
        .peer(far)
        .setting("peers", "bind_interface", "tunnel0")
        .start();
    does_not_call(&mut getting);
    assert_eq!(accepted(&theirs), 0.0);
    assert!(
        is_open(Command::new("bash"), far),
        "without being bound there is a way"
    );
    assert!(!is_open(client("bash".as_ref()), by_lan));

    // It comes late, and again as another.
    for times in 1..=2 {
        let before = accepted(&theirs);
        make_tunnel(&lan);
        getting.bytes_done(done(&getting) + MIB, LIMIT);
        assert!(accepted(&theirs) > before);
        // By its address, and by local discovery.
        for peer in [Some(by_tunnel), None] {
            is_fetched(&by_us, peer, &client);
        }
        assert!(!is_open(client("bash".as_ref()), by_lan));
        says(&mut ours.process, "the DHT can send again", times as usize);

        ours.wait_for_metric(READY, 1.0);
        let before = accepted(&theirs);
        lan::ip_here("link del tunnel0");
        let gone = "the interface for peers is gone";
        says(&mut ours.process, gone, times as usize);
        ours.wait_until_metric(READY, |ready| ready == 0.0);
        does_not_call(&mut getting);
        let told = getting.process.stdout();
        let blamed = "it closed the connection";
        assert!(!told.contains(blamed), "it is our interface: {told}");
        assert!(!is_open(client("bash".as_ref()), by_lan));
        assert_eq!(accepted(&theirs), before, "it calls by no other way");
        assert!(is_open(Command::new("bash"), far), "there is one");
    }
    make_tunnel(&lan);
    getting.complete(LIMIT);
    by_them.assert_copied(&folder);
}
