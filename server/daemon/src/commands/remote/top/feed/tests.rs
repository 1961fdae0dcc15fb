//! The feed against a server that goes away and comes back.

use super::*;
use crate::client::Place;
use crate::commands::remote::columns::tests::torrent;
use axum::Router;
use axum::extract::RawQuery;
use axum::routing::{get, post};
use serde_json::json;
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// Longest wait for an event.
const LONG: Duration = Duration::from_secs(60);

/// A server whose one torrent has this name, and which was never asked before.
fn serve(path: &Path, name: &'static str) -> JoinHandle<()> {
    let _ = std::fs::remove_file(path);
    let listener = tokio::net::UnixListener::bind(path).unwrap();
    let changes = move |RawQuery(query): RawQuery| async move {
        let changes = Changes {
            revision: 5,
            begun: None,
            begins_anew: !query.unwrap_or_default().contains("since=0&"),
            has_more: false,
            changed: vec![torrent(&"a".repeat(40), name)],
            removed: Vec::new(),
        };
        serde_json::to_string(&changes).unwrap()
    };
    let server = || async {
        json!({
            "version": "0.1.0", "commit": "abc", "uptime_s": 1, "peer_port": 1, "revision": 5,
            "torrents": 1, "by_status": {}, "total_bytes": 1, "uploaded_bytes": 0,
            "downloaded_bytes": 0, "uploaded_session_bytes": 0, "downloaded_session_bytes": 0, "upload_rate": 0, "download_rate": 0
        })
        .to_string()
    };
    let pieces = || async { r#"{"count":9,"verified_count":8,"verified":"/wA="}"# };
    let act = |body: String| async move {
        let problem = json!({ "type": "x", "title": "t", "status": 409, "detail": "busy" });
        match body.contains("\"recheck\"") {
            true => json!({ "done": 0, "failed_total": 1,
                "failed": [{ "info_hash": "a", "problem": problem }] }),
            false => json!({ "done": 1, "failed_total": 0, "failed": [] }),
        }
        .to_string()
    };
    let router = Router::new()
        .route("/api/v1/changes", get(changes))
        .route("/api/v1/server", get(server))
        .route("/api/v1/torrents/{hash}/pieces", get(pieces))
        .route("/api/v1/torrents/actions", post(act));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() })
}

/// Waits for an event that is wanted.
fn wait<T>(heard: &Receiver<Event>, wanted: impl Fn(Event) -> Option<T>) -> T {
    loop {
        if let Some(found) = wanted(heard.recv_timeout(LONG).unwrap()) {
            return found;
        }
    }
}

fn name_and_anew(event: Event) -> Option<(String, bool)> {
    match event {
        Event::Changes(changes) => Some((changes.changed[0].name.clone(), changes.begins_anew)),
        _ => None,
    }
}

#[test]
fn a_server_that_was_started_anew_is_followed_again() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("api.sock");
    // The server's own: it ends with all its connections.
    let old = tokio::runtime::Runtime::new().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let guard = old.enter();
    serve(&path, "before");
    drop(guard);
    let client = Client::new(Place::Socket(path.clone()), None, None).unwrap();
    let (events, heard) = sync_channel(64);
    let (watching, watched) = watch::channel(None);
    runtime.spawn(follow(client, events, watched));
    assert_eq!(wait(&heard, name_and_anew), ("before".into(), false));
    watching.send_replace(Some(("a".repeat(40), Tab::Pieces)));
    let there = wait(&heard, |event| match event {
        Event::Detail(_, Part::Pieces(map)) => Some((map.count, map.there())),
        _ => None,
    });
    assert_eq!(there, (9, 8));
    // What this server does not know is told once.
    watching.send_replace(Some(("a".repeat(40), Tab::Files)));
    old.shutdown_timeout(LONG);
    let why = wait(&heard, |event| match event {
        Event::Lost(why) => Some(why),
        _ => None,
    });
    assert!(why.contains("api.sock"), "{why}");
    let guard = runtime.enter();
    serve(&path, "after");
    drop(guard);
    assert_eq!(wait(&heard, name_and_anew), ("after".into(), true));
    drop(heard);
}

#[test]
fn what_was_asked_for_is_told_when_it_is_done_or_not() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("api.sock");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let guard = runtime.enter();
    serve(&path, "x");
    drop(guard);
    let client = Client::new(Place::Socket(path), None, None).unwrap();
    let (events, heard) = sync_channel(64);
    let (asking, asked) = mpsc::channel(8);
    runtime.spawn(work(client, events, asked));
    let act = |action| Request::Act {
        action,
        torrents: vec!["a".to_owned()],
        with_data: false,
    };
    for request in [
        act(BulkAction::Pause),
        act(BulkAction::Recheck),
        Request::Add("/no/such/file.torrent".to_owned()),
    ] {
        asking.blocking_send(request).unwrap();
    }
    let next = || match heard.recv_timeout(LONG).unwrap() {
        Event::Done(text) => Ok(text),
        Event::Failed(text) => Err(text),
        other => panic!("{other:?}"),
    };
    assert_eq!(next(), Ok("paused 1 torrent".to_owned()));
    assert_eq!(
        next(),
        Err("rechecking 0 torrents, 1 failure: busy".to_owned())
    );
    assert!(next().unwrap_err().contains("cannot read"), "of this side");
}

#[test]
fn a_telling_that_begins_anew_is_shown_when_it_is_whole() {
    let part = |names: &[&str], removed: &[&str], begins_anew, has_more| Changes {
        begins_anew,
        has_more,
        changed: names.iter().map(|name| torrent(name, name)).collect(),
        removed: removed.iter().map(ToString::to_string).collect(),
        ..Changes::default()
    };
    let names = |changes: &Changes| -> Vec<String> {
        changes.changed.iter().map(|one| one.name.clone()).collect()
    };
    let mut told = Told::default();
    // The first telling is shown as it comes.
    let shown = told.take(part(&["a"], &[], false, true)).unwrap();
    assert_eq!(names(&shown), ["a"]);
    assert!(told.take(part(&["a", "b"], &[], true, true)).is_none());
    assert!(told.take(part(&["c"], &["b"], false, true)).is_none());
    let shown = told.take(part(&["d", "b"], &[], false, false)).unwrap();
    assert!(shown.begins_anew && shown.removed.is_empty());
    assert_eq!(names(&shown), ["a", "c", "d", "b"]);
    let shown = told.take(part(&[], &["a"], false, false)).unwrap();
    assert_eq!(shown.removed, ["a"]);
}
