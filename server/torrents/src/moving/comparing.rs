//! Copies that no hash is known of, compared with what they are copies of.
//!
//! What is copied is hashed before the old files go. Of a torrent that is said to be complete and
//! was never checked, and of pieces that are not verified, no hash says that the copy is right: a
//! bad cable or bad memory would replace the only right one. So both are read, the copy past the
//! page cache where the system allows it, and have to be the same.
//!
//! What differs is taken away, to be copied again. Limits: two buffers of [`COPY_BYTES`]. Does not:
//! say which of the two is right.

use super::Why;
use super::copying::COPY_BYTES;
use super::work::{Item, Work};
use crate::beneath::Beneath;
use rustix::fs::{Advice, fadvise};
use std::fs::File;
use std::io::{self, Read};

/// Refuses a move of which a copy is not what it was copied of.
pub(super) fn check(work: &Work, from: &Beneath, to: &Beneath, items: &[Item]) -> Result<(), Why> {
    for item in items {
        let said = |error| Why::of(&work.to.join(&item.new), error);
        let opened = from.read(&item.old).and_then(|old| {
            let new = to.read(&item.new)?;
            Ok((old, new))
        });
        let (old, new) = opened.map_err(said)?;
        if !is_same(work, old, new)?.map_err(said)? {
            work.drop_copy(to, item)?;
            return Err(Why::BadCopy(format!(
                "{:?} differs from {:?}, of which it was copied: one of the disks is not to be \
                 trusted, or the file was changed meanwhile",
                work.to.join(&item.new),
                work.from.join(&item.old)
            )));
        }
    }
    Ok(())
}

/// Whether two files have the same bytes, unless nobody wants to know any more.
fn is_same(work: &Work, mut old: File, mut new: File) -> Result<io::Result<bool>, Why> {
    // What is not on the disk yet would stay in memory, and be read from there.
    if let Err(error) = new.sync_all() {
        return Ok(Err(error));
    }
    // Some file systems know no such advice; the bytes are compared there all the same.
    let _ = fadvise(&new, 0, None, Advice::DontNeed);
    let (mut expected, mut found) = (Vec::new(), Vec::new());
    loop {
        work.go_on()?;
        for (file, bytes) in [(&mut old, &mut expected), (&mut new, &mut found)] {
            bytes.clear();
            if let Err(error) = file.take(COPY_BYTES as u64).read_to_end(bytes) {
                return Ok(Err(error));
            }
        }
        if expected != found {
            return Ok(Ok(false));
        }
        if expected.is_empty() {
            return Ok(Ok(true));
        }
    }
}
