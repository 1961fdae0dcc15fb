//! Events that are kept until their hooks have been told: settings of the store, written with the
//! change that they tell of, read back at the next start.
//!
//! Limits: [`KEPT_MAX`]; what exceeds it is told, and lost by a crash.

use super::event::{Happened, identity};
use super::{KEPT_MAX, STARTS_MAX};
use ::state::{Handle, ReadError, Write};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// How the names of these settings begin.
const PREFIX: &str = "hook/";

/// An event as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// Starts at which it was read back.
    starts: u32,
    happened: Happened,
}

/// An event that is about to be true: to be written with the change that makes it so, and handed
/// over, or withdrawn, when that has been done or not.
#[derive(Debug)]
pub struct Notice {
    pub(super) id: u64,
    pub(super) happened: Happened,
    /// What the store is to keep; nothing if it is full or this cannot be kept.
    record: Option<Vec<u8>>,
}

impl Notice {
    /// What is written with the change.
    pub fn write(&self) -> Option<Write> {
        let record = self.record.clone()?;
        Some(Write::Setting(key(self.id), Some(record)))
    }

    pub(super) fn is_kept(&self) -> bool {
        self.record.is_some()
    }
}

fn key(id: u64) -> String {
    format!("{PREFIX}{}", identity(id))
}

/// See the module.
pub(super) struct Outbox {
    store: Handle,
    kept: AtomicUsize,
    next_id: AtomicU64,
}

impl Outbox {
    pub(super) fn new(store: Handle) -> Outbox {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        // Higher than those of earlier runs, so that their order is that of time.
        let first = now.unwrap_or_default().as_millis() as u64;
        Outbox {
            store,
            kept: AtomicUsize::new(0),
            next_id: AtomicU64::new(first << 16),
        }
    }

    /// Makes a notice, and takes a place for it if there is one.
    pub(super) fn note(&self, happened: Happened) -> Notice {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let take = |kept| (kept < KEPT_MAX).then_some(kept + 1);
        let (relaxed, kept) = (Ordering::Relaxed, &self.kept);
        let has_place = kept.fetch_update(relaxed, relaxed, take).is_ok();
        let record = has_place.then(|| Kept {
            starts: 0,
            happened: happened.clone(),
        });
        let record = record.and_then(|kept| serde_json::to_vec(&kept).ok());
        if has_place && record.is_none() {
            self.kept.fetch_sub(1, relaxed);
        }
        Notice {
            id,
            happened,
            record,
        }
    }

    /// Forgets an event that was kept.
    pub(super) async fn forget(&self, id: u64) {
        self.kept.fetch_sub(1, Ordering::Relaxed);
        // A failure is the disk's, and has the event told again: nobody misses one.
        let _ = self.store.write(Write::Setting(key(id), None)).await;
    }

    /// The events that an earlier run has left, in their order, with their ids. Those that were
    /// read back too often are forgotten.
    pub(super) async fn left(&self) -> Result<Vec<(u64, Happened)>, ReadError> {
        let settings = self.store.read(|view| view.settings(PREFIX)).await?;
        let (mut left, mut writes) = (Vec::new(), Vec::new());
        for (name, record) in settings {
            let id = name.strip_prefix(PREFIX);
            let id = id.and_then(|id| u64::from_str_radix(id, 16).ok());
            let kept = serde_json::from_slice::<Kept>(&record).ok();
            let (Some(id), Some(mut kept)) = (id, kept) else {
                tracing::warn!(
                    event = name,
                    "what is kept of it cannot be read: no hook is told"
                );
                writes.push(Write::Setting(name, None));
                continue;
            };
            kept.starts += 1;
            if kept.starts > STARTS_MAX {
                tracing::error!(
                    torrent = kept.happened.torrent.info_hash,
                    event = kept.happened.event.name(),
                    "its hooks did not end before the server did, {STARTS_MAX} times: given up"
                );
                writes.push(Write::Setting(name, None));
                continue;
            }
            let record = serde_json::to_vec(&kept).ok();
            writes.push(Write::Setting(name, record.or(Some(Vec::new()))));
            left.push((id, kept.happened));
        }
        self.kept.store(left.len(), Ordering::Relaxed);
        for some in writes_at_once(writes) {
            // Before any hook is told: it may be what ends the server.
            if let Ok(ack) = self.store.submit(some).await {
                let _ = ack.await;
            }
        }
        Ok(left)
    }
}

/// Writes in portions that the store takes.
fn writes_at_once(mut writes: Vec<Write>) -> Vec<Vec<Write>> {
    let mut portions = Vec::new();
    while !writes.is_empty() {
        let rest = writes.split_off(writes.len().min(64));
        portions.push(std::mem::replace(&mut writes, rest));
    }
    portions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::{HookEvent, Subject};
    use ::state::{Options, Store};

    fn happened(name: &str) -> Happened {
        Happened {
            event: HookEvent::Added,
            at_s: 1,
            torrent: Subject {
                name: name.into(),
                save_path: "/x".into(),
                ..Subject::default()
            },
            error: None,
        }
    }

    #[tokio::test]
    async fn what_is_not_forgotten_comes_back_in_its_order_and_not_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Options::default()).unwrap();
        let outbox = Outbox::new(store.handle());
        for name in ["a", "b", "c"] {
            let notice = outbox.note(happened(name));
            store.handle().write(notice.write().unwrap()).await.unwrap();
            if name == "b" {
                outbox.forget(notice.id).await;
            }
        }
        for _ in 0..STARTS_MAX {
            let outbox = Outbox::new(store.handle());
            let left = outbox.left().await.unwrap();
            let names: Vec<_> = left
                .iter()
                .map(|(_, it)| it.torrent.name.as_str())
                .collect();
            assert_eq!(names, ["a", "c"]);
            assert!(outbox.note(happened("d")).id > left[1].0);
        }
        assert!(outbox.left().await.unwrap().is_empty());
        let kept = store.handle().read(|view| view.settings(PREFIX)).await;
        assert!(kept.unwrap().is_empty());
    }

    #[tokio::test]
    async fn no_more_are_kept_than_there_is_room_for() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Options::default()).unwrap();
        let outbox = Outbox::new(store.handle());
        let first = outbox.note(happened("a"));
        let kept = (1..=KEPT_MAX).filter(|_| outbox.note(happened("a")).is_kept());
        assert_eq!(kept.count(), KEPT_MAX - 1);
        outbox.forget(first.id).await;
        assert!(outbox.note(happened("a")).is_kept());
    }
}
