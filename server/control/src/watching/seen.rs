//! Files that stay where they are though their torrents were added, or though they are none: they
//! are not to be added again when the user has removed the torrent, also after a restart.
//!
//! A file is known by its path, its length and its time. Numbers of devices and inodes are left
//! out: of many file systems they are others after each mount.
//!
//! A file that has gone is forgotten when it has been away for [`AWAY`], and no folder of its watch
//! hid anything meanwhile: a mount in the middle of a watch may be missing, or not answer, and its
//! files come back as they were.
//!
//! Kept in the store as [`BUCKETS`] settings, so that one more file writes a small part of them.
//! Since when a file is away is not: a restart begins it anew. Limits: [`BUCKET_FILES_MAX`] in
//! each; when one is full the file that has been away for the longest makes room, and if all are
//! there the new one is not remembered, and may be added again after a restart.

use super::spot::Stamp;
use ::state::{Handle, ReadError, Write};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How the names of the settings begin.
const PREFIX: &str = "watch/seen/";

/// Parts in which files are kept.
const BUCKETS: usize = 16;

/// Files in each part.
const BUCKET_FILES_MAX: usize = 4096;

/// How long a file must have been away until it is forgotten.
const AWAY: Duration = Duration::from_secs(24 * 60 * 60);

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

/// Files that are remembered, and since when they are away; none where they are there, or where
/// that has not been looked at yet.
type Bucket = BTreeMap<Key, Option<Instant>>;

/// See the module.
pub(super) struct Seen {
    store: Handle,
    buckets: Mutex<Vec<Bucket>>,
}

impl Seen {
    /// Reads what is kept.
    ///
    /// # Errors
    ///
    /// The store cannot be read. Nothing may be watched then: all files would be taken for new.
    pub(super) async fn read(store: Handle) -> Result<Seen, ReadError> {
        let settings = store.read(|view| view.settings(PREFIX)).await?;
        let mut buckets = vec![Bucket::new(); BUCKETS];
        for (_, keys) in settings {
            for key in keys.chunks_exact(KEY_BYTES) {
                let mut whole = [0; KEY_BYTES];
                whole.copy_from_slice(key);
                buckets[bucket(&whole)].insert(whole, None);
            }
        }
        let buckets = Mutex::new(buckets);
        Ok(Seen { store, buckets })
    }

    /// Whether a file is known.
    pub(super) async fn has(&self, key: &Key) -> bool {
        self.buckets.lock().await[bucket(key)].contains_key(key)
    }

    /// Remembers a file; durable on return, unless there is no room or the disk fails, which is
    /// logged.
    pub(super) async fn insert(&self, key: Key) {
        let at = bucket(&key);
        let mut buckets = self.buckets.lock().await;
        if buckets[at].contains_key(&key) {
            return;
        }
        if !make_room(&mut buckets[at]) {
            tracing::warn!(
                "too many files stay in watch folders: one more is added again after a \
                restart if its torrent was removed; clear the folders"
            );
            return;
        }
        buckets[at].insert(key, None);
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

    /// Takes note of which files of a watch are there, and forgets those that have been away for
    /// [`AWAY`]. If it `is_known` only what is there, not what is not, none becomes older. Where
    /// none of them is present all are kept: more likely a mount is missing than all of its files
    /// are.
    pub(super) async fn looked(
        &self,
        root: &Path,
        present: &BTreeSet<Key>,
        is_known: bool,
        now: Instant,
    ) {
        let watch = of_watch(root);
        let mut buckets = self.buckets.lock().await;
        let is_of = |key: &Key| key[..WATCH_BYTES] == watch;
        let mut known = buckets.iter().flat_map(Bucket::keys);
        if !known.any(|key| is_of(key) && present.contains(key)) {
            return;
        }
        let mut writes = Vec::new();
        for (at, keys) in buckets.iter_mut().enumerate() {
            let before = keys.len();
            keys.retain(|key, away| {
                if !is_of(key) {
                    return true;
                }
                if present.contains(key) {
                    *away = None;
                    return true;
                }
                !is_known || now - *away.get_or_insert(now) < AWAY
            });
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

/// Sees to it that one more file can be remembered; false if it cannot.
fn make_room(keys: &mut Bucket) -> bool {
    if keys.len() < BUCKET_FILES_MAX {
        return true;
    }
    let away = keys.iter().filter_map(|(key, away)| Some(((*away)?, *key)));
    let longest = away.min().map(|(_, key)| key);
    longest.is_some_and(|key| keys.remove(&key).is_some())
}

fn write(at: usize, keys: &Bucket) -> Write {
    let bytes: Vec<u8> = keys.keys().flatten().copied().collect();
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
    async fn files_that_stay_are_known_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Options::default()).unwrap();
        let (handle, root) = (store.handle(), Path::new("/watch"));
        let key_of = |root: &Path, number: u64| {
            key(root, Path::new(&format!("{number}.torrent")), stamp(number))
        };
        let seen = Seen::read(store.handle()).await.unwrap();
        for number in 0..100 {
            seen.insert(key_of(root, number)).await;
        }
        let other = Path::new("/other");
        seen.insert(key_of(other, 1)).await;
        drop(seen);
        let seen = Seen::read(store.handle()).await.unwrap();
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
        drop(store);
        assert!(
            Seen::read(handle).await.is_err(),
            "what is not known is not nothing"
        );
    }

    #[tokio::test]
    async fn a_file_that_has_gone_is_forgotten_when_that_is_sure() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Options::default()).unwrap();
        let (root, other) = (Path::new("/watch"), Path::new("/other"));
        let key_of = |root: &Path, number: u64| {
            key(root, Path::new(&format!("{number}.torrent")), stamp(number))
        };
        let seen = Seen::read(store.handle()).await.unwrap();
        for number in 0..4 {
            seen.insert(key_of(root, number)).await;
        }
        seen.insert(key_of(other, 1)).await;
        let begin = Instant::now();
        let at = |hours: u32| begin + Duration::from_secs(3600) * hours;
        let looked = async |numbers: &[u64], is_known: bool, hours: u32| {
            let keys = numbers.iter().map(|number| key_of(root, *number));
            seen.looked(root, &keys.collect(), is_known, at(hours))
                .await;
        };
        let has = async |number: u64| seen.has(&key_of(root, number)).await;
        // A mount in the middle of the watch is missing, and 0 beside it is there.
        looked(&[0], true, 0).await;
        looked(&[0], true, 23).await;
        assert!(has(1).await && has(2).await && has(3).await);
        // It is back, without 3, and goes again: what was there counts anew.
        looked(&[0, 1, 2], true, 23).await;
        looked(&[0], true, 30).await;
        assert!(has(1).await && has(2).await && !has(3).await);
        // It does not answer: as long as that is so nobody knows what is gone.
        looked(&[0], false, 60).await;
        assert!(has(1).await && has(2).await);
        looked(&[0, 1], true, 61).await;
        assert!(has(1).await && !has(2).await);
        // Nothing of it is there: the whole watch is not mounted.
        looked(&[7], true, 62).await;
        looked(&[7], true, 99).await;
        assert!(has(0).await && has(1).await);
        drop(seen);
        let seen = Seen::read(store.handle()).await.unwrap();
        assert!(seen.has(&key_of(root, 0)).await && seen.has(&key_of(other, 1)).await);
        assert!(!seen.has(&key_of(root, 2)).await && !seen.has(&key_of(root, 3)).await);
    }

    #[tokio::test]
    async fn there_is_an_end_to_what_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Options::default()).unwrap();
        let seen = Seen::read(store.handle()).await.unwrap();
        {
            let mut buckets = seen.buckets.lock().await;
            for number in 0..BUCKET_FILES_MAX as u64 {
                let mut key = [0; KEY_BYTES];
                key[8..].copy_from_slice(&number.to_be_bytes());
                buckets[0].insert(key, None);
            }
        }
        let one_more = [0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        seen.insert(one_more).await;
        assert!(!seen.has(&one_more).await);
        // Two have gone, and the first of them makes room.
        let number = |number: u64| {
            let mut key = [0; KEY_BYTES];
            key[8..].copy_from_slice(&number.to_be_bytes());
            key
        };
        {
            let mut buckets = seen.buckets.lock().await;
            let now = Instant::now();
            let later = now + Duration::from_secs(1);
            buckets[0].insert(number(3), Some(later));
            buckets[0].insert(number(9), Some(now));
        }
        seen.insert(one_more).await;
        assert!(seen.has(&one_more).await && !seen.has(&number(9)).await);
        assert!(seen.has(&number(3)).await);
    }
}
