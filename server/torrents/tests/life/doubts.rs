//! Data that are away, were never hashed or cannot be read: what was known is not thrown away,
//! nothing is fetched again from nothing, and nothing is said to be there that is not.

use super::renames::{is_served, rename, rename_path};
use super::*;
use control::command::Rename;
use seedring_io::torrent::{Fault, FaultCause};
use seedring_metrics::ControlCounter;
use state::{Condition, Update, Verified, Write};

/// Has the store of a server that does not run know no piece of a torrent, nor its files.
pub(super) fn forget_pieces(folder: &Path, info_hash: InfoHashV1, condition: Condition) {
    let store = Store::open(&folder.join("state"), Options::default()).unwrap();
    let update = Update::new()
        .verified(Verified::None)
        .all_stamps([None; 3])
        .summary(move |summary| summary.condition = condition);
    let write = Write::Update(info_hash, Box::new(update));
    store.handle().write_blocking(write).unwrap();
    store.close();
}

/// What was complete is waited for when none of it is there, also if no piece of it is known: such
/// as one of another client that was taken over while its disk was not mounted.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_complete_is_never_fetched_again_from_nothing() {
    let one = TempDir::new().unwrap();
    let data = data(one.path());
    let host = Host::start(0, one.path()).await;
    let info_hash = made(&host, &data).await;
    host.stop().await;
    forget_pieces(one.path(), info_hash, Condition::NeedsCheck);
    let away = one.path().join("away");
    fs::rename(&data, &away).unwrap();
    let host = Host::start(0, one.path()).await;
    let torrent = host.until_status(info_hash, Status::Offline).await;
    assert!(torrent.summary.completed_at_s.is_some());
    let error = torrent.summary.last_error.unwrap().text;
    assert!(error.contains("none of their files"), "{error}");
    fs::rename(&away, &data).unwrap();
    let torrent = host.until_status(info_hash, Status::Seeding).await;
    assert!(torrent.is_complete(), "it is there again, and was hashed");
    host.stop().await;

    // One that waits for nothing is hashed, not fetched.
    forget_pieces(one.path(), info_hash, Condition::Ready);
    let host = Host::start(0, one.path()).await;
    host.until(info_hash, |torrent| {
        torrent.is_complete() && torrent.live.status == Status::Seeding
    })
    .await;
    host.stop().await;
}

/// What is said to be complete and is not there is offline until it is there, and hashed then.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_to_be_complete_and_is_not_there_stays_offline() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    let metainfo = seed.metainfo(info_hash).await;
    let keep = Action::Remove { with_data: false };
    seed.act(info_hash, keep).await.unwrap();
    let away = one.path().join("away");
    fs::rename(&data, &away).unwrap();
    let trusting = AddTorrent {
        seed_mode: true,
        save_path: Some(one.path().to_owned()),
        ..AddTorrent::new(AddSource::Metainfo(metainfo.clone()))
    };
    seed.add(trusting).await;
    let host = Host::start(1, two.path()).await;
    host.add(of_file(metainfo, seed.address())).await;
    seed.until_status(info_hash, Status::Offline).await;
    host.stop().await;
    // Nobody asks for it now: only what was hashed makes it complete.
    fs::rename(&away, &data).unwrap();
    let torrent = seed.until_status(info_hash, Status::Seeding).await;
    assert!(torrent.is_complete() && !torrent.summary.seed_mode);
    seed.stop().await;
}

/// A piece that cannot be read is found by hashing, though the file is what it was.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_hashed_before_it_is_served_again() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let data = data(one.path());
    let seed = Host::start(0, one.path()).await;
    let info_hash = made(&seed, &data).await;
    let metainfo = seed.metainfo(info_hash).await;
    let host = Host::start(1, two.path()).await;
    host.add(of_file(metainfo, seed.address())).await;
    host.until_status(info_hash, Status::Seeding).await;
    host.stop().await;
    let hashed = || seed.cells.counter(ControlCounter::VerifiedBytes);
    let before = hashed();
    seed.manager.fault(Fault {
        info_hash,
        file: data.join("a"),
        cause: FaultCause::Io("a bad sector".into()),
    });
    let torrent = seed.until_status(info_hash, Status::Offline).await;
    let error = torrent.summary.last_error.unwrap().text;
    assert!(error.contains("a bad sector"), "{error}");
    let torrent = seed.until_status(info_hash, Status::Seeding).await;
    assert_eq!(hashed() - before, 790_301);
    assert_eq!(torrent.summary.last_error, None);
    seed.stop().await;
}

/// What has been renamed is looked for under the names that it has: it is back when they are, with
/// nothing hashed, and not when there are files with the names that the torrent gives.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_renamed_comes_back_under_its_own_names() {
    let one = TempDir::new().unwrap();
    let data = data(one.path());
    let host = Host::start(0, one.path()).await;
    let info_hash = made(&host, &data).await;
    rename_path(&host, info_hash, "data", "sub/new")
        .await
        .unwrap();
    let (index, to) = (0, "sub/file".into());
    rename(&host, info_hash, Rename::File { index, to })
        .await
        .unwrap();
    let whole = one.path().join("whole");
    self::data(&whole);
    let whole = whole.join("data");
    // Only what is served can turn out to be gone: who asked for it has woken it.
    is_served(&host, info_hash, &whole).await;
    let hashed = || host.cells.counter(ControlCounter::VerifiedBytes);
    let before = hashed();
    let (renamed, away) = (one.path().join("sub"), one.path().join("away"));
    fs::rename(&renamed, &away).unwrap();
    // Files with the names that the torrent gives are another's now, and none of its own.
    self::data(one.path());
    host.manager.fault(Fault {
        info_hash,
        file: renamed.join("file"),
        cause: FaultCause::Missing,
    });
    let torrent = host.until_status(info_hash, Status::Offline).await;
    let error = torrent.summary.last_error.unwrap().text;
    assert!(error.contains("sub/file"), "{error}");
    fs::rename(&away, &renamed).unwrap();
    let torrent = host.until_status(info_hash, Status::Seeding).await;
    assert!(torrent.is_complete());
    assert_eq!(hashed(), before, "nothing of it has changed");
    assert_eq!(torrent.summary.last_error, None);
    is_served(&host, info_hash, &whole).await;
    host.stop().await;
}
