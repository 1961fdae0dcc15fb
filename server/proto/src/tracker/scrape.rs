//! The replies to scrapes (BEP 48): read as a client, written as a tracker.

use std::collections::BTreeMap;

use super::reply::{Failure, ReplyError, clamped, document};
use crate::bencode::{Encoder, Value};
use crate::ids::InfoHashV1;
use crate::limits;

/// What a tracker knows about one torrent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct ScrapeFile {
    /// Seeds.
    pub complete: u32,
    /// Peers that are not seeds.
    pub incomplete: u32,
    /// How often the torrent was completed.
    pub downloaded: u32,
}

/// A tracker's reply to a scrape.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ScrapeReply {
    /// The tracker refuses.
    Failure(Failure),
    /// What the tracker knows, by torrent; at most [`limits::SCRAPE_HASHES_MAX`], those it does not
    /// know are absent.
    Files(BTreeMap<InfoHashV1, ScrapeFile>),
}

impl ScrapeReply {
    /// Reads the body of a tracker's reply, after decompression. Keys that are no info-hash are
    /// skipped.
    pub fn parse(body: &[u8]) -> Result<Self, ReplyError> {
        let document = document(body)?;
        let root = document.root();
        if let Some(failure) = Failure::find(root) {
            return Ok(ScrapeReply::Failure(failure));
        }
        let mut files = BTreeMap::new();
        let Some(value) = root.get(b"files") else {
            return Ok(ScrapeReply::Files(files));
        };
        let Some(dict) = value.dict() else {
            let (field, found) = ("files", value.kind());
            return Err(ReplyError::Field {
                field,
                found,
                due: "a dictionary by info-hash",
            });
        };
        for entry in dict.entries() {
            if files.len() == limits::SCRAPE_HASHES_MAX {
                break;
            }
            if let Ok(info_hash) = <[u8; 20]>::try_from(entry.key)
                && entry.value.dict().is_some()
            {
                let file = ScrapeFile::read(entry.value);
                files.entry(InfoHashV1(info_hash)).or_insert(file);
            }
        }
        Ok(ScrapeReply::Files(files))
    }

    /// The body of the reply, as a tracker sends it.
    pub fn encode(&self) -> Vec<u8> {
        let files = match self {
            ScrapeReply::Failure(failure) => return failure.encode(),
            ScrapeReply::Files(files) => files,
        };
        let mut encoder = Encoder::new();
        encoder.begin_dict();
        encoder.key(b"files").begin_dict();
        for (info_hash, file) in files {
            encoder.key(&info_hash.0).begin_dict();
            encoder.key(b"complete").integer(file.complete.into());
            encoder.key(b"downloaded").integer(file.downloaded.into());
            encoder.key(b"incomplete").integer(file.incomplete.into());
            encoder.end();
        }
        encoder.end();
        encoder.end();
        encoder.finish()
    }
}

impl ScrapeFile {
    fn read(value: Value<'_, '_>) -> Self {
        let number = |key: &[u8]| {
            value
                .get(key)
                .and_then(Value::as_unsigned)
                .map_or(0, clamped)
        };
        ScrapeFile {
            complete: number(b"complete"),
            incomplete: number(b"incomplete"),
            downloaded: number(b"downloaded"),
        }
    }
}
