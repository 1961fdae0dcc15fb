//! Webhooks: what web servers are told, how it is signed, and who is trusted with it.

use super::*;
use seedring_tests::certificates::Authority;
use seedring_tests::need;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::{Arc, Mutex};

/// A request that a web server got.
#[derive(Clone, Debug)]
struct Request {
    head: String,
    body: Vec<u8>,
}

impl Request {
    fn header(&self, name: &str) -> Option<String> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let found = lines.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.to_owned())
    }
}

/// A web server that gives these answers, the last of them for ever.
fn receiver(answers: &[&str]) -> (u16, Arc<Mutex<Vec<Request>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let (seen, answers) = (Arc::clone(&requests), answers.iter());
    let answers: Vec<String> = answers.map(|answer| (*answer).to_owned()).collect();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut request = Request {
                head: String::new(),
                body: Vec::new(),
            };
            while stream.read_line(&mut request.head).unwrap_or(0) > 2 {}
            let length = request.header("content-length");
            let length = length.map_or(0, |it| it.trim().parse().unwrap());
            request.body.resize(length, 0);
            stream.read_exact(&mut request.body).unwrap();
            seen.lock().unwrap().push(request);
            let answer = &answers[number.min(answers.len() - 1)];
            let answer =
                format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let _ = stream.get_mut().write_all(answer.as_bytes());
        }
    });
    (port, requests)
}

/// A webhook says what happened, signed, and nothing of the trackers; it is tried again after a
/// failure of the server, follows no redirect, and its URL is not logged.
#[test]
fn a_webhook_is_signed_tried_again_and_tells_no_secrets() {
    let (port, requests) =
        receiver(&["503 Later", "204 Done", "302 Found\r\nLocation: /elsewhere"]);
    let text = format!(
        "[[hook]]\non = [\"added\"]\nurl = \"http://127.0.0.1:{port}/hook?key=urlsecret\"\n\
         secret_file = \"secret\"\ntoken_file = \"@/token\"\n"
    );
    let server = Served::start_configured(&text, |root| {
        fs::write(root.join("secret"), "signingsecret\n").unwrap();
        fs::write(root.join("token"), "tokensecret\n").unwrap();
    });
    let data = server.path("data/x");
    write_file(&data, 20_000, 1);
    let file = server.path("x.torrent");
    let mut command = seedring([
        "create",
        "--tracker",
        "http://tracker.example/passkey123/announce",
    ]);
    command.arg(&data).arg("-o").arg(&file);
    run_ok("create", &command, SHORT);
    server.ok([
        "add",
        file.to_str().unwrap(),
        "--paused",
        "--category",
        "c",
        "--label",
        "l",
    ]);
    server.until("success", || metric(&server, "ok") == 1.0);
    let got = requests.lock().unwrap().clone();
    assert_eq!(got.len(), 2);
    assert_eq!(got[0].body, got[1].body, "the same again");
    let request = &got[1];
    assert!(
        request
            .head
            .starts_with("POST /hook?key=urlsecret HTTP/1.1"),
        "{}",
        request.head
    );
    assert_eq!(request.header("content-type").unwrap(), "application/json");
    assert_eq!(
        request.header("authorization").unwrap(),
        "Bearer tokensecret"
    );
    assert_eq!(request.header("x-seedring-event").unwrap(), "added");
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body["event"], "added");
    assert_eq!(
        body["torrent"]["info_hash"],
        Torrent::read(&file).info_hash_hex()
    );
    assert_eq!(body["torrent"]["labels"], json!(["l"]));
    assert_eq!(body["torrent"]["category"], "c");
    assert_eq!(body["id"], request.header("x-seedring-id").unwrap());
    assert!(!String::from_utf8_lossy(&request.body).contains("passkey123"));
    let signature = request.header("x-seedring-signature").unwrap();
    if let Some(expected) = hmac(server.root.path(), &request.body) {
        assert_eq!(signature, format!("sha256={expected}"));
    }
    // What leads elsewhere is a failure, and not tried again.
    add(&server, "y", &[]);
    server.until("failure", || metric(&server, "failed") == 1.0);
    let got = requests.lock().unwrap().clone();
    assert_eq!(got.len(), 3);
    // The log is written by a thread of its own.
    server.until("the reason", || server.process.stderr().contains("302"));
    let log = server.process.stderr();
    for secret in ["urlsecret", "tokensecret", "signingsecret"] {
        assert!(!log.contains(secret), "{log}");
    }
}

/// What OpenSSL, where it is, says that the signature is.
fn hmac(root: &Path, body: &[u8]) -> Option<String> {
    let openssl = seedring_tests::skip::program("openssl", "openssl").ok()?;
    let file = root.join("body");
    fs::write(&file, body).unwrap();
    let mut command = Command::new(openssl);
    command
        .args(["dgst", "-sha256", "-hmac", "signingsecret"])
        .arg(&file);
    let said = run_ok("openssl", &command, SHORT);
    said.trim().rsplit(' ').next().map(str::to_owned)
}

/// Over TLS only who is vouched for is told: by the authorities of announce.ca_files, too.
#[test]
fn a_webhook_over_tls_tells_who_is_vouched_for() {
    let authority = need!("hooks", Authority::new());
    let python = need!("hooks", seedring_tests::skip::program("python3", "python3"));
    let (certificate, key) = authority.vouch("IP:127.0.0.1", 2);
    let folder = tempfile::TempDir::new().unwrap();
    let body = folder.path().join("body");
    const SERVER: &str = "
import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        data = self.rfile.read(int(self.headers['Content-Length']))
        open(sys.argv[3], 'ab').write(data + b'\\n')
        self.send_response(200)
        self.send_header('Content-Length', '0')
        self.end_headers()
server = http.server.HTTPServer(('127.0.0.1', 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
";
    let mut command = Command::new(python);
    command
        .args(["-c", SERVER])
        .args([&certificate, &key, &body]);
    let mut receiver = Process::spawn("receiver", &command);
    let port: u16 = receiver.wait_for("port", SHORT, |it| it.stdout().trim().parse().ok());
    let hook = format!("[[hook]]\non = [\"added\"]\nurl = \"https://127.0.0.1:{port}/\"\n");
    let trusted = format!(
        "[announce]\nca_files = [{:?}]\n{hook}",
        authority.certificate()
    );
    let server = Served::start_configured(&trusted, |_| {});
    add(&server, "one", &[]);
    server.until("success", || metric(&server, "ok") == 1.0);
    assert_eq!(lines(&body).len(), 1);
    drop(server);
    let server = Served::start_configured(&hook, |_| {});
    add(&server, "two", &[]);
    server.until("refusal", || {
        server
            .process
            .stderr()
            .contains("a webhook is not told yet")
    });
    assert_eq!(lines(&body).len(), 1, "nobody vouches for it");
    // An end does not wait for what is tried again.
    drop(server);
}
