//! Watches begin and end whatever the state disk does.

use super::*;
use crate::command::{Command, pair};
use ::state::{Options, Store, limits::VIEWS_MAX};
use seedring_metrics::Registry;
use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::sync::mpsc;

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn entry(folder: &Path) -> WatchEntry {
    let mut entry = WatchEntry::default();
    entry.path.0 = Some(folder.to_owned());
    entry
}

/// Has all that read the store wait, as where its disk hangs, until this is dropped.
async fn hang(store: &Store) -> Vec<mpsc::Sender<()>> {
    let mut held = Vec::new();
    for _ in 0..VIEWS_MAX {
        let (release, hangs) = mpsc::channel::<()>();
        let (begun, begins) = tokio::sync::oneshot::channel();
        let handle = store.handle();
        tokio::spawn(async move {
            let look = move |_: &::state::View| {
                let _ = begun.send(());
                let _ = hangs.recv();
                Ok(())
            };
            handle.read(look).await
        });
        begins.await.unwrap();
        held.push(release);
    }
    held
}

/// Who starts a watch minds signals and faults: neither its beginning nor its end waits for the
/// state disk. It begins when that answers.
#[tokio::test]
async fn a_watch_waits_for_the_state_disk_and_nobody_for_the_watch() {
    let folder = tempfile::tempdir().unwrap();
    let watched = folder.path().join("in");
    fs::create_dir(&watched).unwrap();
    let link = "magnet:?xt=urn:btih:0123456789abcdef0123456789abcdef01234567\n";
    fs::write(watched.join("a.magnet"), link).unwrap();
    let store = Store::open(folder.path(), Options::default()).unwrap();
    let cells = Registry::new(1).control();
    let (server, mut seat) = pair();
    let start = |before| {
        let (store, cells) = (store.handle(), Arc::clone(&cells));
        Watching::start(vec![entry(&watched)], server.clone(), store, cells, before)
    };
    let held = hang(&store).await;
    let first = start(None);
    first.stop().await;
    let ended = tokio::time::timeout(PATIENCE, first.stop.closed()).await;
    assert!(ended.is_ok(), "its end waits for the disk");
    let second = start(Some(first));
    let third = start(Some(second));
    drop(held);
    let asked = tokio::time::timeout(PATIENCE, seat.commands.recv()).await;
    assert!(matches!(asked, Ok(Some(Command::Add(..)))), "{asked:?}");
    third.stop().await;
}

#[tokio::test]
async fn what_cannot_be_read_is_read_again() {
    let tries = Cell::new(0);
    let attempt = || {
        tries.set(tries.get() + 1);
        let result = match tries.get() {
            1 | 2 => Err("the disk fails"),
            _ => Ok("read"),
        };
        std::future::ready(result)
    };
    assert_eq!(until_done(attempt, Duration::from_millis(1)).await, "read");
    assert_eq!(tries.get(), 3);
}
