//! Which files of a torrent are being called otherwise, as it is kept while that is done: how each of
//! them lies on the disk, so that nothing is touched afterwards but the two names of that file.
//!
//! Limits: those of the store, which refuses a longer one; [`check_length`] says so before. Does not:
//! read what was kept before there was this form, which says too little.

use super::names::{Change, suffixed};
use control::command::CommandError;
use engine::layout::FileStamp;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// What such an intent begins with. An earlier form began with the number of a file, which is never
/// this high.
const FORM: u32 = u32::MAX;

/// A file that gets another name, as it lies on the disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Renamed {
    pub change: Change,
    /// What both names end with, as long as the file is not complete; nothing if it is.
    pub suffix: OsString,
    /// Its length in bytes, and when its content changed last, in nanoseconds since 1970: neither
    /// is moved by another name.
    pub size: u64,
    pub mtime_ns: i64,
}

impl Renamed {
    /// The name that it has, and the one that it gets; the other way round if it is not renamed.
    pub(super) fn now_and_other(&self, is_renamed: bool) -> (PathBuf, PathBuf) {
        let Change { old, new, .. } = &self.change;
        let with_suffix = |path: &PathBuf| match self.suffix.is_empty() {
            true => path.clone(),
            false => suffixed(path, &self.suffix),
        };
        match is_renamed {
            true => (with_suffix(new), with_suffix(old)),
            false => (with_suffix(old), with_suffix(new)),
        }
    }

    /// Whether a file is this one. Not by its inode, which is another after a crash where the file
    /// system gives numbers as it reads (exFAT), and there are no second names either.
    pub(super) fn is(&self, found: FileStamp) -> bool {
        (found.size, found.mtime_ns) == (self.size, self.mtime_ns)
    }
}

/// Files as they are kept: for each its number in four bytes, its length and its time in eight, then
/// the old and the new path and the suffix, each behind its length in four; lowest byte first.
pub(super) fn encode(renamed: &[Renamed]) -> Vec<u8> {
    let mut bytes = FORM.to_le_bytes().to_vec();
    for file in renamed {
        bytes.extend(file.change.index.to_le_bytes());
        bytes.extend(file.size.to_le_bytes());
        bytes.extend(file.mtime_ns.to_le_bytes());
        let Change { old, new, .. } = &file.change;
        for part in [old.as_os_str(), new.as_os_str(), &file.suffix] {
            let part = part.as_bytes();
            bytes.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
            bytes.extend(part);
        }
    }
    bytes
}

/// Files that were kept; none if these are no such bytes.
pub(crate) fn decode(mut bytes: &[u8]) -> Option<Vec<Renamed>> {
    fn array<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
        let (number, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        Some(*number)
    }
    fn part(bytes: &mut &[u8]) -> Option<OsString> {
        let length = u32::from_le_bytes(array(bytes)?) as usize;
        let (part, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        Some(OsString::from_vec(part.to_vec()))
    }
    let bytes = &mut bytes;
    if u32::from_le_bytes(array(bytes)?) != FORM {
        return None;
    }
    let mut renamed = Vec::new();
    while !bytes.is_empty() {
        let index = u32::from_le_bytes(array(bytes)?);
        let size = u64::from_le_bytes(array(bytes)?);
        let mtime_ns = i64::from_le_bytes(array(bytes)?);
        let (old, new) = (part(bytes)?.into(), part(bytes)?.into());
        renamed.push(Renamed {
            change: Change { index, old, new },
            suffix: part(bytes)?,
            size,
            mtime_ns,
        });
    }
    Some(renamed)
}

/// Refuses more than the store takes, with what to do.
pub(super) fn check_length(
    files: usize,
    bytes: usize,
    bytes_max: usize,
) -> Result<(), CommandError> {
    match bytes <= bytes_max {
        true => Ok(()),
        false => Err(CommandError::Conflict(format!(
            "the old and new paths of {files} files have {bytes} bytes, and {bytes_max} can be kept \
             while they are renamed; rename the folders below one after another"
        ))),
    }
}

/// What both names of a file end with that is found at `found` and whose own path is `own`.
pub(super) fn suffix_at(found: &OsStr, own: &OsStr) -> OsString {
    let end = found.as_bytes().strip_prefix(own.as_bytes());
    OsString::from_vec(end.unwrap_or_default().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renamed(index: u32, old: &str, new: &str, suffix: &str) -> Renamed {
        let (old, new) = (old.into(), new.into());
        Renamed {
            change: Change { index, old, new },
            suffix: suffix.into(),
            size: u64::from(index) << 40,
            mtime_ns: -7,
        }
    }

    #[test]
    fn files_are_read_as_they_were_kept() {
        let files = [
            renamed(0, "a", "b/c", ""),
            renamed(70_000, "d e", "f", ".part"),
        ];
        let bytes = encode(&files);
        assert_eq!(decode(&bytes), Some(files.to_vec()));
        let whole = (0..bytes.len()).filter(|end| decode(&bytes[..*end]).is_some());
        // None, and the first alone.
        assert_eq!(whole.collect::<Vec<_>>(), [4, 40]);
        // A file's number, its old and its new path, as it was before.
        assert_eq!(decode(b"\0\0\0\0\x01\0\0\0a\x01\0\0\0b"), None);
    }

    #[test]
    fn a_file_has_the_two_names_under_which_it_lies() {
        let pair = |old: &str, new: &str| (PathBuf::from(old), PathBuf::from(new));
        let whole = renamed(0, "a", "b/c", "");
        assert_eq!(whole.now_and_other(true), pair("b/c", "a"));
        let partial = renamed(0, "a", "b/c", ".part");
        assert_eq!(partial.now_and_other(false), pair("a.part", "b/c.part"));
        assert_eq!(suffix_at("a.part".as_ref(), "a".as_ref()), ".part");
        assert_eq!(suffix_at("a".as_ref(), "a".as_ref()), "");
    }

    #[test]
    fn what_the_store_would_not_take_is_refused_with_what_to_do() {
        assert_eq!(check_length(2, 10, 10), Ok(()));
        let refused = check_length(2, 11, 10).unwrap_err();
        assert!(matches!(&refused, CommandError::Conflict(why) if why.contains("one after")));
    }
}
