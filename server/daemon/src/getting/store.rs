//! Where `seedring get` keeps what it has: a store of its own for each torrent, below the state
//! folder.
//!
//! The server's store admits one process, and two downloads beside a server are three. A store for
//! each torrent also keeps two processes from writing to the same files. When a torrent is
//! complete, the server's store is told, if nobody has it open just then, and the torrent's own
//! goes.

use control::state::{FetchRecord, Record, State, StateError};
use engine::layout::{FileIndex, FileStamp};
use proto::ids::InfoHashV1;
use std::path::{Path, PathBuf};

/// The store of one download.
pub struct Store {
    state: State,
    info_hash: InfoHashV1,
    folder: PathBuf,
    state_dir: PathBuf,
}

impl Store {
    /// Opens the torrent's store, making it if it is not there.
    ///
    /// # Errors
    ///
    /// [`StateError`]; in use by another process among them.
    pub fn open(state_dir: &Path, info_hash: InfoHashV1) -> Result<Store, StateError> {
        let folder = state_dir.join("get").join(info_hash.to_string());
        let store = Store {
            state: State::open(&folder)?,
            info_hash,
            folder,
            state_dir: state_dir.to_owned(),
        };
        store.take_over();
        Ok(store)
    }

    /// What the server knows of the torrent, if it is known as complete and this store knows
    /// nothing.
    fn take_over(&self) {
        let known = |state: &State| state.record(self.info_hash).ok().flatten();
        let main = || State::open(&self.state_dir).ok();
        if let Ok(None) = self.state.fetch_record(self.info_hash)
            && known(&self.state).is_none()
            // It is not made for this.
            && self.state_dir.join("state.redb").exists()
            && let Some(record) = main().as_ref().and_then(known)
            && let Err(error) = self.state.remember(self.info_hash, &record, None)
        {
            tracing::warn!(%error, "what is known of the torrent cannot be taken over");
        }
    }

    /// The store itself.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What an earlier run left.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub fn record(&self) -> Result<Option<FetchRecord>, StateError> {
        self.state.fetch_record(self.info_hash)
    }

    /// A run begins with `record`.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub fn begin(&self, record: &FetchRecord) -> Result<(), StateError> {
        self.state.begin_fetch(self.info_hash, record)
    }

    /// These pieces are on stable storage, and these files changed.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub fn synced(
        &self,
        pieces: &[u8],
        stamps: &[(FileIndex, FileStamp)],
    ) -> Result<(), StateError> {
        let stamps = stamps.iter().map(|&(file, stamp)| (file, Some(stamp)));
        self.state.fetch_synced(self.info_hash, pieces, stamps)
    }

    /// All is there. If the server's store can be told, this one has nothing more to say and is
    /// removed when it is closed.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub fn completed(self, record: &Record) -> Result<(), StateError> {
        self.state.fetch_completed(self.info_hash, record)?;
        let told = State::open(&self.state_dir)
            .and_then(|main| main.remember(self.info_hash, record, None));
        match told {
            Ok(()) => self.forget(),
            Err(StateError::InUse { .. }) => {
                tracing::info!("a server has its state open: it is not told of the download");
            }
            Err(error) => tracing::warn!(%error, "the server's state is not told of the download"),
        }
        Ok(())
    }

    /// Removes the store: nothing came of the download, or all is told elsewhere.
    pub fn forget(self) {
        let Store { state, folder, .. } = self;
        drop(state);
        if let Err(error) = std::fs::remove_dir_all(&folder) {
            tracing::warn!(%error, ?folder, "cannot be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: InfoHashV1 = InfoHashV1([3; 20]);

    fn record(data_dir: &str) -> Record {
        Record {
            metainfo: b"x".to_vec(),
            data_dir: data_dir.into(),
            stamps: vec![None],
            paths: Default::default(),
        }
    }

    #[test]
    fn what_is_complete_is_known_to_the_server_and_to_the_next_run() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), HASH).unwrap();
        assert!(matches!(
            Store::open(folder.path(), HASH),
            Err(StateError::InUse { .. })
        ));
        let other = Store::open(folder.path(), InfoHashV1([4; 20]));
        assert!(other.is_ok(), "another torrent at the same time");
        store.completed(&record("/one")).unwrap();
        assert!(!folder.path().join("get").join(HASH.to_string()).exists());
        let main = State::open(folder.path()).unwrap();
        assert_eq!(main.record(HASH).unwrap(), Some(record("/one")));
        drop(main);
        let again = Store::open(folder.path(), HASH).unwrap();
        assert_eq!(again.state().record(HASH).unwrap(), Some(record("/one")));
    }

    #[test]
    fn beside_a_running_server_the_torrent_s_own_store_keeps_it() {
        let folder = tempfile::tempdir().unwrap();
        let server = State::open(folder.path()).unwrap();
        let store = Store::open(folder.path(), HASH).unwrap();
        store.completed(&record("/two")).unwrap();
        let again = Store::open(folder.path(), HASH).unwrap();
        assert_eq!(again.state().record(HASH).unwrap(), Some(record("/two")));
        assert_eq!(server.record(HASH).unwrap(), None);
    }
}
