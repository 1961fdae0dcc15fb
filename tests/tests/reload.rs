//! A running `serve` whose configuration is read again on SIGHUP: what can change does, under
//! connections that are there; what cannot is named; what is wrong changes nothing.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use rustix::process::Signal;
use seedring_tests::certificates::Authority;
use seedring_tests::clients::Client;
use seedring_tests::content::{MIB, assert_same_tree, write_file};
use seedring_tests::http;
use seedring_tests::need;
use seedring_tests::peer::{Peer, id};
use seedring_tests::process::{Process, run};
use seedring_tests::server::{SHORT, event, metrics_of, seedring};
use seedring_tests::torrent::Torrent;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Longest wait for a server or a download of some MiB.
const LONG: Duration = Duration::from_secs(150);

/// What the log says when it has been read again, and when it has not.
const READ: &str = "the configuration has been read again";
const REFUSED: &str = "the configuration stays as it was";

/// What every configuration here has: ports of its own on loopback alone.
const PORTS: &str = "[peers]\nport = 0\nbind_v4 = \"127.0.0.1\"\nbind_v6 = \"\"\n";

/// A server with its configuration.
struct Served {
    process: Process,
    root: TempDir,
    ready: Value,
}

impl Served {
    /// One whose configuration says this; `{root}` stands for the folder of the file.
    fn start(root: TempDir, text: &str) -> Served {
        let mut served = Served {
            process: Process::spawn("true", &Command::new("true")),
            root,
            ready: Value::Null,
        };
        served.write(text);
        let mut command = seedring(["serve", "--json"]);
        command
            .arg("--config")
            .arg(served.config())
            .arg("--state-dir")
            .arg(served.path("state"));
        served.process = Process::spawn("serve", &command);
        let ready = |process: &Process| event(process, "ready");
        served.ready = served.process.wait_for("ready line", LONG, ready);
        served
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.path("seedring.toml")
    }

    fn write(&self, text: &str) {
        std::fs::write(self.config(), format!("{PORTS}{text}")).unwrap();
    }

    /// Has it read this, and waits until it says what came of it.
    fn reload(&mut self, text: &str, said: &str) {
        self.write(text);
        let before = self.process.stderr().matches(said).count();
        self.process.signal(Signal::HUP);
        self.process.wait_for(said, SHORT, |process| {
            (process.stderr().matches(said).count() > before).then_some(())
        });
    }

    fn peers(&self) -> SocketAddr {
        let port = u16::try_from(self.ready["peer_port"].as_u64().unwrap()).unwrap();
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }

    /// Where the API is.
    fn api(&self) -> String {
        let api = self.ready["api"].as_str().unwrap();
        api.trim_end_matches('/').to_owned()
    }

    /// The torrents that are served, as the API has them.
    fn torrents(&self) -> Vec<Value> {
        let mut command = seedring(["list", "--all", "--json", "--state-dir"]);
        command.arg(self.path("state"));
        let (status, process) = run("list", &command, SHORT);
        assert!(status.success(), "{}", process.transcript());
        let lines = process.stdout();
        let parse = |line| serde_json::from_str(line).unwrap();
        lines.lines().map(parse).collect()
    }

    fn names(&self) -> Vec<String> {
        let name = |torrent: &Value| torrent["name"].as_str().unwrap().to_owned();
        let mut names: Vec<String> = self.torrents().iter().map(name).collect();
        names.sort();
        names
    }

    /// Waits until these are served, and no others.
    fn wait_names(&mut self, names: &[&str]) {
        let until = std::time::Instant::now() + LONG;
        while self.names() != names {
            let transcript = self.process.transcript();
            assert!(std::time::Instant::now() < until, "{transcript}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A download that would take months goes on when the limit is taken away, by a client that nobody
/// here wrote; the API, the metrics and the log say what has changed and what has not.
#[test]
fn a_limit_that_is_taken_away_lets_a_real_client_go_on() {
    let test = "a_limit_that_is_taken_away_lets_a_real_client_go_on";
    let root = TempDir::new().unwrap();
    write_file(&root.path().join("data/one.bin"), 8 * MIB, 3);
    let others = "[api]\nlisten = \"127.0.0.1:0\"\n[tracker]\nenabled = true\nlisten_v4 = \"127.0.0.1:0\"\n\
                  listen_v6 = \"\"\nannounce_host = \"127.0.0.1\"\n[[seed]]\npath = \"data/one.bin\"\n";
    let limited = format!("[limits]\nupload_rate = 1\n{others}");
    let mut served = Served::start(root, &limited);
    let torrent = PathBuf::from(served.ready["torrents"][0]["torrent"].as_str().unwrap());
    let folder = TempDir::new().unwrap();
    let host = |program: &std::ffi::OsStr| Command::new(program);
    let download = Client::Aria2.download(torrent.as_os_str(), folder.path(), &host);
    let mut download = need!(test, download);
    let api = served.api();
    let gauge = |name: &str| metrics_of(&api)[name];
    assert_eq!(gauge("seedring_upload_rate_limit_bytes"), 1.0);
    let uploaded = || -> f64 {
        let metrics = metrics_of(&api);
        let of_shards = metrics
            .iter()
            .filter(|(series, _)| series.starts_with("seedring_uploaded_bytes_total"));
        of_shards.map(|(_, value)| value).sum()
    };
    served
        .process
        .wait_for("a first block", LONG, |_| (uploaded() > 0.0).then_some(()));
    // More than the burst has not come.
    assert!(uploaded() < 4.0 * MIB as f64);
    let text =
        format!("[limits]\nupload_rate = 0\n[shards]\npin = false\n[dht]\nport = 7\n{others}");
    served.reload(&text, READ);
    download.wait(LONG);
    drop(download);
    assert_same_tree(&served.path("data"), folder.path());
    assert_eq!(gauge("seedring_upload_rate_limit_bytes"), 0.0);
    let log = served.process.stderr();
    for told in [
        "shards.pin: changed in the configuration; needs a restart",
        "dht.port: changed in the configuration; needs a restart",
        "read again; changed: limits.upload_rate loaded=0 withdrawn=0",
    ] {
        assert!(log.contains(told), "{told}: {log}");
    }
    assert!(!log.contains("peers.port: changed"), "{log}");
}

/// Of a configuration that is wrong nothing is taken, also not what is right in it.
#[test]
fn a_configuration_that_is_wrong_changes_nothing() {
    let api = "[api]\nlisten = \"127.0.0.1:0\"\n";
    let mut served = Served::start(TempDir::new().unwrap(), api);
    let gauge = "seedring_download_rate_limit_bytes";
    for (wrong, told) in [
        ("nothing = 1\n", "seedring.toml:"),
        ("upload_rate = \"fast\"\n", "limits.upload_rate"),
        ("labels = [\"a\"]\n", "limits.labels"),
    ] {
        served.reload(
            &format!("{api}[limits]\ndownload_rate = 5000000\n{wrong}"),
            REFUSED,
        );
        let log = served.process.stderr();
        assert!(log.contains("seedring.toml:9:"), "{log}");
        assert!(log.contains(told), "{log}");
        assert_eq!(metrics_of(&served.api())[gauge], 0.0);
    }
    let text = format!("{api}[limits]\ndownload_rate = 5000000\n[log]\nlevel = \"debug\"\n");
    served.reload(&text, READ);
    let api = served.api();
    served.process.wait_for("limit", SHORT, |_| {
        (metrics_of(&api)[gauge] == 5_000_000.0).then_some(())
    });
    // The level holds, too: this is told at no other.
    served.process.wait_for("debug", SHORT, |process| {
        let log = process.stderr();
        log.contains("limits of the server, in bytes per second")
            .then_some(())
    });
}

/// What is named now and was not is served, what is named no more is not; who is connected to the
/// rest stays, and what could not be served before is tried again.
#[test]
fn lists_of_torrents_are_compared() {
    let root = TempDir::new().unwrap();
    for name in ["one", "two", "three"] {
        write_file(&root.path().join(name), MIB, name.len() as u64);
    }
    // It exists, and cannot be read as what it is said to be.
    std::fs::write(root.path().join("bad.torrent"), "no torrent").unwrap();
    let api = "[api]\nlisten = \"127.0.0.1:0\"\n";
    let seed = |name: &str| format!("[[seed]]\npath = \"{name}\"\n");
    let bad = "[[torrent]]\ntorrent = \"bad.torrent\"\ndata = \".\"\n";
    let mut served = Served::start(root, &format!("{api}{}{}{bad}", seed("one"), seed("two")));
    served.wait_names(&["one", "two"]);
    let metric = |served: &Served, state: &str| {
        metrics_of(&served.api())[&format!("seedring_torrents{{state=\"{state}\"}}")]
    };
    assert_eq!(
        (metric(&served, "seeding"), metric(&served, "error")),
        (2.0, 1.0)
    );
    let torrents = served.ready["torrents"].as_array().unwrap();
    let hash = |name: &str| {
        let of_name = |torrent: &&Value| torrent["name"] == name;
        let torrent = torrents.iter().find(of_name).unwrap();
        let file = torrent["torrent"].as_str().unwrap();
        Torrent::read(Path::new(file)).info_hash
    };
    let (one, two) = (hash("one"), hash("two"));
    let mut stays = Peer::connect(served.peers(), &one).unwrap();
    stays.read_until(id::HAVE_ALL).unwrap();
    let mut goes = Peer::connect(served.peers(), &two).unwrap();
    goes.read_until(id::HAVE_ALL).unwrap();
    // What was wrong is mended by another torrent's file.
    let made = served.path("state/torrents");
    let mut made = std::fs::read_dir(made).unwrap().flatten();
    let of_two = made.find(|entry| entry.file_name().to_string_lossy().starts_with("two-"));
    let of_two = of_two.unwrap().path();
    std::fs::copy(of_two, served.path("bad.torrent")).unwrap();
    served.reload(&format!("{api}{}{}{bad}", seed("three"), seed("one")), READ);
    goes.closed_within(SHORT);
    served.wait_names(&["one", "three", "two"]);
    assert_eq!(
        (metric(&served, "seeding"), metric(&served, "error")),
        (3.0, 0.0)
    );
    stays.unchoked().unwrap();
    stays.block(0, 0, 16_384).unwrap();
    // The file that was bad has the torrent of "two" now.
    let mut again = Peer::connect(served.peers(), &two).unwrap();
    again.read_until(id::HAVE_ALL).unwrap();
    served.reload(&format!("{api}{}", seed("one")), READ);
    again.closed_within(SHORT);
    served.wait_names(&["one"]);
    assert!(Peer::connect(served.peers(), &two).is_err());
    stays.block(0, 16_384, 16_384).unwrap();
    assert_eq!(metric(&served, "seeding"), 1.0);
}

/// A client that speaks TLS by OpenSSL, and stays.
struct TlsClient {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl TlsClient {
    fn connect(address: &str, authority: &Path) -> TlsClient {
        let mut process = Command::new("openssl")
            .args([
                "s_client",
                "-quiet",
                "-verify_return_error",
                "-connect",
                address,
            ])
            .arg("-CAfile")
            .arg(authority)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        TlsClient {
            input: process.stdin.take().unwrap(),
            output: BufReader::new(process.stdout.take().unwrap()),
            process,
        }
    }

    /// Asks for something by the same connection, and reads the answer's end.
    fn ask(&mut self) {
        let request = "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
        self.input.write_all(request.as_bytes()).unwrap();
        let mut line = String::new();
        while line != "ok\n" {
            line.clear();
            let read = self.output.read_line(&mut line).unwrap();
            assert!(read > 0, "the connection has ended");
        }
    }
}

impl Drop for TlsClient {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The certificate that is shown to who connects now, as base64.
fn shown(address: &str) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", address])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    certificate(&String::from_utf8_lossy(&output.stdout))
}

/// The first certificate of a text.
fn certificate(text: &str) -> String {
    let (_, rest) = text.split_once("-----BEGIN CERTIFICATE-----").unwrap();
    let (body, _) = rest.split_once("-----END CERTIFICATE-----").unwrap();
    body.split_whitespace().collect()
}

/// Certificates are renewed every some weeks: nobody who is connected notices.
#[test]
fn a_certificate_is_replaced_under_a_connection_that_is_open() {
    let test = "a_certificate_is_replaced_under_a_connection_that_is_open";
    let authority = need!(test, Authority::new());
    let (first, key) = authority.vouch("IP:127.0.0.1", 1);
    let (second, _) = authority.vouch("IP:127.0.0.1", 2);
    let root = TempDir::new().unwrap();
    let (cert, own_key) = (root.path().join("cert.pem"), root.path().join("key.pem"));
    std::fs::copy(&first, &cert).unwrap();
    std::fs::copy(key, own_key).unwrap();
    let text = "[api]\nlisten = \"127.0.0.1:0\"\ntls_cert = \"cert.pem\"\ntls_key = \"key.pem\"\n";
    let mut served = Served::start(root, text);
    let (address, _) = http::split_url(served.ready["api"].as_str().unwrap());
    let address = address.to_owned();
    let of_file = |path: &Path| certificate(&std::fs::read_to_string(path).unwrap());
    assert_eq!(shown(&address), of_file(&first));
    let mut client = TlsClient::connect(&address, &authority.certificate());
    client.ask();
    // Half a certificate is not taken.
    std::fs::write(&cert, "-----BEGIN CERTIFICATE-----\n").unwrap();
    served.reload(text, REFUSED);
    assert!(served.process.stderr().contains("cert.pem"));
    assert_eq!(shown(&address), of_file(&first));
    std::fs::copy(&second, &cert).unwrap();
    served.reload(text, READ);
    assert_eq!(shown(&address), of_file(&second));
    client.ask();
    let mut another = TlsClient::connect(&address, &authority.certificate());
    another.ask();
}
