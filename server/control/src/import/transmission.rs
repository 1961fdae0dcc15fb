//! Transmission's `.resume` files (bencode), as versions 2 to 4 write them, and what its folder has
//! in place of a `.torrent` file where only a magnet link is known.
//!
//! Up to version 3 `progress` says when pieces were hashed (`time-checked`), from 4 on which were
//! (`pieces`) and what the files' modification times were (`mtimes`).

use super::note::Note;
use super::resume::{
    DataPlace, Exact, Hashed, Resume, ResumeError, Stamps, as_text, flag, list, number, path, root,
    signed, some_number, text,
};
use crate::verify::PieceSet;
use engine::picker::Priority;
use proto::bencode::{Document, Limits, Value};
use proto::ids::{InfoHashV1, PieceIndex};
use proto::magnet::Magnet;
use proto::metainfo::Metainfo;

/// What Transmission can have at the end of an incomplete file's name.
const PARTIAL_SUFFIX: &str = ".part";
/// The block of which `blocks` has a bit, in bytes, at most.
const BLOCK_BYTES: u32 = 16 << 10;
/// The peers of a torrent that has no number of its own, if the settings do not say.
pub const PEERS_MAX_DEFAULT: u64 = 50;
/// Modes of a limit: of the torrent's own, and none.
const MODE_OWN: u64 = 1;
const MODE_NONE: u64 = 2;

/// Reads the `.resume` file of a torrent. `peers_max` is what every torrent has that was given no
/// number of its own.
///
/// # Errors
///
/// [`ResumeError`].
pub fn decode(
    bytes: &[u8],
    metainfo: Option<&Metainfo>,
    peers_max: u64,
) -> Result<Resume, ResumeError> {
    let document = Document::parse(bytes, &Limits::METAINFO_OWN)?;
    let root = root(&document)?;
    let mut resume = Resume {
        name: text(root, b"name"),
        added_at_s: some_number(root, b"added-date"),
        completed_at_s: some_number(root, b"done-date"),
        paused: flag(root, b"paused"),
        sequential: flag(root, b"sequentialDownload") || flag(root, b"sequential-download"),
        partial_suffix: Some(PARTIAL_SUFFIX),
        ..Resume::default()
    };
    for label in list(root, b"labels").filter_map(as_text) {
        resume.add_label(&label);
    }
    resume
        .places
        .extend(path(root, b"destination").map(DataPlace::Save));
    resume
        .places
        .extend(path(root, b"incomplete-dir").map(DataPlace::Incomplete));
    limits(root, peers_max, &mut resume);
    totals(root, &mut resume);
    notes(root, &mut resume);
    if let Some(metainfo) = metainfo {
        files(root, metainfo, &mut resume);
        if let Some(progress) = root.get(b"progress") {
            resume.claimed = claimed(progress, metainfo, &mut resume.uncertain);
            resume.stamps = stamps(progress, metainfo);
        }
    }
    Ok(resume)
}

/// The magnet link in a `.torrent` file that has no `info`, as versions up to 3 write it.
pub fn magnet(torrent: &[u8]) -> Option<Magnet> {
    let document = Document::parse(torrent, &Limits::METAINFO_OWN).ok()?;
    let info = document.root().get(b"magnet-info")?;
    let hash = info.get(b"info_hash")?.as_bytes()?;
    Some(Magnet {
        info_hash_v1: Some(InfoHashV1(hash.try_into().ok()?)),
        name: text(info, b"display-name"),
        ..Magnet::default()
    })
}

/// How many peers a torrent has in the settings, `settings.json`.
pub fn peers_max(settings: &[u8]) -> u64 {
    let settings: Option<serde_json::Value> = serde_json::from_slice(settings).ok();
    let peers = settings.as_ref().and_then(|settings| {
        let names = ["peer-limit-per-torrent", "peer_limit_per_torrent"];
        names.iter().find_map(|name| settings.get(name)?.as_u64())
    });
    peers.unwrap_or(PEERS_MAX_DEFAULT)
}

fn limits(root: Value<'_, '_>, peers_max: u64, resume: &mut Resume) {
    let rate = |key: &[u8]| {
        let limit = root
            .get(key)
            .filter(|limit| flag(*limit, b"use-speed-limit"))?;
        let old = || Some(number(limit, b"speed")?.saturating_mul(1000));
        number(limit, b"speed-Bps").or_else(old)
    };
    // A rate of 0 stops a torrent there, and is none here.
    resume.limits.upload_rate = rate(b"speed-limit-up").map(|rate| rate.max(1));
    resume.limits.download_rate = rate(b"speed-limit-down").map(|rate| rate.max(1));
    let peers = some_number(root, b"max-peers");
    resume.limits.peers_max = peers.filter(|&peers| peers != peers_max);
    if let Some(ratio) = root.get(b"ratio-limit") {
        resume.limits.ratio_permille = match number(ratio, b"ratio-mode") {
            Some(MODE_OWN) => permille(ratio.get(b"ratio-limit")).map(|ratio| ratio.max(1)),
            Some(MODE_NONE) => Some(0),
            _ => None,
        };
    }
}

/// A ratio, which is written as a text such as `2.500000`, in thousandths.
fn permille(ratio: Option<Value<'_, '_>>) -> Option<u64> {
    let ratio: f64 = match ratio?.as_unsigned() {
        Some(whole) => whole as f64,
        None => ratio?.as_str()?.trim().parse().ok()?,
    };
    // What is negative or no number becomes 0, what is too large the largest number.
    ratio.is_finite().then_some((ratio * 1000.0).round() as u64)
}

fn totals(root: Value<'_, '_>, resume: &mut Resume) {
    let at = |key| number(root, key).unwrap_or(0);
    let (seeding_s, loading_s) = (at(b"seeding-time-seconds"), at(b"downloading-time-seconds"));
    resume.totals.uploaded_bytes = at(b"uploaded");
    resume.totals.downloaded_bytes = at(b"downloaded");
    resume.totals.wasted_bytes = at(b"corrupt");
    resume.totals.seeding_s = seeding_s;
    resume.totals.active_s = seeding_s.saturating_add(loading_s);
    resume.totals.last_active_at_s = at(b"activity-date");
}

fn notes(root: Value<'_, '_>, resume: &mut Resume) {
    let idle = root
        .get(b"idle-limit")
        .and_then(|limit| number(limit, b"idle-mode"));
    resume.note(Note::IdleLimit, idle.is_some_and(|mode| mode != 0));
    let free = |key: &[u8]| {
        let limit = root.get(key);
        limit.and_then(|limit| signed(limit, b"use-global-speed-limit")) == Some(0)
    };
    let free = free(b"speed-limit-up") || free(b"speed-limit-down");
    resume.note(Note::IgnoresGlobalLimits, free);
    resume.note(Note::TorrentPriority, flag(root, b"bandwidth-priority"));
    resume.note(Note::BandwidthGroup, text(root, b"group").is_some());
}

fn files(root: Value<'_, '_>, metainfo: &Metainfo, resume: &mut Resume) {
    for ((index, file), path) in (0..).zip(&metainfo.files).zip(list(root, b"files")) {
        let path = path.as_bytes().filter(|path| !path.is_empty() && !file.pad);
        if let Some(path) = path {
            resume.set_path(index, path, &file.path);
        }
    }
    let count = metainfo.files.len();
    let unwanted = list(root, b"dnd").map(|dnd| dnd.as_integer().is_some_and(|dnd| dnd != 0));
    let mut unwanted = unwanted.take(count);
    let mut levels = list(root, b"priority").map(|level| level.as_integer().unwrap_or(0));
    let priority = |_| {
        let (unwanted, level) = (unwanted.next(), levels.next());
        (unwanted.is_some() || level.is_some()).then(|| match (unwanted, level) {
            (Some(true), _) => Priority::SKIP,
            (_, Some(..=-1)) => Priority::new(2).unwrap_or_default(),
            (_, Some(1..)) => Priority::new(6).unwrap_or_default(),
            _ => Priority::NORMAL,
        })
    };
    resume.priorities = (0..count).map_while(priority).collect();
}

/// The pieces that are there and, as far as that is said, were hashed. Whether there are more is
/// left in `uncertain`.
fn claimed(progress: Value<'_, '_>, metainfo: &Metainfo, uncertain: &mut bool) -> Option<PieceSet> {
    let pieces = metainfo.piece_count;
    let all = || {
        let mut all = PieceSet::new(pieces);
        (0..pieces).for_each(|piece| all.insert(PieceIndex(piece)));
        all
    };
    let have_all = progress.get(b"have").and_then(Value::as_bytes) == Some(b"all");
    let mut claimed = match progress.get(b"blocks").and_then(Value::as_bytes) {
        _ if have_all => all(),
        Some(b"all") => all(),
        Some(b"none") => PieceSet::new(pieces),
        Some(bits) => pieces_of_blocks(bits, metainfo, progress.get(b"time-checked").is_some())?,
        None => return None,
    };
    let hashed = match progress.get(b"pieces").and_then(Value::as_bytes) {
        None | Some(b"all") => return Some(claimed),
        Some(b"none") => PieceSet::new(pieces),
        Some(bits) => PieceSet::from_bitfield(bits, pieces)?,
    };
    let there = claimed.len();
    let unhashed = claimed.iter().filter(|&piece| !hashed.contains(piece));
    for piece in unhashed.collect::<Vec<_>>() {
        claimed.remove(piece);
    }
    *uncertain = claimed.len() < there;
    Some(claimed)
}

/// The pieces whose blocks are all there. Up to version 3 a block does not cross pieces: it is the
/// piece's length halved until it is small enough.
fn pieces_of_blocks(bits: &[u8], metainfo: &Metainfo, halved: bool) -> Option<PieceSet> {
    let mut block = BLOCK_BYTES;
    if halved {
        block = metainfo.piece_length;
        while block > BLOCK_BYTES {
            block /= 2;
        }
        if block == 0 || !metainfo.piece_length.is_multiple_of(block) {
            return None;
        }
    }
    let block = u64::from(block);
    let blocks = metainfo.total_length.div_ceil(block);
    if bits.len() as u64 != blocks.div_ceil(8) {
        return None;
    }
    let has = |block: u64| {
        // Below the number of blocks, which there are bits for.
        let byte = bits.get((block / 8) as usize).copied().unwrap_or(0);
        byte & (0x80 >> (block % 8)) != 0
    };
    let mut claimed = PieceSet::new(metainfo.piece_count);
    for piece in (0..metainfo.piece_count).map(PieceIndex) {
        let start = u64::from(piece.0) * u64::from(metainfo.piece_length);
        let end = start + u64::from(metainfo.piece_size(piece)?);
        if (start / block..end.div_ceil(block)).all(has) {
            claimed.insert(piece);
        }
    }
    Some(claimed)
}

fn stamps(progress: Value<'_, '_>, metainfo: &Metainfo) -> Stamps {
    let count = metainfo.files.len();
    if let Some(mtimes) = progress.get(b"mtimes").and_then(Value::list) {
        let exact = |mtime: Value<'_, '_>| {
            let mtime_s = mtime.as_integer().filter(|&mtime| mtime > 0)?;
            let size = None;
            Some(Exact { mtime_s, size })
        };
        return Stamps::Exact(mtimes.take(count).map(exact).collect());
    }
    let Some(files) = progress.get(b"time-checked").and_then(Value::list) else {
        return Stamps::None;
    };
    Stamps::Hashed(files.take(count).map(hashed).collect())
}

/// A time for the whole file, or the oldest one and of each piece how much later it was hashed,
/// counted from one second before the oldest; 0 for never.
fn hashed(file: Value<'_, '_>) -> Hashed {
    if let Some(time) = file.as_integer() {
        return match time > 0 {
            true => Hashed::At(time),
            false => Hashed::Never,
        };
    }
    let mut times = file.list().into_iter().flatten().map(Value::as_integer);
    let Some(base) = times.next().flatten() else {
        return Hashed::Never;
    };
    let time = |later: Option<i64>| match later {
        Some(later) if later > 0 => base.saturating_add(later),
        _ => 0,
    };
    Hashed::Each(times.map(time).collect())
}
