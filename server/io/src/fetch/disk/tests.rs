//! The files of a download by themselves, on a real file system.

use super::*;
use crate::fetch::memory::{MemoryBudget, SegmentPool};
use crate::testing::Content;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const PIECE: usize = 16 << 10;

/// The files of `content` in a folder of their own.
fn disk(content: &Content) -> (Disk, TempDir) {
    disk_with(content, PastCache::Never)
}

fn disk_with(content: &Content, past_cache: PastCache) -> (Disk, TempDir) {
    let folder = TempDir::new().unwrap();
    let metainfo = content.metainfo.clone();
    let torrent =
        SeededTorrent::partial(metainfo, folder.path(), &[], ".part", Default::default()).unwrap();
    let disk = Disk::new(
        Arc::new(torrent),
        Allocation::Sparse,
        past_cache,
        Vec::new(),
    );
    (disk, folder)
}

/// So many files of one piece each.
fn files(count: usize) -> Content {
    let name = |number| -> &'static str { format!("f{number}").leak() };
    let files: Vec<_> = (0..count).map(|number| (name(number), PIECE)).collect();
    Content::new(&files, PIECE)
}

/// The bytes of a piece as they should be.
fn sealed(content: &Content, piece: u32) -> Arc<Sealed> {
    let pool = SegmentPool::new(MemoryBudget::new(PIECE));
    let mut segment = pool.try_take(PIECE).unwrap();
    let start = piece as usize * PIECE;
    assert!(segment.put(0, &content.bytes[start..start + PIECE]));
    segment.seal()
}

/// Writes a piece as it should be.
async fn write(disk: &Disk, content: &Content, piece: u32) -> Result<u64, DiskError> {
    let sealed = sealed(content, piece);
    disk.write(PieceIndex(piece), 0, &sealed, 0, PIECE, true)
        .await
}

async fn sync(disk: &Disk) -> Result<Stamps, DiskError> {
    let begun = disk.begin_sync().await;
    disk.sync(begun).await
}

#[test]
fn no_file_is_closed_before_it_is_synced() {
    let count = 3 * FILES_OPEN_MAX;
    let content = files(count);
    let (disk, _folder) = disk(&content);
    tokio_uring::start(async {
        for piece in 0..count as u32 {
            write(&disk, &content, piece).await.unwrap();
            disk.check_invariants();
        }
        // Those that were synced to be closed are told with the others.
        assert_eq!(sync(&disk).await.unwrap().len(), count);
        assert!(disk.is_clean());
        disk.close().await;
    });
}

#[test]
fn a_sync_that_makes_room_for_a_file_may_fail_and_is_a_doubt() {
    let content = files(FILES_OPEN_MAX + 1);
    let (disk, folder) = disk(&content);
    tokio_uring::start(async {
        for piece in 0..FILES_OPEN_MAX as u32 {
            write(&disk, &content, piece).await.unwrap();
        }
        let fault = folder.path().join("syncs fail");
        fs::write(&fault, b"").unwrap();
        let one_more = write(&disk, &content, FILES_OPEN_MAX as u32).await;
        assert!(matches!(one_more, Err(DiskError::Passing(_))));
        assert_eq!(disk.doubts(), 1);
        fs::remove_file(&fault).unwrap();
        write(&disk, &content, FILES_OPEN_MAX as u32).await.unwrap();
        disk.check_invariants();
        assert_eq!(sync(&disk).await.unwrap().len(), FILES_OPEN_MAX + 1);
        disk.close().await;
    });
}

#[test]
fn many_who_write_at_once_share_the_files_that_may_be_open() {
    let count = 2 * FILES_OPEN_MAX;
    let content = files(count);
    let (disk, folder) = disk(&content);
    tokio_uring::start(async {
        let disk = Rc::new(disk);
        let all = (0..count as u32).map(|piece| {
            let (disk, content) = (Rc::clone(&disk), content.clone());
            tokio_uring::spawn(async move {
                write(&disk, &content, piece).await.unwrap();
                disk.check_invariants();
            })
        });
        for one in all.collect::<Vec<_>>() {
            one.await.unwrap();
        }
        sync(&disk).await.unwrap();
        let all = (0..count as u32).map(FileIndex).collect();
        assert_eq!(disk.finish(&all).await.unwrap().len(), count);
        disk.close().await;
    });
    content.assert_is_in(folder.path());
}

#[test]
fn a_file_that_was_deleted_is_not_made_again() {
    let content = files(2 * FILES_OPEN_MAX);
    let (disk, folder) = disk(&content);
    tokio_uring::start(async {
        write(&disk, &content, 0).await.unwrap();
        sync(&disk).await.unwrap();
        // Others take its place among the open files.
        for piece in 1..2 * FILES_OPEN_MAX as u32 {
            write(&disk, &content, piece).await.unwrap();
        }
        let path = folder.path().join("t/f0.part");
        fs::remove_file(&path).unwrap();
        let Err(DiskError::Lasting(fault)) = write(&disk, &content, 0).await else {
            panic!("it was made again");
        };
        assert_eq!(
            (fault.file, fault.cause),
            (path.clone(), FaultCause::Missing)
        );
        assert!(!path.exists());
        // Neither is another one taken for it.
        fs::write(&path, [0; PIECE]).unwrap();
        let Err(DiskError::Lasting(fault)) = write(&disk, &content, 0).await else {
            panic!("another file was written to");
        };
        assert_eq!(fault.cause, FaultCause::Changed);
        disk.close().await;
    });
}

#[test]
fn a_file_that_was_cut_is_noticed() {
    let content = Content::new(&[("a", 4 * PIECE)], PIECE);
    let cut = |length| {
        move |folder: &Path| {
            let file = fs::File::options()
                .write(true)
                .open(folder.join("t/a.part"));
            file.unwrap().set_len(length).unwrap();
        }
    };
    let cause = |written: u32, length: u64, finish: bool| {
        let (disk, folder) = disk(&content);
        tokio_uring::start(async {
            for piece in 0..written {
                write(&disk, &content, piece).await.unwrap();
            }
            cut(length)(folder.path());
            let outcome = match finish {
                true => disk.finish(&BTreeSet::from([FileIndex(0)])).await,
                false => sync(&disk).await,
            };
            disk.close().await;
            match outcome {
                Err(DiskError::Lasting(fault)) => Some(fault.cause),
                other => panic!("{other:?}"),
            }
        })
    };
    let truncated = |expected: usize, found: u64| {
        let expected = expected as u64;
        Some(FaultCause::Truncated { expected, found })
    };
    assert_eq!(cause(2, 5, false), truncated(2 * PIECE, 5));
    assert_eq!(cause(4, 5, true), truncated(4 * PIECE, 5));
    // All that was written is there, and it is not all of the file.
    let most = 3 * PIECE as u64;
    assert_eq!(cause(2, most, true), truncated(4 * PIECE, most));
}

#[test]
fn a_file_gets_its_name_where_the_file_system_cannot_exclude_another() {
    let content = files(2);
    let (disk, folder) = disk(&content);
    fs::write(folder.path().join("no exclusive renames"), b"").unwrap();
    tokio_uring::start(async {
        for piece in 0..2 {
            write(&disk, &content, piece).await.unwrap();
        }
        sync(&disk).await.unwrap();
        disk.finish(&BTreeSet::from([FileIndex(0)])).await.unwrap();
        // Still, no other file is replaced.
        let taken = folder.path().join("t/f1");
        fs::write(&taken, b"precious").unwrap();
        let outcome = disk.finish(&BTreeSet::from([FileIndex(1)])).await;
        let Err(DiskError::Lasting(fault)) = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(fault.cause, FaultCause::Taken);
        assert_eq!(fs::read(&taken).unwrap(), b"precious");
        disk.close().await;
    });
    let found = fs::read(folder.path().join("t/f0")).unwrap();
    assert_eq!(found, content.bytes[..PIECE]);
    assert!(!folder.path().join("t/f0.part").exists());
}

#[test]
fn a_rename_of_which_the_answer_was_lost_is_done() {
    let content = files(1);
    let (disk, folder) = disk(&content);
    let path = |name: &str| folder.path().join("t").join(name);
    tokio_uring::start(async {
        write(&disk, &content, 0).await.unwrap();
        fs::rename(path("f0.part"), path("f0")).unwrap();
        disk.finish(&BTreeSet::from([FileIndex(0)])).await.unwrap();
        disk.close().await;
    });
    assert_eq!(fs::read(path("f0")).unwrap(), content.bytes[..PIECE]);
}

#[test]
fn folders_are_synced_until_they_are() {
    let content = files(1);
    let (disk, folder) = disk(&content);
    let fault = folder.path().join("folder syncs fail");
    fs::write(&fault, b"").unwrap();
    tokio_uring::start(async {
        write(&disk, &content, 0).await.unwrap();
        // What was made is not told as synced before its names are.
        assert!(sync(&disk).await.is_err());
        assert_eq!(disk.doubts(), 1);
        fs::remove_file(&fault).unwrap();
        assert_eq!(sync(&disk).await.unwrap().len(), 1);
        fs::write(&fault, b"").unwrap();
        let all = BTreeSet::from([FileIndex(0)]);
        assert!(disk.finish(&all).await.is_err());
        // It has its name by now; that this is on the disk is still to be seen to.
        assert!(disk.finish(&all).await.is_err());
        fs::remove_file(&fault).unwrap();
        disk.finish(&all).await.unwrap();
        assert!(disk.is_clean());
        disk.close().await;
    });
}

/// Does something as nobody, as far as files are concerned, if this is root's: root is refused
/// nothing.
fn as_nobody<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: no pointer is involved, and what changes is this thread's alone.
    let own = unsafe { libc::setfsuid(65_534) };
    let done = work();
    // SAFETY: the same.
    unsafe { libc::setfsuid(own.cast_unsigned()) };
    done
}

#[test]
fn whole_files_are_found_whole_by_whom_they_let_read_only() {
    use std::os::unix::fs::PermissionsExt;
    let content = Content::new(&[("a", PIECE), ("b", 5)], PIECE);
    let (disk, folder) = disk(&content);
    fs::create_dir(folder.path().join("t")).unwrap();
    let path = |name: &str| folder.path().join("t").join(name);
    fs::write(path("a"), &content.bytes[..PIECE]).unwrap();
    fs::write(path("b"), "as long as it should not be").unwrap();
    let set_mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    set_mode(&path("a"), 0o444);
    set_mode(&path("b"), 0o444);
    set_mode(&path(""), 0o555);
    set_mode(folder.path(), 0o755);
    let before = fs::metadata(path("a")).unwrap().modified().unwrap();
    (0..2).for_each(|index| disk.torrent.set_renamed(FileIndex(index)));
    let (whole, long) = as_nobody(|| {
        tokio_uring::start(async {
            let finish = async |index| disk.finish(&BTreeSet::from([FileIndex(index)])).await;
            let ends = (finish(0).await, finish(1).await);
            disk.close().await;
            ends
        })
    });
    set_mode(&path(""), 0o755);
    assert_eq!(whole.unwrap().len(), 1);
    // What is to be cut is to be written to.
    assert!(matches!(long, Err(DiskError::Denied(_))), "{long:?}");
    assert_eq!(fs::metadata(path("a")).unwrap().modified().unwrap(), before);
}

#[test]
fn one_download_writes_to_a_file_at_a_time() {
    let content = files(2 * FILES_OPEN_MAX);
    let (one, folder) = disk(&content);
    let metainfo = content.metainfo.clone();
    let torrent =
        SeededTorrent::partial(metainfo, folder.path(), &[], ".part", Default::default()).unwrap();
    let other = Disk::new(
        Arc::new(torrent),
        Allocation::Sparse,
        PastCache::Never,
        Vec::new(),
    );
    tokio_uring::start(async {
        write(&one, &content, 0).await.unwrap();
        let Err(DiskError::Lasting(fault)) = write(&other, &content, 0).await else {
            panic!("both write to it");
        };
        assert_eq!(fault.file, folder.path().join("t/f0.part"));
        assert_eq!(fault.cause, FaultCause::InUse);
        // A file that had to be closed for others is nobody's, and soon its own again.
        for piece in 1..2 * FILES_OPEN_MAX as u32 {
            write(&one, &content, piece).await.unwrap();
        }
        write(&one, &content, 0).await.unwrap();
        sync(&one).await.unwrap();
        one.close().await;
        write(&other, &content, 0).await.unwrap();
        other.close().await;
    });
}

#[test]
fn what_stands_in_a_folder_s_place_is_named() {
    let content = Content::new(&[("in/a", PIECE)], PIECE);
    let fault = |stand: &dyn Fn(&Path)| {
        let (disk, folder) = disk(&content);
        fs::create_dir(folder.path().join("t")).unwrap();
        stand(&folder.path().join("t/in"));
        let written = tokio_uring::start(async {
            let written = write(&disk, &content, 0).await;
            disk.close().await;
            written
        });
        let Err(DiskError::Lasting(fault)) = written else {
            panic!("{written:?}");
        };
        assert_eq!(fault.file, folder.path().join("t/in"));
        fault.cause
    };
    let file = fault(&|place| fs::write(place, b"precious").unwrap());
    assert_eq!(file, FaultCause::NotFolder);
    let outside = TempDir::new().unwrap();
    let link = |place: &Path| std::os::unix::fs::symlink(outside.path(), place).unwrap();
    assert_eq!(fault(&link), FaultCause::Escapes);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn errors_wait_ask_or_end() {
    let content = files(1);
    let (disk, _folder) = disk(&content);
    let kind = |number| {
        let error = io::Error::from_raw_os_error(number);
        match disk.error(FileIndex(0), "write to", &error) {
            DiskError::Full(text) | DiskError::Passing(text) => {
                assert!(text.starts_with("cannot write to /"), "{text}");
                "waits"
            }
            DiskError::Denied(_) => "asks",
            DiskError::Lasting(_) => "ends",
        }
    };
    use libc::*;
    let passing = [
        ENOSPC, EDQUOT, EIO, ENODEV, ENOENT, ESTALE, ETIMEDOUT, EMFILE,
    ];
    for number in passing {
        assert_eq!(kind(number), "waits", "{number}");
    }
    assert_eq!([EACCES, EPERM, EROFS].map(kind), ["asks"; 3]);
    let lasting = [
        EINVAL,
        ENAMETOOLONG,
        EFBIG,
        EILSEQ,
        EXDEV,
        ELOOP,
        EISDIR,
        EEXIST,
    ];
    for number in lasting {
        assert_eq!(kind(number), "ends", "{number}");
    }
}

#[test]
fn folders_are_synced_side_by_side() {
    let content = Content::new(&[("a/f", PIECE), ("b/f", PIECE)], PIECE);
    let (disk, folder) = disk(&content);
    let waits = ["t a", "t b"].map(|name| format!("the sync of {name:?} waits"));
    let waits = waits.map(|name| folder.path().join(name));
    tokio_uring::start(async {
        for piece in 0..2 {
            write(&disk, &content, piece).await.unwrap();
        }
        for wait in &waits {
            fs::write(wait, b"").unwrap();
        }
        let are_met = async {
            while !waits.iter().all(|wait| wait.with_extension("now").exists()) {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
            for wait in &waits {
                fs::remove_file(wait).unwrap();
            }
        };
        let limit = std::time::Duration::from_secs(60);
        let both = async { tokio::join!(sync(&disk), are_met) };
        let (synced, ()) = tokio::time::timeout(limit, both)
            .await
            .expect("one waits for the other");
        assert_eq!(synced.unwrap().len(), 2);
        assert!(disk.is_clean());
        disk.close().await;
    });
}

#[test]
fn a_disk_that_is_slow_past_the_cache_is_written_to_through_it_from_then_on() {
    let test = "a_disk_that_is_slow_past_the_cache_is_written_to_through_it_from_then_on";
    let content = files(4);
    let (disk, folder) = disk_with(&content, PastCache::Unasked);
    tokio_uring::start(async {
        let write = async |piece: u32| {
            let sealed = sealed(&content, piece);
            let written = disk.write(PieceIndex(piece), 0, &sealed, 0, PIECE, false);
            written.await.unwrap();
            disk.check_invariants();
        };
        write(0).await;
        if disk.direct.borrow().is_empty() {
            return crate::testing::skip(test, "nothing is written there past the page cache");
        }
        assert!(disk.passing.is_possible());
        fs::write(folder.path().join("writes take long"), b"").unwrap();
        write(1).await;
        assert!(!disk.passing.is_possible() && disk.direct.borrow().is_empty());
        // What is open already, and what is opened now.
        for piece in [0, 2] {
            write(piece).await;
            assert!(disk.direct.borrow().is_empty());
        }
        sync(&disk).await.unwrap();
        disk.close().await;
    });
}
