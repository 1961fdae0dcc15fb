//! Files that stay where they are though their torrents were added, or though they are none: they
//! are not to be added again when the user has removed the torrent, also after a restart.
//!
//! A file is known by its path, its length and its time. Numbers of devices and inodes are left
//! out: of many file systems they are others after each mount.
//!
//! Kept in the store as [`BUCKETS`] settings, so that one more file writes a small part of them.
//! Limits: [`BUCKET_FILES_MAX`] in each; when one is full its files are remembered by nobody, and
//! may be added again after a restart.

use super::spot::Stamp;
use ::state::{Handle, Write};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use tokio::sync::Mutex;

/// How the names of the settings begin.
const PREFIX: &str = "watch/seen/";

/// Parts in which files are kept.
const BUCKETS: usize = 16;

/// Files in each part.
const BUCKET_FILES_MAX: usize = 4096;

/// Bytes of a watch and of a file in it.
const WATCH_BYTES: usize = 4;
const KEY_BYTES: usize = 16;

/// A file of a watch.
pub(super) type Key = [u8; KEY_BYTES];

/// The key of a file.
pub(super) fn key(root: &Path, path: &Path, stamp: Stamp) -> Key {
    let mut hash = Sha256::new();
    hash.update(path.as_os_str().as_bytes());
    hash.update([0]);
    hash.update(stamp.bytes.to_le_bytes());
    hash.update(stamp.changed_ns.to_le_bytes());
    let hash = hash.finalize();
    let mut key = [0; KEY_BYTES];
    key[..WATCH_BYTES].copy_from_slice(&of_watch(root));
    key[WATCH_BYTES..].copy_from_slice(&hash[..KEY_BYTES - WATCH_BYTES]);
    key
}

fn of_watch(root: &Path) -> [u8; WATCH_BYTES] {
    let hash = Sha256::digest(root.as_os_str().as_bytes());
    [hash[0], hash[1], hash[2], hash[3]]
}

fn bucket(key: &Key) -> usize {
    usize::from(key[WATCH_BYTES]) % BUCKETS
}

/// See the module.
pub(super) struct Seen {
    store: Handle,
    buckets: Mutex<Vec<BTreeSet<Key>>>,
}

impl Seen {
    /// Reads what is kept.
    pub(super) async fn read(store: Handle) -> Seen {
        let mut buckets = vec![BTreeSet::new(); BUCKETS];
        match store.read(|view| view.settings(PREFIX)).await {
            Ok(settings) => {
                for (_, keys) in settings {
                    for key in keys.chunks_exact(KEY_BYTES) {
                        let mut whole = [0; KEY_BYTES];
                        whole.copy_from_slice(key);
                        buckets[bucket(&whole)].insert(whole);
                    }
                }
            }
            Err(error) => {
                tracing::error!(%error, "which files of watch folders were added is not known");
            }
        }
        let buckets = Mutex::new(buckets);
        Seen { store, buckets }
    }

    /// Whether a file is known.
    pub(super) async fn has(&self, key: &Key) -> bool {
        self.buckets.lock().await[bucket(key)].contains(key)
    }

    /// Remembers a file; durable on return, unless there is no room or the disk fails, which is
    /// logged.
    pub(super) async fn insert(&self, key: Key) {
        let at = bucket(&key);
        let mut buckets = self.buckets.lock().await;
        if buckets[at].len() >= BUCKET_FILES_MAX {
            tracing::warn!(
                "too many files stay in watch folders: one more is added again after a \
                restart if its torrent was removed; clear the folders"
            );
            return;
        }
        if !buckets[at].insert(key) {
            return;
        }
        let write = write(at, &buckets[at]);
        // Handed over in the order of the changes; waited for beside others.
        let ack = self.store.submit(vec![write]).await;
        drop(buckets);
        let written = match ack {
            Ok(ack) => ack.await.into_iter().next().unwrap_or(Ok(())),
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            tracing::warn!(%error, "a file that stays in a watch folder is not remembered");
        }
    }

    /// Forgets the files of a watch that are not among `present`. Where none of them is present all
    /// are kept: more likely a mount is missing than all of its files are.
    pub(super) async fn retain(&self, root: &Path, present: &BTreeSet<Key>) {
        let watch = of_watch(root);
        let mut buckets = self.buckets.lock().await;
        let is_of = |key: &&Key| key[..WATCH_BYTES] == watch;
        let mut known = buckets.iter().flatten().filter(is_of);
        if !known.any(|key| present.contains(key)) {
            return;
        }
        let mut writes = Vec::new();
        for (at, keys) in buckets.iter_mut().enumerate() {
            let before = keys.len();
            keys.retain(|key| !is_of(&key) || present.contains(key));
            if keys.len() != before {
                writes.push(write(at, keys));
            }
        }
        if writes.is_empty() {
            return;
        }
        let ack = self.store.submit(writes).await;
        drop(buckets);
        if let Ok(ack) = ack {
            // What is not forgotten now is at the next time.
            let _ = ack.await;
        }
    }
}

fn write(at: usize, keys: &BTreeSet<Key>) -> Write {
    let bytes: Vec<u8> = keys.iter().flatten().copied().collect();
    let value = (!bytes.is_empty()).then_some(bytes);
    Write::Setting(format!("{PREFIX}{at:x}"), value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::state::{Options, Store};

    fn stamp(bytes: u64) -> Stamp {
        Stamp {
            device: 1,
            inode: bytes,
            bytes,
            changed_ns: 5,
        }
    }

    #[tokio::test]
    async fn files_that_stay_are_known_after_a_restart_and_forgotten_when_they_are_gone() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Options::default()).unwrap();
        let root = Path::new("/watch");
        let key_of = |root: &Path, number: u64| {
            key(root, Path::new(&format!("{number}.torrent")), stamp(number))
        };
        let seen = Seen::read(store.handle()).await;
        for number in 0..100 {
            seen.insert(key_of(root, number)).await;
        }
        let other = Path::new("/other");
        seen.insert(key_of(other, 1)).await;
        drop(seen);
        let seen = Seen::read(store.handle()).await;
        for number in 0..100 {
            assert!(seen.has(&key_of(root, number)).await);
        }
        assert!(!seen.has(&key_of(root, 100)).await);
        // The file systems's numbers are of no account, length and time are.
        let moved = Stamp {
            device: 9,
            inode: 9,
            ..stamp(3)
        };
        assert!(seen.has(&key(root, Path::new("3.torrent"), moved)).await);
        let written = Stamp {
            changed_ns: 6,
            ..stamp(3)
        };
        assert!(!seen.has(&key(root, Path::new("3.torrent"), written)).await);
        // Nothing of it is there: it is not mounted.
        seen.retain(root, &BTreeSet::from([key_of(root, 100)]))
            .await;
        assert!(seen.has(&key_of(root, 50)).await);
        seen.retain(root, &BTreeSet::from([key_of(root, 50)])).await;
        drop(seen);
        let seen = Seen::read(store.handle()).await;
        assert!(seen.has(&key_of(root, 50)).await && seen.has(&key_of(other, 1)).await);
        assert!(!seen.has(&key_of(root, 51)).await);
    }

    #[tokio::test]
    async fn there_is_an_end_to_what_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Options::default()).unwrap();
        let seen = Seen::read(store.handle()).await;
        {
            let mut buckets = seen.buckets.lock().await;
            for number in 0..BUCKET_FILES_MAX as u64 {
                let mut key = [0; KEY_BYTES];
                key[8..].copy_from_slice(&number.to_be_bytes());
                buckets[0].insert(key);
            }
        }
        let one_more = [0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        seen.insert(one_more).await;
        assert!(!seen.has(&one_more).await);
    }
}
