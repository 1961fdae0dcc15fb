//! Records to bytes and back. A field's number is never used again for anything else; see
//! [`crate::field`].

use crate::field::{DecodeError, FieldWriter, Fields, Items, put_bytes, put_number, text};
use crate::limits;
use crate::record::{
    Condition, Details, LastError, LimitAction, Summary, TorrentLimits, Totals, Verified,
};
use engine::layout::FileStamp;
use engine::picker::Priority;
use proto::ids::InfoHashV2;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The bits of a summary's flags.
const PRIVATE: u64 = 1;
const PAUSED: u64 = 1 << 1;
const SEED_MODE: u64 = 1 << 2;
const SEQUENTIAL: u64 = 1 << 3;
const SUPER_SEEDING: u64 = 1 << 4;
const COMPLETION_UNTOLD: u64 = 1 << 5;
const FLAGS: u64 = (1 << 6) - 1;

/// The first byte of verified pieces: all, or a bitfield follows. None have no record.
const ALL: u8 = 1;
const PIECES: u8 = 2;

/// A summary as it is kept.
pub fn encode_summary(summary: &Summary) -> Vec<u8> {
    let flag = |set: bool, bit: u64| if set { bit } else { 0 };
    let flags = flag(summary.private, PRIVATE)
        | flag(summary.paused, PAUSED)
        | flag(summary.seed_mode, SEED_MODE)
        | flag(summary.sequential, SEQUENTIAL)
        | flag(summary.super_seeding, SUPER_SEEDING)
        | flag(summary.completion_untold, COMPLETION_UNTOLD);
    let limits = &summary.limits;
    let error = summary.last_error.as_ref();
    let mut out = FieldWriter::new();
    out.bytes(1, summary.name.as_bytes());
    out.some_bytes(2, summary.info_hash_v2.as_ref().map(|hash| &hash.0[..]));
    out.some_bytes(3, summary.magnet.as_ref().map(String::as_bytes));
    out.number(4, flags);
    out.number(5, summary.total_bytes);
    out.number(6, summary.piece_bytes);
    out.number(7, summary.pieces);
    out.number(8, summary.files);
    out.bytes(9, path_bytes(&summary.save_path));
    out.some_bytes(10, summary.category.as_ref().map(String::as_bytes));
    out.bytes(11, &encode_texts(&summary.labels));
    out.number(12, summary.added_at_s);
    out.some_number(13, summary.completed_at_s);
    out.some_number(14, limits.upload_rate);
    out.some_number(15, limits.download_rate);
    out.some_number(16, limits.peers_max);
    out.some_number(17, limits.ratio_permille);
    out.some_number(18, limits.seeding_time_s);
    out.some_number(19, limits.at_limit.map(|action| action as u64));
    out.number(20, summary.condition as u64);
    out.some_number(21, error.map(|error| error.at_s));
    out.some_bytes(22, error.map(|error| error.text.as_bytes()));
    out.finish()
}

/// A summary that was kept.
///
/// # Errors
///
/// The record is none.
pub fn decode_summary(record: &[u8]) -> Result<Summary, DecodeError> {
    let fields = Fields::<22>::parse(record)?;
    let flags = fields.number(4)?;
    if flags & !FLAGS != 0 {
        return Err(DecodeError::Value(4));
    }
    let hash = fields.some_bytes(2)?.map(|bytes| {
        let bytes = bytes.try_into().map_err(|_| DecodeError::Value(2))?;
        Ok(InfoHashV2(bytes))
    });
    let last_error = match (fields.some_number(21)?, fields.some_text(22)?) {
        (Some(at_s), Some(text)) => Some(LastError { at_s, text }),
        (None, None) => None,
        _ => return Err(DecodeError::Value(22)),
    };
    Ok(Summary {
        name: fields.text(1)?,
        info_hash_v2: hash.transpose()?,
        magnet: fields.some_text(3)?,
        private: flags & PRIVATE != 0,
        total_bytes: fields.number(5)?,
        piece_bytes: fields.small(6)?,
        pieces: fields.small(7)?,
        files: fields.small(8)?,
        save_path: path(fields.bytes(9)?),
        category: fields.some_text(10)?,
        labels: decode_texts(11, fields.bytes(11)?)?,
        added_at_s: fields.number(12)?,
        completed_at_s: fields.some_number(13)?,
        paused: flags & PAUSED != 0,
        seed_mode: flags & SEED_MODE != 0,
        sequential: flags & SEQUENTIAL != 0,
        super_seeding: flags & SUPER_SEEDING != 0,
        completion_untold: flags & COMPLETION_UNTOLD != 0,
        limits: TorrentLimits {
            upload_rate: fields.some_number(14)?,
            download_rate: fields.some_number(15)?,
            peers_max: fields.some_number(16)?,
            ratio_permille: fields.some_number(17)?,
            seeding_time_s: fields.some_number(18)?,
            at_limit: fields.some_number(19)?.map(limit_action).transpose()?,
        },
        condition: condition(fields.number(20)?)?,
        last_error,
    })
}

fn limit_action(number: u64) -> Result<LimitAction, DecodeError> {
    use LimitAction::{Pause, Remove, RemoveWithData, SuperSeed};
    let all = [Pause, Remove, RemoveWithData, SuperSeed];
    let found = all.into_iter().find(|action| *action as u64 == number);
    found.ok_or(DecodeError::Value(19))
}

fn condition(number: u64) -> Result<Condition, DecodeError> {
    use Condition::{Failed, NeedsCheck, Offline, Ready};
    let all = [Ready, NeedsCheck, Offline, Failed];
    let found = all
        .into_iter()
        .find(|condition| *condition as u64 == number);
    found.ok_or(DecodeError::Value(20))
}

/// Details as they are kept; none if nothing differs from the metainfo.
pub fn encode_details(details: &Details) -> Option<Vec<u8>> {
    if *details == Details::default() {
        return None;
    }
    let mut priorities = Vec::new();
    for run in details.priorities.chunk_by(|one, next| one == next) {
        put_number(&mut priorities, run.len() as u64);
        let priority = run.first().copied().unwrap_or(Priority::NORMAL);
        put_number(&mut priorities, u64::from(priority.number()));
    }
    let mut renames = Vec::new();
    for (index, path) in &details.renames {
        put_number(&mut renames, u64::from(*index));
        put_bytes(&mut renames, path_bytes(path));
    }
    let trackers = details.trackers.as_ref().map(|tiers| {
        let mut bytes = Vec::new();
        for tier in tiers {
            put_bytes(&mut bytes, &encode_texts(tier));
        }
        bytes
    });
    let web_seeds = details.web_seeds.as_deref().map(encode_texts);
    let mut out = FieldWriter::new();
    out.bytes(1, &priorities);
    out.bytes(2, &renames);
    out.some_bytes(3, trackers.as_deref());
    out.some_bytes(4, web_seeds.as_deref());
    Some(out.finish())
}

/// Details that were kept.
///
/// # Errors
///
/// The record is none.
pub fn decode_details(record: &[u8]) -> Result<Details, DecodeError> {
    let fields = Fields::<4>::parse(record)?;
    let mut priorities = Vec::new();
    let mut items = Items(fields.bytes(1)?);
    while !items.is_empty() {
        let (run, number) = (items.number()?, items.number()?);
        let priority = u8::try_from(number).ok().and_then(Priority::new);
        let priority = priority.ok_or(DecodeError::Value(1))?;
        let length = usize::try_from(run).ok();
        let length = length.and_then(|run| priorities.len().checked_add(run));
        let length = length.filter(|length| run > 0 && *length <= limits::FILES_MAX);
        priorities.resize(length.ok_or(DecodeError::Value(1))?, priority);
    }
    let mut renames = BTreeMap::new();
    let mut items = Items(fields.bytes(2)?);
    while !items.is_empty() {
        let index = u32::try_from(items.number()?).map_err(|_| DecodeError::Value(2))?;
        renames.insert(index, path(items.bytes()?));
    }
    let trackers = fields.some_bytes(3)?.map(|bytes| {
        let (mut items, mut tiers) = (Items(bytes), Vec::new());
        while !items.is_empty() {
            tiers.push(decode_texts(3, items.bytes()?)?);
        }
        Ok(tiers)
    });
    let web_seeds = fields.some_bytes(4)?.map(|bytes| decode_texts(4, bytes));
    Ok(Details {
        priorities,
        renames,
        trackers: trackers.transpose()?,
        web_seeds: web_seeds.transpose()?,
    })
}

/// Totals as they are kept.
pub fn encode_totals(totals: &Totals) -> Vec<u8> {
    let mut out = FieldWriter::new();
    out.number(1, totals.uploaded_bytes);
    out.number(2, totals.downloaded_bytes);
    out.number(3, totals.wasted_bytes);
    out.number(4, totals.active_s);
    out.number(5, totals.seeding_s);
    out.number(6, totals.last_active_at_s);
    out.finish()
}

/// Totals that were kept.
///
/// # Errors
///
/// The record is none.
pub fn decode_totals(record: &[u8]) -> Result<Totals, DecodeError> {
    let fields = Fields::<6>::parse(record)?;
    Ok(Totals {
        uploaded_bytes: fields.number(1)?,
        downloaded_bytes: fields.number(2)?,
        wasted_bytes: fields.number(3)?,
        active_s: fields.number(4)?,
        seeding_s: fields.number(5)?,
        last_active_at_s: fields.number(6)?,
    })
}

/// A file's stamp as it is kept.
pub fn encode_stamp(stamp: &FileStamp) -> Vec<u8> {
    let mut out = FieldWriter::new();
    out.number(1, stamp.device);
    out.number(2, stamp.inode);
    out.number(3, stamp.size);
    out.signed(4, stamp.mtime_ns);
    out.signed(5, stamp.ctime_ns);
    out.finish()
}

/// A file's stamp that was kept.
///
/// # Errors
///
/// The record is none.
pub fn decode_stamp(record: &[u8]) -> Result<FileStamp, DecodeError> {
    let fields = Fields::<5>::parse(record)?;
    Ok(FileStamp {
        device: fields.number(1)?,
        inode: fields.number(2)?,
        size: fields.number(3)?,
        mtime_ns: fields.signed(4)?,
        ctime_ns: fields.signed(5)?,
    })
}

/// Verified pieces as they are kept; none if there are none.
pub fn encode_verified(verified: &Verified) -> Option<Vec<u8>> {
    match verified {
        Verified::None => None,
        Verified::All => Some(vec![ALL]),
        Verified::Pieces(bits) => {
            let mut bytes = Vec::with_capacity(1 + bits.len());
            bytes.push(PIECES);
            bytes.extend_from_slice(bits);
            Some(bytes)
        }
    }
}

/// Verified pieces that were kept, of a torrent of so many.
///
/// # Errors
///
/// The record is none, or of another number of pieces.
pub fn decode_verified(record: &[u8], pieces: u32) -> Result<Verified, DecodeError> {
    let verified = match record.split_first() {
        Some((&ALL, [])) => Verified::All,
        Some((&PIECES, bits)) => Verified::Pieces(bits.to_vec()),
        _ => return Err(DecodeError::Version),
    };
    verified.normal(pieces).ok_or(DecodeError::Value(PIECES))
}

fn encode_texts(texts: &[String]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for text in texts {
        put_bytes(&mut bytes, text.as_bytes());
    }
    bytes
}

fn decode_texts(field: u8, bytes: &[u8]) -> Result<Vec<String>, DecodeError> {
    let (mut items, mut texts) = (Items(bytes), Vec::new());
    while !items.is_empty() {
        texts.push(text(field, items.bytes()?)?);
    }
    Ok(texts)
}

fn path_bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

fn path(bytes: &[u8]) -> PathBuf {
    OsString::from_vec(bytes.to_vec()).into()
}

#[cfg(test)]
mod tests;
