//! `seedring get` as its user meets it: stopped before it has begun, sent to strange places, begun anew.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use rustix::process::Signal;
use seedring_tests::certificates::Authority;
use seedring_tests::clients::script;
use seedring_tests::content::{KIB, MIB, assert_same_tree, write_file};
use seedring_tests::get::{Get, last};
use seedring_tests::liar::HandSeed;
use seedring_tests::need;
use seedring_tests::process::{Process, run, run_ok};
use seedring_tests::server::{SHORT, Seed, Server, clean_environment, event, events, seedring};
use seedring_tests::single::Single;
use seedring_tests::torrent::Torrent;
use seedring_tests::tracker::{Behaviour, RecordingTracker};
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// Longest wait for one download.
const LIMIT: Duration = Duration::from_secs(100);

/// Three files in a folder, and their torrent.
struct Content {
    root: TempDir,
    torrent: PathBuf,
}

impl Content {
    fn new() -> Self {
        let root = TempDir::new().unwrap();
        let data = root.path().join("data/set");
        write_file(&data.join("a.bin"), 2 * MIB - 100, 1);
        write_file(&data.join("b/c.bin"), MIB, 2);
        write_file(&data.join("b/empty"), 0, 3);
        write_file(&data.join("d.bin"), MIB + 100, 4);
        let torrent = root.path().join("it.torrent");
        let mut create = seedring(["create"]);
        create.arg(&data).arg("-o").arg(&torrent);
        create.args(["--piece-size", "64K"]);
        run_ok("seedring create", &create, SHORT);
        Self { root, torrent }
    }

    fn seed(&self, bytes_per_s: u64) -> Server {
        let data = self.root.path().join("data");
        let rate = bytes_per_s.to_string();
        Seed::torrent(&self.torrent, &data)
            .options(["--no-tracker"])
            .setting("limits", "upload_rate", &rate)
            .setting("limits", "local_upload_rate", &rate)
            .start()
    }
}

/// Two downloads into one folder that know nothing of each other: the second one ends, and says
/// which file the first one writes to.
#[test]
fn a_second_download_into_a_folder_leaves_the_first_one_its_files() {
    let root = TempDir::new().unwrap();
    let (data, torrent) = (root.path().join("data"), root.path().join("it.torrent"));
    write_file(&data.join("one.bin"), 2 * MIB, 1);
    let mut create = seedring(["create"]);
    create.arg(data.join("one.bin")).arg("-o").arg(&torrent);
    create.args(["--piece-size", "64K"]);
    run_ok("seedring create", &create, SHORT);
    let content = Content { root, torrent };
    // So slow that the first one has not ended when the second one is to write.
    let seed = content.seed(64 * KIB);
    let folder = TempDir::new().unwrap();
    let get = || Get::new(&content.torrent, folder.path()).peer(seed.address());
    let mut first = get().setting("fetch", "sync_period_s", "1").start();
    first.bytes_done(1, LIMIT);
    let mut second = get().start();
    let status = second.process.wait_exit(LIMIT);
    assert_eq!(status.code(), Some(1), "{}", second.process.transcript());
    let error = second.process.stderr();
    assert!(
        error.contains("one.bin.part") && error.contains("another program is writing"),
        "{error}"
    );
    first.complete(LIMIT);
    assert_same_tree(&data, folder.path());
}

/// Of a server that never served anything, nobody is told that it ends.
#[test]
fn nothing_to_serve_is_all_that_is_said_of_it() {
    let root = TempDir::new().unwrap();
    let file = root.path().join("empty.bin");
    write_file(&file, 0, 1);
    let (mut process, _state) = Seed::path(&file).options(["--no-tracker"]).launch();
    let status = process.wait_exit(SHORT);
    assert_eq!(status.code(), Some(1), "{}", process.transcript());
    assert!(
        !process.stdout().contains("stopping"),
        "{}",
        process.stdout()
    );
}

/// Names that no file of a download can have: whoever makes, seeds or reads the torrent is told.
#[test]
fn names_that_are_written_otherwise_are_told() {
    let root = TempDir::new().unwrap();
    let file = root.path().join("data/new\nline");
    write_file(&file, 100_000, 1);
    let torrent = root.path().join("it.torrent");
    let mut create = seedring(["create"]);
    create.arg(&file).arg("-o").arg(&torrent);
    let told = "written as \"new_line\" by who downloads it: \"new\\nline\"";
    let (status, process) = run("seedring create", &create, SHORT);
    assert!(
        status.success() && process.stderr().contains(told),
        "{}",
        process.transcript()
    );
    let mut show = seedring(["show"]);
    show.arg(&torrent);
    let shown = run_ok("seedring show", &show, SHORT);
    assert!(shown.contains("Spelled:        new\\nline"), "{shown}");
    let seed = Seed::path(&file).options(["--no-tracker"]).start();
    let stderr = seed.process.stderr();
    assert!(stderr.contains("new_line"), "{stderr}");
    let folder = TempDir::new().unwrap();
    let mut getting = Get::new(&torrent, folder.path())
        .peer(seed.address())
        .start();
    let told = getting.event("respelled", LIMIT);
    assert_eq!(told["names"][0]["name"], "new\\nline", "{told}");
    assert_eq!(told["names"][0]["written"], "new_line", "{told}");
    assert_eq!(told["count"], 1, "{told}");
    getting.complete(LIMIT);
    assert!(folder.path().join("new_line").exists());
}

/// Ctrl-C ends it also while a web server keeps it waiting.
#[test]
fn ctrl_c_ends_a_fetch_that_nobody_answers() {
    let folder = TempDir::new().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x.torrent", listener.local_addr().unwrap());
    let mut getting = Get::new(url, folder.path()).start();
    let (mut stream, _) = listener.accept().unwrap();
    assert!(stream.read(&mut [0; 100]).unwrap() > 0, "it has asked");
    // Less than any time-out of its own.
    let status = getting.interrupt(Duration::from_secs(10));
    assert_eq!(status.code(), Some(130), "{}", getting.process.transcript());
    assert!(last(&getting.process, "stopped").is_some());
}

/// A second signal ends it at once, with the exit code of one who was stopped.
#[test]
fn a_second_signal_ends_it_at_once() {
    let content = Content::new();
    let seed = content.seed(64 * KIB);
    let tracker = RecordingTracker::start(Behaviour::Silent);
    let folder = TempDir::new().unwrap();
    let mut getting = Get::new(&content.torrent, folder.path())
        .peer(seed.address())
        .options(["--tracker".to_owned(), tracker.url()])
        .setting("announce", "stop_timeout_s", "9")
        .start();
    getting.event("started", LIMIT);
    tracker.wait_for("event=started", LIMIT);
    getting.process.signal(Signal::INT);
    // From here on it waits for the tracker.
    getting.event("stopped", LIMIT);
    let status = getting.interrupt(SHORT);
    assert_eq!(status.code(), Some(130));
    let said = getting.process.stderr();
    assert!(said.contains("stopped at once"), "{said}");
}

/// A link that chooses files (BEP 53) brings those only, unless the user chooses others; the web seeds that it names
/// are told not to be asked.
#[test]
fn a_link_chooses_files_and_the_user_others() {
    let content = Content::new();
    let hash = Torrent::read(&content.torrent).info_hash_hex();
    let seed = content.seed(0);
    let link = format!(
        "magnet:?xt=urn:btih:{hash}&so=1-2,7-4294967295&ws=http%3A%2F%2Fweb.example%2Fset%2F"
    );
    let get = |folder: &TempDir, link: &str| Get::new(link, folder.path()).peer(seed.address());
    let there = |folder: &TempDir| {
        let path = |name: &str| folder.path().join("set").join(name);
        ["a.bin", "b/c.bin", "b/empty", "d.bin"].map(|name| path(name).exists())
    };
    let folder = TempDir::new().unwrap();
    let mut getting = get(&folder, &link).start();
    let told = getting.event("not-asked", LIMIT);
    let told = told["reason"].as_str().unwrap();
    assert!(told.contains("1 web seed is not asked"), "{told}");
    getting.complete(LIMIT);
    assert_eq!(there(&folder), [false, true, true, false]);
    let got = std::fs::read(folder.path().join("set/b/c.bin")).unwrap();
    let sent = std::fs::read(content.root.path().join("data/set/b/c.bin")).unwrap();
    assert_eq!(got, sent);

    let folder = TempDir::new().unwrap();
    let getting = get(&folder, &link).options(["--select", "d.bin"]).start();
    getting.complete(LIMIT);
    assert_eq!(there(&folder), [false, false, false, true]);

    let folder = TempDir::new().unwrap();
    let nothing = format!("magnet:?xt=urn:btih:{hash}&so=4-4294967295");
    let mut getting = get(&folder, &nothing).start();
    let status = getting.process.wait_exit(LIMIT);
    assert_eq!(status.code(), Some(2), "{}", getting.process.transcript());
    let stderr = getting.process.stderr();
    assert!(stderr.contains("so="), "{stderr}");
}

/// What a link names inside our network is not asked, what cannot be found ends nothing, and what the user names is.
#[test]
fn a_link_leads_to_no_address_inside() {
    let content = Content::new();
    let torrent = Torrent::read(&content.torrent);
    let blocks = |_, _, length: u32| vec![0; length as usize];
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let inside = HandSeed::start(loopback, torrent.info_hash, torrent.pieces.len(), blocks);
    let seed = content.seed(0);
    let folder = TempDir::new().unwrap();
    let link = format!(
        "magnet:?xt=urn:btih:{}&x.pe={}&x.pe=nobody.invalid:1",
        torrent.info_hash_hex(),
        inside.address
    );
    let getting = Get::new(link, folder.path()).peer(seed.address()).start();
    getting.complete(LIMIT);
    assert_same_tree(&content.root.path().join("data"), folder.path());
    assert_eq!(inside.connections(), 0);
}

/// A tracker inside our network that a link names is asked where the link does not choose what is said there; else it
/// is the user's to name.
#[test]
fn a_link_leads_inside_with_no_words_of_its_own() {
    let content = Content::new();
    let tracker = RecordingTracker::start(Behaviour::Answers);
    let hash = Torrent::read(&content.torrent).info_hash_hex();
    let link = format!("magnet:?xt=urn:btih:{hash}&tr={}", tracker.url());
    let wordy = format!("{link}%3Fcommand%3Dreboot");
    let seed = content.seed(0);
    let folder = TempDir::new().unwrap();
    let get = |link: &str| Get::new(link, folder.path()).peer(seed.address());
    let mut getting = get(&wordy).start();
    let refused = getting.event("not-asked", LIMIT);
    let reason = refused["reason"].as_str().unwrap();
    assert!(
        reason.contains("127.0.0.1") && reason.contains("--tracker"),
        "{reason}"
    );
    getting.complete(LIMIT);
    let announces = tracker.announces();
    assert!(announces.is_empty(), "{announces:?}");
    let asked = || {
        let started = |target: &&String| target.contains("event=started");
        tracker.announces().iter().filter(started).count()
    };
    let url = tracker.url() + "?command=reboot";
    get(&wordy)
        .options(["--tracker", &url])
        .start()
        .complete(LIMIT);
    assert_eq!(asked(), 1, "{:?}", tracker.announces());
    get(&link).start().complete(LIMIT);
    assert_eq!(asked(), 2, "{:?}", tracker.announces());
    assert_same_tree(&content.root.path().join("data"), folder.path());
}

/// Who goes on as a seed says so to people, and where peers reach it.
#[test]
fn a_download_that_seeds_says_so() {
    let content = Content::new();
    let state = TempDir::new().unwrap();
    let mut get = seedring(["get", "--seed", "-d"]);
    get.arg(content.root.path().join("data"))
        .arg(&content.torrent);
    get.arg("--state-dir").arg(state.path());
    clean_environment(&mut get);
    let mut process = Process::spawn("seedring get", &get);
    process.wait_for("seeding", LIMIT, |process| {
        let said = process.stderr();
        (said.contains("seeding on port") && said.contains("Ctrl-C")).then_some(())
    });
    process.signal(Signal::INT);
    assert_eq!(process.wait_exit(SHORT).code(), Some(0));
}

/// Of a peer that gives nothing its user hears why, with the torrent and with a link.
#[test]
fn why_a_peer_gives_nothing_is_told() {
    let content = Content::new();
    let hash = Torrent::read(&content.torrent).info_hash_hex();
    let link = format!("magnet:?xt=urn:btih:{hash}").into();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let refuses = closed.local_addr().unwrap();
    drop(closed);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let hangs_up = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().read(&mut [0; 68]);
        }
    });
    for source in [content.torrent.clone().into_os_string(), link] {
        let folder = TempDir::new().unwrap();
        let get = Get::new(source, folder.path());
        let mut getting = get.peer(refuses).peer(hangs_up).start();
        for (peer, due) in [
            (refuses, "refused"),
            (hangs_up, "may not have this torrent"),
        ] {
            let reason = getting.process.wait_for("peer-failed", LIMIT, |process| {
                let all = events(process, "peer-failed");
                let of_peer = all.iter().find(|event| event["peer"] == peer.to_string())?;
                Some(of_peer["reason"].as_str()?.to_owned())
            });
            assert!(reason.contains(due), "{peer}: {reason}");
        }
        let status = getting.interrupt(SHORT);
        assert_eq!(status.code(), Some(130), "{}", getting.process.transcript());
        let said = getting.process.stderr();
        assert_eq!(said, "", "programs read it, and the log has nothing to add");
    }
}

/// Whose files have gone is told what to do, and may do it.
#[test]
fn what_is_gone_is_fetched_again_when_the_user_says_so() {
    let content = Content::new();
    let seed = content.seed(0);
    let (folder, state) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let get = |options: &[&str]| {
        Get::new(&content.torrent, folder.path())
            .peer(seed.address())
            .state_dir(state.path())
            .options(options.iter().map(|&option| option.to_owned()))
            .start()
    };
    get(&[]).complete(LIMIT);
    std::fs::remove_dir_all(folder.path().join("set")).unwrap();
    let mut refused = get(&[]);
    assert_eq!(refused.process.wait_exit(LIMIT).code(), Some(1));
    let said = refused.process.stderr();
    assert!(said.contains("--anew"), "{said}");
    get(&["--anew"]).complete(LIMIT);
    assert_same_tree(&content.root.path().join("data"), folder.path());
}

/// The numbers that `show` prints are those that `get --select` takes.
#[test]
fn the_numbers_of_show_select_files() {
    let content = Content::new();
    let mut show = seedring(["show"]);
    show.arg(&content.torrent);
    let shown = run_ok("seedring show", &show, SHORT);
    let line = shown.lines().find(|line| line.contains("c.bin")).unwrap();
    let number = line.split_once('#').unwrap().1.to_owned();
    let seed = content.seed(0);
    let folder = TempDir::new().unwrap();
    let get = Get::new(&content.torrent, folder.path()).peer(seed.address());
    get.options(["--select", &number]).start().complete(LIMIT);
    let of = |folder: &std::path::Path| std::fs::read(folder.join("set/b/c.bin")).unwrap();
    assert!(of(&content.root.path().join("data")) == of(folder.path()));
    assert!(!folder.path().join("set/a.bin").exists());
    assert!(
        !folder.path().join("set/b/empty").exists(),
        "it was not selected"
    );
}

/// What is no torrent is named, with the reason.
#[test]
fn what_is_no_torrent_is_named() {
    let folder = TempDir::new().unwrap();
    let broken = folder.path().join("broken.torrent");
    std::fs::write(&broken, b"not a torrent").unwrap();
    let mut getting = Get::new(&broken, folder.path()).start();
    assert_eq!(getting.process.wait_exit(LIMIT).code(), Some(1));
    let said = getting.process.stderr();
    assert!(said.contains("broken.torrent"), "{said}");
}

/// A server that serves some of its torrents says which it does not.
#[test]
fn the_ready_line_names_what_is_not_served() {
    let content = Content::new();
    let (folder, state) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let broken = folder.path().join("broken.torrent");
    std::fs::write(&broken, b"not a torrent").unwrap();
    let path = folder.path().join("seedring.toml");
    let torrent = |file: &std::path::Path| {
        let data = content.root.path().join("data");
        format!("[[torrent]]\ntorrent = {file:?}\ndata = {data:?}\n")
    };
    let ports = "[peers]\nport = 0\n[api]\nlisten = \"\"\n";
    let text = ports.to_owned() + &torrent(&broken) + &torrent(&content.torrent);
    std::fs::write(&path, text).unwrap();
    let mut serve = seedring(["serve", "--json", "--config"]);
    serve.arg(&path).arg("--state-dir").arg(state.path());
    clean_environment(&mut serve);
    let mut process = Process::spawn("seedring serve", &serve);
    let ready = process.wait_for("ready", LIMIT, |process| event(process, "ready"));
    assert_eq!(ready["torrents"].as_array().unwrap().len(), 1, "{ready}");
    let refused = ready["refused"].as_array().unwrap();
    assert_eq!(refused.len(), 1, "{ready}");
    assert_eq!(refused[0]["source"], broken.to_str().unwrap());
    let reason = refused[0]["reason"].as_str().unwrap();
    assert!(reason.contains("broken.torrent"), "{reason}");
}

/// A torrent comes from a web server whose authority is one's own if that is named, as trackers are
/// asked; else the error says what is missing.
#[test]
fn a_torrent_comes_from_a_web_server_that_an_authority_of_ones_own_vouches_for() {
    let test = "a_torrent_comes_from_a_web_server_that_an_authority_of_ones_own_vouches_for";
    let authority = need!(test, Authority::new());
    let trusted = authority.certificate();
    let (certificate, key) = authority.vouch("IP:127.0.0.1", 2);
    let content = Single::new(64 * KIB, 3, &[]);
    let mut command = Command::new("python3");
    command.arg(script("https.py")).arg(content.root());
    let mut web = Process::spawn("web server", command.arg(certificate).arg(key));
    let port = web.wait_for("port", SHORT, |process| {
        let stdout = process.stdout();
        let mut lines = stdout.lines();
        lines.find_map(|line| line.strip_prefix("listening ")?.parse::<u16>().ok())
    });
    let url = format!("https://127.0.0.1:{port}/it.torrent");
    let seed = content.seed().start();
    let folder = TempDir::new().unwrap();
    let get = || Get::new(&url, folder.path()).peer(seed.address());

    let mut refused = get().start();
    let status = refused.process.wait_exit(LIMIT);
    assert_eq!(status.code(), Some(1), "{}", refused.process.transcript());
    let said = refused.process.stdout() + &refused.process.stderr();
    assert!(said.contains("certificate"), "{said}");
    assert!(!web.stdout().contains("http "), "{}", web.stdout());

    let trusting = get().setting("announce", "ca_files", trusted.to_str().unwrap());
    trusting.start().complete(LIMIT);
    content.assert_copied(&folder);
}
