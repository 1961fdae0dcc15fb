//! The commands against a server of our own, which has torrents and remembers what it is asked.

use super::select::{Targets, Which, find as find_torrents, passing};
use super::*;
use crate::client::{Place, Token};
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::routing::{get, post};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// What was asked for, in order.
type Asked = Arc<Mutex<Vec<Value>>>;

fn hash(number: usize) -> String {
    format!("{number:08x}{}", "0".repeat(32))
}

/// A page of 25,000 torrents, as the API gives it.
async fn page(State(asked): State<Asked>, RawQuery(query): RawQuery) -> String {
    const ALL: usize = 25_000;
    let query = query.unwrap_or_default();
    let query: HashMap<String, String> = serde_urlencoded::from_str(&query).unwrap();
    let number = |key: &str| query.get(key).map_or(0, |text| text.parse().unwrap());
    let text = query.get("q").cloned().unwrap_or_default();
    let all: Vec<usize> = (0..ALL)
        .filter(|number| format!("torrent {number}").contains(&text))
        .collect();
    let shown = all
        .iter()
        .skip(number("offset"))
        .take(number("limit").min(10_000));
    let torrents: Vec<Value> = shown
        .map(|number| json!({ "info_hash": hash(*number), "name": format!("torrent {number}") }))
        .collect();
    asked.lock().unwrap().push(json!(query));
    json!({ "total": all.len(), "offset": 0, "revision": 1, "torrents": torrents }).to_string()
}

/// Does what is asked, but for torrent 7.
async fn act(State(asked): State<Asked>, body: String) -> String {
    let request: Value = serde_json::from_str(&body).unwrap();
    let torrents = request["torrents"].as_array().cloned().unwrap_or_default();
    let problem = json!({ "type": "x", "title": "busy", "status": 409, "detail": "it is busy" });
    let failed: Vec<Value> = torrents
        .iter()
        .filter(|one| **one == hash(7))
        .map(|one| json!({ "info_hash": one, "problem": problem }))
        .collect();
    asked.lock().unwrap().push(request);
    json!({ "done": torrents.len() - failed.len(), "failed": failed, "failed_total": failed.len() })
        .to_string()
}

/// The server, and what it is asked.
struct Server {
    remote: Remote,
    asked: Asked,
    _folder: TempDir,
}

impl Server {
    fn new() -> Server {
        let folder = TempDir::new().unwrap();
        let asked = Asked::default();
        let router = Router::new()
            .route("/api/v1/torrents", get(page))
            .route("/api/v1/torrents/actions", post(act))
            .with_state(asked.clone());
        let path = folder.path().join("api.sock");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = {
            let _guard = runtime.enter();
            tokio::net::UnixListener::bind(&path).unwrap()
        };
        runtime.spawn(async { axum::serve(listener, router).await.unwrap() });
        let token: Option<Token> = None;
        let client = Client::new(Place::Socket(path), token, None).unwrap();
        let remote = Remote {
            runtime,
            client,
            json: false,
        };
        Server {
            remote,
            asked,
            _folder: folder,
        }
    }

    fn asked(&self) -> Vec<Value> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    fn targets(&self, names: &[&str], all: bool) -> Result<Targets, Failure> {
        let which = Which {
            torrents: names.iter().map(|name| (*name).to_owned()).collect(),
            all,
            filter: select::FilterArgs::default(),
        };
        which.targets(&self.remote)
    }
}

#[test]
fn all_pages_are_read_to_find_the_beginning_of_a_hash_and_a_name_is_asked_for() {
    let server = Server::new();
    let wanted = [
        hash(24_999)[..8].to_owned(),
        "torrent 3".to_owned(),
        "nose".to_owned(),
    ];
    let found = find_torrents(&server.remote, &wanted).unwrap();
    let found: Vec<Option<String>> = found
        .into_iter()
        .map(|one| one.map(|one| one.name))
        .collect();
    assert_eq!(
        found,
        [Some("torrent 24999".into()), Some("torrent 3".into()), None]
    );
    assert_eq!(server.asked().len(), 3, "three pages, once");
    let found = find_torrents(&server.remote, &wanted[1..2]).unwrap();
    assert_eq!(found[0].as_ref().unwrap().info_hash, hash(3));
    let asked = server.asked();
    assert_eq!((asked.len(), &asked[0]["q"]), (1, &json!("torrent 3")));
    let filter = control::api::types::Filter::default();
    assert_eq!(passing(&server.remote, &filter).unwrap().len(), 25_000);
}

#[test]
fn what_is_ambiguous_is_refused_before_anything_is_done() {
    let server = Server::new();
    let Err(Failure::Usage(error)) = server.targets(&["torrent 1", "0000"], false) else {
        panic!("it is not refused");
    };
    assert!(
        error.to_string().contains("\"0000\" fits 25000 torrents"),
        "{error}"
    );
    for (names, all) in [(&[][..], false), (&["torrent 1"], true)] {
        let refused = server.targets(names, all);
        assert!(names.len() == 1 || matches!(refused, Err(Failure::Usage(_))));
    }
    assert!(server.asked().iter().all(|asked| asked["action"].is_null()));
}

#[test]
fn what_fails_is_counted_and_the_rest_is_done() {
    let server = Server::new();
    let bulk = |names: &[&str]| {
        let targets = server.targets(names, false)?;
        act::bulk(&server.remote, targets, &act::PAUSE, false, None)
    };
    assert!(bulk(&["torrent 1", "torrent 2", "torrent 2"]).is_ok());
    let asked = server.asked();
    let request = asked.last().unwrap();
    assert_eq!(request["action"], "pause");
    assert_eq!(request["torrents"], json!([hash(1), hash(2)]), "each once");
    assert!(request["filter"].is_null() && request["with_data"].is_null());
    let failed = |names: &[&str]| match bulk(names) {
        Err(Failure::Failed(error)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(failed(&["torrent 7"]), "torrent 7: it is busy");
    assert_eq!(
        failed(&["torrent 7", "torrent 1", "nose"]),
        "2 of 3 torrents could not be paused"
    );
    let targets = server.targets(&[], true).unwrap();
    act::bulk(&server.remote, targets, &act::PAUSE, false, None).unwrap();
    let asked = server.asked();
    assert_eq!(
        asked.last().unwrap(),
        &json!({ "action": "pause", "filter": {} })
    );
}
