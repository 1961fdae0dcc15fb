//! What is asked and told of torrents.

use super::harness::{METAINFO, OPEN_URL, SECRET_URL, bench, hash, torrent};
use crate::api::types::{self, Torrent};
use crate::catalog::{self, Live, Status};
use seedring_metrics::ControlCounter;
use serde_json::{Value, json};
use std::sync::Arc;

fn magnet(number: u8) -> String {
    format!("magnet:?xt=urn:btih:{}", hash(number))
}

fn hashes(page: &Value) -> Vec<String> {
    let torrents = page["torrents"].as_array().unwrap().iter();
    let hash = |torrent: &Value| torrent["info_hash"].as_str().unwrap().to_owned();
    torrents.map(hash).collect()
}

fn named(numbers: impl IntoIterator<Item = u8>) -> Vec<String> {
    numbers
        .into_iter()
        .map(|number| hash(number).to_string())
        .collect()
}

#[tokio::test]
async fn pages_are_cut_sorted_and_filtered() {
    let bench = bench(|_| {}).await;
    bench.fill(1..=20);
    let page = bench.get("/torrents?limit=5&offset=3").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), Some("application/json"));
    let page = page.json();
    assert_eq!((&page["total"], &page["offset"]), (&json!(20), &json!(3)));
    assert_eq!(page["revision"], bench.seat.catalog().revision());
    assert_eq!(hashes(&page), named(4..=8));
    let of = async |query: &str| hashes(&bench.get(&format!("/torrents?{query}")).await.json());
    assert_eq!(of("").await.len(), 20);
    assert_eq!(
        of("sort=size&order=desc&limit=3").await,
        named([20, 19, 18])
    );
    assert_eq!(of("q=torrent%202").await, named([2, 20]));
    assert_eq!(
        of("label=label+1&limit=2&order=desc").await,
        named([19, 17])
    );
    assert!(of("status=paused,failed").await.is_empty());
    assert_eq!(of("status=paused,seeding").await.len(), 20);
    assert_eq!(of("category=").await.len(), 20);
    assert!(of("offset=20").await.is_empty());
    assert!(of("limit=0").await.is_empty());
    // More than a page may have is as many as it may.
    assert_eq!(of("limit=1000000").await.len(), 20);
    assert_eq!(bench.cells.counter(ControlCounter::ApiList), 11);
}

/// Every field that a torrent can have, by the name that selects it.
#[tokio::test]
async fn fields_are_selected_by_their_names() {
    let bench = bench(|_| {}).await;
    let whole = catalog::Torrent {
        summary: ::state::Summary {
            info_hash_v2: Some(proto::ids::InfoHashV2([2; 32])),
            category: Some("films".to_owned()),
            completed_at_s: Some(1),
            last_error: Some(::state::LastError {
                at_s: 1,
                text: "a disk".to_owned(),
            }),
            ..torrent(1).summary
        },
        totals: ::state::Totals {
            last_active_at_s: 1,
            ..torrent(1).totals
        },
        live: Live {
            done_permille: Some(5),
            ..torrent(1).live
        },
        ..torrent(1)
    };
    bench.seat.change(|catalog| catalog.add(whole));
    let all = bench.get("/torrents").await.json();
    let all = all["torrents"][0].as_object().unwrap();
    for (field, value) in all {
        let page = bench.get(&format!("/torrents?fields={field}")).await.json();
        assert_eq!(page["torrents"][0], json!({ field.as_str(): value }));
    }
    let some = bench.get("/torrents?fields=name,+status").await.json();
    let expected = json!({"name": "Torrent 1", "status": "seeding"});
    assert_eq!(some["torrents"][0], expected);
    let refused = bench.get("/torrents?fields=name,colour").await;
    assert_eq!(refused.status, 422);
    assert_eq!(refused.problem(), ("invalid".into(), "fields".into()));
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("colour"), "{detail}");
    // Whoever writes Rust reads all of it.
    let read: Torrent = serde_json::from_value(Value::Object(all.clone())).unwrap();
    assert_eq!(read.category.as_deref(), Some("films"));
}

#[tokio::test]
async fn a_torrent_is_added_once() {
    let bench = bench(|_| {}).await;
    let body = json!({
        "magnet": magnet(7), "name": "Seven", "labels": ["a", "b", "a"], "paused": true,
        "category": "films", "save_path": "/data/films", "peers": ["192.0.2.1:6881", "[::1]:1"],
        "files": [{"index": 3, "priority": 7}], "only_named": true,
        "limits": {"upload_rate": 1000, "at_limit": "remove_with_data"},
        "trackers": [[OPEN_URL], []], "first_in_queue": true,
    });
    let added = bench.ask("POST /torrents", &body.to_string()).await;
    assert_eq!(added.status, 201);
    let location = format!("/api/v1/torrents/{}", hash(7));
    assert_eq!(added.header("location"), Some(location.as_str()));
    let expected = json!({"info_hash": hash(7).to_string(), "name": "Seven", "was_there": false});
    assert_eq!(added.json(), expected);
    let command = bench.commands.lock().unwrap()[0].clone();
    for part in [
        "save_path: Some(\"/data/films\")",
        "labels: [\"a\", \"b\"]",
        "paused: true",
        "priorities: [(3, Priority(7))]",
        "only_named: true",
        "upload_rate: Some(1000)",
        "at_limit: Some(RemoveWithData)",
        "trackers: [[\"udp://open.example:80/announce\"]]",
        "peers: [192.0.2.1:6881, [::1]:1]",
        "first_in_queue: true",
    ] {
        assert!(command.contains(part), "{part}: {command}");
    }
    let revision = bench.seat.catalog().revision();
    let again = bench.ask("POST /torrents", &body.to_string()).await;
    assert_eq!(again.status, 200);
    assert_eq!(again.json()["was_there"], true);
    assert_eq!(bench.seat.catalog().revision(), revision);
    let one = bench.get(&format!("/torrents/{}", hash(7))).await.json();
    assert_eq!(
        (&one["name"], &one["paused"]),
        (&json!("Seven"), &json!(true))
    );
}

#[tokio::test]
async fn a_torrent_comes_as_json_as_it_is_or_in_a_form() {
    let bench = bench(|_| {}).await;
    let token = format!("Authorization: Bearer {}\r\n", bench.token);
    let added = bench.ask("POST /torrents", r#"{"metainfo": "ZGU="}"#).await;
    assert_eq!(added.json()["info_hash"], hash(2).to_string());
    let kind = format!("{token}Content-Type: application/x-bittorrent\r\n");
    let line = "POST /torrents?name=Raw&labels=a,b&paused=true&save_path=/data";
    let added = bench.send(line, &kind, b"d2:ee").await;
    assert_eq!(added.status, 201);
    assert_eq!(added.json()["name"], "Raw");
    let page = bench.get("/torrents?q=raw").await.json();
    assert_eq!(page["torrents"][0]["labels"], json!(["a", "b"]));
    let kind = format!("{token}Content-Type: multipart/form-data; boundary=X\r\n");
    let form = "--X\r\nContent-Disposition: form-data; name=\"torrent\"; filename=\"a.torrent\"\r\n\
                Content-Type: application/x-bittorrent\r\n\r\nd3:eeee\r\n\
                --X\r\nContent-Disposition: form-data; name=\"options\"\r\n\r\n\
                {\"name\": \"Formed\"}\r\n--X--\r\n";
    let added = bench.send("POST /torrents", &kind, form.as_bytes()).await;
    assert_eq!(added.status, 201);
    let expected = json!({"info_hash": hash(7).to_string(), "name": "Formed", "was_there": false});
    assert_eq!(added.json(), expected);
    // One that is longer than what others take without being told.
    let long = format!(
        "--X\r\nContent-Disposition: form-data; name=\"torrent\"\r\n\r\n{}\r\n--X--\r\n",
        "d".repeat((3 << 20) + 9)
    );
    let added = bench.send("POST /torrents", &kind, long.as_bytes()).await;
    assert_eq!(
        (added.status, &added.json()["info_hash"]),
        (201, &json!(hash(9).to_string()))
    );
    let before = bench.revision();
    for (form, problem) in [
        ("no form", "malformed"),
        (
            "--X\r\nContent-Disposition: form-data; name=\"torrent\"\r\n\r\nd",
            "malformed",
        ),
        (
            "--X\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nd\r\n--X--\r\n",
            "invalid",
        ),
        ("--X--\r\n", "invalid"),
    ] {
        let refused = bench.send("POST /torrents", &kind, form.as_bytes()).await;
        assert_eq!(refused.problem().0, problem, "{form}");
    }
    assert_eq!(bench.revision(), before);
}

#[tokio::test]
async fn a_torrent_is_changed_and_removed() {
    let bench = bench(|_| {}).await;
    bench.fill([1]);
    let path = format!("/torrents/{}", hash(1));
    let change = json!({
        "name": "One", "category": "films", "labels_added": ["new"],
        "limits": {"upload_rate": 5, "peers_max": 9},
    });
    let line = format!("PATCH {path}");
    let edited = bench.ask(&line, &change.to_string()).await;
    assert_eq!(edited.status, 200);
    let edited = edited.json();
    assert_eq!(edited["name"], "One");
    assert_eq!(edited["labels"], json!(["label 1", "new"]));
    assert_eq!(edited["limits"], json!({"upload_rate": 5, "peers_max": 9}));
    let change = json!({"category": null, "limits": {"upload_rate": null}});
    let edited = bench.ask(&line, &change.to_string()).await.json();
    assert_eq!(edited.get("category"), None);
    assert_eq!(edited["limits"], json!({"peers_max": 9}));
    for (action, paused) in [
        ("pause", true),
        ("resume", false),
        ("stop", true),
        ("start", false),
    ] {
        let done = bench.ask(&format!("POST {path}/{action}"), "").await;
        assert_eq!((done.status, done.body.len()), (204, 0), "{action}");
        let catalog = bench.seat.catalog();
        let torrent = catalog.get(&hash(1)).unwrap();
        assert_eq!(torrent.summary.paused, paused, "{action}");
    }
    // A body that says nothing is none.
    let done = bench.ask(&format!("POST {path}/recheck"), "{}").await;
    assert_eq!(done.status, 204);
    let done = bench.ask(&format!("POST {path}/announce"), "").await;
    assert_eq!(done.status, 204);
    let moved = json!({"save_path": "/elsewhere"}).to_string();
    let moved = bench.ask(&format!("POST {path}/move"), &moved).await;
    assert_eq!(moved.status, 202);
    assert_eq!(moved.json()["save_path"], "/elsewhere");
    for place in [json!("first"), json!({"after": hash(1).to_string()})] {
        let place = json!({ "place": place }).to_string();
        let queued = bench.ask(&format!("POST {path}/queue"), &place).await;
        assert_eq!(queued.status, 204);
    }
    let removed = bench
        .ask(&format!("DELETE {path}?with_data=true"), "")
        .await;
    assert_eq!(removed.status, 204);
    assert!(bench.seat.catalog().is_empty());
    let commands = bench.commands.lock().unwrap().clone();
    let last = commands.last().unwrap();
    assert!(last.contains("Remove { with_data: true }"), "{last}");
    let count = |part: &str| commands.iter().filter(|c| c.contains(part)).count();
    assert_eq!((count("Recheck"), count("Queue(First)")), (1, 1));
    assert_eq!(bench.get(&path).await.status, 404);
}

#[tokio::test]
async fn parts_of_a_torrent_are_told_and_changed() {
    let bench = bench(|_| {}).await;
    bench.fill([1]);
    let path = format!("/torrents/{}", hash(1));
    let part = async |part: &str| bench.get(&format!("{path}/{part}")).await;
    let file = json!({
        "index": 0, "path": "folder/file", "total_bytes": 10, "verified_bytes": 4, "priority": 4,
    });
    assert_eq!(part("files").await.json(), json!({ "files": [file] }));
    let peers = part("peers").await.json();
    assert_eq!(peers["peers"][0]["address"], "192.0.2.1:6881");
    assert_eq!(peers["peers"][0]["has_permille"], 500);
    let pieces = json!({"count": 10, "verified_count": 3, "verified": "oEA="});
    assert_eq!(part("pieces").await.json(), pieces);
    let metainfo = part("metainfo").await;
    assert_eq!(metainfo.body, METAINFO);
    let kind = metainfo.header("content-type");
    assert_eq!(kind, Some("application/x-bittorrent"));
    for (line, body) in [
        ("PATCH", r#"files {"files": [{"index": 1, "priority": 0}]}"#),
        ("POST", r#"files/1/rename {"path": "folder/other"}"#),
        ("POST", r#"rename {"from": "folder", "to": "other"}"#),
        ("POST", r#"peers {"peers": ["192.0.2.7:6881"]}"#),
        (
            "PUT",
            r#"trackers {"tiers": [["http://one.example/announce"]]}"#,
        ),
    ] {
        let (part, body) = body.split_once(' ').unwrap();
        let done = bench.ask(&format!("{line} {path}/{part}"), body).await;
        assert_eq!(done.status, 204, "{part}");
    }
    let commands = bench.commands.lock().unwrap().join("\n");
    for command in [
        "priorities: [(1, Priority(0))]",
        "\"folder/other\"",
        "[192.0.2.7:6881]",
        "trackers: Some([[\"http://one.example/announce\"]])",
    ] {
        assert!(commands.contains(command), "{command}: {commands}");
    }
    let line = format!("POST {path}/files/2/rename");
    let refused = bench.ask(&line, r#"{"path": "x"}"#).await;
    assert_eq!(refused.problem(), ("invalid".into(), "index".into()));
}

#[tokio::test]
async fn passkeys_are_told_only_where_they_are_asked_for() {
    let bench = bench(|_| {}).await;
    bench.fill([1]);
    let path = format!("/torrents/{}", hash(1));
    for part in ["", "/trackers"] {
        let answer = bench.get(&format!("{path}{part}")).await;
        let text = String::from_utf8(answer.body).unwrap();
        assert!(!text.contains("secretkey"), "{text}");
        assert!(!text.contains("password"), "{text}");
        assert!(text.contains("http://tracker.example:6969/"), "{text}");
        assert!(text.contains(OPEN_URL), "{text}");
        let answer = bench.get(&format!("{path}{part}?secrets=true")).await;
        let text = String::from_utf8(answer.body).unwrap();
        assert!(text.contains(SECRET_URL), "{text}");
    }
    let one = bench.get(&path).await.json();
    assert_eq!(one["queue_position"], 3);
    let sources = serde_json::json!([{"source": "dht", "named": 5, "connected": 2}]);
    assert_eq!(one["sources"], sources);
    assert_eq!(one["comment"], "by hand");
    assert!(one["magnet"].as_str().unwrap().contains("open.example"));
    let trackers = bench.get(&format!("{path}/trackers")).await.json();
    assert_eq!(trackers["trackers"][0]["until_next_s"], 1800);
    assert_eq!(trackers["trackers"][0]["state"], "working");
}

#[tokio::test]
async fn many_are_acted_on_at_once_and_failures_are_named() {
    let bench = bench(|_| {}).await;
    bench.fill(1..=100);
    let named = json!({
        "action": "stop",
        "torrents": [hash(1).to_string(), hash(2).to_string(), hash(1).to_string(),
            hash(200).to_string()],
    });
    let result = bench
        .ask("POST /torrents/actions", &named.to_string())
        .await;
    assert_eq!(result.status, 200);
    let result = result.json();
    assert_eq!(
        (&result["done"], &result["failed_total"]),
        (&json!(2), &json!(1))
    );
    let failed = &result["failed"][0];
    assert_eq!(failed["info_hash"], hash(200).to_string());
    assert_eq!(failed["problem"]["type"], "urn:seedring:unknown-torrent");
    assert!(bench.seat.catalog().get(&hash(2)).unwrap().summary.paused);
    assert!(!bench.seat.catalog().get(&hash(3)).unwrap().summary.paused);
    let edit = json!({
        "action": "edit", "filter": {"label": "label 0"},
        "edit": {"category": "even", "limits": {"upload_rate": 7}},
    });
    let result = bench.ask("POST /torrents/actions", &edit.to_string()).await;
    assert_eq!(result.json()["done"], 50);
    let groups = bench.get("/categories").await.json();
    assert_eq!(groups["groups"], json!([{"name": "even", "torrents": 50}]));
    let groups = bench.get("/labels").await.json();
    let expected =
        json!([{"name": "label 0", "torrents": 50}, {"name": "label 1", "torrents": 50}]);
    assert_eq!(groups["groups"], expected);
    let remove = json!({"action": "remove", "filter": {"category": "even"}, "with_data": true});
    let result = bench
        .ask("POST /torrents/actions", &remove.to_string())
        .await;
    assert_eq!(result.json()["done"], 50);
    assert_eq!(bench.seat.catalog().len(), 50);
    let groups = bench.get("/categories").await.json();
    assert_eq!(groups["groups"], json!([]));
    // All of them, said by a filter that leaves none out.
    let all = json!({"action": "recheck", "filter": {}}).to_string();
    let result = bench.ask("POST /torrents/actions", &all).await;
    assert_eq!(result.json()["done"], 50);
}

#[tokio::test]
async fn the_server_tells_counts_sums_and_limits() {
    let bench = bench(|_| {}).await;
    bench.fill(1..=4);
    bench.seat.change(|catalog| {
        catalog.change(&hash(1), |torrent| {
            torrent.live.status = Status::Paused;
            torrent.live.upload_rate = 10;
            torrent.totals.uploaded_bytes = 100;
        });
        catalog.begin_totals(state::Totals {
            downloaded_bytes: 7,
            ..Default::default()
        });
        catalog.transferred((20, 30, 0));
        catalog.change(&hash(2), |torrent| torrent.live.upload_rate = 5);
        catalog.change(&hash(2), |torrent| torrent.live.upload_rate = 7);
        catalog.remove(&hash(4));
    });
    let server = bench.get("/server").await.json();
    let server: types::ServerStatus = serde_json::from_value(server).unwrap();
    assert_eq!(
        (server.version, server.commit),
        ("1.2.3".into(), "abcdef".into())
    );
    assert_eq!(server.torrents, 3);
    assert_eq!((server.by_status.paused, server.by_status.seeding), (1, 2));
    assert_eq!(server.total_bytes, 6_000_000);
    // What torrents say of their own counts where it is more; one that is removed takes none away.
    assert_eq!((server.upload_rate, server.uploaded_bytes), (17, 120));
    assert_eq!(server.uploaded_session_bytes, 20);
    assert_eq!(
        (server.downloaded_bytes, server.downloaded_session_bytes),
        (37, 30)
    );
    let limits = bench.get("/limits").await;
    assert_eq!(limits.json(), json!({}));
    let limits = bench.ask("PATCH /limits", r#"{"upload_rate": 0}"#).await;
    assert_eq!(limits.json(), json!({"upload_rate": 0}));
    let limits = bench.ask("PATCH /limits", r#"{"upload_rate": null}"#).await;
    assert_eq!(limits.json(), json!({}));
    bench.stop().await;
}

#[tokio::test]
async fn the_log_is_told_from_a_line_on_and_by_level() {
    use tracing_subscriber::layer::SubscriberExt;
    let bench = bench(|_| {}).await;
    let keep = crate::logging::Keep(Arc::clone(&bench.api.facts.log));
    let subscriber = tracing_subscriber::registry().with(keep);
    tracing::subscriber::with_default(subscriber, || {
        tracing::warn!(client = "a\u{1b}[2J", "one");
        tracing::info!("two");
        tracing::debug!("three");
    });
    let told = |answer: &super::harness::Answer| {
        let log: types::LogLines = serde_json::from_value(answer.json()).unwrap();
        let texts = log.lines.iter().map(|line| line.text.clone());
        (texts.collect::<Vec<_>>(), log.last)
    };
    let all = bench.get("/log").await;
    assert!(!String::from_utf8_lossy(&all.body).contains('\u{1b}'));
    assert_eq!(all.json()["lines"][0]["level"], "warn");
    let (texts, last) = told(&all);
    assert_eq!(texts[1..], ["two", "three"]);
    assert!(texts[0].starts_with("one client="), "{}", texts[0]);
    let path = format!("/log?since={}&level=info", last - 2);
    assert_eq!(told(&bench.get(&path).await), (vec!["two".into()], last));
    let path = format!("/log?since={last}");
    assert_eq!(told(&bench.get(&path).await), (vec![], last));
    assert_eq!(told(&bench.get("/log?limit=1").await).0, ["three"]);
    for wrong in ["/log?limit=0", "/log?level=loud", "/log?since=-1"] {
        assert_eq!(bench.get(wrong).await.status, 422, "{wrong}");
    }
    assert_eq!(bench.send("GET /log", "", b"").await.status, 401);
    bench.stop().await;
}
