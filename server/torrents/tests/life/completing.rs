//! Hooks are told that all that is wanted of a torrent has come: once, and by the next start if the
//! server ended before.

use super::moves::limit_upload;
use super::*;
use control::hooks::{Argument, HookEvent, Target};
use state::{Update, Write};

/// A hook that writes a line into this file when a torrent is complete.
fn hook(told: &Path) -> Vec<Hook> {
    let command = format!("echo {{event}} >> '{}'", told.display());
    let arguments = ["/bin/sh", "-c", &command].map(|argument| Argument::parse(argument).unwrap());
    vec![Hook {
        on: vec![HookEvent::Completed],
        categories: Vec::new(),
        labels: Vec::new(),
        target: Target::Run(arguments.to_vec()),
        timeout: PATIENCE,
        concurrency: 1,
    }]
}

/// Waits until the file has so many lines, and nothing is kept to be told once more.
async fn until_told(host: &Host, told: &Path, lines: usize) {
    let begun = Instant::now();
    loop {
        let text = fs::read_to_string(told).unwrap_or_default();
        let kept = host.store.handle();
        let kept = kept.read(|view| view.settings("hook/")).await.unwrap();
        if text.lines().count() == lines && kept.is_empty() {
            return assert!(text.lines().all(|line| line == "completed"), "{text}");
        }
        assert!(begun.elapsed() < PATIENCE, "{text}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selection_that_has_come_is_told_though_the_server_ended_before() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    limit_upload(&seed, info_hash, Some(1_000)).await;
    let told = two.path().join("told");
    let host = Host::start_telling(1, two.path(), hook(&told)).await;
    let add = AddTorrent {
        priorities: vec![(1, Priority::SKIP), (2, Priority::SKIP)],
        ..of_file(seed.metainfo(info_hash).await, seed.address())
    };
    host.add(add).await;
    // That it is to be told is kept before it comes.
    host.until(info_hash, |torrent| torrent.summary.completion_untold)
        .await;
    limit_upload(&seed, info_hash, None).await;
    let is_told = |torrent: &Torrent| {
        torrent.live.status == Status::Seeding && !torrent.summary.completion_untold
    };
    let torrent = host.until(info_hash, is_told).await;
    assert!(!torrent.is_complete(), "not all of it is wanted");
    until_told(&host, &told, 1).await;
    host.stop().await;

    // As it is when all pieces are kept, and the server is killed then.
    let store = Store::open(&two.path().join("state"), Options::default()).unwrap();
    let update = Update::new().summary(|summary| summary.completion_untold = true);
    let write = Write::Update(info_hash, Box::new(update));
    store.handle().write_blocking(write).unwrap();
    store.close();
    let host = Host::start_telling(1, two.path(), hook(&told)).await;
    host.until(info_hash, is_told).await;
    until_told(&host, &told, 2).await;
    host.stop().await;

    // Who was told is not told again.
    let host = Host::start_telling(1, two.path(), hook(&told)).await;
    host.until(info_hash, is_told).await;
    host.stop().await;
    seed.stop().await;
    let store = Store::open(&two.path().join("state"), Options::default()).unwrap();
    let kept = store.handle().read_blocking(|view| view.settings("hook/"));
    store.close();
    assert_eq!(kept.unwrap(), []);
    assert_eq!(fs::read_to_string(&told).unwrap().lines().count(), 2);
}
