//! What of a download is in the page cache then.

use super::peers::begin;
use super::*;
use crate::residency::{self, Residency};
use std::os::unix::fs::OpenOptionsExt;

/// Whether a page can be written in `folder` without being in the page cache then.
fn takes_writes_past_the_cache(folder: &Path) -> bool {
    #[repr(align(4096))]
    struct Page([u8; 4096]);
    let path = folder.join("probe");
    let mut options = fs::OpenOptions::new();
    options.create(true).truncate(true).write(true);
    let file = options.custom_flags(libc::O_DIRECT).open(&path);
    let page = Box::new(Page([1; 4096]));
    let is_written = file.is_ok_and(|mut file| file.write_all(&page.0).is_ok());
    is_written && !residency::is_readable_at_once(&fs::File::open(&path).unwrap(), 0)
}

/// Whether some page of the file is in memory, from page `from` on. The kernel is asked for its
/// count where it has one: to try to read a page has the next ones read ahead.
fn is_cached(path: &Path, from: u64, pages: u64) -> bool {
    let (file, residency) = (fs::File::open(path).unwrap(), Residency::new(4096));
    (from..from + pages).any(|page| residency.is_resident(&file, page * 4096, 4096))
}

/// Whether the test can be made in `folder`; says so if not.
fn is_possible(test: &str, folder: &Path) -> bool {
    let is_possible = takes_writes_past_the_cache(folder);
    if !is_possible {
        testing::skip(test, "whatever is written there is in the page cache");
    }
    is_possible
}

/// What begins and ends in the middle of a page goes through the page cache, all else past it.
#[test]
fn files_are_written_past_the_page_cache_where_that_is_wanted() {
    let test = "files_are_written_past_the_page_cache_where_that_is_wanted";
    let files = [
        ("whole", 20 * PIECE),
        ("odd", 3 * PIECE - 7),
        ("behind", 5 * PIECE + 1),
    ];
    let content = Content::new(&files, PIECE);
    for mode in [PastCache::Unasked, PastCache::Always] {
        let (seed, server) = (seed(&content, 0), server(config(1)));
        let folder = TempDir::new().unwrap();
        let mut spec = FetchSpec::new(content.metainfo.clone(), folder.path());
        spec.past_cache = mode;
        let (fetch, mut events) = server.fetch(spec);
        fetch.add_peers(&[seed.address()]);
        server.wait(&mut events, is_complete);
        if is_possible(test, folder.path()) {
            let whole = folder.path().join("t/whole");
            assert!(!is_cached(&whole, 0, 20 * PIECE as u64 / 4096), "{mode:?}");
        }
        content.assert_is_in(folder.path());
        seed.stop();
        server.stop();
    }
}

/// While somebody wants something of us, new pieces stay in memory for it.
#[test]
fn what_somebody_waits_for_is_kept_in_the_page_cache() {
    let test = "what_somebody_waits_for_is_kept_in_the_page_cache";
    let content = Content::new(&[("whole", 20 * PIECE)], PIECE);
    let every_page = |path: &Path| {
        let file = fs::File::open(path).unwrap();
        let mut pages = 0..20 * PIECE as u64 / 4096;
        pages.all(|page| residency::is_readable_at_once(&file, page * 4096))
    };
    for (mode, is_kept) in [(PastCache::Unasked, true), (PastCache::Always, false)] {
        let (seed, server) = (seed(&content, 0), server(config(1)));
        let folder = TempDir::new().unwrap();
        let mut spec = FetchSpec::new(content.metainfo.clone(), folder.path());
        spec.past_cache = mode;
        let (fetch, mut events) = server.fetch(spec);
        let stream = TcpStream::connect(server.address()).unwrap();
        let mut leecher = begin(stream, &content, *b"-XX0000-testtesttest");
        let mut opening = Vec::new();
        Message::HaveNone.encode(&mut opening);
        Message::Interested.encode(&mut opening);
        leecher.write_all(&opening).unwrap();
        // Then its interest is known.
        while read_message(&mut leecher).unwrap().first() != Some(&wire::id::UNCHOKE) {}
        fetch.add_peers(&[seed.address()]);
        server.wait(&mut events, is_complete);
        let whole = folder.path().join("t/whole");
        if is_possible(test, folder.path()) {
            assert_eq!(every_page(&whole), is_kept, "{mode:?}");
        }
        drop(leecher);
        seed.stop();
        server.stop();
    }
}
