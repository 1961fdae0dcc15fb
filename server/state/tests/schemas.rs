//! A store of each schema that there has been, as its version wrote it: each is read, and says what
//! it always said.
//!
//! When the schema changes: the file of the one before stays as it is, [`make`] writes one more.
#![allow(clippy::unwrap_used)]

use engine::layout::FileStamp;
use engine::picker::Priority;
use proto::ids::InfoHashV1;
use proto::metainfo::Metainfo;
use state::{
    Condition, Details, Intent, LastError, LimitAction, NewTorrent, Options, Place, SCHEMA, Store,
    Summary, TorrentLimits, Totals, Verified, Write,
};
use std::path::{Path, PathBuf};

fn file(schema: u64) -> PathBuf {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    data.join(format!("schema-{schema}.redb"))
}

fn metainfo() -> (InfoHashV1, Vec<u8>) {
    let pieces = "p".repeat(20 * 10);
    let info = format!("d6:lengthi163840e4:name4:data12:piece lengthi16384e6:pieces200:{pieces}e");
    let bytes = format!("d8:announce20:http://tracker.test/4:info{info}e").into_bytes();
    let hash = Metainfo::parse(&bytes).unwrap().info_hash_v1.unwrap();
    (hash, bytes)
}

/// A torrent in which nothing has its default.
fn full() -> (InfoHashV1, NewTorrent) {
    let (hash, metainfo) = metainfo();
    let stamp = FileStamp {
        device: 2,
        inode: 3,
        size: 163_840,
        mtime_ns: -4,
        ctime_ns: 5,
    };
    let torrent = NewTorrent {
        summary: Summary {
            name: "data".into(),
            info_hash_v2: Some(proto::ids::InfoHashV2([6; 32])),
            magnet: Some("magnet:?xt=urn:btih:00".into()),
            private: true,
            total_bytes: 163_840,
            piece_bytes: 16_384,
            pieces: 10,
            files: 1,
            save_path: "/srv/\u{e9}".into(),
            category: Some("one".into()),
            labels: vec!["two".into(), "three".into()],
            added_at_s: 7,
            completed_at_s: Some(8),
            paused: true,
            seed_mode: true,
            sequential: true,
            super_seeding: true,
            completion_untold: true,
            limits: TorrentLimits {
                upload_rate: Some(0),
                download_rate: Some(9),
                peers_max: Some(10),
                ratio_permille: Some(1500),
                seeding_time_s: Some(11),
                at_limit: Some(LimitAction::RemoveWithData),
            },
            condition: Condition::Failed,
            last_error: Some(LastError {
                at_s: 12,
                text: "an error".into(),
            }),
        },
        details: Details {
            priorities: vec![Priority::HIGHEST],
            renames: [(0, "elsewhere/data".into())].into(),
            trackers: Some(vec![vec!["http://other.test/announce".into()], Vec::new()]),
            web_seeds: Some(vec!["http://web.test/data".into()]),
        },
        metainfo: Some(metainfo),
        verified: Verified::Pieces(vec![0xa0, 0x40]),
        stamps: vec![Some(stamp)],
        totals: Totals {
            uploaded_bytes: 13,
            downloaded_bytes: 14,
            wasted_bytes: 15,
            active_s: 16,
            seeding_s: 17,
            last_active_at_s: 18,
        },
        place: Place::Last,
    };
    (hash, torrent)
}

/// A torrent of which only the magnet link is known.
fn link() -> (InfoHashV1, NewTorrent) {
    let torrent = NewTorrent {
        summary: Summary {
            magnet: Some("magnet:?xt=urn:btih:11".into()),
            ..Summary::default()
        },
        place: Place::First,
        ..NewTorrent::default()
    };
    (InfoHashV1([0x11; 20]), torrent)
}

#[test]
fn a_store_of_every_schema_is_read_as_it_was_written() {
    for schema in 1..=SCHEMA {
        let with_intents = schema >= 2;
        let directory = tempfile::tempdir().unwrap();
        let restored = state::restore(directory.path(), &file(schema), false).unwrap();
        assert_eq!(restored.torrents, 2);
        let store = Store::open(directory.path(), Options::default()).unwrap();
        let read = store.handle().read_blocking(|view| {
            let (hash, mut expected) = full();
            expected.summary.completion_untold = schema >= 3;
            let stamps = view.stamps(&hash)?;
            let found = NewTorrent {
                summary: view.summary(&hash)?.unwrap(),
                details: view.details(&hash)?,
                metainfo: view.metainfo(&hash)?,
                verified: view.verified(&hash)?,
                stamps: stamps.iter().map(|(_, stamp)| Some(*stamp)).collect(),
                totals: view.totals(&hash)?,
                place: Place::Last,
            };
            assert_eq!(found, expected, "schema {schema}");
            let (hash, expected) = link();
            assert_eq!(view.summary(&hash)?, Some(expected.summary));
            assert_eq!(view.queue()?, [link().0, full().0]);
            assert_eq!(view.server_totals()?, full().1.totals);
            assert_eq!(view.setting("a name")?, Some(b"a value".to_vec()));
            for (kind, hash, value) in intents().iter().filter(|_| with_intents) {
                assert_eq!(view.intent(*kind, hash)?.as_ref(), Some(value));
            }
            Ok(())
        });
        read.unwrap();
        drop(store);
        let report = state::check(directory.path()).unwrap();
        assert_eq!((report.schema, report.problems), (SCHEMA, Vec::new()));
    }
}

/// One of each kind; that to delete files is of a torrent that is gone.
fn intents() -> [(Intent, InfoHashV1, Vec<u8>); 3] {
    [
        (Intent::Move, full().0, b"a move".to_vec()),
        (Intent::Rename, link().0, b"a rename".to_vec()),
        (Intent::Delete, InfoHashV1([0x22; 20]), b"files".to_vec()),
    ]
}

/// In schema 1 moves and renames were settings. `schema-1-intents.redb` is as it was written by that
/// version with these: a move and a rename of one torrent, a move of the other, one of a torrent
/// that is not there, and two settings that are none but are called almost so.
#[test]
fn moves_and_renames_of_the_first_schema_are_taken_up() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let directory = tempfile::tempdir().unwrap();
    let source = data.join("schema-1-intents.redb");
    state::restore(directory.path(), &source, false).unwrap();
    // Once with the step, once after it.
    for _ in 0..2 {
        let store = Store::open(directory.path(), Options::default()).unwrap();
        let read = store.handle().read_blocking(|view| {
            let moves = view.intents(Intent::Move, None, 9)?;
            let expected = [
                (link().0, b"/to\0/from".to_vec()),
                (full().0, b"/to\0/from\0\x01".to_vec()),
            ];
            assert_eq!(moves, expected);
            assert_eq!(view.intents(Intent::Move, None, 1)?, expected[..1]);
            let after = view.intents(Intent::Move, Some(link().0), 9)?;
            assert_eq!(after, expected[1..]);
            let renames = view.intents(Intent::Rename, None, 9)?;
            assert_eq!(renames, [(full().0, b"a rename".to_vec())]);
            assert_eq!(view.intents(Intent::Delete, None, 9)?, []);
            let left = view.settings("move")?;
            let names: Vec<_> = left.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, ["move-nothing", "movement"]);
            assert_eq!(view.settings("rename")?, []);
            Ok(())
        });
        read.unwrap();
        store.close();
        let report = state::check(directory.path()).unwrap();
        assert_eq!((report.schema, report.problems), (SCHEMA, Vec::new()));
    }
}

#[test]
#[ignore = "it writes the file of this version's schema, once for each"]
fn make() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), Options::default()).unwrap();
    let ((first, torrent), (second, link)) = (full(), link());
    let totals = torrent.totals;
    let mut writes = vec![
        Write::Add(first, Box::new(torrent)),
        Write::Add(second, Box::new(link)),
        Write::ServerTotals(totals),
        Write::Setting("a name".into(), Some(b"a value".to_vec())),
    ];
    let intents = intents().into_iter();
    writes.extend(intents.map(|(kind, hash, value)| Write::Intent(kind, hash, Some(value))));
    let outcomes = store.handle().submit_blocking(writes).unwrap().wait();
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    drop(store);
    state::backup(directory.path(), &file(SCHEMA), false).unwrap();
}
