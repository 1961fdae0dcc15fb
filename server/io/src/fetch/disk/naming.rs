//! The names of files: made with the folders on their way, changed when a file is whole, forced to
//! the disk.
//!
//! Nothing is ever replaced: neither by a file that is made nor by one that gets its own name.

use crate::fetch::disk::errors::{DiskError, cause_of_length, is_missing, is_unsupported};
use crate::fetch::disk::settling::side_by_side;
use crate::fetch::disk::{Disk, InUse, Stamps, close, open_retrying};
use crate::files::OpenFile;
use crate::ring;
use crate::torrent::FaultCause;
use engine::layout::FileIndex;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;
use std::sync::Once;

impl Disk {
    /// Makes the empty files, and gives each file of `files`, which are whole, its own name.
    /// Returns what each is then.
    pub(crate) async fn finish(&self, files: &BTreeSet<FileIndex>) -> Result<Stamps, DiskError> {
        let mut stamps = Vec::with_capacity(files.len());
        for &index in files {
            let file = self.open_whole(index).await?;
            if let Some((suffixed, own)) = self.torrent.suffixed_paths(index) {
                self.rename(index, &suffixed, &own).await?;
                self.torrent.set_renamed(index);
                self.directories.borrow_mut().insert(directory_of(&own));
            }
            let stamp = self.stamp(index, &file).await?;
            let due = self.torrent.layout().file_length(index);
            if stamp.size != due {
                return Err(self.lasting(index, cause_of_length(due, stamp.size)));
            }
            stamps.push((index, stamp));
            self.let_go(file).await;
        }
        let _one = self.syncing.lock().await;
        self.sync_directories().await?;
        Ok(stamps)
    }

    /// A file to which nothing is to be written any more, open for reading if that is enough: it is
    /// there and has its length. What is wrong with another shows when it is opened for writing.
    async fn open_whole(&self, index: FileIndex) -> Result<InUse<'_>, DiskError> {
        let is_open = self.open.borrow().contains(&index);
        if !is_open && let Some(file) = self.open_to_read(index).await {
            return Ok(self.in_use(&file));
        }
        self.open(index).await
    }

    /// Closes a file that was opened for reading alone.
    async fn let_go(&self, file: InUse<'_>) {
        let ours = Rc::clone(&file);
        drop(file);
        close(ours).await;
    }

    async fn open_to_read(&self, index: FileIndex) -> Option<Rc<OpenFile>> {
        let (data_dir, path) = self.torrent.paths_for_kernel(index);
        let root = ring::open_directory(data_dir).await.ok()?;
        let descriptor = ring::open_in_place(Rc::new(root), path).await.ok()?;
        let file = Rc::new(OpenFile::new(descriptor));
        let found = self.look(index, &file).await.ok()?;
        let stamp = found.stamp;
        let is_whole = stamp.size == self.torrent.layout().file_length(index);
        let known = self.torrent.identity(index);
        let is_it = known.is_none_or(|known| known == (stamp.device, stamp.inode));
        let birth = self.births.borrow().get(&index).copied();
        let is_old = birth.is_none_or(|birth| birth == found.birth_ns);
        if !is_whole || !is_it || !is_old || found.links > 1 {
            return None;
        }
        self.torrent.set_identity(index, &stamp);
        self.births.borrow_mut().insert(index, found.birth_ns);
        Some(file)
    }

    /// The error behind a failed open of a file: where something else stands in the place of one of
    /// the folders on its way, that is what is named.
    pub(super) async fn open_error(
        &self,
        index: FileIndex,
        root: &Rc<OwnedFd>,
        path: &CString,
        error: &io::Error,
    ) -> DiskError {
        let number = error.raw_os_error();
        if matches!(number, Some(libc::ENOTDIR | libc::EXDEV | libc::ELOOP)) {
            for so_far in directories_to(path) {
                let opened = ring::open_directory_beneath(Rc::clone(root), so_far.clone());
                if let Err(error) = opened.await {
                    return self.error_at(&self.path_of(&so_far), "open the folder", &error);
                }
            }
        }
        self.error(index, "open", error)
    }

    /// Makes a file that is not there, with the directories on its way.
    pub(super) async fn make(
        &self,
        index: FileIndex,
        root: &Rc<OwnedFd>,
        path: &CString,
    ) -> Result<OwnedFd, DiskError> {
        self.make_directories(root, path).await?;
        match open_retrying(root, path, true).await {
            Ok(descriptor) => {
                self.directories.borrow_mut().insert(directory_of(path));
                Ok(descriptor)
            }
            // Somebody else has made it meanwhile, or what is there is not a file.
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                let opened = open_retrying(root, path, false).await;
                opened.map_err(|error| self.error(index, "open", &error))
            }
            Err(error) => Err(self.error(index, "make", &error)),
        }
    }

    /// Makes the directories on the way to `path`, below `root`. Each is opened from `root`, as the
    /// file will be: a link to elsewhere below `root` leads out of the folder that it is in, and is
    /// none the worse for that.
    async fn make_directories(&self, root: &Rc<OwnedFd>, path: &CString) -> Result<(), DiskError> {
        let mut parent = Rc::clone(root);
        for so_far in directories_to(path) {
            let error = |error| self.error_at(&self.path_of(&so_far), "make the folder", &error);
            let name = last_component(&so_far);
            let mut opened = ring::open_directory_beneath(Rc::clone(root), so_far.clone()).await;
            if opened.as_ref().is_err_and(is_missing) {
                match ring::make_directory(Rc::clone(&parent), name).await {
                    Ok(()) => {
                        self.directories.borrow_mut().insert(directory_of(&so_far));
                    }
                    Err(failed) if failed.raw_os_error() == Some(libc::EEXIST) => {}
                    Err(failed) => return Err(error(failed)),
                }
                opened = ring::open_directory_beneath(Rc::clone(root), so_far.clone()).await;
            }
            parent = Rc::new(opened.map_err(error)?);
        }
        Ok(())
    }

    /// Gives a file its own name, in the directory where it is.
    async fn rename(
        &self,
        index: FileIndex,
        from: &CString,
        to: &CString,
    ) -> Result<(), DiskError> {
        let error = |error| self.error(index, "rename", &error);
        let root = ring::open_directory(self.data_dir()).await;
        let root = Rc::new(root.map_err(error)?);
        let directory = directory_of(from);
        let directory = match directory.is_empty() {
            true => root,
            false => {
                let opened = ring::open_directory_beneath(root, directory).await;
                Rc::new(opened.map_err(error)?)
            }
        };
        let (from, to) = (last_component(from), last_component(to));
        let renamed = ring::rename_in(Rc::clone(&directory), from.clone(), to.clone(), true);
        #[cfg(test)]
        let renamed = async {
            self.injected_fault("no exclusive renames", libc::EINVAL)?;
            renamed.await
        };
        let renamed = renamed.await;
        let Err(failed) = renamed else { return Ok(()) };
        let there = ring::stat_in(Rc::clone(&directory), to.clone()).await;
        if is_missing(&failed)
            && let Ok(Some(found)) = &there
            && self.torrent.identity(index) == Some((found.stamp.device, found.stamp.inode))
        {
            // It has it already: a file server did it and its answer was lost.
            return Ok(());
        }
        if !is_unsupported(&failed) {
            return Err(error(failed));
        }
        // NFS and some FUSE file systems can not see to it that nothing is replaced. A link and the
        // removal of the old name would do that, but a crash between them would leave a file with
        // two names, which we do not write to.
        match there {
            Err(absent) if is_missing(&absent) => {
                let renamed = ring::rename_in(directory, from, to, false).await;
                renamed.map_err(error)
            }
            Err(other) => Err(error(other)),
            Ok(_) => Err(self.lasting(index, FaultCause::Taken)),
        }
    }

    /// Forces the names to the disk that are new, a few folders side by side. After a failure no
    /// other is begun.
    pub(super) async fn sync_directories(&self) -> Result<(), DiskError> {
        let failure = RefCell::new(None);
        side_by_side(|| async {
            while failure.borrow().is_none() {
                let next = self.directories.borrow_mut().pop_first();
                let Some(path) = next else { return };
                if let Err(error) = self.sync_directory(&path).await {
                    let failed = self.error_at(&self.path_of(&path), "sync the folder", &error);
                    self.directories.borrow_mut().insert(path);
                    failure.borrow_mut().get_or_insert(failed);
                }
            }
        })
        .await;
        failure.into_inner().map_or(Ok(()), Err)
    }

    async fn sync_directory(&self, path: &CStr) -> io::Result<()> {
        #[cfg(test)]
        self.injected_fault("folder syncs fail", libc::EIO)?;
        #[cfg(test)]
        self.injected_wait(&format!("the sync of {path:?} waits").replace('/', " "))
            .await;
        let root = Rc::new(ring::open_directory(self.data_dir()).await?);
        let directory = match path.is_empty() {
            true => root,
            false => Rc::new(ring::open_directory_beneath(root, path.to_owned()).await?),
        };
        match ring::sync_directory(directory).await {
            // Of directories some file systems know no sync, and one that may not be read can not
            // be synced.
            Err(error) if is_unsupported(&error) || error.raw_os_error() == Some(libc::EACCES) => {
                tell_of_unsynced(&self.path_of(path), &error);
                Ok(())
            }
            other => other,
        }
    }
}

/// Says once that a crash may take the names of files.
fn tell_of_unsynced(path: &Path, error: &io::Error) {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        tracing::warn!(
            %error,
            folder = %path.display(),
            "a folder cannot be synced: a power cut may take names of new files, which are fetched again then"
        );
    });
}

/// The paths of the directories on the way to `path`, the outermost first.
fn directories_to(path: &CStr) -> impl Iterator<Item = CString> {
    let bytes = path.to_bytes();
    let ends = (0..bytes.len()).filter(|&at| bytes.get(at) == Some(&b'/'));
    ends.map(|end| c_string(bytes.get(..end).unwrap_or_default()))
}

/// The path of the directory that `path` is in.
fn directory_of(path: &CStr) -> CString {
    let bytes = path.to_bytes();
    let end = bytes.iter().rposition(|&byte| byte == b'/');
    c_string(bytes.get(..end.unwrap_or(0)).unwrap_or_default())
}

fn last_component(path: &CStr) -> CString {
    let name = path.to_bytes().rsplit(|&byte| byte == b'/').next();
    c_string(name.unwrap_or_default())
}

/// Of a part of a path, which has no NUL.
fn c_string(bytes: &[u8]) -> CString {
    CString::new(bytes).unwrap_or_default()
}
