//! Files that are there already and are not known to be the torrent's: they are written over, which
//! is to be said.
//!
//! Does not: read what is in them; that was done before.

use control::verify::PieceSet;
use engine::picker::Priority;
use proto::ids::PieceIndex;
use proto::metainfo::{File, Metainfo};
use std::path::{Path, PathBuf};

/// The files below `data_dir` in which something will be replaced or cut, of those that are wanted:
/// in them there are pieces that are not among the right `pieces`, or more bytes than the
/// torrent's.
pub fn replaced(
    metainfo: &Metainfo,
    data_dir: &Path,
    priorities: &[Priority],
    pieces: &PieceSet,
) -> Vec<PathBuf> {
    let mut begin = 0;
    let mut replaced = Vec::new();
    for (index, file) in metainfo.files.iter().enumerate() {
        let from = begin;
        begin += file.length;
        let is_wanted = priorities.get(index) != Some(&Priority::SKIP);
        if file.pad || file.symlink_target.is_some() || !is_wanted {
            continue;
        }
        let path = data_dir.join(file.path.iter().collect::<PathBuf>());
        let size = match path.symlink_metadata() {
            Ok(found) if found.is_file() => found.len(),
            _ => continue,
        };
        let is_right = || has_own_pieces(metainfo, file, from, pieces);
        if size > file.length || (size > 0 && !is_right()) {
            replaced.push(path);
        }
    }
    replaced
}

/// Whether the pieces of a file that begins at `from` are right: those that are all its own, or if
/// there are none those that it shares with others.
fn has_own_pieces(metainfo: &Metainfo, file: &File, from: u64, pieces: &PieceSet) -> bool {
    let length = u64::from(metainfo.piece_length);
    let end = from + file.length;
    let own_end = match end == metainfo.total_length {
        true => end.div_ceil(length),
        false => end / length,
    };
    let own = from.div_ceil(length)..own_end;
    let range = match own.is_empty() {
        true => from / length..end.div_ceil(length),
        false => own,
    };
    let piece = |number| u32::try_from(number).map(PieceIndex);
    range
        .map(piece)
        .all(|piece| piece.is_ok_and(|piece| pieces.contains(piece)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::metainfo::{Builder, BuilderFile};

    const PIECE: usize = 16 << 10;

    #[test]
    fn what_is_not_known_to_be_right_is_replaced() {
        let lengths = [2 * PIECE, 2 * PIECE, PIECE / 2, PIECE / 2, PIECE];
        let files = ["right", "wrong", "half", "absent", "long"];
        let builder = Builder {
            name: b"t".to_vec(),
            piece_length: PIECE as u32,
            pieces: vec![0; 20 * 6],
            files: files
                .iter()
                .zip(lengths)
                .map(|(name, length)| BuilderFile {
                    path: vec![name.as_bytes().to_vec()],
                    length: length as u64,
                    ..BuilderFile::default()
                })
                .collect(),
            ..Builder::default()
        };
        let metainfo = Metainfo::parse(&builder.encode()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("t")).unwrap();
        let path = |name: &str| folder.path().join("t").join(name);
        for (name, length) in files.iter().zip(lengths) {
            let more = usize::from(*name == "long");
            std::fs::write(path(name), vec![1; length + more]).unwrap();
        }
        std::fs::remove_file(path("absent")).unwrap();
        let mut pieces = PieceSet::new(metainfo.piece_count);
        for piece in [0, 1, 2, 5] {
            pieces.insert(PieceIndex(piece));
        }
        let of = |priorities: &[Priority]| replaced(&metainfo, folder.path(), priorities, &pieces);
        assert_eq!(of(&[]), ["wrong", "half", "long"].map(path));
        let mut skipped = [Priority::NORMAL; 5];
        skipped[1] = Priority::SKIP;
        assert_eq!(of(&skipped), ["half", "long"].map(path));
    }
}
