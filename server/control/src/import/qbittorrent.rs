//! qBittorrent's `.fastresume` files: libtorrent's resume data (bencode) with qBittorrent's own
//! keys (`qBt-…`), as versions 4 and 5 write them, and the `file sizes` of libtorrent before 1.2.
//!
//! `save_path` is where the data are now; `qBt-savePath` is where the user wants them, empty where
//! the category decides.

use super::note::Note;
use super::resume::{
    DataPlace, Exact, Resume, ResumeError, Stamps, as_text, flag, list, number, path, root, signed,
    some_number, text, tiers, urls,
};
use crate::verify::PieceSet;
use engine::picker::Priority;
use proto::bencode::{Document, Limits, Value};
use proto::ids::{InfoHashV1, PieceIndex};
use proto::magnet::Magnet;
use proto::metainfo::Metainfo;
use state::LimitAction;
use std::path::PathBuf;

/// What qBittorrent can have at the end of an incomplete file's name.
const PARTIAL_SUFFIX: &str = ".!qB";
/// In `pieces`: the piece is there.
const PIECE_HAVE: u8 = 1;
/// In `pieces`: the piece was hashed, in seed mode.
const PIECE_HASHED: u8 = 2;

/// Reads the `.fastresume` file of a torrent.
///
/// # Errors
///
/// [`ResumeError`].
pub fn decode(bytes: &[u8], metainfo: Option<&Metainfo>) -> Result<Resume, ResumeError> {
    let document = Document::parse(bytes, &Limits::METAINFO_OWN)?;
    let root = root(&document)?;
    if let Some(metainfo) = metainfo
        && let (Some(kept), Some(hash)) = (info_hash(root), metainfo.info_hash_v1)
        && kept != hash
    {
        return Err(ResumeError::OtherTorrent);
    }
    let mut resume = Resume {
        name: text(root, b"qBt-name"),
        places: places(root),
        category: text(root, b"qBt-category"),
        added_at_s: some_number(root, b"added_time"),
        completed_at_s: some_number(root, b"completed_time"),
        // Paused and managed is what the client's own queue does.
        paused: flag(root, b"paused") && !flag(root, b"auto_managed"),
        sequential: flag(root, b"sequential_download"),
        super_seeding: flag(root, b"super_seeding"),
        seed_mode: flag(root, b"seed_mode"),
        partial_suffix: Some(PARTIAL_SUFFIX),
        ..Resume::default()
    };
    for label in list(root, b"qBt-tags").filter_map(as_text) {
        resume.add_label(&label);
    }
    limits(root, &mut resume);
    totals(root, &mut resume);
    notes(root, &mut resume);
    if let Some(trackers) = root.get(b"trackers").and_then(Value::list) {
        let (trackers, left_out) = tiers(trackers);
        resume.trackers = Some(trackers);
        resume.note(Note::UnusableTrackers, left_out);
    }
    resume.web_seeds = root.get(b"url-list").and_then(Value::list).map(urls);
    if let Some(metainfo) = metainfo {
        files(root, metainfo, &mut resume);
        resume.claimed = claimed(root, metainfo, resume.seed_mode);
    }
    Ok(resume)
}

/// The magnet link of a torrent whose metadata the client does not have yet.
pub fn magnet(bytes: &[u8]) -> Option<Magnet> {
    let document = Document::parse(bytes, &Limits::METAINFO_OWN).ok()?;
    let root = document.root();
    let trackers = root.get(b"trackers").and_then(Value::list);
    Some(Magnet {
        info_hash_v1: Some(info_hash(root)?),
        name: text(root, b"name"),
        trackers: trackers.map_or_else(Vec::new, |list| tiers(list).0.concat()),
        ..Magnet::default()
    })
}

/// The save paths of the categories in `categories.json`; none where it is not such a file.
pub fn categories(json: &[u8]) -> Vec<(String, PathBuf)> {
    let Ok(serde_json::Value::Object(categories)) = serde_json::from_slice(json) else {
        return Vec::new();
    };
    let path = |(name, keys): (String, serde_json::Value)| {
        let path = keys.get("save_path").or_else(|| keys.get("savePath"))?;
        Some((name, PathBuf::from(path.as_str()?)))
    };
    categories.into_iter().filter_map(path).collect()
}

fn info_hash(root: Value<'_, '_>) -> Option<InfoHashV1> {
    let hash = root.get(b"info-hash")?.as_bytes()?;
    let hash = InfoHashV1(hash.try_into().ok()?);
    (hash.0 != [0; 20]).then_some(hash)
}

fn places(root: Value<'_, '_>) -> Vec<DataPlace> {
    let now = path(root, b"save_path");
    let wanted = path(root, b"qBt-savePath").filter(|wanted| now.as_ref() != Some(wanted));
    let incomplete = now.is_some() && now == path(root, b"qBt-downloadPath");
    let now = now.map(|now| match incomplete {
        true => DataPlace::Incomplete(now),
        false => DataPlace::Save(now),
    });
    now.into_iter().chain(wanted.map(DataPlace::Save)).collect()
}

fn limits(root: Value<'_, '_>, resume: &mut Resume) {
    // 0 and -1 leave a rate to the limits of the whole client.
    resume.limits.upload_rate = some_number(root, b"upload_rate_limit");
    resume.limits.download_rate = some_number(root, b"download_rate_limit");
    resume.limits.ratio_permille = match signed(root, b"qBt-ratioLimit") {
        // No limit at all; -2000 and -2 leave it to the client's.
        Some(-1000 | -1) => Some(0),
        // At once, and 0 is no limit here.
        Some(0) => Some(1),
        ratio => ratio.and_then(|ratio| u64::try_from(ratio).ok()),
    };
    resume.limits.seeding_time_s = match signed(root, b"qBt-seedingTimeLimit") {
        Some(-1) => Some(0),
        Some(0) => Some(1),
        minutes => {
            let minutes = minutes.and_then(|minutes| u64::try_from(minutes).ok());
            minutes.map(|minutes| minutes.saturating_mul(60))
        }
    };
    let action = text(root, b"qBt-shareLimitAction");
    resume.limits.at_limit = match action.as_deref() {
        Some("Stop" | "Pause") => Some(LimitAction::Pause),
        Some("Remove") => Some(LimitAction::Remove),
        Some("RemoveWithContent") => Some(LimitAction::RemoveWithData),
        Some("EnableSuperSeeding") => Some(LimitAction::SuperSeed),
        other => {
            resume.note(
                Note::LimitAction,
                other.is_some_and(|name| name != "Default"),
            );
            None
        }
    };
}

fn totals(root: Value<'_, '_>, resume: &mut Resume) {
    let at = |key| number(root, key).unwrap_or(0);
    resume.totals.uploaded_bytes = at(b"total_uploaded");
    resume.totals.downloaded_bytes = at(b"total_downloaded");
    resume.totals.active_s = at(b"active_time");
    resume.totals.seeding_s = at(b"finished_time").max(at(b"seeding_time"));
    resume.totals.last_active_at_s = at(b"last_upload").max(at(b"last_download"));
}

fn notes(root: Value<'_, '_>, resume: &mut Resume) {
    let idle = signed(root, b"qBt-inactiveSeedingTimeLimit").is_some_and(|minutes| minutes >= 0);
    resume.note(Note::IdleLimit, idle);
    resume.note(
        Note::FirstLastPiece,
        flag(root, b"qBt-firstLastPiecePriority"),
    );
    let stops = text(root, b"qBt-stopCondition").is_some_and(|condition| condition != "None");
    resume.note(Note::StopCondition, stops);
    let off = [b"disable_dht", b"disable_lsd", b"disable_pex"];
    let off = off.iter().any(|key| flag(root, key.as_slice()));
    resume.note(Note::DiscoveryOff, off);
}

fn files(root: Value<'_, '_>, metainfo: &Metainfo, resume: &mut Resume) {
    for ((index, file), path) in (0..).zip(&metainfo.files).zip(list(root, b"mapped_files")) {
        let path = path.as_bytes().filter(|path| !path.is_empty() && !file.pad);
        if let Some(path) = path {
            resume.set_path(index, path, &file.path);
        }
    }
    let priorities = list(root, b"file_priority").take(metainfo.files.len());
    resume.priorities = priorities.map(priority).collect();
    let sizes = root.get(b"file sizes").and_then(Value::list);
    resume.stamps = match sizes {
        Some(sizes) => Stamps::Exact(sizes.take(metainfo.files.len()).map(exact).collect()),
        None => Stamps::WrittenAfter,
    };
}

/// qBittorrent has 0 for unwanted, 1 for normal, 6 for high, 7 for the highest.
fn priority(value: Value<'_, '_>) -> Priority {
    match value.as_integer() {
        Some(number) if number <= 0 => Priority::SKIP,
        Some(number) if number >= 7 => Priority::HIGHEST,
        Some(number @ 5..=6) => Priority::new(number as u8).unwrap_or_default(),
        _ => Priority::NORMAL,
    }
}

/// A pair of size and modification time.
fn exact(pair: Value<'_, '_>) -> Option<Exact> {
    let mut pair = pair.list()?;
    let size = pair.next()?.as_unsigned()?;
    let mtime_s = pair.next()?.as_integer()?;
    (mtime_s > 0).then_some(Exact {
        mtime_s,
        size: Some(size),
    })
}

/// A byte for each piece.
fn claimed(root: Value<'_, '_>, metainfo: &Metainfo, seed_mode: bool) -> Option<PieceSet> {
    let pieces = root.get(b"pieces")?.as_bytes()?;
    if pieces.len() != metainfo.piece_count as usize {
        return None;
    }
    let wanted = if seed_mode { PIECE_HASHED } else { PIECE_HAVE };
    let mut claimed = PieceSet::new(metainfo.piece_count);
    for (piece, flags) in (0..).map(PieceIndex).zip(pieces) {
        if flags & wanted != 0 {
            claimed.insert(piece);
        }
    }
    Some(claimed)
}
