//! The store on disks that fail and lose power, and what callers see of it.

mod disk;
mod failures;
mod files;

use crate::limits;
use crate::model::{Model, Op, hash};
use crate::tests::disk::Disk;
use crate::waiting::wait_until;
use crate::{NewTorrent, Options, Progress, Summary, Totals, Update, Verified, Write, WriteError};
use engine::layout::FileStamp;
use std::time::{Duration, Instant};

/// Options with a period that no test sees the end of.
fn patient() -> Options {
    Options {
        soon_period: Duration::from_secs(3600),
        ..Options::default()
    }
}

fn torrent(pieces: u32) -> Box<NewTorrent> {
    Box::new(NewTorrent {
        summary: Summary {
            pieces,
            files: 3,
            magnet: Some("magnet:?".into()),
            ..Summary::default()
        },
        ..NewTorrent::default()
    })
}

fn uploaded(uploaded_bytes: u64) -> Totals {
    Totals {
        uploaded_bytes,
        ..Totals::default()
    }
}

fn progress(bits: u8, uploaded_bytes: u64) -> Progress {
    let stamp = FileStamp {
        size: uploaded_bytes,
        ..FileStamp::default()
    };
    Progress {
        verified: Some(Verified::Pieces(vec![bits])),
        stamps: [(1, Some(stamp))].into(),
        totals: Some(uploaded(uploaded_bytes)),
    }
}

#[test]
fn what_waits_while_the_disk_syncs_is_committed_together() {
    let disk = Disk::with_store();
    let store = disk.open(patient()).unwrap();
    let handle = store.handle();
    let gate = disk.hold_syncs();
    let first = handle.submit_blocking(vec![Write::Add(hash(0), torrent(8))]);
    disk.wait_for_held_sync();
    let before = handle.status().commits;
    let more: Vec<_> = (1..=200)
        .map(|number| {
            let write = Write::Add(hash(number), torrent(8));
            handle.submit_blocking(vec![write]).unwrap()
        })
        .collect();
    drop(gate);
    assert_eq!(first.unwrap().wait(), [Ok(())]);
    for ack in more {
        assert_eq!(ack.wait(), [Ok(())]);
    }
    assert_eq!(handle.status().commits, before + 2);
}

#[test]
fn who_brings_more_than_may_wait_waits_for_room() {
    let disk = Disk::with_store();
    let options = Options {
        requests_kib: 4096,
        ..patient()
    };
    let store = disk.open(options).unwrap();
    let handle = store.handle();
    let gate = disk.hold_syncs();
    let mut acks = vec![handle.submit_blocking(vec![Write::ServerTotals(uploaded(1))])];
    disk.wait_for_held_sync();
    for number in 0..limits::REQUESTS_MAX {
        let write = Write::ServerTotals(uploaded(number as u64));
        acks.push(handle.submit_blocking(vec![write]));
    }
    let one_more = handle.submit(vec![Write::ServerTotals(uploaded(7))]);
    assert!(
        wait_until(one_more, Instant::now()).is_none(),
        "requests are bounded"
    );
    drop(gate);
    for ack in acks {
        assert_eq!(ack.unwrap().wait(), [Ok(())]);
    }

    // The bytes of what waits are, too; and what is larger than all of them gets through alone.
    let gate = disk.hold_syncs();
    let large = || {
        let mut torrent = torrent(0);
        torrent.metainfo = Some(vec![7; 4096 << 10]);
        torrent
    };
    let first = handle.submit_blocking(vec![Write::Add(hash(1), large())]);
    disk.wait_for_held_sync();
    let second = handle.submit(vec![Write::Add(hash(2), torrent(0))]);
    assert!(
        wait_until(second, Instant::now()).is_none(),
        "bytes are bounded"
    );
    drop(gate);
    assert_eq!(first.unwrap().wait(), [Ok(())]);
    handle
        .write_blocking(Write::Add(hash(3), torrent(0)))
        .unwrap();
}

#[test]
fn progress_waits_for_its_period_and_goes_with_the_next_write_of_its_torrent() {
    let disk = Disk::with_store();
    let store = disk.open(patient()).unwrap();
    let handle = store.handle();
    let seen = |torrent: u8| {
        let torrent = hash(torrent);
        let seen = handle.read_blocking(|view| {
            let stamps = view.stamps(&torrent)?;
            Ok((
                view.verified(&torrent)?,
                stamps.len(),
                view.totals(&torrent)?.uploaded_bytes,
            ))
        });
        seen.unwrap()
    };
    let nothing = (Verified::None, 0, 0);
    for number in [1, 2, 3] {
        handle
            .write_blocking(Write::Add(hash(number), torrent(8)))
            .unwrap();
        handle
            .soon_blocking(hash(number), progress(0x80, 1))
            .unwrap();
        handle
            .soon_blocking(hash(number), progress(0xc0, 2))
            .unwrap();
    }
    assert_eq!(seen(1), nothing);
    // A write of the torrent brings along what was said before it.
    let pause = Update::new().summary(|summary| summary.paused = true);
    handle
        .write_blocking(Write::Update(hash(1), Box::new(pause)))
        .unwrap();
    let later = (Verified::Pieces(vec![0xc0]), 1, 2);
    assert_eq!(seen(1), later);
    assert_eq!(seen(2), nothing, "and of no other torrent");
    // It does not come after one that was made later, nor to a torrent of the same hash that is
    // another.
    let totals = Update::new().totals(uploaded(9));
    handle
        .write_blocking(Write::Update(hash(2), Box::new(totals)))
        .unwrap();
    handle.write_blocking(Write::Remove(hash(3))).unwrap();
    handle
        .write_blocking(Write::Add(hash(3), torrent(8)))
        .unwrap();
    wait_until(
        handle.server_totals_soon(uploaded(5)),
        Instant::now() + Duration::from_secs(60),
    );
    crate::waiting::wait(handle.flush()).unwrap();
    assert_eq!(seen(2), (Verified::Pieces(vec![0xc0]), 1, 9));
    assert_eq!(seen(3), nothing);
    let server = handle.read_blocking(|view| view.server_totals());
    assert_eq!(server, Ok(uploaded(5)));
    // Closing writes it; of a torrent that is not there nothing is kept.
    handle.soon_blocking(hash(3), progress(0xff, 3)).unwrap();
    handle.soon_blocking(hash(4), progress(0xff, 3)).unwrap();
    store.close();
    let store = disk.open(patient()).unwrap();
    let found = store.handle().read_blocking(|view| {
        assert_eq!(view.count()?, 3);
        view.verified(&hash(3))
    });
    assert_eq!(found, Ok(Verified::All));
}

#[test]
fn progress_is_durable_at_the_end_of_its_period() {
    let disk = Disk::with_store();
    let options = Options {
        soon_period: Duration::from_millis(1),
        ..Options::default()
    };
    let store = disk.open(options).unwrap();
    let handle = store.handle();
    handle
        .write_blocking(Write::Add(hash(1), torrent(8)))
        .unwrap();
    handle.soon_blocking(hash(1), progress(0x80, 1)).unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while handle.read_blocking(|view| view.verified(&hash(1))) == Ok(Verified::None) {
        assert!(Instant::now() < until, "it never became durable");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn after_the_store_is_closed_handles_say_so() {
    let disk = Disk::with_store();
    let store = disk.open(patient()).unwrap();
    let handle = store.handle();
    store.close();
    let write = handle.write_blocking(Write::Remove(hash(1)));
    assert_eq!(write, Err(WriteError::Closed));
    let read = handle.read_blocking(|view| view.count());
    assert_eq!(read, Err(crate::ReadError::Closed));
    let soon = handle.soon_blocking(hash(1), Progress::default());
    assert_eq!(soon, Err(WriteError::Closed));
}

#[test]
fn what_is_too_large_or_does_not_fit_is_refused_and_changes_nothing() {
    let disk = Disk::with_store();
    let store = disk.open(patient()).unwrap();
    let handle = store.handle();
    handle
        .write_blocking(Write::Add(hash(1), torrent(8)))
        .unwrap();
    let before = Model::read(&handle);
    let update = |update: Update| Write::Update(hash(1), Box::new(update));
    let long = |bytes: usize| "x".repeat(bytes);
    let name = long(limits::SUMMARY_BYTES_MAX);
    let stranger = FileStamp::default();
    let refused = [
        update(Update::new().summary(move |summary| summary.name = name)),
        update(Update::new().verified(Verified::Pieces(vec![0; 2]))),
        update(Update::new().stamps([(0, Some(stranger)), (3, Some(stranger))])),
        update(Update::new().summary(|summary| summary.files = u32::MAX)),
        Write::Setting(long(limits::SETTING_NAME_BYTES_MAX + 1), Some(Vec::new())),
        Write::Setting("a".into(), Some(vec![0; limits::SETTING_BYTES_MAX + 1])),
    ];
    let count = refused.len();
    let outcomes = handle.submit_blocking(refused.into()).unwrap().wait();
    let expected = |outcome: &Result<(), WriteError>| {
        matches!(
            outcome,
            Err(WriteError::TooMuch { .. } | WriteError::Mismatch { .. })
        )
    };
    assert_eq!(
        outcomes.iter().filter(|outcome| expected(outcome)).count(),
        count,
        "{outcomes:?}"
    );
    let many = (0..=limits::WRITES_MAX)
        .map(|_| Write::Remove(hash(1)))
        .collect();
    let refused = handle.submit_blocking(many).map(|_| ());
    assert!(
        matches!(refused, Err(WriteError::TooMuch { .. })),
        "{refused:?}"
    );
    assert_eq!(Model::read(&handle), before);
}

/// A reader sees one moment, whatever is written meanwhile.
#[test]
fn a_view_is_one_moment() {
    let disk = Disk::with_store();
    let store = disk.open(patient()).unwrap();
    let handle = store.handle();
    handle
        .write_blocking(Write::Add(hash(1), torrent(8)))
        .unwrap();
    let counts = handle.read_blocking(|view| {
        let before = view.count()?;
        handle
            .write_blocking(Write::Add(hash(2), torrent(8)))
            .unwrap();
        Ok((before, view.count()?))
    });
    assert_eq!(counts, Ok((1, 1)));
    assert_eq!(handle.read_blocking(|view| view.count()), Ok(2));
}

/// A panic in a function of a caller is told to the caller, and the store goes on.
#[test]
fn a_change_that_panics_fails_alone() {
    let disk = Disk::with_store();
    let store = disk.open(patient()).unwrap();
    let handle = store.handle();
    handle
        .write_blocking(Write::Add(hash(1), torrent(8)))
        .unwrap();
    let panics = Update::new().summary(|_| panic!("on purpose"));
    let failed = handle.write_blocking(Write::Update(hash(1), Box::new(panics)));
    assert!(matches!(failed, Err(WriteError::Failed(_))), "{failed:?}");
    handle
        .write_blocking(Write::Add(hash(2), torrent(8)))
        .unwrap();
    assert_eq!(handle.read_blocking(|view| view.count()), Ok(2));
}

/// Random operations that both the store and the model have done.
fn batches(seed: u64, count: usize) -> Vec<Vec<Op>> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut batch = || {
        let count = random.usize(1..8);
        (0..count).map(|_| Op::random(&mut random)).collect()
    };
    (0..count).map(|_| batch()).collect()
}
