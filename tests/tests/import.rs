//! `seedring import` of what real clients leave behind: qbittorrent-nox, transmission-daemon and
//! rtorrent each seed 50 torrents with labels, serve some of their data, and are stopped. What the
//! store has then is asked of a second import, which shows the store's records.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use seedring_tests::bencode::{Value as Bencode, decode, dictionary};
use seedring_tests::content::write_file;
use seedring_tests::http;
use seedring_tests::need;
use seedring_tests::peer::Peer;
use seedring_tests::process::{Process, run, run_ok};
use seedring_tests::seeds::free_port;
use seedring_tests::served::Served;
use seedring_tests::server::{SHORT, metrics_of, seedring};
use seedring_tests::skip::{Skip, program};
use seedring_tests::torrent::{Torrent, sha1};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// As many as the plan promises for.
const TORRENTS: usize = 50;
/// Of these some data are fetched, so that the client has uploaded.
const FETCHED: usize = 3;
const PIECE_BYTES: usize = 32 << 10;
/// Longest wait for a client to have checked its torrents, or to have ended.
const READY: Duration = Duration::from_secs(120);
/// A tracker that nobody has.
const TRACKER: &str = "http://127.0.0.1:9/announce";

/// The torrents, and a home for a client.
struct Place {
    root: TempDir,
    torrents: Vec<(PathBuf, Torrent)>,
    port: u16,
    control_port: u16,
}

impl Place {
    fn new() -> Place {
        let root = TempDir::new().unwrap();
        for folder in ["data", "torrents", "home"] {
            std::fs::create_dir(root.path().join(folder)).unwrap();
        }
        let torrents = (0..TORRENTS).map(|number| make_torrent(root.path(), number));
        Place {
            torrents: torrents.collect(),
            port: free_port(),
            control_port: free_port(),
            root,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn hashes(&self) -> impl Iterator<Item = String> + '_ {
        self.torrents
            .iter()
            .map(|(_, torrent)| torrent.info_hash_hex())
    }

    /// The label of a torrent: one of two.
    fn label(number: usize) -> &'static str {
        if number.is_multiple_of(2) {
            "linux isos"
        } else {
            "tv shäws"
        }
    }

    fn spawn(&self, name: &str, command: &mut Command) -> Process {
        command
            .env("HOME", self.path("home"))
            .env("LC_ALL", "C.UTF-8")
            .env("TERM", "xterm")
            .current_dir(self.path("home"));
        Process::spawn(name, command)
    }

    /// Fetches the first piece of some torrents, one after another: Transmission takes one
    /// connection of an address, and notices only after a while that the last one has gone.
    fn fetch(&self) {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        for (_, torrent) in &self.torrents[..FETCHED] {
            let until = Instant::now() + READY;
            let mut peer = loop {
                match Peer::connect(address, &torrent.info_hash) {
                    Ok(peer) => break peer,
                    Err(error) => assert!(Instant::now() < until, "{error}"),
                }
                std::thread::sleep(Duration::from_millis(200));
            };
            let timeout = Some(Duration::from_secs(60));
            peer.stream().set_read_timeout(timeout).unwrap();
            peer.unchoked().unwrap();
            let piece = peer.piece(torrent, 0).unwrap().unwrap();
            assert!(torrent.is_piece(0, &piece));
        }
    }
}

/// Writes data and their torrent: one file, or for each third two in a folder.
fn make_torrent(root: &Path, number: usize) -> (PathBuf, Torrent) {
    let name = format!("torrent {number}");
    let data = root.join("data").join(&name);
    let length = 70_000 + number as u64;
    let (files, what) = if number.is_multiple_of(3) {
        write_file(&data.join("a.bin"), length, number as u64);
        write_file(&data.join("sub/b.bin"), 50_000, 1000 + number as u64);
        let file = |path: &[&str], length: u64| {
            let path = path
                .iter()
                .map(|part| Bencode::Bytes(part.as_bytes().to_vec()));
            dictionary([
                ("length", Bencode::Integer(length as i64)),
                ("path", Bencode::List(path.collect())),
            ])
        };
        let files = [file(&["a.bin"], length), file(&["sub", "b.bin"], 50_000)];
        let paths = vec![data.join("a.bin"), data.join("sub/b.bin")];
        (paths, ("files", Bencode::List(files.into())))
    } else {
        write_file(&data, length, number as u64);
        (vec![data], ("length", Bencode::Integer(length as i64)))
    };
    let bytes = files.iter().flat_map(|file| std::fs::read(file).unwrap());
    let bytes: Vec<u8> = bytes.collect();
    let pieces = bytes.chunks(PIECE_BYTES).flat_map(sha1).collect();
    let info = dictionary([
        ("name", Bencode::Bytes(name.clone().into_bytes())),
        ("piece length", Bencode::Integer(PIECE_BYTES as i64)),
        ("pieces", Bencode::Bytes(pieces)),
        what,
    ]);
    let announce = Bencode::Bytes(TRACKER.as_bytes().to_vec());
    let torrent = dictionary([("announce", announce), ("info", info)]).encode();
    let path = root.join("torrents").join(format!("{number}.torrent"));
    std::fs::write(&path, &torrent).unwrap();
    (path, Torrent::parse(&torrent))
}

/// Waits until `ready` says so.
fn wait_until(process: &mut Process, what: &str, mut ready: impl FnMut() -> bool) {
    process.wait_for(what, READY, |_| {
        let is_ready = ready();
        if !is_ready {
            std::thread::sleep(Duration::from_millis(200));
        }
        is_ready.then_some(())
    });
}

/// Runs `seedring import …`: exit code, lines of torrents by info-hash, last line, stderr.
fn import(arguments: &[OsString]) -> (i32, BTreeMap<String, Value>, Value, String) {
    let line = ["import".into()]
        .into_iter()
        .chain(arguments.iter().cloned());
    let line = line.chain(["--json".into()]);
    let (status, process) = run("import", &seedring(line), SHORT);
    let (stdout, stderr) = (process.stdout(), process.stderr());
    assert!(!stderr.contains("panicked"), "{stderr}");
    let lines = stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let mut lines: Vec<Value> = lines.collect();
    let last = lines.pop().unwrap_or_default();
    let hash = |line: &Value| line["info_hash_v1"].as_str().map(str::to_owned);
    let torrents = lines.into_iter().filter(|line| line["event"] == "torrent");
    let torrents = torrents.filter_map(|line| Some((hash(&line)?, line)));
    (status.code().unwrap(), torrents.collect(), last, stderr)
}

/// Imports what the client has left in `folder`, and checks what the store has of it afterwards.
/// `labelled` says whether a line has the label.
fn imported(
    place: &Place,
    client: &str,
    folder: &Path,
    labelled: impl Fn(&Value, &str) -> bool,
) -> TempDir {
    let state = TempDir::new().unwrap();
    let mut arguments: Vec<OsString> = vec![client.into(), folder.into()];
    arguments.extend(["--state-dir".into(), state.path().into()]);
    let dry: Vec<OsString> = arguments
        .iter()
        .cloned()
        .chain(["--dry-run".into()])
        .collect();
    let (code, _, last, stderr) = import(&dry);
    assert_eq!(
        (code, &last["seeding"]),
        (0, &TORRENTS.into()),
        "{last} {stderr}"
    );
    assert!(
        !state.path().join("store.redb").exists(),
        "a dry run makes nothing"
    );
    assert_eq!(std::fs::read_dir(state.path()).unwrap().count(), 0);

    let (code, new, last, stderr) = import(&arguments);
    assert_eq!(code, 0, "{stderr}");
    for (key, count) in [("new", TORRENTS), ("seeding", TORRENTS), ("to_check", 0)] {
        assert_eq!(last[key], count, "{key}: {last}");
    }
    assert!(new.values().all(|line| line["outcome"] == "new"));
    // The second time, it says what the store has.
    let (code, known, last, _) = import(&arguments);
    assert_eq!(
        (code, &last["known"], &last["new"]),
        (0, &TORRENTS.into(), &0.into())
    );
    assert_eq!(known.len(), TORRENTS);
    for (number, (_, torrent)) in place.torrents.iter().enumerate() {
        let line = &known[&torrent.info_hash_hex()];
        assert_eq!(line["outcome"], "known");
        assert_eq!(line["name"], torrent.name, "{line}");
        assert_eq!(line["save_path"], place.path("data").to_str().unwrap());
        assert_eq!(line["condition"], "ready", "{line}");
        assert_eq!(line["paused"], false);
        assert_eq!(line["pieces"], torrent.pieces.len());
        assert_eq!(line["pieces_verified"], torrent.pieces.len(), "{line}");
        assert!(labelled(line, Place::label(number)), "{line}");
        let uploaded = line["uploaded_bytes"].as_u64().unwrap() as usize;
        // Transmission counts the 13 bytes before each of the two blocks, too.
        let fetched = (PIECE_BYTES..=PIECE_BYTES + 26).contains(&uploaded);
        assert_eq!(fetched, number < FETCHED, "torrent {number}: {line}");
        assert!(fetched || uploaded == 0, "torrent {number}: {line}");
        assert_eq!(line["downloaded_bytes"], 0, "{line}");
    }
    let check = ["state", "check", "--state-dir"].map(OsString::from);
    let check = check.into_iter().chain([state.path().into()]);
    run_ok("state check", &seedring(check), SHORT);
    all_seed_at_once(place, state.path());
    a_change_is_noticed(place, &arguments[..2]);
    state
}

/// A server that takes the store over serves a piece of every torrent, having hashed nothing.
fn all_seed_at_once(place: &Place, state: &Path) {
    let server = Served::of_state(state);
    let torrents = server.torrents();
    assert_eq!(torrents.len(), TORRENTS);
    let torrents: BTreeMap<&str, &Value> = torrents
        .iter()
        .map(|torrent| (torrent["info_hash"].as_str().unwrap(), torrent))
        .collect();
    let stats: Value = serde_json::from_str(&server.ok(["stats", "--json"])).unwrap();
    let port = stats["server"]["peer_port"].as_u64().unwrap() as u16;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    for (number, (_, torrent)) in place.torrents.iter().enumerate() {
        let listed = torrents[torrent.info_hash_hex().as_str()];
        assert_eq!(listed["status"], "seeding", "{listed}");
        let uploaded = listed["uploaded_bytes"].as_u64().unwrap();
        assert_eq!(uploaded > 0, number < FETCHED, "{listed}");
        let mut peer = Peer::connect(address, &torrent.info_hash).unwrap();
        peer.unchoked().unwrap();
        let last = torrent.pieces.len() as u32 - 1;
        let piece = peer.piece(torrent, last).unwrap().unwrap();
        assert!(torrent.is_piece(last, &piece), "torrent {number}");
    }
    let hashed = metrics_of(&server.api)["seedring_verified_bytes_total"];
    assert_eq!(hashed, 0.0);
}

/// Whether only those torrents are to be checked whose data have changed since.
fn a_change_is_noticed(place: &Place, arguments: &[OsString]) {
    let data = place.path("data");
    let later = std::time::SystemTime::now() + Duration::from_secs(3600);
    let touched = File::options()
        .write(true)
        .open(data.join("torrent 1"))
        .unwrap();
    touched.set_modified(later).unwrap();
    let cut = data.join("torrent 3/sub/b.bin");
    let times = std::fs::metadata(&cut).unwrap().modified().unwrap();
    let cut = File::options().write(true).open(cut).unwrap();
    cut.set_len(49_999).unwrap();
    cut.set_modified(times).unwrap();
    std::fs::remove_file(data.join("torrent 5")).unwrap();
    let state = TempDir::new().unwrap();
    let mut arguments = arguments.to_vec();
    arguments.extend(["--state-dir".into(), state.path().into()]);
    let (code, lines, last, _) = import(&arguments);
    assert_eq!(
        (code, &last["to_check"], &last["offline"], &last["new"]),
        (0, &2.into(), &1.into(), &TORRENTS.into())
    );
    for (number, (_, torrent)) in place.torrents.iter().enumerate() {
        let line = &lines[&torrent.info_hash_hex()];
        let (condition, verified) = match number {
            1 => ("needs-check", 0),
            // None of its files is there.
            5 => ("offline", 0),
            // What lies in the other file alone, and the piece that ends before the cut.
            3 => ("needs-check", torrent.pieces.len() - 1),
            _ => ("ready", torrent.pieces.len()),
        };
        assert_eq!(line["condition"], condition, "{line}");
        assert_eq!(line["pieces_verified"], verified, "{line}");
    }
}

fn qbittorrent(place: &Place) -> Result<Process, Skip> {
    let program = program("qbittorrent-nox", "qbittorrent-nox")?;
    let config = place.path("home/qBittorrent/config");
    std::fs::create_dir_all(&config).unwrap();
    let settings = format!(
        "[LegalNotice]\nAccepted=true\n\n\
         [BitTorrent]\n\
         Session\\Port={port}\n\
         Session\\Interface=lo\n\
         Session\\InterfaceAddress=127.0.0.1\n\
         Session\\BTProtocol=TCP\n\
         Session\\QueueingSystemEnabled=false\n\
         Session\\DHTEnabled=false\n\
         Session\\PeXEnabled=false\n\
         Session\\LSDEnabled=false\n\
         Session\\AddTorrentPaused=false\n\n\
         [Network]\nPortForwardingEnabled=false\n\n\
         [Preferences]\n\
         WebUI\\Enabled=true\n\
         WebUI\\LocalHostAuth=false\n\
         WebUI\\Address=127.0.0.1\n\
         WebUI\\Port={control_port}\n\
         WebUI\\UseUPnP=false\n",
        port = place.port,
        control_port = place.control_port,
    );
    std::fs::write(config.join("qBittorrent.conf"), settings).unwrap();
    let mut command = Command::new(program);
    command
        .arg(format!("--profile={}", place.path("home").display()))
        .arg(format!("--save-path={}", place.path("data").display()))
        .args([
            "--category=films",
            "--add-paused=false",
            "--skip-dialog=true",
        ])
        .args(place.torrents.iter().map(|(path, _)| path));
    Ok(place.spawn("qbittorrent-nox", &mut command))
}

#[test]
fn fifty_torrents_of_qbittorrent() {
    let place = Place::new();
    let mut process = need!("fifty_torrents_of_qbittorrent", qbittorrent(&place));
    let api = format!("http://127.0.0.1:{}/api/v2/torrents", place.control_port);
    let listed = || -> Vec<Value> {
        let reply = http::try_get(&format!("{api}/info"));
        let torrents = reply.map(|reply| serde_json::from_slice(&reply.body).ok());
        torrents.ok().flatten().unwrap_or_default()
    };
    wait_until(&mut process, "seeding of all", || {
        let torrents = listed();
        let seeds = |torrent: &&Value| torrent["state"] == "stalledUP";
        torrents.iter().filter(seeds).count() == TORRENTS
    });
    place.fetch();
    // It counts once a second.
    wait_until(&mut process, "uploads in its totals", || {
        let torrents = listed();
        let served = |torrent: &&Value| torrent["uploaded"].as_u64() >= Some(PIECE_BYTES as u64);
        torrents.iter().filter(served).count() == FETCHED
    });
    // What changes a torrent has its file written, with its totals; its end alone may leave the file as it was.
    for label in [0, 1] {
        let hashes: Vec<String> = place.hashes().skip(label).step_by(2).collect();
        let hashes = hashes.join("|");
        let tags = Place::label(label)
            .replace(' ', "%20")
            .replace('ä', "%C3%A4");
        let form = format!("hashes={hashes}&tags={tags},second");
        assert_eq!(
            http::post_form(&format!("{api}/addTags"), &form).status,
            200
        );
    }
    let backup = place.path("home/qBittorrent/data/BT_backup");
    wait_until(&mut process, "labels and totals in its files", || {
        let mut hashes = place.hashes().enumerate();
        hashes.all(|(number, hash)| {
            let file = backup.join(format!("{hash}.fastresume"));
            let bytes = std::fs::read(file).unwrap_or_default();
            let has = |text: &str| {
                bytes
                    .windows(text.len())
                    .any(|part| part == text.as_bytes())
            };
            has("6:second") && (number >= FETCHED || !has("14:total_uploadedi0e"))
        })
    });
    process.terminate();
    process.wait_exit(READY);
    let home = place.path("home");
    let state = imported(&place, "qbittorrent", &home, |line, label| {
        let labels = line["labels"].as_array().unwrap();
        labels.len() == 2 && labels.contains(&label.into()) && line["category"] == "films"
    });
    a_store_in_use_is_refused(&home, state.path());
}

/// Whether a store that another process has is left alone.
fn a_store_in_use_is_refused(folder: &Path, state: &Path) {
    let lock = File::options()
        .write(true)
        .open(state.join("store.lock"))
        .unwrap();
    lock.lock().unwrap();
    let arguments = ["qbittorrent".into(), folder.into()];
    let directory = ["--state-dir".into(), state.into()];
    let arguments: Vec<OsString> = arguments.into_iter().chain(directory).collect();
    let (code, torrents, _, stderr) = import(&arguments);
    assert_eq!((code, torrents.len()), (1, 0), "{stderr}");
    assert!(stderr.contains("is in use by"), "{stderr}");
}

fn transmission(place: &Place) -> Result<Process, Skip> {
    let program = program("transmission-daemon", "transmission-daemon")?;
    let settings = serde_json::json!({
        "download-dir": place.path("data"),
        "start-added-torrents": true,
        "watch-dir": place.path("torrents"),
        "watch-dir-enabled": true,
        "rpc-enabled": true,
        "rpc-bind-address": "127.0.0.1",
        "rpc-port": place.control_port,
        "dht-enabled": false,
        "lpd-enabled": false,
        "pex-enabled": false,
        "utp-enabled": false,
        "port-forwarding-enabled": false,
        "peer-port": place.port,
        "bind-address-ipv4": "127.0.0.1",
        "incomplete-dir-enabled": false,
        "trash-original-torrent-files": false,
        "ratio-limit-enabled": false,
    });
    std::fs::write(place.path("home/settings.json"), settings.to_string()).unwrap();
    let mut command = Command::new(program);
    command
        .args(["--foreground", "--config-dir"])
        .arg(place.path("home"));
    Ok(place.spawn("transmission-daemon", &mut command))
}

#[test]
fn fifty_torrents_of_transmission() {
    let name = "fifty_torrents_of_transmission";
    let remote = need!(name, program("transmission-remote", "transmission-cli"));
    let place = Place::new();
    let mut process = need!(name, transmission(&place));
    let ask = |arguments: &[&str]| {
        let mut command = Command::new(&remote);
        command.arg(place.control_port.to_string()).args(arguments);
        run("transmission-remote", &command, SHORT).1.stdout()
    };
    wait_until(&mut process, "seeding of all", || {
        let list = ask(&["-l"]);
        let seeds = |line: &&str| line.contains(" 100% ") && line.contains(" Idle ");
        list.lines().filter(seeds).count() == TORRENTS
    });
    for (number, hash) in place.hashes().enumerate() {
        let labels = format!("{},second", Place::label(number));
        let answer = ask(&["-t", &hash, "-L", &labels]);
        assert!(answer.contains("success"), "{answer}");
    }
    place.fetch();
    process.terminate();
    process.wait_exit(READY);
    imported(
        &place,
        "transmission",
        &place.path("home"),
        |line, label| {
            let labels = line["labels"].as_array().unwrap();
            labels.len() == 2 && labels.contains(&label.into()) && line["category"].is_null()
        },
    );
}

fn rtorrent(place: &Place) -> Result<Process, Skip> {
    let program = program("rtorrent", "rtorrent")?;
    let session = place.path("home/session");
    std::fs::create_dir(&session).unwrap();
    let mut settings = format!(
        "system.daemon.set = true\n\
         session.path.set = \"{session}\"\n\
         directory.default.set = \"{directory}\"\n\
         network.bind_address.set = 127.0.0.1\n\
         network.port_range.set = {port}-{port}\n\
         network.port_random.set = no\n\
         dht.mode.set = disable\n\
         protocol.pex.set = no\n\
         schedule2 = save, 1, 1, ((session.save))\n",
        session = session.display(),
        directory = place.path("data").display(),
        port = place.port,
    );
    for (number, (path, _)) in place.torrents.iter().enumerate() {
        let label = Place::label(number)
            .replace(' ', "%20")
            .replace('ä', "%C3%A4");
        let load = format!(
            "load.start = \"{}\", \"d.custom1.set={label}\"\n",
            path.display()
        );
        settings.push_str(&load);
    }
    let file = place.path("home/rtorrent.rc");
    std::fs::write(&file, settings).unwrap();
    let mut command = Command::new(program);
    command
        .arg("-n")
        .arg("-o")
        .arg(format!("import={}", file.display()));
    Ok(place.spawn("rtorrent", &mut command))
}

/// How many torrents of the session are complete. A file is replaced as a whole, but may just be
/// being so.
fn complete_in(session: &Path) -> usize {
    let complete = |path: PathBuf| {
        let bytes = std::fs::read(path)
            .ok()
            .filter(|bytes| bytes.ends_with(b"e"))?;
        (decode(&bytes).0.get("complete")?.integer() == 1).then_some(())
    };
    let entries = std::fs::read_dir(session).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let sessions = paths.filter(|path| path.extension().is_some_and(|it| it == "rtorrent"));
    sessions.filter_map(complete).count()
}

#[test]
fn fifty_torrents_of_rtorrent() {
    let place = Place::new();
    let mut process = need!("fifty_torrents_of_rtorrent", rtorrent(&place));
    let session = place.path("home/session");
    wait_until(&mut process, "seeding of all", || {
        complete_in(&session) == TORRENTS
    });
    place.fetch();
    let stopped = Instant::now();
    process.signal(rustix::process::Signal::INT);
    process.wait_exit(READY);
    eprintln!("rtorrent took {:?} to end", stopped.elapsed());
    imported(&place, "rtorrent", &session, |line, label| {
        line["labels"] == serde_json::json!([label]) && line["category"].is_null()
    });
}
