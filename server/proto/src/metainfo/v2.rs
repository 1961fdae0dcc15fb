//! The version 2 part of `info`: `file tree` and `piece layers` (BEP 52), and hybrids of both
//! versions.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::error::Reason;
use super::field::{self, Result, refuse, required};
use super::info::{Keys, Layout, shown};
use super::names::{self, RawPath};
use super::{File, merkle, v1};
use crate::bencode::{Entries, Entry, Value};
use crate::limits::{PATH_DEPTH_MAX, PATHS_BYTES_MAX, PIECES_MAX};
use crate::path;

/// What a component costs beside its bytes, for [`PATHS_BYTES_MAX`].
const COMPONENT_COST_BYTES: usize = 32;

/// Where the hashes of the pieces are to be found.
pub(super) enum PieceLayers<'doc, 'input> {
    /// A torrent must have them, if a file is longer than a piece. A hybrid may come without any:
    /// so it does where peers gave its `info` (BEP 9) and somebody made a torrent of that.
    InTorrent {
        root: Value<'doc, 'input>,
        layers: Option<Value<'doc, 'input>>,
    },
    /// An `info` dictionary alone comes without them.
    Absent,
}

impl PieceLayers<'_, '_> {
    /// Whether there are none to be read.
    pub(super) fn are_missing(&self) -> bool {
        matches!(self, Self::Absent | Self::InTorrent { layers: None, .. })
    }
}

/// Reads the file tree. Every file starts on a piece boundary.
pub(super) fn read<'input>(
    keys: &Keys<'_, 'input>,
    info: Value<'_, 'input>,
    raw_name: &[u8],
    piece_length: u32,
) -> Result<Layout<'input>> {
    let field = "info.file tree";
    let tree = required(field, keys.file_tree, info)?;
    let (mut files, raws) = Walk::over(tree)?;
    let piece_length = u64::from(piece_length);
    let mut pieces: u64 = 0;
    let mut total_length = 0;
    for file in &mut files {
        file.offset = pieces * piece_length;
        if file.length == 0 {
            continue;
        }
        // Both terms are bounded before they are added: the length by 2^63, the sum by the limit.
        pieces += file.length.div_ceil(piece_length);
        if pieces > u64::from(PIECES_MAX) {
            return refuse(field, tree, Reason::TooManyPieces);
        }
        total_length = file.offset + file.length;
    }
    // One file that is called like the torrent is a single file, not a directory with one.
    let is_multi_file = !matches!(raws.as_slice(), [only] if only.as_slice() == [raw_name]);
    Ok(Layout {
        files,
        raws,
        is_multi_file,
        piece_count: pieces as u32,
        total_length,
    })
}

/// A walk over the tree, depth first, with a stack of its own.
struct Walk<'doc, 'input> {
    /// The directories that are open, each with the entries still to visit.
    open: Vec<Entries<'doc, 'input>>,
    /// Their names; the root has none.
    path: Vec<&'input [u8]>,
    /// The same names sanitised, each once however many files are below it.
    safe_path: Vec<Option<String>>,
    paths_bytes: usize,
    files: Vec<File>,
    raws: Vec<RawPath<'input>>,
}

impl<'doc, 'input> Walk<'doc, 'input> {
    fn over(tree: Value<'doc, 'input>) -> Result<(Vec<File>, Vec<RawPath<'input>>)> {
        let mut walk = Self {
            open: Vec::new(),
            path: Vec::new(),
            safe_path: Vec::new(),
            paths_bytes: 0,
            files: Vec::new(),
            raws: Vec::new(),
        };
        walk.enter(tree)?;
        while let Some(entries) = walk.open.last_mut() {
            match entries.next() {
                Some(entry) => walk.visit(entry)?,
                None => {
                    walk.open.pop();
                    walk.leave();
                }
            }
        }
        if walk.files.is_empty() {
            return refuse("info.file tree", tree, Reason::Empty);
        }
        Ok((walk.files, walk.raws))
    }

    /// The field under the current path, for errors.
    fn field(&self) -> String {
        let mut field = "info.file tree".to_owned();
        for component in self.path.iter().take(4) {
            field.push_str(&format!("[{}]", shown(component)));
        }
        if self.path.len() > 4 {
            field.push_str("[…]");
        }
        field
    }

    fn enter(&mut self, directory: Value<'doc, 'input>) -> Result<()> {
        let Some(dict) = directory.dict() else {
            return field::dict(&self.field(), directory).map(drop);
        };
        // The order of the keys is the order of the files, so two orders would be two torrents.
        if !dict.is_sorted() {
            return refuse(self.field(), directory, Reason::UnsortedKeys);
        }
        self.open.push(dict.entries());
        Ok(())
    }

    fn visit(&mut self, entry: Entry<'doc, 'input>) -> Result<()> {
        if entry.key.is_empty() {
            // A file's properties stand under the empty key; sorted, it comes first, in a directory
            // too.
            return refuse(self.field(), entry.value, Reason::FileAndDirectory);
        }
        self.path.push(entry.key);
        self.safe_path
            .push(path::sanitise_component(entry.key).map(Cow::into_owned));
        if self.path.len() > PATH_DEPTH_MAX {
            return refuse(self.field(), entry.value, Reason::PathTooDeep);
        }
        let Some(properties) = entry.value.get(b"") else {
            return self.enter(entry.value);
        };
        if entry
            .value
            .dict()
            .is_some_and(|dict| dict.entries().nth(1).is_some())
        {
            return refuse(self.field(), entry.value, Reason::FileAndDirectory);
        }
        let path_bytes: usize = self
            .path
            .iter()
            .map(|component| component.len() + COMPONENT_COST_BYTES)
            .sum();
        self.paths_bytes = self.paths_bytes.saturating_add(path_bytes);
        if self.paths_bytes > PATHS_BYTES_MAX {
            return refuse(self.field(), entry.value, Reason::PathsTooLong);
        }
        let file = self.file(properties)?;
        self.files.push(file);
        self.raws.push(self.path.clone());
        self.leave();
        Ok(())
    }

    /// Drops the last component; leaving the root drops none.
    fn leave(&mut self) {
        self.path.pop();
        self.safe_path.pop();
    }

    fn file(&self, properties: Value<'_, '_>) -> Result<File> {
        let at = |key: &str| format!("{}{key}", self.field());
        let (mut attr, mut length, mut root, mut symlink) = (None, None, None, None);
        let Some(dict) = properties.dict() else {
            return field::dict(&at(""), properties).map(|_| File::default());
        };
        for entry in dict.entries() {
            match entry.key {
                b"attr" => attr = Some(entry.value),
                b"length" => length = Some(entry.value),
                b"pieces root" => root = Some(entry.value),
                b"symlink path" => symlink = Some(entry.value),
                _ => {}
            }
        }
        let attributes = attr.and_then(Value::as_bytes).unwrap_or_default();
        if attributes.contains(&b'p') {
            return refuse(at(".attr"), properties, Reason::PadInFileTree);
        }
        let is_symlink = attributes.contains(&b'l');
        let length = match length {
            // A link has no content whatever its length says, as in version 1.
            _ if is_symlink => 0,
            None => return refuse(at(".length"), properties, Reason::Missing),
            Some(length) => {
                field::integer(".length", length, 0, v1::LENGTH_MAX).map_err(|error| {
                    let field = at(".length");
                    super::MetainfoError { field, ..error }
                })?
            }
        };
        let pieces_root = match root {
            // An empty file has no tree; a root beside it says nothing.
            _ if length == 0 => None,
            None => return refuse(at(".pieces root"), properties, Reason::Missing),
            Some(root) => match root.as_bytes().and_then(|bytes| bytes.try_into().ok()) {
                Some(hash) if hash != [0; 32] => Some(hash),
                _ => return refuse(at(".pieces root"), root, Reason::NotSha256),
            },
        };
        Ok(File {
            path: names::some_name(self.safe_path.iter().flatten().cloned().collect()),
            length,
            executable: attributes.contains(&b'x'),
            hidden: attributes.contains(&b'h'),
            symlink_target: is_symlink.then(|| v1::symlink_target(symlink)).flatten(),
            pieces_root,
            ..File::default()
        })
    }
}

/// The layers that the files need, each verified against its root once, however many files share
/// it.
pub(super) fn verified_layers(
    files: &[File],
    layers: &PieceLayers<'_, '_>,
    piece_length: u32,
) -> Result<HashMap<[u8; 32], Vec<[u8; 32]>>> {
    let PieceLayers::InTorrent { root, layers } = layers else {
        return Ok(HashMap::new());
    };
    let long = |file: &&File| file.length > u64::from(piece_length);
    let needed: HashSet<[u8; 32]> = files
        .iter()
        .filter(long)
        .filter_map(|file| file.pieces_root)
        .collect();
    let mut verified = HashMap::new();
    if needed.is_empty() {
        return Ok(verified);
    }
    let field = "piece layers";
    let dict = field::dict(field, required(field, *layers, *root)?)?;
    let mut offsets = HashMap::new();
    for entry in dict.entries() {
        let Ok(pieces_root) = <[u8; 32]>::try_from(entry.key) else {
            continue;
        };
        if !needed.contains(&pieces_root) || verified.contains_key(&pieces_root) {
            continue;
        }
        let at = || format!("piece layers[{}]", shown(entry.key));
        let bytes = field::bytes(field, entry.value)?;
        let (hashes, rest) = bytes.as_chunks::<32>();
        if !rest.is_empty() {
            return refuse(at(), entry.value, Reason::NotSha256);
        }
        if merkle::root_of_piece_layer(hashes, piece_length) != pieces_root {
            return refuse(at(), entry.value, Reason::PieceLayerWrong);
        }
        verified.insert(pieces_root, hashes.to_vec());
        offsets.insert(pieces_root, entry.value);
    }
    for file in files.iter().filter(long) {
        let Some(pieces_root) = file.pieces_root else {
            continue;
        };
        let at = || format!("piece layers[{}]", shown(&pieces_root));
        let (Some(layer), Some(value)) = (verified.get(&pieces_root), offsets.get(&pieces_root))
        else {
            return refuse(at(), *root, Reason::PieceLayerMissing);
        };
        let expected = file.length.div_ceil(u64::from(piece_length));
        if layer.len() as u64 != expected {
            return refuse(
                at(),
                *value,
                Reason::HashCount {
                    found: layer.len(),
                    expected,
                },
            );
        }
    }
    Ok(verified)
}

/// The layout of a torrent of both versions: that of version 1 with its pad files, the roots of
/// version 2.
pub(super) fn merge_hybrid<'input>(
    keys: &Keys<'_, '_>,
    info: Value<'_, '_>,
    piece_length: u32,
    mut v1_part: Layout<'input>,
    v2_part: &Layout<'input>,
) -> Result<Layout<'input>> {
    let field = if v1_part.is_multi_file {
        "info.files"
    } else {
        "info.length"
    };
    let value = keys.files.or(keys.length).unwrap_or(info);
    let mismatch = || refuse(field, value, Reason::HybridMismatch);
    if v1_part.is_multi_file != v2_part.is_multi_file {
        return mismatch();
    }
    let mut v2_files = v2_part.files.iter().zip(&v2_part.raws);
    for (file, raw) in v1_part
        .files
        .iter_mut()
        .zip(&v1_part.raws)
        .filter(|(file, _)| !file.pad)
    {
        let Some((v2_file, v2_raw)) = v2_files.next() else {
            return mismatch();
        };
        let same_path = !v1_part.is_multi_file || raw == v2_raw;
        if !same_path || file.length != v2_file.length {
            return mismatch();
        }
        if file.length > 0 && file.offset % u64::from(piece_length) != 0 {
            return refuse(field, value, Reason::HybridUnaligned);
        }
        file.pieces_root = v2_file.pieces_root;
    }
    if v2_files.next().is_some() {
        mismatch()
    } else {
        Ok(v1_part)
    }
}
