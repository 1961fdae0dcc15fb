//! The HTTP API of a real server, asked byte by byte: what is refused, by which status, and that
//! nothing has changed then; what is added stays over a kill.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use rustix::process::Signal;
use seedring_tests::served::Served;
use seedring_tests::server::{SHORT, metrics_of};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

/// An answer's status and its body.
fn exchange(mut stream: impl Read + Write, request: &str, body: &[u8]) -> (u16, Vec<u8>) {
    stream.write_all(request.as_bytes()).unwrap();
    // It may have been refused before its end.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer);
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("{request}: {text}"));
    let end = answer.windows(4).position(|part| part == b"\r\n\r\n");
    (status, answer[end.unwrap() + 4..].to_vec())
}

/// The API of a server, for who knows its token.
struct Api<'a> {
    server: &'a Served,
    token: String,
}

impl Api<'_> {
    fn of(server: &Served) -> Api<'_> {
        let token = std::fs::read_to_string(server.state().join("api-token")).unwrap();
        Api {
            server,
            token: token.trim().to_owned(),
        }
    }

    fn address(&self) -> &str {
        let api = &self.server.api;
        api.strip_prefix("http://").unwrap_or(api)
    }

    /// Sends a request with these headers alone.
    fn send(&self, line: &str, headers: &str, body: &[u8]) -> (u16, Value) {
        let (method, path) = line.split_once(' ').unwrap();
        let request = format!(
            "{method} /api/v1{path} HTTP/1.1\r\n{headers}Content-Length: {}\r\n\
             Connection: close\r\n\r\n",
            body.len()
        );
        let stream = TcpStream::connect(self.address()).unwrap();
        let (status, body) = exchange(stream, &request, body);
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    /// Those of who may ask, and sends JSON.
    fn headers(&self) -> String {
        format!(
            "Host: localhost\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n",
            self.token
        )
    }

    fn ask(&self, line: &str, body: &str) -> (u16, Value) {
        self.send(line, &self.headers(), body.as_bytes())
    }

    /// All that could have changed.
    fn all(&self) -> (Value, Vec<Value>) {
        let (status, server) = self.ask("GET /server", "");
        assert_eq!(status, 200);
        (server["torrents"].clone(), self.server.torrents())
    }
}

/// Data may be in one folder: what is asked for elsewhere, by whatever way, is refused over the API and
/// put aside by a watch folder.
#[test]
fn data_outside_of_the_roots_are_refused_by_whatever_way_they_come() {
    let text = "[library]\nroots = [\"@/in\"]\nsave_path = \"@/in/data\"\n\
                [[watch]]\npath = \"@/watched\"\nsave_path = \"@/in/later\"\n";
    let server = Served::start_configured(text, |root| {
        std::fs::create_dir(root.join("watched")).unwrap();
        std::os::unix::fs::symlink(root.join("out"), root.join("in/link")).unwrap();
    });
    let torrent = server.make("data.bin", 100_000);
    let api = Api::of(&server);
    let raw = api
        .headers()
        .replace("application/json", "application/x-bittorrent");
    let metainfo = std::fs::read(&torrent).unwrap();
    for folder in ["out", "in/link", "in/link/new", "in/../out"] {
        let line = format!("POST /torrents?save_path={}", server.path(folder).display());
        let (status, problem) = api.send(&line, &raw, &metainfo);
        assert_eq!(
            (status, &problem["field"]),
            (422, &json!("save_path")),
            "{problem}"
        );
    }
    let made = json!({"path": server.path("data/data.bin")}).to_string();
    let (status, problem) = api.ask("POST /torrents", &made);
    assert_eq!((status, &problem["field"]), (422, &json!("path")));
    let (status, added) = api.send("POST /torrents", &raw, &metainfo);
    assert_eq!(status, 201, "{added}");
    let hash = added["info_hash"].as_str().unwrap();
    let to = json!({"save_path": server.path("in/link/x")}).to_string();
    let (status, problem) = api.ask(&format!("POST /torrents/{hash}/move"), &to);
    assert_eq!((status, &problem["field"]), (422, &json!("save_path")));
    assert_eq!(std::fs::read_dir(server.path("out")).unwrap().count(), 0);
    // A watch folder's own has become a link since it was checked.
    std::os::unix::fs::symlink(server.path("out"), server.path("in/later")).unwrap();
    let link = format!("magnet:?xt=urn:btih:{}\n", "8".repeat(40));
    std::fs::write(server.path("watched/one.magnet"), link).unwrap();
    server.until("a file put aside", || {
        server.path("watched/one.magnet.invalid").exists()
    });
    assert_eq!(server.torrents().len(), 1);
}

#[test]
fn what_is_refused_has_the_right_status_and_changes_nothing() {
    let server = Served::start_with(&[("SEEDRING_API__BODY_MAX", "2MiB")]);
    let torrent = server.make("data.bin", 100_000);
    let api = Api::of(&server);
    let raw = format!(
        "Host: localhost\r\nAuthorization: Bearer {}\r\nContent-Type: application/x-bittorrent\r\n",
        api.token
    );
    let save_path = server.path("data");
    let line = format!("POST /torrents?save_path={}", save_path.display());
    let metainfo = std::fs::read(&torrent).unwrap();
    let (status, added) = api.send(&line, &raw, &metainfo);
    assert_eq!(
        (status, &added["was_there"]),
        (201, &json!(false)),
        "{added}"
    );
    let hash = added["info_hash"].as_str().unwrap().to_owned();
    let (status, again) = api.send(&line, &raw, &metainfo);
    assert_eq!((status, &again["was_there"]), (200, &json!(true)));
    server.wait("seeding", |torrents| torrents[0]["status"] == "seeding");
    let before = api.all();

    let one = format!("DELETE /torrents/{hash}?with_data=true");
    let edit = format!("PATCH /torrents/{hash}");
    let own = api.headers();
    let host = own.replace("localhost", "evil.example");
    let origin = format!("{own}Origin: http://evil.example\r\n");
    let cross_site = format!("{own}Sec-Fetch-Site: cross-site\r\n");
    let no_token = "Host: localhost\r\nContent-Type: application/json\r\n";
    let bad_token = own.replace(&api.token, "0123456789abcdef0123456789abcdef");
    let form = own.replace("application/json", "text/plain");
    let unknown = one.replace(&hash, &"0".repeat(40));
    let long = vec![b' '; 3 << 20];
    for (line, headers, body, expected) in [
        (one.as_str(), no_token, &b""[..], 401),
        (&one, &bad_token, b"", 401),
        (&one, &host, b"", 403),
        (&one, &origin, b"", 403),
        (&one, &cross_site, b"", 403),
        (&unknown, &own, b"", 404),
        (&edit, &own, b"{", 400),
        (&edit, &own, b"{\"nmae\": \"x\"}", 422),
        (&edit, &own, b"{\"limits\": {\"upload_rate\": -1}}", 422),
        (&edit, &form, b"{\"name\": \"x\"}", 415),
        (&edit, &own, &long, 413),
        ("POST /torrents", &own, &long, 413),
        ("POST /torrents", &raw, b"no torrent", 422),
        ("PUT /torrents", &own, b"", 405),
    ] {
        let (status, problem) = api.send(line, headers, body);
        assert_eq!(status, expected, "{line} {headers} {problem}");
        // What is too long may be cut off before its answer is read to its end.
        if status != 413 {
            assert_eq!(problem["status"], status, "{line} {problem}");
        }
        assert_eq!(api.all(), before, "{line} {headers}");
    }
    assert!(save_path.join("data.bin").exists());
    check_counts(&server);
    // The file that holds the token, and who else could have read it.
    let token = server.state().join("api-token");
    let mode = std::fs::metadata(token).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// What was refused above is counted.
fn check_counts(server: &Served) {
    let metrics = metrics_of(&server.api);
    let refused = |reason: &str| {
        let series = format!("seedring_api_refused_total{{reason=\"{reason}\"}}");
        metrics.get(&series).copied()
    };
    assert_eq!(refused("login"), Some(1.0));
    assert_eq!(refused("origin"), Some(2.0));
    assert_eq!(refused("body_max"), Some(2.0));
}

#[test]
fn what_was_acknowledged_is_there_after_a_kill_and_watchers_begin_anew() {
    let mut server = Served::start();
    let torrent = server.make("data.bin", 100_000);
    let (hash, revision) = {
        let api = Api::of(&server);
        let save_path = server.path("data");
        let line = format!(
            "POST /torrents?labels=a,b&save_path={}",
            save_path.display()
        );
        let raw = api
            .headers()
            .replace("application/json", "application/x-bittorrent");
        let (status, added) = api.send(&line, &raw, &std::fs::read(&torrent).unwrap());
        assert_eq!(status, 201, "{added}");
        let hash = added["info_hash"].as_str().unwrap().to_owned();
        let change = json!({"name": "Mine", "limits": {"upload_rate": 12_345}}).to_string();
        let (status, edited) = api.ask(&format!("PATCH /torrents/{hash}"), &change);
        assert_eq!((status, &edited["name"]), (200, &json!("Mine")));
        (
            hash,
            api.ask("GET /server", "").1["revision"].as_u64().unwrap(),
        )
    };
    let token = std::fs::read(server.state().join("api-token")).unwrap();
    server.process.signal(Signal::KILL);
    server.process.wait_exit(SHORT);
    // Its socket's file is still there, and nobody listens at it.
    assert!(server.state().join("api.sock").exists());
    server.again();
    assert_eq!(
        std::fs::read(server.state().join("api-token")).unwrap(),
        token
    );
    server.wait("torrent", |torrents| torrents.len() == 1);
    let request = format!("GET /api/v1/torrents/{hash} HTTP/1.1\r\nConnection: close\r\n\r\n");
    let socket = UnixStream::connect(server.state().join("api.sock")).unwrap();
    let (status, body) = exchange(socket, &request, b"");
    let one: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, &one["name"]), (200, &json!("Mine")));
    assert_eq!(one["labels"], json!(["a", "b"]));
    assert_eq!(one["limits"]["upload_rate"], 12_345);
    let api = Api::of(&server);
    let (_, changes) = api.ask(&format!("GET /changes?since={revision}"), "");
    assert_eq!(changes["begins_anew"], true);
    assert_eq!(changes["changed"][0]["info_hash"], hash.as_str());
}
