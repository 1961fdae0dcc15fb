//! The file: who may open it, what is refused and why, copies.

use super::{patient, torrent};
use crate::file::{self, FileMedium, STORE_FILE};
use crate::model::{Model, hash};
use crate::tables::{GLOBAL, KEY_SCHEMA};
use crate::{NewTorrent, OpenError, SCHEMA, Store, Summary, Write, backup, check, restore};
use proto::metainfo::Metainfo;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::TempDir;

/// Adds torrents with metainfo that is theirs.
fn fill(directory: &Path, names: std::ops::Range<u32>) {
    let store = Store::open(directory, patient()).unwrap();
    for number in names {
        let name = format!("file{number:06}");
        let pieces = "x".repeat(20 * 50);
        let info = format!(
            "d6:lengthi{}e4:name10:{name}12:piece lengthi16384e6:pieces{}:{pieces}e",
            50 * 16384,
            pieces.len()
        );
        let bytes = format!("d4:info{info}e").into_bytes();
        let metainfo = Metainfo::parse(&bytes).unwrap();
        let new = NewTorrent {
            summary: Summary {
                name,
                pieces: 50,
                files: 1,
                ..Summary::default()
            },
            metainfo: Some(bytes),
            ..NewTorrent::default()
        };
        let write = Write::Add(metainfo.info_hash_v1.unwrap(), Box::new(new));
        store.handle().write_blocking(write).unwrap();
    }
}

fn content(directory: &Path) -> Model {
    let store = Store::open(directory, patient()).unwrap();
    Model::read(&store.handle())
}

#[test]
fn only_one_has_a_store_and_the_other_is_told_who() {
    let directory = TempDir::new().unwrap();
    let store = Store::open(directory.path(), patient()).unwrap();
    let path = directory.path().join(STORE_FILE);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let ours = Some(std::process::id());
    let refused = [
        Store::open(directory.path(), patient()).map(drop),
        check(directory.path()).map(drop),
    ];
    for refused in refused {
        let Err(OpenError::InUse { path: named, pid }) = refused else {
            panic!("two have it: {refused:?}");
        };
        assert_eq!((&named, pid), (&path, ours));
    }
    drop(store);
    Store::open(directory.path(), patient()).unwrap();
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let directory = TempDir::new().unwrap();
    drop(Store::open(directory.path(), patient()).unwrap());
    let path = directory.path().join(STORE_FILE);
    {
        let open = file::open(&FileMedium(path.clone()), 1 << 20, false).unwrap();
        let transaction = open.database.begin_write().unwrap();
        let newer = (SCHEMA + 1).to_le_bytes();
        let mut global = transaction.open_table(GLOBAL).unwrap();
        global.insert(KEY_SCHEMA, newer.as_slice()).unwrap();
        drop(global);
        transaction.commit().unwrap();
    }
    let target = directory.path().join("copy");
    for _ in 0..2 {
        let refused = [
            Store::open(directory.path(), patient()).map(drop),
            check(directory.path()).map(drop),
            backup(directory.path(), &target, false)
                .map(drop)
                .map_err(|error| match error {
                    crate::BackupError::Open(error) => error,
                    other => panic!("{other}"),
                }),
        ];
        for refused in refused {
            let error = refused.unwrap_err();
            assert!(matches!(error, OpenError::Newer { found, .. } if found == SCHEMA + 1));
            let text = error.to_string();
            assert!(
                text.contains(&format!("schema {}", SCHEMA + 1)) && text.contains("restore"),
                "{text}"
            );
        }
    }
    assert!(!target.exists());
}

/// Not even an empty file is taken for a store without torrents: that is one that has lost them.
#[test]
fn a_file_that_is_no_store_is_refused_with_the_cure() {
    let directory = TempDir::new().unwrap();
    fill(directory.path(), 0..50);
    let path = directory.path().join(STORE_FILE);
    let whole = std::fs::read(&path).unwrap();
    let mut no_header = whole.clone();
    no_header[..512].fill(0);
    let files = [
        Vec::new(),
        whole[..whole.len() / 2].to_vec(),
        whole[..100].to_vec(),
        vec![0; 100_000],
        vec![0x5a; 100_000],
        b"something else".to_vec(),
        no_header,
    ];
    for (number, bytes) in files.into_iter().enumerate() {
        std::fs::write(&path, &bytes).unwrap();
        let refused = [
            Store::open(directory.path(), patient()).map(drop),
            check(directory.path()).map(drop),
        ];
        for refused in refused {
            let Err(error @ OpenError::Damaged { .. }) = refused else {
                panic!("file {number}: {refused:?}");
            };
            let text = error.to_string();
            assert!(text.contains("seedring state restore FILE"), "{text}");
        }
    }
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(check(directory.path()).unwrap().torrents, 50);
}

/// Bytes that have changed on the disk are found by the check wherever they matter.
#[test]
fn a_check_finds_every_flipped_byte_that_changes_what_is_read() {
    let directory = TempDir::new().unwrap();
    fill(directory.path(), 0..60);
    let path = directory.path().join(STORE_FILE);
    let whole = std::fs::read(&path).unwrap();
    let report = check(directory.path()).unwrap();
    assert_eq!((report.torrents, report.problems_count), (60, 0));
    let expected = content(directory.path());
    let (mut found, mut harmless) = (0, 0);
    for at in (64..whole.len()).step_by(whole.len() / 150) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x20;
        std::fs::write(&path, &bytes).unwrap();
        match check(directory.path()) {
            Ok(report) if report.problems_count == 0 => {
                assert_eq!(
                    content(directory.path()),
                    expected,
                    "a flip at {at} was not found"
                );
                harmless += 1;
            }
            Ok(_) | Err(OpenError::Damaged { .. }) => found += 1,
            Err(other) => panic!("at {at}: {other}"),
        }
    }
    assert!(found > 20, "{found} found, {harmless} harmless");
}

#[test]
fn records_that_do_not_belong_together_are_problems() {
    let directory = TempDir::new().unwrap();
    fill(directory.path(), 0..3);
    let path = directory.path().join(STORE_FILE);
    {
        use crate::tables::{Tables, stamp_key};
        let open = file::open(&FileMedium(path), 1 << 20, false).unwrap();
        let transaction = open.database.begin_write().unwrap();
        let mut tables = Tables::open(&transaction).unwrap();
        let stranger = hash(9);
        let key = stranger.0.as_slice();
        tables.details.insert(key, [1].as_slice()).unwrap();
        let stamp = stamp_key(&stranger, 0);
        tables
            .stamps
            .insert(stamp.as_slice(), [1].as_slice())
            .unwrap();
        tables.queue.insert([0; 8].as_slice(), key).unwrap();
        let damaged = [0xff].as_slice();
        let summaries = &mut tables.summaries;
        summaries.insert(hash(8).0.as_slice(), damaged).unwrap();
        drop(tables);
        transaction.commit().unwrap();
    }
    let report = check(directory.path()).unwrap();
    let of = |number| {
        let torrent = Some(hash(number));
        let problems = report.problems.iter();
        problems
            .filter(move |problem| problem.info_hash == torrent)
            .count()
    };
    assert_eq!((of(9), of(8)), (3, 1), "{:?}", report.problems);
    assert_eq!(report.problems_count, 4);
    // One torrent's damage does not keep the others from being listed.
    let store = Store::open(directory.path(), patient()).unwrap();
    let page = store.handle().read_blocking(|view| view.torrents(None, 10));
    let page = page.unwrap();
    assert_eq!(page.len(), 4);
    assert_eq!(
        page.iter().filter(|listed| listed.summary.is_err()).count(),
        1
    );
    let write = Write::Update(hash(8), Box::default());
    let refused = store.handle().write_blocking(write);
    assert!(
        matches!(refused, Err(crate::WriteError::Damaged { .. })),
        "{refused:?}"
    );
    store
        .handle()
        .write_blocking(Write::Remove(hash(8)))
        .unwrap();
}

#[test]
fn a_backup_is_restored_and_nothing_is_overwritten_unasked() {
    let (directory, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let copy = other.path().join("copy");
    assert!(
        backup(directory.path(), &copy, false).is_err(),
        "there is no store yet"
    );
    assert!(!directory.path().join(STORE_FILE).exists(), "none is made");
    fill(directory.path(), 0..40);
    let first = content(directory.path());
    let uuid = |directory: &Path| check(directory).unwrap().uuid;
    backup(directory.path(), &copy, false).unwrap();
    let mode = std::fs::metadata(&copy).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(backup(directory.path(), &copy, false).is_err());
    fill(directory.path(), 40..50);
    let second = content(directory.path());
    assert_ne!(first, second);

    // Not over a store, unless asked; then the old one is kept.
    assert!(restore(directory.path(), &copy, false).is_err());
    assert_eq!(content(directory.path()), second);
    let restored = restore(directory.path(), &copy, true).unwrap();
    assert_eq!(restored.torrents, 40);
    assert_eq!(content(directory.path()), first);
    let kept = restored.kept.unwrap();
    let restored = restore(directory.path(), &kept, true).unwrap();
    assert_eq!(content(directory.path()), second);
    assert_ne!(
        restored.kept,
        Some(kept),
        "each is kept by a name of its own"
    );

    // Into an empty directory, and it is the same store.
    let empty = other.path().join("empty");
    let restored = restore(&empty, &copy, false).unwrap();
    assert_eq!((restored.torrents, restored.kept), (40, None));
    assert_eq!(uuid(&empty), uuid(directory.path()));

    // What is no backup changes nothing.
    let before = content(&empty);
    std::fs::write(&copy, b"something else").unwrap();
    for force in [false, true] {
        assert!(restore(&empty, &copy, force).is_err());
    }
    assert!(restore(&empty, &other.path().join("none"), true).is_err());
    assert_eq!(content(&empty), before);
    let left = std::fs::read_dir(&empty).unwrap().flatten();
    let mut left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    left.sort();
    assert_eq!(left, ["store.lock", STORE_FILE]);
}

/// A copy of a store that is being written is one moment of it.
#[test]
fn a_backup_of_a_store_in_use_is_consistent() {
    let directory = TempDir::new().unwrap();
    let store = Store::open(directory.path(), patient()).unwrap();
    let handle = store.handle();
    let copy = directory.path().join("copy");
    let size = handle.read_blocking(|view| {
        for number in 0..10 {
            handle
                .write_blocking(Write::Add(hash(number), torrent(8)))
                .unwrap();
        }
        Ok(crate::backup::copy(view, &copy, false))
    });
    assert!(size.unwrap().unwrap() > 0);
    let second = directory.path().join("second");
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.build().unwrap();
    runtime
        .block_on(handle.backup(second.clone(), false))
        .unwrap();
    let torrents = |copy: &Path| {
        let directory = TempDir::new().unwrap();
        restore(directory.path(), copy, false).unwrap().torrents
    };
    assert_eq!((torrents(&copy), torrents(&second)), (0, 10));
}
