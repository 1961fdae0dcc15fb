//! What happens to a torrent, as hooks are told it and as it is kept until they have been.

use super::TEXT_BYTES_MAX;
use crate::catalog::Torrent;
use proto::ids::InfoHashV1;
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::path::PathBuf;

/// What happens.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HookEvent {
    /// It is added.
    Added,
    /// Of a magnet link, its metadata are known.
    Metadata,
    /// All that is wanted of it is downloaded.
    Completed,
    /// It needs somebody.
    Error,
    /// Its data are not there.
    Offline,
    /// It is removed.
    Removed,
}

impl HookEvent {
    /// All of them.
    pub const ALL: [HookEvent; 6] = [
        HookEvent::Added,
        HookEvent::Metadata,
        HookEvent::Completed,
        HookEvent::Error,
        HookEvent::Offline,
        HookEvent::Removed,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            HookEvent::Added => "added",
            HookEvent::Metadata => "metadata",
            HookEvent::Completed => "completed",
            HookEvent::Error => "error",
            HookEvent::Offline => "offline",
            HookEvent::Removed => "removed",
        }
    }

    /// The one of this name.
    pub fn of(name: &str) -> Option<HookEvent> {
        HookEvent::ALL
            .into_iter()
            .find(|event| event.name() == name)
    }
}

/// The torrent that it happens to. What is private (trackers with their passkeys) is not in it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Subject {
    /// 40 hex digits.
    pub info_hash: String,
    /// Its name: a stranger's text, unless the user gave it one.
    pub name: String,
    /// The folder that its data are in.
    #[serde(with = "bytes")]
    pub save_path: PathBuf,
    /// Its category.
    pub category: Option<String>,
    /// Its labels.
    pub labels: Vec<String>,
    /// The length of its data, in bytes; 0 while that is not known.
    pub bytes: u64,
}

/// Something that happens to a torrent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Happened {
    /// What.
    pub event: HookEvent,
    /// When, in seconds since 1970.
    pub at_s: u64,
    /// To which.
    pub torrent: Subject,
    /// Why, of what is no success.
    pub error: Option<String>,
}

impl Happened {
    /// What happens to `torrent`, as it is now.
    pub fn to(torrent: &Torrent, event: HookEvent, at_s: u64, error: Option<&str>) -> Happened {
        let summary = &torrent.summary;
        let mut room = TEXT_BYTES_MAX;
        let labels = summary.labels.iter().take_while(|label| {
            let fits = label.len() <= room;
            room = room.saturating_sub(label.len());
            fits
        });
        Happened {
            event,
            at_s,
            torrent: Subject {
                info_hash: torrent.info_hash.to_string(),
                name: cut(&summary.name),
                save_path: summary.save_path.clone(),
                category: summary.category.as_deref().map(cut),
                labels: labels.cloned().collect(),
                bytes: summary.total_bytes,
            },
            error: error.map(cut),
        }
    }

    /// The torrent's info-hash.
    pub fn info_hash(&self) -> InfoHashV1 {
        let hash = InfoHashV1::from_hex(&self.torrent.info_hash);
        hash.unwrap_or(InfoHashV1([0; 20]))
    }

    /// About how much memory it holds, in bytes.
    pub(super) fn size(&self) -> usize {
        let torrent = &self.torrent;
        let labels: usize = torrent.labels.iter().map(|label| 32 + label.len()).sum();
        let texts = [
            torrent.name.len(),
            torrent.save_path.as_os_str().len(),
            torrent.category.as_ref().map_or(0, String::len),
            self.error.as_ref().map_or(0, String::len),
        ];
        512 + labels + texts.iter().sum::<usize>()
    }

    /// What is posted.
    pub(super) fn json(&self, id: u64) -> Vec<u8> {
        let Subject {
            info_hash,
            name,
            save_path,
            category,
            labels,
            bytes,
        } = &self.torrent;
        let body = serde_json::json!({
            "version": 1,
            "id": identity(id),
            "event": self.event.name(),
            "at_s": self.at_s,
            "torrent": {
                "info_hash": info_hash,
                "name": name,
                "save_path": save_path.to_string_lossy(),
                "category": category,
                "labels": labels,
                "bytes": bytes,
            },
            "error": self.error,
        });
        body.to_string().into_bytes()
    }
}

/// By which an event is told from all others: the same when it is told again.
pub(super) fn identity(id: u64) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write!(text, "{id:016x}");
    text
}

/// A text of at most [`TEXT_BYTES_MAX`], whole characters.
fn cut(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

/// A path as its bytes, which need not be UTF-8.
mod bytes {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    pub(super) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        path.as_os_str().as_bytes().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
        let bytes = Vec::<u8>::deserialize(from)?;
        Ok(PathBuf::from(OsString::from_vec(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::state::Summary;

    #[test]
    fn an_event_is_bounded_and_reads_back() {
        let torrent = Torrent {
            info_hash: InfoHashV1([0xa7; 20]),
            summary: Summary {
                name: "ä".repeat(TEXT_BYTES_MAX),
                labels: (0..100).map(|n| format!("{n}").repeat(50)).collect(),
                category: Some("films".into()),
                ..Summary::default()
            },
            totals: Default::default(),
            pieces_verified: 0,
            live: Default::default(),
        };
        let happened = Happened::to(&torrent, HookEvent::Error, 7, Some(&"e".repeat(9999)));
        assert_eq!(happened.torrent.name.len(), TEXT_BYTES_MAX);
        assert!(happened.size() < 5 * TEXT_BYTES_MAX, "{}", happened.size());
        assert_eq!(happened.info_hash(), torrent.info_hash);
        let kept = serde_json::to_vec(&happened).unwrap();
        assert_eq!(serde_json::from_slice::<Happened>(&kept).unwrap(), happened);
        for event in HookEvent::ALL {
            assert_eq!(HookEvent::of(event.name()), Some(event));
        }
    }
}
