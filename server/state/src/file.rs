//! The store's file: made whole or not at all, opened with what is wrong with it told apart.
//!
//! redb asserts some of what it finds in a file, and checks no sums as it reads: a damaged file can
//! make it panic. Such a panic is caught and is damage; nothing is written to the file after it.

use crate::error::OpenError;
use crate::panics::caught;
use crate::tables::{self, Identity, SCHEMA};
use redb::backends::FileBackend;
use redb::{Database, DatabaseError, ReadableDatabase, StorageBackend, StorageError};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The store's name in the state directory.
pub const STORE_FILE: &str = "store.redb";

/// What the store is kept on: a file, but in tests of failing disks.
pub(crate) trait Medium: Send + Sync {
    /// Opens it; `again` after a failure, when nothing that the kernel still has in memory is to be
    /// believed.
    fn open(&self, again: bool) -> io::Result<Box<dyn StorageBackend>>;
    /// How it is called in messages.
    fn path(&self) -> &Path;
}

/// A file that exists.
pub(crate) struct FileMedium(pub PathBuf);

impl Medium for FileMedium {
    fn open(&self, again: bool) -> io::Result<Box<dyn StorageBackend>> {
        let file = OpenOptions::new().read(true).write(true).open(&self.0)?;
        if file.metadata()?.len() == 0 {
            let error = "the file is empty";
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        if again {
            // After an fsync that failed the page cache may have what the disk has not, marked as
            // written.
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
        backend(file)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

fn backend(file: File) -> io::Result<Box<dyn StorageBackend>> {
    match FileBackend::new(file) {
        Ok(backend) => Ok(Box::new(backend)),
        Err(DatabaseError::Storage(StorageError::Io(error))) => Err(error),
        Err(error) => Err(io::Error::new(io::ErrorKind::ResourceBusy, error)),
    }
}

/// A backend that can be given up: from then on nothing is read or written.
#[derive(Debug)]
struct Backing {
    inner: Box<dyn StorageBackend>,
    given_up: Arc<AtomicBool>,
}

impl Backing {
    fn usable(&self) -> io::Result<()> {
        match self.given_up.load(Ordering::Acquire) {
            false => Ok(()),
            true => Err(io::Error::other("the file was given up after a failure")),
        }
    }
}

impl StorageBackend for Backing {
    fn len(&self) -> io::Result<u64> {
        self.usable()?;
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.usable()?;
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.usable()?;
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.usable()?;
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.usable()?;
        self.inner.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }
}

/// An open database.
pub(crate) struct Open {
    pub database: Database,
    given_up: Arc<AtomicBool>,
    pub identity: Identity,
    /// Whether all of the file had to be read to put it in order.
    pub repaired: bool,
}

impl Open {
    /// Closes the database. redb asserts that all is well as it does so; where it is not, that has
    /// been told before.
    pub fn close(self) {
        let _panicked = caught(|| drop(self.database));
    }

    /// Closes the database without writing anything more: what is in its memory is not to be
    /// believed.
    pub fn give_up(self) {
        self.given_up.store(true, Ordering::Release);
        self.close();
    }
}

/// Opens a store of any schema up to this version's.
pub(crate) fn open(
    medium: &dyn Medium,
    cache_bytes: usize,
    again: bool,
) -> Result<Open, OpenError> {
    let path = medium.path();
    let damaged = |cause: String| OpenError::Damaged {
        path: path.to_owned(),
        cause,
    };
    let inner = medium.open(again).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => OpenError::Missing {
            path: path.to_owned(),
        },
        io::ErrorKind::ResourceBusy => OpenError::InUse {
            path: path.to_owned(),
            pid: None,
        },
        io::ErrorKind::InvalidData => damaged(error.to_string()),
        _ => failed(path, &error),
    })?;
    let given_up = Arc::new(AtomicBool::new(false));
    let backing = Backing {
        inner,
        given_up: given_up.clone(),
    };
    let repaired = Arc::new(AtomicBool::new(false));
    let noted = repaired.clone();
    let make = || {
        let database = Database::builder()
            .set_cache_size(cache_bytes)
            .set_repair_callback(move |_| noted.store(true, Ordering::Relaxed))
            .create_with_backend(backing)?;
        let transaction = database.begin_read()?;
        let global = transaction.open_table(tables::GLOBAL)?;
        let identity = tables::identity(&global)?;
        Ok((database, identity))
    };
    let made = caught(make).unwrap_or_else(|panic| Err(redb::Error::Corrupted(panic)));
    let (database, identity) = made.map_err(|error| match is_damage(&error) {
        true => damaged(error.to_string()),
        false => failed(path, &error),
    })?;
    let identity = identity.ok_or_else(|| damaged("it is no store of this program".into()))?;
    if identity.schema > SCHEMA {
        return Err(OpenError::Newer {
            path: path.to_owned(),
            found: identity.schema,
        });
    }
    Ok(Open {
        database,
        given_up,
        identity,
        repaired: repaired.load(Ordering::Relaxed),
    })
}

/// Makes a new store at `path`: under another name first, so that what is there under this one is
/// always whole.
pub(crate) fn create(path: &Path, cache_bytes: usize) -> Result<(), OpenError> {
    let new = beside(path, ".new");
    let make = || -> Result<(), redb::Error> {
        let mut uuid = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut uuid)?;
        // A random one, by its version and variant (RFC 9562).
        uuid[6] = uuid[6] & 0x0f | 0x40;
        uuid[8] = uuid[8] & 0x3f | 0x80;
        let database = create_database(&new, cache_bytes)?;
        let transaction = database.begin_write()?;
        tables::create(&transaction, &uuid)?;
        transaction.commit()?;
        drop(database);
        put_in_place(&new, path)?;
        Ok(())
    };
    make().map_err(|error| failed(path, &error))
}

/// An empty database in a new file: readable by us only, because torrents hold passkeys.
pub(crate) fn create_database(path: &Path, cache_bytes: usize) -> Result<Database, redb::Error> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    let file = options.mode(0o600).open(path)?;
    let database = Database::builder()
        .set_cache_size(cache_bytes)
        .create_with_backend(FileBackend::new(file)?)?;
    Ok(database)
}

/// Gives a file that is whole its name, whatever had it before; durable on return.
pub(crate) fn put_in_place(from: &Path, to: &Path) -> io::Result<()> {
    File::open(from)?.sync_all()?;
    std::fs::rename(from, to)?;
    sync_folder_of(to)
}

/// Makes the names in a file's folder durable.
pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// A path whose name has something more at its end.
pub(crate) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> OpenError {
    OpenError::Failed {
        path: path.to_owned(),
        error: error.to_string(),
    }
}

/// Whether the file itself is wrong, and not the access to it.
fn is_damage(error: &redb::Error) -> bool {
    use redb::Error;
    match error {
        Error::Corrupted(_)
        | Error::RepairAborted
        | Error::UpgradeRequired(_)
        | Error::TableTypeMismatch { .. }
        | Error::TableIsMultimap(_)
        | Error::TableDoesNotExist(_)
        | Error::TypeDefinitionChanged { .. } => true,
        Error::Io(error) => matches!(
            error.kind(),
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
        ),
        _ => false,
    }
}
