//! The check of a store: every checksum of the file, every record, and whether they belong
//! together.

use crate::backup::lock_existing;
use crate::encode::{decode_details, decode_stamp, decode_summary, decode_totals, decode_verified};
use crate::error::{OpenError, ReadError};
use crate::field::DecodeError;
use crate::file::{self, FileMedium, Open, STORE_FILE};
use crate::intent;
use crate::limits::{self, PROBLEMS_MAX};
use crate::panics::caught;
use crate::record::Summary;
use crate::tables::{self, info_hash, stamp_key_parts};
use crate::view::View;
use proto::bencode::Limits;
use proto::ids::InfoHashV1;
use proto::metainfo::Metainfo;
use redb::ReadableDatabase;
use std::collections::BTreeMap;
use std::path::Path;

/// What a check has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many torrents there are.
    pub torrents: u64,
    /// The schema of the file.
    pub schema: u64,
    /// What tells this store from all others.
    pub uuid: [u8; 16],
    /// The length of the file.
    pub bytes: u64,
    /// Whether the file has been put in order, such as after a crash.
    pub repaired: bool,
    /// What is wrong, the first [`PROBLEMS_MAX`] of it.
    pub problems: Vec<Problem>,
    /// How much is wrong.
    pub problems_count: u64,
}

/// One thing that is wrong with what a store has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The torrent, if it is one's.
    pub info_hash: Option<InfoHashV1>,
    /// What is wrong.
    pub text: String,
}

/// Checks the store of a directory that no server uses. It reads all of it.
///
/// # Errors
///
/// [`OpenError::Damaged`] where a checksum or the structure is wrong, and the others.
pub fn check(directory: &Path) -> Result<Report, OpenError> {
    let path = directory.join(STORE_FILE);
    let _lock = lock_existing(directory, &path)?;
    let open = file::open(&FileMedium(path.clone()), limits::CACHE_BYTES, false)?;
    check_open(open, &path)
}

/// Checks an open store and closes it. To one that is damaged nothing is written.
pub(crate) fn check_open(mut open: Open, path: &Path) -> Result<Report, OpenError> {
    let damaged = |cause: String| OpenError::Damaged {
        path: path.to_owned(),
        cause,
    };
    let look = || -> Result<Report, OpenError> {
        let clean = open.database.check_integrity();
        let clean = clean.map_err(|error| damaged(error.to_string()))?;
        let transaction = open.database.begin_read();
        let transaction = transaction.map_err(|error| damaged(error.to_string()))?;
        let view = View::new(transaction, path.to_owned());
        let mut check = Check {
            view: &view,
            pieces_and_files: BTreeMap::new(),
            report: Report {
                schema: open.identity.schema,
                uuid: open.identity.uuid,
                repaired: open.repaired || !clean,
                ..Report::default()
            },
        };
        check.run().map_err(|error| damaged(error.to_string()))?;
        let mut report = check.report;
        report.bytes = std::fs::metadata(path).map_or(0, |file| file.len());
        Ok(report)
    };
    let looked = caught(look).unwrap_or_else(|panic| Err(damaged(panic)));
    match looked.is_ok() {
        true => open.close(),
        false => open.give_up(),
    }
    looked
}

struct Check<'a> {
    view: &'a View,
    /// Of each torrent, how many pieces and files it has; none if its summary is damaged.
    pieces_and_files: BTreeMap<InfoHashV1, Option<(u32, u32)>>,
    report: Report,
}

impl Check<'_> {
    fn run(&mut self) -> Result<(), ReadError> {
        self.summaries()?;
        self.belongings()?;
        self.stamps()?;
        self.queue()?;
        // A copy of an older store has none of them yet.
        if self.report.schema >= 2 {
            self.intents()?;
        }
        if let Err(error @ ReadError::DamagedStore { .. }) = self.view.server_totals() {
            self.problem(None, error.to_string());
        }
        Ok(())
    }

    fn problem(&mut self, info_hash: Option<InfoHashV1>, text: impl Into<String>) {
        self.report.problems_count += 1;
        if self.report.problems.len() < PROBLEMS_MAX {
            let text = text.into();
            self.report.problems.push(Problem { info_hash, text });
        }
    }

    fn summaries(&mut self) -> Result<(), ReadError> {
        let view = self.view;
        let table = view.table(tables::SUMMARIES)?;
        let metainfo = view.table(tables::METAINFO)?;
        for entry in table
            .range::<&[u8]>(..)
            .map_err(|error| view.failed(error))?
        {
            let (key, record) = entry.map_err(|error| view.failed(error))?;
            let Some(torrent) = info_hash(key.value()) else {
                self.problem(None, "a summary has a key that is no info-hash");
                continue;
            };
            self.report.torrents += 1;
            let summary = decode_summary(record.value());
            let numbers = summary.as_ref().ok();
            let numbers = numbers.map(|summary| (summary.pieces, summary.files));
            self.pieces_and_files.insert(torrent, numbers);
            let found = metainfo.get(key.value());
            let found = found.map_err(|error| view.failed(error))?;
            match summary {
                Err(error) => self.problem(Some(torrent), format!("its summary: {error}")),
                Ok(summary) => {
                    let wrong = match found {
                        Some(bytes) => metainfo_wrong(&torrent, bytes.value()),
                        None => missing_wrong(&summary),
                    };
                    if let Some(wrong) = wrong {
                        self.problem(Some(torrent), wrong);
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether what belongs to a torrent can be read, and whether there is such a torrent.
    fn belongings(&mut self) -> Result<(), ReadError> {
        type Decodes = fn(&[u8], u32) -> Result<(), DecodeError>;
        let tables: [(_, &str, Decodes); 4] = [
            (tables::DETAILS, "details", |record, _| {
                decode_details(record).map(drop)
            }),
            (tables::TOTALS, "totals", |record, _| {
                decode_totals(record).map(drop)
            }),
            (tables::VERIFIED, "verified pieces", |record, pieces| {
                decode_verified(record, pieces).map(drop)
            }),
            (tables::METAINFO, "metainfo", |_, _| Ok(())),
        ];
        let view = self.view;
        for (definition, what, decodes) in tables {
            let table = view.table(definition)?;
            for entry in table
                .range::<&[u8]>(..)
                .map_err(|error| view.failed(error))?
            {
                let (key, record) = entry.map_err(|error| view.failed(error))?;
                let torrent = info_hash(key.value());
                match torrent.and_then(|torrent| self.pieces_and_files.get(&torrent)) {
                    None => self.problem(torrent, format!("{what} of a torrent that is not there")),
                    Some(None) => {}
                    Some(Some((pieces, _))) => {
                        if let Err(error) = decodes(record.value(), *pieces) {
                            self.problem(torrent, format!("its {what}: {error}"));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn stamps(&mut self) -> Result<(), ReadError> {
        let view = self.view;
        let table = view.table(tables::STAMPS)?;
        for entry in table
            .range::<&[u8]>(..)
            .map_err(|error| view.failed(error))?
        {
            let (key, record) = entry.map_err(|error| view.failed(error))?;
            let Some((torrent, file)) = stamp_key_parts(key.value()) else {
                self.problem(None, "a file's stamp has a key that is none");
                continue;
            };
            let known = self.pieces_and_files.get(&torrent).copied();
            let wrong = match (known, decode_stamp(record.value())) {
                (None, _) => Some("a file's stamp of a torrent that is not there".to_owned()),
                (_, Err(error)) => Some(format!("the stamp of file {file}: {error}")),
                (Some(Some((_, files))), _) if file >= files => {
                    Some(format!("the stamp of file {file}, of {files}"))
                }
                _ => None,
            };
            if let Some(wrong) = wrong {
                self.problem(Some(torrent), wrong);
            }
        }
        Ok(())
    }

    /// Whether it is known what is intended, and with what.
    fn intents(&mut self) -> Result<(), ReadError> {
        let view = self.view;
        let table = view.table(tables::INTENTS)?;
        for entry in table
            .range::<&[u8]>(..)
            .map_err(|error| view.failed(error))?
        {
            let (key, _) = entry.map_err(|error| view.failed(error))?;
            let Some((intent, torrent)) = intent::key_parts(key.value()) else {
                self.problem(None, "an intent has a key that is none");
                continue;
            };
            if intent.needs_torrent() && !self.pieces_and_files.contains_key(&torrent) {
                let text = format!("an intent ({intent:?}) of a torrent that is not there");
                self.problem(Some(torrent), text);
            }
        }
        Ok(())
    }

    /// Both tables of the queue say the same of torrents that are there.
    fn queue(&mut self) -> Result<(), ReadError> {
        let view = self.view;
        let pairs = [
            (tables::QUEUE, tables::RANKS, false),
            (tables::RANKS, tables::QUEUE, true),
        ];
        for (here, there, by_torrent) in pairs {
            let (here, there) = (view.table(here)?, view.table(there)?);
            for entry in here
                .range::<&[u8]>(..)
                .map_err(|error| view.failed(error))?
            {
                let (key, value) = entry.map_err(|error| view.failed(error))?;
                let back = there.get(value.value());
                let back = back.map_err(|error| view.failed(error))?;
                let alike = back.is_some_and(|back| back.value() == key.value());
                let torrent = info_hash(if by_torrent {
                    key.value()
                } else {
                    value.value()
                });
                let known =
                    torrent.is_some_and(|torrent| self.pieces_and_files.contains_key(&torrent));
                if !alike || !known {
                    self.problem(torrent, "its place in the queue is not one");
                }
            }
        }
        Ok(())
    }
}

/// What is wrong with a torrent's metainfo, if anything is.
fn metainfo_wrong(torrent: &InfoHashV1, bytes: &[u8]) -> Option<String> {
    match Metainfo::parse_within(bytes, &Limits::METAINFO_OWN) {
        Err(error) => Some(format!("its metainfo: {error}")),
        // Torrents of version 2 alone go by the start of their hash.
        Ok(metainfo) => {
            let v1 = metainfo.info_hash_v1.is_some_and(|hash| hash == *torrent);
            let v2 = metainfo.info_hash_v2;
            let v2 = v2.is_some_and(|hash| hash.0.starts_with(&torrent.0));
            (!v1 && !v2).then(|| "its metainfo is another torrent's".to_owned())
        }
    }
}

/// What is wrong with a torrent that has no metainfo, if anything is.
fn missing_wrong(summary: &Summary) -> Option<String> {
    let none = summary.magnet.is_none();
    none.then(|| "it has neither metainfo nor a magnet link".to_owned())
}
