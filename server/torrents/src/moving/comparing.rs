//! Copies that no hash is known of, compared with what they are copies of.
//!
//! What is copied is hashed before the old files go. Of a torrent that is said to be complete and
//! was never checked, and of pieces that are not verified, no hash says that the copy is right: a
//! bad cable or bad memory would replace the only right one. So both are read, the copy past the
//! page cache where the system allows it, and have to be the same.
//!
//! Limits: two buffers of [`COPY_BYTES`]. Does not: say which of the two is right.

use super::work::{COPY_BYTES, GIVEN_UP, Item, Work};
use crate::beneath::Beneath;
use rustix::fs::{Advice, fadvise};
use std::fs::File;
use std::io::{self, Read};

/// Refuses a move of which a copy is not what it was copied of.
pub(super) fn check(
    work: &Work,
    from: &Beneath,
    to: &Beneath,
    items: &[Item],
) -> Result<(), String> {
    for item in items {
        let said = |error| format!("{:?}: {error}", work.to.join(&item.new));
        let opened = from.read(&item.old).and_then(|old| {
            let new = to.read(&item.new)?;
            Ok((old, new))
        });
        let (old, new) = opened.map_err(said)?;
        if !is_same(work, old, new).map_err(said)? {
            return Err(format!(
                "{:?} differs from {:?}, of which it was copied: one of the disks is not to be \
                 trusted, or the file was changed meanwhile",
                work.to.join(&item.new),
                work.from.join(&item.old)
            ));
        }
    }
    Ok(())
}

/// Whether two files have the same bytes.
fn is_same(work: &Work, mut old: File, mut new: File) -> io::Result<bool> {
    // What is not on the disk yet would stay in memory, and be read from there.
    new.sync_all()?;
    // Some file systems know no such advice; the bytes are compared there all the same.
    let _ = fadvise(&new, 0, None, Advice::DontNeed);
    let (mut expected, mut found) = (Vec::new(), Vec::new());
    loop {
        if work.moving.is_cancelled() {
            return Err(io::Error::other(GIVEN_UP));
        }
        for (file, bytes) in [(&mut old, &mut expected), (&mut new, &mut found)] {
            bytes.clear();
            file.take(COPY_BYTES as u64).read_to_end(bytes)?;
        }
        if expected != found {
            return Ok(false);
        }
        if expected.is_empty() {
            return Ok(true);
        }
    }
}
