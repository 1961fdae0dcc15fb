//! The figures of docs/adr/0016-state.md: what a store of many torrents costs.
//!
//! `cargo run --release -p state --example figures -- DIRECTORY [TORRENTS]`, in an empty directory
//! on the disk that is meant: fills a store. Again with the same directory: reads it. Each torrent
//! has a metainfo as one of 1,000 pieces has, three files and all pieces verified.
#![allow(clippy::unwrap_used)]

use engine::layout::FileStamp;
use proto::ids::InfoHashV1;
use state::{
    Handle, NewTorrent, Options, Place, Progress, STORE_FILE, Store, Summary, Totals, Update,
    Verified, Write,
};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Torrents that are added in one request.
const BATCH: u32 = 1000;
/// Bytes of a metainfo: 1,000 hashes and what is beside them.
const METAINFO_BYTES: usize = 20_300;

fn hash(random: &mut fastrand::Rng) -> InfoHashV1 {
    let mut hash = [0; 20];
    random.fill(&mut hash);
    InfoHashV1(hash)
}

fn torrent(number: u32, random: &mut fastrand::Rng) -> NewTorrent {
    let mut metainfo = vec![0; METAINFO_BYTES];
    random.fill(&mut metainfo);
    let stamp = |file: u64| FileStamp {
        device: 0x803,
        inode: u64::from(number) * 3 + file,
        size: 1 << 30,
        mtime_ns: 1_763_000_000_123_456_789,
        ctime_ns: 1_763_000_000_987_654_321,
    };
    NewTorrent {
        summary: Summary {
            name: format!("Some.Release.Name.S01E{number:06}.1080p.WEB.x264-GROUP"),
            total_bytes: 1 << 30,
            piece_bytes: 1 << 20,
            pieces: 1000,
            files: 3,
            save_path: "/srv/torrents/television".into(),
            category: Some("television".into()),
            labels: vec!["group".into()],
            added_at_s: 1_763_000_000,
            completed_at_s: Some(1_763_000_900),
            ..Summary::default()
        },
        metainfo: Some(metainfo),
        verified: Verified::All,
        stamps: (0..3).map(|file| Some(stamp(file))).collect(),
        totals: Totals {
            uploaded_bytes: 5 << 30,
            downloaded_bytes: 1 << 30,
            ..Totals::default()
        },
        place: Place::Last,
        ..NewTorrent::default()
    }
}

/// Resident memory, in MiB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024.0
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let done = work();
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{what:<60} {seconds:>9.3} s, {:>7.1} MiB resident",
        resident()
    );
    done
}

/// The median and the worst of many durable writes, in milliseconds.
fn latencies(what: &str, count: usize, mut write: impl FnMut(usize)) {
    let mut times: Vec<f64> = (0..count)
        .map(|index| {
            let started = Instant::now();
            write(index);
            started.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let (median, worst) = (times[count / 2], times[count - 1]);
    println!("{what:<60} {median:>9.3} ms median, {worst:.3} ms worst of {count}");
}

fn open(directory: &Path) -> Store {
    Store::open(directory, Options::default()).unwrap()
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().expect("a directory"));
    let count = arguments.next().map(|count| count.parse().unwrap());
    println!("{:.1} MiB resident before", resident());
    match directory.join(STORE_FILE).exists() {
        false => fill(&directory, count.unwrap_or(100_000)),
        true => read(&directory),
    }
}

fn fill(directory: &Path, count: u32) {
    let mut random = fastrand::Rng::with_seed(1);
    let mut hashes = Vec::new();
    let store = open(directory);
    timed("add, 1,000 in a request", || {
        for start in (0..count).step_by(BATCH as usize) {
            let batch = (start..count.min(start + BATCH)).map(|number| {
                hashes.push(hash(&mut random));
                let torrent = Box::new(torrent(number, &mut random));
                Write::Add(*hashes.last().unwrap(), torrent)
            });
            let ack = store.handle().submit_blocking(batch.collect()).unwrap();
            assert!(ack.wait().iter().all(Result::is_ok));
        }
    });
    let handle = store.handle();
    let some = |index: usize| hashes[index * 7919 % hashes.len()];
    let pause = |index: usize| {
        let update = Update::new().summary(|summary| summary.paused = !summary.paused);
        Write::Update(some(index), Box::new(update))
    };
    latencies("change a summary, durable", 300, |index| {
        handle.write_blocking(pause(index)).unwrap();
    });
    timed("change 1,000 summaries, all under way at once", || {
        let submit = |index| handle.submit_blocking(vec![pause(index)]).unwrap();
        let acks: Vec<_> = (0..1000).map(submit).collect();
        acks.into_iter().for_each(|ack| drop(ack.wait()));
    });
    timed("totals of 10,000 torrents, and close", || {
        for index in 0..10_000 {
            let totals = Totals {
                uploaded_bytes: index,
                ..Totals::default()
            };
            let progress = Progress {
                totals: Some(totals),
                ..Progress::default()
            };
            let torrent = some(index as usize);
            handle.soon_blocking(torrent, progress).unwrap();
        }
        store.close();
    });
}

/// All torrents, in pages.
fn list(handle: &Handle) -> Vec<InfoHashV1> {
    let mut hashes: Vec<InfoHashV1> = Vec::new();
    loop {
        let after = hashes.last().copied();
        let page = handle.read_blocking(|view| view.torrents(after, 1000));
        let page = page.unwrap();
        if page.is_empty() {
            return hashes;
        }
        hashes.extend(page.iter().map(|listed| listed.info_hash));
    }
}

fn read(directory: &Path) {
    let store = timed("open", || open(directory));
    let handle = store.handle();
    let hashes = timed("list all, in pages of 1,000", || list(&handle));
    timed("the same again", || list(&handle));
    let queue = || handle.read_blocking(|view| view.queue());
    timed("the queue's order", queue).unwrap();
    let path = directory.join(STORE_FILE);
    let each = |path: &Path| {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(path).unwrap().blocks() * 512 / hashes.len() as u64
    };
    println!(
        "{:<60} {:>9} bytes",
        "on the disk, for each torrent",
        each(&path)
    );
    latencies("read a metainfo", 1000, |index| {
        let torrent = hashes[index * 7919 % hashes.len()];
        let metainfo = handle.read_blocking(|view| view.metainfo(&torrent));
        assert_eq!(metainfo.unwrap().unwrap().len(), METAINFO_BYTES);
    });
    // As kill -9 would leave it: the file as it is while the store is open.
    let killed = directory.join("killed");
    std::fs::create_dir(&killed).unwrap();
    let write = Write::Setting("a".into(), None);
    handle.write_blocking(write).unwrap();
    let left = killed.join(STORE_FILE);
    std::fs::copy(&path, &left).unwrap();
    std::fs::File::open(&left).unwrap().sync_all().unwrap();
    let opened = timed("open after kill -9", || open(&killed));
    assert!(!opened.handle().status().repaired);
    opened.close();
    std::fs::remove_dir_all(&killed).unwrap();
    store.close();
    let copy = directory.join("copy");
    let backup = || state::backup(directory, &copy, true);
    timed("backup", backup).unwrap();
    println!(
        "{:<60} {:>9} bytes",
        "the backup on the disk, for each torrent",
        each(&copy)
    );
    timed("check", || state::check(directory)).unwrap();
}
