//! Writing a `.torrent` file so that its path never holds half of one.

use rustix::fs::{Access, AtFlags, CWD, RenameFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a file cannot be written.
#[derive(Debug, Error)]
pub enum WriteError {
    /// There is a file already.
    #[error("{path:?} exists already; choose another name, or give --force to replace it")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The system refused something.
    #[error("cannot write {path:?}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        error: io::Error,
    },
}

/// Whether [`write_file`] has a chance, so that hours of hashing are not lost to a typing error.
pub fn check_writable(path: &Path, replace: bool) -> Result<(), WriteError> {
    let failed = |error: Errno| WriteError::Io {
        path: path.to_owned(),
        error: error.into(),
    };
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => return Err(failed(Errno::ISDIR)),
        Ok(_) if !replace => {
            return Err(WriteError::Exists {
                path: path.to_owned(),
            });
        }
        _ => {}
    }
    if path.file_name().is_none() {
        return Err(failed(Errno::INVAL));
    }
    let access = Access::WRITE_OK | Access::EXEC_OK;
    match rustix::fs::accessat(CWD, folder_of(path), access, AtFlags::EACCESS) {
        Err(error @ (Errno::ACCESS | Errno::NOENT | Errno::NOTDIR | Errno::ROFS)) => {
            Err(failed(error))
        }
        // Any other answer says nothing; writing will.
        _ => Ok(()),
    }
}

/// Writes `bytes` to `path`: first to a temporary file beside it, synced to disk, which then takes
/// its place at once. With `replace` whatever file is there gives way; without it, nothing that
/// exists is touched.
pub fn write_file(path: &Path, bytes: &[u8], replace: bool) -> Result<(), WriteError> {
    let failed = |error| WriteError::Io {
        path: path.to_owned(),
        error,
    };
    let name = path
        .file_name()
        .ok_or_else(|| failed(Errno::INVAL.into()))?;
    let mut temporary_name = std::ffi::OsString::from(".");
    temporary_name.push(name.to_string_lossy().chars().take(32).collect::<String>());
    temporary_name.push(format!(".{}.tmp", std::process::id()));
    let temporary = folder_of(path).join(temporary_name);
    let written = write_synced(&temporary, bytes)
        .map_err(failed)
        .and_then(|()| {
            put_in_place(&temporary, path, replace).map_err(|error| match error {
                Errno::EXIST => WriteError::Exists {
                    path: path.to_owned(),
                },
                error => failed(error.into()),
            })
        });
    if written.is_err() {
        // What matters is the first error; the file may not even exist.
        let _ = std::fs::remove_file(&temporary);
        return written;
    }
    File::open(folder_of(path))
        .and_then(|folder| folder.sync_all())
        .map_err(failed)
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Left over from a process that was killed and had our number.
    let _ = std::fs::remove_file(path);
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn put_in_place(temporary: &Path, path: &Path, replace: bool) -> Result<(), Errno> {
    if replace {
        return rustix::fs::rename(temporary, path);
    }
    match rustix::fs::renameat_with(CWD, temporary, CWD, path, RenameFlags::NOREPLACE) {
        // A file system that cannot promise it (NFS, FUSE): the check just before must do.
        Err(Errno::INVAL | Errno::NOSYS) if path.symlink_metadata().is_err() => {
            rustix::fs::rename(temporary, path)
        }
        Err(Errno::INVAL | Errno::NOSYS) => Err(Errno::EXIST),
        result => result,
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn names(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir).unwrap();
        names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_file_is_written_whole_and_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.torrent");
        check_writable(&path, false).unwrap();
        write_file(&path, b"one", false).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(names(dir.path()), ["x.torrent"]);
    }

    #[test]
    fn what_exists_is_replaced_only_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.torrent");
        fs::write(&path, "old").unwrap();
        assert!(matches!(
            check_writable(&path, false),
            Err(WriteError::Exists { .. })
        ));
        assert!(matches!(
            write_file(&path, b"new", false),
            Err(WriteError::Exists { .. })
        ));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        check_writable(&path, true).unwrap();
        write_file(&path, b"new", true).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["x.torrent"]);
    }

    #[test]
    fn a_path_that_cannot_be_written_is_refused_early() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        for path in ["absent/x", "file/x", ""] {
            let path = dir.path().join(path);
            assert!(check_writable(&path, true).is_err(), "{path:?}");
            assert!(write_file(&path, b"x", true).is_err(), "{path:?}");
        }
        assert_eq!(names(dir.path()), ["file"]);
    }
}
