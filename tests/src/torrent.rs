//! What a test needs to know of a .torrent file: its v1 info-hash, pieces and files.

use crate::bencode::{Value, decode, raw_entry};
use sha1::{Digest, Sha1};
use std::path::{Path, PathBuf};

/// One file of a torrent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TorrentFile {
    /// Its path under the torrent's name.
    pub path: PathBuf,
    /// Its length in bytes.
    pub length: u64,
}

/// A parsed .torrent file (v1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Torrent {
    /// SHA-1 of the raw `info` value.
    pub info_hash: [u8; 20],
    /// The raw `info` value.
    pub info: Vec<u8>,
    /// The torrent's name.
    pub name: String,
    /// Bytes per piece.
    pub piece_length: u64,
    /// SHA-1 of each piece.
    pub pieces: Vec<[u8; 20]>,
    /// The files; a single-file torrent has one with an empty path.
    pub files: Vec<TorrentFile>,
    /// The main tracker, if there is one.
    pub announce: Option<String>,
}

impl Torrent {
    /// Reads and parses a file.
    pub fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self::parse(&bytes)
    }

    /// Parses the bytes of a .torrent file that a test trusts.
    pub fn parse(bytes: &[u8]) -> Self {
        let (root, _) = decode(bytes);
        let raw = raw_entry(bytes, "info").expect("a torrent has an info dictionary");
        let info = root.get("info").unwrap();
        let files = match info.get("files") {
            Some(files) => files.list().iter().map(read_file).collect(),
            None => {
                let length = info.get("length").expect("length").integer();
                vec![TorrentFile {
                    path: PathBuf::new(),
                    length: u64::try_from(length).unwrap(),
                }]
            }
        };
        Self {
            info_hash: sha1(raw),
            info: raw.to_vec(),
            name: text(info.get("name").expect("name")),
            piece_length: u64::try_from(info.get("piece length").unwrap().integer()).unwrap(),
            pieces: info
                .get("pieces")
                .expect("pieces")
                .bytes()
                .chunks_exact(20)
                .map(|hash| hash.try_into().unwrap())
                .collect(),
            files,
            announce: root.get("announce").map(text),
        }
    }

    /// Bytes of all files.
    pub fn length(&self) -> u64 {
        self.files.iter().map(|file| file.length).sum()
    }

    /// The info-hash in hexadecimal.
    pub fn info_hash_hex(&self) -> String {
        hex(&self.info_hash)
    }

    /// The length of a piece; the last one may be shorter.
    pub fn piece_size(&self, piece: u32) -> u32 {
        let start = u64::from(piece) * self.piece_length;
        u32::try_from(self.piece_length.min(self.length() - start)).unwrap()
    }

    /// True when `data` is that piece.
    pub fn is_piece(&self, piece: u32, data: &[u8]) -> bool {
        sha1(data) == self.pieces[piece as usize]
    }

    /// The pieces that overlap the file with this path.
    pub fn pieces_of(&self, path: &Path) -> std::ops::RangeInclusive<u32> {
        let index = self
            .files
            .iter()
            .position(|file| file.path == path)
            .expect("file in torrent");
        let start: u64 = self.files[..index].iter().map(|file| file.length).sum();
        let last = (start + self.files[index].length).max(start + 1) - 1;
        let piece = |at: u64| u32::try_from(at / self.piece_length).unwrap();
        piece(start)..=piece(last)
    }
}

/// SHA-1 of `bytes`.
pub fn sha1(bytes: &[u8]) -> [u8; 20] {
    Sha1::digest(bytes).into()
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes from hexadecimal.
pub fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
        .collect()
}

fn read_file(entry: &Value) -> TorrentFile {
    let path = entry
        .get("path")
        .expect("path")
        .list()
        .iter()
        .map(text)
        .collect();
    let length = u64::try_from(entry.get("length").expect("length").integer()).unwrap();
    TorrentFile { path, length }
}

fn text(value: &Value) -> String {
    String::from_utf8(value.bytes().to_vec()).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_a_file() {
        let torrent = Torrent {
            info_hash: [0; 20],
            info: Vec::new(),
            name: "x".into(),
            piece_length: 10,
            pieces: vec![[0; 20]; 3],
            files: vec![
                TorrentFile {
                    path: "a".into(),
                    length: 9,
                },
                TorrentFile {
                    path: "b".into(),
                    length: 12,
                },
            ],
            announce: None,
        };
        assert_eq!(torrent.pieces_of(Path::new("a")), 0..=0);
        assert_eq!(torrent.pieces_of(Path::new("b")), 0..=2);
        assert_eq!(torrent.piece_size(2), 1);
    }

    #[test]
    fn hexadecimal_round_trip() {
        assert_eq!(unhex(&hex(&[0, 255, 16])), [0, 255, 16]);
    }
}
