//! What goes wrong on the way to a tracker, with a real server that announces: certificates that do
//! not hold, a proxy that is gone, an interface that disappears. Nothing leaves then, and it goes
//! on when all is well again.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use seedring_tests::certificates::Authority;
use seedring_tests::clients::script;
use seedring_tests::content::{KIB, write_file};
use seedring_tests::lan::{self, Lan};
use seedring_tests::need;
use seedring_tests::process::{Process, run_ok};
use seedring_tests::server::{SHORT, Seed, Server};
use seedring_tests::skip::{Skip, is_root};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest wait for an announce: trackers are asked once a minute at most, and those that failed a
/// while later.
const ANNOUNCE: Duration = Duration::from_secs(150);

/// The tests' tracker in a process of its own.
struct Tracker {
    process: Process,
    port: u16,
}

impl Tracker {
    fn start(mut command: Command, arguments: &[&str]) -> Tracker {
        command.arg(script("tracker.py")).args(arguments);
        let mut process = Process::spawn("tracker", &command);
        let port = process.wait_for("port", SHORT, |process| {
            let stdout = process.stdout();
            let mut lines = stdout.lines();
            lines.find_map(|line| line.strip_prefix("listening ")?.parse().ok())
        });
        Tracker { process, port }
    }

    /// On loopback, by TLS with this certificate and key.
    fn with_tls((certificate, key): &(PathBuf, PathBuf)) -> Tracker {
        let paths = [certificate, key].map(|path| path.to_str().unwrap());
        let arguments = ["127.0.0.1", "--certificate", paths[0], "--key", paths[1]];
        Tracker::start(Command::new("python3"), &arguments)
    }

    /// Whom it has heard, a line for each announce.
    fn heard(&self) -> Vec<String> {
        let stdout = self.process.stdout();
        let lines = stdout.lines().filter(|line| !line.starts_with("listening"));
        lines.map(str::to_owned).collect()
    }
}

fn content() -> TempDir {
    let root = TempDir::new().unwrap();
    write_file(&root.path().join("file.bin"), 64 * KIB, 51);
    root
}

/// A seed of the file that announces to this tracker.
fn seed(root: &TempDir, tracker: &str) -> Seed {
    Seed::path(&root.path().join("file.bin")).options(["--no-tracker", "--tracker", tracker])
}

/// How many announces ended so.
fn announces(server: &Server, result: &str) -> f64 {
    let series = format!("seedring_announces_total{{result=\"{result}\"}}");
    server.metrics().get(&series).copied().unwrap_or(0.0)
}

/// Waits until more than `before` announces have ended so.
fn ended(server: &mut Server, result: &str, before: f64) {
    let until = Instant::now() + ANNOUNCE;
    while announces(server, result) <= before {
        let transcript = || server.process.transcript();
        assert!(
            Instant::now() < until,
            "no more announces end {result}\n{}",
            transcript()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn only_certificates_that_hold_are_believed() {
    let authority = Authority::new();
    let authority = need!("only_certificates_that_hold_are_believed", authority);
    let root = content();
    let trusted = authority.certificate();
    let trusted = trusted.to_str().unwrap();
    let here = ["subjectAltName=IP:127.0.0.1", "basicConstraints=CA:FALSE"];
    let good = authority.vouch("IP:127.0.0.1", 2);
    for (what, certificate, ca_files, reason) in [
        (
            "of nobody",
            authority.self_signed("self", &here),
            trusted,
            "UnknownIssuer",
        ),
        (
            "of another host",
            authority.vouch("DNS:tracker.example", 2),
            trusted,
            "not valid for name",
        ),
        (
            "expired",
            authority.vouch("IP:127.0.0.1", -1),
            trusted,
            "Expired",
        ),
        ("of a stranger", good.clone(), "", "UnknownIssuer"),
    ] {
        let tracker = Tracker::with_tls(&certificate);
        let url = format!("https://127.0.0.1:{}/announce", tracker.port);
        let seed = seed(&root, &url).setting("announce", "ca_files", ca_files);
        let mut server = seed.start();
        ended(&mut server, "failed", 0.0);
        let stderr = server.process.stderr();
        assert!(stderr.contains(reason), "{what}: {stderr}");
        let heard = tracker.heard();
        let asked = heard.iter().any(|line| line.starts_with("http "));
        assert!(!asked, "{what}: {heard:?}");
    }
    let tracker = Tracker::with_tls(&good);
    let url = format!("https://127.0.0.1:{}/announce", tracker.port);
    let mut server = seed(&root, &url)
        .setting("announce", "ca_files", trusted)
        .start();
    ended(&mut server, "ok", 0.0);
    let heard = tracker.heard();
    let port = format!("port={}&", server.ready.peer_port);
    assert!(heard.iter().any(|line| line.contains(&port)), "{heard:?}");
    assert_eq!(announces(&server, "failed"), 0.0);
}

#[test]
fn certificates_that_cannot_be_read_stop_the_start() {
    let root = content();
    let empty = root.path().join("none.pem");
    std::fs::write(&empty, "no certificate\n").unwrap();
    let absent = root.path().join("absent.pem");
    for (path, reason) in [(&empty, "there is none in it"), (&absent, "No such file")] {
        let seed = seed(&root, "http://127.0.0.1:1/announce");
        let path = path.to_str().unwrap();
        let (mut process, _state) = seed.setting("announce", "ca_files", path).launch();
        assert!(!process.wait_exit(SHORT).success());
        let stderr = process.stderr();
        assert!(stderr.contains(path) && stderr.contains(reason), "{stderr}");
    }
}

/// A SOCKS5 proxy (RFC 1928) that counts who comes, and serves them while it is told to.
struct Socks {
    port: u16,
    serves: Arc<AtomicBool>,
    refused: Arc<AtomicUsize>,
}

impl Socks {
    fn start() -> Socks {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let serves = Arc::new(AtomicBool::new(false));
        let refused = Arc::new(AtomicUsize::new(0));
        let (does, count) = (Arc::clone(&serves), Arc::clone(&refused));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if does.load(Ordering::SeqCst) {
                    std::thread::spawn(move || relay(stream));
                } else {
                    count.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        Socks {
            port,
            serves,
            refused,
        }
    }
}

/// One connection through the proxy, to a name or an address.
fn relay(mut from: TcpStream) -> Option<()> {
    let bytes = |count: usize, stream: &mut TcpStream| -> Option<Vec<u8>> {
        let mut bytes = vec![0; count];
        stream.read_exact(&mut bytes).ok()?;
        Some(bytes)
    };
    let methods = bytes(2, &mut from)?[1];
    bytes(methods.into(), &mut from)?;
    from.write_all(&[5, 0]).ok()?;
    let request = bytes(4, &mut from)?;
    assert_eq!(request[1], 1, "only connects are asked for");
    let host = match request[3] {
        1 => {
            let ip = bytes(4, &mut from)?;
            format!("{}.{}.{}.{}", ip[0], ip[1], ip[2], ip[3])
        }
        _ => {
            let length = bytes(1, &mut from)?[0];
            String::from_utf8(bytes(length.into(), &mut from)?).ok()?
        }
    };
    let port = bytes(2, &mut from)?;
    let port = u16::from_be_bytes([port[0], port[1]]);
    let mut to = TcpStream::connect((host.as_str(), port)).ok()?;
    from.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 1]).ok()?;
    let (mut back, mut forth) = (to.try_clone().ok()?, from.try_clone().ok()?);
    std::thread::spawn(move || std::io::copy(&mut back, &mut forth));
    std::io::copy(&mut from, &mut to).ok()?;
    Some(())
}

#[test]
fn what_a_proxy_does_not_take_goes_no_other_way() {
    let root = content();
    let tracker = Tracker::start(Command::new("python3"), &["127.0.0.1"]);
    let socks = Socks::start();
    let proxy = format!("socks5://127.0.0.1:{}", socks.port);
    let url = |scheme: &str| format!("{scheme}://127.0.0.1:{}/announce", tracker.port);
    let through = |tracker: &str| seed(&root, tracker).setting("announce", "proxy", &proxy);
    let mut by_http = through(&url("http")).start();
    let mut by_udp = through(&url("udp")).start();
    ended(&mut by_http, "failed", 0.0);
    ended(&mut by_udp, "refused", 0.0);
    assert!(
        socks.refused.load(Ordering::SeqCst) >= 1,
        "the proxy was tried"
    );
    assert_eq!(tracker.heard(), [""; 0], "nothing goes past the proxy");
    let said = by_udp.process.stderr();
    assert_eq!(said.matches("not asked: UDP trackers").count(), 1, "{said}");
    // It is back.
    socks.serves.store(true, Ordering::SeqCst);
    ended(&mut by_http, "ok", 0.0);
    assert!(by_http.stop(SHORT).0.success());
    assert!(by_udp.stop(SHORT).0.success());
    let heard = tracker.heard();
    assert!(heard[0].contains("event=started"), "{heard:?}");
    assert!(
        heard.iter().all(|line| line.starts_with("http ")),
        "{heard:?}"
    );
}

fn ip(mut command: Command, arguments: &str) {
    command.args(arguments.split(' '));
    run_ok(&format!("ip {arguments}"), &command, SHORT);
}

/// The interface `vpn0`, whose other end is on the client's host.
fn connect_vpn(lan: &Lan) {
    let here = || Command::new("ip");
    let there = || lan.client_command("ip");
    ip(here(), "link add vpn0 type veth peer name vpn1");
    let far = lan.client_pid();
    ip(here(), &format!("link set vpn1 netns {far}"));
    ip(here(), "addr add 10.88.0.1/24 dev vpn0");
    ip(here(), "link set vpn0 up");
    ip(there(), "addr add 10.88.0.3/24 dev vpn1");
    ip(there(), "link set vpn1 up");
}

/// The tracker can be reached without the interface too, by the default route: whoever fails open
/// is heard.
#[test]
fn an_interface_that_disappears_is_waited_for() {
    let test = "an_interface_that_disappears_is_waited_for";
    if !need!(test, lan::inside(test)) {
        return;
    }
    if !is_root() {
        return Skip::machine("to bind to an interface one has to be root").report(test);
    }
    let lan = Lan::build();
    ip(lan.client_command("ip"), "addr add 10.88.0.2/32 dev lo");
    let tracker = Tracker::start(lan.client_command("python3"), &["10.88.0.2"]);
    let root = content();
    let [http, udp] = ["http", "udp"].map(|scheme| {
        let url = format!("{scheme}://10.88.0.2:{}/announce", tracker.port);
        let seed = seed(&root, &url).setting("announce", "bind_interface", "vpn0");
        seed.start()
    });
    let mut servers = [http, udp];
    let all = |servers: &mut [Server], result: &str| {
        for server in servers {
            let before = announces(server, result);
            ended(server, result, before);
        }
    };
    for server in &mut servers {
        ended(server, "failed", 0.0);
    }
    assert_eq!(tracker.heard(), [""; 0], "there is no such interface yet");
    connect_vpn(&lan);
    for server in &mut servers {
        ended(server, "ok", 0.0);
    }
    ip(Command::new("ip"), "link del vpn0");
    let heard = tracker.heard();
    all(&mut servers, "failed");
    assert_eq!(tracker.heard(), heard, "it went another way");
    // The same name is another interface now.
    connect_vpn(&lan);
    all(&mut servers, "ok");
    ip(Command::new("ip"), "link del vpn0");
    let heard = tracker.heard();
    for server in &mut servers {
        assert!(server.stop(SHORT).0.success());
    }
    assert_eq!(tracker.heard(), heard, "the stop went another way");
    let from_vpn = |line: &String| line.split(' ').nth(1) == Some("10.88.0.1");
    assert!(heard.iter().all(from_vpn), "{heard:?}");
    let by = |how: &str| heard.iter().filter(|line| line.starts_with(how)).count();
    assert_eq!((by("http") >= 2, by("udp") >= 2), (true, true), "{heard:?}");
}
