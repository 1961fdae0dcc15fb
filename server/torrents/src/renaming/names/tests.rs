use super::*;
use proptest::prelude::*;
use seedring_io::fetch::suffix_of;

/// A torrent of these files, with the folder `t` above them.
fn torrent(paths: &[&str]) -> Metainfo {
    let file = |path: &&str| {
        let parts: Vec<String> = path
            .split('/')
            .map(|part| format!("{}:{part}", part.len()))
            .collect();
        format!("d6:lengthi1e4:pathl{}ee", parts.concat())
    };
    let files: String = paths.iter().map(file).collect();
    let hash = "x".repeat(20);
    let text =
        format!("d4:infod5:filesl{files}e4:name1:t12:piece lengthi16384e6:pieces20:{hash}ee");
    Metainfo::parse(text.as_bytes()).unwrap()
}

fn path(from: &str, to: &str) -> Rename {
    Rename::Path {
        from: from.into(),
        to: to.into(),
    }
}

fn file(index: u32, to: &str) -> Rename {
    let to = to.into();
    Rename::File { index, to }
}

fn names(
    metainfo: &Metainfo,
    before: &[(u32, &str)],
    rename: &Rename,
) -> Result<Vec<String>, CommandError> {
    let before = before
        .iter()
        .map(|(index, path)| (*index, path.into()))
        .collect();
    let suffix = suffix_of(metainfo, &before, ".part");
    let names = Names::of(metainfo, &before, rename, suffix)?;
    let paths = names.paths(metainfo);
    Ok(paths
        .map(|(_, path)| path.to_str().unwrap().to_owned())
        .collect())
}

#[test]
fn a_file_or_all_of_a_folder_get_other_names() {
    let three = torrent(&["a", "b/c", "b/d"]);
    let renamed = |before: &[(u32, &str)], rename: &Rename| names(&three, before, rename).unwrap();
    assert_eq!(
        renamed(&[], &path("t", "u v")),
        ["u v/a", "u v/b/c", "u v/b/d"]
    );
    assert_eq!(renamed(&[], &path("t/b", "z/y")), ["t/a", "z/y/c", "z/y/d"]);
    assert_eq!(renamed(&[], &path("t/b/c", "c")), ["t/a", "c", "t/b/d"]);
    assert_eq!(renamed(&[], &file(0, "t/A")), ["t/A", "t/b/c", "t/b/d"]);
    // As it is now counts, not as the metainfo has it.
    assert_eq!(
        renamed(&[(1, "x/c")], &path("x", "t/b")),
        ["t/a", "t/b/c", "t/b/d"]
    );
    let back = Names::of(
        &three,
        &BTreeMap::from([(1, "x/c".into())]),
        &path("x", "t/b"),
        "",
    );
    assert!(back.unwrap().renames.is_empty(), "the metainfo say so");
    let same = Names::of(&three, &BTreeMap::new(), &path("t", "t"), "").unwrap();
    assert!(same.changes.is_empty());
}

#[test]
fn what_two_files_would_have_is_refused() {
    let three = torrent(&["a", "b/c", "b/d"]);
    for (rename, word) in [
        (file(0, "t/b/c"), "files 0 and 1"),
        (file(0, "t/B/C"), "files 0 and 1"),
        (file(0, "t/b"), "files"),
        (file(1, "t/a/c"), "files"),
        (file(0, "t/b/c.part"), "ends with"),
        (file(0, "t/a.part"), "ends with"),
        (file(1, "x.PART"), "ends with"),
        (path("t/a", "t/a.part"), "ends with"),
        (path("t/a", "t/b/d.part/x"), "files"),
        (file(3, "x"), "3 files"),
        (path("b", "x"), "no file"),
        (path("t/b/cc", "x"), "no file"),
        (path("t", "../x"), "below"),
        (path("t", "/x"), "below"),
        (path("t", "x/./../y"), "below"),
        (path("t", "x\ny"), "name"),
        (path("t", &"x".repeat(251)), "name"),
        (path("t", &"x/".repeat(2100)), "4096"),
    ] {
        let refused = names(&three, &[], &rename).unwrap_err().to_string();
        assert!(refused.contains(word), "{rename:?}: {refused}");
    }
    // What is in the way has another name only then; that of a file that is not complete is one.
    for paths in [["a", "t/a"], ["t/a", "a.part"]] {
        let refused = names(&torrent(&paths), &[], &path("t", "t/t")).unwrap_err();
        assert!(refused.to_string().contains("first"), "{refused}");
    }
}

/// Such a torrent's files have no suffix: no name is taken for another's.
#[test]
fn a_torrent_one_of_whose_names_ends_with_the_suffix_is_renamed_as_any() {
    let both = torrent(&["a", "a.part", "b.part/c"]);
    let renamed = |rename| names(&both, &[], &rename).unwrap();
    assert_eq!(renamed(path("t", "u")), ["u/a", "u/a.part", "u/b.part/c"]);
    assert_eq!(renamed(file(0, "t/b")), ["t/b", "t/a.part", "t/b.part/c"]);
    let alone = torrent(&["b.part"]);
    assert_eq!(names(&alone, &[], &path("t", "u")).unwrap(), ["u/b.part"]);
    assert_eq!(names(&alone, &[], &file(0, "c.part")).unwrap(), ["c.part"]);
}

proptest! {
    /// Whatever is renamed: as many paths as files, all below the save path, no two the same, none
    /// of them the folder of another.
    #[test]
    fn no_rename_leaves_two_files_with_one_path(
        renames in proptest::collection::vec((any::<bool>(), 0_usize..40, 0_usize..40), 1..12),
    ) {
        let paths = [
            "t", "t/a", "t/b", "t/b/c", "t/b/d", "x", "x/b", "x/B", "x/b/c", "T/a", "y/a.part",
        ];
        let at = |number: usize| paths[number % paths.len()];
        let four = torrent(&["a", "b/c", "b/d", "e"]);
        let mut before = BTreeMap::new();
        for (by_path, from, to) in renames {
            let rename = match by_path {
                true => path(at(from), at(to)),
                false => file(from as u32 % 5, at(to)),
            };
            if let Ok(names) = Names::of(&four, &before, &rename, ".part") {
                before = names.renames;
            }
            let names = Names { renames: before.clone(), changes: Vec::new() };
            let all: Vec<String> =
                names.paths(&four).map(|(_, path)| folded(&path)).collect();
            for (one, path) in all.iter().enumerate() {
                for (other, beside) in all.iter().enumerate().filter(|(other, _)| *other != one) {
                    prop_assert_ne!(path, beside);
                    let is_above = beside.starts_with(&format!("{path}/"));
                    prop_assert!(!is_above, "{} and {}: {:?}", one, other, all);
                }
            }
        }
    }
}
