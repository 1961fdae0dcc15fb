//! What is believed, what is hashed and what is dropped, by what an earlier run left.

use super::*;
use crate::create::{CreateOptions, create};
use crate::hashing::PageCache;
use crate::state::{FetchRecord, Record};
use engine::picker::Priority;
use seedring_metrics::Registry;
use std::fs;

const SUFFIX: &str = ".part";

/// A directory `d` of three files and its torrent, 16 KiB a piece: `a` covers pieces 0 to 3, `b` 3 and 4, `z/c` 4 to 6.
struct Fixture {
    dir: tempfile::TempDir,
    state: State,
    metainfo: Metainfo,
    torrent: Vec<u8>,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("d/z")).unwrap();
    for (name, byte, length) in [("a", 1, 60_000), ("b", 2, 15_000), ("z/c", 4, 30_000)] {
        fs::write(dir.path().join("d").join(name), vec![byte; length]).unwrap();
    }
    let options = CreateOptions::default();
    let created = create(&dir.path().join("d"), &options, &PageCache, &mut |_| {
        ControlFlow::Continue(())
    })
    .unwrap();
    Fixture {
        state: State::open(&dir.path().join("state")).unwrap(),
        metainfo: created.metainfo,
        torrent: created.torrent,
        dir,
    }
}

impl Fixture {
    fn look_with(&self, always_hash: bool) -> Result<Resumed, ResumeError> {
        self.look_as(always_hash, false)
    }

    fn look_as(&self, always_hash: bool, anew: bool) -> Result<Resumed, ResumeError> {
        let claim = Claim::of(&self.state, &self.metainfo, self.dir.path()).unwrap();
        let resume = Resume {
            claim: claim.filter(|_| !anew),
            always_hash,
            partial_suffix: SUFFIX,
            renames: &BTreeMap::new(),
            cells: &Registry::new(0).control(),
            disk: &PageCache,
        };
        resume.look(&self.metainfo, self.dir.path(), &mut |_| {
            ControlFlow::Continue(())
        })
    }

    fn look(&self) -> Resumed {
        self.look_with(false).unwrap()
    }

    /// Remembers that `pieces` were synced when the files were as they are now.
    fn remember(&self, pieces: &[u32]) {
        let mut set = PieceSet::new(7);
        pieces
            .iter()
            .for_each(|&piece| set.insert(PieceIndex(piece)));
        let record = FetchRecord {
            metainfo: self.torrent.clone(),
            data_dir: self.dir.path().to_owned(),
            priorities: vec![Priority::NORMAL; 3],
            sequential: false,
            pieces: set.as_bitfield().to_vec(),
            stamps: self.look().stamps,
        };
        let info_hash = self.metainfo.info_hash_v1.unwrap();
        self.state.begin_fetch(info_hash, &record).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("d").join(name)
    }
}

/// The pieces that are there, and how many were hashed.
fn found(resumed: &Resumed) -> (Vec<u32>, u32) {
    let pieces = resumed.pieces.iter().map(|piece| piece.0);
    (pieces.collect(), resumed.hashed)
}

#[test]
fn what_was_synced_and_has_not_changed_is_believed_and_nothing_else_is() {
    let fixture = fixture();
    fixture.remember(&[0, 2, 4, 5]);
    assert_eq!(found(&fixture.look()), (vec![0, 2, 4, 5], 0));
    let hashed = fixture.look_with(true).unwrap();
    assert_eq!(found(&hashed), (vec![0, 2, 4, 5], 4));
}

#[test]
fn only_the_synced_pieces_of_a_file_that_has_changed_are_hashed() {
    let fixture = fixture();
    fixture.remember(&[0, 2, 5]);
    // Piece 1 was not synced and is damaged, piece 2 was.
    let mut bytes = fs::read(fixture.path("a")).unwrap();
    (bytes[20_000], bytes[40_000]) = (9, 9);
    fs::write(fixture.path("a"), bytes).unwrap();
    assert_eq!(found(&fixture.look()), (vec![0, 5], 2));
}

#[test]
fn a_file_that_is_gone_takes_its_pieces_along_and_one_cut_short_those_that_it_lacks() {
    let fixture = fixture();
    fixture.remember(&[0, 1, 2, 3, 4, 5, 6]);
    fs::remove_file(fixture.path("b")).unwrap();
    fs::File::options()
        .write(true)
        .open(fixture.path("a"))
        .unwrap()
        .set_len(20_000)
        .unwrap();
    assert_eq!(found(&fixture.look()), (vec![0, 5, 6], 3));
}

#[test]
fn when_all_is_gone_it_does_not_begin_anew_by_itself() {
    let fixture = fixture();
    fixture.remember(&[0, 1]);
    fs::remove_dir_all(fixture.path("")).unwrap();
    let error = fixture.look_with(false).unwrap_err();
    assert!(
        matches!(error, ResumeError::Gone { pieces: 2, .. }),
        "{error}"
    );
    // Unless the user says so.
    assert_eq!(found(&fixture.look_as(false, true).unwrap()), (vec![], 0));
    // Where nothing was synced, nothing is missed.
    let info_hash = fixture.metainfo.info_hash_v1.unwrap();
    fixture.state.fetch_synced(info_hash, &[0], []).unwrap();
    assert_eq!(found(&fixture.look()), (vec![], 0));
}

#[test]
fn where_nothing_is_known_what_exists_is_hashed() {
    let fixture = fixture();
    assert_eq!(found(&fixture.look()).1, 7);
    fs::remove_file(fixture.path("z/c")).unwrap();
    fs::rename(fixture.path("a"), fixture.path("a.part")).unwrap();
    let resumed = fixture.look();
    assert_eq!(found(&resumed), (vec![0, 1, 2, 3], 4));
    assert!(resumed.stamps[0].is_some() && resumed.stamps[2].is_none());
    // Of another place nothing is known.
    fixture.remember(&[0]);
    let elsewhere = tempfile::tempdir().unwrap();
    let claim = Claim::of(&fixture.state, &fixture.metainfo, elsewhere.path());
    let resume = Resume {
        claim: claim.unwrap(),
        always_hash: false,
        partial_suffix: SUFFIX,
        renames: &BTreeMap::new(),
        cells: &Registry::new(0).control(),
        disk: &PageCache,
    };
    let resumed = resume
        .look(&fixture.metainfo, elsewhere.path(), &mut |_| {
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(found(&resumed), (vec![], 0));
}

#[test]
fn a_torrent_that_was_complete_is_complete_without_hashing() {
    let fixture = fixture();
    let record = Record {
        metainfo: fixture.torrent.clone(),
        data_dir: fixture.dir.path().to_owned(),
        stamps: fixture.look().stamps,
        paths: Default::default(),
    };
    let info_hash = fixture.metainfo.info_hash_v1.unwrap();
    fixture.state.remember(info_hash, &record, None).unwrap();
    let resumed = fixture.look();
    assert_eq!((resumed.pieces.is_full(), resumed.hashed), (true, 0));
    fs::write(fixture.path("z/c"), vec![5; 30_000]).unwrap();
    assert_eq!(found(&fixture.look()), (vec![0, 1, 2, 3], 3));
}
