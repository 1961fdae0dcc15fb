//! `seedring get` when things go wrong: killed, lied to, out of space.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use seedring_tests::content::{KIB, MIB, assert_same_tree, write_file};
use seedring_tests::get::{Get, Getting, last};
use seedring_tests::liar::HandSeed;
use seedring_tests::need;
use seedring_tests::process::run_ok;
use seedring_tests::server::{SHORT, Seed, Server, events, seedring};
use seedring_tests::skip::{Skip, is_root, program};
use seedring_tests::torrent::Torrent;
use std::ffi::OsStr;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// Longest wait for one download.
const LIMIT: Duration = Duration::from_secs(100);

/// The pieces of the content, in bytes.
const PIECE: u64 = 64 * KIB;

/// Three files, their torrent, and a server that seeds it.
struct Content {
    root: TempDir,
    torrent: PathBuf,
    bytes: u64,
}

impl Content {
    fn new(bytes: u64) -> Self {
        let root = TempDir::new().unwrap();
        let data = root.path().join("data/set");
        write_file(&data.join("a.bin"), bytes / 2 - 100, 1);
        write_file(&data.join("b/c.bin"), bytes / 4, 2);
        write_file(&data.join("d.bin"), bytes / 4 + 100, 3);
        let torrent = root.path().join("it.torrent");
        let mut create = seedring(["create"]);
        create.arg(&data).arg("-o").arg(&torrent);
        create.args(["--piece-size", "64K"]);
        run_ok("seedring create", &create, SHORT);
        let bytes = Torrent::read(&torrent).length();
        Self {
            root,
            torrent,
            bytes,
        }
    }

    fn data_dir(&self) -> PathBuf {
        self.root.path().join("data")
    }

    /// A server that seeds it, at most so many bytes a second; 0 for as fast as it can.
    fn seed(&self, bytes_per_s: u64) -> Server {
        let seed = Seed::torrent(&self.torrent, &self.data_dir()).options(["--no-tracker"]);
        let rate = bytes_per_s.to_string();
        seed.setting("limits", "upload_rate", &rate)
            .setting("limits", "local_upload_rate", &rate)
            .start()
    }

    fn assert_copied(&self, folder: &Path) {
        assert_same_tree(&self.data_dir(), folder);
    }

    /// The bytes of a block, from the files.
    fn reader(&self) -> impl Fn(u32, u32, u32) -> Vec<u8> + Send + Sync + 'static {
        let torrent = Torrent::read(&self.torrent);
        let mut all = Vec::new();
        for file in &torrent.files {
            let path = self.data_dir().join("set").join(&file.path);
            all.extend(std::fs::read(path).unwrap());
        }
        move |piece, begin, length| {
            let start = piece as usize * PIECE as usize + begin as usize;
            all[start..start + length as usize].to_vec()
        }
    }
}

/// Ctrl-C keeps what is there and says so by its exit code; the same command goes on.
#[test]
fn ctrl_c_keeps_what_is_there() {
    let content = Content::new(16 * MIB);
    let seed = content.seed(4 * MIB);
    let (folder, state) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let get = || {
        Get::new(&content.torrent, folder.path())
            .peer(seed.address())
            .state_dir(state.path())
            .start()
    };
    let mut first = get();
    first.bytes_done(4 * MIB, LIMIT);
    let status = first.interrupt(SHORT);
    assert_eq!(status.code(), Some(130), "{}", first.process.transcript());
    let stopped = last(&first.process, "stopped").unwrap();
    let kept = stopped["bytes_done"].as_u64().unwrap();
    assert!(kept >= 4 * MIB, "{stopped}");
    assert!(
        kept < content.bytes,
        "it was to be stopped before its end: {stopped}"
    );
    let rest = get().complete(LIMIT);
    let downloaded = rest["downloaded"].as_u64().unwrap();
    assert_eq!(downloaded, content.bytes - kept, "nothing twice: {rest}");
    content.assert_copied(folder.path());
}

/// Killed again and again at moments that nobody chose: what was synced is never fetched again, no more is lost than
/// what came since the sync before the last one was told, what is there at the end is right, and nobody has to lend a
/// hand.
#[test]
fn a_killed_download_goes_on_from_what_it_synced() {
    // Slow enough for all the kills to come before its end.
    let content = Content::new(3 * MIB * kills() as u64);
    let seed = content.seed(3 * MIB);
    let (folder, state) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let get = || {
        Get::new(&content.torrent, folder.path())
            .peer(seed.address())
            .state_dir(state.path())
            .setting("fetch", "sync_period_s", "1")
            .start()
    };
    let mut random = u64::from(std::process::id()) | 1;
    let mut before: Option<Told> = None;
    let mut redone = Vec::new();
    for round in 0..kills() {
        let mut killed = get();
        let started = killed.event("started", LIMIT);
        let start = started["bytes_done"].as_u64().unwrap();
        if let Some(before) = before {
            let synced = before.synced;
            assert!(
                start >= synced,
                "round {round}: {start} are left of {synced}"
            );
            redone.push(before.reached.saturating_sub(start));
        }
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // Killing while it works is the point: the time is the fault that is drawn, not what is waited for.
        std::thread::sleep(Duration::from_millis(random % 2_500));
        if !killed.process.is_alive() {
            break;
        }
        killed.kill(SHORT);
        before = Some(told(&killed, start));
    }
    let rest = get().complete(LIMIT);
    content.assert_copied(folder.path());
    // A figure, no condition: time decides it.
    let (sum, most) = (redone.iter().sum::<u64>(), redone.iter().max());
    eprintln!(
        "{} kills: {sum} of {} bytes were fetched again, at most {} at a time; {} in the last run, of 3 MiB/s, \
         synced every second",
        redone.len() + 1,
        content.bytes,
        most.unwrap_or(&0),
        rest["downloaded"],
    );
}

/// What a download had said when it was killed.
struct Told {
    /// Bytes that no crash takes away.
    synced: u64,
    /// Bytes that were there or had come.
    reached: u64,
}

/// What a download that began with `start` bytes has said. Whenever it has told of a sync, the next but one that it
/// tells of covers all that had been there before. So does the next, as a rule: but of two that are told at once, the
/// second may have begun before what is there was printed.
fn told(killed: &Getting, start: u64) -> Told {
    let number = |line: &serde_json::Value, key: &str| line[key].as_u64().unwrap();
    let (mut synced, mut reached, mut done) = (start, start, start);
    // What was there when the last sync but one, and the last one, were told of.
    let (mut due, mut next_due) = (0, 0);
    for line in events(&killed.process, "progress") {
        if line["action"] != "fetching" {
            continue;
        }
        let now = number(&line, "bytes_synced");
        if now > synced {
            assert!(now >= due, "{due} were there two syncs ago: {line}");
            (due, next_due) = (next_due, done);
        }
        assert!(now >= synced, "{synced} were synced: {line}");
        synced = now;
        done = number(&line, "bytes_done");
        reached = start + number(&line, "downloaded");
    }
    Told { synced, reached }
}

/// How often it is killed.
fn kills() -> usize {
    if std::env::var_os("SEEDRING_TESTS_FULL").is_some() {
        100
    } else {
        10
    }
}

/// One of five seeds sends wrong bytes: it is banned, nobody else is, and all arrives.
#[test]
fn only_the_liar_is_banned() {
    let content = Content::new(8 * MIB);
    let torrent = Torrent::read(&content.torrent);
    let start = |ip: u8, wrong: bool| {
        let read = content.reader();
        let blocks = move |piece, begin, length| {
            // Slow enough for all to have their part.
            std::thread::sleep(Duration::from_millis(2));
            let mut bytes: Vec<u8> = read(piece, begin, length);
            if wrong {
                bytes[7] ^= 0x20;
            }
            bytes
        };
        let ip = IpAddr::V4(Ipv4Addr::new(127, 0, 0, ip));
        HandSeed::start(ip, torrent.info_hash, torrent.pieces.len(), blocks)
    };
    let seeds = [11, 12, 13, 14, 15].map(|ip| start(ip, ip == 12));
    let folder = TempDir::new().unwrap();
    let mut get = Get::new(&content.torrent, folder.path());
    for seed in &seeds {
        get = get.peer(seed.address);
    }
    let mut getting = get.start();
    let banned = getting.event("banned", LIMIT);
    assert_eq!(banned["peer"], seeds[1].address.to_string());
    let status = getting.process.wait_exit(LIMIT);
    assert!(status.success(), "{}", getting.process.transcript());
    let bans = seedring_tests::server::events(&getting.process, "banned");
    assert_eq!(bans.len(), 1, "{bans:?}");
    content.assert_copied(folder.path());
}

/// A small file system of its own, unmounted when the test is over.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new(bytes: u64) -> Result<Self, Skip> {
        if !is_root() {
            return Err(Skip::machine("mounting a small file system needs root"));
        }
        let folder = TempDir::new().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"]);
        let mounted = mount.arg(folder.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Ok(Self(folder)),
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                Err(Skip::machine(format!(
                    "no file system can be mounted: {why}"
                )))
            }
            Err(error) => Err(Skip::machine(format!("mount: {error}"))),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// A full disk pauses the download, which says why and goes on by itself when there is space.
#[test]
fn a_full_disk_pauses_and_space_resumes() {
    let test = "a_full_disk_pauses_and_space_resumes";
    let disk = need!(test, SmallDisk::new(16 * MIB));
    let content = Content::new(12 * MIB);
    let seed = content.seed(0);
    let ballast = disk.0.path().join("ballast");
    write_file(&ballast, 10 * MIB, 9);
    let folder = disk.0.path().join("out");
    let get = Get::new(&content.torrent, &folder).peer(seed.address());
    let mut getting = get.start();
    let paused = getting.event("paused", LIMIT);
    let reason = paused["reason"].as_str().unwrap();
    assert!(reason.contains("No space left"), "{reason}");
    assert_eq!(paused["needs"], "space", "{paused}");
    let while_paused = getting
        .process
        .wait_for("progress while paused", LIMIT, |process| {
            last(process, "progress").filter(|line| !line["paused"].is_null())
        });
    assert!(while_paused["eta_s"].is_null(), "{while_paused}");
    assert_eq!(while_paused["bytes_total"], content.bytes, "{while_paused}");
    assert!(getting.process.is_alive());
    std::fs::remove_file(ballast).unwrap();
    getting.event("resumed", LIMIT);
    getting.complete(LIMIT);
    content.assert_copied(&folder);
}

/// What the user is told to be safe is what the next run finds: not what could not be remembered.
#[test]
fn what_is_said_to_be_safe_is_there_for_the_next_run() {
    let test = "what_is_said_to_be_safe_is_there_for_the_next_run";
    let state = need!(test, SmallDisk::new(3 * MIB));
    let content = Content::new(16 * MIB);
    let seed = content.seed(4 * MIB);
    let folder = TempDir::new().unwrap();
    let get = || {
        Get::new(&content.torrent, folder.path())
            .peer(seed.address())
            .state_dir(state.0.path())
            .setting("fetch", "sync_period_s", "1")
            .start()
    };
    let mut first = get();
    first.bytes_done(MIB, LIMIT);
    let ballast = state.0.path().join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    // Until the disk of the state is full.
    while file.write_all(&[1; 4096]).is_ok() {}
    let limit = content.bytes / 2;
    first.bytes_done(limit, LIMIT);
    let status = first.interrupt(SHORT);
    assert_eq!(status.code(), Some(130), "{}", first.process.transcript());
    let said = first.process.stderr();
    assert!(said.contains("cannot remember"), "{said}");
    let safe = last(&first.process, "stopped").unwrap();
    drop(file);
    std::fs::remove_file(&ballast).unwrap();
    let mut second = get();
    let started = second.event("started", LIMIT);
    assert_eq!(started["bytes_done"], safe["bytes_done"], "{safe}");
    second.complete(LIMIT);
    content.assert_copied(folder.path());
}

/// A file system on a disk that is a file on a full one: what is written to it is taken, and only a sync finds out that
/// there is no room for it.
struct FailingDisk {
    folder: TempDir,
    image: PathBuf,
    /// What takes the room.
    ballast: PathBuf,
    _below: SmallDisk,
}

impl FailingDisk {
    /// One that fails once some more than `room` bytes have been written to it.
    fn new(room: u64) -> Result<Self, Skip> {
        /// What it could hold.
        const BYTES: u64 = 64 * MIB;
        /// What the file system needs for itself at its beginning, so that it is never short of that.
        const OWN: u64 = 2 * MIB;
        let mkfs = program("mkfs.ext4", "e2fsprogs")?;
        let below = SmallDisk::new(2 * BYTES)?;
        let image = below.0.path().join("image");
        std::fs::File::create(&image)
            .unwrap()
            .set_len(BYTES)
            .unwrap();
        // No journal, which would fail in place of the data, and few inodes.
        let mut make = Command::new(mkfs);
        make.args([
            "-q",
            "-O",
            "^has_journal,^resize_inode",
            "-N",
            "64",
            "-m",
            "0",
        ]);
        make.args(["-E", "lazy_itable_init=0,nodiscard"])
            .arg(&image);
        run_ok("mkfs.ext4", &make, SHORT);
        let mut bytes = std::fs::read(&image).unwrap();
        bytes.truncate(OWN as usize);
        let mut file = std::fs::File::options().write(true).open(&image).unwrap();
        file.write_all(&bytes).unwrap();
        let ballast = below.0.path().join("ballast");
        write_file(&ballast, 2 * BYTES - OWN - room, 9);
        let disk = Self {
            folder: TempDir::new().unwrap(),
            image,
            ballast,
            _below: below,
        };
        match disk.mount() {
            Ok(()) => Ok(disk),
            Err(why) => Err(Skip::machine(format!("no image can be mounted: {why}"))),
        }
    }

    fn mount(&self) -> Result<(), String> {
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop"]).arg(&self.image);
        let mounted = mount.arg(self.folder.path()).output();
        let output = mounted.map_err(|error| error.to_string())?;
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    }

    /// Where to download to.
    fn folder(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    /// Takes what is only in memory away, so that what is read from here on is what the disk has.
    fn forget_memory(&self) {
        run_ok(
            "umount",
            Command::new("umount").arg(self.folder.path()),
            SHORT,
        );
        self.mount().unwrap();
    }
}

impl Drop for FailingDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("-l")
            .arg(self.folder.path())
            .status();
    }
}

/// A download to a disk that fails in its syncs.
fn get_to(disk: &FailingDisk, content: &Content, seed: &Server, state: &Path) -> Getting {
    Get::new(&content.torrent, &disk.folder())
        .peer(seed.address())
        .state_dir(state)
        .setting("fetch", "sync_period_s", "1")
        .setting("fetch", "retry_period_s", "1")
        // Past the page cache a write itself fails; through it the kernel says so at a sync.
        .setting("fetch", "past_cache", "never")
        // In order, so that the file system needs little room for saying what lies where.
        .options(["--sequential"])
        .start()
}

/// What a disk took and lost, as it says once and at a sync only, is fetched again; nothing of it is believed.
#[test]
fn what_a_failing_disk_lost_is_fetched_again() {
    let test = "what_a_failing_disk_lost_is_fetched_again";
    let disk = need!(test, FailingDisk::new(7 * MIB));
    let content = Content::new(16 * MIB);
    let seed = content.seed(4 * MIB);
    let state = TempDir::new().unwrap();
    let mut getting = get_to(&disk, &content, &seed, state.path());
    let paused = getting.event("paused", LIMIT);
    let reason = paused["reason"].as_str().unwrap();
    assert!(reason.starts_with("cannot sync"), "{reason}");
    std::fs::remove_file(&disk.ballast).unwrap();
    getting.event("resumed", LIMIT);
    let complete = getting.complete(LIMIT);
    assert!(
        complete["downloaded"].as_u64().unwrap() > content.bytes,
        "{complete}"
    );
    disk.forget_memory();
    content.assert_copied(&disk.folder());
}

/// Killed while its disk fails, a download claims nothing that the disk does not have.
#[test]
fn what_a_failing_disk_lost_is_not_claimed_after_a_crash() {
    let test = "what_a_failing_disk_lost_is_not_claimed_after_a_crash";
    let disk = need!(test, FailingDisk::new(7 * MIB));
    let content = Content::new(16 * MIB);
    // Slowly, so that much is synced before it fails.
    let seed = content.seed(MIB);
    let state = TempDir::new().unwrap();
    let mut killed = get_to(&disk, &content, &seed, state.path());
    killed.event("paused", LIMIT);
    killed.kill(SHORT);
    std::fs::remove_file(&disk.ballast).unwrap();
    disk.forget_memory();
    let complete = get_to(&disk, &content, &seed, state.path()).complete(LIMIT);
    assert!(
        complete["downloaded"].as_u64().unwrap() < content.bytes,
        "{complete}"
    );
    disk.forget_memory();
    content.assert_copied(&disk.folder());
}

/// Without permission no waiting helps: it ends, and says what it may not do and what to do about it. What is there is
/// kept.
#[test]
fn without_permission_it_ends_and_says_what_to_do() {
    let content = Content::new(4 * MIB);
    let seed = content.seed(0);
    let (folder, state) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let set = folder.path().join("set");
    std::fs::create_dir_all(set.join("b")).unwrap();
    let everybody = |path: &Path, mode| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, permissions).unwrap();
    };
    for path in [folder.path(), state.path(), &set] {
        everybody(path, 0o777);
    }
    everybody(content.root.path(), 0o755);
    everybody(&set.join("b"), 0o555);
    // Root may do everything.
    let host = |binary: &OsStr| {
        if !is_root() {
            return Command::new(binary);
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        // Root's configuration is not for its eyes.
        command
            .env("HOME", "/nonexistent")
            .env_remove("XDG_CONFIG_HOME");
        command.arg(binary);
        command
    };
    let get = || {
        Get::new(&content.torrent, folder.path())
            .peer(seed.address())
            .state_dir(state.path())
            .start_on(&host)
    };
    let mut refused = get();
    let status = refused.process.wait_exit(LIMIT);
    assert_eq!(status.code(), Some(1), "{}", refused.process.transcript());
    let said = refused.process.stderr();
    let place = set.join("b/c.bin.part");
    let what = format!("cannot make {}: Permission denied", place.display());
    assert!(said.contains(&what) && said.contains("-d"), "{said}");
    everybody(&set.join("b"), 0o777);
    get().complete(LIMIT);
    content.assert_copied(folder.path());
}

/// Two processes never write to the same files: the second one says why it does not.
#[test]
fn the_same_torrent_twice_is_refused() {
    let content = Content::new(8 * MIB);
    let seed = content.seed(MIB);
    let (folder, state) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let get = || {
        Get::new(&content.torrent, folder.path())
            .peer(seed.address())
            .state_dir(state.path())
            .start()
    };
    let mut first = get();
    first.event("started", LIMIT);
    let mut second = get();
    let status = second.process.wait_exit(SHORT);
    assert_eq!(status.code(), Some(1));
    let said = second.process.stderr();
    assert!(said.contains("another `seedring get`"), "{said}");
    assert!(first.process.is_alive());
}

/// A link, a FIFO or a folder in a file's place is neither followed nor opened nor replaced; the message names it.
#[test]
fn what_stands_in_a_file_s_place_is_left_alone() {
    let content = Content::new(4 * MIB);
    let seed = content.seed(0);
    let kinds: [(&str, &[&str]); 3] =
        [("ln", &["-s", "/nowhere"]), ("mkfifo", &[]), ("mkdir", &[])];
    for (program, arguments) in kinds {
        for name in ["set/a.bin", "set/a.bin.part"] {
            let folder = TempDir::new().unwrap();
            let place = folder.path().join(name);
            std::fs::create_dir(folder.path().join("set")).unwrap();
            let mut command = Command::new(program);
            command.args(arguments).arg(&place);
            run_ok(program, &command, SHORT);
            let before = std::fs::symlink_metadata(&place).unwrap();
            let get = Get::new(&content.torrent, folder.path()).peer(seed.address());
            let mut getting = get.start();
            let status = getting.process.wait_exit(LIMIT);
            assert_eq!(status.code(), Some(1), "{program} {name}");
            let said = getting.process.stderr();
            assert!(said.contains(name), "{program} {name}: {said}");
            let after = std::fs::symlink_metadata(&place).unwrap();
            assert_eq!(before.file_type(), after.file_type(), "{program} {name}");
        }
    }
}

/// A file that is replaced while it is being written ends the download; the next run finds out what is there.
#[test]
fn a_replaced_file_ends_the_download_and_the_next_mends_it() {
    let content = Content::new(16 * MIB);
    let seed = content.seed(4 * MIB);
    let (folder, state) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let get = || {
        Get::new(&content.torrent, folder.path())
            .peer(seed.address())
            .state_dir(state.path())
            .setting("fetch", "sync_period_s", "1")
            .start()
    };
    let mut first = get();
    first.bytes_done(4 * MIB, LIMIT);
    let names = ["set/a.bin", "set/b/c.bin", "set/d.bin"];
    for name in names {
        let partial = folder.path().join(format!("{name}.part"));
        if partial.exists() {
            std::fs::remove_file(&partial).unwrap();
            write_file(&partial, 5 * MIB, 77);
        }
    }
    let status = first.process.wait_exit(LIMIT);
    assert_eq!(status.code(), Some(1), "{}", first.process.transcript());
    get().complete(LIMIT);
    content.assert_copied(folder.path());
}
