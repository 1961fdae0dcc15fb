//! Writing torrents of version 1, and rewriting the trackers of any torrent.

use std::collections::BTreeMap;

use super::error::MetainfoError;
use super::field;
use crate::bencode::{Document, Encoder, Limits};

/// What goes into a new version 1 torrent. Equal input makes equal bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Builder {
    /// The name of the file or directory; any bytes that a file system has.
    pub name: Vec<u8>,
    /// The length of a piece in bytes.
    pub piece_length: u32,
    /// The SHA-1 of every piece, 20 bytes each.
    pub pieces: Vec<u8>,
    /// The length of the single file; ignored for a directory.
    pub length: u64,
    /// The files of a directory in order; empty for a single file.
    pub files: Vec<BuilderFile>,
    /// The trackers by tier (BEP 12). The first one also becomes `announce`.
    pub trackers: Vec<Vec<String>>,
    /// Web seeds (BEP 19).
    pub web_seeds: Vec<String>,
    /// Whether only the trackers may name peers (BEP 27).
    pub private: bool,
    /// The `source` in `info`, which changes the hash.
    pub source: Option<String>,
    /// A remark for people.
    pub comment: Option<String>,
    /// The program that makes the torrent.
    pub created_by: Option<String>,
    /// Now, in seconds since 1970; absent makes the output depend on the content alone.
    pub creation_date: Option<i64>,
}

/// A file of a new torrent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuilderFile {
    /// The path below the torrent's name, at least one component.
    pub path: Vec<Vec<u8>>,
    /// Bytes.
    pub length: u64,
    /// The letters of BEP 47, such as `p` for a pad file; empty for none.
    pub attributes: String,
}

impl Builder {
    /// The torrent's bytes.
    ///
    /// # Panics The caller's promise is broken: the piece length is 0, a path is empty, or `pieces`
    /// does not have as many hashes as the lengths need.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.begin_dict();
        let (announce, announce_list) = encoded_trackers(&self.trackers);
        if let Some(announce) = announce {
            encoder.key(b"announce").raw(&announce);
        }
        if let Some(announce_list) = announce_list {
            encoder.key(b"announce-list").raw(&announce_list);
        }
        if let Some(comment) = &self.comment {
            encoder.key(b"comment").bytes(comment.as_bytes());
        }
        if let Some(created_by) = &self.created_by {
            encoder.key(b"created by").bytes(created_by.as_bytes());
        }
        if let Some(seconds) = self.creation_date {
            encoder.key(b"creation date").integer(seconds);
        }
        encoder.key(b"encoding").bytes(b"UTF-8");
        encoder.key(b"info");
        self.encode_info(&mut encoder);
        if !self.web_seeds.is_empty() {
            encoder.key(b"url-list").begin_list();
            self.web_seeds
                .iter()
                .for_each(|url| _ = encoder.bytes(url.as_bytes()));
            encoder.end();
        }
        encoder.end();
        encoder.finish()
    }

    fn encode_info(&self, encoder: &mut Encoder) {
        let total: u64 = match self.files.as_slice() {
            [] => self.length,
            files => files.iter().map(|file| file.length).sum(),
        };
        assert!(self.piece_length > 0, "a piece has a length");
        let hashes = total.div_ceil(u64::from(self.piece_length));
        assert_eq!(
            self.pieces.len() as u64,
            hashes * 20,
            "a hash for every piece"
        );
        encoder.begin_dict();
        if self.files.is_empty() {
            encoder.key(b"length").unsigned(self.length);
        } else {
            encoder.key(b"files").begin_list();
            self.files.iter().for_each(|file| file.encode(encoder));
            encoder.end();
        }
        encoder.key(b"name").bytes(&self.name);
        encoder
            .key(b"piece length")
            .unsigned(u64::from(self.piece_length));
        encoder.key(b"pieces").bytes(&self.pieces);
        if self.private {
            encoder.key(b"private").integer(1);
        }
        if let Some(source) = &self.source {
            encoder.key(b"source").bytes(source.as_bytes());
        }
        encoder.end();
    }
}

impl BuilderFile {
    fn encode(&self, encoder: &mut Encoder) {
        assert!(!self.path.is_empty(), "a file has a path");
        encoder.begin_dict();
        if !self.attributes.is_empty() {
            encoder.key(b"attr").bytes(self.attributes.as_bytes());
        }
        encoder.key(b"length").unsigned(self.length);
        encoder.key(b"path").begin_list();
        self.path
            .iter()
            .for_each(|component| _ = encoder.bytes(component));
        encoder.end().end();
    }
}

/// The torrent with other trackers. Every other key keeps its bytes, `info` above all, so the
/// hashes stay; the root's keys come out sorted, of duplicates the first stays, and bytes after the
/// root are dropped.
///
/// # Errors `torrent` is not a bencoded dictionary. Its content is not judged: that is
/// [`super::Metainfo::parse`].
pub fn with_trackers(torrent: &[u8], tiers: &[Vec<String>]) -> Result<Vec<u8>, MetainfoError> {
    let document = Document::parse(torrent, &Limits::METAINFO_OWN)?;
    let mut keys: BTreeMap<&[u8], &[u8]> = BTreeMap::new();
    for entry in field::dict("torrent", document.root())?.entries() {
        keys.entry(entry.key).or_insert(entry.value.raw());
    }
    let (announce, announce_list) = encoded_trackers(tiers);
    keys.remove(&b"announce"[..]);
    keys.remove(&b"announce-list"[..]);
    if let Some(announce) = &announce {
        keys.insert(b"announce", announce);
    }
    if let Some(announce_list) = &announce_list {
        keys.insert(b"announce-list", announce_list);
    }
    let mut encoder = Encoder::new();
    encoder.begin_dict();
    for (key, value) in keys {
        encoder.key(key).raw(value);
    }
    encoder.end();
    Ok(encoder.finish())
}

/// The values of `announce`, and of `announce-list` if there is more than one tracker. Empty tiers
/// are left out.
fn encoded_trackers(tiers: &[Vec<String>]) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    let mut trackers = tiers.iter().flatten();
    let announce = trackers.next().map(|first| {
        let mut encoder = Encoder::new();
        encoder.bytes(first.as_bytes());
        encoder.finish()
    });
    let announce_list = trackers.next().map(|_| {
        let mut encoder = Encoder::new();
        encoder.begin_list();
        for tier in tiers.iter().filter(|tier| !tier.is_empty()) {
            encoder.begin_list();
            tier.iter()
                .for_each(|url| _ = encoder.bytes(url.as_bytes()));
            encoder.end();
        }
        encoder.end();
        encoder.finish()
    });
    (announce, announce_list)
}
