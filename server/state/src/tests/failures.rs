//! A power cut, and a failure, at every operation of the disk.

use super::disk::{Disk, Faults};
use super::{batches, patient};
use crate::model::{Model, Op};
use crate::{Handle, WriteError};

/// Batches of a run.
const BATCHES: usize = 5;

/// Does a batch; whether the disk did it.
fn write(handle: &Handle, batch: &[Op]) -> bool {
    let writes = batch.iter().map(Op::write).collect();
    let outcomes = handle.submit_blocking(writes).unwrap().wait();
    let failed = |outcome: &Result<(), WriteError>| matches!(outcome, Err(WriteError::Failed(_)));
    let failures = outcomes.iter().filter(|outcome| failed(outcome)).count();
    assert!(failures == 0 || failures == batch.len(), "{outcomes:?}");
    failures == 0
}

fn apply(model: &mut Model, batch: &[Op]) {
    for op in batch {
        let _refused = model.apply(*op);
    }
}

#[test]
fn a_power_cut_at_any_operation_leaves_what_was_acknowledged() {
    let (mut cut, mut ahead) = (0, 0);
    // Of one run there may be no batch that was on the disk before it was acknowledged.
    for seed in 1..=3 {
        cut_power(&batches(seed, BATCHES), &mut cut, &mut ahead);
    }
    assert!(cut > 30 && ahead > 0 && ahead < cut, "{ahead} of {cut}");
}

/// Cuts the power at every operation that the batches take: how often it was cut in one of them,
/// and how often that one was on the disk then.
fn cut_power(batches: &[Vec<Op>], cut: &mut usize, ahead: &mut usize) {
    for operation in 0.. {
        let disk = Disk::with_store();
        disk.cut_power_at(disk.operations() + operation);
        let store = disk.open(patient()).unwrap();
        let handle = store.handle();
        let mut model = Model::default();
        for batch in batches {
            let mut after = model.clone();
            apply(&mut after, batch);
            let acknowledged = disk.after_cut().is_none();
            assert!(write(&handle, batch));
            if let (true, Some(left)) = (acknowledged, disk.after_cut()) {
                // The power went while this batch was written: it is there, or is not.
                let store = Disk::with_bytes(left).open(patient()).unwrap();
                assert!(
                    !store.handle().status().repaired,
                    "it takes no reading of all"
                );
                let found = Model::read(&store.handle());
                assert!(found == model || found == after, "at operation {operation}");
                *ahead += usize::from(found == after && found != model);
                *cut += 1;
            }
            model = after;
        }
        drop(store);
        if disk.after_cut().is_none() {
            break;
        }
    }
}

#[test]
fn a_failure_at_any_operation_is_told_and_costs_nothing_that_was_acknowledged() {
    let batches = batches(2, BATCHES);
    let mut failed = 0;
    for count in [1, 7] {
        for operation in 0.. {
            let disk = Disk::with_store();
            let store = disk.open(patient()).unwrap();
            let handle = store.handle();
            let from = disk.operations() + operation;
            disk.fail(Faults { from, count });
            let mut model = Model::default();
            for batch in &batches {
                let mut after = model.clone();
                apply(&mut after, batch);
                if write(&handle, batch) {
                    model = after;
                    continue;
                }
                failed += 1;
                assert!(handle.status().failing.is_some());
                // The disk works again; so does the store, with the next write. What failed is
                // there or is not.
                disk.fail(Faults::default());
                assert!(write(&handle, &[]), "at operation {operation}");
                let found = Model::read(&handle);
                assert!(found == model || found == after, "at operation {operation}");
                model = found;
            }
            assert_eq!(Model::read(&handle), model, "at operation {operation}");
            assert_eq!(handle.status().failing, None);
            // And it is on the disk, not in what the kernel has.
            let stable = Disk::with_bytes(disk.stable());
            drop(store);
            let again = stable.open(patient()).unwrap();
            assert_eq!(
                Model::read(&again.handle()),
                model,
                "at operation {operation}"
            );
            if disk.operations() <= from {
                break;
            }
        }
    }
    assert!(failed > 30, "{failed}");
}

#[test]
fn while_the_disk_fails_everybody_is_told_and_progress_waits() {
    use crate::model::hash;
    use crate::tests::{progress, torrent};
    use crate::{Verified, Write};
    let disk = Disk::with_store();
    let store = disk.open(patient()).unwrap();
    let handle = store.handle();
    let add = |number| Write::Add(hash(number), torrent(8));
    handle.write_blocking(add(1)).unwrap();
    handle.soon_blocking(hash(1), progress(0x80, 1)).unwrap();
    let from = disk.operations();
    disk.fail(Faults {
        from,
        count: u64::MAX,
    });
    for number in 2..10 {
        let failed = handle.write_blocking(add(number));
        assert!(matches!(failed, Err(WriteError::Failed(_))), "{failed:?}");
        let flushed = crate::waiting::wait(handle.flush());
        assert!(matches!(flushed, Err(WriteError::Failed(_))), "{flushed:?}");
    }
    disk.fail(Faults::default());
    handle.write_blocking(add(20)).unwrap();
    crate::waiting::wait(handle.flush()).unwrap();
    let found = handle.read_blocking(|view| {
        assert_eq!(view.count()?, 2);
        view.verified(&hash(1))
    });
    assert_eq!(found, Ok(Verified::Pieces(vec![0x80])));
}

/// Progress does not fill the memory: it is written when there is much of it, and while that fails
/// the newest is dropped and counted.
#[test]
fn progress_that_waits_is_bounded_in_bytes() {
    use crate::model::hash;
    use crate::tests::torrent;
    use crate::{Progress, Verified, Write, limits};
    let disk = Disk::with_store();
    let store = disk.open(patient()).unwrap();
    let handle = store.handle();
    let large = |seed: u8| Progress {
        verified: Some(Verified::Pieces(vec![seed; limits::SOON_BYTES_MAX / 4])),
        ..Progress::default()
    };
    let pieces = (limits::SOON_BYTES_MAX / 4 * 8) as u32;
    for number in 0..5 {
        let add = Write::Add(hash(number), torrent(pieces));
        handle.write_blocking(add).unwrap();
    }
    let said = |number| handle.read_blocking(|view| view.verified(&hash(number)));
    for number in 0..3 {
        handle.soon_blocking(hash(number), large(1)).unwrap();
    }
    // A write behind it: what was said before has been taken.
    handle.submit_blocking(Vec::new()).unwrap().wait();
    assert_eq!(said(0), Ok(Verified::None), "there is room");
    handle.soon_blocking(hash(3), large(1)).unwrap();
    handle.submit_blocking(Vec::new()).unwrap().wait();
    assert_ne!(
        said(0),
        Ok(Verified::None),
        "it was written for want of room"
    );
    assert_eq!(said(3), Ok(Verified::None), "and what came then waits");
    let from = disk.operations();
    disk.fail(Faults {
        from,
        count: u64::MAX,
    });
    for _ in 0..5 {
        handle.soon_blocking(hash(4), large(2)).unwrap();
    }
    handle.submit_blocking(Vec::new()).unwrap().wait();
    assert!(handle.status().progress_dropped > 0);
    disk.fail(Faults::default());
    handle.submit_blocking(Vec::new()).unwrap().wait();
    crate::waiting::wait(handle.flush()).unwrap();
    assert_ne!(said(3), Ok(Verified::None));
    assert_ne!(said(4), Ok(Verified::None));
}
