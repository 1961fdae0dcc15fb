//! A disk that is full, as the kernel says it: a child process that may write files of 4 or 8 MiB
//! only. Writes fail with their reason, what was acknowledged is there, and when there is room
//! again the same store goes on.
#![allow(clippy::unwrap_used)]

mod model;

use model::hash;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use state::{NewTorrent, Options, Store, Summary, Write, WriteError};
use std::path::PathBuf;
use std::process::Command;

const DIRECTORY: &str = "STATE_FULL_DIRECTORY";

fn torrent(number: u8, bytes: usize) -> Write {
    let torrent = NewTorrent {
        summary: Summary {
            name: format!("torrent {number}"),
            ..Summary::default()
        },
        metainfo: Some(vec![number; bytes]),
        ..NewTorrent::default()
    };
    Write::Add(hash(number), Box::new(torrent))
}

#[test]
#[ignore = "it is what the test of the full disk starts, under a limit"]
fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let directory = PathBuf::from(directory);
    let store = Store::open(&directory, Options::default()).unwrap();
    let handle = store.handle();
    let mut added = Vec::new();
    let failure = (0..200u8).find_map(|number| {
        let written = handle.write_blocking(torrent(number, 100_000));
        added.extend(written.is_ok().then_some(number));
        written.err()
    });
    let Some(WriteError::Failed(failure)) = failure else {
        panic!("20 MB were written to a file of 4 or 8 MiB, or not: {failure:?}");
    };
    assert!(failure.disk_full, "{failure}");
    assert!(failure.to_string().contains("store.redb"), "{failure}");
    assert!(!added.is_empty());
    assert_eq!(handle.status().failing.as_deref(), Some(&*failure));
    // It can be read, and tried again, and what has room is written.
    let all_there = || {
        handle.read_blocking(|view| {
            assert_eq!(view.count()?, added.len() as u64);
            for number in &added {
                let metainfo = view.metainfo(&hash(*number))?;
                assert_eq!(metainfo, Some(vec![*number; 100_000]));
            }
            Ok(())
        })
    };
    all_there().unwrap();
    for _ in 0..5 {
        let again = handle.write_blocking(torrent(250, 5_000_000));
        assert!(matches!(again, Err(WriteError::Failed(_))), "{again:?}");
        all_there().unwrap();
    }
    let limit = getrlimit(Resource::Fsize);
    let enough = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Fsize, enough).unwrap();
    handle.write_blocking(torrent(250, 5_000_000)).unwrap();
    assert_eq!(handle.status().failing, None);
    drop(store);
    let store = Store::open(&directory, Options::default()).unwrap();
    let count = store.handle().read_blocking(|view| view.count());
    assert_eq!(count, Ok(added.len() as u64 + 1));
    drop(store);
    state::check(&directory).unwrap();
    println!("done");
}

#[test]
fn a_full_disk_is_told_and_the_store_goes_on_when_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    // The shell counts in blocks of 512 or 1024 bytes; either is full soon. It also ignores the
    // signal.
    let script =
        r#"ulimit -S -f 8192; trap "" XFSZ; exec "$0" child --exact --ignored --nocapture"#;
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .env(DIRECTORY, directory.path())
        .output()
        .unwrap();
    let (stdout, stderr) = (&output.stdout, &output.stderr);
    let (stdout, stderr) = (
        String::from_utf8_lossy(stdout),
        String::from_utf8_lossy(stderr),
    );
    assert!(output.status.success(), "{stdout}\n{stderr}");
    assert!(stdout.contains("done"), "{stdout}\n{stderr}");
}
