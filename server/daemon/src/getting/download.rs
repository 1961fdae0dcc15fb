//! A download that is under way: what is there of it, and is remembered.
//!
//! Limits: none of its own. Does not: fetch.

use super::plan::Described;
use super::store::Store;
use control::state::Record;
use control::verify::PieceSet;
use engine::layout::{FileIndex, FileStamp};
use proto::ids::PieceIndex;
use proto::metainfo::Metainfo;
use seedring_io::fetch::{Fetch, FetchEvent};
use seedring_io::torrent::SeededTorrent;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::mpsc;

/// A download that is under way, and what is kept of it.
pub(super) struct Download {
    pub(super) described: Described,
    /// Where it is kept; gone when all is there.
    pub(super) store: Option<Store>,
    pub(super) data_dir: PathBuf,
    pub(super) fetch: Arc<Fetch>,
    pub(super) events: mpsc::Receiver<FetchEvent>,
    /// Those that are on stable storage.
    pub(super) pieces: PieceSet,
    /// Bytes of those of them that are remembered: no crash takes them away any more.
    pub(super) bytes_recorded: u64,
    /// How many files are wanted, and how many there are.
    pub(super) files: (u64, u64),
    /// Stamps that could not be stored with the last pieces, one for a file at most.
    pub(super) unstored: BTreeMap<FileIndex, FileStamp>,
}

impl Download {
    /// These pieces are on stable storage, with these files as they are now.
    pub(super) fn synced(&mut self, pieces: &[PieceIndex], stamps: &[(FileIndex, FileStamp)]) {
        pieces.iter().for_each(|&piece| self.pieces.insert(piece));
        self.unstored.extend(stamps.iter().copied());
        let Some(store) = &self.store else {
            return;
        };
        let bits = self.pieces.as_bitfield();
        let stamps: Vec<_> = self
            .unstored
            .iter()
            .map(|(&at, &stamp)| (at, stamp))
            .collect();
        match tokio::task::block_in_place(|| store.synced(bits, &stamps)) {
            Ok(()) => {
                self.unstored.clear();
                self.bytes_recorded = bytes_of(&self.described.metainfo, &self.pieces);
            }
            // The download goes on: what is not remembered is fetched again after a crash.
            Err(error) => tracing::warn!(%error, "cannot remember what is there"),
        }
    }

    /// All is there.
    pub(super) fn complete(&mut self, torrent: &SeededTorrent) {
        let record = Record {
            metainfo: self.described.torrent.clone(),
            data_dir: self.data_dir.clone(),
            stamps: torrent.stamps().to_vec(),
            // What is downloaded lies where the torrent says.
            paths: BTreeMap::new(),
        };
        if let Some(store) = self.store.take()
            && let Err(error) = tokio::task::block_in_place(|| store.completed(&record))
        {
            tracing::warn!(%error, "cannot remember that all is there");
        }
    }
}

/// The bytes of these pieces, of which the torrent's last may be shorter than the others.
pub(super) fn bytes_of(metainfo: &Metainfo, pieces: &PieceSet) -> u64 {
    let length = u64::from(metainfo.piece_length);
    let last = PieceIndex(metainfo.piece_count.saturating_sub(1));
    let missing = u64::from(metainfo.piece_count) * length - metainfo.total_length;
    match pieces.contains(last) {
        true => u64::from(pieces.len()) * length - missing,
        false => u64::from(pieces.len()) * length,
    }
}
