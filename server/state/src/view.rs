//! What is read: a view is the store as it was at one moment, whatever is written meanwhile. It
//! blocks on the disk. While one is open, what it can see is not reused: a view that stays open
//! makes the file grow.

use crate::encode::{decode_details, decode_stamp, decode_summary, decode_totals, decode_verified};
use crate::error::{Failure, ReadError};
use crate::field::DecodeError;
use crate::intent::{self, Intent};
use crate::limits;
use crate::record::{Details, Summary, Totals, Verified};
use crate::tables::{self, Identity, KEY_TOTALS, info_hash, stamp_key, stamp_key_parts};
use engine::layout::FileStamp;
use proto::ids::InfoHashV1;
use redb::{ReadOnlyTable, ReadTransaction, ReadableTableMetadata, TableDefinition};
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// The store at one moment.
pub struct View {
    transaction: ReadTransaction,
    path: PathBuf,
}

/// One torrent of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Which one.
    pub info_hash: InfoHashV1,
    /// Its summary; an error where its record is damaged, which is no reason not to go on with the
    /// others.
    pub summary: Result<Summary, DecodeError>,
    /// Its totals.
    pub totals: Totals,
    /// How many of its pieces are verified and on stable storage.
    pub pieces_verified: u32,
}

impl Listed {
    /// What its records say. Of what is damaged nothing is believed: pieces are hashed again, totals
    /// begin anew.
    fn of(
        info_hash: InfoHashV1,
        summary: &[u8],
        totals: Option<&[u8]>,
        verified: Option<&[u8]>,
    ) -> Listed {
        let summary = decode_summary(summary);
        let pieces = summary.as_ref().map_or(0, |summary| summary.pieces);
        let verified = verified.and_then(|kept| decode_verified(kept, pieces).ok());
        Listed {
            info_hash,
            pieces_verified: verified.map_or(0, |verified| verified.count(pieces)),
            totals: totals
                .and_then(|kept| decode_totals(kept).ok())
                .unwrap_or_default(),
            summary,
        }
    }
}

impl View {
    pub(crate) fn new(transaction: ReadTransaction, path: PathBuf) -> Self {
        Self { transaction, path }
    }

    pub(crate) fn transaction(&self) -> &ReadTransaction {
        &self.transaction
    }

    /// How many torrents there are.
    ///
    /// # Errors
    ///
    /// [`ReadError::Failed`].
    pub fn count(&self) -> Result<u64, ReadError> {
        let table = self.table(tables::SUMMARIES)?;
        table.len().map_err(|error| self.failed(error))
    }

    /// The summaries of at most `max` torrents (and [`limits::PAGE_MAX`]) behind `after`, in the
    /// order of their info-hashes; the last one's is the next page's `after`. An empty page is the
    /// end.
    ///
    /// # Errors
    ///
    /// [`ReadError::Failed`].
    pub fn torrents(
        &self,
        after: Option<InfoHashV1>,
        max: usize,
    ) -> Result<Vec<Listed>, ReadError> {
        let summaries = self.table(tables::SUMMARIES)?;
        let totals = self.table(tables::TOTALS)?;
        let verified = self.table(tables::VERIFIED)?;
        let start = after.as_ref().map_or(Bound::Unbounded, |after| {
            Bound::Excluded(after.0.as_slice())
        });
        let range = summaries.range::<&[u8]>((start, Bound::Unbounded));
        let range = range.map_err(|error| self.failed(error))?;
        let mut page = Vec::new();
        for entry in range.take(max.min(limits::PAGE_MAX)) {
            let (key, record) = entry.map_err(|error| self.failed(error))?;
            let key = key.value();
            let Some(info_hash) = info_hash(key) else {
                continue;
            };
            let totals = totals.get(key).map_err(|error| self.failed(error))?;
            let verified = verified.get(key).map_err(|error| self.failed(error))?;
            let totals = totals.as_ref().map(|kept| kept.value());
            let verified = verified.as_ref().map(|kept| kept.value());
            page.push(Listed::of(info_hash, record.value(), totals, verified));
        }
        Ok(page)
    }

    /// One torrent as [`View::torrents`] has it, if it is there.
    ///
    /// # Errors
    ///
    /// [`ReadError::Failed`].
    pub fn torrent(&self, torrent: &InfoHashV1) -> Result<Option<Listed>, ReadError> {
        let Some(summary) = self.get(tables::SUMMARIES, &torrent.0)? else {
            return Ok(None);
        };
        let totals = self.get(tables::TOTALS, &torrent.0)?;
        let verified = self.get(tables::VERIFIED, &torrent.0)?;
        let (totals, verified) = (totals.as_deref(), verified.as_deref());
        Ok(Some(Listed::of(*torrent, &summary, totals, verified)))
    }

    /// The summary of a torrent, if it is there.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`], [`ReadError::Failed`].
    pub fn summary(&self, torrent: &InfoHashV1) -> Result<Option<Summary>, ReadError> {
        let record = self.get(tables::SUMMARIES, &torrent.0)?;
        let summary = record.as_deref().map(decode_summary);
        summary.transpose().map_err(|error| damaged(torrent, error))
    }

    /// The details of a torrent.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`], [`ReadError::Failed`].
    pub fn details(&self, torrent: &InfoHashV1) -> Result<Details, ReadError> {
        let record = self.get(tables::DETAILS, &torrent.0)?;
        let details = record.as_deref().map(decode_details).transpose();
        let details = details.map_err(|error| damaged(torrent, error))?;
        Ok(details.unwrap_or_default())
    }

    /// The bytes of a torrent's .torrent file, if they are known.
    ///
    /// # Errors
    ///
    /// [`ReadError::Failed`].
    pub fn metainfo(&self, torrent: &InfoHashV1) -> Result<Option<Vec<u8>>, ReadError> {
        self.get(tables::METAINFO, &torrent.0)
    }

    /// The verified pieces of a torrent.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`], [`ReadError::Failed`].
    pub fn verified(&self, torrent: &InfoHashV1) -> Result<Verified, ReadError> {
        let Some(summary) = self.summary(torrent)? else {
            return Ok(Verified::None);
        };
        let record = self.get(tables::VERIFIED, &torrent.0)?;
        let verified = record.map(|record| decode_verified(&record, summary.pieces));
        let verified = verified
            .transpose()
            .map_err(|error| damaged(torrent, error))?;
        Ok(verified.unwrap_or_default())
    }

    /// The stamps of a torrent's files: of each that has one, its index and the stamp, in order.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`], [`ReadError::Failed`].
    pub fn stamps(&self, torrent: &InfoHashV1) -> Result<Vec<(u32, FileStamp)>, ReadError> {
        let (first, last) = (stamp_key(torrent, 0), stamp_key(torrent, u32::MAX));
        let table = self.table(tables::STAMPS)?;
        let range = table.range::<&[u8]>(first.as_slice()..=last.as_slice());
        let mut stamps = Vec::new();
        for entry in range.map_err(|error| self.failed(error))? {
            let (key, record) = entry.map_err(|error| self.failed(error))?;
            let Some((_, file)) = stamp_key_parts(key.value()) else {
                continue;
            };
            let stamp = decode_stamp(record.value());
            stamps.push((file, stamp.map_err(|error| damaged(torrent, error))?));
        }
        Ok(stamps)
    }

    /// The totals of a torrent, over all runs, as they were written last.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`], [`ReadError::Failed`].
    pub fn totals(&self, torrent: &InfoHashV1) -> Result<Totals, ReadError> {
        let record = self.get(tables::TOTALS, &torrent.0)?;
        let totals = record.as_deref().map(decode_totals).transpose();
        let totals = totals.map_err(|error| damaged(torrent, error))?;
        Ok(totals.unwrap_or_default())
    }

    /// The queue in its order.
    ///
    /// # Errors
    ///
    /// [`ReadError::Failed`].
    pub fn queue(&self) -> Result<Vec<InfoHashV1>, ReadError> {
        let table = self.table(tables::QUEUE)?;
        let range = table.range::<&[u8]>(..);
        let mut order = Vec::new();
        for entry in range.map_err(|error| self.failed(error))? {
            let (_, torrent) = entry.map_err(|error| self.failed(error))?;
            order.extend(info_hash(torrent.value()));
        }
        Ok(order)
    }

    /// The totals of the server, over all runs and with those of torrents that were removed.
    ///
    /// # Errors
    ///
    /// [`ReadError::DamagedStore`], [`ReadError::Failed`].
    pub fn server_totals(&self) -> Result<Totals, ReadError> {
        let record = self.get(tables::GLOBAL, KEY_TOTALS)?;
        let totals = record.as_deref().map(decode_totals).transpose();
        let what = "totals";
        let totals = totals.map_err(|_| ReadError::DamagedStore { what })?;
        Ok(totals.unwrap_or_default())
    }

    /// What is kept under a name.
    ///
    /// # Errors
    ///
    /// [`ReadError::Failed`].
    pub fn setting(&self, name: &str) -> Result<Option<Vec<u8>>, ReadError> {
        self.get(tables::SETTINGS, name.as_bytes())
    }

    /// All that is kept under names that begin with `prefix`, by name.
    ///
    /// # Errors
    ///
    /// [`ReadError::Failed`].
    pub fn settings(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, ReadError> {
        let table = self.table(tables::SETTINGS)?;
        let range = table.range::<&[u8]>(prefix.as_bytes()..);
        let mut found = Vec::new();
        for entry in range.map_err(|error| self.failed(error))? {
            let (name, value) = entry.map_err(|error| self.failed(error))?;
            if !name.value().starts_with(prefix.as_bytes()) {
                break;
            }
            let name = String::from_utf8_lossy(name.value()).into_owned();
            found.push((name, value.value().to_vec()));
        }
        Ok(found)
    }

    /// What is intended with a torrent's files.
    ///
    /// # Errors
    ///
    /// [`ReadError::Failed`].
    pub fn intent(
        &self,
        intent: Intent,
        torrent: &InfoHashV1,
    ) -> Result<Option<Vec<u8>>, ReadError> {
        self.get(tables::INTENTS, &intent::key(intent, torrent))
    }

    /// What of a kind is intended with at most `max` torrents' files (and [`limits::PAGE_MAX`])
    /// behind `after`, in the order of their info-hashes; the last one's is the next page's
    /// `after`. An empty page is the end.
    ///
    /// # Errors
    ///
    /// [`ReadError::Failed`].
    pub fn intents(
        &self,
        intent: Intent,
        after: Option<InfoHashV1>,
        max: usize,
    ) -> Result<Vec<(InfoHashV1, Vec<u8>)>, ReadError> {
        let mut page = Vec::new();
        self.each_intent(intent, after, max, |torrent, value| {
            page.push((torrent, value.to_vec()));
        })?;
        Ok(page)
    }

    fn each_intent(
        &self,
        intent: Intent,
        after: Option<InfoHashV1>,
        max: usize,
        mut tell: impl FnMut(InfoHashV1, &[u8]),
    ) -> Result<(), ReadError> {
        let table = self.table(tables::INTENTS)?;
        let (first, last) = intent::keys(intent).into_inner();
        let after = after.map(|after| intent::key(intent, &after));
        let start = match &after {
            Some(after) => Bound::Excluded(after.as_slice()),
            None => Bound::Included(first.as_slice()),
        };
        let range = table.range::<&[u8]>((start, Bound::Included(last.as_slice())));
        let range = range.map_err(|error| self.failed(error))?;
        for entry in range.take(max.min(limits::PAGE_MAX)) {
            let (key, value) = entry.map_err(|error| self.failed(error))?;
            if let Some((_, torrent)) = intent::key_parts(key.value()) {
                tell(torrent, value.value());
            }
        }
        Ok(())
    }

    /// The torrents of [`View::intents`], without what is intended: that may be large.
    ///
    /// # Errors
    ///
    /// [`ReadError::Failed`].
    pub fn intending(
        &self,
        intent: Intent,
        after: Option<InfoHashV1>,
        max: usize,
    ) -> Result<Vec<InfoHashV1>, ReadError> {
        let mut page = Vec::new();
        self.each_intent(intent, after, max, |torrent, _| page.push(torrent))?;
        Ok(page)
    }

    /// What tells this store from all others, also from one that was begun anew in its place; a
    /// restored backup is the store that it was made of.
    ///
    /// # Errors
    ///
    /// [`ReadError::DamagedStore`], [`ReadError::Failed`].
    pub fn uuid(&self) -> Result<[u8; 16], ReadError> {
        Ok(self.identity()?.uuid)
    }

    pub(crate) fn identity(&self) -> Result<Identity, ReadError> {
        let table = self.table(tables::GLOBAL)?;
        let found = tables::identity(&table).map_err(|error| self.failed(error))?;
        let what = "version and name";
        found.ok_or(ReadError::DamagedStore { what })
    }

    pub(crate) fn table(
        &self,
        definition: Definition,
    ) -> Result<ReadOnlyTable<&'static [u8], &'static [u8]>, ReadError> {
        let table = self.transaction.open_table(definition);
        table.map_err(|error| self.failed(error))
    }

    fn get(&self, definition: Definition, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        let table = self.table(definition)?;
        let value = table.get(key).map_err(|error| self.failed(error))?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    pub(crate) fn failed(&self, error: impl Into<redb::Error>) -> ReadError {
        let error = error.into();
        ReadError::Failed(Arc::new(Failure {
            path: self.path.clone(),
            disk_full: crate::error::is_disk_full(&error),
            text: error.to_string(),
        }))
    }
}

fn damaged(torrent: &InfoHashV1, error: DecodeError) -> ReadError {
    let info_hash = *torrent;
    ReadError::Damaged { info_hash, error }
}
