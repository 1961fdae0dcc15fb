//! rTorrent's session folder: beside `HASH.torrent` lie `HASH.torrent.rtorrent`, what rTorrent and
//! ruTorrent keep of the torrent, and `HASH.torrent.libtorrent_resume`, the pieces that are there
//! and when its files last changed. Older versions put both into the `.torrent` file, under the
//! keys `rtorrent` and `libtorrent_resume`.

use super::note::Note;
use super::resume::{
    DataPlace, Exact, Resume, ResumeError, Stamps, as_text, flag, list, number, path,
    percent_decoded, root, signed, some_number, text,
};
use crate::verify::PieceSet;
use engine::picker::Priority;
use proto::bencode::{Document, Limits, Value};
use proto::ids::PieceIndex;
use proto::limits::TRACKERS_MAX;
use proto::metainfo::{Metainfo, usable_url};
use state::Totals;
use std::collections::HashSet;

/// rTorrent's priority of a torrent that has none of its own.
const PRIORITY_NORMAL: u64 = 2;
/// What rTorrent has among the trackers for the DHT.
const DHT_TRACKER: &str = "dht://";
/// rTorrent's priority of a file that is wanted before others.
const FILE_PRIORITY_HIGH: i64 = 2;

/// Reads what rTorrent (`session`) and its library (`resume`) keep of a torrent. Where there is no
/// `resume`, no piece is taken to be there.
///
/// # Errors
///
/// [`ResumeError`].
pub fn decode(
    session: &[u8],
    resume: Option<&[u8]>,
    metainfo: &Metainfo,
) -> Result<Resume, ResumeError> {
    let document = Document::parse(session, &Limits::METAINFO_OWN)?;
    let mut taken = session_keys(root(&document)?, metainfo);
    if let Some(bytes) = resume {
        let document = Document::parse(bytes, &Limits::METAINFO_OWN)?;
        resume_keys(root(&document)?, metainfo, &mut taken);
    }
    Ok(taken)
}

/// The same of a `.torrent` file that holds both; `None` if it does not.
pub fn decode_inside(torrent: &[u8], metainfo: &Metainfo) -> Option<Resume> {
    let document = Document::parse(torrent, &Limits::METAINFO_OWN).ok()?;
    let root = document.root();
    let session = root
        .get(b"rtorrent")
        .filter(|session| session.dict().is_some())?;
    let mut taken = session_keys(session, metainfo);
    if let Some(resume) = root.get(b"libtorrent_resume") {
        resume_keys(resume, metainfo, &mut taken);
    }
    Some(taken)
}

fn session_keys(session: Value<'_, '_>, metainfo: &Metainfo) -> Resume {
    let at = |key| number(session, key).unwrap_or(0);
    let started = some_number(session, b"timestamp.started");
    let mut taken = Resume {
        // 0 is stopped, 1 started; what is not said is not stopped.
        paused: number(session, b"state") == Some(0),
        added_at_s: custom(session, b"addtime").or(started),
        completed_at_s: some_number(session, b"timestamp.finished"),
        totals: Totals {
            uploaded_bytes: at(b"total_uploaded"),
            downloaded_bytes: at(b"total_downloaded"),
            ..Totals::default()
        },
        ..Resume::default()
    };
    if let Some(directory) = path(session, b"directory") {
        // Of a torrent of several files it is the folder that holds them.
        taken.places.push(match metainfo.is_multi_file {
            true => DataPlace::Content(directory),
            false => DataPlace::Save(directory),
        });
    }
    if let Some(label) = session.get(b"custom1").and_then(Value::as_bytes) {
        let label = percent_decoded(label);
        taken.add_label(String::from_utf8_lossy(&label).trim());
    }
    let priority = number(session, b"priority").unwrap_or(PRIORITY_NORMAL);
    taken.note(Note::TorrentPriority, priority != PRIORITY_NORMAL);
    taken.note(
        Note::BandwidthGroup,
        text(session, b"throttle_name").is_some(),
    );
    taken.note(Note::Remark, text(session, b"custom2").is_some());
    taken.note(Note::TiedFile, text(session, b"tied_to_file").is_some());
    let mut views = list(session, b"views").filter_map(as_text);
    taken.note(Note::RatioGroup, views.any(|view| view.starts_with("rat_")));
    taken.super_seeding = text(session, b"connection_seed").as_deref() == Some("initial_seed");
    taken
}

/// A number that ruTorrent keeps as text, with a line break behind it.
fn custom(session: Value<'_, '_>, key: &[u8]) -> Option<u64> {
    let text = text(session.get(b"custom")?, key)?;
    text.parse().ok().filter(|&number| number > 0)
}

fn resume_keys(resume: Value<'_, '_>, metainfo: &Metainfo, taken: &mut Resume) {
    let files = || list(resume, b"files").take(metainfo.files.len());
    taken.stamps = Stamps::Exact(files().map(exact).collect());
    taken.priorities = files().map(priority).collect();
    taken.claimed = claimed(resume, metainfo);
    taken.trackers = trackers(resume, metainfo);
    if let (Some(pieces), Some(claimed)) = (
        resume.get(b"uncertain_pieces").and_then(Value::as_bytes),
        &mut taken.claimed,
    ) {
        // They may not have reached the disk; rTorrent hashes them itself when it starts again.
        for piece in pieces.as_chunks::<4>().0 {
            let piece = PieceIndex(u32::from_be_bytes(*piece));
            if claimed.contains(piece) {
                claimed.remove(piece);
                taken.uncertain = true;
            }
        }
    }
}

/// The metainfo's trackers without those that were turned off, and with those that were added;
/// `None` where they are the metainfo's.
fn trackers(resume: Value<'_, '_>, metainfo: &Metainfo) -> Option<Vec<Vec<String>>> {
    let (mut off, mut added) = (HashSet::new(), Vec::new());
    for tracker in resume.get(b"trackers")?.dict()?.entries() {
        let Some(url) = std::str::from_utf8(tracker.key).ok().and_then(usable_url) else {
            continue;
        };
        if signed(tracker.value, b"enabled") == Some(0) {
            off.insert(url);
        } else if flag(tracker.value, b"extra_tracker") && added.len() < TRACKERS_MAX {
            added.push(url);
        }
    }
    let known: HashSet<&str> = metainfo
        .trackers
        .iter()
        .flatten()
        .map(String::as_str)
        .collect();
    added.retain(|url| !known.contains(url) && url.contains("://") && *url != DHT_TRACKER);
    if added.is_empty() && !known.iter().any(|url| off.contains(url)) {
        return None;
    }
    let kept = |tier: &Vec<String>| -> Vec<String> {
        let kept = tier.iter().filter(|url| !off.contains(url.as_str()));
        kept.cloned().collect()
    };
    let mut tiers: Vec<Vec<String>> = metainfo.trackers.iter().map(kept).collect();
    tiers.extend(added.into_iter().map(|url| vec![url.to_owned()]));
    tiers.retain(|tier| !tier.is_empty());
    Some(tiers)
}

/// What a file was. A time that is not after 1970 is a mark that the file was not there or not
/// whole.
fn exact(file: Value<'_, '_>) -> Option<Exact> {
    let mtime_s = signed(file, b"mtime").filter(|&mtime| mtime > 0)?;
    let size = None;
    Some(Exact { mtime_s, size })
}

fn priority(file: Value<'_, '_>) -> Priority {
    match signed(file, b"priority") {
        Some(0) => Priority::SKIP,
        Some(FILE_PRIORITY_HIGH) => Priority::new(6).unwrap_or_default(),
        _ => Priority::NORMAL,
    }
}

/// The number of pieces where all or none are there, else a bitfield.
fn claimed(resume: Value<'_, '_>, metainfo: &Metainfo) -> Option<PieceSet> {
    let bitfield = resume.get(b"bitfield")?;
    let pieces = metainfo.piece_count;
    if let Some(bits) = bitfield.as_bytes() {
        return PieceSet::from_bitfield(bits, pieces);
    }
    let mut claimed = PieceSet::new(pieces);
    match bitfield.as_unsigned()? {
        0 => {}
        count if count == u64::from(pieces) => {
            (0..pieces).for_each(|piece| claimed.insert(PieceIndex(piece)));
        }
        _ => return None,
    }
    Some(claimed)
}
