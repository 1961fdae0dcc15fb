//! What another client's resume data say of a torrent, in terms that all clients share, and the
//! means to read it out of bencode. Decoders fill it; nothing here looks at a file.

use super::note::Note;
use crate::verify::PieceSet;
use engine::picker::Priority;
use proto::bencode::{Document, Error, List, Value};
use proto::limits::{TRACKERS_MAX, URL_BYTES_MAX, WEB_SEEDS_MAX};
use proto::metainfo::usable_url;
use state::{TorrentLimits, Totals};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// The most labels that are taken of one torrent. More are left out.
pub(super) const LABELS_MAX: usize = 256;
/// The longest label, category or name that is taken, in bytes. A longer one is left out.
pub(super) const TEXT_BYTES_MAX: usize = 1024;
/// The longest path that is taken, in bytes: what Linux can open. A longer one is left out.
const PATH_BYTES_MAX: usize = 4096;

/// Resume data cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResumeError {
    /// They are not bencode, or too large.
    #[error(transparent)]
    Bencode(#[from] Error),
    /// They are bencode, but no dictionary.
    #[error("the resume data are no dictionary")]
    NotDictionary,
    /// They are of another torrent than the .torrent file beside them.
    #[error("the resume data are of another torrent than the .torrent file beside them")]
    OtherTorrent,
}

/// What a client remembers of one torrent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resume {
    /// The name that is shown, if it is not the metainfo's.
    pub name: Option<String>,
    /// Where its data may be; the likeliest first.
    pub places: Vec<DataPlace>,
    /// Its category.
    pub category: Option<String>,
    /// Its labels, without duplicates.
    pub labels: Vec<String>,
    /// When it was added, in seconds since 1970.
    pub added_at_s: Option<u64>,
    /// When it became complete, in seconds since 1970.
    pub completed_at_s: Option<u64>,
    /// Whether the user has stopped it.
    pub paused: bool,
    /// Whether pieces are wanted in their order.
    pub sequential: bool,
    /// Whether it is super-seeded.
    pub super_seeding: bool,
    /// Whether its data are taken to be complete without having been hashed.
    pub seed_mode: bool,
    /// Its own limits.
    pub limits: TorrentLimits,
    /// Its totals.
    pub totals: Totals,
    /// The paths of files below the save folder that are not the metainfo's, by index.
    pub paths: BTreeMap<u32, PathBuf>,
    /// What the names of incomplete files may end in.
    pub partial_suffix: Option<&'static str>,
    /// How much each file is wanted; empty where nothing is said.
    pub priorities: Vec<Priority>,
    /// The trackers in their tiers, where the client keeps them itself.
    pub trackers: Option<Vec<Vec<String>>>,
    /// The web seeds, where the client keeps them itself.
    pub web_seeds: Option<Vec<String>>,
    /// The pieces that it has; `None` where that is not said or not understood.
    pub claimed: Option<PieceSet>,
    /// Whether it has more pieces, of which the client itself is not sure.
    pub uncertain: bool,
    /// How that can be held against the files.
    pub stamps: Stamps,
    /// What has no counterpart here.
    pub notes: BTreeSet<Note>,
}

/// A place of a torrent's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataPlace {
    /// The folder that holds the torrent's file or folder.
    Save(PathBuf),
    /// The same, as long as the torrent is incomplete.
    Incomplete(PathBuf),
    /// The folder that holds the files of a torrent of several, whatever its name is.
    Content(PathBuf),
}

/// What resume data say of the files at the time when the pieces were right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stamps {
    /// Nothing: no piece is believed.
    #[default]
    None,
    /// Nothing but that the client wrote its resume data afterwards: a file that has not changed
    /// since then is believed.
    WrittenAfter,
    /// Of each file what it was, in the order of the torrent. None is believed without.
    Exact(Vec<Option<Exact>>),
    /// Of each file when its pieces were hashed, in the order of the torrent.
    Hashed(Vec<Hashed>),
}

/// What a file was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exact {
    /// When it last changed, in seconds since 1970.
    pub mtime_s: i64,
    /// Its length in bytes, if that is said.
    pub size: Option<u64>,
}

/// When the pieces of a file were hashed last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Hashed {
    /// Never.
    #[default]
    Never,
    /// All at this time, in seconds since 1970.
    At(i64),
    /// Each, from the file's first on, at such a time; 0 for never.
    Each(Vec<i64>),
}

impl Hashed {
    /// When the piece that is number `within` of the file was hashed; `None` for never.
    pub fn at(&self, within: usize) -> Option<i64> {
        match self {
            Hashed::Never => None,
            Hashed::At(time) => Some(*time),
            Hashed::Each(times) => times.get(within).copied().filter(|&time| time > 0),
        }
    }

    /// When a piece of it was hashed last; `None` for never.
    pub fn newest(&self) -> Option<i64> {
        match self {
            Hashed::Never => None,
            Hashed::At(time) => Some(*time),
            Hashed::Each(times) => times.iter().copied().max().filter(|&time| time > 0),
        }
    }
}

impl Resume {
    /// Adds a label, unless it is there, too long or one too many.
    pub fn add_label(&mut self, label: &str) {
        let fits = !label.is_empty() && label.len() <= TEXT_BYTES_MAX;
        if fits && self.labels.len() < LABELS_MAX && !self.labels.iter().any(|one| one == label) {
            self.labels.push(label.to_owned());
        }
    }

    /// Notes something without counterpart if it is so.
    pub fn note(&mut self, note: Note, is_so: bool) {
        if is_so {
            self.notes.insert(note);
        }
    }

    /// Takes over where a file lies, if that is below the save folder and not where the metainfo
    /// says.
    pub fn set_path(&mut self, index: u32, found: &[u8], metainfo_path: &[String]) {
        let Some(path) = relative(found) else {
            self.note(Note::PathOutside, true);
            return;
        };
        if path != Path::new(&metainfo_path.join("/")) {
            self.paths.insert(index, path);
        }
    }
}

/// The root of resume data.
pub(super) fn root<'doc, 'input>(
    document: &'doc Document<'input>,
) -> Result<Value<'doc, 'input>, ResumeError> {
    let root = document.root();
    root.dict().map(|_| root).ok_or(ResumeError::NotDictionary)
}

/// The number that is not negative under `key`.
pub(super) fn number(dict: Value<'_, '_>, key: &[u8]) -> Option<u64> {
    dict.get(key)?.as_unsigned()
}

/// The number under `key`.
pub(super) fn signed(dict: Value<'_, '_>, key: &[u8]) -> Option<i64> {
    dict.get(key)?.as_integer()
}

/// A time or a count of seconds of which 0 means that there is none.
pub(super) fn some_number(dict: Value<'_, '_>, key: &[u8]) -> Option<u64> {
    number(dict, key).filter(|&number| number > 0)
}

/// Whether the number under `key` is there and not 0.
pub(super) fn flag(dict: Value<'_, '_>, key: &[u8]) -> bool {
    signed(dict, key).is_some_and(|number| number != 0)
}

/// The text under `key`, if it is not empty.
pub(super) fn text(dict: Value<'_, '_>, key: &[u8]) -> Option<String> {
    dict.get(key).and_then(as_text)
}

/// A text without blanks around it, if there is something of it and it is not too long.
pub(super) fn as_text(value: Value<'_, '_>) -> Option<String> {
    let bytes = value.as_bytes().filter(|it| it.len() <= TEXT_BYTES_MAX)?;
    let text = String::from_utf8_lossy(bytes).trim().to_owned();
    (!text.is_empty() && text.len() <= TEXT_BYTES_MAX).then_some(text)
}

/// The path under `key`, if it is not empty.
pub(super) fn path(dict: Value<'_, '_>, key: &[u8]) -> Option<PathBuf> {
    let bytes = dict.get(key)?.as_bytes()?;
    let fits = !bytes.is_empty() && bytes.len() <= PATH_BYTES_MAX && !bytes.contains(&0);
    fits.then(|| PathBuf::from(OsStr::from_bytes(bytes)))
}

/// The items of the list under `key`; none where there is no list.
pub(super) fn list<'doc, 'input>(
    dict: Value<'doc, 'input>,
    key: &[u8],
) -> impl Iterator<Item = Value<'doc, 'input>> {
    dict.get(key).and_then(Value::list).into_iter().flatten()
}

/// A path below the save folder; `None` for one that leads out of it.
pub(super) fn relative(bytes: &[u8]) -> Option<PathBuf> {
    if bytes.is_empty() || bytes.len() > PATH_BYTES_MAX || bytes.contains(&0) {
        return None;
    }
    let mut path = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(bytes)).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            _ => return None,
        }
    }
    (!path.as_os_str().is_empty()).then_some(path)
}

/// Trackers by tier, without those that no URL can be, and whether some were left out.
pub(super) fn tiers(tiers: List<'_, '_>) -> (Vec<Vec<String>>, bool) {
    let (mut kept, mut count, mut left_out) = (Vec::new(), 0, false);
    for tier in tiers {
        let mut urls: Vec<String> = Vec::new();
        for url in tier.list().into_iter().flatten() {
            match url.as_str().and_then(usable_url) {
                Some(url) if count < TRACKERS_MAX => {
                    count += 1;
                    urls.push(url.to_owned());
                }
                _ => left_out = true,
            }
        }
        if !urls.is_empty() {
            kept.push(urls);
        }
    }
    (kept, left_out)
}

/// Web seeds, without those that no URL can be.
pub(super) fn urls(list: List<'_, '_>) -> Vec<String> {
    let usable = |url: Value<'_, '_>| url.as_str().and_then(usable_url).map(str::to_owned);
    let urls = list.filter_map(usable).take(WEB_SEEDS_MAX);
    urls.filter(|url| url.len() <= URL_BYTES_MAX).collect()
}

/// A text whose special characters are written as `%` and two hex digits. Others stay.
pub(super) fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|&byte| char::from(byte).to_digit(16));
    let (mut decoded, mut at) = (Vec::with_capacity(text.len()), 0);
    while let Some(&byte) = text.get(at) {
        match (byte, digit(text.get(at + 1)), digit(text.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                // Two digits of 16.
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_lead_out_are_none() {
        assert_eq!(relative(b"a/./b"), Some(PathBuf::from("a/b")));
        for bad in [b"".as_slice(), b".", b"/a", b"a/../../b", b"..", b"a\0b"] {
            assert_eq!(relative(bad), None, "{bad:?}");
        }
        assert_eq!(relative(&[b'a'; PATH_BYTES_MAX + 1]), None);
    }

    #[test]
    fn percent_signs_that_are_none_stay() {
        assert_eq!(percent_decoded(b"tv%20sh%c3%A4ws"), "tv shäws".as_bytes());
        for same in [b"100%".as_slice(), b"%", b"%2", b"%zz", b"a+b"] {
            assert_eq!(percent_decoded(same), same);
        }
    }

    #[test]
    fn labels_are_kept_once() {
        let mut resume = Resume::default();
        for label in ["a", "b", "a", "", &"x".repeat(TEXT_BYTES_MAX + 1)] {
            resume.add_label(label);
        }
        assert_eq!(resume.labels, ["a", "b"]);
        (0..1000).for_each(|number| resume.add_label(&number.to_string()));
        assert_eq!(resume.labels.len(), LABELS_MAX);
    }
}
