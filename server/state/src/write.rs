//! What can be written, and how it goes into the tables. Each write is refused whole or done whole,
//! and a refusal leaves the others of its transaction alone: everything that can be refused is
//! found out before the first insert.

use crate::encode::{
    decode_details, decode_summary, encode_details, encode_stamp, encode_summary, encode_totals,
    encode_verified,
};
use crate::error::WriteError;
use crate::intent::{self, Intent};
use crate::limits;
use crate::queue::{self, Place};
use crate::record::{Details, NewTorrent, Summary, Totals, Verified};
use crate::tables::{KEY_TOTALS, Tables, stamp_key};
use engine::layout::FileStamp;
use proto::ids::InfoHashV1;
use redb::{ReadableTable, ReadableTableMetadata};
use std::collections::BTreeMap;

pub(crate) type Refusable<T> = Result<Result<T, WriteError>, redb::Error>;
type Change<T> = Box<dyn FnOnce(&mut T) + Send>;

/// A change of the store. It is durable when it is acknowledged.
pub enum Write {
    /// Adds a torrent with all that belongs to it.
    Add(InfoHashV1, Box<NewTorrent>),
    /// Changes parts of a torrent.
    Update(InfoHashV1, Box<Update>),
    /// Removes a torrent and all that belongs to it, but for an intent to delete its files.
    Remove(InfoHashV1),
    /// Moves a torrent in the queue, into it or out of it.
    Queue(InfoHashV1, Place),
    /// Keeps a value under a name, or removes it: what the server has to remember beside its
    /// torrents, such as its categories.
    Setting(String, Option<Vec<u8>>),
    /// Keeps what is intended with a torrent's files, or that it is not any more. That of a torrent
    /// that is not there is refused where the torrent is needed ([`Intent`]).
    Intent(Intent, InfoHashV1, Option<Vec<u8>>),
    /// Replaces the totals of the server.
    ServerTotals(Totals),
}

impl Write {
    /// About how much memory it holds, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let metainfo = |metainfo: &Option<Vec<u8>>| metainfo.as_ref().map_or(0, Vec::len);
        let verified = |verified: &Verified| match verified {
            Verified::Pieces(bits) => bits.len(),
            _ => 0,
        };
        let stamps = |count: usize| count.saturating_mul(size_of::<(u32, Option<FileStamp>)>());
        let details = |details: &Details| {
            let renames = details
                .renames
                .values()
                .map(|path| 64 + path.as_os_str().len());
            details.priorities.len() + renames.sum::<usize>()
        };
        let parts = match self {
            Write::Add(_, torrent) => [
                metainfo(&torrent.metainfo),
                verified(&torrent.verified),
                stamps(torrent.stamps.len()) + details(&torrent.details),
            ],
            Write::Update(_, update) => [
                metainfo(&update.metainfo),
                update.verified.as_ref().map_or(0, verified),
                stamps(update.stamps.len()),
            ],
            Write::Setting(name, value) => [name.len(), metainfo(value), 0],
            Write::Intent(_, _, value) => [0, metainfo(value), 0],
            Write::Remove(_) | Write::Queue(..) | Write::ServerTotals(_) => [0; 3],
        };
        // What every write has beside that.
        parts
            .iter()
            .fold(512, |sum, part| sum.saturating_add(*part))
    }
}

/// A change of parts of a torrent, all in one transaction. What it does not name stays as it is.
#[derive(Default)]
pub struct Update {
    summary: Option<Change<Summary>>,
    details: Option<Change<Details>>,
    metainfo: Option<Vec<u8>>,
    verified: Option<Verified>,
    stamps_anew: bool,
    stamps: Vec<(u32, Option<FileStamp>)>,
    totals: Option<Totals>,
}

impl Update {
    /// A change of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes the summary by `change`, which is called with what is kept at that time: changes of
    /// different callers do not undo each other. It is called once, on the writer's thread, and
    /// must not block.
    #[must_use]
    pub fn summary(mut self, change: impl FnOnce(&mut Summary) + Send + 'static) -> Self {
        self.summary = Some(Box::new(change));
        self
    }

    /// Changes the details in the same way.
    #[must_use]
    pub fn details(mut self, change: impl FnOnce(&mut Details) + Send + 'static) -> Self {
        self.details = Some(Box::new(change));
        self
    }

    /// Replaces the metainfo. Where the number of pieces changes with it, verified pieces that the
    /// update does not name are forgotten.
    #[must_use]
    pub fn metainfo(mut self, metainfo: Vec<u8>) -> Self {
        self.metainfo = Some(metainfo);
        self
    }

    /// Replaces the verified pieces. They must be on stable storage before.
    #[must_use]
    pub fn verified(mut self, verified: Verified) -> Self {
        self.verified = Some(verified);
        self
    }

    /// Replaces the stamps of these files, or forgets them; those of others stay.
    #[must_use]
    pub fn stamps(mut self, stamps: impl IntoIterator<Item = (u32, Option<FileStamp>)>) -> Self {
        self.stamps.extend(stamps);
        self
    }

    /// Replaces the stamps of all files.
    #[must_use]
    pub fn all_stamps(mut self, stamps: impl IntoIterator<Item = Option<FileStamp>>) -> Self {
        self.stamps_anew = true;
        self.stamps = (0..).zip(stamps).collect();
        self
    }

    /// Replaces the totals.
    #[must_use]
    pub fn totals(mut self, totals: Totals) -> Self {
        self.totals = Some(totals);
        self
    }
}

/// What a running torrent says again and again, and what may be lost since it was said last: see
/// [`crate::Handle::soon`]. What it does not name stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The verified pieces. They must be on stable storage before.
    pub verified: Option<Verified>,
    /// The stamps of files that have changed.
    pub stamps: BTreeMap<u32, Option<FileStamp>>,
    /// The totals.
    pub totals: Option<Totals>,
}

impl Progress {
    /// Takes over what `later` says.
    pub(crate) fn merge(&mut self, later: Progress) {
        self.verified = later.verified.or(self.verified.take());
        self.totals = later.totals.or(self.totals.take());
        self.stamps.extend(later.stamps);
    }

    /// About how much memory it holds, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let verified = match &self.verified {
            Some(Verified::Pieces(bits)) => bits.len(),
            _ => 0,
        };
        verified + self.stamps.len() * 2 * size_of::<FileStamp>() + 512
    }
}

impl From<Progress> for Update {
    fn from(progress: Progress) -> Update {
        Update {
            verified: progress.verified,
            stamps: progress.stamps.into_iter().collect(),
            totals: progress.totals,
            ..Update::default()
        }
    }
}

/// Does a write in the tables of a transaction.
pub(crate) fn apply(tables: &mut Tables<'_>, write: Write) -> Refusable<()> {
    match write {
        Write::Add(info_hash, torrent) => add(tables, info_hash, *torrent),
        Write::Update(info_hash, change) => update(tables, info_hash, *change),
        Write::Remove(info_hash) => remove(tables, info_hash),
        Write::Queue(info_hash, place) => {
            if tables.summaries.get(info_hash.0.as_slice())?.is_none() {
                return Ok(Err(WriteError::Unknown(info_hash)));
            }
            queue::move_to(tables, &info_hash, place)
        }
        Write::Setting(name, value) => set(tables, &name, value.as_deref()),
        Write::Intent(intent, info_hash, value) => {
            intent::set(tables, intent, info_hash, value.as_deref())
        }
        Write::ServerTotals(totals) => {
            let record = encode_totals(&totals);
            tables.global.insert(KEY_TOTALS, record.as_slice())?;
            Ok(Ok(()))
        }
    }
}

/// The parts of a torrent as they are to be kept: whole or not at all.
struct Parts {
    summary: Vec<u8>,
    details: Option<Vec<u8>>,
    verified: Option<Vec<u8>>,
}

fn parts(
    info_hash: InfoHashV1,
    summary: &Summary,
    details: &Details,
    verified: Verified,
) -> Result<Parts, WriteError> {
    let mismatch = |what| WriteError::Mismatch { info_hash, what };
    let verified = verified.normal(summary.pieces);
    let verified = verified.ok_or_else(|| mismatch("the verified pieces"))?;
    at_most(
        "files of a torrent",
        summary.files as usize,
        limits::FILES_MAX,
    )?;
    at_most(
        "files of a torrent",
        details.priorities.len(),
        limits::FILES_MAX,
    )?;
    let parts = Parts {
        summary: encode_summary(summary),
        details: encode_details(details),
        verified: encode_verified(&verified),
    };
    let details = parts.details.as_ref().map_or(0, Vec::len);
    let summary = parts.summary.len();
    at_most(
        "bytes of a torrent's summary",
        summary,
        limits::SUMMARY_BYTES_MAX,
    )?;
    at_most(
        "bytes of a torrent's details",
        details,
        limits::DETAILS_BYTES_MAX,
    )?;
    Ok(parts)
}

pub(crate) fn at_most(what: &'static str, found: usize, max: usize) -> Result<(), WriteError> {
    match found <= max {
        true => Ok(()),
        false => Err(WriteError::TooMuch {
            what,
            found: found as u64,
            max: max as u64,
        }),
    }
}

fn check_metainfo(metainfo: Option<&Vec<u8>>) -> Result<(), WriteError> {
    let bytes = metainfo.map_or(0, Vec::len);
    at_most("bytes of metainfo", bytes, limits::METAINFO_BYTES_MAX)
}

/// Refuses stamps of files that the torrent has not.
fn check_stamps(
    info_hash: InfoHashV1,
    stamps: &[(u32, Option<FileStamp>)],
    files: u32,
) -> Result<(), WriteError> {
    let what = "the stamps of files";
    match stamps.iter().all(|(file, _)| *file < files) {
        true => Ok(()),
        false => Err(WriteError::Mismatch { info_hash, what }),
    }
}

fn add(tables: &mut Tables<'_>, info_hash: InfoHashV1, torrent: NewTorrent) -> Refusable<()> {
    let key = info_hash.0.as_slice();
    if tables.summaries.get(key)?.is_some() {
        return Ok(Err(WriteError::Exists(info_hash)));
    }
    let stamps: Vec<_> = (0..).zip(torrent.stamps).collect();
    let parts = parts(
        info_hash,
        &torrent.summary,
        &torrent.details,
        torrent.verified,
    );
    let parts = parts.and_then(|parts| {
        check_metainfo(torrent.metainfo.as_ref())?;
        check_stamps(info_hash, &stamps, torrent.summary.files)?;
        Ok(parts)
    });
    let parts = match parts {
        Ok(parts) => parts,
        Err(refused) => return Ok(Err(refused)),
    };
    if let Err(refused) = queue::move_to(tables, &info_hash, torrent.place)? {
        return Ok(Err(refused));
    }
    tables.summaries.insert(key, parts.summary.as_slice())?;
    put(&mut tables.details, key, parts.details.as_deref())?;
    put(&mut tables.metainfo, key, torrent.metainfo.as_deref())?;
    put(&mut tables.verified, key, parts.verified.as_deref())?;
    put_stamps(tables, &info_hash, &stamps)?;
    put_totals(tables, &info_hash, &torrent.totals)?;
    Ok(Ok(()))
}

fn update(tables: &mut Tables<'_>, info_hash: InfoHashV1, change: Update) -> Refusable<()> {
    let key = info_hash.0.as_slice();
    let record = tables.summaries.get(key)?;
    let Some(record) = record.map(|record| record.value().to_vec()) else {
        return Ok(Err(WriteError::Unknown(info_hash)));
    };
    let details = match change.details.is_some() {
        true => tables.details.get(key)?.map(|kept| kept.value().to_vec()),
        false => None,
    };
    let changed = changed(info_hash, &record, details.as_deref(), change);
    let (parts, change, pieces_change) = match changed {
        Ok(changed) => changed,
        Err(refused) => return Ok(Err(refused)),
    };
    if parts.summary != record {
        tables.summaries.insert(key, parts.summary.as_slice())?;
    }
    if change.details_changed {
        put(&mut tables.details, key, parts.details.as_deref())?;
    }
    if change.metainfo.is_some() {
        put(&mut tables.metainfo, key, change.metainfo.as_deref())?;
    }
    if change.verified_given || pieces_change {
        put(&mut tables.verified, key, parts.verified.as_deref())?;
    }
    if change.stamps_anew {
        remove_stamps(tables, &info_hash)?;
    }
    put_stamps(tables, &info_hash, &change.stamps)?;
    if let Some(totals) = change.totals {
        put_totals(tables, &info_hash, &totals)?;
    }
    Ok(Ok(()))
}

/// What is left of an update when its functions have been called.
struct Rest {
    details_changed: bool,
    metainfo: Option<Vec<u8>>,
    verified_given: bool,
    stamps_anew: bool,
    stamps: Vec<(u32, Option<FileStamp>)>,
    totals: Option<Totals>,
}

/// Calls an update's functions and checks what comes of it; also says whether the number of pieces
/// is another.
fn changed(
    info_hash: InfoHashV1,
    summary: &[u8],
    details: Option<&[u8]>,
    change: Update,
) -> Result<(Parts, Rest, bool), WriteError> {
    let damaged = |error| WriteError::Damaged { info_hash, error };
    let mut summary = decode_summary(summary).map_err(damaged)?;
    let pieces = summary.pieces;
    if let Some(change) = change.summary {
        change(&mut summary);
    }
    let details_changed = change.details.is_some();
    let details = details.map(decode_details).transpose().map_err(damaged)?;
    let mut details = details.unwrap_or_default();
    if let Some(change) = change.details {
        change(&mut details);
    }
    let verified_given = change.verified.is_some();
    let verified = change.verified.unwrap_or_default();
    let parts = parts(info_hash, &summary, &details, verified)?;
    check_metainfo(change.metainfo.as_ref())?;
    check_stamps(info_hash, &change.stamps, summary.files)?;
    let rest = Rest {
        details_changed,
        metainfo: change.metainfo,
        verified_given,
        stamps_anew: change.stamps_anew,
        stamps: change.stamps,
        totals: change.totals,
    };
    Ok((parts, rest, summary.pieces != pieces))
}

fn remove(tables: &mut Tables<'_>, info_hash: InfoHashV1) -> Refusable<()> {
    let key = info_hash.0.as_slice();
    if tables.summaries.remove(key)?.is_none() {
        return Ok(Err(WriteError::Unknown(info_hash)));
    }
    tables.details.remove(key)?;
    tables.metainfo.remove(key)?;
    tables.verified.remove(key)?;
    tables.totals.remove(key)?;
    remove_stamps(tables, &info_hash)?;
    intent::remove_with(tables, &info_hash)?;
    queue::take_out(tables, &info_hash)?;
    Ok(Ok(()))
}

fn set(tables: &mut Tables<'_>, name: &str, value: Option<&[u8]>) -> Refusable<()> {
    let key = name.as_bytes();
    let bytes = value.map_or(0, <[u8]>::len);
    let fits = at_most(
        "bytes of a setting's name",
        key.len(),
        limits::SETTING_NAME_BYTES_MAX,
    );
    let fits = fits.and_then(|()| at_most("bytes of a setting", bytes, limits::SETTING_BYTES_MAX));
    if let Err(refused) = fits {
        return Ok(Err(refused));
    }
    let count = tables.settings.len()?;
    if value.is_some() && count >= limits::SETTINGS_MAX && tables.settings.get(key)?.is_none() {
        return Ok(Err(WriteError::TooMuch {
            what: "settings",
            found: count + 1,
            max: limits::SETTINGS_MAX,
        }));
    }
    put(&mut tables.settings, key, value)?;
    Ok(Ok(()))
}

/// Keeps a value, or none.
pub(crate) fn put(
    table: &mut crate::tables::Bytes<'_>,
    key: &[u8],
    value: Option<&[u8]>,
) -> Result<(), redb::Error> {
    match value {
        Some(value) => table.insert(key, value)?,
        None => table.remove(key)?,
    };
    Ok(())
}

fn put_totals(
    tables: &mut Tables<'_>,
    info_hash: &InfoHashV1,
    totals: &Totals,
) -> Result<(), redb::Error> {
    let record = (*totals != Totals::default()).then(|| encode_totals(totals));
    put(&mut tables.totals, &info_hash.0, record.as_deref())
}

fn put_stamps(
    tables: &mut Tables<'_>,
    info_hash: &InfoHashV1,
    stamps: &[(u32, Option<FileStamp>)],
) -> Result<(), redb::Error> {
    for (file, stamp) in stamps {
        let key = stamp_key(info_hash, *file);
        let record = stamp.as_ref().map(encode_stamp);
        put(&mut tables.stamps, &key, record.as_deref())?;
    }
    Ok(())
}

fn remove_stamps(tables: &mut Tables<'_>, info_hash: &InfoHashV1) -> Result<(), redb::Error> {
    let (first, last) = (stamp_key(info_hash, 0), stamp_key(info_hash, u32::MAX));
    let range = first.as_slice()..=last.as_slice();
    tables.stamps.retain_in::<&[u8], _>(range, |_, _| false)?;
    Ok(())
}
