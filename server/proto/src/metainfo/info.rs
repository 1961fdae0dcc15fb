//! The `info` dictionary: which versions it has, and what both share.

use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::error::Reason;
use super::field::{self, Result, refuse, required};
use super::names::{self, RawPath};
use super::{File, Metainfo, v1, v2};
use crate::bencode::Value;
use crate::ids::{InfoHashV1, InfoHashV2};
use crate::limits::{BLOCK_LENGTH, PIECE_LENGTH_MAX};
use crate::path;

/// The values of the known keys; unknown keys stay in the raw span and are not looked at.
#[derive(Default)]
pub(super) struct Keys<'doc, 'input> {
    pub attr: Option<Value<'doc, 'input>>,
    pub file_tree: Option<Value<'doc, 'input>>,
    pub files: Option<Value<'doc, 'input>>,
    pub length: Option<Value<'doc, 'input>>,
    pub md5sum: Option<Value<'doc, 'input>>,
    meta_version: Option<Value<'doc, 'input>>,
    name: Option<Value<'doc, 'input>>,
    name_utf8: Option<Value<'doc, 'input>>,
    piece_length: Option<Value<'doc, 'input>>,
    pub pieces: Option<Value<'doc, 'input>>,
    private: Option<Value<'doc, 'input>>,
    source: Option<Value<'doc, 'input>>,
}

impl<'doc, 'input> Keys<'doc, 'input> {
    fn read(info: Value<'doc, 'input>) -> Result<Self> {
        let mut keys = Self::default();
        for entry in field::dict("info", info)?.entries() {
            let slot = match entry.key {
                b"attr" => &mut keys.attr,
                b"file tree" => &mut keys.file_tree,
                b"files" => &mut keys.files,
                b"length" => &mut keys.length,
                b"md5sum" => &mut keys.md5sum,
                b"meta version" => &mut keys.meta_version,
                b"name" => &mut keys.name,
                b"name.utf-8" => &mut keys.name_utf8,
                b"piece length" => &mut keys.piece_length,
                b"pieces" => &mut keys.pieces,
                b"private" => &mut keys.private,
                b"source" => &mut keys.source,
                _ => continue,
            };
            *slot = Some(entry.value);
        }
        Ok(keys)
    }
}

/// Files as one version's part of `info` describes them, in order, with offsets set.
pub(super) struct Layout<'input> {
    pub files: Vec<File>,
    /// The spelling of each file's path below the name; of a single file nothing.
    pub raws: Vec<RawPath<'input>>,
    pub is_multi_file: bool,
    pub piece_count: u32,
    pub total_length: u64,
}

pub(super) fn read(info: Value<'_, '_>, layers: &v2::PieceLayers<'_, '_>) -> Result<Metainfo> {
    let keys = Keys::read(info)?;
    if let Some(duplicate) = info.find_duplicate_key() {
        let key = duplicate.as_bytes().unwrap_or_default();
        return refuse(
            format!("info: key {}", shown(key)),
            duplicate,
            Reason::DuplicateKey,
        );
    }
    let has_v2 = match keys.meta_version {
        None => false,
        Some(value) => match field::integer("info.meta version", value, 0, u64::MAX)? {
            1 => false,
            2 => true,
            _ => return refuse("info.meta version", value, Reason::UnsupportedVersion),
        },
    };
    let has_v1 = !has_v2 || keys.pieces.is_some();
    let raw_name = raw_name(&keys, info)?;
    let piece_length = piece_length(&keys, info, has_v2)?;

    let v1_part = has_v1
        .then(|| v1::read(&keys, info, piece_length))
        .transpose()?;
    let v2_part = has_v2
        .then(|| v2::read(&keys, info, raw_name, piece_length))
        .transpose()?;
    let piece_layers = match &v2_part {
        // The version 1 hashes prove all that a hybrid has.
        Some(_) if has_v1 && layers.are_missing() => std::collections::HashMap::new(),
        Some(layout) => v2::verified_layers(&layout.files, layers, piece_length)?,
        None => std::collections::HashMap::new(),
    };
    let mut layout = match (v1_part, v2_part) {
        (Some(v1_part), None) => v1_part,
        (None, Some(v2_part)) => v2_part,
        (Some(v1_part), Some(v2_part)) => {
            v2::merge_hybrid(&keys, info, piece_length, v1_part, &v2_part)?
        }
        // One is always there, as `has_v1` follows from `has_v2`; a torrent of neither has no
        // files.
        (None, None) => return refuse("info", info, Reason::Missing),
    };

    let info_hash_v1 = has_v1.then(|| InfoHashV1(Sha1::digest(info.raw()).into()));
    let info_hash_v2 = has_v2.then(|| InfoHashV2(Sha256::digest(info.raw()).into()));
    let name = match (
        path::sanitise_component(raw_name),
        info_hash_v1,
        info_hash_v2,
    ) {
        (Some(name), _, _) => name.into_owned(),
        // Something must name the data, and the hash is distinct.
        (None, Some(hash), _) => hash.to_string(),
        (None, None, Some(hash)) => hash.to_string(),
        (None, None, None) => "_".to_owned(),
    };
    if layout.is_multi_file {
        names::finish(&mut layout.files, &layout.raws, &name);
    } else {
        layout.files[0].path = vec![name.clone()];
    }
    let pieces = match keys.pieces.and_then(Value::as_bytes).filter(|_| has_v1) {
        // The content of a string ends where the string ends.
        Some(hashes) => span_in_info(info, keys.pieces, hashes.len()),
        None => 0..0,
    };
    Ok(Metainfo {
        info_hash_v1,
        info_hash_v2,
        info: info.raw().into(),
        raw_name: (name.as_bytes() != raw_name).then(|| raw_name.to_vec()),
        name,
        piece_length,
        piece_count: layout.piece_count,
        total_length: layout.total_length,
        files: layout.files,
        is_multi_file: layout.is_multi_file,
        private: keys
            .private
            .and_then(Value::as_integer)
            .is_some_and(|value| value != 0),
        source: field::text(keys.source),
        trackers: Vec::new(),
        web_seeds: Vec::new(),
        http_seeds: Vec::new(),
        nodes: Vec::new(),
        comment: None,
        created_by: None,
        creation_date: None,
        encoding: None,
        pieces,
        piece_layers,
    })
}

/// Where the last `length` bytes of `value` lie in `info`.
fn span_in_info(
    info: Value<'_, '_>,
    value: Option<Value<'_, '_>>,
    length: usize,
) -> std::ops::Range<usize> {
    let end = value.map_or(0, |value| {
        value.offset() - info.offset() + value.raw().len()
    });
    end - length..end
}

/// `name.utf-8` where it is a string, else `name`.
fn raw_name<'input>(keys: &Keys<'_, 'input>, info: Value<'_, '_>) -> Result<&'input [u8]> {
    let name = field::bytes(
        "info.name",
        required("info.name", keys.name.or(keys.name_utf8), info)?,
    )?;
    Ok(keys
        .name_utf8
        .and_then(Value::as_bytes)
        .filter(|name| !name.is_empty())
        .unwrap_or(name))
}

fn piece_length(keys: &Keys<'_, '_>, info: Value<'_, '_>, has_v2: bool) -> Result<u32> {
    let field = "info.piece length";
    let value = required(field, keys.piece_length, info)?;
    let length = field::integer(field, value, 1, u64::from(PIECE_LENGTH_MAX))? as u32;
    if has_v2 && (!length.is_power_of_two() || length < BLOCK_LENGTH) {
        return refuse(field, value, Reason::PieceLengthNotPowerOfTwo);
    }
    Ok(length)
}

/// A stranger's bytes in an error: quoted, escaped and cut.
pub(super) fn shown(bytes: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 60;
    let text = bytes[..bytes.len().min(SHOWN_BYTES_MAX)].escape_ascii();
    if bytes.len() > SHOWN_BYTES_MAX {
        format!("\"{text}…\"")
    } else {
        format!("\"{text}\"")
    }
}
