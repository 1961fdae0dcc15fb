//! What has changed, asked for and told as it happens.

use super::harness::{Bench, bench, hash};
use crate::api::feed::LISTENERS_MAX;
use crate::api::types::Changes;
use seedring_metrics::{ControlCounter, ControlGauge};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn changes(bench: &Bench, query: &str) -> Changes {
    let answer = bench.get(&format!("/changes?{query}")).await;
    assert_eq!(answer.status, 200);
    serde_json::from_value(answer.json()).unwrap()
}

fn changed(changes: &Changes) -> Vec<String> {
    let hashes = changes.changed.iter();
    hashes.map(|torrent| torrent.info_hash.clone()).collect()
}

#[tokio::test]
async fn what_is_new_since_a_revision_is_told_and_nothing_else() {
    let bench = bench(|_| {}).await;
    bench.fill(1..=5);
    let all = changes(&bench, "").await;
    assert_eq!(
        (all.changed.len(), all.has_more, all.begins_anew),
        (5, false, false)
    );
    let none = changes(&bench, &format!("since={}", all.revision)).await;
    assert_eq!((none.changed.len(), none.revision), (0, all.revision));
    bench.seat.change(|catalog| {
        catalog.change(&hash(3), |torrent| torrent.live.peers = 7);
        catalog.remove(&hash(2));
    });
    let new = changes(&bench, &format!("since={}", all.revision)).await;
    assert_eq!(changed(&new), [hash(3).to_string()]);
    assert_eq!(new.changed[0].peers, 7);
    assert_eq!(new.removed, [hash(2).to_string()]);
    // In parts, each of which says where the next begins.
    let (mut since, mut parts) = (0, Vec::new());
    loop {
        let part = changes(&bench, &format!("since={since}&limit=2")).await;
        assert!(part.changed.len() <= 2);
        parts.extend(changed(&part));
        since = part.revision;
        if !part.has_more {
            break;
        }
    }
    let expected = [1, 4, 5, 3].map(|number| hash(number).to_string());
    assert_eq!(parts, expected);
    // A revision of an earlier run, and one that is not there yet.
    for since in [1, new.revision + 1] {
        let anew = changes(&bench, &format!("since={since}")).await;
        assert!(anew.begins_anew);
        assert_eq!(anew.changed.len(), 4);
    }
}

/// One who listens.
struct Listener {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Listener {
    async fn new(bench: &Bench, query: &str, headers: &str) -> Listener {
        let mut stream = bench.connect().await;
        let request = format!(
            "GET /api/v1/events?{query} HTTP/1.1\r\nHost: localhost\r\n\
             Authorization: Bearer {}\r\n{headers}\r\n",
            bench.token
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut listener = Listener {
            stream,
            read: Vec::new(),
        };
        listener.until("\r\n\r\n").await;
        listener
    }

    /// What comes until a mark, with it.
    async fn until(&mut self, mark: &str) -> String {
        loop {
            let text = String::from_utf8_lossy(&self.read).into_owned();
            if let Some(end) = text.find(mark) {
                let end = end + mark.len();
                self.read.drain(..end);
                return text[..end].to_owned();
            }
            let mut part = [0; 4096];
            let length = self.stream.read(&mut part).await.unwrap();
            assert!(length > 0, "the events ended: {text}");
            self.read.extend_from_slice(&part[..length]);
        }
    }

    /// The next event, and its id.
    async fn next(&mut self) -> (u64, Changes) {
        let event = self.until("\n\n").await;
        assert!(event.contains("event: change\n"), "{event}");
        let field = |name: &str| {
            let mut lines = event.lines();
            lines.find_map(|line| line.strip_prefix(name)).unwrap()
        };
        let changes: Changes = serde_json::from_str(field("data: ")).unwrap();
        let id = field("id: ");
        // Behind a point is what a reader has to bring that is told of all torrents in parts.
        let (revision, begun) = match id.split_once('.') {
            None => (id, None),
            Some((revision, begun)) => (revision, Some(begun.parse().unwrap())),
        };
        let revision: u64 = revision.parse().unwrap();
        assert_eq!((revision, begun), (changes.revision, changes.begun));
        (revision, changes)
    }
}

#[tokio::test]
async fn changes_are_told_as_they_happen_and_again_from_where_one_stopped() {
    let bench = bench(|_| {}).await;
    bench.fill(1..=3);
    let mut listener = Listener::new(&bench, "", "").await;
    let (first, all) = listener.next().await;
    assert_eq!(all.changed.len(), 3);
    assert_eq!(bench.cells.gauge(ControlGauge::ApiListeners), 1);
    // Many changes of one torrent are one.
    for peers in 1..=10 {
        bench.seat.change(|catalog| {
            catalog.change(&hash(2), |torrent| torrent.live.peers = peers);
        });
    }
    let (second, changes) = listener.next().await;
    assert_eq!(changed(&changes), [hash(2).to_string()]);
    assert_eq!(changes.changed[0].peers, 10);
    assert!(second > first);
    bench.seat.change(|catalog| catalog.remove(&hash(1)));
    let (third, changes) = listener.next().await;
    assert_eq!(changes.removed, [hash(1).to_string()]);
    drop(listener);
    // Its place is free again.
    while bench.cells.gauge(ControlGauge::ApiListeners) > 0 {
        tokio::task::yield_now().await;
    }
    let resumed = format!("Last-Event-ID: {first}\r\n");
    let mut listener = Listener::new(&bench, "since=0", &resumed).await;
    let (id, changes) = listener.next().await;
    assert_eq!((id, changes.begins_anew), (third, false));
    assert_eq!(changed(&changes), [hash(2).to_string()]);
    assert_eq!(changes.removed, [hash(1).to_string()]);
    let mut listener = Listener::new(&bench, &format!("since={third}"), "").await;
    bench.fill([9]);
    let (_, changes) = listener.next().await;
    assert_eq!(changed(&changes), [hash(9).to_string()]);
}

/// All torrents, in parts that do not wait for each other.
#[tokio::test]
async fn what_is_more_than_an_event_comes_in_the_next() {
    let bench = bench(|_| {}).await;
    bench.fill(1..=100);
    let mut listener = Listener::new(&bench, "limit=3", "").await;
    let (mut told, mut since) = (Vec::new(), 0);
    while told.len() < 100 {
        let (id, changes) = listener.next().await;
        assert!(id > since && changes.changed.len() <= 3);
        told.extend(changed(&changes));
        since = id;
    }
    let all: Vec<_> = (1..=100).map(|number| hash(number).to_string()).collect();
    assert_eq!(told, all);
}

#[tokio::test]
async fn there_are_places_for_so_many_who_listen() {
    let bench = bench(|_| {}).await;
    let mut listeners = Vec::new();
    for _ in 0..LISTENERS_MAX {
        listeners.push(Listener::new(&bench, "", "").await);
    }
    let refused = bench.get("/events").await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.problem().0, "unavailable");
    assert_eq!(refused.header("retry-after"), Some("30"));
    assert_eq!(bench.cells.counter(ControlCounter::ApiRefusedListener), 1);
    listeners.pop();
    while bench.get("/torrents").await.status == 200
        && bench.cells.gauge(ControlGauge::ApiListeners) == LISTENERS_MAX as u64
    {}
    listeners.push(Listener::new(&bench, "", "").await);
    let malformed = bench
        .send(
            "GET /events",
            &format!(
                "Authorization: Bearer {}\r\nLast-Event-ID: x\r\n",
                bench.token
            ),
            b"",
        )
        .await;
    assert_eq!(malformed.problem().0, "malformed");
}

/// The server ends, and nobody who listens keeps it.
#[tokio::test]
async fn events_end_with_the_server() {
    let bench = bench(|_| {}).await;
    let mut listener = Listener::new(&bench, "", "").await;
    bench.stop().await;
    let mut rest = Vec::new();
    let _ = listener.stream.read_to_end(&mut rest).await;
}
