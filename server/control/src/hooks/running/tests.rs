//! Hooks that give way to others while events wait for them.

use super::*;
use crate::hooks::Webhook;
use ::state::{Options, Store, Summary};
use seedring_metrics::Registry;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn hook(target: Target, concurrency: usize) -> Hook {
    Hook {
        on: HookEvent::ALL.to_vec(),
        categories: Vec::new(),
        labels: Vec::new(),
        target,
        timeout: PATIENCE,
        concurrency,
    }
}

fn torrent(number: u8) -> Torrent {
    Torrent {
        info_hash: InfoHashV1([number; 20]),
        summary: Summary {
            name: format!("number {number}"),
            ..Summary::default()
        },
        totals: Default::default(),
        pieces_verified: 0,
        live: Default::default(),
    }
}

fn is_whole(request: &str) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else {
        return false;
    };
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    let length = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    body.len() >= length.unwrap().1.parse().unwrap()
}

/// Takes a request: the connection, and the event that it tells of.
async fn request(listener: &TcpListener) -> (TcpStream, String) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !is_whole(&text) {
        let length = stream.read(&mut buffer).await.unwrap();
        assert!(length > 0, "it ended: {text}");
        text.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
    }
    (stream, text)
}

async fn answer(mut stream: TcpStream) {
    let answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
    stream.write_all(answer).await.unwrap();
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < end, "{what} in vain");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What waits for a webhook is posted to it also when the configuration has no webhook any more,
/// and is forgotten only then.
#[tokio::test]
async fn what_waits_for_a_webhook_is_told_after_a_reload_without_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Options::default()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let webhook = Target::Post(Webhook {
        url: format!("http://{address}/").parse().unwrap(),
        secret: None,
        token: None,
    });
    let cells = Registry::new(1).control();
    let all = vec![hook(webhook, 1)];
    let started = Hooks::start(all, &[], store.handle(), Arc::clone(&cells)).await;
    let hooks = started.unwrap();
    for number in 1..=3 {
        let notice = hooks.note(&torrent(number), HookEvent::Added, 1, None);
        let notice = notice.unwrap();
        store.handle().write(notice.write().unwrap()).await.unwrap();
        hooks.happened(notice);
    }
    let (first, told) = request(&listener).await;
    assert!(told.contains("number 1"), "{told}");
    hooks.replace(Vec::new(), &[]).unwrap();
    answer(first).await;
    for number in 2..=3 {
        let waited = tokio::time::timeout(PATIENCE, request(&listener)).await;
        let (stream, told) = waited.expect("it is never told");
        assert!(told.contains(&format!("number {number}")), "{told}");
        answer(stream).await;
    }
    until("all are told", async || {
        cells.counter(ControlCounter::HooksOk) == 3
    })
    .await;
    assert_eq!(cells.counter(ControlCounter::HooksFailed), 0);
    until("they are forgotten", async || {
        let kept = store.handle().read(|view| view.settings("hook/")).await;
        kept.unwrap().is_empty()
    })
    .await;
}

/// An event that comes while hooks are replaced is told either these or those; none stays with a
/// hook that has ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_event_stays_with_a_hook_that_has_ended() {
    const EVENTS: usize = 300;
    // So many that it takes a while to hand an event to all of them.
    const HOOKS: usize = 100;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Options::default()).unwrap();
    let cells = Registry::new(1).control();
    // A program without a name fails at once, which is as good as any.
    let all = || vec![hook(Target::Run(Vec::new()), 4); HOOKS];
    let started = Hooks::start(all(), &[], store.handle(), Arc::clone(&cells)).await;
    let hooks = started.unwrap();
    let teller = hooks.clone();
    let telling = tokio::task::spawn_blocking(move || {
        for number in 0..EVENTS {
            let torrent = torrent((number % 200) as u8);
            let happened = Happened::to(&torrent, HookEvent::Added, 1, None);
            teller.tell(number as u64, happened, false);
        }
    });
    while !telling.is_finished() {
        hooks.replace(all(), &[]).unwrap();
        tokio::task::yield_now().await;
    }
    telling.await.unwrap();
    until("all are told", async || {
        let dropped = cells.counter(ControlCounter::HookEventsDropped);
        let failed = cells.counter(ControlCounter::HooksFailed);
        (dropped, failed) == (0, (EVENTS * HOOKS) as u64)
    })
    .await;
    assert_eq!(cells.gauge(ControlGauge::HookEventsWaiting), 0);
    hooks.stop().await;
}

/// While an event is handed to one hook after another none of them can give way to another: it
/// might end before it has the event.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_hook_retires_while_an_event_is_handed_over() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Options::default()).unwrap();
    let cells = Registry::new(1).control();
    let all = vec![hook(Target::Run(Vec::new()), 1); 2];
    let started = Hooks::start(all, &[], store.handle(), Arc::clone(&cells)).await;
    let hooks = started.unwrap();
    let first = Arc::clone(&hooks.lines()[0]);
    let teller = hooks.clone();
    let telling = {
        let _held = first.chains();
        let telling = tokio::task::spawn_blocking(move || {
            let happened = Happened::to(&torrent(1), HookEvent::Added, 1, None);
            teller.tell(1, happened, false);
        });
        let end = Instant::now() + PATIENCE;
        while cells.gauge(ControlGauge::HookEventsWaiting) == 0 {
            assert!(Instant::now() < end, "it is not handed over");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(hooks.0.lines.try_write().is_err());
        telling
    };
    telling.await.unwrap();
    assert!(hooks.0.lines.try_write().is_ok());
    until("both are told", async || {
        cells.counter(ControlCounter::HooksFailed) == 2
    })
    .await;
}
