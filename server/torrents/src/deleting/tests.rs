//! Which files of a torrent that is gone are deleted.

use super::*;
use std::fs;

const HASH: InfoHashV1 = InfoHashV1([7; 20]);

#[test]
fn what_was_renamed_when_it_was_gone_is_deleted_under_its_new_name() {
    let folder = tempfile::tempdir().unwrap();
    let (_store, sharing) = Sharing::of_nobody();
    let path = |name: &str| folder.path().join(name);
    let way = Way {
        from: folder.path().to_owned(),
        to: folder.path().to_owned(),
        phase: Phase::Waiting,
    };
    let remains = |place: Option<&Place>| {
        let remains = Remains::of_files(folder.path(), &["old/a", "old/b"]);
        remains.after(&way, Phase::Waiting, place)
    };
    let place = Place {
        data_dir: folder.path().to_owned(),
        stamps: Vec::new(),
        paths: [(0, "new/a".into()), (1, "new/b".into())].into(),
    };
    for place in [None, Some(&place)] {
        fs::create_dir_all(path("new")).unwrap();
        fs::create_dir_all(path("old")).unwrap();
        for name in ["new/a", "new/b.part", "new/mine", "old/a"] {
            fs::write(path(name), b"x").unwrap();
        }
        remains(place).delete(HASH, &sharing, false).unwrap();
        assert_eq!(path("new/a").exists(), place.is_none());
        assert_eq!(path("new/b.part").exists(), place.is_none());
        assert!(path("new/mine").exists() && !path("old").exists());
    }
}

#[test]
fn files_and_their_empty_folders_go_and_nothing_else() {
    let (_store, sharing) = Sharing::of_nobody();
    let folder = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir_all(path("t/a/b")).unwrap();
    fs::create_dir_all(path("t/c")).unwrap();
    for name in ["t/a/b/1", "t/a/2.part", "t/c/3", "t/c/mine"] {
        fs::write(path(name), b"x").unwrap();
    }
    fs::write(outside.path().join("kept"), b"x").unwrap();
    std::os::unix::fs::symlink(outside.path(), path("t/link")).unwrap();
    let files = ["t/a/b/1", "t/a/2", "t/c/3", "t/link/kept", "../x"];
    let remains = Remains::of_files(folder.path(), &files);
    remains.delete(HASH, &sharing, true).unwrap();
    assert!(!path("t/a").exists() && !path("t/c/3").exists());
    assert!(path("t/c/mine").exists(), "another's file stays");
    assert!(outside.path().join("kept").exists(), "no link is followed");
    assert!(folder.path().exists());
}

#[test]
fn what_is_kept_of_files_comes_back_and_nothing_else_is_read() {
    let whole = Remains {
        folders: vec![
            ("/a/\u{1}b".into(), Whose::All),
            ("/c d".into(), Whose::Twins),
            ("/e".into(), Whose::Copies),
        ],
        device: Some(7),
        ..Remains::of_files("/".as_ref(), &["x/y", "z"])
    };
    let bare = Remains {
        had_data: false,
        suffix: String::new(),
        ..Remains::of_files("/a".as_ref(), &[])
    };
    for remains in [whole, bare] {
        let bytes = remains.encode();
        assert_eq!(Remains::decode(&bytes), Some(remains));
    }
    for bytes in [
        &b""[..],
        b"2\x005\x001\0\0.part\x000",
        b"1\0x",
        b"1\x005\x001\0\0s\x001\0/a",
        b"1\x005\x001\0\0s\x001\0/a\x003",
    ] {
        assert_eq!(Remains::decode(bytes), None, "{bytes:?}");
    }
}

/// Long after, what is under a torrent's names is its own only if it is as old as that.
#[test]
fn what_has_changed_since_stays_if_it_is_late() {
    let folder = tempfile::tempdir().unwrap();
    let (_store, sharing) = Sharing::of_nobody();
    fs::write(folder.path().join("a"), b"x").unwrap();
    let long_ago = Remains {
        removed_at_s: now_s() - 2 * ENDING.as_secs(),
        ..Remains::of_files(folder.path(), &["a"])
    };
    long_ago.delete(HASH, &sharing, true).unwrap();
    assert!(folder.path().join("a").exists());
    let just_now = Remains::of_files(folder.path(), &["a"]);
    just_now.delete(HASH, &sharing, true).unwrap();
    assert!(!folder.path().join("a").exists());
}

#[test]
fn what_is_away_is_not_deleted_yet_and_what_was_never_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let (_store, sharing) = Sharing::of_nobody();
    let away = Remains::of_files(&folder.path().join("away"), &["a"]);
    let why = away.delete(HASH, &sharing, false).unwrap_err();
    assert!(why.contains("away"), "{why}");
    let nothing = Remains {
        had_data: false,
        ..away
    };
    assert_eq!(nothing.delete(HASH, &sharing, false), Ok(()));
    // The folder is there without what was mounted on it.
    let empty = Remains {
        device: Some(u64::MAX),
        ..Remains::of_files(folder.path(), &["a"])
    };
    let why = empty.delete(HASH, &sharing, false).unwrap_err();
    assert!(why.contains("another disk"), "{why}");
    // On the disk where it was it is gone.
    let device = fs::metadata(folder.path()).unwrap().dev();
    let gone = Remains {
        device: Some(device),
        ..empty
    };
    assert_eq!(gone.delete(HASH, &sharing, false), Ok(()));
}

/// Where a move had made second names, these go, and nothing else that has such a name.
#[test]
fn second_names_of_the_same_files_go_and_no_other_file() {
    let folder = tempfile::tempdir().unwrap();
    let (_store, sharing) = Sharing::of_nobody();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("from")).unwrap();
    fs::create_dir(path("to")).unwrap();
    for name in ["from/a", "from/b", "to/b"] {
        fs::write(path(name), b"x").unwrap();
    }
    fs::hard_link(path("from/a"), path("to/a")).unwrap();
    let mut remains = Remains::of_files(&path("from"), &["a", "b"]);
    remains.folders.push((path("to"), Whose::Twins));
    remains.delete(HASH, &sharing, true).unwrap();
    assert!(!path("from/a").exists() && !path("from/b").exists());
    assert!(!path("to/a").exists() && path("to/b").exists());
}

/// However far a move is when its torrent is gone, no file of it is left, and none of others goes.
#[test]
fn what_is_left_by_a_move_goes_in_both_folders_and_what_others_have_put_there_stays() {
    for phase in [Phase::Waiting, Phase::Copying, Phase::Switched] {
        let folder = tempfile::tempdir().unwrap();
        let (_store, sharing) = Sharing::of_nobody();
        let way = Way {
            from: folder.path().join("from"),
            to: folder.path().join("to"),
            phase,
        };
        for folder in [&way.from, &way.to] {
            fs::create_dir_all(folder.join("t")).unwrap();
            fs::write(folder.join("t/a"), b"x").unwrap();
        }
        let copies = [
            way.to.join("t").join(format!(".{HASH}-0.moving")),
            way.to.join(format!(".{HASH}.moving")),
        ];
        let other = way
            .to
            .join("t")
            .join(format!(".{}-0.moving", "08".repeat(20)));
        for path in copies.iter().chain([&other]) {
            fs::write(path, b"x").unwrap();
        }
        // As it was known when it was removed: the move had just begun.
        let mut remains = Remains::of_files(&way.from, &["t/a"]);
        remains.folders.push((way.to.clone(), Whose::Twins));
        let remains = remains.after(&way, phase, None);
        let remains = Remains::decode(&remains.encode()).unwrap();
        remains.delete(HASH, &sharing, true).unwrap();
        assert!(!way.from.join("t").exists(), "{phase:?}");
        let is_theirs = phase == Phase::Switched;
        assert_eq!(way.to.join("t/a").exists(), !is_theirs, "{phase:?}");
        let are_left = copies.iter().any(|copy| copy.exists());
        assert_eq!(are_left, phase != Phase::Copying, "{phase:?}");
        assert!(other.exists(), "{phase:?}");
    }
}
