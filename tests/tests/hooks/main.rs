//! Hooks of `serve`: real programs and real web servers are told what happens to torrents.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

mod web;

use rustix::process::Signal;
use seedring_tests::content::write_file;
use seedring_tests::process::{Process, run_ok};
use seedring_tests::served::{Served, said};
use seedring_tests::server::{SHORT, Seed, seedring};
use seedring_tests::torrent::Torrent;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Writes a program into `root`.
fn script(root: &Path, name: &str, body: &str) {
    let path = root.join(name);
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// What a file says so far, a line each.
fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn metric(server: &Served, result: &str) -> f64 {
    server.metrics()[&format!("seedring_hooks_total{{result=\"{result}\"}}")]
}

/// Adds a torrent, paused, of data that are there: its info-hash.
fn add(server: &Served, name: &str, more: &[&str]) -> String {
    let torrent = server.make(name, 20_000);
    let data = server.path("data");
    let (file, data) = (torrent.to_str().unwrap(), data.to_str().unwrap());
    server.ok(["add", file, "-d", data, "--paused"].iter().chain(more));
    Torrent::read(&torrent).info_hash_hex()
}

/// One after another, with names that would be commands, options or lines elsewhere: each is one
/// argument, no shell reads it, and nothing that configures the server is in the environment.
#[test]
fn a_program_is_told_all_in_order_and_no_name_is_read_by_a_shell() {
    let text = "[[hook]]\non = [\"added\", \"removed\"]\n\
                run = [\"@/told\", \"{event}\", \"{name}\", \"--name={name}\", \"{info_hash}\", \"{{}}\"]\n";
    let server = Served::start_configured(text, |root| {
        let body = format!(
            "out='{}/out'\nfor argument; do printf '%s\\0' \"$argument\"; done >> \"$out/arguments\"\n\
             env -0 | sort -z >> \"$out/environment\"\n\
             ls -l /proc/$$/fd >> \"$out/descriptors\"\n\
             printf '%s %s\\n' \"$SEEDRING_EVENT\" \"$(pwd)\" >> \"$out/done\"",
            root.display()
        );
        script(root, "told", &body);
    });
    let name = "-rf $(touch pwned) `id`; \"x'";
    let hash = add(&server, name, &[]);
    let done = server.path("out/done");
    server.until("added", || lines(&done).len() == 1);
    server.ok(["remove", &hash]);
    server.until("removed", || lines(&done).len() == 2);
    assert_eq!(lines(&done), ["added /", "removed /"]);
    let arguments = fs::read_to_string(server.path("out/arguments")).unwrap();
    let arguments: Vec<_> = arguments.split('\0').collect();
    let safe = name.replacen('-', "_", 1);
    let named = format!("--name={name}");
    assert_eq!(arguments[..5], ["added", &safe, &named, &hash, "{}"]);
    assert_eq!(arguments[5], "removed");
    let environment = fs::read_to_string(server.path("out/environment")).unwrap();
    let data = server.path("data");
    for expected in [
        "SEEDRING_EVENT=added".to_owned(),
        format!("SEEDRING_NAME={name}"),
        format!("SEEDRING_INFO_HASH={hash}"),
        format!("SEEDRING_SAVE_PATH={}", data.display()),
        "SEEDRING_BYTES=20000".to_owned(),
    ] {
        assert!(
            environment.split('\0').any(|it| it == expected),
            "{expected}"
        );
    }
    assert!(
        !environment.contains("SEEDRING_API__LISTEN"),
        "our own setting is told"
    );
    let descriptors = fs::read_to_string(server.path("out/descriptors")).unwrap();
    assert!(descriptors.contains("/dev/null") && descriptors.contains("pipe:"));
    for ours in ["socket:", "anon_inode:", ".redb"] {
        assert!(!descriptors.contains(ours), "{descriptors}");
    }
    assert_eq!(metric(&server, "ok"), 2.0);
}

/// A program that fails, one that hangs with a child of its own, and one that floods its output:
/// each ends, is counted, and holds up neither the server nor the others.
#[test]
fn programs_that_fail_hang_and_flood_are_ended_and_counted() {
    let hook =
        |name: &str| format!("[[hook]]\non = [\"added\"]\nrun = [\"@/{name}\"]\ntimeout_s = 1\n");
    let text: String = ["fails", "hangs", "floods", "absent"].map(hook).concat();
    let server = Served::start_configured(&text, |root| {
        let out = root.join("out");
        let out = out.display();
        script(root, "fails", "printf 'wh\\033[2Jy\\n' >&2; exit 3");
        let hangs =
            format!("trap '' TERM\nsleep 1000 &\necho $! > '{out}/child'\nwait; wait; sleep 1000");
        script(root, "hangs", &hangs);
        script(
            root,
            "floods",
            &format!("head -c 50000000 /dev/zero; touch '{out}/flooded'"),
        );
        // It goes between the check and the first event.
        script(root, "absent", "exit 0");
    });
    fs::remove_file(server.path("absent")).unwrap();
    add(&server, "one", &[]);
    server.until("flood", || server.path("out/flooded").exists());
    server.until("end of what hangs", || metric(&server, "timeout") == 1.0);
    let child = fs::read_to_string(server.path("out/child")).unwrap();
    let child = PathBuf::from("/proc").join(child.trim());
    server.until("end of its child", || {
        let state = fs::read_to_string(child.join("stat")).unwrap_or_default();
        state.is_empty() || state.contains(") Z ")
    });
    server.until("the others", || metric(&server, "failed") == 2.0);
    server.until("the flood's count", || metric(&server, "ok") == 1.0);
    server.until("the reasons", || {
        let log = server.process.stderr();
        log.contains("a hook has failed") && log.contains("a hook cannot be run")
    });
    let log = server.process.stderr();
    assert!(log.contains("wh"), "{log}");
    assert!(
        !log.contains('\u{1b}') && log.len() < 100_000,
        "{}",
        log.len()
    );
    assert_eq!(server.torrents().len(), 1);
}

/// Filters say of which torrents a hook is told.
#[test]
fn a_hook_is_told_of_the_torrents_that_it_asks_for() {
    let hook = |filter: &str, out: &str| {
        format!(
            "[[hook]]\non = [\"added\"]\n{filter}\nrun = [\"@/told\", \"{out}\", \"{{name}}\"]\n"
        )
    };
    let filters = ["", "categories = [\"films\"]", "labels = [\"x\", \"y\"]"];
    let hooks = filters.iter().zip(["all", "films", "labels"]);
    let text: String = hooks.map(|(filter, out)| hook(filter, out)).collect();
    let server = Served::start_configured(&text, |root| {
        script(
            root,
            "told",
            &format!("echo \"$2\" >> '{}/out/'\"$1\"", root.display()),
        );
    });
    add(&server, "plain", &[]);
    add(&server, "film", &["--category", "films"]);
    add(&server, "labelled", &["--label", "y"]);
    server.until("all", || metric(&server, "ok") == 5.0);
    let told = |out: &str| {
        let mut told = lines(&server.path("out").join(out));
        told.sort();
        told
    };
    assert_eq!(told("all"), ["film", "labelled", "plain"]);
    assert_eq!(told("films"), ["film"]);
    assert_eq!(told("labels"), ["labelled"]);
}

/// A torrent that is downloaded is told once, with what it is; one whose data were there is not
/// told as completed, and one whose data go away is told as offline.
#[test]
fn a_download_is_told_when_it_is_complete_and_data_when_they_are_away() {
    let text = "[[hook]]\non = [\"added\", \"completed\", \"offline\", \"error\"]\nlabels = [\"told\"]\n\
                run = [\"@/told\", \"{event}\", \"{name}\"]\n";
    let mut server = Served::start_configured(text, |root| {
        script(
            root,
            "told",
            &format!("echo \"$1 $2\" >> '{}/out/told'", root.display()),
        );
    });
    let told = server.path("out/told");
    let there = add(&server, "there", &["--label", "told"]);
    server.ok(["resume", &there]);
    server.wait_status("seeding");
    let seed = server.path("seed");
    write_file(&seed.join("wanted"), 300_000, 5);
    let file = server.path("wanted.torrent");
    let mut command = seedring(["create"]);
    command.arg(seed.join("wanted")).arg("-o").arg(&file);
    run_ok("create", &command, SHORT);
    let seeder = Seed::torrent(&file, &seed).start();
    let peer = seeder.address().to_string();
    let into = server.path("into");
    let (path, into) = (file.to_str().unwrap(), into.to_str().unwrap());
    server.ok(["add", path, "-d", into, "--label", "told", "--peer", &peer]);
    server.until("completion", || lines(&told).len() == 3);
    assert_eq!(
        lines(&told),
        ["added there", "added wanted", "completed wanted"]
    );
    // A restart tells nothing of it again.
    server.restart();
    server.wait_status("seeding");
    fs::rename(server.path("data"), server.path("away")).unwrap();
    server.ok(["recheck", &there]);
    server.until("offline", || lines(&told).len() == 4);
    assert_eq!(lines(&told)[3], "offline there");
}

/// A download that cannot go on is told with the reason: once, also over a restart, and again when
/// somebody has had it go on and it has failed once more.
#[test]
fn a_download_that_fails_is_told_with_the_reason() {
    let text = "[[hook]]\non = [\"added\", \"completed\", \"offline\", \"error\"]\n\
                run = [\"@/told\", \"{event}\", \"{name}\", \"{error}\"]\n";
    let mut server = Served::start_configured(text, |root| {
        let body = format!("echo \"$1 $2: $3\" >> '{}/out/told'", root.display());
        script(root, "told", &body);
    });
    let told = server.path("out/told");
    let torrent = server.make("wanted", 300_000);
    let seeder = Seed::torrent(&torrent, &server.path("data")).start();
    let peer = seeder.address().to_string();
    // What is not ours stands in the file's place, and stays.
    let into = server.path("into");
    let foreign = into.join("wanted/foreign");
    write_file(&foreign, 10, 1);
    let (file, into) = (torrent.to_str().unwrap(), into.to_str().unwrap());
    server.ok(["add", file, "-d", into, "--peer", &peer]);
    server.until("failure", || lines(&told).len() == 2);
    server.wait_status("failed");
    let is_error =
        |line: &String| line.starts_with("error wanted: ") && line.contains("into/wanted");
    let now = lines(&told);
    assert_eq!(now[0], "added wanted: ");
    assert!(is_error(&now[1]), "{now:?}");
    server.restart();
    server.wait_status("failed");
    server.ok(["resume", "wanted"]);
    server.until("failure", || {
        // Until it has been checked nobody is taken, and when it has failed again nobody is.
        let _ = server.say(["peers", "wanted", "--add", &peer]);
        lines(&told).len() == 3
    });
    let now = lines(&told);
    assert!(is_error(&now[2]), "{now:?}");
    assert!(foreign.exists());
}

/// What was not told is told at the next start, also after kill -9, and what was told is not.
#[test]
fn what_was_not_told_before_the_end_is_told_after_it() {
    let text = "[[hook]]\non = [\"added\"]\nconcurrency = 1\nrun = [\"@/told\", \"{name}\"]\n";
    let mut server = Served::start_configured(text, |root| {
        let out = root.join("out");
        let body = format!(
            "echo \"$1\" >> '{0}/begun'\n[ -e '{0}/free' ] || sleep 1000\necho \"$1\" >> '{0}/told'",
            out.display()
        );
        script(root, "told", &body);
        fs::write(out.join("free"), "").unwrap();
    });
    let (begun, told) = (server.path("out/begun"), server.path("out/told"));
    add(&server, "first", &[]);
    server.until("first", || metric(&server, "ok") == 1.0);
    fs::remove_file(server.path("out/free")).unwrap();
    add(&server, "second", &[]);
    add(&server, "third", &[]);
    server.until("begun", || lines(&begun).len() == 2);
    server.process.signal(Signal::KILL);
    server.process.wait_exit(SHORT);
    // It may have been the last word of the one that was told.
    let had = lines(&begun).len();
    server.again();
    server.until("second again", || lines(&begun).len() == had + 1);
    fs::write(server.path("out/free"), "").unwrap();
    // The end does not wait for what hangs, and what it ended is told once more.
    server.restart();
    server.until("both", || lines(&told).len() == 3);
    assert_eq!(lines(&told), ["first", "second", "third"]);
    server.restart();
    add(&server, "fourth", &[]);
    server.until("fourth", || lines(&told).len() == 4);
    assert_eq!(
        lines(&told)[3],
        "fourth",
        "nothing is told twice that was told"
    );
}

/// What cannot be meant is refused before anything starts.
#[test]
fn hooks_that_cannot_be_are_refused() {
    let root = tempfile::TempDir::new().unwrap();
    let file = root.path().join("seedring.toml");
    let cases = [
        ("run = [\"/bin/true\"]", "hook.on"),
        ("on = [\"finished\"]\nrun = [\"/bin/true\"]", "hook.on"),
        ("on = [\"added\"]", "run and url are both missing"),
        (
            "on = [\"added\"]\nrun = [\"/bin/true\"]\nurl = \"http://x/\"",
            "run or url",
        ),
        ("on = [\"added\"]\nrun = [\"true\"]", "absolute path"),
        (
            "on = [\"added\"]\nrun = [\"/absent/program\"]",
            "/absent/program",
        ),
        (
            "on = [\"added\"]\nrun = [\"/bin/true\", \"{nme}\"]",
            "entry 2",
        ),
        ("on = [\"added\"]\nurl = \"ftp://x/\"", "hook.url"),
        (
            "on = [\"added\"]\nurl = \"https://me:pw123@x/\"",
            "hook.url",
        ),
        (
            "on = [\"added\"]\nurl = \"https://x/\"\nsecret_file = \"absent\"",
            "hook.secret_file",
        ),
        (
            "on = [\"added\"]\nrun = [\"/bin/true\"]\ntoken_file = \"x\"",
            "a program reads its own",
        ),
    ];
    for (text, expected) in cases {
        fs::write(&file, format!("[[hook]]\n{text}\n")).unwrap();
        let mut command = seedring(["config", "check"]);
        command.arg(&file);
        let said = said(&command);
        assert_eq!(said.code, 2, "{text}: {said:?}");
        assert!(said.stderr.contains(expected), "{text}: {}", said.stderr);
        assert!(!said.stderr.contains("pw123"), "{}", said.stderr);
    }
}

/// A reload takes other hooks and other watch folders; one with a mistake changes nothing.
#[test]
fn a_reload_takes_other_hooks_and_watches() {
    let hook = |word: &str| {
        format!("[[hook]]\non = [\"added\"]\nrun = [\"@/told\", \"{word}\", \"{{name}}\"]\n")
    };
    let server = Served::start_configured(&hook("before"), |root| {
        let body = format!("echo \"$1 $2\" >> '{}/out/told'", root.display());
        script(root, "told", &body);
    });
    let told = server.path("out/told");
    add(&server, "one", &[]);
    server.until("one", || lines(&told).len() == 1);
    let reload = |text: &str, word: &str| {
        let text = text.replace('@', server.root.path().to_str().unwrap());
        fs::write(server.path("seedring.toml"), text).unwrap();
        server.process.signal(Signal::HUP);
        server.until(word, || server.process.stderr().contains(word));
    };
    reload("[[hook]]\non = [\"added\"]\n", "stays as it was");
    add(&server, "two", &[]);
    server.until("two", || lines(&told).len() == 2);
    let watch = "[[watch]]\npath = \"@/in\"\nsave_path = \"@/data\"\npaused = true\n";
    reload(&format!("{}{watch}", hook("after")), "read again");
    let third = server.make("three", 20_000);
    fs::copy(third, server.path("in/three.torrent")).unwrap();
    server.until("three", || lines(&told).len() == 3);
    assert_eq!(lines(&told), ["before one", "before two", "after three"]);
    reload("", "other folders are watched from now on folders=0");
    let fourth = server.make("four", 20_000);
    fs::copy(&fourth, server.path("in/four.torrent")).unwrap();
    add(&server, "five", &[]);
    assert!(server.path("in/four.torrent").exists());
    assert_eq!(lines(&told).len(), 3);
}

/// A server with hooks that never end stops in its time.
#[test]
fn a_hook_that_never_ends_does_not_hold_up_the_end() {
    let text = "[[hook]]\non = [\"added\"]\nrun = [\"@/hangs\"]\ntimeout_s = 80000\n";
    let mut server = Served::start_configured(text, |root| {
        let body = format!(
            "trap '' TERM\ntouch '{}/out/begun'\nsleep 1000; sleep 1000",
            root.display()
        );
        script(root, "hangs", &body);
    });
    add(&server, "one", &[]);
    let begun = server.path("out/begun");
    server.until("begun", || begun.exists());
    server.process.terminate();
    // What is promised is ten seconds; a machine that does something else is given more.
    server.process.wait_exit(Duration::from_secs(30));
}
