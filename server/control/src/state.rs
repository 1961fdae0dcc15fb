//! What survives a restart: torrents, and which files on disk were verified as theirs; of those that are being
//! fetched, which pieces (`fetches`). One redb file.
//!
//! A record that [`State::remember`] has returned from survives `kill -9` and power loss. Only one process
//! may have a state directory open.
//!
//! Limits: one record per torrent; a record is as large as its metainfo plus 41 bytes per file, and a bit for each
//! piece of one that is being fetched.

mod fetches;

pub use fetches::FetchRecord;

use engine::layout::FileStamp;
use proto::ids::InfoHashV1;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use std::collections::BTreeMap;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The layout of the tables below. A newer one is refused, never guessed at.
const SCHEMA: u64 = 1;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Info-hash to the .torrent file's bytes.
const METAINFO: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("metainfo");
/// Info-hash to the data directory's path.
const DATA_DIR: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("data_dir");
/// Info-hash to the stamps of its files, in the order of the torrent.
const STAMPS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("stamps");
/// Info-hash to the paths of those files that lie elsewhere than the torrent says.
const PATHS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("paths");
/// What a torrent was made from (path and options) to its info-hash.
const SOURCES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("sources");

/// One stamp: a presence byte and five 64-bit numbers.
const STAMP_BYTES: usize = 1 + 5 * 8;

/// The store can not be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The directory can not be made.
    #[error("state directory {path:?}: {error}; choose another with --state-dir")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// Another process has it.
    #[error(
        "state directory {path:?} is in use by another seedring; stop that one, or choose another \
         directory with --state-dir"
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// It was written by a later version.
    #[error(
        "state file {path:?} has schema {found}, this version knows up to {SCHEMA}; \
         run the version that wrote it, or a later one"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u64,
    },
    /// The file is damaged, or is none of ours.
    #[error(
        "state file {path:?} is damaged ({cause}); move it away, then data are hashed again and it is \
         made anew"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The store failed.
    #[error("state file {path:?}: {error}")]
    Store {
        /// The file.
        path: PathBuf,
        /// What the store said.
        error: Box<redb::Error>,
    },
}

/// A torrent with the proof that its data were verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The .torrent file's bytes.
    pub metainfo: Vec<u8>,
    /// Where its data are.
    pub data_dir: PathBuf,
    /// What each file was when it was verified; `None` for pad files.
    pub stamps: Vec<Option<FileStamp>>,
    /// The paths below `data_dir` of those files that lie elsewhere than the torrent says, by their index:
    /// names that a torrent's reader sanitises are spelt otherwise on disk.
    pub paths: BTreeMap<u32, PathBuf>,
}

/// The open store.
pub struct State {
    database: Database,
    path: PathBuf,
}

impl State {
    /// Opens the store in `directory`, making both if they are not there.
    ///
    /// # Errors
    ///
    /// [`StateError`], which says what to do.
    pub fn open(directory: &Path) -> Result<State, StateError> {
        std::fs::create_dir_all(directory).map_err(|error| StateError::Directory {
            path: directory.to_owned(),
            error,
        })?;
        let path = directory.join("state.redb");
        let database = match open_database(&path) {
            Ok(database) => database,
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => {
                return Err(StateError::InUse {
                    path: directory.to_owned(),
                });
            }
            Err(error) if is_damage(&error) => {
                let cause = error.to_string();
                return Err(StateError::Damaged { path, cause });
            }
            Err(error) => {
                return Err(StateError::Store {
                    path,
                    error: Box::new(error.into()),
                });
            }
        };
        let state = State { database, path };
        match state.schema() {
            Ok(found) if found > SCHEMA => Err(StateError::Newer {
                path: state.path.clone(),
                found,
            }),
            Ok(_) => Ok(state),
            Err(error) => Err(state.failed(error)),
        }
    }

    /// Keeps `record`, and that it was made from `source` if that is given. Durable on return.
    ///
    /// # Errors
    ///
    /// [`StateError::Store`]; nothing has changed then.
    pub fn remember(
        &self,
        info_hash: InfoHashV1,
        record: &Record,
        source: Option<&[u8]>,
    ) -> Result<(), StateError> {
        self.write(info_hash, record, source)
            .map_err(|error| self.failed(error))
    }

    /// The record of a torrent.
    ///
    /// # Errors
    ///
    /// [`StateError::Store`].
    pub fn record(&self, info_hash: InfoHashV1) -> Result<Option<Record>, StateError> {
        self.read(info_hash).map_err(|error| self.failed(error))
    }

    /// The torrent that was made from `source`.
    ///
    /// # Errors
    ///
    /// [`StateError::Store`].
    pub fn made_from(&self, source: &[u8]) -> Result<Option<InfoHashV1>, StateError> {
        let find = || -> Result<Option<InfoHashV1>, redb::Error> {
            let table = self.database.begin_read()?.open_table(SOURCES)?;
            let found = table.get(source)?;
            Ok(found
                .and_then(|hash| hash.value().try_into().ok())
                .map(InfoHashV1))
        };
        find().map_err(|error| self.failed(error))
    }

    /// The schema of the file; makes the tables of a new one.
    fn schema(&self) -> Result<u64, redb::Error> {
        let transaction = self.database.begin_write()?;
        let found = {
            let mut meta = transaction.open_table(META)?;
            let found = meta.get("schema")?.map(|schema| schema.value());
            if found.is_none() {
                meta.insert("schema", SCHEMA)?;
            }
            transaction.open_table(METAINFO)?;
            transaction.open_table(DATA_DIR)?;
            transaction.open_table(STAMPS)?;
            transaction.open_table(PATHS)?;
            transaction.open_table(SOURCES)?;
            fetches::make_tables(&transaction)?;
            found.unwrap_or(SCHEMA)
        };
        if found <= SCHEMA {
            transaction.commit()?;
        }
        Ok(found)
    }

    fn write(
        &self,
        info_hash: InfoHashV1,
        record: &Record,
        source: Option<&[u8]>,
    ) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        write_record(&transaction, info_hash, record)?;
        if let Some(source) = source {
            let key = info_hash.0.as_slice();
            transaction.open_table(SOURCES)?.insert(source, key)?;
        }
        transaction.commit()?;
        Ok(())
    }

    fn read(&self, info_hash: InfoHashV1) -> Result<Option<Record>, redb::Error> {
        let key = info_hash.0.as_slice();
        let transaction = self.database.begin_read()?;
        let metainfo = transaction.open_table(METAINFO)?;
        let data_dir = transaction.open_table(DATA_DIR)?;
        let stamps = transaction.open_table(STAMPS)?;
        let paths = transaction.open_table(PATHS)?.get(key)?;
        let (Some(metainfo), Some(data_dir), Some(stamps)) =
            (metainfo.get(key)?, data_dir.get(key)?, stamps.get(key)?)
        else {
            return Ok(None);
        };
        Ok(Some(Record {
            metainfo: metainfo.value().to_vec(),
            data_dir: std::ffi::OsString::from_vec(data_dir.value().to_vec()).into(),
            stamps: decode_stamps(stamps.value()),
            paths: paths
                .map(|paths| decode_paths(paths.value()))
                .unwrap_or_default(),
        }))
    }

    fn failed(&self, error: redb::Error) -> StateError {
        StateError::Store {
            path: self.path.clone(),
            error: Box::new(error),
        }
    }
}

/// Writes all of a record but what it was made from.
fn write_record(
    transaction: &WriteTransaction,
    info_hash: InfoHashV1,
    record: &Record,
) -> Result<(), redb::Error> {
    let key = info_hash.0.as_slice();
    transaction
        .open_table(METAINFO)?
        .insert(key, record.metainfo.as_slice())?;
    transaction
        .open_table(DATA_DIR)?
        .insert(key, record.data_dir.as_os_str().as_bytes())?;
    transaction
        .open_table(STAMPS)?
        .insert(key, encode_stamps(&record.stamps).as_slice())?;
    transaction
        .open_table(PATHS)?
        .insert(key, encode_paths(&record.paths).as_slice())?;
    Ok(())
}

/// Opens the store, or makes it: readable by us only, because torrents hold passkeys.
fn open_database(path: &Path) -> Result<Database, redb::DatabaseError> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let file = options
        .mode(0o600)
        .open(path)
        .map_err(redb::StorageError::Io)?;
    // redb asserts that a file is as long as its header says. Nothing of ours is shared with it.
    let open = || Database::builder().create_file(file);
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(open)).unwrap_or_else(|_| {
        let cause = "it is shorter than its header says".to_owned();
        Err(redb::StorageError::Corrupted(cause).into())
    })
}

/// Whether the file itself is wrong, and not the access to it.
fn is_damage(error: &redb::DatabaseError) -> bool {
    use redb::{DatabaseError, StorageError};
    match error {
        DatabaseError::Storage(StorageError::Corrupted(_)) | DatabaseError::RepairAborted => true,
        DatabaseError::Storage(StorageError::Io(error)) => matches!(
            error.kind(),
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
        ),
        _ => false,
    }
}

fn encode_stamps(stamps: &[Option<FileStamp>]) -> Vec<u8> {
    stamps.iter().flat_map(encode_stamp).collect()
}

fn encode_stamp(stamp: &Option<FileStamp>) -> [u8; STAMP_BYTES] {
    let mut bytes = [0; STAMP_BYTES];
    let Some(stamp) = stamp else {
        return bytes;
    };
    bytes[0] = 1;
    let words = [
        stamp.device.to_le_bytes(),
        stamp.inode.to_le_bytes(),
        stamp.size.to_le_bytes(),
        stamp.mtime_ns.to_le_bytes(),
        stamp.ctime_ns.to_le_bytes(),
    ];
    bytes[1..].copy_from_slice(words.as_flattened());
    bytes
}

fn decode_stamps(bytes: &[u8]) -> Vec<Option<FileStamp>> {
    bytes.chunks_exact(STAMP_BYTES).map(decode_stamp).collect()
}

/// Of what is no stamp, none.
fn decode_stamp(bytes: &[u8]) -> Option<FileStamp> {
    let bytes: &[u8; STAMP_BYTES] = bytes.try_into().ok()?;
    let mut words = bytes[1..].chunks_exact(8).map(|word| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(word);
        bytes
    });
    let mut next = || words.next().unwrap_or_default();
    let decoded = FileStamp {
        device: u64::from_le_bytes(next()),
        inode: u64::from_le_bytes(next()),
        size: u64::from_le_bytes(next()),
        mtime_ns: i64::from_le_bytes(next()),
        ctime_ns: i64::from_le_bytes(next()),
    };
    (bytes[0] == 1).then_some(decoded)
}

/// Each path as its file's index, its length, its bytes.
fn encode_paths(paths: &BTreeMap<u32, PathBuf>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, path) in paths {
        let path = path.as_os_str().as_bytes();
        bytes.extend_from_slice(&index.to_le_bytes());
        bytes.extend_from_slice(&(path.len() as u32).to_le_bytes());
        bytes.extend_from_slice(path);
    }
    bytes
}

fn decode_paths(mut bytes: &[u8]) -> BTreeMap<u32, PathBuf> {
    let mut paths = BTreeMap::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<8>() {
        let [a, b, c, d, e, f, g, h] = *head;
        let length = u32::from_le_bytes([e, f, g, h]) as usize;
        let Some((path, rest)) = rest.split_at_checked(length) else {
            break;
        };
        let path = std::ffi::OsString::from_vec(path.to_vec());
        paths.insert(u32::from_le_bytes([a, b, c, d]), path.into());
        bytes = rest;
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let stamp = FileStamp {
            device: 1,
            inode: u64::MAX,
            size: 3,
            mtime_ns: -4,
            ctime_ns: i64::MAX,
        };
        Record {
            metainfo: b"d4:infod0:0:ee".to_vec(),
            data_dir: "/data/\u{e9}".into(),
            stamps: vec![Some(stamp), None],
            paths: [(1, "a/\u{202e}b".into()), (7, "c".into())].into(),
        }
    }

    #[test]
    fn a_record_survives_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let hash = InfoHashV1([7; 20]);
        {
            let state = State::open(directory.path()).unwrap();
            assert_eq!(state.record(hash).unwrap(), None);
            state.remember(hash, &record(), Some(b"source")).unwrap();
        }
        let state = State::open(directory.path()).unwrap();
        assert_eq!(state.record(hash).unwrap(), Some(record()));
        assert_eq!(state.made_from(b"source").unwrap(), Some(hash));
        assert_eq!(state.made_from(b"other").unwrap(), None);
    }

    #[test]
    fn a_damaged_file_is_named_with_the_cure_and_an_empty_one_is_begun_anew() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.redb");
        drop(State::open(directory.path()).unwrap());
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let whole = std::fs::read(&path).unwrap();
        let half = whole[..whole.len() / 2].to_vec();
        let other = b"something else".to_vec();
        for bytes in [half, vec![0; 100_000], vec![0x5a; 100_000], other] {
            std::fs::write(&path, &bytes).unwrap();
            let error = State::open(directory.path()).err().unwrap();
            let text = error.to_string();
            assert!(matches!(error, StateError::Damaged { .. }), "{text}");
            assert!(text.contains("state.redb") && text.contains("move it away"));
        }
        std::fs::write(&path, b"").unwrap();
        State::open(directory.path()).unwrap();
    }

    #[test]
    fn a_second_process_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let _first = State::open(directory.path()).unwrap();
        assert!(matches!(
            State::open(directory.path()),
            Err(StateError::InUse { .. })
        ));
    }

    #[test]
    fn a_newer_schema_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        {
            let state = State::open(directory.path()).unwrap();
            let transaction = state.database.begin_write().unwrap();
            transaction
                .open_table(META)
                .unwrap()
                .insert("schema", SCHEMA + 1)
                .unwrap();
            transaction.commit().unwrap();
        }
        for _ in 0..2 {
            let refused = State::open(directory.path());
            assert!(matches!(refused, Err(StateError::Newer { found, .. }) if found == SCHEMA + 1));
        }
    }
}
