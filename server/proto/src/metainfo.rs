//! Metainfo, the content of a `.torrent` file: BEP 3, with multiple trackers (BEP 12), web seeds
//! (BEP 17 and 19), private torrents (BEP 27), file attributes and pad files (BEP 47) and version 2
//! (BEP 52).
//!
//! [`Metainfo::parse`] owns what it returns and validates all of it: lengths add up, hashes are as
//! many as needed, every path is safe, inside the root and distinct. The hash is always taken over
//! the raw `info` span, which is kept; nothing is ever re-encoded to be hashed.
//!
//! Where torrents in the wild are odd and no harm follows, it is tolerant: optional fields of a
//! wrong kind read as absent, unknown keys and bytes after the root are ignored, dictionary keys
//! may be unsorted (not in a `file tree`, whose order decides where bytes lie). A hybrid may come
//! without any `piece layers`, which are in no magnet link's metadata: its version 1 hashes prove
//! all of it. A duplicate key anywhere in `info` is refused, as is a second `info`.
//!
//! Limits: `limits::METAINFO_BYTES_MAX`, `BENCODE_TOKENS_MAX`, `PIECES_MAX`, `PIECE_LENGTH_MAX`,
//! `PATH_DEPTH_MAX`, `PATHS_BYTES_MAX`, `TRACKERS_MAX`, `WEB_SEEDS_MAX`, `NODES_MAX`. It does not
//! touch the file system, does not create symbolic links and does not judge whether a URL may be
//! visited.

mod build;
mod error;
mod field;
mod info;
mod invariants;
mod merkle;
mod names;
mod outer;
#[cfg(test)]
mod tests;
mod v1;
mod v2;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

pub use build::{Builder, BuilderFile, with_trackers};
pub use error::{MetainfoError, Reason};
pub use outer::usable_url;

use crate::bencode::{Document, Limits};
use crate::ids::{InfoHashV1, InfoHashV2, PieceIndex};
use crate::magnet::Magnet;

/// A torrent's metainfo, validated.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metainfo {
    /// The SHA-1 of `info`, if the torrent has a version 1 part. One of the two hashes always
    /// exists.
    pub info_hash_v1: Option<InfoHashV1>,
    /// The SHA-256 of `info`, if the torrent has a version 2 part (BEP 52).
    pub info_hash_v2: Option<InfoHashV2>,
    /// The raw `info` dictionary, byte for byte, as peers ask for it (BEP 9).
    pub info: Arc<[u8]>,
    /// The torrent's name, sanitised: the first component of every file's path.
    pub name: String,
    /// The name's bytes in the torrent, where they differ from `name`.
    pub raw_name: Option<Vec<u8>>,
    /// The length of every piece but the last, in bytes; of a version 2 torrent, of all but each
    /// file's last.
    pub piece_length: u32,
    /// The number of pieces. 0 if all files are empty.
    pub piece_count: u32,
    /// The length of the space that the pieces cover, pad files included, in bytes.
    pub total_length: u64,
    /// The files in the order of their offsets. Never empty.
    pub files: Vec<File>,
    /// Whether the torrent is a directory; then every path has at least two components.
    pub is_multi_file: bool,
    /// Whether only the torrent's trackers may name peers (BEP 27).
    pub private: bool,
    /// The `source` in `info`, by which private trackers tell their torrents apart.
    pub source: Option<String>,
    /// The trackers by tier, without duplicates (BEP 12). Neither empty tiers nor strange
    /// characters.
    pub trackers: Vec<Vec<String>>,
    /// Web seeds: `url-list` (BEP 19).
    pub web_seeds: Vec<String>,
    /// Web seeds of the older kind: `httpseeds` (BEP 17).
    pub http_seeds: Vec<String>,
    /// DHT nodes, host and port (BEP 5).
    pub nodes: Vec<(String, u16)>,
    /// A remark for people.
    pub comment: Option<String>,
    /// The program that made the torrent.
    pub created_by: Option<String>,
    /// When it was made, in seconds since 1970.
    pub creation_date: Option<i64>,
    /// What the torrent says of its text encoding. Kept; text is read as UTF-8 whatever it says.
    pub encoding: Option<String>,
    /// Where `pieces` lies in `info`; empty without a version 1 part.
    pieces: Range<usize>,
    /// The version 2 hashes of the pieces of each file that is longer than a piece, by its `pieces
    /// root`.
    piece_layers: HashMap<[u8; 32], Vec<[u8; 32]>>,
}

/// A file of a torrent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct File {
    /// The path below the data directory, sanitised: `[name]` of a single file, else `[name,
    /// directories…, file]`. No two files have the same, pad files apart.
    pub path: Vec<String>,
    /// The components below the torrent's name as the torrent spells them, where they differ from
    /// `path`.
    pub raw_path: Option<Vec<Vec<u8>>>,
    raw_path_is_literal: bool,
    /// Bytes.
    pub length: u64,
    /// Where the file starts in the space that the pieces cover.
    pub offset: u64,
    /// A pad file: zeros, never on disk (BEP 47, and the older `_____padding_file`).
    pub pad: bool,
    /// Attribute `x` (BEP 47).
    pub executable: bool,
    /// Attribute `h` (BEP 47).
    pub hidden: bool,
    /// The target of a symbolic link (BEP 47), sanitised, below the torrent's root. Links have no
    /// length.
    pub symlink_target: Option<Vec<String>>,
    /// The file's MD5, if the torrent has it.
    pub md5sum: Option<[u8; 16]>,
    /// The root of the file's hash tree (BEP 52). Absent in version 1 and for empty files.
    pub pieces_root: Option<[u8; 32]>,
}

impl Metainfo {
    /// Reads a `.torrent` file within the limits for strangers ([`Limits::METAINFO`]).
    ///
    /// # Errors
    /// The first thing found wrong, with its field and byte offset.
    pub fn parse(torrent: &[u8]) -> Result<Self, MetainfoError> {
        Self::parse_within(torrent, &Limits::METAINFO)
    }

    /// Reads a `.torrent` file within `limits`, such as [`Limits::METAINFO_OWN`] for one that was
    /// just made.
    ///
    /// # Errors
    /// See [`Metainfo::parse`].
    pub fn parse_within(torrent: &[u8], limits: &Limits) -> Result<Self, MetainfoError> {
        let document = Document::parse(torrent, limits)?;
        let root = document.root();
        let outer = outer::read(root)?;
        let layers = v2::PieceLayers::InTorrent {
            root,
            layers: outer.piece_layers,
        };
        let mut metainfo = info::read(outer.info, &layers)?;
        metainfo.trackers = outer.trackers;
        metainfo.web_seeds = outer.web_seeds;
        metainfo.http_seeds = outer.http_seeds;
        metainfo.nodes = outer.nodes;
        metainfo.comment = outer.comment;
        metainfo.created_by = outer.created_by;
        metainfo.creation_date = outer.creation_date;
        metainfo.encoding = outer.encoding;
        Ok(metainfo)
    }

    /// Reads an `info` dictionary alone, as it is fetched from peers (BEP 9). Its hash is for the
    /// caller to compare. Version 2 piece layers are not in it, so [`Metainfo::piece_layer`] knows
    /// none.
    ///
    /// # Errors
    /// See [`Metainfo::parse`]; offsets count from the start of `info`.
    pub fn parse_info(info: &[u8]) -> Result<Self, MetainfoError> {
        let document = Document::parse(info, &Limits::METAINFO)?;
        info::read(document.root(), &v2::PieceLayers::Absent)
    }

    /// The SHA-1 of a piece, if the torrent has a version 1 part and the piece exists.
    #[must_use]
    pub fn piece_hash(&self, piece: PieceIndex) -> Option<&[u8; 20]> {
        let start = usize::try_from(piece.0).ok()?.checked_mul(20)?;
        self.piece_hashes()
            .get(start..start.checked_add(20)?)?
            .try_into()
            .ok()
    }

    /// The SHA-1 hashes of all pieces, 20 bytes each; empty without a version 1 part.
    #[must_use]
    pub fn piece_hashes(&self) -> &[u8] {
        &self.info[self.pieces.clone()]
    }

    /// The length of a piece in bytes, if it exists.
    #[must_use]
    pub fn piece_size(&self, piece: PieceIndex) -> Option<u32> {
        if piece.0 >= self.piece_count {
            return None;
        }
        let start = u64::from(piece.0) * u64::from(self.piece_length);
        let end = if self.info_hash_v1.is_some() {
            self.total_length
        } else {
            // Pieces do not cross files here, and empty files hold none.
            let after = self.files.partition_point(|file| file.offset <= start);
            let file = self.files[..after]
                .iter()
                .rev()
                .find(|file| file.length > 0)?;
            file.offset + file.length
        };
        Some((end - start).min(u64::from(self.piece_length)) as u32)
    }

    /// The bytes of content: all files but pad files.
    #[must_use]
    pub fn content_length(&self) -> u64 {
        self.files
            .iter()
            .filter(|file| !file.pad)
            .map(|file| file.length)
            .sum()
    }

    /// The SHA-256 hashes of the pieces under a file's [`File::pieces_root`]. Absent for a file of
    /// one piece, whose root is its only hash, and if the layers were not in the input: an `info`
    /// alone, or a hybrid that was made of one.
    #[must_use]
    pub fn piece_layer(&self, pieces_root: &[u8; 32]) -> Option<&[[u8; 32]]> {
        self.piece_layers.get(pieces_root).map(Vec::as_slice)
    }

    /// Where data that lies on disk already may be found if [`File::path`] does not exist: the path
    /// as the torrent spells it, with control characters, bytes that are not UTF-8 or names that
    /// differ in case only. `None` where it is the same as `path`, where Linux cannot hold it,
    /// where it could lead out of the root, or where another file has it. For opening what exists,
    /// never for creating.
    #[must_use]
    pub fn literal_path(&self, file: &File) -> Option<Vec<Vec<u8>>> {
        if self.raw_name.is_none() && file.raw_path.is_none() {
            return None;
        }
        let name = self.raw_name.as_deref().unwrap_or(self.name.as_bytes());
        let raw_path_usable = file.raw_path.is_none() || file.raw_path_is_literal;
        if file.pad || !raw_path_usable || !crate::path::is_literal_component(name) {
            return None;
        }
        let below: Vec<Vec<u8>> = match &file.raw_path {
            Some(raw) => raw.clone(),
            None => file.path[1..]
                .iter()
                .map(|safe| safe.clone().into_bytes())
                .collect(),
        };
        Some(std::iter::once(name.to_vec()).chain(below).collect())
    }

    /// Names that are not written as the torrent spells them: as it does, and as they are written.
    /// The torrent's own name comes first, then files below it, pad files left out.
    pub fn respelled(&self) -> impl Iterator<Item = (Vec<u8>, String)> {
        let name = self.raw_name.iter();
        let name = name.map(|raw| (raw.clone(), self.name.clone()));
        let below = self.files.iter().filter(|file| !file.pad);
        let below = below.filter_map(|file| {
            let raw = file.raw_path.as_ref()?;
            let safe = file.path.get(1..).unwrap_or_default();
            Some((raw.join(&b'/'), safe.join("/")))
        });
        name.chain(below)
    }

    /// The magnet link for this torrent: hashes, name, length, trackers and web seeds.
    #[must_use]
    pub fn magnet(&self) -> Magnet {
        Magnet {
            info_hash_v1: self.info_hash_v1,
            info_hash_v2: self.info_hash_v2,
            name: Some(self.name.clone()),
            length: Some(self.content_length()),
            trackers: self.trackers.iter().flatten().cloned().collect(),
            web_seeds: self.web_seeds.clone(),
            peers: Vec::new(),
            selection: None,
        }
    }
}
