//! Requests that are refused: by the right status, and nothing is changed.

use super::harness::{Answer, bench, exchange, hash};
use seedring_metrics::ControlCounter;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const LARGE: usize = 2 << 20;

/// Requests of a torrent, ONE, and how each is refused: status, kind, and the field if one is at
/// fault.
const MEANINGLESS: &str = r#"
POST /torrents {  =>  400 malformed
POST /torrents not json  =>  400 malformed
POST /torrents {} {}  =>  400 malformed
POST /torrents {"name"  =>  400 malformed
POST /torrents []  =>  422 invalid
POST /torrents "{}"  =>  422 invalid
POST /torrents {}  =>  422 invalid metainfo
POST /torrents {"colour": 1}  =>  422 invalid colour
POST /torrents {"magnet": 1}  =>  422 invalid magnet
POST /torrents {"magnet": "magnet:?dn=x"}  =>  422 invalid magnet
POST /torrents {"metainfo": "?"}  =>  422 invalid metainfo
POST /torrents {"metainfo": ""}  =>  422 invalid metainfo
POST /torrents {"url": "file:///etc/passwd"}  =>  422 invalid url
POST /torrents {"url": "http://a/", "path": "/a"}  =>  422 invalid metainfo
POST /torrents {"path": "relative"}  =>  422 invalid path
POST /torrents {"path": "/a/../b"}  =>  422 invalid path
POST /torrents {"path": "/a", "path": "/b"}  =>  422 invalid path
POST /torrents {"path": "/a", "labels": ["a", 3]}  =>  422 invalid labels[1]
POST /torrents {"path": "/a", "labels": [""]}  =>  422 invalid labels[0]
POST /torrents {"path": "/a", "name": "a\nb"}  =>  422 invalid name
POST /torrents {"path": "/a", "limits": {"x": 1}}  =>  422 invalid limits.x
POST /torrents {"path": "/a", "limits": {"peers_max": -1}}  =>  422 invalid limits.peers_max
POST /torrents {"path": "/a", "limits": {"peers_max": 18446744073709551615}}  =>  422 invalid limits.peers_max
POST /torrents {"path": "/a", "peers": ["example.org:1"]}  =>  422 invalid peers[0]
POST /torrents {"path": "/a", "trackers": [["gopher://x/"]]}  =>  422 invalid trackers[0][0]
POST /torrents {"path": "/a", "files": [{"index": 0, "priority": 8}]}  =>  422 invalid files[0].priority
POST /torrents {"path": "/a"}  =>  501 unsupported
POST /torrents {"url": "http://conflict.example/"}  =>  409 conflict
POST /torrents {"url": "http://busy.example/"}  =>  503 unavailable
POST /torrents {"url": "http://down.example/"}  =>  500 failed
PATCH ONE {"paused": true}  =>  422 invalid paused
PATCH ONE null  =>  422 invalid
PATCH ONE/files {"files": [{"index": 1}]}  =>  422 invalid files[0].priority
PATCH ONE/files {"files": [{"index": 1, "priority": 1}, {"index": 1, "priority": 2}]}  =>  422 invalid files[1].index
POST ONE/pause {"now": true}  =>  422 invalid now
POST ONE/move {}  =>  422 invalid save_path
POST ONE/move {"save_path": "x"}  =>  422 invalid save_path
POST ONE/move {"save_path": "/a", "save_path": "/b"}  =>  422 invalid save_path
POST ONE/queue {"place": "middle"}  =>  422 invalid place
POST ONE/queue {"place": {"after": "me"}}  =>  422 invalid place
POST ONE/files/0/rename {"path": "../x"}  =>  422 invalid path
POST ONE/files/0/rename {"path": "/x"}  =>  422 invalid path
POST ONE/files/x/rename {"path": "x"}  =>  400 malformed index
POST ONE/rename {"from": "../x", "to": "x"}  =>  422 invalid from
POST ONE/rename {"from": "x", "to": "/x"}  =>  422 invalid to
POST ONE/rename {"from": "x", "to": "y/"}  =>  422 invalid to
POST ONE/rename {"from": "x"}  =>  422 invalid to
POST ONE/rename {"from": "x", "to": "y"}  =>  409 conflict
PUT ONE/trackers {"tiers": ["http://a/"]}  =>  422 invalid tiers[0]
PATCH /limits {"upload_rate": "fast"}  =>  422 invalid upload_rate
POST /torrents/actions {"action": "pause"}  =>  422 invalid torrents
POST /torrents/actions {"action": "explode", "filter": {}}  =>  422 invalid action
POST /torrents/actions {"action": "pause", "filter": {}, "with_data": true}  =>  422 invalid with_data
POST /torrents/actions {"action": "edit", "filter": {}}  =>  422 invalid edit
POST /torrents/actions {"action": "pause", "filter": {"size": 1}}  =>  422 invalid filter.size
POST /torrents/actions {"action": "remove", "torrents": ["aa"]}  =>  422 invalid torrents[0]
DELETE ONE?with_files=true   =>  422 invalid with_files
DELETE ONE?with_data=yes   =>  422 invalid with_data
"#;

#[tokio::test]
async fn bodies_that_cannot_be_meant_are_refused_by_their_field() {
    let bench = bench(|_| {}).await;
    bench.fill([1]);
    let before = bench.revision();
    let one = format!("/torrents/{}", hash(1));
    let deep = format!("POST /torrents {}  =>  400 malformed", "[".repeat(100_000));
    let deeper = format!(
        "PATCH /limits {}  =>  422 invalid a",
        "{\"a\":".repeat(9000)
    );
    let mark = "POST /torrents \u{feff}{}  =>  400 malformed".to_owned();
    let lines = MEANINGLESS.trim().lines().map(str::to_owned);
    for line in lines.chain([deep, deeper, mark]) {
        let (request, expected) = line.split_once("  =>  ").unwrap();
        let mut parts = request.splitn(3, ' ');
        let mut part = || parts.next().unwrap_or_default();
        let (method, path, body) = (part(), part().replace("ONE", &one), part());
        let answer = bench.ask(&format!("{method} {path}"), body).await;
        let said = String::from_utf8_lossy(&answer.body).into_owned();
        let (kind, field) = answer.problem();
        let told = format!("{} {kind} {field}", answer.status);
        let request = &request[..request.len().min(100)];
        assert_eq!(told.trim(), expected, "{request}: {said}");
        assert!(said.len() < 2000, "{said}");
    }
    // Those that the server itself refuses came to it, and changed nothing.
    let (revision, commands) = bench.revision();
    assert_eq!((revision, commands), (before.0, before.1 + 5));
    assert_eq!(bench.get(&one).await.status, 200);
}

/// The same without bodies; OTHER is a torrent that is not there.
const ABSENT: &str = "
GET /torrents/OTHER  =>  404 unknown-torrent
DELETE /torrents/OTHER  =>  404 unknown-torrent
POST /torrents/OTHER/pause  =>  404 unknown-torrent
GET /torrents/OTHER/files  =>  404 unknown-torrent
GET /torrents/OTHER/metainfo  =>  404 unknown-torrent
GET /torrents/xyz  =>  400 malformed hash
GET /torrents/SHORT  =>  400 malformed hash
GET /torrents/%ff  =>  400 malformed
GET /torrents/ONE/colour  =>  404 not-found
GET /nothing  =>  404 not-found
GET /  =>  404 not-found
PUT /torrents  =>  405 method
POST /torrents/ONE  =>  405 method
BREW /torrents  =>  405 method
GET /torrents?limit=-1  =>  422 invalid limit
GET /torrents?limit=1&limit=2  =>  422 invalid limit
GET /torrents?sort=colour  =>  422 invalid sort
GET /torrents?status=seeding,lost  =>  422 invalid status
GET /torrents?colour=red  =>  422 invalid colour
GET /changes?limit=0  =>  422 invalid limit
GET /changes?since=now  =>  422 invalid since
GET /events?limit=0  =>  422 invalid limit
";

#[tokio::test]
async fn what_is_not_there_or_asked_for_otherwise_is_refused() {
    let bench = bench(|_| {}).await;
    bench.fill([1]);
    let before = bench.revision();
    let (one, other) = (hash(1).to_string(), hash(2).to_string());
    for line in ABSENT.trim().lines() {
        let (request, expected) = line.split_once("  =>  ").unwrap();
        let request = request.replace("ONE", &one).replace("OTHER", &other);
        let request = request.replace("SHORT", &one[1..]);
        let answer = bench.ask(&request, "").await;
        let said = String::from_utf8_lossy(&answer.body).into_owned();
        let (kind, field) = answer.problem();
        let told = format!("{} {kind} {field}", answer.status);
        assert_eq!(told.trim(), expected, "{request}: {said}");
        let allow = answer.header("allow");
        assert_eq!(allow.is_some(), answer.status == 405, "{}", answer.head);
    }
    assert_eq!(bench.revision(), before);
    // A hash is one whatever the case of its digits.
    let upper = one.to_uppercase();
    assert_eq!(bench.get(&format!("/torrents/{upper}")).await.status, 200);
}

#[tokio::test]
async fn bodies_that_are_too_long_are_refused_unread() {
    let bench = bench(|settings| settings.body_max.0 = LARGE as u64).await;
    bench.fill([1]);
    let before = bench.revision();
    let token = format!("Authorization: Bearer {}\r\n", bench.token);
    // A gigabyte is announced, and the answer comes without it.
    for path in [
        "/torrents".to_owned(),
        format!("/torrents/{}/move", hash(1)),
    ] {
        let mut stream = bench.connect().await;
        let head = format!(
            "POST /api/v1{path} HTTP/1.1\r\nHost: localhost\r\n{token}\
             Content-Type: application/json\r\nContent-Length: 1000000000\r\n\r\n{{"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = Answer::of(&answer);
        assert_eq!(answer.status, 413);
        assert_eq!(answer.problem().0, "too-large");
    }
    // One whose length nobody says is read until it is too long.
    let mut stream = bench.connect().await;
    let head = format!(
        "PATCH /api/v1/limits HTTP/1.1\r\nHost: localhost\r\n{token}Connection: close\r\n\
         Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    for _ in 0..17 {
        let _ = stream.write_all(chunk.as_bytes()).await;
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert_eq!(Answer::of(&answer).status, 413);
    assert_eq!(bench.revision(), before);
    assert_eq!(bench.cells.counter(ControlCounter::ApiRefusedBody), 3);
    // One that is just short enough is taken: this torrent is added.
    let kind = format!("{token}Content-Type: application/x-bittorrent\r\n");
    let long = vec![b'x'; LARGE];
    let added = bench.send("POST /torrents", &kind, &long).await;
    assert_eq!(added.status, 201);
}

#[tokio::test]
async fn other_kinds_of_bodies_than_json_are_refused() {
    let bench = bench(|_| {}).await;
    bench.fill([1]);
    let before = bench.revision();
    let token = format!("Authorization: Bearer {}\r\n", bench.token);
    let one = format!("/torrents/{}", hash(1));
    // What a form of a web page can send without asking.
    for kind in [
        "",
        "Content-Type: text/plain\r\n",
        "Content-Type: application/x-www-form-urlencoded\r\n",
        "Content-Type: application/jsonp\r\n",
        "Content-Type: multipart/form-data; boundary=X\r\n",
    ] {
        let headers = format!("{token}{kind}");
        for line in [
            format!("POST {one}/pause"),
            format!("PATCH {one}"),
            "PATCH /limits".to_owned(),
            "POST /torrents/actions".to_owned(),
        ] {
            let answer = bench.send(&line, &headers, b"{}").await;
            assert_eq!(answer.status, 415, "{line} {kind}");
            assert_eq!(answer.problem().0, "media-type");
        }
    }
    let headers = format!("{token}Content-Type: text/plain\r\n");
    let answer = bench.send("POST /torrents", &headers, b"{}").await;
    assert_eq!(answer.status, 415);
    // Without a body, too, if a kind is said.
    let answer = bench
        .send(&format!("POST {one}/pause"), &headers, b"")
        .await;
    assert_eq!(answer.status, 415);
    assert_eq!(bench.revision(), before);
    let headers = format!("{token}Content-Type: Application/JSON; charset=utf-8\r\n");
    let answer = bench
        .send("PATCH /limits", &headers, br#"{"upload_rate": 1}"#)
        .await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn foreign_names_and_pages_are_refused() {
    let bench = bench(|settings| settings.allowed_hosts = vec!["seed.example".to_owned()]).await;
    bench.fill([1]);
    let before = bench.revision();
    let one = format!("/torrents/{}", hash(1));
    let token = format!("Authorization: Bearer {}\r\n", bench.token);
    for headers in [
        "Host: evil.example\r\n",
        "Host: localhost\r\nHost: evil.example\r\n",
    ] {
        for line in [format!("GET {one}"), format!("DELETE {one}")] {
            let answer = bench.send(&line, &format!("{token}{headers}"), b"").await;
            assert_eq!(answer.problem(), ("forbidden".into(), "host".into()));
            assert_eq!(answer.status, 403);
        }
    }
    for headers in [
        "Origin: http://evil.example\r\n",
        "Origin: null\r\n",
        "Origin: http://localhost:1\r\n",
        "Origin: https://localhost\r\nHost: localhost:80\r\n",
        "Origin: http://localhost\r\nOrigin: http://evil.example\r\n",
        "Origin: file://localhost\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
        "Origin: http://seed.example.evil.example\r\nHost: seed.example\r\n",
    ] {
        let headers = format!("{token}{headers}");
        let answer = bench.send(&format!("DELETE {one}"), &headers, b"").await;
        assert_eq!(answer.status, 403, "{headers}");
        assert_eq!(answer.problem().0, "forbidden");
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    assert_eq!(bench.revision(), before);
    assert_eq!(bench.cells.counter(ControlCounter::ApiRefusedOrigin), 9);
    for headers in [
        "Origin: http://localhost\r\n",
        "Origin: http://LOCALHOST:80\r\n",
        "Origin: https://seed.example\r\nHost: seed.example\r\nSec-Fetch-Site: same-origin\r\n",
        "Origin: http://seed.example:8690\r\nHost: seed.example:8690\r\n",
        "Sec-Fetch-Site: none\r\n",
        "",
    ] {
        let headers = format!("{token}{headers}");
        let line = format!("POST {one}/recheck");
        let answer = bench.send(&line, &headers, b"").await;
        assert_eq!(answer.status, 204, "{headers}");
    }
}

#[tokio::test]
async fn every_answer_forbids_browsers_what_they_need_not() {
    let bench = bench(|_| {}).await;
    for line in [
        "GET /torrents",
        "GET /nothing",
        "DELETE /torrents",
        "GET /docs",
    ] {
        for answer in [bench.ask(line, "").await, bench.send(line, "", b"").await] {
            for (name, value) in [
                ("x-content-type-options", "nosniff"),
                ("x-frame-options", "DENY"),
                ("cache-control", "no-store"),
                ("cross-origin-resource-policy", "same-origin"),
            ] {
                assert_eq!(answer.header(name), Some(value), "{line}: {}", answer.head);
            }
            let policy = answer.header("content-security-policy").unwrap();
            assert!(policy.starts_with("default-src 'none';"), "{policy}");
            let lax = ["-inline", "-eval"]
                .iter()
                .any(|word| policy.contains(word));
            assert!(!lax, "{policy}");
        }
    }
}

/// What is described is there, is asked for as it says, and is closed; the page loads nothing but
/// what comes from here.
#[tokio::test]
async fn the_description_is_true() {
    let bench = bench(|_| {}).await;
    let document = bench.send("GET /openapi.json", "", b"").await;
    assert_eq!(document.status, 200);
    let document = document.json();
    assert_eq!(document["servers"][0]["url"], "/api/v1");
    let mut operations = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path = path.replace("{hash}", &hash(1).to_string());
        let path = path.replace("{index}", "0");
        for (method, operation) in methods.as_object().unwrap() {
            assert!(operation["responses"]["default"].is_object(), "{path}");
            assert!(operation["summary"].is_string(), "{method} {path}");
            let line = format!("{} {path}", method.to_uppercase());
            assert_eq!(bench.send(&line, "", b"").await.status, 401, "{line}");
            if path != "/events" {
                let answer = bench.ask(&line, "").await;
                assert_ne!(answer.status, 405, "{line}");
                let is_path = answer.status != 404 || answer.problem().0 == "unknown-torrent";
                assert!(is_path, "{line}");
            }
            operations += 1;
        }
    }
    assert_eq!(operations, 30);
    // Every reference leads somewhere.
    let text = document.to_string();
    let named = document["components"]["schemas"].as_object().unwrap();
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(named.contains_key(name), "{name}");
    }
    for (path, kind) in [
        ("/docs", "text/html; charset=utf-8"),
        ("/docs.css", "text/css; charset=utf-8"),
        ("/docs.js", "text/javascript; charset=utf-8"),
    ] {
        let page = exchange(bench.connect().await, &format!("GET {path}"), "", b"").await;
        assert_eq!(
            (page.status, page.header("content-type")),
            (200, Some(kind))
        );
        let text = String::from_utf8(page.body).unwrap();
        assert!(
            !text.contains("http://") && !text.contains("https://"),
            "{text}"
        );
    }
}
