//! Whose files stay.

use super::claims::{NAMES_MAX, first, names_of};
use super::*;
use std::fs;

/// A torrent of one file.
fn torrent(name: &str) -> Vec<u8> {
    let length = name.len();
    let info = format!("6:lengthi1e4:name{length}:{name}12:piece lengthi16384e6:pieces20:");
    [b"d4:infod", info.as_bytes(), &[7; 20], b"ee"].concat()
}

/// The same, which is in `folder`.
fn claim(folder: &Path, name: &str) -> Claim {
    let torrent = torrent(name);
    let metainfo = Arc::new(Metainfo::parse(&torrent).unwrap());
    Claim::new(folder.to_owned(), metainfo, BTreeMap::new())
}

#[test]
fn what_comes_while_files_are_deleted_keeps_those_that_are_left() {
    let folder = tempfile::tempdir().unwrap();
    let ((_state, _store), sharing) = Sharing::of_nobody();
    let files = ["a", "b", "b.part", "c", "d"].map(PathBuf::from);
    for file in &files {
        fs::write(folder.path().join(file), b"x").unwrap();
    }
    let [mine, other, third] = [1, 2, 3].map(|byte| InfoHashV1([byte; 20]));
    let own = (folder.path(), files.as_slice());
    let look = |mine| Remaining::look(&sharing, mine, own, ".part").unwrap();
    let mut remaining = look(mine);
    let mut may_go = |name: &str| remaining.may_go(Path::new(name)).unwrap();
    assert!(may_go("a") && may_go("b"));
    sharing.claim(other, claim(folder.path(), "b"));
    sharing.claim(third, claim(&folder.path().join("elsewhere"), "c"));
    assert!(!may_go("b") && !may_go("b.part") && may_go("c") && may_go("d"));
    // So many changes are not remembered: all are looked at.
    for _ in 0..=RECENT_MAX {
        sharing.claim(third, claim(folder.path(), "c"));
    }
    sharing.claim(mine, claim(folder.path(), "d"));
    assert!(!may_go("b") && !may_go("c"));
    assert!(!may_go("d"), "it is added again");
    sharing.unclaim(&mine);
    sharing.unclaim(&other);
    assert!(!may_go("b"), "whoever had it may have it still");
    assert!(look(mine).may_go(Path::new("b")).unwrap());
}

/// Of a torrent that others serve the catalog shows their folder, and for a moment none.
#[test]
fn one_that_others_serve_from_elsewhere_has_its_files_where_it_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let ((_state, store), sharing) = Sharing::of_nobody();
    let [mine, other] = [1, 2].map(|byte| InfoHashV1([byte; 20]));
    fs::write(folder.path().join("a"), b"x").unwrap();
    let mut new = state::NewTorrent {
        metainfo: Some(torrent("a")),
        ..state::NewTorrent::default()
    };
    new.summary.save_path = folder.path().to_owned();
    let write = state::Write::Add(other, Box::new(new));
    store.handle().write_blocking(write).unwrap();
    sharing.enter([other]);
    let files = [PathBuf::from("a")];
    let may_go = || {
        let own = (folder.path(), files.as_slice());
        let remaining = Remaining::look(&sharing, mine, own, ".part");
        remaining.unwrap().may_go(&files[0]).unwrap()
    };
    assert!(!may_go(), "nothing is shown of it");
    sharing.declare(other, claim(&folder.path().join("elsewhere"), "a"));
    assert!(!may_go(), "it is kept here");
    sharing.gone(&other);
    assert!(may_go());
    sharing.declare(other, claim(folder.path(), "a"));
    assert!(!may_go(), "it is served from here");
    sharing.undeclare(&other);
    assert!(may_go());
}

#[test]
fn one_with_many_names_is_looked_at_by_everybody_and_one_that_is_gone_by_nobody() {
    let mut known = Known::default();
    let [few, many] = [1, 2].map(|byte| InfoHashV1([byte; 20]));
    let files = |count: usize| -> Vec<PathBuf> {
        (0..count)
            .map(|number| format!("{number}/x").into())
            .collect()
    };
    let names = |count| names_of(files(count).iter().filter_map(|path| first(path)));
    known.set_names(few, names(NAMES_MAX));
    known.set_names(many, names(NAMES_MAX + 1));
    let with = |known: &Known, name: &str| known.with(&[short(name.as_ref())].into());
    assert_eq!(with(&known, "3"), [few, many].into());
    assert_eq!(with(&known, "x"), [many].into());
    known.forget(&many);
    assert!(with(&known, "x").is_empty() && known.by_name.len() == NAMES_MAX);
    assert_eq!(short("Ä".as_ref()), short("ä".as_ref()));
}
