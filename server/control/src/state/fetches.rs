//! Torrents that are being fetched: what is wanted, and which pieces are verified and on stable storage.
//!
//! The parts that change while a torrent is fetched are apart from those that do not, and each file's stamp is an
//! entry of its own, so that what is written every few seconds does not grow with the torrent but for a bit for each
//! piece.

use super::{Record, State, StateError, decode_stamp, encode_stamp, write_record};
use engine::layout::{FileIndex, FileStamp};
use engine::picker::Priority;
use proto::ids::InfoHashV1;
use redb::{ReadableDatabase, TableDefinition, WriteTransaction};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// Info-hash to the .torrent file's bytes.
const METAINFO: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("fetch_metainfo");
/// Info-hash to the data directory's path.
const DATA_DIR: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("fetch_data_dir");
/// Info-hash to whether pieces are wanted in their order (a byte) and the files' priorities (a byte each).
const WANTED: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("fetch_wanted");
/// Info-hash to the verified pieces, as in a bitfield message.
const PIECES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("fetch_pieces");
/// Info-hash and file index (big-endian) to the file's stamp.
const STAMPS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("fetch_stamps");

/// A torrent that is being fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchRecord {
    /// The .torrent file's bytes.
    pub metainfo: Vec<u8>,
    /// Where its data are.
    pub data_dir: PathBuf,
    /// How much each file is wanted; short of files, those are wanted as usual.
    pub priorities: Vec<Priority>,
    /// Whether pieces are wanted in their order.
    pub sequential: bool,
    /// The pieces that are verified and on stable storage, as in a bitfield message.
    pub pieces: Vec<u8>,
    /// What each file was when the last of them became so; `None` for pad files and those without a piece.
    pub stamps: Vec<Option<FileStamp>>,
}

/// Makes the tables of a new store.
pub(super) fn make_tables(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    for table in [METAINFO, DATA_DIR, WANTED, PIECES, STAMPS] {
        transaction.open_table(table)?;
    }
    Ok(())
}

impl State {
    /// Keeps `record` in place of what was known of this fetch. Durable on return.
    ///
    /// # Errors
    ///
    /// [`StateError::Store`]; nothing has changed then.
    pub fn begin_fetch(
        &self,
        info_hash: InfoHashV1,
        record: &FetchRecord,
    ) -> Result<(), StateError> {
        let key = info_hash.0.as_slice();
        let mut wanted = vec![u8::from(record.sequential)];
        wanted.extend(record.priorities.iter().map(|priority| priority.number()));
        let write = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            remove_fetch(&transaction, info_hash)?;
            let data_dir = record.data_dir.as_os_str().as_bytes();
            for (table, value) in [
                (METAINFO, record.metainfo.as_slice()),
                (DATA_DIR, data_dir),
                (WANTED, &wanted),
                (PIECES, &record.pieces),
            ] {
                transaction.open_table(table)?.insert(key, value)?;
            }
            let stamps = (0..).map(FileIndex).zip(record.stamps.iter().copied());
            write_stamps(&transaction, info_hash, stamps)?;
            transaction.commit()?;
            Ok(())
        };
        write().map_err(|error| self.failed(error))
    }

    /// Keeps that `pieces` (all that are, as in a bitfield message) are on stable storage, and what these files are now.
    /// Durable on return.
    ///
    /// # Errors
    ///
    /// [`StateError::Store`]; nothing has changed then.
    pub fn fetch_synced(
        &self,
        info_hash: InfoHashV1,
        pieces: &[u8],
        stamps: impl IntoIterator<Item = (FileIndex, Option<FileStamp>)>,
    ) -> Result<(), StateError> {
        let write = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            transaction
                .open_table(PIECES)?
                .insert(info_hash.0.as_slice(), pieces)?;
            write_stamps(&transaction, info_hash, stamps)?;
            transaction.commit()?;
            Ok(())
        };
        write().map_err(|error| self.failed(error))
    }

    /// What is known of a fetch.
    ///
    /// # Errors
    ///
    /// [`StateError::Store`].
    pub fn fetch_record(&self, info_hash: InfoHashV1) -> Result<Option<FetchRecord>, StateError> {
        self.read_fetch(info_hash)
            .map_err(|error| self.failed(error))
    }

    /// Ends a fetch: its torrent is complete, and known like any other from now on. Durable on return.
    ///
    /// # Errors
    ///
    /// [`StateError::Store`]; nothing has changed then.
    pub fn fetch_completed(
        &self,
        info_hash: InfoHashV1,
        record: &Record,
    ) -> Result<(), StateError> {
        let write = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            remove_fetch(&transaction, info_hash)?;
            write_record(&transaction, info_hash, record)?;
            transaction.commit()?;
            Ok(())
        };
        write().map_err(|error| self.failed(error))
    }

    /// Forgets a fetch. Durable on return.
    ///
    /// # Errors
    ///
    /// [`StateError::Store`]; nothing has changed then.
    pub fn forget_fetch(&self, info_hash: InfoHashV1) -> Result<(), StateError> {
        let write = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            remove_fetch(&transaction, info_hash)?;
            transaction.commit()?;
            Ok(())
        };
        write().map_err(|error| self.failed(error))
    }

    fn read_fetch(&self, info_hash: InfoHashV1) -> Result<Option<FetchRecord>, redb::Error> {
        let transaction = self.database.begin_read()?;
        let get =
            |table: TableDefinition<'_, &[u8], &[u8]>| -> Result<Option<Vec<u8>>, redb::Error> {
                let value = transaction.open_table(table)?.get(info_hash.0.as_slice())?;
                Ok(value.map(|value| value.value().to_vec()))
            };
        let (Some(metainfo), Some(data_dir), Some(wanted), Some(pieces)) =
            (get(METAINFO)?, get(DATA_DIR)?, get(WANTED)?, get(PIECES)?)
        else {
            return Ok(None);
        };
        let mut stamps = Vec::new();
        let (first, last) = stamp_keys(info_hash);
        let table = transaction.open_table(STAMPS)?;
        for entry in table.range(first.as_slice()..=last.as_slice())? {
            let (key, stamp) = entry?;
            let index = key.value().last_chunk::<4>().copied().unwrap_or_default();
            stamps.resize(u32::from_be_bytes(index) as usize, None);
            stamps.push(decode_stamp(stamp.value()));
        }
        let (sequential, priorities) = wanted.split_first().unwrap_or((&0, &[]));
        let priority = |&number| Priority::new(number).unwrap_or(Priority::NORMAL);
        Ok(Some(FetchRecord {
            metainfo,
            data_dir: OsString::from_vec(data_dir).into(),
            priorities: priorities.iter().map(priority).collect(),
            sequential: *sequential != 0,
            pieces,
            stamps,
        }))
    }
}

fn stamp_key(info_hash: InfoHashV1, file: FileIndex) -> [u8; 24] {
    let mut key = [0; 24];
    key[..20].copy_from_slice(&info_hash.0);
    key[20..].copy_from_slice(&file.0.to_be_bytes());
    key
}

/// The first and the last key that a torrent's stamps may have.
fn stamp_keys(info_hash: InfoHashV1) -> ([u8; 24], [u8; 24]) {
    let key = |index| stamp_key(info_hash, FileIndex(index));
    (key(0), key(u32::MAX))
}

fn write_stamps(
    transaction: &WriteTransaction,
    info_hash: InfoHashV1,
    stamps: impl IntoIterator<Item = (FileIndex, Option<FileStamp>)>,
) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(STAMPS)?;
    for (file, stamp) in stamps {
        let key = stamp_key(info_hash, file);
        table.insert(key.as_slice(), encode_stamp(&stamp).as_slice())?;
    }
    Ok(())
}

fn remove_fetch(transaction: &WriteTransaction, info_hash: InfoHashV1) -> Result<(), redb::Error> {
    for table in [METAINFO, DATA_DIR, WANTED, PIECES] {
        transaction
            .open_table(table)?
            .remove(info_hash.0.as_slice())?;
    }
    let (first, last) = stamp_keys(info_hash);
    let mut stamps = transaction.open_table(STAMPS)?;
    stamps.retain_in(first.as_slice()..=last.as_slice(), |_, _| false)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(size: u64) -> Option<FileStamp> {
        Some(FileStamp {
            size,
            ..FileStamp::default()
        })
    }

    fn record() -> FetchRecord {
        FetchRecord {
            metainfo: b"d4:infod0:0:ee".to_vec(),
            data_dir: "/data/\u{e9}".into(),
            priorities: vec![Priority::NORMAL, Priority::SKIP, Priority::HIGHEST],
            sequential: true,
            pieces: vec![0x80, 0],
            stamps: vec![stamp(1), None, stamp(3)],
        }
    }

    const HASH: InfoHashV1 = InfoHashV1([7; 20]);
    /// The info-hashes on both sides, whose stamps lie beside those of [`HASH`].
    const NEIGHBOURS: [InfoHashV1; 2] = {
        let (mut before, mut after) = ([7; 20], [7; 20]);
        before[19] = 6;
        after[19] = 8;
        [InfoHashV1(before), InfoHashV1(after)]
    };

    #[test]
    fn a_fetch_survives_a_restart_and_each_sync_changes_what_it_says() {
        let directory = tempfile::tempdir().unwrap();
        {
            let state = State::open(directory.path()).unwrap();
            assert_eq!(state.fetch_record(HASH).unwrap(), None);
            for neighbour in NEIGHBOURS {
                state.begin_fetch(neighbour, &record()).unwrap();
            }
            state.begin_fetch(HASH, &record()).unwrap();
        }
        let state = State::open(directory.path()).unwrap();
        assert_eq!(state.fetch_record(HASH).unwrap(), Some(record()));
        let stamps = [(FileIndex(0), stamp(9)), (FileIndex(4), stamp(5))];
        state.fetch_synced(HASH, &[0xc0, 0], stamps).unwrap();
        let synced = FetchRecord {
            pieces: vec![0xc0, 0],
            stamps: vec![stamp(9), None, stamp(3), None, stamp(5)],
            ..record()
        };
        assert_eq!(state.fetch_record(HASH).unwrap(), Some(synced));
        for neighbour in NEIGHBOURS {
            assert_eq!(state.fetch_record(neighbour).unwrap(), Some(record()));
        }
    }

    #[test]
    fn a_fetch_that_begins_anew_keeps_nothing_of_the_one_before() {
        let directory = tempfile::tempdir().unwrap();
        let state = State::open(directory.path()).unwrap();
        state.begin_fetch(HASH, &record()).unwrap();
        let anew = FetchRecord {
            stamps: Vec::new(),
            pieces: vec![0, 0],
            ..record()
        };
        state.begin_fetch(HASH, &anew).unwrap();
        assert_eq!(state.fetch_record(HASH).unwrap(), Some(anew));
    }

    #[test]
    fn a_fetch_that_is_complete_is_a_torrent_like_any_other() {
        let directory = tempfile::tempdir().unwrap();
        let state = State::open(directory.path()).unwrap();
        for hash in [HASH, NEIGHBOURS[0], NEIGHBOURS[1]] {
            state.begin_fetch(hash, &record()).unwrap();
        }
        assert_eq!(
            state.record(HASH).unwrap(),
            None,
            "not before it is complete"
        );
        let complete = Record {
            metainfo: record().metainfo,
            data_dir: record().data_dir,
            stamps: vec![stamp(1), stamp(2), stamp(3)],
            paths: Default::default(),
        };
        state.fetch_completed(HASH, &complete).unwrap();
        assert_eq!(state.record(HASH).unwrap(), Some(complete));
        assert_eq!(state.fetch_record(HASH).unwrap(), None);
        state.forget_fetch(NEIGHBOURS[0]).unwrap();
        assert_eq!(state.fetch_record(NEIGHBOURS[0]).unwrap(), None);
        assert_eq!(state.fetch_record(NEIGHBOURS[1]).unwrap(), Some(record()));
    }
}
