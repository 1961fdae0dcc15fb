//! Downloads when something goes wrong with the disk or with memory. Where a fault cannot be had
//! from the kernel at the right moment, a file of a certain name beside the torrent's injects it
//! (`Disk::injected_fault`, `Disk::injected_wait`); what a failing device does to the whole program
//! is tested with a real one (`tests/tests/downloads_faults.rs`).

use super::*;
use seedring_metrics::Counter;

/// A fault that lasts as long as this is there.
struct Injected(PathBuf);

impl Injected {
    fn new(folder: &TempDir, name: &str) -> Injected {
        let path = folder.path().join(name);
        fs::write(&path, b"").unwrap();
        Injected(path)
    }

    /// Waits until somebody has met it.
    fn met(&self) {
        let end = std::time::Instant::now() + PATIENCE;
        while !self.0.with_extension("now").exists() {
            assert!(
                std::time::Instant::now() < end,
                "nobody came to {:?}",
                self.0
            );
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Injected {
    fn drop(&mut self) {
        fs::remove_file(&self.0).unwrap();
    }
}

fn is_paused(event: &FetchEvent) -> bool {
    matches!(event, FetchEvent::Paused { .. })
}

#[test]
fn what_could_not_be_synced_is_not_believed() {
    let content = Content::new(&[("a", 10 * PIECE)], PIECE);
    let (seed, server) = (seed(&content, 0), server(config(1)));
    let folder = TempDir::new().unwrap();
    let fault = folder.path().join("syncs fail");
    fs::write(&fault, b"").unwrap();
    let (fetch, mut events) = server.fetch(FetchSpec::new(content.metainfo.clone(), folder.path()));
    fetch.add_peers(&[seed.address()]);
    let is_paused = |event: &FetchEvent| match event {
        FetchEvent::Paused { reason, .. } => {
            assert!(reason.contains("t/a.part: Input/output error"), "{reason}");
            true
        }
        _ => false,
    };
    assert!(server.wait(&mut events, is_paused).is_empty());
    fs::remove_file(&fault).unwrap();
    assert_eq!(server.wait(&mut events, is_complete).len(), 10);
    content.assert_is_in(folder.path());
    let downloaded = fetch.progress().downloaded;
    assert!(
        downloaded > content.bytes.len() as u64,
        "it was fetched again"
    );
    seed.stop();
    server.stop();
}

#[test]
fn what_was_stored_while_a_sync_failed_is_not_believed() {
    let content = Content::new(&[("a", 10 * PIECE)], PIECE);
    let server = server(config(1));
    let folder = TempDir::new().unwrap();
    let wait = Injected::new(&folder, "syncs wait");
    let (fetch, mut events) = server.fetch(FetchSpec::new(content.metainfo.clone(), folder.path()));
    let some = |id: u8, pieces: std::ops::Range<usize>| Script {
        has: (0..10).map(|piece| pieces.contains(&piece)).collect(),
        ..Script::all(&content, id)
    };
    fetch.add_peers(&[scripted(&content, some(0, 0..5))]);
    wait.met();
    // The sync is under way; what comes now is written before it ends.
    fetch.add_peers(&[scripted(&content, some(1, 5..9))]);
    server.until(&fetch, |progress| progress.pieces_stored == 9);
    let fault = Injected::new(&folder, "syncs fail");
    drop(wait);
    assert!(server.wait(&mut events, is_paused).is_empty());
    drop(fault);
    fetch.add_peers(&[scripted(&content, some(2, 9..10))]);
    assert_eq!(server.wait(&mut events, is_complete).len(), 10);
    content.assert_is_in(folder.path());
    let progress = fetch.progress();
    let pieces = |count: usize| (count * PIECE) as u64;
    assert_eq!(progress.downloaded, pieces(19), "all was fetched again");
    assert_eq!(progress.wasted, pieces(9));
    server.stop();
}

#[test]
fn what_left_memory_before_a_sync_failed_is_fetched_again() {
    const LONG: usize = 7 << 20;
    let content = Content::new(&[("a", 2 * LONG)], LONG);
    let mut config = config(1);
    config.fetch.buffer_bytes = 4 << 20;
    let server = server(config);
    let folder = TempDir::new().unwrap();
    let wait = Injected::new(&folder, "syncs wait");
    let mut spec = FetchSpec::new(content.metainfo.clone(), folder.path());
    spec.sequential = true;
    let (fetch, mut events) = server.fetch(spec);
    // The first piece, and of the second more than there is memory for.
    let most = LONG + (6 << 20);
    let script = Script {
        blocks_max: most / (16 << 10),
        ..Script::all(&content, 0)
    };
    fetch.add_peers(&[scripted(&content, script)]);
    wait.met();
    server.until(&fetch, |progress| progress.downloaded == most as u64);
    let fault = Injected::new(&folder, "syncs fail");
    drop(wait);
    assert!(server.wait(&mut events, is_paused).is_empty());
    drop(fault);
    fetch.add_peers(&[scripted(&content, Script::all(&content, 1))]);
    server.wait(&mut events, is_complete);
    content.assert_is_in(folder.path());
    let progress = fetch.progress();
    assert!(
        progress.downloaded >= (most + 2 * LONG) as u64,
        "{progress:?}"
    );
    assert_eq!(progress.hash_failures, 0);
    server.stop();
}

#[test]
fn a_check_of_what_was_given_up_meanwhile_says_nothing() {
    let content = Content::new(&[("a", PIECE)], PIECE);
    let server = server(config(1));
    let folder = TempDir::new().unwrap();
    let wait = Injected::new(&folder, "hashes wait");
    let (fetch, mut events) = server.fetch(FetchSpec::new(content.metainfo.clone(), folder.path()));
    let once = Script {
        blocks_max: PIECE / (16 << 10),
        ..Script::all(&content, 0)
    };
    fetch.add_peers(&[scripted(&content, once)]);
    wait.met();
    let set = |priority| {
        let priorities = fetch.set_priorities(vec![priority]);
        server.runtime.block_on(priorities);
    };
    set(Priority::SKIP);
    server.wait(&mut events, |event| {
        matches!(event, FetchEvent::SelectionDone)
    });
    // It is wanted after all, and comes again while the right one is still being hashed.
    set(Priority::NORMAL);
    let liar = Script {
        lies: true,
        ..Script::all(&content, 9)
    };
    fetch.add_peers(&[scripted(&content, liar)]);
    let twice = 2 * PIECE as u64;
    server.until(&fetch, |progress| progress.downloaded == twice);
    drop(wait);
    server.until(&fetch, |progress| progress.hash_failures == 1);
    fetch.add_peers(&[scripted(&content, Script::all(&content, 1))]);
    server.wait(&mut events, is_complete);
    content.assert_is_in(folder.path());
    server.stop();
}

#[test]
fn a_piece_whose_hash_is_lost_is_fetched_again_and_nobody_is_to_blame() {
    let content = Content::new(&[("a", 3 * PIECE)], PIECE);
    let server = server(config(1));
    let folder = TempDir::new().unwrap();
    let fault = Injected::new(&folder, "hashes are lost");
    let (fetch, mut events) = server.fetch(FetchSpec::new(content.metainfo.clone(), folder.path()));
    fetch.add_peers(&[scripted(&content, Script::all(&content, 0))]);
    let bytes = content.bytes.len() as u64;
    server.until(&fetch, |progress| progress.downloaded > bytes);
    drop(fault);
    server.wait(&mut events, is_complete);
    content.assert_is_in(folder.path());
    assert_eq!(fetch.progress().hash_failures, 0);
    server.stop();
}

#[test]
fn a_piece_longer_than_memory_comes_whole() {
    // When it is whole all memory is its own, and a part of it has to be read back.
    let content = Content::new(&[("a", 7 << 20)], 7 << 20);
    let mut config = config(1);
    config.fetch.buffer_bytes = 4 << 20;
    let server = server(config);
    let folder = TempDir::new().unwrap();
    let (fetch, mut events) = server.fetch(FetchSpec::new(content.metainfo.clone(), folder.path()));
    fetch.add_peers(&[scripted(&content, Script::all(&content, 0))]);
    server.wait(&mut events, is_complete);
    content.assert_is_in(folder.path());
    assert_eq!(fetch.progress().hash_failures, 0);
    server.stop();
}

#[test]
fn a_download_that_cannot_write_leaves_its_memory_to_others() {
    const LONG: usize = 1 << 20;
    let content = Content::new(&[("a", 24 * LONG)], LONG);
    let other = Content::new(&[("b", 8 * LONG)], LONG);
    let mut config = config(1);
    config.fetch.buffer_bytes = 4 << 20;
    config.fetch.datacenter = true;
    let server = server(config);
    let folder = TempDir::new().unwrap();
    let away = folder.path().join("mount");
    let (fetch, mut events) = server.fetch(FetchSpec::new(content.metainfo.clone(), &away));
    let peers: Vec<_> = (0..8)
        .map(|id| scripted(&content, Script::all(&content, id)))
        .collect();
    fetch.add_peers(&peers);
    server.wait(&mut events, is_paused);
    // All memory may be its by now.
    let (fetch_other, mut events_of_other) =
        server.fetch(FetchSpec::new(other.metainfo.clone(), folder.path()));
    fetch_other.add_peers(&[scripted(&other, Script::all(&other, 0))]);
    server.wait(&mut events_of_other, is_complete);
    other.assert_is_in(folder.path());
    assert_eq!(fetch.progress().pieces_stored, 0);
    fs::create_dir(&away).unwrap();
    server.wait(&mut events, is_complete);
    content.assert_is_in(&away);
    assert_eq!(fetch.progress().hash_failures, 0);
    server.stop();
}

#[test]
fn more_files_than_may_be_open_come_between_two_syncs() {
    let name = |number| -> &'static str { format!("f{number}").leak() };
    let files: Vec<_> = (0..300).map(|number| (name(number), 1_000)).collect();
    let content = Content::new(&files, PIECE);
    let mut config = config(1);
    config.fetch.sync_period = Duration::from_secs(3_600);
    let server = server(config);
    let folder = TempDir::new().unwrap();
    let (fetch, mut events) = server.fetch(FetchSpec::new(content.metainfo.clone(), folder.path()));
    fetch.add_peers(&[scripted(&content, Script::all(&content, 0))]);
    server.wait(&mut events, is_complete);
    content.assert_is_in(folder.path());
    server.stop();
}

#[test]
fn a_file_that_gets_its_name_just_now_is_served() {
    let content = Content::new(&[("a", 2 * PIECE)], PIECE);
    let server = server(config(1));
    let folder = TempDir::new().unwrap();
    let (fetch, mut events) = server.fetch(FetchSpec::new(content.metainfo.clone(), folder.path()));
    let first = Script {
        has: vec![true, false],
        ..Script::all(&content, 0)
    };
    fetch.add_peers(&[scripted(&content, first)]);
    server.until(&fetch, |progress| progress.pieces_stored == 1);
    // What the kernel has done before we hear of it.
    let path = folder.path().join("t/a");
    fs::rename(path.with_extension("part"), &path).unwrap();
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let handshake = Handshake {
        reserved: Reserved::NONE,
        info_hash: content.metainfo.info_hash_v1.unwrap(),
        peer_id: PeerId(*b"-XX0000-testtesttest"),
    };
    let mut opening = handshake.encode().to_vec();
    Message::Interested.encode(&mut opening);
    stream.write_all(&opening).unwrap();
    stream.read_exact(&mut [0; HANDSHAKE_BYTES]).unwrap();
    let mut next = |id| loop {
        let message = read_message(&mut stream).expect("the connection is open");
        if message.first() == Some(&id) {
            return message;
        }
    };
    next(wire::id::UNCHOKE);
    let block = BlockRequest {
        piece: PieceIndex(0),
        begin: 0,
        length: 16 << 10,
    };
    let mut request = Vec::new();
    Message::Request(block).encode(&mut request);
    stream.write_all(&request).unwrap();
    let mut next = |id| loop {
        let message = read_message(&mut stream).expect("the connection is open");
        if message.first() == Some(&id) {
            return message;
        }
    };
    let answer = next(wire::id::PIECE);
    assert!(answer[9..] == content.bytes[..16 << 10]);
    fetch.add_peers(&[scripted(&content, Script::all(&content, 1))]);
    server.wait(&mut events, is_complete);
    content.assert_is_in(folder.path());
    server.stop();
}

#[test]
fn a_full_disk_pauses_one_download_and_no_other() {
    let test = "a_full_disk_pauses_one_download_and_no_other";
    let Some(small) = FullDisk::new(test) else {
        return;
    };
    let folder = TempDir::new().unwrap();
    let content = Content::new(&[("a", 12 * PIECE)], PIECE);
    let other = Content::new(&[("b", 12 * PIECE)], PIECE);
    let seed = seed(&content, 0);
    seed.runtime.block_on(seed.plane.add(&other.seeded()));
    let server = server(config(1));
    let (fetch, mut events) = server.fetch(FetchSpec::new(content.metainfo.clone(), small.path()));
    fetch.add_peers(&[seed.address()]);
    let is_paused = |event: &FetchEvent| match event {
        FetchEvent::Paused { reason, .. } => {
            assert!(
                reason.contains("t/a.part: No space left on device"),
                "{reason}"
            );
            true
        }
        _ => false,
    };
    let mut synced = server.wait(&mut events, is_paused);
    let (fetch_other, mut events_of_other) =
        server.fetch(FetchSpec::new(other.metainfo.clone(), folder.path()));
    fetch_other.add_peers(&[seed.address()]);
    server.wait(&mut events_of_other, is_complete);
    other.assert_is_in(folder.path());
    assert!(fetch.progress().paused.is_some());
    small.free();
    synced.extend(server.wait(&mut events, is_complete));
    assert_eq!(synced.len(), 12);
    content.assert_is_in(small.path());
    seed.stop();
    server.stop();
}

#[test]
fn a_full_disk_is_told_once_whatever_fails_on_it() {
    let test = "a_full_disk_is_told_once_whatever_fails_on_it";
    let Some(small) = FullDisk::new(test) else {
        return;
    };
    // Each has its own words for it.
    let names = [
        "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n",
    ];
    let content = Content::new(&names.map(|name| (name, PIECE)), PIECE);
    let registry = Registry::new(config(1).shards);
    let server = server_with(config(1), &registry);
    let (fetch, mut events) = server.fetch(FetchSpec::new(content.metainfo.clone(), small.path()));
    fetch.add_peers(&[scripted(&content, Script::all(&content, 0))]);
    server.until(&fetch, |progress| progress.paused.is_some());
    // Each that fails has been tried again.
    let errors = || registry.snapshot().counter(Counter::WriteErrors);
    let total = content.bytes.len() as u64;
    server.until(&fetch, |progress| {
        let sum = progress.bytes_stored + progress.bytes_wanted;
        assert_eq!(sum, total, "what is to be had stays the same");
        errors() >= 2 * names.len() as u64
    });
    small.free();
    let mut told = Vec::new();
    loop {
        match server.next(&mut events) {
            FetchEvent::Paused { needs, .. } => {
                assert_eq!(needs, Needs::Space);
                told.push("paused");
            }
            FetchEvent::Resumed => told.push("resumed"),
            FetchEvent::Complete(_) => break,
            _ => {}
        }
    }
    assert_eq!(told, ["paused", "resumed"]);
    content.assert_is_in(small.path());
    server.stop();
}

#[test]
fn what_a_small_file_still_takes_does_not_end_the_pause_of_a_large_one() {
    let test = "what_a_small_file_still_takes_does_not_end_the_pause_of_a_large_one";
    let Some(small) = FullDisk::new(test) else {
        return;
    };
    let ballast = small.path().join("ballast");
    let mut file = fs::File::create(&ballast).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    let content = Content::new(&[("a", PIECE), ("b", 8 * PIECE)], PIECE);
    let registry = Registry::new(config(1).shards);
    let server = server_with(config(1), &registry);
    let mut spec = FetchSpec::new(content.metainfo.clone(), small.path());
    (spec.sequential, spec.allocation) = (true, Allocation::Full);
    let (fetch, mut events) = server.fetch(spec);
    fetch.add_peers(&[scripted(&content, Script::all(&content, 0))]);
    let errors = || registry.snapshot().counter(Counter::WriteErrors);
    server.until(&fetch, |_| small.path().join("t/b.part").exists());
    let before = errors();
    server.until(&fetch, |_| errors() >= before + 4);
    // Room for one of them.
    file.set_len(file.metadata().unwrap().len() - 2 * PIECE as u64)
        .unwrap();
    server.until(&fetch, |progress| progress.pieces_stored == 1);
    while let Ok(event) = events.try_recv() {
        assert!(!matches!(event, FetchEvent::Resumed), "the other waits");
    }
    drop(file);
    fs::remove_file(ballast).unwrap();
    small.free();
    server.wait(&mut events, |event| matches!(event, FetchEvent::Resumed));
    server.wait(&mut events, is_complete);
    content.assert_is_in(small.path());
    server.stop();
}

/// What a full disk costs other downloads. Run by hand on a quiet machine, since a figure is no
/// condition: `cargo test --release -p seedring-io --lib -- --ignored --nocapture
/// the_rate_beside_a_full_disk`.
#[test]
#[ignore = "a measurement"]
fn the_rate_beside_a_full_disk() {
    let Some(small) = FullDisk::new("the_rate_beside_a_full_disk") else {
        return;
    };
    let stuck = Content::new(&[("a", 12 * PIECE)], PIECE);
    let other = Content::new(&[("b", 128 << 20)], 1 << 20);
    let seed = seed(&stuck, 0);
    seed.runtime.block_on(seed.plane.add(&other.seeded()));
    let seconds = |beside: bool| {
        let server = server(config(1));
        let folder = TempDir::new().unwrap();
        if beside {
            let spec = FetchSpec::new(stuck.metainfo.clone(), small.path());
            let (fetch, mut events) = server.fetch(spec);
            fetch.add_peers(&[seed.address()]);
            server.wait(&mut events, is_paused);
        }
        let spec = FetchSpec::new(other.metainfo.clone(), folder.path());
        let (fetch, mut events) = server.fetch(spec);
        let start = std::time::Instant::now();
        fetch.add_peers(&[seed.address()]);
        server.wait(&mut events, is_complete);
        let seconds = start.elapsed().as_secs_f64();
        server.stop();
        seconds
    };
    seconds(false);
    let mut rounds: Vec<_> = (0..7)
        .map(|_| (seconds(false), seconds(true)))
        .map(|(alone, beside)| (alone / beside, alone, beside))
        .collect();
    rounds.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (share, alone, beside) = rounds[rounds.len() / 2];
    println!(
        "128 MiB: {alone:.2} s alone, {beside:.2} s beside a download whose disk is full: {:.0} % of the rate \
         (the median of {} pairs; {:.0} % to {:.0} %)",
        100.0 * share,
        rounds.len(),
        100.0 * rounds[0].0,
        100.0 * rounds[rounds.len() - 1].0,
    );
    seed.stop();
}

/// A small file system of its own that is nearly full, unmounted when it is dropped.
struct FullDisk(TempDir);

impl FullDisk {
    /// As much as there is room for.
    const ROOM: usize = 1 << 20;

    /// `None`, which is reported, where none can be had.
    fn new(test: &str) -> Option<FullDisk> {
        let folder = TempDir::new().unwrap();
        let size = format!("size={}", Self::ROOM);
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder.path())
            .status();
        if !mounted.is_ok_and(|status| status.success()) {
            testing::skip(test, "a file system can not be mounted here");
            return None;
        }
        let disk = FullDisk(folder);
        fs::write(disk.path().join("filler"), vec![1; Self::ROOM / 2]).unwrap();
        Some(disk)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Makes room.
    fn free(&self) {
        fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        let mut unmount = std::process::Command::new("umount");
        let _ = unmount.arg("-l").arg(self.path()).status();
    }
}

#[test]
fn a_disk_that_hangs_in_the_last_sync_holds_nobody_up() {
    let content = Content::new(&[("a", 4 * PIECE)], PIECE);
    let server = server(config_without_syncs());
    let folder = TempDir::new().unwrap();
    let wait = Injected::new(&folder, "syncs wait");
    let (fetch, mut events) = server.fetch(FetchSpec::new(content.metainfo.clone(), folder.path()));
    fetch.add_peers(&[scripted(&content, Script::all(&content, 0))]);
    wait.met();
    // It is steered meanwhile, and whoever stops it goes on after the deadline.
    server.runtime.block_on(fetch.pause());
    server.until(&fetch, |progress| progress.paused_by_user);
    let stopped = server.runtime.block_on(fetch.stop(Duration::ZERO));
    assert!(!stopped, "nothing can be synced");
    drop(wait);
    // What was under way comes to its end all the same.
    assert_eq!(server.wait(&mut events, is_complete).len(), 4);
    content.assert_is_in(folder.path());
    server.stop();
}

#[test]
fn what_is_wanted_during_the_last_sync_is_synced_before_all_is_complete() {
    let content = Content::new(&[("a", 4 * PIECE), ("b", 4 * PIECE)], PIECE);
    let server = server(config_without_syncs());
    let folder = TempDir::new().unwrap();
    let wait = Injected::new(&folder, "syncs wait");
    let mut spec = FetchSpec::new(content.metainfo.clone(), folder.path());
    spec.priorities = vec![Priority::NORMAL, Priority::SKIP];
    let (fetch, mut events) = server.fetch(spec);
    fetch.add_peers(&[scripted(&content, Script::all(&content, 0))]);
    wait.met();
    let all = vec![Priority::NORMAL; 2];
    server.runtime.block_on(fetch.set_priorities(all));
    server.until(&fetch, |progress| progress.pieces_stored == 8);
    drop(wait);
    assert_eq!(server.wait(&mut events, is_complete).len(), 8);
    content.assert_is_in(folder.path());
    server.stop();
}

/// Nothing is synced but at the end.
fn config_without_syncs() -> PlaneConfig {
    let mut config = config(1);
    config.fetch.sync_period = Duration::from_secs(3_600);
    config
}
