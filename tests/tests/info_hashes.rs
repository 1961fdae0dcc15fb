//! Info-hashes of `create` beside those of other makers, and `show` beside `transmission-show`.
//!
//! Not every maker writes the same `info` dictionary for the same content, so where one adds a key the test
//! says which, and asks `create` for the same.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use seedring_tests::clients::{libtorrent_python, script};
use seedring_tests::content::{MIB, main_job_folder, write_file};
use seedring_tests::need;
use seedring_tests::process::run_ok;
use seedring_tests::server::{SHORT, seedring};
use seedring_tests::skip::{Skip, program};
use seedring_tests::torrent::{Torrent, hex, sha1};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// log2 of the piece size.
const PIECE_BITS: u32 = 17;

/// Content to make torrents of: a folder, a file, and a folder whose order of files is easy to get wrong.
fn contents(root: &Path) -> Vec<PathBuf> {
    let folder = root.join("Ordner ä");
    main_job_folder(&folder, 3 * MIB);
    let file = root.join("single file.bin");
    write_file(&file, 2 * MIB + 1, 41);
    let order = root.join("order");
    let names = [
        "a/z", "a.b", "a-b/y", "B/x", "b2", "a b", "é", "z/1", "z/10", "z/2",
    ];
    for (seed, name) in (0..).zip(names) {
        write_file(&order.join(name), 100_000, seed);
    }
    vec![folder, file, order]
}

fn create(path: &Path, torrent: &Path, more: &[&str]) -> Torrent {
    let mut arguments: Vec<OsString> = vec!["create".into(), path.into(), "-o".into()];
    arguments.push(torrent.into());
    arguments.extend([
        "--piece-size".into(),
        (1u32 << PIECE_BITS).to_string().into(),
    ]);
    arguments.extend(more.iter().map(Into::into));
    run_ok("create", &seedring(arguments), SHORT);
    Torrent::read(torrent)
}

/// Compares the files in order, the pieces and the info-hash.
fn same(ours: &Torrent, theirs: &Torrent, path: &Path) {
    assert_eq!(ours.name, theirs.name, "{}", path.display());
    assert_eq!(ours.files, theirs.files, "the files of {}", path.display());
    assert_eq!(
        ours.pieces,
        theirs.pieces,
        "the pieces of {}",
        path.display()
    );
    let show = |info: &[u8]| String::from_utf8_lossy(&info[..info.len().min(300)]).into_owned();
    assert_eq!(
        ours.info_hash_hex(),
        theirs.info_hash_hex(),
        "the info-hash of {}:\n{}\n{}",
        path.display(),
        show(&ours.info),
        show(&theirs.info)
    );
}

/// Content that Transmission treats as others do: it leaves out empty files and sorts without regard to case
/// and with non-ASCII first, so the order of pieces would differ.
fn plain_contents(root: &Path) -> Vec<PathBuf> {
    let file = root.join("single file.bin");
    write_file(&file, 2 * MIB + 1, 41);
    let folder = root.join("Ordner ä");
    for (seed, name) in (0..).zip(["a/b/large.bin", "b c/small.bin", "e/é – ✓.txt"]) {
        write_file(&folder.join(name), 700_000 * (seed + 1), seed);
    }
    vec![file, folder]
}

/// Compares with another maker; `make` is its command for a path and a .torrent file.
fn compare(
    contents: fn(&Path) -> Vec<PathBuf>,
    make: impl Fn(&Path, &Path) -> Command,
    adapt: impl Fn(Torrent) -> Torrent,
) {
    let root = TempDir::new().unwrap();
    for path in contents(root.path()) {
        let (ours, theirs) = (
            root.path().join("ours.torrent"),
            root.path().join("theirs.torrent"),
        );
        let ours_parsed = create(&path, &ours, &[]);
        run_ok("the other maker", &make(&path, &theirs), SHORT);
        same(&ours_parsed, &adapt(Torrent::read(&theirs)), &path);
        std::fs::remove_file(ours).unwrap();
        std::fs::remove_file(theirs).unwrap();
    }
}

#[test]
fn libtorrent_agrees() {
    let python = need!("libtorrent_agrees", libtorrent_python());
    let make = |path: &Path, torrent: &Path| {
        let mut command = Command::new(&python);
        command
            .arg(script("libtorrent_create.py"))
            .arg(path)
            .arg(torrent);
        command.arg((1u32 << PIECE_BITS).to_string());
        command
    };
    compare(contents, make, |torrent| torrent);
}

#[test]
fn mktorrent_agrees() {
    let mktorrent = need!("mktorrent_agrees", program("mktorrent", "mktorrent"));
    let make = |path: &Path, torrent: &Path| {
        let mut command = Command::new(&mktorrent);
        command
            .args(["-l", &PIECE_BITS.to_string(), "-o"])
            .arg(torrent)
            .arg(path);
        command
    };
    compare(contents, make, |torrent| torrent);
}

#[test]
fn transmission_create_agrees() {
    let maker = program("transmission-create", "transmission-cli");
    let maker = need!("transmission_create_agrees", maker);
    let make = |path: &Path, torrent: &Path| {
        let mut command = Command::new(&maker);
        let kib = (1u32 << PIECE_BITS) / 1024;
        command
            .args(["-s", &kib.to_string(), "-o"])
            .arg(torrent)
            .arg(path);
        command
    };
    compare(plain_contents, make, without_private_zero);
}

/// Transmission 3 writes `private` = 0 where the key means nothing; others leave it out.
fn without_private_zero(mut torrent: Torrent) -> Torrent {
    const KEY: &[u8] = b"7:privatei0e";
    let info = &torrent.info;
    assert!(
        info.ends_with(&[KEY, b"e"].concat()),
        "Transmission's last key is private = 0"
    );
    let kept = info[..info.len() - KEY.len() - 1].to_vec();
    torrent.info = [kept, b"e".to_vec()].concat();
    torrent.info_hash = sha1(&torrent.info);
    torrent
}

#[test]
fn transmission_create_agrees_to_the_bit_on_private_torrents() {
    let test = "transmission_create_agrees_to_the_bit_on_private_torrents";
    let maker = need!(test, program("transmission-create", "transmission-cli"));
    let root = TempDir::new().unwrap();
    for path in plain_contents(root.path()) {
        let (ours, theirs) = (
            root.path().join("ours.torrent"),
            root.path().join("theirs.torrent"),
        );
        let tracker = "http://tracker.example/announce";
        let ours_parsed = create(
            &path,
            &ours,
            &["--private", "--tracker", tracker, "--force"],
        );
        let mut command = Command::new(&maker);
        let kib = (1u32 << PIECE_BITS) / 1024;
        command
            .args(["-p", "-s", &kib.to_string(), "-t", tracker, "-o"])
            .arg(&theirs)
            .arg(&path);
        run_ok("transmission-create", &command, SHORT);
        same(&ours_parsed, &Torrent::read(&theirs), &path);
        std::fs::remove_file(theirs).unwrap();
    }
}

#[test]
fn creating_twice_makes_the_same_bytes() {
    let root = TempDir::new().unwrap();
    for path in contents(root.path()) {
        let [first, second] = ["1.torrent", "2.torrent"].map(|name| root.path().join(name));
        for torrent in [&first, &second] {
            create(&path, torrent, &["--creation-date", "none", "--force"]);
        }
        let [first, second] = [first, second].map(|torrent| std::fs::read(torrent).unwrap());
        assert!(first == second, "{} differs", path.display());
    }
}

fn show(torrent: &Path) -> serde_json::Value {
    let arguments: [OsString; 3] = ["show".into(), "--json".into(), torrent.into()];
    serde_json::from_str(&run_ok("show", &seedring(arguments), SHORT)).unwrap()
}

/// The torrents of every other maker that is installed, with trackers and comments.
fn foreign_torrents(root: &Path) -> Result<Vec<PathBuf>, Skip> {
    let transmission = program("transmission-create", "transmission-cli")?;
    let mktorrent = program("mktorrent", "mktorrent")?;
    let python = libtorrent_python()?;
    let mut torrents = Vec::new();
    for (number, path) in contents(root).into_iter().enumerate() {
        let name = |maker: &str| root.join(format!("{maker}{number}.torrent"));
        let trackers = ["http://one.example/announce", "http://two.example/announce"];
        let mut command = Command::new(&transmission);
        command.args(["-t", trackers[0], "-t", trackers[1], "-c", "a remark", "-o"]);
        run_ok(
            "transmission-create",
            command.arg(name("t")).arg(&path),
            SHORT,
        );
        let mut command = Command::new(&mktorrent);
        command.args(["-p", "-a", trackers[0], "-a", trackers[1], "-c", "remark"]);
        command.args(["-s", "SRC", "-w", "http://seed.example/", "-o"]);
        run_ok("mktorrent", command.arg(name("m")).arg(&path), SHORT);
        let mut command = Command::new(&python);
        command
            .arg(script("libtorrent_create.py"))
            .arg(&path)
            .arg(name("l"))
            .arg("32768");
        run_ok("libtorrent", &command, SHORT);
        torrents.extend(["t", "m", "l"].map(name));
    }
    Ok(torrents)
}

#[test]
fn show_agrees_with_transmission_show() {
    let test = "show_agrees_with_transmission_show";
    let transmission = need!(test, program("transmission-show", "transmission-cli"));
    let root = TempDir::new().unwrap();
    for torrent in need!(test, foreign_torrents(root.path())) {
        let theirs = run_ok(
            "transmission-show",
            Command::new(&transmission).arg(&torrent),
            SHORT,
        );
        let line = |key: &str| {
            let line = theirs
                .lines()
                .find_map(|line| line.trim().strip_prefix(key));
            line.map(|value| value.trim().to_owned())
        };
        let ours = show(&torrent);
        let at = torrent.display();
        assert_eq!(
            line("Hash:").as_deref(),
            ours["info_hash_v1"].as_str(),
            "{at}"
        );
        assert_eq!(line("Name:").as_deref(), ours["name"].as_str(), "{at}");
        assert_eq!(
            line("Piece Count:"),
            Some(ours["pieces"].to_string()),
            "{at}"
        );
        assert_eq!(
            line("Comment:").as_deref(),
            ours["comment"].as_str(),
            "{at}"
        );
        let private = ours["private"].as_bool().unwrap();
        assert_eq!(
            line("Privacy:").unwrap().starts_with("Private"),
            private,
            "{at}"
        );
        for tier in ours["trackers"].as_array().unwrap() {
            for tracker in tier.as_array().unwrap() {
                assert!(
                    theirs.contains(tracker.as_str().unwrap()),
                    "{at}: {tracker}"
                );
            }
        }
        for file in ours["files"].as_array().unwrap() {
            let path = file["path"].as_str().unwrap();
            let line = theirs
                .lines()
                .find(|line| line.contains(&format!("{path} (")));
            assert!(
                line.is_some(),
                "{at}: transmission-show has no {path}:\n{theirs}"
            );
        }
    }
}

#[test]
fn show_reads_what_each_maker_wrote() {
    let root = TempDir::new().unwrap();
    let torrents = need!(
        "show_reads_what_each_maker_wrote",
        foreign_torrents(root.path())
    );
    for torrent in torrents {
        let (ours, parsed) = (show(&torrent), Torrent::read(&torrent));
        let at = torrent.display();
        assert_eq!(ours["info_hash_v1"], hex(&sha1(&parsed.info)), "{at}");
        assert_eq!(ours["info_hash_v2"], serde_json::Value::Null, "{at}");
        assert_eq!(ours["length"], parsed.length(), "{at}");
        assert_eq!(ours["piece_length"], parsed.piece_length, "{at}");
        assert_eq!(ours["pieces"], parsed.pieces.len(), "{at}");
        assert!(
            ours["magnet"]
                .as_str()
                .unwrap()
                .contains(&parsed.info_hash_hex()),
            "{at}"
        );
        let files = ours["files"].as_array().unwrap();
        assert_eq!(files.len(), parsed.files.len(), "{at}");
        for (ours, theirs) in files.iter().zip(&parsed.files) {
            assert_eq!(ours["length"], theirs.length, "{at}");
            assert!(
                ours["path"]
                    .as_str()
                    .unwrap()
                    .ends_with(theirs.path.to_str().unwrap()),
                "{at}"
            );
            assert_eq!(ours["pad"], false, "{at}");
        }
        let from_magnet: [OsString; 3] = [
            "show".into(),
            "--json".into(),
            ours["magnet"].as_str().unwrap().into(),
        ];
        let shown = run_ok("show magnet", &seedring(from_magnet), SHORT);
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(shown["info_hash_v1"], ours["info_hash_v1"], "{at}");
    }
}
