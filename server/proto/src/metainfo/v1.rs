//! The version 1 part of `info`: `length` or `files`, and `pieces` (BEP 3, attributes of BEP 47).

use super::File;
use super::error::Reason;
use super::field::{self, Result, refuse, required};
use super::info::{Keys, Layout};
use super::names::{self, RawPath};
use crate::bencode::{Entry, Value};
use crate::limits::{PATH_DEPTH_MAX, PIECES_MAX};

/// The greatest length of a file: what fits the integers of other clients and of Linux.
pub(super) const LENGTH_MAX: u64 = i64::MAX as u64;

/// Pad files of clients older than BEP 47 are known by their name.
const LEGACY_PAD_PREFIX: &[u8] = b"_____padding_file";

pub(super) fn read<'input>(
    keys: &Keys<'_, 'input>,
    info: Value<'_, 'input>,
    piece_length: u32,
) -> Result<Layout<'input>> {
    let mut layout = match (keys.length, keys.files) {
        (Some(_), Some(files)) => return refuse("info.files", files, Reason::LengthAndFiles),
        (None, None) => return refuse("info.length or info.files", info, Reason::Missing),
        (Some(length), None) => single(keys, length)?,
        (None, Some(files)) => multi(files)?,
    };
    let sizes = keys.length.or(keys.files).unwrap_or(info);
    for file in &mut layout.files {
        file.offset = layout.total_length;
        layout.total_length = layout
            .total_length
            .checked_add(file.length)
            .filter(|&total| total.div_ceil(u64::from(piece_length)) <= u64::from(PIECES_MAX))
            .map_or_else(
                || refuse("info: the sum of all lengths", sizes, Reason::TooManyPieces),
                Ok,
            )?;
    }
    let expected = layout.total_length.div_ceil(u64::from(piece_length));
    layout.piece_count = expected as u32; // At most PIECES_MAX, checked above.
    check_pieces(keys, info, expected)?;
    Ok(layout)
}

fn check_pieces(keys: &Keys<'_, '_>, info: Value<'_, '_>, expected: u64) -> Result<()> {
    let field = "info.pieces";
    let value = required(field, keys.pieces, info)?;
    let bytes = field::bytes(field, value)?.len();
    if bytes % 20 != 0 {
        return refuse(field, value, Reason::PiecesNotHashes(bytes));
    }
    let found = bytes / 20;
    if found as u64 != expected {
        return refuse(field, value, Reason::HashCount { found, expected });
    }
    Ok(())
}

fn single<'input>(keys: &Keys<'_, 'input>, length: Value<'_, 'input>) -> Result<Layout<'input>> {
    let mut file = File {
        length: field::integer("info.length", length, 0, LENGTH_MAX)?,
        md5sum: md5sum(keys.md5sum),
        ..File::default()
    };
    let attributes = keys.attr.and_then(Value::as_bytes).unwrap_or_default();
    file.executable = attributes.contains(&b'x');
    file.hidden = attributes.contains(&b'h');
    Ok(Layout {
        files: vec![file],
        raws: vec![RawPath::new()],
        is_multi_file: false,
        piece_count: 0,
        total_length: 0,
    })
}

fn multi<'input>(list: Value<'_, 'input>) -> Result<Layout<'input>> {
    let mut files = Vec::new();
    let mut raws = Vec::new();
    for (index, value) in field::list("info.files", list)?.enumerate() {
        let (file, raw) = file(index, value)?;
        files.push(file);
        raws.push(raw);
    }
    if files.is_empty() {
        return refuse("info.files", list, Reason::Empty);
    }
    Ok(Layout {
        files,
        raws,
        is_multi_file: true,
        piece_count: 0,
        total_length: 0,
    })
}

#[derive(Default)]
struct FileKeys<'doc, 'input> {
    attr: Option<Value<'doc, 'input>>,
    length: Option<Value<'doc, 'input>>,
    md5sum: Option<Value<'doc, 'input>>,
    path: Option<Value<'doc, 'input>>,
    path_utf8: Option<Value<'doc, 'input>>,
    symlink_path: Option<Value<'doc, 'input>>,
}

impl<'doc, 'input> FileKeys<'doc, 'input> {
    fn note(&mut self, entry: Entry<'doc, 'input>) {
        let slot = match entry.key {
            b"attr" => &mut self.attr,
            b"length" => &mut self.length,
            b"md5sum" => &mut self.md5sum,
            b"path" => &mut self.path,
            b"path.utf-8" => &mut self.path_utf8,
            b"symlink path" => &mut self.symlink_path,
            _ => return,
        };
        *slot = Some(entry.value);
    }
}

fn file<'input>(index: usize, value: Value<'_, 'input>) -> Result<(File, RawPath<'input>)> {
    let at = |key: &str| format!("info.files[{index}]{key}");
    let mut keys = FileKeys::default();
    // The names of fields are put together only where they are shown: a torrent may have a million
    // files.
    match value.dict() {
        Some(dict) => dict.entries().for_each(|entry| keys.note(entry)),
        None => field::dict(&at(""), value).map(drop)?,
    }
    let attributes = keys.attr.and_then(Value::as_bytes).unwrap_or_default();
    let (is_symlink, is_pad) = (attributes.contains(&b'l'), attributes.contains(&b'p'));
    let length = match keys.length {
        // A link has no content whatever its length says, as libtorrent reads it too.
        _ if is_symlink => 0,
        None => return refuse(at(".length"), value, Reason::Missing),
        Some(length) => match length.as_unsigned().filter(|&length| length <= LENGTH_MAX) {
            Some(length) => length,
            None => field::integer(&at(".length"), length, 0, LENGTH_MAX)?,
        },
    };
    // A `path.utf-8` of another shape than a path is ignored: `path` is there.
    let utf8 = keys
        .path_utf8
        .and_then(|path| components(&at, ".path.utf-8", path).ok());
    let raw = match (utf8, keys.path) {
        (Some(raw), _) => raw,
        (None, Some(path)) => components(&at, ".path", path)?,
        // A pad file needs no name.
        (None, None) if is_pad => RawPath::new(),
        (None, None) => return refuse(at(".path"), value, Reason::Missing),
    };
    let legacy_pad = raw
        .last()
        .is_some_and(|name| name.starts_with(LEGACY_PAD_PREFIX));
    let file = File {
        path: names::sanitise(&raw),
        length,
        pad: legacy_pad || is_pad,
        executable: attributes.contains(&b'x'),
        hidden: attributes.contains(&b'h'),
        symlink_target: is_symlink
            .then(|| symlink_target(keys.symlink_path))
            .flatten(),
        md5sum: md5sum(keys.md5sum),
        ..File::default()
    };
    Ok((file, raw))
}

/// The components of a path, not empty and within the limit.
fn components<'input>(
    at: &impl Fn(&str) -> String,
    key: &str,
    value: Value<'_, 'input>,
) -> Result<RawPath<'input>> {
    let Some(list) = value.list() else {
        return field::list(&at(key), value).map(|_| RawPath::new());
    };
    let mut raw = RawPath::new();
    for component in list {
        if raw.len() == PATH_DEPTH_MAX {
            return refuse(at(key), value, Reason::PathTooDeep);
        }
        match component.as_bytes() {
            Some(bytes) => raw.push(bytes),
            None => {
                let field = format!("{}[{}]", at(key), raw.len());
                field::bytes(&field, component)?;
            }
        }
    }
    if raw.is_empty() {
        refuse(at(key), value, Reason::Empty)
    } else {
        Ok(raw)
    }
}

/// The target of a link, sanitised like a path so that it points below the torrent's root.
pub(super) fn symlink_target(value: Option<Value<'_, '_>>) -> Option<Vec<String>> {
    let raw: Option<RawPath<'_>> = value?
        .list()?
        .take(PATH_DEPTH_MAX)
        .map(Value::as_bytes)
        .collect();
    raw.filter(|raw| !raw.is_empty())
        .map(|raw| names::sanitise(&raw))
}

/// 32 hex digits; anything else reads as absent.
fn md5sum(value: Option<Value<'_, '_>>) -> Option<[u8; 16]> {
    let digits: &[u8; 32] = value?.as_bytes()?.try_into().ok()?;
    let mut sum = [0; 16];
    for (byte, pair) in sum.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = (high << 4 | low) as u8;
    }
    Some(sum)
}
