//! A file of a torrent while it is hashed: opened beneath its folder, read, and asked at the end
//! whether it is still the one that was stamped.

use super::{DataFile, FileFault, HashJob, stamp_of};
use engine::layout::{FileIndex, FileStamp};
use rustix::fs::Advice;
use std::cell::OnceCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// An open file of the torrent; lanes in the same file share one.
pub(super) struct OpenFile {
    pub(super) index: FileIndex,
    /// For ordinary reads, and for those that go through the page cache.
    pub(super) file: Arc<File>,
    /// For reads past the page cache, once asked for; `None` in it if the file system has none.
    direct: OnceCell<Option<Arc<File>>>,
    stamp: FileStamp,
    /// Its length in the torrent, in bytes.
    length: u64,
}

impl OpenFile {
    pub(super) fn open(job: &HashJob<'_>, index: FileIndex) -> Result<OpenFile, FileFault> {
        let data_file = job.files.get(index.0 as usize).ok_or(FileFault::Missing)?;
        let stamp = data_file.stamp.ok_or(FileFault::Missing)?;
        let (file, metadata) = job.root.open_file(data_file.path())?;
        if stamp_of(&metadata).differs_from(&stamp) {
            return Err(FileFault::Changed);
        }
        // What is read ahead is our own choice: where the system can only be asked by a read whether a
        // range is in memory, its guess at what comes next would fill the page cache.
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::Random);
        Ok(OpenFile {
            index,
            file: Arc::new(file),
            direct: OnceCell::new(),
            stamp,
            length: job.layout.file_length(index),
        })
    }

    /// The file opened for reads past the page cache, if its file system has them. It is opened by
    /// its path again, and what was put there meanwhile is not taken for it.
    pub(super) fn direct(&self, job: &HashJob<'_>) -> Option<&Arc<File>> {
        let open = || {
            let path = job.files.get(self.index.0 as usize).map(DataFile::path)?;
            let (file, metadata) = job.root.open_file_direct(path).ok()?;
            let same = !stamp_of(&metadata).differs_from(&self.stamp);
            same.then(|| Arc::new(file))
        };
        self.direct.get_or_init(open).as_ref()
    }

    /// Fills `buffer` from `offset` on.
    pub(super) fn read(&self, mut buffer: &mut [u8], mut offset: u64) -> Result<(), FileFault> {
        while !buffer.is_empty() {
            match self.file.read_at(buffer, offset) {
                Ok(0) if offset >= self.stamp.size => {
                    let (expected, found) = (self.length, self.stamp.size);
                    return Err(FileFault::WrongSize { expected, found });
                }
                Ok(0) => return Err(FileFault::Changed),
                Ok(count) => {
                    buffer = &mut buffer[count..];
                    offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(FileFault::Io {
                        operation: "read it",
                        error,
                    });
                }
            }
        }
        Ok(())
    }

    /// Whether what was read is what the stamp stands for.
    pub(super) fn check(&self) -> Result<(), FileFault> {
        let metadata = self.file.metadata().map_err(|error| FileFault::Io {
            operation: "read its metadata",
            error,
        })?;
        if stamp_of(&metadata).differs_from(&self.stamp) {
            return Err(FileFault::Changed);
        }
        Ok(())
    }
}
