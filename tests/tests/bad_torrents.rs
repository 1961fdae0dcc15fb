//! Hostile .torrent files (RELIABILITY.md section A): each is refused with exit code 1 and one error that
//! names the file, the field and the byte; nothing is written, nothing crashes, nothing takes long.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use seedring_tests::bencode::{Value, dictionary};
use seedring_tests::process::{run, run_ok};
use seedring_tests::server::{SHORT, Seed, seedring};
use seedring_tests::torrent::{hex, sha1};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Reading a hostile file may take no longer than this, start of the process included.
const QUICK: Duration = Duration::from_secs(5);

fn show(path: &Path) -> (Option<i32>, String, String) {
    let arguments = [OsStr::new("show"), "--json".as_ref(), path.as_os_str()];
    let start = Instant::now();
    let (status, process) = run("show", &seedring(arguments), SHORT);
    assert!(
        start.elapsed() < QUICK,
        "{} took {:?}",
        path.display(),
        start.elapsed()
    );
    (status.code(), process.stdout(), process.stderr())
}

fn write(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// An `info` dictionary of one file of 100 bytes.
fn info() -> Value {
    dictionary([
        ("length", 100.into()),
        ("name", "x".into()),
        ("piece length", 16_384.into()),
        ("pieces", vec![7u8; 20].into()),
    ])
}

/// The same with one key replaced.
fn info_with(key: &str, value: impl Into<Value>) -> Vec<u8> {
    let Value::Dictionary(mut entries) = info() else {
        unreachable!("info is a dictionary")
    };
    entries.insert(key.as_bytes().to_vec(), value.into());
    torrent(&Value::Dictionary(entries))
}

fn info_without(key: &str) -> Vec<u8> {
    let Value::Dictionary(mut entries) = info() else {
        unreachable!("info is a dictionary")
    };
    entries.remove(key.as_bytes());
    torrent(&Value::Dictionary(entries))
}

fn torrent(info: &Value) -> Vec<u8> {
    dictionary([("info", info.clone())]).encode()
}

/// A torrent of several files with these paths and lengths.
fn files(list: &[(&[&str], i64)]) -> Vec<u8> {
    let files = list.iter().map(|(path, length)| {
        let path = path.iter().map(|part| Value::from(*part)).collect();
        dictionary([("length", (*length).into()), ("path", Value::List(path))])
    });
    torrent(&dictionary([
        ("files", Value::List(files.collect())),
        ("name", "x".into()),
        ("piece length", 16_384.into()),
        ("pieces", vec![7u8; 20].into()),
    ]))
}

/// Hostile files: what it is, the bytes, the field that the error must name ("" for the syntax).
fn refused() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let plain = torrent(&info());
    let raw = |info: &str| format!("d4:infod{info}ee").into_bytes();
    let deep = [
        b"d1:x".to_vec(),
        b"l".repeat(101),
        b"e".repeat(101),
        plain[1..].to_vec(),
    ]
    .concat();
    vec![
        ("empty file", Vec::new(), ""),
        ("a text", b"hello".to_vec(), ""),
        ("a list", b"le".to_vec(), ""),
        ("an integer", b"i1e".to_vec(), ""),
        ("an empty dictionary", b"de".to_vec(), "info"),
        ("truncated", plain[..plain.len() - 3].to_vec(), ""),
        ("leading zero", raw("6:lengthi0100e4:name1:x"), ""),
        ("minus zero", raw("6:lengthi-0e4:name1:x"), ""),
        ("empty integer", raw("6:lengthie4:name1:x"), ""),
        (
            "string beyond the end",
            b"d4:infod4:name999999999999:x".to_vec(),
            "",
        ),
        (
            "string length overflows",
            b"d4:infod4:name99999999999999999999999:x".to_vec(),
            "",
        ),
        ("integer key", b"di1e1:xe".to_vec(), ""),
        ("nested 101 deep", deep, ""),
        ("nested a million deep", b"l".repeat(1_000_000), ""),
        ("dictionaries a million deep", b"d1:a".repeat(1_000_000), ""),
        (
            "duplicate key in info",
            raw(
                "6:lengthi1e6:lengthi100e4:name1:x12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaa",
            ),
            "length",
        ),
        ("info is a list", b"d4:infolee".to_vec(), "info"),
        ("no name", info_without("name"), "name"),
        (
            "no piece length",
            info_without("piece length"),
            "piece length",
        ),
        ("no pieces", info_without("pieces"), "pieces"),
        ("neither length nor files", info_without("length"), "length"),
        ("negative length", info_with("length", -1), "length"),
        ("length is a string", info_with("length", "100"), "length"),
        (
            "length of 2^63 - 1",
            info_with("length", i64::MAX),
            "length",
        ),
        (
            "piece length 0",
            info_with("piece length", 0),
            "piece length",
        ),
        (
            "negative piece length",
            info_with("piece length", -16_384),
            "piece length",
        ),
        (
            "piece length of 1 GiB",
            info_with("piece length", 1 << 30),
            "piece length",
        ),
        (
            "19 bytes of pieces",
            info_with("pieces", vec![0u8; 19]),
            "pieces",
        ),
        ("no hashes", info_with("pieces", Vec::new()), "pieces"),
        (
            "too many hashes",
            info_with("pieces", vec![0u8; 40]),
            "pieces",
        ),
        ("pieces is an integer", info_with("pieces", 5), "pieces"),
        (
            "length and files",
            info_with("files", Value::List(Vec::new())),
            "files",
        ),
        ("no files", files(&[]), "files"),
        ("a file without a path", files(&[(&[], 100)]), "path"),
        (
            "a negative file",
            files(&[(&["a"], 200), (&["b"], -100)]),
            "files[1].length",
        ),
        (
            "sizes that overflow",
            files(&[(&["a"], i64::MAX), (&["b"], i64::MAX)]),
            "length",
        ),
        ("a path 101 deep", files(&[(&["d"; 101], 100)]), "path"),
        (
            "meta version 3",
            info_with("meta version", 3),
            "meta version",
        ),
    ]
}

#[test]
fn hostile_files_are_refused_with_file_field_and_byte() {
    let folder = TempDir::new().unwrap();
    let mut failures = Vec::new();
    for (number, (what, bytes, field)) in refused().into_iter().enumerate() {
        let path = write(&folder, &format!("hostile {number}.torrent"), &bytes);
        let (code, stdout, stderr) = show(&path);
        let first = stderr.lines().next().unwrap_or_default();
        let complaint = if code != Some(1) {
            format!("exit {code:?}")
        } else if !stdout.is_empty() {
            "something on stdout".to_owned()
        } else if !first.contains(&format!("hostile {number}.torrent")) {
            "the file is not named".to_owned()
        } else if !first.contains(field) {
            format!("{field:?} is not named")
        } else if !(first.contains("byte ") || first.contains("offset ")) {
            "no byte is named".to_owned()
        } else {
            continue;
        };
        failures.push(format!("{what}: {complaint}: {stderr}"));
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn too_large_a_file_is_refused_before_it_is_read() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("large.torrent");
    // Sparse: 100 GiB that nobody can want to read.
    std::fs::File::create(&path)
        .unwrap()
        .set_len(100 << 30)
        .unwrap();
    let (code, _, stderr) = show(&path);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("large.torrent"), "{stderr}");
}

#[test]
fn a_folder_and_an_endless_device_are_no_torrents() {
    let folder = TempDir::new().unwrap();
    for path in [folder.path(), Path::new("/dev/zero")] {
        let (code, _, stderr) = show(path);
        assert_eq!(code, Some(1), "{}: {stderr}", path.display());
        assert!(stderr.contains(&path.display().to_string()), "{stderr}");
    }
}

#[test]
fn every_truncation_and_every_flipped_byte_ends_orderly() {
    let folder = TempDir::new().unwrap();
    let whole = files(&[(&["a", "b"], 50), (&["c"], 50)]);
    let mut cases: Vec<Vec<u8>> = (0..whole.len())
        .step_by(3)
        .map(|at| whole[..at].to_vec())
        .collect();
    for at in (0..whole.len()).step_by(3) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        cases.push(flipped);
    }
    for (number, bytes) in cases.iter().enumerate() {
        let path = write(&folder, "case.torrent", bytes);
        let (code, _, stderr) = show(&path);
        assert!(
            matches!(code, Some(0 | 1)),
            "case {number}: {code:?}: {stderr}"
        );
        assert!(!stderr.contains("panicked"), "case {number}: {stderr}");
    }
}

#[test]
fn lenient_where_the_world_is_sloppy() {
    let folder = TempDir::new().unwrap();
    let plain = torrent(&info());
    let hash = hex(&sha1(&info().encode()));
    let unknown = dictionary([
        ("a future key", Value::List(vec![1.into()])),
        ("info", info()),
    ]);
    let unsorted = [b"d4:info".to_vec(), info().encode(), b"1:ai1ee".to_vec()].concat();
    let cases = [
        (
            "a byte after the end",
            [plain.clone(), b"\n".to_vec()].concat(),
        ),
        ("an unknown key", unknown.encode()),
        ("unsorted keys outside info", unsorted),
        ("plain", plain),
    ];
    for (what, bytes) in cases {
        let path = write(&folder, "sloppy.torrent", &bytes);
        let (code, stdout, stderr) = show(&path);
        assert_eq!(code, Some(0), "{what}: {stderr}");
        let shown: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(shown["info_hash_v1"], hash, "{what}");
    }
    // The raw span is hashed, never a re-encoding: an unknown key in info changes the hash.
    let extended = info_with("zz", "kept");
    let path = write(&folder, "extended.torrent", &extended);
    let raw = &extended["d4:info".len()..extended.len() - 1];
    let shown: serde_json::Value = serde_json::from_str(&show(&path).1).unwrap();
    assert_eq!(shown["info_hash_v1"], hex(&sha1(raw)));
}

#[test]
fn hostile_names_stay_inside_the_root() {
    let folder = TempDir::new().unwrap();
    let long = "n".repeat(5_000);
    let names: [&[&str]; 9] = [
        &["..", "..", "etc", "passwd"],
        &["/etc/passwd"],
        &["a/../../b"],
        &["."],
        &[""],
        &["nul\0byte"],
        &["esc\u{1b}[31m", "bidi\u{202e}txt.exe"],
        &[&long],
        &["CON", "a\\b"],
    ];
    for path in names {
        let bytes = files(&[(path, 100)]);
        let file = write(&folder, "names.torrent", &bytes);
        let (code, stdout, stderr) = show(&file);
        let said = format!("{path:?}: {stdout}{stderr}");
        assert!(
            !said.contains('\u{1b}') && !said.contains('\u{202e}'),
            "raw control: {said:?}"
        );
        if code == Some(1) {
            continue;
        }
        assert_eq!(code, Some(0), "{said}");
        let shown: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        let shown = shown["files"][0]["path"].as_str().unwrap().to_owned();
        let inside = Path::new(&shown)
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_)));
        assert!(inside && !shown.is_empty(), "{path:?} became {shown:?}");
        assert!(
            shown.split('/').all(|part| part.len() <= 255),
            "{path:?}: a name over 255 bytes"
        );
        assert!(
            !shown.chars().any(char::is_control),
            "{path:?} became {shown:?}"
        );
    }
}

#[test]
fn colliding_names_never_share_a_file() {
    let folder = TempDir::new().unwrap();
    let cases: [&[(&[&str], i64)]; 3] = [
        &[(&["a"], 50), (&["a"], 50)],
        &[(&["a", "b"], 50), (&["a"], 50)],
        &[(&["..", "a"], 50), (&["a"], 50)],
    ];
    for case in cases {
        let path = write(&folder, "collide.torrent", &files(case));
        let (code, stdout, stderr) = show(&path);
        if code == Some(1) {
            continue;
        }
        assert_eq!(code, Some(0), "{case:?}: {stderr}");
        let shown: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        let path = |at: usize| shown["files"][at]["path"].as_str().unwrap().to_owned();
        let (first, second) = (path(0), path(1));
        let nested = first.starts_with(&format!("{second}/"));
        assert!(
            first != second && !nested,
            "{case:?} became {first:?} and {second:?}"
        );
    }
}

#[test]
fn symlinks_and_special_files_in_a_files_place_are_not_followed() {
    let root = TempDir::new().unwrap();
    let data = root.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let secret = root.path().join("secret");
    let content = vec![7u8; 100];
    std::fs::write(&secret, &content).unwrap();
    let torrent = write(
        &root,
        "x.torrent",
        &info_with("pieces", sha1(&content).to_vec()),
    );
    let place = data.join("x");

    std::os::unix::fs::symlink(&secret, &place).unwrap();
    refuses_to_seed(&torrent, &data, "a symlink out of the root");
    std::fs::remove_file(&place).unwrap();

    run_ok(
        "mkfifo",
        std::process::Command::new("mkfifo").arg(&place),
        SHORT,
    );
    refuses_to_seed(&torrent, &data, "a FIFO");
    std::fs::remove_file(&place).unwrap();

    std::fs::create_dir(&place).unwrap();
    refuses_to_seed(&torrent, &data, "a folder");
    std::fs::remove_dir(&place).unwrap();

    refuses_to_seed(&torrent, &data, "nothing");
    // The same torrent with its file in place is seeded: the refusals above were for their reasons.
    std::fs::write(&place, &content).unwrap();
    let server = Seed::torrent(&torrent, &data)
        .options(["--no-tracker"])
        .start();
    let parsed = server.torrent(0);
    seedring_tests::oracle::assert_serves(&server, &parsed, &[0]);
}

fn refuses_to_seed(torrent: &Path, data: &Path, what: &str) {
    let (mut process, _state) = Seed::torrent(torrent, data)
        .options(["--no-tracker"])
        .launch();
    let status = process.wait_exit(SHORT);
    assert_eq!(
        status.code(),
        Some(1),
        "{what}: {status}\n{}",
        process.transcript()
    );
    assert!(
        process.stderr().contains('x'),
        "{what}: {}",
        process.stderr()
    );
}
