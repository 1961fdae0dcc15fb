//! Torrents of real directories, parsed again and compared with what is on disk.

use super::*;
use crate::hashing::PageCache;
use std::fs;

fn go_on(_: &CreateProgress<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// A directory `data` of three files, 100,005 bytes in all.
fn data() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("data/ünter")).unwrap();
    fs::write(dir.path().join("data/a"), vec![7; 100_000]).unwrap();
    fs::write(dir.path().join("data/empty"), "").unwrap();
    fs::write(dir.path().join("data/ünter/b"), "hello").unwrap();
    dir
}

#[test]
fn a_directory_becomes_a_torrent_of_its_files() {
    let dir = data();
    let options = CreateOptions {
        trackers: vec![vec!["http://a/announce".into()], vec!["udp://b:1".into()]],
        web_seeds: vec!["http://c/".into()],
        private: true,
        source: Some("src".into()),
        comment: Some("remark".into()),
        creation_date: Some(1_700_000_000),
        ..CreateOptions::default()
    };
    let created = create(&dir.path().join("data"), &options, &PageCache, &mut go_on).unwrap();
    let metainfo = &created.metainfo;
    assert_eq!(
        (metainfo.name.as_str(), metainfo.piece_length),
        ("data", 16 << 10)
    );
    let files: Vec<_> = metainfo
        .files
        .iter()
        .map(|f| (f.path.join("/"), f.length))
        .collect();
    let expected = [("data/a", 100_000), ("data/empty", 0), ("data/ünter/b", 5)];
    assert_eq!(
        files,
        expected.map(|(path, length)| (path.to_owned(), length))
    );
    let bytes = [vec![7; 100_000], b"hello".to_vec()].concat();
    let hashes: Vec<u8> = bytes.chunks(16 << 10).flat_map(hash::sha1).collect();
    assert_eq!(metainfo.piece_hashes(), hashes);
    assert_eq!(metainfo.trackers, options.trackers);
    assert_eq!(metainfo.web_seeds, options.web_seeds);
    assert!(metainfo.private);
    assert_eq!(metainfo.source.as_deref(), Some("src"));
    assert_eq!(metainfo.comment.as_deref(), Some("remark"));
    assert_eq!(metainfo.creation_date, Some(1_700_000_000));
    assert_eq!(Metainfo::parse(&created.torrent).unwrap(), *metainfo);
    assert_eq!(created.data_dir, Some(dir.path().canonicalize().unwrap()));
    for file in &created.files {
        let metadata = fs::metadata(created.root.join(file.path())).unwrap();
        assert_eq!(file.stamp, Some(crate::hashing::stamp_of(&metadata)));
    }
}

#[test]
fn equal_content_makes_equal_bytes() {
    let (one, two) = (data(), data());
    let make = |dir: &tempfile::TempDir, threads| {
        let threads = NonZeroUsize::new(threads);
        let options = CreateOptions {
            threads,
            ..CreateOptions::default()
        };
        create(&dir.path().join("data"), &options, &PageCache, &mut go_on)
            .unwrap()
            .torrent
    };
    assert_eq!(make(&one, 1), make(&two, 3));
}

#[test]
fn a_single_file_becomes_a_torrent_without_a_file_list() {
    let dir = data();
    let options = CreateOptions {
        name: Some("other name".into()),
        piece_length: Some(64 << 10),
        ..CreateOptions::default()
    };
    let created = create(&dir.path().join("data/a"), &options, &PageCache, &mut go_on).unwrap();
    assert!(!created.metainfo.is_multi_file);
    assert_eq!(created.metainfo.name, "other name");
    assert_eq!(
        (created.metainfo.piece_count, created.metainfo.total_length),
        (2, 100_000)
    );
    assert_eq!(created.files[0].path(), Path::new("a"));
    assert_eq!(
        created.data_dir, None,
        "no file on disk has the torrent's name"
    );
    let created = create(
        &dir.path().join("data/a"),
        &CreateOptions::default(),
        &PageCache,
        &mut go_on,
    )
    .unwrap();
    assert_eq!(
        created.data_dir,
        Some(dir.path().join("data").canonicalize().unwrap())
    );
}

#[test]
fn a_directory_of_one_file_stays_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("d")).unwrap();
    fs::write(dir.path().join("d/f"), "x").unwrap();
    let options = CreateOptions::default();
    let created = create(&dir.path().join("d"), &options, &PageCache, &mut go_on).unwrap();
    assert!(created.metainfo.is_multi_file);
    assert_eq!(created.metainfo.files[0].path, ["d", "f"]);
}

#[test]
fn what_makes_no_torrent_is_refused() {
    let dir = data();
    let make = |path: &str, options: CreateOptions| {
        create(&dir.path().join(path), &options, &PageCache, &mut go_on)
            .unwrap_err()
            .to_string()
    };
    let options = CreateOptions::default;
    assert!(make("absent", options()).contains("absent"));
    assert!(make("data/empty", options()).contains("no data to share (empty files: 1)"));
    let piece_length = Some(20_000);
    assert!(
        make(
            "data",
            CreateOptions {
                piece_length,
                ..options()
            }
        )
        .contains("20000")
    );
    for name in ["", "..", "a/b"] {
        let error = make(
            "data",
            CreateOptions {
                name: Some(name.into()),
                ..options()
            },
        );
        assert!(error.contains("cannot be a file's"), "{error}");
    }
}

#[test]
fn a_file_that_changes_after_the_walk_is_named() {
    let dir = data();
    let changed = dir.path().join("data/ünter/b");
    let mut walked = walk(
        &dir.path().join("data"),
        SymlinkPolicy::Skip,
        &[],
        &mut |_| ControlFlow::Continue(()),
    )
    .unwrap();
    fs::write(&changed, "HELLO").unwrap();
    let options = CreateOptions::default();
    let error = hash_walked(&walked, &options, 16 << 10, &PageCache, &mut go_on).unwrap_err();
    assert!(
        matches!(&error, CreateError::File { path, fault: FileFault::Changed }
            if path.ends_with("data/ünter/b")),
        "{error}"
    );
    walked.files[2].stamp = Some(crate::hashing::stamp_of(&fs::metadata(&changed).unwrap()));
    assert!(hash_walked(&walked, &options, 16 << 10, &PageCache, &mut go_on).is_ok());
}

#[test]
fn progress_can_stop_the_work() {
    let dir = data();
    let file = fs::File::create(dir.path().join("data/large")).unwrap();
    // A hole: long enough that a report comes before the end.
    file.set_len(1 << 40).unwrap();
    let mut stop = |progress: &CreateProgress<'_>| match progress {
        CreateProgress::Hashing(_) => ControlFlow::Break(()),
        CreateProgress::Walking { .. } => ControlFlow::Continue(()),
    };
    let error = create(
        &dir.path().join("data"),
        &CreateOptions::default(),
        &PageCache,
        &mut stop,
    )
    .unwrap_err();
    assert!(matches!(error, CreateError::Stopped));
}
