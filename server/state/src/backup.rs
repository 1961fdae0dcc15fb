//! Copies of the store, and a store made of a copy.
//!
//! A copy is a store itself, whole and of the schema that it was made of: all tables, entry by
//! entry, so that it is one moment of a store that is in use, and has none of the free space that
//! the store has.

use crate::error::{OpenError, ReadError};
use crate::file::{self, FileMedium, STORE_FILE, beside, put_in_place, sync_folder_of};
use crate::limits;
use crate::lock::Lock;
use crate::view::View;
use redb::{Database, ReadableDatabase, TableDefinition, TableHandle};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A copy was not made.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is something already.
    #[error("{path:?} exists; --force replaces it")]
    Exists {
        /// Where the copy was to be.
        path: PathBuf,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The copy cannot be written or read.
    #[error("{path:?}: {error}")]
    Failed {
        /// The copy.
        path: PathBuf,
        /// What went wrong.
        error: String,
    },
}

/// Copies the store of a directory that no server uses; returns the bytes of the copy.
///
/// # Errors
///
/// [`BackupError`]; `target` is as it was then.
pub fn backup(directory: &Path, target: &Path, replace: bool) -> Result<u64, BackupError> {
    let path = directory.join(STORE_FILE);
    let _lock = lock_existing(directory, &path)?;
    let medium = FileMedium(path.clone());
    let open = file::open(&medium, limits::CACHE_BYTES, false)?;
    let transaction = open
        .database
        .begin_read()
        .map_err(|error| OpenError::Failed {
            path: path.clone(),
            error: error.to_string(),
        })?;
    copy(&View::new(transaction, path), target, replace)
}

/// The lock of a directory that has a store.
pub(crate) fn lock_existing(directory: &Path, store: &Path) -> Result<Lock, OpenError> {
    match store.try_exists() {
        Ok(true) => Lock::take(directory, store),
        Ok(false) => Err(OpenError::Missing {
            path: store.to_owned(),
        }),
        Err(error) => Err(OpenError::Directory {
            path: directory.to_owned(),
            error,
        }),
    }
}

/// Copies what a view sees.
pub(crate) fn copy(view: &View, target: &Path, replace: bool) -> Result<u64, BackupError> {
    let failed = |error: redb::Error| BackupError::Failed {
        path: target.to_owned(),
        error: error.to_string(),
    };
    let exists = || BackupError::Exists {
        path: target.to_owned(),
    };
    // A link that leads nowhere is something, too.
    if !replace && target.symlink_metadata().is_ok() {
        return Err(exists());
    }
    let part = beside(target, ".part");
    let copied = copy_tables(view, &part).map_err(failed);
    let placed = copied.and_then(|()| {
        let placed = match replace {
            true => put_in_place(&part, target),
            false => link_in_place(&part, target),
        };
        placed.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => exists(),
            _ => failed(error.into()),
        })
    });
    if placed.is_err() {
        // What is left of it is of no use; that it cannot be removed is the smaller trouble.
        let _left = std::fs::remove_file(&part);
    }
    placed?;
    let bytes = std::fs::metadata(target).map_err(|error| failed(error.into()))?;
    Ok(bytes.len())
}

/// Gives a file that is whole its name, if nothing has it.
fn link_in_place(from: &Path, to: &Path) -> io::Result<()> {
    File::open(from)?.sync_all()?;
    std::fs::hard_link(from, to)?;
    std::fs::remove_file(from)?;
    sync_folder_of(to)
}

fn copy_tables(view: &View, target: &Path) -> Result<(), redb::Error> {
    let database = file::create_database(target, limits::COPY_BYTES_MAX)?;
    let mut names = Vec::new();
    for table in view.transaction().list_tables()? {
        names.push(table.name().to_owned());
    }
    for name in &names {
        copy_table(view, &database, name)?;
    }
    Ok(())
}

fn copy_table(view: &View, database: &Database, name: &str) -> Result<(), redb::Error> {
    let definition = TableDefinition::<&[u8], &[u8]>::new(name);
    let from = view.transaction().open_table(definition)?;
    let mut entries = from.range::<&[u8]>(..)?;
    let mut more = true;
    while more {
        let transaction = database.begin_write()?;
        {
            let mut to = transaction.open_table(definition)?;
            let mut bytes = 0;
            more = false;
            for entry in entries.by_ref() {
                let (key, value) = entry?;
                to.insert(key.value(), value.value())?;
                bytes += key.value().len() + value.value().len();
                if bytes >= limits::COPY_BYTES_MAX {
                    more = true;
                    break;
                }
            }
        }
        transaction.commit()?;
    }
    Ok(())
}

/// What a restore has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// How many torrents the store has now.
    pub torrents: u64,
    /// Where the store is that was there before.
    pub kept: Option<PathBuf>,
}

/// Makes the store of a directory that no server uses from a copy. A store that is there is kept
/// beside it, and only replaced if `replace` says so. At every moment one of the two is the store.
///
/// # Errors
///
/// [`BackupError`]; the store is as it was then.
pub fn restore(directory: &Path, source: &Path, replace: bool) -> Result<Restored, BackupError> {
    let path = directory.join(STORE_FILE);
    let refused = |error| OpenError::Directory {
        path: directory.to_owned(),
        error,
    };
    std::fs::create_dir_all(directory).map_err(refused)?;
    let _lock = Lock::take(directory, &path)?;
    let there = path.try_exists().map_err(refused)?;
    if there && !replace {
        return Err(BackupError::Exists { path });
    }
    let new = beside(&path, ".restoring");
    let torrents = copy_and_check(source, &new).inspect_err(|_| {
        let _left = std::fs::remove_file(&new);
    })?;
    let place = || -> io::Result<Option<PathBuf>> {
        let kept = there.then(|| keep(&path)).transpose()?;
        put_in_place(&new, &path)?;
        Ok(kept)
    };
    let kept = place().map_err(|error| BackupError::Failed {
        path: path.clone(),
        error: error.to_string(),
    })?;
    Ok(Restored { torrents, kept })
}

/// Copies a backup, and opens and checks what has been copied: how many torrents it has.
fn copy_and_check(source: &Path, new: &Path) -> Result<u64, BackupError> {
    let copy = || -> io::Result<()> {
        let mut from = File::open(source)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut to = options.open(new)?;
        io::copy(&mut from, &mut to)?;
        to.sync_all()
    };
    copy().map_err(|error| BackupError::Failed {
        path: source.to_owned(),
        error: error.to_string(),
    })?;
    let medium = FileMedium(new.to_owned());
    let open =
        file::open(&medium, limits::CACHE_BYTES, false).map_err(|error| named(error, source))?;
    let report = crate::check::check_open(open, new);
    let report = report.map_err(|error| named(error, source))?;
    Ok(report.torrents)
}

/// An error of a copy, as one of what it was copied from.
fn named(error: OpenError, source: &Path) -> BackupError {
    let path = source.to_owned();
    let error = match error {
        OpenError::Damaged { cause, .. } => format!("it is no backup that can be used: {cause}"),
        OpenError::Newer { found, .. } => {
            format!("it has schema {found}, which is newer than this version")
        }
        other => other.to_string(),
    };
    BackupError::Failed { path, error }
}

/// Gives the store a second name, beside those that others were kept by, and returns it.
fn keep(path: &Path) -> io::Result<PathBuf> {
    let mut number = 1u32;
    loop {
        let kept = beside(path, &format!(".before-restore-{number}"));
        match std::fs::hard_link(path, &kept) {
            Ok(()) => return Ok(kept),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 1000 => {
                number += 1;
            }
            Err(error) => return Err(error),
        }
    }
}
