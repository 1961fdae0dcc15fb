//! Torrents made of a directory, and what verification says after the directory was harmed.

use super::*;
use crate::create::{CreateOptions, create};
use crate::hashing::PageCache;
use std::fs;
use std::os::unix::fs::symlink;

/// A directory `d` of four files and its torrent, 16 KiB a piece: `a` covers pieces 0 to 3, `b` 3
/// and 4, `empty` none, `z/c` 4 to 6.
fn torrent() -> (tempfile::TempDir, Metainfo) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("d/z")).unwrap();
    for (name, byte, length) in [
        ("a", 1, 60_000),
        ("b", 2, 15_000),
        ("empty", 3, 0),
        ("z/c", 4, 30_000),
    ] {
        fs::write(dir.path().join("d").join(name), vec![byte; length]).unwrap();
    }
    let options = CreateOptions::default();
    let created = create(&dir.path().join("d"), &options, &PageCache, &mut |_| {
        ControlFlow::Continue(())
    })
    .unwrap();
    (dir, created.metainfo)
}

fn verify_in(dir: &tempfile::TempDir, metainfo: &Metainfo, selection: Selection<'_>) -> Verified {
    let threads = NonZeroUsize::new(2);
    verify_subset(
        metainfo,
        dir.path(),
        Names::Whole,
        selection,
        threads,
        &PageCache,
        &mut |_| ControlFlow::Continue(()),
    )
    .unwrap()
}

/// The files that something is wrong with: name, bad pieces, fault in words.
fn wrong(verified: &Verified) -> Vec<(String, u32, String)> {
    let wrong = verified.files.iter().filter(|file| file.state.is_wrong());
    wrong
        .map(|file| {
            let fault = match &file.state {
                FileState::Fault(fault) => fault.to_string(),
                _ => String::new(),
            };
            (file.path.display().to_string(), file.pieces_bad, fault)
        })
        .collect()
}

fn bad_pieces(verified: &Verified) -> Vec<u32> {
    let bad = verified
        .selected
        .iter()
        .filter(|&piece| !verified.pieces.contains(piece));
    bad.map(|piece| piece.0).collect()
}

#[test]
fn untouched_data_is_good_and_stamped() {
    let (dir, metainfo) = torrent();
    let verified = verify_in(&dir, &metainfo, Selection::All);
    assert!(verified.is_good() && verified.pieces.is_full());
    assert_eq!(verified.pieces.piece_count(), 7);
    for file in &verified.files {
        assert!(matches!(file.state, FileState::Good), "{file:?}");
        let metadata = fs::metadata(dir.path().join(&file.path)).unwrap();
        assert_eq!(file.stamp, Some(stamp_of(&metadata)));
    }
    let pieces: Vec<u32> = verified.files.iter().map(|file| file.pieces).collect();
    assert_eq!(pieces, [4, 2, 0, 3]);
}

#[test]
fn a_flipped_bit_is_found_in_its_piece() {
    let (dir, metainfo) = torrent();
    let mut bytes = vec![1; 60_000];
    bytes[20_000] ^= 1;
    fs::write(dir.path().join("d/a"), bytes).unwrap();
    let verified = verify_in(&dir, &metainfo, Selection::All);
    assert!(!verified.is_good());
    assert_eq!(bad_pieces(&verified), [1]);
    assert_eq!(wrong(&verified), [("d/a".into(), 1, String::new())]);
}

#[test]
fn missing_files_fail_their_pieces_and_those_they_share() {
    let (dir, metainfo) = torrent();
    fs::remove_file(dir.path().join("d/b")).unwrap();
    fs::remove_file(dir.path().join("d/empty")).unwrap();
    let verified = verify_in(&dir, &metainfo, Selection::All);
    assert_eq!(bad_pieces(&verified), [3, 4]);
    let missing = "there is no such file".to_owned();
    assert_eq!(
        wrong(&verified),
        [
            ("d/a".into(), 1, String::new()),
            ("d/b".into(), 2, missing.clone()),
            ("d/empty".into(), 0, missing),
            ("d/z/c".into(), 1, String::new()),
        ]
    );
}

#[test]
fn a_short_or_long_file_is_wrong_but_its_whole_pieces_count() {
    let (dir, metainfo) = torrent();
    fs::write(dir.path().join("d/a"), vec![1; 40_000]).unwrap();
    fs::write(dir.path().join("d/z/c"), vec![4; 30_001]).unwrap();
    let verified = verify_in(&dir, &metainfo, Selection::All);
    assert_eq!(bad_pieces(&verified), [2, 3]);
    let size = |found, expected| format!("it has {found} bytes where the torrent has {expected}");
    assert_eq!(
        wrong(&verified),
        [
            ("d/a".into(), 2, size(40_000, 60_000)),
            ("d/b".into(), 1, String::new()),
            ("d/z/c".into(), 0, size(30_001, 30_000)),
        ]
    );
    assert!(
        !verified.is_good(),
        "all pieces of d/z/c are good, its length is not"
    );
}

#[test]
fn links_are_followed_to_what_is_beneath_the_folder() {
    let (dir, metainfo) = torrent();
    // The folder itself is the operator's word, wherever it leads.
    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("data");
    symlink(dir.path(), &link).unwrap();
    fs::rename(dir.path().join("d"), dir.path().join("e")).unwrap();
    symlink("e", dir.path().join("d")).unwrap();
    fs::rename(dir.path().join("e/a"), dir.path().join("moved")).unwrap();
    symlink("../moved", dir.path().join("e/a")).unwrap();
    let threads = NonZeroUsize::new(2);
    let verified = verify(&metainfo, &link, threads, &PageCache, &mut |_| {
        ControlFlow::Continue(())
    });
    assert!(verified.unwrap().is_good());
}

#[test]
fn links_that_lead_outside_and_special_files_are_not_followed_or_opened() {
    let (dir, metainfo) = torrent();
    let elsewhere = tempfile::tempdir().unwrap();
    let moved = elsewhere.path().join("moved");
    fs::copy(dir.path().join("d/a"), &moved).unwrap();
    fs::remove_file(dir.path().join("d/a")).unwrap();
    symlink(&moved, dir.path().join("d/a")).unwrap();
    fs::rename(dir.path().join("d/z"), dir.path().join("d/y")).unwrap();
    // Absolute, although it leads to what is beneath: a path of this machine in a moved folder.
    symlink(dir.path().join("d/y"), dir.path().join("d/z")).unwrap();
    fs::remove_file(dir.path().join("d/b")).unwrap();
    let mode = rustix::fs::Mode::RUSR;
    let fifo = dir.path().join("d/b");
    rustix::fs::mknodat(rustix::fs::CWD, fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let verified = verify_in(&dir, &metainfo, Selection::All);
    assert!(verified.pieces.is_empty());
    let faults: Vec<_> = wrong(&verified);
    assert!(faults[0].2.starts_with("a symbolic link"), "{faults:?}");
    assert_eq!(faults[1].2, "it is a FIFO, not a regular file");
    assert!(faults[2].2.starts_with("a symbolic link"), "{faults:?}");
}

#[test]
fn a_part_is_verified_alone() {
    let (dir, metainfo) = torrent();
    fs::remove_file(dir.path().join("d/a")).unwrap();
    let file = verify_in(&dir, &metainfo, Selection::Files(&[FileIndex(3)]));
    assert!(file.is_good());
    assert_eq!(
        file.pieces.iter().map(|piece| piece.0).collect::<Vec<_>>(),
        [4, 5, 6]
    );
    // Piece 4 holds bytes of `b` too.
    assert!(matches!(file.files[1].state, FileState::Good));
    assert!(matches!(file.files[0].state, FileState::NotChecked));
    assert!(matches!(file.files[2].state, FileState::NotChecked));

    let mut pieces = PieceSet::new(7);
    pieces.insert(PieceIndex(2));
    pieces.insert(PieceIndex(6));
    let part = verify_in(&dir, &metainfo, Selection::Pieces(&pieces));
    assert_eq!(bad_pieces(&part), [2]);
    assert!(!part.is_good());
    assert!(matches!(part.files[1].state, FileState::NotChecked));
}

#[test]
fn a_single_file_lies_in_the_directory_itself() {
    let (dir, _) = torrent();
    let options = CreateOptions::default();
    let created = create(&dir.path().join("d/a"), &options, &PageCache, &mut |_| {
        ControlFlow::Continue(())
    })
    .unwrap();
    let verified = verify(
        &created.metainfo,
        &dir.path().join("d"),
        None,
        &PageCache,
        &mut |_| ControlFlow::Continue(()),
    );
    assert!(verified.unwrap().is_good());
}

#[test]
fn names_that_clients_would_change_are_found_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("d")).unwrap();
    for (name, content) in [("a\nb", "one"), ("case", "two"), ("CASE", "three")] {
        fs::write(dir.path().join("d").join(name), content).unwrap();
    }
    let options = CreateOptions::default();
    let created = create(&dir.path().join("d"), &options, &PageCache, &mut |_| {
        ControlFlow::Continue(())
    })
    .unwrap();
    let verified = verify_in(&dir, &created.metainfo, Selection::All);
    assert!(verified.is_good(), "{:?}", verified.files);
}

#[test]
fn a_missing_data_directory_and_v2_only_torrents_are_errors() {
    let (dir, mut metainfo) = torrent();
    let absent = dir.path().join("absent");
    let error = verify(&metainfo, &absent, None, &PageCache, &mut |_| {
        ControlFlow::Continue(())
    })
    .unwrap_err();
    assert!(matches!(error, VerifyError::Directory { .. }));
    metainfo.info_hash_v1 = None;
    let error = verify(&metainfo, dir.path(), None, &PageCache, &mut |_| {
        ControlFlow::Continue(())
    })
    .unwrap_err();
    assert!(matches!(error, VerifyError::OnlyV2));
}
