//! The commands that ask a running server, from outside: what they do, print and how they end.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use seedring_tests::certificates::Authority;
use seedring_tests::content::write_file;
use seedring_tests::need;
use seedring_tests::process::Process;
use seedring_tests::served::{Said, Served, said};
use seedring_tests::server::seedring;
use seedring_tests::torrent::Torrent;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// Longest wait for a line of a command that goes on.
const LONG: Duration = Duration::from_secs(60);

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A server that seeds one torrent: it, and the .torrent file's path.
fn with_one(name: &str) -> (Served, String) {
    let server = Served::start();
    let torrent = server.make(name, 100_000);
    let data = server.path("data");
    let printed = server.ok(["add", text(&torrent), "-d", text(&data)]);
    assert!(
        printed.starts_with(&format!("added: {name}  ")),
        "{printed}"
    );
    server.wait_status("seeding");
    (server, text(&torrent).to_owned())
}

#[test]
fn a_torrent_is_added_listed_changed_and_removed() {
    let (server, torrent) = with_one("film.bin");
    let hash = Torrent::read(Path::new(&torrent)).info_hash_hex();
    let again = server.say(["add", &torrent, "--json"]);
    assert_eq!(again.code, 0, "{again:?}");
    let wanted = json!({
        "event": "added", "info_hash": hash, "name": "film.bin", "was_there": true
    });
    assert_eq!(again.json(), [wanted]);
    let list = server.ok(["list"]);
    let lines: Vec<&str> = list.lines().collect();
    assert!(lines[0].starts_with("hash      name"), "{list}");
    assert!(
        lines[1].starts_with(&hash[..8]) && lines[1].contains("100%  seeding"),
        "{list}"
    );

    assert_eq!(server.ok(["pause", "film.bin"]), "paused 1 torrent\n");
    server.wait_status("paused");
    let resumed = server.say(["resume", &hash[..6], "--json"]);
    assert_eq!(
        resumed.json(),
        [json!({ "event": "resumed", "done": 1, "failed_total": 0, "failed": [] })]
    );
    server.wait_status("seeding");
    assert_eq!(
        server.ok(["recheck", "--status", "seeding"]),
        "rechecking 1 torrent\n"
    );
    server.wait_status("seeding");

    let data = server.path("data/film.bin");
    assert_eq!(server.ok(["remove", "film.bin"]), "removed 1 torrent\n");
    assert_eq!(server.torrents(), [] as [Value; 0]);
    assert!(data.is_file(), "its data stay");
}

#[test]
fn what_is_kept_of_a_torrent_is_changed_by_commands() {
    let (server, torrent) = with_one("film.bin");
    let hash = Torrent::read(Path::new(&torrent)).info_hash_hex();
    server.ok(["label", &hash, "--add", "old", "--add", "new"]);
    server.ok(["label", "--all", "--remove", "old"]);
    server.ok(["category", "--label", "new", "--set", "films"]);
    server.ok([
        "limit",
        &hash,
        "--up",
        "2MB/s",
        "--ratio",
        "1.5",
        "--at-limit",
        "pause",
    ]);
    server.ok(["rename", &hash, "Film"]);
    let torrents = server.torrents();
    let limits = json!({ "upload_rate": 2_000_000, "ratio_permille": 1500, "at_limit": "pause" });
    assert_eq!(torrents[0]["labels"], json!(["new"]));
    assert_eq!(torrents[0]["category"], "films");
    assert_eq!(torrents[0]["limits"], limits);
    assert_eq!(torrents[0]["name"], "Film");
    assert!(
        server.ok(["label"]).contains("new           1"),
        "{}",
        server.ok(["label"])
    );
    assert!(server.ok(["category"]).contains("films"));
    server.ok([
        "limit",
        &hash,
        "--up",
        "default",
        "--ratio",
        "default",
        "--at-limit",
        "default",
    ]);
    assert_eq!(server.torrents()[0]["limits"], json!({}));
}

#[test]
fn what_is_known_of_a_torrent_is_shown_and_exported() {
    let (server, torrent) = with_one("one.bin");
    let hash = Torrent::read(Path::new(&torrent)).info_hash_hex();
    let info = server.ok(["info", "one.bin"]);
    for wanted in [
        "Name:           one.bin\n",
        &hash,
        "Saved in:",
        "one.bin  97.6 KiB  100%",
    ] {
        assert!(info.contains(wanted), "{wanted}:\n{info}");
    }
    let whole = server.say(["info", &hash, "--json"]).json();
    assert_eq!(whole[0]["torrent"]["info_hash"], *hash);
    assert_eq!(whole[0]["files"]["files"][0]["total_bytes"], 100_000);
    let files = server.say(["files", &hash, "--json"]).json();
    assert_eq!(files[0]["path"], "one.bin");
    assert!(server.ok(["peers", &hash]).starts_with("address"));
    let url = "http://127.0.0.1:9/announce";
    server.ok([
        "trackers",
        &hash,
        "--add",
        url,
        "--add",
        "http://127.0.0.1:8/announce",
    ]);
    server.ok(["trackers", &hash, "--remove", "127.0.0.1:8"]);
    assert_eq!(server.ok(["trackers", &hash, "--urls"]), format!("{url}\n"));
    assert!(
        server
            .ok(["trackers", &hash])
            .contains("http://127.0.0.1:9")
    );

    let copy = server.path("copy.torrent");
    server.ok(["export", &hash, "-o", text(&copy)]);
    assert_eq!(Torrent::read(&copy).info_hash_hex(), hash);
    let there = server.say(["export", &hash, "-o", text(&copy)]);
    assert_eq!(there.code, 1);
    assert!(there.stderr.contains("--force"), "{there:?}");

    let stats = server.ok(["stats"]);
    assert!(
        stats.contains("1 torrent, 97.6 KiB\n") && stats.contains("1 seeding"),
        "{stats}"
    );
    assert!(server.ok(["limit", "--whole-server"]).starts_with("up    "));
    // Not every server takes limits other than its configuration's; it says so.
    let set = server.say(["limit", "--whole-server", "--up", "10MB/s"]);
    match set.code {
        0 => assert_eq!(set.stdout.lines().next(), Some("up    9.53 MiB/s")),
        _ => assert!(set.stderr.contains("limits"), "{set:?}"),
    }
}

#[test]
fn names_that_fit_several_are_refused_and_those_that_fit_none_are_named() {
    let server = Served::start();
    let data = server.path("data");
    for (name, length) in [("a.bin", 20_000), ("b.bin", 30_000)] {
        let torrent = server.make(name, length);
        server.ok(["add", text(&torrent), "-d", text(&data), "--name", "same"]);
    }
    server.wait_status("seeding");
    let refused = server.say(["pause", "same"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("fits 2 torrents"), "{refused:?}");
    let torrents = server.torrents();
    for torrent in &torrents {
        let hash = torrent["info_hash"].as_str().unwrap();
        assert!(
            refused.stderr.contains(&format!("\n  {hash}  same")),
            "{refused:?}"
        );
    }
    server.wait_status("seeding");
    let first = torrents[0]["info_hash"].as_str().unwrap();
    let half = server.say(["pause", first, "nose"]);
    assert_eq!(half.code, 1, "{half:?}");
    assert_eq!(half.stdout, "paused 1 torrent\n");
    assert!(
        half.stderr.contains("nose: the server has no such torrent")
            && half.stderr.contains("1 of 2"),
        "{half:?}"
    );
    assert_eq!(server.say(["info", "nose"]).code, 1);
    for wrong in [
        &["pause"][..],
        &["pause", "x", "--all"],
        &["pause", "x", "--label", "y"],
        &["limit", "--all"],
        &["label", "--all"],
        &["list", "--columns", "nose"],
    ] {
        let said = server.say(wrong.iter().copied());
        assert_eq!(said.code, 2, "{wrong:?}: {said:?}");
    }
}

#[test]
fn data_are_deleted_only_when_somebody_has_said_yes() {
    let (server, _) = with_one("dear.bin");
    let data = server.path("data/dear.bin");
    let refused = server.say(["remove", "dear.bin", "--with-data"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("--yes"), "{refused:?}");
    assert_eq!(server.say(["remove", "--all"]).code, 2);
    assert_eq!(server.torrents().len(), 1);
    assert!(data.is_file());
    server.ok(["remove", "dear.bin", "--with-data", "--yes"]);
    assert_eq!(server.torrents().len(), 0);
    assert!(!data.exists());
}

#[test]
fn of_several_that_are_added_those_that_cannot_be_are_named() {
    let server = Served::start();
    let torrent = server.make("good.bin", 20_000);
    let (broken, data) = (server.path("broken.torrent"), server.path("data"));
    std::fs::write(&broken, "d4:infod").unwrap();
    let line = [
        "add",
        text(&broken),
        text(&torrent),
        "/no/such.torrent",
        "-d",
        text(&data),
    ];
    let added = server.say(line);
    assert_eq!(added.code, 1, "{added:?}");
    assert!(added.stdout.starts_with("added: good.bin"), "{added:?}");
    for wanted in [
        "broken.torrent: ",
        "/no/such.torrent: cannot read it",
        "2 of 3",
    ] {
        assert!(added.stderr.contains(wanted), "{wanted}: {added:?}");
    }
    let folder = server.path("data/folder");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("x"), "data").unwrap();
    server.ok(["add", text(&folder), "--label", "made"]);
    let made = server.say(["list", "--label", "made", "--json"]).json();
    assert_eq!(made[0]["name"], "folder");
}

#[test]
fn data_are_moved_and_files_renamed_and_chosen() {
    let (server, torrent) = with_one("mover.bin");
    let hash = Torrent::read(Path::new(&torrent)).info_hash_hex();
    let other = server.path("other");
    std::fs::create_dir(&other).unwrap();
    let moving = server.ok(["move", "mover.bin", "--to", text(&other)]);
    assert!(moving.starts_with("moving 1 torrent to "), "{moving}");
    server.wait("the move", |torrents| {
        torrents[0]["save_path"] == text(&other) && torrents[0]["status"] == "seeding"
    });
    assert!(other.join("mover.bin").is_file());
    assert!(!server.path("data/mover.bin").exists());
    let path = || server.say(["files", &hash, "--json"]).json()[0]["path"].clone();
    server.ok(["rename", &hash, "--file", "0", "moved.bin"]);
    assert_eq!(path(), "moved.bin");
    let said = server.ok(["rename", &hash, "--path", "moved.bin", "in a/folder"]);
    assert_eq!(said, "renamed to in a/folder\n");
    assert!(path() == "in a/folder" && other.join("in a/folder").is_file());
    server.ok(["rename", &hash, "--path", "in a", "in b"]);
    assert!(other.join("in b/folder").is_file() && !other.join("in a").exists());
    for (from, to, word) in [("nothing", "x", "no file"), ("in b", "../x", "without")] {
        let refused = server.say(["rename", &hash, "--path", from, to]);
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.stderr.contains(word), "{refused:?}");
    }
    assert_eq!(server.ok(["announce", &hash]), "announcing 1 torrent\n");
    assert_eq!(
        server.ok(["peers", &hash, "--add", "127.0.0.1:9"]),
        "asking 1 peer\n"
    );
    let wrong = server.say(["move", "--to", "/", "nose"]);
    assert!(
        wrong.code == 1 && wrong.stderr.contains("nose: "),
        "{wrong:?}"
    );
}

/// How much the files of `set` are wanted.
fn wanted(server: &Served) -> Vec<u64> {
    let files = server.say(["files", "set", "--json"]).json();
    let names: Vec<&str> = files
        .iter()
        .map(|file| file["path"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["set/a.iso", "set/b.nfo", "set/c.iso"]);
    let wanted = files.iter().map(|file| file["priority"].as_u64().unwrap());
    wanted.collect()
}

#[test]
fn what_is_still_to_come_is_chosen_and_queued() {
    let server = Served::start();
    let into = server.path("into");
    std::fs::create_dir(&into).unwrap();
    write_file(&server.path("data/set/a.iso"), 40_000, 1);
    write_file(&server.path("data/set/b.nfo"), 30_000, 2);
    write_file(&server.path("data/set/c.iso"), 50_000, 3);
    let set = server.path("set.torrent");
    let mut create = seedring(["create"]);
    create.arg(server.path("data/set")).arg("-o").arg(&set);
    assert_eq!(said(&create).code, 0);
    let single = server.make("single.bin", 60_000);
    let line = [
        "add",
        text(&set),
        "-d",
        text(&into),
        "--paused",
        "--select",
        "*.iso",
    ];
    server.ok(line);
    server.ok([
        "add",
        text(&single),
        "-d",
        text(&into),
        "--paused",
        "--first",
    ]);
    assert_eq!(wanted(&server), [4, 0, 4]);
    let line = [
        "files",
        "set",
        "--priority",
        "*.nfo=usual",
        "--priority",
        "0=first",
    ];
    assert_eq!(server.ok(line), "changed 2 files\n");
    assert_eq!(wanted(&server), [7, 4, 4]);
    let none = server.say(["files", "set", "--priority", "*.mkv=no"]);
    assert!(
        none.code == 1 && none.stderr.contains("takes none"),
        "{none:?}"
    );
    let places = || {
        let info = server.say(["info", "set", "single.bin", "--json"]).json();
        let place = |info: &Value| info["torrent"]["queue_position"].as_u64();
        (place(&info[0]), place(&info[1]))
    };
    assert_eq!(places(), (Some(1), Some(0)));
    server.ok(["queue", "set", "--before", "single.bin"]);
    assert_eq!(places(), (Some(0), Some(1)));
    server.ok(["queue", "set", "--last"]);
    assert_eq!(places(), (Some(1), Some(0)));
    server.ok(["queue", "single.bin", "--out"]);
    assert_eq!(places(), (Some(0), None));
    assert_eq!(server.say(["queue", "set"]).code, 2);
}

#[test]
fn a_list_is_followed_as_it_changes() {
    let (mut server, torrent) = with_one("watched.bin");
    let hash = Torrent::read(Path::new(&torrent)).info_hash_hex();
    let command = server.command(["list", "--watch", "--json"]);
    let mut watch = Process::spawn("watch", &command);
    let lines = |process: &Process| -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).ok();
        process.stdout().lines().filter_map(parse).collect()
    };
    let first = watch.wait_for("the first line", LONG, |watch| {
        lines(watch).first().cloned()
    });
    assert_eq!(first["info_hash"], *hash);
    server.ok(["label", &hash, "--add", "seen"]);
    watch.wait_for("the change", LONG, |watch| {
        let is_it = |line: &Value| line["torrent"]["labels"] == json!(["seen"]);
        lines(watch).iter().any(is_it).then_some(())
    });
    server.restart();
    watch.wait_for("the server again", LONG, |watch| {
        lines(watch)
            .contains(&json!({ "event": "begins-anew" }))
            .then_some(())
    });
    assert_eq!(
        watch.stderr().matches("waiting for it").count(),
        1,
        "{}",
        watch.stderr()
    );
    server.ok(["remove", &hash]);
    watch.wait_for("the removal", LONG, |watch| {
        let removed = json!({ "event": "removed", "info_hash": hash });
        lines(watch).contains(&removed).then_some(())
    });
}

#[test]
fn who_has_no_server_or_no_right_is_told_what_to_do() {
    let folder = TempDir::new().unwrap();
    let ask = |arguments: &[&str]| -> Said {
        let mut command = seedring(arguments.iter().copied());
        command.env("HOME", folder.path());
        said(&command)
    };
    let nobody = ask(&["list", "--state-dir", text(folder.path())]);
    assert_eq!(
        (nobody.code, nobody.stderr.lines().count()),
        (1, 1),
        "{nobody:?}"
    );
    assert!(nobody.stderr.contains("api.sock") && nobody.stderr.contains("seedring serve"));
    let wrong = ask(&["list", "--url", "localhost"]);
    assert_eq!(wrong.code, 2, "{wrong:?}");

    let server = Served::start();
    let token = folder.path().join("token");
    std::fs::write(&token, "0123456789abcdef0123456789abcdef\n").unwrap();
    let without = ask(&[
        "list",
        "--url",
        &server.api,
        "--state-dir",
        text(folder.path()),
    ]);
    assert_eq!(without.code, 1, "{without:?}");
    assert!(without.stderr.contains("wants a token"), "{without:?}");
    let wrong = ask(&["list", "--url", &server.api, "--token-file", text(&token)]);
    assert!(
        wrong.stderr.contains("does not take the token"),
        "{wrong:?}"
    );
    let right = server.state().join("api-token");
    let right = ask(&["list", "--url", &server.api, "--token-file", text(&right)]);
    assert_eq!((right.code, right.stderr.as_str()), (0, ""), "{right:?}");
}

#[test]
fn a_server_with_a_certificate_is_asked_by_who_trusts_it() {
    let name = "a_server_with_a_certificate_is_asked_by_who_trusts_it";
    let authority = need!(name, Authority::new());
    let (certificate, key) = authority.vouch("IP:127.0.0.1", 2);
    let server = Served::start_with(&[
        ("SEEDRING_API__TLS_CERT", text(&certificate)),
        ("SEEDRING_API__TLS_KEY", text(&key)),
    ]);
    let address = server.api.split_once("://").unwrap().1;
    let url = format!("https://{address}");
    let token = server.state().join("api-token");
    let line = ["stats", "--url", &url, "--token-file", text(&token)];
    let trusted = authority.certificate();
    let good = said(&seedring(
        line.iter().copied().chain(["--ca-file", text(&trusted)]),
    ));
    assert_eq!(good.code, 0, "{good:?}");
    assert!(good.stdout.contains("0 torrents"), "{good:?}");
    let bad = said(&seedring(line));
    assert_eq!(bad.code, 1, "{bad:?}");
    assert!(bad.stderr.to_lowercase().contains("certificate"), "{bad:?}");
    assert_eq!(server.torrents().len(), 0, "the socket needs none");
}

#[test]
fn a_server_that_asks_everybody_takes_the_token_of_its_folder() {
    let server = Served::start_with(&[("SEEDRING_API__AUTH", "required")]);
    assert_eq!(server.torrents().len(), 0);
    std::fs::rename(server.state().join("api-token"), server.path("token")).unwrap();
    let refused = server.say(["list"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("wants a token"), "{refused:?}");
    let token = std::fs::read_to_string(server.path("token")).unwrap();
    let mut command = server.command(["list"]);
    command.env("SEEDRING_TOKEN", token.trim());
    assert_eq!(said(&command).code, 0);
}

#[test]
fn every_command_that_asks_a_server_has_examples() {
    for command in [
        "add",
        "list",
        "info",
        "files",
        "peers",
        "trackers",
        "pause",
        "resume",
        "remove",
        "recheck",
        "announce",
        "move",
        "queue",
        "limit",
        "label",
        "category",
        "super-seed",
        "rename",
        "export",
        "stats",
        "top",
    ] {
        let help = said(&seedring([command, "--help"]));
        assert_eq!(help.code, 0, "{help:?}");
        for wanted in ["Examples", "--json", "--url", "--token-file"] {
            assert!(
                help.stdout.contains(wanted),
                "{command}: {wanted}: {}",
                help.stdout
            );
        }
    }
}
