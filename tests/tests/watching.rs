//! Watch folders of `serve`: what is put into them is added, whatever it is and however it comes.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use rustix::fs::{CWD, FileType, Mode, mknodat};
use seedring_tests::content::write_file;
use seedring_tests::process::run_ok;
use seedring_tests::served::{Served, said};
use seedring_tests::server::{SHORT, seedring};
use seedring_tests::skip::{Skip, is_root};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A watch on the folder `in`, with a short patience for what is no torrent.
const WATCH: &str = "[[watch]]\npath = \"@/in\"\nsave_path = \"@/data\"\nsettle_s = 1\n";

const LINK: &str = "magnet:?xt=urn:btih:0123456789abcdef0123456789abcdef01234567&dn=linked";

/// Makes data below `root` and a torrent of them: the torrent's bytes.
fn torrent(root: &Path, name: &str) -> Vec<u8> {
    let data = root.join("data").join(name);
    write_file(&data, 20_000, name.len() as u64);
    let file = root.join(format!("{name}.made"));
    let mut command = seedring(["create"]);
    command.arg(&data).arg("-o").arg(&file);
    run_ok("create", &command, SHORT);
    fs::read(file).unwrap()
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap();
    let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    entries.map(|entry| name(entry.unwrap())).collect()
}

fn wait_for(server: &Served, path: &Path) {
    server.until(&path.display().to_string(), || path.exists());
}

fn metric(server: &Served, result: &str) -> f64 {
    server.metrics()[&format!("seedring_watched_files_total{{result=\"{result}\"}}")]
}

/// What waits when the server starts is added as what comes later is, by the rules of its folder;
/// what is there already is dealt with, too, and links are taken.
#[test]
fn what_is_put_into_a_folder_is_added_by_its_rules() {
    let rules = "recursive = true\ncategory = \"films\"\nlabels = [\"a\", \"b c\"]\npaused = true\n\
                 ratio_permille = 1500\nupload_rate = \"1MB/s\"\n";
    let server = Served::start_configured(&format!("{WATCH}{rules}"), |root| {
        fs::write(root.join("in/early.torrent"), torrent(root, "early")).unwrap();
    });
    let folder = server.path("in");
    wait_for(&server, &folder.join("early.torrent.added"));
    let late = torrent(server.root.path(), "late");
    fs::create_dir_all(folder.join("deep/er")).unwrap();
    fs::write(folder.join("deep/er/late.TORRENT"), &late).unwrap();
    fs::write(folder.join("again.torrent"), &late).unwrap();
    fs::write(folder.join("x.magnet"), LINK).unwrap();
    let url = "[InternetShortcut]\r\nURL=magnet:?xt=urn:btih:89abcdef0123456789abcdef0123456789abcdef\r\n";
    fs::write(folder.join("y.url"), url).unwrap();
    // Not ours.
    fs::write(folder.join("note.txt"), "x").unwrap();
    fs::write(folder.join(".hidden.torrent"), &late).unwrap();
    for name in [
        "deep/er/late.TORRENT.added",
        "again.torrent.added",
        "x.magnet.added",
        "y.url.added",
    ] {
        wait_for(&server, &folder.join(name));
    }
    let torrents = server.torrents();
    assert_eq!(torrents.len(), 4, "{torrents:?}");
    for torrent in &torrents {
        assert_eq!(torrent["status"], "paused");
        assert_eq!(torrent["category"], "films");
        assert_eq!(torrent["labels"], serde_json::json!(["a", "b c"]));
        assert_eq!(torrent["save_path"], server.path("data").to_str().unwrap());
        assert_eq!(torrent["limits"]["ratio_permille"], 1500, "{torrent}");
        assert_eq!(torrent["limits"]["upload_rate"], 1_000_000);
    }
    assert_eq!(metric(&server, "added"), 4.0);
    assert_eq!(metric(&server, "present"), 1.0);
    let left = ["deep", "note.txt", ".hidden.torrent"];
    for name in left {
        assert!(names(&folder).contains(name), "{name}");
    }
}

/// A file that is being written is not taken for what it is so far, and not for wrong, either.
#[test]
fn a_file_that_is_written_slowly_is_added_when_it_is_whole() {
    // Somebody who stops for longer than the usual patience would be taken for done.
    let patient = WATCH.replace("settle_s = 1\n", "");
    let server = Served::start_configured(&patient, |_| {});
    let folder = server.path("in");
    let bytes = torrent(server.root.path(), "slow");
    let mut file = fs::File::create(folder.join("slow.torrent")).unwrap();
    // Slowly enough for the watch to see several parts of it.
    let parts: Vec<&[u8]> = bytes.chunks(bytes.len().div_ceil(8)).collect();
    for part in parts {
        assert!(!folder.join("slow.torrent.added").exists());
        file.write_all(part).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(400));
    }
    drop(file);
    wait_for(&server, &folder.join("slow.torrent.added"));
    assert_eq!(server.torrents().len(), 1);
    assert_eq!(metric(&server, "invalid"), 0.0);
}

/// What is no torrent is put aside with its reason, once; what is no file is neither followed nor
/// waited for; names are logged without their control characters.
#[test]
fn what_is_no_torrent_is_put_aside_and_holds_up_nobody() {
    let server = Served::start_configured(WATCH, |root| {
        let folder = root.join("in");
        fs::write(folder.join("cut.torrent"), &torrent(root, "cut")[..100]).unwrap();
        fs::write(folder.join("empty.torrent"), "").unwrap();
        fs::write(folder.join("two.magnet"), format!("{LINK}\n{LINK}\n")).unwrap();
        let odd = OsStr::from_bytes(b"\x1b[2J\n\xffodd.torrent");
        fs::write(folder.join(odd), "d1:e").unwrap();
        let huge = fs::File::create(folder.join("huge.torrent")).unwrap();
        huge.set_len(1 << 40).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.join("link.torrent")).unwrap();
        let pipe = folder.join("pipe.torrent");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        fs::create_dir(folder.join("folder.torrent")).unwrap();
        fs::write(folder.join("good.torrent"), torrent(root, "good")).unwrap();
    });
    let folder = server.path("in");
    wait_for(&server, &folder.join("good.torrent.added"));
    for name in ["cut.torrent", "empty.torrent", "two.magnet", "huge.torrent"] {
        wait_for(&server, &folder.join(format!("{name}.invalid")));
    }
    server.until("all five", || {
        let invalid = names(&folder)
            .into_iter()
            .filter(|name| name.ends_with(".invalid"));
        invalid.count() == 5
    });
    assert_eq!(metric(&server, "invalid"), 5.0);
    let left = names(&folder);
    for name in ["link.torrent", "pipe.torrent", "folder.torrent"] {
        assert!(left.contains(name), "{name} of {left:?}");
    }
    assert_eq!(server.torrents().len(), 1);
    // The log is written by a thread of its own.
    server.until("the reasons", || {
        let log = server.process.stderr();
        log.contains("several links") && log.contains("cut.torrent")
    });
    let log = server.process.stderr();
    assert!(!log.contains('\u{1b}'), "{log}");
}

/// With "keep" nothing in the folder is touched, and what the user has removed stays removed, also
/// after a restart; a file that is written anew is a new one.
#[test]
fn a_file_that_is_kept_is_added_once() {
    let keep = format!("{WATCH}after = \"keep\"\n");
    let mut server = Served::start_configured(&keep, |root| {
        fs::write(root.join("in/a.torrent"), torrent(root, "kept")).unwrap();
        fs::write(root.join("in/wrong.torrent"), "x").unwrap();
    });
    server.wait("torrent", |torrents| torrents.len() == 1);
    server.until("refusal", || metric(&server, "invalid") == 1.0);
    server.ok(["remove", "kept"]);
    server.restart();
    // Whatever the start finds is found before what comes after it.
    let other = torrent(server.root.path(), "other");
    fs::write(server.path("in/b.torrent"), other).unwrap();
    let is_there = |torrents: &[serde_json::Value], name: &str| {
        torrents.iter().any(|torrent| torrent["name"] == *name)
    };
    server.wait("other", |torrents| is_there(torrents, "other"));
    let third = torrent(server.root.path(), "third");
    fs::write(server.path("in/c.torrent"), third).unwrap();
    let torrents = server.wait("third", |torrents| is_there(torrents, "third"));
    assert!(!is_there(&torrents, "kept"), "{torrents:?}");
    assert_eq!(metric(&server, "added"), 2.0);
    assert_eq!(metric(&server, "invalid"), 0.0);
    assert_eq!(names(&server.path("in")).len(), 4, "nothing was touched");
    let again = fs::read(server.path("kept.made")).unwrap();
    fs::remove_file(server.path("in/a.torrent")).unwrap();
    fs::write(server.path("in/a.torrent"), again).unwrap();
    server.wait("it again", |torrents| is_there(torrents, "kept"));
}

/// A folder that is not there is waited for; files are deleted, or moved, also where there is no
/// folder yet.
#[test]
fn folders_come_later_and_files_go_where_they_are_to() {
    let text = "[[watch]]\npath = \"@/later\"\nsave_path = \"@/data\"\nafter = \"delete\"\n\
                [[watch]]\npath = \"@/in\"\nsave_path = \"@/data\"\nafter = \"@/out/done\"\n";
    let server = Served::start_configured(text, |_| {});
    server.until("absence", || {
        server.metrics()["seedring_watch_folders_absent"] == 1.0
    });
    let later = server.path("later");
    fs::create_dir(&later).unwrap();
    fs::write(later.join("a.torrent"), torrent(server.root.path(), "a")).unwrap();
    fs::write(
        server.path("in/bb.torrent"),
        torrent(server.root.path(), "bb"),
    )
    .unwrap();
    server.wait("two torrents", |torrents| torrents.len() == 2);
    let moved = server.path("out/done/bb.torrent");
    wait_for(&server, &moved);
    server.until("deletion", || names(&later).is_empty());
    assert_eq!(server.metrics()["seedring_watch_folders_absent"], 0.0);
    // It goes, and comes back with something in it.
    fs::remove_dir(&later).unwrap();
    server.until("absence again", || {
        server.metrics()["seedring_watch_folders_absent"] == 1.0
    });
    let elsewhere = server.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(
        elsewhere.join("c.torrent"),
        torrent(server.root.path(), "ccc"),
    )
    .unwrap();
    fs::rename(&elsewhere, &later).unwrap();
    server.wait("three torrents", |torrents| torrents.len() == 3);
}

/// Thousands at once are added a few at a time, and the API answers meanwhile.
#[test]
fn a_thousand_files_at_once_are_all_added() {
    let count = 1000;
    let server = Served::start_configured(&format!("{WATCH}paused = true\n"), |root| {
        for number in 0..count {
            let link = LINK.replacen("01234567", &format!("{number:08x}"), 1);
            fs::write(
                root.join(format!("in/{number}.magnet")),
                format!("{link}\n"),
            )
            .unwrap();
        }
    });
    let folder = server.path("in");
    server.until("the last", || {
        names(&folder).iter().all(|name| name.ends_with(".added"))
    });
    assert_eq!(server.torrents().len(), count);
    assert_eq!(metric(&server, "added"), f64::from(1000));
    assert_eq!(metric(&server, "deferred"), 0.0);
}

/// A file that nobody may read is tried again until somebody may.
#[test]
fn a_file_that_cannot_be_read_is_tried_again() {
    if is_root() {
        let why = "root reads files whatever their mode";
        Skip::machine(why).report("a_file_that_cannot_be_read_is_tried_again");
        return;
    }
    let server = Served::start_configured(WATCH, |root| {
        let path = root.join("in/a.torrent");
        fs::write(&path, torrent(root, "a")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    });
    let path = server.path("in/a.torrent");
    server.until("warning", || {
        server.process.stderr().contains("tried again")
    });
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    wait_for(&server, &server.path("in/a.torrent.added"));
}

/// A configuration in which torrents would add torrents, or files be found again, is refused.
#[test]
fn dangerous_folders_are_refused_before_anything_starts() {
    let root = tempfile::TempDir::new().unwrap();
    let file = root.path().join("seedring.toml");
    let refused = |text: &str| {
        let text = text.replace('@', root.path().to_str().unwrap());
        fs::write(&file, text).unwrap();
        let mut command = seedring(["config", "check"]);
        command.arg(&file);
        let said = said(&command);
        assert_eq!(said.code, 2, "{said:?}");
        said.stderr
    };
    let watch = |path: &str, more: &str| format!("[[watch]]\npath = \"{path}\"\n{more}");
    let cases = [
        (watch("relative", ""), "watch.path"),
        (watch("@/a/../b", ""), "watch.path"),
        ("[[watch]]\npaused = true\n".to_owned(), "is missing"),
        (watch("@/a", "") + &watch("@/a", ""), "would both add"),
        (
            watch("@/a", "recursive = true\n") + &watch("@/a/b", ""),
            "would both add",
        ),
        (watch("@/a", "save_path = \"@/a\"\n"), "data of torrents"),
        (watch("@/a/b", "save_path = \"@/a\"\n"), "data of torrents"),
        (
            watch("@/a", "recursive = true\nsave_path = \"@/a/b\"\n"),
            "data of torrents",
        ),
        (
            watch("@/a", "") + "[library]\nsave_path = \"@/a\"\n",
            "data of torrents",
        ),
        (watch("@/a", "after = \"@/a\"\n"), "found there again"),
        (watch("@/a", "after = \"move\"\n"), "watch.after"),
        (watch("@/a", "catgory = \"x\"\n"), "did you mean category?"),
    ];
    for (text, expected) in cases {
        let error = refused(&text);
        assert!(error.contains(expected), "{text}\n{error}");
        assert!(error.contains("seedring.toml:"), "{error}");
    }
    let good: PathBuf = root.path().join("good.toml");
    let text = watch("@/a", "save_path = \"@/b\"\nafter = \"@/a/done\"\n");
    fs::write(&good, text.replace('@', root.path().to_str().unwrap())).unwrap();
    let mut command = seedring(["config", "check"]);
    command.arg(&good);
    assert_eq!(said(&command).code, 0);
}
